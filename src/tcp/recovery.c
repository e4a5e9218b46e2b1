/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/domain.h"
#include "tcp/isn.h"

/**
 * @file
 * Loss recovery: what an ACK, the timeout and the reordering timer mean for the connection. Loss is detected by time
 * (RACK-TLP, RFC 8985) where SACK is agreed, else by counting duplicates (RFC 5681, RFC 6582); cwnd comes down by
 * proportional rate reduction (RFC 9937); what was needless is undone (RFC 3522, RFC 2883, RFC 5682).
 */

/** RFC 5681's three duplicates; reordering that was seen may raise it (a bounded form of what RFC 4653 is after). */
#define DUP_THRESH_MIN 3
#define DUP_THRESH_MAX 250

/** A duplicate of what was not sent again is the path's doing, and says nothing of what we did (RFC 3708 section 3, step B). */
static void
take_dsack(struct tcp_domain *d, struct tcp_conn *c, struct tcp_sack_block b, struct ack_news *n)
{
    struct tcp_tally *t = conn_tally(d, c);
    uint32_t bytes = seq_diff(b.end, b.start);

    t->dsack_segs += (bytes + c->mss - 1) / c->mss;
    if (tcp_again_has(&t->again, b.start, b.end))
        n->dsack_bytes = bytes;
}

void
recovery_take_sack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in,
                   struct ack_news *n)
{
    tcp_seq floor = seq_gt(in->ack, c->snd_una) ? in->ack : c->snd_una;

    for (unsigned i = 0; i < in->opts.nb_sack; i++) {
        struct tcp_sack_block b = in->opts.sack[i];
        if (!seq_lt(b.start, b.end) || seq_gt(b.end, c->snd_nxt))
            continue; /* whoever SACKs what was never sent gets no credit for it */
        /* RFC 2883 section 4: at or below the ACK, or within the second block, the first one reports a duplicate. */
        bool within =
            in->opts.nb_sack > 1 && seq_geq(b.start, in->opts.sack[1].start) && seq_leq(b.end, in->opts.sack[1].end);
        if (i == 0 && (seq_leq(b.end, in->ack) || within)) {
            if (seq_geq(b.end, c->snd_una - c->snd_wnd_max))
                take_dsack(d, c, b, n);
            continue;
        }
        if (seq_geq(b.start, floor))
            tcp_sent_sack(sent_store(d, env->locks), &c->sent, b.start, b.end, &n->sent);
    }
    n->sacked_bytes = n->sent.delivered_bytes;
}

/* ---- undo ---------------------------------------- */

static void
remember_for_undo(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    c->prior_cwnd = c->cc.cwnd_bytes;
    c->prior_ssthresh = c->cc.ssthresh_bytes;
    /* Copies of an earlier recovery that are still under way: their ACKs and DSACKs say nothing of this one. */
    c->undo_bytes = tcp_sent_retrans_bytes(sent_store(d, env->locks), &c->sent);
    if (c->undo_bytes == 0)
        c->rxt_ts = tcp_ts_clock(env->now_us, c->ts_offset);
    c->flags |= CONN_F_UNDO;
}

static void
set_open(struct tcp_conn *c)
{
    c->ca_state = c->sent.sacked_bytes > 0 || c->dup_acks > 0 ? CONN_CA_DISORDER : CONN_CA_OPEN;
}

static const struct tcp_cc_ops *
control_of(const struct tcp_conn *c)
{
    return tcp_cc_by_id(c->cc_id);
}

static void
leave_recovery(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_cc_event ev;

    if (c->ca_state == CONN_CA_RECOVERY)
        tcp_rack_recovered(&c->rack);
    else if (c->ca_state == CONN_CA_LOSS)
        conn_note_rto_over(d, env, c);
    if (control_of(c)->has_model) {
        cc_event_fill(&ev, d, env, c, 0);
        control_of(c)->on_recovered(&c->cc, &ev);
    }
    c->dup_acks = 0;
    c->flags &= ~(CONN_F_FRTO | CONN_F_FRTO_NEW);
    set_open(c);
}

static void
undo(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_cc_event ev;

    counter_inc(env->ctr, CTR_TCP_SPURIOUS_RETRANS);
    c->flags &= ~CONN_F_UNDO;
    c->ecn &= (uint8_t)~CONN_ECN_CWR;
    if (c->prior_cwnd > c->cc.cwnd_bytes)
        c->cc.cwnd_bytes = c->prior_cwnd;
    if (c->prior_ssthresh > c->cc.ssthresh_bytes)
        c->cc.ssthresh_bytes = c->prior_ssthresh;
    if (control_of(c)->has_model) {
        cc_event_fill(&ev, d, env, c, 0);
        control_of(c)->on_undo(&c->cc, &ev);
    }
    tcp_sent_unlose(sent_store(d, env->locks), &c->sent);
    leave_recovery(d, env, c);
}

/** The reduction was needless if its first ACK is older than its first retransmission (Eifel, RFC 3522), or once every
 *  retransmission has been reported as a duplicate (RFC 2883). */
static bool
try_undo(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n)
{
    if ((c->flags & CONN_F_UNDO) == 0)
        return false;
    bool older =
        n->acked > 0 && n->has_ecr && n->ts_ecr != 0 && c->undo_bytes > 0 && (int32_t)(n->ts_ecr - c->rxt_ts) < 0;
    bool all_twice = false;
    if (n->dsack_bytes > 0 && c->undo_bytes > 0) {
        c->undo_bytes = c->undo_bytes > n->dsack_bytes ? c->undo_bytes - n->dsack_bytes : 0;
        all_twice = c->undo_bytes == 0;
    }
    if (!older && !all_twice)
        return false;
    /* Where no timeout sent the copies, it was reordering that looked like loss (RFC 8985 section 6.2 step 3 misses it, once
     * the copy has been sent). */
    if (c->ca_state != CONN_CA_LOSS) {
        c->rack.reordering = true;
        conn_tally(d, c)->reorderings++;
    }
    undo(d, env, c);
    return true;
}

/* ---- reducing ---------------------------------------- */

/** RFC 3168 section 6.1.2: the peer learns of every reduction, whatever caused it. */
static void
note_reduction(struct tcp_conn *c)
{
    if (c->ecn & CONN_ECN_ON)
        c->ecn |= CONN_ECN_CWR;
}

/** One reduction for a window (RFC 5681 section 4.3): none while one is going on. marked: it was a mark that told. */
static void
begin_reduction(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, enum conn_ca state, bool marked)
{
    const struct tcp_cc_ops *ops = control_of(c);
    struct tcp_cc_event ev;

    if (c->ca_state < CONN_CA_CWR) {
        remember_for_undo(d, env, c);
        cc_event_fill(&ev, d, env, c, 0);
        (marked && ops->on_mark != NULL ? ops->on_mark : ops->on_loss)(&c->cc, &ev);
        tcp_prr_start(&c->prr, ev.flight_bytes);
        note_reduction(c);
    }
    c->flags &= ~(CONN_F_TLP | CONN_F_TLP_AGAIN);
    c->ca_state = (uint8_t)state;
    c->recover = c->snd_nxt;
}

static void
reduce(struct tcp_conn *c, uint32_t delivered_bytes, bool safe)
{
    bool first = c->prr.out_bytes == 0 && c->sent.lost_bytes > 0;

    if (control_of(c)->has_model)
        return;
    c->cc.cwnd_bytes =
        tcp_prr_window(&c->prr, delivered_bytes, conn_pipe(c), c->cc.ssthresh_bytes, c->mss, safe, first);
}

static void
end_reduction(struct tcp_conn *c)
{
    uint32_t flight = seq_diff(c->snd_nxt, c->snd_una);

    if (control_of(c)->has_model)
        return;
    c->cc.cwnd_bytes = c->cc.ssthresh_bytes;
    /* RFC 6582 section 3.2 step 3: without SACK much may be acknowledged at once, which is no reason for a burst. */
    uint32_t bound = (flight > c->mss ? flight : c->mss) + c->mss;
    if (c->ca_state == CONN_CA_RECOVERY && (c->flags & CONN_F_SACK) == 0 && c->cc.cwnd_bytes > bound)
        c->cc.cwnd_bytes = bound;
}

/* ---- detection ---------------------------------------- */

/** Mark what RACK takes for lost. Returns in how many microseconds more may be, 0 if time alone will not tell. */
static uint32_t
detect(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    bool many = c->sent.sacked_bytes >= (uint32_t)c->dup_thresh * c->mss;

    if ((c->flags & CONN_F_SACK) == 0 || c->rack.rtt_us == 0)
        return 0;
    uint32_t window_us =
        tcp_rack_window_us(&c->rack, c->rtt.min_us, c->rtt.srtt_us, c->ca_state >= CONN_CA_RECOVERY, many);
    return tcp_sent_detect(sent_store(d, env->locks), &c->sent, c->rack.sent_us, c->rack.end,
                           c->rack.rtt_us + window_us, (uint32_t)env->now_us);
}

static void
lose_head(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    tcp_seq end = c->snd_una + c->mss;

    tcp_sent_lose_below(sent_store(d, env->locks), &c->sent, seq_gt(end, c->snd_nxt) ? c->snd_nxt : end);
}

static bool
loss_is_certain(const struct tcp_conn *c)
{
    if (c->flags & CONN_F_SACK)
        return c->sent.lost_bytes > 0;
    /* RFC 6582 section 3.2 step 2: duplicates that an earlier recovery caused are no news. */
    return c->dup_acks >= c->dup_thresh && seq_gt(c->snd_una, c->recover);
}

/** False if there is nothing to reduce for: what is lost was a probe of the path's MTU. */
static bool
enter_recovery(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if ((c->path & CONN_PATH_PROBE) != 0 && c->ca_state < CONN_CA_CWR && path_probe_is_lost(d, env, c))
        return false;
    counter_inc(env->ctr, CTR_TCP_FAST_RETRANS);
    begin_reduction(d, env, c, CONN_CA_RECOVERY, false);
    if ((c->flags & CONN_F_SACK) == 0)
        lose_head(d, env, c);
    return true;
}

/** RFC 8985 section 7.4: was the loss that the probe repaired a real one? */
static void
judge_probe(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n)
{
    if ((c->flags & CONN_F_TLP) == 0 || seq_lt(c->snd_una, c->tlp_end))
        return;
    bool again = (c->flags & CONN_F_TLP_AGAIN) != 0;
    bool beyond = seq_gt(c->snd_una, c->tlp_end);
    if (again && n->dsack_bytes == 0 && !beyond && !n->is_pure_dup)
        return;
    c->flags &= ~(CONN_F_TLP | CONN_F_TLP_AGAIN);
    if (again && n->dsack_bytes == 0 && beyond && c->ca_state < CONN_CA_CWR) {
        begin_reduction(d, env, c, CONN_CA_CWR, false);
        end_reduction(c);
        set_open(c);
    }
}

/* ---- an ACK, by state ---------------------------------------- */

static uint32_t
rtt_of(const struct tcp_env *env, const struct ack_news *n)
{
    return n->sent.has_rtt ? (uint32_t)env->now_us - n->sent.newest_us : 0;
}

static __attribute__((noinline)) void
grow_used(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t delivered_bytes,
          uint32_t rtt_us)
{
    struct tcp_cc_event ev;

    cc_event_fill(&ev, d, env, c, delivered_bytes);
    ev.rtt_us = rtt_us;
    control_of(c)->on_ack(&c->cc, &ev);
}

/** By a control without a model; used: it was the window that held data back. */
static inline void
grow_by(const struct tcp_cc_ops *ops, struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, bool used,
        uint32_t delivered_bytes, uint32_t rtt_us)
{
    if (used)
        grow_used(d, env, c, delivered_bytes, rtt_us);
    else if (ops->on_unused != NULL)
        ops->on_unused(&c->cc);
}

static inline void
grow(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t delivered_bytes, uint32_t rtt_us)
{
    bool used = c->ca_state == CONN_CA_LOSS || conn_cwnd_is_used(c, flow_of(c));

    if (!control_of(c)->has_model)
        grow_by(control_of(c), d, env, c, used, delivered_bytes, rtt_us);
}

/** A control with a model hears of everything, when everything is known. */
static void
update_model(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n,
             uint32_t delivered_bytes, uint32_t lost_bytes, const struct tcp_rate_sample *sample)
{
    struct tcp_cc_event ev;

    if (!control_of(c)->has_model)
        return;
    cc_event_fill(&ev, d, env, c, delivered_bytes);
    ev.rtt_us = rtt_of(env, n);
    ev.sample = sample;
    ev.bytes_per_s = tcp_rate_bytes_per_s(sample->delivered_bytes, sample->interval_us);
    ev.lost_bytes = lost_bytes;
    ev.lost_mark = lost_bytes > 0 ? tcp_sent_lost_mark(sent_store(d, env->locks), &c->sent) : NULL;
    control_of(c)->on_ack(&c->cc, &ev);
}

static void
ack_while_open(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, struct ack_news *n,
               uint32_t delivered_bytes)
{
    if (try_undo(d, env, c, n) || !loss_is_certain(c)) {
        if (c->ca_state == CONN_CA_CWR) {
            if (seq_gt(c->snd_una, c->recover)) {
                end_reduction(c);
                set_open(c);
            } else if (delivered_bytes > 0) {
                reduce(c, delivered_bytes, false);
            }
            return;
        }
        set_open(c);
        if (n->acked > 0)
            grow(d, env, c, delivered_bytes, rtt_of(env, n));
        return;
    }
    if (enter_recovery(d, env, c))
        reduce(c, delivered_bytes, false);
    else
        n->excused_bytes = c->sent.lost_bytes;
}

/** RFC 6582 section 3.2 step 3: the next segment is missing too, and the duplicates that are left count on. */
static void
partial_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->flags & CONN_F_SACK)
        return;
    lose_head(d, env, c);
}

static void
ack_while_recovering(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n,
                     uint32_t delivered_bytes, bool more_lost)
{
    if (try_undo(d, env, c, n))
        return;
    if (seq_geq(c->snd_una, c->recover)) {
        end_reduction(c);
        leave_recovery(d, env, c);
        if (loss_is_certain(c)) { /* of what was sent since the recovery began */
            if (enter_recovery(d, env, c))
                reduce(c, delivered_bytes, false);
        }
        return;
    }
    if (n->acked > 0)
        partial_ack(d, env, c);
    if (delivered_bytes > 0)
        reduce(c, delivered_bytes, n->acked > 0 && !more_lost);
}

/** RFC 5682: true if the timeout turned out needless, or new data shall find out. */
static bool
forward_rto(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n)
{
    c->flags &= ~CONN_F_FRTO_NEW;
    if ((c->flags & CONN_F_FRTO) == 0)
        return false;
    /* An original arrived that was never sent again. Without SACK a repaired hole looks the same. */
    if (n->sent.orig_below && ((c->flags & CONN_F_SACK) != 0 || !n->sent.retrans)) {
        undo(d, env, c);
        return true;
    }
    if (seq_gt(c->snd_nxt, c->recover)) {
        if (n->sacked_bytes > 0 || n->is_dup)
            c->flags &= ~CONN_F_FRTO; /* step 3a: the loss was real */
        return false;
    }
    bool can_send = seq_gt(c->snd_end, c->snd_nxt) && seq_gt(c->snd_una + c->snd_wnd, c->snd_nxt);
    if (n->acked > 0 && seq_lt(c->snd_una, c->recover) && can_send) {
        c->flags |= CONN_F_FRTO_NEW;
        c->cc.cwnd_bytes = conn_pipe(c) + 2u * c->mss;
        return true;
    }
    if (n->acked > 0 || n->is_dup)
        c->flags &= ~CONN_F_FRTO;
    return false;
}

static void
ack_after_rto(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n,
              uint32_t delivered_bytes)
{
    if (try_undo(d, env, c, n) || forward_rto(d, env, c, n))
        return;
    if (n->acked > 0)
        grow(d, env, c, delivered_bytes, rtt_of(env, n));
    if (seq_geq(c->snd_una, c->recover))
        leave_recovery(d, env, c);
}

/** Count duplicates, where they are what there is to go by. Returns the bytes that this ACK has delivered. */
static uint32_t
count_delivered(struct tcp_conn *c, const struct ack_news *n)
{
    if (c->flags & CONN_F_SACK)
        return n->sent.delivered_bytes;
    if (n->acked > 0) {
        uint32_t segs = (n->acked + c->mss - 1) / c->mss;
        uint32_t counted = segs - 1 < c->dup_acks ? segs - 1 : c->dup_acks;
        c->dup_acks = c->ca_state < CONN_CA_RECOVERY ? 0 : (uint8_t)(c->dup_acks - counted);
        return n->acked - (counted * c->mss < n->acked ? counted * c->mss : n->acked);
    }
    if (!n->is_dup || c->dup_acks == UINT8_MAX)
        return 0;
    c->dup_acks++;
    return c->mss;
}

static void
note_reordering(struct tcp_domain *d, struct tcp_conn *c, const struct ack_news *n)
{
    if (!n->sent.reordered || (c->flags & CONN_F_SACK) == 0)
        return;
    conn_tally(d, c)->reorderings++;
    uint32_t segs = (seq_diff(n->sent.prior_fack, n->sent.reordered_at) + c->mss - 1) / c->mss;
    if (segs > DUP_THRESH_MAX)
        segs = DUP_THRESH_MAX;
    if (segs > c->dup_thresh)
        c->dup_thresh = (uint8_t)segs;
}

/** The ACK's congestion marks (RFC 3168 section 6.1.2; RFC 8257 section 3.3). */
static void
take_marks(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n,
           uint32_t delivered_bytes)
{
    const struct tcp_cc_ops *ops = control_of(c);
    struct tcp_cc_event ev;

    if (ops->on_feedback != NULL && delivered_bytes > 0) {
        cc_event_fill(&ev, d, env, c, delivered_bytes);
        ops->on_feedback(&c->cc, &ev, n->marked_bytes < delivered_bytes ? n->marked_bytes : delivered_bytes);
    }
    if (n->marked && c->ca_state < CONN_CA_CWR) {
        counter_inc(env->ctr, CTR_TCP_ECN_REDUCTIONS);
        begin_reduction(d, env, c, CONN_CA_CWR, true);
        c->flags &= ~CONN_F_UNDO; /* a mark is no guess */
    }
}

/** What came is known: let time, probe or timeout say what will not come. */
static void
rearm(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct ack_news *n, uint32_t wait_us)
{
    if (c->snd_una == c->snd_nxt) {
        if ((c->flags & CONN_F_PERSIST) == 0)
            conn_timer_off(c, CONN_T_RTX);
        return;
    }
    if (wait_us > 0) {
        c->flags = (c->flags & ~CONN_F_PTO) | CONN_F_REO;
        conn_timer_set(d, env, c, CONN_T_RTX, env->now_us + wait_us);
    } else if (n->acked > 0 || n->sacked_bytes > 0 || (c->flags & CONN_F_REO) != 0) {
        conn_arm_rtx(d, env, c);
    }
}

/** Of how many segments they are worth; a division is dear. */
static uint32_t
segs_in(const struct tcp_conn *c, uint32_t bytes)
{
    return bytes <= c->mss ? bytes > 0 : (bytes + c->mss - 1) / c->mss;
}

bool
recovery_is_plain(const struct tcp_conn *c)
{
    const uint32_t odd = CONN_F_FO_CHILD | CONN_F_PERSIST | CONN_F_TLP | CONN_F_REO | CONN_F_PACED;
    const struct tcp_cc_ops *ops = control_of(c);
    uint32_t trouble = ((c->flags ^ CONN_F_SACK) & (odd | CONN_F_SACK)) | c->ca_state | c->ecn |
                       (c->path & (CONN_PATH_PROBE | CONN_PATH_DOUBT)) | c->sent.sacked_bytes | c->sent.lost_bytes;

    /* A reduction may still be there to be undone: only a DSACK could, the echoes of what was sent before it have come. */
    return trouble == 0 && !ops->has_model && ops->on_feedback == NULL;
}
_Static_assert(CONN_CA_OPEN == 0, "any other state is trouble");

void
recovery_on_plain_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t acked,
                      const struct tcp_sent_run *last)
{
    struct tcp_flow *f = flow_of(c);
    uint32_t now_us = (uint32_t)env->now_us;
    struct tcp_rate_sample sample;

    tcp_rack_latest(&c->rack, last->sent_us, c->snd_una, now_us);
    f->delivered_segs += segs_in(c, acked);
    grow_by(control_of(c), d, env, c, conn_cwnd_is_used(c, f), acked, now_us - last->sent_us);
    tcp_rate_on_ack(&f->rate, &last->mark, last->sent_us, acked, c->rtt.min_us, now_us, &sample);
    tcp_sent_ack_once(sent_store(d, env->locks), &c->sent, c->snd_una);
    if (c->snd_una == c->snd_nxt)
        conn_timer_off(c, CONN_T_RTX);
    else
        conn_arm_rtx(d, env, c);
}

void
recovery_on_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, struct ack_news *n)
{
    struct tcp_sent_store st = sent_store(d, env->locks);
    struct tcp_flow *f = flow_of(c);
    struct tcp_rate_sample sample;
    uint32_t wait_us = 0;

    if (n->is_dup)
        counter_inc(env->ctr, CTR_TCP_DUP_ACKS);
    /* The ACK stops where a SACKed range begins: the peer has thrown it away (RFC 2018 section 8). */
    if (c->sent.head != 0 && (st.runs[c->sent.head].flags & TCP_SENT_SACKED) != 0)
        tcp_sent_renege(st, &c->sent);
    tcp_rack_delivered(&c->rack, &n->sent, (uint32_t)env->now_us, c->rtt.min_us);
    if (n->dsack_bytes > 0)
        tcp_rack_dsack(&c->rack, c->snd_una, c->snd_nxt);
    note_reordering(d, c, n);
    judge_probe(d, env, c, n);
    uint32_t delivered_bytes = count_delivered(c, n);
    f->delivered_segs += segs_in(c, delivered_bytes);
    take_marks(d, env, c, n, delivered_bytes);
    uint32_t lost_before = c->sent.lost_bytes;
    if (c->sent.sacked_bytes > 0 || c->ca_state != CONN_CA_OPEN)
        wait_us = detect(d, env, c);
    switch (c->ca_state) {
    case CONN_CA_RECOVERY:
        ack_while_recovering(d, env, c, n, delivered_bytes, c->sent.lost_bytes > lost_before);
        break;
    case CONN_CA_LOSS:
        ack_after_rto(d, env, c, n, delivered_bytes);
        break;
    default:
        ack_while_open(d, env, c, n, delivered_bytes);
        break;
    }
    lost_before += n->excused_bytes;
    uint32_t lost_bytes = c->sent.lost_bytes > lost_before ? c->sent.lost_bytes - lost_before : 0;
    f->rate.lost_bytes += lost_bytes;
    tcp_rate_on_ack(&f->rate, n->sent.has_last ? &n->sent.last_mark : NULL, n->sent.last_us, delivered_bytes,
                    c->rtt.min_us, (uint32_t)env->now_us, &sample);
    update_model(d, env, c, n, delivered_bytes, lost_bytes, &sample);
    if ((c->flags & CONN_F_PACED) != 0)
        conn_pace(d, env, c);
    rearm(d, env, c, n, wait_us);
}

/* ---- timers ---------------------------------------- */

void
recovery_on_reorder_timer(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct ack_news nothing = { .acked = 0 };
    uint32_t lost_before = c->sent.lost_bytes;
    uint32_t wait_us = detect(d, env, c);

    uint32_t lost_bytes = c->sent.lost_bytes - lost_before;
    if (lost_bytes > 0 && (c->ca_state >= CONN_CA_RECOVERY || enter_recovery(d, env, c))) {
        struct tcp_rate_sample none = { .valid = false };
        flow_of(c)->rate.lost_bytes += lost_bytes;
        if (c->ca_state == CONN_CA_RECOVERY)
            reduce(c, c->mss, false);
        update_model(d, env, c, &nothing, 0, lost_bytes, &none);
    }
    c->flags |= CONN_F_REO;
    rearm(d, env, c, &nothing, wait_us);
}

void
recovery_on_rto(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_sent_store st = sent_store(d, env->locks);
    struct tcp_cc_event ev;
    bool fresh = c->ca_state < CONN_CA_RECOVERY;

    counter_inc(env->ctr, CTR_TCP_RTO);
    /* RFC 5681 section 3.1: a segment that times out again leaves ssthresh as it is. */
    if (c->retries == 0) {
        if (c->ca_state < CONN_CA_CWR)
            remember_for_undo(d, env, c);
        cc_event_fill(&ev, d, env, c, 0);
        control_of(c)->on_rto(&c->cc, &ev);
        note_reduction(c);
    } else {
        /* The peer may have thrown away what it SACKed: RFC 2018 section 8 wants everything sent again. */
        tcp_sent_renege(st, &c->sent);
    }
    /* What was sent a moment ago may well be on its way (RFC 8985 section 6.3). */
    bool by_time = (c->flags & CONN_F_SACK) != 0 && c->rack.rtt_us != 0 && c->retries == 0;
    uint32_t lost_before = c->sent.lost_bytes;
    tcp_sent_lose_old(st, &c->sent, by_time ? c->rack.rtt_us + c->rtt.min_us / 4 : 0, (uint32_t)env->now_us);
    flow_of(c)->rate.lost_bytes += c->sent.lost_bytes - lost_before;
    c->dup_acks = 0;
    c->dup_thresh = DUP_THRESH_MIN;
    c->flags &= ~(CONN_F_TLP | CONN_F_TLP_AGAIN | CONN_F_FRTO | CONN_F_FRTO_NEW);
    if (fresh || c->retries > 0)
        c->flags |= CONN_F_FRTO;
    c->ca_state = CONN_CA_LOSS;
    c->recover = c->snd_nxt;
    c->cc.cwnd_bytes = conn_pipe(c) + c->mss;
}

void
recovery_on_too_big(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq end)
{
    tcp_sent_lose_below(sent_store(d, env->locks), &c->sent, end);
    c->ca_state = CONN_CA_LOSS;
    c->recover = c->snd_nxt;
    c->dup_acks = 0;
    c->flags &= ~(CONN_F_UNDO | CONN_F_FRTO | CONN_F_FRTO_NEW);
}
