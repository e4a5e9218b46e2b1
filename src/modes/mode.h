/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef MODES_MODE_H
#define MODES_MODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sockets/shm.h"
#include "sockets/stack.h"

/**
 * @file
 * A mode decides how many domains there are, who executes an event, and what keeps execution serial; nothing else. It contains no TCP; the engine
 * contains no threads. A new mode is one file that defines a struct mode_ops and one line in mode_table (registry.c).
 */

struct mode_config {
    const char *knobs; /**< "queues=percpu,aggregate=on", or NULL */
    struct stack_config stack; /**< what the host is made from */
    struct port *port;
    struct pktpool *pool;
    unsigned nb_workers; /**< lcores that it may use, at least 1 */
    uint8_t number; /**< of the stack in this process; names its counters */
};

struct mode; /* an instance of a mode: private to its file */

struct mode_ops {
    const char *name;
    const char *summary; /**< one line for --help */
    bool calling_thread; /**< any thread may execute any event: an embedded program's threads are its workers */

    /**
     * What it wants of the port, before that is started: queue pairs and how frames are steered to them. Main thread; cfg->port is not looked at.
     * Returns 0 or -errno with one line in err.
     */
    int (*plan)(const struct mode_config *cfg, struct port_config *pc, char *err, size_t err_len);

    /** Check knobs and resources, create the host. Main thread. Returns NULL with one line in err (the allowed values). */
    struct mode *(*create)(const struct mode_config *cfg, char *err, size_t err_len);
    void (*destroy)(struct mode *m);

    /** How many workers poll, at most nb_workers. */
    unsigned (*nb_workers)(const struct mode *m);

    /** One pass of worker w; returns how much it did. Called by that worker's thread only. */
    unsigned (*poll)(struct mode *m, unsigned w, uint64_t now_us);

    /** A burst of transport packets that worker w received: decide where each runs, and run it or hand it over. */
    void (*packets)(struct mode *m, unsigned w, struct ip_packet *pkts, uint16_t n, uint64_t now_us);

    /** A pass over socket commands that reach worker w. */
    unsigned (*commands)(struct mode *m, unsigned w, uint64_t now_us);

    /** What applications attach to; worker w sleeps for its net w. */
    struct host *(*host)(struct mode *m);

    /** Rings of notifications for each application and instance (0 = one for each CPU). */
    unsigned (*rings_per_instance)(const struct mode *m);

    /** The mode's own counters, as "name value" lines. Any thread. */
    void (*report)(const struct mode *m, FILE *out);
};

/** All modes, ended by NULL. */
extern const struct mode_ops *const mode_table[];

/** "isostack,queues=percpu" -> the mode's ops and the knobs. NULL with one line in err that lists the modes. */
const struct mode_ops *mode_find(const char *text, const char **knobs, char *err, size_t err_len);

/* ---- running workers (worker.c) ---------------------------------------------------------------------------------------------------------- */

enum idle_policy { IDLE_POLL, IDLE_ADAPTIVE, IDLE_SLEEP };

struct worker;

/**
 * Run a worker's loop on the calling thread until *stop (atomic) becomes non-zero and the stack has drained (bounded by a few seconds). Polls; after spin_us
 * of nothing sleeps on doorbell and receive interrupt (IDLE_ADAPTIVE), or at once (IDLE_SLEEP), or never (IDLE_POLL). Yields the CPU between empty polls, since
 * application and stack may share a core.
 */
void worker_run(const struct mode_ops *ops, struct mode *m, unsigned w, enum idle_policy idle, const int *stop);

#endif /* MODES_MODE_H */
