/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_SPARE_H
#define SOCKETS_CLIENT_SPARE_H

#include <stdbool.h>

#include "fdtable.h"

/**
 * @file
 * Kernel sockets to use again. A program's socket is a TCP socket of the kernel's until its address shows that it is the stack's; making and destroying one takes
 * longer than the whole connection in the stack, and takes some 4 KiB. So when a socket becomes the stack's and the kernel never had anything to do with it, its
 * descriptor becomes a copy of one socket that all share, and what was behind it is kept for the next socket(). What the kernel has been told of a socket (bind, connect, flags, most options) makes it the
 * program's own for good: sock_used_by_kernel.
 */

/** What the program asks for, from socket()'s arguments. */
struct spare_kind {
    bool v6, nonblock;
};

/** A descriptor of a kept socket, the lowest that is free, and its place in o->spare; -1 if none is kept. Any thread. */
int spare_lend(struct spare_kind kind, bool cloexec, uint8_t *place);

/**
 * o is the stack's now, and no epoll set of the kernel's knows fd any more: if the kernel's socket behind fd, o's only descriptor, is clean, it is kept for the next one,
 * or destroyed if there is no room, and fd becomes a copy of the placeholder.
 */
void spare_swap(struct obj *o, int fd);

/** The kernel has to do with the socket from now on: it is not used again. */
void sock_used_by_kernel(struct obj *o);

/** Before fork: sockets in use will be two processes', so they are not used again. */
void spare_before_fork(void);
/** In the child: what is kept is the parent's. */
void spare_forked(void);

#endif /* SOCKETS_CLIENT_SPARE_H */
