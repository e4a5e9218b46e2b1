/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_STEER_H
#define TCP_STEER_H

#include <stdint.h>

#include "core/steer.h"
#include "ip/addr.h"

/**
 * @file
 * To which of several domains a tuple belongs. The port may divide arriving frames over its queues by the same rule; then each reaches its domain's owner by
 * itself. Domains choose the ports of outbound connections by it, so that the answers come to them. Knows no connection.
 */

struct tcp_tuple;

enum tcp_steer_by {
    TCP_STEER_HASH, /**< tcp_hash: no port of a network knows it */
    TCP_STEER_TOEPLITZ, /**< receive-side scaling: the bucket that the Toeplitz hash of addresses and ports names, modulo count */
    TCP_STEER_PORTS, /**< low bits of one port number, which exact-match filters can tell (core/steer.h) */
};

struct tcp_steer {
    uint32_t by; /**< enum tcp_steer_by */
    uint32_t count; /**< domains; 0 is as 1: every tuple belongs to domain 0 */
    uint32_t buckets; /**< a power of two: entries of the port's redirection table, or values of the low bits */
    uint8_t key[STEER_KEY_BYTES]; /**< of TCP_STEER_TOEPLITZ, as the port has it */
};

/** The Toeplitz hash of a segment from t->remote to t->local, as a network card forms it over addresses and ports. */
uint32_t tcp_steer_toeplitz(const uint8_t key[STEER_KEY_BYTES], const struct tcp_tuple *t);

/** Domain of a bucket. */
static inline uint32_t
tcp_steer_bucket(const struct tcp_steer *st, uint32_t hash)
{
    return (hash & (st->buckets - 1)) % st->count;
}

/** The domain, below count. */
uint32_t tcp_steer(const struct tcp_steer *st, const struct tcp_tuple *t);

#endif /* TCP_STEER_H */
