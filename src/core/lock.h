/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_LOCK_H
#define CORE_LOCK_H

#include <sched.h>
#include <stdbool.h>

#include <rte_branch_prediction.h>
#include <rte_pause.h>

#include "core/clock.h"
#include "core/counter.h"

/**
 * @file
 * A spin lock that counts: how often it was taken, how often someone had to wait, and for how long. The holder may have lost its CPU to
 * the one who waits, so waiting spins briefly and then yields. The counters of a class follow each other: acquired, contended, cycles waited.
 */

struct lock {
    uint32_t held; /**< 1 or 0; by the compiler's atomics, which the thread sanitizer follows */
};

#define LOCK_SPINS 200u

/** Take it if nobody holds it. Not counted. */
static inline bool
lock_try_take(struct lock *k)
{
    return __atomic_exchange_n(&k->held, 1, __ATOMIC_ACQUIRE) == 0;
}

/** Any thread; ctr are its own counters, class the first of the lock class's three. */
static inline void
lock_take(struct lock *k, struct counters *ctr, enum counter_id class)
{
    uint64_t since;
    unsigned spins = 0;

    counter_inc(ctr, class);
    if (likely(lock_try_take(k)))
        return;
    since = clock_cycles();
    do {
        while (__atomic_load_n(&k->held, __ATOMIC_RELAXED) != 0) {
            if (++spins < LOCK_SPINS)
                rte_pause();
            else
                sched_yield();
        }
    } while (!lock_try_take(k));
    counter_inc(ctr, (enum counter_id)(class + 1));
    counter_add(ctr, (enum counter_id)(class + 2), clock_cycles() - since);
}

static inline void
lock_give(struct lock *k)
{
    __atomic_store_n(&k->held, 0, __ATOMIC_RELEASE);
}

#endif /* CORE_LOCK_H */
