/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/**
 * @file
 * Sockets that are bound or listen, where there are several domains. Their port must be taken in each of them, and connections come to any of
 * them, so that every domain has a shadow of the socket. What changes all shadows is executed with every domain entered, domain 0 first: whoever
 * gets a port there gets it in all.
 */

#define BIND_TRIES 64u

static struct sock *
shadow_at(const struct spread *sp, const struct stack *s)
{
    return &s->socks[sp->in[s->number].index];
}

bool
spread_concerns(const struct sock *sk, const struct shm_cmd *cmd)
{
    switch (cmd->op) {
    case SHM_OP_BIND:
    case SHM_OP_LISTEN:
        return true;
    case SHM_OP_CONNECT:
    case SHM_OP_SHUTDOWN:
    case SHM_OP_CLOSE:
    case SHM_OP_SETOPT:
    case SHM_OP_SETNAME:
        return sk->spread != NULL;
    default:
        return false;
    }
}

/* ---- shadows ---------------------------------------------------------------------------------------------------------------- */

/* Domains whose bit of work is done are undone from the last to the first, so that domain 0 stays the judge of who may have the port. */
static void
take_down(struct host *h, struct spread *sp, uint32_t nb_stacks)
{
    while (nb_stacks-- > 0) {
        struct stack *s = h->stacks[nb_stacks];
        struct sock *sk = shadow_at(sp, s);

        if (nb_stacks == sp->home || sp->in[nb_stacks].index == SOCK_NONE)
            continue;
        if (sk->tcp != TCP_NO_ID) {
            __atomic_sub_fetch(&sock_back(sk)->accept_ready, sk->ready, __ATOMIC_RELEASE);
            tcp_close(s->tcp, &s->env, sk->tcp, false);
        }
        if (sk->flags & SOCK_BOUND)
            tcp_unbind(s->tcp, &sp->local, sp->port, sp->in[nb_stacks].index);
        sk->flags = SOCK_SHADOW | SOCK_CLOSING;
        sk->spread = NULL;
        sock_mark(s, sk, DIRTY_CMD); /* freed when it is flushed, since it may stand among the dirty ones already */
    }
}

static struct spread *
spread_create(struct stack *s, struct sock *sk)
{
    struct host *h = s->host;
    struct spread *sp = calloc(1, sizeof(*sp) + h->nb_stacks * sizeof(sp->in[0]));

    if (sp == NULL)
        return NULL;
    sp->app = sk->app;
    sp->slot = sk->slot;
    sp->home = s->number;
    for (uint32_t i = 0; i < h->nb_stacks; i++) {
        struct sock *shadow = i == sp->home ? sk : sock_shadow(h->stacks[i], sk->app, sk->slot);

        if (shadow == NULL) {
            take_down(h, sp, i);
            free(sp);
            return NULL;
        }
        sp->in[i].index = sock_index(h->stacks[i], shadow);
    }
    return sp;
}

/* ---- ports -------------------------------------------------------------------------------------------------------------------- */

/* Take the port in every domain or in none. The first domain chooses if it is 0. */
static int
bind_all(struct host *h, struct spread *sp, const struct ip_addr *local, uint16_t *port,
         const struct tcp_sockopts *opts)
{
    for (uint32_t i = 0; i < h->nb_stacks; i++) {
        int rc = tcp_bind(h->stacks[i]->tcp, local, *port, opts, sp->in[i].index, port);

        if (rc == 0)
            continue;
        while (i-- > 0)
            tcp_unbind(h->stacks[i]->tcp, local, *port, sp->in[i].index);
        return rc;
    }
    return 0;
}

int
spread_bind(struct stack *s, struct sock *sk, const struct ip_addr *local, uint16_t port)
{
    struct spread *sp = spread_create(s, sk);
    uint16_t chosen = port;
    int rc = -ENOMEM;

    if (sp == NULL)
        return rc;
    /* A port that the first domain chose may be in use in another, by a connection that is coming to its end. */
    for (unsigned tries = 0; tries < (port == 0 ? BIND_TRIES : 1); tries++) {
        chosen = port;
        rc = bind_all(s->host, sp, local, &chosen, sk->opts);
        if (rc != -EADDRINUSE)
            break;
    }
    if (rc != 0) {
        take_down(s->host, sp, s->host->nb_stacks);
        free(sp);
        return rc;
    }
    sp->local = *local;
    sp->port = chosen;
    for (uint32_t i = 0; i < s->host->nb_stacks; i++) {
        struct sock *shadow = shadow_at(sp, s->host->stacks[i]);

        shadow->flags |= SOCK_BOUND;
        shadow->spread = sp;
    }
    sock_back(sk)->local = addr_to_shm(local, chosen);
    return 0;
}

int
spread_listen(struct stack *s, struct sock *sk, const struct ip_addr *local, uint32_t backlog)
{
    struct host *h = s->host;
    struct spread *sp = sk->spread;

    for (uint32_t i = 0; i < h->nb_stacks; i++) {
        struct stack *at = h->stacks[i];
        struct sock *shadow = shadow_at(sp, at);
        int rc = tcp_listen(at->tcp, &at->env, local, sp->port, backlog, sk->opts, sp->in[i].index, &shadow->tcp);

        if (rc == 0) {
            shadow->flags = (uint16_t)((shadow->flags & ~SOCK_BOUND) | SOCK_LISTENER);
            continue;
        }
        /* The reservation went over to the listener and ends with it. */
        while (i-- > 0) {
            at = h->stacks[i];
            shadow = shadow_at(sp, at);
            tcp_close(at->tcp, &at->env, shadow->tcp, false);
            shadow->flags &= (uint16_t)~SOCK_LISTENER;
        }
        return rc;
    }
    sock_status(s, sk, SHM_ST_LISTEN, 0);
    return 0;
}

void
spread_set_backlog(struct stack *s, struct sock *sk, uint32_t backlog)
{
    struct host *h = s->host;

    for (uint32_t i = 0; i < h->nb_stacks; i++)
        tcp_set_backlog(h->stacks[i]->tcp, shadow_at(sk->spread, h->stacks[i])->tcp, backlog);
}

int
spread_set_option(struct stack *s, struct sock *sk, uint32_t name, int32_t value)
{
    struct host *h = s->host;
    int rc = 0;

    for (uint32_t i = 0; i < h->nb_stacks && rc == 0; i++) {
        struct stack *at = h->stacks[i];
        struct sock *shadow = shadow_at(sk->spread, at);

        if (shadow->tcp != TCP_NO_ID)
            rc = tcp_set_option(at->tcp, &at->env, shadow->tcp, name, value);
    }
    return rc;
}

/* The socket and the shadow of the domain where its tuple belongs change places. */
struct sock *
spread_move(struct stack *s, struct sock *sk, const struct tcp_tuple *t, struct stack **to)
{
    struct spread *sp = sk->spread;
    struct stack *at = s->host->stacks[tcp_steer(&s->host->steer, t)];
    struct sock *moved = shadow_at(sp, at);
    uint32_t next = moved->next, dirty = moved->dirty;

    *to = at;
    if (at == s)
        return sk;
    *moved = *sk;
    moved->next = next;
    moved->dirty = dirty;
    next = sk->next;
    dirty = sk->dirty;
    *sk = (struct sock){ .app = moved->app, .slot = moved->slot, .spread = sp, .next = next, .dirty = dirty };
    sk->flags = SOCK_SHADOW | SOCK_BOUND;
    s->nb_shadows++;
    at->nb_shadows--;
    sp->home = at->number;
    __atomic_store_n(&moved->app->slot_ref[moved->slot], (uint64_t)at->number << 32 | sock_index(at, moved),
                     __ATOMIC_RELEASE);
    shm_store(&sock_back(moved)->instance,
              s->host->locking ? SHM_ANY_INSTANCE : host_owner(s->host, at->number)->number);
    sock_mark(at, moved, dirty | DIRTY_CMD);
    return moved;
}

/* ---- the end ------------------------------------------------------------------------------------------------------------------- */

void
spread_end(struct stack *s, struct sock *sk)
{
    struct spread *sp = sk->spread;

    sk->spread = NULL;
    take_down(s->host, sp, s->host->nb_stacks);
    free(sp);
}

void
spread_abandon(struct stack *s, struct sock *sk)
{
    struct host *h = s->host;
    struct spread *sp = sk->spread;

    sk->spread = NULL;
    sp->next = __atomic_load_n(&h->dead, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&h->dead, &sp->next, sp, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        ;
    host_want_stop(h);
}

void
spread_reap(struct host *h)
{
    struct spread *sp = __atomic_exchange_n(&h->dead, NULL, __ATOMIC_ACQUIRE);

    while (sp != NULL) {
        struct spread *next = sp->next;

        take_down(h, sp, h->nb_stacks);
        free(sp);
        sp = next;
    }
}

/* ---- accept --------------------------------------------------------------------------------------------------------------------- */

struct stack *
spread_next(struct stack *s, const struct sock *sk)
{
    struct spread *sp = sk->spread;
    uint32_t nb = s->host->nb_stacks;

    for (uint32_t i = 1; i <= nb; i++) {
        uint32_t at = (sp->turn + i) % nb;

        if (__atomic_load_n(&sp->in[at].ready, __ATOMIC_ACQUIRE) != 0) {
            sp->turn = at;
            return s->host->stacks[at];
        }
    }
    return NULL;
}

/* What the engine does not hand down. The listener may live in another domain: its marks are read as they are at this moment. */
static void
inherit(struct sock *child, const struct sock *shadow)
{
    const struct sock *listener = sock_at(shadow->app, shadow->slot);
    const struct shm_back_sock *from = sock_back(shadow);
    struct shm_back_sock *b = sock_back(child);

    b->sndbuf_bytes = from->sndbuf_bytes;
    b->rcvbuf_bytes = from->rcvbuf_bytes;
    if (listener == NULL)
        return;
    child->rcvbuf = __atomic_load_n(&listener->rcvbuf, __ATOMIC_RELAXED);
    child->rcvlowat = __atomic_load_n(&listener->rcvlowat, __ATOMIC_RELAXED);
    child->notsent_lowat = __atomic_load_n(&listener->notsent_lowat, __ATOMIC_RELAXED);
}

int
spread_accept(struct stack *s, struct sock *lsk, uint32_t free_slot, uint16_t member)
{
    struct app *app = lsk->app;
    struct tcp_tuple t;
    struct sock *child;
    tcp_id id;

    if (!(lsk->flags & SOCK_LISTENER))
        return -EINVAL;
    if (tcp_accept_count(s->tcp, lsk->tcp) == 0) {
        if (lsk->spread != NULL)
            __atomic_store_n(&lsk->spread->in[s->number].ready, 0, __ATOMIC_RELEASE);
        return -EAGAIN;
    }
    child = sock_open(s, app, free_slot, member);
    if (child == NULL)
        return -ENFILE;
    inherit(child, lsk);
    sock_status(s, child, SHM_ST_CONNECTED, 0);
    id = tcp_accept(s->tcp, &s->env, lsk->tcp, sock_index(s, child), &t);
    if (id == TCP_NO_ID) {
        app_member_drop(app, member, free_slot);
        sock_close(s, child, false);
        return -EAGAIN;
    }
    /* The call delivered what had come before, perhaps the connection's end too. */
    if (!(child->status & SHM_ST_GONE))
        child->tcp = id;
    sock_back(child)->local = addr_to_shm(&t.local, t.local_port);
    sock_back(child)->peer = addr_to_shm(&t.remote, t.remote_port);
    if (lsk->spread != NULL)
        __atomic_store_n(&lsk->spread->in[s->number].ready, tcp_accept_count(s->tcp, lsk->tcp), __ATOMIC_RELEASE);
    sock_mark(s, lsk, DIRTY_READ);
    return 0;
}
