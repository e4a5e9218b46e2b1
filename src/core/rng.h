/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_RNG_H
#define CORE_RNG_H

#include <stdbool.h>
#include <stdint.h>

/**
 * @file
 * Seeded pseudo-random numbers (splitmix64), for impairment and tests: the same seed and stream give the same
 * numbers everywhere. Not for anything that an attacker may not guess.
 */
struct rng {
    uint64_t state;
};

static inline uint64_t
rng_next(struct rng *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/** stream: generators with one seed and different streams are unrelated. */
static inline void
rng_init(struct rng *r, uint64_t seed, uint64_t stream)
{
    r->state = stream;
    r->state = seed ^ rng_next(r);
    r->state = rng_next(r);
}

/** Uniform in [0, bound); bound > 0. The bias is below bound / 2^32. */
static inline uint32_t
rng_below(struct rng *r, uint32_t bound)
{
    return (uint32_t)(((rng_next(r) >> 32) * bound) >> 32);
}

/** True with a probability of ppm parts per million. */
static inline bool
rng_chance_ppm(struct rng *r, uint32_t ppm)
{
    return ppm != 0 && rng_below(r, 1000000) < ppm;
}

#endif /* CORE_RNG_H */
