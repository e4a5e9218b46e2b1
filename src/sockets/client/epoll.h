/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_EPOLL_H
#define SOCKETS_CLIENT_EPOLL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "fdtable.h"

/**
 * @file
 * epoll sets that hold descriptors of the kernel and of the stack.
 *
 * The set's descriptor is a kernel epoll set. The kernel's descriptors are its members; so are the set's event queue (by its wake-up
 * descriptor), the control socket, and an eventfd by which a set that stands in another set or in poll shows that it holds ready sockets; and one that is always readable, by which
 * a thread that waits is called. The stack's sockets
 * are items: an event puts them on the ready list, and what is reported is always computed from the socket's state at that moment.
 *
 * After a fork the two processes have separate sets, each with what was in it (in Linux they would share one): the child's is rebuilt at its first use.
 */

/** epoll_create1: put a new kernel set into the table. Returns fd. */
int epoll_track(int fd);

/** These return what the system calls return, or -errno. set is an OBJ_EPOLL object, held. */
int epoll_control(struct obj *set, int epfd, int op, int fd, struct epoll_event *ev);
/** timeout_us: 0 = do not wait, WAIT_FOREVER. */
int epoll_wait_for(struct obj *set, int epfd, struct epoll_event *out, int max, uint64_t timeout_us,
                   const sigset_t *mask);

/** Must a wait on it come by here? It holds sockets of the stack's, or the waiting thread runs the stack meanwhile. */
bool epoll_is_mixed(const struct obj *set);
/**
 * Around a wait that is the kernel's alone, since the set is not mixed; when another thread adds the first socket of the stack's it comes back. begin: false if the set is mixed.
 * end: n is what the kernel returned, or -errno; returns that without events of our own members, -EAGAIN if nothing else was there: then the wait begins again.
 */
bool epoll_kernel_wait_begin(struct obj *set);
int epoll_kernel_wait_end(struct obj *set, int epfd, struct epoll_event *out, int n);

/** A socket has changed sides: its places in kernel sets become items, or the other way round. */
void epoll_sock_moved(struct obj *o);

/**
 * Before a set is waited for in another set, or by poll: its descriptor is readable to the kernel too while it holds a ready socket, from now on or from its first one on. False if
 * it has had none yet.
 */
bool epoll_nest(struct obj *set, int epfd);
/** For poll on a set: does it hold a ready socket? */
bool epoll_is_ready(struct epset *set);

/** In a forked child. */
void epoll_forked(void);

#endif /* SOCKETS_CLIENT_EPOLL_H */
