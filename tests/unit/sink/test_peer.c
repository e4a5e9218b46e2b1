/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "sink/peer.h"

/* The stack's side is played by hand: send() is a segment of the stack, expect() the peer's next one. */

#define ISS 1000u
#define MSS 1460u
#define WINDOW 65535u

static struct peer *p;
static struct peer_reply r;

static const struct peer_tuple tuple = { 0x0100090a, 0x0200090a, 0x1234, 0x581b };

static int
setup(void **state)
{
    const struct peer_config cfg = { .max_conns = 4, .window_bytes = 524288, .ack_segments = 2, .mss = MSS };

    (void)state;
    p = peer_create(&cfg);
    return p == NULL;
}

static int
teardown(void **state)
{
    (void)state;
    peer_destroy(p);
    return 0;
}

static struct peer_segment
segment(uint8_t flags, uint32_t seq, uint32_t ack, uint32_t payload_bytes)
{
    return (struct peer_segment){
        .tuple = tuple, .flags = flags, .seq = seq, .ack = ack, .payload_bytes = payload_bytes, .window = WINDOW
    };
}

static void
send(uint8_t flags, uint32_t seq, uint32_t ack, uint32_t payload_bytes)
{
    struct peer_segment s = segment(flags, seq, ack, payload_bytes);

    peer_input(p, &s);
}

static void
expect(uint8_t flags, uint32_t seq, uint32_t ack, uint16_t payload_bytes)
{
    assert_true(peer_output(p, &r));
    assert_int_equal(r.flags, flags);
    assert_int_equal(r.seq, seq);
    assert_int_equal(r.ack, ack);
    assert_int_equal(r.payload_bytes, payload_bytes);
    assert_memory_equal(&r.tuple, &tuple, sizeof(tuple));
}

static void
expect_nothing(void)
{
    assert_false(peer_output(p, &r));
    assert_false(peer_has_output(p));
}

/** Returns the peer's first sequence number; the connection stands and its hello has been acknowledged. The stack's next byte is ISS + 17. */
static uint32_t
open_conn(enum role role, uint32_t size_bytes)
{
    struct peer_segment s = segment(PEER_SYN, ISS, 0, 0);
    const struct hello hello = { .role = role, .size_bytes = size_bytes };
    uint32_t iss;

    s.mss = MSS;
    s.has_sack_ok = true;
    peer_input(p, &s);
    assert_true(peer_output(p, &r));
    assert_int_equal(r.flags, PEER_SYN | PEER_ACK);
    assert_int_equal(r.ack, ISS + 1);
    assert_int_equal(r.mss, MSS);
    iss = r.seq;
    send(PEER_ACK, ISS + 1, iss + 1, 0);
    expect_nothing();
    s = segment(PEER_ACK | PEER_PSH, ISS + 1, iss + 1, HELLO_BYTES);
    hello_write(&hello, s.head);
    peer_input(p, &s);
    return iss;
}

#define FIRST (ISS + 1 + HELLO_BYTES) /* sequence number of the first byte behind the hello */

static void
test_data_is_acknowledged_for_every_second_segment(void **state)
{
    uint32_t iss = open_conn(ROLE_TX, 64);

    (void)state;
    expect(PEER_ACK, iss + 1, FIRST, 0);
    for (unsigned i = 0; i < 5; i++)
        send(PEER_ACK, FIRST + i * MSS, iss + 1, MSS);
    expect(PEER_ACK, iss + 1, FIRST + 2 * MSS, 0);
    expect(PEER_ACK, iss + 1, FIRST + 4 * MSS, 0);
    expect(PEER_ACK, iss + 1, FIRST + 5 * MSS, 0);
    expect_nothing();
}

static void
test_tx_ends_with_the_number_of_bytes(void **state)
{
    uint32_t iss = open_conn(ROLE_TX, 64);
    const uint8_t total[HELLO_TOTAL_BYTES] = { 0, 0, 0, 0, 0, 0, 0x03, 0xe8 };

    (void)state;
    send(PEER_ACK, FIRST, iss + 1, 1000);
    send(PEER_ACK | PEER_FIN, FIRST + 1000, iss + 1, 0);
    expect(PEER_ACK | PEER_PSH, iss + 1, FIRST + 1001, HELLO_TOTAL_BYTES);
    assert_true(r.has_payload);
    assert_memory_equal(r.payload, total, sizeof(total));
    expect(PEER_ACK | PEER_FIN, iss + 9, FIRST + 1001, 0);
    expect_nothing();
    assert_int_equal(peer_stats(p)->open, 1);
    send(PEER_ACK, FIRST + 1001, iss + 10, 0);
    expect_nothing();
    assert_int_equal(peer_stats(p)->open, 0);
}

static void
test_requests_are_answered_as_they_complete(void **state)
{
    uint32_t iss = open_conn(ROLE_RR, 100);

    (void)state;
    expect(PEER_ACK, iss + 1, FIRST, 0);
    send(PEER_ACK, FIRST, iss + 1, 60);
    expect(PEER_ACK, iss + 1, FIRST + 60, 0);
    send(PEER_ACK, FIRST + 60, iss + 1, 140);
    expect(PEER_ACK | PEER_PSH, iss + 1, FIRST + 200, 200);
    expect_nothing();
}

static void
test_crr_is_closed_from_here(void **state)
{
    uint32_t iss = open_conn(ROLE_CRR, 10);

    (void)state;
    send(PEER_ACK, FIRST, iss + 1, 10);
    expect(PEER_ACK | PEER_PSH, iss + 1, FIRST + 10, 10);
    expect(PEER_ACK | PEER_FIN, iss + 11, FIRST + 10, 0);
    send(PEER_ACK | PEER_FIN, FIRST + 10, iss + 12, 0);
    expect(PEER_ACK, iss + 12, FIRST + 11, 0);
    expect_nothing();
    assert_int_equal(peer_stats(p)->open, 0);
    /* No TIME-WAIT here: a late segment is refused. */
    send(PEER_ACK, FIRST + 11, iss + 12, 0);
    expect(PEER_RST, iss + 12, 0, 0);
}

static void
test_a_source_fills_the_window_and_no_more(void **state)
{
    uint32_t iss = open_conn(ROLE_RX, 64), sent = 0;

    (void)state;
    while (peer_output(p, &r)) {
        assert_int_equal(r.seq, iss + 1 + sent);
        sent += r.payload_bytes;
    }
    assert_int_equal(sent, WINDOW / MSS * MSS);
    send(PEER_ACK, FIRST, iss + 1 + 2 * MSS, 0);
    expect(PEER_ACK | PEER_PSH, iss + 1 + sent, FIRST, MSS);
    expect(PEER_ACK | PEER_PSH, iss + 1 + sent + MSS, FIRST, MSS);
    expect_nothing();
    /* The client has enough. */
    send(PEER_ACK | PEER_FIN, FIRST, iss + 1 + sent + 2 * MSS, 0);
    expect(PEER_ACK | PEER_FIN, iss + 1 + sent + 2 * MSS, FIRST + 1, 0);
    expect_nothing();
}

static void
test_what_overtakes_is_held_and_reported(void **state)
{
    uint32_t iss = open_conn(ROLE_TX, 64);

    (void)state;
    expect(PEER_ACK, iss + 1, FIRST, 0);
    send(PEER_ACK, FIRST + 100, iss + 1, 100);
    expect(PEER_ACK, iss + 1, FIRST, 0);
    assert_int_equal(r.nb_sacks, 1);
    send(PEER_ACK, FIRST + 300, iss + 1, 100);
    expect(PEER_ACK, iss + 1, FIRST, 0);
    assert_int_equal(r.nb_sacks, 2);
    assert_int_equal(r.sacks[0][0], FIRST + 300); /* the newest first */
    assert_int_equal(r.sacks[1][1], FIRST + 200);
    send(PEER_ACK, FIRST, iss + 1, 100);
    expect(PEER_ACK, iss + 1, FIRST + 200, 0);
    send(PEER_ACK, FIRST + 200, iss + 1, 100);
    expect(PEER_ACK, iss + 1, FIRST + 400, 0);
    assert_int_equal(r.nb_sacks, 0);
    assert_int_equal(peer_stats(p)->reordered, 2);
    send(PEER_ACK | PEER_FIN, FIRST + 400, iss + 1, 0);
    expect(PEER_ACK | PEER_PSH, iss + 1, FIRST + 401, HELLO_TOTAL_BYTES);
    assert_int_equal(r.payload[6] << 8 | r.payload[7], 400); /* each byte once */
}

static void
test_losses_are_sent_again(void **state)
{
    uint32_t iss = open_conn(ROLE_RX, 64);

    (void)state;
    while (peer_output(p, &r))
        ;
    for (unsigned i = 0; i < 3; i++)
        send(PEER_ACK, FIRST, iss + 1, 0);
    expect(PEER_ACK | PEER_PSH, iss + 1, FIRST, MSS);
    while (peer_output(p, &r))
        ;
    assert_int_equal(peer_stats(p)->resent, 1);
    /* All is lost again: time alone helps. */
    peer_tick(p, 1000);
    expect_nothing();
    peer_tick(p, 999 + PEER_RESEND_US);
    expect_nothing();
    peer_tick(p, 1000 + PEER_RESEND_US);
    expect(PEER_ACK | PEER_PSH, iss + 1, FIRST, MSS);
    assert_int_equal(peer_stats(p)->resent, 2);
}

static void
test_a_closed_window_is_probed(void **state)
{
    uint32_t iss = open_conn(ROLE_RX, 64);
    struct peer_segment s = segment(PEER_ACK, FIRST, iss + 1, 0);

    (void)state;
    s.window = 0;
    peer_input(p, &s);
    expect(PEER_ACK, iss + 1, FIRST, 0);
    expect_nothing();
    peer_tick(p, 1);
    peer_tick(p, 1 + PEER_RESEND_US);
    expect(PEER_ACK | PEER_PSH, iss + 1, FIRST, 1);
    expect_nothing();
}

static void
test_no_hello_no_table_space_no_connection(void **state)
{
    struct peer_segment s = segment(PEER_SYN, ISS, 0, 0);
    uint32_t iss;

    (void)state;
    /* Four fit. */
    for (uint16_t port = 0; port < 4; port++) {
        s.tuple.stack_port = (uint16_t)(port + 1);
        peer_input(p, &s);
        assert_true(peer_output(p, &r));
        assert_int_equal(r.flags, PEER_SYN | PEER_ACK);
    }
    iss = r.seq;
    s.tuple.stack_port = 5;
    peer_input(p, &s);
    assert_true(peer_output(p, &r));
    assert_int_equal(r.flags, PEER_RST | PEER_ACK);
    assert_int_equal(r.ack, ISS + 1);
    /* Sixteen bytes that are no hello. */
    s = segment(PEER_ACK, ISS + 1, iss + 1, HELLO_BYTES);
    s.tuple.stack_port = 4;
    memset(s.head, 'x', sizeof(s.head));
    peer_input(p, &s);
    assert_true(peer_output(p, &r));
    assert_int_equal(r.flags, PEER_RST | PEER_ACK);
    expect_nothing();
    assert_int_equal(peer_stats(p)->open, 3);
    /* A reset ends one, silently. */
    s = segment(PEER_RST, ISS + 1, 0, 0);
    s.tuple.stack_port = 3;
    peer_input(p, &s);
    expect_nothing();
    assert_int_equal(peer_stats(p)->open, 2);
}

static void
test_a_lost_handshake_is_begun_again(void **state)
{
    struct peer_segment s = segment(PEER_SYN, ISS, 0, 0);
    uint32_t iss;

    (void)state;
    peer_input(p, &s);
    assert_true(peer_output(p, &r));
    iss = r.seq;
    peer_input(p, &s);
    assert_true(peer_output(p, &r));
    assert_int_equal(r.flags, PEER_SYN | PEER_ACK);
    assert_int_equal(r.seq, iss);
    expect_nothing();
    /* The same ports with another number: the stack has forgotten the old connection. */
    s.seq = ISS + 777;
    peer_input(p, &s);
    assert_true(peer_output(p, &r));
    assert_int_equal(r.ack, ISS + 778);
    assert_int_equal(peer_stats(p)->open, 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_data_is_acknowledged_for_every_second_segment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tx_ends_with_the_number_of_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_requests_are_answered_as_they_complete, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crr_is_closed_from_here, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_source_fills_the_window_and_no_more, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_overtakes_is_held_and_reported, setup, teardown),
        cmocka_unit_test_setup_teardown(test_losses_are_sent_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_closed_window_is_probed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_hello_no_table_space_no_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_lost_handshake_is_begun_again, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
