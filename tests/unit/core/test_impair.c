/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <rte_byteorder.h>
#include <rte_ether.h>

#include "core/impair.h"

#include "eal_fixture.h"

#define COUNT 2048
#define FRAME_BYTES 100

static struct pktpool pool;
static struct counters ctr;

static int
set_up(void **state)
{
    (void)state;
    memset(&ctr, 0, sizeof(ctr));
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    return rte_mempool_in_use_count(pool.rx) != 0 || rte_mempool_in_use_count(pool.tx) != 0;
}

static struct impair *
create(const char *text)
{
    struct impair_config cfg;
    char err[128];

    assert_int_equal(impair_parse(text, &cfg, err, sizeof(err)), 0);
    assert_true(cfg.enabled);
    struct impair *im = impair_create(&cfg, 0, &pool);

    assert_non_null(im);
    return im;
}

/* An IPv4 frame that carries its number in its last bytes. */
static struct rte_mbuf *
frame(uint32_t number)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool.rx);
    char *data = rte_pktmbuf_append(m, FRAME_BYTES);

    memset(data, 0, FRAME_BYTES);
    ((struct rte_ether_hdr *)data)->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
    memcpy(data + FRAME_BYTES - 4, &number, 4);
    return m;
}

static uint32_t
number_of(struct rte_mbuf *m)
{
    uint32_t number;

    memcpy(&number, rte_pktmbuf_mtod_offset(m, char *, FRAME_BYTES - 4), 4);
    rte_pktmbuf_free(m);
    return number;
}

static void
put(struct impair *im, uint32_t number, uint64_t now_us)
{
    struct rte_mbuf *m = frame(number);

    impair_put(im, &m, 1, &ctr, now_us);
}

/* Numbers of the frames that are due. */
static unsigned
get(struct impair *im, uint32_t *numbers, unsigned max, uint64_t now_us)
{
    struct rte_mbuf *pkts[32];
    unsigned total = 0;
    uint16_t n;

    while (total < max && (n = impair_get(im, pkts, (uint16_t)RTE_MIN(max - total, 32u), now_us)) > 0)
        for (uint16_t i = 0; i < n; i++)
            numbers[total++] = number_of(pkts[i]);
    return total;
}

static void
test_parse(void **state)
{
    struct impair_config cfg;
    char err[128];

    (void)state;
    assert_int_equal(impair_parse("loss:1%,delay:10ms,reorder:2%,dup:1.5%,corrupt:0.1%,seed:7", &cfg, err, sizeof(err)),
                     0);
    assert_int_equal(cfg.loss_ppm, 10000);
    assert_int_equal(cfg.delay_us, 10000);
    assert_int_equal(cfg.reorder_ppm, 20000);
    assert_int_equal(cfg.dup_ppm, 15000);
    assert_int_equal(cfg.corrupt_ppm, 1000);
    assert_int_equal(cfg.seed, 7);
    assert_true(cfg.enabled);
    assert_int_equal(impair_parse("", &cfg, err, sizeof(err)), 0);
    assert_false(cfg.enabled);
    assert_int_equal(impair_parse("seed:3", &cfg, err, sizeof(err)), 0);
    assert_false(cfg.enabled);
    assert_int_equal(impair_parse("delay:250us", &cfg, err, sizeof(err)), 0);
    assert_int_equal(cfg.delay_us, 250);
    assert_int_equal(impair_parse("delay:0.5s,loss:100", &cfg, err, sizeof(err)), 0);
    assert_int_equal(cfg.delay_us, 500000);
    assert_int_equal(cfg.loss_ppm, 1000000);
    assert_true(cfg.bytes_per_s == 0);
    assert_int_equal(impair_parse("rate:10M", &cfg, err, sizeof(err)), 0);
    assert_true(cfg.enabled);
    assert_true(cfg.bytes_per_s == 10000000);
    assert_int_equal(cfg.queue_us, 20000);
    assert_int_equal(impair_parse("queue:0ms,rate:1.5k", &cfg, err, sizeof(err)), 0);
    assert_true(cfg.bytes_per_s == 1500);
    assert_int_equal(cfg.queue_us, 0);
    assert_int_equal(impair_parse("rate:100G,queue:3ms", &cfg, err, sizeof(err)), 0);
    assert_true(cfg.bytes_per_s == UINT64_C(100000000000));
    assert_int_equal(cfg.queue_us, 3000);
}

static void
test_parse_errors(void **state)
{
    static const struct {
        const char *text, *err;
    } cases[] = {
        { "los:1%", "impair: 'los:1%': unknown; allowed are loss:P%, delay:T, reorder:P%, dup:P%, corrupt:P%, rate:R, "
                    "queue:T, seed:N" },
        { "loss:101%", "impair: 'loss:101%': a share is 0% to 100%" },
        { "loss:-1%", "impair: 'loss:-1%': a share is 0% to 100%" },
        { "loss:nan", "impair: 'loss:nan': a share is 0% to 100%" },
        { "loss", "impair: 'loss': a share is 0% to 100%" },
        { "loss:,dup:1%", "impair: 'loss:': a share is 0% to 100%" },
        { "loss:1%x", "impair: 'loss:1%x': a share is 0% to 100%" },
        { "delay:10", "impair: 'delay:10': a time is a number and us, ms or s, up to 10s" },
        { "delay:11s", "impair: 'delay:11s': a time is a number and us, ms or s, up to 10s" },
        { "delay:ms", "impair: 'delay:ms': a time is a number and us, ms or s, up to 10s" },
        { "delay:", "impair: 'delay:': a time is a number and us, ms or s, up to 10s" },
        { "queue:20", "impair: 'queue:20': a time is a number and us, ms or s, up to 10s" },
        { "loss:1%,queue:3ms", "impair: 'queue': needs rate:R, the bottleneck whose queue it is" },
        { "rate", "impair: 'rate': a rate is bytes per second, 1k to 100G" },
        { "rate:", "impair: 'rate:': a rate is bytes per second, 1k to 100G" },
        { "rate:999", "impair: 'rate:999': a rate is bytes per second, 1k to 100G" },
        { "rate:101G", "impair: 'rate:101G': a rate is bytes per second, 1k to 100G" },
        { "rate:-1M", "impair: 'rate:-1M': a rate is bytes per second, 1k to 100G" },
        { "rate:inf", "impair: 'rate:inf': a rate is bytes per second, 1k to 100G" },
        { "rate:1T", "impair: 'rate:1T': a rate is bytes per second, 1k to 100G" },
        { "rate:1MB,queue:1ms", "impair: 'rate:1MB': a rate is bytes per second, 1k to 100G" },
        { "seed:-1", "impair: 'seed:-1': a seed is a whole number" },
        { "seed:", "impair: 'seed:': a seed is a whole number" },
        { "loss:1%,", "impair: ',': nothing follows" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct impair_config cfg;
        char err[128];

        assert_int_equal(impair_parse(cases[i].text, &cfg, err, sizeof(err)), -EINVAL);
        assert_string_equal(err, cases[i].err);
    }
}

static void
test_delay(void **state)
{
    struct impair *im = create("delay:10ms");
    uint32_t numbers[8];

    (void)state;
    assert_true(impair_next_us(im) == UINT64_MAX);
    put(im, 1, 1000);
    put(im, 2, 1500);
    assert_true(impair_next_us(im) == 11000);
    assert_int_equal(get(im, numbers, 8, 10999), 0);
    assert_int_equal(get(im, numbers, 8, 11000), 1);
    assert_int_equal(numbers[0], 1);
    assert_true(impair_next_us(im) == 11500);
    assert_int_equal(get(im, numbers, 8, 20000), 1);
    assert_int_equal(numbers[0], 2);
    put(im, 3, 20000);
    impair_destroy(im); /* frees what waits */
}

static void
test_loss_rate(void **state)
{
    struct impair *im = create("loss:3%,seed:5");
    uint32_t numbers[1];
    unsigned passed = 0;

    (void)state;
    for (uint32_t i = 0; i < 20000; i++) {
        put(im, i, 0);
        passed += get(im, numbers, 1, 0);
    }
    assert_int_equal(passed + ctr.v[CTR_IMPAIR_DROP_LOSS], 20000);
    assert_in_range(ctr.v[CTR_IMPAIR_DROP_LOSS], 500, 700); /* 600 +- 4 sigma */
    impair_destroy(im);
}

static void
test_same_seed_same_fate(void **state)
{
    uint32_t first[512], second[512];
    unsigned n[2];

    (void)state;
    for (unsigned run = 0; run < 2; run++) {
        struct impair *im = create("loss:10%,dup:10%,reorder:10%,seed:42");

        for (uint32_t i = 0; i < 300; i++)
            put(im, i, i);
        n[run] = get(im, run == 0 ? first : second, 512, 100000);
        impair_destroy(im);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(first, second, n[0] * sizeof(first[0]));
}

/* With zero delay: nothing is lost, a held frame comes after one to three later ones. */
static void
test_reorder(void **state)
{
    struct impair *im = create("reorder:5%,seed:3");
    uint32_t numbers[400];
    unsigned n = 0;
    unsigned late = 0;
    bool seen[400] = { false };

    (void)state;
    for (uint32_t i = 0; i < 400; i++) {
        put(im, i, 1000 + i);
        n += get(im, numbers + n, 400 - n, 1000 + i);
    }
    n += get(im, numbers + n, 400 - n, 100000);
    assert_int_equal(n, 400);
    uint32_t highest = 0;

    for (unsigned i = 0; i < n; i++) {
        assert_false(seen[numbers[i]]);
        seen[numbers[i]] = true;
        if (i > 0 && numbers[i] < highest) {
            late++;
            assert_true(highest - numbers[i] <= 3 + 16); /* three overtakers, and those held meanwhile */
        }
        highest = RTE_MAX(highest, numbers[i]);
    }
    assert_true(late > 0);
    assert_int_equal(ctr.v[CTR_IMPAIR_REORDER] >= late, 1);
    impair_destroy(im);
}

static void
test_held_frame_needs_no_successor(void **state)
{
    struct impair *im = create("reorder:100%");
    uint32_t numbers[2];

    (void)state;
    put(im, 1, 1000);
    assert_int_equal(get(im, numbers, 2, 1000), 0);
    uint64_t next_us = impair_next_us(im);

    assert_true(next_us > 1000 && next_us <= 1000 + 10000);
    assert_int_equal(get(im, numbers, 2, next_us), 1);
    impair_destroy(im);
}

static void
test_duplication(void **state)
{
    struct impair *im = create("dup:100%");
    uint32_t numbers[4];

    (void)state;
    put(im, 9, 0);
    assert_int_equal(get(im, numbers, 4, 0), 2);
    assert_int_equal(numbers[0], 9);
    assert_int_equal(numbers[1], 9);
    assert_int_equal(ctr.v[CTR_IMPAIR_DUP], 1);
    impair_destroy(im);
}

/* One bit beyond the Ethernet header, in a copy; what the device said about checksums is forgotten. */
static void
test_corruption(void **state)
{
    struct impair *im = create("corrupt:100%");

    (void)state;
    for (uint32_t i = 0; i < 200; i++) {
        struct rte_mbuf *m = frame(0);
        struct rte_mbuf *original = frame(0);
        struct rte_mbuf *out;
        unsigned flipped = 0;

        m->ol_flags |= RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD;
        rte_mbuf_refcnt_update(m, 1); /* someone else looks at it too */
        impair_put(im, &m, 1, &ctr, 0);
        assert_int_equal(impair_get(im, &out, 1, 0), 1);
        assert_memory_equal(rte_pktmbuf_mtod(m, void *), rte_pktmbuf_mtod(original, void *), FRAME_BYTES);
        assert_memory_equal(rte_pktmbuf_mtod(out, void *), rte_pktmbuf_mtod(original, void *), 14);
        for (unsigned j = 0; j < FRAME_BYTES; j++)
            flipped += (unsigned)__builtin_popcount(
                (unsigned)(rte_pktmbuf_mtod(out, uint8_t *)[j] ^ rte_pktmbuf_mtod(original, uint8_t *)[j]));
        assert_int_equal(flipped, 1);
        assert_int_equal(out->ol_flags & (RTE_MBUF_F_RX_IP_CKSUM_MASK | RTE_MBUF_F_RX_L4_CKSUM_MASK), 0);
        rte_pktmbuf_free(m);
        rte_pktmbuf_free(original);
        rte_pktmbuf_free(out);
    }
    assert_int_equal(ctr.v[CTR_IMPAIR_CORRUPT], 200);
    impair_destroy(im);
}

static void
test_arp_is_not_corrupted(void **state)
{
    struct impair *im = create("corrupt:100%");
    struct rte_mbuf *m = frame(5);
    struct rte_mbuf *out;

    (void)state;
    rte_pktmbuf_mtod(m, struct rte_ether_hdr *)->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_ARP);
    impair_put(im, &m, 1, &ctr, 0);
    assert_int_equal(impair_get(im, &out, 1, 0), 1);
    assert_ptr_equal(out, m);
    assert_int_equal(ctr.v[CTR_IMPAIR_CORRUPT], 0);
    rte_pktmbuf_free(m);
    impair_destroy(im);
}

static void
test_queue_is_bounded(void **state)
{
    struct impair *im = create("delay:1s");

    (void)state;
    for (uint32_t i = 0; i < COUNT / 4 + 10; i++)
        put(im, i, 0);
    assert_int_equal(ctr.v[CTR_IMPAIR_DROP_FULL], 10);
    impair_destroy(im);
}

/* With what Ethernet puts around it, a frame has 124 bytes: at 124k it takes a millisecond. */
static void
test_rate_spaces_frames(void **state)
{
    struct impair *im = create("rate:124k");
    uint32_t numbers[8];

    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        put(im, i, 1000);
    assert_true(impair_next_us(im) == 2000);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(get(im, numbers, 8, 1999 + i * 1000), 0);
        assert_int_equal(get(im, numbers, 8, 2000 + i * 1000), 1);
        assert_int_equal(numbers[0], i);
    }
    /* An idle line saves nothing up. */
    put(im, 3, 100000);
    put(im, 4, 100000);
    assert_int_equal(get(im, numbers, 8, 100999), 0);
    assert_int_equal(get(im, numbers, 8, 101000), 1);
    assert_int_equal(get(im, numbers, 8, 102000), 1);
    impair_destroy(im);
}

static void
test_delay_follows_the_bottleneck(void **state)
{
    struct impair *im = create("delay:10ms,rate:124k");
    uint32_t numbers[8];

    (void)state;
    put(im, 0, 1000);
    put(im, 1, 1000);
    assert_int_equal(get(im, numbers, 8, 11999), 0);
    assert_int_equal(get(im, numbers, 8, 12000), 1);
    assert_int_equal(get(im, numbers, 8, 13000), 1);
    impair_destroy(im);
}

static void
test_bottleneck_drops_what_would_wait_too_long(void **state)
{
    struct impair *im = create("rate:124k,queue:3ms");
    uint32_t numbers[16];

    (void)state;
    /* They would wait for 0, 1, 2, ... 9 ms. */
    for (uint32_t i = 0; i < 10; i++)
        put(im, i, 1000);
    assert_int_equal(ctr.v[CTR_IMPAIR_DROP_FULL], 6);
    put(im, 10, 2000);
    put(im, 11, 2000);
    assert_int_equal(ctr.v[CTR_IMPAIR_DROP_FULL], 7);
    assert_int_equal(get(im, numbers, 16, 6000), 5);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(numbers[i], i);
    assert_int_equal(numbers[4], 10);
    impair_destroy(im);
}

/* Twice what the bottleneck carries, offered for a second: it is busy all the time, and loss takes its share of that. */
static void
test_bottleneck_with_loss(void **state)
{
    struct impair *im = create("rate:1240k,queue:20ms,loss:10%,seed:5");
    unsigned total = 0;

    (void)state;
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t numbers[8];

        put(im, i, i * 50);
        total += get(im, numbers, 8, i * 50);
    }
    assert_in_range(total, 9000 - 120, 9000 + 120);
    assert_in_range(ctr.v[CTR_IMPAIR_DROP_LOSS], 1000 - 120, 1000 + 120);
    assert_in_range(ctr.v[CTR_IMPAIR_DROP_FULL], 20000 - 10000 - 201, 20000 - 10000);
    impair_destroy(im);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_parse_errors),
        cmocka_unit_test_setup_teardown(test_delay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_loss_rate, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_same_seed_same_fate, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reorder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_held_frame_needs_no_successor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_duplication, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_corruption, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_arp_is_not_corrupted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_queue_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rate_spaces_frames, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_delay_follows_the_bottleneck, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bottleneck_drops_what_would_wait_too_long, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bottleneck_with_loss, set_up, tear_down),
    };

    if (fixture_eal_start(NULL, 0) != 0 || pktpool_create(&pool, "t", COUNT, 1500, SOCKET_ID_ANY) != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    pktpool_destroy(&pool);
    eal_stop();
    return failed;
}
