/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_MTU_H
#define TCP_MTU_H

#include <stdint.h>

/**
 * @file
 * The search for the largest packet that a path delivers, by trying (RFC 4821). Knows no connection.
 *
 * Sizes are those of IP packets less the fixed IP and TCP headers, as the MSS option counts them (RFC 6691).
 */

/** A search that has come as close as this ends: another probe costs more than the rest is worth (Linux's tcp_probe_threshold). */
#define TCP_MTU_NEAR 8

struct tcp_mtu {
    uint16_t low; /**< taken to be delivered */
    uint16_t high; /**< nothing larger is tried */
    uint16_t probe; /**< what is being tried, 0 = nothing */
    uint16_t nb_lost; /**< tries that did not arrive: high is what they left, else what nobody exceeds */
};

void tcp_mtu_init(struct tcp_mtu *m, uint16_t low, uint16_t high);

/** The size to try next, larger than used; 0 = the search has ended. */
uint16_t tcp_mtu_next(const struct tcp_mtu *m, uint16_t used);

/** What was being tried has arrived; it is the low bound from now on. */
void tcp_mtu_delivered(struct tcp_mtu *m);

/** It has not; the path is said to take `said`, if that is not 0. */
void tcp_mtu_lost(struct tcp_mtu *m, uint16_t said);

/** Nothing gets through any more that is as large as used: what to go on with (section 7.7). First base, then halves, at least floor. */
uint16_t tcp_mtu_black_hole(struct tcp_mtu *m, uint16_t used, uint16_t base, uint16_t floor);

#endif /* TCP_MTU_H */
