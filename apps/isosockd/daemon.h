/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOSOCKD_DAEMON_H
#define ISOSOCKD_DAEMON_H

#include <stdbool.h>
#include <stdio.h>

#include "sockets/server.h"
#include "config.h"
#include "prompt.h"

/**
 * @file
 * The running daemon: one port, one mode, one control socket. Main thread unless said otherwise.
 */

/** What a worker's thread is told. */
struct daemon_worker {
    struct daemon *d;
    unsigned w;
};

struct daemon {
    const struct config *cfg;
    const struct options *options;
    const struct mode_ops *ops; /**< cfg->mode_ops */
    struct mode *mode;
    struct server *server;
    struct prompt *prompt;
    struct port port;
    struct pktpool pool;
    uint8_t number; /**< of the stack in this process: a program may run several; set before the start */
    unsigned nb_workers; /**< lcores that the mode may use; set before the start, 0 = all */
    bool has_pool, has_port; /**< i.e. to be released by daemon_stop */
    struct daemon_worker workers[SHM_MAX_INSTANCES];
    int stop; /**< atomic; non-zero: the workers end */
};

/** Start pool, port and mode alone, for a program that runs the stack itself. Returns and errors as daemon_start. */
int daemon_start_stack(struct daemon *d, const struct config *cfg, const struct options *o, char *err, size_t err_len);

/**
 * Start everything but the workers: pool, port, mode, control socket. The EAL runs already. Returns 0, or -errno with one line in
 * err (-EINVAL: what the user asked for makes no sense to the mode). In both cases daemon_stop releases what was started.
 */
int daemon_start(struct daemon *d, const struct config *cfg, const struct options *o, char *err, size_t err_len);

/** Start the prompt if it is wanted, and run the workers, number 0 on this thread, until daemon_ask_stop and the end of draining. */
void daemon_run(struct daemon *d);

/** Run workers on the lcores that are not the main one, beginning with number `first`. They end as those of daemon_run; rte_eal_mp_wait_lcore waits for that. */
void daemon_launch(struct daemon *d, unsigned first);

/** Ask the workers to end, and wake them. Any thread, also a signal handler. */
void daemon_ask_stop(struct daemon *d);

/** Release everything, in the reverse order. */
void daemon_stop(struct daemon *d);

/** Answer a question of the tools or the prompt (queries.c). ctx is the struct daemon. Any thread but a worker. 0, or -errno: -EINVAL no such question. */
int daemon_query(void *ctx, const char *text, FILE *out);

#endif /* ISOSOCKD_DAEMON_H */
