/* SPDX-License-Identifier: BSD-3-Clause */
#include "fixture.h"

#include <stdio.h>

static struct ip_route
route(const char *prefix, uint8_t len, const char *next_hop)
{
    return (struct ip_route){ .prefix = addr(prefix), .prefix_len = len, .next_hop = addr(next_hop) };
}

/** Whom do we ask for when a packet for dst is to be sent? */
static void
assert_next_hop(const char *dst, const char *hop)
{
    uint32_t be = be_addr(hop);

    assert_int_equal(send_tcp(tcp_out(20, 0, 0), dst, 0, 20), 0);
    assert_int_equal(fx.nb_sent, 1);
    assert_int_equal(fx.sent[0].len, 42);
    assert_memory_equal(fx.sent[0].bytes + 38, &be, 4);
    forget_sent();
    advance(10 * S_US); /* nobody answers: the next question is asked anew */
    forget_sent();
}

static void
connected_and_gateway(void **state)
{
    struct ip_addr net = addr("10.0.0.0"), gateway = addr(GATEWAY);
    struct ip_route r[4];

    (void)state;
    assert_int_equal(ip_routes(fx.ip, r, 4), 2);
    assert_true(ip_addr_equal(&r[0].prefix, &net));
    assert_int_equal(r[0].prefix_len, 24);
    assert_true(ip_addr_is_any(&r[0].next_hop));
    assert_int_equal(r[1].prefix_len, 0);
    assert_true(ip_addr_equal(&r[1].next_hop, &gateway));
    assert_next_hop("10.0.0.200", "10.0.0.200");
    assert_next_hop("192.0.2.1", GATEWAY);
}

static void
longest_prefix_wins_and_the_cache_follows(void **state)
{
    struct ip_route wide = route("192.0.2.0", 24, "10.0.0.3");
    struct ip_route narrow = route("192.0.2.128", 25, "10.0.0.4");
    struct ip_route host = route("192.0.2.200", 32, "0.0.0.0");
    struct ip_route r[8];
    unsigned i;

    (void)state;
    assert_next_hop("192.0.2.200", GATEWAY);
    assert_int_equal(ip_route_add(fx.ip, &wide), 0);
    assert_next_hop("192.0.2.200", "10.0.0.3");
    assert_int_equal(ip_route_add(fx.ip, &host), 0);
    assert_int_equal(ip_route_add(fx.ip, &narrow), 0);
    assert_next_hop("192.0.2.200", "192.0.2.200");
    assert_next_hop("192.0.2.201", "10.0.0.4");
    assert_next_hop("192.0.2.1", "10.0.0.3");
    assert_int_equal(ip_routes(fx.ip, r, 8), 5);
    for (i = 1; i < 5; i++) {
        assert_true(r[i - 1].prefix_len >= r[i].prefix_len);
    }
    assert_int_equal(ip_route_del(fx.ip, &host), 0);
    assert_next_hop("192.0.2.200", "10.0.0.4");
    assert_int_equal(ip_route_del(fx.ip, &narrow), 0);
    assert_int_equal(ip_route_del(fx.ip, &wide), 0);
    assert_next_hop("192.0.2.200", GATEWAY);
}

static void
errors(void **state)
{
    struct ip_route r = route("192.0.2.0", 24, "10.0.0.3");
    char text[20];
    unsigned i;

    (void)state;
    assert_int_equal(ip_route_del(fx.ip, &r), -ENOENT);
    assert_int_equal(ip_route_add(fx.ip, &r), 0);
    assert_int_equal(ip_route_add(fx.ip, &r), -EEXIST);
    r.prefix_len = 33;
    assert_int_equal(ip_route_add(fx.ip, &r), -EINVAL);
    r = route("192.0.2.1", 24, "10.0.0.3"); /* bits behind the prefix */
    assert_int_equal(ip_route_add(fx.ip, &r), -EINVAL);
    r = route("198.51.100.0", 24, US); /* through ourselves */
    assert_int_equal(ip_route_add(fx.ip, &r), -EINVAL);
    r = route("198.51.100.0", 24, "224.0.0.1");
    assert_int_equal(ip_route_add(fx.ip, &r), -EINVAL);
    r = route("198.51.100.0", 24, "10.0.0.3");
    assert_int_equal(ip_addr_parse("fe80::1", &r.next_hop), 0);
    assert_int_equal(ip_route_add(fx.ip, &r), -EINVAL);
    assert_int_equal(ip_addr_parse("2001:db8::", &r.prefix), 0);
    assert_int_equal(ip_route_del(fx.ip, &r), -EINVAL);
    for (i = ip_routes(fx.ip, (struct ip_route[IP_MAX_ROUTES]){ 0 }, IP_MAX_ROUTES); i < IP_MAX_ROUTES; i++) {
        snprintf(text, sizeof(text), "198.51.%u.0", i);
        r = route(text, 24, "10.0.0.3");
        assert_int_equal(ip_route_add(fx.ip, &r), 0);
    }
    r = route("203.0.113.0", 24, "10.0.0.3");
    assert_int_equal(ip_route_add(fx.ip, &r), -ENOSPC);
}

static void
questions_about_destinations(void **state)
{
    struct ip_addr us = addr(US), far = addr("192.0.2.1"), near = addr(PEER), v6, got;
    struct ip_route fallback = route("0.0.0.0", 0, GATEWAY);

    (void)state;
    assert_int_equal(ip_addr_parse("2001:db8::1", &v6), 0);
    assert_true(ip_is_local(fx.ip, &us));
    assert_false(ip_is_local(fx.ip, &near));
    assert_true(ip_has_route(fx.ip, &us) && ip_has_route(fx.ip, &near) && ip_has_route(fx.ip, &far));
    assert_false(ip_has_route(fx.ip, &v6));
    got = addr("224.0.0.1");
    assert_false(ip_has_route(fx.ip, &got));
    got = addr("255.255.255.255");
    assert_false(ip_has_route(fx.ip, &got));
    got = addr("10.0.0.255");
    assert_false(ip_has_route(fx.ip, &got));
    got = ip_source_for(fx.ip, &far);
    assert_true(ip_addr_equal(&got, &us));
    got = ip_source_for(fx.ip, &v6);
    assert_true(ip_addr_is_any(&got));
    assert_int_equal(ip_mtu(fx.ip, &far), 1500);
    assert_int_equal(ip_route_del(fx.ip, &fallback), 0);
    assert_false(ip_has_route(fx.ip, &far));
    assert_true(ip_has_route(fx.ip, &near));
    got = ip_source_for(fx.ip, &far);
    assert_true(ip_addr_is_any(&got));
}

/** Against a plain search, over random tables. */
static void
lookup_equals_exhaustive_search(void **state)
{
    struct rng rng;
    unsigned round, i;

    (void)state;
    rng_init(&rng, 11, 0);
    for (round = 0; round < 200; round++) {
        uint8_t len = (uint8_t)rng_below(&rng, 33);
        uint32_t prefix = (rng_below(&rng, 4) << 30 | rng_below(&rng, 4) << 22 | rng_below(&rng, 4)) &
                          (uint32_t)(UINT64_C(0xffffffff) << (32 - len));
        struct ip_route r = { .prefix = ip_addr_v4(rte_cpu_to_be_32(prefix)), .prefix_len = len };

        if (rng_below(&rng, 3) == 0) {
            (void)ip_route_del(fx.ip, &r);
        } else {
            (void)ip_route_add(fx.ip, &r);
        }
        for (i = 0; i < 20; i++) {
            uint32_t dst = rng_below(&rng, 4) << 30 | rng_below(&rng, 4) << 22 | rng_below(&rng, 4);
            const struct route *got = route_lookup(&fx.ip->tables->routes, rte_cpu_to_be_32(dst));
            int best = -1;
            unsigned k;

            for (k = 0; k < fx.ip->tables->routes.count; k++) {
                const struct route *c = &fx.ip->tables->routes.route[k];

                if (((dst ^ rte_be_to_cpu_32(c->prefix)) & (uint32_t)(UINT64_C(0xffffffff) << (32 - c->prefix_len))) ==
                        0 &&
                    c->prefix_len > best) {
                    best = c->prefix_len;
                }
            }
            assert_int_equal(got == NULL ? -1 : got->prefix_len, best);
        }
    }
    assert_true(fx.ip->tables->routes.count > 10);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(connected_and_gateway),
        FIXTURE_TEST(longest_prefix_wins_and_the_cache_follows),
        FIXTURE_TEST(errors),
        FIXTURE_TEST(questions_about_destinations),
        FIXTURE_TEST(lookup_equals_exhaustive_search),
    };

    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
