/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_EPSET_H
#define SOCKETS_CLIENT_EPSET_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "evq.h"

/**
 * @file
 * The items of an epoll set: a list of all, a list of those that are ready, and for each socket the list of its items (a socket may stand in
 * several sets, and in one by several descriptors). Lock order: set->lock, then obj->items_lock. Memory of sets and items is kept for reuse and never
 * unmapped, so that close(), which may run in a signal handler, frees nothing.
 */

#define EPITEM_PLACE_MAX ((1u << 29) - 1)

struct epitem {
    struct epset *set; /**< NULL: none, for further use */
    struct obj *sock;
    int fd, epfd; /**< as the program named them */
    uint32_t place : 29; /**< in the list of all: set->items[place] */
    uint32_t in_kernel : 1; /**< a member of the kernel's set (also) */
    uint32_t is_ready : 1; /**< on the ready list */
    uint32_t off : 1; /**< EPOLLONESHOT has fired */
    struct epoll_event ev;
    struct epitem *sock_next; /**< the socket's next item; in the list of spare ones */
    struct epitem *ready_prev, *ready_next;
} __attribute__((aligned(64)));
static_assert(sizeof(struct epitem) == 64, "an event touches one line of an item");

struct epset {
    uint32_t lock;
    struct evq q;
    /* Looked at without the lock too, by epset_has, and where that is so set by epset_set: has_foreign and has_wake by whoever comes, the others with the lock held. */
    bool has_foreign; /**< the kernel's set has, or had, members besides ours */
    bool has_wake; /**< the stack runs in this process, and its descriptor is a member */
    bool has_queue; /**< false with items: no queue was to be had; the sockets are looked at every few milliseconds */
    bool nested; /**< stands in another set or in poll: its descriptor must show ready sockets */
    bool inherited; /**< of the parent: to be rebuilt before use */
    bool dead_seen;
    uint32_t turn; /**< counts waits, so that the kernel's members get theirs; atomic, some may be lost */
    uint32_t waiting; /**< threads that sleep in the kernel's wait, or are about to; atomic */
    int kick_fd; /**< eventfd, readable while the ready list is not empty (nested sets) */
    char queue_mark, control_mark, kick_mark, call_mark,
        wake_mark; /**< their addresses are our members' data in the kernel's set */
    uint32_t nb_items, max_items;
    uint32_t nb_ready; /**< atomic for those who look without the lock */
    struct epitem **items; /**< [max_items] */
    struct epitem ready; /**< list head */
    struct epitem *spare;
    struct epset *next_spare;
};

static inline bool
epset_has(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static inline void
epset_set(bool *flag)
{
    __atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

struct epset *epset_create(void);
/** Nobody uses the set any more. Its items leave their sockets' lists. */
void epset_destroy(struct epset *s);

/* The caller holds set->lock for all of these. */

struct epitem *epset_find(struct epset *s, int fd, struct obj *sock);
/** NULL without memory. */
struct epitem *epset_add(struct epset *s, int epfd, int fd, struct obj *sock, const struct epoll_event *ev);
void epset_remove(struct epset *s, struct epitem *it);
void epset_push_ready(struct epset *s, struct epitem *it);
void epset_pop_ready(struct epset *s, struct epitem *it);
/** The ready list begins at this item: those before it go behind the others. &s->ready: it stays as it is. */
void epset_begin_at(struct epset *s, struct epitem *it);
void epset_push_all(struct epset *s);
/** Items of this set for a socket go to the ready list; false if there is none. */
bool epset_push_sock(struct epset *s, struct obj *sock);
/** The same for the socket in a slot, inside (sole.h); false also if that needs more. */
bool epset_push_inside(struct epset *s, uint32_t slot);
/** Nothing is on the ready list, in whatever state that was. */
void epset_forget_ready(struct epset *s);
void epset_each(struct epset *s, void (*fn)(struct epset *s, struct epitem *it));

#endif /* SOCKETS_CLIENT_EPSET_H */
