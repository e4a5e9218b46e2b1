/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_PKTPOOL_H
#define CORE_PKTPOOL_H

#include <stddef.h>
#include <stdint.h>

#include <rte_mbuf.h>

/**
 * @file
 * Packet pools.
 *
 * The receive pool's data lies in one memfd, so that applications can map it read-only and copy received bytes
 * out by themselves; the mbuf structures stay private to the stack. A buffer is named by a 32-bit handle (its
 * position in the memfd), which is what the TCP domain stores in place of a pointer.
 *
 * Layout of the memfd: `count` buffers of `buf_bytes` each, back to back, buffer 0 at offset 0.
 *
 * The transmit pool is ordinary memory: header mbufs with room for headers and small payloads. Payload that stays
 * in an application's arena is attached with rte_pktmbuf_attach_extbuf.
 */

#define PKTPOOL_NO_BUF 0u /**< handle that names no buffer: handles are 1 + index */

struct pktpool {
    struct rte_mempool *rx; /**< for ports and for local delivery */
    struct rte_mempool *tx; /**< for headers, and small copied payloads (PKTPOOL_TX_ROOM bytes) */
    struct rte_mbuf **by_handle; /**< count + 1 entries */
    char *base; /**< the memfd as the stack maps it, read-write */
    size_t bytes; /**< size of the memfd */
    uint32_t buf_bytes; /**< size of one buffer, headroom included */
    uint32_t buf_shift; /**< buf_bytes is this power of two times an odd number, */
    uint32_t buf_inverse; /**< whose inverse modulo 2^32 this is */
    uint32_t count;
    uint32_t nb_late; /**< received frames of this pass whose payload is still outside: see port_rx_rest */
    uint32_t held; /**< of these, what stands in the receive rings of ports: added by port_start, before packets flow */
    int fd; /**< memfd, sealed against shrinking, growing and any further writable mapping */
};

#define PKTPOOL_TX_ROOM 512u

/**
 * Receive buffers that may be in use beside the ports' rings. Limits on what packets are kept are shares of this: a port that finds no
 * buffer takes no frame, so not even the acknowledgement that would free one.
 */
static inline uint32_t
pktpool_budget(const struct pktpool *p)
{
    return p->count > p->held ? p->count - p->held : 0;
}

/**
 * Create both pools. count: receive buffers; mtu: sizes a buffer so that one frame fits (at least 2 KiB of data).
 * Control path, main thread, after eal_start. Returns 0 or -errno: -ENOMEM no memory, -EEXIST the name is taken,
 * -ENOTSUP the EAL runs with --iova-mode=pa, -EINVAL the kernel cannot seal (older than 5.1).
 */
int pktpool_create(struct pktpool *p, const char *name, uint32_t count, uint16_t mtu, int socket_id);
void pktpool_destroy(struct pktpool *p);

/**
 * A second descriptor of the memfd, open for reading alone: what an application gets. It cannot be turned into
 * a writable mapping, also not by reopening it. Any thread; the caller closes it. Or -errno of open().
 */
int pktpool_readonly_fd(const struct pktpool *p);

/** The division is exact, since buf_addr is where a buffer begins: a shift and a multiplication do it. */
static inline uint32_t
pktpool_handle(const struct pktpool *p, const struct rte_mbuf *m)
{
    return (uint32_t)(((uintptr_t)m->buf_addr - (uintptr_t)p->base) >> p->buf_shift) * p->buf_inverse + 1;
}

static inline struct rte_mbuf *
pktpool_mbuf(const struct pktpool *p, uint32_t handle)
{
    return p->by_handle[handle];
}

/** Offset in the memfd of an address inside a receive buffer. */
static inline uint64_t
pktpool_offset(const struct pktpool *p, const void *addr)
{
    return (uint64_t)((const char *)addr - p->base);
}

/** Where a buffer begins. */
static inline char *
pktpool_buf(const struct pktpool *p, uint32_t handle)
{
    return p->base + (uint64_t)(handle - 1) * p->buf_bytes;
}

/**
 * Copy a packet (any pool, any number of segments) into fresh receive buffers, chained if it exceeds one; the
 * original is left alone. NULL if no buffer is free. For wires on which an mbuf is the peer's mbuf (net_ring) and
 * for local delivery, whose payload lies in the sender's arena.
 */
struct rte_mbuf *pktpool_copy(struct pktpool *p, const struct rte_mbuf *m);

#endif /* CORE_PKTPOOL_H */
