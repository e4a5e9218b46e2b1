/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "modes/mode.h"

static void
finds_modes_and_their_knobs(void **state)
{
    char err[256] = "";
    const char *knobs = NULL;
    const struct mode_ops *iso = mode_find("isostack,queues=percpu,aggregate=on", &knobs, err, sizeof(err));

    (void)state;
    assert_non_null(iso);
    assert_string_equal(iso->name, "isostack");
    assert_string_equal(knobs, "queues=percpu,aggregate=on");
    assert_string_equal(mode_find("up", &knobs, err, sizeof(err))->name, "up");
    assert_string_equal(knobs, "");
    assert_string_equal(err, "");
}

static void
every_mode_is_complete(void **state)
{
    (void)state;
    assert_non_null(mode_table[0]);
    for (const struct mode_ops *const *m = mode_table; *m != NULL; m++) {
        assert_non_null((*m)->summary);
        assert_true((*m)->plan && (*m)->create && (*m)->destroy && (*m)->nb_workers && (*m)->poll && (*m)->packets &&
                    (*m)->commands && (*m)->host && (*m)->rings_per_instance && (*m)->report);
    }
}

static void
unknown_mode_lists_the_known(void **state)
{
    char err[256] = "";
    char tiny[8];
    const char *knobs = NULL;

    (void)state;
    assert_null(mode_find("isostak", &knobs, err, sizeof(err)));
    assert_non_null(strstr(err, "isostak"));
    assert_non_null(strstr(err, "isostack"));
    assert_non_null(strstr(err, "up"));
    assert_null(strchr(err, '\n'));
    assert_null(mode_find("", &knobs, err, sizeof(err)));
    /* A buffer that is too small is filled, not overrun. */
    assert_null(mode_find("isostak", &knobs, tiny, sizeof(tiny)));
    assert_true(strlen(tiny) < sizeof(tiny));
}

/* Knobs are checked before anything is made, so that an empty configuration does. */
static void
refuses(const char *text, const char *word)
{
    struct mode_config cfg = { .nb_workers = 1 };
    char err[256] = "";
    const struct mode_ops *ops = mode_find(text, &cfg.knobs, err, sizeof(err));

    assert_non_null(ops);
    assert_null(ops->create(&cfg, err, sizeof(err)));
    if (strstr(err, word) == NULL)
        fail_msg("'%s' does not name %s", err, word);
    assert_non_null(strstr(err, ops->name));
    assert_null(strchr(err, '\n'));
    assert_int_equal(errno, EINVAL);
}

static void
wrong_knobs_are_refused(void **state)
{
    (void)state;
    refuses("isostack,queues=perprocess", "percpu");
    refuses("isostack,aggregate=perhaps", "aggregate");
    refuses("isostack,instances=2", "allowed are 1 to 1");
    refuses("isostack,instances=17", "instances");
    refuses("connp-l,groups=0", "1024");
    refuses("connp-l,groups=1025", "1024");
    refuses("connp-l,threads=2", "groups");
    refuses("connp-t,threads=2", "allowed are 1 to 1");
    refuses("connp-t,threads=many", "threads");
    refuses("isostack,instances=0", "instances");
    refuses("hybrid,instances=2", "allowed are 1 to 1");
    refuses("hybrid,threshold=0", "1024");
    refuses("hybrid,steal=perhaps", "steal");
    refuses("connp-t,steer=left", "rss");
    refuses("isostack,speed=high", "speed");
    refuses("misd,replicas=2", "allowed are 1 to 1");
    refuses("misd,replicas=16", "replicas");
    refuses("misd,channels=three", "two");
    refuses("misd,scheme=lock", "refcount");
    refuses("misd,patience=99", "100");
    refuses("misd,check=perhaps", "check");
    refuses("misd,groups=2", "groups");
    refuses("up,queues=percpu", "queues");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_modes_and_their_knobs),
        cmocka_unit_test(every_mode_is_complete),
        cmocka_unit_test(unknown_mode_lists_the_known),
        cmocka_unit_test(wrong_knobs_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
