/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/rack.h"

/** RFC 8985 section 6.2 step 4: RACK.reo_wnd_persist. */
#define PERSIST_RECOVERIES 16

/** Room for the receiver's processing when several segments are out: its answer is due at once. */
#define PROBE_SLACK_US 2000

void
tcp_rack_init(struct tcp_rack *r)
{
    *r = (struct tcp_rack){ .steps = 1 };
}

void
tcp_rack_delivered(struct tcp_rack *r, const struct tcp_sent_news *n, uint32_t now_us, uint32_t min_rtt_us)
{
    if (n->reordered)
        r->reordering = true;
    if (!n->has_last)
        return;
    uint32_t rtt_us = now_us - n->last_us;
    /* An answer that came sooner than any other answers an earlier copy. */
    if (n->last_retrans && min_rtt_us != UINT32_MAX && rtt_us < min_rtt_us)
        return;
    tcp_rack_latest(r, n->last_us, n->last_end, now_us);
}

void
tcp_rack_dsack(struct tcp_rack *r, tcp_seq una, tcp_seq snd_nxt)
{
    if (r->in_dsack_round && seq_lt(una, r->dsack_round))
        return;
    r->in_dsack_round = true;
    r->dsack_round = snd_nxt;
    if (r->steps < UINT8_MAX)
        r->steps++;
    r->persist = PERSIST_RECOVERIES;
}

void
tcp_rack_recovered(struct tcp_rack *r)
{
    if (r->persist > 0)
        r->persist--;
    if (r->persist == 0)
        r->steps = 1;
}

uint32_t
tcp_rack_window_us(const struct tcp_rack *r, uint32_t min_rtt_us, uint32_t srtt_us, bool recovering, bool many_sacked)
{
    if (!r->reordering && (recovering || many_sacked))
        return 0;
    if (min_rtt_us == UINT32_MAX)
        return 0;
    uint64_t window_us = (uint64_t)r->steps * (min_rtt_us / 4);
    return window_us < srtt_us ? (uint32_t)window_us : srtt_us;
}

uint32_t
tcp_rack_probe_us(uint32_t srtt_us, bool one_segment, uint32_t max_ack_delay_us)
{
    if (srtt_us == 0)
        return 1000000;
    uint64_t pto_us = 2ull * srtt_us + (one_segment ? max_ack_delay_us : PROBE_SLACK_US);
    return pto_us > UINT32_MAX / 4 ? UINT32_MAX / 4 : (uint32_t)pto_us;
}
