/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "tcp/domain.h"
#include "tcp/fastopen.h"
#include "tcp/guard.h"
#include "tcp/pathcache.h"
#include "tcp/siphash.h"

/** Ids spend 24 bits on the slot, references 29 on the entry. */
#define MAX_CONNS ((1u << 24) - 1)
#define MAX_ENTRIES ((1u << 28) - 1)

void
tcp_params_default(struct tcp_params *p)
{
    memset(p, 0, sizeof(*p));
    p->max_conns = 65536;
    p->max_half_open = 16384;
    p->max_time_wait = 65536;
    p->max_ooo_bufs = 16384;
    p->rcv_buf_bytes = 1 << 20;
    p->rcv_buf_max_bytes = 6 << 20;
    p->snd_buf_bytes = 1 << 20;
    p->snd_buf_max_bytes = 4 << 20;
    p->port_min = 32768;
    p->port_max = 60999;
    p->time_wait_us = 60000000;
    p->fin_wait2_us = 60000000;
    p->rto_min_us = 200000;
    p->rto_max_us = 120000000;
    p->rto_initial_us = 1000000;
    p->delack_us = 40000;
    p->challenge_us = 500000;
    p->syn_retries = 6;
    p->synack_retries = 5;
    p->data_retries = 15;
    p->timestamps = p->window_scaling = p->sack = p->ts_required = true;
    p->ecn = TCP_ECN_AGREE;
    p->ecn_option = p->ecn_fallback = true;
    p->burst_min_segs = 2;
    p->idle_restart = true;
    p->syn_cookies = TCP_SYN_COOKIES_FULL;
    p->fastopen = TCP_FASTOPEN_CLIENT | TCP_FASTOPEN_SERVER;
    p->mtu_probing = TCP_MTU_PROBING_BLACK_HOLE;
    p->mtu_base_mss = 1024;
    p->mtu_min_bytes = 552;
    p->mtu_probe_interval_s = 600;
    p->mtu_expires_s = 600;
    p->park_us = 30000000;
}

static bool
cc_routes_ok(const struct tcp_params *p)
{
    if (p->nb_cc_routes > TCP_CC_ROUTES_MAX)
        return false;
    for (unsigned i = 0; i < p->nb_cc_routes; i++)
        if (p->cc_routes[i].prefix_len > 128 || p->cc_routes[i].congestion >= TCP_CC_COUNT)
            return false;
    return true;
}

static bool
path_params_ok(const struct tcp_params *p)
{
    /* Less would leave a segment no room beside its options, with either kind of header. */
    const uint16_t mtu_least = TCP_MSS_FLOOR + 60;

    if (p->nb_path_routes > TCP_PATH_ROUTES_MAX || p->mtu_probing > TCP_MTU_PROBING_ALWAYS ||
        p->mtu_base_mss < TCP_MSS_FLOOR || p->mtu_min_bytes < mtu_least)
        return false;
    for (unsigned i = 0; i < p->nb_path_routes; i++) {
        const struct tcp_path_route *r = &p->path_routes[i];
        if (r->prefix_len > 128 || r->probing > 1 + TCP_MTU_PROBING_ALWAYS ||
            (r->mtu_bytes != 0 && r->mtu_bytes < mtu_least) || (r->adv_mss != 0 && r->adv_mss < TCP_MSS_FLOOR))
            return false;
    }
    return true;
}

static bool
params_ok(const struct tcp_params *p)
{
    return p->max_conns > 0 && p->max_conns <= MAX_CONNS && p->max_half_open > 0 && p->max_half_open <= MAX_ENTRIES &&
           p->max_time_wait > 0 && p->max_time_wait <= MAX_ENTRIES && p->max_ooo_bufs > 0 &&
           p->max_ooo_bufs <= MAX_ENTRIES && p->max_moved <= MAX_ENTRIES && p->rcv_buf_bytes >= 2048 &&
           p->rcv_buf_bytes <= 1u << 30 && p->port_min > 0 && p->port_min <= p->port_max && p->rto_min_us > 0 &&
           p->rto_min_us <= p->rto_initial_us && p->rto_initial_us <= p->rto_max_us &&
           p->rto_max_us <= 3600u * 1000000 && p->delack_us <= 500000 && p->ecn <= TCP_ECN_ACCURATE_AGREE &&
           p->syn_cookies <= TCP_SYN_COOKIES_ALWAYS && p->burst_min_segs >= 1 && p->congestion < TCP_CC_COUNT &&
           p->rcv_buf_max_bytes <= 1u << 30 && cc_routes_ok(p) && path_params_ok(p);
}

/** Buckets: a power of two, one for each entry or a few fewer. */
static uint32_t
bucket_count(const struct tcp_params *p)
{
    uint64_t entries = (uint64_t)p->max_conns + p->max_half_open + p->max_time_wait;
    uint32_t n = 64;

    while (n < entries && n < 1u << 28)
        n *= 2;
    return n;
}

/** Runs of what is under way: one for each connection, some more for each, and enough for a few with large windows. */
static uint32_t
run_count(const struct tcp_params *p)
{
    _Static_assert(MAX_CONNS * 5u + 8 * TCP_SENT_RUNS_MAX < 1u << TCP_SENT_INDEX_BITS,
                   "a run's index has so many bits");
    return p->max_conns * 5 + 8 * TCP_SENT_RUNS_MAX;
}

/** Ends of records that wait to be sent: a few programs use them at all. */
static uint32_t
record_count(const struct tcp_params *p)
{
    return p->max_conns + 1024;
}

/** Keys of TCP_MD5SIG: those that users set, and a copy for each connection and TIME-WAIT entry. */
static uint32_t
md5_count(const struct tcp_params *p)
{
    return TCP_MD5_KEYS_MAX + p->max_conns + p->max_time_wait;
}

/** Of an array whose entries parked connections do without, all pages are to be its own. */
static bool
is_given_back(unsigned array)
{
    return array == POOL_CONN;
}

static uint64_t
layout(const struct tcp_params *p, uint64_t at[ARRAY_COUNT])
{
    const uint64_t len[ARRAY_COUNT] = {
        [POOL_CONN] = (p->max_conns + 1ull) * sizeof(union tcp_slot),
        [POOL_HALF] = (p->max_half_open + 1ull) * sizeof(struct tcp_half),
        [POOL_TW] = (p->max_time_wait + 1ull) * sizeof(struct tcp_tw),
        [POOL_SEG] = (p->max_ooo_bufs + 1ull) * sizeof(struct tcp_reass_seg),
        [POOL_REASS] = (p->max_conns + 1ull) * sizeof(struct tcp_reass),
        [POOL_SENT] = (run_count(p) + 1ull) * sizeof(struct tcp_sent_run),
        [POOL_RECORD] = (record_count(p) + 1ull) * sizeof(struct tcp_record),
        [POOL_BIND] = (p->max_conns + p->max_time_wait + 1ull) * sizeof(struct tcp_bind),
        [POOL_MOVED] = (p->max_moved + 1ull) * sizeof(struct tcp_moved),
        [POOL_MODEL] = (p->max_conns + 1ull) * TCP_CC_MODEL_BYTES,
        [POOL_MD5] = (md5_count(p) + 1ull) * sizeof(struct tcp_md5_entry),
        [POOL_PARK] = ((uint64_t)p->max_conns * TCP_PARK_BLOCKS_MAX + 1) * sizeof(struct tcp_park_block),
        [ARRAY_BUCKETS] = (uint64_t)bucket_count(p) * sizeof(uint32_t),
        [ARRAY_PORTS] = 65536ull * sizeof(uint32_t),
        [ARRAY_TIMERS] = (p->max_conns + p->max_half_open + 3ull) * sizeof(struct wheel_node),
        [ARRAY_WAITERS] = (p->max_conns + 1ull) * sizeof(struct tcp_waiter),
        [ARRAY_FASTOPEN] = FASTOPEN_CACHE_ENTRIES * sizeof(struct tcp_fo_entry),
        [ARRAY_ACCECN] = (p->max_conns + 1ull) * sizeof(struct tcp_accecn),
        [ARRAY_PATHS] = (p->max_conns + 1ull) * sizeof(struct tcp_path),
        [ARRAY_PATHCACHE] = PATHCACHE_ENTRIES * sizeof(struct tcp_path_entry),
        [ARRAY_TALLIES] = (p->max_conns + 1ull) * sizeof(struct tcp_tally),
        [ARRAY_PARKED] = (p->max_conns + 1ull) * sizeof(struct tcp_parked),
        [ARRAY_PARKED_BITS] = (p->max_conns / 64 + 1ull) * sizeof(uint64_t),
    };
    uint64_t end = (sizeof(struct tcp_domain) + 63) & ~63ull;

    for (unsigned i = 0; i < ARRAY_COUNT; i++) {
        uint64_t unit = is_given_back(i) ? TCP_PAGE_BYTES : 64;
        at[i] = (end + unit - 1) & ~(unit - 1);
        end = (at[i] + len[i] + unit - 1) & ~(unit - 1);
    }
    return end;
}

size_t
tcp_domain_bytes(const struct tcp_params *p)
{
    uint64_t at[ARRAY_COUNT];

    return (size_t)layout(p, at);
}

/** Field by field: a struct assignment would copy padding, and replicas must be equal to the byte. */
static void
params_copy(struct tcp_params *to, const struct tcp_params *p)
{
    to->max_conns = p->max_conns;
    to->max_half_open = p->max_half_open;
    to->max_time_wait = p->max_time_wait;
    to->max_ooo_bufs = p->max_ooo_bufs;
    to->max_moved = p->max_moved;
    to->seed[0] = p->seed[0];
    to->seed[1] = p->seed[1];
    to->rcv_buf_bytes = p->rcv_buf_bytes;
    to->rcv_buf_max_bytes = p->rcv_buf_max_bytes;
    to->snd_buf_bytes = p->snd_buf_bytes;
    to->snd_buf_max_bytes = p->snd_buf_max_bytes;
    to->port_min = p->port_min;
    to->port_max = p->port_max;
    to->time_wait_us = p->time_wait_us;
    to->fin_wait2_us = p->fin_wait2_us;
    to->rto_min_us = p->rto_min_us;
    to->rto_max_us = p->rto_max_us;
    to->rto_initial_us = p->rto_initial_us;
    to->delack_us = p->delack_us;
    to->challenge_us = p->challenge_us;
    to->syn_retries = p->syn_retries;
    to->synack_retries = p->synack_retries;
    to->data_retries = p->data_retries;
    to->timestamps = p->timestamps;
    to->window_scaling = p->window_scaling;
    to->ts_required = p->ts_required;
    to->sack = p->sack;
    to->ecn = p->ecn;
    to->ecn_option = p->ecn_option;
    to->ecn_fallback = p->ecn_fallback;
    to->burst_min_segs = p->burst_min_segs;
    to->idle_restart = p->idle_restart;
    to->congestion = p->congestion;
    to->nb_cc_routes = p->nb_cc_routes;
    for (unsigned i = 0; i < p->nb_cc_routes; i++)
        to->cc_routes[i] = p->cc_routes[i]; /* it has no padding */
    to->steer = p->steer; /* it has no padding */
    to->pacing = p->pacing;
    to->steer_index = p->steer_index;
    to->syn_cookies = p->syn_cookies;
    to->fastopen = p->fastopen;
    to->mtu_probing = p->mtu_probing;
    to->mtu_base_mss = p->mtu_base_mss;
    to->mtu_min_bytes = p->mtu_min_bytes;
    to->mtu_probe_interval_s = p->mtu_probe_interval_s;
    to->mtu_expires_s = p->mtu_expires_s;
    to->park_us = p->park_us;
    to->nb_path_routes = p->nb_path_routes;
    for (unsigned i = 0; i < p->nb_path_routes; i++)
        to->path_routes[i] = p->path_routes[i]; /* it has no padding */
}

int
tcp_domain_init(struct tcp_domain *d, const struct tcp_params *p, uint64_t now_us)
{
    if (!params_ok(p))
        return -EINVAL;
    d->now_us = now_us;
    params_copy(&d->params, p);
    d->fastopen_keys.n = 1;
    for (unsigned i = 0; i < 2; i++) {
        unsigned tweak = 0x666f6b00u + i;
        d->fastopen_keys.key[0][i] = siphash24(p->seed, &tweak, sizeof(tweak));
    }
    d->bytes = layout(p, d->at);
    d->bucket_mask = bucket_count(p) - 1;
    for (unsigned i = 0; i < 10; i++)
        d->hash_key[i] = (uint32_t)siphash24(p->seed, &i, sizeof(i));
    tcp_pool_init(&d->pools[POOL_CONN], p->max_conns);
    tcp_pool_init(&d->pools[POOL_HALF], p->max_half_open);
    tcp_pool_init(&d->pools[POOL_TW], p->max_time_wait);
    tcp_pool_init(&d->pools[POOL_SEG], p->max_ooo_bufs);
    tcp_pool_init(&d->pools[POOL_REASS], p->max_conns);
    tcp_pool_init(&d->pools[POOL_SENT], run_count(p));
    tcp_pool_init(&d->pools[POOL_RECORD], record_count(p));
    tcp_pool_init(&d->pools[POOL_BIND], p->max_conns + p->max_time_wait);
    tcp_pool_init(&d->pools[POOL_MODEL], p->max_conns);
    tcp_pool_init(&d->pools[POOL_MOVED], p->max_moved);
    tcp_pool_init(&d->pools[POOL_MD5], md5_count(p));
    tcp_pool_init(&d->pools[POOL_PARK], p->max_conns * TCP_PARK_BLOCKS_MAX);
    wheel_init(&d->wheel, now_us);
    return 0;
}

int
tcp_set_params(struct tcp_domain *d, const struct tcp_params *p)
{
    const struct tcp_params *o = &d->params;

    if (!params_ok(p) || p->max_conns != o->max_conns || p->max_half_open != o->max_half_open ||
        p->max_time_wait != o->max_time_wait || p->max_ooo_bufs != o->max_ooo_bufs || p->max_moved != o->max_moved ||
        p->seed[0] != o->seed[0] || p->seed[1] != o->seed[1])
        return -EINVAL;
    bool same_routes = o->nb_path_routes == p->nb_path_routes &&
                       memcmp(o->path_routes, p->path_routes, p->nb_path_routes * sizeof(p->path_routes[0])) == 0;
    park_wake_all(d); /* they are packed by the old parameters, and the new ones may concern them */
    params_copy(&d->params, p);
    struct tcp_env env = { .now_us = d->now_us };
    for (uint32_t i = 1; !same_routes && i <= d->pools[POOL_CONN].high; i++)
        if (conn_at(d, i)->state != 0 && conn_at(d, i)->state != TCP_ST_LISTEN)
            path_reroute(d, &env, conn_at(d, i));
    return 0;
}

const char *
tcp_state_name(enum tcp_state s)
{
    static const char *const names[] = { "UNKNOWN",   "ESTAB",  "SYN-SENT",   "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2",
                                         "TIME-WAIT", "UNCONN", "CLOSE-WAIT", "LAST-ACK", "LISTEN",     "CLOSING" };

    return (unsigned)s < sizeof(names) / sizeof(names[0]) ? names[s] : names[0];
}

/** To the entry that it is for, which is no connection. Of its own, so that what connections come by keeps no registers for it. */
static __attribute__((noinline)) void
deal_with(struct tcp_domain *d, const struct tcp_env *env, uint32_t ref, const struct tcp_in *in)
{
    bool taken = false;
    tcp_seq iss_floor;

    switch (TABLE_KIND(ref)) {
    case TABLE_HALF:
        half_input(d, env, TABLE_INDEX(ref), in, &taken);
        break;
    case TABLE_TW:
        /* The listener's key counts for the new connection. */
        if (timewait_input(d, env, TABLE_INDEX(ref), in, &iss_floor) && md5_admits(d, env, 0, in))
            listen_input(d, env, in, &iss_floor, &taken);
        break;
    case TABLE_MOVED:
        counter_inc(env->ctr, CTR_TCP_DROP_MOVED);
        break;
    default:
        listen_input(d, env, in, NULL, &taken);
        break;
    }
    if (!taken)
        env->sink->release(env->sink->ctx, in->data.buf);
}

/** A segment for this entry of the table. */
static inline void
input_for(struct tcp_domain *d, const struct tcp_env *env, uint32_t ref, const struct tcp_in *in)
{
    if (!md5_admits(d, env, ref, in))
        env->sink->release(env->sink->ctx, in->data.buf);
    else if (__builtin_expect(TABLE_KIND(ref) == TABLE_CONN, 1))
        conn_input(d, env, conn_at(d, TABLE_INDEX(ref)), in);
    else
        deal_with(d, env, ref, in);
}

static __attribute__((noinline)) void
input_guarded(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_in *in)
{
    struct guard_hold hold;

    input_for(d, env, guard_find(d, env, in, &hold), in);
    guard_give(env, &hold);
}

void
tcp_input(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_in *in)
{
    counter_inc(env->ctr, CTR_TCP_RX_SEGS);
    if (GUARDED(env->locks)) {
        input_guarded(d, env, in);
        return;
    }
    d->now_us = env->now_us;
    uint32_t ref = table_find_in(d, in);
    if (__builtin_expect(TABLE_KIND(ref) == TABLE_PARKED, 0))
        ref = TABLE_REF(TABLE_CONN, conn_index(d, park_wake(d, TABLE_INDEX(ref))));
    input_for(d, env, ref, in);
}

/** Returns how many entries ended besides. */
static unsigned
run_due(struct tcp_domain *d, const struct tcp_env *env, uint32_t node)
{
    if (GUARDED(env->locks))
        return guard_run_due(d, env, node);
    if (node <= d->params.max_conns)
        conn_on_timer(d, env, node);
    else if (node == park_timer(d))
        park_look(d, env);
    else if (node != tw_timer(d))
        half_on_timer(d, env, node - d->params.max_conns);
    else
        return timewait_on_timer(d, env, TIMEWAIT_BUDGET);
    return 0;
}

/** Who waits for the port, in the order in which they came, as long as it has room. */
static unsigned
run_waiting(struct tcp_domain *d, const struct tcp_env *env, unsigned budget)
{
    unsigned ran = 0;

    for (; ran < budget && !env->tx_full && tcp_waiters_any(&d->waiters); ran++) {
        guard_inner(env->locks, TCP_INNER_TIMERS);
        uint32_t i = tcp_waiters_take(&d->waiters, domain_waiters(d));
        unguard_inner(env->locks, TCP_INNER_TIMERS);
        if (i == 0)
            continue;
        if (GUARDED(env->locks))
            guard_run_waiting(d, env, i);
        else
            conn_output_in_turn(d, env, conn_at(d, i));
    }
    return ran;
}

/** Most fire in vain, for connections to which nothing has happened for long: all are loaded before the first is looked at. */
static void
prefetch_due(const struct tcp_domain *d, const uint32_t *nodes, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (nodes[i] > d->params.max_conns)
            continue;
        const struct tcp_conn *c = conn_at(d, nodes[i]);
        __builtin_prefetch(&c->state);
        __builtin_prefetch(&c->timer_at);
    }
}

unsigned
tcp_tick(struct tcp_domain *d, const struct tcp_env *env, unsigned budget)
{
    uint32_t due[32];
    unsigned ran;

    if (!GUARDED(env->locks))
        d->now_us = env->now_us;
    ran = run_waiting(d, env, budget);
    while (ran < budget) {
        unsigned max = budget - ran < 32 ? budget - ran : 32;
        guard_inner(env->locks, TCP_INNER_TIMERS);
        unsigned n = wheel_advance(&d->wheel, domain_timers(d), env->now_us, due, max);
        unguard_inner(env->locks, TCP_INNER_TIMERS);
        if (n > 1)
            prefetch_due(d, due, n);
        for (unsigned i = 0; i < n; i++)
            ran += run_due(d, env, due[i]);
        ran += n;
        if (n < max)
            break;
    }
    return ran;
}

uint64_t
tcp_next_us(const struct tcp_domain *d, uint64_t now_us)
{
    /* Whether the port has room again the engine is not told. */
    return tcp_waiters_any(&d->waiters) ? now_us : wheel_next_us(&d->wheel, now_us);
}

void
tcp_usage(const struct tcp_domain *d, struct tcp_usage *u)
{
    bool watched = wheel_is_armed(&domain_timers(d)[park_timer(d)]); /* no entry's timer */

    *u = (struct tcp_usage){
        .conns = d->pools[POOL_CONN].used - d->listeners,
        .listeners = d->listeners,
        .half_open = d->pools[POOL_HALF].used,
        .time_wait = d->pools[POOL_TW].used,
        .ooo_bufs = d->pools[POOL_SEG].used,
        .timers_armed = d->wheel.armed - watched,
    };
}
