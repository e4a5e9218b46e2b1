/* SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <stdlib.h>

#include "core/options.h"
#include "modes/common.h"
#include "modes/modes.h"
#include "sockets/shm.h"

/**
 * @file
 * Hybrid: protocol cores that share nothing, as in IsoStack with several instances, but an instance with little to do takes whole connections from one that is
 * overloaded. In no paper; docs/modes.md shows by it how a mode is added.
 *
 * What is here is when to steal. A worker's load is the mean length of its passes, in packets, calls and timers: a worker with time to spare finds little in each,
 * one without finds what has piled up during the last. A worker with a small load asks the one with the largest if that is beyond the threshold and
 * several times its own; who is overloaded wakes the others. How a connection moves is in sockets/move.c.
 */

/* A request takes at most so many, and there is at most one in so long: the load needs time to follow. */
#define STEAL_MAX 4u
#define STEAL_EVERY_US 2000u
/* The load of who is asked, in multiples of the thief's. Between the two nothing moves: the work would only change sides. */
#define STEAL_RATIO 4u
/* Loads are kept in parts of a unit, and forget half of what was in 11 passes. */
#define LOAD_UNIT 256u
#define LOAD_KEEP 16u

struct hybrid_knobs {
    uint32_t instances;
    bool steal;
    uint32_t threshold;
    int steer;
};

static const struct option_row hybrid_rows[] = {
    { .name = "instances",
      .default_text = "0",
      .type = OPTION_U32,
      .max = SHM_MAX_INSTANCES,
      .offset = offsetof(struct hybrid_knobs, instances),
      .help = "Independent stacks, each on its own core and queue pair; 0 = as many as there are lcores." },
    { .name = "steal",
      .default_text = "on",
      .type = OPTION_BOOL,
      .offset = offsetof(struct hybrid_knobs, steal),
      .help = "Let instances with little to do take connections from overloaded ones." },
    { .name = "threshold",
      .default_text = "16",
      .type = OPTION_U32,
      .min = 1,
      .max = 1024,
      .offset = offsetof(struct hybrid_knobs, threshold),
      .help = "Mean length of a pass, in packets and calls, from which an instance counts as overloaded." },
    COMMON_STEER_ROW(struct hybrid_knobs, steer),
};

/** What a worker says of itself; others read its load. */
struct hybrid_worker {
    uint32_t load; /**< atomic, in 1 / LOAD_UNIT */
    uint64_t next_us; /**< no request, and no waking, before */
} __attribute__((aligned(64)));

struct hybrid {
    bool steal;
    uint32_t threshold; /**< in 1 / LOAD_UNIT */
    struct hybrid_worker worker[SHM_MAX_INSTANCES];
};

static int hybrid_plan(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len);
static struct mode *hybrid_create(const struct mode_config *cfg, char *err, size_t err_len);
static void hybrid_destroy(struct mode *m);
static unsigned hybrid_commands(struct mode *m, unsigned w, uint64_t now_us);
static unsigned hybrid_poll(struct mode *m, unsigned w, uint64_t now_us);
static void hybrid_packets(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us);
static void hybrid_report(const struct mode *m, FILE *out);

const struct mode_ops mode_hybrid = {
    .name = "hybrid",
    .summary = "isolated stacks on cores of their own, that take whole connections from overloaded ones",
    .plan = hybrid_plan,
    .create = hybrid_create,
    .destroy = hybrid_destroy,
    .nb_workers = common_nb_workers,
    .poll = hybrid_poll,
    .packets = hybrid_packets,
    .commands = hybrid_commands,
    .host = common_host,
    .rings_per_instance = common_rings_per_instance,
    .report = hybrid_report,
};

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

/* instances comes out as their number. */
static int
hybrid_knobs(const struct mode_config *cfg, struct hybrid_knobs *knobs, char *err, size_t err_len)
{
    int rc = mode_knobs(hybrid_rows, RTE_DIM(hybrid_rows), knobs, "hybrid", cfg->knobs, err, err_len);

    return rc != 0
               ? rc
               : common_count_workers(cfg, "hybrid", "instances", SHM_MAX_INSTANCES, &knobs->instances, err, err_len);
}

static int
hybrid_plan(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len)
{
    struct hybrid_knobs knobs = { .instances = 0 };
    int rc = hybrid_knobs(cfg, &knobs, err, err_len);

    pc->nb_queues = (uint16_t)knobs.instances;
    pc->steer = (enum port_steer)knobs.steer;
    return rc;
}

static struct mode *
hybrid_create(const struct mode_config *cfg, char *err, size_t err_len)
{
    struct mode_config made = *cfg;
    struct mode_shape shape = { .locking = false };
    struct hybrid_knobs knobs = { .instances = 0 };
    struct hybrid *hy;
    struct mode *m;

    if (hybrid_knobs(cfg, &knobs, err, err_len) != 0)
        return NULL;
    shape.nb_workers = shape.nb_domains = knobs.instances;
    made.stack.tcp.max_moved = knobs.steal && knobs.instances > 1 ? made.stack.tcp.max_conns : 0;
    m = common_create(&mode_hybrid, &made, &shape, err, err_len);
    if (m == NULL)
        return NULL;
    hy = aligned_alloc(64, sizeof(*hy));
    if (hy == NULL) {
        snprintf(err, err_len, "--mode hybrid: out of memory");
        common_destroy(m);
        return NULL;
    }
    *hy = (struct hybrid){ .steal = made.stack.tcp.max_moved != 0, .threshold = knobs.threshold * LOAD_UNIT };
    m->own = hy;
    return m;
}

static void
hybrid_destroy(struct mode *m)
{
    free(m->own);
    common_destroy(m);
}

/* ---- stealing ---------------------------------------------------------------------------------------------------------------- */

static uint32_t
load_of(const struct hybrid *hy, unsigned w)
{
    return __atomic_load_n(&hy->worker[w].load, __ATOMIC_RELAXED);
}

static unsigned
most_loaded(const struct mode *m, const struct hybrid *hy)
{
    unsigned most = 0;

    for (unsigned w = 1; w < m->nb_workers; w++)
        if (load_of(hy, w) > load_of(hy, most))
            most = w;
    return most;
}

/* Who sleeps does not look for work. */
static void
wake_others(struct mode *m, unsigned w)
{
    for (unsigned i = 0; i < m->nb_workers; i++)
        if (i != w)
            net_wake_sleeper(host_net(m->host, i));
}

/* Inside the pass, after packets have been dealt with: the last pass's load is known. */
static void
balance(struct mode *m, unsigned w, uint64_t now_us)
{
    struct hybrid *hy = m->own;
    struct hybrid_worker *own = &hy->worker[w];
    struct stack *s = host_stack(m->host, w);
    unsigned victim;

    stack_sweep_guests(s, now_us);
    if (now_us < own->next_us)
        return;
    own->next_us = now_us + STEAL_EVERY_US;
    if (own->load >= hy->threshold) {
        wake_others(m, w);
        return;
    }
    victim = most_loaded(m, hy);
    if (victim != w && load_of(hy, victim) >= hy->threshold && load_of(hy, victim) >= STEAL_RATIO * own->load)
        stack_steal(s, victim, STEAL_MAX);
}

static unsigned
hybrid_commands(struct mode *m, unsigned w, uint64_t now_us)
{
    const struct hybrid *hy = m->own;
    unsigned n = common_commands(m, w, now_us);

    if (hy->steal)
        balance(m, w, now_us);
    return n;
}

static unsigned
hybrid_poll(struct mode *m, unsigned w, uint64_t now_us)
{
    struct hybrid *hy = m->own;
    struct hybrid_worker *own = &hy->worker[w];
    unsigned n = common_poll(m, w, now_us);

    __atomic_store_n(&own->load, own->load - own->load / LOAD_KEEP + n * (LOAD_UNIT / LOAD_KEEP), __ATOMIC_RELAXED);
    return n;
}

static void
hybrid_packets(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    unsigned passed_on = common_packets_owned(m, w, pkts, n, now_us);

    counter_add(m->ctr[w], CTR_MISROUTED, passed_on);
}

/* ---- report -------------------------------------------------------------------------------------------------------------------- */

static void
hybrid_report(const struct mode *m, FILE *out)
{
    const struct hybrid *hy = m->own;

    common_report_handover(m, out);
    fprintf(out, "misrouted %" PRIu64 "\nredirected %" PRIu64 "\n", common_sum(m, CTR_MISROUTED),
            common_sum(m, CTR_REDIRECTED));
    fprintf(out, "steals %" PRIu64 "\nmoved_connections %" PRIu64 "\nrefused_connections %" PRIu64 "\n",
            common_sum(m, CTR_STEALS), common_sum(m, CTR_MOVE_IN), common_sum(m, CTR_MOVE_REFUSED));
    for (unsigned w = 0; w < m->nb_workers; w++)
        fprintf(out, "worker%u_load %.1f\n", w, (double)load_of(hy, w) / LOAD_UNIT);
}
