/* SPDX-License-Identifier: BSD-3-Clause */
#include "ip/ip_internal.h"

#include <rte_ethdev.h>
#include <rte_gso.h>

#define HEADERS_LEN (ETH_HDR_LEN + IPV4_HDR_MIN)
#define PIECES_MAX 128u /**< what one oversized packet is cut into at most: 64 KiB in segments of 512 bytes */

/* ---- sums ---------------------------------------------------------------------------------------------------------- */

uint64_t
chain_add(const struct rte_mbuf *m, uint32_t off, uint32_t len)
{
    uint64_t sum = 0;
    bool odd =
        false; /* the segment starts in the middle of a 16-bit word: its sum counts with bytes swapped (RFC 1071) */

    while (off >= rte_pktmbuf_data_len(m) && m->next != NULL) {
        off -= rte_pktmbuf_data_len(m);
        m = m->next;
    }
    for (;;) {
        uint32_t part = RTE_MIN(rte_pktmbuf_data_len(m) - off, len);
        uint64_t s = sum_add(rte_pktmbuf_mtod_offset(m, const void *, off), part);

        sum += unlikely(odd) ? rte_bswap16(sum_fold(s)) : s;
        len -= part;
        if (len == 0) {
            return sum;
        }
        odd ^= (part & 1) != 0;
        off = 0;
        m = m->next;
    }
}

uint16_t
chain_sum(const struct rte_mbuf *m, uint32_t off, uint32_t len)
{
    return sum_fold(chain_add(m, off, len));
}

/* ---- frames to the port -------------------------------------------------------------------------------------------- */

struct rte_mbuf *
frame_alloc(struct ip_ctx *ip)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(ip->q->pool->tx);

    if (unlikely(m == NULL)) {
        counter_inc(ip->ctr, CTR_PORT_DROP_NO_MBUF);
    }
    return m;
}

/** Let the port, or have us, fill in the checksum of a TCP frame, which is zero as yet. cut: somebody will make several of it, with sums of their own. */
static inline void
fill_tcp_sum(struct ip_ctx *ip, struct rte_mbuf *m, uint32_t src, uint32_t dst, bool cut)
{
    struct rte_tcp_hdr *t = rte_pktmbuf_mtod_offset(m, struct rte_tcp_hdr *, HEADERS_LEN);
    uint32_t len = rte_pktmbuf_pkt_len(m) - HEADERS_LEN;

    if (unlikely(ip_caps(ip)->tx_tcp_csum || cut)) {
        m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_TCP_CKSUM;
        t->cksum = sum_fold(pseudo_add(src, dst, IPPROTO_TCP, cut ? 0 : len)); /* the port adds each one's length */
    } else {
        t->cksum = (uint16_t)~l4_sum_with(pseudo_add(src, dst, IPPROTO_TCP, len), m, HEADERS_LEN, len);
    }
}

/** IPv4's, of a frame whose header others have written. */
static void
fill_ipv4_sum(struct ip_ctx *ip, struct rte_mbuf *m)
{
    struct rte_ipv4_hdr *hdr = rte_pktmbuf_mtod_offset(m, struct rte_ipv4_hdr *, ETH_HDR_LEN);

    if (ip_caps(ip)->tx_ip_csum) {
        m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
    } else {
        hdr->hdr_checksum = (uint16_t)~sum_fold(sum_add_20(hdr));
    }
}

/** Cut a large TCP frame for a port that cannot. Ownership passes. */
static void
xmit_cut(struct ip_ctx *ip, struct rte_mbuf *m, uint64_t now_us)
{
    struct rte_gso_ctx gso = {
        .direct_pool = ip->q->pool->tx,
        .indirect_pool = ip->q->pool->tx,
        .gso_types = RTE_ETH_TX_OFFLOAD_TCP_TSO,
        .gso_size = (uint16_t)(m->l2_len + m->l3_len + m->l4_len + m->tso_segsz),
    };
    struct rte_mbuf *piece[PIECES_MAX];
    int n = rte_gso_segment(m, &gso, piece, PIECES_MAX);
    int i;

    if (unlikely(n <= 0)) {
        drop(ip, m, CTR_PORT_DROP_NO_MBUF);
        return;
    }
    for (i = 0; i < n; i++) {
        const struct rte_ipv4_hdr *hdr = rte_pktmbuf_mtod_offset(piece[i], struct rte_ipv4_hdr *, ETH_HDR_LEN);

        /* The pieces' headers lie in buffers of their own, whatever flags of the large frame's were copied. */
        piece[i]->ol_flags = 0;
        rte_pktmbuf_mtod_offset(piece[i], struct rte_tcp_hdr *, HEADERS_LEN)->cksum = 0; /* was the pseudo header's */
        fill_ipv4_sum(ip, piece[i]);
        fill_tcp_sum(ip, piece[i], hdr->src_addr, hdr->dst_addr, false);
        port_tx(ip->q, piece[i], now_us);
    }
    rte_pktmbuf_free(m); /* the payload stays until the last piece is sent */
}

void
frame_xmit(struct ip_ctx *ip, struct rte_mbuf *m, const struct rte_ether_hdr *eth, uint64_t now_us)
{
    *rte_pktmbuf_mtod(m, struct rte_ether_hdr *) = *eth;
    if (unlikely((m->ol_flags & RTE_MBUF_F_TX_TCP_SEG) != 0 && !ip_caps(ip)->tso)) {
        xmit_cut(ip, m, now_us);
    } else {
        port_tx(ip->q, m, now_us);
    }
}

/* ---- packets ------------------------------------------------------------------------------------------------------- */

/** The neighbour that packets to dst go to, or NULL if there is no route. */
static struct neigh *
find_hop(struct ip_ctx *ip, uint32_t dst, uint64_t now_us)
{
    const struct route *r = route_lookup(&ip->tables->routes, dst);

    return r != NULL ? neigh_get(ip, r->next_hop != 0 ? r->next_hop : dst, now_us) : NULL;
}

static inline struct hop *
hop_of(struct ip_ctx *ip, uint32_t dst)
{
    return &ip->hop[(rte_be_to_cpu_32(dst) ^ dst) & (HOP_CACHE - 1)];
}

/** The neighbour that was remembered for dst, which is not our own address; NULL: find_way has to look. */
static inline struct neigh *
way_known(struct ip_ctx *ip, const struct ip_addr *dst)
{
    const struct hop *h = hop_of(ip, ip_addr_to_v4(dst));

    return likely(ip_addr_equal(&h->dst, dst)) ? h->neigh : NULL;
}

/** Is there a route? The neighbour is remembered where no other worker takes entries away; elsewhere it stays NULL. */
static bool
find_way(struct ip_ctx *ip, const struct ip_addr *dst, struct neigh **n, uint64_t now_us)
{
    uint32_t addr = ip_addr_to_v4(dst);

    if (!ip_addr_is_v4(dst)) {
        return false;
    }
    if (ip->shared) {
        return route_lookup(&ip->tables->routes, addr) != NULL;
    }
    *n = find_hop(ip, addr, now_us);
    *hop_of(ip, addr) = (struct hop){ .dst = *dst, .neigh = *n };
    return *n != NULL;
}

/** Send, or queue, a frame that lacks what its Ethernet header says; with route_lock. Ownership passes. Returns 0 or -EHOSTUNREACH. */
static inline int
neigh_output(struct ip_ctx *ip, struct neigh *n, struct rte_mbuf *m, uint64_t now_us)
{
    n->used_us = now_us;
    if (unlikely(n->state != NEIGH_REACHABLE || now_us >= n->due_us)) {
        return neigh_output_unsure(ip, n, m, now_us);
    }
    frame_xmit(ip, m, &n->eth, now_us);
    return 0;
}

/**
 * Send a frame that lacks what its Ethernet header says. n NULL: the table is shared; then the neighbour is locked while the table still is, as in figure 4 of Willmann et al., and only
 * while it is used. Ownership passes.
 */
static int
hop_output(struct ip_ctx *ip, struct neigh *n, uint32_t dst, struct rte_mbuf *m, uint64_t now_us)
{
    int rc;

    if (likely(n != NULL)) {
        return neigh_output(ip, n, m, now_us);
    }
    routes_lock(ip);
    n = find_hop(ip, dst, now_us);
    route_lock(ip, n);
    routes_unlock(ip);
    rc = neigh_output(ip, n, m, now_us);
    route_unlock(ip, n);
    return rc;
}

/** To ourselves: a copy waits for ip_local_input. Ownership passes. */
static void
output_local(struct ip_ctx *ip, struct rte_mbuf *m, const struct ip_send *s)
{
    struct rte_mbuf *copy;

    if (s->proto != IPPROTO_TCP) {
        drop(ip, m, CTR_IP_DROP_PROTOCOL);
        return;
    }
    if (ip->local_tail - ip->local_head == LOCAL_QUEUE) {
        drop(ip, m, CTR_IP_DROP_LOCAL_FULL);
        return;
    }
    copy = pktpool_copy(ip->q->pool, m);
    if (copy == NULL) {
        drop(ip, m, CTR_PORT_DROP_NO_MBUF);
        return;
    }
    ip->local[ip->local_tail++ % LOCAL_QUEUE] = (struct ip_packet){
        .m = copy,
        .src = *s->src,
        .dst = *s->dst,
        .l4_off = 0,
        .l4_len = (uint16_t)rte_pktmbuf_pkt_len(m),
        .proto = s->proto,
        .tos = s->tos,
        .ttl = s->ttl != 0 ? s->ttl : IP_DEFAULT_TTL,
        .l4_csum_good = true, /* it has not left this memory */
    };
    rte_pktmbuf_free(m);
    counter_inc(ip->ctr, CTR_IP_LOCAL);
}

/**
 * An IPv4 header, with its checksum if it is to be summed, else with zero. plain: by is_plain.
 * TCP finds out the path's MTU (RFC 1191), unless it is told not to; an echo reply must get through. With DF the identification is 0, by which receivers that gather segments
 * know those of one stream (RFC 6864 lets it be anything); else random, so that it tells nobody how much we send.
 */
static inline __attribute__((always_inline)) void
write_ipv4(struct ip_ctx *ip, char *hdr, const struct ip_send *s, uint32_t total_len, bool summed, bool plain)
{
    bool df = plain || (s->proto == IPPROTO_TCP && !s->may_be_cut);
    uint32_t fragment = df ? RTE_IPV4_HDR_DF_FLAG : (uint32_t)(uint16_t)rng_next(&ip->rng) << 16;
    uint32_t kind = (uint32_t)(plain || s->ttl == 0 ? IP_DEFAULT_TTL : s->ttl) << 8 | (plain ? IPPROTO_TCP : s->proto);
    uint32_t src = ip_addr_to_v4(s->src), dst = ip_addr_to_v4(s->dst);
    uint32_t version = (uint32_t)RTE_IPV4_VHL_DEF << 8 | s->tos;
    uint16_t sum = 0;

    /* Of the words as they are at hand, rather than read back. */
    if (likely(summed)) {
        uint32_t words = version + total_len + (fragment >> 16) + (fragment & UINT16_MAX) + kind;
        sum = (uint16_t)~sum_fold((uint64_t)src + dst + sum_of_be16(words));
    }
    /* RFC 791 figure 4. */
    uint64_t first = rte_cpu_to_be_64((uint64_t)(version << 16 | total_len) << 32 | fragment);
    uint32_t second = rte_cpu_to_be_32(kind << 16 | rte_be_to_cpu_16(sum));
    memcpy(hdr, &first, sizeof(first));
    memcpy(hdr + 8, &second, sizeof(second));
    memcpy(hdr + 12, &src, sizeof(src));
    memcpy(hdr + 16, &dst, sizeof(dst));
}

/** Send, in fragments, a packet that starts with its IPv4 header. Ownership passes. */
static int
output_fragments(struct ip_ctx *ip, struct rte_mbuf *m, struct neigh *n, uint32_t dst, uint64_t now_us)
{
    struct rte_mbuf *piece[PIECES_MAX];
    int count = rte_ipv4_fragment_packet(m, piece, PIECES_MAX, ip->q->port->mtu, ip->q->pool->tx, ip->q->pool->tx);
    int result = 0;
    int i;

    rte_pktmbuf_free(m);
    if (count <= 0) {
        counter_inc(ip->ctr, CTR_PORT_DROP_NO_MBUF);
        return -ENOBUFS;
    }
    for (i = 0; i < count; i++) {
        piece[i]->ol_flags = 0;
        rte_pktmbuf_prepend(piece[i], ETH_HDR_LEN);
        piece[i]->l2_len = ETH_HDR_LEN;
        piece[i]->l3_len = IPV4_HDR_MIN;
        fill_ipv4_sum(ip, piece[i]);
        result = hop_output(ip, n, dst, piece[i], now_us);
    }
    return result;
}

/** Headers, sums, and what the port is asked for, of a packet of len bytes with its IPv4 header. plain: by is_plain. cut: by the port. Ownership passes. */
static inline __attribute__((always_inline)) int
output_whole(struct ip_ctx *ip, struct neigh *n, struct rte_mbuf *m, const struct ip_send *s, uint32_t len, bool plain,
             bool cut, uint64_t now_us)
{
    bool ip_by_port = ip_caps(ip)->tx_ip_csum || cut;

    counter_inc(ip->ctr, CTR_IP_TX);
    /* What the port said about a packet that we turn round (an echo) says nothing about the packet that we send. */
    m->ol_flags &= RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_INDIRECT;
    m->tx_offload = rte_mbuf_tx_offload(ETH_HDR_LEN, IPV4_HDR_MIN, s->l4_hdr_len, cut ? s->gso_size : 0, 0, 0, 0);
    write_ipv4(ip, rte_pktmbuf_prepend(m, HEADERS_LEN) + ETH_HDR_LEN, s, len, !ip_by_port, plain);
    if (unlikely(ip_by_port)) {
        m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | (cut ? RTE_MBUF_F_TX_TCP_SEG : 0);
    }
    if (plain || s->proto == IPPROTO_TCP) {
        fill_tcp_sum(ip, m, ip_addr_to_v4(s->src), ip_addr_to_v4(s->dst), cut);
    }
    return hop_output(ip, n, ip_addr_to_v4(s->dst), m, now_us);
}

/** Is a packet of len bytes, which is longer than the MTU or to be cut by TCP's boundaries, more than can be sent even so? */
static bool
is_too_big(const struct ip_ctx *ip, uint32_t len, const struct ip_send *s)
{
    if (len > IPV4_MAX_BYTES) {
        return true;
    }
    if (s->proto != IPPROTO_TCP) {
        return false; /* fragmented */
    }
    return s->gso_size == 0 || s->gso_size + s->l4_hdr_len + IPV4_HDR_MIN > ip->q->port->mtu ||
           (len - IPV4_HDR_MIN - s->l4_hdr_len + s->gso_size - 1) / s->gso_size > PIECES_MAX;
}

/** The way of a packet to a place that is not remembered; *n stays NULL where the table is shared. False: it has none, or has taken it; *result is then ip_output's. */
static bool
find_other_way(struct ip_ctx *ip, struct rte_mbuf *m, const struct ip_send *s, struct neigh **n, uint64_t now_us,
               int *result)
{
    *result = 0;
    if (ip_is_local(ip, s->dst)) {
        output_local(ip, m, s);
        return false;
    }
    if (!find_way(ip, s->dst, n, now_us)) {
        drop(ip, m, CTR_IP_DROP_NO_ROUTE);
        *result = -EHOSTUNREACH;
        return false;
    }
    return true;
}

/** Any packet of len bytes, by any way. Ownership passes. */
static __rte_noinline int
output_any(struct ip_ctx *ip, struct rte_mbuf *m, const struct ip_send *s, uint32_t len, uint64_t now_us)
{
    struct neigh *n = way_known(ip, s->dst);
    bool large = len > ip->q->port->mtu, cut = false;
    int result;

    if (large || s->gso_size != 0) {
        if (is_too_big(ip, len, s)) {
            drop(ip, m, CTR_IP_DROP_TOO_BIG);
            return -EMSGSIZE;
        }
        cut = s->gso_size != 0 && len - IPV4_HDR_MIN - s->l4_hdr_len > s->gso_size;
    }
    if (n == NULL && !find_other_way(ip, m, s, &n, now_us, &result)) {
        return result;
    }
    if (unlikely(large && s->proto != IPPROTO_TCP)) {
        counter_inc(ip->ctr, CTR_IP_TX);
        m->ol_flags &= RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_INDIRECT;
        write_ipv4(ip, rte_pktmbuf_prepend(m, IPV4_HDR_MIN), s, len, false, false);
        return output_fragments(ip, m, n, ip_addr_to_v4(s->dst), now_us);
    }
    return output_whole(ip, n, m, s, len, false, cut, now_us);
}

/** A TCP packet that goes as it is, as nearly all do. */
static inline bool
is_plain(const struct ip_ctx *ip, const struct ip_send *s, uint32_t len)
{
    return s->proto == IPPROTO_TCP && (s->ttl | s->may_be_cut | s->gso_size) == 0 && len <= ip->q->port->mtu;
}

int
ip_output(struct ip_ctx *ip, struct rte_mbuf *m, const struct ip_send *s, uint64_t now_us)
{
    uint32_t len = rte_pktmbuf_pkt_len(m) + IPV4_HDR_MIN;
    struct neigh *n = way_known(ip, s->dst);

    if (likely(n != NULL && is_plain(ip, s, len))) {
        return output_whole(ip, n, m, s, len, true, false, now_us);
    }
    return output_any(ip, m, s, len, now_us);
}
