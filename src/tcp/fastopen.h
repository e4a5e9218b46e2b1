/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_FASTOPEN_H
#define TCP_FASTOPEN_H

#include "tcp/domain.h"

/**
 * @file
 * TCP Fast Open (RFC 7413): what a client remembers of its peers, and what a server's cookies are. Private to src/tcp.
 *
 * A server keeps nothing for a cookie: it is a keyed hash of both addresses. A client keeps one entry for each pair of addresses
 * in a table of fixed size, where a newer pair takes the place of an older one. It is read and written under the table's guard (tcp/guard.h): only what
 * starts a connection asks it, and only a SYN-ACK, which keeps that guard, tells it anything.
 */

/** Entries of the client's table: a power of two. */
#define FASTOPEN_CACHE_ENTRIES 1024u

struct tcp_fo_entry {
    struct ip_addr local, remote;
    uint32_t loss_tick; /**< when a SYN with data was last lost */
    uint16_t
        mss; /**< the peer's MSS option: bounds the data of the next SYN (RFC 7413 section 4.1.3); 0 = unused entry */
    uint8_t syn_losses; /**< in a row */
    uint8_t exp_try; /**< 0 ask by option 34; 1 by the experimental one, as the former was ignored; 2 both were */
    struct tcp_fo_cookie cookie; /**< len 0 = none */
    uint8_t pad[2];
};
_Static_assert(sizeof(struct tcp_fo_entry) == 60, "no padding: replicas are compared by bytes");

/** The entry of this pair, or NULL. */
const struct tcp_fo_entry *fastopen_entry(const struct tcp_domain *d, const struct tcp_tuple *t);

/** Note what a SYN-ACK tells about the peer: RFC 7413 section 4.1.3. o: the SYN-ACK's options, NULL if
 *  our SYN had no option that asked for a cookie, so that none is believed. syn_lost: the SYN with data was lost, or is
 *  believed to be. */
void fastopen_learn(struct tcp_domain *d, const struct tcp_tuple *t, uint16_t mss, const struct tcp_options *o,
                    uint8_t exp_try, bool syn_lost);

/** SYNs with data to this peer have been lost again and again: send none for a while (section 4.1.3.1). */
bool fastopen_is_suspended(const struct tcp_domain *d, const struct tcp_fo_entry *e);

/** tcp_fastopen_ready, with the table held. */
bool fastopen_is_ready(const struct tcp_domain *d, const struct tcp_tuple *t, const struct tcp_sockopts *opts);

void fastopen_keys_set(struct tcp_fo_keys *k, unsigned n, const uint8_t keys[][TCP_FASTOPEN_KEY_BYTES]);

/** Server: the cookie of this pair under the first key of the listener, of the domain where that has none or is gone (NULL). */
void fastopen_cookie(const struct tcp_domain *d, const struct tcp_listener *l, const struct tcp_tuple *t,
                     struct tcp_fo_cookie *cookie);

/** What a listener makes of a SYN. */
enum fastopen_verdict {
    FASTOPEN_IGNORE, /**< an ordinary handshake */
    FASTOPEN_OFFER, /**< an ordinary handshake, whose SYN-ACK brings a cookie */
    FASTOPEN_ACCEPT, /**< a connection at once, with the SYN's data */
    FASTOPEN_RENEW, /**< the same, and the SYN-ACK brings a new cookie: it showed one of a key that is on its way out */
};
enum fastopen_verdict fastopen_judge(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_listener *l,
                                     const struct tcp_in *in);

/** A listener's child counts as pending no more: its SYN-ACK is acknowledged, or it has ended. */
void fastopen_child_done(struct tcp_domain *d, struct tcp_conn *c);

#endif /* TCP_FASTOPEN_H */
