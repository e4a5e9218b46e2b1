/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOBENCH_RUN_H
#define ISOBENCH_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "hist.h"
#include "options.h"
#include "perfctr.h"

/** @file What client and server have in common: a run of some threads and what each of them counts. */

/** One thread's results. The counts are read by the progress line while the thread runs; all else after its end. */
struct tally {
    uint64_t messages; /**< completed: answered (rr, crr), delivered (tx), taken (rx), held connections (idle) */
    uint64_t bytes; /**< payload of these, one way */
    uint64_t connects; /**< connections made or accepted */
    uint64_t errors; /**< connections that failed or ended before their time */
    uint64_t start_ns, end_ns; /**< of the measured part */
    uint64_t cpu_ns; /**< the thread's CPU time in it */
    struct perfctr_values perf;
    struct hist *latency; /**< ns; NULL if the role has none */
};

struct run {
    const struct options *o;
    struct tally *tallies; /**< [o->threads] */
    uint32_t ready; /**< atomic: threads whose connections stand */
    uint32_t go; /**< atomic: measure */
    uint32_t ended; /**< atomic: threads that have ended */
    volatile int stop; /**< set by a signal or at the end */
    uint64_t setup_ns; /**< client: from the first connect until all connections stood */
};

static inline uint64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline uint64_t
thread_cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/** A count that the progress line reads while its one writer goes on. */
static inline void
tally_add(uint64_t *count, uint64_t n)
{
    __atomic_store_n(count, *count + n, __ATOMIC_RELAXED);
}

/**
 * The whole program but its signals: parse the arguments, run, write the results to out (NULL: nowhere). run is all zero; whoever sets run->stop ends it. Returns the exit status: 0, 1
 * no server or connections failed, 2 wrong usage, with a line on standard error.
 */
int run_program(struct run *run, int argc, char **argv, FILE *out);

/** May threads run on each of the CPUs that --pin names? Returns 0, or -1 after a line on standard error. */
int run_check_pins(const struct options *o);
/** Put the calling thread on its CPU. Returns 0, or -errno. */
int run_pin(const struct options *o, uint32_t thread);

/** Run a client's role, or the server, to its end. Fill tallies. Returns 0, or -1 after a line on standard error. */
int client_run(struct run *run);
int server_run(struct run *run);

/** Start the threads, show progress until all have ended. client: let them begin together. Returns 0, or -1 after a line on standard error. */
int run_threads(struct run *run, void *(*fn)(void *arg), void *args, size_t arg_bytes);

/** Write the results; returns the exit status: 1 if connections failed. */
int report_print(const struct run *run, FILE *out);

#endif /* ISOBENCH_RUN_H */
