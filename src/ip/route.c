/* SPDX-License-Identifier: BSD-3-Clause */
#include "ip/ip_internal.h"

uint32_t
ipv4_mask(uint8_t prefix_len)
{
    /* A shift by 32 is undefined, hence the 64 bits. */
    return rte_cpu_to_be_32((uint32_t)(UINT64_C(0xffffffff) << (32 - prefix_len)));
}

const struct route *
route_lookup(const struct route_table *t, uint32_t dst)
{
    unsigned i;

    for (i = 0; i < t->count; i++) {
        if ((dst & t->route[i].mask) == t->route[i].prefix) {
            return &t->route[i];
        }
    }
    return NULL;
}

/** Check r and turn it round. Returns 0 or -EINVAL. */
static int
route_from(const struct ip_ctx *ip, const struct ip_route *r, struct route *out)
{
    if (!ip_addr_is_v4(&r->prefix) || r->prefix_len > 32) {
        return -EINVAL;
    }
    out->prefix = ip_addr_to_v4(&r->prefix);
    out->mask = ipv4_mask(r->prefix_len);
    out->prefix_len = r->prefix_len;
    out->next_hop = 0;
    if ((out->prefix & ~out->mask) != 0) {
        return -EINVAL;
    }
    if (ip_addr_is_any(&r->next_hop)) {
        return 0;
    }
    if (!ip_addr_is_v4(&r->next_hop)) {
        return -EINVAL;
    }
    out->next_hop = ip_addr_to_v4(&r->next_hop);
    return ipv4_is_martian(ip, out->next_hop) ? -EINVAL : 0;
}

/** Where a route of that prefix is, or where it would be inserted (*found tells). */
static unsigned
route_position(const struct route_table *t, const struct route *r, bool *found)
{
    unsigned i;

    *found = false;
    for (i = 0; i < t->count && t->route[i].prefix_len >= r->prefix_len; i++) {
        if (t->route[i].prefix_len == r->prefix_len && t->route[i].prefix == r->prefix) {
            *found = true;
            break;
        }
    }
    return i;
}

int
ip_route_add(struct ip_ctx *ip, const struct ip_route *r)
{
    struct route_table *t = &ip->tables->routes;
    struct route add;
    bool found;
    unsigned at;

    if (route_from(ip, r, &add) != 0) {
        return -EINVAL;
    }
    at = route_position(t, &add, &found);
    if (found) {
        return -EEXIST;
    }
    if (t->count == IP_MAX_ROUTES) {
        return -ENOSPC;
    }
    memmove(&t->route[at + 1], &t->route[at], (t->count - at) * sizeof(t->route[0]));
    t->route[at] = add;
    t->count++;
    hops_forget(ip);
    return 0;
}

int
ip_route_del(struct ip_ctx *ip, const struct ip_route *r)
{
    struct route_table *t = &ip->tables->routes;
    struct route del;
    bool found;
    unsigned at;

    if (route_from(ip, r, &del) != 0) {
        return -EINVAL;
    }
    at = route_position(t, &del, &found);
    if (!found) {
        return -ENOENT;
    }
    t->count--;
    memmove(&t->route[at], &t->route[at + 1], (t->count - at) * sizeof(t->route[0]));
    hops_forget(ip);
    return 0;
}

unsigned
ip_routes(const struct ip_ctx *ip, struct ip_route *out, unsigned max)
{
    const struct route_table *t = &ip->tables->routes;
    unsigned n = RTE_MIN(t->count, max);
    unsigned i;

    for (i = 0; i < n; i++) {
        out[i].prefix = ip_addr_v4(t->route[i].prefix);
        out[i].next_hop = ip_addr_v4(t->route[i].next_hop);
        out[i].prefix_len = t->route[i].prefix_len;
    }
    return n;
}

bool
ip_is_local(const struct ip_ctx *ip, const struct ip_addr *a)
{
    return ip_addr_is_v4(a) && ip_addr_to_v4(a) == ip->addr;
}

bool
ip_has_route(const struct ip_ctx *ip, const struct ip_addr *dst)
{
    uint32_t addr = ip_addr_to_v4(dst);

    if (!ip_addr_is_v4(dst) || ipv4_is_group(ip, addr))
        return false;
    return ip_is_local(ip, dst) || route_lookup(&ip->tables->routes, addr) != NULL;
}

struct ip_addr
ip_source_for(const struct ip_ctx *ip, const struct ip_addr *dst)
{
    return ip_addr_v4(ip_has_route(ip, dst) ? ip->addr : 0);
}

uint16_t
ip_mtu(const struct ip_ctx *ip, const struct ip_addr *dst)
{
    (void)dst; /* one port, one MTU; what a path reports (EMSGSIZE) is the connection's to remember */
    return ip->q->port->mtu;
}
