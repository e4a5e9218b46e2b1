/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_SYNCOOKIE_H
#define TCP_SYNCOOKIE_H

#include "tcp/tcp.h"

/**
 * @file
 * SYN cookies (RFC 4987 section 3.6): what a listener must know of a SYN goes into its answer's sequence number and
 * timestamp, comes back with the ACK, and nothing is kept meanwhile. Knows no connection.
 *
 * The sequence number holds the MSS, as one of eight, the parity of the period, and 28 bits of a keyed hash over all of
 * it. The timestamp's low six bits hold the rest. The key is another one in each period.
 */

#define SYNCOOKIE_PERIOD_US 64000000ull

/** A cookie is good for the period that it was made in and the next. */
#define SYNCOOKIE_LIFE_US (2 * SYNCOOKIE_PERIOD_US)

/* What the timestamp's low bits say: the peer's window scale, and what was agreed on. */
#define SYNCOOKIE_WSCALE 0x0fu
#define SYNCOOKIE_NO_WSCALE 0x0fu
#define SYNCOOKIE_SACK 0x10u
#define SYNCOOKIE_ECN 0x20u
#define SYNCOOKIE_OPTS 0x3fu

/** The cookie for a SYN with sequence number irs; the MSS is rounded down. */
tcp_seq syncookie_make(const uint64_t seed[2], const struct tcp_tuple *t, tcp_seq irs, uint16_t mss, uint8_t opts,
                       uint64_t now_us);

/** The MSS in a cookie that this key has made of all that, and not too long ago; else 0. */
uint16_t syncookie_check(const uint64_t seed[2], const struct tcp_tuple *t, tcp_seq irs, tcp_seq cookie, uint8_t opts,
                         uint64_t now_us);

/** The latest timestamp that is not after `clock` and says opts. */
static inline uint32_t
syncookie_stamp(uint32_t clock, uint8_t opts)
{
    uint32_t stamp = (clock & ~SYNCOOKIE_OPTS) | opts;

    return (int32_t)(stamp - clock) > 0 ? stamp - (SYNCOOKIE_OPTS + 1) : stamp;
}

#endif /* TCP_SYNCOOKIE_H */
