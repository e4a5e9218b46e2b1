/* SPDX-License-Identifier: BSD-3-Clause */
#include "sock.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <time.h>

#include <linux/errqueue.h> /* wants struct timespec */

#include "lock.h"
#include "stamp.h"

/* Tell the stack at once when this much was taken: a quarter of the smallest receive buffer that makes sense. */
#define NOTICE_BYTES 32768u
#define NOTICE_TRAINS (SHM_TRAINS / 2)

/*
 * A server reads a request and then writes the answer: the notification about the bytes it took can travel with that about the answer. So a small one
 * is held back, one for each thread, until this thread sends on that socket (it is carried), or is about to
 * wait, finds nothing more to read or reads from another socket (it is flushed). Where the calling thread runs the stack, a notification waits for its next pass anyway.
 */
static __thread struct {
    uint32_t slot;
    bool held;
} notice;

void
recv_notice_carried(uint32_t slot)
{
    struct shm_front_sock *f = front_sock(slot);
    struct slot_hot *h = slot_hot(f);

    h->rx_told = f->rx_head;
    h->trains_told = h->train;
    if (notice.slot == slot)
        notice.held = false;
}

/* Apart: most waits have none. */
static __attribute__((noinline)) void
flush_held(void)
{
    uint32_t slot = notice.slot;
    struct shm_front_sock *f = front_sock(slot);

    notice.held = false;
    /* In a handler that interrupted the holder: the holder's own call has a notice of its own to decide on. */
    if (!lock_acquire_own(&slot_hot(f)->lock))
        return;
    if (f->rx_head != slot_hot(f)->rx_told) {
        recv_notice_carried(slot);
        notify_stack(slot);
    }
    lock_release_own(&slot_hot(f)->lock);
}

void
recv_flush_notice(void)
{
    if (FRONT_UNLIKELY(notice.held))
        flush_held();
}

/* The caller holds the lock and has just moved rx_head. */
static void
tell_taken(uint32_t slot)
{
    struct shm_front_sock *f = front_sock(slot);
    struct slot_hot *h = slot_hot(f);

    if (front->local != NULL) {
        notify_stack(slot);
    } else if (f->rx_head - h->rx_told >= NOTICE_BYTES || (uint16_t)(h->train - h->trains_told) >= NOTICE_TRAINS) {
        recv_notice_carried(slot);
        notify_stack(slot);
    } else if (f->rx_head != h->rx_told) {
        notice.slot = slot;
        notice.held = true;
    }
}

/* ---- copying out -------------------------------------------------------------------------------------------------------- */

struct cursor {
    uint32_t pos, segment;
    uint16_t off, train;
    uint32_t at_us; /* when the last bytes arrived */
    bool segment_done;
};

static const struct shm_segment *
segment_at(uint32_t unit)
{
    const struct shm_segment *s;

    if ((uint64_t)unit * 64 + sizeof(*s) > front->lay.pool_bytes)
        return NULL;
    s = (const struct shm_segment *)(const void *)(front->pool + (uint64_t)unit * 64);
    return (uint64_t)unit * 64 + s->data_off + s->n_bytes <= front->lay.pool_bytes ? s : NULL;
}

/* The next bytes that lie together, at most n: where, and the cursor behind them. Returns bytes, or -EIO if the stack's lists make no sense. */
static inline ssize_t
next_piece(struct cursor *c, const struct shm_back_sock *b, size_t n, const char **at)
{
    const struct shm_segment *s;
    size_t part;

    if (c->segment == 0)
        c->segment = b->trains[c->train % SHM_TRAINS].first;
    s = segment_at(c->segment);
    if (s == NULL || c->off > s->n_bytes)
        return -EIO;
    part = s->n_bytes - c->off;
    part = part > n ? n : part;
    *at = (const char *)s + s->data_off + c->off;
    c->at_us = s->at_us;
    c->off = (uint16_t)(c->off + part);
    c->pos += (uint32_t)part;
    if (c->off == s->n_bytes) {
        c->segment = s->next; /* read before rx_head gives the segment back */
        c->off = 0;
        c->segment_done = true;
        if (c->segment == 0)
            c->train++;
    }
    return (ssize_t)part;
}

/* Where in the user's memory the next byte goes; or where it is told where the bytes lie. */
struct target {
    const struct iovec *iov;
    size_t left, iov_off;
    uint32_t at_us; /* when the last bytes that were taken arrived */
    struct iovec *pieces; /* NULL: copy */
    int nb_pieces, max_pieces;
};

static ssize_t
show_pieces(struct cursor *c, const struct shm_back_sock *b, struct target *t, size_t avail)
{
    size_t done = 0;

    for (t->nb_pieces = 0; done < avail && t->nb_pieces < t->max_pieces; t->nb_pieces++) {
        const char *at;
        ssize_t part = next_piece(c, b, avail - done, &at);

        if (part < 0)
            return part;
        t->pieces[t->nb_pieces] = (struct iovec){ (void *)(uintptr_t)at, (size_t)part };
        done += (size_t)part;
    }
    return (ssize_t)done;
}

static ssize_t
copy_to_iov(struct cursor *c, const struct shm_back_sock *b, struct target *t, size_t avail, bool drop)
{
    size_t done = 0, n = avail < t->left ? avail : t->left;

    while (done < n) {
        size_t room = t->iov->iov_len - t->iov_off;
        const char *at;
        ssize_t part = next_piece(c, b, room > n - done ? n - done : room, &at);

        if (part < 0)
            return part;
        if (!drop)
            memcpy((char *)t->iov->iov_base + t->iov_off, at, (size_t)part);
        done += (size_t)part;
        t->iov_off += (size_t)part;
        if (t->iov_off == t->iov->iov_len) {
            t->iov++;
            t->iov_off = 0;
        }
    }
    t->left -= done;
    return (ssize_t)done;
}

static inline struct cursor
cursor_of(const struct slot_hot *h)
{
    return (struct cursor){ h->rx_pos, h->rx_segment, h->rx_off, h->train, 0, false };
}

static inline void
cursor_keep(struct slot_hot *h, const struct cursor *c)
{
    store_relaxed(&h->rx_pos, c->pos); /* looked at without the lock, too */
    h->rx_segment = c->segment;
    h->rx_off = c->off;
    h->train = c->train;
}

/* What is before the cursor has been copied, of the bytes up to rx_tail. Whether the stack is to be told. */
static inline bool
taken_to(uint32_t slot, struct shm_front_sock *f, const struct cursor *c, uint32_t rx_tail)
{
    /* A small block stays for the next answer; a sweep takes it where they are short, and before a sleep in which others run the stack. */
    if (FRONT_UNLIKELY(f->tx_chunk != 0 || slot_hot(f)->tx_low != 0))
        slot_free_acked(slot);
    if (!c->segment_done && c->pos != rx_tail)
        return false;
    store_release(&f->rx_head, c->pos);
    return true;
}

/* Take what is there. The caller holds the lock. */
static ssize_t
take(uint32_t slot, struct target *t, int flags)
{
    struct shm_front_sock *f = front_sock(slot);
    const struct shm_back_sock *b = back_sock(slot);
    struct cursor c = cursor_of(slot_hot(f));
    uint32_t rx_tail = load_acquire(&b->rx_tail), avail = rx_tail - c.pos;
    ssize_t n;

    if (avail == 0 || t->left == 0)
        return 0;
    if (FRONT_UNLIKELY(t->pieces != NULL))
        return show_pieces(&c, b, t, avail);
    n = copy_to_iov(&c, b, t, avail, (flags & MSG_TRUNC) != 0);
    t->at_us = c.at_us;
    if (n <= 0 || (flags & MSG_PEEK))
        return n;
    cursor_keep(slot_hot(f), &c);
    if (taken_to(slot, f, &c, rx_tail))
        tell_taken(slot);
    return n;
}

static bool
is_held(uint32_t slot)
{
    return load_acquire(&back_sock(slot)->rx_held) != 0;
}

/* From several buffers. */
static __attribute__((noinline)) ssize_t
take_flat(uint32_t slot, void *buf, size_t n)
{
    struct iovec iov = { buf, n };
    struct target t = { .iov = &iov, .left = n };

    return take(slot, &t, 0);
}

/* Most often what is there lies together. */
static inline ssize_t
take_inside(uint32_t slot, struct shm_front_sock *f, const struct shm_back_sock *b, void *buf, size_t n)
{
    struct cursor c = cursor_of(slot_hot(f));
    uint32_t rx_tail = load_acquire(&b->rx_tail), avail = rx_tail - c.pos;
    size_t all = avail < n ? avail : n;
    const char *at;

    if (all == 0)
        return 0;
    if (next_piece(&c, b, all, &at) != (ssize_t)all)
        return take_flat(slot, buf, n);
    cursor_keep(slot_hot(f), &c);
    memcpy(buf, at, all);
    if (taken_to(slot, f, &c, rx_tail))
        notify_inside(slot, f, b);
    return (ssize_t)all;
}

/* As why_empty, which says more. */
static inline bool
is_at_end(const struct shm_back_sock *b, const struct slot_hot *h)
{
    return (load_acquire(&b->status) & SHM_ST_FIN) && !load_relaxed(&front->dead) && load_acquire(&b->rx_held) == 0 &&
           load_acquire(&b->rx_tail) == load_relaxed(&h->rx_pos);
}

ssize_t
sock_recv_at_once(uint32_t slot, void *buf, size_t n, int flags)
{
    struct shm_front_sock *f = front_sock(slot);
    const struct shm_back_sock *b = back_sock(slot);
    struct slot_hot *h = slot_hot(f);
    uint32_t unusual = (load_relaxed(&h->flags) & SLOT_OPTS) | load_relaxed(&h->lock) | load_acquire(&b->rx_held) |
                       ((uint32_t)flags & ~(uint32_t)(MSG_DONTWAIT | MSG_NOSIGNAL));
    ssize_t got;

    if (FRONT_UNLIKELY(unusual != 0 || buf == NULL))
        return -1;
    lock_take_inside(&h->lock);
    got = take_inside(slot, f, b, buf, n);
    lock_release_inside(&h->lock);
    return FRONT_LIKELY(got > 0) || is_at_end(b, h) ? got : -1;
}

/* In this order: bytes that are shown leave rx_held after they have come to rx_tail. */
static bool
is_drained(uint32_t slot)
{
    return load_acquire(&back_sock(slot)->rx_held) == 0 && sock_rx_bytes(slot) == 0;
}

/* Nothing is there: why? 0 = the end of the stream, -EAGAIN = it may come, or another -errno. */
static int
why_empty(uint32_t slot)
{
    uint32_t st = load_acquire(&back_sock(slot)->status);
    uint32_t flags = load_relaxed(&slot_hot(front_sock(slot))->flags);
    int err;

    /* An error behind the peer's end of the stream is the next send's, as in Linux. */
    if ((st & SHM_ST_FIN) && !load_relaxed(&front->dead))
        return is_drained(slot) ? 0 : -EAGAIN;
    err = sock_take_error(slot);
    if (err != 0)
        return err;
    if (flags & SLOT_LISTENER)
        return -ENOTCONN;
    if ((st & (SHM_ST_CONNECTED | SHM_ST_ERROR)) == SHM_ST_ERROR)
        return -ENOTCONN; /* it was never made */
    if (load_relaxed(&front->dead) || (st & (SHM_ST_FIN | SHM_ST_ERROR | SHM_ST_GONE)) || (flags & SLOT_SHUT_RD))
        return is_drained(slot) || load_relaxed(&front->dead) ? 0 : -EAGAIN; /* bytes came after we looked */
    return (st & (SHM_ST_CONNECTED | SHM_ST_CONNECTING)) || (flags & SLOT_DEFERRED) ? -EAGAIN : -ENOTCONN;
}

/* A call that may wait does so for this many bytes: all of them, or SO_RCVLOWAT. */
static size_t
wanted_bytes(uint32_t slot, size_t asked, int flags)
{
    size_t mark = slot_opts(slot)->rcvlowat;

    if (flags & MSG_PEEK)
        return 1;
    if (flags & MSG_WAITALL || mark > asked)
        return asked;
    return mark > 1 ? mark : 1;
}

/* More has arrived than there were trains for: it follows as soon as the stack hears of what was taken. */
static bool
held_is_shown(uint32_t slot)
{
    const struct shm_back_sock *b = back_sock(slot);

    return load_acquire(&b->rx_held) == 0 || sock_rx_bytes(slot) != 0 || load_relaxed(&front->dead) ||
           (load_relaxed(&b->status) & SHM_ST_GONE);
}

static bool
wait_for_held(uint32_t slot, const struct target *t, int flags)
{
    if (t->left == 0 || (flags & MSG_PEEK))
        return false;
    recv_flush_notice();
    return wait_sock(slot, WAIT_READ, held_is_shown, WAIT_FOREVER) == 0 && sock_rx_bytes(slot) != 0;
}

static ssize_t
recv_loop(uint32_t slot, struct target *t, int flags)
{
    struct slot_hot *h = slot_hot(front_sock(slot));
    uint64_t deadline_us = 0;
    bool have_deadline = false, tried = false, held;
    ssize_t got = 0, n, enough = (ssize_t)wanted_bytes(slot, t->left, flags);

    if (notice.slot != slot)
        recv_flush_notice();
    for (;;) {
        /* Before and after: what is shown while we take had arrived before this call, too. */
        held = is_held(slot);
        n = 0;
        if (sock_rx_bytes(slot) != 0) {
            if (!lock_acquire_own(&h->lock))
                return got > 0 ? got : -EAGAIN;
            n = take(slot, t, flags);
            lock_release_own(&h->lock);
        }
        if (n < 0)
            return got > 0 ? got : n;
        got += n;
        if ((FRONT_UNLIKELY(held) || is_held(slot)) && wait_for_held(slot, t, flags))
            continue;
        if (got >= enough)
            return got;
        if (got > 0 && sock_has_error(slot))
            return got; /* the error is for the next call */
        n = why_empty(slot);
        if (n == -EAGAIN && sock_rx_bytes(slot) != 0)
            continue;
        if (n != -EAGAIN)
            return got > 0 ? got : n;
        if (!have_deadline) {
            deadline_us = sock_deadline(slot, false, flags);
            have_deadline = true;
        }
        recv_flush_notice();
        if (deadline_us == 0 && front->local != NULL && !tried) {
            front->local->tried();
            tried = true;
            continue;
        }
        n = deadline_us == 0 ? -EAGAIN : wait_sock(slot, WAIT_READ, sock_can_read, deadline_us);
        if (n < 0 && n != -ENETDOWN)
            return got > 0 ? got : n;
    }
}

/* One message for all that are untold: sends are numbered from 0 (Linux: Documentation/networking/msg_zerocopy). */
static int
take_zerocopy(uint32_t slot, struct msghdr *msg)
{
    struct slot_opts *o = slot_opts(slot) != &slot_opts_none ? opts_own(slot) : NULL;
    uint32_t told = o != NULL ? load_acquire(&o->zerocopy_told) : 0, sends;
    struct sock_extended_err e = { .ee_origin = SO_EE_ORIGIN_ZEROCOPY, .ee_code = SO_EE_CODE_ZEROCOPY_COPIED };
    size_t room;

    if (o == NULL)
        return -EAGAIN;
    do {
        sends = load_acquire(&o->zerocopy_sends);
        if (sends == told)
            return -EAGAIN;
    } while (!__atomic_compare_exchange_n(&o->zerocopy_told, &told, sends, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    if (msg == NULL)
        return 0;
    e.ee_info = told;
    e.ee_data = sends - 1;
    room = msg->msg_controllen;
    msg->msg_controllen = 0;
    msg->msg_flags = MSG_ERRQUEUE;
    if (load_relaxed(&slot_hot(front_sock(slot))->flags) & SLOT_V6)
        cmsg_append(msg, room, SOL_IPV6, IPV6_RECVERR, &e, sizeof(e));
    else
        cmsg_append(msg, room, SOL_IP, IP_RECVERR, &e, sizeof(e));
    return 0;
}

int
sock_recv_errqueue(uint32_t slot, struct msghdr *msg)
{
    int rc = take_zerocopy(slot, msg);

    return rc == 0 ? 0 : stamp_take(slot, msg);
}

static ssize_t
recv_iov(struct obj *o, const struct iovec *iov, size_t iovcnt, int flags, uint32_t *at_us)
{
    struct target t = { .iov = iov };
    ssize_t n;
    size_t i;

    if (flags & MSG_OOB)
        return -EINVAL; /* as Linux where no urgent byte is pending; the stack takes urgent data in line (RFC 6093) */
    if (flags & MSG_ERRQUEUE)
        return sock_recv_errqueue(o->slot, NULL);
    for (i = 0; i < iovcnt; i++)
        t.left += iov[i].iov_len;
    if (t.left == 0)
        return 0;
    n = recv_loop(o->slot, &t, flags);
    *at_us = t.at_us;
    return n;
}

ssize_t
sock_recvv(struct obj *o, const struct iovec *iov, size_t iovcnt, int flags)
{
    uint32_t at_us;

    return recv_iov(o, iov, iovcnt, flags, &at_us);
}

ssize_t
sock_recvmsg(struct obj *o, struct msghdr *msg, int flags)
{
    uint32_t at_us = 0;
    size_t room = msg->msg_controllen;
    ssize_t n = recv_iov(o, msg->msg_iov, msg->msg_iovlen, flags, &at_us);

    if (n < 0)
        return n;
    msg->msg_namelen = 0;
    msg->msg_controllen = 0;
    msg->msg_flags = 0;
    if (n > 0 && stamp_arrivals(o->slot))
        stamp_put_arrival(o->slot, msg, room, at_us);
    return n;
}

/* As a peek that shows instead of copying. */
ssize_t
sock_borrow(struct obj *o, struct iovec *iov, int *iovcnt, int flags)
{
    struct target t = { .left = SIZE_MAX, .pieces = iov, .max_pieces = *iovcnt };
    ssize_t n;

    if (*iovcnt <= 0 || iov == NULL || (flags & ~MSG_DONTWAIT))
        return -EINVAL;
    n = recv_loop(o->slot, &t, flags | MSG_PEEK);
    *iovcnt = t.nb_pieces;
    return n;
}

int
sock_return(struct obj *o, size_t n)
{
    struct slot_hot *h = slot_hot(front_sock(o->slot));
    const struct iovec nowhere = { NULL, n };
    struct target t = { .iov = &nowhere, .left = n };
    ssize_t taken;

    if (!lock_acquire_own(&h->lock))
        return -EAGAIN;
    taken = n <= load_acquire(&back_sock(o->slot)->rx_tail) - h->rx_pos ? take(o->slot, &t, MSG_TRUNC) : -EINVAL;
    lock_release_own(&h->lock);
    return taken < 0 ? (int)taken : 0;
}
