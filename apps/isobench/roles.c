/* SPDX-License-Identifier: BSD-3-Clause */
#include "client.h"

#include "transfer.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>

/* Calls on one connection before the others have their turn. */
#define CALLS_PER_EVENT 8u
/* For what lies in the buffers of many connections to be delivered. */
#define FINISH_NS UINT64_C(10000000000)

static enum role
role_of(const struct client_thread *t)
{
    return t->run->o->hello.role;
}

static uint32_t
size_of(const struct client_thread *t)
{
    return t->run->o->hello.size_bytes;
}

static int
want(struct client_thread *t, struct client_conn *c, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = c };

    if (events == c->events)
        return 0;
    c->events = events;
    return epoll_ctl(t->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

/** One call. Returns the bytes sent; 0: no room now; -1: the connection failed. */
static ssize_t
send_some(struct client_thread *t, struct client_conn *c)
{
    uint64_t n_bytes = c->hello_left + c->out_bytes;
    ssize_t n;

    if (n_bytes > c->hello_left + CLIENT_BUFFER_BYTES)
        n_bytes = c->hello_left + CLIENT_BUFFER_BYTES;
    n = transfer_send(t->run->o->zero_copy && c->hello_left == 0, c->fd, t->out + HELLO_BYTES - c->hello_left, n_bytes);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if ((size_t)n < c->hello_left) {
        c->hello_left -= (uint32_t)n;
    } else {
        c->out_bytes -= (uint64_t)n - c->hello_left;
        c->hello_left = 0;
    }
    return n;
}

/** Send what waits; ask for EPOLLOUT if not all of it goes. */
static int
flush(struct client_thread *t, struct client_conn *c)
{
    while (c->hello_left + c->out_bytes > 0) {
        ssize_t n = send_some(t, c);

        if (n < 0)
            return -1;
        if (n == 0)
            return want(t, c, EPOLLIN | EPOLLOUT);
    }
    return want(t, c, EPOLLIN);
}

/* ---- rr, crr ------------------------------------------------------------------------------------------------------------- */

static void
request_add(struct client_thread *t, struct client_conn *c, uint64_t at_ns)
{
    uint32_t i = c->oldest + c->in_flight++;

    c->sent_at_ns[i < t->slots ? i : i - t->slots] = at_ns;
    c->out_bytes += size_of(t);
}

static void
answer_done(struct client_thread *t, struct client_conn *c)
{
    uint64_t sent_at_ns = c->sent_at_ns[c->oldest];

    c->oldest = c->oldest + 1 == t->slots ? 0 : c->oldest + 1;
    c->in_flight--;
    if (!t->running)
        return;
    tally_add(&t->tally->messages, 1);
    tally_add(&t->tally->bytes, size_of(t));
    hist_add(t->tally->latency, t->now_ns > sent_at_ns ? t->now_ns - sent_at_ns : 0);
}

/** Returns how many answers that completes, or -1 if more came than was asked for. */
static int
take_answers(struct client_thread *t, struct client_conn *c, uint64_t n)
{
    int done = 0;

    for (c->in_bytes += n; c->in_bytes >= size_of(t); c->in_bytes -= size_of(t), done++) {
        if (c->in_flight == 0)
            return -1;
        answer_done(t, c);
    }
    return done;
}

static int
rr_on_bytes(struct client_thread *t, struct client_conn *c, uint64_t n)
{
    int done = take_answers(t, c, n);

    if (done < 0)
        return -1;
    if (t->interval_ns > 0)
        return 0;
    while (done-- > 0)
        request_add(t, c, t->now_ns);
    return c->out_bytes > 0 ? flush(t, c) : 0;
}

/* ---- events -------------------------------------------------------------------------------------------------------------- */

int
role_on_connected(struct client_thread *t, struct client_conn *c)
{
    c->hello_left = HELLO_BYTES;
    if (role_of(t) == ROLE_CRR) {
        /* The instant is that of the connect(). */
        uint64_t at_ns = c->sent_at_ns[0];

        c->oldest = 0;
        request_add(t, c, at_ns);
    } else if (t->running && role_on_start(t, c) != 0) {
        return -1;
    }
    return flush(t, c);
}

int
role_on_start(struct client_thread *t, struct client_conn *c)
{
    if (t->interval_ns > 0)
        return 0;
    if (role_of(t) == ROLE_RR) {
        while (c->in_flight < t->run->o->depth)
            request_add(t, c, t->now_ns);
        return flush(t, c);
    }
    return role_of(t) == ROLE_TX ? want(t, c, EPOLLIN | EPOLLOUT) : 0;
}

static int
on_bytes(struct client_thread *t, struct client_conn *c, uint64_t n)
{
    switch (role_of(t)) {
    case ROLE_RR:
        return rr_on_bytes(t, c, n);
    case ROLE_CRR:
        return take_answers(t, c, n) < 0 ? -1 : 0;
    case ROLE_RX:
        if (!t->running)
            return 0;
        c->in_bytes += n;
        tally_add(&t->tally->bytes, n);
        tally_add(&t->tally->messages, c->in_bytes / size_of(t));
        c->in_bytes %= size_of(t);
        return 0;
    default:
        return -1; /* nothing is said to these while they run */
    }
}

int
role_on_readable(struct client_thread *t, struct client_conn *c)
{
    /* A stream is taken as it is sent: at most one message a call. */
    size_t most = role_of(t) == ROLE_RX && size_of(t) < CLIENT_BUFFER_BYTES ? size_of(t) : CLIENT_BUFFER_BYTES;

    for (unsigned i = 0; i < CALLS_PER_EVENT; i++) {
        ssize_t n = transfer_recv(t->run->o->zero_copy, c->fd, t->in, most);

        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        if (n == 0)
            return -1;
        if (on_bytes(t, c, (uint64_t)n) != 0)
            return -1;
        /* A short read took all there was. crr looks again, since the server's FIN comes with its answer. */
        if ((size_t)n < most && role_of(t) != ROLE_CRR)
            return 0;
    }
    return 0;
}

int
role_on_writable(struct client_thread *t, struct client_conn *c)
{
    if (role_of(t) != ROLE_TX || !t->running || t->interval_ns > 0)
        return flush(t, c);
    for (unsigned i = 0; i < CALLS_PER_EVENT; i++) {
        ssize_t n;

        if (c->hello_left + c->out_bytes == 0)
            c->out_bytes = size_of(t); /* one message a call */
        n = send_some(t, c);
        if (n <= 0)
            return (int)n;
        tally_add(&t->tally->bytes, (uint64_t)n);
        if (c->out_bytes == 0)
            tally_add(&t->tally->messages, 1);
    }
    return 0;
}

/* ---- the open loop ------------------------------------------------------------------------------------------------------- */

/** A connection that can take one more message, in turn; NULL if none can. */
static struct client_conn *
next_free(struct client_thread *t)
{
    for (uint32_t i = 0; i < t->nb_conns; i++) {
        struct client_conn *c = &t->conns[t->next];

        t->next = t->next + 1 == t->nb_conns ? 0 : t->next + 1;
        if (c->fd < 0 || !c->connected)
            continue;
        if (role_of(t) == ROLE_RR ? c->in_flight < t->slots : c->out_bytes == 0)
            return c;
    }
    return NULL;
}

/* What cannot be sent in time stays due, and its latency counts from when it was. */
void
role_send_due(struct client_thread *t)
{
    while (t->due_ns <= (double)t->now_ns) {
        struct client_conn *c = next_free(t);

        if (c == NULL)
            return;
        if (role_of(t) == ROLE_RR) {
            request_add(t, c, (uint64_t)t->due_ns);
        } else {
            c->out_bytes += size_of(t);
            tally_add(&t->tally->messages, 1);
            tally_add(&t->tally->bytes, size_of(t));
        }
        t->due_ns += t->interval_ns;
        if (flush(t, c) != 0) {
            tally_add(&t->tally->errors, 1);
            client_close(t, c);
        }
    }
}

/* ---- the end ------------------------------------------------------------------------------------------------------------- */

/** Read the server's total of one connection, until deadline_ns. Returns 0, or -1. */
static int
read_total(struct client_conn *c, uint64_t deadline_ns, uint64_t *total_bytes)
{
    uint8_t in[HELLO_TOTAL_BYTES];
    size_t got = 0;

    while (got < sizeof(in)) {
        struct pollfd p = { .fd = c->fd, .events = POLLIN };
        uint64_t now = now_ns();
        ssize_t n;

        if (now >= deadline_ns || poll(&p, 1, (int)((deadline_ns - now) / 1000000u) + 1) < 0)
            return -1;
        n = recv(c->fd, in + got, sizeof(in) - got, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return -1;
        got += n > 0 ? (size_t)n : 0;
    }
    *total_bytes = 0;
    for (unsigned i = 0; i < sizeof(in); i++)
        *total_bytes = *total_bytes << 8 | in[i];
    return 0;
}

/* What lies in buffers has not been delivered: count what the server took, and the time that this needed. */
void
role_finish(struct client_thread *t)
{
    uint64_t deadline_ns = now_ns() + FINISH_NS, bytes = 0;

    if (role_of(t) != ROLE_TX)
        return;
    for (uint32_t i = 0; i < t->nb_conns; i++) {
        if (t->conns[i].fd >= 0)
            shutdown(t->conns[i].fd, SHUT_WR);
    }
    for (uint32_t i = 0; i < t->nb_conns; i++) {
        struct client_conn *c = &t->conns[i];
        uint64_t total_bytes;

        if (c->fd < 0)
            continue;
        if (read_total(c, deadline_ns, &total_bytes) == 0)
            bytes += total_bytes;
        else
            tally_add(&t->tally->errors, 1);
    }
    t->tally->bytes = bytes;
    t->tally->messages = bytes / size_of(t);
}
