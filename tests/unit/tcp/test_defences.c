/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "tcp/isn.h"
#include "trace.h"

/**
 * @file
 * What keeps strangers from guessing and old segments from being taken: initial sequence numbers (RFC 6528), ports that
 * are chosen (RFC 6056), PAWS (RFC 7323 section 5), and which error a reset amounts to.
 */

static struct tcp_tuple
tuple(uint16_t local_port, uint16_t remote_port)
{
    return (struct tcp_tuple){
        .local = ip_addr_v4(0x0200420a),
        .remote = ip_addr_v4(0x0100420a),
        .local_port = local_port,
        .remote_port = remote_port,
    };
}

/* RFC 6528 section 3: ISN = M + F(tuple, secret), where M advances every 4 us. */
static void
isn_is_a_clock_plus_a_secret(void **state)
{
    static const uint64_t key[2] = { 1, 2 }, other_key[2] = { 1, 3 };
    struct tcp_tuple t = tuple(40000, 80), local = tuple(40001, 80), remote = tuple(40000, 81), host = t;
    tcp_seq isn = tcp_isn(key, &t, 1000);

    (void)state;
    host.remote = ip_addr_v4(0x0300420a);
    assert_int_equal(tcp_isn(key, &t, 1000), isn);
    assert_int_equal((tcp_seq)(tcp_isn(key, &t, 1000 + 4000) - isn), 1000);
    assert_int_not_equal(tcp_isn(key, &local, 1000), isn);
    assert_int_not_equal(tcp_isn(key, &remote, 1000), isn);
    assert_int_not_equal(tcp_isn(key, &host, 1000), isn);
    assert_int_not_equal(tcp_isn(other_key, &t, 1000), isn);
    /* A neighbouring tuple's number must tell nothing: not even that it is near. */
    assert_true((uint32_t)(tcp_isn(key, &local, 1000) - isn + 65536) > 131072);
}

/* One destination's ports follow each other, with a start that another destination's do not share. */
TRACE_TEST(ports_are_hard_to_guess, NULL)
{
    uint16_t first[8];

    for (uint16_t i = 0; i < 8; i++) {
        struct tcp_tuple to = tuple(0, (uint16_t)(80 + i)), again = to;

        assert_int_equal(port_choose(t->d, &to, false), 0);
        assert_int_equal(port_choose(t->d, &again, false), 0);
        assert_int_not_equal(again.local_port, to.local_port);
        assert_in_range(to.local_port, t->params.port_min, t->params.port_max);
        first[i] = to.local_port;
        for (uint16_t k = 0; k < i; k++)
            assert_true(first[i] > first[k] + 8 || first[k] > first[i] + 8);
    }
}

static void
two_ports(struct tcp_params *p)
{
    p->port_min = 40000;
    p->port_max = 40001;
}

/* A port that somebody has bound, or whose tuple is in use, is not chosen; when none is left the caller is told. */
TRACE_TEST(ports_in_use_are_passed_over, two_ports)
{
    struct ip_addr any = ip_addr_v4(0);
    struct tcp_tuple to = tuple(0, 80);
    tcp_id id;
    uint16_t port;

    assert_int_equal(tcp_bind(t->d, &any, 40000, NULL, 11, &port), 0);
    assert_int_equal(tcp_connect(t->d, &t->env, &to, TRACE_MSS, NULL, TRACE_USER, &id), 0);
    assert_int_equal(to.local_port, 40001);
    to.local_port = 0;
    assert_int_equal(port_choose(t->d, &to, false), -EADDRNOTAVAIL);
    to = tuple(0, 81);
    assert_int_equal(port_choose(t->d, &to, false), 0); /* to another port of the peer it is free */
    assert_int_equal(to.local_port, 40001);
    tcp_unbind(t->d, &any, 40000, 11);
    tcp_abort(t->d, &t->env, id);
    t->nb_checked = t->nb_out; /* its SYN */
}

/* SO_REUSEADDR lets two bind, but nobody beside one who listens. */
static void
listener_keeps_its_port(void **state)
{
    static struct trace t;
    struct tcp_sockopts reuse = { .set = 1u << TCP_OPT_REUSEADDR };
    struct ip_addr any = ip_addr_v4(0);
    uint16_t port;
    tcp_id id;

    (void)state;
    reuse.value[TCP_OPT_REUSEADDR] = 1;
    trace_init(&t, NULL);
    assert_int_equal(tcp_listen(t.d, &t.env, &any, 80, 1, &reuse, 11, &id), 0);
    assert_int_equal(tcp_bind(t.d, &any, 80, &reuse, 12, &port), -EADDRINUSE);
    tcp_abort(t.d, &t.env, id);
    assert_int_equal(tcp_bind(t.d, &any, 80, &reuse, 12, &port), 0);
    tcp_unbind(t.d, &any, 80, 12);
    trace_fini(&t);
}

/* ---- PAWS ---------------------------------------------------------------------------------------------------------- */

#define PEER_TS 1000000u

static void
with_timestamps(struct tcp_params *p)
{
    p->timestamps = true;
}

static void
stamp(struct trace *t, uint32_t ts_val)
{
    t->peer_opts.has_ts = true;
    t->peer_opts.ts_val = ts_val;
    t->peer_opts.ts_ecr = 0;
}

static void
establish_stamped(struct trace *t)
{
    trace_init(t, with_timestamps);
    make_syn_sent(t);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460 };
    stamp(t, PEER_TS);
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
}

static void
old_timestamps_are_refused(void **state)
{
    static struct trace t;

    (void)state;
    establish_stamped(&t);
    stamp(&t, PEER_TS - 1);
    peer(&t, A, 1, 1, 100);
    expect(&t, A, 1, 1, 0); /* an acknowledgement of what was received, i.e. nothing */
    peer(&t, A, 1, 1, 100); /* RFC 7323 section 3.2: agreed on, so a segment without is none of the peer's */
    assert_int_equal(t.delivered, 0);
    assert_int_equal(t.ctr.v[CTR_TCP_DROP_PAWS], 2);
    stamp(&t, PEER_TS - 1);
    peer(&t, R, 1, 0, 0); /* section 5.2: a reset is not subject to it */
    assert_int_equal(t.nb_gone, 1);
    trace_fini(&t);
}

/** A copy of what was received brings a newer timestamp than what it has overtaken: that is late, and no old duplicate. */
static void
a_copy_makes_nothing_old(void **state)
{
    static struct trace t;

    (void)state;
    establish_stamped(&t);
    stamp(&t, PEER_TS);
    peer(&t, A, 1, 1, 100);
    expect(&t, A, 1, 101, 0);
    stamp(&t, PEER_TS + 5);
    peer(&t, A, 1, 1, 100);
    assert_int_equal(expect(&t, A, 1, 101, 0)->opts.ts_ecr, PEER_TS + 5); /* answered as the copy that it is */
    stamp(&t, PEER_TS + 1);
    peer(&t, A, 101, 1, 100);
    assert_int_equal(expect(&t, A, 1, 201, 0)->opts.ts_ecr, PEER_TS + 1);
    assert_int_equal(t.delivered, 200);
    assert_int_equal(t.ctr.v[CTR_TCP_DROP_PAWS], 0);
    trace_fini(&t);
}

static void
lenient(struct tcp_params *p)
{
    p->timestamps = true;
    p->ts_required = false;
}

/* Some paths lose the option on the way: who prefers their data to the rule takes it (ts_required off). */
TRACE_TEST(missing_timestamps_may_be_forgiven, lenient)
{
    struct tcp_tuple remote;

    app_listen(t, 1);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460 };
    stamp(t, PEER_TS);
    peer(t, S, 0, 0, 0);
    assert_true(expect(t, S | A, 0, 1, 0)->opts.has_ts);
    stamp(t, PEER_TS - 1);
    peer(t, A, 1, 1, 0); /* an old one is refused still */
    expect(t, A, 1, 1, 0);
    peer(t, A, 1, 1, 0);
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_int_not_equal(t->id, 0);
    peer(t, A, 1, 1, 100);
    assert_true(expect(t, A, 1, 101, 0)->opts.has_ts);
    stamp(t, PEER_TS - 1);
    peer(t, A, 101, 1, 100);
    expect(t, A, 1, 101, 0);
    assert_int_equal(t->delivered, 100);
}

/* Section 5.5: after a day of silence the old stamp proves nothing, or the connection would hang for ever. */
static void
timestamps_age(void **state)
{
    static struct trace t;

    (void)state;
    establish_stamped(&t);
    advance(&t, 23ull * 3600 * 1000000);
    stamp(&t, PEER_TS - 1);
    peer(&t, A, 1, 1, 100);
    expect(&t, A, 1, 1, 0);
    advance(&t, 2ull * 3600 * 1000000);
    stamp(&t, PEER_TS - 1);
    peer(&t, A, 1, 1, 100);
    assert_int_equal(t.delivered, 100);
    t.nb_checked = t.nb_out;
    trace_fini(&t);
}

/* ---- resets ---------------------------------------------------------------------------------------------------------- */

static void
reset_gives(void (*make)(struct trace *), uint32_t seq, int err)
{
    static struct trace t;

    trace_init(&t, NULL);
    make(&t);
    peer(&t, R, seq, 0, 0);
    assert_int_equal(t.nb_gone, 1);
    assert_int_equal(t.err, err);
    trace_fini(&t);
}

static void
reset_means(void **state)
{
    (void)state;
    reset_gives(make_established, 1, ECONNRESET);
    reset_gives(make_close_wait, 2, EPIPE);
    reset_gives(make_last_ack, 2, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(isn_is_a_clock_plus_a_secret),
        cmocka_unit_test(ports_are_hard_to_guess),
        cmocka_unit_test(ports_in_use_are_passed_over),
        cmocka_unit_test(listener_keeps_its_port),
        cmocka_unit_test(old_timestamps_are_refused),
        cmocka_unit_test(a_copy_makes_nothing_old),
        cmocka_unit_test(missing_timestamps_may_be_forgiven),
        cmocka_unit_test(timestamps_age),
        cmocka_unit_test(reset_means),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
