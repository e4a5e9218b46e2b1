/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>

#include "trace.h"

#include "core/rng.h"
#include "tcp/cc.h"
#include "tcp/pace.h"
#include "tcp/rate.h"

#define MSS 1460u
#define SECOND 1000000ull

/* ---- delivery-rate samples ---------------------------------------- */

/** Ten segments sent at once come back over 9 ms, one each: the last sample is the path's rate. */
static void
a_sample_is_the_paths_rate(void **state)
{
    struct tcp_rate r = { 0 };
    struct tcp_rate_mark m[10];
    struct tcp_rate_sample s;
    uint32_t now_us = 0xfffff000u; /* over the wrap of the clock */

    (void)state;
    for (uint32_t i = 0; i < 10; i++)
        tcp_rate_on_send(&r, &m[i], MSS, i * MSS, now_us);
    for (uint32_t i = 0; i < 10; i++)
        tcp_rate_on_ack(&r, &m[i], now_us, MSS, 20000, now_us + 20000 + i * 1000, &s);
    assert_true(s.valid);
    assert_false(s.app_limited);
    assert_int_equal(s.delivered_bytes, 10 * MSS);
    assert_int_equal(s.inflight_bytes, 10 * MSS);
    assert_int_equal(s.interval_us, 29000);
    assert_int_equal(tcp_rate_bytes_per_s(r.info_bytes, r.info_us), 10ull * MSS * SECOND / 29000);
}

/** Acknowledgements that come in a heap do not make the path faster: the sending side's interval bounds the sample. */
static void
compressed_answers_do_not_count_twice(void **state)
{
    struct tcp_rate r = { 0 };
    struct tcp_rate_mark m[10];
    struct tcp_rate_sample s;

    (void)state;
    for (uint32_t i = 0; i < 10; i++)
        tcp_rate_on_send(&r, &m[i], MSS, i * MSS, i * 2000);
    tcp_rate_on_ack(&r, &m[0], 0, MSS, 20000, 38000, &s);
    for (uint32_t i = 1; i < 10; i++)
        tcp_rate_on_ack(&r, &m[i], i * 2000, MSS, 20000, 38001, &s);
    assert_true(s.interval_us >= 18000);
    /* An interval below the least round-trip time tells nothing. */
    tcp_rate_on_send(&r, &m[0], MSS, 0, 38002);
    tcp_rate_on_ack(&r, &m[0], 38002, MSS, 20000, 38010, &s);
    assert_true(s.valid);
    assert_int_equal(s.interval_us, 0);
}

/** What is sent while there is too little to send is marked so, until that has been delivered. */
static void
an_idle_application_is_told_apart(void **state)
{
    struct tcp_rate r = { 0 };
    struct tcp_rate_mark m;
    struct tcp_rate_sample s;

    (void)state;
    tcp_rate_on_send(&r, &m, MSS, 0, 1000);
    tcp_rate_app_limited(&r, MSS);
    tcp_rate_on_send(&r, &m, MSS, MSS, 1100);
    tcp_rate_on_ack(&r, &m, 1100, 2 * MSS, UINT32_MAX, 21000, &s);
    assert_true(s.app_limited);
    tcp_rate_on_send(&r, &m, MSS, 0, 22000);
    tcp_rate_on_ack(&r, &m, 22000, MSS, UINT32_MAX, 42000, &s);
    assert_false(s.app_limited);
}

static void
losses_are_counted_from_the_sending_on(void **state)
{
    struct tcp_rate r = { 0 };
    struct tcp_rate_mark m;
    struct tcp_rate_sample s;

    (void)state;
    r.lost_bytes = 5 * MSS;
    tcp_rate_on_send(&r, &m, 10 * MSS, 0, 1000);
    r.lost_bytes += 2 * MSS;
    tcp_rate_on_ack(&r, &m, 1000, 8 * MSS, UINT32_MAX, 21000, &s);
    assert_int_equal(s.lost_bytes, 2 * MSS);
    tcp_rate_on_ack(&r, NULL, 0, 0, UINT32_MAX, 22000, &s);
    assert_false(s.valid);
}

/* ---- the pacer ---------------------------------------- */

/** Polled every 100 us, every 700 us, or by a thread that has the CPU every 6 ms: the rate is met, and no burst is larger than it may be. */
static void
the_pacer_keeps_its_rate(void **state)
{
    static const uint64_t rates[] = { 20000, 1000000, 125000000, 1250000000 }, steps_us[] = { 100, 700, 6000 };

    (void)state;
    for (unsigned k = 0; k < 12; k++) {
        struct tcp_pace p = { .bytes_per_s = rates[k / 3] };
        uint64_t step_us = steps_us[k % 3], sent = 0, most = 0;
        uint32_t burst = tcp_pace_burst(&p, MSS, 2);
        assert_true(burst >= 2 * MSS && burst <= 65536 && burst % MSS == 0);
        for (uint64_t now_us = SECOND; now_us < 3 * SECOND; now_us += step_us) {
            uint64_t at_once = 0;
            while (tcp_pace_ready(&p, now_us)) {
                tcp_pace_sent(&p, burst, now_us);
                at_once += burst;
            }
            sent += at_once;
            most = at_once > most ? at_once : most;
        }
        uint64_t due = 2 * rates[k / 3];
        uint64_t slack = 2 * burst + p.bytes_per_s * (TCP_PACE_CREDIT_US + step_us) / SECOND;
        assert_in_range(sent, due > slack ? due - slack : 0, due + slack);
        assert_true(most <= 2 * burst + p.bytes_per_s * (TCP_PACE_CREDIT_US + step_us) / SECOND);
    }
}

/** Silence earns no more than a millisecond's burst: only who was held back is let catch up. */
static void
silence_earns_no_burst(void **state)
{
    struct tcp_pace p = { .bytes_per_s = 10000000 };
    uint64_t sent = 0;

    (void)state;
    assert_true(tcp_pace_ready(&p, SECOND));
    tcp_pace_sent(&p, 10000, SECOND);
    while (tcp_pace_ready(&p, 2 * SECOND)) {
        tcp_pace_sent(&p, MSS, 2 * SECOND);
        sent += MSS;
    }
    assert_in_range(sent, 1, 10000 + 2 * MSS);
}

/* ---- a connection ---------------------------------------- */

/** SO_MAX_PACING_RATE of 1 MB/s: the window goes out over the time that it takes, not at once. */
TRACE_TEST(a_socket_keeps_its_rate, NULL)
{
    struct tcp_conn_info info;

    make_established(t);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_MAX_PACING_RATE, 1000000), 0);
    assert_true(tcp_info(t->d, t->id, &info));
    assert_int_equal(info.pacing_rate, 1000000);
    unsigned before = t->nb_out;
    app_send(t, 10 * MSS);
    for (unsigned ms = 0; ms < 14; ms++) {
        unsigned segs = t->nb_out - before;
        assert_in_range(segs * MSS, ms * 1000, ms * 1000 + 6 * MSS);
        advance(t, 1000);
    }
    assert_int_equal(t->nb_out - before, 10);
    assert_int_equal(tcp_set_option(t->d, &t->env, t->id, TCP_OPT_MAX_PACING_RATE, 0), 0);
    assert_true(tcp_info(t->d, t->id, &info));
    assert_int_equal(info.pacing_rate, 0);
    t->nb_checked = t->nb_out;
    peer(t, A, 1, 1 + 10 * MSS, 0);
}

static void
pace_all(struct tcp_params *p)
{
    p->pacing = true;
}

/** The domain's option paces controls that need none: a window goes out over half a round trip in slow start. */
TRACE_TEST(a_domain_paces_every_control, pace_all)
{
    struct tcp_conn_info info;

    make_established(t);
    app_send(t, MSS);
    advance(t, 100000);
    peer(t, A, 1, 1 + MSS, 0);
    t->nb_checked = t->nb_out;
    assert_true(tcp_info(t->d, t->id, &info));
    assert_int_equal(info.pacing_rate, 2ull * info.cwnd_bytes * SECOND / info.srtt_us);
    app_send(t, 10 * MSS);
    assert_in_range(t->nb_out - t->nb_checked, 2, 4);
    advance(t, info.srtt_us);
    assert_int_equal(t->nb_out - t->nb_checked, 10);
    t->nb_checked = t->nb_out;
    peer(t, A, 1, 1 + 11 * MSS, 0);
}

/* ---- BBR on a path of its own ---------------------------------------- */

#define PATH_SEGS 65536u

/** A bottleneck of one segment in gap_us behind a delay; what is sent waits in its queue. */
struct path {
    struct tcp_cc cc;
    struct tcp_rate rate;
    struct tcp_pace pace;
    uint64_t model[TCP_CC_MODEL_BYTES / sizeof(uint64_t)];
    struct tcp_rate_mark mark[PATH_SEGS];
    uint64_t sent_us[PATH_SEGS], back_us[PATH_SEGS];
    uint32_t sent, back; /**< segments */
    uint64_t now_us, line_free_us, gap_us, delay_us;
    uint32_t min_rtt_us, lose_every; /**< 0 = none */
    uint32_t lose_ppm; /**< at random */
    struct rng rng;
    uint32_t
        buffer_bytes; /**< at most so much is under way, which counts as limited by the application; 0 = no bound */
    uint32_t least_pipe, most_pipe;
};

static struct tcp_cc_event
path_event(struct path *p, uint32_t acked)
{
    return (struct tcp_cc_event){
        .now_us = p->now_us,
        .acked_bytes = acked,
        .flight_bytes = (p->sent - p->back) * MSS,
        .pipe_bytes = (p->sent - p->back) * MSS,
        .mss_bytes = MSS,
        .srtt_us = p->min_rtt_us == UINT32_MAX ? 0 : p->min_rtt_us,
        .min_rtt_us = p->min_rtt_us,
        .una = p->back * MSS,
        .snd_nxt = p->sent * MSS,
        .rate = &p->rate,
        .model = p->model,
        .burst_bytes = tcp_pace_burst(&p->pace, MSS, 2),
        .cwnd_limited = (p->sent - p->back + 1) * MSS > p->cc.cwnd_bytes,
    };
}

/** handshake_us: what the connection believes a round trip to take; 0 = nothing. */
static void
path_init_after(struct path *p, uint64_t gap_us, uint64_t delay_us, uint32_t handshake_us)
{
    memset(p, 0, sizeof(*p));
    p->now_us = SECOND;
    p->gap_us = gap_us;
    p->delay_us = delay_us;
    p->min_rtt_us = UINT32_MAX;
    rng_init(&p->rng, 1, 0);
    struct tcp_cc_event ev = path_event(p, 0);
    ev.srtt_us = handshake_us;
    tcp_cc_bbr.init(&p->cc, &ev);
    p->pace.bytes_per_s = tcp_cc_bbr.pacing_rate(&p->cc, &ev);
}

static void
path_init(struct path *p, uint64_t gap_us, uint64_t delay_us)
{
    path_init_after(p, gap_us, delay_us, 0);
}

static void
path_send(struct path *p)
{
    while ((p->sent - p->back + 1) * MSS <= p->cc.cwnd_bytes && tcp_pace_ready(&p->pace, p->now_us)) {
        uint32_t i = p->sent % PATH_SEGS;
        if (p->buffer_bytes != 0 && (p->sent - p->back + 1) * MSS > p->buffer_bytes) {
            tcp_rate_app_limited(&p->rate, (p->sent - p->back) * MSS);
            break;
        }
        tcp_rate_on_send(&p->rate, &p->mark[i], MSS, (p->sent - p->back) * MSS, (uint32_t)p->now_us);
        p->line_free_us = (p->line_free_us > p->now_us ? p->line_free_us : p->now_us) + p->gap_us;
        p->sent_us[i] = p->now_us;
        p->back_us[i] = p->line_free_us + p->delay_us;
        tcp_pace_sent(&p->pace, MSS, p->now_us);
        p->sent++;
    }
}

static void
path_take(struct path *p)
{
    uint32_t i = p->back++ % PATH_SEGS;
    bool lost = (p->lose_every != 0 && p->back % p->lose_every == 0) || rng_chance_ppm(&p->rng, p->lose_ppm);
    uint32_t rtt_us = (uint32_t)(p->now_us - p->sent_us[i]);
    struct tcp_rate_sample s;

    if (lost)
        p->rate.lost_bytes += MSS;
    else if (rtt_us < p->min_rtt_us)
        p->min_rtt_us = rtt_us;
    tcp_rate_on_ack(&p->rate, &p->mark[i], (uint32_t)p->sent_us[i], lost ? 0 : MSS, p->min_rtt_us, (uint32_t)p->now_us,
                    &s);
    struct tcp_cc_event ev = path_event(p, lost ? 0 : MSS);
    ev.rtt_us = lost ? 0 : rtt_us;
    ev.sample = &s;
    ev.bytes_per_s = tcp_rate_bytes_per_s(s.delivered_bytes, s.interval_us);
    ev.lost_bytes = lost ? MSS : 0;
    ev.lost_mark = lost ? &p->mark[i] : NULL;
    tcp_cc_bbr.on_ack(&p->cc, &ev);
    p->pace.bytes_per_s = tcp_cc_bbr.pacing_rate(&p->cc, &ev);
    uint32_t pipe = (p->sent - p->back) * MSS;
    p->least_pipe = pipe < p->least_pipe ? pipe : p->least_pipe;
    p->most_pipe = pipe > p->most_pipe ? pipe : p->most_pipe;
}

static void
path_run(struct path *p, uint64_t for_us)
{
    uint64_t end_us = p->now_us + for_us;

    p->least_pipe = UINT32_MAX;
    p->most_pipe = 0;
    for (; p->now_us < end_us; p->now_us += 50) {
        while (p->back != p->sent && p->back_us[p->back % PATH_SEGS] <= p->now_us)
            path_take(p);
        path_send(p);
    }
}

/** The rate settles at the bottleneck's, the queue stays short, and drains so often by itself that the delay needs no look. */
static void
bbr_finds_the_path(void **state)
{
    static struct path p;
    uint64_t rate = MSS * SECOND / 200, bdp = rate * 20200 / SECOND;

    (void)state;
    path_init(&p, 200, 20000);
    path_run(&p, SECOND);
    assert_in_range(tcp_rate_bytes_per_s(p.rate.info_bytes, p.rate.info_us), rate * 95 / 100, rate * 101 / 100);
    path_run(&p, 3 * SECOND);
    assert_in_range(p.pace.bytes_per_s, rate * 85 / 100, rate * 130 / 100);
    assert_true(p.most_pipe < bdp * 2); /* the start's queue is gone, and probing builds no other */
    uint32_t before = p.back;
    path_run(&p, 6 * SECOND);
    assert_true(p.least_pipe > bdp * 8 / 10);
    assert_true((p.back - before) * (uint64_t)MSS > 6 * rate * 97 / 100);
}

/** A handshake whose last ACK was lost took ten round trips: the first true one corrects the rate that was begun with. */
static void
bbr_outgrows_a_slow_handshake(void **state)
{
    static struct path quick, slow;

    (void)state;
    path_init_after(&quick, 200, 20000, 20200);
    path_init_after(&slow, 200, 20000, 202000);
    path_run(&quick, SECOND / 4);
    path_run(&slow, SECOND / 4);
    assert_true(slow.back * 100 > quick.back * 80);
}

/** Where the delay that was known does not come back, a queue of others may stand: PROBE_RTT looks, and believes what it finds. */
static void
bbr_looks_for_the_delay(void **state)
{
    static struct path p;
    uint64_t rate = MSS * SECOND / 200, bdp = rate * 20200 / SECOND;

    (void)state;
    path_init(&p, 200, 20000);
    path_run(&p, 4 * SECOND);
    p.delay_us += 2000;
    path_run(&p, 6 * SECOND);
    assert_true(p.least_pipe < bdp * 6 / 10);
    path_run(&p, SECOND);
    path_run(&p, 12 * SECOND);
    assert_true(p.least_pipe > bdp * 8 / 10);
}

/** A path that has become half as wide is believed after the two cycles of probing that the filter spans. */
static void
bbr_follows_a_narrower_path(void **state)
{
    static struct path p;
    uint64_t rate = MSS * SECOND / 400;

    (void)state;
    path_init(&p, 200, 20000);
    path_run(&p, 3 * SECOND);
    p.gap_us = 400;
    path_run(&p, 9 * SECOND);
    assert_in_range(p.pace.bytes_per_s, rate * 80 / 100, rate * 130 / 100);
}

/** One in a hundred lost is no sign of a queue; one in ten is, and bounds what is under way. */
static void
bbr_bounds_itself_by_loss(void **state)
{
    static struct path p;
    uint64_t rate = MSS * SECOND / 200, bdp = rate * 20200 / SECOND;

    (void)state;
    path_init(&p, 200, 20000);
    p.lose_every = 100;
    path_run(&p, 2 * SECOND);
    uint32_t before = p.back;
    path_run(&p, 2 * SECOND);
    assert_true((p.back - before) * (uint64_t)MSS > 2 * rate * 85 / 100);
    p.lose_every = 10;
    path_run(&p, 4 * SECOND);
    path_run(&p, SECOND);
    assert_true(p.most_pipe < bdp * 11 / 10);
}

/** What the path loses with an empty queue too is not the flow's doing, though it be more than LossThresh. */
static void
bbr_learns_what_the_path_loses(void **state)
{
    static struct path p;
    uint64_t rate = MSS * SECOND / 200;

    (void)state;
    path_init(&p, 200, 20000);
    p.lose_ppm = 30000;
    path_run(&p, 3 * SECOND);
    uint32_t before = p.back;
    path_run(&p, 20 * SECOND);
    assert_true((p.back - before) * (uint64_t)MSS > 20 * rate * 99 / 100);
}

/** One in a hundred lost at random is often three in one flight of a hundred, and still no sign of a queue. */
static void
bbr_does_not_take_chance_for_congestion(void **state)
{
    static struct path p;
    uint64_t rate = MSS * SECOND / 200;

    (void)state;
    path_init(&p, 200, 20000);
    p.lose_ppm = 10000;
    path_run(&p, SECOND);
    uint32_t before = p.back;
    path_run(&p, 20 * SECOND);
    assert_true((p.back - before) * (uint64_t)MSS > 20 * rate * 99 / 100);
}

/** A buffer that is larger than the product but smaller than startup's window: startup ends, and with it its queue. */
static void
bbr_leaves_startup_with_a_small_buffer(void **state)
{
    static struct path p;
    uint64_t rate = MSS * SECOND / 200, bdp = rate * 20200 / SECOND;

    (void)state;
    path_init(&p, 200, 20000);
    p.buffer_bytes = (uint32_t)bdp * 3 / 2;
    path_run(&p, SECOND);
    assert_in_range(p.pace.bytes_per_s, rate * 85 / 100, rate * 130 / 100); /* of startup it is 277 */
}

/** Its choice needs no more than the name, and the state that it takes comes back when another is chosen. */
TRACE_TEST(bbr_is_chosen_and_left, NULL)
{
    struct tcp_conn_info info;

    make_established(t);
    assert_int_equal(tcp_set_congestion(t->d, &t->env, t->id, "bbr"), 0);
    assert_int_equal(t->d->pools[POOL_MODEL].used, 1);
    assert_true(tcp_info(t->d, t->id, &info));
    assert_string_equal(info.cc_name, "bbr");
    assert_true(info.pacing_rate > 0);
    assert_int_equal(tcp_set_congestion(t->d, &t->env, t->id, "cubic"), 0);
    assert_int_equal(t->d->pools[POOL_MODEL].used, 0);
    assert_true(tcp_info(t->d, t->id, &info));
    assert_int_equal(info.pacing_rate, 0);
    assert_int_equal(tcp_set_congestion(t->d, &t->env, t->id, "bbr"), 0);
}

/* ---- the choice of a control, and what holds a sender back ---------------------------------------- */

static void
bbr_towards_some(struct tcp_params *p)
{
    p->congestion = TCP_CC_NEWRENO;
    p->nb_cc_routes = 2;
    p->cc_routes[0] = (struct tcp_cc_route){ ip_addr_v4(0x0000000a), 104, TCP_CC_DCTCP, 0 }; /* 10.0.0.0/8 */
    p->cc_routes[1] = (struct tcp_cc_route){ ip_addr_v4(0x0000010a), 112, TCP_CC_BBR, 0 }; /* 10.1.0.0/16 */
}

/** By socket, else by the longest prefix that covers the peer, else by the domain's parameter. */
static void
a_route_chooses_the_control(void **state)
{
    static const struct {
        uint32_t peer;
        bool chosen;
        const char *name;
    } cases[] = { { 0x0201010a, false, "bbr" },
                  { 0x0201020a, false, "dctcp" },
                  { 0x0201a8c0, false, "newreno" },
                  { 0x0201010a, true, "cubic" } };
    struct tcp_sockopts opts = { .set = 1u << TCP_OPT_CONGESTION };
    struct tcp_conn_info info;
    static struct trace t;

    (void)state;
    opts.value[TCP_OPT_CONGESTION] = TCP_CC_CUBIC;
    trace_init(&t, bbr_towards_some);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tcp_tuple to = { .local = ip_addr_v4(0x0100000a),
                                .remote = ip_addr_v4(cases[i].peer),
                                .remote_port = 80 };
        tcp_id id;
        assert_int_equal(tcp_connect(t.d, &t.env, &to, 1460, cases[i].chosen ? &opts : NULL, TRACE_USER, &id), 0);
        assert_true(tcp_info(t.d, id, &info));
        assert_string_equal(info.cc_name, cases[i].name);
        tcp_abort(t.d, &t.env, id);
    }
    t.nb_checked = t.nb_out;
    trace_fini(&t);
}

/** A window of nothing is what the sender waits for, until it opens. */
TRACE_TEST(a_shut_window_is_timed, NULL)
{
    struct tcp_conn_info info;

    make_established(t);
    t->peer_window = 0;
    peer(t, A, 1, 1, 0);
    app_send(t, 100);
    advance(t, 100000);
    t->peer_window = 10000;
    peer(t, A, 1, 1, 0);
    expect(t, A | P, 1, 1, 100);
    advance(t, 20000);
    peer(t, A, 1, 101, 0);
    advance(t, 50000);
    assert_true(tcp_info(t->d, t->id, &info));
    assert_int_equal(info.rwnd_limited_us, 100000);
    assert_int_equal(info.busy_us, 120000);
    assert_int_equal(info.sndbuf_limited_us, 0);
}

/** New data and what is lost wait while the port is full, and go by themselves when it is not; acknowledgements go. */
TRACE_TEST(a_full_port_holds_data_back, NULL)
{
    make_established(t);
    t->env.tx_full = true;
    app_send(t, 100);
    advance(t, 50000);
    peer(t, A | P, 1, 1, 100);
    advance(t, 50000);
    expect(t, A, 1, 101, 0);
    t->env.tx_full = false;
    advance(t, 1000);
    expect(t, A | P, 1, 101, 100);
    /* Lost: the timeout finds the port full. */
    t->env.tx_full = true;
    advance(t, 500000);
    t->env.tx_full = false;
    advance(t, 1000);
    t->nb_checked = t->nb_out - 1;
    expect(t, A | P, 1, 101, 100);
    peer(t, A, 101, 101, 0);
}

/** Who waits for the port and ends leaves no trace in the queue. */
static void
who_ends_waits_no_more(void **state)
{
    static struct trace t;

    (void)state;
    trace_init(&t, NULL);
    make_established(&t);
    t.env.tx_full = true;
    app_send(&t, 100);
    assert_true(tcp_waiters_any(&t.d->waiters));
    tcp_abort(t.d, &t.env, t.id);
    expect(&t, R | A, 1, 1, 0);
    t.id = 0;
    assert_false(tcp_waiters_any(&t.d->waiters));
    trace_fini(&t);
}

/** The port has room, but another waits for it: who comes now goes behind him. */
static void
who_waits_goes_first(void **state)
{
    static struct trace t;
    uint32_t other;

    (void)state;
    trace_init(&t, NULL);
    make_established(&t);
    /* An entry without a connection: its turn passes without a segment. */
    other = t.d->params.max_conns;
    tcp_waiters_add(&t.d->waiters, domain_waiters(t.d), other);
    app_send(&t, 100);
    expect_nothing(&t);
    assert_int_equal(domain_waiters(t.d)[other].next, t.id & 0xffffff);
    advance(&t, 1);
    expect(&t, A | P, 1, 1, 100);
    assert_false(tcp_waiters_any(&t.d->waiters));
    peer(&t, A, 1, 101, 0);
    trace_fini(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_is_the_paths_rate),
        cmocka_unit_test(compressed_answers_do_not_count_twice),
        cmocka_unit_test(an_idle_application_is_told_apart),
        cmocka_unit_test(losses_are_counted_from_the_sending_on),
        cmocka_unit_test(the_pacer_keeps_its_rate),
        cmocka_unit_test(silence_earns_no_burst),
        cmocka_unit_test(a_socket_keeps_its_rate),
        cmocka_unit_test(a_domain_paces_every_control),
        cmocka_unit_test(bbr_finds_the_path),
        cmocka_unit_test(bbr_outgrows_a_slow_handshake),
        cmocka_unit_test(bbr_follows_a_narrower_path),
        cmocka_unit_test(bbr_looks_for_the_delay),
        cmocka_unit_test(bbr_bounds_itself_by_loss),
        cmocka_unit_test(bbr_learns_what_the_path_loses),
        cmocka_unit_test(bbr_does_not_take_chance_for_congestion),
        cmocka_unit_test(bbr_leaves_startup_with_a_small_buffer),
        cmocka_unit_test(bbr_is_chosen_and_left),
        cmocka_unit_test(a_route_chooses_the_control),
        cmocka_unit_test(a_shut_window_is_timed),
        cmocka_unit_test(a_full_port_holds_data_back),
        cmocka_unit_test(who_ends_waits_no_more),
        cmocka_unit_test(who_waits_goes_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
