/* SPDX-License-Identifier: BSD-3-Clause */
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crew.h"

#define SPINS_BEFORE_YIELD 1000u

struct member {
    struct crew *crew;
    unsigned number;
    crew_fn fn;
    void *arg;
    pthread_t thread;
    /* By the thread itself: the one that started it may get its next turn on a core much later. */
    double began;
    double ended;
    double cpu_seconds;
};

static double
seconds_on(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

unsigned
crew_cores(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

static void
pin(unsigned number)
{
    cpu_set_t usable, one;

    if (sched_getaffinity(0, sizeof(usable), &usable) != 0)
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &usable) || number-- != 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
        return;
    }
}

static void *
member_main(void *arg)
{
    struct member *m = arg;

    if (m->crew->pinned)
        pin(m->number);
    pthread_barrier_wait(&m->crew->start);
    m->began = seconds_on(CLOCK_MONOTONIC);
    m->cpu_seconds = -seconds_on(CLOCK_THREAD_CPUTIME_ID);
    m->fn(m->crew, m->number, m->arg);
    m->cpu_seconds += seconds_on(CLOCK_THREAD_CPUTIME_ID);
    m->ended = seconds_on(CLOCK_MONOTONIC);
    return NULL;
}

void
crew_run(struct crew *crew, unsigned threads, double seconds, crew_fn fn, void *arg)
{
    struct member members[CREW_MAX];
    double began = 0, ended = 0, cpu_seconds = 0;

    memset(crew, 0, sizeof(*crew));
    crew->threads = threads;
    crew->cores = crew_cores();
    crew->pinned = threads <= crew->cores;
    pthread_barrier_init(&crew->start, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++) {
        members[i] = (struct member){ .crew = crew, .number = i, .fn = fn, .arg = arg };
        if (pthread_create(&members[i].thread, NULL, member_main, &members[i]) != 0) {
            fprintf(stderr, "cannot start thread %u of %u\n", i + 1, threads);
            exit(1);
        }
    }
    pthread_barrier_wait(&crew->start);
    if (seconds > 0) {
        struct timespec t = { .tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9) };

        nanosleep(&t, NULL);
        atomic_store(&crew->stop, true);
    }
    for (unsigned i = 0; i < threads; i++) {
        const struct member *m = &members[i];

        pthread_join(m->thread, NULL);
        began = i == 0 || m->began < began ? m->began : began;
        ended = i == 0 || m->ended > ended ? m->ended : ended;
        cpu_seconds += m->cpu_seconds;
    }
    crew->seconds = ended - began;
    crew->cpu_share = cpu_seconds / (crew->seconds * (threads < crew->cores ? threads : crew->cores));
    pthread_barrier_destroy(&crew->start);
}

void
crew_wait(const struct crew *crew, unsigned *spins)
{
    if (crew->threads > crew->cores || ++*spins % SPINS_BEFORE_YIELD == 0)
        sched_yield();
    else
        __builtin_ia32_pause();
}

void
crew_mean_add(struct crew_mean *mean, double cpu_share, const double value[CREW_VALUES])
{
    bool disturbed = cpu_share < CREW_DISTURBED;

    if (disturbed && (mean->rounds > 0 || cpu_share < mean->cpu_share))
        return;
    if (disturbed || mean->rounds == 0) {
        memcpy(mean->value, value, sizeof(mean->value));
        mean->cpu_share = cpu_share;
        mean->rounds = !disturbed;
        return;
    }
    mean->rounds++;
    mean->cpu_share = cpu_share < mean->cpu_share ? cpu_share : mean->cpu_share;
    for (unsigned i = 0; i < CREW_VALUES; i++)
        mean->value[i] += (value[i] - mean->value[i]) / mean->rounds;
}

unsigned
crew_number(const char *text, unsigned low, unsigned high)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (end == text || *end != '\0' || n < low || n > high) {
        fprintf(stderr, "%s: a number from %u to %u is needed\n", text, low, high);
        exit(2);
    }
    return (unsigned)n;
}
