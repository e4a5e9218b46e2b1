/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/domain.h"

/**
 * @file
 * Acknowledgements that wait for a ride. Where the thread that runs the stack runs the application too, between two passes, an ACK that is due at once may wait until
 * the application has had its turn: what it sends carries it, as in Linux's interactive mode. It waits for TCP_HELD_PASSES at most: a program may need one to accept a connection, another to find
 * that there are no more, and a third to read from it. There is no timer: passes come without a pause while one waits. Where the application's turn is long, one is all that it gets.
 */

#define HELD_MAX_US 1000u

void
conn_ack_soon(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_held *h = &d->held;

    /* Beyond ESTABLISHED nothing of ours need follow; TCP_QUICKACK wants no delay. */
    if (!env->acks_ride || c->state != TCP_ST_ESTABLISHED || (c->flags & CONN_F_QUICKACK) != 0 ||
        h->end - h->first == TCP_HELD_MAX) {
        c->flags |= CONN_F_ACK_NOW;
        return;
    }
    if (c->ack_held)
        return;
    c->ack_held = true;
    h->conns[h->end++ % TCP_HELD_MAX] = conn_index(d, c);
}

bool
tcp_holds_acks(const struct tcp_domain *d)
{
    return d->held.first != d->held.end;
}

unsigned
tcp_pass_ended(struct tcp_domain *d, const struct tcp_env *env)
{
    struct tcp_held *h = &d->held;

    uint32_t due = h->until[0];

    for (unsigned i = 1; i < TCP_HELD_PASSES; i++)
        if (env->now_us - h->at_us[i] >= HELD_MAX_US)
            due = h->until[i];
    while ((int32_t)(due - h->first) > 0) {
        struct tcp_conn *c = conn_at(d, h->conns[h->first++ % TCP_HELD_MAX]);
        if (c->state != TCP_ST_CLOSED && c->state != TCP_ST_LISTEN && c->ack_held)
            conn_send_ack(d, env, c, NULL);
    }
    for (unsigned i = 0; i + 1 < TCP_HELD_PASSES; i++) {
        h->until[i] = h->until[i + 1];
        h->at_us[i] = h->at_us[i + 1];
    }
    h->until[TCP_HELD_PASSES - 1] = h->end;
    h->at_us[TCP_HELD_PASSES - 1] = env->now_us;
    return h->end - h->first;
}
