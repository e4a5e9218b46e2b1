/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/engine.h"

#include <errno.h>
#include <string.h>

#include <rte_ether.h>

/**
 * @file
 * Received bytes on their way to the application. A segment's descriptor (struct shm_segment) stands in its buffer's headroom, which the
 * stack alone can write. Buffers of a socket form one list in stream order: those of published trains, then those of the growing train.
 */

/* Of a buffer: the descriptor is 64-byte aligned, as its name in shared memory is a count of 64 bytes, and never 0. */
#define SEGMENT_OFF 64u
#define SEGMENT_UNIT 64u
static_assert(SEGMENT_OFF + sizeof(struct shm_segment) <= RTE_PKTMBUF_HEADROOM, "the descriptor fits the headroom");

/* What is not longer is worth a copy rather than a buffer of its own. */
#define COALESCE_BYTES 512u

static inline struct shm_segment *
segment_of(const struct stack *s, tcp_buf buf)
{
    return (struct shm_segment *)(void *)(pktpool_buf(s->pool, buf) + SEGMENT_OFF);
}

static inline uint32_t
segment_name(const struct stack *s, tcp_buf buf)
{
    return (uint32_t)(pktpool_offset(s->pool, segment_of(s, buf)) / SEGMENT_UNIT);
}

static struct rte_mbuf *
take_first(struct stack *s, struct sock *sk)
{
    struct rte_mbuf *m = pktpool_mbuf(s->pool, sk->rx_first);

    sk->rx_first = m->hash.usr;
    count_rx_bufs(s, sk->app, -1);
    return m;
}

/* The first of the list, which has been published. It is of our own pool, single, and nobody else refers to it: rx_own saw to that. */
static inline void
free_first(struct stack *s, struct sock *sk)
{
    struct net *net = s->net;

    net->rx_done[net->nb_rx_done++] = take_first(s, sk);
    if (net->nb_rx_done == NET_RX_DONE)
        rx_give_back(net);
}

void
rx_give_back(struct net *net)
{
    rte_mempool_put_bulk(net->host->pool->rx, (void **)net->rx_done, net->nb_rx_done);
    net->nb_rx_done = 0;
}

/* ---- from the engine --------------------------------------------------------------------------------------------------- */

static inline bool
may_coalesce(const struct sock *sk, uint32_t n_bytes)
{
    return sk->rx_growing != PKTPOOL_NO_BUF && n_bytes <= COALESCE_BYTES;
}

static bool
coalesce(struct stack *s, struct sock *sk, const struct rte_mbuf *m, const struct tcp_data *data)
{
    struct shm_segment *last;
    uint32_t end;

    if (!may_coalesce(sk, data->len))
        return false;
    last = segment_of(s, sk->rx_last);
    end = SEGMENT_OFF + last->data_off + last->n_bytes;
    if (end + data->len > s->pool->buf_bytes || unlikely(s->pool->nb_late != 0))
        return false;
    memcpy(pktpool_buf(s->pool, sk->rx_last) + end, rte_pktmbuf_mtod_offset(m, const char *, data->off), data->len);
    last->n_bytes += data->len;
    last->at_us = (uint32_t)s->env.now_us;
    counter_inc(s->ctr, CTR_SOCK_RX_COALESCED);
    return true;
}

static inline __attribute__((always_inline)) void
append(struct stack *s, struct sock *sk, struct rte_mbuf *m, const struct tcp_data *data)
{
    *segment_of(s, data->buf) = (struct shm_segment){ .data_off = (uint32_t)(m->data_off + data->off) - SEGMENT_OFF,
                                                      .n_bytes = data->len,
                                                      .at_us = (uint32_t)s->env.now_us };
    m->hash.usr = PKTPOOL_NO_BUF; /* what the device said there has been used */
    if (sk->rx_first == PKTPOOL_NO_BUF)
        sk->rx_first = data->buf;
    else
        pktpool_mbuf(s->pool, sk->rx_last)->hash.usr = data->buf;
    if (sk->rx_growing == PKTPOOL_NO_BUF)
        sk->rx_growing = data->buf;
    else
        segment_of(s, sk->rx_last)->next = segment_name(s, data->buf);
    sk->rx_last = data->buf;
    count_rx_bufs(s, sk->app, 1);
}

/*
 * One application must not take every buffer. Over half of the pool (what the ports' rings hold is not counted) its sockets are given small receive buffers, so that their
 * windows close; what the peers may still send fills at most their old windows. From three quarters on the engine refuses payload for
 * connections that hold some (tcp_env.mem_pressure), with an eighth left for any (tcp_env.mem_exhausted); over seven eighths the connection that takes more is reset.
 */
static void
limit_app(struct stack *s, struct sock *sk)
{
    if (app_rx_bufs(sk->app) > pktpool_budget(s->pool) / 8 * 7) {
        sock_more_own(s, sk)->abort_error = ENOBUFS;
        sock_mark(s, sk, DIRTY_ABORT);
    } else if (!(sock_flags(sk) & SOCK_SQUEEZED)) {
        sock_mark(s, sk, DIRTY_SQUEEZE);
    }
}

/* The application has read: its windows open again, also those of sockets that nothing happens to, in whichever domain they live. */
static void
relax_app(struct stack *s, struct app *app)
{
    __atomic_store_n(&app->squeezed, false, __ATOMIC_RELAXED);
    __atomic_store_n(&app->relax, true, __ATOMIC_RELAXED);
    if (s->host->nb_stacks == 1 && s->shared == NULL)
        rx_relax(s, app);
    else
        host_want_stop(s->host);
}

void
rx_relax(struct stack *s, struct app *app)
{
    for (uint32_t slot = 0; slot < app->slots_used; slot++) {
        struct sock *sk = sock_in(s, app, slot);

        if (sk != NULL && (sock_flags(sk) & SOCK_SQUEEZED))
            sock_mark(s, sk, DIRTY_SQUEEZE);
    }
}

/* Nobody will read it. As Linux, tell the peer so where the application has ended both directions; a closed socket's peer hears it from the engine. */
static void
refuse(struct stack *s, struct sock *sk, struct rte_mbuf *m)
{
    rte_pktmbuf_free(m);
    if (sock_flags(sk) & SOCK_CLOSING)
        return;
    sock_more_own(s, sk)->abort_error = ECONNRESET;
    sock_mark(s, sk, DIRTY_ABORT);
}

static bool
nobody_reads(const struct sock *sk)
{
    const uint16_t both = SOCK_SHUT_RD | SOCK_SHUT_WR;

    return (sock_flags(sk) & SOCK_CLOSING) || (sock_flags(sk) & both) == both;
}

/* What all applications have is judged once for a burst, which may bring one to its limit if they have nearly as much together. */
static inline void
delivered(struct stack *s, struct sock *sk, uint32_t n_bytes)
{
    sk->rx_delivered += n_bytes;
    sock_mark(s, sk, DIRTY_TRAIN);
    if (unlikely(!s->rx_roomy) && app_rx_bufs(sk->app) > pktpool_budget(s->pool) / 2)
        limit_app(s, sk);
}

/* Where little comes behind other bytes, nobody reads, or others may be at the socket. Apart, so that the usual segment need not save registers for it. */
static __rte_noinline void
deliver_otherwise(struct stack *s, struct sock *sk, struct rte_mbuf *m, struct tcp_data data)
{
    sock_lock(s, sk);
    if (unlikely(nobody_reads(sk))) {
        refuse(s, sk, m);
    } else {
        if (coalesce(s, sk, m, &data))
            rte_pktmbuf_free(m);
        else
            append(s, sk, m, &data);
        delivered(s, sk, data.len);
    }
    sock_unlock(s, sk);
}

void
rx_on_deliver(void *ctx, tcp_user user, struct tcp_data data)
{
    struct stack *s = ctx;
    struct sock *sk = &s->socks[user];
    struct rte_mbuf *m = pktpool_mbuf(s->pool, data.buf);

    if (unlikely(data.len == 0)) {
        rte_pktmbuf_free(m);
    } else if (unlikely(s->sock_locks || nobody_reads(sk)) || may_coalesce(sk, data.len)) {
        deliver_otherwise(s, sk, m, data);
    } else {
        append(s, sk, m, &data);
        delivered(s, sk, data.len);
    }
}

void
rx_on_release(void *ctx, tcp_buf buf)
{
    struct stack *s = ctx;

    rte_pktmbuf_free(pktpool_mbuf(s->pool, buf));
}

struct rte_mbuf *
rx_own_net(struct net *net, struct rte_mbuf *m)
{
    struct pktpool *pool = net->host->pool;
    struct rte_mbuf *copy;

    /* A handle names a buffer of the receive pool; a descriptor may be written into it only if nobody else refers to it. */
    if (likely(m->pool == pool->rx && rte_mbuf_refcnt_read(m) == 1))
        return m;
    copy = pktpool_copy(pool, m);
    rte_pktmbuf_free(m);
    if (copy == NULL)
        counter_inc(net->ctr, CTR_PORT_DROP_NO_MBUF);
    return copy;
}

/* ---- to the application ---------------------------------------------------------------------------------------------------- */

/* What the window holds at most, as far as is known without asking the engine, whose locks come before ours: the peer may not scale it. */
static uint32_t
window_bytes(const struct stack *s, const struct sock *sk)
{
    const struct sock_more *more = sock_more(s, sk);
    uint32_t room = more->rcvbuf != 0 ? (uint32_t)more->rcvbuf : s->cfg.tcp.rcv_buf_bytes;

    if (more->window_clamp != 0)
        room = RTE_MIN(room, more->window_clamp);
    return RTE_MIN(room, (uint32_t)UINT16_MAX);
}

/* Trains that the application has not finished. */
static inline uint8_t
nb_trains(const struct sock *sk)
{
    return (uint8_t)(sock_back(sk)->train_tail - sk->train_head);
}

/*
 * SO_RCVLOWAT: what stands in trains can be read at any time, but no reader is to be woken below its mark, and trains are few. So the last place is
 * kept for the train that reaches it; or that ends the stream, or that leaves no room for two segments, after which none might come.
 */
static bool
waits_for_more(const struct stack *s, const struct sock *sk)
{
    uint32_t unread = sk->rx_delivered - sk->rx_taken;

    return unread < sock_more(s, sk)->rcvlowat && nb_trains(sk) == SHM_TRAINS - 1 &&
           !(sock_flags(sk) & (SOCK_FIN | SOCK_SQUEEZED)) && unread + 2 * RTE_ETHER_MTU < window_bytes(s, sk);
}

uint32_t
rx_publish(struct stack *s, struct sock *sk)
{
    struct shm_back_sock *b = sock_back(sk);
    uint32_t n_bytes = sk->rx_delivered - b->rx_tail;
    struct shm_train *t;

    if (n_bytes == 0)
        return 0;
    if (unlikely(nb_trains(sk) == SHM_TRAINS || (sock_more(s, sk)->rcvlowat > 1 && waits_for_more(s, sk)))) {
        shm_store(&b->rx_held, n_bytes);
        return 0;
    }
    t = &b->trains[b->train_tail % SHM_TRAINS];
    t->first = segment_name(s, sk->rx_growing);
    t->n_bytes = n_bytes;
    sk->rx_growing = PKTPOOL_NO_BUF;
    shm_store(&b->train_tail, b->train_tail + 1);
    shm_store(&b->rx_tail, sk->rx_delivered);
    if (unlikely(b->rx_held != 0))
        shm_store(&b->rx_held, 0);
    return DIRTY_READ;
}

/* Trains and buffers that lie wholly below rx_taken. Train lengths and segments are ours: no application can write them. */
static void
free_taken(struct stack *s, struct sock *sk)
{
    struct shm_back_sock *b = sock_back(sk);

    /* All that there is: nothing need be added up. */
    if (likely(sk->rx_taken == sk->rx_delivered)) {
        sk->train_head = (uint8_t)b->train_tail;
        sk->train_base = sk->rx_freed = sk->rx_taken;
        while (sk->rx_first != PKTPOOL_NO_BUF)
            free_first(s, sk);
        sk->rx_last = PKTPOOL_NO_BUF;
        return;
    }
    while (nb_trains(sk) != 0) {
        uint32_t n_bytes = b->trains[sk->train_head % SHM_TRAINS].n_bytes;

        if (sk->rx_taken - sk->train_base < n_bytes)
            break;
        sk->train_base += n_bytes;
        sk->train_head++;
    }
    while (sk->rx_first != PKTPOOL_NO_BUF && sk->rx_first != sk->rx_growing) {
        uint32_t n_bytes = segment_of(s, sk->rx_first)->n_bytes;

        if (sk->rx_taken - sk->rx_freed < n_bytes)
            break;
        sk->rx_freed += n_bytes;
        free_first(s, sk);
    }
    if (sk->rx_first == PKTPOOL_NO_BUF)
        sk->rx_last = PKTPOOL_NO_BUF;
}

/* The application has moved rx_head to head; false if it cannot have. */
static bool
taken_to(struct stack *s, struct sock *sk, uint32_t head)
{
    uint32_t published = sock_back(sk)->rx_tail;

    if (unlikely(head - sk->rx_taken > published - sk->rx_taken))
        return false;
    sk->rx_taken = head;
    free_taken(s, sk);
    if (published != sk->rx_delivered || (sock_flags(sk) & SOCK_FIN))
        sock_mark(s, sk, DIRTY_TRAIN);
    return true;
}

void
rx_take_to(struct stack *s, struct sock *sk, uint32_t head)
{
    uint32_t n_bytes = head - sk->rx_taken;
    bool ok;

    sock_lock(s, sk);
    ok = taken_to(s, sk, head);
    sock_unlock(s, sk);
    if (unlikely(!ok)) {
        sock_bad(s, sk);
        return;
    }
    if (unlikely(__atomic_load_n(&sk->app->squeezed, __ATOMIC_RELAXED) &&
                 app_rx_bufs(sk->app) < pktpool_budget(s->pool) / 4))
        relax_app(s, sk->app);
    if (sock_tcp(sk) != TCP_NO_ID)
        engine_consumed(s, sock_tcp(sk), n_bytes);
}

void
rx_drop_all(struct stack *s, struct sock *sk)
{
    while (sk->rx_first != PKTPOOL_NO_BUF)
        rte_pktmbuf_free_seg(take_first(s, sk)); /* the port may still have to fill it */
    sk->rx_last = sk->rx_growing = PKTPOOL_NO_BUF;
    sk->rx_taken = sk->rx_freed = sk->rx_delivered;
}
