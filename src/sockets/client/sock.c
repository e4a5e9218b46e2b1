/* SPDX-License-Identifier: BSD-3-Clause */
#include "sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "ip/addr.h"
#include "tcp/tcp.h"

#include "epoll.h"
#include "libc.h"
#include "lock.h"
#include "evq.h"
#include "pollset.h"
#include "promise.h"

int
sock_track(int fd, struct spare_kind kind, uint8_t place)
{
    struct obj *o = obj_create(OBJ_SOCK);

    if (o == NULL)
        return fd; /* no memory for the table: the kernel alone serves it */
    o->v6 = kind.v6;
    o->nonblock = kind.nonblock;
    o->spare = place;
    if (!fd_install(fd, o))
        obj_put(o);
    return fd;
}

/* ---- changing sides --------------------------------------------------------------------------------------------------- */

/* A socket in the stack with the options of the kernel's. Returns the slot, or -errno. */
static int64_t
open_slot(const struct obj *o, int fd)
{
    uint32_t slot = slot_alloc();
    struct slot_hot *h;
    int rc, fl;

    if (slot == SHM_NO_SLOT)
        return -ENFILE;
    h = slot_hot(front_sock(slot));
    fl = o->used_by_kernel ? libc()->fcntl(fd, F_GETFL) : (o->nonblock ? O_NONBLOCK : 0);
    h->flags = (o->v6 ? SLOT_V6 : 0) | (fl >= 0 && (fl & O_NONBLOCK) ? SLOT_NONBLOCK : 0);
    rc = command_simple(slot, SHM_OP_OPEN, 0);
    if (rc != 0) {
        slot_free(slot);
        return rc;
    }
    slot_opened(slot);
    rc = opts_carry_over(o, fd, slot);
    if (rc != 0) {
        struct shm_cmd close_cmd = { .op = SHM_OP_CLOSE };

        command_run(slot, &close_cmd, false);
        slot_closing(slot);
        return rc;
    }
    return slot;
}

static void
abandon_slot(uint32_t slot)
{
    struct shm_cmd cmd = { .op = SHM_OP_CLOSE };

    command_run(slot, &cmd, false);
    slot_closing(slot);
}

static void
change_side(struct obj *o, uint32_t slot, enum sock_where where)
{
    o->slot = slot;
    evq_set_sock(slot, o);
    __atomic_store_n(&o->where, (uint8_t)where, __ATOMIC_RELEASE);
    epoll_sock_moved(o);
}

int
sock_open_own(struct spare_kind kind)
{
    struct obj *o = obj_create(OBJ_SOCK);
    int64_t slot;

    if (o == NULL)
        return -ENFILE;
    o->v6 = kind.v6;
    o->nonblock = kind.nonblock;
    slot = open_slot(o, -1);
    if (slot < 0) {
        obj_put(o);
        return (int)slot;
    }
    change_side(o, (uint32_t)slot, SOCK_STACK);
    front_joined = true;
    return fd_install_own(o);
}

static int
command_addr(uint32_t slot, enum shm_op op, const struct shm_addr *a)
{
    struct shm_cmd cmd = { .op = (uint8_t)op };

    cmd.sa = *a;
    return command_run(slot, &cmd, true);
}

/* Bind and change sides; the kernel's socket stays as the descriptor. */
static int
move_to_stack(struct obj *o, int fd, const struct shm_addr *bind_to)
{
    int64_t slot = open_slot(o, fd);
    int rc = slot < 0 ? (int)slot : 0;

    if (rc == 0 && bind_to != NULL) {
        rc = command_addr((uint32_t)slot, SHM_OP_BIND, bind_to);
        if (rc != 0)
            abandon_slot((uint32_t)slot);
    }
    if (rc == 0) {
        change_side(o, (uint32_t)slot, SOCK_STACK);
        spare_swap(o, fd);
    }
    return rc;
}

static bool
is_loopback(const struct shm_addr *a)
{
    struct ip_addr ip = { { a->addr[0], a->addr[1], a->addr[2], a->addr[3] } };

    if (ip_addr_is_v4(&ip))
        return ntohl(ip_addr_to_v4(&ip)) >> 24 == 127;
    return a->addr[0] == 0 && a->addr[1] == 0 && a->addr[2] == 0 && ntohl(a->addr[3]) == 1;
}

static int
from_libc(int rc)
{
    return rc < 0 ? -errno : rc;
}

static int
bind_in_stack(struct obj *o, int fd, const struct shm_addr *a)
{
    int rc = front_is_planned() ? promise_bind(o, a) : -EAGAIN;

    if (rc == 0)
        return 0;
    return front_attach() ? move_to_stack(o, fd, a) : -EADDRNOTAVAIL;
}

static int
bind_kernel_sock(struct obj *o, int fd, const struct sockaddr *sa, socklen_t len)
{
    struct shm_addr a;
    int rc;

    if (o->promised)
        return -EINVAL;
    if (!addr_in(sa, len, &a)) {
        sock_used_by_kernel(o);
        return from_libc(libc()->bind(fd, sa, len));
    }
    if (!addr_is_any(&a) && !is_loopback(&a) && !o->settled && !o->wildcard && front_expect() && route_is_stack(&a))
        return bind_in_stack(o, fd, &a);
    sock_used_by_kernel(o);
    rc = from_libc(libc()->bind(fd, sa, len));
    if (rc == 0) {
        o->wildcard = addr_is_any(&a);
        o->settled = !o->wildcard;
    }
    return rc;
}

/* It is the stack's already: the stack knows whether it is bound. */
static int
bind_own_sock(const struct obj *o, const struct sockaddr *sa, socklen_t len)
{
    struct shm_addr a;

    return addr_in(sa, len, &a) ? command_addr(o->slot, SHM_OP_BIND, &a) : -EINVAL;
}

int
sock_bind(struct obj *o, int fd, const struct sockaddr *sa, socklen_t len)
{
    int rc = -EINVAL;

    if (!lock_acquire(&o->bind_lock))
        return -EINVAL;
    if (o->where == SOCK_KERNEL)
        rc = bind_kernel_sock(o, fd, sa, len);
    else if (fd_is_own(fd))
        rc = bind_own_sock(o, sa, len);
    lock_release(&o->bind_lock);
    return rc;
}

/* ---- listen ------------------------------------------------------------------------------------------------------------- */

static int
stack_listen(uint32_t slot, int backlog)
{
    int rc = command_simple(slot, SHM_OP_LISTEN, backlog);

    if (rc == 0)
        __atomic_or_fetch(&slot_hot(front_sock(slot))->flags, SLOT_LISTENER, __ATOMIC_RELEASE);
    return rc;
}

/* The address that a wildcard socket of the kernel's would have in the stack: any, and its port. */
static int
wildcard_of(int fd, struct shm_addr *a)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);

    if (libc()->getsockname(fd, (struct sockaddr *)&ss, &len) != 0)
        return -errno;
    if (!addr_in((struct sockaddr *)&ss, len, a))
        return -EINVAL;
    a->addr[2] = IP_ADDR_V4_PREFIX;
    return 0;
}

static bool
is_v6_only(const struct obj *o, int fd)
{
    int only = 0;
    socklen_t len = sizeof(only);

    return o->v6 && libc()->getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &len) == 0 && only;
}

/* A wildcard listener: the kernel listens already, now the stack does too. */
static int
listen_in_stack_too(struct obj *o, int fd, int backlog)
{
    struct shm_addr a;
    int64_t slot;
    int rc = wildcard_of(fd, &a), fl;

    if (rc != 0)
        return rc;
    slot = open_slot(o, fd);
    if (slot < 0)
        return (int)slot;
    rc = command_addr((uint32_t)slot, SHM_OP_BIND, &a);
    if (rc == 0)
        rc = stack_listen((uint32_t)slot, backlog);
    if (rc != 0) {
        abandon_slot((uint32_t)slot);
        return rc;
    }
    /* accept() asks the kernel without waiting there; what the program sees of O_NONBLOCK is in the slot. */
    fl = libc()->fcntl(fd, F_GETFL);
    if (fl >= 0)
        libc()->fcntl(fd, F_SETFL, fl | O_NONBLOCK);
    change_side(o, (uint32_t)slot, SOCK_BOTH);
    return 0;
}

static int
listen_kernel_sock(struct obj *o, int fd, int backlog)
{
    int rc;

    if (o->promised && !o->wildcard)
        return promise_listen(o, backlog);
    sock_used_by_kernel(o);
    rc = from_libc(libc()->listen(fd, backlog));
    if (rc != 0 || o->settled || is_v6_only(o, fd) || !front_expect() || front->dead)
        return rc;
    if (front_is_planned() && promise_listen(o, backlog) == 0)
        return 0;
    if (!front_attach())
        return rc;
    rc = listen_in_stack_too(o, fd, backlog);
    if (rc != 0)
        libc()->shutdown(fd, SHUT_RDWR); /* it must not listen in half of the places that it says */
    return rc;
}

int
sock_listen(struct obj *o, int fd, int backlog)
{
    int rc = 0;

    if (!lock_acquire(&o->bind_lock))
        return -EINVAL;
    if (o->where == SOCK_KERNEL)
        rc = listen_kernel_sock(o, fd, backlog);
    else {
        if (o->where == SOCK_BOTH)
            rc = from_libc(libc()->listen(fd, backlog));
        if (rc == 0)
            rc = stack_listen(o->slot, backlog);
    }
    lock_release(&o->bind_lock);
    return rc;
}

int
sock_keep_promise(struct obj *o, int fd, const struct shm_addr *a, bool listens, int backlog)
{
    int rc;

    if (a == NULL)
        return listen_in_stack_too(o, fd, backlog);
    rc = move_to_stack(o, fd, a);
    return rc == 0 && listens ? stack_listen(o->slot, backlog) : rc;
}

/* ---- connect ------------------------------------------------------------------------------------------------------------ */

static bool
connect_is_over(uint32_t slot)
{
    return (load_acquire(&back_sock(slot)->status) & (SHM_ST_CONNECTED | SHM_ST_ERROR)) || load_relaxed(&front->dead);
}

/* connect() was called on this socket before: what does it say now? 1 = wait for it. */
static int
connect_again(uint32_t slot)
{
    struct slot_hot *h = slot_hot(front_sock(slot));
    uint32_t st = load_acquire(&back_sock(slot)->status);
    int err;

    if (h->flags & SLOT_CONNECT_TOLD)
        return -EISCONN; /* what became of it since is another call's to tell */
    err = sock_take_error(slot);
    if (!(st & SHM_ST_CONNECTED) && (err != 0 || st & SHM_ST_ERROR || load_relaxed(&front->dead))) {
        __atomic_or_fetch(&h->flags, SLOT_CONNECT_FAILED, __ATOMIC_RELEASE);
        return err != 0 ? err : -ECONNABORTED; /* SO_ERROR has told it */
    }
    if (err != 0)
        return err;
    if (st & SHM_ST_CONNECTED)
        return __atomic_fetch_or(&h->flags, SLOT_CONNECT_TOLD, __ATOMIC_ACQ_REL) & SLOT_CONNECT_TOLD ? -EISCONN : 0;
    return h->flags & SLOT_NONBLOCK ? -EALREADY : 1;
}

static int
connect_wait(uint32_t slot, int flags)
{
    uint64_t deadline_us = sock_deadline(slot, true, flags);
    int rc;

    if (deadline_us == 0)
        return -EINPROGRESS; /* even if it is over: Linux does not say so here */
    rc = wait_sock(slot, WAIT_WRITE, connect_is_over, deadline_us);
    if (rc == -EAGAIN)
        return -EINPROGRESS; /* SO_SNDTIMEO has passed */
    if (rc == -EINTR)
        return rc;
    /* The handshake's last ACK may wait for what this thread sends; but a program that blocks may do so much later. */
    if (rc == 0 && front->local != NULL && (load_acquire(&back_sock(slot)->status) & SHM_ST_CONNECTED))
        for (unsigned i = 0; i < TCP_HELD_PASSES; i++)
            front->local->pass();
    rc = connect_again(slot);
    return rc == 1 ? -ENETDOWN : rc;
}

/* A connection that failed before it was made leaves the socket fresh, as in Linux. */
static int
reopen_if_failed(struct obj *o, int fd)
{
    uint32_t old = o->slot;
    int64_t slot;

    if (!(load_acquire(&slot_hot(front_sock(old))->flags) & SLOT_CONNECT_FAILED) || load_relaxed(&front->dead))
        return 0;
    slot = open_slot(o, fd);
    if (slot < 0)
        return (int)slot;
    slot_hot(front_sock((uint32_t)slot))->flags = (slot_hot(front_sock((uint32_t)slot))->flags & SLOT_OPTS) |
                                                  (slot_hot(front_sock(old))->flags & (SLOT_NONBLOCK | SLOT_V6));
    change_side(o, (uint32_t)slot, SOCK_STACK);
    abandon_slot(old);
    return 0;
}

/* Post a Fast Open; src NULL: there is no data yet. Returns as SHM_OP_CONNECT_FAST does. */
static int
post_fast(uint32_t slot, const struct shm_addr *a, const struct tx_source *src)
{
    struct shm_cmd cmd = { .op = SHM_OP_CONNECT_FAST };

    cmd.sa = *a;
    cmd.sa.n_bytes = src != NULL ? (uint16_t)send_stage(slot, src) : SHM_FAST_DEFER;
    return command_run(slot, &cmd, true);
}

/* TCP_FASTOPEN_CONNECT: 1 = the connection waits for the first bytes, 0 = it is being made, and asks for a cookie if that is of use. */
static int
connect_or_defer(uint32_t slot, const struct shm_addr *a)
{
    int rc = post_fast(slot, a, NULL);

    if (rc == -EOPNOTSUPP)
        return command_addr(slot, SHM_OP_CONNECT, a);
    if (rc != -EAGAIN)
        return rc;
    opts_own(slot)->deferred = *a;
    __atomic_or_fetch(&slot_hot(front_sock(slot))->flags, SLOT_DEFERRED, __ATOMIC_RELEASE);
    return 1;
}

static int
connect_fast(uint32_t slot, const struct shm_addr *a, struct tx_source *src, ssize_t *sent)
{
    int rc = post_fast(slot, a, src);

    send_staged(slot, src, rc > 0 ? (uint32_t)rc : 0);
    if (rc <= 0)
        return rc;
    *sent += rc;
    return 0;
}

/* fast: bytes that may go with the SYN, and how many did are added to *sent; NULL: connect(). */
static int
connect_in_stack(struct obj *o, int fd, const struct shm_addr *a, struct tx_source *fast, int flags, ssize_t *sent)
{
    struct slot_hot *h;
    int rc = reopen_if_failed(o, fd);

    if (rc != 0)
        return rc;
    h = slot_hot(front_sock(o->slot));
    if (h->flags & (SLOT_LISTENER | SLOT_DEFERRED))
        return -EISCONN;
    if (h->flags & SLOT_CONNECTING) {
        rc = connect_again(o->slot);
        return rc == 1 ? connect_wait(o->slot, flags) : rc;
    }
    if (load_acquire(&back_sock(o->slot)->status) & SHM_ST_CONNECTED)
        return -EISCONN;
    if (fast != NULL)
        rc = connect_fast(o->slot, a, fast, sent);
    else
        rc = opts_fastopen_connect(o->slot) ? connect_or_defer(o->slot, a) : command_addr(o->slot, SHM_OP_CONNECT, a);
    if (rc != 0)
        return rc > 0 ? 0 : rc;
    __atomic_or_fetch(&h->flags, SLOT_CONNECTING, __ATOMIC_RELEASE);
    return connect_wait(o->slot, flags);
}

int
sock_connect_deferred(struct obj *o, struct tx_source *src, int flags, ssize_t *sent)
{
    struct slot_hot *h = slot_hot(front_sock(o->slot));
    int rc = 0;

    /* Of several writers one connects; the others wait for it like for any connection. */
    if (!lock_acquire(&o->bind_lock))
        return -EAGAIN;
    if (load_acquire(&h->flags) & SLOT_DEFERRED) {
        rc = connect_fast(o->slot, &slot_opts(o->slot)->deferred, src, sent);
        if (rc == 0)
            __atomic_or_fetch(&h->flags, SLOT_CONNECTING, __ATOMIC_RELEASE);
        __atomic_and_fetch(&h->flags, ~SLOT_DEFERRED, __ATOMIC_RELEASE);
    }
    lock_release(&o->bind_lock);
    return rc != 0 ? rc : connect_wait(o->slot, flags);
}

/* Where does a connection from this kernel socket go? Moves the socket if it goes through the stack. */
static int
choose_side(struct obj *o, int fd, const struct shm_addr *a)
{
    struct shm_addr bound;
    int rc = 0;

    if (!lock_acquire(&o->bind_lock))
        return -EINVAL;
    if (o->where == SOCK_KERNEL && !o->settled && !is_loopback(a) && front_expect() && route_by_stack(a) &&
        front_attach() && o->where == SOCK_KERNEL) {
        if (o->wildcard)
            rc = wildcard_of(fd, &bound);
        if (rc == 0)
            rc = move_to_stack(o, fd, o->wildcard ? &bound : NULL);
    }
    lock_release(&o->bind_lock);
    return rc;
}

/* What Linux says to an address that addr_in refuses. */
static int
bad_address(const struct sockaddr *sa, socklen_t len)
{
    if (len > sizeof(struct sockaddr_storage))
        return -EINVAL;
    if (sa == NULL)
        return len > 0 ? -EFAULT : -EINVAL;
    if (len < sizeof(sa->sa_family) || sa->sa_family == AF_INET || sa->sa_family == AF_INET6)
        return -EINVAL;
    return -EAFNOSUPPORT;
}

int
sock_side_for(struct obj *o, int fd, const struct sockaddr *sa, socklen_t len)
{
    struct shm_addr a;
    int rc = o->where == SOCK_KERNEL && addr_in(sa, len, &a) ? choose_side(o, fd, &a) : 0;

    if (rc == 0 && o->where == SOCK_KERNEL)
        sock_used_by_kernel(o);
    return rc != 0 ? rc : o->where != SOCK_KERNEL;
}

int
sock_connect(struct obj *o, int fd, const struct sockaddr *sa, socklen_t len)
{
    struct shm_addr a;
    bool ok = addr_in(sa, len, &a);
    int rc = sock_side_for(o, fd, sa, len);

    if (rc < 0)
        return rc;
    if (rc == 0) {
        rc = from_libc(libc()->connect(fd, sa, len));
        if (ok && (rc == 0 || rc == -EINPROGRESS))
            o->settled = 1;
        return rc;
    }
    if (!ok)
        return bad_address(sa, len);
    if (fd_is_own(fd) && is_loopback(&a))
        return -ENETUNREACH; /* that is the kernel's */
    return connect_in_stack(o, fd, &a, NULL, 0, NULL);
}

int
sock_connect_fast(struct obj *o, int fd, const struct sockaddr *sa, socklen_t len, struct tx_source *src, int flags,
                  ssize_t *sent)
{
    struct shm_addr a;

    if (!addr_in(sa, len, &a))
        return bad_address(sa, len);
    if (fd_is_own(fd) && is_loopback(&a))
        return -ENETUNREACH;
    return connect_in_stack(o, fd, &a, src, flags, sent);
}

/* ---- accept ------------------------------------------------------------------------------------------------------------- */

/* Take a connection from the stack into a slot. Returns the slot, or -errno. */
static int64_t
accept_slot(uint32_t listener)
{
    struct shm_cmd cmd = { .op = SHM_OP_ACCEPT };
    uint32_t slot;
    int rc;

    if (load_acquire(&back_sock(listener)->accept_ready) == 0)
        return -EAGAIN;
    slot = slot_alloc();
    if (slot == SHM_NO_SLOT)
        return -ENFILE;
    opts_inherit(slot, listener);
    cmd.slot = slot;
    rc = command_run(listener, &cmd, true);
    if (rc != 0) {
        slot_free(slot);
        return rc;
    }
    slot_opened(slot);
    return slot;
}

static void
name_out(const struct obj *o, enum shm_end end, struct sockaddr *sa, socklen_t *len)
{
    const struct shm_addr a = shm_name(&front->bnames[o->slot], &front->bmore[o->slot], end);

    sock_addr_out(&a, o->v6, sa, len);
}

/* A descriptor for a connection that the kernel will have nothing to do with. */
static int
placeholder_copy(bool cloexec)
{
    int holder = sock_placeholder();

    return holder < 0 ? holder : from_libc(libc()->fcntl(holder, cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, 0));
}

static int
accept_from_stack(const struct obj *o, struct sockaddr *sa, socklen_t *len, int flags)
{
    bool own = front->own_descriptors;
    int fd = own ? 0 : placeholder_copy((flags & SOCK_CLOEXEC) != 0);
    struct obj *conn;
    int64_t slot;

    if (fd < 0)
        return fd;
    conn = obj_create(OBJ_SOCK);
    slot = conn == NULL ? -ENFILE : accept_slot(o->slot);
    if (slot < 0) {
        if (conn != NULL)
            obj_put(conn);
        if (!own)
            libc()->close(fd);
        return (int)slot;
    }
    conn->v6 = o->v6;
    conn->used_by_kernel = 1; /* its descriptor is a copy of the placeholder */
    conn->slot = (uint32_t)slot;
    conn->where = SOCK_STACK;
    slot_hot(front_sock(conn->slot))->flags |=
        SLOT_CONNECT_TOLD | (o->v6 ? SLOT_V6 : 0) | (flags & SOCK_NONBLOCK ? SLOT_NONBLOCK : 0);
    evq_set_sock(conn->slot, conn);
    if (own)
        fd = fd_install_own(conn);
    else
        fd_install(fd, conn);
    if (sa != NULL)
        name_out(conn, SHM_PEER, sa, len);
    return fd;
}

/*
 * A listener fails only when the stack stops, and the control connection may show that a little later: it is looked at here, so that
 * nobody goes on asking a socket that is ready for ever and has nothing.
 */
static bool
listener_has_failed(uint32_t slot)
{
    if (load_relaxed(&front->dead))
        return true;
    if (!(load_acquire(&back_sock(slot)->status) & SHM_ST_ERROR))
        return false;
    front_check_alive();
    return true;
}

/* Neither waits; the one whose turn it is is asked first. */
static int
accept_from_either(struct obj *o, int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
    unsigned turn, i;
    int rc = -EAGAIN;

    if (o->where == SOCK_STACK)
        return listener_has_failed(o->slot) ? -ENETDOWN : accept_from_stack(o, sa, len, flags);
    turn = o->accept_turn++;
    for (i = 0; i < 2 && rc == -EAGAIN; i++) {
        if ((turn + i) % 2 == 0 && load_relaxed(&back_sock(o->slot)->accept_ready) != 0 &&
            !listener_has_failed(o->slot))
            rc = accept_from_stack(o, sa, len, flags);
        else if ((turn + i) % 2 == 1)
            rc = from_libc(libc()->accept4(fd, sa, len, flags));
    }
    return rc;
}

int
sock_accept(struct obj *o, int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
    struct slot_hot *h = slot_hot(front_sock(o->slot));
    uint64_t deadline_us = sock_deadline(o->slot, false, 0);
    bool failed;
    int rc;

    if (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC))
        return -EINVAL;
    if (sa != NULL && len == NULL)
        return -EFAULT;
    for (;;) {
        if (!(load_acquire(&h->flags) & SLOT_LISTENER) || (h->flags & SLOT_SHUT_RD))
            return -EINVAL;
        failed = listener_has_failed(o->slot);
        rc = o->where == SOCK_STACK && load_relaxed(&back_sock(o->slot)->accept_ready) == 0 && !failed
                 ? -EAGAIN
                 : accept_from_either(o, fd, sa, len, flags);
        if (rc != -EAGAIN)
            return rc;
        recv_flush_notice();
        if (deadline_us == 0) {
            if (front->local != NULL)
                front->local->tried();
            return -EAGAIN;
        }
        if (o->where == SOCK_BOTH)
            rc = poll_wait_fd(fd, POLLIN, deadline_us);
        else
            rc = wait_sock(o->slot, WAIT_READ, sock_can_read, deadline_us);
        if (rc < 0 && rc != -ENETDOWN)
            return rc;
    }
}

/* ---- the rest ----------------------------------------------------------------------------------------------------------- */

int
sock_shutdown(struct obj *o, int fd, int how)
{
    struct slot_hot *h = slot_hot(front_sock(o->slot));
    uint32_t set = 0;

    if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
        return -EINVAL;
    if (o->where == SOCK_BOTH)
        libc()->shutdown(fd, how);
    if (how != SHUT_WR)
        set |= SLOT_SHUT_RD;
    if (how != SHUT_RD && !(h->flags & SLOT_LISTENER))
        set |= SLOT_SHUT_WR;
    /* Before the command, which wakes those that are to see it. As in Linux it counts where there is no connection (ENOTCONN) too. */
    __atomic_or_fetch(&h->flags, set, __ATOMIC_RELEASE);
    return command_simple(o->slot, SHM_OP_SHUTDOWN, how);
}

void
sock_addr_out(const struct shm_addr *a, bool v6, struct sockaddr *sa, socklen_t *len)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(a->port) };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(a->port) };
    const void *from = v6 ? (const void *)&in6 : (const void *)&in;
    socklen_t full = v6 ? sizeof(in6) : sizeof(in);

    memcpy(&in6.sin6_addr, a->addr, sizeof(in6.sin6_addr));
    in.sin_addr.s_addr = a->addr[3];
    memcpy(sa, from, *len < full ? *len : full);
    *len = full;
}

int
sock_name(struct obj *o, int fd, struct sockaddr *sa, socklen_t *len, bool peer)
{
    const struct shm_back_sock *b = back_sock(o->slot);

    if (o->where == SOCK_BOTH)
        return from_libc(peer ? libc()->getpeername(fd, sa, len) : libc()->getsockname(fd, sa, len));
    if (sa == NULL || len == NULL)
        return -EFAULT;
    if ((int)*len < 0)
        return -EINVAL;
    if (peer && (load_acquire(&b->status) & (SHM_ST_CONNECTED | SHM_ST_ERROR | SHM_ST_GONE)) != SHM_ST_CONNECTED)
        return -ENOTCONN;
    name_out(o, peer ? SHM_PEER : SHM_LOCAL, sa, len);
    return 0;
}

static bool
all_sent(uint32_t slot)
{
    const struct shm_back_sock *b = back_sock(slot);

    return !(load_acquire(&b->status) & SHM_ST_OPEN) || (load_relaxed(&b->status) & (SHM_ST_DRAINED | SHM_ST_ERROR)) ||
           load_relaxed(&b->tx_acked) == load_relaxed(&front_sock(slot)->tx_tail);
}

/* A handler that interrupted the stack in this thread would wait for itself. */
#define CLOSE_MAX_US 10000u

void
sock_released(struct obj *o)
{
    struct shm_cmd cmd = { .op = SHM_OP_CLOSE };
    const struct slot_opts *opts;
    bool has_port;
    int rc;

    promise_forget(o);
    sock_used_by_kernel(o); /* what was lent to it and did not become the stack's */
    if (o->where == SOCK_KERNEL || o->slot == SHM_NO_SLOT)
        return;
    evq_set_sock(o->slot, NULL);
    if (load_relaxed(&front->dead))
        return;
    opts = slot_opts(o->slot);
    cmd.opt.value = opts->linger_on && opts->linger_s == 0;
    has_port = !(load_acquire(&back_sock(o->slot)->status) & (SHM_ST_CONNECTING | SHM_ST_CONNECTED));
    rc = command_run(o->slot, &cmd, false);
    /* A listener's port, or that of a mere bind, is free when close returns. */
    if (rc == 0 && has_port)
        command_settle(o->slot, CLOSE_MAX_US);
    if (rc == 0 && opts->linger_on && opts->linger_s > 0)
        wait_sock(o->slot, WAIT_WRITE, all_sent, wait_now_us() + opts->linger_s * UINT64_C(1000000));
    slot_closing(o->slot);
}
