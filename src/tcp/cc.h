/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_CC_H
#define TCP_CC_H

#include <stdbool.h>
#include <stdint.h>

#include "tcp/rate.h"
#include "tcp/seq.h"

/**
 * @file
 * Congestion control behind a small table of operations. A control knows bytes, instants and its own state; no
 * connection and no segment. A connection names its control by index, never by pointer: the arena is relocatable.
 */
struct tcp_cc {
    uint32_t cwnd_bytes;
    uint32_t ssthresh_bytes; /**< UINT32_MAX before the first loss */
    uint32_t priv[9]; /**< the control's own */
};

/** What the connection tells with an event. */
struct tcp_cc_event {
    uint64_t now_us;
    uint32_t acked_bytes; /**< newly delivered; on_ack only */
    uint32_t flight_bytes; /**< sent and unacknowledged when the event happened */
    uint32_t mss_bytes;
    uint32_t srtt_us;
    uint32_t min_rtt_us; /**< UINT32_MAX: no sample yet */
    uint32_t rtt_us; /**< measured by this ACK; 0 = none */
    tcp_seq una, snd_nxt; /**< after the ACK: they tell rounds apart */
    /* The rest is for controls with a model. */
    bool cwnd_limited; /**< it was the congestion window that held data back (RFC 7661) */
    uint32_t pipe_bytes; /**< thought to be on the way now */
    uint32_t lost_bytes; /**< newly taken for lost; on_ack only, as are: */
    const struct tcp_rate_mark *lost_mark; /**< of the last of them; NULL: none */
    const struct tcp_rate_sample *sample;
    uint64_t bytes_per_s; /**< that it tells; 0 = none */
    uint32_t burst_bytes; /**< what is sent back to back */
    struct tcp_rate *rate; /**< the flow's delivery */
    void *model;
    bool in_recovery; /**< a reduction is going on, or would be */
};

struct tcp_cc_ops {
    const char *name;
    bool needs_ecn; /**< its connections ask for ECN whatever the domain's parameter says */
    /** It has TCP_CC_MODEL_BYTES of state of its own, is asked for a pacing rate, hears of every ACK by on_ack, whatever
     *  state the connection is in, and sets cwnd by itself: no reduction is carried out for it. */
    bool has_model;
    void (*init)(struct tcp_cc *cc, const struct tcp_cc_event *ev);
    /** Outside of a reduction, and the window was what held data back: cwnd grows. */
    void (*on_ack)(struct tcp_cc *cc, const struct tcp_cc_event *ev);
    void (*on_unused)(
        struct tcp_cc *cc); /**< as that, but the window was not used (RFC 7661): it does not grow. May be NULL */
    /** A reduction begins: ssthresh is its goal; cwnd comes down to it by PRR, which is not the control's doing. */
    void (*on_loss)(struct tcp_cc *cc, const struct tcp_cc_event *ev);
    /** The same, for congestion that was marked, not lost (RFC 3168). NULL: as on_loss. */
    void (*on_mark)(struct tcp_cc *cc, const struct tcp_cc_event *ev);
    /** Every ACK that delivers something, in every state; so much of it had congestion marks. May be NULL. */
    void (*on_feedback)(struct tcp_cc *cc, const struct tcp_cc_event *ev, uint32_t marked_bytes);
    void (*on_rto)(struct tcp_cc *cc, const struct tcp_cc_event *ev); /**< first timeout of a segment: ssthresh */
    void (*on_idle)(struct tcp_cc *cc, const struct tcp_cc_event *ev); /**< nothing was sent for an RTO */
    /* The rest is for controls with a model. */
    void (*on_recovered)(struct tcp_cc *cc, const struct tcp_cc_event *ev); /**< recovery has ended */
    void (*on_undo)(struct tcp_cc *cc, const struct tcp_cc_event *ev); /**< the loss was none */
    void (*on_start)(struct tcp_cc *cc, const struct tcp_cc_event *ev); /**< sends again, with nothing under way */
    uint64_t (*pacing_rate)(const struct tcp_cc *cc, const struct tcp_cc_event *ev); /**< bytes per second */
};

/** State of a control with a model. */
#define TCP_CC_MODEL_BYTES 192

enum tcp_cc_id { TCP_CC_CUBIC, TCP_CC_NEWRENO, TCP_CC_DCTCP, TCP_CC_BBR, TCP_CC_COUNT }; /* the first is the default */

extern const struct tcp_cc_ops tcp_cc_newreno, tcp_cc_cubic, tcp_cc_dctcp, tcp_cc_bbr;

extern const struct tcp_cc_ops *const tcp_cc_controls[TCP_CC_COUNT];

static inline const struct tcp_cc_ops *
tcp_cc_by_id(unsigned id)
{
    return tcp_cc_controls[id < TCP_CC_COUNT ? id : TCP_CC_CUBIC];
}

/** The id of the control of that name ("reno" is NewReno too, as Linux calls it), -1 if there is none. */
int tcp_cc_find(const char *name);

/** RFC 6928: the initial window. */
uint32_t tcp_cc_initial_window(uint32_t mss_bytes);

/** Slow start by acked_bytes, up to ssthresh (RFC 5681 section 3.1, RFC 3465). Returns the bytes that are left over. */
uint32_t tcp_cc_slow_start(struct tcp_cc *cc, uint32_t acked_bytes);

/** RFC 5681 section 4.1: the restart window. */
void tcp_cc_restart(struct tcp_cc *cc, const struct tcp_cc_event *ev);

/** Pacing of a control without a model: its window over a round trip, with room to grow. Bytes per second, 0 = unknown. */
uint64_t tcp_cc_pacing_rate(const struct tcp_cc *cc, uint32_t srtt_us);

/** Above it nothing in the engine's 32-bit arithmetic is in danger: 1 GiB. */
#define TCP_CWND_MAX_BYTES (1u << 30)

#endif /* TCP_CC_H */
