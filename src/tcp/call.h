/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_CALL_H
#define TCP_CALL_H

#include "tcp/tcp.h"

/**
 * @file
 * An event as data: one call of the engine (tcp.h) with all that it depends on, so that it can be put into a queue, broadcast, and
 * applied to several equal domains. It holds no pointer. What it may not hold is the sink and the counters, in which replicas differ.
 */

enum tcp_call_op {
    TCP_CALL_INPUT,
    TCP_CALL_UNREACHABLE,
    TCP_CALL_TICK,
    TCP_CALL_BIND,
    TCP_CALL_UNBIND,
    TCP_CALL_LISTEN,
    TCP_CALL_BACKLOG,
    TCP_CALL_CONNECT,
    TCP_CALL_ACCEPT,
    TCP_CALL_SEND,
    TCP_CALL_CONSUMED,
    TCP_CALL_SHUTDOWN,
    TCP_CALL_CLOSE,
    TCP_CALL_ABORT,
    TCP_CALL_OPTION,
    TCP_CALL_FASTOPEN_KEYS,
};

struct tcp_call {
    uint64_t now_us;
    uint8_t op; /**< enum tcp_call_op */
    bool mem_pressure, mem_exhausted; /**< as in struct tcp_env */
    tcp_id id; /**< of the connection or listener; may have ended since: then nothing happens, or -EINVAL */
    tcp_user user;
    union {
        struct tcp_in in;
        struct {
            struct tcp_tuple tuple;
            tcp_seq seq;
            int32_t err;
            uint16_t mtu;
            bool hard;
        } unreachable;
        uint32_t budget; /**< of a tick */
        struct {
            struct tcp_tuple tuple; /**< bind, unbind, listen: local alone; port 0: choose one */
            uint32_t backlog;
            uint16_t mss_out;
            bool has_opts;
            uint32_t set; /**< as in struct tcp_sockopts; keys do not travel so */
            int32_t value[TCP_OPT_COUNT];
        } open; /**< bind, unbind, listen, connect */
        uint32_t backlog;
        struct {
            uint32_t n;
            uint8_t keys[TCP_FASTOPEN_KEYS_MAX][TCP_FASTOPEN_KEY_BYTES];
        } fastopen;
        struct {
            uint32_t n_bytes; /**< send, consumed */
            uint32_t how; /**< send: a set of TCP_SEND_*; close: 1 = unread */
        } data;
        struct {
            uint32_t name;
            int32_t value;
        } option;
    };
};
_Static_assert(sizeof(struct tcp_call) <= 208, "an event stays within a few cache lines");

/** What the call returned. */
struct tcp_result {
    int rc; /**< of bind, listen, connect, set option; ticks: how many timers ran */
    tcp_id id; /**< listen, connect, accept */
    struct tcp_tuple tuple; /**< bind, connect: with the port chosen; accept: the connection's */
};

/**
 * Apply. env: sink, counters and what is the same for all calls; time and memory come with the call. Thread: as of every engine
 * call.
 */
void tcp_apply(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_call *call, struct tcp_result *res);

#endif /* TCP_CALL_H */
