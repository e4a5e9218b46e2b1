/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/options.h"
#include "modes/common.h"
#include "modes/modes.h"
#include "sockets/shm.h"

/**
 * @file
 * ConnP-T (Willmann et al., section 3.2): n protocol threads, each pinned to its lcore, each with connections and tables of its own. A packet or call
 * is classified by the tuple's hash, and handed over to the thread whose connection it is by a strict FIFO queue; no connection ever changes threads, so
 * none has a lock. Wildcard listeners stand in every thread's table, thread 0's first; close takes them down in all.
 */

struct connp_t_knobs {
    uint32_t threads;
    int steer;
};

static const struct option_row connp_t_rows[] = {
    { .name = "threads",
      .default_text = "0",
      .type = OPTION_U32,
      .min = 0,
      .max = SHM_MAX_INSTANCES,
      .offset = offsetof(struct connp_t_knobs, threads),
      .help = "Protocol threads; 0 = as many as there are lcores." },
    COMMON_STEER_ROW(struct connp_t_knobs, steer),
};

static int connp_t_plan(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len);

static struct mode *connp_t_create(const struct mode_config *cfg, char *err, size_t err_len);
static void connp_t_packets(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us);

const struct mode_ops mode_connp_t = {
    .name = "connp-t",
    .summary = "connections divided among pinned protocol threads, hand-over by FIFO queues",
    .plan = connp_t_plan,
    .create = connp_t_create,
    .destroy = common_destroy,
    .nb_workers = common_nb_workers,
    .poll = common_poll,
    .packets = connp_t_packets,
    .commands = common_commands,
    .host = common_host,
    .rings_per_instance = common_rings_per_instance,
    .report = common_report_handover,
};

/* threads comes out as their number. */
static int
connp_t_knobs(const struct mode_config *cfg, struct connp_t_knobs *knobs, char *err, size_t err_len)
{
    int rc = mode_knobs(connp_t_rows, RTE_DIM(connp_t_rows), knobs, "connp-t", cfg->knobs, err, err_len);

    return rc != 0 ? rc
                   : common_count_workers(cfg, "connp-t", "threads", SHM_MAX_INSTANCES, &knobs->threads, err, err_len);
}

static int
connp_t_plan(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len)
{
    struct connp_t_knobs knobs = { .threads = 0 };
    int rc = connp_t_knobs(cfg, &knobs, err, err_len);

    pc->nb_queues = (uint16_t)knobs.threads;
    pc->steer = (enum port_steer)knobs.steer;
    return rc;
}

static struct mode *
connp_t_create(const struct mode_config *cfg, char *err, size_t err_len)
{
    struct connp_t_knobs knobs = { .threads = 0 };
    struct mode_shape shape = { .locking = false };

    if (connp_t_knobs(cfg, &knobs, err, err_len) != 0)
        return NULL;
    shape.nb_workers = shape.nb_domains = knobs.threads;
    return common_create(&mode_connp_t, cfg, &shape, err, err_len);
}

static void
connp_t_packets(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    common_packets_owned(m, w, pkts, n, now_us);
}
