/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TEST_SOUND_H
#define TEST_SOUND_H

#include "tcp/tcp.h"

/**
 * Assert what holds of a domain between two events, whatever has happened: each entry is where it can be found and nowhere else, what is counted is there, no
 * index leads to a free entry, sequence numbers are in order. While no thread is inside.
 */
void assert_domain_is_sound(const struct tcp_domain *d);

#endif /* TEST_SOUND_H */
