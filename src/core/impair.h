/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_IMPAIR_H
#define CORE_IMPAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include "core/counter.h"
#include "core/pktpool.h"

/**
 * @file
 * Impairment of a wire: loss, delay, reordering, duplication, corruption and a bottleneck, seeded, on any port. One
 * instance for each direction of a queue; it belongs to that queue's worker. Text form: `loss:1%,delay:10ms,reorder:2%,
 * dup:1%,corrupt:0.1%,rate:10M,queue:20ms,seed:7`; delay and queue take us, ms or s, rate bytes per second (k, M and G
 * are powers of 1000). Shares are parts per million inside.
 *
 * A rate makes a frame wait for those before it; one that would wait for longer than queue is dropped. A frame takes
 * its bytes and what Ethernet puts around them. What the bottleneck has let pass may be lost all the same.
 */
struct impair_config {
    uint32_t loss_ppm;
    uint32_t reorder_ppm;
    uint32_t dup_ppm;
    uint32_t corrupt_ppm;
    uint32_t delay_us; /**< in each direction */
    uint32_t queue_us; /**< the longest wait before the bottleneck; 20 ms if not given */
    uint64_t bytes_per_s; /**< the bottleneck's; 0 = there is none */
    uint64_t seed;
    bool enabled; /**< false <=> the wire is left alone */
};

/**
 * Parse the text form. Returns 0, or -EINVAL with one line in err that names the word and what is allowed.
 */
int impair_parse(const char *text, struct impair_config *cfg, char *err, size_t err_len);

struct impair;

/** stream tells the directions and queues apart, so that each draws its own numbers from one seed. */
struct impair *impair_create(const struct impair_config *cfg, uint32_t stream, struct pktpool *pool);
void impair_destroy(struct impair *im);

/** Take frames in; ownership passes. ctr: the caller's, since several workers may have one transmit queue. */
void impair_put(struct impair *im, struct rte_mbuf *const *pkts, uint16_t n, struct counters *ctr, uint64_t now_us);

/** Take out the frames that are due, oldest first, at most max; the caller owns them. */
uint16_t impair_get(struct impair *im, struct rte_mbuf **pkts, uint16_t max, uint64_t now_us);

/** When the next held frame is due; UINT64_MAX if none is held. */
uint64_t impair_next_us(const struct impair *im);

#endif /* CORE_IMPAIR_H */
