/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef IP_SUM_H
#define IP_SUM_H

#include <stddef.h>
#include <stdint.h>

/**
 * @file
 * The Internet checksum's ones' complement sum (RFC 1071). Where a port computes none, this is most of what a full segment costs, at both ends; so blocks
 * are added by vectors, as wide as the CPU has them.
 */

/**
 * Sum of n_bytes from any address, as 16-bit words in memory order; an odd last byte counts as the first of a word. Not folded completely: add to others,
 * then sum_fold.
 */
uint64_t sum_add(const void *bytes, size_t n_bytes);

/** To 16 bits: 0xffff over data with its right checksum. */
static inline uint16_t
sum_fold(uint64_t sum)
{
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    return (uint16_t)sum;
}

#endif /* IP_SUM_H */
