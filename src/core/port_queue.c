/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <rte_ethdev.h>
#include <rte_pause.h>

#include "core/port.h"
#include "core/prefetch.h"

/* Looks at a full transmit queue before frames are held for the next flush: some microseconds, less than one poll costs. */
#define TX_RETRIES 16
/* Of a held frame; of a longer one the processor sees the rest coming. */
#define PREFETCH_FRAME_BYTES 192u

int
port_queue_init(struct port_queue *q, struct port *p, uint16_t queue_id, struct pktpool *pool, struct counters *ctr)
{
    memset(q, 0, sizeof(*q));
    q->port = p;
    q->ctr = ctr;
    q->pool = pool;
    q->queue_id = queue_id;
    q->tx_queue_id = (uint16_t)(queue_id % p->nb_queues);
    q->receives = queue_id < p->nb_queues;
    p->tx_shared |= !q->receives;
    q->intr_fd = -1;
    q->wire_ops = p->config.wire_ops;
    q->full_frames = pool->tx->size / 2 / p->nb_queues; /* or there would be no buffers for others */
    q->tx_plain = p->caps.multi_seg && !p->caps.must_copy && !p->config.impair.enabled;
    q->held = calloc(PORT_HELD_MAX, sizeof(*q->held)); /* touched as used */
    if (q->held == NULL)
        return -ENOMEM;
    if (!p->config.impair.enabled)
        return 0;
    q->impair_rx = impair_create(&p->config.impair, 2u * queue_id, pool);
    q->impair_tx = impair_create(&p->config.impair, 2u * queue_id + 1, pool);
    if (q->impair_rx == NULL || q->impair_tx == NULL) {
        port_queue_fini(q);
        return -ENOMEM;
    }
    return 0;
}

void
port_queue_fini(struct port_queue *q)
{
    rte_pktmbuf_free_bulk(q->tx, q->tx_count);
    q->tx_count = 0;
    while (q->held_head != q->held_tail)
        rte_pktmbuf_free(q->held[q->held_head++ % PORT_HELD_MAX]);
    free(q->held);
    q->held = NULL;
    impair_destroy(q->impair_rx);
    impair_destroy(q->impair_tx);
    q->impair_rx = NULL;
    q->impair_tx = NULL;
}

void
port_queue_share_tx(struct port_queue *q, struct port_queue *to)
{
    q->ordered = to;
    q->tx_plain = false;
}

/* net_ring hands over the sender's mbufs; ours alone have handles, so others are copied. Returns how many remain. */
static uint16_t
adopt_foreign(struct port_queue *q, struct rte_mbuf **pkts, uint16_t n)
{
    uint16_t kept = 0;

    for (uint16_t i = 0; i < n; i++) {
        struct rte_mbuf *m = pkts[i];

        if (unlikely(m->pool != q->pool->rx)) {
            struct rte_mbuf *copy = pktpool_copy(q->pool, m);

            rte_pktmbuf_free(m);
            if (copy == NULL) {
                counter_inc(q->ctr, CTR_PORT_DROP_NO_MBUF);
                continue;
            }
            m = copy;
        }
        pkts[kept++] = m;
    }
    return kept;
}

static inline uint16_t
rx_burst(struct port_queue *q, struct rte_mbuf **pkts, uint64_t now_us)
{
    if (unlikely(q->wire_ops != NULL))
        return q->wire_ops->rx_burst(q, pkts, PORT_BURST, now_us);
    return rte_eth_rx_burst(q->port->port_id, q->queue_id, pkts, PORT_BURST);
}

static inline uint16_t
tx_burst(struct port_queue *q, struct rte_mbuf **pkts, uint16_t n)
{
    if (unlikely(q->wire_ops != NULL))
        return q->wire_ops->tx_burst(q, pkts, n);
    return rte_eth_tx_burst(q->port->port_id, q->tx_queue_id, pkts, n);
}

uint16_t
port_rx(struct port_queue *q, struct rte_mbuf **pkts, uint64_t now_us)
{
    uint16_t n = 0;

    if (q->receives)
        n = rx_burst(q, pkts, now_us);

    if (n > 0) {
        uint64_t bytes = 0;

        for (uint16_t i = 0; i < n; i++)
            bytes += pkts[i]->pkt_len;
        counter_add(q->ctr, CTR_PORT_RX_PKTS, n);
        counter_add(q->ctr, CTR_PORT_RX_BYTES, bytes);
        n = adopt_foreign(q, pkts, n);
    }
    if (unlikely(q->impair_rx != NULL)) {
        impair_put(q->impair_rx, pkts, n, q->ctr, now_us);
        n = impair_get(q->impair_rx, pkts, PORT_BURST, now_us);
    }
    return n;
}

void
port_rx_rest(struct port_queue *q)
{
    q->wire_ops->rx_rest(q);
    q->pool->nb_late = 0;
}

/* Whether some of the payload lies in memory that is not the stack's, e.g. in an application's arena. */
static bool
has_attached(const struct rte_mbuf *m)
{
    for (; m != NULL; m = m->next)
        if (!RTE_MBUF_DIRECT(m) && !RTE_MBUF_HAS_PINNED_EXTBUF(m))
            return true;
    return false;
}

/* Offer frames to the device until it has had no room for so many looks. Returns how many it took, and the sum of their bytes. */
static uint16_t
offer(struct port_queue *q, struct rte_mbuf **pkts, uint16_t n, unsigned retries, uint32_t *took_bytes,
      struct counters *ctr)
{
    uint32_t bytes[PORT_BURST];
    uint16_t done = 0;

    *took_bytes = 0;
    for (uint16_t i = 0; i < n; i++)
        bytes[i] = pkts[i]->pkt_len;
    while (done < n) {
        uint16_t took = tx_burst(q, pkts + done, (uint16_t)(n - done));

        for (uint16_t i = 0; i < took; i++)
            *took_bytes += bytes[done + i];
        done = (uint16_t)(done + took);
        if (took == 0 && retries-- == 0)
            break;
        if (took == 0)
            rte_pause();
    }
    counter_add(ctr, CTR_PORT_TX_PKTS, done);
    counter_add(ctr, CTR_PORT_TX_BYTES, *took_bytes);
    return done;
}

/* ---- held frames ---------------------------------------------------------------------------------------------------------- */

/* The n oldest, of so many bytes, are gone. */
static void
let_go(struct port_queue *q, uint32_t n, uint32_t n_bytes)
{
    __atomic_store_n(&q->held_bytes, q->held_bytes - n_bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&q->held_head, q->held_head + n, __ATOMIC_RELAXED);
}

static void
drop_held(struct port_queue *q, struct counters *ctr)
{
    struct rte_mbuf *m = q->held[q->held_head % PORT_HELD_MAX];

    let_go(q, 1, m->pkt_len);
    rte_pktmbuf_free(m);
    counter_inc(ctr, CTR_PORT_DROP_TX_FULL);
}

static void
hold(struct port_queue *q, struct rte_mbuf *m, struct counters *ctr)
{
    if (q->held_tail - q->held_head == PORT_HELD_MAX)
        drop_held(q, ctr);
    q->held[q->held_tail % PORT_HELD_MAX] = m;
    __atomic_store_n(&q->held_bytes, q->held_bytes + m->pkt_len, __ATOMIC_RELAXED);
    __atomic_store_n(&q->held_tail, q->held_tail + 1, __ATOMIC_RELAXED);
}

/* Those that were held for long have left the caches: load a burst of them, from that position on, while there is other work. */
static void
prefetch_held(const struct port_queue *q, uint32_t from)
{
    uint32_t n = RTE_MIN(q->held_tail - from, (uint32_t)PORT_BURST);

    for (uint32_t i = 0; i < n; i++)
        prefetch_lines(q->held[(from + i) % PORT_HELD_MAX], sizeof(struct rte_mbuf));
    for (uint32_t i = 0; i < n; i++) {
        const struct rte_mbuf *m = q->held[(from + i) % PORT_HELD_MAX];

        prefetch_lines(rte_pktmbuf_mtod(m, const void *), RTE_MIN(m->data_len, PREFETCH_FRAME_BYTES));
    }
}

/* Oldest first; true if none is left. The device was full a pass ago: where it still is, the next pass is a better use of the time than waiting. */
static bool
send_held(struct port_queue *q, struct counters *ctr)
{
    while (q->held_head != q->held_tail) {
        uint32_t at = q->held_head % PORT_HELD_MAX, n = q->held_tail - q->held_head, bytes;

        n = n > PORT_BURST ? PORT_BURST : n;
        n = n > PORT_HELD_MAX - at ? PORT_HELD_MAX - at : n;
        prefetch_held(q, q->held_head + n);
        uint16_t took = offer(q, &q->held[at], (uint16_t)n, 0, &bytes, ctr);
        if (took > 0)
            q->refused_at_us = 0;
        let_go(q, took, bytes);
        if (took < n)
            return false;
    }
    return true;
}

/* Hand tx[] to the device, behind what is held; ctr are the caller's. */
static void
send_queued(struct port_queue *q, struct counters *ctr)
{
    bool shared = q->port->tx_shared && q->ordered == NULL; /* else the lock is held */
    uint16_t done = 0;
    uint32_t bytes;

    if (shared)
        lock_take(&q->port->tx_lock, ctr, CTR_LOCK_TX);
    if (likely(q->held_head == q->held_tail) || send_held(q, ctr))
        done = offer(q, q->tx, q->tx_count, TX_RETRIES, &bytes, ctr);
    if (shared)
        lock_give(&q->port->tx_lock);
    for (; done < q->tx_count; done++)
        hold(q, q->tx[done], ctr);
    q->tx_count = 0;
}

/* No link, or the device refuses what stands in front: each of the others is still offered once. */
static void
give_up(struct port_queue *q, struct counters *ctr, uint64_t now_us)
{
    if (q->refused_at_us == 0) {
        q->refused_at_us = now_us;
        return;
    }
    if (now_us - q->refused_at_us < PORT_HELD_US)
        return;
    for (uint32_t n = q->held_tail - q->held_head; n > 0 && q->refused_at_us != 0; n--) {
        drop_held(q, ctr);
        send_queued(q, ctr);
    }
    q->refused_at_us = 0;
}

static void
enqueue(struct port_queue *q, struct rte_mbuf *m, struct counters *ctr)
{
    q->tx[q->tx_count++] = m;
    if (q->tx_count == PORT_BURST)
        send_queued(q, ctr);
}

static void
put(struct port_queue *q, struct rte_mbuf *m, struct counters *ctr, uint64_t now_us)
{
    if (unlikely(q->impair_tx != NULL))
        impair_put(q->impair_tx, &m, 1, ctr, now_us);
    else
        enqueue(q, m, ctr);
}

/* What port_tx has to do where the queue is not plain. */
static __rte_noinline void
tx_other(struct port_queue *q, struct rte_mbuf *m, uint64_t now_us)
{
    const struct port_caps *caps = &q->port->caps;
    bool held =
        caps->must_copy || q->impair_tx != NULL; /* the frame outlives this call's promise to the payload's owner */

    if (unlikely((held && has_attached(m)) || (!caps->multi_seg && m->nb_segs > 1))) {
        struct rte_mbuf *copy = pktpool_copy(q->pool, m);

        rte_pktmbuf_free(m);
        if (copy == NULL) {
            counter_inc(q->ctr, CTR_PORT_DROP_NO_MBUF);
            return;
        }
        m = copy;
    }
    if (likely(q->ordered == NULL)) {
        put(q, m, q->ctr, now_us);
        return;
    }
    lock_take(&q->port->tx_lock, q->ctr, CTR_LOCK_TX);
    put(q->ordered, m, q->ctr, now_us);
    lock_give(&q->port->tx_lock);
}

void
port_tx(struct port_queue *q, struct rte_mbuf *m, uint64_t now_us)
{
    if (likely(q->tx_plain))
        enqueue(q, m, q->ctr);
    else
        tx_other(q, m, now_us);
}

static void
flush(struct port_queue *q, struct counters *ctr, uint64_t now_us)
{
    if (unlikely(q->impair_tx != NULL)) {
        struct rte_mbuf *pkts[PORT_BURST];
        uint16_t n;

        do {
            n = impair_get(q->impair_tx, pkts, PORT_BURST, now_us);
            for (uint16_t i = 0; i < n; i++)
                enqueue(q, pkts[i], ctr);
        } while (n == PORT_BURST);
    }
    if (q->tx_count > 0 || q->held_head != q->held_tail)
        send_queued(q, ctr);
    if (unlikely(q->held_head != q->held_tail))
        give_up(q, ctr, now_us);
}

void
port_flush(struct port_queue *q, uint64_t now_us)
{
    if (likely(q->ordered == NULL)) {
        if (q->tx_count > 0 || q->held_head != q->held_tail || q->impair_tx != NULL)
            flush(q, q->ctr, now_us);
        return;
    }
    lock_take(&q->port->tx_lock, q->ctr, CTR_LOCK_TX);
    flush(q->ordered, q->ctr, now_us);
    lock_give(&q->port->tx_lock);
}

uint64_t
port_next_us(const struct port_queue *q)
{
    uint64_t rx_us, tx_us;

    if (port_tx_holds(q))
        return 0;
    if (q->impair_rx == NULL)
        return UINT64_MAX;
    rx_us = impair_next_us(q->impair_rx);
    if (q->ordered != NULL)
        lock_take(&q->port->tx_lock, q->ctr, CTR_LOCK_TX);
    tx_us = impair_next_us(q->ordered != NULL ? q->ordered->impair_tx : q->impair_tx);
    if (q->ordered != NULL)
        lock_give(&q->port->tx_lock);
    return rx_us < tx_us ? rx_us : tx_us;
}

int
port_intr_register(struct port_queue *q, int epoll_fd)
{
    struct epoll_event event = { .events = EPOLLIN };

    if (!q->receives)
        return 0; /* nothing arrives that would have to wake the worker */
    if (!q->port->caps.rx_intr)
        return -ENOTSUP;
    q->intr_fd = q->wire_ops != NULL ? q->wire_ops->rx_fd(q->port)
                                     : rte_eth_dev_rx_intr_ctl_q_get_fd(q->port->port_id, q->queue_id);
    if (q->intr_fd < 0)
        return -ENOTSUP;
    q->intr_epoll_fd = epoll_fd;
    q->intr_armable = q->wire_ops == NULL && rte_eth_dev_rx_intr_disable(q->port->port_id, q->queue_id) == 0;
    event.data.fd = q->intr_fd;
    if (q->intr_armable && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, q->intr_fd, &event) != 0 && errno != EEXIST) {
        int rc = -errno;

        q->intr_fd = -1;
        return rc;
    }
    return 0;
}

/*
 * Where no call tells the driver (net_tap, the packet wire) the descriptor is the device itself: readable as long as a frame waits. It stands in the set only while somebody sleeps, since
 * each frame costs its sender a look at who waits.
 */
int
port_intr_arm(struct port_queue *q)
{
    struct epoll_event event = { .events = EPOLLIN, .data.fd = q->intr_fd };

    if (!q->receives)
        return 0;
    if (q->intr_fd < 0)
        return -ENOTSUP;
    if (q->intr_armable)
        return rte_eth_dev_rx_intr_enable(q->port->port_id, q->queue_id);
    return epoll_ctl(q->intr_epoll_fd, EPOLL_CTL_ADD, q->intr_fd, &event) == 0 || errno == EEXIST ? 0 : -errno;
}

void
port_intr_disarm(struct port_queue *q)
{
    uint64_t count;

    if (q->intr_fd < 0)
        return;
    if (!q->intr_armable) {
        epoll_ctl(q->intr_epoll_fd, EPOLL_CTL_DEL, q->intr_fd, NULL);
        return;
    }
    rte_eth_dev_rx_intr_disable(q->port->port_id, q->queue_id);
    /* An eventfd, non-blocking; whether it had fired does not matter, the worker polls next. */
    if (read(q->intr_fd, &count, sizeof(count)) < 0)
        return;
}
