/* SPDX-License-Identifier: BSD-3-Clause */
#include "fixture.h"

#include <stdio.h>

static const struct rte_ether_addr all = { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } };
static const struct rte_ether_addr zero;

/** The i-th frame sent is this ARP packet of ours. */
static void
assert_arp_sent(unsigned i, uint16_t op, const struct rte_ether_addr *to, const struct rte_ether_addr *tha,
                const char *tip)
{
    uint8_t expect[42];

    assert_true(i < fx.nb_sent);
    build_arp(expect, op, to, &mac_us, US, tip);
    memcpy(expect + 32, tha, 6);
    assert_int_equal(fx.sent[i].len, sizeof(expect));
    assert_memory_equal(fx.sent[i].bytes, expect, sizeof(expect));
}

static void
feed_arp(uint16_t op, const struct rte_ether_addr *eth_dst, const struct rte_ether_addr *sha, const char *sip,
         const char *tip)
{
    uint8_t frame[42];
    struct ip_packet out;

    assert_int_equal(feed(frame, build_arp(frame, op, eth_dst, sha, sip, tip), &out), 0);
}

/** The neighbour's state as the tools see it; "" if there is none. */
static const char *
state_of(const char *who)
{
    static struct ip_neighbour n[NEIGH_MAX];
    unsigned count = ip_neighbours(fx.ip, n, NEIGH_MAX, fx.now_us);
    struct ip_addr a = addr(who);
    unsigned i;

    for (i = 0; i < count; i++) {
        if (ip_addr_equal(&n[i].addr, &a)) {
            return n[i].state;
        }
    }
    return "";
}

static int
send_to(const char *dst)
{
    return send_tcp(tcp_out(20, 10, 0), dst, 0, 20);
}

static void
announces_itself_twice(void **state)
{
    const struct ip_ops ops = { .unreachable = NULL };
    const struct ip_config cfg = { .addr = addr(US), .prefix_len = 24 };

    (void)state;
    ip_destroy(fx.ip);
    fx.ip = ip_create(&cfg, &fx.q, &fx.ctr, &ops, NULL);
    assert_true(ip_next_us(fx.ip, fx.now_us) <= fx.now_us);
    ip_tick(fx.ip, fx.now_us);
    assert_int_equal(fx.nb_sent, 1);
    assert_arp_sent(0, 1, &all, &zero, US);
    assert_int_equal(ip_next_us(fx.ip, fx.now_us), fx.now_us + 2 * S_US);
    advance(100 * S_US);
    assert_int_equal(fx.nb_sent, 2);
    assert_arp_sent(1, 1, &all, &zero, US);
    assert_int_equal(ip_next_us(fx.ip, fx.now_us), UINT64_MAX); /* an idle stack may sleep for ever */
}

static void
answers_requests_and_probes(void **state)
{
    (void)state;
    feed_arp(1, &all, &mac_peer, PEER, US);
    assert_int_equal(fx.nb_sent, 1);
    assert_arp_sent(0, 2, &mac_peer, &mac_peer, PEER);
    assert_string_equal(state_of(PEER), "stale");
    forget_sent();

    feed_arp(1, &all, &mac_other, "0.0.0.0", US); /* RFC 5227 probe */
    assert_int_equal(fx.nb_sent, 1);
    assert_arp_sent(0, 2, &mac_other, &mac_other, "0.0.0.0");
    assert_string_equal(state_of("0.0.0.0"), "");
    forget_sent();

    feed_arp(1, &all, &mac_other, "10.0.0.9", "10.0.0.77"); /* for somebody else */
    assert_int_equal(fx.nb_sent, 0);
    assert_string_equal(state_of("10.0.0.9"), "");

    feed_arp(1, &all, &mac_other, "192.0.2.9", US); /* off link: answered, not learnt */
    assert_int_equal(fx.nb_sent, 1);
    assert_string_equal(state_of("192.0.2.9"), "");
    assert_int_equal(counter(CTR_ARP_RX), 4);
    assert_int_equal(counter(CTR_ARP_TX), 3);
}

static void
resolves_and_sends_what_waited(void **state)
{
    unsigned i;

    (void)state;
    for (i = 0; i < 3; i++) {
        assert_int_equal(send_tcp(tcp_out(20, 100 + i, 0), PEER, 0, 20), 0);
    }
    assert_int_equal(fx.nb_sent, 1); /* one question */
    assert_arp_sent(0, 1, &all, &zero, PEER);
    assert_string_equal(state_of(PEER), "incomplete");
    forget_sent();
    feed_arp(2, &mac_us, &mac_peer, PEER, US);
    assert_int_equal(fx.nb_sent, 3);
    for (i = 0; i < 3; i++) {
        assert_int_equal(fx.sent[i].len, 54 + 100 + i); /* in order */
        assert_memory_equal(fx.sent[i].bytes, &mac_peer, 6);
        assert_true(frame_checksums_ok(fx.sent[i].bytes, fx.sent[i].len));
    }
    assert_string_equal(state_of(PEER), "reachable");
    forget_sent();
    assert_int_equal(send_to(PEER), 0);
    assert_int_equal(fx.nb_sent, 1);
    assert_memory_equal(fx.sent[0].bytes, &mac_peer, 6);
    advance(5 * S_US);
    assert_int_equal(fx.nb_sent, 1);
    assert_int_equal(ip_next_us(fx.ip, fx.now_us), UINT64_MAX);
}

static void
oversized_packets_wait_uncut(void **state)
{
    (void)state;
    assert_int_equal(send_tcp(tcp_out(20, 4000, 0), PEER, 1460, 20), 0);
    forget_sent();
    feed_arp(2, &mac_us, &mac_peer, PEER, US);
    assert_int_equal(fx.nb_sent, 3);
    assert_memory_equal(fx.sent[2].bytes, &mac_peer, 6);
    assert_true(frame_checksums_ok(fx.sent[2].bytes, fx.sent[2].len));
}

static void
queue_keeps_the_newest(void **state)
{
    unsigned i;

    (void)state;
    for (i = 0; i < NEIGH_QUEUE + 5; i++) {
        assert_int_equal(send_tcp(tcp_out(20, i, 0), PEER, 0, 20), 0);
    }
    assert_int_equal(counter(CTR_ARP_DROP_QUEUE_FULL), 5);
    forget_sent();
    feed_arp(2, &mac_us, &mac_peer, PEER, US);
    assert_int_equal(fx.nb_sent, NEIGH_QUEUE);
    assert_int_equal(fx.sent[0].len, 54 + 5);
    assert_int_equal(fx.sent[NEIGH_QUEUE - 1].len, 54 + NEIGH_QUEUE + 4);
}

static void
gives_up_after_three_requests(void **state)
{
    struct ip_addr gone = addr("192.0.2.1");
    struct ip_addr gateway = addr(GATEWAY);

    (void)state;
    assert_int_equal(send_to("192.0.2.1"), 0);
    assert_int_equal(send_to("192.0.2.1"), 0);
    assert_int_equal(send_to(GATEWAY), 0);
    assert_int_equal(fx.nb_sent, 1);
    advance(S_US - 1);
    assert_int_equal(fx.nb_sent, 1);
    advance(1);
    assert_int_equal(fx.nb_sent, 2);
    advance(S_US);
    assert_int_equal(fx.nb_sent, 3);
    assert_arp_sent(2, 1, &all, &zero, GATEWAY);
    assert_int_equal(fx.nb_no_neighbour, 0);
    advance(S_US);
    assert_int_equal(fx.nb_sent, 3);
    assert_string_equal(state_of(GATEWAY), "failed");
    assert_int_equal(counter(CTR_ARP_DROP_UNRESOLVED), 3);
    assert_int_equal(fx.nb_no_neighbour, 2); /* each destination once */
    assert_true(ip_addr_equal(&fx.no_neighbour[0], &gone));
    assert_true(ip_addr_equal(&fx.no_neighbour[1], &gateway));
    assert_int_equal(ip_next_us(fx.ip, fx.now_us), UINT64_MAX);

    assert_int_equal(send_to("192.0.2.1"), -EHOSTUNREACH);
    assert_int_equal(counter(CTR_ARP_DROP_UNRESOLVED), 4);
    advance(S_US);
    assert_int_equal(send_to("192.0.2.1"), 0); /* asks again */
    assert_int_equal(fx.nb_sent, 4);
    feed_arp(2, &mac_us, &mac_peer, GATEWAY, US);
    assert_int_equal(fx.nb_sent, 5);
    assert_memory_equal(fx.sent[4].bytes, &mac_peer, 6);
}

static void
failed_neighbour_that_speaks_is_back(void **state)
{
    (void)state;
    assert_int_equal(send_to(PEER), 0);
    advance(3 * S_US);
    assert_int_equal(send_to(PEER), -EHOSTUNREACH);
    forget_sent();
    feed_arp(1, &all, &mac_peer, PEER, PEER); /* it announces itself */
    assert_string_equal(state_of(PEER), "stale");
    assert_int_equal(send_to(PEER), 0);
    assert_int_equal(fx.nb_sent, 2);
}

static void
ages_and_probes_when_used(void **state)
{
    (void)state;
    learn(PEER, &mac_peer);
    advance(30 * S_US - 1);
    assert_int_equal(send_to(PEER), 0);
    assert_int_equal(fx.nb_sent, 1);
    assert_string_equal(state_of(PEER), "reachable");
    advance(1);
    assert_string_equal(state_of(PEER), "stale");
    advance(3600 * S_US);
    assert_int_equal(fx.nb_sent, 1); /* unused: nobody asks */
    forget_sent();

    assert_int_equal(send_to(PEER), 0);
    assert_int_equal(fx.nb_sent, 2); /* the question, to the station alone, and the packet */
    assert_arp_sent(0, 1, &mac_peer, &zero, PEER);
    assert_memory_equal(fx.sent[1].bytes, &mac_peer, 6);
    assert_string_equal(state_of(PEER), "probe");
    assert_int_equal(send_to(PEER), 0);
    assert_int_equal(fx.nb_sent, 3); /* no second question yet */
    feed_arp(2, &mac_us, &mac_peer, PEER, US);
    assert_string_equal(state_of(PEER), "reachable");
    assert_int_equal(ip_next_us(fx.ip, fx.now_us) > fx.now_us, 1);
    advance(29 * S_US);
    assert_int_equal(fx.nb_sent, 3);
}

static void
probe_without_answer_forgets(void **state)
{
    (void)state;
    learn(PEER, &mac_peer);
    advance(31 * S_US);
    assert_int_equal(send_to(PEER), 0);
    advance(3 * S_US);
    assert_int_equal(fx.nb_sent, 4); /* three questions and the packet */
    assert_arp_sent(3, 1, &mac_peer, &zero, PEER);
    assert_string_equal(state_of(PEER), "");
    forget_sent();
    assert_int_equal(send_to(PEER), 0); /* also through the cache of next hops */
    assert_int_equal(fx.nb_sent, 1);
    assert_arp_sent(0, 1, &all, &zero, PEER);
    feed_arp(2, &mac_us, &mac_other, PEER, US);
    assert_memory_equal(fx.sent[1].bytes, &mac_other, 6);
}

static void
follows_a_station_that_moves(void **state)
{
    (void)state;
    learn(PEER, &mac_peer);
    feed_arp(1, &all, &mac_other, PEER, PEER); /* gratuitous */
    assert_string_equal(state_of(PEER), "stale");
    assert_int_equal(send_to(PEER), 0);
    assert_memory_equal(fx.sent[fx.nb_sent - 1].bytes, &mac_other, 6);
    assert_arp_sent(0, 1, &mac_other, &zero, PEER);
    feed_arp(1, &all, &mac_other, PEER, PEER); /* the same again proves nothing */
    assert_string_equal(state_of(PEER), "probe");
}

static void
defends_its_address_with_measure(void **state)
{
    unsigned i;

    (void)state;
    for (i = 0; i < 5; i++) {
        feed_arp(1, &all, &mac_other, US, US);
    }
    assert_int_equal(counter(CTR_ARP_CONFLICT), 5);
    assert_int_equal(fx.nb_sent, 1);
    assert_arp_sent(0, 1, &all, &zero, US);
    feed_arp(1, &all, &mac_us, US, US); /* our own, reflected */
    assert_int_equal(counter(CTR_ARP_CONFLICT), 5);
    advance(10 * S_US);
    feed_arp(2, &mac_us, &mac_other, US, PEER);
    assert_int_equal(fx.nb_sent, 2);
}

static void
malformed_packets_are_counted(void **state)
{
    static const struct {
        uint8_t at, value;
    } rows[] = { { 15, 2 }, { 16, 9 }, { 18, 5 }, { 19, 16 }, { 21, 0 }, { 21, 3 }, { 20, 1 }, { 22, 0x03 } };
    uint8_t frame[42];
    struct ip_packet out;
    unsigned i;

    (void)state;
    for (i = 0; i < RTE_DIM(rows); i++) {
        build_arp(frame, 1, &all, &mac_peer, PEER, US);
        frame[rows[i].at] = rows[i].value;
        assert_int_equal(feed(frame, 42, &out), 0);
        assert_int_equal(counter(CTR_ARP_DROP_MALFORMED), i + 1);
    }
    build_arp(frame, 1, &all, &mac_peer, PEER, US);
    memset(frame + 22, 0, 6); /* a sender without address */
    assert_int_equal(feed(frame, 42, &out), 0);
    build_arp(frame, 1, &all, &mac_peer, PEER, US);
    assert_int_equal(feed(frame, 41, &out), 0);
    assert_int_equal(counter(CTR_ARP_DROP_MALFORMED), RTE_DIM(rows) + 2);
    assert_int_equal(fx.nb_sent, 0);
    assert_int_equal(counter(CTR_ARP_RX), 0);
}

/** More senders than places: old ones go, the one in use stays, packets that waited for one that goes are counted. */
static void
table_is_bounded(void **state)
{
    struct ip_neighbour n[NEIGH_MAX + 1];
    char who[20];
    unsigned i;

    (void)state;
    assert_int_equal(ip_route_add(fx.ip, &(struct ip_route){ .prefix = addr("10.8.0.0"), .prefix_len = 16 }), 0);
    learn(PEER, &mac_peer);
    for (i = 0; i < 2 * NEIGH_MAX; i++) {
        snprintf(who, sizeof(who), "10.8.%u.%u", i / 200, i % 200 + 1);
        fx.now_us++;
        feed_arp(1, &all, &mac_other, who, US);
        forget_sent();
    }
    assert_int_equal(ip_neighbours(fx.ip, n, NEIGH_MAX + 1, fx.now_us), NEIGH_MAX);
    assert_string_equal(state_of(PEER), "reachable");
    assert_string_equal(state_of("10.8.0.1"), "");
    assert_string_equal(state_of(who), "stale");
    for (i = 0; i < NEIGH_MAX + 10; i++) { /* now each place is waited for */
        snprintf(who, sizeof(who), "10.8.%u.%u", 7 + i / 200, i % 200 + 1);
        fx.now_us++;
        assert_int_equal(send_to(who), 0);
        forget_sent();
    }
    assert_int_equal(counter(CTR_ARP_DROP_TABLE_FULL), 10);
    assert_string_equal(state_of("10.8.7.1"), "");
    assert_string_equal(state_of(who), "incomplete");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(announces_itself_twice),
        FIXTURE_TEST(answers_requests_and_probes),
        FIXTURE_TEST(resolves_and_sends_what_waited),
        FIXTURE_TEST(oversized_packets_wait_uncut),
        FIXTURE_TEST(queue_keeps_the_newest),
        FIXTURE_TEST(gives_up_after_three_requests),
        FIXTURE_TEST(failed_neighbour_that_speaks_is_back),
        FIXTURE_TEST(ages_and_probes_when_used),
        FIXTURE_TEST(probe_without_answer_forgets),
        FIXTURE_TEST(follows_a_station_that_moves),
        FIXTURE_TEST(defends_its_address_with_measure),
        FIXTURE_TEST(malformed_packets_are_counted),
        FIXTURE_TEST(table_is_bounded),
    };

    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
