/* SPDX-License-Identifier: BSD-3-Clause */
#include "isosock.h"

#include <errno.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <sys/ioctl.h>

#include "api.h"
#include "libc.h"
#include "sock.h"

/*
 * A vfork child runs in the parent's memory with descriptors of its own: what it closes or copies on its way to exec must not touch
 * the parent's table. Asked only where the table would change.
 */
static bool
is_foreign_child(void)
{
    return front->pid != 0 && front->pid != getpid();
}

static int
fail(int err)
{
    errno = err;
    return -1;
}

int
iso_close(int fd)
{
    if (fd_is_own(fd)) /* no vfork child finds such a number among its descriptors */
        return fd_remove(fd) ? 0 : fail(EBADF);
    if (FRONT_LIKELY(fd_peek(fd) == NULL) || is_foreign_child())
        return libc()->close(fd);
    if (fd_is_internal(fd))
        return fail(EBADF);
    fd_remove(fd);
    return libc()->close(fd);
}

static void
remove_own(unsigned first, unsigned last)
{
    unsigned fd, end = FD_OWN_BASE + load_relaxed(&fdtable.own_high);

    for (fd = first > FD_OWN_BASE ? first : FD_OWN_BASE; fd <= last && fd < end; fd++)
        fd_remove((int)fd);
}

int
iso_close_range(unsigned first, unsigned last, int flags)
{
    unsigned fd, from = first;

    if (first > last)
        return fail(EINVAL);
    if ((flags & CLOSE_RANGE_CLOEXEC) || is_foreign_child())
        return libc()->close_range(first, last, flags);
    remove_own(first, last);
    /* Our own descriptors lie in between and stay. */
    for (fd = first; fd <= last && fd < fdtable.high; fd++) {
        if (!fd_is_internal((int)fd)) {
            fd_remove((int)fd);
            continue;
        }
        if (from < fd && libc()->close_range(from, fd - 1, flags) != 0)
            return -1;
        from = fd + 1;
    }
    return from <= last ? libc()->close_range(from, last, flags) : 0;
}

/* ---- copies ------------------------------------------------------------------------------------------------------------- */

/* What the kernel is to copy: of a descriptor that it knows nothing of, the placeholder. */
static int
kernel_fd(int fd)
{
    return fd_is_own(fd) ? sock_placeholder() : fd;
}

/* The new descriptor names what the old one named. Takes over the hold on o. */
static int
copied(struct obj *o, int to)
{
    if (to >= 0 && o == NULL)
        fd_remove(to);
    else if (to >= 0)
        fd_install_dup(to, o);
    if (o != NULL)
        obj_put(o);
    return to;
}

int
iso_dup(int fd)
{
    struct obj *o = fd_get(fd);

    if (o != NULL && is_foreign_child()) {
        obj_put(o);
        return libc()->dup(fd);
    }
    return o == NULL && fd_is_own(fd) ? fail(EBADF) : copied(o, libc()->dup(kernel_fd(fd)));
}

int
iso_dup3(int fd, int to, int flags)
{
    struct obj *o;

    if (FRONT_LIKELY(fd_peek(fd) == NULL && fd_peek(to) == NULL) || is_foreign_child())
        return libc()->dup3(fd, to, flags);
    if (fd_is_internal(to))
        return fail(EBUSY);
    o = fd_get(fd);
    if (fd == to)
        return copied(NULL, (o != NULL ? obj_put(o) : (void)0, fail(EINVAL)));
    return o == NULL && fd_is_own(fd) ? fail(EBADF) : copied(o, libc()->dup3(kernel_fd(fd), to, flags));
}

int
iso_dup2(int fd, int to)
{
    if (FRONT_LIKELY(fd_peek(fd) == NULL && fd_peek(to) == NULL))
        return libc()->dup2(fd, to);
    if (fd == to) /* only asks whether fd is open */
        return fd_is_own(fd) ? fd : libc()->dup2(fd, to);
    return iso_dup3(fd, to, 0);
}

/* Its flags are the kernel's to know from now on. */
static void
note_kernel_flags(int fd)
{
    struct obj *o = fd_get_kind(fd, OBJ_SOCK);

    if (o == NULL)
        return;
    sock_used_by_kernel(o);
    obj_put(o);
}

/* ---- fcntl, ioctl ------------------------------------------------------------------------------------------------------- */

static int
set_nonblock(const struct obj *o, bool on)
{
    uint32_t *flags = &slot_hot(front_sock(o->slot))->flags;

    if (on)
        __atomic_or_fetch(flags, SLOT_NONBLOCK, __ATOMIC_ACQ_REL);
    else
        __atomic_and_fetch(flags, ~SLOT_NONBLOCK, __ATOMIC_ACQ_REL);
    return 0;
}

/* O_NONBLOCK is in the slot; the rest of the flags mean nothing for a socket, O_ASYNC apart, which the stack does not do. */
static int
status_flags(struct obj *o, int cmd, long arg)
{
    if (cmd == F_GETFL)
        return O_RDWR | (load_relaxed(&slot_hot(front_sock(o->slot))->flags) & SLOT_NONBLOCK ? O_NONBLOCK : 0);
    return arg & O_ASYNC ? -EINVAL : set_nonblock(o, (arg & O_NONBLOCK) != 0);
}

/* A descriptor that the kernel knows nothing of. None survives exec, whatever its flags say. */
static int
own_fcntl(struct obj *o, int fd, int cmd, void *arg)
{
    switch (cmd) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return copied(o, libc()->fcntl(kernel_fd(fd), cmd, arg));
    case F_GETFD:
        return api_put(o, FD_CLOEXEC);
    case F_SETFD:
        return api_put(o, 0);
    case F_GETFL:
    case F_SETFL:
        return api_put(o, status_flags(o, cmd, (long)(intptr_t)arg));
    default:
        return api_put(o, -EINVAL);
    }
}

int
iso_fcntl(int fd, int cmd, ...)
{
    struct obj *o;
    va_list ap;
    void *arg;

    va_start(ap, cmd);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (FRONT_UNLIKELY(fd_is_own(fd))) {
        o = fd_get(fd);
        return o == NULL ? fail(EBADF) : own_fcntl(o, fd, cmd, arg);
    }
    if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC) {
        if (fd_peek(fd) != NULL && is_foreign_child())
            return libc()->fcntl(fd, cmd, arg);
        o = fd_get(fd);
        return copied(o, libc()->fcntl(fd, cmd, arg));
    }
    if (FRONT_UNLIKELY(fd_peek(fd) != NULL) && cmd != F_GETFL && cmd != F_GETFD && cmd != F_SETFD)
        note_kernel_flags(fd);
    if (cmd != F_GETFL && cmd != F_SETFL)
        return libc()->fcntl(fd, cmd, arg);
    o = fd_get_stack(fd);
    return o == NULL ? libc()->fcntl(fd, cmd, arg) : api_put(o, status_flags(o, cmd, (long)(intptr_t)arg));
}

static int
stack_ioctl(struct obj *o, int fd, unsigned long request, void *arg)
{
    const struct shm_back_sock *b = back_sock(o->slot);
    const struct shm_front_sock *f = front_sock(o->slot);
    bool listener = slot_hot(front_sock(o->slot))->flags & SLOT_LISTENER;
    uint32_t v;

    if (is_nowhere(arg) && request != FIOCLEX && request != FIONCLEX)
        return -EFAULT;
    switch (request) {
    case FIONBIO:
        return set_nonblock(o, *(const int *)arg != 0);
    case FIONREAD: /* SIOCINQ is the same number */
        v = sock_rx_arrived(o->slot);
        break;
    case SIOCOUTQ:
        v = load_relaxed(&f->tx_tail) - load_acquire(&b->tx_acked);
        break;
    case SIOCOUTQNSD:
        v = load_relaxed(&f->tx_tail) - load_acquire(&b->tx_sent);
        break;
    case SIOCATMARK:
        v = 0;
        break;
    case FIOCLEX:
    case FIONCLEX:
        return fd_is_own(fd) || libc()->ioctl(fd, request, arg) == 0 ? 0 : -errno;
    default:
        return -ENOTTY;
    }
    if (listener)
        return -EINVAL;
    *(int *)arg = (int)v;
    return 0;
}

int
iso_ioctl(int fd, unsigned long request, ...)
{
    struct obj *o = fd_get_stack(fd);
    va_list ap;
    void *arg;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    /* Requests about interfaces (SIOCGIFADDR and the like) are the kernel's whatever socket they come by. */
    if (o == NULL) {
        note_kernel_flags(fd);
        return libc()->ioctl(fd, request, arg);
    }
    if (request >= SIOCADDRT && request < SIOCDEVPRIVATE) {
        obj_put(o);
        return libc()->ioctl(kernel_fd(fd), request, arg);
    }
    return api_put(o, stack_ioctl(o, fd, request, arg));
}
