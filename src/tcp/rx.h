/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_RX_H
#define TCP_RX_H

#include "tcp/domain.h"

/**
 * @file
 * A segment on its way through the steps of RFC 9293 section 3.10.7, each of which may end the processing. Private to input.c and ack.c.
 */
struct rx {
    struct tcp_domain *d;
    const struct tcp_env *env;
    struct tcp_conn *c; /**< NULL once it has ended */
    const struct tcp_in *in;
    tcp_seq seq; /**< after trimming, as are data and fin */
    struct tcp_data data;
    bool fin;
    bool taken; /**< the buffer has been passed on */
    struct tcp_sack_block dsack; /**< a duplicate to report; empty if start == end */
};

/* ---- input.c ---- */

void rx_end(struct rx *r, int err);
/** An unacceptable segment is answered by an ACK, limited in rate unless it may be a peer's retransmission. */
void rx_answer(struct rx *r, bool limited);

/** RFC 7323 section 4.3 (2): only a segment that spans the last ACK sent may move ts_recent. */
static inline void
take_timestamp(const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in)
{
    if ((c->flags & CONN_F_TS) != 0 && in->opts.has_ts && seq_leq(in->seq, c->rcv_acked) &&
        (int32_t)(in->opts.ts_val - c->ts_recent) >= 0) {
        c->ts_recent = in->opts.ts_val;
        c->ts_recent_tick = tick_of(env->now_us);
    }
}

/* ---- ack.c ---- */

/** Step 4: false ends the processing. */
bool rx_ack(struct rx *r);
/**
 * All of it for a segment that is expected (ESTABLISHED, no FIN sent) in a flow without trouble, i.e. nearly always: what it acknowledges was sent once and has arrived in order. False,
 * and nothing has changed: rx_ack must look at it.
 */
bool ack_plain(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in);
/** What our FIN's acknowledgement changes. */
bool rx_fin_acked(struct rx *r);
/** Our SYN is acknowledged, and maybe data that went with it. */
bool ack_covers_syn(const struct tcp_conn *c, tcp_seq ack);
/** snd_una moves over our SYN. Data that went with it and was not taken is to be sent again. */
void active_syn_acked(struct rx *r);

#endif /* TCP_RX_H */
