/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TEST_BACK_PAIR_H
#define TEST_BACK_PAIR_H

#include "back_net.h"

/**
 * @file
 * Two stacks with an application on each: what most tests of the back-end begin with.
 */

#define PORT 80

struct pair {
    struct lan net;
    struct fapp a, b; /**< on nodes 0 and 1 */
};

int pair_setup(void **state);
int pair_teardown(void **state);

uint32_t pair_status(const struct fapp *fa, uint32_t slot);
uint64_t pair_counter(const struct fapp *fa, enum counter_id id);

/** The byte at a position of a stream: wrong places show. */
uint8_t pair_byte(uint32_t pos);
void pair_pattern(uint8_t *out, uint32_t pos, uint32_t n);

/** Move `total` bytes and compare each. */
void pair_transfer(struct lan *net, struct fapp *from, uint32_t tx, struct fapp *to, uint32_t rx, uint32_t total);

#endif /* TEST_BACK_PAIR_H */
