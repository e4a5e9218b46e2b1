/* SPDX-License-Identifier: BSD-3-Clause */
#include "epoll.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "epset.h"
#include "libc.h"
#include "lock.h"
#include "promise.h"
#include "sock.h"

#define TAKE_MAX 64u
/* Caches hold so many sockets without help. */
#define PREFETCH_ITEMS 256u
#define KERNEL_EVERY 8u /* with sockets ready all the time, the kernel's members are asked at each so many waits */
#define KERNEL_EVERY_PASS 64u /* the same where passes of the stack are counted, each shorter than a system call */
#define CLOCK_EVERY_PASS 8u /* between these looks at the deadline: reading the clock costs as much as an idle pass */
#define NO_QUEUE_SLEEP_US 2000u
#define MOVED_SETS_MAX 16u
/* What Linux lets stand beside EPOLLEXCLUSIVE. */
#define EXCLUSIVE_ALLOWED (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE)

int
epoll_track(int fd)
{
    struct obj *o = obj_create(OBJ_EPOLL);

    if (o != NULL && !fd_install(fd, o))
        obj_put(o);
    return fd;
}

static int
from_libc(int rc)
{
    return rc < 0 ? -errno : rc;
}

static void
add_member(int epfd, int fd, char *mark)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = mark };

    libc()->epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev);
}

/* ---- waking who waits ----------------------------------------------------------------------------------------------------- */

/* Readable for ever, and never read: an eventfd of the process's; -1 without one. */
static int
always_readable(void)
{
    static int shared = -1;
    int fd = __atomic_load_n(&shared, __ATOMIC_ACQUIRE), none = -1;

    if (fd >= 0)
        return fd;
    fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return -1;
    fd = front_hide_fd(fd);
    if (__atomic_compare_exchange_n(&shared, &none, fd, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return fd;
    fd_set_internal(fd, false);
    libc()->close(fd);
    return none;
}

/* One who waits in the kernel for this set comes back, once: what is told to him is dropped by filter. The caller holds the lock. */
static void
call_waiter(struct epset *s, int epfd)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT, .data.ptr = &s->call_mark };
    int fd = always_readable(), saved_errno = errno;

    if (fd >= 0 && libc()->epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &ev) != 0)
        libc()->epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev);
    errno = saved_errno;
}

/*
 * Who has got events leaves others on the list: those beyond what he asked for, and, level-triggered, his own until he has read. As with Linux the next one who waits is
 * woken for them; likewise for what epoll_ctl has found ready.
 */
static void
pass_on(struct epset *s, int epfd)
{
    if (load_relaxed(&s->nb_ready) == 0)
        return;
    sole_fence(); /* who goes to sleep is counted, and then looks at the list */
    if (__atomic_load_n(&s->waiting, __ATOMIC_SEQ_CST) == 0 || !lock_acquire_own(&s->lock))
        return;
    call_waiter(s, epfd);
    lock_release_own(&s->lock);
}

/* ---- the queue of a set --------------------------------------------------------------------------------------------------- */

static void
subscribe_item(struct epset *s, struct epitem *it)
{
    if (s->has_queue)
        evq_subscribe(&s->q, it->sock->slot);
    epset_push_ready(s, it);
}

/* The first socket of the stack's: from now on the set has an event queue. */
static void
need_queue(struct epset *s, int epfd)
{
    if (s->has_queue || front->dead || evq_open(&s->q) != 0)
        return;
    epset_set(&s->has_queue);
    add_member(epfd, s->q.fd, &s->queue_mark);
    add_member(epfd, front->control_fd, &s->control_mark);
    if (s->nested)
        evq_sleep_begin(&s->q);
}

static void
become_nested(struct epset *s, int epfd)
{
    if (s->nested)
        return;
    s->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->kick_fd >= 0) {
        s->kick_fd = front_hide_fd(s->kick_fd);
        add_member(epfd, s->kick_fd, &s->kick_mark);
    }
    epset_set(&s->nested);
    if (s->has_queue)
        evq_sleep_begin(&s->q); /* for good: whoever sleeps does not sleep here */
}

/* A nested set shows by its kick descriptor whether its list is empty. */
static void
show_ready(struct epset *s)
{
    uint64_t n = 1;
    int saved_errno = errno;

    if (!s->nested || s->kick_fd < 0)
        return;
    if (s->nb_ready > 0)
        (void)!libc()->write(s->kick_fd, &n, sizeof(n));
    else
        (void)!libc()->read(s->kick_fd, &n, sizeof(n));
    errno = saved_errno;
}

/* ---- the ready list --------------------------------------------------------------------------------------------------------- */

/*
 * Of sockets that are about to be looked at, and then to be read from and written to, start loading what that needs: in steps, each for all of them, since each needs
 * what the one before has loaded. Words may be changing, and what they lead to is only loaded; so a wrong address does no harm.
 */
static void
prefetch_slot(uint32_t slot)
{
    const char *b = (const char *)back_sock(slot), *f = (const char *)front_sock(slot);

    __builtin_prefetch(b);
    __builtin_prefetch(b + offsetof(struct shm_back_sock, trains));
    __builtin_prefetch(f);
    __builtin_prefetch(&front->sock_of_slot[slot]);
}

static __attribute__((no_sanitize("thread"))) void
prefetch_obj(uint32_t slot)
{
    __builtin_prefetch(front->sock_of_slot[slot]);
    send_prefetch(slot);
}

static __attribute__((no_sanitize("thread"))) void
prefetch_item(uint32_t slot)
{
    const struct obj *o = front->sock_of_slot[slot];

    if (o != NULL && o->items != NULL)
        __builtin_prefetch(o->items);
}

/* Its descriptor's entry, and what the program has written down about it, if its data is a pointer. */
static __attribute__((no_sanitize("thread"))) void
prefetch_users(uint32_t slot)
{
    const struct obj *o = front->sock_of_slot[slot];
    const struct epitem *it = o != NULL ? o->items : NULL;

    if (it == NULL)
        return;
    __builtin_prefetch(fd_entry(it->fd));
    __builtin_prefetch(it->ev.data.ptr);
    __builtin_prefetch((const char *)it->ev.data.ptr + 64);
}

static void
prefetch_socks(const uint32_t *slots, unsigned n)
{
    static void (*const steps[])(uint32_t slot) = { prefetch_slot, prefetch_obj, prefetch_item, prefetch_users };
    unsigned i, k;

    for (k = 0; k < sizeof(steps) / sizeof(steps[0]); k++)
        for (i = 0; i < n; i++)
            if (slots[i] < front->lay.max_socks)
                steps[k](slots[i]);
}

/* Where this thread is sole: returns how many of the slots, moved to the front, need more than that. */
static unsigned
push_at_once(struct epset *s, uint32_t *slots, unsigned n)
{
    uint32_t term = sole_try_enter();
    unsigned left = 0;

    if (term == SOLE_NOBODY)
        return n;
    for (unsigned i = 0; i < n; i++)
        if (!epset_push_inside(s, slots[i]))
            slots[left++] = slots[i];
    sole_leave(term);
    return left;
}

/* Events go to the ready list. */
static void
take_events(struct epset *s)
{
    uint32_t slots[TAKE_MAX];
    unsigned i, n, left;
    bool all = false;

    if (load_relaxed(&front->dead) && !s->dead_seen) {
        epset_set(&s->dead_seen);
        epset_push_all(s);
    }
    if (!s->has_queue) {
        epset_push_all(s);
        return;
    }
    do {
        n = evq_take(&s->q, slots, TAKE_MAX, &all);
        if (n > 1 && s->nb_items > PREFETCH_ITEMS && __atomic_load_n(&front->sock_of_slot, __ATOMIC_ACQUIRE) != NULL)
            prefetch_socks(slots, n);
        left = push_at_once(s, slots, n);
        for (i = 0; i < left; i++) {
            struct obj *o = slots[i] < front->lay.max_socks ? evq_get_sock(slots[i]) : NULL;

            if ((o == NULL || !epset_push_sock(s, o)) && slots[i] < front->lay.max_socks)
                evq_unsubscribe(&s->q, slots[i]);
            if (o != NULL)
                obj_put(o);
        }
        if (all)
            epset_push_all(s);
    } while (n == TAKE_MAX);
}

/* What an item has to say now. */
static inline uint32_t
item_events(const struct epitem *it)
{
    uint32_t slot = it->sock->slot, wanted = it->ev.events | EPOLLERR | EPOLLHUP, events;

    if ((wanted & EPOLLOUT) && !sock_can_write(slot))
        sock_want_space(slot);
    events = sock_events(slot, wanted);
    return events != 0 && !sock_is_kernel_again(it->sock) ? events : 0;
}

/* The list of a nested set, and what its descriptor shows, are brought up to what holds now: what happened before it became one was told to nobody. The caller holds the lock. */
static void
show_nested(struct epset *s)
{
    uint32_t left;

    if (s->has_queue)
        evq_drain_fd(&s->q);
    take_events(s);
    for (left = s->nb_ready; left > 0; left--) {
        struct epitem *it = s->ready.ready_next;

        epset_pop_ready(s, it);
        if (item_events(it) != 0)
            epset_push_ready(s, it);
    }
    show_ready(s);
}

/* ---- after a fork --------------------------------------------------------------------------------------------------------- */

static void
mark_inherited(int fd, struct obj *o, void *arg)
{
    (void)fd;
    (void)arg;
    if (o->kind != OBJ_EPOLL)
        return;
    o->waiting = 0;
    if (o->set == NULL)
        return;
    o->set->inherited = true;
    o->set->lock = 0;
}

void
epoll_forked(void)
{
    fdtable_each(mark_inherited, NULL);
}

/* Copy what the kernel's set holds, but for our own members. */
static void
copy_members(const struct epset *s, int from, int to)
{
    char path[64], line[256];
    unsigned long long data;
    unsigned events;
    FILE *f;
    int fd;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", from);
    f = fopen(path, "re");
    if (f == NULL)
        return;
    while (fgets(line, sizeof(line), f) != NULL) {
        struct epoll_event ev;
        const char *p;

        if (sscanf(line, "tfd: %d events: %x data: %llx", &fd, &events, &data) != 3)
            continue;
        p = (const char *)(uintptr_t)data;
        if (p == &s->queue_mark || p == &s->control_mark || p == &s->kick_mark || p == &s->call_mark ||
            p == &s->wake_mark)
            continue;
        ev.events = events;
        ev.data.u64 = data;
        libc()->epoll_ctl(to, EPOLL_CTL_ADD, fd, &ev);
    }
    fclose(f);
}

struct replace {
    const struct obj *set;
    int with;
};

static void
replace_fd(int fd, struct obj *o, void *arg)
{
    const struct replace *r = arg;
    int flags;

    if (o != r->set)
        return;
    flags = libc()->fcntl(fd, F_GETFD);
    libc()->dup3(r->with, fd, flags >= 0 && (flags & FD_CLOEXEC) ? O_CLOEXEC : 0);
}

/* The kernel's set is shared with the parent: this process takes a copy under the same descriptors, and a queue of its own. */
static void
rebuild(struct obj *set, int epfd)
{
    struct epset *s = set->set;
    struct replace r = { set, libc()->epoll_create1(EPOLL_CLOEXEC) };
    bool nested = s->nested;

    if (r.with < 0)
        return;
    copy_members(s, epfd, r.with);
    fdtable_each(replace_fd, &r);
    libc()->close(r.with);
    evq_forget(&s->q);
    s->has_foreign = true;
    s->has_queue = s->has_wake = s->nested = s->inherited = false;
    s->waiting = 0;
    epset_forget_ready(s); /* another thread of the parent's may have been amid a change of the list */
    if (s->kick_fd >= 0) {
        fd_set_internal(s->kick_fd, false);
        libc()->close(s->kick_fd);
        s->kick_fd = -1;
    }
    need_queue(s, epfd);
    if (nested)
        become_nested(s, epfd);
    epset_each(s, subscribe_item);
}

static void
rebuild_inherited(struct obj *set, int epfd)
{
    struct epset *s = set->set;

    if (FRONT_LIKELY(s == NULL || !s->inherited) || !lock_acquire_own(&s->lock))
        return;
    if (s->inherited)
        rebuild(set, epfd);
    lock_release_own(&s->lock);
}

/* ---- epoll_ctl ------------------------------------------------------------------------------------------------------------ */

static struct epset *
make_set(struct obj *set)
{
    struct epset *s = NULL, *fresh = epset_create();

    if (fresh == NULL)
        return NULL;
    if (__atomic_compare_exchange_n(&set->set, &s, fresh, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return fresh;
    epset_destroy(fresh);
    return s;
}

/* NULL without memory. */
static inline struct epset *
set_of(struct obj *set)
{
    struct epset *s = __atomic_load_n(&set->set, __ATOMIC_ACQUIRE);

    return FRONT_LIKELY(s != NULL) ? s : make_set(set);
}

static int
check_change(const struct epitem *it, int op, const struct epoll_event *ev)
{
    if (op != EPOLL_CTL_DEL && ev == NULL)
        return -EFAULT;
    if (op != EPOLL_CTL_ADD && op != EPOLL_CTL_MOD && op != EPOLL_CTL_DEL)
        return -EINVAL;
    if (op == EPOLL_CTL_ADD && (ev->events & EPOLLEXCLUSIVE) && (ev->events & ~EXCLUSIVE_ALLOWED))
        return -EINVAL;
    if (op == EPOLL_CTL_ADD)
        return it == NULL ? 0 : -EEXIST;
    if (it == NULL)
        return -ENOENT;
    /* Linux: an exclusive member cannot be modified, nor made exclusive later. */
    if (op == EPOLL_CTL_MOD && ((it->ev.events | ev->events) & EPOLLEXCLUSIVE))
        return -EINVAL;
    return 0;
}

/*
 * The set has sockets of the stack's now. Who waits for it since before, when the wait was the kernel's alone, is to come back and look at them; who does so by another set or by
 * poll is shown them. The caller holds the lock.
 */
static void
tell_kernel_waiters(const struct obj *set, struct epset *s, int epfd)
{
    full_fence(); /* they are counted, or marked, and then look whether there is a set; and never met who is sole */
    if (__atomic_load_n(&set->polled, __ATOMIC_SEQ_CST) && !s->nested) {
        become_nested(s, epfd);
        show_nested(s);
    }
    if (__atomic_load_n(&set->waiting, __ATOMIC_SEQ_CST) != 0)
        call_waiter(s, epfd);
}

static int
change_item(struct epset *s, int epfd, int op, int fd, struct obj *sock, struct epoll_event *ev)
{
    struct epitem *it = epset_find(s, fd, sock);
    bool kernel = sock->where != SOCK_STACK;
    int rc = check_change(it, op, ev);

    if (rc == 0 && (kernel || (it != NULL && it->in_kernel)))
        rc = from_libc(libc()->epoll_ctl(epfd, op, fd, ev));
    if (rc != 0)
        return rc;
    if (op == EPOLL_CTL_DEL) {
        epset_remove(s, it);
        return 0;
    }
    if (op == EPOLL_CTL_ADD) {
        it = epset_add(s, epfd, fd, sock, ev);
        if (it == NULL)
            return -ENOMEM;
        it->in_kernel = kernel;
        if (sock->where != SOCK_STACK)
            epset_set(&s->has_foreign);
    }
    it->ev = *ev;
    it->off = false;
    if (sock->where != SOCK_KERNEL) {
        front_joined = true;
        need_queue(s, epfd);
        subscribe_item(s, it);
        show_ready(s);
    }
    return 0;
}

bool
epoll_nest(struct obj *set, int epfd)
{
    struct epset *s;

    /* Marked, then looked at: whoever makes the set does it the other way round. */
    if (!__atomic_load_n(&set->polled, __ATOMIC_RELAXED))
        __atomic_store_n(&set->polled, 1, __ATOMIC_SEQ_CST);
    s = __atomic_load_n(&set->set, __ATOMIC_SEQ_CST);
    if (s == NULL)
        return false;
    if (epset_has(&s->nested) || !lock_acquire_own(&s->lock))
        return true;
    become_nested(s, epfd);
    show_nested(s);
    lock_release_own(&s->lock);
    return true;
}

int
epoll_control(struct obj *set, int epfd, int op, int fd, struct epoll_event *ev)
{
    struct obj *target = fd_get(fd);
    struct epset *s = set->set;
    int rc = target != NULL ? promise_settle(target) : 0;

    if (rc != 0) {
        obj_put(target);
        return rc;
    }
    rebuild_inherited(set, epfd);
    /* Where waits run the stack, asking the kernel is most of their cost: it is left out while there is nobody to ask for. */
    if ((front->local != NULL || front_plan != NULL) && op == EPOLL_CTL_ADD &&
        (target == NULL || target->kind == OBJ_EPOLL)) {
        s = set_of(set);
        if (s != NULL)
            epset_set(&s->has_foreign);
    }
    if (target == NULL)
        return fd_is_internal(fd) ? -EBADF : from_libc(libc()->epoll_ctl(epfd, op, fd, ev));
    if (target->kind == OBJ_EPOLL) {
        rc = from_libc(libc()->epoll_ctl(epfd, op, fd, ev));
        if (rc == 0 && op == EPOLL_CTL_ADD)
            (void)epoll_nest(target, fd);
    } else {
        rc = -ENOMEM;
        s = set_of(set);
        if (s != NULL && lock_acquire_own(&s->lock)) {
            bool news;

            rc = change_item(s, epfd, op, fd, target, ev);
            news = rc == 0 && op != EPOLL_CTL_DEL && target->where != SOCK_KERNEL;
            if (news)
                tell_kernel_waiters(set, s, epfd);
            lock_release_own(&s->lock);
            if (news)
                pass_on(s, epfd);
        }
    }
    obj_put(target);
    return rc;
}

/* One set of a socket that has changed sides. The caller holds the set's lock. Returns a descriptor of the set's. */
static int
move_items(struct epset *s, struct obj *o)
{
    struct epitem *it;
    int epfd = -1;

    for (it = o->items; it != NULL; it = it->sock_next) {
        if (it->set != s)
            continue;
        if (o->where == SOCK_STACK && it->in_kernel) {
            libc()->epoll_ctl(it->epfd, EPOLL_CTL_DEL, it->fd, NULL);
            it->in_kernel = false;
        }
        need_queue(s, it->epfd);
        subscribe_item(s, it);
        show_ready(s);
        epfd = it->epfd;
    }
    return epfd;
}

/* Who waits for the set that this descriptor names, if it still does, is called. */
static void
tell_waiters_of(int epfd)
{
    struct obj *set = fd_get(epfd);
    struct epset *s = set != NULL && set->kind == OBJ_EPOLL ? set->set : NULL;

    if (s != NULL && lock_acquire_own(&s->lock)) {
        tell_kernel_waiters(set, s, epfd);
        lock_release_own(&s->lock);
        pass_on(s, epfd);
    }
    if (set != NULL)
        obj_put(set);
}

void
epoll_sock_moved(struct obj *o)
{
    struct epset *sets[MOVED_SETS_MAX];
    struct epitem *it;
    unsigned i, n = 0;

    if (!lock_acquire_own(&o->items_lock))
        return;
    for (it = o->items; it != NULL && n < MOVED_SETS_MAX; it = it->sock_next)
        if (it->set != NULL && (n == 0 || sets[n - 1] != it->set))
            sets[n++] = it->set;
    lock_release_own(&o->items_lock);
    for (i = 0; i < n; i++) {
        if (!lock_acquire_own(&sets[i]->lock))
            continue;
        int epfd = move_items(sets[i], o);

        lock_release_own(&sets[i]->lock);
        if (epfd >= 0)
            tell_waiters_of(epfd);
    }
}

/* An item of the socket's, of any set or of one; NULL if there is none, or the lock is not to be had. It stays one only while its set's lock is held. */
static struct epitem *
find_item(struct obj *o, const struct epset *of, struct epset **set)
{
    struct epitem *it;
    uint32_t term;

    if (!lock_acquire_brief(&o->items_lock, &term))
        return NULL;
    for (it = o->items; it != NULL && (it->set == NULL || (of != NULL && it->set != of)); it = it->sock_next)
        ;
    if (it != NULL)
        *set = it->set;
    lock_release_brief(&o->items_lock, term);
    return it;
}

void
epoll_forget_sock(struct obj *o)
{
    struct epset *s = NULL;
    uint32_t term;

    /* An item that a signal handler had to leave there stays, of no set. */
    while (__atomic_load_n(&o->items, __ATOMIC_RELAXED) != NULL && find_item(o, NULL, &s) != NULL &&
           lock_acquire_brief(&s->lock, &term)) {
        struct epset *same;
        struct epitem *it = find_item(o, s, &same);

        /* Meanwhile it may have left the set with its descriptor, or the set may be gone; or another thread has the socket's list, which is not waited for inside. */
        if (it != NULL)
            epset_remove(s, it);
        lock_release_brief(&s->lock, term);
    }
}

void
epoll_released(struct obj *o)
{
    if (o->set != NULL)
        epset_destroy(o->set);
    o->set = NULL;
}

/* ---- epoll_wait ----------------------------------------------------------------------------------------------------------- */

/* Each item that stands on the list is looked at once, as far as there is room to report it; the others are the first of the next wait. The caller holds the lock. */
static int
report_ready(struct epset *s, struct epoll_event *out, int max)
{
    struct epitem *it, *next;
    int n = 0;

    for (it = s->ready.ready_next; it != &s->ready && n < max; it = next) {
        uint32_t events = item_events(it);

        next = it->ready_next;
        /* Level-triggered: it stays where it is, for the next wait to look at. */
        if (events == 0 || (it->ev.events & (EPOLLONESHOT | EPOLLET)) || sock_is_dead_listener(it->sock))
            epset_pop_ready(s, it);
        if (events == 0)
            continue;
        out[n].events = events;
        out[n++].data = it->ev.data;
        if (it->ev.events & EPOLLONESHOT)
            it->off = true;
    }
    epset_begin_at(s, it);
    show_ready(s);
    return n;
}

static bool
set_has_news(const struct epset *s)
{
    return (epset_has(&s->has_queue) && evq_has_entries(&s->q)) ||
           load_relaxed(&front->dead) != epset_has(&s->dead_seen);
}

/* Most looks find this. In this order: who takes from the queue holds the lock until it stands on the list, where what is level-triggered stays. */
static bool
set_is_quiet(const struct epset *s)
{
    return epset_has(&s->has_queue) && !epset_has(&s->nested) && !set_has_news(s) && load_acquire(&s->lock) == 0 &&
           load_relaxed(&s->nb_ready) == 0;
}

static int
take_and_report(struct epset *s, struct epoll_event *out, int max)
{
    int n;

    if (!lock_acquire_own(&s->lock))
        return 0;
    if (s->nested && s->has_queue)
        evq_drain_fd(&s->q);
    take_events(s);
    n = report_ready(s, out, max);
    lock_release_own(&s->lock);
    return n;
}

static int
collect(struct epset *s, struct epoll_event *out, int max)
{
    return set_is_quiet(s) ? 0 : take_and_report(s, out, max);
}

bool
epoll_is_mixed(const struct obj *set)
{
    const struct epset *s = __atomic_load_n(&set->set, __ATOMIC_ACQUIRE);

    if (front->local != NULL)
        return front_joined || (s != NULL && load_relaxed(&s->nb_items) != 0);
    return s != NULL && !front_is_planned();
}

bool
epoll_is_ready(struct epset *s)
{
    bool ready;

    if (!lock_acquire_own(&s->lock))
        return false;
    show_nested(s);
    ready = s->nb_ready > 0;
    lock_release_own(&s->lock);
    return ready;
}

/* The stack's end of it is closed: it would be readable for ever. */
static void
drop_member(int epfd, int fd)
{
    if (!front_check_alive())
        libc()->epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
}

/* Drop what our own members said from what the kernel reports, and act on it. Returns how many are left. */
static int
filter(struct epset *s, int epfd, struct epoll_event *ev, int n)
{
    int i, kept = 0;

    for (i = 0; i < n; i++) {
        const char *mark = ev[i].data.ptr;

        if (mark == &s->queue_mark) {
            if (!epset_has(&s->nested)) /* there, collect drains it: until then the outer set must see it */
                evq_drain_fd(&s->q);
            if (ev[i].events & (EPOLLHUP | EPOLLERR))
                drop_member(epfd, s->q.fd);
        } else if (mark == &s->control_mark) {
            drop_member(epfd, front->control_fd);
        } else if (mark != &s->kick_mark && mark != &s->call_mark && mark != &s->wake_mark) {
            ev[kept++] = ev[i];
        }
    }
    return kept;
}

static int
ask_kernel(struct epset *s, int epfd, struct epoll_event *out, int max, int timeout_ms, const sigset_t *mask)
{
    int n = libc()->epoll_pwait(epfd, out, max, timeout_ms, mask);

    return n < 0 ? -errno : filter(s, epfd, out, n);
}

/* Taken when the first look has found nothing: who is busy does not read the clock. */
static uint64_t
deadline_after(uint64_t timeout_us)
{
    return timeout_us == 0 || timeout_us == WAIT_FOREVER ? timeout_us : wait_now_us() + timeout_us;
}

static int
timeout_ms(const struct epset *s, bool queue, uint64_t deadline_us)
{
    uint64_t us = queue || epset_has(&s->dead_seen) ? UINT64_MAX : NO_QUEUE_SLEEP_US;

    if (deadline_us != WAIT_FOREVER) {
        uint64_t now = wait_now_us(), left = now < deadline_us ? deadline_us - now : 0;

        us = left < us ? left : us;
    }
    if (us == UINT64_MAX)
        return -1;
    return us > (uint64_t)INT32_MAX * 1000u - 1000u ? INT32_MAX : (int)((us + 999u) / 1000u);
}

static bool
spun_for(void *set)
{
    return set_has_news(set);
}

/* Of so many waits one. */
static inline bool
its_turn(struct epset *s, uint32_t every)
{
    uint32_t turn = load_relaxed(&s->turn) + 1;

    store_relaxed(&s->turn, turn);
    return turn % every == 0;
}

/* Another thread may have taken what came, and have looked for sleepers before this one was counted. */
static bool
may_sleep(const struct epset *s)
{
    return !set_has_news(s) && load_relaxed(&s->nb_ready) == 0;
}

/* Sleep in the kernel's wait, unless something came while we announced it. */
static int
sleep_in_kernel(struct epset *s, int epfd, struct epoll_event *out, int max, uint64_t deadline_us, const sigset_t *mask)
{
    bool queue;
    int n;

    __atomic_add_fetch(&s->waiting, 1, __ATOMIC_SEQ_CST);
    queue = epset_has(&s->has_queue);
    if (queue)
        evq_sleep_begin(&s->q);
    n = ask_kernel(s, epfd, out, max, may_sleep(s) ? timeout_ms(s, queue, deadline_us) : 0, mask);
    if (queue)
        evq_sleep_end(&s->q);
    __atomic_sub_fetch(&s->waiting, 1, __ATOMIC_SEQ_CST);
    return n;
}

/* ---- the same where the waiting thread runs the stack --------------------------------------------------------------------- */

/* Between two passes: the kernel's members get a look now and then, and a sleep where the stack allows one. */
static int
idle_local(struct epset *s, int epfd, struct epoll_event *out, int max, uint64_t deadline_us, const sigset_t *mask)
{
    uint64_t us = deadline_us == 0 ? 0 : front->local->sleep_begin();
    struct timespec ts;
    sigset_t blocked;
    int n;

    if (us == 0)
        return epset_has(&s->has_foreign) && (deadline_us == 0 || its_turn(s, KERNEL_EVERY_PASS))
                   ? ask_kernel(s, epfd, out, max, 0, NULL)
                   : 0;
    if (deadline_us != WAIT_FOREVER) {
        uint64_t now = wait_now_us(), left = now < deadline_us ? deadline_us - now : 0;

        us = left < us ? left : us;
    }
    __atomic_add_fetch(&s->waiting, 1, __ATOMIC_SEQ_CST);
    sole_meet();
    if (!may_sleep(s))
        us = 0;
    ts = (struct timespec){ (time_t)(us / 1000000u), (long)(us % 1000000u) * 1000 };
    n = libc()->epoll_pwait2(epfd, out, max, &ts, wait_local_mask(mask, &blocked));
    n = n < 0 ? -errno : filter(s, epfd, out, n);
    __atomic_sub_fetch(&s->waiting, 1, __ATOMIC_SEQ_CST);
    front->local->sleep_end();
    return n;
}

static int
wait_local(struct obj *set, int epfd, struct epoll_event *out, int max, uint64_t timeout_us, const sigset_t *mask)
{
    struct epset *s = set_of(set);
    uint64_t deadline_us = 0;

    if (s == NULL)
        return -ENOMEM;
    if (!epset_has(&s->has_wake)) {
        epset_set(&s->has_wake);
        add_member(epfd, front->local->wake_fd, &s->wake_mark);
    }
    for (uint32_t i = 0;; i++) {
        int n, k;

        front->local->pass();
        n = collect(s, out, max);
        if (n > 0) {
            k = n < max && epset_has(&s->has_foreign) && its_turn(s, KERNEL_EVERY)
                    ? ask_kernel(s, epfd, out + n, max - n, 0, NULL)
                    : 0;
            pass_on(s, epfd); /* last: who calls another one does not come himself */
            return k > 0 ? n + k : n;
        }
        if (i == 0)
            deadline_us = deadline_after(timeout_us);
        k = idle_local(s, epfd, out, max, deadline_us, mask);
        if (k > 0)
            pass_on(s, epfd); /* the call may have come with these */
        if (k != 0 || timeout_us == 0)
            return k;
        if (deadline_us != WAIT_FOREVER && (i + 1) % CLOCK_EVERY_PASS == 0 && wait_now_us() >= deadline_us)
            return collect(s, out, max);
    }
}

int
epoll_wait_for(struct obj *set, int epfd, struct epoll_event *out, int max, uint64_t timeout_us, const sigset_t *mask)
{
    struct epset *s = set->set;
    uint64_t deadline_us = 0;
    int n, k;

    if (max <= 0)
        return -EINVAL;
    rebuild_inherited(set, epfd);
    recv_flush_notice();
    if (front->local != NULL)
        return wait_local(set, epfd, out, max, timeout_us, mask);
    n = collect(s, out, max);
    if (n == 0) {
        deadline_us = deadline_after(timeout_us);
        if (timeout_us != 0 && epset_has(&s->has_queue) && wait_spin(spun_for, s))
            n = collect(s, out, max);
    }
    for (;;) {
        if (n > 0) {
            k = n < max && its_turn(s, KERNEL_EVERY) ? ask_kernel(s, epfd, out + n, max - n, 0, NULL) : 0;
            pass_on(s, epfd); /* last: who calls another one does not come himself */
            return k > 0 ? n + k : n;
        }
        k = timeout_us == 0 ? ask_kernel(s, epfd, out, max, 0, mask)
                            : sleep_in_kernel(s, epfd, out, max, deadline_us, mask);
        if (k < 0)
            return k;
        n = k < max ? k + collect(s, out + k, max - k) : k;
        if (n > 0)
            pass_on(s, epfd);
        if (n > 0 || (deadline_us != WAIT_FOREVER && wait_now_us() >= deadline_us))
            return n;
    }
}

bool
epoll_kernel_wait_begin(struct obj *set)
{
    if (epoll_is_mixed(set))
        return false;
    __atomic_add_fetch(&set->waiting, 1, __ATOMIC_SEQ_CST);
    if (!epoll_is_mixed(set))
        return true;
    __atomic_sub_fetch(&set->waiting, 1, __ATOMIC_SEQ_CST);
    return false;
}

int
epoll_kernel_wait_end(struct obj *set, int epfd, struct epoll_event *out, int n)
{
    struct epset *s = __atomic_load_n(&set->set, __ATOMIC_ACQUIRE);
    uint32_t others = __atomic_sub_fetch(&set->waiting, 1, __ATOMIC_SEQ_CST);
    int kept;

    if (n <= 0 || s == NULL)
        return n;
    kept = filter(s, epfd, out, n);
    if (epoll_is_mixed(set)) {
        /* A call is for one. */
        if (others != 0 && lock_acquire_own(&s->lock)) {
            call_waiter(s, epfd);
            lock_release_own(&s->lock);
        }
        pass_on(s, epfd);
    }
    return kept > 0 ? kept : -EAGAIN;
}
