/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/tune.h"

/** Segments beyond two rounds' worth: an initial window may be on its way before anything has been taken. */
#define SPARE_SEGS 16

/** What a sender may begin with (RFC 6928): less than that in a round says nothing of what it can do. */
#define INITIAL_SEGS 10

void
tcp_tune_arrived(struct tcp_tune *t, tcp_seq rcv_nxt, uint32_t wnd_bytes, uint32_t now_us)
{
    if (t->window_at_us != 0 && seq_lt(rcv_nxt, t->window_end))
        return;
    if (t->window_at_us != 0) {
        uint32_t sample_us = now_us - t->window_at_us;
        /* A sender that does not fill the window makes it look longer: less counts at once, more by an eighth. */
        if (t->rtt_us == 0 || sample_us < t->rtt_us)
            t->rtt_us = sample_us > 0 ? sample_us : 1;
        else
            t->rtt_us += (sample_us - t->rtt_us) / 8;
    }
    t->window_at_us = now_us != 0 ? now_us : 1;
    t->window_end = rcv_nxt + wnd_bytes;
}

uint32_t
tcp_tune_taken(struct tcp_tune *t, uint32_t n_bytes, uint32_t rtt_us, uint32_t mss_bytes, uint32_t buf_bytes,
               uint32_t max_bytes, uint32_t now_us)
{
    uint64_t want = 0;

    t->taken_bytes += n_bytes;
    if (t->rtt_us != 0 && (rtt_us == 0 || t->rtt_us < rtt_us))
        rtt_us = t->rtt_us;
    if (rtt_us == 0 || now_us - t->round_at_us < rtt_us)
        return buf_bytes;
    if (t->taken_bytes > t->before_bytes) {
        want = 2ull * t->taken_bytes + SPARE_SEGS * mss_bytes;
        /* What grew in this round is taken to grow as much in the next, while the answer is on its way. */
        uint32_t more = t->taken_bytes - t->before_bytes;
        if (t->before_bytes != 0)
            want += want * (more < t->before_bytes ? more : t->before_bytes) / t->before_bytes;
        t->before_bytes = t->taken_bytes;
    }
    t->taken_bytes = 0;
    t->round_at_us = now_us;
    if (want > max_bytes)
        want = max_bytes;
    return want > buf_bytes ? (uint32_t)want : buf_bytes;
}

uint32_t
tcp_tune_gap(const struct tcp_tune *t, uint32_t span_bytes, uint32_t mss_bytes, uint32_t buf_bytes, uint32_t max_bytes)
{
    uint32_t before = t->before_bytes > t->taken_bytes ? t->before_bytes : t->taken_bytes;
    if (before < INITIAL_SEGS * mss_bytes)
        before = INITIAL_SEGS * mss_bytes;
    uint64_t want = 2ull * before + SPARE_SEGS * mss_bytes + span_bytes;

    if (want > max_bytes)
        want = max_bytes;
    return want > buf_bytes ? (uint32_t)want : buf_bytes;
}
