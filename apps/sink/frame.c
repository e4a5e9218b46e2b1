/* SPDX-License-Identifier: BSD-3-Clause */
#include "frame.h"

#include <netinet/in.h>
#include <string.h>

#include <rte_arp.h>
#include <rte_byteorder.h>
#include <rte_ip.h>
#include <rte_tcp.h>

#define OPT_END 0
#define OPT_NOP 1
#define OPT_MSS 2
#define OPT_WSCALE 3
#define OPT_SACK_OK 4
#define OPT_SACK 5
#define OPT_TS 8
#define TCP_OPTIONS_MAX 40u
#define REPLY_TTL 64

/* ---- from bytes ----------------------------------------------------------------------------------------------------------- */

static void
parse_option(const uint8_t *o, struct peer_segment *s)
{
    if (o[0] == OPT_MSS && o[1] == 4) {
        s->mss = (uint16_t)(o[2] << 8 | o[3]);
    } else if (o[0] == OPT_WSCALE && o[1] == 3) {
        s->has_wscale = true;
        s->wscale = o[2];
    } else if (o[0] == OPT_SACK_OK && o[1] == 2) {
        s->has_sack_ok = true;
    } else if (o[0] == OPT_TS && o[1] == 10) {
        s->has_ts = true;
        s->ts_value = (uint32_t)o[2] << 24 | (uint32_t)o[3] << 16 | (uint32_t)o[4] << 8 | o[5];
    }
}

static void
parse_options(const uint8_t *o, uint32_t n, struct peer_segment *s)
{
    for (uint32_t i = 0; i < n && o[i] != OPT_END;) {
        if (o[i] == OPT_NOP) {
            i++;
            continue;
        }
        if (i + 2 > n || o[i + 1] < 2 || i + o[i + 1] > n)
            return;
        parse_option(o + i, s);
        i += o[i + 1];
    }
}

static bool
sums_are_right(const struct rte_mbuf *m, const struct rte_ipv4_hdr *ip)
{
    const uint32_t at = RTE_ETHER_HDR_LEN + sizeof(*ip);
    uint32_t sum;
    uint16_t raw;

    if (rte_raw_cksum(ip, sizeof(*ip)) != 0xffff)
        return false;
    if (rte_raw_cksum_mbuf(m, at, rte_be_to_cpu_16(ip->total_length) - (uint32_t)sizeof(*ip), &raw) != 0)
        return false;
    sum = (uint32_t)raw + rte_ipv4_phdr_cksum(ip, 0);
    return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

static enum frame_kind
parse_tcp(const struct frame_format *f, const struct rte_mbuf *m, struct peer_segment *s)
{
    struct {
        struct rte_ipv4_hdr ip;
        struct rte_tcp_hdr tcp;
    } __attribute__((packed)) copy;
    uint8_t options[TCP_OPTIONS_MAX];
    uint32_t at = RTE_ETHER_HDR_LEN, tcp_bytes, total_bytes;
    const struct rte_ipv4_hdr *ip = rte_pktmbuf_read(m, at, sizeof(copy), &copy);
    const struct rte_tcp_hdr *tcp = (const struct rte_tcp_hdr *)(ip + 1);

    if (ip == NULL || ip->version_ihl != RTE_IPV4_VHL_DEF)
        return FRAME_BAD;
    if (ip->next_proto_id != IPPROTO_TCP)
        return FRAME_OTHER;
    tcp_bytes = (uint32_t)(tcp->data_off >> 4) * 4;
    total_bytes = rte_be_to_cpu_16(ip->total_length);
    if (tcp_bytes < sizeof(*tcp) || total_bytes < sizeof(*ip) + tcp_bytes || m->pkt_len < at + total_bytes)
        return FRAME_BAD;
    if (!f->offload_csum && !sums_are_right(m, ip))
        return FRAME_BAD;
    *s = (struct peer_segment){
        .tuple = { ip->src_addr, ip->dst_addr, tcp->src_port, tcp->dst_port },
        .seq = rte_be_to_cpu_32(tcp->sent_seq),
        .ack = rte_be_to_cpu_32(tcp->recv_ack),
        .payload_bytes = total_bytes - (uint32_t)sizeof(*ip) - tcp_bytes,
        .window = rte_be_to_cpu_16(tcp->rx_win),
        .flags = tcp->tcp_flags,
    };
    at += (uint32_t)sizeof(copy);
    if (tcp_bytes > sizeof(*tcp)) {
        uint32_t n = tcp_bytes - (uint32_t)sizeof(*tcp);

        parse_options(rte_pktmbuf_read(m, at, n, options), n, s);
        at += n;
    }
    if (s->payload_bytes > 0) {
        uint32_t n = RTE_MIN(s->payload_bytes, HELLO_BYTES);
        const void *head = rte_pktmbuf_read(m, at, n, s->head);

        if (head != s->head)
            memcpy(s->head, head, n);
    }
    return FRAME_TCP;
}

enum frame_kind
frame_parse(const struct frame_format *f, const struct rte_mbuf *m, struct peer_segment *s)
{
    const struct rte_ether_hdr *eth = rte_pktmbuf_mtod(m, const struct rte_ether_hdr *);

    if (rte_pktmbuf_data_len(m) < sizeof(*eth))
        return FRAME_BAD;
    if (eth->ether_type == RTE_BE16(RTE_ETHER_TYPE_IPV4))
        return parse_tcp(f, m, s);
    if (eth->ether_type == RTE_BE16(RTE_ETHER_TYPE_ARP)) {
        const struct rte_arp_hdr *arp = (const struct rte_arp_hdr *)(eth + 1);

        if (rte_pktmbuf_data_len(m) < sizeof(*eth) + sizeof(*arp))
            return FRAME_BAD;
        /* Who asks for an address of its own only wants to know whether somebody else has it. */
        if (arp->arp_opcode == RTE_BE16(RTE_ARP_OP_REQUEST) && arp->arp_data.arp_tip != arp->arp_data.arp_sip &&
            arp->arp_data.arp_sip != 0)
            return FRAME_ARP_REQUEST;
    }
    return FRAME_OTHER;
}

/* ---- to bytes ------------------------------------------------------------------------------------------------------------- */

static uint8_t *
put_u32(uint8_t *o, uint32_t v)
{
    v = rte_cpu_to_be_32(v);
    memcpy(o, &v, sizeof(v));
    return o + sizeof(v);
}

/** Returns their length, a multiple of 4. */
static uint32_t
build_options(const struct peer_reply *r, uint8_t *begin)
{
    uint8_t *o = begin;

    if (r->mss != 0)
        o = put_u32(o, OPT_MSS << 24 | 4 << 16 | r->mss);
    if (r->has_wscale)
        o = put_u32(o, (uint32_t)OPT_NOP << 24 | OPT_WSCALE << 16 | 3 << 8 | r->wscale);
    if (r->has_sack_ok)
        o = put_u32(o, OPT_NOP << 24 | OPT_NOP << 16 | OPT_SACK_OK << 8 | 2);
    if (r->has_ts) {
        /* Its own clock stands still, which is monotonic too. */
        o = put_u32(o, OPT_NOP << 24 | OPT_NOP << 16 | OPT_TS << 8 | 10);
        o = put_u32(o, 1);
        o = put_u32(o, r->ts_echo);
    }
    if (r->nb_sacks > 0) {
        o = put_u32(o, (uint32_t)(OPT_NOP << 24 | OPT_NOP << 16 | OPT_SACK << 8) | (2 + 8 * (uint32_t)r->nb_sacks));
        for (unsigned i = 0; i < r->nb_sacks; i++) {
            o = put_u32(o, r->sacks[i][0]);
            o = put_u32(o, r->sacks[i][1]);
        }
    }
    return (uint32_t)(o - begin);
}

static void
build_sums(const struct frame_format *f, struct rte_ipv4_hdr *ip, struct rte_tcp_hdr *tcp, struct rte_mbuf *m)
{
    if (f->offload_csum) {
        m->ol_flags |= RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD;
        return;
    }
    ip->hdr_checksum = rte_ipv4_cksum(ip);
    tcp->cksum = rte_ipv4_udptcp_cksum(ip, tcp);
}

void
frame_build(const struct frame_format *f, const struct peer_reply *r, struct rte_mbuf *m)
{
    struct rte_ether_hdr *eth = rte_pktmbuf_mtod(m, struct rte_ether_hdr *);
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(eth + 1);
    struct rte_tcp_hdr *tcp = (struct rte_tcp_hdr *)(ip + 1);
    uint32_t options_bytes = build_options(r, (uint8_t *)(tcp + 1));
    uint8_t *payload = (uint8_t *)(tcp + 1) + options_bytes;
    uint32_t ip_bytes = (uint32_t)(sizeof(*ip) + sizeof(*tcp)) + options_bytes + r->payload_bytes;

    *eth = (struct rte_ether_hdr){ f->stack_mac, f->own_mac, RTE_BE16(RTE_ETHER_TYPE_IPV4) };
    *ip = (struct rte_ipv4_hdr){
        .version_ihl = RTE_IPV4_VHL_DEF,
        .total_length = rte_cpu_to_be_16((uint16_t)ip_bytes),
        .fragment_offset = RTE_BE16(RTE_IPV4_HDR_DF_FLAG),
        .time_to_live = REPLY_TTL,
        .next_proto_id = IPPROTO_TCP,
        .src_addr = r->tuple.own_addr,
        .dst_addr = r->tuple.stack_addr,
    };
    *tcp = (struct rte_tcp_hdr){
        .src_port = r->tuple.own_port,
        .dst_port = r->tuple.stack_port,
        .sent_seq = rte_cpu_to_be_32(r->seq),
        .recv_ack = rte_cpu_to_be_32(r->ack),
        .data_off = (uint8_t)((sizeof(*tcp) + options_bytes) / 4 << 4),
        .tcp_flags = r->flags,
        .rx_win = rte_cpu_to_be_16(r->window),
    };
    if (r->has_payload)
        memcpy(payload, r->payload, r->payload_bytes);
    else
        memset(payload, 0, r->payload_bytes);
    m->data_len = (uint16_t)(sizeof(*eth) + ip_bytes);
    m->pkt_len = m->data_len;
    if (f->tell_hash) {
        m->hash.rss = r->hash;
        m->ol_flags |= RTE_MBUF_F_RX_RSS_HASH;
        m->packet_type = RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV4 | RTE_PTYPE_L4_TCP;
    }
    build_sums(f, ip, tcp, m);
}

void
frame_build_arp(const struct frame_format *f, const struct rte_mbuf *request, struct rte_mbuf *m)
{
    const struct rte_arp_hdr *asked = rte_pktmbuf_mtod_offset(request, const struct rte_arp_hdr *, RTE_ETHER_HDR_LEN);
    struct rte_ether_hdr *eth = rte_pktmbuf_mtod(m, struct rte_ether_hdr *);
    struct rte_arp_hdr *arp = (struct rte_arp_hdr *)(eth + 1);

    *eth = (struct rte_ether_hdr){ f->stack_mac, f->own_mac, RTE_BE16(RTE_ETHER_TYPE_ARP) };
    *arp = *asked;
    arp->arp_opcode = RTE_BE16(RTE_ARP_OP_REPLY);
    arp->arp_data.arp_tha = asked->arp_data.arp_sha;
    arp->arp_data.arp_tip = asked->arp_data.arp_sip;
    arp->arp_data.arp_sha = f->own_mac;
    arp->arp_data.arp_sip = asked->arp_data.arp_tip;
    m->data_len = m->pkt_len = sizeof(*eth) + sizeof(*arp);
}
