/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "tcp/wire.h"
#include "trace.h"

/**
 * @file
 * TCP Fast Open (RFC 7413), client and server, packet by packet.
 */

static void
both_sides(struct tcp_params *p)
{
    p->fastopen = TCP_FASTOPEN_CLIENT | TCP_FASTOPEN_SERVER;
}

/* ---- server ---------------------------------------------------------------------------------------------------------- */

static void
listen_fast(struct trace *t, int32_t qlen)
{
    struct tcp_sockopts o = { .set = 1u << TCP_OPT_FASTOPEN };

    o.value[TCP_OPT_FASTOPEN] = qlen;
    t->tuple.local_port = 8080;
    t->tuple.remote_port = 33333;
    assert_int_equal(tcp_listen(t->d, &t->env, &t->tuple.local, 8080, 4, &o, TRACE_LISTENER, &t->listener), 0);
}

/** The cookie that a SYN which asks for one gets; the entry ends by a reset. */
static struct tcp_fo_cookie
ask_for_cookie(struct trace *t)
{
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460, .has_fo = true };
    peer(t, S, 0, 0, 0);
    const struct tcp_out *o = expect(t, S | A, 0, 1, 0);
    assert_true(o->opts.has_fo);
    assert_int_equal(o->opts.fo.len, 8);
    struct tcp_fo_cookie cookie = o->opts.fo;
    peer(t, R, 1, 0, 0);
    return cookie;
}

static void
syn_with(struct trace *t, const struct tcp_fo_cookie *cookie, uint32_t len)
{
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460, .has_fo = true, .fo = *cookie };
    peer(t, S, 0, 0, len);
}

static void
take(struct trace *t)
{
    struct tcp_tuple remote;

    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_int_not_equal(t->id, 0);
}

/** Section 4.2.2: with its cookie a SYN's data is delivered, and answered, before the handshake ends. */
static void
data_comes_with_the_syn(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, both_sides);
    listen_fast(&t, 4);
    struct tcp_fo_cookie cookie = ask_for_cookie(&t);
    syn_with(&t, &cookie, 200);
    expect(&t, S | A, 0, 201, 0);
    take(&t);
    assert_int_equal(t.delivered, 200);
    assert_int_equal(state_of(&t), TCP_ST_SYN_RECEIVED);
    app_send(&t, 300);
    expect(&t, A | P, 1, 201, 300);
    syn_with(&t, &cookie, 200); /* our answer was lost */
    expect(&t, S | A, 0, 201, 0);
    assert_int_equal(t.delivered, 200);
    peer(&t, A, 201, 301, 0);
    assert_int_equal(state_of(&t), TCP_ST_ESTABLISHED);
    assert_int_equal(t.acked, 300);
    assert_int_equal(t.ctr.v[CTR_TCP_FASTOPEN_PASSIVE], 1);
    trace_fini(&t);
}

/** Section 4.1.2: any other cookie is none; the right one is offered, and the data comes again. */
static void
wrong_cookies_open_as_ever(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, both_sides);
    listen_fast(&t, 4);
    struct tcp_fo_cookie cookie = ask_for_cookie(&t), wrong = cookie, brief = cookie;
    wrong.bytes[7] ^= 1;
    syn_with(&t, &wrong, 200);
    const struct tcp_out *o = expect(&t, S | A, 0, 1, 0);
    assert_memory_equal(o->opts.fo.bytes, cookie.bytes, cookie.len);
    peer(&t, R, 1, 0, 0);
    brief.len = 4;
    syn_with(&t, &brief, 200);
    expect(&t, S | A, 0, 1, 0);
    peer(&t, R, 1, 0, 0);
    t.tuple.remote = ip_addr_v4(0x0300420a); /* another host's */
    syn_with(&t, &cookie, 200);
    expect(&t, S | A, 0, 1, 0);
    assert_int_equal(t.ctr.v[CTR_TCP_FASTOPEN_BAD_COOKIES], 3);
    assert_int_equal(tcp_accept_count(t.d, t.listener), 0);
    trace_fini(&t);
}

/** A new key makes the cookies of the old one worthless, of one listener or of all. */
static void
keys_change(void **state)
{
    static const uint8_t keys[2][TCP_FASTOPEN_KEY_BYTES] = { "a key of its own", "a listener's key" };
    static struct trace t;

    (void)state;
    trace_init(&t, both_sides);
    listen_fast(&t, 4);
    struct tcp_fo_cookie before = ask_for_cookie(&t);
    assert_int_equal(tcp_set_fastopen_keys(t.d, TCP_NO_ID, 1, keys), 0);
    struct tcp_fo_cookie domain = ask_for_cookie(&t);
    assert_memory_not_equal(before.bytes, domain.bytes, 8);
    assert_int_equal(tcp_set_fastopen_keys(t.d, t.listener, 1, keys + 1), 0);
    struct tcp_fo_cookie own = ask_for_cookie(&t);
    assert_memory_not_equal(own.bytes, domain.bytes, 8);
    assert_int_equal(tcp_set_fastopen_keys(t.d, t.listener + 1, 1, keys), -EINVAL);
    trace_fini(&t);
}

/** Section 5.2: keys may change without anybody's cookie going bad at once. The second key's are taken, and replaced by the SYN-ACK. */
static void
keys_may_be_rolled_over(void **state)
{
    static struct trace t;
    uint8_t keys[2][TCP_FASTOPEN_KEY_BYTES] = { "the new key .. ", "the old key .. " };
    struct tcp_sockopts o = { .set = 1u << TCP_OPT_FASTOPEN, .value[TCP_OPT_FASTOPEN] = 4, .nb_fastopen_keys = 1 };

    (void)state;
    trace_init(&t, both_sides);
    memcpy(o.fastopen_keys, keys[1], sizeof(keys[1]));
    t.tuple.local_port = 8080;
    t.tuple.remote_port = 33333;
    assert_int_equal(tcp_listen(t.d, &t.env, &t.tuple.local, 8080, 4, &o, TRACE_LISTENER, &t.listener), 0);
    struct tcp_fo_cookie old = ask_for_cookie(&t);
    assert_int_equal(tcp_set_fastopen_keys(t.d, t.listener, 3, keys), -EINVAL);
    assert_int_equal(tcp_set_fastopen_keys(t.d, t.listener, 0, keys), -EINVAL);
    assert_int_equal(tcp_set_fastopen_keys(t.d, t.listener, 2, keys), 0);
    for (unsigned exp = 0; exp < 2; exp++) {
        old.exp = exp != 0;
        syn_with(&t, &old, 100);
        const struct tcp_out *o2 = expect(&t, S | A, 0, 101, 0);
        assert_true(o2->opts.has_fo);
        assert_int_equal(o2->opts.fo.exp, exp);
        struct tcp_fo_cookie new = o2->opts.fo;
        new.exp = false;
        assert_memory_not_equal(new.bytes, old.bytes, 8);
        assert_int_equal(t.ctr.v[CTR_TCP_FASTOPEN_OLD_KEYS], 1 + exp);
        syn_with(&t, &old, 100); /* its copy is told no more than any other */
        assert_false(expect(&t, S | A, 0, 101, 0)->opts.has_fo);
        peer(&t, R, 101, 0, 0);
        syn_with(&t, &new, 100);
        assert_false(expect(&t, S | A, 0, 101, 0)->opts.has_fo);
        peer(&t, R, 101, 0, 0);
        advance(&t, 1000);
    }
    /* At last the old one goes. */
    assert_int_equal(tcp_set_fastopen_keys(t.d, t.listener, 1, keys), 0);
    old.exp = false;
    syn_with(&t, &old, 100);
    expect(&t, S | A, 0, 1, 0);
    peer(&t, R, 1, 0, 0);
    trace_fini(&t);
}

static void
both_sides_accurate(struct tcp_params *p)
{
    both_sides(p);
    p->timestamps = p->sack = p->window_scaling = p->ecn_option = true;
    p->ecn = TCP_ECN_ACCURATE;
}

/** A new cookie leaves no room for accurate ECN's option beside all the others. */
static void
a_new_cookie_goes_before_ecns_option(void **state)
{
    static struct trace t;
    uint8_t keys[2][TCP_FASTOPEN_KEY_BYTES] = { "the new key .. ", "the old key .. " };
    uint8_t hdr[TCP_HDR_MAX];

    (void)state;
    trace_init(&t, both_sides_accurate);
    listen_fast(&t, 4);
    assert_int_equal(tcp_set_fastopen_keys(t.d, t.listener, 1, &keys[1]), 0);
    struct tcp_fo_cookie old = ask_for_cookie(&t);
    assert_int_equal(tcp_set_fastopen_keys(t.d, t.listener, 2, keys), 0);
    t.peer_opts = (struct tcp_options){ .has_mss = true,
                                        .mss = 1460,
                                        .has_ts = true,
                                        .ts_val = 1,
                                        .has_wscale = true,
                                        .wscale = 7,
                                        .sack_permitted = true,
                                        .has_fo = true,
                                        .fo = old };
    peer(&t, S | TCP_FLAG_ECE | TCP_FLAG_CWR | TCP_FLAG_AE, 0, 0, 100);
    const struct tcp_out *o = &t.out[t.nb_out - 1];
    assert_true(o->opts.has_fo);
    assert_false(o->opts.has_accecn);
    assert_in_range(tcp_wire_build(o, hdr), TCP_HDR_MIN, TCP_HDR_MAX);
    t.nb_checked = t.nb_out;
    peer(&t, R, 101, 0, 0);
    trace_fini(&t);
}

/** Section 5.1: no more than qlen may have sent data and not yet proved their address; a reset gives the place back. */
static void
unproved_addresses_are_bounded(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, both_sides);
    listen_fast(&t, 1);
    struct tcp_fo_cookie cookie = ask_for_cookie(&t);
    syn_with(&t, &cookie, 100);
    expect(&t, S | A, 0, 101, 0);
    t.tuple.remote_port++;
    syn_with(&t, &cookie, 100);
    expect(&t, S | A, 0, 1, 0); /* an ordinary handshake */
    peer(&t, R, 1, 0, 0);
    t.tuple.remote_port--;
    peer(&t, R, 101, 0, 0);
    t.tuple.remote_port += 2;
    syn_with(&t, &cookie, 100);
    expect(&t, S | A, 0, 101, 0);
    trace_fini(&t);
}

/** A listener that did not ask for it opens as ever, and so does one whose option is off. */
static void
nobody_asked(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, both_sides);
    listen_fast(&t, 0);
    t.peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460, .has_fo = true };
    peer(&t, S, 0, 0, 0);
    assert_false(expect(&t, S | A, 0, 1, 0)->opts.has_fo);
    trace_fini(&t);
}

/* ---- client ---------------------------------------------------------------------------------------------------------- */

static const struct tcp_fo_cookie server_cookie = { .len = 6, .bytes = { 1, 2, 3, 4, 5, 6 } };

/** Connect with n bytes at hand; returns how many went with the SYN. */
static uint32_t
connect_fast(struct trace *t, uint32_t n)
{
    uint32_t taken = UINT32_MAX;

    t->tuple.local_port = 0;
    t->events = t->nb_gone = 0;
    assert_int_equal(tcp_connect_fast(t->d, &t->env, &t->tuple, TRACE_MSS, NULL, TRACE_USER, n, &taken, &t->id), 0);
    return taken;
}

static struct tcp_conn_info
info_of(struct trace *t)
{
    struct tcp_conn_info info;

    assert_true(tcp_info(t->d, t->id, &info));
    return info;
}

/** A first connection learns the cookie, and the MSS. */
static void
learn_cookie(struct trace *t)
{
    assert_int_equal(connect_fast(t, 500), 0);
    const struct tcp_out *o = expect(t, S, 0, 0, 0);
    assert_true(o->opts.has_fo);
    assert_int_equal(o->opts.fo.len, 0);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1000, .has_fo = true, .fo = server_cookie };
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
    assert_int_equal(info_of(t).fastopen_fail, 1); /* TFO_COOKIE_UNAVAILABLE */
    tcp_abort(t->d, &t->env, t->id);
    expect(t, R | A, 1, 1, 0);
}

static void
second_syn_brings_data(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, both_sides);
    assert_false(tcp_fastopen_ready(t.d, &t.env, &t.tuple, NULL));
    learn_cookie(&t);
    assert_true(tcp_fastopen_ready(t.d, &t.env, &t.tuple, NULL));
    assert_int_equal(connect_fast(&t, 5000), 1000 - 40); /* the MSS of last time, and room for any options */
    const struct tcp_out *o = expect(&t, S, 0, 0, 960);
    assert_memory_equal(o->opts.fo.bytes, server_cookie.bytes, server_cookie.len);
    t.peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1000 };
    peer(&t, S | A, 0, 961, 0);
    expect(&t, A, 961, 1, 0);
    assert_int_equal(t.acked, 960);
    assert_int_equal(info_of(&t).fastopen_fail, 0);
    assert_int_equal(info_of(&t).data_segs_out, 1);
    assert_int_equal(info_of(&t).bytes_sent, 960);
    assert_int_equal(info_of(&t).bytes_acked, 961);
    assert_int_equal(t.ctr.v[CTR_TCP_FASTOPEN_ACTIVE], 1);
    trace_fini(&t);
}

/** What the peer does not take is sent again at once, and holds back no small segment behind it (Nagle). */
static void
refused_data_comes_again(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, both_sides);
    learn_cookie(&t);
    connect_fast(&t, 500);
    expect(&t, S, 0, 0, 500);
    app_send(&t, 20);
    t.peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1000 };
    peer(&t, S | A, 0, 101, 0); /* a part of it */
    expect(&t, A | P, 101, 1, 400);
    expect(&t, A | P, 501, 1, 20);
    peer(&t, A, 1, 521, 0);
    assert_int_equal(t.acked, 520);
    assert_int_equal(info_of(&t).fastopen_fail, 2); /* TFO_DATA_NOT_ACKED */
    assert_int_equal(info_of(&t).data_segs_out, 3);
    assert_int_equal(t.ctr.v[CTR_TCP_FASTOPEN_ACTIVE_FAIL], 1);
    trace_fini(&t);
}

/** Section 4.1.3.1: a lost SYN comes again bare; after the second loss in a row none has data, for a minute. */
static void
lost_syns_suspend(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, both_sides);
    learn_cookie(&t);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(connect_fast(&t, 500), 500);
        expect(&t, S, 0, 0, 500);
        advance(&t, 1100000);
        assert_false(expect(&t, S, 0, 0, 0)->opts.has_fo);
        t.peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1000 };
        peer(&t, S | A, 0, 1, 0);
        expect(&t, A | P, 1, 1, 500);
        assert_int_equal(info_of(&t).fastopen_fail, 3); /* TFO_SYN_RETRANSMITTED */
        tcp_abort(t.d, &t.env, t.id);
        expect(&t, R | A, 501, 1, 0);
    }
    assert_false(tcp_fastopen_ready(t.d, &t.env, &t.tuple, NULL));
    advance(&t, 61000000);
    assert_int_equal(connect_fast(&t, 500), 500);
    expect(&t, S, 0, 0, 500);
    assert_true(tcp_fastopen_ready(t.d, &t.env, &t.tuple, NULL));
    tcp_forget_peers(t.d, &t.env);
    assert_false(tcp_fastopen_ready(t.d, &t.env, &t.tuple, NULL));
    trace_fini(&t);
}

static void
no_cookie_needed(struct tcp_params *p)
{
    p->fastopen = TCP_FASTOPEN_CLIENT | TCP_FASTOPEN_CLIENT_NO_COOKIE;
}

/** A cookie that our SYN did not ask for is not believed. */
static void
unasked_cookies_are_ignored(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, no_cookie_needed);
    assert_int_equal(connect_fast(&t, 100), 100);
    assert_false(expect(&t, S, 0, 0, 100)->opts.has_fo);
    t.peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1000, .has_fo = true, .fo = server_cookie };
    peer(&t, S | A, 0, 101, 0);
    expect(&t, A, 101, 1, 0);
    t.params.fastopen = TCP_FASTOPEN_CLIENT;
    assert_int_equal(tcp_set_params(t.d, &t.params), 0);
    assert_false(tcp_fastopen_ready(t.d, &t.env, &t.tuple, NULL));
    trace_fini(&t);
}

static void
count_take(void *ctx)
{
    unsigned *takes = ctx;

    assert_int_equal(*takes % 2, 0);
    ++*takes;
}

static void
count_give(void *ctx)
{
    unsigned *takes = ctx;

    assert_int_equal(*takes % 2, 1);
    ++*takes;
}

static void
inner_nothing(void *ctx, enum tcp_inner which)
{
    (void)ctx;
    assert_int_equal(which, TCP_INNER_PATHS);
}

/** Where threads share a domain, what is remembered of peers is the table's: both who asks and who forgets hold it. */
static void
peers_are_looked_at_under_the_table_lock(void **state)
{
    static struct trace t;
    unsigned takes = 0;
    const struct tcp_locks locks = { .ctx = &takes,
                                     .table_take = count_take,
                                     .table_give = count_give,
                                     .inner_take = inner_nothing,
                                     .inner_give = inner_nothing };

    (void)state;
    trace_init(&t, both_sides);
    learn_cookie(&t);
    t.env.locks = &locks;
    assert_true(tcp_fastopen_ready(t.d, &t.env, &t.tuple, NULL));
    assert_int_equal(takes, 2);
    tcp_forget_peers(t.d, &t.env);
    assert_int_equal(takes, 4);
    assert_false(tcp_fastopen_ready(t.d, &t.env, &t.tuple, NULL));
    assert_int_equal(takes, 6);
    t.env.locks = NULL;
    trace_fini(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_may_be_rolled_over),
        cmocka_unit_test(a_new_cookie_goes_before_ecns_option),
        cmocka_unit_test(data_comes_with_the_syn),
        cmocka_unit_test(wrong_cookies_open_as_ever),
        cmocka_unit_test(keys_change),
        cmocka_unit_test(unproved_addresses_are_bounded),
        cmocka_unit_test(nobody_asked),
        cmocka_unit_test(second_syn_brings_data),
        cmocka_unit_test(refused_data_comes_again),
        cmocka_unit_test(lost_syns_suspend),
        cmocka_unit_test(unasked_cookies_are_ignored),
        cmocka_unit_test(peers_are_looked_at_under_the_table_lock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
