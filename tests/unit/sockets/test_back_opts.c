/* SPDX-License-Identifier: BSD-3-Clause */
/* Options, records, marks, shutdown: what a socket is told beside its bytes. */
#include "back_pair.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static void
options_and_info(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    const struct shm_info *info = (const struct shm_info *)(f->a.back + f->a.layout.back_info_off);

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_COUNT, 1), -ENOPROTOOPT);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_KEEPCNT, 1000), -EINVAL);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_SNDBUF, 20000), 0);
    assert_int_equal(fapp_back(&f->a, client)->sndbuf_bytes, 20000);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_SNDBUF, INT32_MAX), 0);
    assert_int_equal(fapp_back(&f->a, client)->sndbuf_bytes, SHM_SNDBUF_MAX);
    pair_transfer(&f->net, &f->a, client, &f->b, server, 50000);
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
    struct pair *f = *state;
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
    pair_transfer(&f->net, &f->a, client, &f->b, server, 200000);
}

/* SO_RCVLOWAT: many small segments, each a train of its own, are all shown once the mark is reached, and no reader starves behind them. */
static void
rcvlowat_keeps_a_train(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    const uint32_t mark = 1000;
    uint8_t buf[2000];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SETOPT, SHM_OPT_RCVLOWAT, (int32_t)mark), 0);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_NODELAY, 1), 0);
    for (uint32_t sent = 0; sent < mark; sent += 50) {
        assert_true(fapp_back(&f->b, server)->train_tail < SHM_TRAINS);
        pair_pattern(buf, sent, 50);
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
    net_until(&f->net, pair_status(&f->b, server) & SHM_ST_FIN);
    assert_int_equal(fapp_back(&f->b, server)->rx_tail, mark + 2 * SHM_TRAINS);
}

/* A mark that the window cannot hold is forgotten when the window shuts. */
static void
rcvlowat_gives_in_to_the_window(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    static uint8_t buf[100000];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SETOPT, TCP_OPT_RCVBUF, 8000), 0);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SETOPT, SHM_OPT_RCVLOWAT, 1 << 20), 0);
    pair_pattern(buf, 0, sizeof(buf));
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
    struct pair *f = *state;
    uint32_t client = fapp_open(&f->a), listener = fapp_open(&f->b), server;
    const struct sock_more *more;

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
    assert_int_equal(f->b.app->back_names[server].rcvbuf_bytes, 40000);
    more = sock_more_at(f->b.app, server);
    assert_int_equal(more->rcvlowat, 500);
    assert_int_equal(more->notsent_lowat, 600);
    assert_int_equal(more->rcvbuf, 40000);
}

/* Most sockets have one line each; and who gets the place of one that had more finds nothing of it. */
static void
a_socket_has_no_more_than_was_set(void **state)
{
    struct pair *f = *state;
    const struct stack *s = f->a.node->stack;
    uint32_t plain = fapp_open(&f->a), tuned = fapp_open(&f->a), again;
    struct sock *sk = sock_at(f->a.app, tuned);

    assert_int_equal(fapp_value_cmd(&f->a, tuned, SHM_OP_SETOPT, SHM_OPT_RCVLOWAT, 500), 0);
    assert_ptr_equal(sock_more_at(f->a.app, plain), &sock_more_none);
    assert_ptr_equal(sock_more_at(f->a.app, tuned), &s->more[sock_index(s, sk)]);
    assert_int_equal(fapp_value_cmd(&f->a, plain, SHM_OP_SETOPT, TCP_OPT_NODELAY, 1), 0);
    assert_ptr_not_equal(sock_more_at(f->a.app, plain), &sock_more_none);
    assert_int_equal(fapp_connect(&f->a, plain, &f->b.node->addr, PORT), 0);
    assert_ptr_equal(sock_more_at(f->a.app, plain), &sock_more_none); /* it is the connection's now */
    fapp_close(&f->a, tuned, false);
    net_until(&f->net, sock_at(f->a.app, tuned) == NULL);
    again = fapp_open(&f->a);
    assert_ptr_equal(sock_at(f->a.app, again), sk);
    assert_ptr_equal(sock_more_at(f->a.app, again), &sock_more_none);
    assert_memory_equal(&s->more[sock_index(s, sk)], &sock_more_none, sizeof(sock_more_none));
}

/* MSG_EOR: bytes of two records never share a segment, though the stack takes both at once. */
static void
records_have_segments_of_their_own(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    const struct shm_info *info = (const struct shm_info *)(f->a.back + f->a.layout.back_info_off);
    const struct shm_cmd ask = { .op = SHM_OP_INFO };
    uint64_t segs[2];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_NODELAY, 1), 0);
    for (unsigned records = 0; records < 2; records++) {
        struct shm_front_sock *front = fapp_front(&f->a, client);

        assert_int_equal(fapp_cmd(&f->a, client, ask), 0);
        segs[records] = info->segs_out;
        front->tx_flags = records ? SHM_TX_EOR : 0;
        fapp_more(&f->a, client)->tx_eor = front->tx_tail + 300;
        assert_int_equal(fapp_send(&f->a, client, "", 0), 0);
        for (unsigned i = 0; i < 2; i++) {
            uint8_t buf[300] = { 0 };

            assert_int_equal(fapp_send(&f->a, client, buf, sizeof(buf)), sizeof(buf));
        }
        net_run(&f->net, 100000);
        assert_int_equal(fapp_cmd(&f->a, client, ask), 0);
        assert_int_equal(info->segs_out - segs[records], 1 + records);
    }
}

/* When a byte left, and when its acknowledgement came; told once, as long as somebody reads it. */
static void
stamps_tell_when(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;
    uint8_t buf[300] = { 0 };

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    struct shm_front_sock *front = fapp_front(&f->a, client);
    struct shm_front_more *more = fapp_more(&f->a, client);
    const struct shm_back_more *b = (const struct shm_back_more *)(f->a.back + f->a.layout.back_more_off) + client;
    assert_int_equal(fapp_send(&f->a, client, buf, sizeof(buf)), sizeof(buf));
    net_run(&f->net, 100000);
    assert_int_equal(b->stamp_tail, 0);
    front->tx_flags = SHM_TX_STAMPS;
    more->tx_stamp = front->tx_tail + 300;
    uint64_t sent_us = f->net.now_us;
    assert_int_equal(fapp_send(&f->a, client, buf, sizeof(buf)), sizeof(buf));
    net_until(&f->net, b->stamp_tail == 2);
    net_until(&f->net, b->stamp_tail == 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(b->stamp[i].kind, SHM_TX_STAMP_SCHED << i);
        assert_int_equal(b->stamp[i].pos, 599);
    }
    assert_in_range(b->stamp[0].at_us, sent_us, sent_us + 1000);
    assert_int_equal(b->stamp[1].at_us, b->stamp[0].at_us);
    assert_in_range(b->stamp[2].at_us, b->stamp[1].at_us + 1, f->net.now_us);
    /* The flag stands still; these bytes are others. */
    assert_int_equal(fapp_send(&f->a, client, buf, sizeof(buf)), sizeof(buf));
    net_run(&f->net, 100000);
    assert_int_equal(b->stamp_tail, 3);
    /* Nobody reads, and then somebody does. */
    for (unsigned i = 0; i < 20; i++) {
        more->tx_stamp = front->tx_tail + 300;
        assert_int_equal(fapp_send(&f->a, client, buf, sizeof(buf)), sizeof(buf));
        net_run(&f->net, 100000);
        fapp_recv(&f->b, server, buf, sizeof(buf));
    }
    assert_int_equal(b->stamp_tail, SHM_STAMPS);
    assert_int_equal(pair_counter(&f->a, CTR_SOCK_STAMPS_LOST), 63 - SHM_STAMPS);
    more->stamp_head = SHM_STAMPS;
    more->tx_stamp = front->tx_tail + 300;
    assert_int_equal(fapp_send(&f->a, client, buf, sizeof(buf)), sizeof(buf));
    net_run(&f->net, 100000);
    assert_int_equal(b->stamp_tail, SHM_STAMPS + 3);
}

static void
low_ports_are_privileged(void **state)
{
    struct pair *f = *state;
    uint32_t slot = fapp_open(&f->a);

    f->a.app->privileged = false;
    assert_int_equal(fapp_bind(&f->a, slot, &f->a.node->addr, 1), -EACCES);
    assert_int_equal(fapp_bind(&f->a, slot, &f->a.node->addr, 1023), -EACCES);
    assert_int_equal(fapp_bind(&f->a, slot, &f->a.node->addr, 1024), 0);
    slot = fapp_open(&f->a);
    assert_int_equal(fapp_bind(&f->a, slot, &f->a.node->addr, 0), 0);
    f->a.app->privileged = true;
    slot = fapp_open(&f->a);
    assert_int_equal(fapp_bind(&f->a, slot, &f->a.node->addr, 1023), 0);
}

/* What found no train is counted, and so is the end of the stream behind it; all of it comes as trains are taken. */
static void
arrivals_beyond_the_trains(void **state)
{
    struct pair *f = *state;
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
    net_until(&f->net, pair_status(&f->b, server) & SHM_ST_FIN);
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
    struct pair *f = *state;
    uint32_t client, listener, server;
    uint8_t buf[10];

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SHUTDOWN, 0, SHUT_RD), 0);
    assert_int_equal(fapp_send(&f->a, client, "abc", 3), 3);
    net_run(&f->net, 100000);
    assert_int_equal(fapp_recv(&f->b, server, buf, sizeof(buf)), 3);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SHUTDOWN, 0, SHUT_WR), 0);
    net_until(&f->net, pair_status(&f->a, client) & SHM_ST_FIN);
    assert_int_equal(fapp_send(&f->a, client, "abc", 3), 3);
    net_until(&f->net, pair_status(&f->a, client) & SHM_ST_ERROR);
    assert_int_equal(fapp_back(&f->a, client)->error, EPIPE);
    assert_int_equal(fapp_back(&f->b, server)->error, ECONNRESET);
}

static void
reset_is_not_lost_to_a_close(void **state)
{
    struct pair *f = *state;
    uint32_t client, listener, server;

    fapp_pair(&f->a, &f->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&f->b, server, SHM_OP_SHUTDOWN, 0, SHUT_RDWR), 0);
    net_until(&f->net, pair_status(&f->a, client) & SHM_ST_FIN);
    assert_int_equal(fapp_send(&f->a, client, "abc", 3), 3);
    node_poll(f->a.node);
    /* The next pass of node 1 takes the segment first, then the command. */
    fapp_front(&f->b, server)->cmd[fapp_front(&f->b, server)->cmd_head % SHM_CMDS] =
        (struct shm_cmd){ .op = SHM_OP_CLOSE, .member = f->b.member };
    shm_store(&fapp_front(&f->b, server)->cmd_head, fapp_front(&f->b, server)->cmd_head + 1);
    fapp_notify(&f->b, server);
    net_until(&f->net, pair_status(&f->a, client) & SHM_ST_ERROR);
}

static const struct shm_info *
info_of(struct fapp *fa, uint32_t slot)
{
    assert_int_equal(fapp_cmd(fa, slot, (struct shm_cmd){ .op = SHM_OP_INFO, .slot = 1 }), 0);
    return (const struct shm_info *)(fa->back + fa->layout.back_info_off) + 1;
}

/* TCP_FASTOPEN_KEY: kept as it was set, before a listener and of one; what an application writes there is bounded. */
static void
fastopen_keys_are_told(void **state)
{
    struct pair *f = *state;
    struct shm_key key = { .kind = SHM_KEY_FASTOPEN, .n_bytes = 32, .bytes = "0123456789abcdef and a second one" };
    uint32_t listener = fapp_open(&f->b);

    assert_int_equal(info_of(&f->b, listener)->nb_fastopen_keys, 0);
    assert_int_equal(fapp_key(&f->b, listener, &key), 0);
    assert_int_equal(info_of(&f->b, listener)->nb_fastopen_keys, 2);
    assert_memory_equal(info_of(&f->b, listener)->fastopen_keys, key.bytes, 32);
    key.n_bytes = 17;
    assert_int_equal(fapp_key(&f->b, listener, &key), -EINVAL);
    assert_int_equal(fapp_bind(&f->b, listener, &f->b.node->addr, PORT), 0);
    assert_int_equal(fapp_listen(&f->b, listener, 5), 0);
    key.n_bytes = 16;
    key.bytes[0] = 'x';
    assert_int_equal(fapp_key(&f->b, listener, &key), 0);
    assert_int_equal(info_of(&f->b, listener)->nb_fastopen_keys, 1);
    assert_memory_equal(info_of(&f->b, listener)->fastopen_keys, key.bytes, 16);
    key.kind = 3;
    assert_int_equal(fapp_key(&f->b, listener, &key), -ENOPROTOOPT);
    key = (struct shm_key){ .kind = SHM_KEY_MD5, .n_bytes = 81 };
    assert_int_equal(fapp_key(&f->b, listener, &key), -EINVAL);
    key = (struct shm_key){ .kind = SHM_KEY_MD5, .n_bytes = 1, .prefix_len = 129 };
    assert_int_equal(fapp_key(&f->b, listener, &key), -EINVAL);
    assert_int_equal(fapp_cmd(&f->b, listener, (struct shm_cmd){ .op = SHM_OP_SETKEY, .slot = SHM_INFO_SLOTS }),
                     -EINVAL);
}

/* Keys are the socket's: a second attempt to connect has them as the first. */
static void
keys_outlive_an_attempt(void **state)
{
    struct pair *f = *state;
    const struct ip_addr *b = &f->b.node->addr;
    uint32_t client = fapp_open(&f->a), listener = fapp_open(&f->b), server;

    assert_int_equal(fapp_md5_key(&f->a, client, b, ""), -ENOENT);
    assert_int_equal(fapp_md5_key(&f->a, client, b, "mustard"), 0);
    assert_int_equal(fapp_md5_key(&f->a, client, b, "sesame"), 0);
    assert_int_equal(fapp_value_cmd(&f->a, client, SHM_OP_SETOPT, TCP_OPT_SYNCNT, 1), 0);
    assert_int_equal(fapp_connect(&f->a, client, b, PORT), 0);
    net_until(&f->net, pair_status(&f->a, client) & SHM_ST_ERROR);
    assert_int_equal(fapp_md5_key(&f->b, listener, &f->a.node->addr, "sesame"), 0);
    assert_int_equal(fapp_bind(&f->b, listener, b, PORT), 0);
    assert_int_equal(fapp_listen(&f->b, listener, 5), 0);
    assert_int_equal(fapp_connect(&f->a, client, b, PORT), 0);
    net_until(&f->net, fapp_accept(&f->b, listener, &server) == 0);
    pair_transfer(&f->net, &f->a, client, &f->b, server, 300000);
    assert_int_equal(fapp_close(&f->a, client, false), 0);
    assert_int_equal(fapp_close(&f->b, server, false), 0);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, pair_setup, pair_teardown)
    const struct CMUnitTest tests[] = {
        T(stamps_tell_when),
        T(options_and_info),
        T(congestion_by_name),
        T(fastopen_keys_are_told),
        T(keys_outlive_an_attempt),
        T(rcvlowat_keeps_a_train),
        T(rcvlowat_gives_in_to_the_window),
        T(options_are_handed_down),
        T(a_socket_has_no_more_than_was_set),
        T(records_have_segments_of_their_own),
        T(low_ports_are_privileged),
        T(arrivals_beyond_the_trains),
        T(shutdown_of_reading),
        T(reset_is_not_lost_to_a_close),
    };

    return net_eal_start() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
