/* SPDX-License-Identifier: BSD-3-Clause */
#include "replicas.h"

#include "tcp/copy.h"

struct misd *
misd_of(unsigned node)
{
    return run.mode[node]->own;
}

bool
replicas_are_level(unsigned node)
{
    const struct misd *x = misd_of(node);

    for (unsigned i = 1; i < x->nb_replicas; i++)
        if (x->replica[i]->stale || x->replica[i]->applied != x->replica[0]->applied)
            return false;
    return x->done == x->replica[0]->applied;
}

void
assert_equal_replicas(struct world *w)
{
    for (unsigned node = 0; node < 2; node++) {
        const struct misd *x = misd_of(node);

        net_until(&w->net, replicas_are_level(node));
        for (unsigned i = 1; i < x->nb_replicas; i++)
            assert_true(tcp_domain_equal(x->replica[0]->domain, x->replica[i]->domain));
        assert_int_equal(counted(w, node, CTR_MISD_MISMATCHES), 0);
        assert_int_equal(counted(w, node, CTR_MISD_DROP), 0);
    }
}
