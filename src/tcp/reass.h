/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_REASS_H
#define TCP_REASS_H

#include <stdbool.h>
#include <stdint.h>

#include "tcp/pool.h"
#include "tcp/seq.h"
#include "tcp/tcp.h"

/**
 * @file
 * The receiver's queue of payload that cannot be delivered yet: out of order, or in order before anyone has accepted
 * the connection. Knows no connection. Segments are sorted and disjoint; of bytes that arrive twice the first copy stays,
 * so that nobody can change what was acknowledged.
 */
struct tcp_reass_seg {
    uint32_t next; /**< index, 0 at the end */
    tcp_seq seq; /**< of the first payload byte */
    struct tcp_data data;
};

struct tcp_reass {
    uint32_t head, tail; /**< lowest and highest segment, 0 <=> empty */
    uint32_t bytes; /**< payload held */
    uint32_t count; /**< segments held */
    tcp_seq fin_seq; /**< where the peer's FIN stands, if has_fin */
    bool has_fin;
    uint8_t nb_sack;
    uint16_t pad;
    struct tcp_sack_block sack[TCP_MAX_SACK]; /**< most recent first (RFC 2018 section 4) */
};

/** The segments of all queues of a domain. */
struct tcp_reass_store {
    struct tcp_pool *pool;
    struct tcp_reass_seg *segs;
    const struct tcp_locks *locks; /**< for the pool; NULL = one thread at a time */
};

enum tcp_reass_result {
    TCP_REASS_KEPT, /**< the buffer belongs to the queue */
    TCP_REASS_DUP, /**< nothing new in it: the buffer stays with the caller */
    TCP_REASS_FULL, /**< no room: the buffer stays with the caller */
};

/** Insert payload at seq; max_segs bounds the queue's length. Buffers that become useless go to the sink. */
enum tcp_reass_result tcp_reass_insert(struct tcp_reass_store s, struct tcp_reass *q, tcp_seq seq, struct tcp_data data,
                                       uint32_t max_segs, const struct tcp_sink *sink);

/** Take the first segment off if it begins at or before limit; what lies below limit is trimmed away (`data` may come
 *  out empty: its buffer is to be released). The caller owns the buffer. false if there is none. */
bool tcp_reass_pop(struct tcp_reass_store s, struct tcp_reass *q, tcp_seq limit, struct tcp_data *data);

/** End of the unbroken run of payload that begins at from; from if the queue holds none there. */
tcp_seq tcp_reass_run(struct tcp_reass_store s, const struct tcp_reass *q, tcp_seq from);

/** What of [start, end) the queue holds already: the first unbroken run, empty if nothing. */
struct tcp_sack_block tcp_reass_held(struct tcp_reass_store s, const struct tcp_reass *q, tcp_seq start, tcp_seq end);

/** Release everything. */
void tcp_reass_clear(struct tcp_reass_store s, struct tcp_reass *q, const struct tcp_sink *sink);

/** Note that [start, end) has arrived out of order: it becomes the first SACK block, with those that it touches. */
void tcp_reass_sack_note(struct tcp_reass *q, tcp_seq start, tcp_seq end);

/** Drop SACK blocks that lie below rcv_nxt. */
void tcp_reass_sack_advance(struct tcp_reass *q, tcp_seq rcv_nxt);

#endif /* TCP_REASS_H */
