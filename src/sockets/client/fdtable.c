/* SPDX-License-Identifier: BSD-3-Clause */
#include "fdtable.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "keys.h"
#include "lock.h"

#define FDS_MAX 1048576u
/* Address space, touched as objects are in use. */
#define OBJS_MAX (2u * FDS_MAX)

struct fdtable fdtable;

/* Objects: fresh ones are cut off the end, freed ones come from the list (a tag against ABA in the upper half). */
static struct {
    struct obj *objs;
    uint64_t lists[FRONT_MAX]; /* of each front, since a late look at an object must find one of its own (sole.h) */
    uint32_t size;
    uint32_t cut;
    uint32_t lock;
} pool;

static struct obj internal_obj = { .users = 1, .kind = OBJ_INTERNAL };

static void *
map_reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void
fdtable_init(void)
{
    struct rlimit rl;
    uint32_t n = FDS_MAX;
    void *entries, *objs;

    if (!lock_acquire(&pool.lock))
        return;
    if (fdtable.size == 0) {
        if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_max < n)
            n = (uint32_t)rl.rlim_max;
        entries = map_reserve((size_t)n * sizeof(*fdtable.entries));
        objs = map_reserve((size_t)OBJS_MAX * sizeof(*pool.objs));
        if (entries != NULL && objs != NULL) {
            fdtable.entries = entries;
            pool.objs = objs;
            pool.size = OBJS_MAX;
            __atomic_store_n(&fdtable.size, n, __ATOMIC_RELEASE);
        }
    }
    lock_release(&pool.lock);
}

bool
fdtable_own(void)
{
    if (fdtable.size == 0)
        fdtable_init();
    if (!lock_acquire(&pool.lock))
        return false;
    if (fdtable.own == NULL && pool.size != 0)
        fdtable.own = map_reserve((size_t)pool.size * sizeof(*fdtable.own));
    if (fdtable.own != NULL) {
        __atomic_store_n(&fdtable.own_size, pool.size, __ATOMIC_RELEASE);
        front->own_descriptors = true;
    }
    lock_release(&pool.lock);
    return front->own_descriptors;
}

/* ---- objects ---------------------------------------------------------------------------------------------------------- */

static struct obj *
pool_take(void)
{
    uint64_t head = __atomic_load_n(&pool.lists[front->number], __ATOMIC_ACQUIRE);
    uint32_t n;

    while ((uint32_t)head != 0) {
        struct obj *o = &pool.objs[(uint32_t)head - 1];
        uint64_t next = ((head >> 32) + 1) << 32 | load_relaxed(&o->next);

        if (sole_cas64(&pool.lists[front->number], &head, next))
            return o;
    }
    n = load_relaxed(&pool.cut);
    while (n < pool.size) {
        if (__atomic_compare_exchange_n(&pool.cut, &n, n + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return &pool.objs[n];
    }
    return NULL;
}

static void
pool_give(struct obj *o)
{
    uint64_t head = __atomic_load_n(&pool.lists[front->number], __ATOMIC_RELAXED), next;

    do {
        store_relaxed(&o->next, (uint32_t)head);
        next = ((head >> 32) + 1) << 32 | (uint32_t)(o - pool.objs + 1);
    } while (!sole_cas64(&pool.lists[front->number], &head, next));
}

struct obj *
obj_create(enum obj_kind kind)
{
    struct obj *o;

    if (fdtable.size == 0)
        fdtable_init();
    if (fdtable.size == 0)
        return NULL;
    o = pool_take();
    if (o == NULL)
        return NULL;
    o->nb_fds = 0;
    o->kind = (uint8_t)kind;
    o->stack = front->number;
    o->where = SOCK_KERNEL;
    o->v6 = o->wildcard = o->settled = o->accept_turn = o->promised = 0;
    o->slot = SHM_NO_SLOT;
    o->bind_lock = o->items_lock = 0;
    o->nonblock = o->used_by_kernel = o->spare = 0;
    o->kernel_opts = 0;
    o->kernel_switches = 0;
    o->keys = NULL;
    o->items = NULL;
    __atomic_store_n(&o->users, 1, __ATOMIC_RELEASE);
    return o;
}

/* Use the object's stack for a while: whose thread closes a descriptor, nobody can choose for a program. Returns what was used. */
static struct front *
enter_stack_of(const struct obj *o)
{
    struct front *was = front;

    if (FRONT_UNLIKELY(o->stack != was->number))
        front_use(front_of[o->stack]);
    return was;
}

static void
leave_stack(struct front *was)
{
    if (FRONT_UNLIKELY(front != was))
        front_use(was);
}

void
obj_end(struct obj *o)
{
    struct front *was = enter_stack_of(o);

    keys_forget(o);
    if (o->kind == OBJ_SOCK)
        sock_released(o);
    else if (o->kind == OBJ_EPOLL)
        epoll_released(o);
    o->kind = OBJ_NONE;
    pool_give(o);
    leave_stack(was);
}

/* ---- the table -------------------------------------------------------------------------------------------------------- */

static void
note_high(int fd)
{
    uint32_t *mark = fd_is_own(fd) ? &fdtable.own_high : &fdtable.high;
    uint32_t n = fd_is_own(fd) ? (uint32_t)fd - FD_OWN_BASE : (uint32_t)fd, high = load_relaxed(mark);

    while (high <= n && !__atomic_compare_exchange_n(mark, &high, n + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

struct obj *
fd_hold(int fd, struct obj *o)
{
    while (o != NULL && o != &internal_obj && o->stack == front->number) {
        if (obj_try_hold(o)) {
            if (FRONT_LIKELY(fd_peek(fd) == o))
                return o;
            obj_put(o);
        }
        o = fd_peek(fd); /* it is being closed: the entry changes soon, or has changed */
    }
    return NULL;
}

static void
drop_fd(struct obj *o)
{
    struct front *was;

    if (o == NULL || o == &internal_obj)
        return;
    was = enter_stack_of(o);
    if (sole_add_fetch(&o->nb_fds, UINT32_MAX) == 0 && o->kind == OBJ_SOCK)
        epoll_forget_sock(o);
    obj_put(o);
    leave_stack(was);
}

bool
fd_install(int fd, struct obj *o)
{
    struct obj **entry = fd_entry(fd);

    if (entry == NULL)
        return false;
    sole_add_fetch(&o->nb_fds, 1);
    note_high(fd);
    drop_fd(__atomic_exchange_n(entry, o, __ATOMIC_ACQ_REL));
    return true;
}

int
fd_install_own(struct obj *o)
{
    uint32_t n = (uint32_t)(o - pool.objs);
    int fd = (int)(FD_OWN_BASE + n);

    /* No other object ever has that descriptor, and nobody can name this one yet. */
    o->nb_fds = 1;
    note_high(fd);
    __atomic_store_n(&fdtable.own[n], o, __ATOMIC_RELEASE);
    return fd;
}

bool
fd_install_dup(int fd, struct obj *o)
{
    sole_add_fetch(&o->users, 1);
    if (fd_install(fd, o))
        return true;
    obj_put(o);
    return false;
}

/* An own descriptor names its object or nothing, so it is of that object's stack. */
static bool
remove_own(struct obj **entry, struct obj *o)
{
    struct front *was = enter_stack_of(o);
    uint64_t named = (uintptr_t)o;
    bool removed = sole_cas64((uint64_t *)(void *)entry, &named, 0);

    leave_stack(was);
    return removed;
}

bool
fd_remove(int fd)
{
    struct obj **entry = fd_entry(fd), *o = fd_peek(fd);

    while (o != NULL && o != &internal_obj) {
        if (fd_is_own(fd) ? remove_own(entry, o)
                          : __atomic_compare_exchange_n(entry, &o, NULL, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            drop_fd(o);
            return true;
        }
        o = fd_peek(fd);
    }
    return false;
}

void
fd_set_internal(int fd, bool internal)
{
    if (fdtable.size == 0)
        fdtable_init();
    if ((uint32_t)fd >= fdtable.size)
        return;
    note_high(fd);
    drop_fd(__atomic_exchange_n(&fdtable.entries[fd], internal ? &internal_obj : NULL, __ATOMIC_ACQ_REL));
}

static void
forget_calls(int fd, struct obj *o, void *arg)
{
    (void)fd;
    (void)arg;
    o->users = o->nb_fds;
    o->bind_lock = o->items_lock = 0;
}

void
fdtable_forked(void)
{
    pool.lock = 0;
    fdtable_each(forget_calls, NULL);
}

static void
each_between(uint32_t fd, uint32_t end, void (*fn)(int fd, struct obj *o, void *arg), void *arg)
{
    for (; fd < end; fd++) {
        struct obj *o = fd_peek((int)fd);

        if (o != NULL && o != &internal_obj)
            fn((int)fd, o, arg);
    }
}

void
fdtable_each(void (*fn)(int fd, struct obj *o, void *arg), void *arg)
{
    each_between(0, load_relaxed(&fdtable.high), fn, arg);
    each_between(FD_OWN_BASE, FD_OWN_BASE + load_relaxed(&fdtable.own_high), fn, arg);
}
