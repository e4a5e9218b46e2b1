/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/wheel.h"

/**
 * @file
 * A worker's side of the network, and the steps of its pass.
 */

static void on_unreachable(void *ctx, const struct ip_unreachable *info, uint64_t now_us);
static void on_no_neighbour(void *ctx, const struct ip_addr *dst, uint64_t now_us);
static void on_arp_heard(void *ctx, const struct rte_mbuf *m, uint64_t now_us);

static const struct ip_ops net_ip_ops = {
    .unreachable = on_unreachable,
    .no_neighbour = on_no_neighbour,
    .arp_heard = on_arp_heard,
};

/* ---- life --------------------------------------------------------------------------------------------------------------- */

static int
doorbell_create(struct net *net)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

    net->doorbell_epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    net->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (net->doorbell_epoll_fd < 0 || net->bell_fd < 0 ||
        epoll_ctl(net->doorbell_epoll_fd, EPOLL_CTL_ADD, net->bell_fd, &ev) != 0)
        return -errno;
    return 0;
}

struct net *
net_create(struct host *h, uint32_t number, uint32_t nb_nets, struct counters *ctr)
{
    struct net *net = aligned_alloc(64, RTE_ALIGN_CEIL(sizeof(*net), (size_t)64));
    struct ip_config ip = h->cfg.ip;

    if (net == NULL)
        return NULL;
    memset(net, 0, sizeof(*net));
    net->host = h;
    net->number = number;
    net->ctr = ctr;
    net->doorbell_epoll_fd = net->bell_fd = -1;
    ip.quiet = number > 0;
    ip.seed += number;
    if (port_queue_init(&net->queue, h->port, (uint16_t)number, h->pool, ctr) != 0) {
        free(net);
        return NULL;
    }
    if (h->shared != NULL) {
        ip.shared = true;
        ip.share = number > 0 ? h->nets[0]->ip : NULL;
        port_queue_share_tx(&net->queue, number > 0 ? &h->nets[0]->queue : &net->queue);
    }
    net->ip = ip_create(&ip, &net->queue, ctr, &net_ip_ops, net);
    if (net->ip == NULL || doorbell_create(net) != 0 || (nb_nets > 1 && handover_create(net) != 0)) {
        net_destroy(net);
        return NULL;
    }
    return net;
}

static void
close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

void
net_destroy(struct net *net)
{
    if (net == NULL)
        return;
    handover_destroy(net);
    rte_pktmbuf_free_bulk(net->tx_spare, net->nb_tx_spare);
    rte_pktmbuf_free_bulk(net->rx_done, net->nb_rx_done);
    if (net->ip != NULL)
        ip_destroy(net->ip);
    port_queue_fini(&net->queue);
    close_fd(net->bell_fd);
    close_fd(net->doorbell_epoll_fd);
    free(net->later);
    free(net);
}

/* ---- what the internet layer tells ---------------------------------------------------------------------------------------------- */

uint32_t
net_whereabouts(const struct net *of, const struct tcp_tuple *t, bool handed)
{
    const struct host *h = of->host;
    uint32_t number = tcp_steer(&h->steer, t);
    uint32_t to;

    if (h->cfg.tcp.max_moved == 0 || (number != of->number && !handed))
        return number;
    return tcp_moved(h->stacks[of->number]->tcp, t, &to) ? to : of->number;
}

void
net_unreachable(struct net *net, const struct ip_unreachable *info, bool handed, uint64_t now_us)
{
    struct tcp_tuple t = {
        .local = info->local,
        .remote = info->remote,
        .local_port = info->local_port,
        .remote_port = info->remote_port,
    };
    struct host *h = net->host;
    uint32_t number = net_whereabouts(net, &t, handed);
    struct stack *s = h->stacks[number];

    if (!host_in_reach(h, net, number)) {
        handover_unreachable(net, host_owner(h, number), info);
        return;
    }
    s = stack_enter(s, net, now_us);
    engine_unreachable(s, &t, info);
    stack_leave(s);
}

static void
on_unreachable(void *ctx, const struct ip_unreachable *info, uint64_t now_us)
{
    net_unreachable(ctx, info, false, now_us);
}

void
net_note_unresolved(struct net *net, const struct ip_addr *dst)
{
    if (net->nb_unresolved < MAX_UNRESOLVED)
        net->unresolved[net->nb_unresolved++] = *dst;
}

/* Perhaps from within the engine, which must not be entered again: remembered until the pass's end. */
static void
on_no_neighbour(void *ctx, const struct ip_addr *dst, uint64_t now_us)
{
    (void)now_us;
    net_note_unresolved(ctx, dst);
}

/* Frames for everybody reach one queue, but each worker has a neighbour table of its own. */
static void
on_arp_heard(void *ctx, const struct rte_mbuf *m, uint64_t now_us)
{
    struct net *net = ctx;

    (void)now_us;
    if (net->host->nb_nets == 1 || net->from_peer || net->host->shared != NULL)
        return;
    for (uint32_t i = 0; i < net->host->nb_nets; i++)
        if (i != net->number)
            handover_frame(net, net->host->nets[i], m);
}

/* Whoever is connecting to a neighbour that does not answer need not wait for its retries to end, as in Linux. */
static void
fail_unresolved(struct net *net, uint64_t now_us)
{
    struct host *h = net->host;

    for (uint32_t i = 0; i < h->nb_stacks; i++) {
        struct stack *s = h->stacks[i];

        if (!h->locking && host_owner(h, i) != net) {
            /* Who sends for a stack that it cannot enter tells the owner; elsewhere the owner asks for itself. */
            for (unsigned u = 0; s->relay != NULL && u < net->nb_unresolved; u++)
                handover_unresolved(net, host_owner(h, i), &net->unresolved[u]);
            continue;
        }
        s = stack_enter(s, net, now_us);
        stack_fail_unresolved(s, net->unresolved, net->nb_unresolved);
        stack_leave(s);
    }
    net->nb_unresolved = 0;
}

/* ---- the steps of a pass --------------------------------------------------------------------------------------------------------- */

void
net_begin(struct net *net)
{
    if (net->host->nb_nets > 1)
        lock_take(&net->pass, net->ctr, CTR_LOCK_PASS);
}

void
net_pause(struct net *net)
{
    if (net->nb_rx_done > 0)
        rx_give_back(net);
    if (net->host->nb_nets > 1)
        lock_give(&net->pass);
}

uint16_t
net_receive(struct net *net, struct ip_packet *out, uint64_t now_us)
{
    struct rte_mbuf *pkts[PORT_BURST];
    uint16_t n = port_rx(&net->queue, pkts, now_us);

    if (n > 0)
        n = ip_input(net->ip, pkts, n, out, now_us);
    return (uint16_t)(n + ip_local_input(net->ip, out + n, (uint16_t)(2 * PORT_BURST - n), now_us));
}

void
net_receive_rest(struct net *net, uint64_t now_us)
{
    if (likely(net->queue.pool->nb_late == 0))
        return;
    port_flush(&net->queue, now_us);
    port_rx_rest(&net->queue);
}

uint16_t
net_sort(struct net *net, struct ip_packet *pkts, uint16_t n)
{
    const struct host *h = net->host;
    bool moving = h->cfg.tcp.max_moved != 0;
    uint16_t own = 0;

    for (uint16_t i = 0; i < n; i++) {
        uint32_t number = host_classify(h, &pkts[i]);
        struct tcp_tuple t;

        if (moving && number == net->number && packet_tuple(&pkts[i], &t)) {
            number = net_whereabouts(net, &t, false);
            counter_add(net->ctr, CTR_REDIRECTED, number != net->number);
        }
        if (number == net->number)
            pkts[own++] = pkts[i];
        else
            net_hand_packet(net, number % h->nb_nets, &pkts[i]);
    }
    return own;
}

/* Serve it where it lives, or have its owner do so. */
static void
dispatch(struct net *net, struct app *app, uint32_t slot)
{
    struct host *h = net->host;

    for (;;) {
        struct stack *s = host_stack_of(h, app, slot);

        if (!host_in_reach(h, net, s->number)) {
            net_post_notify(net, host_owner(h, s->number), app, slot);
            return;
        }
        s = stack_enter(s, net, net->now_us);
        /* It may have moved, or ended, while the lock was waited for. */
        if (likely(host_stack_of(h, app, slot) == s->main)) {
            commands_service(s, app, slot, false);
            stack_leave(s);
            return;
        }
        stack_leave(s);
    }
}

void
net_dispatch(struct net *net, struct app *app, const uint32_t *slots, unsigned n)
{
    struct host *h = net->host;
    bool single = h->nb_stacks == 1 && h->nb_nets == 1; /* one domain and one worker: there is nowhere else to look */
    struct stack *s = single && n > 0 ? stack_enter(h->stacks[0], net, net->now_us) : NULL;

    for (unsigned i = 0; i < n; i++) {
        if (i + 2 < n) {
            rte_prefetch0(&app->front[slots[i + 2]]);
            rte_prefetch0(&app->back[slots[i + 2]]);
        }
        if (likely(s != NULL))
            commands_service(s, app, slots[i], false);
        else
            dispatch(net, app, slots[i]);
    }
    if (likely(s != NULL))
        stack_leave(s);
}

unsigned
net_commands(struct net *net, unsigned budget, uint64_t now_us)
{
    struct host *h = net->host;
    unsigned n = 0;
    uint32_t count = h->nb_apps;
    unsigned share;

    net->now_us = now_us;
    if (count == 0)
        return 0;
    if (likely(count == 1))
        return app_poll(net, h->apps[0], budget, now_us);
    net->next_app = net->next_app + 1 < count ? net->next_app + 1 : 0;
    /* Each gets its share first, so that one that floods its rings does not starve the others. */
    share = RTE_MAX(budget / count, 16u);
    for (uint32_t i = 0; i < count && n < budget; i++) {
        uint32_t at = net->next_app + i;

        n += app_poll(net, h->apps[at < count ? at : at - count], RTE_MIN(share, budget - n), now_us);
    }
    return n;
}

unsigned
net_timers(struct net *net, uint64_t now_us)
{
    struct host *h = net->host;
    unsigned n = 0;

    if (ip_next_us(net->ip, now_us) <= now_us)
        ip_tick(net->ip, now_us);
    /* With locks, once in a tick of the wheels: a second look would find the same, and with a thousand groups is most of an idle pass. */
    if (h->locking && now_us >> WHEEL_TICK_SHIFT == net->timers_tick)
        return 0;
    net->timers_tick = now_us >> WHEEL_TICK_SHIFT;
    /* Whoever is awake runs what is due in a shared domain; its owner wakes up for it. */
    for (uint32_t i = h->shared != NULL ? 0 : net->number; i < h->nb_stacks; i += h->nb_nets) {
        struct stack *s = h->stacks[i];

        /* What this pass has armed is looked at in the next. */
        if (__atomic_load_n(&h->next_us[i], __ATOMIC_RELAXED) > now_us)
            continue;
        s = stack_enter(s, net, now_us);
        n += stack_timers(s, now_us);
        stack_leave(s);
    }
    return n;
}

void
net_leave_for_later(struct net *net, const struct app *app, uint32_t slot)
{
    if (net->nb_later == net->later_capacity) {
        uint32_t capacity = RTE_MAX(2 * net->later_capacity, 64u);
        struct later *grown = realloc(net->later, capacity * sizeof(*grown));

        /* The application may notify again; there is no memory for more. */
        if (grown == NULL)
            return;
        net->later = grown;
        net->later_capacity = capacity;
    }
    net->later[net->nb_later++] = (struct later){ .app_id = app->id, .slot = slot };
}

static unsigned
run_later(struct net *net, uint64_t now_us)
{
    struct host *h = net->host;
    unsigned n = net->nb_later;

    if (likely(n == 0))
        return 0;
    for (uint32_t i = 0; i < h->nb_stacks; i++)
        stack_enter(h->stacks[i], net, now_us);
    for (unsigned i = 0; i < n; i++) {
        struct app *app = host_find_app(h, net->later[i].app_id);

        if (app != NULL)
            commands_service(host_stack_of(h, app, net->later[i].slot), app, net->later[i].slot, true);
    }
    net->nb_later = 0;
    for (uint32_t i = 0; i < h->nb_stacks; i++)
        stack_leave(h->stacks[i]);
    return n;
}

static bool
wants_stop(const struct net *net)
{
    const struct host *h = net->host;

    return net->number == 0 && (__atomic_load_n(&h->calls_waiting, __ATOMIC_ACQUIRE) != 0 ||
                                __atomic_load_n(&h->stop_wanted, __ATOMIC_ACQUIRE));
}

unsigned
net_end(struct net *net, uint64_t now_us)
{
    struct host *h = net->host;
    unsigned n = 0;

    if (unlikely(net->nb_unresolved > 0))
        fail_unresolved(net, now_us);
    n = run_later(net, now_us) + message_run(net, now_us);
    if (!h->locking) {
        for (uint32_t i = net->number; i < h->nb_stacks; i += h->nb_nets)
            n += stack_end_pass(h->stacks[i], now_us);
    }
    if (net->nb_wakes + net->nb_touched > 0)
        net_wake_all(net);
    if (net->nb_rx_done > 0)
        rx_give_back(net);
    port_flush(&net->queue, now_us);
    if (h->nb_nets > 1) {
        handover_ring_bells(net);
        lock_give(&net->pass);
    }
    if (unlikely(wants_stop(net))) {
        host_stop(h, net, now_us);
        n += host_calls(h, now_us);
        host_go(h, net, now_us);
    }
    return n;
}

/* ---- sleep ------------------------------------------------------------------------------------------------------------------------- */

uint64_t
net_next_us(const struct net *net, uint64_t now_us)
{
    const struct host *h = net->host;
    uint64_t next = RTE_MIN(ip_next_us(net->ip, now_us), port_next_us(&net->queue));

    for (uint32_t i = net->number; i < h->nb_stacks; i += h->nb_nets)
        next = RTE_MIN(next, __atomic_load_n(&h->next_us[i], __ATOMIC_RELAXED));
    for (uint32_t i = 0; i < h->nb_apps; i++)
        next = RTE_MIN(next, app_next_us(net, h->apps[i]));
    return next;
}

bool
net_has_work(const struct net *net)
{
    const struct host *h = net->host;

    if (wants_stop(net) || handover_waits(net))
        return true;
    for (uint32_t i = 0; i < h->nb_apps; i++)
        if (app_has_work(net, h->apps[i]))
            return true;
    return false;
}

void
net_set_alone(struct net *net, bool alone)
{
    net->alone = alone;
    net->acks_ride =
        alone && !net->host->locking; /* this thread makes the passes, and is the application between them */
}

void
net_set_sleeping(struct net *net, bool sleeping)
{
    shm_store(&net->host->page->instance[net->number].sleeping, sleeping);
    shm_fence();
}

int
net_doorbell_fd(const struct net *net)
{
    return net->doorbell_epoll_fd;
}

void
net_doorbell_clear(struct net *net)
{
    struct epoll_event rung[64];

    while (epoll_wait(net->doorbell_epoll_fd, rung, RTE_DIM(rung), 0) == RTE_DIM(rung))
        ;
}

void
net_wake(const struct net *net)
{
    eventfd_write(net->bell_fd, 1);
}

void
net_wake_sleeper(const struct net *net)
{
    if (shm_load(&net->host->page->instance[net->number].sleeping))
        net_wake(net);
}

int
net_doorbell_add(struct net *net, int fd)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

    return epoll_ctl(net->doorbell_epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : -errno;
}

struct port_queue *
net_queue(struct net *net)
{
    return &net->queue;
}

struct ip_ctx *
net_ip(struct net *net)
{
    return net->ip;
}
