/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef IP_IP_H
#define IP_IP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include "core/counter.h"
#include "core/port.h"
#include "ip/addr.h"

/**
 * @file
 * The internet layer of one worker: Ethernet, ARP, IPv4, ICMP, routes, local delivery. Nothing here is shared between
 * workers (IsoStack section 3: not even adapter state), unless ip_config.shared says so (Willmann et al.: routes under locks). It owns no thread and reads no clock.
 *
 * Life of a frame in: ip_input takes a burst, checks and parses each frame once, answers ARP and ICMP echo itself,
 * and returns the transport packets as struct ip_packet. Life of a packet out: ip_output finds the route and the
 * neighbour (queueing the packet while it resolves), writes IPv4 and Ethernet headers, sees to checksums, and hands
 * the frame to the port; a packet to one of our own addresses is copied and comes back from ip_local_input.
 */

#define IP_MAX_ROUTES 64

/** A transport packet that passed every check of the internet layer. */
struct ip_packet {
    struct rte_mbuf *m; /**< owned by whoever holds this struct; may be a chain */
    struct ip_addr src, dst;
    uint16_t l4_off; /**< from the start of m to the transport header, which lies in the first segment */
    uint16_t l4_len; /**< transport header and payload, without Ethernet padding */
    uint8_t proto;
    uint8_t tos; /**< DSCP and ECN */
    uint8_t ttl;
    bool
        l4_csum_good; /**< checked by the port, or by ip_input in software; false only with ip_config.csum_later: ask ip_tcp_csum_ok */
};

/** What an ICMP error told us about a TCP connection of ours (RFC 1122 section 4.2.3.9, RFC 5927). */
struct ip_unreachable {
    struct ip_addr local, remote; /**< of the packet that we had sent */
    uint16_t local_port, remote_port; /**< host order */
    uint32_t seq; /**< TCP sequence number of the packet that we had sent, host order */
    int error; /**< EHOSTUNREACH, ENETUNREACH, ECONNREFUSED, EMSGSIZE, EPROTO ... */
    bool hard; /**< port or protocol unreachable (RFC 1122), or prohibited: no use in trying again */
    uint16_t mtu; /**< with EMSGSIZE: the next hop's, 0 if it does not say */
};

/** Calls upwards, filled in by the layer above. */
struct ip_ops {
    void (*unreachable)(void *ctx, const struct ip_unreachable *info, uint64_t now_us);
    /** A neighbour did not resolve: packets to `dst` were dropped. */
    void (*no_neighbour)(void *ctx, const struct ip_addr *dst, uint64_t now_us);
    /** An ARP frame has come in (still ours): other workers of this host, which have tables of their own, may want to see it. NULL: nobody does. */
    void (*arp_heard)(void *ctx, const struct rte_mbuf *m, uint64_t now_us);
};

struct ip_config {
    struct ip_addr addr; /**< our address */
    uint8_t prefix_len; /**< of the IPv4 address, 0..32 */
    struct ip_addr gateway; /**< any = none */
    uint64_t seed; /**< for IP identification */
    bool shared; /**< several workers use one table of routes and neighbours, under its locks */
    struct ip_ctx *share; /**< ... whose it is; NULL = this one's */
    bool
        csum_later; /**< leave TCP checksums of packets in one buffer, where the port says nothing of them, to the caller */
    bool quiet; /**< another worker of this host answers ARP requests, announces and defends the address */
};

struct ip_ctx; /* ip_internal.h */

/**
 * Create the internet layer over one queue. cfg->share, if there is one, must outlive it. Worker or main thread. cfg and ops are copied; q, ctr and q's pool must outlive it.
 * Its first ip_tick, and one two seconds later, announce our address (RFC 5227). cfg->addr is an IPv4 unicast address and
 * prefix_len at most 32: the caller has checked that. Returns NULL if memory is short.
 */
struct ip_ctx *ip_create(const struct ip_config *cfg, struct port_queue *q, struct counters *ctr,
                         const struct ip_ops *ops, void *ops_ctx);
/** Frees all packets that wait; NULL is allowed. */
void ip_destroy(struct ip_ctx *ip);

/**
 * Take a burst of frames (ownership passes) and fill out[], which has room for n, with the TCP packets among them, in order.
 * Returns how many; the caller owns their mbufs. Everything else is answered, dropped and counted, or handed to ip_ops, whose
 * functions run inside this call. Fragments are put together (RFC 791), at most 64 packets of 8 pieces at a time, for 30 s.
 */
uint16_t ip_input(struct ip_ctx *ip, struct rte_mbuf **pkts, uint16_t n, struct ip_packet *out, uint64_t now_us);

/**
 * Is the TCP checksum of a segment right, whose packet came with l4_csum_good false? It lies in one piece. Reads these bytes alone: any thread, and
 * whatever stands there by now.
 */
bool ip_tcp_csum_ok(const void *segment, uint16_t len, const struct ip_addr *src, const struct ip_addr *dst);

/** Packets that this host sent to itself since the last call, at most max; as from ip_input. */
uint16_t ip_local_input(struct ip_ctx *ip, struct ip_packet *out, uint16_t max, uint64_t now_us);

/** Parameters of a packet to send. */
struct ip_send {
    const struct ip_addr *src, *dst;
    uint8_t
        proto; /**< IPPROTO_TCP: the checksum field of the header at the start of m is filled in here, or by the port */
    uint8_t tos;
    uint8_t ttl; /**< 0 = 64 */
    bool may_be_cut; /**< TCP: by routers; else it has DF (RFC 1191) */
    uint16_t gso_size; /**< payload bytes per segment when the port shall cut (TSO); 0 = one packet */
    uint16_t l4_hdr_len; /**< transport header's length */
};

/**
 * Send. m starts with the transport header and may be a chain; ownership passes whatever happens. The first segment has
 * headroom for 14 + 20 bytes, and holds the transport header. A TCP packet must fit the MTU (each segment, if gso_size is set; at
 * most 128 of them); another is fragmented. Waits for the neighbour if it must (at most 16 packets for each). Worker thread.
 * Returns 0, or for information, the drop being counted: -EMSGSIZE too big; -EHOSTUNREACH no route, or the neighbour did not
 * answer a moment ago; -ENOBUFS no buffers for fragments. 0 does not mean that it has left: see ip_ops.no_neighbour.
 */
int ip_output(struct ip_ctx *ip, struct rte_mbuf *m, const struct ip_send *s, uint64_t now_us);

/** Is it one of our addresses? */
bool ip_is_local(const struct ip_ctx *ip, const struct ip_addr *a);

/** Is there a route to it (own addresses included)? None leads to a multicast or broadcast address. */
bool ip_has_route(const struct ip_ctx *ip, const struct ip_addr *dst);

/** Source address for a destination: the address to use; any if there is no route. */
struct ip_addr ip_source_for(const struct ip_ctx *ip, const struct ip_addr *dst);

/** Largest IP packet towards dst, as far as the port is concerned; what a path allows comes through ip_ops.unreachable. */
uint16_t ip_mtu(const struct ip_ctx *ip, const struct ip_addr *dst);

/** Routes, for the front-end's late binding and for the tools. */
struct ip_route {
    struct ip_addr prefix;
    struct ip_addr next_hop; /**< any = on link */
    uint8_t prefix_len; /**< IPv4 bits, 0..32 */
};
/** Copy at most max routes, longest prefix first; returns how many. Worker thread. */
unsigned ip_routes(const struct ip_ctx *ip, struct ip_route *out, unsigned max);
/**
 * Worker thread. Returns 0, or -EEXIST there is one with this prefix, -ENOSPC the table is full, -EINVAL not IPv4, prefix_len above
 * 32, address bits behind the prefix, or a next hop that cannot be a neighbour.
 */
int ip_route_add(struct ip_ctx *ip, const struct ip_route *r);
/** Take out the route with this prefix, whatever its next hop. Returns 0, -ENOENT, or -EINVAL as above. */
int ip_route_del(struct ip_ctx *ip, const struct ip_route *r);

/** Neighbours, for the tools. */
struct ip_neighbour {
    struct ip_addr addr;
    struct rte_ether_addr mac;
    const char *state; /**< "incomplete", "reachable", "stale", "probe", "failed" */
    uint64_t age_us; /**< since mac was learnt or confirmed; 0 if it is not known */
};
/** Copy at most max neighbours; returns how many. Worker thread. */
unsigned ip_neighbours(const struct ip_ctx *ip, struct ip_neighbour *out, unsigned max, uint64_t now_us);

/** Neighbour timers, gratuitous ARP, fragments that waited too long. May call ip_ops. */
void ip_tick(struct ip_ctx *ip, uint64_t now_us);
/** When ip_tick must run next; UINT64_MAX if never; now_us if packets wait for ip_local_input. */
uint64_t ip_next_us(const struct ip_ctx *ip, uint64_t now_us);

#endif /* IP_IP_H */
