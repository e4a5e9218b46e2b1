/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef MODES_COMMON_H
#define MODES_COMMON_H

#include "modes/mode.h"

/**
 * @file
 * What the modes have in common: workers over a host, and the order of a pass. They differ in how many domains there are, whether these have locks or
 * owners, and where a packet is applied (mode_ops.packets).
 */

struct mode {
    const struct mode_ops *ops;
    struct host *host;
    struct counters *ctr[SHM_MAX_INSTANCES];
    unsigned nb_workers;
    unsigned rings_per_instance;
    void *own; /**< what the mode keeps beside */
};

struct mode_shape {
    unsigned nb_workers;
    unsigned nb_domains;
    bool locking; /**< domains have locks rather than owners */
    bool shared, free_lookup; /**< as in struct host_config */
    unsigned rings_per_instance;
};

/**
 * The value of a knob that says how many workers there are: 0 becomes as many as there are lcores, as far as the mode can use them (most). More than
 * that: -EINVAL, also in errno, with one line in err.
 */
int common_count_workers(const struct mode_config *cfg, const char *mode, const char *knob, unsigned most, uint32_t *n,
                         char *err, size_t err_len);

/** One queue: for a mode with one worker. */
int common_plan_one(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len);

/** The knob `steer`, for a mode with several workers. Its value is an enum port_steer. */
#define COMMON_STEER_ROW(type_, field_)                                                                                \
    {                                                                                                                  \
        .name = "steer", .default_text = "auto", .type = OPTION_ENUM, .choices = common_steer_choices,                 \
        .offset = offsetof(type_, field_),                                                                             \
        .help = "How the port divides frames over the workers: RSS, filters, its own rule, not at all; auto = the "    \
                "best it has.",                                                                                        \
    }
extern const char *const common_steer_choices[];

/** Create the host of cfg with its workers' counters. NULL with one line in err. */
struct mode *common_create(const struct mode_ops *ops, const struct mode_config *cfg, const struct mode_shape *shape,
                           char *err, size_t err_len);
void common_destroy(struct mode *m);

unsigned common_nb_workers(const struct mode *m);
unsigned common_poll(struct mode *m, unsigned w, uint64_t now_us);
unsigned common_commands(struct mode *m, unsigned w, uint64_t now_us);
struct host *common_host(struct mode *m);
unsigned common_rings_per_instance(const struct mode *m);

/** What every mode reports. */
void common_report(const struct mode *m, FILE *out);

/** A lock class: class is the first of its three counters. "NAME_locks_taken", "..._contended", "..._contended_percent", "..._wait_cycles". */
void common_report_lock(const struct mode *m, const char *name, enum counter_id class, FILE *out);

/** Sum of a counter over the workers. */
uint64_t common_sum(const struct mode *m, enum counter_id id);

/** All packets to domain 0. */
void common_packets_one(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us);

/** Each packet to its domain's owner, by hand-over if that is another worker. Returns how many were handed over. */
unsigned common_packets_owned(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us);
void common_report_handover(const struct mode *m, FILE *out);

#endif /* MODES_COMMON_H */
