/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/domain.h"
#include "tcp/fastopen.h"
#include "tcp/guard.h"
#include "tcp/isn.h"
#include "tcp/siphash.h"

/** Segments that one event may send; more wait for the next tick, so that one connection cannot hold up the others. */
#define BURST_SEGS 64

/** Largest burst, as large as offloads take. */
#define BURST_BYTES_MAX 65536u

/** How long MSG_MORE and TCP_CORK may hold data back (tcp(7)), where the timeout is not known; else that, as in Linux. */
#define CORK_US 200000

/** RFC 5961 section 7 asks for a limit; an equal one for all is a side channel, so it varies from second to second. */
#define CHALLENGE_MIN_PER_S 500
#define CHALLENGE_SPREAD 500

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
    struct tcp_out out = { .tuple = &in->tuple, .flags = TCP_FLAG_RST, .md5 = md5_of_answer(env, in) };

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

/** Whether the domain's budget of this second has one left; if so it is taken. */
static bool
challenge_take(struct tcp_domain *d, uint32_t second)
{
    uint32_t limit =
        CHALLENGE_MIN_PER_S + (uint32_t)(siphash24(d->params.seed, &second, sizeof(second)) % CHALLENGE_SPREAD);

    if (second != d->challenge_second) {
        d->challenge_second = second;
        d->challenge_count = 0;
    }
    if (d->challenge_count >= limit)
        return false;
    d->challenge_count++;
    return true;
}

bool
challenge_allowed(struct tcp_domain *d, const struct tcp_env *env, uint32_t *last_tick)
{
    if (*last_tick != 0 && us_since_tick(env->now_us, *last_tick) < d->params.challenge_us)
        return false;
    guard_inner(env->locks, TCP_INNER_CHALLENGE);
    bool allowed = challenge_take(d, (uint32_t)(env->now_us / 1000000));
    unguard_inner(env->locks, TCP_INNER_CHALLENGE);
    if (!allowed)
        return false;
    *last_tick = tick_of(env->now_us) | 1;
    counter_inc(env->ctr, CTR_TCP_CHALLENGE_ACKS);
    return true;
}

uint8_t
window_scale_for(const struct tcp_domain *d, uint32_t rcv_buf_bytes, bool fixed)
{
    uint32_t most = fixed ? 0 : d->params.rcv_buf_max_bytes;
    uint32_t room = rcv_buf_bytes > most ? rcv_buf_bytes : most;
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

uint16_t
syn_window(uint32_t space_bytes, uint16_t mss, bool has_ts)
{
    uint32_t segment = mss - (has_ts ? TCP_TS_OPTION_BYTES : 0);

    if (space_bytes > segment)
        space_bytes -= space_bytes % segment;
    return (uint16_t)(space_bytes > UINT16_MAX ? UINT16_MAX : space_bytes);
}

uint16_t
conn_syn_window(const struct tcp_conn *c)
{
    return syn_window(conn_window_space(c), c->mss_port, (c->flags & CONN_F_TS) != 0);
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
    uint32_t half = conn_window_most(c) / 2;
    uint32_t step = half < c->mss ? half : c->mss;
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

/** What every segment of a connection has in common; the connection's books are kept too. data_segs: how many it is, 0 = one without payload. */
static inline __attribute__((always_inline)) void
emit_conn(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, struct tcp_out *out, uint32_t data_segs)
{
    out->tuple = &c->link.tuple;
    out->user = c->user;
    out->ack = c->rcv_nxt;
    out->tos |= c->opts.tos & (uint8_t)~TCP_TOS_ECN;
    out->may_be_cut = (c->path & CONN_PATH_CUT) != 0;
    out->window = select_window(c);
    if (c->flags & CONN_F_TS) {
        out->opts.has_ts = true;
        out->opts.ts_val = tcp_ts_clock(env->now_us, c->ts_offset);
        out->opts.ts_ecr = c->ts_recent;
    }
    if (c->ecn & (CONN_ECN_ECHO | CONN_ECN_ACC))
        ecn_put(d, c, out);
    if (c->md5 != 0)
        md5_put(d, c->md5, out);
    c->flags &= ~CONN_F_ACK_NOW;
    c->ack_held = false;
    c->rcv_acked = c->rcv_nxt;
    conn_timer_off(c, CONN_T_DELACK);
    uint32_t segs = data_segs > 0 ? data_segs : 1;
    c->segs_out += segs;
    c->data_segs_out += data_segs;
    c->last_snd_tick = tick_of(env->now_us);
    counter_add(env->ctr, CTR_TCP_TX_SEGS, segs);
    env->sink->emit(env->sink->ctx, out, env->now_us);
}

void
conn_send_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_sack_block *dsack)
{
    struct tcp_out out = { .seq = c->snd_nxt, .flags = TCP_FLAG_ACK };

    if (c->flags & CONN_F_SACK)
        put_sack_blocks(d, c, dsack, &out.opts);
    emit_conn(d, env, c, &out, 0);
}

void
conn_send_probe(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_out out = { .seq = c->snd_una - 1, .flags = TCP_FLAG_ACK };

    emit_conn(d, env, c, &out, 0);
}

void
conn_send_rst(const struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_out out = {
        .tuple = &c->link.tuple,
        .seq = c->snd_nxt,
        .ack = c->rcv_nxt,
        .window = (uint16_t)(seq_diff(c->rcv_adv, c->rcv_nxt) >> c->rcv_wscale),
        .flags = TCP_FLAG_RST | TCP_FLAG_ACK,
        .tos = c->opts.tos,
    };

    if (c->flags & CONN_F_TS) {
        out.opts.has_ts = true;
        out.opts.ts_val = tcp_ts_clock(env->now_us, c->ts_offset);
        out.opts.ts_ecr = c->ts_recent;
    }
    if (c->md5 != 0)
        md5_put(d, c->md5, &out);
    emit_segment(env, &out);
}

/** The first SYN of an active Fast Open: data and cookie, or the request for one (RFC 7413 section 4.2.1). */
static void
put_fast_open(const struct tcp_domain *d, struct tcp_conn *c, struct tcp_out *out)
{
    const struct tcp_fo_entry *e = fastopen_entry(d, &c->link.tuple);
    bool has_cookie = e != NULL && e->cookie.len > 0;

    c->flags &= ~CONN_F_FO_SYN;
    if ((c->flags & CONN_F_FO_DATA) == 0)
        c->fastopen_fail = CONN_FO_NO_COOKIE;
    out->user = c->user;
    out->payload_len = seq_diff(c->snd_nxt, c->iss + 1);
    bool without = (d->params.fastopen & TCP_FASTOPEN_CLIENT_NO_COOKIE) != 0 || (c->flags & CONN_F_FO_NO_COOKIE) != 0;
    if (without && (c->flags & CONN_F_FO_DATA) != 0)
        return; /* a cookie that is known is kept back too, as Linux does */
    out->opts.has_fo = true;
    if (has_cookie)
        out->opts.fo = e->cookie;
    else
        out->opts.fo.exp = e != NULL && e->exp_try == 1;
}

/** The SYN-ACK to who has shown a cookie of a key that is on its way out. */
static void
put_new_cookie(const struct tcp_domain *d, struct tcp_conn *c, struct tcp_out *out)
{
    out->opts.has_fo = true;
    out->opts.fo.exp = (c->flags & CONN_F_FO_DATA) != 0;
    fastopen_cookie(d, listener_by_id(d, c->fo_listener), &c->link.tuple, &out->opts.fo);
    c->flags &= ~(CONN_F_FO_SYN | CONN_F_FO_DATA);
}

/** SYN in SYN-SENT, SYN-ACK in SYN-RECEIVED (simultaneous open): the window of either is never scaled. */
void
conn_send_syn(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    bool passive = c->state == TCP_ST_SYN_RECEIVED || (c->flags & CONN_F_FO_CHILD) != 0;
    /* A path that is known to take less will do so in the other direction too, most often: that spares the peer its own discovery. */
    uint16_t adv = path_adv_mss(d, &c->link.tuple.remote, c->mss_port, c->opts.max_seg);
    uint16_t mss = adv < c->mss_path ? adv : c->mss_path;
    struct tcp_out out = {
        .tuple = &c->link.tuple,
        .seq = c->iss,
        .ack = passive ? c->rcv_nxt : 0,
        .window = conn_syn_window(c),
        .flags = passive ? TCP_FLAG_SYN | TCP_FLAG_ACK : TCP_FLAG_SYN,
        .tos = c->opts.tos,
        .may_be_cut = (c->path & CONN_PATH_CUT) != 0,
        .opts = { .has_mss = true, .mss = mss },
    };

    /* Before ECN's option, which gives way to a cookie. */
    if ((c->flags & CONN_F_FO_SYN) != 0 && (c->flags & CONN_F_FO_CHILD) != 0)
        put_new_cookie(d, c, &out);
    ecn_put_syn(d, c, passive, &out);
    /* A SYN offers what the domain allows; an answer confirms what the peer offered. */
    out.opts.has_wscale = (c->flags & CONN_F_WSCALE) != 0;
    out.opts.wscale = c->rcv_wscale;
    out.opts.sack_permitted = (c->flags & CONN_F_SACK) != 0;
    if (c->flags & CONN_F_TS) {
        out.opts.has_ts = true;
        out.opts.ts_val = tcp_ts_clock(env->now_us, c->ts_offset);
        out.opts.ts_ecr = passive ? c->ts_recent : 0;
    }
    if ((c->flags & (CONN_F_FO_SYN | CONN_F_FO_CHILD)) == CONN_F_FO_SYN)
        put_fast_open(d, c, &out);
    if (c->md5 != 0)
        md5_put(d, c->md5, &out);
    if (passive) {
        if (seq_gt(c->rcv_nxt + out.window, c->rcv_adv))
            c->rcv_adv = c->rcv_nxt + out.window;
        c->rcv_acked = c->rcv_nxt;
        c->flags &= ~CONN_F_ACK_NOW;
        conn_timer_off(c, CONN_T_DELACK);
    }
    c->segs_out++;
    c->data_segs_out += out.payload_len > 0;
    c->last_snd_tick = tick_of(env->now_us);
    emit_segment(env, &out);
    conn_arm_rtx(d, env, c);
}

/** May a probe stand in for the timeout (RFC 8985 section 7.2)? Only in a flow without trouble, once for each window. */
static bool
may_probe(const struct tcp_conn *c)
{
    return (c->flags & (CONN_F_SACK | CONN_F_TLP | CONN_F_PERSIST)) == CONN_F_SACK && c->backoff == 0 &&
           (c->ca_state == CONN_CA_OPEN || c->ca_state == CONN_CA_CWR) && c->sent.head != 0;
}

/** The timeout runs from the first segment's last transmission, not from the timer that stood in for it. */
static uint64_t
rto_deadline(const struct tcp_domain *d, const struct tcp_env *env, const struct tcp_conn *c)
{
    return env->now_us + tcp_rtt_backed_off(&c->rtt, c->backoff, d->params.rto_max_us);
}

static inline void
arm_rtx(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    uint64_t at_us = rto_deadline(d, env, c);

    c->flags &= ~(CONN_F_PTO | CONN_F_REO);
    if (may_probe(c)) {
        bool lone = seq_diff(c->snd_nxt, c->snd_una) <= c->mss;
        uint64_t probe_us = env->now_us + tcp_rack_probe_us(c->rtt.srtt_us, lone, d->params.rto_min_us);
        c->flags |= CONN_F_PTO;
        if (probe_us < at_us)
            at_us = probe_us;
    }
    conn_timer_set(d, env, c, CONN_T_RTX, at_us);
}

void
conn_arm_rtx(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    arm_rtx(d, env, c);
}

/** What is to be noted with bytes that are sent again now. */
static void
rate_mark(const struct tcp_env *env, const struct tcp_conn *c, uint32_t bytes, struct tcp_rate_mark *m)
{
    tcp_rate_on_send(&flow_of(c)->rate, m, bytes, conn_pipe(c), (uint32_t)env->now_us);
}

static void
note_paced(const struct tcp_env *env, struct tcp_conn *c, uint32_t len)
{
    if (c->flags & CONN_F_PACED)
        tcp_pace_sent(&c->pace, len, env->now_us);
}

static void
note_retransmitted(struct tcp_domain *d, struct tcp_conn *c, tcp_seq start, uint32_t bytes, bool fin)
{
    struct tcp_tally *t = conn_tally(d, c);

    t->retrans_segs++;
    t->bytes_retrans += bytes;
    tcp_again_note(&t->again, start, start + bytes + fin);
}

/** Send [start, end) again, FIN included, at most one segment of it. push: PSH belongs to its end. */
static void
send_retransmission(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq start, tcp_seq end,
                    bool push)
{
    tcp_seq data_end = seq_gt(end, c->snd_end) ? c->snd_end : end;
    uint32_t len = seq_gt(data_end, start) ? seq_diff(data_end, start) : 0;

    if (len > c->mss)
        len = c->mss;
    bool fin = seq_gt(end, c->snd_end) && start + len == c->snd_end;
    push = push && len > 0 && start + len + fin == end;
    struct tcp_out out = {
        .seq = start,
        .payload_pos = start - (c->iss + 1),
        .payload_len = len,
        .flags = (uint16_t)(TCP_FLAG_ACK | (fin ? TCP_FLAG_FIN : 0) | (push ? TCP_FLAG_PSH : 0)),
    };
    if (c->path & CONN_PATH_PROBE)
        path_on_retransmission(d, c, start, start + len);
    struct tcp_rate_mark mark;
    rate_mark(env, c, len + fin, &mark);
    tcp_sent_again(sent_store(d, env->locks), &c->sent, start, start + len + fin, &mark, (uint32_t)env->now_us);
    note_paced(env, c, len);
    c->undo_bytes += len + fin;
    c->prr.out_bytes += len;
    note_retransmitted(d, c, start, len, fin);
    counter_inc(env->ctr, CTR_TCP_RETRANS_SEGS);
    emit_conn(d, env, c, &out, len > 0);
}

/** One retransmission, if one is due and the window has room. */
static bool
output_lost(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t pipe)
{
    tcp_seq start, end;
    bool push;

    if ((c->flags & CONN_F_FRTO_NEW) != 0 || (pipe > 0 && pipe + c->mss > c->cc.cwnd_bytes) ||
        !tcp_sent_next_lost(sent_store(d, env->locks), &c->sent, &start, &end, &push))
        return false;
    send_retransmission(d, env, c, start, end, push);
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

/**
 * How many bytes form a burst: about what the connection sends in a millisecond at twice its rate, more where the path
 * is so short that acknowledgements cost more than queues, at least burst_min_segs, and never more than half of cwnd,
 * so that the ACK clock keeps two bursts under way. A pacer knows its rate.
 */
static uint32_t
burst_bytes(const struct tcp_domain *d, const struct tcp_conn *c)
{
    uint64_t burst = c->rtt.srtt_us > 0 ? 2000ull * c->cc.cwnd_bytes / c->rtt.srtt_us : BURST_BYTES_MAX;
    uint32_t half = c->cc.cwnd_bytes / 2;

    if (c->flags & CONN_F_PACED)
        return tcp_pace_burst(&c->pace, c->mss, d->params.burst_min_segs);

    if (c->rtt.min_us >> 9 < 16)
        burst += BURST_BYTES_MAX >> (c->rtt.min_us >> 9);
    if (burst > BURST_BYTES_MAX)
        burst = BURST_BYTES_MAX;
    if (burst < (uint32_t)d->params.burst_min_segs * c->mss)
        burst = (uint32_t)d->params.burst_min_segs * c->mss;
    if (burst > half)
        burst = half;
    return burst > c->mss ? (uint32_t)(burst - burst % c->mss) : c->mss;
}

/** How much new data may go as one emission, at least a segment if max_bytes is no less; 0 = none now. */
static uint32_t
new_data_len(const struct tcp_domain *d, struct tcp_conn *c, uint32_t pipe, uint32_t max_bytes)
{
    tcp_seq stop = record_next(d, c);
    uint32_t avail = seq_gt(stop, c->snd_nxt) ? seq_diff(stop, c->snd_nxt) : 0;
    tcp_seq edge = c->snd_una + c->snd_wnd;
    uint32_t usable = seq_gt(edge, c->snd_nxt) ? seq_diff(edge, c->snd_nxt) : 0;
    uint32_t len = avail < usable ? avail : usable;

    if (len == 0)
        return 0;
    if (len > c->mss) {
        uint32_t burst = burst_bytes(d, c);
        uint32_t most = burst < max_bytes ? burst : max_bytes;
        len = len < most ? len : most;
    }
    uint32_t room = c->cc.cwnd_bytes > pipe ? c->cc.cwnd_bytes - pipe : 0;
    if (room < len && room < c->mss) {
        if (pipe > 0)
            return 0;
        room = c->mss;
    }
    if (room < len)
        len = room;
    /* Its partial end goes with what is before it. More will not join a record that has ended, if there is more. */
    if (len == avail && (len % c->mss == 0 || stop != c->snd_end || may_send_partial(c)))
        return len;
    if (len >= c->mss)
        return len - len % c->mss;
    if (len == avail)
        return 0;
    /* The window cuts a segment short: RFC 9293 section 3.8.6.2.1, the sender's silly window avoidance. */
    return len >= c->snd_wnd_max / 2 || (c->flags & CONN_F_PUSH) ? len : 0;
}

/**
 * Send len new bytes in segments of gso_size, 0 = in one, and the FIN if it is due behind them. push: PSH on the last segment. pipe: by conn_pipe. plain: output_is_one said so of
 * these, which are then all that is queued, and not nothing: their end is a write's, no record ends in them, nobody paces them, and no reduction counts them.
 */
static inline __attribute__((always_inline)) void
send_segments(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t len, uint16_t gso_size,
              bool fin, bool push, uint32_t pipe, bool plain)
{
    bool data = plain || len > 0;
    /* The end of a write, unless its writer said that more is to come. */
    bool ends = plain || (c->snd_nxt + len == c->snd_end && (c->flags & CONN_F_MORE) == 0);
    bool last = plain || (data && (ends || (c->records != 0 && c->snd_nxt + len == record_next(d, c))));
    struct tcp_out out = {
        .seq = c->snd_nxt,
        .payload_pos = c->snd_nxt - (c->iss + 1),
        .payload_len = len,
        .gso_size = gso_size,
        .flags = (uint16_t)(TCP_FLAG_ACK | (fin ? TCP_FLAG_FIN : 0) | (last || push ? TCP_FLAG_PSH : 0)),
    };

    if ((c->ecn & CONN_ECN_ON) != 0 && data) {
        /* Only new data: a mark on a retransmission could not be told from a forged one (RFC 3168 section 6.1.5). */
        out.tos = TCP_TOS_ECT0;
        if (c->ecn & CONN_ECN_CWR)
            out.flags |= TCP_FLAG_CWR;
        c->ecn &= (uint8_t)~CONN_ECN_CWR;
    }
    if (c->snd_una == c->snd_nxt)
        c->stall_tick = tick_of(env->now_us);
    c->snd_nxt += len + fin;
    if (gso_size != 0 ? len % gso_size != 0 : data && len < c->mss)
        c->snd_sml = c->snd_nxt;
    struct tcp_rate_mark *mark =
        tcp_sent_append(sent_store(d, env->locks), &c->sent, c->snd_nxt, (uint32_t)env->now_us, last);
    tcp_rate_on_send(&flow_of(c)->rate, mark, len + fin, pipe, (uint32_t)env->now_us);
    if (!plain) {
        record_sent(d, env, c);
        note_paced(env, c, len);
        if (c->ca_state != CONN_CA_OPEN)
            c->prr.out_bytes += len;
    }
    /* Who answers what has just come leads a dialogue: its answers carry the acknowledgements from here on. A first
     * request answers nothing, nor does a FIN. */
    if (data && c->bytes_received > 0 && us_since_tick(env->now_us, c->last_data_tick) < d->params.delack_us)
        c->quick_acks = 0;
    counter_add(env->ctr, CTR_TCP_TX_BYTES, len);
    emit_conn(d, env, c, &out, gso_size != 0 ? (len + gso_size - 1) / gso_size : data);
}

static void
send_sized(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t len, uint16_t gso_size,
           bool fin, bool push)
{
    send_segments(d, env, c, len, gso_size, fin, push, conn_pipe(c), false);
}

static void
send_new(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t len, bool fin, bool push)
{
    send_sized(d, env, c, len, len > c->mss ? c->mss : 0, fin, push);
}

void
conn_resend_syn_data(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq end)
{
    tcp_seq start = c->snd_nxt, sml = c->snd_sml, edge = c->snd_una + c->snd_wnd;

    if (seq_gt(end, edge))
        end = edge;
    while (seq_lt(c->snd_nxt, end)) {
        uint32_t left = seq_diff(end, c->snd_nxt);
        uint32_t n = left < c->mss ? left : c->mss;
        send_new(d, env, c, n, false, n == left);
        note_retransmitted(d, c, c->snd_nxt - n, n, false);
        counter_inc(env->ctr, CTR_TCP_RETRANS_SEGS);
    }
    if (c->snd_nxt == start)
        return;
    c->snd_sml = sml; /* it was sent before: Nagle's rule is about new segments */
    struct tcp_rate_mark mark;
    rate_mark(env, c, 0, &mark);
    tcp_sent_again(sent_store(d, env->locks), &c->sent, start, c->snd_nxt, &mark, (uint32_t)env->now_us);
    conn_arm_rtx(d, env, c);
}

/** Send len new bytes, more than a segment of them, and the FIN behind them. */
static void
send_burst(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t len, bool fin)
{
    uint32_t unit = env->gso_max_bytes > c->mss ? env->gso_max_bytes - env->gso_max_bytes % c->mss : c->mss;

    do {
        /* Those who cut a large segment repeat its flags, and CWR belongs to one; nor can they sign. */
        uint32_t most = c->md5 != 0 || (c->ecn != 0 && !ecn_may_be_cut(d, c)) ? c->mss : unit;
        uint32_t n = len < most ? len : most;
        len -= n;
        /* It ends with PSH, for a receiver that gathers segments; a lone segment from the middle of a stream does not: it
         * may have been sent in congestion, where a later acknowledgement is no loss. */
        send_new(d, env, c, n, fin && len == 0, len == 0);
    } while (len > 0);
}

static bool
fin_is_due(const struct tcp_conn *c)
{
    return (c->flags & CONN_F_FIN_QUEUED) != 0 && !conn_fin_sent(c);
}

/** A FIN has a sequence number: the window must have room for it as for a byte (RFC 9293 section 3.4). */
static bool
fin_fits(const struct tcp_conn *c)
{
    return seq_lt(c->snd_end, c->snd_una + c->snd_wnd);
}

static bool
output_burst(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t pipe, uint32_t max_bytes)
{
    uint32_t len = new_data_len(d, c, pipe, max_bytes);
    bool fin = fin_is_due(c) && c->snd_nxt + len == c->snd_end && fin_fits(c);

    if (len == 0 && !fin)
        return false;
    /* A segment that takes most of what the peer can hold: its reader should not wait for the next. */
    if (len <= c->mss)
        send_new(d, env, c, len, fin, len > c->snd_wnd_max / 2);
    else
        send_burst(d, env, c, len, fin);
    return true;
}

/** A probe of the path's MTU may be due; true if it takes the place of other new data: *sent tells whether it went, or waits. */
static bool
output_probe(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t pipe, bool *sent)
{
    uint32_t len = path_probe_len(d, env, c, pipe);

    *sent = len != 0 && len != PATH_PROBE_WAIT;
    if (*sent) {
        send_sized(d, env, c, len, 0, false, false);
        path_probe_sent(d, env, c, len);
    }
    return len != 0;
}

/** New data has been sent: the timer runs for it, or the probe from now on. */
static inline __attribute__((always_inline)) void
output_arm(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->timer_at[CONN_T_RTX] != 0 && (c->flags & (CONN_F_PERSIST | CONN_F_PTO)) == 0)
        return;
    if (c->flags & CONN_F_PERSIST)
        c->retries = c->backoff = 0;
    c->flags &= ~CONN_F_PERSIST;
    arm_rtx(d, env, c);
}

/** Send a burst of new data, at most max_bytes of it; false if none may go. */
static bool
output_new(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t pipe, uint32_t max_bytes)
{
    bool sent;

    if ((c->path & CONN_PATH_SEARCH) == 0 || !output_probe(d, env, c, pipe, &sent))
        sent = output_burst(d, env, c, pipe, max_bytes);
    if (sent)
        output_arm(d, env, c);
    return sent;
}

void
conn_send_tail_probe(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    tcp_seq stop = record_next(d, c);
    uint32_t avail = seq_gt(stop, c->snd_nxt) ? seq_diff(stop, c->snd_nxt) : 0;
    uint32_t len = avail < c->mss ? avail : c->mss;
    bool room = len > 0 && seq_leq(c->snd_nxt + len, c->snd_una + c->snd_wnd);
    tcp_seq start, end;
    bool push;

    if (room) {
        bool fin = c->snd_nxt + len == c->snd_end && (c->flags & CONN_F_FIN_QUEUED) != 0 && fin_fits(c);
        send_new(d, env, c, len, fin, false);
    } else if (tcp_sent_last(sent_store(d, env->locks), &c->sent, &start, &end, &push)) {
        uint32_t span = c->mss + conn_fin_sent(c);
        if (seq_diff(end, start) > span)
            start = end - span;
        if (c->ca_state == CONN_CA_OPEN)
            c->rxt_ts = tcp_ts_clock(env->now_us, c->ts_offset); /* the oldest copy, should a recovery follow */
        send_retransmission(d, env, c, start, end, push);
        c->flags |= CONN_F_TLP_AGAIN;
    }
    counter_inc(env->ctr, CTR_TCP_TAIL_PROBES);
    c->flags |= CONN_F_TLP;
    c->tlp_end = c->snd_nxt;
}

/** Data or the FIN is held back and nothing is under way whose acknowledgement would free it: a timer must. */
static void
output_arm_held(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (!seq_gt(c->snd_end, c->snd_nxt) && !fin_is_due(c))
        return;
    uint32_t avail = seq_diff(c->snd_end, c->snd_nxt);
    bool corked = avail > 0 && (c->flags & (CONN_F_CORK | CONN_F_MORE)) != 0 && avail < c->mss && avail <= c->snd_wnd;
    if (corked) {
        if (c->timer_at[CONN_T_SEND] == 0)
            conn_timer_set(d, env, c, CONN_T_SEND, env->now_us + (c->rtt.srtt_us != 0 ? c->rtt.rto_us : CORK_US));
    } else if (c->snd_una == c->snd_nxt && c->timer_at[CONN_T_RTX] == 0) {
        c->flags |= CONN_F_PERSIST;
        c->stall_tick = tick_of(env->now_us);
        conn_arm_rtx(d, env, c);
    }
}

static bool
can_send_data(const struct tcp_conn *c)
{
    const uint32_t states = 1u << TCP_ST_ESTABLISHED | 1u << TCP_ST_CLOSE_WAIT | 1u << TCP_ST_FIN_WAIT_1 |
                            1u << TCP_ST_CLOSING | 1u << TCP_ST_LAST_ACK;

    return (states >> c->state & 1) != 0 || (c->state == TCP_ST_SYN_RECEIVED && (c->flags & CONN_F_FO_CHILD) != 0);
}

/** Something is lost or was never sent; whether it may go now is another question. */
static bool
has_to_send(const struct tcp_conn *c)
{
    return seq_gt(c->snd_end, c->snd_nxt) || c->sent.lost_bytes > 0 || fin_is_due(c);
}

/** RFC 5681 section 4.1: after an RTO of silence the window that was learnt is stale. */
static void
output_after_idle(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_cc_event ev;

    if (c->snd_una != c->snd_nxt || c->snd_end == c->snd_nxt)
        return;
    const struct tcp_cc_ops *ops = tcp_cc_by_id(c->cc_id);
    bool silent = d->params.idle_restart && us_since_tick(env->now_us, c->last_snd_tick) > c->rtt.rto_us;
    if (!silent && !ops->has_model)
        return;
    cc_event_fill(&ev, d, env, c, 0);
    if (ops->has_model)
        ops->on_start(&c->cc, &ev);
    if (silent)
        ops->on_idle(&c->cc, &ev);
    conn_pace(d, env, c);
}

/** RFC 7661 wants to know whether cwnd was what held data back; it is judged over a window. */
static void
note_cwnd_use(struct tcp_conn *c, struct tcp_flow *f, uint32_t flight, uint32_t pipe)
{
    bool limited = pipe + c->mss > c->cc.cwnd_bytes;

    if (seq_lt(c->snd_una, f->usage_seq) && !limited &&
        ((c->flags & CONN_F_CWND_LIMITED) != 0 || flight <= f->usage_bytes))
        return;
    c->flags = limited ? c->flags | CONN_F_CWND_LIMITED : c->flags & ~CONN_F_CWND_LIMITED;
    f->usage_bytes = flight;
    f->usage_seq = c->snd_nxt;
}

/** What the sender waits for, as TCP_INFO tells it, where all that is queued has been sent. Sockets ask for more once a third of the buffer is free. */
static inline enum tcp_limit
limit_all_sent(const struct tcp_conn *c, uint32_t queued, uint32_t pipe)
{
    return queued > c->opts.snd_buf_bytes / 3 * 2 && pipe < c->cc.cwnd_bytes ? TCP_LIMIT_BUFFER : TCP_LIMIT_BUSY;
}

/** The same, for any. */
static enum tcp_limit
limit_of(const struct tcp_conn *c)
{
    uint32_t queued = seq_gt(c->snd_end, c->snd_una) ? seq_diff(c->snd_end, c->snd_una) : 0;

    if (queued == 0)
        return TCP_LIMIT_IDLE;
    if (seq_gt(c->snd_end, c->snd_nxt)) {
        uint32_t pipe = conn_pipe(c), flight = seq_diff(c->snd_nxt, c->snd_una);
        bool shut = flight + c->mss > c->snd_wnd && flight + seq_diff(c->snd_end, c->snd_nxt) > c->snd_wnd;
        return shut && (pipe == 0 || pipe + c->mss <= c->cc.cwnd_bytes) ? TCP_LIMIT_WINDOW : TCP_LIMIT_BUSY;
    }
    return limit_all_sent(c, queued, conn_pipe(c));
}

/** The pacer says no: its timer goes on. */
static bool
output_paced_out(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if ((c->flags & CONN_F_PACED) == 0)
        return false;
    struct tcp_pace *p = &c->pace;
    if (tcp_pace_ready(p, env->now_us))
        return false;
    if (c->timer_at[CONN_T_PACE] == 0)
        conn_timer_set(d, env, c, CONN_T_PACE, tcp_pace_next_us(p));
    return true;
}

/** What is sent now would only wait elsewhere, or be dropped: its turn comes when the port has room, behind those who wait already. */
static bool
output_port_is_full(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (!env->tx_full && (c->port_turn || !tcp_waiters_any(&d->waiters)))
        return false;
    guard_inner(env->locks, TCP_INNER_TIMERS);
    tcp_waiters_add(&d->waiters, domain_waiters(d), conn_index(d, c));
    unguard_inner(env->locks, TCP_INNER_TIMERS);
    return true;
}

/** New data has been sent, and this is what it has made of the flight and of conn_pipe. all: everything has been sent, and nothing is lost. */
static inline void
note_flight(struct tcp_conn *c, uint32_t flight, uint32_t pipe, bool all)
{
    struct tcp_flow *f = flow_of(c);

    note_cwnd_use(c, f, flight, pipe);
    if (all && pipe < c->cc.cwnd_bytes)
        tcp_rate_app_limited(&f->rate, pipe); /* the window has room: samples from here on tell of the application */
}

/**
 * Whether what is queued is one segment at most, nothing is lost, and nothing holds it back: mostly so for a request, an answer, a message behind others. Then this is all that
 * output_all would find. SACK is agreed too, so that no duplicate stands for what has left the path, and conn_pipe is what has been sent.
 */
static bool
output_is_one(const struct tcp_domain *d, const struct tcp_env *env, const struct tcp_conn *c)
{
    const uint32_t odd = CONN_F_FIN_QUEUED | CONN_F_CORK | CONN_F_MORE | CONN_F_PACED | CONN_F_PERSIST;
    uint32_t len = seq_diff(c->snd_end, c->snd_nxt), flight = seq_diff(c->snd_nxt, c->snd_una);
    uint32_t trouble = ((c->flags & (odd | CONN_F_SACK)) ^ CONN_F_SACK) | c->ca_state | (c->path & CONN_PATH_SEARCH) |
                       c->records | c->sent.sacked_bytes | c->sent.lost_bytes;

    if (trouble != 0 || len > c->mss || flight + len > c->snd_wnd || (flight > 0 && flight + len > c->cc.cwnd_bytes))
        return false;
    return (len == c->mss || may_send_partial(c)) && !env->tx_full && !tcp_waiters_any(&d->waiters);
}

/** First what is lost, then new data. False if it waits for the port. */
static bool
output_all(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    uint32_t budget = (uint32_t)BURST_SEGS * c->mss;
    bool waits = false;

    while (has_to_send(c) && !output_paced_out(d, env, c)) {
        waits = output_port_is_full(d, env, c);
        if (waits)
            break;
        tcp_seq before = c->snd_nxt;
        uint32_t pipe = conn_pipe(c);
        bool sent = c->sent.lost_bytes > 0 && output_lost(d, env, c, pipe);
        if (!sent && !output_new(d, env, c, pipe, budget))
            break;
        uint32_t cost = c->snd_nxt - before > c->mss ? c->snd_nxt - before : c->mss;
        if (cost >= budget) {
            conn_timer_set(d, env, c, CONN_T_SEND, env->now_us + 1);
            break;
        }
        budget -= cost;
        if (budget < c->mss)
            budget = c->mss;
    }
    return !waits;
}

/** All has been sent that may go now; limit is what holds back the rest. */
static inline void
output_ends(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, enum tcp_limit limit)
{
    c->flags &= ~(CONN_F_PUSH | CONN_F_FRTO_NEW);
    tcp_chrono_set(&flow_of(c)->chrono, limit, env->now_us);
    if (c->flags & CONN_F_ACK_NOW)
        conn_send_ack(d, env, c, NULL);
}

/** What output_is_one has found: after it, all has been sent, and nothing of it is lost. */
static inline __attribute__((always_inline)) void
output_one(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    uint32_t len = seq_diff(c->snd_end, c->snd_nxt), before = seq_diff(c->snd_nxt, c->snd_una), pipe = before + len;

    send_segments(d, env, c, len, 0, false, true, before, true);
    output_arm(d, env, c);
    note_flight(c, pipe, pipe, true);
    output_ends(d, env, c, limit_all_sent(c, pipe, pipe));
}

/** What it has not: send what may go. */
static __attribute__((noinline)) void
output_several(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    tcp_seq first = c->snd_nxt;
    bool done = output_all(d, env, c);

    if (c->snd_nxt != first) {
        bool all = !seq_gt(c->snd_end, c->snd_nxt) && c->sent.lost_bytes == 0;
        note_flight(c, seq_diff(c->snd_nxt, c->snd_una), conn_pipe(c), all);
    }
    if (done)
        output_arm_held(d, env, c);
    output_ends(d, env, c, limit_of(c));
}

/** Something is to be sent. Mostly there is nothing, so of its own. */
static __attribute__((noinline)) void
output_data(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->path & CONN_PATH_LOWERED)
        path_grow_old(d, env, c);
    output_after_idle(d, env, c);
    if (output_is_one(d, env, c))
        output_one(d, env, c);
    else
        output_several(d, env, c);
}

/* Each way ends with its last call, so that no register is saved for what comes behind one. */
void
conn_output(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (!can_send_data(c)) {
        if (c->flags & CONN_F_ACK_NOW)
            conn_send_ack(d, env, c, NULL);
    } else if (has_to_send(c)) {
        output_data(d, env, c);
    } else {
        output_ends(d, env, c, limit_of(c));
    }
}

void
conn_output_in_turn(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    c->port_turn = true;
    conn_output(d, env, c);
    c->port_turn = false;
}
