/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/cc.h"

/** Above it nothing in the engine's 32-bit arithmetic is in danger: 1 GiB. */
#define CWND_MAX_BYTES (1u << 30)

/** priv[0]: bytes acknowledged since cwnd last grew in congestion avoidance (RFC 3465). */
#define PRIV_ACKED 0

static const struct tcp_cc_ops *const controls[TCP_CC_COUNT] = { [TCP_CC_NEWRENO] = &tcp_cc_newreno };

const struct tcp_cc_ops *
tcp_cc_by_id(unsigned id)
{
    return controls[id < TCP_CC_COUNT ? id : TCP_CC_NEWRENO];
}

uint32_t
tcp_cc_initial_window(uint32_t mss_bytes)
{
    uint32_t two_mss = 2 * mss_bytes;
    uint32_t bound = two_mss > 14600 ? two_mss : 14600;

    return 10 * mss_bytes < bound ? 10 * mss_bytes : bound;
}

static void
newreno_init(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    *cc = (struct tcp_cc){ .cwnd_bytes = tcp_cc_initial_window(ev->mss_bytes), .ssthresh_bytes = UINT32_MAX };
}

static void
newreno_on_ack(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    if (!ev->cwnd_limited || cc->cwnd_bytes >= CWND_MAX_BYTES)
        return;
    uint32_t acked = ev->acked_bytes;
    if (cc->cwnd_bytes < cc->ssthresh_bytes) {
        /* Slow start grows by what was acknowledged: stretch ACKs must not slow it (RFC 3465, L as in RFC 9406). */
        uint32_t room = cc->ssthresh_bytes - cc->cwnd_bytes;
        uint32_t grow = acked < room ? acked : room;
        cc->cwnd_bytes += grow;
        acked -= grow;
        if (acked == 0)
            return;
    }
    cc->priv[PRIV_ACKED] += acked;
    if (cc->priv[PRIV_ACKED] >= cc->cwnd_bytes) {
        cc->priv[PRIV_ACKED] -= cc->cwnd_bytes;
        cc->cwnd_bytes += ev->mss_bytes;
    }
    if (cc->priv[PRIV_ACKED] > cc->cwnd_bytes)
        cc->priv[PRIV_ACKED] = cc->cwnd_bytes;
}

/** RFC 5681 equation (4). */
static uint32_t
half_flight(const struct tcp_cc_event *ev)
{
    uint32_t half = ev->flight_bytes / 2;

    return half > 2 * ev->mss_bytes ? half : 2 * ev->mss_bytes;
}

static void
newreno_on_loss(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    cc->ssthresh_bytes = half_flight(ev);
    cc->cwnd_bytes = cc->ssthresh_bytes;
    cc->priv[PRIV_ACKED] = 0;
}

static void
newreno_on_rto(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    cc->ssthresh_bytes = half_flight(ev);
    cc->cwnd_bytes = ev->mss_bytes;
    cc->priv[PRIV_ACKED] = 0;
}

/** RFC 5681 section 4.1: the restart window. */
static void
newreno_on_idle(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    uint32_t iw = tcp_cc_initial_window(ev->mss_bytes);

    if (cc->cwnd_bytes > iw)
        cc->cwnd_bytes = iw;
}

const struct tcp_cc_ops tcp_cc_newreno = {
    .name = "newreno",
    .init = newreno_init,
    .on_ack = newreno_on_ack,
    .on_loss = newreno_on_loss,
    .on_rto = newreno_on_rto,
    .on_idle = newreno_on_idle,
};
