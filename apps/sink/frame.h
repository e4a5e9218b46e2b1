/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SINK_FRAME_H
#define SINK_FRAME_H

#include <stdbool.h>

#include <rte_ether.h>
#include <rte_mbuf.h>

#include "peer.h"

/** @file Frames of the sink wire: from bytes to struct peer_segment, and from struct peer_reply to bytes. */

enum frame_kind {
    FRAME_TCP,
    FRAME_ARP_REQUEST,
    FRAME_OTHER, /**< nothing that is answered here */
    FRAME_BAD, /**< truncated, or a checksum is wrong */
};

struct frame_format {
    struct rte_ether_addr own_mac, stack_mac;
    bool offload_csum; /**< sums are the wire's matter: none is checked, none is formed */
    bool tell_hash; /**< frames for the stack carry their hash, as receive-side scaling's */
};

/** Any mbuf chain; it stays the caller's. s is filled in for FRAME_TCP. */
enum frame_kind frame_parse(const struct frame_format *f, const struct rte_mbuf *m, struct peer_segment *s);

/** Write a reply into an empty mbuf, which has room for an MTU. */
void frame_build(const struct frame_format *f, const struct peer_reply *r, struct rte_mbuf *m);

/** Answer an ARP request (FRAME_ARP_REQUEST): whatever address is asked for is here. m: an empty mbuf. */
void frame_build_arp(const struct frame_format *f, const struct rte_mbuf *request, struct rte_mbuf *m);

#endif /* SINK_FRAME_H */
