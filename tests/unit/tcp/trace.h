/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRACE_H
#define TRACE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tcp/domain.h"

/**
 * @file
 * Packet traces: inject segments into one domain, expect exactly the segments that come out. Sequence numbers of a
 * trace are relative: 0 is either side's SYN, 1 its first byte.
 */

#define TRACE_MSS 1460
#define TRACE_USER 7
#define TRACE_LISTENER 9
#define TRACE_OUT_MAX 128
#define TRACE_BUF_MAX 4096

#define F TCP_FLAG_FIN
#define S TCP_FLAG_SYN
#define R TCP_FLAG_RST
#define P TCP_FLAG_PSH
#define A TCP_FLAG_ACK

struct trace {
    struct tcp_domain *d;
    size_t bytes;
    struct tcp_params params;
    struct counters ctr;
    struct tcp_sink sink;
    struct tcp_env env;
    struct tcp_tuple tuple;
    tcp_id id, listener;
    tcp_seq iss, irs; /**< ours, learnt from the SYN; the peer's, chosen */
    uint16_t peer_window;
    uint8_t peer_tos;
    struct tcp_options peer_opts; /**< of the next injected segment */
    const struct tcp_md5_key *peer_key; /**< with which injected segments are signed; NULL = they are not */
    bool peer_more; /**< of injected segments: the next one came with it */
    struct tcp_out out[TRACE_OUT_MAX];
    struct tcp_md5_key out_key[TRACE_OUT_MAX]; /**< which out[].md5 names */
    unsigned nb_out, nb_checked;
    uint8_t buf_state[TRACE_BUF_MAX]; /**< 1 = with the engine, 2 = delivered or released */
    uint32_t nb_buf;
    uint64_t delivered, acked;
    uint32_t events;
    int err;
    unsigned nb_gone, nb_accept;
};

/** Plain options (no timestamps, no SACK, no scaling) unless adjust says otherwise. */
void trace_init(struct trace *t, void (*adjust)(struct tcp_params *p));
/** Asserts that nothing is left: pools full, every buffer given back once, no unexpected segment. */
void trace_fini(struct trace *t);

/** A test on a trace `t` of a fresh domain, whose parameters adjust changes (NULL: none), and which must end with everything given back. */
#define TRACE_TEST(name, adjust)                                                                                       \
    static void name##_body(struct trace *t);                                                                          \
    static void name(void **state)                                                                                     \
    {                                                                                                                  \
        static struct trace t;                                                                                         \
        (void)state;                                                                                                   \
        trace_init(&t, adjust);                                                                                        \
        name##_body(&t);                                                                                               \
        trace_fini(&t);                                                                                                \
    }                                                                                                                  \
    static void name##_body(struct trace *t)

/** The peer sends: relative seq and ack. */
void peer(struct trace *t, uint16_t flags, uint32_t seq, uint32_t ack, uint32_t len);
/** The next segment that came out, relative too; it must be there. */
const struct tcp_out *expect(struct trace *t, uint16_t flags, uint32_t seq, uint32_t ack, uint32_t len);
void expect_nothing(const struct trace *t);
void advance(struct trace *t, uint64_t us);

void app_listen(struct trace *t, uint32_t backlog);
void app_send(struct trace *t, uint32_t n);

/* One constructor for each state; nothing is left to expect afterwards. */
void make_syn_sent(struct trace *t);
void make_syn_received(struct trace *t);
void make_established(struct trace *t); /* active open */
void make_accepted(struct trace *t); /* passive open */
void make_fin_wait_1(struct trace *t);
void make_fin_wait_2(struct trace *t);
void make_close_wait(struct trace *t);
void make_last_ack(struct trace *t);
void make_closing(struct trace *t);
void make_time_wait(struct trace *t);

enum tcp_state state_of(const struct trace *t);

#endif /* TRACE_H */
