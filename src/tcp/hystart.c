/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/hystart.h"

/** The constants of RFC 9406 section 4.3. */
#define MIN_RTT_THRESH_US 4000u
#define MAX_RTT_THRESH_US 16000u
#define MIN_RTT_DIVISOR 8
#define N_RTT_SAMPLE 8
#define CSS_ROUNDS 5

static void
begin_round(struct tcp_hystart *h, const struct tcp_cc_event *ev)
{
    h->round_end = ev->snd_nxt;
    h->last_min_us = h->min_us;
    h->min_us = 0;
    h->samples = 0;
}

enum tcp_hystart_verdict
tcp_hystart_on_ack(struct tcp_hystart *h, const struct tcp_cc_event *ev)
{
    bool in_css = h->css_baseline_us != 0;

    /* What acknowledges a round's end and no more is still a sample of it. */
    if (!h->started || seq_gt(ev->una, h->round_end)) {
        if (in_css && ++h->css_rounds >= CSS_ROUNDS)
            return TCP_HYSTART_LEAVE;
        begin_round(h, ev);
        h->started = true;
    }
    if (ev->rtt_us != 0) {
        if (h->min_us == 0 || ev->rtt_us < h->min_us)
            h->min_us = ev->rtt_us;
        if (h->samples < UINT8_MAX)
            h->samples++;
    }
    if (h->samples >= N_RTT_SAMPLE && in_css && h->min_us < h->css_baseline_us) {
        h->css_baseline_us = 0; /* a false alarm */
        in_css = false;
    } else if (h->samples >= N_RTT_SAMPLE && !in_css && h->last_min_us != 0) {
        uint32_t thresh_us = h->last_min_us / MIN_RTT_DIVISOR;
        if (thresh_us < MIN_RTT_THRESH_US)
            thresh_us = MIN_RTT_THRESH_US;
        if (thresh_us > MAX_RTT_THRESH_US)
            thresh_us = MAX_RTT_THRESH_US;
        if (h->min_us >= h->last_min_us + thresh_us) {
            h->css_baseline_us = h->min_us;
            h->css_rounds = 0;
            in_css = true;
        }
    }
    return in_css ? TCP_HYSTART_SLOW : TCP_HYSTART_FAST;
}
