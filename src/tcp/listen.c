/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "tcp/domain.h"
#include "tcp/fastopen.h"
#include "tcp/guard.h"
#include "tcp/isn.h"
#include "tcp/syncookie.h"

/** As in Linux: net.core.somaxconn. */
#define BACKLOG_MAX 4096

/** Beyond, the timeout has met its bound in any case. */
#define RTO_SHIFT_MAX 16u

/** Entries that are looked at for one that gives way. */
#define EVICT_LOOKS 32

struct tcp_listener *
listener_by_id(const struct tcp_domain *d, tcp_id id)
{
    uint32_t i = id & 0xffffff;

    if (i == 0 || i > d->pools[POOL_CONN].high || slot_id(d, i) != id)
        return NULL;
    struct tcp_listener *l = &slot_at(d, i)->listener;
    return l->state == TCP_ST_LISTEN ? l : NULL;
}

uint8_t
listener_defer_timeouts(const struct tcp_domain *d, int32_t seconds)
{
    uint64_t wait_us = d->params.rto_initial_us, sum_us = wait_us;
    uint8_t n = 1;

    if (seconds <= 0)
        return 0;
    for (; sum_us < (uint64_t)seconds * 1000000u && n < UINT8_MAX; n++) {
        wait_us = wait_us * 2 > d->params.rto_max_us ? d->params.rto_max_us : wait_us * 2;
        sum_us += wait_us;
    }
    return n;
}

static uint32_t
bound_backlog(uint32_t backlog)
{
    return backlog > BACKLOG_MAX ? BACKLOG_MAX : backlog;
}

/** Take over the user's reservation, or make an entry. *made tells which. */
static int
listen_bind(struct tcp_domain *d, const struct ip_addr *local, uint16_t port, const struct tcp_sockopts *opts,
            tcp_user user, uint32_t *bind, bool *made)
{
    bool reuseport = opts_flag(opts, TCP_OPT_REUSEPORT);

    *bind = port_find_owned(d, local, port, user);
    *made = *bind == 0;
    if (!*made)
        return port_can_listen(d, *bind) ? 0 : -EADDRINUSE;
    return port_acquire(d, local, port, opts_flag(opts, TCP_OPT_REUSEADDR), reuseport, user, bind);
}

static int
listener_new(struct tcp_domain *d, const struct tcp_env *env, const struct ip_addr *local, uint16_t port,
             uint32_t backlog, const struct tcp_sockopts *opts, tcp_user user, tcp_id *id)
{
    struct tcp_conn_opts o;
    uint32_t flags, bind;
    bool made;

    int rc = opts_apply(d, &o, &flags, opts);
    if (rc == 0 && !md5_has_room(d, opts))
        rc = -ENOMEM;
    if (rc == 0)
        rc = listen_bind(d, local, port, opts, user, &bind, &made);
    if (rc != 0)
        return rc;
    uint32_t i = tcp_pool_get(&d->pools[POOL_CONN], slot_at(d, 0), sizeof(union tcp_slot));
    if (i == 0) {
        if (made)
            port_unref(d, bind);
        return -ENOMEM;
    }
    struct tcp_listener *l = &slot_at(d, i)->listener;
    guard_slot(env, i);
    l->link.tuple.local = *local;
    l->link.tuple.local_port = port;
    l->user = user;
    l->flags = flags;
    l->state = TCP_ST_LISTEN;
    l->backlog = bound_backlog(backlog);
    l->opts = o;
    if (opts != NULL && (opts->set & (1u << TCP_OPT_DEFER_ACCEPT)) != 0)
        l->defer_timeouts = listener_defer_timeouts(d, opts->value[TCP_OPT_DEFER_ACCEPT]);
    if (opts != NULL && (opts->set & (1u << TCP_OPT_FASTOPEN)) != 0)
        l->fastopen_qlen = (uint32_t)opts->value[TCP_OPT_FASTOPEN];
    else if (d->params.fastopen & TCP_FASTOPEN_ALL_LISTENERS)
        l->fastopen_qlen = l->backlog;
    if (opts != NULL && opts->nb_fastopen_keys != 0)
        fastopen_keys_set(&l->fastopen_keys, opts->nb_fastopen_keys, opts->fastopen_keys);
    md5_add_all(d, &l->md5, opts);
    l->bind = bind;
    bind_at(d, bind)->listener = i;
    bind_at(d, bind)->user = 0;
    d->listeners++;
    *id = slot_id(d, i);
    unguard_slot(env, i);
    return 0;
}

int
tcp_listen(struct tcp_domain *d, const struct tcp_env *env, const struct ip_addr *local, uint16_t port,
           uint32_t backlog, const struct tcp_sockopts *opts, tcp_user user, tcp_id *id)
{
    guard_table(d, env);
    int rc = listener_new(d, env, local, port, backlog, opts, user, id);
    unguard_table(env);
    return rc;
}

void
tcp_set_backlog(struct tcp_domain *d, tcp_id listener, uint32_t backlog)
{
    struct tcp_listener *l = listener_by_id(d, listener);

    if (l != NULL)
        l->backlog = bound_backlog(backlog);
}

uint32_t
tcp_accept_count(const struct tcp_domain *d, tcp_id listener)
{
    const struct tcp_listener *l = listener_by_id(d, listener);

    return l != NULL ? l->accept_count : 0;
}

/** Linux lets backlog + 1 connections wait. */
static bool
accept_queue_full(const struct tcp_listener *l)
{
    return l->accept_count > l->backlog;
}

/** So many handshakes may be under way, too: beyond, SYN cookies. */
static bool
half_queue_full(const struct tcp_listener *l)
{
    return l->half_open > l->backlog;
}

/* ---- half-open entries ---------------------------------------- */

void
half_free(struct tcp_domain *d, const struct tcp_env *env, uint32_t i)
{
    struct tcp_half *h = half_at(d, i);
    struct tcp_listener *l = listener_by_id(d, h->listener);

    if (l != NULL)
        l->half_open--;
    timer_cancel(d, env, half_timer(d, i));
    table_remove(d, TABLE_REF(TABLE_HALF, i));
    tcp_pool_put(&d->pools[POOL_HALF], half_at(d, 0), sizeof(*h), i);
}

/** What of a SYN goes into the timestamp; without one nothing was agreed on. */
static uint8_t
cookie_opts(const struct tcp_half *h)
{
    uint8_t wscale = h->flags & HALF_F_WSCALE ? h->snd_wscale : SYNCOOKIE_NO_WSCALE;

    if ((h->flags & HALF_F_TS) == 0)
        return SYNCOOKIE_NO_WSCALE;
    return (uint8_t)(wscale | (h->flags & HALF_F_SACK ? SYNCOOKIE_SACK : 0) |
                     (h->flags & (HALF_F_ECN | HALF_F_ACCECN) ? SYNCOOKIE_ECN : 0));
}

/** A half-open entry's segment: SYN-ACK, or the ACK that answers what does not fit. */
static void
half_send(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_half *h, const struct tcp_listener *l,
          bool syn)
{
    uint32_t space = l->opts.rcv_buf_bytes;

    if (l->opts.window_clamp_bytes != 0 && space > l->opts.window_clamp_bytes)
        space = l->opts.window_clamp_bytes;
    space = syn ? syn_window(space, h->mss_port, (h->flags & HALF_F_TS) != 0) : space >> h->rcv_wscale;
    struct tcp_out out = {
        .tuple = &h->link.tuple,
        .seq = syn ? h->iss : h->iss + 1,
        .ack = h->irs + 1,
        .window = (uint16_t)(space > UINT16_MAX ? UINT16_MAX : space),
        .flags = syn ? TCP_FLAG_SYN | TCP_FLAG_ACK : TCP_FLAG_ACK,
        .tos = h->tos,
    };
    if (syn) {
        out.opts.has_mss = true;
        out.opts.mss = path_adv_mss(d, &h->link.tuple.remote, h->mss_port, l->opts.max_seg);
        out.opts.has_wscale = (h->flags & HALF_F_WSCALE) != 0;
        out.opts.wscale = h->rcv_wscale;
        out.opts.sack_permitted = (h->flags & HALF_F_SACK) != 0;
        /* A path that loses options that it does not know must not lose every SYN-ACK. */
        out.opts.has_fo = (h->flags & HALF_F_FO) != 0 && h->retries == 0;
        if (out.opts.has_fo) {
            fastopen_cookie(d, l, &h->link.tuple, &out.opts.fo);
            out.opts.fo.exp = (h->flags & HALF_F_FO_EXP) != 0;
        }
        ecn_put_half(d, h, &out);
    }
    if (h->flags & HALF_F_TS) {
        out.opts.has_ts = true;
        out.opts.ts_val = tcp_ts_clock(env->now_us, conn_ts_offset(d, env, &h->link.tuple));
        out.opts.ts_ecr = h->ts_recent;
        if (h->flags & HALF_F_COOKIE)
            out.opts.ts_val = syncookie_stamp(out.opts.ts_val, cookie_opts(h));
    }
    if (l->md5 != 0)
        md5_put(d, l->md5, &out);
    emit_segment(env, &out);
}

static void
half_arm(struct tcp_domain *d, const struct tcp_env *env, uint32_t i)
{
    uint8_t retries = half_at(d, i)->retries;
    uint64_t rto_us = (uint64_t)d->params.rto_initial_us << (retries < RTO_SHIFT_MAX ? retries : RTO_SHIFT_MAX);

    if (rto_us > d->params.rto_max_us)
        rto_us = d->params.rto_max_us;
    timer_arm(d, env, half_timer(d, i), env->now_us + rto_us);
}

static void
half_fill(const struct tcp_domain *d, struct tcp_half *h, const struct tcp_in *in, const struct tcp_listener *l)
{
    const struct tcp_options *o = &in->opts;

    h->irs = in->seq;
    h->window = in->window;
    h->mss_port = in->mss_out < TCP_MSS_FLOOR ? TCP_MSS_FLOOR : in->mss_out;
    h->mss_peer = o->has_mss ? o->mss : 536; /* RFC 9293 section 3.7.1 */
    if (h->mss_peer < TCP_MSS_FLOOR)
        h->mss_peer = TCP_MSS_FLOOR;
    if (o->has_ts && d->params.timestamps) {
        h->flags |= HALF_F_TS;
        h->ts_recent = o->ts_val;
    }
    if (o->sack_permitted && d->params.sack)
        h->flags |= HALF_F_SACK;
    if (o->has_wscale && d->params.window_scaling) {
        h->flags |= HALF_F_WSCALE;
        h->snd_wscale = o->wscale;
        h->rcv_wscale = window_scale_for(d, l->opts.rcv_buf_bytes, (l->flags & CONN_F_RCVBUF_FIXED) != 0);
    }
    h->tos = l->opts.tos & (uint8_t)~TCP_TOS_ECN;
    ecn_fill_half(d, h, cc_for(d, l->opts.cc_id, &in->tuple.remote), in);
}

/**
 * The oldest entry gives way (RFC 4987 section 3.4), of one listener or of any. In a flood of forged SYNs an entry then lasts as long as
 * the flood takes to fill the queue, which is longer than most round trips; refusing the newcomer would shut everyone
 * out for a minute. A full pool hands out the place that was freed last, so the hand meets the entries in order of age.
 */
static bool
half_evict(struct tcp_domain *d, const struct tcp_env *env, tcp_id of)
{
    for (unsigned n = 0; n < EVICT_LOOKS; n++) {
        d->half_hand = d->half_hand % d->pools[POOL_HALF].high + 1;
        const struct tcp_half *h = half_at(d, d->half_hand);
        if (h->link.tuple.local_port != 0 && (of == TCP_NO_ID || h->listener == of)) {
            half_free(d, env, d->half_hand);
            return true;
        }
    }
    return false;
}

/** The connection that a half-open entry describes, in SYN-RECEIVED, at the end of its listener's accept queue. It is held: unguard_slot. */
static struct tcp_conn *
conn_from_half(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_half *h)
{
    struct tcp_listener *l = &slot_at(d, h->listener & 0xffffff)->listener;
    uint32_t flags = l->flags | CONN_F_PENDING;

    flags |= h->flags & HALF_F_TS ? CONN_F_TS : 0;
    flags |= h->flags & HALF_F_SACK ? CONN_F_SACK : 0;
    flags |= h->flags & HALF_F_WSCALE ? CONN_F_WSCALE : 0;
    struct tcp_conn *c = conn_new(d, env, &h->link.tuple, &l->opts, flags);
    conn_set_state(env, c, TCP_ST_SYN_RECEIVED);
    c->iss = h->iss;
    c->irs = h->irs;
    c->snd_una = c->snd_nxt = c->snd_end = h->iss + 1;
    c->rcv_nxt = c->rcv_acked = h->irs + 1;
    c->snd_wscale = h->snd_wscale;
    c->rcv_wscale = h->rcv_wscale;
    c->mss_peer = h->mss_peer;
    path_start(d, env, c, h->mss_port);
    c->rcv_adv = c->rcv_nxt + conn_syn_window(c);
    ecn_from_half(d, c, h);
    c->ts_recent = h->ts_recent;
    c->ts_recent_tick = tick_of(env->now_us);
    c->retries = h->retries;
    c->md5 = md5_copy(d, l->md5, &c->link.tuple.remote);
    c->bind = l->bind;
    port_ref(d, c->bind);
    counter_inc(env->ctr, CTR_TCP_PASSIVE_OPENS);

    uint32_t ci = conn_index(d, c);
    *(l->accept_tail != 0 ? &conn_at(d, l->accept_tail)->accept_next : &l->accept_head) = ci;
    l->accept_tail = ci;
    l->accept_count++;
    return c;
}

/** RFC 7413 section 4.2.2: a connection at once, which may send before its SYN is acknowledged. False if the domain is full. */
static bool
open_fast(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_in *in, uint32_t listener,
          const struct tcp_half *h, bool renew, bool *taken)
{
    if (d->pools[POOL_CONN].used == d->pools[POOL_CONN].cap)
        return false;
    struct tcp_conn *c = conn_from_half(d, env, h);
    struct tcp_listener *l = &slot_at(d, listener)->listener;
    c->flags |= CONN_F_FO_CHILD;
    if (renew)
        c->flags |= CONN_F_FO_SYN | (in->opts.fo.exp ? CONN_F_FO_DATA : 0);
    c->fo_listener = slot_id(d, listener);
    l->fastopen_pending++;
    c->snd_wnd = c->snd_wnd_max = in->window; /* a SYN's is not scaled */
    c->snd_wl1 = in->seq;
    c->snd_wl2 = c->iss;
    c->syn_at_us = (uint32_t)env->now_us;
    conn_ready(d, env, c);
    if (in->data.len > 0) {
        c->flags |= CONN_F_SYN_DATA;
        conn_take_syn_data(d, env, c, in, taken);
    }
    counter_inc(env->ctr, CTR_TCP_FASTOPEN_PASSIVE);
    conn_send_syn(d, env, c);
    unguard_slot(env, conn_index(d, c));
    if (l->user != 0)
        env->sink->event(env->sink->ctx, l->user, TCP_EVENT_ACCEPT, 0);
    return true;
}

/** Answer a SYN and keep nothing of it. What has no room in the cookie is not offered. */
static void
cookie_send(struct tcp_domain *d, const struct tcp_env *env, struct tcp_half *h, const struct tcp_listener *l)
{
    h->flags = (uint8_t)((h->flags & ~(HALF_F_FO | HALF_F_FO_EXP)) | HALF_F_COOKIE);
    if ((h->flags & HALF_F_TS) == 0)
        h->flags &= (uint8_t) ~(HALF_F_SACK | HALF_F_WSCALE |
                                HALF_F_ECN); /* more accurate ECN needs no room (RFC 9768 section 5.1) */
    if ((h->flags & HALF_F_WSCALE) == 0)
        h->rcv_wscale = 0;
    h->iss = syncookie_make(d->params.seed, &h->link.tuple, h->irs, h->mss_peer, cookie_opts(h), env->now_us);
    d->cookie_end_us = env->now_us + SYNCOOKIE_LIFE_US;
    counter_inc(env->ctr, CTR_TCP_SYN_COOKIES_SENT);
    half_send(d, env, h, l, true);
}

/** The half-open entry that was never kept, from the ACK that brings its cookie back; false if it brings none. */
static bool
cookie_restore(const struct tcp_domain *d, const struct tcp_env *env, const struct tcp_in *in, uint32_t listener,
               struct tcp_half *h)
{
    const struct tcp_listener *l = &slot_at(d, listener)->listener;
    bool has_ts = in->opts.has_ts && d->params.timestamps;
    uint8_t opts = has_ts ? in->opts.ts_ecr & SYNCOOKIE_OPTS : SYNCOOKIE_NO_WSCALE;

    if (env->now_us >= d->cookie_end_us || d->params.syn_cookies == TCP_SYN_COOKIES_OFF)
        return false;
    uint16_t mss = syncookie_check(d->params.seed, &in->tuple, in->seq - 1, in->ack - 1, opts, env->now_us);
    counter_inc(env->ctr, mss != 0 ? CTR_TCP_SYN_COOKIES_TAKEN : CTR_TCP_SYN_COOKIES_BAD);
    if (mss == 0)
        return false;
    bool wscale = (opts & SYNCOOKIE_WSCALE) != SYNCOOKIE_NO_WSCALE;
    uint8_t ecn = 0;
    if (!has_ts || (opts & SYNCOOKIE_ECN) != 0)
        ecn = ecn_from_cookie(d, cc_for(d, l->opts.cc_id, &in->tuple.remote), has_ts, in);
    *h = (struct tcp_half){
        .link.tuple = in->tuple,
        .listener = slot_id(d, listener),
        .iss = in->ack - 1,
        .irs = in->seq - 1,
        .ts_recent = in->opts.ts_val,
        .mss_peer = mss,
        .mss_port = in->mss_out < TCP_MSS_FLOOR ? TCP_MSS_FLOOR : in->mss_out,
        .snd_wscale = wscale ? opts & SYNCOOKIE_WSCALE : 0,
        .rcv_wscale = wscale ? window_scale_for(d, l->opts.rcv_buf_bytes, (l->flags & CONN_F_RCVBUF_FIXED) != 0) : 0,
        .flags = (uint8_t)(HALF_F_COOKIE | (has_ts ? HALF_F_TS : 0) | (wscale ? HALF_F_WSCALE : 0) |
                           (opts & SYNCOOKIE_SACK ? HALF_F_SACK : 0) | ecn),
    };
    return true;
}

static void
half_open(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_in *in, uint32_t listener,
          const tcp_seq *iss_floor, bool *taken)
{
    struct tcp_listener *l = &slot_at(d, listener)->listener;
    struct tcp_half new = {
        .link.tuple = in->tuple,
        .listener = slot_id(d, listener),
        .iss = iss_floor != NULL ? *iss_floor : tcp_isn(d->params.seed, &in->tuple, env->now_us),
        .sent_at_us = (uint32_t)env->now_us,
    };

    if (accept_queue_full(l)) {
        counter_inc(env->ctr, CTR_TCP_DROP_ACCEPT_QUEUE);
        return;
    }
    half_fill(d, &new, in, l);
    bool is_signed = md5_find(d, l->md5, &in->tuple.remote) != NULL;
    /* Beside a signature no SYN-ACK has room for a cookie. */
    enum fastopen_verdict v = is_signed ? FASTOPEN_IGNORE : fastopen_judge(d, env, l, in);
    if ((v == FASTOPEN_ACCEPT || v == FASTOPEN_RENEW) &&
        open_fast(d, env, in, listener, &new, v == FASTOPEN_RENEW, taken))
        return;
    if (v == FASTOPEN_OFFER)
        new.flags |= (uint8_t)(HALF_F_FO | (in->opts.fo.exp ? HALF_F_FO_EXP : 0));
    bool full = half_queue_full(l) || d->pools[POOL_HALF].used == d->pools[POOL_HALF].cap;
    /* What follows a TIME-WAIT entry must have a sequence number above it, which no cookie can promise. */
    if (iss_floor == NULL && d->params.syn_cookies >= (full ? TCP_SYN_COOKIES_FULL : TCP_SYN_COOKIES_ALWAYS)) {
        cookie_send(d, env, &new, l);
        return;
    }
    /* Nor has any segment for SACK blocks beside timestamps too; as Linux SACK is kept, unless a cookie needs the timestamp. */
    if (is_signed && new.flags & HALF_F_SACK)
        new.flags &= (uint8_t)~HALF_F_TS;
    if (full) {
        counter_inc(env->ctr, CTR_TCP_DROP_SYN_QUEUE);
        bool own = half_queue_full(l);
        bool needs_room = own || d->pools[POOL_HALF].used == d->pools[POOL_HALF].cap;
        if (needs_room && !half_evict(d, env, own ? slot_id(d, listener) : TCP_NO_ID))
            return;
    }
    uint32_t i = tcp_pool_get(&d->pools[POOL_HALF], half_at(d, 0), sizeof(struct tcp_half));
    struct tcp_half *h = half_at(d, i);
    memcpy(h, &new, sizeof(*h));
    l->half_open++;
    table_add(d, TABLE_REF(TABLE_HALF, i));
    half_send(d, env, h, l, true);
    half_arm(d, env, i);
}

static bool
half_is_over(const struct tcp_domain *d, const struct tcp_half *h, const struct tcp_listener *l)
{
    uint8_t limit = l->opts.syn_retries != 0 ? l->opts.syn_retries : d->params.synack_retries;

    return h->retries >= limit && (!h->acked || h->retries >= l->defer_timeouts);
}

void
half_on_timer(struct tcp_domain *d, const struct tcp_env *env, uint32_t i)
{
    struct tcp_half *h = half_at(d, i);
    const struct tcp_listener *l = listener_by_id(d, h->listener);

    if (l == NULL || half_is_over(d, h, l)) {
        half_free(d, env, i);
        return;
    }
    /* One whose ACK was put off is asked again when the time for its data is nearly over: its answer completes it. */
    bool ask = !h->acked || h->retries + 1 >= l->defer_timeouts;
    h->retries++;
    if (ask) {
        counter_inc(env->ctr, CTR_TCP_RETRANS_SEGS);
        half_send(d, env, h, l, true);
    }
    half_arm(d, env, i);
}

/** A connection takes the place of a half-open entry that is gone, and waits to be accepted; it is held. */
static struct tcp_conn *
half_promote(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_half *h, const struct tcp_in *in)
{
    struct tcp_conn *c = conn_from_half(d, env, h);
    c->snd_wnd = c->snd_wnd_max = (uint32_t)in->window << c->snd_wscale;
    c->snd_wl1 = in->seq;
    c->snd_wl2 = in->ack;
    if (h->retries == 0 && !h->acked && (h->flags & HALF_F_COOKIE) == 0)
        tcp_rtt_sample(&c->rtt, (uint32_t)env->now_us - h->sent_at_us, d->params.rto_min_us, d->params.rto_max_us);
    flow_of(c)->delivered_segs = 1;
    conn_established(d, env, c);
    return c;
}

/** The segment lies in the window that the SYN-ACK offered and is not older than the SYN. */
static bool
half_acceptable(const struct tcp_domain *d, const struct tcp_half *h, const struct tcp_listener *l,
                const struct tcp_in *in)
{
    uint32_t offset = seq_diff(in->seq, h->irs + 1);

    if ((h->flags & HALF_F_TS) != 0 && (in->flags & TCP_FLAG_RST) == 0) {
        bool old = in->opts.has_ts ? (int32_t)(in->opts.ts_val - h->ts_recent) < 0 : d->params.ts_required;
        if (old)
            return false;
    }
    return offset < (l->opts.rcv_buf_bytes > UINT16_MAX ? UINT16_MAX : l->opts.rcv_buf_bytes);
}

/** TCP_DEFER_ACCEPT: an ACK without data is not worth waking anyone, for a while. */
static bool
half_is_deferred(const struct tcp_half *h, const struct tcp_listener *l, const struct tcp_in *in)
{
    return h->retries < l->defer_timeouts && in->data.len == 0 && (in->flags & TCP_FLAG_FIN) == 0;
}

/** The ACK completes the handshake that h describes, unless there is no room; an entry of the table (0 = none) is freed. */
static void
half_complete(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_half *h, uint32_t i,
              const struct tcp_in *in, bool *taken)
{
    struct tcp_listener *l = &slot_at(d, h->listener & 0xffffff)->listener;
    struct tcp_half copy = *h;

    /* As Linux: the ACK is overheard, and the SYN-ACK's retransmission will draw another one. */
    if (accept_queue_full(l)) {
        counter_inc(env->ctr, CTR_TCP_DROP_ACCEPT_QUEUE);
        return;
    }
    if (d->pools[POOL_CONN].used == d->pools[POOL_CONN].cap) {
        counter_inc(env->ctr, CTR_TCP_DROP_NO_MEMORY);
        return;
    }
    if (i != 0)
        half_free(d, env, i);
    struct tcp_conn *c = half_promote(d, env, &copy, in);
    conn_input(d, env, c, in);
    *taken = true;
    unguard_slot(env, conn_index(d, c));
    if (l->user != 0)
        env->sink->event(env->sink->ctx, l->user, TCP_EVENT_ACCEPT, 0);
}

/** An ACK for a listener: of a SYN cookie, or of nothing. */
static void
listen_ack(struct tcp_domain *d, const struct tcp_env *env, uint32_t listener, const struct tcp_in *in, bool *taken)
{
    struct tcp_half h;

    if ((in->flags & TCP_FLAG_SYN) == 0 && cookie_restore(d, env, in, listener, &h)) {
        half_complete(d, env, &h, 0, in, taken);
        return;
    }
    counter_inc(env->ctr, CTR_TCP_DROP_ACK);
    reply_rst(env, in);
}

/** The ACK that completes a handshake. */
static void
half_ack(struct tcp_domain *d, const struct tcp_env *env, uint32_t i, const struct tcp_in *in, bool *taken)
{
    struct tcp_half *h = half_at(d, i);
    const struct tcp_listener *l = listener_by_id(d, h->listener);
    struct tcp_half cookie;

    if (in->ack != h->iss + 1) {
        /* Its first SYN was answered by a cookie, which it acknowledges, and a copy of it found room. */
        if (cookie_restore(d, env, in, h->listener & 0xffffff, &cookie)) {
            half_complete(d, env, &cookie, i, in, taken);
            return;
        }
        counter_inc(env->ctr, CTR_TCP_DROP_ACK);
        reply_rst(env, in);
        return;
    }
    if (half_is_deferred(h, l, in))
        h->acked = true;
    else
        half_complete(d, env, h, i, in, taken);
}

/** RFC 9293 section 3.10.7.2. */
void
listen_input(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_in *in, const tcp_seq *iss_floor,
             bool *taken)
{
    uint32_t listener = port_find_listener(d, &in->tuple);

    if (listener == 0) {
        counter_inc(env->ctr, CTR_TCP_DROP_NO_LISTENER);
        reply_rst(env, in);
        return;
    }
    if (in->flags & TCP_FLAG_RST) {
        counter_inc(env->ctr, CTR_TCP_DROP_RST);
        return;
    }
    if (in->flags & TCP_FLAG_ACK) {
        listen_ack(d, env, listener, in, taken);
        return;
    }
    /* SYN with FIN is no opening that any TCP makes, and a way past filters. */
    if ((in->flags & (TCP_FLAG_SYN | TCP_FLAG_FIN)) != TCP_FLAG_SYN) {
        counter_inc(env->ctr, CTR_TCP_DROP_FLAGS);
        return;
    }
    half_open(d, env, in, listener, iss_floor, taken);
}

/** What may be a forgery, or not, is asked back (RFC 5961 section 3.2). An entry has no clock: only the common limit holds. */
static void
half_challenge(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_half *h, const struct tcp_listener *l)
{
    uint32_t last_tick = 0;

    if (challenge_allowed(d, env, &last_tick))
        half_send(d, env, h, l, false);
}

void
half_input(struct tcp_domain *d, const struct tcp_env *env, uint32_t i, const struct tcp_in *in, bool *taken)
{
    struct tcp_half *h = half_at(d, i);
    const struct tcp_listener *l = listener_by_id(d, h->listener);

    if (l == NULL) {
        half_free(d, env, i);
        reply_rst(env, in);
        return;
    }
    if ((in->flags & (TCP_FLAG_SYN | TCP_FLAG_ACK | TCP_FLAG_RST)) == TCP_FLAG_SYN && in->seq == h->irs) {
        if (ecn_half_again(h, d, in)) {
            half_send(d, env, h, l, true); /* its SYN again: our answer was lost */
        } else {
            counter_inc(env->ctr, CTR_TCP_DROP_FLAGS);
            half_free(d, env, i);
            reply_rst(env, in);
        }
        return;
    }
    if (!half_acceptable(d, h, l, in)) {
        counter_inc(env->ctr, in->flags & TCP_FLAG_RST ? CTR_TCP_DROP_RST : CTR_TCP_DROP_SEQUENCE);
        if ((in->flags & TCP_FLAG_RST) == 0)
            half_send(d, env, h, l, false);
        return;
    }
    if (in->flags & TCP_FLAG_RST) {
        /* RFC 5961 section 3.2 here too: exact, or challenged. */
        bool exact = in->seq == h->irs + 1;
        counter_inc(env->ctr, exact ? CTR_TCP_RST_RX : CTR_TCP_DROP_RST);
        if (exact)
            half_free(d, env, i);
        else
            half_challenge(d, env, h, l);
        return;
    }
    if ((in->flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) != TCP_FLAG_ACK) {
        counter_inc(env->ctr, CTR_TCP_DROP_FLAGS);
        /* RFC 9293 would go back to LISTEN, for anybody who guesses the window: challenge, as in the states beyond. */
        if ((in->flags & TCP_FLAG_SYN) != 0)
            half_challenge(d, env, h, l);
        return;
    }
    half_ack(d, env, i, in, taken);
}

/* ---- accept, close ---------------------------------------- */

/** The oldest, held: unguard_slot. NULL if none waits. */
static struct tcp_conn *
accept_pop(struct tcp_domain *d, const struct tcp_env *env, struct tcp_listener *l)
{
    if (l->accept_head == 0)
        return NULL;
    struct tcp_conn *c = conn_at(d, l->accept_head);
    guard_slot(env, l->accept_head);
    l->accept_head = c->accept_next;
    if (l->accept_head == 0)
        l->accept_tail = 0;
    l->accept_count--;
    c->accept_next = 0;
    c->flags &= ~CONN_F_PENDING;
    return c;
}

/** Its user takes over what came before. */
static void
accept_conn(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_reass *q = conn_reass(d, env, c, false);
    struct tcp_data data;

    if (q != NULL) {
        tcp_seq at = c->irs + 1;
        while (tcp_reass_pop(reass_store(d, env->locks), q, at, &data)) {
            at += data.len;
            conn_deliver(d, env, c, data);
        }
        conn_reass_drop_if_empty(d, env, c);
    }
    if (c->flags & CONN_F_FIN_RCVD)
        conn_event(env, c, TCP_EVENT_FIN, 0);
    if (c->state == TCP_ST_CLOSED)
        conn_end(d, env, c, c->err);
}

tcp_id
tcp_accept(struct tcp_domain *d, const struct tcp_env *env, tcp_id listener, tcp_user user, struct tcp_tuple *t)
{
    tcp_id id = TCP_NO_ID;

    guard_table(d, env);
    struct tcp_listener *l = listener_by_id(d, listener);
    struct tcp_conn *c = l != NULL ? accept_pop(d, env, l) : NULL;
    if (c != NULL) {
        uint32_t i = conn_index(d, c);
        id = slot_id(d, i);
        c->user = user;
        *t = c->link.tuple;
        accept_conn(d, env, c);
        unguard_slot(env, i);
    }
    unguard_table(env);
    return id;
}

void
listener_close(struct tcp_domain *d, const struct tcp_env *env, struct tcp_listener *l)
{
    uint32_t i = (uint32_t)((union tcp_slot *)(void *)l - slot_at(d, 0));
    tcp_user user = l->user;
    uint8_t gen = (uint8_t)(l->gen + 1);
    struct tcp_conn *c;

    while ((c = accept_pop(d, env, l)) != NULL) {
        uint32_t slot = conn_index(d, c);
        if (c->state != TCP_ST_CLOSED)
            conn_send_rst(d, env, c);
        conn_free(d, env, c);
        unguard_slot(env, slot);
    }
    bind_at(d, l->bind)->listener = 0;
    port_unref(d, l->bind);
    md5_clear(d, &l->md5);
    d->listeners--;
    tcp_pool_put(&d->pools[POOL_CONN], slot_at(d, 0), sizeof(union tcp_slot), i);
    slot_at(d, i)->listener.gen = gen;
    if (user != 0)
        env->sink->event(env->sink->ctx, user, TCP_EVENT_GONE, 0);
}
