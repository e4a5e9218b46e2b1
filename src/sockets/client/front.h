/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_FRONT_H
#define SOCKETS_CLIENT_FRONT_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sockets/control.h"
#include "sockets/shm.h"

/**
 * @file
 * A thread's attachment to its stack, and the front-end's own words of a socket. sockets/shm.h is the law; what is here is how the
 * processes of a family agree among themselves.
 */

#define FRONT_LIKELY(x) __builtin_expect(!!(x), 1)
#define FRONT_UNLIKELY(x) __builtin_expect(!!(x), 0)

/**
 * The stack in this very process: what goes by the control socket otherwise. Declared here, filled in by whoever starts it (front_adopt_home).
 */
struct front_home {
    int (*eventq_create)(uint32_t *queue, int *fd);
    void (*eventq_destroy)(uint32_t queue);
};

/**
 * The stack that this process is to run inside itself, but not before some socket of it waits or connects: a server may bind and fork, and the child that
 * serves has the stack (promise.h). Set before the first socket.
 */
struct front_plan {
    /** Read the configuration: where the stack will be, in *page. Returns 0, or -errno after one line on stderr. */
    int (*prepare)(struct shm_stack_page *page);
    /**
     * Start it in the calling thread, and adopt it. Returns 0, -EINTR if a signal came while another process had the stack (then it may be called again),
     * or another -errno after one line on stderr.
     */
    int (*start)(void);
};

extern const struct front_plan *front_plan; /**< NULL: there is none */

/**
 * This thread has had to do with sockets of the stack's: where waiting threads run the stack, it does so while it waits for other things, too. Other threads, of which
 * drivers have some, do not.
 */
extern __thread bool front_joined;

/**
 * Besides, what takes the place of notification rings, doorbells and sleep where the calling thread runs the stack itself. No other thread
 * serves the stack, so each wait below goes by passes.
 */
struct front_local {
    /** The socket has something for the stack, which the next pass takes. The caller holds the socket's lock. */
    void (*notify)(uint32_t slot);
    /** Serve the socket now: a command waits there, and somebody for its result. timed: what time it is matters; else the clock need not be read. */
    void (*serve)(uint32_t slot, bool timed);
    /** One pass of the stack, unless another thread is in one. */
    void (*pass)(void);
    /** A call that does not wait found nothing: a pass if the last one was long ago, for programs that only try. */
    void (*tried)(void);
    /** Before sleeping: for how many us at most, 0 = not now, go on with passes. Unless 0 is returned, sleep_end follows. */
    uint64_t (*sleep_begin)(void);
    void (*sleep_end)(void);
    int wake_fd; /**< readable when a sleeper must come back: watched while asleep */
    sigset_t
        driver_signals; /**< blocked while asleep: wake_fd says what they say, and the sleeper's EINTR would be the program's */
};

enum front_state {
    FRONT_NEW,
    FRONT_ATTACHED,
    FRONT_ALONE, /**< no stack: the kernel serves everything */
    FRONT_PLANNED, /**< a stack inside this process (front_plan) that nobody has waited for yet: `page` says where it will be, nothing else is there */
};

#define SOLE_TERMS 8u /**< so often may another thread be the sole one */
#define SOLE_NOBODY UINT32_MAX

struct closing_entry;
struct obj;

struct front {
    uint32_t state; /**< enum front_state */
    uint32_t dead; /**< the stack has gone, or this process lost its place in the family */
    struct shm_front_sock *fsocks;
    const struct shm_back_sock *bsocks;
    const struct front_local *local; /**< NULL: other threads or another process run the stack */
    const struct front_home *home; /**< NULL: the stack is another process */
    /** Which thread has it for itself: sole.h. */
    struct {
        uint32_t term; /**< odd; while it is being ended, the even number below; SOLE_NOBODY: for good */
        uint32_t begun; /**< there was one */
        uint32_t inside[2 * SOLE_TERMS]; /**< of each term: how deep its thread is between enter and leave */
    } sole;
    void *owner; /**< with home: whoever started it */
    uint32_t sock_side; /**< obj.side of its sockets, but for what few have */
    uint8_t number; /**< in front_of */
    bool own_descriptors; /**< sockets are the stack's from the start: see fdtable.h */
    int control_fd;
    int front_fd; /**< with home: the front region's, by which a forked child maps it anew; -1 = there is none */
    pid_t pid; /**< a vfork child sees another one, and keeps its hands off */
    uint16_t member;
    uint64_t family;
    struct shm_layout lay;
    char *front, *chunks, *smalls;
    const char *back, *pool;
    const struct shm_stack_page *page;
    struct shm_front_more *fmore;
    const struct shm_back_more *bmore;
    const struct shm_back_name *bnames;
    struct obj **sock_of_slot; /**< evq.c */
    /** What this process has closed and the stack has not finished with: a queue, since most finish in order. alloc.c */
    struct {
        uint32_t lock;
        uint32_t head, tail; /**< free-running; atomic for those who look without the lock */
        uint32_t mask;
        struct closing_entry *entries;
    } closing;
    int doorbell[SHM_MAX_INSTANCES];
    uint32_t control_lock; /**< one request at a time on the control socket */
    char path[108]; /**< of the control socket */
};

/**
 * The one that the calling thread uses. A process has one, unless it runs several stacks itself: then each thread sees the sockets of one of them, and for all other
 * descriptors the kernel answers. front_of[0] is the first, with which threads begin.
 */
extern __thread struct front *front;

#define FRONT_MAX 8u

extern struct front *front_of[FRONT_MAX]; /**< set once, with a release */

/* ---- the front-end's own words of a socket ------------------------------------------------------------------------ */

#define SLOT_NONBLOCK 0x01u /**< O_NONBLOCK: of the open file description, so the family shares it */
#define SLOT_SHUT_RD 0x02u
#define SLOT_SHUT_WR 0x04u
#define SLOT_ERROR_TAKEN 0x08u /**< back->error has been reported to the user once */
#define SLOT_CONNECT_TOLD 0x10u /**< connect() has returned 0: the next one says EISCONN */
#define SLOT_CONNECTING 0x20u /**< connect() was called */
#define SLOT_V6 0x40u /**< AF_INET6: addresses are shown as such */
#define SLOT_LISTENER 0x80u
#define SLOT_CONNECT_FAILED 0x100u /**< connect() has told its error: the socket is as good as new */
#define SLOT_OPTS 0x400u /**< slot_opts is in use */
#define SLOT_DEFERRED                                                                                                  \
    0x800u /**< TCP_FASTOPEN_CONNECT: the connection to slot_opts.deferred begins with the first bytes */

#define SLOT_STAGED                                                                                                    \
    0x1000u /**< a command has bytes behind tx_tail: meanwhile their memory stays, and nobody else sends */

/**
 * How many bytes behind tx_tail the program is writing in place, 1 to SHM_CHUNK_BYTES, or 0: meanwhile their chunk stays, and nothing else is sent.
 */
#define SLOT_RESERVED_SHIFT 15
#define SLOT_RESERVED (UINT32_MAX << SLOT_RESERVED_SHIFT)

/** In private0: line 0, what each call touches. */
struct slot_hot {
    uint32_t lock;
    uint32_t rx_pos; /**< bytes of the receive stream copied out; front->rx_head follows */
    uint32_t rx_segment; /**< the segment that rx_pos is in (units of 64 bytes), 0 = at the start of a train */
    uint32_t rx_told; /**< rx_head at the last notification about it */
    uint16_t rx_off; /**< bytes of it that were taken */
    uint16_t train; /**< trains finished, modulo 2^16 */
    uint16_t trains_told; /**< train at the last notification */
    uint16_t tx_low; /**< chunks below this one (distance from tx_base / SHM_CHUNK_BYTES) have been given back */
    uint32_t flags; /**< SLOT_* */
    uint32_t sleepers; /**< how many sleep: readers in bits 0..9, writers 10..19, for a command 20..29 */
};

/** In private1: whose slot it is, the options that nearly every socket sets, and whose turn it is to post commands. */
struct slot_claim {
    uint32_t state; /**< epoch << 2 | enum slot_state */
    uint32_t set; /**< bit for each row of the table in opts.c that was set */
    uint32_t switches; /**< bit for each of its switches */
    uint32_t cmd_lock; /**< held from posting a command until its result is read */
};

/** In shm_front_more: options that the stack need not know, or that getsockopt tells. All zero unless SLOT_OPTS. */
struct slot_opts {
    uint32_t rcvtimeo_us_lo, sndtimeo_us_lo; /**< 0 = none; bounded by 71 minutes, above which it is "none" in effect */
    uint32_t rcvlowat; /**< 0 and 1: any byte wakes a reader */
    uint32_t notsent_lowat; /**< 0 = none */
    uint32_t linger_s;
    uint32_t rcvbuf_bytes, sndbuf_bytes; /**< as the user asked; Linux tells the double */
    uint32_t user_timeout_ms;
    int32_t linger2_s;
    uint16_t keepidle_s, keepintvl_s;
    uint8_t keepcnt, syncnt, tos, linger_on;
    uint8_t mtu_discover, reserved[3];
    uint32_t maxseg_bytes;
    uint32_t window_clamp_bytes;
    uint32_t defer_accept_s;
    uint32_t fastopen_qlen;
    int32_t priority;
    int32_t mtu_discover_v6;
    uint32_t max_pacing_rate; /**< bytes per second */
    uint32_t zerocopy_sends,
        zerocopy_told; /**< sends with MSG_ZEROCOPY, and how many of them the error queue has told */
    uint32_t ts_flags; /**< SO_TIMESTAMPING and its kin: stamp.c */
    uint32_t ts_key; /**< position from which SOF_TIMESTAMPING_OPT_ID counts */
    struct shm_addr deferred; /**< with SLOT_DEFERRED */
};

static_assert(sizeof(struct slot_hot) == sizeof(((struct shm_front_sock *)0)->private0), "slot_hot");
static_assert(sizeof(struct slot_claim) == sizeof(((struct shm_front_sock *)0)->private1), "slot_claim");
static_assert(sizeof(struct slot_opts) <= sizeof(((struct shm_front_more *)0)->private0), "slot_opts");

static inline struct shm_front_sock *
front_sock(uint32_t slot)
{
    return &front->fsocks[slot];
}

static inline const struct shm_back_sock *
back_sock(uint32_t slot)
{
    return &front->bsocks[slot];
}

/** Names the chunk of a distance in the transmit stream: 1 + its number, 0 = none. */
static inline uint16_t *
tx_chunk(uint32_t slot, uint32_t distance)
{
    return shm_tx_chunk(&front->fsocks[slot], &front->fmore[slot], distance);
}

static inline struct slot_hot *
slot_hot(struct shm_front_sock *f)
{
    return (struct slot_hot *)(void *)f->private0;
}

static inline struct slot_claim *
slot_claim(struct shm_front_sock *f)
{
    return (struct slot_claim *)(void *)f->private1;
}

extern const struct slot_opts slot_opts_none;

/** No program has memory there: around NULL, and in the kernel's half of the address space. */
static inline bool
is_nowhere(const void *p)
{
    return (uintptr_t)p < 4096 || (uintptr_t)p > UINTPTR_MAX / 2;
}

/** To read. */
static inline const struct slot_opts *
slot_opts(uint32_t slot)
{
    const struct slot_hot *h = slot_hot(front_sock(slot));

    if (FRONT_LIKELY(!(__atomic_load_n(&h->flags, __ATOMIC_RELAXED) & SLOT_OPTS)))
        return &slot_opts_none;
    return (const struct slot_opts *)(const void *)front->fmore[slot].private0;
}

static inline uint32_t
load_relaxed(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline uint32_t
load_acquire(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void
store_relaxed(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static inline void
store_relaxed16(uint16_t *p, uint32_t v)
{
    __atomic_store_n(p, (uint16_t)v, __ATOMIC_RELAXED);
}

static inline void
store_release(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

static inline void
full_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* ---- attach.c ------------------------------------------------------------------------------------------------------- */

/** Another one, for another stack of this process; NULL with ENOSPC (there are FRONT_MAX) or ENOMEM. Once adopted it stays until the process ends. Any thread. */
struct front *front_create(void);
/** It was not adopted after all. */
void front_discard(struct front *f);
/** The calling thread uses this one from now on. */
void front_use(struct front *f);

/**
 * Attach to the stack unless that was done or tried before. The first failure prints one line on stderr; from then on the kernel serves
 * everything. Any thread. Returns whether there is a stack.
 */
bool front_attach(void);

/** Is there a stack, or will there be one? Then front->page says its addresses. front_attach, but for a plan. Any thread. */
bool front_expect(void);
/** Whether the stack is still a plan. */
static inline bool
front_is_planned(void)
{
    return load_acquire(&front->state) == FRONT_PLANNED;
}

/** The regions are mapped at these places: used by front_attach, and by tests that play the stack in memory. */
void front_adopt(const struct shm_layout *lay, void *f, const void *b, const void *pool, const void *page);

/**
 * After front_adopt: the stack is in this process, which is thereby attached as that member. local: NULL if other threads run it, who are rung by
 * doorbell[nb_instances]. front_fd, the front region's descriptor, or -1, is the front-end's from then on: what a forked child writes must not reach the
 * parent's stack.
 */
void front_adopt_home(const struct front_home *home, const struct front_local *local, const int *doorbell,
                      uint16_t member, int front_fd);

/** Look at the control socket: has the stack gone? Sets front->dead. A system call: only after a wait has lasted suspiciously long. */
bool front_check_alive(void);

/**
 * An event queue for this process: its number and its wake-up descriptor (non-blocking, close-on-exec, ours). Returns 0, -ENETDOWN,
 * -ENOSPC, -EMFILE, -EDEADLK (from a signal handler).
 */
int front_eventq_create(uint32_t *queue, int *fd);
void front_eventq_destroy(uint32_t queue, int fd);

/** A connection for a child to be: descriptor and member number, or -errno. */
int front_open_child(uint16_t *member);
/** In the child: take that place. fd < 0: there is none, and inherited sockets are dead here. */
void front_become_child(int fd, uint16_t member);

/** Move a descriptor that is ours out of the way of programs that count on low numbers; returns the new one. Marks it internal. */
int front_hide_fd(int fd);

/* ---- alloc.c: what the family shares -------------------------------------------------------------------------------- */

/** A free slot, SHM_NO_SLOT if there is none. Its streams are zeroed as shm.h wants it before OPEN and ACCEPT. */
uint32_t slot_alloc(void);
/** OPEN or ACCEPT has succeeded: the slot is a socket now. */
void slot_opened(uint32_t slot);
/** It was never opened: back to the free ones. */
void slot_free(uint32_t slot);
/** SHM_OP_CLOSE was posted: the slot and its chunks return when the stack is done with them. */
void slot_closing(uint32_t slot);
/** Look whether closed slots can return, at most n of them. */
void slot_reap(unsigned n);
/** In a forked child: what the parent closed, the parent reaps. */
void slot_forget_closing(void);

/** A transmit chunk, SHM_NO_CHUNK if all are taken. */
uint32_t chunk_alloc(void);
void chunk_free(uint32_t chunk);
static inline char *
chunk_at(uint32_t chunk)
{
    return front->chunks + (uint64_t)chunk * SHM_CHUNK_BYTES;
}
/** A small block, UINT32_MAX if all are taken. */
uint32_t small_alloc(void);
void small_free(uint32_t small);
static inline char *
small_at(uint32_t small)
{
    return front->smalls + (uint64_t)small * SHM_SMALL_BYTES;
}
/** Before a sleep, at an instant of wait_now_us: what a burst of sending took goes back to the kernel, little by little. */
void chunks_trim(uint64_t now_us);
/** Give back the chunks of a socket that the peer has acknowledged entirely. The caller holds its lock. */
void slot_free_acked(uint32_t slot);

/** An info slot for SHM_OP_INFO (SHM_INFO_SLOTS of them for the family), or -EBUSY. */
int info_alloc(void);
void info_free(int slot);

/* ---- opts.c: what a slot's options are --------------------------------------------------------------------------------- */

/** To write: the memory is the socket's from now on. */
struct slot_opts *opts_own(uint32_t slot);
/** Take over a listener's, as Linux does. */
void opts_inherit(uint32_t slot, uint32_t listener);
/** As of a fresh socket. */
void opts_clear(uint32_t slot);

/* ---- notify.c --------------------------------------------------------------------------------------------------------- */

/** Tell the stack, by the rule in shm.h, that the socket has something for it. The caller holds the socket's lock. */
void notify_stack(uint32_t slot);

/** Count a notification; false: one is pending, and the stack will see this too. */
static inline bool
notify_begins(struct shm_front_sock *f, const struct shm_back_sock *b)
{
    if (load_relaxed(&b->serviced) != f->notified)
        return false;
    store_release(&f->notified, f->notified + 1);
    return true;
}

/** As notify_stack, inside (sole.h). */
static inline void
notify_inside(uint32_t slot, struct shm_front_sock *f, const struct shm_back_sock *b)
{
    if (notify_begins(f, b))
        front->local->notify(slot);
}

/**
 * Post a command. With wait, waits for its result (never interrupted by signals; commands take microseconds) and returns it; without,
 * returns 0. -ENETDOWN if the stack has gone, -EDEADLK in a signal handler that interrupted a command on the same socket.
 */
int command_run(uint32_t slot, const struct shm_cmd *cmd, bool wait);

/** Wait until the stack has run what was posted on the socket, for at most so long. */
void command_settle(uint32_t slot, uint32_t max_us);

/** The common ones. */
int command_simple(uint32_t slot, enum shm_op op, int32_t value);
int command_option(uint32_t slot, uint32_t name, int32_t value, bool wait);
/** seen: event_seq as it was before the socket was looked at. */
int command_queue(uint32_t slot, enum shm_op op, uint32_t queue, uint32_t seen);

/* ---- wait.c ----------------------------------------------------------------------------------------------------------- */

#define WAIT_FOREVER UINT64_MAX

/** What to block during a sleep between sleep_begin and sleep_end: mask (NULL: the thread's own) and the drivers' signals. Returns *out. */
const sigset_t *wait_local_mask(const sigset_t *mask, sigset_t *out);

/** CLOCK_MONOTONIC. */
uint64_t wait_now_us(void);

enum wait_for { WAIT_READ, WAIT_WRITE, WAIT_CMD };

/**
 * Sleep until ready(slot) holds: a brief spin, then an event queue (no timeout) or a futex on the socket's event_seq. No lock is held. Returns 0; -EINTR by a signal handler;
 * -EAGAIN when deadline_us (wait_now_us's clock) has passed; -ENETDOWN.
 */
int wait_sock(uint32_t slot, enum wait_for what, bool (*ready)(uint32_t slot), uint64_t deadline_us);

/** The brief spin alone: whether ready(arg) came true. Learns for each thread how long is worth it. */
bool wait_spin(bool (*ready)(void *arg), void *arg);

#endif /* SOCKETS_CLIENT_FRONT_H */
