/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/isn.h"

#include "tcp/siphash.h"

_Static_assert(sizeof(struct tcp_tuple) == 36, "hashed as bytes: no padding");

/** Keys of different purposes must differ: one secret, whitened by a constant for each. */
#define TWEAK_TS_OFFSET 0x7473u

tcp_seq
tcp_isn(const uint64_t key[2], const struct tcp_tuple *t, uint64_t now_us)
{
    return (tcp_seq)(siphash24(key, t, sizeof(*t)) + now_us / 4);
}

uint32_t
tcp_ts_offset(const uint64_t key[2], const struct tcp_tuple *t)
{
    const uint64_t k[2] = { key[0] ^ TWEAK_TS_OFFSET, key[1] };

    return (uint32_t)siphash24(k, t, 2 * sizeof(struct ip_addr));
}
