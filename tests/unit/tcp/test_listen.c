/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>

#include "trace.h"

#define SECOND 1000000u

static void
listen_with(struct trace *t, uint32_t backlog, enum tcp_option opt, int32_t value)
{
    struct tcp_sockopts o = { .set = 1u << opt };

    o.value[opt] = value;
    t->tuple.local_port = 8080;
    t->tuple.remote_port = 33333;
    assert_int_equal(tcp_listen(t->d, &t->env, &t->tuple.local, 8080, backlog, &o, TRACE_LISTENER, &t->listener), 0);
}

static uint32_t
half_open(const struct trace *t)
{
    struct tcp_usage u;

    tcp_usage(t->d, &u);
    return u.half_open;
}

static void
end_handshakes(struct trace *t)
{
    tcp_close(t->d, &t->env, t->listener, false);
    t->listener = 0;
    t->nb_checked = t->nb_out;
}

/* ---- TCP_DEFER_ACCEPT ---------------------------------------- */

/** 5 s are three timeouts of the SYN-ACK, of 1, 2 and 4 s. */
TRACE_TEST(a_deferred_connection_waits_for_data, NULL)
{
    listen_with(t, 4, TCP_OPT_DEFER_ACCEPT, 5);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    peer(t, A, 1, 1, 0);
    advance(t, 2500000);
    peer(t, A, 1, 1, 0);
    expect_nothing(t); /* its SYN is acknowledged: no SYN-ACK again */
    assert_int_equal(tcp_accept_count(t->d, t->listener), 0);
    peer(t, A | P, 1, 1, 100);
    expect(t, A, 1, 101, 0);
    assert_int_equal(tcp_accept_count(t->d, t->listener), 1);
    end_handshakes(t);
}

TRACE_TEST(a_deferred_connection_is_asked_once_more, NULL)
{
    listen_with(t, 4, TCP_OPT_DEFER_ACCEPT, 3);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    peer(t, A, 1, 1, 0);
    advance(t, 3 * SECOND - 1);
    expect_nothing(t);
    advance(t, 1);
    expect(t, S | A, 0, 1, 0);
    peer(t, A, 1, 1, 0); /* the time is over: an ACK is enough */
    assert_int_equal(tcp_accept_count(t->d, t->listener), 1);
    end_handshakes(t);
}

TRACE_TEST(a_deferred_connection_may_end_at_once, NULL)
{
    listen_with(t, 4, TCP_OPT_DEFER_ACCEPT, 3);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    peer(t, A | F, 1, 1, 0);
    expect(t, A, 1, 2, 0);
    assert_int_equal(tcp_accept_count(t->d, t->listener), 1);
    end_handshakes(t);
}

/** A silent peer is kept for as long as any other, not for the time of the option. */
TRACE_TEST(a_deferred_syn_gives_up_as_others_do, NULL)
{
    listen_with(t, 4, TCP_OPT_DEFER_ACCEPT, 1000);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    advance(t, 62 * SECOND);
    for (unsigned i = 0; i < 5; i++)
        expect(t, S | A, 0, 1, 0);
    assert_int_equal(half_open(t), 1);
    advance(t, 2 * SECOND);
    assert_int_equal(half_open(t), 0);
    end_handshakes(t);
}

/** One that acknowledged stays until its time is over, though SYN-ACKs would have been given up long before. */
TRACE_TEST(a_long_deferral_outlives_the_retries, NULL)
{
    listen_with(t, 4, TCP_OPT_DEFER_ACCEPT, 200); /* 1 + 2 + 4 + ... + 128 s */
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    peer(t, A, 1, 1, 0);
    advance(t, 120 * SECOND);
    expect_nothing(t);
    assert_int_equal(half_open(t), 1);
    peer(t, A | P, 1, 1, 10);
    expect(t, A, 1, 11, 0);
    end_handshakes(t);
}

/* ---- what a listener lets wait ---------------------------------------- */

static void
syn_from(struct trace *t, uint16_t port)
{
    t->tuple.remote_port = port;
    peer(t, S, 0, 0, 0);
    t->iss = t->out[t->nb_out - 1].seq;
    expect(t, S | A, 0, 1, 0);
}

TRACE_TEST(the_backlog_bounds_handshakes_under_way, NULL)
{
    app_listen(t, 2); /* as in Linux, one more */
    for (unsigned i = 0; i < 5; i++)
        syn_from(t, (uint16_t)(1000 + i));
    assert_int_equal(half_open(t), 3);
    assert_int_equal(t->ctr.v[CTR_TCP_SYN_COOKIES_SENT], 2);
    peer(t, A, 1, 1, 0); /* the last one's cookie */
    assert_int_equal(tcp_accept_count(t->d, t->listener), 1);
    end_handshakes(t);
}

TRACE_TEST(no_backlog_is_one_handshake, NULL)
{
    app_listen(t, 0);
    syn_from(t, 1000);
    assert_int_equal(half_open(t), 1);
    syn_from(t, 1001);
    assert_int_equal(half_open(t), 1);
    peer(t, A, 1, 1, 0); /* the cookie's */
    assert_int_equal(tcp_accept_count(t->d, t->listener), 1);
    end_handshakes(t);
}

TRACE_TEST(without_cookies_one_handshake_at_least, NULL)
{
    t->params.syn_cookies = TCP_SYN_COOKIES_OFF;
    assert_int_equal(tcp_set_params(t->d, &t->params), 0);
    app_listen(t, 0);
    syn_from(t, 1000);
    syn_from(t, 1001);
    assert_int_equal(half_open(t), 1);
    peer(t, A, 1, 1, 0);
    assert_int_equal(tcp_accept_count(t->d, t->listener), 1);
    end_handshakes(t);
}

TRACE_TEST(syncnt_bounds_the_syn_acks, NULL)
{
    listen_with(t, 4, TCP_OPT_SYNCNT, 2);
    peer(t, S, 0, 0, 0);
    for (unsigned i = 0; i < 3; i++, advance(t, SECOND << i))
        expect(t, S | A, 0, 1, 0);
    advance(t, 20 * SECOND);
    expect_nothing(t);
    assert_int_equal(half_open(t), 0);
    end_handshakes(t);
}

/* ---- the window scale ---------------------------------------- */

static void
scaling_on(struct tcp_params *p)
{
    p->window_scaling = true;
    p->rcv_buf_max_bytes = 3000000;
}

static uint8_t
scale_offered(struct trace *t)
{
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460, .has_wscale = true, .wscale = 7 };
    peer(t, S, 0, 0, 0);
    return expect(t, S | A, 0, 1, 0)->opts.wscale;
}

/** A buffer that may grow needs room for that; one that was fixed has the finest scale that serves. */
static void
the_scale_fits_the_buffer(void **state)
{
    static const struct {
        int32_t rcvbuf; /* -1 = left to the stack */
        uint8_t scale;
    } rows[] = { { -1, 6 }, { 20000, 0 }, { 65536, 1 }, { 8 << 20, 8 } };

    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct trace t;
        trace_init(&t, scaling_on);
        listen_with(&t, 4, TCP_OPT_RCVBUF, rows[i].rcvbuf);
        assert_int_equal(scale_offered(&t), rows[i].scale);
        end_handshakes(&t);
        trace_fini(&t);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_deferred_connection_waits_for_data),
        cmocka_unit_test(a_deferred_connection_is_asked_once_more),
        cmocka_unit_test(a_deferred_connection_may_end_at_once),
        cmocka_unit_test(a_deferred_syn_gives_up_as_others_do),
        cmocka_unit_test(a_long_deferral_outlives_the_retries),
        cmocka_unit_test(the_backlog_bounds_handshakes_under_way),
        cmocka_unit_test(no_backlog_is_one_handshake),
        cmocka_unit_test(without_cookies_one_handshake_at_least),
        cmocka_unit_test(syncnt_bounds_the_syn_acks),
        cmocka_unit_test(the_scale_fits_the_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
