/* SPDX-License-Identifier: BSD-3-Clause */
#include "back_net.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <rte_eth_ring.h>
#include <rte_ethdev.h>

#include "core/clock.h"
#include "core/eal.h"

#define THREADS_STEP_US 100u

static uint16_t ports[2];

int
net_eal_start(void)
{
    static const char *const words[] = { "test", "--no-huge", "--no-pci", "-m", "192" };
    char copy[RTE_DIM(words)][32];
    char *argv[RTE_DIM(words) + 1] = { NULL };
    char err[256];

    for (unsigned i = 0; i < RTE_DIM(words); i++) {
        snprintf(copy[i], sizeof(copy[i]), "%s", words[i]);
        argv[i] = copy[i];
    }
    if (eal_start((int)RTE_DIM(words), argv, err, sizeof(err)) < 0) {
        fprintf(stderr, "%s\n", err);
        return 1;
    }
    clock_init();
    return 0;
}

/* The wires live as long as the process; the ports on them end with port_stop. */
static void
make_wires(struct lan *net)
{
    static struct rte_ring *wire[2];
    static unsigned generation;
    char name[16];

    for (unsigned i = 0; i < 2; i++) {
        snprintf(name, sizeof(name), "wire%u", i);
        if (wire[i] == NULL)
            wire[i] = rte_ring_create(name, 1024, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
        assert_non_null(wire[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        int port;

        snprintf(name, sizeof(name), "node%u", generation++);
        port = rte_eth_from_rings(name, &wire[i], 1, &wire[1 - i], 1, 0);
        assert_true(port >= 0);
        ports[i] = (uint16_t)port;
        net->wire[i] = wire[i];
    }
}

struct stack_config
net_stack_config(unsigned node)
{
    struct stack_config cfg = {
        .ip = { .addr = ip_addr_v4(rte_cpu_to_be_32(RTE_IPV4(10, 0, 0, 1) + node)),
                .prefix_len = 24,
                .seed = 7 + node },
        .aggregate = true,
    };

    tcp_params_default(&cfg.tcp);
    cfg.tcp.max_conns = 256;
    cfg.tcp.max_half_open = 64;
    cfg.tcp.max_time_wait = 64;
    cfg.tcp.seed[0] = 0x1234 + node;
    cfg.tcp.seed[1] = 0x5678;
    return cfg;
}

static struct host *
make_single(struct node *n, const struct stack_config *cfg)
{
    struct counters *ctr = &n->ctr;
    const struct host_config hc = {
        .stack = *cfg, .port = &n->port, .pool = &n->pool, .nb_nets = 1, .nb_stacks = 1, .ctr = &ctr
    };

    return host_create(&hc);
}

/* Who reads meanwhile must not see the end, of whatever kind, before the bytes that came before it. */
static void
assert_end_is_told_last(struct stack *s)
{
    for (uint32_t i = 1; i < s->socks_used; i++) {
        const struct sock *sk = &s->socks[i];
        const struct shm_back_sock *b = sk->app != NULL ? sock_back(sk) : NULL;

        if (b == NULL || (sock_flags(sk) & (SOCK_CLOSING | SOCK_SHADOW)))
            continue;
        if (b->status & (SHM_ST_FIN | SHM_ST_GONE))
            assert_int_equal(b->rx_tail + b->rx_held, sk->rx_delivered);
    }
}

static unsigned
poll_single(struct node *n)
{
    struct ip_packet pkts[2 * PORT_BURST];
    struct net *net = host_net(n->host, 0);
    uint64_t now_us = n->net->now_us;
    uint16_t received;
    unsigned done;

    net_begin(net);
    done = received = net_receive(net, pkts, now_us);
    stack_enter(n->stack, net, now_us);
    stack_segments(n->stack, pkts, received);
    assert_end_is_told_last(n->stack);
    stack_leave(n->stack);
    done += net_commands(net, 256, now_us);
    done += net_timers(net, now_us);
    done += net_end(net, now_us);
    assert_int_equal(net->nb_rx_done, 0);
    return done;
}

static void
unmake_single(struct node *n)
{
    host_destroy(n->host);
}

static const struct net_maker single = { .make = make_single, .poll = poll_single, .unmake = unmake_single };

const struct net_maker *
net_maker_single(void)
{
    return &single;
}

static void
node_init(struct lan *net, unsigned i, const struct stack_config *cfg)
{
    struct node *n = &net->node[i];
    struct port_config pc = { .port_id = ports[i], .nb_queues = 1, .impair = net->maker->impair };
    static unsigned generation; /* a test that failed leaves its pools behind */
    char name[16];
    char err[256] = "";

    pc.impair.seed = 99 + i;
    n->net = net;
    n->addr = cfg->ip.addr;
    snprintf(name, sizeof(name), "n%u", generation++);
    assert_int_equal(pktpool_create(&n->pool, name, NODE_POOL_BUFS, 1500, SOCKET_ID_ANY), 0);
    if (port_start(&n->port, &pc, &n->pool, err, sizeof(err)) != 0)
        fail_msg("%s", err);
    /* net_ring gives every port the same address. */
    n->port.mac = (struct rte_ether_addr){ { 2, 0, 0, 0, 0, (uint8_t)(i + 1) } };
    n->host = net->maker->make(n, cfg);
    assert_non_null(n->host);
    n->stack = host_stack(n->host, 0);
    n->rx_free = rte_mempool_avail_count(n->pool.rx);
    n->tx_free = rte_mempool_avail_count(n->pool.tx);
}

void
net_init(struct lan *net, const struct stack_config cfg[2])
{
    net_init_with(net, cfg, &single);
}

void
net_init_with(struct lan *net, const struct stack_config cfg[2], const struct net_maker *maker)
{
    memset(net, 0, sizeof(*net));
    net->maker = maker;
    net->now_us = 1000;
    make_wires(net);
    for (unsigned i = 0; i < 2; i++)
        node_init(net, i, &cfg[i]);
}

static void
drain_wire(struct rte_ring *wire)
{
    void *m;

    while (rte_ring_dequeue(wire, &m) == 0)
        rte_pktmbuf_free(m);
}

void
net_fini(struct lan *net)
{
    for (unsigned i = 0; i < 2; i++)
        drain_wire(net->wire[i]);
    for (unsigned i = 0; i < 2; i++) {
        struct node *n = &net->node[i];
        struct tcp_usage u;

        assert_int_equal(n->host->nb_apps, 0);
        assert_int_equal(host_rx_bufs(n->host), 0);
        for (unsigned k = 0; k < host_nb_stacks(n->host); k++) {
            const struct stack *s = host_stack(n->host, k);

            assert_int_equal(s->nb_socks, 0);
            assert_int_equal(s->nb_shadows, 0);
            assert_int_equal(s->dirty_first, SOCK_NONE);
            assert_int_equal(s->lock.held, 0);
            tcp_usage(s->tcp, &u);
            assert_int_equal(u.conns, 0);
            assert_int_equal(u.listeners, 0);
            assert_int_equal(u.ooo_bufs, 0);
        }
        net->maker->unmake(n);
        port_stop(&n->port);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct node *n = &net->node[i];

        assert_int_equal(rte_mempool_avail_count(n->pool.rx), n->rx_free);
        assert_int_equal(rte_mempool_avail_count(n->pool.tx), n->tx_free);
        pktpool_destroy(&n->pool);
    }
}

unsigned
node_poll(struct node *n)
{
    return n->net->maker->poll(n);
}

static uint64_t
node_next_us(const struct node *n)
{
    uint64_t next_us = UINT64_MAX;

    for (unsigned w = 0; !n->on_threads && w < host_nb_nets(n->host); w++) {
        if (net_has_work(host_net(n->host, w)))
            return n->net->now_us;
        next_us = RTE_MIN(next_us, net_next_us(host_net(n->host, w), n->net->now_us));
    }
    return next_us;
}

void
net_step(struct lan *net, uint64_t max_us)
{
    /* Threads get no further in one step of ours than they do. */
    const bool on_threads = net->node[0].on_threads || net->node[1].on_threads;
    uint64_t next_us = net->now_us + (on_threads ? RTE_MIN(max_us, THREADS_STEP_US) : max_us);

    if (on_threads)
        sched_yield(); /* on a loaded machine time would run away from them */
    if (node_poll(&net->node[0]) + node_poll(&net->node[1]) > 0) {
        net->now_us += 10;
        return;
    }
    if (rte_ring_count(net->wire[0]) + rte_ring_count(net->wire[1]) > 0)
        next_us = net->now_us + 10;
    for (unsigned i = 0; i < 2; i++)
        next_us = RTE_MIN(next_us, node_next_us(&net->node[i]));
    net->now_us = RTE_MAX(next_us, net->now_us + 10);
}

void
net_run(struct lan *net, uint64_t us)
{
    uint64_t end_us = net->now_us + us;

    while (net->now_us < end_us)
        net_step(net, end_us - net->now_us);
}

/* ---- the fake front-end ----------------------------------------------------------------------------------------------------- */

void
fapp_attach(struct fapp *fa, struct node *n)
{
    const struct arena_config ac = {
        .max_socks = NODE_MAX_SOCKS,
        .tx_chunks = NODE_CHUNKS,
        .nb_rings = 2,
        .nb_instances = host_nb_nets(n->host),
        .pool_bytes = n->pool.bytes,
        .stack_bytes = sizeof(struct shm_stack_page),
    };
    struct arena *a;
    int member;

    memset(fa, 0, sizeof(*fa));
    fa->node = n;
    assert_int_equal(arena_create(&a, &ac), 0);
    fa->front = a->front;
    fa->back = a->back;
    fa->layout = a->layout;
    arena_close_fds(a);
    fa->app = app_create(n->host, a, true);
    assert_non_null(fa->app);
    member = app_member_join(fa->app, 0, 4242);
    assert_true(member > 0);
    fa->member = (uint16_t)member;
}

uint16_t
fapp_fork(struct fapp *fa)
{
    int member = app_member_join(fa->app, fa->member, 4343);

    assert_true(member > 0);
    return (uint16_t)member;
}

void
fapp_leave(struct fapp *fa, uint16_t member)
{
    struct net *net = host_net(fa->node->host, 0);
    uint64_t now_us = fa->node->net->now_us;

    host_stop(fa->node->host, net, now_us);
    app_member_leave(fa->app, member);
    host_go(fa->node->host, net, now_us);
}

struct shm_front_more *
fapp_more(const struct fapp *fa, uint32_t slot)
{
    return (struct shm_front_more *)(fa->front + fa->layout.front_more_off) + slot;
}

struct shm_addr
fapp_name(const struct fapp *fa, uint32_t slot, enum shm_end end)
{
    return shm_name((const struct shm_back_name *)(fa->back + fa->layout.back_names_off) + slot,
                    (const struct shm_back_more *)(fa->back + fa->layout.back_more_off) + slot, end);
}

struct shm_front_sock *
fapp_front(const struct fapp *fa, uint32_t slot)
{
    return (struct shm_front_sock *)(fa->front + fa->layout.front_socks_off) + slot;
}

/* Names chunk `index` of the slot's stream. */
static uint16_t *
chunk_name(const struct fapp *fa, uint32_t slot, uint32_t index)
{
    return shm_tx_chunk(fapp_front(fa, slot), fapp_more(fa, slot), index * SHM_CHUNK_BYTES);
}

const struct shm_back_sock *
fapp_back(const struct fapp *fa, uint32_t slot)
{
    return (const struct shm_back_sock *)(fa->back + fa->layout.back_socks_off) + slot;
}

const struct shm_back_eventq *
fapp_back_evq(const struct fapp *fa, uint32_t queue)
{
    return (const struct shm_back_eventq *)(fa->back + fa->layout.back_eventqs_off) + queue;
}

struct shm_front_eventq *
fapp_front_evq(const struct fapp *fa, uint32_t queue)
{
    return (struct shm_front_eventq *)(fa->front + fa->layout.front_eventqs_off) + queue;
}

static void
enqueue_at(struct fapp *fa, uint32_t worker, uint32_t number)
{
    uint64_t i = worker * fa->layout.nb_rings_per_instance + number % fa->layout.nb_rings_per_instance;
    struct rte_ring *r = (struct rte_ring *)(fa->front + fa->layout.front_rings_off + i * fa->layout.ring_bytes);

    assert_int_equal(rte_ring_mp_enqueue_elem(r, &number, sizeof(number)), 0);
}

void
fapp_enqueue(struct fapp *fa, uint32_t number)
{
    enqueue_at(fa, 0, number);
}

bool
fapp_notify(struct fapp *fa, uint32_t slot)
{
    struct shm_front_sock *f = fapp_front(fa, slot);
    uint32_t worker;

    shm_fence();
    if (shm_load(&fapp_back(fa, slot)->serviced) != f->notified)
        return false;
    shm_store(&f->notified, f->notified + 1);
    worker = shm_load(&fapp_back(fa, slot)->instance);
    /* Threads run on any CPU: calls on one socket come by way of every worker in turn. */
    if (worker >= fa->layout.nb_instances)
        worker = f->notified % fa->layout.nb_instances;
    enqueue_at(fa, worker, slot);
    return true;
}

int
fapp_cmd(struct fapp *fa, uint32_t slot, struct shm_cmd cmd)
{
    struct shm_front_sock *f = fapp_front(fa, slot);
    const struct shm_back_sock *b = fapp_back(fa, slot);
    uint32_t number = f->cmd_head;

    cmd.member = fa->member;
    f->cmd[number % SHM_CMDS] = cmd;
    shm_store(&f->cmd_head, number + 1);
    fapp_notify(fa, slot);
    net_until(fa->node->net, shm_load(&b->cmd_done) == number + 1);
    return b->cmd_result[number % SHM_CMDS];
}

int
fapp_key(struct fapp *fa, uint32_t slot, const struct shm_key *key)
{
    ((struct shm_key *)(fa->front + fa->layout.front_keys_off))[2] = *key;
    return fapp_cmd(fa, slot, (struct shm_cmd){ .op = SHM_OP_SETKEY, .slot = 2 });
}

int
fapp_md5_key(struct fapp *fa, uint32_t slot, const struct ip_addr *peer, const char *text)
{
    struct shm_key key = { .kind = SHM_KEY_MD5, .prefix_len = 128, .n_bytes = (uint8_t)strlen(text) };

    memcpy(key.addr, peer->w, sizeof(key.addr));
    memcpy(key.bytes, text, strlen(text));
    return fapp_key(fa, slot, &key);
}

static uint32_t
fresh_slot(struct fapp *fa)
{
    uint32_t slot = fa->next_slot++ % NODE_MAX_SOCKS;
    struct shm_front_sock *f;

    for (unsigned i = 0; shm_load(&fapp_back(fa, slot)->status) & SHM_ST_OPEN; i++) {
        assert_true(i < NODE_MAX_SOCKS);
        slot = fa->next_slot++ % NODE_MAX_SOCKS;
    }
    f = fapp_front(fa, slot);
    shm_store(&f->tx_tail, 0);
    shm_store(&f->rx_head, 0);
    shm_store(&f->sleepers, 0);
    shm_store(&f->tx_flags, 0);
    f->private0[0] = f->private0[1] = f->private0[2] = 0;
    for (uint32_t i = 0; i < fa->slot_chunks[slot]; i++)
        fa->chunk_used[*chunk_name(fa, slot, i) - 1u] = 0;
    fa->slot_chunks[slot] = 0;
    return slot;
}

uint32_t
fapp_open(struct fapp *fa)
{
    uint32_t slot = fresh_slot(fa);

    assert_int_equal(fapp_cmd(fa, slot, (struct shm_cmd){ .op = SHM_OP_OPEN }), 0);
    return slot;
}

int
fapp_bind(struct fapp *fa, uint32_t slot, const struct ip_addr *a, uint16_t port)
{
    return fapp_cmd(fa, slot, (struct shm_cmd){ .op = SHM_OP_BIND, .sa = addr_to_shm(a, port) });
}

int
fapp_value_cmd(struct fapp *fa, uint32_t slot, uint8_t op, uint32_t name, int32_t value)
{
    return fapp_cmd(fa, slot, (struct shm_cmd){ .op = op, .opt = { .name = name, .value = value } });
}

int
fapp_listen(struct fapp *fa, uint32_t slot, int backlog)
{
    return fapp_value_cmd(fa, slot, SHM_OP_LISTEN, 0, backlog);
}

int
fapp_connect(struct fapp *fa, uint32_t slot, const struct ip_addr *a, uint16_t port)
{
    return fapp_cmd(fa, slot, (struct shm_cmd){ .op = SHM_OP_CONNECT, .sa = addr_to_shm(a, port) });
}

int
fapp_accept(struct fapp *fa, uint32_t slot, uint32_t *child)
{
    int rc;

    *child = fresh_slot(fa);
    rc = fapp_cmd(fa, slot, (struct shm_cmd){ .op = SHM_OP_ACCEPT, .slot = *child });
    if (rc != 0)
        fa->next_slot--;
    return rc;
}

int
fapp_close(struct fapp *fa, uint32_t slot, bool reset)
{
    return fapp_value_cmd(fa, slot, SHM_OP_CLOSE, 0, reset);
}

/* Chunk `index` of a slot's stream: a new one is taken the first time round, then they are used again. */
static char *
chunk_at(struct fapp *fa, uint32_t slot, uint32_t index)
{
    if (index >= fa->slot_chunks[slot] && index < SHM_TX_CHUNKS) {
        uint32_t c = 0;

        while (fa->chunk_used[c] != 0)
            assert_true(++c < NODE_CHUNKS);
        fa->chunk_used[c] = 1;
        *chunk_name(fa, slot, index) = (uint16_t)(c + 1);
        fa->slot_chunks[slot] = index + 1;
    }
    return fa->front + fa->layout.front_chunks_off + (*chunk_name(fa, slot, index) - (size_t)1) * SHM_CHUNK_BYTES;
}

void
fapp_stage(struct fapp *fa, uint32_t slot, const void *data, uint32_t len)
{
    memcpy(chunk_at(fa, slot, 0), data, len);
}

int
fapp_connect_fast(struct fapp *fa, uint32_t slot, const struct ip_addr *a, uint16_t port, uint16_t n_bytes)
{
    struct shm_cmd cmd = { .op = SHM_OP_CONNECT_FAST };

    cmd.sa = addr_to_shm(a, port);
    cmd.sa.n_bytes = n_bytes;
    return fapp_cmd(fa, slot, cmd);
}

uint32_t
fapp_send(struct fapp *fa, uint32_t slot, const void *data, uint32_t len)
{
    struct shm_front_sock *f = fapp_front(fa, slot);
    const struct shm_back_sock *b = fapp_back(fa, slot);
    uint32_t room = b->sndbuf_bytes - (f->tx_tail - shm_load(&b->tx_acked));
    uint32_t total = RTE_MIN(len, room);
    uint32_t pos = f->tx_tail;

    for (uint32_t done = 0; done < total;) {
        uint32_t off = pos % SHM_CHUNK_BYTES;
        uint32_t n = RTE_MIN(total - done, SHM_CHUNK_BYTES - off);

        memcpy(chunk_at(fa, slot, pos / SHM_CHUNK_BYTES) + off, (const char *)data + done, n);
        done += n;
        pos += n;
    }
    if (total > 0) {
        shm_store(&f->tx_tail, pos);
        fapp_notify(fa, slot);
    }
    return total;
}

/* private0: [0] the train that is read, [1] the segment (0 = the train's first), [2] bytes taken from that segment. */
uint32_t
fapp_recv(struct fapp *fa, uint32_t slot, void *data, uint32_t len)
{
    struct shm_front_sock *f = fapp_front(fa, slot);
    const struct shm_back_sock *b = fapp_back(fa, slot);
    uint32_t ready = shm_load(&b->rx_tail) - f->rx_head;
    uint32_t total = RTE_MIN(len, ready);

    for (uint32_t done = 0; done < total;) {
        const struct shm_train *t = &b->trains[f->private0[0] % SHM_TRAINS];
        uint32_t name = f->private0[1] != 0 ? f->private0[1] : t->first;
        const struct shm_segment *seg = (const void *)(fa->node->pool.base + (size_t)name * 64);
        uint32_t n = RTE_MIN(total - done, seg->n_bytes - f->private0[2]);

        assert_true(seg->n_bytes > 0);
        memcpy((char *)data + done, (const char *)seg + seg->data_off + f->private0[2], n);
        done += n;
        f->private0[2] += n;
        if (f->private0[2] == seg->n_bytes) {
            f->private0[2] = 0;
            f->private0[1] = seg->next;
            f->private0[0] += seg->next == 0;
        }
    }
    if (total > 0) {
        shm_store(&f->rx_head, f->rx_head + total);
        fapp_notify(fa, slot);
    }
    return total;
}

void
fapp_pair(struct fapp *from, struct fapp *to, uint16_t port, uint32_t *client, uint32_t *listener, uint32_t *server)
{
    const struct ip_addr any = ip_addr_v4(0);

    *listener = fapp_open(to);
    assert_int_equal(fapp_bind(to, *listener, &any, port), 0);
    assert_int_equal(fapp_listen(to, *listener, 8), 0);
    *client = fapp_open(from);
    assert_int_equal(fapp_connect(from, *client, &to->node->addr, port), 0);
    net_until(from->node->net, shm_load(&fapp_back(from, *client)->status) & SHM_ST_CONNECTED);
    net_until(from->node->net, shm_load(&fapp_back(to, *listener)->accept_ready) == 1);
    assert_int_equal(fapp_accept(to, *listener, server), 0);
}
