/* SPDX-License-Identifier: BSD-3-Clause */
#include "epset.h"

#include <stdlib.h>
#include <string.h>

#include "libc.h"
#include "lock.h"

#define ITEMS_MIN 64u
/* Made at a time: by itself each would take a header of the allocator's, and what aligns it. */
#define ITEMS_MADE 16u

/* Of each front: a late look at a set must find one of its own (sole.h). */
static struct spare_sets {
    uint32_t lock;
    struct epset *list;
} spare_sets[FRONT_MAX];

static struct epset *
set_alloc(void)
{
    struct epset *s = aligned_alloc(_Alignof(struct epset), sizeof(*s));

    if (s != NULL)
        memset(s, 0, sizeof(*s));
    return s;
}

struct epset *
epset_create(void)
{
    struct spare_sets *spares = &spare_sets[front->number];
    struct epset *s = NULL;
    struct epitem **items = calloc(ITEMS_MIN, sizeof(struct epitem *));

    if (items == NULL)
        return NULL;
    if (lock_acquire(&spares->lock)) {
        s = spares->list;
        if (s != NULL)
            spares->list = s->next_spare;
        lock_release(&spares->lock);
    }
    if (s == NULL)
        s = set_alloc();
    if (s == NULL) {
        free(items);
        return NULL;
    }
    free(s->items);
    s->items = items;
    s->max_items = ITEMS_MIN;
    s->has_foreign = s->has_wake = s->has_queue = s->nested = s->inherited = s->dead_seen = false;
    s->turn = s->nb_items = s->nb_ready = s->waiting = 0;
    s->kick_fd = -1;
    s->ready.ready_next = s->ready.ready_prev = &s->ready;
    return s;
}

/* False in a signal handler that has interrupted a walk along that very list. */
static bool
unlink_from_sock(struct epitem *it)
{
    struct epitem **p;
    uint32_t term;

    if (!lock_acquire_brief(&it->sock->items_lock, &term))
        return false;
    for (p = &it->sock->items; *p != NULL; p = &(*p)->sock_next)
        if (*p == it) {
            *p = it->sock_next;
            break;
        }
    lock_release_brief(&it->sock->items_lock, term);
    return true;
}

void
epset_destroy(struct epset *s)
{
    struct spare_sets *spares = &spare_sets[front->number];

    while (s->nb_items > 0)
        epset_remove(s, s->items[s->nb_items - 1]);
    if (s->kick_fd >= 0) {
        fd_set_internal(s->kick_fd, false);
        libc()->close(s->kick_fd);
        s->kick_fd = -1;
    }
    if (s->inherited)
        evq_forget(&s->q);
    else
        evq_close(&s->q);
    if (!lock_acquire(&spares->lock))
        return;
    s->next_spare = spares->list;
    spares->list = s;
    lock_release(&spares->lock);
}

/* Room for one more. */
static bool
grow(struct epset *s)
{
    struct epitem **items;

    if (s->nb_items < s->max_items)
        return true;
    items = realloc(s->items, 2 * s->max_items * sizeof(struct epitem *));
    if (items == NULL)
        return false;
    s->items = items;
    s->max_items *= 2;
    return true;
}

struct epitem *
epset_find(struct epset *s, int fd, struct obj *sock)
{
    struct epitem *it;
    uint32_t term;

    /* Others may be adding to it meanwhile, but not for this set. */
    if (__atomic_load_n(&sock->items, __ATOMIC_RELAXED) == NULL || !lock_acquire_brief(&sock->items_lock, &term))
        return NULL;
    for (it = sock->items; it != NULL && (it->set != s || it->fd != fd); it = it->sock_next)
        ;
    lock_release_brief(&sock->items_lock, term);
    return it;
}

/* Linked by sock_next; NULL without memory. */
static struct epitem *
make_items(void)
{
    struct epitem *items = aligned_alloc(_Alignof(struct epitem), ITEMS_MADE * sizeof(*items));

    for (uint32_t i = 0; items != NULL && i < ITEMS_MADE; i++)
        items[i] = (struct epitem){ .sock_next = i + 1 < ITEMS_MADE ? &items[i + 1] : NULL };
    return items;
}

struct epitem *
epset_add(struct epset *s, int epfd, int fd, struct obj *sock, const struct epoll_event *ev)
{
    struct epitem *it = s->spare != NULL ? s->spare : make_items();
    uint32_t term;

    if (it == NULL)
        return NULL;
    s->spare = it;
    if (!grow(s))
        return NULL;
    s->spare = it->sock_next;
    *it = (struct epitem){
        .set = s, .sock = sock, .fd = fd, .epfd = epfd, .place = s->nb_items & EPITEM_PLACE_MAX, .ev = *ev
    };
    s->items[s->nb_items++] = it;
    if (lock_acquire_brief(&sock->items_lock, &term)) {
        it->sock_next = sock->items;
        sock->items = it;
        lock_release_brief(&sock->items_lock, term);
    }
    return it;
}

void
epset_remove(struct epset *s, struct epitem *it)
{
    struct epitem *last;

    if (it->set != s)
        return;
    last = s->items[--s->nb_items];
    last->place = it->place;
    s->items[it->place] = last;
    epset_pop_ready(s, it);
    it->set = NULL;
    if (!unlink_from_sock(it))
        return; /* it stays there, of no set, and is not used again */
    it->sock_next = s->spare;
    s->spare = it;
}

static void
link_last(struct epset *s, struct epitem *it)
{
    it->ready_next = &s->ready;
    it->ready_prev = s->ready.ready_prev;
    s->ready.ready_prev->ready_next = it;
    s->ready.ready_prev = it;
}

static void
unlink_ready(struct epitem *it)
{
    it->ready_prev->ready_next = it->ready_next;
    it->ready_next->ready_prev = it->ready_prev;
}

void
epset_push_ready(struct epset *s, struct epitem *it)
{
    if (it->is_ready || it->off)
        return;
    it->is_ready = true;
    link_last(s, it);
    store_relaxed(&s->nb_ready, s->nb_ready + 1);
}

void
epset_begin_at(struct epset *s, struct epitem *it)
{
    if (it == &s->ready)
        return;
    unlink_ready(&s->ready);
    s->ready.ready_next = it;
    s->ready.ready_prev = it->ready_prev;
    it->ready_prev->ready_next = &s->ready;
    it->ready_prev = &s->ready;
}

void
epset_pop_ready(struct epset *s, struct epitem *it)
{
    if (!it->is_ready)
        return;
    it->is_ready = false;
    unlink_ready(it);
    store_relaxed(&s->nb_ready, s->nb_ready - 1);
}

void
epset_forget_ready(struct epset *s)
{
    for (uint32_t i = 0; i < s->nb_items; i++)
        s->items[i]->is_ready = false;
    s->ready.ready_next = s->ready.ready_prev = &s->ready;
    store_relaxed(&s->nb_ready, 0);
}

void
epset_each(struct epset *s, void (*fn)(struct epset *s, struct epitem *it))
{
    uint32_t i;

    for (i = 0; i < s->nb_items; i++)
        if (s->items[i]->sock->where != SOCK_KERNEL)
            fn(s, s->items[i]);
}

void
epset_push_all(struct epset *s)
{
    epset_each(s, epset_push_ready);
}

/* The caller holds the socket's list. */
static inline bool
push_items(struct epset *s, const struct obj *sock)
{
    bool found = false;

    for (struct epitem *it = sock->items; it != NULL; it = it->sock_next)
        if (it->set == s) {
            found = true;
            epset_push_ready(s, it);
        }
    return found;
}

bool
epset_push_sock(struct epset *s, struct obj *sock)
{
    bool found;

    if (!lock_acquire_own(&sock->items_lock))
        return true;
    found = push_items(s, sock);
    lock_release_own(&sock->items_lock);
    return found;
}

bool
epset_push_inside(struct epset *s, uint32_t slot)
{
    struct obj *o = evq_peek_sock(slot);
    bool found;

    if (o == NULL || o->slot != slot || !lock_try_inside(&o->items_lock))
        return false;
    found = push_items(s, o);
    lock_release_inside(&o->items_lock);
    return found;
}
