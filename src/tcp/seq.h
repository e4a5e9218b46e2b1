/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_SEQ_H
#define TCP_SEQ_H

#include <stdbool.h>
#include <stdint.h>

/** A TCP sequence number: compared modulo 2^32 (RFC 9293 section 3.4), never with < or >. */
typedef uint32_t tcp_seq;

static inline bool
seq_lt(tcp_seq a, tcp_seq b)
{
    return (int32_t)(a - b) < 0;
}

static inline bool
seq_leq(tcp_seq a, tcp_seq b)
{
    return (int32_t)(a - b) <= 0;
}

static inline bool
seq_gt(tcp_seq a, tcp_seq b)
{
    return (int32_t)(a - b) > 0;
}

static inline bool
seq_geq(tcp_seq a, tcp_seq b)
{
    return (int32_t)(a - b) >= 0;
}

/** a - b; the caller knows that a is not before b. */
static inline uint32_t
seq_diff(tcp_seq a, tcp_seq b)
{
    return a - b;
}

#endif /* TCP_SEQ_H */
