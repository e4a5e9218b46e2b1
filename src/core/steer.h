/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_STEER_H
#define CORE_STEER_H

#include <stdint.h>

/**
 * @file
 * The rules by which a port can divide connections over its queues, as far as who programs the port and who predicts it must agree.
 */

/** Bytes of a Toeplitz key that matter: the longest input is an IPv6 tuple, 36 bytes, and four more. */
#define STEER_KEY_BYTES 40u

/**
 * Of a connection one end has a port number that was chosen at random, and its low bits must decide where exact-match filters steer, or all connections
 * of a service would go to one queue: ours if it is in the upper half, where such ports are taken from (RFC 6335 section 6), else the peer's.
 */
#define STEER_OWN_PORT 0x8000u
static inline uint16_t
steer_port(uint16_t local_port, uint16_t remote_port)
{
    return local_port & STEER_OWN_PORT ? local_port : remote_port;
}

#endif /* CORE_STEER_H */
