/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_BACKEND_H
#define SOCKETS_BACKEND_H

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>
#include <rte_ring.h>

#include "core/clock.h"
#include "core/lock.h"
#include "sockets/app.h"
#include "sockets/shm.h"
#include "sockets/stack.h"

/**
 * @file
 * The back-end's own structures; no header above this layer includes it. Who may touch what:
 *
 *   struct stack   a domain with its sockets: whoever has entered it (stack_enter), one thread at a time.
 *   struct net     a worker's side of the network: that worker alone, but for its bell and its ring.
 *   struct host    what all of them have in common: changed only with the world stopped (host_stop), when no other thread is inside its pass.
 *   struct app     sockets' places and event queues are shared by the domains: each word says how.
 *
 * A struct sock is the private side of a socket. What the stack must be sure of it keeps here, or in the back region, which no application can
 * write; words of the front region are read once by shm_load and bounded before use.
 *
 * Engine callbacks must not call the engine, and shared words are stored once per poll: both leave work behind on the list
 * of dirty sockets, which sock_flush (net_end) works off.
 */

#define SOCK_NONE 0u

#define SNDBUF_MIN 4608u /**< as Linux's SOCK_MIN_SNDBUF */

/* sock.flags */
#define SOCK_CLOSING 0x01u /**< no member holds it: waits for the transport's end */
#define SOCK_LISTENER 0x02u
#define SOCK_SHUT_RD 0x04u /**< with SOCK_SHUT_WR: what arrives is answered by a reset */
#define SOCK_SHUT_WR 0x08u
#define SOCK_FIN 0x10u /**< the peer has ended its stream, at rx_delivered */
#define SOCK_BOUND 0x20u /**< the port of its local name is reserved by tcp_bind */
#define SOCK_ABORTED 0x100u /**< with a relay: tcp_abort is on its way, effects are of the connection that was */
#define SOCK_SHADOW 0x80u /**< stands for a bound or listening socket that lives in another domain */
#define SOCK_SYN_DATA 0x200u /**< bytes went with the SYN; until it has heard so the application's tx_tail stays 0 */
#define SOCK_SQUEEZED 0x40u /**< its receive buffer is small while its application holds too many packet buffers */

/* sock.dirty */
#define DIRTY_READ 0x01u /**< readable state changed: wake readers, tell event queues */
#define DIRTY_WRITE 0x02u /**< connected, error, end: wake writers, tell event queues */
#define DIRTY_CMD 0x04u /**< a command was executed */
#define DIRTY_ACKED 0x08u /**< tx_acked moved */
#define DIRTY_TRAIN 0x10u /**< bytes wait to be published */
#define DIRTY_ABORT 0x40u /**< reset the connection with abort_error */
#define DIRTY_FLUSHING 0x200u /**< of a shared domain: a worker is at it, and will look again */
#define DIRTY_SPACE 0x100u /**< of a wake-up: a third of the transmit buffer is free */
#define DIRTY_SQUEEZE 0x80u /**< compare its application's share of the packet buffers with the limit */

/**
 * All of a socket that bytes, events and their publishing touch: one line. What the stack knows of it by the back region, which it alone writes (status, rx_tail, train_tail, tx_sent),
 * stands there and nowhere else; what few sockets have, in struct sock_more.
 */
struct sock {
    struct app *app; /**< NULL = free */
    tcp_id tcp; /**< TCP_NO_ID: none yet, or gone */
    uint32_t slot; /**< index in the application's regions */
    uint32_t next; /**< in the free list or the list of dirty sockets */
    tcp_buf
        rx_first; /**< buffers that the application has not taken, in stream order, linked by mbuf->hash.usr; PKTPOOL_NO_BUF: none */
    tcp_buf rx_last;
    tcp_buf rx_growing; /**< first buffer of the train that is not published yet; PKTPOOL_NO_BUF if there is none */
    uint32_t tx_tail; /**< what of front->tx_tail has been handed to the engine */
    uint32_t tx_acked; /**< back->tx_acked follows at the end of the pass */
    uint32_t rx_delivered; /**< bytes taken from the engine */
    uint32_t rx_taken; /**< front->rx_head, checked: rx_taken <= back->rx_tail <= rx_delivered modulo 2^32 */
    uint32_t rx_freed; /**< position of rx_first's first byte */
    uint32_t train_base; /**< position of the first byte of train train_head */
    uint8_t train_head; /**< trains that the application has finished, modulo 2^8 */
    bool has_more; /**< its sock_more is not zero, but for the locks */
    uint16_t dirty; /**< DIRTY_*; non-zero <=> on the list of dirty sockets */
    uint16_t holders; /**< members that hold it */
    uint16_t flags;
} __attribute__((aligned(64)));
static_assert(sizeof(struct sock) == 64, "a request touches one line of a socket");

/** What few sockets need, apart, so that the others have no memory there. Has the socket's index. */
struct sock_more {
    struct tcp_sockopts *opts; /**< set before the connection exists; NULL = none */
    struct stamps *stamps; /**< transmit timestamps that are asked for (stamp.h); NULL = none ever was */
    struct spread *spread; /**< bound or listening in every domain; NULL = in its own alone */
    int32_t rcvbuf; /**< as set by the application, 0 = it grows with what the application takes */
    int32_t sndbuf; /**< as set by the application, 0 = it grows with the congestion window */
    uint32_t rcvlowat; /**< SO_RCVLOWAT: readers want this many bytes; 0 = any */
    uint32_t notsent_lowat; /**< TCP_NOTSENT_LOWAT; 0 = none */
    uint32_t window_clamp; /**< TCP_WINDOW_CLAMP; 0 = none */
    int32_t abort_error; /**< positive errno */
    uint32_t moved_ms; /**< when its connection moved last, modulo 2^32; 0 = never */
    uint32_t ready; /**< a listener: its part of back->accept_ready */
    /* Where buffer locks are taken: */
    struct lock tx_lock; /**< the send buffer's: positions in the transmit stream */
    struct lock
        rx_lock; /**< the receive buffer's and the socket's own: all that both the engine's calls and commands change */
};
static_assert(sizeof(struct sock_more) == 64, "what few sockets need");

/** The stack's side of a notification ring: nothing but the producers' tail and the elements is read from shared memory. */
struct ring_view {
    struct rte_ring *ring;
    const uint32_t *elements;
    uint32_t head; /**< entries ever taken */
    uint32_t stuck_tail; /**< repair: the tail that did not move since stuck_at_us */
    uint64_t stuck_at_us; /**< 0 = not under suspicion */
    bool repair; /**< a member died: it may be half updated */
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
    uint32_t touched; /**< atomic: bit for each worker that has it on its list of queues to look at for sleepers */
};

struct app_member {
    pid_t pid; /**< 0 = unknown here (another pid namespace) */
    uint64_t *holds; /**< bit for each slot; NULL = no such member */
};

struct app {
    struct host *host;
    uint64_t id; /**< never used twice, so that messages can name an application that has ended */
    struct arena *arena;
    struct shm_front_sock *front; /**< [max_socks] */
    struct shm_front_more *front_more;
    const struct shm_key *front_keys;
    struct shm_back_more *back_more;
    struct shm_back_name *back_names;
    struct shm_back_sock *back;
    struct shm_front_eventq *front_evq;
    struct shm_back_eventq *back_evq;
    struct shm_info *info;
    char *chunks, *smalls;
    uint32_t nb_chunks, nb_smalls;
    uint32_t max_socks;
    uint32_t nb_rings; /**< for each worker */
    struct ring_view *rings; /**< [worker][ring]: each worker reads its own */
    struct lock *
        slot_locks; /**< [max_socks]: keep the commands on a socket serial, and the socket alive; NULL where its domain does */
    uint64_t *slot_ref; /**< [max_socks], atomic: domain << 32 | index of the sock that uses the slot; 0 = none */
    uint32_t slots_used; /**< atomic: slots below this may be in use */
    uint32_t nb_socks; /**< atomic */
    struct {
        int32_t n; /**< packet buffers that its sockets took less those they gave back, by the worker that did it */
    } rx_bufs[SHM_MAX_INSTANCES] __attribute__((aligned(64)));
    struct lock events_lock; /**< subscriptions, and tails of event queues */
    uint32_t *slot_subs; /**< [max_socks]: first subscription of the slot's socket (index in subs), 0 = none */
    bool privileged; /**< may bind ports below 1024 */
    bool expel_done;
    bool relax; /**< its receive buffers are to be opened again in every domain */
    bool squeezed; /**< some of its sockets may be SOCK_SQUEEZED */
    struct app_member *members; /**< [nb_members]: number - 1 */
    uint32_t nb_members;
    uint32_t live_members;
    struct sub *subs; /**< [max_subs] */
    uint32_t max_subs, subs_used, subs_free;
    struct eventq evq[SHM_MAX_EVENTQS];
    bool joined; /**< has had a member; one that waits for its first is not to be reaped */
    bool expelled; /**< atomic: its rings are broken beyond repair, nothing of it is read any more */
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

/**
 * What goes from domain to domain and is more than a word; its sender's first member. It is in one place at a time: a hand-over queue, a worker's
 * mail, or the function that it arrives in, which has been given the domain entered, and sends it on or frees it.
 */
struct message {
    void (*arrive)(struct stack *s, struct message *msg);
    uint32_t to; /**< domain */
    struct message *next; /**< in the mail */
};

/** app.slot_ref: the socket is on its way to the domain in the upper half. */
#define SLOT_TRANSIT 0x80000000u

#define WAKE_BATCH 256
#define MAX_UNRESOLVED 8

struct host_call_item;
struct relay; /* sockets/relay.h: whoever applies engine calls to the replicas of a domain */

/** An accept that could not enter the domain where a connection waits without waiting itself. */
struct later {
    uint64_t app_id;
    uint32_t slot;
};

/** Each worker reads the clock for itself, and may be held up thereafter; so time goes with the lock: who takes it works no earlier than who gave it back. */
struct timed_lock {
    struct lock lock;
    uint64_t now_us;
};

/**
 * The locks of a domain that every worker may be inside of at once (shared.c): the paper's, and what its kernel had as short locks of subsystems. The order in which they are taken
 * is that of docs/modes.md, section msgp.
 */
struct shared {
    struct timed_lock table __attribute__((aligned(64))); /**< which sockets and connections there are */
    struct {
        struct lock lock;
    } __attribute__((aligned(64))) inner[TCP_INNER_COUNT];
    struct timed_lock *conns; /**< by connection slot; touched as used */
    size_t conns_bytes;
    bool free_lookup;
};

/** A connection whose tuple belongs to another domain. */
struct guest {
    struct tcp_tuple tuple;
    uint32_t home;
    bool leaving; /**< home has been told, or the connection is on its way there; its answer takes the entry away */
};

struct stack {
    struct host *host;
    struct net *net; /**< who is inside; so are ctr and ip */
    struct counters *ctr;
    struct ip_ctx *ip;
    struct pktpool *pool;
    struct stack_config cfg;
    uint32_t number;
    struct lock lock; /**< the group lock; not taken where a domain has an owner, or is shared */
    struct stack *main; /**< itself; of a worker's view of a shared domain, the one whose books count */
    struct shared *shared; /**< NULL = one thread at a time is inside */
    struct tcp_locks locks; /**< what the engine is given then */
    bool timers_changed; /**< shared: this worker has had the wheel's lock since it last showed when timers are due */
    unsigned table_depth; /**< how often this worker has taken the table's lock */
    unsigned conns_held; /**< ... and connections' */
    bool sock_locks; /**< take the sockets' buffer locks, needed or not */
    bool rx_roomy; /**< no relay, and a burst more would bring all applications together to no half of the buffers */
    struct tcp_domain *tcp; /**< with a relay: the one to look at */
    const struct relay *relay; /**< who applies engine calls; NULL = this stack, to tcp */
    size_t tcp_bytes;
    struct tcp_sink sink;
    struct tcp_env env;

    struct sock *socks; /**< [max_socks], 0 unused; touched as used */
    struct sock_more *more; /**< [max_socks], as that */
    uint32_t max_socks;
    uint32_t socks_used; /**< indices below this have been used */
    uint32_t socks_free; /**< head of the free list */
    uint32_t nb_socks; /**< shadows included */
    uint32_t nb_shadows;
    uint32_t dirty_first, dirty_last;
    uint32_t nb_connecting; /**< sockets with SHM_ST_CONNECTING */
    bool entered; /**< since it was last settled */
    bool closing; /**< has begun to shut down */
    bool drained; /**< atomic: and has nothing left to send */
    uint64_t closing_check_at_us;

    struct guest *guests; /**< connections here whose home is another domain (move.c) */
    uint32_t nb_guests, guests_capacity;
    uint32_t sweep_next, look_next;
    uint64_t sweep_at_us;
    bool asking; /**< a request for connections is under way */
};

#define NET_TX_SPARE 32u /**< transmit buffers taken from the pool in one go */
#define NET_RX_DONE 32u /**< receive buffers given back to it in one go */

/** The worker's side: its queue pair, internet layer, counters, and what it has to tell others when its pass ends. Nothing in it is shared. */
struct net {
    struct host *host;
    uint32_t number;
    struct lock pass; /**< held during a pass: whoever has every worker's has stopped the world */
    struct port_queue queue;
    struct counters *ctr;
    struct ip_ctx *ip;
    struct stack *view; /**< this worker's part of a shared domain; NULL = domains are not shared */
    struct rte_mbuf *tx_spare[NET_TX_SPARE]; /**< empty, for the next segments */
    unsigned nb_tx_spare;
    struct rte_mbuf *rx_done[NET_RX_DONE]; /**< read by applications: for the pool, when the pass ends at the latest */
    unsigned nb_rx_done;
    uint64_t now_us; /**< of the pass */
    uint64_t timers_tick; /**< of the wheels: when the domains' deadlines were last looked at */
    int32_t rx_bufs; /**< as app.rx_bufs, over all applications */
    uint32_t next_app; /**< whose turn it is to be served first */

    struct wake wakes[WAKE_BATCH];
    unsigned nb_wakes;
    struct eventq_ref touched[WAKE_BATCH];
    unsigned nb_touched;
    struct ip_addr unresolved[MAX_UNRESOLVED]; /**< neighbours that did not answer, until the pass's end */
    unsigned nb_unresolved;

    struct rte_ring
        *ring; /**< what other workers hand over: many producers, one consumer, in order; NULL with one worker */
    bool alone; /**< no other thread reads or writes what applications share with us, while this pass lasts */
    bool acks_ride; /**< as in struct tcp_env */
    bool from_peer; /**< frames that another worker passed on are being looked at */
    uint32_t ring_bells; /**< workers to wake at the pass's end, if they sleep */
    struct {
        uint64_t *words;
        uint32_t n, capacity;
    } unsent; /**< what found a ring full and must not be lost: number of the worker, then the message; n is atomic, since it is looked at between passes too */
    struct message *mail_first, *mail_last; /**< messages to domains that this worker can enter itself */
    struct later *later;
    uint32_t nb_later, later_capacity;

    int doorbell_epoll_fd; /**< readable when any doorbell was rung */
    int bell_fd; /**< eventfd: other threads of the stack */
};

struct host {
    struct stack_config cfg;
    struct port *port;
    struct pktpool *pool;
    struct stack **stacks;
    uint32_t nb_stacks;
    struct net **nets;
    uint32_t nb_nets;
    struct tcp_steer steer; /**< which domain a tuple belongs to */
    bool locking; /**< any worker may enter any domain, by its lock; else domain i is worker i % nb_nets's alone */
    struct shared *shared; /**< any worker is inside the one domain at any time; NULL = not so */
    uint64_t *next_us; /**< [nb_stacks], atomic: when a domain's timers are due */

    struct app **apps;
    uint32_t nb_apps;
    uint32_t apps_capacity;
    uint64_t next_app_id;
    bool stopped; /**< one worker has stopped the world; changed with every pass lock held */
    bool entered; /**< and it is inside every domain: what was on its way between workers has arrived */
    bool stop_wanted; /**< atomic: applications have ended, or are to be expelled or relaxed */

    struct shm_stack_page *page;
    int page_fd;

    pthread_mutex_t call_lock;
    struct host_call_item *call_first, *call_last;
    uint32_t calls_waiting; /**< atomic: how many are queued */
    bool calls_ended;

    bool closing; /**< atomic: host_shutdown_begin was called */
    uint64_t closing_deadline_us;
};

/**
 * A socket that is bound or listens has a place in every domain, since its port is taken in all of them and connections come to any: the
 * socket itself in one, shadows in the others.
 */
struct spread {
    struct app *app;
    uint32_t slot;
    uint32_t home; /**< the domain that the socket lives in */
    uint32_t turn; /**< of the domains, in accept */
    struct ip_addr local; /**< what is bound in every domain */
    uint16_t port;
    bool busy; /**< a message of its socket's is on its way through the domains; commands wait */
    bool abandoned; /**< its socket ended meanwhile */
    uint32_t waiting; /**< accept handed over: 1 + the domain that was asked; 0 = no */
    uint32_t free_slot; /**< ... its operands */
    uint16_t member;
    int32_t result; /**< ... its answer */
    struct {
        uint32_t index; /**< of the sock in that domain */
        uint32_t ready; /**< atomic: connections that wait there */
    } in[]; /**< [nb_stacks] */
};

/* ---- shared words ------------------------------------------------------------------------------------------------------- */

/** The one way in which a word of a front region is read: once. */
static inline uint32_t
shm_load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline uint16_t
shm_load16(const uint16_t *half)
{
    return __atomic_load_n(half, __ATOMIC_ACQUIRE);
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

/* Of a shared domain's socket these may be looked at without its lock, and are then a moment old; they change under it. */

static inline uint16_t
sock_flags(const struct sock *sk)
{
    return __atomic_load_n(&sk->flags, __ATOMIC_RELAXED);
}

static inline void
sock_set_flags(struct sock *sk, uint16_t set, uint16_t clear)
{
    __atomic_store_n(&sk->flags, (uint16_t)((sk->flags & ~clear) | set), __ATOMIC_RELAXED);
}

/** SHM_ST_*, of the socket that a shadow stands for too. */
static inline uint32_t
sock_state(const struct sock *sk)
{
    return __atomic_load_n(&sock_back(sk)->status, __ATOMIC_RELAXED);
}

static inline tcp_id
sock_tcp(const struct sock *sk)
{
    return __atomic_load_n(&sk->tcp, __ATOMIC_RELAXED);
}

static inline void
sock_set_tcp(struct sock *sk, tcp_id id)
{
    __atomic_store_n(&sk->tcp, id, __ATOMIC_RELAXED);
}

/** Add to a word that any worker may add to: by a locked instruction only where there are several. Returns the sum. */
static inline uint32_t
host_add(const struct host *h, uint32_t *word, uint32_t by)
{
    uint32_t sum;

    if (h->nb_nets > 1)
        return __atomic_add_fetch(word, by, __ATOMIC_SEQ_CST);
    sum = *word + by;
    __atomic_store_n(word, sum, __ATOMIC_RELEASE);
    return sum;
}

extern const struct sock_more sock_more_none;

/** To read. */
static inline const struct sock_more *
sock_more(const struct stack *s, const struct sock *sk)
{
    return likely(!__atomic_load_n(&sk->has_more, __ATOMIC_RELAXED)) ? &sock_more_none : &s->more[sock_index(s, sk)];
}

/** To write: the memory is the socket's from now on. */
static inline struct sock_more *
sock_more_own(struct stack *s, struct sock *sk)
{
    __atomic_store_n(&sk->has_more, true, __ATOMIC_RELAXED);
    return &s->more[sock_index(s, sk)];
}

/** NULL: the socket is in its own domain alone. */
static inline struct spread *
sock_spread(const struct stack *s, const struct sock *sk)
{
    return sock_more(s, sk)->spread;
}

/* ---- sock.c: sockets --------------------------------------------------------------------------------------------------------- */

/** Take a slot that is not in use: a fresh socket that member holds. NULL: none left. */
struct sock *sock_open(struct stack *s, struct app *app, uint32_t slot, uint16_t member);

/** The socket in a slot (< max_socks), or NULL; whoever asks is inside its domain, or has stopped the world. */
struct sock *sock_at(const struct app *app, uint32_t slot);

/** The same, but NULL for a socket of another domain. */
struct sock *sock_in(const struct stack *s, const struct app *app, uint32_t slot);

/** The same by what app.slot_ref says. */
static inline struct sock *
sock_of_ref(const struct stack *s, uint64_t ref)
{
    /* Of another domain: 2^32 and more; on its way: SLOT_TRANSIT. */
    uint64_t index = ref - ((uint64_t)s->number << 32);

    return index - 1 < SLOT_TRANSIT - 1 ? &s->socks[index] : NULL;
}

/** What the socket in a slot has more, whichever domain it lives in. Any worker; to read words that may be changing. */
const struct sock_more *sock_more_at(const struct app *app, uint32_t slot);

/** A sock that stands for one of another domain; NULL: none left. */
struct sock *sock_shadow(struct stack *s, struct app *app, uint32_t slot);
void sock_shadow_free(struct stack *s, struct sock *sk);
/** It may have no more any longer: then nobody looks there. The socket is locked. */
void sock_more_tidy(const struct stack *s, struct sock *sk);
/** Zero it, as in an entry that was never used. */
void sock_reset(struct stack *s, struct sock *sk);

/** Leave work for sock_flush: of the worker that marked it first. */
void sock_mark(struct stack *s, struct sock *sk, uint32_t dirty);

/** Let the poll's end wake whoever waits for a command on a slot that holds no socket. */
void sock_wake_slot(struct net *net, struct app *app, uint32_t slot);

/** Nobody holds it any more. reset: SO_LINGER 0. */
void sock_close(struct stack *s, struct sock *sk, bool reset);

/** Leave a reset with this errno for sock_flush. The socket is not locked. */
void sock_abort(struct stack *s, struct sock *sk, int error);

/** Its application wrote what no library writes: reset it with EPROTO, count. */
void sock_bad(struct stack *s, struct sock *sk);

/** Change status bits, with release: the one place that does. The socket is locked (sock_lock). */
void sock_status(struct stack *s, struct sock *sk, uint32_t set, uint32_t clear);

/** The transport is gone with an error (0 = an orderly end). The socket is locked. */
void sock_gone(struct stack *s, struct sock *sk, int error);

/** Work off the dirty sockets: engine calls first, then shared words; wake-ups are left to the worker's pass. */
void sock_flush(struct stack *s);

/** Wake whom this worker's flushes concern. */
void net_wake_all(struct net *net);

/** The engine's calls: acknowledgements and events. */
void sock_on_acked(void *ctx, tcp_user user, uint32_t n_bytes);
void sock_on_event(void *ctx, tcp_user user, uint32_t events, int err);

/** What the engine's calls and commands, flushing and reading change of a socket: nobody else does so until sock_unlock. Behind a connection's lock. */
static inline void
sock_lock(struct stack *s, struct sock *sk)
{
    if (unlikely(s->sock_locks))
        lock_take(&s->more[sock_index(s, sk)].rx_lock, s->ctr, CTR_LOCK_RCVBUF);
}

static inline void
sock_unlock(struct stack *s, struct sock *sk)
{
    if (unlikely(s->sock_locks))
        lock_give(&s->more[sock_index(s, sk)].rx_lock);
}

static inline void
sock_lock_tx(struct stack *s, struct sock *sk)
{
    if (unlikely(s->sock_locks))
        lock_take(&s->more[sock_index(s, sk)].tx_lock, s->ctr, CTR_LOCK_SNDBUF);
}

static inline void
sock_unlock_tx(struct stack *s, struct sock *sk)
{
    if (unlikely(s->sock_locks))
        lock_give(&s->more[sock_index(s, sk)].tx_lock);
}

/* ---- shared.c: one domain for several workers --------------------------------------------------------------------------------------------- */

struct shared *shared_create(uint32_t max_conns, bool free_lookup);
void shared_destroy(struct shared *sh);

/** Fill in the locks that a view gives its engine calls. */
void shared_bind(struct stack *s);

/** A worker's view of the domain that s is the main part of. NULL: no memory. */
struct stack *stack_view(struct stack *s);

/** Which sockets and connections there are does not change but by this worker until table_give. May be nested; in a domain that is not shared, nothing. */
void shared_table_take(void *ctx);
void shared_table_give(void *ctx);

static inline void
table_take(struct stack *s)
{
    if (unlikely(s->shared != NULL))
        shared_table_take(s);
}

static inline void
table_give(struct stack *s)
{
    if (unlikely(s->shared != NULL))
        shared_table_give(s);
}

/** Commands on a slot run one after the other, and its socket is not freed meanwhile. The first lock of all but a pass's. */
static inline void
slot_take(struct stack *s, struct app *app, uint32_t slot)
{
    if (unlikely(s->shared != NULL))
        lock_take(&app->slot_locks[slot], s->ctr, CTR_LOCK_SOCKET);
}

static inline void
slot_give(struct stack *s, struct app *app, uint32_t slot)
{
    if (unlikely(s->shared != NULL))
        lock_give(&app->slot_locks[slot]);
}

/* ---- rx.c, tx.c: streams --------------------------------------------------------------------------------------------------------- */

void rx_on_deliver(void *ctx, tcp_user user, struct tcp_data data);
void rx_on_release(void *ctx, tcp_buf buf);

/** Publish the growing train if the application has a place for it; returns what that makes dirty. */
uint32_t rx_publish(struct stack *s, struct sock *sk);

/** The application has moved rx_head: free buffers, open the window. */
void rx_take_to(struct stack *s, struct sock *sk, uint32_t head);

/** The same if it has. f: its words of the front region. */
static inline void
rx_take(struct stack *s, struct sock *sk, const struct shm_front_sock *f)
{
    uint32_t head = shm_load(&f->rx_head);

    if (head != sk->rx_taken)
        rx_take_to(s, sk, head);
}

/** Buffers that were freed in this pass, or while the world stood, go to the pool. */
void rx_give_back(struct net *net);

/** Open the windows of its squeezed sockets in this domain. */
void rx_relax(struct stack *s, struct app *app);

/** Free everything that waits for the application. */
void rx_drop_all(struct stack *s, struct sock *sk);

/** A burst's mbuf as the engine takes it: in the receive pool, owned by nobody else. Consumes m; NULL if no buffer is free. */
struct rte_mbuf *rx_own_net(struct net *net, struct rte_mbuf *m);

static inline struct rte_mbuf *
rx_own(struct stack *s, struct rte_mbuf *m)
{
    return rx_own_net(s->net, m);
}

void tx_on_emit(void *ctx, const struct tcp_out *out, uint64_t now_us);

/** A part of the socket's transmit stream was sent. */
void tx_on_sent(struct stack *s, struct sock *sk, uint32_t pos, uint32_t n_bytes);

/** The application has moved tx_tail: tell the engine. ending: the close that follows at once takes the last segment along with its FIN. */
void tx_take_to(struct stack *s, struct sock *sk, uint32_t tail, bool ending);

/** The same if it has. f: as for rx_take. */
static inline void
tx_take(struct stack *s, struct sock *sk, const struct shm_front_sock *f, bool ending)
{
    uint32_t tail = shm_load(&f->tx_tail);

    if (tail != sk->tx_tail)
        tx_take_to(s, sk, tail, ending);
}

/* ---- commands.c ------------------------------------------------------------------------------------------------------------------------ */

/**
 * Serve a notification for a slot (< max_socks): streams, then commands. all: every domain is entered, so that commands which concern all of
 * them can be executed; without it they, and what follows them, are left for the end of the worker's pass.
 */
void commands_service(struct stack *s, struct app *app, uint32_t slot, bool all);

/** A command's result comes later, by commands_done. */
#define COMMAND_PENDING INT32_MAX

/** The command that was pending on a slot has been executed. */
void commands_done(struct stack *s, struct app *app, uint32_t slot, int result);

/** Open the connection of an SHM_OP_CONNECT in this domain. 0 or -errno. */
int commands_connect(struct stack *s, struct sock *sk, const struct shm_cmd *cmd);

/** The answer to net_post_accept has come. */
void commands_accepted(struct stack *s, struct app *app, uint32_t slot);

/** Serve the slots (< max_socks), each wherever its socket lives; hand it over if that is another worker's domain. */
void net_dispatch(struct net *net, struct app *app, const uint32_t *slots, unsigned n);

/** Remember a slot for the pass's end, when every domain is entered in order. Where domains have locks. */
void net_leave_for_later(struct net *net, const struct app *app, uint32_t slot);

/* ---- keys.c ------------------------------------------------------------------------------------------------------------------------------ */

/** SHM_OP_SETKEY. */
int keys_command(struct stack *s, struct sock *sk, const struct shm_cmd *cmd);
/** For the connection or listener that the socket has in this domain. 0 or -errno. */
int keys_apply(struct stack *s, const struct sock *sk, const struct shm_key *key);

/** The socket's options for what is to come; NULL: no memory. */
struct tcp_sockopts *opts_of_own(struct stack *s, struct sock *sk);
/** With their keys. */
void opts_free(struct tcp_sockopts *o);
/** With keys of its own; false: no memory. */
bool opts_copy(struct tcp_sockopts *to, const struct tcp_sockopts *from);

/* ---- events.c ---------------------------------------------------------------------------------------------------------------------------- */

/** Returns 0, -EINVAL (no such queue), -ENOSPC. Subscribing twice is once. */
int events_subscribe(struct net *net, struct app *app, uint32_t slot, uint32_t queue);
void events_unsubscribe(struct net *net, struct app *app, uint32_t slot, uint32_t queue);
void events_unsubscribe_all(struct net *net, struct app *app, uint32_t slot);

/** Append the slot to one of its queues, for what happened before this call. */
void events_announce(struct net *net, struct app *app, uint32_t slot, uint32_t queue);

/** Append the slot to its socket's queues. A full fence lies between the change that it tells of and this call. */
void events_append(struct net *net, struct app *app, uint32_t slot);

/** Write the descriptors of touched queues on which someone sleeps. Begins with a full fence. */
void events_wake(struct net *net);

/* ---- spread.c: sockets that are in every domain ------------------------------------------------------------------------------------------ */

/*
 * Each is what the single-domain command does, in all of them: returns COMMAND_PENDING, and the answer comes by commands_done; or -ENOMEM. for_listen: the command is
 * looked at again when the port is there.
 */
int spread_bind(struct stack *s, struct sock *sk, const struct ip_addr *local, uint16_t port, bool for_listen);
int spread_listen(struct stack *s, struct sock *sk, uint32_t backlog);
int spread_set_backlog(struct stack *s, struct sock *sk, uint32_t backlog);
int spread_set_option(struct stack *s, struct sock *sk, uint32_t name, int32_t value);
int spread_set_key(struct stack *s, struct sock *sk, const struct shm_key *key);
/** Take it down in every domain but its own; then the command is looked at again, and the socket is not spread any more. */
int spread_end(struct stack *s, struct sock *sk);
/** As that, but nobody waits. The socket may be freed at once. */
void spread_abandon(struct stack *s, struct sock *sk);

/** The domain to accept from next, or NULL if no connection waits anywhere. */
struct stack *spread_next(struct stack *s, const struct sock *sk);

/** Take a connection of listener lsk into a free slot. Returns 0, -EAGAIN there is none, -ENFILE. */
int spread_accept(struct stack *s, struct sock *lsk, uint32_t free_slot, uint16_t member);

/* ---- transit.c: sockets that change their domain -------------------------------------------------------------------------------------------- */

/** Execute a connect in domain `to`; tried: this one has no port left, nor perhaps have others. Returns COMMAND_PENDING, or -ENOMEM. */
int transit_connect(struct stack *s, struct sock *sk, const struct shm_cmd *cmd, uint32_t to, bool tried);

/** A socket on its way. */
struct traveller {
    struct sock sock;
    struct sock_more more;
};

/** Copy a socket out; what it leaves in the domain is seen to. */
void transit_pick_up(struct stack *s, struct sock *sk, struct traveller *out);
/** Send it off in a message that holds it. */
void transit_send(struct stack *s, const struct traveller *tv, struct message *msg, uint32_t to);
/** Its place in the domain that it has come to: its shadow's, or a new one. NULL: there is none. */
struct sock *transit_settle(struct stack *s, const struct traveller *tv);

/* ---- stack.c ------------------------------------------------------------------------------------------------------------------------------ */

struct stack *stack_create(struct host *h, uint32_t number);
void stack_destroy(struct stack *s);

/** Publish what has changed in the domain, and when its timers are due. */
void stack_settle(struct stack *s);
/** Its owner's pass is over: settled, and ACKs that found no ride go. Returns how many wait on. */
unsigned stack_end_pass(struct stack *s, uint64_t now_us);
unsigned stack_timers(struct stack *s, uint64_t now_us);
void stack_fail_unresolved(struct stack *s, const struct ip_addr *unresolved, unsigned n);

/* ---- handover.c --------------------------------------------------------------------------------------------------------------------------- */

int handover_create(struct net *net);
void handover_destroy(struct net *net);
void handover_frame(struct net *net, struct net *to, const struct rte_mbuf *m);
void handover_unreachable(struct net *net, struct net *to, const struct ip_unreachable *info);
void handover_unresolved(struct net *net, struct net *to, const struct ip_addr *dst);
void handover_ring_bells(struct net *net);
/** With the world stopped: everything that is on its way between workers arrives. */
void handover_settle(struct host *h, uint64_t now_us);
/** Memory for a message of so many bytes with what follows it, zero and aligned as a socket is; NULL: none. free() ends it. */
void *message_alloc(size_t bytes);
/** Send a message to a domain: by its owner's queue, or into the mail. The worker is inside a pass, or has stopped the world, and net is the one by which the sender was entered. */
void message_send(struct net *net, struct message *msg, uint32_t to);
/** Deliver the mail; no domain is entered, or all are (host.entered). Returns how many. */
unsigned message_run(struct net *net, uint64_t now_us);
bool handover_waits(const struct net *net);

/* ---- host.c, net.c ---------------------------------------------------------------------------------------------------------------------------- */

/** Have the world stopped soon, for app_reap. Any worker. */
void host_want_stop(struct host *h);

/** As stack_enter, but only if nobody has to be waited for. */
bool stack_try_enter(struct stack *s, struct net *net, uint64_t now_us);

/** Stop the world: wait until no other worker is inside its pass (the caller is not in its own), and enter every domain in order. */
void host_stop(struct host *h, struct net *net, uint64_t now_us);
void host_go(struct host *h, struct net *net, uint64_t now_us);

/** The worker's side: run what host_call has queued; returns how many. With the world stopped. */
unsigned host_calls(struct host *h, uint64_t now_us);

static inline struct net *
host_owner(const struct host *h, uint32_t stack)
{
    return h->nets[stack % h->nb_nets];
}

/** May this worker enter the domain? */
static inline bool
host_in_reach(const struct host *h, const struct net *net, uint32_t stack)
{
    return h->locking || host_owner(h, stack) == net || h->entered;
}

/** The tuple of a packet; false: it is too short to have one. */
bool packet_tuple(const struct ip_packet *p, struct tcp_tuple *t);

/** Where a slot's socket lives; for a free slot, where a fresh one is born. */
struct stack *host_stack_of(const struct host *h, const struct app *app, uint32_t slot);

struct net *net_create(struct host *h, uint32_t number, uint32_t nb_nets, struct counters *ctr);
void net_destroy(struct net *net);
/** handed: another worker passed it on to net's. */
void net_unreachable(struct net *net, const struct ip_unreachable *info, bool handed, uint64_t now_us);

/**
 * The domain in which something of a tuple is to be applied, as far as `of`'s worker knows: his own, or one whose owner he passes it on to. What was handed over to him is
 * his, unless the connection has moved on.
 */
uint32_t net_whereabouts(const struct net *of, const struct tcp_tuple *t, bool handed);
/** Remember a neighbour that did not answer, until the pass's end. */
void net_note_unresolved(struct net *net, const struct ip_addr *dst);

struct app *host_find_app(const struct host *h, uint64_t id);
uint32_t host_rx_bufs(const struct host *h);
static inline uint32_t
app_rx_bufs(const struct app *app)
{
    int32_t sum = __atomic_load_n(&app->rx_bufs[0].n, __ATOMIC_RELAXED);

    for (uint32_t i = 1; i < app->host->nb_nets; i++)
        sum += __atomic_load_n(&app->rx_bufs[i].n, __ATOMIC_RELAXED);
    return sum > 0 ? (uint32_t)sum : 0; /* parts are read at different instants */
}

/** Domains and workers read a count that they only sum: each adds to its own part. */
static inline void
count_rx_bufs(struct stack *s, struct app *app, int32_t n)
{
    int32_t *of_app = &app->rx_bufs[s->net->number].n;

    __atomic_store_n(of_app, *of_app + n, __ATOMIC_RELAXED);
    __atomic_store_n(&s->net->rx_bufs, s->net->rx_bufs + n, __ATOMIC_RELAXED);
}

/* What one worker hands over to another: neither is ever lost. */
void net_post_notify(struct net *net, struct net *to, const struct app *app, uint32_t slot);
void net_post_accept(struct net *net, struct net *to, const struct app *app, uint32_t slot);
void net_post_accepted(struct net *net, struct net *to, const struct app *app, uint32_t slot);

/* ---- app.c --------------------------------------------------------------------------------------------------------------------------------- */

/** Take up to budget notifications from the worker's rings of an application; returns how many. */
unsigned app_poll(struct net *net, struct app *app, unsigned budget, uint64_t now_us);

/** Does a ring of that worker hold anything? */
bool app_has_work(const struct net *net, const struct app *app);

/** When app_poll must run for a ring under suspicion; UINT64_MAX if never. */
uint64_t app_next_us(const struct net *net, const struct app *app);

/** Is that the number of a live process of the family? */
bool app_member_ok(const struct app *app, uint16_t member);
bool app_member_holds(const struct app *app, uint16_t member, uint32_t slot);
void app_member_hold(struct app *app, uint16_t member, uint32_t slot);
void app_member_drop(struct app *app, uint16_t member, uint32_t slot);

/** Expel and relax applications that are to be; leaves dirty sockets behind. With the world stopped. */
void app_settle(struct host *h);
/** Free the applications that have neither members nor sockets. With the world stopped, and nobody left to wake. */
void app_reap(struct host *h);

/** Reserve address space that takes memory as it is touched. NULL: none. */
void *lazy_alloc(size_t bytes);
/** The same, of memory that goes back by the page: larger pages would keep it. */
void *lazy_alloc_by_page(size_t bytes);
void lazy_free(void *p, size_t bytes);
/** Part of it is zero, and will hardly be touched soon. */
void lazy_give_back(void *at, size_t bytes);

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

static inline struct shm_addr
sock_address(const struct sock *sk, enum shm_end end)
{
    return shm_name(&sk->app->back_names[sk->slot], &sk->app->back_more[sk->slot], end);
}

static inline void
sock_set_address(const struct sock *sk, enum shm_end end, const struct ip_addr *a, uint16_t port)
{
    const struct shm_addr name = addr_to_shm(a, port);

    shm_name_set(&sk->app->back_names[sk->slot], &sk->app->back_more[sk->slot], end, &name);
}

#endif /* SOCKETS_BACKEND_H */
