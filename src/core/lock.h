/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_LOCK_H
#define CORE_LOCK_H

#include <sched.h>
#include <stdbool.h>

#include <rte_pause.h>
#include <rte_spinlock.h>

#include "core/clock.h"
#include "core/counter.h"

/**
 * @file
 * A spin lock that counts: how often it was taken, how often someone had to wait, and for how long. The holder may have lost its CPU to
 * the one who waits, so waiting spins briefly and then yields. The counters of a class follow each other: acquired, contended, cycles waited.
 */

struct lock {
    rte_spinlock_t l;
};

#define LOCK_SPINS 200u

/** Any thread; ctr are its own counters, class the first of the lock class's three. */
static inline void
lock_take(struct lock *k, struct counters *ctr, enum counter_id class)
{
    uint64_t since;
    unsigned spins = 0;

    counter_inc(ctr, class);
    if (likely(rte_spinlock_trylock(&k->l)))
        return;
    since = clock_cycles();
    do {
        while (rte_spinlock_is_locked(&k->l)) {
            if (++spins < LOCK_SPINS)
                rte_pause();
            else
                sched_yield();
        }
    } while (!rte_spinlock_trylock(&k->l));
    counter_inc(ctr, (enum counter_id)(class + 1));
    counter_add(ctr, (enum counter_id)(class + 2), clock_cycles() - since);
}

static inline void
lock_give(struct lock *k)
{
    rte_spinlock_unlock(&k->l);
}

#endif /* CORE_LOCK_H */
