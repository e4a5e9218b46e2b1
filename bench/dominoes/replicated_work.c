/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lock, atomic instructions or replicated work, at ten parts of parallelizable to one part of synchronized work: the
 * paper's figure 1b. A request is UPDATES memory updates of state that all threads need, and ten times as many of the
 * thread's own memory.
 *
 *   serial           one thread, nothing shared: what a speed-up of 1 is
 *   lock             the shared part under one spinning lock
 *   atomic           the shared part by atomic additions
 *   replicated       each thread has a copy and does the shared part of all requests, and the rest of every n-th one
 *   replicated_ring  the same, the requests coming through the broadcast ring: who dequeues one first does the rest.
 * Thread 0 also enqueues.
 *
 * One line of CSV for each run. A request counts when all threads that must work on it have.
 */
#include <getopt.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bcast.h"
#include "crew.h"

#define UPDATES 16u
#define RATIO 10u
#define STATE_WORDS 64u /* eight cache lines */
#define RING_ENTRIES 256u
#define RING_WINDOW 64u
#define BURST 32u
#define SHARE                                                                                                          \
    8u /* dequeued at a time: a request is as short as a cache line is long underway, but a burst has one primary */

enum method { METHOD_SERIAL, METHOD_LOCK, METHOD_ATOMIC, METHOD_REPLICATED, METHOD_REPLICATED_RING, METHOD_COUNT };

static const char *const method_names[METHOD_COUNT] = { "serial", "lock", "atomic", "replicated", "replicated_ring" };

struct own {
    alignas(BCAST_ALIGN) uint64_t state[STATE_WORDS]; /* the replica */
    uint64_t memory[STATE_WORDS]; /* of the parallelizable part */
    uint64_t requests;
};

struct run {
    enum method method;
    struct bcast *ring;
    struct own own[CREW_MAX];
    alignas(BCAST_ALIGN) uint32_t lock;
    alignas(BCAST_ALIGN) uint64_t state[STATE_WORDS]; /* shared */
};

/* Volatile, so that each is a load and a store of its own as the atomic ones are, and none is dropped or done eight at
 * a time. */
static void
update(volatile uint64_t *words, uint64_t request, unsigned updates)
{
    for (unsigned i = 0; i < updates; i++) {
        volatile uint64_t *word = &words[(request + i) % STATE_WORDS];

        *word = *word + 1;
    }
}

static void
update_atomic(uint64_t *words, uint64_t request)
{
    for (unsigned i = 0; i < UPDATES; i++)
        __atomic_fetch_add(&words[(request + i) % STATE_WORDS], 1, __ATOMIC_RELAXED);
}

static void
lock_take(const struct crew *crew, uint32_t *lock)
{
    unsigned spins = 0;

    /* Acquire: pairs with the release in lock_drop. */
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) != 0) {
        while (__atomic_load_n(lock, __ATOMIC_RELAXED) != 0)
            crew_wait(crew, &spins);
    }
}

static void
lock_drop(uint32_t *lock)
{
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

static void
work_shared(struct crew *crew, struct run *run, struct own *own)
{
    uint64_t request;

    for (request = 0; !crew_stopped(crew); request++) {
        switch (run->method) {
        case METHOD_LOCK:
            lock_take(crew, &run->lock);
            update(run->state, request, UPDATES);
            lock_drop(&run->lock);
            break;
        case METHOD_ATOMIC:
            update_atomic(run->state, request);
            break;
        default:
            update(own->state, request, UPDATES);
            break;
        }
        update(own->memory, request, UPDATES * RATIO);
    }
    own->requests = request;
}

static void
work_replicated(struct crew *crew, struct own *own, unsigned thread)
{
    uint64_t request;

    for (request = 0; !crew_stopped(crew); request++) {
        update(own->state, request, UPDATES);
        if (request % crew->threads == thread)
            update(own->memory, request, UPDATES * RATIO);
    }
    own->requests = request;
}

static void
work_ring(struct crew *crew, struct run *run, struct own *own, unsigned thread)
{
    uint64_t requests[BURST], primary, next = 0;
    unsigned spins = 0;

    while (!crew_stopped(crew)) {
        int got;

        if (thread == 0) {
            for (unsigned i = 0; i < BURST; i++)
                requests[i] = next + i;
            next += bcast_enqueue(run->ring, requests, BURST);
        }
        /* Few at a time, or one is primary of all and the others have nothing to do but follow. */
        got = bcast_dequeue(run->ring, thread, requests, &primary, SHARE);
        for (int i = 0; i < got; i++) {
            update(own->state, requests[i], UPDATES);
            if ((primary >> i) & 1)
                update(own->memory, requests[i], UPDATES * RATIO);
        }
        if (got == 0)
            crew_wait(crew, &spins);
    }
    own->requests = bcast_position(run->ring, thread);
}

static void
thread_main(struct crew *crew, unsigned thread, void *arg)
{
    struct run *run = arg;
    struct own *own = &run->own[thread];

    if (run->method == METHOD_REPLICATED)
        work_replicated(crew, own, thread);
    else if (run->method == METHOD_REPLICATED_RING)
        work_ring(crew, run, own, thread);
    else
        work_shared(crew, run, own);
}

static void
measure(struct run *run, enum method method, unsigned threads, unsigned milliseconds, struct crew_mean *mean)
{
    const struct bcast_config c = { .replicas = threads,
                                    .entries = RING_ENTRIES,
                                    .entry_bytes = sizeof(uint64_t),
                                    .window = RING_WINDOW,
                                    .scheme = BCAST_CLAIM };
    struct bcast *ring = run->ring;
    struct crew crew;
    uint64_t sum = 0, least = UINT64_MAX;
    double value[CREW_VALUES] = { 0 };

    memset(run, 0, sizeof(*run));
    run->method = method;
    run->ring = ring;
    if (bcast_init(ring, &c) != 0)
        exit(1);
    crew_run(&crew, threads, milliseconds * 1e-3, thread_main, run);
    for (unsigned i = 0; i < threads; i++) {
        sum += run->own[i].requests;
        least = run->own[i].requests < least ? run->own[i].requests : least;
    }
    value[0] = (double)(method >= METHOD_REPLICATED ? least : sum) / crew.seconds * 1e-6; /* requests per microsecond */
    crew_mean_add(mean, crew.cpu_share, value);
}

/* The methods take turns, so that what changes on the machine meets all of them. */
static void
measure_all(struct run *run, unsigned threads_max, unsigned milliseconds, unsigned rounds)
{
    struct crew_mean means[METHOD_COUNT][CREW_MAX + 1] = { 0 };
    double serial;

    for (unsigned round = 0; round < rounds; round++) {
        for (int method = 0; method < METHOD_COUNT; method++) {
            for (unsigned n = 1; n <= (method == METHOD_SERIAL ? 1 : threads_max); n++)
                measure(run, (enum method)method, n, milliseconds, &means[method][n]);
        }
    }
    serial = means[METHOD_SERIAL][1].value[0];
    printf("method,threads,cores,oversubscribed,requests_M_s,speedup,ideal,cpu_share\n");
    for (int method = 0; method < METHOD_COUNT; method++) {
        for (unsigned n = 1; n <= (method == METHOD_SERIAL ? 1 : threads_max); n++) {
            const struct crew_mean *m = &means[method][n];

            printf("%s,%u,%u,%s,%.3f,%.2f,%.2f,%.2f\n", method_names[method], n, crew_cores(),
                   n <= crew_cores() ? "no" : "yes", m->value[0], m->value[0] / serial,
                   (RATIO + 1.0) / (1.0 + (double)RATIO / n), m->cpu_share);
        }
    }
}

int
main(int argc, char **argv)
{
    unsigned threads_max = crew_cores() > 4 ? crew_cores() : 4, milliseconds = 2, rounds = 120;
    struct run *run = aligned_alloc(BCAST_ALIGN, sizeof(*run));
    size_t bytes;
    int opt;

    while ((opt = getopt(argc, argv, "n:t:r:h")) != -1) {
        if (opt == 'n')
            threads_max = crew_number(optarg, 1, CREW_MAX);
        else if (opt == 't')
            milliseconds = crew_number(optarg, 1, 60000);
        else if (opt == 'r')
            rounds = crew_number(optarg, 1, 1000);
        else {
            fprintf(stderr, "usage: %s [-n threads, at most %u] [-t ms per run] [-r rounds]\n", argv[0], CREW_MAX);
            return opt == 'h' ? 0 : 2;
        }
    }
    threads_max = threads_max > CREW_MAX ? CREW_MAX : threads_max;
    bytes = bcast_bytes(threads_max, RING_ENTRIES, sizeof(uint64_t));
    if (run != NULL)
        run->ring = aligned_alloc(BCAST_ALIGN, (bytes + BCAST_ALIGN - 1) & ~(size_t)(BCAST_ALIGN - 1));
    if (run == NULL || run->ring == NULL) {
        perror("memory");
        return 1;
    }
    measure_all(run, threads_max, milliseconds, rounds);
    free(run->ring);
    free(run);
    return 0;
}
