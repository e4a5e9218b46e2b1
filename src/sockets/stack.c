/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/engine.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "core/prefetch.h"
#include "tcp/md5sig.h"

/**
 * @file
 * A domain with its sockets: entering, packets, timers, the end.
 */

/* Sockets beyond the engine's connections: those that are not connected yet. */
#define EXTRA_SOCKS 65536u
#define GSO_MAX_BYTES 61440u
#define TIMER_BUDGET 256u
#define TCP_IP_HEADERS 40u
#define SHUTDOWN_CHECK_US 10000u

/* ---- life --------------------------------------------------------------------------------------------------------------- */

/* Tuples spread evenly but not exactly, and listeners are in every domain. */
static uint32_t
part_of(uint32_t whole, uint32_t nb_stacks)
{
    return nb_stacks == 1 ? whole : RTE_MIN(whole, whole / nb_stacks * 2 + 1024);
}

static int
domain_create(struct stack *s)
{
    struct tcp_params *p = &s->cfg.tcp;
    uint32_t n = s->host->nb_stacks;

    p->max_conns = part_of(p->max_conns, n);
    p->max_half_open = part_of(p->max_half_open, n);
    p->max_time_wait = part_of(p->max_time_wait, n);
    p->max_ooo_bufs = part_of(p->max_ooo_bufs, n);
    p->max_moved = part_of(p->max_moved, n);
    p->steer = s->host->steer;
    p->steer_index = s->number;
    s->tcp_bytes = tcp_domain_bytes(p);
    s->tcp = lazy_alloc_by_page(s->tcp_bytes);
    if (s->tcp == NULL)
        return -1;
    s->sink = (struct tcp_sink){
        .ctx = s,
        .emit = tx_on_emit,
        .deliver = rx_on_deliver,
        .release = rx_on_release,
        .acked = sock_on_acked,
        .event = sock_on_event,
        .unused = stack_on_unused,
    };
    s->env = (struct tcp_env){
        .sink = &s->sink,
        .now_us = 1,
        .gso_max_bytes = s->host->port->caps.tso ? GSO_MAX_BYTES : 0,
    };
    if (tcp_domain_init(s->tcp, p, 1) != 0)
        return -1;
    return 0;
}

struct stack *
stack_create(struct host *h, uint32_t number)
{
    struct stack *s = aligned_alloc(64, RTE_ALIGN_CEIL(sizeof(*s), (size_t)64));

    if (s == NULL)
        return NULL;
    memset(s, 0, sizeof(*s));
    s->host = h;
    s->cfg = h->cfg;
    s->number = number;
    s->pool = h->pool;
    s->main = s;
    s->shared = h->shared;
    s->sock_locks = s->cfg.locks || h->shared != NULL;
    if (domain_create(s) != 0) {
        stack_destroy(s);
        return NULL;
    }
    s->max_socks = s->cfg.tcp.max_conns + EXTRA_SOCKS;
    s->socks_used = 1; /* tcp_user 0 is nobody */
    s->socks = lazy_alloc((size_t)s->max_socks * sizeof(s->socks[0]));
    s->more = lazy_alloc((size_t)s->max_socks * sizeof(s->more[0]));
    if (s->socks == NULL || s->more == NULL) {
        stack_destroy(s);
        return NULL;
    }
    if (s->shared != NULL)
        shared_bind(s);
    return s;
}

void
stack_destroy(struct stack *s)
{
    if (s == NULL)
        return;
    if (s->main == s) {
        lazy_free(s->tcp, s->tcp_bytes);
        lazy_free(s->socks, (size_t)s->max_socks * sizeof(s->socks[0]));
        lazy_free(s->more, (size_t)s->max_socks * sizeof(s->more[0]));
    }
    free(s->guests);
    free(s);
}

/* ---- entering ---------------------------------------------------------------------------------------------------------------- */

static void
entered(struct stack *s, struct net *net, uint64_t now_us)
{
    s->net = net;
    s->ctr = net->ctr;
    s->ip = net->ip;
    s->env.ctr = net->ctr;
    /* Where workers come and go, one that was held up since it read the clock does not take the domain's time back. */
    s->env.now_us = RTE_MAX(s->env.now_us, now_us);
    /* Replicas must not see what is their worker's alone. */
    s->env.tx_full = s->relay == NULL && port_tx_is_full(&net->queue);
    s->env.acks_ride = net->acks_ride;
    s->entered = true;
}

struct stack *
stack_enter(struct stack *s, struct net *net, uint64_t now_us)
{
    const struct host *h = s->host;

    if (h->shared != NULL)
        s = h->entered ? s : net->view;
    else if (h->locking)
        lock_take(&s->lock, net->ctr, CTR_LOCK_GROUP);
    entered(s, net, now_us);
    return s;
}

bool
stack_try_enter(struct stack *s, struct net *net, uint64_t now_us)
{
    if (s->host->locking) {
        if (!lock_try_take(&s->lock))
            return false;
        counter_inc(net->ctr, CTR_LOCK_GROUP);
    }
    entered(s, net, now_us);
    return true;
}

static bool
has_transport(struct stack *s)
{
    bool has = false;

    table_take(s);
    for (uint32_t i = 1; i < s->main->socks_used && !has; i++)
        has = s->socks[i].app != NULL && (s->socks[i].tcp != TCP_NO_ID || (s->socks[i].flags & SOCK_ABORTED));
    table_give(s);
    return has;
}

/* When the domain's timers are due, with its steps of closing. */
static uint64_t
next_due_us(struct stack *s)
{
    uint64_t next_us = tcp_next_us(s->tcp, s->env.now_us);

    if (unlikely(s->main->closing))
        return RTE_MIN(next_us, s->main->closing_check_at_us);
    /* Its first step of closing is still to come, and host_shutdown_begin's mark must not be lost. */
    return unlikely(__atomic_load_n(&s->host->closing, __ATOMIC_ACQUIRE)) ? 0 : next_us;
}

static void
show_due(struct stack *s)
{
    uint64_t *shown = &s->host->next_us[s->number];
    uint64_t before = __atomic_load_n(shown, __ATOMIC_RELAXED), next_us = next_due_us(s);

    if (next_us == before)
        return;
    /* Whoever sees to the timers may sleep, until later than they are due now. */
    if (next_us < before && host_owner(s->host, s->number) != s->net)
        s->net->ring_bells |= 1u << host_owner(s->host, s->number)->number;
    __atomic_store_n(shown, next_us, __ATOMIC_RELAXED);
}

/*
 * Seen and shown in one, or what another worker has armed meanwhile would be forgotten. Who changed the wheel has shown it, or will: the others need not take its lock.
 */
static void
show_due_shared(struct stack *s)
{
    if (!s->timers_changed && likely(!__atomic_load_n(&s->host->closing, __ATOMIC_ACQUIRE)))
        return;
    s->locks.inner_take(s, TCP_INNER_TIMERS);
    show_due(s);
    s->locks.inner_give(s, TCP_INNER_TIMERS);
    s->timers_changed = false;
}

void
stack_settle(struct stack *s)
{
    if (s->dirty_first != SOCK_NONE)
        sock_flush(s);
    if (unlikely(s->closing))
        __atomic_store_n(&s->drained, !has_transport(s), __ATOMIC_RELEASE);
    if (s->shared != NULL)
        show_due_shared(s);
    else
        show_due(s);
    s->entered = false;
}

/* Nobody has been inside since it was settled, and the pass's end is nothing to it. */
static bool
is_quiet(const struct stack *s)
{
    return !s->entered && s->dirty_first == SOCK_NONE && s->relay == NULL && !tcp_holds_acks(s->tcp) &&
           !__atomic_load_n(&s->host->closing, __ATOMIC_ACQUIRE);
}

unsigned
stack_end_pass(struct stack *s, uint64_t now_us)
{
    unsigned held = 0;

    if (is_quiet(s))
        return 0;
    s->env.now_us = RTE_MAX(s->env.now_us, now_us);
    if (s->relay == NULL)
        held = tcp_pass_ended(s->tcp, &s->env);
    stack_settle(s);
    return held;
}

void
stack_leave(struct stack *s)
{
    if (!s->host->locking)
        return; /* its owner publishes at the end of the pass */
    stack_settle(s);
    if (s->shared == NULL)
        lock_give(&s->lock);
}

/* ---- packets ----------------------------------------------------------------------------------------------------------------- */

/* Header to struct; false (and freed, and counted) if it is malformed. */
static bool
parse(struct stack *s, struct ip_packet *p, struct tcp_in *in)
{
    uint16_t contiguous;
    int rc = -EBADMSG;

    p->m = rx_own(s, p->m);
    if (p->m == NULL)
        return false;
    contiguous = rte_pktmbuf_data_len(p->m);
    if (likely(contiguous > p->l4_off)) {
        uint16_t len = RTE_MIN((uint16_t)(contiguous - p->l4_off), p->l4_len);

        rc = tcp_wire_parse(rte_pktmbuf_mtod_offset(p->m, const uint8_t *, p->l4_off), len, in);
    }
    if (unlikely(rc < 0)) {
        counter_inc(s->ctr, rc == -EINVAL ? CTR_TCP_DROP_OPTIONS : CTR_TCP_DROP_SHORT);
        rte_pktmbuf_free(p->m);
        return false;
    }
    in->tuple.local = p->dst;
    in->tuple.remote = p->src;
    in->tos = p->tos;
    in->data.off += p->l4_off;
    in->data.buf = pktpool_handle(s->pool, p->m);
    in->mss_out = in->flags & TCP_FLAG_SYN ? (uint16_t)(ip_mtu(s->ip, &p->src) - TCP_IP_HEADERS) : 0;
    in->more = false;
    return true;
}

/* Payload and nothing else that would call for an answer of its own. */
static bool
is_plain(const struct tcp_in *in)
{
    return in->data.len > 0 && (in->flags & ~(TCP_FLAG_PSH | TCP_FLAGS_ECN)) == TCP_FLAG_ACK;
}

/*
 * A packet in several buffers (reassembled, or large and local) becomes as many segments, since the engine knows payload by one buffer: what
 * is true of the whole is true of each, but for the sequence number, and for FIN and PSH, which belong to the last.
 */
static void
input_chain(struct stack *s, struct rte_mbuf *m, struct tcp_in *in, uint32_t rest, const struct ip_packet *p)
{
    uint16_t last_flags = in->flags & (TCP_FLAG_FIN | TCP_FLAG_PSH);

    in->flags &= (uint16_t)~last_flags;
    while (m != NULL) {
        struct rte_mbuf *next = m->next;

        m->next = NULL;
        m->nb_segs = 1;
        m->pkt_len = m->data_len;
        rest -= in->data.len;
        if (rest == 0)
            in->flags |= last_flags;
        in->data.buf = pktpool_handle(s->pool, m);
        in->more = rest > 0 && is_plain(in); /* it came as one, and is acknowledged as one */
        engine_input(s, in, p);
        in->seq += in->data.len;
        in->data.off = 0;
        m = next;
        if (rest == 0)
            break;
        in->data.len = m != NULL ? RTE_MIN((uint32_t)m->data_len, rest) : 0;
    }
    rte_pktmbuf_free(m); /* padding behind the packet's end */
}

/* Of one connection. */
static bool
continues(const struct tcp_in *in, const struct tcp_in *next)
{
    return is_plain(in) && is_plain(next) && next->opts.md5_off == in->opts.md5_off &&
           next->seq == in->seq + in->data.len;
}

/*
 * What sockets hold is counted all the time; who else has buffers (reassembly, impairment, rings between workers) only the pool
 * knows, and it is asked when buffers are short.
 */
static void
judge_memory(struct stack *s)
{
    uint32_t budget = pktpool_budget(s->pool), in_use = host_rx_bufs(s->host);

    s->env.mem_pressure = in_use > budget / 4 * 3;
    s->env.mem_exhausted = in_use > budget / 2 && rte_mempool_avail_count(s->pool->rx) < budget / 8;
    /* What a relay has to deliver comes when others have it, not with this burst. */
    s->rx_roomy = s->relay == NULL && in_use + 2 * PORT_BURST <= budget / 2;
}

/* The shared words that a segment for the socket changes, or that the end of the pass looks at. */
static void
prefetch_words(const struct sock *sk)
{
    const struct app *app = sk->app;

    if (app == NULL)
        return;
    rte_prefetch0(&app->front[sk->slot]);
    prefetch_lines(&app->back[sk->slot], sizeof(app->back[0]));
    rte_prefetch0(&app->slot_subs[sk->slot]);
    rte_prefetch0(&app->slot_ref[sk->slot]);
}

/* A burst's segments are mostly of different connections, each a few dozen cache lines: load them all before the first is looked at. */
static void
prefetch_burst(const struct stack *s, const struct tcp_in *in, uint16_t n)
{
    tcp_user users[2 * PORT_BURST];

    for (uint16_t i = 0; i < n; i++)
        tcp_prefetch_conn(s->tcp, &in[i]);
    for (uint16_t i = 0; i < n; i++) {
        users[i] = tcp_prefetch_rest(s->tcp, &in[i]);
        rte_prefetch0(&s->socks[users[i]]);
    }
    for (uint16_t i = 0; i < n; i++)
        prefetch_words(&s->socks[users[i]]);
}

/* The signature of a packet, and a sum over all of it but the key, before it becomes segments of a buffer each. */
static void
signature(const struct ip_packet *p, const struct tcp_in *in, struct tcp_md5_seen *seen)
{
    const uint8_t *hdr = rte_pktmbuf_mtod_offset(p->m, const uint8_t *, p->l4_off);
    uint32_t off = in->data.off;
    uint32_t rest = p->l4_len - (off - p->l4_off);

    tcp_md5_begin(&seen->sum, &p->src, &p->dst, hdr, rest);
    memcpy(seen->digest, hdr + in->opts.md5_off, sizeof(seen->digest));
    for (const struct rte_mbuf *m = p->m; m != NULL && rest > 0; m = m->next, off = 0) {
        uint32_t len = RTE_MIN(m->data_len - off, rest);

        tcp_md5_add(&seen->sum, rte_pktmbuf_mtod_offset(m, const uint8_t *, off), len);
        rest -= len;
    }
}

static inline __attribute__((always_inline)) void
input(struct stack *s, const struct ip_packet *p, struct tcp_in *in)
{
    if (likely(p->m->next == NULL))
        engine_input(s, in, p);
    else
        input_chain(s, p->m, in, p->l4_len - (in->data.off - p->l4_off), p);
}

/* Rare, and mostly an error: apart, so that what it needs costs the others nothing. */
static __rte_noinline void
input_signed(struct stack *s, const struct ip_packet *p, struct tcp_in *in)
{
    struct tcp_md5_seen seen;

    in->more = false; /* the next may be refused, and would answer for none */
    if (tcp_has_md5_keys(s->tcp)) {
        signature(p, in, &seen);
        s->env.md5 = &seen;
    }
    input(s, p, in);
    s->env.md5 = NULL;
}

void
stack_segments(struct stack *s, struct ip_packet *pkts, uint16_t n)
{
    struct tcp_in in[2 * PORT_BURST];
    uint16_t count = 0;

    judge_memory(s);
    for (uint16_t i = 0; i < n; i++) {
        struct tcp_in *next = &in[count];

        if (!parse(s, &pkts[i], next))
            continue;
        if (tcp_prefetch(s->tcp, next, count > 0 ? next - 1 : NULL))
            next[-1].more = continues(next - 1, next);
        if (unlikely(count != i))
            pkts[count] = pkts[i];
        count++;
    }
    /* Sockets of a shared domain may be changed by others at any time. */
    if (count > 1 && s->shared == NULL && tcp_prefetch_pays(s->tcp))
        prefetch_burst(s, in, count);
    for (uint16_t i = 0; i < count; i++) {
        if (unlikely(in[i].opts.md5_off != 0))
            input_signed(s, &pkts[i], &in[i]);
        else
            input(s, &pkts[i], &in[i]);
    }
}

void
stack_fail_unresolved(struct stack *s, const struct ip_addr *unresolved, unsigned n)
{
    table_take(s);
    for (uint32_t i = 1; i < s->main->socks_used && s->main->nb_connecting > 0; i++) {
        struct sock *sk = &s->socks[i];

        if (sk->app == NULL || (sock_flags(sk) & (SOCK_CLOSING | SOCK_SHADOW)) || !(sock_state(sk) & SHM_ST_CONNECTING))
            continue;
        const struct shm_addr peer = sock_address(sk, SHM_PEER);
        for (unsigned u = 0; u < n; u++)
            if (memcmp(peer.addr, unresolved[u].w, sizeof(unresolved[u].w)) == 0)
                sock_abort(s, sk, EHOSTUNREACH);
    }
    table_give(s);
}

/* ---- the end ---------------------------------------------------------------------------------------------------------------------- */

typedef void (*sock_fn)(struct stack *s, struct sock *sk);

static void
for_each_sock(struct stack *s, sock_fn fn)
{
    table_take(s);
    for (uint32_t i = 1; i < s->main->socks_used; i++)
        if (s->socks[i].app != NULL)
            fn(s, &s->socks[i]);
    table_give(s);
}

/* To the application the connection has failed; to the peer it ends in order. */
static void
begin_one(struct stack *s, struct sock *sk)
{
    if (sock_flags(sk) & SOCK_CLOSING)
        return;
    if (sock_tcp(sk) == TCP_NO_ID || (sock_flags(sk) & SOCK_LISTENER) || !(sock_state(sk) & SHM_ST_CONNECTED)) {
        sock_abort(s, sk, ENETDOWN);
        return;
    }
    sock_lock(s, sk);
    sock_set_flags(sk, SOCK_SHUT_RD | SOCK_SHUT_WR, 0);
    sock_back(sk)->error = ENETDOWN;
    sock_status(s, sk, SHM_ST_ERROR, 0);
    sock_unlock(s, sk);
    sock_mark(s, sk, DIRTY_READ | DIRTY_WRITE);
    engine_shutdown(s, sock_tcp(sk));
}

static void
abort_one(struct stack *s, struct sock *sk)
{
    tcp_id id = sock_tcp(sk);

    if (id == TCP_NO_ID)
        return;
    if (sock_flags(sk) & SOCK_CLOSING) { /* nobody is left to be told of an error */
        engine_abort(s, sk, id);
        sock_set_tcp(sk, TCP_NO_ID);
        sock_mark(s, sk, DIRTY_CMD);
        return;
    }
    sock_abort(s, sk, ENETDOWN);
}

/* The peer has everything, our FIN too: nothing is left to do for this connection. */
static void
drained_one(struct stack *s, struct sock *sk)
{
    struct tcp_conn_info info = { .state = TCP_ST_CLOSED };

    tcp_hold(s->tcp, &s->env, sock_tcp(sk));
    tcp_info(s->tcp, sock_tcp(sk), &info);
    tcp_release(s->tcp, &s->env, sock_tcp(sk));
    if (info.state == TCP_ST_FIN_WAIT_2)
        abort_one(s, sk);
}

static void
shutdown_step(struct stack *s, uint64_t now_us)
{
    if (!s->closing) {
        s->closing = true;
        for_each_sock(s, begin_one);
    } else if (now_us >= s->closing_check_at_us) {
        for_each_sock(s, now_us >= s->host->closing_deadline_us ? abort_one : drained_one);
    } else {
        return;
    }
    s->closing_check_at_us = now_us + SHUTDOWN_CHECK_US;
}

unsigned
stack_timers(struct stack *s, uint64_t now_us)
{
    /* A shared domain is closed by its owner; due timers may be run by several workers at once. */
    if (unlikely(__atomic_load_n(&s->host->closing, __ATOMIC_ACQUIRE)) && s->main == s)
        shutdown_step(s, now_us);
    if (s->shared == NULL && tcp_next_us(s->tcp, now_us) > now_us)
        return 0;
    return engine_tick(s, TIMER_BUDGET);
}
