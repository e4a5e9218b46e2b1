/* SPDX-License-Identifier: BSD-3-Clause */
#include "fixture.h"

/** The frame that must result from tcp_out: headers as documented, then the payload from byte `from`. */
static void
assert_tcp_frame(const struct sent *s, uint16_t hdr_len, uint32_t from, uint32_t len, const struct rte_ether_addr *mac)
{
    uint32_t i;

    assert_int_equal(s->len, 34 + hdr_len + len);
    assert_memory_equal(s->bytes, mac, 6);
    assert_memory_equal(s->bytes + 6, &mac_us, 6);
    assert_int_equal(s->bytes[12] << 8 | s->bytes[13], 0x0800);
    assert_int_equal(s->bytes[14], 0x45);
    assert_int_equal(s->bytes[15], 2);
    assert_int_equal(s->bytes[16] << 8 | s->bytes[17], 20 + hdr_len + len);
    assert_int_equal(s->bytes[20] << 8 | s->bytes[21], 0x4000); /* DF */
    assert_int_equal(s->bytes[22], 64);
    assert_int_equal(s->bytes[23], IPPROTO_TCP);
    for (i = 0; i < len; i++) {
        assert_int_equal(s->bytes[34 + hdr_len + i], payload_byte(from + i));
    }
}

static void
software_checksums_over_any_chain(void **state)
{
    static const struct {
        uint32_t payload;
        uint16_t seg;
    } rows[] = { { 0, 0 },      { 1, 0 },          { 1, 1 },     { 7, 3 },  { 1000, 1 * 333 },
                 { 1459, 101 }, { 1460, 1 * 487 }, { 1448, 17 }, { 255, 1 } };
    size_t i;

    (void)state;
    learn(PEER, &mac_peer);
    for (i = 0; i < RTE_DIM(rows); i++) {
        assert_int_equal(send_tcp(tcp_out(20, rows[i].payload, rows[i].seg), PEER, 0, 20), 0);
        assert_int_equal(fx.nb_sent, 1);
        assert_tcp_frame(&fx.sent[0], 20, 0, rows[i].payload, &mac_peer);
        assert_true(frame_checksums_ok(fx.sent[0].bytes, fx.sent[0].len));
        assert_int_equal(fx.sent[0].ol_flags & RTE_MBUF_F_TX_OFFLOAD_MASK, 0);
        forget_sent();
    }
    assert_int_equal(counter(CTR_IP_TX), RTE_DIM(rows));
}

/**
 * The common packet's header is written by itself: each thing that makes a packet another one makes the difference that it should, and no other. The first packet finds the way, as any
 * does; the last is common also in that its way is remembered.
 */
static void
headers_of_plain_and_other_packets(void **state)
{
    const struct ip_addr from = addr(US), to = addr(PEER);
    const struct ip_send plain = { .src = &from, .dst = &to, .proto = IPPROTO_TCP, .tos = 2, .l4_hdr_len = 20 };
    struct ip_send rows[] = { plain, plain, plain, plain, plain };
    size_t i;

    (void)state;
    rows[1].ttl = 3;
    rows[2].may_be_cut = true;
    rows[3].gso_size = 1000; /* it fits one segment */
    learn(PEER, &mac_peer);
    for (i = 0; i < RTE_DIM(rows); i++) {
        const struct rte_ipv4_hdr *hdr;

        assert_int_equal(ip_output(fx.ip, tcp_out(20, 100, 0), &rows[i], fx.now_us), 0);
        assert_int_equal(fx.nb_sent, 1);
        assert_true(frame_checksums_ok(fx.sent[0].bytes, fx.sent[0].len));
        hdr = (const struct rte_ipv4_hdr *)(fx.sent[0].bytes + 14);
        assert_int_equal(hdr->version_ihl, 0x45);
        assert_int_equal(hdr->type_of_service, 2);
        assert_int_equal(rte_be_to_cpu_16(hdr->total_length), 140);
        assert_int_equal(hdr->time_to_live, i == 1 ? 3 : 64);
        assert_int_equal(hdr->next_proto_id, IPPROTO_TCP);
        assert_int_equal(rte_be_to_cpu_16(hdr->fragment_offset), i == 2 ? 0 : RTE_IPV4_HDR_DF_FLAG);
        assert_true(i == 2 || hdr->packet_id == 0);
        assert_int_equal(hdr->src_addr, ip_addr_to_v4(&from));
        assert_int_equal(hdr->dst_addr, ip_addr_to_v4(&to));
        forget_sent();
    }
}

/** Random data in odd segments, where sums carry: against the plain sum. */
static void
chain_sum_equals_reference(void **state)
{
    uint8_t bytes[1800];
    struct rng rng;
    unsigned round, i;

    (void)state;
    rng_init(&rng, 7, 0);
    for (round = 0; round < 2000; round++) {
        uint32_t len = 1 + rng_below(&rng, sizeof(bytes));
        uint32_t off = rng_below(&rng, len);
        uint32_t part = 1 + rng_below(&rng, len - off);
        struct rte_mbuf *m;

        for (i = 0; i < len; i++) {
            bytes[i] = rng_below(&rng, 4) == 0 ? (uint8_t)rng_next(&rng) : 0xff;
        }
        m = mbuf_of(bytes, len, (uint16_t)(RTE_MAX(len / 50, 1u) + rng_below(&rng, 200)));
        assert_int_equal((uint16_t)~rte_be_to_cpu_16(chain_sum(m, off, part)), reference_sum(bytes + off, part, 0));
        rte_pktmbuf_free(m);
    }
}

static void
offloaded_checksums_leave_the_pseudo_header(void **state)
{
    struct rte_ipv4_hdr *hdr;
    struct rte_tcp_hdr *tcp;
    unsigned i;

    (void)state;
    fx.port.caps.tx_ip_csum = true;
    fx.port.caps.tx_tcp_csum = true;
    learn(PEER, &mac_peer);
    /* To a place that has to be looked for, and to one that is remembered. */
    for (i = 0; i < 2; i++) {
        assert_int_equal(send_tcp(tcp_out(32, 500, 0), PEER, 0, 32), 0);
        assert_int_equal(fx.nb_sent, 1);
        assert_tcp_frame(&fx.sent[0], 32, 0, 500, &mac_peer);
        hdr = (struct rte_ipv4_hdr *)(fx.sent[0].bytes + 14);
        tcp = (struct rte_tcp_hdr *)(hdr + 1);
        assert_int_equal(fx.sent[0].ol_flags & RTE_MBUF_F_TX_OFFLOAD_MASK,
                         RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM);
        assert_int_equal(fx.sent[0].l2_len, 14);
        assert_int_equal(fx.sent[0].l3_len, 20);
        assert_int_equal(fx.sent[0].l4_len, 32);
        assert_int_equal(hdr->hdr_checksum, 0);
        assert_int_equal(tcp->cksum, rte_ipv4_phdr_cksum(hdr, 0));
        forget_sent();
    }
}

static void
tso_is_left_to_a_port_that_has_it(void **state)
{
    struct rte_ipv4_hdr *hdr;

    (void)state;
    fx.port.caps.tx_ip_csum = true;
    fx.port.caps.tx_tcp_csum = true;
    fx.port.caps.tso = true;
    learn(PEER, &mac_peer);
    assert_int_equal(send_tcp(tcp_out(20, 40000, 9000), PEER, 1460, 20), 0);
    assert_int_equal(fx.nb_sent, 1);
    assert_tcp_frame(&fx.sent[0], 20, 0, 40000, &mac_peer);
    hdr = (struct rte_ipv4_hdr *)(fx.sent[0].bytes + 14);
    assert_int_equal(fx.sent[0].ol_flags & RTE_MBUF_F_TX_OFFLOAD_MASK,
                     RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_TCP_SEG);
    assert_int_equal(fx.sent[0].tso_segsz, 1460);
    assert_int_equal(fx.sent[0].l4_len, 20);
    assert_int_equal(((struct rte_tcp_hdr *)(hdr + 1))->cksum, rte_ipv4_phdr_cksum(hdr, RTE_MBUF_F_TX_TCP_SEG));
    forget_sent();

    /* One segment's worth needs no cutting. */
    assert_int_equal(send_tcp(tcp_out(20, 1460, 0), PEER, 1460, 20), 0);
    assert_int_equal(fx.sent[0].ol_flags & RTE_MBUF_F_TX_TCP_SEG, 0);
}

/** The pieces of a packet that was cut here: exact bytes, running sequence numbers, PSH on the last alone. */
static void
assert_cut(uint32_t payload, uint16_t mss, uint16_t hdr_len, bool software_checksum)
{
    uint32_t done = 0;
    unsigned i;

    assert_int_equal(fx.nb_sent, (payload + mss - 1) / mss);
    for (i = 0; i < fx.nb_sent; i++) {
        const struct sent *s = &fx.sent[i];
        uint32_t len = RTE_MIN(payload - done, mss);
        const uint8_t *tcp = s->bytes + 34;

        assert_tcp_frame(s, hdr_len, done, len, &mac_peer);
        assert_int_equal((uint32_t)tcp[4] << 24 | tcp[5] << 16 | tcp[6] << 8 | tcp[7], 100 + done);
        assert_int_equal(tcp[13], i + 1 == fx.nb_sent ? 0x18 : 0x10);
        if (software_checksum) {
            assert_true(frame_checksums_ok(s->bytes, s->len));
        }
        assert_int_equal(s->ol_flags & RTE_MBUF_F_TX_TCP_SEG, 0);
        done += len;
    }
    assert_int_equal(done, payload);
}

static void
software_gso_cuts_byte_exactly(void **state)
{
    (void)state;
    learn(PEER, &mac_peer);
    assert_int_equal(send_tcp(tcp_out(32, 10001, 3333), PEER, 1448, 32), 0);
    assert_cut(10001, 1448, 32, true);
    assert_true(fx.sent[0].attached); /* not copied */
    forget_sent();
    assert_int_equal(send_tcp(tcp_out(20, 65000, 0), PEER, 1460, 20), 0);
    assert_cut(65000, 1460, 20, true);
    forget_sent();

    fx.port.caps.tx_ip_csum = true;
    fx.port.caps.tx_tcp_csum = true;
    assert_int_equal(send_tcp(tcp_out(20, 3001, 77), PEER, 1000, 20), 0);
    assert_cut(3001, 1000, 20, false);
    assert_int_equal(fx.sent[2].ol_flags & RTE_MBUF_F_TX_OFFLOAD_MASK,
                     RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM);
    assert_int_equal(fx.sent[2].l4_len, 20);
}

static void
software_gso_without_buffers_drops_whole(void **state)
{
    struct rte_mbuf *hoard[POOL_COUNT];
    struct rte_mbuf *m = tcp_out(20, 30000, 0);
    unsigned n = rte_mempool_avail_count(fx.pool.tx) - 10;

    (void)state;
    learn(PEER, &mac_peer);
    assert_int_equal(rte_pktmbuf_alloc_bulk(fx.pool.tx, hoard, n), 0);
    assert_int_equal(send_tcp(m, PEER, 1460, 20), 0);
    assert_int_equal(fx.nb_sent, 0);
    assert_int_equal(counter(CTR_PORT_DROP_NO_MBUF), 1);
    rte_pktmbuf_free_bulk(hoard, n);
}

static void
too_big_and_no_route(void **state)
{
    const struct ip_route fallback = { .prefix = addr("0.0.0.0"), .next_hop = addr(GATEWAY), .prefix_len = 0 };
    const struct ip_addr from = addr(US);
    struct ip_addr to;
    const struct ip_send v6 = { .src = &from, .dst = &to, .proto = IPPROTO_TCP, .l4_hdr_len = 20 };

    (void)state;
    learn(PEER, &mac_peer);
    assert_int_equal(send_tcp(tcp_out(20, 1461, 0), PEER, 0, 20), -EMSGSIZE);
    assert_int_equal(send_tcp(tcp_out(20, 3000, 0), PEER, 1461, 20), -EMSGSIZE);
    assert_int_equal(send_tcp(tcp_out(20, 65496, 0), PEER, 1460, 20), -EMSGSIZE);
    assert_int_equal(send_tcp(tcp_out(20, 3000, 0), PEER, 10, 20), -EMSGSIZE); /* too many pieces */
    assert_int_equal(counter(CTR_IP_DROP_TOO_BIG), 4);
    assert_int_equal(ip_route_del(fx.ip, &fallback), 0);
    assert_int_equal(send_tcp(tcp_out(20, 10, 0), "192.0.2.1", 0, 20), -EHOSTUNREACH);
    assert_int_equal(ip_addr_parse("2001:db8::1", &to), 0);
    assert_int_equal(ip_output(fx.ip, tcp_out(20, 10, 0), &v6, fx.now_us), -EHOSTUNREACH);
    assert_int_equal(counter(CTR_IP_DROP_NO_ROUTE), 2);
    assert_int_equal(fx.nb_sent, 0);
}

static void
local_delivery(void **state)
{
    struct ip_packet out[4];
    uint8_t bytes[5020];
    const uint8_t *at;
    unsigned i;

    (void)state;
    assert_int_equal(ip_local_input(fx.ip, out, 4, fx.now_us), 0);
    assert_int_equal(send_tcp(tcp_out(20, 5000, 999), US, 1460, 20), 0);
    assert_int_equal(send_tcp(tcp_out(20, 1, 0), US, 0, 20), 0);
    assert_int_equal(fx.nb_sent, 0);
    assert_int_equal(ip_next_us(fx.ip, fx.now_us), fx.now_us);
    assert_int_equal(ip_local_input(fx.ip, out, 4, fx.now_us), 2);
    assert_true(ip_next_us(fx.ip, fx.now_us) > fx.now_us);
    assert_int_equal(counter(CTR_IP_LOCAL), 2);
    assert_int_equal(out[0].l4_off, 0);
    assert_int_equal(out[0].l4_len, 5020);
    assert_int_equal(out[1].l4_len, 21);
    assert_int_equal(out[0].proto, IPPROTO_TCP);
    assert_int_equal(out[0].tos, 2);
    assert_int_equal(out[0].ttl, 64);
    assert_true(out[0].l4_csum_good);
    assert_true(ip_is_local(fx.ip, &out[0].src) && ip_is_local(fx.ip, &out[0].dst));
    assert_ptr_equal(out[0].m->pool, fx.pool.rx);
    at = rte_pktmbuf_read(out[0].m, 0, 5020, bytes);
    for (i = 0; i < 5000; i++) {
        assert_int_equal(at[20 + i], payload_byte(i));
    }
    rte_pktmbuf_free(out[0].m);
    rte_pktmbuf_free(out[1].m);
}

static void
local_queue_is_bounded_and_freed(void **state)
{
    unsigned i;

    (void)state;
    for (i = 0; i < LOCAL_QUEUE + 3; i++) {
        assert_int_equal(send_tcp(tcp_out(20, 1, 0), US, 0, 20), 0);
    }
    assert_int_equal(counter(CTR_IP_LOCAL), LOCAL_QUEUE);
    assert_int_equal(counter(CTR_IP_DROP_LOCAL_FULL), 3);
    /* Tear-down sees that the rest is freed with the context. */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(software_checksums_over_any_chain),
        FIXTURE_TEST(headers_of_plain_and_other_packets),
        FIXTURE_TEST(chain_sum_equals_reference),
        FIXTURE_TEST(offloaded_checksums_leave_the_pseudo_header),
        FIXTURE_TEST(tso_is_left_to_a_port_that_has_it),
        FIXTURE_TEST(software_gso_cuts_byte_exactly),
        FIXTURE_TEST(software_gso_without_buffers_drops_whole),
        FIXTURE_TEST(too_big_and_no_route),
        FIXTURE_TEST(local_delivery),
        FIXTURE_TEST(local_queue_is_bounded_and_freed),
    };

    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
