/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_COPY_H
#define TCP_COPY_H

#include "tcp/tcp.h"

/**
 * @file
 * A domain as bytes: snapshot and comparison. A domain's arena is as long as its capacity, but pools have been touched up to their high-water marks
 * alone; only that is read or written here. Nobody is inside either domain.
 */

/** Make `to` equal to `from`: both were initialised with the same parameters. */
void tcp_domain_copy(struct tcp_domain *to, const struct tcp_domain *from);

/** Are they equal, byte for byte? */
bool tcp_domain_equal(const struct tcp_domain *a, const struct tcp_domain *b);

/** A number that equal domains share, and others hardly ever. No protection against who wants to deceive. */
uint64_t tcp_domain_digest(const struct tcp_domain *d);

#endif /* TCP_COPY_H */
