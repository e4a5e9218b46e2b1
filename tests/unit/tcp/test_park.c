/* SPDX-License-Identifier: BSD-3-Clause */
#include "trace.h"

#include <stdlib.h>

#include "core/rng.h"
#include "sound.h"
#include "tcp/copy.h"
#include "tcp/pack.h"

/**
 * @file
 * Connections that give their memory back while nobody speaks, and notice nothing.
 */

#define SILENCE_US 30000000ull
#define MANY 40u

/* ---- words as bytes --------------------------------------------------------------------------------------------- */

static void
words_come_back(void **state)
{
    uint32_t words[45], back[45];
    uint8_t bytes[TCP_PACK_MAX(45) + 1];
    struct rng rng;

    (void)state;
    rng_init(&rng, 1, 2);
    for (unsigned round = 0; round < 2000; round++) {
        uint32_t n = 1 + rng_below(&rng, 45);
        for (uint32_t i = 0; i < n; i++)
            words[i] = rng_below(&rng, 3) == 0 ? 0 : rng_next(&rng) >> 8 * rng_below(&rng, 4);
        bytes[TCP_PACK_MAX(n)] = 0xa5;
        assert_in_range(tcp_pack(words, n, bytes), (TCP_PACK_GROUPS(n) + 7) / 8, TCP_PACK_MAX(n));
        assert_int_equal(bytes[TCP_PACK_MAX(n)], 0xa5);
        tcp_unpack(bytes, back, n);
        assert_memory_equal(words, back, n * sizeof(words[0]));
    }
    memset(words, 0xff, sizeof(words));
    assert_int_equal(tcp_pack(words, 45, bytes), TCP_PACK_MAX(45));
    memset(words, 0, sizeof(words));
    assert_int_equal(tcp_pack(words, 45, bytes), 2);
    for (uint32_t d = 0; d < 70000; d += 7) {
        assert_in_range(tcp_pack_fold(d), 0, 140000);
        assert_int_equal(tcp_pack_unfold(tcp_pack_fold(d)), d);
        assert_int_equal(tcp_pack_unfold(tcp_pack_fold(0u - d)), 0u - d);
    }
}

/* ---- one connection --------------------------------------------------------------------------------------------- */

static void
stamped(struct tcp_params *p)
{
    p->timestamps = p->sack = p->window_scaling = true;
}

static bool
is_parked(const struct trace *t)
{
    struct tcp_conn c;
    struct tcp_flow f;

    return park_read(t->d, t->id & 0xffffff, &c, &f);
}

/* Bytes in both directions, then silence. */
static void
fall_silent(struct trace *t)
{
    app_send(t, 100);
    expect(t, A | P, 1, 1, 100);
    advance(t, 2000);
    peer(t, A | P, 1, 101, 50);
    tcp_consumed(t->d, &t->env, t->id, 50);
    advance(t, 100000);
    if (t->nb_out != t->nb_checked)
        expect(t, A, 101, 51, 0);
    assert_false(is_parked(t));
    advance(t, SILENCE_US * 5 / 4);
    expect_nothing(t);
    assert_true(is_parked(t));
    assert_domain_is_sound(t->d);
}

TRACE_TEST(the_next_segment_wakes, NULL)
{
    make_established(t);
    fall_silent(t);
    peer(t, A | P, 51, 101, 10);
    assert_false(is_parked(t));
    assert_int_equal(t->delivered, 60);
    advance(t, 100000);
    expect(t, A, 101, 61, 0);
    advance(t, 2 * SILENCE_US);
    assert_true(is_parked(t));
    assert_int_equal(t->ctr.v[CTR_TCP_PARKED], 2);
}

TRACE_TEST(the_next_call_wakes, NULL)
{
    make_accepted(t);
    fall_silent(t);
    app_send(t, 10);
    assert_false(is_parked(t));
    expect(t, A | P, 101, 51, 10);
    advance(t, 1000);
    peer(t, A, 51, 111, 0);
    advance(t, 2 * SILENCE_US);
    assert_true(is_parked(t));
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_NODELAY, 1), 0);
    assert_false(is_parked(t));
    advance(t, 2 * SILENCE_US);
    tcp_shutdown(t->d, &t->env, t->id);
    expect(t, F | A, 111, 51, 0);
}

TRACE_TEST(its_end_needs_no_other_call, NULL)
{
    make_established(t);
    fall_silent(t);
    tcp_abort(t->d, &t->env, t->id);
    expect(t, R | A, 101, 51, 0);
    t->id = 0;
}

TRACE_TEST(a_reset_finds_it, NULL)
{
    make_established(t);
    fall_silent(t);
    peer(t, R, 51, 0, 0);
    assert_int_equal(t->nb_gone, 1);
}

TRACE_TEST(keep_alive_goes_on, NULL)
{
    make_established(t);
    tcp_set_option(t->d, &t->env, t->id, TCP_OPT_KEEPIDLE, 100);
    tcp_set_option(t->d, &t->env, t->id, TCP_OPT_KEEPALIVE, 1);
    fall_silent(t);
    advance(t, 70000000);
    assert_false(is_parked(t));
    expect(t, A, 100, 51, 0);
    peer(t, A, 51, 101, 0);
    advance(t, 2 * SILENCE_US);
    assert_true(is_parked(t));
}

/* An id that is another's, or was this one's before, wakes nobody. */
TRACE_TEST(others_ids_wake_nobody, NULL)
{
    make_established(t);
    fall_silent(t);
    tcp_send(t->d, &t->env, t->id + (1u << 24), 10, 0);
    tcp_send(t->d, &t->env, 3, 10, 0);
    tcp_send(t->d, &t->env, 0xffffff, 10, 0);
    assert_true(is_parked(t));
    expect_nothing(t);
}

/* Whoever looks sees what was there before, and wakes nobody. */
TRACE_TEST(looking_wakes_nobody, stamped)
{
    struct tcp_conn_info before, after, walked[2];
    uint64_t cursor = 0;

    make_established(t);
    app_send(t, 3000);
    t->nb_checked = t->nb_out;
    advance(t, 2000);
    peer(t, A, 1, 3001, 0);
    advance(t, 1000000);
    assert_true(tcp_info(t->d, t->id, &before));
    advance(t, SILENCE_US * 5 / 4);
    assert_true(is_parked(t));
    assert_true(tcp_info(t->d, t->id, &after));
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(tcp_walk(t->d, &cursor, walked, 2), 1);
    assert_memory_equal(&walked[0], &before, sizeof(before));
    assert_false(tcp_info(t->d, t->id + (1u << 24), &after));
    assert_true(is_parked(t));
    app_send(t, 1);
    assert_true(tcp_info(t->d, t->id, &after));
    assert_int_equal(after.bytes_acked, before.bytes_acked);
    assert_int_equal(after.min_rtt_us, before.min_rtt_us);
    expect(t, A | P, 3001, 1, 1);
}

/* ---- who does not park ------------------------------------------------------------------------------------------ */

TRACE_TEST(what_waits_stays, NULL)
{
    make_established(t);
    peer(t, A | P, 101, 1, 50); /* behind a gap */
    expect(t, A, 1, 1, 0);
    advance(t, 2 * SILENCE_US);
    assert_false(is_parked(t));
    peer(t, A | P, 1, 1, 100);
    expect(t, A, 1, 151, 0);
    advance(t, 2 * SILENCE_US);
    assert_true(is_parked(t));
    peer(t, F | A, 151, 1, 0);
    advance(t, 100000);
    expect(t, A, 1, 152, 0);
    advance(t, 2 * SILENCE_US);
    assert_false(is_parked(t)); /* CLOSE-WAIT */
    assert_int_equal(tcp_next_us(t->d, t->env.now_us), UINT64_MAX); /* and never will be, so nobody looks */
}

/** Its bytes are acknowledged, but its turn at a full port has not come. */
TRACE_TEST(who_waits_for_the_port_stays, NULL)
{
    make_established(t);
    tcp_waiters_add(&t->d->waiters, domain_waiters(t->d), t->id & 0xffffff);
    t->env.tx_full = true;
    advance(t, 2 * SILENCE_US);
    assert_false(is_parked(t));
    t->env.tx_full = false;
    advance(t, 2 * SILENCE_US);
    assert_true(is_parked(t));
}

static void
never(struct tcp_params *p)
{
    p->park_us = 0;
}

TRACE_TEST(none_parks_where_it_is_off, never)
{
    make_established(t);
    advance(t, 100 * SILENCE_US);
    assert_false(is_parked(t));
    assert_int_equal(tcp_next_us(t->d, t->env.now_us), UINT64_MAX);
}

TRACE_TEST(who_waits_for_accept_stays, NULL)
{
    struct tcp_tuple remote;

    app_listen(t, 4);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    peer(t, A, 1, 1, 0);
    advance(t, 2 * SILENCE_US);
    assert_int_equal(t->ctr.v[CTR_TCP_PARKED], 0);
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    advance(t, 2 * SILENCE_US);
    assert_true(is_parked(t));
}

/* New parameters find everybody awake. */
TRACE_TEST(parameters_may_change, NULL)
{
    make_established(t);
    fall_silent(t);
    t->params.rcv_buf_bytes *= 2;
    t->params.rto_min_us *= 2;
    assert_int_equal(tcp_set_params(t->d, &t->params), 0);
    assert_false(is_parked(t));
    app_send(t, 10);
    expect(t, A | P, 101, 51, 10);
}

/* ---- many ------------------------------------------------------------------------------------------------------- */

static struct {
    const struct tcp_domain *d;
    unsigned pages;
} given;

static void
on_unused(void *ctx, void *at, size_t bytes)
{
    static const char zero[TCP_PAGE_BYTES];

    (void)ctx;
    assert_int_equal(((char *)at - (const char *)given.d) % TCP_PAGE_BYTES, 0);
    assert_int_equal(bytes, TCP_PAGE_BYTES);
    assert_memory_equal(at, zero, bytes);
    given.pages++;
}

static void
room_for_many(struct tcp_params *p)
{
    p->max_conns = MANY;
    stamped(p);
}

static void
make_many(struct trace *t, tcp_id id[MANY])
{
    for (unsigned i = 0; i < MANY; i++) {
        t->tuple.remote_port = (uint16_t)(1000 + i);
        t->tuple.local_port = 0;
        assert_int_equal(tcp_connect(t->d, &t->env, &t->tuple, TRACE_MSS, NULL, TRACE_USER, &id[i]), 0);
        expect(t, S, 0, 0, 0);
        peer(t, S | A, 0, 1, 0);
        expect(t, A, 1, 1, 0);
    }
    t->nb_out = t->nb_checked = 0;
}

static void
end_many(struct trace *t, const tcp_id id[MANY])
{
    for (unsigned i = 0; i < MANY; i++)
        tcp_abort(t->d, &t->env, id[i]);
    t->nb_checked = t->nb_out;
}

TRACE_TEST(pages_of_the_parked_go_back, room_for_many)
{
    tcp_id id[MANY];

    t->sink.unused = on_unused;
    given.d = t->d;
    given.pages = 0;
    make_many(t, id);
    advance(t, 2 * SILENCE_US);
    assert_int_equal(t->ctr.v[CTR_TCP_PARKED], MANY);
    /* All but those that the first, unused entry or nothing lies in. */
    assert_int_equal(given.pages, (MANY + 1) * sizeof(union tcp_slot) / TCP_PAGE_BYTES - 1);
    /* A neighbour that speaks keeps its page. */
    tcp_send(t->d, &t->env, id[20], 1, 0);
    tcp_set_option(t->d, &t->env, id[21], TCP_OPT_NODELAY, 1);
    unsigned before = given.pages;
    advance(t, SILENCE_US);
    assert_int_equal(given.pages, before);
    end_many(t, id);
}

/* Behind the hand of the round that is under way. */
TRACE_TEST(who_wakes_amid_a_round_parks_again, room_for_many)
{
    tcp_id id[MANY];
    uint64_t end;

    make_many(t, id);
    for (end = t->env.now_us + 2 * SILENCE_US; t->ctr.v[CTR_TCP_PARKED] == 0;)
        advance(t, tcp_next_us(t->d, t->env.now_us) - t->env.now_us);
    assert_in_range(t->ctr.v[CTR_TCP_PARKED], 1, MANY - 1);
    tcp_set_option(t->d, &t->env, id[0], TCP_OPT_NODELAY, 1);
    advance(t, end - t->env.now_us);
    assert_int_equal(t->ctr.v[CTR_TCP_PARKED], MANY + 1);
    assert_int_equal(tcp_next_us(t->d, t->env.now_us), UINT64_MAX);
    end_many(t, id);
}

/* A copy of the domain goes on as the original does: parked entries hold no pointer either. */
TRACE_TEST(a_copy_wakes_alike, room_for_many)
{
    struct tcp_domain *copy = aligned_alloc(64, t->bytes);
    tcp_id id[MANY];
    struct tcp_env env = t->env;

    assert_non_null(copy);
    memset(copy, 0, t->bytes);
    assert_int_equal(tcp_domain_init(copy, &t->params, t->env.now_us), 0);
    make_many(t, id);
    advance(t, 2 * SILENCE_US);
    tcp_domain_copy(copy, t->d);
    assert_true(tcp_domain_equal(copy, t->d));
    for (unsigned i = 0; i < MANY; i += 3) {
        tcp_send(t->d, &t->env, id[i], 10 + i, 0);
        env.now_us = t->env.now_us;
        tcp_send(copy, &env, id[i], 10 + i, 0);
    }
    t->nb_checked = t->nb_out;
    assert_true(tcp_domain_equal(copy, t->d));
    assert_int_equal(tcp_domain_digest(copy), tcp_domain_digest(t->d));
    assert_domain_is_sound(copy);
    free(copy);
    end_many(t, id);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_come_back),
        cmocka_unit_test(the_next_segment_wakes),
        cmocka_unit_test(the_next_call_wakes),
        cmocka_unit_test(its_end_needs_no_other_call),
        cmocka_unit_test(a_reset_finds_it),
        cmocka_unit_test(keep_alive_goes_on),
        cmocka_unit_test(others_ids_wake_nobody),
        cmocka_unit_test(looking_wakes_nobody),
        cmocka_unit_test(what_waits_stays),
        cmocka_unit_test(who_waits_for_the_port_stays),
        cmocka_unit_test(none_parks_where_it_is_off),
        cmocka_unit_test(who_waits_for_accept_stays),
        cmocka_unit_test(parameters_may_change),
        cmocka_unit_test(pages_of_the_parked_go_back),
        cmocka_unit_test(who_wakes_amid_a_round_parks_again),
        cmocka_unit_test(a_copy_wakes_alike),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
