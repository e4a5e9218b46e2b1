/* SPDX-License-Identifier: BSD-3-Clause */
#include "modes/misd.h"

#include <errno.h>
#include <stdlib.h>

/** Runs that wait for somebody else to verify a checksum. */
#define WAITS_MAX 64u

/* ---- supply ------------------------------------------------------------------------------------------------------------------ */

/* Nothing is there: say how far this replica has come, so that nobody waits for it. */
static void
release(struct misd_replica *r)
{
    for (unsigned c = 0; c < r->x->channels.nb; c++)
        if (bcast_release(r->x->channels.b[c], r->number) != 0)
            r->stale = true;
}

/* Nothing is left to apply. Returns whether there is something. */
static bool
refill(struct misd_replica *r)
{
    if (unlikely(r->stale) && !misd_snapshot_take(r))
        return false;
    r->next = r->count = 0;
    if (misd_take(r))
        return true;
    if (!r->stale)
        release(r);
    return false;
}

/*
 * Whoever took a segment first verifies its checksum, and the others cannot apply it before. Meanwhile this replica takes what comes behind, which it may
 * be the first at. When there is no more it comes again, and in the end does it itself: who should have done it may stand still.
 */
static bool
is_verified(struct misd_replica *r, bool *good)
{
    while (!misd_verdict(r, good)) {
        if (misd_take(r))
            continue;
        if (++r->waits <= WAITS_MAX)
            return false;
        if (!misd_verify(r, r->next)) {
            r->stale = true;
            r->next = r->count = 0;
            return false;
        }
    }
    r->waits = 0;
    return true;
}

/* ---- effects ----------------------------------------------------------------------------------------------------------------- */

static struct effect *
log_last(struct misd_replica *r)
{
    return &r->log[(r->log_tail - 1) & (r->log_size - 1)];
}

static void
log_add(struct misd_replica *r, struct effect e)
{
    if (!r->logging)
        return;
    e.event = r->applied;
    r->log[r->log_tail++ & (r->log_size - 1)] = e;
}

/* What is sent in a row is one effect. When the log is as good as full a note is left out: the next one tells as much. */
static void
log_sent(struct misd_replica *r, const struct tcp_out *out)
{
    struct effect *last = log_last(r);

    if (r->log_tail != r->log_head && last->event == r->applied && last->kind == EFFECT_SENT &&
        last->user == out->user && last->stream.pos + last->stream.n_bytes == out->payload_pos)
        last->stream.n_bytes += out->payload_len;
    else if (r->log_tail - r->log_head < MISD_LOG_LIMIT + MISD_LOG_SENT)
        log_add(r, (struct effect){ .kind = EFFECT_SENT,
                                    .user = out->user,
                                    .stream = { .pos = out->payload_pos, .n_bytes = out->payload_len } });
}

static void
on_emit(void *ctx, const struct tcp_out *out, uint64_t now_us)
{
    struct misd_replica *r = ctx;

    if (r->primary)
        net_emit(r->net, r->x->stack, out, now_us);
    if (out->payload_len > 0 && r->logging)
        log_sent(r, out);
}

static void
on_deliver(void *ctx, tcp_user user, struct tcp_data data)
{
    log_add(ctx, (struct effect){ .kind = EFFECT_DELIVER, .user = user, .data = data });
}

static void
on_release(void *ctx, tcp_buf buf)
{
    log_add(ctx, (struct effect){ .kind = EFFECT_RELEASE, .buf = buf });
}

static void
on_acked(void *ctx, tcp_user user, uint32_t n_bytes)
{
    log_add(ctx, (struct effect){ .kind = EFFECT_ACKED, .user = user, .stream = { .n_bytes = n_bytes } });
}

static void
on_event(void *ctx, tcp_user user, uint32_t events, int err)
{
    log_add(ctx, (struct effect){ .kind = EFFECT_EVENT, .user = user, .state = { .events = events, .err = err } });
}

/* Somebody else's log has been used for events before x->done. */
static void
prune_log(struct misd_replica *r)
{
    uint64_t done = __atomic_load_n(&r->x->done, __ATOMIC_RELAXED);

    while (r->log_head != r->log_tail && r->log[r->log_head & (r->log_size - 1)].event < done)
        r->log_head++;
}

unsigned
misd_replica_drain(struct misd_replica *r)
{
    struct misd *x = r->x;
    unsigned n = 0;

    prune_log(r);
    for (; r->log_head != r->log_tail; n++)
        stack_effect(x->stack, &r->log[r->log_head++ & (r->log_size - 1)]);
    /* Release: a thread that is the front next finds the sockets as these effects left them, by the lock; others only save work. */
    if (r->applied > x->done)
        __atomic_store_n(&x->done, r->applied, __ATOMIC_RELEASE);
    return n;
}

/* ---- applying ---------------------------------------------------------------------------------------------------------------- */

static void
apply_call(struct misd_replica *r, struct tcp_call *call, struct tcp_result *res)
{
    /* Fronts on different threads read the clock at different places of their passes. */
    r->now_us = RTE_MAX(r->now_us, call->now_us);
    call->now_us = r->now_us;
    tcp_apply(r->domain, &r->env, call, res);
    if (call->op == TCP_CALL_ABORT)
        log_add(r, (struct effect){ .kind = EFFECT_ABORTED, .user = call->user });
}

/* Not a segment of anybody's. */
static void
drop_segment(struct misd_replica *r, const struct misd_event *ev)
{
    counter_inc(r->env.ctr, CTR_TCP_DROP_CHECKSUM);
    log_add(r, (struct effect){ .kind = EFFECT_RELEASE, .buf = ev->call.in.data.buf });
}

static void
apply_next(struct misd_replica *r, bool good)
{
    const struct misd_origin *o = &r->origin[r->next];
    struct misd_event *ev = &r->event[r->next++];
    struct tcp_result res = { .rc = 0 };

    r->primary = o->primary;
    r->logging = r->applied >= __atomic_load_n(&r->x->done, __ATOMIC_RELAXED);
    r->env.ctr = o->primary ? net_queue(r->net)->ctr : &r->muted;
    switch ((enum misd_kind)ev->kind) {
    case MISD_CALL:
        if (likely(good))
            apply_call(r, &ev->call, &res);
        else
            drop_segment(r, ev);
        break;
    case MISD_CHECK:
        misd_check(r, ev->check);
        break;
    }
    __atomic_store_n(&r->applied, r->applied + 1, __ATOMIC_RELEASE);
    if (unlikely(r->waiting) && r->waiting_channel == o->channel && r->waiting_position == o->position) {
        r->waiting = false;
        r->result = res;
    }
}

unsigned
misd_replica_run(struct misd_replica *r, unsigned budget)
{
    struct counters *ctr = net_queue(r->net)->ctr;
    bool waiting = r->waiting, good;
    unsigned n = 0;

    prune_log(r);
    while (n < budget && r->log_tail - r->log_head < MISD_LOG_LIMIT) {
        if ((r->next == r->count && !refill(r)) || !is_verified(r, &good))
            break;
        counter_add(ctr, CTR_MISD_PRIMARY, r->origin[r->next].primary);
        apply_next(r, good);
        n++;
        if (unlikely(waiting && !r->waiting))
            break;
    }
    counter_add(ctr, CTR_MISD_APPLIED, n);
    if (r->next == r->count && !r->stale)
        misd_snapshot_give(r);
    return n;
}

/* ---- life -------------------------------------------------------------------------------------------------------------------- */

int
misd_replica_init(struct misd_replica *r, struct misd *x, unsigned number, struct net *net)
{
    r->x = x;
    r->number = number;
    r->net = net;
    r->domain = number == 0 ? stack_domain(x->stack) : stack_domain_create(x->stack);
    r->log_size = rte_align32pow2(MISD_LOG_LIMIT + MISD_LOG_SENT + stack_effects_max(x->stack));
    r->log = calloc(r->log_size, sizeof(r->log[0])) /* touched as it is used */;
    if (r->domain == NULL || r->log == NULL)
        return -ENOMEM;
    r->sink = (struct tcp_sink){
        .ctx = r,
        .emit = on_emit,
        .deliver = on_deliver,
        .release = on_release,
        .acked = on_acked,
        .event = on_event,
        .unused = stack_on_unused,
    };
    r->env = (struct tcp_env){ .sink = &r->sink, .gso_max_bytes = stack_gso_max_bytes(x->stack) };
    return 0;
}

void
misd_replica_fini(struct misd_replica *r)
{
    if (r->number != 0 && r->domain != NULL)
        stack_domain_destroy(r->x->stack, r->domain);
    free(r->log);
}
