/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/steer.h"

#include <rte_byteorder.h>
#include <rte_thash.h>

#include "tcp/tcp.h"

uint32_t
tcp_steer_toeplitz(const uint8_t key[STEER_KEY_BYTES], const struct tcp_tuple *t)
{
    uint32_t input[9];
    uint32_t n = 0;

    if (ip_addr_is_v4(&t->remote)) {
        input[n++] = rte_be_to_cpu_32(ip_addr_to_v4(&t->remote));
        input[n++] = rte_be_to_cpu_32(ip_addr_to_v4(&t->local));
    } else {
        for (unsigned i = 0; i < 4; i++)
            input[n++] = rte_be_to_cpu_32(t->remote.w[i]);
        for (unsigned i = 0; i < 4; i++)
            input[n++] = rte_be_to_cpu_32(t->local.w[i]);
    }
    input[n++] = (uint32_t)t->remote_port << 16 | t->local_port;
    return rte_softrss(input, n, key);
}

uint32_t
tcp_steer(const struct tcp_steer *st, const struct tcp_tuple *t)
{
    if (st->count <= 1)
        return 0;
    switch ((enum tcp_steer_by)st->by) {
    case TCP_STEER_TOEPLITZ:
        return tcp_steer_bucket(st, tcp_steer_toeplitz(st->key, t));
    case TCP_STEER_PORTS:
        return tcp_steer_bucket(st, steer_port(t->local_port, t->remote_port));
    default:
        return tcp_hash(t) % st->count;
    }
}
