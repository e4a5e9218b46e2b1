/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How far apart are two CPUs? A cache line is handed there and back between two threads pinned to them; prints the nanoseconds of the fastest batch, since what
 * else runs on these CPUs can only make a batch slower. On a virtual machine the answer changes as the host moves the virtual CPUs. With one CPU named twice the threads
 * yield to each other: then it is what the scheduler takes for there and back.
 *
 * usage: bench-probe CPU CPU
 */
#include "cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define BATCHES 40u
#define ROUNDS 1000u
/* Someone else on a CPU stops the game for whole time slices: then fewer batches must do. */
#define LIMIT_NS UINT64_C(300000000)

/* Alone in its cache line: the union is as large as two, for the neighbour that a processor may fetch along. */
static union {
    uint32_t turn; /**< 2n: the first thread's turn, 2n + 1: the second's; UINT32_MAX: over */
    char bytes[128];
} line __attribute__((aligned(128)));

static bool yields;

/** Wait for a turn. Returns what was found, which is want or UINT32_MAX. */
static uint32_t
await(uint32_t want)
{
    uint32_t turn;

    do {
        turn = __atomic_load_n(&line.turn, __ATOMIC_ACQUIRE);
        if (yields && turn != want)
            sched_yield();
    } while (turn != want && turn != UINT32_MAX);
    return turn;
}

static void *
answer(void *arg)
{
    uint32_t turn = 1;

    if (pin(pthread_self(), *(const int *)arg) != 0) {
        __atomic_store_n(&line.turn, UINT32_MAX, __ATOMIC_RELEASE);
        return NULL;
    }
    while (await(turn) != UINT32_MAX) {
        __atomic_store_n(&line.turn, turn + 1, __ATOMIC_RELEASE);
        turn += 2;
    }
    return NULL;
}

/** Returns ns for there and back, or 0 if the other thread is not there. */
static double
batch(uint32_t *turn)
{
    uint64_t begin_ns = now_ns();

    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t expected = *turn;

        if (!__atomic_compare_exchange_n(&line.turn, &expected, *turn + 1, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            return 0;
        *turn += 2;
        if (await(*turn) == UINT32_MAX)
            return 0;
    }
    return (double)(now_ns() - begin_ns) / ROUNDS;
}

int
main(int argc, char **argv)
{
    int cpu[2] = { argc == 3 ? parse_cpu(argv[1]) : -1, argc == 3 ? parse_cpu(argv[2]) : -1 };
    uint64_t begin_ns = now_ns();
    double best_ns = 0;
    uint32_t turn = 0;
    pthread_t thread;
    int rc;

    if (cpu[0] < 0 || cpu[1] < 0) {
        fprintf(stderr, "usage: bench-probe CPU CPU\n");
        return 2;
    }
    yields = cpu[0] == cpu[1];
    rc = pin(pthread_self(), cpu[0]);
    if (rc == 0)
        rc = pthread_create(&thread, NULL, answer, &cpu[1]);
    if (rc != 0) {
        fprintf(stderr, "bench-probe: %s\n", strerror(rc));
        return 1;
    }
    for (unsigned i = 0; i < BATCHES && (i == 0 || now_ns() - begin_ns < LIMIT_NS); i++) {
        double ns = batch(&turn);

        if (ns <= 0) {
            best_ns = 0;
            break;
        }
        if (best_ns <= 0 || ns < best_ns)
            best_ns = ns;
    }
    __atomic_store_n(&line.turn, UINT32_MAX, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    if (best_ns <= 0) {
        fprintf(stderr, "bench-probe: CPU %d cannot be used\n", cpu[1]);
        return 1;
    }
    printf("%.0f\n", best_ns);
    return 0;
}
