/* SPDX-License-Identifier: BSD-3-Clause */
/* Fast Open (RFC 7413) through the shared words: what stands in a stream before its application says so. */
#include "back_pair.h"

#include <errno.h>
#include <string.h>

#define STAGED 5000u

static uint32_t
listen_fast(struct fapp *fa)
{
    const struct ip_addr any = ip_addr_v4(0);
    uint32_t listener = fapp_open(fa);

    assert_int_equal(fapp_value_cmd(fa, listener, SHM_OP_SETOPT, TCP_OPT_FASTOPEN, 16), 0);
    assert_int_equal(fapp_bind(fa, listener, &any, PORT), 0);
    assert_int_equal(fapp_listen(fa, listener, 8), 0);
    return listener;
}

/** A socket with bytes that its tx_tail does not tell. */
static uint32_t
staged(struct fapp *fa)
{
    uint32_t slot = fapp_open(fa);
    uint8_t bytes[STAGED];

    pair_pattern(bytes, 0, sizeof(bytes));
    fapp_stage(fa, slot, bytes, sizeof(bytes));
    return slot;
}

static uint32_t
accept_one(struct pair *f, uint32_t listener)
{
    uint32_t server;

    net_until(&f->net, shm_load(&fapp_back(&f->b, listener)->accept_ready) == 1);
    assert_int_equal(fapp_accept(&f->b, listener, &server), 0);
    return server;
}

static void
first_connection(struct pair *f, uint32_t listener)
{
    uint32_t client = staged(&f->a);

    assert_int_equal(fapp_connect_fast(&f->a, client, &f->b.node->addr, PORT, SHM_FAST_DEFER), 0);
    net_until(&f->net, pair_status(&f->a, client) & SHM_ST_CONNECTED);
    accept_one(f, listener);
}

static void
receive(struct pair *f, uint32_t server, uint32_t n_bytes)
{
    uint8_t got[2 * STAGED];
    uint32_t n = 0;

    net_until(&f->net, (n += fapp_recv(&f->b, server, got + n, sizeof(got) - n)) >= n_bytes);
    assert_int_equal(n, n_bytes);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(got[i], pair_byte(i));
}

static void
bytes_go_with_the_second_syn(void **state)
{
    struct pair *f = *state;
    uint32_t listener = listen_fast(&f->b);
    const struct shm_info *info = (const struct shm_info *)(f->b.back + f->b.layout.back_info_off);

    first_connection(f, listener);
    uint32_t client = staged(&f->a);
    assert_int_equal(fapp_connect_fast(&f->a, client, &f->b.node->addr, PORT, SHM_FAST_DEFER), -EAGAIN);
    assert_int_equal(pair_status(&f->a, client), SHM_ST_OPEN);
    int taken = fapp_connect_fast(&f->a, client, &f->b.node->addr, PORT, STAGED);
    assert_in_range(taken, 1000, 1500);
    /* Its application has not heard so yet, and notifies for another reason. */
    fapp_notify(&f->a, client);
    net_until(&f->net, shm_load(&fapp_back(&f->a, client)->tx_acked) == (uint32_t)taken);
    fapp_notify(&f->a, client);
    node_poll(f->a.node);
    fapp_front(&f->a, client)->tx_tail = (uint32_t)taken;

    uint32_t server = accept_one(f, listener);
    assert_int_equal(fapp_cmd(&f->b, server, (struct shm_cmd){ .op = SHM_OP_INFO }), 0);
    assert_true(info->syn_data);
    uint8_t rest[STAGED];
    pair_pattern(rest, (uint32_t)taken, sizeof(rest));
    assert_int_equal(fapp_send(&f->a, client, rest, STAGED - (uint32_t)taken), STAGED - (uint32_t)taken);
    receive(f, server, STAGED);
    assert_int_equal(pair_counter(&f->a, CTR_SOCK_BAD_COMMAND), 0);
}

/** A server that takes no data with a SYN gets it with the next segment. */
static void
what_the_peer_refuses_is_sent_again(void **state)
{
    struct pair *f = *state;
    const struct ip_addr any = ip_addr_v4(0);
    uint32_t listener = fapp_open(&f->b), client = staged(&f->a);

    assert_int_equal(fapp_bind(&f->b, listener, &any, PORT), 0);
    assert_int_equal(fapp_listen(&f->b, listener, 8), 0);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_FASTOPEN_NO_COOKIE, 1), 0);
    int taken = fapp_connect_fast(&f->a, client, &f->b.node->addr, PORT, 300);
    assert_int_equal(taken, 300);
    fapp_front(&f->a, client)->tx_tail = 300;
    receive(f, accept_one(f, listener), 300);
}

/** It counts bytes that it does not have, and says that it sent others. */
static void
lies_cost_the_liar(void **state)
{
    struct pair *f = *state;
    uint32_t client = fapp_open(&f->a);

    listen_fast(&f->b);
    fapp_front(&f->a, client)->tx_chunk = 0;
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_FASTOPEN_NO_COOKIE, 1), 0);
    assert_true(fapp_connect_fast(&f->a, client, &f->b.node->addr, PORT, UINT16_MAX - 1) > 0);
    node_poll(f->a.node);
    assert_true(pair_counter(&f->a, CTR_SOCK_BAD_COMMAND) > 0);

    client = staged(&f->a);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_FASTOPEN_NO_COOKIE, 1), 0);
    assert_int_equal(fapp_connect_fast(&f->a, client, &f->b.node->addr, PORT, 300), 300);
    fapp_front(&f->a, client)->tx_tail = 1;
    uint64_t bad = pair_counter(&f->a, CTR_SOCK_BAD_COMMAND);
    fapp_notify(&f->a, client);
    node_poll(f->a.node);
    assert_true(pair_counter(&f->a, CTR_SOCK_BAD_COMMAND) > bad);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, pair_setup, pair_teardown)
    const struct CMUnitTest tests[] = {
        T(bytes_go_with_the_second_syn),
        T(what_the_peer_refuses_is_sent_again),
        T(lies_cost_the_liar),
    };

    return net_eal_start() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
