/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/guard.h"
#include "tcp/pathcache.h"

/**
 * @file
 * A connection and its path: how large its segments may be. Routes say it, the port, ICMP (RFC 1191, RFC 8201, with the doubts of RFC 5927), what ICMP told of the same path before, and, where
 * none of these is to be had or believed, trying (RFC 4821).
 *
 * c->mss_path is what counts now; the MSS follows from it (conn_set_mss). Sizes are those of packets less the fixed headers, as the MSS option counts.
 */

/** RFC 8201 section 4. */
#define IPV6_MTU_MIN 1280

/** Timeouts in a row after which segments may be too large (Linux's tcp_retries1). */
#define BLACK_HOLE_TIMEOUTS 3

/** Segments that cwnd must have room for, so that a probe's loss is repaired by duplicates (as Linux; RFC 4821 section 7.4 asks for that much data behind it). */
#define PROBE_CWND_SEGS 11

static uint16_t
lesser(uint32_t a, uint32_t b)
{
    return (uint16_t)(a < b ? a : b);
}

static uint32_t
second_of(const struct tcp_env *env)
{
    return (uint32_t)(env->now_us / 1000000);
}

uint32_t
path_headers_bytes(const struct ip_addr *remote)
{
    return ip_addr_is_v4(remote) ? 40 : 60;
}

/** No path is believed to take less. */
static uint16_t
least_size(const struct tcp_domain *d, const struct ip_addr *remote)
{
    uint32_t mtu = ip_addr_is_v4(remote) ? d->params.mtu_min_bytes : IPV6_MTU_MIN;

    return (uint16_t)(mtu - path_headers_bytes(remote));
}

/* ---- routes ---------------------------------------- */

static const struct tcp_path_route *
route_for(const struct tcp_domain *d, const struct ip_addr *remote)
{
    const struct tcp_path_route *best = NULL;

    for (unsigned i = 0; i < d->params.nb_path_routes; i++) {
        const struct tcp_path_route *r = &d->params.path_routes[i];
        if (ip_prefix_covers(&r->prefix, r->prefix_len, remote) && (best == NULL || r->prefix_len > best->prefix_len))
            best = r;
    }
    return best;
}

static bool
is_locked(const struct tcp_path_route *r)
{
    return r != NULL && r->mtu_locked && r->mtu_bytes != 0;
}

static uint8_t
probing_of(const struct tcp_domain *d, const struct tcp_conn *c)
{
    const struct tcp_path_route *r = route_for(d, &c->link.tuple.remote);

    return r != NULL && r->probing != 0 ? (uint8_t)(r->probing - 1) : d->params.mtu_probing;
}

static uint16_t
route_size(const struct tcp_path_route *r, const struct ip_addr *remote, uint16_t size)
{
    return r != NULL && r->mtu_bytes != 0 ? lesser(r->mtu_bytes - path_headers_bytes(remote), size) : size;
}

uint16_t
path_adv_mss(const struct tcp_domain *d, const struct ip_addr *remote, uint16_t mss_port, uint16_t max_seg)
{
    const struct tcp_path_route *r = route_for(d, remote);
    uint16_t mss = r != NULL && r->adv_mss != 0 ? lesser(r->adv_mss, mss_port) : route_size(r, remote, mss_port);

    return max_seg != 0 ? lesser(max_seg, mss) : mss;
}

uint8_t
path_init_cwnd(const struct tcp_domain *d, const struct tcp_conn *c)
{
    const struct tcp_path_route *r = route_for(d, &c->link.tuple.remote);

    return r != NULL ? r->init_cwnd_segs : 0;
}

/* ---- the size that counts ---------------------------------------- */

/** What port, route and cache let a packet have. *e: the cache's word, of mtu_bytes 0 if it is not what bounds. */
static uint16_t
limit_of_path(const struct tcp_domain *d, const struct tcp_env *env, const struct tcp_conn *c, struct tcp_path_entry *e)
{
    const struct ip_addr *remote = &c->link.tuple.remote;
    const struct tcp_path_route *r = route_for(d, remote);

    e->mtu_bytes = 0;
    if (c->opts.mtu_discover >= TCP_MTU_DISCOVER_PROBE)
        return c->mss_port;
    uint16_t size = route_size(r, remote, c->mss_port);
    if (is_locked(r) || !pathcache_find(d, env, remote, e))
        return size;
    uint16_t told = (uint16_t)(e->mtu_bytes - path_headers_bytes(remote));
    if (told >= size)
        e->mtu_bytes = 0;
    return lesser(told, size);
}

static void
set_size(struct tcp_conn *c, uint16_t size)
{
    if (size < c->mss_path)
        c->path &= (uint8_t)~CONN_PATH_PROVEN;
    c->mss_path = size;
    if (c->mss_peer != 0)
        conn_set_mss(c);
}

/** Go on with what port, route and cache say, and remember when the latter was told. */
static void
take_limit(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_path_entry e;
    uint16_t size = limit_of_path(d, env, c, &e);

    c->path &= (uint8_t) ~(CONN_PATH_LOWERED | CONN_PATH_PROVEN);
    if (e.mtu_bytes != 0) {
        c->path |= CONN_PATH_LOWERED;
        path_of(d, c)->since_s = e.since_s;
    }
    c->mss_path = size < TCP_MSS_FLOOR ? TCP_MSS_FLOOR : size;
}

/** Whether packets go with DF, and whether ICMP is listened to. */
static void
note_discovery(const struct tcp_domain *d, struct tcp_conn *c)
{
    uint8_t how = c->opts.mtu_discover;
    bool locked = is_locked(route_for(d, &c->link.tuple.remote));
    bool cut =
        how == TCP_MTU_DISCOVER_DONT || how >= TCP_MTU_DISCOVER_INTERFACE || (how == TCP_MTU_DISCOVER_WANT && locked);
    bool deaf = how == TCP_MTU_DISCOVER_DONT || how >= TCP_MTU_DISCOVER_PROBE || locked;

    c->path &= (uint8_t) ~(CONN_PATH_CUT | CONN_PATH_DEAF);
    /* What is searched for would not be found if routers helped. */
    if (cut && (c->path & CONN_PATH_SEARCH) == 0)
        c->path |= CONN_PATH_CUT;
    if (deaf)
        c->path |= CONN_PATH_DEAF;
}

void
path_start(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint16_t mss_out)
{
    c->mss_port = mss_out < TCP_MSS_FLOOR ? TCP_MSS_FLOOR : mss_out;
    note_discovery(d, c);
    take_limit(d, env, c);
}

/* ---- searching (RFC 4821) ---------------------------------------- */

/** Nothing larger is worth a try: the peer takes no more, or the user wants no more. */
static uint16_t
search_end(const struct tcp_domain *d, const struct tcp_env *env, const struct tcp_conn *c)
{
    struct tcp_path_entry e;
    uint16_t size = lesser(limit_of_path(d, env, c, &e), c->mss_peer);

    return c->opts.max_seg != 0 ? lesser(c->opts.max_seg, size) : size;
}

static void
search_begin(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint16_t low)
{
    struct tcp_path *p = path_of(d, c);

    tcp_mtu_init(&p->search, low, search_end(d, env, c));
    p->since_s = second_of(env);
    c->path = (uint8_t)((c->path & ~(CONN_PATH_LOWERED | CONN_PATH_PROBE | CONN_PATH_CUT)) | CONN_PATH_SEARCH);
}

void
path_ready(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    uint8_t how = c->opts.mtu_discover;
    bool may = how >= TCP_MTU_DISCOVER_WANT && how <= TCP_MTU_DISCOVER_PROBE;

    if (!may || probing_of(d, c) != TCP_MTU_PROBING_ALWAYS)
        return;
    search_begin(d, env, c, d->params.mtu_base_mss);
    /* A locked MTU is the administrator's word that packets of this size get through. */
    if (!is_locked(route_for(d, &c->link.tuple.remote)))
        c->mss_path = lesser(c->mss_path, d->params.mtu_base_mss);
}

/** May a probe be lost now without harm (RFC 4821 section 7.4), and would its loss show? */
static bool
may_try(const struct tcp_conn *c)
{
    return c->ca_state == CONN_CA_OPEN && c->dup_acks == 0 && c->sent.sacked_bytes == 0 && c->sent.lost_bytes == 0 &&
           c->records == 0 && (c->path & CONN_PATH_PROBE) == 0 &&
           c->cc.cwnd_bytes >= PROBE_CWND_SEGS * (uint32_t)c->mss;
}

/** The search has ended: after a time the path may have changed (section 7.3). */
static void
search_again(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (second_of(env) - path_of(d, c)->since_s >= d->params.mtu_probe_interval_s)
        search_begin(d, env, c, c->mss_path);
}

uint32_t
path_probe_len(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t pipe)
{
    struct tcp_path *p = path_of(d, c);

    if (!may_try(c))
        return 0;
    uint16_t size = tcp_mtu_next(&p->search, c->mss_path);
    if (size == 0) {
        search_again(d, env, c);
        return 0;
    }
    uint32_t len = size - conn_options_bytes(c);
    uint32_t need = len + (c->dup_thresh + 1u) * c->mss;
    if (seq_diff(c->snd_end, c->snd_nxt) < need || !seq_gt(c->snd_end, c->snd_nxt) ||
        seq_gt(c->snd_nxt + need, c->snd_una + c->snd_wnd))
        return 0;
    uint32_t room = len > 2u * c->mss ? len : 2u * c->mss;
    if (pipe + room > c->cc.cwnd_bytes)
        return pipe > 0 ? PATH_PROBE_WAIT : 0;
    return len;
}

void
path_probe_sent(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t len)
{
    struct tcp_path *p = path_of(d, c);

    counter_inc(env->ctr, CTR_TCP_MTU_PROBES);
    p->search.probe = (uint16_t)(len + conn_options_bytes(c));
    p->probe_start = c->snd_nxt - len;
    p->probe_end = c->snd_nxt;
    c->path |= CONN_PATH_PROBE;
}

static void
probe_has_failed(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint16_t said)
{
    struct tcp_path *p = path_of(d, c);

    counter_inc(env->ctr, CTR_TCP_MTU_PROBES_LOST);
    tcp_mtu_lost(&p->search, said);
    p->since_s = second_of(env);
    c->path &= (uint8_t)~CONN_PATH_PROBE;
}

bool
path_probe_is_lost(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    const struct tcp_path *p = path_of(d, c);

    if (c->snd_una != p->probe_start || tcp_sent_loses_beyond(sent_store(d, env->locks), &c->sent, p->probe_end))
        return false;
    probe_has_failed(d, env, c, 0);
    recovery_on_too_big(d, env, c, p->probe_end);
    return true;
}

void
path_on_retransmission(struct tcp_domain *d, struct tcp_conn *c, tcp_seq start, tcp_seq end)
{
    struct tcp_path *p = path_of(d, c);

    if (!seq_lt(start, p->probe_end) || !seq_gt(end, p->probe_start))
        return;
    p->search.probe = 0;
    c->path &= (uint8_t)~CONN_PATH_PROBE;
}

/* ---- black holes ---------------------------------------- */

/** RFC 4821 section 7.7: full segments vanish, and nobody says why. */
static void
suspect_black_hole(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    uint16_t least = least_size(d, &c->link.tuple.remote);
    uint32_t first = seq_diff(c->snd_nxt, c->snd_una);

    if (c->retries < BLACK_HOLE_TIMEOUTS || (c->path & CONN_PATH_CUT) != 0 || probing_of(d, c) == TCP_MTU_PROBING_OFF)
        return;
    if ((c->path & CONN_PATH_SEARCH) == 0)
        search_begin(d, env, c, c->mss_path);
    uint16_t size = tcp_mtu_black_hole(&path_of(d, c)->search, c->mss_path, d->params.mtu_base_mss, least);
    c->path &= (uint8_t)~CONN_PATH_PROBE; /* that search is over, and with it a probe of it that may still arrive */
    /* A segment that is smaller than that all the same is lost for another reason. */
    if (size >= c->mss_path || first + conn_options_bytes(c) <= size)
        return;
    counter_inc(env->ctr, CTR_TCP_MTU_BLACK_HOLES);
    set_size(c, size);
}

/* ---- what ICMP says ---------------------------------------- */

static void
believe(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint16_t size)
{
    struct tcp_path *p = path_of(d, c);

    counter_inc(env->ctr, CTR_TCP_MTU_LOWERED);
    pathcache_put(d, env, &c->link.tuple.remote, (uint16_t)(size + path_headers_bytes(&c->link.tuple.remote)));
    c->path &= (uint8_t)~CONN_PATH_DOUBT;
    if (c->path & CONN_PATH_SEARCH) {
        tcp_mtu_init(&p->search, lesser(p->search.low, size), lesser(p->search.high, size));
        c->path &= (uint8_t)~CONN_PATH_PROBE;
    } else {
        c->path |= CONN_PATH_LOWERED;
    }
    p->since_s = second_of(env);
    set_size(c, size);
}

/** RFC 5927 section 7.2: segments of this size have arrived, so it may be forged. It counts once the segment that it speaks of has timed out. */
static void
doubt(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq seq, uint16_t size)
{
    struct tcp_path *p = path_of(d, c);

    counter_inc(env->ctr, CTR_TCP_MTU_DOUBTED);
    c->path |= CONN_PATH_DOUBT;
    p->doubt_seq = seq;
    p->doubt_size = size;
}

bool
path_on_too_big(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq seq, uint16_t mtu)
{
    uint32_t headers = path_headers_bytes(&c->link.tuple.remote);
    uint16_t least = least_size(d, &c->link.tuple.remote);
    const struct tcp_path *p = path_of(d, c);

    /* Only a SYN that has data can be too big. */
    bool syn_data = c->state == TCP_ST_SYN_SENT && (c->flags & CONN_F_FO_DATA) != 0;
    if (c->state == TCP_ST_SYN_RECEIVED || (c->state == TCP_ST_SYN_SENT && !syn_data) || mtu <= headers ||
        (c->path & CONN_PATH_DEAF) != 0)
        return false;
    uint16_t size = mtu - headers < least ? least : (uint16_t)(mtu - headers);
    bool probe = (c->path & CONN_PATH_PROBE) != 0 && seq_geq(seq, p->probe_start) && seq_lt(seq, p->probe_end);
    if (probe && size >= c->mss_path && size < p->search.probe) {
        probe_has_failed(d, env, c, size);
        recovery_on_too_big(d, env, c, p->probe_end);
    } else if (size >= c->mss_path) {
        return false;
    } else if (c->path & CONN_PATH_PROVEN) {
        doubt(d, env, c, seq, size);
        return true;
    } else {
        believe(d, env, c, size);
        if (syn_data) {
            conn_send_syn(d, env, c);
            return true;
        }
        recovery_on_too_big(d, env, c, c->snd_nxt);
    }
    conn_output(d, env, c);
    return true;
}

void
path_grow_old(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (second_of(env) - path_of(d, c)->since_s < d->params.mtu_expires_s)
        return;
    take_limit(d, env, c);
    conn_set_mss(c);
}

/* ---- what happens ---------------------------------------- */

void
path_on_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq una)
{
    struct tcp_path *p = path_of(d, c);

    if ((c->path & CONN_PATH_PROBE) != 0 && seq_geq(c->snd_una, p->probe_end)) {
        counter_inc(env->ctr, CTR_TCP_MTU_PROBES_DELIVERED);
        c->path = (uint8_t)((c->path & ~CONN_PATH_PROBE) | CONN_PATH_PROVEN);
        tcp_mtu_delivered(&p->search);
        set_size(c, p->search.low);
    }
    if ((c->path & CONN_PATH_DOUBT) != 0 && seq_gt(c->snd_una, p->doubt_seq)) {
        counter_inc(env->ctr, CTR_TCP_DROP_ICMP); /* it got through: the message was forged, or of another time */
        c->path &= (uint8_t)~CONN_PATH_DOUBT;
    }
    /* Nothing small was among it, so it was a full segment. */
    if (seq_diff(c->snd_una, una) >= c->mss && seq_leq(c->snd_sml, una))
        c->path |= CONN_PATH_PROVEN;
}

void
path_on_rto(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    const struct tcp_path *p = path_of(d, c);

    /* Alone at the head it is what did not arrive; else nobody knows (RFC 4821 section 7.6.3). */
    if ((c->path & CONN_PATH_PROBE) != 0 && c->snd_una == p->probe_start)
        probe_has_failed(d, env, c, 0);
    if (c->path & CONN_PATH_DOUBT) {
        if (seq_geq(p->doubt_seq, c->snd_una) && p->doubt_size < c->mss_path)
            believe(d, env, c, p->doubt_size);
        c->path &= (uint8_t)~CONN_PATH_DOUBT;
        return;
    }
    suspect_black_hole(d, env, c);
}

void
path_discover_changed(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    note_discovery(d, c);
    if ((c->path & CONN_PATH_SEARCH) == 0)
        take_limit(d, env, c);
    if (c->mss_peer != 0)
        conn_set_mss(c);
}

void
path_reroute(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->mss_port == 0)
        return;
    path_discover_changed(d, env, c);
    if ((c->path & CONN_PATH_SEARCH) == 0)
        return;
    struct tcp_mtu *s = &path_of(d, c)->search;
    uint16_t end = search_end(d, env, c);
    if ((c->path & CONN_PATH_PROBE) == 0)
        tcp_mtu_init(s, s->low, end);
    set_size(c, lesser(c->mss_path, end));
}
