/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "trace.h"

#include "tcp/hystart.h"

#define MSS 1460u

/* ---- the controls alone ---------------------------------------- */

static struct tcp_cc_event
event_at(uint64_t now_us, uint32_t acked_bytes)
{
    return (struct tcp_cc_event){
        .now_us = now_us, .acked_bytes = acked_bytes, .mss_bytes = MSS, .srtt_us = 100000, .min_rtt_us = 100000
    };
}

/** One round trip: the whole window is acknowledged, two segments at a time. */
static void
round_trip(const struct tcp_cc_ops *ops, struct tcp_cc *cc, uint64_t *now_us, tcp_seq *una)
{
    uint32_t cwnd = cc->cwnd_bytes;
    uint32_t acks = cwnd / (2 * MSS);

    for (uint32_t i = 0; i < acks; i++) {
        struct tcp_cc_event ev = event_at(*now_us + 100000ull * i / acks, 2 * MSS);
        ev.flight_bytes = cwnd;
        ev.una = *una += 2 * MSS;
        ev.snd_nxt = *una + cwnd;
        ops->on_ack(cc, &ev);
    }
    *now_us += 100000;
}

/** RFC 9438 figure 2: concave up to W_max, a plateau, convex beyond; K follows equation 2. */
static void
cubic_follows_its_curve(void **state)
{
    struct tcp_cc cc;
    uint64_t now_us = 1000000;
    tcp_seq una = 1;

    (void)state;
    struct tcp_cc_event ev = event_at(now_us, 0);
    tcp_cc_cubic.init(&cc, &ev);
    assert_int_equal(cc.cwnd_bytes, 10 * MSS);
    cc.cwnd_bytes = 1000 * MSS;
    tcp_cc_cubic.on_loss(&cc, &ev);
    assert_int_equal(cc.ssthresh_bytes, 700 * MSS);
    cc.cwnd_bytes = cc.ssthresh_bytes;
    /* K = cbrt(300 / 0.4) = 9.086 s */
    uint32_t at_half = 0, at_k = 0;
    for (unsigned i = 0; i < 180; i++) {
        round_trip(&tcp_cc_cubic, &cc, &now_us, &una);
        if (i == 44)
            at_half = cc.cwnd_bytes / MSS;
        if (i == 90)
            at_k = cc.cwnd_bytes / MSS;
    }
    assert_in_range(at_half, 950, 975); /* 1000 - 0.4 * 4.5^3 = 963 */
    assert_in_range(at_k, 995, 1003);
    assert_in_range(cc.cwnd_bytes / MSS, 1240, 1330); /* 1000 + 0.4 * 9^3 = 1292 */
}

/** With a short RTT it is at least as fast as Reno with its beta would be (RFC 9438 section 4.3). */
static void
cubic_is_friendly(void **state)
{
    struct tcp_cc cc;
    struct tcp_cc_event ev = event_at(1000000, 0);

    (void)state;
    ev.srtt_us = 1000;
    tcp_cc_cubic.init(&cc, &ev);
    cc.cwnd_bytes = 100 * MSS;
    tcp_cc_cubic.on_loss(&cc, &ev);
    cc.cwnd_bytes = cc.ssthresh_bytes;
    for (unsigned i = 0; i < 60 * 50; i++) { /* some forty round trips of a millisecond */
        ev.now_us += 14;
        ev.acked_bytes = MSS;
        ev.una += MSS;
        tcp_cc_cubic.on_ack(&cc, &ev);
    }
    assert_in_range(cc.cwnd_bytes / MSS, 88, 100); /* 70 + 0.529 * 40; W_max + C * t^3 alone would be at 71 */
}

static void
unused_windows_do_not_grow(void **state)
{
    static const struct tcp_cc_ops *const all[] = { &tcp_cc_cubic, &tcp_cc_newreno, &tcp_cc_dctcp };

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct tcp_cc cc;
        struct tcp_cc_event ev = event_at(1000000, MSS);
        all[i]->init(&cc, &ev);
        uint32_t before = cc.cwnd_bytes;
        if (all[i]->on_unused != NULL)
            all[i]->on_unused(&cc);
        assert_int_equal(cc.cwnd_bytes, before);
        all[i]->on_ack(&cc, &ev);
        assert_int_equal(cc.cwnd_bytes, before + MSS);
    }
}

/** RFC 9406: a round whose least RTT is up by an eighth slows the start; five such rounds end it; a false alarm is one. */
static void
hystart_leaves_in_time(void **state)
{
    struct tcp_hystart h = { .started = false };
    struct tcp_cc_event ev = event_at(1000000, MSS);
    enum tcp_hystart_verdict v = TCP_HYSTART_FAST;

    (void)state;
    for (unsigned round = 0; round < 9; round++) {
        ev.rtt_us = round < 3 ? 80000 : 91000;
        ev.snd_nxt = 1000 * (round + 1);
        for (unsigned i = 0; i < 10; i++) {
            ev.una = 1000 * round + 10 * i;
            v = tcp_hystart_on_ack(&h, &ev);
            if (v == TCP_HYSTART_LEAVE)
                break;
        }
        if (round < 3)
            assert_int_equal(v, TCP_HYSTART_FAST);
        else if (round < 8)
            assert_int_equal(v, TCP_HYSTART_SLOW);
    }
    assert_int_equal(v, TCP_HYSTART_LEAVE);

    h = (struct tcp_hystart){ .css_baseline_us = 91000, .started = true, .round_end = 100 };
    ev.una = 0;
    ev.rtt_us = 80000;
    for (unsigned i = 0; i < 8; i++)
        v = tcp_hystart_on_ack(&h, &ev);
    assert_int_equal(v, TCP_HYSTART_FAST);
}

/** Of two rounds the second is longer by a fifth: the ACK of the first one's end is no sample of the second. */
static void
hystart_rounds_end_with_their_last_ack(void **state)
{
    struct tcp_hystart h = { .started = false };
    struct tcp_cc_event ev = event_at(1000000, MSS);

    (void)state;
    ev.snd_nxt = 10 * MSS;
    for (unsigned i = 1; i <= 10; i++) {
        ev.rtt_us = 100000;
        ev.una = i * MSS;
        assert_int_equal(tcp_hystart_on_ack(&h, &ev), TCP_HYSTART_FAST);
    }
    ev.snd_nxt = 30 * MSS;
    for (unsigned i = 1; i <= 8; i++) {
        ev.rtt_us = 120000;
        ev.una = (10 + i) * MSS;
        assert_int_equal(tcp_hystart_on_ack(&h, &ev), i < 8 ? TCP_HYSTART_FAST : TCP_HYSTART_SLOW);
    }
}

/** RFC 8257 section 3.3: alpha goes to the share of marked bytes, and the window comes down by half of it. */
static void
dctcp_reduces_by_the_share(void **state)
{
    struct tcp_cc cc;
    struct tcp_cc_event ev = event_at(1000000, MSS);

    (void)state;
    tcp_cc_dctcp.init(&cc, &ev);
    cc.cwnd_bytes = 100 * MSS;
    tcp_cc_dctcp.on_mark(&cc, &ev);
    assert_int_equal(cc.ssthresh_bytes, 50 * MSS);
    for (unsigned i = 0; i < 100 * 100; i++) {
        ev.una = MSS * i;
        ev.snd_nxt = ev.una + 100 * MSS;
        tcp_cc_dctcp.on_feedback(&cc, &ev, i % 5 == 0 ? MSS : 0);
    }
    tcp_cc_dctcp.on_mark(&cc, &ev);
    assert_in_range(cc.ssthresh_bytes / MSS, 88, 92); /* a fifth is marked: a tenth off */
    tcp_cc_dctcp.on_loss(&cc, &ev);
    assert_int_equal(cc.ssthresh_bytes, 2 * MSS); /* half of what was under way, i.e. nothing */
}

/* ---- chosen by connections ---------------------------------------- */

static void
controls_are_chosen_by_name(void **state)
{
    static struct trace t;
    struct tcp_conn_info info;

    (void)state;
    trace_init(&t, NULL);
    assert_int_equal(tcp_congestion_find("vegas"), -ENOENT);
    app_listen(&t, 1);
    assert_int_equal(tcp_set_congestion(t.d, &t.env, t.listener, "reno"), 0);
    assert_int_equal(tcp_set_congestion(t.d, &t.env, t.listener, "vegas"), -ENOENT);
    trace_fini(&t);

    trace_init(&t, NULL);
    make_established(&t);
    assert_true(tcp_info(t.d, t.id, &info));
    assert_string_equal(info.cc_name, "cubic");
    uint32_t cwnd = info.cwnd_bytes;
    assert_int_equal(tcp_set_congestion(t.d, &t.env, t.id, "newreno"), 0);
    assert_true(tcp_info(t.d, t.id, &info));
    assert_string_equal(info.cc_name, "newreno");
    assert_int_equal(info.cwnd_bytes, cwnd);
    trace_fini(&t);
}

/* ---- ECN ---------------------------------------- */

static void
ecn_always(struct tcp_params *p)
{
    p->ecn = 1;
}

/** An active open that asks for ECN, and a peer that agrees. */
static void
make_ecn(struct trace *t)
{
    trace_init(t, ecn_always);
    make_syn_sent(t);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = MSS };
    peer(t, S | A | TCP_FLAG_ECE, 0, 1, 0);
    expect(t, A, 1, 1, 0);
}

static void
ecn_reduces_once_for_a_window(void **state)
{
    static struct trace t;

    (void)state;
    make_ecn(&t);
    app_send(&t, MSS * 12);
    for (unsigned i = 0; i < t.nb_out; i++)
        if (t.out[i].payload_len > 0)
            assert_int_equal(t.out[i].tos, TCP_TOS_ECT0);
    t.nb_checked = t.nb_out;
    uint32_t cwnd = conn_by_id(t.d, t.id)->cc.cwnd_bytes;
    peer(&t, A | TCP_FLAG_ECE, 1, 1 + MSS, 0);
    uint32_t goal = conn_by_id(t.d, t.id)->cc.ssthresh_bytes;
    assert_int_equal(goal, cwnd / 10 * 7);
    peer(&t, A | TCP_FLAG_ECE, 1, 1 + MSS * 6, 0);
    assert_int_equal(conn_by_id(t.d, t.id)->cc.ssthresh_bytes, goal);
    assert_true(t.out[t.nb_checked].flags & TCP_FLAG_CWR); /* the first new data says so, and only it */
    for (unsigned i = t.nb_checked + 1; i < t.nb_out; i++)
        assert_false(t.out[i].flags & TCP_FLAG_CWR);
    t.nb_checked = t.nb_out;
    peer(&t, A, 1, 1 + MSS * 12, 0);
    assert_int_equal(conn_by_id(t.d, t.id)->cc.cwnd_bytes, goal);
    assert_int_equal(t.ctr.v[CTR_TCP_ECN_REDUCTIONS], 1);
    trace_fini(&t);
}

/** A mark is echoed on every ACK until CWR comes (RFC 3168 section 6.1.3). */
static void
marks_are_echoed_until_cwr(void **state)
{
    static struct trace t;

    (void)state;
    make_ecn(&t);
    struct tcp_conn *c = conn_by_id(t.d, t.id);
    t.peer_tos = TCP_TOS_CE;
    peer(&t, A, 1, 1, 100);
    expect(&t, A | TCP_FLAG_ECE, 1, 101, 0);
    t.peer_tos = TCP_TOS_ECT0;
    peer(&t, A, 101, 1, 100);
    advance(&t, 50000);
    expect(&t, A | TCP_FLAG_ECE, 1, 201, 0);
    peer(&t, A | TCP_FLAG_CWR, 201, 1, 100);
    expect(&t, A, 1, 301, 0);
    assert_int_equal(c->ecn, CONN_ECN_ON | CONN_ECN_SEEN);
    trace_fini(&t);
}

TRACE_TEST(ecn_needs_both_sides, ecn_always)
{
    make_syn_sent(t);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = MSS };
    peer(t, S | A | TCP_FLAG_ECE | TCP_FLAG_CWR, 0, 1, 0); /* flags merely reflected */
    expect(t, A, 1, 1, 0);
    assert_int_equal(conn_by_id(t->d, t->id)->ecn, 0);
    app_send(t, 10);
    assert_int_equal(expect(t, A | P, 1, 1, 10)->tos, 0);
    peer(t, A | TCP_FLAG_ECE, 1, 11, 0);
    assert_int_equal(t->ctr.v[CTR_TCP_ECN_REDUCTIONS], 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cubic_follows_its_curve),
        cmocka_unit_test(cubic_is_friendly),
        cmocka_unit_test(unused_windows_do_not_grow),
        cmocka_unit_test(hystart_leaves_in_time),
        cmocka_unit_test(hystart_rounds_end_with_their_last_ack),
        cmocka_unit_test(dctcp_reduces_by_the_share),
        cmocka_unit_test(controls_are_chosen_by_name),
        cmocka_unit_test(ecn_reduces_once_for_a_window),
        cmocka_unit_test(marks_are_echoed_until_cwr),
        cmocka_unit_test(ecn_needs_both_sides),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
