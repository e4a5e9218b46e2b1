/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_REPORT_H
#define SOCKETS_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "sockets/stack.h"

/**
 * @file
 * What the tools show of a stack, as text. Any thread but the worker. The worker is asked for a page of
 * connections at a time, so that it is never held long; connections may come and go between pages.
 */

enum report_flags {
    REPORT_NO_HEADER = 1, /**< without the line of column names (ss -H) */
    REPORT_LISTEN = 2, /**< listeners only (ss -l); without it neither these nor half-open and TIME-WAIT ones */
    REPORT_ALL = 4, /**< everything (ss -a) */
};

/**
 * Columns as `ss -tip`: state, queues, addresses, owner; then, for connections, an indented line with the congestion control's
 * name, scales, times in milliseconds, windows and counts. Returns 0, or -ESHUTDOWN if the worker has ended.
 */
int report_ss(struct host *h, FILE *out, unsigned flags);

/** A line for each counter that is not zero: name, sum; then one column for each worker if there are several. json: an object
 *  with "total" and "workers", every counter in it, on one line. */
void report_stats(const struct host *h, FILE *out, bool json);

/** What ICMP has told of paths, as `ip route show cache`: destination, MTU, for how many seconds it still counts. Returns 0, or -ESHUTDOWN. */
int report_paths(struct host *h, FILE *out);

/** Listeners, connections and memory in use: "name value" lines. Returns 0, or -ESHUTDOWN. */
int report_usage(struct host *h, FILE *out);

#endif /* SOCKETS_REPORT_H */
