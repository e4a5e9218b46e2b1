/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/domain.h"
#include "tcp/isn.h"
#include "tcp/siphash.h"

/** Segments that one event may send; more wait for the next tick, so that one connection cannot hold up the others. */
#define BURST_SEGS 64

/** How long MSG_MORE and TCP_CORK may hold data back, as in Linux (tcp(7)). */
#define CORK_US 200000

/** RFC 5961 section 7 asks for a limit; an equal one for all is a side channel, so it varies from second to second. */
#define CHALLENGE_MIN_PER_S 500
#define CHALLENGE_SPREAD 500
#define CHALLENGE_CONN_US 500000

/** Autotuning may raise a receive buffer to this, and the scale cannot change after the SYN. */
#define WSCALE_ROOM_BYTES (6u << 20)

void
emit_segment(const struct tcp_env *env, const struct tcp_out *out)
{
    counter_inc(env->ctr, CTR_TCP_TX_SEGS);
    if (out->flags & TCP_FLAG_RST)
        counter_inc(env->ctr, CTR_TCP_RST_TX);
    env->sink->emit(env->sink->ctx, out, env->now_us);
}

void
reply_rst(const struct tcp_env *env, const struct tcp_in *in)
{
    struct tcp_out out = { .tuple = &in->tuple, .flags = TCP_FLAG_RST };

    if (in->flags & TCP_FLAG_RST)
        return;
    if (in->flags & TCP_FLAG_ACK) {
        out.seq = in->ack;
    } else {
        out.flags |= TCP_FLAG_ACK;
        out.ack = in->seq + in->data.len + ((in->flags & TCP_FLAG_SYN) != 0) + ((in->flags & TCP_FLAG_FIN) != 0);
    }
    emit_segment(env, &out);
}

bool
challenge_allowed(struct tcp_domain *d, const struct tcp_env *env, uint32_t *last_tick)
{
    uint32_t second = (uint32_t)(env->now_us / 1000000);

    if (*last_tick != 0 && us_since_tick(env->now_us, *last_tick) < CHALLENGE_CONN_US)
        return false;
    if (second != d->challenge_second) {
        d->challenge_second = second;
        d->challenge_count = 0;
    }
    uint32_t limit =
        CHALLENGE_MIN_PER_S + (uint32_t)(siphash24(d->params.seed, &second, sizeof(second)) % CHALLENGE_SPREAD);
    if (d->challenge_count >= limit)
        return false;
    d->challenge_count++;
    *last_tick = tick_of(env->now_us) | 1;
    counter_inc(env->ctr, CTR_TCP_CHALLENGE_ACKS);
    return true;
}

uint8_t
window_scale_for(uint32_t rcv_buf_bytes)
{
    uint32_t room = rcv_buf_bytes > WSCALE_ROOM_BYTES ? rcv_buf_bytes : WSCALE_ROOM_BYTES;
    uint8_t scale = 0;

    while (scale < 14 && room >> scale > 65535)
        scale++;
    return scale;
}

uint32_t
conn_window_space(const struct tcp_conn *c)
{
    uint32_t space = c->rcv_buf > c->rcv_used ? c->rcv_buf - c->rcv_used : 0;

    if (c->opts.window_clamp_bytes != 0 && space > c->opts.window_clamp_bytes)
        space = c->opts.window_clamp_bytes;
    return space;
}

/**
 * The window field. Its right edge never moves back (RFC 9293 section 3.8.6), and forward only by a worthwhile step
 * (section 3.8.6.2.2: silly window avoidance).
 */
static uint16_t
select_window(struct tcp_conn *c)
{
    uint32_t offered = seq_diff(c->rcv_adv, c->rcv_nxt);
    uint32_t space = conn_window_space(c);
    uint32_t step = c->rcv_buf / 2 < c->mss ? c->rcv_buf / 2 : c->mss;
    uint32_t field = (offered + (1u << c->rcv_wscale) - 1) >> c->rcv_wscale;

    if (space >= offered + step && space >> c->rcv_wscale > field)
        field = space >> c->rcv_wscale;
    if (field > UINT16_MAX)
        field = UINT16_MAX;
    tcp_seq edge = c->rcv_nxt + (field << c->rcv_wscale);
    if (seq_gt(edge, c->rcv_adv))
        c->rcv_adv = edge;
    return (uint16_t)field;
}

static void
put_sack_blocks(struct tcp_domain *d, const struct tcp_conn *c, const struct tcp_sack_block *dsack,
                struct tcp_options *o)
{
    const struct tcp_reass *q = c->reass != 0 ? reass_at(d, c->reass) : NULL;
    unsigned max = o->has_ts ? TCP_MAX_SACK - 1 : TCP_MAX_SACK;
    unsigned n = 0;

    if (dsack != NULL && dsack->start != dsack->end)
        o->sack[n++] = *dsack; /* RFC 2883 section 4: the duplicate comes first */
    for (unsigned i = 0; q != NULL && i < q->nb_sack && n < max; i++)
        o->sack[n++] = q->sack[i];
    o->nb_sack = (uint8_t)n;
}

/** What every segment of a connection has in common; the connection's books are kept too. */
static void
emit_conn(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, struct tcp_out *out)
{
    (void)d;
    out->tuple = &c->link.tuple;
    out->user = c->user;
    out->ack = c->rcv_nxt;
    out->tos = c->opts.tos;
    out->window = select_window(c);
    if (c->flags & CONN_F_TS) {
        out->opts.has_ts = true;
        out->opts.ts_val = tcp_ts_clock(env->now_us, c->ts_offset);
        out->opts.ts_ecr = c->ts_recent;
    }
    c->flags &= ~CONN_F_ACK_NOW;
    c->rcv_acked = c->rcv_nxt;
    conn_timer_off(c, CONN_T_DELACK);
    uint32_t segs = out->gso_size > 0 ? (out->payload_len + out->gso_size - 1) / out->gso_size : 1;
    c->segs_out += segs;
    c->last_snd_tick = tick_of(env->now_us);
    counter_add(env->ctr, CTR_TCP_TX_SEGS, segs - 1);
    emit_segment(env, out);
}

void
conn_send_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_sack_block *dsack)
{
    struct tcp_out out = { .seq = c->snd_nxt, .flags = TCP_FLAG_ACK };

    if (c->flags & CONN_F_SACK)
        put_sack_blocks(d, c, dsack, &out.opts);
    emit_conn(d, env, c, &out);
}

void
conn_send_probe(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_out out = { .seq = c->snd_una - 1, .flags = TCP_FLAG_ACK };

    emit_conn(d, env, c, &out);
}

void
conn_send_rst(const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_out out = {
        .tuple = &c->link.tuple,
        .seq = c->snd_nxt,
        .ack = c->rcv_nxt,
        .flags = TCP_FLAG_RST | TCP_FLAG_ACK,
        .tos = c->opts.tos,
    };

    if (c->flags & CONN_F_TS) {
        out.opts.has_ts = true;
        out.opts.ts_val = tcp_ts_clock(env->now_us, c->ts_offset);
        out.opts.ts_ecr = c->ts_recent;
    }
    emit_segment(env, &out);
}

/** SYN in SYN-SENT, SYN-ACK in SYN-RECEIVED (simultaneous open): the window of either is never scaled. */
void
conn_send_syn(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    bool passive = c->state == TCP_ST_SYN_RECEIVED;
    uint32_t space = conn_window_space(c);
    uint16_t mss = c->opts.max_seg != 0 && c->opts.max_seg < c->mss_path ? c->opts.max_seg : c->mss_path;
    struct tcp_out out = {
        .tuple = &c->link.tuple,
        .seq = c->iss,
        .ack = passive ? c->rcv_nxt : 0,
        .window = (uint16_t)(space > UINT16_MAX ? UINT16_MAX : space),
        .flags = passive ? TCP_FLAG_SYN | TCP_FLAG_ACK : TCP_FLAG_SYN,
        .tos = c->opts.tos,
        .opts = { .has_mss = true, .mss = mss },
    };

    /* A SYN offers what the domain allows; an answer confirms what the peer offered. */
    out.opts.has_wscale = (c->flags & CONN_F_WSCALE) != 0;
    out.opts.wscale = c->rcv_wscale;
    out.opts.sack_permitted = (c->flags & CONN_F_SACK) != 0;
    if (c->flags & CONN_F_TS) {
        out.opts.has_ts = true;
        out.opts.ts_val = tcp_ts_clock(env->now_us, c->ts_offset);
        out.opts.ts_ecr = passive ? c->ts_recent : 0;
    }
    if (passive) {
        c->rcv_adv = c->rcv_nxt + out.window;
        c->rcv_acked = c->rcv_nxt;
    }
    c->segs_out++;
    c->last_snd_tick = tick_of(env->now_us);
    emit_segment(env, &out);
    conn_arm_rtx(d, env, c);
}

void
conn_arm_rtx(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    uint32_t rto_us = tcp_rtt_backed_off(&c->rtt, c->backoff, d->params.rto_max_us);

    conn_timer_set(d, c, CONN_T_RTX, env->now_us + rto_us);
}

/** Retransmit [start, end), FIN included, at most one segment of it; returns what follows. */
static tcp_seq
send_retransmission(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq start, tcp_seq end)
{
    tcp_seq data_end = seq_gt(end, c->snd_end) ? c->snd_end : end;
    uint32_t len = seq_gt(data_end, start) ? seq_diff(data_end, start) : 0;

    if (len > c->mss)
        len = c->mss;
    bool fin = seq_gt(end, c->snd_end) && start + len == c->snd_end;
    struct tcp_out out = {
        .seq = start,
        .payload_pos = start - (c->iss + 1),
        .payload_len = len,
        .flags = (uint8_t)(TCP_FLAG_ACK | (fin ? TCP_FLAG_FIN : 0) | (start + len == c->snd_end ? TCP_FLAG_PSH : 0)),
    };
    c->flags &= ~(CONN_F_RXT_NOW | CONN_F_TIMING); /* Karn: what is timed may be acknowledged by the copy */
    c->rxt_mark = c->snd_nxt;
    c->retrans_segs++;
    c->bytes_retrans += len;
    counter_inc(env->ctr, CTR_TCP_RETRANS_SEGS);
    emit_conn(d, env, c, &out);
    return start + len + fin;
}

/** One retransmission, if one is due and the pipe has room. */
static bool
output_lost(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t pipe)
{
    tcp_seq start, end;

    if (!tcp_sack_hole(sack_store(d), &c->board, c->high_rxt, c->lost_below, &start, &end)) {
        c->flags &= ~CONN_F_RXT_NOW;
        return false;
    }
    if (pipe + c->mss > c->cc.cwnd_bytes && (c->flags & CONN_F_RXT_NOW) == 0 && pipe > 0)
        return false;
    c->high_rxt = send_retransmission(d, env, c, start, end);
    if (c->timer_at[CONN_T_RTX] == 0)
        conn_arm_rtx(d, env, c);
    return true;
}

/** Whether the last, partial segment of what is queued may go now. */
static bool
may_send_partial(const struct tcp_conn *c)
{
    if (c->flags & (CONN_F_PUSH | CONN_F_FIN_QUEUED))
        return true;
    if (c->flags & (CONN_F_CORK | CONN_F_MORE))
        return false;
    /* Nagle (RFC 9293 section 3.7.4) in Minshall's form: only an earlier partial segment holds this one back. */
    return (c->flags & CONN_F_NODELAY) != 0 || !seq_gt(c->snd_sml, c->snd_una);
}

/** How much new data may go as one emission; 0 = none now. */
static uint32_t
new_data_len(struct tcp_conn *c, uint32_t pipe, uint32_t max_bytes)
{
    uint32_t avail = seq_gt(c->snd_end, c->snd_nxt) ? seq_diff(c->snd_end, c->snd_nxt) : 0;
    tcp_seq edge = c->snd_una + c->snd_wnd;
    uint32_t usable = seq_gt(edge, c->snd_nxt) ? seq_diff(edge, c->snd_nxt) : 0;
    uint32_t len = avail < usable ? avail : usable;

    if (len == 0)
        return 0;
    if (len > max_bytes)
        len = max_bytes;
    uint32_t room = c->cc.cwnd_bytes > pipe ? c->cc.cwnd_bytes - pipe : 0;
    if (room < len && room < c->mss) {
        c->flags |= CONN_F_CWND_LIMITED;
        if (pipe > 0)
            return 0;
        room = c->mss;
    }
    if (room < len) {
        c->flags |= CONN_F_CWND_LIMITED;
        len = room;
    }
    if (len >= c->mss)
        return len - len % c->mss;
    if (len == avail)
        return may_send_partial(c) ? len : 0;
    /* The window cuts a segment short: RFC 9293 section 3.8.6.2.1, the sender's silly window avoidance. */
    return len >= c->snd_wnd_max / 2 || (c->flags & CONN_F_PUSH) ? len : 0;
}

static bool
output_new(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t pipe, uint32_t max_bytes)
{
    bool fin_due = (c->flags & CONN_F_FIN_QUEUED) != 0 && !conn_fin_sent(c);
    uint32_t len = new_data_len(c, pipe, max_bytes);
    bool last = c->snd_nxt + len == c->snd_end;

    if (len == 0 && !(fin_due && last))
        return false;
    bool fin = fin_due && last;
    struct tcp_out out = {
        .seq = c->snd_nxt,
        .payload_pos = c->snd_nxt - (c->iss + 1),
        .payload_len = len,
        .gso_size = len > c->mss ? c->mss : 0,
        .flags = (uint8_t)(TCP_FLAG_ACK | (fin ? TCP_FLAG_FIN : 0) | (last && len > 0 ? TCP_FLAG_PSH : 0)),
    };
    if (c->snd_una == c->snd_nxt)
        c->stall_tick = tick_of(env->now_us);
    c->snd_nxt += len + fin;
    if (len > 0 && len < c->mss)
        c->snd_sml = c->snd_nxt;
    /* While a hole is being repaired a cumulative ACK measures the repair, not the path. */
    if ((c->flags & CONN_F_TIMING) == 0 && c->ca_state < CONN_CA_RECOVERY) {
        c->flags |= CONN_F_TIMING;
        c->rtt_seq = c->snd_nxt;
        c->rtt_at_us = (uint32_t)env->now_us;
    }
    c->quick_acks = 0; /* answers carry the acknowledgements from here on */
    counter_add(env->ctr, CTR_TCP_TX_BYTES, len);
    emit_conn(d, env, c, &out);
    if (c->timer_at[CONN_T_RTX] == 0 || (c->flags & CONN_F_PERSIST)) {
        if (c->flags & CONN_F_PERSIST)
            c->retries = c->backoff = 0;
        c->flags &= ~CONN_F_PERSIST;
        conn_arm_rtx(d, env, c);
    }
    return true;
}

/** Data is held back and nothing is under way whose acknowledgement would free it: a timer must. */
static void
output_arm_held(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (!seq_gt(c->snd_end, c->snd_nxt))
        return;
    uint32_t avail = seq_diff(c->snd_end, c->snd_nxt);
    bool corked = (c->flags & (CONN_F_CORK | CONN_F_MORE)) != 0 && avail < c->mss && avail <= c->snd_wnd;
    if (corked) {
        if (c->timer_at[CONN_T_SEND] == 0)
            conn_timer_set(d, c, CONN_T_SEND, env->now_us + CORK_US);
    } else if (c->snd_una == c->snd_nxt && c->timer_at[CONN_T_RTX] == 0) {
        c->flags |= CONN_F_PERSIST;
        c->stall_tick = tick_of(env->now_us);
        conn_arm_rtx(d, env, c);
    }
}

static bool
can_send_data(const struct tcp_conn *c)
{
    switch (c->state) {
    case TCP_ST_ESTABLISHED:
    case TCP_ST_CLOSE_WAIT:
    case TCP_ST_FIN_WAIT_1:
    case TCP_ST_CLOSING:
    case TCP_ST_LAST_ACK:
        return true;
    default:
        return false;
    }
}

/** RFC 5681 section 4.1: after an RTO of silence the window that was learnt is stale. */
static void
output_after_idle(const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_cc_event ev;

    if (c->snd_una != c->snd_nxt || c->snd_end == c->snd_nxt ||
        us_since_tick(env->now_us, c->last_snd_tick) <= c->rtt.rto_us)
        return;
    cc_event_fill(&ev, env, c, 0);
    tcp_cc_by_id(c->cc_id)->on_idle(&c->cc, &ev);
}

void
conn_output(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (can_send_data(c)) {
        uint32_t max = env->gso_max_bytes > c->mss ? env->gso_max_bytes - env->gso_max_bytes % c->mss : c->mss;
        uint32_t budget = (uint32_t)BURST_SEGS * c->mss;
        output_after_idle(env, c);
        for (;;) {
            tcp_seq before = c->snd_nxt;
            uint32_t pipe = conn_pipe(d, c);
            bool sent = c->ca_state >= CONN_CA_RECOVERY && output_lost(d, env, c, pipe);
            if (!sent && !output_new(d, env, c, pipe, max < budget ? max : budget))
                break;
            uint32_t cost = c->snd_nxt - before > c->mss ? c->snd_nxt - before : c->mss;
            if (cost >= budget) {
                conn_timer_set(d, c, CONN_T_SEND, env->now_us + 1);
                break;
            }
            budget -= cost;
            if (budget < c->mss)
                budget = c->mss;
        }
        c->flags &= ~CONN_F_PUSH;
        output_arm_held(d, env, c);
    }
    if (c->flags & CONN_F_ACK_NOW)
        conn_send_ack(d, env, c, NULL);
}
