/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/pack.h"

#include <string.h>

/** Bytes of a word by its two bits. */
static const uint8_t width[4] = { 0, 1, 2, 4 };

static unsigned
code_of(uint32_t word)
{
    if (word > UINT16_MAX)
        return 3;
    return word > UINT8_MAX ? 2 : word != 0;
}

/* A word of no bytes is 0, and so are those behind the last. */
static uint32_t
word_at(const uint32_t *words, uint32_t n_words, uint32_t i)
{
    return i < n_words ? words[i] : 0;
}

uint32_t
tcp_pack(const uint32_t *words, uint32_t n_words, uint8_t *bytes)
{
    uint32_t groups = TCP_PACK_GROUPS(n_words);
    uint8_t *out = bytes + (groups + 7) / 8;

    memset(bytes, 0, (groups + 7) / 8);
    for (uint32_t g = 0; g < groups; g++) {
        uint8_t *codes = out;
        uint8_t *at = out + 1;

        *codes = 0;
        for (unsigned k = 0; k < TCP_PACK_GROUP; k++) {
            uint32_t word = word_at(words, n_words, g * TCP_PACK_GROUP + k);
            unsigned code = code_of(word);
            *codes |= (uint8_t)(code << 2 * k);
            for (unsigned b = 0; b < width[code]; b++)
                *at++ = (uint8_t)(word >> 8 * b);
        }
        if (*codes == 0)
            continue;
        bytes[g / 8] |= (uint8_t)(1u << g % 8);
        out = at;
    }
    return (uint32_t)(out - bytes);
}

void
tcp_unpack(const uint8_t *bytes, uint32_t *words, uint32_t n_words)
{
    uint32_t groups = TCP_PACK_GROUPS(n_words);
    const uint8_t *in = bytes + (groups + 7) / 8;

    for (uint32_t i = 0; i < n_words; i++)
        words[i] = 0;
    for (uint32_t g = 0; g < groups; g++) {
        if ((bytes[g / 8] & 1u << g % 8) == 0)
            continue;
        uint8_t codes = *in++;
        for (unsigned k = 0; k < TCP_PACK_GROUP; k++) {
            unsigned n = width[codes >> 2 * k & 3];
            for (unsigned b = 0; b < n; b++)
                words[g * TCP_PACK_GROUP + k] |= (uint32_t)*in++ << 8 * b;
        }
    }
}
