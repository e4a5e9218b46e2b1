/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_RACK_H
#define TCP_RACK_H

#include <stdbool.h>
#include <stdint.h>

#include "tcp/sent.h"

/**
 * @file
 * RACK-TLP (RFC 8985): the time-based part of loss detection and the probe timeout. Knows no connection.
 */
struct tcp_rack {
    uint32_t sent_us; /**< RACK.xmit_ts: of what was sent last among what has arrived */
    tcp_seq end; /**< RACK.end_seq, its end */
    uint32_t rtt_us; /**< RACK.rtt; 0 <=> nothing has arrived yet */
    tcp_seq dsack_round; /**< the window grows once for each round trip with a DSACK; this ends the present one */
    uint8_t steps; /**< RACK.reo_wnd_mult: quarters of the least round-trip time */
    uint8_t persist; /**< recoveries without a DSACK after which steps goes back to 1 */
    bool reordering; /**< RACK.reordering_seen */
    bool in_dsack_round;
};

void tcp_rack_init(struct tcp_rack *r);

/** Steps 1 and 2 of section 6.2: n has arrived. min_rtt_us: UINT32_MAX if unknown. */
void tcp_rack_delivered(struct tcp_rack *r, const struct tcp_sent_news *n, uint32_t now_us, uint32_t min_rtt_us);

/** What was sent at sent_us and ends at end has arrived: is it what was sent last of all that has? */
static inline void
tcp_rack_latest(struct tcp_rack *r, uint32_t sent_us, tcp_seq end, uint32_t now_us)
{
    if (r->rtt_us != 0 && !tcp_sent_after(sent_us, end, r->sent_us, r->end))
        return;
    r->rtt_us = now_us != sent_us ? now_us - sent_us : 1;
    r->sent_us = sent_us;
    r->end = end;
}

/** A DSACK came while snd_una was una: reordering was taken for loss (step 4, RACK.dsack_round). */
void tcp_rack_dsack(struct tcp_rack *r, tcp_seq una, tcp_seq snd_nxt);

/** A recovery has ended without a DSACK. */
void tcp_rack_recovered(struct tcp_rack *r);

/**
 * The reordering window (step 4). many_sacked: as much is SACKed as dup-ACK counting would take for a loss; it and
 * recovering let the window vanish as long as no reordering was seen.
 */
uint32_t tcp_rack_window_us(const struct tcp_rack *r, uint32_t min_rtt_us, uint32_t srtt_us, bool recovering,
                            bool many_sacked);

/**
 * PTO of section 7.2, without the bound by the RTO. one_segment: a lone segment may meet a delayed ACK.
 * srtt_us 0 = unknown.
 */
uint32_t tcp_rack_probe_us(uint32_t srtt_us, bool one_segment, uint32_t max_ack_delay_us);

#endif /* TCP_RACK_H */
