/* SPDX-License-Identifier: BSD-3-Clause */
#include "back_pair.h"

#include <stdio.h>
#include <string.h>

int
pair_setup(void **state)
{
    static struct pair f;
    const struct stack_config cfg[2] = { net_stack_config(0), net_stack_config(1) };

    net_init(&f.net, cfg);
    fapp_attach(&f.a, &f.net.node[0]);
    fapp_attach(&f.b, &f.net.node[1]);
    *state = &f;
    return 0;
}

int
pair_teardown(void **state)
{
    struct pair *f = *state;

    fapp_leave(&f->a, f->a.member);
    fapp_leave(&f->b, f->b.member);
    /* TIME-WAIT may stay; connections, sockets and buffers may not. */
    net_until(&f->net, f->net.node[0].host->nb_apps + f->net.node[1].host->nb_apps == 0);
    net_run(&f->net, 100000);
    net_fini(&f->net);
    return 0;
}

uint32_t
pair_status(const struct fapp *fa, uint32_t slot)
{
    return shm_load(&fapp_back(fa, slot)->status);
}

uint64_t
pair_counter(const struct fapp *fa, enum counter_id id)
{
    return fa->node->ctr.v[id];
}

uint8_t
pair_byte(uint32_t pos)
{
    return (uint8_t)(pos * 2654435761u >> 24);
}

void
pair_pattern(uint8_t *out, uint32_t pos, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = pair_byte(pos + i);
}

void
pair_transfer(struct lan *net, struct fapp *from, uint32_t tx, struct fapp *to, uint32_t rx, uint32_t total)
{
    static uint8_t buf[100000];
    uint32_t sent = 0;
    uint32_t got = 0;
    uint64_t limit_us = net->now_us + 600000000;

    while (got < total) {
        uint32_t n = RTE_MIN(total - sent, 70001u);

        pair_pattern(buf, sent, n);
        sent += fapp_send(from, tx, buf, n);
        net_step(net, 1000);
        n = fapp_recv(to, rx, buf, 50021);
        for (uint32_t i = 0; i < n; i++)
            if (buf[i] != pair_byte(got + i))
                fail_msg("byte %u is %u, not %u", got + i, buf[i], pair_byte(got + i));
        got += n;
        assert_true(net->now_us < limit_us);
        assert_int_equal(pair_status(from, tx) & SHM_ST_ERROR, 0);
    }
}
