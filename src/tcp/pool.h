/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_POOL_H
#define TCP_POOL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/**
 * @file
 * A pool of equal entries in an array that lies elsewhere in the arena, named by 32-bit index; 0 names none. Entries
 * above the high-water mark have never been touched: memory grows with use. A free entry is all zero but for its first
 * word, which links the free list; one that was never used is all zero.
 */
struct tcp_pool {
    uint32_t free_head; /**< index of the entry freed last, 0 if there is none below the mark */
    uint32_t high; /**< highest index ever given out */
    uint32_t used; /**< entries given out and not yet back, i.e. high - length of the free list */
    uint32_t cap; /**< indices run from 1 to cap */
};

static inline void
tcp_pool_init(struct tcp_pool *p, uint32_t cap)
{
    *p = (struct tcp_pool){ .cap = cap };
}

/** An entry whose first word is zero (and the rest too, unless its last owner left marks on purpose), or 0. */
static inline uint32_t
tcp_pool_get(struct tcp_pool *p, void *base, size_t stride)
{
    uint32_t i = p->free_head;

    if (i != 0) {
        char *entry = (char *)base + i * stride;
        memcpy(&p->free_head, entry, sizeof(uint32_t));
        memset(entry, 0, sizeof(uint32_t));
    } else {
        if (p->high == p->cap)
            return 0;
        i = ++p->high;
    }
    p->used++;
    return i;
}

static inline void
tcp_pool_put(struct tcp_pool *p, void *base, size_t stride, uint32_t i)
{
    char *entry = (char *)base + i * stride;

    memset(entry, 0, stride);
    memcpy(entry, &p->free_head, sizeof(uint32_t));
    p->free_head = i;
    p->used--;
}

#endif /* TCP_POOL_H */
