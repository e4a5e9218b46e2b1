/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>

#include "core/rng.h"
#include "trace.h"

/**
 * @file
 * What is plain goes by a short way through the engine (conn_input). Two domains have the same conversations, of which one must take the long way, since an empty SACK block, to which nobody
 * listens, comes with each segment: they say the same, and their connections are the same to the byte.
 */

#define ROUNDS 60
#define STEPS 400

static struct trace ways[2]; /* short, long */

static void
adjust(struct tcp_params *p)
{
    p->sack = p->timestamps = true;
    p->delack_us = 20000;
}

/** What the peer has said, relative. */
static uint32_t said, ts_val;

static void
peer_says(struct trace *t, uint16_t flags, uint32_t seq, uint32_t ack, uint32_t len)
{
    t->peer_opts = (struct tcp_options){ .has_ts = true, .ts_val = ts_val, .nb_sack = t == &ways[1] };
    peer(t, flags, seq, ack, len);
}

static void
meet(struct trace *t)
{
    trace_init(t, adjust);
    make_syn_sent(t);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460, .sack_permitted = true, .has_ts = true };
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
}

static const struct tcp_conn *
conn_of(const struct trace *t)
{
    return conn_by_id(t->d, t->id);
}

/** Of both the same; what was sent since the last look is forgotten. */
static void
assert_alike(void)
{
    const struct tcp_conn *c = conn_of(&ways[0]), *l = conn_of(&ways[1]);

    assert_int_equal(ways[0].nb_out, ways[1].nb_out);
    for (unsigned i = 0; i < ways[0].nb_out; i++) {
        const struct tcp_out *a = &ways[0].out[i], *b = &ways[1].out[i];
        assert_true(a->flags == b->flags && a->seq == b->seq && a->ack == b->ack && a->payload_len == b->payload_len);
        assert_true(a->window == b->window && a->opts.nb_sack == b->opts.nb_sack);
    }
    assert_memory_equal(c, l, sizeof(*c));
    assert_memory_equal(flow_of(c), flow_of(l), sizeof(struct tcp_flow));
    assert_int_equal(ways[0].delivered, ways[1].delivered);
    assert_int_equal(ways[0].acked, ways[1].acked);
    assert_int_equal(ways[0].events, ways[1].events);
    for (unsigned k = 0; k < 2; k++)
        ways[k].nb_out = ways[k].nb_checked = 0;
}

/** One thing that happens to both; ack: some of what is under way, often all. */
static void
step(struct rng *rng)
{
    const struct tcp_conn *c = conn_of(&ways[0]);
    uint32_t una = c->snd_una - ways[0].iss, flight = c->snd_nxt - c->snd_una, room = c->rcv_adv - c->rcv_nxt;
    uint32_t ack = una + (rng_below(rng, 2) != 0 ? flight : rng_below(rng, flight + 1));
    uint32_t n = 1 + rng_below(rng, rng_below(rng, 4) != 0 ? 100 : 1448), what = rng_below(rng, 16);
    uint32_t us = rng_below(rng, rng_below(rng, 8) != 0 ? 300 : 40000), ahead = rng_below(rng, 20) == 0 ? n : 0;
    bool more = rng_below(rng, 4) == 0, pressure = rng_below(rng, 16) == 0;

    uint32_t used = c->rcv_used;

    n = n < room ? n : room;
    ts_val += rng_below(rng, 3);
    for (unsigned k = 0; k < 2; k++) {
        struct trace *t = &ways[k];
        t->peer_more = more;
        t->env.mem_pressure = pressure;
        if (what < 7 && n > 0)
            peer_says(t, A | P, said + ahead, ack, n);
        else if (what < 10)
            peer_says(t, A, said, ack, 0);
        else if (what < 13)
            app_send(t, n + 1);
        else if (what < 14 && used > 0)
            tcp_consumed(t->d, &t->env, t->id, used);
        else
            advance(t, us);
    }
    said = conn_of(&ways[0])->rcv_nxt - ways[0].irs;
}

/** The peer's FIN, with data or without, with news or without. */
static void
part(struct rng *rng)
{
    const struct tcp_conn *c = conn_of(&ways[0]);
    uint32_t ack = (rng_below(rng, 2) != 0 ? c->snd_nxt : c->snd_una) - ways[0].iss;
    uint32_t room = c->rcv_adv - c->rcv_nxt, n = rng_below(rng, 2) != 0 ? 0 : 700;

    n = n < room ? n : room;
    for (unsigned k = 0; k < 2; k++) {
        ways[k].peer_more = ways[k].env.mem_pressure = false;
        peer_says(&ways[k], F | A, said, ack, n);
    }
    assert_alike();
    assert_true(room == 0 || state_of(&ways[0]) == TCP_ST_CLOSE_WAIT);
}

static void
both_ways_end_alike(void **state)
{
    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct rng rng;
        rng_init(&rng, 3, round);
        said = 1;
        ts_val = 0;
        meet(&ways[0]);
        meet(&ways[1]);
        for (unsigned i = 0; i < STEPS; i++) {
            step(&rng);
            assert_alike();
        }
        part(&rng);
        trace_fini(&ways[0]);
        trace_fini(&ways[1]);
    }
}

/** The window is filled to its last byte, and the FIN lies behind it: it takes no buffer, and is taken. */
static void
a_fin_behind_a_full_window(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, NULL);
    make_established(&t);
    const struct tcp_conn *c = conn_of(&t);
    while (c->rcv_adv - c->rcv_nxt > 1460)
        peer(&t, A, c->rcv_nxt - t.irs, 1, 1460);
    t.nb_checked = t.nb_out = 0;
    uint32_t rest = c->rcv_adv - c->rcv_nxt, at = c->rcv_nxt - t.irs;
    peer(&t, F | A, at, 1, rest);
    assert_int_equal(state_of(&t), TCP_ST_CLOSE_WAIT);
    expect(&t, A, 1, at + rest + 1, 0);
    trace_fini(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways_end_alike),
        cmocka_unit_test(a_fin_behind_a_full_window),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
