/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/engine.h"
#include "sockets/stamp.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Receive buffer of a connection whose application holds too many packet buffers. */
#define SQUEEZED_BYTES 4096

const struct sock_more sock_more_none;

/* ---- the table ---------------------------------------------------------------------------------------------------- */

static struct sock *
sock_alloc(struct stack *s)
{
    struct stack *books = s->main;
    struct sock *sk;

    if (books->socks_free != SOCK_NONE) {
        sk = &s->socks[books->socks_free];
        books->socks_free = sk->next;
    } else if (books->socks_used < s->max_socks) {
        sk = &s->socks[books->socks_used++];
    } else {
        return NULL;
    }
    books->nb_socks++;
    *sk = (struct sock){ 0 };
    return sk;
}

struct sock *
sock_at(const struct app *app, uint32_t slot)
{
    uint64_t ref = __atomic_load_n(&app->slot_ref[slot], __ATOMIC_ACQUIRE);

    return ref == 0 || (ref & SLOT_TRANSIT) ? NULL : &app->host->stacks[ref >> 32]->socks[(uint32_t)ref];
}

const struct sock_more *
sock_more_at(const struct app *app, uint32_t slot)
{
    uint64_t ref = __atomic_load_n(&app->slot_ref[slot], __ATOMIC_ACQUIRE);
    const struct stack *s;

    if (ref == 0 || (ref & SLOT_TRANSIT))
        return &sock_more_none;
    s = app->host->stacks[ref >> 32];
    return sock_more(s, &s->socks[(uint32_t)ref]);
}

struct sock *
sock_in(const struct stack *s, const struct app *app, uint32_t slot)
{
    return sock_of_ref(s, __atomic_load_n(&app->slot_ref[slot], __ATOMIC_ACQUIRE));
}

/* Two workers may be asked for the same free slot at once, by an application that does not keep to the rules: one gets it. */
static bool
slot_claim(struct stack *s, struct app *app, uint32_t slot, const struct sock *sk)
{
    uint64_t ref = (uint64_t)s->number << 32 | sock_index(s, sk);
    uint64_t *at = &app->slot_ref[slot], none = 0;
    uint32_t used = __atomic_load_n(&app->slots_used, __ATOMIC_RELAXED);

    if (s->host->nb_nets > 1) {
        if (!__atomic_compare_exchange_n(at, &none, ref, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return false;
    } else {
        if (*at != 0)
            return false;
        __atomic_store_n(at, ref, __ATOMIC_RELEASE);
    }
    while (used <= slot &&
           !__atomic_compare_exchange_n(&app->slots_used, &used, slot + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return true;
}

/* Everything that a former user of the slot left behind, but for the counters that run on. */
static void
back_init(const struct stack *s, const struct sock *sk)
{
    struct shm_back_sock *b = sock_back(sk);
    uint32_t sndbuf = s->cfg.tcp.snd_buf_bytes;

    shm_store(&b->tx_acked, 0); /* looked at by a sweep for idle chunks, which then sees that the slot is not open */
    b->rx_tail = b->rx_held = b->train_tail = b->tx_sent = 0;
    b->error = 0;
    b->accept_ready = 0;
    b->sndbuf_bytes = sndbuf < SHM_SNDBUF_MAX ? sndbuf : SHM_SNDBUF_MAX;
    b->instance = s->host->locking ? SHM_ANY_INSTANCE : host_owner(s->host, s->number)->number;
    sk->app->back_names[sk->slot] = (struct shm_back_name){ .rcvbuf_bytes = s->cfg.tcp.rcv_buf_bytes };
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
    if (!slot_claim(s, app, slot, sk)) {
        sock_shadow_free(s, sk);
        return NULL;
    }
    host_add(s->host, &app->nb_socks, 1);
    app_member_hold(app, member, slot);
    back_init(s, sk);
    sock_status(s, sk, SHM_ST_OPEN, ~0u);
    return sk;
}

struct sock *
sock_shadow(struct stack *s, struct app *app, uint32_t slot)
{
    struct sock *sk = sock_alloc(s);

    if (sk == NULL)
        return NULL;
    sk->app = app;
    sk->slot = slot;
    sk->flags = SOCK_SHADOW;
    s->main->nb_shadows++;
    return sk;
}

void
sock_more_tidy(const struct stack *s, struct sock *sk)
{
    if (memcmp(&s->more[sock_index(s, sk)], &sock_more_none, offsetof(struct sock_more, tx_lock)) == 0)
        __atomic_store_n(&sk->has_more, false, __ATOMIC_RELAXED);
}

void
sock_reset(struct stack *s, struct sock *sk)
{
    if (sk->has_more)
        s->more[sock_index(s, sk)] = sock_more_none;
    *sk = (struct sock){ 0 };
}

void
sock_shadow_free(struct stack *s, struct sock *sk)
{
    struct stack *books = s->main;

    books->nb_socks--;
    books->nb_shadows -= (sock_flags(sk) & SOCK_SHADOW) != 0;
    sock_reset(s, sk);
    sk->next = books->socks_free;
    books->socks_free = sock_index(s, sk);
}

static void
sock_free(struct stack *s, struct sock *sk)
{
    struct app *app = sk->app;
    struct shm_back_sock *b = sock_back(sk);

    rx_drop_all(s, sk);
    events_unsubscribe_all(s->net, app, sk->slot);
    opts_free(sock_more(s, sk)->opts);
    free(sock_more(s, sk)->stamps);
    if (sock_flags(sk) & SOCK_BOUND) {
        const struct shm_addr name = sock_address(sk, SHM_LOCAL);
        const struct ip_addr local = addr_from_shm(&name);

        engine_unbind(s, &local, name.port, sk);
    }
    if (sock_spread(s, sk) != NULL)
        spread_abandon(s, sk);
    /* Stored before the slot is given up: its next user writes the same words. */
    sock_status(s, sk, SHM_ST_DRAINED, ~0u);
    __atomic_store_n(&app->slot_ref[sk->slot], 0, __ATOMIC_RELEASE);
    host_add(s->host, &b->event_seq, 1);
    sock_shadow_free(s, sk);
    if (host_add(s->host, &app->nb_socks, UINT32_MAX) == 0 && app->live_members == 0)
        host_want_stop(s->host);
}

/* ---- state -------------------------------------------------------------------------------------------------------- */

static void
dirty_append(struct stack *s, struct sock *sk)
{
    uint32_t index = sock_index(s, sk);

    sk->next = SOCK_NONE;
    if (s->dirty_first == SOCK_NONE)
        s->dirty_first = index;
    else
        s->socks[s->dirty_last].next = index;
    s->dirty_last = index;
}

void
sock_mark(struct stack *s, struct sock *sk, uint32_t dirty)
{
    uint32_t before;

    if (unlikely(s->shared != NULL)) {
        before = __atomic_fetch_or(&sk->dirty, (uint16_t)dirty, __ATOMIC_ACQ_REL);
    } else {
        before = sk->dirty;
        sk->dirty = (uint16_t)(before | dirty);
    }
    if (before == 0)
        dirty_append(s, sk);
}

void
sock_status(struct stack *s, struct sock *sk, uint32_t set, uint32_t clear)
{
    uint32_t old = sock_state(sk), status = (old & ~clear) | set;

    if ((old ^ status) & SHM_ST_CONNECTING)
        s->main->nb_connecting += status & SHM_ST_CONNECTING ? 1u : UINT32_MAX;
    shm_store(&sock_back(sk)->status, status);
}

void
sock_gone(struct stack *s, struct sock *sk, int error)
{
    uint32_t set = SHM_ST_GONE;

    sock_set_tcp(sk, TCP_NO_ID);
    sock_set_flags(sk, 0, SOCK_LISTENER | SOCK_SQUEEZED);
    if (sock_flags(sk) & SOCK_SHADOW)
        return; /* what there is to tell, its socket tells */
    if (error != 0) {
        sock_back(sk)->error = error;
        set |= SHM_ST_ERROR;
    }
    /* Behind what came before it, which would else be shown at the end of the pass: who reads meanwhile would take this for the end of the stream. */
    if (!(sock_flags(sk) & SOCK_CLOSING)) {
        if (unlikely(s->pool->nb_late != 0))
            port_rx_rest(net_queue(s->net)); /* of the same burst, perhaps of this socket */
        rx_publish(s, sk);
    }
    if (sock_flags(sk) & SOCK_FIN)
        set |= SHM_ST_FIN;
    sock_status(s, sk, set, SHM_ST_CONNECTING | SHM_ST_LISTEN);
    sock_mark(s, sk, DIRTY_READ | DIRTY_WRITE);
}

void
sock_abort(struct stack *s, struct sock *sk, int error)
{
    sock_lock(s, sk);
    sock_more_own(s, sk)->abort_error = error;
    sock_unlock(s, sk);
    sock_mark(s, sk, DIRTY_ABORT);
}

void
sock_bad(struct stack *s, struct sock *sk)
{
    counter_inc(s->ctr, CTR_SOCK_BAD_COMMAND);
    sock_abort(s, sk, EPROTO);
}

void
sock_close(struct stack *s, struct sock *sk, bool reset)
{
    tcp_id id = sock_tcp(sk);
    bool unread;

    table_take(s);
    sock_lock(s, sk);
    unread = sk->rx_delivered != sk->rx_taken;
    sock_set_flags(sk, SOCK_CLOSING, 0);
    rx_drop_all(s, sk);
    sock_unlock(s, sk);
    events_unsubscribe_all(s->net, sk->app, sk->slot);
    if (sock_flags(sk) & SOCK_LISTENER && sock_spread(s, sk) != NULL)
        spread_abandon(s, sk);
    if (id != TCP_NO_ID) {
        /* A reset that is due is not forgotten for the close that overtook it. */
        reset = reset || (__atomic_load_n(&sk->dirty, __ATOMIC_RELAXED) & DIRTY_ABORT) != 0;
        if (reset && !(sock_flags(sk) & SOCK_LISTENER)) {
            engine_abort(s, sk, id);
            sock_set_tcp(sk, TCP_NO_ID);
        } else {
            engine_close(s, id, unread);
        }
    }
    table_give(s);
    sock_mark(s, sk, DIRTY_CMD);
}

/* ---- what the engine tells ----------------------------------------------------------------------------------------- */

/* Where others may be at the socket, or somebody may want to know. */
static __attribute__((noinline)) void
acked_with_more(struct stack *s, struct sock *sk, uint32_t n_bytes)
{
    sock_lock_tx(s, sk);
    sk->tx_acked += n_bytes;
    if (unlikely(sock_more(s, sk)->stamps != NULL))
        stamp_on_acked(s, sk);
    sock_unlock_tx(s, sk);
    sock_mark(s, sk, DIRTY_ACKED);
}

void
sock_on_acked(void *ctx, tcp_user user, uint32_t n_bytes)
{
    struct stack *s = ctx;
    struct sock *sk = &s->socks[user];

    if (unlikely(s->sock_locks || sk->has_more)) {
        acked_with_more(s, sk, n_bytes);
        return;
    }
    sk->tx_acked += n_bytes;
    sock_mark(s, sk, DIRTY_ACKED);
}

void
sock_on_event(void *ctx, tcp_user user, uint32_t events, int err)
{
    struct stack *s = ctx;
    struct sock *sk = &s->socks[user];

    sock_lock(s, sk);
    if (events & TCP_EVENT_CONNECTED) {
        sock_status(s, sk, SHM_ST_CONNECTED, SHM_ST_CONNECTING);
        sock_mark(s, sk, DIRTY_READ | DIRTY_WRITE);
    }
    if (events & TCP_EVENT_ACCEPT)
        sock_mark(s, sk, DIRTY_READ);
    if (events & TCP_EVENT_FIN) {
        sock_set_flags(sk, SOCK_FIN, 0);
        sock_mark(s, sk, DIRTY_READ | DIRTY_TRAIN);
    }
    if (events & (TCP_EVENT_ERROR | TCP_EVENT_GONE))
        sock_gone(s, sk, err);
    sock_unlock(s, sk);
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
    tcp_id id = sock_tcp(sk);

    if (sock_spread(s, sk) != NULL && !(sock_flags(sk) & SOCK_SHADOW))
        spread_abandon(s, sk);
    if (id != TCP_NO_ID) {
        engine_abort(s, sk, id);
        sock_set_tcp(sk, TCP_NO_ID);
    }
    sock_lock(s, sk);
    sock_gone(s, sk, sock_more(s, sk)->abort_error);
    sock_unlock(s, sk);
}

/* See limit_app in rx.c; the margin between the two limits keeps it from swinging. */
static void
flush_squeeze(struct stack *s, struct sock *sk)
{
    bool over = app_rx_bufs(sk->app) > pktpool_budget(s->pool) / 2;
    int32_t chosen = sock_more(s, sk)->rcvbuf, normal = chosen != 0 ? chosen : -1;

    sock_lock(s, sk);
    if (over) {
        sock_set_flags(sk, SOCK_SQUEEZED, 0);
        __atomic_store_n(&sk->app->squeezed, true, __ATOMIC_RELAXED);
    } else {
        sock_set_flags(sk, 0, SOCK_SQUEEZED);
    }
    sock_unlock(s, sk);
    engine_set_option_later(s, sock_tcp(sk), TCP_OPT_RCVBUF, over ? SQUEEZED_BYTES : normal);
}

/* A send buffer whose size the application did not choose grows to what the connection could use (tcp_send_buffer). */
static void
grow_sndbuf(struct stack *s, const struct sock *sk)
{
    uint32_t most = RTE_MIN(s->cfg.tcp.snd_buf_max_bytes, SHM_SNDBUF_MAX);
    struct shm_back_sock *b = sock_back(sk);

    tcp_id id = __atomic_load_n(&sk->tcp, __ATOMIC_RELAXED);

    if (sock_more(s, sk)->sndbuf != 0 || b->sndbuf_bytes >= most || id == TCP_NO_ID ||
        (sk->flags & (SOCK_LISTENER | SOCK_CLOSING)))
        return;
    uint32_t want = RTE_MIN(tcp_send_buffer(s->tcp, id), most);
    if (want <= b->sndbuf_bytes)
        return;
    shm_store(&b->sndbuf_bytes, want);
    engine_set_option_later(s, id, TCP_OPT_SNDBUF, (int32_t)want);
}

#define FLUSH_ENGINE (DIRTY_ABORT | DIRTY_SQUEEZE)

/* What callbacks could not do, since the engine must not be called from them. */
static void
flush_engine(struct stack *s, struct sock *sk, uint32_t dirty)
{
    table_take(s);
    /* If it is closing, the connection is the engine's and ends by itself. */
    if ((dirty & DIRTY_ABORT) && !(sock_flags(sk) & SOCK_CLOSING))
        flush_abort(s, sk);
    if (sock_tcp(sk) != TCP_NO_ID && !(sock_flags(sk) & (SOCK_LISTENER | SOCK_CLOSING)) && (dirty & DIRTY_SQUEEZE))
        flush_squeeze(s, sk);
    table_give(s);
}

/*
 * A third of the buffer free is worth a wake-up: less would wake the sender for every acknowledgement. With TCP_NOTSENT_LOWAT, half of that
 * must have been sent too, as in Linux.
 */
static bool
has_space(const struct stack *s, const struct sock *sk)
{
    const struct shm_back_sock *b = sock_back(sk);
    uint32_t room = b->sndbuf_bytes, lowat = sock_more(s, sk)->notsent_lowat;
    uint32_t used = sk->tx_tail - sk->tx_acked;

    if (lowat != 0 && (sk->tx_tail - b->tx_sent) * 2 >= lowat)
        return false;
    return used <= room && room - used >= room / 3;
}

/* Several domains tell of one listener, and the worker's pass adds to it when no domain is entered. */
static void
bump_event_seq(const struct net *net, struct shm_back_sock *b)
{
    host_add(net->host, &b->event_seq, 1);
}

/* The word is the sum over the domains: each adds what its own part has changed by. */
static void
flush_ready(struct stack *s, struct sock *sk)
{
    uint32_t ready = tcp_accept_count(s->tcp, sock_tcp(sk));
    struct sock_more *more = sock_more_own(s, sk);
    uint32_t change = ready - more->ready;

    more->ready = ready;
    if (more->spread != NULL)
        __atomic_store_n(&more->spread->in[s->number].ready, ready, __ATOMIC_RELEASE);
    host_add(s->host, &sock_back(sk)->accept_ready, change);
}

/* The receiving side's words, and the end of the peer's stream behind the last of them. */
static uint32_t
flush_received(struct stack *s, struct sock *sk)
{
    uint32_t dirty = 0;

    sock_lock(s, sk);
    if (!(sock_flags(sk) & (SOCK_CLOSING | SOCK_SHADOW))) {
        dirty |= rx_publish(s, sk);
        if ((sock_flags(sk) & SOCK_FIN) && !(sock_state(sk) & SHM_ST_FIN)) {
            sock_status(s, sk, SHM_ST_FIN, 0);
            dirty |= DIRTY_READ;
        }
    }
    sock_unlock(s, sk);
    return dirty;
}

static uint32_t
flush_acked(struct stack *s, struct sock *sk, struct shm_back_sock *b)
{
    bool space;

    sock_lock_tx(s, sk);
    space = sk->tx_tail - b->tx_acked < b->sndbuf_bytes / 4;
    shm_store(&b->tx_acked, sk->tx_acked);
    sock_unlock_tx(s, sk);
    /* Who used less than a quarter of the buffer since the last look needs no larger one, and has space in this one. */
    if (likely(space && !__atomic_load_n(&sk->has_more, __ATOMIC_RELAXED)))
        return DIRTY_SPACE;
    grow_sndbuf(s, sk);
    sock_lock_tx(s, sk);
    space = has_space(s, sk);
    sock_unlock_tx(s, sk);
    return space ? DIRTY_SPACE : 0;
}

/* Store what changed; what it amounts to for sleepers is added to dirty. */
static uint32_t
flush_words(struct stack *s, struct sock *sk, uint32_t dirty)
{
    struct shm_back_sock *b = sock_back(sk);

    if (dirty & DIRTY_ACKED)
        dirty |= flush_acked(s, sk, b);
    if (dirty & (DIRTY_TRAIN | DIRTY_READ))
        dirty |= flush_received(s, sk);
    if (unlikely(sock_flags(sk) & SOCK_LISTENER) && (dirty & DIRTY_READ)) {
        table_take(s);
        flush_ready(s, sk);
        table_give(s);
    }
    if (dirty & (DIRTY_READ | DIRTY_WRITE | DIRTY_CMD))
        bump_event_seq(s->net, b);
    return dirty;
}

/* Returns what else has become dirty. */
static uint32_t
wake_sleepers(struct net *net, struct app *app, uint32_t slot, uint32_t dirty, uint32_t sleepers)
{
    uint32_t due = 0;

    if ((dirty & DIRTY_SPACE) && (sleepers & (SHM_SLEEP_WRITE | SHM_WANT_SPACE))) {
        bump_event_seq(net, &app->back[slot]);
        dirty |= DIRTY_WRITE;
    }
    if (dirty & DIRTY_READ)
        due |= SHM_SLEEP_READ;
    if (dirty & DIRTY_WRITE)
        due |= SHM_SLEEP_WRITE;
    if (dirty & DIRTY_CMD)
        due |= SHM_SLEEP_CMD;
    if (sleepers & due) {
        counter_inc(net->ctr, CTR_SOCK_WAKEUPS);
        futex_wake(&app->back[slot].event_seq);
    }
    return dirty;
}

static inline void
wake(struct net *net, struct app *app, uint32_t slot, uint32_t dirty)
{
    uint32_t sleepers = shm_load(&app->front[slot].sleepers);

    if (unlikely(sleepers != 0))
        dirty = wake_sleepers(net, app, slot, dirty, sleepers);
    if ((dirty & (DIRTY_READ | DIRTY_WRITE)) && __atomic_load_n(&app->slot_subs[slot], __ATOMIC_RELAXED) != 0)
        events_append(net, app, slot);
}

/* The fence stands between the stores of flush_words and the look for sleepers: Dekker's with the front-end. */
void
net_wake_all(struct net *net)
{
    unsigned n = net->nb_wakes;

    if (n > 0 && !net->alone)
        shm_fence();
    net->nb_wakes = 0;
    for (unsigned i = 0; i < n; i++)
        wake(net, net->wakes[i].app, net->wakes[i].slot, net->wakes[i].dirty);
    events_wake(net);
}

static inline void
wake_add(struct net *net, struct app *app, uint32_t slot, uint32_t dirty)
{
    /* No other thread is about to sleep: there is no fence to share with others, and it is done here and now. */
    if (net->alone) {
        wake(net, app, slot, dirty);
        return;
    }
    net->wakes[net->nb_wakes++] = (struct wake){ .app = app, .slot = slot, .dirty = dirty };
    if (net->nb_wakes == WAKE_BATCH)
        net_wake_all(net);
}

void
sock_wake_slot(struct net *net, struct app *app, uint32_t slot)
{
    bump_event_seq(net, &app->back[slot]);
    wake_add(net, app, slot, DIRTY_CMD);
}

static struct sock *
pop_dirty(struct stack *s, uint32_t *dirty)
{
    struct sock *sk;

    if (s->dirty_first == SOCK_NONE)
        return NULL;
    sk = &s->socks[s->dirty_first];
    s->dirty_first = sk->next;
    /* Of a shared domain's no other worker may put it on a list, or free it, while this one is at it. */
    if (unlikely(s->shared != NULL)) {
        *dirty = __atomic_exchange_n(&sk->dirty, DIRTY_FLUSHING, __ATOMIC_ACQ_REL) & ~DIRTY_FLUSHING;
        return sk;
    }
    *dirty = sk->dirty;
    sk->dirty = 0;
    return sk;
}

/* Its application and the engine have both done with it. */
static bool
is_over(const struct sock *sk)
{
    return (sock_flags(sk) & (SOCK_CLOSING | SOCK_ABORTED)) == SOCK_CLOSING && sock_tcp(sk) == TCP_NO_ID;
}

/* True if it was over, and nobody else is just serving its slot or has marked it. */
static bool
free_shared(struct stack *s, struct sock *sk)
{
    struct app *app = sk->app;
    uint32_t slot = sk->slot;
    bool over;

    slot_take(s, app, slot);
    table_take(s);
    over = is_over(sk) && __atomic_load_n(&sk->dirty, __ATOMIC_ACQUIRE) == DIRTY_FLUSHING;
    if (over)
        sock_free(s, sk);
    table_give(s);
    slot_give(s, app, slot);
    return over;
}

static void
flush_end(struct stack *s, struct sock *sk)
{
    uint16_t flushing = DIRTY_FLUSHING;

    if (likely(s->shared == NULL)) {
        /* Unless flush_engine put it on the list again, for which it must live on. */
        if (is_over(sk) && sk->dirty == 0)
            sock_flags(sk) & SOCK_SHADOW ? sock_shadow_free(s, sk) : sock_free(s, sk);
        return;
    }
    if (is_over(sk) && free_shared(s, sk))
        return;
    if (!__atomic_compare_exchange_n(&sk->dirty, &flushing, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        dirty_append(s, sk); /* it has been marked meanwhile */
}

void
sock_flush(struct stack *s)
{
    struct sock *sk;
    uint32_t dirty;

    while ((sk = pop_dirty(s, &dirty)) != NULL) {
        struct app *app = sk->app;
        uint32_t slot = sk->slot;

        if (dirty & FLUSH_ENGINE)
            flush_engine(s, sk, dirty);
        dirty = flush_words(s, sk, dirty);
        flush_end(s, sk);
        wake_add(s->net, app, slot, dirty);
    }
}
