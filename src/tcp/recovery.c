/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/domain.h"
#include "tcp/isn.h"

/**
 * @file
 * Loss recovery: NewReno (RFC 6582) without SACK, RFC 6675 with it, the retransmission timeout's part of RFC 5681, and
 * Eifel detection (RFC 3522) against needless recoveries. Both forms share one picture: bytes below lost_below that the scoreboard lacks are lost, holes
 * below high_rxt have been retransmitted.
 */

/** Reordering may raise the threshold up to this (a bounded form of what RFC 4653 is after). */
#define DUP_THRESH_MIN 3
#define DUP_THRESH_MAX 24

void
cc_event_fill(struct tcp_cc_event *ev, const struct tcp_env *env, const struct tcp_conn *c, uint32_t acked)
{
    *ev = (struct tcp_cc_event){
        .now_us = env->now_us,
        .acked_bytes = acked,
        .flight_bytes = seq_diff(c->snd_nxt, c->snd_una),
        .mss_bytes = c->mss,
        .srtt_us = c->rtt.srtt_us,
        .cwnd_limited = (c->flags & CONN_F_CWND_LIMITED) != 0,
    };
}

uint32_t
conn_pipe(struct tcp_domain *d, const struct tcp_conn *c)
{
    uint32_t flight = seq_diff(c->snd_nxt, c->snd_una);

    if (c->ca_state == CONN_CA_OPEN)
        return flight;
    /* RFC 6675 section 4: what is neither SACKed nor lost, and what was retransmitted. */
    struct tcp_sack_store s = sack_store(d);
    uint32_t pipe = tcp_sack_missing(s, &c->board, c->lost_below, c->snd_nxt) +
                    tcp_sack_missing(s, &c->board, c->snd_una, c->high_rxt);
    if ((c->flags & CONN_F_SACK) == 0) {
        /* Each duplicate ACK says that one segment has left (RFC 5681 section 3.2 inflates cwnd for it instead). */
        uint32_t left = (uint32_t)c->dup_acks * c->mss;
        pipe = pipe > left ? pipe - left : 0;
    }
    return pipe;
}

/** Few segments in flight cannot raise many duplicates. */
static uint32_t
dup_thresh(const struct tcp_conn *c)
{
    uint32_t half = seq_diff(c->snd_nxt, c->snd_una) / c->mss / 2;

    if (half < DUP_THRESH_MIN)
        half = DUP_THRESH_MIN;
    return c->dup_thresh < half ? c->dup_thresh : half;
}

uint32_t
recovery_take_sack(struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in, bool *dsack)
{
    uint32_t news = 0;

    for (unsigned i = 0; i < in->opts.nb_sack; i++) {
        struct tcp_sack_block b = in->opts.sack[i];
        tcp_seq floor = seq_gt(in->ack, c->snd_una) ? in->ack : c->snd_una;
        /* RFC 2883 section 4: at or below the ACK, or within the second block, the first one reports a duplicate. */
        if (i == 0 && seq_lt(b.start, b.end) && seq_leq(b.end, in->ack)) {
            *dsack = true;
            continue;
        }
        /* Whoever SACKs what was never sent, or what it has acknowledged, gets no credit for it. */
        if (!seq_lt(b.start, b.end) || seq_lt(b.start, floor) || seq_gt(b.end, c->snd_nxt))
            continue;
        news += tcp_sack_add(sack_store(d), &c->board, b.start, b.end);
    }
    return news;
}

static void
update_lost(struct tcp_domain *d, struct tcp_conn *c)
{
    if ((c->flags & CONN_F_SACK) == 0)
        return;
    tcp_seq lost = tcp_sack_lost_below(sack_store(d), &c->board, c->snd_una, dup_thresh(c), c->mss);
    if (seq_gt(lost, c->lost_below))
        c->lost_below = lost;
}

/** The segment at snd_una is lost, whatever the scoreboard says. */
static void
mark_head_lost(struct tcp_conn *c)
{
    tcp_seq end = c->snd_una + c->mss;

    if (seq_gt(end, c->snd_nxt))
        end = c->snd_nxt;
    if (seq_gt(end, c->lost_below))
        c->lost_below = end;
}

static void
remember_for_undo(const struct tcp_env *env, struct tcp_conn *c)
{
    c->prior_cwnd = c->cc.cwnd_bytes;
    c->prior_ssthresh = c->cc.ssthresh_bytes;
    c->rxt_ts = tcp_ts_clock(env->now_us, c->ts_offset);
    c->flags |= CONN_F_UNDO;
}

static void
enter_recovery(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t flight)
{
    struct tcp_cc_event ev;

    counter_inc(env->ctr, CTR_TCP_FAST_RETRANS);
    remember_for_undo(env, c);
    cc_event_fill(&ev, env, c, 0);
    ev.flight_bytes = flight;
    tcp_cc_by_id(c->cc_id)->on_loss(&c->cc, &ev);
    c->ca_state = CONN_CA_RECOVERY;
    c->recover = c->snd_nxt;
    c->high_rxt = c->snd_una;
    c->lost_below = c->snd_una;
    mark_head_lost(c);
    update_lost(d, c);
    c->flags |= CONN_F_RXT_NOW;
}

static void
leave_recovery(struct tcp_conn *c)
{
    c->ca_state = c->board.count > 0 ? CONN_CA_DISORDER : CONN_CA_OPEN;
    c->high_rxt = c->lost_below = c->snd_una;
    c->dup_acks = 0;
    c->flags &= ~(CONN_F_UNDO | CONN_F_RXT_NOW);
}

/** The first new acknowledgement echoes a timestamp older than the retransmission: the original had arrived. */
static bool
try_undo(const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n)
{
    if ((c->flags & CONN_F_UNDO) == 0 || n->acked == 0)
        return false;
    c->flags &= ~CONN_F_UNDO;
    if (!n->has_ecr || (int32_t)(n->ts_ecr - c->rxt_ts) >= 0)
        return false;
    counter_inc(env->ctr, CTR_TCP_SPURIOUS_RETRANS);
    if (c->prior_cwnd > c->cc.cwnd_bytes)
        c->cc.cwnd_bytes = c->prior_cwnd;
    c->cc.ssthresh_bytes = c->prior_ssthresh;
    if (c->ca_state == CONN_CA_RECOVERY)
        c->dup_thresh = c->dup_thresh * 2 > DUP_THRESH_MAX ? DUP_THRESH_MAX : (uint8_t)(c->dup_thresh * 2);
    leave_recovery(c);
    return true;
}

/**
 * RFC 6675 leaves a lost retransmission to the timer. Data sent after the last one that the peer has SACKed three
 * segments deep proves the same that duplicates prove of an original: begin again at the head.
 */
static void
detect_lost_retransmission(struct tcp_domain *d, struct tcp_conn *c)
{
    struct tcp_sack_store s = sack_store(d);

    if ((c->flags & CONN_F_SACK) == 0 || tcp_sack_missing(s, &c->board, c->snd_una, c->high_rxt) == 0)
        return;
    tcp_seq seen = tcp_sack_highest(s, &c->board, c->snd_una);
    if (seq_lt(seen, c->rxt_mark + dup_thresh(c) * c->mss))
        return;
    c->high_rxt = c->snd_una;
    c->rxt_mark = c->snd_nxt;
    c->flags |= CONN_F_RXT_NOW;
}

/** Duplicates that NewReno still counts after a partial acknowledgement (RFC 6582 section 3.2 step 3). */
static void
partial_ack(struct tcp_conn *c, uint32_t acked)
{
    if (c->flags & CONN_F_SACK) {
        if (c->board.count > 0)
            mark_head_lost(c);
        return;
    }
    uint32_t segs = (acked + c->mss - 1) / c->mss;
    uint32_t gone = segs > 0 ? segs - 1 : 0;
    c->dup_acks = c->dup_acks > gone ? (uint8_t)(c->dup_acks - gone) : 0;
    mark_head_lost(c);
    c->flags |= CONN_F_RXT_NOW;
}

static void
ack_while_open(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n)
{
    struct tcp_cc_event ev;

    if (n->acked > 0)
        c->dup_acks = 0;
    if (n->is_dup && c->dup_acks < UINT8_MAX)
        c->dup_acks++;
    bool lost;
    if (c->flags & CONN_F_SACK)
        lost = c->board.count > 0 &&
               (c->dup_acks >= dup_thresh(c) ||
                tcp_sack_lost_below(sack_store(d), &c->board, c->snd_una, dup_thresh(c), c->mss) != c->snd_una);
    else
        lost = c->dup_acks >= dup_thresh(c) && seq_gt(c->snd_una, c->recover);
    if (lost) {
        enter_recovery(d, env, c, seq_diff(c->snd_nxt, c->snd_una));
        return;
    }
    c->ca_state = c->board.count > 0 || c->dup_acks > 0 ? CONN_CA_DISORDER : CONN_CA_OPEN;
    if (n->acked > 0) {
        cc_event_fill(&ev, env, c, n->acked);
        tcp_cc_by_id(c->cc_id)->on_ack(&c->cc, &ev);
        c->flags &= ~CONN_F_CWND_LIMITED;
    }
}

static void
ack_while_recovering(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n)
{
    if (try_undo(env, c, n))
        return;
    if (seq_geq(c->snd_una, c->recover)) {
        if ((c->flags & CONN_F_SACK) == 0) {
            /* RFC 6582 section 3.2 step 3: no burst when much was acknowledged at once. */
            uint32_t flight = seq_diff(c->snd_nxt, c->snd_una);
            uint32_t bound = (flight > c->mss ? flight : c->mss) + c->mss;
            c->cc.cwnd_bytes = c->cc.ssthresh_bytes < bound ? c->cc.ssthresh_bytes : bound;
        }
        leave_recovery(c);
        return;
    }
    if (n->acked > 0)
        partial_ack(c, n->acked);
    if (n->is_dup && c->dup_acks < UINT8_MAX)
        c->dup_acks++;
    update_lost(d, c);
    detect_lost_retransmission(d, c);
}

static void
ack_after_rto(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n)
{
    struct tcp_cc_event ev;

    if (try_undo(env, c, n))
        return;
    if (n->acked > 0) {
        cc_event_fill(&ev, env, c, n->acked);
        ev.cwnd_limited = true;
        tcp_cc_by_id(c->cc_id)->on_ack(&c->cc, &ev);
    }
    if (seq_geq(c->snd_una, c->recover))
        leave_recovery(c);
    else
        detect_lost_retransmission(d, c);
}

void
recovery_on_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n)
{
    struct tcp_sack_store s = sack_store(d);

    if (n->is_dup)
        counter_inc(env->ctr, CTR_TCP_DUP_ACKS);
    if (seq_lt(c->high_rxt, c->snd_una))
        c->high_rxt = c->snd_una;
    if (seq_lt(c->lost_below, c->snd_una))
        c->lost_below = c->snd_una;
    /* The ACK stops where a SACKed range begins: the peer has thrown it away (RFC 2018 section 8). */
    if (c->board.head != 0 && s.ranges[c->board.head].start == c->snd_una)
        tcp_sack_clear(s, &c->board);
    switch (c->ca_state) {
    case CONN_CA_RECOVERY:
        ack_while_recovering(d, env, c, n);
        break;
    case CONN_CA_LOSS:
        ack_after_rto(d, env, c, n);
        break;
    default:
        ack_while_open(d, env, c, n);
        break;
    }
}

void
recovery_on_rto(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_cc_event ev;

    counter_inc(env->ctr, CTR_TCP_RTO);
    /* RFC 5681 section 3.1: a segment that times out again leaves ssthresh as it is. */
    if (c->retries == 0) {
        remember_for_undo(env, c);
        cc_event_fill(&ev, env, c, 0);
        tcp_cc_by_id(c->cc_id)->on_rto(&c->cc, &ev);
    } else {
        c->cc.cwnd_bytes = c->mss;
        /* The peer may have thrown away what it SACKed: RFC 2018 section 8 wants everything sent again. */
        tcp_sack_clear(sack_store(d), &c->board);
    }
    c->ca_state = CONN_CA_LOSS;
    c->recover = c->snd_nxt;
    c->high_rxt = c->snd_una;
    c->lost_below = c->snd_nxt;
    c->dup_acks = 0;
    c->dup_thresh = DUP_THRESH_MIN;
    c->flags |= CONN_F_RXT_NOW;
}
