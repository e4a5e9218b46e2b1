/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_SACK_H
#define TCP_SACK_H

#include <stdint.h>

#include "tcp/pool.h"
#include "tcp/seq.h"

/**
 * @file
 * The sender's scoreboard (RFC 2018, RFC 6675): which ranges above the cumulative acknowledgement the peer says it
 * has. Knows no connection. Ranges are sorted, disjoint and do not touch; a board holds at most TCP_SACK_RANGES_MAX of
 * them, so that a peer that lies can neither fill the pool nor make a walk long. A range that finds no room is
 * forgotten, which is safe: those bytes count as not received.
 */
#define TCP_SACK_RANGES_MAX 128

struct tcp_sack_range {
    uint32_t next; /**< index, 0 at the end */
    tcp_seq start, end; /**< [start, end) */
};

struct tcp_sack_board {
    uint32_t head; /**< lowest range; 0 <=> empty */
    uint32_t bytes; /**< i.e. the sum of end - start */
    uint32_t count; /**< ranges */
};

/** The ranges of all boards of a domain. */
struct tcp_sack_store {
    struct tcp_pool *pool;
    struct tcp_sack_range *ranges;
};

/** Add [start, end), which the caller has checked against what was sent. Returns the bytes that are new. */
uint32_t tcp_sack_add(struct tcp_sack_store s, struct tcp_sack_board *b, tcp_seq start, tcp_seq end);

/** Forget what lies below una. */
void tcp_sack_advance(struct tcp_sack_store s, struct tcp_sack_board *b, tcp_seq una);

void tcp_sack_clear(struct tcp_sack_store s, struct tcp_sack_board *b);

/** Bytes of [from, to) that the board does not hold. */
uint32_t tcp_sack_missing(struct tcp_sack_store s, const struct tcp_sack_board *b, tcp_seq from, tcp_seq to);

/** The first stretch of [from, limit) that the board does not hold, into [*start, *end); false if there is none. */
bool tcp_sack_hole(struct tcp_sack_store s, const struct tcp_sack_board *b, tcp_seq from, tcp_seq limit, tcp_seq *start,
                   tcp_seq *end);

/**
 * IsLost of RFC 6675: every byte below the result that the board does not hold has dup_thresh ranges, or more than
 * (dup_thresh - 1) * mss bytes, above it. una if nothing is lost.
 */
tcp_seq tcp_sack_lost_below(struct tcp_sack_store s, const struct tcp_sack_board *b, tcp_seq una, uint32_t dup_thresh,
                            uint32_t mss);

/** End of the highest range; una if the board is empty. */
tcp_seq tcp_sack_highest(struct tcp_sack_store s, const struct tcp_sack_board *b, tcp_seq una);

#endif /* TCP_SACK_H */
