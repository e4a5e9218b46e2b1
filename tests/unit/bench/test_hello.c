/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "isobench/hello.h"

static void
test_each_role_comes_back(void **state)
{
    (void)state;
    for (unsigned role = 0; role < ROLE_COUNT; role++) {
        const struct hello in = { (enum role)role, role + 1 };
        uint8_t bytes[HELLO_BYTES];
        struct hello out;

        hello_write(&in, bytes);
        assert_int_equal(hello_read(&out, bytes), 0);
        assert_int_equal(out.role, role);
        assert_int_equal(out.size_bytes, role + 1);
    }
}

/* The words of the wire: magic, version, role, size. */
static void
test_each_word_is_checked(void **state)
{
    const struct hello in = { ROLE_RX, HELLO_SIZE_MAX };
    uint8_t bytes[HELLO_BYTES];
    struct hello out;

    (void)state;
    for (unsigned word = 0; word < 4; word++) {
        hello_write(&in, bytes);
        assert_int_equal(hello_read(&out, bytes), 0);
        bytes[4 * word] = 0xff;
        assert_int_equal(hello_read(&out, bytes), -1);
    }
    hello_write(&in, bytes);
    bytes[15] = 1; /* one more than the largest message */
    assert_int_equal(hello_read(&out, bytes), -1);
    hello_write(&(struct hello){ ROLE_RX, 0 }, bytes);
    assert_int_equal(hello_read(&out, bytes), -1);
    hello_write(&(struct hello){ ROLE_COUNT, 1 }, bytes);
    assert_int_equal(hello_read(&out, bytes), -1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_role_comes_back),
        cmocka_unit_test(test_each_word_is_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
