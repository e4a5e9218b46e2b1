/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef DOMINOES_CREW_H
#define DOMINOES_CREW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/**
 * @file
 * Threads that start together, one per core as far as cores go, for a measurement of bounded time.
 */

#define CREW_MAX 64

struct crew {
    unsigned threads;
    unsigned cores; /**< that this process may use */
    bool pinned; /**< thread i on the i-th core; only if there is a core for each, else the scheduler places them */
    pthread_barrier_t start;
    _Atomic(bool) stop;
    double seconds; /**< from the first thread's start to the last one's return */
    double cpu_share; /**< CPU time had, of what `threads` could have had on these cores; below 1, others ran there */
};

/** What a thread does, from the common start. One that runs until `stop` looks at crew_stopped(). */
typedef void (*crew_fn)(struct crew *crew, unsigned thread, void *arg);

/** Cores that this process may use. */
unsigned crew_cores(void);

/**
 * Run fn on `threads` (1 .. CREW_MAX) threads. With seconds > 0, crew_stopped() becomes true after that time; 0 leaves
 * the end to fn. Returns when all have ended. Exits with status 1 if a thread cannot be made.
 */
void crew_run(struct crew *crew, unsigned threads, double seconds, crew_fn fn, void *arg);

static inline bool
crew_stopped(struct crew *crew)
{
    return atomic_load_explicit(&crew->stop, memory_order_relaxed);
}

/**
 * Called in a loop that waits for another thread: spins where each thread has its core, gives way to the others where
 * not, or after a while. *spins counts; set it to 0 when the wait is over.
 */
void crew_wait(const struct crew *crew, unsigned *spins);

#define CREW_VALUES 4
#define CREW_DISTURBED 0.9 /**< a round with less of the CPUs than this says little */

/** Mean of the rounds that were not disturbed; as long as there is none, the least disturbed one. Zeroed memory is
 * empty. */
struct crew_mean {
    unsigned rounds; /**< undisturbed ones */
    double cpu_share; /**< the least of these, or that of the one taken for want of better */
    double value[CREW_VALUES];
};

/** Not the best round: a lock looks best when others kept its second thread from running. */
void crew_mean_add(struct crew_mean *mean, double cpu_share, const double value[CREW_VALUES]);

/** The number that an option's text gives; a message and exit status 2 if it is none from low to high. */
unsigned crew_number(const char *text, unsigned low, unsigned high);

#endif /* DOMINOES_CREW_H */
