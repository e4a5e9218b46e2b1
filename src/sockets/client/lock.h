/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_LOCK_H
#define SOCKETS_CLIENT_LOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libc.h"
#include "sole.h"

/**
 * @file
 * A lock in one 32-bit word, which may lie in memory that a family of processes shares: 0 = free, else the owner's thread id, and LOCK_WAITERS if
 * someone sleeps on it. Since the word names its owner, the others notice that it died and take over; what a lock guards here is always
 * left usable, since each change takes effect by one store. Nothing that may sleep is done under a lock.
 */

#define LOCK_WAITERS 0x80000000u

extern __thread uint32_t lock_tid_cache;

/** The caller's thread id, without a system call from the second time on. */
static inline uint32_t
lock_tid(void)
{
    if (__builtin_expect(lock_tid_cache == 0, 0))
        lock_tid_cache = (uint32_t)libc()->syscall(SYS_gettid);
    return lock_tid_cache;
}

bool lock_acquire_slow(uint32_t *word);
void lock_release_slow(uint32_t *word);

/**
 * Take the lock; lock_release gives it back. False, without the lock, only if this very thread holds it already: we are in a signal handler
 * that interrupted the holder.
 */
static inline bool
lock_acquire(uint32_t *word)
{
    uint32_t expected = 0;

    if (__builtin_expect(
            __atomic_compare_exchange_n(word, &expected, lock_tid(), false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED), 1))
        return true;
    return lock_acquire_slow(word);
}

/** Take it only if nobody has it. */
static inline bool
lock_try(uint32_t *word)
{
    uint32_t expected = 0;

    return __atomic_compare_exchange_n(word, &expected, lock_tid(), false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline void
lock_release(uint32_t *word)
{
    uint32_t expected = lock_tid_cache;

    if (__builtin_expect(!__atomic_compare_exchange_n(word, &expected, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED),
                         0))
        lock_release_slow(word);
}

/*
 * The same for a word of the front that the calling thread uses, by plain instructions where a thread is sole: for such a word either these or the above, never both. False also
 * inside (sole_enter), instead of waiting.
 */

bool lock_acquire_own_slow(uint32_t *word);
void lock_release_own_slow(uint32_t *word);

static inline bool
lock_acquire_own(uint32_t *word)
{
    return __builtin_expect(sole_cas32_quick(word, 0, lock_tid()), 1) || lock_acquire_own_slow(word);
}

static inline bool
lock_try_own(uint32_t *word)
{
    uint32_t expected = 0;

    return sole_cas32(word, &expected, lock_tid());
}

static inline void
lock_release_own(uint32_t *word)
{
    if (__builtin_expect(!sole_cas32_quick(word, lock_tid_cache, 0), 0))
        lock_release_own_slow(word);
}

/** Inside, and given back there: no other thread sees it taken, nor waits for it. It is free: a signal handler in between leaves it so. */
static inline void
lock_take_inside(uint32_t *word)
{
    __atomic_store_n(word, lock_tid_cache, __ATOMIC_RELAXED); /* whoever is sole has asked for it */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/** False: somebody has it. */
static inline bool
lock_try_inside(uint32_t *word)
{
    if (__builtin_expect(__atomic_load_n(word, __ATOMIC_RELAXED) != 0, 0))
        return false;
    lock_take_inside(word);
    return true;
}

static inline void
lock_release_inside(uint32_t *word)
{
    __atomic_store_n(word, 0, __ATOMIC_RELEASE);
}

/** What a term was entered for takes longer than a moment: other threads may come. Locks that were taken in it stay taken. */
static inline void
lock_stay_outside(uint32_t *term)
{
    if (*term != SOLE_NOBODY)
        sole_leave(*term);
    *term = SOLE_NOBODY;
}

/** As lock_acquire_own, by somebody who is inside by *term, if it is not SOLE_NOBODY, and may not be thereafter; for lock_release_too. */
static inline bool
lock_acquire_too(uint32_t *word, uint32_t *term)
{
    if (__builtin_expect(*term != SOLE_NOBODY, 1) && lock_try_inside(word))
        return true;
    lock_stay_outside(term);
    return lock_acquire_own(word);
}

static inline void
lock_release_too(uint32_t *word, uint32_t term)
{
    if (__builtin_expect(term == SOLE_NOBODY, 0))
        lock_release_own(word);
    else
        lock_release_inside(word);
}

/**
 * As lock_acquire_own, for a moment in which nothing is waited for: where this thread is sole it is inside until lock_release_brief, which is to get *term.
 */
static inline bool
lock_acquire_brief(uint32_t *word, uint32_t *term)
{
    *term = sole_try_enter();
    return lock_acquire_too(word, term);
}

static inline void
lock_release_brief(uint32_t *word, uint32_t term)
{
    lock_release_too(word, term);
    if (__builtin_expect(term != SOLE_NOBODY, 1))
        sole_leave(term);
}

#endif /* SOCKETS_CLIENT_LOCK_H */
