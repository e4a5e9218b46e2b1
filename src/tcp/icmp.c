/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "tcp/guard.h"

/** Linux's min_snd_mss and min_pmtu: what an ICMP message may lower the segment size to. */
#define ICMP_MSS_MIN 512

/** RFC 1191, RFC 5927 section 7: the path takes less than we sent. Send again what was dropped. False if it tells nothing new. */
static bool
icmp_too_big(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint16_t mtu)
{
    uint32_t overhead = ip_addr_is_v4(&c->link.tuple.remote) ? 40 : 60;

    if (c->state == TCP_ST_SYN_RECEIVED || mtu <= overhead)
        return false;
    /* Only a SYN that has data can be too big. */
    bool syn_data = c->state == TCP_ST_SYN_SENT && (c->flags & CONN_F_FO_DATA) != 0;
    if (c->state == TCP_ST_SYN_SENT && !syn_data)
        return false;
    uint32_t mss = mtu - overhead < ICMP_MSS_MIN ? ICMP_MSS_MIN : mtu - overhead;
    if (mss >= c->mss_path)
        return false;
    counter_inc(env->ctr, CTR_TCP_MTU_LOWERED);
    c->mss_path = (uint16_t)mss;
    if (syn_data) {
        conn_send_syn(d, env, c);
        return true;
    }
    conn_set_mss(c);
    recovery_on_smaller_mss(d, env, c);
    conn_output(d, env, c);
    return true;
}

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
        if (!icmp_too_big(d, env, c, mtu))
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
    } else if (TABLE_KIND(ref) == TABLE_HALF && err != EMSGSIZE && seq == half_at(d, i)->iss) {
        half_free(d, env, i);
    }
    unguard_table(env);
}
