/* SPDX-License-Identifier: BSD-3-Clause */
#include "fixture.h"

#include <stdio.h>

static uint8_t frame[4096];
static uint32_t frame_len;

/** A sound TCP frame with 100 bytes of payload. */
static void
build_sound(void)
{
    uint8_t l4[200];

    frame_len = build_ipv4(frame, PEER, US, IPPROTO_TCP, l4, build_tcp(l4, PEER, US, 1000, 80, 100));
}

static void
set_src(const char *text)
{
    uint32_t be = be_addr(text);

    memcpy(frame + 26, &be, 4);
    fix_ipv4_checksum(frame);
}

static void
set_dst(const char *text)
{
    uint32_t be = be_addr(text);

    memcpy(frame + 30, &be, 4);
    fix_ipv4_checksum(frame);
}

/** Insert options behind the fixed header; len is a multiple of 4. */
static void
insert_options(const uint8_t *opt, unsigned len)
{
    memmove(frame + 34 + len, frame + 34, frame_len - 34);
    memcpy(frame + 34, opt, len);
    frame_len += len;
    frame[14] = (uint8_t)(0x45 + len / 4);
    frame[17] = (uint8_t)(frame[17] + len);
    fix_ipv4_checksum(frame);
}

static void
insert_tag(uint16_t tci)
{
    memmove(frame + 16, frame + 12, frame_len - 12);
    frame[12] = 0x81;
    frame[13] = 0x00;
    frame[14] = (uint8_t)(tci >> 8);
    frame[15] = (uint8_t)tci;
    frame_len += 4;
}

/* ---- what is accepted ---------------------------------------------------------------------------------------------- */

static void
assert_accepted(uint16_t l4_off)
{
    struct ip_packet out;
    struct ip_addr src = addr(PEER), dst = addr(US);
    const uint8_t *l4;
    unsigned i;

    assert_int_equal(feed(frame, frame_len, &out), 1);
    assert_true(ip_addr_equal(&out.src, &src) && ip_addr_equal(&out.dst, &dst));
    assert_int_equal(out.l4_off, l4_off);
    assert_int_equal(out.l4_len, 120);
    assert_int_equal(out.proto, IPPROTO_TCP);
    assert_int_equal(out.ttl, 63);
    assert_true(out.l4_csum_good);
    assert_int_equal(rte_pktmbuf_pkt_len(out.m), l4_off + 120);
    l4 = rte_pktmbuf_mtod_offset(out.m, const uint8_t *, l4_off);
    for (i = 0; i < 100; i++) {
        assert_int_equal(l4[20 + i], payload_byte(i));
    }
    rte_pktmbuf_free(out.m);
}

static void
sound_packet_is_accepted(void **state)
{
    (void)state;
    build_sound();
    frame[15] = 0x03; /* TOS */
    fix_ipv4_checksum(frame);
    assert_accepted(34);
    assert_int_equal(counter(CTR_IP_RX), 1);
    assert_int_equal(fx.nb_sent, 0);
}

static void
padding_is_trimmed(void **state)
{
    struct rte_mbuf *m;
    struct ip_packet out;

    (void)state;
    build_sound();
    memset(frame + frame_len, 0xee, 30);
    frame_len += 30;
    assert_accepted(34);
    /* Also where it fills segments of its own. */
    m = mbuf_of(frame, frame_len, 77);
    assert_int_equal(m->nb_segs, 3);
    assert_int_equal(ip_input(fx.ip, &m, 1, &out, fx.now_us), 1);
    assert_int_equal(rte_pktmbuf_pkt_len(out.m), 154);
    assert_int_equal(out.m->nb_segs, 2);
    rte_mbuf_sanity_check(out.m, 1);
    rte_pktmbuf_free(out.m);
}

static void
options_are_skipped(void **state)
{
    static const uint8_t record_route[12] = { 7, 11, 4 };
    static const uint8_t nops[4] = { 1, 1, 1, 0 };

    (void)state;
    build_sound();
    insert_options(record_route, sizeof(record_route));
    assert_accepted(46);
    build_sound();
    insert_options(nops, sizeof(nops));
    assert_accepted(38);
}

static void
priority_tag_is_skipped(void **state)
{
    (void)state;
    build_sound();
    insert_tag(0xe000);
    assert_accepted(38);
    assert_int_equal(counter(CTR_ETH_DROP_VLAN), 0);
}

static void
port_verdicts_are_used_if_it_gives_any(void **state)
{
    static const struct {
        uint64_t flags;
        bool caps, break_sum, accepted;
        enum counter_id why;
    } rows[] = {
        { RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD, true, true, true, CTR_IP_RX },
        { RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_NONE, true, true, true, CTR_IP_RX },
        { RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD, false, true, false, CTR_TCP_DROP_CHECKSUM },
        { RTE_MBUF_F_RX_IP_CKSUM_GOOD, true, true, false, CTR_TCP_DROP_CHECKSUM },
        { 0, true, false, true, CTR_IP_RX },
        { RTE_MBUF_F_RX_IP_CKSUM_BAD, true, false, false, CTR_IP_DROP_CHECKSUM },
        { RTE_MBUF_F_RX_L4_CKSUM_BAD, true, false, false, CTR_TCP_DROP_CHECKSUM },
    };
    unsigned i;

    (void)state;
    for (i = 0; i < RTE_DIM(rows); i++) {
        struct rte_mbuf *m;
        struct ip_packet out;
        uint64_t before = counter(rows[i].why);

        build_sound();
        frame[60] ^= rows[i].break_sum ? 0x10 : 0;
        m = mbuf_of(frame, frame_len, 0);
        m->ol_flags |= rows[i].flags;
        fx.port.caps.rx_csum = rows[i].caps;
        assert_int_equal(ip_input(fx.ip, &m, 1, &out, fx.now_us), rows[i].accepted);
        assert_int_equal(counter(rows[i].why), before + 1);
        if (rows[i].accepted) {
            rte_pktmbuf_free(out.m);
        }
    }
}

static void
a_burst_keeps_its_order(void **state)
{
    struct rte_mbuf *m[64];
    struct ip_packet out[64];
    unsigned i;

    (void)state;
    for (i = 0; i < 64; i++) {
        uint8_t l4[200];

        frame_len = build_ipv4(frame, PEER, US, IPPROTO_TCP, l4, build_tcp(l4, PEER, US, (uint16_t)i, 80, i));
        frame[14] = i % 4 == 3 ? 0x65 : 0x45;
        m[i] = mbuf_of(frame, frame_len, 0);
    }
    assert_int_equal(ip_input(fx.ip, m, 64, out, fx.now_us), 48);
    for (i = 0; i < 48; i++) {
        assert_int_equal(out[i].l4_len, 20 + i / 3 * 4 + i % 3);
        rte_pktmbuf_free(out[i].m);
    }
    assert_int_equal(counter(CTR_IP_DROP_HEADER), 16);
}

/* ---- what is dropped ----------------------------------------------------------------------------------------------- */

static void
cut_to(uint32_t len)
{
    frame_len = len;
}

static void
set_byte(unsigned at, uint8_t value)
{
    frame[at] = value;
    fix_ipv4_checksum(frame);
}

#define DROP(text, counter_id, action)                                                                                 \
    static void drop_##text(void)                                                                                      \
    {                                                                                                                  \
        action;                                                                                                        \
    }
#include "drops.def"
#undef DROP

static const struct {
    const char *name;
    enum counter_id why;
    void (*spoil)(void);
} drops[] = {
#define DROP(text, counter_id, action) { #text, counter_id, drop_##text },
#include "drops.def"
#undef DROP
};

static void
each_defect_hits_its_counter(void **state)
{
    struct counters before;
    struct ip_packet out;
    unsigned i;
    unsigned id;

    (void)state;
    for (i = 0; i < RTE_DIM(drops); i++) {
        build_sound();
        drops[i].spoil();
        before = fx.ctr;
        assert_int_equal(feed(frame, frame_len, &out), 0);
        for (id = 0; id < CTR_COUNT; id++) {
            bool passed_ip =
                id == CTR_IP_RX && (drops[i].why == CTR_TCP_DROP_SHORT || drops[i].why == CTR_TCP_DROP_CHECKSUM);

            if (fx.ctr.v[id] != before.v[id] + (id == drops[i].why || passed_ip)) {
                fail_msg("%s: counter %s went from %ju to %ju", drops[i].name, counter_infos[id].name,
                         (uintmax_t)before.v[id], (uintmax_t)fx.ctr.v[id]);
            }
        }
        assert_int_equal(fx.nb_sent, 0); /* never an answer */
    }
}

/* ---- fragments ----------------------------------------------------------------------------------------------------- */

/** Piece [from, from + len) of a TCP packet with 1000 bytes of payload. */
static uint16_t
feed_piece(uint16_t id, uint32_t from, uint32_t len, struct ip_packet *out)
{
    uint8_t l4[1020];
    uint32_t total = build_tcp(l4, PEER, US, 1000, 80, 1000);
    uint16_t field = (uint16_t)(from / 8 | (from + len < total ? 0x2000 : 0));

    frame_len = build_ipv4(frame, PEER, US, IPPROTO_TCP, l4 + from, len);
    frame[18] = (uint8_t)(id >> 8);
    frame[19] = (uint8_t)id;
    frame[20] = (uint8_t)(field >> 8);
    frame[21] = (uint8_t)field;
    fix_ipv4_checksum(frame);
    return feed(frame, frame_len, out);
}

static void
fragments_come_together_in_any_order(void **state)
{
    static const uint32_t cuts[][2] = { { 0, 400 }, { 400, 304 }, { 704, 316 } };
    static const uint8_t orders[][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 1, 0, 2 }, { 1, 2, 0 } };
    struct ip_packet out;
    uint8_t bytes[1020];
    const uint8_t *at;
    unsigned i, k;

    (void)state;
    fx.port.caps.rx_csum = true;
    for (i = 0; i < RTE_DIM(orders); i++) {
        for (k = 0; k < 3; k++) {
            const uint32_t *cut = cuts[orders[i][k]];

            assert_int_equal(feed_piece((uint16_t)i, cut[0], cut[1], &out), k == 2);
        }
        assert_int_equal(out.l4_off, 34);
        assert_int_equal(out.l4_len, 1020);
        assert_int_equal(rte_pktmbuf_pkt_len(out.m), 1054);
        at = rte_pktmbuf_read(out.m, 34, 1020, bytes);
        for (k = 0; k < 1000; k++) {
            assert_int_equal(at[20 + k], payload_byte(k));
        }
        rte_pktmbuf_free(out.m);
    }
    assert_int_equal(counter(CTR_IP_FRAGMENTS), 12);
    assert_int_equal(counter(CTR_IP_REASSEMBLED), 4);
    assert_int_equal(counter(CTR_IP_RX), 4);
    assert_int_equal(counter(CTR_IP_DROP_FRAGMENT), 0);
}

/** The first fragment says what the packet is, also if another that claims otherwise comes last. */
static void
first_fragment_heads_the_packet(void **state)
{
    uint8_t l4[1020];
    struct ip_packet out;

    (void)state;
    build_tcp(l4, PEER, US, 1000, 80, 1000);
    assert_int_equal(feed_piece(1, 0, 400, &out), 0);
    frame_len = build_ipv4(frame, PEER, US, IPPROTO_ICMP, l4 + 400, 620);
    frame[18] = 0;
    frame[19] = 1;
    frame[21] = 50;
    fix_ipv4_checksum(frame);
    assert_int_equal(feed(frame, frame_len, &out), 1);
    assert_int_equal(out.l4_len, 1020);
    rte_pktmbuf_free(out.m);
}

/** What the port says about the checksum of a fragment says nothing about the whole. */
static void
whole_is_summed_whatever_the_port_said(void **state)
{
    struct ip_packet out;
    struct rte_mbuf *m;

    (void)state;
    fx.port.caps.rx_csum = true;
    assert_int_equal(feed_piece(1, 400, 620, &out), 0);
    assert_int_equal(feed_piece(2, 0, 400, &out), 0); /* leaves its frame behind */
    frame[19] = 1;
    frame[200] ^= 1;
    m = mbuf_of(frame, frame_len, 0);
    m->ol_flags |= RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    assert_int_equal(ip_input(fx.ip, &m, 1, &out, fx.now_us), 0);
    assert_int_equal(counter(CTR_IP_REASSEMBLED), 1);
    assert_int_equal(counter(CTR_TCP_DROP_CHECKSUM), 1);
}

/** The transport header must lie in the first segment, options included. */
static void
split_tcp_header_is_dropped(void **state)
{
    uint8_t l4[120];
    struct ip_packet out;
    struct rte_mbuf *m;
    unsigned hdr_len, accepted;

    (void)state;
    fx.port.caps.rx_csum = true;
    for (hdr_len = 20; hdr_len <= 60; hdr_len += 20) {
        build_tcp(l4, PEER, US, 1000, 80, 100);
        l4[12] = (uint8_t)(hdr_len / 4 << 4);
        frame_len = build_ipv4(frame, PEER, US, IPPROTO_TCP, l4, sizeof(l4));
        m = mbuf_of(frame, frame_len, 34 + 40);
        m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
        accepted = hdr_len <= 40;
        assert_int_equal(ip_input(fx.ip, &m, 1, &out, fx.now_us), accepted);
        assert_int_equal(counter(CTR_TCP_DROP_SHORT), !accepted);
        if (accepted) {
            rte_pktmbuf_free(out.m);
        }
    }
}

static void
incomplete_packets_time_out(void **state)
{
    struct ip_packet out;

    (void)state;
    assert_int_equal(feed_piece(1, 0, 400, &out), 0);
    advance(20 * S_US);
    assert_int_equal(feed_piece(2, 0, 400, &out), 0);
    advance(10 * S_US + 1);
    assert_int_equal(counter(CTR_IP_DROP_FRAGMENT), 1);
    advance(60 * S_US);
    assert_int_equal(counter(CTR_IP_DROP_FRAGMENT), 2);
    assert_int_equal(ip_next_us(fx.ip, fx.now_us), UINT64_MAX);
    assert_int_equal(rte_mempool_avail_count(fx.pool.rx), POOL_COUNT);
}

static void
bad_fragments_are_dropped(void **state)
{
    struct ip_packet out;
    unsigned i;

    (void)state;
    assert_int_equal(feed_piece(1, 0, 401, &out), 0); /* not a multiple of 8, and more to come */
    assert_int_equal(counter(CTR_IP_DROP_FRAGMENT), 1);
    build_sound();
    set_byte(20, 0x1f);
    set_byte(21, 0xff); /* ends behind 64 KiB */
    assert_int_equal(feed(frame, frame_len, &out), 0);
    assert_int_equal(counter(CTR_IP_DROP_FRAGMENT), 2);
    /* The TCP header is cut in two: RFC 1858. */
    assert_int_equal(feed_piece(2, 8, 1012, &out), 0);
    assert_int_equal(feed_piece(2, 0, 8, &out), 0);
    assert_int_equal(counter(CTR_TCP_DROP_SHORT), 1);
    /* More packets in pieces than there is room for: memory stays bounded. */
    for (i = 0; i < 500; i++) {
        assert_int_equal(feed_piece((uint16_t)(100 + i), 0, 400, &out), 0);
    }
    assert_true(rte_mempool_avail_count(fx.pool.rx) >= POOL_COUNT - 64);
    assert_true(counter(CTR_IP_DROP_FRAGMENT) >= 2 + 500 - 64);
}

/* ---- anything ------------------------------------------------------------------------------------------------------ */

/** A valid frame of some kind. */
static void
build_some(struct rng *rng)
{
    uint8_t l4[1400];
    uint32_t len = rng_below(rng, 1300);

    memset(l4, 0, sizeof(l4));
    switch (rng_below(rng, 6)) {
    case 0:
        frame_len = build_arp(frame, (uint16_t)(1 + rng_below(rng, 2)), &mac_us, &mac_peer, PEER, US);
        break;
    case 1:
        l4[0] = 8;
        frame_len = build_ipv4(frame, PEER, US, IPPROTO_ICMP, l4, 8 + len);
        break;
    case 2:
        l4[4] = (uint8_t)((8 + len) >> 8);
        l4[5] = (uint8_t)(8 + len);
        frame_len = build_ipv4(frame, PEER, US, IPPROTO_UDP, l4, 8 + len);
        break;
    case 3: /* an error about a segment of ours */
        l4[0] = 3;
        l4[1] = (uint8_t)rng_below(rng, 16);
        frame_len = build_ipv4(frame, US, PEER, IPPROTO_TCP, l4 + 200, 8);
        memmove(l4 + 8, frame + 14, 28);
        frame_len = build_ipv4(frame, PEER, US, IPPROTO_ICMP, l4, 36);
        break;
    default:
        frame_len = build_ipv4(frame, PEER, US, IPPROTO_TCP, l4, build_tcp(l4, PEER, US, 1000, 80, len));
        break;
    }
}

/** Ones' complement repair of an ICMP checksum, so that mutations reach what lies behind it. */
static void
fix_icmp_checksum(void)
{
    uint32_t off = 14 + (frame[14] & 15u) * 4u;
    uint16_t sum;

    if (frame[23] != IPPROTO_ICMP || off + 8 > frame_len) {
        return;
    }
    frame[off + 2] = 0;
    frame[off + 3] = 0;
    sum = reference_sum(frame + off, frame_len - off, 0);
    frame[off + 2] = (uint8_t)(sum >> 8);
    frame[off + 3] = (uint8_t)sum;
}

static void
mutate(struct rng *rng)
{
    unsigned n = rng_below(rng, 5);

    while (n-- > 0) {
        switch (rng_below(rng, 4)) {
        case 0: /* a byte of the headers */
            frame[12 + rng_below(rng, RTE_MIN(frame_len, 60u) - 12)] = (uint8_t)rng_next(rng);
            break;
        case 1: /* a bit anywhere */
            frame[rng_below(rng, frame_len)] ^= (uint8_t)(1u << rng_below(rng, 8));
            break;
        case 2: /* the end is missing */
            frame_len = RTE_MAX(13u, frame_len - rng_below(rng, frame_len));
            break;
        default: /* rubbish behind */
            memset(frame + frame_len, 0x5a, 100);
            frame_len += rng_below(rng, 100);
            break;
        }
    }
    if (rng_below(rng, 2) == 0 && frame_len >= 34 && 14 + (frame[14] & 15u) * 4u <= frame_len) {
        fix_ipv4_checksum(frame);
        fix_icmp_checksum();
    }
}

/** What comes out is sound, what does not is counted, nothing is lost. Chains of small segments included. */
static void
mutations_neither_crash_nor_leak(void **state)
{
    enum { ROUNDS = 20000 };
    uint64_t seed = 20240607;
    struct rng rng;
    unsigned round, passed = 0;

    (void)state;
    print_message("seed %ju\n", (uintmax_t)seed);
    rng_init(&rng, seed, 0);
    for (round = 0; round < ROUNDS; round++) {
        struct ip_packet out;
        struct rte_mbuf *m;

        build_some(&rng);
        mutate(&rng);
        m = mbuf_of(frame, frame_len, rng_below(&rng, 4) == 0 ? (uint16_t)(30 + rng_below(&rng, 200)) : 0);
        if (ip_input(fx.ip, &m, 1, &out, fx.now_us) == 1) {
            assert_true(out.l4_len >= 20);
            assert_int_equal(out.l4_off + out.l4_len, rte_pktmbuf_pkt_len(out.m));
            assert_true(out.l4_off + 20u <= rte_pktmbuf_data_len(out.m));
            rte_mbuf_sanity_check(out.m, 1);
            rte_pktmbuf_free(out.m);
            passed++;
        }
        if (round % 64 == 0) {
            advance(rng_below(&rng, 3000000));
        }
        if (fx.nb_sent > SENT_MAX / 2) {
            forget_sent();
        }
    }
    assert_in_range(passed, ROUNDS / 20, ROUNDS / 2);
    assert_true(counter(CTR_IP_DROP_HEADER) > 0 && counter(CTR_IP_DROP_SHORT) > 0 && counter(CTR_IP_FRAGMENTS) > 0 &&
                counter(CTR_ICMP_RX) > 0 && fx.nb_unreachable > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(sound_packet_is_accepted),
        FIXTURE_TEST(padding_is_trimmed),
        FIXTURE_TEST(options_are_skipped),
        FIXTURE_TEST(priority_tag_is_skipped),
        FIXTURE_TEST(port_verdicts_are_used_if_it_gives_any),
        FIXTURE_TEST(a_burst_keeps_its_order),
        FIXTURE_TEST(each_defect_hits_its_counter),
        FIXTURE_TEST(fragments_come_together_in_any_order),
        FIXTURE_TEST(first_fragment_heads_the_packet),
        FIXTURE_TEST(whole_is_summed_whatever_the_port_said),
        FIXTURE_TEST(split_tcp_header_is_dropped),
        FIXTURE_TEST(incomplete_packets_time_out),
        FIXTURE_TEST(bad_fragments_are_dropped),
        FIXTURE_TEST(mutations_neither_crash_nor_leak),
    };

    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
