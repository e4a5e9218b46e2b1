/* SPDX-License-Identifier: BSD-3-Clause */
#include "trace.h"

#include "core/rng.h"
#include "tcp/prr.h"

#define MSS 1460u
#define STAMPED_MSS (MSS - 12) /* beside timestamps */

/* ---- the board ---------------------------------------- */

enum { SPAN = 300, RUNS = 1024 };

/** What tcp_sent must know, byte by byte. */
struct model {
    bool sacked[SPAN], lost[SPAN];
    uint32_t at_us[SPAN];
    uint32_t una, nxt;
};

static const struct tcp_rate_mark unmarked;

static void
board_equals(const struct model *m, struct tcp_sent_store st, const struct tcp_sent *s, tcp_seq base)
{
    uint32_t sacked = 0, lost = 0, at = m->una, runs = 0;

    for (uint32_t i = m->una; i < m->nxt; i++) {
        sacked += m->sacked[i];
        lost += m->lost[i];
    }
    assert_int_equal(s->sacked_bytes, sacked);
    assert_int_equal(s->lost_bytes, lost);
    for (uint32_t i = s->head; i != 0; i = st.runs[i].next) {
        const struct tcp_sent_run *r = &st.runs[i];
        runs++;
        assert_true(at < r->end - base);
        for (; at < r->end - base; at++) {
            assert_int_equal((r->flags & TCP_SENT_SACKED) != 0, m->sacked[at]);
            assert_int_equal((r->flags & TCP_SENT_LOST) != 0, m->lost[at]);
            if (!m->sacked[at])
                assert_int_equal(r->sent_us, m->at_us[at]);
        }
        if (r->next == 0)
            assert_int_equal(s->tail, i);
    }
    assert_int_equal(at, m->nxt);
    assert_int_equal(runs, s->count);
}

static void
board_step(struct model *m, struct tcp_sent_store st, struct tcp_sent *s, tcp_seq base, struct rng *rng, uint32_t now)
{
    struct tcp_sent_news n = { 0 };
    uint32_t a = m->una + (uint32_t)(rng_next(rng) % (m->nxt - m->una + 1));
    uint32_t b = a + (uint32_t)(rng_next(rng) % 40), fresh = 0;
    tcp_seq start, end;
    bool push;

    if (b > m->nxt)
        b = m->nxt;
    switch (rng_next(rng) % 6) {
    case 0:
    case 1:
        b = m->nxt + (uint32_t)(rng_next(rng) % 30);
        if (b > SPAN || b == m->nxt)
            break;
        *tcp_sent_append(st, s, base + b, now, false) = unmarked;
        for (; m->nxt < b; m->nxt++)
            m->at_us[m->nxt] = now;
        break;
    case 2:
        if (a == b)
            break;
        tcp_sent_sack(st, s, base + a, base + b, &n);
        for (uint32_t i = a; i < b; i++) {
            fresh += !m->sacked[i];
            m->sacked[i] = true;
            m->lost[i] = false;
        }
        assert_int_equal(n.delivered_bytes, fresh);
        break;
    case 3:
        tcp_sent_lose_below(st, s, base + a);
        for (uint32_t i = m->una; i < a; i++)
            m->lost[i] = !m->sacked[i];
        break;
    case 4:
        if (!tcp_sent_next_lost(st, s, &start, &end, &push))
            break;
        if (end - start > 10)
            end = start + 10;
        tcp_sent_again(st, s, start, end, &unmarked, now);
        for (uint32_t i = start - base; i < end - base; i++) {
            m->lost[i] = false;
            m->at_us[i] = now;
        }
        break;
    default:
        a = m->una + (a - m->una) / 4;
        tcp_sent_ack(st, s, base + a, &n);
        for (; m->una < a; m->una++)
            fresh += !m->sacked[m->una];
        assert_int_equal(n.delivered_bytes, fresh);
        break;
    }
}

/** The board against a byte map, over random events near the wrap of the sequence space. */
static void
board_equals_a_byte_map(void **state)
{
    static struct tcp_sent_run runs[RUNS + 1];
    struct tcp_pool pool;
    struct rng rng;

    (void)state;
    rng_init(&rng, 11, 0);
    for (unsigned round = 0; round < 300; round++) {
        static struct model m;
        struct tcp_sent_store st = { &pool, runs, 1, NULL };
        const tcp_seq base = 0xffffff80u;
        struct tcp_sent s;
        memset(&m, 0, sizeof(m));
        memset(runs, 0, sizeof(runs));
        tcp_pool_init(&pool, RUNS);
        tcp_sent_init(&s, base);
        for (unsigned i = 0; i < 120; i++) {
            board_step(&m, st, &s, base, &rng, 0xfffffff0u + i);
            board_equals(&m, st, &s, base);
        }
        tcp_sent_clear(st, &s);
        assert_int_equal(pool.used, 0);
    }
}

/** With a pool that is too small news is forgotten, but the sums stay right and nothing is lost twice. */
static void
board_survives_a_full_pool(void **state)
{
    static struct tcp_sent_run runs[9];
    struct tcp_pool pool;
    struct rng rng;

    (void)state;
    rng_init(&rng, 5, 0);
    for (unsigned round = 0; round < 200; round++) {
        struct tcp_sent_store st = { &pool, runs, 2, NULL };
        struct tcp_sent_news n = { 0 };
        struct tcp_sent s;
        uint32_t nxt = 0;
        memset(runs, 0, sizeof(runs));
        tcp_pool_init(&pool, 8);
        tcp_sent_init(&s, 0);
        for (unsigned i = 0; i < 60; i++) {
            *tcp_sent_append(st, &s, nxt += 100, i, false) = unmarked;
            uint32_t a = s.una + (uint32_t)(rng_next(&rng) % (nxt - s.una));
            tcp_sent_sack(st, &s, a, a + 50 < nxt ? a + 50 : nxt, &n);
            tcp_sent_lose_below(st, &s, a);
            assert_true(s.sacked_bytes + s.lost_bytes <= nxt - s.una);
            if (rng_next(&rng) % 4 == 0)
                tcp_sent_ack(st, &s, s.una + (nxt - s.una) / 2, &n);
        }
        tcp_sent_ack(st, &s, nxt, &n);
        assert_int_equal(s.head, 0);
        assert_int_equal(s.sacked_bytes, 0);
        assert_int_equal(s.lost_bytes, 0);
        assert_int_equal(pool.used, 0);
    }
}

/* ---- PRR, RACK ---------------------------------------- */

/** Ten segments, one lost, ssthresh 7: for the nine that arrive about seven go out, evenly, and seven stay under way. */
static void
prr_paces_the_reduction(void **state)
{
    struct tcp_prr p;
    uint32_t pipe = 9, sent = 0;

    (void)state;
    tcp_prr_start(&p, 10);
    for (unsigned i = 0; i < 9; i++) {
        pipe--;
        uint32_t cwnd = tcp_prr_window(&p, 1, pipe, 7, 1, false, i == 0);
        uint32_t n = cwnd > pipe ? cwnd - pipe : 0;
        assert_in_range(n, 0, 1);
        p.out_bytes += n;
        sent += n;
        pipe += n;
    }
    assert_in_range(sent, 6, 8);
    assert_int_equal(pipe, 7);
    /* Far below ssthresh it grows by what arrives, and by one more for an ACK that brings only good news. */
    tcp_prr_start(&p, 10);
    assert_int_equal(tcp_prr_window(&p, 2, 1, 7, 1, false, false), 3);
    p.out_bytes = 2;
    assert_int_equal(tcp_prr_window(&p, 1, 3, 7, 1, true, false), 5);
}

static void
rack_window_adapts(void **state)
{
    struct tcp_rack r;
    struct tcp_sent_news n = { .reordered = true };

    (void)state;
    tcp_rack_init(&r);
    assert_int_equal(tcp_rack_window_us(&r, 40000, 50000, false, false), 10000);
    assert_int_equal(tcp_rack_window_us(&r, 40000, 50000, false, true), 0);
    tcp_rack_delivered(&r, &n, 0, 40000);
    assert_int_equal(tcp_rack_window_us(&r, 40000, 50000, true, true), 10000);
    tcp_rack_dsack(&r, 100, 200);
    tcp_rack_dsack(&r, 150, 300); /* the same round trip */
    assert_int_equal(tcp_rack_window_us(&r, 40000, 50000, true, true), 20000);
    for (unsigned i = 0; i < 10; i++)
        tcp_rack_dsack(&r, 1000 * (i + 1), 1000 * (i + 1) + 500);
    assert_int_equal(tcp_rack_window_us(&r, 40000, 50000, true, true), 50000); /* at most the smoothed RTT */
    for (unsigned i = 0; i < 16; i++)
        tcp_rack_recovered(&r);
    assert_int_equal(tcp_rack_window_us(&r, 40000, 50000, true, true), 10000);
}

/* ---- a connection ---------------------------------------- */

static void
sack_only(struct tcp_params *p)
{
    p->sack = true;
}

/** A path of 100 ms, and n segments under way for as long. */
static void
flight(struct trace *t, unsigned n)
{
    trace_init(t, sack_only);
    make_established(t);
    struct tcp_rtt *r = &conn_by_id(t->d, t->id)->rtt;
    tcp_rtt_init(r, 1000000);
    tcp_rtt_sample(r, 100000, 200000, 60000000);
    app_send(t, MSS * n);
    t->nb_checked = t->nb_out;
    advance(t, 100000);
}

static void
sack(struct trace *t, unsigned from, unsigned to)
{
    t->peer_opts.nb_sack = 1;
    t->peer_opts.sack[0] = (struct tcp_sack_block){ t->iss + 1 + MSS * from, t->iss + 1 + MSS * to };
}

static void
finish(struct trace *t)
{
    t->peer_opts.nb_sack = 0;
    trace_fini(t);
}

static void
a_lone_sack_waits_for_reordering(void **state)
{
    static struct trace t;

    (void)state;
    flight(&t, 4);
    sack(&t, 3, 4);
    peer(&t, A, 1, 1, 0);
    expect_nothing(&t);
    advance(&t, 24000);
    expect_nothing(&t);
    advance(&t, 3000); /* a quarter of the round-trip time is over */
    expect(&t, A, 1, 1, MSS);
    peer(&t, A, 1, 1 + MSS * 4, 0);
    finish(&t);
}

static void
a_lost_tail_is_probed(void **state)
{
    static struct trace t;

    (void)state;
    flight(&t, 4);
    advance(&t, 99000);
    expect_nothing(&t);
    advance(&t, 5000); /* twice the smoothed RTT */
    expect(&t, A | P, 1 + MSS * 3, 1, MSS);
    uint32_t cwnd = conn_by_id(t.d, t.id)->cc.cwnd_bytes;
    /* The probe arrives, so that RACK sees that the rest is lost; no timeout is needed. */
    advance(&t, 100000);
    sack(&t, 3, 4);
    peer(&t, A, 1, 1, 0);
    expect(&t, A, 1, 1, MSS);
    assert_int_equal(t.ctr.v[CTR_TCP_RTO], 0);
    assert_true(conn_by_id(t.d, t.id)->cc.ssthresh_bytes < cwnd);
    t.nb_checked = t.nb_out;
    peer(&t, A, 1, 1 + MSS * 4, 0);
    finish(&t);
}

static void
a_needless_probe_costs_nothing(void **state)
{
    static struct trace t;

    (void)state;
    flight(&t, 4);
    advance(&t, 104000);
    expect(&t, A | P, 1 + MSS * 3, 1, MSS);
    peer(&t, A, 1, 1 + MSS * 4, 0); /* the original was merely late */
    sack(&t, 3, 4);
    peer(&t, A, 1, 1 + MSS * 4, 0); /* DSACK for the probe */
    assert_int_equal(conn_by_id(t.d, t.id)->cc.ssthresh_bytes, UINT32_MAX);
    finish(&t);
}

/** RFC 3042: the first two duplicates each let a new segment go, the third begins the recovery. */
static void
duplicates_let_new_segments_go(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, NULL);
    make_established(&t);
    app_send(&t, MSS * 20);
    t.nb_checked = t.nb_out;
    peer(&t, A, 1, 1, 0);
    expect(&t, A, 1 + MSS * 10, 1, MSS);
    peer(&t, A, 1, 1, 0);
    expect(&t, A, 1 + MSS * 11, 1, MSS);
    expect_nothing(&t);
    peer(&t, A, 1, 1, 0);
    expect(&t, A, 1, 1, MSS);
    expect_nothing(&t);
    for (unsigned i = 0; i < 5; i++)
        peer(&t, A, 1, conn_by_id(t.d, t.id)->snd_nxt - t.iss, 0);
    assert_int_equal(t.acked, MSS * 20);
    t.nb_checked = t.nb_out;
    finish(&t);
}

/** RFC 8985 section 7.3: a probe takes new data where there is some; its answer costs nothing. */
static void
a_probe_takes_new_data(void **state)
{
    static struct trace t;

    (void)state;
    flight(&t, 12); /* two more than the window lets go */
    t.nb_checked = t.nb_out;
    advance(&t, 104000);
    expect(&t, A, 1 + MSS * 10, 1, MSS);
    expect_nothing(&t);
    peer(&t, A, 1, 1 + MSS * 11, 0);
    assert_int_equal(conn_by_id(t.d, t.id)->cc.ssthresh_bytes, UINT32_MAX);
    t.nb_checked = t.nb_out;
    peer(&t, A, 1, 1 + MSS * 12, 0);
    finish(&t);
}

/** A retransmission that is lost again is found by time, not by the timeout. */
static void
a_lost_retransmission_is_repeated(void **state)
{
    static struct trace t;

    (void)state;
    flight(&t, 12);
    sack(&t, 1, 6);
    peer(&t, A, 1, 1, 0);
    expect(&t, A, 1, 1, MSS);
    t.nb_checked = t.nb_out;
    advance(&t, 100000);
    sack(&t, 1, 11); /* what was sent beside the first copy arrives, the copy does not */
    peer(&t, A, 1, 1, 0);
    expect(&t, A, 1, 1, MSS);
    assert_int_equal(t.ctr.v[CTR_TCP_RTO], 0);
    peer(&t, A, 1, 1 + MSS * 12, 0);
    finish(&t);
}

/** A flight of eight segments whose first one is sent again, since four behind it are reported. Returns the window before. */
static uint32_t
first_sent_again(struct trace *t)
{
    uint32_t cwnd;

    flight(t, 8);
    cwnd = conn_by_id(t->d, t->id)->cc.cwnd_bytes;
    sack(t, 1, 5);
    peer(t, A, 1, 1, 0);
    expect(t, A, 1, 1, MSS);
    return cwnd;
}

/** Once every retransmission is reported as a duplicate the window is as before (RFC 2883, RFC 3708). */
static void
dsack_undoes(void **state)
{
    static struct trace t;
    uint32_t cwnd = first_sent_again(&t);

    (void)state;
    peer(&t, A, 1, 1 + MSS * 8, 0);
    assert_true(conn_by_id(t.d, t.id)->cc.cwnd_bytes < cwnd);
    sack(&t, 0, 1);
    peer(&t, A, 1, 1 + MSS * 8, 0);
    assert_true(conn_by_id(t.d, t.id)->cc.cwnd_bytes >= cwnd);
    assert_int_equal(t.ctr.v[CTR_TCP_SPURIOUS_RETRANS], 1);
    finish(&t);
}

/** The path copies what was not sent again (segments 2, then 6): no word of the one that was, and no reason to wait for overtakers. */
static void
copies_of_the_path_undo_nothing(void **state)
{
    static struct trace t;
    uint32_t cwnd = first_sent_again(&t);

    (void)state;
    sack(&t, 2, 3);
    t.peer_opts.sack[1] = (struct tcp_sack_block){ t.iss + 1 + MSS, t.iss + 1 + MSS * 5 };
    t.peer_opts.nb_sack = 2;
    peer(&t, A, 1, 1, 0);
    peer(&t, A, 1, 1 + MSS * 8, 0);
    sack(&t, 6, 7);
    peer(&t, A, 1, 1 + MSS * 8, 0);
    const struct tcp_conn *c = conn_by_id(t.d, t.id);
    assert_true(c->cc.cwnd_bytes < cwnd);
    assert_int_equal(c->rack.steps, 1);
    assert_false(c->rack.reordering);
    assert_int_equal(t.ctr.v[CTR_TCP_SPURIOUS_RETRANS], 0);
    assert_int_equal(tally_of(t.d, c)->dsack_segs, 2);
    finish(&t);
}

/** Nine ranges are one more than there is room for: the oldest two are one then, and what lies between is believed too. */
static void
what_was_sent_again_is_remembered(void **state)
{
    struct tcp_again a = { .count = 0 };

    (void)state;
    assert_false(tcp_again_has(&a, 0, 100));
    for (tcp_seq i = 0; i < TCP_AGAIN_MAX; i++)
        tcp_again_note(&a, 0xfffff000 + 1000 * i, 0xfffff000 + 1000 * i + 100);
    tcp_again_note(&a, 0xfffff000 + 1000 * (TCP_AGAIN_MAX - 1) + 100, 0xfffff000 + 1000 * (TCP_AGAIN_MAX - 1) + 200);
    assert_int_equal(a.count, TCP_AGAIN_MAX);
    assert_true(tcp_again_has(&a, 0xfffff000, 0xfffff001));
    assert_false(tcp_again_has(&a, 0xfffff000 + 100, 0xfffff000 + 1000));
    assert_true(tcp_again_has(&a, 0xfffff000 + 1000 * (TCP_AGAIN_MAX - 1) + 150, 0xfffff000 + 1000 * TCP_AGAIN_MAX));
    tcp_again_note(&a, 50000, 50100);
    assert_int_equal(a.count, TCP_AGAIN_MAX);
    assert_true(tcp_again_has(&a, 0xfffff000 + 100, 0xfffff000 + 1000));
    assert_false(tcp_again_has(&a, 0xfffff000 + 1100, 0xfffff000 + 2000));
    assert_true(tcp_again_has(&a, 50099, 60000));
}

static void
sack_and_timestamps(struct tcp_params *p)
{
    p->sack = p->timestamps = true;
}

/** n segments under way on a path of 100 ms that echoes timestamps. */
static void
stamped_flight(struct trace *t, unsigned n)
{
    trace_init(t, sack_and_timestamps);
    make_syn_sent(t);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460, .sack_permitted = true, .has_ts = true };
    t->peer_opts.ts_ecr = t->out[0].opts.ts_val;
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
    struct tcp_rtt *r = &conn_by_id(t->d, t->id)->rtt;
    tcp_rtt_init(r, 1000000);
    tcp_rtt_sample(r, 100000, 200000, 60000000);
    app_send(t, STAMPED_MSS * n);
    t->nb_checked = t->nb_out;
    advance(t, 100000);
}

/** An ACK of `acked` segments that SACKs [from, to) and echoes ecr; the path takes 10 ms more afterwards. */
static void
stamped_ack(struct trace *t, unsigned acked, unsigned from, unsigned to, uint32_t ecr)
{
    sack(t, 0, 0);
    t->peer_opts.nb_sack = from < to;
    t->peer_opts.sack[0].start = t->iss + 1 + STAMPED_MSS * from;
    t->peer_opts.sack[0].end = t->iss + 1 + STAMPED_MSS * to;
    t->peer_opts.has_ts = true;
    t->peer_opts.ts_ecr = ecr;
    peer(t, A, 1, 1 + STAMPED_MSS * acked, 0);
    advance(t, 10000);
}

/** RFC 3522: the ACK that follows a retransmission echoes an older timestamp, so the original has arrived. */
static void
an_older_timestamp_undoes(void **state)
{
    static struct trace t;

    (void)state;
    stamped_flight(&t, 10);
    uint32_t cwnd = conn_by_id(t.d, t.id)->cc.cwnd_bytes, ecr = t.out[t.nb_out - 1].opts.ts_val;
    stamped_ack(&t, 0, 1, 5, ecr);
    expect(&t, A, 1, 1, STAMPED_MSS);
    stamped_ack(&t, 5, 0, 0, ecr);
    assert_int_equal(t.ctr.v[CTR_TCP_SPURIOUS_RETRANS], 1);
    assert_true(conn_by_id(t.d, t.id)->cc.cwnd_bytes >= cwnd);
    t.nb_checked = t.nb_out;
    /* What comes as late from here on is waited for, however much has come before it. */
    ecr = t.out[t.nb_out - 1].opts.ts_val;
    stamped_ack(&t, 5, 6, 10, ecr);
    expect_nothing(&t);
    stamped_ack(&t, 10, 0, 0, ecr);
    finish(&t);
}

/**
 * What was sent in a recovery and is lost begins the next one, with the ACK that ends the first. A copy that the first has sent and that
 * arrives in the second is older than the second's first copy, and proves nothing about it.
 */
static void
an_earlier_copy_undoes_nothing(void **state)
{
    static struct trace t;

    (void)state;
    stamped_flight(&t, 10);
    uint32_t ecr = t.out[t.nb_out - 1].opts.ts_val;
    stamped_ack(&t, 0, 1, 10, ecr); /* segment 0 is lost ... */
    app_send(&t, STAMPED_MSS * 30);
    advance(&t, 90000);
    stamped_ack(&t, 0, 11, 14, ecr); /* ... and again, as is 10 */
    uint32_t copied = t.out[t.nb_out - 1].opts.ts_val;
    assert_int_equal(t.ctr.v[CTR_TCP_FAST_RETRANS], 1);
    advance(&t, 90000);
    uint32_t cwnd = conn_by_id(t.d, t.id)->cc.cwnd_bytes;
    stamped_ack(&t, 10, 11, 14,
                copied); /* 0 has come after all that was sent before its copy, but 14 and 15 have not */
    assert_int_equal(t.ctr.v[CTR_TCP_FAST_RETRANS], 2);
    assert_true(conn_by_id(t.d, t.id)->cc.ssthresh_bytes < cwnd);
    stamped_ack(&t, 14, 0, 0, copied); /* 10's copy */
    assert_int_equal(t.ctr.v[CTR_TCP_SPURIOUS_RETRANS], 0);
    assert_int_equal(conn_by_id(t.d, t.id)->ca_state, CONN_CA_RECOVERY);
    t.nb_checked = t.nb_out;
    finish(&t);
}

/** RFC 5682: the ACKs after the timeout acknowledge originals, so it was needless. */
static void
forward_rto_undoes(void **state)
{
    static struct trace t;

    (void)state;
    flight(&t, 6);
    uint32_t cwnd = conn_by_id(t.d, t.id)->cc.cwnd_bytes;
    advance(&t, 600000);
    assert_int_equal(t.ctr.v[CTR_TCP_RTO], 1);
    assert_int_equal(conn_by_id(t.d, t.id)->cc.cwnd_bytes, MSS);
    t.nb_checked = t.nb_out;
    peer(&t, A, 1, 1 + MSS * 2, 0);
    assert_true(conn_by_id(t.d, t.id)->cc.cwnd_bytes >= cwnd);
    assert_int_equal(conn_by_id(t.d, t.id)->ca_state, CONN_CA_OPEN);
    expect_nothing(&t); /* what is under way stays there */
    peer(&t, A, 1, 1 + MSS * 6, 0);
    finish(&t);
}

/** RFC 2883 section 4.2: what a segment repeats is told, though the rest of it is new. */
TRACE_TEST(what_a_segment_repeats_is_told, sack_only)
{
    const struct tcp_out *o;

    make_established(t);
    static const struct {
        uint32_t seq, len;
    } early[] = { { 1001, 1000 }, { 2001, 1000 }, { 4001, 1000 }, { 7001, 1000 } };
    for (unsigned i = 0; i < 4; i++) {
        peer(t, A, early[i].seq, 1, early[i].len);
        expect(t, A, 1, 1, 0);
    }
    peer(t, A, 1, 1, 6000);
    o = expect(t, A, 1, 6001, 0);
    assert_int_equal(o->opts.nb_sack, 2);
    assert_int_equal(o->opts.sack[0].start - t->irs, 1001);
    assert_int_equal(o->opts.sack[0].end - t->irs, 3001);
    assert_int_equal(o->opts.sack[1].start - t->irs, 7001);
    peer(t, A, 7501, 1, 1000); /* behind a gap: half of it is held */
    o = expect(t, A, 1, 6001, 0);
    assert_int_equal(o->opts.sack[0].start - t->irs, 7501);
    assert_int_equal(o->opts.sack[0].end - t->irs, 8001);
    assert_int_equal(o->opts.sack[1].end - t->irs, 8501);
    peer(t, A, 6001, 1, 1000);
    o = expect(t, A, 1, 8501, 0);
    assert_int_equal(o->opts.nb_sack, 0);
}

static void
expect_block(struct trace *t, const struct tcp_out *o, unsigned i, tcp_seq start, tcp_seq end)
{
    assert_true(o->opts.nb_sack > i);
    assert_int_equal(o->opts.sack[i].start - t->irs, start);
    assert_int_equal(o->opts.sack[i].end - t->irs, end);
}

/** RFC 2883 section 4: a duplicate, then the block that it lies in, then the others; and it is told at once or never. */
TRACE_TEST(duplicates_are_told_with_their_block, sack_only)
{
    const struct tcp_out *o;

    make_established(t);
    peer(t, A, 1001, 1, 1000);
    expect(t, A, 1, 1, 0);
    peer(t, A, 3001, 1, 1000);
    expect(t, A, 1, 1, 0);
    peer(t, A, 1201, 1, 500);
    o = expect(t, A, 1, 1, 0);
    expect_block(t, o, 0, 1201, 1701);
    expect_block(t, o, 1, 1001, 2001);
    expect_block(t, o, 2, 3001, 4001);
    peer(t, A, 1, 1, 4000);
    expect(t, A, 1, 4001, 0);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_QUICKACK, 0), 0);
    peer(t, A, 3501, 1, 1000); /* nothing lies behind a gap, and a lone segment's ACK would wait */
    o = expect(t, A, 1, 4501, 0);
    assert_int_equal(o->opts.nb_sack, 1);
    expect_block(t, o, 0, 3501, 4001);
    peer(t, A | F, 4001, 1, 500); /* who has said everything learns nothing from it */
    o = expect(t, A, 1, 4502, 0);
    assert_int_equal(o->opts.nb_sack, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(board_equals_a_byte_map),
        cmocka_unit_test(board_survives_a_full_pool),
        cmocka_unit_test(prr_paces_the_reduction),
        cmocka_unit_test(rack_window_adapts),
        cmocka_unit_test(a_lone_sack_waits_for_reordering),
        cmocka_unit_test(a_lost_tail_is_probed),
        cmocka_unit_test(a_needless_probe_costs_nothing),
        cmocka_unit_test(duplicates_let_new_segments_go),
        cmocka_unit_test(a_probe_takes_new_data),
        cmocka_unit_test(a_lost_retransmission_is_repeated),
        cmocka_unit_test(dsack_undoes),
        cmocka_unit_test(copies_of_the_path_undo_nothing),
        cmocka_unit_test(what_was_sent_again_is_remembered),
        cmocka_unit_test(an_older_timestamp_undoes),
        cmocka_unit_test(an_earlier_copy_undoes_nothing),
        cmocka_unit_test(forward_rto_undoes),
        cmocka_unit_test(what_a_segment_repeats_is_told),
        cmocka_unit_test(duplicates_are_told_with_their_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
