/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/engine.h"

#include <string.h>

/**
 * @file
 * Engine calls as data on their way to the relay, and effects on their way back.
 */

/* ---- calls --------------------------------------------------------------------------------------------------------------- */

static struct tcp_call
call_of(const struct stack *s, enum tcp_call_op op, tcp_id id, const struct sock *sk)
{
    return (struct tcp_call){
        .now_us = s->env.now_us,
        .op = (uint8_t)op,
        .mem_pressure = s->env.mem_pressure,
        .mem_exhausted = s->env.mem_exhausted,
        .id = id,
        .user = sk != NULL ? sock_index(s, sk) : SOCK_NONE,
    };
}

static void
post(const struct stack *s, const struct tcp_call *call)
{
    s->relay->post(s->relay->ctx, call);
}

static struct tcp_result
run(const struct stack *s, const struct tcp_call *call)
{
    struct tcp_result res;

    s->relay->run(s->relay->ctx, call, &res);
    return res;
}

void
relay_input(struct stack *s, const struct tcp_in *in, const struct ip_packet *p)
{
    struct tcp_call call = call_of(s, TCP_CALL_INPUT, TCP_NO_ID, NULL);

    call.in = *in;
    s->relay->segment(s->relay->ctx, &call, p);
}

void
relay_unreachable(struct stack *s, const struct tcp_tuple *t, const struct ip_unreachable *info)
{
    struct tcp_call call = call_of(s, TCP_CALL_UNREACHABLE, TCP_NO_ID, NULL);

    call.unreachable.tuple = *t;
    call.unreachable.seq = info->seq;
    call.unreachable.err = info->error;
    call.unreachable.hard = info->hard;
    call.unreachable.mtu = info->mtu;
    post(s, &call);
}

void
relay_tick(struct stack *s, unsigned budget)
{
    struct tcp_call call = call_of(s, TCP_CALL_TICK, TCP_NO_ID, NULL);

    call.budget = budget;
    post(s, &call);
}

static struct tcp_call
open_call(const struct stack *s, enum tcp_call_op op, const struct tcp_tuple *t, const struct sock *sk)
{
    const struct tcp_sockopts *o = sock_more(s, sk)->opts;
    struct tcp_call call = call_of(s, op, TCP_NO_ID, sk);

    call.open.tuple = *t;
    call.open.has_opts = o != NULL;
    if (o != NULL) {
        call.open.set = o->set;
        memcpy(call.open.value, o->value, sizeof(call.open.value));
    }
    return call;
}

int
relay_bind(struct stack *s, const struct ip_addr *local, uint16_t port, const struct sock *sk, uint16_t *chosen)
{
    const struct tcp_tuple t = { .local = *local, .local_port = port };
    struct tcp_call call = open_call(s, TCP_CALL_BIND, &t, sk);
    struct tcp_result res = run(s, &call);

    *chosen = res.tuple.local_port;
    return res.rc;
}

void
relay_unbind(struct stack *s, const struct ip_addr *local, uint16_t port, const struct sock *sk)
{
    const struct tcp_tuple t = { .local = *local, .local_port = port };
    struct tcp_call call = open_call(s, TCP_CALL_UNBIND, &t, sk);

    post(s, &call);
}

int
relay_listen(struct stack *s, const struct ip_addr *local, uint16_t port, uint32_t backlog, const struct sock *sk,
             tcp_id *id)
{
    const struct tcp_tuple t = { .local = *local, .local_port = port };
    const struct tcp_sockopts *o = sock_more(s, sk)->opts;
    struct tcp_call call = open_call(s, TCP_CALL_LISTEN, &t, sk);
    struct tcp_result res;

    call.open.backlog = backlog;
    res = run(s, &call);
    *id = res.id;
    /* A SYN may come before them: to it the cookies of the stack's own key count still. */
    if (res.rc == 0 && o != NULL && o->nb_fastopen_keys != 0)
        relay_fastopen_keys(s, res.id, o->nb_fastopen_keys, o->fastopen_keys);
    return res.rc;
}

void
relay_fastopen_keys(struct stack *s, tcp_id id, unsigned n, const uint8_t keys[][TCP_FASTOPEN_KEY_BYTES])
{
    struct tcp_call call = call_of(s, TCP_CALL_FASTOPEN_KEYS, id, NULL);

    call.fastopen.n = n;
    memcpy(call.fastopen.keys, keys, n * sizeof(keys[0]));
    post(s, &call);
}

void
relay_backlog(struct stack *s, tcp_id id, uint32_t backlog)
{
    struct tcp_call call = call_of(s, TCP_CALL_BACKLOG, id, NULL);

    call.backlog = backlog;
    post(s, &call);
}

int
relay_connect(struct stack *s, struct tcp_tuple *t, uint16_t mss_out, const struct sock *sk, tcp_id *id)
{
    struct tcp_call call = open_call(s, TCP_CALL_CONNECT, t, sk);
    struct tcp_result res;

    call.open.mss_out = mss_out;
    res = run(s, &call);
    *t = res.tuple;
    *id = res.id;
    return res.rc;
}

tcp_id
relay_accept(struct stack *s, tcp_id listener, const struct sock *child, struct tcp_tuple *t)
{
    struct tcp_call call = call_of(s, TCP_CALL_ACCEPT, listener, child);
    struct tcp_result res = run(s, &call);

    *t = res.tuple;
    return res.id;
}

void
relay_data(struct stack *s, enum tcp_call_op op, tcp_id id, uint32_t n_bytes, uint32_t how)
{
    struct tcp_call call = call_of(s, op, id, NULL);

    call.data.n_bytes = n_bytes;
    call.data.how = how;
    post(s, &call);
}

/* Events before the call may still have effects on the connection: until EFFECT_ABORTED they are nobody's. */
void
relay_abort(struct stack *s, struct sock *sk, tcp_id id)
{
    struct tcp_call call = call_of(s, TCP_CALL_ABORT, id, sk);

    sk->flags |= SOCK_ABORTED;
    post(s, &call);
}

static struct tcp_call
option_call(const struct stack *s, tcp_id id, uint32_t name, int32_t value)
{
    struct tcp_call call = call_of(s, TCP_CALL_OPTION, id, NULL);

    call.option.name = name;
    call.option.value = value;
    return call;
}

int
relay_option(struct stack *s, tcp_id id, uint32_t name, int32_t value)
{
    struct tcp_call call = option_call(s, id, name, value);

    return run(s, &call).rc;
}

void
relay_option_later(struct stack *s, tcp_id id, uint32_t name, int32_t value)
{
    struct tcp_call call = option_call(s, id, name, value);

    post(s, &call);
}

/* ---- effects -------------------------------------------------------------------------------------------------------------- */

void
stack_effect(struct stack *s, const struct effect *e)
{
    struct sock *sk = &s->socks[e->user];
    bool nobody = e->kind != EFFECT_RELEASE && (sk->app == NULL || (sk->flags & SOCK_ABORTED));

    switch ((enum effect_kind)e->kind) {
    case EFFECT_RELEASE:
        rx_on_release(s, e->buf);
        break;
    case EFFECT_DELIVER:
        if (nobody)
            rx_on_release(s, e->data.buf);
        else
            rx_on_deliver(s, e->user, e->data);
        break;
    case EFFECT_ACKED:
        if (!nobody)
            sock_on_acked(s, e->user, e->stream.n_bytes);
        break;
    case EFFECT_EVENT:
        if (!nobody)
            sock_on_event(s, e->user, e->state.events, e->state.err);
        break;
    case EFFECT_SENT:
        if (!nobody)
            tx_on_sent(s, sk, e->stream.pos, e->stream.n_bytes);
        break;
    case EFFECT_ABORTED:
        sk->flags &= (uint16_t)~SOCK_ABORTED;
        sock_mark(s, sk, DIRTY_CMD);
        break;
    }
}

/* ---- for the mode --------------------------------------------------------------------------------------------------------- */

void
stack_set_relay(struct stack *s, const struct relay *relay)
{
    s->relay = relay;
}

struct tcp_domain *
stack_domain(const struct stack *s)
{
    return s->tcp;
}

void
stack_look_at(struct stack *s, struct tcp_domain *d)
{
    s->tcp = d;
}

struct tcp_domain *
stack_domain_create(const struct stack *s)
{
    struct tcp_domain *d = lazy_alloc_by_page(s->tcp_bytes);

    if (d != NULL && tcp_domain_init(d, &s->cfg.tcp, 1) != 0) {
        lazy_free(d, s->tcp_bytes);
        d = NULL;
    }
    return d;
}

void
stack_domain_destroy(const struct stack *s, struct tcp_domain *d)
{
    lazy_free(d, s->tcp_bytes);
}

void
stack_on_unused(void *ctx, void *at, size_t bytes)
{
    (void)ctx;
    lazy_give_back(at, bytes);
}

/* Each held buffer is released or delivered once; a connection is told of acknowledgements, its opening, its peer's FIN and its end. */
uint32_t
stack_effects_max(const struct stack *s)
{
    return s->cfg.tcp.max_ooo_bufs + 4 * s->cfg.tcp.max_conns + 2;
}

uint32_t
stack_gso_max_bytes(const struct stack *s)
{
    return s->env.gso_max_bytes;
}

bool
net_try_begin(struct net *net)
{
    if (!lock_try_take(&net->pass))
        return false;
    counter_inc(net->ctr, CTR_LOCK_PASS);
    return true;
}

void
net_leave(struct net *net)
{
    lock_give(&net->pass);
}

void
net_ring(struct net *net, unsigned to)
{
    net->ring_bells |= 1u << to;
}

unsigned
net_pass_on(struct net *net, unsigned to, uint64_t now_us)
{
    struct ip_packet pkts[2 * PORT_BURST];
    uint16_t n = net_receive(net, pkts, now_us);

    for (uint16_t i = 0; i < n; i++)
        net_hand_packet(net, to, &pkts[i]);
    return n;
}

bool
host_is_stopped(const struct host *h)
{
    return h->stopped;
}
