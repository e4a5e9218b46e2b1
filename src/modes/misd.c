/* SPDX-License-Identifier: BSD-3-Clause */
#include "modes/misd.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>

#include "core/log.h"
#include "core/options.h"
#include "modes/modes.h"

/**
 * @file
 * Replicated work (Dominoes): one domain exists n times, and every event is broadcast to all replicas, which apply it, each to its own copy. The
 * replica that takes an event first is its primary and sends what has to be sent: building segments, checksums, copies. The others only compute.
 *
 * The sockets exist once. One thread at a time is the *front*: it receives, serves the applications' calls, turns both into events, and applies
 * effects to the sockets in the order of events, from the log of its own replica. Any worker can be the front, who holds the pass lock of net 0: worker 0
 * is, unless it has not been for LEASE_US. So nothing waits for a worker that stands still; its replica is passed over when it
 * keeps a channel full, and rolls forward from a snapshot when it runs again.
 *
 *   net 0                 the front's: receive queue, ARP and ICMP, the applications' rings
 *   nets 1 .. n - 1, n    what replicas 1 .. n - 1 and 0 send with
 */

#define LEASE_US 1000u
#define RUN_BUDGET 256u
#define NOTIFICATION_BUDGET 256u
/** Events that one notification causes at most: bytes taken, bytes sent, two commands, and what commands make of neighbours and accept queues. */
#define EVENTS_PER_NOTIFICATION 8u
/** Packets are received with so much room: a burst, and what came by way of other workers; some are of several buffers. */
#define RECEIVE_ROOM 512u
#define CHECK_EVENTS 1024u
/** Looks for room, once there is none, before a replica that lags is passed over without regard to patience. */
#define LOOKS_FOR_ROOM 1000u

struct misd_knobs {
    uint32_t replicas;
    int channels;
    int scheme;
    bool check;
    uint32_t patience_us;
};

static const char *const channels_choices[] = { "one", "two", NULL };
static const char *const scheme_choices[] = { "refcount", "claim", NULL };
static_assert(BCAST_REFCOUNT == 0 && BCAST_CLAIM == 1, "choices are in the order of enum bcast_scheme");

static const struct option_row misd_rows[] = {
    { .name = "replicas",
      .default_text = "0",
      .type = OPTION_U32,
      .min = 0,
      .max = MISD_REPLICAS_MAX,
      .offset = offsetof(struct misd_knobs, replicas),
      .help = "Replicas of the domain, each on its own lcore; 0 = as many as there are lcores." },
    { .name = "channels",
      .default_text = "one",
      .type = OPTION_ENUM,
      .choices = channels_choices,
      .offset = offsetof(struct misd_knobs, channels),
      .help = "One channel for all events, or one for packets and one for calls with a scheduler between them." },
    { .name = "scheme",
      .default_text = "claim",
      .type = OPTION_ENUM,
      .choices = scheme_choices,
      .offset = offsetof(struct misd_knobs, scheme),
      .help = "How a channel tells who is first and who is last; refcount cannot pass over a replica." },
    { .name = "check",
      .default_text = "off",
      .type = OPTION_BOOL,
      .offset = offsetof(struct misd_knobs, check),
      .help = "Compare the replicas every 1024 events." },
    { .name = "patience",
      .default_text = "10000",
      .type = OPTION_U32,
      .min = 100,
      .max = 10000000,
      .offset = offsetof(struct misd_knobs, patience_us),
      .help = "Microseconds that a replica may stand still while it keeps a channel full." },
};

static struct mode *misd_create(const struct mode_config *cfg, char *err, size_t err_len);
static void misd_destroy(struct mode *m);
static unsigned misd_nb_workers(const struct mode *m);
static unsigned misd_poll(struct mode *m, unsigned w, uint64_t now_us);
static void misd_report(const struct mode *m, FILE *out);

const struct mode_ops mode_misd = {
    .name = "misd",
    .summary = "replicas of one domain, events broadcast to all; the first to take one does the work per byte",
    .plan = common_plan_one,
    .create = misd_create,
    .destroy = misd_destroy,
    .nb_workers = misd_nb_workers,
    .poll = misd_poll,
    .packets = common_packets_one,
    .commands = common_commands,
    .host = common_host,
    .rings_per_instance = common_rings_per_instance,
    .report = misd_report,
};

/* ---- making room --------------------------------------------------------------------------------------------------------------- */

static struct net *
front_net(const struct misd *x)
{
    return host_net(x->host, 0);
}

static void
pass_over(struct misd *x, unsigned c, unsigned replica)
{
    struct bcast_range held;

    /* What it is primary of stays its own: it sends that when it runs again, or it counts as lost on the way. */
    if (bcast_expel(x->channels.b[c], replica, &held) != 0)
        return;
    bcast_let_go(x->channels.b[c], replica);
    counter_inc(net_queue(front_net(x))->ctr, CTR_MISD_PASSED_OVER);
}

/* A replica that is the last in a channel without room, and has not moved for `patience`, is waited for no more. */
static void
watch_lag(struct misd *x, uint64_t now_us)
{
    for (unsigned c = 0; c < x->channels.nb; c++) {
        uint64_t lagging = bcast_lagging(x->channels.b[c], MISD_WINDOW);
        bool full = misd_room(&x->channels) < MISD_ENTRIES / 4;

        for (unsigned i = 0; i < x->nb_replicas; i++) {
            struct misd_replica *r = x->replica[i];
            struct bcast_replica_stats st;

            bcast_get_replica_stats(x->channels.b[c], i, &st);
            if (st.head != r->seen[c].head || !full) {
                r->seen[c].head = st.head;
                r->seen[c].since_us = now_us;
            } else if ((lagging >> i & 1) && i != x->front && now_us - r->seen[c].since_us >= x->patience_us) {
                pass_over(x, c, i);
            }
            if (st.lag > MISD_WINDOW / 2)
                net_ring(front_net(x), i);
        }
    }
}

static unsigned
run_front(struct misd *x, unsigned budget)
{
    struct misd_replica *r = x->replica[x->front];

    return misd_replica_run(r, budget) + misd_replica_drain(r);
}

/* With the world stopped nobody else can run the others. Returns how much they did. */
static unsigned
run_all(struct misd *x)
{
    unsigned n = misd_put_backlog(&x->channels) + run_front(x, UINT32_MAX);

    for (unsigned i = 0; i < x->nb_replicas; i++)
        if (i != x->front)
            n += misd_replica_run(x->replica[i], UINT32_MAX);
    return n;
}

/* ---- the relay: engine calls of the sockets ------------------------------------------------------------------------------- */

static void
compare_replicas(struct misd *x)
{
    struct misd_event ev = { .kind = MISD_CHECK, .check = ++x->nb_checks };

    if (!misd_put(&x->channels, misd_channel_of(&x->channels, &ev), &ev))
        counter_inc(net_queue(front_net(x))->ctr, CTR_MISD_DROP);
}

static void
count_posted(struct misd *x)
{
    counter_inc(net_queue(front_net(x))->ctr, CTR_MISD_POSTED);
    if (++x->posted % CHECK_EVENTS == 0 && x->check)
        compare_replicas(x);
}

/* Returns false if it was dropped. */
static bool
post_event(struct misd *x, const struct misd_event *ev)
{
    struct counters *ctr = net_queue(front_net(x))->ctr;
    unsigned c = misd_channel_of(&x->channels, ev);
    bool ok = misd_put(&x->channels, c, ev);

    if (!ok)
        counter_inc(ctr, CTR_MISD_DROP);
    if (x->channels.backlog[c].n > 0)
        counter_inc(ctr, CTR_MISD_FULL);
    count_posted(x);
    return ok;
}

static void
on_post(void *ctx, const struct tcp_call *call)
{
    const struct misd_event ev = { .call = *call, .kind = MISD_CALL };

    post_event(ctx, &ev);
}

static void
on_segment(void *ctx, const struct tcp_call *call, const struct ip_packet *p)
{
    struct misd *x = ctx;
    const struct misd_event ev = {
        .call = *call,
        .kind = MISD_CALL,
        .csum_off = (uint16_t)(p->m->data_off + p->l4_off),
        .csum_len = p->l4_csum_good ? 0 : p->l4_len,
    };

    if (!post_event(x, &ev))
        rte_pktmbuf_free(pktpool_mbuf(host_pool(x->host), call->in.data.buf));
}

/* There was room when the front began to serve calls, so this waits only where one makes very many events, or with the world stopped. */
static void
wait_for_room(struct misd *x, unsigned looks)
{
    if (host_is_stopped(x->host)) {
        run_all(x);
        return;
    }
    misd_put_backlog(&x->channels);
    run_front(x, RUN_BUDGET);
    sched_yield();
    for (unsigned c = 0; looks >= LOOKS_FOR_ROOM && c < x->channels.nb; c++)
        for (unsigned i = 0; i < x->nb_replicas; i++)
            if (i != x->front && (bcast_lagging(x->channels.b[c], MISD_WINDOW) >> i & 1))
                pass_over(x, c, i);
}

static void
on_run(void *ctx, const struct tcp_call *call, struct tcp_result *res)
{
    struct misd *x = ctx;
    struct misd_replica *r = x->replica[x->front];
    struct misd_event ev = { .call = *call, .kind = MISD_CALL };

    r->waiting_channel = misd_channel_of(&x->channels, &ev);
    for (unsigned looks = 0; !misd_try_put(&x->channels, r->waiting_channel, &ev, &r->waiting_position); looks++)
        wait_for_room(x, looks);
    r->waiting = true;
    while (r->waiting)
        run_front(x, UINT32_MAX);
    *res = r->result;
    count_posted(x);
}

/* ---- the front ----------------------------------------------------------------------------------------------------------------- */

/* Has this thread's replica all that the sockets have seen, and a log of all that they have not? */
static bool
is_fit(const struct misd *x, const struct misd_replica *r)
{
    return !r->stale && r->log_from <= x->done && r->applied >= x->done;
}

/* Nobody else is the front then. */
static bool
front_enter(struct misd *x, const struct misd_replica *r, uint64_t now_us)
{
    uint64_t at_us = __atomic_load_n(&x->front_at_us, __ATOMIC_RELAXED);

    if (r->number != 0 && now_us < at_us + LEASE_US)
        return false;
    if (!net_try_begin(front_net(x)))
        return false;
    if (!is_fit(x, r)) {
        net_leave(front_net(x));
        return false;
    }
    if (x->front != r->number)
        counter_inc(net_queue(front_net(x))->ctr, CTR_MISD_FRONT_MOVED);
    x->front = r->number;
    __atomic_store_n(&x->front_at_us, now_us, __ATOMIC_RELAXED);
    stack_look_at(x->stack, r->domain);
    stack_enter(x->stack, front_net(x), now_us);
    return true;
}

static unsigned
receive(struct mode *m, struct misd *x, uint64_t now_us)
{
    struct ip_packet pkts[2 * PORT_BURST];
    struct net *net = front_net(x);
    uint64_t frames = net_queue(net)->ctr->v[CTR_PORT_RX_PKTS];
    uint16_t n = net_receive(net, pkts, now_us);

    if (n > 0)
        common_packets_one(m, 0, pkts, n, now_us);
    frames = net_queue(net)->ctr->v[CTR_PORT_RX_PKTS] - frames;
    return n + (unsigned)frames + net_handed(net, now_us);
}

static unsigned
front_pass(struct mode *m, struct misd *x, uint64_t now_us)
{
    unsigned n = misd_put_backlog(&x->channels) + misd_replica_drain(x->replica[x->front]);

    /* Without room frames wait in the port's queue, and calls in the applications' rings. */
    if (misd_room(&x->channels) >= RECEIVE_ROOM)
        n += receive(m, x, now_us);
    n += net_commands(front_net(x), RTE_MIN(misd_room(&x->channels) / EVENTS_PER_NOTIFICATION, NOTIFICATION_BUDGET),
                      now_us);
    n += net_timers(front_net(x), now_us);
    /* Others are the first to take what was posted here: this thread has enough to do, and its own replica runs in its next pass. */
    if (x->nb_replicas == 1)
        n += run_front(x, RUN_BUDGET);
    watch_lag(x, now_us);
    return n;
}

static unsigned
misd_poll(struct mode *m, unsigned w, uint64_t now_us)
{
    struct misd *x = m->own;
    struct misd_replica *r = x->replica[w];
    unsigned n;
    bool front;

    net_begin(r->net);
    n = net_handed(r->net, now_us) + net_timers(r->net, now_us) + net_pass_on(r->net, 0, now_us);
    n += misd_replica_run(r, RUN_BUDGET);
    front = front_enter(x, r, now_us);
    if (front)
        n += front_pass(m, x, now_us);
    /* The front's last: it may stop the world, for which this thread must not be inside any pass. */
    n += net_end(r->net, now_us);
    if (front)
        n += net_end(front_net(x), now_us);
    /* Somebody else is in the front's place; what there is to do there is not known. */
    else if (w == 0)
        n++;
    return n;
}

/* ---- report ------------------------------------------------------------------------------------------------------------------------ */

static const char *
state_name(const struct misd *x, unsigned replica)
{
    return misd_is_out(&x->channels, replica) ? "out" : "in";
}

static void
report_replica(const struct misd *x, unsigned i, FILE *out)
{
    struct bcast_replica_stats st;
    uint64_t lag = 0, dequeued = 0, primary = 0;

    for (unsigned c = 0; c < x->channels.nb; c++) {
        bcast_get_replica_stats(x->channels.b[c], i, &st);
        lag += st.lag;
        dequeued += st.dequeued;
        primary += st.primary;
    }
    fprintf(out, "replica%u_state %s\nreplica%u_lag %" PRIu64 "\n", i, state_name(x, i), i, lag);
    fprintf(out, "replica%u_taken %" PRIu64 "\nreplica%u_primary %" PRIu64 "\n", i, dequeued, i, primary);
}

static void
misd_report(const struct mode *m, FILE *out)
{
    const struct misd *x = m->own;

    common_report(m, out);
    fprintf(out, "replicas %u\nchannels %u\n", x->nb_replicas, x->channels.nb);
    fprintf(out, "events %" PRIu64 "\nchannel_full %" PRIu64 "\nfront_moved %" PRIu64 "\n",
            common_sum(m, CTR_MISD_POSTED), common_sum(m, CTR_MISD_FULL), common_sum(m, CTR_MISD_FRONT_MOVED));
    fprintf(out, "passed_over %" PRIu64 "\nsnapshots %" PRIu64 "\nrolled_forward %" PRIu64 "\n",
            common_sum(m, CTR_MISD_PASSED_OVER), common_sum(m, CTR_MISD_SNAPSHOTS),
            common_sum(m, CTR_MISD_ROLLED_FORWARD));
    fprintf(out, "checks %" PRIu64 "\nmismatches %" PRIu64 "\n", common_sum(m, CTR_MISD_CHECKS),
            common_sum(m, CTR_MISD_MISMATCHES));
    for (unsigned i = 0; i < x->nb_replicas; i++)
        report_replica(x, i, out);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------------------- */

static unsigned
misd_nb_workers(const struct mode *m)
{
    const struct misd *x = m->own;

    return x->nb_replicas;
}

static int
misd_init(struct mode *m, const struct misd_knobs *knobs, unsigned replicas)
{
    struct misd *x = calloc(1, sizeof(*x));

    if (x == NULL)
        return -ENOMEM;
    m->own = x;
    x->host = m->host;
    x->stack = host_stack(m->host, 0);
    x->check = knobs->check;
    x->patience_us = knobs->patience_us;
    rte_spinlock_init(&x->snapshot.lock);
    x->snapshot.domain = stack_domain_create(x->stack);
    if (x->snapshot.domain == NULL ||
        misd_channels_init(&x->channels, knobs->channels == 0 ? 1 : 2, (enum bcast_scheme)knobs->scheme, replicas) != 0)
        return -ENOMEM;
    for (unsigned i = 0; i < replicas; i++) {
        x->replica[i] = aligned_alloc(64, RTE_ALIGN_CEIL(sizeof(*x->replica[i]), (size_t)64));
        if (x->replica[i] == NULL)
            return -ENOMEM;
        memset(x->replica[i], 0, sizeof(*x->replica[i]));
        x->nb_replicas++;
        if (misd_replica_init(x->replica[i], x, i, host_net(m->host, i == 0 ? replicas : i)) != 0)
            return -ENOMEM;
    }
    x->relay = (struct relay){ .ctx = x, .post = on_post, .segment = on_segment, .run = on_run };
    stack_set_relay(x->stack, &x->relay);
    return 0;
}

static struct mode *
misd_create(const struct mode_config *cfg, char *err, size_t err_len)
{
    struct misd_knobs knobs = { .replicas = 0 };
    struct mode_shape shape = { .nb_domains = 1 };
    struct mode_config made = *cfg;
    struct mode *m;
    unsigned n;

    if (mode_knobs(misd_rows, RTE_DIM(misd_rows), &knobs, "misd", cfg->knobs, err, err_len) != 0)
        return NULL;
    if (common_count_workers(cfg, "misd", "replicas", MISD_REPLICAS_MAX, &knobs.replicas, err, err_len) != 0)
        return NULL;
    n = knobs.replicas;
    shape.nb_workers = n + 1; /* nets: one for each replica, and the front's */
    made.stack.ip.csum_later = n > 1;
    m = common_create(&mode_misd, &made, &shape, err, err_len);
    if (m != NULL && misd_init(m, &knobs, n) != 0) {
        snprintf(err, err_len, "--mode misd: no memory for %u replicas of %u connections", n, cfg->stack.tcp.max_conns);
        misd_destroy(m);
        m = NULL;
    }
    return m;
}

static void
misd_destroy(struct mode *m)
{
    struct misd *x = m->own;

    if (x != NULL && x->stack != NULL && x->relay.ctx != NULL) {
        /* Buffers belong to the sockets' side of events: those under way must arrive there. */
        stack_enter(x->stack, front_net(x), x->front_at_us);
        while (run_all(x) > 0)
            ;
        stack_look_at(x->stack, x->replica[0]->domain);
        stack_set_relay(x->stack, NULL);
    }
    for (unsigned i = 0; x != NULL && i < x->nb_replicas; i++) {
        misd_replica_fini(x->replica[i]);
        free(x->replica[i]);
    }
    if (x != NULL) {
        if (x->snapshot.domain != NULL)
            stack_domain_destroy(x->stack, x->snapshot.domain);
        misd_channels_fini(&x->channels);
    }
    common_destroy(m);
    free(x);
}
