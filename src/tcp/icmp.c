/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "tcp/guard.h"

static void
icmp_conn(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq seq, int err, bool hard,
          uint16_t mtu)
{
    /* RFC 5927 section 4.1: it must speak of a segment that is under way. */
    tcp_seq first = c->flags & CONN_F_FO_CHILD ? c->iss : c->snd_una;
    if (seq_lt(seq, first) || !seq_lt(seq, c->snd_nxt)) {
        counter_inc(env->ctr, CTR_TCP_DROP_ICMP);
        return;
    }
    /* Half open, and nobody's yet: what its accepter gets is the SYN's data and the error. */
    const uint32_t unclaimed = CONN_F_FO_CHILD | CONN_F_PENDING;
    if (err == EMSGSIZE) {
        if (!path_on_too_big(d, env, c, seq, mtu))
            counter_inc(env->ctr, CTR_TCP_DROP_ICMP);
    } else if ((hard && c->state == TCP_ST_SYN_SENT) || (c->flags & unclaimed) == unclaimed) {
        conn_end(d, env, c, err);
    } else {
        c->soft_err = (uint8_t)err; /* RFC 5927 section 5.2: on a living connection no ICMP error is hard */
    }
}

void
tcp_unreachable(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_tuple *t, tcp_seq seq, int err,
                bool hard, uint16_t mtu)
{
    guard_table(d, env);
    uint32_t ref = table_find(d, t);
    uint32_t i = TABLE_INDEX(ref);

    if (TABLE_KIND(ref) == TABLE_CONN) {
        guard_slot(env, i);
        icmp_conn(d, env, conn_at(d, i), seq, err, hard, mtu);
        unguard_slot(env, i);
    } else if (TABLE_KIND(ref) == TABLE_PARKED) {
        counter_inc(env->ctr, CTR_TCP_DROP_ICMP); /* nothing of it is under way */
    } else if (TABLE_KIND(ref) == TABLE_HALF && err != EMSGSIZE && seq == half_at(d, i)->iss) {
        half_free(d, env, i);
    }
    unguard_table(env);
}
