/* SPDX-License-Identifier: BSD-3-Clause */
#include "fixture.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_mempool.h>

struct fixture fx;
const struct rte_ether_addr mac_us = { { 2, 0, 0, 0, 0, 2 } };
const struct rte_ether_addr mac_peer = { { 2, 0, 0, 0, 0, 1 } };
const struct rte_ether_addr mac_other = { { 2, 0, 0, 0, 0, 9 } };

static uint8_t app_memory[FRAME_MAX];

/* ---- the port ------------------------------------------------------------------------------------------------------ */

void
port_tx(struct port_queue *q, struct rte_mbuf *m, uint64_t now_us)
{
    struct sent *s = &fx.sent[fx.nb_sent];
    const struct rte_mbuf *seg;

    (void)q;
    (void)now_us;
    assert_in_range(fx.nb_sent, 0, SENT_MAX - 1);
    rte_mbuf_sanity_check(m, 1);
    *s = (struct sent){
        .bytes = malloc(m->pkt_len),
        .len = m->pkt_len,
        .ol_flags = m->ol_flags,
        .l2_len = m->l2_len,
        .l3_len = m->l3_len,
        .l4_len = m->l4_len,
        .tso_segsz = m->tso_segsz,
        .nb_segs = m->nb_segs,
        .from_rx_pool = m->pool == fx.pool.rx,
    };
    for (seg = m; seg != NULL; seg = seg->next) {
        s->attached |= seg->pool != fx.pool.rx && !RTE_MBUF_DIRECT(seg);
    }
    seg = rte_pktmbuf_read(m, 0, m->pkt_len, s->bytes);
    if ((const void *)seg != s->bytes) {
        memcpy(s->bytes, seg, m->pkt_len);
    }
    fx.nb_sent++;
    rte_pktmbuf_free(m);
}

void
forget_sent(void)
{
    while (fx.nb_sent > 0) {
        free(fx.sent[--fx.nb_sent].bytes);
    }
}

/* ---- set-up and tear-down ------------------------------------------------------------------------------------------ */

static void
on_unreachable(void *ctx, const struct ip_unreachable *info, uint64_t now_us)
{
    assert_ptr_equal(ctx, &fx);
    assert_int_equal(now_us, fx.now_us);
    fx.unreachable = *info;
    fx.nb_unreachable++;
}

static void
on_no_neighbour(void *ctx, const struct ip_addr *dst, uint64_t now_us)
{
    assert_ptr_equal(ctx, &fx);
    assert_int_equal(now_us, fx.now_us);
    if (fx.nb_no_neighbour < NEIGH_QUEUE) {
        fx.no_neighbour[fx.nb_no_neighbour] = *dst;
    }
    fx.nb_no_neighbour++;
}

int
fixture_group_setup(void **state)
{
    char *argv[] = { (char[]){ "test" },
                     (char[]){ "--no-huge" },
                     (char[]){ "--no-pci" },
                     (char[]){ "--no-shconf" },
                     (char[]){ "--no-telemetry" },
                     (char[]){ "--iova-mode=va" },
                     (char[]){ "-m256" },
                     (char[]){ "--lcores=0" },
                     (char[]){ "--log-level=*:error" },
                     (char[]){ "--file-prefix=isosock-ip-test" } };

    (void)state;
    if (rte_eal_init(RTE_DIM(argv), argv) < 0) {
        return -1;
    }
    return pktpool_create(&fx.pool, "ip_test", POOL_COUNT, 1500, 0);
}

int
fixture_group_teardown(void **state)
{
    (void)state;
    pktpool_destroy(&fx.pool);
    return rte_eal_cleanup();
}

int
fixture_setup(void **state)
{
    const struct ip_ops ops = { .unreachable = on_unreachable, .no_neighbour = on_no_neighbour };
    const struct ip_config cfg = { .addr = addr(US), .prefix_len = 24, .gateway = addr(GATEWAY), .seed = 42 };

    (void)state;
    memset(&fx.ctr, 0, sizeof(fx.ctr));
    memset(&fx.port, 0, sizeof(fx.port));
    fx.nb_unreachable = 0;
    fx.nb_no_neighbour = 0;
    fx.port.mtu = 1500;
    fx.port.nb_queues = 1;
    fx.port.mac = mac_us;
    fx.port.caps.multi_seg = true;
    fx.q = (struct port_queue){ .port = &fx.port, .ctr = &fx.ctr, .pool = &fx.pool };
    fx.now_us = START_US;
    fx.ip = ip_create(&cfg, &fx.q, &fx.ctr, &ops, &fx);
    assert_non_null(fx.ip);
    advance(10 * S_US);
    forget_sent();
    memset(&fx.ctr, 0, sizeof(fx.ctr));
    return 0;
}

int
fixture_teardown(void **state)
{
    (void)state;
    ip_destroy(fx.ip);
    forget_sent();
    assert_int_equal(rte_mempool_avail_count(fx.pool.rx), POOL_COUNT);
    assert_int_equal(rte_mempool_avail_count(fx.pool.tx), POOL_COUNT);
    return 0;
}

void
advance(uint64_t us)
{
    uint64_t end = fx.now_us + us;

    while (ip_next_us(fx.ip, fx.now_us) <= end) {
        fx.now_us = RTE_MAX(fx.now_us, ip_next_us(fx.ip, fx.now_us));
        ip_tick(fx.ip, fx.now_us);
        assert_true(ip_next_us(fx.ip, fx.now_us) > fx.now_us); /* a tick leaves nothing due */
    }
    fx.now_us = end;
}

/* ---- values -------------------------------------------------------------------------------------------------------- */

uint32_t
be_addr(const char *text)
{
    uint32_t be;

    assert_int_equal(inet_pton(AF_INET, text, &be), 1);
    return be;
}

struct ip_addr
addr(const char *text)
{
    return ip_addr_v4(be_addr(text));
}

uint64_t
counter(enum counter_id id)
{
    return fx.ctr.v[id];
}

uint16_t
reference_sum(const uint8_t *data, size_t len, uint32_t start)
{
    uint32_t sum = start;
    size_t i;

    for (i = 0; i < len; i++) {
        sum += i % 2 == 0 ? (uint32_t)data[i] << 8 : data[i];
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

static uint32_t
pseudo_sum(uint32_t src, uint32_t dst, uint8_t proto, uint32_t len)
{
    uint8_t bytes[12] = { [9] = proto, [10] = (uint8_t)(len >> 8), [11] = (uint8_t)len };

    memcpy(bytes, &src, 4);
    memcpy(bytes + 4, &dst, 4);
    return (uint16_t)~reference_sum(bytes, sizeof(bytes), 0);
}

bool
frame_checksums_ok(const uint8_t *frame, uint32_t len)
{
    const struct rte_ipv4_hdr *hdr = (const struct rte_ipv4_hdr *)(frame + 14);
    uint32_t l4_len = len - 34;

    return reference_sum(frame + 14, 20, 0) == 0 &&
           reference_sum(frame + 34, l4_len, pseudo_sum(hdr->src_addr, hdr->dst_addr, IPPROTO_TCP, l4_len)) == 0;
}

/* ---- frames in ----------------------------------------------------------------------------------------------------- */

struct rte_mbuf *
mbuf_of(const void *bytes, uint32_t len, uint16_t seg_bytes)
{
    struct rte_mbuf *head = rte_pktmbuf_alloc(fx.pool.rx);
    struct rte_mbuf *last = head;
    uint32_t done = 0;

    assert_non_null(head);
    for (;;) {
        uint32_t part = RTE_MIN(len - done, seg_bytes != 0 ? seg_bytes : rte_pktmbuf_tailroom(last));

        memcpy(rte_pktmbuf_mtod(last, uint8_t *), (const uint8_t *)bytes + done, part);
        last->data_len = (uint16_t)part;
        done += part;
        if (done == len) {
            break;
        }
        last->next = rte_pktmbuf_alloc(fx.pool.rx);
        assert_non_null(last->next);
        last = last->next;
        head->nb_segs++;
    }
    head->pkt_len = len;
    return head;
}

uint16_t
feed(const void *frame, uint32_t len, struct ip_packet *out)
{
    struct rte_mbuf *m = mbuf_of(frame, len, 0);

    return ip_input(fx.ip, &m, 1, out, fx.now_us);
}

void
fix_ipv4_checksum(uint8_t *frame)
{
    uint16_t sum;

    frame[24] = 0;
    frame[25] = 0;
    sum = reference_sum(frame + 14, (frame[14] & 15u) * 4u, 0);
    frame[24] = (uint8_t)(sum >> 8);
    frame[25] = (uint8_t)sum;
}

uint32_t
build_ipv4(uint8_t *frame, const char *src, const char *dst, uint8_t proto, const void *l4, uint32_t l4_len)
{
    uint32_t from = be_addr(src);
    uint32_t to = be_addr(dst);
    uint32_t total = 20 + l4_len;

    memset(frame, 0, 34);
    memcpy(frame, &mac_us, 6);
    memcpy(frame + 6, &mac_peer, 6);
    frame[12] = 0x08;
    frame[14] = 0x45;
    frame[16] = (uint8_t)(total >> 8);
    frame[17] = (uint8_t)total;
    frame[18] = 0x12;
    frame[19] = 0x34;
    frame[22] = 63;
    frame[23] = proto;
    memcpy(frame + 26, &from, 4);
    memcpy(frame + 30, &to, 4);
    memcpy(frame + 34, l4, l4_len);
    fix_ipv4_checksum(frame);
    return 14 + total;
}

uint32_t
build_tcp(uint8_t *l4, const char *src, const char *dst, uint16_t sport, uint16_t dport, uint32_t data_len)
{
    uint32_t i;
    uint16_t sum;

    memset(l4, 0, 20);
    l4[0] = (uint8_t)(sport >> 8);
    l4[1] = (uint8_t)sport;
    l4[2] = (uint8_t)(dport >> 8);
    l4[3] = (uint8_t)dport;
    l4[12] = 5 << 4;
    l4[13] = 0x10;
    for (i = 0; i < data_len; i++) {
        l4[20 + i] = payload_byte(i);
    }
    sum = reference_sum(l4, 20 + data_len, pseudo_sum(be_addr(src), be_addr(dst), IPPROTO_TCP, 20 + data_len));
    l4[16] = (uint8_t)(sum >> 8);
    l4[17] = (uint8_t)sum;
    return 20 + data_len;
}

uint32_t
build_arp(uint8_t *frame, uint16_t op, const struct rte_ether_addr *eth_dst, const struct rte_ether_addr *sha,
          const char *sip, const char *tip)
{
    static const uint8_t fixed[] = { 0x08, 0x06, 0, 1, 0x08, 0, 6, 4 };
    uint32_t from = be_addr(sip);
    uint32_t to = be_addr(tip);

    memset(frame, 0, 42);
    memcpy(frame, eth_dst, 6);
    memcpy(frame + 6, sha, 6);
    memcpy(frame + 12, fixed, sizeof(fixed));
    frame[21] = (uint8_t)op;
    memcpy(frame + 22, sha, 6);
    memcpy(frame + 28, &from, 4);
    memcpy(frame + 38, &to, 4);
    return 42;
}

void
learn(const char *peer, const struct rte_ether_addr *mac)
{
    uint8_t frame[64];
    struct ip_packet out;
    uint32_t len = build_arp(frame, 1, &mac_us, mac, peer, US);

    assert_int_equal(feed(frame, len, &out), 0); /* it asks for us: stale */
    len = build_arp(frame, 2, &mac_us, mac, peer, US);
    assert_int_equal(feed(frame, len, &out), 0); /* it answers us: reachable */
    forget_sent();
    memset(&fx.ctr, 0, sizeof(fx.ctr));
}

/* ---- packets out --------------------------------------------------------------------------------------------------- */

uint8_t
payload_byte(uint32_t i)
{
    return (uint8_t)(i * 31 + (i >> 8) * 7 + 0xf1);
}

static void
app_memory_free(void *at, void *opaque)
{
    (void)at;
    free(opaque);
}

struct rte_mbuf *
tcp_out(uint16_t hdr_len, uint32_t payload_len, uint16_t seg_bytes)
{
    struct rte_mbuf *head = rte_pktmbuf_alloc(fx.pool.tx);
    struct rte_mbuf *last = head;
    uint8_t *hdr;
    uint32_t done, part;

    assert_non_null(head);
    hdr = rte_pktmbuf_mtod(head, uint8_t *);
    head->data_len = hdr_len;
    memset(hdr, 1, hdr_len); /* behind the fixed part: NOPs */
    memset(hdr, 0, 20);
    hdr[0] = 0x1f;
    hdr[1] = 0x90;
    hdr[3] = 99;
    hdr[7] = 100; /* sequence number 100 */
    hdr[12] = (uint8_t)(hdr_len / 4 << 4);
    hdr[13] = 0x18; /* PSH, ACK */
    for (done = 0; done < payload_len; done++) {
        app_memory[done] = payload_byte(done);
    }
    for (done = 0; done < payload_len; done += part) {
        struct rte_mbuf *seg = rte_pktmbuf_alloc(fx.pool.tx);
        struct rte_mbuf_ext_shared_info *info = calloc(1, sizeof(*info));

        part = RTE_MIN(payload_len - done, seg_bytes != 0 ? seg_bytes : 32768u);
        info->free_cb = app_memory_free;
        info->fcb_opaque = info;
        rte_mbuf_ext_refcnt_set(info, 1);
        rte_pktmbuf_attach_extbuf(seg, app_memory + done, RTE_BAD_IOVA, (uint16_t)part, info);
        seg->data_len = (uint16_t)part;
        last->next = seg;
        last = seg;
        head->nb_segs++;
    }
    head->pkt_len = hdr_len + payload_len;
    return head;
}

int
send_tcp(struct rte_mbuf *m, const char *dst, uint16_t gso_size, uint16_t hdr_len)
{
    const struct ip_addr from = addr(US), to = addr(dst);
    const struct ip_send s = {
        .src = &from, .dst = &to, .proto = IPPROTO_TCP, .tos = 2, .gso_size = gso_size, .l4_hdr_len = hdr_len
    };

    return ip_output(fx.ip, m, &s, fx.now_us);
}
