/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <rte_arp.h>
#include <rte_ip.h>
#include <rte_mempool.h>
#include <rte_tcp.h>

#include "core/port.h"
#include "sink/frame.h"
#include "sink/sink.h"
#include "tcp/steer.h"
#include "tcp/tcp.h"

#include "eal_fixture.h"

#define QUEUES 2
#define STACK_ADDR RTE_BE32(0x0a090001)
#define SINK_ADDR RTE_BE32(0x0a090002)
#define SEGMENT_BYTES (RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr) + sizeof(struct rte_tcp_hdr))

static struct pktpool pool;
static struct counters ctr[QUEUES];
static struct sink_config config;
static struct port port;
static struct port_queue q[QUEUES];
static char err[256];

static void
start(const char *knobs, enum port_steer steer)
{
    struct port_config pc = { .wire_ops = &sink_wire_ops, .wire_config = &config, .nb_queues = QUEUES, .steer = steer };

    memset(ctr, 0, sizeof(ctr));
    if (sink_parse(knobs, &config, &pc.impair, err, sizeof(err)) != 0 ||
        port_start(&port, &pc, &pool, err, sizeof(err)) != 0)
        fail_msg("%s", err);
    for (uint16_t i = 0; i < QUEUES; i++)
        assert_int_equal(port_queue_init(&q[i], &port, i, &pool, &ctr[i]), 0);
}

static void
stop(void)
{
    for (uint16_t i = 0; i < QUEUES; i++)
        port_queue_fini(&q[i]);
    port_stop(&port);
    assert_int_equal(rte_mempool_in_use_count(pool.rx), 0);
    assert_int_equal(rte_mempool_in_use_count(pool.tx), 0);
}

/** A SYN of the stack, with its sums in place. */
static struct rte_mbuf *
syn(uint16_t from_port)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool.tx);
    struct rte_ether_hdr *eth = (struct rte_ether_hdr *)rte_pktmbuf_append(m, SEGMENT_BYTES);
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(eth + 1);
    struct rte_tcp_hdr *tcp = (struct rte_tcp_hdr *)(ip + 1);

    *eth = (struct rte_ether_hdr){ .src_addr = port.mac, .ether_type = RTE_BE16(RTE_ETHER_TYPE_IPV4) };
    *ip = (struct rte_ipv4_hdr){ .version_ihl = RTE_IPV4_VHL_DEF,
                                 .total_length = rte_cpu_to_be_16(sizeof(*ip) + sizeof(*tcp)),
                                 .next_proto_id = 6,
                                 .src_addr = STACK_ADDR,
                                 .dst_addr = SINK_ADDR };
    *tcp = (struct rte_tcp_hdr){ .src_port = rte_cpu_to_be_16(from_port),
                                 .dst_port = RTE_BE16(7000),
                                 .sent_seq = RTE_BE32(5),
                                 .data_off = 5 << 4,
                                 .tcp_flags = RTE_TCP_SYN_FLAG,
                                 .rx_win = RTE_BE16(1000) };
    ip->hdr_checksum = rte_ipv4_cksum(ip);
    tcp->cksum = rte_ipv4_udptcp_cksum(ip, tcp);
    return m;
}

static const struct rte_tcp_hdr *
tcp_of(const struct rte_mbuf *m)
{
    return rte_pktmbuf_mtod_offset(m, const struct rte_tcp_hdr *, RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr));
}

/** What the stack expects of a card. */
static uint32_t
toeplitz_of(const struct rte_mbuf *m)
{
    const struct tcp_tuple t = {
        .local = ip_addr_v4(STACK_ADDR),
        .remote = ip_addr_v4(SINK_ADDR),
        .local_port = rte_be_to_cpu_16(tcp_of(m)->dst_port),
        .remote_port = rte_be_to_cpu_16(tcp_of(m)->src_port),
    };

    return tcp_steer_toeplitz(port.rss_key, &t);
}

static void
test_a_syn_is_answered_by_its_queue(void **state)
{
    struct rte_mbuf *pkts[PORT_BURST];
    uint16_t got[QUEUES] = { 0 };

    (void)state;
    start("", PORT_STEER_AUTO);
    assert_true(port.caps.tx_tcp_csum && port.caps.rx_csum && !port.caps.tso);
    assert_string_equal(port.driver, "sink");
    for (uint16_t from = 1000; from < 1000 + 2 * PORT_BURST; from++)
        port_tx(&q[0], syn(from), 0);
    port_flush(&q[0], 0);
    for (uint16_t i = 0; i < QUEUES; i++) {
        uint16_t n;

        while ((n = port_rx(&q[i], pkts, 0)) > 0) {
            for (uint16_t k = 0; k < n; k++) {
                assert_int_equal(tcp_of(pkts[k])->tcp_flags, RTE_TCP_SYN_FLAG | RTE_TCP_ACK_FLAG);
                assert_int_equal(tcp_of(pkts[k])->recv_ack, RTE_BE32(6));
                assert_true(pkts[k]->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_GOOD);
                assert_true(pkts[k]->ol_flags & RTE_MBUF_F_RX_RSS_HASH);
                assert_int_equal(pkts[k]->hash.rss, toeplitz_of(pkts[k]));
                assert_int_equal(pkts[k]->hash.rss % port.steer_buckets % QUEUES, i);
            }
            got[i] = (uint16_t)(got[i] + n);
            rte_pktmbuf_free_bulk(pkts, n);
        }
    }
    assert_int_equal(got[0] + got[1], 2 * PORT_BURST);
    assert_true(got[0] > PORT_BURST / 2 && got[1] > PORT_BURST / 2); /* spread evenly enough */
    assert_int_equal(ctr[0].v[CTR_SINK_OPENED], 2 * PORT_BURST);
    assert_int_equal(ctr[0].v[CTR_SINK_TAKEN], 2 * PORT_BURST);
    assert_true(ctr[0].v[CTR_SINK_CYCLES] > 0 && ctr[1].v[CTR_SINK_CYCLES] > 0);
    stop();
}

static void
test_without_offload_sums_are_formed_and_checked(void **state)
{
    struct rte_mbuf *pkts[PORT_BURST], *bad = syn(1001);
    const struct rte_ipv4_hdr *ip;
    uint32_t sum;

    (void)state;
    start("offload=none", PORT_STEER_OWN);
    assert_false(port.caps.tx_tcp_csum || port.caps.tx_ip_csum || port.caps.rx_csum);
    rte_pktmbuf_mtod_offset(bad, struct rte_tcp_hdr *, RTE_ETHER_HDR_LEN + sizeof(*ip))->cksum ^= 0x100;
    port_tx(&q[1], syn(1000), 0);
    port_tx(&q[1], bad, 0);
    port_flush(&q[1], 0);
    assert_int_equal(ctr[1].v[CTR_SINK_DROP_BAD], 1);
    assert_int_equal(port_rx(&q[0], pkts, 0) + port_rx(&q[1], pkts, 0), 1);
    ip = rte_pktmbuf_mtod_offset(pkts[0], const struct rte_ipv4_hdr *, RTE_ETHER_HDR_LEN);
    assert_int_equal(rte_raw_cksum(ip, sizeof(*ip)), 0xffff);
    sum = rte_raw_cksum(tcp_of(pkts[0]), pkts[0]->pkt_len - RTE_ETHER_HDR_LEN - sizeof(*ip));
    sum += rte_ipv4_phdr_cksum(ip, 0);
    assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff);
    rte_pktmbuf_free(pkts[0]);
    stop();
}

static void
test_arp_is_answered_and_the_rest_is_counted(void **state)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool.tx), *other = syn(1000), *short_one = syn(1001), *pkts[PORT_BURST];
    struct rte_ether_hdr *eth =
        (struct rte_ether_hdr *)rte_pktmbuf_append(m, sizeof(struct rte_ether_hdr) + sizeof(struct rte_arp_hdr));
    struct rte_arp_hdr *arp = (struct rte_arp_hdr *)(eth + 1);

    (void)state;
    start("", PORT_STEER_AUTO);
    *eth = (struct rte_ether_hdr){ .src_addr = port.mac, .ether_type = RTE_BE16(RTE_ETHER_TYPE_ARP) };
    *arp = (struct rte_arp_hdr){ .arp_opcode = RTE_BE16(RTE_ARP_OP_REQUEST) };
    arp->arp_data.arp_sip = STACK_ADDR;
    arp->arp_data.arp_tip = SINK_ADDR;
    arp->arp_data.arp_sha = port.mac;
    rte_pktmbuf_mtod(other, struct rte_ether_hdr *)->ether_type = RTE_BE16(0x88b5);
    rte_pktmbuf_trim(short_one, 1);
    port_tx(&q[1], m, 0);
    port_tx(&q[1], other, 0);
    port_tx(&q[1], short_one, 0);
    port_flush(&q[1], 0);
    assert_int_equal(ctr[1].v[CTR_SINK_DROP_OTHER], 1);
    assert_int_equal(ctr[1].v[CTR_SINK_DROP_BAD], 1);
    assert_int_equal(port_rx(&q[1], pkts, 0), 0);
    assert_int_equal(port_rx(&q[0], pkts, 0), 1);
    arp = rte_pktmbuf_mtod_offset(pkts[0], struct rte_arp_hdr *, RTE_ETHER_HDR_LEN);
    assert_int_equal(arp->arp_opcode, RTE_BE16(RTE_ARP_OP_REPLY));
    assert_int_equal(arp->arp_data.arp_sip, SINK_ADDR);
    assert_int_equal(arp->arp_data.arp_tip, STACK_ADDR);
    assert_memory_equal(&arp->arp_data.arp_tha, &port.mac, sizeof(port.mac));
    rte_pktmbuf_free(pkts[0]);
    stop();
}

/* What a bounded device would drop, this one keeps until there is a buffer. */
static void
test_nothing_is_lost_without_buffers(void **state)
{
    struct rte_mbuf *all[1024], *pkts[PORT_BURST];
    unsigned n = 0;

    (void)state;
    start("", PORT_STEER_AUTO);
    port_tx(&q[0], syn(1000), 0);
    port_flush(&q[0], 0);
    while (n < RTE_DIM(all) && (all[n] = rte_pktmbuf_alloc(pool.rx)) != NULL)
        n++;
    assert_true(n < RTE_DIM(all));
    assert_int_equal(port_rx(&q[0], pkts, 0) + port_rx(&q[1], pkts, 0), 0);
    rte_pktmbuf_free_bulk(all, n);
    assert_int_equal(port_rx(&q[0], pkts, 0) + port_rx(&q[1], pkts, 0), 1);
    rte_pktmbuf_free(pkts[0]);
    stop();
}

static void
test_wrong_knobs_say_so(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        { "ack=0", "ack" },         { "offload=all", "offload" },   { "window=1", "window" },
        { "colour=red", "colour" }, { "impair=loss:200%", "loss" },
    };
    struct port_config pc = { .wire_ops = &sink_wire_ops, .wire_config = &config, .nb_queues = 1, .mtu = 9001 };
    struct impair_config impair;

    (void)state;
    for (unsigned i = 0; i < RTE_DIM(cases); i++) {
        assert_int_equal(sink_parse(cases[i].text, &config, &impair, err, sizeof(err)), -EINVAL);
        assert_non_null(strstr(err, cases[i].says));
        assert_null(strchr(err, '\n'));
    }
    assert_int_equal(sink_parse("", &config, &pc.impair, err, sizeof(err)), 0);
    assert_int_equal(port_start(&port, &pc, &pool, err, sizeof(err)), -EINVAL);
    assert_non_null(strstr(err, "9001"));
    pc.mtu = 0;
    pc.steer = PORT_STEER_FLOW;
    assert_int_equal(port_start(&port, &pc, &pool, err, sizeof(err)), -EINVAL);
    assert_non_null(strstr(err, "flow"));
}

static int
start_all(void **state)
{
    (void)state;
    if (fixture_eal_start(NULL, 0) != 0)
        return 1;
    return pktpool_create(&pool, "sink", 256, RTE_ETHER_MTU, SOCKET_ID_ANY);
}

static int
stop_all(void **state)
{
    (void)state;
    pktpool_destroy(&pool);
    eal_stop();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_syn_is_answered_by_its_queue),
        cmocka_unit_test(test_without_offload_sums_are_formed_and_checked),
        cmocka_unit_test(test_arp_is_answered_and_the_rest_is_counted),
        cmocka_unit_test(test_nothing_is_lost_without_buffers),
        cmocka_unit_test(test_wrong_knobs_say_so),
    };

    return cmocka_run_group_tests(tests, start_all, stop_all);
}
