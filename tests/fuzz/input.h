/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/**
 * @file
 * What the targets share: reading an input from the front, and the check that ends the run. An input that is used up reads as zeros, so that
 * each prefix of an input is an input.
 */

/* libFuzzer's, and the replaying runner's, entry points. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(cond)                                                                                               \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond);                                  \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

struct input {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t
input_u8(struct input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

static inline uint16_t
input_u16(struct input *in)
{
    uint16_t low = input_u8(in);

    return (uint16_t)(low | input_u8(in) << 8);
}

static inline uint32_t
input_u32(struct input *in)
{
    uint32_t low = input_u16(in);

    return low | (uint32_t)input_u16(in) << 16;
}

/** At most n bytes; *len is how many there are. */
static inline const uint8_t *
input_bytes(struct input *in, size_t n, size_t *len)
{
    const uint8_t *at = in->at;

    *len = n < in->left ? n : in->left;
    in->at += *len;
    in->left -= *len;
    return at;
}

#endif /* TESTS_FUZZ_INPUT_H */
