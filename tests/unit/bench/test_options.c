/* SPDX-License-Identifier: BSD-3-Clause */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "isobench/options.h"

static struct options o;
static char err[320];

/** Parse words that are separated by single spaces. */
static enum options_result
parse(const char *line)
{
    static char copy[512];
    char *argv[32] = { (char *)(uintptr_t) "isobench" };
    int argc = 1;

    strcpy(copy, line);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    err[0] = '\0';
    return options_parse(&o, argc, argv, err, sizeof(err));
}

static void
test_defaults(void **state)
{
    const struct sockaddr_in *sin = (const struct sockaddr_in *)&o.addr;

    (void)state;
    assert_int_equal(parse("rr 10.0.0.1:7000"), OPTIONS_OK);
    assert_false(o.serve);
    assert_int_equal(o.hello.role, ROLE_RR);
    assert_int_equal(o.hello.size_bytes, 64);
    assert_int_equal(o.connections, 1);
    assert_int_equal(o.threads, 1);
    assert_int_equal(o.depth, 1);
    assert_true(o.duration_s == 5 && o.rate == 0);
    assert_int_equal(sin->sin_family, AF_INET);
    assert_int_equal(sin->sin_port, htons(7000));
    assert_int_equal(sin->sin_addr.s_addr, htonl(0x0a000001));
    assert_int_equal(parse("tx [::1]:80"), OPTIONS_OK);
    assert_int_equal(o.hello.size_bytes, 65536);
    assert_int_equal(o.addr.ss_family, AF_INET6);
    assert_int_equal(parse("serve 127.0.0.1:80"), OPTIONS_OK);
    assert_true(o.serve && o.duration_s == 0);
}

static void
test_all_options(void **state)
{
    (void)state;
    assert_int_equal(parse("rr 127.0.0.1:1 -c 64 -s 4k -t 2 -P 8 -d 0.5 -r 1e6 --pin 1,0,3 --spin --json --progress"),
                     OPTIONS_OK);
    assert_int_equal(o.connections, 64);
    assert_int_equal(o.hello.size_bytes, 4096);
    assert_int_equal(o.threads, 2);
    assert_int_equal(o.depth, 8);
    assert_true(o.duration_s == 0.5 && o.rate == 1e6);
    assert_int_equal(o.nb_cpus, 3);
    assert_int_equal(o.cpus[0], 1);
    assert_int_equal(o.cpus[2], 3);
    assert_true(o.spin && o.json && o.progress);
    assert_int_equal(parse("--help"), OPTIONS_HELP);
    assert_int_equal(parse("--version"), OPTIONS_VERSION);
}

/* Each is refused, and the line names what is wrong. */
static void
test_wrong_usage(void **state)
{
    static const struct {
        const char *line, *says;
    } rows[] = {
        { "", "role" },
        { "rr", "role" },
        { "rr 127.0.0.1:1 more", "role" },
        { "pingpong 127.0.0.1:1", "'pingpong'" },
        { "rr 127.0.0.1", "'127.0.0.1'" },
        { "rr :80", "':80'" },
        { "rr 127.0.0.1:", "'127.0.0.1:'" },
        { "rr 127.0.0.1:http1", "'127.0.0.1:http1'" },
        { "rr 127.0.0.1:0", "'0' is not a port" },
        { "serve 127.0.0.1:65536", "'65536' is not a port" },
        { "rr [::1]:-80", "'-80' is not a port" },
        { "rr 127.0.0.1:1 -c 0", "--connections" },
        { "rr 127.0.0.1:1 -c -1", "--connections" },
        { "rr 127.0.0.1:1 -c 1k", "--connections" },
        { "rr 127.0.0.1:1 -c", "-c" },
        { "rr 127.0.0.1:1 -s 65m", "--size" },
        { "rr 127.0.0.1:1 -s 4kk", "--size" },
        { "rr 127.0.0.1:1 -P 4097", "--depth" },
        { "crr 127.0.0.1:1 -P 2", "--depth" },
        { "rx 127.0.0.1:1 -r 10", "--rate" },
        { "rr 127.0.0.1:1 -r nan", "--rate" },
        { "rr 127.0.0.1:1 -d 0", "--duration" },
        { "rr 127.0.0.1:1 -t 65 -c 65", "--threads" },
        { "rr 127.0.0.1:1 -t 2", "2 threads for 1 connections" },
        { "rr 127.0.0.1:1 --pin 0,", "--pin" },
        { "rr 127.0.0.1:1 --pin -1", "--pin" },
        { "rr 127.0.0.1:1 --frobnicate", "--frobnicate" },
        { "serve 127.0.0.1:1 -c 2", "a client's" },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(parse(rows[i].line), OPTIONS_ERROR);
        assert_non_null(strstr(err, rows[i].says));
        assert_null(strchr(err, '\n'));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all_options),
        cmocka_unit_test(test_wrong_usage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
