/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_CC_H
#define TCP_CC_H

#include <stdbool.h>
#include <stdint.h>

/**
 * @file
 * Congestion control behind a small table of operations. A control knows bytes, instants and its own state; no
 * connection and no segment. A connection names its control by index, never by pointer: the arena is relocatable.
 */
struct tcp_cc {
    uint32_t cwnd_bytes;
    uint32_t ssthresh_bytes; /**< UINT32_MAX before the first loss */
    uint32_t priv[4]; /**< the control's own */
};

/** What the connection tells with an event. */
struct tcp_cc_event {
    uint64_t now_us;
    uint32_t acked_bytes; /**< newly acknowledged; on_ack only */
    uint32_t flight_bytes; /**< sent and unacknowledged when the event happened */
    uint32_t mss_bytes;
    uint32_t srtt_us;
    bool cwnd_limited; /**< it was the congestion window that held data back (RFC 7661: else it does not grow) */
};

struct tcp_cc_ops {
    const char *name;
    void (*init)(struct tcp_cc *cc, const struct tcp_cc_event *ev);
    void (*on_ack)(struct tcp_cc *cc, const struct tcp_cc_event *ev); /**< outside of fast recovery */
    void (*on_loss)(struct tcp_cc *cc, const struct tcp_cc_event *ev); /**< fast recovery begins: cwnd and ssthresh */
    void (*on_rto)(struct tcp_cc *cc, const struct tcp_cc_event *ev); /**< first timeout of a segment */
    void (*on_idle)(struct tcp_cc *cc, const struct tcp_cc_event *ev); /**< nothing was sent for an RTO */
};

enum tcp_cc_id { TCP_CC_NEWRENO, TCP_CC_COUNT };

extern const struct tcp_cc_ops tcp_cc_newreno;

const struct tcp_cc_ops *tcp_cc_by_id(unsigned id);

/** RFC 6928: the initial window. */
uint32_t tcp_cc_initial_window(uint32_t mss_bytes);

#endif /* TCP_CC_H */
