/* SPDX-License-Identifier: BSD-3-Clause */
#include "sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "ip/addr.h"

#include "libc.h"

#define PORT_DISCARD 9 /* any: a UDP connect sends nothing */

bool
addr_in(const struct sockaddr *sa, socklen_t len, struct shm_addr *out)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct ip_addr a;

    memset(out, 0, sizeof(*out));
    /* Linux: a length beyond its largest address is as wrong as one that is too short; a negative one arrives here as such. */
    if (sa == NULL || len < (socklen_t)sizeof(sa->sa_family) || len > sizeof(struct sockaddr_storage))
        return false;
    if (sa->sa_family == AF_INET && len >= (socklen_t)sizeof(in)) {
        memcpy(&in, sa, sizeof(in));
        a = ip_addr_v4(in.sin_addr.s_addr);
        memcpy(out->addr, a.w, sizeof(out->addr));
        out->port = ntohs(in.sin_port);
        return true;
    }
    /* Linux takes the form without sin6_scope_id (RFC 2133) as well. */
    if (sa->sa_family == AF_INET6 && len >= (socklen_t)offsetof(struct sockaddr_in6, sin6_scope_id)) {
        memset(&in6, 0, sizeof(in6));
        memcpy(&in6, sa, len < (socklen_t)sizeof(in6) ? (size_t)len : sizeof(in6));
        memcpy(out->addr, &in6.sin6_addr, sizeof(out->addr));
        out->port = ntohs(in6.sin6_port);
        return true;
    }
    return false;
}

static struct ip_addr
to_ip(const uint32_t w[4])
{
    return (struct ip_addr){ { w[0], w[1], w[2], w[3] } };
}

bool
addr_is_any(const struct shm_addr *a)
{
    struct ip_addr ip = to_ip(a->addr);

    return ip_addr_is_any(&ip);
}

bool
route_is_stack(const struct shm_addr *a)
{
    return memcmp(a->addr, front->page->addr, sizeof(a->addr)) == 0 && !addr_is_any(a);
}

static bool
prefix_covers(const struct shm_route *r, const uint32_t addr[4])
{
    uint32_t bits = r->prefix_len > 128 ? 128 : r->prefix_len;
    unsigned i;

    for (i = 0; i < 4 && bits > 0; i++) {
        uint32_t n = bits < 32 ? bits : 32;
        uint32_t mask = htonl(UINT32_MAX << (32 - n));

        if ((r->prefix[i] ^ addr[i]) & mask)
            return false;
        bits -= n;
    }
    return true;
}

/* The kernel says which source it would use: its own address is reached from itself. */
static bool
is_kernel_address(const struct ip_addr *ip)
{
    struct sockaddr_in dst = { .sin_family = AF_INET, .sin_port = htons(PORT_DISCARD) }, src;
    socklen_t len = sizeof(src);
    int fd = libc()->socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool own = false;

    if (fd < 0)
        return false;
    dst.sin_addr.s_addr = ip_addr_to_v4(ip);
    if (libc()->connect(fd, (struct sockaddr *)&dst, sizeof(dst)) == 0 &&
        libc()->getsockname(fd, (struct sockaddr *)&src, &len) == 0)
        own = src.sin_addr.s_addr == dst.sin_addr.s_addr;
    libc()->close(fd);
    return own;
}

bool
route_by_stack(const struct shm_addr *a)
{
    struct ip_addr ip = to_ip(a->addr);
    uint32_t i, n = load_acquire(&front->page->nb_routes);

    if (addr_is_any(a))
        return false;
    if (route_is_stack(a))
        return true;
    for (i = 0; i < n && i < SHM_MAX_ROUTES; i++)
        if (prefix_covers(&front->page->routes[i], a->addr))
            return true;
    /* By the default route go IPv4 destinations that are not this machine. */
    return load_relaxed(&front->page->gateway) && ip_addr_is_v4(&ip) && (ntohl(ip_addr_to_v4(&ip)) >> 24) != 127 &&
           !is_kernel_address(&ip);
}
