/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_PROMISE_H
#define SOCKETS_CLIENT_PROMISE_H

#include <stdbool.h>

#include "sock.h"

/**
 * @file
 * Sockets that are bound or listen in a stack that is a plan yet (front_plan). The kernel's socket stays as the descriptor, and what was promised is noted; forked children
 * inherit it. The process in which one of them is waited for, accepted from or looked at starts the stack, and there all promises are kept. What bind and listen would have
 * refused is told then: one line, and calls on the socket fail.
 */

/** Bind it there. -EAGAIN: the stack has started meanwhile; -ENOBUFS: too many, so start it. */
int promise_bind(struct obj *o, const struct shm_addr *a);
/** It listens there, bound or as a wildcard listener of the kernel's. -EAGAIN and -ENOBUFS as above. */
int promise_listen(struct obj *o, int backlog);
/** Its name as getsockname tells it. -EAGAIN: it has none here, or none any more. A port that the stack has to choose starts it. */
int promise_name(const struct obj *o, struct sockaddr *sa, socklen_t *len);
/** The socket is closed. */
void promise_forget(struct obj *o);

/** A call needs to know what becomes of this socket: start the stack. Returns 0, -EINTR, -ENETDOWN if it did not start. Nothing to do without a promise. */
int promise_settle(const struct obj *o);
/** The same for what the descriptor names; false with errno set if there is no going on. */
bool promise_settle_fd(int fd);

/** The stack has started, or will not start. */
void promises_keep(void);
void promises_forked(void);

#endif /* SOCKETS_CLIENT_PROMISE_H */
