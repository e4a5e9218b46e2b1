/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TEST_FRONT_STACK_H
#define TEST_FRONT_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sockets/shm.h"

/**
 * @file
 * A stack played in memory for the front-end's tests: the regions of sockets/shm.h, a thread that executes commands, and functions by which a test
 * does what the network would do. No TCP, no clock: bytes arrive and are acknowledged when the test says so.
 */

#define FS_ADDRESS "10.9.9.2"
#define FS_NETWORK_PEER "10.9.9.7"
#define FS_SOCKS 64u
#define FS_CHUNKS 24u
#define FS_SMALLS 16u
#define FS_SNDBUF_BYTES (4 * SHM_CHUNK_BYTES)
#define FS_PATTERN_BYTES (8 * SHM_CHUNK_BYTES)

/** What tests send: no two places of it look alike. */
extern char fs_pattern[FS_PATTERN_BYTES];

/** Start; the process is attached from now on. A test program does this once. */
void fs_start(void);
/** A teardown: what the network withholds is let go, then fs_assert_all_free. */
int fs_teardown(void **state);
/** Assert that every slot and chunk is free again, after the closed sockets have been reaped. */
void fs_assert_all_free(void);

/** Assert that a call failed, with this errno. */
void fs_assert_fails(ssize_t rc, int err);

/** The slot behind a descriptor. */
uint32_t fs_slot(int fd);
/** A connected socket: socket() and connect() to the network of the stack. */
int fs_connected(int type_flags);

/** What the network does. */
void fs_deliver(uint32_t slot, const void *data, size_t n, size_t segment_bytes);
void fs_fin(uint32_t slot);
void fs_error(uint32_t slot, int err);
void fs_incoming(uint32_t listener);
/** The peer acknowledges n bytes. */
void fs_ack(uint32_t slot, uint32_t n);
/** n more bytes have left for the first time. */
void fs_transmit(uint32_t slot, uint32_t n);
/** A byte was sent or acknowledged, at an instant of the stack's clock, which stands at 1. */
void fs_stamp(uint32_t slot, uint32_t pos, uint32_t kind, uint64_t at_us);
/** Copy what the application has sent from position pos on. */
void fs_sent(uint32_t slot, uint32_t pos, void *out, size_t n);
uint32_t fs_sent_bytes(uint32_t slot);
/** Connects are answered at once, or only by fs_connect_done. */
void fs_hold_connects(bool hold);
void fs_connect_done(uint32_t slot);

/** Hold the thread between two rounds (so that a test sees what stands in the rings), and let it go. */
void fs_pause(void);
void fs_resume(void);
/** While paused: how many notifications wait for it. */
unsigned fs_notifications(void);
/** A producer of all rings is between its two steps, i.e. it has taken its place and has not filled it; and is done, in favour of that socket. */
void fs_producer_begin(void);
void fs_producer_end(uint32_t slot);
/** Wait until it has serviced everything. */
void fs_settle(void);

/** Make an event queue overflow: events are counted as lost until the next call with false. */
void fs_lose_events(bool lose);
/** The value of the last SHM_OP_SETOPT of that name, or -1. */
int32_t fs_option(uint32_t name);
/** What SHM_OP_SETKEY brought last: it has none to take away. */
const struct shm_key *fs_key(void);
/** What SHM_OP_SETNAME chose last: it knows "cubic" and "dctcp". */
const char *fs_congestion(void);
/** The stack dies: its end of the control connection is closed. */
void fs_die(void);

#endif /* TEST_FRONT_STACK_H */
