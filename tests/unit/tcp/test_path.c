/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "tcp/pathcache.h"
#include "trace.h"

/**
 * @file
 * How large segments are: what ICMP, routes and the user say, what is remembered of a path, and what trying finds out (RFC 1191, RFC 4821, RFC 5927).
 */

#define BASE 512 /* small, so that a window of ten segments can hold a probe */

static void
plain_sack(struct tcp_params *p)
{
    p->sack = true;
}

static void
never(struct tcp_params *p)
{
    p->mtu_probing = TCP_MTU_PROBING_OFF;
}

static void
always(struct tcp_params *p)
{
    p->sack = true;
    p->mtu_probing = TCP_MTU_PROBING_ALWAYS;
    p->mtu_base_mss = BASE;
    p->idle_restart = false;
    p->path_routes[0] = (struct tcp_path_route){ .init_cwnd_segs = 20 };
    p->nb_path_routes = 1;
}

static void
always_no_sack(struct tcp_params *p)
{
    always(p);
    p->sack = false;
}

static struct tcp_conn *
conn_of(const struct trace *t)
{
    return conn_by_id(t->d, t->id);
}

static void
too_big(struct trace *t, uint32_t seq, uint16_t mtu)
{
    tcp_unreachable(t->d, &t->env, &t->tuple, t->iss + seq, EMSGSIZE, false, mtu);
}

static uint32_t
path_mtu(const struct trace *t)
{
    struct tcp_conn_info info;

    assert_true(tcp_info(t->d, t->id, &info));
    return info.path_mtu;
}

/** The peer acknowledges all that is on its way. */
static void
ack_all(struct trace *t)
{
    peer(t, A, 1, conn_of(t)->snd_nxt - t->iss, 0);
    t->nb_checked = t->nb_out;
}

static void
sack(struct trace *t, uint32_t ack, uint32_t start, uint32_t end)
{
    t->peer_opts.nb_sack = 1;
    t->peer_opts.sack[0] = (struct tcp_sack_block){ t->iss + start, t->iss + end };
    peer(t, A, 1, ack, 0);
}

/** Time passes until the next segment goes. */
static void
wait_for_segment(struct trace *t)
{
    unsigned n = t->nb_out;

    while (t->nb_out == n)
        advance(t, tcp_next_us(t->d, t->env.now_us) - t->env.now_us);
}

/* ---- black holes ---------------------------------------- */

/** RFC 4821 section 7.7: after the third timeout in a row full segments shrink, first to the base, then by halves, and no further than paths are believed to. */
TRACE_TEST(full_segments_that_vanish_shrink, NULL)
{
    static const uint32_t lens[] = { 1460, 1460, 1460, 1024, 512, 512 };

    make_established(t);
    app_send(t, 1460);
    expect(t, A | P, 1, 1, 1460);
    for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        wait_for_segment(t);
        expect(t, lens[i] == 1460 ? A | P : A, 1, 1, lens[i]);
        expect_nothing(t);
    }
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_BLACK_HOLES], 2);
    /* The path takes them: the rest follows in the same size. */
    peer(t, A, 1, 513, 0);
    expect(t, A, 513, 1, 512);
    expect(t, A | P, 1025, 1, 436);
    ack_all(t);
}

/** A probe that is under way behind other data when these vanish may arrive all the same: it says nothing any more. */
TRACE_TEST(a_probe_ends_with_a_black_hole, always)
{
    make_established(t);
    const struct tcp_conn *c = conn_of(t);
    for (unsigned i = 0; (c->path & CONN_PATH_PROBE) == 0 || path_of(t->d, c)->probe_start == c->snd_una; i++) {
        assert_in_range(i, 0, 200);
        app_send(t, 30000);
        advance(t, 10000);
        tcp_seq next = c->snd_una + 2u * c->mss;
        peer(t, A, 1, (seq_lt(next, c->snd_nxt) ? next : c->snd_nxt) - t->iss, 0);
        t->nb_out = t->nb_checked = 0;
    }
    while (c->retries < 4)
        advance(t, 400000);
    assert_int_equal(c->path & CONN_PATH_PROBE, 0);
    ack_all(t);
    assert_in_range(c->mss, TCP_MSS_FLOOR, 1460);
}

/** A segment that is small anyway is lost for another reason; and who does not want it is left alone. */
static void
small_segments_do_not_shrink(void **state)
{
    static struct trace t;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        uint32_t len = i == 0 ? 1000 : 1460;

        trace_init(&t, i == 0 ? NULL : never);
        make_established(&t);
        app_send(&t, len);
        expect(&t, A | P, 1, 1, len);
        for (unsigned n = 0; n < 6; n++) {
            wait_for_segment(&t);
            expect(&t, A | P, 1, 1, len);
        }
        assert_int_equal(t.ctr.v[CTR_TCP_MTU_BLACK_HOLES], 0);
        assert_int_equal(conn_of(&t)->mss, 1460);
        ack_all(&t);
        trace_fini(&t);
    }
}

/* ---- searching ---------------------------------------- */

/** Begins at the base, tries the middle, then the middle above, and ends with the largest exactly. */
TRACE_TEST(a_search_ends_at_the_largest, always)
{
    static const uint32_t sizes[] = { 986, 1223, 1341, 1400, 1430, 1445, 1452, 1460 };

    make_established(t);
    assert_int_equal(conn_of(t)->mss, BASE);
    assert_int_equal(path_mtu(t), BASE + 40);
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t start = conn_of(t)->snd_nxt - t->iss, mss = conn_of(t)->mss;

        conn_of(t)->cc.cwnd_bytes = 20 * 1460;
        app_send(t, sizes[i] + 4 * mss);
        expect(t, A, start, 1, sizes[i]);
        assert_int_equal(t->out[t->nb_checked - 1].gso_size, 0);
        expect(t, A, start + sizes[i], 1, mss);
        ack_all(t);
        assert_int_equal(conn_of(t)->mss, sizes[i]);
    }
    assert_int_equal(path_mtu(t), 1500);
    app_send(t, 10 * 1460);
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_PROBES], 8);
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_PROBES_DELIVERED], 8);
    ack_all(t);
}

/** Section 7.4: none without so much data behind it that its loss would show, nor with a small window, nor in a shut one. */
TRACE_TEST(probes_need_company, always)
{
    make_established(t);
    app_send(t, 986 + 4 * BASE - 1);
    ack_all(t);
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_PROBES], 0);
    conn_of(t)->cc.cwnd_bytes = 10 * BASE;
    app_send(t, 10 * BASE);
    ack_all(t);
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_PROBES], 0);
    t->peer_window = 986 + 3 * BASE;
    ack_all(t);
    conn_of(t)->cc.cwnd_bytes = 20 * BASE;
    app_send(t, 10 * BASE);
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_PROBES], 0);
    t->peer_window = 65535;
    ack_all(t);
    ack_all(t);
    app_send(t, 986 + 4 * BASE);
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_PROBES], 1);
    ack_all(t);
}

/** Section 7.6.2: a probe that is lost alone is sent again in pieces, and is no sign of congestion. The next one is smaller. */
static void
lost_probes_reduce_nothing(void **state)
{
    static struct trace t;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        bool with_sack = i == 0;

        trace_init(&t, with_sack ? always : always_no_sack);
        make_established(&t);
        app_send(&t, 986 + 4 * BASE);
        uint32_t cwnd = conn_of(&t)->cc.cwnd_bytes, ssthresh = conn_of(&t)->cc.ssthresh_bytes;
        expect(&t, A, 1, 1, 986);
        t.nb_checked = t.nb_out;
        for (unsigned n = 1; n <= 4; n++) {
            if (with_sack)
                sack(&t, 1, 987, 987 + n * BASE);
            else
                peer(&t, A, 1, 1, 0);
            advance(&t, 1000);
        }
        advance(&t, 30000); /* reordering is waited for, if at all */
        expect(&t, A, 1, 1, BASE);
        expect(&t, A, 1 + BASE, 1, 986 - BASE);
        expect_nothing(&t);
        assert_int_equal(t.ctr.v[CTR_TCP_MTU_PROBES_LOST], 1);
        assert_int_equal(t.ctr.v[CTR_TCP_FAST_RETRANS], 0);
        ack_all(&t);
        assert_true(conn_of(&t)->cc.cwnd_bytes >= cwnd);
        assert_int_equal(conn_of(&t)->cc.ssthresh_bytes, ssthresh);
        assert_int_equal(conn_of(&t)->mss, BASE);
        uint32_t start = conn_of(&t)->snd_nxt - t.iss;
        app_send(&t, 10 * BASE);
        expect(&t, A, start, 1, (BASE + 985) / 2);
        ack_all(&t);
        trace_fini(&t);
    }
}

/** What is lost beside the probe is lost to congestion: one reduction, and the probe has told nothing. */
TRACE_TEST(losses_beside_a_probe_count, always)
{
    make_established(t);
    app_send(t, 986 + 8 * BASE);
    expect(t, A, 1, 1, 986);
    t->nb_checked = t->nb_out;
    for (unsigned n = 1; n <= 6; n++) { /* the probe is lost, and the segment behind it */
        sack(t, 1, 987 + BASE, 987 + BASE + n * BASE);
        advance(t, 1000);
    }
    advance(t, 30000);
    assert_int_equal(t->ctr.v[CTR_TCP_FAST_RETRANS], 1);
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_PROBES_LOST], 0);
    ack_all(t);
    assert_int_equal(conn_of(t)->mss, BASE);
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_PROBES_DELIVERED], 0);
}

/** A router that does speak ends the probe at once; what it says bounds the search, not what is used. */
TRACE_TEST(icmp_about_a_probe, always)
{
    make_established(t);
    app_send(t, 986 + 4 * BASE);
    t->nb_checked = t->nb_out;
    too_big(t, 1, 940);
    expect(t, A, 1, 1, BASE);
    expect(t, A, 1 + BASE, 1, 986 - BASE);
    ack_all(t);
    assert_int_equal(conn_of(t)->mss, BASE);
    uint32_t start = conn_of(t)->snd_nxt - t->iss;
    app_send(t, 10 * BASE);
    expect(t, A, start, 1, (BASE + 900) / 2);
    ack_all(t);
}

/** A search that has ended begins anew after mtu_probe_interval_s. */
TRACE_TEST(searches_are_repeated, always)
{
    pathcache_put(t->d, &t->env, &t->tuple.remote, BASE + 45); /* nothing larger is worth a try */
    make_established(t);
    conn_of(t)->cc.cwnd_bytes = 20 * BASE;
    advance(t, 590000000);
    for (unsigned i = 0; i < 3; i++) {
        app_send(t, 10 * BASE);
        ack_all(t);
    }
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_PROBES], 0);
    advance(t, 11000000);
    app_send(t, 10 * BASE);
    ack_all(t);
    app_send(t, 10 * BASE);
    ack_all(t);
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_PROBES], 1);
}

/* ---- what ICMP says ---------------------------------------- */

/** RFC 5927 section 7.2: where segments of this size have arrived, a message counts only once the segment that it speaks of has timed out. */
TRACE_TEST(what_was_seen_outweighs_icmp, NULL)
{
    make_established(t);
    app_send(t, 1460);
    ack_all(t);
    app_send(t, 1460);
    t->nb_checked = t->nb_out;
    too_big(t, 1461, 600);
    expect_nothing(t);
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_DOUBTED], 1);
    assert_int_equal(conn_of(t)->mss, 1460);
    ack_all(t); /* it was forged */
    app_send(t, 1460);
    expect(t, A | P, 2921, 1, 1460);
    wait_for_segment(t); /* this timeout has nothing to do with it */
    expect(t, A | P, 2921, 1, 1460);
    ack_all(t);
    assert_int_equal(conn_of(t)->mss, 1460);
    /* And one that is true. */
    app_send(t, 1460);
    t->nb_checked = t->nb_out;
    too_big(t, 4381, 1040);
    expect_nothing(t);
    wait_for_segment(t);
    expect(t, A, 4381, 1, 1000);
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_LOWERED], 1);
    peer(t, A, 1, 5381, 0);
    expect(t, A | P, 5381, 1, 460);
    ack_all(t);
}

/** RFC 8201 section 5.2: what one connection was told serves the next one, until it is old. */
TRACE_TEST(paths_are_remembered, NULL)
{
    struct tcp_path_info paths[4];
    tcp_id first;

    assert_int_equal(tcp_paths(t->d, &t->env, paths, 4), 0);
    make_established(t);
    app_send(t, 1460);
    t->nb_checked = t->nb_out;
    too_big(t, 1, 1340);
    ack_all(t);
    assert_int_equal(path_mtu(t), 1340);
    advance(t, 2000000);
    assert_int_equal(tcp_paths(t->d, &t->env, paths, 4), 1);
    assert_int_equal(paths[0].mtu_bytes, 1340);
    assert_int_equal(paths[0].age_s, 2);
    assert_true(ip_addr_equal(&paths[0].remote, &t->tuple.remote));
    first = t->id;
    t->events = 0;
    make_syn_sent(t);
    assert_int_equal(t->out[t->nb_checked - 1].opts.mss, 1300);
    assert_int_equal(path_mtu(t), 1340);
    tcp_abort(t->d, &t->env, first);
    t->nb_checked = t->nb_out;
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460 };
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
    app_send(t, 1460);
    expect(t, A, 1, 1, 1300);
    ack_all(t);
    /* It ends with age, for connections that live on and for those to come. */
    advance(t, 600000000);
    assert_int_equal(tcp_paths(t->d, &t->env, paths, 4), 0);
    app_send(t, 1460);
    assert_int_equal(path_mtu(t), 1500);
    assert_int_equal(t->out[t->nb_out - 1].payload_len, 1460);
    ack_all(t);
}

/** A flood of messages about many hosts is a flood of connections to many hosts: the table stays as large as it is, and the newest are in it. */
TRACE_TEST(remembering_is_bounded, NULL)
{
    static struct tcp_path_info paths[4096];

    for (uint32_t i = 0; i < 3000; i++) {
        t->tuple.remote = ip_addr_v4(0x0100000a + (i << 8));
        t->tuple.local_port = 0;
        make_established(t);
        app_send(t, 1460);
        too_big(t, 1, (uint16_t)(600 + i % 500));
        tcp_abort(t->d, &t->env, t->id);
        t->nb_out = t->nb_checked = 0;
        t->events = 0;
    }
    t->id = 0;
    unsigned n = tcp_paths(t->d, &t->env, paths, 4096);
    assert_in_range(n, 900, 1024);
    bool newest = false;
    for (unsigned i = 0; i < n; i++)
        newest |= ip_addr_equal(&paths[i].remote, &t->tuple.remote) && paths[i].mtu_bytes == 600 + 2999 % 500;
    assert_true(newest);
    tcp_forget_peers(t->d, &t->env);
    assert_int_equal(tcp_paths(t->d, &t->env, paths, 4096), 0);
}

/* ---- routes and options ---------------------------------------- */

static void
with_routes(struct tcp_params *p)
{
    p->nb_path_routes = 2;
    p->path_routes[0] =
        (struct tcp_path_route){ .prefix = ip_addr_v4(0x0000000a), .prefix_len = 104, .mtu_bytes = 1200 };
    p->path_routes[1] = (struct tcp_path_route){ .prefix = ip_addr_v4(0x0000420a),
                                                 .prefix_len = 120,
                                                 .mtu_bytes = 1400,
                                                 .adv_mss = 700,
                                                 .init_cwnd_segs = 3,
                                                 .mtu_locked = true };
}

/** As `ip route ... mtu lock 1400 advmss 700 initcwnd 3`: the longest prefix counts. */
TRACE_TEST(routes_bound_segments, with_routes)
{
    t->tuple.local_port = 0;
    assert_int_equal(tcp_connect(t->d, &t->env, &t->tuple, TRACE_MSS, NULL, TRACE_USER, &t->id), 0);
    assert_int_equal(expect(t, S, 0, 0, 0)->opts.mss, 700);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460 };
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
    assert_int_equal(path_mtu(t), 1400);
    app_send(t, 6000);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(t->out[t->nb_checked].payload_len, 1360);
        assert_true(t->out[t->nb_checked++].may_be_cut); /* locked: nothing to discover */
    }
    expect_nothing(t);
    too_big(t, 1, 600);
    expect_nothing(t);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_ICMP], 1);
    ack_all(t);
    ack_all(t);
    /* Routes change, and connections with them. */
    t->params.nb_path_routes = 1;
    assert_int_equal(tcp_set_params(t->d, &t->params), 0);
    assert_int_equal(path_mtu(t), 1200);
    app_send(t, 1160);
    assert_false(t->out[t->nb_out - 1].may_be_cut);
    ack_all(t);
}

TRACE_TEST(listener_options_too, with_routes)
{
    app_listen(t, 4);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460 };
    peer(t, S, 0, 0, 0);
    assert_int_equal(expect(t, S | A, 0, 1, 0)->opts.mss, 700);
    peer(t, A, 1, 1, 0);
    struct tcp_tuple remote;
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_int_equal(conn_of(t)->mss, 1360);
}

/** IP_MTU_DISCOVER: whether DF is set, and whether ICMP is listened to. */
static void
discovery_is_the_users(void **state)
{
    static const struct {
        bool cut, listens;
        uint32_t mtu;
    } want[] = { { true, false, 1200 },  { false, true, 1200 }, { false, true, 1200 },
                 { false, false, 1500 }, { true, false, 1500 }, { true, false, 1500 } };
    static struct trace t;

    (void)state;
    for (int how = TCP_MTU_DISCOVER_DONT; how <= TCP_MTU_DISCOVER_OMIT; how++) {
        trace_init(&t, with_routes);
        t.tuple.remote = ip_addr_v4(0x0163000a);
        make_established(&t);
        assert_int_equal(tcp_set_option(t.d, &t.env, t.id, TCP_OPT_MTU_DISCOVER, how), 0);
        assert_int_equal(path_mtu(&t), want[how].mtu);
        app_send(&t, 1000);
        assert_int_equal(expect(&t, A | P, 1, 1, 1000)->may_be_cut, want[how].cut);
        too_big(&t, 1, 800);
        assert_int_equal(path_mtu(&t), want[how].listens ? 800 : want[how].mtu);
        ack_all(&t);
        trace_fini(&t);
    }
    trace_init(&t, plain_sack);
    make_established(&t);
    assert_int_equal(tcp_set_option(t.d, &t.env, t.id, TCP_OPT_MTU_DISCOVER, 6), -EINVAL);
    assert_int_equal(tcp_set_option(t.d, &t.env, t.id, TCP_OPT_MTU_DISCOVER, -1), -EINVAL);
    trace_fini(&t);
}

TRACE_TEST(bad_parameters, with_routes)
{
    struct tcp_params p = t->params;
    p.path_routes[1].mtu_bytes = 100;
    assert_int_equal(tcp_set_params(t->d, &p), -EINVAL);
    p = t->params;
    p.path_routes[0].adv_mss = 87;
    assert_int_equal(tcp_set_params(t->d, &p), -EINVAL);
    p = t->params;
    p.mtu_probing = 3;
    assert_int_equal(tcp_set_params(t->d, &p), -EINVAL);
    p = t->params;
    p.nb_path_routes = TCP_PATH_ROUTES_MAX + 1;
    assert_int_equal(tcp_set_params(t->d, &p), -EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_segments_that_vanish_shrink),
        cmocka_unit_test(a_probe_ends_with_a_black_hole),
        cmocka_unit_test(small_segments_do_not_shrink),
        cmocka_unit_test(a_search_ends_at_the_largest),
        cmocka_unit_test(probes_need_company),
        cmocka_unit_test(lost_probes_reduce_nothing),
        cmocka_unit_test(losses_beside_a_probe_count),
        cmocka_unit_test(icmp_about_a_probe),
        cmocka_unit_test(searches_are_repeated),
        cmocka_unit_test(what_was_seen_outweighs_icmp),
        cmocka_unit_test(paths_are_remembered),
        cmocka_unit_test(remembering_is_bounded),
        cmocka_unit_test(routes_bound_segments),
        cmocka_unit_test(listener_options_too),
        cmocka_unit_test(discovery_is_the_users),
        cmocka_unit_test(bad_parameters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
