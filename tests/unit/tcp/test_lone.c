/* SPDX-License-Identifier: BSD-3-Clause */
/* A segment that goes alone, as a request or an answer does: what the connection's books say once it has been sent. */
#include "trace.h"

#define MSS TRACE_MSS
#define CWND_SEGS 10u /* initially */

/** Two thirds of the buffer are two segments. */
static void
with_sack(struct tcp_params *p)
{
    p->sack = true;
    p->snd_buf_bytes = 3 * MSS;
}

static const struct tcp_conn *
conn_of(const struct trace *t)
{
    return conn_by_id(t->d, t->id);
}

/** An active open to a peer whose SYN-ACK takes 20 ms, so that no timer runs out within the first few. */
static void
meet(struct trace *t)
{
    make_syn_sent(t);
    advance(t, 20000);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = MSS, .sack_permitted = t->params.sack };
    peer(t, S | A, 0, 1, 0);
    expect(t, A, 1, 1, 0);
}

/** One segment behind n others. */
static void
send_behind(struct trace *t, uint32_t n)
{
    app_send(t, MSS);
    expect(t, A | P, 1 + n * MSS, 1, MSS);
    expect_nothing(t);
}

/** What was noted of the flow with what was sent last. */
static const struct tcp_rate_mark *
last_mark(const struct trace *t)
{
    return &sent_store(t->d, NULL).runs[conn_of(t)->sent.tail].mark;
}

TRACE_TEST(its_timer_is_the_probes, with_sack)
{
    meet(t);
    const struct tcp_conn *c = conn_of(t);
    assert_int_equal(c->timer_at[CONN_T_RTX], 0);
    send_behind(t, 0);
    assert_true(c->timer_at[CONN_T_RTX] != 0);
    assert_true((c->flags & CONN_F_PTO) != 0);
    uint32_t first = c->timer_at[CONN_T_RTX];
    advance(t, 5000);
    send_behind(t, 1);
    assert_true((c->flags & CONN_F_PTO) != 0);
    assert_true(c->timer_at[CONN_T_RTX] != first); /* it runs from what was sent last */
    advance(t, 100000);
    assert_int_equal(t->ctr.v[CTR_TCP_TAIL_PROBES], 1);
    expect(t, A | P, 1 + MSS, 1, MSS);
    peer(t, A, 1, 1 + 2 * MSS, 0);
    assert_int_equal(c->timer_at[CONN_T_RTX], 0);
}

/** RFC 6298's is all there is without SACK; the first segment starts it. */
TRACE_TEST(its_timer_without_sack, NULL)
{
    meet(t);
    const struct tcp_conn *c = conn_of(t);
    send_behind(t, 0);
    uint32_t first = c->timer_at[CONN_T_RTX];
    assert_true(first != 0);
    assert_true((c->flags & CONN_F_PTO) == 0);
    advance(t, 5000);
    send_behind(t, 1);
    assert_int_equal(c->timer_at[CONN_T_RTX], first);
}

/** Until the window is full it is the application that bounds the rate, with what is under way. */
TRACE_TEST(the_rate_is_the_applications, with_sack)
{
    meet(t);
    const struct tcp_conn *c = conn_of(t);
    const struct tcp_rate *r = &flow_of(c)->rate;
    assert_int_equal(c->cc.cwnd_bytes, CWND_SEGS * MSS);
    assert_int_equal(r->limited, 0);
    for (uint32_t n = 0; n < CWND_SEGS; n++) {
        bool full = n + 1 == CWND_SEGS;
        send_behind(t, n);
        assert_int_equal(r->limited, 1);
        assert_int_equal(r->limited_until - r->delivered_bytes, (full ? n : n + 1) * MSS);
        assert_int_equal((c->flags & CONN_F_CWND_LIMITED) != 0, full);
        assert_int_equal(last_mark(t)->inflight_bytes, (n + 1) * MSS);
        assert_int_equal(last_mark(t)->app_limited, n > 0);
    }
}

/** The sender waits for its peer, or, beyond two thirds of its buffer, for the application that waits for that; a full window is the path's affair. */
TRACE_TEST(what_the_sender_waits_for, with_sack)
{
    meet(t);
    const struct tcp_chrono *chrono = &flow_of(conn_of(t))->chrono;
    assert_int_equal(tcp_chrono_now(chrono), TCP_LIMIT_IDLE);
    for (uint32_t n = 0; n < CWND_SEGS; n++) {
        send_behind(t, n);
        assert_int_equal(tcp_chrono_now(chrono), n < 2 || n + 1 == CWND_SEGS ? TCP_LIMIT_BUSY : TCP_LIMIT_BUFFER);
        advance(t, 1000);
    }
    peer(t, A, 1, 1 + CWND_SEGS * MSS, 0);
    assert_int_equal(tcp_chrono_now(chrono), TCP_LIMIT_IDLE);
    advance(t, 1000);
    assert_int_equal(tcp_chrono_spent_us(chrono, TCP_LIMIT_BUSY, t->env.now_us), CWND_SEGS * 1000);
    assert_int_equal(tcp_chrono_spent_us(chrono, TCP_LIMIT_BUFFER, t->env.now_us), (CWND_SEGS - 3) * 1000);
}

/** Three segments are under way, of which the peer's duplicates or SACKs say that some have left the path; then one more is sent. */
static void
send_behind_three(bool sack, uint32_t nb_dups, uint32_t nb_sacked, uint32_t inflight_segs)
{
    static struct trace t;

    trace_init(&t, sack ? with_sack : NULL);
    meet(&t);
    for (uint32_t n = 0; n < 3; n++)
        send_behind(&t, n);
    advance(&t, 1000);
    for (uint32_t n = 0; n < nb_dups; n++) {
        t.peer_opts.nb_sack = nb_sacked > 0;
        t.peer_opts.sack[0] = (struct tcp_sack_block){ t.iss + 1 + MSS, t.iss + 1 + (1 + nb_sacked) * MSS };
        peer(&t, A, 1, 1, 0);
    }
    send_behind(&t, 3);
    const struct tcp_conn *c = conn_of(&t);
    const struct tcp_rate *r = &flow_of(c)->rate;
    assert_int_equal(last_mark(&t)->inflight_bytes, inflight_segs * MSS);
    assert_int_equal(conn_pipe(c), inflight_segs * MSS);
    assert_int_equal(r->limited_until - r->delivered_bytes, inflight_segs * MSS);
    trace_fini(&t);
}

/** Without SACK a duplicate stands for a segment that has left the path; with it only what was SACKed has. */
static void
what_is_under_way_with_it(void **state)
{
    (void)state;
    send_behind_three(false, 0, 0, 4);
    send_behind_three(false, 1, 0, 3);
    send_behind_three(false, 2, 0, 2);
    send_behind_three(true, 0, 0, 4);
    send_behind_three(true, 2, 0, 4);
    send_behind_three(true, 1, 1, 3);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_timer_is_the_probes),      cmocka_unit_test(its_timer_without_sack),
        cmocka_unit_test(the_rate_is_the_applications), cmocka_unit_test(what_the_sender_waits_for),
        cmocka_unit_test(what_is_under_way_with_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
