/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_RTT_H
#define TCP_RTT_H

#include <stdint.h>

/**
 * @file
 * Round-trip time estimation and the retransmission timeout of RFC 6298. Knows no connection.
 */
struct tcp_rtt {
    uint32_t srtt_us; /**< smoothed; 0 <=> no sample yet */
    uint32_t var_us; /**< RTTVAR */
    uint32_t rto_us; /**< without back-off, i.e. between the domain's rto_min_us and rto_max_us */
    uint32_t min_us; /**< least sample; UINT32_MAX before the first */
};

/** The minimum is that of the present and of the last such span: a path that has become longer is believed some day. */
#define TCP_RTT_WINDOW_US 150000000u

struct tcp_rtt_window {
    uint32_t from_us; /**< the present span began, modulo 2^32 */
    uint32_t min_us; /**< of its samples; 0 = none yet */
    uint32_t before_us; /**< of the last span's; 0 = none */
};

void tcp_rtt_init(struct tcp_rtt *r, uint32_t rto_initial_us);

/** Take a sample that no retransmission makes ambiguous (Karn). */
void tcp_rtt_sample(struct tcp_rtt *r, uint32_t rtt_us, uint32_t rto_min_us, uint32_t rto_max_us);

/** A sample that only the minimum takes: it may miss a delay that the timeout must allow for. */
void tcp_rtt_min(struct tcp_rtt *r, struct tcp_rtt_window *w, uint32_t rtt_us, uint32_t now_us);

/** The timeout after `backoff` expirations in a row (RFC 6298 section 5.5), at most max_us. */
uint32_t tcp_rtt_backed_off(const struct tcp_rtt *r, unsigned backoff, uint32_t max_us);

#endif /* TCP_RTT_H */
