/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_TELEMETRY_H
#define CORE_TELEMETRY_H

/**
 * @file
 * The counters in rte_telemetry (`dpdk-telemetry.py -f PREFIX`):
 *   /isosock/counters        sum over all workers
 *   /isosock/counters,NAME   one worker's
 *   /isosock/workers         the names
 * Telemetry's names have no dots: `port.rx_pkts` appears as `port/rx_pkts`.
 */

/** Register the commands; once, after the EAL has started. Returns 0 or -errno. */
int telemetry_init(void);

#endif /* CORE_TELEMETRY_H */
