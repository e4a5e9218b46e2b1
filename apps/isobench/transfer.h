/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOBENCH_TRANSFER_H
#define ISOBENCH_TRANSFER_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

/**
 * @file
 * A message's bytes to and from a socket: copied, or with --zero-copy in place, which takes the stack's own calls. What the bytes are is of no interest: in place none is
 * written, and none read.
 */

#ifdef ISOSOCK_POSIX_H /* the stack is inside */
#define TRANSFER_IN_PLACE
#define TRANSFER_PIECES 64

static inline ssize_t
transfer_send_in_place(int fd, size_t n)
{
    size_t done = 0;

    while (done < n) {
        void *at;
        ssize_t room = iso_send_reserve(fd, &at, n - done, MSG_NOSIGNAL);

        if (room < 0)
            return done > 0 ? (ssize_t)done : -1;
        if (iso_send_commit(fd, (size_t)room, MSG_NOSIGNAL) != 0)
            return -1;
        done += (size_t)room;
    }
    return (ssize_t)done;
}

static inline ssize_t
transfer_recv_in_place(int fd)
{
    struct iovec pieces[TRANSFER_PIECES];
    int count = TRANSFER_PIECES;
    ssize_t n = iso_recv_borrow(fd, pieces, &count, 0);

    return n > 0 && iso_recv_return(fd, (size_t)n) != 0 ? -1 : n;
}

#endif

static inline ssize_t
transfer_send(bool in_place, int fd, const void *buf, size_t n)
{
#ifdef TRANSFER_IN_PLACE
    if (in_place)
        return transfer_send_in_place(fd, n);
#endif
    (void)in_place;
    return send(fd, buf, n, MSG_NOSIGNAL);
}

static inline ssize_t
transfer_recv(bool in_place, int fd, void *buf, size_t n)
{
#ifdef TRANSFER_IN_PLACE
    if (in_place)
        return transfer_recv_in_place(fd);
#endif
    (void)in_place;
    return recv(fd, buf, n, 0);
}

#endif /* ISOBENCH_TRANSFER_H */
