/* SPDX-License-Identifier: BSD-3-Clause */
#include "ip/ip_internal.h"

/*
 * Neighbours: RFC 826 for the packets, RFC 4861 section 7.3 for the life of an entry, RFC 5227 for announcements and conflicts.
 */

#define REACHABLE_US                                                                                                   \
    (30 * UINT64_C(1000000)) /**< RFC 4861 section 10, REACHABLE_TIME; not randomised, nothing is synchronised by it */
#define RETRANS_US                                                                                                     \
    UINT64_C(                                                                                                          \
        1000000) /**< RFC 4861 section 10, RETRANS_TIMER; RFC 1122 section 2.3.2.1 asks for no more than one a second */
#define MAX_TRIES 3u /**< RFC 4861 section 10, MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT */
#define FAILED_US                                                                                                      \
    UINT64_C(1000000) /**< a dead neighbour is asked for again after this, i.e. senders cannot make us flood */
#define ANNOUNCE_NUM 2u /**< RFC 5227 section 1.1 */
#define ANNOUNCE_US (2 * UINT64_C(1000000)) /**< RFC 5227 section 1.1, ANNOUNCE_INTERVAL */
#define DEFEND_US (10 * UINT64_C(1000000)) /**< RFC 5227 section 1.1, DEFEND_INTERVAL */

static const struct rte_ether_addr everybody = { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } };
static const struct rte_ether_addr nobody;

/* ---- packets out --------------------------------------------------------------------------------------------------- */

static void
arp_send(struct ip_ctx *ip, uint16_t op, const struct rte_ether_addr *to, const struct rte_ether_addr *target_mac,
         uint32_t target, uint64_t now_us)
{
    const struct rte_ether_hdr eth = eth_header(ip, to, RTE_ETHER_TYPE_ARP);
    struct rte_mbuf *m = frame_alloc(ip);
    struct rte_arp_hdr *arp;

    if (m == NULL) {
        return;
    }
    arp = (struct rte_arp_hdr *)rte_pktmbuf_append(m, sizeof(*arp));
    arp->arp_hardware = rte_cpu_to_be_16(RTE_ARP_HRD_ETHER);
    arp->arp_protocol = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
    arp->arp_hlen = RTE_ETHER_ADDR_LEN;
    arp->arp_plen = sizeof(uint32_t);
    arp->arp_opcode = rte_cpu_to_be_16(op);
    arp->arp_data.arp_sha = ip->q->port->mac;
    arp->arp_data.arp_sip = ip->addr;
    arp->arp_data.arp_tha = *target_mac;
    arp->arp_data.arp_tip = target;
    rte_pktmbuf_prepend(m, ETH_HDR_LEN);
    counter_inc(ip->ctr, CTR_ARP_TX);
    frame_xmit(ip, m, &eth, now_us);
}

/** RFC 5227 section 2.3: a request in which sender and target are our address. */
static void
announce(struct ip_ctx *ip, uint64_t now_us)
{
    arp_send(ip, RTE_ARP_OP_REQUEST, &everybody, &nobody, ip->addr, now_us);
}

/** A request is due at that instant. Others may say so too, of other neighbours. */
static void
due_by(struct arp *a, uint64_t due_us)
{
    uint64_t next_us = __atomic_load_n(&a->next_us, __ATOMIC_RELAXED);

    while (due_us < next_us &&
           !__atomic_compare_exchange_n(&a->next_us, &next_us, due_us, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

/** Ask for n: everybody while nothing is known, the station itself when it is to confirm (RFC 1122 section 2.3.2.1). */
static void
ask(struct ip_ctx *ip, struct neigh *n, uint64_t now_us)
{
    arp_send(ip, RTE_ARP_OP_REQUEST, n->state == NEIGH_PROBE ? &n->eth.dst_addr : &everybody, &nobody, n->addr, now_us);
    n->tries++;
    n->due_us = now_us + RETRANS_US;
    due_by(&ip->tables->arp, n->due_us);
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static uint16_t *
bucket_of(struct arp *a, uint32_t addr)
{
    /* Fibonacci hashing; the host part is in the upper bits of a network-order word. */
    return &a->bucket[(uint32_t)(rte_be_to_cpu_32(addr) * UINT32_C(2654435769)) >> 23 & (NEIGH_BUCKETS - 1)];
}

static struct neigh *
neigh_find(struct arp *a, uint32_t addr)
{
    uint16_t i;

    for (i = *bucket_of(a, addr); i != NEIGH_NONE; i = a->entry[i].next) {
        if (a->entry[i].addr == addr) {
            return &a->entry[i];
        }
    }
    return NULL;
}

/** What a state needs when it is entered. The only place that writes n->state. */
static void
neigh_set_state(struct neigh *n, enum neigh_state state, uint64_t now_us)
{
    n->state = (uint8_t)state;
    n->tries = 0;
    if (state == NEIGH_REACHABLE) {
        n->due_us = now_us + REACHABLE_US;
    } else if (state == NEIGH_FAILED) {
        n->due_us = now_us + FAILED_US;
    }
}

static void
queue_drop(struct ip_ctx *ip, struct neigh *n, enum counter_id why)
{
    counter_add(ip->ctr, why, n->queued);
    rte_pktmbuf_free_bulk(n->queue, n->queued);
    n->queued = 0;
}

static void
neigh_remove(struct ip_ctx *ip, struct neigh *n)
{
    struct arp *a = &ip->tables->arp;
    uint16_t index = (uint16_t)(n - a->entry);
    uint16_t *link = bucket_of(a, n->addr);

    queue_drop(ip, n, CTR_ARP_DROP_TABLE_FULL);
    while (*link != index) {
        link = &a->entry[*link].next;
    }
    *link = n->next;
    neigh_set_state(n, NEIGH_FREE, 0);
    hops_forget(ip);
}

/** Which entry to give up first: what is known to be useless, then what is merely old, last what packets wait for. */
static unsigned
keep_rank(const struct neigh *n)
{
    static const uint8_t rank[] = {
        [NEIGH_FREE] = 0,  [NEIGH_FAILED] = 1,    [NEIGH_STALE] = 2,
        [NEIGH_PROBE] = 3, [NEIGH_REACHABLE] = 3, [NEIGH_INCOMPLETE] = 4,
    };

    return rank[n->state];
}

/** A free entry; the least worth keeping is removed for it if need be, the one unused for longest among equals. */
static struct neigh *
neigh_alloc(struct ip_ctx *ip)
{
    struct arp *a = &ip->tables->arp;
    struct neigh *victim = &a->entry[0];
    struct neigh *n;

    if (a->high < NEIGH_MAX) {
        return &a->entry[a->high++];
    }
    for (n = &a->entry[1]; n < &a->entry[NEIGH_MAX]; n++) {
        unsigned rank = keep_rank(n);
        unsigned best = keep_rank(victim);

        if (rank < best || (rank == best && n->used_us < victim->used_us)) {
            victim = n;
        }
    }
    if (victim->state != NEIGH_FREE) {
        route_lock(ip, victim);
        neigh_remove(ip, victim);
        route_unlock(ip, victim);
    }
    return victim;
}

/** A new entry in the given state. */
static struct neigh *
neigh_add(struct ip_ctx *ip, uint32_t addr, enum neigh_state state, uint64_t now_us)
{
    struct neigh *n = neigh_alloc(ip);
    uint16_t *bucket = bucket_of(&ip->tables->arp, addr);

    n->addr = addr;
    n->eth = eth_header(ip, &nobody, RTE_ETHER_TYPE_IPV4);
    n->used_us = now_us;
    n->confirmed_us = 0;
    neigh_set_state(n, state, now_us);
    n->next = *bucket;
    *bucket = (uint16_t)(n - ip->tables->arp.entry);
    return n;
}

struct neigh *
neigh_get(struct ip_ctx *ip, uint32_t addr, uint64_t now_us)
{
    struct neigh *n = neigh_find(&ip->tables->arp, addr);

    if (n == NULL) {
        n = neigh_add(ip, addr, NEIGH_INCOMPLETE, now_us);
        ask(ip, n, now_us);
    }
    return n;
}

/* ---- packets that need a neighbour --------------------------------------------------------------------------------- */

/** RFC 1122 section 2.3.2.2 wants the latest packet kept, so the oldest one goes. */
static void
queue_put(struct ip_ctx *ip, struct neigh *n, struct rte_mbuf *m)
{
    if (n->queued == NEIGH_QUEUE) {
        drop(ip, n->queue[0], CTR_ARP_DROP_QUEUE_FULL);
        n->queued--;
        memmove(&n->queue[0], &n->queue[1], n->queued * sizeof(n->queue[0]));
    }
    n->queue[n->queued++] = m;
}

int
neigh_output_unsure(struct ip_ctx *ip, struct neigh *n, struct rte_mbuf *m, uint64_t now_us)
{
    switch (n->state) {
    case NEIGH_REACHABLE: /* its time is over, i.e. it is stale */
    case NEIGH_STALE:
        neigh_set_state(n, NEIGH_PROBE, now_us);
        ask(ip, n, now_us);
        frame_xmit(ip, m, &n->eth, now_us);
        return 0;
    case NEIGH_PROBE:
        frame_xmit(ip, m, &n->eth, now_us);
        return 0;
    case NEIGH_FAILED:
        if (now_us < n->due_us) {
            drop(ip, m, CTR_ARP_DROP_UNRESOLVED);
            return -EHOSTUNREACH;
        }
        neigh_set_state(n, NEIGH_INCOMPLETE, now_us);
        ask(ip, n, now_us);
        break;
    default: /* INCOMPLETE */
        break;
    }
    queue_put(ip, n, m);
    return 0;
}

/** Nobody answered for n: tell the layer above of each destination that packets waited for. */
static void
resolution_failed(struct ip_ctx *ip, struct neigh *n, uint64_t now_us)
{
    uint32_t dst[NEIGH_QUEUE];
    unsigned queued = n->queued;
    unsigned i, k;

    for (i = 0; i < queued; i++) {
        dst[i] = rte_pktmbuf_mtod_offset(n->queue[i], const struct rte_ipv4_hdr *, ETH_HDR_LEN)->dst_addr;
    }
    queue_drop(ip, n, CTR_ARP_DROP_UNRESOLVED);
    neigh_set_state(n, NEIGH_FAILED, now_us);
    /* Last, and from a copy: the callee may send, and so change the table. */
    for (i = 0; i < queued; i++) {
        for (k = 0; k < i && dst[k] != dst[i]; k++) {
        }
        if (k == i && ip->ops.no_neighbour != NULL) {
            struct ip_addr addr = ip_addr_v4(dst[i]);

            ip->ops.no_neighbour(ip->ops_ctx, &addr, now_us);
        }
    }
}

/** A request of n went unanswered for RETRANS_US. */
static void
neigh_due(struct ip_ctx *ip, struct neigh *n, uint64_t now_us)
{
    if (n->tries < MAX_TRIES) {
        ask(ip, n, now_us);
    } else if (n->state == NEIGH_PROBE) {
        /* RFC 4861 section 7.3.3: forget it, so that the next packet asks everybody: the address may have moved. */
        neigh_remove(ip, n);
    } else {
        resolution_failed(ip, n, now_us);
    }
}

/** Ask again, or give up, where it is time. */
static void
tick_neighbours(struct ip_ctx *ip, uint64_t now_us)
{
    struct arp *a = &ip->tables->arp;
    struct neigh *n;

    __atomic_store_n(&a->next_us, UINT64_MAX, __ATOMIC_RELAXED);
    for (n = a->entry; n < &a->entry[a->high]; n++) {
        route_lock(ip, n);
        if (n->state == NEIGH_INCOMPLETE || n->state == NEIGH_PROBE) {
            if (now_us >= n->due_us) {
                neigh_due(ip, n, now_us);
            } else {
                due_by(a, n->due_us);
            }
        }
        route_unlock(ip, n);
    }
}

void
arp_tick(struct ip_ctx *ip, uint64_t now_us)
{
    struct arp *a = &ip->tables->arp;

    if (now_us < arp_next_us(ip)) {
        return;
    }
    routes_lock(ip);
    if (a->announce_left > 0 && now_us >= a->announce_us) {
        announce(ip, now_us);
        __atomic_store_n(&a->announce_us, now_us + ANNOUNCE_US, __ATOMIC_RELAXED);
        __atomic_store_n(&a->announce_left, a->announce_left - 1, __ATOMIC_RELAXED);
    }
    if (now_us >= __atomic_load_n(&a->next_us, __ATOMIC_RELAXED)) {
        tick_neighbours(ip, now_us);
    }
    routes_unlock(ip);
}

uint64_t
arp_next_us(const struct ip_ctx *ip)
{
    const struct arp *a = &ip->tables->arp;
    uint64_t next_us = __atomic_load_n(&a->next_us, __ATOMIC_RELAXED);

    if (__atomic_load_n(&a->announce_left, __ATOMIC_RELAXED) == 0) {
        return next_us;
    }
    return RTE_MIN(__atomic_load_n(&a->announce_us, __ATOMIC_RELAXED), next_us);
}

/* ---- packets in ---------------------------------------------------------------------------------------------------- */

/** Somebody told us the MAC of n. solicited: as an answer to our question, i.e. it proves that our packets get there. */
static void
neigh_learn(struct ip_ctx *ip, struct neigh *n, const struct rte_ether_addr *mac, bool solicited, uint64_t now_us)
{
    bool moved = !rte_is_same_ether_addr(&n->eth.dst_addr, mac);
    bool unknown = n->state == NEIGH_INCOMPLETE || n->state == NEIGH_FAILED;
    unsigned i;

    n->eth.dst_addr = *mac;
    if (solicited) {
        neigh_set_state(n, NEIGH_REACHABLE, now_us);
    } else if (moved || unknown) {
        neigh_set_state(n, NEIGH_STALE, now_us);
    } else {
        return; /* nothing new, and no proof of the way back (RFC 4861 section 7.2.3) */
    }
    n->confirmed_us = now_us;
    for (i = 0; i < n->queued; i++) {
        frame_xmit(ip, n->queue[i], &n->eth, now_us);
    }
    n->queued = 0;
}

/** RFC 5227 section 2.4 (b): defend our address once in a while, and go on using it. */
static void
conflict(struct ip_ctx *ip, uint64_t now_us)
{
    struct arp *a = &ip->tables->arp;

    counter_inc(ip->ctr, CTR_ARP_CONFLICT);
    if (ip->quiet) {
        return;
    }
    if (a->defended_us == 0 || now_us - a->defended_us >= DEFEND_US) {
        a->defended_us = now_us;
        announce(ip, now_us);
    }
}

static bool
is_wellformed(const struct rte_arp_hdr *arp)
{
    uint16_t op = rte_be_to_cpu_16(arp->arp_opcode);

    return arp->arp_hardware == rte_cpu_to_be_16(RTE_ARP_HRD_ETHER) &&
           arp->arp_protocol == rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4) && arp->arp_hlen == RTE_ETHER_ADDR_LEN &&
           arp->arp_plen == sizeof(uint32_t) && (op == RTE_ARP_OP_REQUEST || op == RTE_ARP_OP_REPLY) &&
           rte_is_valid_assigned_ether_addr(&arp->arp_data.arp_sha);
}

/** May this sender be a neighbour of ours? Off-link senders get their answer, but no place in the table. */
static bool
is_learnable(const struct ip_ctx *ip, uint32_t sender)
{
    const struct route *r = route_lookup(&ip->tables->routes, sender);
    unsigned i;

    if (ipv4_is_martian(ip, sender)) {
        return false;
    }
    if (r != NULL && r->next_hop == 0) {
        return true;
    }
    for (i = 0; i < ip->tables->routes.count; i++) {
        if (ip->tables->routes.route[i].next_hop == sender) {
            return true; /* a gateway outside of our network */
        }
    }
    return false;
}

void
arp_input(struct ip_ctx *ip, const struct rte_mbuf *m, uint16_t l2_len, uint64_t now_us)
{
    const struct rte_arp_hdr *arp = rte_pktmbuf_mtod_offset(m, const struct rte_arp_hdr *, l2_len);
    struct rte_ether_addr sender_mac;
    uint32_t sender, target;
    bool request;
    struct neigh *n;

    if (rte_pktmbuf_data_len(m) < l2_len + sizeof(*arp) || !is_wellformed(arp)) {
        counter_inc(ip->ctr, CTR_ARP_DROP_MALFORMED);
        return;
    }
    sender_mac = arp->arp_data.arp_sha;
    sender = arp->arp_data.arp_sip;
    target = arp->arp_data.arp_tip;
    request = arp->arp_opcode == rte_cpu_to_be_16(RTE_ARP_OP_REQUEST);
    counter_inc(ip->ctr, CTR_ARP_RX);
    if (ip->ops.arp_heard != NULL) {
        ip->ops.arp_heard(ip->ops_ctx, m, now_us);
    }
    if (sender == ip->addr) {
        if (!rte_is_same_ether_addr(&sender_mac, &ip->q->port->mac)) {
            routes_lock(ip);
            conflict(ip, now_us);
            routes_unlock(ip);
        }
        return;
    }
    if (is_learnable(ip, sender)) {
        routes_lock(ip);
        n = neigh_find(&ip->tables->arp, sender);
        if (n == NULL && request && target == ip->addr) {
            n = neigh_add(ip, sender, NEIGH_STALE, now_us); /* RFC 826: who asks for us is about to talk to us */
        }
        if (n != NULL) {
            route_lock(ip, n);
            neigh_learn(ip, n, &sender_mac, !request && target == ip->addr, now_us);
            route_unlock(ip, n);
        }
        routes_unlock(ip);
    }
    if (request && target == ip->addr && !ip->quiet) {
        /* A probe (sender 0.0.0.0) is answered too: the address is taken (RFC 5227 section 2.1.1). */
        arp_send(ip, RTE_ARP_OP_REPLY, &sender_mac, &sender_mac, sender, now_us);
    }
}

/* ---- life and tools ------------------------------------------------------------------------------------------------ */

void
arp_init(struct ip_ctx *ip)
{
    unsigned i;

    for (i = 0; i < NEIGH_BUCKETS; i++) {
        ip->tables->arp.bucket[i] = NEIGH_NONE;
    }
    ip->tables->arp.next_us = UINT64_MAX;
    ip->tables->arp.announce_left = ip->quiet ? 0 : ANNOUNCE_NUM;
}

void
arp_fini(struct ip_ctx *ip)
{
    struct neigh *n;

    for (n = ip->tables->arp.entry; n < &ip->tables->arp.entry[ip->tables->arp.high]; n++) {
        rte_pktmbuf_free_bulk(n->queue, n->queued);
        n->queued = 0;
    }
}

unsigned
ip_neighbours(const struct ip_ctx *ip, struct ip_neighbour *out, unsigned max, uint64_t now_us)
{
    static const char *const names[] = {
        [NEIGH_INCOMPLETE] = "incomplete", [NEIGH_REACHABLE] = "reachable", [NEIGH_STALE] = "stale",
        [NEIGH_PROBE] = "probe",           [NEIGH_FAILED] = "failed",
    };
    const struct neigh *n;
    unsigned count = 0;

    for (n = ip->tables->arp.entry; n < &ip->tables->arp.entry[ip->tables->arp.high] && count < max; n++) {
        bool lapsed = n->state == NEIGH_REACHABLE && now_us >= n->due_us;

        if (n->state == NEIGH_FREE) {
            continue;
        }
        out[count].addr = ip_addr_v4(n->addr);
        out[count].mac = n->eth.dst_addr;
        out[count].state = lapsed ? names[NEIGH_STALE] : names[n->state];
        out[count].age_us = n->confirmed_us == 0 ? 0 : now_us - n->confirmed_us;
        count++;
    }
    return count;
}
