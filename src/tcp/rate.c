/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/rate.h"

void
tcp_rate_on_ack(struct tcp_rate *r, const struct tcp_rate_mark *m, uint32_t sent_us, uint32_t bytes,
                uint32_t min_rtt_us, uint32_t now_us, struct tcp_rate_sample *s)
{
    *s = (struct tcp_rate_sample){ .valid = false };
    if (bytes == 0)
        return;
    r->delivered_bytes += bytes;
    r->delivered_us = now_us;
    if (r->limited != 0 && (int32_t)(r->delivered_bytes - r->limited_until) > 0)
        r->limited = 0;
    if (m == NULL)
        return;
    s->valid = true;
    s->prior_delivered_bytes = m->delivered_bytes;
    s->delivered_bytes = r->delivered_bytes - m->delivered_bytes;
    s->lost_bytes = r->lost_bytes - m->lost_bytes;
    s->inflight_bytes = m->inflight_bytes;
    s->app_limited = m->app_limited != 0;
    uint32_t sending_us = sent_us - m->first_sent_us;
    uint32_t arriving_us = now_us - m->delivered_us;
    uint32_t interval_us = sending_us > arriving_us ? sending_us : arriving_us;
    r->first_sent_us = sent_us;
    if (interval_us == 0 || (min_rtt_us != UINT32_MAX && interval_us < min_rtt_us))
        return;
    s->interval_us = interval_us;
    /* A sample that the application held low says something only if it is the largest. */
    if (!s->app_limited || (uint64_t)s->delivered_bytes * r->info_us >= (uint64_t)r->info_bytes * interval_us) {
        r->info_bytes = s->delivered_bytes;
        r->info_us = interval_us;
        r->info_limited = s->app_limited;
    }
}
