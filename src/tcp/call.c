/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/call.h"

#include <string.h>

/** NULL = none; else they are in *o. */
static const struct tcp_sockopts *
opts_of(const struct tcp_call *call, struct tcp_sockopts *o)
{
    if (!call->open.has_opts)
        return NULL;
    *o = (struct tcp_sockopts){ .set = call->open.set };
    memcpy(o->value, call->open.value, sizeof(o->value));
    return o;
}

/* Calls that make or take connections and ports: they have results. */
static void
apply_open(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_call *call, struct tcp_result *res)
{
    struct tcp_tuple *t = &res->tuple;
    struct tcp_sockopts o;

    switch ((enum tcp_call_op)call->op) {
    case TCP_CALL_BIND:
        *t = call->open.tuple;
        res->rc = tcp_bind(d, &t->local, t->local_port, opts_of(call, &o), call->user, &t->local_port);
        break;
    case TCP_CALL_UNBIND:
        tcp_unbind(d, &call->open.tuple.local, call->open.tuple.local_port, call->user);
        break;
    case TCP_CALL_LISTEN:
        res->rc = tcp_listen(d, env, &call->open.tuple.local, call->open.tuple.local_port, call->open.backlog,
                             opts_of(call, &o), call->user, &res->id);
        break;
    case TCP_CALL_CONNECT:
        *t = call->open.tuple;
        res->rc = tcp_connect(d, env, t, call->open.mss_out, opts_of(call, &o), call->user, &res->id);
        break;
    case TCP_CALL_ACCEPT:
        res->id = tcp_accept(d, env, call->id, call->user, t);
        break;
    default:
        break;
    }
}

/* Calls on what exists. */
static void
apply_use(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_call *call, struct tcp_result *res)
{
    switch ((enum tcp_call_op)call->op) {
    case TCP_CALL_BACKLOG:
        tcp_set_backlog(d, call->id, call->backlog);
        break;
    case TCP_CALL_SEND:
        tcp_send(d, env, call->id, call->data.n_bytes, call->data.how);
        break;
    case TCP_CALL_CONSUMED:
        tcp_consumed(d, env, call->id, call->data.n_bytes);
        break;
    case TCP_CALL_SHUTDOWN:
        tcp_shutdown(d, env, call->id);
        break;
    case TCP_CALL_CLOSE:
        tcp_close(d, env, call->id, call->data.how != 0);
        break;
    case TCP_CALL_ABORT:
        tcp_abort(d, env, call->id);
        break;
    case TCP_CALL_OPTION:
        res->rc = tcp_set_option(d, env, call->id, (enum tcp_option)call->option.name, call->option.value);
        break;
    case TCP_CALL_FASTOPEN_KEYS:
        tcp_set_fastopen_keys(d, call->id, call->fastopen.n, call->fastopen.keys);
        break;
    default:
        apply_open(d, env, call, res);
        break;
    }
}

void
tcp_apply(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_call *call, struct tcp_result *res)
{
    struct tcp_env e = *env;

    e.now_us = call->now_us;
    e.mem_pressure = call->mem_pressure;
    e.mem_exhausted = call->mem_exhausted;
    *res = (struct tcp_result){ .id = TCP_NO_ID };
    switch ((enum tcp_call_op)call->op) {
    case TCP_CALL_INPUT:
        tcp_input(d, &e, &call->in);
        break;
    case TCP_CALL_UNREACHABLE:
        tcp_unreachable(d, &e, &call->unreachable.tuple, call->unreachable.seq, call->unreachable.err,
                        call->unreachable.hard, call->unreachable.mtu);
        break;
    case TCP_CALL_TICK:
        res->rc = (int)tcp_tick(d, &e, call->budget);
        break;
    default:
        apply_use(d, &e, call, res);
        break;
    }
}
