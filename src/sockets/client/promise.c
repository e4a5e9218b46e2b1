/* SPDX-License-Identifier: BSD-3-Clause */
#include "promise.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "libc.h"
#include "lock.h"

#define PROMISES_MAX 256u

static struct {
    uint32_t lock;
    uint32_t nb;
    struct promise {
        struct obj *o;
        struct shm_addr addr;
        bool listens;
        int backlog;
    } at[PROMISES_MAX];
} promises;

static struct promise *
find(const struct obj *o)
{
    for (uint32_t i = 0; i < promises.nb; i++)
        if (promises.at[i].o == o)
            return &promises.at[i];
    return NULL;
}

/* The socket's, or a new one. The lock is held; without a result it has been given back, and *rc says why. */
static struct promise *
open_promise(struct obj *o, int *rc)
{
    struct promise *p;

    *rc = -EAGAIN;
    if (!lock_acquire(&promises.lock))
        return NULL;
    p = front_is_planned() ? find(o) : NULL;
    if (p == NULL && front_is_planned()) {
        *rc = -ENOBUFS;
        if (promises.nb < PROMISES_MAX) {
            p = &promises.at[promises.nb++];
            *p = (struct promise){ .o = o };
        }
    }
    if (p == NULL)
        lock_release(&promises.lock);
    else
        o->promised = 1;
    return p;
}

int
promise_bind(struct obj *o, const struct shm_addr *a)
{
    int rc;
    struct promise *p = open_promise(o, &rc);

    if (p == NULL)
        return rc;
    p->addr = *a;
    lock_release(&promises.lock);
    return 0;
}

int
promise_listen(struct obj *o, int backlog)
{
    int rc;
    struct promise *p = open_promise(o, &rc);

    if (p == NULL)
        return rc;
    p->listens = true;
    p->backlog = backlog;
    lock_release(&promises.lock);
    return 0;
}

int
promise_name(const struct obj *o, struct sockaddr *sa, socklen_t *len)
{
    const struct promise *p;
    struct shm_addr a = { .port = 0 };

    if (!o->promised || o->wildcard)
        return -EAGAIN;
    if (!lock_acquire(&promises.lock))
        return -EDEADLK;
    p = find(o);
    if (p != NULL)
        a = p->addr;
    lock_release(&promises.lock);
    if (a.port == 0) {
        int rc = promise_settle(o);

        return rc == 0 ? -EAGAIN : rc;
    }
    if (sa == NULL || len == NULL)
        return -EFAULT;
    if ((int)*len < 0)
        return -EINVAL;
    sock_addr_out(&a, o->v6, sa, len);
    return 0;
}

void
promise_forget(struct obj *o)
{
    struct promise *p;

    if (!o->promised || !lock_acquire(&promises.lock))
        return;
    p = find(o);
    if (p != NULL)
        *p = promises.at[--promises.nb];
    o->promised = 0;
    lock_release(&promises.lock);
}

int
promise_settle(const struct obj *o)
{
    if (FRONT_LIKELY(!o->promised))
        return 0;
    front_attach();
    if (!o->promised)
        return 0;
    return front_is_planned() ? -EINTR : -ENETDOWN;
}

bool
promise_settle_fd(int fd)
{
    const struct obj *peek = fd_peek(fd);
    struct obj *o;
    int rc;

    if (FRONT_LIKELY(peek == NULL || !peek->promised))
        return true;
    o = fd_get(fd);
    rc = o != NULL ? promise_settle(o) : 0;
    if (o != NULL)
        obj_put(o);
    errno = rc < 0 ? -rc : errno;
    return rc == 0;
}

/* ---- keeping them --------------------------------------------------------------------------------------------------------- */

struct search {
    const struct obj *o;
    int fd;
};

static void
note_fd(int fd, struct obj *o, void *arg)
{
    struct search *s = arg;

    if (o == s->o)
        s->fd = fd;
}

static void
keep(struct promise *p)
{
    struct search s = { p->o, -1 };
    int rc;

    fdtable_each(note_fd, &s);
    if (s.fd < 0)
        return; /* it is being closed */
    rc = sock_keep_promise(p->o, s.fd, p->o->wildcard ? NULL : &p->addr, p->listens, p->backlog);
    if (rc == 0)
        p->o->promised = 0;
    else
        dprintf(STDERR_FILENO, "isosock: port %u of the stack: %s\n", p->addr.port, strerror(-rc));
}

void
promises_keep(void)
{
    if (!lock_acquire(&promises.lock))
        return;
    for (uint32_t i = 0; front->state == FRONT_ATTACHED && i < promises.nb; i++)
        keep(&promises.at[i]);
    promises.nb = 0; /* those that could not be kept: the sockets say so */
    lock_release(&promises.lock);
}

void
promises_forked(void)
{
    promises.lock = 0;
}
