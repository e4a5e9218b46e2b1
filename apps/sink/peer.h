/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SINK_PEER_H
#define SINK_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "isobench/hello.h"

/**
 * @file
 * The TCP that answers behind the sink wire: what `isobench serve` does for a client, and no more of TCP than that needs. It is a passive
 * peer without a clock or a lock: segments go in as headers, come out as headers, and received bytes are only counted.
 *
 *   - Every connection is accepted; its first bytes are isobench's hello (hello.h), anything else is answered with a reset.
 *   - All data is taken at once, so the window is always open. An acknowledgement goes out for every `ack_segments` full segments, and for what is
 *     left when the peer is asked for output.
 *   - Out-of-order data is remembered in a few ranges and reported by SACK. What the peer sends itself it sends again, from the oldest unacknowledged
 *     byte on, after three duplicate acknowledgements or PEER_RESEND_US without progress; there is no congestion control, since the wire is memory.
 *   - No TIME-WAIT: what comes after the end is answered with a reset.
 *
 * One thread at a time for each peer. Addresses and ports are in network order, all else is in host order.
 */

#define PEER_SACKS_MAX 3u
#define PEER_RESEND_US 200000u

/* TCP's flags, as on the wire. */
#define PEER_FIN 0x01u
#define PEER_SYN 0x02u
#define PEER_RST 0x04u
#define PEER_PSH 0x08u
#define PEER_ACK 0x10u

/** Addresses of a connection; "stack" is the station under test. */
struct peer_tuple {
    uint32_t stack_addr, own_addr;
    uint16_t stack_port, own_port;
};

/** A segment that the stack has sent. */
struct peer_segment {
    struct peer_tuple tuple;
    uint32_t seq, ack;
    uint32_t payload_bytes; /**< up to 64 KiB where the wire does segmentation */
    uint32_t ts_value;
    uint32_t hash; /**< of the tuple, the caller's: replies bring it back */
    uint16_t window; /**< unscaled */
    uint16_t mss; /**< 0 = no option */
    uint8_t flags;
    uint8_t wscale; /**< valid if has_wscale */
    bool has_wscale, has_ts, has_sack_ok;
    uint8_t head[HELLO_BYTES]; /**< the payload's first bytes, as many as there are */
};

/** A segment for the stack. */
struct peer_reply {
    struct peer_tuple tuple;
    uint32_t seq, ack;
    uint32_t ts_echo;
    uint32_t hash; /**< as the connection's first segment had it */
    uint32_t sacks[PEER_SACKS_MAX][2];
    uint8_t payload[HELLO_TOTAL_BYTES]; /**< if has_payload; else the payload does not matter */
    uint16_t payload_bytes;
    uint16_t window; /**< as it goes into the header */
    uint16_t mss; /**< 0 = no option; only with SYN */
    uint8_t flags;
    uint8_t wscale; /**< only with SYN */
    uint8_t nb_sacks;
    bool has_wscale, has_ts, has_sack_ok, has_payload;
};

struct peer_config {
    uint32_t max_conns; /**< further SYNs are answered with a reset */
    uint32_t window_bytes; /**< receive window that the stack sees */
    uint32_t ack_segments; /**< at least 1 */
    uint16_t mss; /**< own, in bytes */
};

/** What a peer has seen. */
struct peer_stats {
    uint64_t opened, refused, reordered, resent;
    uint32_t open; /**< connections now */
};

struct peer;

/** NULL without memory. Memory is touched as connections come. */
struct peer *peer_create(const struct peer_config *cfg);
void peer_destroy(struct peer *p);

/** Begin loading what peer_input will touch. */
void peer_prefetch(const struct peer *p, const struct peer_tuple *t);

/** Take a segment. */
void peer_input(struct peer *p, const struct peer_segment *s);

/** Whether peer_output has something. */
bool peer_has_output(const struct peer *p);

/** The next segment for the stack; false if there is none. */
bool peer_output(struct peer *p, struct peer_reply *out);

/** Look at a few connections: who makes no progress sends again. To be called now and then; cheap. */
void peer_tick(struct peer *p, uint64_t now_us);

const struct peer_stats *peer_stats(const struct peer *p);

#endif /* SINK_PEER_H */
