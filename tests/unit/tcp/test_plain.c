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

/** Of bare ACKs: how often the answer came when the buffer had been given back. That is the short way's order alone. */
static unsigned given_back_first[2];
static bool is_bare; /**< one is on its way in */

static void (*emit)(void *ctx, const struct tcp_out *out, uint64_t now_us);

static void
on_emit(void *ctx, const struct tcp_out *out, uint64_t now_us)
{
    const struct trace *t = ctx;

    given_back_first[t - ways] += is_bare && t->buf_state[t->nb_buf - 1] == 2;
    emit(ctx, out, now_us);
}

static void
adjust(struct tcp_params *p)
{
    p->sack = p->timestamps = true;
    p->delack_us = 20000;
}

/** What the peer has said, relative; its clock, and ours as it has seen it. */
static uint32_t said, ts_val, ts_ecr;

static void
peer_says(struct trace *t, uint16_t flags, uint32_t seq, uint32_t ack, uint32_t len)
{
    t->peer_opts = (struct tcp_options){ .has_ts = true, .ts_val = ts_val, .ts_ecr = ts_ecr, .nb_sack = t == &ways[1] };
    is_bare = flags == A && len == 0;
    peer(t, flags, seq, ack, len);
    is_bare = false;
}

/** By our SYN, or by the peer's: then nobody has accepted it yet. */
static void
meet(struct trace *t, bool passive)
{
    const struct tcp_options o = { .has_mss = true, .mss = 1460, .sack_permitted = true, .has_ts = true };

    trace_init(t, adjust);
    emit = t->sink.emit;
    t->sink.emit = on_emit;
    if (passive) {
        app_listen(t, 4);
        t->peer_opts = o;
        peer(t, S, 0, 0, 0);
        expect(t, S | A, 0, 1, 0);
        t->peer_opts = (struct tcp_options){ .has_ts = true };
        peer(t, A, 1, 1, 0);
        assert_int_equal(t->nb_accept, 1);
    } else {
        make_syn_sent(t);
        t->peer_opts = o;
        peer(t, S | A, 0, 1, 0);
        expect(t, A, 1, 1, 0);
        assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
    }
}

/** The domain's only one. Who has not accepted it knows no name of it, but its slot: the one behind the listener's. */
static const struct tcp_conn *
conn_of(const struct trace *t)
{
    return t->id != 0 ? conn_by_id(t->d, t->id) : conn_at(t->d, 2);
}

static void
accept_one(struct trace *t)
{
    const struct tcp_conn *c = conn_of(t);
    struct tcp_tuple remote;

    assert_true((c->flags & CONN_F_PENDING) != 0);
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_ptr_equal(conn_of(t), c);
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
        assert_true(a->opts.ts_val == b->opts.ts_val && a->opts.ts_ecr == b->opts.ts_ecr);
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

    if (rng_below(rng, 8) == 0)
        us = 400000; /* what is under way is sent again, perhaps in vain */
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
        else if (what < 15 && n > 0 && n < said)
            peer_says(t, A | P, said - n, ack, n);
        else if (us < 20 && t->id == 0)
            accept_one(t);
        else
            advance(t, us);
    }
    said = conn_of(&ways[0])->rcv_nxt - ways[0].irs;
    /* Now and then the peer has not yet seen our last word: what it acknowledges by an older one was not sent in vain, but again. */
    if (ways[0].nb_out > 0 && rng_below(rng, 4) != 0)
        ts_ecr = ways[0].out[ways[0].nb_out - 1].opts.ts_val;
}

/** The peer's FIN, with data or without, with news or without. */
static void
part(struct rng *rng)
{
    const struct tcp_conn *c = conn_of(&ways[0]);
    uint32_t ack = (rng_below(rng, 2) != 0 ? c->snd_nxt : c->snd_una) - ways[0].iss;
    uint32_t room = c->rcv_adv - c->rcv_nxt, n = rng_below(rng, 2) != 0 ? 0 : 700;

    n = n < room ? n : room;
    if (c->flags & CONN_F_PENDING)
        n = 0; /* there may be no place for more before the accept, and its FIN would have to come again */
    for (unsigned k = 0; k < 2; k++) {
        ways[k].peer_more = ways[k].env.mem_pressure = false;
        peer_says(&ways[k], F | A, said, ack, n);
    }
    assert_alike();
    assert_true(room == 0 || c->state == TCP_ST_CLOSE_WAIT);
}

static void
both_ways_end_alike(void **state)
{
    uint64_t needless = 0;

    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct rng rng;
        rng_init(&rng, 3, round);
        said = 1;
        ts_val = ts_ecr = 0;
        for (unsigned k = 0; k < 2; k++) {
            meet(&ways[k], round % 3 == 0);
            ways[k].nb_out = ways[k].nb_checked = 0;
        }
        for (unsigned i = 0; i < STEPS; i++) {
            step(&rng);
            assert_alike();
        }
        part(&rng);
        assert_memory_equal(&ways[0].ctr, &ways[1].ctr, sizeof(ways[0].ctr));
        needless += ways[0].ctr.v[CTR_TCP_SPURIOUS_RETRANS];
        trace_fini(&ways[0]);
        trace_fini(&ways[1]);
    }
    assert_true(needless > 0);
    assert_true(given_back_first[0] > ROUNDS);
    assert_int_equal(given_back_first[1], 0);
}

/** A FIN that comes to a shut window takes no buffer, and is taken; whoever is that much ahead of the reader is told at once. */
static void
a_fin_behind_a_full_window(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, NULL);
    make_established(&t);
    const struct tcp_conn *c = conn_of(&t);
    while (c->rcv_adv != c->rcv_nxt) {
        uint32_t room = c->rcv_adv - c->rcv_nxt;
        peer(&t, A, c->rcv_nxt - t.irs, 1, room < 1460 ? room : 1460);
    }
    advance(&t, 50000);
    assert_true(c->rcv_adv == c->rcv_nxt && c->rcv_acked == c->rcv_nxt);
    t.nb_checked = t.nb_out;
    uint32_t at = c->rcv_nxt - t.irs;
    peer(&t, F | A, at, 1, 0);
    assert_int_equal(state_of(&t), TCP_ST_CLOSE_WAIT);
    expect(&t, A, 1, at + 1, 0);
    trace_fini(&t);
}

static void
adjust_sack(struct tcp_params *p)
{
    p->sack = true;
}

/** 100 bytes, and the same again as the beginning of a burst: its answer, which tells of that, waits for the rest. */
static void
owe_an_answer(struct trace *t)
{
    make_established(t);
    peer(t, A, 1, 1, 100);
    expect(t, A, 1, 101, 0);
    t->peer_more = true;
    peer(t, A, 1, 1, 100);
    t->peer_more = false;
    expect_nothing(t);
}

/** Though data of ours has acknowledged it meanwhile: what came twice is told on an ACK of its own. */
TRACE_TEST(a_plain_segment_ends_a_burst_that_is_owed_for, adjust_sack)
{
    owe_an_answer(t);
    app_send(t, 50);
    expect(t, A | P, 1, 101, 50);
    peer(t, A, 101, 51, 100);
    const struct tcp_out *o = expect(t, A, 51, 201, 0);
    assert_int_equal(o->opts.nb_sack, 1);
    assert_int_equal(o->opts.sack[0].start, t->irs + 1);
    assert_int_equal(o->opts.sack[0].end, t->irs + 101);
}

/** The end of the burst went astray: with a plain segment of another connection it is over, and what it owed is not told by a later one. */
TRACE_TEST(a_plain_segment_of_another_connection_ends_a_burst, adjust_sack)
{
    struct trace first;

    make_established(t);
    peer(t, A, 1, 1, 100);
    expect(t, A, 1, 101, 0);
    first = *t;
    t->events = 0;
    t->tuple.remote_port++;
    owe_an_answer(t);
    tcp_id second = t->id;
    tcp_seq iss = t->iss;
    struct tcp_tuple tuple = t->tuple;

    t->id = first.id, t->iss = first.iss, t->tuple = first.tuple;
    peer(t, A, 101, 1, 0);
    t->id = second, t->iss = iss, t->tuple = tuple;
    peer(t, A, 101, 1, 100);
    assert_int_equal(expect(t, A, 1, 201, 0)->opts.nb_sack, 0);
    tcp_abort(t->d, &t->env, first.id);
    t->nb_checked = t->nb_out;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways_end_alike),
        cmocka_unit_test(a_fin_behind_a_full_window),
        cmocka_unit_test(a_plain_segment_ends_a_burst_that_is_owed_for),
        cmocka_unit_test(a_plain_segment_of_another_connection_ends_a_burst),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
