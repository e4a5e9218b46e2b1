/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "tcp/fastopen.h"
#include "tcp/isn.h"
#include "tcp/rx.h"

/**
 * @file
 * The receive path: RFC 9293 section 3.10.7 as a list of steps, each of which may end the processing.
 */

/** Segments that a connection may hold out of order for each byte of its buffer: a flood of small ones must not pin
 *  a packet buffer each. */
#define REASS_BYTES_PER_SEG 512
#define REASS_SEGS_MIN 64

/** After this long without a word a timestamp proves nothing (RFC 7323 section 5.5; ticks wrap after three days). */
#define PAWS_IDLE_US (24ull * 3600 * 1000000)

void
rx_end(struct rx *r, int err)
{
    conn_end(r->d, r->env, r->c, err);
    r->c = NULL;
}

void
rx_answer(struct rx *r, bool limited)
{
    if (!limited || challenge_allowed(r->d, r->env, &r->c->challenge_tick))
        conn_send_ack(r->d, r->env, r->c, &r->dsack);
}

void
conn_deliver(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, struct tcp_data data)
{
    (void)d;
    counter_add(env->ctr, CTR_TCP_RX_BYTES, data.len);
    env->sink->deliver(env->sink->ctx, c->user, data);
}

/* ---- step 1: sequence ---------------------------------------- */

/** RFC 7323 section 5.3: true if the segment is older than what has been seen. */
static bool
rx_paws(struct rx *r)
{
    const struct tcp_options *o = &r->in->opts;
    struct tcp_conn *c = r->c;

    if ((c->flags & CONN_F_TS) == 0 || (r->in->flags & TCP_FLAG_RST) != 0)
        return true;
    if (!o->has_ts && !r->d->params.ts_required)
        return true;
    if (!o->has_ts) {
        counter_inc(r->env->ctr, CTR_TCP_DROP_PAWS); /* section 3.2: agreed, so its absence is no peer's doing */
        return false;
    }
    if ((int32_t)(o->ts_val - c->ts_recent) >= 0 || us_since_tick(r->env->now_us, c->ts_recent_tick) > PAWS_IDLE_US)
        return true;
    counter_inc(r->env->ctr, CTR_TCP_DROP_PAWS);
    rx_answer(r, r->data.len == 0);
    return false;
}

/** Cut off what was received before. What is left empty goes on as a bare ACK. */
static void
rx_trim_front(struct rx *r)
{
    struct tcp_conn *c = r->c;

    if (!seq_lt(r->seq, c->rcv_nxt))
        return;
    uint32_t skip = seq_diff(c->rcv_nxt, r->seq);
    if (skip < r->data.len || (skip == r->data.len && r->fin)) {
        r->dsack = (struct tcp_sack_block){ r->seq, c->rcv_nxt };
        c->flags |=
            CONN_F_ACK_NOW; /* what it repeats may be a retransmission for nothing, and is told in this ACK or never */
        r->seq += skip;
        r->data.off += skip;
        r->data.len -= skip;
        return;
    }
    /* Nothing new: our ACK may have been lost, so it is due again. */
    if (r->data.len > 0)
        r->dsack = (struct tcp_sack_block){ r->seq, r->seq + r->data.len };
    if (r->data.len > 0 || r->fin)
        c->flags |= CONN_F_ACK_NOW;
    counter_inc(r->env->ctr, CTR_TCP_DUP_SEGS);
    r->seq = c->rcv_nxt;
    r->data.len = 0;
    r->fin = false;
}

/** Cut off what lies beyond the window, which the peer may fill but not overrun (RFC 9293 section 3.10.7.4). */
static void
rx_trim_back(struct rx *r)
{
    struct tcp_conn *c = r->c;
    uint32_t room = seq_diff(c->rcv_adv, r->seq);

    if (r->data.len + r->fin <= room || (r->data.len <= room && r->fin && room > 0))
        return;
    if (r->seq == c->rcv_nxt && c->rcv_used == 0 && c->reass == 0 && room > 0) {
        /* Nothing is held, and this is one segment: a peer that takes no notice of small windows would for ever be cut short. */
        c->rcv_adv = r->seq + r->data.len;
        return;
    }
    if (r->data.len > 0)
        counter_inc(r->env->ctr, CTR_TCP_DROP_SEQUENCE);
    c->flags |= CONN_F_ACK_NOW;
    if (r->data.len > room)
        r->data.len = room;
    /* A FIN may follow the last byte of a full window: it takes no buffer. */
    r->fin = r->fin && r->data.len == r->in->data.len && room == 0 && r->seq == c->rcv_nxt;
}

/**
 * A retransmission whose original was acknowledged in vain: echo the copy's timestamp, or the sender would take the time that it waited
 * for a round-trip time. ts_recent stays as it is (RFC 7323 section 5.3, R2 before R3): what was sent before the copy and comes after it is no
 * old duplicate.
 */
static void
rx_answer_copy(struct rx *r)
{
    uint32_t recent = r->c->ts_recent, tick = r->c->ts_recent_tick;

    take_timestamp(r->env, r->c, r->in);
    if (r->d->burst.conn != 0)
        burst_goes_on(r->d, r->c, &r->dsack);
    if (!burst_waits(r->d, r->env, r->c, r->in, r->dsack))
        rx_answer(r, false);
    r->c->ts_recent = recent;
    r->c->ts_recent_tick = tick;
}

/**
 * RFC 9293 section 3.10.7.4, first: acceptable if it overlaps the window. A bare ACK is taken from rcv_acked on and up
 * to the window's edge, else reordered ACKs and those of a peer that has filled our window would be lost.
 */
static bool
rx_sequence(struct rx *r)
{
    struct tcp_conn *c = r->c;
    tcp_seq end = r->seq + r->data.len + r->fin;

    bool below = end == r->seq ? seq_lt(r->seq, c->rcv_acked) : seq_leq(end, c->rcv_acked);
    bool beyond = seq_gt(r->seq, c->rcv_adv);
    if (below || beyond) {
        counter_inc(r->env->ctr, beyond ? CTR_TCP_DROP_SEQUENCE : CTR_TCP_DUP_SEGS);
        if (r->in->flags & TCP_FLAG_RST) {
            counter_inc(r->env->ctr, CTR_TCP_DROP_RST);
            return false;
        }
        if (below && r->data.len > 0)
            r->dsack = (struct tcp_sack_block){ r->seq, r->seq + r->data.len };
        if (below && (c->ecn & CONN_ECN_ACC) != 0)
            ecn_on_old_segment(r->d, c, r->in);
        if (below && end != r->seq && seq_geq(end, c->rcv_acked - c->rcv_buf))
            rx_answer_copy(r);
        else
            rx_answer(r, r->data.len == 0 && !r->fin);
        return false;
    }
    rx_trim_front(r);
    rx_trim_back(r);
    return true;
}

/* ---- step 2: RST ---------------------------------------- */

static int
reset_errno(const struct tcp_conn *c)
{
    switch (c->state) {
    case TCP_ST_SYN_RECEIVED:
        return c->flags & CONN_F_FO_CHILD ? ECONNRESET : ECONNREFUSED;
    case TCP_ST_CLOSE_WAIT:
        return EPIPE; /* as Linux: the peer had finished, so only sending can fail */
    case TCP_ST_CLOSING:
    case TCP_ST_LAST_ACK:
        return 0; /* both sides were done */
    default:
        return ECONNRESET;
    }
}

/** RFC 5961 section 3.2: only the exact sequence number resets; any other within the window is challenged. */
static bool
rx_rst(struct rx *r)
{
    if ((r->in->flags & TCP_FLAG_RST) == 0)
        return true;
    if (r->in->seq == r->c->rcv_nxt) {
        counter_inc(r->env->ctr, CTR_TCP_RST_RX);
        rx_end(r, reset_errno(r->c));
    } else {
        counter_inc(r->env->ctr, CTR_TCP_DROP_RST);
        rx_answer(r, true);
    }
    return false;
}

/* ---- step 3: SYN ---------------------------------------- */

/** RFC 5961 section 4.2: a SYN on a living connection is challenged, whatever its sequence number. */
static bool
rx_syn(struct rx *r)
{
    if ((r->in->flags & TCP_FLAG_SYN) == 0)
        return true;
    counter_inc(r->env->ctr, CTR_TCP_DROP_FLAGS);
    rx_answer(r, true);
    return false;
}

/* ---- step 5: data ---------------------------------------- */

static uint32_t
reass_max_segs(const struct tcp_conn *c)
{
    uint32_t n = c->rcv_buf / REASS_BYTES_PER_SEG;

    return n > REASS_SEGS_MIN ? n : REASS_SEGS_MIN;
}

/** RFC 2883 section 4.2: what the segment brings a second time is told, though the rest of it is new. */
static void
rx_note_held(struct rx *r)
{
    if (r->c->reass != 0 && r->dsack.start == r->dsack.end)
        r->dsack =
            tcp_reass_held(reass_store(r->d, r->env->locks), reass_at(r->d, r->c->reass), r->seq, r->seq + r->data.len);
}

/** Keep the payload in the queue; false if there is no room. */
static bool
rx_keep(struct rx *r)
{
    struct tcp_reass *q = conn_reass(r->d, r->env, r->c, true);
    enum tcp_reass_result res = TCP_REASS_FULL;

    rx_note_held(r);
    if (q != NULL && !r->env->mem_pressure)
        res =
            tcp_reass_insert(reass_store(r->d, r->env->locks), q, r->seq, r->data, reass_max_segs(r->c), r->env->sink);
    if (res == TCP_REASS_FULL) {
        counter_inc(r->env->ctr, CTR_TCP_DROP_RCVBUF);
        conn_reass_drop_if_empty(r->d, r->env, r->c);
        return false;
    }
    r->taken = res == TCP_REASS_KEPT;
    if (res == TCP_REASS_DUP)
        counter_inc(r->env->ctr, CTR_TCP_DUP_SEGS);
    return true;
}

/** rcv_nxt moves over n bytes that are delivered or held. */
static inline void
advance_rcv(const struct tcp_env *env, struct tcp_conn *c, uint32_t n)
{
    c->rcv_nxt += n;
    c->rcv_used += n;
    c->bytes_received += n;
    tcp_tune_arrived(&flow_of(c)->tune, c->rcv_nxt, seq_diff(c->rcv_adv, c->rcv_nxt), (uint32_t)env->now_us);
}

/** What was expected goes to the user. */
static inline void
take_in_order(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, struct tcp_data data)
{
    advance_rcv(env, c, data.len);
    conn_deliver(d, env, c, data);
}

/** Hand over what the queue holds in order. */
static void
rx_drain(struct rx *r)
{
    struct tcp_conn *c = r->c;
    struct tcp_reass *q = conn_reass(r->d, r->env, c, false);
    struct tcp_data data;

    if (q == NULL)
        return;
    if (c->flags & CONN_F_PENDING) {
        advance_rcv(r->env, c, seq_diff(tcp_reass_run(reass_store(r->d, r->env->locks), q, c->rcv_nxt), c->rcv_nxt));
    } else {
        while (tcp_reass_pop(reass_store(r->d, r->env->locks), q, c->rcv_nxt, &data)) {
            if (data.len == 0) {
                r->env->sink->release(r->env->sink->ctx, data.buf);
                continue;
            }
            take_in_order(r->d, r->env, c, data);
        }
    }
    tcp_reass_sack_advance(q, c->rcv_nxt);
    if (q->has_fin && q->fin_seq == c->rcv_nxt) {
        q->has_fin = false;
        r->fin = true;
    }
    c->flags |= CONN_F_ACK_NOW; /* a gap is filled, in whole or in part (RFC 5681 section 4.2) */
    conn_reass_drop_if_empty(r->d, r->env, c);
}

/**
 * RFC 9293 section 3.8.6.3: at the latest every second full segment, or after delack_us. Segments that came in one burst share an acknowledgement, as if they
 * had come as one: the sender's next burst would wait for the last of them in any case, and half as many frames as data would go back.
 */
static inline __attribute__((always_inline)) void
schedule_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, bool more, uint32_t len)
{
    bool is_quick = c->quick_acks > 0 || (c->flags & CONN_F_QUICKACK) != 0;

    if (len > c->rcv_mss)
        c->rcv_mss = len < c->mss_port ? (uint16_t)len : c->mss_port;
    if (c->quick_acks > 0)
        c->quick_acks--;
    if (!more && seq_diff(c->rcv_nxt, c->rcv_acked) >= 2u * c->rcv_mss) {
        c->flags |= CONN_F_ACK_NOW;
    } else if (!more && is_quick) {
        conn_ack_soon(d, env, c);
    } else if (c->timer_at[CONN_T_DELACK] == 0) {
        conn_timer_set(d, env, c, CONN_T_DELACK, env->now_us + d->params.delack_us);
    }
}

/** Neither memory, nor an accept, nor a gap stands between what was expected and its user: of rx_in_order take_in_order and schedule_ack are left. */
static inline bool
may_take(const struct tcp_env *env, const struct tcp_conn *c)
{
    return !env->mem_exhausted && !env->mem_pressure && (c->flags & CONN_F_PENDING) == 0 && c->reass == 0;
}

static bool
rx_in_order(struct rx *r)
{
    struct tcp_conn *c = r->c;
    uint32_t len = r->data.len;
    bool holds = c->rcv_used > 0 || c->reass != 0;

    if (r->env->mem_exhausted || (r->env->mem_pressure && holds)) {
        counter_inc(r->env->ctr, CTR_TCP_DROP_RCVBUF);
        c->flags |= CONN_F_ACK_NOW;
        return false;
    }
    if (c->flags & CONN_F_PENDING) {
        if (!rx_keep(r)) {
            c->flags |= CONN_F_ACK_NOW;
            return false;
        }
    } else {
        rx_note_held(r);
        r->taken = true;
        take_in_order(r->d, r->env, c, r->data);
    }
    bool had_gap = c->reass != 0 && reass_at(r->d, c->reass)->nb_sack > 0;
    if (c->reass != 0) {
        bool ack_now = (c->flags & CONN_F_ACK_NOW) != 0;
        rx_drain(r);
        if (!had_gap && !ack_now)
            c->flags &= ~CONN_F_ACK_NOW; /* merely held for an accept */
    }
    schedule_ack(r->d, r->env, c, r->in->more, len);
    return true;
}

/** What came lies beyond a gap: the receive buffer makes room for what comes while that is repaired, once it has a reader. */
static void
rx_make_room(struct rx *r)
{
    struct tcp_conn *c = r->c;

    if ((c->flags & (CONN_F_RCVBUF_FIXED | CONN_F_PENDING)) == 0 && !r->env->mem_pressure)
        c->rcv_buf = tcp_tune_gap(&flow_of(c)->tune, seq_diff(r->seq + r->data.len, c->rcv_nxt), c->mss, c->rcv_buf,
                                  r->d->params.rcv_buf_max_bytes);
}

static bool
rx_data(struct rx *r)
{
    const uint32_t states = 1u << TCP_ST_ESTABLISHED | 1u << TCP_ST_FIN_WAIT_1 | 1u << TCP_ST_FIN_WAIT_2;
    struct tcp_conn *c = r->c;

    if (r->data.len == 0)
        return true;
    bool child = c->state == TCP_ST_SYN_RECEIVED && (c->flags & CONN_F_FO_CHILD) != 0;
    if ((states >> c->state & 1) == 0 && !child)
        return true; /* after its FIN a peer has nothing to say (section 3.10.7.4, seventh) */
    if (c->flags & CONN_F_ORPHAN) {
        /* RFC 2525 section 2.17: nobody will read this, and the peer must learn it. What it acknowledges is what it expects
         * next, so that a reset from there passes its check (RFC 5961 section 3.2). */
        counter_inc(r->env->ctr, CTR_TCP_DROP_AFTER_CLOSE);
        reply_rst(r->env, r->in);
        rx_end(r, ECONNABORTED);
        return false;
    }
    if (r->seq == c->rcv_nxt)
        return rx_in_order(r);

    c->flags |= CONN_F_ACK_NOW;
    if (!rx_keep(r))
        return false;
    /* What was held already is the first block too, behind the one that tells so (RFC 2883 section 4). */
    tcp_reass_sack_note(reass_at(r->d, c->reass), r->seq, r->seq + r->data.len);
    if (r->taken) {
        counter_inc(r->env->ctr, CTR_TCP_OOO_SEGS);
        conn_tally(r->d, c)->ooo_segs++;
        rx_make_room(r);
    }
    return true;
}

/* ---- step 6: FIN ---------------------------------------- */

/** A FIN behind a gap is remembered; false if this one is. */
static bool
rx_fin_is_next(struct rx *r)
{
    struct tcp_conn *c = r->c;
    tcp_seq at = r->seq + r->data.len;

    if (c->flags & CONN_F_FIN_RCVD)
        return false;
    /* Draining the queue has moved rcv_nxt to the FIN, be it this segment's or one that was remembered. */
    if (!seq_gt(at, c->rcv_nxt))
        return true;
    struct tcp_reass *q = conn_reass(r->d, r->env, c, true);
    if (q != NULL) {
        q->has_fin = true;
        q->fin_seq = at;
    }
    c->flags |= CONN_F_ACK_NOW;
    return false;
}

/**
 * Whether our ACK of the peer's FIN may wait for delack_us: who has been asked and answered mostly closes at once too, and our FIN carries it
 * then. Not where it is all that the peer waits for: data, a gap or a duplicate before it, or no word said but the SYN's.
 */
static bool
rx_fin_ack_may_wait(const struct rx *r)
{
    const struct tcp_conn *c = r->c;

    return c->state == TCP_ST_ESTABLISHED && c->bytes_received > 0 &&
           (c->flags & (CONN_F_ACK_NOW | CONN_F_SYN_DATA)) == 0 && c->rcv_nxt == c->rcv_acked + 1 &&
           r->dsack.start == r->dsack.end;
}

static void
rx_fin(struct rx *r)
{
    struct tcp_conn *c = r->c;

    if (!r->fin || !rx_fin_is_next(r))
        return;
    c->rcv_nxt++;
    if (seq_lt(c->rcv_adv, c->rcv_nxt))
        c->rcv_adv = c->rcv_nxt;
    if (rx_fin_ack_may_wait(r))
        conn_timer_set(r->d, r->env, c, CONN_T_DELACK, r->env->now_us + r->d->params.delack_us);
    else
        conn_ack_soon(r->d, r->env, c);
    /* Who has sent everything learns nothing from a duplicate: what it would undo is the window for more. As in Linux. */
    r->dsack = (struct tcp_sack_block){ 0 };
    c->flags |= CONN_F_FIN_RCVD;
    if ((c->flags & CONN_F_PENDING) == 0)
        conn_event(r->env, c, TCP_EVENT_FIN, 0);
    switch (c->state) {
    case TCP_ST_SYN_RECEIVED:
    case TCP_ST_ESTABLISHED:
        conn_set_state(r->env, c, TCP_ST_CLOSE_WAIT);
        break;
    case TCP_ST_FIN_WAIT_1:
        conn_set_state(r->env, c, TCP_ST_CLOSING);
        break;
    case TCP_ST_FIN_WAIT_2:
        conn_send_ack(r->d, r->env, c, &r->dsack);
        conn_time_wait(r->d, r->env, c);
        r->c = NULL;
        break;
    default:
        break;
    }
}

/* ---- SYN-SENT ---------------------------------------- */

static void
syn_sent_options(struct tcp_conn *c, const struct tcp_options *o, uint64_t now_us)
{
    c->mss_peer = o->has_mss ? o->mss : 536;
    if (c->mss_peer < TCP_MSS_FLOOR)
        c->mss_peer = TCP_MSS_FLOOR;
    if (!o->has_wscale) {
        c->flags &= ~CONN_F_WSCALE;
        c->rcv_wscale = 0;
    }
    c->snd_wscale = c->flags & CONN_F_WSCALE ? o->wscale : 0;
    if (!o->sack_permitted)
        c->flags &= ~CONN_F_SACK;
    if (!o->has_ts)
        c->flags &= ~CONN_F_TS;
    c->ts_recent = o->ts_val;
    c->ts_recent_tick = tick_of(now_us);
}

bool
conn_take_syn_data(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in,
                   bool *taken)
{
    struct rx r = { .d = d, .env = env, .c = c, .in = in, .seq = in->seq + 1, .data = in->data };

    r.fin = (in->flags & TCP_FLAG_FIN) != 0;
    if (in->data.len > 0 || r.fin) {
        rx_trim_back(&r);
        if (rx_data(&r))
            rx_fin(&r);
    }
    *taken = r.taken;
    return r.c != NULL;
}

/** What the SYN-ACK tells for the next time (RFC 7413 section 4.1.3). */
static void
syn_sent_learn(struct rx *r)
{
    const struct tcp_conn *c = r->c;
    const struct tcp_options *o = &r->in->opts;
    bool has_cookie = o->has_fo && o->fo.len > 0;
    bool asked = (c->flags & CONN_F_FO_DATA) == 0;
    uint8_t exp_try = 0;

    if ((c->flags & CONN_F_FO_TRIED) == 0)
        return;
    const struct tcp_fo_entry *e = fastopen_entry(r->d, &c->link.tuple);
    /* It was asked for and did not come: the other option's turn, then nobody's. */
    if (c->retries == 0 && asked && !o->has_fo)
        exp_try = e != NULL && e->exp_try == 1 ? 2 : 1;
    bool syn_lost = c->retries > 0 && !asked && !has_cookie && r->in->ack == c->iss + 1;
    bool solicited = asked || (e != NULL && e->cookie.len > 0);
    fastopen_learn(r->d, &c->link.tuple, c->mss_peer, solicited ? o : NULL, exp_try, syn_lost);
}

/** The SYN-ACK: our open is done. */
static void
syn_sent_complete(struct rx *r)
{
    struct tcp_conn *c = r->c;

    if (c->flags & CONN_F_TIMING)
        tcp_rtt_sample(&c->rtt, (uint32_t)r->env->now_us - c->syn_at_us, r->d->params.rto_min_us,
                       r->d->params.rto_max_us);
    c->flags &= ~CONN_F_TIMING;
    syn_sent_learn(r);
    tcp_seq syn_end = c->snd_nxt;
    active_syn_acked(r);
    conn_established(r->d, r->env, c);
    /* Data that waited for this answers it: a dialogue, in which data carries the acknowledgements. */
    if (seq_gt(c->snd_end, syn_end))
        c->quick_acks = 0;
    conn_ack_soon(r->d, r->env, c);
    conn_event(r->env, c, TCP_EVENT_CONNECTED, 0);
    if (c->ecn & CONN_ECN_ACC)
        ecn_answer_syn_ack(r->d, r->env, c);
    if (!conn_take_syn_data(r->d, r->env, c, r->in, &r->taken))
        return;
    conn_resend_syn_data(r->d, r->env, c, syn_end);
    conn_output(r->d, r->env, c);
}

/** An echo of no timestamp that our SYNs can have had: an old SYN-ACK, or a forged one (RFC 7323 section 3.2). */
static bool
syn_sent_echo_is_bad(const struct rx *r)
{
    const struct tcp_conn *c = r->c;
    const struct tcp_options *o = &r->in->opts;

    if ((c->flags & CONN_F_TS) == 0 || !o->has_ts || o->ts_ecr == 0)
        return false;
    uint32_t age_ms = tcp_ts_clock(r->env->now_us, c->ts_offset) - o->ts_ecr;
    uint32_t first_ms = ((uint32_t)r->env->now_us - c->syn_at_us) / 1000 + 1;
    return age_ms > first_ms;
}

/** RFC 9293 section 3.10.7.3. */
static void
syn_sent_input(struct rx *r)
{
    struct tcp_conn *c = r->c;
    const struct tcp_in *in = r->in;
    bool has_ack = (in->flags & TCP_FLAG_ACK) != 0;

    if (has_ack && (!ack_covers_syn(c, in->ack) || syn_sent_echo_is_bad(r))) {
        counter_inc(r->env->ctr, CTR_TCP_DROP_ACK);
        reply_rst(r->env, in);
        return;
    }
    if (in->flags & TCP_FLAG_RST) {
        counter_inc(r->env->ctr, has_ack ? CTR_TCP_RST_RX : CTR_TCP_DROP_RST);
        if (has_ack)
            rx_end(r, ECONNREFUSED);
        return;
    }
    if ((in->flags & TCP_FLAG_SYN) == 0) {
        counter_inc(r->env->ctr, CTR_TCP_DROP_FLAGS);
        return;
    }
    c->irs = in->seq;
    c->rcv_nxt = c->rcv_acked = in->seq + 1;
    c->rcv_adv = c->rcv_nxt + conn_syn_window(c);
    c->snd_wnd = c->snd_wnd_max = in->window;
    c->snd_wl1 = in->seq;
    c->snd_wl2 = in->ack;
    syn_sent_options(c, &in->opts, r->env->now_us);
    if (c->ecn != 0)
        ecn_take_syn(r->d, c, in);
    if (has_ack) {
        syn_sent_complete(r);
        return;
    }
    conn_set_state(r->env, c, TCP_ST_SYN_RECEIVED);
    conn_send_syn(r->d, r->env, c);
}

/* ---- all of it ---------------------------------------- */

/**
 * Header prediction: the segment that is expected passes the checks of steps 1 to 3 by construction. It only skips
 * them; what it does is done by the same steps. There is room behind it: the steps answer at once to a FIN at a shut window.
 */
static inline bool
is_expected(const struct tcp_conn *c, const struct tcp_in *in)
{
    const uint16_t any = TCP_FLAG_PSH | TCP_FLAG_FIN | TCP_FLAGS_ECN;

    return c->state == TCP_ST_ESTABLISHED && (in->flags & ~any) == TCP_FLAG_ACK && in->seq == c->rcv_nxt &&
           in->data.len < seq_diff(c->rcv_adv, c->rcv_nxt) &&
           (!(c->flags & CONN_F_TS) || (in->opts.has_ts && (int32_t)(in->opts.ts_val - c->ts_recent) >= 0));
}

/** Simultaneous open (RFC 9293 figure 8): the peer's SYN-ACK repeats the SYN that we have; the rest is news. */
static void
rx_strip_known_syn(struct rx *r, struct tcp_in *copy)
{
    const uint8_t syn_ack = TCP_FLAG_SYN | TCP_FLAG_ACK;

    if (r->c->state != TCP_ST_SYN_RECEIVED || (r->in->flags & (syn_ack | TCP_FLAG_RST)) != syn_ack ||
        r->in->seq != r->c->irs)
        return;
    *copy = *r->in;
    if (r->c->ecn & CONN_ECN_ACC) {
        ecn_on_syn_ack(r->d, r->c, r->in);
        r->c->flags |= CONN_F_ACK_NOW; /* without SACK blocks (RFC 9768 section 3.2.2.1) */
    } else {
        r->dsack = (struct tcp_sack_block){ r->in->seq, r->in->seq + 1 };
    }
    copy->flags &= (uint16_t)~TCP_FLAG_SYN;
    copy->seq++;
    copy->window = (uint16_t)(copy->window >> r->c->snd_wscale); /* a SYN's window is not scaled */
    r->in = copy;
    r->seq++;
}

static void
rx_run(struct rx *r)
{
    if (!is_expected(r->c, r->in) && (!rx_paws(r) || !rx_sequence(r) || !rx_rst(r) || !rx_syn(r)))
        return;
    if (r->c->ecn != 0)
        ecn_on_segment(r->d, r->env, r->c, r->in);
    if (rx_ack(r) && rx_fin_acked(r) && rx_data(r))
        rx_fin(r);
}

/** Before the handshake is complete on both sides; true if that was all. */
static bool
rx_handshake(struct rx *r, struct tcp_in *copy)
{
    struct tcp_conn *c = r->c;
    const struct tcp_in *in = r->in;

    if (c->state == TCP_ST_SYN_SENT) {
        syn_sent_input(r);
        return true;
    }
    if ((c->state == TCP_ST_SYN_RECEIVED || (c->flags & CONN_F_FO_CHILD) != 0) &&
        (in->flags & (TCP_FLAG_SYN | TCP_FLAG_ACK | TCP_FLAG_RST)) == TCP_FLAG_SYN && in->seq == c->irs) {
        if (c->ecn & CONN_ECN_ACC)
            ecn_on_syn_again(r->d, c, in);
        conn_send_syn(r->d, r->env, c); /* its SYN again: our answer was lost */
        return true;
    }
    rx_strip_known_syn(r, copy);
    return false;
}

/** An answer is due, or what a burst owes is to be looked at. */
static __attribute__((noinline)) void
answer_now(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in,
           struct tcp_sack_block dsack)
{
    if (d->burst.conn != 0) /* never where other threads are in the domain */
        burst_goes_on(d, c, &dsack);
    if ((c->flags & CONN_F_ACK_NOW) != 0 && burst_waits(d, env, c, in, dsack))
        return;
    /* What the SACK option has to say goes on a segment of its own: data segments leave it out, so that each can be full. */
    if ((c->flags & CONN_F_ACK_NOW) != 0 && (c->reass != 0 || dsack.start != dsack.end))
        conn_send_ack(d, env, c, &dsack);
    if (!in->more || (c->flags & CONN_F_ACK_NOW) != 0)
        conn_output(d, env, c);
}

/** The last step: what the segment calls for, and what it lets go. */
static inline void
answer(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in,
       struct tcp_sack_block dsack)
{
    if (d->burst.conn != 0 || (c->flags & CONN_F_ACK_NOW) != 0)
        answer_now(d, env, c, in, dsack);
    else if (!in->more)
        conn_output(d, env, c);
}

/** All steps, for what is not plain. acked: the first four are done, by ack_plain. */
static __attribute__((noinline)) void
input_steps(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in, bool acked)
{
    struct tcp_in copy;
    struct rx r = { .d = d, .env = env, .c = c, .in = in, .seq = in->seq, .data = in->data };
    bool over = false;

    r.fin = (in->flags & TCP_FLAG_FIN) != 0;
    if (c->state != TCP_ST_ESTABLISHED || (c->flags & CONN_F_FO_CHILD) != 0)
        over = rx_handshake(&r, &copy);
    if (acked) {
        if (r.data.len == 0 || rx_in_order(&r))
            rx_fin(&r); /* its own, or one that came before and waited behind a gap */
    } else if (!over) {
        rx_run(&r);
    }
    if (!over && r.c != NULL) /* with its slot went what its burst owed */
        answer(d, env, c, in, r.dsack);
    if (!r.taken)
        env->sink->release(env->sink->ctx, in->data.buf);
}

/* What nearly every segment is goes by with all that it needs in registers; each way ends with its last call. */
void
conn_input(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in)
{
    uint32_t len = in->data.len;

    c->segs_in++;
    c->last_rcv_tick = tick_of(env->now_us);
    if (len > 0) {
        c->data_segs_in++;
        c->last_data_tick = c->last_rcv_tick;
    }
    c->keep_probes = 0;
    bool acked = is_expected(c, in) && ack_plain(d, env, c, in);
    if (!acked || (in->flags & TCP_FLAG_FIN) != 0 || (len > 0 && !may_take(env, c))) {
        input_steps(d, env, c, in, acked);
        return;
    }
    if (len > 0) {
        take_in_order(d, env, c, in->data);
        schedule_ack(d, env, c, in->more, len);
    } else {
        env->sink->release(env->sink->ctx, in->data.buf);
    }
    answer(d, env, c, in, (struct tcp_sack_block){ 0 });
}
