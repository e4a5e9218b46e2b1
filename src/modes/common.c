/* SPDX-License-Identifier: BSD-3-Clause */
#include "modes/common.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COMMAND_BUDGET 256u

static bool
counters_create(struct mode *m, uint8_t stack)
{
    for (unsigned w = 0; w < m->nb_workers; w++) {
        char name[COUNTERS_NAME_LEN];

        m->ctr[w] = aligned_alloc(64, sizeof(*m->ctr[w]));
        if (m->ctr[w] == NULL)
            return false;
        memset(m->ctr[w], 0, sizeof(*m->ctr[w]));
        if (stack == 0)
            snprintf(name, sizeof(name), "worker%u", w);
        else
            snprintf(name, sizeof(name), "stack%u.worker%u", stack, w);
        counters_register(name, m->ctr[w]);
    }
    return true;
}

const char *const common_steer_choices[] = { "auto", "rss", "flow", "port", "soft", NULL };

int
common_count_workers(const struct mode_config *cfg, const char *mode, const char *knob, unsigned most, uint32_t *n,
                     char *err, size_t err_len)
{
    const unsigned lcores = RTE_MIN(cfg->nb_workers, most);

    if (*n > lcores) {
        snprintf(err, err_len, "--mode %s: %s=%u: allowed are 1 to %u, the number of lcores (-l), or 0 for all", mode,
                 knob, *n, lcores);
        errno = EINVAL;
        return -EINVAL;
    }
    if (*n == 0)
        *n = lcores;
    return 0;
}

int
common_plan_one(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len)
{
    (void)cfg;
    (void)err;
    (void)err_len;
    pc->nb_queues = 1;
    pc->steer = PORT_STEER_SOFT;
    return 0;
}

struct mode *
common_create(const struct mode_ops *ops, const struct mode_config *cfg, const struct mode_shape *shape, char *err,
              size_t err_len)
{
    struct mode *m = calloc(1, sizeof(*m));
    struct host_config hc = {
        .stack = cfg->stack,
        .port = cfg->port,
        .pool = cfg->pool,
        .nb_nets = shape->nb_workers,
        .nb_stacks = shape->nb_domains,
        .locking = shape->locking,
        .shared = shape->shared,
        .free_lookup = shape->free_lookup,
    };

    if (m == NULL) {
        snprintf(err, err_len, "--mode %s: out of memory", ops->name);
        return NULL;
    }
    m->ops = ops;
    m->nb_workers = shape->nb_workers;
    m->rings_per_instance = shape->rings_per_instance;
    if (counters_create(m, cfg->number)) {
        hc.ctr = m->ctr;
        m->host = host_create(&hc);
    }
    if (m->host == NULL) {
        snprintf(err, err_len, "--mode %s: no memory for %u domains of %u connections in all", ops->name,
                 shape->nb_domains, cfg->stack.tcp.max_conns);
        common_destroy(m);
        return NULL;
    }
    /* A packet that is handed over, and what is published in a locked domain at once, must be whole. */
    net_queue(host_net(m->host, 0))->rest_later = shape->nb_workers == 1 && !shape->locking && ops->poll == common_poll;
    return m;
}

void
common_destroy(struct mode *m)
{
    if (m == NULL)
        return;
    host_destroy(m->host);
    for (unsigned w = 0; w < m->nb_workers && m->ctr[w] != NULL; w++) {
        counters_unregister(m->ctr[w]);
        free(m->ctr[w]);
    }
    free(m);
}

unsigned
common_nb_workers(const struct mode *m)
{
    return m->nb_workers;
}

unsigned
common_commands(struct mode *m, unsigned w, uint64_t now_us)
{
    return net_commands(host_net(m->host, w), COMMAND_BUDGET, now_us);
}

unsigned
common_poll(struct mode *m, unsigned w, uint64_t now_us)
{
    struct net *net = host_net(m->host, w);
    struct ip_packet pkts[2 * PORT_BURST];
    /* Frames count as work whether or not a transport packet was in them. */
    uint64_t frames = m->ctr[w]->v[CTR_PORT_RX_PKTS];
    uint16_t received;
    unsigned n;

    net_begin(net);
    received = net_receive(net, pkts, now_us);
    n = (unsigned)(m->ctr[w]->v[CTR_PORT_RX_PKTS] - frames) + received;
    if (received > 0)
        m->ops->packets(m, w, pkts, received, now_us);
    net_receive_rest(net, now_us);
    n += net_handed(net, now_us);
    n += m->ops->commands(m, w, now_us);
    n += net_timers(net, now_us);
    return n + net_end(net, now_us);
}

struct host *
common_host(struct mode *m)
{
    return m->host;
}

unsigned
common_rings_per_instance(const struct mode *m)
{
    return m->rings_per_instance;
}

/* ---- packets ----------------------------------------------------------------------------------------------------------- */

void
common_packets_one(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    struct stack *s = host_stack(m->host, 0);

    s = stack_enter(s, host_net(m->host, w), now_us);
    stack_segments(s, pkts, n);
    stack_leave(s);
}

unsigned
common_packets_owned(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    struct net *net = host_net(m->host, w);
    struct stack *s = host_stack(m->host, w);
    uint16_t own = net_sort(net, pkts, n);

    if (own > 0) {
        stack_enter(s, net, now_us);
        stack_segments(s, pkts, own);
        stack_leave(s);
    }
    return (unsigned)(n - own);
}

/* ---- report -------------------------------------------------------------------------------------------------------------- */

uint64_t
common_sum(const struct mode *m, enum counter_id id)
{
    uint64_t sum = 0;

    for (unsigned w = 0; w < m->nb_workers; w++)
        sum += __atomic_load_n(&m->ctr[w]->v[id], __ATOMIC_RELAXED);
    return sum;
}

void
common_report(const struct mode *m, FILE *out)
{
    unsigned nb_workers = m->ops->nb_workers(m);

    fprintf(out, "mode %s\nworkers %u\ndomains %u\n", m->ops->name, nb_workers, host_nb_stacks(m->host));
    fprintf(out, "polls %" PRIu64 "\nidle_polls %" PRIu64 "\nsleeps %" PRIu64 "\n", common_sum(m, CTR_WORKER_POLLS),
            common_sum(m, CTR_WORKER_IDLE_POLLS), common_sum(m, CTR_WORKER_SLEEPS));
    for (unsigned w = 0; w < nb_workers; w++) {
        uint64_t busy = __atomic_load_n(&m->ctr[w]->v[CTR_WORKER_BUSY_CYCLES], __ATOMIC_RELAXED);
        uint64_t idle = __atomic_load_n(&m->ctr[w]->v[CTR_WORKER_IDLE_CYCLES], __ATOMIC_RELAXED);

        fprintf(out, "worker%u_busy_cycles %" PRIu64 "\nworker%u_idle_cycles %" PRIu64 "\n", w, busy, w, idle);
        fprintf(out, "worker%u_busy_percent %.1f\n", w,
                busy + idle != 0 ? 100.0 * (double)busy / (double)(busy + idle) : 0.0);
    }
}

void
common_report_lock(const struct mode *m, const char *name, enum counter_id class, FILE *out)
{
    uint64_t taken = common_sum(m, class), contended = common_sum(m, (enum counter_id)(class + 1));

    fprintf(out, "%s_locks_taken %" PRIu64 "\n%s_locks_contended %" PRIu64 "\n", name, taken, name, contended);
    fprintf(out, "%s_locks_contended_percent %.3f\n%s_locks_wait_cycles %" PRIu64 "\n", name,
            taken != 0 ? 100.0 * (double)contended / (double)taken : 0.0, name,
            common_sum(m, (enum counter_id)(class + 2)));
}

void
common_report_handover(const struct mode *m, FILE *out)
{
    uint64_t bursts = common_sum(m, CTR_HANDOVER_BURSTS);

    common_report(m, out);
    fprintf(out, "handed_packets %" PRIu64 "\nhanded_commands %" PRIu64 "\nhandover_drops %" PRIu64 "\n",
            common_sum(m, CTR_HANDOVER_PKTS), common_sum(m, CTR_HANDOVER_CMDS), common_sum(m, CTR_HANDOVER_DROP));
    fprintf(out, "handover_queue_mean %.2f\nhandover_cycles %" PRIu64 "\nhandover_wakeups %" PRIu64 "\n",
            bursts != 0 ? (double)common_sum(m, CTR_HANDOVER_QUEUED) / (double)bursts : 0.0,
            common_sum(m, CTR_HANDOVER_CYCLES), common_sum(m, CTR_HANDOVER_WAKEUPS));
}
