/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/rng.h"
#include "core/wheel.h"

#define NODES 200
#define START_US UINT64_C(123456789)

struct fixture {
    struct wheel w;
    struct wheel_node nodes[NODES];
    /* The reference: due instant of each armed timer, in whole ticks; 0 = disarmed. */
    uint64_t due_tick[NODES];
    uint64_t now_us;
};

static uint64_t
ceil_tick(uint64_t us)
{
    return (us + WHEEL_TICK_US - 1) / WHEEL_TICK_US;
}

static void
fixture_init(struct fixture *f, uint64_t now_us)
{
    memset(f, 0, sizeof(*f));
    f->now_us = now_us;
    wheel_init(&f->w, now_us);
}

static void
arm(struct fixture *f, uint32_t id, uint64_t deadline_us)
{
    uint64_t floor_now = f->now_us / WHEEL_TICK_US;
    uint64_t due = ceil_tick(deadline_us);

    f->due_tick[id] = due < floor_now ? floor_now : due;
    wheel_arm(&f->w, f->nodes, id, deadline_us);
    assert_true(wheel_is_armed(&f->nodes[id]));
}

static uint32_t
reference_armed(const struct fixture *f)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < NODES; i++)
        n += f->due_tick[i] != 0;
    return n;
}

static uint64_t
reference_earliest_us(const struct fixture *f)
{
    uint64_t best = WHEEL_NEVER;

    for (unsigned i = 0; i < NODES; i++)
        if (f->due_tick[i] != 0 && f->due_tick[i] * WHEEL_TICK_US < best)
            best = f->due_tick[i] * WHEEL_TICK_US;
    return best;
}

/* Advance and compare with the reference: exactly the due ones, each once, in the order of their ticks. */
static unsigned
advance(struct fixture *f, uint64_t to_us, unsigned max)
{
    uint32_t due[NODES];
    uint64_t last = 0;
    unsigned total = 0;
    unsigned n;

    f->now_us = to_us;
    do {
        n = wheel_advance(&f->w, f->nodes, to_us, due, max);
        assert_true(n <= max);
        for (unsigned i = 0; i < n; i++) {
            uint64_t tick = f->due_tick[due[i]];

            assert_true(tick != 0);
            assert_true(tick <= to_us / WHEEL_TICK_US);
            assert_true(tick >= last);
            assert_false(wheel_is_armed(&f->nodes[due[i]]));
            last = tick;
            f->due_tick[due[i]] = 0;
        }
        total += n;
    } while (n == max);
    for (unsigned i = 0; i < NODES; i++)
        assert_false(f->due_tick[i] != 0 && f->due_tick[i] <= to_us / WHEEL_TICK_US);
    assert_int_equal(f->w.armed, reference_armed(f));
    return total;
}

static void
test_empty_wheel_needs_nothing(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, START_US);
    assert_true(wheel_next_us(&f.w, START_US) == WHEEL_NEVER);
    assert_int_equal(advance(&f, START_US + UINT64_C(1000000000), 4), 0);
    assert_true(wheel_next_us(&f.w, f.now_us) == WHEEL_NEVER);
}

static void
test_never_early_and_at_most_one_tick_late(void **state)
{
    /* One deadline on each level, and at each edge of a level. */
    static const uint64_t delays_us[] = { 1,     63,      64,      65,         16383,      16384,
                                          16385, 4194303, 4194304, 1073741824, 1073741825, UINT64_C(130000000000) };

    (void)state;
    for (unsigned i = 0; i < sizeof(delays_us) / sizeof(delays_us[0]); i++) {
        struct fixture f;
        uint64_t deadline_us = START_US + delays_us[i];

        fixture_init(&f, START_US);
        arm(&f, 7, deadline_us);
        assert_int_equal(advance(&f, deadline_us - 1, 8), 0);
        assert_int_equal(advance(&f, deadline_us + WHEEL_TICK_US, 8), 1);
    }
}

static void
test_past_deadline_fires_at_once(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, START_US);
    arm(&f, 3, START_US - 5000);
    assert_true(wheel_next_us(&f.w, START_US) == START_US);
    assert_int_equal(advance(&f, START_US, 8), 1);
}

static void
test_cancel_and_rearm(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, START_US);
    for (uint32_t i = 0; i < 4; i++)
        arm(&f, i, START_US + 1000);
    wheel_cancel(&f.w, f.nodes, 1); /* from the middle of the slot's list */
    f.due_tick[1] = 0;
    wheel_cancel(&f.w, f.nodes, 1); /* again: nothing happens */
    wheel_cancel(&f.w, f.nodes, 9); /* never armed */
    arm(&f, 2, START_US + 20000); /* moved up a level */
    assert_int_equal(f.w.armed, 3);
    assert_int_equal(advance(&f, START_US + 1100, 8), 2);
    assert_int_equal(advance(&f, START_US + 20100, 8), 1);
}

static void
test_too_far_is_brought_back(void **state)
{
    struct fixture f;
    uint64_t limit_us = (uint64_t)WHEEL_MAX_TICKS * WHEEL_TICK_US;
    uint32_t due[1];

    (void)state;
    fixture_init(&f, 0);
    wheel_arm(&f.w, f.nodes, 0, UINT64_MAX);
    assert_true(wheel_next_us(&f.w, 0) == limit_us);
    assert_int_equal(wheel_advance(&f.w, f.nodes, limit_us - 1, due, 1), 0);
    assert_int_equal(wheel_advance(&f.w, f.nodes, limit_us, due, 1), 1);
}

static void
test_partial_take_keeps_the_rest(void **state)
{
    struct fixture f;
    uint32_t due[NODES];

    (void)state;
    fixture_init(&f, START_US);
    for (uint32_t i = 0; i < 10; i++)
        arm(&f, i, START_US + 100);
    arm(&f, 10, START_US + 30000);
    f.now_us = START_US + 40000;
    assert_int_equal(wheel_advance(&f.w, f.nodes, f.now_us, due, 4), 4);
    /* The next one must run now; a timer armed meanwhile is not lost either. */
    assert_true(wheel_next_us(&f.w, f.now_us) == f.now_us);
    wheel_arm(&f.w, f.nodes, 20, START_US);
    assert_int_equal(wheel_advance(&f.w, f.nodes, f.now_us, due, NODES), 8);
    assert_int_equal(f.w.armed, 0);
}

/* The wheel and its nodes can be copied elsewhere and go on identically. */
static void
test_relocation(void **state)
{
    struct fixture f;
    uint32_t due_here[NODES];
    uint32_t due_there[NODES];

    (void)state;
    fixture_init(&f, START_US);
    for (uint32_t i = 0; i < NODES; i++)
        arm(&f, i, START_US + (uint64_t)i * i * 997);
    struct fixture *g = malloc(sizeof(*g));

    assert_non_null(g);
    memcpy(g, &f, sizeof(f));
    unsigned here = wheel_advance(&f.w, f.nodes, START_US + 20000000, due_here, NODES);
    unsigned there = wheel_advance(&g->w, g->nodes, START_US + 20000000, due_there, NODES);

    assert_true(here > 0);
    assert_int_equal(here, there);
    assert_memory_equal(due_here, due_there, here * sizeof(due_here[0]));
    assert_memory_equal(&f, g, sizeof(f));
    free(g);
}

static void
run_random(uint64_t seed, uint64_t start_us)
{
    static const unsigned delay_bits[] = { 4, 7, 12, 15, 20, 24, 31, 36 };
    struct fixture f;
    struct rng rng;

    rng_init(&rng, seed, 0);
    fixture_init(&f, start_us);
    for (unsigned step = 0; step < 20000; step++) {
        uint32_t id = (uint32_t)(rng_next(&rng) % NODES);
        unsigned bits = delay_bits[rng_next(&rng) % 8];
        uint64_t delay_us = rng_next(&rng) & ((UINT64_C(1) << bits) - 1);

        switch (rng_next(&rng) % 4) {
        case 0:
        case 1:
            if (rng_next(&rng) % 4 == 0)
                arm(&f, id, f.now_us > delay_us ? f.now_us - delay_us : 0);
            else
                arm(&f, id, f.now_us + delay_us);
            break;
        case 2:
            wheel_cancel(&f.w, f.nodes, id);
            f.due_tick[id] = 0;
            break;
        default: {
            uint64_t earliest_us = reference_earliest_us(&f);
            uint64_t next_us = wheel_next_us(&f.w, f.now_us);

            /* Never later than the earliest deadline, and never in the past. */
            assert_true(next_us <= (earliest_us > f.now_us ? earliest_us : f.now_us));
            assert_true(next_us >= f.now_us);
            if (next_us != WHEEL_NEVER && (rng_next(&rng) & 1))
                advance(&f, next_us, 3);
            else
                advance(&f, f.now_us + (delay_us >> (rng_next(&rng) % 8)), 1 + id);
            break;
        }
        }
    }
    advance(&f, f.now_us + (UINT64_C(1) << 38), NODES + 1);
    assert_int_equal(f.w.armed, 0);
}

static void
test_random_against_reference(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        print_message("seed %llu\n", (unsigned long long)seed);
        /* The odd ones start shortly before the 32-bit tick wraps. */
        run_random(seed, seed % 2 ? (UINT64_C(1) << (32 + WHEEL_TICK_SHIFT)) - 5000000 : seed * 7777777);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_wheel_needs_nothing),
        cmocka_unit_test(test_never_early_and_at_most_one_tick_late),
        cmocka_unit_test(test_past_deadline_fires_at_once),
        cmocka_unit_test(test_cancel_and_rearm),
        cmocka_unit_test(test_too_far_is_brought_back),
        cmocka_unit_test(test_partial_take_keeps_the_rest),
        cmocka_unit_test(test_relocation),
        cmocka_unit_test(test_random_against_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
