/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/pathcache.h"

#include "tcp/guard.h"
#include "tcp/siphash.h"

#define TWEAK_PATHS 0x70617468u

static struct tcp_path_entry *
entry_place(const struct tcp_domain *d, const struct ip_addr *remote)
{
    const uint64_t key[2] = { d->params.seed[0] ^ TWEAK_PATHS, d->params.seed[1] };

    return (struct tcp_path_entry *)domain_array(d, ARRAY_PATHCACHE) +
           siphash24(key, remote, sizeof(*remote)) % PATHCACHE_ENTRIES;
}

static bool
is_fresh(const struct tcp_domain *d, const struct tcp_path_entry *e, uint64_t now_us)
{
    return e->mtu_bytes != 0 && (uint32_t)(now_us / 1000000) - e->since_s < d->params.mtu_expires_s;
}

bool
pathcache_find(const struct tcp_domain *d, const struct tcp_env *env, const struct ip_addr *remote,
               struct tcp_path_entry *e)
{
    bool found = false;

    /* Most hosts are told of no path ever: nobody pays for a look then. */
    if (__atomic_load_n(&d->paths_told, __ATOMIC_RELAXED) == 0)
        return false;
    guard_inner(env->locks, TCP_INNER_PATHS);
    const struct tcp_path_entry *at = entry_place(d, remote);
    if (ip_addr_equal(&at->remote, remote) && is_fresh(d, at, env->now_us)) {
        *e = *at;
        found = true;
    }
    unguard_inner(env->locks, TCP_INNER_PATHS);
    return found;
}

void
pathcache_put(struct tcp_domain *d, const struct tcp_env *env, const struct ip_addr *remote, uint16_t mtu_bytes)
{
    guard_inner(env->locks, TCP_INNER_PATHS);
    struct tcp_path_entry *e = entry_place(d, remote);
    *e = (struct tcp_path_entry){ .remote = *remote,
                                  .since_s = (uint32_t)(env->now_us / 1000000),
                                  .mtu_bytes = mtu_bytes };
    __atomic_store_n(&d->paths_told, 1, __ATOMIC_RELAXED);
    unguard_inner(env->locks, TCP_INNER_PATHS);
}

void
pathcache_clear(struct tcp_domain *d, const struct tcp_env *env)
{
    guard_inner(env->locks, TCP_INNER_PATHS);
    if (d->paths_told != 0)
        memset(domain_array(d, ARRAY_PATHCACHE), 0, PATHCACHE_ENTRIES * sizeof(struct tcp_path_entry));
    __atomic_store_n(&d->paths_told, 0, __ATOMIC_RELAXED);
    unguard_inner(env->locks, TCP_INNER_PATHS);
}

unsigned
tcp_paths(const struct tcp_domain *d, const struct tcp_env *env, struct tcp_path_info *out, unsigned max)
{
    const struct tcp_path_entry *e = domain_array(d, ARRAY_PATHCACHE);
    unsigned n = 0;

    guard_inner(env->locks, TCP_INNER_PATHS);
    for (unsigned i = 0; d->paths_told != 0 && i < PATHCACHE_ENTRIES && n < max; i++) {
        if (!is_fresh(d, &e[i], env->now_us))
            continue;
        out[n].remote = e[i].remote;
        out[n].mtu_bytes = e[i].mtu_bytes;
        out[n++].age_s = (uint32_t)(env->now_us / 1000000) - e[i].since_s;
    }
    unguard_inner(env->locks, TCP_INNER_PATHS);
    return n;
}
