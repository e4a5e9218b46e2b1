/* SPDX-License-Identifier: BSD-3-Clause */
#include "fork.h"

#include <errno.h>
#include <pthread.h>

#include "epoll.h"
#include "fdtable.h"
#include "front.h"
#include "libc.h"
#include "lock.h"
#include "pollset.h"
#include "promise.h"
#include "sole.h"
#include "spare.h"

/*
 * fork(): the child's place in the family is opened before, so that the stack knows that the child holds what the parent holds before either
 * can close anything. vfork, posix_spawn and bare clone run no handlers: such a child has the parent's memory or none of its
 * places, and only execs (fd_api.c tells it by its process id).
 */
static struct {
    int fd;
    uint16_t member;
} child;

/* A process that attaches to a stack elsewhere has no other. */
static void
before_fork(void)
{
    int saved_errno = errno;

    child.fd = -1;
    sole_end();
    spare_before_fork();
    if (!front->dead && front->pid == getpid() && front->home == NULL && !front_is_planned())
        child.fd = front_open_child(&child.member);
    errno = saved_errno;
}

static void
after_fork_in_parent(void)
{
    int saved_errno = errno;

    if (child.fd >= 0)
        libc()->close(child.fd);
    errno = saved_errno;
}

static void
become_child(void)
{
    struct front *was = front;

    for (uint32_t i = 0; i < FRONT_MAX; i++) {
        if (front_of[i] == NULL)
            continue;
        front = front_of[i];
        front_become_child(front == was ? child.fd : -1, child.member);
        slot_forget_closing();
    }
    front = was;
}

static void
after_fork_in_child(void)
{
    int saved_errno = errno;

    lock_tid_cache = 0;
    sole_forked();
    fdtable_forked();
    spare_forked();
    promises_forked();
    become_child();
    poll_forked();
    epoll_forked();
    errno = saved_errno;
}

int
fork_watch(void)
{
    static bool watched;
    int rc = watched ? 0 : -pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);

    watched = rc == 0;
    return rc;
}
