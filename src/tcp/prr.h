/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_PRR_H
#define TCP_PRR_H

#include <stdbool.h>
#include <stdint.h>

/**
 * @file
 * Proportional rate reduction (RFC 9937): how much may be sent for each ACK while a window is brought down to
 * ssthresh. Knows no connection.
 */
struct tcp_prr {
    uint32_t delivered_bytes; /**< since the reduction began */
    uint32_t out_bytes; /**< sent since then */
    uint32_t flight_bytes; /**< RecoverFS: under way when it began */
};

static inline void
tcp_prr_start(struct tcp_prr *p, uint32_t flight_bytes)
{
    *p = (struct tcp_prr){ .flight_bytes = flight_bytes > 0 ? flight_bytes : 1 };
}

/**
 * An ACK has delivered bytes and leaves pipe_bytes under way: the congestion window from here on. safe: it moved snd_una and told of no
 * further loss. first: nothing has been sent since the reduction began, and a retransmission is due.
 */
static inline uint32_t
tcp_prr_window(struct tcp_prr *p, uint32_t delivered_bytes, uint32_t pipe_bytes, uint32_t ssthresh_bytes,
               uint32_t mss_bytes, bool safe, bool first)
{
    uint64_t send;

    p->delivered_bytes += delivered_bytes;
    if (pipe_bytes > ssthresh_bytes) {
        /* Whole segments, rounded up: the first ACK lets one go. */
        uint64_t due = (uint64_t)p->delivered_bytes * ssthresh_bytes;
        uint64_t unit = (uint64_t)p->flight_bytes * mss_bytes;
        due = (due + unit - 1) / unit * mss_bytes;
        send = due > p->out_bytes ? due - p->out_bytes : 0;
    } else {
        uint64_t limit = p->delivered_bytes > p->out_bytes ? p->delivered_bytes - p->out_bytes : 0;
        if (limit < delivered_bytes)
            limit = delivered_bytes;
        if (safe)
            limit += mss_bytes;
        send = ssthresh_bytes - pipe_bytes;
        if (send > limit)
            send = limit;
    }
    if (first && send < mss_bytes)
        send = mss_bytes;
    return pipe_bytes + (uint32_t)send;
}

#endif /* TCP_PRR_H */
