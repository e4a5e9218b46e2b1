/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_PACK_H
#define TCP_PACK_H

#include <stdint.h>

/**
 * @file
 * Words as few bytes: most are zero or small. Knows no connection.
 *
 * Groups of four words: a bit for each group that is not all zero, in front of everything; then, for each such group, a byte that holds two bits for each of its words (0, 1, 2
 * or 4 bytes follow), and these bytes, the low ones first.
 */
#define TCP_PACK_GROUP 4u
#define TCP_PACK_GROUPS(n_words) (((n_words) + TCP_PACK_GROUP - 1) / TCP_PACK_GROUP)

/** Bytes that n_words take at most. */
#define TCP_PACK_MAX(n_words) ((TCP_PACK_GROUPS(n_words) + 7) / 8 + TCP_PACK_GROUPS(n_words) + 4 * (n_words))

/** Returns how many bytes were written, at most TCP_PACK_MAX(n_words). */
uint32_t tcp_pack(const uint32_t *words, uint32_t n_words, uint8_t *bytes);

/** The words back, from what tcp_pack wrote. */
void tcp_unpack(const uint8_t *bytes, uint32_t *words, uint32_t n_words);

/** A difference of either sign as a small number if it is small, and back. */
static inline uint32_t
tcp_pack_fold(uint32_t difference)
{
    return difference << 1 ^ (0u - (difference >> 31));
}

static inline uint32_t
tcp_pack_unfold(uint32_t folded)
{
    return folded >> 1 ^ (0u - (folded & 1));
}

#endif /* TCP_PACK_H */
