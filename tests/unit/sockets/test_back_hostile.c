/* SPDX-License-Identifier: BSD-3-Clause */
#include "back_net.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/rng.h"

/**
 * @file
 * An application that writes anything anywhere in its region harms its own sockets alone: after each attack a well-behaved application on the
 * same stack still works, and nothing of the hostile one is left when it has gone.
 */

#define PORT 80
#define FUZZ_SEED UINT64_C(20261121)
#define FUZZ_ROUNDS 12
#define FUZZ_STEPS 1500

struct fixture {
    struct lan net;
    struct fapp good, bad, peer; /* good and bad on node 0, peer on node 1 */
    uint32_t client, listener, server; /* bad's connection to peer */
    uint32_t good_client, good_server;
};

static int
setup(void **state)
{
    static struct fixture f;
    const struct stack_config cfg[2] = { net_stack_config(0), net_stack_config(1) };

    memset(&f, 0, sizeof(f));
    net_init(&f.net, cfg);
    fapp_attach(&f.good, &f.net.node[0]);
    fapp_attach(&f.bad, &f.net.node[0]);
    fapp_attach(&f.peer, &f.net.node[1]);
    fapp_pair(&f.bad, &f.peer, PORT, &f.client, &f.listener, &f.server);
    f.good_client = fapp_open(&f.good);
    assert_int_equal(fapp_connect(&f.good, f.good_client, &f.peer.node->addr, PORT), 0);
    net_until(&f.net, fapp_back(&f.peer, f.listener)->accept_ready == 1);
    assert_int_equal(fapp_accept(&f.peer, f.listener, &f.good_server), 0);
    *state = &f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    fapp_leave(&f->bad, f->bad.member);
    fapp_leave(&f->good, f->good.member);
    fapp_leave(&f->peer, f->peer.member);
    net_until(&f->net, f->net.node[0].host->nb_apps + f->net.node[1].host->nb_apps == 0);
    net_run(&f->net, 100000);
    net_fini(&f->net);
    return 0;
}

/* The neighbour's connection carries bytes both ways. */
static void
others_work(struct fixture *f)
{
    char buf[16];
    uint32_t had = fapp_back(&f->peer, f->good_server)->rx_tail;

    assert_int_equal(fapp_send(&f->good, f->good_client, "alive", 5), 5);
    net_until(&f->net, fapp_back(&f->peer, f->good_server)->rx_tail == had + 5);
    assert_int_equal(fapp_recv(&f->peer, f->good_server, buf, sizeof(buf)), 5);
    assert_memory_equal(buf, "alive", 5);
}

static void
is_aborted(struct fixture *f)
{
    net_until(&f->net, fapp_back(&f->bad, f->client)->status & SHM_ST_ERROR);
    assert_int_equal(fapp_back(&f->bad, f->client)->error, EPROTO);
    assert_true(f->net.node[0].ctr.v[CTR_SOCK_BAD_COMMAND] >= 1);
    others_work(f);
}

static void
tx_tail_jumps(void **state)
{
    struct fixture *f = *state;

    fapp_front(&f->bad, f->client)->tx_tail += SHM_SNDBUF_MAX + 1;
    fapp_notify(&f->bad, f->client);
    is_aborted(f);
}

/* Each step is small enough, their sum is more than the buffer. */
static void
tx_tail_outruns_the_peer(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fapp_send(&f->bad, f->client, "x", 1), 1);
    node_poll(f->bad.node);
    assert_int_equal(fapp_back(&f->bad, f->client)->tx_acked, 0);
    fapp_front(&f->bad, f->client)->tx_tail += SHM_SNDBUF_MAX;
    fapp_notify(&f->bad, f->client);
    is_aborted(f);
}

static void
tx_tail_goes_back(void **state)
{
    struct fixture *f = *state;

    fapp_front(&f->bad, f->client)->tx_tail--;
    fapp_notify(&f->bad, f->client);
    is_aborted(f);
}

static void
rx_head_passes_the_tail(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fapp_send(&f->peer, f->server, "0123456789", 10), 10);
    net_until(&f->net, fapp_back(&f->bad, f->client)->rx_tail == 10);
    fapp_front(&f->bad, f->client)->rx_head = 11;
    fapp_notify(&f->bad, f->client);
    is_aborted(f);
}

/* Bytes that have arrived but are not published yet are not the application's to take. */
static void
rx_head_takes_the_unpublished(void **state)
{
    struct fixture *f = *state;

    for (uint32_t i = 1; i <= SHM_TRAINS + 1; i++) {
        assert_int_equal(fapp_send(&f->peer, f->server, "0123456789", 10), 10);
        net_run(&f->net, 100000);
    }
    assert_int_equal(fapp_back(&f->bad, f->client)->train_tail, SHM_TRAINS);
    assert_int_equal(fapp_back(&f->bad, f->client)->rx_tail, 10 * SHM_TRAINS);
    fapp_front(&f->bad, f->client)->rx_head = 10 * SHM_TRAINS + 5;
    fapp_notify(&f->bad, f->client);
    is_aborted(f);
}

static void
chunk_out_of_range(void **state)
{
    struct fixture *f = *state;

    /* A copied payload and an attached one take different ways to the chunk. */
    fapp_front(&f->bad, f->client)->tx_chunk = NODE_CHUNKS + 1;
    fapp_front(&f->bad, f->client)->tx_tail += 100;
    fapp_notify(&f->bad, f->client);
    is_aborted(f);
}

static void
chunk_out_of_range_attached(void **state)
{
    struct fixture *f = *state;

    fapp_front(&f->bad, f->client)->tx_chunk = 0;
    fapp_front(&f->bad, f->client)->tx_tail += 1000;
    fapp_notify(&f->bad, f->client);
    is_aborted(f);
}

static void
small_block_out_of_range(void **state)
{
    struct fixture *f = *state;

    fapp_front(&f->bad, f->client)->tx_base = fapp_front(&f->bad, f->client)->tx_tail;
    fapp_front(&f->bad, f->client)->tx_small = (uint16_t)(f->bad.layout.nb_smalls + 1);
    fapp_front(&f->bad, f->client)->tx_tail += 100;
    fapp_notify(&f->bad, f->client);
    is_aborted(f);
}

/* A distance is any number: the bytes are others of its own, or there are none. */
static void
base_jumps(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fapp_send(&f->bad, f->client, "0123456789", 10), 10);
    fapp_front(&f->bad, f->client)->tx_base = -3 * SHM_CHUNK_BYTES;
    net_run(&f->net, 100000);
    is_aborted(f);
}

static void
cmd_head_jumps(void **state)
{
    struct fixture *f = *state;

    fapp_front(&f->bad, f->client)->cmd_head += SHM_CMDS + 1;
    fapp_notify(&f->bad, f->client);
    is_aborted(f);
}

static void
foreign_numbers(void **state)
{
    struct fixture *f = *state;

    fapp_enqueue(&f->bad, NODE_MAX_SOCKS);
    fapp_enqueue(&f->bad, UINT32_MAX);
    net_run(&f->net, 10000);
    assert_int_equal(f->net.node[0].ctr.v[CTR_SOCK_DROP_QUEUE], 2);
    assert_int_equal(fapp_cmd(&f->bad, f->client, (struct shm_cmd){ .op = 0xff }), -EINVAL);
    assert_int_equal(fapp_cmd(&f->bad, f->client, (struct shm_cmd){ .op = SHM_OP_ACCEPT, .slot = UINT32_MAX }),
                     -EINVAL);
    f->bad.member = 999;
    assert_int_equal(fapp_close(&f->bad, f->client, false), -EINVAL);
    f->bad.member = 1;
    others_work(f);
}

static void
broken_ring(void **state)
{
    struct fixture *f = *state;
    struct rte_ring *r = (struct rte_ring *)(f->bad.front + f->bad.layout.front_rings_off);

    memset(r, 0x5a, f->bad.layout.ring_bytes);
    is_aborted(f);
    net_run(&f->net, 1000000);
    others_work(f);
}

static uint32_t
interesting(struct rng *r)
{
    static const uint32_t values[] = { 0,
                                       1,
                                       2,
                                       0x7fffffff,
                                       0x80000000,
                                       UINT32_MAX,
                                       0xffff,
                                       0x10000,
                                       SHM_CHUNK_BYTES,
                                       SHM_SNDBUF_MAX,
                                       NODE_CHUNKS,
                                       NODE_MAX_SOCKS };

    return rng_below(r, 2) ? (uint32_t)rng_next(r) : values[rng_below(r, RTE_DIM(values))];
}

/* Half of the writes go to the words of the sockets in use, where they reach furthest; a ring's tail is moved by as much as is legal. */
static void
scribble(struct fixture *f, struct rng *r)
{
    struct fapp *fa = &f->bad;
    uint32_t slot = rng_below(r, 6);
    uint32_t *word;

    switch (rng_below(r, 8)) {
    case 0:
    case 1:
    case 2:
        word = (uint32_t *)fapp_front(fa, slot) + rng_below(r, sizeof(struct shm_front_sock) / 4);
        *word = rng_below(r, 3) ? *word + rng_below(r, 5000) : interesting(r);
        break;
    case 3:
        word = (uint32_t *)(fa->front + fa->layout.front_rings_off) + rng_below(r, fa->layout.ring_bytes / 4);
        if (rng_below(r, 20) == 0)
            *word = interesting(r);
        break;
    case 4:
        word = (uint32_t *)(fa->front + rng_next(r) % fa->layout.front_chunks_off / 4 * 4);
        if (rng_below(r, 4) == 0)
            *word = interesting(r);
        break;
    case 5: {
        struct shm_front_sock *sf = fapp_front(fa, slot);
        struct shm_cmd *cmd = &sf->cmd[sf->cmd_head % SHM_CMDS];

        for (unsigned i = 0; i < sizeof(*cmd); i++)
            ((uint8_t *)cmd)[i] = (uint8_t)rng_below(r, 4);
        cmd->op = (uint8_t)rng_below(r, SHM_OP_COUNT + 1);
        cmd->member = (uint16_t)rng_below(r, 3);
        sf->cmd_head++;
        break;
    }
    default:
        break;
    }
    if (!fa->app->expelled) {
        struct rte_ring *ring = fa->app->rings[0].ring;

        fa->app->rings[0].ring->prod.tail += rng_below(r, 3);
        ((uint32_t *)(ring + 1))[rng_below(r, SHM_RING_ENTRIES)] = slot;
        ((uint32_t *)(ring + 1))[(ring->prod.tail - 1) % SHM_RING_ENTRIES] = slot;
    }
}

static void
anything_anywhere(void **state)
{
    struct fixture *f = *state;
    struct rng r;

    rng_init(&r, FUZZ_SEED, 0);
    for (unsigned round = 0; round < FUZZ_ROUNDS; round++) {
        for (unsigned step = 0; step < FUZZ_STEPS; step++) {
            scribble(f, &r);
            if (step % 4 == 0)
                net_step(&f->net, 100);
        }
        others_work(f);
        /* The next round finds a fresh application, since this one may have been expelled. */
        fapp_leave(&f->bad, f->bad.member);
        net_run(&f->net, 100000);
        fapp_attach(&f->bad, &f->net.node[0]);
        f->client = fapp_open(&f->bad);
        assert_int_equal(fapp_connect(&f->bad, f->client, &f->peer.node->addr, PORT), 0);
    }
    assert_true(f->net.node[0].ctr.v[CTR_SOCK_BAD_COMMAND] > 10);
    assert_true(f->net.node[0].ctr.v[CTR_SOCK_COMMANDS] > 100);
}

/* What applications get can neither be written nor resized, also when it is opened again. */
static void
regions_are_sealed(void **state)
{
    const struct arena_config ac = { .max_socks = 16, .tx_chunks = 4, .nb_rings = 1, .nb_instances = 1 };
    struct arena *a;
    char path[64];
    int back, again;

    (void)state;
    assert_int_equal(arena_create(&a, &ac), 0);
    back = arena_back_readonly_fd(a);
    assert_true(back >= 0);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, back, 0), MAP_FAILED);
    assert_int_equal(ftruncate(a->front_fd, 4096), -1);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", back);
    again = open(path, O_RDWR | O_CLOEXEC);
    if (again >= 0) {
        assert_int_equal(write(again, "x", 1), -1);
        assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0), MAP_FAILED);
        close(again);
    }
    close(back);
    arena_release(a);
    assert_int_equal(arena_reap(), 1);
    assert_int_equal(arena_create(&a, &(struct arena_config){ .tx_chunks = 1, .nb_rings = 1 }), -EINVAL);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(tx_tail_jumps),
        T(tx_tail_outruns_the_peer),
        T(tx_tail_goes_back),
        T(rx_head_passes_the_tail),
        T(rx_head_takes_the_unpublished),
        T(chunk_out_of_range),
        T(chunk_out_of_range_attached),
        T(small_block_out_of_range),
        T(base_jumps),
        T(cmd_head_jumps),
        T(foreign_numbers),
        T(broken_ring),
        T(anything_anywhere),
        cmocka_unit_test(regions_are_sealed),
    };

    return net_eal_start() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
