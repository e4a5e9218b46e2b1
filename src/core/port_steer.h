/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_PORT_STEER_H
#define CORE_PORT_STEER_H

#include <rte_ethdev.h>
#include <rte_flow.h>

#include "core/port.h"

/**
 * @file
 * How a port's frames get divided over its queues. For port.c, and for the tests of the arithmetic.
 */

/** The Toeplitz key that ports are given. */
extern const uint8_t port_steer_key[STEER_KEY_BYTES];

/** Can the port do it as far as it tells before it is started? */
bool port_steer_possible(const struct port *p, const struct rte_eth_dev_info *info, enum port_steer steer);

/** What it takes of the device's configuration. key must live until the device is configured; STEER_KEY_MAX bytes. */
#define STEER_KEY_MAX 64u
void port_steer_configure(const struct port *p, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf,
                          uint8_t *key);

/** After the start: fill table or filters; sets steer_buckets and rss_key. Returns 0, or -errno when the driver refused. */
int port_steer_apply(struct port *p, const struct rte_eth_dev_info *info);

/** Filter number i of port_steer_filters(p): which TCP segments it takes, and to which queue. */
struct port_filter {
    struct rte_flow_item_tcp spec, mask;
    uint16_t queue;
};
uint32_t port_steer_filters(const struct port *p);
struct port_filter port_steer_filter(const struct port *p, uint32_t i);

#endif /* CORE_PORT_STEER_H */
