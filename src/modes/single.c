/* SPDX-License-Identifier: BSD-3-Clause */
#include "modes/single.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COMMAND_BUDGET 256u

struct mode *
single_create(const struct mode_ops *ops, const struct mode_config *cfg, unsigned rings_per_instance, char *err,
              size_t err_len)
{
    struct mode *m = calloc(1, sizeof(*m));

    if (m == NULL) {
        snprintf(err, err_len, "--mode %s: out of memory", ops->name);
        return NULL;
    }
    m->ops = ops;
    m->rings_per_instance = rings_per_instance;
    m->ctr = aligned_alloc(64, sizeof(*m->ctr));
    if (m->ctr != NULL) {
        memset(m->ctr, 0, sizeof(*m->ctr));
        m->stack = stack_create(&cfg->stack, cfg->port, 0, cfg->pool, m->ctr);
    }
    if (m->stack == NULL) {
        snprintf(err, err_len, "--mode %s: no memory for a stack of %u connections", ops->name,
                 cfg->stack.tcp.max_conns);
        single_destroy(m);
        return NULL;
    }
    counters_register("worker0", m->ctr);
    return m;
}

void
single_destroy(struct mode *m)
{
    if (m == NULL)
        return;
    if (m->stack != NULL) {
        counters_unregister(m->ctr);
        stack_destroy(m->stack);
    }
    free(m->ctr);
    free(m);
}

unsigned
single_nb_workers(const struct mode *m)
{
    (void)m;
    return 1;
}

void
single_packets(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    (void)w;
    stack_segments(m->stack, pkts, n, now_us);
}

unsigned
single_commands(struct mode *m, unsigned w, uint64_t now_us)
{
    (void)w;
    return stack_commands(m->stack, COMMAND_BUDGET, now_us);
}

unsigned
single_poll(struct mode *m, unsigned w, uint64_t now_us)
{
    struct ip_packet pkts[2 * PORT_BURST];
    /* Frames count as work whether or not a transport packet was in them. */
    uint64_t frames = m->ctr->v[CTR_PORT_RX_PKTS];
    uint16_t received = stack_receive(m->stack, pkts, now_us);
    unsigned n = (unsigned)(m->ctr->v[CTR_PORT_RX_PKTS] - frames) + received;

    if (received > 0)
        m->ops->packets(m, w, pkts, received, now_us);
    n += m->ops->commands(m, w, now_us);
    n += stack_timers(m->stack, now_us);
    n += stack_calls(m->stack, now_us);
    stack_publish(m->stack, now_us);
    return n;
}

struct stack *
single_stack(struct mode *m, unsigned w)
{
    (void)w;
    return m->stack;
}

unsigned
single_rings_per_instance(const struct mode *m)
{
    return m->rings_per_instance;
}

void
single_report(const struct mode *m, FILE *out)
{
    fprintf(out, "mode %s\nworkers 1\ndomains 1\n", m->ops->name);
    fprintf(out, "polls %" PRIu64 "\nidle_polls %" PRIu64 "\nsleeps %" PRIu64 "\n", m->ctr->v[CTR_WORKER_POLLS],
            m->ctr->v[CTR_WORKER_IDLE_POLLS], m->ctr->v[CTR_WORKER_SLEEPS]);
}
