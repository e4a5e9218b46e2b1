/* SPDX-License-Identifier: BSD-3-Clause */
#include <rte_cycles.h>

#include "core/clock.h"

static uint64_t base_tsc;
static uint64_t us_per_tsc; /* fixed point, 64 fractional bits: a TSC runs at more than 1 MHz */

void
clock_init(void)
{
    us_per_tsc = (uint64_t)(((unsigned __int128)1000000 << 64) / rte_get_tsc_hz());
    base_tsc = rte_rdtsc();
}

uint64_t
clock_us_at(uint64_t cycles)
{
    return (uint64_t)(((unsigned __int128)(cycles - base_tsc) * us_per_tsc) >> 64) + 1;
}

void
clock_scale(uint64_t *base, uint64_t *us_per_cycle)
{
    *base = base_tsc;
    *us_per_cycle = us_per_tsc;
}

uint64_t
clock_now_us(void)
{
    return clock_us_at(rte_rdtsc());
}

uint64_t
clock_cycles(void)
{
    return rte_rdtsc();
}
