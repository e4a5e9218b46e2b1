/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/counter.h"

static void
test_names_are_unique_and_lower_case(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CTR_COUNT; i++) {
        assert_true(strspn(counter_infos[i].name, "abcdefghijklmnopqrstuvwxyz0123456789_.") ==
                    strlen(counter_infos[i].name));
        assert_non_null(strchr(counter_infos[i].name, '.'));
        assert_true(strlen(counter_infos[i].text) > 5);
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(counter_infos[i].name, counter_infos[j].name);
    }
}

/* What a departed worker counted stays in the sum. */
static void
test_registry(void **state)
{
    static struct counters a, b;
    struct counters sum;
    char name[COUNTERS_NAME_LEN];

    (void)state;
    assert_int_equal(counters_register("w0", &a), 0);
    assert_int_equal(counters_register("w1", &b), 0);
    assert_int_equal(counters_register("w1", &a), -EEXIST);
    assert_int_equal(counters_register("", &a), -EINVAL);
    assert_int_equal(counters_register("a name that is longer than 31 chars", &a), -EINVAL);
    counter_add(&a, CTR_TCP_RTO, 5);
    counter_inc(&b, CTR_TCP_RTO);
    counters_sum(&sum);
    assert_int_equal(sum.v[CTR_TCP_RTO], 6);
    assert_int_equal(counters_get("w1", &sum), 0);
    assert_int_equal(sum.v[CTR_TCP_RTO], 1);
    assert_int_equal(counters_get("w2", &sum), -ENOENT);
    assert_int_equal(counters_name(1, name), 0);
    assert_string_equal(name, "w1");
    assert_int_equal(counters_name(2, name), -ENOENT);
    counters_unregister(&a);
    assert_int_equal(counters_name(0, name), 0);
    assert_string_equal(name, "w1");
    counters_unregister(&b);
    counters_unregister(&b); /* again: nothing happens */
    counters_sum(&sum);
    assert_int_equal(sum.v[CTR_TCP_RTO], 6);
}

static void
test_registry_is_bounded(void **state)
{
    static struct counters many[COUNTERS_MAX + 1];
    char name[COUNTERS_NAME_LEN];

    (void)state;
    for (unsigned i = 0; i <= COUNTERS_MAX; i++) {
        snprintf(name, sizeof(name), "w%u", i);
        assert_int_equal(counters_register(name, &many[i]), i < COUNTERS_MAX ? 0 : -ENOSPC);
    }
    for (unsigned i = 0; i < COUNTERS_MAX; i++)
        counters_unregister(&many[i]);
    assert_int_equal(counters_name(0, name), -ENOENT);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_unique_and_lower_case),
        cmocka_unit_test(test_registry),
        cmocka_unit_test(test_registry_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
