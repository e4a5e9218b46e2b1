/* SPDX-License-Identifier: BSD-3-Clause */
#include "trace.h"

#include <string.h>

#include "core/rng.h"
#include "sound.h"

/**
 * @file
 * Two domains live through the same: one parks its connections (tcp/park.c), its twin never does. What they send and what they tell must be the same, segment by segment.
 */

#define ROUNDS 300u
#define STEPS 60u
#define PARK_US 3000000u
#define TRIP_US 5000u
#define TRIPS_MAX 30u

struct twin {
    struct trace t;
    uint32_t peer_sent, peer_received; /**< relative sequence numbers: next to send, next expected */
    uint32_t peer_ts; /**< newest of the twin's timestamps */
};

static struct twin twins[2]; /* the first one parks */

/* What a round is about; adjust reads it. */
static struct {
    bool parks, timestamps, sack, pacing, keepalive;
    uint8_t congestion;
    uint32_t loss_percent;
} world;

static void
adjust(struct tcp_params *p)
{
    p->window_scaling = true;
    p->timestamps = world.timestamps;
    p->sack = world.sack;
    p->pacing = world.pacing;
    p->congestion = world.congestion;
    p->park_us = world.parks ? PARK_US : 0;
    p->rcv_buf_max_bytes = p->rcv_buf_bytes; /* a silence ends a round of tuning */
}

/* ---- the peer ----------------------------------------------------------------------------------------------------- */

static void
say(struct twin *w, uint16_t flags, uint32_t n_bytes)
{
    if (world.timestamps) {
        w->t.peer_opts.has_ts = true;
        w->t.peer_opts.ts_val = (uint32_t)(w->t.env.now_us / 1000);
        w->t.peer_opts.ts_ecr = w->peer_ts;
    }
    peer(&w->t, flags, w->peer_sent, w->peer_received, n_bytes);
    w->peer_sent += n_bytes;
}

/* It takes what comes in order, answers each segment with data, and loses some. */
static void
hear(struct twin *w, struct rng *rng)
{
    unsigned n = w->t.nb_out;

    for (unsigned i = 0; i < n; i++) {
        const struct tcp_out *o = &w->t.out[i];
        if (o->opts.has_ts)
            w->peer_ts = o->opts.ts_val;
        if (o->payload_len == 0 || rng_below(rng, 100) < world.loss_percent)
            continue;
        if (o->seq - w->t.iss == w->peer_received)
            w->peer_received += o->payload_len;
        say(w, A, 0);
    }
    memmove(w->t.out, &w->t.out[n], (w->t.nb_out - n) * sizeof(w->t.out[0]));
    w->t.nb_out -= n;
}

static void
meet(struct twin *w)
{
    assert_int_equal(tcp_connect(w->t.d, &w->t.env, &w->t.tuple, TRACE_MSS, NULL, TRACE_USER, &w->t.id), 0);
    w->peer_ts = w->t.out[0].opts.ts_val;
    w->peer_sent = 0;
    w->peer_received = 1;
    w->t.env.now_us += TRIP_US;
    w->t.peer_opts = (struct tcp_options){
        .has_mss = true, .mss = TRACE_MSS, .has_wscale = true, .wscale = 3, .sack_permitted = world.sack
    };
    say(w, S | A, 0);
    w->peer_sent = 1;
    w->t.nb_out = w->t.nb_checked = 0;
    if (world.keepalive) {
        tcp_set_option(w->t.d, &w->t.env, w->t.id, TCP_OPT_KEEPIDLE, 7);
        tcp_set_option(w->t.d, &w->t.env, w->t.id, TCP_OPT_KEEPALIVE, 1);
    }
}

/* ---- comparing ------------------------------------------------------------------------------------------------------ */

static void
assert_same_segments(void)
{
    const struct trace *x = &twins[0].t, *y = &twins[1].t;

    assert_int_equal(x->nb_out, y->nb_out);
    for (unsigned i = 0; i < x->nb_out; i++) {
        const struct tcp_out *a = &x->out[i], *b = &y->out[i];
        assert_int_equal(a->seq, b->seq);
        assert_int_equal(a->ack, b->ack);
        assert_int_equal(a->payload_pos, b->payload_pos);
        assert_int_equal(a->payload_len, b->payload_len);
        assert_int_equal(a->gso_size, b->gso_size);
        assert_int_equal(a->window, b->window);
        assert_int_equal(a->flags, b->flags);
        assert_int_equal(a->opts.ts_val, b->opts.ts_val);
        assert_int_equal(a->opts.ts_ecr, b->opts.ts_ecr);
    }
}

#define SAME(field) assert_int_equal(x.field, y.field)

static void
assert_same_news(void)
{
    struct tcp_conn_info x = { 0 }, y = { 0 };

    assert_int_equal(twins[0].t.nb_gone, twins[1].t.nb_gone);
    if (twins[0].t.nb_gone != 0)
        return;
    for (unsigned k = 0; k < 2; k++)
        tcp_tick(twins[k].t.d, &twins[k].t.env,
                 100); /* to tell at the same instant: they had timers at different ones */
    assert_true(tcp_info(twins[0].t.d, twins[0].t.id, &x));
    assert_true(tcp_info(twins[1].t.d, twins[1].t.id, &y));
    SAME(state);
    SAME(ca_state);
    SAME(cwnd_bytes);
    SAME(ssthresh_bytes);
    SAME(srtt_us);
    SAME(rttvar_us);
    SAME(rto_us);
    SAME(min_rtt_us);
    SAME(snd_wnd);
    SAME(rcv_wnd);
    SAME(snd_mss);
    SAME(rcv_mss);
    SAME(delivery_rate);
    SAME(pacing_rate);
    SAME(busy_us);
    SAME(rwnd_limited_us);
    SAME(lost_segs);
    SAME(bytes_acked);
    SAME(bytes_sent);
    SAME(retrans_segs_total);
}

/* ---- what happens to both -------------------------------------------------------------------------------------------- */

/* What was in doubt when it began, a long silence decides (docs/tcp.md): the twin that does not park goes on doubting. */
static bool
is_settled(const struct trace *t)
{
    return (conn_at(t->d, t->id & 0xffffff)->flags & (CONN_F_TLP | CONN_F_UNDO)) == 0;
}

struct deed {
    uint32_t what, n_bytes, segment_bytes, us;
    bool on;
};

static void
act(struct twin *w, const struct deed *deed)
{
    struct trace *t = &w->t;

    switch (deed->what) {
    case 0:
    case 1:
        app_send(t, deed->n_bytes);
        break;
    case 2:
    case 3:
        say(w, A | P, deed->segment_bytes);
        break;
    case 4:
        tcp_consumed(t->d, &t->env, t->id, deed->segment_bytes);
        break;
    case 5:
        tcp_set_option(t->d, &t->env, t->id, TCP_OPT_NODELAY, deed->on);
        break;
    case 6:
        tcp_set_option(t->d, &t->env, t->id, TCP_OPT_QUICKACK, deed->on);
        break;
    default:
        advance(t, deed->us);
    }
}

/* Round trips until nothing is under way any more, or too many. */
static void
converse(struct rng *rng)
{
    uint64_t seed = rng_next(rng);
    struct rng fates[2];

    for (unsigned k = 0; k < 2; k++)
        rng_init(&fates[k], seed, 1);
    for (unsigned i = 0; i < TRIPS_MAX && twins[0].t.nb_out != 0; i++) {
        for (unsigned k = 0; k < 2; k++) {
            hear(&twins[k], &fates[k]);
            advance(&twins[k].t, TRIP_US);
        }
        assert_same_segments();
    }
    twins[0].t.nb_out = twins[1].t.nb_out = 0;
}

static void
live(struct rng *rng)
{
    for (unsigned step = 0; step < STEPS && twins[0].t.nb_gone == 0; step++) {
        struct deed deed = { .what = rng_below(rng, 9),
                             .n_bytes = 1 + rng_below(rng, rng_below(rng, 2) ? 100 : 30000) };
        deed.segment_bytes = 1 + rng_below(rng, TRACE_MSS);
        deed.on = rng_below(rng, 2) != 0;
        deed.us = rng_below(rng, 2) != 0 && is_settled(&twins[1].t) ? PARK_US + rng_below(rng, 4 * PARK_US)
                                                                    : rng_below(rng, PARK_US / 30);
        for (unsigned k = 0; k < 2; k++)
            act(&twins[k], &deed);
        assert_same_segments();
        converse(rng);
        assert_same_news();
    }
}

static void
twins_agree(void **state)
{
    uint64_t nb_parked = 0;

    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct rng rng;
        rng_init(&rng, 7, round);
        world.timestamps = rng_below(&rng, 2) != 0;
        world.sack = rng_below(&rng, 2) != 0; /* without it no ACK goes by ack_plain */
        world.pacing = rng_below(&rng, 2) != 0;
        world.keepalive = rng_below(&rng, 2) != 0;
        world.congestion = (uint8_t)rng_below(&rng, TCP_CC_COUNT);
        world.loss_percent = rng_below(&rng, 3) != 0 ? 0 : rng_below(&rng, 10);
        for (unsigned k = 0; k < 2; k++) {
            world.parks = k == 0;
            trace_init(&twins[k].t, adjust);
            meet(&twins[k]);
        }
        live(&rng);
        nb_parked += twins[0].t.ctr.v[CTR_TCP_PARKED];
        assert_int_equal(twins[1].t.ctr.v[CTR_TCP_PARKED], 0);
        for (unsigned k = 0; k < 2; k++)
            trace_fini(&twins[k].t);
    }
    assert_in_range(nb_parked, 3 * ROUNDS, STEPS * ROUNDS);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twins_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
