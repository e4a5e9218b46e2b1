/* SPDX-License-Identifier: BSD-3-Clause */
#include "trace.h"

#include <string.h>

/**
 * @file
 * More accurate ECN feedback (RFC 9768): what is agreed on, what is counted, what is told, what is believed. Section numbers are that
 * RFC's.
 */

#define MSS 1460u
#define ACE(n) ((uint16_t)((n) << TCP_ACCECN_ACE_SHIFT))
#define ASK TCP_FLAGS_ECN

static void
accurate(struct tcp_params *p)
{
    p->ecn = TCP_ECN_ACCURATE;
}

static void
accurate_sack(struct tcp_params *p)
{
    p->ecn = TCP_ECN_ACCURATE;
    p->sack = true;
}

static void
accurate_bare(struct tcp_params *p)
{
    accurate_sack(p);
    p->ecn_option = false;
}

static const struct tcp_options with_counters = {
    .has_mss = true, .mss = MSS, .has_accecn = true, .accecn_fields = 7, .accecn = { 1, 0, 1 }
};

static struct tcp_conn *
conn_of(const struct trace *t)
{
    return conn_by_id(t->d, t->id);
}

static struct tcp_conn_info
info_of(const struct trace *t)
{
    struct tcp_conn_info info;

    assert_true(tcp_info(t->d, t->id, &info));
    return info;
}

/** An active open whose SYN-ACK has these flags, this codepoint and these options; the ACK that ends it is the next to expect. */
static void
connect_with(struct trace *t, void (*adjust)(struct tcp_params *p), unsigned ace, uint8_t tos, struct tcp_options o)
{
    trace_init(t, adjust);
    assert_int_equal(tcp_connect(t->d, &t->env, &t->tuple, TRACE_MSS, NULL, TRACE_USER, &t->id), 0);
    assert_int_equal(expect(t, S | ASK, 0, 0, 0)->tos & TCP_TOS_ECN, 0);
    o.sack_permitted = t->params.sack;
    t->peer_opts = o;
    t->peer_tos = tos;
    peer(t, S | A | ACE(ace), 0, 1, 0);
    t->peer_tos = TCP_TOS_ECT0;
}

static void
make_client(struct trace *t, void (*adjust)(struct tcp_params *p))
{
    connect_with(t, adjust, 2, 0, with_counters);
    expect(t, A | ACE(2), 1, 1, 0);
}

/** A listener's connection; the peer's last ACK of the handshake has this ACE. */
static void
accept_with(struct trace *t, void (*adjust)(struct tcp_params *p), unsigned ace)
{
    struct tcp_tuple remote;

    trace_init(t, adjust);
    app_listen(t, 4);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = MSS, .sack_permitted = t->params.sack };
    peer(t, S | ASK, 0, 0, 0);
    const struct tcp_out *o = expect(t, S | A | ACE(2), 0, 1, 0);
    assert_int_equal(o->tos & TCP_TOS_ECN, 0);
    assert_int_equal(o->opts.has_accecn, t->params.ecn_option);
    t->peer_opts = with_counters;
    t->peer_tos = TCP_TOS_ECT0;
    peer(t, A | ACE(ace), 1, 1, 0);
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_int_not_equal(t->id, 0);
}

/* ---- the mechanism alone ---------------------------------------- */

static void
codes_of_the_handshake(void **state)
{
    (void)state;
    for (unsigned cp = 0; cp < 4; cp++)
        assert_int_equal(tcp_accecn_decode(tcp_accecn_encode(cp), TCP_ECN_NOT_ECT), cp);
    for (unsigned cp = 0; cp < 4; cp++) /* a reserved code says nothing: as if the field came as it was sent */
        assert_int_equal(tcp_accecn_decode(5, cp), cp);
    assert_true(tcp_accecn_is_mangled(TCP_ECN_NOT_ECT, TCP_ECN_CE));
    assert_true(tcp_accecn_is_mangled(TCP_ECN_ECT0, TCP_ECN_NOT_ECT));
    assert_true(tcp_accecn_is_mangled(TCP_ECN_CE, TCP_ECN_ECT0));
    assert_false(tcp_accecn_is_mangled(TCP_ECN_ECT0, TCP_ECN_CE));
    assert_false(tcp_accecn_is_mangled(TCP_ECN_ECT0, TCP_ECN_ECT1));
}

/** Section 3.2.2.5.2: three bits wrap; the number of packets acknowledged and the bytes tell how often. */
static void
wraps_are_judged(void **state)
{
    struct tcp_accecn a;
    struct tcp_accecn_news n;
    struct tcp_options none = { .has_mss = false }, bytes = { .has_accecn = true, .accecn_fields = 2 };
    struct tcp_accecn_ack ack = { .segs = 7, .bytes = 7 * MSS, .mss_bytes = MSS, .progress = true };

    (void)state;
    tcp_accecn_init(&a);
    tcp_accecn_feedback(&a, 5 + 2, &none, &ack, &n);
    assert_int_equal(n.ce_pkts, 2);
    assert_int_equal(n.ce_bytes, 2 * MSS);
    assert_false(n.has_bytes);
    ack.segs = 20;
    ack.bytes = 20 * MSS;
    tcp_accecn_feedback(&a, 0, &none, &ack, &n); /* from 7 to 8 at least: 1, 9 or 17 of 20 */
    assert_int_equal(n.ce_pkts, 17);
    assert_int_equal(a.delivered_ce, 19);
    tcp_accecn_init(&a);
    bytes.accecn[1] = MSS;
    tcp_accecn_feedback(&a, 6, &bytes, &ack, &n); /* the bytes of one: one */
    assert_int_equal(n.ce_pkts, 1);
    assert_true(n.has_bytes);
    bytes.accecn[1] = 10 * MSS;
    tcp_accecn_feedback(&a, 7, &bytes, &ack, &n); /* nine more segments' bytes */
    assert_int_equal(n.ce_pkts, 17);
    assert_int_equal(n.ce_bytes, 9 * MSS);
}

static void
counters_of_24_bits_wrap(void **state)
{
    struct tcp_accecn a;
    struct tcp_accecn_news n;
    struct tcp_options o = { .has_accecn = true, .accecn_fields = 7, .accecn = { 1, 0xfffff0, 1 } };
    struct tcp_accecn_ack ack = { .segs = 1, .bytes = MSS, .mss_bytes = MSS, .progress = true };

    (void)state;
    tcp_accecn_init(&a);
    a.s_bytes[1] = 0xffff00;
    tcp_accecn_feedback(&a, 6, &o, &ack, &n);
    assert_int_equal(n.ce_bytes, 0xf0);
    o.accecn[1] = 0x10;
    tcp_accecn_feedback(&a, 7, &o, &ack, &n);
    assert_int_equal(n.ce_bytes, 0x20);
    assert_int_equal(a.s_bytes[1], 0x1000010);
    o.accecn[1] = 0; /* behind: an option that was overtaken */
    tcp_accecn_feedback(&a, 7, &o, &ack, &n);
    assert_int_equal(n.ce_bytes, 0);
    assert_int_equal(a.s_bytes[1], 0x1000010);
}

/** Section 3.2.3.3: the option yields to two SACK blocks, loses fields that have not changed, and goes whole where one that has would be lost. */
static void
the_option_yields(void **state)
{
    struct tcp_accecn a;
    struct tcp_options o = { .has_ts = true, .nb_sack = 3 };

    (void)state;
    tcp_accecn_init(&a);
    tcp_accecn_received(&a, TCP_ECN_ECT1, 100, true);
    tcp_accecn_option(&a, &o);
    assert_true(o.has_accecn);
    assert_int_equal(o.accecn_fields, 3); /* 12 + 8 + 20 bytes */
    assert_int_equal(o.accecn[0], 101);
    o = (struct tcp_options){ .has_ts = true, .nb_sack = 2 };
    tcp_accecn_received(&a, TCP_ECN_ECT0, 100, true);
    tcp_accecn_option(&a, &o);
    assert_false(o.has_accecn);
    o = (struct tcp_options){ .has_ts = true, .nb_sack = 1 };
    tcp_accecn_option(&a, &o); /* it was not told yet */
    assert_int_equal(o.accecn_fields, 7);
    assert_int_equal(o.accecn[2], 101);
}

/* ---- agreeing ---------------------------------------- */

/** Section 3.1.2's table, for a client. */
static void
a_client_takes_what_it_gets(void **state)
{
    static const struct {
        uint8_t ace, mode; /* TCP_INFO's numbers: 0 none, 1 classic, 2 accurate */
        bool ect;
    } rows[] = { { 0, 0, false }, { 1, 1, true }, { 2, 2, true },  { 3, 2, false },
                 { 4, 2, false }, { 5, 2, true }, { 6, 2, false }, { 7, 0, false } };
    static struct trace t;

    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        connect_with(&t, accurate, rows[i].ace, 0, with_counters);
        expect(&t, A | (rows[i].mode == 2 ? ACE(2) : 0), 1, 1, 0);
        struct tcp_conn_info info = info_of(&t);
        assert_int_equal(info.accecn ? 2 : info.ecn, rows[i].mode);
        /* Our SYN was not ECN-capable: who saw it otherwise saw it mangled (section 3.2.2.3). */
        app_send(&t, 10);
        assert_int_equal(t.out[t.nb_checked].tos & TCP_TOS_ECN, rows[i].ect ? TCP_TOS_ECT0 : 0);
        t.nb_checked = t.nb_out;
        assert_int_equal(info.delivered_ce, rows[i].ace == 6);
        trace_fini(&t);
    }
}

/** And for a server: anything but none and the old flags asks for the accurate kind, of some version (section 3.1.3). */
static void
a_server_gives_what_is_asked(void **state)
{
    static struct trace t;

    (void)state;
    for (unsigned ace = 0; ace < 8; ace++) {
        trace_init(&t, accurate);
        app_listen(&t, 1);
        peer(&t, S | ACE(ace), 0, 0, 0);
        expect(&t, S | A | ACE(ace == 0 ? 0u : ace == 3 ? 1u : 2u), 0, 1, 0);
        trace_fini(&t);
    }
}

static void
agree_to_classic(struct tcp_params *p)
{
    p->ecn = TCP_ECN_AGREE;
}

static void
agree_to_accurate(struct tcp_params *p)
{
    p->ecn = TCP_ECN_ACCURATE_AGREE;
}

static void
ask_classic(struct tcp_params *p)
{
    p->ecn = TCP_ECN_ACCURATE_AGREE_ASK;
}

/** Linux's values of net.ipv4.tcp_ecn. */
static void
each_setting_asks_and_agrees(void **state)
{
    static const struct {
        void (*adjust)(struct tcp_params *p);
        uint16_t asks, agrees;
    } rows[] = { { agree_to_classic, 0, ACE(1) },
                 { accurate, ASK, ACE(2) },
                 { ask_classic, TCP_FLAG_ECE | TCP_FLAG_CWR, ACE(2) },
                 { agree_to_accurate, 0, ACE(2) } };
    static struct trace t;

    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        trace_init(&t, rows[i].adjust);
        assert_int_equal(tcp_connect(t.d, &t.env, &t.tuple, TRACE_MSS, NULL, TRACE_USER, &t.id), 0);
        expect(&t, S | rows[i].asks, 0, 0, 0);
        trace_fini(&t);
        trace_init(&t, rows[i].adjust);
        app_listen(&t, 1);
        peer(&t, S | ASK, 0, 0, 0);
        expect(&t, S | A | rows[i].agrees, 0, 1, 0);
        trace_fini(&t);
    }
}

/** Which codepoint the SYN had (section 3.1.2), and the SYN-ACK (section 3.2.2.1). */
static void
handshakes_reflect_their_marks(void **state)
{
    static const uint8_t ace[] = { 2, 3, 4, 6 };
    static struct trace t;

    (void)state;
    for (uint8_t cp = 0; cp < 4; cp++) {
        trace_init(&t, accurate);
        app_listen(&t, 1);
        t.peer_tos = cp;
        peer(&t, S | ASK, 0, 0, 0);
        expect(&t, S | A | ACE(ace[cp]), 0, 1, 0);
        trace_fini(&t);

        connect_with(&t, accurate, 2, cp, with_counters);
        expect(&t, A | ACE(ace[cp]), 1, 1, 0);
        assert_int_equal(info_of(&t).received_ce, cp == TCP_ECN_CE);
        /* Its SYN-ACK again, with another codepoint: the latest counts, and a mark counts once. */
        t.peer_tos = TCP_TOS_CE;
        t.peer_opts = with_counters;
        peer(&t, S | A | ACE(2), 0, 1, 0);
        expect(&t, A | ACE(6), 1, 1, 0);
        assert_int_equal(info_of(&t).received_ce, 1);
        trace_fini(&t);
    }
}

/** What the ACK of a SYN-ACK says (table 4), the SYN-ACK having been sent without ECT. */
static void
the_third_ack_is_read(void **state)
{
    static struct trace t;

    (void)state;
    for (unsigned ace = 0; ace < 8; ace++) {
        bool clean = ace == 1 || ace == 2 || ace == 5 || ace == 7;
        accept_with(&t, accurate, ace);
        assert_int_equal(info_of(&t).delivered_ce, ace == 6);
        app_send(&t, 10);
        assert_int_equal(expect(&t, A | P | ACE(5), 1, 1, 10)->tos & TCP_TOS_ECN, clean ? TCP_TOS_ECT0 : 0);
        /* Note 1: after 0 the peer's counts mean nothing; else they go on from 5, or 6. */
        uint32_t cwnd = conn_of(&t)->cc.ssthresh_bytes;
        peer(&t, A | ACE(7), 1, 11, 0);
        assert_int_equal(info_of(&t).delivered_ce, ace == 0 ? 0 : 2);
        assert_int_equal(conn_of(&t)->cc.ssthresh_bytes == cwnd, ace == 0 || ace == 6);
        trace_fini(&t);
    }
}

/** Section 3.1.4.1: the second SYN asks again, the third does not; an answer to an earlier one is good still. */
TRACE_TEST(lost_syns_give_up_asking, accurate)
{
    assert_int_equal(tcp_connect(t->d, &t->env, &t->tuple, TRACE_MSS, NULL, TRACE_USER, &t->id), 0);
    expect(t, S | ASK, 0, 0, 0);
    advance(t, 1100000);
    expect(t, S | ASK, 0, 0, 0);
    advance(t, 2100000);
    expect(t, S, 0, 0, 0);
    t->peer_opts = with_counters;
    peer(t, S | A | ACE(2), 0, 1, 0);
    expect(t, A | ACE(2), 1, 1, 0);
    app_send(t, 10);
    assert_int_equal(expect(t, A | P | ACE(5), 1, 1, 10)->tos & TCP_TOS_ECN, TCP_TOS_ECT0);
}

/** Section 3.2.3.2.2: the second SYN-ACK goes without the option, the third without flags; after that nothing is ECN-capable (3.1.5). */
TRACE_TEST(lost_syn_acks_give_up, accurate)
{
    struct tcp_tuple remote;

    app_listen(t, 1);
    peer(t, S | ASK, 0, 0, 0);
    assert_true(expect(t, S | A | ACE(2), 0, 1, 0)->opts.has_accecn);
    advance(t, 1100000);
    assert_false(expect(t, S | A | ACE(2), 0, 1, 0)->opts.has_accecn);
    advance(t, 2100000);
    assert_false(expect(t, S | A, 0, 1, 0)->opts.has_accecn);
    peer(t, A | ACE(2), 1, 1, 0);
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_true(info_of(t).accecn);
    app_send(t, 10);
    assert_int_equal(expect(t, A | P | ACE(5), 1, 1, 10)->tos & TCP_TOS_ECN, 0);
}

/** Section 3.1.5: the mode is that of the first SYN; a later one without flags ends ECT, one with the old flags the handshake. */
static void
later_syns_change_no_mode(void **state)
{
    static struct trace t;
    struct tcp_tuple remote;

    (void)state;
    trace_init(&t, accurate);
    app_listen(&t, 1);
    t.peer_tos = TCP_TOS_ECT0;
    peer(&t, S | ASK, 0, 0, 0);
    expect(&t, S | A | ACE(4), 0, 1, 0);
    t.peer_tos = 0;
    peer(&t, S, 0, 0, 0);
    assert_false(expect(&t, S | A | ACE(2), 0, 1, 0)->opts.has_accecn);
    peer(&t, A | ACE(2), 1, 1, 0);
    t.id = tcp_accept(t.d, &t.env, t.listener, TRACE_USER, &remote);
    app_send(&t, 10);
    assert_int_equal(expect(&t, A | P | ACE(5), 1, 1, 10)->tos & TCP_TOS_ECN, 0);
    trace_fini(&t);

    for (unsigned first = 0; first < 2; first++) {
        trace_init(&t, accurate);
        app_listen(&t, 1);
        peer(&t, S | (first ? ASK : ACE(3)), 0, 0, 0);
        expect(&t, S | A | ACE(first ? 2u : 1u), 0, 1, 0);
        peer(&t, S | (first ? ACE(3) : ASK), 0, 0, 0);
        expect(&t, R | A, (uint32_t)-t.iss, 1, 0);
        assert_int_equal(t.ctr.v[CTR_TCP_DROP_FLAGS], 1);
        trace_fini(&t);
    }

    /* One that began without stays without. */
    trace_init(&t, accurate);
    app_listen(&t, 1);
    peer(&t, S, 0, 0, 0);
    expect(&t, S | A, 0, 1, 0);
    peer(&t, S | ASK, 0, 0, 0);
    expect(&t, S | A, 0, 1, 0);
    trace_fini(&t);
}

static void
cookies_always(struct tcp_params *p)
{
    accurate(p);
    p->syn_cookies = TCP_SYN_COOKIES_ALWAYS;
}

/** Section 5.1: nothing is kept of the SYN, with or without timestamps; the third ACK tells. */
static void
cookies_need_not_remember(void **state)
{
    static struct trace t;
    struct tcp_tuple remote;

    (void)state;
    for (unsigned ace = 0; ace <= 2; ace += 2) {
        trace_init(&t, cookies_always);
        app_listen(&t, 1);
        t.peer_opts = (struct tcp_options){ .has_mss = true, .mss = MSS };
        peer(&t, S | ASK, 0, 0, 0);
        expect(&t, S | A | ACE(2), 0, 1, 0);
        peer(&t, A | ACE(ace), 1, 1, 0);
        t.id = tcp_accept(t.d, &t.env, t.listener, TRACE_USER, &remote);
        assert_int_equal(info_of(&t).accecn, ace == 2);
        trace_fini(&t);
    }
}

TRACE_TEST(simultaneous_opens_agree_too, accurate)
{
    assert_int_equal(tcp_connect(t->d, &t->env, &t->tuple, TRACE_MSS, NULL, TRACE_USER, &t->id), 0);
    expect(t, S | ASK, 0, 0, 0);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = MSS };
    t->peer_tos = TCP_TOS_ECT0;
    peer(t, S | ASK, 0, 0, 0);
    expect(t, S | A | ACE(4), 0, 1, 0);
    t->peer_tos = TCP_TOS_CE;
    t->peer_opts = with_counters;
    peer(t, S | A | ACE(2), 0, 1, 0);
    expect(t, A | ACE(6), 1, 1, 0); /* how its SYN-ACK arrived */
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
    assert_int_equal(info_of(t).received_ce, 1);
    t->peer_tos = 0;
    peer(t, A | ACE(3), 1, 1, 0); /* and how ours did: mangled */
    app_send(t, 10);
    assert_int_equal(expect(t, A | P | ACE(6), 1, 1, 10)->tos & TCP_TOS_ECN, 0);
}

/* ---- counting ---------------------------------------- */

/** Sections 3.2 and 3.2.2.5.1: packets and bytes are counted; a first mark, and every second, is told at once. */
static void
marks_are_counted_and_told(void **state)
{
    static struct trace t;

    (void)state;
    make_client(&t, accurate_sack);
    conn_of(&t)->quick_acks = 0;
    peer(&t, A | ACE(5), 1, 1, 100);
    expect_nothing(&t); /* ECT(0): the ACK may wait */
    t.peer_tos = TCP_TOS_CE;
    peer(&t, A | ACE(5), 101, 1, 100);
    const struct tcp_out *o = expect(&t, A | ACE(6), 1, 201, 0);
    assert_int_equal(o->tos & TCP_TOS_ECN, TCP_TOS_ECT0);
    assert_int_equal(o->opts.accecn[1], 100);
    assert_int_equal(o->opts.accecn[2], 101);
    peer(&t, A | ACE(5), 201, 1, 100);
    expect_nothing(&t);
    peer(&t, A | ACE(5), 301, 1, 100);
    expect(&t, A | ACE(0), 1, 401, 0); /* 5 + 3, of which three bits are told */
    /* ACKs count as well, and the third of them is answered. */
    peer(&t, A | ACE(5), 401, 1, 0);
    peer(&t, A | ACE(5), 401, 1, 0);
    expect_nothing(&t);
    peer(&t, A | ACE(5), 401, 1, 0);
    assert_int_equal(expect(&t, A | ACE(3), 1, 401, 0)->opts.nb_sack, 0);
    assert_int_equal(info_of(&t).received_ce, 6);
    assert_int_equal(info_of(&t).received_ecn_bytes[1], 300);
    assert_int_equal(info_of(&t).received_ecn_bytes[2], 100);
    trace_fini(&t);
}

/** A mark reduces the window once for a round trip; CWR is not what tells of it (section 3.1.5). */
static void
marks_reduce_once_for_a_window(void **state)
{
    static struct trace t;

    (void)state;
    make_client(&t, accurate_bare);
    app_send(&t, MSS * 12);
    t.nb_checked = t.nb_out;
    uint32_t cwnd = conn_of(&t)->cc.cwnd_bytes;
    peer(&t, A | ACE(6), 1, 1 + MSS, 0);
    uint32_t goal = conn_of(&t)->cc.ssthresh_bytes;
    assert_int_equal(goal, cwnd / 10 * 7);
    peer(&t, A | ACE(0), 1, 1 + MSS * 6, 0);
    assert_int_equal(conn_of(&t)->cc.ssthresh_bytes, goal);
    assert_int_equal(info_of(&t).delivered_ce, 3);
    for (; t.nb_checked < t.nb_out; t.nb_checked++) {
        assert_int_equal(t.out[t.nb_checked].flags & ASK, ACE(5));
        assert_int_equal(t.out[t.nb_checked].tos & TCP_TOS_ECN, TCP_TOS_ECT0);
    }
    assert_int_equal(t.ctr.v[CTR_TCP_ECN_REDUCTIONS], 1);
    trace_fini(&t);
}

/** An ACK that was overtaken says nothing new: its count would look like seven marks (section 3.2.2.2). */
static void
overtaken_feedback_is_ignored(void **state)
{
    static struct trace t;

    (void)state;
    make_client(&t, accurate_bare);
    app_send(&t, MSS * 4);
    t.nb_checked = t.nb_out;
    peer(&t, A | ACE(6), 1, 1 + 3 * MSS, 0);
    peer(&t, A | ACE(5), 1, 1 + MSS, 0);
    assert_int_equal(info_of(&t).delivered_ce, 1);
    peer(&t, A | ACE(7), 1, 1 + 3 * MSS, 0); /* nothing is acknowledged, no timestamp tells that it is newer */
    assert_int_equal(info_of(&t).delivered_ce, 1);
    peer(&t, A | ACE(7), 1, 1 + 4 * MSS, 0);
    assert_int_equal(info_of(&t).delivered_ce, 2);
    trace_fini(&t);
}

/** DCTCP's share is that of the bytes that the option tells. */
static void
dctcp_takes_the_bytes(void **state)
{
    static struct trace t;
    struct tcp_options o = { .has_accecn = true, .accecn_fields = 7, .accecn = { 1, 500, 1 + MSS - 500 } };

    (void)state;
    make_client(&t, accurate_sack);
    assert_int_equal(tcp_set_congestion(t.d, &t.env, t.id, "dctcp"), 0);
    app_send(&t, MSS);
    t.nb_checked = t.nb_out;
    t.peer_opts = o;
    peer(&t, A | ACE(6), 1, 1 + conn_of(&t)->mss, 0);
    assert_int_equal(info_of(&t).delivered_ce, 1);
    assert_int_equal(info_of(&t).delivered_ecn_bytes[1], 500);
    /* alpha: 1024 - 64 + (500 / 1448 of 1024) / 16 */
    assert_in_range(conn_of(&t)->cc.priv[1], 960 + 20, 960 + 24);
    t.nb_checked = t.nb_out;
    trace_fini(&t);
}

/* ---- the option's path, and lies ---------------------------------------- */

/** It is sent once the peer's was seen, and every segment makes room for it. */
static void
the_option_waits_for_the_peers(void **state)
{
    static struct trace t;

    (void)state;
    connect_with(&t, accurate, 2, 0, (struct tcp_options){ .has_mss = true, .mss = MSS });
    assert_false(expect(&t, A | ACE(2), 1, 1, 0)->opts.has_accecn);
    assert_int_equal(conn_of(&t)->mss, MSS);
    app_send(&t, MSS);
    assert_false(expect(&t, A | P | ACE(5), 1, 1, MSS)->opts.has_accecn);
    t.peer_opts = with_counters;
    t.peer_opts.accecn[2] += MSS;
    peer(&t, A | ACE(5), 1, 1 + MSS, 0);
    assert_int_equal(conn_of(&t)->mss, MSS - TCP_ACCECN_OPTION_BYTES);
    app_send(&t, MSS - TCP_ACCECN_OPTION_BYTES);
    assert_true(expect(&t, A | P | ACE(5), 1 + MSS, 1, MSS - TCP_ACCECN_OPTION_BYTES)->opts.has_accecn);
    trace_fini(&t);
}

/** Sections 3.2.3.2.2: data that comes again after every ACK with the option: it does not get through. */
static void
the_option_ends_where_it_is_dropped(void **state)
{
    static struct trace t;

    (void)state;
    make_client(&t, accurate_sack);
    peer(&t, A | ACE(5), 1, 1, 100);
    assert_true(expect(&t, A | ACE(5), 1, 101, 0)->opts.has_accecn);
    peer(&t, A | ACE(5), 1, 1, 100);
    assert_true(expect(&t, A | ACE(5), 1, 101, 0)->opts.has_accecn);
    peer(&t, A | ACE(5), 1, 1, 100);
    assert_false(expect(&t, A | ACE(5), 1, 101, 0)->opts.has_accecn);
    assert_int_equal(conn_of(&t)->mss, MSS);
    peer(&t, A | ACE(5), 101, 1, 100);
    assert_false(expect(&t, A | ACE(5), 1, 201, 0)->opts.has_accecn);
    trace_fini(&t);
}

/** Sections 3.2.2.4, 3.2.3.2.4, 3.2.3.2.5: fields that something on the path has zeroed, or that contradict each other. */
static void
impossible_feedback_ends_ect(void **state)
{
    static struct trace t;
    struct tcp_options zeroed = with_counters;

    (void)state;
    make_client(&t, accurate_bare);
    app_send(&t, 10);
    t.nb_checked = t.nb_out;
    peer(&t, A | ACE(0), 1, 11, 0);
    uint32_t ssthresh = conn_of(&t)->cc.ssthresh_bytes;
    app_send(&t, 10);
    assert_int_equal(expect(&t, A | P | ACE(5), 11, 1, 10)->tos & TCP_TOS_ECN, 0);
    peer(&t, A | ACE(7), 1, 21, 0); /* and nothing that it says counts */
    assert_int_equal(conn_of(&t)->cc.ssthresh_bytes, ssthresh);
    assert_int_equal(info_of(&t).delivered_ce, 0);
    trace_fini(&t);

    memset(zeroed.accecn, 0, sizeof(zeroed.accecn));
    connect_with(&t, accurate, 2, 0, zeroed);
    expect(&t, A | ACE(2), 1, 1, 0);
    app_send(&t, 10);
    t.nb_checked = t.nb_out;
    t.peer_opts = with_counters;
    t.peer_opts.accecn[1] = 10;
    peer(&t, A | ACE(6), 1, 11, 0);
    assert_int_equal(info_of(&t).delivered_ecn_bytes[1], 0); /* the option is not read; the ACE is */
    assert_int_equal(info_of(&t).delivered_ce, 1);
    trace_fini(&t);

    make_client(&t, accurate);
    app_send(&t, 10);
    t.nb_checked = t.nb_out;
    t.peer_opts = with_counters;
    t.peer_opts.accecn[1] = 10;
    peer(&t, A | ACE(5), 1, 11, 0); /* marked bytes, and no marked packet */
    app_send(&t, 10);
    assert_int_equal(expect(&t, A | P | ACE(5), 11, 1, 10)->tos & TCP_TOS_ECN, 0);
    trace_fini(&t);
}

/** Section 3.3.4: cards mask CWR when they cut; where it is a bit of the count, each segment goes by itself. */
static void
cutting_spares_the_count(void **state)
{
    static struct trace t;

    (void)state;
    make_client(&t, accurate_bare);
    t.env.gso_max_bytes = 65535;
    app_send(&t, 4 * MSS);
    assert_true(t.out[t.nb_checked].gso_size > 0); /* 5: without the bit */
    t.nb_checked = t.nb_out;
    peer(&t, A | ACE(5), 1, 1 + 4 * MSS, 0);
    t.peer_tos = TCP_TOS_CE;
    peer(&t, A | ACE(5), 1, 1 + 4 * MSS, 100);
    expect(&t, A | ACE(6), 1 + 4 * MSS, 101, 0);
    app_send(&t, 4 * MSS);
    assert_true(t.nb_out > t.nb_checked);
    for (; t.nb_checked < t.nb_out; t.nb_checked++)
        assert_int_equal(t.out[t.nb_checked].gso_size, 0);
    trace_fini(&t);
}

/** Section 3.2.2.5.1: however many come at once, no more than the field can count wait for one acknowledgement. */
static void
marks_of_a_burst_do_not_wrap(void **state)
{
    static struct trace t;
    unsigned acks;

    (void)state;
    make_client(&t, accurate_bare);
    t.nb_checked = t.nb_out;
    t.peer_tos = TCP_TOS_CE;
    for (unsigned i = 0; i < 16; i++) {
        t.peer_more = i < 15;
        peer(&t, A | ACE(5), 1 + 100 * i, 1, 100);
    }
    acks = t.nb_out - t.nb_checked;
    assert_in_range(acks, 3, 9);
    t.nb_checked = t.nb_out;
    trace_fini(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_of_a_burst_do_not_wrap),
        cmocka_unit_test(codes_of_the_handshake),
        cmocka_unit_test(wraps_are_judged),
        cmocka_unit_test(counters_of_24_bits_wrap),
        cmocka_unit_test(the_option_yields),
        cmocka_unit_test(a_client_takes_what_it_gets),
        cmocka_unit_test(a_server_gives_what_is_asked),
        cmocka_unit_test(each_setting_asks_and_agrees),
        cmocka_unit_test(handshakes_reflect_their_marks),
        cmocka_unit_test(the_third_ack_is_read),
        cmocka_unit_test(lost_syns_give_up_asking),
        cmocka_unit_test(lost_syn_acks_give_up),
        cmocka_unit_test(later_syns_change_no_mode),
        cmocka_unit_test(cookies_need_not_remember),
        cmocka_unit_test(simultaneous_opens_agree_too),
        cmocka_unit_test(marks_are_counted_and_told),
        cmocka_unit_test(marks_reduce_once_for_a_window),
        cmocka_unit_test(overtaken_feedback_is_ignored),
        cmocka_unit_test(dctcp_takes_the_bytes),
        cmocka_unit_test(the_option_waits_for_the_peers),
        cmocka_unit_test(the_option_ends_where_it_is_dropped),
        cmocka_unit_test(impossible_feedback_ends_ect),
        cmocka_unit_test(cutting_spares_the_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
