/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "core/options.h"
#include "modes/common.h"
#include "modes/modes.h"

/**
 * @file
 * MsgP (Willmann et al., section 3.1): one domain that every worker is inside of at once. Whoever received a packet or read a notification applies it there and
 * then, and locks what it touches: the connection table, then the connection, with the table held while the connection is waited for; the socket's buffers; the route table, then the route. What starts or
 * ends a connection keeps the table's lock to its end. docs/modes.md says what each lock guards, and in which order they are taken.
 */

enum lookup { LOOKUP_TABLE_LOCK, LOOKUP_RCU };

struct msgp_knobs {
    int lookup;
    int steer;
};

static const char *const lookup_choices[] = { "table-lock", "rcu", NULL };

static const struct option_row msgp_rows[] = {
    { .name = "lookup",
      .default_text = "table-lock",
      .type = OPTION_ENUM,
      .choices = lookup_choices,
      .offset = offsetof(struct msgp_knobs, lookup),
      .help = "How an established connection is found: under the connection table's lock, or without." },
    COMMON_STEER_ROW(struct msgp_knobs, steer),
};

static int msgp_plan(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len);
static struct mode *msgp_create(const struct mode_config *cfg, char *err, size_t err_len);
static void msgp_report(const struct mode *m, FILE *out);

const struct mode_ops mode_msgp = {
    .name = "msgp",
    .summary = "one domain for all workers, under locks for table, connection, buffers and routes",
    .calling_thread = true,
    .plan = msgp_plan,
    .create = msgp_create,
    .destroy = common_destroy,
    .nb_workers = common_nb_workers,
    .poll = common_poll,
    .packets = common_packets_one,
    .commands = common_commands,
    .host = common_host,
    .rings_per_instance = common_rings_per_instance,
    .report = msgp_report,
};

/* The port's division only spreads the work of receiving; that a connection's packets come by one queue keeps them in order. */
static int
msgp_plan(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len)
{
    struct msgp_knobs knobs = { .lookup = LOOKUP_TABLE_LOCK };

    pc->nb_queues = (uint16_t)RTE_MIN(cfg->nb_workers, SHM_MAX_INSTANCES);
    if (mode_knobs(msgp_rows, RTE_DIM(msgp_rows), &knobs, "msgp", cfg->knobs, err, err_len) != 0)
        return -errno;
    pc->steer = (enum port_steer)knobs.steer;
    return 0;
}

static struct mode *
msgp_create(const struct mode_config *cfg, char *err, size_t err_len)
{
    struct msgp_knobs knobs = { .lookup = LOOKUP_TABLE_LOCK };
    struct mode_shape shape = {
        .locking = true, .shared = true, .nb_domains = 1, .nb_workers = RTE_MIN(cfg->nb_workers, SHM_MAX_INSTANCES)
    };

    if (mode_knobs(msgp_rows, RTE_DIM(msgp_rows), &knobs, "msgp", cfg->knobs, err, err_len) != 0)
        return NULL;
    shape.free_lookup = knobs.lookup == LOOKUP_RCU;
    return common_create(&mode_msgp, cfg, &shape, err, err_len);
}

/* As in table 1 of the paper: what part of the acquisitions found somebody else holding the lock. */
static void
msgp_report(const struct mode *m, FILE *out)
{
    static const struct {
        const char *name;
        enum counter_id class;
    } locks[] = {
        { "table", CTR_LOCK_TABLE },   { "connection", CTR_LOCK_CONN }, { "socket", CTR_LOCK_SOCKET },
        { "sndbuf", CTR_LOCK_SNDBUF }, { "rcvbuf", CTR_LOCK_RCVBUF },   { "route_table", CTR_LOCK_ROUTES },
        { "route", CTR_LOCK_ROUTE },   { "timers", CTR_LOCK_TIMERS },   { "pools", CTR_LOCK_POOLS },
        { "tx", CTR_LOCK_TX },
    };

    common_report(m, out);
    for (unsigned i = 0; i < RTE_DIM(locks); i++)
        common_report_lock(m, locks[i].name, locks[i].class, out);
}
