/* SPDX-License-Identifier: BSD-3-Clause */
#include "client.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS 256
#define WAIT_MS 50
/* So many connects are under way at a time while the connections are set up; a listener's backlog is finite. */
#define CONNECTING_MAX 256u
#define SETUP_NS UINT64_C(30000000000)
/* Room for what an open loop is behind with, on each connection. */
#define OPEN_LOOP_SLOTS 1024u

void
client_close(struct client_thread *t, struct client_conn *c)
{
    close(c->fd);
    c->fd = -1;
    c->connected = false;
    t->nb_closed++;
}

static bool
has_instants(enum role role)
{
    return role == ROLE_RR || role == ROLE_CRR || role == ROLE_IDLE;
}

/** Returns 0 if the connect is under way or done, or -1. */
static int
conn_open(struct client_thread *t, struct client_conn *c)
{
    const struct options *o = t->run->o;
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT, .data.ptr = c };
    uint64_t *instants = c->sent_at_ns;
    int one = 1, fd = socket(o->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    /* A stream is left to the stack's own judgement: small messages may be put together. */
    if (o->hello.role != ROLE_TX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (instants != NULL)
        instants[0] = now_ns();
    if ((connect(fd, (const struct sockaddr *)&o->addr, o->addr_len) != 0 && errno != EINPROGRESS) ||
        epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0) {
        int saved_errno = errno;

        close(fd);
        errno = saved_errno;
        return -1;
    }
    *c = (struct client_conn){ .fd = fd, .events = ev.events, .sent_at_ns = instants };
    t->nb_closed--;
    return 0;
}

/** The connect has ended, well or not. */
static int
conn_established(struct client_thread *t, struct client_conn *c)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        return -1;
    if (error != 0) {
        errno = error;
        return -1;
    }
    c->connected = true;
    tally_add(&t->tally->connects, 1);
    if (t->run->o->hello.role == ROLE_IDLE && !t->running)
        hist_add(t->tally->latency, now_ns() - c->sent_at_ns[0]);
    if (!t->running)
        t->nb_connected++;
    return role_on_connected(t, c);
}

static int
conn_event(struct client_thread *t, struct client_conn *c, uint32_t events)
{
    if (!c->connected)
        return conn_established(t, c);
    if ((events & EPOLLOUT) != 0 && role_on_writable(t, c) != 0)
        return -1;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        return role_on_readable(t, c);
    return 0;
}

/* A connection has ended: for crr that is its end if its request was answered. */
static void
conn_ended(struct client_thread *t, struct client_conn *c)
{
    if (t->run->o->hello.role != ROLE_CRR || !c->connected || c->in_flight > 0)
        tally_add(&t->tally->errors, 1);
    client_close(t, c);
}

/** Take events for at most wait_ms. */
static void
take_events(struct client_thread *t, int wait_ms)
{
    struct epoll_event ev[EVENTS];
    int n = epoll_wait(t->epoll_fd, ev, EVENTS, t->run->o->spin ? 0 : wait_ms);

    t->now_ns = now_ns();
    for (int i = 0; i < n; i++) {
        struct client_conn *c = ev[i].data.ptr;

        if (conn_event(t, c, ev[i].events) != 0)
            conn_ended(t, c);
    }
}

/** Open what is closed, from where it was left, while fewer than max connects are under way. Returns -1 if one cannot begin. */
static int
open_closed(struct client_thread *t, uint32_t max)
{
    for (uint32_t i = 0; i < t->nb_conns && t->nb_closed > 0; i++) {
        struct client_conn *c = &t->conns[t->next];

        if (t->nb_conns - t->nb_closed >= t->nb_connected + max)
            return 0;
        if (c->fd < 0 && conn_open(t, c) != 0)
            return -1;
        t->next = t->next + 1 == t->nb_conns ? 0 : t->next + 1;
    }
    return 0;
}

/** Make all connections stand. Returns 0, or -1 with errno. */
static int
set_up(struct client_thread *t)
{
    uint64_t give_up_ns = now_ns() + SETUP_NS;

    if (t->run->o->hello.role == ROLE_CRR)
        return 0;
    while (t->nb_connected < t->nb_conns && !t->run->stop) {
        errno = 0;
        if (open_closed(t, CONNECTING_MAX) != 0)
            return -1;
        take_events(t, WAIT_MS);
        if (t->tally->errors > 0) {
            errno = errno != 0 ? errno : ECONNREFUSED;
            return -1;
        }
        if (now_ns() > give_up_ns) {
            errno = ETIMEDOUT;
            return -1;
        }
    }
    t->next = 0;
    return 0;
}

static int
wait_time_ms(const struct client_thread *t)
{
    if (t->interval_ns > 0) {
        double left_ns = t->due_ns - (double)t->now_ns;

        if (left_ns < 1e6)
            return 0;
        return left_ns < WAIT_MS * 1e6 ? (int)(left_ns / 1e6) : WAIT_MS;
    }
    /* What could not be opened is tried again soon. */
    return t->nb_closed > 0 ? 1 : WAIT_MS;
}

static void
measure(struct client_thread *t)
{
    const struct options *o = t->run->o;
    bool is_crr = o->hello.role == ROLE_CRR;

    t->now_ns = now_ns();
    t->running = true;
    t->deadline_ns = t->now_ns + (uint64_t)(o->duration_s * 1e9);
    t->due_ns = (double)t->now_ns;
    for (uint32_t i = 0; i < t->nb_conns; i++) {
        if (t->conns[i].fd >= 0 && role_on_start(t, &t->conns[i]) != 0)
            conn_ended(t, &t->conns[i]);
    }
    while (t->now_ns < t->deadline_ns && !t->run->stop) {
        if (is_crr && t->nb_closed > 0) {
            if (open_closed(t, t->nb_conns) != 0)
                tally_add(&t->tally->errors, 1);
        } else if (t->nb_closed == t->nb_conns) {
            return; /* all have died */
        }
        take_events(t, wait_time_ms(t));
        if (t->interval_ns > 0)
            role_send_due(t);
    }
}

static void
measure_counted(struct client_thread *t)
{
    struct tally *tally = t->tally;
    struct perfctr perf;

    tally->start_ns = now_ns();
    tally->cpu_ns = thread_cpu_ns();
    perfctr_start(&perf, &tally->perf);
    measure(t);
    role_finish(t);
    perfctr_stop(&perf, &tally->perf);
    tally->cpu_ns = thread_cpu_ns() - tally->cpu_ns;
    tally->end_ns = now_ns();
    if (t->run->o->hello.role == ROLE_IDLE)
        tally->messages = t->nb_conns - t->nb_closed;
}

static void *
client_thread_main(void *arg)
{
    struct client_thread *t = arg;
    struct run *run = t->run;
    int rc = run_pin(run->o, t->number);
    const struct timespec nap = { .tv_nsec = 100000 };

    if (rc != 0)
        fprintf(stderr, "isobench: --pin: thread %u: %s\n", t->number, strerror(-rc));
    if (set_up(t) != 0) {
        fprintf(stderr, "isobench: %s: %s after %u connections\n", run->o->target, strerror(errno), t->nb_connected);
        tally_add(&t->tally->errors, 1);
        run->stop = 1;
    }
    __atomic_add_fetch(&run->ready, 1, __ATOMIC_ACQ_REL);
    while (!__atomic_load_n(&run->go, __ATOMIC_ACQUIRE) && !run->stop)
        nanosleep(&nap, NULL);
    if (!run->stop)
        measure_counted(t);
    __atomic_add_fetch(&run->ended, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

static int
thread_init(struct client_thread *t)
{
    const struct options *o = t->run->o;

    t->tally = &t->run->tallies[t->number];
    t->nb_conns = o->connections / o->threads + (t->number < o->connections % o->threads);
    t->nb_closed = t->nb_conns;
    t->slots = o->rate > 0 ? OPEN_LOOP_SLOTS : o->depth;
    t->interval_ns = o->rate > 0 ? 1e9 * o->threads / o->rate : 0;
    t->conns = aligned_alloc(64, t->nb_conns * sizeof(*t->conns));
    t->in = malloc(CLIENT_BUFFER_BYTES);
    t->out = calloc(1, HELLO_BYTES + CLIENT_BUFFER_BYTES);
    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (t->conns == NULL || t->in == NULL || t->out == NULL || t->epoll_fd < 0)
        return -1;
    hello_write(&o->hello, t->out);
    if (has_instants(o->hello.role)) {
        t->instants = calloc((size_t)t->nb_conns * t->slots, sizeof(*t->instants));
        t->tally->latency = malloc(sizeof(*t->tally->latency));
        if (t->instants == NULL || t->tally->latency == NULL)
            return -1;
        hist_init(t->tally->latency);
    }
    for (uint32_t i = 0; i < t->nb_conns; i++) {
        t->conns[i] = (struct client_conn){
            .fd = -1,
            .sent_at_ns = t->instants != NULL ? t->instants + (size_t)i * t->slots : NULL,
        };
    }
    return 0;
}

static void
thread_fini(struct client_thread *t)
{
    for (uint32_t i = 0; t->conns != NULL && i < t->nb_conns; i++) {
        if (t->conns[i].fd >= 0)
            close(t->conns[i].fd);
    }
    if (t->epoll_fd >= 0)
        close(t->epoll_fd);
    free(t->conns);
    free(t->instants);
    free(t->in);
    free(t->out);
}

int
client_run(struct run *run)
{
    uint32_t n = run->o->threads, nb_init = 0;
    struct client_thread *threads = calloc(n, sizeof(*threads));
    int rc = threads != NULL ? 0 : -1;

    while (rc == 0 && nb_init < n) {
        threads[nb_init] = (struct client_thread){ .run = run, .number = nb_init, .epoll_fd = -1 };
        rc = thread_init(&threads[nb_init++]);
    }
    if (rc != 0)
        fprintf(stderr, "isobench: %s\n", strerror(errno));
    else
        rc = run_threads(run, client_thread_main, threads, sizeof(*threads));
    for (uint32_t i = 0; i < nb_init; i++)
        thread_fini(&threads[i]);
    free(threads);
    if (rc == 0 && !run->go)
        rc = -1; /* the set-up failed, and said so */
    return rc;
}
