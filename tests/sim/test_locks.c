/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "sim.h"

/**
 * @file
 * A domain whose environment has locks (struct tcp_locks): they are taken in their order and given back, and what the domain does is what it does without.
 */

#define HELD_MAX 4

struct record {
    struct tcp_locks ops;
    unsigned table; /* depth */
    uint32_t conn[HELD_MAX];
    unsigned nb_conns;
    bool inner;
    unsigned long taken[3]; /* table, connection, inner */
};

static void
table_take(void *ctx)
{
    struct record *r = ctx;

    assert_false(r->inner);
    if (r->table++ == 0)
        assert_int_equal(r->nb_conns, 0);
    r->taken[0]++;
}

static void
table_give(void *ctx)
{
    struct record *r = ctx;

    assert_true(r->table > 0);
    r->table--;
}

static void
conn_take(void *ctx, uint32_t slot)
{
    struct record *r = ctx;

    assert_false(r->inner);
    assert_true(r->nb_conns == 0 || r->table > 0);
    assert_true(r->nb_conns < HELD_MAX);
    for (unsigned i = 0; i < r->nb_conns; i++)
        assert_int_not_equal(r->conn[i], slot);
    r->conn[r->nb_conns++] = slot;
    r->taken[1]++;
}

static void
conn_give(void *ctx, uint32_t slot)
{
    struct record *r = ctx;

    for (unsigned i = 0; i < r->nb_conns; i++) {
        if (r->conn[i] == slot) {
            r->conn[i] = r->conn[--r->nb_conns];
            return;
        }
    }
    fail_msg("slot %u was not held", slot);
}

static void
inner_take(void *ctx, enum tcp_inner which)
{
    struct record *r = ctx;

    assert_in_range(which, 0, TCP_INNER_COUNT - 1);
    assert_false(r->inner);
    /* What is shared is touched on behalf of a connection or an entry; but the wheel is turned by nobody in particular. */
    assert_true(r->nb_conns > 0 || r->table > 0 || which == TCP_INNER_TIMERS);
    r->inner = true;
    r->taken[2]++;
}

static void
inner_give(void *ctx, enum tcp_inner which)
{
    struct record *r = ctx;

    (void)which;
    assert_true(r->inner);
    r->inner = false;
}

static const struct tcp_locks recorder = {
    .table_take = table_take,
    .table_give = table_give,
    .conn_take = conn_take,
    .conn_give = conn_give,
    .inner_take = inner_take,
    .inner_give = inner_give,
};

static void
run(struct sim *s, uint64_t seed, const struct sim_link *link, struct record r[2])
{
    sim_init(s, seed, link, NULL);
    for (unsigned i = 0; i < 2 && r != NULL; i++) {
        r[i].ops.ctx = &r[i];
        s->host[i].env.locks = &r[i].ops;
    }
    s->nb_flows = 3;
    sim_connect(s);
    for (unsigned i = 0; i < 3; i++)
        s->host[0].flows[i].to_send = s->host[1].flows[i].to_send = 300000 + i;
    assert_true(sim_run(s, 600u * 1000000ull));
}

static void
same_with_locks(bool free_lookup)
{
    static const struct sim_link link = {
        .loss_ppm = 20000, .reorder_ppm = 20000, .dup_ppm = 10000, .reorder_us = 2000, .delay_us = 3000
    };

    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct record r[2] = { { .ops = recorder }, { .ops = recorder } };
        static struct sim plain, locked;

        r[0].ops.free_lookup = r[1].ops.free_lookup = free_lookup;
        run(&plain, seed, &link, NULL);
        run(&locked, seed, &link, r);
        for (unsigned i = 0; i < 2; i++) {
            assert_memory_equal(&plain.host[i].ctr, &locked.host[i].ctr, sizeof(plain.host[i].ctr));
            for (unsigned k = 0; k < 3; k++) {
                assert_true(r[i].taken[k] > 0);
                assert_int_equal(plain.host[i].flows[k].received, locked.host[i].flows[k].received);
            }
            /* Most segments change their connection alone, and need the table only where the lookup does. */
            if (free_lookup)
                assert_true(r[i].taken[0] < r[i].taken[1] / 2);
            else
                assert_true(r[i].taken[0] >= r[i].taken[1]);
        }
        sim_fini(&plain);
        sim_fini(&locked);
        for (unsigned i = 0; i < 2; i++)
            assert_true(r[i].table == 0 && r[i].nb_conns == 0 && !r[i].inner);
    }
}

static void
table_lock_first(void **state)
{
    (void)state;
    same_with_locks(false);
}

static void
lookup_without_the_table(void **state)
{
    (void)state;
    same_with_locks(true);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_lock_first),
        cmocka_unit_test(lookup_without_the_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
