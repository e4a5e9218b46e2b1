/* SPDX-License-Identifier: BSD-3-Clause */
#include "ip/ip_internal.h"

#define VLAN_ID_MASK 0x0fffu

/** Look behind a tag. Returns false if the frame must be dropped (counted). */
static bool
untag(struct ip_ctx *ip, const struct rte_mbuf *m, uint16_t *l2_len, uint16_t *type)
{
    const struct rte_vlan_hdr *tag = rte_pktmbuf_mtod_offset(m, const struct rte_vlan_hdr *, ETH_HDR_LEN);

    if (rte_pktmbuf_data_len(m) < ETH_HDR_LEN + sizeof(*tag)) {
        counter_inc(ip->ctr, CTR_ETH_DROP_SHORT);
        return false;
    }
    /* VLAN 0 is no VLAN: the tag carries a priority only (IEEE 802.1Q section 6.9). */
    if ((rte_be_to_cpu_16(tag->vlan_tci) & VLAN_ID_MASK) != 0) {
        counter_inc(ip->ctr, CTR_ETH_DROP_VLAN);
        return false;
    }
    *l2_len = ETH_HDR_LEN + sizeof(*tag);
    *type = rte_be_to_cpu_16(tag->eth_proto);
    return true;
}

uint16_t
eth_parse(struct ip_ctx *ip, const struct rte_mbuf *m, uint16_t *l2_len, bool *to_group)
{
    const struct rte_ether_hdr *eth = rte_pktmbuf_mtod(m, const struct rte_ether_hdr *);
    uint16_t type;

    if (rte_pktmbuf_data_len(m) < ETH_HDR_LEN) {
        counter_inc(ip->ctr, CTR_ETH_DROP_SHORT);
        return 0;
    }
    /* Ours is no group's. */
    *to_group = memcmp(&eth->dst_addr, &ip->q->port->mac, sizeof(eth->dst_addr)) != 0;
    if (unlikely(*to_group) && !rte_is_multicast_ether_addr(&eth->dst_addr)) {
        counter_inc(ip->ctr, CTR_ETH_DROP_NOT_OURS);
        return 0;
    }
    if (rte_is_multicast_ether_addr(&eth->src_addr)) {
        counter_inc(ip->ctr, CTR_ETH_DROP_SOURCE);
        return 0;
    }
    *l2_len = ETH_HDR_LEN;
    type = rte_be_to_cpu_16(eth->ether_type);
    if (unlikely(type == RTE_ETHER_TYPE_VLAN) && !untag(ip, m, l2_len, &type)) {
        return 0;
    }
    if (type != RTE_ETHER_TYPE_IPV4 && type != RTE_ETHER_TYPE_ARP) {
        counter_inc(ip->ctr, CTR_ETH_DROP_TYPE);
        return 0;
    }
    return type;
}
