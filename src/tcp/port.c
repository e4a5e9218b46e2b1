/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "tcp/domain.h"
#include "tcp/siphash.h"

/**
 * @file
 * Local ports: for each port a list of entries, one for each bound socket. Connections whose port was chosen for them have none:
 * their tuple in the connection table is enough, so that a million of them cost nothing here.
 */

#define TWEAK_PORT 0x706fu

static uint32_t *
port_head(const struct tcp_domain *d, uint16_t port)
{
    return (uint32_t *)domain_array(d, ARRAY_PORTS) + port;
}

static bool
overlaps(const struct ip_addr *a, const struct ip_addr *b)
{
    return ip_addr_is_any(a) || ip_addr_is_any(b) || ip_addr_equal(a, b);
}

int
port_acquire(struct tcp_domain *d, const struct ip_addr *addr, uint16_t port, bool reuseaddr, bool reuseport,
             tcp_user user, uint32_t *bind)
{
    for (uint32_t i = *port_head(d, port); i != 0; i = bind_at(d, i)->next) {
        const struct tcp_bind *b = bind_at(d, i);
        if (!overlaps(&b->addr, addr) || (reuseport && b->reuseport))
            continue;
        if (!reuseaddr || !b->reuseaddr || b->listener != 0)
            return -EADDRINUSE;
    }
    uint32_t i = tcp_pool_get(&d->pools[POOL_BIND], domain_array(d, POOL_BIND), sizeof(struct tcp_bind));
    if (i == 0)
        return -ENOMEM;
    struct tcp_bind *b = bind_at(d, i);
    b->next = *port_head(d, port);
    b->refs = 1;
    b->addr = *addr;
    b->user = user;
    b->port = port;
    b->reuseaddr = reuseaddr;
    b->reuseport = reuseport;
    *port_head(d, port) = i;
    *bind = i;
    return 0;
}

uint32_t
port_find_owned(const struct tcp_domain *d, const struct ip_addr *addr, uint16_t port, tcp_user user)
{
    for (uint32_t i = *port_head(d, port); i != 0; i = bind_at(d, i)->next) {
        const struct tcp_bind *b = bind_at(d, i);
        if (user != 0 && b->user == user && b->listener == 0 && overlaps(&b->addr, addr))
            return i;
    }
    return 0;
}

bool
port_can_listen(const struct tcp_domain *d, uint32_t bind)
{
    const struct tcp_bind *own = bind_at(d, bind);

    for (uint32_t i = *port_head(d, own->port); i != 0; i = bind_at(d, i)->next) {
        const struct tcp_bind *b = bind_at(d, i);
        if (i != bind && b->listener != 0 && overlaps(&b->addr, &own->addr) && !(b->reuseport && own->reuseport))
            return false;
    }
    return true;
}

void
port_ref(struct tcp_domain *d, uint32_t bind)
{
    if (bind != 0)
        bind_at(d, bind)->refs++;
}

void
port_unref(struct tcp_domain *d, uint32_t bind)
{
    if (bind == 0)
        return;
    struct tcp_bind *b = bind_at(d, bind);
    if (--b->refs > 0)
        return;
    uint32_t *at = port_head(d, b->port);
    while (*at != bind)
        at = &bind_at(d, *at)->next;
    *at = b->next;
    tcp_pool_put(&d->pools[POOL_BIND], domain_array(d, POOL_BIND), sizeof(*b), bind);
}

/** How well a listener's address fits: 2 exact, 1 wildcard, 0 not at all. An IPv4 wildcard takes no IPv6. */
static unsigned
fit_of(const struct tcp_bind *b, const struct ip_addr *local)
{
    if (b->listener == 0)
        return 0;
    if (ip_addr_equal(&b->addr, local))
        return 2;
    if (!ip_addr_is_any(&b->addr) || (ip_addr_is_v4(&b->addr) && !ip_addr_is_v4(local)))
        return 0;
    return 1;
}

/** The best fit among a port's listeners, and how many share it. */
static unsigned
best_fit(const struct tcp_domain *d, const struct tcp_tuple *t, uint32_t *sharing)
{
    unsigned best = 0;

    *sharing = 0;
    for (uint32_t i = *port_head(d, t->local_port); i != 0; i = bind_at(d, i)->next) {
        unsigned fit = fit_of(bind_at(d, i), &t->local);
        if (fit > best)
            *sharing = 0;
        if (fit >= best) {
            best = fit;
            (*sharing)++;
        }
    }
    return best;
}

uint32_t
port_find_listener(const struct tcp_domain *d, const struct tcp_tuple *t)
{
    uint32_t sharing;
    unsigned best = best_fit(d, t, &sharing);

    if (best == 0)
        return 0;
    /* SO_REUSEPORT: each of n listeners gets the n-th part of the tuples, and a tuple always goes to the same one. */
    uint32_t pick = sharing > 1 ? (uint32_t)(((uint64_t)tcp_hash(t) * sharing) >> 32) : 0;
    for (uint32_t i = *port_head(d, t->local_port); i != 0; i = bind_at(d, i)->next)
        if (fit_of(bind_at(d, i), &t->local) == best && pick-- == 0)
            return bind_at(d, i)->listener;
    return 0;
}

static bool
is_free(const struct tcp_domain *d, const struct tcp_tuple *t, bool for_bind)
{
    const struct tcp_params *p = &d->params;

    if (*port_head(d, t->local_port) != 0)
        return false;
    /* Answers must come to this domain, where several divide the tuples. */
    if (!for_bind && tcp_steer(&p->steer, t) != p->steer_index)
        return false;
    return for_bind || table_find(d, t) == 0;
}

/* The RFC's two functions F and G are halves of one: whoever knows one half learns nothing of the other. */
static uint64_t
dest_hash(struct tcp_domain *d, const struct tcp_tuple *dest)
{
    const uint64_t key[2] = { d->params.seed[0] ^ TWEAK_PORT, d->params.seed[1] };

    if (!d->last_dest.known || memcmp(&d->last_dest.dest, dest, sizeof(*dest)) != 0) {
        d->last_dest.dest = *dest;
        d->last_dest.hash = siphash24(key, dest, sizeof(*dest));
        d->last_dest.known = true;
    }
    return d->last_dest.hash;
}

int
port_choose(struct tcp_domain *d, struct tcp_tuple *t, bool for_bind)
{
    const struct tcp_params *p = &d->params;
    uint32_t range = (uint32_t)p->port_max - p->port_min + 1;

    t->local_port = 0;
    uint64_t hash = dest_hash(d, t);
    uint32_t offset = (uint32_t)hash;
    uint32_t *counter = &d->port_counters[(hash >> 32) % PORT_COUNTERS];
    for (uint32_t i = 0; i < range; i++) {
        uint32_t n = offset + (*counter)++;
        t->local_port = (uint16_t)(p->port_min + n % range);
        if (!is_free(d, t, for_bind))
            continue;
        if (!for_bind)
            table_prefetch_port(d, t, (uint16_t)(t->local_port + 1)); /* who connects there again gets that one */
        return 0;
    }
    t->local_port = 0;
    return -EADDRNOTAVAIL;
}

int
tcp_bind(struct tcp_domain *d, const struct ip_addr *local, uint16_t port, const struct tcp_sockopts *opts,
         tcp_user user, uint16_t *chosen)
{
    struct tcp_tuple t = { .local = *local };
    uint32_t bind;

    if (port == 0) {
        if (port_choose(d, &t, true) != 0)
            return -EADDRINUSE;
        port = t.local_port;
    }
    int rc = port_acquire(d, local, port, opts_flag(opts, TCP_OPT_REUSEADDR), opts_flag(opts, TCP_OPT_REUSEPORT), user,
                          &bind);
    if (rc == 0)
        *chosen = port;
    return rc;
}

void
tcp_unbind(struct tcp_domain *d, const struct ip_addr *local, uint16_t port, tcp_user user)
{
    uint32_t bind = port_find_owned(d, local, port, user);

    if (bind != 0) {
        bind_at(d, bind)->user = 0;
        port_unref(d, bind);
    }
}
