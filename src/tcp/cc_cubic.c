/* SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>

#include "tcp/cc.h"
#include "tcp/hystart.h"

/**
 * @file
 * CUBIC (RFC 9438) with HyStart++ (RFC 9406). Windows are in bytes, times in milliseconds; beta is 0.7, C is 0.4.
 */
struct cubic {
    uint32_t
        epoch_ms; /**< the present stage of growth began, modulo 2^32; 0 = none. First: on a line that every ACK touches */
    uint32_t w_max_bytes; /**< 0 = the next stage starts where it stands (RFC 9438 section 4.8) */
    uint32_t w_est_bytes; /**< what Reno would have reached (section 4.3) */
    uint32_t k_ms; /**< from the epoch until the curve is back at origin */
    struct tcp_hystart hystart;
};
_Static_assert(sizeof(struct cubic) <= sizeof(((struct tcp_cc *)NULL)->priv), "a control's state has its place");

/** Beyond this far from K the curve is clamped: keeps the cube within 64 bits. */
#define DELTA_MAX_MS 100000

static struct cubic *
cubic_of(struct tcp_cc *cc)
{
    return (struct cubic *)(void *)cc->priv;
}

static uint32_t
cube_root(uint64_t x)
{
    uint64_t root = 0;

    for (int bit = 20; bit >= 0; bit--) {
        uint64_t next = root | 1ull << bit;
        if (next * next * next <= x)
            root = next;
    }
    return (uint32_t)root;
}

static uint32_t
ms_of(const struct tcp_cc_event *ev)
{
    uint32_t ms = (uint32_t)(ev->now_us / 1000);

    return ms != 0 ? ms : 1;
}

static void
cubic_init(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    *cc = (struct tcp_cc){ .cwnd_bytes = tcp_cc_initial_window(ev->mss_bytes), .ssthresh_bytes = UINT32_MAX };
}

static void
begin_epoch(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    struct cubic *q = cubic_of(cc);

    q->epoch_ms = ms_of(ev);
    q->w_est_bytes = cc->cwnd_bytes;
    q->k_ms = 0;
    if (cc->cwnd_bytes >= q->w_max_bytes)
        q->w_max_bytes = cc->cwnd_bytes;
    else /* equation 2: the cube root of the segments to go over C, in seconds */
        q->k_ms = cube_root((q->w_max_bytes - cc->cwnd_bytes) * 2500000000ull / ev->mss_bytes);
}

/** W_cubic(t + RTT), equation 1, within the bounds of section 4.2. */
static uint32_t
cubic_target(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    const struct cubic *q = cubic_of(cc);
    int64_t delta_ms = (int64_t)(ms_of(ev) - q->epoch_ms) + ev->srtt_us / 1000 - q->k_ms;

    if (delta_ms > DELTA_MAX_MS)
        delta_ms = DELTA_MAX_MS;
    if (delta_ms < -DELTA_MAX_MS)
        delta_ms = -DELTA_MAX_MS;
    int64_t offset = delta_ms * delta_ms * delta_ms / 100000 * ev->mss_bytes * 4 / 100000;
    int64_t target = (int64_t)q->w_max_bytes + offset;
    if (target < (int64_t)cc->cwnd_bytes)
        return cc->cwnd_bytes;
    return target > (int64_t)cc->cwnd_bytes * 3 / 2 ? cc->cwnd_bytes / 2 * 3 : (uint32_t)target;
}

/** n * a / b in a way that small steps are not lost: what is below a byte is made up for at random places of n. */
static uint32_t
scaled_step(uint64_t n, uint32_t a, uint32_t b, uint32_t phase)
{
    return (uint32_t)((n * a + phase % b) / b);
}

static void
cubic_avoid(struct tcp_cc *cc, const struct tcp_cc_event *ev, uint32_t acked_bytes)
{
    struct cubic *q = cubic_of(cc);

    if (q->epoch_ms == 0)
        begin_epoch(cc, ev);
    /* Reno-friendly: alpha is 3 * (1 - beta) / (1 + beta), and 1 once it is where the reduction took place. */
    uint32_t alpha_permille = q->w_est_bytes < q->w_max_bytes ? 529 : 1000;
    q->w_est_bytes +=
        scaled_step((uint64_t)acked_bytes * alpha_permille / 1000, ev->mss_bytes, cc->cwnd_bytes, ev->una);
    uint32_t target = cubic_target(cc, ev);
    if (q->w_est_bytes > target)
        cc->cwnd_bytes = q->w_est_bytes > cc->cwnd_bytes ? q->w_est_bytes : cc->cwnd_bytes;
    else
        cc->cwnd_bytes += scaled_step(acked_bytes, target - cc->cwnd_bytes, cc->cwnd_bytes, ev->una);
    if (cc->cwnd_bytes > TCP_CWND_MAX_BYTES)
        cc->cwnd_bytes = TCP_CWND_MAX_BYTES;
}

static void
cubic_on_ack(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    struct cubic *q = cubic_of(cc);
    uint32_t acked = ev->acked_bytes;

    if (cc->cwnd_bytes < cc->ssthresh_bytes) {
        switch (tcp_hystart_on_ack(&q->hystart, ev)) {
        case TCP_HYSTART_LEAVE:
            cc->ssthresh_bytes = cc->cwnd_bytes;
            break;
        case TCP_HYSTART_SLOW:
            acked /= TCP_HYSTART_CSS_DIVISOR;
            /* fall through */
        default:
            acked = tcp_cc_slow_start(cc, acked);
            break;
        }
        if (acked == 0)
            return;
    }
    cubic_avoid(cc, ev, acked);
}

/** Time in which the window was not used earns no growth (section 5.8). */
static void
cubic_on_unused(struct tcp_cc *cc)
{
    cubic_of(cc)->epoch_ms = 0;
}

static void
reduce(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    uint32_t goal = (uint32_t)(cc->cwnd_bytes * 7ull / 10);

    cc->ssthresh_bytes = goal > 2 * ev->mss_bytes ? goal : 2 * ev->mss_bytes;
    cubic_of(cc)->epoch_ms = 0;
}

/** Section 4.6; fast convergence (section 4.7) leaves room for a flow that has come up since. */
static void
cubic_on_loss(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    struct cubic *q = cubic_of(cc);

    q->w_max_bytes = cc->cwnd_bytes < q->w_max_bytes ? (uint32_t)(cc->cwnd_bytes * 17ull / 20) : cc->cwnd_bytes;
    reduce(cc, ev);
}

static void
cubic_on_rto(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    reduce(cc, ev);
    cubic_of(cc)->w_max_bytes = 0;
    cubic_of(cc)->hystart = (struct tcp_hystart){ .started = false };
}

static void
cubic_on_idle(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    cubic_of(cc)->epoch_ms = 0;
    tcp_cc_restart(cc, ev);
}

const struct tcp_cc_ops tcp_cc_cubic = {
    .name = "cubic",
    .init = cubic_init,
    .on_ack = cubic_on_ack,
    .on_unused = cubic_on_unused,
    .on_loss = cubic_on_loss,
    .on_rto = cubic_on_rto,
    .on_idle = cubic_on_idle,
};
