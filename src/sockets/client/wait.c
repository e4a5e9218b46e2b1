/* SPDX-License-Identifier: BSD-3-Clause */
#include "front.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_pause.h>

#include "libc.h"
#include "pollset.h"

/* A sleeper looks this often whether the stack still lives. */
#define ALIVE_CHECK_US 200000u

/* Spinning pays if the answer comes sooner than a sleep and a wake-up would take: 5 us each, several times that on a virtual machine. */
#define SPIN_MAX 1024u
#define SPIN_FIRST 64u
#define SPIN_MIN 4u
/* A small budget never finds out that a large one would pay: so often the largest is tried. */
#define SPIN_TRY_EVERY 16u

uint64_t
wait_now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

/* A yield that takes longer than this (about a microsecond) let somebody else run: perhaps the stack, on this core. */
#define YIELD_LONG_CYCLES 3000u
/* Then yielding is what helps, not spinning. One costs as much as so many spins; so many short ones in a row end it. */
#define YIELD_SPINS 64u
#define POLITE_YIELDS 16u

/** Let others run. Returns how many of the next yields should come without spinning before them. */
static uint32_t
yield_cpu(uint32_t polite)
{
    uint64_t start = rte_rdtsc();

    sched_yield();
    if (rte_rdtsc() - start >= YIELD_LONG_CYCLES)
        return POLITE_YIELDS;
    return polite > 0 ? polite - 1 : 0;
}

/*
 * The budget doubles when spinning has paid and halves when it has not; a try of the largest that pays sets it. Between spins the core is
 * yielded, since the stack may share it and then only runs if we let it.
 */
bool
wait_spin(bool (*ready)(void *arg), void *arg)
{
    static __thread uint32_t budget = SPIN_FIRST, polite, failures;
    bool is_try = failures >= SPIN_TRY_EVERY;
    uint32_t i, limit = is_try ? SPIN_MAX : budget;

    for (i = 0; i < limit; i++) {
        if (ready(arg)) {
            budget = is_try || budget * 2 > SPIN_MAX ? SPIN_MAX : budget * 2;
            failures = 0;
            return true;
        }
        if (polite > 0 || i % 64 == 63) {
            polite = yield_cpu(polite);
            i += polite > 0 ? YIELD_SPINS - 1 : 0;
        } else {
            rte_pause();
        }
    }
    budget = budget / 2 < SPIN_MIN ? SPIN_MIN : budget / 2;
    failures = is_try ? 0 : failures + 1;
    polite = yield_cpu(polite);
    return ready(arg);
}

struct slot_wait {
    bool (*ready)(uint32_t slot);
    uint32_t slot;
};

static bool
slot_is_ready(void *arg)
{
    const struct slot_wait *w = arg;

    return w->ready(w->slot) || load_relaxed(&front->dead);
}

/* Counted, since several threads and processes may sleep on one socket and the bit must stay until the last is up. */
static void
sleepers_change(uint32_t slot, enum wait_for what, bool add)
{
    struct shm_front_sock *f = front_sock(slot);
    uint32_t *count = &slot_hot(f)->sleepers;
    uint32_t one = 1u << (10 * what), mask = 0x3ffu << (10 * what), bit = 1u << what;

    static_assert(SHM_SLEEP_READ == 1u << WAIT_READ && SHM_SLEEP_WRITE == 1u << WAIT_WRITE &&
                      SHM_SLEEP_CMD == 1u << WAIT_CMD,
                  "bits by kind");
    if (add) {
        __atomic_add_fetch(count, one, __ATOMIC_SEQ_CST);
        __atomic_or_fetch(&f->sleepers, bit, __ATOMIC_SEQ_CST);
        return;
    }
    if ((__atomic_sub_fetch(count, one, __ATOMIC_SEQ_CST) & mask) != 0)
        return;
    __atomic_and_fetch(&f->sleepers, ~bit, __ATOMIC_SEQ_CST);
    /* Someone may have come between the two: then the bit is theirs. */
    if ((__atomic_load_n(count, __ATOMIC_SEQ_CST) & mask) != 0)
        __atomic_or_fetch(&f->sleepers, bit, __ATOMIC_SEQ_CST);
}

static int
futex_sleep(const uint32_t *word, uint32_t value, uint64_t us)
{
    struct timespec ts = { (time_t)(us / 1000000u), (long)(us % 1000000u) * 1000 };

    if (libc()->syscall(SYS_futex, word, FUTEX_WAIT, value, &ts, NULL, 0) == 0 || errno == EAGAIN)
        return 0;
    return -errno;
}

static int
sleep_until_ready(struct slot_wait *w, enum wait_for what, uint64_t deadline_us)
{
    const struct shm_back_sock *b = back_sock(w->slot);

    for (;;) {
        uint32_t seq = load_acquire(&b->event_seq);
        uint64_t us = ALIVE_CHECK_US;
        int rc;

        full_fence();
        if (w->ready(w->slot))
            return 0;
        if (load_relaxed(&front->dead) || (what == WAIT_CMD && !load_relaxed(&front->page->alive)))
            return -ENETDOWN;
        if (deadline_us != WAIT_FOREVER) {
            uint64_t now = wait_now_us();

            if (now >= deadline_us)
                return -EAGAIN;
            us = deadline_us - now < us ? deadline_us - now : us;
        }
        rc = futex_sleep(&b->event_seq, seq, us);
        if (rc == -EINTR && what != WAIT_CMD)
            return w->ready(w->slot) ? 0 : -EINTR;
        if (rc == -ETIMEDOUT)
            front_check_alive();
    }
}

const sigset_t *
wait_local_mask(const sigset_t *mask, sigset_t *out)
{
    sigset_t own;

    if (mask == NULL) {
        pthread_sigmask(SIG_BLOCK, NULL, &own);
        mask = &own;
    }
    sigorset(out, mask, &front->local->driver_signals);
    return out;
}

/* Until something comes for the stack or for this thread, for at most us. 0, or -EINTR. */
static int
sleep_on_stack(uint64_t us)
{
    const struct timespec ts = { (time_t)(us / 1000000u), (long)(us % 1000000u) * 1000 };
    struct pollfd p = { .fd = front->local->wake_fd, .events = POLLIN };
    sigset_t mask;

    return libc()->ppoll(&p, 1, &ts, wait_local_mask(NULL, &mask)) < 0 ? -errno : 0;
}

/* The thread that waits runs the stack. */
static int
wait_local(const struct slot_wait *w, enum wait_for what, uint64_t deadline_us)
{
    for (;;) {
        uint64_t us, now;
        int rc;

        if (w->ready(w->slot))
            return 0;
        front->local->pass();
        if (w->ready(w->slot))
            return 0;
        if (load_relaxed(&front->dead))
            return -ENETDOWN;
        now = deadline_us != WAIT_FOREVER ? wait_now_us() : 0;
        if (deadline_us != WAIT_FOREVER && now >= deadline_us)
            return -EAGAIN;
        us = front->local->sleep_begin();
        if (us == 0)
            continue;
        rc = sleep_on_stack(deadline_us - now < us ? deadline_us - now : us);
        front->local->sleep_end();
        if (rc == -EINTR && what != WAIT_CMD)
            return w->ready(w->slot) ? 0 : -EINTR;
    }
}

int
wait_sock(uint32_t slot, enum wait_for what, bool (*ready)(uint32_t slot), uint64_t deadline_us)
{
    struct slot_wait w = { ready, slot };
    int rc;

    if (front->local != NULL)
        return wait_local(&w, what, deadline_us);
    if (wait_spin(slot_is_ready, &w))
        return ready(slot) ? 0 : -ENETDOWN;
    if (deadline_us == WAIT_FOREVER && what != WAIT_CMD) {
        rc = poll_block(slot, what == WAIT_WRITE, ready);
        if (rc != -ENOSYS)
            return rc;
    }
    sleepers_change(slot, what, true);
    rc = sleep_until_ready(&w, what, deadline_us);
    sleepers_change(slot, what, false);
    return rc;
}
