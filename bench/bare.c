/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What net_memif alone carries from one CPU to another, without a stack: a thread sends frames of one size as fast as the ring takes them, another takes
 * them out and frees them. The wire is that of `isobench-embedded pair`: both ends in one process, a copy at each.
 *
 * usage: bench-bare RECEIVER_CPU SENDER_CPU FRAME_BYTES SECONDS; prints frames/s.
 * Exit status: 0; 1 no EAL, no memory, no link; 2 wrong usage.
 */
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "core/eal.h"
#include "isobench/wire.h"

#define BURST 32u
#define DESCRIPTORS 2048u
#define FRAMES 8192u
#define FRAME_MIN 60u
#define FRAME_MAX 9014u
#define LINK_SECONDS 5u
#define ARGS 12

struct wire {
    int cpus[2]; /**< receiver, sender */
    unsigned frame_bytes;
    double seconds;
    struct rte_mempool *pool;
    uint64_t frames; /**< taken out while it was measured */
    int stop; /**< atomic */
};

static int
usage(void)
{
    fprintf(stderr, "usage: bench-bare RECEIVER_CPU SENDER_CPU FRAME_BYTES SECONDS (frames of %u to %u bytes)\n",
            FRAME_MIN, FRAME_MAX);
    return 2;
}

static bool
number(const char *text, double least, double most, double *value)
{
    char *end;

    *value = strtod(text, &end);
    return end != text && *end == '\0' && *value >= least && *value <= most;
}

static void
pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

static int
start_eal(const struct wire *w, const char *folder)
{
    char word[ARGS][WIRE_WORD_BYTES] = { "bench-bare", "", "--no-pci", "--no-huge", "-m512", "", "", "--" },
         *argv[ARGS], err[512];

    for (int i = 0; i < 8; i++)
        argv[i] = word[i];
    argv[8] = NULL;
    snprintf(word[1], sizeof(word[1]), "-l%d", w->cpus[1]);
    for (unsigned end = 0; end < 2; end++)
        wire_word(word[5 + end], sizeof(word[0]), end, folder, w->frame_bytes);
    if (eal_start(8, argv, err, sizeof(err)) >= 0)
        return 0;
    fprintf(stderr, "bench-bare: %s\n", err);
    return -1;
}

static int
start_port(const struct wire *w, uint16_t port)
{
    const struct rte_eth_conf conf = { .rxmode.offloads = 0 };

    if (rte_eth_dev_configure(port, 1, 1, &conf) != 0 ||
        rte_eth_rx_queue_setup(port, 0, DESCRIPTORS, SOCKET_ID_ANY, NULL, w->pool) != 0 ||
        rte_eth_tx_queue_setup(port, 0, DESCRIPTORS, SOCKET_ID_ANY, NULL) != 0)
        return -1;
    return rte_eth_dev_start(port);
}

static bool
has_link(void)
{
    for (unsigned ms = 0; ms < 1000 * LINK_SECONDS; ms++) {
        struct rte_eth_link link[2];

        if (rte_eth_link_get_nowait(0, &link[0]) == 0 && rte_eth_link_get_nowait(1, &link[1]) == 0 &&
            link[0].link_status && link[1].link_status)
            return true;
        usleep(1000);
    }
    return false;
}

static void *
send_all(void *arg)
{
    struct wire *w = arg;
    struct rte_mbuf *frame[BURST];

    pin(w->cpus[1]);
    rte_thread_register();
    while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
        uint16_t sent = 0;

        if (rte_pktmbuf_alloc_bulk(w->pool, frame, BURST) != 0)
            continue;
        for (unsigned i = 0; i < BURST; i++)
            frame[i]->pkt_len = frame[i]->data_len = (uint16_t)w->frame_bytes;
        while (sent < BURST && !__atomic_load_n(&w->stop, __ATOMIC_RELAXED))
            sent += rte_eth_tx_burst(0, 0, frame + sent, (uint16_t)(BURST - sent));
        if (sent < BURST)
            rte_pktmbuf_free_bulk(frame + sent, BURST - sent);
    }
    rte_thread_unregister();
    return NULL;
}

/* For a tenth of the time nothing is counted. Returns frames a second. */
static double
receive(struct wire *w)
{
    uint64_t hz = rte_get_tsc_hz(), begin = rte_rdtsc() + (uint64_t)(w->seconds * 0.1 * (double)hz);
    uint64_t end = begin + (uint64_t)(w->seconds * (double)hz), now;
    struct rte_mbuf *frame[BURST];

    pin(w->cpus[0]);
    do {
        uint16_t n = rte_eth_rx_burst(1, 0, frame, BURST);

        rte_pktmbuf_free_bulk(frame, n);
        now = rte_rdtsc();
        if (now >= begin)
            w->frames += n;
    } while (now < end);
    return (double)w->frames * (double)hz / (double)(now - begin);
}

static int
measure(struct wire *w)
{
    pthread_t sender;
    double rate;

    w->pool = rte_pktmbuf_pool_create("bare", FRAMES, 256, 0,
                                      (uint16_t)(RTE_PKTMBUF_HEADROOM + RTE_MAX(w->frame_bytes, 2048u)), SOCKET_ID_ANY);
    if (w->pool == NULL || start_port(w, 0) != 0 || start_port(w, 1) != 0 || !has_link()) {
        fprintf(stderr, "bench-bare: the wire has no link, or no memory\n");
        return 1;
    }
    if (pthread_create(&sender, NULL, send_all, w) != 0)
        return 1;
    rate = receive(w);
    __atomic_store_n(&w->stop, 1, __ATOMIC_RELAXED);
    pthread_join(sender, NULL);
    printf("%.0f\n", rate);
    return 0;
}

int
main(int argc, char **argv)
{
    static struct wire w;
    char folder[] = "/tmp/bench-bare-XXXXXX", name[64];
    double cpu[2], bytes;
    int status = 1;

    if (argc != 5 || !number(argv[1], 0, CPU_SETSIZE - 1, &cpu[0]) || !number(argv[2], 0, CPU_SETSIZE - 1, &cpu[1]) ||
        !number(argv[3], FRAME_MIN, FRAME_MAX, &bytes) || !number(argv[4], 0.01, 3600, &w.seconds))
        return usage();
    w.cpus[0] = (int)cpu[0];
    w.cpus[1] = (int)cpu[1];
    w.frame_bytes = (unsigned)bytes;
    if (mkdtemp(folder) == NULL)
        return 1;
    if (start_eal(&w, folder) == 0) {
        status = measure(&w);
        eal_stop();
    }
    snprintf(name, sizeof(name), "%s/wire", folder);
    unlink(name);
    rmdir(folder);
    return status;
}
