/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/domain.h"
#include "tcp/guard.h"

/**
 * @file
 * Answers to bursts that are told at once otherwise: what lies beyond a gap, fills one, or comes again. What a sender has sent as one, and the wire has brought as one, has one answer,
 * which tells of all of it; one for each piece would be a burst the other way. A sender that knows SACK counts bytes and not answers.
 */

bool
burst_waits(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in,
            struct tcp_sack_block dsack)
{
    /* Where other threads are in the domain the next segment may be another one's. */
    if (!in->more || (c->flags & CONN_F_SACK) == 0 || GUARDED(env->locks))
        return false;
    /* The field that counts marks has three bits: RFC 9768 section 3.2.2.5.1 bounds how many may wait. */
    if ((c->ecn & CONN_ECN_ACC) != 0 && tcp_accecn_is_due(accecn_of(d, c)))
        return false;
    d->burst = (struct tcp_burst){ .conn = conn_index(d, c), .dsack = dsack };
    c->flags |= CONN_F_ACK_NOW;
    if (c->timer_at[CONN_T_DELACK] == 0) /* the end may go astray */
        conn_timer_set(d, env, c, CONN_T_DELACK, env->now_us + d->params.delack_us);
    return true;
}

void
burst_goes_on(struct tcp_domain *d, struct tcp_conn *c, struct tcp_sack_block *dsack)
{
    struct tcp_burst *b = &d->burst;

    if (b->conn == conn_index(d, c) && b->dsack.start != b->dsack.end) {
        if (dsack->start == dsack->end)
            *dsack = b->dsack;
        else if (dsack->start == b->dsack.end)
            dsack->start = b->dsack.start;
        c->flags |= CONN_F_ACK_NOW;
    }
    b->conn = 0;
}

void
burst_forget(struct tcp_domain *d, const struct tcp_conn *c)
{
    if (d->burst.conn == conn_index(d, c))
        d->burst.conn = 0;
}
