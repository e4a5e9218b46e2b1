/* SPDX-License-Identifier: BSD-3-Clause */
#include "spare.h"

#include <fcntl.h>

#include "libc.h"
#include "lock.h"
#include "sock.h"

#define PLACES 64u

static struct {
    uint32_t lock;
    struct place {
        enum { PLACE_EMPTY, PLACE_FREE, PLACE_LENT } state;
        int fd; /**< hidden */
        struct spare_kind kind;
    } at[PLACES];
} spares;

static struct place *
find(int state, const struct spare_kind *kind)
{
    for (unsigned i = 0; i < PLACES; i++) {
        struct place *p = &spares.at[i];

        if ((int)p->state == state && (kind == NULL || (p->kind.v6 == kind->v6 && p->kind.nonblock == kind->nonblock)))
            return p;
    }
    return NULL;
}

/* Also the child's way to give up what is the parent's. */
static void
empty(struct place *p)
{
    fd_set_internal(p->fd, false);
    libc()->close(p->fd);
    p->state = PLACE_EMPTY;
}

int
spare_lend(struct spare_kind kind, bool cloexec, uint8_t *place)
{
    struct place *p;
    int fd = -1;

    if (!lock_acquire(&spares.lock))
        return -1;
    p = find(PLACE_FREE, &kind);
    if (p != NULL)
        fd = libc()->fcntl(p->fd, cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
    if (fd >= 0) {
        p->state = PLACE_LENT;
        *place = (uint8_t)(1 + (p - spares.at));
    }
    lock_release(&spares.lock);
    return fd;
}

/* Keep what is behind fd. The lock is held. */
static void
keep(const struct obj *o, int fd)
{
    const struct spare_kind kind = { .v6 = o->v6, .nonblock = o->nonblock };
    struct place *p = o->spare != 0 ? &spares.at[o->spare - 1u] : find(PLACE_EMPTY, NULL);
    int high;

    if (o->spare != 0 && opts_undo(o, p->fd)) {
        p->state = PLACE_FREE;
    } else if (o->spare != 0) {
        empty(p);
    } else if (p != NULL && opts_undo(o, fd)) {
        high = libc()->fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (high >= 0)
            *p = (struct place){ .state = PLACE_FREE, .fd = front_hide_fd(high), .kind = kind };
    }
}

void
spare_swap(struct obj *o, int fd)
{
    int holder = sock_placeholder(), fd_flags;

    if (o->used_by_kernel || holder < 0 || load_relaxed(&o->nb_fds) != 1 || !lock_acquire(&spares.lock))
        return;
    keep(o, fd);
    lock_release(&spares.lock);
    o->spare = 0;
    o->used_by_kernel = 1;
    fd_flags = libc()->fcntl(fd, F_GETFD);
    libc()->dup3(holder, fd, fd_flags >= 0 && (fd_flags & FD_CLOEXEC) ? O_CLOEXEC : 0);
}

void
sock_used_by_kernel(struct obj *o)
{
    o->used_by_kernel = 1;
    if (o->spare == 0 || !lock_acquire(&spares.lock))
        return;
    empty(&spares.at[o->spare - 1u]);
    o->spare = 0;
    lock_release(&spares.lock);
}

static void
share(int fd, struct obj *o, void *arg)
{
    (void)fd;
    (void)arg;
    if (o->kind == OBJ_SOCK)
        sock_used_by_kernel(o);
}

void
spare_before_fork(void)
{
    fdtable_each(share, NULL);
}

void
spare_forked(void)
{
    spares.lock = 0;
    for (unsigned i = 0; i < PLACES; i++)
        if (spares.at[i].state != PLACE_EMPTY)
            empty(&spares.at[i]);
}
