/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_LIBC_H
#define SOCKETS_CLIENT_LIBC_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <fcntl.h>
#include <unistd.h>

/**
 * @file
 * The C library's own functions. Inside the interposer a plain `close()` would be our own, so the front-end calls the kernel through this
 * table and in no other way. The table is filled by dlsym(RTLD_NEXT) at first use, which may be before any constructor ran; what is called
 * while it is being filled (dlsym allocates, and an allocator may read or write) goes to the kernel by bare system calls.
 */

/** One row a function: name, result, parameters. */
#define LIBC_FUNCTIONS(X)                                                                                              \
    X(socket, int, (int, int, int))                                                                                    \
    X(bind, int, (int, const struct sockaddr *, socklen_t))                                                            \
    X(listen, int, (int, int))                                                                                         \
    X(accept4, int, (int, struct sockaddr *, socklen_t *, int))                                                        \
    X(connect, int, (int, const struct sockaddr *, socklen_t))                                                         \
    X(shutdown, int, (int, int))                                                                                       \
    X(getsockopt, int, (int, int, int, void *, socklen_t *))                                                           \
    X(setsockopt, int, (int, int, int, const void *, socklen_t))                                                       \
    X(getsockname, int, (int, struct sockaddr *, socklen_t *))                                                         \
    X(getpeername, int, (int, struct sockaddr *, socklen_t *))                                                         \
    X(read, ssize_t, (int, void *, size_t))                                                                            \
    X(write, ssize_t, (int, const void *, size_t))                                                                     \
    X(readv, ssize_t, (int, const struct iovec *, int))                                                                \
    X(writev, ssize_t, (int, const struct iovec *, int))                                                               \
    X(pread, ssize_t, (int, void *, size_t, off_t))                                                                    \
    X(recv, ssize_t, (int, void *, size_t, int))                                                                       \
    X(recvfrom, ssize_t, (int, void *, size_t, int, struct sockaddr *, socklen_t *))                                   \
    X(recvmsg, ssize_t, (int, struct msghdr *, int))                                                                   \
    X(recvmmsg, int, (int, struct mmsghdr *, unsigned, int, struct timespec *))                                        \
    X(send, ssize_t, (int, const void *, size_t, int))                                                                 \
    X(sendto, ssize_t, (int, const void *, size_t, int, const struct sockaddr *, socklen_t))                           \
    X(sendmsg, ssize_t, (int, const struct msghdr *, int))                                                             \
    X(sendmmsg, int, (int, struct mmsghdr *, unsigned, int))                                                           \
    X(sendfile, ssize_t, (int, int, off_t *, size_t))                                                                  \
    X(splice, ssize_t, (int, off64_t *, int, off64_t *, size_t, unsigned))                                             \
    X(close, int, (int))                                                                                               \
    X(close_range, int, (unsigned, unsigned, int))                                                                     \
    X(dup, int, (int))                                                                                                 \
    X(dup2, int, (int, int))                                                                                           \
    X(dup3, int, (int, int, int))                                                                                      \
    X(fcntl, int, (int, int, ...))                                                                                     \
    X(ioctl, int, (int, unsigned long, ...))                                                                           \
    X(poll, int, (struct pollfd *, nfds_t, int))                                                                       \
    X(ppoll, int, (struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))                                \
    X(select, int, (int, fd_set *, fd_set *, fd_set *, struct timeval *))                                              \
    X(pselect, int, (int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *))                    \
    X(epoll_create1, int, (int))                                                                                       \
    X(epoll_ctl, int, (int, int, int, struct epoll_event *))                                                           \
    X(epoll_pwait, int, (int, struct epoll_event *, int, int, const sigset_t *))                                       \
    X(epoll_pwait2, int, (int, struct epoll_event *, int, const struct timespec *, const sigset_t *))                  \
    X(fdopen, FILE *, (int, const char *))                                                                             \
    X(syscall, long, (long, ...))

struct libc_table {
#define LIBC_MEMBER(name, ret, params) ret(*name) params;
    LIBC_FUNCTIONS(LIBC_MEMBER)
#undef LIBC_MEMBER
};

extern struct libc_table libc_table;
extern bool libc_ready;

/** Fill the table; harmless if it is full, or being filled by a caller further up. */
void libc_resolve(void);

static inline const struct libc_table *
libc(void)
{
    if (__builtin_expect(!__atomic_load_n(&libc_ready, __ATOMIC_ACQUIRE), 0))
        libc_resolve();
    return &libc_table;
}

#endif /* SOCKETS_CLIENT_LIBC_H */
