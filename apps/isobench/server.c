/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The server: each thread has an epoll set; all share one listener. What a connection wants it says in its first bytes (hello.h). Contents do not matter, so answers
 * are counted and sent from one buffer, and a slow reader costs a number rather than memory.
 */
#include "run.h"
#include "transfer.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS 256
#define BUFFER_BYTES 131072u
/* Calls on one connection before the others have their turn. */
#define CALLS_PER_EVENT 8u
#define ACCEPTS_PER_EVENT 64u
#define WAIT_MS 100
#define PAUSE_NS UINT64_C(10000000)

/** One cache line, since servers hold many. */
struct server_conn {
    struct server_conn *next, **link; /**< in its thread's list */
    int fd;
    uint32_t events; /**< as epoll knows them */
    uint32_t hello_got; /**< bytes of the hello that are there */
    bool closing; /**< close when out_bytes is 0 */
    struct hello hello;
    uint64_t out_bytes; /**< to be sent */
    union {
        uint8_t first[HELLO_BYTES]; /**< while hello_got is less than all of them; then: */
        struct {
            uint64_t message_got; /**< bytes of the message that is coming in */
            uint64_t total_bytes; /**< tx: taken so far */
        };
    };
} __attribute__((aligned(64)));
static_assert(sizeof(struct server_conn) == 64, "a connection of the server is one line");

#define BLOCK_CONNS 255u

/** Many at a time: the allocator would take a line and more for each. */
struct conn_block {
    struct conn_block *next;
    uint32_t used;
    struct server_conn conns[BLOCK_CONNS];
};

struct server_thread {
    struct run *run;
    struct tally *tally;
    uint32_t number;
    int listen_fd, epoll_fd;
    struct server_conn *conns, *spare;
    struct conn_block *blocks;
    uint64_t paused_until_ns; /**< no descriptors left: no accepting until then; 0 = accepting */
    uint8_t *in, *out;
};

static struct server_conn *
conn_alloc(struct server_thread *t)
{
    struct server_conn *c = t->spare;

    if (c != NULL) {
        t->spare = c->next;
        return c;
    }
    if (t->blocks == NULL || t->blocks->used == BLOCK_CONNS) {
        struct conn_block *b = aligned_alloc(64, sizeof(*b));

        if (b == NULL)
            return NULL;
        b->next = t->blocks;
        b->used = 0;
        t->blocks = b;
    }
    return &t->blocks->conns[t->blocks->used++];
}

static void
conn_free(struct server_thread *t, struct server_conn *c)
{
    c->next = t->spare;
    t->spare = c;
}

static void
conn_close(struct server_thread *t, struct server_conn *c)
{
    close(c->fd);
    *c->link = c->next;
    if (c->next != NULL)
        c->next->link = c->link;
    conn_free(t, c);
}

static int
conn_want(struct server_thread *t, struct server_conn *c, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = c };

    if (events == c->events)
        return 0;
    c->events = events;
    return epoll_ctl(t->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

/** Returns 0, or -1: the connection is at its end. */
static int
conn_send(struct server_thread *t, struct server_conn *c)
{
    for (unsigned i = 0; i < CALLS_PER_EVENT && (c->out_bytes > 0 || c->hello.role == ROLE_RX); i++) {
        uint64_t want = c->out_bytes;
        ssize_t n;

        if (c->hello.role == ROLE_RX && want == 0)
            want = c->out_bytes = c->hello.size_bytes; /* one message a call */
        n = transfer_send(t->run->o->zero_copy, c->fd, t->out, want < BUFFER_BYTES ? want : BUFFER_BYTES);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        c->out_bytes -= (uint64_t)n;
        if (c->hello.role == ROLE_RX) {
            tally_add(&t->tally->bytes, (uint64_t)n);
            if (c->out_bytes == 0)
                tally_add(&t->tally->messages, 1);
        }
    }
    return c->closing && c->out_bytes == 0 ? -1 : 0;
}

/** n bytes that follow the hello have come. */
static void
conn_take(struct server_thread *t, struct server_conn *c, uint64_t n)
{
    uint64_t done;

    tally_add(&t->tally->bytes, n);
    c->total_bytes += n;
    if (c->hello.role == ROLE_RX || c->hello.role == ROLE_IDLE)
        return;
    c->message_got += n;
    if (c->message_got < c->hello.size_bytes)
        return;
    done = c->message_got / c->hello.size_bytes;
    c->message_got %= c->hello.size_bytes;
    tally_add(&t->tally->messages, done);
    if (c->hello.role == ROLE_RR) {
        c->out_bytes += done * c->hello.size_bytes;
    } else if (c->hello.role == ROLE_CRR && !c->closing) {
        c->out_bytes = c->hello.size_bytes;
        c->closing = true;
    }
}

static int
conn_hello(struct server_thread *t, struct server_conn *c, const uint8_t *in, uint64_t n)
{
    uint64_t part = HELLO_BYTES - c->hello_got;
    int one = 1;

    if (part > n)
        part = n;
    memcpy(c->first + c->hello_got, in, part);
    c->hello_got += (uint32_t)part;
    if (c->hello_got < HELLO_BYTES)
        return 0;
    if (hello_read(&c->hello, c->first) != 0) {
        tally_add(&t->tally->errors, 1);
        return -1;
    }
    c->message_got = c->total_bytes = 0;
    /* A stream is left to the stack's own judgement: small messages may be put together. */
    if (c->hello.role != ROLE_RX)
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (n > part)
        conn_take(t, c, n - part);
    return 0;
}

/* The client sends no more. Only tx has still something to hear: how much came. */
static int
conn_eof(struct server_conn *c)
{
    uint32_t words[2] = { htonl((uint32_t)(c->total_bytes >> 32)), htonl((uint32_t)c->total_bytes) };

    static_assert(sizeof(words) == HELLO_TOTAL_BYTES, "the total's size");
    if (c->hello_got == HELLO_BYTES && c->hello.role == ROLE_TX)
        (void)!send(c->fd, words, sizeof(words), MSG_NOSIGNAL);
    return -1;
}

static int
conn_receive(struct server_thread *t, struct server_conn *c)
{
    for (unsigned i = 0; i < CALLS_PER_EVENT; i++) {
        ssize_t n = transfer_recv(t->run->o->zero_copy && c->hello_got == HELLO_BYTES, c->fd, t->in, BUFFER_BYTES);

        if (n < 0) {
            /* A reset is how a client ends with bytes unread; whether that was early is for the client to say. */
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        }
        if (n == 0)
            return conn_eof(c);
        if (c->hello_got == HELLO_BYTES)
            conn_take(t, c, (uint64_t)n);
        else if (conn_hello(t, c, t->in, (uint64_t)n) != 0)
            return -1;
        if ((size_t)n < BUFFER_BYTES)
            return 0; /* that was all there was: epoll tells of more */
    }
    return 0;
}

static void
conn_event(struct server_thread *t, struct server_conn *c, uint32_t events)
{
    bool is_sender;

    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && conn_receive(t, c) != 0) {
        conn_close(t, c);
        return;
    }
    is_sender = c->hello_got == HELLO_BYTES && c->hello.role == ROLE_RX;
    if ((c->out_bytes > 0 || is_sender) && conn_send(t, c) != 0) {
        conn_close(t, c);
        return;
    }
    if (conn_want(t, c, c->out_bytes > 0 || is_sender ? EPOLLIN | EPOLLOUT : EPOLLIN) != 0) {
        tally_add(&t->tally->errors, 1);
        conn_close(t, c);
    }
}

static int
conn_open(struct server_thread *t, int fd)
{
    struct server_conn *c = conn_alloc(t);
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

    if (c == NULL)
        return -1;
    *c = (struct server_conn){ .fd = fd, .events = EPOLLIN };
    if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0) {
        conn_free(t, c);
        return -1;
    }
    c->link = &t->conns;
    c->next = t->conns;
    if (c->next != NULL)
        c->next->link = &c->next;
    t->conns = c;
    tally_add(&t->tally->connects, 1);
    return 0;
}

static int
listener_want(struct server_thread *t, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = NULL };

    if (events == 0)
        return epoll_ctl(t->epoll_fd, EPOLL_CTL_DEL, t->listen_fd, &ev);
    if (t->run->o->threads > 1)
        ev.events |= EPOLLEXCLUSIVE;
    return epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->listen_fd, &ev);
}

static void
accept_some(struct server_thread *t)
{
    for (unsigned i = 0; i < ACCEPTS_PER_EVENT; i++) {
        int fd = accept4(t->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            if (conn_open(t, fd) != 0) {
                tally_add(&t->tally->errors, 1);
                close(fd);
            }
            continue;
        }
        /* No descriptors: the listener stays readable, so look away for a moment instead of spinning. */
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            tally_add(&t->tally->errors, 1);
            if (listener_want(t, 0) == 0)
                t->paused_until_ns = now_ns() + PAUSE_NS;
        }
        return;
    }
}

static void
serve_loop(struct server_thread *t)
{
    struct epoll_event ev[EVENTS];
    const struct options *o = t->run->o;
    uint64_t end_ns = o->duration_s > 0 ? now_ns() + (uint64_t)(o->duration_s * 1e9) : UINT64_MAX;

    while (!t->run->stop && (end_ns == UINT64_MAX || now_ns() < end_ns)) {
        int n = epoll_wait(t->epoll_fd, ev, EVENTS, o->spin ? 0 : t->paused_until_ns != 0 ? 1 : WAIT_MS);

        for (int i = 0; i < n; i++) {
            if (ev[i].data.ptr == NULL)
                accept_some(t);
            else
                conn_event(t, ev[i].data.ptr, ev[i].events);
        }
        if (t->paused_until_ns != 0 && now_ns() >= t->paused_until_ns && listener_want(t, EPOLLIN) == 0)
            t->paused_until_ns = 0;
    }
}

static void *
server_thread_main(void *arg)
{
    struct server_thread *t = arg;
    struct perfctr perf;
    int rc = run_pin(t->run->o, t->number);

    if (rc != 0)
        fprintf(stderr, "isobench: --pin: thread %u: %s\n", t->number, strerror(-rc));
    __atomic_add_fetch(&t->run->ready, 1, __ATOMIC_ACQ_REL);
    t->tally->start_ns = now_ns();
    t->tally->cpu_ns = thread_cpu_ns();
    perfctr_start(&perf, &t->tally->perf);
    serve_loop(t);
    perfctr_stop(&perf, &t->tally->perf);
    t->tally->cpu_ns = thread_cpu_ns() - t->tally->cpu_ns;
    t->tally->end_ns = now_ns();
    while (t->conns != NULL)
        conn_close(t, t->conns);
    __atomic_add_fetch(&t->run->ended, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

static int
listener_open(const struct options *o)
{
    int fd = socket(o->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (const struct sockaddr *)&o->addr, o->addr_len) != 0 || listen(fd, 4096) != 0) {
        int saved_errno = errno;

        close(fd);
        errno = saved_errno;
        return -1;
    }
    return fd;
}

static int
thread_init(struct server_thread *t)
{
    t->tally = &t->run->tallies[t->number];
    t->in = malloc(BUFFER_BYTES);
    t->out = calloc(1, BUFFER_BYTES);
    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (t->in == NULL || t->out == NULL || t->epoll_fd < 0)
        return -1;
    return listener_want(t, EPOLLIN);
}

int
server_run(struct run *run)
{
    uint32_t n = run->o->threads;
    struct server_thread *threads = calloc(n, sizeof(*threads));
    int fd = listener_open(run->o), rc = -1;

    if (threads == NULL || fd < 0) {
        fprintf(stderr, "isobench: %s: %s\n", run->o->target, strerror(errno));
        free(threads);
        return -1;
    }
    for (uint32_t i = 0; i < n; i++)
        threads[i] = (struct server_thread){ .run = run, .number = i, .listen_fd = fd, .epoll_fd = -1 };
    for (uint32_t i = 0; i < n; i++) {
        if (thread_init(&threads[i]) != 0) {
            fprintf(stderr, "isobench: thread %u: %s\n", i, strerror(errno));
            goto out;
        }
    }
    rc = run_threads(run, server_thread_main, threads, sizeof(*threads));
out:
    for (uint32_t i = 0; i < n; i++) {
        free(threads[i].in);
        free(threads[i].out);
        for (struct conn_block *b = threads[i].blocks, *next; b != NULL; b = next) {
            next = b->next;
            free(b);
        }
        if (threads[i].epoll_fd >= 0)
            close(threads[i].epoll_fd);
    }
    close(fd);
    free(threads);
    return rc;
}
