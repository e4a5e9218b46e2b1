/* SPDX-License-Identifier: BSD-3-Clause */
#include "trace.h"

#include <stdlib.h>
#include <string.h>

#include "sound.h"
#include "tcp/md5sig.h"

#define OPTS_NONE ((struct tcp_options){ .has_mss = false })

static void
on_emit(void *ctx, const struct tcp_out *out, uint64_t now_us)
{
    struct trace *t = ctx;

    assert_int_equal(now_us, t->env.now_us);
    assert_true(t->nb_out < TRACE_OUT_MAX);
    t->out[t->nb_out] = *out;
    if (out->md5 != NULL) {
        t->out_key[t->nb_out] = *out->md5;
        t->out[t->nb_out].md5 = &t->out_key[t->nb_out];
    }
    t->nb_out++;
    if (out->flags & S)
        t->iss = out->seq;
}

static void
buf_done(struct trace *t, tcp_buf buf)
{
    assert_true(buf > 0 && buf <= t->nb_buf);
    assert_int_equal(t->buf_state[buf - 1], 1);
    t->buf_state[buf - 1] = 2;
}

static void
on_deliver(void *ctx, tcp_user user, struct tcp_data data)
{
    struct trace *t = ctx;

    assert_int_equal(user, TRACE_USER);
    assert_true(data.len > 0);
    t->delivered += data.len;
    buf_done(t, data.buf);
}

static void
on_release(void *ctx, tcp_buf buf)
{
    buf_done(ctx, buf);
}

static void
on_acked(void *ctx, tcp_user user, uint32_t n)
{
    struct trace *t = ctx;

    assert_int_equal(user, TRACE_USER);
    t->acked += n;
}

static void
on_event(void *ctx, tcp_user user, uint32_t events, int err)
{
    struct trace *t = ctx;

    if (user == TRACE_LISTENER) {
        t->nb_accept += (events & TCP_EVENT_ACCEPT) != 0;
        return;
    }
    assert_int_equal(user, TRACE_USER);
    assert_int_equal(t->nb_gone, 0); /* GONE is the last event */
    t->events |= events;
    if (events & TCP_EVENT_ERROR)
        t->err = err;
    t->nb_gone += (events & TCP_EVENT_GONE) != 0;
}

void
trace_init(struct trace *t, void (*adjust)(struct tcp_params *p))
{
    memset(t, 0, sizeof(*t));
    tcp_params_default(&t->params);
    t->params.max_conns = 8;
    t->params.max_half_open = 4;
    t->params.max_time_wait = 2;
    t->params.max_ooo_bufs = 64;
    t->params.seed[0] = 0x0123456789abcdef;
    t->params.seed[1] = 42;
    t->params.rcv_buf_bytes = 65535;
    t->params.timestamps = t->params.sack = t->params.window_scaling = false;
    if (adjust != NULL)
        adjust(&t->params);
    t->bytes = tcp_domain_bytes(&t->params);
    t->d = aligned_alloc(64, t->bytes);
    assert_non_null(t->d);
    memset(t->d, 0, t->bytes);
    t->env.now_us = 5000000;
    assert_int_equal(tcp_domain_init(t->d, &t->params, t->env.now_us), 0);
    t->sink = (struct tcp_sink){ t, on_emit, on_deliver, on_release, on_acked, on_event, NULL };
    t->env.sink = &t->sink;
    t->env.ctr = &t->ctr;
    t->tuple.local = ip_addr_v4(0x0200420a);
    t->tuple.remote = ip_addr_v4(0x0100420a);
    t->tuple.remote_port = 80;
    t->irs = 0xfffffc00; /* wraps within the first segments */
    t->peer_window = 65535;
}

void
trace_fini(struct trace *t)
{
    struct tcp_usage u;

    expect_nothing(t);
    assert_domain_is_sound(t->d);
    if (t->id != 0 && t->nb_gone == 0)
        tcp_abort(t->d, &t->env, t->id);
    if (t->listener != 0)
        tcp_abort(t->d, &t->env, t->listener);
    t->nb_checked = t->nb_out;
    /* Half-open and TIME-WAIT entries end by their timers. */
    for (unsigned i = 0; i < 64; i++)
        advance(t, 10000000);
    tcp_usage(t->d, &u);
    assert_int_equal(u.conns, 0);
    assert_int_equal(u.listeners, 0);
    assert_int_equal(u.half_open, 0);
    assert_int_equal(u.time_wait, 0);
    assert_int_equal(u.ooo_bufs, 0);
    assert_int_equal(u.timers_armed, 0);
    for (unsigned i = 0; i < POOL_COUNT; i++)
        assert_int_equal(t->d->pools[i].used, 0);
    for (uint32_t i = 0; i < t->nb_buf; i++)
        assert_int_equal(t->buf_state[i], 2);
    assert_int_equal(t->ctr.v[CTR_TCP_BUG_EDGE], 0);
    free(t->d);
}

void
peer(struct trace *t, uint16_t flags, uint32_t seq, uint32_t ack, uint32_t len)
{
    struct tcp_in in = {
        .tuple = t->tuple,
        .seq = t->irs + seq,
        .ack = flags & A ? t->iss + ack : 0,
        .window = t->peer_window,
        .flags = flags,
        .tos = t->peer_tos,
        .opts = t->peer_opts,
        .data = { .off = 54, .len = len },
        .mss_out = TRACE_MSS,
        .more = t->peer_more,
    };

    struct tcp_md5_seen seen;

    if (t->peer_key != NULL) {
        MD5Init(&seen.sum); /* of nothing: what is signed is not the engine's affair */
        tcp_md5_finish(&seen.sum, t->peer_key, seen.digest);
        in.opts.md5_off = TCP_MD5_DIGEST_OFF;
        t->env.md5 = &seen;
    }
    assert_true(t->nb_buf < TRACE_BUF_MAX);
    t->buf_state[t->nb_buf++] = 1;
    in.data.buf = t->nb_buf;
    t->peer_opts = OPTS_NONE;
    tcp_input(t->d, &t->env, &in);
    t->env.md5 = NULL;
}

const struct tcp_out *
expect(struct trace *t, uint16_t flags, uint32_t seq, uint32_t ack, uint32_t len)
{
    assert_true(t->nb_checked < t->nb_out);
    const struct tcp_out *o = &t->out[t->nb_checked++];
    assert_int_equal(o->flags, flags);
    assert_int_equal(o->seq - t->iss, seq);
    assert_int_equal(flags & A ? o->ack - t->irs : 0, ack);
    assert_int_equal(o->payload_len, len);
    if (len > 0)
        assert_int_equal(o->payload_pos, flags & S ? seq : seq - 1); /* a SYN stands before its data */
    return o;
}

void
expect_nothing(const struct trace *t)
{
    assert_int_equal(t->nb_out - t->nb_checked, 0);
}

void
advance(struct trace *t, uint64_t us)
{
    uint64_t end = t->env.now_us + us;

    /* Jump from deadline to deadline, as a worker would. */
    for (;;) {
        uint64_t next = tcp_next_us(t->d, t->env.now_us);
        if (next > end)
            break;
        t->env.now_us = next > t->env.now_us ? next : t->env.now_us + 1;
        tcp_tick(t->d, &t->env, 100);
    }
    if (t->env.now_us < end)
        t->env.now_us = end;
}

void
app_listen(struct trace *t, uint32_t backlog)
{
    t->tuple.local_port = 8080;
    t->tuple.remote_port = 33333;
    assert_int_equal(tcp_listen(t->d, &t->env, &t->tuple.local, 8080, backlog, NULL, TRACE_LISTENER, &t->listener), 0);
}

void
app_send(struct trace *t, uint32_t n)
{
    tcp_send(t->d, &t->env, t->id, n, 0);
}

enum tcp_state
state_of(const struct trace *t)
{
    struct tcp_conn_info info;

    return tcp_info(t->d, t->id, &info) ? info.state : TCP_ST_CLOSED;
}

void
make_syn_sent(struct trace *t)
{
    t->tuple.local_port = 0;
    assert_int_equal(tcp_connect(t->d, &t->env, &t->tuple, TRACE_MSS, NULL, TRACE_USER, &t->id), 0);
    expect(t, t->params.ecn == 1 ? S | TCP_FLAG_ECE | TCP_FLAG_CWR : S, 0, 0, 0);
    assert_int_equal(state_of(t), TCP_ST_SYN_SENT);
}

void
make_syn_received(struct trace *t)
{
    make_syn_sent(t);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    assert_int_equal(state_of(t), TCP_ST_SYN_RECEIVED);
}

void
make_established(struct trace *t)
{
    struct tcp_options o = { .has_mss = true, .mss = 1460, .sack_permitted = t->params.sack };

    make_syn_sent(t);
    t->peer_opts = o;
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
    assert_int_equal(t->events, TCP_EVENT_CONNECTED);
}

void
make_accepted(struct trace *t)
{
    struct tcp_tuple remote;

    app_listen(t, 4);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460 };
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    peer(t, A, 1, 1, 0);
    assert_int_equal(t->nb_accept, 1);
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_int_not_equal(t->id, 0);
    assert_int_equal(remote.remote_port, 33333);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
}

void
make_fin_wait_1(struct trace *t)
{
    make_established(t);
    tcp_shutdown(t->d, &t->env, t->id);
    expect(t, F | A, 1, 1, 0);
    assert_int_equal(state_of(t), TCP_ST_FIN_WAIT_1);
}

void
make_fin_wait_2(struct trace *t)
{
    make_fin_wait_1(t);
    peer(t, A, 1, 2, 0);
    assert_int_equal(state_of(t), TCP_ST_FIN_WAIT_2);
}

void
make_close_wait(struct trace *t)
{
    make_established(t);
    peer(t, F | A, 1, 1, 0);
    expect(t, A, 1, 2, 0);
    assert_int_equal(state_of(t), TCP_ST_CLOSE_WAIT);
}

void
make_last_ack(struct trace *t)
{
    make_close_wait(t);
    tcp_close(t->d, &t->env, t->id, false);
    expect(t, F | A, 1, 2, 0);
    assert_int_equal(state_of(t), TCP_ST_LAST_ACK);
}

void
make_closing(struct trace *t)
{
    make_fin_wait_1(t);
    peer(t, F | A, 1, 1, 0);
    expect(t, A, 2, 2, 0);
    assert_int_equal(state_of(t), TCP_ST_CLOSING);
}

void
make_time_wait(struct trace *t)
{
    struct tcp_usage u;

    make_fin_wait_2(t);
    peer(t, F | A, 1, 2, 0);
    expect(t, A, 2, 2, 0);
    assert_int_equal(t->nb_gone, 1);
    tcp_usage(t->d, &u);
    assert_true(u.time_wait > 0);
}
