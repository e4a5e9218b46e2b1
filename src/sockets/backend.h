/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_BACKEND_H
#define SOCKETS_BACKEND_H

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>
#include <rte_ring.h>
#include <rte_spinlock.h>

#include "sockets/app.h"
#include "sockets/shm.h"
#include "sockets/stack.h"

/**
 * @file
 * The back-end's own structures; no header above this layer includes it. Everything here belongs to the worker's thread.
 *
 * A struct sock is the private side of a socket. What the stack must be sure of it keeps here, or in the back region, which no application can
 * write; words of the front region are read once by shm_load and bounded before use.
 *
 * Engine callbacks must not call the engine, and shared words are stored once per poll: both leave work behind on the list
 * of dirty sockets, which sock_flush (stack_publish) works off.
 */

#define SOCK_NONE 0u

#define SNDBUF_MIN 4608u /**< as Linux's SOCK_MIN_SNDBUF */

/* sock.flags */
#define SOCK_CLOSING 0x01u /**< no member holds it: waits for the transport's end */
#define SOCK_LISTENER 0x02u
#define SOCK_SHUT_RD 0x04u /**< what arrives is thrown away */
#define SOCK_SHUT_WR 0x08u
#define SOCK_FIN 0x10u /**< the peer has ended its stream, at rx_delivered */
#define SOCK_BOUND 0x20u /**< the port in back->local is reserved by tcp_bind */
#define SOCK_SQUEEZED 0x40u /**< its receive buffer is small while its application holds too many packet buffers */

/* sock.dirty */
#define DIRTY_READ 0x01u /**< readable state changed: wake readers, tell event queues */
#define DIRTY_WRITE 0x02u /**< connected, error, end: wake writers, tell event queues */
#define DIRTY_CMD 0x04u /**< a command was executed */
#define DIRTY_ACKED 0x08u /**< tx_acked moved */
#define DIRTY_TRAIN 0x10u /**< bytes wait to be published */
#define DIRTY_DISCARDED 0x20u /**< bytes were thrown away: the engine must hear that they are consumed */
#define DIRTY_ABORT 0x40u /**< reset the connection with abort_error */
#define DIRTY_SQUEEZE 0x80u /**< compare its application's share of the packet buffers with the limit */

struct sock {
    struct app *app; /**< NULL = free */
    struct rte_mbuf *rx_first; /**< buffers that the application has not taken, in stream order, linked by mbuf->next */
    struct rte_mbuf *rx_last;
    struct rte_mbuf *rx_growing; /**< first buffer of the train that is not published yet; NULL if there is none */
    struct tcp_sockopts *opts; /**< set before the connection exists; NULL = none */
    tcp_id tcp; /**< TCP_NO_ID: none yet, or gone */
    uint32_t slot; /**< index in the application's regions */
    uint32_t next; /**< in the free list or the list of dirty sockets */
    uint32_t dirty; /**< DIRTY_*; non-zero <=> on the list of dirty sockets */

    uint32_t tx_tail; /**< what of front->tx_tail has been handed to the engine */
    uint32_t tx_acked, tx_sent;
    uint32_t rx_delivered; /**< bytes taken from the engine */
    uint32_t rx_published; /**< i.e. back->rx_tail */
    uint32_t rx_taken; /**< front->rx_head, checked: rx_taken <= rx_published <= rx_delivered modulo 2^32 */
    uint32_t rx_freed; /**< position of rx_first's first byte */
    uint32_t rx_discarded; /**< bytes delivered and thrown away, not yet reported as consumed */
    uint32_t train_tail, train_head; /**< trains published, and finished by the application */
    uint32_t train_base; /**< position of the first byte of train train_head */
    uint32_t rx_bufs; /**< buffers in the list */
    uint32_t status; /**< i.e. back->status */
    uint32_t subs; /**< first subscription (index in app->subs), 0 = none */
    int32_t rcvbuf; /**< as set by the application, 0 = the domain's */
    int32_t abort_error; /**< positive errno */
    uint16_t holders; /**< members that hold it */
    uint16_t flags;
    rte_spinlock_t tx_lock, rx_lock; /**< Iso-Lock's redundant locks */
};
static_assert(sizeof(struct sock) <= 192, "the private side of a socket stays small");

/** The stack's side of a notification ring: nothing but the producers' tail and the elements is read from shared memory. */
struct ring_view {
    struct rte_ring *ring;
    const uint32_t *elements;
    uint32_t head; /**< entries ever taken */
    uint32_t stuck_tail; /**< repair: the tail that did not move since stuck_at_us */
    uint64_t stuck_at_us; /**< 0 = not under suspicion */
};

/** A subscription: an event queue that wants a socket's events. */
struct sub {
    uint32_t next; /**< index, 0 = the end */
    uint32_t position; /**< the queue's tail just after the socket was appended last */
    uint16_t queue;
    bool queued; /**< position is valid */
};

struct eventq {
    int fd; /**< -1 = not in use */
    uint32_t tail; /**< i.e. back_eventq.tail */
    uint32_t nb_subs;
    bool touched; /**< on the stack's list of queues to look at for sleepers */
};

struct app_member {
    pid_t pid; /**< 0 = unknown here (another pid namespace) */
    uint64_t *holds; /**< bit for each slot; NULL = no such member */
};

struct app {
    struct stack *stack;
    struct arena *arena;
    struct shm_front_sock *front; /**< [max_socks] */
    struct shm_back_sock *back;
    struct shm_front_eventq *front_evq;
    struct shm_back_eventq *back_evq;
    struct shm_info *info;
    char *chunks;
    uint32_t nb_chunks;
    uint32_t max_socks;
    uint32_t nb_rings;
    struct ring_view *rings;
    uint32_t *slot_sock; /**< [max_socks]: index of the sock that uses the slot, or SOCK_NONE */
    uint32_t slots_used; /**< slots below this may be in use */
    uint32_t nb_socks;
    uint32_t rx_bufs; /**< packet buffers that its sockets hold */
    bool squeezed; /**< some of its sockets may be SOCK_SQUEEZED */
    struct app_member *members; /**< [nb_members]: number - 1 */
    uint32_t nb_members;
    uint32_t live_members;
    struct sub *subs; /**< [max_subs] */
    uint32_t max_subs, subs_used, subs_free;
    struct eventq evq[SHM_MAX_EVENTQS];
    bool joined; /**< has had a member; one that waits for its first is not to be reaped */
    bool expelled; /**< its rings are broken beyond repair: nothing of it is read any more */
    bool repair; /**< a member died: some ring may be under suspicion */
};

struct eventq_ref {
    struct app *app;
    uint32_t queue;
};

/** Someone to wake at the poll's end. By slot, not by socket: the socket may be gone by then. */
struct wake {
    struct app *app;
    uint32_t slot;
    uint32_t dirty;
};

#define WAKE_BATCH 256
#define MAX_UNRESOLVED 8

struct stack_call_item;

struct stack {
    struct stack_config cfg;
    struct port_queue queue;
    struct pktpool *pool;
    struct counters *ctr;
    struct ip_ctx *ip;
    struct tcp_domain *tcp;
    size_t tcp_bytes;
    struct tcp_sink sink;
    struct tcp_env env;

    struct sock *socks; /**< [max_socks], 0 unused; touched as used */
    uint32_t max_socks;
    uint32_t socks_used; /**< indices below this have been used */
    uint32_t socks_free; /**< head of the free list */
    uint32_t nb_socks;
    uint32_t dirty_first, dirty_last;
    uint32_t nb_connecting; /**< sockets with SHM_ST_CONNECTING */
    uint32_t rx_bufs; /**< packet buffers that sockets hold */

    struct app **apps;
    uint32_t nb_apps;
    uint32_t apps_capacity;
    uint32_t next_app; /**< whose turn it is to be served first */
    bool apps_ended; /**< an application has neither members nor sockets left */

    struct wake wakes[WAKE_BATCH];
    unsigned nb_wakes;
    struct eventq_ref touched[WAKE_BATCH];
    unsigned nb_touched;

    struct ip_addr unresolved[MAX_UNRESOLVED]; /**< neighbours that did not answer, until the poll's end */
    unsigned nb_unresolved;

    struct shm_stack_page *page;
    int page_fd;
    int doorbell_epoll_fd; /**< readable when any doorbell was rung */
    int call_fd; /**< eventfd of stack_call */

    pthread_mutex_t call_lock;
    struct stack_call_item *call_first, *call_last;
    uint32_t calls_waiting; /**< atomic: how many are queued */
    bool calls_ended;

    bool closing; /**< stack_shutdown_begin was called */
    uint64_t closing_deadline_us;
    uint64_t closing_check_at_us;
};

/* ---- shared words ------------------------------------------------------------------------------------------------------- */

/** The one way in which a word of a front region is read: once. */
static inline uint32_t
shm_load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void
shm_store(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline void
shm_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline struct shm_front_sock *
sock_front(const struct sock *sk)
{
    return &sk->app->front[sk->slot];
}

static inline struct shm_back_sock *
sock_back(const struct sock *sk)
{
    return &sk->app->back[sk->slot];
}

static inline uint32_t
sock_index(const struct stack *s, const struct sock *sk)
{
    return (uint32_t)(sk - s->socks);
}

/* ---- sock.c: sockets --------------------------------------------------------------------------------------------------------- */

/** Take a slot that is not in use: a fresh socket that member holds. NULL: none left. */
struct sock *sock_open(struct stack *s, struct app *app, uint32_t slot, uint16_t member);

/** The socket in a slot (< max_socks), or NULL. */
struct sock *sock_at(const struct app *app, uint32_t slot);

/** Leave work for sock_flush. */
void sock_mark(struct stack *s, struct sock *sk, uint32_t dirty);

/** Let the poll's end wake whoever waits for a command on a slot that holds no socket. */
void sock_wake_slot(struct stack *s, struct app *app, uint32_t slot);

/** Nobody holds it any more. reset: SO_LINGER 0. */
void sock_close(struct stack *s, struct sock *sk, bool reset);

/** Its application wrote what no library writes: reset it with EPROTO, count. */
void sock_bad(struct stack *s, struct sock *sk);

/** Change status bits, with release: the one place that does. */
void sock_status(struct stack *s, struct sock *sk, uint32_t set, uint32_t clear);

/** The transport is gone with an error (0 = an orderly end). */
void sock_gone(struct stack *s, struct sock *sk, int error);

/** Work off the dirty sockets: engine calls first, then shared words, then wake-ups. */
void sock_flush(struct stack *s);

/** The engine's calls: acknowledgements and events. */
void sock_on_acked(void *ctx, tcp_user user, uint32_t n_bytes);
void sock_on_event(void *ctx, tcp_user user, uint32_t events, int err);

/* ---- rx.c, tx.c: streams --------------------------------------------------------------------------------------------------------- */

void rx_on_deliver(void *ctx, tcp_user user, struct tcp_data data);
void rx_on_release(void *ctx, tcp_buf buf);

/** Publish the growing train if the application has a place for it; returns what that makes dirty. */
uint32_t rx_publish(struct stack *s, struct sock *sk);

/** The application has moved rx_head: free buffers, open the window. */
void rx_take(struct stack *s, struct sock *sk);

/** Free everything that waits for the application. */
void rx_drop_all(struct stack *s, struct sock *sk);

/** A burst's mbuf as the engine takes it: in the receive pool, owned by nobody else. Consumes m; NULL if no buffer is free. */
struct rte_mbuf *rx_own(struct stack *s, struct rte_mbuf *m);

void tx_on_emit(void *ctx, const struct tcp_out *out, uint64_t now_us);

/** The application may have moved tx_tail: tell the engine. */
void tx_take(struct stack *s, struct sock *sk);

/* ---- commands.c ------------------------------------------------------------------------------------------------------------------------ */

/** Serve a notification for a slot (< max_socks): streams, then commands. */
void commands_service(struct stack *s, struct app *app, uint32_t slot);

/* ---- events.c ---------------------------------------------------------------------------------------------------------------------------- */

/** Returns 0, -EINVAL (no such queue), -ENOSPC. Subscribing twice is once. */
int events_subscribe(struct sock *sk, uint32_t queue);
void events_unsubscribe(struct sock *sk, uint32_t queue);
void events_unsubscribe_all(struct sock *sk);

/** Append the socket to its queues. A full fence lies between the change that it tells of and this call. */
void events_append(struct stack *s, struct sock *sk);

/** Write the descriptors of touched queues on which someone sleeps. Begins with a full fence. */
void events_wake(struct stack *s);

/* ---- app.c --------------------------------------------------------------------------------------------------------------------------------- */

/** Take up to budget notifications from an application's rings; returns how many. */
unsigned app_poll(struct app *app, unsigned budget, uint64_t now_us);

/** Does a ring hold anything? */
bool app_has_work(const struct app *app);

/** When app_poll must run for a ring under suspicion; UINT64_MAX if never. */
uint64_t app_next_us(const struct app *app);

/** Is that the number of a live process of the family? */
bool app_member_ok(const struct app *app, uint16_t member);
bool app_member_holds(const struct app *app, uint16_t member, uint32_t slot);
void app_member_hold(struct app *app, uint16_t member, uint32_t slot);
void app_member_drop(struct app *app, uint16_t member, uint32_t slot);

/** Free the applications that have neither members nor sockets. */
void app_reap(struct stack *s);

/** Reserve address space that takes memory as it is touched. NULL: none. */
void *lazy_alloc(size_t bytes);
void lazy_free(void *p, size_t bytes);

/** Internal addresses <-> shared ones. */
static inline struct ip_addr
addr_from_shm(const struct shm_addr *a)
{
    return (struct ip_addr){ { a->addr[0], a->addr[1], a->addr[2], a->addr[3] } };
}

static inline struct shm_addr
addr_to_shm(const struct ip_addr *a, uint16_t port)
{
    return (struct shm_addr){ .addr = { a->w[0], a->w[1], a->w[2], a->w[3] }, .port = port };
}

#endif /* SOCKETS_BACKEND_H */
