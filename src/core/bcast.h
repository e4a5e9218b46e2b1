/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_BCAST_H
#define CORE_BCAST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * @file
 * Bounded broadcast ring to n replicas, the channel of replicated work: every entry is dequeued by every replica
 * exactly once and in the same order; the first replica that dequeues an entry is its primary; a slot is used again
 * when the last replica is done with it. One block of memory from the caller, offsets only, so it may stand in memory
 * that processes map at different addresses, and may be copied while nobody works on it.
 *
 * Position: the number of an entry since bcast_init, from 0; never used twice (56 bits). A replica's head is the
 * position that it dequeues next, or, as seen by others, a lower bound of it.
 *
 * Threads: one thread per replica at a time (the functions that say "the replica's thread"); one producing thread, or
 * any number if the ring was made for several; everything else from any thread. Nothing blocks and nothing is
 * allocated. A producer that is stopped between bcast_reserve and bcast_put holds up the replicas at that entry.
 *
 * Two schemes decide who is primary and when a slot is free:
 *
 * - BCAST_REFCOUNT: each entry counts the replicas that have not dequeued it. A dequeue is an atomic decrement: a
 * result of n - 1 means primary, zero means last, and the last one moves the ring's head on.
 * - BCAST_CLAIM: the first replica puts its number into the entry by one compare-and-swap, which the others only read.
 * Each replica publishes its head when it has handed out `window` entries or found the ring empty, and the producer
 * takes the minimum of the heads only when it runs out of the room it knows of.
 *
 * Passing over a replica that stands still (BCAST_CLAIM only; a reference count does not tell whose references are
 * outstanding, and a late decrement would hit the slot's next entry, so bcast_expel says -ENOTSUP there):
 *
 *          bcast_expel             bcast_let_go             bcast_skip
 *     IN --------------> FENCED ----------------> OUT --------------------> IN
 *         (anyone)        |        (anyone)               (the replica)
 *                         +-- bcast_orphan: what it may have left undone
 *
 * A fenced replica's next call says -ESTALE; its head still keeps the slots, so that survivors can read the entries
 * whose primary it was. Once let go, nobody waits for it. It may be stopped at any instruction, hence the rule of the
 * window: a replica never runs more than `window` entries ahead of its published head, and is expelled only when
 * another one that is in has published a head at least `window` further on. Every entry within its reach has a primary
 * by then, so that whatever it does after waking it becomes primary of nothing, and the list of its orphans is final.
 * What no ring can prevent: a replica that wakes in the middle of a primary's work carries on until its next call. The
 * effects of primaries must therefore bear being done twice.
 */

#define BCAST_REPLICAS_MAX 64
#define BCAST_ENTRIES_MAX (1u << 20)
#define BCAST_ENTRY_BYTES_MAX 1024
#define BCAST_BURST_MAX 64 /**< entries that one dequeue returns at most: the primaries are bits of 64 */
#define BCAST_ALIGN 64 /**< of the memory */

enum bcast_scheme {
    BCAST_REFCOUNT,
    BCAST_CLAIM,
};

enum bcast_state {
    BCAST_IN,
    BCAST_FENCED,
    BCAST_OUT,
};

struct bcast_config {
    uint32_t replicas; /**< 1 .. BCAST_REPLICAS_MAX */
    uint32_t entries; /**< capacity: a power of two, 2 .. BCAST_ENTRIES_MAX */
    uint32_t entry_bytes; /**< a multiple of 8, 8 .. BCAST_ENTRY_BYTES_MAX; 8, 24, 56, 120, 248 waste no cache line */
    uint32_t window; /**< BCAST_CLAIM: 1 .. entries; a quarter of entries is a good value. BCAST_REFCOUNT: 0 */
    enum bcast_scheme scheme;
    bool multi_producer;
};

struct bcast; /**< opaque: the caller's memory */

struct bcast_stats {
    uint64_t enqueued; /**< positions given to producers */
    uint64_t full; /**< calls of a producer that got less room than they asked for */
    uint64_t refreshed; /**< times that a producer looked at the heads (BCAST_CLAIM) or the head (BCAST_REFCOUNT) */
    uint64_t expelled; /**< times that a replica was declared out */
};

struct bcast_replica_stats {
    enum bcast_state state;
    uint64_t head; /**< published */
    uint64_t lag; /**< entries behind the highest published head */
    uint64_t dequeued;
    uint64_t primary; /**< of these, as primary */
    uint64_t skipped; /**< entries passed by bcast_skip */
};

/** Positions from <= p < to. */
struct bcast_range {
    uint64_t from;
    uint64_t to;
};

/** Bytes of memory for such a ring; 0 if a number is out of its range. */
size_t bcast_bytes(uint32_t replicas, uint32_t entries, uint32_t entry_bytes);

/**
 * Make an empty ring in bcast_bytes() bytes at memory, all replicas in, at position 0. No other thread uses it yet.
 * There is nothing to undo; the memory stays the caller's. Errors: -EINVAL a number out of its range, or memory not
 * aligned.
 */
int bcast_init(void *memory, const struct bcast_config *config);

/**
 * Reserve room for up to n entries. Returns how many, and in *position that of the first; each must be written by
 * bcast_put, and soon. 0 if the ring is full. A producer's thread.
 */
unsigned bcast_reserve(struct bcast *b, unsigned n, uint64_t *position);

/**
 * How many entries have room now: what bcast_reserve would give if nobody else produced. A producer's thread; it looks at the heads, which costs a
 * cache line for each replica.
 */
uint32_t bcast_room(struct bcast *b);

/** Write the entry at a reserved position (entry_bytes are copied) and show it to the replicas. A producer's thread. */
void bcast_put(struct bcast *b, uint64_t position, const void *entry);

/** Append up to n entries that lie behind each other. Returns how many had room. A producer's thread. */
unsigned bcast_enqueue(struct bcast *b, const void *entries, unsigned n);

/**
 * Copy up to n (at most BCAST_BURST_MAX) entries to `entries`; bit i of *primary tells whether this replica is primary
 * of the i-th. Returns how many; under BCAST_CLAIM never more than the window. All entries that earlier calls returned
 * count as done by this call. The replica's thread. Errors: -ESTALE the replica has been declared out: nothing is
 * returned, take a snapshot and bcast_skip.
 */
int bcast_dequeue(struct bcast *b, unsigned replica, void *entries, uint64_t *primary, unsigned n);

/**
 * Copy the first `bytes` (a multiple of 8, at most entry_bytes) of the entry that the next dequeue returns, and leave
 * it. Returns 1, or 0 if there is none. The replica's thread. Errors: -ESTALE as above.
 */
int bcast_peek(struct bcast *b, unsigned replica, void *entry, size_t bytes);

/** The position that this replica dequeues next, i.e. the one its state stands for. The replica's thread. */
uint64_t bcast_position(const struct bcast *b, unsigned replica);

/**
 * Say that all entries dequeued so far are done, and publish the head. Needed before a snapshot at bcast_position is
 * given away, and before the replica's thread sleeps. The replica's thread. Errors: -ESTALE as above.
 */
int bcast_release(struct bcast *b, unsigned replica);

/**
 * Move the replica to position `to`, whose state it has taken from another one's snapshot; a replica that is out comes
 * in again. The replica's thread; this is also how a thread that replaces an ended one begins. Errors: -EINVAL `to` is
 * behind the replica's own position; -ERANGE no replica has published a head that far, so it cannot come from a
 * snapshot after bcast_release; -EBUSY fenced, and somebody still reads its orphans: try again; -ESTALE the replica is
 * out and the entries after `to` are being overwritten (take a later snapshot), or it was declared out meanwhile.
 */
int bcast_skip(struct bcast *b, unsigned replica, uint64_t to);

/** The replicas that are in and more than `entries` behind the highest published head, as bits. Any thread. */
uint64_t bcast_lagging(const struct bcast *b, uint64_t entries);

/**
 * Declare a replica out. *held gets the positions that it may have dequeued without saying that they are done. Any
 * thread. Follow with bcast_orphan and bcast_let_go; until then its head still keeps the slots. Errors: -EALREADY it is
 * fenced (held is set, so another thread can finish what the first began) or out (held is empty); -EAGAIN it is not
 * `window` behind a replica that is in; -ENOTSUP BCAST_REFCOUNT.
 */
int bcast_expel(struct bcast *b, unsigned replica, struct bcast_range *held);

/**
 * 1 if the fenced replica was primary of this position out of `held`, and copies the entry: somebody else must do the
 * primary's work (again). 0 if another one was, or if the replica has been let go. Any thread.
 */
int bcast_orphan(const struct bcast *b, unsigned replica, uint64_t position, void *entry);

/** Stop waiting for a fenced replica. Any thread; nothing happens if it is not fenced. */
void bcast_let_go(struct bcast *b, unsigned replica);

enum bcast_state bcast_state(const struct bcast *b, unsigned replica);

/** Any thread; each number is exact, but they are not of one instant. */
void bcast_get_stats(const struct bcast *b, struct bcast_stats *stats);
void bcast_get_replica_stats(const struct bcast *b, unsigned replica, struct bcast_replica_stats *stats);

#endif /* CORE_BCAST_H */
