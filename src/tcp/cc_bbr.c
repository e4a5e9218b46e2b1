/* SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>

#include "tcp/cc.h"

/**
 * @file
 * BBR version 3 (draft-ietf-ccwg-bbr): a model of the path, its bandwidth and its least round-trip time, from which pacing rate
 * and window follow; loss bounds the model where it tells of a queue that overflows. Section names are the draft's.
 *
 * Rates are bytes per second, gains are in 1/256, instants in microseconds. What is random there (when to probe next) is drawn from the
 * sequence number, since the engine has no other chance. What differs from the draft: the short-term bounds, like the long-term
 * one, follow only a round that lost more than LossThresh, and by more than chance explains: else random loss below that would take
 * a tenth of the rate; and where the path loses while the flow cruises, with no queue of its own making, LossThresh is counted from
 * there. Congestion marks, which the draft leaves open, bound the model as such a round does. Startup ends for flows too whose
 * buffer is smaller than the window that it wants. The margin by which it is paced below its estimate shrinks by what the path loses of itself; a
 * handshake that took longer than the first round trip does not slow the start. A round-trip time that comes back to the least one known makes PROBE_RTT needless.
 */

#define GAIN_ONE 256u
#define GAIN_STARTUP 709u /* 2.77 */
#define GAIN_DRAIN 128u /* 0.5 */
#define GAIN_DOWN 230u /* 0.9 */
#define GAIN_UP 320u /* 1.25 */
#define GAIN_CWND 512u /* 2 */
#define GAIN_CWND_UP 576u /* 2.25 */
#define GAIN_CWND_PROBE_RTT 128u /* 0.5 */

#define MARGIN_PPM 10000u /* by which it is paced below its estimate, so that queues drain */
#define LOSS_THRESH_PPM 20000u
#define CALM_LOSS_MAX_PPM 30000u /* of what is lost while the flow cruises, so much at most is not its doing */
#define CALM_SEGS_MIN 200u /* fewer tell nothing of a share */
#define CALM_BYTES_MAX (1u << 30)
#define CHANCE_SIGMAS 2u /* deviations of what LossThresh loses by chance */
#define BETA_PERCENT 70u
#define HEADROOM_PERCENT 15u
#define FULL_BW_ROUNDS 3
#define FULL_LOSS_EVENTS 6
#define MIN_RTT_FILTER_US 10000000u
#define SAME_RTT_SHIFT 5 /* round-trip times that differ by a 32nd tell of the same delay */
#define PROBE_RTT_INTERVAL_US 5000000u
#define PROBE_RTT_US 200000u
#define PROBE_WAIT_US 2000000u /* and up to a second more */
#define RENO_ROUNDS_MAX 63
#define EXTRA_ACKED_ROUNDS 5 /* two such spans make the draft's ten */
#define UNBOUNDED UINT32_MAX

enum bbr_state { STARTUP, DRAIN, PROBE_DOWN, PROBE_CRUISE, PROBE_REFILL, PROBE_UP, PROBE_RTT };
enum bbr_acks { ACKS_INIT, ACKS_REFILLING, ACKS_STARTING, ACKS_FEEDBACK, ACKS_STOPPING };

struct bbr {
    uint64_t pacing_rate;
    uint64_t max_bw[2]; /**< of the last cycle of probing and of the present one */
    uint64_t bw_lo; /**< short-term bound; UINT64_MAX = none */
    uint64_t bw_latest; /**< largest sample in this round of loss */
    uint64_t full_bw; /**< what growth is measured against */
    uint64_t min_rtt_at_us, probe_rtt_min_at_us;
    uint64_t probe_rtt_done_us; /**< 0 = the window has not come down yet */
    uint64_t cycle_at_us;
    uint64_t extra_from_us; /**< aggregation is measured since */
    uint64_t undo_bw_lo;
    uint32_t min_rtt_us, probe_rtt_min_us; /**< UINT32_MAX = none */
    uint32_t inflight_hi, inflight_lo; /**< long-term and short-term bound */
    uint32_t inflight_latest;
    uint32_t undo_hi, undo_lo;
    uint32_t next_round, loss_round; /**< delivered counts that end the present rounds */
    uint32_t prior_cwnd;
    uint32_t extra_acked[2], extra_delivered;
    uint32_t probe_wait_us;
    uint32_t up_bytes_per_mss; /**< acknowledged bytes for each segment by which inflight_hi grows */
    uint32_t up_acked_bytes;
    uint32_t round_rtt_us; /**< least in this round */
    uint32_t calm_bytes, calm_lost_bytes; /**< delivered and lost while it cruised with an empty queue */
    uint8_t state, acks;
    uint8_t rounds_since_probe;
    uint8_t up_rounds;
    uint8_t extra_rounds;
    uint8_t full_bw_count;
    uint8_t loss_events; /**< in this round of loss */
    bool full_bw_now, full_bw_reached;
    bool round_start, loss_round_start;
    bool loss_in_round, marked_in_round;
    bool probe_rtt_expired, probe_rtt_round_done;
    bool probe_samples; /**< what is sent now tests inflight_hi */
    bool idle_restart;
};
_Static_assert(sizeof(struct bbr) <= TCP_CC_MODEL_BYTES, "the model has its place");

static struct bbr *
bbr_of(const struct tcp_cc_event *ev)
{
    return ev->model;
}

static uint32_t
percent(uint32_t x, uint32_t p)
{
    return (uint32_t)((uint64_t)x * p / 100);
}

static uint32_t
min32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t
max32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint64_t
max64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- what the model says ---------------------------------------- */

static uint64_t
max_bw(const struct bbr *b)
{
    return max64(b->max_bw[0], b->max_bw[1]);
}

static uint64_t
bandwidth(const struct bbr *b)
{
    uint64_t bw = max_bw(b);

    return bw < b->bw_lo ? bw : b->bw_lo;
}

static uint32_t
min_pipe(const struct tcp_cc_event *ev)
{
    return 4 * ev->mss_bytes;
}

/** BBRBDPMultiple. */
static uint32_t
bdp(const struct bbr *b, const struct tcp_cc_event *ev, uint64_t bw, uint32_t gain)
{
    if (b->min_rtt_us == UINT32_MAX)
        return tcp_cc_initial_window(ev->mss_bytes);
    uint64_t bytes = bw * b->min_rtt_us / 1000000 * gain / GAIN_ONE;
    return bytes > TCP_CWND_MAX_BYTES ? TCP_CWND_MAX_BYTES : (uint32_t)bytes;
}

/** BBRQuantizationBudget: bursts, delayed acknowledgements and a probe need room whatever the product is. */
static uint32_t
quantized(const struct bbr *b, const struct tcp_cc_event *ev, uint32_t inflight)
{
    uint32_t least = max32(3 * ev->burst_bytes, min_pipe(ev));

    inflight = max32(inflight, least);
    return b->state == PROBE_UP ? inflight + 2 * ev->mss_bytes : inflight;
}

/** BBRInflight. */
static uint32_t
inflight_at(const struct bbr *b, const struct tcp_cc_event *ev, uint64_t bw, uint32_t gain)
{
    return quantized(b, ev, bdp(b, ev, bw, gain));
}

static uint32_t
inflight_with_headroom(const struct bbr *b, const struct tcp_cc_event *ev)
{
    if (b->inflight_hi == UNBOUNDED)
        return UNBOUNDED;
    uint32_t headroom = max32(ev->mss_bytes, percent(b->inflight_hi, HEADROOM_PERCENT));
    uint32_t rest = b->inflight_hi > headroom ? b->inflight_hi - headroom : 0;
    return max32(rest, min_pipe(ev));
}

static uint32_t
target_inflight(const struct bbr *b, const struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    return min32(bdp(b, ev, bandwidth(b), GAIN_ONE), cc->cwnd_bytes);
}

static bool
is_probing_bw(const struct bbr *b)
{
    return b->state >= PROBE_DOWN && b->state <= PROBE_UP;
}

/* ---- states ---------------------------------------- */

static void
start_round(struct bbr *b, const struct tcp_cc_event *ev)
{
    b->next_round = ev->rate->delivered_bytes;
}

static void
reset_congestion_signals(struct bbr *b)
{
    b->loss_in_round = false;
    b->loss_events = 0;
    b->bw_latest = 0;
    b->inflight_latest = 0;
}

static void
reset_short_term(struct bbr *b)
{
    b->bw_lo = UINT64_MAX;
    b->inflight_lo = UNBOUNDED;
}

static void
reset_full_bw(struct bbr *b, uint64_t bw)
{
    b->full_bw = bw;
    b->full_bw_count = 0;
    b->full_bw_now = false;
}

static void
enter_down(struct bbr *b, const struct tcp_cc_event *ev)
{
    uint32_t chance = (ev->snd_nxt ^ (uint32_t)ev->now_us) * 2654435761u;

    reset_congestion_signals(b);
    b->up_bytes_per_mss = UINT32_MAX;
    b->rounds_since_probe = (uint8_t)(chance >> 31);
    b->probe_wait_us = PROBE_WAIT_US + (chance >> 8) % 1000000;
    b->cycle_at_us = ev->now_us;
    b->calm_bytes /= 2; /* the path may change */
    b->calm_lost_bytes /= 2;
    b->acks = ACKS_STOPPING;
    start_round(b, ev);
    b->state = PROBE_DOWN;
}

static void
enter_refill(struct bbr *b, const struct tcp_cc_event *ev)
{
    reset_short_term(b);
    b->up_rounds = 0;
    b->up_acked_bytes = 0;
    b->acks = ACKS_REFILLING;
    start_round(b, ev);
    b->state = PROBE_REFILL;
}

/** BBRRaiseInflightHiSlope: it grows by one segment in the first round, then twice as fast in each. */
static void
raise_slope(struct bbr *b, const struct tcp_cc *cc)
{
    uint32_t per_mss = cc->cwnd_bytes >> b->up_rounds;

    b->up_rounds = b->up_rounds < 30 ? (uint8_t)(b->up_rounds + 1) : 30;
    b->up_bytes_per_mss = per_mss;
}

static void
enter_up(struct bbr *b, const struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    b->acks = ACKS_STARTING;
    start_round(b, ev);
    reset_full_bw(b, ev->bytes_per_s);
    b->state = PROBE_UP;
    b->cycle_at_us = ev->now_us;
    raise_slope(b, cc);
}

static void
exit_probe_rtt(struct bbr *b, const struct tcp_cc_event *ev)
{
    reset_short_term(b);
    if (b->full_bw_reached) {
        enter_down(b, ev);
        b->state = PROBE_CRUISE;
    } else {
        b->state = STARTUP;
    }
}

/* ---- bandwidth ---------------------------------------- */

/** BBRUpdateRound, and the rounds in which loss is judged. */
static void
update_rounds(struct bbr *b, const struct tcp_cc_event *ev)
{
    const struct tcp_rate_sample *s = ev->sample;
    uint32_t delivered = ev->rate->delivered_bytes;

    b->round_start = b->loss_round_start = false;
    if (!s->valid)
        return;
    b->bw_latest = max64(b->bw_latest, ev->bytes_per_s);
    b->inflight_latest = max32(b->inflight_latest, s->delivered_bytes);
    if ((int32_t)(s->prior_delivered_bytes - b->loss_round) >= 0) {
        b->loss_round = delivered;
        b->loss_round_start = true;
    }
    if ((int32_t)(s->prior_delivered_bytes - b->next_round) >= 0) {
        b->next_round = delivered;
        b->round_start = true;
        if (b->rounds_since_probe < UINT8_MAX)
            b->rounds_since_probe++;
    }
}

static void
update_max_bw(struct bbr *b, const struct tcp_cc_event *ev)
{
    const struct tcp_rate_sample *s = ev->sample;

    if (s->valid && ev->bytes_per_s > 0 && (ev->bytes_per_s >= max_bw(b) || !s->app_limited))
        b->max_bw[1] = max64(b->max_bw[1], ev->bytes_per_s);
}

/** BBRAdvanceMaxBwFilter: a cycle of probing has ended. */
static void
advance_max_bw(struct bbr *b)
{
    if (b->max_bw[1] == 0)
        return; /* no sample since: what was known holds */
    b->max_bw[0] = b->max_bw[1];
    b->max_bw[1] = 0;
}

/** BBRAdaptLowerBoundsFromCongestion: loss or marks in a round in which nothing was tested on purpose. */
static void
adapt_lower_bounds(struct bbr *b, const struct tcp_cc *cc)
{
    if (b->state == STARTUP || b->state == PROBE_REFILL || b->state == PROBE_UP || !b->loss_in_round)
        return;
    if (b->bw_lo == UINT64_MAX)
        b->bw_lo = max_bw(b);
    if (b->inflight_lo == UNBOUNDED)
        b->inflight_lo = cc->cwnd_bytes;
    b->bw_lo = max64(b->bw_latest, b->bw_lo * BETA_PERCENT / 100);
    b->inflight_lo = max32(b->inflight_latest, percent(b->inflight_lo, BETA_PERCENT));
}

/** Whether the sample was taken with the queue empty, or as good as. */
static bool
is_least_rtt(const struct bbr *b, uint32_t rtt_us)
{
    return rtt_us != UINT32_MAX && rtt_us <= b->probe_rtt_min_us + (b->probe_rtt_min_us >> SAME_RTT_SHIFT);
}

/** What the path loses of itself: while the flow cruises, and the queue was seen empty, it is not the flow that fills it. */
static void
note_calm_loss(struct bbr *b, const struct tcp_cc_event *ev)
{
    if (ev->rtt_us != 0)
        b->round_rtt_us = min32(b->round_rtt_us, ev->rtt_us);
    if (!b->round_start)
        return;
    if (b->state == PROBE_CRUISE && is_least_rtt(b, b->round_rtt_us)) {
        b->calm_bytes += ev->sample->delivered_bytes;
        b->calm_lost_bytes += ev->sample->lost_bytes;
    }
    b->round_rtt_us = UINT32_MAX;
    if (b->calm_bytes > CALM_BYTES_MAX) {
        b->calm_bytes /= 2;
        b->calm_lost_bytes /= 2;
    }
}

/** The share that the path loses of itself. */
static uint32_t
calm_loss_ppm(const struct bbr *b, const struct tcp_cc_event *ev)
{
    if (b->calm_bytes < CALM_SEGS_MIN * ev->mss_bytes)
        return 0;
    uint64_t calm_ppm = b->calm_lost_bytes * 1000000ull / b->calm_bytes;
    return calm_ppm < CALM_LOSS_MAX_PPM ? (uint32_t)calm_ppm : CALM_LOSS_MAX_PPM;
}

/** LossThresh, counted from what the path loses of itself. */
static uint32_t
loss_thresh_ppm(const struct bbr *b, const struct tcp_cc_event *ev)
{
    return LOSS_THRESH_PPM + calm_loss_ppm(b, ev);
}

/**
 * IsInflightTooHigh. A flight has few segments: of 130 on a path that loses 1% at random every seventh loses more than LossThresh. What is
 * lost must therefore exceed the allowed n segments by two of their deviations (the root of n) before it tells of congestion; an
 * overflowing queue loses a multiple of that.
 */
static bool
inflight_too_high(const struct bbr *b, const struct tcp_cc_event *ev, uint32_t lost_bytes, uint32_t inflight_bytes)
{
    uint64_t allowed = (uint64_t)inflight_bytes * loss_thresh_ppm(b, ev) / 1000000;
    uint64_t excess = lost_bytes > allowed ? lost_bytes - allowed : 0;

    return excess * excess > CHANCE_SIGMAS * CHANCE_SIGMAS * allowed * ev->mss_bytes;
}

/** BBRCheckStartupHighLoss. */
static void
check_startup_loss(struct bbr *b, const struct tcp_cc_event *ev)
{
    if (b->state != STARTUP || !b->loss_round_start || b->loss_events < FULL_LOSS_EVENTS ||
        !inflight_too_high(b, ev, ev->sample->lost_bytes, ev->sample->inflight_bytes))
        return;
    b->full_bw_reached = true;
    b->inflight_hi = max32(bdp(b, ev, max_bw(b), GAIN_ONE), b->inflight_latest);
}

/** BBRUpdateCongestionSignals. */
static void
update_congestion_signals(struct bbr *b, const struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    update_max_bw(b, ev);
    check_startup_loss(b, ev);
    if (!b->loss_round_start)
        return;
    if (b->marked_in_round || inflight_too_high(b, ev, ev->sample->lost_bytes, ev->sample->inflight_bytes))
        adapt_lower_bounds(b, cc);
    b->marked_in_round = false;
    b->loss_in_round = false;
    b->loss_events = 0;
}

/** BBRUpdateACKAggregation. */
static void
update_aggregation(struct bbr *b, const struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    uint64_t expected = bandwidth(b) * (ev->now_us - b->extra_from_us) / 1000000;

    if (b->extra_delivered <= expected) {
        b->extra_delivered = 0;
        b->extra_from_us = ev->now_us;
        expected = 0;
    }
    b->extra_delivered += ev->acked_bytes;
    uint32_t extra = min32((uint32_t)(b->extra_delivered - expected), cc->cwnd_bytes);
    if (b->round_start && (++b->extra_rounds >= EXTRA_ACKED_ROUNDS || !b->full_bw_reached)) {
        b->extra_rounds = 0;
        b->extra_acked[0] = b->full_bw_reached ? b->extra_acked[1] : 0;
        b->extra_acked[1] = 0;
    }
    b->extra_acked[1] = max32(b->extra_acked[1], extra);
}

/**
 * Whether a quarter's growth would have shown, had the path allowed it. A flight that its application, or the send buffer, cut short
 * may be long enough for that: else a flow whose buffer is smaller than what startup wants would never leave it.
 */
static bool
could_show_growth(const struct bbr *b, const struct tcp_cc_event *ev)
{
    const struct tcp_rate_sample *s = ev->sample;

    return !s->app_limited || s->inflight_bytes >= bdp(b, ev, b->full_bw, GAIN_UP);
}

/** BBRCheckFullBWReached: three rounds without a quarter's growth. */
static void
check_full_bw(struct bbr *b, const struct tcp_cc_event *ev)
{
    if (b->full_bw_now || !b->round_start || !could_show_growth(b, ev))
        return;
    if (ev->bytes_per_s >= b->full_bw + b->full_bw / 4) {
        reset_full_bw(b, ev->bytes_per_s);
        return;
    }
    b->full_bw_now = ++b->full_bw_count >= FULL_BW_ROUNDS;
    if (b->full_bw_now)
        b->full_bw_reached = true;
}

/* ---- the cycle of probing ---------------------------------------- */

/** BBRHandleInflightTooHigh. */
static void
handle_too_high(struct bbr *b, const struct tcp_cc *cc, const struct tcp_cc_event *ev, uint32_t inflight_bytes,
                bool app_limited)
{
    b->probe_samples = false;
    if (!app_limited)
        b->inflight_hi = max32(inflight_bytes, percent(target_inflight(b, cc, ev), BETA_PERCENT));
    if (b->state == PROBE_UP)
        enter_down(b, ev);
}

/** BBRProbeInflightHiUpward. */
static void
probe_upward(struct bbr *b, const struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    if (!ev->cwnd_limited || cc->cwnd_bytes < b->inflight_hi)
        return;
    b->up_acked_bytes += ev->acked_bytes;
    if (b->up_acked_bytes >= b->up_bytes_per_mss) {
        uint32_t step = max32(b->up_bytes_per_mss, 1);
        uint32_t segs = b->up_acked_bytes / step;
        b->up_acked_bytes -= segs * step;
        b->inflight_hi = min32(b->inflight_hi + segs * ev->mss_bytes, TCP_CWND_MAX_BYTES);
    }
    if (b->round_start)
        raise_slope(b, cc);
}

/** BBRAdaptLongTermModel. */
static void
adapt_upper_bounds(struct bbr *b, const struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    const struct tcp_rate_sample *s = ev->sample;

    if (b->acks == ACKS_STARTING && b->round_start)
        b->acks = ACKS_FEEDBACK; /* what comes now was sent by the probe */
    if (b->acks == ACKS_STOPPING && b->round_start) {
        b->probe_samples = false;
        b->acks = ACKS_INIT;
        if (is_probing_bw(b) && !s->app_limited)
            advance_max_bw(b);
    }
    if (!s->valid)
        return;
    if (inflight_too_high(b, ev, s->lost_bytes, s->inflight_bytes)) {
        if (b->probe_samples)
            handle_too_high(b, cc, ev, s->inflight_bytes, s->app_limited);
        return;
    }
    if (b->inflight_hi == UNBOUNDED)
        return;
    b->inflight_hi = max32(b->inflight_hi, s->inflight_bytes);
    if (b->state == PROBE_UP)
        probe_upward(b, cc, ev);
}

/** BBRCheckTimeToProbeBW: by the clock, or as often as Reno would fill the path, whichever comes first. */
static bool
time_to_probe(const struct bbr *b, const struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    uint32_t reno_rounds = target_inflight(b, cc, ev) / ev->mss_bytes;

    return ev->now_us - b->cycle_at_us > b->probe_wait_us ||
           b->rounds_since_probe >= min32(reno_rounds, RENO_ROUNDS_MAX);
}

static bool
time_to_cruise(const struct bbr *b, const struct tcp_cc_event *ev)
{
    return ev->pipe_bytes <= inflight_with_headroom(b, ev) && ev->pipe_bytes <= inflight_at(b, ev, max_bw(b), GAIN_ONE);
}

/** BBRCheckTimeToGoDown: the path shows no more, though the bound did not hold us back. */
static bool
time_to_go_down(struct bbr *b, const struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    if (ev->cwnd_limited && cc->cwnd_bytes >= b->inflight_hi) {
        reset_full_bw(b, ev->bytes_per_s);
        return false;
    }
    return b->full_bw_now;
}

/** BBRUpdateProbeBWCyclePhase. */
static void
update_cycle(struct bbr *b, const struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    if (!b->full_bw_reached)
        return;
    adapt_upper_bounds(b, cc, ev);
    switch (b->state) {
    case PROBE_DOWN:
        if (time_to_probe(b, cc, ev))
            enter_refill(b, ev);
        else if (time_to_cruise(b, ev))
            b->state = PROBE_CRUISE;
        break;
    case PROBE_CRUISE:
        if (time_to_probe(b, cc, ev))
            enter_refill(b, ev);
        break;
    case PROBE_REFILL:
        if (b->round_start) {
            b->probe_samples = true;
            enter_up(b, cc, ev);
        }
        break;
    case PROBE_UP:
        if (time_to_go_down(b, cc, ev))
            enter_down(b, ev);
        break;
    default:
        break;
    }
}

/* ---- round-trip time ---------------------------------------- */

static void
update_min_rtt(struct bbr *b, const struct tcp_cc_event *ev)
{
    b->probe_rtt_expired = ev->now_us > b->probe_rtt_min_at_us + PROBE_RTT_INTERVAL_US;
    if (ev->rtt_us != 0 && (ev->rtt_us < b->probe_rtt_min_us || b->probe_rtt_expired)) {
        b->probe_rtt_min_us = ev->rtt_us;
        b->probe_rtt_min_at_us = ev->now_us;
    } else if (ev->rtt_us != 0 && is_least_rtt(b, ev->rtt_us)) {
        b->probe_rtt_min_at_us = ev->now_us; /* the queue was empty just now: there is nothing to look for */
    }
    if (b->probe_rtt_min_us < b->min_rtt_us || ev->now_us > b->min_rtt_at_us + MIN_RTT_FILTER_US) {
        b->min_rtt_us = b->probe_rtt_min_us;
        b->min_rtt_at_us = b->probe_rtt_min_at_us;
    }
}

static void
restore_cwnd(const struct bbr *b, struct tcp_cc *cc)
{
    cc->cwnd_bytes = max32(cc->cwnd_bytes, b->prior_cwnd);
}

static uint32_t
probe_rtt_cwnd(const struct bbr *b, const struct tcp_cc_event *ev)
{
    return max32(bdp(b, ev, bandwidth(b), GAIN_CWND_PROBE_RTT), min_pipe(ev));
}

static void
check_probe_rtt_done(struct bbr *b, struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    if (b->probe_rtt_done_us == 0 || ev->now_us <= b->probe_rtt_done_us)
        return;
    b->probe_rtt_min_at_us = ev->now_us;
    restore_cwnd(b, cc);
    exit_probe_rtt(b, ev);
}

/** BBRCheckProbeRTT: now and then the queue must drain, so that the path's own delay shows. */
static void
check_probe_rtt(struct bbr *b, struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    if (b->state != PROBE_RTT && b->probe_rtt_expired && !b->idle_restart) {
        b->state = PROBE_RTT;
        b->prior_cwnd = ev->in_recovery ? max32(b->prior_cwnd, cc->cwnd_bytes) : cc->cwnd_bytes;
        b->probe_rtt_done_us = 0;
        b->acks = ACKS_STOPPING;
        start_round(b, ev);
    }
    if (b->state == PROBE_RTT) {
        tcp_rate_app_limited(ev->rate, ev->pipe_bytes); /* what is delivered now tells nothing of the path */
        if (b->probe_rtt_done_us == 0 && ev->pipe_bytes <= probe_rtt_cwnd(b, ev)) {
            b->probe_rtt_done_us = ev->now_us + PROBE_RTT_US;
            b->probe_rtt_round_done = false;
            start_round(b, ev);
        } else if (b->probe_rtt_done_us != 0) {
            b->probe_rtt_round_done |= b->round_start;
            if (b->probe_rtt_round_done)
                check_probe_rtt_done(b, cc, ev);
        }
    }
    if (ev->sample->valid)
        b->idle_restart = false;
}

/* ---- control parameters ---------------------------------------- */

static uint32_t
pacing_gain(const struct bbr *b)
{
    static const uint16_t gains[] = {
        [STARTUP] = GAIN_STARTUP,  [DRAIN] = GAIN_DRAIN, [PROBE_DOWN] = GAIN_DOWN, [PROBE_CRUISE] = GAIN_ONE,
        [PROBE_REFILL] = GAIN_ONE, [PROBE_UP] = GAIN_UP, [PROBE_RTT] = GAIN_ONE,
    };

    return gains[b->state];
}

/**
 * BBRSetPacingRateWithGain: until the path is full no sample may slow the start. The estimate is of what arrives: what the path loses of itself
 * is missing from it already, and the queue has that much less to drain. The margin is only for the rest, if there is one.
 */
static void
set_pacing_rate(struct bbr *b, const struct tcp_cc_event *ev, uint32_t gain)
{
    uint32_t calm_ppm = calm_loss_ppm(b, ev);
    uint32_t margin_ppm = calm_ppm < MARGIN_PPM ? MARGIN_PPM - calm_ppm : 0;
    uint64_t rate = bandwidth(b) * gain / GAIN_ONE * (1000000 - margin_ppm) / 1000000;

    if (rate > 0 && (b->full_bw_reached || rate > b->pacing_rate))
        b->pacing_rate = rate;
}

/** BBRBoundCwndForModel. */
static uint32_t
model_bound(const struct bbr *b, const struct tcp_cc_event *ev)
{
    uint32_t cap = UNBOUNDED;

    if (b->state == PROBE_RTT || b->state == PROBE_CRUISE)
        cap = inflight_with_headroom(b, ev);
    else if (is_probing_bw(b))
        cap = b->inflight_hi;
    return max32(min32(cap, b->inflight_lo), min_pipe(ev));
}

static void
set_cwnd(struct bbr *b, struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    uint32_t gain = b->state == PROBE_UP ? GAIN_CWND_UP : GAIN_CWND;
    uint32_t extra = max32(b->extra_acked[0], b->extra_acked[1]);
    uint32_t most = quantized(b, ev, bdp(b, ev, bandwidth(b), gain) + extra);

    if (b->full_bw_reached)
        cc->cwnd_bytes = min32(cc->cwnd_bytes + ev->acked_bytes, most);
    else if (cc->cwnd_bytes < most || ev->rate->delivered_bytes < tcp_cc_initial_window(ev->mss_bytes))
        cc->cwnd_bytes += ev->acked_bytes;
    cc->cwnd_bytes = max32(cc->cwnd_bytes, min_pipe(ev));
    if (b->state == PROBE_RTT)
        cc->cwnd_bytes = min32(cc->cwnd_bytes, probe_rtt_cwnd(b, ev));
    cc->cwnd_bytes = min32(cc->cwnd_bytes, model_bound(b, ev));
    if (cc->cwnd_bytes > TCP_CWND_MAX_BYTES)
        cc->cwnd_bytes = TCP_CWND_MAX_BYTES;
}

/* ---- events ---------------------------------------- */

/** BBRInitPacingRate. */
static uint64_t
initial_pacing_rate(const struct tcp_cc_event *ev, uint32_t rtt_us)
{
    return tcp_cc_initial_window(ev->mss_bytes) * 1000000ull / rtt_us * GAIN_STARTUP / GAIN_ONE;
}

/** The handshake may have taken far longer than a round trip, as where its last ACK was lost. */
static void
correct_pacing_rate(struct bbr *b, const struct tcp_cc_event *ev)
{
    if (b->state == STARTUP && ev->rtt_us != 0)
        b->pacing_rate = max64(b->pacing_rate, initial_pacing_rate(ev, ev->rtt_us));
}

static void
bbr_init(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    struct bbr *b = bbr_of(ev);

    *cc = (struct tcp_cc){ .cwnd_bytes = tcp_cc_initial_window(ev->mss_bytes), .ssthresh_bytes = UINT32_MAX };
    memset(b, 0, sizeof(*b));
    b->min_rtt_us = b->probe_rtt_min_us = ev->min_rtt_us;
    b->round_rtt_us = UINT32_MAX;
    b->min_rtt_at_us = b->probe_rtt_min_at_us = b->extra_from_us = b->cycle_at_us = ev->now_us;
    b->inflight_hi = b->undo_hi = b->undo_lo = UNBOUNDED;
    b->undo_bw_lo = UINT64_MAX;
    reset_short_term(b);
    b->next_round = b->loss_round = ev->rate->delivered_bytes;
    b->up_bytes_per_mss = UINT32_MAX;
    b->pacing_rate = initial_pacing_rate(ev, ev->srtt_us != 0 ? ev->srtt_us : 1000);
    b->state = STARTUP;
}

/** BBRHandleLostPacket; how much the window that lost it had too much is told by the count of losses since it was sent. */
static void
note_losses(struct bbr *b, const struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    const struct tcp_rate_mark *m = ev->lost_mark;

    if (ev->lost_bytes == 0)
        return;
    if (!b->loss_in_round) {
        b->loss_round = ev->rate->delivered_bytes;
        b->loss_in_round = true;
    }
    if (b->loss_events < UINT8_MAX)
        b->loss_events++;
    if (!b->probe_samples || m == NULL)
        return;
    uint32_t lost = ev->rate->lost_bytes - m->lost_bytes, inflight = m->inflight_bytes;
    if (!inflight_too_high(b, ev, lost, inflight))
        return;
    /* BBRInflightHiFromLostPacket: where, within what was lost last, the share of losses crossed the line. */
    uint32_t size = min32(ev->lost_bytes, inflight);
    uint32_t before = inflight - size, lost_before = lost > size ? lost - size : 0;
    uint32_t thresh_ppm = loss_thresh_ppm(b, ev);
    uint32_t allowed = (uint32_t)((uint64_t)before * thresh_ppm / 1000000);
    uint32_t prefix =
        allowed > lost_before ? (uint32_t)((allowed - lost_before) * 1000000ull / (1000000 - thresh_ppm)) : 0;
    handle_too_high(b, cc, ev, before + min32(prefix, size), m->app_limited != 0);
}

static void
bbr_on_ack(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    struct bbr *b = bbr_of(ev);

    note_losses(b, cc, ev);
    update_rounds(b, ev);
    note_calm_loss(b, ev);
    update_congestion_signals(b, cc, ev);
    update_aggregation(b, cc, ev);
    check_full_bw(b, ev);
    if (b->state == STARTUP && b->full_bw_reached)
        b->state = DRAIN;
    if (b->state == DRAIN && ev->pipe_bytes <= inflight_at(b, ev, max_bw(b), GAIN_ONE))
        enter_down(b, ev);
    update_cycle(b, cc, ev);
    update_min_rtt(b, ev);
    check_probe_rtt(b, cc, ev);
    if (b->loss_round_start) {
        b->bw_latest = ev->bytes_per_s;
        b->inflight_latest = ev->sample->delivered_bytes;
    }
    correct_pacing_rate(b, ev);
    set_pacing_rate(b, ev, pacing_gain(b));
    set_cwnd(b, cc, ev);
}

/** Recovery begins: its bounds may turn out needless. */
static void
bbr_on_loss(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    struct bbr *b = bbr_of(ev);

    b->prior_cwnd = b->state == PROBE_RTT ? max32(b->prior_cwnd, cc->cwnd_bytes) : cc->cwnd_bytes;
    b->undo_bw_lo = b->bw_lo;
    b->undo_lo = b->inflight_lo;
    b->undo_hi = b->inflight_hi;
}

static void
bbr_on_mark(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    struct bbr *b = bbr_of(ev);

    bbr_on_loss(cc, ev);
    if (!b->loss_in_round)
        b->loss_round = ev->rate->delivered_bytes;
    b->loss_in_round = b->marked_in_round = true;
}

static void
bbr_on_recovered(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    restore_cwnd(bbr_of(ev), cc);
}

static void
bbr_on_undo(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    struct bbr *b = bbr_of(ev);

    restore_cwnd(b, cc);
    b->loss_in_round = false;
    reset_full_bw(b, 0);
    b->bw_lo = max64(b->bw_lo, b->undo_bw_lo);
    b->inflight_lo = max32(b->inflight_lo, b->undo_lo);
    b->inflight_hi = max32(b->inflight_hi, b->undo_hi);
}

/** BBRHandleRestartFromIdle. */
static void
bbr_on_start(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    struct bbr *b = bbr_of(ev);

    if (ev->rate->limited == 0)
        return;
    b->idle_restart = true;
    b->extra_from_us = ev->now_us;
    if (is_probing_bw(b))
        set_pacing_rate(b, ev, GAIN_ONE);
    else if (b->state == PROBE_RTT)
        check_probe_rtt_done(b, cc, ev);
}

/** The model outlives silence: its rate, not a burst of its window, is what the flow starts with again. */
static void
bbr_on_idle(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    (void)cc;
    (void)ev;
}

static uint64_t
bbr_pacing_rate(const struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    (void)cc;
    return bbr_of(ev)->pacing_rate;
}

const struct tcp_cc_ops tcp_cc_bbr = {
    .name = "bbr",
    .has_model = true,
    .init = bbr_init,
    .on_ack = bbr_on_ack,
    .on_loss = bbr_on_loss,
    .on_mark = bbr_on_mark,
    .on_rto = bbr_on_loss,
    .on_recovered = bbr_on_recovered,
    .on_undo = bbr_on_undo,
    .on_start = bbr_on_start,
    .on_idle = bbr_on_idle,
    .pacing_rate = bbr_pacing_rate,
};
