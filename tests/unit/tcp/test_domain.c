/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "trace.h"

static void
all_options(struct tcp_params *p)
{
    p->timestamps = p->sack = p->window_scaling = true;
}

static void
sack_only(struct tcp_params *p)
{
    p->sack = true;
}

TRACE_TEST(parameters_are_checked, NULL)
{
    struct tcp_params p;

    tcp_params_default(&p);
    p.port_min = 2000;
    p.port_max = 1999;
    assert_int_equal(tcp_domain_init(t->d, &p, 0), -EINVAL);
    tcp_params_default(&p);
    p.max_conns = 0;
    assert_int_equal(tcp_domain_init(t->d, &p, 0), -EINVAL);
    tcp_params_default(&p);
    assert_true(tcp_domain_bytes(&p) > p.max_conns * sizeof(struct tcp_conn));
}

/** A random segment, most of its fields near what the connection expects. */
static void
hostile_segment(struct trace *t, struct rng *rng)
{
    static const uint8_t flags[] = { A, A, A, A | P, A | F, R, R | A, S, S | A, F, 0, A | S | F, 0xff };
    uint32_t seq = (uint32_t)(rng_next(rng) % 6000) - 500;
    uint32_t ack = (uint32_t)(rng_next(rng) % 9000) - 500;
    uint32_t len = rng_next(rng) % 2 ? (uint32_t)(rng_next(rng) % 1460) : 0;
    uint8_t f = flags[rng_next(rng) % sizeof(flags)];

    if ((f & (R | S | F)) != 0 && rng_next(rng) % 8 != 0)
        f = A;
    if (rng_next(rng) % 16 == 0)
        seq = (uint32_t)rng_next(rng);
    t->peer_window = (uint16_t)(rng_next(rng) % 3 == 0 ? rng_next(rng) % 4 : rng_next(rng));
    t->peer_opts.has_ts = t->params.timestamps;
    t->peer_opts.ts_val = (uint32_t)(t->env.now_us / 1000 + rng_next(rng) % 4);
    t->peer_opts.ts_ecr = (uint32_t)rng_next(rng);
    t->peer_opts.nb_sack = (uint8_t)(rng_next(rng) % 5);
    for (unsigned i = 0; i < t->peer_opts.nb_sack; i++) {
        t->peer_opts.sack[i].start = t->iss + (uint32_t)(rng_next(rng) % 12000) - 1000;
        t->peer_opts.sack[i].end = t->peer_opts.sack[i].start + (uint32_t)(rng_next(rng) % 4000) - 100;
    }
    peer(t, f, seq, ack, len);
}

static void
hostile_step(struct trace *t, struct rng *rng)
{
    struct tcp_tuple remote;

    t->env.mem_pressure = rng_next(rng) % 8 == 0;
    switch (rng_next(rng) % 8) {
    case 0:
        if (t->id != 0 && t->nb_gone == 0)
            app_send(t, (uint32_t)(rng_next(rng) % 5000));
        break;
    case 1:
        if (t->id != 0 && t->nb_gone == 0)
            tcp_consumed(t->d, &t->env, t->id, (uint32_t)(rng_next(rng) % 3000));
        break;
    case 2:
        advance(t, rng_next(rng) % 300000);
        break;
    case 3:
        if (t->id == 0)
            t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
        else if (t->nb_gone == 0 && rng_next(rng) % 16 == 0)
            tcp_shutdown(t->d, &t->env, t->id);
        break;
    default:
        hostile_segment(t, rng);
        break;
    }
    t->nb_out = t->nb_checked = 0;
}

static void
hostile_begin(struct trace *t, uint64_t seed, struct rng *rng)
{
    rng_init(rng, seed, 1);
    trace_init(t, seed % 3 == 0 ? NULL : seed % 3 == 1 ? sack_only : all_options);
    app_listen(t, 4);
    t->peer_opts = (struct tcp_options){ .has_mss = true,
                                         .mss = (uint16_t)rng_next(rng),
                                         .sack_permitted = true,
                                         .has_ts = true,
                                         .ts_val = 5000,
                                         .has_wscale = true,
                                         .wscale = 7 };
    peer(t, S, 0, 0, 0);
    t->nb_checked = t->nb_out;
    t->peer_opts.has_ts = true;
    t->peer_opts.ts_val = 5000;
    peer(t, A, 1, 1, 0);
    t->nb_checked = t->nb_out = 0;
}

/** Lies in every field, in every state that they lead to: nothing may break, leak or be given back twice. */
static void
lies_change_nothing(void **state)
{
    static struct trace t;
    struct rng rng;

    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        hostile_begin(&t, seed, &rng);
        for (unsigned i = 0; i < 300; i++)
            hostile_step(&t, &rng);
        trace_fini(&t);
    }
}

/** Replicas that see the same events are equal to the byte, padding and free entries included. */
static void
replicas_are_equal(void **state)
{
    static struct trace a, b;
    struct rng ra, rb;

    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        hostile_begin(&a, seed, &ra);
        hostile_begin(&b, seed, &rb);
        for (unsigned i = 0; i < 200; i++) {
            hostile_step(&a, &ra);
            hostile_step(&b, &rb);
        }
        assert_int_equal(a.bytes, b.bytes);
        assert_memory_equal(a.d, b.d, a.bytes);
        trace_fini(&a);
        trace_fini(&b);
    }
}

/** The arena holds no pointer: moved elsewhere it goes on as if nothing had happened. */
TRACE_TEST(domain_can_be_moved, all_options)
{
    make_established(t);
    app_send(t, 100);
    expect(t, A | P, 1, 1, 100);
    struct tcp_domain *moved = aligned_alloc(64, t->bytes);
    assert_non_null(moved);
    memcpy(moved, t->d, t->bytes);
    memset(t->d, 0xa5, t->bytes);
    free(t->d);
    t->d = moved;
    advance(t, 1100000);
    expect(t, A | P, 1, 1, 100); /* its timer came along */
    t->nb_checked = t->nb_out;
    peer(t, A, 1, 101, 0);
    assert_int_equal(t->acked, 100);
}

TRACE_TEST(timewait_pool_recycles_the_oldest, NULL)
{
    struct tcp_usage u;

    for (unsigned i = 0; i < 5; i++) {
        t->events = 0;
        t->nb_gone = 0;
        make_time_wait(t);
    }
    tcp_usage(t->d, &u);
    assert_int_equal(u.time_wait, t->params.max_time_wait);
}

/** RFC 6191: a newer SYN takes a TIME-WAIT tuple over at once; an older one does not. */
TRACE_TEST(newer_syn_reuses_timewait, NULL)
{
    make_accepted(t);
    tcp_close(t->d, &t->env, t->id, false);
    expect(t, F | A, 1, 1, 0);
    peer(t, F | A, 1, 2, 0);
    expect(t, A, 2, 2, 0);
    assert_int_equal(t->nb_gone, 1);
    peer(t, S, 0, 0, 0);
    expect(t, A, 2, 2, 0); /* old: answered as a stray */
    tcp_seq old_iss = t->iss;
    t->irs += 1000;
    peer(t, S | F, 0, 0, 0);
    expect(t, A, 2, (tcp_seq)(2 - 1000), 0); /* newer, but no listener takes it: the tuple stays protected */
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    assert_int_equal(t->iss - old_iss, 65537 + 2); /* beyond all that the old connection used */
    assert_int_equal(t->ctr.v[CTR_TCP_TW_REUSED], 1);
}

static void
ports_follow_the_rules(void **state)
{
    static struct trace t;
    struct tcp_sockopts reuse = { .set = 1u << TCP_OPT_REUSEADDR };
    struct tcp_sockopts share = { .set = 1u << TCP_OPT_REUSEPORT };
    struct ip_addr any = ip_addr_v4(0);
    uint16_t port;
    tcp_id id[3];

    (void)state;
    reuse.value[TCP_OPT_REUSEADDR] = share.value[TCP_OPT_REUSEPORT] = 1;
    trace_init(&t, NULL);
    assert_int_equal(tcp_bind(t.d, &any, 80, NULL, 11, &port), 0);
    assert_int_equal(tcp_bind(t.d, &t.tuple.local, 80, &reuse, 12, &port), -EADDRINUSE);
    tcp_unbind(t.d, &any, 80, 11);
    assert_int_equal(tcp_bind(t.d, &any, 80, &reuse, 11, &port), 0);
    assert_int_equal(tcp_bind(t.d, &any, 80, &reuse, 12, &port), 0);
    assert_int_equal(tcp_listen(t.d, &t.env, &any, 80, 1, &reuse, 11, &id[0]), 0);
    assert_int_equal(tcp_listen(t.d, &t.env, &any, 80, 1, &reuse, 12, &id[1]), -EADDRINUSE);
    tcp_unbind(t.d, &any, 80, 12);
    tcp_abort(t.d, &t.env, id[0]);
    assert_int_equal(tcp_listen(t.d, &t.env, &any, 80, 1, &share, 13, &id[0]), 0);
    assert_int_equal(tcp_listen(t.d, &t.env, &any, 80, 1, &share, 14, &id[1]), 0);
    assert_int_equal(tcp_listen(t.d, &t.env, &any, 80, 1, NULL, 15, &id[2]), -EADDRINUSE);
    tcp_abort(t.d, &t.env, id[0]);
    tcp_abort(t.d, &t.env, id[1]);
    assert_int_equal(tcp_bind(t.d, &any, 0, NULL, 16, &port), 0);
    assert_true(port >= t.params.port_min && port <= t.params.port_max);
    tcp_unbind(t.d, &any, port, 16);
    trace_fini(&t);
}

/** Three listeners share a port: connections spread over all of them, evenly. */
static void
reuseport_spreads(void **state)
{
    static struct trace t;
    struct tcp_sockopts share = { .set = 1u << TCP_OPT_REUSEPORT };
    struct ip_addr any = ip_addr_v4(0);
    unsigned hits[9] = { 0 };
    tcp_id id[3];

    (void)state;
    share.value[TCP_OPT_REUSEPORT] = 1;
    trace_init(&t, NULL);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(tcp_listen(t.d, &t.env, &any, 80, 1, &share, 20 + i, &id[i]), 0);
    t.tuple.local_port = 80;
    for (unsigned i = 0; i < 3000; i++) {
        t.tuple.remote_port = (uint16_t)(1024 + i);
        hits[port_find_listener(t.d, &t.tuple) & 7]++;
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_in_range(hits[id[i] & 7], 800, 1200);
        tcp_abort(t.d, &t.env, id[i]);
    }
    trace_fini(&t);
}

/** SACK says what is missing: exactly that is sent again, and blocks come out as RFC 2018 wants them. */
TRACE_TEST(sack_recovery, sack_only)
{
    make_established(t);
    /* A path of 10 ms: reordering is waited for, for a quarter of it. */
    tcp_rtt_init(&conn_by_id(t->d, t->id)->rtt, 1000000);
    tcp_rtt_sample(&conn_by_id(t->d, t->id)->rtt, 10000, 200000, 60000000);
    app_send(t, 1460 * 8);
    t->nb_checked = t->nb_out;
    advance(t, 10000);
    t->peer_opts.nb_sack = 1;
    t->peer_opts.sack[0] = (struct tcp_sack_block){ t->iss + 1 + 1460, t->iss + 1 + 1460 * 3 };
    peer(t, A, 1, 1, 0);
    expect_nothing(t);
    t->peer_opts.nb_sack = 2;
    t->peer_opts.sack[0] = (struct tcp_sack_block){ t->iss + 1 + 1460 * 4, t->iss + 1 + 1460 * 8 };
    t->peer_opts.sack[1] = (struct tcp_sack_block){ t->iss + 1 + 1460, t->iss + 1 + 1460 * 3 };
    peer(t, A, 1, 1, 0);
    expect(t, A, 1, 1, 1460);
    expect(t, A, 1 + 1460 * 3, 1, 1460);
    expect_nothing(t);
    peer(t, A, 1, 1 + 1460 * 8, 0);

    peer(t, A, 2001, 1 + 1460 * 8, 100);
    const struct tcp_out *o = expect(t, A, 1 + 1460 * 8, 1, 0);
    assert_int_equal(o->opts.nb_sack, 1);
    assert_int_equal(o->opts.sack[0].start - t->irs, 2001);
    peer(t, A, 1001, 1 + 1460 * 8, 100);
    o = expect(t, A, 1 + 1460 * 8, 1, 0);
    assert_int_equal(o->opts.nb_sack, 2);
    assert_int_equal(o->opts.sack[0].start - t->irs, 1001);
    assert_int_equal(o->opts.sack[0].end - t->irs, 1101);
    assert_int_equal(o->opts.sack[1].end - t->irs, 2101);
    peer(t, A, 1001, 1 + 1460 * 8, 100); /* RFC 2883: a duplicate is reported first */
    o = expect(t, A, 1 + 1460 * 8, 1, 0);
    assert_int_equal(o->opts.nb_sack, 3);
    assert_int_equal(o->opts.sack[0].start - t->irs, 1001);
}

TRACE_TEST(icmp_is_checked, NULL)
{
    make_established(t);
    app_send(t, 1460);
    expect(t, A | P, 1, 1, 1460);
    tcp_unreachable(t->d, &t->env, &t->tuple, t->iss + 5000, EMSGSIZE, false, 1040); /* forged: not under way */
    tcp_unreachable(t->d, &t->env, &t->tuple, t->iss + 1, ECONNREFUSED, true, 0);
    expect_nothing(t);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
    tcp_unreachable(t->d, &t->env, &t->tuple, t->iss + 1, EMSGSIZE, false, 1040);
    expect(t, A, 1, 1, 1000);
    expect(t, A | P, 1001, 1, 460);
}

/** A guess that is right where nobody collides; for what is unknown there is none. */
TRACE_TEST(prefetching_finds_the_user, NULL)
{
    struct tcp_in in = { 0 };

    make_established(t);
    in.tuple = t->tuple;
    tcp_prefetch(t->d, &in, NULL);
    tcp_prefetch_conn(t->d, &in);
    assert_int_equal(tcp_prefetch_rest(t->d, &in), TRACE_USER);
    assert_false(tcp_prefetch_pays(t->d));
    in.tuple.local_port ^= 1;
    tcp_prefetch(t->d, &in, NULL);
    tcp_prefetch_conn(t->d, &in);
    assert_int_equal(tcp_prefetch_rest(t->d, &in), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_checked),
        cmocka_unit_test(lies_change_nothing),
        cmocka_unit_test(replicas_are_equal),
        cmocka_unit_test(domain_can_be_moved),
        cmocka_unit_test(timewait_pool_recycles_the_oldest),
        cmocka_unit_test(newer_syn_reuses_timewait),
        cmocka_unit_test(ports_follow_the_rules),
        cmocka_unit_test(reuseport_spreads),
        cmocka_unit_test(sack_recovery),
        cmocka_unit_test(icmp_is_checked),
        cmocka_unit_test(prefetching_finds_the_user),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
