/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_PATHCACHE_H
#define TCP_PATHCACHE_H

#include <stdint.h>

#include "tcp/domain.h"

/**
 * @file
 * What ICMP has told of the paths to other hosts (RFC 1191 section 6, RFC 8201 section 5.2). Private to src/tcp.
 *
 * A table of fixed size, in which a newer destination takes the place of an older one that has the same hash: what is forgotten is found out again. Entries end with age
 * (params.mtu_expires_s). Guarded by TCP_INNER_PATHS.
 */

#define PATHCACHE_ENTRIES 1024u

struct tcp_path_entry {
    struct ip_addr remote;
    uint32_t since_s; /**< when it was told */
    uint16_t mtu_bytes; /**< 0 = unused */
    uint16_t reserved;
};
_Static_assert(sizeof(struct tcp_path_entry) == 24, "no padding: replicas are compared by the byte");

/** The path's MTU as it was told, into *e, if that is not too long ago; false if nothing is known. */
bool pathcache_find(const struct tcp_domain *d, const struct tcp_env *env, const struct ip_addr *remote,
                    struct tcp_path_entry *e);

/** It was told now. */
void pathcache_put(struct tcp_domain *d, const struct tcp_env *env, const struct ip_addr *remote, uint16_t mtu_bytes);

void pathcache_clear(struct tcp_domain *d, const struct tcp_env *env);

#endif /* TCP_PATHCACHE_H */
