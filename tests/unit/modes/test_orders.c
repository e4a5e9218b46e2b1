/* SPDX-License-Identifier: BSD-3-Clause */
#include "world.h"

#include <stdio.h>
#include <string.h>

/**
 * @file
 * What crosses between workers, in every order in which their next passes can come: the workers of node 1 are polled by hand, in one thread, on a fake clock. Each
 * case is run once for each word over the workers' numbers of a given length, and begins and ends with nothing under way.
 */

#define WORKERS 3u
#define STEPS_MAX 6u

static struct world w;

/* Post a command and let it be notified; nobody is polled. Returns its number. */
static uint32_t
post(struct fapp *fa, uint32_t slot, struct shm_cmd cmd)
{
    struct shm_front_sock *f = fapp_front(fa, slot);
    uint32_t number = f->cmd_head;

    cmd.member = fa->member;
    f->cmd[number % SHM_CMDS] = cmd;
    shm_store(&f->cmd_head, number + 1);
    fapp_notify(fa, slot);
    return number;
}

static bool
is_done(const struct fapp *fa, uint32_t slot, uint32_t number)
{
    return (int32_t)(shm_load(&fapp_back(fa, slot)->cmd_done) - number) > 0;
}

static int
result(const struct fapp *fa, uint32_t slot, uint32_t number)
{
    net_until(&w.net, is_done(fa, slot, number));
    return fapp_back(fa, slot)->cmd_result[number % SHM_CMDS];
}

/* Node 1's workers are polled in the order under test, then as ever. */
static void
go(void)
{
    run.order_at = 0;
    while (run.order_at < run.order_len)
        net_step(&w.net, 10);
}

static struct shm_cmd
bind_cmd(uint16_t port)
{
    const struct ip_addr any = ip_addr_v4(0);

    return (struct shm_cmd){ .op = SHM_OP_BIND, .sa = addr_to_shm(&any, port) };
}

/* ---- cases -------------------------------------------------------------------------------------------------------------------- */

/* Two want one port: exactly one gets it, whoever comes first where. */
static void
two_bind_one_port(void)
{
    uint32_t first = fapp_open(&w.b), second = fapp_open(&w.b);
    uint32_t one = post(&w.b, first, bind_cmd(PORT)), other = post(&w.b, second, bind_cmd(PORT));
    int a, b;

    go();
    a = result(&w.b, first, one);
    b = result(&w.b, second, other);
    assert_int_equal(a + b, -EADDRINUSE);
    assert_int_equal(a * b, 0);
    assert_int_equal(fapp_close(&w.b, first, false), 0);
    assert_int_equal(fapp_close(&w.b, second, false), 0);
}

/* One gives a port up while another wants it: he gets it or not, but no half of it. */
static void
close_and_bind_cross(void)
{
    uint32_t old = listen_on(&w.b, PORT, false), fresh = fapp_open(&w.b);
    uint32_t closing = post(&w.b, old, (struct shm_cmd){ .op = SHM_OP_CLOSE });
    uint32_t binding = post(&w.b, fresh, bind_cmd(PORT));
    int rc;

    go();
    assert_int_equal(result(&w.b, old, closing), 0);
    rc = result(&w.b, fresh, binding);
    if (rc != 0) {
        assert_int_equal(rc, -EADDRINUSE);
        assert_int_equal(result(&w.b, fresh, post(&w.b, fresh, bind_cmd(PORT))), 0);
    }
    assert_int_equal(fapp_listen(&w.b, fresh, 4), 0);
    assert_int_equal(fapp_close(&w.b, fresh, false), 0);
}

/* A client comes while the listener goes: it is refused or reset, and nothing of it remains. */
static void
close_and_client_cross(void)
{
    uint32_t listener = listen_on(&w.b, PORT, false), client = fapp_open(&w.a);
    uint32_t closing;

    assert_int_equal(fapp_connect(&w.a, client, &w.b.node->addr, PORT), 0);
    closing = post(&w.b, listener, (struct shm_cmd){ .op = SHM_OP_CLOSE });
    go();
    assert_int_equal(result(&w.b, listener, closing), 0);
    net_until(&w.net, status(&w.a, client) & SHM_ST_ERROR);
    assert_int_equal(fapp_close(&w.a, client, false), 0);
}

/* A connection is accepted while its peer gives it up. */
static void
accept_and_reset_cross(void)
{
    uint32_t listener = listen_on(&w.b, PORT, false), client = connect_to(&w.a, &w.b, PORT);
    uint32_t child = w.b.next_slot++ % NODE_MAX_SOCKS;
    uint32_t accepting;

    net_until(&w.net, shm_load(&fapp_back(&w.b, listener)->accept_ready) == 1);
    assert_int_equal(fapp_back(&w.b, child)->status & SHM_ST_OPEN, 0);
    fapp_front(&w.b, child)->tx_tail = fapp_front(&w.b, child)->rx_head = 0;
    assert_int_equal(fapp_close(&w.a, client, true), 0);
    accepting = post(&w.b, listener, (struct shm_cmd){ .op = SHM_OP_ACCEPT, .slot = child });
    go();
    assert_int_equal(result(&w.b, listener, accepting), 0);
    net_until(&w.net, status(&w.b, child) & SHM_ST_ERROR);
    assert_int_equal(fapp_close(&w.b, child, false), 0);
    assert_int_equal(fapp_close(&w.b, listener, false), 0);
}

/* A bound socket connects, and goes where its answers come to; sends are asked for meanwhile. */
static void
connect_and_send_cross(void)
{
    const struct ip_addr any = ip_addr_v4(0);
    static uint16_t port = 5000;
    uint32_t listener = listen_on(&w.a, PORT, false), client = fapp_open(&w.b), child;
    uint32_t connecting;
    struct stream st = { .from = &w.b, .to = &w.a, .tx = client };

    assert_int_equal(fapp_bind(&w.b, client, &any, port++), 0);
    connecting = post(&w.b, client, (struct shm_cmd){ .op = SHM_OP_CONNECT, .sa = addr_to_shm(&w.a.node->addr, PORT) });
    post(&w.b, client, (struct shm_cmd){ .op = SHM_OP_NOP });
    go();
    assert_int_equal(result(&w.b, client, connecting), 0);
    net_until(&w.net, status(&w.b, client) & SHM_ST_CONNECTED);
    net_until(&w.net, shm_load(&fapp_back(&w.a, listener)->accept_ready) == 1);
    assert_int_equal(fapp_accept(&w.a, listener, &child), 0);
    st.rx = child;
    transfer_all(&w.net, &st, 1, 5000);
    assert_int_equal(fapp_close(&w.b, client, true), 0);
    net_until(&w.net, status(&w.a, child) & SHM_ST_ERROR);
    assert_int_equal(fapp_close(&w.a, child, false), 0);
    assert_int_equal(fapp_close(&w.a, listener, false), 0);
}

#define SIX 6u

static struct {
    bool made;
    uint32_t listener, client[SIX], server[SIX];
    struct stream up[SIX], down[SIX];
    uint32_t total;
} six;

static void
make_six(void)
{
    six.made = true;
    six.total = 0;
    six.listener = listen_on(&w.b, PORT, false);
    for (unsigned i = 0; i < SIX; i++) {
        six.client[i] = connect_to(&w.a, &w.b, PORT);
        net_until(&w.net, shm_load(&fapp_back(&w.b, six.listener)->accept_ready) == 1);
        assert_int_equal(fapp_accept(&w.b, six.listener, &six.server[i]), 0);
        net_run(&w.net, 1000);
        six.up[i] = (struct stream){ .from = &w.a, .to = &w.b, .tx = six.client[i], .rx = six.server[i], .conn = i };
        six.down[i] =
            (struct stream){ .from = &w.b, .to = &w.a, .tx = six.server[i], .rx = six.client[i], .conn = SIX + i };
    }
}

/* Connections are taken while packets for them, sends and commands on them come in. */
static void
steal_and_send_cross(void)
{
    struct host *h = w.net.node[1].host;
    uint32_t number[SIX];

    if (!six.made)
        make_six();
    six.total += 3000;
    for (unsigned i = 0; i < SIX; i++)
        stream_step(&six.up[i], six.total);
    for (unsigned i = 0; i < 4; i++)
        net_step(&w.net, 10);
    /* Each asks the next, or the one before, so that guests go home again. */
    for (unsigned i = 0; i < WORKERS; i++) {
        stack_enter(host_stack(h, i), host_net(h, i), w.net.now_us);
        stack_steal(host_stack(h, i), (i + 1 + six.total / 3000 % 2) % WORKERS, 2);
        stack_leave(host_stack(h, i));
    }
    for (unsigned i = 0; i < SIX; i++) {
        stream_step(&six.up[i], six.total);
        stream_step(&six.down[i], six.total);
        number[i] = post(&w.b, six.server[i], (struct shm_cmd){ .op = SHM_OP_NOP });
    }
    go();
    for (unsigned i = 0; i < SIX; i++)
        assert_int_equal(result(&w.b, six.server[i], number[i]), 0);
    transfer_all(&w.net, six.up, SIX, six.total);
    transfer_all(&w.net, six.down, SIX, six.total);
    assert_int_equal(counted(&w, 1, CTR_TCP_RST_TX), 0);
    assert_int_equal(counted(&w, 1, CTR_TCP_DROP_MOVED), 0);
    net_run(&w.net, 1100000);
}

/* ---- every order ------------------------------------------------------------------------------------------------------------------ */

static uint64_t nb_moved; /* connections, in the last case */

static void
in_every_order(const char *text, void (*fn)(void), unsigned steps)
{
    uint8_t order[STEPS_MAX] = { 0 };
    unsigned words = 1;

    assert_true(steps <= STEPS_MAX);
    for (unsigned i = 0; i < steps; i++)
        words *= WORKERS;
    run.text = text;
    run.nb_workers = WORKERS;
    run.nb_ports = 0;
    run.order = order;
    run.order_at = run.order_len = 0;
    rng_init(&run.rng, 1, 1);
    six.made = false;
    world_init(&w, 0);
    for (unsigned word = 0; word < words; word++) {
        for (unsigned i = 0, rest = word; i < steps; i++, rest /= WORKERS)
            order[i] = (uint8_t)(rest % WORKERS);
        run.order_len = run.order_at = steps; /* go() begins it */
        fn();
        net_run(&w.net, 1000);
    }
    nb_moved = counted(&w, 1, CTR_MOVE_IN);
    world_fini(&w);
}

static const char *const modes[] = { "connp-t", "isostack,instances=3", "connp-l,groups=5", "hybrid,threshold=1" };

static void
binds(void **state)
{
    (void)state;
    for (unsigned i = 0; i < RTE_DIM(modes); i++) {
        in_every_order(modes[i], two_bind_one_port, 6);
        in_every_order(modes[i], close_and_bind_cross, 6);
    }
}

static void
clients(void **state)
{
    (void)state;
    for (unsigned i = 0; i < RTE_DIM(modes); i++) {
        in_every_order(modes[i], close_and_client_cross, 5);
        in_every_order(modes[i], accept_and_reset_cross, 5);
        in_every_order(modes[i], connect_and_send_cross, 5);
    }
}

static void
thieves(void **state)
{
    (void)state;
    in_every_order("hybrid,threshold=1024", steal_and_send_cross, 5);
    assert_true(nb_moved > 100);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(binds),
        cmocka_unit_test(clients),
        cmocka_unit_test(thieves),
    };

    if (net_eal_start() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
