/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tcp/wire.h"

/* Sockets beyond the engine's connections: those that are not connected yet. */
#define EXTRA_SOCKS 65536u
#define GSO_MAX_BYTES 61440u
#define TIMER_BUDGET 256u
#define TCP_IP_HEADERS 40u

/* ---- life --------------------------------------------------------------------------------------------------------------- */

static void
fill_routes(struct stack *s)
{
    struct shm_stack_page *p = s->page;
    struct ip_route routes[SHM_MAX_ROUTES];
    unsigned n = ip_routes(s->ip, routes, SHM_MAX_ROUTES);

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
page_create(struct stack *s)
{
    size_t bytes = sizeof(struct shm_stack_page);
    void *map;

    s->page_fd = memfd_create("isosock-stack", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (s->page_fd < 0 || ftruncate(s->page_fd, (off_t)bytes) != 0)
        return -errno;
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->page_fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    s->page = map;
    if (fcntl(s->page_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0)
        return -errno;
    s->page->version = SHM_VERSION;
    s->page->alive = 1;
    s->page->aggregate = s->cfg.aggregate;
    s->page->ring_by_thread = s->cfg.thread_rings;
    memcpy(s->page->addr, s->cfg.ip.addr.w, sizeof(s->page->addr));
    return 0;
}

static void on_unreachable(void *ctx, const struct ip_unreachable *info, uint64_t now_us);
static void on_no_neighbour(void *ctx, const struct ip_addr *dst, uint64_t now_us);

static const struct ip_ops stack_ip_ops = {
    .unreachable = on_unreachable,
    .no_neighbour = on_no_neighbour,
};

static int
domain_create(struct stack *s, uint64_t now_us)
{
    s->tcp_bytes = tcp_domain_bytes(&s->cfg.tcp);
    s->tcp = lazy_alloc(s->tcp_bytes);
    if (s->tcp == NULL)
        return -ENOMEM;
    s->sink = (struct tcp_sink){
        .ctx = s,
        .emit = tx_on_emit,
        .deliver = rx_on_deliver,
        .release = rx_on_release,
        .acked = sock_on_acked,
        .event = sock_on_event,
    };
    s->env = (struct tcp_env){
        .sink = &s->sink,
        .ctr = s->ctr,
        .now_us = now_us,
        .gso_max_bytes = s->queue.port->caps.tso ? GSO_MAX_BYTES : 0,
    };
    return tcp_domain_init(s->tcp, &s->cfg.tcp, now_us);
}

static int
doorbells_create(struct stack *s)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

    s->doorbell_epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    s->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->doorbell_epoll_fd < 0 || s->call_fd < 0 ||
        epoll_ctl(s->doorbell_epoll_fd, EPOLL_CTL_ADD, s->call_fd, &ev) != 0)
        return -errno;
    return 0;
}

struct stack *
stack_create(const struct stack_config *cfg, struct port *port, uint16_t queue_id, struct pktpool *pool,
             struct counters *ctr)
{
    struct stack *s = aligned_alloc(64, RTE_ALIGN_CEIL(sizeof(*s), (size_t)64));

    if (s == NULL)
        return NULL;
    memset(s, 0, sizeof(*s));
    s->cfg = *cfg;
    s->pool = pool;
    s->ctr = ctr;
    s->page_fd = s->doorbell_epoll_fd = s->call_fd = -1;
    pthread_mutex_init(&s->call_lock, NULL);
    s->max_socks = cfg->tcp.max_conns + EXTRA_SOCKS;
    s->socks_used = 1; /* tcp_user 0 is nobody */
    s->socks = lazy_alloc((size_t)s->max_socks * sizeof(s->socks[0]));
    if (s->socks == NULL || port_queue_init(&s->queue, port, queue_id, pool, ctr) != 0) {
        lazy_free(s->socks, (size_t)s->max_socks * sizeof(s->socks[0]));
        free(s);
        return NULL;
    }
    s->ip = ip_create(&cfg->ip, &s->queue, ctr, &stack_ip_ops, s);
    if (s->ip == NULL || page_create(s) != 0 || doorbells_create(s) != 0 || domain_create(s, 1) != 0) {
        stack_destroy(s);
        return NULL;
    }
    fill_routes(s);
    return s;
}

static void
close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Without a worker: what applications still hold is dropped, nothing is sent any more. */
static void
drop_app(struct stack *s, struct app *app)
{
    for (uint32_t slot = 0; slot < app->slots_used; slot++) {
        struct sock *sk = sock_at(app, slot);

        if (sk == NULL)
            continue;
        rx_drop_all(s, sk);
        free(sk->opts);
    }
    app_destroy(app);
}

void
stack_destroy(struct stack *s)
{
    if (s == NULL)
        return;
    while (s->nb_apps > 0)
        drop_app(s, s->apps[0]);
    free(s->apps);
    arena_reap();
    if (s->ip != NULL)
        ip_destroy(s->ip);
    port_queue_fini(&s->queue);
    lazy_free(s->tcp, s->tcp_bytes);
    lazy_free(s->socks, (size_t)s->max_socks * sizeof(s->socks[0]));
    if (s->page != NULL)
        munmap(s->page, sizeof(*s->page));
    close_fd(s->page_fd);
    close_fd(s->call_fd);
    close_fd(s->doorbell_epoll_fd);
    pthread_mutex_destroy(&s->call_lock);
    free(s);
}

/* ---- packets ----------------------------------------------------------------------------------------------------------------- */

uint16_t
stack_receive(struct stack *s, struct ip_packet *out, uint64_t now_us)
{
    struct rte_mbuf *pkts[PORT_BURST];
    uint16_t n = port_rx(&s->queue, pkts, now_us);

    s->env.now_us = now_us;
    if (n > 0)
        n = ip_input(s->ip, pkts, n, out, now_us);
    return (uint16_t)(n + ip_local_input(s->ip, out + n, (uint16_t)(2 * PORT_BURST - n), now_us));
}

/* Header to struct; false (and freed, and counted) if it is malformed. */
static bool
parse(struct stack *s, struct ip_packet *p, struct tcp_in *in)
{
    uint16_t contiguous;
    int rc = -EBADMSG;

    p->m = rx_own(s, p->m);
    if (p->m == NULL)
        return false;
    contiguous = rte_pktmbuf_data_len(p->m);
    if (likely(contiguous > p->l4_off)) {
        uint16_t len = RTE_MIN((uint16_t)(contiguous - p->l4_off), p->l4_len);

        rc = tcp_wire_parse(rte_pktmbuf_mtod_offset(p->m, const uint8_t *, p->l4_off), len, in);
    }
    if (unlikely(rc < 0)) {
        counter_inc(s->ctr, rc == -EINVAL ? CTR_TCP_DROP_OPTIONS : CTR_TCP_DROP_SHORT);
        rte_pktmbuf_free(p->m);
        return false;
    }
    in->tuple.local = p->dst;
    in->tuple.remote = p->src;
    in->tos = p->tos;
    in->data.off += p->l4_off;
    in->data.buf = pktpool_handle(s->pool, p->m);
    in->mss_out = in->flags & TCP_FLAG_SYN ? (uint16_t)(ip_mtu(s->ip, &p->src) - TCP_IP_HEADERS) : 0;
    return true;
}

/*
 * A packet in several buffers (reassembled, or large and local) becomes as many segments, since the engine knows payload by one buffer: what
 * is true of the whole is true of each, but for the sequence number, and for FIN and PSH, which belong to the last.
 */
static void
input_chain(struct stack *s, struct rte_mbuf *m, struct tcp_in *in, uint32_t rest)
{
    uint8_t last_flags = in->flags & (TCP_FLAG_FIN | TCP_FLAG_PSH);

    in->flags &= (uint8_t)~last_flags;
    while (m != NULL) {
        struct rte_mbuf *next = m->next;

        m->next = NULL;
        m->nb_segs = 1;
        m->pkt_len = m->data_len;
        rest -= in->data.len;
        if (rest == 0)
            in->flags |= last_flags;
        in->data.buf = pktpool_handle(s->pool, m);
        tcp_input(s->tcp, &s->env, in);
        in->seq += in->data.len;
        in->data.off = 0;
        m = next;
        if (rest == 0)
            break;
        in->data.len = m != NULL ? RTE_MIN((uint32_t)m->data_len, rest) : 0;
    }
    rte_pktmbuf_free(m); /* padding behind the packet's end */
}

void
stack_segments(struct stack *s, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    struct tcp_in in[2 * PORT_BURST];
    uint16_t origin[2 * PORT_BURST];
    uint16_t count = 0;

    s->env.now_us = now_us;
    s->env.mem_pressure = s->rx_bufs > s->pool->count / 4 * 3;
    for (uint16_t i = 0; i < n; i++) {
        memset(&in[count], 0, sizeof(in[count]));
        if (!parse(s, &pkts[i], &in[count]))
            continue;
        tcp_prefetch(s->tcp, &in[count].tuple);
        origin[count++] = i;
    }
    for (uint16_t i = 0; i < count; i++) {
        struct ip_packet *p = &pkts[origin[i]];

        if (likely(p->m->next == NULL)) {
            tcp_input(s->tcp, &s->env, &in[i]);
        } else {
            uint32_t header_len = in[i].data.off - p->l4_off;

            input_chain(s, p->m, &in[i], p->l4_len - header_len);
        }
    }
}

static void
on_unreachable(void *ctx, const struct ip_unreachable *info, uint64_t now_us)
{
    struct stack *s = ctx;
    struct tcp_tuple t = {
        .local = info->local,
        .remote = info->remote,
        .local_port = info->local_port,
        .remote_port = info->remote_port,
    };

    s->env.now_us = now_us;
    tcp_unreachable(s->tcp, &s->env, &t, info->seq, info->error, info->hard, info->mtu);
}

/* Perhaps from within the engine, which must not be entered again: remembered until the poll's end. */
static void
on_no_neighbour(void *ctx, const struct ip_addr *dst, uint64_t now_us)
{
    struct stack *s = ctx;

    (void)now_us;
    if (s->nb_unresolved < MAX_UNRESOLVED)
        s->unresolved[s->nb_unresolved++] = *dst;
}

/* Whoever is connecting to a neighbour that does not answer need not wait for its retries to end, as in Linux. */
static void
fail_unresolved(struct stack *s)
{
    for (uint32_t i = 1; i < s->socks_used && s->nb_connecting > 0; i++) {
        struct sock *sk = &s->socks[i];

        if (sk->app == NULL || !(sk->status & SHM_ST_CONNECTING) || (sk->flags & SOCK_CLOSING))
            continue;
        for (unsigned u = 0; u < s->nb_unresolved; u++) {
            if (memcmp(sock_back(sk)->peer.addr, s->unresolved[u].w, sizeof(s->unresolved[u].w)) == 0) {
                sk->abort_error = EHOSTUNREACH;
                sock_mark(s, sk, DIRTY_ABORT);
            }
        }
    }
    s->nb_unresolved = 0;
}

/* ---- the other steps ------------------------------------------------------------------------------------------------------------ */

unsigned
stack_commands(struct stack *s, unsigned budget, uint64_t now_us)
{
    unsigned n = 0;
    uint32_t count = s->nb_apps;
    unsigned share;

    if (count == 0)
        return 0;
    s->env.now_us = now_us;
    s->next_app = s->next_app + 1 < count ? s->next_app + 1 : 0;
    /* Each gets its share first, so that one that floods its rings does not starve the others. */
    share = RTE_MAX(budget / count, 16u);
    for (uint32_t i = 0; i < count && n < budget; i++) {
        uint32_t at = s->next_app + i;

        n += app_poll(s->apps[at < count ? at : at - count], RTE_MIN(share, budget - n), now_us);
    }
    return n;
}

static void shutdown_check(struct stack *s, uint64_t now_us);

unsigned
stack_timers(struct stack *s, uint64_t now_us)
{
    s->env.now_us = now_us;
    if (ip_next_us(s->ip, now_us) <= now_us)
        ip_tick(s->ip, now_us);
    if (unlikely(s->closing) && now_us >= s->closing_check_at_us)
        shutdown_check(s, now_us);
    return tcp_next_us(s->tcp, now_us) <= now_us ? tcp_tick(s->tcp, &s->env, TIMER_BUDGET) : 0;
}

void
stack_publish(struct stack *s, uint64_t now_us)
{
    s->env.now_us = now_us;
    if (unlikely(s->nb_unresolved > 0))
        fail_unresolved(s);
    sock_flush(s);
    port_flush(&s->queue, now_us);
}

uint64_t
stack_next_us(const struct stack *s, uint64_t now_us)
{
    uint64_t next = tcp_next_us(s->tcp, now_us);

    next = RTE_MIN(next, ip_next_us(s->ip, now_us));
    next = RTE_MIN(next, port_next_us(&s->queue));
    if (s->closing)
        next = RTE_MIN(next, s->closing_check_at_us);
    for (uint32_t i = 0; i < s->nb_apps; i++)
        next = RTE_MIN(next, app_next_us(s->apps[i]));
    return next;
}

bool
stack_has_work(const struct stack *s)
{
    if (__atomic_load_n(&s->calls_waiting, __ATOMIC_ACQUIRE) != 0)
        return true;
    for (uint32_t i = 0; i < s->nb_apps; i++)
        if (app_has_work(s->apps[i]))
            return true;
    return false;
}

void
stack_set_sleeping(struct stack *s, bool sleeping)
{
    shm_store(&s->page->instance[s->cfg.instance].sleeping, sleeping);
    shm_fence();
}

int
stack_doorbell_fd(const struct stack *s)
{
    return s->doorbell_epoll_fd;
}

void
stack_doorbell_clear(struct stack *s)
{
    struct epoll_event rung[64];

    while (epoll_wait(s->doorbell_epoll_fd, rung, RTE_DIM(rung), 0) == RTE_DIM(rung))
        ;
}

void
stack_wake(const struct stack *s)
{
    eventfd_write(s->call_fd, 1);
}

int
stack_doorbell_add(struct stack *s, int fd)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

    return epoll_ctl(s->doorbell_epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : -errno;
}

int
stack_page_readonly_fd(const struct stack *s)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", s->page_fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

struct port_queue *
stack_queue(struct stack *s)
{
    return &s->queue;
}

struct ip_ctx *
stack_ip(struct stack *s)
{
    return s->ip;
}

/* ---- the end ---------------------------------------------------------------------------------------------------------------------- */

#define SHUTDOWN_US 2000000u
#define SHUTDOWN_CHECK_US 10000u

typedef void (*sock_fn)(struct stack *s, struct sock *sk);

static void
for_each_sock(struct stack *s, sock_fn fn)
{
    for (uint32_t i = 1; i < s->socks_used; i++)
        if (s->socks[i].app != NULL)
            fn(s, &s->socks[i]);
}

/* To the application the connection has failed; to the peer it ends in order. */
static void
begin_one(struct stack *s, struct sock *sk)
{
    if (sk->flags & SOCK_CLOSING)
        return;
    if (sk->tcp == TCP_NO_ID || (sk->flags & SOCK_LISTENER) || !(sk->status & SHM_ST_CONNECTED)) {
        sk->abort_error = ENETDOWN;
        sock_mark(s, sk, DIRTY_ABORT);
        return;
    }
    sk->flags |= SOCK_SHUT_RD | SOCK_SHUT_WR;
    sock_back(sk)->error = ENETDOWN;
    sock_status(s, sk, SHM_ST_ERROR, 0);
    sock_mark(s, sk, DIRTY_READ | DIRTY_WRITE);
    tcp_shutdown(s->tcp, &s->env, sk->tcp);
}

void
stack_shutdown_begin(struct stack *s, uint64_t now_us)
{
    if (s->closing)
        return;
    s->env.now_us = now_us;
    s->closing = true;
    s->closing_deadline_us = now_us + SHUTDOWN_US;
    s->closing_check_at_us = now_us;
    shm_store(&s->page->alive, 0);
    for_each_sock(s, begin_one);
}

static void
abort_one(struct stack *s, struct sock *sk)
{
    if (sk->tcp == TCP_NO_ID || (sk->flags & SOCK_CLOSING))
        return;
    sk->abort_error = ENETDOWN;
    sock_mark(s, sk, DIRTY_ABORT);
}

/* The peer has everything, our FIN too: nothing is left to do for this connection. */
static void
drained_one(struct stack *s, struct sock *sk)
{
    struct tcp_conn_info info;

    if (sk->tcp == TCP_NO_ID || (sk->flags & SOCK_CLOSING) || !tcp_info(s->tcp, sk->tcp, &info))
        return;
    if (info.state == TCP_ST_FIN_WAIT_2)
        abort_one(s, sk);
}

static void
shutdown_check(struct stack *s, uint64_t now_us)
{
    s->closing_check_at_us = now_us + SHUTDOWN_CHECK_US;
    for_each_sock(s, now_us >= s->closing_deadline_us ? abort_one : drained_one);
}

bool
stack_shutdown_done(const struct stack *s)
{
    if (!s->closing || s->env.now_us < s->closing_deadline_us)
        for (uint32_t i = 1; i < s->socks_used; i++)
            if (s->socks[i].app != NULL && s->socks[i].tcp != TCP_NO_ID)
                return false;
    return s->closing;
}
