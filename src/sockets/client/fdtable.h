/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_FDTABLE_H
#define SOCKETS_CLIENT_FDTABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "front.h"
#include "sole.h"

/**
 * @file
 * Which descriptors are more than the kernel's: an array indexed by descriptor. A descriptor that is not in it costs one look and goes to the
 * kernel. Objects lie in a pool that is never unmapped, so a late look at one that is being freed is harmless: it finds the count at zero.
 *
 * An object counts its users in one word: descriptors that name it (dup) and calls that are inside. The last user releases it.
 *
 * A program with the stack inside may have descriptors that the kernel knows nothing of (fdtable_own): FD_OWN_BASE and the number of the object, since each
 * object has one such descriptor at most. The kernel's are far below: a process's table of them takes 8 bytes for each.
 */
#define FD_OWN_BASE 0x40000000u

enum obj_kind {
    OBJ_NONE,
    OBJ_SOCK, /**< a TCP socket that is, or may become, the stack's */
    OBJ_EPOLL,
    OBJ_INTERNAL, /**< a descriptor of the front-end's own: the program must not close it */
};

enum sock_where {
    SOCK_KERNEL, /**< undecided, or bound to the wildcard: calls go to the kernel */
    SOCK_STACK,
    SOCK_BOTH, /**< a wildcard listener: it listens in the kernel and in the stack */
};

struct epitem;
struct epset;

struct obj {
    uint32_t users; /**< descriptors and calls inside; 0 = in the pool */
    uint32_t nb_fds; /**< descriptors alone */
    uint32_t next; /**< in the pool's list: index + 1 */
    union {
        struct {
            uint8_t kind, where;
            uint8_t
                stack; /**< number of the front that it belongs to: threads of others do not see it, but for closing it */
            uint8_t promised; /**< bound or listening in a stack that has not started, or did not keep it: promise.h */
        };
        uint32_t side; /**< all of these in one word */
    };
    union {
        uint8_t v6; /**< OBJ_SOCK: AF_INET6 */
        uint8_t polled; /**< OBJ_EPOLL: it stands in another set or in poll, or did */
    };
    uint8_t wildcard; /**< bound in the kernel to 0.0.0.0 or :: */
    uint8_t settled; /**< the kernel's for good: bound or connected where the stack is not */
    uint8_t accept_turn; /**< SOCK_BOTH: whose turn it is to be asked first */
    uint8_t nonblock; /**< socket() was asked for O_NONBLOCK */
    uint8_t used_by_kernel; /**< the kernel's socket is no longer as socket() made it, options apart: see spare.h */
    uint8_t spare; /**< 1 + its place among the kernel's sockets that are used again; 0 = its own */
    uint32_t slot;
    uint32_t bind_lock; /**< while the socket changes sides */
    uint32_t items_lock;
    union {
        uint32_t kernel_switches; /**< OBJ_SOCK: of kernel_opts, what the switches were set to: opts.c's bits */
        uint32_t waiting; /**< OBJ_EPOLL: threads in a wait that is the kernel's alone; atomic */
    };
    union {
        uint64_t kernel_opts; /**< OBJ_SOCK: which options were set while it was the kernel's: see opts_note */
        struct epset *set; /**< OBJ_EPOLL */
    };
    struct key_note *keys; /**< ... and the keys among them: keys.h */
    struct epitem *items; /**< its places in epoll sets */
} __attribute__((aligned(64)));
static_assert(sizeof(struct obj) == 64, "an object is one line");

/** Map the table; at first use, which may be before the constructor. */
void fdtable_init(void);

extern struct fdtable {
    struct obj **entries;
    uint32_t size;
    uint32_t high; /**< this and higher descriptors are not in the table */
    struct obj **own; /**< of descriptors from FD_OWN_BASE on */
    uint32_t own_size; /**< 0 = there are none */
    uint32_t own_high;
} fdtable;

/** From now on sockets of this stack are to have descriptors that the kernel knows nothing of. Before its first one; false without memory. */
bool fdtable_own(void);

static inline bool
fd_is_own(int fd)
{
    return (uint32_t)fd - FD_OWN_BASE < fdtable.own_size;
}

/** The descriptor's place in the table, or NULL. */
static inline struct obj **
fd_entry(int fd)
{
    if (FRONT_LIKELY((uint32_t)fd < fdtable.size))
        return &fdtable.entries[fd];
    return fd_is_own(fd) ? &fdtable.own[(uint32_t)fd - FD_OWN_BASE] : NULL;
}

static inline struct obj *
fd_peek(int fd)
{
    struct obj **entry = fd_entry(fd);

    return entry != NULL ? __atomic_load_n(entry, __ATOMIC_ACQUIRE) : NULL;
}

/** A new object with one user, which fd_install turns into a descriptor's; NULL if the pool is empty. */
struct obj *obj_create(enum obj_kind kind);
/** The last user is gone. */
void obj_end(struct obj *o);

/** One more user, unless the last one has gone. */
static inline bool
obj_try_hold(struct obj *o)
{
    uint32_t n = load_relaxed(&o->users);

    while (n != 0)
        if (sole_cas32(&o->users, &n, n + 1))
            return true;
    return false;
}

/** What fd_get and the like returned; never an internal one. */
static inline void
obj_put(struct obj *o)
{
    if (sole_add_fetch(&o->users, UINT32_MAX) == 0)
        obj_end(o);
}

/** What the descriptor named a moment ago, held; if that is being closed, what it has become. NULL as fd_get. */
struct obj *fd_hold(int fd, struct obj *o);

/** The object behind a descriptor, held until obj_put; NULL: only the kernel knows it, or it is another stack's. */
static inline struct obj *
fd_get(int fd)
{
    struct obj *o = fd_peek(fd);

    return FRONT_LIKELY(o == NULL) ? NULL : fd_hold(fd, o);
}

/** The same, but only if it is (also) the stack's socket. */
static inline struct obj *
fd_get_stack(int fd)
{
    struct obj *o = fd_peek(fd);

    if (FRONT_LIKELY(o == NULL) || o->kind != OBJ_SOCK || o->where == SOCK_KERNEL ||
        FRONT_UNLIKELY(o->stack != front->number))
        return NULL;
    return fd_hold(fd, o);
}

/** What fd_enter_stack returned. */
static inline void
fd_leave(struct obj *o, uint32_t term)
{
    bool last = sole_drop_inside(&o->users);

    sole_leave(term);
    if (FRONT_UNLIKELY(last))
        obj_end(o);
}

/**
 * As fd_get_stack, for a call that does not wait: the thread is inside (sole.h) until fd_leave. NULL also if it is not sole, or something is the matter with the descriptor, which
 * fd_get_stack finds out.
 */
static inline struct obj *
fd_enter_stack(int fd, uint32_t *term)
{
    struct obj **entry = fd_entry(fd), *o = entry != NULL ? __atomic_load_n(entry, __ATOMIC_ACQUIRE) : NULL;
    uint32_t n;

    if (o == NULL || load_relaxed(&o->side) != front->sock_side)
        return NULL;
    *term = sole_try_enter();
    if (FRONT_UNLIKELY(*term == SOLE_NOBODY))
        return NULL;
    /* Held before it is looked at again: a signal handler may close the descriptor between any two of these lines, and then we are the last. */
    n = load_relaxed(&o->users);
    if (FRONT_LIKELY(n != 0 && sole_cas32_inside(&o->users, &n, n + 1))) {
        if (FRONT_LIKELY(__atomic_load_n(entry, __ATOMIC_ACQUIRE) == o && load_relaxed(&o->side) == front->sock_side))
            return o;
        fd_leave(o, *term);
        return NULL;
    }
    sole_leave(*term);
    return NULL;
}

/** Let the descriptor name the object; what it named before is released (its close went past us). Takes over one user. */
bool fd_install(int fd, struct obj *o);
/** The object's own descriptor, by which it is named from now on. Takes over one user. */
int fd_install_own(struct obj *o);
/** One more descriptor for an object. */
bool fd_install_dup(int fd, struct obj *o);
/** The descriptor names nothing any more. True if there was something (and it was not internal). Not for the internal ones. */
bool fd_remove(int fd);
/** Mark as ours, or no more. */
void fd_set_internal(int fd, bool internal);
static inline bool
fd_is_internal(int fd)
{
    const struct obj *o = fd_peek(fd);

    return o != NULL && o->kind == OBJ_INTERNAL;
}

/** In a forked child: calls that other threads of the parent were inside are not here. */
void fdtable_forked(void);

/** Visit each object that has a descriptor. */
void fdtable_each(void (*fn)(int fd, struct obj *o, void *arg), void *arg);

/* Supplied by the owners of each kind: the last descriptor is closed, the last user is gone. */
void sock_released(struct obj *o);
void epoll_forget_sock(struct obj *o);
void epoll_released(struct obj *o);

#endif /* SOCKETS_CLIENT_FDTABLE_H */
