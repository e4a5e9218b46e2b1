/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuzz_net.h"

#include <string.h>

#include <rte_log.h>

#define START_US 1000u
#define DRAIN_US UINT64_C(100000)
#define GIVE_UP_US UINT64_C(7200000000)

void
fuzz_net_start(struct lan *lan)
{
    const struct stack_config cfg[2] = { net_stack_config(0), net_stack_config(1) };

    setenv("CMOCKA_TEST_ABORT", "1", 1);
    FUZZ_CHECK(net_eal_start() == 0);
    rte_log_set_global_level(RTE_LOG_CRIT);
    net_init(lan, cfg);
    for (unsigned i = 0; i < 2; i++) {
        lan->maker->unmake(&lan->node[i]);
        lan->node[i].host = NULL;
    }
}

void
fuzz_net_begin(struct lan *lan)
{
    lan->now_us = START_US;
    for (unsigned i = 0; i < 2; i++) {
        const struct stack_config cfg = net_stack_config(i);
        struct node *n = &lan->node[i];

        memset(&n->ctr, 0, sizeof(n->ctr));
        n->host = lan->maker->make(n, &cfg);
        FUZZ_CHECK(n->host != NULL);
        n->stack = host_stack(n->host, 0);
    }
}

static void
drain(struct rte_ring *wire)
{
    void *m;

    while (rte_ring_dequeue(wire, &m) == 0)
        rte_pktmbuf_free(m);
}

void
fuzz_net_run_alone(struct lan *lan, uint64_t us)
{
    struct node *n = &lan->node[0];
    uint64_t end_us = lan->now_us + us;

    for (;;) {
        unsigned done = node_poll(n);
        uint64_t next_us = net_next_us(host_net(n->host, 0), lan->now_us);

        drain(lan->wire[1]);
        if (done > 0 || net_has_work(host_net(n->host, 0)))
            next_us = lan->now_us + 10;
        if (next_us >= end_us)
            break;
        lan->now_us = RTE_MAX(next_us, lan->now_us + 10);
    }
    lan->now_us = end_us;
}

static bool
is_empty(const struct node *n)
{
    struct tcp_usage u;

    tcp_usage(n->stack->tcp, &u);
    return n->host->nb_apps == 0 && n->stack->nb_socks == 0 && u.conns == 0 && u.half_open == 0;
}

static void
check_empty(const struct node *n)
{
    struct tcp_usage u;

    tcp_usage(n->stack->tcp, &u);
    FUZZ_CHECK(n->host->nb_apps == 0 && n->stack->nb_socks == 0 && host_rx_bufs(n->host) == 0);
    FUZZ_CHECK(u.conns == 0 && u.listeners == 0 && u.half_open == 0 && u.ooo_bufs == 0);
}

void
fuzz_net_end(struct lan *lan, bool silent)
{
    uint64_t give_up_us = lan->now_us + GIVE_UP_US;

    while (!is_empty(&lan->node[0]) || (!silent && !is_empty(&lan->node[1]))) {
        FUZZ_CHECK(lan->now_us < give_up_us);
        if (silent)
            fuzz_net_run_alone(lan, 10000000);
        else
            net_run(lan, DRAIN_US);
    }
    check_empty(&lan->node[0]);
    if (!silent)
        check_empty(&lan->node[1]);
    for (unsigned i = 0; i < 2; i++) {
        struct node *n = &lan->node[i];

        drain(lan->wire[0]);
        drain(lan->wire[1]);
        lan->maker->unmake(n);
        n->host = NULL;
        FUZZ_CHECK(n->ctr.v[CTR_TCP_BUG_EDGE] == 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        FUZZ_CHECK(rte_mempool_avail_count(lan->node[i].pool.rx) == lan->node[i].rx_free);
        FUZZ_CHECK(rte_mempool_avail_count(lan->node[i].pool.tx) == lan->node[i].tx_free);
    }
}
