/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/domain.h"
#include "tcp/guard.h"

/**
 * @file
 * Ends of records (MSG_EOR) in data that waits to be sent. What has been sent needs no mark: the send records keep runs apart that
 * end with a write, and a retransmission never spans two of them.
 */

static void
record_put(struct tcp_domain *d, const struct tcp_env *env, uint32_t i)
{
    shared_pool_put(env->locks, TCP_INNER_RECORDS, &d->pools[POOL_RECORD], record_at(d, 0), sizeof(struct tcp_record),
                    i);
}

void
record_end(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->snd_end == c->snd_nxt || (c->records != 0 && record_at(d, c->records)->end == c->snd_end))
        return;
    uint32_t i = shared_pool_get(env->locks, TCP_INNER_RECORDS, &d->pools[POOL_RECORD], record_at(d, 0),
                                 sizeof(struct tcp_record), 0);
    if (i == 0) {
        counter_inc(env->ctr, CTR_TCP_RECORDS_MERGED);
        return;
    }
    record_at(d, i)->end = c->snd_end;
    record_at(d, i)->next = c->records != 0 ? record_at(d, c->records)->next : i;
    if (c->records != 0)
        record_at(d, c->records)->next = i;
    c->records = i;
}

tcp_seq
record_next(const struct tcp_domain *d, const struct tcp_conn *c)
{
    return c->records != 0 ? record_at(d, record_at(d, c->records)->next)->end : c->snd_end;
}

void
record_sent(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    while (c->records != 0) {
        uint32_t last = c->records, first = record_at(d, last)->next;
        if (seq_gt(record_at(d, first)->end, c->snd_nxt))
            return;
        record_at(d, last)->next = record_at(d, first)->next;
        if (first == last)
            c->records = 0;
        record_put(d, env, first);
    }
}

void
record_clear(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    while (c->records != 0) {
        uint32_t last = c->records, first = record_at(d, last)->next;
        record_at(d, last)->next = record_at(d, first)->next;
        if (first == last)
            c->records = 0;
        record_put(d, env, first);
    }
}
