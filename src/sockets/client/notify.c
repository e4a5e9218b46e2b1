/* SPDX-License-Identifier: BSD-3-Clause */
#include "front.h"

#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include <rte_pause.h>
#include <rte_ring_elem.h>

#include "libc.h"
#include "lock.h"
#include "sole.h"

/* ---- notifications -------------------------------------------------------------------------------------------------- */

/*
 * A signal handler may interrupt this thread inside the ring's enqueue, where a second producer has to wait for the first: for ever, since the first
 * is below it on the same stack. So the handler leaves its notification here, and the interrupted call enqueues it.
 */
#define DEFERRED_MAX 64u
/* A live producer is between its two steps for nanoseconds, unless it is not scheduled. */
#define LET_FINISH_SPINS 32u
#define LET_FINISH_YIELDS 4096u

static __thread struct {
    volatile uint32_t inside;
    volatile uint32_t nb_deferred;
    uint32_t deferred[DEFERRED_MAX];
} enqueuing;

/*
 * The ring of the CPU that the thread runs on, or one of the thread's own: which of the two is the stack's choice. Any ring
 * would do, since every one takes several producers; the choice keeps them apart.
 */
static uint32_t
ring_number(void)
{
    static uint32_t nb_threads; /* of this process that have chosen: neighbours get rings of their own */
    static __thread uint32_t thread_ring; /* 1 + number, 0 = not chosen yet */
    int cpu;

    if (front->lay.nb_rings_per_instance == 1)
        return 0;
    if (front->page->ring_by_thread) {
        if (thread_ring == 0)
            thread_ring = 1 + ((uint32_t)front->pid + __atomic_fetch_add(&nb_threads, 1, __ATOMIC_RELAXED)) %
                                  front->lay.nb_rings_per_instance;
        return thread_ring - 1;
    }
    cpu = sched_getcpu();
    return (uint32_t)(cpu < 0 ? 0 : cpu) % front->lay.nb_rings_per_instance;
}

/* Any worker may serve the socket: the one that this CPU's calls go to, so that CPUs are spread over the workers. */
static uint32_t
any_instance(void)
{
    int cpu = front->lay.nb_instances > 1 ? sched_getcpu() : 0;

    return (uint32_t)(cpu < 0 ? 0 : cpu) % front->lay.nb_instances;
}

static struct rte_ring *
ring_of(uint32_t instance)
{
    uint64_t n = (uint64_t)instance * front->lay.nb_rings_per_instance + ring_number();

    return (struct rte_ring *)(void *)(front->front + front->lay.front_rings_off + n * front->lay.ring_bytes);
}

/*
 * A producer that lost its CPU between its two steps makes those behind it wait within rte_ring, who do not yield: threads that share its CPU would each burn a time slice. So
 * they look before they enter, and let it run. One that died is stepped over by the stack, which the enqueue waits for.
 */
static void
let_others_finish(const struct rte_ring *r)
{
    for (uint32_t i = 0; i < LET_FINISH_YIELDS; i++) {
        uint32_t head = __atomic_load_n(&r->prod.head, __ATOMIC_RELAXED);

        if (FRONT_LIKELY(head == __atomic_load_n(&r->prod.tail, __ATOMIC_RELAXED)))
            return;
        if (i < LET_FINISH_SPINS)
            rte_pause();
        else
            sched_yield();
    }
}

static void
ring_doorbell(uint32_t instance)
{
    uint64_t one = 1;
    int saved_errno = errno;

    full_fence();
    if (load_relaxed(&front->page->instance[instance].sleeping) &&
        libc()->write(front->doorbell[instance], &one, sizeof(one)) < 0)
        errno = saved_errno; /* EAGAIN: the doorbell has been rung 2^64 - 2 times already; gone: noticed elsewhere */
}

static void
enqueue(uint32_t slot)
{
    uint32_t instance = load_relaxed(&back_sock(slot)->instance);
    struct rte_ring *r;

    if (instance >= front->lay.nb_instances)
        instance = any_instance();
    r = ring_of(instance);
    let_others_finish(r);
    /* Full only if more sockets than entries wait at once; the stack is taking them out. */
    while (rte_ring_mp_enqueue_bulk_elem(r, &slot, sizeof(slot), 1, NULL) == 0) {
        if (load_relaxed(&front->dead))
            return;
        ring_doorbell(instance);
        sched_yield();
        front_check_alive();
    }
    ring_doorbell(instance);
}

static void
enqueue_safely(uint32_t slot)
{
    if (FRONT_UNLIKELY(enqueuing.inside)) {
        if (enqueuing.nb_deferred < DEFERRED_MAX)
            enqueuing.deferred[enqueuing.nb_deferred++] = slot;
        return;
    }
    enqueuing.inside = 1;
    enqueue(slot);
    while (FRONT_UNLIKELY(enqueuing.nb_deferred > 0))
        enqueue(enqueuing.deferred[--enqueuing.nb_deferred]);
    enqueuing.inside = 0;
}

void
notify_stack(uint32_t slot)
{
    sole_fence();
    if (!notify_begins(front_sock(slot), back_sock(slot)))
        return;
    if (front->local != NULL)
        front->local->notify(slot);
    else if (FRONT_LIKELY(!load_relaxed(&front->dead)))
        enqueue_safely(slot);
}

/* ---- commands ------------------------------------------------------------------------------------------------------- */

static bool
all_commands_done(uint32_t slot)
{
    return load_acquire(&back_sock(slot)->cmd_done) == load_relaxed(&front_sock(slot)->cmd_head);
}

static bool
command_has_room(uint32_t slot)
{
    return load_relaxed(&front_sock(slot)->cmd_head) - load_acquire(&back_sock(slot)->cmd_done) < SHM_CMDS;
}

/* As number n, within *term. */
static int
command_post(uint32_t slot, struct shm_front_sock *f, uint32_t n, const struct shm_cmd *cmd, bool wait, uint32_t *term)
{
    if (FRONT_UNLIKELY(!command_has_room(slot))) {
        lock_stay_outside(term);
        int rc = wait_sock(slot, WAIT_CMD, command_has_room, WAIT_FOREVER);
        if (rc != 0)
            return rc;
    }
    f->cmd[n % SHM_CMDS] = *cmd;
    f->cmd[n % SHM_CMDS].member = front->member;
    if (!lock_acquire_too(&slot_hot(f)->lock, term))
        return -EDEADLK;
    store_release(&f->cmd_head, n + 1);
    if (front->local == NULL || !wait)
        notify_stack(slot);
    lock_release_too(&slot_hot(f)->lock, *term);
    return 0;
}

/* Nothing is sent by these, nor a timer armed: neither on a fresh socket nor on a listener. */
static bool
is_timed(enum shm_op op)
{
    return op != SHM_OP_OPEN && op != SHM_OP_ACCEPT;
}

static int
command_result(uint32_t slot, uint32_t n, enum shm_op op)
{
    int rc;

    if (front->local != NULL)
        front->local->serve(slot, is_timed(op));
    rc = all_commands_done(slot) ? 0 : wait_sock(slot, WAIT_CMD, all_commands_done, WAIT_FOREVER);
    return rc != 0 ? rc : __atomic_load_n(&back_sock(slot)->cmd_result[n % SHM_CMDS], __ATOMIC_RELAXED);
}

int
command_run(uint32_t slot, const struct shm_cmd *cmd, bool wait)
{
    struct shm_front_sock *f = front_sock(slot);
    uint32_t *lock = &slot_claim(f)->cmd_lock, n, term;
    int rc;

    if (load_relaxed(&front->dead))
        return -ENETDOWN;
    if (!lock_acquire_brief(lock, &term))
        return -EDEADLK;
    n = load_relaxed(&f->cmd_head);
    rc = command_post(slot, f, n, cmd, wait, &term);
    if (rc == 0 && wait) {
        lock_stay_outside(&term);
        rc = command_result(slot, n, (enum shm_op)cmd->op);
    }
    lock_release_brief(lock, term);
    return rc;
}

void
command_settle(uint32_t slot, uint32_t max_us)
{
    wait_sock(slot, WAIT_CMD, all_commands_done, wait_now_us() + max_us);
}

int
command_simple(uint32_t slot, enum shm_op op, int32_t value)
{
    struct shm_cmd cmd = { .op = (uint8_t)op };

    cmd.opt.value = value;
    return command_run(slot, &cmd, true);
}

int
command_option(uint32_t slot, uint32_t name, int32_t value, bool wait)
{
    struct shm_cmd cmd = { .op = SHM_OP_SETOPT };

    cmd.opt.name = name;
    cmd.opt.value = value;
    return command_run(slot, &cmd, wait);
}

int
command_queue(uint32_t slot, enum shm_op op, uint32_t queue, uint32_t seen)
{
    struct shm_cmd cmd = { .op = (uint8_t)op };

    cmd.evq.queue = queue;
    cmd.evq.seen = seen;
    return command_run(slot, &cmd, false);
}
