/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_WHEEL_H
#define CORE_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

/**
 * @file
 * Hierarchical timing wheel over an array of nodes that the caller owns. References are 32-bit indices, so
 * wheel and nodes can be moved or copied together (a TCP domain is relocatable). Not thread-safe: a wheel
 * belongs to the domain that it serves. Arm and cancel are O(1); memory is fixed.
 *
 * Instants are microseconds on the caller's clock; the wheel's resolution is WHEEL_TICK_US. A timer never
 * fires before its deadline and at most one tick after it, provided that wheel_advance is called in time.
 */

#define WHEEL_TICK_SHIFT 6
#define WHEEL_TICK_US (1u << WHEEL_TICK_SHIFT)
#define WHEEL_LEVELS 4
#define WHEEL_SLOTS 256
#define WHEEL_NIL UINT32_MAX
#define WHEEL_NEVER UINT64_MAX
#define WHEEL_MAX_TICKS INT32_MAX /**< 38 hours; a deadline further ahead is brought back to this */

/** A timer. Zeroed memory is a disarmed node. */
struct wheel_node {
    uint32_t next; /**< index of the next node in the slot, WHEEL_NIL at the end; undefined while disarmed */
    uint32_t prev; /**< index of the previous node, WHEEL_NIL for the first; undefined while disarmed */
    uint32_t due_tick; /**< deadline in ticks, modulo 2^32 */
    uint32_t slot; /**< 1 + level * WHEEL_SLOTS + position; 0 = disarmed */
};

struct wheel {
    uint64_t now_tick; /**< every timer due before this tick has fired */
    uint32_t armed; /**< number of armed nodes */
    uint64_t next_us; /**< no timer is due before; lowered by arming, raised by advancing alone */
    uint64_t occupied[WHEEL_LEVELS][WHEEL_SLOTS / 64]; /**< bit set <=> the slot's list is not empty */
    uint32_t head[WHEEL_LEVELS][WHEEL_SLOTS];
};

/** Empty wheel at instant now_us. */
void wheel_init(struct wheel *w, uint64_t now_us);

/**
 * Arm or re-arm nodes[id] for deadline_us. One in the past fires at the next advance, also at one for the same
 * instant: who re-arms for the past in a loop over wheel_advance must bound that loop.
 */
void wheel_arm(struct wheel *w, struct wheel_node *nodes, uint32_t id, uint64_t deadline_us);

/** Disarm nodes[id]; nothing happens if it is not armed. */
void wheel_cancel(struct wheel *w, struct wheel_node *nodes, uint32_t id);

static inline bool
wheel_is_armed(const struct wheel_node *node)
{
    return node->slot != 0;
}

/**
 * Advance to now_us and take up to max ids of due timers into due[] (disarmed, in the order of their ticks).
 * Returns how many. A return of max means that more may be due: call again with the same instant.
 */
unsigned wheel_advance(struct wheel *w, struct wheel_node *nodes, uint64_t now_us, uint32_t *due, unsigned max);

/**
 * The instant at which wheel_advance must run next, never later than the earliest deadline; now_us if that has passed, WHEEL_NEVER if none is armed. It may be earlier:
 * when many timers have to move down a level, or where the timer that it was of has been cancelled or put off meanwhile. Then the next advance finds nothing due, and the instant
 * anew. So asking costs a look at two words, however often timers move.
 */
uint64_t wheel_next_us(const struct wheel *w, uint64_t now_us);

#endif /* CORE_WHEEL_H */
