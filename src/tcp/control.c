/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/domain.h"
#include "tcp/guard.h"

/**
 * @file
 * A connection and its congestion control: what it is told, where its model lies, how its rate reaches the pacer.
 */

static void *
model_at(const struct tcp_domain *d, uint32_t i)
{
    return (char *)domain_array(d, POOL_MODEL) + (size_t)i * TCP_CC_MODEL_BYTES;
}

uint8_t
cc_for(const struct tcp_domain *d, uint8_t id, const struct ip_addr *remote)
{
    const struct tcp_cc_route *best = NULL;

    if (id != TCP_CC_BY_ROUTE)
        return id;
    for (unsigned i = 0; i < d->params.nb_cc_routes; i++) {
        const struct tcp_cc_route *r = &d->params.cc_routes[i];
        if (ip_prefix_covers(&r->prefix, r->prefix_len, remote) && (best == NULL || r->prefix_len > best->prefix_len))
            best = r;
    }
    return best != NULL ? best->congestion : d->params.congestion;
}

void
cc_event_fill(struct tcp_cc_event *ev, struct tcp_domain *d, const struct tcp_env *env, const struct tcp_conn *c,
              uint32_t acked)
{
    struct tcp_flow *f = flow_of(c);

    *ev = (struct tcp_cc_event){
        .now_us = env->now_us,
        .acked_bytes = acked,
        .flight_bytes = seq_diff(c->snd_nxt, c->snd_una),
        .mss_bytes = c->mss,
        .srtt_us = c->rtt.srtt_us,
        .min_rtt_us = c->rtt.min_us,
        .cwnd_limited = conn_cwnd_is_used(c, f),
        .una = c->snd_una,
        .snd_nxt = c->snd_nxt,
    };
    if (f->model != 0) {
        ev->pipe_bytes = conn_pipe(c);
        ev->burst_bytes = tcp_pace_burst(&c->pace, c->mss, d->params.burst_min_segs);
        ev->rate = &f->rate;
        ev->model = model_at(d, f->model);
        ev->in_recovery = c->ca_state >= CONN_CA_RECOVERY;
    }
}

void
conn_cc_start(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    const struct tcp_cc_ops *ops = tcp_cc_by_id(c->cc_id);
    struct tcp_flow *f = flow_of(c);
    struct tcp_cc_event ev;

    if (ops->has_model && f->model == 0)
        conn_model_take(d, env->locks, c);
    else if (!ops->has_model)
        conn_cc_release(d, env->locks, c);
    cc_event_fill(&ev, d, env, c, 0);
    ops->init(&c->cc, &ev);
    uint8_t segs = path_init_cwnd(d, c);
    if (segs != 0)
        c->cc.cwnd_bytes = (uint32_t)segs * c->mss;
    conn_pace(d, env, c);
}

void *
conn_model(const struct tcp_domain *d, const struct tcp_conn *c)
{
    uint32_t i = flow_of(c)->model;

    return i != 0 ? model_at(d, i) : NULL;
}

void *
conn_model_take(struct tcp_domain *d, const struct tcp_locks *locks, const struct tcp_conn *c)
{
    struct tcp_flow *f = flow_of(c);

    /* As many as connections: there is always one left. */
    f->model = shared_pool_get(locks, TCP_INNER_MODELS, &d->pools[POOL_MODEL], model_at(d, 0), TCP_CC_MODEL_BYTES, 0);
    return model_at(d, f->model);
}

void
conn_cc_release(struct tcp_domain *d, const struct tcp_locks *locks, const struct tcp_conn *c)
{
    struct tcp_flow *f = flow_of(c);

    if (f->model != 0)
        shared_pool_put(locks, TCP_INNER_MODELS, &d->pools[POOL_MODEL], model_at(d, 0), TCP_CC_MODEL_BYTES, f->model);
    f->model = 0;
}

void
conn_pace(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    const struct tcp_cc_ops *ops = tcp_cc_by_id(c->cc_id);
    uint64_t rate = 0, most = c->opts.max_pacing_rate;
    struct tcp_cc_event ev;

    if (ops->has_model) {
        cc_event_fill(&ev, d, env, c, 0);
        rate = ops->pacing_rate(&c->cc, &ev);
    } else if (d->params.pacing) {
        rate = tcp_cc_pacing_rate(&c->cc, c->rtt.srtt_us);
    }
    if (most != 0 && (rate == 0 || rate > most))
        rate = most;
    c->flags = rate != 0 ? c->flags | CONN_F_PACED : c->flags & ~CONN_F_PACED;
    c->pace.bytes_per_s = rate & (UINT64_MAX >> 1);
}
