/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/**
 * @file
 * The locks of a domain that several workers are inside of at once, and each worker's view of it. A view has what one thread needs for itself: environment and sink, counters, the list
 * of sockets that it has still to flush.
 */

/* ---- locks ------------------------------------------------------------------------------------------------------------------- */

static void
timed_take(struct stack *s, struct timed_lock *k, enum counter_id class)
{
    lock_take(&k->lock, s->ctr, class);
    s->env.now_us = RTE_MAX(s->env.now_us, k->now_us);
}

static void
timed_give(const struct stack *s, struct timed_lock *k)
{
    k->now_us = s->env.now_us;
    lock_give(&k->lock);
}

void
shared_table_take(void *ctx)
{
    struct stack *s = ctx;

    if (s->table_depth++ > 0)
        return;
    /* Who held a connection here would wait for one who waits for it. */
    assert(s->conns_held == 0);
    timed_take(s, &s->shared->table, CTR_LOCK_TABLE);
}

void
shared_table_give(void *ctx)
{
    struct stack *s = ctx;

    assert(s->table_depth > 0);
    if (--s->table_depth == 0)
        timed_give(s, &s->shared->table);
}

static void
conn_take(void *ctx, uint32_t slot)
{
    struct stack *s = ctx;

    assert(s->conns_held == 0 || s->table_depth > 0);
    timed_take(s, &s->shared->conns[slot], CTR_LOCK_CONN);
    s->conns_held++;
}

static void
conn_give(void *ctx, uint32_t slot)
{
    struct stack *s = ctx;

    assert(s->conns_held > 0);
    s->conns_held--;
    timed_give(s, &s->shared->conns[slot]);
}

static void
inner_take(void *ctx, enum tcp_inner which)
{
    struct stack *s = ctx;

    lock_take(&s->shared->inner[which].lock, s->ctr, which == TCP_INNER_TIMERS ? CTR_LOCK_TIMERS : CTR_LOCK_POOLS);
    s->timers_changed |= which == TCP_INNER_TIMERS;
}

static void
inner_give(void *ctx, enum tcp_inner which)
{
    struct stack *s = ctx;

    lock_give(&s->shared->inner[which].lock);
}

/* ---- life -------------------------------------------------------------------------------------------------------------------- */

struct shared *
shared_create(uint32_t max_conns, bool free_lookup)
{
    struct shared *sh = aligned_alloc(64, RTE_ALIGN_CEIL(sizeof(*sh), (size_t)64));

    if (sh == NULL)
        return NULL;
    memset(sh, 0, sizeof(*sh));
    sh->free_lookup = free_lookup;
    sh->conns_bytes = (max_conns + 1u) * sizeof(sh->conns[0]);
    sh->conns = lazy_alloc(sh->conns_bytes);
    if (sh->conns == NULL) {
        free(sh);
        return NULL;
    }
    return sh;
}

void
shared_destroy(struct shared *sh)
{
    if (sh == NULL)
        return;
    lazy_free(sh->conns, sh->conns_bytes);
    free(sh);
}

void
shared_bind(struct stack *s)
{
    s->locks = (struct tcp_locks){
        .ctx = s,
        .table_take = shared_table_take,
        .table_give = shared_table_give,
        .conn_take = conn_take,
        .conn_give = conn_give,
        .inner_take = inner_take,
        .inner_give = inner_give,
        .free_lookup = s->shared->free_lookup,
    };
    s->env.locks = &s->locks;
}

struct stack *
stack_view(struct stack *s)
{
    struct stack *view = aligned_alloc(64, RTE_ALIGN_CEIL(sizeof(*view), (size_t)64));

    if (view == NULL)
        return NULL;
    memcpy(view, s, sizeof(*view));
    view->main = s;
    view->sink.ctx = view;
    view->env.sink = &view->sink;
    view->dirty_first = view->dirty_last = SOCK_NONE;
    shared_bind(view);
    return view;
}
