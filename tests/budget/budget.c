/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What budget.py counts: fixed conversations between two stacks in one thread, on a virtual clock, so that every run executes the same instructions. Node 0
 * is a stack inside a program, with the front-end that a program calls; node 1 is its peer and is not counted.
 *
 * callgrind collects inside counted(), and writes a part after each run of a scenario. A line of output for each says how many units (segments,
 * requests, connections) it was.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "../unit/sockets/back_net.h"

#include "front.h"
#include "isosock.h"
#include "sole.h"

/* What budget.py names to callgrind. */
#define BY_NAME __attribute__((noinline, noclone))

#define CONNS 32
#define ROUNDS 200
#define MESSAGE_BYTES 64
#define BULK_BYTES (8u << 20)
#define WRITE_BYTES 65536
#define OWN_PORT 80
#define PEER_PORT 81
#define TURN_US 10
#define SETTLE_US 200000
/* A conversation that hangs is not one to count. */
#define WAITS_MAX 100000

static struct lan lan;
static struct fapp own, peer; /* own: the front-end itself writes to its regions */
static int epfd = -1;
static char data[WRITE_BYTES];

/* ---- the program's stack ------------------------------------------------------------------------------------------------- */

static uint32_t pending[NODE_MAX_SOCKS];
static unsigned nb_pending;

static void
own_notify(uint32_t slot)
{
    assert_true(nb_pending < NODE_MAX_SOCKS);
    pending[nb_pending++] = slot;
}

static void
own_serve(uint32_t slot, bool timed)
{
    struct net *net = host_net(lan.node[0].host, 0);
    uint32_t term = sole_enter();

    (void)timed;
    net_set_alone(net, term != SOLE_NOBODY);
    app_serve(net, own.app, &slot, 1, lan.now_us);
    if (term != SOLE_NOBODY)
        sole_leave(term);
}

static void
own_pass(void)
{
    struct net *net = host_net(lan.node[0].host, 0);
    struct ip_packet pkts[2 * PORT_BURST];
    uint32_t term = sole_enter();
    uint16_t n;

    net_set_alone(net, term != SOLE_NOBODY);
    app_serve(net, own.app, pending, nb_pending, lan.now_us);
    nb_pending = 0;
    net_begin(net);
    n = net_receive(net, pkts, lan.now_us);
    stack_enter(lan.node[0].stack, net, lan.now_us);
    stack_segments(lan.node[0].stack, pkts, n);
    stack_leave(lan.node[0].stack);
    net_commands(net, 256, lan.now_us);
    net_timers(net, lan.now_us);
    net_end(net, lan.now_us);
    if (term != SOLE_NOBODY)
        sole_leave(term);
}

static void
own_tried(void)
{
}

static uint64_t
own_sleep_begin(void)
{
    return 0;
}

static int
own_eventq_create(uint32_t *queue, int *fd)
{
    int ends[2], rc;

    assert_int_equal(pipe(ends), 0);
    rc = app_eventq_add(own.app, ends[1]);
    assert_true(rc >= 0);
    *queue = (uint32_t)rc;
    *fd = ends[0];
    return 0;
}

static void
own_eventq_destroy(uint32_t queue)
{
    close(app_eventq_remove(own.app, queue));
}

static struct front_local own_ops = {
    .notify = own_notify,
    .serve = own_serve,
    .pass = own_pass,
    .tried = own_tried,
    .sleep_begin = own_sleep_begin,
    .sleep_end = own_tried,
};

static const struct front_home own_home = {
    .eventq_create = own_eventq_create,
    .eventq_destroy = own_eventq_destroy,
};

/* ---- the peer -------------------------------------------------------------------------------------------------------------- */

static struct net_maker maker;

/* Node 0 is polled by the program alone. */
static unsigned
poll_peer(struct node *n)
{
    return n == &lan.node[0] ? 0 : net_maker_single()->poll(n);
}

static void
peer_turn(void)
{
    lan.now_us += TURN_US;
    do
        node_poll(&lan.node[1]);
    while (rte_ring_count(lan.wire[1]) > 0);
}

static struct sockaddr_in
address_of(unsigned node, uint16_t port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };

    sa.sin_addr.s_addr = ip_addr_to_v4(&lan.node[node].addr);
    return sa;
}

/* ---- connections -------------------------------------------------------------------------------------------------------------- */

struct conn {
    int fd; /**< node 0's end */
    uint32_t slot; /**< node 1's */
};

static struct conn conns[CONNS];
static int listener = -1;
static uint32_t peer_listener;

static void
watch(int fd, uint32_t index)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.u32 = index };

    assert_int_equal(iso_epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev), 0);
}

static void
program_connects(struct conn *c)
{
    struct sockaddr_in sa = address_of(1, PEER_PORT);

    c->fd = iso_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    iso_connect(c->fd, (struct sockaddr *)&sa, sizeof(sa));
    watch(c->fd, (uint32_t)(c - conns));
}

/* Events of the last wait, by the program's numbers for its descriptors. */
static struct epoll_event events[CONNS];

static int
program_waits(void)
{
    static unsigned nb_waits;

    assert_true(++nb_waits < WAITS_MAX);
    lan.now_us += TURN_US;
    return iso_epoll_wait(epfd, events, CONNS, 0);
}

/* A pass takes a burst of frames; this takes all. */
static void
program_drains(void)
{
    do
        program_waits();
    while (rte_ring_count(lan.wire[0]) > 0);
}

static void
peer_accepts(struct conn *c)
{
    assert_int_equal(fapp_accept(&peer, peer_listener, &c->slot), 0);
}

static void
both_turn(void)
{
    for (unsigned i = 0; i < 8; i++) {
        program_waits();
        peer_turn();
    }
}

/* What was held back (a delayed acknowledgement) goes. */
static void
settle(void)
{
    lan.now_us += SETTLE_US;
    both_turn();
}

/* The first alone: few frames may wait until a neighbour is known. */
static void
conns_open(void)
{
    for (unsigned i = 0; i < CONNS; i++) {
        program_connects(&conns[i]);
        if (i == 0)
            both_turn();
    }
    both_turn();
    for (unsigned i = 0; i < CONNS; i++)
        peer_accepts(&conns[i]);
}

static void
conns_close(void)
{
    for (unsigned i = 0; i < CONNS; i++) {
        iso_close(conns[i].fd);
        fapp_close(&peer, conns[i].slot, false);
    }
    both_turn();
}

static BY_NAME void
counted(void (*part)(void))
{
    part();
}

/* ---- requests and responses, connections that stay ----------------------------------------------------------------------- */

static void
ask(void)
{
    for (unsigned i = 0; i < CONNS; i++)
        assert_int_equal(iso_send(conns[i].fd, data, MESSAGE_BYTES, 0), MESSAGE_BYTES);
    program_waits();
}

/* A burst of frames may hold acknowledgements only, so it can take more than one wait to have them all. */
static void
take_answers(void)
{
    for (int taken = 0, n; taken < CONNS; taken += n) {
        n = program_waits();
        for (int i = 0; i < n; i++)
            assert_int_equal(iso_recv(conns[events[i].data.u32].fd, data, sizeof(data), 0), MESSAGE_BYTES);
    }
}

static void
answer(void)
{
    for (int taken = 0, n; taken < CONNS; taken += n) {
        n = program_waits();
        for (int i = 0; i < n; i++) {
            int fd = conns[events[i].data.u32].fd;

            assert_int_equal(iso_recv(fd, data, sizeof(data), 0), MESSAGE_BYTES);
            assert_int_equal(iso_send(fd, data, MESSAGE_BYTES, 0), MESSAGE_BYTES);
        }
    }
    program_waits();
}

static void
peer_sends_each(void)
{
    for (unsigned i = 0; i < CONNS; i++)
        assert_int_equal(fapp_send(&peer, conns[i].slot, data, MESSAGE_BYTES), MESSAGE_BYTES);
    peer_turn();
}

static void
peer_takes_each(void)
{
    peer_turn();
    for (unsigned i = 0; i < CONNS; i++)
        assert_int_equal(fapp_recv(&peer, conns[i].slot, data, sizeof(data)), MESSAGE_BYTES);
    peer_turn();
}

static uint64_t
run_client(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        counted(ask);
        peer_takes_each();
        peer_sends_each();
        counted(take_answers);
    }
    return (uint64_t)ROUNDS * CONNS;
}

static uint64_t
run_server(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        peer_sends_each();
        counted(answer);
        peer_takes_each();
    }
    return (uint64_t)ROUNDS * CONNS;
}

/* ---- streams ------------------------------------------------------------------------------------------------------------------- */

static size_t moved; /* bytes of the stream */

static void
receive(void)
{
    ssize_t n;

    if (program_waits() > 0)
        while ((n = iso_recv(conns[0].fd, data, sizeof(data), 0)) > 0)
            moved += (size_t)n;
}

/* What the scenario has left on the way, or the next one would count it, and the time that passes between them would have it sent again. */
static void
end_streams(void)
{
    size_t before;
    uint32_t n;

    do {
        before = moved;
        receive();
        peer_turn();
        n = fapp_recv(&peer, conns[0].slot, data, sizeof(data));
        peer_turn();
    } while (moved != before || n > 0 || rte_ring_count(lan.wire[0]) > 0);
}

static void
send_more(void)
{
    ssize_t n = iso_send(conns[0].fd, data, sizeof(data), 0);

    program_waits();
    moved += n > 0 ? (size_t)n : 0;
}

/* Full segments from the peer. The unit is one of them, with its share of the acknowledgements. */
static uint64_t
run_receive(void)
{
    uint64_t before = lan.node[0].ctr.v[CTR_TCP_RX_SEGS], nb_segs;

    for (moved = 0; moved < BULK_BYTES;) {
        fapp_send(&peer, conns[0].slot, data, sizeof(data));
        peer_turn();
        counted(receive);
    }
    nb_segs = lan.node[0].ctr.v[CTR_TCP_RX_SEGS] - before;
    end_streams();
    return nb_segs;
}

static uint64_t
run_send(void)
{
    uint64_t before = lan.node[0].ctr.v[CTR_TCP_TX_SEGS], nb_segs;

    for (moved = 0; moved < BULK_BYTES;) {
        counted(send_more);
        peer_turn();
        fapp_recv(&peer, conns[0].slot, data, sizeof(data));
        peer_turn();
    }
    nb_segs = lan.node[0].ctr.v[CTR_TCP_TX_SEGS] - before;
    end_streams();
    return nb_segs;
}

/* ---- connections that do not stay --------------------------------------------------------------------------------------------- */

static void
make_connections(void)
{
    for (unsigned i = 0; i < CONNS; i++)
        program_connects(&conns[i]);
    program_waits();
}

static void
send_requests(void)
{
    program_drains();
    for (unsigned i = 0; i < CONNS; i++)
        assert_int_equal(iso_send(conns[i].fd, data, MESSAGE_BYTES, 0), MESSAGE_BYTES);
    program_waits();
}

/* To the end of the stream, which comes with the answer or behind it. */
static void
take_ends(void)
{
    for (int closed = 0; closed < CONNS;) {
        int n = program_waits();

        for (int i = 0; i < n; i++) {
            int fd = conns[events[i].data.u32].fd;
            ssize_t got;

            do
                got = iso_recv(fd, data, sizeof(data), 0);
            while (got > 0);
            if (got == 0) {
                iso_close(fd);
                closed++;
            }
        }
    }
    program_waits();
}

/* As HTTP without keep-alive: the server closes first. */
static uint64_t
run_connect(void)
{
    for (unsigned r = 0; r < ROUNDS / 4; r++) {
        counted(make_connections);
        peer_turn();
        counted(send_requests);
        peer_turn();
        for (unsigned i = 0; i < CONNS; i++)
            peer_accepts(&conns[i]);
        peer_takes_each();
        peer_sends_each();
        for (unsigned i = 0; i < CONNS; i++)
            fapp_close(&peer, conns[i].slot, false);
        peer_turn();
        counted(take_ends);
        peer_turn();
    }
    return (uint64_t)(ROUNDS / 4) * CONNS;
}

static void
take_syns(void)
{
    program_drains();
}

static void
serve(void)
{
    unsigned n = 0;
    int fd;

    program_drains();
    while ((fd = iso_accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        conns[n].fd = fd;
        watch(fd, n++);
    }
    assert_int_equal(n, CONNS);
    for (int served = 0, k; served < CONNS; served += k) {
        k = program_waits();
        for (int i = 0; i < k; i++) {
            fd = conns[events[i].data.u32].fd;
            assert_int_equal(iso_recv(fd, data, sizeof(data), 0), MESSAGE_BYTES);
            assert_int_equal(iso_send(fd, data, MESSAGE_BYTES, 0), MESSAGE_BYTES);
            iso_close(fd);
        }
    }
    program_waits();
}

static void
take_fins(void)
{
    program_drains();
}

static uint64_t
run_accept(void)
{
    for (unsigned r = 0; r < ROUNDS / 4; r++) {
        for (unsigned i = 0; i < CONNS; i++) {
            conns[i].slot = fapp_open(&peer);
            assert_int_equal(fapp_connect(&peer, conns[i].slot, &lan.node[0].addr, OWN_PORT), 0);
        }
        counted(take_syns);
        peer_turn();
        peer_sends_each();
        counted(serve);
        peer_takes_each();
        for (unsigned i = 0; i < CONNS; i++)
            fapp_close(&peer, conns[i].slot, false);
        peer_turn();
        counted(take_fins);
        peer_turn();
    }
    return (uint64_t)(ROUNDS / 4) * CONNS;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------------------- */

static void
start(void)
{
    struct stack_config cfg[2] = { net_stack_config(0), net_stack_config(1) };
    struct sockaddr_in sa;

    maker = *net_maker_single();
    maker.poll = poll_peer;
    for (unsigned i = 0; i < 2; i++)
        cfg[i].tcp.max_time_wait = ROUNDS * CONNS;
    net_init_with(&lan, cfg, &maker);
    fapp_attach(&own, &lan.node[0]);
    fapp_attach(&peer, &lan.node[1]);
    own_ops.wake_fd = eventfd(0, EFD_CLOEXEC);
    front_adopt(&own.layout, own.front, own.back, lan.node[0].pool.base, lan.node[0].host->page);
    front_adopt_home(&own_home, &own_ops, NULL, own.member, -1);
    epfd = iso_epoll_create1(EPOLL_CLOEXEC);
    sa = address_of(0, OWN_PORT);
    listener = iso_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(iso_bind(listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_listen(listener, 2 * CONNS), 0);
    peer_listener = fapp_open(&peer);
    assert_int_equal(fapp_bind(&peer, peer_listener, &lan.node[1].addr, PEER_PORT), 0);
    assert_int_equal(fapp_listen(&peer, peer_listener, 2 * CONNS), 0);
}

struct scenario {
    const char *name;
    uint64_t (*run)(void); /**< returns the number of units */
};

static BY_NAME uint64_t
scenario(const struct scenario *s)
{
    return s->run();
}

int
main(void)
{
    static const struct scenario scenarios[] = {
        { "client", run_client }, { "server", run_server },   { "receive", run_receive },
        { "send", run_send },     { "connect", run_connect }, { "accept", run_accept },
    };

    if (net_eal_start() != 0)
        return 1;
    start();
    conns_open();
    for (unsigned i = 0; i < RTE_DIM(scenarios); i++) {
        settle();
        if (scenarios[i].run == run_connect)
            conns_close();
        printf("%s\t%" PRIu64 "\n", scenarios[i].name, scenario(&scenarios[i]));
    }
    return 0;
}
