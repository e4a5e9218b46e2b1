/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_cycles.h>

#include "core/clock.h"
#include "core/log.h"
#include "modes/mode.h"

/* Empty polls for so long, and the CPU is offered to others between polls; for so long, and the worker sleeps. */
#define YIELD_AFTER_US 30u
/*
 * Unless the CPU is shared with others who want it, as with an application on the stack's own core: then an empty poll only delays them. A yield that
 * takes longer than this let somebody run; so many short ones in a row, and nobody seems to be there.
 */
#define YIELD_LONG_NS 1000u
#define POLITE_YIELDS 64u
#define SLEEP_AFTER_US 200u
/* Without receive interrupts: naps. The longest bounds both the first frame's latency and the idle CPU's share. */
#define NAP_MIN_US 50u
#define NAP_MAX_US 1000u
/* With them: the longest sleep, in case a driver loses an interrupt. */
#define SLEEP_MAX_US 1000000u
/* The stack's own deadline for draining comes first. */
#define DRAIN_MAX_US 4000000u

struct worker {
    const struct mode_ops *ops;
    struct mode *mode;
    unsigned w;
    enum idle_policy idle;
    struct host *host;
    struct net *net;
    struct counters *ctr;
    int epoll_fd; /**< doorbell and receive interrupt; -1: never sleeps */
    bool has_intr;
    uint32_t nap_us;
    uint32_t polite; /**< yields between empty polls to come; 0 = polls on for YIELD_AFTER_US */
    uint64_t yield_long_cycles;
    uint64_t wakeups; /**< as counted when last looked at */
    uint64_t idle_since_us; /**< 0 = the last poll did something */
};

static int
worker_init(struct worker *wk)
{
    struct epoll_event ev = { .events = EPOLLIN };

    wk->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (wk->epoll_fd < 0)
        return -errno;
    ev.data.fd = net_doorbell_fd(wk->net);
    if (epoll_ctl(wk->epoll_fd, EPOLL_CTL_ADD, ev.data.fd, &ev) != 0) {
        int rc = -errno;

        close(wk->epoll_fd);
        wk->epoll_fd = -1;
        return rc;
    }
    wk->has_intr = port_intr_register(net_queue(wk->net), wk->epoll_fd) == 0;
    return 0;
}

static unsigned
poll_once(struct worker *wk, uint64_t now_us)
{
    uint64_t start = clock_cycles();
    unsigned n = wk->ops->poll(wk->mode, wk->w, now_us);
    uint64_t cycles = clock_cycles() - start;

    counter_inc(wk->ctr, CTR_WORKER_POLLS);
    if (n > 0) {
        counter_add(wk->ctr, CTR_WORKER_BUSY_CYCLES, cycles);
    } else {
        counter_inc(wk->ctr, CTR_WORKER_IDLE_POLLS);
        counter_add(wk->ctr, CTR_WORKER_IDLE_CYCLES, cycles);
    }
    return n;
}

/* Until something comes, or for at most timeout_us. */
static void
wait_us(const struct worker *wk, uint64_t timeout_us)
{
    struct epoll_event ev[2];
    struct timespec ts = {
        .tv_sec = (time_t)(timeout_us / 1000000),
        .tv_nsec = (long)(timeout_us % 1000000) * 1000,
    };

    /* Kernels before 5.11 know whole milliseconds only. */
    if (epoll_pwait2(wk->epoll_fd, ev, 2, &ts, NULL) < 0 && errno == ENOSYS)
        epoll_wait(wk->epoll_fd, ev, 2, (int)((timeout_us + 999) / 1000));
}

/*
 * Announce, arm, look again, sleep: whoever came before the announcement is seen by the look, whoever comes after it rings. Returns
 * what the look found to do.
 */
static unsigned
sleep_once(struct worker *wk)
{
    struct port_queue *q = net_queue(wk->net);
    bool armed;
    unsigned n;

    net_set_sleeping(wk->net, true);
    armed = wk->has_intr && port_intr_arm(q) == 0;
    n = poll_once(wk, clock_now_us());
    if (n == 0 && !net_has_work(wk->net)) {
        uint64_t now_us = clock_now_us();
        uint64_t next_us = net_next_us(wk->net, now_us);
        uint64_t limit_us = armed ? SLEEP_MAX_US : wk->nap_us;

        if (next_us > now_us) {
            counter_inc(wk->ctr, CTR_WORKER_SLEEPS);
            wait_us(wk, RTE_MIN(next_us - now_us, limit_us));
        }
        wk->nap_us = RTE_MIN(2 * wk->nap_us, NAP_MAX_US);
    }
    if (armed)
        port_intr_disarm(q);
    net_doorbell_clear(wk->net);
    net_set_sleeping(wk->net, false);
    return n;
}

static void
note_work(struct worker *wk)
{
    wk->idle_since_us = 0;
    wk->nap_us = NAP_MIN_US;
}

static void
yield_cpu(struct worker *wk)
{
    uint64_t start = clock_cycles();

    sched_yield();
    if (clock_cycles() - start >= wk->yield_long_cycles)
        wk->polite = POLITE_YIELDS;
    else if (wk->polite > 0)
        wk->polite--;
}

/* Whoever was woken may wait for this very CPU. */
static void
note_wakeups(struct worker *wk)
{
    uint64_t wakeups = wk->ctr->v[CTR_SOCK_WAKEUPS];

    if (wakeups == wk->wakeups)
        return;
    wk->wakeups = wakeups;
    wk->polite = POLITE_YIELDS;
}

/* A poll found nothing. */
static void
be_idle(struct worker *wk, uint64_t now_us)
{
    uint64_t idle_us;

    if (wk->idle_since_us == 0)
        wk->idle_since_us = now_us;
    idle_us = now_us - wk->idle_since_us;
    note_wakeups(wk);
    if (wk->epoll_fd >= 0 && (wk->idle == IDLE_SLEEP || (wk->idle == IDLE_ADAPTIVE && idle_us >= SLEEP_AFTER_US))) {
        if (sleep_once(wk) > 0)
            note_work(wk);
    } else if (wk->polite > 0 || idle_us >= YIELD_AFTER_US) {
        yield_cpu(wk);
    }
}

void
worker_run(const struct mode_ops *ops, struct mode *m, unsigned w, enum idle_policy idle, const int *stop)
{
    struct worker wk = { .ops = ops, .mode = m, .w = w, .idle = idle, .epoll_fd = -1, .nap_us = NAP_MIN_US };
    uint64_t stop_at_us = 0;

    wk.host = ops->host(m);
    wk.net = host_net(wk.host, w);
    wk.ctr = net_queue(wk.net)->ctr;
    wk.yield_long_cycles = rte_get_tsc_hz() / 1000000u * YIELD_LONG_NS / 1000u;
    if (idle != IDLE_POLL) {
        int rc = worker_init(&wk);

        if (rc != 0)
            LOG_WARN("worker %u polls without sleep: %s", w, strerror(-rc));
    }
    for (;;) {
        uint64_t now_us = clock_now_us();

        if (stop_at_us == 0 && __atomic_load_n(stop, __ATOMIC_RELAXED) != 0) {
            stop_at_us = now_us + DRAIN_MAX_US;
            host_shutdown_begin(wk.host, now_us);
        }
        if (poll_once(&wk, now_us) > 0)
            note_work(&wk);
        else
            be_idle(&wk, now_us);
        if (stop_at_us != 0 && (host_shutdown_done(wk.host, now_us) || now_us >= stop_at_us))
            break;
    }
    if (w == 0)
        host_calls_end(wk.host);
    if (wk.epoll_fd >= 0)
        close(wk.epoll_fd);
}
