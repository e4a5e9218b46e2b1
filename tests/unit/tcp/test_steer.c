/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_ip.h>

#include "core/rng.h"
#include "trace.h"

/* Microsoft's published key. */
static const uint8_t ms_key[STEER_KEY_BYTES] = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
    0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
    0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

static struct ip_addr
v4(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return ip_addr_v4(rte_cpu_to_be_32(RTE_IPV4(a, b, c, d)));
}

/* ... and its test vectors: the sender, the destination, the hash with ports. */
static void
toeplitz_is_what_cards_compute(void **state)
{
    const struct {
        struct ip_addr from, to;
        uint16_t from_port, to_port;
        uint32_t hash;
    } vectors[] = {
        { v4(66, 9, 149, 187), v4(161, 142, 100, 80), 2794, 1766, 0x51ccc178 },
        { v4(199, 92, 111, 2), v4(65, 69, 140, 83), 14230, 4739, 0xc626b0ea },
        { v4(24, 19, 198, 95), v4(12, 22, 207, 184), 12898, 38024, 0x5c2b394a },
        { v4(38, 27, 205, 30), v4(209, 142, 163, 6), 48228, 2217, 0xafc7327f },
        { v4(153, 39, 163, 191), v4(202, 188, 127, 2), 44251, 1303, 0x10e828a2 },
    };
    struct tcp_tuple six = { .remote_port = 2794, .local_port = 1766 };

    (void)state;
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        const struct tcp_tuple t = { .remote = vectors[i].from,
                                     .local = vectors[i].to,
                                     .remote_port = vectors[i].from_port,
                                     .local_port = vectors[i].to_port };

        assert_int_equal(tcp_steer_toeplitz(ms_key, &t), vectors[i].hash);
    }
    assert_int_equal(ip_addr_parse("3ffe:2501:200:1fff::7", &six.remote), 0);
    assert_int_equal(ip_addr_parse("3ffe:2501:200:3::1", &six.local), 0);
    assert_int_equal(tcp_steer_toeplitz(ms_key, &six), 0x40207d3d);
}

static struct tcp_steer
steer_by(uint32_t by, uint32_t count)
{
    struct tcp_steer st = { .by = by, .count = count, .buckets = by == TCP_STEER_TOEPLITZ ? 128 : 4 };

    memcpy(st.key, ms_key, sizeof(ms_key));
    return st;
}

/* Whatever divides, nobody gets much more than his part of clients with random ports. */
static void
every_rule_divides_evenly(void **state)
{
    struct rng rng;

    (void)state;
    rng_init(&rng, 1, 1);
    for (uint32_t by = TCP_STEER_HASH; by <= TCP_STEER_PORTS; by++) {
        for (uint32_t count = 1; count <= 4; count++) {
            const struct tcp_steer st = steer_by(by, count);
            unsigned part[4] = { 0 };

            for (unsigned i = 0; i < 4000; i++) {
                struct tcp_tuple t = { .local = v4(10, 0, 0, 1), .remote = v4(10, 0, 1, 1), .local_port = 80 };

                t.remote_port = (uint16_t)(32768 + rng_below(&rng, 28000));
                assert_true(tcp_steer(&st, &t) < count);
                part[tcp_steer(&st, &t)]++;
            }
            /* Four values of the low bits over three domains make one of them twice as large. */
            for (uint32_t d = 0; d < count; d++)
                assert_in_range(part[d], 4000 / count * 2 / 3, 4000 / count * 8 / 5);
        }
    }
}

static struct tcp_steer adjusted;

static void
adjust(struct tcp_params *p)
{
    p->steer = adjusted;
    p->steer_index = adjusted.count - 1;
}

/* The answers to what a domain opens come to that domain, until it has no such port left. */
static void
outbound_ports_bring_the_answers_home(void **state)
{
    (void)state;
    for (uint32_t by = TCP_STEER_HASH; by <= TCP_STEER_PORTS; by++) {
        static struct trace t;
        tcp_id ids[16];
        unsigned n = 0;

        adjusted = steer_by(by, 3);
        trace_init(&t, adjust);
        t.d->params.port_min = 40000;
        t.d->params.port_max = 40015;
        for (;;) {
            struct tcp_tuple to = t.tuple;
            int rc;

            to.local_port = 0;
            rc = tcp_connect(t.d, &t.env, &to, TRACE_MSS, NULL, TRACE_USER, &ids[n]);
            if (rc != 0) {
                assert_int_equal(rc, -EADDRNOTAVAIL);
                break;
            }
            assert_int_equal(tcp_steer(&adjusted, &to), 2);
            expect(&t, S, 0, 0, 0);
            n++;
        }
        assert_in_range(n, 2, 8);
        while (n > 0)
            tcp_abort(t.d, &t.env, ids[--n]);
        trace_fini(&t);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(toeplitz_is_what_cards_compute),
        cmocka_unit_test(every_rule_divides_evenly),
        cmocka_unit_test(outbound_ports_bring_the_answers_home),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
