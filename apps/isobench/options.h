/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOBENCH_OPTIONS_H
#define ISOBENCH_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "hello.h"

#define OPTIONS_THREADS_MAX 64u
#define OPTIONS_DEPTH_MAX 4096u
#define OPTIONS_CONNECTIONS_MAX 1000000u

struct options {
    bool serve; /**< else a client of `hello.role` */
    struct hello hello;
    const char *target; /**< ADDR:PORT as given */
    struct sockaddr_storage addr;
    socklen_t addr_len;
    uint32_t connections, threads, depth;
    double duration_s; /**< a server's: 0 = until a signal */
    double rate; /**< messages a second of all connections; 0 = closed loop */
    int cpus[OPTIONS_THREADS_MAX]; /**< thread i runs on cpus[i % nb_cpus] */
    unsigned nb_cpus; /**< 0 = anywhere */
    bool spin; /**< never sleep in epoll_wait */
    bool zero_copy; /**< messages' bytes are neither copied nor looked at: transfer.h */
    bool json;
    bool progress;
};

enum options_result { OPTIONS_OK, OPTIONS_HELP, OPTIONS_VERSION, OPTIONS_ERROR };

/** Read a command line. OPTIONS_ERROR: one line without its end is in err. */
enum options_result options_parse(struct options *o, int argc, char **argv, char *err, size_t err_len);

extern const char options_usage[];

#endif /* ISOBENCH_OPTIONS_H */
