/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the window ends, on either side. */
#include <string.h>

#include "trace.h"

/** The first connection of the trace's listener, which offers so much. */
static void
accept_with_window(struct trace *t, uint16_t window)
{
    struct tcp_tuple remote;

    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460 };
    peer(t, S, 0, 0, 0);
    assert_int_equal(expect(t, S | A, 0, 1, 0)->window, window);
    peer(t, A, 1, 1, 0);
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
}

/** A listener with so large a buffer, and its first connection. */
static void
accept_with_buffer(struct trace *t, uint32_t rcv_buf_bytes, uint16_t window)
{
    app_listen(t, 4);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->listener, TCP_OPT_RCVBUF, (int32_t)rcv_buf_bytes), 0);
    accept_with_window(t, window);
}

/** The same with a buffer of 4096 bytes of which no more than so many are offered at once; each segment is answered. */
static void
accept_with_clamp(struct trace *t, uint32_t clamp_bytes, uint16_t window)
{
    app_listen(t, 4);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->listener, TCP_OPT_RCVBUF, 4096), 0);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->listener, TCP_OPT_WINDOW_CLAMP, (int32_t)clamp_bytes), 0);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->listener, TCP_OPT_QUICKACK, 1), 0);
    accept_with_window(t, window);
}

TRACE_TEST(a_fin_waits_for_the_window, NULL)
{
    make_established(t);
    app_send(t, 100);
    expect(t, A | P, 1, 1, 100);
    t->peer_window = 0;
    peer(t, A, 1, 101, 0);
    tcp_close(t->d, &t->env, t->id, false);
    expect_nothing(t);
    advance(t, 500000);
    expect(t, A, 100, 1, 0);
    t->peer_window = 1;
    peer(t, A, 1, 101, 0);
    expect(t, F | A, 101, 1, 0);
    peer(t, A, 1, 102, 0);
}

TRACE_TEST(a_fin_behind_a_full_window_waits, NULL)
{
    make_established(t);
    t->peer_window = 100;
    peer(t, A, 1, 1, 0);
    app_send(t, 100);
    tcp_shutdown(t->d, &t->env, t->id);
    expect(t, A | P, 1, 1, 100);
    expect_nothing(t);
    peer(t, A, 1, 101, 0);
    expect(t, F | A, 101, 1, 0);
    peer(t, A, 1, 102, 0);
}

/* Else it would be one of 2^32 us, and the timeout of two minutes. */
TRACE_TEST(a_clock_that_lags_gives_no_round_trip, NULL)
{
    struct tcp_conn_info before, after;

    make_established(t);
    app_send(t, 100);
    expect(t, A | P, 1, 1, 100);
    advance(t, 2000);
    peer(t, A, 1, 101, 0);
    app_send(t, 100);
    expect(t, A | P, 101, 1, 100);
    assert_true(tcp_info(t->d, t->id, &before));
    t->env.now_us -= 700;
    peer(t, A, 1, 201, 0);
    assert_true(tcp_info(t->d, t->id, &after));
    assert_int_equal(after.srtt_us, before.srtt_us);
    assert_int_equal(after.rto_us, before.rto_us);
    t->env.now_us += 700;
}

TRACE_TEST(a_send_buffer_does_not_grow_into_a_near_queue, NULL)
{
    make_established(t);
    struct tcp_conn *c = conn_at(t->d, t->id & 0xffffff);
    c->cc.cwnd_bytes = 100000;
    c->rtt.min_us = 50;
    c->rtt.srtt_us = 1000;
    assert_int_equal(tcp_send_buffer(t->d, t->id), 300000);
    c->rtt.srtt_us = 1200;
    assert_int_equal(tcp_send_buffer(t->d, t->id), 0);
    c->rtt.min_us = 5000; /* a path of some length, where round trips vary */
    c->rtt.srtt_us = 50000;
    assert_int_equal(tcp_send_buffer(t->d, t->id), 300000);
}

TRACE_TEST(a_syn_offers_full_segments, NULL)
{
    accept_with_buffer(t, 20000, 13 * 1460);
    peer(t, A, 1, 1, 1460);
    assert_int_equal(expect(t, A, 1, 1461, 0)->window, 12 * 1460);
}

TRACE_TEST(less_than_a_segment_is_offered_as_it_is, NULL)
{
    make_established(t);
    assert_int_equal(syn_window(1000, 1460, false), 1000);
    assert_int_equal(syn_window(100000, 1460, false), 65535);
    assert_int_equal(syn_window(3000, 1460, true), 2 * 1448);
}

TRACE_TEST(one_segment_may_overrun_an_empty_buffer, NULL)
{
    accept_with_buffer(t, 4380, 4380);
    peer(t, A, 1, 1, 6000);
    assert_int_equal(expect(t, A, 1, 6001, 0)->window, 0);
    peer(t, A, 6001, 1, 1000); /* not the next */
    expect(t, A, 1, 6001, 0);
    assert_int_equal(t->delivered, 6000);
    tcp_consumed(t->d, &t->env, t->id, 6000);
    assert_int_equal(expect(t, A, 1, 6001, 0)->window, 4380);
    /* With something held the window is what it says. */
    peer(t, A, 6001, 1, 1000);
    expect(t, A, 1, 7001, 0);
    peer(t, A, 7001, 1, 4000);
    assert_int_equal(expect(t, A, 1, 10381, 0)->window, 0);
    assert_int_equal(t->delivered, 6000 + 4380);
}

TRACE_TEST(what_fills_most_of_the_window_is_pushed, NULL)
{
    t->peer_window = 2000;
    make_established(t);
    app_send(t, 4000);
    expect(t, A | P, 1, 1, 1460);
    peer(t, A, 1, 1461, 0);
    expect(t, A | P, 1461, 1, 1460);
    peer(t, A, 1, 2921, 0);
    expect(t, A | P, 2921, 1, 1080);
    peer(t, A, 1, 4001, 0);
}

TRACE_TEST(a_reset_tells_the_window, NULL)
{
    make_established(t);
    peer(t, A, 1, 1, 1000);
    expect(t, A, 1, 1001, 0);
    tcp_abort(t->d, &t->env, t->id);
    assert_int_equal(expect(t, R | A, 1, 1001, 0)->window, 44 * 1460 - 1000);
}

TRACE_TEST(a_fin_after_a_word_is_acknowledged_by_ours, NULL)
{
    make_accepted(t);
    peer(t, A, 1, 1, 100);
    expect(t, A, 1, 101, 0);
    tcp_consumed(t->d, &t->env, t->id, 100);
    peer(t, F | A, 101, 1, 0);
    expect_nothing(t);
    assert_int_not_equal(t->events & TCP_EVENT_FIN, 0);
    tcp_close(t->d, &t->env, t->id, false);
    expect(t, F | A, 1, 102, 0);
    advance(t, 60000);
    expect_nothing(t);
    peer(t, A, 102, 2, 0);
}

TRACE_TEST(a_fin_that_nobody_answers_is_acknowledged_late, NULL)
{
    make_accepted(t);
    peer(t, A, 1, 1, 100);
    expect(t, A, 1, 101, 0);
    tcp_consumed(t->d, &t->env, t->id, 100);
    peer(t, F | A, 101, 1, 0);
    advance(t, 39000);
    expect_nothing(t);
    advance(t, 2000);
    expect(t, A, 1, 102, 0);
}

/* Else it would be shut for ever after the first segment: no step of a segment is possible. */
TRACE_TEST(a_clamp_below_a_segment_lets_the_window_open, NULL)
{
    accept_with_clamp(t, 1152, 1152);
    for (unsigned i = 0; i < 3; i++) {
        peer(t, A, 1 + i * 1152, 1, 1152);
        assert_int_equal(expect(t, A, 1, 1 + (i + 1) * 1152, 0)->window, i < 2 ? 1152 : 640);
    }
    peer(t, A, 3457, 1, 640);
    assert_int_equal(expect(t, A, 1, 4097, 0)->window, 0);
    tcp_consumed(t->d, &t->env, t->id, 500);
    expect_nothing(t);
    tcp_consumed(t->d, &t->env, t->id, 100);
    assert_int_equal(expect(t, A, 1, 4097, 0)->window, 600);
    tcp_consumed(t->d, &t->env, t->id, 3496);
    expect_nothing(t); /* 552 more are no half of it */
    peer(t, A, 4097, 1, 600);
    assert_int_equal(expect(t, A, 1, 4697, 0)->window, 1152);
}

TRACE_TEST(a_clamp_below_two_segments_lets_the_window_open, NULL)
{
    accept_with_clamp(t, 2000, 1460);
    peer(t, A, 1, 1, 1460);
    assert_int_equal(expect(t, A, 1, 1461, 0)->window, 2000);
    peer(t, A, 1461, 1, 1460);
    assert_int_equal(expect(t, A, 1, 2921, 0)->window, 540); /* 636 more are no half of the clamp */
    peer(t, A, 2921, 1, 540);
    assert_int_equal(expect(t, A, 1, 3461, 0)->window, 0);
    tcp_consumed(t->d, &t->env, t->id, 300);
    expect_nothing(t);
    tcp_consumed(t->d, &t->env, t->id, 100);
    assert_int_equal(expect(t, A, 1, 3461, 0)->window, 1036);
    peer(t, A, 3461, 1, 1036);
    assert_int_equal(expect(t, A, 1, 4497, 0)->window, 0);
    tcp_consumed(t->d, &t->env, t->id, 4096);
    assert_int_equal(expect(t, A, 1, 4497, 0)->window, 2000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fin_waits_for_the_window),
        cmocka_unit_test(a_fin_behind_a_full_window_waits),
        cmocka_unit_test(a_syn_offers_full_segments),
        cmocka_unit_test(less_than_a_segment_is_offered_as_it_is),
        cmocka_unit_test(one_segment_may_overrun_an_empty_buffer),
        cmocka_unit_test(what_fills_most_of_the_window_is_pushed),
        cmocka_unit_test(a_reset_tells_the_window),
        cmocka_unit_test(a_clock_that_lags_gives_no_round_trip),
        cmocka_unit_test(a_send_buffer_does_not_grow_into_a_near_queue),
        cmocka_unit_test(a_fin_after_a_word_is_acknowledged_by_ours),
        cmocka_unit_test(a_fin_that_nobody_answers_is_acknowledged_late),
        cmocka_unit_test(a_clamp_below_a_segment_lets_the_window_open),
        cmocka_unit_test(a_clamp_below_two_segments_lets_the_window_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
