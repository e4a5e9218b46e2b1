/* SPDX-License-Identifier: BSD-3-Clause */
#include "replicas.h"

/**
 * @file
 * Replicated work: that all replicas serve one connection and stay equal, in every order in which workers can be polled, also when some stand
 * still for as long as they like.
 */

/* One connection, from node 0 to node 1. */
struct pair {
    struct world w;
    uint32_t client, listener, server;
    struct stream stream;
};

/* What a test has set in run besides holds from the first pass on. */
static void
pair_init(struct pair *p, const char *text, unsigned nb_workers, uint32_t loss_ppm)
{
    run.text = text;
    run.nb_workers = nb_workers;
    run.order_at = 0;
    rng_init(&run.rng, 77, nb_workers);
    world_init(&p->w, loss_ppm);
    fapp_pair(&p->w.a, &p->w.b, PORT, &p->client, &p->listener, &p->server);
    p->stream = (struct stream){ .from = &p->w.a, .to = &p->w.b, .tx = p->client, .rx = p->server };
}

static void
pair_fini(struct pair *p)
{
    run.still = 0;
    run.order_len = 0;
    run.impair = (struct impair_config){ .enabled = false };
    assert_equal_replicas(&p->w);
    world_fini(&p->w);
}

/* n_bytes more from the client to the server. */
static void
transfer(struct pair *p, uint32_t n_bytes)
{
    transfer_all(&p->w.net, &p->stream, 1, p->stream.sent + n_bytes);
}

/* ---- one connection, all replicas ---------------------------------------------------------------------------------------- */

static void
every_replica_serves_the_connection(void **state)
{
    static const char *const texts[] = { "misd,check=on", "misd,check=on,channels=two", "misd,scheme=refcount,check=on",
                                         "misd,scheme=refcount,channels=two,check=on" };
    static struct pair p;

    (void)state;
    for (unsigned t = 0; t < RTE_DIM(texts); t++) {
        const struct misd *x;
        uint64_t primaries = 0;

        pair_init(&p, texts[t], 3, 0);
        transfer(&p, 3000000);
        assert_equal_replicas(&p.w);
        x = misd_of(1);
        for (unsigned i = 0; i < x->nb_replicas; i++) {
            uint64_t own = net_queue(x->replica[i]->net)->ctr->v[CTR_MISD_PRIMARY];

            assert_true(own > x->posted / 20);
            primaries += own;
            assert_int_equal(net_queue(x->replica[i]->net)->ctr->v[CTR_MISD_APPLIED], x->replica[i]->applied);
        }
        /* Each event has exactly one primary, and nothing was sent twice or not at all. */
        assert_int_equal(primaries, x->replica[0]->applied);
        assert_true(counted(&p.w, 1, CTR_MISD_CHECKS) > 3);
        for (unsigned node = 0; node < 2; node++) {
            assert_int_equal(counted(&p.w, node, CTR_TCP_RETRANS_SEGS), 0);
            assert_int_equal(counted(&p.w, node, CTR_TCP_DUP_SEGS), 0);
        }
        pair_fini(&p);
    }
}

/* ---- standing still --------------------------------------------------------------------------------------------------------- */

static void
a_replica_that_stands_still_is_passed_over(void **state)
{
    static const char *const texts[] = { "misd,check=on,patience=2000", "misd,check=on,patience=2000,channels=two" };
    static struct pair p;

    (void)state;
    for (unsigned t = 0; t < RTE_DIM(texts); t++) {
        const struct misd *x;
        uint64_t primary;

        pair_init(&p, texts[t], 3, 0);
        x = misd_of(1);
        run.still = 1u << 2;
        transfer(&p, 8000000);
        assert_true(misd_is_out(&x->channels, 2));
        assert_int_equal(counted(&p.w, 1, CTR_MISD_ROLLED_FORWARD), 0);
        run.still = 0;
        net_until(&p.w.net, !misd_is_out(&x->channels, 2) && replicas_are_level(1));
        assert_int_equal(counted(&p.w, 1, CTR_MISD_ROLLED_FORWARD), 1);
        assert_equal_replicas(&p.w);
        /* And it works again. */
        primary = net_queue(x->replica[2]->net)->ctr->v[CTR_MISD_PRIMARY];
        transfer(&p, 500000);
        assert_true(net_queue(x->replica[2]->net)->ctr->v[CTR_MISD_PRIMARY] > primary);
        pair_fini(&p);
    }
}

/* Each checksum is computed once where nobody stands still. */
static void
checksums_are_verified_by_whoever_is_first(void **state)
{
    static const char *const texts[] = { "misd,check=on", "misd,check=on,channels=two" };
    static struct pair p;

    (void)state;
    for (unsigned t = 0; t < RTE_DIM(texts); t++) {
        uint64_t verified, received, bad;

        run.impair = (struct impair_config){ .enabled = true, .corrupt_ppm = 20000 };
        pair_init(&p, texts[t], 3, 0);
        transfer(&p, 2000000);
        assert_equal_replicas(&p.w);
        verified = counted(&p.w, 1, CTR_MISD_VERIFIED);
        bad = counted(&p.w, 1, CTR_TCP_DROP_CHECKSUM);
        received = counted(&p.w, 1, CTR_TCP_RX_SEGS) + bad;
        assert_true(bad > 10);
        /* Segments in several buffers, if there are any, are verified by the front. */
        assert_true(verified <= received && verified > received / 10 * 9);
        for (unsigned i = 0; i < misd_of(1)->nb_replicas; i++)
            assert_true(net_queue(misd_of(1)->replica[i]->net)->ctr->v[CTR_MISD_VERIFIED] > verified / 20);
        pair_fini(&p);
    }
}

/* A worker that stops right behind its claim neither verifies nor sends: others verify, and TCP sends again. */
static void
a_claim_is_not_waited_for_forever(void **state)
{
    static struct misd_event stolen[MISD_BURST];
    static struct pair p;
    const struct misd *x;
    uint64_t primary;
    unsigned claims = 0;

    (void)state;
    run.still = 1u << 1;
    pair_init(&p, "misd,check=on,patience=2000", 2, 0);
    x = misd_of(1);
    while (claims < 20) {
        stream_step(&p.stream, 300000);
        net_step(&p.w.net, 1000);
        if (bcast_dequeue(x->channels.b[MISD_CALLS], 1, stolen, &primary, MISD_BURST) > 0)
            claims += (unsigned)__builtin_popcountll(primary);
    }
    transfer(&p, 8000000);
    assert_true(misd_is_out(&x->channels, 1));
    run.still = 0;
    net_until(&p.w.net, replicas_are_level(1));
    assert_int_equal(counted(&p.w, 1, CTR_MISD_ROLLED_FORWARD), 1);
    pair_fini(&p);
}

/* Worker 0 is the front as long as it runs. */
static void
another_worker_becomes_the_front(void **state)
{
    static struct pair p;
    const struct misd *x;

    (void)state;
    run.still = 1u << 0;
    pair_init(&p, "misd,check=on,patience=2000", 2, 0);
    x = misd_of(1);
    assert_int_equal(x->front, 1);
    transfer(&p, 8000000);
    assert_true(misd_is_out(&x->channels, 0));
    run.still = 0;
    transfer(&p, 500000);
    net_until(&p.w.net, x->front == 0);
    assert_int_equal(fapp_close(&p.w.a, p.client, false), 0);
    net_until(&p.w.net, status(&p.w.b, p.server) & SHM_ST_FIN);
    pair_fini(&p);
}

/* In turn, at random, for random times; with losses. */
static void
stress(const char *text, unsigned nb_workers)
{
    static struct pair p;
    struct rng rng;

    pair_init(&p, text, nb_workers, 20000);
    rng_init(&rng, 5, nb_workers);
    for (unsigned i = 0; i < 40; i++) {
        /* Somebody runs always. */
        run.still = rng_below(&rng, (1u << nb_workers) - 1);
        transfer(&p, 1 + rng_below(&rng, 150000));
    }
    pair_fini(&p);
}

static void
stress_ends_with_equal_replicas(void **state)
{
    (void)state;
    stress("misd,check=on,patience=500", 2);
    stress("misd,check=on,patience=500", 4);
    stress("misd,check=on,patience=500,channels=two", 2);
    stress("misd,check=on,patience=500,channels=two", 4);
}

/* ---- every order -------------------------------------------------------------------------------------------------------------- */

/* Workers of node 1 are polled one at a time in this order, while a connection opens and closes and bytes go both ways. */
static void
in_order(const char *text, unsigned nb_workers, const uint8_t *order, unsigned n)
{
    static struct pair p;
    char buf[16];

    run.order = order;
    run.order_len = n;
    pair_init(&p, text, nb_workers, 0);
    run.order_at = 0;
    assert_int_equal(fapp_send(&p.w.b, p.server, "0123456789", 10), 10);
    net_run(&p.w.net, 100);
    assert_int_equal(fapp_send(&p.w.a, p.client, "abc", 3), 3);
    net_until(&p.w.net, shm_load(&fapp_back(&p.w.a, p.client)->rx_tail) == 10);
    assert_int_equal(fapp_recv(&p.w.a, p.client, buf, sizeof(buf)), 10);
    assert_memory_equal(buf, "0123456789", 10);
    net_until(&p.w.net, shm_load(&fapp_back(&p.w.b, p.server)->rx_tail) == 3);
    assert_int_equal(fapp_recv(&p.w.b, p.server, buf, sizeof(buf)), 3);
    assert_memory_equal(buf, "abc", 3);
    run.order_at = 0;
    assert_int_equal(fapp_close(&p.w.b, p.server, false), 0);
    net_until(&p.w.net, status(&p.w.a, p.client) & SHM_ST_FIN);
    assert_int_equal(counted(&p.w, 0, CTR_TCP_DUP_SEGS), 0);
    pair_fini(&p);
}

static void
search(const char *text, unsigned nb_workers, unsigned length)
{
    uint8_t order[16] = { 0 };
    unsigned i;

    do {
        in_order(text, nb_workers, order, length);
        for (i = 0; i < length && ++order[i] == nb_workers; i++)
            order[i] = 0;
    } while (i < length);
}

static void
every_short_order_is_the_same(void **state)
{
    (void)state;
    search("misd", 2, 6);
    search("misd,channels=two", 2, 6);
    search("misd,channels=two", 3, 4);
    search("misd,scheme=refcount,channels=two", 2, 4);
}

/* ---- comparison --------------------------------------------------------------------------------------------------------------- */

static void
a_difference_is_found(void **state)
{
    static struct pair p;
    struct misd *x;

    (void)state;
    pair_init(&p, "misd,check=on", 2, 0);
    x = misd_of(1);
    assert_equal_replicas(&p.w);
    /* In the arena's length, which no event reads. */
    ((uint8_t *)x->replica[1]->domain)[sizeof(uint64_t)] ^= 1;
    transfer(&p, 3000000);
    assert_true(counted(&p.w, 1, CTR_MISD_MISMATCHES) > 0);
    ((uint8_t *)x->replica[1]->domain)[sizeof(uint64_t)] ^= 1;
    for (unsigned i = 0; i < host_nb_nets(x->host); i++)
        host_net(x->host, i)->ctr->v[CTR_MISD_MISMATCHES] = 0;
    pair_fini(&p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_replica_serves_the_connection),
        cmocka_unit_test(a_replica_that_stands_still_is_passed_over),
        cmocka_unit_test(checksums_are_verified_by_whoever_is_first),
        cmocka_unit_test(a_claim_is_not_waited_for_forever),
        cmocka_unit_test(another_worker_becomes_the_front),
        cmocka_unit_test(stress_ends_with_equal_replicas),
        cmocka_unit_test(every_short_order_is_the_same),
        cmocka_unit_test(a_difference_is_found),
    };

    if (net_eal_start() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
