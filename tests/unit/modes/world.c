/* SPDX-License-Identifier: BSD-3-Clause */
#include "world.h"

#include <sched.h>
#include <stdio.h>

#include "../tcp/sound.h"

struct run run;

/* ---- hosts of a mode --------------------------------------------------------------------------------------------------------- */

static unsigned
node_number(const struct node *n)
{
    return (unsigned)(n - n->net->node);
}

static struct host *
make(struct node *n, const struct stack_config *cfg)
{
    struct mode_config mc = { .stack = *cfg, .port = &n->port, .pool = &n->pool, .nb_workers = run.nb_workers };
    char err[256] = "";
    struct mode *m;

    run.ops = mode_find(run.text, &mc.knobs, err, sizeof(err));
    assert_non_null(run.ops);
    m = run.ops->create(&mc, err, sizeof(err));
    if (m == NULL)
        fail_msg("%s", err);
    run.mode[node_number(n)] = m;
    return run.ops->host(m);
}

/* Whoever is held up may look at the clock long before others, and work after them. */
static uint64_t
clock_of(struct node *n, unsigned worker)
{
    static uint64_t seen_us[2][SHM_MAX_INSTANCES];
    uint64_t *seen = &seen_us[node_number(n)][worker];
    uint64_t now_us = n->net->now_us;

    if (run.late_us == 0)
        return now_us;
    now_us -= RTE_MIN(now_us - 1, (uint64_t)rng_below(&run.rng, run.late_us));
    /* A worker's own clock runs on; another world's was another. */
    *seen = *seen < n->net->now_us ? RTE_MAX(now_us, *seen) : now_us;
    return *seen;
}

static unsigned
poll_in_any_order(struct node *n)
{
    struct mode *m = run.mode[node_number(n)];
    unsigned nb = run.ops->nb_workers(m);
    unsigned order[SHM_MAX_INSTANCES] = { 0 };
    unsigned done = 0;

    /* The other node goes on as ever. */
    if (node_number(n) == 1 && run.order_at < run.order_len)
        return run.ops->poll(m, run.order[run.order_at++], n->net->now_us) + 1;
    if (n->on_threads) {
        sched_yield(); /* its workers are threads, and may want this CPU */
        return 0;
    }
    for (unsigned i = 0; i < nb; i++) {
        unsigned k = rng_below(&run.rng, i + 1);

        order[i] = order[k];
        order[k] = i;
    }
    for (unsigned i = 0; i < nb; i++)
        if (node_number(n) == 0 || !(run.still >> order[i] & 1))
            done += run.ops->poll(m, order[i], clock_of(n, order[i]));
    return done;
}

static void
unmake(struct node *n)
{
    run.ops->destroy(run.mode[node_number(n)]);
}

static struct net_maker maker = { .make = make, .poll = poll_in_any_order, .unmake = unmake };

void
world_init(struct world *w, uint32_t loss_ppm)
{
    struct stack_config cfg[2] = { net_stack_config(0), net_stack_config(1) };

    for (unsigned i = 0; i < 2 && run.nb_ports > 0; i++)
        cfg[i].tcp.port_max = (uint16_t)(cfg[i].tcp.port_min + run.nb_ports - 1);
    maker.impair = run.impair;
    maker.impair.loss_ppm = loss_ppm;
    maker.impair.enabled = run.impair.enabled || loss_ppm > 0;
    net_init_with(&w->net, cfg, &maker);
    fapp_attach(&w->a, &w->net.node[0]);
    fapp_attach(&w->b, &w->net.node[1]);
}

void
assert_world_is_sound(const struct world *w)
{
    for (unsigned i = 0; i < 2; i++)
        for (unsigned k = 0; k < host_nb_stacks(w->net.node[i].host); k++)
            assert_domain_is_sound(host_stack(w->net.node[i].host, k)->tcp);
}

void
world_fini(struct world *w)
{
    assert_world_is_sound(w);
    fapp_leave(&w->a, w->a.member);
    fapp_leave(&w->b, w->b.member);
    net_until(&w->net, w->net.node[0].host->nb_apps + w->net.node[1].host->nb_apps == 0);
    net_run(&w->net, 300000);
    assert_world_is_sound(w);
    net_fini(&w->net);
}

/* ---- helpers ---------------------------------------------------------------------------------------------------------------------- */

uint32_t
status(const struct fapp *fa, uint32_t slot)
{
    return shm_load(&fapp_back(fa, slot)->status);
}

static uint8_t
pattern(uint32_t conn, uint32_t pos)
{
    return (uint8_t)((pos + conn * 7919) * 2654435761u >> 24);
}

void
stream_step(struct stream *st, uint32_t total)
{
    static uint8_t buf[20000];
    uint32_t n = RTE_MIN(total - st->sent, (uint32_t)sizeof(buf));

    for (uint32_t i = 0; i < n; i++)
        buf[i] = pattern(st->conn, st->sent + i);
    st->sent += fapp_send(st->from, st->tx, buf, n);
    n = fapp_recv(st->to, st->rx, buf, sizeof(buf));
    for (uint32_t i = 0; i < n; i++)
        if (buf[i] != pattern(st->conn, st->got + i))
            fail_msg("connection %u: byte %u differs", st->conn, st->got + i);
    st->got += n;
}

void
transfer_all(struct lan *net, struct stream *st, unsigned n, uint32_t total)
{
    uint64_t limit_us = net->now_us + UINT64_C(900000000);
    unsigned done = 0;

    while (done < n) {
        done = 0;
        for (unsigned i = 0; i < n; i++) {
            stream_step(&st[i], total);
            done += st[i].got == total;
        }
        net_step(net, 1000);
        assert_true(net->now_us < limit_us);
    }
}

uint32_t
listen_on(struct fapp *fa, uint16_t port, bool reuseport)
{
    const struct ip_addr any = ip_addr_v4(0);
    uint32_t slot = fapp_open(fa);

    if (reuseport)
        assert_int_equal(fapp_value_cmd(fa, slot, SHM_OP_SETOPT, TCP_OPT_REUSEPORT, 1), 0);
    assert_int_equal(fapp_bind(fa, slot, &any, port), 0);
    assert_int_equal(fapp_listen(fa, slot, 64), 0);
    return slot;
}

uint32_t
connect_to(struct fapp *from, const struct fapp *to, uint16_t port)
{
    uint32_t slot = fapp_open(from);

    assert_int_equal(fapp_connect(from, slot, &to->node->addr, port), 0);
    net_until(from->node->net, status(from, slot) & (SHM_ST_CONNECTED | SHM_ST_ERROR));
    return slot;
}

uint16_t
local_port(const struct fapp *fa, uint32_t slot)
{
    return fapp_name(fa, slot, SHM_LOCAL).port;
}

uint64_t
counted(const struct world *w, unsigned node, enum counter_id id)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < host_nb_nets(w->net.node[node].host); i++)
        sum += host_net(w->net.node[node].host, i)->ctr->v[id];
    return sum;
}
