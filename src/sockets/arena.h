/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_ARENA_H
#define SOCKETS_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include "sockets/shm.h"

/**
 * @file
 * The two memory regions of one application (sockets/shm.h: front and back), and the references that packets in flight hold on them. An
 * arena outlives its application until the last packet that points into it has been freed.
 */

struct arena_config {
    uint32_t max_socks; /**< 1 .. 2^20 */
    uint32_t tx_chunks; /**< 1 .. SHM_MAX_CHUNKS */
    uint32_t nb_rings; /**< per instance, at most SHM_MAX_CPUS; 0 where threads that notify run the stack themselves */
    uint32_t nb_instances; /**< workers, 1 .. SHM_MAX_INSTANCES */
    uint64_t pool_bytes; /**< sizes of the shared regions, for the layout */
    uint64_t stack_bytes;
};

/* A 16-bit count of references is too small for a busy application, so there are several; each holds 1 for the arena. */
#define ARENA_EXT_COUNT 8
#define ARENA_EXT_MAX_REFS 60000

struct arena {
    struct shm_layout layout;
    char *front; /**< as the stack maps them, read-write */
    char *back;
    int front_fd; /**< sealed against change of size; -1 once closed */
    int back_fd; /**< and against any further mapping for writing */
    uint32_t ext_live; /**< entries of ext[] that are still referenced; atomic */
    struct rte_mbuf_ext_shared_info ext[ARENA_EXT_COUNT];
    struct arena *next; /**< in the list of those that wait for arena_reap */
};

/** Make both regions and the rings. Control path, any thread. Returns 0 and *out, or -ENOMEM, -ENFILE, -EMFILE, -EINVAL. */
int arena_create(struct arena **out, const struct arena_config *cfg);

/** Close the descriptors, once the application has its own. Thread of arena_create. */
void arena_close_fds(struct arena *a);

/** A descriptor of the back region that can only be mapped for reading; the caller closes it. Or -errno. Control path. */
int arena_back_readonly_fd(const struct arena *a);

/**
 * Attach len bytes (1 .. 65535) at addr, which lie in the front region, to an empty mbuf of a transmit pool. A worker's thread; alone: there is no other worker. False if too
 * many packets refer to the arena.
 */
bool arena_attach(struct arena *a, struct rte_mbuf *m, void *addr, uint16_t len, bool alone);

/** Give up the application's hold. The worker's thread, or any when no worker runs. The arena is freed by arena_reap when the last packet is. */
void arena_release(struct arena *a);

/** Unmap and free what has no references left. Any thread but a worker, since unmapping takes long; returns how many. */
unsigned arena_reap(void);

#endif /* SOCKETS_ARENA_H */
