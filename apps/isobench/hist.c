/* SPDX-License-Identifier: BSD-3-Clause */
#include "hist.h"

#include <math.h>
#include <string.h>

static unsigned
bucket_of(uint64_t value)
{
    unsigned shift;

    if (value < 2 * HIST_STEPS)
        return (unsigned)value;
    /* value >> shift is in [128, 256). */
    shift = 63u - (unsigned)__builtin_clzll(value) - HIST_STEPS_LOG2;
    return shift * HIST_STEPS + (unsigned)(value >> shift);
}

/** The largest value that falls into the bucket. */
static uint64_t
bucket_last(unsigned i)
{
    unsigned shift;

    if (i < 2 * HIST_STEPS)
        return i;
    shift = i / HIST_STEPS - 1;
    return ((uint64_t)(i % HIST_STEPS + HIST_STEPS) << shift) + ((UINT64_C(1) << shift) - 1);
}

void
hist_init(struct hist *h)
{
    memset(h, 0, sizeof(*h));
    h->min = UINT64_MAX;
}

void
hist_add(struct hist *h, uint64_t value)
{
    h->bucket[bucket_of(value)]++;
    h->count++;
    if (value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
}

void
hist_merge(struct hist *h, const struct hist *from)
{
    if (from->count == 0)
        return;
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        h->bucket[i] += from->bucket[i];
    h->count += from->count;
    if (from->min < h->min)
        h->min = from->min;
    if (from->max > h->max)
        h->max = from->max;
}

uint64_t
hist_percentile(const struct hist *h, double share)
{
    uint64_t rank, below = 0;

    if (h->count == 0)
        return 0;
    if (share <= 0)
        return h->min;
    rank = (uint64_t)ceil(share * (double)h->count);
    if (rank >= h->count)
        return h->max;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        below += h->bucket[i];
        if (below >= rank) {
            uint64_t last = bucket_last(i);

            return last > h->max ? h->max : last;
        }
    }
    return h->max;
}
