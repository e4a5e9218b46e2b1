/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_UNIT_IP_FIXTURE_H
#define TESTS_UNIT_IP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ip/ip_internal.h"

/**
 * @file
 * An internet layer over a port that records what it is given. Real pools, virtual time. We are 10.0.0.2/24 with MAC
 * 02:00:00:00:00:02; the gateway is 10.0.0.254. Tear-down asserts that each buffer is back in its pool.
 */

#define POOL_COUNT 1023u
#define SENT_MAX 512u
#define FRAME_MAX 66000u
#define START_US UINT64_C(1000000)
#define S_US UINT64_C(1000000)

#define US "10.0.0.2"
#define PEER "10.0.0.1"
#define GATEWAY "10.0.0.254"

/** A frame that the port was given. */
struct sent {
    uint8_t *bytes; /**< on the heap */
    uint32_t len;
    uint64_t ol_flags;
    uint16_t l2_len, l3_len, l4_len, tso_segsz, nb_segs;
    bool from_rx_pool;
    bool attached; /**< some segment's data is not its own */
};

struct fixture {
    struct pktpool pool;
    struct port port;
    struct port_queue q;
    struct counters ctr;
    struct ip_ctx *ip;
    uint64_t now_us;
    struct sent sent[SENT_MAX];
    unsigned nb_sent; /**< since the last forget_sent */
    struct ip_unreachable unreachable;
    unsigned nb_unreachable;
    struct ip_addr no_neighbour[NEIGH_QUEUE]; /**< the first ones */
    unsigned nb_no_neighbour;
};

extern struct fixture fx;
extern const struct rte_ether_addr mac_us, mac_peer, mac_other;

int fixture_group_setup(void **state); /**< EAL and pools */
int fixture_group_teardown(void **state);
int fixture_setup(void **state); /**< a fresh context, announcements done and forgotten */
int fixture_teardown(void **state);

#define FIXTURE_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

uint32_t be_addr(const char *text);
struct ip_addr addr(const char *text);
uint64_t counter(enum counter_id id);
void forget_sent(void);
/** Move time forward to each instant that the context asks for, up to now + us. */
void advance(uint64_t us);

/** Sum in the plainest way: 0 over data that contains its own right checksum. */
uint16_t reference_sum(const uint8_t *data, size_t len, uint32_t start);
/** Does the frame carry right IPv4 and TCP checksums? */
bool frame_checksums_ok(const uint8_t *frame, uint32_t len);

/** An mbuf of the receive pool (a chain where len exceeds seg_bytes); seg_bytes 0 = as few segments as possible. */
struct rte_mbuf *mbuf_of(const void *bytes, uint32_t len, uint16_t seg_bytes);
/** Feed one frame; returns how many TCP packets came out (0 or 1), in *out. */
uint16_t feed(const void *frame, uint32_t len, struct ip_packet *out);

/** Write an IPv4 packet in an Ethernet frame from peer to us, checksum included. Returns the frame's length. */
uint32_t build_ipv4(uint8_t *frame, const char *src, const char *dst, uint8_t proto, const void *l4, uint32_t l4_len);
/** Write a TCP segment of data_len bytes with its checksum for src, dst; returns its length. */
uint32_t build_tcp(uint8_t *l4, const char *src, const char *dst, uint16_t sport, uint16_t dport, uint32_t data_len);
/** Fix the IPv4 header checksum after a change. */
void fix_ipv4_checksum(uint8_t *frame);
/** Write an ARP frame; returns its length (42). */
uint32_t build_arp(uint8_t *frame, uint16_t op, const struct rte_ether_addr *eth_dst, const struct rte_ether_addr *sha,
                   const char *sip, const char *tip);
/** The peer answers: afterwards it is a reachable neighbour. Forgets what was sent. */
void learn(const char *peer, const struct rte_ether_addr *mac);

/** A TCP segment to send: the header in a transmit buffer, payload attached in pieces of seg_bytes (0 = one). */
struct rte_mbuf *tcp_out(uint16_t hdr_len, uint32_t payload_len, uint16_t seg_bytes);
/** ip_output from us to dst. */
int send_tcp(struct rte_mbuf *m, const char *dst, uint16_t gso_size, uint16_t hdr_len);
/** What byte i of the payload of tcp_out is. */
uint8_t payload_byte(uint32_t i);

#endif /* TESTS_UNIT_IP_FIXTURE_H */
