/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <rte_mbuf.h>

#include "core/clock.h"
#include "core/eal.h"
#include "core/impair.h"
#include "core/port.h"

/**
 * @file
 * isowire, a wire between two ports: what comes in by one goes out by the other, impaired in both directions. So two
 * kernels meet what a stack meets with the same words after impair=.
 *
 * Exit status: 0; 1 a port or memory is missing; 2 wrong usage.
 */
#define WIRE_BUFFERS 32768u
#define WIRE_MTU 1500u

static volatile sig_atomic_t stop;

static void
on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static int
usage(void)
{
    fprintf(stderr,
            "usage: isowire [EAL OPTION...] -- IMPAIRMENT\n"
            "  forwards between ports 0 and 1; the impairment is that of isosockd's --port, as in\n"
            "  isowire --vdev net_af_packet0,iface=a --vdev net_af_packet1,iface=b -- loss:1%%,delay:10ms,rate:10M\n");
    return 2;
}

struct wire {
    struct pktpool pool;
    struct counters ctr;
    struct port port[2];
    struct port_queue queue[2];
};

static int
wire_open(struct wire *w, const struct impair_config *impair, char *err, size_t err_len)
{
    int rc = pktpool_create(&w->pool, "wire", WIRE_BUFFERS, WIRE_MTU, SOCKET_ID_ANY);

    for (uint16_t i = 0; rc == 0 && i < 2; i++) {
        struct port_config cfg = { .port_id = i, .nb_queues = 1 };
        if (i == 0)
            cfg.impair = *impair;
        rc = port_start(&w->port[i], &cfg, &w->pool, err, err_len);
        if (rc == 0)
            rc = port_queue_init(&w->queue[i], &w->port[i], 0, &w->pool, &w->ctr);
    }
    return rc;
}

static void
wire_run(struct wire *w)
{
    struct rte_mbuf *pkts[PORT_BURST];

    while (!stop) {
        uint64_t now_us = clock_now_us();
        for (unsigned i = 0; i < 2; i++) {
            uint16_t n = port_rx(&w->queue[i], pkts, now_us);
            for (uint16_t k = 0; k < n; k++)
                port_tx(&w->queue[1 - i], pkts[k], now_us);
        }
        port_flush(&w->queue[0], now_us);
        port_flush(&w->queue[1], now_us);
    }
}

int
main(int argc, char **argv)
{
    static struct wire w;
    struct impair_config impair;
    char err[256] = "the EAL does not start";
    int at = eal_start(argc, argv, err, sizeof(err));

    if (at < 0) {
        fprintf(stderr, "isowire: %s\n", err);
        return at == -EINVAL ? 2 : 1;
    }
    if (argc - at != 2)
        return usage();
    if (impair_parse(argv[at + 1], &impair, err, sizeof(err)) != 0) {
        fprintf(stderr, "isowire: %s\n", err);
        return 2;
    }
    clock_init();
    int rc = wire_open(&w, &impair, err, sizeof(err));
    if (rc != 0) {
        fprintf(stderr, "isowire: %s: %s\n", err, strerror(-rc));
        return 1;
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    printf("ready\n");
    fflush(stdout);
    wire_run(&w);
    for (unsigned i = 0; i < 2; i++) {
        port_queue_fini(&w.queue[i]);
        port_stop(&w.port[i]);
    }
    pktpool_destroy(&w.pool);
    eal_stop();
    return 0;
}
