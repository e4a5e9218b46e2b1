/* SPDX-License-Identifier: BSD-3-Clause */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/**
 * @file
 * One table of scenarios under every mode, with 1, 2 and 4 workers. Both hosts run the mode; their workers are polled by hand, in an order that a seed
 * draws anew for each pass, on a virtual clock.
 */

#define CONNS 24u
#define FILLER 1000000u /* a user that no socket is */

/* ---- helpers ---------------------------------------------------------------------------------------------------------------------- */

static uint32_t
waiting(const struct fapp *fa, const uint32_t *listeners, unsigned n)
{
    uint32_t sum = 0;

    for (unsigned l = 0; l < n; l++)
        sum += shm_load(&fapp_back(fa, listeners[l])->accept_ready);
    return sum;
}

/* Accept n connections and sort them so that server[i] is the other end of client[i]. */
static void
accept_all(struct world *w, const uint32_t *listeners, unsigned nb_listeners, const uint32_t *client, uint32_t *server,
           unsigned n, unsigned *share)
{
    unsigned found = 0;

    for (unsigned l = 0; l < nb_listeners; l++) {
        uint32_t child;

        share[l] = 0;
        while (fapp_accept(&w->b, listeners[l], &child) == 0) {
            unsigned i = 0;

            while (i < n && fapp_name(&w->b, child, SHM_PEER).port != local_port(&w->a, client[i]))
                i++;
            assert_true(i < n);
            server[i] = child;
            share[l]++;
            found++;
        }
    }
    assert_int_equal(found, n);
}

/* ---- scenarios --------------------------------------------------------------------------------------------------------------------- */

static void
connects_and_closes(struct world *w)
{
    uint32_t client, listener, server, late;

    fapp_pair(&w->a, &w->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_name(&w->b, server, SHM_PEER).port, local_port(&w->a, client));
    net_run(&w->net, 1000);
    assert_int_equal(fapp_back(&w->b, listener)->accept_ready, 0);
    assert_int_equal(fapp_accept(&w->b, listener, &late), -EAGAIN);
    assert_int_equal(fapp_close(&w->a, client, false), 0);
    net_until(&w->net, status(&w->b, server) & SHM_ST_FIN);
    assert_int_equal(fapp_close(&w->b, server, false), 0);
    net_until(&w->net, status(&w->a, client) == SHM_ST_DRAINED && status(&w->b, server) == SHM_ST_DRAINED);
    /* Shot down in every domain: nobody answers, and the port is free at once. */
    assert_int_equal(fapp_close(&w->b, listener, false), 0);
    client = connect_to(&w->a, &w->b, PORT);
    assert_int_equal(fapp_back(&w->a, client)->error, ECONNREFUSED);
    listener = listen_on(&w->b, PORT, true);
    assert_true(status(&w->b, listener) & SHM_ST_LISTEN);
}

static void
transfers_both_ways(struct world *w)
{
    uint32_t client, listener, server;
    struct stream st[2];

    fapp_pair(&w->a, &w->b, PORT, &client, &listener, &server);
    st[0] = (struct stream){ .from = &w->a, .to = &w->b, .tx = client, .rx = server };
    st[1] = (struct stream){ .from = &w->b, .to = &w->a, .tx = server, .rx = client, .conn = 1 };
    transfer_all(&w->net, st, 2, 700001);
}

static void
half_closes(struct world *w)
{
    uint32_t client, listener, server;
    struct stream st;

    fapp_pair(&w->a, &w->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_value_cmd(&w->a, client, SHM_OP_SHUTDOWN, 0, 1 /* SHUT_WR */), 0);
    net_until(&w->net, status(&w->b, server) & SHM_ST_FIN);
    st = (struct stream){ .from = &w->b, .to = &w->a, .tx = server, .rx = client };
    transfer_all(&w->net, &st, 1, 100003);
    assert_int_equal(fapp_close(&w->b, server, false), 0);
    net_until(&w->net, status(&w->a, client) & SHM_ST_FIN);
    assert_int_equal(status(&w->a, client) & SHM_ST_ERROR, 0);
}

/* CONNS connections, accepted, and what goes both ways on them. */
static void
connect_all(struct world *w, const uint32_t *listeners, unsigned nb_listeners, uint32_t *client, uint32_t *server,
            struct stream *st, unsigned *share)
{
    for (unsigned i = 0; i < CONNS; i++)
        client[i] = connect_to(&w->a, &w->b, PORT);
    net_until(&w->net, waiting(&w->b, listeners, nb_listeners) == CONNS);
    accept_all(w, listeners, nb_listeners, client, server, CONNS, share);
    for (unsigned i = 0; i < CONNS; i++) {
        st[2 * i] = (struct stream){ .from = &w->a, .to = &w->b, .tx = client[i], .rx = server[i], .conn = i };
        st[2 * i + 1] =
            (struct stream){ .from = &w->b, .to = &w->a, .tx = server[i], .rx = client[i], .conn = CONNS + i };
    }
}

static void
many(struct world *w, unsigned nb_listeners, uint32_t bytes)
{
    uint32_t listeners[4], client[CONNS], server[CONNS];
    struct stream st[2 * CONNS];
    unsigned share[4];

    for (unsigned l = 0; l < nb_listeners; l++)
        listeners[l] = listen_on(&w->b, PORT, nb_listeners > 1);
    connect_all(w, listeners, nb_listeners, client, server, st, share);
    for (unsigned l = 0; l < nb_listeners; l++)
        assert_true(share[l] > 0);
    transfer_all(&w->net, st, 2 * CONNS, bytes);
    for (unsigned i = 0; i < CONNS; i++) {
        assert_int_equal(fapp_close(&w->a, client[i], false), 0);
        net_until(&w->net, status(&w->b, server[i]) & SHM_ST_FIN);
        assert_int_equal(fapp_close(&w->b, server[i], false), 0);
    }
}

static void
many_connections(struct world *w)
{
    many(w, 1, 30011);
}

static void
listeners_share_a_port(struct world *w)
{
    many(w, 3, 1009);
}

static void
ports_are_taken_in_every_domain(struct world *w)
{
    const struct ip_addr any = ip_addr_v4(0);
    uint32_t first = fapp_open(&w->b), second = fapp_open(&w->b), client = fapp_open(&w->a), listener;

    assert_int_equal(fapp_bind(&w->b, first, &any, PORT), 0);
    assert_int_equal(fapp_bind(&w->b, second, &any, PORT), -EADDRINUSE);
    assert_int_equal(fapp_close(&w->b, first, false), 0);
    assert_int_equal(fapp_bind(&w->b, second, &any, PORT), 0);
    assert_int_equal(fapp_listen(&w->b, second, 8), 0);
    /* A port that was bound before decides the domain: the socket moves there. */
    for (uint16_t port = 5000; port < 5008; port++) {
        client = fapp_open(&w->a);
        assert_int_equal(fapp_bind(&w->a, client, &any, port), 0);
        assert_int_equal(fapp_connect(&w->a, client, &w->b.node->addr, PORT), 0);
        net_until(&w->net, status(&w->a, client) & SHM_ST_CONNECTED);
        assert_int_equal(local_port(&w->a, client), port);
        net_until(&w->net, shm_load(&fapp_back(&w->b, second)->accept_ready) == 1);
        assert_int_equal(fapp_accept(&w->b, second, &first), 0);
        net_run(&w->net, 1000);
        assert_int_equal(fapp_close(&w->a, client, true), 0);
        net_until(&w->net, status(&w->b, first) & SHM_ST_ERROR);
    }
    listener = fapp_open(&w->b);
    assert_int_equal(fapp_bind(&w->b, listener, &any, 0), 0);
    assert_int_not_equal(local_port(&w->b, listener), 0);
}

/* Each domain has few ports whose answers come to it: a connection is opened where one is left. */
static void
ports_run_out_at_last(struct world *w)
{
    uint32_t listener = listen_on(&w->b, PORT, false), client[8], child;
    uint16_t seen = 0;

    for (unsigned i = 0; i < RTE_DIM(client); i++) {
        client[i] = connect_to(&w->a, &w->b, PORT);
        assert_true(status(&w->a, client[i]) & SHM_ST_CONNECTED);
        seen |= (uint16_t)(1u << (local_port(&w->a, client[i]) - 32768));
        net_until(&w->net, shm_load(&fapp_back(&w->b, listener)->accept_ready) == 1);
        assert_int_equal(fapp_accept(&w->b, listener, &child), 0);
        net_run(&w->net, 1000);
    }
    assert_int_equal(seen, 0xff);
    child = fapp_open(&w->a);
    assert_int_equal(fapp_connect(&w->a, child, &w->b.node->addr, PORT), -EADDRNOTAVAIL);
    /* The socket lives on, wherever it has come to. */
    assert_int_equal(fapp_close(&w->a, client[3], true), 0);
    net_run(&w->net, 1000);
    assert_int_equal(fapp_connect(&w->a, child, &w->b.node->addr, PORT), 0);
    net_until(&w->net, status(&w->a, child) & SHM_ST_CONNECTED);
}

/* What concerns every domain goes by messages, or by one lock after the other: no worker ever waits for all others. */
static void
nobody_stops_the_world(struct world *w)
{
    const struct ip_addr any = ip_addr_v4(0);
    uint64_t before = counted(w, 1, CTR_WORKER_STOPS);
    uint32_t listener = listen_on(&w->b, PORT, false), bound = fapp_open(&w->b);

    assert_int_equal(fapp_listen(&w->b, listener, 7), 0);
    assert_int_equal(fapp_value_cmd(&w->b, listener, SHM_OP_SETOPT, TCP_OPT_NODELAY, 1), 0);
    assert_int_equal(fapp_bind(&w->b, bound, &any, 0), 0);
    assert_int_equal(fapp_close(&w->b, bound, false), 0);
    bound = fapp_open(&w->b);
    assert_int_equal(fapp_listen(&w->b, bound, 3), 0); /* chooses a port */
    assert_true(local_port(&w->b, bound) >= 32768);
    /* shutdown ends the listening, everywhere. */
    assert_int_equal(fapp_value_cmd(&w->b, listener, SHM_OP_SHUTDOWN, 0, 0 /* SHUT_RD */), 0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(fapp_back(&w->a, connect_to(&w->a, &w->b, PORT))->error, ECONNREFUSED);
    assert_int_equal(fapp_close(&w->b, listener, false), 0);
    assert_int_equal(fapp_close(&w->b, bound, false), 0);
    assert_int_equal(counted(w, 1, CTR_WORKER_STOPS), before);
}

/* The last domain is full: what the others have done already is undone. */
static void
one_domain_refuses(struct world *w)
{
    const struct ip_addr any = ip_addr_v4(0);
    struct host *h = w->net.node[1].host;
    struct stack *last = host_stack(h, host_nb_stacks(h) - 1);
    uint32_t bound = fapp_open(&w->b), listener = fapp_open(&w->b);
    struct tcp_domain *d = last->tcp;
    uint16_t port, nb_binds = 0;
    tcp_id ids[256];
    unsigned n = 0;

    assert_int_equal(fapp_bind(&w->b, listener, &any, PORT + 1), 0);
    while (tcp_listen(d, &last->env, &any, (uint16_t)(20000 + n), 1, NULL, 0, &ids[n]) == 0)
        n++;
    assert_int_equal(fapp_listen(&w->b, listener, 8), -ENOMEM);
    while (tcp_bind(d, &any, (uint16_t)(10000 + nb_binds), NULL, FILLER, &port) == 0)
        nb_binds++;
    assert_int_equal(fapp_bind(&w->b, bound, &any, PORT), -ENOMEM);
    while (n > 0)
        tcp_close(d, &last->env, ids[--n], false);
    while (nb_binds > 0)
        tcp_unbind(d, &any, (uint16_t)(10000 + --nb_binds), FILLER);
    assert_int_equal(fapp_bind(&w->b, bound, &any, PORT), 0);
    assert_int_equal(fapp_close(&w->b, listener, false), 0);
    listener = listen_on(&w->b, PORT + 1, false);
    assert_int_equal(status(&w->b, listener) & SHM_ST_GONE, 0);
}

static void
aborts(struct world *w)
{
    uint32_t client, listener, server, unaccepted;

    fapp_pair(&w->a, &w->b, PORT, &client, &listener, &server);
    assert_int_equal(fapp_close(&w->a, client, true), 0);
    net_until(&w->net, status(&w->b, server) & SHM_ST_ERROR);
    assert_int_equal(fapp_back(&w->b, server)->error, ECONNRESET);
    /* One that nobody accepted is reset with its listener. */
    unaccepted = connect_to(&w->a, &w->b, PORT);
    net_until(&w->net, shm_load(&fapp_back(&w->b, listener)->accept_ready) == 1);
    assert_int_equal(fapp_close(&w->b, listener, false), 0);
    net_until(&w->net, status(&w->a, unaccepted) & SHM_ST_ERROR);
}

static void
peer_dies(struct world *w)
{
    struct fapp mortal;
    uint32_t client, listener, server;

    fapp_attach(&mortal, &w->net.node[1]);
    fapp_pair(&w->a, &mortal, PORT, &client, &listener, &server);
    fapp_leave(&mortal, mortal.member);
    net_until(&w->net, status(&w->a, client) & (SHM_ST_FIN | SHM_ST_ERROR));
    net_until(&w->net, w->net.node[1].host->nb_apps == 1);
    /* Its listener is gone too, in every domain. */
    client = connect_to(&w->a, &w->b, PORT);
    assert_int_equal(fapp_back(&w->a, client)->error, ECONNREFUSED);
}

static void
repairs_losses(struct world *w)
{
    many(w, 1, 30011);
}

static uint32_t
round_trip_us(struct fapp *fa, uint32_t slot)
{
    const struct shm_info *info = (const struct shm_info *)(fa->back + fa->layout.back_info_off);

    assert_int_equal(fapp_cmd(fa, slot, (struct shm_cmd){ .op = SHM_OP_INFO }), 0);
    return info->srtt_us;
}

/* What the other end of each takes to answer is not longer than the workers are late, by far. */
static void
late_looks_at_the_clock(struct world *w)
{
    uint32_t listener = listen_on(&w->b, PORT, false), client[CONNS], server[CONNS];
    struct stream st[2 * CONNS];
    unsigned share[1];

    connect_all(w, &listener, 1, client, server, st, share);
    transfer_all(&w->net, st, 2 * CONNS, 30011);
    for (unsigned i = 0; i < CONNS; i++) {
        assert_true(round_trip_us(&w->a, client[i]) < 1000000);
        assert_true(round_trip_us(&w->b, server[i]) < 1000000);
    }
}

/*
 * TCP_MD5SIG: of a listener that is in every domain, whichever a connection comes to, and of those that connect, from whichever. Who has no key hears nothing. Replicas have none.
 */
static void
signs_every_segment(struct world *w)
{
    uint32_t listener = fapp_open(&w->b), stranger = fapp_open(&w->a), client[CONNS], server[CONNS];
    const struct ip_addr *a = &w->a.node->addr, *b = &w->b.node->addr;
    bool refused = strncmp(run.text, "misd", 4) == 0;
    struct stream st[2 * CONNS];
    unsigned share[1];

    assert_int_equal(fapp_md5_key(&w->b, listener, a, "before bind"), refused ? -EOPNOTSUPP : 0);
    if (refused)
        return;
    assert_int_equal(fapp_bind(&w->b, listener, b, PORT), 0);
    assert_int_equal(fapp_md5_key(&w->b, listener, b, "for nobody"), 0);
    assert_int_equal(fapp_listen(&w->b, listener, 2 * CONNS), 0);
    assert_int_equal(fapp_md5_key(&w->b, listener, a, "sesame"), 0);
    assert_int_equal(fapp_md5_key(&w->b, listener, b, ""), 0);
    assert_int_equal(fapp_md5_key(&w->b, listener, b, ""), -ENOENT);
    assert_int_equal(fapp_connect(&w->a, stranger, b, PORT), 0);
    for (unsigned i = 0; i < CONNS; i++) {
        client[i] = fapp_open(&w->a);
        assert_int_equal(fapp_md5_key(&w->a, client[i], b, "sesame"), 0);
        assert_int_equal(fapp_connect(&w->a, client[i], b, PORT), 0);
    }
    for (unsigned i = 0; i < CONNS; i++)
        net_until(&w->net, status(&w->a, client[i]) & SHM_ST_CONNECTED);
    net_until(&w->net, waiting(&w->b, &listener, 1) == CONNS);
    accept_all(w, &listener, 1, client, server, CONNS, share);
    for (unsigned i = 0; i < CONNS; i++) {
        st[2 * i] = (struct stream){ .from = &w->a, .to = &w->b, .tx = client[i], .rx = server[i], .conn = 2 * i };
        st[2 * i + 1] =
            (struct stream){ .from = &w->b, .to = &w->a, .tx = server[i], .rx = client[i], .conn = 2 * i + 1 };
    }
    transfer_all(&w->net, st, 2 * CONNS, 60013);
    /* Of an accepted connection, the one that its listener had for it. */
    assert_int_equal(fapp_md5_key(&w->b, server[0], a, ""), 0);
    assert_int_equal(fapp_md5_key(&w->b, server[0], a, ""), -ENOENT);
    assert_true(counted(w, 1, CTR_TCP_DROP_MD5_MISSING) > 0);
    assert_int_equal(counted(w, 1, CTR_TCP_DROP_MD5_WRONG), 0);
    assert_int_equal(status(&w->a, stranger) & (SHM_ST_CONNECTED | SHM_ST_ERROR), 0);
}

/* Nobody speaks for a minute; then all do again, and miss nothing. Where a domain is entered by several threads at once nobody parks. */
static void
silent_connections_park(struct world *w)
{
    uint32_t listener = listen_on(&w->b, PORT, false), client[CONNS], server[CONNS];
    bool parks = strncmp(run.text, "msgp", 4) != 0;
    struct stream st[2 * CONNS];
    unsigned share;

    connect_all(w, &listener, 1, client, server, st, &share);
    for (unsigned round = 1; round <= 2; round++) {
        transfer_all(&w->net, st, 2 * CONNS, 3000 * round);
        for (unsigned ms = 0; ms < 60000; ms += 20)
            net_step(&w->net, 20000);
        for (unsigned node = 0; node < 2; node++)
            assert_int_equal(counted(w, node, CTR_TCP_PARKED), parks ? round * CONNS : 0);
    }
    transfer_all(&w->net, st, 2 * CONNS, 9000);
    for (unsigned i = 0; i < CONNS; i++) {
        assert_int_equal(fapp_close(&w->a, client[i], false), 0);
        assert_int_equal(fapp_close(&w->b, server[i], false), 0);
    }
}

static const struct {
    const char *name;
    void (*fn)(struct world *w);
    uint32_t loss_ppm;
    uint16_t nb_ports;
    uint32_t late_us;
} scenarios[] = {
    { "connect and close", connects_and_closes, 0, 0, 0 },
    { "transfer both ways", transfers_both_ways, 0, 0, 0 },
    { "half close", half_closes, 0, 0, 0 },
    { "many connections", many_connections, 0, 0, 0 },
    { "SO_REUSEPORT", listeners_share_a_port, 0, 0, 0 },
    { "ports", ports_are_taken_in_every_domain, 0, 0, 0 },
    { "ports run out", ports_run_out_at_last, 0, 8, 0 },
    { "no stop", nobody_stops_the_world, 0, 0, 0 },
    { "a domain refuses", one_domain_refuses, 0, 0, 0 },
    { "abort", aborts, 0, 0, 0 },
    { "silence", silent_connections_park, 0, 0, 0 },
    { "peer death", peer_dies, 0, 0, 0 },
    { "loss", repairs_losses, 30000, 0, 0 },
    { "signatures", signs_every_segment, 0, 0, 0 },
    { "signatures and loss", signs_every_segment, 20000, 0, 0 },
    { "late clocks", late_looks_at_the_clock, 0, 0, 5000 },
};

static void
under(const char *text, unsigned nb_workers)
{
    static struct world w;

    run.text = text;
    run.nb_workers = nb_workers;
    for (unsigned i = 0; i < RTE_DIM(scenarios); i++) {
        print_message("%s, %u workers: %s\n", text, nb_workers, scenarios[i].name);
        rng_init(&run.rng, 1000 * nb_workers + i, 1);
        run.nb_ports = scenarios[i].nb_ports;
        run.late_us = scenarios[i].late_us;
        world_init(&w, scenarios[i].loss_ppm);
        scenarios[i].fn(&w);
        world_fini(&w);
    }
    run.late_us = 0;
}

static void
up(void **state)
{
    (void)state;
    under("up", 1);
}

static void
isostack(void **state)
{
    (void)state;
    under("isostack", 1);
    under("isostack,instances=2", 2);
    under("isostack,instances=4,aggregate=off,locks=on,queues=perthread", 4);
}

static void
connp_l(void **state)
{
    (void)state;
    under("connp-l", 1);
    under("connp-l,groups=16", 2);
    under("connp-l,groups=3,batch=off", 4);
    under("connp-l,groups=1", 2);
}

static void
connp_t(void **state)
{
    (void)state;
    under("connp-t", 1);
    under("connp-t", 2);
    under("connp-t", 4);
    under("connp-t,threads=3", 4);
}

static void
misd(void **state)
{
    (void)state;
    under("misd,check=on", 1);
    under("misd,check=on", 2);
    under("misd,check=on", 4);
    under("misd,check=on,channels=two", 1);
    under("misd,check=on,channels=two", 2);
    under("misd,check=on,channels=two", 4);
    under("misd,check=on,scheme=refcount,replicas=3", 4);
    under("misd,check=on,scheme=refcount,channels=two", 2);
}

static void
msgp(void **state)
{
    (void)state;
    under("msgp", 1);
    under("msgp", 2);
    under("msgp", 4);
    under("msgp,lookup=rcu", 1);
    under("msgp,lookup=rcu", 2);
    under("msgp,lookup=rcu", 4);
}

static void
hybrid(void **state)
{
    (void)state;
    under("hybrid", 1);
    under("hybrid,threshold=1", 2);
    under("hybrid,threshold=1", 4);
    under("hybrid,instances=3,threshold=1", 4);
    under("hybrid,steal=off", 2);
}

/* A mode is what its counters show: who hands over, and who locks. */
static void
counters_tell_the_modes_apart(void **state)
{
    static const struct {
        const char *text;
        bool locks, hands_over, misroutes;
    } expected[] = {
        { "connp-l,groups=16", true, false, false },
        { "connp-t", false, true, false },
        { "isostack,instances=2", false, true, true },
        { "hybrid", false, true, true },
    };
    static struct world w;

    (void)state;
    run.nb_workers = 2;
    for (unsigned i = 0; i < RTE_DIM(expected); i++) {
        char *text = NULL;
        size_t len = 0;
        FILE *out = open_memstream(&text, &len);

        run.text = expected[i].text;
        rng_init(&run.rng, i, 1);
        world_init(&w, 0);
        many(&w, 1, 1009);
        assert_int_equal(counted(&w, 1, CTR_LOCK_GROUP) > 0, expected[i].locks);
        assert_int_equal(counted(&w, 1, CTR_HANDOVER_PKTS) > 0, expected[i].hands_over);
        assert_int_equal(counted(&w, 1, CTR_MISROUTED) > 0, expected[i].misroutes);
        assert_int_equal(counted(&w, 1, CTR_HANDOVER_DROP), 0);
        run.ops->report(run.mode[1], out);
        fclose(out);
        assert_non_null(strstr(text, "workers 2\n"));
        assert_non_null(strstr(text, "worker1_busy_percent"));
        assert_int_equal(strstr(text, "group_locks_taken") != NULL, expected[i].locks);
        assert_int_equal(strstr(text, "handed_packets") != NULL, expected[i].hands_over);
        free(text);
        world_fini(&w);
    }
}

static unsigned
finished(const struct stream *st, unsigned n, uint32_t total)
{
    unsigned done = 0;

    for (unsigned i = 0; i < n; i++)
        done += st[i].got == total;
    return done;
}

/* Worker 1 of node 1 stops in the midst of transfers over a wire that loses frames. */
static void
stalls(struct world *w, const char *text, bool is_passed_over)
{
    uint32_t client[CONNS], server[CONNS], listener;
    struct stream st[2 * CONNS];
    unsigned share, done;

    run.text = text;
    run.nb_workers = 2;
    run.nb_ports = 0;
    rng_init(&run.rng, 11, 1);
    world_init(w, 20000);
    listener = listen_on(&w->b, PORT, false);
    connect_all(w, &listener, 1, client, server, st, &share);
    transfer_all(&w->net, st, 2 * CONNS, 2000);
    run.still = 1u << 1;
    for (unsigned step = 0; step < 20000 && finished(st, 2 * CONNS, 9000) < 2 * CONNS; step++) {
        for (unsigned i = 0; i < 2 * CONNS; i++)
            stream_step(&st[i], 9000);
        net_step(&w->net, 1000);
    }
    done = finished(st, 2 * CONNS, 9000);
    run.still = 0;
    assert_true(done > 0);
    assert_true(done == 2 * CONNS || !is_passed_over);
    transfer_all(&w->net, st, 2 * CONNS, 12000);
    world_fini(w);
}

/* What is its own waits for it, no byte of it is lost, and others go on; misd does without it. */
static void
a_worker_that_stops_slows_its_own_connections(void **state)
{
    static struct world w;

    (void)state;
    stalls(&w, "connp-t", false);
    stalls(&w, "isostack,instances=2", false);
    stalls(&w, "hybrid,threshold=1", false);
    stalls(&w, "connp-l,groups=16", false);
    stalls(&w, "msgp", false);
    stalls(&w, "msgp,lookup=rcu", false);
    stalls(&w, "misd,check=on,patience=500", true);
    stalls(&w, "misd,check=on,patience=500,channels=two", true);
}

/* Worker 1 arms a timer of a group whose timers worker 0 sees to, while that sleeps. */
static void
timers_wake_their_worker(void **state)
{
    static struct world w;
    uint32_t client, listener, server;
    struct epoll_event ev;
    struct net *sleeper;

    (void)state;
    run.text = "connp-l,groups=2";
    run.nb_workers = 2;
    rng_init(&run.rng, 5, 1);
    world_init(&w, 0);
    fapp_pair(&w.a, &w.b, PORT, &client, &listener, &server);
    assert_int_equal(client % 2, 0); /* born in group 0, and connects from there */
    if (fapp_front(&w.a, client)->notified % 2 == 1)
        assert_int_equal(fapp_cmd(&w.a, client, (struct shm_cmd){ .op = SHM_OP_NOP }), 0);
    net_run(&w.net, 5000000); /* until no timer is armed */
    sleeper = host_net(w.net.node[0].host, 0);
    net_doorbell_clear(sleeper);
    net_set_sleeping(sleeper, true);
    assert_int_equal(fapp_send(&w.a, client, "x", 1), 1);
    run.ops->poll(run.mode[0], 1, w.net.now_us);
    assert_int_equal(epoll_wait(net_doorbell_fd(sleeper), &ev, 1, 0), 1);
    assert_true(net_next_us(sleeper, w.net.now_us) < w.net.now_us + 2000000);
    net_set_sleeping(sleeper, false);
    world_fini(&w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(up),
        cmocka_unit_test(isostack),
        cmocka_unit_test(connp_l),
        cmocka_unit_test(connp_t),
        cmocka_unit_test(misd),
        cmocka_unit_test(msgp),
        cmocka_unit_test(hybrid),
        cmocka_unit_test(counters_tell_the_modes_apart),
        cmocka_unit_test(timers_wake_their_worker),
        cmocka_unit_test(a_worker_that_stops_slows_its_own_connections),
    };

    if (net_eal_start() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
