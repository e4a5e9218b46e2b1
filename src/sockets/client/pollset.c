/* SPDX-License-Identifier: BSD-3-Clause */
#include "pollset.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "epoll.h"
#include "evq.h"
#include "libc.h"
#include "lock.h"
#include "promise.h"
#include "sock.h"

#define POLLERS_MAX 128u
#define LOCAL_FDS 64u
#define NO_POLLER_SLEEP_US 2000u /* how often to look if there is no event queue left to sleep on */
#define TAKE_MAX 64u
#define KERNEL_EVERY_PASS                                                                                              \
    64u /* where the waiting thread runs the stack: how often it looks at the kernel's descriptors */

/* A thread takes a free poller, its own of last time if it can, so that subscriptions are of use again. */
static struct poller {
    uint32_t busy;
    uint32_t stamp; /* of the call in progress */
    struct evq q;
    uint32_t *asked; /* [slot]: stamp of the last call that asked for it */
    int block_fd; /* q.fd once more, but blocking; -1 = not opened yet */
} pollers[POLLERS_MAX];

static __thread uint32_t last_poller;

static bool
poller_ready(struct poller *p)
{
    if (p->q.open)
        return true;
    if (evq_open(&p->q) != 0)
        return false;
    p->block_fd = -1;
    p->asked = calloc(front->lay.max_socks, sizeof(*p->asked));
    if (p->asked == NULL)
        evq_close(&p->q);
    return p->asked != NULL;
}

static struct poller *
poller_get(void)
{
    uint32_t i;

    for (i = 0; i < POLLERS_MAX; i++) {
        struct poller *p = &pollers[(last_poller + i) % POLLERS_MAX];

        if (!lock_try(&p->busy))
            continue;
        if (poller_ready(p)) {
            last_poller = (uint32_t)(p - pollers);
            p->stamp++;
            return p;
        }
        lock_release(&p->busy);
        return NULL;
    }
    return NULL;
}

void
poll_forked(void)
{
    uint32_t i;

    for (i = 0; i < POLLERS_MAX; i++) {
        if (pollers[i].q.open && pollers[i].block_fd >= 0) {
            fd_set_internal(pollers[i].block_fd, false);
            libc()->close(pollers[i].block_fd);
        }
        evq_forget(&pollers[i].q);
        free(pollers[i].asked);
        pollers[i].asked = NULL;
        pollers[i].busy = 0;
    }
}

/* ---- one call ----------------------------------------------------------------------------------------------------------- */

struct call {
    struct pollfd *fds; /* the user's */
    nfds_t n;
    struct pollfd *kfds; /* what the kernel is asked: [n] in the same places, then two of ours */
    nfds_t nb_kernel; /* how many of the n are the kernel's (also) */
    nfds_t nb_sets; /* how many are epoll sets with sockets of ours */
};

/* What the descriptor is to us, held; NULL = the kernel's alone. */
static struct obj *
ours(int fd)
{
    const struct obj *peek = fd_peek(fd);
    struct obj *o;

    if (FRONT_LIKELY(peek == NULL) || peek->kind == OBJ_INTERNAL ||
        (peek->kind == OBJ_SOCK && peek->where == SOCK_KERNEL))
        return NULL;
    o = fd_get(fd);
    if (o != NULL && o->kind == OBJ_EPOLL && !epoll_nest(o, fd)) {
        obj_put(o);
        return NULL;
    }
    return o;
}

bool
poll_settle(const struct pollfd *fds, nfds_t n)
{
    bool ok = true;

    for (nfds_t i = 0; front_is_planned() && i < n && ok; i++)
        ok = promise_settle_fd(fds[i].fd);
    return ok;
}

bool
poll_is_mixed(const struct pollfd *fds, nfds_t n)
{
    nfds_t i;

    if (front->local != NULL && front_joined)
        return true;
    for (i = 0; i < n; i++) {
        struct obj *o = ours(fds[i].fd);

        if (o != NULL) {
            obj_put(o);
            return true;
        }
    }
    return false;
}

static short
sock_revents(uint32_t slot, short events)
{
    uint32_t mask = ((uint32_t)(uint16_t)events & ~(uint32_t)POLLNVAL) | POLLERR | POLLHUP;

    static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLHUP == EPOLLHUP && POLLERR == EPOLLERR &&
                      POLLRDHUP == EPOLLRDHUP && POLLRDNORM == EPOLLRDNORM && POLLWRNORM == EPOLLWRNORM,
                  "poll's bits are epoll's");
    return (short)sock_events(slot, mask);
}

/* What the kernel will be asked. */
static void
prepare(struct call *c)
{
    nfds_t i;

    for (i = 0; i < c->n; i++) {
        struct obj *o = ours(c->fds[i].fd);
        bool kernel = o == NULL || o->kind == OBJ_EPOLL || o->where == SOCK_BOTH;

        c->kfds[i] = (struct pollfd){ .fd = kernel ? c->fds[i].fd : -1, .events = c->fds[i].events };
        c->nb_kernel += kernel;
        c->nb_sets += o != NULL && o->kind == OBJ_EPOLL;
        if (o != NULL)
            obj_put(o);
    }
}

/* Look at every descriptor of ours; with a poller, subscribe on the way. Fills revents; returns how many are ready. */
static int
look(struct call *c, struct poller *p)
{
    nfds_t i;
    int ready = 0;

    for (i = 0; i < c->n; i++) {
        struct pollfd *u = &c->fds[i];
        struct obj *o = ours(u->fd);

        u->revents = 0;
        if (o == NULL)
            continue;
        if (o->kind == OBJ_EPOLL) {
            if ((u->events & POLLIN) && epoll_is_ready(o->set))
                u->revents = POLLIN;
        } else {
            if (p != NULL) {
                p->asked[o->slot] = p->stamp;
                evq_subscribe(&p->q, o->slot);
                if (u->events & POLLOUT)
                    sock_want_space(o->slot);
            }
            u->revents = sock_is_kernel_again(o) ? 0 : sock_revents(o->slot, u->events);
        }
        obj_put(o);
        ready += u->revents != 0;
    }
    return ready;
}

/* After a sleep: look once more. A set's descriptor told of any event of its sockets; after the look it tells of those that the set asks for. */
static void
look_again(struct call *c, struct poller *p)
{
    look(c, p);
    if (c->nb_sets > 0)
        libc()->poll(c->kfds, c->n, 0);
}

/* Add what the kernel found; returns how many descriptors are ready in all. */
static int
merge(struct call *c)
{
    nfds_t i;
    int ready = 0;

    for (i = 0; i < c->n; i++) {
        if (c->kfds[i].fd >= 0)
            c->fds[i].revents = (short)(c->fds[i].revents | c->kfds[i].revents);
        ready += c->fds[i].revents != 0;
    }
    return ready;
}

/* Events of sockets that this call does not ask for come from earlier calls: end those subscriptions. */
static void
take_entries(struct poller *p)
{
    uint32_t slots[TAKE_MAX];
    unsigned i, n;
    bool all;

    do {
        n = evq_take(&p->q, slots, TAKE_MAX, &all);
        for (i = 0; i < n; i++)
            if (slots[i] < front->lay.max_socks && p->asked[slots[i]] != p->stamp)
                evq_unsubscribe(&p->q, slots[i]);
    } while (n == TAKE_MAX);
}

static const struct timespec *
time_left(uint64_t deadline_us, uint64_t at_most_us, struct timespec *ts)
{
    uint64_t us = at_most_us;

    if (deadline_us != WAIT_FOREVER) {
        uint64_t now = wait_now_us();
        uint64_t left = now < deadline_us ? deadline_us - now : 0;

        us = left < us ? left : us;
    }
    if (us == UINT64_MAX)
        return NULL;
    ts->tv_sec = (time_t)(us / 1000000u);
    ts->tv_nsec = (long)(us % 1000000u) * 1000;
    return ts;
}

/* Sleep in the kernel's poll. Returns what it returns, or -errno. */
static int
sleep_in_kernel(struct call *c, struct poller *p, uint64_t deadline_us, const sigset_t *mask)
{
    struct timespec ts;
    nfds_t n = c->n;
    int rc;

    if (p != NULL) {
        c->kfds[n++] = (struct pollfd){ .fd = p->q.fd, .events = POLLIN };
        c->kfds[n++] = (struct pollfd){ .fd = front->dead ? -1 : front->control_fd, .events = POLLRDHUP };
    }
    rc = libc()->ppoll(c->kfds, n, time_left(deadline_us, p == NULL ? NO_POLLER_SLEEP_US : UINT64_MAX, &ts), mask);
    if (rc < 0)
        return -errno;
    if (p != NULL && c->kfds[c->n].revents != 0) {
        evq_drain_fd(&p->q);
        if (c->kfds[c->n].revents & (POLLHUP | POLLERR))
            front_check_alive();
    }
    if (p != NULL && c->kfds[c->n + 1].revents != 0)
        front_check_alive();
    return rc;
}

/* The thread that waits runs the stack. It looks at its sockets after each pass, so it needs no event queue. */
static int
poll_local(struct call *c, uint64_t deadline_us, const sigset_t *mask)
{
    struct timespec ts;
    sigset_t blocked;

    for (unsigned i = 1;; i++) {
        uint64_t us;
        int rc = 0;

        front->local->pass();
        us = look(c, NULL) > 0 ? 0 : front->local->sleep_begin();
        if (us != 0) {
            c->kfds[c->n] = (struct pollfd){ .fd = front->local->wake_fd, .events = POLLIN };
            rc = libc()->ppoll(c->kfds, c->n + 1, time_left(deadline_us, us, &ts), wait_local_mask(mask, &blocked));
        } else if (c->nb_kernel > 0 && i % KERNEL_EVERY_PASS == 0) {
            rc = libc()->poll(c->kfds, c->n, 0);
        }
        rc = rc < 0 ? -errno : 0;
        if (us != 0)
            front->local->sleep_end();
        if (rc < 0)
            return rc;
        if (us != 0 && c->nb_sets > 0)
            look_again(c, NULL);
        rc = merge(c);
        if (rc > 0 || (deadline_us != WAIT_FOREVER && wait_now_us() >= deadline_us))
            return rc;
    }
}

static bool
entries_came(void *arg)
{
    const struct poller *p = arg;

    return evq_has_entries(&p->q);
}

/* Look, and if nothing is ready sleep once and look again. Returns how many are ready, or -errno. */
static int
poll_round(struct call *c, struct poller *p, uint64_t deadline_us, const sigset_t *mask)
{
    int rc;

    if (p != NULL) {
        evq_sleep_begin(&p->q);
        take_entries(p); /* while one stands in the queue, the stack counts on its being taken and wakes nobody */
    }
    if (look(c, p) > 0)
        rc = c->nb_kernel > 0 && libc()->poll(c->kfds, c->n, 0) < 0 ? -errno : 0;
    else
        rc = sleep_in_kernel(c, p, deadline_us, mask);
    if (p != NULL) {
        evq_sleep_end(&p->q);
        take_entries(p);
    }
    if (rc < 0)
        return rc;
    look_again(c, p);
    return merge(c);
}

static int
poll_sleeping(struct call *c, uint64_t deadline_us, const sigset_t *mask)
{
    struct poller *p = poller_get();
    int rc;

    /* A spin first, if nothing of the kernel's could be missed meanwhile. */
    if (p != NULL && c->nb_kernel == 0 && mask == NULL) {
        look(c, p);
        if (wait_spin(entries_came, p))
            take_entries(p);
    }
    do
        rc = poll_round(c, p, deadline_us, mask);
    while (rc == 0 && (deadline_us == WAIT_FOREVER || wait_now_us() < deadline_us));
    if (p != NULL)
        lock_release(&p->busy);
    return rc;
}

int
poll_wait(struct pollfd *fds, nfds_t n, uint64_t deadline_us, const sigset_t *mask)
{
    struct pollfd local[LOCAL_FDS + 2];
    struct call c = { .fds = fds, .n = n, .kfds = local };
    int rc;

    if (n > LOCAL_FDS) {
        c.kfds = malloc((n + 2) * sizeof(*c.kfds));
        if (c.kfds == NULL)
            return -ENOMEM;
    }
    recv_flush_notice();
    prepare(&c);
    if (front->local != NULL)
        front->local->pass();
    rc = look(&c, NULL);
    if (rc > 0 || deadline_us == 0) {
        if (c.nb_kernel > 0 && libc()->poll(c.kfds, n, 0) < 0)
            rc = -errno;
        else
            rc = merge(&c);
    } else {
        rc = front->local != NULL ? poll_local(&c, deadline_us, mask) : poll_sleeping(&c, deadline_us, mask);
    }
    if (c.kfds != local)
        free(c.kfds);
    return rc;
}

/* ---- one socket, without a timeout ---------------------------------------------------------------------------------------- */

static bool
can_block(struct poller *p)
{
    char path[32];
    int fd;

    if (p->block_fd >= 0)
        return true;
    /* An open file of its own, since O_NONBLOCK belongs to the open file and q.fd needs it. */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", p->q.fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        p->block_fd = front_hide_fd(fd);
    return p->block_fd >= 0;
}

static int
block_until(struct poller *p, uint32_t slot, bool write, bool (*ready)(uint32_t slot))
{
    char buf[512];
    ssize_t n;

    for (;;) {
        take_entries(p);
        if (write)
            sock_want_space(slot);
        if (ready(slot))
            return 0;
        if (load_relaxed(&front->dead))
            return -ENETDOWN;
        n = libc()->read(p->block_fd, buf, sizeof(buf));
        if (n < 0 && errno == EINTR)
            return ready(slot) ? 0 : -EINTR;
        if (n <= 0 && front_check_alive())
            return -ENETDOWN; /* the stack has taken the queue away */
    }
}

int
poll_block(uint32_t slot, bool write, bool (*ready)(uint32_t slot))
{
    struct poller *p = poller_get();
    int rc = -ENOSYS;

    if (p == NULL)
        return rc;
    if (can_block(p)) {
        p->asked[slot] = p->stamp;
        evq_subscribe(&p->q, slot);
        evq_sleep_begin(&p->q);
        rc = block_until(p, slot, write, ready);
        evq_sleep_end(&p->q);
    }
    lock_release(&p->busy);
    return rc;
}

int
poll_wait_fd(int fd, short events, uint64_t deadline_us)
{
    struct pollfd p = { .fd = fd, .events = events };
    int rc = poll_wait(&p, 1, deadline_us, NULL);

    return rc > 0 ? 0 : rc == 0 ? -EAGAIN : rc;
}

/* ---- select --------------------------------------------------------------------------------------------------------------- */

#define WORD_BITS (8 * (int)sizeof(unsigned long))
#define SELECT_IN (POLLIN | POLLRDNORM)
#define SELECT_OUT (POLLOUT | POLLWRNORM)

/* By hand, since a program may pass sets larger than FD_SETSIZE. */
static bool
fd_in(const fd_set *s, int fd)
{
    return s != NULL && (((const unsigned long *)(const void *)s)[fd / WORD_BITS] >> (fd % WORD_BITS) & 1);
}

static void
fd_put(fd_set *s, int fd, bool on)
{
    unsigned long *w = (unsigned long *)(void *)s + fd / WORD_BITS, bit = 1UL << (fd % WORD_BITS);

    if (s != NULL)
        *w = on ? *w | bit : *w & ~bit;
}

static nfds_t
select_collect(int n, const fd_set *rd, const fd_set *wr, const fd_set *ex, struct pollfd *out)
{
    nfds_t count = 0;
    int fd;

    for (fd = 0; fd < n; fd++) {
        int events = (fd_in(rd, fd) ? SELECT_IN : 0) | (fd_in(wr, fd) ? SELECT_OUT : 0) | (fd_in(ex, fd) ? POLLPRI : 0);

        if (events == 0)
            continue;
        if (out != NULL)
            out[count] = (struct pollfd){ .fd = fd, .events = (short)events };
        count++;
    }
    return count;
}

static int
select_fill(const struct pollfd *fds, nfds_t count, fd_set *rd, fd_set *wr, fd_set *ex)
{
    nfds_t i;
    int ready = 0;

    for (i = 0; i < count; i++)
        if (fds[i].revents & POLLNVAL)
            return -EBADF;
    for (i = 0; i < count; i++) {
        int fd = fds[i].fd, ev = fds[i].revents;
        bool r = fd_in(rd, fd) && (ev & (SELECT_IN | POLLHUP | POLLERR));
        bool w = fd_in(wr, fd) && (ev & (SELECT_OUT | POLLERR | POLLHUP));
        bool x = fd_in(ex, fd) && (ev & POLLPRI);

        fd_put(rd, fd, r);
        fd_put(wr, fd, w);
        fd_put(ex, fd, x);
        ready += r + w + x;
    }
    return ready;
}

int
poll_select(int n, fd_set *rd, fd_set *wr, fd_set *ex, uint64_t deadline_us, const sigset_t *mask, bool *mixed)
{
    nfds_t count = n > 0 ? select_collect(n, rd, wr, ex, NULL) : 0;
    struct pollfd *fds;
    int rc;

    *mixed = false;
    if (count == 0)
        return 0;
    fds = malloc(count * sizeof(*fds));
    if (fds == NULL)
        return -ENOMEM;
    select_collect(n, rd, wr, ex, fds);
    if (!poll_settle(fds, count)) {
        free(fds);
        return -errno;
    }
    *mixed = poll_is_mixed(fds, count);
    rc = *mixed ? poll_wait(fds, count, deadline_us, mask) : 0;
    if (*mixed && rc >= 0)
        rc = select_fill(fds, count, rd, wr, ex);
    free(fds);
    return rc;
}
