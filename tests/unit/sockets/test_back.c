/* SPDX-License-Identifier: BSD-3-Clause */
#include "back_net.h"

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

#define PORT 80
#define BIG_BYTES (6u << 20)

struct fixture {
    struct lan net;
    struct fapp a, b; /* on nodes 0 and 1 */
};

static int
setup(void **state)
{
    static struct fixture f;
    const struct stack_config cfg[2] = { net_stack_config(0), net_stack_config(1) };

    net_init(&f.net, cfg);
    fapp_attach(&f.a, &f.net.node[0]);
    fapp_attach(&f.b, &f.net.node[1]);
    *state = &f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    fapp_leave(&f->a, f->a.member);
    fapp_leave(&f->b, f->b.member);
    /* TIME-WAIT may stay; connections, sockets and buffers may not. */
    net_until(&f->net, f->net.node[0].host->nb_apps + f->net.node[1].host->nb_apps == 0);
    net_run(&f->net, 100000);
    net_fini(&f->net);
    return 0;
}

static uint32_t
status(const struct fapp *fa, uint32_t slot)
{
    return shm_load(&fapp_back(fa, slot)->status);
}

static uint64_t
counter(const struct fapp *fa, enum counter_id id)
{
    return fa->node->ctr.v[id];
}

/* The byte at a position of a stream: wrong places show. */
static uint8_t
pattern(uint32_t pos)
{
    return (uint8_t)(pos * 2654435761u >> 24);
}

static void
pattern_fill(uint8_t *out, uint32_t pos, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = pattern(pos + i);
}

/* Move `total` bytes and compare each. */
static void
transfer(struct lan *net, struct fapp *from, uint32_t tx, struct fapp *to, uint32_t rx, uint32_t total)
{
    static uint8_t buf[100000];
    uint32_t sent = 0;
    uint32_t got = 0;
    uint64_t limit_us = net->now_us + 600000000;

    while (got < total) {
        uint32_t n = RTE_MIN(total - sent, 70001u);

        pattern_fill(buf, sent, n);
        sent += fapp_send(from, tx, buf, n);
        net_step(net, 1000);
        n = fapp_recv(to, rx, buf, 50021);
        for (uint32_t i = 0; i < n; i++)
            if (buf[i] != pattern(got + i))
                fail_msg("byte %u is %u, not %u", got + i, buf[i], pattern(got + i));
        got += n;
        assert_true(net->now_us < limit_us);
        assert_int_equal(status(from, tx) & SHM_ST_ERROR, 0);
    }
}

/* ---- connections ------------------------------------------------------------------------------------------------------------- */

static void
connect_accept_close(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_back(&f->b, server)->peer.port, fapp_back(&f->a, client)->local.port);
    assert_memory_equal(fapp_back(&f->b, server)->local.addr, f->b.node->addr.w, 16);
    assert_memory_equal(fapp_back(&f->a, client)->peer.addr, f->b.node->addr.w, 16);
    assert_int_equal(fapp_back(&f->b, server)->local.port, PORT);
    assert_int_equal(fapp_back(&f->b, listener)->accept_ready, 0);

    assert_int_equal(fapp_close(&f->a, client, false), 0);
    net_until(&f->net, status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(status(&f->b, server) & (SHM_ST_ERROR | SHM_ST_OPEN), SHM_ST_OPEN);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
    net_until(&f->net, status(&f->a, client) == SHM_ST_DRAINED && status(&f->b, server) == SHM_ST_DRAINED);
    assert_int_equal(fapp_close(&f->b, listener, false), 0);
    net_until(&f->net, status(&f->b, listener) == SHM_ST_DRAINED);
}

static void
refused_then_retried(void **state)
{
    struct fixture *f = *state;
    const struct ip_addr any = ip_addr_v4(0);
    uint32_t client = fapp_open(&f->a);
    uint32_t listener;

    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), 0);
    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), -EALREADY);
    net_until(&f->net, status(&f->a, client) & SHM_ST_ERROR);
    assert_int_equal(fapp_back(&f->a, client)->error, ECONNREFUSED);
    assert_int_equal(status(&f->a, client) & SHM_ST_CONNECTING, 0);

    listener = fapp_open(&f->b);
    assert_int_equal(fapp_bind(&f->b, listener, &any, PORT), 0);
    assert_int_equal(fapp_listen(&f->b, listener, 1), 0);
    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), 0);
    net_until(&f->net, status(&f->a, client) & SHM_ST_CONNECTED);
    assert_int_equal(fapp_back(&f->a, client)->error, 0);
    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), -EISCONN);
}

static void
unreachable(void **state)
{
    struct fixture *f = *state;
    const struct ip_addr elsewhere = ip_addr_v4(rte_cpu_to_be_32(0xc0000201));
    const struct ip_addr nobody = ip_addr_v4(rte_cpu_to_be_32(RTE_IPV4(10, 0, 0, 77)));
    uint32_t slot = fapp_open(&f->a);
    uint64_t start_us;

    assert_int_equal(fapp_connect(&f->a, slot, &elsewhere, PORT), -ENETUNREACH);
    start_us = f->net.now_us;
    assert_int_equal(fapp_connect(&f->a, slot, &nobody, PORT), 0);
    net_until(&f->net, status(&f->a, slot) & SHM_ST_ERROR);
    assert_int_equal(fapp_back(&f->a, slot)->error, EHOSTUNREACH);
    assert_true(f->net.now_us - start_us < 10000000);
}

static void
bind_errors(void **state)
{
    struct fixture *f = *state;
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
    assert_int_not_equal(fapp_back(&f->a, two)->local.port, 0);
    assert_int_equal(fapp_accept(&f->a, one, &child), -EINVAL);
    assert_int_equal(fapp_listen(&f->a, one, 5), 0);
    assert_int_equal(fapp_accept(&f->a, one, &child), -EAGAIN);
    /* The port is free again once its holder is closed. */
    assert_int_equal(fapp_close(&f->a, one, false), 0);
    net_until(&f->net, status(&f->a, one) == SHM_ST_DRAINED);
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
    struct fixture *f = *state;
    uint32_t slot = fapp_open(&f->a);

    assert_int_equal(fapp_value_cmd(&f->a, 100, SHM_OP_NOP, 0, 0), -EBADF);
    assert_int_equal(fapp_value_cmd(&f->a, slot, SHM_OP_NOP, 0, 0), 0);
    assert_int_equal(fapp_value_cmd(&f->a, slot, SHM_OP_OPEN, 0, 0), -EINVAL);
    assert_int_equal(fapp_value_cmd(&f->a, slot, SHM_OP_COUNT, 0, 0), -EINVAL);
    assert_int_equal(fapp_value_cmd(&f->a, slot, SHM_OP_SHUTDOWN, 0, SHUT_WR), -ENOTCONN);
    assert_int_equal(counter(&f->a, CTR_SOCK_BAD_COMMAND), 2);
}

/* ---- streams ------------------------------------------------------------------------------------------------------------------ */

static void
big_transfer_both_ways(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    transfer(&f->net, &f->a, client, &f->b, server, BIG_BYTES);
    transfer(&f->net, &f->b, server, &f->a, client, BIG_BYTES);
    assert_int_equal(fapp_back(&f->a, client)->tx_sent, BIG_BYTES);
    net_until(&f->net, fapp_back(&f->a, client)->tx_acked == BIG_BYTES);
}

static void
to_own_address(void **state)
{
    struct fixture *f = *state;
    struct fapp other;
    uint32_t client, listener, server;

    fapp_attach(&other, &f->net.node[0]);
    fapp_pair(&f->a, &other, PORT, &client, &listener, &server);
    transfer(&f->net, &f->a, client, &other, server, 1u << 20);
    assert_true(counter(&f->a, CTR_IP_LOCAL) > 0);
    fapp_leave(&other, other.member);
}

static void
close_sends_what_was_queued(void **state)
{
    struct fixture *f = *state;
    static uint8_t buf[300000];
    static uint8_t got[300000];
    uint32_t client, listener, server;
    uint32_t n, total = 0;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    pattern_fill(buf, 0, sizeof(buf));
    n = fapp_send(&f->a, client, buf, sizeof(buf));
    assert_true(n > 100000);
    assert_int_equal(fapp_close(&f->a, client, false), 0);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_NOP, 0, 0), -EBADF);
    /* Its chunks are still being read: the slot is not free before the last byte is acknowledged. */
    assert_int_equal(status(&f->a, client) & (SHM_ST_OPEN | SHM_ST_DRAINED), SHM_ST_OPEN);
    while (total < n) {
        net_step(&f->net, 1000);
        total += fapp_recv(&f->b, server, got + total, n - total);
    }
    assert_memory_equal(got, buf, n);
    net_until(&f->net, status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(fapp_back(&f->b, server)->rx_tail, n);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
    net_until(&f->net, status(&f->a, client) == SHM_ST_DRAINED);
}

static void
shutdown_write_still_receives(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;
    char buf[8];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SHUTDOWN, 0, SHUT_WR), 0);
    net_until(&f->net, status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(fapp_send(&f->b, server, "answer", 6), 6);
    net_until(&f->net, fapp_back(&f->a, client)->rx_tail == 6);
    assert_int_equal(fapp_recv(&f->a, client, buf, sizeof(buf)), 6);
    assert_memory_equal(buf, "answer", 6);
}

/* An unread answer makes close a reset (RFC 2525 section 2.17), and so does linger 0. */
static void
resets(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_send(&f->b, server, "unread", 6), 6);
    net_until(&f->net, fapp_back(&f->a, client)->rx_tail == 6);
    assert_int_equal(fapp_close(&f->a, client, false), 0);
    net_until(&f->net, status(&f->b, server) & SHM_ST_ERROR);
    assert_int_equal(fapp_back(&f->b, server)->error, ECONNRESET);

    client = fapp_open(&f->a);
    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), 0);
    net_until(&f->net, fapp_back(&f->b, listener)->accept_ready == 1);
    assert_int_equal(fapp_accept(&f->b, listener, &server), 0);
    assert_int_equal(fapp_close(&f->a, client, true), 0);
    net_until(&f->net, status(&f->b, server) & SHM_ST_ERROR);
    net_until(&f->net, status(&f->a, client) == SHM_ST_DRAINED);
}

/* Nobody reads: at most SHM_TRAINS trains are out, the rest waits, and nothing is lost. */
static void
trains_are_bounded(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;
    uint8_t buf[4000];
    uint32_t sent = 0;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_NODELAY, 1), 0);
    for (unsigned i = 0; i < 40; i++) {
        pattern_fill(buf, sent, 100);
        sent += fapp_send(&f->a, client, buf, 100);
        net_run(&f->net, 60000);
    }
    assert_int_equal(sent, 4000);
    assert_int_equal(fapp_back(&f->b, server)->train_tail, SHM_TRAINS);
    assert_true(fapp_back(&f->b, server)->rx_tail < sent);
    assert_true(counter(&f->b, CTR_SOCK_RX_COALESCED) > 0);
    for (uint32_t got = 0; got < sent;) {
        uint32_t n = fapp_recv(&f->b, server, buf, 333);

        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(buf[i], pattern(got + i));
        got += n;
        net_run(&f->net, 1000);
    }
    assert_int_equal(host_rx_bufs(f->b.node->host), 0);
}

static void
sends_pile_up_behind_one_notification(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;
    uint64_t notifications;
    char buf[16];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    net_run(&f->net, 1000000);
    notifications = counter(&f->a, CTR_SOCK_NOTIFICATIONS);
    assert_int_equal(fapp_send(&f->a, client, "ab", 2), 2);
    assert_false(fapp_notify(&f->a, client));
    assert_int_equal(fapp_send(&f->a, client, "cdef", 4), 4);
    net_until(&f->net, fapp_back(&f->b, server)->rx_tail == 6);
    assert_int_equal(counter(&f->a, CTR_SOCK_NOTIFICATIONS), notifications + 1);
    assert_int_equal(fapp_recv(&f->b, server, buf, sizeof(buf)), 6);
    assert_memory_equal(buf, "abcdef", 6);
}

static void
options_and_info(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;
    const struct shm_info *info = (const struct shm_info *)(f->a.back + f->a.layout.back_info_off);

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_COUNT, 1), -ENOPROTOOPT);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_KEEPCNT, 1000), -EINVAL);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_SNDBUF, 20000), 0);
    assert_int_equal(fapp_back(&f->a, client)->sndbuf_bytes, 20000);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_SNDBUF, INT32_MAX), 0);
    assert_int_equal(fapp_back(&f->a, client)->sndbuf_bytes, SHM_SNDBUF_MAX);
    transfer(&f->net, &f->a, client, &f->b, server, 50000);
    assert_int_equal(fapp_cmd(&f->a, client, (struct shm_cmd){ .op = SHM_OP_INFO, .slot = SHM_INFO_SLOTS }), -EINVAL);
    assert_int_equal(fapp_cmd(&f->a, client, (struct shm_cmd){ .op = SHM_OP_INFO, .slot = 3 }), 0);
    assert_int_equal(info[3].state, TCP_ST_ESTABLISHED);
    assert_true(info[3].snd_mss >= 1400);
    assert_true(info[3].segs_out > 30);
}

static int
choose_congestion(struct fapp *fa, uint32_t slot, const char *name)
{
    struct shm_cmd cmd = { .op = SHM_OP_SETNAME, .text = { .name = TCP_OPT_CONGESTION } };

    memcpy(cmd.text.value, name, RTE_MIN(strlen(name), sizeof(cmd.text.value)));
    return fapp_cmd(fa, slot, cmd);
}

/* By name, before a connection and during one; a listener hands its choice down. */
static void
congestion_by_name(void **state)
{
    struct fixture *f = *state;
    uint32_t client = fapp_open(&f->a), listener = fapp_open(&f->b), server;
    const struct shm_info *a = (const struct shm_info *)(f->a.back + f->a.layout.back_info_off);
    const struct shm_info *b = (const struct shm_info *)(f->b.back + f->b.layout.back_info_off);
    const struct shm_cmd info = { .op = SHM_OP_INFO };

    assert_int_equal(fapp_cmd(&f->a, client, info), 0);
    assert_string_equal(a->cc_name, "cubic");
    assert_int_equal(choose_congestion(&f->a, client, "sixteen bytes or more of it"), -ENOENT);
    assert_int_equal(choose_congestion(&f->a, client, ""), -ENOENT);
    assert_int_equal(choose_congestion(&f->a, client, "dctcp"), 0);
    assert_int_equal(fapp_cmd(&f->a, client, info), 0);
    assert_string_equal(a->cc_name, "dctcp");
    assert_int_equal(fapp_bind(&f->b, listener, &f->b.node->addr, PORT), 0);
    assert_int_equal(fapp_listen(&f->b, listener, 5), 0);
    assert_int_equal(choose_congestion(&f->b, listener, "newreno"), 0);
    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), 0);
    net_until(&f->net, fapp_accept(&f->b, listener, &server) == 0);
    assert_int_equal(fapp_cmd(&f->a, client, info), 0);
    assert_string_equal(a->cc_name, "dctcp");
    assert_int_equal(fapp_cmd(&f->b, server, info), 0);
    assert_string_equal(b->cc_name, "newreno");
    assert_int_equal(choose_congestion(&f->b, server, "cubic"), 0);
    assert_int_equal(fapp_cmd(&f->b, server, info), 0);
    assert_string_equal(b->cc_name, "cubic");
    transfer(&f->net, &f->a, client, &f->b, server, 200000);
}

/* SO_RCVLOWAT: many small segments, each a train of its own, are all shown once the mark is reached, and no reader starves behind them. */
static void
rcvlowat_keeps_a_train(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;
    const uint32_t mark = 1000;
    uint8_t buf[2000];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SETOPT, SHM_OPT_RCVLOWAT, (int32_t)mark), 0);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_NODELAY, 1), 0);
    for (uint32_t sent = 0; sent < mark; sent += 50) {
        assert_true(fapp_back(&f->b, server)->train_tail < SHM_TRAINS);
        pattern_fill(buf, sent, 50);
        assert_int_equal(fapp_send(&f->a, client, buf, 50), 50);
        net_run(&f->net, 50000);
    }
    assert_int_equal(fapp_back(&f->b, server)->train_tail, SHM_TRAINS);
    assert_int_equal(fapp_back(&f->b, server)->rx_tail, mark);
    assert_int_equal(fapp_recv(&f->b, server, buf, sizeof(buf)), mark);
    /* What is below the mark is not held back while there are trains, and the end of the stream shows everything. */
    for (unsigned i = 0; i < 2 * SHM_TRAINS; i++) {
        assert_int_equal(fapp_send(&f->a, client, "x", 1), 1);
        net_run(&f->net, 50000);
    }
    assert_int_equal(fapp_back(&f->b, server)->rx_tail, mark + SHM_TRAINS - 1);
    assert_int_equal(fapp_close(&f->a, client, false), 0);
    net_until(&f->net, status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(fapp_back(&f->b, server)->rx_tail, mark + 2 * SHM_TRAINS);
}

/* A mark that the window cannot hold is forgotten when the window shuts. */
static void
rcvlowat_gives_in_to_the_window(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;
    static uint8_t buf[100000];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SETOPT, TCP_OPT_RCVBUF, 8000), 0);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SETOPT, SHM_OPT_RCVLOWAT, 1 << 20), 0);
    pattern_fill(buf, 0, sizeof(buf));
    for (uint32_t sent = 0, got = 0; got < sizeof(buf);) {
        uint32_t n;

        sent += fapp_send(&f->a, client, buf + sent, (uint32_t)sizeof(buf) - sent);
        net_run(&f->net, 400000);
        n = fapp_back(&f->b, server)->rx_tail - got;
        assert_true(n > 0);
        got += fapp_recv(&f->b, server, buf + got, n);
    }
}

static void
options_are_handed_down(void **state)
{
    struct fixture *f = *state;
    uint32_t client = fapp_open(&f->a), listener = fapp_open(&f->b), server;
    struct sock *sk;

    assert_int_equal(fapp_bind(&f->b, listener, &f->b.node->addr, PORT), 0);
    assert_int_equal(fapp_value_cmd(&f->b, listener, SHM_OP_SETOPT, TCP_OPT_SNDBUF, 30000), 0);
    assert_int_equal(fapp_value_cmd(&f->b, listener, SHM_OP_SETOPT, TCP_OPT_RCVBUF, 40000), 0);
    assert_int_equal(fapp_value_cmd(&f->b, listener, SHM_OP_SETOPT, SHM_OPT_RCVLOWAT, 500), 0);
    assert_int_equal(fapp_value_cmd(&f->b, listener, SHM_OP_SETOPT, SHM_OPT_NOTSENT_LOWAT, 600), 0);
    assert_int_equal(fapp_value_cmd(&f->b, listener, SHM_OP_SETOPT, SHM_OPT_NOTSENT_LOWAT + 1, 1), -ENOPROTOOPT);
    assert_int_equal(fapp_listen(&f->b, listener, 5), 0);
    assert_int_equal(fapp_connect(&f->a, client, &f->b.node->addr, PORT), 0);
    net_until(&f->net, fapp_accept(&f->b, listener, &server) == 0);
    assert_int_equal(fapp_back(&f->b, server)->sndbuf_bytes, 30000);
    assert_int_equal(fapp_back(&f->b, server)->rcvbuf_bytes, 40000);
    sk = sock_at(f->b.app, server);
    assert_int_equal(sk->rcvlowat, 500);
    assert_int_equal(sk->notsent_lowat, 600);
    assert_int_equal(sk->rcvbuf, 40000);
}

/* What found no train is counted, and so is the end of the stream behind it; all of it comes as trains are taken. */
static void
arrivals_beyond_the_trains(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;
    const struct shm_back_sock *b;
    uint8_t buf[100];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    b = fapp_back(&f->b, server);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_NODELAY, 1), 0);
    for (unsigned i = 0; i < SHM_TRAINS + 5; i++) {
        assert_int_equal(fapp_send(&f->a, client, "x", 1), 1);
        net_run(&f->net, 50000);
    }
    assert_int_equal(b->rx_tail, SHM_TRAINS);
    assert_int_equal(b->rx_held, 5);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SHUTDOWN, 0, SHUT_WR), 0);
    net_until(&f->net, status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(b->rx_held, 5);
    assert_int_equal(fapp_recv(&f->b, server, buf, sizeof(buf)), SHM_TRAINS);
    net_run(&f->net, 1000);
    assert_int_equal(b->rx_held, 0);
    assert_int_equal(fapp_recv(&f->b, server, buf, sizeof(buf)), 5);
}

/* After shutdown(SHUT_RD) bytes still come; after SHUT_RDWR they are answered by a reset, even if close follows in the same pass. */
static void
shutdown_of_reading(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;
    uint8_t buf[10];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SHUTDOWN, 0, SHUT_RD), 0);
    assert_int_equal(fapp_send(&f->a, client, "abc", 3), 3);
    net_run(&f->net, 100000);
    assert_int_equal(fapp_recv(&f->b, server, buf, sizeof(buf)), 3);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SHUTDOWN, 0, SHUT_WR), 0);
    net_until(&f->net, status(&f->a, client) & SHM_ST_FIN);
    assert_int_equal(fapp_send(&f->a, client, "abc", 3), 3);
    net_until(&f->net, status(&f->a, client) & SHM_ST_ERROR);
    assert_int_equal(fapp_back(&f->a, client)->error, EPIPE);
    assert_int_equal(fapp_back(&f->b, server)->error, ECONNRESET);
}

static void
reset_is_not_lost_to_a_close(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SHUTDOWN, 0, SHUT_RDWR), 0);
    net_until(&f->net, status(&f->a, client) & SHM_ST_FIN);
    assert_int_equal(fapp_send(&f->a, client, "abc", 3), 3);
    node_poll(f->a.node);
    /* The next pass of node 1 takes the segment first, then the command. */
    fapp_front(&f->b, server)->cmd[fapp_front(&f->b, server)->cmd_head % SHM_CMDS] =
        (struct shm_cmd){ .op = SHM_OP_CLOSE, .member = f->b.member };
    shm_store(&fapp_front(&f->b, server)->cmd_head, fapp_front(&f->b, server)->cmd_head + 1);
    fapp_notify(&f->b, server);
    net_until(&f->net, status(&f->a, client) & SHM_ST_ERROR);
}

/* ---- processes ---------------------------------------------------------------------------------------------------------------------- */

static void
death_closes_everything(void **state)
{
    struct fixture *f = *state;
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
    pattern_fill(buf, 0, sizeof(buf));
    assert_int_equal(fapp_send(&victim, client, buf, 500), 500);
    net_run(&f->net, 10000);
    assert_int_equal(fapp_back(&f->b, server)->rx_tail, 500);
    fapp_front(&victim, client)->tx_tail += 500;
    fapp_leave(&victim, victim.member);
    net_until(&f->net, f->net.node[0].host->nb_apps == 1 || status(&f->b, server) & SHM_ST_FIN);
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
    struct fixture *f = *state;
    uint32_t client, listener, server;
    uint16_t parent = f->a.member;
    uint16_t child;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    child = fapp_fork(&f->a);
    /* The parent closes: the child still has it. */
    assert_int_equal(fapp_close(&f->a, client, false), 0);
    net_run(&f->net, 100000);
    assert_int_equal(status(&f->a, client) & (SHM_ST_OPEN | SHM_ST_GONE), SHM_ST_OPEN);
    /* Twice is once too often. */
    assert_int_equal(fapp_close(&f->a, client, false), -EINVAL);
    transfer(&f->net, &f->a, client, &f->b, server, 10000);
    fapp_leave(&f->a, child);
    net_until(&f->net, status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
    net_until(&f->net, status(&f->a, client) == SHM_ST_DRAINED);
    assert_true(app_member_ok(f->a.app, parent));
    assert_false(app_member_ok(f->a.app, child));
}

/* A process died between reserving a ring entry and filling it: who comes after it is served all the same. */
static void
ring_is_repaired(void **state)
{
    struct fixture *f = *state;
    struct rte_ring *r = (struct rte_ring *)(f->a.front + f->a.layout.front_rings_off);
    uint16_t child = fapp_fork(&f->a);
    uint32_t slot = fapp_open(&f->a);
    uint32_t tail;

    slot += slot % 2; /* numbers of even slots go to ring 0 */
    if (!(status(&f->a, slot) & SHM_ST_OPEN))
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
    struct fixture *f = *state;
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
    struct fixture *f = *state;
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
    assert_int_equal(counter(&f->a, CTR_SOCK_EVENT_OVERFLOW), 1);
    app_eventq_remove(f->a.app, 0);
    close(fds[0]);
    close(fds[1]);
}

static void
sleepers_alone_are_woken(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;
    uint64_t woken;
    uint32_t seq;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    net_run(&f->net, 1000);
    woken = counter(&f->b, CTR_SOCK_WAKEUPS);
    seq = fapp_back(&f->b, server)->event_seq;
    assert_int_equal(fapp_send(&f->a, client, "x", 1), 1);
    net_until(&f->net, fapp_back(&f->b, server)->rx_tail == 1);
    assert_int_not_equal(fapp_back(&f->b, server)->event_seq, seq);
    assert_int_equal(counter(&f->b, CTR_SOCK_WAKEUPS), woken);
    fapp_front(&f->b, server)->sleepers = SHM_SLEEP_WRITE;
    assert_int_equal(fapp_send(&f->a, client, "x", 1), 1);
    net_until(&f->net, fapp_back(&f->b, server)->rx_tail == 2);
    assert_int_equal(counter(&f->b, CTR_SOCK_WAKEUPS), woken);
    fapp_front(&f->b, server)->sleepers = SHM_SLEEP_READ;
    assert_int_equal(fapp_send(&f->a, client, "x", 1), 1);
    net_until(&f->net, fapp_back(&f->b, server)->rx_tail == 3);
    assert_int_equal(counter(&f->b, CTR_SOCK_WAKEUPS), woken + 1);
}

/* A sender that sleeps for space is woken when a third of its buffer is free, and no sooner. */
static void
space_wakes_the_sender(void **state)
{
    struct fixture *f = *state;
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
    woken = counter(&f->a, CTR_SOCK_WAKEUPS);
    seq = b->event_seq;
    for (unsigned i = 0; i < 100000 && b->event_seq == seq; i++) {
        fapp_recv(&f->b, server, buf, 2000);
        net_run(&f->net, 500);
    }
    assert_int_equal(counter(&f->a, CTR_SOCK_WAKEUPS), woken + 1);
    assert_true(b->sndbuf_bytes - (fapp_front(&f->a, client)->tx_tail - b->tx_acked) >= b->sndbuf_bytes / 3);
}

static void
sleep_is_announced(void **state)
{
    struct fixture *f = *state;
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
    struct fixture *f = *state;
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
            if (!(status(&f->a, client[i]) & SHM_ST_ERROR) && fapp_front(&f->a, client[i])->tx_tail < 200000)
                fapp_send(&f->a, client[i], buf, 20000);
        net_run(&f->net, 20000);
        assert_true(host_rx_bufs(s->host) <= pktpool_budget(s->pool) / 4 * 3 + 2 * PORT_BURST);
    }
    assert_true(host_rx_bufs(s->host) > pktpool_budget(s->pool) / 3);
    assert_true(count_squeezed(s) > 0);
    fapp_attach(&other, f->b.node);
    fapp_pair(&f->a, &other, PORT + 1, &other_client, &listener, &other_server);
    transfer(&f->net, &f->a, other_client, &other, other_server, 100000);
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
        assert_int_equal(status(&f->b, server[i]) & SHM_ST_ERROR, 0);
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
    struct fixture *f = *state;
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
    struct fixture *f = *state;

    host_calls_end(f->a.node->host);
    assert_int_equal(report_usage(f->a.node->host, stderr), -ESHUTDOWN);
}

static void
orderly_end(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;
    struct host *h = f->b.node->host;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_false(host_shutdown_done(h, f->net.now_us));
    host_shutdown_begin(h, f->net.now_us);
    assert_int_equal(h->page->alive, 0);
    net_until(&f->net, host_shutdown_done(h, f->net.now_us));
    assert_int_equal(fapp_back(&f->b, server)->error, ENETDOWN);
    assert_int_equal(fapp_back(&f->b, listener)->error, ENETDOWN);
    assert_int_equal(status(&f->a, client) & (SHM_ST_FIN | SHM_ST_ERROR), SHM_ST_FIN);
}

/* A peer that keeps its end open must not hold up the stack's end, though the application has closed its own. */
static void
orderly_end_of_an_orphan(void **state)
{
    struct fixture *f = *state;
    uint32_t client, listener, server;
    struct host *h = f->b.node->host;
    uint64_t begun_us;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
    net_until(&f->net, status(&f->a, client) & SHM_ST_FIN);
    net_run(&f->net, 100000);
    begun_us = f->net.now_us;
    host_shutdown_begin(h, begun_us);
    net_until(&f->net, host_shutdown_done(h, f->net.now_us));
    assert_true(f->net.now_us - begun_us < 200000);
    net_until(&f->net, status(&f->a, client) & SHM_ST_GONE);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(connect_accept_close),
        T(refused_then_retried),
        T(unreachable),
        T(bind_errors),
        T(commands_without_socket),
        T(big_transfer_both_ways),
        T(to_own_address),
        T(close_sends_what_was_queued),
        T(shutdown_write_still_receives),
        T(resets),
        T(trains_are_bounded),
        T(sends_pile_up_behind_one_notification),
        T(options_and_info),
        T(congestion_by_name),
        T(rcvlowat_keeps_a_train),
        T(rcvlowat_gives_in_to_the_window),
        T(options_are_handed_down),
        T(arrivals_beyond_the_trains),
        T(shutdown_of_reading),
        T(reset_is_not_lost_to_a_close),
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
