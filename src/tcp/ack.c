/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/fastopen.h"
#include "tcp/isn.h"
#include "tcp/rx.h"

/**
 * @file
 * Step 4 of the receive path, the ACK field (RFC 9293 section 3.10.7.4, fifth).
 */

/** RFC 6298: what is acknowledged was sent once, between these instants. */
static inline __attribute__((always_inline)) void
sample_rtt(const struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t oldest_us,
           uint32_t newest_us)
{
    const struct tcp_params *p = &d->params;
    uint32_t now_us = (uint32_t)env->now_us;

    /* A connection that has just come from another worker's domain may have been sent from later than this pass looked at the clock. */
    if ((int32_t)(now_us - newest_us) < 0)
        return;
    tcp_rtt_sample(&c->rtt, now_us - oldest_us, p->rto_min_us, p->rto_max_us);
    tcp_rtt_min(&c->rtt, &flow_of(c)->rtt_window, now_us - newest_us, now_us);
}

/** By the times that the send records hold; by timestamps where those are ambiguous (RFC 7323 section 4). */
static void
rx_measure_rtt(struct rx *r, const struct tcp_sent_news *n)
{
    struct tcp_conn *c = r->c;
    const struct tcp_params *p = &r->d->params;

    if (n->has_rtt && !n->retrans) {
        sample_rtt(r->d, r->env, c, n->oldest_us, n->newest_us);
    } else if (n->has_rtt && (int32_t)((uint32_t)r->env->now_us - n->newest_us) < 0) {
        return;
    } else if (n->delivered_bytes > 0 && (c->flags & CONN_F_TS) != 0 && r->in->opts.ts_ecr != 0) {
        uint32_t ms = tcp_ts_clock(r->env->now_us, c->ts_offset) - r->in->opts.ts_ecr;
        if (ms > 0 && ms <= p->rto_max_us / 1000)
            tcp_rtt_sample(&c->rtt, ms * 1000, p->rto_min_us, p->rto_max_us);
    }
}

/** snd_una moves on, over so many bytes of payload and perhaps our FIN; the send records have been told. */
static inline __attribute__((always_inline)) void
advance_una(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq ack, uint32_t bytes)
{
    tcp_seq una = c->snd_una;

    c->snd_una = ack;
    if ((c->path & (CONN_PATH_PROBE | CONN_PATH_DOUBT)) != 0 ||
        ((c->path & CONN_PATH_PROVEN) == 0 && seq_diff(ack, una) >= c->mss))
        path_on_ack(d, env, c, una);
    if (seq_lt(c->snd_sml, ack))
        c->snd_sml = ack;
    c->bytes_acked += bytes;
    /* MSG_MORE holds data back in its own call alone; from the next ACK on Nagle's rule is what counts, as in Linux. */
    if ((c->flags & (CONN_F_MORE | CONN_F_CORK)) == CONN_F_MORE &&
        ((c->flags & CONN_F_NODELAY) != 0 || !seq_gt(c->snd_sml, ack)))
        c->flags |= CONN_F_PUSH;
    c->retries = c->backoff = 0;
    c->soft_err = 0;
    c->stall_tick = tick_of(env->now_us);
    if (bytes > 0 && c->user != 0)
        env->sink->acked(env->sink->ctx, c->user, bytes);
}

static void
rx_ack_advance(struct rx *r, struct ack_news *n)
{
    struct tcp_conn *c = r->c;
    tcp_seq ack = r->in->ack;
    bool fin_acked = conn_fin_sent(c) && seq_gt(ack, c->snd_end);

    n->acked = seq_diff(ack, c->snd_una);
    tcp_sent_ack(sent_store(r->d, r->env->locks), &c->sent, ack, &n->sent);
    advance_una(r->d, r->env, c, ack, n->acked - fin_acked);
}

/** RFC 9293 section 3.10.7.4: only a segment newer than the last that changed the window may change it. */
static inline __attribute__((always_inline)) void
take_window(struct tcp_conn *c, const struct tcp_in *in)
{
    uint32_t wnd = (uint32_t)in->window << c->snd_wscale;

    if (!seq_lt(c->snd_wl1, in->seq) && !(c->snd_wl1 == in->seq && seq_leq(c->snd_wl2, in->ack)))
        return;
    c->snd_wnd = wnd;
    c->snd_wl1 = in->seq;
    c->snd_wl2 = in->ack;
    if (wnd > c->snd_wnd_max)
        c->snd_wnd_max = wnd;
    if ((c->flags & CONN_F_PERSIST) != 0) {
        /* The peer lives. A window again means that the probing is over. */
        c->retries = 0;
        if (wnd >= c->mss || wnd >= c->snd_wnd_max / 2) {
            c->flags &= ~CONN_F_PERSIST;
            c->backoff = 0;
            conn_timer_off(c, CONN_T_RTX);
        }
    } else if (wnd == 0) {
        c->retries = 0; /* it shrank below what is under way: it is slow, not dead */
    }
}

bool
ack_covers_syn(const struct tcp_conn *c, tcp_seq ack)
{
    return seq_gt(ack, c->iss) && seq_leq(ack, c->snd_nxt);
}

void
active_syn_acked(struct rx *r)
{
    struct tcp_conn *c = r->c;
    tcp_seq ack = r->in->ack;
    uint32_t data_acked = seq_diff(ack, c->iss + 1);

    if (c->flags & CONN_F_FO_DATA) {
        bool all = ack == c->snd_nxt;
        counter_inc(r->env->ctr, all ? CTR_TCP_FASTOPEN_ACTIVE : CTR_TCP_FASTOPEN_ACTIVE_FAIL);
        c->flags |= all ? CONN_F_SYN_DATA : 0;
        if (!all)
            c->fastopen_fail = c->retries > 0 ? CONN_FO_SYN_AGAIN : CONN_FO_NOT_ACKED;
    }
    c->snd_una = c->snd_nxt = ack;
    c->syn_acked = true;
    c->bytes_acked += data_acked;
    flow_of(c)->delivered_segs = 1;
    if (data_acked > 0 && c->user != 0)
        r->env->sink->acked(r->env->sink->ctx, c->user, data_acked);
}

/** A listener's child by Fast Open: the ACK of its SYN, which may cover data too, proves the peer's address. */
static bool
rx_child_syn_acked(struct rx *r)
{
    struct tcp_conn *c = r->c;
    const struct tcp_params *p = &r->d->params;

    if (!ack_covers_syn(c, r->in->ack)) {
        counter_inc(r->env->ctr, CTR_TCP_DROP_ACK);
        reply_rst(r->env, r->in);
        return false;
    }
    if (c->retries == 0)
        tcp_rtt_sample(&c->rtt, (uint32_t)r->env->now_us - c->syn_at_us, p->rto_min_us, p->rto_max_us);
    fastopen_child_done(r->d, c);
    flow_of(c)->delivered_segs++;
    c->retries = c->backoff = 0;
    if (c->snd_una == c->snd_nxt)
        conn_timer_off(c, CONN_T_RTX);
    else
        conn_arm_rtx(r->d, r->env, c);
    if (c->state == TCP_ST_SYN_RECEIVED)
        conn_set_state(r->env, c, TCP_ST_ESTABLISHED);
    return true;
}

/** Simultaneous open: the peer acknowledges our SYN. */
static bool
rx_ack_of_syn(struct rx *r)
{
    struct tcp_conn *c = r->c;

    if (!ack_covers_syn(c, r->in->ack)) {
        counter_inc(r->env->ctr, CTR_TCP_DROP_ACK);
        reply_rst(r->env, r->in);
        return false;
    }
    active_syn_acked(r);
    c->snd_wl1 = r->in->seq;
    c->snd_wl2 = r->in->ack;
    c->snd_wnd = c->snd_wnd_max = (uint32_t)r->in->window << c->snd_wscale;
    conn_established(r->d, r->env, c);
    if (r->dsack.start != r->dsack.end)
        c->flags |= CONN_F_ACK_NOW; /* its SYN came again: it may not have seen our answer */
    else if ((c->ecn & CONN_ECN_ACC) != 0 && (c->flags & CONN_F_ACK_NOW) == 0)
        ecn_on_third_ack(r->d, c, r->in);
    conn_event(r->env, c, TCP_EVENT_CONNECTED, 0);
    return true;
}

/** Whether the ACK field lies where an honest peer's can (RFC 5961 section 5.2). */
static bool
rx_ack_acceptable(struct rx *r)
{
    struct tcp_conn *c = r->c;
    tcp_seq oldest = c->snd_una - c->snd_wnd_max;

    if (!seq_gt(r->in->ack, c->snd_nxt) && !seq_lt(r->in->ack, oldest))
        return true;
    counter_inc(r->env->ctr, CTR_TCP_DROP_ACK);
    rx_answer(r, true);
    return false;
}

bool
rx_ack(struct rx *r)
{
    struct tcp_conn *c = r->c;
    const struct tcp_in *in = r->in;

    if ((in->flags & TCP_FLAG_ACK) == 0) {
        counter_inc(r->env->ctr, CTR_TCP_DROP_FLAGS);
        return false;
    }
    if (c->state == TCP_ST_SYN_RECEIVED && (c->flags & CONN_F_FO_CHILD) == 0) {
        take_timestamp(r->env, c, in);
        return rx_ack_of_syn(r);
    }
    if (!rx_ack_acceptable(r))
        return false;
    take_timestamp(r->env, c,
                   in); /* not before: a forged segment with a timestamp of the future would end the connection */
    if ((c->flags & CONN_F_FO_CHILD) != 0 && !rx_child_syn_acked(r))
        return false;

    uint32_t wnd_before = c->snd_wnd;
    struct ack_news n = {
        .sent = { .recover = c->recover, .prior_fack = c->sent.fack, .had_sacked = c->sent.sacked_bytes > 0 },
        .has_ecr = (c->flags & CONN_F_TS) != 0,
        .ts_ecr = in->opts.ts_ecr,
        .flight_before = seq_diff(c->snd_nxt, c->snd_una),
    };
    /* An ACK that was overtaken may still bring the news of what lies above (RFC 2018 section 4). */
    if ((c->flags & CONN_F_SACK) != 0 && in->opts.nb_sack > 0)
        recovery_take_sack(r->d, r->env, c, in, &n);
    take_window(c, in);
    if (seq_gt(in->ack, c->snd_una)) {
        rx_ack_advance(r, &n);
    } else {
        bool bare =
            in->data.len == 0 && (in->flags & TCP_FLAG_FIN) == 0 && in->ack == c->snd_una && n.flight_before > 0;
        n.is_dup = bare && (c->flags & CONN_F_SACK ? n.sacked_bytes > 0 : c->snd_wnd == wnd_before);
        n.is_pure_dup = bare && n.sacked_bytes == 0 && c->snd_wnd == wnd_before;
    }
    if (c->ecn != 0)
        ecn_on_ack(r->d, c, in, &n);
    rx_measure_rtt(r, &n.sent);
    recovery_on_ack(r->d, r->env, c, &n);
    return true;
}

bool
ack_plain(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in)
{
    uint32_t acked = seq_diff(in->ack, c->snd_una);
    const struct tcp_sent_run *first, *last;

    if (!recovery_is_plain(c) || in->opts.nb_sack != 0 || acked > seq_diff(c->snd_nxt, c->snd_una) ||
        (acked > 0 && !tcp_sent_once(sent_store(d, env->locks), &c->sent, in->ack, &first, &last)))
        return false;
    take_timestamp(env, c, in);
    take_window(c, in);
    if (acked > 0) {
        advance_una(d, env, c, in->ack, acked);
        sample_rtt(d, env, c, first->sent_us, last->sent_us);
        recovery_on_plain_ack(d, env, c, acked, last);
    }
    return true;
}

bool
rx_fin_acked(struct rx *r)
{
    struct tcp_conn *c = r->c;

    if (!conn_fin_sent(c) || !seq_gt(c->snd_una, c->snd_end))
        return true;
    switch (c->state) {
    case TCP_ST_FIN_WAIT_1:
        conn_set_state(r->env, c, TCP_ST_FIN_WAIT_2);
        if ((c->flags & CONN_F_ORPHAN) == 0)
            return true;
        if (c->opts.linger2_s == TCP_LINGER2_NONE) {
            reply_rst(r->env, r->in);
            rx_end(r, 0);
            return false;
        }
        conn_timer_set(r->d, r->env, c, CONN_T_KEEP,
                       r->env->now_us +
                           (c->opts.linger2_s != 0 ? c->opts.linger2_s * 1000000ull : r->d->params.fin_wait2_us));
        return true;
    case TCP_ST_CLOSING:
        conn_time_wait(r->d, r->env, c);
        r->c = NULL;
        return false;
    case TCP_ST_LAST_ACK:
        rx_end(r, 0);
        return false;
    default:
        return true;
    }
}
