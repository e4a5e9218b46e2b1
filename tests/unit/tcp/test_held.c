/* SPDX-License-Identifier: BSD-3-Clause */
/* ACKs that wait for a ride, where the application has its turn between passes. */
#include <string.h>

#include "trace.h"

/** Passes end until nothing waits any more; returns how many it took. */
static unsigned
end_passes(struct trace *t)
{
    unsigned n = 1;

    while (tcp_pass_ended(t->d, &t->env) > 0)
        n++;
    return n;
}

/** So many pass ends are without effect. */
static void
end_passes_in_silence(struct trace *t, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(tcp_pass_ended(t->d, &t->env), 1);
        expect_nothing(t);
    }
}

static void
connect_with_rides(struct trace *t)
{
    make_syn_sent(t);
    t->env.acks_ride = true;
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460 };
    peer(t, S | A, 0, 1, 0);
    expect_nothing(t);
    assert_int_not_equal(t->events & TCP_EVENT_CONNECTED, 0);
}

/* Six segments in all: SYN, SYN-ACK, request, answer with FIN, FIN, ACK. */
TRACE_TEST(a_short_connection_sends_nothing_bare, NULL)
{
    connect_with_rides(t);
    app_send(t, 100);
    expect(t, A | P, 1, 1, 100);
    end_passes(t);
    expect_nothing(t);
    peer(t, F | A | P, 1, 101, 50);
    expect_nothing(t);
    tcp_consumed(t->d, &t->env, t->id, 50);
    tcp_close(t->d, &t->env, t->id, false);
    expect(t, F | A, 101, 52, 0);
    end_passes(t);
    expect_nothing(t);
    peer(t, A, 52, 102, 0);
}

TRACE_TEST(a_server_answers_the_first_request_at_once, NULL)
{
    t->env.acks_ride = true;
    make_accepted(t);
    peer(t, A | P, 1, 1, 100);
    expect_nothing(t);
    end_passes_in_silence(t, TCP_HELD_PASSES);
    app_send(t, 50);
    expect(t, A | P, 1, 101, 50);
    assert_int_equal(tcp_pass_ended(t->d, &t->env), 0);
    expect_nothing(t);
}

TRACE_TEST(who_has_nothing_to_say_acknowledges_a_few_passes_later, NULL)
{
    connect_with_rides(t);
    end_passes_in_silence(t, TCP_HELD_PASSES);
    assert_int_equal(end_passes(t), 1);
    expect(t, A, 1, 1, 0);
    peer(t, A | P, 1, 1, 100);
    end_passes_in_silence(t, TCP_HELD_PASSES);
    assert_int_equal(end_passes(t), 1);
    expect(t, A, 1, 101, 0);
    peer(t, F | A, 101, 1, 50);
    end_passes_in_silence(t, TCP_HELD_PASSES);
    assert_int_equal(end_passes(t), 1);
    expect(t, A, 1, 152, 0);
}

/* A peer's timer may be near: an application whose turns are long gets one. */
TRACE_TEST(a_long_turn_is_the_only_one, NULL)
{
    connect_with_rides(t);
    end_passes_in_silence(t, 1);
    advance(t, 200000);
    assert_int_equal(tcp_pass_ended(t->d, &t->env), 0);
    expect(t, A, 1, 1, 0);
    peer(t, A | P, 1, 1, 100);
    end_passes_in_silence(t, 2);
    advance(t, 5000);
    assert_int_equal(tcp_pass_ended(t->d, &t->env), 0);
    expect(t, A, 1, 101, 0);
}

static void
park_soon(struct tcp_params *p)
{
    p->park_us = 3000000;
}

/* Its program made no call for longer than a silence lasts. */
TRACE_TEST(who_owes_an_ack_is_not_parked, park_soon)
{
    connect_with_rides(t);
    end_passes_in_silence(t, 1);
    advance(t, 4000000);
    assert_int_equal(tcp_pass_ended(t->d, &t->env), 0);
    expect(t, A, 1, 1, 0);
    assert_int_equal(t->ctr.v[CTR_TCP_PARKED], 0);
    peer(t, A | P, 1, 1, 100);
    assert_int_equal(end_passes(t), TCP_HELD_PASSES + 1);
    expect(t, A, 1, 101, 0);
}

TRACE_TEST(two_full_segments_and_gaps_do_not_wait, NULL)
{
    connect_with_rides(t);
    end_passes(t);
    expect(t, A, 1, 1, 0);
    peer(t, A, 1, 1, 1460);
    expect_nothing(t);
    peer(t, A, 1461, 1, 1460);
    expect(t, A, 1, 2921, 0);
    peer(t, A, 4381, 1, 1460);
    expect(t, A, 1, 2921, 0);
    peer(t, A, 2921, 1, 1460);
    expect(t, A, 1, 5841, 0);
    peer(t, A, 2921, 1, 1460);
    expect(t, A, 1, 5841, 0);
    end_passes(t);
    expect_nothing(t);
}

TRACE_TEST(quickack_does_not_wait, NULL)
{
    connect_with_rides(t);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_QUICKACK, 1), 0);
    expect(t, A, 1, 1, 0);
    peer(t, A | P, 1, 1, 100);
    expect(t, A, 1, 101, 0);
    end_passes(t);
    expect_nothing(t);
}

/* Nothing of ours follows there that could carry it. */
TRACE_TEST(after_our_fin_nothing_waits, NULL)
{
    t->env.acks_ride = true;
    make_accepted(t);
    tcp_shutdown(t->d, &t->env, t->id);
    expect(t, F | A, 1, 1, 0);
    peer(t, A, 1, 2, 0);
    peer(t, A | P, 1, 2, 100);
    expect(t, A, 2, 101, 0);
    peer(t, F | A, 101, 2, 0);
    expect(t, A, 2, 102, 0);
}

TRACE_TEST(who_ends_or_comes_anew_owes_nothing, NULL)
{
    connect_with_rides(t);
    peer(t, R, 1, 0, 0);
    assert_int_not_equal(t->events & TCP_EVENT_GONE, 0);
    t->nb_gone = 0;
    make_syn_sent(t); /* in the same slot */
    end_passes(t);
    expect_nothing(t);
}

/* The queue is bounded: whose ACK it cannot take sends it at once. */
TRACE_TEST(a_full_queue_takes_no_more, NULL)
{
    connect_with_rides(t);
    end_passes(t);
    expect(t, A, 1, 1, 0);
    t->d->held.end += TCP_HELD_MAX; /* of nobody */
    peer(t, A | P, 1, 1, 100);
    expect(t, A, 1, 101, 0);
    end_passes(t);
    peer(t, A | P, 101, 1, 100);
    expect_nothing(t);
    end_passes(t);
    expect(t, A, 1, 201, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_short_connection_sends_nothing_bare),
        cmocka_unit_test(a_server_answers_the_first_request_at_once),
        cmocka_unit_test(who_has_nothing_to_say_acknowledges_a_few_passes_later),
        cmocka_unit_test(a_long_turn_is_the_only_one),
        cmocka_unit_test(who_owes_an_ack_is_not_parked),
        cmocka_unit_test(two_full_segments_and_gaps_do_not_wait),
        cmocka_unit_test(quickack_does_not_wait),
        cmocka_unit_test(after_our_fin_nothing_waits),
        cmocka_unit_test(who_ends_or_comes_anew_owes_nothing),
        cmocka_unit_test(a_full_queue_takes_no_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
