/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/memfd.h"

/**
 * @file
 * What domains and workers have in common: the page that applications see, stopping the world, calls from other threads, the end.
 */

#define SHUTDOWN_US 2000000u

/* ---- life --------------------------------------------------------------------------------------------------------------- */

static void
fill_routes(struct host *h)
{
    struct shm_stack_page *p = h->page;
    struct ip_route routes[SHM_MAX_ROUTES];
    unsigned n = ip_routes(h->nets[0]->ip, routes, SHM_MAX_ROUTES);

    p->nb_routes = 0;
    p->gateway = 0;
    for (unsigned i = 0; i < n; i++) {
        struct shm_route *r = &p->routes[p->nb_routes];

        if (routes[i].prefix_len == 0) {
            p->gateway = 1;
            continue;
        }
        memcpy(r->prefix, routes[i].prefix.w, sizeof(r->prefix));
        r->prefix_len = 96u + routes[i].prefix_len;
        p->nb_routes++;
    }
}

static int
page_create(struct host *h)
{
    size_t bytes = sizeof(struct shm_stack_page);
    void *map;

    h->page_fd = memfd_create("isosock-stack", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (h->page_fd < 0 || ftruncate(h->page_fd, (off_t)bytes) != 0)
        return -errno;
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, h->page_fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    h->page = map;
    if (fcntl(h->page_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0)
        return -errno;
    h->page->version = SHM_VERSION;
    h->page->alive = 1;
    h->page->aggregate = h->cfg.aggregate;
    h->page->ring_by_thread = h->cfg.thread_rings;
    clock_scale(&h->page->clock_tsc, &h->page->clock_us_per_tsc);
    memcpy(h->page->addr, h->cfg.ip.addr.w, sizeof(h->page->addr));
    return 0;
}

/* Worker 0's view is the shared domain itself. */
static int
views_create(struct host *h)
{
    for (uint32_t i = 0; i < h->nb_nets; i++) {
        h->nets[i]->view = i == 0 ? h->stacks[0] : stack_view(h->stacks[0]);
        if (h->nets[i]->view == NULL)
            return -ENOMEM;
    }
    return 0;
}

static int
parts_create(struct host *h, const struct host_config *cfg)
{
    h->nets = calloc(cfg->nb_nets, sizeof(h->nets[0]));
    h->stacks = calloc(cfg->nb_stacks, sizeof(h->stacks[0]));
    h->next_us = calloc(cfg->nb_stacks, sizeof(h->next_us[0]));
    if (h->nets == NULL || h->stacks == NULL || h->next_us == NULL)
        return -ENOMEM;
    if (cfg->shared) {
        h->shared = shared_create(cfg->stack.tcp.max_conns, cfg->free_lookup);
        if (h->shared == NULL)
            return -ENOMEM;
    }
    for (h->nb_nets = 0; h->nb_nets < cfg->nb_nets; h->nb_nets++) {
        h->nets[h->nb_nets] = net_create(h, h->nb_nets, cfg->nb_nets, cfg->ctr[h->nb_nets]);
        if (h->nets[h->nb_nets] == NULL)
            return -ENOMEM;
    }
    h->nb_stacks = cfg->nb_stacks;
    for (uint32_t i = 0; i < cfg->nb_stacks; i++) {
        h->stacks[i] = stack_create(h, i);
        if (h->stacks[i] == NULL)
            return -ENOMEM;
        if (cfg->shared && views_create(h) != 0)
            return -ENOMEM;
        stack_leave(stack_enter(h->stacks[i], host_owner(h, i), 1));
    }
    return 0;
}

/* Domains divide the tuples as the port does, if each owner has a queue. Where any worker may enter any domain it does not matter who receives. */
static struct tcp_steer
steer_for(const struct host_config *cfg)
{
    const struct port *port = cfg->port;
    struct tcp_steer st = { .by = TCP_STEER_HASH, .count = cfg->nb_stacks, .buckets = port->steer_buckets };

    if (cfg->locking || port->nb_queues != cfg->nb_stacks)
        return st;
    if (port->steer == PORT_STEER_RSS)
        st.by = TCP_STEER_TOEPLITZ;
    else if (port->steer == PORT_STEER_FLOW)
        st.by = TCP_STEER_PORTS;
    memcpy(st.key, port->rss_key, sizeof(st.key));
    return st;
}

struct host *
host_create(const struct host_config *cfg)
{
    struct host *h = calloc(1, sizeof(*h));

    if (h == NULL)
        return NULL;
    h->cfg = cfg->stack;
    h->port = cfg->port;
    h->pool = cfg->pool;
    h->locking = cfg->locking;
    h->steer = steer_for(cfg);
    h->page_fd = -1;
    pthread_mutex_init(&h->call_lock, NULL);
    if (page_create(h) != 0 || parts_create(h, cfg) != 0) {
        host_destroy(h);
        return NULL;
    }
    fill_routes(h);
    return h;
}

/* Without workers: what applications still hold is dropped, nothing is sent any more. */
static void
drop_app(struct host *h, struct app *app)
{
    for (uint32_t slot = 0; slot < app->slots_used; slot++) {
        struct sock *sk = sock_at(app, slot);
        struct stack *s = host_stack_of(h, app, slot);

        if (sk == NULL)
            continue;
        rx_drop_all(s, sk);
        opts_free(sock_more(s, sk)->opts);
        free(sock_more(s, sk)->stamps);
        free(sock_spread(s, sk));
    }
    app_destroy(app);
}

void
host_destroy(struct host *h)
{
    if (h == NULL)
        return;
    if (h->nb_stacks > 1 && h->stacks[h->nb_stacks - 1] != NULL) {
        host_stop(h, h->nets[0], h->nets[0]->now_us);
        host_go(h, h->nets[0], h->nets[0]->now_us);
    }
    while (h->nb_apps > 0)
        drop_app(h, h->apps[0]);
    free(h->apps);
    arena_reap();
    for (uint32_t i = 1; i < h->nb_nets; i++)
        stack_destroy(h->nets[i]->view);
    for (uint32_t i = 0; i < h->nb_stacks; i++)
        stack_destroy(h->stacks[i]);
    shared_destroy(h->shared);
    for (uint32_t i = 0; i < h->nb_nets; i++)
        net_destroy(h->nets[i]);
    free(h->stacks);
    free(h->nets);
    free(h->next_us);
    if (h->page != NULL)
        munmap(h->page, sizeof(*h->page));
    if (h->page_fd >= 0)
        close(h->page_fd);
    pthread_mutex_destroy(&h->call_lock);
    free(h);
}

unsigned
host_nb_nets(const struct host *h)
{
    return h->nb_nets;
}

unsigned
host_nb_stacks(const struct host *h)
{
    return h->nb_stacks;
}

struct net *
host_net(struct host *h, unsigned i)
{
    return h->nets[i];
}

struct stack *
host_stack(struct host *h, unsigned i)
{
    return h->stacks[i];
}

struct pktpool *
host_pool(const struct host *h)
{
    return h->pool;
}

int
host_page_readonly_fd(const struct host *h)
{
    return memfd_readonly(h->page_fd);
}

/* ---- where things are --------------------------------------------------------------------------------------------------------- */

struct stack *
host_stack_of(const struct host *h, const struct app *app, uint32_t slot)
{
    uint64_t ref = __atomic_load_n(&app->slot_ref[slot], __ATOMIC_ACQUIRE);

    return h->stacks[ref != 0 ? ref >> 32 : slot % h->nb_stacks];
}

struct app *
host_find_app(const struct host *h, uint64_t id)
{
    for (uint32_t i = 0; i < h->nb_apps; i++)
        if (h->apps[i]->id == id)
            return h->apps[i];
    return NULL;
}

uint32_t
host_rx_bufs(const struct host *h)
{
    int32_t sum = 0;

    for (uint32_t i = 0; i < h->nb_nets; i++)
        sum += __atomic_load_n(&h->nets[i]->rx_bufs, __ATOMIC_RELAXED);
    return sum > 0 ? (uint32_t)sum : 0; /* parts are read at different instants */
}

bool
packet_tuple(const struct ip_packet *p, struct tcp_tuple *t)
{
    const rte_be16_t *ports = rte_pktmbuf_mtod_offset(p->m, const rte_be16_t *, p->l4_off);

    if (rte_pktmbuf_data_len(p->m) < p->l4_off + 4u || p->l4_len < 4)
        return false;
    *t = (struct tcp_tuple){ .local = p->dst, .remote = p->src };
    t->remote_port = rte_be_to_cpu_16(ports[0]);
    t->local_port = rte_be_to_cpu_16(ports[1]);
    return true;
}

unsigned
host_classify(const struct host *h, const struct ip_packet *p)
{
    const struct rte_mbuf *m = p->m;
    struct tcp_tuple t;

    if (h->nb_stacks == 1)
        return 0;
    /* The card has done the arithmetic, unless this was put together from fragments. */
    if (h->steer.by == TCP_STEER_TOEPLITZ && (m->ol_flags & RTE_MBUF_F_RX_RSS_HASH) &&
        (m->packet_type & RTE_PTYPE_L4_MASK) == RTE_PTYPE_L4_TCP)
        return tcp_steer_bucket(&h->steer, m->hash.rss);
    /* What is too short for ports is any domain's to drop. */
    return packet_tuple(p, &t) ? tcp_steer(&h->steer, &t) : 0;
}

/* ---- stopping the world ---------------------------------------------------------------------------------------------------------- */

void
host_want_stop(struct host *h)
{
    __atomic_store_n(&h->stop_wanted, true, __ATOMIC_SEQ_CST);
    if (h->nb_nets > 1)
        net_wake(h->nets[0]);
}

void
host_stop(struct host *h, struct net *net, uint64_t now_us)
{
    if (h->nb_nets > 1)
        for (uint32_t i = 0; i < h->nb_nets; i++)
            lock_take(&h->nets[i]->pass, net->ctr, CTR_LOCK_PASS);
    h->stopped = true;
    counter_inc(net->ctr, CTR_WORKER_STOPS);
    /* What was on its way between workers arrives: so nothing is in two places, or in none. Where domains have locks nothing ever is. */
    if (!h->locking)
        handover_settle(h, now_us);
    h->entered = true;
    for (uint32_t i = 0; i < h->nb_stacks; i++)
        stack_enter(h->stacks[i], net, now_us);
}

/* Publish what the domains have changed; that may have to be told to others of them. */
static void
settle_all(struct host *h, struct net *net, uint64_t now_us)
{
    do {
        for (uint32_t i = 0; i < h->nb_stacks; i++)
            stack_settle(h->stacks[i]);
    } while (message_run(net, now_us) > 0);
}

/* To whom it belongs: its owner's next words, which may come before he enters it for an event, go by his own queues. */
static void
leave(struct stack *s, uint64_t now_us)
{
    struct host *h = s->host;

    if (!h->locking)
        stack_enter(s, host_owner(h, s->number), now_us);
    else if (h->shared == NULL)
        lock_give(&s->lock);
}

/* What was read before its reader left, or was on its way: a worker that has no pass for long would keep it from the pool. The passes' locks are held. */
static void
give_back_all(struct host *h)
{
    for (uint32_t i = 0; i < h->nb_nets; i++)
        if (h->nets[i]->nb_rx_done > 0)
            rx_give_back(h->nets[i]);
}

void
host_go(struct host *h, struct net *net, uint64_t now_us)
{
    bool reap = __atomic_exchange_n(&h->stop_wanted, false, __ATOMIC_SEQ_CST);

    if (reap)
        app_settle(h);
    message_run(net, now_us);
    settle_all(h, net, now_us);
    h->stopped = h->entered = false;
    for (uint32_t i = 0; i < h->nb_stacks; i++)
        leave(h->stacks[i], now_us);
    net_wake_all(net);
    if (reap)
        app_reap(h);
    give_back_all(h);
    port_flush(&net->queue, now_us);
    if (h->nb_nets == 1)
        return;
    handover_ring_bells(net);
    for (uint32_t i = 0; i < h->nb_nets; i++)
        lock_give(&h->nets[i]->pass);
}

/* ---- calls -------------------------------------------------------------------------------------------------------------------------- */

/* On the caller's stack: it waits until the worker is done with it. */
struct host_call_item {
    void (*fn)(struct host *h, void *arg, uint64_t now_us);
    void *arg;
    int result;
    sem_t done;
    struct host_call_item *next;
};

int
host_call(struct host *h, void (*fn)(struct host *h, void *arg, uint64_t now_us), void *arg)
{
    struct host_call_item item = { .fn = fn, .arg = arg };

    pthread_mutex_lock(&h->call_lock);
    if (h->calls_ended) {
        pthread_mutex_unlock(&h->call_lock);
        return -ESHUTDOWN;
    }
    sem_init(&item.done, 0, 0);
    if (h->call_first == NULL)
        h->call_first = &item;
    else
        h->call_last->next = &item;
    h->call_last = &item;
    __atomic_add_fetch(&h->calls_waiting, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&h->call_lock);
    net_wake(h->nets[0]);
    while (sem_wait(&item.done) != 0)
        ;
    sem_destroy(&item.done);
    return item.result;
}

static struct host_call_item *
take_all(struct host *h, bool end)
{
    struct host_call_item *first;

    pthread_mutex_lock(&h->call_lock);
    first = h->call_first;
    h->call_first = h->call_last = NULL;
    __atomic_store_n(&h->calls_waiting, 0, __ATOMIC_SEQ_CST);
    h->calls_ended |= end;
    pthread_mutex_unlock(&h->call_lock);
    return first;
}

unsigned
host_calls(struct host *h, uint64_t now_us)
{
    struct host_call_item *item;
    unsigned n = 0;

    if (likely(__atomic_load_n(&h->calls_waiting, __ATOMIC_ACQUIRE) == 0))
        return 0;
    item = take_all(h, false);
    while (item != NULL) {
        struct host_call_item *next = item->next; /* the item is the caller's again once posted */

        item->fn(h, item->arg, now_us);
        sem_post(&item->done);
        item = next;
        n++;
    }
    return n;
}

void
host_calls_end(struct host *h)
{
    struct host_call_item *item = take_all(h, true);

    while (item != NULL) {
        struct host_call_item *next = item->next;

        item->result = -ESHUTDOWN;
        sem_post(&item->done);
        item = next;
    }
}

/* ---- the end ---------------------------------------------------------------------------------------------------------------------- */

void
host_shutdown_begin(struct host *h, uint64_t now_us)
{
    if (__atomic_load_n(&h->closing, __ATOMIC_ACQUIRE))
        return;
    /* Several workers may come here at once, and mean the same. */
    __atomic_store_n(&h->closing_deadline_us, now_us + SHUTDOWN_US, __ATOMIC_RELAXED);
    for (uint32_t i = 0; i < h->nb_stacks; i++)
        __atomic_store_n(&h->next_us[i], 0, __ATOMIC_RELAXED);
    shm_store(&h->page->alive, 0);
    __atomic_store_n(&h->closing, true, __ATOMIC_RELEASE);
}

bool
host_shutdown_done(const struct host *h, uint64_t now_us)
{
    if (!__atomic_load_n(&h->closing, __ATOMIC_ACQUIRE))
        return false;
    if (now_us >= h->closing_deadline_us)
        return true;
    for (uint32_t i = 0; i < h->nb_stacks; i++)
        if (!__atomic_load_n(&h->stacks[i]->drained, __ATOMIC_ACQUIRE))
            return false;
    return true;
}
