/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_ring.h>

#include "core/memfd.h"

#define REGION_ALIGN 4096u

static struct {
    pthread_mutex_t lock;
    struct arena *first;
} idle = { .lock = PTHREAD_MUTEX_INITIALIZER };

static uint64_t
place(uint64_t *end, uint64_t bytes, uint64_t align)
{
    uint64_t at = RTE_ALIGN_CEIL(*end, align);

    *end = at + bytes;
    return at;
}

static void
layout_init(struct shm_layout *l, const struct arena_config *cfg)
{
    uint64_t front = 0;
    uint64_t back = 0;
    uint32_t ring = (uint32_t)(sizeof(struct rte_ring) + SHM_RING_ENTRIES * sizeof(uint32_t));

    memset(l, 0, sizeof(*l));
    l->version = SHM_VERSION;
    l->max_socks = cfg->max_socks;
    l->nb_chunks = cfg->tx_chunks;
    l->nb_smalls = RTE_MIN(cfg->max_socks, SHM_MAX_SMALLS);
    l->nb_rings_per_instance = cfg->nb_rings;
    l->nb_instances = cfg->nb_instances;
    l->ring_bytes = RTE_ALIGN_CEIL(ring, (uint32_t)RTE_CACHE_LINE_SIZE);

    l->front_rings_off =
        place(&front, (uint64_t)l->ring_bytes * cfg->nb_rings * cfg->nb_instances, RTE_CACHE_LINE_SIZE);
    l->front_eventqs_off = place(&front, SHM_MAX_EVENTQS * sizeof(struct shm_front_eventq), RTE_CACHE_LINE_SIZE);
    l->front_private_off = place(&front, SHM_FRONT_PRIVATE_BYTES(cfg->max_socks, cfg->tx_chunks), REGION_ALIGN);
    l->front_keys_off = place(&front, SHM_INFO_SLOTS * sizeof(struct shm_key), RTE_CACHE_LINE_SIZE);
    l->front_socks_off = place(&front, (uint64_t)cfg->max_socks * sizeof(struct shm_front_sock), RTE_CACHE_LINE_SIZE);
    l->front_more_off = place(&front, (uint64_t)cfg->max_socks * sizeof(struct shm_front_more), REGION_ALIGN);
    l->front_chunks_off = place(&front, (uint64_t)cfg->tx_chunks * SHM_CHUNK_BYTES, REGION_ALIGN);
    l->front_smalls_off = place(&front, (uint64_t)l->nb_smalls * SHM_SMALL_BYTES, REGION_ALIGN);
    l->front_bytes = RTE_ALIGN_CEIL(front, (uint64_t)REGION_ALIGN);

    l->back_eventqs_off = place(&back, SHM_MAX_EVENTQS * sizeof(struct shm_back_eventq), RTE_CACHE_LINE_SIZE);
    l->back_info_off = place(&back, SHM_INFO_SLOTS * sizeof(struct shm_info), RTE_CACHE_LINE_SIZE);
    l->back_socks_off = place(&back, (uint64_t)cfg->max_socks * sizeof(struct shm_back_sock), RTE_CACHE_LINE_SIZE);
    l->back_more_off = place(&back, (uint64_t)cfg->max_socks * sizeof(struct shm_back_more), REGION_ALIGN);
    l->back_names_off = place(&back, (uint64_t)cfg->max_socks * sizeof(struct shm_back_name), REGION_ALIGN);
    l->back_bytes = RTE_ALIGN_CEIL(back, (uint64_t)REGION_ALIGN);

    l->pool_bytes = cfg->pool_bytes;
    l->stack_bytes = cfg->stack_bytes;
}

/* Size and seals are final when this returns: neither side can make the other's access fault. */
static int
region_create(const char *name, uint64_t bytes, int seals, char **base, int *out_fd)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *map;
    int rc;

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)bytes) != 0)
        goto fail;
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (map == MAP_FAILED)
        goto fail;
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | seals) != 0) {
        rc = -errno;
        munmap(map, bytes);
        close(fd);
        return rc;
    }
    *base = map;
    *out_fd = fd;
    return 0;
fail:
    rc = -errno;
    close(fd);
    return rc;
}

static void
arena_free(struct arena *a)
{
    arena_close_fds(a);
    if (a->front != NULL)
        munmap(a->front, a->layout.front_bytes);
    if (a->back != NULL)
        munmap(a->back, a->layout.back_bytes);
    free(a);
}

/* The last packet that shared ext[i] is gone, and so is the application: the last of these parks the arena. */
static void
on_ext_free(void *addr, void *opaque)
{
    struct arena *a = opaque;

    (void)addr;
    if (__atomic_sub_fetch(&a->ext_live, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    pthread_mutex_lock(&idle.lock);
    a->next = idle.first;
    idle.first = a;
    pthread_mutex_unlock(&idle.lock);
}

static int
rings_init(struct arena *a)
{
    for (uint32_t i = 0; i < a->layout.nb_rings_per_instance * a->layout.nb_instances; i++) {
        void *at = a->front + a->layout.front_rings_off + (uint64_t)i * a->layout.ring_bytes;
        int rc = rte_ring_init(at, "notify", SHM_RING_ENTRIES, RING_F_SC_DEQ);

        if (rc != 0)
            return rc;
    }
    return 0;
}

int
arena_create(struct arena **out, const struct arena_config *cfg)
{
    struct arena *a;
    int rc;

    if (cfg->max_socks == 0 || cfg->max_socks > SHM_MAX_SLOTS || cfg->tx_chunks == 0 ||
        cfg->tx_chunks > SHM_MAX_CHUNKS || cfg->nb_rings > SHM_MAX_CPUS || cfg->nb_instances == 0 ||
        cfg->nb_instances > SHM_MAX_INSTANCES)
        return -EINVAL;
    a = calloc(1, sizeof(*a));
    if (a == NULL)
        return -ENOMEM;
    a->front_fd = a->back_fd = -1;
    layout_init(&a->layout, cfg);
    rc = region_create("isosock-front", a->layout.front_bytes, 0, &a->front, &a->front_fd);
    if (rc == 0)
        rc = region_create("isosock-back", a->layout.back_bytes, F_SEAL_FUTURE_WRITE, &a->back, &a->back_fd);
    if (rc == 0)
        rc = rings_init(a);
    if (rc != 0) {
        arena_free(a);
        return rc;
    }
    a->ext_live = ARENA_EXT_COUNT;
    for (unsigned i = 0; i < ARENA_EXT_COUNT; i++) {
        a->ext[i].free_cb = on_ext_free;
        a->ext[i].fcb_opaque = a;
        rte_mbuf_ext_refcnt_set(&a->ext[i], 1);
    }
    *out = a;
    return 0;
}

void
arena_close_fds(struct arena *a)
{
    if (a->front_fd >= 0)
        close(a->front_fd);
    if (a->back_fd >= 0)
        close(a->back_fd);
    a->front_fd = a->back_fd = -1;
}

int
arena_back_readonly_fd(const struct arena *a)
{
    return memfd_readonly(a->back_fd);
}

bool
arena_attach(struct arena *a, struct rte_mbuf *m, void *addr, uint16_t len, bool alone)
{
    for (unsigned i = 0; i < ARENA_EXT_COUNT; i++) {
        struct rte_mbuf_ext_shared_info *ext = &a->ext[i];

        if (unlikely(rte_mbuf_ext_refcnt_read(ext) >= ARENA_EXT_MAX_REFS))
            continue;
        /*
         * DPDK's own function does not add atomically to a count of 1, but workers attach at the same time. Who is alone sends what it attaches too, so that nobody else changes the
         * count meanwhile; an atomic addition waits until all that was written before has left the store buffer.
         */
        if (alone)
            rte_mbuf_ext_refcnt_set(ext, (uint16_t)(rte_mbuf_ext_refcnt_read(ext) + 1));
        else
            __atomic_add_fetch(&ext->refcnt, 1, __ATOMIC_ACQ_REL);
        rte_pktmbuf_attach_extbuf(m, addr, (rte_iova_t)(uintptr_t)addr, len, ext);
        m->data_off = 0;
        m->data_len = len;
        m->pkt_len = len;
        return true;
    }
    return false;
}

void
arena_release(struct arena *a)
{
    for (unsigned i = 0; i < ARENA_EXT_COUNT; i++)
        if (rte_mbuf_ext_refcnt_update(&a->ext[i], -1) == 0)
            on_ext_free(NULL, a);
}

unsigned
arena_reap(void)
{
    struct arena *a;
    unsigned n = 0;

    pthread_mutex_lock(&idle.lock);
    a = idle.first;
    idle.first = NULL;
    pthread_mutex_unlock(&idle.lock);
    while (a != NULL) {
        struct arena *next = a->next;

        arena_free(a);
        a = next;
        n++;
    }
    return n;
}
