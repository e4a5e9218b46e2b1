/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/syncookie.h"
#include "trace.h"

/**
 * @file
 * SYN cookies (RFC 4987 section 3.6): what they keep of a SYN, who can make one, how long it is good, and what a flood does to
 * those who mean it.
 */

static const uint64_t seed[2] = { 1, 2 };

static struct tcp_tuple
peer_tuple(void)
{
    return (struct tcp_tuple){
        .local = ip_addr_v4(0x0200420a), .remote = ip_addr_v4(0x0100420a), .local_port = 80, .remote_port = 33333
    };
}

static void
mss_is_rounded_down(void **state)
{
    static const struct {
        uint16_t mss, kept;
    } rows[] = { { 88, 88 },     { 535, 88 },    { 536, 536 },   { 1300, 1220 }, { 1440, 1440 },
                 { 1459, 1440 }, { 1460, 1460 }, { 8939, 1460 }, { 9000, 8940 }, { 65535, 8940 } };
    struct tcp_tuple t = peer_tuple();

    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        tcp_seq c = syncookie_make(seed, &t, 77, rows[i].mss, 5, 1000);
        assert_int_equal(syncookie_check(seed, &t, 77, c, 5, 1000), rows[i].kept);
    }
}

/** Every part of what was said is held: the tuple, the SYN's number, the options, the key, each bit of the cookie. */
static void
nobody_else_makes_one(void **state)
{
    static const uint64_t other[2] = { 1, 3 };
    struct tcp_tuple t = peer_tuple(), port = t, host = t;
    tcp_seq c = syncookie_make(seed, &t, 77, 1460, 5, 1000);

    (void)state;
    port.remote_port++;
    host.remote = ip_addr_v4(0x0300420a);
    assert_int_equal(syncookie_check(seed, &port, 77, c, 5, 1000), 0);
    assert_int_equal(syncookie_check(seed, &host, 77, c, 5, 1000), 0);
    assert_int_equal(syncookie_check(seed, &t, 78, c, 5, 1000), 0);
    assert_int_equal(syncookie_check(seed, &t, 77, c, 6, 1000), 0);
    assert_int_equal(syncookie_check(other, &t, 77, c, 5, 1000), 0);
    for (unsigned bit = 0; bit < 32; bit++)
        assert_int_equal(syncookie_check(seed, &t, 77, c ^ 1u << bit, 5, 1000), 0);
}

static void
cookies_grow_old(void **state)
{
    struct tcp_tuple t = peer_tuple();

    (void)state;
    for (uint64_t period = 1; period < 5; period++) {
        uint64_t made_us = period * SYNCOOKIE_PERIOD_US + 12345;
        tcp_seq c = syncookie_make(seed, &t, 77, 1460, 5, made_us);
        assert_int_equal(syncookie_check(seed, &t, 77, c, 5, made_us), 1460);
        assert_int_equal(syncookie_check(seed, &t, 77, c, 5, (period + 2) * SYNCOOKIE_PERIOD_US - 1), 1460);
        assert_int_equal(syncookie_check(seed, &t, 77, c, 5, (period + 2) * SYNCOOKIE_PERIOD_US), 0);
        assert_int_equal(syncookie_check(seed, &t, 77, c, 5, (period + 3) * SYNCOOKIE_PERIOD_US), 0);
        assert_int_equal(syncookie_check(seed, &t, 77, c, 5, made_us - SYNCOOKIE_PERIOD_US), 0);
    }
}

static void
stamps_are_not_of_the_future(void **state)
{
    (void)state;
    for (uint32_t clock = UINT32_MAX - 200; clock != 200; clock++) {
        for (uint8_t opts = 0; opts <= SYNCOOKIE_OPTS; opts++) {
            uint32_t stamp = syncookie_stamp(clock, opts);
            assert_int_equal(stamp & SYNCOOKIE_OPTS, opts);
            assert_in_range(clock - stamp, 0, SYNCOOKIE_OPTS);
        }
    }
}

/* ---- in the engine ------------------------------------------------------------------------------------------------ */

static void
always(struct tcp_params *p)
{
    p->syn_cookies = TCP_SYN_COOKIES_ALWAYS;
    p->timestamps = p->sack = p->window_scaling = true;
    p->ecn = 1;
}

static void
plain(struct tcp_params *p)
{
    p->syn_cookies = TCP_SYN_COOKIES_ALWAYS;
    p->sack = p->window_scaling = true;
}

static struct tcp_options
syn_options(bool has_ts)
{
    return (struct tcp_options){ .has_mss = true,
                                 .mss = 1400,
                                 .has_wscale = true,
                                 .wscale = 7,
                                 .sack_permitted = true,
                                 .has_ts = has_ts,
                                 .ts_val = 5000 };
}

/** The peer's SYN; returns the answer. */
static struct tcp_out
answer_to_syn(struct trace *t, bool has_ts)
{
    struct tcp_usage u;

    app_listen(t, 4);
    t->peer_opts = syn_options(has_ts);
    peer(t, S | TCP_FLAG_ECE | TCP_FLAG_CWR, 0, 0, 0);
    struct tcp_out o = t->out[t->nb_out - 1];
    assert_int_equal(t->ctr.v[CTR_TCP_SYN_COOKIES_SENT], 1);
    tcp_usage(t->d, &u);
    assert_int_equal(u.half_open, 0);
    assert_int_equal(u.timers_armed, 0);
    t->nb_checked = t->nb_out;
    return o;
}

static void
take(struct trace *t)
{
    struct tcp_tuple remote;

    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_int_not_equal(t->id, 0);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
}

/** With timestamps everything that a SYN says survives. */
TRACE_TEST(timestamps_carry_options, always)
{
    struct tcp_conn_info info;

    struct tcp_out o = answer_to_syn(t, true);
    assert_int_equal(o.flags, S | A | TCP_FLAG_ECE);
    assert_true(o.opts.has_ts && o.opts.sack_permitted && o.opts.has_wscale);
    advance(t, 20000);
    t->peer_opts = (struct tcp_options){ .has_ts = true, .ts_val = 5020, .ts_ecr = o.opts.ts_val };
    t->peer_window = 100;
    peer(t, A, 1, 1, 0);
    assert_int_equal(t->nb_accept, 1);
    take(t);
    assert_true(tcp_info(t->d, t->id, &info));
    assert_true(info.timestamps && info.sack && info.ecn);
    assert_int_equal(info.snd_wscale, 7);
    assert_int_equal(info.rcv_wscale, o.opts.wscale);
    assert_int_equal(info.snd_wnd, 100 << 7);
    assert_int_equal(info.snd_mss, 1400 - 12);
    t->peer_opts = (struct tcp_options){ .has_ts = true, .ts_val = 5030, .ts_ecr = o.opts.ts_val };
    peer(t, A | P, 1, 1, 300);
    assert_true((int32_t)(expect(t, A, 1, 301, 0)->opts.ts_val - o.opts.ts_val) >= 0); /* they never run back */
}

/** Without them what finds no room is not agreed on, rather than agreed on and forgotten. */
TRACE_TEST(without_timestamps_less_is_agreed, plain)
{
    struct tcp_conn_info info;

    struct tcp_out o = answer_to_syn(t, false);
    assert_int_equal(o.flags, S | A);
    assert_false(o.opts.has_ts || o.opts.sack_permitted || o.opts.has_wscale);
    peer(t, A | P, 1, 1, 100); /* the bare ACK was lost: data will do */
    expect(t, A, 1, 101, 0);
    take(t);
    assert_int_equal(t->delivered, 100);
    assert_true(tcp_info(t->d, t->id, &info));
    assert_int_equal(info.snd_mss, 1400);
    assert_int_equal(info.snd_wscale + info.rcv_wscale, 0);
    assert_false(info.sack || info.timestamps);
}

TRACE_TEST(forged_and_late_acks_are_reset, plain)
{
    answer_to_syn(t, false);
    peer(t, A, 1, 2, 0); /* guessed */
    expect(t, R, 2, 0, 0);
    peer(t, A, 2, 1, 0); /* of another SYN */
    expect(t, R, 1, 0, 0);
    assert_int_equal(t->ctr.v[CTR_TCP_SYN_COOKIES_BAD], 2);
    advance(t, SYNCOOKIE_LIFE_US);
    peer(t, A, 1, 1, 0);
    expect(t, R, 1, 0, 0);
    assert_int_equal(t->ctr.v[CTR_TCP_SYN_COOKIES_BAD], 2); /* none is out: nothing is worth a hash */
    assert_int_equal(t->ctr.v[CTR_TCP_SYN_COOKIES_TAKEN], 0);
    assert_int_equal(t->nb_accept, 0);
}

/** A full accept queue turns nobody away: whoever tries again later gets in. */
TRACE_TEST(accept_queue_holds_back, plain)
{
    app_listen(t, 0);
    for (uint16_t i = 0; i < 2; i++) {
        t->tuple.remote_port = (uint16_t)(1000 + i);
        peer(t, S, 0, 0, 0);
        t->nb_checked = t->nb_out;
    }
    tcp_seq second = t->iss;
    t->tuple.remote_port = 1000;
    t->iss = t->out[0].seq;
    peer(t, A, 1, 1, 0);
    t->tuple.remote_port = 1001;
    t->iss = second;
    peer(t, A, 1, 1, 0);
    expect_nothing(t);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_ACCEPT_QUEUE], 1);
    assert_int_equal(t->nb_accept, 1);
    take(t);
    peer(t, A | P, 1, 1, 10);
    expect(t, A, 1, 11, 0);
    assert_int_equal(t->nb_accept, 2);
}

static void
when_full(struct tcp_params *p)
{
    p->max_half_open = 4;
}

/** A flood from forged addresses takes no memory beyond the table, and all who mean it get in, before and behind it. */
TRACE_TEST(a_flood_shuts_nobody_out, when_full)
{
    struct tcp_usage u;

    app_listen(t, 4);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    tcp_seq before = t->iss;
    for (unsigned i = 0; i < 1000; i++) {
        t->tuple.remote = ip_addr_v4(0x01000000u + (i << 8));
        peer(t, S, 0, 0, 0);
        expect(t, S | A, 0, 1, 0);
        t->nb_checked = t->nb_out = 0;
    }
    tcp_usage(t->d, &u);
    assert_int_equal(u.half_open, 4);
    assert_int_equal(t->ctr.v[CTR_TCP_SYN_COOKIES_SENT], 997);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_SYN_QUEUE], 0);
    peer(t, A, 1, 1, 0); /* the last one was no forgery */
    assert_int_equal(t->nb_accept, 1);
    t->tuple.remote = ip_addr_v4(0x0100420a); /* and the first one is not forgotten */
    t->iss = before;
    peer(t, A, 1, 1, 0);
    assert_int_equal(t->nb_accept, 2);
    expect_nothing(t);
}

/** A SYN that was answered by a cookie comes again when there is room: the ACK of either answer opens. */
TRACE_TEST(cookie_and_entry_agree, plain)
{
    struct tcp_usage u;

    answer_to_syn(t, false);
    tcp_seq cookie = t->iss;
    t->params.syn_cookies = TCP_SYN_COOKIES_FULL;
    assert_int_equal(tcp_set_params(t->d, &t->params), 0);
    t->peer_opts = syn_options(false);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    assert_int_not_equal(t->iss, cookie);
    t->iss = cookie;
    peer(t, A, 1, 1, 0);
    expect_nothing(t);
    take(t);
    tcp_usage(t->d, &u);
    assert_int_equal(u.half_open, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mss_is_rounded_down),
        cmocka_unit_test(nobody_else_makes_one),
        cmocka_unit_test(cookies_grow_old),
        cmocka_unit_test(stamps_are_not_of_the_future),
        cmocka_unit_test(timestamps_carry_options),
        cmocka_unit_test(without_timestamps_less_is_agreed),
        cmocka_unit_test(forged_and_late_acks_are_reset),
        cmocka_unit_test(accept_queue_holds_back),
        cmocka_unit_test(a_flood_shuts_nobody_out),
        cmocka_unit_test(cookie_and_entry_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
