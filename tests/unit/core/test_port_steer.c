/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "core/port_steer.h"

#include "eal_fixture.h"

static struct pktpool pool;
static char err[256];

static int
start(struct port *p, const char *device, uint16_t nb_queues, enum port_steer steer)
{
    struct port_config cfg = { .nb_queues = nb_queues, .steer = steer };

    err[0] = '\0';
    assert_int_equal(rte_eth_dev_get_port_by_name(device, &cfg.port_id), 0);
    return port_start(p, &cfg, &pool, err, sizeof(err));
}

/* Of every pair of ports exactly one filter takes the segment, to the queue that the rule of core/steer.h names. */
static void
filters_say_what_the_rule_says(void **state)
{
    struct port p = { .nb_queues = 2 };

    (void)state;
    for (; p.nb_queues <= 16; p.nb_queues++) {
        uint32_t n = port_steer_filters(&p);

        assert_true(n / 2 >= p.nb_queues && n < 4u * p.nb_queues);
        for (uint32_t i = 0; i < 3000; i++) {
            uint16_t ours = (uint16_t)(i * 40503u), peers = (uint16_t)(i * 2654435761u >> 7);
            unsigned taken = 0;

            for (uint32_t k = 0; k < n; k++) {
                struct port_filter f = port_steer_filter(&p, k);

                if ((rte_cpu_to_be_16(ours) & f.mask.hdr.dst_port) != f.spec.hdr.dst_port ||
                    (rte_cpu_to_be_16(peers) & f.mask.hdr.src_port) != f.spec.hdr.src_port)
                    continue;
                assert_int_equal(f.queue, (steer_port(ours, peers) & (n / 2 - 1)) % p.nb_queues);
                taken++;
            }
            assert_int_equal(taken, 1);
        }
    }
}

/* net_null takes key and table as a card does, and shows them. */
static void
rss_fills_key_and_table(void **state)
{
    struct rte_eth_rss_reta_entry64 reta[RTE_ETH_RSS_RETA_SIZE_512 / RTE_ETH_RETA_GROUP_SIZE];
    struct port p;

    (void)state;
    assert_int_equal(start(&p, "net_null0", 3, PORT_STEER_AUTO), 0);
    assert_int_equal(p.steer, PORT_STEER_RSS);
    assert_int_equal(p.nb_queues, 3);
    assert_true(p.steer_buckets >= 64 && rte_is_power_of_2(p.steer_buckets));
    assert_memory_equal(p.rss_key, ((const uint8_t[]){ 0x6d, 0x5a, 0x56, 0xda }), 4);
    memset(reta, 0, sizeof(reta));
    for (unsigned g = 0; g < RTE_DIM(reta); g++)
        reta[g].mask = UINT64_MAX;
    assert_int_equal(rte_eth_dev_rss_reta_query(p.port_id, reta, (uint16_t)p.steer_buckets), 0);
    for (uint32_t i = 0; i < p.steer_buckets; i++)
        assert_int_equal(reta[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE], i % 3);
    rte_eth_dev_stop(p.port_id);
    /* One worker needs no table. */
    assert_int_equal(start(&p, "net_null0", 1, PORT_STEER_AUTO), 0);
    assert_int_equal(p.steer, PORT_STEER_SOFT);
    rte_eth_dev_stop(p.port_id);
    assert_int_equal(start(&p, "net_null0", 4, PORT_STEER_SOFT), 0);
    assert_int_equal(p.nb_queues, 1);
    rte_eth_dev_stop(p.port_id);
}

static void
what_a_port_cannot_do_is_said_in_one_line(void **state)
{
    struct port p;

    (void)state;
    assert_int_equal(start(&p, "net_ring0", 2, PORT_STEER_RSS), -EINVAL);
    assert_non_null(strstr(err, "(net_ring): it cannot steer by rss; allowed are auto, soft"));
    assert_int_equal(start(&p, "net_ring0", 2, PORT_STEER_FLOW), -EINVAL);
    assert_int_equal(start(&p, "net_ring0", 2, PORT_STEER_OWN), -EINVAL);
    assert_int_equal(start(&p, "net_null0", 2, PORT_STEER_FLOW), -EINVAL);
    assert_non_null(strstr(err, "cannot steer by flow; allowed are auto, rss, soft"));
    assert_int_equal(start(&p, "net_null0", UINT16_MAX, PORT_STEER_RSS), -EINVAL);
    assert_non_null(strstr(err, "65535 queues asked for, 1 to "));
    /* auto takes what there is. */
    assert_int_equal(start(&p, "net_ring0", 2, PORT_STEER_AUTO), 0);
    assert_int_equal(p.steer, PORT_STEER_SOFT);
    assert_int_equal(p.nb_queues, 1);
    rte_eth_dev_stop(p.port_id);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_say_what_the_rule_says),
        cmocka_unit_test(rss_fills_key_and_table),
        cmocka_unit_test(what_a_port_cannot_do_is_said_in_one_line),
    };
    const char *devices[] = { "--vdev=net_null0", "--vdev=net_ring0" };
    int failed;

    if (fixture_eal_start(devices, 2) != 0 || pktpool_create(&pool, "t", 1024, 1500, SOCKET_ID_ANY) != 0)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    eal_stop();
    return failed;
}
