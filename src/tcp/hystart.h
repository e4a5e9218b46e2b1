/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_HYSTART_H
#define TCP_HYSTART_H

#include <stdbool.h>

#include "tcp/cc.h"

/**
 * @file
 * HyStart++ (RFC 9406): leave slow start when the round-trip time grows, before the queue overflows. Knows no
 * connection; a control that uses it keeps its state.
 */
struct tcp_hystart {
    tcp_seq round_end; /**< windowEnd */
    uint32_t last_min_us, min_us; /**< least RTT of the last and of the present round; 0 = none yet */
    uint32_t css_baseline_us; /**< 0 <=> not in conservative slow start */
    uint8_t samples; /**< of the present round */
    uint8_t css_rounds;
    bool started;
    uint8_t pad;
};

/** How slow start goes on after an ACK. */
enum tcp_hystart_verdict { TCP_HYSTART_FAST, TCP_HYSTART_SLOW, TCP_HYSTART_LEAVE };

enum tcp_hystart_verdict tcp_hystart_on_ack(struct tcp_hystart *h, const struct tcp_cc_event *ev);

/** RFC 9406 section 4.2: CSS_GROWTH_DIVISOR. */
#define TCP_HYSTART_CSS_DIVISOR 4

#endif /* TCP_HYSTART_H */
