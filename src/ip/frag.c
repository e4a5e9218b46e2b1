/* SPDX-License-Identifier: BSD-3-Clause */
#define ALLOW_EXPERIMENTAL_API /* rte_ip_frag_table_del_expired_entries: without it fragments would be held until others come */
#include "ip/ip_internal.h"

#include <rte_malloc.h>

/*
 * Reassembly, by rte_ip_frag, whose clock is whatever we pass to it: microseconds. Memory is bounded by MAX_PACKETS times
 * RTE_LIBRTE_IP_FRAG_MAX_FRAG buffers; TCP does not send fragments, so this is for rare paths and for ping.
 */

#define MAX_PACKETS 64u
#define BUCKET_ENTRIES 4u
#define TIMEOUT_US                                                                                                     \
    (30 * UINT64_C(1000000)) /**< RFC 1122 section 3.3.2 asks for 60 to 120 s; that long serves attackers only */

int
frag_init(struct ip_ctx *ip, int socket_id)
{
    ip->frag_sweep_us = UINT64_MAX;
    ip->frag_dead = rte_zmalloc_socket("ip_frag_dead", sizeof(*ip->frag_dead), RTE_CACHE_LINE_SIZE, socket_id);
    ip->frag = rte_ip_frag_table_create(MAX_PACKETS, BUCKET_ENTRIES, MAX_PACKETS, TIMEOUT_US, socket_id);
    if (ip->frag_dead == NULL || ip->frag == NULL) {
        frag_fini(ip);
        return -ENOMEM;
    }
    return 0;
}

void
frag_fini(struct ip_ctx *ip)
{
    if (ip->frag != NULL) {
        rte_ip_frag_table_destroy(ip->frag);
        ip->frag = NULL;
    }
    rte_free(ip->frag_dead);
    ip->frag_dead = NULL;
}

/** Free, and count, what the table has given up. */
static void
bury(struct ip_ctx *ip)
{
    counter_add(ip->ctr, CTR_IP_DROP_FRAGMENT, ip->frag_dead->cnt);
    rte_ip_frag_free_death_row(ip->frag_dead, 0);
}

struct rte_mbuf *
frag_input(struct ip_ctx *ip, struct rte_mbuf *m, const struct ipv4_view *v, uint64_t now_us)
{
    struct rte_ipv4_hdr *hdr = rte_pktmbuf_mtod_offset(m, struct rte_ipv4_hdr *, v->l3_off);
    unsigned field = rte_be_to_cpu_16(hdr->fragment_offset);
    unsigned offset = (field & RTE_IPV4_HDR_OFFSET_MASK) * RTE_IPV4_HDR_OFFSET_UNITS;
    bool more = (field & RTE_IPV4_HDR_MF_FLAG) != 0;

    counter_inc(ip->ctr, CTR_IP_FRAGMENTS);
    /* RFC 791 section 3.2: all but the last are multiples of 8 bytes; the whole fits the length field. */
    if (v->l4_len == 0 || (more && v->l4_len % RTE_IPV4_HDR_OFFSET_UNITS != 0) ||
        offset + v->l4_len > IPV4_MAX_BYTES - IPV4_HDR_MIN) {
        drop(ip, m, CTR_IP_DROP_FRAGMENT);
        return NULL;
    }
    m->l2_len = v->l3_off;
    m->l3_len = (uint16_t)(v->l4_off - v->l3_off);
    ip->frag_last_us = now_us;
    if (ip->frag_sweep_us == UINT64_MAX) {
        ip->frag_sweep_us = now_us + TIMEOUT_US + 1;
    }
    m = rte_ipv4_frag_reassemble_packet(ip->frag, ip->frag_dead, m, now_us, hdr);
    bury(ip);
    if (m == NULL) {
        return NULL;
    }
    /* Options in the first fragment can push the sum over the limit although each piece kept to it. */
    if (rte_pktmbuf_pkt_len(m) - v->l3_off > IPV4_MAX_BYTES || m->l2_len != v->l3_off) {
        drop(ip, m, CTR_IP_DROP_FRAGMENT);
        return NULL;
    }
    counter_inc(ip->ctr, CTR_IP_REASSEMBLED);
    return m;
}

void
frag_tick(struct ip_ctx *ip, uint64_t now_us)
{
    rte_ip_frag_table_del_expired_entries(ip->frag, ip->frag_dead, now_us);
    bury(ip);
    /* What is left came after the sweep was set, and at the latest at frag_last_us. */
    ip->frag_sweep_us = ip->frag_last_us + TIMEOUT_US + 1;
    if (ip->frag_sweep_us <= now_us) {
        ip->frag_sweep_us = UINT64_MAX;
    }
}
