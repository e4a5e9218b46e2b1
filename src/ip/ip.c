/* SPDX-License-Identifier: BSD-3-Clause */
#include "ip/ip_internal.h"

#include <rte_malloc.h>
#include <rte_prefetch.h>

#define PREFETCH_AHEAD 4u

/** The connected network and the default route. A gateway outside the network is taken to be on the link. */
static void
add_first_routes(struct ip_ctx *ip, const struct ip_config *cfg)
{
    uint32_t mask = ipv4_mask(cfg->prefix_len);
    struct ip_route connected = { .prefix = ip_addr_v4(ip->addr & mask), .prefix_len = cfg->prefix_len };
    struct ip_route fallback = { .prefix = ip_addr_v4(0), .next_hop = cfg->gateway, .prefix_len = 0 };

    /* RFC 3021: networks of /31 and /32 have no broadcast address. */
    ip->broadcast = cfg->prefix_len < 31 ? ip->addr | ~mask : 0;
    if (cfg->share != NULL) {
        return;
    }
    (void)ip_route_add(ip, &connected);
    if (!ip_addr_is_any(&cfg->gateway)) {
        (void)ip_route_add(ip, &fallback);
    }
}

struct ip_ctx *
ip_create(const struct ip_config *cfg, struct port_queue *q, struct counters *ctr, const struct ip_ops *ops,
          void *ops_ctx)
{
    int socket_id = (int)rte_socket_id();
    struct ip_ctx *ip = rte_zmalloc_socket("ip_ctx", sizeof(*ip), RTE_CACHE_LINE_SIZE, socket_id);

    if (ip == NULL) {
        return NULL;
    }
    ip->q = q;
    ip->ctr = ctr;
    ip->ops = *ops;
    ip->ops_ctx = ops_ctx;
    ip->addr = ip_addr_to_v4(&cfg->addr);
    rng_init(&ip->rng, cfg->seed, q->queue_id);
    ip->quiet = cfg->quiet;
    ip->csum_later = cfg->csum_later;
    ip->shared = cfg->shared;
    ip->tables = cfg->share != NULL ? cfg->share->tables : &ip->own;
    if (cfg->share == NULL) {
        arp_init(ip);
    }
    if (frag_init(ip, socket_id) != 0) {
        rte_free(ip);
        return NULL;
    }
    add_first_routes(ip, cfg);
    return ip;
}

void
ip_destroy(struct ip_ctx *ip)
{
    if (ip == NULL) {
        return;
    }
    for (; ip->local_head != ip->local_tail; ip->local_head++) {
        rte_pktmbuf_free(ip->local[ip->local_head % LOCAL_QUEUE].m);
    }
    if (ip->tables == &ip->own) {
        arp_fini(ip);
    }
    frag_fini(ip);
    rte_free(ip);
}

/** One frame; ownership passes. True if *out now holds a TCP packet. */
static inline bool
input_frame(struct ip_ctx *ip, struct rte_mbuf *m, struct ip_packet *out, uint64_t now_us)
{
    uint16_t l2_len = 0;
    bool to_group = false;

    switch (eth_parse(ip, m, &l2_len, &to_group)) {
    case RTE_ETHER_TYPE_IPV4:
        return ipv4_input(ip, m, l2_len, to_group, out, now_us);
    case RTE_ETHER_TYPE_ARP:
        arp_input(ip, m, l2_len, now_us);
        break;
    default: /* counted by eth_parse */
        break;
    }
    rte_pktmbuf_free(m);
    return false;
}

uint16_t
ip_input(struct ip_ctx *ip, struct rte_mbuf **pkts, uint16_t n, struct ip_packet *out, uint64_t now_us)
{
    uint16_t taken = 0;
    uint16_t i;

    for (i = 0; i < RTE_MIN(n, PREFETCH_AHEAD); i++) {
        rte_prefetch0(rte_pktmbuf_mtod(pkts[i], void *));
    }
    for (i = 0; i < n; i++) {
        if (i + PREFETCH_AHEAD < n) {
            rte_prefetch0(rte_pktmbuf_mtod(pkts[i + PREFETCH_AHEAD], void *));
        }
        if (input_frame(ip, pkts[i], &out[taken], now_us)) {
            taken++;
        }
    }
    return taken;
}

uint16_t
ip_local_input(struct ip_ctx *ip, struct ip_packet *out, uint16_t max, uint64_t now_us)
{
    uint16_t n = (uint16_t)RTE_MIN((uint32_t)max, ip->local_tail - ip->local_head);
    uint16_t i;

    (void)now_us;
    for (i = 0; i < n; i++) {
        out[i] = ip->local[ip->local_head++ % LOCAL_QUEUE];
    }
    return n;
}

void
ip_tick(struct ip_ctx *ip, uint64_t now_us)
{
    arp_tick(ip, now_us);
    if (unlikely(now_us >= ip->frag_sweep_us)) {
        frag_tick(ip, now_us);
    }
}

uint64_t
ip_next_us(const struct ip_ctx *ip, uint64_t now_us)
{
    if (ip->local_head != ip->local_tail) {
        return now_us;
    }
    return RTE_MIN(arp_next_us(ip), ip->frag_sweep_us);
}
