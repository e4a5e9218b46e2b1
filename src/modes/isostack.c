/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>

#include "core/options.h"
#include "modes/modes.h"
#include "modes/common.h"
#include "sockets/shm.h"

/**
 * @file
 * IsoStack (Shalev et al.): a domain on a dedicated core that shares nothing with the applications' cores but message queues.
 * aggregate=on is Iso-Aggregated, aggregate=off is Iso-Basic, locks=on is Iso-Lock. queues=percpu is the paper's choice (section 4.1);
 * instances=n is its future work (section 8): stacks that share nothing, each on its own core. Connections belong to the instance that their
 * tuple hashes to; what the port steers elsewhere is passed on and counted (soft-RSS).
 * perthread gives up its bound on the number of queues for rings that see no second producer.
 */

struct iso_knobs {
    int queues;
    bool aggregate;
    bool locks;
    uint32_t instances;
    int steer;
};

enum { QUEUES_PERCPU, QUEUES_PERTHREAD };
static const char *const queues_choices[] = { "percpu", "perthread", NULL };

static const struct option_row iso_rows[] = {
    { .name = "queues",
      .default_text = "percpu",
      .type = OPTION_ENUM,
      .choices = queues_choices,
      .offset = offsetof(struct iso_knobs, queues),
      .help = "What a notification ring belongs to." },
    { .name = "aggregate",
      .default_text = "on",
      .type = OPTION_BOOL,
      .offset = offsetof(struct iso_knobs, aggregate),
      .help = "Let sends pile up while earlier ones are pending (Iso-Aggregated; off: Iso-Basic)." },
    { .name = "locks",
      .default_text = "off",
      .type = OPTION_BOOL,
      .offset = offsetof(struct iso_knobs, locks),
      .help = "Take the redundant, uncontended locks of Iso-Lock." },
    { .name = "instances",
      .default_text = "1",
      .type = OPTION_U32,
      .min = 1,
      .max = SHM_MAX_INSTANCES,
      .offset = offsetof(struct iso_knobs, instances),
      .help = "Independent stacks, each on its own core and queue pair." },
    COMMON_STEER_ROW(struct iso_knobs, steer),
};

static int iso_plan(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len);

static struct mode *iso_create(const struct mode_config *cfg, char *err, size_t err_len);
static void iso_packets(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us);
static void iso_report(const struct mode *m, FILE *out);

const struct mode_ops mode_isostack = {
    .name = "isostack",
    .summary = "a stack isolated on its own core, notification rings for each CPU, aggregation on both sides",
    .plan = iso_plan,
    .create = iso_create,
    .destroy = common_destroy,
    .nb_workers = common_nb_workers,
    .poll = common_poll,
    .packets = iso_packets,
    .commands = common_commands,
    .host = common_host,
    .rings_per_instance = common_rings_per_instance,
    .report = iso_report,
};

static void
iso_packets(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    unsigned passed_on = common_packets_owned(m, w, pkts, n, now_us);

    counter_add(m->ctr[w], CTR_MISROUTED, passed_on);
}

static void
iso_report(const struct mode *m, FILE *out)
{
    common_report_handover(m, out);
    fprintf(out, "misrouted %" PRIu64 "\n", common_sum(m, CTR_MISROUTED));
}

static int
iso_knobs(const struct mode_config *cfg, struct iso_knobs *knobs, char *err, size_t err_len)
{
    int rc = mode_knobs(iso_rows, RTE_DIM(iso_rows), knobs, "isostack", cfg->knobs, err, err_len);

    if (rc != 0 || knobs->instances <= cfg->nb_workers)
        return rc;
    snprintf(err, err_len, "--mode isostack: instances=%u: allowed are 1 to %u, the number of lcores (-l)",
             knobs->instances, cfg->nb_workers);
    errno = EINVAL;
    return -EINVAL;
}

static int
iso_plan(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len)
{
    struct iso_knobs knobs = { .instances = 0 };
    int rc = iso_knobs(cfg, &knobs, err, err_len);

    pc->nb_queues = (uint16_t)knobs.instances;
    pc->steer = (enum port_steer)knobs.steer;
    return rc;
}

static struct mode *
iso_create(const struct mode_config *cfg, char *err, size_t err_len)
{
    struct mode_config made = *cfg;
    struct mode_shape shape = { .locking = false };
    struct iso_knobs knobs = { .instances = 0 };
    bool perthread;

    if (iso_knobs(cfg, &knobs, err, err_len) != 0)
        return NULL;
    shape.nb_workers = shape.nb_domains = knobs.instances;
    perthread = knobs.queues == QUEUES_PERTHREAD;
    made.stack.aggregate = knobs.aggregate;
    made.stack.locks = knobs.locks;
    made.stack.thread_rings = perthread;
    shape.rings_per_instance = perthread ? SHM_MAX_CPUS : 0;
    return common_create(&mode_isostack, &made, &shape, err, err_len);
}
