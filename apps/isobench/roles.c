/* SPDX-License-Identifier: BSD-3-Clause */
#include "client.h"

#include "transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

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

/** The server's total of one connection, as far as it has come. */
struct total {
    uint8_t in[HELLO_TOTAL_BYTES];
    uint8_t got;
    bool ended; /**< complete, or it will not come */
};

/** Take what is there. Returns whether anything was. */
static bool
take_total(const struct client_conn *c, struct total *total)
{
    ssize_t n = recv(c->fd, total->in + total->got, sizeof(total->in) - total->got, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    total->got += n > 0 ? (uint8_t)n : 0;
    total->ended = n <= 0 || total->got == sizeof(total->in);
    return true;
}

/**
 * All connections in turn, never one alone: what has come for the others lies in buffers that they share with it, and might leave none for the one that is waited
 * for.
 */
static void
take_totals(struct client_thread *t, struct total *totals)
{
    const struct timespec pause = { .tv_nsec = 100000 };
    uint64_t deadline_ns = now_ns() + FINISH_NS;
    uint32_t left = t->nb_conns;

    while (left > 0 && now_ns() < deadline_ns) {
        bool any = false;

        left = 0;
        for (uint32_t i = 0; i < t->nb_conns; i++) {
            if (t->conns[i].fd < 0 || totals[i].ended)
                continue;
            any |= take_total(&t->conns[i], &totals[i]);
            left += !totals[i].ended;
        }
        if (left > 0 && !any && !t->run->o->spin)
            nanosleep(&pause, NULL);
    }
}

static uint64_t
number(const struct total *total)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < sizeof(total->in); i++)
        n = n << 8 | total->in[i];
    return n;
}

/* What lies in buffers has not been delivered: count what the server took, and the time that this needed. */
void
role_finish(struct client_thread *t)
{
    struct total *totals;
    uint64_t bytes = 0;

    if (role_of(t) != ROLE_TX)
        return;
    for (uint32_t i = 0; i < t->nb_conns; i++) {
        if (t->conns[i].fd >= 0)
            shutdown(t->conns[i].fd, SHUT_WR);
    }
    totals = calloc(t->nb_conns, sizeof(*totals));
    if (totals != NULL)
        take_totals(t, totals);
    for (uint32_t i = 0; i < t->nb_conns; i++) {
        if (t->conns[i].fd < 0)
            continue;
        if (totals != NULL && totals[i].got == sizeof(totals[i].in))
            bytes += number(&totals[i]);
        else
            tally_add(&t->tally->errors, 1);
    }
    free(totals);
    t->tally->bytes = bytes;
    t->tally->messages = bytes / size_of(t);
}
