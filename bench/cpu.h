/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef BENCH_CPU_H
#define BENCH_CPU_H

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/** @file What bench-probe and bench-speed do with CPUs that the command line names. */

static inline uint64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/** Returns a CPU's number, or -1. */
static inline int
parse_cpu(const char *text)
{
    char *end;
    long cpu = strtol(text, &end, 10);

    return end == text || *end != '\0' || cpu < 0 || cpu >= CPU_SETSIZE ? -1 : (int)cpu;
}

/** Returns 0 or a number of errno. */
static inline int
pin(pthread_t thread, int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return pthread_setaffinity_np(thread, sizeof(set), &set);
}

#endif
