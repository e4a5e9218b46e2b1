/* SPDX-License-Identifier: BSD-3-Clause */
#include "lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <time.h>

#include <rte_pause.h>

#define SPINS 64u
#define OWNER_CHECK_NS 20000000L /* how long to sleep before asking whether the owner lives */

__thread uint32_t lock_tid_cache;

static bool
owner_is_dead(uint32_t tid)
{
    int saved_errno = errno;
    bool dead = libc()->syscall(SYS_tkill, tid, 0) != 0 && errno == ESRCH;

    errno = saved_errno;
    return dead;
}

bool
lock_acquire_slow(uint32_t *word)
{
    const struct timespec bound = { 0, OWNER_CHECK_NS };
    uint32_t self = lock_tid();
    unsigned i;

    for (i = 0;; i++) {
        uint32_t v = __atomic_load_n(word, __ATOMIC_RELAXED);

        if (v == 0) {
            /* Whether others still sleep is unknown once we have slept ourselves: keep their flag. */
            if (__atomic_compare_exchange_n(word, &v, i < SPINS ? self : self | LOCK_WAITERS, false, __ATOMIC_ACQUIRE,
                                            __ATOMIC_RELAXED))
                return true;
            continue;
        }
        if ((v & ~LOCK_WAITERS) == self)
            return false;
        if (i < SPINS) {
            if (i % 16 == 15)
                sched_yield();
            else
                rte_pause();
            continue;
        }
        if (!(v & LOCK_WAITERS) &&
            !__atomic_compare_exchange_n(word, &v, v | LOCK_WAITERS, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            continue;
        v |= LOCK_WAITERS;
        if (libc()->syscall(SYS_futex, word, FUTEX_WAIT, v, &bound, NULL, 0) != 0 && errno == ETIMEDOUT &&
            owner_is_dead(v & ~LOCK_WAITERS) &&
            __atomic_compare_exchange_n(word, &v, self | LOCK_WAITERS, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return true;
    }
}

void
lock_release_slow(uint32_t *word)
{
    uint32_t v = __atomic_exchange_n(word, 0, __ATOMIC_RELEASE);

    if (v & LOCK_WAITERS)
        libc()->syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}
