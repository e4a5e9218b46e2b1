/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <rte_ip.h>

#include "ip/sum.h"

#define LEN_MAX 700

/* DPDK's, word by word, is what every length and alignment is compared with. */
static void
test_every_length_and_alignment(void **state)
{
    uint8_t bytes[LEN_MAX + 8];
    uint32_t x = 1;

    (void)state;
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        x = x * 1103515245 + 12345;
        bytes[i] = (uint8_t)(x >> 16);
    }
    for (unsigned at = 0; at < LEN_MAX - 20; at++)
        assert_int_equal(sum_fold(sum_add_20(bytes + at)), rte_raw_cksum(bytes + at, 20));
    for (unsigned at = 0; at < 8; at++)
        for (unsigned len = 0; len <= LEN_MAX; len++)
            assert_int_equal(sum_fold(sum_add(bytes + at, len)), rte_raw_cksum(bytes + at, len));
}

/* Carries: nothing but ones, as long as an IPv4 packet can be. */
static void
test_all_ones(void **state)
{
    static uint8_t bytes[65535];

    (void)state;
    memset(bytes, 0xff, sizeof(bytes));
    for (unsigned len = 1; len <= sizeof(bytes); len += 97)
        assert_int_equal(sum_fold(sum_add(bytes, len)), rte_raw_cksum(bytes, len));
    assert_int_equal(sum_fold(sum_add_20(bytes)), rte_raw_cksum(bytes, 20));
    assert_int_equal(sum_fold(UINT64_MAX), 0xffff);
    assert_int_equal(sum_fold(0), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_length_and_alignment),
        cmocka_unit_test(test_all_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
