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

/* A plain addition of one instruction, where an atomic load and store would be three. Others may read the value meanwhile, and see the old one or the new one: the thread
 * sanitizer is told that this is known. */
#define COUNTER_WRITER __attribute__((no_sanitize("thread")))

COUNTER_WRITER static inline void
counter_add(struct counters *c, enum counter_id id, uint64_t n)
{
    c->v[id] += n;
}

COUNTER_WRITER static inline void
counter_inc(struct counters *c, enum counter_id id)
{
    c->v[id]++;
}

/** What any thread sees of a count that another one keeps. */
static inline uint64_t
counter_read(const struct counters *c, unsigned id)
{
    return __atomic_load_n(&c->v[id], __ATOMIC_RELAXED);
}

/** Longest name of a worker in the registry, its terminator included. */
#define COUNTERS_NAME_LEN 32
/** Arrays that the registry holds at most. */
#define COUNTERS_MAX 256

/**
 * Show a worker's array to the tools. name: unique; it is copied. c stays the caller's, and must stay valid until
 * counters_unregister. Any thread. Returns 0, -EEXIST for a name in use, -ENOSPC if the registry is full, -EINVAL
 * for an empty or too long name.
 */
int counters_register(const char *name, const struct counters *c);

/** Take the array out; what it counted stays in the sum, so that totals never run backwards. Any thread. */
void counters_unregister(const struct counters *c);

/** Sum over all arrays, also those that are gone. Any thread. */
void counters_sum(struct counters *out);

/** Copy the array of that name. Any thread. Returns 0 or -ENOENT. */
int counters_get(const char *name, struct counters *out);

/** Name of the i-th array. Any thread. Returns 0, or -ENOENT at the end. */
int counters_name(unsigned i, char name[COUNTERS_NAME_LEN]);

#endif /* CORE_COUNTER_H */
