/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "trace.h"

TRACE_TEST(simultaneous_open, NULL)
{
    make_syn_received(t);
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
    assert_int_equal(t->events, TCP_EVENT_CONNECTED);
}

TRACE_TEST(refused, NULL)
{
    make_syn_sent(t);
    peer(t, R | A, 0, 1, 0);
    assert_int_equal(t->events, TCP_EVENT_ERROR | TCP_EVENT_GONE);
    assert_int_equal(t->err, ECONNREFUSED);
}

TRACE_TEST(syn_sent_ignores_forged_answers, NULL)
{
    make_syn_sent(t);
    peer(t, R, 0, 0, 0); /* no ACK */
    peer(t, R | A, 0, 77, 0);
    expect_nothing(t);
    peer(t, S | A, 0, 77, 0);
    expect(t, R, 77, 0, 0);
    assert_int_equal(state_of(t), TCP_ST_SYN_SENT);
}

TRACE_TEST(connect_times_out, NULL)
{
    make_syn_sent(t);
    for (unsigned i = 0; i < 6; i++) {
        advance(t, 1100000ull << i);
        expect(t, S, 0, 0, 0);
    }
    advance(t, 70000000);
    assert_int_equal(t->err, ETIMEDOUT);
    assert_int_equal(t->nb_gone, 1);
}

TRACE_TEST(data_both_ways, NULL)
{
    make_accepted(t);
    peer(t, A | P, 1, 1, 100);
    expect(t, A, 1, 101, 0); /* quick acknowledgement at the start */
    assert_int_equal(t->delivered, 100);
    app_send(t, 3000);
    expect(t, A, 1, 101, 1460);
    expect(t, A, 1461, 101, 1460);
    expect(t, A | P, 2921, 101, 80); /* a burst ends, and so does the write */
    peer(t, A, 101, 3001, 0);
    assert_int_equal(t->acked, 3000);
    /* It has answered, so acknowledgements are delayed now: the second full segment draws one. */
    peer(t, A, 101, 3001, 1460);
    expect_nothing(t);
    peer(t, A, 1561, 3001, 1460);
    expect(t, A, 3001, 3021, 0);
    peer(t, A, 3021, 3001, 10);
    advance(t, 45000);
    expect(t, A, 3001, 3031, 0);
}

/** tcp(7): without it acknowledgements are delayed from the start. */
TRACE_TEST(quickack_may_be_switched_off, NULL)
{
    make_accepted(t);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_QUICKACK, 0), 0);
    peer(t, A | P, 1, 1, 100);
    expect_nothing(t);
    advance(t, 45000);
    expect(t, A, 1, 101, 0);
}

/** A burst has one acknowledgement, be it a quick one; a burst whose end goes astray has one by the timer. */
TRACE_TEST(a_burst_is_acknowledged_once, NULL)
{
    make_accepted(t);
    for (unsigned burst = 0; burst < 3; burst++) {
        t->peer_more = true;
        for (unsigned i = 0; i < 7; i++)
            peer(t, A, 1 + (8 * burst + i) * 1460, 1, 1460);
        expect_nothing(t);
        t->peer_more = false;
        peer(t, A | P, 1 + (8 * burst + 7) * 1460, 1, 1460);
        expect(t, A, 1, 1 + (8 * burst + 8) * 1460, 0);
        expect_nothing(t);
    }
    t->peer_more = true;
    peer(t, A, 1 + 24 * 1460, 1, 1460);
    peer(t, A, 1 + 25 * 1460, 1, 1460);
    expect_nothing(t);
    advance(t, 45000);
    expect(t, A, 1, 1 + 26 * 1460, 0);
}

/** What arrives out of order is answered at once, burst or not. */
TRACE_TEST(a_gap_within_a_burst_is_told, NULL)
{
    make_accepted(t);
    t->peer_more = true;
    peer(t, A, 1, 1, 1460);
    peer(t, A, 2921, 1, 1460);
    expect(t, A, 1, 1461, 0);
    t->peer_more = false;
    peer(t, A, 1461, 1, 1460);
    expect(t, A, 1, 4381, 0);
}

static void
plain_sack(struct tcp_params *p)
{
    p->sack = true;
}

/** Segments `from` to `to` - 1, of 1,000 bytes, as one burst. */
static void
burst(struct trace *t, unsigned from, unsigned to)
{
    t->peer_more = true;
    for (unsigned i = from; i < to; i++) {
        t->peer_more = i + 1 < to;
        peer(t, A, 1 + i * 1000, 1, 1000);
    }
}

/** The one answer, up to segment `ack`, with the block in that place. */
static void
expect_block(struct trace *t, unsigned ack, unsigned nb, unsigned place, unsigned from, unsigned to)
{
    const struct tcp_out *o = expect(t, A, 1, 1 + ack * 1000, 0);

    expect_nothing(t);
    assert_int_equal(o->opts.nb_sack, nb);
    if (nb == 0)
        return;
    assert_int_equal(o->opts.sack[place].start - t->irs, 1 + from * 1000);
    assert_int_equal(o->opts.sack[place].end - t->irs, 1 + to * 1000);
}

/** A burst beyond a gap, one that comes again, and one that fills the gap have one answer each, that tells of all of it. */
TRACE_TEST(a_burst_out_of_order_is_told_once, plain_sack)
{
    make_established(t);
    burst(t, 8, 16);
    expect_block(t, 0, 1, 0, 8, 16);
    burst(t, 9, 14); /* again, beyond the gap (RFC 2883 section 4.1.2) */
    expect_block(t, 0, 2, 0, 9, 14);
    burst(t, 0, 4);
    t->nb_checked = t->nb_out;
    burst(t, 0, 4); /* again, below it (section 4.1.1) */
    expect_block(t, 4, 2, 0, 0, 4);
    burst(t, 2, 6); /* in part */
    expect_block(t, 6, 2, 0, 2, 4);
    burst(t, 6, 8);
    expect_block(t, 16, 0, 0, 0, 0);
    assert_int_equal(t->delivered, 16000);
    /* One whose end goes astray is told by the timer, and owes the next segment nothing but that. */
    t->peer_more = true;
    peer(t, A, 1 + 17000, 1, 1000);
    peer(t, A, 1 + 18000, 1, 1000);
    expect_nothing(t);
    advance(t, 45000);
    expect_block(t, 16, 1, 0, 17, 19);
}

/** Nobody leads a dialogue yet: what answers the first request is acknowledged at once, so that slow start does not wait. */
TRACE_TEST(first_answer_is_acknowledged_at_once, NULL)
{
    make_established(t);
    app_send(t, 517);
    expect(t, A | P, 1, 1, 517);
    advance(t, 30000);
    peer(t, A | P, 1, 518, 143);
    expect(t, A, 518, 144, 0);
    app_send(t, 51); /* now it does */
    expect(t, A | P, 518, 144, 51);
    peer(t, A | P, 144, 569, 100);
    expect_nothing(t);
    advance(t, 45000);
    expect(t, A, 569, 244, 0);
}

/** A FIN is no answer: what still comes after it is acknowledged as before. */
TRACE_TEST(fin_leads_no_dialogue, NULL)
{
    make_fin_wait_2(t);
    peer(t, A, 1, 2, 1000);
    expect(t, A, 2, 1001, 0);
}

TRACE_TEST(reassembly_with_overlap, NULL)
{
    make_established(t);
    peer(t, A, 101, 1, 100);
    expect(t, A, 1, 1, 0);
    peer(t, A, 301, 1, 100);
    expect(t, A, 1, 1, 0);
    peer(t, A, 151, 1, 200); /* bridges both */
    expect(t, A, 1, 1, 0);
    assert_int_equal(t->delivered, 0);
    peer(t, A, 1, 1, 120);
    expect(t, A, 1, 401, 0);
    assert_int_equal(t->delivered, 400);
    peer(t, A, 1, 1, 400); /* all of it again */
    expect(t, A, 1, 401, 0);
    assert_int_equal(t->delivered, 400);
}

/** TCP_MAXSEG bounds what the peer is told and what is sent, whatever the peer's own MSS is; after the handshake it has been told. */
TRACE_TEST(maxseg_bounds_both_ways, NULL)
{
    struct tcp_sockopts so = { .set = 1u << TCP_OPT_MAXSEG };

    so.value[TCP_OPT_MAXSEG] = 1000;
    assert_int_equal(tcp_connect(t->d, &t->env, &t->tuple, TRACE_MSS, &so, TRACE_USER, &t->id), 0);
    assert_int_equal(expect(t, S, 0, 0, 0)->opts.mss, 1000);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1400 };
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
    app_send(t, 1500);
    expect(t, A, 1, 1, 1000);
    peer(t, A, 1, 1001, 0);
    expect(t, A | P, 1001, 1, 500);
    peer(t, A, 1, 1501, 0);
}

/** RFC 6093 section 5: urgent data is data, in its place; the pointer is not acted upon. */
TRACE_TEST(urgent_data_stays_in_the_stream, NULL)
{
    make_established(t);
    peer(t, A | TCP_FLAG_URG, 1, 1, 100);
    expect(t, A, 1, 101, 0);
    peer(t, A | P | TCP_FLAG_URG, 101, 1, 1);
    expect(t, A, 1, 102, 0);
    assert_int_equal(t->delivered, 101);
}

TRACE_TEST(fin_behind_a_gap, NULL)
{
    make_established(t);
    peer(t, A | F, 101, 1, 50);
    expect(t, A, 1, 1, 0);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
    peer(t, A, 1, 1, 100);
    expect(t, A, 1, 152, 0);
    assert_int_equal(state_of(t), TCP_ST_CLOSE_WAIT);
    assert_int_equal(t->delivered, 150);
    assert_true(t->events & TCP_EVENT_FIN);
}

TRACE_TEST(fast_retransmit_newreno, NULL)
{
    make_established(t);
    app_send(t, 1460 * 8);
    for (unsigned i = 0; i < 8; i++)
        expect(t, i == 4 || i == 7 ? A | P : A, 1 + 1460 * i, 1, 1460); /* a burst of half the window ends with PSH */
    peer(t, A, 1, 1, 0);
    peer(t, A, 1, 1, 0);
    expect_nothing(t);
    peer(t, A, 1, 1, 0);
    expect(t, A, 1, 1, 1460);
    peer(t, A, 1, 1 + 1460 * 2, 0); /* partial: the next hole follows at once */
    expect(t, A, 1 + 1460 * 2, 1, 1460);
    peer(t, A, 1, 1 + 1460 * 8, 0);
    assert_int_equal(t->acked, 1460 * 8);
}

TRACE_TEST(rto_backs_off_and_gives_up, NULL)
{
    make_established(t);
    app_send(t, 10);
    expect(t, A | P, 1, 1, 10);
    uint64_t start = t->env.now_us;
    advance(t, 1000000000);
    for (unsigned i = 0; i < 15; i++)
        expect(t, A | P, 1, 1, 10);
    assert_int_equal(t->err, ETIMEDOUT);
    assert_true(t->env.now_us - start > 900000000);
}

TRACE_TEST(zero_window_probe_and_update, NULL)
{
    make_established(t);
    t->peer_window = 0;
    peer(t, A, 1, 1, 0);
    app_send(t, 100);
    expect_nothing(t);
    advance(t, 250000);
    expect(t, A, 0, 1, 0);
    peer(t, A, 1, 1, 0);
    t->peer_window = 1000;
    peer(t, A, 1, 1, 0);
    expect(t, A | P, 1, 1, 100);
    peer(t, A, 1, 101, 0);
}

TRACE_TEST(nagle_holds_the_second_small_segment, NULL)
{
    make_established(t);
    app_send(t, 10);
    expect(t, A | P, 1, 1, 10);
    app_send(t, 10);
    expect_nothing(t);
    peer(t, A, 1, 11, 0);
    expect(t, A | P, 11, 1, 10);
    app_send(t, 5);
    expect_nothing(t);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_NODELAY, 1), 0);
    expect(t, A | P, 21, 1, 5);
}

TRACE_TEST(cork_holds_until_200_ms, NULL)
{
    make_established(t);
    tcp_send(t->d, &t->env, t->id, 10, TCP_SEND_MORE);
    expect_nothing(t);
    advance(t, 199000);
    expect_nothing(t);
    advance(t, 2000);
    expect(t, A | P, 1, 1, 10);
}

TRACE_TEST(rst_needs_the_exact_sequence, NULL)
{
    make_established(t);
    peer(t, R, 500, 0, 0);
    expect(t, A, 1, 1, 0); /* challenge */
    peer(t, R, 501, 0, 0);
    expect_nothing(t); /* limited */
    peer(t, R, 70000, 0, 0);
    assert_int_equal(t->nb_gone, 0);
    peer(t, R, 1, 0, 0);
    assert_int_equal(t->err, ECONNRESET);
    assert_int_equal(t->nb_gone, 1);
}

TRACE_TEST(syn_on_a_connection_is_challenged, NULL)
{
    make_established(t);
    peer(t, S, 1, 0, 0);
    expect(t, A, 1, 1, 0);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
}

TRACE_TEST(acks_out_of_range, NULL)
{
    make_established(t);
    peer(t, A, 1, 5000, 100); /* of data never sent */
    expect(t, A, 1, 1, 0);
    assert_int_equal(t->delivered, 0);
    advance(t, 600000);
    peer(t, A, 1, 1u - 70000u, 100); /* older than any window */
    expect(t, A, 1, 1, 0);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_ACK], 2);
    assert_int_equal(t->acked, 0);
}

TRACE_TEST(active_close, NULL)
{
    make_time_wait(t);
    peer(t, F | A, 1, 2, 0); /* our last ACK was lost */
    expect(t, A, 2, 2, 0);
    peer(t, R, 2, 0, 0); /* RFC 1337 */
    struct tcp_usage u;
    tcp_usage(t->d, &u);
    assert_int_equal(u.time_wait, 1);
    advance(t, 61000000);
    tcp_usage(t->d, &u);
    assert_int_equal(u.time_wait, 0);
}

TRACE_TEST(simultaneous_close, NULL)
{
    make_closing(t);
    peer(t, A, 2, 2, 0);
    assert_int_equal(t->nb_gone, 1);
    assert_int_equal(t->err, 0);
}

TRACE_TEST(passive_close, NULL)
{
    make_last_ack(t);
    assert_int_equal(t->nb_gone, 0);
    peer(t, A, 2, 2, 0);
    assert_int_equal(t->nb_gone, 1);
    assert_int_equal(t->err, 0);
}

TRACE_TEST(close_with_unread_data_resets, NULL)
{
    make_established(t);
    peer(t, A, 1, 1, 10);
    expect(t, A, 1, 11, 0);
    tcp_close(t->d, &t->env, t->id, true);
    expect(t, R | A, 1, 11, 0);
    assert_int_equal(t->nb_gone, 1);
    assert_int_equal(t->events & TCP_EVENT_ERROR, 0);
}

TRACE_TEST(data_after_close_resets, NULL)
{
    make_established(t);
    tcp_close(t->d, &t->env, t->id, false);
    expect(t, F | A, 1, 1, 0);
    peer(t, A, 1, 2, 10);
    expect(t, R, 2, 0, 0); /* from where the peer expects it */
    assert_int_equal(t->nb_gone, 1);
}

TRACE_TEST(orphan_leaves_fin_wait_2, NULL)
{
    make_established(t);
    tcp_close(t->d, &t->env, t->id, false);
    expect(t, F | A, 1, 1, 0);
    peer(t, A, 1, 2, 0);
    assert_int_equal(t->nb_gone, 0);
    advance(t, 61000000);
    assert_int_equal(t->nb_gone, 1);
}

/** TCP_LINGER2 below 0: an orphan has no FIN-WAIT-2, and its peer is told, whichever comes last. */
TRACE_TEST(an_orphan_may_have_no_fin_wait_2, NULL)
{
    make_established(t);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_LINGER2, -1), 0);
    tcp_close(t->d, &t->env, t->id, false);
    expect(t, F | A, 1, 1, 0);
    peer(t, A, 1, 2, 0);
    expect(t, R, 2, 0, 0);
    assert_int_equal(t->nb_gone, 1);
}

TRACE_TEST(a_close_in_fin_wait_2_may_reset, NULL)
{
    make_fin_wait_2(t);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_LINGER2, -1), 0);
    tcp_close(t->d, &t->env, t->id, false);
    expect(t, R | A, 2, 1, 0);
    assert_int_equal(t->nb_gone, 1);
}

TRACE_TEST(keepalive_gives_up, NULL)
{
    make_established(t);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_KEEPIDLE, 10), 0);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_KEEPINTVL, 5), 0);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_KEEPCNT, 2), 0);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_KEEPALIVE, 1), 0);
    advance(t, 10100000);
    expect(t, A, 0, 1, 0);
    peer(t, A, 1, 1, 0);
    advance(t, 21000000);
    expect(t, A, 0, 1, 0);
    expect(t, A, 0, 1, 0);
    expect(t, R | A, 1, 1, 0);
    assert_int_equal(t->err, ETIMEDOUT);
}

TRACE_TEST(data_before_accept, NULL)
{
    struct tcp_tuple remote;

    app_listen(t, 4);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    peer(t, A | P, 1, 1, 100);
    expect(t, A, 1, 101, 0);
    peer(t, A | F, 101, 1, 50);
    expect(t, A, 1, 152, 0);
    assert_int_equal(t->delivered, 0);
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_int_equal(t->delivered, 150);
    assert_int_equal(t->events, TCP_EVENT_FIN);
}

TRACE_TEST(full_accept_queue_overhears_the_ack, NULL)
{
    app_listen(t, 0);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    peer(t, A, 1, 1, 0);
    assert_int_equal(tcp_accept_count(t->d, t->listener), 1);
    tcp_seq first_iss = t->iss;
    t->tuple.remote_port++;
    peer(t, S, 0, 0, 0); /* backlog + 1 wait: this SYN is dropped */
    expect_nothing(t);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_ACCEPT_QUEUE], 1);
    t->iss = first_iss;
    t->tuple.remote_port--;
    tcp_close(t->d, &t->env, t->listener, false);
    t->listener = 0;
    expect(t, R | A, 1, 1, 0);
}

TRACE_TEST(reset_before_accept, NULL)
{
    struct tcp_tuple remote;

    app_listen(t, 4);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    peer(t, A | P, 1, 1, 100);
    expect(t, A, 1, 101, 0);
    peer(t, R, 101, 0, 0);
    assert_int_equal(tcp_accept_count(t->d, t->listener), 1);
    assert_int_not_equal(tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote), 0);
    assert_int_equal(t->delivered, 100); /* what had arrived is still there */
    assert_int_equal(t->events, TCP_EVENT_ERROR | TCP_EVENT_GONE);
    assert_int_equal(t->err, ECONNRESET);
}

TRACE_TEST(no_memory_no_payload, NULL)
{
    make_established(t);
    t->env.mem_pressure = true;
    peer(t, A | P, 1, 1, 100); /* it holds nothing yet */
    expect(t, A, 1, 101, 0);
    t->env.mem_exhausted = true;
    peer(t, A | P, 101, 1, 100);
    expect(t, A, 1, 101, 0);
    assert_int_equal(t->delivered, 100);
    t->env.mem_pressure = t->env.mem_exhausted = false;
    peer(t, A | P, 101, 1, 100);
    expect(t, A, 1, 201, 0);
    assert_int_equal(t->delivered, 200);
}

/* Forged SYNs must not keep others out: with no room left the oldest goes. */
/** Without SYN cookies. */
TRACE_TEST(half_open_oldest_gives_way, NULL)
{
    struct tcp_usage u;

    t->params.syn_cookies = TCP_SYN_COOKIES_OFF;
    assert_int_equal(tcp_set_params(t->d, &t->params), 0);
    app_listen(t, 4);
    for (unsigned i = 0; i < 7; i++) {
        t->tuple.remote_port = (uint16_t)(1000 + i);
        peer(t, S, 0, 0, 0);
        t->iss = t->out[t->nb_out - 1].seq;
        expect(t, S | A, 0, 1, 0);
    }
    tcp_usage(t->d, &u);
    assert_int_equal(u.half_open, 4);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_SYN_QUEUE], 3);
    peer(t, A, 1, 1, 0); /* the last one gets in */
    assert_int_equal(tcp_accept_count(t->d, t->listener), 1);
    t->tuple.remote_port = 1002; /* and the third one is forgotten */
    peer(t, A, 1, 1, 0);
    expect(t, R, 1, 0, 0);
    t->nb_checked = t->nb_out;
}

TRACE_TEST(half_open_gives_up, NULL)
{
    struct tcp_usage u;

    app_listen(t, 4);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
    peer(t, S, 0, 0, 0); /* again: answered again, by the same ISN */
    expect(t, S | A, 0, 1, 0);
    advance(t, 100000000);
    for (unsigned i = 0; i < 5; i++)
        expect(t, S | A, 0, 1, 0);
    tcp_usage(t->d, &u);
    assert_int_equal(u.half_open, 0);
}

TRACE_TEST(user_timeout, NULL)
{
    make_established(t);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_USER_TIMEOUT, 3000), 0);
    app_send(t, 10);
    uint64_t start = t->env.now_us;
    while (t->nb_gone == 0)
        advance(t, 100000);
    t->nb_checked = t->nb_out;
    assert_int_equal(t->err, ETIMEDOUT);
    assert_in_range(t->env.now_us - start, 3000000, 7000000);
}

TRACE_TEST(shutdown_before_the_handshake_ends, NULL)
{
    make_syn_sent(t);
    app_send(t, 10);
    tcp_shutdown(t->d, &t->env, t->id);
    expect_nothing(t);
    peer(t, S | A, 0, 1, 0);
    expect(t, A | P | F, 1, 1, 10);
    assert_int_equal(state_of(t), TCP_ST_FIN_WAIT_1);
}

TRACE_TEST(large_segments, NULL)
{
    make_established(t);
    t->env.gso_max_bytes = 65535;
    app_send(t, 14600);
    for (unsigned i = 0; i < 2; i++) { /* IW10 in two emissions: the ACK of the first clocks out the next */
        const struct tcp_out *o = expect(t, A | P, 1 + 7300 * i, 1, 7300);
        assert_int_equal(o->gso_size, 1460);
    }
    peer(t, A, 1, 14601, 0);
    assert_int_equal(t->acked, 14600);
}

TRACE_TEST(nobody_listens, NULL)
{
    t->tuple.local_port = 81;
    peer(t, S, 0, 0, 0);
    assert_int_equal(t->nb_out, 1);
    assert_int_equal(t->out[0].flags, R | A);
    assert_int_equal(t->out[0].ack, t->irs + 1);
    t->nb_checked = 1;
    peer(t, R, 0, 0, 0);
    expect_nothing(t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simultaneous_open),
        cmocka_unit_test(refused),
        cmocka_unit_test(syn_sent_ignores_forged_answers),
        cmocka_unit_test(connect_times_out),
        cmocka_unit_test(data_both_ways),
        cmocka_unit_test(quickack_may_be_switched_off),
        cmocka_unit_test(a_burst_is_acknowledged_once),
        cmocka_unit_test(a_gap_within_a_burst_is_told),
        cmocka_unit_test(a_burst_out_of_order_is_told_once),
        cmocka_unit_test(first_answer_is_acknowledged_at_once),
        cmocka_unit_test(fin_leads_no_dialogue),
        cmocka_unit_test(reassembly_with_overlap),
        cmocka_unit_test(urgent_data_stays_in_the_stream),
        cmocka_unit_test(maxseg_bounds_both_ways),
        cmocka_unit_test(fin_behind_a_gap),
        cmocka_unit_test(fast_retransmit_newreno),
        cmocka_unit_test(rto_backs_off_and_gives_up),
        cmocka_unit_test(zero_window_probe_and_update),
        cmocka_unit_test(nagle_holds_the_second_small_segment),
        cmocka_unit_test(cork_holds_until_200_ms),
        cmocka_unit_test(rst_needs_the_exact_sequence),
        cmocka_unit_test(syn_on_a_connection_is_challenged),
        cmocka_unit_test(acks_out_of_range),
        cmocka_unit_test(active_close),
        cmocka_unit_test(simultaneous_close),
        cmocka_unit_test(passive_close),
        cmocka_unit_test(close_with_unread_data_resets),
        cmocka_unit_test(data_after_close_resets),
        cmocka_unit_test(orphan_leaves_fin_wait_2),
        cmocka_unit_test(an_orphan_may_have_no_fin_wait_2),
        cmocka_unit_test(a_close_in_fin_wait_2_may_reset),
        cmocka_unit_test(keepalive_gives_up),
        cmocka_unit_test(data_before_accept),
        cmocka_unit_test(full_accept_queue_overhears_the_ack),
        cmocka_unit_test(reset_before_accept),
        cmocka_unit_test(no_memory_no_payload),
        cmocka_unit_test(half_open_oldest_gives_way),
        cmocka_unit_test(half_open_gives_up),
        cmocka_unit_test(user_timeout),
        cmocka_unit_test(shutdown_before_the_handshake_ends),
        cmocka_unit_test(large_segments),
        cmocka_unit_test(nobody_listens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
