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
    assert_false(i.reordering_seen);
    assert_int_equal(i.delivered_segs, 1);
    assert_int_equal(i.segs_in, 1);
    assert_int_equal(i.segs_out, 2);
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
    assert_int_equal(i.bytes_acked, 5000);
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
    assert_int_equal(i.retransmits, 2);
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
