/* SPDX-License-Identifier: BSD-3-Clause */
#include "epset.h"

#include <stdlib.h>
#include <string.h>

#include "libc.h"
#include "lock.h"

#define BUCKETS_MIN 64u
/* Made at a time: by itself each would take a header of the allocator's. */
#define ITEMS_MADE 14u

/* Of each front: a late look at a set must find one of its own (sole.h). */
static struct spare_sets {
    uint32_t lock;
    struct epset *list;
} spare_sets[FRONT_MAX];

struct epset *
epset_create(void)
{
    struct spare_sets *spares = &spare_sets[front->number];
    struct epset *s = NULL;
    struct epitem **buckets = calloc(BUCKETS_MIN, sizeof(*buckets));

    if (buckets == NULL)
        return NULL;
    if (lock_acquire(&spares->lock)) {
        s = spares->list;
        if (s != NULL)
            spares->list = s->next_spare;
        lock_release(&spares->lock);
    }
    if (s == NULL)
        s = calloc(1, sizeof(*s));
    if (s == NULL) {
        free(buckets);
        return NULL;
    }
    free(s->buckets);
    s->buckets = buckets;
    s->nb_buckets = BUCKETS_MIN;
    s->has_foreign = s->has_wake = s->has_queue = s->nested = s->inherited = s->dead_seen = false;
    s->turn = s->nb_items = s->nb_ready = 0;
    s->kick_fd = -1;
    s->ready.ready_next = s->ready.ready_prev = &s->ready;
    return s;
}

static void
unlink_from_sock(struct epitem *it)
{
    struct epitem **p;

    if (!lock_acquire_own(&it->sock->items_lock))
        return;
    for (p = &it->sock->items; *p != NULL; p = &(*p)->sock_next)
        if (*p == it) {
            *p = it->sock_next;
            break;
        }
    lock_release_own(&it->sock->items_lock);
}

void
epset_destroy(struct epset *s)
{
    struct spare_sets *spares = &spare_sets[front->number];
    uint32_t i;

    for (i = 0; i < s->nb_buckets; i++)
        while (s->buckets[i] != NULL)
            epset_remove(s, s->buckets[i]);
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

static struct epitem **
bucket_of(const struct epset *s, int fd)
{
    return &s->buckets[(uint32_t)fd & (s->nb_buckets - 1)];
}

static void
grow(struct epset *s)
{
    struct epset bigger = { .nb_buckets = s->nb_buckets * 2 };
    uint32_t i;

    bigger.buckets = calloc(bigger.nb_buckets, sizeof(*bigger.buckets));
    if (bigger.buckets == NULL)
        return;
    for (i = 0; i < s->nb_buckets; i++)
        while (s->buckets[i] != NULL) {
            struct epitem *it = s->buckets[i], **to = bucket_of(&bigger, it->fd);

            s->buckets[i] = it->hash_next;
            it->hash_next = *to;
            *to = it;
        }
    free(s->buckets);
    s->buckets = bigger.buckets;
    s->nb_buckets = bigger.nb_buckets;
}

struct epitem *
epset_find(struct epset *s, int fd, const struct obj *sock)
{
    struct epitem *it = *bucket_of(s, fd);

    while (it != NULL && (it->fd != fd || it->sock != sock))
        it = it->hash_next;
    return it;
}

/* Linked by hash_next; NULL without memory. */
static struct epitem *
make_items(void)
{
    struct epitem *items = calloc(ITEMS_MADE, sizeof(*items));

    for (uint32_t i = 0; items != NULL && i + 1 < ITEMS_MADE; i++)
        items[i].hash_next = &items[i + 1];
    return items;
}

struct epitem *
epset_add(struct epset *s, int epfd, int fd, struct obj *sock, const struct epoll_event *ev)
{
    struct epitem *it = s->spare, **to;

    if (s->nb_items >= s->nb_buckets)
        grow(s);
    if (it == NULL)
        it = make_items();
    if (it == NULL)
        return NULL;
    s->spare = it->hash_next;
    *it = (struct epitem){ .set = s, .sock = sock, .fd = fd, .epfd = epfd, .ev = *ev };
    to = bucket_of(s, fd);
    it->hash_next = *to;
    *to = it;
    s->nb_items++;
    if (lock_acquire_own(&sock->items_lock)) {
        it->sock_next = sock->items;
        sock->items = it;
        lock_release_own(&sock->items_lock);
    }
    return it;
}

void
epset_remove(struct epset *s, struct epitem *it)
{
    struct epitem **p = bucket_of(s, it->fd);

    while (*p != NULL && *p != it)
        p = &(*p)->hash_next;
    if (*p == NULL)
        return;
    *p = it->hash_next;
    unlink_from_sock(it);
    epset_pop_ready(s, it);
    s->nb_items--;
    it->set = NULL;
    it->hash_next = s->spare;
    s->spare = it;
}

void
epset_push_ready(struct epset *s, struct epitem *it)
{
    if (it->is_ready || it->off)
        return;
    it->is_ready = true;
    it->ready_next = &s->ready;
    it->ready_prev = s->ready.ready_prev;
    s->ready.ready_prev->ready_next = it;
    s->ready.ready_prev = it;
    s->nb_ready++;
}

void
epset_pop_ready(struct epset *s, struct epitem *it)
{
    if (!it->is_ready)
        return;
    it->is_ready = false;
    it->ready_prev->ready_next = it->ready_next;
    it->ready_next->ready_prev = it->ready_prev;
    s->nb_ready--;
}

void
epset_each(struct epset *s, void (*fn)(struct epset *s, struct epitem *it))
{
    uint32_t i;

    for (i = 0; i < s->nb_buckets; i++) {
        struct epitem *it;

        for (it = s->buckets[i]; it != NULL; it = it->hash_next)
            if (it->sock->where != SOCK_KERNEL)
                fn(s, it);
    }
}

void
epset_push_all(struct epset *s)
{
    epset_each(s, epset_push_ready);
}

bool
epset_push_sock(struct epset *s, struct obj *sock)
{
    struct epitem *it;
    bool found = false;

    if (!lock_acquire_own(&sock->items_lock))
        return true;
    for (it = sock->items; it != NULL; it = it->sock_next)
        if (it->set == s) {
            found = true;
            epset_push_ready(s, it);
        }
    lock_release_own(&sock->items_lock);
    return found;
}
