/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef EMBEDDED_H
#define EMBEDDED_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isosockd/daemon.h"
#include "sockets/app.h"

#include "front.h"

/**
 * @file
 * The stack inside the program: everything of the daemon but its own loop and control socket, and the program attached to it as an
 * application of one member, in memory. Who runs it is the mode's matter:
 *
 *   caller.c    modes in which any thread may execute any event (up, msgp, connp-l): the program's own threads, inside their iso_* calls
 *   workers.c   the others: workers on the EAL's lcores but the main one; calls are handed over by rings and doorbells
 *
 * A process may have several, each with a port of its own; all but the first are run by threads that call. What they share is the EAL, the table of descriptors and the clock.
 */

struct caller;

struct embedded {
    struct daemon daemon;
    struct config config;
    struct options options;
    const struct mode_ops *ops;
    struct mode *mode;
    struct host *host;
    struct app *app;
    struct caller *caller; /**< caller.c's; NULL: workers run it */
    bool runs;
    sigset_t
        driver_signals; /**< that drivers handle (net_tap: a frame has come); the program's calls must not end with EINTR for them */
    char **argv, **eal_args; /**< copies that the EAL and the configuration refer to until the process ends */
};

/** That of the calling thread's stack, or NULL. */
static inline struct embedded *
embedded_now(void)
{
    return front->owner;
}

/** What the front-end is to use; NULL members as in front_adopt_home. */
struct embedded_entry {
    const struct front_home *home;
    const struct front_local *local;
    int doorbell[SHM_MAX_INSTANCES];
};

/* iso_stack_start_file in two halves, for preload.c. What fails says one line on stderr. */

/** A stack as the file describes it, to be started later, if need be in a forked child. NULL with errno set. */
struct embedded *embedded_plan(const char *path);
/** Start it, as the calling thread's. Returns 0 or -errno. */
int embedded_start(struct embedded *e);

/* Either of caller.c and workers.c. The thread that starts the stack, which is its own; the program's application exists. Returns 0 or -errno. */
int caller_start(struct embedded *e, struct embedded_entry *entry);
int workers_start(struct embedded *e, struct embedded_entry *entry);

/** One pass by the calling thread, of its own seat or, with nothing to do there, another's. Returns how much it did. */
unsigned caller_pass(void);

/** Drain and end: until then the connections' last bytes are sent. Returns false in a signal handler that interrupted the stack. */
bool caller_stop(struct embedded *e, uint64_t end_us);
void workers_stop(struct embedded *e);

/** A wake-up pipe for an event queue: app_eventq_add by whatever stops the world; its two ends hidden from the program. */
struct eventq_call {
    struct app *app;
    int fd; /**< in: the end to write; out, of a removal: the end that was removed */
    int result; /**< number of the queue, or -errno */
};
int eventq_open(void (*add)(struct eventq_call *call), uint32_t *queue, int *fd);
void eventq_close_fd(int fd);

#endif /* EMBEDDED_H */
