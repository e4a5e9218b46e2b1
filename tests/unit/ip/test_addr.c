/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ip/addr.h"

static void
formats_what_it_parses(void **state)
{
    static const char *const texts[] = {
        "0.0.0.0", "10.66.0.2", "255.255.255.255", "::", "fe80::1", "2001:db8::a:0:0:1"
    };
    char out[IP_ADDR_STRLEN];
    struct ip_addr a;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(ip_addr_parse(texts[i], &a), 0);
        assert_string_equal(ip_addr_format(&a, out), texts[i]);
    }
}

static void
v4_is_v4_mapped_in_network_order(void **state)
{
    static const uint8_t bytes[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [13] = 66, [15] = 2 };
    char out[IP_ADDR_STRLEN];
    struct ip_addr a, b;

    (void)state;
    assert_int_equal(ip_addr_parse("10.66.0.2", &a), 0);
    assert_memory_equal(&a, bytes, 16);
    assert_true(ip_addr_is_v4(&a));
    assert_int_equal(ip_addr_parse("::ffff:10.66.0.2", &b), 0);
    assert_true(ip_addr_equal(&a, &b));
    assert_string_equal(ip_addr_format(&b, out), "10.66.0.2");
}

static void
refuses_what_is_no_address(void **state)
{
    static const char *const texts[] = { "",          "10.66.0", "10.66.0.256", "10.66.0.2 ",
                                         "1.2.3.4.5", "g::1",    ":::",         "0x10.1.1.1" };
    struct ip_addr a;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(ip_addr_parse(texts[i], &a), -EINVAL);
    }
}

static void
parses_prefixes(void **state)
{
    static const struct {
        const char *text;
        int result;
        uint8_t len;
    } rows[] = {
        { "10.66.0.2/24", 0, 24 },
        { "10.66.0.2/0", 0, 0 },
        { "10.66.0.2/32", 0, 32 },
        { "2001:db8::1/64", 0, 64 },
        { "2001:db8::1/128", 0, 128 },
        { "10.66.0.2", -EINVAL, 0 },
        { "10.66.0.2/33", -EINVAL, 0 },
        { "10.66.0.2/", -EINVAL, 0 },
        { "10.66.0.2/-1", -EINVAL, 0 },
        { "10.66.0.2/ 8", -EINVAL, 0 },
        { "10.66.0.2/8x", -EINVAL, 0 },
        { "10.66.0.2/4294967304", -EINVAL, 0 },
        { "/24", -EINVAL, 0 },
        { "2001:db8::1/129", -EINVAL, 0 },
        { "10.66.0/24", -EINVAL, 0 },
        { "0000000000000000000000000000000000000000000000000000000010.66.0.2/24", -EINVAL, 0 },
    };
    struct ip_addr a;
    uint8_t len;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        len = 77;
        assert_int_equal(ip_prefix_parse(rows[i].text, &a, &len), rows[i].result);
        assert_int_equal(len, rows[i].result == 0 ? rows[i].len : 77); /* untouched by a failure */
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_what_it_parses),
        cmocka_unit_test(v4_is_v4_mapped_in_network_order),
        cmocka_unit_test(refuses_what_is_no_address),
        cmocka_unit_test(parses_prefixes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
