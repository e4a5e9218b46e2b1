/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/rate.h"

void
tcp_rate_on_send(struct tcp_rate *r, struct tcp_rate_mark *m, uint32_t bytes, uint32_t flight_bytes, uint32_t now_us)
{
    /* A flight begins: what lies before is no part of any interval. */
    if (flight_bytes == 0)
        r->first_sent_us = r->delivered_us = now_us;
    *m = (struct tcp_rate_mark){
        .delivered_bytes = r->delivered_bytes,
        .lost_bytes = r->lost_bytes,
        .delivered_us = r->delivered_us,
        .first_sent_us = r->first_sent_us,
        .inflight_bytes = (flight_bytes + bytes) & INT32_MAX,
        .app_limited = r->limited & 1,
    };
}

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
    s->bytes_per_s = s->delivered_bytes * 1000000ull / interval_us;
    /* A sample that the application held low says something only if it is the largest. */
    if (!s->app_limited || s->bytes_per_s >= r->bytes_per_s) {
        r->bytes_per_s = s->bytes_per_s;
        r->info_limited = s->app_limited;
    }
}

void
tcp_rate_app_limited(struct tcp_rate *r, uint32_t inflight_bytes)
{
    r->limited = 1;
    r->limited_until = r->delivered_bytes + inflight_bytes;
}
