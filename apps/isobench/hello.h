/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOBENCH_HELLO_H
#define ISOBENCH_HELLO_H

#include <stdint.h>

/**
 * @file
 * The first bytes that a client sends on each connection: what the server is to do on it.
 *
 *   rr    answer each message with one of the same size, until the client's FIN
 *   tx    take bytes until the client's FIN, then answer with their number (8 bytes, network order) and close
 *   rx    send messages until the client closes
 *   crr   answer one message with one of the same size, and close
 *   idle  hold the connection until the client closes
 */

enum role { ROLE_RR, ROLE_TX, ROLE_RX, ROLE_CRR, ROLE_IDLE, ROLE_COUNT };

#define HELLO_BYTES 16u
#define HELLO_TOTAL_BYTES 8u /**< the answer of tx */
#define HELLO_SIZE_MAX (64u << 20)

struct hello {
    enum role role;
    uint32_t size_bytes; /**< of a message, 1 to HELLO_SIZE_MAX */
};

extern const char *const role_names[ROLE_COUNT];

void hello_write(const struct hello *hello, uint8_t out[HELLO_BYTES]);

/** Returns 0, or -1 if these bytes are no hello of this version, or its role or size is out of range. */
int hello_read(struct hello *hello, const uint8_t in[HELLO_BYTES]);

#endif /* ISOBENCH_HELLO_H */
