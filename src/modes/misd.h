/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef MODES_MISD_H
#define MODES_MISD_H

#include "core/bcast.h"
#include "modes/common.h"
#include "sockets/relay.h"

/**
 * @file
 * Private to the mode misd: what its files share.
 *
 *   misd_channel.c   the channels that events are broadcast by, and the order in which replicas take from two of them
 *   misd_take.c      a replica takes events, and verifies what it is the first to take
 *   misd_replica.c   a replica applies events; its log of effects
 *   misd_snapshot.c  rolling forward, comparing replicas
 *   misd.c           the front, which turns packets and calls into events and effects into what applications see; the mode
 */

#define MISD_REPLICAS_MAX (SHM_MAX_INSTANCES - 1) /**< one instance is the front's */

/* ---- events ---------------------------------------------------------------------------------------------------------------- */

enum misd_kind {
    MISD_CALL, /**< an engine call */
    MISD_CHECK, /**< compare the replicas */
};

struct misd_event {
    struct tcp_call call;
    uint64_t check; /**< MISD_CHECK: its number */
    uint16_t csum_off,
        csum_len; /**< MISD_CALL of a segment: what of its buffer is still to be verified (csum_len 0 = nothing) */
    uint8_t kind; /**< enum misd_kind */
    uint8_t reserved[11];
};
static_assert(sizeof(struct misd_event) == 184, "with its word it fills three cache lines");

/* ---- channels ---------------------------------------------------------------------------------------------------------------- */

#define MISD_ENTRIES 2048u
#define MISD_WINDOW (MISD_ENTRIES / 4)
/** Replicas differ by less than twice (entries + window) places of the merged order. */
#define MISD_ORDER (4 * MISD_ENTRIES)

enum misd_channel { MISD_CALLS, MISD_PACKETS, MISD_CHANNELS };

struct misd_backlog {
    struct misd_event *events;
    uint32_t n, capacity;
};

struct misd_channels {
    unsigned nb; /**< 1: everything goes by MISD_CALLS */
    enum bcast_scheme scheme;
    struct bcast *b[MISD_CHANNELS];
    struct misd_backlog backlog[MISD_CHANNELS]; /**< of the front: what found its channel full, in order */
    /**
     * With two channels: which one the k-th event of the merged order comes from, (k + 1) << 1 | channel, decided by the first replica that comes to
     * it. That is what makes replicas sequentially consistent, where two channels alone would leave them PRAM consistent.
     */
    uint64_t *order;
};

/** Returns 0 or -ENOMEM. */
int misd_channels_init(struct misd_channels *ch, unsigned nb, enum bcast_scheme scheme, unsigned replicas);
void misd_channels_fini(struct misd_channels *ch);

/** Where an event goes. */
unsigned misd_channel_of(const struct misd_channels *ch, const struct misd_event *ev);

/** Put it into its channel, at *position; false: no room, or events wait in front of it. The front. */
bool misd_try_put(struct misd_channels *ch, unsigned c, const struct misd_event *ev, uint64_t *position);
/** Put it there, now or later. False: there is no memory to keep it (counted by the caller). The front. */
bool misd_put(struct misd_channels *ch, unsigned c, const struct misd_event *ev);
/** Put what waits, as far as there is room; returns how much. */
unsigned misd_put_backlog(struct misd_channels *ch);
/** Room in the fullest channel; 0 while anything waits. The front. */
uint32_t misd_room(struct misd_channels *ch);

/** The channels in which replica is not in any more, are there any? */
bool misd_is_out(const struct misd_channels *ch, unsigned replica);

/* ---- replicas ---------------------------------------------------------------------------------------------------------------- */

#define MISD_BURST 16u
#define MISD_AHEAD 64u /**< events that a replica has taken and not applied at most, a multiple of MISD_BURST */
#define MISD_LOG_LIMIT                                                                                                 \
    4096u /**< effects that wait for the front; a replica with more applies nothing until they are taken */
#define MISD_LOG_SENT 4096u /**< of these, EFFECT_SENT caused by one event */

struct misd;

/** Where an event of a burst came from. */
struct misd_origin {
    uint64_t position; /**< in its channel */
    unsigned channel;
    bool primary;
};

struct misd_replica {
    struct misd *x;
    unsigned number;
    struct net *net; /**< what it sends with */
    struct tcp_domain *domain;
    struct tcp_sink sink;
    struct tcp_env env;
    struct counters muted; /**< the engine's, of events that others are primary of */
    uint64_t now_us; /**< of the latest event: never runs backwards, whoever stamped them */

    uint64_t taken; /**< events ever taken from the channels, in the merged order */
    uint64_t applied; /**< atomic: of these, applied; number of the next one to apply */
    struct misd_event event[MISD_AHEAD];
    struct misd_origin origin[MISD_AHEAD];
    unsigned next, count; /**< event[next .. count) is to be applied */
    unsigned waits; /**< runs that ended because the next event's checksum was not verified yet */
    bool stale; /**< passed over: waits for a snapshot */

    bool primary; /**< of the event that is being applied */
    bool logging; /**< its effects have not been applied to the sockets yet */
    uint64_t log_from; /**< the log is complete from this event on */
    struct effect *log;
    uint32_t log_size; /**< a power of two */
    uint32_t log_head, log_tail; /**< run freely */

    /* A call of the front's that waits for its result. */
    bool waiting;
    unsigned waiting_channel;
    uint64_t waiting_position;
    struct tcp_result result;

    /* The front's: when its heads moved last. */
    struct {
        uint64_t head;
        uint64_t since_us;
    } seen[MISD_CHANNELS];
};

/** Returns 0 or -ENOMEM. domain: the stack's own for replica 0, else made here. */
int misd_replica_init(struct misd_replica *r, struct misd *x, unsigned number, struct net *net);
void misd_replica_fini(struct misd_replica *r);

/** Take and apply up to budget events; returns how many. The replica's thread, or anybody while the world is stopped. */
unsigned misd_replica_run(struct misd_replica *r, unsigned budget);

/** Take events behind those that wait to be applied. Returns whether there were any. (misd_take.c) */
bool misd_take(struct misd_replica *r);
/** Is the checksum of the next event known? *good: is it right (or was there none to verify)? */
bool misd_verdict(const struct misd_replica *r, bool *good);
/** Find it out. False: this replica is so far behind that nobody keeps it any more. */
bool misd_verify(struct misd_replica *r, unsigned i);

/** Apply its log to the sockets, up to what it has applied. The front, whose replica it is. */
unsigned misd_replica_drain(struct misd_replica *r);

/* ---- roll-forward and comparison ------------------------------------------------------------------------------------------- */

struct misd_snapshot {
    rte_spinlock_t lock; /**< guards what follows but `wanted` */
    uint32_t wanted; /**< atomic: replicas that wait for one, as bits */
    bool valid;
    uint64_t applied, now_us;
    uint64_t position[MISD_CHANNELS];
    struct tcp_domain *domain;
};

/** A replica between two events gives a snapshot if one is wanted. */
void misd_snapshot_give(struct misd_replica *r);

/** A replica that was passed over takes one, or asks for it; true: it is in again. */
bool misd_snapshot_take(struct misd_replica *r);

#define MISD_CHECKS 16u
/** Compare this replica's state after an event of kind MISD_CHECK with that of whoever was first there. */
void misd_check(struct misd_replica *r, uint64_t number);

/* ---- the mode's own state -------------------------------------------------------------------------------------------------- */

struct misd {
    struct host *host;
    struct stack *stack;
    struct relay relay;
    struct misd_channels channels;
    unsigned nb_replicas;
    bool check;
    uint32_t patience_us;
    struct misd_snapshot snapshot;
    /**
     * What was found out about segments' checksums: (position + 1) << 1 | good, at position modulo its length, which is more than are under way.
     * No replica applies a segment before its checksum is known, so it does not matter who computes it.
     */
    uint64_t verdict[2 * MISD_ENTRIES];
    uint64_t checks[MISD_CHECKS]; /**< atomic: number << 48 | the low 48 bits of the first digest */
    uint64_t posted; /**< events, by the front */
    uint64_t nb_checks;
    unsigned front; /**< replica of the thread that is, or was last, the front */
    uint64_t front_at_us; /**< atomic: of its latest pass */
    uint64_t done; /**< atomic: effects of events before this one have been applied to the sockets */
    struct misd_replica *replica[MISD_REPLICAS_MAX];
};

#endif /* MODES_MISD_H */
