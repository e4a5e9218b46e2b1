/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/options.h"
#include "modes/modes.h"
#include "modes/common.h"

/**
 * @file
 * UP (Willmann et al., section 2): one worker, one domain, and one ring for each application, as on a uniprocessor, where
 * a queue for each CPU would be one queue.
 */

struct up_knobs {
    bool aggregate;
};

static const struct option_row up_rows[] = {
    { .name = "aggregate",
      .default_text = "on",
      .type = OPTION_BOOL,
      .offset = offsetof(struct up_knobs, aggregate),
      .help = "Let sends pile up while earlier ones are pending." },
};

static struct mode *up_create(const struct mode_config *cfg, char *err, size_t err_len);

const struct mode_ops mode_up = {
    .name = "up",
    .summary = "one worker, one domain, one notification ring for each application",
    .calling_thread = true,
    .plan = common_plan_one,
    .create = up_create,
    .destroy = common_destroy,
    .nb_workers = common_nb_workers,
    .poll = common_poll,
    .packets = common_packets_one,
    .commands = common_commands,
    .host = common_host,
    .rings_per_instance = common_rings_per_instance,
    .report = common_report,
};

static struct mode *
up_create(const struct mode_config *cfg, char *err, size_t err_len)
{
    struct mode_config made = *cfg;
    const struct mode_shape shape = { .nb_workers = 1, .nb_domains = 1, .rings_per_instance = 1 };
    struct up_knobs knobs = { .aggregate = false };

    if (mode_knobs(up_rows, RTE_DIM(up_rows), &knobs, "up", cfg->knobs, err, err_len) != 0)
        return NULL;
    made.stack.aggregate = knobs.aggregate;
    made.stack.thread_rings = false;
    made.stack.locks = false;
    return common_create(&mode_up, &made, &shape, err, err_len);
}
