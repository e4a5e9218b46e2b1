/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How fast are the CPUs while something else runs on them? On a virtual machine a CPU is often one of two threads of a core, whose other thread belongs to another guest: while that works, all that runs
 * here takes up to twice as long, and nothing that this machine counts shows it, stolen time included. So a fixed piece of work that keeps the core's units busy is timed every ten milliseconds on each
 * CPU, before all other programs (SCHED_FIFO, if that is allowed): a thousandth of the CPU. When standard input ends it prints a line for each CPU: the nanoseconds of its samples, in order.
 *
 * usage: bench-speed CPU...
 */
#include "cpu.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CPUS_MAX 64u
#define SAMPLES_MAX 65536u /**< ten minutes */
#define INTERVAL_NS 10000000
/* The loop's code and its branch are known to the core again after so many rounds; then it is timed. */
#define WARM_ROUNDS 1000u
#define ROUNDS 6000u

struct speed {
    pthread_t thread;
    int cpu;
    uint32_t nb_samples;
    uint32_t ns[SAMPLES_MAX];
};

static bool over;

/** Work that does not wait: sums that do not depend on each other, as many as a core can begin in a cycle or two, and no memory. */
static void
work(unsigned rounds)
{
    uint64_t a = 1, b = 2, c = 3, d = 4, e = 5, f = 6;

    for (unsigned i = 0; i < rounds; i++) {
        a += i;
        b ^= i;
        c -= i;
        d |= i;
        e += i;
        f ^= i;
        /* Nothing of it may be left out or done at once for several rounds. */
        __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f));
    }
}

static void *
sample(void *arg)
{
    const struct timespec interval = { .tv_nsec = INTERVAL_NS };
    struct speed *s = arg;

    while (!__atomic_load_n(&over, __ATOMIC_RELAXED) && s->nb_samples < SAMPLES_MAX) {
        uint64_t begin_ns;

        nanosleep(&interval, NULL);
        work(WARM_ROUNDS);
        begin_ns = now_ns();
        work(ROUNDS);
        s->ns[s->nb_samples++] = (uint32_t)(now_ns() - begin_ns);
    }
    return NULL;
}

/** Returns 0 or a number of errno. */
static int
start(struct speed *s)
{
    const struct sched_param first = { .sched_priority = 1 };
    int rc = pthread_create(&s->thread, NULL, sample, s);

    if (rc != 0)
        return rc;
    /* Without the right to it the samples come later when the CPU is busy, and say the same. */
    (void)pthread_setschedparam(s->thread, SCHED_FIFO, &first);
    return pin(s->thread, s->cpu);
}

int
main(int argc, char **argv)
{
    unsigned nb = argc > 1 && (unsigned)argc - 1 <= CPUS_MAX ? (unsigned)argc - 1 : 0;
    struct speed *all = calloc(CPUS_MAX, sizeof(*all));
    int rc = all == NULL ? ENOMEM : 0;

    for (unsigned i = 0; i < nb && rc == 0; i++) {
        all[i].cpu = parse_cpu(argv[i + 1]);
        if (all[i].cpu < 0)
            nb = 0;
    }
    if (nb == 0) {
        fprintf(stderr, "usage: bench-speed CPU...\n");
        return 2;
    }
    for (unsigned i = 0; i < nb && rc == 0; i++)
        rc = start(&all[i]);
    if (rc != 0) {
        fprintf(stderr, "bench-speed: %s\n", strerror(rc));
        return 1;
    }
    while (getchar() != EOF)
        ;
    __atomic_store_n(&over, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < nb; i++) {
        pthread_join(all[i].thread, NULL);
        for (uint32_t k = 0; k < all[i].nb_samples; k++)
            printf("%s%u", k == 0 ? "" : " ", all[i].ns[k]);
        putchar('\n');
    }
    free(all);
    return 0;
}
