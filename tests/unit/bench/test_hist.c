/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "isobench/hist.h"

static struct hist h, other;

static int
set_up(void **state)
{
    (void)state;
    hist_init(&h);
    hist_init(&other);
    return 0;
}

static void
test_empty_has_no_percentiles(void **state)
{
    (void)state;
    assert_int_equal(hist_percentile(&h, 0), 0);
    assert_int_equal(hist_percentile(&h, 0.5), 0);
    assert_int_equal(hist_percentile(&h, 1), 0);
}

static void
test_small_values_are_exact(void **state)
{
    (void)state;
    for (uint64_t v = 1; v <= 200; v++)
        hist_add(&h, v);
    assert_int_equal(hist_percentile(&h, 0), 1);
    assert_int_equal(hist_percentile(&h, 0.005), 1);
    assert_int_equal(hist_percentile(&h, 0.5), 100);
    assert_int_equal(hist_percentile(&h, 0.99), 198);
    assert_int_equal(hist_percentile(&h, 1), 200);
}

/* A lone large value, with one above it so that the maximum does not answer in its stead. */
static void
assert_resolved(uint64_t v)
{
    uint64_t p;

    hist_init(&h);
    hist_add(&h, v);
    hist_add(&h, UINT64_MAX);
    p = hist_percentile(&h, 0.5);
    assert_true(p >= v);
    assert_true(p - v <= v / 128);
}

static void
test_resolution_at_all_magnitudes(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t power = UINT64_C(1) << bit;

        assert_resolved(power);
        assert_resolved(power - 1);
        assert_resolved(power + power / 3);
    }
    hist_init(&h);
    hist_add(&h, UINT64_MAX);
    assert_int_equal(hist_percentile(&h, 0.5), UINT64_MAX);
}

static int
compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Against sorting, over values spread evenly in magnitude. */
static void
test_percentiles_match_sorted_values(void **state)
{
    static uint64_t values[10000];
    const double shares[] = { 0.01, 0.5, 0.9, 0.99, 0.999 };
    uint64_t rng = 42;

    (void)state;
    for (unsigned i = 0; i < 10000; i++) {
        rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        values[i] = (rng >> 16) >> (rng % 40);
        hist_add(&h, values[i]);
    }
    qsort(values, 10000, sizeof(values[0]), compare);
    for (unsigned i = 0; i < 5; i++) {
        uint64_t want = values[(unsigned)(shares[i] * 10000 + 0.5) - 1], got = hist_percentile(&h, shares[i]);

        assert_true(got >= want && got - want <= want / 128);
    }
    assert_int_equal(hist_percentile(&h, 0), values[0]);
    assert_int_equal(hist_percentile(&h, 1), values[9999]);
}

static void
test_merge_is_as_if_added_here(void **state)
{
    (void)state;
    for (uint64_t v = 1; v <= 50; v++)
        hist_add(&h, v);
    for (uint64_t v = 51; v <= 100; v++)
        hist_add(&other, v);
    hist_merge(&h, &other);
    assert_int_equal(h.count, 100);
    assert_int_equal(hist_percentile(&h, 0.75), 75);
    assert_int_equal(hist_percentile(&h, 1), 100);
    hist_init(&other);
    hist_merge(&h, &other); /* nothing: the minimum stays */
    assert_int_equal(hist_percentile(&h, 0), 1);
    hist_merge(&other, &h); /* into an empty one */
    assert_int_equal(hist_percentile(&other, 0), 1);
    assert_int_equal(other.count, 100);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_empty_has_no_percentiles, set_up),
        cmocka_unit_test_setup(test_small_values_are_exact, set_up),
        cmocka_unit_test_setup(test_resolution_at_all_magnitudes, set_up),
        cmocka_unit_test_setup(test_percentiles_match_sorted_values, set_up),
        cmocka_unit_test_setup(test_merge_is_as_if_added_here, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
