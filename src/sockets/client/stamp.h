/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_STAMP_H
#define SOCKETS_CLIENT_STAMP_H

#include <stdbool.h>

#include "sock.h"

/**
 * @file
 * SO_TIMESTAMPING, SO_TIMESTAMP and SO_TIMESTAMPNS: when bytes arrived, were sent and were acknowledged, by CLOCK_REALTIME.
 */

/** setsockopt: 0, -EINVAL, -EOPNOTSUPP (a PHC: there is no hardware clock); -ENOPROTOOPT for any other name. */
int stamp_set(uint32_t slot, int name, const void *val, socklen_t len);
/** The slot has a new user, who inherits settings. */
void stamp_begin(uint32_t slot);
/** getsockopt, as far as its value goes: its length in bytes, or -ENOPROTOOPT. */
int stamp_get(uint32_t slot, int name, int32_t value[2]);
/** The kernel's socket fd changes sides: its settings. */
void stamp_carry_over(int fd, uint32_t slot);

/** SHM_TX_STAMP_* that a send asks for. */
uint32_t stamp_wanted(uint32_t slot);
/** Answers wait in the error queue. */
bool stamp_is_untold(uint32_t slot);
/** Take the oldest of them and put it into msg (NULL: drop it). 0 or -EAGAIN. */
int stamp_take(uint32_t slot, struct msghdr *msg);

/** Whether recvmsg tells when bytes arrived; put that (at_us: of shm_segment) into msg, whose msg_control has `room`. */
bool stamp_arrivals(uint32_t slot);
void stamp_put_arrival(uint32_t slot, struct msghdr *msg, size_t room, uint32_t at_us);

/** Append a control message: msg_controllen counts what is taken of room; MSG_CTRUNC without enough. */
void cmsg_append(struct msghdr *msg, size_t room, int level, int type, const void *data, size_t len);

#endif /* SOCKETS_CLIENT_STAMP_H */
