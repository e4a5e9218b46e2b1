/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TEST_BACK_NET_H
#define TEST_BACK_NET_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <rte_ip.h>

#include "core/impair.h"
#include "sockets/backend.h"

/**
 * @file
 * Two stacks joined by a pair of net_ring ports, polled by hand on a virtual clock, and a fake front-end that follows shm.h by writing to the
 * regions directly: no thread, no process, no sleep.
 */

#define NODE_POOL_BUFS 2048u
#define NODE_MAX_SOCKS 128u
#define NODE_CHUNKS 256u

/** An attached application: what a front-end knows. */
struct fapp {
    struct node *node;
    struct app *app;
    char *front, *back;
    struct shm_layout layout;
    uint16_t member;
    uint32_t next_slot;
    uint8_t chunk_used[NODE_CHUNKS];
    uint32_t slot_chunks[NODE_MAX_SOCKS]; /**< chunks below this index of the stream have been given to a slot */
};

struct node {
    struct lan *net;
    struct pktpool pool;
    struct port port;
    struct counters ctr;
    struct host *host;
    struct stack *stack; /**< domain 0 */
    struct ip_addr addr;
    uint32_t rx_free, tx_free; /**< buffers that an idle node has free */
    bool on_threads; /**< its workers run by themselves: net_step neither polls them nor looks at them */
};

struct lan {
    struct node node[2];
    uint64_t now_us;
    struct rte_ring *wire[2]; /**< to node i */
    const struct net_maker *maker;
};

/** How a node's host is made, polled and ended, where it is not just one domain of one worker. */
struct net_maker {
    struct host *(*make)(struct node *n, const struct stack_config *cfg);
    unsigned (*poll)(struct node *n);
    void (*unmake)(struct node *n);
    struct impair_config impair; /**< of the ports, both directions; the seed is the node's */
};

/** What net_init takes: one worker, one domain. */
const struct net_maker *net_maker_single(void);

/** What every stack of a test is made with; a test may change it before net_init. */
struct stack_config net_stack_config(unsigned node);

/** The EAL, once per process. Non-zero: failed. */
int net_eal_start(void);

/** Fresh stacks on fresh ports. */
void net_init(struct lan *net, const struct stack_config cfg[2]);
void net_init_with(struct lan *net, const struct stack_config cfg[2], const struct net_maker *maker);

/** Stop everything; asserts that no packet buffer, socket or connection is left. */
void net_fini(struct lan *net);

/** Poll both nodes once, then let the clock go on to the next thing to do, at most by max_us. */
void net_step(struct lan *net, uint64_t max_us);

/** Poll for a while of virtual time. */
void net_run(struct lan *net, uint64_t us);

/** Poll a node once as a mode does. */
unsigned node_poll(struct node *n);

/* Poll until the expression holds; fails the test after 300 s of virtual time. */
#define net_until(net, expr)                                                                                           \
    do {                                                                                                               \
        uint64_t until_us = (net)->now_us + 300000000;                                                                 \
        while (!(expr)) {                                                                                              \
            if ((net)->now_us > until_us)                                                                              \
                fail_msg("never came true: %s", #expr);                                                                \
            net_step((net), 10000);                                                                                    \
        }                                                                                                              \
    } while (0)

/* ---- the fake front-end ----------------------------------------------------------------------------------------------------- */

void fapp_attach(struct fapp *fa, struct node *n);
/** A further member of the family, forked from fa's. */
uint16_t fapp_fork(struct fapp *fa);
void fapp_leave(struct fapp *fa, uint16_t member);

struct shm_front_more *fapp_more(const struct fapp *fa, uint32_t slot);
/** As the application sees them. */
struct shm_addr fapp_name(const struct fapp *fa, uint32_t slot, enum shm_end end);
struct shm_front_sock *fapp_front(const struct fapp *fa, uint32_t slot);
const struct shm_back_sock *fapp_back(const struct fapp *fa, uint32_t slot);
const struct shm_back_eventq *fapp_back_evq(const struct fapp *fa, uint32_t queue);
struct shm_front_eventq *fapp_front_evq(const struct fapp *fa, uint32_t queue);

/** The notification rule; false: one was pending already. */
bool fapp_notify(struct fapp *fa, uint32_t slot);
/** Enqueue a number, whatever it names. */
void fapp_enqueue(struct fapp *fa, uint32_t number);

/** Post a command and poll until it has been executed; returns its result. */
int fapp_cmd(struct fapp *fa, uint32_t slot, struct shm_cmd cmd);

/** TCP_MD5SIG for one peer; no text takes it away. */
int fapp_md5_key(struct fapp *fa, uint32_t slot, const struct ip_addr *peer, const char *text);
int fapp_key(struct fapp *fa, uint32_t slot, const struct shm_key *key);

uint32_t fapp_open(struct fapp *fa);
int fapp_bind(struct fapp *fa, uint32_t slot, const struct ip_addr *a, uint16_t port);
int fapp_listen(struct fapp *fa, uint32_t slot, int backlog);
int fapp_connect(struct fapp *fa, uint32_t slot, const struct ip_addr *a, uint16_t port);
/** Returns the result; *child is the slot that was offered. */
int fapp_accept(struct fapp *fa, uint32_t slot, uint32_t *child);
int fapp_close(struct fapp *fa, uint32_t slot, bool reset);
int fapp_value_cmd(struct fapp *fa, uint32_t slot, uint8_t op, uint32_t name, int32_t value);

/** Append as much as fits; returns how many bytes. */
/** Put bytes at a fresh stream's begin without saying so, and connect with n_bytes of them by Fast Open. */
void fapp_stage(struct fapp *fa, uint32_t slot, const void *data, uint32_t len);
int fapp_connect_fast(struct fapp *fa, uint32_t slot, const struct ip_addr *a, uint16_t port, uint16_t n_bytes);
uint32_t fapp_send(struct fapp *fa, uint32_t slot, const void *data, uint32_t len);
/** Copy out what is there, at most len bytes; returns how many. */
uint32_t fapp_recv(struct fapp *fa, uint32_t slot, void *data, uint32_t len);

/** A listener on node 1's `to` and a connection from `from`; both ends established. */
void fapp_pair(struct fapp *from, struct fapp *to, uint16_t port, uint32_t *client, uint32_t *listener,
               uint32_t *server);

#endif /* TEST_BACK_NET_H */
