/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>

#include "core/clock.h"
#include "core/eal.h"

/* What a child that starts the EAL with these words reports. The EAL starts once per process, hence the child. */
struct outcome {
    int rc;
    int ports;
    char err[256];
    char runtime_dir[256];
    char std_err[1024];
    bool clock_advances;
};

static void
child(const char *const *words, int result_fd, int stderr_fd)
{
    static char copies[16][64];
    struct outcome out;
    char *argv[17];
    int argc = 0;

    memset(&out, 0, sizeof(out));
    for (; words[argc] != NULL; argc++) {
        snprintf(copies[argc], sizeof(copies[argc]), "%s", words[argc]);
        argv[argc] = copies[argc];
    }
    argv[argc] = NULL;
    dup2(stderr_fd, STDERR_FILENO);
    out.rc = eal_start(argc, argv, out.err, sizeof(out.err));
    if (out.rc >= 0) {
        clock_init();
        uint64_t before_us = clock_now_us();
        uint64_t until_tsc = rte_rdtsc() + rte_get_tsc_hz() / 1000;

        while (rte_rdtsc() < until_tsc) {
        }
        uint64_t elapsed_us = clock_now_us() - before_us;

        out.clock_advances = before_us >= 1 && elapsed_us >= 990 && elapsed_us < 1000000;
        out.ports = rte_eth_dev_count_avail();
        snprintf(out.runtime_dir, sizeof(out.runtime_dir), "%s", rte_eal_get_runtime_dir());
        eal_stop();
    }
    if (write(result_fd, &out, sizeof(out)) != sizeof(out))
        exit(1);
    exit(0);
}

static struct outcome
start(const char *const *words)
{
    struct outcome out;
    int result[2], errors[2], status;

    assert_int_equal(pipe(result), 0);
    assert_int_equal(pipe(errors), 0);
    fflush(NULL);
    pid_t pid = fork();

    if (pid == 0)
        child(words, result[1], errors[1]);
    close(result[1]);
    close(errors[1]);
    assert_int_equal(read(result[0], &out, sizeof(out)), sizeof(out));
    ssize_t n = read(errors[0], out.std_err, sizeof(out.std_err) - 1);

    out.std_err[n > 0 ? n : 0] = '\0';
    close(result[0]);
    close(errors[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    return out;
}

static void
test_defaults_are_quiet_and_leave_nothing(void **state)
{
    const char *const words[] = { "prog", "--no-huge", "--no-pci", "--vdev=net_null0", "--", "--address", "x", NULL };
    struct outcome out = start(words);
    struct stat st;

    (void)state;
    assert_int_equal(out.rc, 4); /* the place of the -- */
    assert_int_equal(out.ports, 1);
    assert_true(out.clock_advances);
    assert_string_equal(out.std_err, "");
    assert_non_null(strstr(out.runtime_dir, "/isosock-"));
    assert_int_equal(stat(out.runtime_dir, &st), -1);
    assert_int_equal(errno, ENOENT);
}

static void
test_without_separator_all_words_are_the_eals(void **state)
{
    const char *const words[] = { "prog", "--no-huge", "--no-pci", "-m", "64", NULL };

    (void)state;
    assert_int_equal(start(words).rc, 5);
}

static void
test_users_words_win(void **state)
{
    const char *const words[] = { "prog", "--no-huge", "--no-pci", "-m", "64", "--file-prefix=isosock-test-eal",
                                  "-l",   "0",         NULL };
    struct outcome out = start(words);

    (void)state;
    assert_int_equal(out.rc, 8);
    assert_non_null(strstr(out.runtime_dir, "/isosock-test-eal"));
}

static void
test_errors_are_one_line(void **state)
{
    static const struct {
        const char *words[6];
        const char *err;
    } cases[] = {
        { { "prog", "--no-huge", "--no-pci", "--bogus", NULL }, "EAL: prog: unrecognized option '--bogus'" },
        { { "prog", "--no-huge", "--no-pci", "-l", "7777", NULL }, NULL },
        { { "prog", "--no-huge", "--no-pci", "--vdev=net_bogus0", NULL },
          "EAL: failed to parse device \"net_bogus0\"" },
        { { "prog", "--no-huge", "--no-pci", "--iova-mode=zz", NULL }, "EAL: invalid parameters for --iova-mode" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct outcome out = start(cases[i].words);

        assert_int_equal(out.rc, -EINVAL);
        assert_string_equal(out.std_err, "");
        assert_null(strchr(out.err, '\n'));
        assert_true(strlen(out.err) > 8);
        if (cases[i].err != NULL)
            assert_string_equal(out.err, cases[i].err);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_quiet_and_leave_nothing),
        cmocka_unit_test(test_without_separator_all_words_are_the_eals),
        cmocka_unit_test(test_users_words_win),
        cmocka_unit_test(test_errors_are_one_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
