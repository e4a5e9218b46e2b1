/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_RATE_H
#define TCP_RATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tcp/seq.h"

/**
 * @file
 * Delivery-rate samples (draft-cheng-iccrg-delivery-rate-estimation): how fast the path delivered between the sending
 * of a segment and its acknowledgement. Knows no connection. Byte counts and instants are modulo 2^32.
 */

/** What is noted of the flow with each run of bytes as it is sent. */
struct tcp_rate_mark {
    uint32_t delivered_bytes, lost_bytes; /**< the flow's counts then */
    uint32_t delivered_us; /**< when its last delivery was known */
    uint32_t first_sent_us; /**< beginning of the interval in which the run's flight was sent */
    uint32_t inflight_bytes : 31; /**< under way with it */
    uint32_t app_limited : 1; /**< too little to send, or a rate that was chosen, made the flight what it was */
};

struct tcp_rate {
    uint32_t delivered_bytes, lost_bytes;
    uint32_t delivered_us, first_sent_us;
    uint32_t limited_until; /**< the flow counts as limited by its application until delivered_bytes is beyond this */
    uint32_t limited; /**< limited_until holds */
    uint64_t bytes_per_s; /**< the last sample that was worth something, for information */
    uint32_t info_limited; /**< and it was limited by the application */
    uint32_t reserved;
};

/** What an acknowledgement tells. */
struct tcp_rate_sample {
    uint64_t bytes_per_s; /**< 0 = none */
    uint32_t delivered_bytes; /**< in the sample's interval */
    uint32_t prior_delivered_bytes; /**< the flow's count when the sampled segment was sent */
    uint32_t lost_bytes; /**< in the interval */
    uint32_t inflight_bytes; /**< when the sampled segment was sent, it included */
    bool valid; /**< something was delivered: the rest holds (bytes_per_s may still be 0) */
    bool app_limited;
};

/** Bytes are sent, with flight_bytes under way before them. */
void tcp_rate_on_send(struct tcp_rate *r, struct tcp_rate_mark *m, uint32_t bytes, uint32_t flight_bytes,
                      uint32_t now_us);

/**
 * bytes have been delivered; m (NULL if it is not known) was noted with what was sent last of them, at sent_us. min_rtt_us guards
 * against intervals shorter than a round trip, which tell of compressed acknowledgements; UINT32_MAX = unknown.
 */
void tcp_rate_on_ack(struct tcp_rate *r, const struct tcp_rate_mark *m, uint32_t sent_us, uint32_t bytes,
                     uint32_t min_rtt_us, uint32_t now_us, struct tcp_rate_sample *s);

/** It is not the path that bounds the flow, with what is under way now. */
void tcp_rate_app_limited(struct tcp_rate *r, uint32_t inflight_bytes);

#endif /* TCP_RATE_H */
