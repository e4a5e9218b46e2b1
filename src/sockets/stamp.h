/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_STAMP_H
#define SOCKETS_STAMP_H

#include "sockets/backend.h"

/**
 * @file
 * When bytes left, and when they were acknowledged, for the applications that ask (SO_TIMESTAMPING): "Stamps" in shm.h. A socket that never asks has no memory here.
 */

/** The application has appended n_bytes up to sk->tx_tail and set `flags`: is one of them to be stamped? Before the engine hears of them. */
void stamp_request(struct stack *s, struct sock *sk, uint32_t flags, uint32_t n_bytes);

/** tx_sent, or tx_acked, has moved. With sock_more.stamps, and the send buffer's lock. */
void stamp_on_sent(struct stack *s, struct sock *sk);
void stamp_on_acked(struct stack *s, struct sock *sk);

#endif /* SOCKETS_STAMP_H */
