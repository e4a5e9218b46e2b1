/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_TUNE_H
#define TCP_TUNE_H

#include <stdint.h>

#include "tcp/seq.h"

/**
 * @file
 * The size of a receive buffer: as much as the application takes in a round trip, with room for the sender to double what it
 * sends in one. Knows no connection. Instants are modulo 2^32.
 */
struct tcp_tune {
    uint32_t rtt_us; /**< as the receiver sees it; 0 = unknown yet */
    uint32_t window_at_us; /**< a window's worth is timed since */
    tcp_seq window_end; /**< and has arrived when rcv_nxt gets here; of no meaning while window_at_us is 0 */
    uint32_t round_at_us;
    uint32_t taken_bytes; /**< by the application, in this round */
    uint32_t before_bytes; /**< most that it took in one */
};

/** Payload has arrived up to rcv_nxt, and wnd_bytes beyond are offered: what fills a window takes a round trip at least. */
void tcp_tune_arrived(struct tcp_tune *t, tcp_seq rcv_nxt, uint32_t wnd_bytes, uint32_t now_us);

/**
 * The application has taken n_bytes. rtt_us: what the connection knows by itself, 0 = nothing. Returns the size that the buffer should
 * have: buf_bytes or more, at most max_bytes unless it is larger already.
 */
uint32_t tcp_tune_taken(struct tcp_tune *t, uint32_t n_bytes, uint32_t rtt_us, uint32_t mss_bytes, uint32_t buf_bytes,
                        uint32_t max_bytes, uint32_t now_us);

/**
 * A gap holds up span_bytes, from the first missing byte to the last that has come: the application can take none of them until it is
 * filled, and the sender goes on meanwhile. Returns the size that the buffer should have, as tcp_tune_taken does.
 */
uint32_t tcp_tune_gap(const struct tcp_tune *t, uint32_t span_bytes, uint32_t mss_bytes, uint32_t buf_bytes,
                      uint32_t max_bytes);

#endif /* TCP_TUNE_H */
