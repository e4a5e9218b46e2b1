/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_ip.h>
#include <rte_tcp.h>

#include "core/port_packet.h"

#include "eal_fixture.h"

/* On the loopback interface of a network namespace of our own, what is sent comes back, as a frame of Ethernet. */

#define COUNT 4096
#define LO_MTU 1500
#define HEADERS_BYTES (RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr) + sizeof(struct rte_tcp_hdr))

static struct pktpool pool;
static struct counters ctr;
static char err[256];
static bool has_namespace;

struct wire {
    struct packet_config packet;
    struct port port;
    struct port_queue q;
};

static void
set_lo(unsigned long request, int value)
{
    struct ifreq ifr = { .ifr_name = "lo" };
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    if (request == SIOCSIFMTU)
        ifr.ifr_mtu = value;
    else
        ifr.ifr_flags = (short)value;
    assert_int_equal(ioctl(fd, request, &ifr), 0);
    close(fd);
}

static int
set_up(void **state)
{
    static struct wire w;
    struct port_config cfg = { .wire_ops = &packet_wire_ops, .nb_queues = 1, .wire_config = &w.packet };

    if (!has_namespace)
        return 0;
    memset(&w, 0, sizeof(w));
    memset(&ctr, 0, sizeof(ctr));
    if (packet_parse("interface=lo", &w.packet, &cfg.impair, err, sizeof(err)) != 0 ||
        port_start(&w.port, &cfg, &pool, err, sizeof(err)) != 0 || port_queue_init(&w.q, &w.port, 0, &pool, &ctr) != 0)
        return -1;
    *state = &w;
    return 0;
}

static int
tear_down(void **state)
{
    struct wire *w = *state;

    if (w != NULL) {
        port_queue_fini(&w->q);
        port_stop(&w->port);
    }
    pool.held = 0;
    return rte_mempool_in_use_count(pool.rx) != 0 || rte_mempool_in_use_count(pool.tx) != 0;
}

static struct wire *
wire_of(void **state)
{
    if (*state == NULL) {
        print_message("needs a network namespace of its own\n");
        skip();
    }
    return *state;
}

static uint16_t
receive(struct wire *w, struct rte_mbuf **pkts, uint16_t want)
{
    uint16_t n = 0;

    for (unsigned tries = 0; n < want && tries < 1000; tries++) {
        n = (uint16_t)(n + port_rx(&w->q, pkts + n, 0));
        if (n < want)
            usleep(100);
    }
    return n;
}

/* A TCP segment to `to`, its payload attached or appended, sums left to the port. */
static struct rte_mbuf *
segment(struct wire *w, struct rte_ether_addr to, const char *payload, uint16_t len)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool.rx);
    char *headers = rte_pktmbuf_append(m, HEADERS_BYTES);
    struct rte_ether_hdr *eth = (struct rte_ether_hdr *)headers;
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(eth + 1);
    struct rte_tcp_hdr *tcp = (struct rte_tcp_hdr *)(ip + 1);
    struct rte_mbuf *last = m;

    assert_non_null(headers);
    *eth = (struct rte_ether_hdr){ .dst_addr = to,
                                   .src_addr = w->port.mac,
                                   .ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4) };
    *ip = (struct rte_ipv4_hdr){ .version_ihl = RTE_IPV4_VHL_DEF,
                                 .total_length = rte_cpu_to_be_16((uint16_t)(HEADERS_BYTES - sizeof(*eth) + len)),
                                 .time_to_live = 64,
                                 .next_proto_id = IPPROTO_TCP,
                                 .src_addr = RTE_BE32(0x0a420002),
                                 .dst_addr = RTE_BE32(0x0a420001) };
    *tcp = (struct rte_tcp_hdr){ .data_off = sizeof(*tcp) / 4 << 4 };
    m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM;
    m->l2_len = sizeof(*eth);
    m->l3_len = sizeof(*ip);
    m->l4_len = sizeof(*tcp);
    tcp->cksum = rte_ipv4_phdr_cksum(ip, m->ol_flags);
    for (uint16_t done = 0; done < len;) {
        struct rte_mbuf *piece = rte_pktmbuf_alloc(pool.rx);
        uint16_t n = RTE_MIN((uint16_t)(len - done), rte_pktmbuf_tailroom(piece));

        memcpy(rte_pktmbuf_append(piece, n), payload + done, n);
        last->next = piece;
        last = piece;
        m->nb_segs++;
        m->pkt_len += n;
        done = (uint16_t)(done + n);
    }
    return m;
}

static void
fill(char *payload, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        payload[i] = (char)(i * 7 + i / 251);
}

static void
same_payload(const struct rte_mbuf *m, const char *payload, unsigned len)
{
    static char copy[65536];

    assert_int_equal(rte_pktmbuf_pkt_len(m), HEADERS_BYTES + len);
    assert_memory_equal(rte_pktmbuf_read(m, HEADERS_BYTES, len, copy), payload, len);
}

static bool
ip_sum_is_good(const struct rte_mbuf *m)
{
    return rte_raw_cksum(rte_pktmbuf_mtod_offset(m, const void *, RTE_ETHER_HDR_LEN), sizeof(struct rte_ipv4_hdr)) ==
           0xffff;
}

/* Whether the segment's sum is in its place. */
static bool
tcp_sum_is_good(const struct rte_mbuf *m)
{
    const struct rte_ipv4_hdr *ip = rte_pktmbuf_mtod_offset(m, const struct rte_ipv4_hdr *, RTE_ETHER_HDR_LEN);
    uint32_t off = RTE_ETHER_HDR_LEN + sizeof(*ip);
    uint16_t sum = 0;

    assert_int_equal(rte_raw_cksum_mbuf(m, off, rte_pktmbuf_pkt_len(m) - off, &sum), 0);
    return ((uint32_t)sum + rte_ipv4_phdr_cksum(ip, 0)) % 0xffff == 0;
}

static void
test_a_segment_passes_without_a_sum(void **state)
{
    struct wire *w = wire_of(state);
    struct rte_mbuf *m[2];
    char payload[600];

    fill(payload, sizeof(payload));
    port_tx(&w->q, segment(w, w->port.mac, payload, sizeof(payload)), 0);
    port_flush(&w->q, 0);
    assert_int_equal(receive(w, m, 1), 1);
    same_payload(m[0], payload, sizeof(payload));
    assert_int_equal(m[0]->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK, RTE_MBUF_F_RX_L4_CKSUM_NONE);
    assert_true(ip_sum_is_good(m[0]));
    assert_false(tcp_sum_is_good(m[0]));
    rte_pktmbuf_free(m[0]);
}

static void
test_the_sum_is_formed_for_who_checks_it(void **state)
{
    struct wire *w = wire_of(state);
    struct rte_mbuf *m[2];
    char payload[601];

    fill(payload, sizeof(payload));
    w->port.caps.rx_csum = false; /* as with corrupt= */
    port_tx(&w->q, segment(w, w->port.mac, payload, sizeof(payload)), 0);
    port_flush(&w->q, 0);
    assert_int_equal(receive(w, m, 1), 1);
    assert_true(tcp_sum_is_good(m[0]));
    rte_pktmbuf_free(m[0]);
}

static void
test_60_kb_pass_whole(void **state)
{
    struct wire *w = wire_of(state);
    static char payload[61440];
    struct rte_mbuf *m, *got[4];

    fill(payload, sizeof(payload));
    for (unsigned round = 0; round < 3; round++) {
        m = segment(w, w->port.mac, payload, sizeof(payload));
        m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
        m->tso_segsz = 1448;
        port_tx(&w->q, m, 0);
    }
    /* A small one behind them keeps its place. */
    port_tx(&w->q, segment(w, w->port.mac, payload, 10), 0);
    port_flush(&w->q, 0);
    assert_int_equal(receive(w, got, 4), 4);
    for (unsigned round = 0; round < 3; round++) {
        same_payload(got[round], payload, sizeof(payload));
        assert_true(ip_sum_is_good(got[round]));
        assert_int_equal(got[round]->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK, RTE_MBUF_F_RX_L4_CKSUM_NONE);
    }
    same_payload(got[3], payload, 10);
    rte_pktmbuf_free_bulk(got, 4);
}

/* A large one, that the kernel would cut. */
static struct rte_mbuf *
large(struct wire *w, const char *payload, uint16_t len)
{
    struct rte_mbuf *m = segment(w, w->port.mac, payload, len);

    m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
    m->tso_segsz = 1448;
    return m;
}

static void
send_large(struct wire *w, const char *payload, uint16_t len, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        port_tx(&w->q, large(w, payload + i, len), 0);
    port_flush(&w->q, 0);
}

/* Each buffer is the receiver's own. */
static void
single_owner(const struct rte_mbuf *m)
{
    for (; m != NULL; m = m->next)
        assert_int_equal(rte_mbuf_refcnt_read(m), 1);
}

static void
test_the_rest_of_a_large_frame_comes_later(void **state)
{
    struct wire *w = wire_of(state);
    static char payload[60002];
    struct rte_mbuf *got[4];

    fill(payload, sizeof(payload));
    w->q.rest_later = true;
    for (uint16_t len = 60000; len > 2000; len = (uint16_t)(len - 1931)) {
        port_tx(&w->q, segment(w, w->port.mac, payload, 10), 0);
        send_large(w, payload, len, 3);
        assert_int_equal(receive(w, got, 4), 4);
        assert_int_equal(pool.nb_late, 3);
        same_payload(got[0], payload, 10);
        for (unsigned i = 1; i < 4; i++) {
            assert_int_equal(rte_pktmbuf_pkt_len(got[i]), HEADERS_BYTES + len);
            assert_true(ip_sum_is_good(got[i]));
            assert_int_equal(got[i]->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK, RTE_MBUF_F_RX_L4_CKSUM_NONE);
        }
        port_rx_rest(&w->q);
        assert_int_equal(pool.nb_late, 0);
        for (unsigned i = 1; i < 4; i++) {
            same_payload(got[i], payload + i - 1, len);
            single_owner(got[i]);
        }
        rte_pktmbuf_free_bulk(got, 4);
    }
}

/* A buffer that was given back is not used again before it has been filled. */
static void
test_a_frame_may_be_dropped_before_its_rest(void **state)
{
    struct wire *w = wire_of(state);
    static char payload[60002];
    struct rte_mbuf *got[3], *others[COUNT];
    unsigned n = 0;

    fill(payload, sizeof(payload));
    w->q.rest_later = true;
    send_large(w, payload, 60000, 3);
    assert_int_equal(receive(w, got, 3), 3);
    rte_pktmbuf_free(got[1]);
    while ((others[n] = rte_pktmbuf_alloc(pool.rx)) != NULL)
        memset(rte_pktmbuf_append(others[n++], 2000), 0x55, 2000);
    port_rx_rest(&w->q);
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < 2000; k++)
            assert_int_equal(rte_pktmbuf_mtod(others[i], const uint8_t *)[k], 0x55);
    rte_pktmbuf_free_bulk(others, n);
    same_payload(got[0], payload, 60000);
    same_payload(got[2], payload + 2, 60000);
    rte_pktmbuf_free(got[0]);
    rte_pktmbuf_free(got[2]);
}

/* What finds no buffers is dropped; those before and behind it are what they were. */
static void
test_late_frames_when_buffers_are_short(void **state)
{
    struct wire *w = wire_of(state);
    static char payload[60002];
    struct rte_mbuf *got[2], *others[COUNT];
    unsigned n = 0;

    fill(payload, sizeof(payload));
    w->q.rest_later = true;
    send_large(w, payload, 60000, 2);
    while ((others[n] = rte_pktmbuf_alloc(pool.rx)) != NULL)
        n++;
    n -= 40; /* one frame's */
    rte_pktmbuf_free_bulk(others + n, 40);
    assert_int_equal(receive(w, got, 1), 1);
    same_payload(got[0], payload, 60000);
    assert_int_equal(pool.nb_late, 0);
    rte_pktmbuf_free_bulk(others, n);
    rte_pktmbuf_free(got[0]);
    assert_int_equal(ctr.v[CTR_PORT_DROP_NO_MBUF], 1);
    send_large(w, payload + 1, 60000, 1);
    assert_int_equal(receive(w, got, 1), 1);
    port_rx_rest(&w->q);
    same_payload(got[0], payload + 1, 60000);
    rte_pktmbuf_free(got[0]);
}

static void
test_who_sums_gets_frames_whole(void **state)
{
    struct wire *w = wire_of(state);
    static char payload[60000];
    struct rte_mbuf *got[1];

    fill(payload, sizeof(payload));
    w->q.rest_later = true;
    w->port.caps.rx_csum = false; /* as with corrupt= */
    send_large(w, payload, sizeof(payload), 1);
    assert_int_equal(receive(w, got, 1), 1);
    assert_int_equal(pool.nb_late, 0);
    same_payload(got[0], payload, sizeof(payload));
    assert_true(tcp_sum_is_good(got[0]));
    rte_pktmbuf_free(got[0]);
}

/* The error that an interface leaves when it goes down is no frame. */
static void
test_large_frames_outlive_their_interface(void **state)
{
    struct wire *w = wire_of(state);
    static char payload[60002];
    struct rte_mbuf *got[2];

    fill(payload, sizeof(payload));
    for (unsigned later = 0; later < 2; later++) {
        w->q.rest_later = later;
        send_large(w, payload, 60000, 2);
        set_lo(SIOCSIFFLAGS, 0);
        set_lo(SIOCSIFFLAGS, IFF_UP | IFF_LOOPBACK | IFF_RUNNING);
        assert_int_equal(receive(w, got, 2), 2);
        if (later)
            port_rx_rest(&w->q);
        same_payload(got[0], payload, 60000);
        same_payload(got[1], payload + 1, 60000);
        rte_pktmbuf_free_bulk(got, 2);
    }
}

static void
test_frames_of_others_stay_outside(void **state)
{
    struct wire *w = wire_of(state);
    struct rte_ether_addr other = w->port.mac;
    const struct rte_ether_addr all = { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } };
    struct rte_mbuf *m[3];

    other.addr_bytes[5] ^= 1;
    port_tx(&w->q, segment(w, other, "other", 5), 0);
    other.addr_bytes[5] ^= 1;
    other.addr_bytes[2] ^= 1;
    port_tx(&w->q, segment(w, other, "other", 5), 0);
    port_tx(&w->q, segment(w, all, "all", 3), 0);
    port_tx(&w->q, segment(w, w->port.mac, "own", 3), 0);
    port_flush(&w->q, 0);
    assert_int_equal(receive(w, m, 2), 2);
    same_payload(m[0], "all", 3);
    same_payload(m[1], "own", 3);
    assert_int_equal(port_rx(&w->q, m + 2, 0), 0);
    rte_pktmbuf_free_bulk(m, 2);
}

static void
test_a_frame_that_is_refused_stops_no_other(void **state)
{
    struct wire *w = wire_of(state);
    static char payload[3000];
    struct rte_mbuf *m[2];

    port_tx(&w->q, segment(w, w->port.mac, payload, sizeof(payload)), 0); /* beyond the MTU, and not to be cut */
    port_tx(&w->q, segment(w, w->port.mac, "own", 3), 0);
    port_flush(&w->q, 0);
    assert_int_equal(receive(w, m, 1), 1);
    same_payload(m[0], "own", 3);
    assert_int_equal(ctr.v[CTR_PORT_DROP_REFUSED], 1);
    assert_false(port_tx_is_full(&w->q));
    rte_pktmbuf_free(m[0]);
}

static void
test_the_ring_goes_round(void **state)
{
    struct wire *w = wire_of(state);
    struct rte_mbuf *m[PORT_BURST];

    for (unsigned i = 0; i < 3000; i += 30) {
        for (unsigned k = 0; k < 30; k++)
            port_tx(&w->q, segment(w, w->port.mac, (const char *)&k, sizeof(k)), 0);
        port_flush(&w->q, 0);
        assert_int_equal(receive(w, m, 30), 30);
        for (unsigned k = 0; k < 30; k++)
            same_payload(m[k], (const char *)&k, sizeof(k));
        rte_pktmbuf_free_bulk(m, 30);
    }
}

static void
test_what_a_full_ring_loses_is_counted(void **state)
{
    struct wire *w = wire_of(state);
    struct rte_mbuf *m[PORT_BURST];
    unsigned taken = 0;
    uint16_t n;

    for (unsigned i = 0; i < 1100; i++)
        port_tx(&w->q, segment(w, w->port.mac, "own", 3), 0);
    port_flush(&w->q, 0);
    for (unsigned quiet = 0; quiet<100; quiet = n> 0 ? 0 : quiet + 1) {
        n = port_rx(&w->q, m, 0);
        rte_pktmbuf_free_bulk(m, n);
        taken += n;
        if (n == 0)
            usleep(100);
    }
    /* The mark comes with the next frame that finds room. */
    port_tx(&w->q, segment(w, w->port.mac, "own", 3), 0);
    port_flush(&w->q, 0);
    n = receive(w, m, 1);
    assert_int_equal(n, 1);
    rte_pktmbuf_free(m[0]);
    assert_true(taken < 1100);
    assert_int_equal(taken + ctr.v[CTR_PORT_DROP_RX_FULL], 1100);
}

static void
test_a_frame_wakes_a_sleeper(void **state)
{
    struct wire *w = wire_of(state);
    struct epoll_event ev;
    struct rte_mbuf *m[1];
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    assert_true(w->port.caps.rx_intr);
    assert_int_equal(port_intr_register(&w->q, epoll_fd), 0);
    assert_int_equal(port_intr_arm(&w->q), 0);
    assert_int_equal(epoll_wait(epoll_fd, &ev, 1, 0), 0);
    port_tx(&w->q, segment(w, w->port.mac, "own", 3), 0);
    port_flush(&w->q, 0);
    assert_int_equal(epoll_wait(epoll_fd, &ev, 1, 1000), 1);
    port_intr_disarm(&w->q);
    assert_int_equal(epoll_wait(epoll_fd, &ev, 1, 0), 0); /* the frame still waits, but nobody sleeps */
    assert_int_equal(receive(w, m, 1), 1);
    assert_int_equal(port_intr_arm(&w->q), 0);
    assert_int_equal(epoll_wait(epoll_fd, &ev, 1, 0), 0);
    port_intr_disarm(&w->q);
    rte_pktmbuf_free(m[0]);
    close(epoll_fd);
}

static void
test_addresses(void **state)
{
    struct wire *w = wire_of(state);
    struct wire other = { .packet = { .interface = "lo", .interface_mac = true } };
    const struct port_config cfg = { .wire_ops = &packet_wire_ops, .nb_queues = 2, .wire_config = &other.packet };
    const struct rte_ether_addr zero = { { 0 } };

    assert_true(rte_is_local_admin_ether_addr(&w->port.mac));
    assert_int_equal(port_start(&other.port, &cfg, &pool, err, sizeof(err)), 0);
    assert_true(rte_is_same_ether_addr(&other.port.mac, &zero)); /* loopback's */
    assert_int_equal(other.port.nb_queues, 1);
    assert_int_equal(other.port.mtu, LO_MTU);
    assert_true(port_link_up(&other.port));
    port_stop(&other.port);
}

static void
test_start_errors(void **state)
{
    struct packet_config packet = { .interface = "nowhere" };
    struct port_config cfg = { .wire_ops = &packet_wire_ops, .nb_queues = 1, .wire_config = &packet };
    struct port p;

    wire_of(state);
    assert_int_equal(port_start(&p, &cfg, &pool, err, sizeof(err)), -ENODEV);
    assert_string_equal(err, "port packet: there is no interface 'nowhere' here");
    strcpy(packet.interface, "lo");
    cfg.mtu = LO_MTU + 1;
    assert_int_equal(port_start(&p, &cfg, &pool, err, sizeof(err)), -EINVAL);
    assert_string_equal(err, "port packet: MTU 1501 is not allowed, 'lo' has 1500");
    cfg.mtu = 0;
    cfg.steer = PORT_STEER_RSS;
    assert_int_equal(port_start(&p, &cfg, &pool, err, sizeof(err)), -EINVAL);
    assert_string_equal(err, "port packet: it cannot steer by rss; allowed are auto, soft");
}

static void
test_knobs(void **state)
{
    struct packet_config packet;
    struct impair_config impair;

    (void)state;
    assert_int_equal(packet_parse("interface=veth0,mac=interface,impair=loss:1%", &packet, &impair, err, sizeof(err)),
                     0);
    assert_string_equal(packet.interface, "veth0");
    assert_true(packet.interface_mac);
    assert_true(impair.enabled);
    assert_int_equal(packet_parse("interface=veth0", &packet, &impair, err, sizeof(err)), 0);
    assert_false(packet.interface_mac || impair.enabled);
    assert_int_equal(packet_parse("", &packet, &impair, err, sizeof(err)), -EINVAL);
    assert_non_null(strstr(err, "interface="));
    assert_int_equal(packet_parse("interface=sixteen-letters-", &packet, &impair, err, sizeof(err)), -EINVAL);
    assert_int_equal(packet_parse("interface=veth0,mac=mine", &packet, &impair, err, sizeof(err)), -EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_segment_passes_without_a_sum, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_sum_is_formed_for_who_checks_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_60_kb_pass_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_rest_of_a_large_frame_comes_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_frame_may_be_dropped_before_its_rest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_late_frames_when_buffers_are_short, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_who_sums_gets_frames_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_large_frames_outlive_their_interface, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_frames_of_others_stay_outside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_frame_that_is_refused_stops_no_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_ring_goes_round, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_a_full_ring_loses_is_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_frame_wakes_a_sleeper, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_start_errors, set_up, tear_down),
        cmocka_unit_test(test_knobs),
    };

    /* An ordinary user may make one within a user namespace, unless the system forbids it. */
    has_namespace = unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
    if (has_namespace) {
        set_lo(SIOCSIFMTU, LO_MTU);
        set_lo(SIOCSIFFLAGS, IFF_UP | IFF_LOOPBACK | IFF_RUNNING);
    }
    if (fixture_eal_start(NULL, 0) != 0 || pktpool_create(&pool, "t", COUNT, LO_MTU, SOCKET_ID_ANY) != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    pktpool_destroy(&pool);
    eal_stop();
    return failed;
}
