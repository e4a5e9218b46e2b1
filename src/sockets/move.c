/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/**
 * @file
 * Connections that move between domains, for a mode that steals work. Each domain has one owner (domain i is worker i's), and all that is said here between two
 * of them goes by their hand-over queues, in order.
 *
 * A connection belongs to the domain that its tuple names, its home. Another domain may ask for it: then it goes there as bytes, its socket with it, and home
 * keeps an entry by which it passes its packets on, behind the connection itself. It can come back, but goes nowhere else. So there is never more than one step
 * between home and the connection.
 *
 * What comes back, and what has ended, is taken off home's table by a message; packets that home passed on before are still on their way then. So the guest domain makes an
 * entry too, which sends them back behind that message, and takes it away when home has answered: all that home had passed on has come in by then.
 */

/* Of a connection's last packet. */
#define BUSY_US 10000u
/* One that was moved stays for so long, or two domains that are both loaded would play with it. */
#define SETTLE_US 1000000u
/* Sockets that are looked at for one request. */
#define LOOK_AT 1024u
/* Guests whose end is looked for in one pass, and how often. */
#define SWEEP_GUESTS 64u
#define SWEEP_US 100000u

/** A connection under way. */
struct move {
    struct message msg;
    struct traveller traveller;
    struct tcp_tuple tuple;
    uint64_t now_us; /**< of the domain that sent it, up to which its times are */
    uint32_t home, from, refuser;
    bool refused; /**< it could not be taken, and goes back to where it came from */
    bool lost; /**< nor there */
    size_t len;
    char bytes[] __attribute__((aligned(64)));
};

/** "Give me connections", and the answer; or what becomes of a guest's entry at home. */
struct word {
    struct message msg;
    uint32_t from;
    uint32_t n; /**< how many at most; how many went */
    struct tcp_tuple tuple;
};

static void on_move(struct stack *s, struct message *msg);

static void
send_word(struct stack *s, void (*arrive)(struct stack *s, struct message *msg), uint32_t to, uint32_t n,
          const struct tcp_tuple *t)
{
    struct word *w = calloc(1, sizeof(*w));

    if (w == NULL) {
        counter_inc(s->ctr, CTR_HANDOVER_DROP); /* a guest's entry stays at home; a request is never answered */
        return;
    }
    w->msg.arrive = arrive;
    w->from = s->number;
    w->n = n;
    if (t != NULL)
        w->tuple = *t;
    message_send(s->net, &w->msg, to);
}

/* ---- guests: connections whose home is another domain --------------------------------------------------------------------------- */

static bool
guests_reserve(struct stack *s)
{
    uint32_t capacity = RTE_MAX(2 * s->guests_capacity, 64u);
    struct guest *grown;

    if (s->nb_guests < s->guests_capacity)
        return true;
    grown = realloc(s->guests, capacity * sizeof(*grown));
    if (grown == NULL)
        return false;
    s->guests = grown;
    s->guests_capacity = capacity;
    return true;
}

static struct guest *
guest_find(const struct stack *s, const struct tcp_tuple *t)
{
    for (uint32_t i = 0; i < s->nb_guests; i++)
        if (memcmp(&s->guests[i].tuple, t, sizeof(*t)) == 0)
            return &s->guests[i];
    return NULL;
}

/* At the guest's: home passes nothing on any more, and all that it had passed on is here. */
static void
on_left(struct stack *s, struct message *msg)
{
    struct word *w = (struct word *)msg;
    struct guest *g = guest_find(s, &w->tuple);

    tcp_moved_end(s->tcp, &w->tuple);
    if (g != NULL)
        *g = s->guests[--s->nb_guests];
    free(w);
}

/* At home: the guest's connection has ended. */
static void
on_ended(struct stack *s, struct message *msg)
{
    struct word *w = (struct word *)msg;

    tcp_moved_end(s->tcp, &w->tuple);
    send_word(s, on_left, w->from, 0, &w->tuple);
    free(w);
}

unsigned
stack_sweep_guests(struct stack *s, uint64_t now_us)
{
    unsigned n = 0;

    if (s->nb_guests == 0 || now_us < s->sweep_at_us)
        return 0;
    for (uint32_t k = 0; k < RTE_MIN(s->nb_guests, SWEEP_GUESTS); k++) {
        struct guest *g = &s->guests[s->sweep_next++ % s->nb_guests];

        /* A new connection may have the tuple meanwhile, and is as welcome. */
        if (g->leaving || tcp_has(s->tcp, &g->tuple) || tcp_moved_set(s->tcp, &g->tuple, g->home) != 0)
            continue;
        g->leaving = true;
        send_word(s, on_ended, g->home, 0, &g->tuple);
        n++;
    }
    if (s->sweep_next >= s->nb_guests) {
        s->sweep_next = 0;
        s->sweep_at_us = now_us + SWEEP_US;
    }
    return n;
}

/* ---- moving ------------------------------------------------------------------------------------------------------------------------ */

static void
send_move(struct stack *s, struct sock *sk, struct move *mv, uint32_t to)
{
    mv->now_us = s->env.now_us;
    transit_pick_up(s, sk, &mv->traveller);
    transit_send(s, &mv->traveller, &mv->msg, to);
}

/* Into bytes, and away. */
static bool
give(struct stack *s, struct sock *sk, uint32_t home, uint32_t to)
{
    size_t len = tcp_export_bytes(s->tcp, sk->tcp);
    struct move *mv = message_alloc(sizeof(*mv) + len);
    struct guest *g;

    if (mv == NULL)
        return false;
    mv->msg.arrive = on_move;
    mv->home = home;
    mv->from = s->number;
    mv->len = len;
    if (tcp_export(s->tcp, sk->tcp, to, mv->bytes, len) != 0) {
        free(mv);
        return false;
    }
    tcp_moving_tuple(mv->bytes, &mv->tuple);
    g = guest_find(s, &mv->tuple);
    if (g != NULL)
        g->leaving = true;
    counter_inc(s->ctr, CTR_MOVE_OUT);
    send_move(s, sk, mv, to);
    return true;
}

/* Neither here nor where it came from is there room: to the application it has failed. */
static void
lose(struct stack *s, struct sock *sk, struct move *mv)
{
    tcp_import_give_up(&s->env, mv->bytes);
    tcp_moved_end(s->tcp, &mv->tuple);
    sock_gone(s, sk, ENOBUFS);
}

/* Home passes packets on to here until it has it back: they follow it. At home there is an entry that says so already. */
static void
refuse(struct stack *s, struct move *mv)
{
    counter_inc(s->ctr, CTR_MOVE_REFUSED);
    mv->refused = true;
    mv->refuser = s->number;
    tcp_moved_set(s->tcp, &mv->tuple, mv->from);
}

/* It is here: say so to whom that concerns. */
static void
arrived(struct stack *s, const struct move *mv)
{
    struct guest *g = guest_find(s, &mv->tuple);

    counter_inc(s->ctr, CTR_MOVE_IN);
    if (mv->home == s->number)
        send_word(s, on_left, mv->refused ? mv->refuser : mv->from, 0, &mv->tuple);
    else if (g != NULL)
        g->leaving = false; /* it did not get home, and home still passes on */
    else
        s->guests[s->nb_guests++] = (struct guest){ .tuple = mv->tuple, .home = mv->home };
}

static void
on_move(struct stack *s, struct message *msg)
{
    struct move *mv = (struct move *)msg;
    bool room = mv->refused || guests_reserve(s);
    struct sock *sk = transit_settle(s, &mv->traveller);

    /* This pass may have begun before that one sent its last segments, and acknowledgements follow the connection: they must not come before what they acknowledge was sent. */
    s->env.now_us = RTE_MAX(s->env.now_us, mv->now_us);

    if (sk == NULL) { /* the domain has no place for a socket: back, or to any that has one */
        uint32_t to = mv->refused ? (s->number + 1) % s->host->nb_stacks : mv->from;

        mv->lost = mv->refused;
        if (!mv->lost)
            refuse(s, mv);
        transit_send(s, &mv->traveller, &mv->msg, to);
        return;
    }
    sock_more_own(s, sk)->moved_ms = (uint32_t)(s->env.now_us / 1000);
    sk->tcp = TCP_NO_ID;
    if (!room || mv->lost || tcp_import(s->tcp, &s->env, mv->bytes, sock_index(s, sk), &sk->tcp) != 0) {
        if (!mv->refused) {
            refuse(s, mv);
            send_move(s, sk, mv, mv->from);
            return;
        }
        lose(s, sk, mv);
    } else {
        arrived(s, mv);
    }
    commands_service(s, sk->app, sk->slot, false);
    free(mv);
}

/* ---- asking ------------------------------------------------------------------------------------------------------------------------ */

/* Busy, and free to go there: from home, or back to it. */
static bool
may_go(struct stack *s, const struct sock *sk, uint32_t to, uint32_t *home)
{
    const struct sock_more *more = sock_more(s, sk);
    struct tcp_conn_info info;
    uint64_t now_us = s->env.now_us, last_us;

    if (sk->app == NULL || sk->tcp == TCP_NO_ID || more->spread != NULL || !(sock_state(sk) & SHM_ST_CONNECTED) ||
        (sk->flags & (SOCK_CLOSING | SOCK_LISTENER | SOCK_SHADOW)) || (sk->dirty & DIRTY_ABORT) ||
        (more->moved_ms != 0 && (uint32_t)(now_us / 1000) - more->moved_ms < SETTLE_US / 1000) ||
        !tcp_can_move(s->tcp, sk->tcp) || !tcp_info(s->tcp, sk->tcp, &info))
        return false;
    last_us = RTE_MAX(info.last_rcv_at_us, info.last_snd_at_us);
    *home = tcp_steer(&s->host->steer, &info.tuple);
    return now_us < last_us + BUSY_US && (*home == s->number || *home == to);
}

/* The thief hears how many are coming, behind them. */
static void
on_answer(struct stack *s, struct message *msg)
{
    struct word *w = (struct word *)msg;

    s->asking = false;
    counter_add(s->ctr, CTR_STEALS, w->n > 0);
    free(w);
}

/* Of those that are busy every second one is given, the first stays: who has but one would only hand his load on. */
static void
on_request(struct stack *s, struct message *msg)
{
    struct word *w = (struct word *)msg;
    uint32_t looked = RTE_MIN(s->socks_used, LOOK_AT);
    unsigned busy = 0, given = 0;

    for (uint32_t k = 0; k < looked && given < w->n; k++) {
        struct sock *sk = &s->socks[s->look_next++ % s->socks_used];
        uint32_t home;

        if (!may_go(s, sk, w->from, &home))
            continue;
        if (busy++ % 2 == 1)
            given += give(s, sk, home, w->from);
    }
    send_word(s, on_answer, w->from, given, NULL);
    free(w);
}

void
stack_steal(struct stack *s, unsigned from, unsigned max)
{
    if (s->asking)
        return;
    s->asking = true;
    send_word(s, on_request, from, max, NULL);
}

bool
stack_is_stealing(const struct stack *s)
{
    return s->asking;
}
