/* SPDX-License-Identifier: BSD-3-Clause */
#include "sink.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_jhash.h>
#include <rte_thash.h>

#include "core/clock.h"
#include "core/lock.h"
#include "core/options.h"
#include "core/port_steer.h"

#include "frame.h"
#include "peer.h"

#define MTU_MAX 9000u
#define HEADERS_BYTES 40u /* of IPv4 and TCP without options */
#define ARP_ANSWERS_MAX 16u
#define RETA_BUCKETS 128u
/* One receive burst in so many looks after what has stalled. */
#define TICK_BURSTS 64u

struct sink_queue {
    struct lock lock;
    struct peer *peer;
    struct peer_stats counted; /**< what of peer_stats stands in the counters already */
    struct rte_mbuf *arp[ARP_ANSWERS_MAX];
    uint32_t nb_arp;
    uint32_t bursts;
} __attribute__((aligned(128)));

struct sink {
    struct frame_format format;
    enum port_steer steer;
    uint16_t nb_queues;
    uint32_t toeplitz[sizeof(struct peer_tuple)][256]; /**< what each byte of a tuple contributes: the hash is linear */
    struct sink_queue queues[];
};

/* ---- configuration -------------------------------------------------------------------------------------------------------- */

struct sink_knobs {
    struct sink_config cfg;
    char *impair;
};

static const char *const offload_choices[] = { "none", "csum", "tso", NULL };

#define KNOB(f) .offset = offsetof(struct sink_knobs, f)

static const struct option_row sink_rows[] = {
    { .name = "ack",
      .type = OPTION_U32,
      .default_text = "2",
      .min = 1,
      .max = 64,
      KNOB(cfg.ack_segments),
      .help = "Full segments for each acknowledgement." },
    { .name = "connections",
      .type = OPTION_U32,
      .default_text = "65536",
      .min = 16,
      .max = 4194304,
      KNOB(cfg.max_conns),
      .help = "Connections for each queue." },
    { .name = "impair", .type = OPTION_STRING, KNOB(impair), .help = "Make the wire bad, in both directions." },
    { .name = "offload",
      .type = OPTION_ENUM,
      .choices = offload_choices,
      .default_text = "csum",
      KNOB(cfg.offload),
      .help = "What the port does for the stack: nothing, checksums, or these and segmentation." },
    { .name = "window",
      .type = OPTION_SIZE,
      .unit = "bytes",
      .default_text = "512k",
      .min = 4096,
      .max = 8 << 20,
      KNOB(cfg.window_bytes),
      .help = "Receive window that the stack sees." },
};

int
sink_parse(const char *text, struct sink_config *cfg, struct impair_config *impair, char *err, size_t err_len)
{
    struct sink_knobs knobs;
    struct options o;
    int rc;

    memset(&knobs, 0, sizeof(knobs));
    memset(impair, 0, sizeof(*impair));
    rc = options_init(&o, sink_rows, RTE_DIM(sink_rows), &knobs, err, err_len);
    if (rc != 0)
        return rc;
    rc = knobs_parse(&o, text, "--port sink", err, err_len);
    if (rc == 0 && knobs.impair != NULL)
        rc = impair_parse(knobs.impair, impair, err, err_len);
    *cfg = knobs.cfg;
    options_fini(&o);
    return rc;
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

static void
sink_stop(struct port *p)
{
    struct sink *s = p->wire;

    for (uint16_t i = 0; i < s->nb_queues; i++) {
        peer_destroy(s->queues[i].peer);
        rte_pktmbuf_free_bulk(s->queues[i].arp, s->queues[i].nb_arp);
    }
    free(s);
    p->wire = NULL;
}

/** What each byte of a segment's tuple, as it is on the wire from here to the stack, does to its Toeplitz hash. */
static void
make_toeplitz(struct sink *s)
{
    /* The card hashes source, destination and their ports; ours is the source. */
    static const uint8_t place[sizeof(struct peer_tuple)] = { 4, 5, 6, 7, 0, 1, 2, 3, 10, 11, 8, 9 };

    for (unsigned i = 0; i < sizeof(struct peer_tuple); i++) {
        for (unsigned value = 0; value < 256; value++) {
            uint32_t input[3] = { 0, 0, 0 };

            input[place[i] / 4] = value << (24 - 8 * (place[i] % 4));
            s->toeplitz[i][value] = rte_softrss(input, RTE_DIM(input), port_steer_key);
        }
    }
}

/** What the mode asks for; a card that knows the best of it. */
static int
choose_steering(struct port *p, struct sink *s, char *err, size_t err_len)
{
    p->steer = p->config.steer == PORT_STEER_AUTO ? PORT_STEER_RSS : p->config.steer;
    if (p->steer == PORT_STEER_FLOW) {
        snprintf(err, err_len, "port sink: it cannot steer by flow; allowed are auto, rss, port, soft");
        return -EINVAL;
    }
    if (p->steer == PORT_STEER_SOFT || p->nb_queues == 1) {
        p->steer = PORT_STEER_SOFT;
        p->nb_queues = 1;
    } else if (p->steer == PORT_STEER_RSS) {
        p->steer_buckets = RETA_BUCKETS;
        memcpy(p->rss_key, port_steer_key, sizeof(p->rss_key));
        make_toeplitz(s);
    }
    s->steer = p->steer;
    s->nb_queues = p->nb_queues;
    return 0;
}

static int
create_peers(const struct port *p, struct sink *s, char *err, size_t err_len)
{
    const struct sink_config *cfg = p->config.wire_config;
    const struct peer_config pc = {
        .max_conns = cfg->max_conns,
        .window_bytes = (uint32_t)cfg->window_bytes,
        .ack_segments = cfg->ack_segments,
        .mss = (uint16_t)(p->mtu - HEADERS_BYTES),
    };

    for (uint16_t i = 0; i < s->nb_queues; i++) {
        s->queues[i].peer = peer_create(&pc);
        if (s->queues[i].peer == NULL) {
            snprintf(err, err_len, "port sink: no memory for %u queues of %u connections", s->nb_queues,
                     cfg->max_conns);
            return -ENOMEM;
        }
    }
    return 0;
}

/* The wire has two ends, with locally administered addresses. */
static void
describe(struct port *p, struct sink *s)
{
    const struct sink_config *cfg = p->config.wire_config;

    p->mac = (struct rte_ether_addr){ { 0x02, 0x51, 0x4e, 0x4b, 0x00, 0x01 } };
    s->format = (struct frame_format){
        .own_mac = { { 0x02, 0x51, 0x4e, 0x4b, 0x00, 0x02 } },
        .stack_mac = p->mac,
        /* A damaged frame must be found out by its sum. */
        .offload_csum = cfg->offload != SINK_OFFLOAD_NONE && p->config.impair.corrupt_ppm == 0,
        .tell_hash = s->steer == PORT_STEER_RSS,
    };
    p->caps = (struct port_caps){
        .tx_ip_csum = s->format.offload_csum,
        .tx_tcp_csum = s->format.offload_csum,
        .rx_csum = s->format.offload_csum,
        .tso = cfg->offload == SINK_OFFLOAD_TSO,
        .multi_seg = true,
    };
}

static int
sink_start(struct port *p, struct pktpool *pool, char *err, size_t err_len)
{
    size_t bytes = sizeof(struct sink) + p->nb_queues * sizeof(struct sink_queue);
    struct sink *s;
    int rc;

    (void)pool;
    p->mtu = p->config.mtu != 0 ? p->config.mtu : RTE_ETHER_MTU;
    if (p->mtu > MTU_MAX) {
        snprintf(err, err_len, "port sink: MTU %u is not allowed, at most %u", p->mtu, MTU_MAX);
        return -EINVAL;
    }
    s = aligned_alloc(128, RTE_ALIGN_CEIL(bytes, (size_t)128));
    if (s == NULL) {
        snprintf(err, err_len, "port sink: no memory");
        return -ENOMEM;
    }
    memset(s, 0, bytes);
    p->wire = s;
    rc = choose_steering(p, s, err, err_len);
    if (rc == 0)
        rc = create_peers(p, s, err, err_len);
    if (rc == 0)
        describe(p, s);
    else
        sink_stop(p);
    return rc;
}

/* ---- bursts ---------------------------------------------------------------------------------------------------------------- */

/** Hash of a connection, and with it its queue. */
static uint32_t
hash_of(const struct sink *s, const struct peer_tuple *t)
{
    const uint8_t *bytes = (const uint8_t *)t;
    uint32_t hash = 0;

    if (s->steer == PORT_STEER_OWN)
        return rte_jhash_3words(t->stack_addr, t->own_addr, (uint32_t)t->stack_port << 16 | t->own_port, 2);
    for (unsigned i = 0; i < sizeof(*t); i++)
        hash ^= s->toeplitz[i][bytes[i]];
    return hash;
}

/** What has happened in a queue's peer since it was last counted. The queue's lock is held. */
static void
count(struct sink_queue *sq, struct counters *ctr)
{
    const struct peer_stats *now = peer_stats(sq->peer);

    counter_add(ctr, CTR_SINK_OPENED, now->opened - sq->counted.opened);
    counter_add(ctr, CTR_SINK_REFUSED, now->refused - sq->counted.refused);
    counter_add(ctr, CTR_SINK_REORDERED, now->reordered - sq->counted.reordered);
    counter_add(ctr, CTR_SINK_RESENT, now->resent - sq->counted.resent);
    sq->counted = *now;
}

/** Answers to ARP come to queue 0, as what is not TCP does with a NIC. */
static void
answer_arp(struct sink *s, struct port_queue *q, const struct rte_mbuf *request)
{
    struct sink_queue *sq = &s->queues[0];
    struct rte_mbuf *m = rte_pktmbuf_alloc(q->pool->rx);

    if (m == NULL) {
        counter_inc(q->ctr, CTR_PORT_DROP_NO_MBUF);
        return;
    }
    frame_build_arp(&s->format, request, m);
    lock_take(&sq->lock, q->ctr, CTR_LOCK_SINK);
    if (sq->nb_arp < ARP_ANSWERS_MAX) {
        sq->arp[sq->nb_arp++] = m;
        m = NULL;
    }
    lock_give(&sq->lock);
    rte_pktmbuf_free(m);
}

/** Segments go to their queues' peers; those of one queue that follow each other under one lock. */
static void
input(struct sink *s, struct port_queue *q, const struct peer_segment *segs, const uint16_t *to, uint16_t n)
{
    for (uint16_t i = 0; i < n;) {
        struct sink_queue *sq = &s->queues[to[i]];
        uint16_t queue_id = to[i];

        lock_take(&sq->lock, q->ctr, CTR_LOCK_SINK);
        while (i < n && to[i] == queue_id)
            peer_input(sq->peer, &segs[i++]);
        count(sq, q->ctr);
        lock_give(&sq->lock);
    }
}

static uint16_t
sink_tx_burst(struct port_queue *q, struct rte_mbuf **pkts, uint16_t n)
{
    struct sink *s = q->port->wire;
    uint64_t since = clock_cycles();
    struct peer_segment segs[PORT_BURST];
    uint16_t to[PORT_BURST], nb_segs = 0;

    n = RTE_MIN(n, (uint16_t)PORT_BURST);
    for (uint16_t i = 0; i < n; i++) {
        enum frame_kind kind = frame_parse(&s->format, pkts[i], &segs[nb_segs]);

        if (likely(kind == FRAME_TCP)) {
            segs[nb_segs].hash = s->nb_queues > 1 ? hash_of(s, &segs[nb_segs].tuple) : 0;
            to[nb_segs] = (uint16_t)(segs[nb_segs].hash % RETA_BUCKETS % s->nb_queues);
            peer_prefetch(s->queues[to[nb_segs]].peer, &segs[nb_segs].tuple);
            nb_segs++;
        } else if (kind == FRAME_ARP_REQUEST) {
            answer_arp(s, q, pkts[i]);
        } else {
            counter_inc(q->ctr, kind == FRAME_BAD ? CTR_SINK_DROP_BAD : CTR_SINK_DROP_OTHER);
        }
    }
    input(s, q, segs, to, nb_segs);
    rte_pktmbuf_free_bulk(pkts, n);
    counter_add(q->ctr, CTR_SINK_TAKEN, nb_segs);
    counter_add(q->ctr, CTR_SINK_CYCLES, clock_cycles() - since);
    return n;
}

/** The queue's lock is held. */
static uint16_t
output(struct sink *s, struct sink_queue *sq, struct port_queue *q, struct rte_mbuf **pkts, uint16_t max)
{
    struct peer_reply reply;
    uint16_t n = 0;

    while (n < max && sq->nb_arp > 0)
        pkts[n++] = sq->arp[--sq->nb_arp];
    while (n < max && peer_has_output(sq->peer)) {
        struct rte_mbuf *m = rte_pktmbuf_alloc(q->pool->rx);

        /* What has no buffer now is still to be sent: as with a NIC whose ring is empty, but nothing is lost. */
        if (m == NULL)
            break;
        if (!peer_output(sq->peer, &reply)) {
            rte_pktmbuf_free(m);
            break;
        }
        frame_build(&s->format, &reply, m);
        pkts[n++] = m;
    }
    return n;
}

static uint16_t
sink_rx_burst(struct port_queue *q, struct rte_mbuf **pkts, uint16_t max, uint64_t now_us)
{
    struct sink *s = q->port->wire;
    struct sink_queue *sq = &s->queues[q->queue_id];
    uint64_t since = clock_cycles();
    uint16_t n;

    lock_take(&sq->lock, q->ctr, CTR_LOCK_SINK);
    if (sq->bursts++ % TICK_BURSTS == 0) {
        peer_tick(sq->peer, now_us);
        count(sq, q->ctr);
    }
    n = output(s, sq, q, pkts, max);
    lock_give(&sq->lock);
    counter_add(q->ctr, CTR_SINK_GIVEN, n);
    counter_add(q->ctr, CTR_SINK_CYCLES, clock_cycles() - since);
    return n;
}

const struct port_wire_ops sink_wire_ops = {
    .name = "sink",
    .start = sink_start,
    .stop = sink_stop,
    .rx_burst = sink_rx_burst,
    .tx_burst = sink_tx_burst,
};
