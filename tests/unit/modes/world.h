/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TEST_WORLD_H
#define TEST_WORLD_H

#include "../sockets/back_net.h"

#include "core/rng.h"
#include "modes/mode.h"

/**
 * @file
 * Two hosts that run a mode, joined by a wire; their workers are polled by hand in one thread, on a virtual clock.
 */

#define PORT 80

/** The mode of the run; node 1's twin stands behind node 0's. */
struct run {
    const char *text;
    unsigned nb_workers;
    const struct mode_ops *ops;
    struct mode *mode[2];
    struct rng rng; /**< draws the order of the workers anew for each pass */
    const uint8_t *order; /**< or, for node 1, this says which worker alone is polled next, as long as it lasts */
    unsigned order_len, order_at;
    uint32_t still; /**< workers of node 1 that are not polled, as bits */
    struct impair_config
        impair; /**< what is wrong with the wire, both directions, besides the loss that world_init is told */
    uint32_t late_us; /**< a worker may be held up for so long between its look at the clock and its work */
    uint16_t nb_ports; /**< ephemeral ports that the hosts have; 0 = as ever */
};
extern struct run run;

struct world {
    struct lan net;
    struct fapp a, b; /* on nodes 0 and 1 */
};

void world_init(struct world *w, uint32_t loss_ppm);
/** The processes end; everything that they held must come back. */
void world_fini(struct world *w);
/** Assert what holds of every domain of both nodes between two passes. */
void assert_world_is_sound(const struct world *w);

uint32_t status(const struct fapp *fa, uint32_t slot);
uint16_t local_port(const struct fapp *fa, uint32_t slot);
uint32_t listen_on(struct fapp *fa, uint16_t port, bool reuseport);
uint32_t connect_to(struct fapp *from, const struct fapp *to, uint16_t port);
/** Sum over a node's workers. */
uint64_t counted(const struct world *w, unsigned node, enum counter_id id);

/** Bytes from one socket to another, each the function of connection and position. */
struct stream {
    struct fapp *from, *to;
    uint32_t tx, rx, conn;
    uint32_t sent, got;
};
/** Send and receive what fits, and compare; total is where it ends. */
void stream_step(struct stream *st, uint32_t total);
/** Move bytes on all streams at once, and compare each. */
void transfer_all(struct lan *net, struct stream *st, unsigned n, uint32_t total);

#endif /* TEST_WORLD_H */
