/* SPDX-License-Identifier: BSD-3-Clause */
#include "modes/misd.h"

#include <errno.h>
#include <stdlib.h>

/** Of the merged order each place whose number is a multiple of this is for calls first, so that no stream of packets keeps them waiting. */
#define CALLS_TURN 8u

/* ---- taking events --------------------------------------------------------------------------------------------------------- */

/* The channel scheduler's rule (Dominoes, section 3.2): is it a request that fills the congestion window? */
static bool
fills_window(const struct misd_replica *r, const struct tcp_call *call)
{
    struct tcp_conn_info info;

    return call->op == TCP_CALL_SEND && tcp_info(r->domain, call->id, &info) &&
           info.snd_queued - info.snd_unsent < info.cwnd_bytes;
}

/* Which channel is next, by the heads of both and the replica's state. Returns it, -ENOENT: both are empty, -ESTALE. */
static int
schedule(const struct misd_replica *r)
{
    struct misd_channels *ch = &r->x->channels;
    struct misd_event call;
    uint64_t packet;
    int calls = bcast_peek(ch->b[MISD_CALLS], r->number, &call, sizeof(call));
    int packets = bcast_peek(ch->b[MISD_PACKETS], r->number, &packet, sizeof(packet));

    if (calls < 0 || packets < 0)
        return -ESTALE;
    if (calls == 0)
        return packets > 0 ? MISD_PACKETS : -ENOENT;
    if (packets == 0 || r->taken % CALLS_TURN == 0 || (call.kind == MISD_CALL && fills_window(r, &call.call)))
        return MISD_CALLS;
    return MISD_PACKETS;
}

/* The channel of the next place in the merged order: as whoever came first has decided. */
static int
next_channel(const struct misd_replica *r)
{
    uint64_t *word = &r->x->channels.order[r->taken & (MISD_ORDER - 1)];
    uint64_t place = r->taken + 1;
    /* Pairs with the release below: who sees the decision sees the entry that it was about. */
    uint64_t old = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    int c;

    if (old >> 1 < place) {
        c = schedule(r);
        if (c < 0)
            return c;
        if (__atomic_compare_exchange_n(word, &old, place << 1 | (unsigned)c, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return c;
    }
    /* Further on: the order has come round since this replica was last in it. */
    return old >> 1 == place ? (int)(old & 1) : -ESTALE;
}

static int
take_merged(struct misd_replica *r)
{
    int got = 0;

    while (got < (int)MISD_BURST) {
        int c = next_channel(r);
        uint64_t primary;
        struct bcast *b;
        int n;

        if (c < 0)
            return got > 0 || c == -ENOENT ? got : c;
        b = r->x->channels.b[c];
        n = bcast_dequeue(b, r->number, &r->burst[got], &primary, 1);
        if (n <= 0)
            return got > 0 ? got : n;
        r->origin[got++] = (struct misd_origin){
            .position = bcast_position(b, r->number) - 1,
            .channel = (unsigned)c,
            .primary = primary != 0,
        };
        r->taken++;
    }
    return got;
}

static int
take_single(struct misd_replica *r)
{
    struct bcast *b = r->x->channels.b[MISD_CALLS];
    uint64_t position = bcast_position(b, r->number);
    uint64_t primary;
    int n = bcast_dequeue(b, r->number, r->burst, &primary, MISD_BURST);

    for (int i = 0; i < n; i++)
        r->origin[i] = (struct misd_origin){
            .position = position + (unsigned)i,
            .channel = MISD_CALLS,
            .primary = (primary >> i & 1) != 0,
        };
    if (n > 0)
        r->taken += (unsigned)n;
    return n;
}

/* Nothing is there: say how far this replica has come, so that nobody waits for it. */
static int
release(const struct misd_replica *r)
{
    int rc = 0;

    for (unsigned c = 0; c < r->x->channels.nb && rc == 0; c++)
        rc = bcast_release(r->x->channels.b[c], r->number);
    return rc;
}

/* Returns whether there is something to apply. */
static bool
refill(struct misd_replica *r)
{
    int n;

    if (unlikely(r->stale) && !misd_snapshot_take(r))
        return false;
    r->stale = false;
    n = r->x->channels.nb > 1 ? take_merged(r) : take_single(r);
    if (n == 0)
        n = release(r);
    r->stale = n < 0;
    r->next = 0;
    r->count = n > 0 ? (unsigned)n : 0;
    return n > 0;
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

static void
apply_next(struct misd_replica *r)
{
    const struct misd_origin *o = &r->origin[r->next];
    struct misd_event *ev = &r->burst[r->next++];
    struct tcp_result res = { .rc = 0 };

    r->primary = o->primary;
    r->logging = r->applied >= __atomic_load_n(&r->x->done, __ATOMIC_RELAXED);
    r->env.ctr = o->primary ? net_queue(r->net)->ctr : &r->muted;
    switch ((enum misd_kind)ev->kind) {
    case MISD_CALL:
        apply_call(r, &ev->call, &res);
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
    bool waiting = r->waiting;
    unsigned n = 0;

    prune_log(r);
    while (n < budget && r->log_tail - r->log_head < MISD_LOG_LIMIT) {
        if (r->next == r->count && !refill(r))
            break;
        counter_add(ctr, CTR_MISD_PRIMARY, r->origin[r->next].primary);
        apply_next(r);
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
