/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <errno.h>
#include <stdalign.h>
#include <string.h>

#include "core/bcast.h"

/*
 * A slot's word: (position + 1) << WORD_SHIFT | low byte, so that no two entries ever have the same word and memory of
 * zeroes holds no entry. The low byte is the number of replicas that have not dequeued it (BCAST_REFCOUNT), or 1 + the
 * primary, 0 for none yet (BCAST_CLAIM).
 *
 * A replica's word: head << HEAD_SHIFT | state, one word, so that a head is only moved by who knows the state. Only the
 * replica's own thread makes it IN, hence the word cannot come back to an old value behind that thread's back.
 *
 * The producers' limit: the first position without room << LIMIT_SHIFT | generation. It never falls. A replica that
 * comes in steps the generation, so that a producer which took the minimum without it cannot install the result.
 */
#define WORD_SHIFT 8
#define WORD_LOW 0xffu
#define HEAD_SHIFT 2
#define HEAD_STATE 3u
#define LIMIT_SHIFT 8
#define LIMIT_GENERATION 0xffu

static_assert(BCAST_REPLICAS_MAX < WORD_LOW, "a count, or 1 + a replica, must fit into the low byte");

struct slot {
    uint64_t word;
    uint64_t
        data[]; /* read and written a word at a time, as a replica that was passed over may read while it changes */
};

struct replica {
    alignas(BCAST_ALIGN) uint64_t word; /* written once per window; producers read it */
    /* Of the replica's thread; the counters are read by others. */
    alignas(BCAST_ALIGN) uint64_t next; /* >= the published head, and under BCAST_CLAIM <= it + window */
    uint64_t dequeued;
    uint64_t primary;
    uint64_t skipped;
};

struct bcast {
    /* Constant after bcast_init. */
    uint32_t replicas;
    uint32_t entries;
    uint32_t entry_words;
    uint32_t slot_bytes;
    uint32_t window;
    uint32_t scheme;
    uint32_t multi_producer;
    /* Of the producers. */
    alignas(BCAST_ALIGN) uint64_t tail; /* next position to give; <= limit */
    uint64_t limit;
    uint64_t full;
    uint64_t refreshed;
    /* Of the replicas that dequeue last (BCAST_REFCOUNT): every entry before it has been dequeued by all. */
    alignas(BCAST_ALIGN) uint64_t head;
    uint64_t expelled;
    struct replica replica[];
};

static_assert(sizeof(struct replica) == 2 * BCAST_ALIGN, "what others read and what they do not are lines apart");
static_assert(offsetof(struct bcast, tail) == BCAST_ALIGN, "constants and the producers' words are lines apart");
static_assert(offsetof(struct bcast, head) == 2 * BCAST_ALIGN, "producers' and replicas' words are lines apart");
static_assert(offsetof(struct bcast, replica) == 3 * BCAST_ALIGN, "replicas begin on a line of their own");

/* A slot shares no line with part of another: 16 and 32 divide a line, everything else is rounded up to lines. */
static uint32_t
slot_bytes(uint32_t entry_bytes)
{
    uint32_t bytes = (uint32_t)sizeof(struct slot) + entry_bytes;

    if (bytes <= 16)
        return 16;
    return bytes <= 32 ? 32 : (bytes + BCAST_ALIGN - 1) & ~(BCAST_ALIGN - 1u);
}

static struct slot *
slot_at(const struct bcast *b, uint64_t position)
{
    char *slots = (char *)(uintptr_t)b + sizeof(*b) + b->replicas * sizeof(b->replica[0]);

    return (struct slot *)(void *)(slots + (position & (b->entries - 1)) * (size_t)b->slot_bytes);
}

static uint64_t
head_word(uint64_t head, enum bcast_state state)
{
    return head << HEAD_SHIFT | (uint64_t)state;
}

static enum bcast_state
word_state(uint64_t word)
{
    return (enum bcast_state)(word & HEAD_STATE);
}

/* A counter with one writer. */
static void
add_own(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

/*
 * Reading while a producer writes is possible for a replica that was passed over and for a late reader of orphans. Both
 * look at the replica's word afterwards: having seen (acquire) one word of a later entry (release), they also see that
 * the replica was declared out, which the producer had seen before it wrote.
 */
static void
copy_out(void *to, const struct slot *slot, uint32_t words)
{
    for (uint32_t i = 0; i < words; i++) {
        uint64_t v = __atomic_load_n(&slot->data[i], __ATOMIC_ACQUIRE);

        memcpy((char *)to + i * sizeof(v), &v, sizeof(v));
    }
}

size_t
bcast_bytes(uint32_t replicas, uint32_t entries, uint32_t entry_bytes)
{
    if (replicas == 0 || replicas > BCAST_REPLICAS_MAX)
        return 0;
    if (entries < 2 || entries > BCAST_ENTRIES_MAX || (entries & (entries - 1)) != 0)
        return 0;
    if (entry_bytes == 0 || entry_bytes > BCAST_ENTRY_BYTES_MAX || entry_bytes % sizeof(uint64_t) != 0)
        return 0;
    return sizeof(struct bcast) + replicas * sizeof(struct replica) + (size_t)entries * slot_bytes(entry_bytes);
}

int
bcast_init(void *memory, const struct bcast_config *config)
{
    size_t bytes = bcast_bytes(config->replicas, config->entries, config->entry_bytes);
    struct bcast *b = memory;

    if (bytes == 0 || (uintptr_t)memory % BCAST_ALIGN != 0)
        return -EINVAL;
    if (config->scheme == BCAST_CLAIM) {
        if (config->window == 0 || config->window > config->entries)
            return -EINVAL;
    } else if (config->scheme != BCAST_REFCOUNT || config->window != 0) {
        return -EINVAL;
    }
    memset(memory, 0, bytes);
    b->replicas = config->replicas;
    b->entries = config->entries;
    b->entry_words = config->entry_bytes / (uint32_t)sizeof(uint64_t);
    b->slot_bytes = slot_bytes(config->entry_bytes);
    b->window = config->window;
    b->scheme = config->scheme;
    b->multi_producer = config->multi_producer;
    b->limit = (uint64_t)config->entries << LIMIT_SHIFT;
    return 0;
}

/*
 * The lowest head that still keeps slots. Each acquire pairs with the release of the word (publish, bcast_skip,
 * bcast_let_go): who overwrites what lies before has all reads of it behind him. One replica at least is in: that which
 * has published the highest head cannot be expelled.
 */
static uint64_t
lowest_head(const struct bcast *b)
{
    uint64_t lowest = UINT64_MAX;

    for (uint32_t i = 0; i < b->replicas; i++) {
        uint64_t word = __atomic_load_n(&b->replica[i].word, __ATOMIC_ACQUIRE);

        if (word_state(word) != BCAST_OUT && word >> HEAD_SHIFT < lowest)
            lowest = word >> HEAD_SHIFT;
    }
    return lowest;
}

/* Any replica's published head, in or out: entries before it have been dequeued, so they have their primaries. */
static uint64_t
highest_head(const struct bcast *b)
{
    uint64_t highest = 0;

    for (uint32_t i = 0; i < b->replicas; i++) {
        uint64_t head = __atomic_load_n(&b->replica[i].word, __ATOMIC_ACQUIRE) >> HEAD_SHIFT;

        highest = head > highest ? head : highest;
    }
    return highest;
}

/* Look at the heads. Returns the first position without room, which the limit says from now on. */
static uint64_t
refresh_limit(struct bcast *b)
{
    /* Pairs with the release below, by another producer, and with that of enter(). */
    uint64_t old = __atomic_load_n(&b->limit, __ATOMIC_ACQUIRE);
    uint64_t limit;

    __atomic_fetch_add(&b->refreshed, 1, __ATOMIC_RELAXED);
    do {
        /* The acquire of the head pairs with the release in dequeue_refcount. */
        limit = b->scheme == BCAST_REFCOUNT ? __atomic_load_n(&b->head, __ATOMIC_ACQUIRE) : lowest_head(b);
        limit += b->entries;
        /* Lower than before: a replica tries to come in too far back, and will find that out. */
        if (limit <= old >> LIMIT_SHIFT)
            return old >> LIMIT_SHIFT;
    } while (!__atomic_compare_exchange_n(&b->limit, &old, limit << LIMIT_SHIFT | (old & LIMIT_GENERATION), false,
                                          __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    return limit;
}

unsigned
bcast_reserve(struct bcast *b, unsigned n, uint64_t *position)
{
    uint64_t tail = __atomic_load_n(&b->tail, __ATOMIC_RELAXED);
    uint64_t room;

    do {
        /* Pairs with the release in refresh_limit: another producer's look at the heads counts for this one. */
        uint64_t limit = __atomic_load_n(&b->limit, __ATOMIC_ACQUIRE) >> LIMIT_SHIFT;

        /* Another producer may have moved both between the two loads, hence the comparison first. */
        if (limit < tail || limit - tail < n)
            limit = refresh_limit(b);
        room = limit > tail ? limit - tail : 0;
        if (room > n)
            room = n;
        if (!b->multi_producer) {
            __atomic_store_n(&b->tail, tail + room, __ATOMIC_RELAXED);
            break;
        }
    } while (!__atomic_compare_exchange_n(&b->tail, &tail, tail + room, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    if (room < n)
        __atomic_fetch_add(&b->full, 1, __ATOMIC_RELAXED);
    *position = tail;
    return (unsigned)room;
}

uint32_t
bcast_room(struct bcast *b)
{
    uint64_t limit = refresh_limit(b), tail = __atomic_load_n(&b->tail, __ATOMIC_RELAXED);

    return limit > tail ? (uint32_t)(limit - tail) : 0;
}

void
bcast_put(struct bcast *b, uint64_t position, const void *entry)
{
    struct slot *slot = slot_at(b, position);
    uint64_t low = b->scheme == BCAST_REFCOUNT ? b->replicas : 0;

    /* These releases pair with the acquires of copy_out by a replica that was passed over. */
    for (uint32_t i = 0; i < b->entry_words; i++) {
        uint64_t v;

        memcpy(&v, (const char *)entry + i * sizeof(v), sizeof(v));
        __atomic_store_n(&slot->data[i], v, __ATOMIC_RELEASE);
    }
    /* Pairs with the acquire in load_entry. */
    __atomic_store_n(&slot->word, (position + 1) << WORD_SHIFT | low, __ATOMIC_RELEASE);
}

unsigned
bcast_enqueue(struct bcast *b, const void *entries, unsigned n)
{
    size_t entry_bytes = b->entry_words * sizeof(uint64_t);
    uint64_t position;
    unsigned got = bcast_reserve(b, n, &position);

    for (unsigned i = 0; i < got; i++)
        bcast_put(b, position + i, (const char *)entries + i * entry_bytes);
    return got;
}

/* The word of the entry at this position; false if it has not been put yet (or, for a replica that is out, not any
 * more). */
static bool
load_entry(const struct slot *slot, uint64_t position, uint64_t *word)
{
    /* Pairs with the release in bcast_put, also when a claim or a decrement came between: those continue its sequence.
     */
    *word = __atomic_load_n(&slot->word, __ATOMIC_ACQUIRE);
    return *word >> WORD_SHIFT == position + 1;
}

/*
 * As the paper has it. The decrement releases this replica's copy to the last one and acquires the others' copies for
 * him. Several "last ones" add to the head in any order: zeroes come in the order of positions, so the sum of the
 * additions never counts an entry that somebody still reads.
 */
static unsigned
dequeue_refcount(struct bcast *b, struct replica *self, char *entries, uint64_t *primary, unsigned n)
{
    size_t entry_bytes = b->entry_words * sizeof(uint64_t);
    uint64_t first = b->replicas - 1u, freed = 0, bits = 0, word;
    unsigned got;

    for (got = 0; got < n; got++) {
        struct slot *slot = slot_at(b, self->next + got);
        uint64_t left;

        if (!load_entry(slot, self->next + got, &word))
            break;
        copy_out(entries + got * entry_bytes, slot, b->entry_words);
        left = __atomic_sub_fetch(&slot->word, 1, __ATOMIC_ACQ_REL) & WORD_LOW;
        bits |= (uint64_t)(left == first) << got;
        freed += left == 0;
    }
    if (freed != 0) /* release: pairs with the producer's look at the head in refresh_limit */
        __atomic_fetch_add(&b->head, freed, __ATOMIC_ACQ_REL);
    if (got != 0) /* for bcast_lagging and the statistics; nothing hangs on it */
        __atomic_store_n(&self->word, head_word(self->next + got, BCAST_IN), __ATOMIC_RELEASE);
    *primary = bits;
    return got;
}

/* Publish a head, if *word is still the replica's word, i.e. if it is still in. */
static bool
publish(struct replica *self, uint64_t *word, uint64_t head)
{
    /* Release: the copies of all entries before `head`. Pairs with lowest_head, highest_head and the acquire in
     * bcast_expel. */
    if (!__atomic_compare_exchange_n(&self->word, word, head_word(head, BCAST_IN), false, __ATOMIC_RELEASE,
                                     __ATOMIC_RELAXED))
        return false;
    *word = head_word(head, BCAST_IN);
    return true;
}

/* Copy up to n entries and claim those that nobody has. */
static unsigned
claim_burst(struct bcast *b, unsigned replica, char *entries, uint64_t *primary, unsigned n)
{
    size_t entry_bytes = b->entry_words * sizeof(uint64_t);
    uint64_t next = b->replica[replica].next, bits = 0, word;
    unsigned got;

    for (got = 0; got < n; got++) {
        struct slot *slot = slot_at(b, next + got);

        if (!load_entry(slot, next + got, &word))
            break;
        /* Relaxed: it decides, and orders nothing; who was primary is read by others only after the head's release. */
        if ((word & WORD_LOW) == 0 && __atomic_compare_exchange_n(&slot->word, &word, word | (replica + 1), false,
                                                                  __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            bits |= UINT64_C(1) << got;
        copy_out(entries + got * entry_bytes, slot, b->entry_words);
    }
    *primary = bits;
    return got;
}

static int
dequeue_claim(struct bcast *b, unsigned replica, char *entries, uint64_t *primary, unsigned n)
{
    struct replica *self = &b->replica[replica];
    uint64_t word = __atomic_load_n(&self->word, __ATOMIC_RELAXED);
    unsigned got;

    if (n > b->window)
        n = b->window;
    if (word_state(word) != BCAST_IN)
        return -ESTALE;
    /* The rule of the window: claims never reach further than `window` past the published head. */
    if (self->next + n - (word >> HEAD_SHIFT) > b->window && !publish(self, &word, self->next))
        return -ESTALE;
    got = claim_burst(b, replica, entries, primary, n);
    if (got == 0 && self->next != word >> HEAD_SHIFT)
        return publish(self, &word, self->next) ? 0 : -ESTALE;
    /* Still in: no slot of this burst was free for a producer when it was copied (see copy_out). */
    return __atomic_load_n(&self->word, __ATOMIC_RELAXED) == word ? (int)got : -ESTALE;
}

int
bcast_dequeue(struct bcast *b, unsigned replica, void *entries, uint64_t *primary, unsigned n)
{
    struct replica *self = &b->replica[replica];
    int got;

    if (n > BCAST_BURST_MAX)
        n = BCAST_BURST_MAX;
    if (b->scheme == BCAST_REFCOUNT)
        got = (int)dequeue_refcount(b, self, entries, primary, n);
    else
        got = dequeue_claim(b, replica, entries, primary, n);
    if (got <= 0) {
        *primary = 0;
        return got;
    }
    self->next += (uint64_t)got;
    add_own(&self->dequeued, (uint64_t)got);
    add_own(&self->primary, (uint64_t)__builtin_popcountll(*primary));
    return got;
}

int
bcast_peek(struct bcast *b, unsigned replica, void *entry, size_t bytes)
{
    struct replica *self = &b->replica[replica];
    const struct slot *slot = slot_at(b, self->next);
    uint64_t word;
    bool found = load_entry(slot, self->next, &word);

    if (found)
        copy_out(entry, slot, (uint32_t)(bytes / sizeof(uint64_t)));
    if (word_state(__atomic_load_n(&self->word, __ATOMIC_RELAXED)) != BCAST_IN)
        return -ESTALE;
    return found;
}

uint64_t
bcast_position(const struct bcast *b, unsigned replica)
{
    return b->replica[replica].next;
}

int
bcast_release(struct bcast *b, unsigned replica)
{
    struct replica *self = &b->replica[replica];
    uint64_t word = __atomic_load_n(&self->word, __ATOMIC_RELAXED);

    if (word_state(word) != BCAST_IN)
        return -ESTALE;
    if (word >> HEAD_SHIFT == self->next)
        return 0;
    return publish(self, &word, self->next) ? 0 : -ESTALE;
}

/* Drop this replica's references up to `to`. Others have dequeued these entries, so it is never the first. */
static void
skip_refcount(struct bcast *b, struct replica *self, uint64_t to)
{
    uint64_t freed = 0;

    for (uint64_t p = self->next; p < to; p++)
        freed += (__atomic_sub_fetch(&slot_at(b, p)->word, 1, __ATOMIC_ACQ_REL) & WORD_LOW) == 0;
    __atomic_fetch_add(&b->head, freed, __ATOMIC_ACQ_REL); /* as in dequeue_refcount */
    __atomic_store_n(&self->word, head_word(to, BCAST_IN), __ATOMIC_RELEASE);
}

/*
 * From out to in. First the word, then the limit: a producer that installs a limit after this step of the generation
 * has read the limit (acquire) after it (release), and so has seen the word; one that installed it before is seen here.
 */
static int
enter(struct bcast *b, struct replica *self, uint64_t to)
{
    uint64_t limit = __atomic_load_n(&b->limit, __ATOMIC_RELAXED), stepped;

    __atomic_store_n(&self->word, head_word(to, BCAST_IN), __ATOMIC_RELEASE);
    do {
        if (limit >> LIMIT_SHIFT > to + b->entries) {
            uint64_t word = head_word(to, BCAST_IN);

            /* If this fails, somebody has fenced it already, and will let it go. */
            __atomic_compare_exchange_n(&self->word, &word, head_word(to, BCAST_OUT), false, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED);
            return -ESTALE;
        }
        stepped = (limit & ~(uint64_t)LIMIT_GENERATION) | ((limit + 1) & LIMIT_GENERATION);
    } while (!__atomic_compare_exchange_n(&b->limit, &limit, stepped, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return 0;
}

int
bcast_skip(struct bcast *b, unsigned replica, uint64_t to)
{
    struct replica *self = &b->replica[replica];
    uint64_t word = __atomic_load_n(&self->word, __ATOMIC_ACQUIRE);
    int ret = 0;

    if (to < self->next)
        return -EINVAL;
    if (to > highest_head(b) && to != self->next)
        return -ERANGE;
    if (word_state(word) == BCAST_FENCED)
        return -EBUSY;
    if (word_state(word) == BCAST_OUT)
        ret = enter(b, self, to);
    else if (b->scheme == BCAST_REFCOUNT)
        skip_refcount(b, self, to);
    else
        ret = publish(self, &word, to) ? 0 : -ESTALE;
    if (ret == 0) {
        add_own(&self->skipped, to - self->next);
        self->next = to;
    }
    return ret;
}

uint64_t
bcast_lagging(const struct bcast *b, uint64_t entries)
{
    uint64_t highest = highest_head(b), bits = 0;

    for (uint32_t i = 0; i < b->replicas; i++) {
        uint64_t word = __atomic_load_n(&b->replica[i].word, __ATOMIC_RELAXED);

        if (word_state(word) == BCAST_IN && (word >> HEAD_SHIFT) + entries < highest)
            bits |= UINT64_C(1) << i;
    }
    return bits;
}

/* Is another replica in, and has it published `head` or more? The acquire (pairs with publish) makes its claims
 * visible. */
static bool
someone_in_at(const struct bcast *b, unsigned replica, uint64_t head)
{
    for (uint32_t i = 0; i < b->replicas; i++) {
        uint64_t word = __atomic_load_n(&b->replica[i].word, __ATOMIC_ACQUIRE);

        if (i != replica && word_state(word) == BCAST_IN && word >> HEAD_SHIFT >= head)
            return true;
    }
    return false;
}

int
bcast_expel(struct bcast *b, unsigned replica, struct bcast_range *held)
{
    struct replica *r = &b->replica[replica];
    uint64_t word = __atomic_load_n(&r->word, __ATOMIC_ACQUIRE), head = word >> HEAD_SHIFT;
    enum bcast_state state = word_state(word);

    held->from = head;
    held->to = state == BCAST_OUT ? head : head + b->window;
    if (b->scheme == BCAST_REFCOUNT)
        return -ENOTSUP;
    if (state != BCAST_IN)
        return -EALREADY;
    /* A head published in this moment makes the exchange fail: then it does not stand still. */
    if (!someone_in_at(b, replica, head + b->window) ||
        !__atomic_compare_exchange_n(&r->word, &word, head_word(head, BCAST_FENCED), false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
        return -EAGAIN;
    __atomic_fetch_add(&b->expelled, 1, __ATOMIC_RELAXED);
    return 0;
}

int
bcast_orphan(const struct bcast *b, unsigned replica, uint64_t position, void *entry)
{
    const struct slot *slot = slot_at(b, position);
    uint64_t word;

    if (!load_entry(slot, position, &word) || (word & WORD_LOW) != replica + 1)
        return 0;
    copy_out(entry, slot, b->entry_words);
    return bcast_state(b, replica) == BCAST_FENCED;
}

void
bcast_let_go(struct bcast *b, unsigned replica)
{
    struct replica *r = &b->replica[replica];
    uint64_t word = __atomic_load_n(&r->word, __ATOMIC_RELAXED);

    /* Release: the orphans have been read. Pairs with lowest_head, which no longer counts this replica. */
    if (word_state(word) == BCAST_FENCED)
        __atomic_compare_exchange_n(&r->word, &word, head_word(word >> HEAD_SHIFT, BCAST_OUT), false, __ATOMIC_RELEASE,
                                    __ATOMIC_RELAXED);
}

enum bcast_state
bcast_state(const struct bcast *b, unsigned replica)
{
    return word_state(__atomic_load_n(&b->replica[replica].word, __ATOMIC_ACQUIRE));
}

void
bcast_get_stats(const struct bcast *b, struct bcast_stats *stats)
{
    stats->enqueued = __atomic_load_n(&b->tail, __ATOMIC_RELAXED);
    stats->full = __atomic_load_n(&b->full, __ATOMIC_RELAXED);
    stats->refreshed = __atomic_load_n(&b->refreshed, __ATOMIC_RELAXED);
    stats->expelled = __atomic_load_n(&b->expelled, __ATOMIC_RELAXED);
}

void
bcast_get_replica_stats(const struct bcast *b, unsigned replica, struct bcast_replica_stats *stats)
{
    const struct replica *r = &b->replica[replica];
    uint64_t highest = highest_head(b), word = __atomic_load_n(&r->word, __ATOMIC_RELAXED);

    stats->state = word_state(word);
    stats->head = word >> HEAD_SHIFT;
    stats->lag = highest > stats->head ? highest - stats->head : 0;
    stats->dequeued = __atomic_load_n(&r->dequeued, __ATOMIC_RELAXED);
    stats->primary = __atomic_load_n(&r->primary, __ATOMIC_RELAXED);
    stats->skipped = __atomic_load_n(&r->skipped, __ATOMIC_RELAXED);
}
