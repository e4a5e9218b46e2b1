/* SPDX-License-Identifier: BSD-3-Clause */
#include "isosock.h"

#include <errno.h>
#include <netinet/in.h>

#include "api.h"
#include "libc.h"
#include "promise.h"
#include "sock.h"

int
iso_socket(int domain, int type, int protocol)
{
    const struct spare_kind kind = { .v6 = domain == AF_INET6, .nonblock = (type & SOCK_NONBLOCK) != 0 };
    bool is_tcp = (domain == AF_INET || domain == AF_INET6) &&
                  (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM && (protocol == 0 || protocol == IPPROTO_TCP);
    uint8_t place = 0;
    int fd;

    if (is_tcp && front->own_descriptors && !load_relaxed(&front->dead)) {
        fd = sock_open_own(kind);
        errno = fd < 0 ? -fd : errno;
        return fd < 0 ? -1 : fd;
    }
    fd = is_tcp ? spare_lend(kind, (type & SOCK_CLOEXEC) != 0, &place) : -1;

    if (fd < 0)
        fd = libc()->socket(domain, type, protocol);
    if (fd < 0)
        return fd;
    fd_remove(fd); /* a close that went past us (a bare system call) */
    if (is_tcp)
        sock_track(fd, kind, place);
    return fd;
}

int
iso_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct obj *o = fd_get_kind(fd, OBJ_SOCK);

    return o == NULL ? libc()->bind(fd, addr, len) : api_put(o, sock_bind(o, fd, addr, len));
}

int
iso_listen(int fd, int backlog)
{
    struct obj *o = fd_get_kind(fd, OBJ_SOCK);

    return o == NULL ? libc()->listen(fd, backlog) : api_put(o, sock_listen(o, fd, backlog));
}

int
iso_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    struct obj *o;
    int rc;

    if (!promise_settle_fd(fd))
        return -1;
    o = fd_get_stack(fd);
    if (o != NULL)
        return api_put(o, sock_accept(o, fd, addr, len, flags));
    rc = libc()->accept4(fd, addr, len, flags);
    if (rc >= 0)
        fd_remove(rc);
    return rc;
}

int
iso_accept(int fd, struct sockaddr *addr, socklen_t *len)
{
    return iso_accept4(fd, addr, len, 0);
}

int
iso_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct obj *o = fd_get_kind(fd, OBJ_SOCK);

    return o == NULL ? libc()->connect(fd, addr, len) : api_put(o, sock_connect(o, fd, addr, len));
}

int
iso_shutdown(int fd, int how)
{
    struct obj *o = fd_get_stack(fd);

    return o == NULL ? libc()->shutdown(fd, how) : api_put(o, sock_shutdown(o, fd, how));
}

int
iso_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    struct obj *o = fd_get_kind(fd, OBJ_SOCK);
    int rc;

    if (o == NULL)
        return libc()->getsockname(fd, addr, len);
    rc = promise_name(o, addr, len);
    if (rc == -EAGAIN && o->where == SOCK_KERNEL)
        rc = libc()->getsockname(fd, addr, len) < 0 ? -errno : 0;
    else if (rc == -EAGAIN)
        rc = sock_name(o, fd, addr, len, false);
    return api_put(o, rc);
}

int
iso_getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
    struct obj *o = fd_get_stack(fd);

    return o == NULL ? libc()->getpeername(fd, addr, len) : api_put(o, sock_name(o, fd, addr, len, true));
}

int
iso_getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
    struct obj *o = fd_get_stack(fd);

    return o == NULL ? libc()->getsockopt(fd, level, name, val, len)
                     : api_put(o, sock_getsockopt(o, fd, level, name, val, len));
}

int
iso_setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
    struct obj *o = fd_get_kind(fd, OBJ_SOCK);
    int rc;

    if (o == NULL)
        return libc()->setsockopt(fd, level, name, val, len);
    if (o->where != SOCK_KERNEL)
        return api_put(o, sock_setsockopt(o, fd, level, name, val, len));
    rc = libc()->setsockopt(fd, level, name, val, len) < 0 ? -errno : 0;
    if (rc == 0)
        rc = opts_note(o, level, name, val, len);
    return api_put(o, rc);
}
