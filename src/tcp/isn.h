/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_ISN_H
#define TCP_ISN_H

#include <stdint.h>

#include "tcp/tcp.h"

/** Initial sequence number: a clock of 4 us plus a keyed hash of the tuple (RFC 6528 section 3). */
tcp_seq tcp_isn(const uint64_t key[2], const struct tcp_tuple *t, uint64_t now_us);

/**
 * Offset of the timestamp clock: a keyed hash of the two addresses (RFC 7323 section 7.1), the same for
 * all connections of a pair of hosts, so that timestamps stay monotonic from one to the next and RFC 6191 works.
 */
uint32_t tcp_ts_offset(const uint64_t key[2], const struct tcp_tuple *t);

/** The timestamp clock: 1 ms, within the 1 ms to 1 s that RFC 7323 section 5.4 asks for. */
static inline uint32_t
tcp_ts_clock(uint64_t now_us, uint32_t offset)
{
    return (uint32_t)(now_us / 1000) + offset;
}

#endif /* TCP_ISN_H */
