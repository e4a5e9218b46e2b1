/* SPDX-License-Identifier: BSD-3-Clause */
#include "world.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>

/**
 * @file
 * A mode's workers on real threads: every byte arrives, and afterwards nothing is held or lost. Node 1's workers run on threads of their own, node 0 and the
 * applications on the main one. Under the thread sanitizer (make tsan) this is the search for what neither a lock nor a queue keeps apart.
 */

#define WORKERS_MAX 4
#define ROUNDS 2
#define PARALLEL 8u

/* ---- a packet pool that the thread sanitizer can follow: DPDK's own is a ring in a library that it does not see into --------------------- */

struct locked_stack {
    pthread_mutex_t lock;
    unsigned n;
    void *obj[];
};

static int
locked_alloc(struct rte_mempool *mp)
{
    struct locked_stack *st = calloc(1, sizeof(*st) + mp->size * sizeof(st->obj[0]));

    if (st == NULL)
        return -1;
    pthread_mutex_init(&st->lock, NULL);
    mp->pool_data = st;
    return 0;
}

static void
locked_free(struct rte_mempool *mp)
{
    free(mp->pool_data);
}

static int
locked_enqueue(struct rte_mempool *mp, void *const *obj, unsigned n)
{
    struct locked_stack *st = mp->pool_data;

    pthread_mutex_lock(&st->lock);
    for (unsigned i = 0; i < n; i++)
        st->obj[st->n++] = obj[i];
    pthread_mutex_unlock(&st->lock);
    return 0;
}

static int
locked_dequeue(struct rte_mempool *mp, void **obj, unsigned n)
{
    struct locked_stack *st = mp->pool_data;
    bool enough;

    pthread_mutex_lock(&st->lock);
    enough = st->n >= n;
    for (unsigned i = 0; enough && i < n; i++)
        obj[i] = st->obj[--st->n];
    pthread_mutex_unlock(&st->lock);
    return enough ? 0 : -1;
}

static unsigned
locked_count(const struct rte_mempool *mp)
{
    const struct locked_stack *st = mp->pool_data;

    return __atomic_load_n(&st->n, __ATOMIC_RELAXED);
}

static const struct rte_mempool_ops locked_ops = {
    .name = "locked",
    .alloc = locked_alloc,
    .free = locked_free,
    .enqueue = locked_enqueue,
    .dequeue = locked_dequeue,
    .get_count = locked_count,
};

RTE_MEMPOOL_REGISTER_OPS(locked_ops)

/* ---- threads ---------------------------------------------------------------------------------------------------------------------- */

static struct {
    pthread_t thread[WORKERS_MAX];
    uint32_t numbers; /* given to threads so far; atomic */
    uint64_t now_us; /* of node 1; atomic */
    bool stop; /* atomic */
} threads;

#define STEAL_EVERY 64u
#define STEAL_MAX 4u

/* For a mode whose connections move: more often than their load would have it, from the next worker. */
static void
steal(unsigned w, uint64_t now_us)
{
    struct host *h = run.ops->host(run.mode[1]);
    struct net *net = host_net(h, w);
    struct stack *s = host_stack(h, w);

    net_begin(net);
    stack_enter(s, net, now_us);
    stack_steal(s, (w + 1) % host_nb_stacks(h), STEAL_MAX);
    stack_leave(s);
    net_end(net, now_us);
}

/* Time runs with every poll. */
static void *
poll_on_thread(void *arg)
{
    uint32_t w = __atomic_fetch_add(&threads.numbers, 1, __ATOMIC_RELAXED);
    const bool moves = arg != NULL;
    uint32_t polls = 0;

    while (!__atomic_load_n(&threads.stop, __ATOMIC_RELAXED)) {
        uint64_t now_us = __atomic_add_fetch(&threads.now_us, 3, __ATOMIC_RELAXED);

        if (run.ops->poll(run.mode[1], w, now_us) == 0)
            sched_yield();
        if (moves && ++polls % STEAL_EVERY == 0)
            steal(w, now_us);
    }
    return NULL;
}

static void
threads_start(const struct world *w, unsigned n, bool moves)
{
    memset(&threads, 0, sizeof(threads));
    threads.now_us = w->net.now_us;
    run.still = UINT32_MAX;
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(pthread_create(&threads.thread[i], NULL, poll_on_thread, moves ? &threads : NULL), 0);
}

static void
threads_stop(struct world *w, unsigned n)
{
    __atomic_store_n(&threads.stop, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads.thread[i], NULL);
    w->net.now_us = RTE_MAX(w->net.now_us, threads.now_us);
    run.still = 0;
}

/* ---- load -------------------------------------------------------------------------------------------------------------------------- */

/* Connections of node 1 to itself: both ends are in the one domain, and every worker meets both. */
static void
round_within(struct world *w, uint32_t listener, uint32_t n_bytes)
{
    uint32_t client[PARALLEL], server[PARALLEL];
    struct stream st[2 * PARALLEL];

    for (unsigned i = 0; i < PARALLEL; i++) {
        client[i] = connect_to(&w->b, &w->b, PORT);
        net_until(&w->net, shm_load(&fapp_back(&w->b, listener)->accept_ready) > 0);
        assert_int_equal(fapp_accept(&w->b, listener, &server[i]), 0);
        st[2 * i] = (struct stream){ .from = &w->b, .to = &w->b, .tx = client[i], .rx = server[i], .conn = 2 * i };
        st[2 * i + 1] =
            (struct stream){ .from = &w->b, .to = &w->b, .tx = server[i], .rx = client[i], .conn = 2 * i + 1 };
    }
    transfer_all(&w->net, st, 2 * PARALLEL, n_bytes);
    /* Orderly ends, resets, and ends from either side. */
    for (unsigned i = 0; i < PARALLEL; i++) {
        assert_int_equal(fapp_close(&w->b, i % 2 ? client[i] : server[i], i % 3 == 0), 0);
        assert_int_equal(fapp_close(&w->b, i % 2 ? server[i] : client[i], false), 0);
    }
}

/* Connections over the wire, which loses frames. */
static void
round_across(struct world *w, uint32_t listener, uint32_t n_bytes)
{
    uint32_t client[PARALLEL], server[PARALLEL];
    struct stream st[2 * PARALLEL];

    for (unsigned i = 0; i < PARALLEL; i++) {
        client[i] = connect_to(&w->a, &w->b, PORT);
        net_until(&w->net, shm_load(&fapp_back(&w->b, listener)->accept_ready) > 0);
        assert_int_equal(fapp_accept(&w->b, listener, &server[i]), 0);
        st[2 * i] = (struct stream){ .from = &w->a, .to = &w->b, .tx = client[i], .rx = server[i], .conn = 2 * i };
        st[2 * i + 1] =
            (struct stream){ .from = &w->b, .to = &w->a, .tx = server[i], .rx = client[i], .conn = 2 * i + 1 };
    }
    transfer_all(&w->net, st, 2 * PARALLEL, n_bytes);
    for (unsigned i = 0; i < PARALLEL; i++) {
        assert_int_equal(fapp_close(&w->b, server[i], i % 3 == 0), 0);
        assert_int_equal(fapp_close(&w->a, client[i], false), 0);
    }
}

static void
assert_no_lock_is_held(const struct host *h)
{
    const struct shared *sh = h->shared;

    if (sh == NULL)
        return; /* those of the stacks are looked at by net_fini */
    assert_int_equal(sh->table.held, 0);
    for (unsigned i = 0; i < TCP_INNER_COUNT; i++)
        assert_int_equal(sh->inner[i].lock.held, 0);
    for (size_t i = 0; i < sh->conns_bytes / sizeof(sh->conns[0]); i++)
        assert_int_equal(sh->conns[i].held, 0);
    for (uint32_t i = 0; i < h->nb_nets; i++) {
        const struct stack *view = h->nets[i]->view;

        assert_int_equal(view->table_depth, 0);
        assert_int_equal(view->conns_held, 0);
        assert_int_equal(view->dirty_first, SOCK_NONE);
        assert_int_equal(h->nets[i]->pass.held, 0);
    }
}

static void
stress(const char *text, unsigned nb_workers, uint32_t loss_ppm)
{
    static struct world w;
    const bool moves = strncmp(text, "hybrid", 6) == 0;
    uint32_t listener;

    run = (struct run){ .text = text, .nb_workers = nb_workers };
    rng_init(&run.rng, 31, nb_workers);
    world_init(&w, loss_ppm);
    listener = listen_on(&w.b, PORT, false);
    threads_start(&w, nb_workers, moves);
    for (unsigned i = 0; i < ROUNDS; i++) {
        round_within(&w, listener, 60000 + i);
        round_across(&w, listener, 30000 + i);
    }
    threads_stop(&w, nb_workers);
    assert_no_lock_is_held(w.net.node[1].host);
    assert_int_equal(counted(&w, 1, CTR_LOCK_TABLE) > 0, w.net.node[1].host->shared != NULL);
    assert_int_equal(counted(&w, 1, CTR_MOVE_OUT) > 0, moves);
    assert_int_equal(counted(&w, 1, CTR_TCP_BUG_EDGE), 0);
    /* world_fini ends both applications and asserts that every buffer, socket and connection is back. */
    world_fini(&w);
}

static void
serves_on_threads(void **state)
{
    stress(*state, 2, 0);
    stress(*state, WORKERS_MAX, 10000);
}

/* The mode is the argument. */
int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        { "serves_on_threads", serves_on_threads, NULL, NULL, argc > 1 ? argv[1] : NULL },
    };

    if (argc != 2 || net_eal_start() != 0 || rte_mbuf_set_user_mempool_ops("locked") != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
