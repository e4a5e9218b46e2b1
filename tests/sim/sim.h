/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "core/rng.h"
#include "tcp/tcp.h"

/**
 * @file
 * Two domains joined by a simulated network in virtual time. Payload is a function of its position in the stream, so
 * that every byte that is delivered can be checked. Everything follows from the seed.
 */

struct sim_link {
    uint32_t loss_ppm, reorder_ppm, dup_ppm;
    uint32_t delay_us; /**< one way */
    uint32_t reorder_us; /**< how long a reordered segment is held back */
    uint32_t rate_bytes_per_ms; /**< bottleneck; 0 = none */
    uint32_t queue_bytes; /**< of the bottleneck */
    uint32_t mark_bytes; /**< segments that may be marked (ECT) are, when the queue is longer; 0 = never */
    uint32_t black_hole_bytes; /**< IP packets larger than this vanish, and nobody says so; 0 = none */
    uint32_t burst_ppm, burst_segs; /**< with this chance so many segments in a row are lost */
};

/** One connection as its application sees it. */
struct sim_flow {
    tcp_id id;
    bool is_open, peer_fin, is_gone, shut;
    int err;
    uint64_t start_us; /**< host 0: it connects so long after sim_connect, no earlier than the flow before it */
    uint64_t to_send, appended, acked;
    uint64_t received, consumed;
    uint32_t read_every_us; /**< 0 = at once */
    uint32_t read_bytes; /**< at most, each time */
    uint64_t next_read_us;

    tcp_seq sent_to; /**< end of what has been on the wire */
    bool has_sent;
    bool excused; /**< since the last progress a retransmission, a probe, or an answer was lost */
    uint64_t progress_us; /**< of acked */
    uint64_t worst_stall_us; /**< longest time without progress, beyond the timeout that held then, not excused */
    uint32_t rto_us; /**< at the last progress */
};

#define SIM_FLOWS_MAX 4
#define SIM_LISTENER 100

struct sim;

struct sim_host {
    struct sim *sim;
    struct tcp_domain *d;
    size_t d_bytes;
    struct counters ctr;
    struct tcp_sink sink;
    struct tcp_env env;
    tcp_id listener;
    struct sim_flow flows[SIM_FLOWS_MAX]; /**< user = index + 1; the listener is SIM_LISTENER */
    unsigned nb_accepted;
    uint32_t burst_left; /**< segments still to be lost */
    uint64_t line_free_us; /**< the bottleneck's queue empties then */
    struct sim_flow *lost_new; /**< whose new data was the last thing sent, and is lost; NULL = no such */
    uint64_t probes_then; /**< tail probes counted before it */
};

struct sim_pkt;

struct sim {
    struct sim_host host[2];
    struct sim_link link;
    struct rng rng;
    uint64_t now_us, connect_us; /**< sim_connect was called then */
    struct sim_pkt *pkts; /**< by handle - 1 */
    uint32_t nb_pkts, free_pkt;
    uint32_t live_pkts;
    uint32_t *heap; /**< handles in flight, earliest first */
    uint32_t nb_heap;
    uint64_t order;
    uint32_t gso_max_bytes;
    uint32_t snd_buf_bytes;
    void (*between)(struct sim *s); /**< called between events; NULL = nothing */
    unsigned nb_flows; /**< 1 unless set before sim_connect */
};

/** Host 0 connects to host 1, which listens. adjust may change the parameters of either domain (NULL = leave). */
void sim_init(struct sim *s, uint64_t seed, const struct sim_link *link, void (*adjust)(struct tcp_params *p));
void sim_fini(struct sim *s);
void sim_connect(struct sim *s);

/** Run until both flows are gone, or nothing can happen any more, or limit_us. Returns whether both are gone. */
bool sim_run(struct sim *s, uint64_t limit_us);

#endif /* SIM_SIM_H */
