/* SPDX-License-Identifier: BSD-3-Clause */
/* Packets whose payload comes only when the stack has dealt with their headers (port_rx_rest): nobody may look at it before. */
#include "back_pair.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <rte_ethdev.h>

struct late {
    struct rte_mbuf *m; /**< a reference more than the stack knows of */
    uint16_t len;
    char bytes[2048];
};

static struct late late[2 * PORT_BURST];
static unsigned all_late; /**< in the tests' course */
static void (*look)(void); /**< what another thread may do while something is late */

/* A packet's payload, but for its first byte, moves into a buffer of its own, which stays empty. */
static void
split(struct node *n, struct rte_mbuf *m, uint16_t tcp_off)
{
    uint8_t words = *rte_pktmbuf_mtod_offset(m, const uint8_t *, tcp_off + 12) >> 4;
    struct late *l = &late[n->pool.nb_late];
    uint16_t begin = (uint16_t)(tcp_off + 4 * words + 1), len = (uint16_t)(m->data_len - RTE_MIN(m->data_len, begin));
    struct rte_mbuf *rest;

    if (len == 0 || m->next != NULL || (rest = rte_pktmbuf_alloc(n->pool.rx)) == NULL)
        return;
    *l = (struct late){ .m = rest, .len = len };
    memcpy(l->bytes, rte_pktmbuf_mtod_offset(m, const char *, begin), len);
    memset(rte_pktmbuf_append(rest, len), 0x55, len);
    rte_mbuf_refcnt_set(rest, 2);
    rte_pktmbuf_trim(m, len);
    m->next = rest;
    m->nb_segs = 2;
    m->pkt_len += len;
    n->pool.nb_late++;
    all_late++;
}

/* What is still to be filled is nobody else's, though the stack has given it back. */
static void
assert_none_is_free(struct node *n)
{
    struct rte_mbuf *next[PORT_BURST];

    assert_int_equal(rte_pktmbuf_alloc_bulk(n->pool.rx, next, PORT_BURST), 0); /* the last that was freed comes first */
    for (unsigned i = 0; i < PORT_BURST; i++)
        for (unsigned k = 0; k < n->pool.nb_late; k++)
            assert_ptr_not_equal(next[i], late[k].m);
    rte_pktmbuf_free_bulk(next, PORT_BURST);
}

static void
join(struct node *n)
{
    if (n->pool.nb_late > 0)
        assert_none_is_free(n);
    for (unsigned i = 0; i < n->pool.nb_late; i++) {
        memcpy((char *)late[i].m->buf_addr + RTE_PKTMBUF_HEADROOM, late[i].bytes, late[i].len);
        rte_pktmbuf_free_seg(late[i].m);
    }
    n->pool.nb_late = 0;
}

/* A wire whose driver is asked as before, but which has the rest of its frames. */
static struct node *receiving;

static void
rest(struct port_queue *q)
{
    (void)q;
    join(receiving);
}

static uint16_t
rx_burst(struct port_queue *q, struct rte_mbuf **pkts, uint16_t n, uint64_t now_us)
{
    (void)now_us;
    return rte_eth_rx_burst(q->port->port_id, q->queue_id, pkts, n);
}

static uint16_t
tx_burst(struct port_queue *q, struct rte_mbuf **pkts, uint16_t n)
{
    return rte_eth_tx_burst(q->port->port_id, q->tx_queue_id, pkts, n);
}

static const struct port_wire_ops wire = { .rx_burst = rx_burst, .tx_burst = tx_burst, .rx_rest = rest };

static unsigned
poll_late(struct node *n)
{
    struct ip_packet pkts[2 * PORT_BURST];
    struct net *net = host_net(n->host, 0);
    uint64_t now_us = n->net->now_us;
    uint16_t received;
    unsigned done;

    net_queue(net)->wire_ops = &wire;
    receiving = n;
    net_begin(net);
    done = received = net_receive(net, pkts, now_us);
    for (uint16_t i = 0; i < received; i++)
        split(n, pkts[i].m, pkts[i].l4_off);
    stack_enter(n->stack, net, now_us);
    stack_segments(n->stack, pkts, received);
    stack_leave(n->stack);
    if (look != NULL)
        look();
    join(n);
    done += net_commands(net, 256, now_us);
    done += net_timers(net, now_us);
    return done + net_end(net, now_us);
}

static int
setup(void **state)
{
    static struct pair f;
    static struct net_maker maker;
    struct stack_config cfg[2] = { net_stack_config(0), net_stack_config(1) };

    maker = *net_maker_single();
    maker.poll = poll_late;
    cfg[0].tcp.timestamps = cfg[1].tcp.timestamps = false;
    net_init_with(&f.net, cfg, &maker);
    fapp_attach(&f.a, &f.net.node[0]);
    fapp_attach(&f.b, &f.net.node[1]);
    all_late = 0;
    look = NULL;
    *state = &f;
    return 0;
}

/* Small ones too, which share a buffer where they are whole. */
static void
bytes_come_as_they_were_sent(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server, sent = 0, got = 0;
    uint8_t buf[4000];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    pair_transfer(&f->net, &f->a, client, &f->b, server, 300000);
    assert_true(all_late > 200);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_NODELAY, 1), 0);
    for (unsigned i = 0; i < 40; i++) {
        pair_pattern(buf, sent, 100);
        sent += fapp_send(&f->a, client, buf, 100);
        net_run(&f->net, 60000);
    }
    assert_int_equal(sent, 4000);
    while (got < sent) {
        uint32_t n = fapp_recv(&f->b, server, buf, 333);

        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(buf[i], pair_byte(got + i));
        got += n;
        net_run(&f->net, 1000);
    }
}

/* Bytes and the reset behind them come in one pass: what is dropped is still to be filled. */
static void
a_reset_takes_what_is_late(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(fapp_send(&f->a, client, "unread", 6), 6);
        node_poll(f->a.node);
    }
    assert_int_equal(fapp_close(&f->a, client, true), 0);
    node_poll(f->a.node);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
    net_run(&f->net, 1000000);
}

static struct fapp *reader;
static uint32_t read_from, read_bytes;

static void
read_meanwhile(void)
{
    uint8_t buf[4000];
    uint32_t n = fapp_recv(reader, read_from, buf, sizeof(buf));

    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(buf[i], pair_byte(read_bytes + i));
    read_bytes += n;
}

/* What ends a connection is shown in the middle of a pass, and what came before it with it: read by then. */
static void
the_last_bytes_are_there_when_they_are_shown(void **state)
{
    struct pair *f = *state;

    for (int reset = 0; reset < 2; reset++) {
        uint32_t client, listener;
        uint8_t buf[3000];

        fapp_pair(&f->a, &f->b, (uint16_t)(PORT + reset), &client, &listener, &read_from);
        assert_int_equal(fapp_value_cmd(&f->b, read_from, SHM_OP_SHUTDOWN, 0, SHUT_WR), 0);
        net_run(&f->net, 100000);
        reader = &f->b;
        read_bytes = 0;
        look = read_meanwhile;
        pair_pattern(buf, 0, sizeof(buf));
        assert_int_equal(fapp_send(&f->a, client, buf, sizeof(buf)), sizeof(buf));
        node_poll(f->a.node);
        assert_int_equal(fapp_close(&f->a, client, reset != 0), 0);
        net_run(&f->net, 1000000);
        read_meanwhile();
        look = NULL;
        assert_int_equal(read_bytes, sizeof(buf));
        assert_int_equal(fapp_close(&f->b, read_from, false), 0);
        assert_int_equal(fapp_close(&f->b, listener, false), 0);
        net_run(&f->net, 1000000);
    }
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, pair_teardown)
    const struct CMUnitTest tests[] = {
        T(bytes_come_as_they_were_sent),
        T(a_reset_takes_what_is_late),
        T(the_last_bytes_are_there_when_they_are_shown),
    };

    return net_eal_start() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
