/* SPDX-License-Identifier: BSD-3-Clause */
#include "trace.h"

/**
 * @file
 * MSG_EOR: no segment has bytes of two records.
 */

static void
with_sack(struct tcp_params *p)
{
    p->sack = true;
}

static void
send_record(struct trace *t, uint32_t n)
{
    tcp_send(t->d, &t->env, t->id, n, TCP_SEND_EOR);
}

/** Fill the initial window of ten segments, so that what is sent next waits. */
static void
fill_window(struct trace *t)
{
    trace_init(t, with_sack);
    make_established(t);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_NODELAY, 1), 0);
    app_send(t, 10 * TRACE_MSS);
    for (unsigned i = 0; i < 10; i++)
        expect(t, i == 4 || i == 9 ? A | P : A, 1 + TRACE_MSS * i, 1, TRACE_MSS);
    app_send(t, 300);
}

#define WAITING (1 + 10 * TRACE_MSS)

static void
records_stay_apart(void **state)
{
    static struct trace t;

    (void)state;
    fill_window(&t);
    send_record(&t, 100); /* joins what was written before it, which no end precedes */
    send_record(&t, 100);
    send_record(&t, 2000);
    app_send(&t, 50);
    expect_nothing(&t);
    assert_int_equal(t.d->pools[POOL_RECORD].used, 3);
    peer(&t, A, 1, WAITING, 0);
    expect(&t, A | P, WAITING, 1, 400);
    expect(&t, A | P, WAITING + 400, 1, 100);
    expect(&t, A, WAITING + 500, 1, TRACE_MSS);
    expect(&t, A | P, WAITING + 500 + TRACE_MSS, 1, 2000 - TRACE_MSS);
    expect(&t, A | P, WAITING + 2500, 1, 50);
    assert_int_equal(t.d->pools[POOL_RECORD].used, 0);
    trace_fini(&t);
}

/** Each of two lost records comes again as it was, though together they would fit. */
static void
retransmissions_stay_apart(void **state)
{
    static struct trace t;

    (void)state;
    fill_window(&t);
    for (unsigned i = 0; i < 6; i++)
        send_record(&t, 100);
    peer(&t, A, 1, WAITING, 0);
    expect(&t, A | P, WAITING, 1, 400);
    for (unsigned i = 0; i < 5; i++)
        expect(&t, A | P, WAITING + 400 + 100 * i, 1, 100);
    advance(&t, 1000);
    t.peer_opts.nb_sack = 1;
    t.peer_opts.sack[0] = (struct tcp_sack_block){ t.iss + WAITING + 600, t.iss + WAITING + 900 };
    peer(&t, A, 1, WAITING + 400, 0);
    advance(&t, 3000);
    expect(&t, A | P, WAITING + 400, 1, 100);
    t.peer_opts.nb_sack = 1;
    t.peer_opts.sack[0] = (struct tcp_sack_block){ t.iss + WAITING + 600, t.iss + WAITING + 900 };
    peer(&t, A, 1, WAITING + 500, 0);
    expect(&t, A | P, WAITING + 500, 1, 100);
    peer(&t, A, 1, WAITING + 900, 0);
    assert_int_equal(t.acked, WAITING + 900 - 1);
    trace_fini(&t);
}

/** An end without bytes behind an end, or behind what is sent already, needs no mark. */
TRACE_TEST(nothing_waits_nothing_is_marked, NULL)
{
    make_established(t);
    send_record(t, 0);
    assert_int_equal(t->d->pools[POOL_RECORD].used, 0);
    send_record(t, 100);
    expect(t, A | P, 1, 1, 100);
    assert_int_equal(t->d->pools[POOL_RECORD].used, 0);
}

/** Ends that wait go with their connection; without room for one more it is counted, and data goes out all the same. */
static void
marks_are_bounded(void **state)
{
    static struct trace t;

    (void)state;
    fill_window(&t);
    uint32_t cap = t.d->pools[POOL_RECORD].cap;
    for (uint32_t i = 0; i < cap + 3; i++)
        send_record(&t, 1);
    assert_int_equal(t.d->pools[POOL_RECORD].used, cap);
    assert_int_equal(t.ctr.v[CTR_TCP_RECORDS_MERGED], 3);
    peer(&t, A, 1, WAITING, 0);
    assert_true(t.nb_out > t.nb_checked);
    t.nb_checked = t.nb_out;
    trace_fini(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_stay_apart),
        cmocka_unit_test(retransmissions_stay_apart),
        cmocka_unit_test(nothing_waits_nothing_is_marked),
        cmocka_unit_test(marks_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
