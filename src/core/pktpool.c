/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ether.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_memory.h>

#include "core/log.h"
#include "core/memfd.h"
#include "core/pktpool.h"

#define DATA_MIN_BYTES 2048u
#define CACHE_MAX 256u
/* mbuf lengths are 16 bits wide; what is longer comes in a chain. */
#define BUF_MAX_BYTES (UINT16_MAX / RTE_CACHE_LINE_SIZE * RTE_CACHE_LINE_SIZE)

static uint32_t
buf_bytes_for(uint16_t mtu)
{
    uint32_t frame = mtu + RTE_ETHER_HDR_LEN + RTE_VLAN_HLEN + RTE_ETHER_CRC_LEN;
    uint32_t data = frame > DATA_MIN_BYTES ? frame : DATA_MIN_BYTES;
    uint32_t bytes = RTE_ALIGN_CEIL(RTE_PKTMBUF_HEADROOM + data, (uint32_t)RTE_CACHE_LINE_SIZE);

    return bytes < BUF_MAX_BYTES ? bytes : BUF_MAX_BYTES;
}

/* Each step of Newton's doubles the bits that are right, of which an odd number has three as its own inverse. */
static uint32_t
inverse_of(uint32_t odd)
{
    uint32_t x = odd;

    for (unsigned bits = 3; bits < 32; bits *= 2)
        x *= 2 - odd * x;
    return x;
}

/*
 * A sealed memfd of at least `bytes`, mapped. Page size as asked for. With F_SEAL_FUTURE_WRITE, which leaves the
 * mapping made here writable, no descriptor of it can ever be mapped for writing again: one that is open for reading
 * alone would not be enough, since its holder may reopen it through /proc.
 */
static int
map_memfd(struct pktpool *p, size_t bytes, size_t page_bytes, unsigned memfd_flags)
{
    size_t size = RTE_ALIGN_CEIL(bytes, page_bytes);
    int fd = memfd_create("isosock-rx", MFD_CLOEXEC | MFD_ALLOW_SEALING | memfd_flags);
    void *base;
    int rc;

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) != 0)
        goto fail;
    base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        goto fail;
    if (fchmod(fd, S_IRUSR) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0) {
        rc = -errno;
        munmap(base, size);
        close(fd);
        return rc;
    }
    p->fd = fd;
    p->base = base;
    p->bytes = size;
    return 0;
fail:
    rc = -errno;
    close(fd);
    return rc;
}

/* Huge pages if the kernel grants them (mmap reserves them, so that no later access can fail), else ordinary ones. */
static int
map_data(struct pktpool *p, size_t bytes, size_t *page_bytes)
{
    *page_bytes = (size_t)2 << 20;
    if (rte_eal_has_hugepages() && map_memfd(p, bytes, *page_bytes, MFD_HUGETLB | MFD_HUGE_2MB) == 0)
        return 0;
    *page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    return map_memfd(p, bytes, *page_bytes, 0);
}

struct index_check {
    struct pktpool *p;
    bool ok;
};

/* The handle arithmetic relies on the pool having placed one mbuf on each buffer; trust that only when seen. */
static void
index_mbuf(struct rte_mempool *mp, void *opaque, void *obj, unsigned obj_idx)
{
    struct index_check *check = opaque;
    struct pktpool *p = check->p;
    struct rte_mbuf *m = obj;
    uint64_t offset = pktpool_offset(p, m->buf_addr);

    (void)mp;
    (void)obj_idx;
    if (offset % p->buf_bytes != 0 || offset / p->buf_bytes >= p->count || m->buf_len != p->buf_bytes ||
        p->by_handle[pktpool_handle(p, m)] != NULL) {
        check->ok = false;
        return;
    }
    p->by_handle[pktpool_handle(p, m)] = m;
}

/*
 * The buffer freed last is the next one used: it is in a cache, and memory that no burst has asked for is never touched. With DPDK's own choice, a ring, every
 * buffer has its turn, and each frame meets one that is cold. A choice by the EAL's --mbuf-pool-ops-name goes before this one.
 */
static void
choose_order(void)
{
    static const char name[] = "stack";

    for (unsigned i = 0; i < rte_mempool_ops_table.num_ops; i++)
        if (strcmp(rte_mempool_ops_table.ops[i].name, name) == 0)
            rte_mbuf_set_platform_mempool_ops(name);
}

static unsigned
cache_size(uint32_t count)
{
    return count / 8 < CACHE_MAX ? count / 8 : CACHE_MAX;
}

static int
create_rx(struct pktpool *p, const char *name, int socket_id, size_t page_bytes)
{
    struct rte_pktmbuf_extmem ext = { .buf_ptr = p->base,
                                      .buf_iova = (rte_iova_t)(uintptr_t)p->base,
                                      .buf_len = p->bytes,
                                      .elt_size = (uint16_t)p->buf_bytes };
    struct index_check check = { .p = p, .ok = true };
    char pool_name[RTE_MEMPOOL_NAMESIZE];

    if (rte_extmem_register(p->base, p->bytes, NULL, 0, page_bytes) != 0)
        return -rte_errno;
    snprintf(pool_name, sizeof(pool_name), "%s_rx", name);
    p->rx = rte_pktmbuf_pool_create_extbuf(pool_name, p->count, cache_size(p->count), 0, (uint16_t)p->buf_bytes,
                                           socket_id, &ext, 1);
    if (p->rx == NULL) {
        int rc = -rte_errno;

        rte_extmem_unregister(p->base, p->bytes);
        return rc;
    }
    rte_mempool_obj_iter(p->rx, index_mbuf, &check);
    if (!check.ok) {
        LOG_ERR("pool %s: buffers do not lie back to back", pool_name);
        return -ENOTSUP;
    }
    return 0;
}

int
pktpool_create(struct pktpool *p, const char *name, uint32_t count, uint16_t mtu, int socket_id)
{
    char pool_name[RTE_MEMPOOL_NAMESIZE];
    size_t page_bytes;
    int rc;

    memset(p, 0, sizeof(*p));
    p->fd = -1;
    if (rte_eal_iova_mode() != RTE_IOVA_VA)
        return -ENOTSUP;
    p->count = count;
    p->buf_bytes = buf_bytes_for(mtu);
    p->buf_shift = (uint32_t)__builtin_ctz(p->buf_bytes);
    p->buf_inverse = inverse_of(p->buf_bytes >> p->buf_shift);
    p->by_handle = calloc((size_t)count + 1, sizeof(p->by_handle[0]));
    if (p->by_handle == NULL)
        return -ENOMEM;
    choose_order();
    rc = map_data(p, (size_t)count * p->buf_bytes, &page_bytes);
    if (rc == 0)
        rc = create_rx(p, name, socket_id, page_bytes);
    if (rc == 0) {
        snprintf(pool_name, sizeof(pool_name), "%s_tx", name);
        p->tx = rte_pktmbuf_pool_create(pool_name, count, cache_size(count), 0, RTE_PKTMBUF_HEADROOM + PKTPOOL_TX_ROOM,
                                        socket_id);
        rc = p->tx == NULL ? -rte_errno : 0;
    }
    if (rc != 0)
        pktpool_destroy(p);
    return rc;
}

void
pktpool_destroy(struct pktpool *p)
{
    rte_mempool_free(p->tx);
    if (p->rx != NULL) {
        rte_mempool_free(p->rx);
        rte_extmem_unregister(p->base, p->bytes);
    }
    if (p->base != NULL)
        munmap(p->base, p->bytes);
    if (p->fd >= 0)
        close(p->fd);
    free(p->by_handle);
    memset(p, 0, sizeof(*p));
    p->fd = -1;
}

int
pktpool_readonly_fd(const struct pktpool *p)
{
    return memfd_readonly(p->fd);
}

/* What a copy takes over besides the bytes; that its own data lies in an external buffer stays true. */
static void
copy_metadata(struct rte_mbuf *to, const struct rte_mbuf *from)
{
    const uint64_t placement = RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_INDIRECT;

    to->port = from->port;
    to->packet_type = from->packet_type;
    to->tx_offload = from->tx_offload;
    to->vlan_tci = from->vlan_tci;
    to->vlan_tci_outer = from->vlan_tci_outer;
    to->hash = from->hash;
    to->ol_flags = (to->ol_flags & placement) | (from->ol_flags & ~placement);
}

struct rte_mbuf *
pktpool_copy(struct pktpool *p, const struct rte_mbuf *m)
{
    struct rte_mbuf *first = rte_pktmbuf_alloc(p->rx);
    struct rte_mbuf *last = first;

    if (first == NULL)
        return NULL;
    copy_metadata(first, m);
    for (const struct rte_mbuf *seg = m; seg != NULL; seg = seg->next) {
        uint16_t done = 0;

        while (done < seg->data_len) {
            uint16_t room = rte_pktmbuf_tailroom(last);
            uint16_t n = (uint16_t)(seg->data_len - done);

            if (room == 0) {
                struct rte_mbuf *next = rte_pktmbuf_alloc(p->rx);

                if (next == NULL) {
                    rte_pktmbuf_free(first);
                    return NULL;
                }
                last->next = next;
                last = next;
                first->nb_segs++;
                room = rte_pktmbuf_tailroom(last);
            }
            if (n > room)
                n = room;
            memcpy(rte_pktmbuf_mtod_offset(last, char *, last->data_len), rte_pktmbuf_mtod_offset(seg, char *, done),
                   n);
            last->data_len = (uint16_t)(last->data_len + n);
            done = (uint16_t)(done + n);
        }
    }
    first->pkt_len = m->pkt_len;
    return first;
}
