/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/md5sig.h"

#include <string.h>

/**
 * @file
 * What a signature (RFC 2385) is of. All calls of the library that sums are here.
 */

#define PROTO_TCP 6

void
tcp_md5_begin(MD5_CTX *sum, const struct ip_addr *src, const struct ip_addr *dst, const uint8_t *hdr,
              uint32_t payload_len)
{
    uint32_t len = (uint32_t)(hdr[12] >> 4) * 4 + payload_len;
    const uint8_t v4[4] = { 0, PROTO_TCP, (uint8_t)(len >> 8), (uint8_t)len };
    const uint8_t v6[8] = {
        (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, 0, 0, 0, PROTO_TCP
    };
    uint8_t fixed[TCP_HDR_MIN];
    bool is_v4 = ip_addr_is_v4(src);

    memcpy(fixed, hdr, sizeof(fixed));
    fixed[16] = fixed[17] = 0; /* the checksum */
    MD5Init(sum);
    MD5Update(sum, (const uint8_t *)&src->w[is_v4 ? 3 : 0], is_v4 ? 4 : 16);
    MD5Update(sum, (const uint8_t *)&dst->w[is_v4 ? 3 : 0], is_v4 ? 4 : 16);
    MD5Update(sum, is_v4 ? v4 : v6, is_v4 ? sizeof(v4) : sizeof(v6)); /* RFC 8200 section 8.1 has it longer */
    MD5Update(sum, fixed, sizeof(fixed));
}

void
tcp_md5_add(MD5_CTX *sum, const uint8_t *payload, uint32_t n_bytes)
{
    MD5Update(sum, payload, n_bytes);
}

void
tcp_md5_finish(const MD5_CTX *sum, const struct tcp_md5_key *key, uint8_t digest[TCP_MD5_DIGEST_BYTES])
{
    MD5_CTX all = *sum;

    MD5Update(&all, key->bytes, key->n_bytes);
    MD5Final(digest, &all);
}
