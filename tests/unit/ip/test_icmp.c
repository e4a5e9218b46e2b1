/* SPDX-License-Identifier: BSD-3-Clause */
#include "fixture.h"

static uint8_t frame[4096];

/** An ICMP message to us with its checksum; returns the frame's length. */
static uint32_t
build_icmp(uint8_t *icmp, uint32_t len)
{
    uint16_t sum;

    icmp[2] = 0;
    icmp[3] = 0;
    sum = reference_sum(icmp, len, 0);
    icmp[2] = (uint8_t)(sum >> 8);
    icmp[3] = (uint8_t)sum;
    return build_ipv4(frame, PEER, US, IPPROTO_ICMP, icmp, len);
}

/** Frame i is IPv4 from us to the peer with sound checksums; returns its ICMP message and its length. */
static const uint8_t *
sent_icmp(unsigned i, uint32_t *len)
{
    const struct sent *s = &fx.sent[i];
    uint32_t us = be_addr(US), peer = be_addr(PEER);

    assert_true(i < fx.nb_sent);
    assert_memory_equal(s->bytes, &mac_peer, 6);
    assert_memory_equal(s->bytes + 6, &mac_us, 6);
    assert_int_equal(s->bytes[14], 0x45);
    assert_int_equal(s->bytes[16] << 8 | s->bytes[17], s->len - 14);
    assert_int_equal(s->bytes[22], 64);
    assert_int_equal(s->bytes[23], IPPROTO_ICMP);
    assert_memory_equal(s->bytes + 26, &us, 4);
    assert_memory_equal(s->bytes + 30, &peer, 4);
    assert_int_equal(reference_sum(s->bytes + 14, 20, 0), 0);
    *len = s->len - 34;
    return s->bytes + 34;
}

static void
assert_echo(const uint8_t *request, uint32_t len, unsigned index)
{
    uint32_t got_len;
    const uint8_t *got = sent_icmp(index, &got_len);

    assert_int_equal(got_len, len);
    assert_int_equal(got[0], 0);
    assert_int_equal(got[1], 0);
    assert_memory_equal(got + 4, request + 4, len - 4);
    assert_int_equal(reference_sum(got, got_len, 0), 0);
}

static void
fill_echo(uint8_t *icmp, uint32_t len)
{
    uint32_t i;

    memset(icmp, 0, 8);
    icmp[0] = 8;
    icmp[4] = 0xab;
    icmp[5] = 0xcd;
    icmp[7] = 1;
    for (i = 8; i < len; i++) {
        icmp[i] = payload_byte(i);
    }
}

static void
echo_is_answered_byte_by_byte(void **state)
{
    static const uint32_t lengths[] = { 8, 9, 64, 65, 1479, 1480 };
    uint8_t icmp[1500];
    struct ip_packet out;
    unsigned i;

    (void)state;
    learn(PEER, &mac_peer);
    for (i = 0; i < RTE_DIM(lengths); i++) {
        struct rte_mbuf *m;
        uint32_t len;

        fill_echo(icmp, lengths[i]);
        len = build_icmp(icmp, lengths[i]);
        frame[15] = 0x20;
        fix_ipv4_checksum(frame);
        assert_int_equal(feed(frame, len, &out), 0);
        assert_int_equal(fx.nb_sent, 1);
        assert_echo(icmp, lengths[i], 0);
        assert_int_equal(fx.sent[0].bytes[15], 0x20); /* TOS goes back */
        forget_sent();
        m = mbuf_of(frame, len, 51);
        assert_int_equal(ip_input(fx.ip, &m, 1, &out, fx.now_us), 0);
        assert_echo(icmp, lengths[i], 0);
        forget_sent();
    }
    assert_int_equal(counter(CTR_ICMP_RX), 2 * RTE_DIM(lengths));
    assert_int_equal(counter(CTR_ICMP_TX), 2 * RTE_DIM(lengths));
}

static void
echo_with_options_and_offloads(void **state)
{
    uint8_t icmp[64];
    struct ip_packet out;
    struct rte_mbuf *m;
    uint32_t len;

    (void)state;
    learn(PEER, &mac_peer);
    fx.port.caps.tx_ip_csum = true;
    fx.port.caps.must_copy = true;
    fill_echo(icmp, sizeof(icmp));
    len = build_icmp(icmp, sizeof(icmp));
    memmove(frame + 38, frame + 34, sizeof(icmp));
    memset(frame + 34, 1, 4);
    frame[14] = 0x46;
    frame[17] = (uint8_t)(frame[17] + 4);
    fix_ipv4_checksum(frame);
    m = mbuf_of(frame, len + 4, 0);
    m->ol_flags |= RTE_MBUF_F_RX_IP_CKSUM_GOOD; /* must not look like a flag for transmission */
    assert_int_equal(ip_input(fx.ip, &m, 1, &out, fx.now_us), 0);
    assert_int_equal(fx.nb_sent, 1);
    assert_int_equal(fx.sent[0].len, 34 + sizeof(icmp));
    assert_int_equal(fx.sent[0].ol_flags & RTE_MBUF_F_TX_OFFLOAD_MASK, RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM);
    assert_int_equal(fx.sent[0].ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK, 0);
    assert_int_equal(fx.sent[0].l3_len, 20);
    assert_memory_equal(fx.sent[0].bytes + 38, icmp + 4, sizeof(icmp) - 4);
}

static void
large_echo_comes_and_goes_in_fragments(void **state)
{
    static const uint16_t piece = 1480;
    uint8_t icmp[4000], back[4000];
    struct ip_packet out;
    uint16_t sum;
    uint32_t off;
    unsigned i;

    (void)state;
    learn(PEER, &mac_peer);
    fill_echo(icmp, sizeof(icmp));
    sum = reference_sum(icmp, sizeof(icmp), 0);
    icmp[2] = (uint8_t)(sum >> 8);
    icmp[3] = (uint8_t)sum;
    for (off = 0; off < sizeof(icmp); off += piece) {
        uint32_t part = RTE_MIN(sizeof(icmp) - off, piece);
        uint32_t len = build_ipv4(frame, PEER, US, IPPROTO_ICMP, icmp + off, part);

        frame[20] = (uint8_t)(off / 8 >> 8 | (off + part < sizeof(icmp) ? 0x20 : 0));
        frame[21] = (uint8_t)(off / 8);
        fix_ipv4_checksum(frame);
        assert_int_equal(fx.nb_sent, 0);
        assert_int_equal(feed(frame, len, &out), 0);
    }
    assert_int_equal(fx.nb_sent, 3);
    for (i = 0; i < 3; i++) {
        uint32_t got;
        const uint8_t *at = sent_icmp(i, &got);
        unsigned field = (unsigned)(fx.sent[i].bytes[20] << 8 | fx.sent[i].bytes[21]);

        assert_true(fx.sent[i].len <= 1514);
        assert_int_equal(field & 0xe000, i < 2 ? 0x2000 : 0);
        memcpy(back + (field & 0x1fff) * 8, at, got);
    }
    assert_int_equal(back[0], 0);
    assert_memory_equal(back + 4, icmp + 4, sizeof(icmp) - 4);
    assert_int_equal(reference_sum(back, sizeof(back), 0), 0);
}

static void
malformed_and_unknown_messages(void **state)
{
    static const uint8_t ignored[] = { 0, 4, 5, 9, 10, 13, 15, 17, 255 };
    uint8_t icmp[40] = { 8 };
    struct ip_packet out;
    uint32_t len;
    unsigned i;

    (void)state;
    learn(PEER, &mac_peer);
    len = build_icmp(icmp, 40);
    frame[50] ^= 1;
    assert_int_equal(feed(frame, len, &out), 0);
    assert_int_equal(feed(frame, build_icmp(icmp, 7), &out), 0);
    assert_int_equal(counter(CTR_ICMP_DROP_MALFORMED), 2);
    for (i = 0; i < RTE_DIM(ignored); i++) {
        icmp[0] = ignored[i];
        assert_int_equal(feed(frame, build_icmp(icmp, 40), &out), 0);
        assert_int_equal(counter(CTR_ICMP_IGNORED), i + 1);
    }
    assert_int_equal(fx.nb_sent, 0);
}

/* ---- errors in ----------------------------------------------------------------------------------------------------- */

/** An error that quotes our segment 10.0.0.2:8080 -> 192.0.2.1:443 with sequence number 0xfedcba98. */
static uint32_t
build_error(uint8_t type, uint8_t code, uint8_t proto, const char *quoted_src, uint32_t quoted_len)
{
    static const uint8_t l4[8] = { 0x1f, 0x90, 0x01, 0xbb, 0xfe, 0xdc, 0xba, 0x98 };
    uint8_t icmp[8 + 28] = { type, code, 0, 0, 0, 0, 0x05, 0x14 };

    build_ipv4(frame, quoted_src, "192.0.2.1", proto, l4, 8);
    memcpy(icmp + 8, frame + 14, 28);
    return build_icmp(icmp, 8 + quoted_len);
}

static void
errors_reach_the_layer_above(void **state)
{
    static const struct {
        uint8_t type, code;
        int error;
        bool hard;
        uint16_t mtu;
    } rows[] = {
        { 3, 0, ENETUNREACH, false, 0 },    { 3, 1, EHOSTUNREACH, false, 0 },  { 3, 2, ENOPROTOOPT, true, 0 },
        { 3, 3, ECONNREFUSED, true, 0 },    { 3, 4, EMSGSIZE, false, 1300 },   { 3, 5, EOPNOTSUPP, false, 0 },
        { 3, 6, ENETUNREACH, false, 0 },    { 3, 7, EHOSTDOWN, false, 0 },     { 3, 9, ENETUNREACH, true, 0 },
        { 3, 10, EHOSTUNREACH, true, 0 },   { 3, 12, EHOSTUNREACH, false, 0 }, { 3, 13, EHOSTUNREACH, true, 0 },
        { 3, 255, EHOSTUNREACH, false, 0 }, { 11, 0, EHOSTUNREACH, false, 0 }, { 12, 0, EPROTO, false, 0 },
    };
    struct ip_addr local = addr(US), remote = addr("192.0.2.1");
    struct ip_packet out;
    unsigned i;

    (void)state;
    for (i = 0; i < RTE_DIM(rows); i++) {
        uint32_t len = build_error(rows[i].type, rows[i].code, IPPROTO_TCP, US, 28);

        assert_int_equal(feed(frame, len, &out), 0);
        assert_int_equal(fx.nb_unreachable, i + 1);
        assert_int_equal(fx.unreachable.error, rows[i].error);
        assert_int_equal(fx.unreachable.hard, rows[i].hard);
        assert_int_equal(fx.unreachable.mtu, rows[i].mtu);
        assert_true(ip_addr_equal(&fx.unreachable.local, &local));
        assert_true(ip_addr_equal(&fx.unreachable.remote, &remote));
        assert_int_equal(fx.unreachable.local_port, 8080);
        assert_int_equal(fx.unreachable.remote_port, 443);
        assert_int_equal(fx.unreachable.seq, 0xfedcba98);
    }
    assert_int_equal(fx.nb_sent, 0);
}

static void
errors_that_cannot_be_ours(void **state)
{
    struct ip_packet out;

    (void)state;
    assert_int_equal(feed(frame, build_error(3, 3, IPPROTO_TCP, "10.0.0.7", 28), &out), 0);
    assert_int_equal(feed(frame, build_error(3, 3, IPPROTO_UDP, US, 28), &out), 0);
    assert_int_equal(counter(CTR_ICMP_IGNORED), 2);
    assert_int_equal(feed(frame, build_error(3, 3, IPPROTO_TCP, US, 27), &out), 0);
    assert_int_equal(feed(frame, build_error(3, 3, IPPROTO_TCP, US, 19), &out), 0);
    assert_int_equal(feed(frame, build_error(3, 3, IPPROTO_TCP, US, 0), &out), 0);
    assert_int_equal(counter(CTR_ICMP_DROP_MALFORMED), 3);
    assert_int_equal(fx.nb_unreachable, 0);
}

/* ---- errors out ---------------------------------------------------------------------------------------------------- */

/** A datagram without checksum to us. */
static uint32_t
build_udp(uint16_t payload, uint16_t claimed)
{
    uint8_t l4[1480];
    unsigned i;

    memset(l4, 0, 8);
    l4[3] = 53;
    l4[4] = (uint8_t)(claimed >> 8);
    l4[5] = (uint8_t)claimed;
    for (i = 0; i < payload; i++) {
        l4[8 + i] = payload_byte(i);
    }
    return build_ipv4(frame, PEER, US, IPPROTO_UDP, l4, 8u + payload);
}

static void
assert_unreachable_sent(unsigned index, uint8_t code, uint32_t quoted_len)
{
    static const uint8_t unused[4];
    uint32_t len;
    const uint8_t *icmp = sent_icmp(index, &len);

    assert_int_equal(icmp[0], 3);
    assert_int_equal(icmp[1], code);
    assert_memory_equal(icmp + 4, unused, 4);
    assert_int_equal(len, 8 + quoted_len);
    assert_memory_equal(icmp + 8, frame + 14, quoted_len); /* what was received, from its IPv4 header on */
    assert_int_equal(reference_sum(icmp, len, 0), 0);
}

static void
closed_udp_port_is_unreachable(void **state)
{
    struct ip_packet out;
    struct rte_mbuf *m;
    uint32_t len;

    (void)state;
    learn(PEER, &mac_peer);
    assert_int_equal(feed(frame, build_udp(21, 29), &out), 0);
    assert_int_equal(fx.nb_sent, 1);
    assert_unreachable_sent(0, 3, 20 + 8 + 21);
    assert_int_equal(counter(CTR_UDP_DROP_NO_PORT), 1);
    forget_sent();

    len = build_udp(1400, 1408);
    m = mbuf_of(frame, len, 100); /* quoted over segments, and no more than the limits allow */
    assert_int_equal(ip_input(fx.ip, &m, 1, &out, fx.now_us), 0);
    assert_int_equal(fx.nb_sent, 1);
    assert_true(fx.sent[0].len - 14 <= 576);
    assert_unreachable_sent(0, 3, fx.sent[0].len - 42);
    assert_true(fx.sent[0].len > 14 + 20 + 8 + 28);
}

static void
malformed_datagrams_get_no_answer(void **state)
{
    struct ip_packet out;
    uint32_t len;

    (void)state;
    learn(PEER, &mac_peer);
    assert_int_equal(feed(frame, build_udp(21, 30), &out), 0);
    assert_int_equal(feed(frame, build_udp(21, 7), &out), 0);
    len = build_udp(21, 29);
    frame[41] = 1; /* a checksum that is wrong */
    assert_int_equal(feed(frame, len, &out), 0);
    len = build_ipv4(frame, PEER, US, IPPROTO_UDP, "1234567", 7);
    assert_int_equal(feed(frame, len, &out), 0);
    assert_int_equal(counter(CTR_UDP_DROP_MALFORMED), 4);
    assert_int_equal(fx.nb_sent, 0);
}

static void
unknown_protocol_is_unreachable(void **state)
{
    uint8_t l4[16] = { 1, 2, 3 };
    struct ip_packet out;
    uint32_t len;

    (void)state;
    learn(PEER, &mac_peer);
    len = build_ipv4(frame, PEER, US, 132, l4, sizeof(l4));
    assert_int_equal(feed(frame, len, &out), 0);
    assert_int_equal(fx.nb_sent, 1);
    assert_unreachable_sent(0, 2, 36);
    assert_int_equal(counter(CTR_IP_DROP_PROTOCOL), 1);
}

static void
errors_are_rate_limited(void **state)
{
    struct ip_packet out;
    uint32_t len = build_udp(1, 9);
    unsigned i;

    (void)state;
    learn(PEER, &mac_peer);
    for (i = 0; i < 80; i++) {
        assert_int_equal(feed(frame, len, &out), 0);
    }
    assert_int_equal(fx.nb_sent, 50);
    assert_int_equal(counter(CTR_ICMP_DROP_RATE), 30);
    forget_sent();
    fx.now_us += 3500; /* a token each millisecond */
    for (i = 0; i < 10; i++) {
        assert_int_equal(feed(frame, len, &out), 0);
    }
    assert_int_equal(fx.nb_sent, 3);
    fx.now_us += 500;
    assert_int_equal(feed(frame, len, &out), 0);
    assert_int_equal(fx.nb_sent, 4); /* halves add up */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(echo_is_answered_byte_by_byte),          FIXTURE_TEST(echo_with_options_and_offloads),
        FIXTURE_TEST(large_echo_comes_and_goes_in_fragments), FIXTURE_TEST(malformed_and_unknown_messages),
        FIXTURE_TEST(errors_reach_the_layer_above),           FIXTURE_TEST(errors_that_cannot_be_ours),
        FIXTURE_TEST(closed_udp_port_is_unreachable),         FIXTURE_TEST(malformed_datagrams_get_no_answer),
        FIXTURE_TEST(unknown_protocol_is_unreachable),        FIXTURE_TEST(errors_are_rate_limited),
    };

    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
