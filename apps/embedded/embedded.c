/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_lcore.h>
#include <rte_pause.h>

#include "core/clock.h"
#include "core/eal.h"
#include "isosockd/daemon.h"
#include "sockets/app.h"
#include "sockets/shm.h"

#include "fdtable.h"
#include "front.h"
#include "isosock.h"
#include "lock.h"

/**
 * @file
 * The stack inside the program: struct front_local over one stack of mode `up`. Whoever calls runs it, one thread at a time, by `lock`. The front-end and
 * the stack share the same regions as across processes; what is left out is everything that carries a message between two threads: notification rings,
 * doorbells, futexes. In place of a ring, sockets that stand notified are in `pending` until the next pass.
 */

#define ERROR_BYTES 512
/* Passes without work for so long, and the thread sleeps (idle=adaptive). */
#define SLEEP_AFTER_US 200u
/* As the daemon's worker: naps where the port has no interrupt, or where another sleeper may take our wake-up. */
#define NAP_MIN_US 50u
#define NAP_MAX_US 1000u
#define SLEEP_MAX_US 1000000u
/* A program that tries without ever waiting gets a pass so often. */
#define TRY_PASS_US 20u
#define DRAIN_MAX_US 4000000u

static struct embedded {
    struct daemon daemon;
    struct config config;
    struct options options;
    const struct mode_ops *ops;
    struct mode *mode;
    struct host *host;
    struct net *net;
    struct counters *ctr;
    struct app *app;
    uint32_t *pending; /**< [capacity]: sockets that stand notified */
    uint32_t nb_pending, capacity;
    uint32_t lost; /**< atomic: some socket stands notified that is not in pending */
    uint32_t lock; /**< of the stack and everything here */
    uint32_t nb_asleep; /**< atomic for those who look without the lock */
    uint64_t passed_at_us; /**< start of the last pass */
    uint64_t idle_since_us; /**< 0 = the last pass did something */
    uint32_t nap_us;
    int wake_fd; /**< doorbell and receive interrupt */
    bool has_intr, armed;
    bool runs, was_started;
    char **argv, **eal_args; /**< copies that the EAL refers to until the process ends */
} em = { .wake_fd = -1, .nap_us = NAP_MIN_US };

/* ---- inside the stack --------------------------------------------------------------------------------------------------- */

/*
 * A thread that the EAL does not know has no cache of packet buffers, and each buffer would cost it an operation on a shared ring. So it gets an
 * lcore's number for its lifetime, if one is left.
 */
static pthread_key_t thread_key;

static void
on_thread_end(void *arg)
{
    (void)arg;
    rte_thread_unregister();
}

static void
know_thread(void)
{
    static __thread bool known;

    if (likely(known))
        return;
    known = true;
    if (rte_lcore_id() == LCORE_ID_ANY && rte_thread_register() == 0)
        pthread_setspecific(thread_key, &em);
}

/* The caller holds the lock. */
static unsigned
pass_locked(uint64_t now_us)
{
    uint32_t n = em.nb_pending;
    unsigned did;

    em.passed_at_us = now_us;
    for (uint32_t i = 0; i < n; i++) {
        if (i + 2 < n) {
            rte_prefetch0(front_sock(em.pending[i + 2]));
            rte_prefetch0(back_sock(em.pending[i + 2]));
        }
        app_serve(em.net, em.app, em.pending[i], now_us);
    }
    em.nb_pending = 0;
    if (unlikely(load_relaxed(&em.lost)) && __atomic_exchange_n(&em.lost, 0, __ATOMIC_ACQ_REL))
        app_serve_all(em.net, em.app, now_us);
    did = em.ops->poll(em.mode, 0, now_us) + n;
    counter_inc(em.ctr, CTR_WORKER_POLLS);
    if (did > 0) {
        em.idle_since_us = 0;
        em.nap_us = NAP_MIN_US;
    } else {
        counter_inc(em.ctr, CTR_WORKER_IDLE_POLLS);
        if (em.idle_since_us == 0)
            em.idle_since_us = now_us;
    }
    return did;
}

/* Others may sleep for what this pass has done, or until somebody makes one. */
static void
wake_others(void)
{
    if (unlikely(__atomic_load_n(&em.nb_asleep, __ATOMIC_SEQ_CST) != 0))
        net_wake(em.net);
}

static unsigned
pass(void)
{
    unsigned did;

    if (!lock_try(&em.lock)) {
        rte_pause();
        return 0;
    }
    know_thread();
    did = pass_locked(clock_now_us());
    lock_release(&em.lock);
    if (did > 0)
        wake_others();
    return did;
}

static void
local_pass(void)
{
    pass();
}

static void
local_tried(void)
{
    if (clock_now_us() - em.passed_at_us >= TRY_PASS_US)
        pass();
}

static void
local_notify(uint32_t slot)
{
    /* False: in a signal handler that interrupted this thread inside the stack. */
    if (!lock_acquire(&em.lock)) {
        __atomic_store_n(&em.lost, 1, __ATOMIC_RELEASE);
        return;
    }
    if (likely(em.nb_pending < em.capacity))
        em.pending[em.nb_pending++] = slot;
    else
        __atomic_store_n(&em.lost, 1, __ATOMIC_RELEASE);
    lock_release(&em.lock);
    wake_others();
}

static void
local_serve(uint32_t slot)
{
    if (!lock_acquire(&em.lock))
        return;
    know_thread();
    app_serve(em.net, em.app, slot, clock_now_us());
    lock_release(&em.lock);
}

/* ---- sleeping ----------------------------------------------------------------------------------------------------------- */

/* Whether passes have found nothing for long enough. */
static bool
may_sleep(uint64_t now_us)
{
    if (em.config.idle == IDLE_POLL || em.idle_since_us == 0)
        return false;
    return em.config.idle == IDLE_SLEEP || now_us - em.idle_since_us >= SLEEP_AFTER_US;
}

/* The lock is held. For how long; 0 = there is work. */
static uint64_t
sleep_time(void)
{
    uint64_t now_us = clock_now_us(), next_us, limit_us;

    /* Announce and arm first, then look: what comes later rings. */
    if (em.nb_asleep == 1) {
        net_set_sleeping(em.net, true);
        em.armed = em.has_intr && port_intr_arm(net_queue(em.net)) == 0;
    }
    if (pass_locked(now_us) > 0 || em.nb_pending > 0 || net_has_work(em.net))
        return 0;
    next_us = net_next_us(em.net, now_us);
    limit_us = em.armed && em.nb_asleep == 1 ? SLEEP_MAX_US : em.nap_us;
    em.nap_us = RTE_MIN(2 * em.nap_us, NAP_MAX_US);
    return next_us > now_us ? RTE_MIN(next_us - now_us, limit_us) : 0;
}

/* The lock is held. */
static void
awake(void)
{
    if (__atomic_sub_fetch(&em.nb_asleep, 1, __ATOMIC_SEQ_CST) != 0)
        return;
    if (em.armed)
        port_intr_disarm(net_queue(em.net));
    em.armed = false;
    net_doorbell_clear(em.net);
    net_set_sleeping(em.net, false);
}

static uint64_t
local_sleep_begin(void)
{
    uint64_t us;

    if (!may_sleep(clock_now_us()) || !lock_try(&em.lock))
        return 0;
    __atomic_add_fetch(&em.nb_asleep, 1, __ATOMIC_SEQ_CST);
    us = sleep_time();
    if (us == 0)
        awake();
    else
        counter_inc(em.ctr, CTR_WORKER_SLEEPS);
    lock_release(&em.lock);
    return us;
}

static void
local_sleep_end(void)
{
    if (!lock_acquire(&em.lock))
        return;
    awake();
    lock_release(&em.lock);
}

/* ---- event queues ------------------------------------------------------------------------------------------------------- */

/* A pipe as across processes: an epoll set that stands in another one shows itself by it. */
static int
local_eventq_create(uint32_t *queue, int *fd)
{
    int ends[2], rc = -EDEADLK;

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return -errno;
    ends[1] = front_hide_fd(ends[1]);
    if (lock_acquire(&em.lock)) {
        rc = app_eventq_add(em.app, ends[1]);
        lock_release(&em.lock);
    }
    if (rc < 0) {
        fd_set_internal(ends[1], false);
        close(ends[0]);
        close(ends[1]);
        return rc;
    }
    *queue = (uint32_t)rc;
    *fd = front_hide_fd(ends[0]);
    return 0;
}

static void
local_eventq_destroy(uint32_t queue)
{
    int fd = -1;

    if (lock_acquire(&em.lock)) {
        fd = app_eventq_remove(em.app, queue);
        lock_release(&em.lock);
    }
    if (fd >= 0) {
        fd_set_internal(fd, false);
        close(fd);
    }
}

static struct front_local local_ops = {
    .notify = local_notify,
    .serve = local_serve,
    .pass = local_pass,
    .tried = local_tried,
    .sleep_begin = local_sleep_begin,
    .sleep_end = local_sleep_end,
    .eventq_create = local_eventq_create,
    .eventq_destroy = local_eventq_destroy,
};

/* ---- start and stop ----------------------------------------------------------------------------------------------------- */

static int
fail(int rc, const char *text)
{
    fprintf(stderr, "isosock: %s\n", text);
    errno = -rc;
    return -1;
}

/* The program attaches to its own stack: an application of one member, in memory. */
static int
attach(void)
{
    const struct arena_config ac = {
        .max_socks = em.config.max_sockets,
        .tx_chunks = (uint32_t)(em.config.app_memory_bytes / SHM_CHUNK_BYTES),
        .nb_rings = 1,
        .nb_instances = 1,
        .pool_bytes = em.daemon.pool.bytes,
        .stack_bytes = sizeof(struct shm_stack_page),
    };
    int page_fd = host_page_readonly_fd(em.host), rc;
    struct arena *arena;
    void *page;

    if (page_fd < 0)
        return page_fd;
    page = mmap(NULL, ac.stack_bytes, PROT_READ, MAP_SHARED, page_fd, 0);
    rc = page != MAP_FAILED ? arena_create(&arena, &ac) : -errno;
    close(page_fd);
    if (rc != 0)
        return rc;
    arena_close_fds(arena);
    em.capacity = em.config.max_sockets;
    em.pending = calloc(em.capacity, sizeof(*em.pending));
    em.app = em.pending != NULL ? app_create(em.host, arena) : NULL;
    if (em.app == NULL) {
        arena_release(arena);
        return -ENOMEM;
    }
    rc = app_member_join(em.app, 0, getpid());
    if (rc < 0)
        return rc;
    front_adopt_local(&local_ops, &arena->layout, arena->front, arena->back, em.daemon.pool.base, page, (uint16_t)rc);
    return 0;
}

static int
make_wake_fd(void)
{
    struct epoll_event ev = { .events = EPOLLIN };
    int fd = epoll_create1(EPOLL_CLOEXEC);

    if (fd < 0)
        return -errno;
    em.wake_fd = front_hide_fd(fd);
    if (epoll_ctl(em.wake_fd, EPOLL_CTL_ADD, net_doorbell_fd(em.net), &ev) != 0)
        return -errno;
    em.has_intr = port_intr_register(net_queue(em.net), em.wake_fd) == 0;
    local_ops.wake_fd = em.wake_fd;
    return 0;
}

/* Not in a forked child, whose front-end has let go. */
static bool
runs_here(void)
{
    return em.runs && front_local != NULL;
}

static void
stop_at_exit(void)
{
    if (runs_here())
        iso_stack_stop();
}

/* The EAL runs: the rest. */
static int
start_stack(char *err, size_t err_len)
{
    struct daemon *d = &em.daemon;
    int rc = daemon_start_stack(d, &em.config, &em.options, err, err_len);

    if (rc != 0)
        return rc;
    em.ops = d->ops;
    em.mode = d->mode;
    em.host = em.ops->host(em.mode);
    em.net = host_net(em.host, 0);
    em.ctr = net_queue(em.net)->ctr;
    rc = -pthread_key_create(&thread_key, on_thread_end);
    if (rc == 0)
        rc = make_wake_fd();
    if (rc == 0)
        rc = attach();
    if (rc != 0)
        snprintf(err, err_len, "cannot attach to the stack: %s", strerror(-rc));
    return rc;
}

static int
check_mode(char *err, size_t err_len)
{
    if (strcmp(em.config.mode_ops->name, "up") == 0)
        return 0;
    snprintf(err, err_len, "--mode '%s' cannot run on the program's own thread: only up can", em.config.mode);
    return -EINVAL;
}

static int
start_eal(int nb_eal, char **argv, char *err, size_t err_len)
{
    int argc;
    char **args = config_eal_args(&em.config, nb_eal, argv, &argc);

    if (args == NULL) {
        snprintf(err, err_len, "out of memory");
        return -ENOMEM;
    }
    em.eal_args = args;
    return eal_start(argc, args, err, err_len);
}

/* own: where in argv the stack's own options begin. */
static int
start(int argc, char **argv, int own)
{
    char err[ERROR_BYTES] = "";
    int rc = config_load(&em.config, &em.options, argc - own, argv + own, err, sizeof(err));

    if (rc != 0)
        return fail(rc, err);
    if (options_source(&em.options, "mode") == OPTION_FROM_DEFAULT)
        rc = options_set(&em.options, "mode", "up", OPTION_FROM_FILE, err, sizeof(err));
    if (rc == 0)
        rc = options_set(&em.options, "control", "-", OPTION_FROM_FILE, err, sizeof(err));
    if (rc == 0)
        rc = config_check(&em.config, err, sizeof(err));
    if (rc == 0)
        rc = check_mode(err, sizeof(err));
    if (rc == 0) {
        em.was_started = true;
        rc = start_eal(own > 0 ? own - 1 : 0, argv, err, sizeof(err));
    }
    if (rc >= 0)
        rc = start_stack(err, sizeof(err));
    if (rc < 0)
        return fail(rc, err);
    em.runs = true;
    atexit(stop_at_exit);
    return 0;
}

int
iso_stack_start(int argc, char *const argv[])
{
    char **copy;
    int own = 0;

    if (em.was_started) {
        errno = EALREADY;
        return -1;
    }
    /* Option parsers may permute, and the EAL keeps what it is given. */
    copy = calloc((size_t)argc + 1, sizeof(*copy));
    if (copy == NULL)
        return -1;
    for (int i = 0; i < argc; i++) {
        copy[i] = strdup(argv[i]);
        if (copy[i] == NULL)
            return -1;
        if (own == 0 && i > 0 && strcmp(argv[i], "--") == 0)
            own = i;
    }
    em.argv = copy;
    return start(argc, copy, own);
}

int
iso_stack_start_file(const char *path)
{
    char name[] = "isosock", option[] = "--config", *file = strdup(path);
    char *const argv[] = { name, option, file, NULL };
    int rc = file != NULL ? iso_stack_start(3, argv) : -1;

    free(file);
    return rc;
}

int
iso_stack_poll(void)
{
    if (!runs_here()) {
        errno = ENOTCONN;
        return -1;
    }
    return (int)pass();
}

/*
 * What front-end objects still refer to stays mapped until the process ends; the port goes now. A program that closes its sockets late then finds
 * a stack that is dead, as after the end of a daemon.
 */
int
iso_stack_stop(void)
{
    uint64_t end_us = clock_now_us() + DRAIN_MAX_US;

    if (!runs_here() || !lock_acquire(&em.lock)) {
        errno = ENOTCONN;
        return -1;
    }
    em.runs = false;
    pass_locked(clock_now_us());
    host_shutdown_begin(em.host, clock_now_us());
    do
        pass_locked(clock_now_us());
    while (!host_shutdown_done(em.host, clock_now_us()) && clock_now_us() < end_us);
    __atomic_store_n(&front.dead, 1, __ATOMIC_SEQ_CST);
    front_local = NULL;
    host_calls_end(em.host);
    lock_release(&em.lock);
    port_stop(&em.daemon.port);
    eal_stop();
    return 0;
}
