/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "tcp/domain.h"
#include "tcp/fastopen.h"
#include "tcp/guard.h"
#include "tcp/isn.h"

/** Whether t's tuple, the port of which the user has bound, may be used; one in TIME-WAIT may give way (RFC 6191), and changes where its sequence numbers begin. */
static int
connect_claim(struct tcp_domain *d, const struct tcp_tuple *t, uint64_t now_us, tcp_seq *iss)
{
    uint32_t ref = table_find(d, t);

    if (ref == 0)
        return 0;
    if (TABLE_KIND(ref) != TABLE_TW || !timewait_can_reuse(d, TABLE_INDEX(ref), now_us))
        return -EADDRINUSE;
    *iss = tw_at(d, TABLE_INDEX(ref))->snd_nxt + 65537;
    timewait_free(d, TABLE_INDEX(ref));
    return 0;
}

static void
connect_fill(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq iss, uint16_t mss_out)
{
    const struct tcp_params *p = &d->params;

    c->iss = c->snd_una = iss;
    c->snd_nxt = c->snd_end = iss + 1;
    path_start(d, env, c, mss_out);
    c->mss_peer = 536;
    c->mss = 536;
    /* As Linux: beside a signature SYNs have no room for timestamps. */
    bool is_signed = md5_find(d, c->md5, &c->link.tuple.remote) != NULL;
    c->flags |= (p->timestamps && !is_signed ? CONN_F_TS : 0) | (p->sack ? CONN_F_SACK : 0) |
                (p->window_scaling ? CONN_F_WSCALE : 0) | CONN_F_TIMING;
    c->rcv_wscale = p->window_scaling ? window_scale_for(d, c->rcv_buf, (c->flags & CONN_F_RCVBUF_FIXED) != 0) : 0;
    c->syn_at_us = (uint32_t)d->now_us;
}

/** How much of n_bytes goes with the SYN: options may take all the room that a header has (RFC 7413 section 4.2.1). */
static uint32_t
syn_data_len(const struct tcp_domain *d, const struct tcp_conn *c, uint32_t n_bytes)
{
    const struct tcp_fo_entry *e = fastopen_entry(d, &c->link.tuple);
    bool no_cookie = (d->params.fastopen & TCP_FASTOPEN_CLIENT_NO_COOKIE) != 0 || (c->flags & CONN_F_FO_NO_COOKIE) != 0;
    uint32_t room = c->mss_path;

    if (!no_cookie && (e == NULL || e->cookie.len == 0))
        return 0;
    if (c->opts.max_seg != 0 && c->opts.max_seg < room)
        room = c->opts.max_seg;
    if (e != NULL && e->mss < room)
        room = e->mss;
    room -= TCP_OPTIONS_MAX;
    return n_bytes < room ? n_bytes : room;
}

static uint32_t
connect_fast_fill(const struct tcp_domain *d, struct tcp_conn *c, uint32_t n_bytes)
{
    /* Nor for a cookie. */
    if (fastopen_is_suspended(d, fastopen_entry(d, &c->link.tuple)) ||
        md5_find(d, c->md5, &c->link.tuple.remote) != NULL)
        return 0;
    uint32_t n = syn_data_len(d, c, n_bytes);
    c->flags |= CONN_F_FO_TRIED | CONN_F_FO_SYN | (n > 0 ? CONN_F_FO_DATA : 0);
    c->snd_nxt += n;
    c->snd_end += n;
    return n;
}

/** n_bytes: what may go with the SYN; *taken: what went. NULL = without Fast Open. */
static int
open_active(struct tcp_domain *d, const struct tcp_env *env, struct tcp_tuple *t, uint16_t mss_out,
            const struct tcp_sockopts *opts, tcp_user user, uint32_t n_bytes, uint32_t *taken, tcp_id *id)
{
    struct tcp_conn_opts o;
    uint32_t flags;
    uint32_t bind = 0;
    tcp_seq iss;

    int rc = opts_apply(d, &o, &flags, opts);
    if (rc != 0)
        return rc;
    if (d->pools[POOL_CONN].used == d->pools[POOL_CONN].cap || !md5_has_room(d, opts))
        return -ENOMEM;
    bool chosen = t->local_port == 0;
    if (chosen)
        rc = port_choose(d, t, false); /* one with which the tuple is free */
    else
        bind = port_find_owned(d, &t->local, t->local_port, user);
    iss = tcp_isn(d->params.seed, t, env->now_us);
    if (rc == 0 && !chosen)
        rc = connect_claim(d, t, env->now_us, &iss);
    if (rc != 0)
        return rc;
    struct tcp_conn *c = conn_new(d, env, t, &o, flags);
    c->user = user;
    c->bind = bind;
    if (bind != 0)
        bind_at(d, bind)->user = 0;
    md5_add_all(d, &c->md5, opts);
    connect_fill(d, env, c, iss, mss_out);
    if (taken != NULL)
        *taken = connect_fast_fill(d, c, n_bytes);
    conn_set_state(env, c, TCP_ST_SYN_SENT);
    counter_inc(env->ctr, CTR_TCP_ACTIVE_OPENS);
    *id = slot_id(d, conn_index(d, c));
    conn_send_syn(d, env, c);
    unguard_slot(env, conn_index(d, c));
    return 0;
}

int
tcp_connect(struct tcp_domain *d, const struct tcp_env *env, struct tcp_tuple *t, uint16_t mss_out,
            const struct tcp_sockopts *opts, tcp_user user, tcp_id *id)
{
    guard_table(d, env);
    int rc = open_active(d, env, t, mss_out, opts, user, 0, NULL, id);
    unguard_table(env);
    return rc;
}

int
tcp_connect_fast(struct tcp_domain *d, const struct tcp_env *env, struct tcp_tuple *t, uint16_t mss_out,
                 const struct tcp_sockopts *opts, tcp_user user, uint32_t n_bytes, uint32_t *taken, tcp_id *id)
{
    if ((d->params.fastopen & TCP_FASTOPEN_CLIENT) == 0)
        return -EOPNOTSUPP;
    bool defer = n_bytes == TCP_FASTOPEN_DEFER;
    guard_table(d, env);
    int rc = defer && fastopen_is_ready(d, t, opts)
                 ? -EAGAIN
                 : open_active(d, env, t, mss_out, opts, user, defer ? 0 : n_bytes, taken, id);
    unguard_table(env);
    return rc;
}

void
tcp_send(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, uint32_t n_bytes, uint32_t how)
{
    struct tcp_conn *c = conn_enter(d, env, id);

    if (c == NULL)
        return;
    if ((c->flags & (CONN_F_FIN_QUEUED | CONN_F_ORPHAN)) == 0) {
        c->snd_end += n_bytes;
        c->flags = how & TCP_SEND_MORE ? c->flags | CONN_F_MORE : c->flags & ~CONN_F_MORE;
        if (how & TCP_SEND_EOR)
            record_end(d, env, c);
        conn_output(d, env, c);
    }
    conn_leave(env, id);
}

/*
 * On paths shorter than this, round trips that are longer by as much are queues: those of many connections of one machine, or of its next switch. More under way would
 * lengthen them, and leave the caches. On longer paths round trips vary for other reasons.
 */
#define NEAR_PATH_US 1000u

uint32_t
tcp_send_buffer(const struct tcp_domain *d, tcp_id id)
{
    /* A hint, so whoever else is inside the connection is not waited for; it may have ended since, and another one be there. */
    const struct tcp_conn *c = conn_at(d, id & 0xffffff);
    uint32_t min_us = __atomic_load_n(&c->rtt.min_us, __ATOMIC_RELAXED);

    if (min_us < NEAR_PATH_US && __atomic_load_n(&c->rtt.srtt_us, __ATOMIC_RELAXED) > 2 * min_us + NEAR_PATH_US)
        return 0;
    return 3 * __atomic_load_n(&c->cc.cwnd_bytes, __ATOMIC_RELAXED);
}

static void
conn_consumed(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t n_bytes)
{
    c->rcv_used -= n_bytes < c->rcv_used ? n_bytes : c->rcv_used;
    if ((c->flags & CONN_F_RCVBUF_FIXED) == 0 && !env->mem_pressure)
        c->rcv_buf = tcp_tune_taken(&flow_of(c)->tune, n_bytes, c->rtt.srtt_us, c->mss, c->rcv_buf,
                                    d->params.rcv_buf_max_bytes, (uint32_t)env->now_us);
    if (c->flags & CONN_F_FIN_RCVD)
        return;
    uint32_t offered = seq_diff(c->rcv_adv, c->rcv_nxt);
    uint32_t space = conn_window_space(c);
    uint32_t whole = conn_window_most(c);
    uint32_t least = whole / 2 < 2u * c->mss ? whole / 2 : 2u * c->mss;
    /* Most often. */
    if (space < offered + least)
        return;
    uint32_t most = (uint32_t)UINT16_MAX << c->rcv_wscale; /* the field can offer no more */
    if (space > most)
        space = most;
    /* The handshake's window is never scaled. While it is mostly unused the next ACK will be early enough to enlarge it. */
    if (seq_diff(c->rcv_adv, c->irs) < 2u * UINT16_MAX && offered > UINT16_MAX / 2)
        return;
    uint32_t gain = space > offered ? space - offered : 0;
    /* An update is worth a segment if it opens a fair part of what can be offered, or much of a window that is nearly shut. */
    if (gain >= whole / 2 || (gain >= 2u * c->mss && (gain >= whole / 4 || offered <= whole / 8)))
        conn_send_ack(d, env, c, NULL);
}

void
tcp_consumed(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, uint32_t n_bytes)
{
    struct tcp_conn *c = conn_enter(d, env, id);

    if (c == NULL)
        return;
    conn_consumed(d, env, c, n_bytes);
    conn_leave(env, id);
}

/** Queue the FIN: FIN-WAIT-1 and LAST-ACK begin with the user's call (RFC 9293 section 3.10.4). */
static void
queue_fin(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->flags & CONN_F_FIN_QUEUED)
        return;
    switch (c->state) {
    case TCP_ST_SYN_RECEIVED:
        /* A listener's child by Fast Open sends before the ACK of its SYN: its FIN too. */
        if ((c->flags & CONN_F_FO_CHILD) == 0) {
            c->flags |= CONN_F_FIN_QUEUED;
            return;
        }
        conn_set_state(env, c, TCP_ST_FIN_WAIT_1);
        break;
    case TCP_ST_ESTABLISHED:
        conn_set_state(env, c, TCP_ST_FIN_WAIT_1);
        break;
    case TCP_ST_CLOSE_WAIT:
        conn_set_state(env, c, TCP_ST_LAST_ACK);
        break;
    default:
        /* In SYN-SENT, as in SYN-RECEIVED, it waits for ESTABLISHED. */
        c->flags |= CONN_F_FIN_QUEUED;
        return;
    }
    c->flags |= CONN_F_FIN_QUEUED;
    conn_output(d, env, c);
}

void
tcp_shutdown(struct tcp_domain *d, const struct tcp_env *env, tcp_id id)
{
    struct tcp_conn *c = conn_enter(d, env, id);

    if (c == NULL)
        return;
    queue_fin(d, env, c);
    conn_leave(env, id);
}

/** RFC 9293 section 3.10.5: the states in which the peer must hear of an abort. */
static bool
abort_needs_rst(const struct tcp_conn *c)
{
    switch (c->state) {
    case TCP_ST_SYN_RECEIVED:
    case TCP_ST_ESTABLISHED:
    case TCP_ST_FIN_WAIT_1:
    case TCP_ST_FIN_WAIT_2:
    case TCP_ST_CLOSE_WAIT:
        return true;
    default:
        return false;
    }
}

static void
start_fin_wait2(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (c->opts.linger2_s == TCP_LINGER2_NONE) {
        conn_send_rst(d, env, c); /* the peer may have more to say, to nobody */
        conn_end(d, env, c, 0);
        return;
    }
    uint64_t wait_us = c->opts.linger2_s != 0 ? c->opts.linger2_s * 1000000ull : d->params.fin_wait2_us;
    conn_timer_set(d, env, c, CONN_T_KEEP, env->now_us + wait_us);
}

static void
conn_close(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, bool unread)
{
    c->flags |= CONN_F_ORPHAN;
    c->flags &= ~(CONN_F_CORK | CONN_F_MORE);
    bool early = c->state == TCP_ST_SYN_SENT || (c->state == TCP_ST_SYN_RECEIVED && (c->flags & CONN_F_FO_CHILD) == 0);
    if (early || (unread && abort_needs_rst(c))) {
        if (abort_needs_rst(c))
            conn_send_rst(d, env, c);
        conn_end(d, env, c, 0);
        return;
    }
    if (c->state == TCP_ST_FIN_WAIT_2) {
        start_fin_wait2(d, env, c);
        return;
    }
    queue_fin(d, env, c);
}

void
tcp_close(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, bool unread)
{
    tcp_hold(d, env, id);
    struct tcp_listener *l = listener_by_id(d, id);
    struct tcp_conn *c = conn_awake(d, id);
    if (l != NULL)
        listener_close(d, env, l);
    if (c != NULL)
        conn_close(d, env, c, unread);
    tcp_release(d, env, id);
}

void
tcp_abort(struct tcp_domain *d, const struct tcp_env *env, tcp_id id)
{
    tcp_hold(d, env, id);
    struct tcp_listener *l = listener_by_id(d, id);
    struct tcp_conn *c = conn_awake(d, id);
    if (l != NULL) {
        l->user = 0;
        listener_close(d, env, l);
    }
    if (c != NULL) {
        if (abort_needs_rst(c))
            conn_send_rst(d, env, c);
        conn_free(d, env, c);
    }
    tcp_release(d, env, id);
}

/** The new control goes on from the window that the old one had reached. */
static void
change_congestion(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    struct tcp_cc old = c->cc;

    if (c->cc_id == c->opts.cc_id)
        return;
    c->cc_id = c->opts.cc_id;
    if (c->mss == 0 || old.cwnd_bytes == 0)
        return; /* the handshake's end will start it */
    conn_cc_start(d, env, c);
    c->cc.cwnd_bytes = old.cwnd_bytes;
    c->cc.ssthresh_bytes = old.ssthresh_bytes;
    /* A reduction that is going on needs a goal, which a control with a model does not set. */
    if (c->ca_state >= CONN_CA_CWR && c->cc.ssthresh_bytes > c->cc.cwnd_bytes)
        c->cc.ssthresh_bytes = c->cc.cwnd_bytes;
}

int
tcp_congestion_find(const char *name)
{
    int id = tcp_cc_find(name);

    return id < 0 ? -ENOENT : id;
}

const char *
tcp_congestion_name(int number)
{
    return tcp_cc_by_id((uint8_t)number)->name;
}

int
tcp_set_congestion(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, const char *name)
{
    int cc = tcp_congestion_find(name);

    return cc < 0 ? cc : tcp_set_option(d, env, id, TCP_OPT_CONGESTION, cc);
}

static int
listener_set_option(const struct tcp_domain *d, struct tcp_listener *l, enum tcp_option opt, int32_t value)
{
    if (opt == TCP_OPT_DEFER_ACCEPT)
        l->defer_timeouts = listener_defer_timeouts(d, value);
    if (opt == TCP_OPT_FASTOPEN && value >= 0)
        l->fastopen_qlen = (uint32_t)value;
    return opts_set(&l->opts, &l->flags, opt, value);
}

static int
conn_set_option(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, enum tcp_option opt, int32_t value)
{
    int rc = opts_set(&c->opts, &c->flags, opt, value);
    if (rc != 0)
        return rc;
    switch (opt) {
    case TCP_OPT_NODELAY:
    case TCP_OPT_CORK:
        if ((opt == TCP_OPT_CORK) == (value == 0))
            c->flags |= CONN_F_PUSH; /* uncorking sends what it held, and so does TCP_NODELAY (tcp(7)) */
        conn_output(d, env, c);
        break;
    case TCP_OPT_KEEPALIVE:
    case TCP_OPT_KEEPIDLE:
        if ((c->flags & CONN_F_KEEPALIVE) != 0 && c->state != TCP_ST_SYN_SENT)
            conn_timer_set(d, env, c, CONN_T_KEEP, env->now_us + c->opts.keep_idle_s * 1000000ull);
        break;
    case TCP_OPT_RCVBUF:
        c->rcv_buf = (c->flags & CONN_F_RCVBUF_FIXED) != 0 ? c->opts.rcv_buf_bytes : d->params.rcv_buf_bytes;
        break;
    case TCP_OPT_CONGESTION:
        change_congestion(d, env, c);
        break;
    case TCP_OPT_MAX_PACING_RATE:
        if (c->cc.cwnd_bytes != 0)
            conn_pace(d, env, c);
        conn_output(d, env, c);
        break;
    case TCP_OPT_MTU_DISCOVER:
        path_discover_changed(d, env, c);
        break;
    case TCP_OPT_QUICKACK:
        if (value == 0)
            c->quick_acks = 0;
        else if (c->timer_at[CONN_T_DELACK] != 0 || c->ack_held)
            conn_send_ack(d, env, c, NULL);
        break;
    default:
        break;
    }
    return 0;
}

int
tcp_set_option(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, enum tcp_option opt, int32_t value)
{
    int rc = -EINVAL;

    tcp_hold(d, env, id);
    struct tcp_listener *l = listener_by_id(d, id);
    struct tcp_conn *c = conn_awake(d, id);
    if (l != NULL)
        rc = listener_set_option(d, l, opt, value);
    else if (c != NULL)
        rc = conn_set_option(d, env, c, opt, value);
    tcp_release(d, env, id);
    return rc;
}
