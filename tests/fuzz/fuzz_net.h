/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FUZZ_FUZZ_NET_H
#define TESTS_FUZZ_FUZZ_NET_H

#include "back_net.h"
#include "input.h"

/**
 * @file
 * back_net's two stacks for many inputs: ports and pools are made once, stacks for each input, so that an input means the same whatever
 * came before it.
 */

/** The EAL, ports and pools; cmocka's checks abort from now on. */
void fuzz_net_start(struct lan *lan);

/** Fresh stacks at the same instant, counters zero. */
void fuzz_net_begin(struct lan *lan);

/**
 * End both stacks. silent: node 1 has not been polled, so that only node 0's must be empty, once everything has timed out. Checks that each packet
 * buffer is back, and that the engines knew each change of state.
 */
void fuzz_net_end(struct lan *lan, bool silent);

/** Poll node 0 alone until the clock has passed by us; what it sends is lost. */
void fuzz_net_run_alone(struct lan *lan, uint64_t us);

#endif /* TESTS_FUZZ_FUZZ_NET_H */
