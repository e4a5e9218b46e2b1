/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_byteorder.h>
#include <rte_ethdev.h>

#include "core/port.h"

#include "eal_fixture.h"

#define COUNT 8192
#define JUMBO_MTU 9000
#define TAP "isocoretap"

static struct pktpool pool;
static struct counters ctr;
static char err[256];
static bool is_root;

struct wire {
    struct port port;
    struct port_queue q;
};

static struct port_config
config_of(const char *device)
{
    struct port_config cfg = { .nb_queues = 1 };

    assert_int_equal(rte_eth_dev_get_port_by_name(device, &cfg.port_id), 0);
    return cfg;
}

static void
wire_start(struct wire *w, const struct port_config *cfg)
{
    memset(&ctr, 0, sizeof(ctr));
    if (port_start(&w->port, cfg, &pool, err, sizeof(err)) != 0)
        fail_msg("%s", err);
    assert_int_equal(port_queue_init(&w->q, &w->port, 0, &pool, &ctr), 0);
}

/* Stop, but keep the device for the next test; everything taken must be back then. */
static void
wire_stop(struct wire *w)
{
    struct rte_mbuf *pkts[PORT_BURST];
    uint16_t n;

    while ((n = port_rx(&w->q, pkts, UINT64_MAX)) > 0)
        rte_pktmbuf_free_bulk(pkts, n);
    port_queue_fini(&w->q);
    rte_eth_dev_stop(w->port.port_id);
}

/* Frame with an EtherType that no kernel takes up, `len` bytes counting up from `seed`. */
static struct rte_mbuf *
frame(uint16_t len, uint8_t seed)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool.rx);
    uint8_t *data = (uint8_t *)rte_pktmbuf_append(m, len);

    assert_non_null(data);
    for (uint16_t i = 0; i < len; i++)
        data[i] = (uint8_t)(seed + i);
    memset(data, 0xff, RTE_ETHER_ADDR_LEN);
    memset(data + RTE_ETHER_ADDR_LEN, 2, RTE_ETHER_ADDR_LEN);
    data[12] = 0x88; /* local experimental EtherType, IEEE 802 */
    data[13] = 0xb5;
    return m;
}

/* Whether m is frame(len, seed), in however many segments. */
static bool
is_frame(const struct rte_mbuf *m, uint16_t len, uint8_t seed)
{
    if (m->pkt_len != len)
        return false;
    for (uint16_t i = 14; i < len; i++) {
        uint8_t byte;

        if (*(const uint8_t *)rte_pktmbuf_read(m, i, 1, &byte) != (uint8_t)(seed + i))
            return false;
    }
    return true;
}

static void
count_free(void *addr, void *opaque)
{
    (void)addr;
    ++*(int *)opaque;
}

/* A header mbuf with `bytes` of foreign memory behind it, as the sockets layer sends. */
static struct rte_mbuf *
attached_frame(uint8_t *payload, uint16_t bytes, struct rte_mbuf_ext_shared_info *shared, int *freed)
{
    struct rte_mbuf *header = rte_pktmbuf_alloc(pool.tx);
    struct rte_mbuf *body = rte_pktmbuf_alloc(pool.tx);

    memset(rte_pktmbuf_append(header, 60), 0xff, 60);
    shared->free_cb = count_free;
    shared->fcb_opaque = freed;
    rte_mbuf_ext_refcnt_set(shared, 1);
    rte_pktmbuf_attach_extbuf(body, payload, 0, bytes, shared);
    rte_pktmbuf_append(body, bytes);
    assert_int_equal(rte_pktmbuf_chain(header, body), 0);
    return header;
}

static void
test_start_errors(void **state)
{
    struct port_config cfg = { .port_id = 77, .nb_queues = 1 };
    struct port p;

    (void)state;
    assert_int_equal(port_start(&p, &cfg, &pool, err, sizeof(err)), -ENODEV);
    assert_non_null(strstr(err, "port 77: no such port"));
    cfg = config_of("net_ring0");
    cfg.nb_queues = 0;
    assert_int_equal(port_start(&p, &cfg, &pool, err, sizeof(err)), -EINVAL);
    assert_non_null(strstr(err, "0 queues asked for, 1 to "));
    cfg = config_of("net_memif2");
    cfg.mtu = 2040;
    assert_int_equal(port_start(&p, &cfg, &pool, err, sizeof(err)), -EINVAL);
    assert_string_equal(strchr(err, '('), "(net_memif): an MTU of 2040 needs bsize=2058 or more in --vdev");
}

/* On net_ring the receiver gets the sender's mbuf: the payload must be a copy, in a buffer of ours. */
static void
test_ring_copies_attached_payload(void **state)
{
    struct port_config cfg = config_of("net_ring0");
    struct rte_mbuf_ext_shared_info shared;
    struct rte_mbuf *got[PORT_BURST];
    uint8_t payload[500];
    struct wire w;
    int freed = 0;

    (void)state;
    wire_start(&w, &cfg);
    assert_true(w.port.caps.must_copy);
    assert_false(w.port.caps.rx_intr);
    assert_true(port_link_up(&w.port));
    assert_true(port_next_us(&w.q) == UINT64_MAX);
    memset(payload, 0xaa, sizeof(payload));
    port_tx(&w.q, attached_frame(payload, sizeof(payload), &shared, &freed), 0);
    assert_int_equal(freed, 1); /* the sender may reuse it at once */
    memset(payload, 0xbb, sizeof(payload));
    assert_int_equal(port_rx(&w.q, got, 0), 0); /* nothing goes out before the flush */
    port_flush(&w.q, 0);
    assert_int_equal(port_rx(&w.q, got, 0), 1);
    assert_int_equal(got[0]->pkt_len, 560);
    assert_ptr_equal(got[0]->pool, pool.rx);
    assert_int_equal(*rte_pktmbuf_mtod_offset(got[0], uint8_t *, 60), 0xaa);
    rte_pktmbuf_free(got[0]);
    /* A header that is all there is goes as it is, and the receiver's side takes it over into its own pool. */
    struct rte_mbuf *small = rte_pktmbuf_alloc(pool.tx);

    memset(rte_pktmbuf_append(small, 60), 0, 60);
    port_tx(&w.q, small, 0);
    port_flush(&w.q, 0);
    assert_int_equal(port_rx(&w.q, got, 0), 1);
    assert_ptr_equal(got[0]->pool, pool.rx);
    rte_pktmbuf_free(got[0]);
    assert_int_equal(ctr.v[CTR_PORT_TX_PKTS], 2);
    assert_int_equal(ctr.v[CTR_PORT_TX_BYTES], 620);
    assert_int_equal(ctr.v[CTR_PORT_RX_PKTS], 2);
    assert_int_equal(ctr.v[CTR_PORT_RX_BYTES], 620);
    wire_stop(&w);
}

/* net_ring has room for 1023. */
static void
test_what_a_full_queue_refuses_is_held(void **state)
{
    struct port_config cfg = config_of("net_ring0");
    struct rte_mbuf *got[PORT_BURST];
    unsigned n = 0;
    struct wire w;

    (void)state;
    wire_start(&w, &cfg);
    for (unsigned i = 0; i < 1100; i++)
        port_tx(&w.q, frame(60, (uint8_t)(i >> 3)), 0);
    port_flush(&w.q, 0);
    assert_int_equal(ctr.v[CTR_PORT_TX_PKTS], 1023);
    assert_true(port_tx_holds(&w.q));
    assert_false(port_tx_is_full(&w.q)); /* these few */
    assert_int_equal(port_next_us(&w.q), 0);
    while (n < 1100) {
        uint16_t count = port_rx(&w.q, got, PORT_HELD_US);

        assert_true(count > 0);
        for (uint16_t i = 0; i < count; i++, n++) {
            assert_true(is_frame(got[i], 60, (uint8_t)(n >> 3))); /* none is lost or overtaken */
            rte_pktmbuf_free(got[i]);
        }
        port_flush(&w.q, PORT_HELD_US);
    }
    assert_false(port_tx_holds(&w.q));
    assert_int_equal(ctr.v[CTR_PORT_DROP_TX_FULL], 0);
    wire_stop(&w);
}

/* One frame so many times: pools are smaller than what a port holds. */
static void
send_times(struct wire *w, struct rte_mbuf *m, uint16_t times)
{
    rte_mbuf_refcnt_update(m, (int16_t)(times - 1));
    for (uint16_t i = 0; i < times; i++)
        port_tx(&w->q, m, 0);
    port_flush(&w->q, 0);
}

/* By bytes, or by packet buffers: half of the pool. What goes out makes room. */
static void
test_it_is_full_when_much_is_held(void **state)
{
    struct port_config cfg = config_of("net_ring0");
    struct rte_mbuf *got[PORT_BURST];
    const uint16_t large = PORT_FULL_BYTES / 1024;
    struct wire w;

    (void)state;
    wire_start(&w, &cfg);
    send_times(&w, frame(60, 0), 1023);
    send_times(&w, frame(1024, 0), large - 1);
    assert_false(port_tx_is_full(&w.q));
    send_times(&w, frame(60, 0), 20);
    assert_true(port_tx_is_full(&w.q));
    for (uint16_t n = port_rx(&w.q, got, 0); n > 0; n = port_rx(&w.q, got, 0)) {
        rte_pktmbuf_free_bulk(got, n);
        port_flush(&w.q, 0);
        assert_false(port_tx_is_full(&w.q));
    }
    assert_int_equal(w.q.held_bytes, 0);
    send_times(&w, frame(60, 0), 1023);
    send_times(&w, frame(60, 0), COUNT / 2 - 1);
    assert_false(port_tx_is_full(&w.q));
    send_times(&w, frame(60, 0), 1);
    assert_true(port_tx_is_full(&w.q));
    assert_int_equal(ctr.v[CTR_PORT_DROP_TX_FULL], 0);
    wire_stop(&w);
}

static void
test_a_queue_that_stays_full_drops_and_counts(void **state)
{
    struct port_config cfg = config_of("net_ring0");
    struct wire w;

    (void)state;
    wire_start(&w, &cfg);
    for (unsigned i = 0; i < 1100; i++)
        port_tx(&w.q, frame(60, 0), 0);
    port_flush(&w.q, 1000);
    port_flush(&w.q, 1000 + PORT_HELD_US - 1);
    assert_int_equal(ctr.v[CTR_PORT_DROP_TX_FULL], 0);
    port_flush(&w.q, 1000 + PORT_HELD_US);
    assert_int_equal(ctr.v[CTR_PORT_TX_PKTS], 1023);
    assert_int_equal(ctr.v[CTR_PORT_DROP_TX_FULL], 1100 - 1023);
    assert_false(port_tx_holds(&w.q));
    assert_int_equal(w.q.held_bytes, 0);
    wire_stop(&w);
}

static void
test_the_oldest_make_room(void **state)
{
    struct port_config cfg = config_of("net_ring0");
    struct wire w;

    (void)state;
    wire_start(&w, &cfg);
    send_times(&w, frame(60, 0), 1023 + PORT_HELD_MAX + 10);
    assert_int_equal(ctr.v[CTR_PORT_DROP_TX_FULL], 10);
    wire_stop(&w);
}

static void
test_chain_is_linearised_for_a_port_without_multi_seg(void **state)
{
    struct port_config cfg = config_of("net_ring0");
    struct rte_mbuf *got[PORT_BURST];
    struct wire w;

    (void)state;
    wire_start(&w, &cfg);
    w.port.caps.multi_seg = false;
    struct rte_mbuf *head = frame(300, 0);

    assert_int_equal(rte_pktmbuf_chain(head, frame(300, 1)), 0);
    port_tx(&w.q, head, 0);
    port_flush(&w.q, 0);
    assert_int_equal(port_rx(&w.q, got, 0), 1);
    assert_int_equal(got[0]->nb_segs, 1);
    assert_int_equal(got[0]->pkt_len, 600);
    rte_pktmbuf_free(got[0]);
    wire_stop(&w);
}

static void
test_no_buffer_for_a_copy_is_counted(void **state)
{
    struct port_config cfg = config_of("net_ring0");
    struct rte_mbuf_ext_shared_info shared;
    static struct rte_mbuf *all[COUNT];
    uint8_t payload[10] = { 0 };
    struct wire w;
    int freed = 0;

    (void)state;
    wire_start(&w, &cfg);
    unsigned n = 0;

    while (n < COUNT && (all[n] = rte_pktmbuf_alloc(pool.rx)) != NULL)
        n++;
    port_tx(&w.q, attached_frame(payload, sizeof(payload), &shared, &freed), 0);
    assert_int_equal(ctr.v[CTR_PORT_DROP_NO_MBUF], 1);
    assert_int_equal(freed, 1);
    rte_pktmbuf_free_bulk(all, n);
    wire_stop(&w);
}

static void
test_impaired_port(void **state)
{
    struct port_config cfg = config_of("net_ring0");
    struct rte_mbuf *got[PORT_BURST];
    struct wire w;

    (void)state;
    assert_int_equal(impair_parse("delay:10ms,corrupt:0.1%", &cfg.impair, err, sizeof(err)), 0);
    wire_start(&w, &cfg);
    assert_false(w.port.caps.tso);
    assert_false(w.port.caps.rx_csum);
    port_tx(&w.q, frame(100, 7), 1000);
    port_flush(&w.q, 1000);
    assert_true(port_next_us(&w.q) == 11000);
    port_flush(&w.q, 11000);
    assert_int_equal(ctr.v[CTR_PORT_TX_PKTS], 1);
    assert_int_equal(port_rx(&w.q, got, 11000), 0); /* now it waits in the other direction */
    assert_true(port_next_us(&w.q) == 21000);
    assert_int_equal(port_rx(&w.q, got, 21000), 1);
    assert_int_equal(got[0]->pkt_len, 100);
    rte_pktmbuf_free(got[0]);
    assert_true(port_next_us(&w.q) == UINT64_MAX);
    wire_stop(&w);
}

static void
test_link_follows_memif_peer(void **state)
{
    struct port_config server = config_of("net_memif0");
    struct port_config client = config_of("net_memif1");
    struct wire a, b;
    unsigned waited_ms = 0;

    (void)state;
    server.mtu = client.mtu = JUMBO_MTU;
    wire_start(&a, &server);
    assert_false(a.port.caps.must_copy);
    assert_true(a.port.caps.multi_seg);
    assert_int_equal(a.port.mtu, JUMBO_MTU);
    assert_false(port_link_up(&a.port));
    wire_start(&b, &client);
    while (!(port_link_up(&a.port) && port_link_up(&b.port)) && waited_ms++ < 3000)
        usleep(1000);
    assert_true(port_link_up(&a.port));
    assert_true(port_link_up(&b.port));

    /* Frames of all lengths, chained and not, past the end of the ring many times, each way. */
    struct rte_mbuf *got[PORT_BURST];

    /* The first receive offers buffers to the peer. */
    assert_int_equal(port_rx(&a.q, got, 0), 0);
    assert_int_equal(port_rx(&b.q, got, 0), 0);
    for (unsigned i = 0; i < 3000; i++) {
        struct wire *from = i % 2 ? &a : &b;
        struct wire *to = i % 2 ? &b : &a;
        uint16_t first_bytes = (uint16_t)(60 + i * 37 % 4000);
        uint16_t more_bytes = i % 3 == 0 ? 0 : (uint16_t)(1 + i * 61 % 4000);
        struct rte_mbuf *m = frame(first_bytes, 3);

        if (more_bytes > 0) {
            struct rte_mbuf *tail = rte_pktmbuf_alloc(pool.rx);
            uint8_t *data = (uint8_t *)rte_pktmbuf_append(tail, more_bytes);

            for (uint16_t j = 0; j < more_bytes; j++)
                data[j] = (uint8_t)(3 + first_bytes + j);
            assert_int_equal(rte_pktmbuf_chain(m, tail), 0);
        }
        port_tx(&from->q, m, 0);
        port_flush(&from->q, 0);
        assert_int_equal(port_rx(&to->q, got, 0), 1);
        assert_true(is_frame(got[0], (uint16_t)(first_bytes + more_bytes), 3));
        rte_pktmbuf_free(got[0]);
    }
    assert_int_equal(ctr.v[CTR_PORT_DROP_TX_FULL], 0);
    wire_stop(&a);
    wire_stop(&b);
}

static void
set_tap_up(bool up)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr = { .ifr_name = TAP };

    assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &ifr), 0);
    ifr.ifr_flags = (short)(up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
    close(fd);
}

/* Raw socket on the kernel's end of the tap. */
static int
kernel_end(void)
{
    struct sockaddr_ll addr = { .sll_family = AF_PACKET,
                                .sll_protocol = rte_cpu_to_be_16(0x88b5),
                                .sll_ifindex = (int)if_nametoindex(TAP) };
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, rte_cpu_to_be_16(0x88b5));

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static int
wait_epoll(int epoll_fd, int timeout_ms)
{
    struct epoll_event event;
    int n;

    /* net_tap announces frames by SIGIO as well. */
    while ((n = epoll_wait(epoll_fd, &event, 1, timeout_ms)) < 0 && errno == EINTR) {
    }
    return n;
}

/* Receive until the test's frame comes; the kernel sends some of its own (IPv6 router solicitations). */
static struct rte_mbuf *
receive_ours(struct wire *w)
{
    struct rte_mbuf *ours = NULL;
    struct rte_mbuf *got[PORT_BURST];

    for (unsigned tries = 0; ours == NULL && tries < 1000; tries++) {
        uint16_t n = port_rx(&w->q, got, 0);

        for (uint16_t i = 0; i < n; i++) {
            if (ours == NULL &&
                rte_pktmbuf_mtod(got[i], struct rte_ether_hdr *)->ether_type == rte_cpu_to_be_16(0x88b5))
                ours = got[i];
            else
                rte_pktmbuf_free(got[i]);
        }
        if (n == 0)
            usleep(100);
    }
    return ours;
}

static void
test_tap_wakes_a_sleeping_worker(void **state)
{
    uint8_t data[1514];
    struct wire w;

    (void)state;
    if (!is_root) {
        print_message("net_tap needs root\n");
        skip();
    }
    struct port_config cfg = config_of("net_tap0");

    wire_start(&w, &cfg);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    assert_true(w.port.caps.rx_intr);
    assert_false(w.port.caps.must_copy);
    assert_false(w.port.caps.tso); /* see the quirk table */
    set_tap_up(false);
    assert_false(port_link_up(&w.port));
    set_tap_up(true);
    assert_true(port_link_up(&w.port));
    int fd = kernel_end();

    assert_int_equal(port_intr_register(&w.q, epoll_fd), 0);
    assert_int_equal(port_intr_register(&w.q, epoll_fd), 0);
    struct rte_mbuf *m = frame(sizeof(data), 9);

    memcpy(data, rte_pktmbuf_mtod(m, void *), sizeof(data));
    rte_pktmbuf_free(m);
    while (receive_ours(&w) != NULL) {
    }
    assert_int_equal(port_intr_arm(&w.q), 0);
    if (send(fd, data, sizeof(data), 0) != sizeof(data))
        fail_msg("send: %s", strerror(errno));
    assert_int_equal(wait_epoll(epoll_fd, 2000), 1);
    port_intr_disarm(&w.q);
    m = receive_ours(&w);
    assert_non_null(m);
    assert_true(is_frame(m, sizeof(data), 9));
    rte_pktmbuf_free(m);

    /* A chain with attached payload arrives at the kernel as one frame. */
    struct rte_mbuf_ext_shared_info shared;
    uint8_t payload[1001];
    int freed = 0;
    ssize_t n = -1;

    memset(payload, 0x5a, sizeof(payload));
    m = attached_frame(payload, sizeof(payload), &shared, &freed);
    rte_pktmbuf_mtod(m, struct rte_ether_hdr *)->ether_type = rte_cpu_to_be_16(0x88b5);
    port_tx(&w.q, m, 0);
    port_flush(&w.q, 0);
    assert_int_equal(freed, 1);
    for (unsigned tries = 0; n < 0 && tries < 1000; tries++) {
        n = recv(fd, data, sizeof(data), 0);
        if (n < 0)
            usleep(100);
    }
    assert_int_equal(n, 1061);
    assert_int_equal(data[1060], 0x5a);
    close(fd);
    close(epoll_fd);
    wire_stop(&w);
}

static void
test_mtu_beyond_the_port(void **state)
{
    struct port p;

    (void)state;
    if (!is_root) {
        print_message("net_tap needs root\n");
        skip();
    }
    struct port_config cfg = config_of("net_tap0");

    cfg.mtu = JUMBO_MTU;
    assert_int_equal(port_start(&p, &cfg, &pool, err, sizeof(err)), -EINVAL);
    assert_non_null(strstr(err, "MTU 9000 is not allowed, at most 1504"));
}

static int
no_leak(void **state)
{
    (void)state;
    return rte_mempool_in_use_count(pool.tx) != 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_start_errors, no_leak),
        cmocka_unit_test_teardown(test_ring_copies_attached_payload, no_leak),
        cmocka_unit_test_teardown(test_what_a_full_queue_refuses_is_held, no_leak),
        cmocka_unit_test_teardown(test_it_is_full_when_much_is_held, no_leak),
        cmocka_unit_test_teardown(test_a_queue_that_stays_full_drops_and_counts, no_leak),
        cmocka_unit_test_teardown(test_the_oldest_make_room, no_leak),
        cmocka_unit_test_teardown(test_chain_is_linearised_for_a_port_without_multi_seg, no_leak),
        cmocka_unit_test_teardown(test_no_buffer_for_a_copy_is_counted, no_leak),
        cmocka_unit_test_teardown(test_impaired_port, no_leak),
        cmocka_unit_test_teardown(test_link_follows_memif_peer, no_leak),
        cmocka_unit_test_teardown(test_tap_wakes_a_sleeping_worker, no_leak),
        cmocka_unit_test_teardown(test_mtu_beyond_the_port, no_leak),
    };
    char dir[] = "/tmp/isosock-test-port-XXXXXX";
    char server[128], client[128];
    const char *devices[] = { "--vdev=net_ring0", server, client,
                              "--vdev=net_memif2,id=7,role=server,socket-abstract=yes,socket=x",
                              "--vdev=net_tap0,iface=" TAP };

    /* In a network namespace of its own, so that nobody else sees the tap. */
    is_root = geteuid() == 0 && unshare(CLONE_NEWNET) == 0;
    if (mkdtemp(dir) == NULL)
        return 1;
    snprintf(server, sizeof(server), "--vdev=net_memif0,role=server,socket-abstract=no,bsize=9216,socket=%s/memif",
             dir);
    snprintf(client, sizeof(client), "--vdev=net_memif1,role=client,socket-abstract=no,bsize=9216,socket=%s/memif",
             dir);
    if (fixture_eal_start(devices, is_root ? 5 : 4) != 0 ||
        pktpool_create(&pool, "t", COUNT, JUMBO_MTU, SOCKET_ID_ANY) != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    eal_stop();
    unlink(strcat(strcpy(server, dir), "/memif"));
    rmdir(dir);
    return failed;
}
