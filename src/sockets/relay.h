/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_RELAY_H
#define SOCKETS_RELAY_H

#include "sockets/stack.h"
#include "tcp/call.h"

/**
 * @file
 * A stack whose domain exists several times: the sockets are there once, and calls of the engine go to a relay, which applies them, in one order, to
 * every replica of the domain. What the engine wants done comes back as effects, which are applied to the sockets in the order of the events that
 * caused them, once. Segments alone do not take that way: whoever is to send one does so with its own struct net.
 */

struct relay {
    void *ctx;
    /** Have it applied some time, in order with all others. Never fails. */
    void (*post)(void *ctx, const struct tcp_call *call);
    /** The same for a segment that p holds; its checksum is still to be verified if p says so. */
    void (*segment)(void *ctx, const struct tcp_call *call, const struct ip_packet *p);
    /** The same, and wait: until the call has been applied once, and all effects up to it too. */
    void (*run)(void *ctx, const struct tcp_call *call, struct tcp_result *res);
};

/** Engine calls of this stack go to the relay from now on (NULL: to its domain again). Before any worker runs; the relay outlives the stack. */
void stack_set_relay(struct stack *s, const struct relay *relay);

/** The domain that is looked at where nothing is changed. Whoever is inside the stack. */
struct tcp_domain *stack_domain(const struct stack *s);
void stack_look_at(struct stack *s, struct tcp_domain *d);

/** A fresh domain like the stack's own, which has seen no event yet. NULL: no memory. */
struct tcp_domain *stack_domain_create(const struct stack *s);
void stack_domain_destroy(const struct stack *s, struct tcp_domain *d);
/** tcp_sink.unused of any of them. */
void stack_on_unused(void *ctx, void *at, size_t bytes);
/** Largest number of effects that one event can have, those of kind EFFECT_SENT left out. */
uint32_t stack_effects_max(const struct stack *s);
/** What is the same for every engine call on it. */
uint32_t stack_gso_max_bytes(const struct stack *s);

enum effect_kind {
    EFFECT_RELEASE, /**< buf */
    EFFECT_DELIVER, /**< user, data */
    EFFECT_ACKED, /**< user, n_bytes */
    EFFECT_EVENT, /**< user, events, err */
    EFFECT_SENT, /**< user, [pos, pos + n_bytes) of its transmit stream was sent */
    EFFECT_ABORTED, /**< user: tcp_abort has been applied, no effect of that connection follows */
};

struct effect {
    uint64_t event; /**< number of the event that caused it: the relay's own */
    uint32_t kind; /**< enum effect_kind */
    tcp_user user;
    union {
        struct tcp_data data;
        struct {
            uint32_t pos, n_bytes;
        } stream;
        struct {
            uint32_t events;
            int32_t err;
        } state;
        tcp_buf buf;
    };
};
static_assert(sizeof(struct effect) == 32, "two to a cache line");

/** Apply an effect to the sockets. Whoever is inside the stack; in the order of events. */
void stack_effect(struct stack *s, const struct effect *e);

/**
 * Send a segment of a stack that somebody else may be inside of: the worker's thread, within its pass. What the socket was when the segment was
 * decided on may have ended since; then nothing is sent.
 */
void net_emit(struct net *net, const struct stack *s, const struct tcp_out *out, uint64_t now_us);

/** As net_begin, but only if nobody else is inside that pass: then the caller's thread does what is that worker's. */
bool net_try_begin(struct net *net);

/** Ends a pass in which nothing was done. */
void net_leave(struct net *net);

/** Frames and packets that came by a worker's own queue or from itself go to worker `to`. Returns how many. */
unsigned net_pass_on(struct net *net, unsigned to, uint64_t now_us);

/** At the end of net's pass wake worker `to`, if it sleeps. */
void net_ring(struct net *net, unsigned to);

/** Has the world been stopped, so that the caller is the only thread that does anything? */
bool host_is_stopped(const struct host *h);

#endif /* SOCKETS_RELAY_H */
