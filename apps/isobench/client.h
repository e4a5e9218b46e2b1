/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOBENCH_CLIENT_H
#define ISOBENCH_CLIENT_H

#include "run.h"

/** @file The client's threads and connections: client.c opens them and runs the loop, roles.c says what happens on each. */

struct client_conn {
    int fd; /**< -1: to be opened (again) */
    uint32_t events; /**< as epoll knows them */
    bool connected;
    uint32_t hello_left; /**< bytes of the hello not yet sent */
    uint32_t in_flight; /**< requests without their answer, at most thread.slots */
    uint32_t oldest; /**< index of the oldest one's instant in sent_at_ns */
    uint64_t out_bytes; /**< to be sent behind the hello */
    uint64_t in_bytes; /**< of the answer that is coming in */
    uint64_t *sent_at_ns; /**< [thread.slots], a ring; open loop: when it was due */
} __attribute__((aligned(64))); /* one line, so that a message touches one */

struct client_thread {
    struct run *run;
    struct tally *tally;
    uint32_t number;
    int epoll_fd;
    struct client_conn *conns;
    uint32_t nb_conns;
    uint32_t nb_connected; /**< for the first time */
    uint32_t nb_closed; /**< conns with fd -1 */
    uint32_t next; /**< open loop: whose turn it is; opening: where to go on */
    uint32_t slots; /**< places in sent_at_ns: the depth, or more for an open loop */
    bool running; /**< the measured part has begun */
    uint64_t now_ns; /**< read once for each batch of events */
    uint64_t deadline_ns;
    double due_ns, interval_ns; /**< open loop: the next message's instant; 0 = closed loop */
    uint64_t *instants; /**< of all connections */
    uint8_t *in, *out; /**< out begins with the hello */
};

#define CLIENT_BUFFER_BYTES 131072u

/** Give up a connection: close it and leave it for reopening. */
void client_close(struct client_thread *t, struct client_conn *c);

/** It stands: send the hello, and for crr the request. Returns 0, or -1 if it failed. */
int role_on_connected(struct client_thread *t, struct client_conn *c);

/** The measured part begins. */
int role_on_start(struct client_thread *t, struct client_conn *c);

/** Returns 0, or -1 if the connection is at its end (which for crr is the regular one; it then counts as no error). */
int role_on_readable(struct client_thread *t, struct client_conn *c);
int role_on_writable(struct client_thread *t, struct client_conn *c);

/** Open loop: send what is due. */
void role_send_due(struct client_thread *t);

/** When the measured part is over: tx waits until the server has told what came. */
void role_finish(struct client_thread *t);

#endif /* ISOBENCH_CLIENT_H */
