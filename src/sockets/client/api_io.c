/* SPDX-License-Identifier: BSD-3-Clause */
#include "isosock.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>

#include "api.h"
#include "libc.h"
#include "sock.h"

#define IO_MAX ((size_t)0x7ffff000) /* Linux's bound on one call */

static ssize_t
end(struct obj *o, ssize_t rc)
{
    obj_put(o);
    if (rc >= 0)
        return rc;
    errno = (int)-rc;
    return -1;
}

static ssize_t
end_send(struct obj *o, ssize_t rc, int flags)
{
    if (rc == -EPIPE && !(flags & MSG_NOSIGNAL))
        raise(SIGPIPE);
    return end(o, rc);
}

/* The kernel finds a bad pointer when it copies; of those that a program passes by mistake, this finds the usual one. */
static bool
is_null(const void *p, size_t n)
{
    return FRONT_UNLIKELY(p == NULL) && n > 0;
}

static int
check_iov(const struct iovec *iov, size_t n)
{
    size_t i, total = 0;

    if (n > IOV_MAX)
        return -EINVAL;
    if (is_null(iov, n))
        return -EFAULT;
    for (i = 0; i < n; i++) {
        total += iov[i].iov_len;
        if ((ssize_t)iov[i].iov_len < 0 || (ssize_t)total < 0)
            return -EINVAL;
        if (is_null(iov[i].iov_base, iov[i].iov_len))
            return -EFAULT;
    }
    return 0;
}

static int
check_msg(const struct msghdr *msg)
{
    if (msg == NULL)
        return -EFAULT;
    return msg->msg_iovlen > IOV_MAX ? -EMSGSIZE : 0;
}

static ssize_t
recv_flat(struct obj *o, void *buf, size_t n, int flags)
{
    struct iovec iov = { buf, n > IO_MAX ? IO_MAX : n };

    if (is_null(buf, n) && !(flags & MSG_TRUNC)) /* which drops the bytes */
        return end(o, -EFAULT);
    return end(o, sock_recvv(o, &iov, 1, flags));
}

static ssize_t
send_flat(struct obj *o, const void *buf, size_t n, int flags)
{
    struct iovec iov = { (void *)(uintptr_t)buf, n > IO_MAX ? IO_MAX : n };

    if (is_null(buf, n))
        return end(o, -EFAULT);
    return end_send(o, sock_sendv(o, &iov, 1, flags), flags);
}

static ssize_t
recv_iov(struct obj *o, const struct iovec *iov, size_t n, int flags)
{
    int rc = check_iov(iov, n);

    return rc != 0 ? rc : sock_recvv(o, iov, n, flags);
}

/* Nothing in any part: readv and writev do not come to the socket, as in Linux, whatever its state. */
static bool
is_empty(const struct iovec *iov, size_t n)
{
    size_t i, total = 0;

    if (check_iov(iov, n) != 0)
        return false;
    for (i = 0; i < n; i++)
        total += iov[i].iov_len;
    return total == 0;
}

static ssize_t
send_iov(struct obj *o, const struct iovec *iov, size_t n, int flags)
{
    int rc = check_iov(iov, n);

    return rc != 0 ? rc : sock_sendv(o, iov, n, flags);
}

static ssize_t
send_message(struct obj *o, const struct msghdr *msg, int flags)
{
    int rc = check_msg(msg);

    return rc != 0 ? rc : send_iov(o, msg->msg_iov, msg->msg_iovlen, flags);
}

/*
 * What most calls are, done without waiting where one thread alone uses the front-end; else, and if there is something to find out, nothing is done, and the long way follows, with
 * *o, held, or NULL if that is not known. The long ways are apart, so that the short ones keep no registers for them.
 */
static inline ssize_t
recv_at_once(int fd, void *buf, size_t n, int flags, struct obj **o)
{
    uint32_t term;
    ssize_t got;

    *o = fd_enter_stack(fd, &term);
    if (*o == NULL)
        return -1;
    got = sock_recv_at_once((*o)->slot, buf, n, flags);
    if (FRONT_LIKELY(got >= 0))
        fd_leave(*o, term);
    else
        sole_leave(term);
    return got;
}

static inline bool
send_at_once(int fd, const void *buf, size_t n, int flags, struct obj **o)
{
    uint32_t term;
    bool sent;

    *o = fd_enter_stack(fd, &term);
    if (*o == NULL)
        return false;
    sent = sock_send_at_once((*o)->slot, buf, n, flags);
    if (FRONT_LIKELY(sent))
        fd_leave(*o, term);
    else
        sole_leave(term);
    return sent;
}

#define APART static __attribute__((noinline)) ssize_t

APART
read_long(struct obj *held, int fd, void *buf, size_t n)
{
    struct obj *o = held != NULL ? held : fd_get_stack(fd);

    return o == NULL ? libc()->read(fd, buf, n) : recv_flat(o, buf, n, 0);
}

APART
recv_long(struct obj *held, int fd, void *buf, size_t n, int flags)
{
    struct obj *o = held != NULL ? held : fd_get_stack(fd);

    return o == NULL ? libc()->recv(fd, buf, n, flags) : recv_flat(o, buf, n, flags);
}

APART
write_long(struct obj *held, int fd, const void *buf, size_t n)
{
    struct obj *o = held != NULL ? held : fd_get_stack(fd);

    return o == NULL ? libc()->write(fd, buf, n) : send_flat(o, buf, n, 0);
}

APART
send_long(struct obj *held, int fd, const void *buf, size_t n, int flags)
{
    struct obj *o = held != NULL ? held : fd_get_stack(fd);

    return o == NULL ? libc()->send(fd, buf, n, flags) : send_flat(o, buf, n, flags);
}

/* ---- receiving ---------------------------------------------------------------------------------------------------------- */

ssize_t
iso_read(int fd, void *buf, size_t n)
{
    struct obj *o;
    ssize_t got = recv_at_once(fd, buf, n, 0, &o);

    return FRONT_LIKELY(got >= 0) ? got : read_long(o, fd, buf, n);
}

ssize_t
iso_readv(int fd, const struct iovec *iov, int iovcnt)
{
    struct obj *o = fd_get_stack(fd);

    if (o == NULL)
        return libc()->readv(fd, iov, iovcnt);
    return end(o, is_empty(iov, (size_t)iovcnt) ? 0 : recv_iov(o, iov, (size_t)iovcnt, 0));
}

ssize_t
iso_recv(int fd, void *buf, size_t n, int flags)
{
    struct obj *o;
    ssize_t got = recv_at_once(fd, buf, n, flags, &o);

    return FRONT_LIKELY(got >= 0) ? got : recv_long(o, fd, buf, n, flags);
}

/* A connected TCP socket names no sender. */
ssize_t
iso_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *addr, socklen_t *len)
{
    struct obj *o = fd_get_stack(fd);

    if (o == NULL)
        return libc()->recvfrom(fd, buf, n, flags, addr, len);
    if (len != NULL)
        *len = 0;
    return recv_flat(o, buf, n, flags);
}

static ssize_t
recv_message(struct obj *o, struct msghdr *msg, int flags)
{
    ssize_t n = check_msg(msg);

    if (n == 0 && (flags & MSG_ERRQUEUE)) {
        msg->msg_namelen = 0;
        return sock_recv_errqueue(o->slot, msg);
    }
    if (n == 0)
        n = check_iov(msg->msg_iov, msg->msg_iovlen);
    return n != 0 ? n : sock_recvmsg(o, msg, flags);
}

ssize_t
iso_recvmsg(int fd, struct msghdr *msg, int flags)
{
    struct obj *o = fd_get_stack(fd);

    return o == NULL ? libc()->recvmsg(fd, msg, flags) : end(o, recv_message(o, msg, flags));
}

int
iso_recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout)
{
    struct obj *o = fd_get_stack(fd);
    uint64_t deadline_us = WAIT_FOREVER;
    ssize_t rc = 0;
    unsigned i;

    if (o == NULL)
        return libc()->recvmmsg(fd, msgs, n, flags, timeout);
    if (timeout != NULL)
        deadline_us = wait_now_us() + (uint64_t)timeout->tv_sec * 1000000u + (uint64_t)timeout->tv_nsec / 1000u;
    /* As in Linux, the timeout is looked at between messages. */
    for (i = 0; i < n && (i == 0 || deadline_us == WAIT_FOREVER || wait_now_us() < deadline_us); i++) {
        rc = recv_message(o, &msgs[i].msg_hdr, flags & ~MSG_WAITFORONE);
        if (rc < 0)
            break;
        msgs[i].msg_len = (unsigned)rc;
        if (flags & MSG_WAITFORONE)
            flags |= MSG_DONTWAIT;
        if (rc == 0) {
            i++;
            break; /* the end of the stream comes once */
        }
    }
    return (int)end(o, i > 0 ? (ssize_t)i : rc);
}

/* ---- sending ------------------------------------------------------------------------------------------------------------ */

ssize_t
iso_write(int fd, const void *buf, size_t n)
{
    struct obj *o;

    return FRONT_LIKELY(send_at_once(fd, buf, n, 0, &o)) ? (ssize_t)n : write_long(o, fd, buf, n);
}

ssize_t
iso_writev(int fd, const struct iovec *iov, int iovcnt)
{
    struct obj *o = fd_get_stack(fd);

    if (o == NULL)
        return libc()->writev(fd, iov, iovcnt);
    return end_send(o, is_empty(iov, (size_t)iovcnt) ? 0 : send_iov(o, iov, (size_t)iovcnt, 0), 0);
}

ssize_t
iso_send(int fd, const void *buf, size_t n, int flags)
{
    struct obj *o;

    return FRONT_LIKELY(send_at_once(fd, buf, n, flags, &o)) ? (ssize_t)n : send_long(o, fd, buf, n, flags);
}

/* MSG_FASTOPEN: it connects too, so a socket of the kernel's may have to change sides. */
static ssize_t
send_fast(int fd, const struct msghdr *msg, int flags)
{
    struct obj *o = fd_get_kind(fd, OBJ_SOCK);
    int rc;

    if (o == NULL)
        return libc()->sendmsg(fd, msg, flags);
    rc = check_msg(msg);
    if (rc == 0)
        rc = check_iov(msg->msg_iov, msg->msg_iovlen);
    if (rc == 0)
        rc = sock_side_for(o, fd, msg->msg_name, msg->msg_namelen);
    if (rc == 0) {
        obj_put(o);
        return libc()->sendmsg(fd, msg, flags);
    }
    return end_send(
        o, rc < 0 ? rc : sock_sendv_fast(o, fd, msg->msg_iov, msg->msg_iovlen, flags, msg->msg_name, msg->msg_namelen),
        flags);
}

/* TCP ignores the address of a connected socket, as Linux does. */
ssize_t
iso_sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr, socklen_t len)
{
    struct obj *o;

    if (FRONT_UNLIKELY(flags & MSG_FASTOPEN)) {
        struct iovec iov = { (void *)(uintptr_t)buf, n };
        struct msghdr msg = {
            .msg_name = (void *)(uintptr_t)addr, .msg_namelen = len, .msg_iov = &iov, .msg_iovlen = 1
        };

        return send_fast(fd, &msg, flags);
    }
    o = fd_get_stack(fd);
    return o == NULL ? libc()->sendto(fd, buf, n, flags, addr, len) : send_flat(o, buf, n, flags);
}

ssize_t
iso_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct obj *o;

    if (FRONT_UNLIKELY(flags & MSG_FASTOPEN))
        return send_fast(fd, msg, flags);
    o = fd_get_stack(fd);
    return o == NULL ? libc()->sendmsg(fd, msg, flags) : end_send(o, send_message(o, msg, flags), flags);
}

int
iso_sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
    struct obj *o = fd_get_stack(fd);
    ssize_t rc = 0;
    unsigned i;

    if (o == NULL)
        return libc()->sendmmsg(fd, msgs, n, flags);
    for (i = 0; i < n; i++) {
        rc = send_message(o, &msgs[i].msg_hdr, flags);
        if (rc < 0)
            break;
        msgs[i].msg_len = (unsigned)rc;
    }
    return (int)(i > 0 ? end(o, (ssize_t)i) : end_send(o, rc, flags));
}

/* ---- from descriptor to descriptor -------------------------------------------------------------------------------------- */

static ssize_t
fill_from_file(struct tx_source *s, char *dst, size_t n)
{
    ssize_t got = s->offset != NULL ? libc()->pread(s->fd, dst, n, *s->offset) : libc()->read(s->fd, dst, n);

    if (got < 0)
        return -errno;
    if (s->offset != NULL)
        *s->offset += got;
    return got;
}

ssize_t
iso_sendfile(int out_fd, int in_fd, off_t *offset, size_t n)
{
    struct obj *o = fd_get_stack(out_fd), *in = fd_get_stack(in_fd);
    struct tx_source src = { .fill = fill_from_file, .left = n > IO_MAX ? IO_MAX : n, .fd = in_fd, .offset = offset };

    if (in != NULL) { /* a socket is no file; Linux says so too */
        if (o != NULL)
            obj_put(o);
        return end(in, -EINVAL);
    }
    if (o == NULL)
        return libc()->sendfile(out_fd, in_fd, offset, n);
    return n == 0 ? end(o, 0) : end_send(o, sock_send_from(o, &src, 0), 0);
}

/* A pipe's bytes: there is at least one (poll said so) unless another reader was quicker, which RWF_NOWAIT turns into EAGAIN. */
static ssize_t
fill_from_pipe(struct tx_source *s, char *dst, size_t n)
{
    struct pollfd p = { .fd = s->fd, .events = POLLIN };
    ssize_t got;

    if (libc()->poll(&p, 1, 0) == 0)
        return -EAGAIN;
    got = libc()->read(s->fd, dst, n);
    return got < 0 ? -errno : got;
}

static int
wait_for_pipe(int fd, short events, bool wait)
{
    struct pollfd p = { .fd = fd, .events = events };
    int rc = libc()->poll(&p, 1, wait ? -1 : 0);

    return rc > 0 ? 0 : rc == 0 ? -EAGAIN : -errno;
}

static bool
pipe_waits(int fd, unsigned flags)
{
    int fl = libc()->fcntl(fd, F_GETFL);

    return !(flags & SPLICE_F_NONBLOCK) && fl >= 0 && !(fl & O_NONBLOCK);
}

/* From the socket into a pipe: copied by way of the stack; only what the pipe took is taken from the stream. */
static ssize_t
splice_to_pipe(struct obj *o, int fd, size_t n, unsigned flags)
{
    char buf[PIPE_BUF];
    ssize_t moved = 0, got = 0;
    int rc;

    /* Once something is moved, what there is no more of is left to the next call: that an error is told, is told to one only. */
    while ((size_t)moved < n && (moved == 0 || sock_rx_bytes(o->slot) > 0)) {
        struct iovec iov = { buf, n - (size_t)moved < sizeof(buf) ? n - (size_t)moved : sizeof(buf) };

        got = sock_recvv(o, &iov, 1, MSG_PEEK | (moved > 0 || (flags & SPLICE_F_NONBLOCK) ? MSG_DONTWAIT : 0));
        if (got <= 0)
            break;
        rc = wait_for_pipe(fd, POLLOUT, moved == 0 && pipe_waits(fd, flags));
        if (rc == 0)
            got = libc()->write(fd, buf, (size_t)got); /* not above PIPE_BUF: whole or not at all */
        if (rc != 0 || got < 0) {
            got = rc != 0 ? rc : -errno;
            break;
        }
        iov.iov_len = (size_t)got;
        got = sock_recvv(o, &iov, 1, MSG_DONTWAIT);
        if (got < 0)
            break;
        moved += got;
    }
    return moved > 0 ? moved : got;
}

ssize_t
iso_splice(int in_fd, __off64_t *in_off, int out_fd, __off64_t *out_off, size_t n, unsigned flags)
{
    struct obj *out = fd_get_stack(out_fd), *in = fd_get_stack(in_fd);
    struct tx_source src = { .fill = fill_from_pipe, .left = n > IO_MAX ? IO_MAX : n, .fd = in_fd };
    int rc, msg_flags = (flags & SPLICE_F_MORE ? MSG_MORE : 0) | (flags & SPLICE_F_NONBLOCK ? MSG_DONTWAIT : 0);

    if (out == NULL && in == NULL)
        return libc()->splice(in_fd, in_off, out_fd, out_off, n, flags);
    if (in_off != NULL || out_off != NULL || (out != NULL && in != NULL)) {
        if (out != NULL && in != NULL)
            obj_put(out);
        return end(in != NULL ? in : out, in_off != NULL || out_off != NULL ? -ESPIPE : -EINVAL);
    }
    if (n == 0)
        return end(in != NULL ? in : out, 0);
    if (in != NULL) {
        ssize_t moved = splice_to_pipe(in, out_fd, n, flags);

        if (moved == -EPIPE)
            raise(SIGPIPE);
        return end(in, moved);
    }
    rc = wait_for_pipe(in_fd, POLLIN, pipe_waits(in_fd, flags));
    return rc != 0 ? end(out, rc) : end_send(out, sock_send_from(out, &src, msg_flags), 0);
}

/* ---- without a copy ------------------------------------------------------------------------------------------------------ */

static ssize_t
not_ours(void)
{
    errno = EOPNOTSUPP;
    return -1;
}

ssize_t
iso_send_reserve(int fd, void **at, size_t n, int flags)
{
    struct obj *o = fd_get_stack(fd);

    return o == NULL ? not_ours() : end_send(o, sock_reserve(o, at, n, flags), flags);
}

int
iso_send_commit(int fd, size_t n, int flags)
{
    struct obj *o = fd_get_stack(fd);

    return (int)(o == NULL ? not_ours() : end_send(o, sock_commit(o, n, flags), flags));
}

ssize_t
iso_recv_borrow(int fd, struct iovec *iov, int *iovcnt, int flags)
{
    struct obj *o = fd_get_stack(fd);

    return o == NULL ? not_ours() : end(o, sock_borrow(o, iov, iovcnt, flags));
}

int
iso_recv_return(int fd, size_t n)
{
    struct obj *o = fd_get_stack(fd);

    return (int)(o == NULL ? not_ours() : end(o, sock_return(o, n)));
}
