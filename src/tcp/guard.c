/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/guard.h"

/**
 * @file
 * Finding what an event concerns, in a domain that several threads are inside of: the table's lock is held while a connection's is waited for, and given back once it is clear
 * that the event ends nothing (Willmann et al., section 5.1: the locks stand in for counts of references).
 */

/* A walk that lost its chain to someone who moved entries must end; what it did not find is looked for again with the lock. */
#define PEEK_STEPS 64

static bool
is_conn(const struct tcp_conn *c)
{
    return c->state != 0 && c->state != TCP_ST_LISTEN;
}

/** Whether what the segment does stays within its connection: neither ends it nor concerns its listener. */
static bool
input_stays_inside(const struct tcp_conn *c, const struct tcp_in *in)
{
    return (c->state == TCP_ST_ESTABLISHED || c->state == TCP_ST_CLOSE_WAIT) &&
           (in->flags & (TCP_FLAG_SYN | TCP_FLAG_RST)) == 0 && (c->flags & (CONN_F_FO_CHILD | CONN_F_ORPHAN)) == 0;
}

/** A retransmission or a probe may be the last one; the others only send. */
static bool
timer_stays_inside(const struct tcp_conn *c, uint64_t now_us)
{
    uint32_t now = tick_of(now_us);
    bool keep = c->timer_at[CONN_T_KEEP] != 0 && (int32_t)(c->timer_at[CONN_T_KEEP] - now) <= 0;
    bool rtx = c->timer_at[CONN_T_RTX] != 0 && (int32_t)(c->timer_at[CONN_T_RTX] - now) <= 0;

    return !keep && (!rtx || (c->flags & (CONN_F_PTO | CONN_F_REO)) != 0);
}

/**
 * The connection of a tuple, held, if it can be found without the table's lock and the segment stays within it; else 0. An entry may be given up, and become another's, at any time
 * before it is held, but never anything but an entry; so what was found is looked at again once it is.
 */
static uint32_t
find_free(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_in *in)
{
    uint32_t ref = table_peek(d, &in->tuple, PEEK_STEPS);

    if (TABLE_KIND(ref) != TABLE_CONN)
        return 0;
    const struct tcp_conn *c = conn_at(d, TABLE_INDEX(ref));
    guard_slot(env, TABLE_INDEX(ref));
    /* In these states it is in the table, and stays there as long as it is held. */
    if (is_conn(c) && input_stays_inside(c, in) && memcmp(&c->link.tuple, &in->tuple, sizeof(in->tuple)) == 0)
        return ref;
    unguard_slot(env, TABLE_INDEX(ref));
    return 0;
}

uint32_t
guard_find(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_in *in, struct guard_hold *h)
{
    uint32_t ref = env->locks->free_lookup ? find_free(d, env, in) : 0;

    *h = (struct guard_hold){ .slot = TABLE_INDEX(ref) };
    if (ref != 0)
        return ref;
    guard_table(d, env);
    h->table = true;
    ref = table_find_in(d, in);
    if (TABLE_KIND(ref) != TABLE_CONN)
        return ref;
    h->slot = TABLE_INDEX(ref);
    guard_slot(env, h->slot);
    if (input_stays_inside(conn_at(d, h->slot), in)) {
        unguard_table(env);
        h->table = false;
    }
    return ref;
}

void
guard_give(const struct tcp_env *env, const struct guard_hold *h)
{
    if (h->slot != 0)
        unguard_slot(env, h->slot);
    if (h->table)
        unguard_table(env);
}

struct tcp_conn *
guard_conn(struct tcp_domain *d, const struct tcp_env *env, tcp_id id)
{
    uint32_t slot = id_slot_checked(d, id);
    struct tcp_conn *c;

    if (slot == 0)
        return NULL;
    if (!env->locks->free_lookup)
        guard_table(d, env);
    guard_slot(env, slot);
    if (!env->locks->free_lookup)
        unguard_table(env);
    c = conn_at(d, slot);
    if (is_conn(c) && slot_id(d, slot) == id)
        return c;
    unguard_slot(env, slot);
    return NULL;
}

/* ---- pools ---------------------------------------- */

uint32_t
guard_pool_get(const struct tcp_locks *l, enum tcp_inner which, struct tcp_pool *p, void *base, size_t stride,
               uint32_t reserve)
{
    guard_inner(l, which);
    uint32_t i = shared_pool_get(NULL, which, p, base, stride, reserve);
    unguard_inner(l, which);
    return i;
}

void
guard_pool_put(const struct tcp_locks *l, enum tcp_inner which, struct tcp_pool *p, void *base, size_t stride,
               uint32_t i)
{
    guard_inner(l, which);
    tcp_pool_put(p, base, stride, i);
    unguard_inner(l, which);
}

/* ---- timers ---------------------------------------- */

/** Held with the table, unless it is the connection's affair alone. */
static void
run_conn(struct tcp_domain *d, const struct tcp_env *env, uint32_t i)
{
    const struct tcp_conn *c = conn_at(d, i);
    bool table = !env->locks->free_lookup;

    for (;;) {
        if (table)
            guard_table(d, env);
        guard_slot(env, i);
        bool live = is_conn(c) && c->state != TCP_ST_CLOSED;
        bool inside = !live || timer_stays_inside(c, env->now_us);
        if (inside && table)
            unguard_table(env);
        if (inside || table) {
            if (live)
                conn_on_timer(d, env, i);
            unguard_slot(env, i);
            if (!inside)
                unguard_table(env);
            return;
        }
        unguard_slot(env, i);
        table = true;
    }
}

void
guard_run_waiting(struct tcp_domain *d, const struct tcp_env *env, uint32_t slot)
{
    if (!env->locks->free_lookup)
        guard_table(d, env);
    guard_slot(env, slot);
    if (!env->locks->free_lookup)
        unguard_table(env);
    struct tcp_conn *c = conn_at(d, slot);
    /* Its place may be another's by now, which then looks once in vain. */
    if (is_conn(c) && c->state != TCP_ST_CLOSED)
        conn_output_in_turn(d, env, c);
    unguard_slot(env, slot);
}

/** It may have been given up since its node was taken from the wheel, and its place been filled by another, whose node is in the wheel then. */
static void
run_half(struct tcp_domain *d, const struct tcp_env *env, uint32_t i)
{
    guard_inner(env->locks, TCP_INNER_TIMERS);
    bool armed = wheel_is_armed(&domain_timers(d)[half_timer(d, i)]);
    unguard_inner(env->locks, TCP_INNER_TIMERS);
    if (!armed && half_at(d, i)->link.tuple.local_port != 0)
        half_on_timer(d, env, i);
}

unsigned
guard_run_due(struct tcp_domain *d, const struct tcp_env *env, uint32_t node)
{
    unsigned ended = 0;

    if (node <= d->params.max_conns) {
        run_conn(d, env, node);
        return 0;
    }
    guard_table(d, env);
    if (node != tw_timer(d))
        run_half(d, env, node - d->params.max_conns);
    else
        ended = timewait_on_timer(d, env, TIMEWAIT_BUDGET);
    unguard_table(env);
    return ended;
}
