/* SPDX-License-Identifier: BSD-3-Clause */
#include "sole.h"

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>

#include "libc.h"
#include "lock.h"

/* Neither a term, nor one that is being ended, nor nobody's. */
#define NO_TERM (SOLE_NOBODY - 1)

__thread uint32_t sole_own = NO_TERM;
static __thread uint32_t own_of[FRONT_MAX]; /* of the fronts that the thread does not use just now; 0 = no term */

static bool
has_membarrier(void)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
    return libc()->syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
#else
    return false;
#endif
}

void
sole_begin(void)
{
    /* Once: who has heard that nobody is sole does not ask again. */
    if (__atomic_exchange_n(&front->sole.begun, 1, __ATOMIC_ACQ_REL) != 0 || !has_membarrier())
        return;
    lock_tid();
    sole_own = 1;
    __atomic_store_n(&front->sole.term, 1, __ATOMIC_RELEASE);
}

/* End the term that front->sole.term shows, another thread's or our own; the next is ours, unless nobody is to be sole any more. */
static void
change_term(uint32_t shown, bool for_good)
{
    uint32_t ending = shown & ~1u, next = ending + 3;
    bool own = sole_own == (shown | 1u);

    if (shown != ending &&
        !__atomic_compare_exchange_n(&front->sole.term, &shown, ending, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    libc()->syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    /* Our own: a signal handler forks that has interrupted us inside. Waiting would be for ever. */
    while (!own && __atomic_load_n(&front->sole.inside[ending + 1], __ATOMIC_ACQUIRE) != 0)
        sched_yield();
    if (for_good || next >= 2 * SOLE_TERMS)
        next = SOLE_NOBODY;
    lock_tid();
    /* A signal handler that comes between the two finds a term that is not ours, which is always safe. */
    if (__atomic_compare_exchange_n(&front->sole.term, &ending, next, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED) &&
        next != SOLE_NOBODY)
        sole_own = next;
}

bool
sole_is_inside(void)
{
    return sole_own != NO_TERM && __atomic_load_n(&front->sole.inside[sole_own], __ATOMIC_RELAXED) > 0;
}

uint32_t
sole_enter_slow(void)
{
    uint32_t own = sole_own, term = __atomic_load_n(&front->sole.term, __ATOMIC_ACQUIRE);

    /* Whoever ends our term still waits for us. */
    if (sole_is_inside()) {
        __atomic_store_n(&front->sole.inside[own], front->sole.inside[own] + 1, __ATOMIC_RELAXED);
        return own;
    }
    if (term == SOLE_NOBODY)
        return SOLE_NOBODY;
    if (term != own)
        change_term(term, false);
    return sole_enter();
}

void
sole_leave_front(void)
{
    own_of[front->number] = sole_own;
    sole_own = NO_TERM;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* A signal handler in between has no term, and what it gets is forgotten: both are safe. */
void
sole_enter_front(void)
{
    uint32_t own = own_of[front->number];

    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    sole_own = own != 0 ? own : NO_TERM;
}

void
sole_end_here(void)
{
    uint32_t term;

    while ((term = __atomic_load_n(&front->sole.term, __ATOMIC_ACQUIRE)) != SOLE_NOBODY)
        change_term(term, true);
}

static void
on_each_front(void (*fn)(void))
{
    struct front *was = front;

    for (uint32_t i = 0; i < FRONT_MAX; i++) {
        struct front *f = __atomic_load_n(&front_of[i], __ATOMIC_ACQUIRE);

        if (f == NULL)
            continue;
        sole_leave_front();
        front = f;
        sole_enter_front();
        fn();
    }
    sole_leave_front();
    front = was;
    sole_enter_front();
}

void
sole_end(void)
{
    on_each_front(sole_end_here);
}

static void
forget(void)
{
    __atomic_store_n(&front->sole.term, SOLE_NOBODY, __ATOMIC_RELEASE);
}

void
sole_forked(void)
{
    on_each_front(forget);
}
