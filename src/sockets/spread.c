/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/**
 * @file
 * Sockets that are bound or listen, where there are several domains. Their port must be taken in each of them, and connections come to any of
 * them, so that every domain has a shadow of the socket.
 *
 * What changes all shadows is a message that goes from domain to domain and does its part in each: up from domain 0, so that whoever gets a port there
 * gets it in all, and back down, undoing, if some domain refuses. Shooting down goes from the last to domain 0. Meanwhile the socket's further
 * commands wait (spread.busy), and so does the application, but for the shooting down of what nobody holds any more.
 */

#define BIND_TRIES 64u

enum spread_kind { SPREAD_BIND, SPREAD_LISTEN, SPREAD_BACKLOG, SPREAD_OPTION, SPREAD_KEY, SPREAD_END };

struct spread_op {
    struct message msg;
    enum spread_kind kind;
    bool undo; /* on its way back */
    bool answering; /* on its way home with the result */
    bool async; /* nobody waits: it carries the spread's last reference */
    int result;
    struct spread *sp;
    struct ip_addr local;
    uint16_t port; /* as asked for, or chosen */
    bool any_port;
    bool for_listen; /* a bind that listen asked for */
    unsigned tries;
    uint32_t backlog, name;
    int32_t value;
    struct shm_key key;
    bool has_opts;
    struct tcp_sockopts opts;
};

static void op_arrive(struct stack *s, struct message *msg);

static struct sock *
shadow_at(const struct spread *sp, const struct stack *s)
{
    return &s->socks[sp->in[s->number].index];
}

/* NULL: no memory. */
static struct spread_op *
op_create(const struct stack *s, const struct sock *sk, enum spread_kind kind)
{
    const struct sock_more *more = sock_more(s, sk);
    struct spread_op *op = message_alloc(sizeof(*op));

    if (op == NULL)
        return NULL;
    op->msg.arrive = op_arrive;
    op->kind = kind;
    op->sp = more->spread;
    if (more->opts != NULL) {
        op->has_opts = true;
        if (!opts_copy(&op->opts, more->opts)) {
            free(op);
            return NULL;
        }
    }
    return op;
}

static void
op_free(struct spread_op *op)
{
    free((void *)(uintptr_t)op->opts.md5);
    free(op);
}

/* The command that is being executed waits for its answer. */
static int
op_start(struct stack *s, struct spread_op *op)
{
    if (op == NULL)
        return -ENOMEM;
    op->sp->busy = true;
    message_send(s->net, &op->msg, op->kind == SPREAD_END ? s->host->nb_stacks - 1 : 0);
    return COMMAND_PENDING;
}

static const struct tcp_sockopts *
op_opts(const struct spread_op *op)
{
    return op->has_opts ? &op->opts : NULL;
}

/* ---- the parts of one domain ------------------------------------------------------------------------------------------------ */

static int
bind_here(struct stack *s, struct spread_op *op)
{
    struct spread *sp = op->sp;
    bool is_home = s->number == sp->home;
    struct sock *sk = is_home ? shadow_at(sp, s) : sock_shadow(s, sp->app, sp->slot);
    int rc;

    if (sk == NULL)
        return -ENOMEM;
    rc = tcp_bind(s->tcp, &op->local, op->port, op_opts(op), sock_index(s, sk), &op->port);
    if (rc != 0) {
        if (!is_home)
            sock_shadow_free(s, sk);
        return rc;
    }
    sp->in[s->number].index = sock_index(s, sk);
    sock_set_flags(sk, SOCK_BOUND, 0);
    sock_more_own(s, sk)->spread = sp;
    return 0;
}

/* What the shadow holds is given up. Freed when it is flushed, since it may stand among the dirty ones already. */
static void
end_here(struct stack *s, struct spread *sp, const struct ip_addr *local, uint16_t port)
{
    struct sock *sk = shadow_at(sp, s);

    if (s->number == sp->home || sp->in[s->number].index == SOCK_NONE)
        return;
    if (sock_tcp(sk) != TCP_NO_ID) {
        __atomic_sub_fetch(&sock_back(sk)->accept_ready, sock_more(s, sk)->ready, __ATOMIC_RELEASE);
        tcp_close(s->tcp, &s->env, sock_tcp(sk), false);
    }
    if (sock_flags(sk) & SOCK_BOUND)
        tcp_unbind(s->tcp, local, port, sock_index(s, sk));
    sk->flags = SOCK_SHADOW | SOCK_CLOSING;
    sock_more_own(s, sk)->spread = NULL;
    sp->in[s->number].index = SOCK_NONE;
    sock_mark(s, sk, DIRTY_CMD);
}

static void
unbind_here(struct stack *s, struct spread_op *op)
{
    struct sock *sk = shadow_at(op->sp, s);

    if (s->number != op->sp->home) {
        end_here(s, op->sp, &op->local, op->port);
        return;
    }
    tcp_unbind(s->tcp, &op->local, op->port, sock_index(s, sk));
    sock_set_flags(sk, 0, SOCK_BOUND);
}

static int
listen_here(struct stack *s, struct spread_op *op)
{
    struct sock *sk = shadow_at(op->sp, s);
    int rc = tcp_listen(s->tcp, &s->env, &op->local, op->port, op->backlog, op_opts(op), sock_index(s, sk), &sk->tcp);

    if (rc == 0)
        sk->flags = (uint16_t)((sock_flags(sk) & ~SOCK_BOUND) | SOCK_LISTENER);
    return rc;
}

/* The reservation went over to the listener and ends with it. The socket itself must not take that for its end. */
static void
unlisten_here(struct stack *s, struct spread_op *op)
{
    struct sock *sk = shadow_at(op->sp, s);
    uint16_t flags = (uint16_t)(sock_flags(sk) & ~SOCK_LISTENER);

    sock_set_flags(sk, SOCK_SHADOW, 0);
    tcp_close(s->tcp, &s->env, sock_tcp(sk), false);
    sk->flags = flags;
}

static int
option_here(struct stack *s, const struct spread_op *op)
{
    const struct sock *sk = shadow_at(op->sp, s);

    return sock_tcp(sk) == TCP_NO_ID
               ? 0
               : tcp_set_option(s->tcp, &s->env, sock_tcp(sk), (enum tcp_option)op->name, op->value);
}

static int
key_here(struct stack *s, const struct spread_op *op)
{
    const struct sock *sk = shadow_at(op->sp, s);

    return sock_tcp(sk) == TCP_NO_ID ? 0 : keys_apply(s, sk, &op->key);
}

/* Not in one domain and missing in another: a key that found no room somewhere is nowhere. One that takes the place of another always finds it. */
static void
unkey_here(struct stack *s, struct spread_op *op)
{
    op->key.n_bytes = 0;
    if (op->key.kind == SHM_KEY_MD5)
        key_here(s, op);
}

static int
do_here(struct stack *s, struct spread_op *op)
{
    switch (op->kind) {
    case SPREAD_BIND:
        return bind_here(s, op);
    case SPREAD_LISTEN:
        return listen_here(s, op);
    case SPREAD_BACKLOG:
        tcp_set_backlog(s->tcp, shadow_at(op->sp, s)->tcp, op->backlog);
        return 0;
    case SPREAD_OPTION:
        return option_here(s, op);
    case SPREAD_KEY:
        return key_here(s, op);
    default:
        end_here(s, op->sp, &op->sp->local, op->sp->port);
        return 0;
    }
}

static void
undo_here(struct stack *s, struct spread_op *op)
{
    if (op->kind == SPREAD_BIND)
        unbind_here(s, op);
    else if (op->kind == SPREAD_LISTEN)
        unlisten_here(s, op);
    else if (op->kind == SPREAD_KEY)
        unkey_here(s, op);
}

/* ---- its way ------------------------------------------------------------------------------------------------------------------ */

/* In the socket's own domain: the outcome, and the next command. */
static void
finish(struct stack *s, struct spread_op *op)
{
    struct spread *sp = op->sp;
    struct sock *sk = shadow_at(sp, s);
    int result = op->result;

    sp->busy = false;
    if (op->kind == SPREAD_BIND && result == 0) {
        sp->local = op->local;
        sp->port = op->port;
        sock_set_address(sk, SHM_LOCAL, &op->local, op->port);
    }
    if (op->kind == SPREAD_LISTEN && result == 0)
        sock_status(s, sk, SHM_ST_LISTEN, 0);
    if (sp->abandoned) {
        spread_abandon(s, sk);
    } else if (op->kind == SPREAD_END || (op->kind == SPREAD_BIND && result != 0)) {
        sock_more_own(s, sk)->spread = NULL;
        free(sp);
    }
    /* A close, shutdown or listen goes on now that its first part is done. */
    if (op->kind == SPREAD_END || (op->kind == SPREAD_BIND && op->for_listen && result == 0))
        commands_service(s, sk->app, sk->slot, false);
    else
        commands_done(s, sk->app, sk->slot, result);
    op_free(op);
}

static void
answer(struct stack *s, struct spread_op *op, int result)
{
    op->result = result;
    if (op->async) {
        free(op->sp);
        op_free(op);
        return;
    }
    op->answering = true;
    message_send(s->net, &op->msg, op->sp->home);
}

/* Undone down to domain 0. A port that it chose may have been in use in another domain, by a connection that is coming to its end. */
static void
undone(struct stack *s, struct spread_op *op)
{
    if (op->kind != SPREAD_BIND || !op->any_port || op->result != -EADDRINUSE || ++op->tries == BIND_TRIES) {
        answer(s, op, op->result);
        return;
    }
    op->undo = false;
    op->port = 0;
    message_send(s->net, &op->msg, 0);
}

static void
op_arrive(struct stack *s, struct message *msg)
{
    struct spread_op *op = (struct spread_op *)msg;
    uint32_t last = op->kind == SPREAD_END ? 0 : s->host->nb_stacks - 1;
    bool down = op->undo || op->kind == SPREAD_END;
    int rc = 0;

    if (op->answering) {
        finish(s, op);
        return;
    }
    if (op->undo) {
        undo_here(s, op);
    } else {
        rc = do_here(s, op);
        if (rc != 0) {
            op->result = rc;
            op->undo = down = true;
        }
    }
    if (down && s->number == 0) {
        if (op->undo)
            undone(s, op);
        else
            answer(s, op, 0);
    } else if (!down && s->number == last) {
        answer(s, op, 0);
    } else {
        message_send(s->net, &op->msg, down ? s->number - 1 : s->number + 1);
    }
}

/* ---- commands ------------------------------------------------------------------------------------------------------------------- */

int
spread_bind(struct stack *s, struct sock *sk, const struct ip_addr *local, uint16_t port, bool for_listen)
{
    struct spread *sp = calloc(1, sizeof(*sp) + s->host->nb_stacks * sizeof(sp->in[0]));
    struct spread_op *op;

    if (sp == NULL)
        return -ENOMEM;
    sock_more_own(s, sk)->spread = sp;
    op = op_create(s, sk, SPREAD_BIND);
    if (op == NULL) {
        sock_more_own(s, sk)->spread = NULL;
        free(sp);
        return -ENOMEM;
    }
    sp->app = sk->app;
    sp->slot = sk->slot;
    sp->home = s->number;
    sp->in[s->number].index = sock_index(s, sk);
    op->local = *local;
    op->port = port;
    op->any_port = port == 0;
    op->for_listen = for_listen;
    return op_start(s, op);
}

int
spread_listen(struct stack *s, struct sock *sk, uint32_t backlog)
{
    struct spread_op *op = op_create(s, sk, SPREAD_LISTEN);

    if (op != NULL) {
        op->local = op->sp->local;
        op->port = op->sp->port;
        op->backlog = backlog;
    }
    return op_start(s, op);
}

int
spread_set_backlog(struct stack *s, struct sock *sk, uint32_t backlog)
{
    struct spread_op *op = op_create(s, sk, SPREAD_BACKLOG);

    if (op != NULL)
        op->backlog = backlog;
    return op_start(s, op);
}

int
spread_set_option(struct stack *s, struct sock *sk, uint32_t name, int32_t value)
{
    struct spread_op *op = op_create(s, sk, SPREAD_OPTION);

    if (op != NULL) {
        op->name = name;
        op->value = value;
    }
    return op_start(s, op);
}

int
spread_set_key(struct stack *s, struct sock *sk, const struct shm_key *key)
{
    struct spread_op *op = op_create(s, sk, SPREAD_KEY);

    if (op != NULL)
        op->key = *key;
    return op_start(s, op);
}

int
spread_end(struct stack *s, struct sock *sk)
{
    return op_start(s, op_create(s, sk, SPREAD_END));
}

void
spread_abandon(struct stack *s, struct sock *sk)
{
    struct spread *sp = sock_spread(s, sk);
    struct spread_op *op;

    if (sp->busy) {
        sp->abandoned = true; /* and goes when that is done */
        return;
    }
    op = op_create(s, sk, SPREAD_END);
    sock_more_own(s, sk)->spread = NULL;
    if (op == NULL) {
        counter_inc(s->ctr, CTR_HANDOVER_DROP); /* the port stays taken */
        return;
    }
    op->async = true;
    op_start(s, op);
}

/* ---- accept --------------------------------------------------------------------------------------------------------------------- */

struct stack *
spread_next(struct stack *s, const struct sock *sk)
{
    struct spread *sp = sock_spread(s, sk);
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
inherit(struct stack *s, struct sock *child, const struct sock *shadow)
{
    const struct sock_more *listener = sock_more_at(shadow->app, shadow->slot);
    const struct app *app = child->app; /* both are of one */
    int32_t sndbuf = __atomic_load_n(&listener->sndbuf, __ATOMIC_RELAXED);
    int32_t rcvbuf = __atomic_load_n(&listener->rcvbuf, __ATOMIC_RELAXED);
    uint32_t rcvlowat = __atomic_load_n(&listener->rcvlowat, __ATOMIC_RELAXED);
    uint32_t notsent_lowat = __atomic_load_n(&listener->notsent_lowat, __ATOMIC_RELAXED);
    uint32_t window_clamp = __atomic_load_n(&listener->window_clamp, __ATOMIC_RELAXED);

    sock_back(child)->sndbuf_bytes = sock_back(shadow)->sndbuf_bytes;
    app->back_names[child->slot].rcvbuf_bytes = app->back_names[shadow->slot].rcvbuf_bytes;
    if (((uint32_t)sndbuf | (uint32_t)rcvbuf | rcvlowat | notsent_lowat | window_clamp) == 0)
        return;
    /* Word by word: the child's slot is claimed, so a worker that an application sends there may hold its locks. */
    struct sock_more *own = sock_more_own(s, child);
    own->sndbuf = sndbuf;
    own->rcvbuf = rcvbuf;
    own->rcvlowat = rcvlowat;
    own->notsent_lowat = notsent_lowat;
    own->window_clamp = window_clamp;
}

int
spread_accept(struct stack *s, struct sock *lsk, uint32_t free_slot, uint16_t member)
{
    struct spread *sp = sock_spread(s, lsk);
    struct app *app = lsk->app;
    struct tcp_tuple t;
    struct sock *child;
    tcp_id id;

    if (!(sock_flags(lsk) & SOCK_LISTENER))
        return -EINVAL;
    if (tcp_accept_count(s->tcp, sock_tcp(lsk)) == 0) {
        if (sp != NULL)
            __atomic_store_n(&sp->in[s->number].ready, 0, __ATOMIC_RELEASE);
        return -EAGAIN;
    }
    child = sock_open(s, app, free_slot, member);
    if (child == NULL)
        return -ENFILE;
    inherit(s, child, lsk);
    sock_status(s, child, SHM_ST_CONNECTED, 0); /* nobody knows it yet */
    id = engine_accept(s, sock_tcp(lsk), child, &t);
    if (id == TCP_NO_ID) {
        app_member_drop(app, member, free_slot);
        sock_close(s, child, false);
        return -EAGAIN;
    }
    /* The call delivered what had come before, perhaps the connection's end too. */
    sock_lock(s, child);
    if (!(sock_state(child) & SHM_ST_GONE))
        sock_set_tcp(child, id);
    sock_unlock(s, child);
    sock_set_address(child, SHM_LOCAL, &t.local, t.local_port);
    sock_set_address(child, SHM_PEER, &t.remote, t.remote_port);
    if (sp != NULL)
        __atomic_store_n(&sp->in[s->number].ready, tcp_accept_count(s->tcp, sock_tcp(lsk)), __ATOMIC_RELEASE);
    sock_mark(s, lsk, DIRTY_READ);
    return 0;
}
