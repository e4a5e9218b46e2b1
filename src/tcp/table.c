/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/prefetch.h"
#include "tcp/domain.h"

/**
 * @file
 * The connection table: a fixed array of bucket heads, touched only where entries are, chained through the entries'
 * 32-bit references (kind in the upper three bits). Connections, half-open and TIME-WAIT entries share it: one lookup.
 */

/**
 * NH, the universal hash of UMAC (RFC 4418 section 5.2): with secret keys nobody can choose tuples that collide; a handful of
 * multiplications where SipHash takes a hundred cycles for each segment.
 */
static uint32_t
nh_hash(const struct tcp_tuple *t, const uint32_t key[10])
{
    uint64_t h = 0;

    for (unsigned i = 0; i < 4; i += 2) {
        h += (uint64_t)(t->local.w[i] + key[i]) * (t->local.w[i + 1] + key[i + 1]);
        h += (uint64_t)(t->remote.w[i] + key[4 + i]) * (t->remote.w[i + 1] + key[5 + i]);
    }
    h += (uint64_t)(t->local_port + key[8]) * (t->remote_port + key[9]);
    h ^= h >> 29;
    h *= UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(h >> 32);
}

uint32_t
tcp_hash(const struct tcp_tuple *t)
{
    /* Digits of pi: public, since steering must agree between parties that share no secret. */
    static const uint32_t key[10] = { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822,
                                      0x299f31d0, 0x082efa98, 0xec4e6c89, 0x452821e6, 0x38d01377 };

    return nh_hash(t, key);
}

static struct tcp_link *
link_of(const struct tcp_domain *d, uint32_t ref)
{
    uint32_t i = TABLE_INDEX(ref);

    if (__builtin_expect(TABLE_KIND(ref) == TABLE_CONN, 1))
        return &conn_at(d, i)->link;
    switch (TABLE_KIND(ref)) {
    case TABLE_HALF:
        return &half_at(d, i)->link;
    case TABLE_TW:
        return &tw_at(d, i)->link;
    case TABLE_PARKED:
        return &parked_at(d, i)->link;
    case TABLE_MOVED:
        return &((struct tcp_moved *)domain_array(d, POOL_MOVED) + i)->link;
    default:
        return NULL;
    }
}

static uint32_t *
bucket_of(const struct tcp_domain *d, uint32_t hash)
{
    return (uint32_t *)domain_array(d, ARRAY_BUCKETS) + (hash & d->bucket_mask);
}

static uint32_t
find_hashed(const struct tcp_domain *d, const struct tcp_tuple *t, uint32_t hash)
{
    uint32_t ref = *bucket_of(d, hash);

    while (ref != 0) {
        const struct tcp_link *l = link_of(d, ref);
        if (l->hash == hash && memcmp(&l->tuple, t, sizeof(*t)) == 0)
            break;
        ref = l->hash_next;
    }
    return ref;
}

uint32_t
table_find(const struct tcp_domain *d, const struct tcp_tuple *t)
{
    return find_hashed(d, t, nh_hash(t, d->hash_key));
}

void
table_prefetch_port(const struct tcp_domain *d, const struct tcp_tuple *t, uint16_t local_port)
{
    struct tcp_tuple next = *t;

    next.local_port = local_port;
    __builtin_prefetch(bucket_of(d, nh_hash(&next, d->hash_key)));
}

uint32_t
table_find_in(const struct tcp_domain *d, const struct tcp_in *in)
{
    return find_hashed(d, &in->tuple, in->hash != 0 ? in->hash : nh_hash(&in->tuple, d->hash_key));
}

/*
 * Words that another thread may be writing: each is whole, and what they amount to is looked at again by whoever follows the answer. Entries are cleared and filled
 * in by plain stores, so the thread sanitizer is told that this one reader knows.
 */
__attribute__((no_sanitize("thread"))) uint32_t
table_peek(const struct tcp_domain *d, const struct tcp_tuple *t, unsigned max_steps)
{
    uint32_t hash = nh_hash(t, d->hash_key);
    uint32_t ref = __atomic_load_n(bucket_of(d, hash), __ATOMIC_ACQUIRE);

    for (; ref != 0 && max_steps > 0; max_steps--) {
        const struct tcp_link *l = link_of(d, ref);
        if (__atomic_load_n(&l->hash, __ATOMIC_RELAXED) == hash)
            return ref;
        ref = __atomic_load_n(&l->hash_next, __ATOMIC_ACQUIRE);
    }
    return 0;
}

void
table_add(struct tcp_domain *d, uint32_t ref)
{
    struct tcp_link *l = link_of(d, ref);

    l->hash = nh_hash(&l->tuple, d->hash_key);
    uint32_t *head = bucket_of(d, l->hash);
    l->hash_next = *head;
    __atomic_store_n(head, ref, __ATOMIC_RELEASE); /* after what it leads to: table_peek */
}

void
table_prefetch_bucket(const struct tcp_domain *d, uint32_t ref)
{
    __builtin_prefetch(bucket_of(d, link_of(d, ref)->hash));
}

void
table_prefetch_chain(const struct tcp_domain *d, uint32_t ref)
{
    uint32_t first = *bucket_of(d, link_of(d, ref)->hash);

    if (first != ref && first != 0)
        __builtin_prefetch(link_of(d, first));
}

void
table_remove(struct tcp_domain *d, uint32_t ref)
{
    struct tcp_link *l = link_of(d, ref);
    uint32_t *at = bucket_of(d, l->hash);

    while (*at != 0 && *at != ref)
        at = &link_of(d, *at)->hash_next;
    if (*at == ref)
        __atomic_store_n(at, l->hash_next, __ATOMIC_RELEASE);
    l->hash_next = 0;
}

void
table_exchange(struct tcp_domain *d, uint32_t ref, uint32_t by)
{
    const struct tcp_link *from = link_of(d, ref);
    struct tcp_link *to = link_of(d, by);
    uint32_t *at = bucket_of(d, from->hash);

    while (*at != ref)
        at = &link_of(d, *at)->hash_next;
    to->hash = from->hash;
    to->hash_next = from->hash_next;
    *at = by;
}

/* ---- ahead of a burst ---------------------------------------- */

/* The processor's own reach is some hundred instructions, and a connection's caches hold so many connections without our help. */
#define PREFETCH_CONNS 256u

/* Mostly the ports tell. */
static bool
tuple_equal(const struct tcp_tuple *a, const struct tcp_tuple *b)
{
    return a->remote_port == b->remote_port && a->local_port == b->local_port &&
           ip_addr_equal(&a->remote, &b->remote) && ip_addr_equal(&a->local, &b->local);
}

bool
tcp_prefetch(const struct tcp_domain *d, struct tcp_in *in, const struct tcp_in *before)
{
    if (before != NULL && tuple_equal(&before->tuple, &in->tuple)) {
        in->hash = before->hash;
        return true;
    }
    in->hash = nh_hash(&in->tuple, d->hash_key);
    __builtin_prefetch(bucket_of(d, in->hash));
    return false;
}

/* Words that another thread may be writing, here and below: what comes of them is an address to load from, which may be a wrong one. */
__attribute__((no_sanitize("thread"))) bool
tcp_prefetch_pays(const struct tcp_domain *d)
{
    return d->pools[POOL_CONN].used > PREFETCH_CONNS;
}

void
tcp_prefetch_conn(const struct tcp_domain *d, const struct tcp_in *in)
{
    uint32_t ref = __atomic_load_n(bucket_of(d, in->hash), __ATOMIC_RELAXED);

    if (TABLE_KIND(ref) != TABLE_CONN) {
        if (ref != 0)
            __builtin_prefetch(link_of(d, ref));
        return;
    }
    const struct tcp_conn *c = conn_at(d, TABLE_INDEX(ref));
    prefetch_lines(c, TCP_CONN_SELDOM_AT);
    prefetch_lines((const char *)c + TCP_CONN_OFTEN_AT, sizeof(union tcp_slot) - TCP_CONN_OFTEN_AT);
    __builtin_prefetch(&domain_timers(d)[TABLE_INDEX(ref)]);
}

__attribute__((no_sanitize("thread"))) tcp_user
tcp_prefetch_rest(const struct tcp_domain *d, const struct tcp_in *in)
{
    uint32_t ref = __atomic_load_n(bucket_of(d, in->hash), __ATOMIC_RELAXED);

    if (TABLE_KIND(ref) != TABLE_CONN)
        return 0;
    const struct tcp_conn *c = conn_at(d, TABLE_INDEX(ref));
    if (c->sent.head != 0)
        __builtin_prefetch((const struct tcp_sent_run *)domain_array(d, POOL_SENT) + c->sent.head);
    return c->user;
}
