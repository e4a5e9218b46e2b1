/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <stdint.h>

/**
 * @file
 * The one place that reads time. A worker reads the clock once per poll and hands `now_us` down; nothing below
 * a worker reads it again (a CI check looks for other readers). Microseconds since clock_init, monotonic.
 */

/** Calibrate; call once after the EAL has started. */
void clock_init(void);

/** Microseconds since clock_init, at least 1. */
uint64_t clock_now_us(void);

/** What clock_us_at computes with, for who reads the CPU's counter elsewhere: (cycles - *base) * *us_per_cycle / 2^64 + 1. */
void clock_scale(uint64_t *base, uint64_t *us_per_cycle);

/** TSC cycles, for the counters of what a worker's passes cost. */
uint64_t clock_cycles(void);

/** The microseconds that clock_now_us would have said when clock_cycles said `cycles`: for who needs both from one reading. */
uint64_t clock_us_at(uint64_t cycles);

#endif /* CORE_CLOCK_H */
