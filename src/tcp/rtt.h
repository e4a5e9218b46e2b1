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

static inline void
tcp_rtt_set_rto(struct tcp_rtt *r, uint32_t rto_min_us, uint32_t rto_max_us)
{
    /* The floor is on the variance term, as RFC 6298's G is: a path of 1 s and no jitter keeps a margin. */
    uint64_t margin = 4ull * r->var_us;
    uint64_t rto = r->srtt_us + (margin > rto_min_us ? margin : rto_min_us);
    r->rto_us = rto > rto_max_us ? rto_max_us : (uint32_t)rto;
}

/** Take a sample that no retransmission makes ambiguous (Karn). */
static inline void
tcp_rtt_sample(struct tcp_rtt *r, uint32_t rtt_us, uint32_t rto_min_us, uint32_t rto_max_us)
{
    /* Keeps the sums below from overflowing; no such sample is sound. */
    if (rtt_us > rto_max_us)
        rtt_us = rto_max_us;
    if (rtt_us == 0)
        rtt_us = 1;
    if (rtt_us < r->min_us)
        r->min_us = rtt_us;
    if (r->srtt_us == 0) {
        r->srtt_us = rtt_us;
        r->var_us = rtt_us / 2;
    } else {
        uint32_t err = rtt_us > r->srtt_us ? rtt_us - r->srtt_us : r->srtt_us - rtt_us;
        r->var_us = (uint32_t)((3ull * r->var_us + err) / 4);
        r->srtt_us = (uint32_t)((7ull * r->srtt_us + rtt_us) / 8);
        if (r->srtt_us == 0)
            r->srtt_us = 1;
    }
    tcp_rtt_set_rto(r, rto_min_us, rto_max_us);
}

/** A sample that only the minimum takes: it may miss a delay that the timeout must allow for. */
void tcp_rtt_min(struct tcp_rtt *r, struct tcp_rtt_window *w, uint32_t rtt_us, uint32_t now_us);

/** The timeout after `backoff` expirations in a row (RFC 6298 section 5.5), at most max_us. */
static inline uint32_t
tcp_rtt_backed_off(const struct tcp_rtt *r, unsigned backoff, uint32_t max_us)
{
    uint64_t rto = r->rto_us;

    if (__builtin_expect(backoff > 0, 0))
        rto <<= backoff > 20 ? 20 : backoff;
    return rto > max_us ? max_us : (uint32_t)rto;
}

#endif /* TCP_RTT_H */
