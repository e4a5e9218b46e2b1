/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_eal.h>

#include "core/counter.h"
#include "core/telemetry.h"

#include "eal_fixture.h"

static struct counters worker0, worker1;
static int fd;

/* As dpdk-telemetry.py does: connect, take the greeting, then one message for each command. */
static int
connect_to_telemetry(void **state)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    char greeting[1024];

    (void)state;
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/dpdk_telemetry.v2", rte_eal_get_runtime_dir());
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
        return -1;
    return read(fd, greeting, sizeof(greeting)) > 0 ? 0 : -1;
}

static int
disconnect(void **state)
{
    (void)state;
    return close(fd);
}

static const char *
ask(const char *command)
{
    static char answer[65536];
    ssize_t n;

    assert_int_equal(write(fd, command, strlen(command)), strlen(command));
    n = read(fd, answer, sizeof(answer) - 1);
    assert_true(n > 0);
    answer[n] = '\0';
    return answer;
}

static void
test_sum_and_single_worker(void **state)
{
    (void)state;
    assert_non_null(strstr(ask("/isosock/counters"), "\"tcp/rx_segs\":42,"));
    assert_non_null(strstr(ask("/isosock/counters,w0"), "\"tcp/rx_segs\":40,"));
    assert_non_null(strstr(ask("/isosock/counters,w1"), "\"tcp/rx_segs\":2,"));
    assert_string_equal(ask("/isosock/counters,nobody"), "{\"/isosock/counters\":null}");
}

/* Telemetry refuses names with characters that it does not like; none of ours may get lost so. */
static void
test_every_counter_is_there(void **state)
{
    const char *answer = ask("/isosock/counters");

    (void)state;
    for (unsigned i = 0; i < CTR_COUNT; i++) {
        char name[64];

        snprintf(name, sizeof(name), "\"%s\":", counter_infos[i].name);
        for (char *dot = strchr(name, '.'); dot != NULL; dot = strchr(dot, '.'))
            *dot = '/';
        if (strstr(answer, name) == NULL)
            fail_msg("%s is missing", name);
    }
}

static void
test_workers(void **state)
{
    (void)state;
    assert_string_equal(ask("/isosock/workers"), "{\"/isosock/workers\":[\"w0\",\"w1\"]}");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_and_single_worker),
        cmocka_unit_test(test_every_counter_is_there),
        cmocka_unit_test(test_workers),
    };

    if (fixture_eal_start(NULL, 0) != 0 || telemetry_init() != 0)
        return 1;
    counters_register("w0", &worker0);
    counters_register("w1", &worker1);
    worker0.v[CTR_TCP_RX_SEGS] = 40;
    worker1.v[CTR_TCP_RX_SEGS] = 2;
    int failed = cmocka_run_group_tests(tests, connect_to_telemetry, disconnect);

    eal_stop();
    return failed;
}
