/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/stamp.h"

#include <stdlib.h>

/* Requests that wait for what they are about; the application waits for room in the send buffer long before. */
#define WAITING_MAX 64u

struct stamps {
    uint32_t nb;
    struct {
        uint32_t end; /* position behind the byte */
        uint32_t kinds; /* SHM_TX_STAMP_*, those that are still due */
    } waiting[WAITING_MAX];
};

void
stamp_request(struct stack *s, struct sock *sk, uint32_t flags, uint32_t n_bytes)
{
    uint32_t end = shm_load(&sk->app->front_more[sk->slot].tx_stamp);
    struct sock_more *more;
    struct stamps *st;

    /* The flag stays until the next send: it is about these bytes only if they are new. */
    if (end - (sk->tx_tail - n_bytes) - 1 >= n_bytes)
        return;
    sock_lock_tx(s, sk);
    more = sock_more_own(s, sk);
    if (more->stamps == NULL)
        more->stamps = calloc(1, sizeof(*more->stamps));
    st = more->stamps;
    if (st == NULL || st->nb == WAITING_MAX) {
        counter_inc(s->ctr, CTR_SOCK_STAMPS_LOST);
    } else {
        st->waiting[st->nb].end = end;
        st->waiting[st->nb++].kinds = flags & SHM_TX_STAMPS;
    }
    sock_unlock_tx(s, sk);
}

static void
tell(struct stack *s, struct sock *sk, uint32_t end, uint32_t kind)
{
    struct shm_back_more *more = &sk->app->back_more[sk->slot];
    uint32_t head = shm_load(&sk->app->front_more[sk->slot].stamp_head);

    if (more->stamp_tail - head >= SHM_STAMPS) {
        counter_inc(s->ctr, CTR_SOCK_STAMPS_LOST);
        return;
    }
    more->stamp[more->stamp_tail % SHM_STAMPS] = (struct shm_stamp){ end - 1, kind, s->env.now_us };
    shm_store(&more->stamp_tail, more->stamp_tail + 1);
    sock_mark(s, sk, DIRTY_READ | DIRTY_WRITE);
}

/* Of all that wait for bytes below `pos`, tell what is due of these kinds; forget those that wait for nothing more. */
static void
tell_below(struct stack *s, struct sock *sk, uint32_t pos, uint32_t kinds)
{
    struct stamps *st = sock_more(s, sk)->stamps;
    uint32_t n = 0;

    for (uint32_t i = 0; i < st->nb; i++) {
        uint32_t end = st->waiting[i].end;

        if ((int32_t)(pos - end) >= 0) {
            for (uint32_t kind = SHM_TX_STAMP_SCHED; kind <= SHM_TX_STAMP_ACK; kind <<= 1)
                if (st->waiting[i].kinds & kinds & kind)
                    tell(s, sk, end, kind);
            st->waiting[i].kinds &= ~kinds;
        }
        if (st->waiting[i].kinds != 0)
            st->waiting[n++] = st->waiting[i];
    }
    st->nb = n;
}

void
stamp_on_sent(struct stack *s, struct sock *sk)
{
    tell_below(s, sk, sock_back(sk)->tx_sent, SHM_TX_STAMP_SCHED | SHM_TX_STAMP_SENT);
}

void
stamp_on_acked(struct stack *s, struct sock *sk)
{
    tell_below(s, sk, sk->tx_acked, SHM_TX_STAMP_ACK);
}
