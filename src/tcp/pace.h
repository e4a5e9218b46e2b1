/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_PACE_H
#define TCP_PACE_H

#include <stdbool.h>
#include <stdint.h>

/**
 * @file
 * A pacer: when the next burst of a flow may go, so that its bytes leave at a rate. Knows no connection and no timer: who
 * asks too early is told when to come back. Bursts are bounded by tcp_pace_burst.
 */
struct tcp_pace {
    uint64_t bytes_per_s : 63; /**< 0 = unpaced */
    uint64_t
        held : 1; /**< it was asked too early, and has not caught up since: what is sent late is not so by the flow's choice */
    uint64_t next_ns; /**< the next burst may go then */
};

/** A burst that is let go late, by the grain of timers and polls, does not lower the rate: up to this much of the delay is made up for ... */
#define TCP_PACE_CREDIT_US 1000u
/** ... and this much if the flow had asked earlier, as where other programs had the CPU meanwhile. */
#define TCP_PACE_LATE_US 8000u

/** Whether the next burst may go; if not, it counts as held. */
static inline bool
tcp_pace_ready(struct tcp_pace *p, uint64_t now_us)
{
    if (p->next_ns <= now_us * 1000)
        return true;
    p->held = 1;
    return false;
}

/** When it will be ready, rounded up. */
static inline uint64_t
tcp_pace_next_us(const struct tcp_pace *p)
{
    return (p->next_ns + 999) / 1000;
}

/** bytes have been sent. */
void tcp_pace_sent(struct tcp_pace *p, uint32_t bytes, uint64_t now_us);

/** What goes back to back: about a millisecond's worth, in whole segments, at least min_segs of them, at most 64 KiB. */
uint32_t tcp_pace_burst(const struct tcp_pace *p, uint32_t mss_bytes, uint32_t min_segs);

#endif /* TCP_PACE_H */
