/* SPDX-License-Identifier: BSD-3-Clause */
#include "sock.h"

#include <errno.h>
#include <sys/epoll.h>

#include "lock.h"
#include "stamp.h"

/* Dead stack: every socket has failed, and every call has something to say at once. */
#define GONE_STATUS (SHM_ST_OPEN | SHM_ST_CONNECTED | SHM_ST_ERROR | SHM_ST_GONE | SHM_ST_FIN)

static uint32_t
status_of(uint32_t slot)
{
    uint32_t st = load_acquire(&back_sock(slot)->status);

    return FRONT_UNLIKELY(load_relaxed(&front->dead)) ? st | GONE_STATUS : st;
}

uint32_t
sock_rx_bytes(uint32_t slot)
{
    return load_acquire(&back_sock(slot)->rx_tail) - load_relaxed(&slot_hot(front_sock(slot))->rx_pos);
}

uint32_t
sock_rx_arrived(uint32_t slot)
{
    return sock_rx_bytes(slot) + load_acquire(&back_sock(slot)->rx_held);
}

uint32_t
sock_tx_space(uint32_t slot)
{
    const struct shm_back_sock *b = back_sock(slot);
    uint32_t limit = load_relaxed(&b->sndbuf_bytes);
    uint32_t used = load_relaxed(&front_sock(slot)->tx_tail) - load_acquire(&b->tx_acked);

    if (limit > SHM_SNDBUF_MAX)
        limit = SHM_SNDBUF_MAX;
    return used < limit ? limit - used : 0;
}

/* TCP_NOTSENT_LOWAT: a writer that has so much unsent has no space, whatever the buffer holds; else one piece may exceed the mark, as in Linux. */
#define NOTSENT_PIECE_BYTES 65536u

static uint32_t
unsent_bytes(uint32_t slot)
{
    return load_relaxed(&front_sock(slot)->tx_tail) - load_acquire(&back_sock(slot)->tx_sent);
}

uint32_t
sock_tx_room(uint32_t slot)
{
    uint32_t mark = slot_opts(slot)->notsent_lowat, space = sock_tx_space(slot);

    if (FRONT_LIKELY(mark == 0))
        return space;
    if (unsent_bytes(slot) >= mark)
        return 0;
    return space < NOTSENT_PIECE_BYTES ? space : NOTSENT_PIECE_BYTES;
}

/* Trains are few: when all of them wait, no more bytes are shown (shm.h), so the mark must be forgotten. */
static bool
trains_are_full(uint32_t slot)
{
    uint16_t taken = __atomic_load_n(&slot_hot(front_sock(slot))->train, __ATOMIC_RELAXED);

    return (uint16_t)(load_relaxed(&back_sock(slot)->train_tail) - taken) >= SHM_TRAINS;
}

static bool
has_enough(uint32_t slot, uint32_t n_bytes)
{
    uint32_t mark = slot_opts(slot)->rcvlowat;

    return n_bytes != 0 && (FRONT_LIKELY(mark <= 1) || n_bytes >= mark || trains_are_full(slot));
}

bool
sock_can_read(uint32_t slot)
{
    uint32_t st = status_of(slot);

    if (st & (SHM_ST_FIN | SHM_ST_ERROR | SHM_ST_GONE))
        return true;
    if (slot_hot(front_sock(slot))->flags & SLOT_SHUT_RD)
        return true;
    if (st & SHM_ST_LISTEN)
        return load_relaxed(&back_sock(slot)->accept_ready) != 0;
    return sock_rx_bytes(slot) != 0;
}

bool
sock_can_write(uint32_t slot)
{
    uint32_t st = status_of(slot);

    if ((st & (SHM_ST_ERROR | SHM_ST_GONE)) || (slot_hot(front_sock(slot))->flags & SLOT_SHUT_WR))
        return true;
    if (!(st & SHM_ST_CONNECTED))
        return !(st & SHM_ST_CONNECTING);
    /* As Linux: writable means that a third is free, so that writers wake up for a worthwhile piece. */
    if (slot_opts(slot)->notsent_lowat != 0 && unsent_bytes(slot) * 2 >= slot_opts(slot)->notsent_lowat)
        return false;
    return sock_tx_space(slot) * 3 >= load_relaxed(&back_sock(slot)->sndbuf_bytes);
}

static bool
error_is_pending(uint32_t slot, uint32_t st)
{
    return (st & SHM_ST_ERROR) && !(load_relaxed(&slot_hot(front_sock(slot))->flags) & SLOT_ERROR_TAKEN);
}

/* Completions or timestamps wait in the error queue. */
static bool
error_queue_has_some(uint32_t slot)
{
    const struct slot_opts *o = slot_opts(slot);

    return FRONT_UNLIKELY(o != &slot_opts_none) &&
           (load_relaxed(&o->zerocopy_sends) != load_relaxed(&o->zerocopy_told) || stamp_is_untold(slot));
}

bool
sock_has_error(uint32_t slot)
{
    return error_is_pending(slot, status_of(slot));
}

/* A connection that is being made, was never made or has ended in part, or a listener. */
static uint32_t
unusual_events(uint32_t slot, uint32_t st, uint32_t flags)
{
    bool read_over = (st & (SHM_ST_FIN | SHM_ST_ERROR)) || (flags & SLOT_SHUT_RD);
    bool write_over = (st & (SHM_ST_GONE | SHM_ST_ERROR)) || (flags & SLOT_SHUT_WR);
    uint32_t ev = 0;

    if ((flags & SLOT_LISTENER) && (flags & SLOT_SHUT_RD))
        return EPOLLOUT | EPOLLWRNORM | EPOLLHUP; /* as in Linux it is like new */
    if ((flags & SLOT_LISTENER) && !(st & SHM_ST_ERROR))
        return load_relaxed(&back_sock(slot)->accept_ready) != 0 ? EPOLLIN | EPOLLRDNORM : 0;
    if ((flags & SLOT_DEFERRED) && !(st & (SHM_ST_CONNECTED | SHM_ST_ERROR)))
        return EPOLLOUT | EPOLLWRNORM; /* the write that connects */
    if ((flags & SLOT_CONNECT_FAILED) || !(st & (SHM_ST_CONNECTED | SHM_ST_CONNECTING | SHM_ST_ERROR)))
        return EPOLLOUT | EPOLLWRNORM | EPOLLHUP | (flags & SLOT_SHUT_RD ? EPOLLIN | EPOLLRDNORM | EPOLLRDHUP : 0);
    if ((st & SHM_ST_CONNECTING) && !(st & (SHM_ST_CONNECTED | SHM_ST_ERROR)))
        return 0;
    if (read_over)
        ev |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
    else if (has_enough(slot, sock_rx_bytes(slot)))
        ev |= EPOLLIN | EPOLLRDNORM;
    if (sock_can_write(slot))
        ev |= EPOLLOUT | EPOLLWRNORM;
    if (read_over && write_over)
        ev |= EPOLLHUP;
    if (error_is_pending(slot, st))
        ev |= EPOLLERR;
    return ev;
}

/* Apart, so that the usual look need not save registers for it. */
static __attribute__((noinline)) uint32_t
all_events(uint32_t slot, uint32_t flags, uint32_t wanted)
{
    return (unusual_events(slot, status_of(slot), flags) | (error_queue_has_some(slot) ? EPOLLERR : 0)) & wanted;
}

uint32_t
sock_events(uint32_t slot, uint32_t wanted)
{
    const uint32_t connected = SHM_ST_CONNECTED, state = connected | SHM_ST_FIN | SHM_ST_ERROR | SHM_ST_GONE;
    const uint32_t unusual = SLOT_LISTENER | SLOT_CONNECT_FAILED | SLOT_SHUT_RD | SLOT_SHUT_WR | SLOT_OPTS;
    const struct shm_back_sock *b = back_sock(slot);
    const struct slot_hot *h = slot_hot(front_sock(slot));
    uint32_t st = load_acquire(&b->status), flags = load_relaxed(&h->flags);

    /* Of an open connection without options, to one who does not ask whether it can be written to. */
    if (FRONT_LIKELY((((st ^ connected) & state) | (flags & unusual) | (wanted & (EPOLLOUT | EPOLLWRNORM)) |
                      load_relaxed(&front->dead)) == 0))
        return load_acquire(&b->rx_tail) != load_relaxed(&h->rx_pos) ? wanted & (EPOLLIN | EPOLLRDNORM) : 0;
    return all_events(slot, flags, wanted);
}

int
sock_take_error(uint32_t slot)
{
    uint32_t *flags = &slot_hot(front_sock(slot))->flags;
    int err;

    if (!error_is_pending(slot, status_of(slot)))
        return 0;
    if (__atomic_fetch_or(flags, SLOT_ERROR_TAKEN, __ATOMIC_ACQ_REL) & SLOT_ERROR_TAKEN)
        return 0;
    if (load_relaxed(&front->dead) && !(load_acquire(&back_sock(slot)->status) & SHM_ST_ERROR))
        return load_acquire(&back_sock(slot)->status) & SHM_ST_CONNECTED ? -ECONNRESET : -ENETDOWN;
    err = __atomic_load_n(&back_sock(slot)->error, __ATOMIC_RELAXED);
    return err > 0 && err < 4096 ? -err : -EIO;
}

void
sock_want_space(uint32_t slot)
{
    __atomic_or_fetch(&front_sock(slot)->sleepers, SHM_WANT_SPACE, __ATOMIC_SEQ_CST);
    full_fence();
}

uint64_t
sock_deadline(uint32_t slot, bool write, int msg_flags)
{
    struct shm_front_sock *f = front_sock(slot);
    const struct slot_opts *opts = slot_opts(slot);
    uint32_t us = write ? opts->sndtimeo_us_lo : opts->rcvtimeo_us_lo;

    if ((msg_flags & MSG_DONTWAIT) || (load_relaxed(&slot_hot(f)->flags) & SLOT_NONBLOCK))
        return 0;
    return us == 0 ? WAIT_FOREVER : wait_now_us() + us;
}
