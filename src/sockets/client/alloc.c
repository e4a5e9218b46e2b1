/* SPDX-License-Identifier: BSD-3-Clause */
#include "front.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "lock.h"
#include "sole.h"

/*
 * Slots and chunks are handed out by two lists that the family shares, each a stack of free numbers with a tag against ABA in the upper half of its head.
 * There is no lock to die with. A process that dies between taking a number and writing down where it went loses that one number; what
 * it had written down (a slot it opened, a chunk in a slot) is found again by the sweeps, which run when a list is empty.
 */
struct number_list {
    uint64_t head; /* tag << 32 | number + 1 */
    uint32_t cut; /* numbers from here on have never been used */
};

struct private_head {
    struct number_list slots, chunks;
    struct number_list cold; /* chunks whose memory went back to the kernel; linked as those */
    struct number_list smalls;
    uint32_t info_pid[SHM_INFO_SLOTS]; /* who uses it, 0 = nobody */
    uint32_t sweep_hand; /* where the search for idle chunks goes on */
};

/* How many an allocation of fresh memory looks at first. */
#define SWEEP_SLOTS 64u
/* Before a sleep, not more often than that: free chunks above so many lose their memory, some at a time, and idle sockets are looked at. */
#define TRIM_US 50000u
#define TRIM_KEPT 64u
#define TRIM_CHUNKS 256u
#define TRIM_SLOTS 2048u

enum slot_state { SLOT_FREE, SLOT_CLAIMED, SLOT_OPEN };

static struct private_head *
private_head(void)
{
    return (struct private_head *)(void *)(front->front + front->lay.front_private_off);
}

/* Of one that is claimed, and so in no list: the process that did it. */
static uint32_t *
slot_next(void)
{
    return (uint32_t *)(void *)(front->front + front->lay.front_private_off + 65536u);
}

static uint32_t *
small_next(void)
{
    return slot_next() + front->lay.max_socks;
}

static uint32_t *
chunk_next(void)
{
    return small_next() + front->lay.max_socks;
}

/* One that was given back; UINT32_MAX: none. */
static uint32_t
list_take_used(struct number_list *l, const uint32_t *next)
{
    uint64_t head = __atomic_load_n(&l->head, __ATOMIC_ACQUIRE);

    while ((uint32_t)head != 0) {
        uint32_t number = (uint32_t)head - 1;
        uint64_t after = ((head >> 32) + 1) << 32 | load_relaxed(&next[number]);

        if (sole_cas64(&l->head, &head, after))
            return number;
    }
    return UINT32_MAX;
}

/* One that has never been used: its memory is not there yet. */
static uint32_t
list_take_fresh(struct number_list *l, uint32_t count)
{
    uint32_t n = load_relaxed(&l->cut);

    while (n < count)
        if (__atomic_compare_exchange_n(&l->cut, &n, n + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return n;
    return UINT32_MAX;
}

static uint32_t
list_take(struct number_list *l, const uint32_t *next, uint32_t count)
{
    uint32_t n = list_take_used(l, next);

    return n != UINT32_MAX ? n : list_take_fresh(l, count);
}

static void
list_give(struct number_list *l, uint32_t *next, uint32_t number)
{
    uint64_t head = __atomic_load_n(&l->head, __ATOMIC_RELAXED), after;

    do {
        store_relaxed(&next[number], (uint32_t)head);
        after = ((head >> 32) + 1) << 32 | (number + 1);
    } while (!sole_cas64(&l->head, &head, after));
}

/* How many are in the list, up to most: a hint, since others take and give meanwhile. */
static uint32_t
list_count(const struct number_list *l, const uint32_t *next, uint32_t count, uint32_t most)
{
    uint32_t at = (uint32_t)__atomic_load_n(&l->head, __ATOMIC_ACQUIRE), n = 0;

    for (; at != 0 && at <= count && n < most; n++)
        at = load_relaxed(&next[at - 1]);
    return n;
}

/* ---- chunks ----------------------------------------------------------------------------------------------------------- */

void
chunk_free(uint32_t chunk)
{
    list_give(&private_head()->chunks, chunk_next(), chunk);
}

void
small_free(uint32_t small)
{
    list_give(&private_head()->smalls, small_next(), small);
}

static void
free_small_of(struct shm_front_sock *f)
{
    uint32_t number = f->tx_small;

    if (number != 0) {
        store_relaxed16(&f->tx_small, 0);
        small_free(number - 1);
    }
}

/* Chunks from number `low` of the stream to below `end`, modulo 2^16. */
static void
free_chunks(uint32_t slot, uint16_t low, uint16_t end)
{
    for (; low != end; low = (uint16_t)(low + 1)) {
        uint16_t *c = tx_chunk(slot, (uint32_t)low * SHM_CHUNK_BYTES);
        uint32_t number = *c;

        if (number != 0) {
            store_relaxed16(c, 0);
            chunk_free(number - 1);
        }
    }
}

/* Whatever is there lies between what was given back and tx_tail, the chunk of which may be begun. */
static void
free_chunks_of(uint32_t slot)
{
    struct shm_front_sock *f = front_sock(slot);

    free_chunks(slot, slot_hot(f)->tx_low, (uint16_t)((f->tx_tail - f->tx_base) / SHM_CHUNK_BYTES + 1));
    free_small_of(f);
}

void
slot_free_acked(uint32_t slot)
{
    struct shm_front_sock *f = front_sock(slot);
    struct slot_hot *h = slot_hot(f);
    uint32_t acked = load_acquire(&back_sock(slot)->tx_acked), distance = acked - f->tx_base;

    /* What tx_tail is in goes back too when nothing is outstanding: an idle connection holds no memory. */
    if (acked == f->tx_tail && !(load_relaxed(&h->flags) & (SLOT_RESERVED | SLOT_STAGED))) {
        if (f->tx_chunk != 0 || h->tx_low != 0 || distance >= SHM_CHUNK_BYTES)
            free_chunks(slot, h->tx_low, (uint16_t)(distance / SHM_CHUNK_BYTES + 1));
        free_small_of(f);
        store_relaxed(&f->tx_base, acked);
        h->tx_low = 0;
        return;
    }
    free_chunks(slot, h->tx_low, (uint16_t)(distance / SHM_CHUNK_BYTES));
    h->tx_low = (uint16_t)(distance / SHM_CHUNK_BYTES);
    if (distance >= SHM_SMALL_BYTES)
        free_small_of(f);
}

/*
 * Idle sockets give their last chunk back when their owner next touches them; here it is taken from those that nobody touches. Looks at so many slots, where
 * the last look ended.
 */
static bool
sweep_idle_chunks(uint32_t slots, uint32_t enough)
{
    struct private_head *p = private_head();
    uint32_t n, found = 0, used = load_relaxed(&p->slots.cut);

    for (n = 0; n < used && n < slots && found < enough; n++) {
        uint32_t slot = (sole_add_fetch(&p->sweep_hand, 1) - 1) % used;
        struct shm_front_sock *f = front_sock(slot);
        const struct shm_back_sock *b = back_sock(slot);
        struct slot_hot *h = slot_hot(f);

        if (load_relaxed(&b->tx_acked) != load_relaxed(&f->tx_tail) || !lock_try_own(&h->lock))
            continue;
        if ((f->tx_small != 0 || *tx_chunk(slot, (uint32_t)h->tx_low * SHM_CHUNK_BYTES) != 0) &&
            (load_acquire(&slot_claim(f)->state) & 3u) == SLOT_OPEN) {
            slot_free_acked(slot);
            found++;
        }
        lock_release_own(&h->lock);
    }
    return found > 0;
}

uint32_t
chunk_alloc(void)
{
    struct number_list *l = &private_head()->chunks, *cold = &private_head()->cold;
    uint32_t c = list_take_used(l, chunk_next());

    if (FRONT_LIKELY(c != UINT32_MAX))
        return c;
    /* Before memory is touched that was not in use: connections that sent something once and are silent now shall not hold a page each. */
    if (sweep_idle_chunks(SWEEP_SLOTS, SWEEP_SLOTS / 2))
        c = list_take_used(l, chunk_next());
    if (c == UINT32_MAX)
        c = list_take_used(cold, chunk_next());
    if (c == UINT32_MAX)
        c = list_take_fresh(l, front->lay.nb_chunks);
    if (FRONT_LIKELY(c != UINT32_MAX))
        return c;
    slot_reap(64);
    sweep_idle_chunks(UINT32_MAX, SWEEP_SLOTS / 2);
    c = list_take_used(l, chunk_next());
    return c != UINT32_MAX ? c : SHM_NO_CHUNK;
}

uint32_t
small_alloc(void)
{
    struct number_list *l = &private_head()->smalls;
    uint32_t n = list_take_used(l, small_next());

    if (FRONT_UNLIKELY(n == UINT32_MAX) && sweep_idle_chunks(SWEEP_SLOTS, SWEEP_SLOTS / 2))
        n = list_take_used(l, small_next());
    return n != UINT32_MAX ? n : list_take_fresh(l, front->lay.nb_smalls);
}

void
chunks_trim(uint64_t now_us)
{
    static uint64_t due_us;
    struct number_list *l = &private_head()->chunks;
    uint32_t kept = front->lay.nb_chunks / 8 < TRIM_KEPT ? front->lay.nb_chunks / 8 : TRIM_KEPT;
    uint32_t c, n;

    if (now_us < __atomic_load_n(&due_us, __ATOMIC_RELAXED))
        return;
    __atomic_store_n(&due_us, now_us + TRIM_US, __ATOMIC_RELAXED);
    sweep_idle_chunks(TRIM_SLOTS, TRIM_SLOTS);
    for (n = list_count(l, chunk_next(), front->lay.nb_chunks, kept + TRIM_CHUNKS); n > kept; n--) {
        c = list_take_used(l, chunk_next());
        if (c == UINT32_MAX)
            return;
        madvise(chunk_at(c), SHM_CHUNK_BYTES, MADV_REMOVE);
        list_give(&private_head()->cold, chunk_next(), c);
    }
}

/* ---- slots ------------------------------------------------------------------------------------------------------------ */

struct closing_entry {
    uint32_t slot, state;
};

void
slot_forget_closing(void)
{
    front->closing.lock = 0;
    store_relaxed(&front->closing.head, front->closing.tail);
}

static bool
slot_change(uint32_t slot, uint32_t from, enum slot_state to)
{
    return sole_cas32(&slot_claim(front_sock(slot))->state, &from, (from & ~3u) | to);
}

static bool
stack_is_done(uint32_t slot)
{
    const struct shm_back_sock *b = back_sock(slot);
    const struct shm_front_sock *f = front_sock(slot);

    return !(load_acquire(&b->status) & SHM_ST_OPEN) && load_acquire(&b->cmd_done) == load_relaxed(&f->cmd_head) &&
           load_relaxed(&b->serviced) == load_relaxed(&f->notified);
}

/*
 * From that state, if it still is in it, to the caller: its memory first, under the lock, since a sweep may be at it. False: somebody else has freed it, or this thread is amid a
 * call with it.
 */
static bool
slot_take_back(uint32_t slot, uint32_t state)
{
    struct slot_hot *h = slot_hot(front_sock(slot));
    uint32_t term;
    bool taken;

    if (!lock_acquire_brief(&h->lock, &term))
        return false;
    taken = slot_change(slot, state, SLOT_FREE);
    if (taken)
        free_chunks_of(slot);
    lock_release_brief(&h->lock, term);
    return taken;
}

static bool
slot_give(uint32_t slot, uint32_t state)
{
    bool given = slot_take_back(slot, state);

    if (given)
        list_give(&private_head()->slots, slot_next(), slot);
    return given;
}

/* One closed slot. True if it needs no further look. It goes to *wanted where there is none yet, or to the free ones. */
static bool
reap_one(const struct closing_entry *e, uint32_t *wanted)
{
    struct shm_front_sock *f = front_sock(e->slot);

    if (load_relaxed(&slot_claim(f)->state) != e->state)
        return true; /* another process of the family has reaped it */
    if (stack_is_done(e->slot)) {
        if (wanted == NULL || *wanted != SHM_NO_SLOT)
            return slot_give(e->slot, e->state);
        if (!slot_take_back(e->slot, e->state))
            return false;
        *wanted = e->slot;
        return true;
    }
    if ((load_acquire(&back_sock(e->slot)->status) & SHM_ST_DRAINED) && lock_acquire_own(&slot_hot(f)->lock)) {
        if (load_relaxed(&slot_claim(f)->state) == e->state)
            free_chunks_of(e->slot);
        lock_release_own(&slot_hot(f)->lock);
    }
    return false;
}

/* Its lock is held. */
static void
closing_put(const struct closing_entry *e)
{
    front->closing.entries[front->closing.tail & front->closing.mask] = *e;
    store_relaxed(&front->closing.tail, front->closing.tail + 1);
}

/* Behind the first that the stack has not finished with are younger ones: an allocation looks no further, since it would find them so again and again. */
static void
reap(unsigned n, bool to_the_end, uint32_t *wanted)
{
    uint32_t term;
    bool gone = true;

    if (load_relaxed(&front->closing.head) == load_relaxed(&front->closing.tail) ||
        !lock_acquire_brief(&front->closing.lock, &term))
        return;
    if (n > front->closing.tail - front->closing.head)
        n = front->closing.tail - front->closing.head;
    while (n-- > 0 && (gone || to_the_end)) {
        struct closing_entry e = front->closing.entries[front->closing.head & front->closing.mask];

        store_relaxed(&front->closing.head, front->closing.head + 1);
        gone = reap_one(&e, wanted);
        if (!gone)
            closing_put(&e);
    }
    lock_release_brief(&front->closing.lock, term);
}

void
slot_reap(unsigned n)
{
    reap(n, true, NULL);
}

/* Its slot may be reaped much later. Or now, by another thread that needs one: then it is in another state. */
static void
give_small_back(const struct closing_entry *e)
{
    struct shm_front_sock *f = front_sock(e->slot);
    uint32_t term;

    if (f->tx_small == 0 || load_relaxed(&back_sock(e->slot)->tx_acked) != f->tx_tail ||
        !lock_acquire_brief(&slot_hot(f)->lock, &term))
        return;
    if (load_relaxed(&slot_claim(f)->state) == e->state && f->tx_small != 0)
        slot_free_acked(e->slot);
    lock_release_brief(&slot_hot(f)->lock, term);
}

void
slot_closing(uint32_t slot)
{
    struct closing_entry e = { slot, load_relaxed(&slot_claim(front_sock(slot))->state) };
    uint32_t term;

    give_small_back(&e);
    if (!lock_acquire_brief(&front->closing.lock, &term))
        return; /* in a signal handler amid a reap: the sweep finds it */
    if (front->closing.entries == NULL) {
        uint32_t entries = 1;
        void *p;

        while (entries <= front->lay.max_socks)
            entries *= 2;
        p = mmap(NULL, (size_t)entries * sizeof(e), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
        if (p != MAP_FAILED) {
            front->closing.entries = p;
            front->closing.mask = entries - 1;
        }
    }
    /* A slot of ours stands here once at most, so the queue cannot be full; a stale one of another epoch is dropped when met. */
    if (front->closing.entries != NULL && front->closing.tail - front->closing.head <= front->closing.mask)
        closing_put(&e);
    lock_release_brief(&front->closing.lock, term);
}

/* The list is empty: look for slots whose last owner died without closing them, or before opening them. */
static void
sweep_orphans(void)
{
    uint32_t slot, used = load_relaxed(&private_head()->slots.cut);

    for (slot = 0; slot < used; slot++) {
        struct slot_claim *c = slot_claim(front_sock(slot));
        uint32_t state = load_acquire(&c->state);
        bool orphan =
            (state & 3u) == SLOT_OPEN ||
            ((state & 3u) == SLOT_CLAIMED && kill((pid_t)load_relaxed(&slot_next()[slot]), 0) != 0 && errno == ESRCH);

        if (orphan && stack_is_done(slot))
            slot_give(slot, state);
    }
}

/* All but the lock: a sweep may hold that for a moment more. */
static void
clear_hot(struct slot_hot *h)
{
    uint32_t term;
    bool locked = lock_acquire_brief(&h->lock, &term);

    static_assert(offsetof(struct slot_hot, lock) == 0, "clear_hot");
    memset((char *)h + sizeof(h->lock), 0, sizeof(((struct shm_front_sock *)0)->private0) - sizeof(h->lock));
    if (locked)
        lock_release_brief(&h->lock, term);
}

static void
slot_prepare(uint32_t slot)
{
    struct shm_front_sock *f = front_sock(slot);
    struct slot_claim *c = slot_claim(f);

    opts_clear(slot); /* by the flags of its last socket */
    clear_hot(slot_hot(f));
    store_relaxed(&c->cmd_lock, 0);
    store_relaxed(&slot_next()[slot], (uint32_t)front->pid);
    store_release(&c->state, ((c->state & ~3u) + 4u) | SLOT_CLAIMED);
    /* The stack may look at them still, for what it woke when the slot was another socket's. */
    store_relaxed(&f->tx_tail, 0);
    store_relaxed(&f->tx_base, 0);
    store_relaxed(&f->rx_head, 0);
    store_relaxed(&f->sleepers, 0);
    store_relaxed(&f->tx_flags, 0);
}

uint32_t
slot_alloc(void)
{
    struct number_list *l = &private_head()->slots;
    uint32_t slot = SHM_NO_SLOT;

    static_assert(sizeof(struct private_head) <= 65536u, "private_head");
    reap(4, false, &slot);
    if (slot == SHM_NO_SLOT)
        slot = list_take(l, slot_next(), front->lay.max_socks);
    if (slot == SHM_NO_SLOT) {
        slot_reap(UINT32_MAX);
        sweep_orphans();
        slot = list_take(l, slot_next(), front->lay.max_socks);
    }
    if (slot != SHM_NO_SLOT)
        slot_prepare(slot);
    return slot;
}

void
slot_opened(uint32_t slot)
{
    struct slot_claim *c = slot_claim(front_sock(slot));

    store_release(&c->state, (c->state & ~3u) | SLOT_OPEN);
}

void
slot_free(uint32_t slot)
{
    slot_give(slot, load_relaxed(&slot_claim(front_sock(slot))->state));
}

/* ---- info slots ------------------------------------------------------------------------------------------------------- */

int
info_alloc(void)
{
    struct private_head *p = private_head();
    unsigned i;

    for (i = 0; i < SHM_INFO_SLOTS; i++) {
        uint32_t pid = load_relaxed(&p->info_pid[i]);

        if (pid != 0 && (kill((pid_t)pid, 0) == 0 || errno != ESRCH))
            continue;
        if (__atomic_compare_exchange_n(&p->info_pid[i], &pid, (uint32_t)front->pid, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED))
            return (int)i;
    }
    return -EBUSY;
}

void
info_free(int slot)
{
    store_release(&private_head()->info_pid[slot], 0);
}
