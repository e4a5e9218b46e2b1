/* SPDX-License-Identifier: BSD-3-Clause */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tcp/domain.h"

/**
 * @file
 * Connections that are taken from one instance by another while bytes flow both ways, and what becomes of them after. Node 1 is looked at; its workers are
 * polled by hand.
 */

#define CONNS 16u

static struct world w;
static uint32_t listener, client[CONNS], server[CONNS];
static struct stream st[2 * CONNS];

static struct stack *
stack(unsigned i)
{
    return host_stack(w.net.node[1].host, i);
}

static uint32_t
where(uint32_t slot)
{
    return host_stack_of(w.net.node[1].host, w.b.app, slot)->number;
}

static void
start(const char *text, unsigned nb_workers, uint32_t loss_ppm)
{
    run = (struct run){ .text = text, .nb_workers = nb_workers };
    rng_init(&run.rng, 3, nb_workers);
    world_init(&w, loss_ppm);
    listener = listen_on(&w.b, PORT, false);
    for (unsigned i = 0; i < CONNS; i++) {
        client[i] = connect_to(&w.a, &w.b, PORT);
        net_until(&w.net, shm_load(&fapp_back(&w.b, listener)->accept_ready) == 1);
        assert_int_equal(fapp_accept(&w.b, listener, &server[i]), 0);
        net_run(&w.net, 1000);
        st[2 * i] = (struct stream){ .from = &w.a, .to = &w.b, .tx = client[i], .rx = server[i], .conn = i };
        st[2 * i + 1] =
            (struct stream){ .from = &w.b, .to = &w.a, .tx = server[i], .rx = client[i], .conn = CONNS + i };
    }
}

/* Everything is closed, TIME-WAIT is over: no table remembers anything. */
static void
end(void)
{
    for (unsigned i = 0; i < CONNS; i++) {
        assert_int_equal(fapp_close(&w.b, server[i], false), 0);
        net_until(&w.net, status(&w.a, client[i]) & SHM_ST_FIN);
        assert_int_equal(fapp_close(&w.a, client[i], false), 0);
    }
    for (unsigned s = 0; s < 75; s++)
        net_run(&w.net, 1000000);
    for (unsigned i = 0; i < host_nb_stacks(w.net.node[1].host); i++) {
        assert_int_equal(stack(i)->nb_guests, 0);
        assert_int_equal(stack(i)->tcp->pools[POOL_MOVED].used, 0);
        assert_int_equal(stack(i)->tcp->pools[POOL_TW].used, 0);
    }
    assert_int_equal(counted(&w, 1, CTR_TCP_DROP_MOVED), 0);
    assert_int_equal(counted(&w, 1, CTR_TCP_RST_TX), 0);
    world_fini(&w);
}

/* What a worker does that has too little to do. */
static void
steal(unsigned thief, unsigned victim, unsigned max)
{
    struct host *h = w.net.node[1].host;
    struct net *net = host_net(h, thief);

    net_begin(net);
    stack_enter(stack(thief), net, w.net.now_us);
    stack_steal(stack(thief), victim, max);
    stack_leave(stack(thief));
    net_end(net, w.net.now_us);
}

static unsigned
living_in(unsigned domain)
{
    unsigned n = 0;

    for (unsigned i = 0; i < CONNS; i++)
        n += where(server[i]) == domain;
    return n;
}

static void
moves_while_bytes_flow(unsigned nb_workers, uint32_t loss_ppm)
{
    unsigned before, at_home, went_home = 0;

    start("hybrid,threshold=1024", nb_workers, loss_ppm);
    before = living_in(0);
    assert_true(before >= 2 && before < CONNS);
    transfer_all(&w.net, st, 2 * CONNS, 20000);
    for (unsigned round = 1; round <= 12; round++) {
        /* Something is under way whenever one moves. */
        for (unsigned i = 0; i < 2 * CONNS; i++)
            stream_step(&st[i], 20000 + 9000 * round);
        for (unsigned i = 0; i < 4; i++)
            net_step(&w.net, 10);
        at_home = living_in(0);
        if (round % 4 == 0)
            steal(0, 1, 3); /* some go home */
        else
            steal(1 + round % (nb_workers - 1), round % 2 == 0 || nb_workers == 2 ? 0 : 1, 3);
        transfer_all(&w.net, st, 2 * CONNS, 20000 + 9000 * round);
        went_home += living_in(0) > at_home;
        net_run(&w.net, 1100000); /* a connection may move again after a while */
    }
    assert_true(counted(&w, 1, CTR_MOVE_IN) >= 5);
    assert_true(went_home > 0);
    assert_true(counted(&w, 1, CTR_REDIRECTED) > 100);
    assert_int_equal(counted(&w, 1, CTR_MOVE_IN), counted(&w, 1, CTR_MOVE_OUT));
    assert_int_equal(counted(&w, 1, CTR_MOVE_REFUSED), 0);
    end();
}

static void
nobody_notices(void **state)
{
    (void)state;
    moves_while_bytes_flow(2, 0);
    moves_while_bytes_flow(3, 0);
}

static void
nor_under_loss(void **state)
{
    (void)state;
    moves_while_bytes_flow(2, 20000);
    moves_while_bytes_flow(4, 20000);
}

/* One that finds no room goes back to where it came from, and goes on there. */
static void
a_full_thief_gives_back(void **state)
{
    tcp_id ids[512];
    struct stack *s;
    unsigned n = 0;

    (void)state;
    start("hybrid,threshold=1024", 2, 0);
    s = stack(1);
    while (tcp_listen(s->tcp, &s->env, &(struct ip_addr){ { 0 } }, (uint16_t)(20000 + n), 1, NULL, 0, &ids[n]) == 0)
        n++;
    for (unsigned i = 0; i < 2 * CONNS; i++)
        stream_step(&st[i], 30000);
    net_step(&w.net, 10);
    steal(1, 0, 4);
    transfer_all(&w.net, st, 2 * CONNS, 30000);
    assert_true(counted(&w, 1, CTR_MOVE_REFUSED) > 0);
    while (n > 0)
        tcp_close(s->tcp, &s->env, ids[--n], false);
    end();
}

/* The mode by itself: the work of one instance is shared, and then stays where it is. */
static void
load_spreads_and_settles(void **state)
{
    unsigned moved, heavy[CONNS], nb_heavy = 0;
    struct stream some[CONNS];
    char *text = NULL;
    size_t len = 0;
    FILE *out;

    (void)state;
    start("hybrid,threshold=2", 2, 0);
    for (unsigned i = 0; i < CONNS; i++)
        if (where(server[i]) == 0)
            heavy[nb_heavy++] = i;
    assert_true(nb_heavy >= 4);
    for (unsigned k = 0; k < nb_heavy; k++)
        some[k] = st[2 * heavy[k]];
    transfer_all(&w.net, some, nb_heavy, 1000000);
    moved = (unsigned)counted(&w, 1, CTR_MOVE_IN);
    assert_in_range(moved, 1, nb_heavy);
    assert_true(living_in(1) > CONNS - nb_heavy);
    assert_true(counted(&w, 1, CTR_STEALS) > 0);
    out = open_memstream(&text, &len);
    run.ops->report(run.mode[1], out);
    fclose(out);
    assert_non_null(strstr(text, "moved_connections"));
    assert_non_null(strstr(text, "worker1_load"));
    free(text);
    end();
}

/* A moved connection's process ends: the connection too, in order, and its slot is free. */
static void
the_owner_of_a_moved_connection_dies(void **state)
{
    (void)state;
    start("hybrid,threshold=1024", 2, 0);
    for (unsigned i = 0; i < 2 * CONNS; i++)
        stream_step(&st[i], 30000);
    net_step(&w.net, 10);
    steal(1, 0, 4);
    transfer_all(&w.net, st, 2 * CONNS, 30000);
    assert_true(counted(&w, 1, CTR_MOVE_IN) > 0);
    fapp_leave(&w.b, w.b.member);
    for (unsigned i = 0; i < CONNS; i++)
        net_until(&w.net, status(&w.a, client[i]) & (SHM_ST_FIN | SHM_ST_ERROR));
    fapp_attach(&w.b, &w.net.node[1]);
    world_fini(&w);
}

static void
stop_the_world(void)
{
    struct host *h = w.net.node[1].host;

    host_stop(h, host_net(h, 0), w.net.now_us);
    host_go(h, host_net(h, 0), w.net.now_us);
}

/* A request for connections is on its way from one worker to another, and packets of theirs behind it. */
static void
request_and_packets(unsigned thief, unsigned victim, uint32_t total)
{
    for (unsigned i = 0; i < 2 * CONNS; i++)
        stream_step(&st[i], total - 5000);
    for (unsigned i = 0; i < 8; i++)
        net_step(&w.net, 10);
    run.still = 1u << victim | 1u << thief;
    steal(thief, victim, 3);
    for (unsigned i = 0; i < 2 * CONNS; i++)
        stream_step(&st[i], total);
    for (unsigned i = 0; i < 8; i++)
        net_step(&w.net, 10);
    run.still = 0;
}

/* When the world is stopped they do not arrive before the connections do. */
static void
packets_do_not_overtake_their_connection(void **state)
{
    (void)state;
    start("hybrid,threshold=1024", 3, 0);
    for (unsigned round = 1; round <= 8; round++) {
        request_and_packets((round + 1) % 3, round % 3, 8000 * round);
        stop_the_world();
        transfer_all(&w.net, st, 2 * CONNS, 8000 * round);
        net_run(&w.net, 1100000);
    }
    assert_true(counted(&w, 1, CTR_MOVE_IN) > 8);
    end();
}

/* The pass that gives a connection away may have taken an acknowledgement for it: what was shown of it before must not go back. */
static void
acknowledgements_stay_shown(void **state)
{
    uint32_t shown[CONNS];

    (void)state;
    start("hybrid,threshold=1024", 2, 0);
    for (unsigned round = 1; round <= 8; round++) {
        for (unsigned i = 0; i < 2 * CONNS; i++)
            stream_step(&st[i], 8000 * round);
        for (unsigned i = 0; i < round; i++)
            net_step(&w.net, 10);
        run.still = 3;
        steal(round % 2, (round + 1) % 2, 3);
        for (unsigned i = 0; i < 8; i++)
            net_step(&w.net, 10); /* acknowledgements come to the port */
        for (unsigned i = 0; i < CONNS; i++)
            shown[i] = shm_load(&fapp_back(&w.b, server[i])->tx_acked);
        run.still = 1u << round % 2; /* the thief takes nothing in yet */
        for (unsigned i = 0; i < 4; i++)
            net_step(&w.net, 10);
        for (unsigned i = 0; i < CONNS; i++)
            assert_true((int32_t)(shm_load(&fapp_back(&w.b, server[i])->tx_acked) - shown[i]) >= 0);
        run.still = 0;
        transfer_all(&w.net, st, 2 * CONNS, 8000 * round);
        net_run(&w.net, 1100000);
    }
    assert_true(counted(&w, 1, CTR_MOVE_IN) > 4);
    end();
}

/* Connections change their domain while their process ends: all end in order, the peer has what was sent, and nothing is left. */
static void
the_owner_dies_while_connections_move(void **state)
{
    (void)state;
    for (unsigned victim = 0; victim < 3; victim++) {
        start("hybrid,threshold=1024", 3, 0);
        request_and_packets((victim + 1) % 3, victim, 8000);
        fapp_leave(&w.b, w.b.member);
        assert_true(counted(&w, 1, CTR_MOVE_IN) > 0);
        for (unsigned i = 0; i < CONNS; i++)
            net_until(&w.net, status(&w.a, client[i]) & (SHM_ST_FIN | SHM_ST_ERROR));
        net_until(&w.net, w.net.node[1].host->nb_apps == 0);
        fapp_attach(&w.b, &w.net.node[1]);
        world_fini(&w);
    }
}

/* What a worker says first after that, it says by its own queues: others have theirs in use. */
static void
domains_are_their_owners_again_after_a_stop(void **state)
{
    (void)state;
    start("hybrid,threshold=1024", 3, 0);
    stop_the_world();
    for (unsigned i = 0; i < 3; i++)
        assert_ptr_equal(stack(i)->net, host_net(w.net.node[1].host, i));
    end();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_notices),
        cmocka_unit_test(nor_under_loss),
        cmocka_unit_test(a_full_thief_gives_back),
        cmocka_unit_test(load_spreads_and_settles),
        cmocka_unit_test(the_owner_of_a_moved_connection_dies),
        cmocka_unit_test(packets_do_not_overtake_their_connection),
        cmocka_unit_test(acknowledgements_stay_shown),
        cmocka_unit_test(the_owner_dies_while_connections_move),
        cmocka_unit_test(domains_are_their_owners_again_after_a_stop),
    };

    if (net_eal_start() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
