/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The broadcast ring: searches over all orders of calls in one thread, and short runs with more threads than cores.
 * What happens between the steps inside a call is the matter of tests/spin/bcast_*.pml. The threads under
 * ThreadSanitizer: make tsan.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/bcast.h"

#define ENTRY_WORDS 7

/** What a producer writes: every word tells whose entry it is, so that a mixture of two is seen. */
struct entry {
    uint64_t word[ENTRY_WORDS];
};

static struct entry
stamp(uint64_t producer, uint64_t serial)
{
    struct entry e;

    for (uint64_t i = 0; i < ENTRY_WORDS; i++)
        e.word[i] = (producer << 48 | serial) * UINT64_C(0x9e3779b97f4a7c15) + i;
    e.word[0] = producer << 48 | serial;
    return e;
}

static void
assert_whole(const struct entry *e)
{
    struct entry expected = stamp(e->word[0] >> 48, e->word[0] & 0xffffffffffff);

    assert_memory_equal(e, &expected, sizeof(expected));
}

static struct bcast_config
config_of(enum bcast_scheme scheme, uint32_t replicas, uint32_t entries, uint32_t window)
{
    return (struct bcast_config){ .replicas = replicas,
                                  .entries = entries,
                                  .entry_bytes = sizeof(struct entry),
                                  .window = scheme == BCAST_CLAIM ? window : 0,
                                  .scheme = scheme,
                                  .multi_producer = true };
}

static size_t
config_bytes(const struct bcast_config *c)
{
    return bcast_bytes(c->replicas, c->entries, c->entry_bytes);
}

static struct bcast *
make(const struct bcast_config *c)
{
    size_t bytes = (config_bytes(c) + BCAST_ALIGN - 1) / BCAST_ALIGN * BCAST_ALIGN;
    void *memory = aligned_alloc(BCAST_ALIGN, bytes);

    assert_non_null(memory);
    assert_int_equal(bcast_init(memory, c), 0);
    return memory;
}

static void
put_next(struct bcast *b, uint64_t *serial, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct entry e = stamp(0, *serial);

        assert_int_equal(bcast_enqueue(b, &e, 1), 1);
        ++*serial;
    }
}

/* Dequeue exactly n, the first of which must be number `serial`. Returns the bits of the primaries. */
static uint64_t
take(struct bcast *b, unsigned replica, uint64_t serial, unsigned n)
{
    struct entry e[BCAST_BURST_MAX];
    uint64_t primary;

    assert_int_equal(bcast_position(b, replica), serial);
    assert_int_equal(bcast_dequeue(b, replica, e, &primary, n), (int)n);
    for (unsigned i = 0; i < n; i++) {
        assert_whole(&e[i]);
        assert_int_equal(e[i].word[0], serial + i);
    }
    return primary;
}

static void
assert_nothing(struct bcast *b, unsigned replica, int expected)
{
    struct entry e;
    uint64_t primary = 1;

    assert_int_equal(bcast_dequeue(b, replica, &e, &primary, 1), expected);
    assert_int_equal(primary, 0);
}

static void
refuses_numbers_out_of_range(void **state)
{
    const struct bcast_config good = config_of(BCAST_CLAIM, 2, 8, 4);
    struct bcast *b = make(&good);
    struct bcast_config bad[12];
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < 12; i++)
        bad[i] = good;
    bad[n++].replicas = 0;
    bad[n++].replicas = BCAST_REPLICAS_MAX + 1;
    bad[n++].entries = 0;
    bad[n++].entries = 1;
    bad[n++].entries = 6;
    bad[n++].entries = 2 * BCAST_ENTRIES_MAX;
    bad[n++].entry_bytes = 0;
    bad[n++].entry_bytes = 12;
    bad[n++].entry_bytes = BCAST_ENTRY_BYTES_MAX + 8;
    bad[n++].window = 0;
    bad[n++].window = 9;
    bad[n++].scheme = BCAST_REFCOUNT; /* which has no window */
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(bcast_init(b, &bad[i]), -EINVAL);
        if (i < 9)
            assert_int_equal(config_bytes(&bad[i]), 0);
    }
    assert_int_equal(bcast_init((char *)b + 8, &good), -EINVAL);
    free(b);
}

static void
counts_and_publishes_by_window(void **state)
{
    const struct bcast_config c = config_of(BCAST_CLAIM, 2, 8, 4);
    struct bcast *b = make(&c);
    struct bcast_replica_stats r;
    struct bcast_stats s;
    uint64_t serial = 0;
    struct entry e = stamp(0, 8);

    (void)state;
    put_next(b, &serial, 8);
    assert_int_equal(bcast_enqueue(b, &e, 1), 0);
    bcast_get_stats(b, &s);
    assert_int_equal(s.enqueued, 8);
    assert_int_equal(s.full, 1);

    assert_int_equal(take(b, 0, 0, 3), 7);
    assert_int_equal(take(b, 1, 0, 2), 0);
    bcast_get_replica_stats(b, 0, &r);
    assert_int_equal(r.head, 0); /* within the window: nothing published */
    assert_int_equal(take(b, 0, 3, 2), 3);
    bcast_get_replica_stats(b, 0, &r);
    assert_int_equal(r.head, 3);
    assert_int_equal(bcast_release(b, 0), 0);
    bcast_get_replica_stats(b, 0, &r);
    assert_int_equal(r.head, 5);
    assert_int_equal(r.dequeued, 5);
    assert_int_equal(r.primary, 5);
    bcast_get_replica_stats(b, 1, &r);
    assert_int_equal(r.lag, 5);
    assert_int_equal(r.primary, 0);
    assert_int_equal(bcast_lagging(b, 4), 2);
    assert_int_equal(bcast_lagging(b, 5), 0);

    /* The burst is cut to the window, and an empty ring publishes. */
    assert_int_equal(take(b, 0, 5, 3), 7);
    assert_nothing(b, 0, 0);
    bcast_get_replica_stats(b, 0, &r);
    assert_int_equal(r.head, 8);
    assert_int_equal(bcast_release(b, 1), 0);
    put_next(b, &serial, 2);
    assert_int_equal(bcast_enqueue(b, &e, 1), 0);
    free(b);
}

static void
waits_for_the_first_of_two_producers(void **state)
{
    (void)state;
    for (int scheme = BCAST_REFCOUNT; scheme <= BCAST_CLAIM; scheme++) {
        const struct bcast_config c = config_of((enum bcast_scheme)scheme, 2, 4, 4);
        struct bcast *b = make(&c);
        struct entry first = stamp(0, 0), second = stamp(0, 1), head;
        uint64_t p, q;

        assert_int_equal(bcast_reserve(b, 1, &p), 1);
        assert_int_equal(bcast_reserve(b, 9, &q), 3);
        bcast_put(b, q, &second);
        assert_int_equal(bcast_peek(b, 0, &head, sizeof(head)), 0);
        assert_nothing(b, 0, 0);
        bcast_put(b, p, &first);
        assert_int_equal(bcast_peek(b, 0, &head, 8), 1);
        assert_int_equal(head.word[0], 0);
        assert_int_equal(take(b, 0, 0, 2), 3);
        assert_int_equal(take(b, 1, 0, 2), 0);
        assert_nothing(b, 1, 0);
        free(b);
    }
}

static void
goes_on_after_it_was_moved(void **state)
{
    (void)state;
    for (int scheme = BCAST_REFCOUNT; scheme <= BCAST_CLAIM; scheme++) {
        const struct bcast_config c = config_of((enum bcast_scheme)scheme, 3, 4, 2);
        struct bcast *a = make(&c), *b = make(&c);
        uint64_t serial = 0;

        put_next(a, &serial, 4);
        assert_int_equal(take(a, 2, 0, 2), 3);
        assert_int_equal(take(a, 1, 0, 1), 0);
        memcpy(b, a, config_bytes(&c));
        memset(a, 0xa5, config_bytes(&c));
        free(a);
        assert_int_equal(take(b, 1, 1, 2), 2);
        assert_int_equal(take(b, 0, 0, 2), 0);
        free(b);
    }
}

static void
lagging_replica_skips(void **state)
{
    (void)state;
    for (int scheme = BCAST_REFCOUNT; scheme <= BCAST_CLAIM; scheme++) {
        const struct bcast_config c = config_of((enum bcast_scheme)scheme, 2, 4, 4);
        struct bcast *b = make(&c);
        struct bcast_replica_stats r;
        uint64_t serial = 0;

        put_next(b, &serial, 4);
        take(b, 1, 0, 1);
        take(b, 0, 0, 3);
        assert_int_equal(bcast_skip(b, 1, 4), -ERANGE);
        assert_int_equal(bcast_release(b, 0), 0);
        assert_int_equal(bcast_skip(b, 1, 0), -EINVAL);
        assert_int_equal(bcast_skip(b, 1, 4), -ERANGE);
        assert_int_equal(bcast_skip(b, 1, 3), 0);
        bcast_get_replica_stats(b, 1, &r);
        assert_int_equal(r.skipped, 2);
        put_next(b, &serial, 3);
        assert_int_equal(take(b, 1, 3, 4), 15);
        assert_int_equal(take(b, 0, 3, 4), 0);
        free(b);
    }
}

static void
passes_over_and_takes_back(void **state)
{
    const struct bcast_config c = config_of(BCAST_CLAIM, 2, 8, 3);
    struct bcast *b = make(&c);
    struct bcast_range held;
    struct bcast_stats s;
    struct entry e;
    uint64_t serial = 0;

    (void)state;
    put_next(b, &serial, 8);
    assert_int_equal(take(b, 0, 0, 1), 1); /* primary of 0 and, after the other has taken 1, not of 1 but of 2 */
    assert_int_equal(take(b, 1, 0, 2), 2);
    assert_int_equal(take(b, 0, 1, 2), 2);
    assert_int_equal(bcast_expel(b, 0, &held), -EAGAIN);
    take(b, 1, 2, 3);
    assert_int_equal(bcast_expel(b, 0, &held), -EAGAIN); /* dequeued, not published */
    assert_int_equal(bcast_release(b, 1), 0);
    assert_int_equal(bcast_expel(b, 1, &held), -EAGAIN); /* the one in front */
    assert_int_equal(bcast_expel(b, 0, &held), 0);
    assert_int_equal(bcast_state(b, 0), BCAST_FENCED);
    assert_int_equal(held.from, 0);
    assert_int_equal(held.to, 3);

    assert_nothing(b, 0, -ESTALE);
    assert_int_equal(bcast_peek(b, 0, &e, 8), -ESTALE);
    assert_int_equal(bcast_release(b, 0), -ESTALE);
    assert_int_equal(bcast_skip(b, 0, 5), -EBUSY);
    assert_int_equal(bcast_enqueue(b, &e, 1), 0); /* its orphans are still kept */
    held = (struct bcast_range){ 9, 9 };
    assert_int_equal(bcast_expel(b, 0, &held), -EALREADY);
    assert_int_equal(held.to, 3);
    assert_int_equal(bcast_orphan(b, 0, 0, &e), 1);
    assert_whole(&e);
    assert_int_equal(e.word[0], 0);
    assert_int_equal(bcast_orphan(b, 0, 1, &e), 0);
    assert_int_equal(bcast_orphan(b, 0, 2, &e), 1);
    assert_int_equal(e.word[0], 2);
    bcast_let_go(b, 0);
    assert_int_equal(bcast_state(b, 0), BCAST_OUT);
    assert_int_equal(bcast_orphan(b, 0, 2, &e), 0);
    assert_int_equal(bcast_expel(b, 0, &held), -EALREADY);
    assert_int_equal(held.from, held.to);

    put_next(b, &serial, 5); /* 8 .. 12: only the other one's head counts */
    assert_int_equal(bcast_enqueue(b, &e, 1), 0);
    assert_int_equal(bcast_skip(b, 0, 4), -ESTALE); /* overwritten by 12 */
    assert_int_equal(bcast_state(b, 0), BCAST_OUT);
    assert_int_equal(bcast_skip(b, 0, 5), 0);
    assert_int_equal(bcast_state(b, 0), BCAST_IN);
    take(b, 1, 5, 3);
    take(b, 1, 8, 3);
    take(b, 1, 11, 2);
    assert_int_equal(bcast_release(b, 1), 0);
    assert_int_equal(bcast_enqueue(b, &e, 1), 0); /* it counts again */
    assert_int_equal(take(b, 0, 5, 3), 0);
    assert_int_equal(take(b, 0, 8, 3), 0);
    put_next(b, &serial, 3);
    bcast_get_stats(b, &s);
    assert_int_equal(s.expelled, 1);
    free(b);
}

static void
reference_counts_pass_nobody_over(void **state)
{
    const struct bcast_config c = config_of(BCAST_REFCOUNT, 2, 4, 0);
    struct bcast *b = make(&c);
    struct bcast_range held;
    uint64_t serial = 0;

    (void)state;
    put_next(b, &serial, 4);
    take(b, 0, 0, 4);
    assert_int_equal(bcast_lagging(b, 3), 2);
    assert_int_equal(bcast_expel(b, 1, &held), -ENOTSUP);
    assert_int_equal(take(b, 1, 0, 4), 0);
    free(b);
}

/*
 * The search: from every state that can be reached, every call that changes something is tried. A state is the ring's
 * bytes and what the caller may know of it; each state is visited once.
 */
#define MODEL_ENTRIES_MAX 8
#define MODEL_NONE 0xff
#define PASSES_MAX 2
#define DEPTH_MAX 128

struct model {
    uint8_t reserved; /* positions given */
    uint8_t put[MODEL_ENTRIES_MAX]; /* written */
    uint8_t owner[MODEL_ENTRIES_MAX]; /* producer, of those not yet put */
    uint8_t seen[3]; /* each replica's position */
    uint8_t snapshot; /* the highest position given away after a release */
    uint8_t state[3];
    uint8_t expelled; /* times; bounded, or the search would not end */
    uint8_t primary[MODEL_ENTRIES_MAX]; /* MODEL_NONE: nobody yet */
    uint8_t done[MODEL_ENTRIES_MAX]; /* the primary's work */
};

struct search {
    struct bcast_config config;
    unsigned total; /* entries of a run */
    unsigned producers;
    bool passes_over;
    size_t bytes;
    struct bcast *b;
    struct model m;
    uint64_t *visited; /* hashes, open addressing, 0 = free */
    size_t states;
    size_t ends;
};

#define VISITED (1u << 20)

static bool
visit(struct search *s)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    const unsigned char *part[2] = { (const unsigned char *)s->b, (const unsigned char *)&s->m };
    size_t length[2] = { s->bytes, sizeof(s->m) };

    for (int p = 0; p < 2; p++) {
        for (size_t i = 0; i < length[p]; i++)
            h = (h ^ part[p][i]) * UINT64_C(0x100000001b3);
    }
    h |= 1;
    for (size_t i = h >> 40;; i++) {
        uint64_t *v = &s->visited[i % VISITED];

        if (*v == h)
            return false;
        if (*v == 0) {
            *v = h;
            s->states++;
            assert_true(s->states < VISITED / 2);
            return true;
        }
    }
}

/* The lowest position that a replica which still counts has not dequeued. */
static unsigned
model_lowest(const struct search *s)
{
    unsigned lowest = MODEL_NONE;

    for (unsigned r = 0; r < s->config.replicas; r++) {
        if (s->m.state[r] != BCAST_OUT && s->m.seen[r] < lowest)
            lowest = s->m.seen[r];
    }
    return lowest;
}

static bool
try_reserve(struct search *s, unsigned producer)
{
    struct model *m = &s->m;
    uint64_t p;

    for (unsigned i = 0; i < m->reserved; i++) {
        if (!m->put[i] && m->owner[i] == producer)
            return false; /* one at a time */
    }
    if (m->reserved == s->total)
        return false;
    if (bcast_reserve(s->b, 1, &p) == 0) {
        /* The ring may know of less room than there is, but by no more than the windows. */
        unsigned slack = s->config.scheme == BCAST_CLAIM ? s->config.window : 0;

        assert_true(m->reserved + slack >= model_lowest(s) + s->config.entries);
        return false;
    }
    assert_int_equal(p, m->reserved);
    assert_true(p < model_lowest(s) + s->config.entries); /* i.e. nothing is freed early */
    m->owner[m->reserved++] = (uint8_t)producer;
    return true;
}

static bool
try_put(struct search *s, unsigned producer)
{
    for (unsigned i = 0; i < s->m.reserved; i++) {
        if (!s->m.put[i] && s->m.owner[i] == producer) {
            struct entry e = stamp(0, i);

            bcast_put(s->b, i, &e);
            s->m.put[i] = 1;
            s->m.owner[i] = 0;
            return true;
        }
    }
    return false;
}

static bool
try_dequeue(struct search *s, unsigned r, unsigned n)
{
    struct model *m = &s->m;
    struct entry e[2];
    struct bcast_replica_stats before, after;
    uint64_t primary;
    unsigned ready = 0;
    int got;

    bcast_get_replica_stats(s->b, r, &before);
    got = bcast_dequeue(s->b, r, e, &primary, n);
    bcast_get_replica_stats(s->b, r, &after);

    if (m->state[r] != BCAST_IN) {
        assert_int_equal(got, -ESTALE);
        return false;
    }
    if (s->config.scheme == BCAST_CLAIM && n > s->config.window)
        n = s->config.window;
    while (ready < n && m->seen[r] + ready < s->total && m->put[m->seen[r] + ready])
        ready++;
    assert_int_equal(got, ready);
    for (unsigned i = 0; i < ready; i++) {
        uint8_t p = m->seen[r]++;
        bool first = m->primary[p] == MODEL_NONE;

        assert_whole(&e[i]);
        assert_int_equal(e[i].word[0], p);
        assert_int_equal((primary >> i) & 1, first);
        if (first) {
            m->primary[p] = (uint8_t)r;
            m->done[p] = 1;
        }
    }
    return ready > 0 || after.head != before.head; /* an empty ring makes it publish */
}

/* Each of these returns true if the call did something. */
static bool
try_release(struct search *s, unsigned r)
{
    int ret = bcast_release(s->b, r);

    assert_int_equal(ret, s->m.state[r] == BCAST_IN ? 0 : -ESTALE);
    if (ret == 0 && s->m.seen[r] > s->m.snapshot)
        s->m.snapshot = s->m.seen[r];
    return ret == 0;
}

static bool
try_pass_over(struct search *s, unsigned r)
{
    struct bcast_range held;
    struct entry e;
    int ret;

    if (s->m.expelled == PASSES_MAX)
        return false;
    ret = bcast_expel(s->b, r, &held);
    if (ret != 0) {
        assert_int_equal(ret, s->m.state[r] == BCAST_IN ? -EAGAIN : -EALREADY);
        return false;
    }
    assert_int_equal(s->m.state[r], BCAST_IN);
    assert_true(held.from <= s->m.seen[r] && s->m.seen[r] <= held.to);
    s->m.state[r] = BCAST_FENCED;
    s->m.expelled++;
    /* Within its reach everything has its primary, and its own entries are all there. */
    for (uint64_t p = held.from; p < held.to; p++) {
        assert_int_not_equal(s->m.primary[p], MODEL_NONE);
        assert_int_equal(bcast_orphan(s->b, r, p, &e), s->m.primary[p] == r);
        if (s->m.primary[p] == r) {
            assert_whole(&e);
            assert_int_equal(e.word[0], p);
        }
    }
    return true;
}

static bool
try_let_go(struct search *s, unsigned r)
{
    if (s->m.state[r] != BCAST_FENCED)
        return false;
    bcast_let_go(s->b, r);
    s->m.state[r] = BCAST_OUT;
    return true;
}

static bool
try_skip(struct search *s, unsigned r)
{
    int ret = bcast_skip(s->b, r, s->m.snapshot);
    unsigned overwritten = s->m.reserved > s->config.entries ? s->m.reserved - s->config.entries : 0;

    if (s->m.snapshot < s->m.seen[r]) {
        assert_int_equal(ret, -EINVAL);
    } else if (s->m.state[r] == BCAST_FENCED) {
        assert_int_equal(ret, -EBUSY);
    } else if (s->m.state[r] == BCAST_IN || ret == 0) {
        assert_int_equal(ret, 0);
        assert_true(s->m.snapshot >= overwritten);
        s->m.state[r] = BCAST_IN;
        s->m.seen[r] = s->m.snapshot;
        return true;
    } else {
        assert_int_equal(ret, -ESTALE);
    }
    return false;
}

static bool
try_action(struct search *s, unsigned action)
{
    unsigned producer = action & 1, r = action % s->config.replicas, what = action / s->config.replicas;

    if (action < 4)
        return producer < s->producers && (action < 2 ? try_reserve(s, producer) : try_put(s, producer));
    r = (action - 4) % s->config.replicas;
    what = (action - 4) / s->config.replicas;
    if (what < 2)
        return try_dequeue(s, r, what + 1);
    if (!s->passes_over)
        return false;
    switch (what) {
    case 2:
        return try_release(s, r);
    case 3:
        return try_pass_over(s, r);
    case 4:
        return try_let_go(s, r);
    default:
        return try_skip(s, r);
    }
}

static bool
is_end(const struct search *s)
{
    for (unsigned r = 0; r < s->config.replicas; r++) {
        if (s->m.seen[r] != s->total || s->m.state[r] != BCAST_IN)
            return false;
    }
    return true;
}

static void
explore(struct search *s, void *copies, unsigned depth)
{
    const unsigned actions = 4 + 6 * s->config.replicas;
    const struct model m = s->m;
    unsigned possible = 0;

    assert_true(depth < DEPTH_MAX);
    memcpy(copies, s->b, s->bytes);
    for (unsigned action = 0; action < actions; action++) {
        if (try_action(s, action)) {
            possible++;
            if (visit(s))
                explore(s, (char *)copies + s->bytes, depth + 1);
        }
        memcpy(s->b, copies, s->bytes);
        s->m = m;
    }
    if (is_end(s)) {
        for (unsigned p = 0; p < s->total; p++)
            assert_int_equal(m.done[p], 1);
        s->ends++;
    } else {
        assert_int_not_equal(possible, 0);
    }
}

static void
search_run(struct search *s)
{
    void *copies;

    s->bytes = config_bytes(&s->config);
    copies = malloc(DEPTH_MAX * s->bytes);
    s->visited = calloc(VISITED, sizeof(*s->visited));
    assert_non_null(copies);
    assert_non_null(s->visited);
    s->b = make(&s->config);
    memset(&s->m, 0, sizeof(s->m));
    memset(s->m.primary, MODEL_NONE, sizeof(s->m.primary));
    explore(s, copies, 0);
    print_message("  scheme %d, %u replicas, %u producers: %zu states, %zu ends\n", (int)s->config.scheme,
                  s->config.replicas, s->producers, s->states, s->ends);
    assert_true(s->ends > 0);
    free(s->b);
    free(s->visited);
    free(copies);
}

static void
every_order_of_calls(void **state)
{
    (void)state;
    for (int scheme = BCAST_REFCOUNT; scheme <= BCAST_CLAIM; scheme++) {
        for (unsigned producers = 1; producers <= 2; producers++) {
            for (uint32_t replicas = 1; replicas <= 3; replicas++) {
                struct search s = { .config = config_of((enum bcast_scheme)scheme, replicas, 2, 2),
                                    .total = replicas == 3 ? 3 : 4,
                                    .producers = producers };

                s.config.entry_bytes = sizeof(struct entry);
                search_run(&s);
            }
        }
    }
}

static void
every_order_with_passing_over(void **state)
{
    (void)state;
    for (uint32_t window = 1; window <= 2; window++) {
        struct search s = {
            .config = config_of(BCAST_CLAIM, 2, 2, window), .total = 4, .producers = 1, .passes_over = true
        };

        search_run(&s);
    }
}

/*
 * The threads: producers and replicas, more than there are cores, each bounded by a number of entries. A replica's
 * state is its position and a hash over all entries so far, so that equal states at the end mean the same entries in
 * the same order.
 */
#define STRESS_ENTRIES 3000u /* of each producer */
#define STRESS_PRODUCERS_MAX 2u
#define STRESS_REPLICAS_MAX 4u
#define STRESS_TOTAL_MAX (STRESS_ENTRIES * STRESS_PRODUCERS_MAX)

struct replica_state {
    uint64_t position;
    uint64_t hash;
    uint64_t serial[STRESS_PRODUCERS_MAX]; /* next expected of each producer */
};

struct stress {
    struct bcast *b;
    unsigned replicas;
    unsigned producers;
    uint64_t total;
    bool stalls; /* replicas stand still now and then and are passed over */
    pthread_mutex_t lock; /* of `snapshot` */
    struct replica_state snapshot; /* the furthest that was given away */
    uint32_t finished; /* replicas at the end */
    uint32_t faults;
    uint32_t passed_over;
    uint32_t primary[STRESS_TOTAL_MAX]; /* times that a replica was told to be primary */
    uint32_t adopted[STRESS_TOTAL_MAX]; /* times that the entry was an orphan */
};

struct stress_thread {
    struct stress *s;
    unsigned number;
    unsigned seed;
    pthread_t thread;
    struct replica_state state;
};

static void
fault_if(struct stress *s, bool fault)
{
    if (fault)
        __atomic_fetch_add(&s->faults, 1, __ATOMIC_RELAXED);
}

static void
apply(struct stress *s, struct replica_state *st, const struct entry *e, bool primary)
{
    struct entry expected = stamp(e->word[0] >> 48, e->word[0] & 0xffffffffffff);
    uint64_t producer = e->word[0] >> 48;

    fault_if(s, memcmp(e, &expected, sizeof(expected)) != 0);
    if (producer >= s->producers) {
        fault_if(s, true);
        return;
    }
    fault_if(s, (e->word[0] & 0xffffffffffff) != st->serial[producer]++);
    if (primary)
        __atomic_fetch_add(&s->primary[st->position], 1, __ATOMIC_RELAXED);
    st->hash = (st->hash ^ e->word[0]) * UINT64_C(0x100000001b3);
    st->position++;
}

/* What a mode does with a replica that holds everybody up: take over its unfinished work, and go on without it. */
static void
pass_over_laggards(struct stress *s)
{
    uint64_t late = bcast_lagging(s->b, 8);

    for (unsigned r = 0; r < s->replicas; r++) {
        struct bcast_range held;
        struct entry e;

        if (((late >> r) & 1) == 0 || bcast_expel(s->b, r, &held) != 0)
            continue;
        for (uint64_t p = held.from; p < held.to; p++) {
            if (bcast_orphan(s->b, r, p, &e) == 1)
                __atomic_fetch_add(&s->adopted[p], 1, __ATOMIC_RELAXED);
        }
        bcast_let_go(s->b, r);
        __atomic_fetch_add(&s->passed_over, 1, __ATOMIC_RELAXED);
    }
}

static void *
producer_main(void *arg)
{
    struct stress_thread *t = arg;
    struct stress *s = t->s;
    struct entry e[5];
    uint64_t serial = 0;

    while (serial < STRESS_ENTRIES) {
        unsigned n = 1 + (unsigned)rand_r(&t->seed) % 5, got;

        if (n > STRESS_ENTRIES - serial)
            n = (unsigned)(STRESS_ENTRIES - serial);
        for (unsigned i = 0; i < n; i++)
            e[i] = stamp(t->number, serial + i);
        got = bcast_enqueue(s->b, e, n);
        serial += got;
        if (got == 0) {
            if (s->stalls)
                pass_over_laggards(s);
            sched_yield();
        }
    }
    return NULL;
}

static void
give_snapshot(struct stress *s, unsigned r, const struct replica_state *st)
{
    if (bcast_release(s->b, r) != 0)
        return;
    pthread_mutex_lock(&s->lock);
    if (s->snapshot.position < st->position)
        s->snapshot = *st;
    pthread_mutex_unlock(&s->lock);
}

/* After -ESTALE: the newest snapshot, or its own state if that is further on. */
static void
roll_forward(struct stress *s, unsigned r, struct replica_state *st)
{
    int ret;

    do {
        struct replica_state newest;

        sched_yield();
        pthread_mutex_lock(&s->lock);
        newest = s->snapshot;
        pthread_mutex_unlock(&s->lock);
        if (newest.position < st->position)
            newest = *st;
        ret = bcast_skip(s->b, r, newest.position);
        if (ret == 0)
            *st = newest;
        fault_if(s, ret != 0 && ret != -ESTALE && ret != -EBUSY);
    } while (ret != 0);
}

static void
stand_still(struct stress_thread *t)
{
    for (unsigned i = 0; i < 200 && bcast_state(t->s->b, t->number) == BCAST_IN; i++)
        sched_yield();
}

static void *
replica_main(void *arg)
{
    struct stress_thread *t = arg;
    struct stress *s = t->s;
    struct replica_state *st = &t->state;
    struct entry e[8];
    uint64_t primary;

    while (st->position < s->total) {
        int got = bcast_dequeue(s->b, t->number, e, &primary, 1 + (unsigned)rand_r(&t->seed) % 8);

        for (int i = 0; i < got; i++)
            apply(s, st, &e[i], (primary >> i) & 1);
        if (got == -ESTALE)
            roll_forward(s, t->number, st);
        else if (got == 0)
            sched_yield();
        else if (s->stalls)
            give_snapshot(s, t->number, st);
        fault_if(s, st->position != bcast_position(s->b, t->number));
        if (s->stalls && rand_r(&t->seed) % 64 == 0)
            stand_still(t);
    }
    bcast_release(s->b, t->number);
    __atomic_fetch_add(&s->finished, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void
stress_check(struct stress *s, const struct stress_thread *t)
{
    uint64_t firsts = 0;

    assert_int_equal(s->faults, 0);
    assert_int_equal(s->finished, s->replicas);
    for (unsigned r = 1; r < s->replicas; r++)
        assert_memory_equal(&t[r].state, &t[0].state, sizeof(t[0].state));
    for (uint64_t p = 0; p < s->total; p++) {
        assert_true(s->primary[p] <= 1);
        assert_true(s->primary[p] + s->adopted[p] >= 1);
        firsts += s->primary[p];
    }
    if (s->stalls)
        return;
    for (unsigned r = 0; r < s->replicas; r++) {
        struct bcast_replica_stats stats;

        bcast_get_replica_stats(s->b, r, &stats);
        assert_int_equal(stats.dequeued, s->total);
        assert_true(stats.primary <= firsts);
        firsts -= stats.primary;
    }
    assert_int_equal(firsts, 0);
}

/* Returns how many times a replica was passed over. */
static unsigned
stress_run(const struct bcast_config *c, unsigned producers, bool stalls)
{
    struct stress *s = calloc(1, sizeof(*s));
    struct stress_thread t[STRESS_REPLICAS_MAX + STRESS_PRODUCERS_MAX] = { 0 };
    unsigned threads = c->replicas + producers, passed_over;

    assert_non_null(s);
    s->b = make(c);
    s->replicas = c->replicas;
    s->producers = producers;
    s->total = (uint64_t)producers * STRESS_ENTRIES;
    s->stalls = stalls;
    pthread_mutex_init(&s->lock, NULL);
    for (unsigned i = 0; i < threads; i++) {
        bool replica = i < c->replicas;

        t[i].s = s;
        t[i].number = replica ? i : i - c->replicas;
        t[i].seed = i + 1;
        assert_int_equal(pthread_create(&t[i].thread, NULL, replica ? replica_main : producer_main, &t[i]), 0);
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(t[i].thread, NULL);
    stress_check(s, t);
    passed_over = s->passed_over;
    pthread_mutex_destroy(&s->lock);
    free(s->b);
    free(s);
    return passed_over;
}

static void
threads_see_the_same(void **state)
{
    (void)state;
    for (int scheme = BCAST_REFCOUNT; scheme <= BCAST_CLAIM; scheme++) {
        for (uint32_t replicas = 1; replicas <= STRESS_REPLICAS_MAX; replicas++) {
            for (unsigned producers = 1; producers <= STRESS_PRODUCERS_MAX; producers++) {
                struct bcast_config c = config_of((enum bcast_scheme)scheme, replicas, 32, 8);

                c.multi_producer = producers > 1;
                stress_run(&c, producers, false);
            }
        }
    }
}

static void
threads_pass_over_who_stands_still(void **state)
{
    unsigned passed_over = 0;

    (void)state;
    for (uint32_t replicas = 2; replicas <= STRESS_REPLICAS_MAX; replicas++) {
        for (unsigned producers = 1; producers <= STRESS_PRODUCERS_MAX; producers++) {
            struct bcast_config c = config_of(BCAST_CLAIM, replicas, 32, 4);

            c.multi_producer = producers > 1;
            passed_over += stress_run(&c, producers, true);
        }
    }
    print_message("  passed over %u times\n", passed_over);
    assert_int_not_equal(passed_over, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_numbers_out_of_range),
        cmocka_unit_test(counts_and_publishes_by_window),
        cmocka_unit_test(waits_for_the_first_of_two_producers),
        cmocka_unit_test(goes_on_after_it_was_moved),
        cmocka_unit_test(lagging_replica_skips),
        cmocka_unit_test(passes_over_and_takes_back),
        cmocka_unit_test(reference_counts_pass_nobody_over),
        cmocka_unit_test(every_order_of_calls),
        cmocka_unit_test(every_order_with_passing_over),
        cmocka_unit_test(threads_see_the_same),
        cmocka_unit_test(threads_pass_over_who_stands_still),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
