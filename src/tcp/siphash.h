/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_SIPHASH_H
#define TCP_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/**
 * @file
 * SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed 64-bit hash that an attacker who lacks the key can neither
 * predict nor steer into collisions. Little-endian machines, as everywhere in the engine.
 */

static inline uint64_t
siphash_rotl(uint64_t x, unsigned b)
{
    return (x << b) | (x >> (64 - b));
}

static inline void
siphash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = siphash_rotl(v[1], 13) ^ v[0];
    v[3] = siphash_rotl(v[3], 16) ^ v[2];
    v[0] = siphash_rotl(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = siphash_rotl(v[1], 17) ^ v[2];
    v[3] = siphash_rotl(v[3], 21) ^ v[0];
    v[2] = siphash_rotl(v[2], 32);
}

static inline void
siphash_word(uint64_t v[4], uint64_t m)
{
    v[3] ^= m;
    siphash_round(v);
    siphash_round(v);
    v[0] ^= m;
}

static inline uint64_t
siphash24(const uint64_t key[2], const void *data, size_t len)
{
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                      key[1] ^ 0x7465646279746573u };
    const uint8_t *p = data;
    size_t left = len;
    uint64_t m;

    for (; left >= sizeof(m); left -= sizeof(m), p += sizeof(m)) {
        memcpy(&m, p, sizeof(m));
        siphash_word(v, m);
    }
    m = 0;
    memcpy(&m, p, left);
    siphash_word(v, m | (uint64_t)len << 56);
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        siphash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif /* TCP_SIPHASH_H */
