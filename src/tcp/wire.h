/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_WIRE_H
#define TCP_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "tcp/tcp.h"

#define TCP_MD5_DIGEST_BYTES 16u

/** Where in a header that is to be signed the digest goes (RFC 2385): tcp_wire_build leaves zeros there. */
#define TCP_MD5_DIGEST_OFF (TCP_HDR_MIN + 4u)

/** Longest TCP header (RFC 9293 section 3.1). */
#define TCP_HDR_MAX 60u
#define TCP_HDR_MIN 20u

/**
 * Parse a TCP header of at most len bytes (header and payload, contiguous at least for the header) into `in`: ports, seq, ack,
 * flags, window, options, urgent pointer; data.off and data.len are set relative to hdr. The rest is the caller's. Returns the header's
 * length, or -EBADMSG (truncated, bad data offset) or -EINVAL (malformed options).
 */
int tcp_wire_parse(const uint8_t *hdr, size_t len, struct tcp_in *in);

/**
 * Write the header (checksum 0) at hdr, where TCP_HDR_MAX bytes are free; returns its length, a multiple of 4. Options come in the order in which Linux
 * writes them.
 */
size_t tcp_wire_build(const struct tcp_out *out, uint8_t *hdr);

#endif /* TCP_WIRE_H */
