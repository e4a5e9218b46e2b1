/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "tcp/guard.h"

/** Linux's tcp_orphan_retries: nobody waits for an orphan's data. */
#define ORPHAN_RETRIES 8

void
timer_arm(struct tcp_domain *d, const struct tcp_env *env, uint32_t node, uint64_t at_us)
{
    guard_inner(env->locks, TCP_INNER_TIMERS);
    wheel_arm(&d->wheel, domain_timers(d), node, at_us);
    unguard_inner(env->locks, TCP_INNER_TIMERS);
}

void
timer_cancel(struct tcp_domain *d, const struct tcp_env *env, uint32_t node)
{
    guard_inner(env->locks, TCP_INNER_TIMERS);
    wheel_cancel(&d->wheel, domain_timers(d), node);
    unguard_inner(env->locks, TCP_INNER_TIMERS);
}

/** The user's patience (TCP_USER_TIMEOUT, RFC 9293 section 3.8.3) is over. */
static bool
user_timed_out(const struct tcp_env *env, const struct tcp_conn *c)
{
    return c->opts.user_timeout_ms != 0 &&
           us_since_tick(env->now_us, c->stall_tick) >= (uint64_t)c->opts.user_timeout_ms * 1000;
}

static void
give_up(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    conn_end(d, env, c, c->soft_err != 0 ? c->soft_err : ETIMEDOUT);
}

static unsigned
retry_limit(const struct tcp_domain *d, const struct tcp_conn *c)
{
    switch (c->state) {
    case TCP_ST_SYN_SENT:
        return c->opts.syn_retries != 0 ? c->opts.syn_retries : d->params.syn_retries;
    case TCP_ST_SYN_RECEIVED:
        return c->opts.syn_retries != 0 ? c->opts.syn_retries : d->params.synack_retries;
    default:
        if ((c->flags & CONN_F_ORPHAN) != 0 && d->params.data_retries > ORPHAN_RETRIES)
            return ORPHAN_RETRIES;
        return d->params.data_retries;
    }
}

/** The retransmission timer (RFC 6298 section 5.4 to 5.7). */
static void
on_rto(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->retries >= retry_limit(d, c) || user_timed_out(env, c)) {
        give_up(d, env, c);
        return;
    }
    c->flags &= ~CONN_F_TIMING;
    conn_note_rto(d, env, c);
    if (c->state == TCP_ST_SYN_SENT || c->state == TCP_ST_SYN_RECEIVED || (c->flags & CONN_F_FO_CHILD) != 0) {
        c->retries++;
        c->backoff++;
        conn_tally(d, c)->retrans_segs++;
        counter_inc(env->ctr, CTR_TCP_RETRANS_SEGS);
        conn_send_syn(d, env, c);
        return;
    }
    path_on_rto(d, env, c);
    recovery_on_rto(d, env, c);
    c->retries++;
    c->backoff++;
    conn_arm_rtx(d, env, c);
    conn_output(d, env, c);
}

/** Nothing has come back for two round trips: ask for an answer before the timeout would (RFC 8985 section 7.3). */
static void
on_probe(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->snd_una == c->snd_nxt)
        return;
    conn_send_tail_probe(d, env, c);
    conn_arm_rtx(d, env, c);
}

/** What was thought to be late by reordering is lost (RFC 8985 section 6.3). */
static void
on_reorder(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    recovery_on_reorder_timer(d, env, c);
    conn_output(d, env, c);
}

/** The peer's window is shut, or too small to be worth a segment (RFC 9293 section 3.8.6.1). */
static void
on_persist(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    bool hopeless =
        (c->flags & CONN_F_ORPHAN) != 0 && us_since_tick(env->now_us, c->stall_tick) > 2ull * d->params.rto_max_us;

    if (c->retries >= retry_limit(d, c) || user_timed_out(env, c) || hopeless) {
        give_up(d, env, c);
        return;
    }
    if (c->snd_wnd > 0) {
        /* Silly window avoidance has waited long enough: send what fits. */
        c->flags |= CONN_F_PUSH;
        conn_output(d, env, c);
        return;
    }
    /* The probe repeats an old sequence number, which must be answered; a byte beyond the window would leave it open
     * whether it was received. */
    c->retries++;
    if (c->backoff < 16)
        c->backoff++;
    counter_inc(env->ctr, CTR_TCP_ZERO_WINDOW_PROBES);
    conn_send_probe(d, env, c);
    conn_arm_rtx(d, env, c);
}

/** Keep-alive (RFC 9293 section 3.8.4); for an orphan in FIN-WAIT-2 its end. */
static void
on_keep(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->flags & CONN_F_ORPHAN) {
        if (c->state == TCP_ST_FIN_WAIT_2)
            conn_end(d, env, c, 0);
        return;
    }
    if ((c->flags & CONN_F_KEEPALIVE) == 0 || c->state == TCP_ST_SYN_SENT || c->state == TCP_ST_SYN_RECEIVED)
        return;
    uint64_t idle_us = us_since_tick(env->now_us, c->last_rcv_tick);
    uint64_t limit_us = c->opts.keep_idle_s * 1000000ull;
    if (c->snd_una != c->snd_nxt || (c->keep_probes == 0 && idle_us < limit_us)) {
        /* Data under way probes by itself; a peer that spoke lately needs no probe. */
        uint64_t rest_us = c->snd_una != c->snd_nxt || idle_us >= limit_us ? limit_us : limit_us - idle_us;
        conn_timer_set(d, env, c, CONN_T_KEEP, env->now_us + rest_us);
        return;
    }
    bool impatient = c->opts.user_timeout_ms != 0 && idle_us >= (uint64_t)c->opts.user_timeout_ms * 1000;
    if (c->keep_probes >= c->opts.keep_cnt || (impatient && c->keep_probes > 0)) {
        conn_send_rst(d, env, c);
        give_up(d, env, c);
        return;
    }
    c->keep_probes++;
    counter_inc(env->ctr, CTR_TCP_KEEPALIVE_PROBES);
    conn_send_probe(d, env, c);
    conn_timer_set(d, env, c, CONN_T_KEEP, env->now_us + c->opts.keep_intvl_s * 1000000ull);
}

/** More of a burst is due, or a cork has held data for long enough. */
static void
on_send(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->flags & (CONN_F_CORK | CONN_F_MORE))
        c->flags = (c->flags & ~CONN_F_MORE) | CONN_F_PUSH;
    conn_output(d, env, c);
}

static void
run_rtx(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    uint32_t kind = c->flags & (CONN_F_PERSIST | CONN_F_PTO | CONN_F_REO);

    c->flags &= ~(CONN_F_PTO | CONN_F_REO);
    if (kind & CONN_F_PERSIST)
        on_persist(d, env, c);
    else if (kind & CONN_F_PTO)
        on_probe(d, env, c);
    else if (kind & CONN_F_REO)
        on_reorder(d, env, c);
    else
        on_rto(d, env, c);
}

static void
run_timer(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, enum conn_timer t)
{
    switch (t) {
    case CONN_T_RTX:
        run_rtx(d, env, c);
        break;
    case CONN_T_DELACK:
        conn_send_ack(d, env, c, NULL);
        break;
    case CONN_T_KEEP:
        on_keep(d, env, c);
        break;
    case CONN_T_PACE:
        conn_output(d, env, c);
        break;
    default:
        on_send(d, env, c);
        break;
    }
}

void
conn_on_timer(struct tcp_domain *d, const struct tcp_env *env, uint32_t i)
{
    struct tcp_conn *c = conn_at(d, i);
    uint32_t now = tick_of(env->now_us);

    if (__builtin_expect(c->state == 0, 0))
        c = park_wake_for_timer(d, i);
    uint8_t gen = c->gen;

    flow_of(c)->node_tick = 0; /* the node has fired */
    for (unsigned t = 0; t < CONN_T_COUNT; t++) {
        if (c->timer_at[t] == 0 || (int32_t)(c->timer_at[t] - now) > 0)
            continue;
        c->timer_at[t] = 0;
        run_timer(d, env, c, (enum conn_timer)t);
        /* Its end frees the slot, or leaves it to an accept. */
        if (c->gen != gen || c->state == TCP_ST_CLOSED)
            return;
    }
    /* The node stood for the earliest deadline; arm it for the next. */
    for (unsigned t = 0; t < CONN_T_COUNT; t++)
        if (c->timer_at[t] != 0)
            conn_timer_set(d, env, c, (enum conn_timer)t,
                           env->now_us +
                               ticks_to_us((uint32_t)((int32_t)(c->timer_at[t] - now) > 0 ? c->timer_at[t] - now : 0)) -
                               (env->now_us & (WHEEL_TICK_US - 1)));
}
