/* SPDX-License-Identifier: BSD-3-Clause */
#include "run.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#define TICK_MS 2

static void
sleep_ms(long ms)
{
    const struct timespec ts = { .tv_sec = 0, .tv_nsec = ms * 1000000 };

    nanosleep(&ts, NULL);
}

static int
pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0 ? 0 : -errno;
}

int
run_pin(const struct options *o, uint32_t thread)
{
    return o->nb_cpus == 0 ? 0 : pin(o->cpus[thread % o->nb_cpus]);
}

/* By trying: a stack inside has put this thread on one CPU already, so its own set does not tell. */
int
run_check_pins(const struct options *o)
{
    cpu_set_t before;
    int rc = 0;

    if (o->nb_cpus == 0 || sched_getaffinity(0, sizeof(before), &before) != 0)
        return 0;
    for (uint32_t i = 0; i < o->nb_cpus && rc == 0; i++) {
        rc = pin(o->cpus[i]);
        if (rc != 0)
            fprintf(stderr, "isobench: --pin: CPU %d: %s\n", o->cpus[i], strerror(-rc));
    }
    sched_setaffinity(0, sizeof(before), &before);
    return rc == 0 ? 0 : -1;
}

static void
progress_line(const struct run *run, unsigned second, uint64_t elapsed_ns, uint64_t *last_messages,
              uint64_t *last_bytes)
{
    uint64_t messages = 0, bytes = 0, connects = 0, errors = 0;
    double s = (double)elapsed_ns / 1e9;

    for (uint32_t i = 0; i < run->o->threads; i++) {
        messages += __atomic_load_n(&run->tallies[i].messages, __ATOMIC_RELAXED);
        bytes += __atomic_load_n(&run->tallies[i].bytes, __ATOMIC_RELAXED);
        connects += __atomic_load_n(&run->tallies[i].connects, __ATOMIC_RELAXED);
        errors += __atomic_load_n(&run->tallies[i].errors, __ATOMIC_RELAXED);
    }
    fprintf(stderr, "%4u s  %12.0f messages/s  %10.3f Mb/s  %llu connections made  %llu failed\n", second,
            (double)(messages - *last_messages) / s, (double)(bytes - *last_bytes) * 8 / s / 1e6,
            (unsigned long long)connects, (unsigned long long)errors);
    *last_messages = messages;
    *last_bytes = bytes;
}

/* The threads do the work; this one lets them begin and shows how far they are. */
static void
supervise(struct run *run)
{
    uint32_t threads = run->o->threads;
    uint64_t begin_ns = now_ns(), line_ns = begin_ns, messages = 0, bytes = 0;
    unsigned second = 0;

    while (__atomic_load_n(&run->ended, __ATOMIC_ACQUIRE) < threads) {
        uint64_t now;

        if (!run->go && __atomic_load_n(&run->ready, __ATOMIC_ACQUIRE) == threads) {
            line_ns = now_ns();
            run->setup_ns = line_ns - begin_ns;
            __atomic_store_n(&run->go, 1, __ATOMIC_RELEASE);
        }
        sleep_ms(run->go ? 20 : TICK_MS);
        now = now_ns();
        if (run->go && now - line_ns >= 1000000000u) {
            if (run->o->progress)
                progress_line(run, ++second, now - line_ns, &messages, &bytes);
            line_ns = now;
        }
    }
}

int
run_threads(struct run *run, void *(*fn)(void *arg), void *args, size_t arg_bytes)
{
    pthread_t threads[OPTIONS_THREADS_MAX];
    uint32_t n = run->o->threads;
    int rc = 0;

    for (uint32_t i = 0; i < n; i++) {
        rc = pthread_create(&threads[i], NULL, fn, (char *)args + i * arg_bytes);
        if (rc != 0) {
            fprintf(stderr, "isobench: thread %u: %s\n", i, strerror(rc));
            run->stop = 1;
            n = i;
            break;
        }
    }
    if (rc == 0)
        supervise(run);
    for (uint32_t i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return rc == 0 ? 0 : -1;
}
