/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/rng.h"
#include "tcp/rtt.h"
#include "tcp/siphash.h"
#include "tcp/chrono.h"
#include "tcp/tune.h"
#include "tcp/waiters.h"
#include "tcp/wire.h"

static void
siphash_matches_its_paper(void **state)
{
    (void)state;
    /* Appendix A of the SipHash paper: key 00..0f, message 00..0e. */
    const uint64_t key[2] = { 0x0706050403020100, 0x0f0e0d0c0b0a0908 };
    uint8_t msg[15];
    for (unsigned i = 0; i < sizeof(msg); i++)
        msg[i] = (uint8_t)i;
    assert_true(siphash24(key, msg, sizeof(msg)) == 0xa129ca6149be45e5);
}

/** Against a plain list: entries come once, leave in order, or from anywhere. */
static void
waiters_keep_their_order(void **state)
{
    enum { N = 12, STEPS = 20000 };
    struct tcp_waiter links[N + 1] = { 0 };
    struct tcp_waiters w = { 0 };
    uint32_t list[N], n = 0;
    struct rng rng;

    (void)state;
    rng_init(&rng, 20, 0);
    for (unsigned step = 0; step < STEPS; step++) {
        uint32_t i = 1 + rng_below(&rng, N), at = 0;

        while (at < n && list[at] != i)
            at++;
        assert_int_equal(tcp_waiters_has(&w, links, i), at < n);
        assert_int_equal(tcp_waiters_any(&w), n > 0);
        switch (rng_below(&rng, 4)) {
        case 0:
            tcp_waiters_remove(&w, links, i);
            if (at < n)
                memmove(&list[at], &list[at + 1], (--n - at) * sizeof(list[0]));
            break;
        case 1:
            assert_int_equal(tcp_waiters_take(&w, links), n > 0 ? list[0] : 0);
            if (n > 0)
                memmove(&list[0], &list[1], --n * sizeof(list[0]));
            break;
        default:
            tcp_waiters_add(&w, links, i);
            if (at == n)
                list[n++] = i;
            break;
        }
    }
    while (n > 0) {
        assert_int_equal(tcp_waiters_take(&w, links), list[0]);
        memmove(&list[0], &list[1], --n * sizeof(list[0]));
    }
    assert_int_equal(w.first, 0);
    assert_int_equal(w.last, 0);
}

static void
rtt_follows_rfc6298(void **state)
{
    struct tcp_rtt r;

    (void)state;
    tcp_rtt_init(&r, 1000000);
    assert_int_equal(r.rto_us, 1000000);
    tcp_rtt_sample(&r, 400000, 200000, 60000000);
    assert_int_equal(r.srtt_us, 400000);
    assert_int_equal(r.var_us, 200000);
    assert_int_equal(r.rto_us, 1200000);
    tcp_rtt_sample(&r, 800000, 200000, 60000000);
    assert_int_equal(r.srtt_us, 450000);
    assert_int_equal(r.var_us, 250000);
    assert_int_equal(r.min_us, 400000);
    assert_int_equal(tcp_rtt_backed_off(&r, 2, 60000000), 4 * r.rto_us);
    assert_int_equal(tcp_rtt_backed_off(&r, 40, 60000000), 60000000);
}

/** A path that has become longer is believed when the span of its least time is over, at the latest after two. */
static void
least_rtt_is_forgotten(void **state)
{
    struct tcp_rtt r;
    struct tcp_rtt_window w = { 0 };
    uint32_t now_us = 0xf0000000u;

    (void)state;
    tcp_rtt_init(&r, 1000000);
    tcp_rtt_min(&r, &w, 10000, now_us);
    tcp_rtt_min(&r, &w, 40000, now_us += TCP_RTT_WINDOW_US / 2);
    assert_int_equal(r.min_us, 10000);
    tcp_rtt_min(&r, &w, 40000, now_us += TCP_RTT_WINDOW_US);
    assert_int_equal(r.min_us, 10000);
    tcp_rtt_min(&r, &w, 30000, now_us += 1000);
    tcp_rtt_min(&r, &w, 50000, now_us += TCP_RTT_WINDOW_US + 1000);
    assert_int_equal(r.min_us, 30000);
    tcp_rtt_min(&r, &w, 20000, now_us += 1000);
    assert_int_equal(r.min_us, 20000);
}

/** A sender that doubles what it sends in a round trip of 10 ms, up to a rate; the reader takes it all. Returns the buffer. */
static uint32_t
tuned_for(uint32_t bytes_per_round, uint32_t taken_percent, uint32_t max_bytes)
{
    struct tcp_tune t = { 0 };
    uint32_t buf = 65536, now_us = 0xfffff000u, sent = 14600, at = 0;

    for (unsigned round = 0; round < 40; round++) {
        uint32_t n = sent < buf ? sent : buf;
        for (unsigned i = 0; i < 10; i++) {
            at += n / 10;
            tcp_tune_arrived(&t, at, buf, now_us);
            buf = tcp_tune_taken(&t, n / 10 * taken_percent / 100, 10000, 1460, buf, max_bytes, now_us += 1000);
        }
        sent = 2 * sent < bytes_per_round ? 2 * sent : bytes_per_round;
    }
    return buf;
}

/** The buffer follows twice what is taken in a round trip, up to its bound; a reader that takes little has no more. */
static void
receive_buffers_follow_their_readers(void **state)
{
    (void)state;
    assert_in_range(tuned_for(1000000, 100, 6 << 20), 2000000, 5000000);
    assert_int_equal(tuned_for(1000000, 100, 1 << 20), 1 << 20);
    assert_int_equal(tuned_for(1000000, 100, 4096), 65536); /* one that is larger already stays */
    assert_in_range(tuned_for(20000, 100, 6 << 20), 65536, 131072);
    assert_in_range(tuned_for(1000000, 2, 6 << 20), 65536, 131072);
}

/** A gap costs a round trip in which nothing is taken: the window goes on beyond it, within the bound. */
static void
receive_buffers_make_room_behind_a_gap(void **state)
{
    struct tcp_tune t = { 0 };

    (void)state;
    assert_int_equal(tcp_tune_gap(&t, 1460, 1460, 65536, 6 << 20), 65536); /* there is room enough */
    assert_int_equal(tcp_tune_gap(&t, 60000, 1000, 65536, 6 << 20), 2 * 10000 + 16000 + 60000);
    t.before_bytes = 50000;
    assert_int_equal(tcp_tune_gap(&t, 60000, 1000, 65536, 6 << 20), 2 * 50000 + 16000 + 60000);
    assert_int_equal(tcp_tune_gap(&t, 60000, 1000, 65536, 100000), 100000);
    assert_int_equal(tcp_tune_gap(&t, 60000, 1000, 200000, 100000), 200000); /* one that is larger already stays */
}

static void
waiting_is_timed(void **state)
{
    struct tcp_chrono l = { 0 };

    (void)state;
    tcp_chrono_set(&l, TCP_LIMIT_BUSY, 1000);
    tcp_chrono_set(&l, TCP_LIMIT_WINDOW, 3000);
    tcp_chrono_set(&l, TCP_LIMIT_WINDOW, 4000);
    tcp_chrono_set(&l, TCP_LIMIT_BUFFER, 7000);
    tcp_chrono_set(&l, TCP_LIMIT_IDLE, 8000);
    tcp_chrono_set(&l, TCP_LIMIT_BUSY, 20000);
    assert_int_equal(tcp_chrono_spent_us(&l, TCP_LIMIT_BUSY, 20500), 7500);
    assert_int_equal(tcp_chrono_spent_us(&l, TCP_LIMIT_WINDOW, 20500), 4000);
    assert_int_equal(tcp_chrono_spent_us(&l, TCP_LIMIT_BUFFER, 20500), 1000);
}

static void
wire_round_trip(void **state)
{
    struct tcp_tuple t = { .local_port = 0x1234, .remote_port = 80 };
    struct tcp_out out = { .tuple = &t, .seq = 0x01020304, .ack = 0xfefdfcfb, .window = 777, .flags = TCP_FLAG_SYN };
    uint8_t hdr[TCP_HDR_MAX];
    struct tcp_in in;

    (void)state;
    out.opts = (struct tcp_options){ .has_mss = true,
                                     .mss = 1460,
                                     .has_ts = true,
                                     .ts_val = 9,
                                     .ts_ecr = 8,
                                     .sack_permitted = true,
                                     .has_wscale = true,
                                     .wscale = 7 };
    assert_int_equal(tcp_wire_build(&out, hdr), 40);
    memset(&in, 0, sizeof(in));
    assert_int_equal(tcp_wire_parse(hdr, 40, &in), 40);
    assert_int_equal(in.seq, out.seq);
    assert_int_equal(in.ack, out.ack);
    assert_int_equal(in.tuple.remote_port, 0x1234);
    assert_true(in.opts.has_mss && in.opts.has_ts && in.opts.sack_permitted && in.opts.has_wscale);
    assert_int_equal(in.opts.mss, 1460);
    assert_int_equal(in.opts.ts_ecr, 8);
    assert_int_equal(in.opts.wscale, 7);

    out.flags = TCP_FLAG_ACK;
    out.opts = (struct tcp_options){ .has_ts = true, .nb_sack = 4, .sack = { { 1, 2 }, { 3, 4 }, { 5, 6 }, { 7, 8 } } };
    size_t n = tcp_wire_build(&out, hdr);
    assert_int_equal(n, 60); /* three blocks fit beside timestamps */
    assert_int_equal(tcp_wire_parse(hdr, n, &in), 60);
    assert_int_equal(in.opts.nb_sack, 3);
    assert_int_equal(in.opts.sack[2].end, 6);
}

/** Most segments' headers are written without asking for each option: the same bytes come out as where something else is there too. */
static void
wire_of_plain_segments(void **state)
{
    static const uint8_t plain[] = { 0x12, 0x34, 0, 80, 1, 2, 3, 4,  0xfe, 0xfd, 0xfc, 0xfb, 0x80, 0x18, 3, 9,
                                     0,    0,    0, 0,  1, 1, 8, 10, 0,    0,    1,    2,    0,    0,    3, 4 };
    struct tcp_tuple t = { .local_port = 0x1234, .remote_port = 80 };
    struct tcp_out out = {
        .tuple = &t, .seq = 0x01020304, .ack = 0xfefdfcfb, .window = 777, .flags = TCP_FLAG_ACK | TCP_FLAG_PSH
    };
    uint8_t hdr[TCP_HDR_MAX];

    (void)state;
    memset(hdr, 0xff, sizeof(hdr));
    assert_int_equal(tcp_wire_build(&out, hdr), 20);
    hdr[12] = 0x80; /* but for its length */
    assert_memory_equal(hdr, plain, 20);
    out.opts = (struct tcp_options){ .has_ts = true, .ts_val = 0x102, .ts_ecr = 0x304 };
    memset(hdr, 0xff, sizeof(hdr));
    assert_int_equal(tcp_wire_build(&out, hdr), 32);
    assert_memory_equal(hdr, plain, 32);
    out.opts.nb_sack = 1;
    assert_int_equal(tcp_wire_build(&out, hdr), 44);
    hdr[12] = 0x80; /* but for its length */
    assert_memory_equal(hdr, plain, 32);
}

/** RFC 9768 section 3.2.3: the counters of kind 174 stand the other way round in kind 172; of an odd length, whole ones count. */
static void
wire_reads_accecn(void **state)
{
    static const uint8_t order0[] = { 172, 11, 0, 0, 1, 0, 0, 2, 1, 0, 3, 1 }, cut[] = { 174, 6, 0, 0, 9, 7, 1, 1 };
    struct tcp_tuple t = { .local_port = 1, .remote_port = 80 };
    struct tcp_out out = { .tuple = &t, .flags = TCP_FLAG_ACK | TCP_FLAG_AE };
    uint8_t hdr[TCP_HDR_MAX];
    struct tcp_in in = { 0 };

    (void)state;
    out.opts = (struct tcp_options){ .has_accecn = true, .accecn_fields = 3, .accecn = { 5, 0x123456 } };
    assert_int_equal(tcp_wire_build(&out, hdr), 28);
    assert_int_equal(tcp_wire_parse(hdr, 28, &in), 28);
    assert_int_equal(in.flags, out.flags);
    assert_int_equal(in.opts.accecn_fields, 3);
    assert_int_equal(in.opts.accecn[0], 5);
    assert_int_equal(in.opts.accecn[1], 0x123456);

    hdr[12] = 8 << 4;
    memcpy(hdr + 20, order0, sizeof(order0));
    assert_int_equal(tcp_wire_parse(hdr, 32, &in), 32);
    assert_int_equal(in.opts.accecn_fields, 7);
    assert_int_equal(in.opts.accecn[2], 1); /* ECT(0) first */
    assert_int_equal(in.opts.accecn[1], 2);
    assert_int_equal(in.opts.accecn[0], 0x10003);

    hdr[12] = 7 << 4;
    memcpy(hdr + 20, cut, sizeof(cut));
    assert_int_equal(tcp_wire_parse(hdr, 28, &in), 28);
    assert_int_equal(in.opts.accecn_fields, 1);
    assert_int_equal(in.opts.accecn[0], 9);
}

static void
wire_rejects_nonsense(void **state)
{
    uint8_t hdr[TCP_HDR_MAX] = { 0 };
    struct tcp_in in = { 0 };
    struct rng rng;

    (void)state;
    assert_int_equal(tcp_wire_parse(hdr, 19, &in), -EBADMSG);
    hdr[12] = 4 << 4;
    assert_int_equal(tcp_wire_parse(hdr, 60, &in), -EBADMSG);
    hdr[12] = 6 << 4;
    assert_int_equal(tcp_wire_parse(hdr, 20, &in), -EBADMSG);
    hdr[20] = 8; /* length 0 */
    assert_int_equal(tcp_wire_parse(hdr, 24, &in), -EINVAL);
    hdr[21] = 10; /* past the header */
    assert_int_equal(tcp_wire_parse(hdr, 24, &in), -EINVAL);
    rng_init(&rng, 3, 0);
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t *copy = malloc(TCP_HDR_MAX); /* on the heap, for the sanitizer's sake */
        size_t len = rng_next(&rng) % (TCP_HDR_MAX + 1);
        for (unsigned k = 0; k < TCP_HDR_MAX; k++)
            copy[k] = (uint8_t)rng_next(&rng);
        if (len > 20)
            copy[20] = (uint8_t)(rng_next(&rng) % 9);
        int rc = tcp_wire_parse(copy + TCP_HDR_MAX - len, len, &in);
        assert_true(rc == -EBADMSG || rc == -EINVAL || (rc >= 20 && (size_t)rc <= len));
        assert_true(rc < 0 || in.opts.nb_sack <= TCP_MAX_SACK);
        free(copy);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(siphash_matches_its_paper),
        cmocka_unit_test(waiters_keep_their_order),
        cmocka_unit_test(rtt_follows_rfc6298),
        cmocka_unit_test(least_rtt_is_forgotten),
        cmocka_unit_test(receive_buffers_follow_their_readers),
        cmocka_unit_test(receive_buffers_make_room_behind_a_gap),
        cmocka_unit_test(waiting_is_timed),
        cmocka_unit_test(wire_round_trip),
        cmocka_unit_test(wire_of_plain_segments),
        cmocka_unit_test(wire_reads_accecn),
        cmocka_unit_test(wire_rejects_nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
