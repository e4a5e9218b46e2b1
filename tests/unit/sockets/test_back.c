/* SPDX-License-Identifier: BSD-3-Clause */
#include "back_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/rng.h"
#include "sockets/report.h"

#define BIG_BYTES (6u << 20)

/* ---- connections ------------------------------------------------------------------------------------------------------------- */

static void
connect_accept_close(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_name(&f->b, server, SHM_PEER).port, fapp_name(&f->a, client, SHM_LOCAL).port);
    assert_memory_equal(fapp_name(&f->b, server, SHM_LOCAL).addr, f->b.node->addr.w, 16);
    assert_memory_equal(fapp_name(&f->a, client, SHM_PEER).addr, f->b.node->addr.w, 16);
    assert_int_equal(fapp_name(&f->b, server, SHM_LOCAL).port, PORT);
    assert_int_equal(fapp_back(&f->b, listener)->accept_ready, 0);

    assert_int_equal(fapp_close(&f->a, client, false), 0);
    net_until(&f->net, pair_status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(pair_status(&f->b, server) & (SHM_ST_ERROR | SHM_ST_OPEN), SHM_ST_OPEN);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
    net_until(&f->net, pair_status(&f->a, client) == SHM_ST_DRAINED && pair_status(&f->b, server) == SHM_ST_DRAINED);
    assert_int_equal(fapp_close(&f->b, listener, false), 0);
    net_until(&f->net, pair_status(&f->b, listener) == SHM_ST_DRAINED);
}

static void
refused_then_retried(void **state)
{
    struct pair *f = *state;
    const struct ip_addr any = ip_addr_v4(0);
    uint32_t client = fapp_open(&f->a);
    uint32_t listener;

    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), 0);
    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), -EALREADY);
    net_until(&f->net, pair_status(&f->a, client) & SHM_ST_ERROR);
    assert_int_equal(fapp_back(&f->a, client)->error, ECONNREFUSED);
    assert_int_equal(pair_status(&f->a, client) & SHM_ST_CONNECTING, 0);

    listener = fapp_open(&f->b);
    assert_int_equal(fapp_bind(&f->b, listener, &any, PORT), 0);
    assert_int_equal(fapp_listen(&f->b, listener, 1), 0);
    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), 0);
    net_until(&f->net, pair_status(&f->a, client) & SHM_ST_CONNECTED);
    assert_int_equal(fapp_back(&f->a, client)->error, 0);
    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), -EISCONN);
}

static void
unreachable(void **state)
{
    struct pair *f = *state;
    const struct ip_addr elsewhere = ip_addr_v4(rte_cpu_to_be_32(0xc0000201));
    const struct ip_addr nobody = ip_addr_v4(rte_cpu_to_be_32(RTE_IPV4(10, 0, 0, 77)));
    uint32_t slot = fapp_open(&f->a);
    uint64_t start_us;

    assert_int_equal(fapp_connect(&f->a, slot, &elsewhere, PORT), -ENETUNREACH);
    start_us = f->net.now_us;
    assert_int_equal(fapp_connect(&f->a, slot, &nobody, PORT), 0);
    net_until(&f->net, pair_status(&f->a, slot) & SHM_ST_ERROR);
    assert_int_equal(fapp_back(&f->a, slot)->error, EHOSTUNREACH);
    assert_true(f->net.now_us - start_us < 10000000);
}

static void
bind_errors(void **state)
{
    struct pair *f = *state;
    const struct ip_addr any = ip_addr_v4(0);
    const struct ip_addr foreign = ip_addr_v4(rte_cpu_to_be_32(RTE_IPV4(10, 0, 0, 9)));
    uint32_t one = fapp_open(&f->a);
    uint32_t two = fapp_open(&f->a);
    uint32_t child;

    assert_int_equal(fapp_bind(&f->a, one, &foreign, PORT), -EADDRNOTAVAIL);
    assert_int_equal(fapp_bind(&f->a, one, &any, PORT), 0);
    assert_int_equal(fapp_bind(&f->a, one, &any, PORT), -EINVAL);
    assert_int_equal(fapp_bind(&f->a, two, &any, PORT), -EADDRINUSE);
    assert_int_equal(fapp_bind(&f->a, two, &f->a.node->addr, 0), 0);
    assert_int_not_equal(fapp_name(&f->a, two, SHM_LOCAL).port, 0);
    assert_int_equal(fapp_accept(&f->a, one, &child), -EINVAL);
    assert_int_equal(fapp_listen(&f->a, one, 5), 0);
    assert_int_equal(fapp_accept(&f->a, one, &child), -EAGAIN);
    /* The port is free again once its holder is closed. */
    assert_int_equal(fapp_close(&f->a, one, false), 0);
    net_until(&f->net, pair_status(&f->a, one) == SHM_ST_DRAINED);
    one = fapp_open(&f->a);
    assert_int_equal(fapp_bind(&f->a, one, &any, PORT), 0);
    /* Also if nothing came of the reservation. */
    assert_int_equal(fapp_close(&f->a, one, false), 0);
    one = fapp_open(&f->a);
    assert_int_equal(fapp_bind(&f->a, one, &any, PORT), 0);
}

static void
commands_without_socket(void **state)
{
    struct pair *f = *state;
    uint32_t slot = fapp_open(&f->a);

    assert_int_equal(fapp_value_cmd(&f->a, 100, SHM_OP_NOP, 0, 0), -EBADF);
    assert_int_equal(fapp_value_cmd(&f->a, slot, SHM_OP_NOP, 0, 0), 0);
    assert_int_equal(fapp_value_cmd(&f->a, slot, SHM_OP_OPEN, 0, 0), -EINVAL);
    assert_int_equal(fapp_value_cmd(&f->a, slot, SHM_OP_COUNT, 0, 0), -EINVAL);
    assert_int_equal(fapp_value_cmd(&f->a, slot, SHM_OP_SHUTDOWN, 0, SHUT_WR), -ENOTCONN);
    assert_int_equal(pair_counter(&f->a, CTR_SOCK_BAD_COMMAND), 2);
}

/* ---- streams ------------------------------------------------------------------------------------------------------------------ */

static void
big_transfer_both_ways(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    pair_transfer(&f->net, &f->a, client, &f->b, server, BIG_BYTES);
    pair_transfer(&f->net, &f->b, server, &f->a, client, BIG_BYTES);
    assert_int_equal(fapp_back(&f->a, client)->tx_sent, BIG_BYTES);
    net_until(&f->net, fapp_back(&f->a, client)->tx_acked == BIG_BYTES);
}

/* The application sets TCP_NODELAY, and does not wait for the answer. */
static void
post_nodelay(struct fapp *fa, uint32_t slot)
{
    struct shm_front_sock *f = fapp_front(fa, slot);
    uint32_t number = f->cmd_head;

    f->cmd[number % SHM_CMDS] =
        (struct shm_cmd){ .op = SHM_OP_SETOPT, .member = fa->member, .opt = { .name = TCP_OPT_NODELAY, .value = 1 } };
    shm_store(&f->cmd_head, number + 1);
}

/* How many frames node 0 sends when the application appends and closes at once. */
static uint64_t
frames_of_end(struct pair *f, bool reset, bool unread, bool nodelay)
{
    uint32_t client, listener, server;
    uint64_t before;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    if (unread)
        fapp_send(&f->b, server, "unread", 6);
    net_run(&f->net, 500000);
    before = pair_counter(&f->a, CTR_PORT_TX_PKTS);
    if (nodelay)
        post_nodelay(&f->a, client);
    assert_int_equal(fapp_send(&f->a, client, "the last", 8), 8);
    assert_int_equal(fapp_close(&f->a, client, reset), 0);
    net_run(&f->net, 500000);
    assert_int_equal(fapp_back(&f->b, server)->rx_tail, 8);
    assert_true(pair_status(&f->b, server) & (reset || unread ? SHM_ST_ERROR : SHM_ST_FIN));
    before = pair_counter(&f->a, CTR_PORT_TX_PKTS) - before;
    fapp_close(&f->b, server, false);
    fapp_close(&f->b, listener, false);
    net_run(&f->net, 500000);
    return before;
}

static void
close_goes_with_the_last_bytes(void **state)
{
    struct pair *f = *state;

    assert_int_equal(frames_of_end(f, false, false, false), 1);
    assert_int_equal(frames_of_end(f, false, false, true), 1);
    assert_true(frames_of_end(f, true, false, false) > 1);
    assert_true(frames_of_end(f, false, true, false) > 1);
}

static void
to_own_address(void **state)
{
    struct pair *f = *state;
    struct fapp other;
    uint32_t client, listener, server;

    fapp_attach(&other, &f->net.node[0]);
    fapp_pair(&f->a, &other, PORT, &client, &listener, &server);
    pair_transfer(&f->net, &f->a, client, &other, server, 1u << 20);
    assert_true(pair_counter(&f->a, CTR_IP_LOCAL) > 0);
    fapp_leave(&other, other.member);
}

/* No pass may follow for long: what it has read is the pool's again when it has left. */
static void
who_leaves_gives_back_what_it_has_read(void **state)
{
    struct pair *f = *state;
    const struct rte_mempool *rx = f->b.node->pool.rx;
    uint32_t client, listener, server, avail;
    struct fapp other;
    uint8_t buf[5000] = { 0 };

    fapp_attach(&other, f->b.node);
    fapp_pair(&f->a, &other, PORT, &client, &listener, &server);
    net_run(&f->net, 100000);
    avail = rte_mempool_avail_count(rx);
    assert_int_equal(fapp_send(&f->a, client, buf, sizeof(buf)), sizeof(buf));
    net_run(&f->net, 100000);
    assert_true(rte_mempool_avail_count(rx) < avail);
    assert_int_equal(fapp_recv(&other, server, buf, sizeof(buf)), sizeof(buf));
    fapp_leave(&other, other.member);
    assert_int_equal(rte_mempool_avail_count(rx), avail);
}

static void
close_sends_what_was_queued(void **state)
{
    struct pair *f = *state;
    static uint8_t buf[300000];
    static uint8_t got[300000];
    uint32_t client, listener, server;
    uint32_t n, total = 0;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    pair_pattern(buf, 0, sizeof(buf));
    n = fapp_send(&f->a, client, buf, sizeof(buf));
    assert_true(n > 100000);
    assert_int_equal(fapp_close(&f->a, client, false), 0);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_NOP, 0, 0), -EBADF);
    /* Its chunks are still being read: the slot is not free before the last byte is acknowledged. */
    assert_int_equal(pair_status(&f->a, client) & (SHM_ST_OPEN | SHM_ST_DRAINED), SHM_ST_OPEN);
    while (total < n) {
        net_step(&f->net, 1000);
        total += fapp_recv(&f->b, server, got + total, n - total);
    }
    assert_memory_equal(got, buf, n);
    net_until(&f->net, pair_status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(fapp_back(&f->b, server)->rx_tail, n);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
    net_until(&f->net, pair_status(&f->a, client) == SHM_ST_DRAINED);
}

static void
shutdown_write_still_receives(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    char buf[8];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SHUTDOWN, 0, SHUT_WR), 0);
    net_until(&f->net, pair_status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(fapp_send(&f->b, server, "answer", 6), 6);
    net_until(&f->net, fapp_back(&f->a, client)->rx_tail == 6);
    assert_int_equal(fapp_recv(&f->a, client, buf, sizeof(buf)), 6);
    assert_memory_equal(buf, "answer", 6);
}

/* The last bytes and the peer's end in one segment, which is the connection's end too: these are three news (back_net.c, assert_end_is_told_last). */
static void
the_end_comes_behind_the_bytes(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    char buf[8];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SHUTDOWN, 0, SHUT_WR), 0);
    net_until(&f->net, pair_status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(fapp_send(&f->b, server, "answer", 6), 6);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
    net_until(&f->net, pair_status(&f->a, client) & SHM_ST_GONE);
    assert_true(pair_status(&f->a, client) & SHM_ST_FIN);
    assert_int_equal(fapp_recv(&f->a, client, buf, sizeof(buf)), 6);
    assert_memory_equal(buf, "answer", 6);
}

/* An unread answer makes close a reset (RFC 2525 section 2.17), and so does linger 0. */
static void
resets(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_send(&f->b, server, "unread", 6), 6);
    net_until(&f->net, fapp_back(&f->a, client)->rx_tail == 6);
    assert_int_equal(fapp_close(&f->a, client, false), 0);
    net_until(&f->net, pair_status(&f->b, server) & SHM_ST_ERROR);
    assert_int_equal(fapp_back(&f->b, server)->error, ECONNRESET);

    client = fapp_open(&f->a);
    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), 0);
    net_until(&f->net, fapp_back(&f->b, listener)->accept_ready == 1);
    assert_int_equal(fapp_accept(&f->b, listener, &server), 0);
    assert_int_equal(fapp_close(&f->a, client, true), 0);
    net_until(&f->net, pair_status(&f->b, server) & SHM_ST_ERROR);
    net_until(&f->net, pair_status(&f->a, client) == SHM_ST_DRAINED);
}

/* Nobody reads: at most SHM_TRAINS trains are out, the rest waits, and nothing is lost. */
static void
trains_are_bounded(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    uint8_t buf[4000];
    uint32_t sent = 0;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_NODELAY, 1), 0);
    for (unsigned i = 0; i < 40; i++) {
        pair_pattern(buf, sent, 100);
        sent += fapp_send(&f->a, client, buf, 100);
        net_run(&f->net, 60000);
    }
    assert_int_equal(sent, 4000);
    assert_int_equal(fapp_back(&f->b, server)->train_tail, SHM_TRAINS);
    assert_true(fapp_back(&f->b, server)->rx_tail < sent);
    assert_true(pair_counter(&f->b, CTR_SOCK_RX_COALESCED) > 0);
    for (uint32_t got = 0; got < sent;) {
        uint32_t n = fapp_recv(&f->b, server, buf, 333);

        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(buf[i], pair_byte(got + i));
        got += n;
        net_run(&f->net, 1000);
    }
    assert_int_equal(host_rx_bufs(f->b.node->host), 0);
}

static void
sends_pile_up_behind_one_notification(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    uint64_t notifications;
    char buf[16];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    net_run(&f->net, 1000000);
    notifications = pair_counter(&f->a, CTR_SOCK_NOTIFICATIONS);
    assert_int_equal(fapp_send(&f->a, client, "ab", 2), 2);
    assert_false(fapp_notify(&f->a, client));
    assert_int_equal(fapp_send(&f->a, client, "cdef", 4), 4);
    net_until(&f->net, fapp_back(&f->b, server)->rx_tail == 6);
    assert_int_equal(pair_counter(&f->a, CTR_SOCK_NOTIFICATIONS), notifications + 1);
    assert_int_equal(fapp_recv(&f->b, server, buf, sizeof(buf)), 6);
    assert_memory_equal(buf, "abcdef", 6);
}

/* ---- processes ---------------------------------------------------------------------------------------------------------------------- */

static void
death_closes_everything(void **state)
{
    struct pair *f = *state;
    struct fapp victim;
    uint32_t client, listener, server, bound;
    static uint8_t buf[20000];
    const struct ip_addr any = ip_addr_v4(0);

    fapp_attach(&victim, &f->net.node[0]);
    fapp_pair(&victim, &f->b, PORT, &client, &listener, &server);
    bound = fapp_open(&victim);
    assert_int_equal(fapp_bind(&victim, bound, &any, 99), 0);
    assert_int_equal(fapp_listen(&victim, bound, 5), 0);
    fapp_open(&victim);
    /* Bytes that were appended, and not even notified of, when the process died: a kernel would send them. */
    pair_pattern(buf, 0, sizeof(buf));
    assert_int_equal(fapp_send(&victim, client, buf, 500), 500);
    net_run(&f->net, 10000);
    assert_int_equal(fapp_back(&f->b, server)->rx_tail, 500);
    fapp_front(&victim, client)->tx_tail += 500;
    fapp_leave(&victim, victim.member);
    net_until(&f->net, f->net.node[0].host->nb_apps == 1 || pair_status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(fapp_back(&f->b, server)->rx_tail, 1000);
    assert_int_equal(fapp_recv(&f->b, server, buf, sizeof(buf)), 1000);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
    net_until(&f->net, f->net.node[0].host->nb_apps == 1);
    assert_int_equal(f->net.node[0].stack->nb_socks, 0);
    assert_true(arena_reap() >= 1);
    /* Its ports are free. */
    bound = fapp_open(&f->a);
    assert_int_equal(fapp_bind(&f->a, bound, &any, 99), 0);
}

static void
fork_shares_sockets(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    uint16_t parent = f->a.member;
    uint16_t child;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    child = fapp_fork(&f->a);
    /* The parent closes: the child still has it. */
    assert_int_equal(fapp_close(&f->a, client, false), 0);
    net_run(&f->net, 100000);
    assert_int_equal(pair_status(&f->a, client) & (SHM_ST_OPEN | SHM_ST_GONE), SHM_ST_OPEN);
    /* Twice is once too often. */
    assert_int_equal(fapp_close(&f->a, client, false), -EINVAL);
    pair_transfer(&f->net, &f->a, client, &f->b, server, 10000);
    fapp_leave(&f->a, child);
    net_until(&f->net, pair_status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
    net_until(&f->net, pair_status(&f->a, client) == SHM_ST_DRAINED);
    assert_true(app_member_ok(f->a.app, parent));
    assert_false(app_member_ok(f->a.app, child));
}

/* A process died between reserving a ring entry and filling it: who comes after it is served all the same. */
static void
ring_is_repaired(void **state)
{
    struct pair *f = *state;
    struct rte_ring *r = (struct rte_ring *)(f->a.front + f->a.layout.front_rings_off);
    uint16_t child = fapp_fork(&f->a);
    uint32_t slot = fapp_open(&f->a);
    uint32_t tail;

    slot += slot % 2; /* numbers of even slots go to ring 0 */
    if (!(pair_status(&f->a, slot) & SHM_ST_OPEN))
        slot = fapp_open(&f->a);
    tail = r->prod.tail;
    r->prod.head = tail + 1;
    fapp_leave(&f->a, child);
    net_run(&f->net, 200000);
    assert_int_equal(r->prod.tail, tail + 1);
    assert_int_equal(fapp_value_cmd(&f->a, slot, SHM_OP_NOP, 0, 0), 0);

    /* Notified, and dead before the entry was made: nobody would ever enqueue that slot again. */
    child = fapp_fork(&f->a);
    fapp_front(&f->a, slot)->notified++;
    fapp_leave(&f->a, child);
    assert_int_equal(fapp_value_cmd(&f->a, slot, SHM_OP_NOP, 0, 0), 0);
}

/* ---- events --------------------------------------------------------------------------------------------------------------------------- */

static void
event_queue(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    const struct shm_back_eventq *q = fapp_back_evq(&f->b, 0);
    struct shm_front_eventq *fq = fapp_front_evq(&f->b, 0);
    uint64_t word[8];
    uint32_t tail;
    int fds[2];

    assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(app_eventq_add(f->b.app, fds[1]), 0);
    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_cmd(&f->b, server, (struct shm_cmd){ .op = SHM_OP_SUBSCRIBE, .evq.queue = 7 }), -EINVAL);
    assert_int_equal(fapp_cmd(&f->b, server, (struct shm_cmd){ .op = SHM_OP_SUBSCRIBE, .evq.queue = 0 }), 0);
    net_run(&f->net, 10000);
    assert_int_equal(q->tail, 1);
    assert_int_equal(q->slot[0], server);
    assert_int_equal(read(fds[0], word, sizeof(word)), -1); /* nobody sleeps */

    /* Not taken yet: no second entry. */
    assert_int_equal(fapp_send(&f->a, client, "x", 1), 1);
    net_until(&f->net, fapp_back(&f->b, server)->rx_tail == 1);
    assert_int_equal(q->tail, 1);

    fq->head = 1;
    fq->sleeping = 1;
    assert_int_equal(fapp_send(&f->a, client, "y", 1), 1);
    net_until(&f->net, q->tail == 2);
    assert_int_equal(q->slot[1], server);
    assert_int_equal(read(fds[0], word, sizeof(word)), sizeof(word[0]));
    fq->sleeping = 0;
    fq->head = 2;

    /* After unsubscribing nothing comes. */
    assert_int_equal(fapp_cmd(&f->b, server, (struct shm_cmd){ .op = SHM_OP_UNSUBSCRIBE, .evq.queue = 0 }), 0);
    net_run(&f->net, 10000);
    tail = q->tail;
    assert_int_equal(fapp_send(&f->a, client, "z", 1), 1);
    net_until(&f->net, fapp_back(&f->b, server)->rx_tail == 3);
    assert_int_equal(q->tail, tail);
    assert_int_equal(app_eventq_remove(f->b.app, 0), fds[1]);
    assert_int_equal(app_eventq_remove(f->b.app, 0), -1);
    close(fds[0]);
    close(fds[1]);
}

static void
event_queue_overflows(void **state)
{
    struct pair *f = *state;
    const struct shm_back_eventq *q = fapp_back_evq(&f->a, 0);
    struct shm_front_eventq *fq = fapp_front_evq(&f->a, 0);
    uint32_t slot = fapp_open(&f->a);
    int fds[2];

    assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(app_eventq_add(f->a.app, fds[1]), 0);
    /* An application that never takes an entry, by its word. */
    fq->head = (uint32_t)-SHM_EVENTQ_ENTRIES;
    assert_int_equal(fapp_cmd(&f->a, slot, (struct shm_cmd){ .op = SHM_OP_SUBSCRIBE, .evq.queue = 0 }), 0);
    net_run(&f->net, 1000);
    assert_int_equal(q->tail, 0);
    assert_int_equal(q->overflow, 1);
    assert_int_equal(pair_counter(&f->a, CTR_SOCK_EVENT_OVERFLOW), 1);
    app_eventq_remove(f->a.app, 0);
    close(fds[0]);
    close(fds[1]);
}

static void
sleepers_alone_are_woken(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    uint64_t woken;
    uint32_t seq;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    net_run(&f->net, 1000);
    woken = pair_counter(&f->b, CTR_SOCK_WAKEUPS);
    seq = fapp_back(&f->b, server)->event_seq;
    assert_int_equal(fapp_send(&f->a, client, "x", 1), 1);
    net_until(&f->net, fapp_back(&f->b, server)->rx_tail == 1);
    assert_int_not_equal(fapp_back(&f->b, server)->event_seq, seq);
    assert_int_equal(pair_counter(&f->b, CTR_SOCK_WAKEUPS), woken);
    fapp_front(&f->b, server)->sleepers = SHM_SLEEP_WRITE;
    assert_int_equal(fapp_send(&f->a, client, "x", 1), 1);
    net_until(&f->net, fapp_back(&f->b, server)->rx_tail == 2);
    assert_int_equal(pair_counter(&f->b, CTR_SOCK_WAKEUPS), woken);
    fapp_front(&f->b, server)->sleepers = SHM_SLEEP_READ;
    assert_int_equal(fapp_send(&f->a, client, "x", 1), 1);
    net_until(&f->net, fapp_back(&f->b, server)->rx_tail == 3);
    assert_int_equal(pair_counter(&f->b, CTR_SOCK_WAKEUPS), woken + 1);
}

/* A sender that sleeps for space is woken when a third of its buffer is free, and no sooner. */
static void
space_wakes_the_sender(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    static uint8_t buf[65536];
    const struct shm_back_sock *b;
    uint64_t woken;
    uint32_t seq;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    b = fapp_back(&f->a, client);
    /* Nobody reads: fill both buffers. */
    for (unsigned i = 0; i < 200; i++) {
        fapp_send(&f->a, client, buf, sizeof(buf));
        net_run(&f->net, 2000);
    }
    net_run(&f->net, 1000000);
    assert_int_equal(fapp_send(&f->a, client, buf, 1), 0);
    fapp_front(&f->a, client)->sleepers = SHM_SLEEP_WRITE;
    woken = pair_counter(&f->a, CTR_SOCK_WAKEUPS);
    seq = b->event_seq;
    for (unsigned i = 0; i < 100000 && b->event_seq == seq; i++) {
        fapp_recv(&f->b, server, buf, 2000);
        net_run(&f->net, 500);
    }
    assert_int_equal(pair_counter(&f->a, CTR_SOCK_WAKEUPS), woken + 1);
    assert_true(b->sndbuf_bytes - (fapp_front(&f->a, client)->tx_tail - b->tx_acked) >= b->sndbuf_bytes / 3);
}

static void
sleep_is_announced(void **state)
{
    struct pair *f = *state;
    struct net *net = host_net(f->a.node->host, 0);
    const struct shm_stack_page *page = f->a.node->host->page;
    uint32_t slot = fapp_open(&f->a);

    net_run(&f->net, 1000);
    net_set_sleeping(net, true);
    assert_int_equal(page->instance[0].sleeping, 1);
    assert_false(net_has_work(net));
    /* Whoever comes after the announcement is seen by the look that follows it. */
    assert_true(fapp_notify(&f->a, slot));
    assert_true(net_has_work(net));
    net_set_sleeping(net, false);
    assert_int_equal(page->instance[0].sleeping, 0);
}

/* ---- limits ------------------------------------------------------------------------------------------------------------------------------- */

static unsigned
count_squeezed(const struct stack *s)
{
    unsigned n = 0;

    for (uint32_t i = 1; i < s->socks_used; i++)
        n += s->socks[i].app != NULL && (s->socks[i].flags & SOCK_SQUEEZED) != 0;
    return n;
}

/* An application that reads nothing on many connections does not keep another from receiving. */
static void
one_application_cannot_take_every_buffer(void **state)
{
    struct pair *f = *state;
    struct fapp other;
    uint32_t client[40], listener, server[40], other_client, other_server;
    static uint8_t buf[65536];
    const struct stack *s = f->b.node->stack;

    fapp_pair(&f->a, &f->b, PORT, &client[0], &listener, &server[0]);
    for (unsigned i = 1; i < RTE_DIM(client); i++) {
        client[i] = fapp_open(&f->a);
        assert_int_equal(fapp_connect(&f->a, client[i], &f->b.node->addr, PORT), 0);
        net_until(&f->net, fapp_back(&f->b, listener)->accept_ready == 1);
        assert_int_equal(fapp_accept(&f->b, listener, &server[i]), 0);
    }
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < RTE_DIM(client); i++)
            if (!(pair_status(&f->a, client[i]) & SHM_ST_ERROR) && fapp_front(&f->a, client[i])->tx_tail < 200000)
                fapp_send(&f->a, client[i], buf, 20000);
        net_run(&f->net, 20000);
        assert_true(host_rx_bufs(s->host) <= pktpool_budget(s->pool) / 4 * 3 + 2 * PORT_BURST);
    }
    assert_true(host_rx_bufs(s->host) > pktpool_budget(s->pool) / 3);
    assert_true(count_squeezed(s) > 0);
    fapp_attach(&other, f->b.node);
    fapp_pair(&f->a, &other, PORT + 1, &other_client, &listener, &other_server);
    pair_transfer(&f->net, &f->a, other_client, &other, other_server, 100000);
    fapp_leave(&other, other.member);
    /* When it reads at last, its windows open again, and the buffers come back. */
    for (unsigned done = 0, round = 0; done < RTE_DIM(client); round++) {
        assert_true(round < 10000);
        done = 0;
        for (unsigned i = 0; i < RTE_DIM(client); i++) {
            fapp_recv(&f->b, server[i], buf, sizeof(buf));
            done += fapp_front(&f->b, server[i])->rx_head == fapp_front(&f->a, client[i])->tx_tail;
        }
        net_run(&f->net, 20000);
    }
    assert_int_equal(count_squeezed(s), 0);
    for (unsigned i = 0; i < RTE_DIM(client); i++)
        assert_int_equal(pair_status(&f->b, server[i]) & SHM_ST_ERROR, 0);
    assert_int_equal(host_rx_bufs(s->host), 0);
}

/* ---- other threads -------------------------------------------------------------------------------------------------------------------------- */

struct asked {
    struct host *host;
    char *text;
    size_t len;
    int result;
    int done;
};

static void *
ask(void *arg)
{
    struct asked *a = arg;
    FILE *out = open_memstream(&a->text, &a->len);

    a->result = report_ss(a->host, out, REPORT_ALL);
    if (a->result == 0)
        a->result = report_usage(a->host, out);
    fclose(out);
    __atomic_store_n(&a->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void
reports(void **state)
{
    struct pair *f = *state;
    struct asked a = { .host = f->b.node->host };
    uint32_t client, listener, server;
    pthread_t thread;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(pthread_create(&thread, NULL, ask, &a), 0);
    while (!__atomic_load_n(&a.done, __ATOMIC_ACQUIRE))
        node_poll(f->b.node);
    pthread_join(thread, NULL);
    assert_int_equal(a.result, 0);
    assert_non_null(strstr(a.text, "LISTEN"));
    assert_non_null(strstr(a.text, "ESTAB"));
    assert_non_null(strstr(a.text, "10.0.0.2:80"));
    assert_non_null(strstr(a.text, "pid=4242"));
    assert_non_null(strstr(a.text, "cwnd:"));
    assert_non_null(strstr(a.text, "connections 1\n"));
    free(a.text);
}

static void
calls_after_the_end_fail(void **state)
{
    struct pair *f = *state;

    host_calls_end(f->a.node->host);
    assert_int_equal(report_usage(f->a.node->host, stderr), -ESHUTDOWN);
}

static void
orderly_end(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    struct host *h = f->b.node->host;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_false(host_shutdown_done(h, f->net.now_us));
    host_shutdown_begin(h, f->net.now_us);
    assert_int_equal(h->page->alive, 0);
    net_until(&f->net, host_shutdown_done(h, f->net.now_us));
    assert_int_equal(fapp_back(&f->b, server)->error, ENETDOWN);
    assert_int_equal(fapp_back(&f->b, listener)->error, ENETDOWN);
    assert_int_equal(pair_status(&f->a, client) & (SHM_ST_FIN | SHM_ST_ERROR), SHM_ST_FIN);
}

/* A peer that keeps its end open must not hold up the stack's end, though the application has closed its own. */
static void
orderly_end_of_an_orphan(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    struct host *h = f->b.node->host;
    uint64_t begun_us;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
    net_until(&f->net, pair_status(&f->a, client) & SHM_ST_FIN);
    net_run(&f->net, 100000);
    begun_us = f->net.now_us;
    host_shutdown_begin(h, begun_us);
    net_until(&f->net, host_shutdown_done(h, f->net.now_us));
    assert_true(f->net.now_us - begun_us < 200000);
    net_until(&f->net, pair_status(&f->a, client) & SHM_ST_GONE);
}

/* What a name says is what was put in, and only addresses that are neither IPv4's nor unset need more than the name itself. */
static void
names_of_every_kind(void **state)
{
    static const struct shm_addr all[] = {
        { .addr = { 0 } },
        { .addr = { 0 }, .port = 80 },
        { .addr = { 0, 0, SHM_MAPPED_WORD, 0x0100000a }, .port = 65535 },
        { .addr = { 0, 0, SHM_MAPPED_WORD, 0 }, .port = 1 },
        { .addr = { 0, 0, 0, 0x01000000 }, .port = 2 },
        { .addr = { 0xb80d0120, 0, 0, 0x01000000 }, .port = 3 },
        { .addr = { 0xb80d0120, 0, SHM_MAPPED_WORD, 7 }, .port = 4 },
        { .addr = { 0, 0, 5, 7 }, .port = 5 },
    };
    static const struct shm_back_more untouched;

    (void)state;
    for (unsigned i = 0; i < RTE_DIM(all); i++) {
        struct shm_back_name n = { .rcvbuf_bytes = 9 };
        struct shm_back_more more = untouched;
        struct shm_addr a;

        shm_name_set(&n, &more, SHM_LOCAL, &all[i]);
        shm_name_set(&n, &more, SHM_PEER, &all[RTE_DIM(all) - 1 - i]);
        a = shm_name(&n, &more, SHM_LOCAL);
        assert_memory_equal(&a, &all[i], sizeof(a));
        a = shm_name(&n, &more, SHM_PEER);
        assert_memory_equal(&a, &all[RTE_DIM(all) - 1 - i], sizeof(a));
        shm_name_set(&n, &more, SHM_PEER, &all[0]);
        assert_int_equal(n.rcvbuf_bytes, 9);
        if (i < 5)
            assert_int_equal(memcmp(more.name[SHM_LOCAL], untouched.name[SHM_LOCAL], sizeof(more.name[0])), 0);
    }
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, pair_setup, pair_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_every_kind),
        T(connect_accept_close),
        T(refused_then_retried),
        T(unreachable),
        T(bind_errors),
        T(commands_without_socket),
        T(big_transfer_both_ways),
        T(close_goes_with_the_last_bytes),
        T(to_own_address),
        T(who_leaves_gives_back_what_it_has_read),
        T(close_sends_what_was_queued),
        T(shutdown_write_still_receives),
        T(the_end_comes_behind_the_bytes),
        T(resets),
        T(trains_are_bounded),
        T(sends_pile_up_behind_one_notification),
        T(death_closes_everything),
        T(fork_shares_sockets),
        T(ring_is_repaired),
        T(event_queue),
        T(event_queue_overflows),
        T(sleepers_alone_are_woken),
        T(space_wakes_the_sender),
        T(sleep_is_announced),
        T(one_application_cannot_take_every_buffer),
        T(reports),
        T(calls_after_the_end_fail),
        T(orderly_end),
        T(orderly_end_of_an_orphan),
    };

    return net_eal_start() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
