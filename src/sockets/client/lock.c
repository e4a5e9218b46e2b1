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

/* By what the word is changed everywhere. */
typedef bool (*cas_fn)(uint32_t *word, uint32_t *expected, uint32_t desired);

static bool
cas_locked(uint32_t *word, uint32_t *expected, uint32_t desired)
{
    return __atomic_compare_exchange_n(word, expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static bool
cas_own(uint32_t *word, uint32_t *expected, uint32_t desired)
{
    return sole_cas32(word, expected, desired);
}

static bool
acquire_slow(uint32_t *word, cas_fn cas)
{
    const struct timespec bound = { 0, OWNER_CHECK_NS };
    uint32_t self = lock_tid();
    unsigned i;

    for (i = 0;; i++) {
        uint32_t v = __atomic_load_n(word, __ATOMIC_RELAXED);

        if (v == 0) {
            /* Whether others still sleep is unknown once we have slept ourselves: keep their flag. */
            if (cas(word, &v, i < SPINS ? self : self | LOCK_WAITERS))
                return true;
            continue;
        }
        if ((v & ~LOCK_WAITERS) == self || (cas == cas_own && sole_is_inside()))
            return false;
        if (i < SPINS) {
            if (i % 16 == 15)
                sched_yield();
            else
                rte_pause();
            continue;
        }
        if (!(v & LOCK_WAITERS) && !cas(word, &v, v | LOCK_WAITERS))
            continue;
        v |= LOCK_WAITERS;
        if (libc()->syscall(SYS_futex, word, FUTEX_WAIT, v, &bound, NULL, 0) != 0 && errno == ETIMEDOUT &&
            owner_is_dead(v & ~LOCK_WAITERS) && cas(word, &v, self | LOCK_WAITERS))
            return true;
    }
}

static void
release_slow(uint32_t *word, cas_fn cas)
{
    uint32_t v = __atomic_load_n(word, __ATOMIC_RELAXED);

    while (!cas(word, &v, 0))
        ;
    if (v & LOCK_WAITERS)
        libc()->syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

bool
lock_acquire_slow(uint32_t *word)
{
    return acquire_slow(word, cas_locked);
}

/* Slow, and the usual way where nobody is sole: first what mostly does, here and in the release. */
bool
lock_acquire_own_slow(uint32_t *word)
{
    uint32_t expected = 0;

    return sole_cas32(word, &expected, lock_tid()) || acquire_slow(word, cas_own);
}

void
lock_release_slow(uint32_t *word)
{
    release_slow(word, cas_locked);
}

void
lock_release_own_slow(uint32_t *word)
{
    uint32_t expected = lock_tid_cache;

    if (!sole_cas32(word, &expected, 0))
        release_slow(word, cas_own);
}
