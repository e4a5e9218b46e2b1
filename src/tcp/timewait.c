/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/prefetch.h"
#include "tcp/guard.h"
#include "tcp/isn.h"

/** RFC 7323 section 5.5 voids a timestamp after 24 days; ticks wrap after three, so a day must do here. */
#define PAWS_IDLE_US (24ull * 3600 * 1000000)

static void
tw_unlink(struct tcp_domain *d, uint32_t i)
{
    struct tcp_tw *tw = tw_at(d, i);

    *(tw->prev != 0 ? &tw_at(d, tw->prev)->next : &d->tw_head) = tw->next;
    *(tw->next != 0 ? &tw_at(d, tw->next)->prev : &d->tw_tail) = tw->prev;
}

/** At the list's end with a full lifetime ahead, so that the list stays in the order of expiry. */
static void
tw_append(struct tcp_domain *d, const struct tcp_env *env, uint32_t i)
{
    struct tcp_tw *tw = tw_at(d, i);
    uint64_t expire_us = env->now_us + d->params.time_wait_us;

    tw->expire_tick = tick_of(expire_us + WHEEL_TICK_US - 1);
    tw->prev = d->tw_tail;
    tw->next = 0;
    *(d->tw_tail != 0 ? &tw_at(d, d->tw_tail)->next : &d->tw_head) = i;
    d->tw_tail = i;
    guard_inner(env->locks, TCP_INNER_TIMERS);
    if (!wheel_is_armed(&domain_timers(d)[tw_timer(d)]))
        wheel_arm(&d->wheel, domain_timers(d), tw_timer(d), expire_us);
    unguard_inner(env->locks, TCP_INNER_TIMERS);
}

void
timewait_free(struct tcp_domain *d, uint32_t i)
{
    struct tcp_tw *tw = tw_at(d, i);

    tw_unlink(d, i);
    table_remove(d, TABLE_REF(TABLE_TW, i));
    port_unref(d, tw->bind);
    md5_clear(d, &tw->md5);
    tcp_pool_put(&d->pools[POOL_TW], tw_at(d, 0), sizeof(*tw), i);
}

/** The oldest gives way. Those that follow it are in no near cache: what each will need is loaded in three steps, a connection apart. */
static void
give_way(struct tcp_domain *d)
{
    timewait_free(d, d->tw_head);
    uint32_t first = d->tw_head;
    uint32_t second = first != 0 ? tw_at(d, first)->next : 0;
    uint32_t third = second != 0 ? tw_at(d, second)->next : 0;
    if (third == 0)
        return;
    table_prefetch_chain(d, TABLE_REF(TABLE_TW, first));
    table_prefetch_bucket(d, TABLE_REF(TABLE_TW, second));
    prefetch_lines(tw_at(d, third), sizeof(struct tcp_tw));
}

void
conn_time_wait(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (d->pools[POOL_TW].used == d->pools[POOL_TW].cap)
        give_way(d);
    uint32_t i = tcp_pool_get(&d->pools[POOL_TW], tw_at(d, 0), sizeof(struct tcp_tw));
    struct tcp_tw *tw = tw_at(d, i);

    tw->link.tuple = c->link.tuple;
    tw->rcv_nxt = c->rcv_nxt;
    tw->snd_nxt = c->snd_nxt;
    tw->has_ts = (c->flags & CONN_F_TS) != 0;
    tw->ts_recent = c->ts_recent;
    tw->ts_recent_tick = c->ts_recent_tick;
    tw->window = (uint16_t)(seq_diff(c->rcv_adv, c->rcv_nxt) >> c->rcv_wscale);
    tw->tos = c->opts.tos;
    tw->rcv_wscale = c->rcv_wscale;
    if (c->md5 != 0)
        tw->md5 = md5_copy(d, c->md5, &c->link.tuple.remote);
    tw->bind = c->bind;
    c->bind = 0;
    conn_set_state(env, c, TCP_ST_TIME_WAIT);
    tw_append(d, env, i);
    conn_end(d, env, c, 0);
    table_add(d, TABLE_REF(TABLE_TW, i));
}

static void
tw_ack(const struct tcp_domain *d, const struct tcp_env *env, const struct tcp_tw *tw)
{
    struct tcp_out out = {
        .tuple = &tw->link.tuple,
        .seq = tw->snd_nxt,
        .ack = tw->rcv_nxt,
        .window = tw->window,
        .flags = TCP_FLAG_ACK,
        .tos = tw->tos,
    };

    if (tw->has_ts) {
        out.opts.has_ts = true;
        out.opts.ts_val = tcp_ts_clock(env->now_us, tcp_ts_offset(d->params.seed, &tw->link.tuple));
        out.opts.ts_ecr = tw->ts_recent;
    }
    if (tw->md5 != 0)
        md5_put(d, tw->md5, &out);
    emit_segment(env, &out);
}

static bool
tw_paws_fails(const struct tcp_tw *tw, const struct tcp_env *env, const struct tcp_in *in)
{
    return tw->has_ts && in->opts.has_ts && (int32_t)(in->opts.ts_val - tw->ts_recent) < 0 &&
           us_since_tick(env->now_us, tw->ts_recent_tick) < PAWS_IDLE_US;
}

/** RFC 6191 section 2: a SYN that is newer by its timestamp, or else by its sequence number, starts a connection anew. */
static bool
tw_syn_is_new(const struct tcp_tw *tw, const struct tcp_in *in)
{
    if (tw->has_ts && in->opts.has_ts && in->opts.ts_val != tw->ts_recent)
        return (int32_t)(in->opts.ts_val - tw->ts_recent) > 0;
    return seq_gt(in->seq, tw->rcv_nxt);
}

/** RFC 9293 section 3.10.7.4, first: it overlaps the window, or lies within it if it takes no room. */
static bool
tw_is_acceptable(const struct tcp_tw *tw, const struct tcp_in *in)
{
    tcp_seq end = in->seq + in->data.len + ((in->flags & TCP_FLAG_FIN) != 0);
    tcp_seq edge = tw->rcv_nxt + ((uint32_t)tw->window << tw->rcv_wscale);

    return seq_leq(in->seq, edge) && (end == in->seq ? seq_geq(in->seq, tw->rcv_nxt) : seq_gt(end, tw->rcv_nxt));
}

bool
timewait_input(struct tcp_domain *d, const struct tcp_env *env, uint32_t i, const struct tcp_in *in, tcp_seq *iss_floor)
{
    struct tcp_tw *tw = tw_at(d, i);

    /* RFC 1337: a RST must not cut TIME-WAIT short. */
    if (in->flags & TCP_FLAG_RST) {
        counter_inc(env->ctr, CTR_TCP_DROP_RST);
        return false;
    }
    /* Without anybody to take it, a SYN must not end what still protects; with a FIN nobody takes it. */
    if ((in->flags & (TCP_FLAG_SYN | TCP_FLAG_ACK | TCP_FLAG_FIN)) == TCP_FLAG_SYN && tw_syn_is_new(tw, in) &&
        port_find_listener(d, &in->tuple) != 0) {
        *iss_floor = tw->snd_nxt + 65537;
        timewait_free(d, i);
        counter_inc(env->ctr, CTR_TCP_TW_REUSED);
        return true;
    }
    bool is_old = tw_paws_fails(tw, env, in);
    /* Fifth: without ACK it is dropped, a FIN too. */
    if ((in->flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == 0 && !is_old && tw_is_acceptable(tw, in)) {
        counter_inc(env->ctr, CTR_TCP_DROP_FLAGS);
        return false;
    }
    bool has_seq = in->data.len > 0 || (in->flags & (TCP_FLAG_SYN | TCP_FLAG_FIN)) != 0;
    if (is_old || has_seq || in->seq != tw->rcv_nxt) {
        /* Data and FIN come from a peer that lacks our ACK; the rest is limited, since two TIME-WAITs could chat. */
        if (has_seq || challenge_allowed(d, env, &tw->ack_tick))
            tw_ack(d, env, tw);
    }
    if (!is_old && (in->flags & (TCP_FLAG_FIN | TCP_FLAG_ACK)) == (TCP_FLAG_FIN | TCP_FLAG_ACK)) {
        tw_unlink(d, i);
        tw_append(d, env, i);
    }
    return false;
}

unsigned
timewait_on_timer(struct tcp_domain *d, const struct tcp_env *env, unsigned budget)
{
    unsigned n = 0;

    while (d->tw_head != 0 && n < budget && (int32_t)(tw_at(d, d->tw_head)->expire_tick - tick_of(env->now_us)) <= 0) {
        timewait_free(d, d->tw_head);
        n++;
    }
    if (d->tw_head != 0) {
        int32_t ticks = (int32_t)(tw_at(d, d->tw_head)->expire_tick - tick_of(env->now_us));
        timer_arm(d, env, tw_timer(d), env->now_us + (ticks > 0 ? ticks_to_us((uint32_t)ticks) : 0));
    }
    return n;
}

bool
timewait_can_reuse(const struct tcp_domain *d, uint32_t i, uint64_t now_us)
{
    const struct tcp_tw *tw = tw_at(d, i);

    /* A second later our timestamp is surely greater than any that the old connection sent. */
    return tw->has_ts && d->params.timestamps && us_since_tick(now_us, tw->ts_recent_tick) >= 1000000;
}
