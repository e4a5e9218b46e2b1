/* SPDX-License-Identifier: BSD-3-Clause */
#include "ip/ip_internal.h"

#define OPT_LSRR 131 /**< RFC 791 section 3.1: loose source route */
#define OPT_SSRR 137 /**< strict source route */
#define UDP_HDR_LEN 8u

bool
ipv4_is_group(const struct ip_ctx *ip, uint32_t addr)
{
    return addr == INADDR_BROADCAST || IN_MULTICAST(rte_be_to_cpu_32(addr)) || (addr == ip->broadcast && addr != 0);
}

bool
ipv4_is_martian(const struct ip_ctx *ip, uint32_t addr)
{
    uint32_t host = rte_be_to_cpu_32(addr);

    /* 0/8, 127/8, and classes D and E, which include the limited broadcast. */
    return host >> 24 == 0 || host >> 24 == 127 || host >> 29 == 7 || addr == ip->addr || ipv4_is_group(ip, addr);
}

/** Cut off what lies behind the first `len` bytes, i.e. Ethernet padding; len <= pkt_len, len > 0. */
static void
trim_to(struct rte_mbuf *m, uint32_t len)
{
    struct rte_mbuf *seg = m;
    uint32_t before = 0;

    while (before + rte_pktmbuf_data_len(seg) < len) {
        before += rte_pktmbuf_data_len(seg);
        seg = seg->next;
    }
    m->pkt_len = len;
    seg->data_len = (uint16_t)(len - before);
    while (seg->next != NULL) {
        struct rte_mbuf *rest = seg->next;

        seg->next = rest->next;
        rest->next = NULL;
        rest->nb_segs = 1;
        m->nb_segs--;
        rte_pktmbuf_free_seg(rest);
    }
}

/** Options are skipped, but their lengths must add up, and nobody routes through us. */
static bool
check_options(struct ip_ctx *ip, const uint8_t *opt, unsigned len)
{
    unsigned at = 0;

    while (at < len && opt[at] != RTE_IPV4_HDR_OPT_EOL) {
        if (opt[at] == RTE_IPV4_HDR_OPT_NOP) {
            at++;
            continue;
        }
        if (len - at < 2 || opt[at + 1] < 2 || opt[at + 1] > len - at) {
            counter_inc(ip->ctr, CTR_IP_DROP_HEADER);
            return false;
        }
        if (opt[at] == OPT_LSRR || opt[at] == OPT_SSRR) {
            counter_inc(ip->ctr, CTR_IP_DROP_SOURCE_ROUTE);
            return false;
        }
        at += opt[at + 1];
    }
    return true;
}

/** The port's verdict where it gives one, ours elsewhere. */
static inline bool
header_checksum_ok(const struct ip_ctx *ip, const struct rte_mbuf *m, const void *hdr, unsigned hdr_len)
{
    uint64_t verdict = m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK;

    if (ip_caps(ip)->rx_csum && verdict != RTE_MBUF_F_RX_IP_CKSUM_UNKNOWN) {
        return verdict != RTE_MBUF_F_RX_IP_CKSUM_BAD;
    }
    return sum_fold(likely(hdr_len == IPV4_HDR_MIN) ? sum_add_20(hdr) : sum_add(hdr, hdr_len)) == 0xffff;
}

static inline struct ipv4_view
view_of(const struct rte_ipv4_hdr *hdr, uint16_t l3_off, unsigned hdr_len, unsigned total_len)
{
    return (struct ipv4_view){
        .src = hdr->src_addr,
        .dst = hdr->dst_addr,
        .l3_off = l3_off,
        .l4_off = (uint16_t)(l3_off + hdr_len),
        .l4_len = (uint16_t)(total_len - hdr_len),
        .proto = hdr->next_proto_id,
        .tos = hdr->type_of_service,
        .ttl = hdr->time_to_live, /* any: a host does not look at it (RFC 1122 section 3.2.1.7) */
    };
}

/** Lengths, version, checksum, options (RFC 1122 section 3.2.1). Fills v; false if the packet must be dropped (counted). */
static bool
check_header(struct ip_ctx *ip, struct rte_mbuf *m, uint16_t l3_off, struct ipv4_view *v)
{
    const struct rte_ipv4_hdr *hdr = rte_pktmbuf_mtod_offset(m, const struct rte_ipv4_hdr *, l3_off);
    unsigned hdr_len, total_len;

    if (rte_pktmbuf_data_len(m) < l3_off + IPV4_HDR_MIN) {
        counter_inc(ip->ctr, CTR_IP_DROP_SHORT);
        return false;
    }
    hdr_len = rte_ipv4_hdr_len(hdr);
    total_len = rte_be_to_cpu_16(hdr->total_length);
    if (hdr->version_ihl >> 4 != IPVERSION || hdr_len < IPV4_HDR_MIN || total_len < hdr_len) {
        counter_inc(ip->ctr, CTR_IP_DROP_HEADER);
        return false;
    }
    if (rte_pktmbuf_data_len(m) < l3_off + hdr_len || rte_pktmbuf_pkt_len(m) < l3_off + total_len) {
        counter_inc(ip->ctr, CTR_IP_DROP_SHORT);
        return false;
    }
    if (!header_checksum_ok(ip, m, hdr, hdr_len)) {
        counter_inc(ip->ctr, CTR_IP_DROP_CHECKSUM);
        return false;
    }
    if (!check_options(ip, (const uint8_t *)hdr + IPV4_HDR_MIN, hdr_len - IPV4_HDR_MIN)) {
        return false;
    }
    if (rte_pktmbuf_pkt_len(m) > l3_off + total_len) {
        trim_to(m, l3_off + total_len);
    }
    *v = view_of(hdr, l3_off, hdr_len, total_len);
    return true;
}

/** From a possible sender, and to us alone. RFC 1122 section 3.3.6: a unicast packet in a group frame is dropped too. */
static inline bool
check_addresses(struct ip_ctx *ip, const struct ipv4_view *v, bool to_group)
{
    if (likely(v->dst == ip->addr && !to_group && v->src == ip->sound_src && v->src != 0)) {
        return true;
    }
    if (v->dst == ip->addr && !to_group && !ipv4_is_martian(ip, v->src)) {
        ip->sound_src = v->src;
        return true;
    }
    if (!ipv4_is_martian(ip, v->src) && (to_group || ipv4_is_group(ip, v->dst))) {
        counter_inc(ip->ctr, CTR_IP_DROP_BROADCAST);
    } else {
        counter_inc(ip->ctr, CTR_IP_DROP_ADDRESS);
    }
    return false;
}

bool
ip_tcp_csum_ok(const void *segment, uint16_t len, const struct ip_addr *src, const struct ip_addr *dst)
{
    uint64_t pseudo = (uint64_t)ip_addr_to_v4(src) + ip_addr_to_v4(dst) + sum_of_be16(IPPROTO_TCP + len);

    return sum_fold(pseudo + sum_add(segment, len)) == 0xffff;
}

/** The TCP checksum: by the port, or here. *good: false = the caller has to see to it. */
static inline bool
tcp_checksum_ok(const struct ip_ctx *ip, const struct rte_mbuf *m, const struct ipv4_view *v, bool *good)
{
    uint64_t verdict = m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;

    /* NONE: the field holds no checksum, but the payload is known to be intact (virtio). */
    if (ip_caps(ip)->rx_csum && !v->reassembled && verdict != RTE_MBUF_F_RX_L4_CKSUM_UNKNOWN) {
        return verdict != RTE_MBUF_F_RX_L4_CKSUM_BAD;
    }
    *good = !ip->csum_later || m->next != NULL;
    return !*good || l4_sum(m, rte_pktmbuf_mtod_offset(m, const struct rte_ipv4_hdr *, v->l3_off), v->l4_off,
                            v->l4_len) == 0xffff;
}

/** The header must lie whole in the `there` bytes of the packet that the first segment has: a first fragment too small for it is an attack (RFC 1858 section 3). */
static inline bool
tcp_input(struct ip_ctx *ip, struct rte_mbuf *m, const struct ipv4_view *v, unsigned there, struct ip_packet *out)
{
    const struct rte_tcp_hdr *tcp = rte_pktmbuf_mtod_offset(m, const struct rte_tcp_hdr *, v->l4_off);
    unsigned hdr_len;
    bool good = true;

    if (there < sizeof(*tcp)) {
        drop(ip, m, CTR_TCP_DROP_SHORT);
        return false;
    }
    hdr_len = (tcp->data_off >> 4) * 4u;
    if (hdr_len < sizeof(*tcp) || there < hdr_len) {
        drop(ip, m, CTR_TCP_DROP_SHORT);
        return false;
    }
    if (!tcp_checksum_ok(ip, m, v, &good)) {
        drop(ip, m, CTR_TCP_DROP_CHECKSUM);
        return false;
    }
    *out = (struct ip_packet){
        .m = m,
        .src = ip_addr_v4(v->src),
        .dst = ip_addr_v4(v->dst),
        .l4_off = v->l4_off,
        .l4_len = v->l4_len,
        .proto = IPPROTO_TCP,
        .tos = v->tos,
        .ttl = v->ttl,
        .l4_csum_good = good,
    };
    return true;
}

/** No port is open; a sound datagram earns a port-unreachable (RFC 1122 section 4.1.3.1). */
static void
udp_input(struct ip_ctx *ip, struct rte_mbuf *m, const struct ipv4_view *v, uint64_t now_us)
{
    const struct rte_ipv4_hdr *hdr = rte_pktmbuf_mtod_offset(m, const struct rte_ipv4_hdr *, v->l3_off);
    struct rte_udp_hdr copy;
    const struct rte_udp_hdr *udp = NULL;
    uint16_t len = 0;

    if (v->l4_len >= UDP_HDR_LEN) {
        udp = rte_pktmbuf_read(m, v->l4_off, UDP_HDR_LEN, &copy);
        len = rte_be_to_cpu_16(udp->dgram_len);
    }
    /* The length must agree with IP's, as the pseudo-header counts IP's; a checksum of 0 says that there is none. */
    if (udp == NULL || len != v->l4_len || (udp->dgram_cksum != 0 && l4_sum(m, hdr, v->l4_off, len) != 0xffff)) {
        drop(ip, m, CTR_UDP_DROP_MALFORMED);
        return;
    }
    counter_inc(ip->ctr, CTR_UDP_DROP_NO_PORT);
    icmp_send_unreachable(ip, m, v, ICMP_CODE_PORT, now_us);
    rte_pktmbuf_free(m);
}

/** v described the fragment that came last; let it describe the whole, which the first one heads. */
static void
view_whole(const struct rte_mbuf *m, struct ipv4_view *v)
{
    const struct rte_ipv4_hdr *hdr = rte_pktmbuf_mtod_offset(m, const struct rte_ipv4_hdr *, v->l3_off);

    v->l4_off = (uint16_t)(v->l3_off + rte_ipv4_hdr_len(hdr));
    v->l4_len = (uint16_t)(rte_pktmbuf_pkt_len(m) - v->l4_off);
    v->proto = hdr->next_proto_id; /* rte_ip_frag does not compare it */
    v->tos = hdr->type_of_service;
    v->ttl = hdr->time_to_live;
    v->reassembled = true;
}

/** What the first segment has of the packet behind its header; nothing, where that fills it. */
static unsigned
there_of(const struct rte_mbuf *m, const struct ipv4_view *v)
{
    unsigned behind = rte_pktmbuf_data_len(m) > v->l4_off ? rte_pktmbuf_data_len(m) - v->l4_off : 0u;

    return RTE_MIN(behind, (unsigned)v->l4_len);
}

/** What is not usual: with options or padding, in several segments, a fragment, or no TCP. Apart, so that the others' view stays in registers. */
static __rte_noinline bool
input_other(struct ip_ctx *ip, struct rte_mbuf *m, uint16_t l2_len, bool to_group, struct ip_packet *out,
            uint64_t now_us)
{
    struct ipv4_view v;

    if (!check_header(ip, m, l2_len, &v) || !check_addresses(ip, &v, to_group)) {
        rte_pktmbuf_free(m);
        return false;
    }
    if (rte_ipv4_frag_pkt_is_fragmented(rte_pktmbuf_mtod_offset(m, const struct rte_ipv4_hdr *, l2_len))) {
        m = frag_input(ip, m, &v, now_us);
        if (m == NULL) {
            return false;
        }
        view_whole(m, &v);
    }
    counter_inc(ip->ctr, CTR_IP_RX);
    switch (v.proto) {
    case IPPROTO_TCP:
        return tcp_input(ip, m, &v, there_of(m, &v), out);
    case IPPROTO_ICMP:
        icmp_input(ip, m, &v, now_us);
        break;
    case IPPROTO_UDP:
        udp_input(ip, m, &v, now_us);
        break;
    default:
        icmp_send_unreachable(ip, m, &v, ICMP_CODE_PROTOCOL, now_us);
        drop(ip, m, CTR_IP_DROP_PROTOCOL);
        break;
    }
    return false;
}

/** TCP without options in one segment, which ends where the packet does: of check_header the checksum is left. */
static inline bool
is_usual(const struct rte_mbuf *m, uint16_t l3_off, const struct rte_ipv4_hdr *hdr, unsigned total_len)
{
    return rte_pktmbuf_data_len(m) == l3_off + total_len && m->next == NULL && hdr->version_ihl == RTE_IPV4_VHL_DEF &&
           hdr->next_proto_id == IPPROTO_TCP && !rte_ipv4_frag_pkt_is_fragmented(hdr);
}

bool
ipv4_input(struct ip_ctx *ip, struct rte_mbuf *m, uint16_t l2_len, bool to_group, struct ip_packet *out,
           uint64_t now_us)
{
    const struct rte_ipv4_hdr *hdr = rte_pktmbuf_mtod_offset(m, const struct rte_ipv4_hdr *, l2_len);
    unsigned total_len;
    struct ipv4_view v;

    if (unlikely(rte_pktmbuf_data_len(m) < l2_len + IPV4_HDR_MIN)) {
        return input_other(ip, m, l2_len, to_group, out, now_us);
    }
    total_len = rte_be_to_cpu_16(hdr->total_length);
    if (unlikely(!is_usual(m, l2_len, hdr, total_len))) {
        return input_other(ip, m, l2_len, to_group, out, now_us);
    }
    if (unlikely(!header_checksum_ok(ip, m, hdr, IPV4_HDR_MIN))) {
        drop(ip, m, CTR_IP_DROP_CHECKSUM);
        return false;
    }
    v = view_of(hdr, l2_len, IPV4_HDR_MIN, total_len);
    if (unlikely(!check_addresses(ip, &v, to_group))) {
        rte_pktmbuf_free(m);
        return false;
    }
    counter_inc(ip->ctr, CTR_IP_RX);
    return tcp_input(ip, m, &v, v.l4_len, out);
}
