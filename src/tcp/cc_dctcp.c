/* SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>

#include "tcp/cc.h"

/**
 * @file
 * DCTCP (RFC 8257): the window comes down by the share of bytes that met congestion, not by half. Growth and the
 * answer to loss are NewReno's (section 3.4). Needs ECN, and a network that marks early.
 */
struct dctcp {
    uint32_t growth_bytes; /**< NewReno's count; first, since its functions work on the same state */
    uint32_t alpha; /**< in 1/1024 */
    uint32_t acked_bytes, marked_bytes; /**< in the present observation window */
    tcp_seq window_end;
    uint32_t started;
};
_Static_assert(sizeof(struct dctcp) <= sizeof(((struct tcp_cc *)NULL)->priv), "a control's state has its place");

#define ALPHA_ONE 1024u
#define G_SHIFT 4 /* g = 1/16, section 4.2 */

static struct dctcp *
dctcp_of(struct tcp_cc *cc)
{
    return (struct dctcp *)(void *)cc->priv;
}

static void
dctcp_init(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    tcp_cc_newreno.init(cc, ev);
    dctcp_of(cc)->alpha = ALPHA_ONE; /* the first mark halves the window: nothing better is known yet */
}

/** Section 3.3: estimate the share once for each window. */
static void
dctcp_on_feedback(struct tcp_cc *cc, const struct tcp_cc_event *ev, uint32_t marked_bytes)
{
    struct dctcp *q = dctcp_of(cc);

    q->acked_bytes += ev->acked_bytes;
    q->marked_bytes += marked_bytes;
    if (q->started != 0 && seq_lt(ev->una, q->window_end))
        return;
    if (q->acked_bytes > 0) {
        uint32_t share = (uint32_t)((uint64_t)q->marked_bytes * ALPHA_ONE / q->acked_bytes);
        /* Rounded up, so that alpha can reach both ends. */
        uint32_t decay = (q->alpha + (1u << G_SHIFT) - 1) >> G_SHIFT;
        q->alpha = q->alpha - decay + (share >> G_SHIFT);
        if (q->alpha > ALPHA_ONE)
            q->alpha = ALPHA_ONE;
    }
    q->started = 1;
    q->acked_bytes = q->marked_bytes = 0;
    q->window_end = ev->snd_nxt;
}

/** Section 3.3 step 9: cwnd * (1 - alpha / 2). */
static void
dctcp_on_mark(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    uint32_t cut = (uint32_t)((uint64_t)cc->cwnd_bytes * dctcp_of(cc)->alpha / (2 * ALPHA_ONE));
    uint32_t goal = cc->cwnd_bytes - cut;

    cc->ssthresh_bytes = goal > 2 * ev->mss_bytes ? goal : 2 * ev->mss_bytes;
    dctcp_of(cc)->growth_bytes = 0;
}

static void
dctcp_on_ack(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    tcp_cc_newreno.on_ack(cc, ev);
}

static void
dctcp_on_loss(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    tcp_cc_newreno.on_loss(cc, ev);
}

const struct tcp_cc_ops tcp_cc_dctcp = {
    .name = "dctcp",
    .needs_ecn = true,
    .init = dctcp_init,
    .on_ack = dctcp_on_ack,
    .on_feedback = dctcp_on_feedback,
    .on_mark = dctcp_on_mark,
    .on_loss = dctcp_on_loss,
    .on_rto = dctcp_on_loss,
    .on_idle = tcp_cc_restart,
};
