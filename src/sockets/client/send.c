/* SPDX-License-Identifier: BSD-3-Clause */
#include "sock.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "lock.h"
#include "stamp.h"

#define SEND_WOULD_BLOCK 0
#define SEND_CONNECTS (-EDESTADDRREQ) /* the connection has been put off until now: see sock_connect_deferred */
#define SYN_BYTES_MAX 9216u /* more than the largest frame holds */
#define MARK_PARTIAL (1u << 31) /* of append's marks: a call that does not wait may end before the source does */
#define CHUNK_RETRIES 20u /* of a millisecond each, when the family has no chunk left */

ssize_t
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

/* Why nothing can be sent; SEND_WOULD_BLOCK while the connection is being made; SEND_CONNECTS before; 1 = go on. */
static int
check_sendable(uint32_t slot)
{
    uint32_t st = load_acquire(&back_sock(slot)->status);
    uint32_t flags = load_relaxed(&slot_hot(front_sock(slot))->flags);
    int err = sock_take_error(slot);

    if (err != 0)
        return err;
    if (load_relaxed(&front->dead) || (st & (SHM_ST_ERROR | SHM_ST_GONE)) || (flags & SLOT_SHUT_WR))
        return -EPIPE;
    if (flags & SLOT_RESERVED)
        return -EBUSY;
    if (flags & SLOT_STAGED)
        return -EALREADY; /* as Linux says while another call's bytes open the connection */
    if (st & SHM_ST_CONNECTED)
        return 1;
    if (flags & SLOT_DEFERRED)
        return SEND_CONNECTS;
    return st & SHM_ST_CONNECTING ? SEND_WOULD_BLOCK : -EPIPE;
}

static __attribute__((noinline)) bool
take_small(struct shm_front_sock *f)
{
    uint32_t small = small_alloc();

    if (small == UINT32_MAX)
        return false;
    store_relaxed16(&f->tx_small, small + 1);
    return true;
}

/*
 * Nothing is outstanding: the next bytes, n of them, need not lie behind the last. Few go into a small block; who has a chunk, or sends more, goes to the beginning of that.
 * Returns their distance.
 */
static inline uint32_t
begin_anew(uint32_t slot, struct shm_front_sock *f, size_t n)
{
    uint32_t tail = f->tx_tail, distance = 0;

    if (FRONT_UNLIKELY(tail - f->tx_base >= SHM_CHUNK_BYTES))
        slot_free_acked(slot); /* at 64 KiB a second chunk may be named with no byte in it yet */
    if (n > SHM_SMALL_BYTES || f->tx_chunk != 0 || (f->tx_small == 0 && !take_small(f)))
        distance = SHM_SMALL_BYTES;
    store_relaxed(&f->tx_base, tail - distance);
    return distance;
}

/* Bytes behind tx_acked. */
static inline uint32_t
outstanding(const struct shm_front_sock *f, const struct shm_back_sock *b)
{
    return load_relaxed(&f->tx_tail) - load_acquire(&b->tx_acked);
}

/* A chunk for this place in the stream; 0: there is none. */
static __attribute__((noinline)) uint32_t
chunk_for(uint16_t *place)
{
    uint32_t c = chunk_alloc();

    if (c == SHM_NO_CHUNK)
        return 0;
    store_relaxed16(place, c + 1);
    return c + 1;
}

/*
 * Where the stream's next bytes go, of *n of them so many as lie together. NULL: there is no memory for them. used: how many are outstanding. The caller holds the lock.
 */
static inline char *
tail_at(uint32_t slot, struct shm_front_sock *f, const struct shm_back_sock *b, uint32_t used, size_t *n)
{
    uint32_t distance = f->tx_tail - f->tx_base, off, chunk;
    uint16_t *place;

    /* The space grows while we append, perhaps by a whole round: what stood in this place must be given back before it is used again. */
    if (used != 0 && FRONT_UNLIKELY(distance % SHM_CHUNK_BYTES == 0)) {
        slot_free_acked(slot);
        used = outstanding(f, b);
    }
    if (used == 0)
        distance = begin_anew(slot, f, *n);
    if (distance < SHM_SMALL_BYTES && f->tx_small != 0) {
        *n = *n > SHM_SMALL_BYTES - distance ? SHM_SMALL_BYTES - distance : *n;
        return small_at(f->tx_small - 1u) + distance;
    }
    off = distance % SHM_CHUNK_BYTES;
    place = tx_chunk(slot, distance);
    chunk = FRONT_LIKELY(*place != 0) ? *place : chunk_for(place);
    if (FRONT_UNLIKELY(chunk == 0))
        return NULL;
    *n = *n > SHM_CHUNK_BYTES - off ? SHM_CHUNK_BYTES - off : *n;
    return chunk_at(chunk - 1) + off;
}

/* The same, for who has not looked yet. */
static char *
tail_of(uint32_t slot, size_t *n)
{
    struct shm_front_sock *f = front_sock(slot);
    const struct shm_back_sock *b = back_sock(slot);

    return tail_at(slot, f, b, outstanding(f, b), n);
}

__attribute__((no_sanitize("thread"))) void
send_prefetch(uint32_t slot)
{
    const struct shm_front_sock *f = front_sock(slot);
    uint32_t small = f->tx_small, chunk = f->tx_chunk;

    if (small != 0)
        __builtin_prefetch(small_at(small - 1), 1);
    else if (chunk != 0)
        __builtin_prefetch(chunk_at(chunk - 1) + SHM_SMALL_BYTES, 1);
}

uint32_t
send_stage(uint32_t slot, const struct tx_source *src)
{
    struct shm_front_sock *f = front_sock(slot);
    struct tx_source copy = *src;
    size_t n = src->left < SYN_BYTES_MAX ? src->left : SYN_BYTES_MAX;
    char *at;

    if (src->fill != fill_from_iov || n == 0 || !lock_acquire_own(&slot_hot(f)->lock))
        return 0;
    at = f->tx_tail == 0 ? tail_of(slot, &n) : NULL;
    if (at != NULL) {
        fill_from_iov(&copy, at, n);
        __atomic_or_fetch(&slot_hot(f)->flags, SLOT_STAGED, __ATOMIC_RELAXED);
    }
    lock_release_own(&slot_hot(f)->lock);
    return at != NULL ? (uint32_t)n : 0;
}

void
send_staged(uint32_t slot, struct tx_source *src, uint32_t n)
{
    struct slot_hot *h = slot_hot(front_sock(slot));

    /* No call of this thread's holds it, since none did when the bytes were staged. */
    if (!(load_relaxed(&h->flags) & SLOT_STAGED) || !lock_acquire_own(&h->lock))
        return;
    store_release(&front_sock(slot)->tx_tail, n);
    __atomic_and_fetch(&h->flags, ~SLOT_STAGED, __ATOMIC_RELAXED);
    lock_release_own(&h->lock);
    src->left -= n;
    for (size_t skip = n; skip > 0;) {
        size_t part = src->iov->iov_len - src->iov_off;

        if (part > skip) {
            src->iov_off += skip;
            return;
        }
        skip -= part;
        src->iov++;
        src->iov_off = 0;
    }
}

/* n bytes more stand behind the tail, of which the stack is about to be told. */
static inline void
tail_moves(struct shm_front_sock *f, uint32_t n)
{
    store_release(&f->tx_tail, f->tx_tail + n);
    if (FRONT_UNLIKELY(load_relaxed(&f->sleepers) & SHM_WANT_SPACE))
        __atomic_and_fetch(&f->sleepers, ~SHM_WANT_SPACE, __ATOMIC_RELAXED);
}

static void
tail_moves_told(uint32_t slot, uint32_t n)
{
    tail_moves(front_sock(slot), n);
    recv_notice_carried(slot);
    notify_stack(slot);
}

/* Of the bytes before `end`, which the next tx_tail tells of. */
static void
mark_end(uint32_t slot, uint32_t end, uint32_t marks)
{
    struct shm_front_sock *f = front_sock(slot);
    struct shm_front_more *more = &front->fmore[slot];
    uint32_t keep = marks & SHM_TX_EOR ? 0 : load_relaxed(&f->tx_flags) & SHM_TX_MORE;

    if (marks & SHM_TX_EOR)
        store_relaxed(&more->tx_eor, end);
    if (marks & SHM_TX_STAMPS)
        store_relaxed(&more->tx_stamp, end);
    store_release(&f->tx_flags, marks | keep);
}

/* Append one piece; marks: of the source's last byte (SHM_TX_EOR, SHM_TX_STAMPS). The caller holds the lock. */
static ssize_t
append_piece(uint32_t slot, struct tx_source *src, uint32_t space, uint32_t marks)
{
    struct shm_front_sock *f = front_sock(slot);
    size_t n = src->left < space ? src->left : space;
    char *at = tail_of(slot, &n);
    ssize_t got;

    if (at == NULL)
        return -ENOBUFS;
    got = src->fill(src, at, n);
    if (got <= 0)
        return got;
    src->left -= (size_t)got;
    if (FRONT_UNLIKELY(marks != 0) && (src->left == 0 || ((marks & MARK_PARTIAL) && (size_t)got == space)))
        mark_end(slot, f->tx_tail + (uint32_t)got,
                 src->left == 0 ? marks & (SHM_TX_EOR | SHM_TX_STAMPS) : marks & SHM_TX_STAMPS);
    tail_moves_told(slot, (uint32_t)got);
    return got;
}

/* The stack has perhaps not seen yet where the last record ends, or what is to be stamped. */
static bool
mark_is_pending(uint32_t slot)
{
    const struct shm_front_sock *f = front_sock(slot);

    return FRONT_UNLIKELY(load_relaxed(&f->tx_flags) & (SHM_TX_EOR | SHM_TX_STAMPS)) &&
           load_acquire(&back_sock(slot)->serviced) != load_relaxed(&f->notified);
}

static uint32_t
tx_flags_for(uint32_t slot, int flags)
{
    uint32_t pending =
        mark_is_pending(slot) ? load_relaxed(&front_sock(slot)->tx_flags) & (SHM_TX_EOR | SHM_TX_STAMPS) : 0;

    return (flags & MSG_MORE ? SHM_TX_MORE : 0) | pending;
}

/* Append what there is room for. Returns bytes, SEND_WOULD_BLOCK, or -errno; *end: the source has no more. */
static ssize_t
append(uint32_t slot, struct tx_source *src, int flags, uint32_t marks, bool *end)
{
    struct shm_front_sock *f = front_sock(slot);
    ssize_t done = 0, n = check_sendable(slot);
    uint32_t space;

    if (n <= 0)
        return n;
    store_relaxed(&f->tx_flags, tx_flags_for(slot, flags));
    while (src->left > 0 && (space = sock_tx_room(slot)) > 0) {
        n = append_piece(slot, src, space, marks);
        if (n == 0)
            *end = true;
        if (n <= 0)
            break;
        done += n;
        if (!front->page->aggregate)
            break; /* the stack is to see each piece by itself */
    }
    return done > 0 ? done : (n < 0 ? n : SEND_WOULD_BLOCK);
}

/* What a usual send has nothing to do with: by sock flags, by those of the call, and by marks that the stack may not have seen yet. */
#define SLOT_UNUSUAL (SLOT_SHUT_WR | SLOT_DEFERRED | SLOT_STAGED | SLOT_RESERVED | SLOT_OPTS)
#define USUAL_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE)

static inline bool
is_usual(const struct shm_front_sock *f, const struct shm_back_sock *b, const struct slot_hot *h, int flags)
{
    const uint32_t connected = SHM_ST_CONNECTED, state = connected | SHM_ST_ERROR | SHM_ST_GONE;

    return (((load_acquire(&b->status) ^ connected) & state) | (load_relaxed(&h->flags) & SLOT_UNUSUAL) |
            ((uint32_t)flags & ~(uint32_t)USUAL_FLAGS) | (load_relaxed(&f->tx_flags) & (SHM_TX_EOR | SHM_TX_STAMPS)) |
            load_relaxed(&h->lock)) == 0;
}

bool
sock_send_at_once(uint32_t slot, const void *buf, size_t n, int flags)
{
    struct shm_front_sock *f = front_sock(slot);
    const struct shm_back_sock *b = back_sock(slot);
    struct slot_hot *h = slot_hot(f);
    uint32_t used, limit;
    size_t part = n;
    char *at = NULL;

    if (FRONT_UNLIKELY(!is_usual(f, b, h, flags) || buf == NULL))
        return false;
    lock_take_inside(&h->lock);
    used = outstanding(f, b);
    limit = load_relaxed(&b->sndbuf_bytes);
    if (FRONT_LIKELY(used < limit && n - 1 < limit - used))
        at = tail_at(slot, f, b, used, &part);
    if (FRONT_LIKELY(at != NULL && part == n)) {
        memcpy(at, buf, n);
        store_relaxed(&f->tx_flags, flags & MSG_MORE ? SHM_TX_MORE : 0);
        tail_moves(f, (uint32_t)n);
        notify_inside(slot, f, b);
    }
    lock_release_inside(&h->lock);
    return at != NULL && part == n;
}

/*
 * Iso-Basic, and before a record while the end of another is pending: wait until the stack has taken the last piece. It does so within its poll;
 * nothing wakes us, so no sleep.
 */
static void
wait_until_serviced(uint32_t slot)
{
    unsigned i;

    if (front->local != NULL && mark_is_pending(slot))
        front->local->serve(slot, true);
    for (i = 1;
         front->local == NULL && load_acquire(&back_sock(slot)->serviced) != load_relaxed(&front_sock(slot)->notified);
         i++) {
        sched_yield();
        if (load_relaxed(&front->dead) || (i % 65536 == 0 && !front_check_alive()))
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
        if (front->local != NULL)
            front->local->tried();
        return sock_can_write(slot) && sock_tx_room(slot) > 0 ? 0 : -EAGAIN;
    }
    return wait_sock(slot, WAIT_WRITE, sock_can_write, *deadline_us);
}

/* No chunk is left in the family: time for others to give some back. 0 = try again. */
static int
wait_for_chunk(uint32_t slot, int flags, unsigned *starved)
{
    const struct timespec ms = { 0, 1000000 };

    if ((*starved)++ < CHUNK_RETRIES) {
        if (front->local != NULL)
            front->local->pass();
        nanosleep(&ms, NULL);
        return 0;
    }
    return sock_deadline(slot, true, flags) == 0 ? -EAGAIN : -ENOBUFS;
}

ssize_t
sock_send_from(struct obj *o, struct tx_source *src, int flags)
{
    uint32_t slot = o->slot;
    uint64_t deadline_us = 0;
    uint32_t marks = (flags & MSG_EOR ? SHM_TX_EOR : 0) | stamp_wanted(slot);
    bool have_deadline = false, end = false;
    unsigned starved = 0;
    ssize_t sent = 0, n;

    if (FRONT_UNLIKELY(marks & SHM_TX_STAMPS) && sock_deadline(slot, true, flags) == 0)
        marks |= MARK_PARTIAL;
    do {
        if (!front->page->aggregate || (marks != 0 && mark_is_pending(slot)))
            wait_until_serviced(slot);
        if (!lock_acquire_own(&slot_hot(front_sock(slot))->lock))
            return sent > 0 ? sent : -EAGAIN;
        n = append(slot, src, flags, marks, &end);
        lock_release_own(&slot_hot(front_sock(slot))->lock);
        if (n > 0) {
            sent += n;
            continue;
        }
        if (end)
            break;
        if (n == -ENOBUFS)
            n = wait_for_chunk(slot, flags, &starved);
        else if (n == SEND_WOULD_BLOCK)
            n = wait_for_space(slot, flags, &deadline_us, &have_deadline);
        else if (FRONT_UNLIKELY(n == SEND_CONNECTS))
            n = sock_connect_deferred(o, src, flags, &sent);
        if (n < 0)
            return sent > 0 ? sent : n;
    } while (src->left > 0);
    return sent;
}

/*
 * The bytes were copied into the transmit buffer, as Linux does where a device cannot take them from the program's memory: that is free again, which the
 * error queue tells at once. Whoever waits for EPOLLERR elsewhere is woken.
 */
static void
complete_zerocopy(uint32_t slot)
{
    struct shm_cmd cmd = { .op = SHM_OP_EVENT };

    __atomic_add_fetch(&opts_own(slot)->zerocopy_sends, 1, __ATOMIC_ACQ_REL);
    command_run(slot, &cmd, false);
}

ssize_t
sock_sendv(struct obj *o, const struct iovec *iov, size_t iovcnt, int flags)
{
    struct tx_source src = { .fill = fill_from_iov, .iov = iov };
    ssize_t sent = 0;
    size_t i;
    int rc;

    if (flags & MSG_OOB)
        return -EOPNOTSUPP;
    for (i = 0; i < iovcnt; i++)
        src.left += iov[i].iov_len;
    if (src.left == 0) {
        rc = check_sendable(o->slot);
        if (FRONT_UNLIKELY(rc == SEND_CONNECTS))
            rc = sock_connect_deferred(o, &src, flags, &sent);
        return rc < 0 ? rc : 0;
    }
    sent = sock_send_from(o, &src, flags);
    if (FRONT_UNLIKELY(flags & MSG_ZEROCOPY) && sent > 0 && opts_zerocopy(o->slot))
        complete_zerocopy(o->slot);
    return sent;
}

ssize_t
sock_sendv_fast(struct obj *o, int fd, const struct iovec *iov, size_t iovcnt, int flags, const struct sockaddr *sa,
                socklen_t len)
{
    struct tx_source src = { .fill = fill_from_iov, .iov = iov };
    ssize_t sent = 0, n;
    size_t i;
    int rc;

    if (sa != NULL && len >= sizeof(sa->sa_family) && sa->sa_family == AF_UNSPEC)
        return -EOPNOTSUPP;
    for (i = 0; i < iovcnt; i++)
        src.left += iov[i].iov_len;
    rc = sock_connect_fast(o, fd, sa, len, &src, flags, &sent);
    if (rc != 0)
        return rc == -EINPROGRESS && sent > 0 ? sent : rc;
    n = src.left > 0 ? sock_send_from(o, &src, flags) : 0;
    return n < 0 && sent == 0 ? n : sent + (n > 0 ? n : 0);
}

/* ---- without a copy ------------------------------------------------------------------------------------------------------ */

/* Once, without waiting: bytes reserved, SEND_WOULD_BLOCK, or -errno. The caller holds the lock. */
static ssize_t
reserve(uint32_t slot, void **at, size_t n)
{
    int rc = check_sendable(slot);
    size_t room;

    if (rc <= 0)
        return rc;
    room = sock_tx_room(slot);
    if (room == 0)
        return SEND_WOULD_BLOCK;
    room = room < n ? room : n;
    *at = tail_of(slot, &room);
    if (*at == NULL)
        return -ENOBUFS;
    __atomic_or_fetch(&slot_hot(front_sock(slot))->flags, (uint32_t)room << SLOT_RESERVED_SHIFT, __ATOMIC_RELAXED);
    return (ssize_t)room;
}

ssize_t
sock_reserve(struct obj *o, void **at, size_t n, int flags)
{
    uint32_t slot = o->slot;
    uint64_t deadline_us = 0;
    bool have_deadline = false;
    unsigned starved = 0;
    ssize_t rc;

    if (n == 0 || (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL)))
        return -EINVAL;
    do {
        if (!front->page->aggregate)
            wait_until_serviced(slot);
        if (!lock_acquire_own(&slot_hot(front_sock(slot))->lock))
            return -EAGAIN;
        rc = reserve(slot, at, n);
        lock_release_own(&slot_hot(front_sock(slot))->lock);
        if (rc == -ENOBUFS)
            rc = wait_for_chunk(slot, flags, &starved);
        else if (rc == SEND_WOULD_BLOCK)
            rc = wait_for_space(slot, flags, &deadline_us, &have_deadline);
        else if (rc == SEND_CONNECTS)
            rc = sock_connect_deferred(o, &(struct tx_source){ .fill = NULL }, flags, &(ssize_t){ 0 });
    } while (rc == 0);
    return rc;
}

int
sock_commit(struct obj *o, size_t n, int flags)
{
    struct shm_front_sock *f = front_sock(o->slot);
    struct slot_hot *h = slot_hot(f);
    uint32_t reserved;
    int rc = -EINVAL;

    if (flags & ~(MSG_MORE | MSG_NOSIGNAL))
        return -EINVAL;
    if (!lock_acquire_own(&h->lock))
        return -EAGAIN;
    reserved = (load_relaxed(&h->flags) & SLOT_RESERVED) >> SLOT_RESERVED_SHIFT;
    if (reserved > 0 && n <= reserved) {
        __atomic_and_fetch(&h->flags, ~SLOT_RESERVED, __ATOMIC_RELAXED);
        rc = n > 0 ? check_sendable(o->slot) : 1;
    }
    if (rc > 0 && n > 0) {
        store_relaxed(&f->tx_flags, tx_flags_for(o->slot, flags));
        tail_moves_told(o->slot, (uint32_t)n);
    }
    lock_release_own(&h->lock);
    return rc > 0 ? 0 : rc;
}
