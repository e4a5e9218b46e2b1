/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOBENCH_HIST_H
#define ISOBENCH_HIST_H

#include <stdint.h>

/**
 * @file
 * A log-linear histogram of 64-bit values: exact below 256, above that each power of two is cut into 128 equal steps, so that a bucket is at most 1/128
 * (0.8%) as wide as its values are large. Any value fits; adding costs a shift and an increment. Not thread-safe: one for each thread, merged at the end.
 */

#define HIST_STEPS_LOG2 7u
#define HIST_STEPS (1u << HIST_STEPS_LOG2)
/* Shifts 0 to 64 - 1 - 7, each with 128 steps, and once more 128 for shift 0's lower half. */
#define HIST_BUCKETS ((64u - HIST_STEPS_LOG2 + 1u) * HIST_STEPS)

struct hist {
    uint64_t count; /**< i.e. the sum of bucket[] */
    uint64_t min, max; /**< exact; meaningless while count is 0 */
    uint64_t bucket[HIST_BUCKETS];
};

void hist_init(struct hist *h);

void hist_add(struct hist *h, uint64_t value);

/** Add all of from's values to h. */
void hist_merge(struct hist *h, const struct hist *from);

/**
 * The smallest value that at least the given share of all values does not exceed, to the histogram's resolution: never below the true one, and above it by less
 * than 0.8%. share is in [0, 1]; 0 gives the minimum and 1 the maximum, both exact. 0 if the histogram is empty.
 */
uint64_t hist_percentile(const struct hist *h, double share);

#endif /* ISOBENCH_HIST_H */
