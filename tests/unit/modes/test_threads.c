/* SPDX-License-Identifier: BSD-3-Clause */
#include "replicas.h"

#include "../tcp/sound.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>

/**
 * @file
 * A mode's workers on real threads, over a wire that loses, reorders, repeats and corrupts frames: every byte arrives, in the midst of it every domain is sound, and
 * afterwards no lock is held, no socket, connection or buffer is left, and replicas are equal. Node 1's workers run on threads of their own, node 0 and the applications
 * on the main one. Under the thread sanitizer (make tsan) this is the search for what neither a lock nor a queue keeps apart.
 */

#define WORKERS_MAX 4
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
    unsigned nb;
    uint32_t numbers; /* given to threads so far; atomic */
    uint64_t now_us; /* of node 1; atomic */
    bool stop; /* atomic */
} threads;

#define STEAL_EVERY 64u
#define STEAL_MAX 4u

/* What a mode calls for besides. */
static bool connections_move, has_replicas;

/* More often than their load would have it, from the next worker. */
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

/* The last replica sleeps through every other stretch of events that is longer than the channels are, if it can be passed over. */
static bool
sleeps_now(unsigned w)
{
    const struct misd *x = misd_of(1);
    const uint64_t *posted = &host_net(x->host, 0)->ctr->v[CTR_MISD_POSTED];

    return x->channels.scheme == BCAST_CLAIM && w == x->nb_replicas - 1 &&
           __atomic_load_n(posted, __ATOMIC_RELAXED) / (MISD_ENTRIES * 3 / 2) % 2 == 0;
}

/* Time runs with every poll, much faster than threads are scheduled: leases end, and patience, all the time. */
static void *
poll_on_thread(void *arg)
{
    uint32_t w = __atomic_fetch_add(&threads.numbers, 1, __ATOMIC_RELAXED);
    uint32_t polls = 0;

    (void)arg;
    while (!__atomic_load_n(&threads.stop, __ATOMIC_RELAXED)) {
        uint64_t now_us = __atomic_add_fetch(&threads.now_us, 3, __ATOMIC_RELAXED);

        if ((has_replicas && sleeps_now(w)) || run.ops->poll(run.mode[1], w, now_us) == 0)
            sched_yield();
        if (connections_move && ++polls % STEAL_EVERY == 0)
            steal(w, now_us);
    }
    return NULL;
}

static void
threads_start(struct world *w)
{
    memset(&threads, 0, sizeof(threads));
    threads.nb = run.ops->nb_workers(run.mode[1]);
    threads.now_us = w->net.now_us;
    w->net.node[1].on_threads = true;
    for (unsigned i = 0; i < threads.nb; i++)
        assert_int_equal(pthread_create(&threads.thread[i], NULL, poll_on_thread, NULL), 0);
}

static void
threads_stop(struct world *w)
{
    __atomic_store_n(&threads.stop, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < threads.nb; i++)
        pthread_join(threads.thread[i], NULL);
    w->net.now_us = RTE_MAX(w->net.now_us, threads.now_us);
    w->net.node[1].on_threads = false;
}

/* ---- load -------------------------------------------------------------------------------------------------------------------------- */

/* Between two passes of every worker, whatever they were at. */
static void
look(struct world *w)
{
    threads_stop(w);
    assert_world_is_sound(w);
    for (unsigned i = 0; has_replicas && i < misd_of(1)->nb_replicas; i++)
        assert_domain_is_sound(misd_of(1)->replica[i]->domain);
    threads_start(w);
}

static void
do_nothing(struct host *h, void *arg, uint64_t now_us)
{
    (void)h;
    (void)arg;
    (void)now_us;
}

/* As whoever asks for statistics does, all the time. */
static void
stop_the_world(struct world *w, struct stream *st, unsigned n, uint32_t total)
{
    for (unsigned stops = 0; stops < 10; stops++) {
        for (unsigned i = 0; i < n; i++)
            stream_step(&st[i], total);
        net_step(&w->net, 1000);
        assert_int_equal(host_call(w->net.node[1].host, do_nothing, NULL), 0);
    }
}

/* Connections to node 1 that carry bytes both ways. From itself: both ends are in the same domains, and every worker meets both. Or over the wire. */
static void
one_round(struct world *w, struct fapp *from, uint32_t listener, uint32_t n_bytes)
{
    uint32_t client[PARALLEL], server[PARALLEL];
    struct stream st[2 * PARALLEL];
    struct fapp *to = &w->b;

    for (unsigned i = 0; i < PARALLEL; i++) {
        client[i] = connect_to(from, to, PORT);
        net_until(&w->net, shm_load(&fapp_back(to, listener)->accept_ready) > 0);
        assert_int_equal(fapp_accept(to, listener, &server[i]), 0);
        st[2 * i] = (struct stream){ .from = from, .to = to, .tx = client[i], .rx = server[i], .conn = 2 * i };
        st[2 * i + 1] = (struct stream){ .from = to, .to = from, .tx = server[i], .rx = client[i], .conn = 2 * i + 1 };
    }
    transfer_all(&w->net, st, 2 * PARALLEL, n_bytes / 2);
    look(w);
    stop_the_world(w, st, 2 * PARALLEL, n_bytes);
    transfer_all(&w->net, st, 2 * PARALLEL, n_bytes);
    /* Orderly ends, resets, and ends from either side. */
    for (unsigned i = 0; i < PARALLEL; i++) {
        const bool server_first = i % 2 == 0;

        assert_int_equal(fapp_close(server_first ? to : from, server_first ? server[i] : client[i], i % 3 == 0), 0);
        assert_int_equal(fapp_close(server_first ? from : to, server_first ? client[i] : server[i], false), 0);
    }
}

/* ---- the end ----------------------------------------------------------------------------------------------------------------------- */

static void
assert_no_lock_is_held(const struct host *h)
{
    const struct shared *sh = h->shared;

    for (uint32_t i = 0; i < h->nb_nets; i++)
        assert_int_equal(h->nets[i]->pass.held, 0);
    for (uint32_t i = 0; i < h->nb_stacks; i++)
        assert_int_equal(h->stacks[i]->lock.held, 0);
    if (sh == NULL)
        return;
    assert_int_equal(sh->table.lock.held, 0);
    for (unsigned i = 0; i < TCP_INNER_COUNT; i++)
        assert_int_equal(sh->inner[i].lock.held, 0);
    for (size_t i = 0; i < sh->conns_bytes / sizeof(sh->conns[0]); i++)
        assert_int_equal(sh->conns[i].lock.held, 0);
    for (uint32_t i = 0; i < h->nb_nets; i++) {
        const struct stack *view = h->nets[i]->view;

        assert_int_equal(view->table_depth, 0);
        assert_int_equal(view->conns_held, 0);
        assert_int_equal(view->dirty_first, SOCK_NONE);
    }
}

/* Sockets that applications have, and connections of whatever state; the listener's shadows are the mode's own. */
static unsigned
live(const struct host *h)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < h->nb_stacks; i++) {
        struct tcp_usage u;

        tcp_usage(h->stacks[i]->tcp, &u);
        n += h->stacks[i]->nb_socks - h->stacks[i]->nb_shadows + u.conns + u.half_open;
    }
    return n;
}

/* What the mode says of itself shows that it did what it is for. */
static void
assert_counters(const struct world *w)
{
    const bool replicas_rest = has_replicas && misd_of(1)->channels.scheme == BCAST_CLAIM;

    assert_int_equal(counted(w, 1, CTR_LOCK_TABLE) > 0, w->net.node[1].host->shared != NULL);
    assert_int_equal(counted(w, 1, CTR_MOVE_OUT) > 0, connections_move);
    assert_int_equal(counted(w, 1, CTR_MISD_FRONT_MOVED) > 0, has_replicas);
    assert_int_equal(counted(w, 1, CTR_MISD_ROLLED_FORWARD) > 0, replicas_rest);
    assert_int_equal(counted(w, 1, CTR_HANDOVER_DROP), 0);
    assert_int_equal(counted(w, 1, CTR_TCP_BUG_EDGE), 0);
    assert_true(counted(w, 1, CTR_IMPAIR_DROP_LOSS) > 0 && counted(w, 1, CTR_IMPAIR_REORDER) > 0);
    assert_true(counted(w, 1, CTR_IMPAIR_DUP) > 0 && counted(w, 1, CTR_IMPAIR_CORRUPT) > 0);
}

static void
stress(const char *text, unsigned nb_workers)
{
    static struct world w;
    const struct host *h;
    uint32_t listener;

    run = (struct run){ .text = text, .nb_workers = nb_workers };
    run.impair = (struct impair_config){
        .enabled = true, .reorder_ppm = 10000, .dup_ppm = 10000, .corrupt_ppm = 5000, .delay_us = 50
    };
    rng_init(&run.rng, 31, nb_workers);
    world_init(&w, 10000);
    h = w.net.node[1].host;
    listener = listen_on(&w.b, PORT, false);
    threads_start(&w);
    for (unsigned i = 0; i < (has_replicas ? 3 : 2); i++) {
        one_round(&w, &w.b, listener, 60000 + i);
        one_round(&w, &w.a, listener, 30000 + i);
    }
    threads_stop(&w);
    assert_no_lock_is_held(h);
    if (has_replicas)
        assert_equal_replicas(&w);
    assert_counters(&w);
    net_until(&w.net, live(h) == 1 && live(w.net.node[0].host) == 0);
    /* world_fini ends both applications and asserts that every buffer, socket and connection is back. */
    world_fini(&w);
}

static void
serves_on_threads(void **state)
{
    connections_move = strncmp(*state, "hybrid", 6) == 0;
    has_replicas = strncmp(*state, "misd", 4) == 0;
    stress(*state, 2);
    stress(*state, WORKERS_MAX);
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
