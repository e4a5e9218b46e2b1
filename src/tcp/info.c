/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/guard.h"

static uint64_t
instant_of(const struct tcp_domain *d, uint32_t tick)
{
    uint64_t ago = us_since_tick(d->now_us, tick);

    return ago < d->now_us ? d->now_us - ago : 0;
}

static uint32_t
segs_of(const struct tcp_conn *c, uint32_t bytes)
{
    return c->mss > 0 ? (bytes + c->mss - 1) / c->mss : 0;
}

static void
info_conn_rates(const struct tcp_conn *c, struct tcp_conn_info *info)
{
    info->snd_mss = c->mss;
    info->rcv_mss = c->rcv_mss;
    info->cwnd_bytes = c->cc.cwnd_bytes;
    info->ssthresh_bytes = c->cc.ssthresh_bytes;
    info->srtt_us = c->rtt.srtt_us;
    info->rttvar_us = c->rtt.var_us;
    info->rto_us = c->rtt.rto_us;
    info->min_rtt_us = c->rtt.min_us == UINT32_MAX ? 0 : c->rtt.min_us;
    info->snd_wnd = c->snd_wnd;
    info->rcv_wnd = seq_diff(c->rcv_adv, c->rcv_nxt);
    info->snd_wscale = c->snd_wscale;
    info->rcv_wscale = c->rcv_wscale;
    info->timestamps = (c->flags & CONN_F_TS) != 0;
    info->sack = (c->flags & CONN_F_SACK) != 0;
    info->syn_data = (c->flags & CONN_F_SYN_DATA) != 0;
    info->ca_state = c->ca_state;
    info->sacked_segs = segs_of(c, c->flags & CONN_F_SACK ? c->sent.sacked_bytes : (uint32_t)c->dup_acks * c->mss);
    info->lost_segs = segs_of(c, c->sent.lost_bytes);
    info->reordering_segs = c->dup_thresh;
    /* Who is silent is asked: a shut window's probes, or those of keep-alive. */
    bool probing = (c->flags & CONN_F_PERSIST) != 0;
    info->retransmits = probing ? 0 : c->retries;
    info->probes = (uint8_t)((probing ? c->retries : 0) + c->keep_probes);
    info->backoff = c->backoff;
    info->cc_name = tcp_cc_by_id(c->cc_id)->name;
}

/** Linux's counts: our SYN and FIN are bytes where they are acknowledged, not where they are sent. */
static void
info_conn_counts(const struct tcp_conn *c, const struct tcp_tally *tally, struct tcp_conn_info *info)
{
    static const struct tcp_tally none;
    const struct tcp_tally *t = c->tallied ? tally : &none;
    bool fin_acked = conn_fin_sent(c) && seq_gt(c->snd_una, c->snd_end);

    info->bytes_acked = c->bytes_acked + c->syn_acked + fin_acked;
    info->bytes_received = c->bytes_received;
    info->bytes_retrans = t->bytes_retrans;
    info->bytes_sent = c->bytes_acked + (info->snd_queued - info->snd_unsent) + t->bytes_retrans;
    info->segs_in = c->segs_in;
    info->segs_out = c->segs_out;
    info->data_segs_in = c->data_segs_in;
    info->data_segs_out = c->data_segs_out;
    info->retrans_segs_total = t->retrans_segs;
    info->dsack_segs = t->dsack_segs;
    info->ooo_segs = t->ooo_segs;
    info->reorderings = t->reorderings;
    info->rtos = t->rtos;
    info->rto_recoveries = t->rto_recoveries;
    info->rto_time_ms = t->rto_time_ms;
    info->fastopen_fail = c->fastopen_fail;
}

/** Connection i, which lies in c and f. */
static void
info_conn(const struct tcp_domain *d, uint32_t i, const struct tcp_conn *c, const struct tcp_flow *f,
          struct tcp_conn_info *info)
{
    uint32_t flight = seq_diff(c->snd_nxt, c->snd_una);

    memset(info, 0, sizeof(*info));
    info->id = i | (uint32_t)c->gen << 24;
    info->user = c->user;
    info->tuple = c->link.tuple;
    info->state = (enum tcp_state)c->state;
    tcp_seq first = c->snd_una == c->iss ? c->iss + 1 : c->snd_una; /* our SYN is no byte of the stream */
    info->snd_queued = seq_gt(c->snd_end, first) ? seq_diff(c->snd_end, first) : 0;
    info->rcv_queued = c->rcv_used;
    info->snd_unsent = seq_gt(c->snd_end, c->snd_nxt) ? seq_diff(c->snd_end, c->snd_nxt) : 0;
    info->adv_mss = path_adv_mss(d, &c->link.tuple.remote, c->mss_port, c->opts.max_seg);
    info->path_mtu = c->mss_path + path_headers_bytes(&c->link.tuple.remote);
    info_conn_rates(c, info);
    info->unacked_segs = segs_of(c, flight);
    info->retrans_segs =
        segs_of(c, tcp_sent_retrans_bytes(sent_store((struct tcp_domain *)(uintptr_t)d, NULL), &c->sent));
    info->lost_segs += info->retrans_segs;
    info_conn_counts(c, tally_of(d, conn_at(d, i)), info);
    info->delivered_segs = f->delivered_segs;
    info->delivery_rate = tcp_rate_bytes_per_s(f->rate.info_bytes, f->rate.info_us);
    info->delivery_rate_app_limited = f->rate.info_limited != 0;
    info->pacing_rate = c->pace.bytes_per_s;
    info->max_pacing_rate = c->opts.max_pacing_rate;
    info->busy_us = tcp_chrono_spent_us(&f->chrono, TCP_LIMIT_BUSY, d->now_us);
    info->rwnd_limited_us = tcp_chrono_spent_us(&f->chrono, TCP_LIMIT_WINDOW, d->now_us);
    ecn_info(c, accecn_of(d, conn_at(d, i)), info);
    info->sndbuf_limited_us = tcp_chrono_spent_us(&f->chrono, TCP_LIMIT_BUFFER, d->now_us);
    info->rcv_buf_bytes = c->rcv_buf;
    info->rcv_rtt_us = f->tune.rtt_us;
    info->ato_us = c->bytes_received > 0 ? d->params.delack_us : 0;
    info->last_rcv_at_us = instant_of(d, c->last_rcv_tick);
    info->last_snd_at_us = instant_of(d, c->last_snd_tick);
    info->last_data_rcv_at_us = instant_of(d, c->last_data_tick);
}

static void
info_listener(const struct tcp_domain *d, uint32_t i, struct tcp_conn_info *info)
{
    const struct tcp_listener *l = &slot_at(d, i)->listener;

    memset(info, 0, sizeof(*info));
    info->id = slot_id(d, i);
    info->user = l->user;
    info->tuple = l->link.tuple;
    info->state = TCP_ST_LISTEN;
    info->snd_queued = l->backlog;
    info->rcv_queued = l->accept_count;
    info->cc_name = tcp_cc_by_id(cc_for(d, l->opts.cc_id, &l->link.tuple.remote))->name;
}

static bool
info_slot(const struct tcp_domain *d, uint32_t i, struct tcp_conn_info *info)
{
    const struct tcp_conn *c = conn_at(d, i);
    struct tcp_conn parked;
    struct tcp_flow flow;

    if (park_read(d, i, &parked, &flow))
        info_conn(d, i, &parked, &flow, info);
    else if (c->state == TCP_ST_LISTEN)
        info_listener(d, i, info);
    else if (c->state != 0)
        info_conn(d, i, c, flow_of(c), info);
    else
        return false;
    return true;
}

/** A half-open or TIME-WAIT entry: addresses and state are all there is. */
static bool
info_small(const struct tcp_link *l, enum tcp_state state, struct tcp_conn_info *info)
{
    if (l->tuple.local_port == 0)
        return false;
    memset(info, 0, sizeof(*info));
    info->tuple = l->tuple;
    info->state = state;
    return true;
}

void
tcp_hold(struct tcp_domain *d, const struct tcp_env *env, tcp_id id)
{
    guard_table(d, env);
    guard_slot(env, id_slot_checked(d, id));
}

void
tcp_release(struct tcp_domain *d, const struct tcp_env *env, tcp_id id)
{
    unguard_slot(env, id_slot_checked(d, id));
    unguard_table(env);
}

bool
tcp_info(const struct tcp_domain *d, tcp_id id, struct tcp_conn_info *info)
{
    uint32_t i = id & 0xffffff;

    return i != 0 && i <= d->pools[POOL_CONN].high && info_slot(d, i, info) && info->id == id;
}

unsigned
tcp_walk(const struct tcp_domain *d, uint64_t *cursor, struct tcp_conn_info *out, unsigned max)
{
    uint64_t conns = d->params.max_conns;
    uint64_t halves = conns + d->params.max_half_open;
    uint64_t end = halves + d->pools[POOL_TW].high;
    unsigned n = 0;

    /* The cursor counts the entries seen: connections, then half-open, then TIME-WAIT; it skips what was never used. */
    while (n < max && *cursor < end) {
        uint64_t at = (*cursor)++;
        if (at < conns) {
            if (at >= d->pools[POOL_CONN].high)
                *cursor = conns;
            else
                n += info_slot(d, (uint32_t)at + 1, &out[n]);
        } else if (at < halves) {
            if (at - conns >= d->pools[POOL_HALF].high)
                *cursor = halves;
            else
                n += info_small(&half_at(d, (uint32_t)(at - conns) + 1)->link, TCP_ST_SYN_RECEIVED, &out[n]);
        } else {
            n += info_small(&tw_at(d, (uint32_t)(at - halves) + 1)->link, TCP_ST_TIME_WAIT, &out[n]);
        }
    }
    return n;
}
