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
 * The back-end as the modes see it.
 *
 *   struct host   what applications attach to: an address, their regions, and any number of
 *   struct stack  domains of TCP with the sockets in them, which one thread at a time may be inside of, and
 *   struct net    workers' sides of the network: a queue pair, an internet layer, counters, a doorbell. Nothing in it is shared.
 *
 * Any worker can execute an event of any domain with its own struct net; which one may is the mode's choice: with `locking` whoever takes the
 * domain's lock, else only its owner (domain i belongs to worker i modulo their number), and others hand over. A socket lives in the domain that its
 * tuple hashes to.
 *
 * A worker's pass: net_begin, the steps, net_end.
 */

struct stack_config {
    struct ip_config ip;
    struct tcp_params tcp; /**< of the host as a whole: domains get their parts */
    bool aggregate; /**< false: every send becomes segments at once, no front-end aggregation (Iso-Basic) */
    bool thread_rings; /**< a notification ring belongs to a thread rather than a CPU */
    bool locks; /**< true: take the redundant, uncontended transmit and receive locks (Iso-Lock) */
};

struct host_config {
    struct stack_config stack;
    struct port *port;
    struct pktpool *pool;
    unsigned nb_nets; /**< workers, 1 .. SHM_MAX_INSTANCES; those beyond the port's queues receive nothing themselves */
    unsigned nb_stacks; /**< domains, at least 1 */
    bool locking;
    bool
        shared; /**< with one domain and locking: every worker may be inside of it at once, under the locks of what it touches */
    bool free_lookup; /**< ... and finds established connections without the connection table's lock */
    struct counters *const *ctr; /**< [nb_nets] */
};

struct host;
struct stack;
struct net;
struct app; /* sockets/app.h: a family of processes that is attached */

/** Main thread. NULL: no memory. */
struct host *host_create(const struct host_config *cfg);
void host_destroy(struct host *h);

unsigned host_nb_nets(const struct host *h);
unsigned host_nb_stacks(const struct host *h);
struct net *host_net(struct host *h, unsigned i);
struct stack *host_stack(struct host *h, unsigned i);

/* ---- the steps of a pass; each returns how much it did (0 = idle). The worker's thread. ------------------------------------------------ */

/** Opens a pass: control operations wait until it ends. */
void net_begin(struct net *net);

/** Closes what net_begin opened without a pass's end, which the next pass does: for a socket command that a calling thread executes (app_serve). */
void net_pause(struct net *net);

/** Receive a burst, run it through the internet layer; transport packets go to out[] (room for 2 * PORT_BURST), local ones included. */
uint16_t net_receive(struct net *net, struct ip_packet *out, uint64_t now_us);
/** What the port has left outside (port_queue.rest_later): the answers go first, for whoever sends waits for them. Nothing is published before: what must be shown at once (sock_gone) has it read first. */
void net_receive_rest(struct net *net, uint64_t now_us);

/** Take what other workers have handed over and do it. */
unsigned net_handed(struct net *net, uint64_t now_us);

/** Take notifications from the applications' rings, at most budget, and do what the sockets ask for, or hand over. */
unsigned net_commands(struct net *net, unsigned budget, uint64_t now_us);

/** The internet layer's timers, and TCP's of the domains that this worker sees to. */
unsigned net_timers(struct net *net, uint64_t now_us);

/** Publish trains, events and answers; wake sleepers; send what is queued; then what needs every domain. Ends the pass. */
unsigned net_end(struct net *net, uint64_t now_us);

/* ---- packets ----------------------------------------------------------------------------------------------------------------------------- */

/** Number of the domain that a packet belongs to. */
unsigned host_classify(const struct host *h, const struct ip_packet *p);

/**
 * Enter a domain for a worker: wait for its lock if it has one; not while the worker is in another. Returns what to work with until stack_leave: the domain, or the worker's view
 * of a shared one.
 */
struct stack *stack_enter(struct stack *s, struct net *net, uint64_t now_us);
/** Where domains have locks, publish first. */
void stack_leave(struct stack *s);

/** Apply a burst of transport packets to a domain that has been entered. Ownership of the buffers passes. */
void stack_segments(struct stack *s, struct ip_packet *pkts, uint16_t n);

/** Hand a packet over to worker `to`, in order with all that this one hands over to it. Dropped and counted if its queue is full. */
void net_hand_packet(struct net *net, unsigned to, struct ip_packet *p);

/** Packets that a worker received, by domain; what belongs to others, or has moved to them, is handed over. Returns how many are left in pkts: those of the worker's own domain. */
uint16_t net_sort(struct net *net, struct ip_packet *pkts, uint16_t n);

/* ---- connections that move (tcp.max_moved; domain i belongs to worker i) -------------------------------------------------------------------- */

/** Ask domain `from` for at most max of the connections that it is busy with. Their sockets and all come by and by, in net_handed. Its owner, inside a pass. */
void stack_steal(struct stack *s, unsigned from, unsigned max);
/** Has the last request not been answered yet? */
bool stack_is_stealing(const struct stack *s);
/** See whether connections that came from other domains have ended. Its owner, inside a pass. */
unsigned stack_sweep_guests(struct stack *s, uint64_t now_us);

/* ---- sleep --------------------------------------------------------------------------------------------------------------------------------- */

/** When the worker must poll again if nothing comes in: UINT64_MAX = never. */
uint64_t net_next_us(const struct net *net, uint64_t now_us);

/** Is there a notification, a call, or something handed over waiting (the look after announcing sleep)? */
bool net_has_work(const struct net *net);

/** Whether no other thread reads or writes what applications share with the stack until this is said again: fences against them are left out. Before each stretch of work with the net. */
void net_set_alone(struct net *net, bool alone);

/** Tell applications and workers that this one is about to sleep, or is awake again (shm_stack_page.instance[].sleeping; a full fence follows). */
void net_set_sleeping(struct net *net, bool sleeping);

/**
 * The doorbell: readable (an epoll descriptor) when an application, another worker or host_call has rung since net_doorbell_clear. Each application
 * has an eventfd of its own behind it, that the stack never reads: no application can block the stack or silence another's bell.
 */
int net_doorbell_fd(const struct net *net);
void net_doorbell_clear(struct net *net);
/** Ring it: the worker wakes up. Any thread, and signal handlers. */
void net_wake(const struct net *net);
/** The same if it sleeps, or is about to. */
void net_wake_sleeper(const struct net *net);
/** Add an application's eventfd; closing its last copy removes it. Any thread. Returns 0 or -errno. */
int net_doorbell_add(struct net *net, int fd);

struct port_queue *net_queue(struct net *net);
/** The internet layer, for neighbours and routes. Within a pass or a host_call only. */
struct ip_ctx *net_ip(struct net *net);

/* ---- from other threads -------------------------------------------------------------------------------------------------------------- */

/** A descriptor of struct shm_stack_page that can only be mapped for reading; the caller closes it. Or -errno. Any thread. */
int host_page_readonly_fd(const struct host *h);
struct pktpool *host_pool(const struct host *h);

/**
 * Run fn(h, arg, now_us) on worker 0 between two passes, while no other worker is inside one, and wait for its end. Any thread but a worker. Returns 0,
 * or -ESHUTDOWN if worker 0 has ended.
 */
int host_call(struct host *h, void (*fn)(struct host *h, void *arg, uint64_t now_us), void *arg);

/** No more passes of worker 0 will come: waiting and later host_calls fail. Worker 0 at its end, or any thread when no worker runs. */
void host_calls_end(struct host *h);

/** Orderly end: listeners close, connections get a FIN (or a RST, after the deadline), applications are told. Any worker. */
void host_shutdown_begin(struct host *h, uint64_t now_us);
/** True when nothing is left to drain in any domain. */
bool host_shutdown_done(const struct host *h, uint64_t now_us);

#endif /* SOCKETS_STACK_H */
