/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef MODES_SINGLE_H
#define MODES_SINGLE_H

#include "modes/mode.h"

/**
 * @file
 * What the modes with one domain that one worker owns have in common: everything but their knobs.
 */

struct mode {
    const struct mode_ops *ops;
    struct stack *stack;
    struct counters *ctr;
    unsigned rings_per_instance;
};

/** Create the stack of cfg with the worker's counters. NULL with one line in err. */
struct mode *single_create(const struct mode_ops *ops, const struct mode_config *cfg, unsigned rings_per_instance,
                           char *err, size_t err_len);
void single_destroy(struct mode *m);

unsigned single_nb_workers(const struct mode *m);
unsigned single_poll(struct mode *m, unsigned w, uint64_t now_us);
void single_packets(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us);
unsigned single_commands(struct mode *m, unsigned w, uint64_t now_us);
struct stack *single_stack(struct mode *m, unsigned w);
unsigned single_rings_per_instance(const struct mode *m);
void single_report(const struct mode *m, FILE *out);

#endif /* MODES_SINGLE_H */
