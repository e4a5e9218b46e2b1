/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Dequeue rates of the replicated ring over the number of replicas, both schemes, one and several producers: the
 * paper's figure 2. One line of CSV for each run; every replica dequeues every entry, so the aggregate is replicas
 * times the rate of entries.
 */
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bcast.h"
#include "crew.h"

#define RING_ENTRIES 1024u
#define BURST 32u

struct options {
    unsigned replicas_max;
    unsigned producers_max;
    unsigned entry_bytes;
    unsigned burst;
    unsigned milliseconds; /* of each run */
    unsigned rounds;
};

struct run {
    struct bcast *b;
    unsigned replicas;
    unsigned burst;
};

static void
produce(struct crew *crew, struct run *run)
{
    static const char entries[BURST * BCAST_ENTRY_BYTES_MAX];
    unsigned spins = 0;

    while (!crew_stopped(crew)) {
        if (bcast_enqueue(run->b, entries, run->burst) == 0)
            crew_wait(crew, &spins);
        else
            spins = 0;
    }
}

static void
consume(struct crew *crew, struct run *run, unsigned replica)
{
    char entries[BURST * BCAST_ENTRY_BYTES_MAX];
    uint64_t primary;
    unsigned spins = 0;

    while (!crew_stopped(crew)) {
        if (bcast_dequeue(run->b, replica, entries, &primary, run->burst) == 0)
            crew_wait(crew, &spins);
        else
            spins = 0;
    }
}

/* The replicas are the first threads, producers come after them. */
static void
thread_main(struct crew *crew, unsigned thread, void *arg)
{
    struct run *run = arg;

    if (thread < run->replicas)
        consume(crew, run, thread);
    else
        produce(crew, run);
}

enum value {
    VALUE_MEAN, /* dequeues per microsecond and replica */
    VALUE_SLOWEST,
    VALUE_SUM,
    VALUE_SHARE, /* of the primaries, that of the replica which has most */
};

static void
measure(const struct options *o, const struct bcast_config *c, unsigned producers, void *memory, struct crew_mean *mean)
{
    struct run run = { .b = memory, .replicas = c->replicas, .burst = o->burst };
    struct crew crew;
    double value[CREW_VALUES] = { 0 };
    uint64_t primaries = 0, most = 0;

    if (bcast_init(memory, c) != 0)
        exit(1);
    crew_run(&crew, c->replicas + producers, o->milliseconds * 1e-3, thread_main, &run);
    for (unsigned r = 0; r < c->replicas; r++) {
        struct bcast_replica_stats s;
        double rate;

        bcast_get_replica_stats(memory, r, &s);
        rate = (double)s.dequeued / crew.seconds * 1e-6;
        value[VALUE_SUM] += rate;
        value[VALUE_SLOWEST] = r == 0 || rate < value[VALUE_SLOWEST] ? rate : value[VALUE_SLOWEST];
        primaries += s.primary;
        most = s.primary > most ? s.primary : most;
    }
    value[VALUE_MEAN] = value[VALUE_SUM] / c->replicas;
    value[VALUE_SHARE] = primaries > 0 ? (double)most / (double)primaries : 0;
    crew_mean_add(mean, crew.cpu_share, value);
}

static void
measure_line(const struct options *o, enum bcast_scheme scheme, unsigned replicas, unsigned producers, void *memory)
{
    const struct bcast_config c = { .replicas = replicas,
                                    .entries = RING_ENTRIES,
                                    .entry_bytes = o->entry_bytes,
                                    .window = scheme == BCAST_CLAIM ? RING_ENTRIES / 8 : 0,
                                    .scheme = scheme,
                                    .multi_producer = producers > 1 };
    struct crew_mean mean = { 0 };
    unsigned threads = replicas + producers, cores = crew_cores();

    for (unsigned round = 0; round < o->rounds; round++)
        measure(o, &c, producers, memory, &mean);
    printf("%s,%u,%u,%u,%u,%s,%u,%u,%.3f,%.3f,%.3f,%.3f,%.2f\n", scheme == BCAST_CLAIM ? "claim" : "refcount",
           producers, replicas, threads, cores, threads <= cores ? "no" : "yes", o->entry_bytes, o->burst,
           mean.value[VALUE_MEAN], mean.value[VALUE_SLOWEST], mean.value[VALUE_SUM], mean.value[VALUE_SHARE],
           mean.cpu_share);
    fflush(stdout);
}

static bool
parse(struct options *o, int argc, char **argv)
{
    int opt;

    while ((opt = getopt(argc, argv, "n:p:s:b:t:r:h")) != -1) {
        switch (opt) {
        case 'n':
            o->replicas_max = crew_number(optarg, 1, CREW_MAX / 2);
            break;
        case 'p':
            o->producers_max = crew_number(optarg, 1, CREW_MAX / 2);
            break;
        case 's':
            o->entry_bytes = crew_number(optarg, 8, BCAST_ENTRY_BYTES_MAX) & ~7u;
            break;
        case 'b':
            o->burst = crew_number(optarg, 1, BURST);
            break;
        case 't':
            o->milliseconds = crew_number(optarg, 1, 60000);
            break;
        case 'r':
            o->rounds = crew_number(optarg, 1, 1000);
            break;
        default:
            fprintf(stderr,
                    "usage: %s [-n replicas] [-p producers] [-s bytes of an entry] [-b burst] [-t ms per run] [-r "
                    "rounds]\n",
                    argv[0]);
            return false;
        }
    }
    return true;
}

int
main(int argc, char **argv)
{
    struct options o = {
        .replicas_max = 4, .producers_max = 2, .entry_bytes = 56, .burst = BURST, .milliseconds = 2, .rounds = 120
    };
    void *memory;
    size_t bytes;

    if (!parse(&o, argc, argv))
        return 2;
    bytes = bcast_bytes(o.replicas_max, RING_ENTRIES, o.entry_bytes);
    memory = aligned_alloc(BCAST_ALIGN, (bytes + BCAST_ALIGN - 1) / BCAST_ALIGN * BCAST_ALIGN);
    if (memory == NULL) {
        perror("memory");
        return 1;
    }
    printf("scheme,producers,replicas,threads,cores,oversubscribed,entry_bytes,burst,per_replica_M_s,slowest_M_s,"
           "aggregate_M_s,largest_primary_share,cpu_share\n");
    for (int scheme = BCAST_REFCOUNT; scheme <= BCAST_CLAIM; scheme++) {
        for (unsigned producers = 1; producers <= o.producers_max; producers++) {
            for (unsigned replicas = 1; replicas <= o.replicas_max; replicas++)
                measure_line(&o, (enum bcast_scheme)scheme, replicas, producers, memory);
        }
    }
    free(memory);
    return 0;
}
