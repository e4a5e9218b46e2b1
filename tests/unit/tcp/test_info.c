/* SPDX-License-Identifier: BSD-3-Clause */
/* What a connection tells of itself: struct tcp_conn_info, from which TCP_INFO is filled. */
#include <string.h>

#include "trace.h"

static void
with_options(struct tcp_params *p)
{
    p->sack = p->window_scaling = true;
}

static struct tcp_conn_info
info_of(struct trace *t)
{
    struct tcp_conn_info info;

    tcp_tick(t->d, &t->env, 1); /* times are told as of the domain's last event */
    assert_true(tcp_info(t->d, t->id, &info));
    return info;
}

/** An active open to a peer whose SYN-ACK takes 20 ms. */
static void
open_after_20_ms(struct trace *t)
{
    make_syn_sent(t);
    advance(t, 20000);
    t->peer_opts =
        (struct tcp_options){ .has_mss = true, .mss = 1000, .sack_permitted = true, .has_wscale = true, .wscale = 3 };
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
    t->peer_opts = (struct tcp_options){ 0 };
    t->peer_window = 8000;
}

static void
a_connection_begins(void **state)
{
    static struct trace t;
    (void)state;
    trace_init(&t, with_options);
    open_after_20_ms(&t);
    struct tcp_conn_info i = info_of(&t);
    assert_int_equal(i.state, TCP_ST_ESTABLISHED);
    assert_int_equal(i.ca_state, 0);
    assert_int_equal(i.snd_mss, 1000);
    assert_int_equal(i.adv_mss, TRACE_MSS);
    assert_int_equal(i.snd_wscale, 3);
    assert_true(i.sack && !i.timestamps && !i.ecn && !i.syn_data);
    assert_int_equal(i.cwnd_bytes, 10000);
    assert_int_equal(i.ssthresh_bytes, UINT32_MAX);
    assert_in_range(i.srtt_us, 19000, 21000);
    assert_in_range(i.rttvar_us, 9000, 11000);
    assert_in_range(i.rto_us, 200000, 250000);
    assert_int_equal(i.snd_wnd, 65535);
    assert_int_equal(i.reordering_segs, 3);
    assert_int_equal(i.reorderings, 0);
    assert_int_equal(i.delivered_segs, 1);
    assert_int_equal(i.segs_in, 1);
    assert_int_equal(i.segs_out, 2);
    assert_int_equal(i.bytes_acked, 1); /* the SYN, as in Linux */
    assert_int_equal(i.bytes_sent, 0);
    assert_int_equal(i.data_segs_in + i.data_segs_out, 0);
    assert_int_equal(i.ato_us, 0);
    assert_int_equal(i.fastopen_fail, 0);
    assert_int_equal(i.rcv_buf_bytes, 65535);
    assert_string_equal(i.cc_name, "cubic");
    assert_int_equal(i.pacing_rate, 0);
    assert_int_equal(i.max_pacing_rate, 0);
    trace_fini(&t);
}

static void
a_flight_and_its_loss(void **state)
{
    static struct trace t;
    (void)state;
    trace_init(&t, with_options);
    open_after_20_ms(&t);
    app_send(&t, 5000);
    assert_int_equal(t.nb_out - t.nb_checked, 5);
    t.nb_checked = t.nb_out;
    struct tcp_conn_info i = info_of(&t);
    assert_int_equal(i.unacked_segs, 5);
    assert_int_equal(i.snd_queued, 5000);
    assert_int_equal(i.snd_unsent, 0);
    assert_int_equal(i.segs_out, 7);
    assert_int_equal(i.data_segs_out, 5);
    assert_int_equal(i.bytes_sent, 5000);
    advance(&t, 10000);
    t.peer_opts.nb_sack = 1;
    t.peer_opts.sack[0] = (struct tcp_sack_block){ t.iss + 1001, t.iss + 4001 };
    peer(&t, A, 1, 1, 0);
    expect(&t, A, 1, 1, 1000);
    i = info_of(&t);
    assert_int_equal(i.ca_state, 3);
    assert_int_equal(i.sacked_segs, 3);
    assert_int_equal(i.lost_segs, 1);
    assert_int_equal(i.retrans_segs, 1);
    assert_int_equal(i.retrans_segs_total, 1);
    assert_int_equal(i.bytes_retrans, 1000);
    assert_int_equal(i.bytes_sent, 6000);
    assert_int_equal(i.data_segs_out, 6);
    assert_int_equal(i.rtos, 0);
    assert_int_equal(i.delivered_segs, 4);
    assert_int_equal(i.snd_wnd, 8000 << 3);
    assert_in_range(i.min_rtt_us, 9000, 11000);
    assert_true(i.delivery_rate > 0);
    t.peer_opts.nb_sack = 0;
    advance(&t, 10000);
    peer(&t, A, 1, 5001, 0);
    advance(&t, 3000);
    i = info_of(&t);
    assert_int_equal(i.ca_state, 0);
    assert_int_equal(i.bytes_acked, 5001);
    assert_int_equal(i.unacked_segs, 0);
    assert_int_equal(i.retrans_segs, 0);
    assert_int_equal(i.delivered_segs, 6);
    assert_in_range(i.busy_us, 19000, 21000);
    assert_int_equal(i.rwnd_limited_us, 0);
    assert_in_range(t.env.now_us - i.last_rcv_at_us, 2000, 4100);
    assert_in_range(t.env.now_us - i.last_snd_at_us, 12000, 14100);
    trace_fini(&t);
}

static void
a_shut_window_and_its_probes(void **state)
{
    static struct trace t;
    (void)state;
    trace_init(&t, with_options);
    open_after_20_ms(&t);
    t.peer_window = 0;
    peer(&t, A, 1, 1, 0);
    app_send(&t, 700);
    expect_nothing(&t);
    advance(&t, 1000000);
    expect(&t, A, 0, 1, 0);
    expect(&t, A, 0, 1, 0);
    struct tcp_conn_info i = info_of(&t);
    assert_int_equal(i.snd_wnd, 0);
    assert_int_equal(i.snd_unsent, 700);
    assert_int_equal(i.retransmits, 0);
    assert_int_equal(i.probes, 2);
    assert_int_equal(i.backoff, 2);
    assert_in_range(i.rwnd_limited_us, 990000, 1010000);
    trace_fini(&t);
}

static void
what_is_received(void **state)
{
    static struct trace t;
    (void)state;
    trace_init(&t, with_options);
    open_after_20_ms(&t);
    advance(&t, 5000);
    peer(&t, A, 1, 1, 900);
    expect(&t, A, 1, 901, 0);
    struct tcp_conn_info i = info_of(&t);
    assert_int_equal(i.rcv_mss, 900);
    assert_int_equal(i.bytes_received, 900);
    assert_int_equal(i.rcv_queued, 900);
    assert_int_equal(i.last_data_rcv_at_us / 1000, t.env.now_us / 1000);
    assert_int_equal(i.segs_in, 2);
    assert_int_equal(i.data_segs_in, 1);
    assert_int_equal(i.data_segs_out, 0);
    assert_int_equal(i.ato_us, t.params.delack_us);
    assert_int_equal(i.ooo_segs, 0);
    peer(&t, A, 1901, 1, 500);
    expect(&t, A, 1, 901, 0);
    peer(&t, A, 2901, 1, 500);
    expect(&t, A, 1, 901, 0);
    i = info_of(&t);
    assert_int_equal(i.ooo_segs, 2);
    assert_int_equal(i.data_segs_in, 3);
    peer(&t, A, 901, 1, 1000);
    expect(&t, A, 1, 2401, 0);
    i = info_of(&t);
    assert_int_equal(i.ooo_segs, 2);
    assert_int_equal(i.bytes_received, 2400);
    trace_fini(&t);
}

static void
what_came_twice_or_in_disorder(void **state)
{
    static struct trace t;
    (void)state;
    trace_init(&t, with_options);
    open_after_20_ms(&t);
    app_send(&t, 4000);
    t.nb_checked = t.nb_out;
    advance(&t, 10000);
    t.peer_opts.nb_sack = 1;
    t.peer_opts.sack[0] = (struct tcp_sack_block){ t.iss + 1001, t.iss + 2001 };
    peer(&t, A, 1, 1, 0);
    peer(&t, A, 1, 2001, 0); /* the first was only late */
    t.peer_opts.nb_sack = 1;
    t.peer_opts.sack[0] = (struct tcp_sack_block){ t.iss + 1, t.iss + 2001 };
    peer(&t, A, 1, 2001, 0); /* and both have come again */
    struct tcp_conn_info i = info_of(&t);
    assert_int_equal(i.reorderings, 1);
    assert_int_equal(i.dsack_segs, 2);
    peer(&t, A, 1, 4001, 0);
    assert_int_equal(info_of(&t).reorderings, 1);
    trace_fini(&t);
}

static void
timeouts_and_how_long_they_last(void **state)
{
    static struct trace t;
    (void)state;
    trace_init(&t, NULL);
    make_established(&t);
    app_send(&t, 500);
    expect(&t, A | P, 1, 1, 500);
    uint64_t sent_us = t.env.now_us;
    while (t.nb_out - t.nb_checked < 2)
        advance(&t, 10000);
    expect(&t, A | P, 1, 1, 500);
    expect(&t, A | P, 1, 1, 500);
    struct tcp_conn_info i = info_of(&t);
    assert_int_equal(i.retransmits, 2);
    assert_int_equal(i.probes, 0);
    assert_int_equal(i.rtos, 2);
    assert_int_equal(i.rto_recoveries, 1);
    assert_int_equal(i.rto_time_ms, 0); /* it is not over */
    assert_int_equal(i.data_segs_out, 3);
    assert_int_equal(i.bytes_retrans, 1000);
    assert_int_equal(i.retrans_segs_total, 2);
    advance(&t, 100000);
    peer(&t, A, 1, 501, 0);
    uint64_t since_first_ms = (t.env.now_us - sent_us) / 1000 - 200;
    i = info_of(&t);
    assert_in_range(i.rto_time_ms, since_first_ms - 20, since_first_ms + 20);
    app_send(&t, 500);
    t.nb_checked = t.nb_out;
    while (t.nb_out == t.nb_checked)
        advance(&t, 10000);
    expect(&t, A | P, 501, 1, 500);
    i = info_of(&t);
    assert_int_equal(i.rtos, 3);
    assert_int_equal(i.rto_recoveries, 2);
    peer(&t, A, 1, 1001, 0);
    trace_fini(&t);
}

static void
a_lost_syn_is_a_timeout(void **state)
{
    static struct trace t;
    (void)state;
    trace_init(&t, NULL);
    make_syn_sent(&t);
    advance(&t, 1010000);
    expect(&t, S, 0, 0, 0);
    peer(&t, S | A, 0, 1, 0);
    expect(&t, A, 1, 1, 0);
    struct tcp_conn_info i = info_of(&t);
    assert_int_equal(i.rtos, 1);
    assert_int_equal(i.rto_recoveries, 1);
    assert_in_range(i.rto_time_ms, 0, 20);
    assert_int_equal(i.retrans_segs_total, 1);
    assert_int_equal(i.data_segs_out, 0);
    trace_fini(&t);
}

static void
keep_alive_probes_count(void **state)
{
    static struct trace t;
    (void)state;
    trace_init(&t, NULL);
    make_established(&t);
    assert_int_equal(tcp_set_option(t.d, &t.env, t.id, TCP_OPT_KEEPIDLE, 10), 0);
    assert_int_equal(tcp_set_option(t.d, &t.env, t.id, TCP_OPT_KEEPINTVL, 1), 0);
    assert_int_equal(tcp_set_option(t.d, &t.env, t.id, TCP_OPT_KEEPALIVE, 1), 0);
    advance(&t, 11100000);
    expect(&t, A, 0, 1, 0);
    expect(&t, A, 0, 1, 0);
    assert_int_equal(info_of(&t).probes, 2);
    assert_int_equal(info_of(&t).retransmits, 0);
    peer(&t, A, 1, 1, 0);
    assert_int_equal(info_of(&t).probes, 0);
    trace_fini(&t);
}

static void
our_fin_is_a_byte_too(void **state)
{
    static struct trace t;
    (void)state;
    trace_init(&t, NULL);
    make_fin_wait_2(&t);
    struct tcp_conn_info i = info_of(&t);
    assert_int_equal(i.bytes_acked, 2);
    assert_int_equal(i.bytes_sent, 0);
    trace_fini(&t);
}

static void
with_ecn(struct tcp_params *p)
{
    p->ecn = TCP_ECN_ASK;
}

static void
marks_are_seen(void **state)
{
    static struct trace t;
    (void)state;
    trace_init(&t, with_ecn);
    make_syn_sent(&t);
    peer(&t, S | A | TCP_FLAG_ECE, 0, 1, 0);
    expect(&t, A, 1, 1, 0);
    peer(&t, A, 1, 1, 100);
    assert_true(info_of(&t).ecn);
    assert_false(info_of(&t).ecn_seen);
    t.peer_tos = TCP_TOS_ECT0;
    peer(&t, A, 101, 1, 100);
    assert_true(info_of(&t).ecn_seen);
    t.nb_checked = t.nb_out;
    trace_fini(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_begins),
        cmocka_unit_test(a_flight_and_its_loss),
        cmocka_unit_test(a_shut_window_and_its_probes),
        cmocka_unit_test(what_is_received),
        cmocka_unit_test(what_came_twice_or_in_disorder),
        cmocka_unit_test(timeouts_and_how_long_they_last),
        cmocka_unit_test(a_lost_syn_is_a_timeout),
        cmocka_unit_test(keep_alive_probes_count),
        cmocka_unit_test(our_fin_is_a_byte_too),
        cmocka_unit_test(marks_are_seen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
