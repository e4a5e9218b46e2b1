/* SPDX-License-Identifier: BSD-3-Clause */
#include "ip/ip_internal.h"

#define ICMP_HDR_LEN 8u
#define ICMP_UNREACHABLE 3 /**< message types, RFC 792 */
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define QUOTED_L4_BYTES 8u /**< RFC 792: at least so much of the quoted packet's transport header is there */
#define ERROR_MAX_BYTES 576u /**< RFC 1812 section 4.3.2.3: an error is no longer than this, IPv4 header included */
#define LIMIT_BURST 50u /**< errors in a row, and ... */
#define LIMIT_PER_S 1000u /**< ... each second (RFC 1812 section 4.3.2.8 leaves the figures open) */
#define US_PER_TOKEN (1000000u / LIMIT_PER_S)

/* ---- errors out ---------------------------------------------------------------------------------------------------- */

static bool
limit_take(struct icmp_limit *l, uint64_t now_us)
{
    uint64_t fresh = (now_us - l->filled_us) / US_PER_TOKEN;

    if (l->filled_us == 0 || fresh >= LIMIT_BURST) {
        l->tokens = LIMIT_BURST;
        l->filled_us = now_us;
    } else {
        l->tokens = (uint32_t)RTE_MIN(l->tokens + fresh, LIMIT_BURST);
        l->filled_us += fresh * US_PER_TOKEN;
    }
    if (l->tokens == 0) {
        return false;
    }
    l->tokens--;
    return true;
}

/** Sum, address and hand over an ICMP message to a host. Ownership passes. */
static void
icmp_send(struct ip_ctx *ip, struct rte_mbuf *m, uint32_t dst, uint8_t tos, uint64_t now_us)
{
    struct rte_icmp_hdr *icmp = rte_pktmbuf_mtod(m, struct rte_icmp_hdr *);
    const struct ip_addr from = ip_addr_v4(ip->addr), to = ip_addr_v4(dst);
    struct ip_send s = {
        .src = &from,
        .dst = &to,
        .proto = IPPROTO_ICMP,
        .tos = tos,
        .l4_hdr_len = ICMP_HDR_LEN,
    };

    icmp->icmp_cksum = 0;
    icmp->icmp_cksum = (uint16_t)~chain_sum(m, 0, rte_pktmbuf_pkt_len(m));
    counter_inc(ip->ctr, CTR_ICMP_TX);
    (void)ip_output(ip, m, &s, now_us);
}

/*
 * The cases of RFC 1122 section 3.2.2 in which no error may be sent do not come here: ICMP errors have no caller, packets to
 * a group or from a martian are gone, and a fragment arrives here only as part of a whole packet.
 */
void
icmp_send_unreachable(struct ip_ctx *ip, const struct rte_mbuf *m, const struct ipv4_view *v, uint8_t code,
                      uint64_t now_us)
{
    struct rte_mbuf *e;
    const void *from;
    uint8_t *msg;
    uint32_t quoted;

    if (!limit_take(&ip->icmp_limit, now_us)) {
        counter_inc(ip->ctr, CTR_ICMP_DROP_RATE);
        return;
    }
    e = frame_alloc(ip);
    if (e == NULL) {
        return;
    }
    quoted = RTE_MIN(rte_pktmbuf_pkt_len(m) - v->l3_off, ERROR_MAX_BYTES - IPV4_HDR_MIN - ICMP_HDR_LEN);
    quoted = RTE_MIN(quoted, rte_pktmbuf_tailroom(e) - ICMP_HDR_LEN);
    e->data_len = (uint16_t)(ICMP_HDR_LEN + quoted);
    e->pkt_len = e->data_len;
    msg = rte_pktmbuf_mtod(e, uint8_t *);
    memset(msg, 0, ICMP_HDR_LEN);
    msg[0] = ICMP_UNREACHABLE;
    msg[1] = code;
    from = rte_pktmbuf_read(m, v->l3_off, quoted, msg + ICMP_HDR_LEN);
    if (from != msg + ICMP_HDR_LEN) {
        memcpy(msg + ICMP_HDR_LEN, from, quoted);
    }
    icmp_send(ip, e, v->src, 0, now_us);
}

/* ---- errors in ----------------------------------------------------------------------------------------------------- */

/**
 * RFC 1122 sections 3.2.2.1 and 4.2.3.9: what each code of destination-unreachable means; what is not listed is a host's trouble. What is
 * prohibited by an administrator (9, 10, and 13 of RFC 1812) stays so, though 1122 does not say: as in Linux it ends an attempt to connect.
 */
static void
classify_unreachable(uint8_t code, uint16_t next_mtu, struct ip_unreachable *u)
{
    static const int errors[] = {
        [0] = ENETUNREACH,   [1] = EHOSTUNREACH, [2] = ENOPROTOOPT,   [3] = ECONNREFUSED, [4] = EMSGSIZE,
        [5] = EOPNOTSUPP,    [6] = ENETUNREACH,  [7] = EHOSTDOWN,     [8] = ENONET,       [9] = ENETUNREACH,
        [10] = EHOSTUNREACH, [11] = ENETUNREACH, [12] = EHOSTUNREACH,
    };

    u->error = code < RTE_DIM(errors) ? errors[code] : EHOSTUNREACH;
    u->hard = code == 2 || code == 3 || code == 9 || code == 10 || code == 13;
    u->mtu = code == 4 ? next_mtu : 0;
}

/** Which connection does the quoted packet belong to? False if it is not one that we could have sent (counted). */
static bool
parse_quote(struct ip_ctx *ip, const struct rte_mbuf *m, const struct ipv4_view *v, struct ip_unreachable *u)
{
    uint8_t ip_copy[IPV4_HDR_MIN];
    uint8_t l4_copy[QUOTED_L4_BYTES];
    uint32_t off = v->l4_off + ICMP_HDR_LEN;
    const struct rte_ipv4_hdr *hdr = rte_pktmbuf_read(m, off, IPV4_HDR_MIN, ip_copy);
    const uint8_t *l4;

    if (hdr == NULL || hdr->version_ihl >> 4 != IPVERSION || rte_ipv4_hdr_len(hdr) < IPV4_HDR_MIN) {
        counter_inc(ip->ctr, CTR_ICMP_DROP_MALFORMED);
        return false;
    }
    l4 = rte_pktmbuf_read(m, off + rte_ipv4_hdr_len(hdr), QUOTED_L4_BYTES, l4_copy);
    if (l4 == NULL) {
        counter_inc(ip->ctr, CTR_ICMP_DROP_MALFORMED);
        return false;
    }
    if (hdr->src_addr != ip->addr || hdr->next_proto_id != IPPROTO_TCP ||
        (hdr->fragment_offset & rte_cpu_to_be_16(RTE_IPV4_HDR_OFFSET_MASK)) != 0) {
        counter_inc(ip->ctr, CTR_ICMP_IGNORED);
        return false;
    }
    u->local = ip_addr_v4(hdr->src_addr);
    u->remote = ip_addr_v4(hdr->dst_addr);
    u->local_port = (uint16_t)(l4[0] << 8 | l4[1]);
    u->remote_port = (uint16_t)(l4[2] << 8 | l4[3]);
    u->seq = (uint32_t)l4[4] << 24 | (uint32_t)l4[5] << 16 | (uint32_t)l4[6] << 8 | l4[7];
    return true;
}

/** An error about a packet of ours. type is one of the three that concern TCP. */
static void
error_input(struct ip_ctx *ip, const struct rte_mbuf *m, const struct ipv4_view *v, const uint8_t *icmp,
            uint64_t now_us)
{
    struct ip_unreachable u = { .hard = false };

    if (!parse_quote(ip, m, v, &u)) {
        return;
    }
    switch (icmp[0]) {
    case ICMP_UNREACHABLE:
        classify_unreachable(icmp[1], (uint16_t)(icmp[6] << 8 | icmp[7]), &u); /* RFC 1191 section 4 */
        break;
    case ICMP_TIME_EXCEEDED:
        u.error = EHOSTUNREACH;
        break;
    default: /* parameter problem */
        u.error = EPROTO;
        break;
    }
    if (ip->ops.unreachable != NULL) {
        ip->ops.unreachable(ip->ops_ctx, &u, now_us);
    }
}

/* ---- messages in --------------------------------------------------------------------------------------------------- */

/** Turn the request round in its own buffer: everything behind the first four bytes goes back as it came (RFC 792). */
static void
echo_reply(struct ip_ctx *ip, struct rte_mbuf *m, const struct ipv4_view *v, uint64_t now_us)
{
    uint8_t *icmp = (uint8_t *)rte_pktmbuf_adj(m, v->l4_off);

    icmp[0] = RTE_IP_ICMP_ECHO_REPLY;
    icmp[1] = 0;
    icmp_send(ip, m, v->src, v->tos, now_us);
}

void
icmp_input(struct ip_ctx *ip, struct rte_mbuf *m, const struct ipv4_view *v, uint64_t now_us)
{
    const uint8_t *icmp = rte_pktmbuf_mtod_offset(m, const uint8_t *, v->l4_off);

    if (v->l4_len < ICMP_HDR_LEN || rte_pktmbuf_data_len(m) < v->l4_off + ICMP_HDR_LEN ||
        chain_sum(m, v->l4_off, v->l4_len) != 0xffff) {
        drop(ip, m, CTR_ICMP_DROP_MALFORMED);
        return;
    }
    counter_inc(ip->ctr, CTR_ICMP_RX);
    switch (icmp[0]) {
    case RTE_IP_ICMP_ECHO_REQUEST:
        echo_reply(ip, m, v, now_us);
        return;
    case ICMP_UNREACHABLE:
    case ICMP_TIME_EXCEEDED:
    case ICMP_PARAMETER_PROBLEM:
        error_input(ip, m, v, icmp, now_us);
        break;
    default: /* source quench among them: RFC 6633 */
        counter_inc(ip->ctr, CTR_ICMP_IGNORED);
        break;
    }
    rte_pktmbuf_free(m);
}
