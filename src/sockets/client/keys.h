/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_KEYS_H
#define SOCKETS_CLIENT_KEYS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/**
 * @file
 * TCP_MD5SIG, TCP_MD5SIG_EXT and TCP_FASTOPEN_KEY. The kernel gives no key of the first two back, so those that a socket was given while it was the kernel's are kept with its object
 * until it changes sides.
 */

struct obj;
struct key_note;

/** An option of IPPROTO_TCP that is a key? */
bool keys_is_one(int name);
/** 0 or -errno, as Linux has it. */
int keys_set(struct obj *o, int name, const void *val, socklen_t len);
int keys_get_fastopen(uint32_t slot, void *val, socklen_t *len);

/** The kernel has taken it. 0 or -ENOMEM. */
int keys_note(struct obj *o, int name, const void *val, socklen_t len);
/** What was noted is set. 0 or -errno: a socket without its keys would speak to the wrong people. */
int keys_carry_over(const struct obj *o, uint32_t slot);
void keys_forget(struct obj *o);

#endif /* SOCKETS_CLIENT_KEYS_H */
