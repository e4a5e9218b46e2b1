/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_GUARD_H
#define TCP_GUARD_H

#include "tcp/domain.h"

/**
 * @file
 * Where the engine says what it touches, for those who share a domain (struct tcp_locks); nothing but an untaken branch for all others. Private to src/tcp.
 */

#define GUARDED(locks) __builtin_expect((locks) != NULL, 0)

/** Which entries there are; the domain's clock is set to the event's. */
static inline void
guard_table(struct tcp_domain *d, const struct tcp_env *env)
{
    if (GUARDED(env->locks))
        env->locks->table_take(env->locks->ctx);
    d->now_us = env->now_us;
}

static inline void
unguard_table(const struct tcp_env *env)
{
    if (GUARDED(env->locks))
        env->locks->table_give(env->locks->ctx);
}

/** One connection or listener; with the table's guard. */
static inline void
guard_slot(const struct tcp_env *env, uint32_t slot)
{
    if (GUARDED(env->locks))
        env->locks->conn_take(env->locks->ctx, slot);
}

static inline void
unguard_slot(const struct tcp_env *env, uint32_t slot)
{
    if (GUARDED(env->locks))
        env->locks->conn_give(env->locks->ctx, slot);
}

static inline void
guard_inner(const struct tcp_locks *l, enum tcp_inner which)
{
    if (GUARDED(l))
        l->inner_take(l->ctx, which);
}

static inline void
unguard_inner(const struct tcp_locks *l, enum tcp_inner which)
{
    if (GUARDED(l))
        l->inner_give(l->ctx, which);
}

/* ---- guard.c ---- */

/* Of their own, so that the callers' common path keeps no registers for them. */
uint32_t guard_pool_get(const struct tcp_locks *l, enum tcp_inner which, struct tcp_pool *p, void *base, size_t stride,
                        uint32_t reserve);
void guard_pool_put(const struct tcp_locks *l, enum tcp_inner which, struct tcp_pool *p, void *base, size_t stride,
                    uint32_t i);

/** An entry of a pool that connections share, unless that left fewer than reserve; 0 = none. */
static inline uint32_t
shared_pool_get(const struct tcp_locks *l, enum tcp_inner which, struct tcp_pool *p, void *base, size_t stride,
                uint32_t reserve)
{
    if (GUARDED(l))
        return guard_pool_get(l, which, p, base, stride, reserve);
    return reserve != 0 && p->used + reserve >= p->cap ? 0 : tcp_pool_get(p, base, stride);
}

static inline void
shared_pool_put(const struct tcp_locks *l, enum tcp_inner which, struct tcp_pool *p, void *base, size_t stride,
                uint32_t i)
{
    if (GUARDED(l))
        guard_pool_put(l, which, p, base, stride, i);
    else
        tcp_pool_put(p, base, stride, i);
}

/** What a thread holds while an event is applied. */
struct guard_hold {
    uint32_t slot; /**< 0 = no connection */
    bool table;
};

/** The entry of a segment's tuple, held. The table is held too unless the segment only changes its connection. */
uint32_t guard_find(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_in *in, struct guard_hold *h);
void guard_give(const struct tcp_env *env, const struct guard_hold *h);
struct tcp_conn *guard_conn(struct tcp_domain *d, const struct tcp_env *env, tcp_id id);
/** It has waited for the port, and was the next when it was taken from the queue. */
void guard_run_waiting(struct tcp_domain *d, const struct tcp_env *env, uint32_t slot);
/** Run the timer of a wheel node that was due when it was taken from the wheel; returns how many entries it ended besides. */
unsigned guard_run_due(struct tcp_domain *d, const struct tcp_env *env, uint32_t node);

static inline uint32_t
id_slot(tcp_id id)
{
    return id & 0xffffff;
}

/** The slot of an id, which may be anything: 0 if there is none such. */
static inline uint32_t
id_slot_checked(const struct tcp_domain *d, tcp_id id)
{
    return id_slot(id) <= d->params.max_conns ? id_slot(id) : 0;
}

/** For what a user does that only changes its connection: NULL, or the connection, until conn_leave. */
static inline struct tcp_conn *
conn_enter(struct tcp_domain *d, const struct tcp_env *env, tcp_id id)
{
    if (GUARDED(env->locks))
        return guard_conn(d, env, id);
    d->now_us = env->now_us;
    return conn_awake(d, id);
}

static inline void
conn_leave(const struct tcp_env *env, tcp_id id)
{
    unguard_slot(env, id_slot(id));
}

#endif /* TCP_GUARD_H */
