/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "tcp/isn.h"
#include "tcp/wire.h"
#include "trace.h"

/**
 * @file
 * Input that no honest peer or path sends: what happens to it, what counts it, and that the connection which it names goes on as if it had not
 * come.
 */

static void
plain_sack(struct tcp_params *p)
{
    p->sack = true;
}

static void
stamped(struct tcp_params *p)
{
    p->timestamps = true;
}

static struct tcp_conn *
conn_of(const struct trace *t)
{
    return conn_by_id(t->d, t->id);
}

/** The connection still takes data and still sends it; nothing was under way. */
static void
assert_unharmed(struct trace *t)
{
    const struct tcp_conn *c = conn_of(t);
    uint64_t delivered = t->delivered, acked = t->acked;

    assert_non_null(c);
    uint32_t rcv = c->rcv_nxt - t->irs, snd = c->snd_nxt - t->iss;
    t->peer_window = 65535;
    peer(t, A | P, rcv, snd, 100);
    assert_int_equal(t->delivered, delivered + 100);
    app_send(t, 10);
    t->nb_checked = t->nb_out;
    peer(t, A, rcv + 100, snd + 10, 0);
    assert_int_equal(t->acked, acked + 10);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
    t->nb_checked = t->nb_out;
}

/* ---- headers ---------------------------------------- */

/** An option of length 0 or 1, or past the header's end, condemns the segment; one of a length that its kind cannot have is passed over. */
static void
options_of_absurd_length(void **state)
{
    static const uint8_t kinds[] = { 2, 3, 4, 5, 8, 34, 172, 174, 254, 77 };
    uint8_t hdr[TCP_HDR_MAX] = { [12] = 8 << 4, [13] = TCP_FLAG_SYN };
    struct tcp_in in;

    (void)state;
    for (unsigned i = 0; i < sizeof(kinds); i++) {
        for (unsigned len = 0; len < 256; len++) {
            memset(hdr + 20, 1, 12);
            hdr[20] = kinds[i];
            hdr[21] = (uint8_t)len;
            memset(&in, 0, sizeof(in));
            int rc = tcp_wire_parse(hdr, 32, &in);
            assert_int_equal(rc, len < 2 || len > 12 ? -EINVAL : 32);
            if (rc < 0)
                continue;
            assert_int_equal(in.opts.has_mss, kinds[i] == 2 && len == 4);
            assert_int_equal(in.opts.has_wscale, kinds[i] == 3 && len == 3);
            assert_int_equal(in.opts.has_ts, kinds[i] == 8 && len == 10);
            assert_int_equal(in.opts.nb_sack, 0); /* a SYN has none */
        }
    }
}

/* ---- sequence numbers ---------------------------------------- */

/** Copies that overlap and copies that contradict each other: each byte is delivered once, the first that came. */
TRACE_TEST(overlaps_and_contradictions, NULL)
{
    make_established(t);
    peer(t, A, 101, 1, 100);
    peer(t, A, 51, 1, 100); /* other bytes for a part of it */
    peer(t, A, 101, 1, 200); /* the same and more */
    peer(t, A, 151, 1, 50);
    assert_int_equal(t->delivered, 0);
    peer(t, A, 1, 1, 120);
    assert_int_equal(t->delivered, 300);
    for (unsigned i = 0; i < 20; i++)
        peer(t, A, 1 + 10 * i, 1, 300 - 10 * i); /* all of it again, from everywhere */
    assert_int_equal(t->delivered, 300);
    assert_true(t->ctr.v[CTR_TCP_DUP_SEGS] >= 20);
    assert_int_equal(conn_of(t)->rcv_nxt, t->irs + 301);
    assert_unharmed(t);
}

/** Both directions cross 2^32, with a gap and a retransmission on the way. */
TRACE_TEST(sequence_numbers_wrap, plain_sack)
{
    struct tcp_options o = { .has_mss = true, .mss = 1460, .sack_permitted = true };

    t->tuple.local_port = 5000;
    tcp_seq isn = tcp_isn(t->params.seed, &t->tuple, t->env.now_us);
    advance(t, 4ull * (uint32_t)(0xfffffff0u - isn));
    assert_int_equal(tcp_connect(t->d, &t->env, &t->tuple, TRACE_MSS, NULL, TRACE_USER, &t->id), 0);
    expect(t, S, 0, 0, 0);
    assert_in_range(t->iss, 0xffffffe0u, 0xffffffffu);
    t->irs = 0xfffffff0;
    t->peer_opts = o;
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
    peer(t, A, 1001, 1, 1000);
    const struct tcp_out *sack = expect(t, A, 1, 1, 0);
    assert_int_equal(sack->opts.nb_sack, 1);
    assert_int_equal(sack->opts.sack[0].start, t->irs + 1001);
    peer(t, A, 1, 1, 1000);
    expect(t, A, 1, 2001, 0);
    assert_int_equal(t->delivered, 2000);
    app_send(t, 3 * 1460);
    t->nb_checked = t->nb_out;
    t->peer_opts.nb_sack = 1;
    t->peer_opts.sack[0] = (struct tcp_sack_block){ t->iss + 1 + 1460, t->iss + 1 + 3 * 1460 };
    peer(t, A, 2001, 1, 0);
    advance(t, 400000);
    expect(t, A, 1, 2001, 1460); /* the first again, beyond the wrap of its end */
    t->nb_checked = t->nb_out;
    peer(t, A, 2001, 1 + 3 * 1460, 0);
    assert_int_equal(t->acked, 3 * 1460);
    assert_unharmed(t);
}

/** Segments far outside the window are dropped, counted, and answered so that an honest peer finds back; not each one. */
TRACE_TEST(segments_outside_the_window, NULL)
{
    make_established(t);
    for (unsigned i = 0; i < 100; i++)
        peer(t, A, 0x40000000u + i, 1, 0);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_SEQUENCE], 100);
    assert_int_equal(t->ctr.v[CTR_TCP_CHALLENGE_ACKS], 1);
    expect(t, A, 1, 1, 0);
    expect_nothing(t);
    assert_unharmed(t);
}

static void
every_10_ms(struct tcp_params *p)
{
    p->challenge_us = 10000;
}

static void
unlimited(struct tcp_params *p)
{
    p->challenge_us = 0;
}

/** How often is a parameter; the domain's limit for all connections holds in any case. */
static void
challenges_are_limited_as_told(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, every_10_ms);
    make_established(&t);
    for (unsigned i = 0; i < 20; i++) {
        peer(&t, A, 0x40000000u, 1, 0);
        advance(&t, 5000);
    }
    assert_in_range(t.ctr.v[CTR_TCP_CHALLENGE_ACKS], 6, 10);
    t.nb_checked = t.nb_out;
    trace_fini(&t);
    trace_init(&t, unlimited);
    make_established(&t);
    for (unsigned i = 0; i < 100; i++)
        peer(&t, A, 0x40000000u, 1, 0);
    assert_int_equal(t.ctr.v[CTR_TCP_CHALLENGE_ACKS], 100);
    t.nb_checked = t.nb_out;
    trace_fini(&t);
}

/* ---- acknowledgements ---------------------------------------- */

/** RFC 5961 section 5.2: an ACK of data never sent, or of the distant past, is challenged within limits, and nothing of its segment is taken. */
TRACE_TEST(acks_of_data_never_sent, NULL)
{
    make_established(t);
    app_send(t, 100);
    expect(t, A | P, 1, 1, 100);
    for (unsigned i = 0; i < 100; i++)
        peer(t, A, 1, 102 + i * 1000, 50);
    peer(t, A, 1, (uint32_t)-70000, 50);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_ACK], 101);
    assert_int_equal(t->ctr.v[CTR_TCP_CHALLENGE_ACKS], 1);
    expect(t, A, 101, 1, 0);
    assert_int_equal(t->acked, 0);
    assert_int_equal(t->delivered, 0);
    peer(t, A, 1, 101, 0);
    assert_int_equal(t->acked, 100);
    assert_unharmed(t);
}

/** SACK blocks beyond what was sent, reversed, empty, older than old, or all over each other: none is believed that cannot be. */
TRACE_TEST(sack_blocks_that_lie, plain_sack)
{
    make_established(t);
    app_send(t, 4 * 1460);
    t->nb_checked = t->nb_out;
    tcp_seq una = t->iss + 1, end = una + 4 * 1460;
    const struct tcp_sack_block lies[] = {
        { end, end + 1460 }, /* never sent */
        { una + 1460, end + 1 }, /* by a byte */
        { una + 2920, una + 1460 }, /* reversed */
        { una + 1460, una + 1460 }, /* empty */
        { una - 100000, una - 99000 }, /* long ago */
        { una - 1460, una + 1460 }, /* what it acknowledges not */
        { una + 0x7fffffffu, una + 0x80000010u },
    };
    for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        t->peer_opts.nb_sack = 2;
        t->peer_opts.sack[0] = t->peer_opts.sack[1] = lies[i];
        peer(t, A, 1, 1, 0);
        assert_int_equal(conn_of(t)->sent.sacked_bytes, 0);
        assert_int_equal(conn_of(t)->sent.lost_bytes, 0);
        assert_int_equal(conn_of(t)->ca_state, CONN_CA_OPEN);
    }
    expect_nothing(t);
    /* One that takes back what it said costs a retransmission and no more (RFC 2018 section 8). */
    t->peer_opts.nb_sack = 1;
    t->peer_opts.sack[0] = (struct tcp_sack_block){ una + 1460, end };
    peer(t, A, 1, 1, 0);
    peer(t, A, 1, 1 + 1460, 0);
    assert_int_equal(conn_of(t)->sent.sacked_bytes, 0);
    t->nb_checked = t->nb_out;
    peer(t, A, 1, 1 + 4 * 1460, 0);
    assert_int_equal(t->acked, 4 * 1460);
    assert_unharmed(t);
}

/** RFC 9293 section 3.8.6: a window may shrink below what is under way; that is kept, probed for, and goes on when there is room. */
TRACE_TEST(windows_that_shrink, NULL)
{
    make_established(t);
    app_send(t, 8 * 1460);
    t->nb_checked = t->nb_out;
    t->peer_window = 1000;
    peer(t, A, 1, 1 + 1460, 0); /* six segments are under way beyond it */
    expect_nothing(t);
    t->peer_window = 0;
    peer(t, A, 1, 1 + 1460, 0);
    advance(t, 3000000);
    assert_true(t->nb_out > t->nb_checked); /* it asks */
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
    for (unsigned i = t->nb_checked; i < t->nb_out; i++)
        assert_true(seq_leq(t->out[i].seq + t->out[i].payload_len, t->iss + 1 + 8 * 1460));
    t->nb_checked = t->nb_out;
    t->peer_window = 65535;
    peer(t, A, 1, 1 + 8 * 1460, 0);
    assert_int_equal(t->acked, 8 * 1460);
    assert_unharmed(t);
}

/* ---- timestamps ---------------------------------------- */

/** RFC 7323 section 5: what carries an older timestamp is dropped and counted, and moves nothing; one from the future moves nothing out of place. */
TRACE_TEST(timestamps_that_run_backwards, stamped)
{
    const struct tcp_options o = { .has_mss = true, .mss = 1460, .has_ts = true, .ts_val = 100000 };

    make_syn_sent(t);
    t->peer_opts = o;
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
    for (unsigned i = 1; i <= 50; i++) {
        t->peer_opts = (struct tcp_options){ .has_ts = true, .ts_val = 100000 - i * 1000 };
        peer(t, A, 1, 1, 100);
    }
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_PAWS], 50);
    assert_int_equal(t->delivered, 0);
    assert_int_equal(conn_of(t)->ts_recent, 100000);
    t->nb_checked = t->nb_out;
    /* A forger who does not know the sequence numbers cannot poison the clock. */
    t->peer_opts = (struct tcp_options){ .has_ts = true, .ts_val = 0x70000000 };
    peer(t, A, 0x30000000, 1, 100);
    assert_int_equal(conn_of(t)->ts_recent, 100000);
    t->nb_checked = t->nb_out;
    t->peer_opts = (struct tcp_options){ .has_ts = true, .ts_val = 100001 };
    peer(t, A, 1, 1, 100);
    assert_int_equal(t->delivered, 100);
    t->nb_checked = t->nb_out;
}

/* ---- ICMP (RFC 5927) ---------------------------------------- */

/** Section 4.1: what speaks of no segment under way is ignored and counted; section 5.2: no error is hard on a living connection. */
TRACE_TEST(icmp_must_know_the_flight, NULL)
{
    make_established(t);
    app_send(t, 100);
    expect(t, A | P, 1, 1, 100);
    const uint32_t seqs[] = { 0, 101, 5000, 0x80000000u };
    for (unsigned i = 0; i < 4; i++)
        tcp_unreachable(t->d, &t->env, &t->tuple, t->iss + seqs[i], EMSGSIZE, false, 600);
    assert_int_equal(conn_of(t)->mss, TRACE_MSS);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_ICMP], 4);
    tcp_unreachable(t->d, &t->env, &t->tuple, t->iss + 1, ECONNREFUSED, true, 0);
    tcp_unreachable(t->d, &t->env, &t->tuple, t->iss + 1, EHOSTUNREACH, false, 0);
    assert_int_equal(t->nb_gone, 0);
    expect_nothing(t);
    peer(t, A, 1, 101, 0);
    assert_unharmed(t);
}

/** Section 7: an MTU that is too small, or no smaller than known, changes nothing; a storm of them lowers the MSS to its floor and no further. */
TRACE_TEST(ptb_storms, NULL)
{
    make_established(t);
    app_send(t, 1460);
    expect(t, A | P, 1, 1, 1460);
    for (uint16_t mtu = 0; mtu <= 40; mtu++)
        tcp_unreachable(t->d, &t->env, &t->tuple, t->iss + 1, EMSGSIZE, false, mtu);
    tcp_unreachable(t->d, &t->env, &t->tuple, t->iss + 1, EMSGSIZE, false, 1500);
    tcp_unreachable(t->d, &t->env, &t->tuple, t->iss + 1, EMSGSIZE, false, 9000);
    assert_int_equal(conn_of(t)->mss, TRACE_MSS);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_ICMP], 43);
    expect_nothing(t);
    for (unsigned i = 0; i < 1000; i++)
        tcp_unreachable(t->d, &t->env, &t->tuple, t->iss + 1, EMSGSIZE, false, 68);
    assert_int_equal(conn_of(t)->mss, 512); /* one of them counted */
    assert_int_equal(t->ctr.v[CTR_TCP_MTU_LOWERED], 1);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_ICMP], 43 + 999);
    expect(t, A, 1, 1, 512);
    expect(t, A, 513, 1, 512);
    expect(t, A | P, 1025, 1, 436);
    expect_nothing(t);
    peer(t, A, 1, 1461, 0);
    assert_unharmed(t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_of_absurd_length),
        cmocka_unit_test(overlaps_and_contradictions),
        cmocka_unit_test(sequence_numbers_wrap),
        cmocka_unit_test(segments_outside_the_window),
        cmocka_unit_test(challenges_are_limited_as_told),
        cmocka_unit_test(acks_of_data_never_sent),
        cmocka_unit_test(sack_blocks_that_lie),
        cmocka_unit_test(windows_that_shrink),
        cmocka_unit_test(timestamps_that_run_backwards),
        cmocka_unit_test(icmp_must_know_the_flight),
        cmocka_unit_test(ptb_storms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
