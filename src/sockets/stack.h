/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_STACK_H
#define SOCKETS_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/counter.h"
#include "core/port.h"
#include "ip/ip.h"
#include "tcp/tcp.h"

/**
 * @file
 * A stack instance: one queue pair, one internet layer, one TCP domain, and the sockets on it (the socket back-end). The steps of a poll are
 * functions; a mode arranges them over lcores. Thread rule: one thread at a time is inside an instance; another thread reaches it by stack_call.
 */

struct stack_config {
    struct ip_config ip;
    struct tcp_params tcp;
    uint32_t instance; /**< its number */
    bool aggregate; /**< false: every send becomes segments at once, no front-end aggregation (Iso-Basic) */
    bool thread_rings; /**< a notification ring belongs to a thread rather than a CPU */
    bool locks; /**< true: take the redundant, uncontended transmit and receive locks (Iso-Lock) */
};

struct stack;
struct app; /* sockets/app.h: a family of processes that is attached */

struct stack *stack_create(const struct stack_config *cfg, struct port *port, uint16_t queue_id, struct pktpool *pool,
                           struct counters *ctr);
void stack_destroy(struct stack *s);

/* ---- the steps of a poll; each returns how much it did (0 = idle) ------------------------------------------------------------------- */

/** Receive a burst, run it through the internet layer; transport packets go to out[] (room for 2 * PORT_BURST), local ones included. */
uint16_t stack_receive(struct stack *s, struct ip_packet *out, uint64_t now_us);

/** Apply a burst of transport packets to the domain. Ownership of the buffers passes. */
void stack_segments(struct stack *s, struct ip_packet *pkts, uint16_t n, uint64_t now_us);

/** Take notifications from the applications' rings, at most budget, and do what the sockets ask for. */
unsigned stack_commands(struct stack *s, unsigned budget, uint64_t now_us);

/** TCP's, the internet layer's timers. */
unsigned stack_timers(struct stack *s, uint64_t now_us);

/** Publish trains, events and answers; wake sleepers; send what is queued on the port. Ends every poll. */
void stack_publish(struct stack *s, uint64_t now_us);

/** When the instance must be polled again if nothing comes in: UINT64_MAX = never. */
uint64_t stack_next_us(const struct stack *s, uint64_t now_us);

/** Is there a notification or a call waiting (the look after announcing sleep)? */
bool stack_has_work(const struct stack *s);

/** Tell applications that the worker is about to sleep, or is awake again (shm_stack_page.instance[].sleeping; a full fence follows). */
void stack_set_sleeping(struct stack *s, bool sleeping);

/**
 * The doorbell: readable (an epoll descriptor) when an application or stack_call has rung since stack_doorbell_clear. Each application has an
 * eventfd of its own behind it, that the stack never reads: no application can block the stack or silence another's bell.
 */
int stack_doorbell_fd(const struct stack *s);
void stack_doorbell_clear(struct stack *s);
/** Ring it: the worker wakes up. Any thread, and signal handlers. */
void stack_wake(const struct stack *s);
/** Add an application's eventfd; closing its last copy removes it. Any thread. Returns 0 or -errno. */
int stack_doorbell_add(struct stack *s, int fd);

/** A descriptor of struct shm_stack_page that can only be mapped for reading; the caller closes it. Or -errno. Any thread. */
int stack_page_readonly_fd(const struct stack *s);

struct port_queue *stack_queue(struct stack *s);

/** The internet layer, for neighbours and routes. Within a poll or a stack_call only. */
struct ip_ctx *stack_ip(struct stack *s);

/* ---- from other threads -------------------------------------------------------------------------------------------------------------- */

/** Run fn(s, arg, now_us) on the worker between two polls and wait for its end. Any thread but the worker. Returns 0, or -ESHUTDOWN if the worker has ended. */
int stack_call(struct stack *s, void (*fn)(struct stack *s, void *arg, uint64_t now_us), void *arg);

/** The worker's side: run what stack_call has queued; returns how many. */
unsigned stack_calls(struct stack *s, uint64_t now_us);

/** No more polls will come: waiting and later stack_calls fail. The worker's thread at its end, or any when no worker runs. */
void stack_calls_end(struct stack *s);

/** Orderly end: listeners close, connections get a FIN (or a RST, after the deadline), applications are told. Worker thread. */
void stack_shutdown_begin(struct stack *s, uint64_t now_us);
/** True when nothing is left to drain. */
bool stack_shutdown_done(const struct stack *s);

#endif /* SOCKETS_STACK_H */
