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
    uint32_t info_bytes, info_us; /**< the last sample that was worth something, for information */
    uint32_t info_limited; /**< and it was limited by the application */
    uint32_t reserved;
};

/** What an acknowledgement tells. */
struct tcp_rate_sample {
    uint32_t delivered_bytes; /**< in the sample's interval */
    uint32_t interval_us; /**< 0 = it tells no rate */
    uint32_t prior_delivered_bytes; /**< the flow's count when the sampled segment was sent */
    uint32_t lost_bytes; /**< in the interval */
    uint32_t inflight_bytes; /**< when the sampled segment was sent, it included */
    bool valid; /**< something was delivered: the rest holds (but perhaps the interval) */
    bool app_limited;
};

/** Bytes are sent, with flight_bytes under way before them. */
static inline void
tcp_rate_on_send(struct tcp_rate *r, struct tcp_rate_mark *m, uint32_t bytes, uint32_t flight_bytes, uint32_t now_us)
{
    /* A flight begins: what lies before is no part of any interval. */
    if (flight_bytes == 0)
        r->first_sent_us = r->delivered_us = now_us;
    *m = (struct tcp_rate_mark){
        .delivered_bytes = r->delivered_bytes,
        .lost_bytes = r->lost_bytes,
        .delivered_us = r->delivered_us,
        .first_sent_us = r->first_sent_us,
        .inflight_bytes = (flight_bytes + bytes) & INT32_MAX,
        .app_limited = r->limited & 1,
    };
}

/**
 * bytes have been delivered; m (NULL if it is not known) was noted with what was sent last of them, at sent_us. min_rtt_us guards
 * against intervals shorter than a round trip, which tell of compressed acknowledgements; UINT32_MAX = unknown.
 */
static inline void
tcp_rate_on_ack(struct tcp_rate *r, const struct tcp_rate_mark *m, uint32_t sent_us, uint32_t bytes,
                uint32_t min_rtt_us, uint32_t now_us, struct tcp_rate_sample *s)
{
    *s = (struct tcp_rate_sample){ .valid = false };
    if (bytes == 0)
        return;
    r->delivered_bytes += bytes;
    r->delivered_us = now_us;
    if (r->limited != 0 && (int32_t)(r->delivered_bytes - r->limited_until) > 0)
        r->limited = 0;
    if (m == NULL)
        return;
    s->valid = true;
    s->prior_delivered_bytes = m->delivered_bytes;
    s->delivered_bytes = r->delivered_bytes - m->delivered_bytes;
    s->lost_bytes = r->lost_bytes - m->lost_bytes;
    s->inflight_bytes = m->inflight_bytes;
    s->app_limited = m->app_limited != 0;
    uint32_t sending_us = sent_us - m->first_sent_us;
    uint32_t arriving_us = now_us - m->delivered_us;
    uint32_t interval_us = sending_us > arriving_us ? sending_us : arriving_us;
    r->first_sent_us = sent_us;
    if (interval_us == 0 || (min_rtt_us != UINT32_MAX && interval_us < min_rtt_us))
        return;
    s->interval_us = interval_us;
    /* A sample that the application held low says something only if it is the largest. */
    if (!s->app_limited || (uint64_t)s->delivered_bytes * r->info_us >= (uint64_t)r->info_bytes * interval_us) {
        r->info_bytes = s->delivered_bytes;
        r->info_us = interval_us;
        r->info_limited = s->app_limited;
    }
}

/** It is not the path that bounds the flow, with what is under way now. */
static inline void
tcp_rate_app_limited(struct tcp_rate *r, uint32_t inflight_bytes)
{
    r->limited = 1;
    r->limited_until = r->delivered_bytes + inflight_bytes;
}

static inline uint64_t
tcp_rate_bytes_per_s(uint32_t bytes, uint32_t interval_us)
{
    return interval_us != 0 ? bytes * 1000000ull / interval_us : 0;
}

#endif /* TCP_RATE_H */
