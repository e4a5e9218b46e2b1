/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_WAITERS_H
#define TCP_WAITERS_H

#include <stdbool.h>
#include <stdint.h>

/**
 * @file
 * A queue of entries, first come, first served, whose links lie elsewhere in the arena, by the entries' index; 0 names none. Zeroed memory is an empty queue. Whoever asks only
 * whether anyone waits may do so while others change it; the answer is then a moment old.
 */
struct tcp_waiters {
    uint32_t first, last;
};

struct tcp_waiter {
    uint32_t next, prev;
};

static inline bool
tcp_waiters_any(const struct tcp_waiters *w)
{
    return __atomic_load_n(&w->first, __ATOMIC_RELAXED) != 0;
}

static inline bool
tcp_waiters_has(const struct tcp_waiters *w, const struct tcp_waiter *links, uint32_t i)
{
    return links[i].next != 0 || w->last == i;
}

/** Behind all others; nothing happens if it waits already. */
static inline void
tcp_waiters_add(struct tcp_waiters *w, struct tcp_waiter *links, uint32_t i)
{
    if (tcp_waiters_has(w, links, i))
        return;
    links[i] = (struct tcp_waiter){ .prev = w->last };
    if (w->last != 0)
        links[w->last].next = i;
    else
        __atomic_store_n(&w->first, i, __ATOMIC_RELAXED);
    w->last = i;
}

/** Nothing happens if it does not wait. */
static inline void
tcp_waiters_remove(struct tcp_waiters *w, struct tcp_waiter *links, uint32_t i)
{
    struct tcp_waiter l = links[i];

    if (!tcp_waiters_has(w, links, i))
        return;
    if (l.next != 0)
        links[l.next].prev = l.prev;
    else
        w->last = l.prev;
    if (l.prev != 0)
        links[l.prev].next = l.next;
    else
        __atomic_store_n(&w->first, l.next, __ATOMIC_RELAXED);
    links[i] = (struct tcp_waiter){ 0 };
}

/** Take the one that came first; 0 = nobody waits. */
static inline uint32_t
tcp_waiters_take(struct tcp_waiters *w, struct tcp_waiter *links)
{
    uint32_t i = w->first;

    if (i != 0)
        tcp_waiters_remove(w, links, i);
    return i;
}

#endif /* TCP_WAITERS_H */
