/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Receive buffer of a connection whose application holds too many packet buffers. */
#define SQUEEZED_BYTES 4096

/* ---- the table ---------------------------------------------------------------------------------------------------- */

static struct sock *
sock_alloc(struct stack *s)
{
    struct sock *sk;

    if (s->socks_free != SOCK_NONE) {
        sk = &s->socks[s->socks_free];
        s->socks_free = sk->next;
    } else if (s->socks_used < s->max_socks) {
        sk = &s->socks[s->socks_used++];
    } else {
        return NULL;
    }
    s->nb_socks++;
    *sk = (struct sock){ 0 };
    return sk;
}

struct sock *
sock_at(const struct app *app, uint32_t slot)
{
    uint32_t index = app->slot_sock[slot];

    return index == SOCK_NONE ? NULL : &app->stack->socks[index];
}

/* Everything that a former user of the slot left behind, but for the counters that run on. */
static void
back_init(const struct stack *s, struct shm_back_sock *b)
{
    uint32_t sndbuf = s->cfg.tcp.snd_buf_bytes;

    b->tx_acked = b->rx_tail = b->train_tail = b->tx_sent = 0;
    b->error = 0;
    b->accept_ready = 0;
    b->sndbuf_bytes = sndbuf < SHM_SNDBUF_MAX ? sndbuf : SHM_SNDBUF_MAX;
    b->instance = s->cfg.instance;
    b->local = b->peer = (struct shm_addr){ .addr = { 0 } };
    b->generation++;
}

struct sock *
sock_open(struct stack *s, struct app *app, uint32_t slot, uint16_t member)
{
    struct sock *sk = sock_alloc(s);

    if (sk == NULL)
        return NULL;
    sk->app = app;
    sk->slot = slot;
    app->slot_sock[slot] = sock_index(s, sk);
    app->nb_socks++;
    if (slot >= app->slots_used)
        app->slots_used = slot + 1;
    app_member_hold(app, member, slot);
    back_init(s, sock_back(sk));
    sock_status(s, sk, SHM_ST_OPEN, 0);
    return sk;
}

static void
sock_free(struct stack *s, struct sock *sk)
{
    struct app *app = sk->app;
    struct shm_back_sock *b = sock_back(sk);

    rx_drop_all(s, sk);
    events_unsubscribe_all(sk);
    free(sk->opts);
    if (sk->flags & SOCK_BOUND) {
        struct ip_addr local = addr_from_shm(&b->local);

        tcp_unbind(s->tcp, &local, b->local.port, sock_index(s, sk));
    }
    app->slot_sock[sk->slot] = SOCK_NONE;
    app->nb_socks--;
    s->nb_socks--;
    if (app->nb_socks == 0 && app->live_members == 0)
        s->apps_ended = true;
    sock_status(s, sk, SHM_ST_DRAINED, ~0u);
    shm_store(&b->event_seq, b->event_seq + 1);
    *sk = (struct sock){ .next = s->socks_free };
    s->socks_free = sock_index(s, sk);
}

/* ---- state -------------------------------------------------------------------------------------------------------- */

void
sock_mark(struct stack *s, struct sock *sk, uint32_t dirty)
{
    if (sk->dirty == 0) {
        uint32_t index = sock_index(s, sk);

        sk->next = SOCK_NONE;
        if (s->dirty_first == SOCK_NONE)
            s->dirty_first = index;
        else
            s->socks[s->dirty_last].next = index;
        s->dirty_last = index;
    }
    sk->dirty |= dirty;
}

void
sock_status(struct stack *s, struct sock *sk, uint32_t set, uint32_t clear)
{
    uint32_t old = sk->status;

    sk->status = (old & ~clear) | set;
    s->nb_connecting += (sk->status & SHM_ST_CONNECTING) != 0;
    s->nb_connecting -= (old & SHM_ST_CONNECTING) != 0;
    shm_store(&sock_back(sk)->status, sk->status);
}

void
sock_gone(struct stack *s, struct sock *sk, int error)
{
    uint32_t set = SHM_ST_GONE;

    sk->tcp = TCP_NO_ID;
    sk->flags &= (uint16_t) ~(SOCK_LISTENER | SOCK_SQUEEZED);
    if (error != 0) {
        sock_back(sk)->error = error;
        set |= SHM_ST_ERROR;
    }
    sock_status(s, sk, set, SHM_ST_CONNECTING | SHM_ST_LISTEN);
    sock_mark(s, sk, DIRTY_READ | DIRTY_WRITE);
}

void
sock_bad(struct stack *s, struct sock *sk)
{
    counter_inc(s->ctr, CTR_SOCK_BAD_COMMAND);
    sk->abort_error = EPROTO;
    sock_mark(s, sk, DIRTY_ABORT);
}

void
sock_close(struct stack *s, struct sock *sk, bool reset)
{
    tcp_id id = sk->tcp;
    bool unread = sk->rx_delivered != sk->rx_taken;

    sk->flags |= SOCK_CLOSING;
    sk->rx_discarded = 0;
    rx_drop_all(s, sk);
    events_unsubscribe_all(sk);
    if (id != TCP_NO_ID) {
        if (reset && !(sk->flags & SOCK_LISTENER)) {
            sk->tcp = TCP_NO_ID;
            tcp_abort(s->tcp, &s->env, id);
        } else {
            tcp_close(s->tcp, &s->env, id, unread);
        }
    }
    sock_mark(s, sk, DIRTY_CMD);
}

/* ---- what the engine tells ----------------------------------------------------------------------------------------- */

void
sock_on_acked(void *ctx, tcp_user user, uint32_t n_bytes)
{
    struct stack *s = ctx;
    struct sock *sk = &s->socks[user];

    sk->tx_acked += n_bytes;
    sock_mark(s, sk, DIRTY_ACKED);
}

void
sock_on_event(void *ctx, tcp_user user, uint32_t events, int err)
{
    struct stack *s = ctx;
    struct sock *sk = &s->socks[user];

    if (events & TCP_EVENT_CONNECTED) {
        sock_status(s, sk, SHM_ST_CONNECTED, SHM_ST_CONNECTING);
        sock_mark(s, sk, DIRTY_READ | DIRTY_WRITE);
    }
    if (events & TCP_EVENT_ACCEPT)
        sock_mark(s, sk, DIRTY_READ);
    if (events & TCP_EVENT_FIN) {
        sk->flags |= SOCK_FIN;
        sock_mark(s, sk, DIRTY_READ | DIRTY_TRAIN);
    }
    if (events & (TCP_EVENT_ERROR | TCP_EVENT_GONE))
        sock_gone(s, sk, err);
}

/* ---- the end of a poll ------------------------------------------------------------------------------------------------ */

static void
futex_wake(const uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void
flush_abort(struct stack *s, struct sock *sk)
{
    tcp_id id = sk->tcp;

    if (id != TCP_NO_ID) {
        sk->tcp = TCP_NO_ID;
        if (sk->flags & SOCK_LISTENER)
            tcp_close(s->tcp, &s->env, id, false);
        else
            tcp_abort(s->tcp, &s->env, id);
    }
    sock_gone(s, sk, sk->abort_error);
}

/* See limit_app in rx.c; the margin between the two limits keeps it from swinging. */
static void
flush_squeeze(struct stack *s, struct sock *sk)
{
    bool over = sk->app->rx_bufs > s->pool->count / 2;
    int32_t normal = sk->rcvbuf != 0 ? sk->rcvbuf : (int32_t)s->cfg.tcp.rcv_buf_bytes;

    if (over) {
        sk->flags |= SOCK_SQUEEZED;
        sk->app->squeezed = true;
    } else {
        sk->flags &= (uint16_t)~SOCK_SQUEEZED;
    }
    tcp_set_option(s->tcp, &s->env, sk->tcp, TCP_OPT_RCVBUF, over ? SQUEEZED_BYTES : normal);
}

/* What callbacks could not do, since the engine must not be called from them. */
static void
flush_engine(struct stack *s, struct sock *sk, uint32_t dirty)
{
    if (sk->flags & SOCK_CLOSING)
        return; /* the connection is the engine's and ends by itself */
    if (dirty & DIRTY_ABORT)
        flush_abort(s, sk);
    if (sk->tcp == TCP_NO_ID || (sk->flags & SOCK_LISTENER))
        return;
    if (dirty & DIRTY_DISCARDED) {
        uint32_t n_bytes = sk->rx_discarded;

        sk->rx_discarded = 0;
        tcp_consumed(s->tcp, &s->env, sk->tcp, n_bytes);
    }
    if (dirty & DIRTY_SQUEEZE)
        flush_squeeze(s, sk);
}

/* Store what changed; what it amounts to for sleepers is added to dirty. */
static uint32_t
flush_words(struct stack *s, struct sock *sk, uint32_t dirty)
{
    struct shm_back_sock *b = sock_back(sk);

    if (dirty & DIRTY_ACKED) {
        shm_store(&b->tx_acked, sk->tx_acked);
    }
    if ((dirty & (DIRTY_TRAIN | DIRTY_READ)) && !(sk->flags & SOCK_CLOSING)) {
        dirty |= rx_publish(s, sk);
        if ((sk->flags & SOCK_FIN) && sk->rx_published == sk->rx_delivered && !(sk->status & SHM_ST_FIN)) {
            sock_status(s, sk, SHM_ST_FIN, 0);
            dirty |= DIRTY_READ;
        }
    }
    if ((dirty & DIRTY_READ) && (sk->flags & SOCK_LISTENER))
        shm_store(&b->accept_ready, tcp_accept_count(s->tcp, sk->tcp));
    if (dirty & (DIRTY_READ | DIRTY_WRITE | DIRTY_CMD))
        shm_store(&b->event_seq, b->event_seq + 1);
    return dirty;
}

/* A third of the buffer free is worth a wake-up: less would wake the sender for every acknowledgement. */
static bool
has_space(const struct sock *sk)
{
    uint32_t room = sock_back(sk)->sndbuf_bytes;
    uint32_t used = sk->tx_tail - sk->tx_acked;

    return used <= room && room - used >= room / 3;
}

static void
wake_one(struct stack *s, const struct wake *w)
{
    struct shm_back_sock *b = &w->app->back[w->slot];
    struct sock *sk = sock_at(w->app, w->slot);
    uint32_t sleepers = shm_load(&w->app->front[w->slot].sleepers);
    uint32_t dirty = w->dirty;
    uint32_t due = 0;

    if ((dirty & DIRTY_ACKED) && (sleepers & (SHM_SLEEP_WRITE | SHM_WANT_SPACE)) && sk != NULL && has_space(sk)) {
        shm_store(&b->event_seq, b->event_seq + 1);
        dirty |= DIRTY_WRITE;
    }
    if (sk != NULL && sk->subs != 0 && (dirty & (DIRTY_READ | DIRTY_WRITE)))
        events_append(s, sk);
    if (dirty & DIRTY_READ)
        due |= SHM_SLEEP_READ;
    if (dirty & DIRTY_WRITE)
        due |= SHM_SLEEP_WRITE;
    if (dirty & DIRTY_CMD)
        due |= SHM_SLEEP_CMD;
    if (sleepers & due) {
        counter_inc(s->ctr, CTR_SOCK_WAKEUPS);
        futex_wake(&b->event_seq);
    }
}

/* The fence stands between the stores of flush_words and the look for sleepers: Dekker's with the front-end. */
static void
wake_all(struct stack *s)
{
    unsigned n = s->nb_wakes;

    if (n == 0)
        return;
    shm_fence();
    s->nb_wakes = 0;
    for (unsigned i = 0; i < n; i++)
        wake_one(s, &s->wakes[i]);
    events_wake(s);
}

void
sock_wake_slot(struct stack *s, struct app *app, uint32_t slot)
{
    struct shm_back_sock *b = &app->back[slot];

    shm_store(&b->event_seq, b->event_seq + 1);
    s->wakes[s->nb_wakes++] = (struct wake){ .app = app, .slot = slot, .dirty = DIRTY_CMD };
    if (s->nb_wakes == WAKE_BATCH)
        wake_all(s);
}

static struct sock *
pop_dirty(struct stack *s, uint32_t *dirty)
{
    struct sock *sk;

    if (s->dirty_first == SOCK_NONE)
        return NULL;
    sk = &s->socks[s->dirty_first];
    s->dirty_first = sk->next;
    *dirty = sk->dirty;
    sk->dirty = 0;
    return sk;
}

void
sock_flush(struct stack *s)
{
    struct sock *sk;
    uint32_t dirty;

    while ((sk = pop_dirty(s, &dirty)) != NULL) {
        struct wake *w = &s->wakes[s->nb_wakes++];

        flush_engine(s, sk, dirty);
        *w = (struct wake){ .app = sk->app, .slot = sk->slot, .dirty = flush_words(s, sk, dirty) };
        /* Unless flush_engine put it on the list again, for which it must live on. */
        if ((sk->flags & SOCK_CLOSING) && sk->tcp == TCP_NO_ID && sk->dirty == 0)
            sock_free(s, sk);
        if (s->nb_wakes == WAKE_BATCH)
            wake_all(s);
    }
    wake_all(s);
    if (s->apps_ended)
        app_reap(s);
}
