/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "core/options.h"
#include "modes/modes.h"
#include "modes/single.h"
#include "sockets/shm.h"

/**
 * @file
 * IsoStack (Shalev et al.): a domain on a dedicated core that shares nothing with the applications' cores but message queues.
 * aggregate=on is Iso-Aggregated, aggregate=off is Iso-Basic, locks=on is Iso-Lock. queues=percpu is the paper's choice (section 4.1);
 * perthread gives up its bound on the number of queues for rings that see no second producer.
 */

struct iso_knobs {
    int queues;
    bool aggregate;
    bool locks;
    uint32_t instances;
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
};

static struct mode *iso_create(const struct mode_config *cfg, char *err, size_t err_len);

const struct mode_ops mode_isostack = {
    .name = "isostack",
    .summary = "a stack isolated on its own core, notification rings for each CPU, aggregation on both sides",
    .create = iso_create,
    .destroy = single_destroy,
    .nb_workers = single_nb_workers,
    .poll = single_poll,
    .packets = single_packets,
    .commands = single_commands,
    .stack = single_stack,
    .rings_per_instance = single_rings_per_instance,
    .report = single_report,
};

static struct mode *
iso_create(const struct mode_config *cfg, char *err, size_t err_len)
{
    struct mode_config made = *cfg;
    struct iso_knobs knobs = { .instances = 0 };
    bool perthread;

    if (mode_knobs(iso_rows, RTE_DIM(iso_rows), &knobs, "isostack", cfg->knobs, err, err_len) != 0)
        return NULL;
    /* A listener on several instances needs packets steered by the same hash that the sockets are spread by. */
    if (knobs.instances > 1) {
        snprintf(err, err_len, "--mode isostack: instances=%u: only 1 is available", knobs.instances);
        errno = EINVAL;
        return NULL;
    }
    perthread = knobs.queues == QUEUES_PERTHREAD;
    made.stack.instance = 0;
    made.stack.aggregate = knobs.aggregate;
    made.stack.locks = knobs.locks;
    made.stack.thread_rings = perthread;
    return single_create(&mode_isostack, &made, perthread ? SHM_MAX_CPUS : 0, err, err_len);
}
