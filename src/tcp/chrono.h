/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_CHRONO_H
#define TCP_CHRONO_H

#include <stdint.h>

/**
 * @file
 * What a sender waited for, and how long: the times of TCP_INFO. Knows no connection.
 */
enum tcp_limit { TCP_LIMIT_IDLE, TCP_LIMIT_BUSY, TCP_LIMIT_WINDOW, TCP_LIMIT_BUFFER, TCP_LIMIT_COUNT };

struct tcp_chrono {
    uint64_t spent_us[TCP_LIMIT_COUNT - 1]; /**< busy, and of that by the peer's window and by the send buffer alone */
    uint64_t state; /**< since when, in microseconds, above two bits of enum tcp_limit */
};
_Static_assert(TCP_LIMIT_COUNT <= 4, "tcp_chrono.state");

static inline enum tcp_limit
tcp_chrono_now(const struct tcp_chrono *l)
{
    return (enum tcp_limit)(l->state & 3);
}

/** From now on it is `limit`. */
static inline void
tcp_chrono_set(struct tcp_chrono *l, enum tcp_limit limit, uint64_t now_us)
{
    enum tcp_limit was = tcp_chrono_now(l);

    if (was == limit)
        return;
    if (was != TCP_LIMIT_IDLE)
        l->spent_us[was - 1] += now_us - (l->state >> 2);
    l->state = now_us << 2 | limit;
}

/** Microseconds spent at `limit` until now_us; for TCP_LIMIT_BUSY those of all the others too. */
static inline uint64_t
tcp_chrono_spent_us(const struct tcp_chrono *l, enum tcp_limit limit, uint64_t now_us)
{
    uint64_t sum = 0;

    for (unsigned i = TCP_LIMIT_BUSY; i < TCP_LIMIT_COUNT; i++)
        if (limit == TCP_LIMIT_BUSY || i == (unsigned)limit)
            sum += l->spent_us[i - 1] + (tcp_chrono_now(l) == i ? now_us - (l->state >> 2) : 0);
    return sum;
}

#endif /* TCP_CHRONO_H */
