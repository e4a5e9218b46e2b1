/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_EVQ_H
#define SOCKETS_CLIENT_EVQ_H

#include <stdbool.h>
#include <stdint.h>

#include "fdtable.h"

/**
 * @file
 * An event queue of this process: many sockets, one place to sleep. An epoll set owns one, and so does each thread that sleeps in poll or select.
 * A socket stays subscribed until an event comes that nobody here asked for; then it is unsubscribed, so closing costs nothing.
 */

struct evq {
    bool open;
    uint32_t queue; /**< its number in the family */
    int fd; /**< readable when the stack has woken us */
    uint32_t overflow; /**< of back->overflow, what has been dealt with */
    uint32_t sleepers; /**< threads asleep; front->sleeping is 1 while there are any */
    uint32_t *subscribed; /**< [slot]: the slot_claim.state that was subscribed, 0 = not */
};

/** Returns 0, or what front_eventq_create says, -ENOMEM. */
int evq_open(struct evq *q);
/** Give it back; after a fork, forget it (the number is the parent's, the descriptor is a copy to close). */
void evq_close(struct evq *q);
void evq_forget(struct evq *q);

/** Subscribe a socket unless it is; the stack then publishes an event at once. */
void evq_subscribe(struct evq *q, uint32_t slot);
void evq_unsubscribe(struct evq *q, uint32_t slot);

/** Take up to max entries: look at the sockets only after it. *all: some were lost, look at every socket. */
unsigned evq_take(struct evq *q, uint32_t *slots, unsigned max, bool *all);
bool evq_has_entries(const struct evq *q);

/** Between these the stack wakes us by q->fd; look once more after the first. */
void evq_sleep_begin(struct evq *q);
void evq_sleep_end(struct evq *q);
/** q->fd was readable. */
void evq_drain_fd(const struct evq *q);

/** Which object of this process a slot is; NULL: none. */
void evq_set_sock(uint32_t slot, struct obj *o);
static inline struct obj *
evq_peek_sock(uint32_t slot)
{
    struct obj **map = __atomic_load_n(&front->sock_of_slot, __ATOMIC_ACQUIRE);

    return map != NULL && slot < front->lay.max_socks ? __atomic_load_n(&map[slot], __ATOMIC_ACQUIRE) : NULL;
}
/** Held (obj_put), or NULL. */
struct obj *evq_get_sock(uint32_t slot);

#endif /* SOCKETS_CLIENT_EVQ_H */
