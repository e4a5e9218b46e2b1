/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_SOLE_H
#define SOCKETS_CLIENT_SOLE_H

#include <stdbool.h>
#include <stdint.h>

#include "front.h"

/**
 * @file
 * Locks and counts without locked instructions while one thread alone uses the front-end, and runs the stack within its calls. A locked instruction costs about twenty
 * cycles and waits for all stores before it; a request has two dozen, all of them for other threads that are not there.
 *
 * One thread at a time is *sole*. What it does to a word that others may change, it does between sole_enter and sole_leave by plain instructions; each still
 * takes effect as a whole, so that a signal handler of the same thread finds no half of one. Another thread that comes waits until the sole one is outside, once and
 * for all (a system call, membarrier, sees to it that the sole one knows), and is then sole itself. After SOLE_TERMS such terms the program is taken
 * to have several threads indeed: nobody is sole any more, and everything is locked as across processes.
 *
 * A call that neither waits nor finds anything unusual is inside from its begin to its end (fd_enter_stack), and one that takes a lock for a moment, as long as it has that
 * (lock_acquire_brief): the plain instructions then need no terms of their own. The program's buffer is copied in there, so that a signal handler which leaves such a call
 * by siglongjmp keeps other threads out for good.
 *
 * Only where the stack is in the program, run by the threads that call it (sole_begin): who is sole has front->local, a stack that lives, and sends that may pile up. Not for other
 * CPUs than x86-64, nor under the thread sanitizer, which cannot see plain instructions' order.
 */

/** front->sole.term while this thread is sole there. */
extern __thread uint32_t sole_own;

uint32_t sole_enter_slow(void);
/** Between sole_enter and sole_leave, perhaps of what a signal handler has interrupted. */
bool sole_is_inside(void);

/** This thread is sole on its front from now on, if the system can do it. */
void sole_begin(void);
/** Nobody is sole on any front any more, for good: before a fork, whose child shares the regions. */
void sole_end(void);
/** The same on the front that the calling thread uses alone: before its stack goes, which who is sole need not ask about. */
void sole_end_here(void);
/** In the child. */
void sole_forked(void);
/** Before and after `front` changes to another one; a thread may be sole on several. */
void sole_leave_front(void);
void sole_enter_front(void);

#if defined(__x86_64__)
#define SOLE_CHANGE(word, by) __asm__ volatile("addl %1, %0" : "+m"(word) : "i"(by) : "memory")
#else
#define SOLE_CHANGE(word, by) __atomic_fetch_add(&(word), (uint32_t)(by), __ATOMIC_ACQ_REL)
#endif

/** As sole_enter, but nobody is waited for: SOLE_NOBODY also where this thread is not sole, or may not be any more. */
static inline uint32_t
sole_try_enter(void)
{
    uint32_t term = __atomic_load_n(&front->sole.term, __ATOMIC_RELAXED);

    if (__builtin_expect(term != sole_own, 0))
        return SOLE_NOBODY;
    SOLE_CHANGE(front->sole.inside[term], 1);
    /* Whoever ends the term has a barrier executed here, between ending it and looking whether we are inside. */
    if (__builtin_expect(__atomic_load_n(&front->sole.term, __ATOMIC_ACQUIRE) == term, 1)) {
        if (term == SOLE_NOBODY)
            __builtin_unreachable(); /* sole_own never is */
        return term;
    }
    SOLE_CHANGE(front->sole.inside[term], -1);
    return SOLE_NOBODY;
}

/**
 * The caller alone is in here until sole_leave, which is to get the result. May be nested, and nothing in it sleeps or waits for a lock, whose holder may have to wait for
 * us. SOLE_NOBODY: there are others, and always will be.
 */
static inline uint32_t
sole_enter(void)
{
    uint32_t term = sole_try_enter();

    return __builtin_expect(term != SOLE_NOBODY, 1) ? term : sole_enter_slow();
}

static inline void
sole_leave(uint32_t term)
{
    SOLE_CHANGE(front->sole.inside[term], -1);
}

/** A full fence against threads that there may be. A term that ends meanwhile brings one along. */
static inline void
sole_fence(void)
{
    if (__builtin_expect(__atomic_load_n(&front->sole.term, __ATOMIC_RELAXED) != sole_own, 0))
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/** For who has announced something by an atomic: whoever is sole, and has no fence before it looks, has been outside since, or sees it from its next look on. */
static inline void
sole_meet(void)
{
    uint32_t term = sole_enter();

    if (__builtin_expect(term != SOLE_NOBODY, 1))
        sole_leave(term);
}

/* ---- what stands for the compiler's atomics, with the order of acquire and release ----------------------------------------- */

#if defined(__x86_64__)
#define SOLE_CAS(suffix)                                                                                               \
    bool same;                                                                                                         \
                                                                                                                       \
    __asm__ volatile("cmpxchg" suffix " %3, %1"                                                                        \
                     : "=@ccz"(same), "+m"(*word), "+a"(*expected)                                                     \
                     : "r"(desired)                                                                                    \
                     : "memory");                                                                                      \
    return same
#define SOLE_ADD __asm__ volatile("xaddl %0, %1" : "+r"(change), "+m"(*word) : : "memory")
#define SOLE_DROP                                                                                                      \
    bool none;                                                                                                         \
                                                                                                                       \
    __asm__ volatile("subl $1, %1" : "=@ccz"(none), "+m"(*word) : : "memory");                                         \
    return none
#else
#define SOLE_CAS(suffix)                                                                                               \
    return __atomic_compare_exchange_n(word, expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
#define SOLE_ADD change = __atomic_fetch_add(word, change, __ATOMIC_ACQ_REL)
#define SOLE_DROP return __atomic_sub_fetch(word, 1, __ATOMIC_ACQ_REL) == 0
#endif

static inline bool
sole_cas32_inside(uint32_t *word, uint32_t *expected, uint32_t desired)
{
    SOLE_CAS("l");
}

static inline bool
sole_cas64_inside(uint64_t *word, uint64_t *expected, uint64_t desired)
{
    SOLE_CAS("q");
}

/** One less. Returns whether that is 0. */
static inline bool
sole_drop_inside(uint32_t *word)
{
    SOLE_DROP;
}

static inline bool
sole_cas32(uint32_t *word, uint32_t *expected, uint32_t desired)
{
    uint32_t term = sole_enter();
    bool same;

    if (__builtin_expect(term == SOLE_NOBODY, 0))
        return __atomic_compare_exchange_n(word, expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    same = sole_cas32_inside(word, expected, desired);
    sole_leave(term);
    return same;
}

static inline bool
sole_cas64(uint64_t *word, uint64_t *expected, uint64_t desired)
{
    uint32_t term = sole_enter();
    bool same;

    if (__builtin_expect(term == SOLE_NOBODY, 0))
        return __atomic_compare_exchange_n(word, expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    same = sole_cas64_inside(word, expected, desired);
    sole_leave(term);
    return same;
}

/** As sole_cas32 where this thread is sole, and without a call; false also where it is not, or may not be any more: then nothing was done. */
static inline bool
sole_cas32_quick(uint32_t *word, uint32_t expected, uint32_t desired)
{
    uint32_t term = sole_try_enter();
    bool same;

    if (__builtin_expect(term == SOLE_NOBODY, 0))
        return false;
    same = sole_cas32_inside(word, &expected, desired);
    sole_leave(term);
    return same;
}

/** Returns the sum. */
static inline uint32_t
sole_add_fetch(uint32_t *word, uint32_t change)
{
    uint32_t term = sole_enter(), added = change;

    if (__builtin_expect(term == SOLE_NOBODY, 0))
        return __atomic_add_fetch(word, change, __ATOMIC_ACQ_REL);
    SOLE_ADD;
    sole_leave(term);
    return change + added;
}

#undef SOLE_CAS
#undef SOLE_ADD
#undef SOLE_DROP

#endif /* SOCKETS_CLIENT_SOLE_H */
