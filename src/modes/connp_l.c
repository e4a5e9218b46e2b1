/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>

#include "core/options.h"
#include "modes/common.h"
#include "modes/modes.h"

/**
 * @file
 * ConnP-L (Willmann et al., section 3.3): connections fall into groups by a hash of their tuple, and a group's lock is all that keeps its connections
 * serial. The worker that received a packet, or read a notification, takes the lock, applies, and gives it back; no event changes threads. What
 * concerns every group (bind, listen, their end) takes every lock, in order.
 */

struct connp_l_knobs {
    uint32_t groups;
    bool batch;
    int steer;
};

static const struct option_row connp_l_rows[] = {
    { .name = "groups",
      .default_text = "128",
      .type = OPTION_U32,
      .min = 1,
      .max = 1024,
      .offset = offsetof(struct connp_l_knobs, groups),
      .help = "Connection groups, each with a lock of its own." },
    { .name = "batch",
      .default_text = "on",
      .type = OPTION_BOOL,
      .offset = offsetof(struct connp_l_knobs, batch),
      .help = "Apply a group's packets of a burst under one acquisition of its lock; off, as the paper: one for each "
              "packet." },
    COMMON_STEER_ROW(struct connp_l_knobs, steer),
};

static int connp_l_plan(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len);

static struct mode *connp_l_create(const struct mode_config *cfg, char *err, size_t err_len);
static void connp_l_destroy(struct mode *m);
static void connp_l_packets(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us);
static void connp_l_report(const struct mode *m, FILE *out);

const struct mode_ops mode_connp_l = {
    .name = "connp-l",
    .summary = "groups of connections, each under its own lock; whoever has a packet or a call applies it",
    .calling_thread = true,
    .plan = connp_l_plan,
    .create = connp_l_create,
    .destroy = connp_l_destroy,
    .nb_workers = common_nb_workers,
    .poll = common_poll,
    .packets = connp_l_packets,
    .commands = common_commands,
    .host = common_host,
    .rings_per_instance = common_rings_per_instance,
    .report = connp_l_report,
};

/* Any worker can apply any packet: the port's division only spreads the work of receiving. */
static int
connp_l_plan(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len)
{
    struct connp_l_knobs knobs = { .groups = 0 };

    pc->nb_queues = (uint16_t)RTE_MIN(cfg->nb_workers, SHM_MAX_INSTANCES);
    if (mode_knobs(connp_l_rows, RTE_DIM(connp_l_rows), &knobs, "connp-l", cfg->knobs, err, err_len) != 0)
        return -errno;
    pc->steer = (enum port_steer)knobs.steer;
    return 0;
}

static struct mode *
connp_l_create(const struct mode_config *cfg, char *err, size_t err_len)
{
    struct connp_l_knobs *knobs = calloc(1, sizeof(*knobs));
    struct mode_shape shape = { .locking = true, .nb_workers = RTE_MIN(cfg->nb_workers, SHM_MAX_INSTANCES) };
    struct mode *m = NULL;

    if (knobs == NULL) {
        snprintf(err, err_len, "--mode connp-l: out of memory");
        return NULL;
    }
    if (mode_knobs(connp_l_rows, RTE_DIM(connp_l_rows), knobs, "connp-l", cfg->knobs, err, err_len) == 0) {
        shape.nb_domains = knobs->groups;
        m = common_create(&mode_connp_l, cfg, &shape, err, err_len);
    }
    if (m == NULL)
        free(knobs);
    else
        m->own = knobs;
    return m;
}

static void
connp_l_destroy(struct mode *m)
{
    free(m->own);
    common_destroy(m);
}

static void
apply(struct mode *m, struct net *net, unsigned group, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    struct stack *s = host_stack(m->host, group);

    stack_enter(s, net, now_us);
    stack_segments(s, pkts, n);
    stack_leave(s);
}

/* The packets of a group in one burst are applied, in their order, under one acquisition of its lock. */
static void
apply_batched(struct mode *m, struct net *net, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    struct ip_packet same[2 * PORT_BURST];
    uint16_t group[2 * PORT_BURST];

    for (uint16_t i = 0; i < n; i++)
        group[i] = (uint16_t)host_classify(m->host, &pkts[i]);
    while (n > 0) {
        uint16_t of_group = group[0], count = 0, rest = 0;

        for (uint16_t i = 0; i < n; i++) {
            if (group[i] == of_group) {
                same[count++] = pkts[i];
            } else {
                group[rest] = group[i];
                pkts[rest++] = pkts[i];
            }
        }
        apply(m, net, of_group, same, count, now_us);
        n = rest;
    }
}

static void
connp_l_packets(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    const struct connp_l_knobs *knobs = m->own;
    struct net *net = host_net(m->host, w);

    if (knobs->batch)
        apply_batched(m, net, pkts, n, now_us);
    else
        for (uint16_t i = 0; i < n; i++)
            apply(m, net, host_classify(m->host, &pkts[i]), &pkts[i], 1, now_us);
}

static void
connp_l_report(const struct mode *m, FILE *out)
{
    common_report(m, out);
    common_report_lock(m, "group", CTR_LOCK_GROUP, out);
}
