/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef IP_IP_INTERNAL_H
#define IP_IP_INTERNAL_H

#include <errno.h>
#include <netinet/in.h>

#include <rte_arp.h>
#include <rte_ether.h>
#include <rte_icmp.h>
#include <rte_ip.h>
#include <rte_ip_frag.h>
#include <rte_mbuf.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#include "core/lock.h"
#include "core/rng.h"
#include "ip/ip.h"
#include "ip/sum.h"

/**
 * @file
 * What the files of this layer share. Addresses are uint32_t in network order here ("be" in names where it could be
 * mistaken); struct ip_addr is for the border. Every function runs on the worker that owns the context; tables may be shared with other workers' (routes_lock).
 */

#define ETH_HDR_LEN 14u
#define IPV4_HDR_MIN 20u
#define IPV4_MAX_BYTES 65535u
#define IP_DEFAULT_TTL 64

/* ---- neighbours (arp.c) -------------------------------------------------------------------------------------------- */

#define NEIGH_MAX 256u
#define NEIGH_BUCKETS 512u /**< power of two */
#define NEIGH_QUEUE                                                                                                    \
    272u /**< packets that wait for one neighbour; RFC 1122 section 2.3.2.2 asks for at least one, Linux's 212,992 bytes keep some 270 SYNs */
#define NEIGH_NONE UINT16_MAX

/** RFC 4861 section 7.3.2, with ARP in the place of neighbour solicitations. DELAY is left out: a stale entry is probed at its first use. */
enum neigh_state {
    NEIGH_FREE,
    NEIGH_INCOMPLETE, /**< asking everybody; packets wait */
    NEIGH_REACHABLE, /**< until due_us; then it counts as stale */
    NEIGH_STALE, /**< the address is known but old; the next use probes it */
    NEIGH_PROBE, /**< asking the station itself; packets flow */
    NEIGH_FAILED, /**< nobody answered; packets are refused until due_us */
};

struct neigh {
    struct lock
        lock; /**< of a shared table: guards the rest but for addr and next; waited for with the table's held, and kept beyond it */
    uint32_t addr;
    uint16_t next; /**< in its hash bucket; NEIGH_NONE ends it */
    uint8_t state; /**< enum neigh_state; changed by neigh_set_state alone */
    uint8_t tries; /**< requests sent in this state */
    struct rte_ether_hdr eth; /**< of frames with a packet to it; the destination is valid in REACHABLE, STALE, PROBE */
    uint16_t queued; /**< > 0 only in INCOMPLETE */
    uint64_t due_us; /**< end of REACHABLE and FAILED; next request in INCOMPLETE and PROBE */
    uint64_t used_us; /**< last packet to it, or its creation: the oldest is recycled first */
    uint64_t confirmed_us; /**< when mac was last learnt or confirmed; 0 = never */
    struct rte_mbuf *queue[NEIGH_QUEUE]; /**< whole frames but for what their Ethernet header says, oldest first */
};

struct arp {
    struct neigh entry[NEIGH_MAX];
    uint16_t bucket[NEIGH_BUCKETS];
    uint16_t high; /**< entries at and above it were never used */
    uint64_t next_us; /**< no request and no verdict is due before */
    uint64_t announce_us; /**< next gratuitous request */
    uint64_t defended_us; /**< last defence of our address; 0 = never */
    uint8_t announce_left;
};

void arp_init(struct ip_ctx *ip);
/** Free all that waits. */
void arp_fini(struct ip_ctx *ip);
/** Judge an ARP packet that starts l2_len bytes into m. m stays the caller's. */
void arp_input(struct ip_ctx *ip, const struct rte_mbuf *m, uint16_t l2_len, uint64_t now_us);
/** The entry of an on-link address, made if need be; never NULL. With routes_lock, as all that looks for one. */
struct neigh *neigh_get(struct ip_ctx *ip, uint32_t addr, uint64_t now_us);
/** neigh_output where the neighbour was not heard of lately. */
int neigh_output_unsure(struct ip_ctx *ip, struct neigh *n, struct rte_mbuf *m, uint64_t now_us);
void arp_tick(struct ip_ctx *ip, uint64_t now_us);
uint64_t arp_next_us(const struct ip_ctx *ip);

/* ---- routes (route.c) ---------------------------------------------------------------------------------------------- */

struct route {
    uint32_t prefix; /**< prefix & mask == prefix */
    uint32_t mask;
    uint32_t next_hop; /**< 0 = on link */
    uint8_t prefix_len;
};

struct route_table {
    struct route route[IP_MAX_ROUTES]; /**< sorted by falling prefix_len, so that the first match is the longest */
    unsigned count;
};

/** The route to dst, or NULL. */
const struct route *route_lookup(const struct route_table *t, uint32_t dst);
uint32_t ipv4_mask(uint8_t prefix_len);

/* ---- received IPv4 (ipv4.c, frag.c) -------------------------------------------------------------------------------- */

/** An IPv4 packet whose header passed every check: lengths agree with the mbuf, padding is gone. */
struct ipv4_view {
    uint32_t src, dst;
    uint16_t l3_off; /**< from the start of the mbuf to the IPv4 header */
    uint16_t l4_off;
    uint16_t l4_len;
    uint8_t proto;
    uint8_t tos;
    uint8_t ttl;
    bool reassembled; /**< the port's verdict on the checksum does not cover it */
};

/** Take an IPv4 frame; ownership passes. True if *out now holds a TCP packet. to_group: the frame was sent to a group MAC. */
bool ipv4_input(struct ip_ctx *ip, struct rte_mbuf *m, uint16_t l2_len, bool to_group, struct ip_packet *out,
                uint64_t now_us);
/** A source that no packet from the wire may bear (RFC 1122 section 3.2.1.3), our own address included. */
bool ipv4_is_martian(const struct ip_ctx *ip, uint32_t addr);
/** Limited broadcast, multicast, or the broadcast address of our own network. */
bool ipv4_is_group(const struct ip_ctx *ip, uint32_t addr);

int frag_init(struct ip_ctx *ip, int socket_id);
void frag_fini(struct ip_ctx *ip);
/** Take a fragment with a checked header; returns the whole packet when this was the last missing piece, else NULL. */
struct rte_mbuf *frag_input(struct ip_ctx *ip, struct rte_mbuf *m, const struct ipv4_view *v, uint64_t now_us);
void frag_tick(struct ip_ctx *ip, uint64_t now_us);

#define ICMP_CODE_PROTOCOL 2 /**< of destination unreachable, RFC 792 */
#define ICMP_CODE_PORT 3

/* ---- ICMP (icmp.c) ------------------------------------------------------------------------------------------------- */

/** Take an ICMP packet; ownership passes. */
void icmp_input(struct ip_ctx *ip, struct rte_mbuf *m, const struct ipv4_view *v, uint64_t now_us);
/** Send a destination-unreachable that quotes the packet, if the rate limit allows. m stays the caller's. */
void icmp_send_unreachable(struct ip_ctx *ip, const struct rte_mbuf *m, const struct ipv4_view *v, uint8_t code,
                           uint64_t now_us);

struct icmp_limit {
    uint64_t filled_us; /**< tokens were counted up to this instant */
    uint32_t tokens;
};

/* ---- Ethernet (eth.c) ---------------------------------------------------------------------------------------------- */

/**
 * Check the Ethernet header. Returns IPv4's or ARP's EtherType (host order) with the header's length in *l2_len (18 behind a priority
 * tag) and whether the frame was sent to a group, or 0 if the frame must be dropped (counted).
 */
uint16_t eth_parse(struct ip_ctx *ip, const struct rte_mbuf *m, uint16_t *l2_len, bool *to_group);

/* ---- sending (output.c) -------------------------------------------------------------------------------------------- */

/** Give a frame to the port, with this Ethernet header in the room for one: cut by software if it needs that, copied if the port needs that. Ownership passes. */
void frame_xmit(struct ip_ctx *ip, struct rte_mbuf *m, const struct rte_ether_hdr *eth, uint64_t now_us);
/** An empty mbuf for a packet of our own making; NULL (counted) if there is none. */
struct rte_mbuf *frame_alloc(struct ip_ctx *ip);
/** Ones' complement sum of len bytes from off, over a chain with segments of any length. off + len <= pkt_len. */
uint16_t chain_sum(const struct rte_mbuf *m, uint32_t off, uint32_t len);
/** Not folded, and of a chain of several buffers. */
uint64_t chain_add(const struct rte_mbuf *m, uint32_t off, uint32_t len);

/** The sum of the pseudo-header (RFC 9293 section 3.1), not folded. */
static inline uint64_t
pseudo_add(uint32_t src, uint32_t dst, uint32_t proto, uint32_t len)
{
    return (uint64_t)src + dst + sum_of_be16(proto + len);
}

/** With that, the sum of a transport packet: 0xffff if its checksum is right. */
static inline uint16_t
l4_sum_with(uint64_t pseudo, const struct rte_mbuf *m, uint32_t off, uint32_t len)
{
    return sum_fold(pseudo + (likely(m->next == NULL) ? sum_add(rte_pktmbuf_mtod_offset(m, const void *, off), len)
                                                      : chain_add(m, off, len)));
}

static inline uint16_t
l4_sum(const struct rte_mbuf *m, const struct rte_ipv4_hdr *ip_hdr, uint32_t off, uint16_t len)
{
    /* Not by rte_ipv4_phdr_cksum: the header's total length is not to be trusted after reassembly. */
    return l4_sum_with(pseudo_add(ip_hdr->src_addr, ip_hdr->dst_addr, ip_hdr->next_proto_id, len), m, off, len);
}

/* ---- the context --------------------------------------------------------------------------------------------------- */

#define HOP_CACHE 16u /**< power of two */
#define LOCAL_QUEUE 512u /**< power of two */

/** Where packets to dst go: as long as no route changes, and no entry of the neighbours' table is taken away (hops_forget). */
struct hop {
    struct ip_addr dst; /**< none of the wire is zero, as an empty place is */
    struct neigh *neigh;
};

/** What the workers of a host may share. */
struct ip_tables {
    struct lock lock;
    struct route_table routes;
    struct arp arp;
};

struct ip_ctx {
    struct port_queue *q;
    struct counters *ctr;
    struct ip_ops ops;
    void *ops_ctx;
    uint32_t addr; /**< our address */
    uint32_t sound_src; /**< the last sender that is no martian; 0 = none yet */
    bool quiet;
    bool csum_later;
    uint32_t broadcast; /**< of our network; 0 = it has none (RFC 3021) */
    struct rng rng;
    struct icmp_limit icmp_limit;
    struct hop hop[HOP_CACHE];
    struct rte_ip_frag_tbl *frag;
    struct rte_ip_frag_death_row *frag_dead; /**< scratch: empty between calls */
    uint64_t frag_last_us; /**< last fragment received */
    uint64_t frag_sweep_us; /**< next look for fragments that waited too long; UINT64_MAX if none waits */
    uint32_t local_head, local_tail; /**< local[] holds tail - head packets */
    struct ip_tables *tables; /**< own, or those of the context that shares them with this one */
    bool shared; /**< others use these tables at the same time */
    struct ip_tables own;
    struct ip_packet local[LOCAL_QUEUE];
};

/**
 * Where workers share the tables: which neighbours there are. Routes change while no worker is inside a pass. A neighbour is a route to one host, as in the kernels that the
 * names of these locks come from.
 */
static inline void
routes_lock(struct ip_ctx *ip)
{
    if (unlikely(ip->shared))
        lock_take(&ip->tables->lock, ip->ctr, CTR_LOCK_ROUTES);
}

static inline void
routes_unlock(struct ip_ctx *ip)
{
    if (unlikely(ip->shared))
        lock_give(&ip->tables->lock);
}

/** One neighbour. */
static inline void
route_lock(struct ip_ctx *ip, struct neigh *n)
{
    if (unlikely(ip->shared))
        lock_take(&n->lock, ip->ctr, CTR_LOCK_ROUTE);
}

static inline void
route_unlock(struct ip_ctx *ip, struct neigh *n)
{
    if (unlikely(ip->shared))
        lock_give(&n->lock);
}

static inline const struct port_caps *
ip_caps(const struct ip_ctx *ip)
{
    return &ip->q->port->caps;
}

/** Of what we send; to whom may be filled in later. */
static inline struct rte_ether_hdr
eth_header(const struct ip_ctx *ip, const struct rte_ether_addr *to, uint16_t type)
{
    return (
        struct rte_ether_hdr){ .dst_addr = *to, .src_addr = ip->q->port->mac, .ether_type = rte_cpu_to_be_16(type) };
}

/** What is remembered of routes and neighbours may be so no more. Where tables are shared nothing is. */
static inline void
hops_forget(struct ip_ctx *ip)
{
    memset(ip->hop, 0, sizeof(ip->hop));
}

static inline void
drop(struct ip_ctx *ip, struct rte_mbuf *m, enum counter_id why)
{
    counter_inc(ip->ctr, why);
    rte_pktmbuf_free(m);
}

#endif /* IP_IP_INTERNAL_H */
