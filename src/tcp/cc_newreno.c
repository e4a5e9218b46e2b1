/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/cc.h"

/** priv[0]: bytes acknowledged since cwnd last grew in congestion avoidance (RFC 3465). */
#define PRIV_ACKED 0

static void
newreno_init(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    *cc = (struct tcp_cc){ .cwnd_bytes = tcp_cc_initial_window(ev->mss_bytes), .ssthresh_bytes = UINT32_MAX };
}

static void
newreno_on_ack(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    if (cc->cwnd_bytes >= TCP_CWND_MAX_BYTES)
        return;
    uint32_t acked = tcp_cc_slow_start(cc, ev->acked_bytes);
    cc->priv[PRIV_ACKED] += acked;
    if (cc->priv[PRIV_ACKED] >= cc->cwnd_bytes) {
        cc->priv[PRIV_ACKED] -= cc->cwnd_bytes;
        cc->cwnd_bytes += ev->mss_bytes;
    }
    if (cc->priv[PRIV_ACKED] > cc->cwnd_bytes)
        cc->priv[PRIV_ACKED] = cc->cwnd_bytes;
}

/** RFC 5681 equation (4). */
static void
newreno_on_loss(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    uint32_t half = ev->flight_bytes / 2;

    cc->ssthresh_bytes = half > 2 * ev->mss_bytes ? half : 2 * ev->mss_bytes;
    cc->priv[PRIV_ACKED] = 0;
}

const struct tcp_cc_ops tcp_cc_newreno = {
    .name = "newreno",
    .init = newreno_init,
    .on_ack = newreno_on_ack,
    .on_loss = newreno_on_loss,
    .on_rto = newreno_on_loss,
    .on_idle = tcp_cc_restart,
};
