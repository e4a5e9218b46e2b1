/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_PORT_H
#define CORE_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_ether.h>
#include <rte_mbuf.h>

#include "core/counter.h"
#include "core/impair.h"
#include "core/lock.h"
#include "core/pktpool.h"
#include "core/steer.h"

/**
 * @file
 * A DPDK port and the queue pair that one worker has of it. A queue belongs to one worker: no locks.
 */

#define PORT_BURST 32

/** What the port does for us; what it does not is done in software above. */
struct port_caps {
    bool tx_ip_csum; /**< IPv4 header checksum on transmit */
    bool tx_tcp_csum; /**< TCP checksum on transmit (pseudo-header sum in place) */
    bool rx_csum; /**< ol_flags tell whether IP and L4 checksums were right */
    bool tso; /**< TCP segmentation */
    bool multi_seg; /**< chained mbufs on transmit */
    bool rx_intr; /**< receive interrupts: a sleeping worker is woken by a frame */
    bool
        must_copy; /**< the device may look at a frame after taking it, or hands the mbuf itself to its peer (net_ring);
                       port_tx then copies payload that is attached from elsewhere, so attaching gains nothing */
};

/** How arriving frames are divided over the queues. */
enum port_steer {
    PORT_STEER_AUTO, /**< the best of the following, in this order, that the port has */
    PORT_STEER_RSS, /**< receive-side scaling: the Toeplitz hash of addresses and ports, by a key and table that are known */
    PORT_STEER_FLOW, /**< filters (rte_flow) on the low bits of a port number: core/steer.h */
    PORT_STEER_OWN, /**< a rule of the device that nobody here knows, but the same for all frames of a connection */
    PORT_STEER_SOFT, /**< not at all: one queue */
};

struct port;
struct port_queue;

/**
 * A wire that is no DPDK port, as one of memory alone. The core declares what it must do; a program brings one along (apps/sink). start and stop:
 * control path, main thread; a burst: the queue's worker, or for transmission another one under the port's lock.
 */
struct port_wire_ops {
    const char *name;
    /**
     * Set p's wire, mtu, mac, caps and steering, if_index where the kernel has a name for it, and add to pool->held what buffers the wire keeps; nb_queues is what is
     * asked for. Returns 0, or -errno with one line in err.
     */
    int (*start)(struct port *p, struct pktpool *pool, char *err, size_t err_len);
    void (*stop)(struct port *p);
    /** As rte_eth_rx_burst and rte_eth_tx_burst; q->ctr are the caller's counters. */
    uint16_t (*rx_burst)(struct port_queue *q, struct rte_mbuf **pkts, uint16_t n, uint64_t now_us);
    uint16_t (*tx_burst)(struct port_queue *q, struct rte_mbuf **pkts, uint16_t n);
    /** See port_rx_rest; NULL: all frames come whole. */
    void (*rx_rest)(struct port_queue *q);
    /** With caps.rx_intr: a descriptor that is readable as long as a frame waits in the only queue. */
    int (*rx_fd)(const struct port *p);
};

struct port_config {
    const struct port_wire_ops *wire_ops; /**< NULL: the DPDK port port_id */
    const void *wire_config; /**< the wire's own; it outlives the port */
    uint16_t port_id;
    uint16_t nb_queues; /**< with steer AUTO: at most so many */
    enum port_steer steer;
    uint16_t nb_rxd, nb_txd; /**< 0 = the driver's preference */
    uint16_t mtu; /**< 0 = the port's own */
    struct impair_config impair; /**< applied to both directions of every queue */
};

struct port {
    uint16_t port_id;
    uint16_t nb_queues;
    uint16_t mtu;
    int if_index; /**< kernel interface behind it, 0 if there is none */
    struct rte_ether_addr mac;
    struct port_caps caps;
    struct port_config config;
    enum port_steer steer; /**< what came of config.steer: never AUTO */
    uint32_t
        steer_buckets; /**< RSS: entries of the table; FLOW: values of the low bits. Bucket b goes to queue b % nb_queues */
    uint8_t rss_key[STEER_KEY_BYTES]; /**< RSS */
    void *wire; /**< of config.wire_ops */
    char driver[32]; /**< e.g. "net_tap" */
    struct lock tx_lock; /**< of the transmit queues, when workers share them */
    bool tx_shared; /**< some worker has no queue of its own */
};

/** One worker's receive and transmit queue; a worker beyond the port's queues receives nothing and sends by another's, under a lock. */
struct port_queue {
    struct port *port;
    const struct port_wire_ops *wire_ops; /**< NULL: a DPDK port's queue */
    struct counters *ctr;
    struct pktpool *pool;
    struct impair *impair_rx; /**< NULL when the port is not impaired */
    struct impair *impair_tx;
    struct port_queue *
        ordered; /**< frames of several workers go out by this one's transmit side, in the order of port_tx; NULL = by their own */
    int intr_fd; /**< readable when a frame waits; -1 where there is none */
    int intr_epoll_fd; /**< the set that it is registered with */
    bool
        intr_armable; /**< the driver must be told to raise it; else intr_fd is always live, and in the set only while armed */
    uint16_t queue_id;
    uint16_t tx_queue_id;
    bool receives;
    bool rest_later; /**< who receives calls port_rx_rest, before which it reads no payload */
    bool tx_plain; /**< any frame goes as it is, and this worker's transmit side is its own alone */
    uint16_t tx_count; /**< frames waiting in tx[] */
    struct rte_mbuf *tx[PORT_BURST];
    struct rte_mbuf *
        *held; /**< [PORT_HELD_MAX], a ring: frames that found the device's queue full, before those of tx[] */
    uint32_t held_head, held_tail; /**< free-running */
    uint32_t held_bytes; /**< of all held frames */
    uint32_t full_frames; /**< see port_tx_is_full */
    uint64_t refused_at_us; /**< the device has taken nothing of them since; 0 = it has */
};

/** Frames that are kept for a device whose queue is full, and for how long it may take none before they are given up. */
#define PORT_HELD_MAX 16384u
#define PORT_HELD_US 100000u

/**
 * Configure and start a port. Control path. Returns 0, or -errno with one line in err (which port, what to do):
 * -ENODEV no such port, -EINVAL more queues than it has, steering that it cannot do, or an MTU that it does not take, -EIO the driver refused, or
 * (net_memif, role=client) no server came up within three seconds.
 * With impairment on, tso is reported as absent so that segments suffer one by one; with corruption, checksum
 * offload too, so that the damage happens after the sum is formed and before it is checked.
 */
int port_start(struct port *p, const struct port_config *cfg, struct pktpool *pool, char *err, size_t err_len);
void port_stop(struct port *p);

/** "rss" ... */
const char *port_steer_name(enum port_steer steer);

/**
 * Whether frames can pass now. Of a kernel interface (net_tap, net_af_packet) the kernel is asked; one that was
 * moved to another network namespace counts as up, since nobody here can know. Control path.
 */
bool port_link_up(const struct port *p);

int port_queue_init(struct port_queue *q, struct port *p, uint16_t queue_id, struct pktpool *pool,
                    struct counters *ctr);
void port_queue_fini(struct port_queue *q);

/**
 * Send by to's transmit side, under the port's lock, so that frames leave in the order in which port_tx got them from whichever worker: as from one
 * interface queue. to may be q itself. Before the first port_tx.
 */
void port_queue_share_tx(struct port_queue *q, struct port_queue *to);

/** Take up to PORT_BURST frames; the caller owns them. now_us drives the impairment. */
uint16_t port_rx(struct port_queue *q, struct rte_mbuf **pkts, uint64_t now_us);

/** Hand over one frame (ownership passes, whatever happens); sent at the latest by port_flush. */
void port_tx(struct port_queue *q, struct rte_mbuf *m, uint64_t now_us);

/**
 * Send what is queued and what the impairment has let go. What the device has no room for is held for the next flush; beyond PORT_HELD_MAX frames, and where the device has
 * taken none for PORT_HELD_US (no link, or it refuses the one in front), frames are dropped and counted.
 */
void port_flush(struct port_queue *q, uint64_t now_us);

/**
 * With port_queue.rest_later: read the payload of frames that port_rx has left outside, if pktpool.nb_late is not 0. Until then a buffer that is still to be filled has a second
 * reference: it may be freed, but not by rte_mbuf_raw_free. Only one worker may use the pool.
 */
void port_rx_rest(struct port_queue *q);

/** So many bytes of held frames are enough for senders that can wait. */
#define PORT_FULL_BYTES (1u << 20)

/** The queue that holds q's frames, which may be another worker's: what it is asked is then a moment old. */
static inline const struct port_queue *
port_tx_holder(const struct port_queue *q)
{
    return q->ordered != NULL ? q->ordered : q;
}

/** Whether frames are held. */
static inline bool
port_tx_holds(const struct port_queue *q)
{
    const struct port_queue *by = port_tx_holder(q);

    return __atomic_load_n(&by->held_tail, __ATOMIC_RELAXED) != __atomic_load_n(&by->held_head, __ATOMIC_RELAXED);
}

/**
 * Whether so much is held, in bytes or in packet buffers, that who can wait had better make no more. Some is held gladly: a frame of a request is a few lines in the order in which they will be
 * needed, where a connection that waits must come back with all of its state.
 */
static inline bool
port_tx_is_full(const struct port_queue *q)
{
    const struct port_queue *by = port_tx_holder(q);

    return __atomic_load_n(&by->held_bytes, __ATOMIC_RELAXED) >= PORT_FULL_BYTES ||
           __atomic_load_n(&by->held_tail, __ATOMIC_RELAXED) - __atomic_load_n(&by->held_head, __ATOMIC_RELAXED) >=
               by->full_frames;
}

/** When port_flush/port_rx must run next, for held frames or the impairment's sake; UINT64_MAX if never. */
uint64_t port_next_us(const struct port_queue *q);

/**
 * Receive interrupts: register the queue's interrupt with an epoll set (once), then arm before sleeping and disarm
 * after. Return 0, or -ENOTSUP where the port has none (the worker naps instead). After arming, poll once more
 * before sleeping: a frame that came in between raises no interrupt.
 */
int port_intr_register(struct port_queue *q, int epoll_fd);
int port_intr_arm(struct port_queue *q);
void port_intr_disarm(struct port_queue *q);

#endif /* CORE_PORT_H */
