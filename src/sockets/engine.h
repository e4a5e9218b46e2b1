/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_ENGINE_H
#define SOCKETS_ENGINE_H

#include "sockets/backend.h"
#include "sockets/relay.h"

/**
 * @file
 * The engine as the back-end calls it: tcp.h's functions on a stack's domain, or by way of its relay where it has one. Calls without a result may be
 * applied later; those with one are applied, and their effects too, when they return.
 */

void relay_input(struct stack *s, const struct tcp_in *in, const struct ip_packet *p);
void relay_unreachable(struct stack *s, const struct tcp_tuple *t, const struct ip_unreachable *info);
void relay_tick(struct stack *s, unsigned budget);
int relay_bind(struct stack *s, const struct ip_addr *local, uint16_t port, const struct sock *sk, uint16_t *chosen);
void relay_unbind(struct stack *s, const struct ip_addr *local, uint16_t port, const struct sock *sk);
int relay_listen(struct stack *s, const struct ip_addr *local, uint16_t port, uint32_t backlog, const struct sock *sk,
                 tcp_id *id);
void relay_backlog(struct stack *s, tcp_id id, uint32_t backlog);
int relay_connect(struct stack *s, struct tcp_tuple *t, uint16_t mss_out, const struct sock *sk, tcp_id *id);
tcp_id relay_accept(struct stack *s, tcp_id listener, const struct sock *child, struct tcp_tuple *t);
void relay_data(struct stack *s, enum tcp_call_op op, tcp_id id, uint32_t n_bytes, uint32_t how);
void relay_abort(struct stack *s, struct sock *sk, tcp_id id);
int relay_option(struct stack *s, tcp_id id, uint32_t name, int32_t value);
void relay_fastopen_keys(struct stack *s, tcp_id id, unsigned n, const uint8_t keys[][TCP_FASTOPEN_KEY_BYTES]);
void relay_option_later(struct stack *s, tcp_id id, uint32_t name, int32_t value);

/** p: the packet that it came in. */
static inline void
engine_input(struct stack *s, const struct tcp_in *in, const struct ip_packet *p)
{
    if (likely(s->relay == NULL))
        tcp_input(s->tcp, &s->env, in);
    else
        relay_input(s, in, p);
}

static inline void
engine_unreachable(struct stack *s, const struct tcp_tuple *t, const struct ip_unreachable *info)
{
    if (likely(s->relay == NULL))
        tcp_unreachable(s->tcp, &s->env, t, info->seq, info->error, info->hard, info->mtu);
    else
        relay_unreachable(s, t, info);
}

/** Returns how many timers ran, as far as that is known. */
static inline unsigned
engine_tick(struct stack *s, unsigned budget)
{
    if (likely(s->relay == NULL))
        return tcp_tick(s->tcp, &s->env, budget);
    relay_tick(s, budget);
    return 1;
}

static inline int
engine_bind(struct stack *s, const struct ip_addr *local, uint16_t port, const struct sock *sk, uint16_t *chosen)
{
    if (likely(s->relay == NULL))
        return tcp_bind(s->tcp, local, port, sock_more(s, sk)->opts, sock_index(s, sk), chosen);
    return relay_bind(s, local, port, sk, chosen);
}

static inline void
engine_unbind(struct stack *s, const struct ip_addr *local, uint16_t port, const struct sock *sk)
{
    if (likely(s->relay == NULL))
        tcp_unbind(s->tcp, local, port, sock_index(s, sk));
    else
        relay_unbind(s, local, port, sk);
}

static inline int
engine_listen(struct stack *s, const struct ip_addr *local, uint16_t port, uint32_t backlog, const struct sock *sk,
              tcp_id *id)
{
    if (likely(s->relay == NULL))
        return tcp_listen(s->tcp, &s->env, local, port, backlog, sock_more(s, sk)->opts, sock_index(s, sk), id);
    return relay_listen(s, local, port, backlog, sk, id);
}

static inline void
engine_set_backlog(struct stack *s, tcp_id id, uint32_t backlog)
{
    if (likely(s->relay == NULL))
        tcp_set_backlog(s->tcp, id, backlog);
    else
        relay_backlog(s, id, backlog);
}

static inline int
engine_connect(struct stack *s, struct tcp_tuple *t, uint16_t mss_out, const struct sock *sk, tcp_id *id)
{
    if (likely(s->relay == NULL))
        return tcp_connect(s->tcp, &s->env, t, mss_out, sock_more(s, sk)->opts, sock_index(s, sk), id);
    return relay_connect(s, t, mss_out, sk, id);
}

/* Replicas put no data into a SYN: where it lies is known to the one that has the command alone. */
static inline int
engine_connect_fast(struct stack *s, struct tcp_tuple *t, uint16_t mss_out, const struct sock *sk, uint32_t n_bytes,
                    uint32_t *taken, tcp_id *id)
{
    if (s->relay != NULL)
        return -EOPNOTSUPP;
    return tcp_connect_fast(s->tcp, &s->env, t, mss_out, sock_more(s, sk)->opts, sock_index(s, sk), n_bytes, taken, id);
}

static inline tcp_id
engine_accept(struct stack *s, tcp_id listener, const struct sock *child, struct tcp_tuple *t)
{
    if (likely(s->relay == NULL))
        return tcp_accept(s->tcp, &s->env, listener, sock_index(s, child), t);
    return relay_accept(s, listener, child, t);
}

static inline void
engine_send(struct stack *s, tcp_id id, uint32_t n_bytes, uint32_t how)
{
    if (likely(s->relay == NULL))
        tcp_send(s->tcp, &s->env, id, n_bytes, how);
    else
        relay_data(s, TCP_CALL_SEND, id, n_bytes, how);
}

static inline void
engine_consumed(struct stack *s, tcp_id id, uint32_t n_bytes)
{
    if (likely(s->relay == NULL))
        tcp_consumed(s->tcp, &s->env, id, n_bytes);
    else
        relay_data(s, TCP_CALL_CONSUMED, id, n_bytes, 0);
}

static inline void
engine_shutdown(struct stack *s, tcp_id id)
{
    if (likely(s->relay == NULL))
        tcp_shutdown(s->tcp, &s->env, id);
    else
        relay_data(s, TCP_CALL_SHUTDOWN, id, 0, 0);
}

static inline void
engine_close(struct stack *s, tcp_id id, bool unread)
{
    if (likely(s->relay == NULL))
        tcp_close(s->tcp, &s->env, id, unread);
    else
        relay_data(s, TCP_CALL_CLOSE, id, 0, unread);
}

/** The connection `id` of sk, which no longer has it, ends now. */
static inline void
engine_abort(struct stack *s, struct sock *sk, tcp_id id)
{
    if (likely(s->relay == NULL))
        tcp_abort(s->tcp, &s->env, id);
    else
        relay_abort(s, sk, id);
}

static inline int
engine_set_option(struct stack *s, tcp_id id, uint32_t name, int32_t value)
{
    if (likely(s->relay == NULL))
        return tcp_set_option(s->tcp, &s->env, id, (enum tcp_option)name, value);
    return relay_option(s, id, name, value);
}

static inline int
engine_set_fastopen_keys(struct stack *s, tcp_id id, unsigned n, const uint8_t keys[][TCP_FASTOPEN_KEY_BYTES])
{
    if (likely(s->relay == NULL))
        return tcp_set_fastopen_keys(s->tcp, id, n, keys);
    relay_fastopen_keys(s, id, n, keys);
    return 0;
}

/** For one that cannot fail. */
static inline void
engine_set_option_later(struct stack *s, tcp_id id, uint32_t name, int32_t value)
{
    if (likely(s->relay == NULL))
        tcp_set_option(s->tcp, &s->env, id, (enum tcp_option)name, value);
    else
        relay_option_later(s, id, name, value);
}

#endif /* SOCKETS_ENGINE_H */
