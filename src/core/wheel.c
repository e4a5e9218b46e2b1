/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <string.h>

#include "core/wheel.h"

/*
 * A node lies on the lowest level on which its due tick and the wheel's now differ: level L holds the ticks whose
 * bits from 8 * (L + 1) on are now's, and whose bits [8L, 8L + 8) are not. Hence each node of a lower level is
 * due before each node of a higher one, and the first occupied slot of the lowest occupied level is the next that
 * needs work. Level 0 also holds now's own tick: timers armed for the past, and those that the caller's array had
 * no room for.
 */

#define SLOT_BITS 8
#define SLOT_MASK (WHEEL_SLOTS - 1u)

/* find_next_us looks at no more nodes than this for an exact deadline; beyond, the slot's start has to do. */
#define PEEK_NODES 8

static_assert(WHEEL_SLOTS == 1u << SLOT_BITS, "a slot index is one byte of the tick");
static_assert(WHEEL_LEVELS * SLOT_BITS == 32, "the levels together cover a 32-bit tick");

static unsigned
position(uint32_t tick, unsigned level)
{
    return (tick >> (level * SLOT_BITS)) & SLOT_MASK;
}

static void
link_node(struct wheel *w, struct wheel_node *nodes, uint32_t id)
{
    struct wheel_node *n = &nodes[id];
    uint32_t differ = n->due_tick ^ (uint32_t)w->now_tick;
    unsigned level = differ == 0 ? 0 : (31u - (unsigned)__builtin_clz(differ)) / SLOT_BITS;
    unsigned pos = position(n->due_tick, level);

    n->prev = WHEEL_NIL;
    n->next = w->head[level][pos];
    if (n->next != WHEEL_NIL)
        nodes[n->next].prev = id;
    w->head[level][pos] = id;
    w->occupied[level][pos / 64] |= UINT64_C(1) << (pos % 64);
    n->slot = 1 + level * WHEEL_SLOTS + pos;
}

static void
unlink_node(struct wheel *w, struct wheel_node *nodes, uint32_t id)
{
    struct wheel_node *n = &nodes[id];
    unsigned level = (n->slot - 1) / WHEEL_SLOTS;
    unsigned pos = (n->slot - 1) % WHEEL_SLOTS;

    if (n->next != WHEEL_NIL)
        nodes[n->next].prev = n->prev;
    if (n->prev != WHEEL_NIL)
        nodes[n->prev].next = n->next;
    else
        w->head[level][pos] = n->next;
    if (w->head[level][pos] == WHEEL_NIL)
        w->occupied[level][pos / 64] &= ~(UINT64_C(1) << (pos % 64));
    n->slot = 0;
}

/* Distance (0..255) from position `from` round the level to its first occupied slot; WHEEL_SLOTS if all are empty. */
static unsigned
first_occupied(const uint64_t bits[WHEEL_SLOTS / 64], unsigned from)
{
    for (unsigned i = 0; i <= WHEEL_SLOTS / 64; i++) {
        unsigned word = (from / 64 + i) % (WHEEL_SLOTS / 64);
        uint64_t b = bits[word];

        if (i == 0)
            b &= ~UINT64_C(0) << (from % 64);
        if (b != 0)
            return (word * 64 + (unsigned)__builtin_ctzll(b) - from) & SLOT_MASK;
    }
    return WHEEL_SLOTS;
}

/* Start of the first occupied slot of the lowest occupied level; false if nothing is armed. */
static bool
next_slot(const struct wheel *w, uint64_t *start_tick, unsigned *level)
{
    if (w->armed == 0)
        return false;
    for (unsigned l = 0; l < WHEEL_LEVELS; l++) {
        uint64_t here = w->now_tick >> (l * SLOT_BITS);
        unsigned distance = first_occupied(w->occupied[l], (unsigned)(here & SLOT_MASK));

        if (distance < WHEEL_SLOTS) {
            *start_tick = (here + distance) << (l * SLOT_BITS);
            *level = l;
            return true;
        }
    }
    return false;
}

/* When the next advance has something to do. */
static uint64_t
find_next_us(const struct wheel *w, const struct wheel_node *nodes)
{
    uint64_t start;
    unsigned level;

    if (!next_slot(w, &start, &level))
        return WHEEL_NEVER;

    uint32_t earliest = UINT32_MAX; /* ticks after the slot's start */
    uint32_t id = w->head[level][position((uint32_t)start, level)];

    for (unsigned i = 0; id != WHEEL_NIL; i++, id = nodes[id].next) {
        uint32_t after = nodes[id].due_tick - (uint32_t)start;

        if (i == PEEK_NODES) {
            earliest = 0;
            break;
        }
        if (after < earliest)
            earliest = after;
    }
    return (start + earliest) << WHEEL_TICK_SHIFT;
}

/* now_tick has just entered the slots that start with it: spread their nodes over the levels below. */
static void
cascade(struct wheel *w, struct wheel_node *nodes)
{
    for (unsigned level = WHEEL_LEVELS - 1; level > 0; level--) {
        uint32_t now = (uint32_t)w->now_tick;
        unsigned pos = position(now, level);

        if ((now & ((1u << (level * SLOT_BITS)) - 1)) != 0)
            continue;
        while (w->head[level][pos] != WHEEL_NIL) {
            uint32_t id = w->head[level][pos];

            unlink_node(w, nodes, id);
            link_node(w, nodes, id);
        }
    }
}

void
wheel_init(struct wheel *w, uint64_t now_us)
{
    memset(w, 0, sizeof(*w));
    memset(w->head, 0xff, sizeof(w->head)); /* WHEEL_NIL in each */
    w->now_tick = now_us >> WHEEL_TICK_SHIFT;
    w->next_us = WHEEL_NEVER;
}

void
wheel_arm(struct wheel *w, struct wheel_node *nodes, uint32_t id, uint64_t deadline_us)
{
    uint64_t due = (deadline_us >> WHEEL_TICK_SHIFT) + ((deadline_us & (WHEEL_TICK_US - 1)) != 0);

    if (due < w->now_tick)
        due = w->now_tick;
    else if (due - w->now_tick > WHEEL_MAX_TICKS)
        due = w->now_tick + WHEEL_MAX_TICKS;
    wheel_cancel(w, nodes, id);
    nodes[id].due_tick = (uint32_t)due;
    link_node(w, nodes, id);
    w->armed++;
    if (due << WHEEL_TICK_SHIFT < w->next_us)
        w->next_us = due << WHEEL_TICK_SHIFT;
}

void
wheel_cancel(struct wheel *w, struct wheel_node *nodes, uint32_t id)
{
    if (!wheel_is_armed(&nodes[id]))
        return;
    unlink_node(w, nodes, id);
    w->armed--;
}

unsigned
wheel_advance(struct wheel *w, struct wheel_node *nodes, uint64_t now_us, uint32_t *due, unsigned max)
{
    uint64_t target = now_us >> WHEEL_TICK_SHIFT;
    uint64_t start;
    unsigned level;
    unsigned n = 0;

    while (n < max && next_slot(w, &start, &level) && start <= target) {
        if (start != w->now_tick) {
            w->now_tick = start;
            cascade(w, nodes);
        }
        uint32_t *head = &w->head[0][start & SLOT_MASK];

        while (n < max && *head != WHEEL_NIL) {
            due[n++] = *head;
            wheel_cancel(w, nodes, *head);
        }
    }
    /* A full array may leave due timers behind, and now must not pass them. */
    if (n < max && target > w->now_tick)
        w->now_tick = target;
    w->next_us = find_next_us(w, nodes);
    return n;
}

uint64_t
wheel_next_us(const struct wheel *w, uint64_t now_us)
{
    if (w->armed == 0)
        return WHEEL_NEVER;
    return w->next_us > now_us ? w->next_us : now_us;
}
