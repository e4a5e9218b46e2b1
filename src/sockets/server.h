/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_SERVER_H
#define SOCKETS_SERVER_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "sockets/stack.h"

/**
 * @file
 * The control socket's server (protocol: sockets/control.h): attaches applications to a host, follows their processes, releases
 * what the dead ones held, and answers the tools. It runs in a thread of its own and touches the stack by host_call alone.
 */

struct server_config {
    const char *path; /**< of the socket file, shorter than 108 bytes; copied */
    mode_t file_mode; /**< who may attach; 0 = 0600 */
    struct host *host; /**< outlives the server */
    uint32_t rings_per_instance; /**< mode_ops.rings_per_instance: 0 = one for each CPU */
    uint32_t max_socks; /**< per application; 0 = 65536 */
    uint32_t tx_chunks; /**< of 64 KiB, per application; memory is taken as it is used; 0 = 4096 */

    /**
     * A tool's question (one line, no newline): write the answer to out, return 0 or -errno (-EINVAL: no such question). Runs in the
     * server's thread and may use host_call. NULL: every question is refused.
     */
    int (*query)(void *ctx, const char *text, FILE *out);
    void *query_ctx;
};

struct server;

/**
 * Bind the socket and start the thread. A socket file that nobody listens on (a daemon that was killed) is replaced. Main
 * thread. Returns 0 and *out, or -errno with one line in err: -EADDRINUSE another daemon serves this path (or it is no socket), -EACCES, -ENOENT
 * and others from the path, -ENAMETOOLONG, -ENOMEM.
 */
int server_create(struct server **out, const struct server_config *cfg, char *err, size_t err_len);

/**
 * Close every connection, end the thread, remove the socket file. Works with the worker running, and after it has ended
 * (host_calls_end); in the latter case the applications' sockets go with host_destroy. Main thread.
 */
void server_destroy(struct server *srv);

#endif /* SOCKETS_SERVER_H */
