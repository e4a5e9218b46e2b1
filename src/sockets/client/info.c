/* SPDX-License-Identifier: BSD-3-Clause */
#include "info.h"

#include <errno.h>
#include <linux/tcp.h>
#include <sched.h>
#include <string.h>

#include "front.h"

#define INFO_TRIES 1000u

int
info_claim(void)
{
    unsigned tries = 0;
    int i;

    while ((i = info_alloc()) < 0) {
        if (++tries == INFO_TRIES)
            return -EBUSY;
        sched_yield();
    }
    return i;
}

int
info_get(uint32_t slot, struct shm_info *out)
{
    struct shm_cmd cmd = { .op = SHM_OP_INFO };
    const struct shm_info *infos;
    int i = info_claim(), rc;

    if (i < 0)
        return i;
    cmd.slot = (uint32_t)i;
    rc = command_run(slot, &cmd, true);
    if (rc == 0) {
        infos = (const struct shm_info *)(const void *)(front->back + front->lay.back_info_off);
        memcpy(out, &infos[i], sizeof(*out));
    }
    info_free(i);
    return rc;
}

/* What the header that this is built with has. */
static void
translate(const struct shm_info *in, struct tcp_info *out)
{
    out->tcpi_state = in->state;
    out->tcpi_ca_state = in->ca_state;
    out->tcpi_retransmits = in->retransmits;
    out->tcpi_probes = in->probes;
    out->tcpi_backoff = in->backoff;
    out->tcpi_fastopen_client_fail = in->fastopen_fail & 3u;
    out->tcpi_ato = in->ato_us;
    out->tcpi_options =
        (uint8_t)((in->timestamps ? TCPI_OPT_TIMESTAMPS : 0) | (in->sack ? TCPI_OPT_SACK : 0) |
                  (in->snd_wscale || in->rcv_wscale ? TCPI_OPT_WSCALE : 0) | (in->ecn ? TCPI_OPT_ECN : 0) |
                  (in->ecn_seen ? TCPI_OPT_ECN_SEEN : 0) | (in->syn_data ? TCPI_OPT_SYN_DATA : 0));
    out->tcpi_snd_wscale = in->snd_wscale & 0xfu;
    out->tcpi_rcv_wscale = in->rcv_wscale & 0xfu;
    out->tcpi_rto = in->rto_us;
    out->tcpi_snd_mss = in->snd_mss;
    out->tcpi_rcv_mss = in->rcv_mss;
    out->tcpi_unacked = in->unacked_segs;
    out->tcpi_total_retrans = in->retrans_segs;
    out->tcpi_rtt = in->srtt_us;
    out->tcpi_rttvar = in->rttvar_us;
    out->tcpi_min_rtt = in->min_rtt_us;
    out->tcpi_snd_cwnd = in->cwnd_segs;
    out->tcpi_snd_ssthresh = in->ssthresh_segs;
    out->tcpi_snd_wnd = in->snd_wnd;
    out->tcpi_rcv_space = out->tcpi_rcv_ssthresh = in->rcv_space;
    out->tcpi_pmtu = in->path_mtu;
    out->tcpi_advmss = in->adv_mss;
    out->tcpi_last_data_sent = in->last_data_sent_ms;
    out->tcpi_last_data_recv = in->last_data_recv_ms;
    out->tcpi_last_ack_recv = in->last_ack_recv_ms;
    out->tcpi_lost = in->lost_segs;
    out->tcpi_sacked = in->sacked_segs;
    out->tcpi_retrans = in->retrans_out_segs;
    out->tcpi_reordering = in->reordering_segs;
    out->tcpi_reord_seen = in->reorderings;
    out->tcpi_dsack_dups = in->dsack_segs;
    out->tcpi_rcv_ooopack = in->ooo_segs;
    out->tcpi_data_segs_in = in->data_segs_in;
    out->tcpi_data_segs_out = in->data_segs_out;
    out->tcpi_notsent_bytes = in->notsent_bytes;
    out->tcpi_delivered = in->delivered_segs;
    out->tcpi_delivered_ce = in->delivered_ce;
    out->tcpi_delivery_rate = in->delivery_rate;
    out->tcpi_delivery_rate_app_limited = in->delivery_rate_app_limited & 1u;
    out->tcpi_pacing_rate = in->pacing_rate != 0 ? in->pacing_rate : UINT64_MAX;
    out->tcpi_max_pacing_rate = in->max_pacing_rate != 0 ? in->max_pacing_rate : UINT64_MAX;
    out->tcpi_bytes_sent = in->bytes_sent;
    out->tcpi_bytes_acked = in->bytes_acked;
    out->tcpi_bytes_received = in->bytes_received;
    out->tcpi_bytes_retrans = in->bytes_retrans;
    out->tcpi_segs_in = (uint32_t)in->segs_in;
    out->tcpi_segs_out = (uint32_t)in->segs_out;
    out->tcpi_busy_time = in->busy_us;
    out->tcpi_rwnd_limited = in->rwnd_limited_us;
    out->tcpi_sndbuf_limited = in->sndbuf_limited_us;
    out->tcpi_rcv_rtt = in->rcv_rtt_us;
}

void
info_translate(const struct shm_info *in, struct info_answer *out)
{
    memset(out, 0, sizeof(*out));
    translate(in, &out->info);
    out->rcv_wnd = in->rcv_wnd;
    out->total_rto = in->rtos;
    out->total_rto_recoveries = in->rto_recoveries;
    out->total_rto_time_ms = in->rto_time_ms;
    out->received_ce = in->received_ce;
    for (unsigned i = 0; i < 3; i++) {
        static const unsigned from[3] = { 0, 2, 1 };
        out->delivered_bytes[i] = in->delivered_ecn_bytes[from[i]];
        out->received_bytes[i] = in->received_ecn_bytes[from[i]];
    }
    out->accecn = (uint32_t)(in->ecn | in->accecn_seen << 2 | in->accecn_fail << 4);
}
