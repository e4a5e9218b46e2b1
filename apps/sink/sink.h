/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SINK_SINK_H
#define SINK_SINK_H

#include <stddef.h>
#include <stdint.h>

#include "core/port.h"

/**
 * @file
 * The sink wire (`--port sink,...`): a port of memory alone, behind which any address answers as `isobench serve` does (peer.h). With it one machine, and one
 * core, shows what a stack does without a second stack's cycles in the figure: what the wire itself costs is counted in sink.cycles.
 *
 * Each of the stack's workers has a queue pair. A connection belongs to one queue by a hash of its tuple, as the mode's steer= asks of a NIC (rss, port or soft); its peer's state is that queue's and under its
 * lock, since the stack may send from another worker than the one that receives.
 */

enum sink_offload { SINK_OFFLOAD_NONE, SINK_OFFLOAD_CSUM, SINK_OFFLOAD_TSO };

struct sink_config {
    uint32_t max_conns; /**< of each queue */
    uint32_t ack_segments;
    uint64_t window_bytes;
    int offload; /**< enum sink_offload: what the port does for the stack */
};

extern const struct port_wire_ops sink_wire_ops;

/**
 * Parse "window=256k,ack=2,...": the wire's knobs and, since every port has it, impair. Returns 0, or -EINVAL with one line in err.
 */
int sink_parse(const char *text, struct sink_config *cfg, struct impair_config *impair, char *err, size_t err_len);

#endif /* SINK_SINK_H */
