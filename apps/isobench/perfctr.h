/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOBENCH_PERFCTR_H
#define ISOBENCH_PERFCTR_H

#include <stdbool.h>
#include <stdint.h>

/**
 * @file
 * The processor's counters for the calling thread, kernel included where that is allowed. On the machines aimed at the generic cache-misses event counts misses
 * of the second-level cache.
 */

enum perfctr_event { PERFCTR_CYCLES, PERFCTR_INSTRUCTIONS, PERFCTR_L2_MISSES, PERFCTR_COUNT };

struct perfctr {
    int fd[PERFCTR_COUNT]; /**< -1: not to be had here */
};

struct perfctr_values {
    bool valid[PERFCTR_COUNT];
    bool user_only; /**< the system forbids counting the kernel's share */
    uint64_t v[PERFCTR_COUNT];
};

/** Start to count for the calling thread. What cannot be counted is left out. */
void perfctr_start(struct perfctr *p, struct perfctr_values *out);

/** Stop and fill out. */
void perfctr_stop(struct perfctr *p, struct perfctr_values *out);

/** Add up; an event counts as valid if it is in both. */
void perfctr_add(struct perfctr_values *sum, const struct perfctr_values *v);

#endif /* ISOBENCH_PERFCTR_H */
