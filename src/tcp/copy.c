/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/copy.h"

#include "tcp/domain.h"
#include "tcp/fastopen.h"
#include "tcp/pathcache.h"

/** A stretch of the arena. */
struct range {
    uint64_t at, bytes;
};

/** The domain's head, each pool, the arrays; of the timers' nodes three stretches. */
#define RANGES (1 + ARRAY_COUNT + 2)

_Static_assert(ARRAY_COUNT == 23, "a new array has its stretch here");

/** What may have been touched in a domain whose pools have these marks. */
static void
ranges_of(const struct tcp_domain *d, const uint32_t high[POOL_COUNT], struct range r[RANGES])
{
    static const size_t stride[POOL_COUNT] = {
        [POOL_CONN] = sizeof(union tcp_slot),      [POOL_HALF] = sizeof(struct tcp_half),
        [POOL_TW] = sizeof(struct tcp_tw),         [POOL_SEG] = sizeof(struct tcp_reass_seg),
        [POOL_REASS] = sizeof(struct tcp_reass),   [POOL_SENT] = sizeof(struct tcp_sent_run),
        [POOL_BIND] = sizeof(struct tcp_bind),     [POOL_MODEL] = TCP_CC_MODEL_BYTES,
        [POOL_RECORD] = sizeof(struct tcp_record), [POOL_MOVED] = sizeof(struct tcp_moved),
        [POOL_MD5] = sizeof(struct tcp_md5_entry), [POOL_PARK] = sizeof(struct tcp_park_block),
    };
    const uint64_t node = sizeof(struct wheel_node);
    const uint64_t timers = d->at[ARRAY_TIMERS];
    unsigned n = 0;

    r[n++] = (struct range){ 0, sizeof(*d) };
    for (unsigned i = 0; i < POOL_COUNT; i++)
        r[n++] = (struct range){ d->at[i], (high[i] + 1ull) * stride[i] };
    r[n++] = (struct range){ d->at[ARRAY_BUCKETS], (d->bucket_mask + 1ull) * sizeof(uint32_t) };
    r[n++] = (struct range){ d->at[ARRAY_PORTS], 65536ull * sizeof(uint32_t) };
    r[n++] = (struct range){ d->at[ARRAY_FASTOPEN], FASTOPEN_CACHE_ENTRIES * sizeof(struct tcp_fo_entry) };
    r[n++] = (struct range){ d->at[ARRAY_ACCECN], (high[POOL_CONN] + 1ull) * sizeof(struct tcp_accecn) };
    r[n++] = (struct range){ d->at[ARRAY_PATHS], (high[POOL_CONN] + 1ull) * sizeof(struct tcp_path) };
    r[n++] = (struct range){ d->at[ARRAY_PATHCACHE], PATHCACHE_ENTRIES * sizeof(struct tcp_path_entry) };
    r[n++] = (struct range){ d->at[ARRAY_TALLIES], (high[POOL_CONN] + 1ull) * sizeof(struct tcp_tally) };
    r[n++] = (struct range){ d->at[ARRAY_WAITERS], (high[POOL_CONN] + 1ull) * sizeof(struct tcp_waiter) };
    r[n++] = (struct range){ d->at[ARRAY_PARKED], (high[POOL_CONN] + 1ull) * sizeof(struct tcp_parked) };
    r[n++] = (struct range){ d->at[ARRAY_PARKED_BITS], (high[POOL_CONN] / 64 + 1ull) * sizeof(uint64_t) };
    r[n++] = (struct range){ timers, (high[POOL_CONN] + 1ull) * node };
    r[n++] = (struct range){ timers + half_timer(d, 1) * node, high[POOL_HALF] * node };
    r[n++] = (struct range){ timers + tw_timer(d) * node, 2 * node };
}

/** The larger of both marks: what one has and the other has not is zero in the other. */
static void
common_ranges(const struct tcp_domain *a, const struct tcp_domain *b, struct range r[RANGES])
{
    uint32_t high[POOL_COUNT];

    for (unsigned i = 0; i < POOL_COUNT; i++)
        high[i] = a->pools[i].high > b->pools[i].high ? a->pools[i].high : b->pools[i].high;
    ranges_of(a, high, r);
}

void
tcp_domain_copy(struct tcp_domain *to, const struct tcp_domain *from)
{
    struct range r[RANGES];

    common_ranges(from, to, r);
    for (unsigned i = 0; i < RANGES; i++)
        memcpy((char *)to + r[i].at, (const char *)from + r[i].at, r[i].bytes);
}

bool
tcp_domain_equal(const struct tcp_domain *a, const struct tcp_domain *b)
{
    struct range r[RANGES];

    common_ranges(a, b, r);
    for (unsigned i = 0; i < RANGES; i++)
        if (memcmp((const char *)a + r[i].at, (const char *)b + r[i].at, r[i].bytes) != 0)
            return false;
    return true;
}

/** Four lanes, so that a multiplication need not wait for the one before. */
static uint64_t
digest_range(uint64_t h, const char *p, uint64_t bytes)
{
    const uint64_t mul = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t lane[4] = { h, h + 1, h + 2, h + 3 };
    uint64_t w[4] = { 0 };
    uint64_t at;

    for (at = 0; at + sizeof(w) <= bytes; at += sizeof(w)) {
        memcpy(w, p + at, sizeof(w));
        for (unsigned k = 0; k < 4; k++) {
            uint64_t v = (lane[k] ^ w[k]) * mul;
            lane[k] = v ^ v >> 29;
        }
    }
    memset(w, 0, sizeof(w));
    memcpy(w, p + at, bytes - at);
    for (unsigned k = 0; k < 4; k++) {
        h = (h ^ lane[k] ^ w[k]) * mul;
        h ^= h >> 32;
    }
    return h;
}

uint64_t
tcp_domain_digest(const struct tcp_domain *d)
{
    uint32_t high[POOL_COUNT];
    struct range r[RANGES];
    uint64_t h = 0;

    for (unsigned i = 0; i < POOL_COUNT; i++)
        high[i] = d->pools[i].high;
    ranges_of(d, high, r);
    for (unsigned i = 0; i < RANGES; i++)
        h = digest_range(h, (const char *)d + r[i].at, r[i].bytes);
    return h;
}
