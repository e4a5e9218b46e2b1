/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_AGAIN_H
#define TCP_AGAIN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tcp/tcp.h"

/**
 * @file
 * What was sent again of late: a duplicate of anything else is a copy that the path has made, of which RFC 2883 section 5 and RFC 3708 section 3 have a sender
 * conclude nothing. Knows no connection.
 */
#define TCP_AGAIN_MAX 8

struct tcp_again {
    struct tcp_sack_block ranges[TCP_AGAIN_MAX]; /**< in the order of sending */
    uint32_t count;
};

/**
 * [start, end) has been sent again. What touches the last range lengthens it; where there is no room the oldest two become one, with all that lies between:
 * then too much is believed, not too little.
 */
static inline void
tcp_again_note(struct tcp_again *a, tcp_seq start, tcp_seq end)
{
    struct tcp_sack_block *r = a->ranges;

    /* Long ago: it would look like the future soon. */
    while (a->count > 0 && start - r[0].end > UINT32_MAX / 4 && seq_gt(start, r[0].end)) {
        memmove(&r[0], &r[1], (TCP_AGAIN_MAX - 1) * sizeof(r[0]));
        a->count--;
    }
    if (a->count > 0 && r[a->count - 1].end == start) {
        r[a->count - 1].end = end;
        return;
    }
    if (a->count == TCP_AGAIN_MAX) {
        r[1].start = seq_lt(r[0].start, r[1].start) ? r[0].start : r[1].start;
        r[1].end = seq_gt(r[0].end, r[1].end) ? r[0].end : r[1].end;
        memmove(&r[0], &r[1], (TCP_AGAIN_MAX - 1) * sizeof(r[0]));
        a->count--;
    }
    r[a->count++] = (struct tcp_sack_block){ start, end };
}

/** Whether some of [start, end) was sent again. */
static inline bool
tcp_again_has(const struct tcp_again *a, tcp_seq start, tcp_seq end)
{
    for (uint32_t i = 0; i < a->count; i++)
        if (seq_lt(start, a->ranges[i].end) && seq_gt(end, a->ranges[i].start))
            return true;
    return false;
}

#endif /* TCP_AGAIN_H */
