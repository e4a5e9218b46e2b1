/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_lcore.h>
#include <rte_pause.h>

#include "core/clock.h"

#include "embedded.h"
#include "fdtable.h"
#include "lock.h"
#include "sole.h"

/**
 * @file
 * The program's threads run the stack: struct front_local over a mode in which any thread may execute any event. The front-end and the stack
 * share the same regions as across processes; what is left out is everything that carries a message between two threads: notification rings, doorbells,
 * futexes.
 *
 * A *seat* is what a worker is elsewhere: a struct net, which one thread at a time uses, by the seat's lock. Threads are spread over the seats, one for each
 * lcore of the EAL (`up` has one), so that as many of them can be inside the stack at once as there are lcores; what they may do there at the same time, the mode's
 * locks say. In place of a ring, sockets that stand notified are in their seat's `pending` until the next pass. A thread whose own seat has nothing to
 * do makes a pass of another's, so that no packet waits for a thread that computes.
 */

/* Passes without work for so long, and the thread sleeps (idle=adaptive). */
#define SLEEP_AFTER_US 200u
/* As the daemon's worker: naps where the port has no interrupt, or where another sleeper may take our wake-up. */
#define NAP_MIN_US 50u
#define NAP_MAX_US 1000u
#define SLEEP_MAX_US 1000000u
/* A program that tries without ever waiting gets a pass so often. */
#define TRY_PASS_US 20u
/* Idle passes are alike, and reading the clock is a third of one: each so manieth is timed for all. */
#define IDLE_TIMED_EVERY 16u

struct seat {
    uint32_t lock; /**< of everything here, and of the net */
    uint32_t nb_pending;
    uint32_t *pending; /**< [max_sockets]: sockets that stand notified */
    struct net *net;
    struct counters *ctr;
    struct caller *of;
    uint64_t passed_at_us; /**< start of the last pass; atomic for those who look without the lock */
    uint64_t idle_since_us; /**< 0 = the last pass did something; atomic for those who look without the lock */
    bool has_intr, armed;
    bool shared; /**< the last pass was made where other threads may want the seat */
} __attribute__((aligned(64)));

struct caller {
    struct embedded *e;
    struct seat *seats;
    uint32_t nb_seats;
    uint32_t capacity; /**< of each seat's pending */
    uint32_t threads; /**< atomic: that were given a seat */
    uint32_t lost; /**< atomic: some socket stands notified that is in no seat's pending */
    uint32_t
        sleep_lock; /**< of going to sleep and waking up; taken before a seat's, and with it these are only tried */
    uint32_t nb_asleep; /**< atomic for those who look without the lock */
    uint32_t nap_us; /**< atomic: a pass that found work sets it back without the lock */
    struct front_local local; /**< for the front-end */
};

/* Of the stack that the calling thread uses. */
static struct caller *
caller_now(void)
{
    return embedded_now()->caller;
}

/* ---- inside the stack --------------------------------------------------------------------------------------------------- */

/*
 * A thread that the EAL does not know has no cache of packet buffers, and each buffer would cost it an operation on a shared ring. So it gets an
 * lcore's number for its lifetime, if one is left.
 */
static struct {
    pthread_key_t key;
    pthread_once_t once;
    int rc; /**< of making the key */
} threads = { .once = PTHREAD_ONCE_INIT };

static void
on_thread_end(void *arg)
{
    (void)arg;
    rte_thread_unregister();
}

static void
make_key(void)
{
    threads.rc = -pthread_key_create(&threads.key, on_thread_end);
}

/* Once for all stacks. Returns 0 or -errno. */
static int
know_threads(void)
{
    pthread_once(&threads.once, make_key);
    return threads.rc;
}

static void
know_thread(void)
{
    static __thread bool known;

    if (likely(known))
        return;
    known = true;
    if (rte_lcore_id() == LCORE_ID_ANY && rte_thread_register() == 0)
        pthread_setspecific(threads.key, &threads); /* anything but NULL */
}

static struct seat *
own_seat(void)
{
    static __thread struct {
        const struct caller *of;
        struct seat *seat;
    } own;
    struct caller *c = caller_now();

    if (unlikely(own.of != c)) {
        own.of = c;
        own.seat = &c->seats[__atomic_fetch_add(&c->threads, 1, __ATOMIC_RELAXED) % c->nb_seats];
    }
    return own.seat;
}

/*
 * Before the stack is entered: the seat's lock, and where this thread is sole it is inside (sole.h) from here to leave_seat; nothing in between sleeps. False only in a signal
 * handler that interrupted this thread there.
 */
static bool
take_seat(struct seat *seat, uint32_t *term)
{
    *term = sole_enter();
    if (!lock_acquire_too(&seat->lock, term))
        return false;
    net_set_alone(seat->net, *term != SOLE_NOBODY);
    return true;
}

/* The same if nobody has it. */
static bool
try_seat(struct seat *seat, uint32_t *term)
{
    *term = sole_enter();
    if (!(likely(*term != SOLE_NOBODY) ? lock_try_inside(&seat->lock) : lock_try_own(&seat->lock))) {
        lock_stay_outside(term);
        return false;
    }
    net_set_alone(seat->net, *term != SOLE_NOBODY);
    return true;
}

static void
leave_seat(struct seat *seat, uint32_t term)
{
    lock_release_brief(&seat->lock, term);
}

/* What the seat's sockets were notified of. The seat is taken. */
static void
serve_pending(struct seat *seat, uint64_t now_us)
{
    struct caller *c = seat->of;
    uint32_t n = seat->nb_pending;

    net_begin(seat->net);
    app_serve(seat->net, c->e->app, seat->pending, n, now_us);
    seat->nb_pending = 0;
    if (unlikely(load_relaxed(&c->lost)) && __atomic_exchange_n(&c->lost, 0, __ATOMIC_ACQ_REL))
        app_serve_all(seat->net, c->e->app, now_us);
    /* A lone request goes out before the pass looks at anything else; several share a burst with what the pass adds. */
    if (n == 1)
        port_flush(net_queue(seat->net), now_us);
    net_pause(seat->net);
}

/* The seat is taken. */
static unsigned
pass_taken(struct seat *seat)
{
    struct caller *c = seat->of;
    uint64_t start = clock_cycles(), now_us = clock_us_at(start);
    unsigned did = seat->nb_pending + (unlikely(load_relaxed(&c->lost)) ? 1 : 0);

    __atomic_store_n(&seat->passed_at_us, now_us, __ATOMIC_RELAXED);
    if (did > 0)
        serve_pending(seat, now_us);
    did += c->e->ops->poll(c->e->mode, (unsigned)(seat - c->seats), now_us);
    counter_inc(seat->ctr, CTR_WORKER_POLLS);
    if (did > 0) {
        __atomic_store_n(&seat->idle_since_us, 0, __ATOMIC_RELAXED);
        store_relaxed(&c->nap_us, NAP_MIN_US);
        counter_add(seat->ctr, CTR_WORKER_BUSY_CYCLES, clock_cycles() - start);
    } else {
        counter_inc(seat->ctr, CTR_WORKER_IDLE_POLLS);
        if (seat->ctr->v[CTR_WORKER_IDLE_POLLS] % IDLE_TIMED_EVERY == 0)
            counter_add(seat->ctr, CTR_WORKER_IDLE_CYCLES, IDLE_TIMED_EVERY * (clock_cycles() - start));
        if (seat->idle_since_us == 0)
            __atomic_store_n(&seat->idle_since_us, now_us, __ATOMIC_RELAXED);
    }
    return did;
}

/* Others may sleep for what this pass has done, or until somebody makes one. */
static void
wake_others(const struct seat *seat)
{
    if (unlikely(__atomic_load_n(&seat->of->nb_asleep, __ATOMIC_SEQ_CST) != 0))
        net_wake(seat->net);
}

static unsigned
try_pass(struct seat *seat)
{
    unsigned did;
    uint32_t term;

    if (!try_seat(seat, &term))
        return 0;
    __atomic_store_n(&seat->shared, term == SOLE_NOBODY, __ATOMIC_RELAXED);
    did = pass_taken(seat);
    leave_seat(seat, term);
    if (did > 0)
        wake_others(seat);
    return did;
}

unsigned
caller_pass(void)
{
    static __thread uint32_t turn;
    struct seat *seat = own_seat();
    unsigned did;

    know_thread();
    did = try_pass(seat);
    if (did == 0 && seat->of->nb_seats > 1) {
        struct seat *other = &seat->of->seats[turn++ % seat->of->nb_seats];

        if (other != seat)
            did = try_pass(other);
    }
    /* A pause is as long as a pass: only for others, who may want the seat. */
    if (did == 0 && load_relaxed(&seat->of->threads) > 1 && __atomic_load_n(&seat->shared, __ATOMIC_RELAXED))
        rte_pause();
    return did;
}

static void
local_pass(void)
{
    caller_pass();
}

static void
local_tried(void)
{
    if (clock_now_us() - __atomic_load_n(&own_seat()->passed_at_us, __ATOMIC_RELAXED) >= TRY_PASS_US)
        caller_pass();
}

static void
local_notify(uint32_t slot)
{
    struct seat *seat = own_seat();
    uint32_t term;

    /* False: in a signal handler that interrupted this thread inside the stack; or inside (sole.h), where no other thread is waited for. */
    if (likely(lock_acquire_brief(&seat->lock, &term))) {
        if (likely(seat->nb_pending < seat->of->capacity))
            seat->pending[seat->nb_pending++] = slot;
        else
            __atomic_store_n(&seat->of->lost, 1, __ATOMIC_RELEASE);
        lock_release_brief(&seat->lock, term);
    } else {
        __atomic_store_n(&seat->of->lost, 1, __ATOMIC_RELEASE);
    }
    wake_others(seat);
}

/* The domains' own time does not go back for the last pass's. */
static void
local_serve(uint32_t slot, bool timed)
{
    struct seat *seat = own_seat();
    uint32_t term;

    know_thread();
    if (!take_seat(seat, &term))
        return;
    net_begin(seat->net);
    app_serve(seat->net, seat->of->e->app, &slot, 1, timed ? clock_now_us() : seat->passed_at_us);
    net_pause(seat->net);
    leave_seat(seat, term);
}

/* ---- sleeping ----------------------------------------------------------------------------------------------------------- */

/* Whether this thread's passes have found nothing for long enough. */
static bool
may_sleep(const struct seat *seat, uint64_t now_us)
{
    /* Once: whoever is in the seat may find work between two looks. */
    uint64_t idle_since_us = __atomic_load_n(&seat->idle_since_us, __ATOMIC_RELAXED);

    if (seat->of->e->config.idle == IDLE_POLL || idle_since_us == 0)
        return false;
    return seat->of->e->config.idle == IDLE_SLEEP || now_us - idle_since_us >= SLEEP_AFTER_US;
}

/* A seat of a sleeper to be: its last look. Whether there was nothing; *next_us is lowered to when there will be. */
static bool
is_quiet(struct seat *seat, bool first, uint64_t now_us, uint64_t *next_us)
{
    bool quiet;

    /* Announce and arm first, then look: what comes later rings. */
    if (first) {
        net_set_sleeping(seat->net, true);
        seat->armed = seat->has_intr && port_intr_arm(net_queue(seat->net)) == 0;
    }
    quiet = pass_taken(seat) == 0 && seat->nb_pending == 0 && !net_has_work(seat->net);
    *next_us = RTE_MIN(*next_us, net_next_us(seat->net, now_us));
    return quiet;
}

/* sleep_lock is held. For how long; 0 = there is work. */
static uint64_t
sleep_time(struct caller *c)
{
    bool first = c->nb_asleep == 1, all_armed = first;
    uint64_t now_us = clock_now_us(), next_us = UINT64_MAX, limit_us;
    uint32_t nap_us;

    for (uint32_t i = 0; i < c->nb_seats; i++) {
        struct seat *seat = &c->seats[i];
        uint32_t term;
        bool quiet;

        /* Somebody is in it and sees to it; but he may leave the stack to compute. */
        if (!try_seat(seat, &term)) {
            all_armed = false;
            continue;
        }
        quiet = is_quiet(seat, first, now_us, &next_us);
        all_armed &= seat->armed;
        leave_seat(seat, term);
        if (!quiet)
            return 0;
    }
    nap_us = load_relaxed(&c->nap_us);
    limit_us = all_armed ? SLEEP_MAX_US : nap_us;
    store_relaxed(&c->nap_us, RTE_MIN(2 * nap_us, NAP_MAX_US));
    return next_us > now_us ? RTE_MIN(next_us - now_us, limit_us) : 0;
}

/* sleep_lock is held. */
static void
awake(struct caller *c)
{
    if (__atomic_sub_fetch(&c->nb_asleep, 1, __ATOMIC_SEQ_CST) != 0)
        return;
    for (uint32_t i = 0; i < c->nb_seats; i++) {
        struct seat *seat = &c->seats[i];

        if (seat->armed)
            port_intr_disarm(net_queue(seat->net));
        seat->armed = false;
        net_doorbell_clear(seat->net);
        net_set_sleeping(seat->net, false);
    }
}

static uint64_t
local_sleep_begin(void)
{
    struct seat *seat = own_seat();
    struct caller *c = seat->of;
    uint64_t us;

    /* The time of the pass that found nothing, just now, will do. */
    if (!may_sleep(seat, __atomic_load_n(&seat->passed_at_us, __ATOMIC_RELAXED)) || !lock_try(&c->sleep_lock))
        return 0;
    __atomic_add_fetch(&c->nb_asleep, 1, __ATOMIC_SEQ_CST);
    us = sleep_time(c);
    if (us == 0)
        awake(c);
    else
        counter_inc(seat->ctr, CTR_WORKER_SLEEPS);
    lock_release(&c->sleep_lock);
    return us;
}

static void
local_sleep_end(void)
{
    struct caller *c = caller_now();

    if (!lock_acquire(&c->sleep_lock))
        return;
    awake(c);
    lock_release(&c->sleep_lock);
}

/* ---- event queues ------------------------------------------------------------------------------------------------------- */

/* Every seat's lock: nobody is inside the stack. False in a signal handler that interrupted this thread there. */
static bool
stop_all(struct caller *c)
{
    for (uint32_t i = 0; i < c->nb_seats; i++) {
        if (lock_acquire_own(&c->seats[i].lock))
            continue;
        while (i > 0)
            lock_release_own(&c->seats[--i].lock);
        return false;
    }
    return true;
}

static void
go_all(struct caller *c)
{
    for (uint32_t i = 0; i < c->nb_seats; i++)
        lock_release_own(&c->seats[i].lock);
}

static void
add_eventq(struct eventq_call *call)
{
    struct caller *c = caller_now();

    call->result = -EDEADLK;
    if (!stop_all(c))
        return;
    call->result = app_eventq_add(c->e->app, call->fd);
    go_all(c);
}

static int
home_eventq_create(uint32_t *queue, int *fd)
{
    return eventq_open(add_eventq, queue, fd);
}

static void
home_eventq_destroy(uint32_t queue)
{
    struct caller *c = caller_now();
    int fd;

    if (!stop_all(c))
        return;
    fd = app_eventq_remove(c->e->app, queue);
    go_all(c);
    eventq_close_fd(fd);
}

static const struct front_home home_ops = {
    .eventq_create = home_eventq_create,
    .eventq_destroy = home_eventq_destroy,
};

static const struct front_local local_ops = {
    .notify = local_notify,
    .serve = local_serve,
    .pass = local_pass,
    .tried = local_tried,
    .sleep_begin = local_sleep_begin,
    .sleep_end = local_sleep_end,
};

/* ---- start and stop ----------------------------------------------------------------------------------------------------- */

static int
seat_init(struct caller *c, unsigned number)
{
    struct epoll_event ev = { .events = EPOLLIN };
    struct seat *seat = &c->seats[number];

    seat->of = c;
    seat->net = host_net(c->e->host, number);
    seat->ctr = net_queue(seat->net)->ctr;
    seat->pending = calloc(c->capacity, sizeof(*seat->pending));
    if (seat->pending == NULL)
        return -ENOMEM;
    if (epoll_ctl(c->local.wake_fd, EPOLL_CTL_ADD, net_doorbell_fd(seat->net), &ev) != 0)
        return -errno;
    seat->has_intr = port_intr_register(net_queue(seat->net), c->local.wake_fd) == 0;
    return 0;
}

int
caller_start(struct embedded *e, struct embedded_entry *entry)
{
    unsigned n = e->ops->nb_workers(e->mode);
    struct caller *c = calloc(1, sizeof(*c));
    int fd, rc;

    if (c == NULL)
        return -ENOMEM;
    c->seats = aligned_alloc(64, n * sizeof(*c->seats));
    if (c->seats == NULL) {
        free(c);
        return -ENOMEM;
    }
    memset(c->seats, 0, n * sizeof(*c->seats));
    fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) {
        rc = -errno;
        free(c->seats);
        free(c);
        return rc;
    }
    c->e = e;
    c->nb_seats = n;
    c->nap_us = NAP_MIN_US;
    c->capacity = e->config.max_sockets;
    c->local = local_ops;
    c->local.wake_fd = front_hide_fd(fd);
    c->local.driver_signals = e->driver_signals;
    rc = know_threads();
    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = seat_init(c, i);
    e->caller = c;
    entry->home = &home_ops;
    entry->local = &c->local;
    return rc;
}

/* Every seat's lock is held. */
static void
pass_all(struct caller *c)
{
    for (uint32_t i = 0; i < c->nb_seats; i++) {
        uint32_t term = sole_enter();

        net_set_alone(c->seats[i].net, term != SOLE_NOBODY);
        pass_taken(&c->seats[i]);
        lock_stay_outside(&term);
    }
}

bool
caller_stop(struct embedded *e, uint64_t end_us)
{
    struct caller *c = e->caller;

    if (!stop_all(c))
        return false;
    pass_all(c);
    host_shutdown_begin(e->host, clock_now_us());
    do
        pass_all(c);
    while (!host_shutdown_done(e->host, clock_now_us()) && clock_now_us() < end_us);
    go_all(c);
    return true;
}
