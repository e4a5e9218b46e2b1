/* SPDX-License-Identifier: BSD-3-Clause */
#include "sock.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "lock.h"

#define SEND_WOULD_BLOCK 0
#define CHUNK_RETRIES 20u /* of a millisecond each, when the family has no chunk left */

static ssize_t
fill_from_iov(struct tx_source *s, char *dst, size_t n)
{
    size_t done = 0;

    while (done < n) {
        size_t part = s->iov->iov_len - s->iov_off;

        if (part > n - done)
            part = n - done;
        memcpy(dst + done, (const char *)s->iov->iov_base + s->iov_off, part);
        done += part;
        s->iov_off += part;
        if (s->iov_off == s->iov->iov_len) {
            s->iov++;
            s->iov_off = 0;
        }
    }
    return (ssize_t)done;
}

/* Why nothing can be sent; SEND_WOULD_BLOCK while the connection is being made; 1 = go on. */
static int
check_sendable(uint32_t slot)
{
    uint32_t st = load_acquire(&back_sock(slot)->status);
    int err = sock_take_error(slot);

    if (err != 0)
        return err;
    if (load_relaxed(&front.dead) || (st & (SHM_ST_ERROR | SHM_ST_GONE)) ||
        (load_relaxed(&slot_hot(front_sock(slot))->flags) & SLOT_SHUT_WR))
        return -EPIPE;
    if (st & SHM_ST_CONNECTED)
        return 1;
    return st & SHM_ST_CONNECTING ? SEND_WOULD_BLOCK : -EPIPE;
}

/* Append one piece, at most up to the end of a chunk. The caller holds the lock. */
static ssize_t
append_piece(uint32_t slot, struct tx_source *src, uint32_t space)
{
    struct shm_front_sock *f = front_sock(slot);
    uint32_t tail = f->tx_tail, off = tail % SHM_CHUNK_BYTES;
    uint32_t *chunk = &f->tx_chunk[tail / SHM_CHUNK_BYTES % SHM_TX_CHUNKS];
    size_t n = SHM_CHUNK_BYTES - off;
    ssize_t got;

    n = n > space ? space : n;
    n = n > src->left ? src->left : n;
    /* The space grows while we append, perhaps by a whole round: what stood in this place must be given back before it is used again. */
    if (off == 0)
        slot_free_acked(f, back_sock(slot));
    if (*chunk == SHM_NO_CHUNK) {
        uint32_t c = chunk_alloc();

        if (c == SHM_NO_CHUNK)
            return -ENOBUFS;
        store_relaxed(chunk, c);
    }
    got = src->fill(src, chunk_at(*chunk) + off, n);
    if (got <= 0)
        return got;
    src->left -= (size_t)got;
    store_release(&f->tx_tail, tail + (uint32_t)got);
    recv_notice_carried(slot);
    notify_stack(slot);
    return got;
}

/* Append what there is room for. Returns bytes, SEND_WOULD_BLOCK, or -errno; *end: the source has no more. */
static ssize_t
append(uint32_t slot, struct tx_source *src, int flags, bool *end)
{
    struct shm_front_sock *f = front_sock(slot);
    ssize_t done = 0, n = check_sendable(slot);
    uint32_t space;

    if (n <= 0)
        return n;
    slot_free_acked(f, back_sock(slot));
    store_relaxed(&f->tx_flags, flags & MSG_MORE ? SHM_TX_MORE : 0);
    while (src->left > 0 && (space = sock_tx_room(slot)) > 0) {
        n = append_piece(slot, src, space);
        if (n == 0)
            *end = true;
        if (n <= 0)
            break;
        done += n;
        if (load_relaxed(&f->sleepers) & SHM_WANT_SPACE)
            __atomic_and_fetch(&f->sleepers, ~SHM_WANT_SPACE, __ATOMIC_RELAXED);
        if (!front.page->aggregate)
            break; /* the stack is to see each piece by itself */
    }
    return done > 0 ? done : (n < 0 ? n : SEND_WOULD_BLOCK);
}

/* Iso-Basic: wait until the stack has taken the last piece. It does so within its poll; nothing wakes us, so no sleep. */
static void
wait_until_serviced(uint32_t slot)
{
    unsigned i;

    for (i = 1;
         front_local == NULL && load_acquire(&back_sock(slot)->serviced) != load_relaxed(&front_sock(slot)->notified);
         i++) {
        sched_yield();
        if (load_relaxed(&front.dead) || (i % 65536 == 0 && !front_check_alive()))
            return;
    }
}

/* The buffer is full (or the connection not made yet): sleep, or arrange for an event. 0 = try again. */
static int
wait_for_space(uint32_t slot, int flags, uint64_t *deadline_us, bool *have_deadline)
{
    if (!*have_deadline) {
        *deadline_us = sock_deadline(slot, true, flags);
        *have_deadline = true;
    }
    recv_flush_notice();
    if (*deadline_us == 0) {
        sock_want_space(slot);
        if (front_local != NULL)
            front_local->tried();
        return sock_can_write(slot) && sock_tx_room(slot) > 0 ? 0 : -EAGAIN;
    }
    return wait_sock(slot, WAIT_WRITE, sock_can_write, *deadline_us);
}

ssize_t
sock_send_from(struct obj *o, struct tx_source *src, int flags)
{
    const struct timespec ms = { 0, 1000000 };
    uint32_t slot = o->slot;
    uint64_t deadline_us = 0;
    bool have_deadline = false, end = false;
    unsigned starved = 0;
    ssize_t sent = 0, n;

    do {
        if (!front.page->aggregate)
            wait_until_serviced(slot);
        if (!lock_acquire(&slot_hot(front_sock(slot))->lock))
            return sent > 0 ? sent : -EAGAIN;
        n = append(slot, src, flags, &end);
        lock_release(&slot_hot(front_sock(slot))->lock);
        if (n > 0) {
            sent += n;
            continue;
        }
        if (end)
            break;
        if (n == -ENOBUFS && starved++ < CHUNK_RETRIES) {
            if (front_local != NULL)
                front_local->pass();
            nanosleep(&ms, NULL);
            continue;
        }
        if (n == -ENOBUFS && sock_deadline(slot, true, flags) == 0)
            n = -EAGAIN;
        if (n == SEND_WOULD_BLOCK)
            n = wait_for_space(slot, flags, &deadline_us, &have_deadline);
        if (n < 0)
            return sent > 0 ? sent : n;
    } while (src->left > 0);
    return sent;
}

ssize_t
sock_sendv(struct obj *o, const struct iovec *iov, size_t iovcnt, int flags)
{
    struct tx_source src = { .fill = fill_from_iov, .iov = iov };
    size_t i;
    int rc;

    if (flags & MSG_OOB)
        return -EOPNOTSUPP;
    for (i = 0; i < iovcnt; i++)
        src.left += iov[i].iov_len;
    if (src.left == 0) {
        rc = check_sendable(o->slot);
        return rc < 0 ? rc : 0;
    }
    return sock_send_from(o, &src, flags);
}
