/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/guard.h"
#include "tcp/isn.h"
#include "tcp/pack.h"

/**
 * @file
 * A connection that has been silent for long is parked: what it and its flow hold is packed into a few bytes, their own places are zeroed, and pages in which nothing else lies go back to whoever
 * gave them. Everything else that goes by the connection's index, its id too, is as it was. The table names the parked entry. What
 * concerns the connection next, a segment, a call or a timer, wakes it: it is then what it was, but for what a silence ends (settle).
 *
 * For domains that one thread at a time is inside of: where several are, they look at connections that they do not hold.
 */

/** What is packed: all words behind the link, which the table needs. */
union image {
    struct {
        struct tcp_conn conn;
        struct tcp_flow flow;
    };
    uint32_t word[(sizeof(struct tcp_conn) + sizeof(struct tcp_flow)) / sizeof(uint32_t)];
};
_Static_assert(offsetof(union image, flow) == sizeof(struct tcp_conn), "no word between them");

#define WORD(field) ((uint8_t)(offsetof(union image, field) / sizeof(uint32_t)))
#define FIRST_WORD (sizeof(struct tcp_link) / sizeof(uint32_t))
#define NB_WORDS (sizeof(union image) / sizeof(uint32_t) - FIRST_WORD)
_Static_assert(TCP_PACK_MAX(NB_WORDS) <= TCP_PARKED_BYTES + TCP_PARK_BLOCKS_MAX * TCP_PARK_BLOCK_BYTES,
               "whatever the words are, there is room");

/** Words that are mostly near others, which are not in the first column: the difference is kept. */
static const struct {
    uint8_t word, base;
} near[] = {
    { WORD(conn.snd_nxt), WORD(conn.snd_una) },
    { WORD(conn.snd_end), WORD(conn.snd_una) },
    { WORD(conn.snd_wl2), WORD(conn.snd_una) },
    { WORD(conn.sent.una), WORD(conn.snd_una) },
    { WORD(conn.sent.fack), WORD(conn.snd_una) },
    { WORD(conn.recover), WORD(conn.snd_una) },
    { WORD(flow.usage_seq), WORD(conn.snd_una) },
    { WORD(conn.snd_sml), WORD(conn.snd_una) },
    { WORD(conn.iss), WORD(conn.snd_una) },
    { WORD(conn.snd_wl1), WORD(conn.rcv_nxt) },
    { WORD(conn.rcv_adv), WORD(conn.rcv_nxt) },
    { WORD(conn.rcv_acked), WORD(conn.rcv_nxt) },
    { WORD(conn.irs), WORD(conn.rcv_nxt) },
    { WORD(conn.snd_wnd_max), WORD(conn.snd_wnd) },
    { WORD(conn.ts_recent_tick), WORD(conn.last_rcv_tick) },
    { WORD(conn.last_snd_tick), WORD(conn.last_rcv_tick) },
    { WORD(conn.last_data_tick), WORD(conn.last_rcv_tick) },
    { WORD(conn.stall_tick), WORD(conn.last_rcv_tick) },
    { WORD(conn.rtt.srtt_us), WORD(conn.rtt.min_us) },
    { WORD(flow.rtt_window.min_us), WORD(conn.rtt.min_us) },
};

static bool
is_parked(const struct tcp_domain *d, uint32_t i)
{
    return (parked_bits(d)[i / 64] >> i % 64 & 1) != 0;
}

#define USUAL_MSS 1460

/* ---- packing ---------------------------------------------------------------------------------------------------- */

/** What a connection of that tuple over Ethernet looks like to which nothing has happened: words that are as there pack to nothing. */
static void
fill_usual(const struct tcp_domain *d, const struct tcp_tuple *t, union image *usual)
{
    struct tcp_conn *c = &usual->conn;

    memset(usual, 0, sizeof(*usual));
    opts_default(d, &c->opts);
    c->opts.cc_id = c->cc_id = d->params.congestion;
    c->state = TCP_ST_ESTABLISHED;
    c->flags = CONN_F_TS | CONN_F_SACK | CONN_F_WSCALE;
    c->rcv_buf = d->params.rcv_buf_bytes;
    c->ts_offset = tcp_ts_offset(d->params.seed, t);
    c->mss_port = c->mss_path = c->mss_peer = USUAL_MSS;
    c->mss = c->rcv_mss = USUAL_MSS - TCP_TS_OPTION_BYTES;
    c->cc.ssthresh_bytes = UINT32_MAX;
    c->rtt.rto_us = d->params.rto_min_us;
    c->dup_thresh = 3;
    tcp_rack_init(&c->rack);
}

/** Differences from the usual and from one another; the words that others are near to stand apart, so the order does not matter. */
static void
to_differences(const struct tcp_domain *d, union image *m)
{
    union image usual;

    for (unsigned k = 0; k < sizeof(near) / sizeof(near[0]); k++)
        m->word[near[k].word] = tcp_pack_fold(m->word[near[k].word] - m->word[near[k].base]);
    fill_usual(d, &m->conn.link.tuple, &usual);
    for (unsigned w = FIRST_WORD; w < FIRST_WORD + NB_WORDS; w++)
        m->word[w] ^= usual.word[w];
}

static void
from_differences(const struct tcp_domain *d, union image *m)
{
    union image usual;

    fill_usual(d, &m->conn.link.tuple, &usual);
    for (unsigned w = FIRST_WORD; w < FIRST_WORD + NB_WORDS; w++)
        m->word[w] ^= usual.word[w];
    for (unsigned k = 0; k < sizeof(near) / sizeof(near[0]); k++)
        m->word[near[k].word] = tcp_pack_unfold(m->word[near[k].word]) + m->word[near[k].base];
}

/** Into the entry, and what does not fit there into blocks. */
static void
store(struct tcp_domain *d, struct tcp_parked *p, const uint8_t *bytes, uint32_t n)
{
    uint32_t at = n < TCP_PARKED_BYTES ? n : TCP_PARKED_BYTES;
    uint32_t *link = &p->more;

    memcpy(p->bytes, bytes, at);
    for (; at < n; at += TCP_PARK_BLOCK_BYTES) {
        uint32_t i = tcp_pool_get(&d->pools[POOL_PARK], park_block_at(d, 0), sizeof(struct tcp_park_block));
        struct tcp_park_block *b = park_block_at(d, i);
        memcpy(b->bytes, bytes + at, n - at < TCP_PARK_BLOCK_BYTES ? n - at : TCP_PARK_BLOCK_BYTES);
        *link = i;
        link = &b->next;
    }
}

static void
load(const struct tcp_domain *d, const struct tcp_parked *p, uint8_t *bytes)
{
    memcpy(bytes, p->bytes, TCP_PARKED_BYTES);
    bytes += TCP_PARKED_BYTES;
    for (uint32_t i = p->more; i != 0; i = park_block_at(d, i)->next, bytes += TCP_PARK_BLOCK_BYTES)
        memcpy(bytes, park_block_at(d, i)->bytes, TCP_PARK_BLOCK_BYTES);
}

static void
read_image(const struct tcp_domain *d, uint32_t i, union image *m)
{
    uint8_t bytes[TCP_PARKED_BYTES + TCP_PARK_BLOCKS_MAX * TCP_PARK_BLOCK_BYTES];
    const struct tcp_parked *p = parked_at(d, i);

    load(d, p, bytes);
    m->conn.link = p->link;
    tcp_unpack(bytes, &m->word[FIRST_WORD], NB_WORDS);
    from_differences(d, m);
}

bool
park_read(const struct tcp_domain *d, uint32_t i, struct tcp_conn *c, struct tcp_flow *f)
{
    union image m;

    if (!is_parked(d, i))
        return false;
    read_image(d, i, &m);
    *c = m.conn;
    *f = m.flow;
    return true;
}

/* ---- parking ---------------------------------------------------------------------------------------------------- */

/** Nothing is under way or wanted, no other thing of the domain leads to it but table and timer, and the peer has been silent as well. */
static bool
may_park(const struct tcp_domain *d, const struct tcp_conn *c, uint64_t now_us)
{
    bool silent = us_since_tick(now_us, c->last_rcv_tick) >= d->params.park_us &&
                  us_since_tick(now_us, c->last_snd_tick) >= d->params.park_us;
    uint32_t timers = 0;

    for (unsigned t = 0; t < CONN_T_COUNT; t++)
        timers |= t != CONN_T_KEEP ? c->timer_at[t] : 0;
    return silent && c->state == TCP_ST_ESTABLISHED && c->snd_una == c->snd_end && c->snd_nxt == c->snd_end &&
           timers == 0 && !c->ack_held && c->ca_state == CONN_CA_OPEN && c->reass == 0 && c->records == 0 &&
           c->md5 == 0 && (c->flags & (CONN_F_ORPHAN | CONN_F_PENDING | CONN_F_FO_CHILD | CONN_F_FIN_QUEUED)) == 0 &&
           !tcp_waiters_has(&d->waiters, domain_waiters(d), conn_index(d, c));
}

/** It may be parked one day: what is half closed or has a key never will be. */
static bool
is_hopeful(const struct tcp_conn *c)
{
    return (c->state == TCP_ST_ESTABLISHED || c->state == TCP_ST_SYN_RECEIVED || c->state == TCP_ST_SYN_SENT) &&
           c->md5 == 0;
}

/** What was measured or undone within round trips says nothing after so long a silence: the next flight begins anew. */
static void
settle(struct tcp_conn *c, struct tcp_flow *f)
{
    c->rack = (struct tcp_rack){
        .steps = c->rack.steps,
        .persist = c->rack.persist,
        .reordering = c->rack.reordering,
    };
    tcp_sent_init(&c->sent, c->snd_una);
    c->prr = (struct tcp_prr){ 0 };
    c->flags &= ~(CONN_F_CWND_LIMITED | CONN_F_FRTO | CONN_F_FRTO_NEW | CONN_F_UNDO | CONN_F_TLP | CONN_F_TLP_AGAIN |
                  CONN_F_PTO | CONN_F_REO | CONN_F_PERSIST);
    c->recover = c->snd_una - 1; /* as when it began */
    f->usage_seq = c->snd_sml = c->snd_una;
    f->usage_bytes = c->tlp_end = c->undo_bytes = c->prior_cwnd = c->prior_ssthresh = c->rxt_ts = 0;
    c->syn_at_us = 0; /* the handshake is long over */
    c->stall_tick = c->last_snd_tick;
    f->rate.delivered_us = f->rate.first_sent_us = 0;
    f->tune.window_at_us = f->tune.round_at_us = f->tune.taken_bytes = 0;
    f->tune.window_end = 0;
    f->node_tick = 0; /* looked at again, and packed to nothing */
    if (tcp_chrono_now(&f->chrono) == TCP_LIMIT_IDLE)
        f->chrono.state = 0;
}

/** Are all entries of [first, last] parked? */
static bool
all_parked(const struct tcp_domain *d, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++)
        if (i > d->params.max_conns || !is_parked(d, (uint32_t)i))
            return false;
    return true;
}

/** Slot i has been zeroed: a page that holds nothing but such is not needed. */
static void
give_back(const struct tcp_domain *d, const struct tcp_env *env, uint32_t i)
{
    const uint64_t stride = sizeof(union tcp_slot);

    if (env->sink->unused == NULL)
        return;
    for (uint64_t page = i * stride / TCP_PAGE_BYTES; page <= (i * stride + stride - 1) / TCP_PAGE_BYTES; page++) {
        uint64_t start = page * TCP_PAGE_BYTES;
        if (all_parked(d, start / stride, (start + TCP_PAGE_BYTES - 1) / stride))
            env->sink->unused(env->sink->ctx, (char *)slot_at(d, 0) + start, TCP_PAGE_BYTES);
    }
}

static void
park(struct tcp_domain *d, const struct tcp_env *env, uint32_t i)
{
    uint8_t bytes[TCP_PACK_MAX(NB_WORDS)];
    struct tcp_parked *p = parked_at(d, i);
    struct tcp_conn *c = conn_at(d, i);
    union image m;

    settle(c, flow_of(c));
    memcpy(&m.conn, c, sizeof(m.conn));
    memcpy(&m.flow, flow_of(c), sizeof(m.flow));
    to_differences(d, &m);
    store(d, p, bytes, tcp_pack(&m.word[FIRST_WORD], NB_WORDS, bytes));
    p->link = c->link;
    p->gen = c->gen;
    table_exchange(d, TABLE_REF(TABLE_CONN, i), TABLE_REF(TABLE_PARKED, i));
    memset(slot_at(d, i), 0, sizeof(union tcp_slot));
    parked_bits(d)[i / 64] |= UINT64_C(1) << i % 64;
    give_back(d, env, i);
    counter_inc(env->ctr, CTR_TCP_PARKED);
}

/* ---- waking ----------------------------------------------------------------------------------------------------- */

struct tcp_conn *
park_wake(struct tcp_domain *d, uint32_t i)
{
    struct tcp_parked *p = parked_at(d, i);
    struct tcp_conn *c = conn_at(d, i);
    union image m;

    read_image(d, i, &m);
    memcpy(c, &m.conn, sizeof(*c));
    memcpy(flow_of(c), &m.flow, sizeof(m.flow));
    table_exchange(d, TABLE_REF(TABLE_PARKED, i), TABLE_REF(TABLE_CONN, i));
    for (uint32_t b = p->more, next; b != 0; b = next) {
        next = park_block_at(d, b)->next;
        tcp_pool_put(&d->pools[POOL_PARK], park_block_at(d, 0), sizeof(struct tcp_park_block), b);
    }
    memset(p, 0, sizeof(*p));
    parked_bits(d)[i / 64] &= ~(UINT64_C(1) << i % 64);
    park_watch(d);
    return c;
}

struct tcp_conn *
park_wake_by_id(struct tcp_domain *d, tcp_id id)
{
    uint32_t i = id_slot_checked(d, id);

    return i != 0 && is_parked(d, i) && parked_at(d, i)->gen == id >> 24 ? park_wake(d, i) : NULL;
}

struct tcp_conn *
park_wake_for_timer(struct tcp_domain *d, uint32_t i)
{
    return is_parked(d, i) ? park_wake(d, i) : conn_at(d, i);
}

void
park_wake_all(struct tcp_domain *d)
{
    for (uint32_t i = 1; i <= d->pools[POOL_CONN].high; i++)
        if (is_parked(d, i))
            park_wake(d, i);
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

/* A look takes some microseconds at most, so that nobody waits for it; a round looks at everyone, so that one is parked an eighth later than it could be. */
#define LOOK_SLOTS 256u
#define LOOK_PARKS 16u
#define LOOK_US 500u
#define ROUNDS_PER_SILENCE 8u

void
park_watch(struct tcp_domain *d)
{
    struct wheel_node *nodes = domain_timers(d);

    d->park_awake = true; /* a round that is under way may have passed it */
    if (d->params.park_us != 0 && !wheel_is_armed(&nodes[park_timer(d)]))
        wheel_arm(&d->wheel, nodes, park_timer(d), d->now_us + d->params.park_us / ROUNDS_PER_SILENCE);
}

/** The first at or behind i that is not parked. */
static uint32_t
next_awake(const struct tcp_domain *d, uint32_t i)
{
    uint64_t awake = ~parked_bits(d)[i / 64] & UINT64_MAX << i % 64;

    for (i /= 64; awake == 0 && i < d->params.max_conns / 64; awake = ~parked_bits(d)[i])
        i++;
    return awake != 0 ? i * 64 + (uint32_t)__builtin_ctzll(awake) : UINT32_MAX;
}

void
park_look(struct tcp_domain *d, const struct tcp_env *env)
{
    uint32_t high = d->pools[POOL_CONN].high;
    unsigned parks = 0;

    if (d->params.park_us == 0)
        return;
    for (unsigned n = 0; n < LOOK_SLOTS && parks < LOOK_PARKS && d->park_hand < high; n++) {
        uint32_t i = d->park_hand < d->params.max_conns ? next_awake(d, d->park_hand + 1) : UINT32_MAX;
        d->park_hand = i < high ? i : high;
        if (i > high)
            break;
        if (may_park(d, conn_at(d, i), env->now_us)) {
            park(d, env, i);
            parks++;
        } else if (is_hopeful(conn_at(d, i))) {
            d->park_awake = true;
        }
    }
    if (d->park_hand < high) {
        wheel_arm(&d->wheel, domain_timers(d), park_timer(d), env->now_us + LOOK_US);
        return;
    }
    d->park_hand = 0;
    if (d->park_awake)
        park_watch(d);
    d->park_awake = false;
}
