/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/pace.h"

/** As large as offloads take. */
#define BURST_BYTES_MAX 65536u
#define BURSTS_PER_S 1000u

/** However low the rate, a segment is not held back for longer. */
#define WAIT_MAX_NS (60ull * 1000000000)

void
tcp_pace_sent(struct tcp_pace *p, uint32_t bytes, uint64_t now_us)
{
    uint64_t now_ns = now_us * 1000;
    uint64_t credit_ns = (p->held ? TCP_PACE_LATE_US : TCP_PACE_CREDIT_US) * 1000ull;
    uint64_t from_ns = now_ns > credit_ns ? now_ns - credit_ns : 0;

    if (p->bytes_per_s == 0)
        return;
    if (p->next_ns > from_ns)
        from_ns = p->next_ns;
    uint64_t cost_ns = bytes * 1000000000ull / p->bytes_per_s;
    p->next_ns = from_ns + (cost_ns < WAIT_MAX_NS ? cost_ns : WAIT_MAX_NS);
    if (p->next_ns > now_ns)
        p->held = 0;
}

uint32_t
tcp_pace_burst(const struct tcp_pace *p, uint32_t mss_bytes, uint32_t min_segs)
{
    uint64_t burst = p->bytes_per_s / BURSTS_PER_S;
    uint64_t least = (uint64_t)min_segs * mss_bytes;

    if (burst > BURST_BYTES_MAX)
        burst = BURST_BYTES_MAX;
    if (burst < least)
        burst = least;
    return (uint32_t)(burst - burst % mss_bytes);
}
