/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TEST_REPLAY_FRAMES_H
#define TEST_REPLAY_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * @file
 * Frames of a recorded conversation: read from a pcap file through a net_pcap port, taken apart, rewritten, compared, written.
 */

#define FRAME_BYTES_MAX 1600u

struct frame {
    uint64_t at_us;
    bool ours; /**< the stack sends it; else the recorded peer does */
    uint32_t len;
    uint8_t bytes[FRAME_BYTES_MAX];
};

struct frames {
    struct frame *v;
    size_t n, capacity;
};

/** What a frame of TCP over IPv4 holds, in host order. */
struct segment {
    uint32_t src, dst, seq, ack;
    uint16_t sport, dport, window, urgent, ip_id, frag;
    uint8_t tos, ttl, flags, options_len;
    const uint8_t *options, *payload;
    uint32_t payload_len;
};

void frames_add(struct frames *to, const struct frame *f);
void frames_free(struct frames *f);

/** All frames of a file, by a net_pcap port of its own. `ours` is not set. Returns 0, or -1 with a line on stderr. */
int frames_read(struct frames *to, const char *path);
/** Returns 0, or -1 with a line on stderr. */
int frames_write(const struct frames *f, const char *path);

/** false: no TCP over IPv4 over Ethernet, or cut. */
bool segment_parse(const struct frame *f, struct segment *s);

/** How a recorded conversation is carried over to the replayed one. Sequence numbers are added to modulo 2^32. */
struct rewrite {
    uint32_t our_addr, peer_addr; /**< as they shall be */
    uint32_t our_seq, our_ts; /**< added to what the peer acknowledges and echoes */
    uint8_t our_mac[6], peer_mac[6];
};

/** Rewrite a frame of the peer's; checksums are made anew. */
void frame_rewrite(struct frame *f, const struct rewrite *w);

/** The first field in which two segments differ, "" if there is none; what each has is put into text. */
const char *segment_differs(const struct segment *a, const struct segment *b, char *text, size_t size);

#endif /* TEST_REPLAY_FRAMES_H */
