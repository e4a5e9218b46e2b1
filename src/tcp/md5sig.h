/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_MD5SIG_H
#define TCP_MD5SIG_H

#include <stdint.h>

#include <md5.h>

#include "tcp/wire.h"

/**
 * @file
 * Signatures of segments (RFC 2385), for whoever has their bytes: the engine has the keys alone. A digest is of the pseudo-header, the header without its options and with
 * checksum 0, the payload and the key, in this order; so all but the key is summed up before the engine is asked.
 */

/** A signature that has arrived. */
struct tcp_md5_seen {
    MD5_CTX sum; /**< of all but the key */
    uint8_t digest[TCP_MD5_DIGEST_BYTES]; /**< as it came */
    const struct tcp_md5_key
        *key; /**< which it was made with: the engine's finding, of whose answers it is the key too */
};

/** Begin with a segment from src to dst: hdr is its header, options and all. tcp_md5_add with its payload_len bytes of payload, in one piece or several, follows. */
void tcp_md5_begin(MD5_CTX *sum, const struct ip_addr *src, const struct ip_addr *dst, const uint8_t *hdr,
                   uint32_t payload_len);

void tcp_md5_add(MD5_CTX *sum, const uint8_t *payload, uint32_t n_bytes);

/** The end. The sum itself stays as it is. */
void tcp_md5_finish(const MD5_CTX *sum, const struct tcp_md5_key *key, uint8_t digest[TCP_MD5_DIGEST_BYTES]);

#endif /* TCP_MD5SIG_H */
