/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "sim.h"

#include "tcp/domain.h"

/**
 * @file
 * Connections that leave their domain for another and come back, at random moments of transfers over bad paths. Nobody may notice: the payload is checked by the
 * simulation, and every segment leaves at the very instant at which it leaves without the moves.
 */

#define SECOND 1000000ull

static struct {
    struct tcp_domain *d[2]; /* of each host: where its connections go to */
    struct rng rng;
    unsigned one_in; /* so many events between two moves; 0 = none */
    unsigned moves, with_runs, with_segs;
    unsigned in_state[TCP_ST_CLOSING + 1];
} spare;

static void *
take_out(struct tcp_domain *d, tcp_id id, size_t *len)
{
    void *bytes;

    *len = tcp_export_bytes(d, id);
    bytes = aligned_alloc(64, (*len + 63) / 64 * 64);
    assert_non_null(bytes);
    assert_int_equal(tcp_export(d, id, 9, bytes, *len - 1), -EINVAL);
    assert_int_equal(tcp_export(d, id, 9, bytes, *len), 0);
    return bytes;
}

static void
there_and_back(struct sim_host *h, struct tcp_domain *other, struct sim_flow *f, tcp_user user)
{
    struct tcp_conn_info before, after;
    struct tcp_usage u;
    uint32_t to = 0;
    size_t len;
    void *bytes;
    tcp_id id;

    assert_true(tcp_info(h->d, f->id, &before));
    tcp_usage(h->d, &u);
    spare.with_runs += before.unacked_segs > 0;
    spare.with_segs += u.ooo_bufs > 0;
    spare.in_state[before.state]++;
    bytes = take_out(h->d, f->id, &len);
    assert_false(tcp_info(h->d, f->id, &after));
    assert_false(tcp_has(h->d, &before.tuple));
    assert_true(tcp_moved(h->d, &before.tuple, &to));
    assert_int_equal(to, 9);
    assert_int_equal(tcp_import(other, &h->env, bytes, user, &id), 0);
    assert_int_equal(tcp_import(other, &h->env, bytes, user, &id), -EADDRINUSE);
    free(bytes);
    bytes = take_out(other, id, &len);
    tcp_moved_end(other, &before.tuple);
    assert_false(tcp_moved(other, &before.tuple, &to));
    assert_int_equal(tcp_import(h->d, &h->env, bytes, user, &f->id), 0);
    free(bytes);
    assert_true(tcp_info(h->d, f->id, &after));
    before.id = after.id;
    assert_memory_equal(&before, &after, sizeof(before));
    spare.moves++;
}

static void
move_some(struct sim *s)
{
    for (unsigned i = 0; i < 2; i++) {
        struct sim_host *h = &s->host[i];

        for (unsigned k = 0; k < s->nb_flows; k++) {
            struct sim_flow *f = &h->flows[k];

            if (f->is_gone || !tcp_can_move(h->d, f->id) || rng_below(&spare.rng, spare.one_in) != 0)
                continue;
            there_and_back(h, spare.d[i], f, k + 1);
        }
    }
}

static void
more_room(struct tcp_params *p)
{
    p->max_moved = 4;
}

static void
bbr(struct tcp_params *p)
{
    more_room(p);
    p->congestion = (uint8_t)tcp_congestion_find("bbr");
}

static void
no_sack(struct tcp_params *p)
{
    more_room(p);
    p->sack = false;
}

/* Returns when the last byte was in. */
static uint64_t
transfer(uint64_t seed, const struct sim_link *link, void (*adjust)(struct tcp_params *p), unsigned one_in)
{
    static struct sim s;

    spare.one_in = one_in;
    rng_init(&spare.rng, seed, 77);
    sim_init(&s, seed, link, adjust);
    for (unsigned i = 0; i < 2; i++) {
        const struct tcp_params p = s.host[i].d->params;

        spare.d[i] = aligned_alloc(64, tcp_domain_bytes(&p));
        assert_non_null(spare.d[i]);
        memset(spare.d[i], 0, tcp_domain_bytes(&p));
        assert_int_equal(tcp_domain_init(spare.d[i], &p, s.now_us), 0);
        /* One ends early, and the other goes on half closed. */
        s.host[i].flows[0].to_send = i == 0 ? 2500000 : 1300000;
    }
    s.snd_buf_bytes = 200000;
    s.between = one_in != 0 ? move_some : NULL;
    s.nb_flows = 1; /* two whose timers are due in one tick may swap places */
    sim_connect(&s);
    assert_true(sim_run(&s, 600 * SECOND));
    for (unsigned i = 0; i < 2; i++) {
        struct tcp_usage u;

        for (unsigned k = 0; k < s.nb_flows; k++)
            assert_int_equal(s.host[i].flows[k].err, 0);
        tcp_usage(spare.d[i], &u);
        assert_int_equal(u.conns + u.ooo_bufs + u.timers_armed, 0);
        free(spare.d[i]);
    }
    uint64_t end_us = s.now_us;
    sim_fini(&s);
    return end_us;
}

static void
nobody_notices(void (*adjust)(struct tcp_params *p))
{
    static const struct sim_link links[] = {
        { .delay_us = 2000 },
        { .delay_us = 5000, .loss_ppm = 30000, .reorder_ppm = 30000, .reorder_us = 8000, .dup_ppm = 10000 },
        { .delay_us = 1000, .rate_bytes_per_ms = 2000, .queue_bytes = 30000 },
    };

    memset(&spare, 0, sizeof(spare));
    for (unsigned l = 0; l < 3; l++) {
        for (uint64_t seed = 1; seed <= 3; seed++) {
            uint64_t without_us = transfer(seed, &links[l], adjust, 0);

            assert_true(without_us == transfer(seed, &links[l], adjust, 3));
        }
    }
    /* Whatever may move has moved. */
    assert_true(spare.moves > 1000 && spare.with_runs > 500 && spare.with_segs > 100);
    assert_true(spare.in_state[TCP_ST_ESTABLISHED] > 100);
    assert_true(spare.in_state[TCP_ST_FIN_WAIT_1] > 0 && spare.in_state[TCP_ST_FIN_WAIT_2] > 0);
    assert_true(spare.in_state[TCP_ST_CLOSE_WAIT] > 0);
}

static void
under_loss(void **state)
{
    (void)state;
    nobody_notices(more_room);
}

static void
without_sack(void **state)
{
    (void)state;
    nobody_notices(no_sack);
}

static void
with_a_model(void **state)
{
    (void)state;
    nobody_notices(bbr);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(under_loss),
        cmocka_unit_test(without_sack),
        cmocka_unit_test(with_a_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
