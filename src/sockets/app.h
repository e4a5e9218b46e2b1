/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_APP_H
#define SOCKETS_APP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sockets/arena.h"
#include "sockets/stack.h"

/**
 * @file
 * An attached application: a family of processes ("members") that share an arena. All workers serve it: these functions
 * run while the world is stopped, i.e. by host_call. A socket is held by the members that opened,
 * accepted or inherited it, and closes when the last of them has closed it or died.
 */

struct app;

/**
 * Create and attach; the application takes the arena over. It ends by itself when its last member has left and its last connection has
 * drained. privileged: it may bind ports below 1024. NULL: no memory.
 */
struct app *app_create(struct host *h, struct arena *a, bool privileged);

/** Undo app_create: no member has joined, or no socket is left. */
void app_destroy(struct app *app);

/** Processes that a family has at most. */
#define APP_MAX_MEMBERS UINT16_MAX

/** A new process; it holds what member `parent` (0 = none) holds. Returns its number (1 ..), -ENOENT no such parent, -ENFILE, -ENOMEM. */
int app_member_join(struct app *app, uint16_t parent, pid_t pid);

/** The member's process id turned out to be another one (a fork's child has spoken). */
void app_member_set_pid(struct app *app, uint16_t member, pid_t pid);

/**
 * A process has ended: what it alone held is closed as the kernel would close it, and what it left half done in the rings is repaired. With
 * the last member the application is gone and must not be named again.
 */
void app_member_leave(struct app *app, uint16_t member);

/**
 * The application runs on a thread that has the worker's side, and names sockets of its that have something for the stack: what notifications by ring do,
 * without the ring; between net_begin and net_pause. slots below the arena's max_socks.
 */
void app_serve(struct net *net, struct app *app, const uint32_t *slots, unsigned n, uint64_t now_us);

/** The same for each socket that stands notified. */
void app_serve_all(struct net *net, struct app *app, uint64_t now_us);

/** Some live member that holds the socket, for the tools; 0 if none. */
pid_t app_holder_pid(const struct app *app, uint32_t slot);

/**
 * A new event queue whose wake-ups are written to fd (non-blocking; it stays the caller's until app_eventq_remove). Returns its number or -ENOSPC.
 */
int app_eventq_add(struct app *app, int fd);

/** Forget the queue; returns its fd, or -1 if there is no such queue. */
int app_eventq_remove(struct app *app, uint32_t queue);

#endif /* SOCKETS_APP_H */
