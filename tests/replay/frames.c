/* SPDX-License-Identifier: BSD-3-Clause */
#include "frames.h"

#include <netinet/in.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_bus_vdev.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_mbuf_dyn.h>
#include <rte_tcp.h>

#define TCP_KIND_END 0
#define TCP_KIND_NOP 1
#define TCP_KIND_SACK 5
#define TCP_KIND_TS 8

void
frames_add(struct frames *to, const struct frame *f)
{
    if (to->n == to->capacity) {
        to->capacity = to->capacity != 0 ? 2 * to->capacity : 64;
        to->v = realloc(to->v, to->capacity * sizeof(*to->v));
        if (to->v == NULL)
            abort();
    }
    to->v[to->n++] = *f;
}

void
frames_free(struct frames *f)
{
    free(f->v);
    *f = (struct frames){ 0 };
}

/* ---- reading and writing ----------------------------------------------------------------------------------------------------- */

static void
take(struct frames *to, struct rte_mbuf *m, int stamp_at)
{
    struct frame f = { .len = rte_pktmbuf_pkt_len(m) };

    if (f.len <= sizeof(f.bytes)) {
        memcpy(f.bytes, rte_pktmbuf_mtod(m, const void *), f.len);
        f.at_us = *RTE_MBUF_DYNFIELD(m, stamp_at, rte_mbuf_timestamp_t *);
        frames_add(to, &f);
    }
    rte_pktmbuf_free(m);
}

static int
start_port(const char *name, struct rte_mempool *pool, uint16_t *port)
{
    const struct rte_eth_conf conf = { 0 };

    if (rte_eth_dev_get_port_by_name(name, port) != 0 || rte_eth_dev_configure(*port, 1, 1, &conf) != 0 ||
        rte_eth_rx_queue_setup(*port, 0, 64, SOCKET_ID_ANY, NULL, pool) != 0 ||
        rte_eth_tx_queue_setup(*port, 0, 64, SOCKET_ID_ANY, NULL) != 0 || rte_eth_dev_start(*port) != 0)
        return -1;
    return 0;
}

int
frames_read(struct frames *to, const char *path)
{
    static unsigned generation;
    struct rte_mempool *pool;
    struct rte_mbuf *m[32];
    char name[32], args[512];
    uint16_t port, n;
    int stamp_at;

    snprintf(name, sizeof(name), "net_pcap_replay%u", generation++);
    snprintf(args, sizeof(args), "rx_pcap=%s,tx_pcap=/dev/null", path);
    pool = rte_pktmbuf_pool_create(name, 1023, 0, 0, 2048 + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
    if (pool == NULL || rte_vdev_init(name, args) != 0 || start_port(name, pool, &port) != 0) {
        fprintf(stderr, "isosock-replay: cannot read %s\n", path);
        return -1;
    }
    stamp_at = rte_mbuf_dynfield_lookup(RTE_MBUF_DYNFIELD_TIMESTAMP_NAME, NULL);
    while (stamp_at >= 0 && (n = rte_eth_rx_burst(port, 0, m, RTE_DIM(m))) > 0)
        for (uint16_t i = 0; i < n; i++)
            take(to, m[i], stamp_at);
    rte_eth_dev_stop(port);
    rte_vdev_uninit(name);
    rte_mempool_free(pool);
    return stamp_at >= 0 ? 0 : -1;
}

int
frames_write(const struct frames *f, const char *path)
{
    pcap_t *p = pcap_open_dead(DLT_EN10MB, FRAME_BYTES_MAX);
    pcap_dumper_t *out = p != NULL ? pcap_dump_open(p, path) : NULL;

    for (size_t i = 0; out != NULL && i < f->n; i++) {
        struct pcap_pkthdr h = { .caplen = f->v[i].len, .len = f->v[i].len };

        h.ts.tv_sec = (time_t)(f->v[i].at_us / 1000000);
        h.ts.tv_usec = (suseconds_t)(f->v[i].at_us % 1000000);
        pcap_dump((u_char *)out, &h, f->v[i].bytes);
    }
    if (out != NULL)
        pcap_dump_close(out);
    else
        fprintf(stderr, "isosock-replay: cannot write %s\n", path);
    if (p != NULL)
        pcap_close(p);
    return out != NULL ? 0 : -1;
}

/* ---- what a frame holds ------------------------------------------------------------------------------------------------------ */

bool
segment_parse(const struct frame *f, struct segment *s)
{
    const struct rte_ether_hdr *eth = (const void *)f->bytes;
    const struct rte_ipv4_hdr *ip = (const void *)(eth + 1);
    const struct rte_tcp_hdr *tcp;
    uint32_t ip_len, total, tcp_len;

    if (f->len < sizeof(*eth) + sizeof(*ip) || eth->ether_type != htons(RTE_ETHER_TYPE_IPV4) ||
        ip->next_proto_id != IPPROTO_TCP)
        return false;
    ip_len = (ip->version_ihl & 0xfu) * 4u;
    total = ntohs(ip->total_length);
    if (total + sizeof(*eth) > f->len || total < ip_len + sizeof(*tcp))
        return false;
    tcp = (const void *)((const uint8_t *)ip + ip_len);
    tcp_len = (tcp->data_off >> 4) * 4u;
    if (tcp_len < sizeof(*tcp) || total < ip_len + tcp_len)
        return false;
    *s = (struct segment){
        .src = ntohl(ip->src_addr),
        .dst = ntohl(ip->dst_addr),
        .seq = ntohl(tcp->sent_seq),
        .ack = ntohl(tcp->recv_ack),
        .sport = ntohs(tcp->src_port),
        .dport = ntohs(tcp->dst_port),
        .window = ntohs(tcp->rx_win),
        .urgent = ntohs(tcp->tcp_urp),
        .ip_id = ntohs(ip->packet_id),
        .frag = ntohs(ip->fragment_offset),
        .tos = ip->type_of_service,
        .ttl = ip->time_to_live,
        .flags = tcp->tcp_flags,
        .options = (const uint8_t *)(tcp + 1),
        .options_len = (uint8_t)(tcp_len - sizeof(*tcp)),
        .payload = (const uint8_t *)tcp + tcp_len,
        .payload_len = total - ip_len - tcp_len,
    };
    return true;
}

static void
add_be32(uint8_t *p, uint32_t n)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    v = htonl(ntohl(v) + n);
    memcpy(p, &v, sizeof(v));
}

static void
rewrite_options(uint8_t *o, uint32_t len, const struct rewrite *w)
{
    for (uint32_t i = 0; i < len && o[i] != TCP_KIND_END; i += o[i] == TCP_KIND_NOP ? 1 : o[i + 1]) {
        if (o[i] == TCP_KIND_NOP)
            continue;
        if (i + 1 >= len || o[i + 1] < 2 || i + o[i + 1] > len)
            return;
        if (o[i] == TCP_KIND_TS && o[i + 1] == 10 && (o[i + 6] | o[i + 7] | o[i + 8] | o[i + 9]) != 0)
            add_be32(o + i + 6, w->our_ts);
        for (uint32_t k = 2; o[i] == TCP_KIND_SACK && k + 4 <= o[i + 1]; k += 4)
            add_be32(o + i + k, w->our_seq);
    }
}

void
frame_rewrite(struct frame *f, const struct rewrite *w)
{
    struct rte_ether_hdr *eth = (void *)f->bytes;
    struct rte_ipv4_hdr *ip = (void *)(eth + 1);
    struct rte_tcp_hdr *tcp = (void *)((uint8_t *)ip + (ip->version_ihl & 0xf) * 4);

    memcpy(&eth->dst_addr, w->our_mac, sizeof(w->our_mac));
    memcpy(&eth->src_addr, w->peer_mac, sizeof(w->peer_mac));
    ip->dst_addr = htonl(w->our_addr);
    ip->src_addr = htonl(w->peer_addr);
    if (tcp->tcp_flags & RTE_TCP_ACK_FLAG)
        add_be32((uint8_t *)&tcp->recv_ack, w->our_seq);
    rewrite_options((uint8_t *)(tcp + 1), (tcp->data_off >> 4) * 4u - (uint32_t)sizeof(*tcp), w);
    f->len = (uint32_t)sizeof(*eth) + ntohs(ip->total_length);
    ip->hdr_checksum = tcp->cksum = 0;
    ip->hdr_checksum = rte_ipv4_cksum(ip);
    tcp->cksum = rte_ipv4_udptcp_cksum(ip, tcp);
}

static bool
differs(const char *name, uint32_t a, uint32_t b, char *text, size_t size)
{
    if (a == b)
        return false;
    snprintf(text, size, "%s %u, not %u", name, b, a);
    return true;
}

const char *
segment_differs(const struct segment *a, const struct segment *b, char *text, size_t size)
{
    text[0] = '\0';
    if (differs("source", a->src, b->src, text, size) || differs("destination", a->dst, b->dst, text, size) ||
        differs("source port", a->sport, b->sport, text, size) ||
        differs("destination port", a->dport, b->dport, text, size) ||
        differs("flags", a->flags, b->flags, text, size) || differs("sequence number", a->seq, b->seq, text, size) ||
        differs("payload length", a->payload_len, b->payload_len, text, size) ||
        differs("acknowledgement", a->ack, b->ack, text, size) || differs("window", a->window, b->window, text, size) ||
        differs("urgent pointer", a->urgent, b->urgent, text, size) || differs("TOS", a->tos, b->tos, text, size) ||
        differs("TTL", a->ttl, b->ttl, text, size) || differs("fragment word", a->frag, b->frag, text, size) ||
        differs("IP identification", a->ip_id, b->ip_id, text, size) ||
        differs("length of options", a->options_len, b->options_len, text, size))
        return text;
    for (unsigned i = 0; i < a->options_len; i++)
        if (differs("option byte", a->options[i], b->options[i], text, size))
            return text;
    for (unsigned i = 0; i < a->payload_len; i++)
        if (differs("payload byte", a->payload[i], b->payload[i], text, size))
            return text;
    return text;
}
