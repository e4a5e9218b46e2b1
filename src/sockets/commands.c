/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/**
 * @file
 * Socket commands. Each is copied out of the front region before it is looked at, and its numbers are bounded before use.
 */

#define PRIVILEGED_PORTS 1024u

typedef int (*command_fn)(struct stack *s, struct sock *sk, const struct shm_cmd *cmd);

/* ---- addresses ------------------------------------------------------------------------------------------------------------ */

/* Reserve local:port (0 = any free one) and show it. */
static int
bind_to(struct stack *s, struct sock *sk, const struct ip_addr *local, uint16_t port)
{
    uint16_t chosen;
    int rc = engine_bind(s, local, port, sk, &chosen);

    if (rc != 0)
        return rc;
    sock_set_address(sk, SHM_LOCAL, local, chosen);
    sock_lock(s, sk);
    sock_set_flags(sk, SOCK_BOUND, 0);
    sock_unlock(s, sk);
    return 0;
}

static int
do_bind(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    struct ip_addr local = addr_from_shm(&cmd->sa);

    if ((sock_flags(sk) & (SOCK_BOUND | SOCK_LISTENER)) || sock_tcp(sk) != TCP_NO_ID ||
        (sock_state(sk) & SHM_ST_CONNECTED))
        return -EINVAL;
    if (!ip_addr_is_any(&local) && !ip_is_local(s->ip, &local))
        return -EADDRNOTAVAIL;
    if (cmd->sa.port != 0 && cmd->sa.port < PRIVILEGED_PORTS && !sk->app->privileged)
        return -EACCES;
    if (ip_addr_is_any(&local))
        local = ip_addr_v4(0);
    if (s->host->nb_stacks > 1)
        return spread_bind(s, sk, &local, cmd->sa.port, false);
    return bind_to(s, sk, &local, cmd->sa.port);
}

/* The reservation by tcp_bind has passed to the listener or connection. */
static void
take_over_port(struct stack *s, struct sock *sk, tcp_id id, uint16_t flags, uint32_t status)
{
    sock_lock(s, sk);
    sock_set_flags(sk, flags, SOCK_BOUND);
    sock_set_tcp(sk, id);
    sock_status(s, sk, status, 0);
    sock_unlock(s, sk);
}

static int
do_listen(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    uint32_t backlog = cmd->opt.value < 0 ? 0 : (uint32_t)cmd->opt.value;
    const struct shm_addr name = sock_address(sk, SHM_LOCAL);
    struct ip_addr local = addr_from_shm(&name);
    tcp_id id;
    int rc;

    if (sock_flags(sk) & SOCK_LISTENER) {
        if (sock_spread(s, sk) != NULL)
            return spread_set_backlog(s, sk, backlog);
        engine_set_backlog(s, sock_tcp(sk), backlog);
        return 0;
    }
    if (sock_tcp(sk) != TCP_NO_ID || (sock_state(sk) & (SHM_ST_CONNECTED | SHM_ST_GONE)) ||
        __atomic_load_n(&s->host->closing, __ATOMIC_RELAXED))
        return -EINVAL;
    if (!(sock_flags(sk) & SOCK_BOUND)) {
        local = ip_addr_v4(0);
        rc = s->host->nb_stacks > 1 ? spread_bind(s, sk, &local, 0, true) : bind_to(s, sk, &local, 0);
        if (rc != 0)
            return rc;
    }
    if (sock_spread(s, sk) != NULL)
        return spread_listen(s, sk, backlog);
    rc = engine_listen(s, &local, name.port, backlog, sk, &id);
    if (rc != 0)
        return rc;
    take_over_port(s, sk, id, SOCK_LISTENER, SHM_ST_LISTEN);
    return 0;
}

/* As in Linux a socket whose connection attempt failed may try again. */
static int
may_connect(struct stack *s, struct sock *sk)
{
    if (__atomic_load_n(&s->host->closing, __ATOMIC_RELAXED))
        return -ENETDOWN;
    if (sock_state(sk) & SHM_ST_CONNECTING)
        return -EALREADY;
    if ((sock_flags(sk) & SOCK_LISTENER) || (sock_state(sk) & SHM_ST_CONNECTED))
        return -EISCONN;
    if (sock_state(sk) & SHM_ST_GONE) {
        sock_lock(s, sk);
        sock_back(sk)->error = 0;
        sock_status(s, sk, 0, SHM_ST_GONE | SHM_ST_ERROR);
        sock_unlock(s, sk);
    }
    return 0;
}

/* The port is 0 unless it was bound. */
static struct tcp_tuple
tuple_to_be(struct stack *s, const struct sock *sk, const struct shm_cmd *cmd)
{
    const struct shm_addr name = sock_address(sk, SHM_LOCAL);
    struct tcp_tuple t = { .remote = addr_from_shm(&cmd->sa), .remote_port = cmd->sa.port };

    if (sock_flags(sk) & SOCK_BOUND) {
        t.local = addr_from_shm(&name);
        t.local_port = name.port;
    }
    if (ip_addr_is_any(&t.local))
        t.local = ip_source_for(s->ip, &t.remote);
    return t;
}

/* From now on they are the connection's. What is asked for when that has ended is the name of its control, and keys are the socket's for ever. */
static void
options_handed_over(struct stack *s, struct sock *sk)
{
    struct tcp_sockopts *o = sock_more(s, sk)->opts;

    if (o == NULL || (o->set & (1u << TCP_OPT_CONGESTION)) || o->nb_md5 != 0 || o->nb_fastopen_keys != 0)
        return;
    opts_free(o);
    sock_lock(s, sk);
    sock_more_own(s, sk)->opts = NULL;
    sock_more_tidy(s, sk);
    sock_unlock(s, sk);
}

/* Within the first chunk, whatever the application says. */
static uint32_t
syn_bytes(const struct shm_cmd *cmd)
{
    return cmd->sa.n_bytes == SHM_FAST_DEFER ? TCP_FASTOPEN_DEFER : cmd->sa.n_bytes;
}

int
commands_connect(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    struct tcp_tuple t = tuple_to_be(s, sk, cmd);
    uint16_t mss_out = (uint16_t)(ip_mtu(s->ip, &t.remote) - 40);
    uint32_t taken = 0;
    tcp_id id;
    int rc;

    /* The reservation, if there is one, is for the address that was bound; it goes over to the connection. */
    rc = cmd->op == SHM_OP_CONNECT_FAST ? engine_connect_fast(s, &t, mss_out, sk, syn_bytes(cmd), &taken, &id)
                                        : engine_connect(s, &t, mss_out, sk, &id);
    if (rc != 0)
        return rc;
    sock_set_address(sk, SHM_LOCAL, &t.local, t.local_port);
    sock_set_address(sk, SHM_PEER, &t.remote, t.remote_port);
    if (taken > 0) {
        sock_lock_tx(s, sk);
        sk->tx_tail = taken;
        sock_unlock_tx(s, sk);
    }
    take_over_port(s, sk, id, taken > 0 ? SOCK_SYN_DATA : 0, SHM_ST_CONNECTING);
    options_handed_over(s, sk);
    return (int)taken;
}

static int
do_connect(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    const struct ip_addr remote = addr_from_shm(&cmd->sa);
    const struct host *h = s->host;
    int rc = may_connect(s, sk);

    if (rc != 0)
        return rc;
    if (cmd->sa.port == 0)
        return -ECONNREFUSED;
    if (ip_addr_is_any(&remote) || !ip_has_route(s->ip, &remote))
        return -ENETUNREACH;
    if (sock_flags(sk) & SOCK_BOUND) {
        struct tcp_tuple t = tuple_to_be(s, sk, cmd);
        uint32_t home = tcp_steer(&h->steer, &t);

        return home == s->number ? commands_connect(s, sk, cmd) : transit_connect(s, sk, cmd, home, false);
    }
    rc = commands_connect(s, sk, cmd);
    /* No port is left whose answers would come here. */
    if (rc == -EADDRNOTAVAIL && h->nb_stacks > 1)
        rc = transit_connect(s, sk, cmd, (s->number + 1) % h->nb_stacks, true);
    return rc;
}

/* The stream must be fresh: what is in the SYN stands at its begin. */
static int
do_connect_fast(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    return sk->tx_tail != 0 ? -EINVAL : do_connect(s, sk, cmd);
}

/* What is wrong with it in whichever domain it is executed; 0 = nothing. */
static int
check_accept(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    struct app *app = sk->app;

    if (!(sock_flags(sk) & SOCK_LISTENER))
        return -EINVAL;
    if (cmd->slot >= app->max_socks || sock_at(app, cmd->slot) != NULL || !app_member_ok(app, cmd->member)) {
        counter_inc(s->ctr, CTR_SOCK_BAD_COMMAND);
        return -EINVAL;
    }
    return 0;
}

static int
do_accept(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    int rc = check_accept(s, sk, cmd);

    return rc != 0 ? rc : spread_accept(s, sk, cmd->slot, cmd->member);
}

/* ---- ends ------------------------------------------------------------------------------------------------------------------- */

static int
shutdown_listener(struct stack *s, struct sock *sk, bool rd)
{
    if (rd && sock_spread(s, sk) != NULL)
        return spread_end(s, sk);
    if (rd)
        engine_close(s, sock_tcp(sk), false);
    return 0;
}

/* An end of that direction; false if it was before. */
static bool
shut(struct stack *s, struct sock *sk, uint16_t side)
{
    bool before;

    sock_lock(s, sk);
    before = (sock_flags(sk) & side) != 0;
    sock_set_flags(sk, side, 0);
    sock_unlock(s, sk);
    return !before;
}

static int
do_shutdown(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    int how = cmd->opt.value;
    bool rd = how == SHUT_RD || how == SHUT_RDWR;
    bool wr = how == SHUT_WR || how == SHUT_RDWR;

    if (!rd && !wr)
        return -EINVAL;
    if (sock_flags(sk) & SOCK_LISTENER)
        return shutdown_listener(s, sk, rd);
    /* As in Linux: everyone who waits looks again, whatever comes of it, and reading ends for a connection to come too. */
    sock_mark(s, sk, DIRTY_READ | DIRTY_WRITE);
    if (rd)
        shut(s, sk, SOCK_SHUT_RD);
    if (!(sock_state(sk) & SHM_ST_CONNECTED) || sock_tcp(sk) == TCP_NO_ID)
        return -ENOTCONN;
    if (wr && shut(s, sk, SOCK_SHUT_WR))
        engine_shutdown(s, sock_tcp(sk));
    return 0;
}

static int
do_close(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    if (!app_member_ok(sk->app, cmd->member) || !app_member_holds(sk->app, cmd->member, sk->slot)) {
        counter_inc(s->ctr, CTR_SOCK_BAD_COMMAND);
        return -EINVAL;
    }
    /* First elsewhere. The port of a connection stays taken until its end. */
    if (sk->holders == 1 && sock_spread(s, sk) != NULL &&
        (sock_tcp(sk) == TCP_NO_ID || (sock_flags(sk) & SOCK_LISTENER)))
        return spread_end(s, sk);
    app_member_drop(sk->app, cmd->member, sk->slot);
    if (sk->holders == 0)
        sock_close(s, sk, cmd->opt.value == 1);
    return 0;
}

/* ---- options and information ------------------------------------------------------------------------------------------------- */

/* Kept for the connection or listener to come. */
static int
option_keep(struct stack *s, struct sock *sk, uint32_t name, int32_t value)
{
    struct tcp_sockopts *o = opts_of_own(s, sk);

    if (o == NULL)
        return -ENOMEM;
    o->set |= 1u << name;
    o->value[name] = value;
    return 0;
}

/* To the connection or listener, or kept for it. */
static int
option_set(struct stack *s, struct sock *sk, uint32_t name, int32_t value)
{
    if (sock_tcp(sk) != TCP_NO_ID)
        return sock_flags(sk) & SOCK_LISTENER && sock_spread(s, sk) != NULL
                   ? spread_set_option(s, sk, name, value)
                   : engine_set_option(s, sock_tcp(sk), name, value);
    return sock_state(sk) & SHM_ST_GONE ? 0 : option_keep(s, sk, name, value);
}

/* The socket layer's own: nothing of them is the engine's. */
static int
option_set_own(struct stack *s, struct sock *sk, uint32_t name, uint32_t bytes)
{
    switch (name) {
    case SHM_OPT_RCVLOWAT:
        sock_more_own(s, sk)->rcvlowat = bytes;
        sock_mark(s, sk, DIRTY_TRAIN | (sk->rx_delivered - sk->rx_taken >= RTE_MAX(bytes, 1u) ? DIRTY_READ : 0));
        return 0;
    case SHM_OPT_NOTSENT_LOWAT:
        sock_more_own(s, sk)->notsent_lowat = bytes;
        sock_mark(s, sk, DIRTY_ACKED); /* there may be space by the new measure */
        return 0;
    default:
        return -ENOPROTOOPT;
    }
}

static int
do_setopt(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    uint32_t name = cmd->opt.name;
    int32_t value = cmd->opt.value;
    int rc;

    if (name >= SHM_OPT_RCVLOWAT)
        return option_set_own(s, sk, name, value < 0 ? INT32_MAX : (uint32_t)value);
    rc = tcp_option_check(name, value);
    if (rc == 0)
        rc = option_set(s, sk, name, value);
    if (rc < 0)
        return rc;
    if (name == TCP_OPT_SNDBUF) {
        uint32_t bytes = RTE_MIN(RTE_MAX((uint32_t)value, SNDBUF_MIN), SHM_SNDBUF_MAX);

        sock_more_own(s, sk)->sndbuf = (int32_t)bytes;
        shm_store(&sock_back(sk)->sndbuf_bytes, bytes);
    }
    if (name == TCP_OPT_WINDOW_CLAMP)
        sock_more_own(s, sk)->window_clamp = (uint32_t)value;
    if (name == TCP_OPT_RCVBUF) {
        sock_more_own(s, sk)->rcvbuf = value;
        shm_store(&sk->app->back_names[sk->slot].rcvbuf_bytes, (uint32_t)value);
    }
    return rc;
}

static int
do_setname(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    char text[sizeof(cmd->text.value) + 1] = "";
    int number;

    if (cmd->text.name != TCP_OPT_CONGESTION)
        return -ENOPROTOOPT;
    memcpy(text, cmd->text.value, sizeof(cmd->text.value));
    number = tcp_congestion_find(text);
    return number < 0 ? number : option_set(s, sk, TCP_OPT_CONGESTION, number);
}

static uint32_t
in_segs(uint32_t bytes, uint32_t mss)
{
    return mss != 0 ? (bytes + mss - 1) / mss : 0;
}

static uint32_t
ms_since(const struct stack *s, uint64_t at_us)
{
    return at_us != 0 && s->env.now_us > at_us ? (uint32_t)((s->env.now_us - at_us) / 1000) : 0;
}

static void
info_fill(const struct stack *s, const struct tcp_conn_info *c, struct shm_info *out)
{
    *out = (struct shm_info){
        .state = (uint8_t)c->state,
        .ca_state = c->ca_state,
        .retransmits = c->retransmits,
        .backoff = c->backoff,
        .probes = c->probes,
        .fastopen_fail = c->fastopen_fail,
        .snd_wscale = c->snd_wscale,
        .rcv_wscale = c->rcv_wscale,
        .timestamps = c->timestamps,
        .sack = c->sack,
        .rto_us = c->rto_us,
        .snd_mss = c->snd_mss,
        .rcv_mss = c->rcv_mss,
        .unacked_segs = c->unacked_segs,
        .retrans_segs = c->retrans_segs_total,
        .srtt_us = c->srtt_us,
        .rttvar_us = c->rttvar_us,
        .min_rtt_us = c->min_rtt_us,
        .cwnd_segs = in_segs(c->cwnd_bytes, c->snd_mss),
        .ssthresh_segs = in_segs(c->ssthresh_bytes, c->snd_mss),
        .snd_wnd = c->snd_wnd,
        .rcv_wnd = c->rcv_wnd,
        .path_mtu = c->path_mtu,
        .last_data_sent_ms = ms_since(s, c->last_snd_at_us),
        .last_data_recv_ms = ms_since(s, c->last_data_rcv_at_us),
        .last_ack_recv_ms = ms_since(s, c->last_rcv_at_us),
        .lost_segs = c->lost_segs,
        .sacked_segs = c->sacked_segs,
        .retrans_out_segs = c->retrans_segs,
        .reordering_segs = c->reordering_segs,
        .reorderings = c->reorderings,
        .adv_mss = c->adv_mss,
        .notsent_bytes = c->snd_unsent,
        .ecn = (uint8_t)(c->ecn + c->accecn),
        .ecn_seen = c->ecn_seen,
        .accecn_seen = c->accecn_seen,
        .accecn_fail = c->accecn_fail,
        .delivered_ce = c->delivered_ce,
        .received_ce = c->received_ce,
        .delivered_ecn_bytes = { c->delivered_ecn_bytes[0], c->delivered_ecn_bytes[1], c->delivered_ecn_bytes[2] },
        .received_ecn_bytes = { c->received_ecn_bytes[0], c->received_ecn_bytes[1], c->received_ecn_bytes[2] },
        .syn_data = c->syn_data,
        .delivery_rate = c->delivery_rate,
        .delivery_rate_app_limited = c->delivery_rate_app_limited,
        .pacing_rate = c->pacing_rate,
        .max_pacing_rate = c->max_pacing_rate,
        .delivered_segs = c->delivered_segs,
        .bytes_sent = c->bytes_sent,
        .bytes_acked = c->bytes_acked,
        .bytes_received = c->bytes_received,
        .bytes_retrans = c->bytes_retrans,
        .segs_in = c->segs_in,
        .segs_out = c->segs_out,
        .data_segs_in = c->data_segs_in,
        .data_segs_out = c->data_segs_out,
        .dsack_segs = c->dsack_segs,
        .ooo_segs = c->ooo_segs,
        .rtos = c->rtos,
        .rto_recoveries = c->rto_recoveries,
        .rto_time_ms = c->rto_time_ms,
        .ato_us = c->ato_us,
        .busy_us = c->busy_us,
        .rwnd_limited_us = c->rwnd_limited_us,
        .sndbuf_limited_us = c->sndbuf_limited_us,
        .rcv_space = c->rcv_buf_bytes,
        .rcv_rtt_us = c->rcv_rtt_us,
    };
    if (c->cc_name != NULL)
        snprintf(out->cc_name, sizeof(out->cc_name), "%s", c->cc_name);
}

/* What a socket without a connection would begin with. */
static const char *
congestion_to_come(const struct stack *s, const struct sock *sk)
{
    const struct tcp_sockopts *o = sock_more(s, sk)->opts;
    bool chosen = o != NULL && (o->set & (1u << TCP_OPT_CONGESTION)) != 0;

    return tcp_congestion_name(chosen ? o->value[TCP_OPT_CONGESTION] : s->cfg.tcp.congestion);
}

static int
do_info(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    struct tcp_conn_info c = { .state = TCP_ST_CLOSED, .cc_name = congestion_to_come(s, sk) };
    const struct tcp_sockopts *o = sock_more(s, sk)->opts;

    if (cmd->slot >= SHM_INFO_SLOTS)
        return -EINVAL;
    if (sock_tcp(sk) != TCP_NO_ID) {
        bool found;

        tcp_hold(s->tcp, &s->env, sock_tcp(sk));
        found = tcp_info(s->tcp, sock_tcp(sk), &c);
        tcp_release(s->tcp, &s->env, sock_tcp(sk));
        if (!found)
            return -EINVAL;
    }
    info_fill(s, &c, &sk->app->info[cmd->slot]);
    if (o != NULL) {
        struct shm_info *out = &sk->app->info[cmd->slot];

        out->nb_fastopen_keys = o->nb_fastopen_keys;
        memcpy(out->fastopen_keys, o->fastopen_keys, sizeof(out->fastopen_keys));
    }
    return 0;
}

/* ---- event queues ----------------------------------------------------------------------------------------------------------------- */

static int
do_subscribe(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    int rc = events_subscribe(s->net, sk->app, sk->slot, cmd->evq.queue);

    /*
     * What happened since the front-end looked is announced; what happens in this pass will be. Another domain may tell of a listener just now: it
     * counts first and looks for subscriptions then (net_wake_all), which is the other half of this.
     */
    if (s->host->nb_nets > 1)
        shm_fence();
    if (rc == 0 && __atomic_load_n(&sock_back(sk)->event_seq, __ATOMIC_RELAXED) != cmd->evq.seen)
        events_announce(s->net, sk->app, sk->slot, cmd->evq.queue);
    return rc;
}

static int
do_unsubscribe(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    events_unsubscribe(s->net, sk->app, sk->slot, cmd->evq.queue);
    return 0;
}

static int
do_event(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    (void)cmd;
    sock_mark(s, sk, DIRTY_READ | DIRTY_WRITE);
    return 0;
}

static int
do_nop(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    (void)s;
    (void)sk;
    (void)cmd;
    return 0;
}

/* ---- dispatch ------------------------------------------------------------------------------------------------------------------- */

/* Commands on a socket in use; the others are not legal there. */
static const command_fn command_table[SHM_OP_COUNT] = {
    [SHM_OP_NOP] = do_nop,
    [SHM_OP_BIND] = do_bind,
    [SHM_OP_LISTEN] = do_listen,
    [SHM_OP_CONNECT] = do_connect,
    [SHM_OP_ACCEPT] = do_accept,
    [SHM_OP_SHUTDOWN] = do_shutdown,
    [SHM_OP_CLOSE] = do_close,
    [SHM_OP_SETOPT] = do_setopt,
    [SHM_OP_SETNAME] = do_setname,
    [SHM_OP_SETKEY] = keys_command,
    [SHM_OP_EVENT] = do_event,
    [SHM_OP_INFO] = do_info,
    [SHM_OP_SUBSCRIBE] = do_subscribe,
    [SHM_OP_UNSUBSCRIBE] = do_unsubscribe,
    [SHM_OP_CONNECT_FAST] = do_connect_fast,
};

/* sk: the socket in the slot, or NULL. */
static int
execute(struct stack *s, struct app *app, uint32_t slot, struct sock *sk, const struct shm_cmd *cmd)
{
    bool in_use = sk != NULL && !(sock_flags(sk) & SOCK_CLOSING);

    if (cmd->op >= SHM_OP_COUNT) {
        counter_inc(s->ctr, CTR_SOCK_BAD_COMMAND);
        return -EINVAL;
    }
    if (cmd->op == SHM_OP_OPEN) {
        if (sk != NULL || !app_member_ok(app, cmd->member)) {
            counter_inc(s->ctr, CTR_SOCK_BAD_COMMAND);
            return -EINVAL;
        }
        return sock_open(s, app, slot, cmd->member) != NULL ? 0 : -ENFILE;
    }
    return in_use ? command_table[cmd->op](s, sk, cmd) : -EBADF;
}

/* sk: as for execute. Without a socket nobody marks the slot dirty: wake by hand, as an -EBADF has no cost worth batching. */
static void
finish_command(struct stack *s, struct app *app, uint32_t slot, struct sock *sk, uint32_t number, int result)
{
    struct shm_back_sock *b = &app->back[slot];

    counter_inc(s->ctr, CTR_SOCK_COMMANDS);
    b->cmd_result[number % SHM_CMDS] = result;
    shm_store(&b->cmd_done, number + 1);
    if (sk != NULL)
        sock_mark(s, sk, DIRTY_CMD);
    else
        sock_wake_slot(s->net, app, slot);
}

/*
 * The connection may wait in any domain. Domains are entered in the order of their numbers, or without waiting; failing that, when all are. Where
 * they have owners, the owner is asked, and the commands behind this one wait for its answer.
 */
static int
accept_anywhere(struct stack *s, struct sock *sk, const struct shm_cmd *cmd, bool all)
{
    struct spread *sp = sock_spread(s, sk);
    struct stack *from;
    int rc = check_accept(s, sk, cmd);

    if (rc != 0)
        return rc;
    from = spread_next(s, sk);
    if (from == NULL)
        return -EAGAIN;
    if (from == s || all)
        return spread_accept(from, &from->socks[sp->in[from->number].index], cmd->slot, cmd->member);
    if (!host_in_reach(s->host, s->net, from->number)) {
        sp->free_slot = cmd->slot;
        sp->member = cmd->member;
        sp->waiting = 1 + from->number;
        net_post_accept(s->net, host_owner(s->host, from->number), sk->app, sk->slot);
        return COMMAND_PENDING;
    }
    if (from->number > s->number) {
        stack_enter(from, s->net, s->env.now_us);
    } else if (!stack_try_enter(from, s->net, s->env.now_us)) {
        net_leave_for_later(s->net, sk->app, sk->slot);
        return COMMAND_PENDING;
    }
    rc = spread_accept(from, &from->socks[sp->in[from->number].index], cmd->slot, cmd->member);
    stack_leave(from);
    return rc;
}

/* What changes which sockets, connections and ports there are has the table for itself. */
static int
execute_shared(struct stack *s, struct app *app, uint32_t slot, struct sock *sk, const struct shm_cmd *cmd)
{
    bool table =
        cmd->op != SHM_OP_NOP && cmd->op != SHM_OP_INFO && cmd->op != SHM_OP_SUBSCRIBE && cmd->op != SHM_OP_UNSUBSCRIBE;
    int rc;

    if (table)
        table_take(s);
    rc = execute(s, app, slot, sk, cmd);
    if (table)
        table_give(s);
    return rc;
}

/* Execute it if that can be done here and now. */
static int
try_command(struct stack *s, struct app *app, uint32_t slot, struct sock *sk, const struct shm_cmd *cmd, bool all)
{
    if (s->shared != NULL)
        return execute_shared(s, app, slot, sk, cmd);
    if (s->host->nb_stacks == 1 || sk == NULL || (sock_flags(sk) & SOCK_CLOSING))
        return execute(s, app, slot, sk, cmd);
    if (cmd->op == SHM_OP_ACCEPT && sock_spread(s, sk) != NULL)
        return accept_anywhere(s, sk, cmd, all);
    return execute(s, app, slot, sk, cmd);
}

/* A socket is not freed between its commands, only when what is dirty is worked off; a shared domain's slot is locked. So it is looked for where there was none. */
static inline __attribute__((always_inline)) void
run_commands(struct stack *s, struct app *app, uint32_t slot, uint32_t head, bool all)
{
    const struct shm_front_sock *f = &app->front[slot];
    struct sock *sk = sock_in(s, app, slot);

    for (uint32_t done = app->back[slot].cmd_done; done != head; done++) {
        struct shm_cmd cmd;
        int rc;

        memcpy(&cmd, &f->cmd[done % SHM_CMDS], sizeof(cmd));
        /* From here on the copy counts: the compiler may not read the application's memory a second time. */
        __asm__ volatile("" : "+m"(cmd));
        rc = try_command(s, app, slot, sk, &cmd, all);
        if (rc == COMMAND_PENDING)
            return;
        if (sk == NULL)
            sk = sock_in(s, app, slot);
        finish_command(s, app, slot, sk, done, rc);
    }
}

/*
 * Is it a close that ends the stream in order? With bytes unread, or by SO_LINGER, it resets the connection, and what was sent before goes before. The command still lies where the
 * application can change it: then bytes wait for a close that does not come, which harms nobody else.
 */
static bool
close_sends_fin(const struct sock *sk, const struct shm_cmd *last)
{
    return __atomic_load_n(&last->op, __ATOMIC_RELAXED) == SHM_OP_CLOSE &&
           __atomic_load_n(&last->opt.value, __ATOMIC_RELAXED) != 1 && sk->rx_delivered == sk->rx_taken;
}

/** Whether these commands change neither what bytes there are nor what the socket is. */
static bool
are_settings(const struct shm_front_sock *f, uint32_t done, uint32_t head)
{
    for (; done != head; done++) {
        switch (__atomic_load_n(&f->cmd[done % SHM_CMDS].op, __ATOMIC_RELAXED)) {
        case SHM_OP_NOP:
        case SHM_OP_SETOPT:
        case SHM_OP_SUBSCRIBE:
        case SHM_OP_UNSUBSCRIBE:
            break;
        default:
            return false;
        }
    }
    return true;
}

/*
 * Take what the application has written beside commands, with a close's FIN if one stands last. Options that stand between go
 * first: TCP_NODELAY, which mostly was set before these bytes were written, would send them without the FIN. Returns whether the socket is still in use.
 */
static bool
take_bytes(struct stack *s, struct sock *sk, const struct shm_front_sock *f, uint32_t head, bool all)
{
    struct app *app = sk->app;
    uint32_t slot = sk->slot, done = app->back[slot].cmd_done;
    bool closes = head - done <= SHM_CMDS && close_sends_fin(sk, &f->cmd[(head - 1) % SHM_CMDS]);

    if (closes && head - done > 1 && sock_spread(s, sk) == NULL && are_settings(f, done, head - 1)) {
        run_commands(s, app, slot, head - 1, all);
        /* The application may have changed the commands meanwhile, and what it closed is gone. */
        sk = sock_in(s, app, slot);
        if (sk == NULL || (sock_flags(sk) & SOCK_CLOSING))
            return false;
    }
    tx_take(s, sk, f, closes);
    return true;
}

/* The commands up to head, with what was written beside them. sk: NULL if no socket is in use there. Apart, so that bytes alone keep no registers for it. */
static __attribute__((noinline)) void
service_commands(struct stack *s, struct app *app, uint32_t slot, struct sock *sk, uint32_t head, bool all)
{
    const struct shm_front_sock *f = &app->front[slot];
    bool in_use = sk != NULL;
    const struct spread *sp;

    if (in_use) {
        rx_take(s, sk, f);
        in_use = take_bytes(s, sk, f, head, all);
    }
    if (unlikely(head - app->back[slot].cmd_done > SHM_CMDS)) {
        if (in_use)
            sock_bad(s, sk);
        else
            counter_inc(s->ctr, CTR_SOCK_BAD_COMMAND);
        return;
    }
    sp = in_use ? sock_spread(s, sk) : NULL;
    if (sp != NULL && (sp->waiting != 0 || sp->busy))
        return; /* until commands_accepted or commands_done */
    run_commands(s, app, slot, head, all);
}

static void
service(struct stack *s, struct app *app, uint32_t slot, bool all)
{
    const struct shm_front_sock *f = &app->front[slot];
    struct shm_back_sock *b = &app->back[slot];
    uint64_t ref = __atomic_load_n(&app->slot_ref[slot], __ATOMIC_ACQUIRE);
    struct sock *sk = sock_of_ref(s, ref);
    uint32_t head;

    if (unlikely(sk == NULL && (ref & SLOT_TRANSIT)))
        return; /* its arrival looks for what was asked meanwhile */
    shm_store(&b->serviced, shm_load(&f->notified));
    if (!s->net->alone)
        shm_fence();
    if (sk != NULL && (sock_flags(sk) & SOCK_CLOSING))
        sk = NULL;
    head = shm_load(&f->cmd_head);
    if (head != b->cmd_done) { /* which is ours: the region cannot be written by applications */
        service_commands(s, app, slot, sk, head, all);
    } else if (likely(sk != NULL)) {
        rx_take(s, sk, f);
        tx_take(s, sk, f, false);
    }
}

void
commands_service(struct stack *s, struct app *app, uint32_t slot, bool all)
{
    slot_take(s, app, slot);
    service(s, app, slot, all);
    slot_give(s, app, slot);
}

void
commands_done(struct stack *s, struct app *app, uint32_t slot, int result)
{
    finish_command(s, app, slot, sock_in(s, app, slot), app->back[slot].cmd_done, result);
    commands_service(s, app, slot, false);
}

void
commands_accepted(struct stack *s, struct app *app, uint32_t slot)
{
    struct sock *sk = sock_in(s, app, slot);
    struct spread *sp = sk != NULL ? sock_spread(s, sk) : NULL;

    if (sp == NULL || sp->waiting == 0)
        return; /* it was closed by its process's end meanwhile */
    sp->waiting = 0;
    /* -EAGAIN: someone else was first there; the command is looked at again. */
    if (sp->result != -EAGAIN)
        finish_command(s, app, slot, sk, app->back[slot].cmd_done, sp->result);
    commands_service(s, app, slot, false);
}
