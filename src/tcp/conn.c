/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "tcp/domain.h"
#include "tcp/fastopen.h"
#include "tcp/guard.h"
#include "tcp/isn.h"

struct tcp_conn *
conn_by_id(const struct tcp_domain *d, tcp_id id)
{
    uint32_t i = id & 0xffffff;

    if (i == 0 || i > d->pools[POOL_CONN].high || slot_id(d, i) != id)
        return NULL;
    struct tcp_conn *c = conn_at(d, i);
    return c->state != 0 && c->state != TCP_ST_LISTEN ? c : NULL;
}

struct tcp_conn *
conn_awake(struct tcp_domain *d, tcp_id id)
{
    struct tcp_conn *c = conn_by_id(d, id);

    return __builtin_expect(c != NULL, 1) ? c : park_wake_by_id(d, id);
}

uint32_t
conn_ts_offset(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_tuple *t)
{
    if (GUARDED(env->locks))
        return tcp_ts_offset(d->params.seed, t);
    if (!d->last_pair.known || !ip_addr_equal(&d->last_pair.remote, &t->remote) ||
        !ip_addr_equal(&d->last_pair.local, &t->local)) {
        d->last_pair.local = t->local;
        d->last_pair.remote = t->remote;
        d->last_pair.ts_offset = tcp_ts_offset(d->params.seed, t);
        d->last_pair.known = true;
    }
    return d->last_pair.ts_offset;
}

struct tcp_conn *
conn_new(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_tuple *t, const struct tcp_conn_opts *o,
         uint32_t flags)
{
    uint32_t i = tcp_pool_get(&d->pools[POOL_CONN], slot_at(d, 0), sizeof(union tcp_slot));

    if (i == 0)
        return NULL;
    struct tcp_conn *c = conn_at(d, i);
    guard_slot(env, i);
    c->link.tuple = *t;
    c->flags = flags;
    c->opts = *o;
    c->rcv_buf = o->rcv_buf_bytes;
    c->dup_thresh = 3;
    c->rcv_mss = 536; /* RFC 9293 section 3.7.1: what a sender that knows nothing sends */
    c->ts_offset = conn_ts_offset(d, env, t);
    c->last_rcv_tick = c->last_snd_tick = c->last_data_tick = c->stall_tick = tick_of(d->now_us);
    c->opts.cc_id = c->cc_id = cc_for(d, o->cc_id, &t->remote);
    tcp_rtt_init(&c->rtt, d->params.rto_initial_us);
    table_add(d, TABLE_REF(TABLE_CONN, i));
    return c;
}

/** Which states may follow a state (RFC 9293 figure 5); 0 is the free slot. */
#define BIT(s) (1u << (s))
static const uint16_t edges[TCP_ST_CLOSING + 1] = {
    [0] = BIT(TCP_ST_SYN_SENT) | BIT(TCP_ST_SYN_RECEIVED),
    [TCP_ST_SYN_SENT] = BIT(TCP_ST_ESTABLISHED) | BIT(TCP_ST_SYN_RECEIVED) | BIT(TCP_ST_CLOSED),
    /* With Fast Open a peer's FIN may come before the ACK of our SYN (RFC 7413 section 4.2.2). */
    [TCP_ST_SYN_RECEIVED] =
        BIT(TCP_ST_ESTABLISHED) | BIT(TCP_ST_FIN_WAIT_1) | BIT(TCP_ST_CLOSE_WAIT) | BIT(TCP_ST_CLOSED),
    [TCP_ST_ESTABLISHED] = BIT(TCP_ST_FIN_WAIT_1) | BIT(TCP_ST_CLOSE_WAIT) | BIT(TCP_ST_CLOSED),
    [TCP_ST_FIN_WAIT_1] = BIT(TCP_ST_FIN_WAIT_2) | BIT(TCP_ST_CLOSING) | BIT(TCP_ST_TIME_WAIT) | BIT(TCP_ST_CLOSED),
    [TCP_ST_FIN_WAIT_2] = BIT(TCP_ST_TIME_WAIT) | BIT(TCP_ST_CLOSED),
    [TCP_ST_CLOSE_WAIT] = BIT(TCP_ST_LAST_ACK) | BIT(TCP_ST_CLOSED),
    [TCP_ST_CLOSING] = BIT(TCP_ST_TIME_WAIT) | BIT(TCP_ST_CLOSED),
    [TCP_ST_LAST_ACK] = BIT(TCP_ST_CLOSED),
};

void
conn_set_state(const struct tcp_env *env, struct tcp_conn *c, enum tcp_state next)
{
    if ((edges[c->state] & BIT(next)) == 0)
        counter_inc(env->ctr, CTR_TCP_BUG_EDGE);
    if (next == TCP_ST_ESTABLISHED)
        counter_inc(env->ctr, CTR_TCP_ESTABLISHED);
    c->state = (uint8_t)next;
}

uint32_t
conn_options_bytes(const struct tcp_conn *c)
{
    /* There is no room for accurate ECN's option beside a signature. */
    uint32_t other = c->md5 != 0 ? TCP_MD5_OPTION_BYTES : c->ecn & CONN_ECN_OPTION ? TCP_ACCECN_OPTION_BYTES : 0;

    return (c->flags & CONN_F_TS ? TCP_TS_OPTION_BYTES : 0) + other;
}

void
conn_set_mss(struct tcp_conn *c)
{
    uint32_t mss = c->mss_peer < c->mss_path ? c->mss_peer : c->mss_path;

    if (c->opts.max_seg != 0 && c->opts.max_seg < mss)
        mss = c->opts.max_seg;
    /* RFC 6691: the MSS option counts no TCP options; those that every segment carries come off. */
    c->mss = (uint16_t)(mss - conn_options_bytes(c));
}

void
conn_ready(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    uint32_t wnd = conn_window_space(c);

    path_ready(d, env, c);
    conn_set_mss(c);
    conn_cc_start(d, env, c);
    /* RFC 5681 section 3.1: who lost a SYN starts with one segment. */
    if (c->retries > 0)
        c->cc.cwnd_bytes = c->mss;
    conn_note_rto_over(d, env, c);
    c->retries = c->backoff = 0;
    /* Data that went with the SYN belongs to the first run that follows. */
    tcp_sent_init(&c->sent, c->snd_una);
    tcp_rack_init(&c->rack);
    flow_of(c)->usage_seq = c->snd_una;
    c->recover = c->snd_una - 1; /* RFC 6582 section 3.2 compares with >, and the first segment may be lost */
    c->snd_sml = c->snd_una;
    c->last_data_tick = tick_of(env->now_us);
    /* Quick acknowledgements while the peer is in slow start, for half the window at most. */
    uint32_t quick = wnd / (2u * c->rcv_mss);
    c->quick_acks = (uint8_t)(quick > 16 ? 16 : quick);
    if (c->flags & CONN_F_KEEPALIVE)
        conn_timer_set(d, env, c, CONN_T_KEEP, env->now_us + c->opts.keep_idle_s * 1000000ull);
    if (!GUARDED(env->locks))
        park_watch(d);
}

/** The handshake is complete: rcv_nxt, snd_una and the peer's options are known. */
void
conn_established(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    conn_ready(d, env, c);
    conn_timer_off(c, CONN_T_RTX);
    conn_set_state(env, c, TCP_ST_ESTABLISHED);
    if (c->flags & CONN_F_FIN_QUEUED)
        conn_set_state(env, c, TCP_ST_FIN_WAIT_1); /* shutdown came before the handshake's end */
}

void
conn_event(const struct tcp_env *env, const struct tcp_conn *c, uint32_t events, int err)
{
    if (c->flags & CONN_F_ORPHAN)
        events &= TCP_EVENT_GONE;
    if (events == 0 || c->user == 0)
        return;
    env->sink->event(env->sink->ctx, c->user, events, events & TCP_EVENT_ERROR ? err : 0);
}

void
conn_node_arm(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_conn *c, uint32_t tick, uint64_t at_us)
{
    struct wheel_node *nodes = domain_timers(d);
    uint32_t node = conn_index(d, c);

    guard_inner(env->locks, TCP_INNER_TIMERS);
    if (!wheel_is_armed(&nodes[node]) || (int32_t)(nodes[node].due_tick - tick) > 0)
        wheel_arm(&d->wheel, nodes, node, at_us);
    flow_of(c)->node_tick = nodes[node].due_tick;
    unguard_inner(env->locks, TCP_INNER_TIMERS);
}

struct tcp_tally *
conn_tally(struct tcp_domain *d, struct tcp_conn *c)
{
    struct tcp_tally *t = tally_of(d, c);

    if (!c->tallied)
        *t = (struct tcp_tally){ 0 };
    c->tallied = true;
    return t;
}

void
conn_note_rto(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_tally *t = conn_tally(d, c);

    t->rtos++;
    if (c->retries > 0)
        return;
    t->rto_recoveries++;
    if (t->rto_us_since == 0)
        t->rto_us_since = (uint32_t)env->now_us | 1;
}

void
conn_note_rto_over(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_tally *t = tally_of(d, c);

    if (!c->tallied || t->rto_us_since == 0)
        return;
    t->rto_time_ms += ((uint32_t)env->now_us - t->rto_us_since) / 1000;
    t->rto_us_since = 0;
}

struct tcp_reass *
conn_reass(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, bool create)
{
    if (c->reass == 0 && create)
        c->reass = shared_pool_get(env->locks, TCP_INNER_REASS, &d->pools[POOL_REASS], reass_at(d, 0),
                                   sizeof(struct tcp_reass), 0);
    return c->reass != 0 ? reass_at(d, c->reass) : NULL;
}

void
conn_reass_drop_if_empty(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->reass == 0)
        return;
    struct tcp_reass *q = reass_at(d, c->reass);
    if (q->head != 0 || q->has_fin)
        return;
    shared_pool_put(env->locks, TCP_INNER_REASS, &d->pools[POOL_REASS], reass_at(d, 0), sizeof(*q), c->reass);
    c->reass = 0;
}

static void
stop_waiting(struct tcp_domain *d, const struct tcp_env *env, uint32_t i)
{
    if (!tcp_waiters_any(&d->waiters))
        return;
    guard_inner(env->locks, TCP_INNER_TIMERS);
    tcp_waiters_remove(&d->waiters, domain_waiters(d), i);
    unguard_inner(env->locks, TCP_INNER_TIMERS);
}

/** Give up everything but the slot, the tuple and what waits for an accept. */
static void
conn_quiesce(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    uint32_t i = conn_index(d, c);

    timer_cancel(d, env, i);
    stop_waiting(d, env, i);
    memset(c->timer_at, 0, sizeof(c->timer_at));
    c->ack_held = false;
    tcp_sent_clear(sent_store(d, env->locks), &c->sent);
    conn_cc_release(d, env->locks, c);
    memset(flow_of(c), 0, sizeof(struct tcp_flow));
    record_clear(d, env, c);
    fastopen_child_done(d, c);
    md5_clear(d, &c->md5);
    table_remove(d, TABLE_REF(TABLE_CONN, i));
    port_unref(d, c->bind);
    c->bind = 0;
}

void
conn_moved_out(struct tcp_domain *d, struct tcp_conn *c)
{
    uint32_t i = conn_index(d, c);
    uint8_t gen = (uint8_t)(c->gen + 1);

    wheel_cancel(&d->wheel, domain_timers(d), i);
    tcp_waiters_remove(&d->waiters, domain_waiters(d), i);
    conn_cc_release(d, NULL, c);
    burst_forget(d, c);
    tcp_pool_put(&d->pools[POOL_CONN], slot_at(d, 0), sizeof(union tcp_slot), i);
    c->gen = gen;
}

void
conn_arm_timers(struct tcp_domain *d, struct tcp_conn *c)
{
    uint32_t now = tick_of(d->now_us);
    int32_t first = INT32_MAX;

    for (unsigned t = 0; t < CONN_T_COUNT; t++)
        if (c->timer_at[t] != 0 && (int32_t)(c->timer_at[t] - now) < first)
            first = (int32_t)(c->timer_at[t] - now);
    if (first != INT32_MAX)
        wheel_arm(&d->wheel, domain_timers(d), conn_index(d, c),
                  d->now_us / WHEEL_TICK_US * WHEEL_TICK_US + ticks_to_us((uint32_t)(first > 0 ? first : 0)));
}

static void
slot_release(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_reass *q = conn_reass(d, env, c, false);
    uint8_t gen = (uint8_t)(c->gen + 1);

    if (q != NULL) {
        tcp_reass_clear(reass_store(d, env->locks), q, env->sink);
        q->has_fin = false;
        conn_reass_drop_if_empty(d, env, c);
    }
    burst_forget(d, c);
    tcp_pool_put(&d->pools[POOL_CONN], slot_at(d, 0), sizeof(union tcp_slot), conn_index(d, c));
    c->gen = gen;
}

void
conn_free(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    /* One that has ended already while it waited for an accept is out of the table and its timers are off. */
    if (c->state != TCP_ST_CLOSED)
        conn_quiesce(d, env, c);
    slot_release(d, env, c);
}

void
conn_end(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, int err)
{
    tcp_user user = c->user;
    uint32_t events = TCP_EVENT_GONE;

    if (err == ETIMEDOUT)
        counter_inc(env->ctr, CTR_TCP_TIMED_OUT);
    if (c->flags & CONN_F_PENDING) {
        /* Whoever accepts it gets what had arrived, then the error, as in Linux. */
        conn_quiesce(d, env, c);
        conn_set_state(env, c, TCP_ST_CLOSED);
        c->err = (uint8_t)err;
        return;
    }
    if (err != 0 && (c->flags & CONN_F_ORPHAN) == 0)
        events |= TCP_EVENT_ERROR;
    conn_free(d, env, c);
    if (user != 0)
        env->sink->event(env->sink->ctx, user, events, events & TCP_EVENT_ERROR ? err : 0);
}
