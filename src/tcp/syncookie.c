/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/syncookie.h"

#include "tcp/siphash.h"

#define MSS_BITS 0x7u
#define PARITY_BIT 0x8u
#define HASH_BITS 0xfffffff0u

/** Keys of different purposes must differ (isn.c). */
#define TWEAK_COOKIE 0x7363u

/** What most peers say: the floor, RFC 9293's default, tunnels, IPv6 and IPv4 over Ethernet, jumbo frames. */
static const uint16_t mss_table[MSS_BITS + 1] = { 88, 536, 1220, 1360, 1400, 1440, 1460, 8940 };

static tcp_seq
hash_of(const uint64_t seed[2], const struct tcp_tuple *t, tcp_seq irs, unsigned mss_index, uint8_t opts,
        uint64_t period)
{
    const uint64_t secret[2] = { seed[0] ^ TWEAK_COOKIE, seed[1] };
    const uint64_t which[2][2] = { { period, 0 }, { period, 1 } };
    const uint64_t key[2] = { siphash24(secret, which[0], sizeof(which[0])),
                              siphash24(secret, which[1], sizeof(which[1])) };
    uint8_t bytes[sizeof(*t) + sizeof(irs) + 2];

    memcpy(bytes, t, sizeof(*t));
    memcpy(bytes + sizeof(*t), &irs, sizeof(irs));
    bytes[sizeof(bytes) - 2] = (uint8_t)mss_index;
    bytes[sizeof(bytes) - 1] = opts;
    return (tcp_seq)siphash24(key, bytes, sizeof(bytes)) & HASH_BITS;
}

tcp_seq
syncookie_make(const uint64_t seed[2], const struct tcp_tuple *t, tcp_seq irs, uint16_t mss, uint8_t opts,
               uint64_t now_us)
{
    uint64_t period = now_us / SYNCOOKIE_PERIOD_US;
    unsigned i = MSS_BITS;

    while (i > 0 && mss_table[i] > mss)
        i--;
    return hash_of(seed, t, irs, i, opts, period) | (period & 1 ? PARITY_BIT : 0) | i;
}

uint16_t
syncookie_check(const uint64_t seed[2], const struct tcp_tuple *t, tcp_seq irs, tcp_seq cookie, uint8_t opts,
                uint64_t now_us)
{
    uint64_t period = now_us / SYNCOOKIE_PERIOD_US;
    unsigned i = cookie & MSS_BITS;

    if ((period & 1) != ((cookie & PARITY_BIT) != 0))
        period--;
    return hash_of(seed, t, irs, i, opts, period) == (cookie & HASH_BITS) ? mss_table[i] : 0;
}
