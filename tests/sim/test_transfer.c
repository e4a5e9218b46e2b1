/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "sim.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define SECOND 1000000ull

static void
no_sack(struct tcp_params *p)
{
    p->sack = false;
}

static void
no_options(struct tcp_params *p)
{
    p->sack = p->timestamps = p->window_scaling = false;
}

static void
small_buffer(struct tcp_params *p)
{
    p->rcv_buf_bytes = 8192;
}

/** A path and what must come through it. */
struct scenario {
    const char *name;
    struct sim_link link;
    void (*adjust)(struct tcp_params *p);
    uint64_t up_bytes, down_bytes;
    uint32_t gso_max_bytes;
    uint32_t min_kib_per_s; /**< goodput, worst seed, both directions together */
    unsigned seeds;
};

#define PPM(percent) ((percent)*10000)

static const struct scenario scenarios[] = {
    { "clean, 1 ms", { .delay_us = 500 }, NULL, 16 * MIB, 0, 0, 50000, 1 },
    { "clean, 1 ms, GSO", { .delay_us = 500 }, NULL, 16 * MIB, 0, 65535, 50000, 1 },
    { "clean, both ways", { .delay_us = 500 }, NULL, 4 * MIB, 4 * MIB, 0, 20000, 1 },
    { "10 MB/s, 20 ms, 200 KB queue",
      { .delay_us = 10000, .rate_bytes_per_ms = 10000, .queue_bytes = 200000 },
      NULL,
      16 * MIB,
      0,
      65535,
      6000,
      3 },
    { "loss 1%, 10 ms", { .loss_ppm = PPM(1), .delay_us = 5000 }, NULL, 4 * MIB, 0, 65535, 600, 5 },
    { "loss 3%, reorder 3%, 10 ms",
      { .loss_ppm = PPM(3), .reorder_ppm = PPM(3), .reorder_us = 2000, .delay_us = 5000 },
      NULL,
      4 * MIB,
      0,
      65535,
      250,
      10 },
    { "loss 3%, reorder 3%, both ways",
      { .loss_ppm = PPM(3), .reorder_ppm = PPM(3), .reorder_us = 2000, .delay_us = 5000 },
      NULL,
      MIB,
      MIB,
      65535,
      250,
      10 },
    { "loss 3%, reorder 3%, no SACK",
      { .loss_ppm = PPM(3), .reorder_ppm = PPM(3), .reorder_us = 2000, .delay_us = 5000 },
      no_sack,
      MIB,
      0,
      0,
      100,
      10 },
    { "loss 3%, reorder 3%, no options",
      { .loss_ppm = PPM(3), .reorder_ppm = PPM(3), .reorder_us = 2000, .delay_us = 5000 },
      no_options,
      MIB,
      MIB,
      0,
      100,
      10 },
    { "reorder 10%",
      { .reorder_ppm = PPM(10), .reorder_us = 3000, .delay_us = 5000 },
      NULL,
      4 * MIB,
      0,
      65535,
      2500,
      5 },
    { "duplicates 20%", { .dup_ppm = PPM(20), .delay_us = 1000 }, NULL, 4 * MIB, 4 * MIB, 65535, 10000, 3 },
    { "loss 20%", { .loss_ppm = PPM(20), .delay_us = 1000 }, NULL, 100 * KIB, 100 * KIB, 0, 2, 20 },
    { "everything, 8 KiB buffer",
      { .loss_ppm = PPM(2), .reorder_ppm = PPM(5), .dup_ppm = PPM(5), .reorder_us = 1000, .delay_us = 1000 },
      small_buffer,
      256 * KIB,
      256 * KIB,
      0,
      50,
      10 },
};

static uint32_t
run_one(const struct scenario *sc, uint64_t seed)
{
    struct sim s;

    sim_init(&s, seed, &sc->link, sc->adjust);
    s.gso_max_bytes = sc->gso_max_bytes;
    s.host[0].flows[0].to_send = sc->up_bytes;
    s.host[1].flows[0].to_send = sc->down_bytes;
    uint64_t start = s.now_us;
    sim_connect(&s);
    if (!sim_run(&s, start + 600 * SECOND))
        fail_msg("%s: stalled, seed %llu: up %llu of %llu, down %llu of %llu", sc->name, (unsigned long long)seed,
                 (unsigned long long)s.host[1].flows[0].received, (unsigned long long)sc->up_bytes,
                 (unsigned long long)s.host[0].flows[0].received, (unsigned long long)sc->down_bytes);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(s.host[i].flows[0].received, s.host[1 - i].flows[0].to_send);
        assert_int_equal(s.host[i].flows[0].acked, s.host[i].flows[0].to_send);
        assert_true(s.host[i].flows[0].peer_fin);
        assert_int_equal(s.host[i].flows[0].err, 0);
    }
    uint64_t took_us = s.now_us - start;
    sim_fini(&s);
    return (uint32_t)((sc->up_bytes + sc->down_bytes) * SECOND / took_us / KIB);
}

static void
transfers_are_exact_and_fast(void **state)
{
    (void)state;
    print_message("%-34s %6s %10s %10s\n", "path", "seeds", "worst KiB/s", "mean KiB/s");
    for (unsigned i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        const struct scenario *sc = &scenarios[i];
        uint32_t worst = UINT32_MAX;
        uint64_t sum = 0;
        for (unsigned seed = 1; seed <= sc->seeds; seed++) {
            uint32_t rate = run_one(sc, seed);
            worst = rate < worst ? rate : worst;
            sum += rate;
        }
        print_message("%-34s %6u %10u %10llu\n", sc->name, sc->seeds, worst, (unsigned long long)(sum / sc->seeds));
        assert_true(worst >= sc->min_kib_per_s);
    }
}

/** A reader that pauses shuts the window again and again: probes and updates must carry it through. */
static void
slow_reader_gets_everything(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct sim_link link = { .delay_us = 1000, .loss_ppm = PPM(3) };
        struct sim s;
        sim_init(&s, seed, &link, small_buffer);
        s.host[0].flows[0].to_send = 200000;
        s.host[1].flows[0].read_every_us = 700000;
        s.host[1].flows[0].read_bytes = 20000;
        sim_connect(&s);
        assert_true(sim_run(&s, s.now_us + 600 * SECOND));
        assert_int_equal(s.host[1].flows[0].received, 200000);
        sim_fini(&s);
    }
}

static void
search(struct tcp_params *p)
{
    p->mtu_probing = TCP_MTU_PROBING_ALWAYS;
}

static void
deaf(struct tcp_params *p)
{
    p->mtu_probing = TCP_MTU_PROBING_OFF;
}

/** Full segments vanish on the way, and no router says why: who looks for the path's MTU gets everything through, in segments as large as the path takes. */
static void
black_holes_are_got_out_of(void **state)
{
    static const struct {
        void (*adjust)(struct tcp_params *p);
        bool gets_through;
    } cases[] = { { NULL, true }, { search, true }, { deaf, false } };

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct sim_link link = { .delay_us = 5000, .black_hole_bytes = 1300 };
        struct tcp_conn_info info;
        struct sim s;
        sim_init(&s, 1 + i, &link, cases[i].adjust);
        s.host[0].flows[0].to_send = 4 * MIB;
        sim_connect(&s);
        sim_run(&s, s.now_us + 60 * SECOND);
        assert_int_equal(s.host[1].flows[0].received == 4 * MIB, cases[i].gets_through);
        const struct counters *ctr = &s.host[0].ctr;
        assert_int_equal(ctr->v[CTR_TCP_MTU_BLACK_HOLES] > 0, cases[i].adjust == NULL);
        if (cases[i].gets_through) {
            /* Probes that were lost cost no timeout and no reduction. */
            assert_true(ctr->v[CTR_TCP_MTU_PROBES_DELIVERED] >= 3);
            assert_true(ctr->v[CTR_TCP_MTU_PROBES_LOST] >= 2);
            assert_true(ctr->v[CTR_TCP_RTO] <= (cases[i].adjust == NULL ? 5 : 0));
            assert_int_equal(ctr->v[CTR_TCP_FAST_RETRANS], 0);
        } else {
            assert_true(tcp_info(s.host[0].d, s.host[0].flows[0].id, &info));
            assert_int_equal(info.path_mtu, 1500);
        }
        sim_fini(&s);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transfers_are_exact_and_fast),
        cmocka_unit_test(slow_reader_gets_everything),
        cmocka_unit_test(black_holes_are_got_out_of),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
