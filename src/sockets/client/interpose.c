/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The interposer: POSIX's names for iso_*. Linked into libisosock-preload.so alone. Prototypes come from the C library's headers, so that a
 * difference in a signature does not compile; the checked forms (__read_chk and the like) are what _FORTIFY_SOURCE turns calls into.
 */
#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS /* it would rename fcntl and sendfile to their twins, which are defined here too */
#include "isosock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <unistd.h>

#include "api.h"
#include "libc.h"
#include "sock.h"

#define EXPORT __attribute__((visibility("default")))

/** result name(parameters) -> iso_name(arguments) */
#define FORWARD(ret, name, params, args)                                                                               \
    EXPORT ret name params                                                                                             \
    {                                                                                                                  \
        return iso_##name args;                                                                                        \
    }

FORWARD(int, socket, (int domain, int type, int protocol), (domain, type, protocol))
FORWARD(int, bind, (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len))
FORWARD(int, listen, (int fd, int backlog), (fd, backlog))
FORWARD(int, accept, (int fd, struct sockaddr *addr, socklen_t *len), (fd, addr, len))
FORWARD(int, accept4, (int fd, struct sockaddr *addr, socklen_t *len, int flags), (fd, addr, len, flags))
FORWARD(int, connect, (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len))
FORWARD(int, shutdown, (int fd, int how), (fd, how))
FORWARD(int, getsockname, (int fd, struct sockaddr *addr, socklen_t *len), (fd, addr, len))
FORWARD(int, getpeername, (int fd, struct sockaddr *addr, socklen_t *len), (fd, addr, len))
FORWARD(int, getsockopt, (int fd, int level, int name, void *val, socklen_t *len), (fd, level, name, val, len))
FORWARD(int, setsockopt, (int fd, int level, int name, const void *val, socklen_t len), (fd, level, name, val, len))
FORWARD(ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n))
FORWARD(ssize_t, readv, (int fd, const struct iovec *iov, int n), (fd, iov, n))
FORWARD(ssize_t, recv, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags))
FORWARD(ssize_t, recvfrom, (int fd, void *buf, size_t n, int flags, struct sockaddr *addr, socklen_t *len),
        (fd, buf, n, flags, addr, len))
FORWARD(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags), (fd, msg, flags))
FORWARD(int, recvmmsg, (int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout),
        (fd, msgs, n, flags, timeout))
FORWARD(ssize_t, write, (int fd, const void *buf, size_t n), (fd, buf, n))
FORWARD(ssize_t, writev, (int fd, const struct iovec *iov, int n), (fd, iov, n))
FORWARD(ssize_t, send, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags))
FORWARD(ssize_t, sendto, (int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr, socklen_t len),
        (fd, buf, n, flags, addr, len))
FORWARD(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags))
FORWARD(int, sendmmsg, (int fd, struct mmsghdr *msgs, unsigned n, int flags), (fd, msgs, n, flags))
FORWARD(ssize_t, sendfile, (int out, int in, off_t *offset, size_t n), (out, in, offset, n))
FORWARD(ssize_t, splice, (int in, off64_t *in_off, int out, off64_t *out_off, size_t n, unsigned flags),
        (in, in_off, out, out_off, n, flags))
FORWARD(int, close, (int fd), (fd))
FORWARD(int, close_range, (unsigned first, unsigned last, int flags), (first, last, flags))
FORWARD(int, dup, (int fd), (fd))
FORWARD(int, dup2, (int fd, int to), (fd, to))
FORWARD(int, dup3, (int fd, int to, int flags), (fd, to, flags))
FORWARD(int, poll, (struct pollfd * fds, nfds_t n, int timeout_ms), (fds, n, timeout_ms))
FORWARD(int, ppoll, (struct pollfd * fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask),
        (fds, n, timeout, mask))
FORWARD(int, select, (int n, fd_set *rd, fd_set *wr, fd_set *ex, struct timeval *timeout), (n, rd, wr, ex, timeout))
FORWARD(int, pselect, (int n, fd_set *rd, fd_set *wr, fd_set *ex, const struct timespec *timeout, const sigset_t *mask),
        (n, rd, wr, ex, timeout, mask))
FORWARD(int, epoll_create, (int size), (size))
FORWARD(int, epoll_create1, (int flags), (flags))
FORWARD(int, epoll_ctl, (int epfd, int op, int fd, struct epoll_event *ev), (epfd, op, fd, ev))
FORWARD(int, epoll_wait, (int epfd, struct epoll_event *ev, int max, int timeout_ms), (epfd, ev, max, timeout_ms))
FORWARD(int, epoll_pwait, (int epfd, struct epoll_event *ev, int max, int timeout_ms, const sigset_t *mask),
        (epfd, ev, max, timeout_ms, mask))
FORWARD(int, epoll_pwait2,
        (int epfd, struct epoll_event *ev, int max, const struct timespec *timeout, const sigset_t *mask),
        (epfd, ev, max, timeout, mask))

/* ---- variadic, and twins ------------------------------------------------------------------------------------------------ */

EXPORT int
fcntl(int fd, int cmd, ...)
{
    va_list ap;
    void *arg;

    va_start(ap, cmd);
    arg = va_arg(ap, void *);
    va_end(ap);
    return iso_fcntl(fd, cmd, arg);
}

EXPORT int
fcntl64(int fd, int cmd, ...)
{
    va_list ap;
    void *arg;

    va_start(ap, cmd);
    arg = va_arg(ap, void *);
    va_end(ap);
    return iso_fcntl(fd, cmd, arg);
}

EXPORT int
ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    return iso_ioctl(fd, request, arg);
}

/*
 * Some runtimes call the kernel by number where the C library's function is a cancellation point (libuv's close). What would leave our table
 * wrong, or reach for a stack socket in the kernel, is sent on; the rest goes through.
 */
static long
by_number(long nr, const long a[6])
{
    switch (nr) {
    case SYS_close:
        return iso_close((int)a[0]);
    case SYS_close_range:
        return iso_close_range((unsigned)a[0], (unsigned)a[1], (int)a[2]);
    case SYS_dup:
        return iso_dup((int)a[0]);
    case SYS_dup3:
        return iso_dup3((int)a[0], (int)a[1], (int)a[2]);
    case SYS_read:
        return iso_read((int)a[0], (void *)a[1], (size_t)a[2]);
    case SYS_write:
        return iso_write((int)a[0], (const void *)a[1], (size_t)a[2]);
    case SYS_readv:
        return iso_readv((int)a[0], (const struct iovec *)a[1], (int)a[2]);
    case SYS_writev:
        return iso_writev((int)a[0], (const struct iovec *)a[1], (int)a[2]);
    case SYS_accept4:
        return iso_accept4((int)a[0], (struct sockaddr *)a[1], (socklen_t *)a[2], (int)a[3]);
    case SYS_sendmmsg:
        return iso_sendmmsg((int)a[0], (struct mmsghdr *)a[1], (unsigned)a[2], (int)a[3]);
    case SYS_recvmmsg:
        return iso_recvmmsg((int)a[0], (struct mmsghdr *)a[1], (unsigned)a[2], (int)a[3], (struct timespec *)a[4]);
    default:
        return libc()->syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
}

EXPORT long
syscall(long nr, ...)
{
    va_list ap;
    long a[6];
    int i;

    va_start(ap, nr);
    for (i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    return by_number(nr, a);
}

static_assert(sizeof(off_t) == sizeof(off64_t), "sendfile64 is sendfile");

EXPORT ssize_t
sendfile64(int out, int in, off64_t *offset, size_t n)
{
    return iso_sendfile(out, in, offset, n);
}

EXPORT void
closefrom(int first)
{
    iso_close_range(first < 0 ? 0 : (unsigned)first, ~0u, 0);
}

/* ---- the checked forms -------------------------------------------------------------------------------------------------- */

ssize_t __read_chk(int fd, void *buf, size_t n, size_t room);
ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags, struct sockaddr *addr, socklen_t *len);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t room);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t room);

static void
check_room(size_t n, size_t room)
{
    if (n > room)
        abort();
}

EXPORT ssize_t
__read_chk(int fd, void *buf, size_t n, size_t room)
{
    check_room(n, room);
    return iso_read(fd, buf, n);
}

EXPORT ssize_t
__recv_chk(int fd, void *buf, size_t n, size_t room, int flags)
{
    check_room(n, room);
    return iso_recv(fd, buf, n, flags);
}

EXPORT ssize_t
__recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags, struct sockaddr *addr, socklen_t *len)
{
    check_room(n, room);
    return iso_recvfrom(fd, buf, n, flags, addr, len);
}

EXPORT int
__poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t room)
{
    check_room(n, room / sizeof(*fds));
    return iso_poll(fds, n, timeout_ms);
}

EXPORT int
__ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t room)
{
    check_room(n, room / sizeof(*fds));
    return iso_ppoll(fds, n, timeout, mask);
}

/* ---- stdio -------------------------------------------------------------------------------------------------------------- */

static ssize_t
stream_read(void *cookie, char *buf, size_t n)
{
    return iso_read((int)(intptr_t)cookie, buf, n);
}

static ssize_t
stream_write(void *cookie, const char *buf, size_t n)
{
    ssize_t done = iso_write((int)(intptr_t)cookie, buf, n);

    return done < 0 ? 0 : done;
}

static int
stream_close(void *cookie)
{
    return iso_close((int)(intptr_t)cookie);
}

/* A stream reads and writes inside the C library, past us; one over a socket of the stack's is given our own functions. */
EXPORT FILE *
fdopen(int fd, const char *mode)
{
    const cookie_io_functions_t io = { .read = stream_read, .write = stream_write, .close = stream_close };
    struct obj *o = fd_get_stack(fd);

    if (o == NULL)
        return libc()->fdopen(fd, mode);
    obj_put(o);
    return fopencookie((void *)(intptr_t)fd, mode, io);
}
