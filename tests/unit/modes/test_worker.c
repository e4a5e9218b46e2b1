/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_byteorder.h>
#include <rte_common.h>

#include "core/clock.h"
#include "core/eal.h"
#include "modes/mode.h"

/* The worker is what waits in real time, so these tests do: for tens of milliseconds each. */
#define PATIENCE_US 10000000u
#define WINDOW_US 200000u
#define WINDOW_CPU_MAX_US 40000u /* a fifth: the goal is a twentieth, but machines that run tests are busy */

struct fixture {
    struct pktpool pool;
    struct port port;
    struct mode *mode;
    const struct mode_ops *ops;
    enum idle_policy idle;
    int stop; /* atomic */
    pthread_t thread;
};

static void *
worker_main(void *arg)
{
    struct fixture *f = arg;

    worker_run(f->ops, f->mode, 0, f->idle, &f->stop);
    return NULL;
}

static void
start(struct fixture *f, const char *mode, enum idle_policy idle)
{
    static uint16_t port_id; /* a port ends with port_stop: each test has its own */
    struct mode_config mc = {
        .stack = { .ip = { .addr = ip_addr_v4(rte_cpu_to_be_32(0x0a000001)), .prefix_len = 24 } },
        .port = &f->port,
        .pool = &f->pool,
        .nb_workers = 1,
    };
    char err[256] = "";
    struct port_config pc = { .port_id = port_id, .nb_queues = 1 };
    char name[16];

    snprintf(name, sizeof(name), "w%u", port_id++);
    assert_int_equal(pktpool_create(&f->pool, name, 512, 1500, -1), 0);
    if (port_start(&f->port, &pc, &f->pool, err, sizeof(err)) != 0)
        fail_msg("%s", err);
    tcp_params_default(&mc.stack.tcp);
    mc.stack.tcp.max_conns = 64;
    f->ops = mode_find(mode, &mc.knobs, err, sizeof(err));
    f->mode = f->ops->create(&mc, err, sizeof(err));
    if (f->mode == NULL)
        fail_msg("%s", err);
    f->idle = idle;
    f->stop = 0;
    assert_int_equal(pthread_create(&f->thread, NULL, worker_main, f), 0);
}

static void
nothing(struct host *h, void *arg, uint64_t now_us)
{
    (void)h;
    (void)now_us;
    ++*(int *)arg;
}

static void
finish(struct fixture *f)
{
    struct host *h = f->ops->host(f->mode);
    int calls = 0;

    __atomic_store_n(&f->stop, 1, __ATOMIC_RELAXED);
    net_wake(host_net(h, 0));
    pthread_join(f->thread, NULL);
    assert_int_equal(host_call(h, nothing, &calls), -ESHUTDOWN);
    assert_int_equal(calls, 0);
    f->ops->destroy(f->mode);
    port_stop(&f->port);
    pktpool_destroy(&f->pool);
}

static uint64_t
counter(const struct fixture *f, enum counter_id id)
{
    return __atomic_load_n(&net_queue(host_net(f->ops->host(f->mode), 0))->ctr->v[id], __ATOMIC_RELAXED);
}

static void
await_sleeps(const struct fixture *f, uint64_t n)
{
    uint64_t limit_us = clock_now_us() + PATIENCE_US;

    while (counter(f, CTR_WORKER_SLEEPS) < n) {
        assert_true(clock_now_us() < limit_us);
        usleep(100);
    }
}

static uint64_t
cpu_us(pthread_t thread)
{
    struct timespec ts;
    clockid_t clock;

    assert_int_equal(pthread_getcpuclockid(thread, &clock), 0);
    assert_int_equal(clock_gettime(clock, &ts), 0);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void
idle_worker_sleeps_and_wakes(const char *mode, enum idle_policy idle)
{
    struct fixture f = { .stop = 0 };
    uint64_t before_us;
    int calls = 0;

    start(&f, mode, idle);
    await_sleeps(&f, 20);
    before_us = cpu_us(f.thread);
    usleep(WINDOW_US);
    assert_true(cpu_us(f.thread) - before_us < WINDOW_CPU_MAX_US);
    for (int i = 0; i < 50; i++)
        assert_int_equal(host_call(f.ops->host(f.mode), nothing, &calls), 0);
    assert_int_equal(calls, 50);
    /* And falls asleep again. */
    await_sleeps(&f, counter(&f, CTR_WORKER_SLEEPS) + 5);
    assert_true(counter(&f, CTR_WORKER_IDLE_POLLS) <= counter(&f, CTR_WORKER_POLLS));
    finish(&f);
}

static void
adaptive(void **state)
{
    (void)state;
    idle_worker_sleeps_and_wakes("isostack", IDLE_ADAPTIVE);
}

static void
sleeping(void **state)
{
    (void)state;
    idle_worker_sleeps_and_wakes("up", IDLE_SLEEP);
}

static void
polling_never_sleeps(void **state)
{
    struct fixture f = { .stop = 0 };
    uint64_t limit_us = clock_now_us() + PATIENCE_US;

    (void)state;
    start(&f, "isostack,locks=on,aggregate=off,queues=perthread", IDLE_POLL);
    while (counter(&f, CTR_WORKER_IDLE_POLLS) < 2000 && clock_now_us() < limit_us)
        usleep(100);
    assert_true(counter(&f, CTR_WORKER_IDLE_POLLS) >= 2000);
    assert_int_equal(counter(&f, CTR_WORKER_SLEEPS), 0);
    assert_true(counter(&f, CTR_WORKER_IDLE_CYCLES) > 0);
    finish(&f);
}

int
main(void)
{
    static const char *const words[] = { "test", "--no-huge",        "--no-pci",         "-m",
                                         "128",  "--vdev=net_ring0", "--vdev=net_ring1", "--vdev=net_ring2" };
    char copy[RTE_DIM(words)][32];
    char *argv[RTE_DIM(words) + 1] = { NULL };
    char err[256];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adaptive),
        cmocka_unit_test(sleeping),
        cmocka_unit_test(polling_never_sleeps),
    };

    for (unsigned i = 0; i < RTE_DIM(words); i++) {
        snprintf(copy[i], sizeof(copy[i]), "%s", words[i]);
        argv[i] = copy[i];
    }
    if (eal_start((int)RTE_DIM(words), argv, err, sizeof(err)) < 0) {
        fprintf(stderr, "%s\n", err);
        return 1;
    }
    clock_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
