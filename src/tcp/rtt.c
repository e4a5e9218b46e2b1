/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/rtt.h"

void
tcp_rtt_init(struct tcp_rtt *r, uint32_t rto_initial_us)
{
    *r = (struct tcp_rtt){ .rto_us = rto_initial_us, .min_us = UINT32_MAX };
}

static void
set_rto(struct tcp_rtt *r, uint32_t rto_min_us, uint32_t rto_max_us)
{
    /* The floor is on the variance term, as RFC 6298's G is: a path of 1 s and no jitter keeps a margin. */
    uint64_t margin = 4ull * r->var_us;
    uint64_t rto = r->srtt_us + (margin > rto_min_us ? margin : rto_min_us);
    r->rto_us = rto > rto_max_us ? rto_max_us : (uint32_t)rto;
}

void
tcp_rtt_sample(struct tcp_rtt *r, uint32_t rtt_us, uint32_t rto_min_us, uint32_t rto_max_us)
{
    /* Keeps the sums below from overflowing; no such sample is sound. */
    if (rtt_us > rto_max_us)
        rtt_us = rto_max_us;
    if (rtt_us == 0)
        rtt_us = 1;
    if (rtt_us < r->min_us)
        r->min_us = rtt_us;
    if (r->srtt_us == 0) {
        r->srtt_us = rtt_us;
        r->var_us = rtt_us / 2;
    } else {
        uint32_t err = rtt_us > r->srtt_us ? rtt_us - r->srtt_us : r->srtt_us - rtt_us;
        r->var_us = (uint32_t)((3ull * r->var_us + err) / 4);
        r->srtt_us = (uint32_t)((7ull * r->srtt_us + rtt_us) / 8);
        if (r->srtt_us == 0)
            r->srtt_us = 1;
    }
    set_rto(r, rto_min_us, rto_max_us);
}

void
tcp_rtt_min(struct tcp_rtt *r, struct tcp_rtt_window *w, uint32_t rtt_us, uint32_t now_us)
{
    if (rtt_us == 0)
        rtt_us = 1;
    if (w->min_us == 0) {
        w->from_us = now_us;
        w->min_us = w->before_us = rtt_us < r->min_us ? rtt_us : r->min_us;
    } else if (now_us - w->from_us > TCP_RTT_WINDOW_US) {
        w->from_us = now_us;
        w->before_us = w->min_us;
        w->min_us = rtt_us;
    } else if (rtt_us < w->min_us) {
        w->min_us = rtt_us;
    }
    r->min_us = w->min_us < w->before_us ? w->min_us : w->before_us;
}

uint32_t
tcp_rtt_backed_off(const struct tcp_rtt *r, unsigned backoff, uint32_t max_us)
{
    uint64_t rto = (uint64_t)r->rto_us << (backoff > 20 ? 20 : backoff);

    return rto > max_us ? max_us : (uint32_t)rto;
}
