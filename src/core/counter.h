/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_COUNTER_H
#define CORE_COUNTER_H

#include <stdint.h>

/**
 * @file
 * Counters: one array of 64-bit values for each worker, written by that worker alone and read by anyone
 * (a torn read is impossible on the 64-bit machines that DPDK supports; a slightly stale one is fine).
 * counters.def holds every name and its text; tools, telemetry and docs are generated from it.
 */

enum counter_id {
#define COUNTER(id, name, text) CTR_##id,
#include "core/counters.def"
#undef COUNTER
    CTR_COUNT
};

struct counters {
    uint64_t v[CTR_COUNT];
} __attribute__((aligned(64)));

struct counter_info {
    const char *name;
    const char *text;
};

/** Name and meaning of each counter, indexed by enum counter_id. */
extern const struct counter_info counter_infos[CTR_COUNT];

static inline void
counter_add(struct counters *c, enum counter_id id, uint64_t n)
{
    c->v[id] += n;
}

static inline void
counter_inc(struct counters *c, enum counter_id id)
{
    c->v[id]++;
}

#endif /* CORE_COUNTER_H */
