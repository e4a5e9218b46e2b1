/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <errno.h>
#include <stdlib.h>

/**
 * @file
 * A socket changes its domain: because its connection can be opened in another one only, since that is where the answers to the bound port come to, or
 * where a port is left; or because its connection moves (move.c).
 *
 * It leaves as a message. While it is on its way, its slot belongs to the domain that it goes to, but names no socket (SLOT_TRANSIT): notifications
 * are left to its arrival.
 */

struct transit {
    struct message msg;
    struct traveller traveller;
    struct shm_cmd cmd; /* the connect that waits for it */
    uint32_t tried; /* domains that had no port left */
};

static void transit_arrive(struct stack *s, struct message *msg);

/* What remains here: of a spread socket its shadow, else an entry that is freed when it is flushed, since it may stand among the dirty ones. */
static void
leave_behind(struct stack *s, struct sock *sk, const struct traveller *tv)
{
    struct spread *spread = tv->more.spread;

    sock_reset(s, sk);
    /* What there is to publish goes along: from here it would overwrite the words of the domain that has the socket then. */
    *sk = (struct sock){
        .app = tv->sock.app, .slot = tv->sock.slot, .next = tv->sock.next, .dirty = tv->sock.dirty != 0 ? DIRTY_CMD : 0
    };
    sk->flags = spread != NULL ? SOCK_SHADOW | SOCK_BOUND : SOCK_SHADOW | SOCK_CLOSING;
    s->nb_shadows++;
    if (spread != NULL)
        sock_more_own(s, sk)->spread = spread;
    else
        sock_mark(s, sk, DIRTY_CMD);
}

void
transit_send(struct stack *s, const struct traveller *tv, struct message *msg, uint32_t to)
{
    const struct sock *sk = &tv->sock;

    if (tv->more.spread != NULL)
        tv->more.spread->home = to;
    __atomic_store_n(&sk->app->slot_ref[sk->slot], (uint64_t)to << 32 | SLOT_TRANSIT, __ATOMIC_RELEASE);
    message_send(s->net, msg, to);
}

void
transit_pick_up(struct stack *s, struct sock *sk, struct traveller *out)
{
    out->sock = *sk;
    out->more = *sock_more(s, sk);
    leave_behind(s, sk, out);
}

int
transit_connect(struct stack *s, struct sock *sk, const struct shm_cmd *cmd, uint32_t to, bool tried)
{
    struct transit *tr = message_alloc(sizeof(*tr));

    if (tr == NULL)
        return -ENOMEM;
    tr->msg.arrive = transit_arrive;
    tr->cmd = *cmd;
    tr->tried = tried;
    transit_pick_up(s, sk, &tr->traveller);
    transit_send(s, &tr->traveller, &tr->msg, to);
    return COMMAND_PENDING;
}

struct sock *
transit_settle(struct stack *s, const struct traveller *tv)
{
    const struct sock *from = &tv->sock;
    struct spread *sp = tv->more.spread;
    struct sock *sk = sp != NULL ? &s->socks[sp->in[s->number].index] : sock_shadow(s, from->app, from->slot);
    uint32_t next, dirty;

    if (sk == NULL)
        return NULL;
    next = sk->next;
    dirty = sk->dirty;
    *sk = *from;
    sk->next = next;
    sk->dirty = dirty;
    if (from->has_more)
        *sock_more_own(s, sk) = tv->more;
    s->nb_shadows--;
    shm_store(&sock_back(sk)->instance, s->host->locking ? SHM_ANY_INSTANCE : host_owner(s->host, s->number)->number);
    __atomic_store_n(&sk->app->slot_ref[sk->slot], (uint64_t)s->number << 32 | sock_index(s, sk), __ATOMIC_RELEASE);
    sock_mark(s, sk, from->dirty | DIRTY_CMD);
    return sk;
}

static void
transit_arrive(struct stack *s, struct message *msg)
{
    struct transit *tr = (struct transit *)msg;
    uint32_t nb_stacks = s->host->nb_stacks;
    struct sock *sk = transit_settle(s, &tr->traveller);
    int rc;

    if (sk == NULL) { /* every other domain has the room that this one has not */
        transit_send(s, &tr->traveller, &tr->msg, (s->number + 1) % nb_stacks);
        return;
    }
    rc = commands_connect(s, sk, &tr->cmd);
    if (rc == -EADDRNOTAVAIL && !(sk->flags & SOCK_BOUND) && ++tr->tried < nb_stacks) {
        transit_pick_up(s, sk, &tr->traveller);
        transit_send(s, &tr->traveller, &tr->msg, (s->number + 1) % nb_stacks);
        return;
    }
    commands_done(s, sk->app, sk->slot, rc);
    free(tr);
}
