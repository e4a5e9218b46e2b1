/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/cc.h"

#include <string.h>

const struct tcp_cc_ops *const tcp_cc_controls[TCP_CC_COUNT] = {
    [TCP_CC_CUBIC] = &tcp_cc_cubic,
    [TCP_CC_NEWRENO] = &tcp_cc_newreno,
    [TCP_CC_DCTCP] = &tcp_cc_dctcp,
    [TCP_CC_BBR] = &tcp_cc_bbr,
};

int
tcp_cc_find(const char *name)
{
    if (strcmp(name, "reno") == 0)
        return TCP_CC_NEWRENO;
    for (int i = 0; i < TCP_CC_COUNT; i++)
        if (strcmp(name, tcp_cc_controls[i]->name) == 0)
            return i;
    return -1;
}

uint32_t
tcp_cc_initial_window(uint32_t mss_bytes)
{
    uint32_t two_mss = 2 * mss_bytes;
    uint32_t bound = two_mss > 14600 ? two_mss : 14600;

    return 10 * mss_bytes < bound ? 10 * mss_bytes : bound;
}

uint32_t
tcp_cc_slow_start(struct tcp_cc *cc, uint32_t acked_bytes)
{
    /* It grows by what was acknowledged: stretch ACKs must not slow it (RFC 3465, L as in RFC 9406). */
    uint32_t room = cc->ssthresh_bytes > cc->cwnd_bytes ? cc->ssthresh_bytes - cc->cwnd_bytes : 0;
    uint32_t step = acked_bytes < room ? acked_bytes : room;

    cc->cwnd_bytes = cc->cwnd_bytes + step > TCP_CWND_MAX_BYTES ? TCP_CWND_MAX_BYTES : cc->cwnd_bytes + step;
    return acked_bytes - step;
}

void
tcp_cc_restart(struct tcp_cc *cc, const struct tcp_cc_event *ev)
{
    uint32_t iw = tcp_cc_initial_window(ev->mss_bytes);

    if (cc->cwnd_bytes > iw)
        cc->cwnd_bytes = iw;
}

uint64_t
tcp_cc_pacing_rate(const struct tcp_cc *cc, uint32_t srtt_us)
{
    /* In slow start the window doubles in a round trip; beyond, a fifth is room for what was held up. */
    uint64_t percent = cc->cwnd_bytes < cc->ssthresh_bytes / 2 ? 200 : 120;

    return srtt_us != 0 ? (uint64_t)cc->cwnd_bytes * 10000 * percent / srtt_us : 0;
}
