/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/rtt.h"

void
tcp_rtt_init(struct tcp_rtt *r, uint32_t rto_initial_us)
{
    *r = (struct tcp_rtt){ .rto_us = rto_initial_us, .min_us = UINT32_MAX };
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
