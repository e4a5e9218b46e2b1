/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef IP_SUM_H
#define IP_SUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

/** With the carry brought round, the sum of 64-bit words is one of 16-bit words too. */
static inline uint64_t
sum_carry(uint64_t a, uint64_t b)
{
    a += b;
    return a + (a < b);
}

/** A 16-bit number as the sum has it that stands in the packet in network order: modulo 0xffff a multiplication by 256 turns its bytes round. */
static inline uint64_t
sum_of_be16(uint32_t x)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (uint64_t)x << 8;
#else
    return x;
#endif
}

/** sum_add of 20 bytes: an IPv4 header without options. */
static inline uint64_t
sum_add_20(const void *bytes)
{
    uint64_t low, mid;
    uint32_t high;

    memcpy(&low, bytes, sizeof(low));
    memcpy(&mid, (const char *)bytes + 8, sizeof(mid));
    memcpy(&high, (const char *)bytes + 16, sizeof(high));
    low = sum_carry(low, mid);
    return (low & UINT32_MAX) + (low >> 32) + high;
}

/** To 16 bits: 0xffff over data with its right checksum. The upper half of x and x with its halves swapped is both halves' sum, carry included. */
static inline uint16_t
sum_fold(uint64_t sum)
{
    uint32_t x = (uint32_t)sum, high = (uint32_t)(sum >> 32);

    x += high;
    x += x < high;
    return (uint16_t)((x + (x << 16 | x >> 16)) >> 16);
}

#endif /* IP_SUM_H */
