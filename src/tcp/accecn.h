/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_ACCECN_H
#define TCP_ACCECN_H

#include <stdbool.h>
#include <stdint.h>

#include "tcp/tcp.h"

/**
 * @file
 * More accurate ECN feedback (RFC 9768): a receiver counts the packets that came with a congestion mark and the payload that came with each
 * codepoint, and tells the counts in three bits of every header and, where there is room, in an option. Knows no connection.
 *
 * "ACE" is the number that the flags AE, CWR and ECE make.
 */

#define TCP_ACCECN_ACE_SHIFT 6 /**< of the three flags within struct tcp_out's and tcp_in's */
#define TCP_ACCECN_ACE_MAX 7u

/** The IP-ECN field as codepoints (RFC 3168 section 5). */
enum tcp_ecn_codepoint { TCP_ECN_NOT_ECT, TCP_ECN_ECT1, TCP_ECN_ECT0, TCP_ECN_CE };

/** What of the peer's option was seen so far; the numbers are those of Linux's TCP_INFO. */
enum tcp_accecn_seen { TCP_ACCECN_NOT_SEEN, TCP_ACCECN_EMPTY_SEEN, TCP_ACCECN_COUNTERS_SEEN, TCP_ACCECN_ZEROED };

struct tcp_accecn {
    uint32_t r_cep; /**< CE-marked packets received, counted from 5 (section 3.2.1) */
    uint32_t r_bytes[TCP_ACCECN_FIELDS]; /**< payload received with ECT(1), CE and ECT(0), from 1, 0 and 1 */
    uint32_t s_cep; /**< the peer's count of ours, as far as it is known */
    uint32_t s_bytes[TCP_ACCECN_FIELDS];
    uint32_t delivered_ce; /**< packets of ours that were marked, the handshake's included */
    uint32_t ts_seen; /**< timestamp of the last feedback that counted */
    uint8_t untold; /**< CE marks that no ACK has told of */
    uint8_t last; /**< codepoint of the packet before */
    uint8_t changed; /**< set of the r_bytes that no option has told of */
    uint8_t syn; /**< codepoint of the peer's latest SYN */
    uint8_t reply; /**< ACE of the next pure ACK where it answers a SYN-ACK (section 3.2.2.1), else 0 */
    uint8_t seen; /**< enum tcp_accecn_seen */
    uint8_t lost; /**< ACKs with the option after which the data that they acknowledge came again */
    bool syn_ack_ce : 1; /**< a SYN-ACK with a mark is counted in r_cep */
    bool syn_again : 1; /**< the peer's SYN came more than once */
    bool third_ack_due : 1; /**< our SYN-ACK's acknowledgement is to be read in its own way */
    bool ace_seen : 1; /**< an ACE that counts has come */
};

void tcp_accecn_init(struct tcp_accecn *a);

/** How a SYN-ACK's flags, and the ACE that acknowledges a SYN-ACK, say which codepoint arrived (tables 2 and 3). */
uint8_t tcp_accecn_encode(enum tcp_ecn_codepoint cp);

/** The other way round; an ACE that says nothing counts as `sent`. */
enum tcp_ecn_codepoint tcp_accecn_decode(unsigned ace, enum tcp_ecn_codepoint sent);

/** No router may change what was sent into what arrived (RFC 3168 section 18). */
bool tcp_accecn_is_mangled(enum tcp_ecn_codepoint sent, enum tcp_ecn_codepoint arrived);

/**
 * A packet has arrived with payload_bytes and this IP-ECN field. unacked: there is data, this packet's included, that was not acknowledged
 * yet. Returns whether an acknowledgement is due at once (section 3.2.2.5.1).
 */
bool tcp_accecn_received(struct tcp_accecn *a, enum tcp_ecn_codepoint cp, uint32_t payload_bytes, bool unacked);

/** Whether so many marks are untold that the acknowledgement may not wait for a burst's end. */
bool tcp_accecn_is_due(const struct tcp_accecn *a);

/** The flags of a segment that is sent now, which tells of everything up to here. pure: an ACK without payload, SACK blocks and FIN. */
uint16_t tcp_accecn_flags(struct tcp_accecn *a, bool pure);

/**
 * Put the option beside what is in o already, at the cost of SACK blocks beyond the second (section 3.2.3.3): as many counters as there is
 * room for, or none if one that has changed would be left out.
 */
void tcp_accecn_option(struct tcp_accecn *a, struct tcp_options *o);

/** The option of a handshake's segment, as it arrived or did not arrive (sections 3.2.3.2.3 and 3.2.3.2.4). */
void tcp_accecn_first_option(struct tcp_accecn *a, const struct tcp_options *o);

/** What an acknowledgement has delivered, so far as it bears on its ECN feedback. */
struct tcp_accecn_ack {
    uint32_t segs, bytes, mss_bytes;
    bool progress; /**< it acknowledges something new, by SACK too */
};

/** What it tells: how many of our packets and bytes were marked. */
struct tcp_accecn_news {
    uint32_t ce_pkts, ce_bytes;
    bool has_bytes; /**< ce_bytes is the peer's word; else it is to be estimated */
};

/** Read an ACE, and an option if there is one, unless a later segment's has been read before (sections 3.2.2.2, 3.2.2.5.2, 3.2.3.1). */
void tcp_accecn_feedback(struct tcp_accecn *a, unsigned ace, const struct tcp_options *o,
                         const struct tcp_accecn_ack *ack, struct tcp_accecn_news *n);

/** Bytes that the option takes of every segment, padding included. */
#define TCP_ACCECN_OPTION_BYTES 12u

#endif /* TCP_ACCECN_H */
