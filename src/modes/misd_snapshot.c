/* SPDX-License-Identifier: BSD-3-Clause */
#include "modes/misd.h"

#include "core/log.h"
#include "tcp/copy.h"

/**
 * @file
 * Rolling forward (Dominoes, section 3.3): a replica that was passed over asks for a snapshot; another one that is between two events gives it; the
 * first makes it its state, and takes events from there on. A domain holds no pointer, so a snapshot is a copy. And comparison.
 */

/* ---- snapshots ------------------------------------------------------------------------------------------------------------- */

static bool
take_positions(const struct misd_replica *r, struct misd_snapshot *snap)
{
    const struct misd_channels *ch = &r->x->channels;

    for (unsigned c = 0; c < ch->nb; c++) {
        if (bcast_release(ch->b[c], r->number) != 0)
            return false;
        snap->position[c] = bcast_position(ch->b[c], r->number);
    }
    return true;
}

void
misd_snapshot_give(struct misd_replica *r)
{
    struct misd_snapshot *snap = &r->x->snapshot;

    if (likely(__atomic_load_n(&snap->wanted, __ATOMIC_RELAXED) == 0) || !rte_spinlock_trylock(&snap->lock))
        return;
    if (!snap->valid && take_positions(r, snap)) {
        tcp_domain_copy(snap->domain, r->domain);
        snap->applied = r->applied;
        snap->now_us = r->now_us;
        snap->valid = true;
        counter_inc(net_queue(r->net)->ctr, CTR_MISD_SNAPSHOTS);
    }
    rte_spinlock_unlock(&snap->lock);
}

/* Come in again where the snapshot was taken; false: it is too old. */
static bool
skip_to(const struct misd_replica *r, const struct misd_snapshot *snap)
{
    const struct misd_channels *ch = &r->x->channels;

    for (unsigned c = 0; c < ch->nb; c++)
        if (bcast_skip(ch->b[c], r->number, snap->position[c]) != 0)
            return false;
    return true;
}

static void
roll_forward(struct misd_replica *r, const struct misd_snapshot *snap)
{
    tcp_domain_copy(r->domain, snap->domain);
    r->now_us = snap->now_us;
    r->taken = snap->applied;
    __atomic_store_n(&r->applied, snap->applied, __ATOMIC_RELEASE);
    r->next = r->count = 0;
    r->log_head = r->log_tail = 0;
    r->log_from = snap->applied;
    counter_inc(net_queue(r->net)->ctr, CTR_MISD_ROLLED_FORWARD);
}

bool
misd_snapshot_take(struct misd_replica *r)
{
    struct misd_snapshot *snap = &r->x->snapshot;
    uint32_t own = 1u << r->number;
    bool in = false;

    __atomic_fetch_or(&snap->wanted, own, __ATOMIC_RELAXED);
    if (!rte_spinlock_trylock(&snap->lock))
        return false;
    if (snap->valid) {
        in = skip_to(r, snap);
        if (in) {
            roll_forward(r, snap);
            __atomic_fetch_and(&snap->wanted, ~own, __ATOMIC_RELAXED);
        }
        /* One that was too old is of use to nobody, one that has been taken to whoever still waits: they ask again. */
        snap->valid = in && __atomic_load_n(&snap->wanted, __ATOMIC_RELAXED) != 0;
    }
    rte_spinlock_unlock(&snap->lock);
    return in;
}

/* ---- comparison ------------------------------------------------------------------------------------------------------------ */

#define DIGEST_BITS 48

void
misd_check(struct misd_replica *r, uint64_t number)
{
    struct counters *ctr = net_queue(r->net)->ctr;
    uint64_t *slot = &r->x->checks[number % MISD_CHECKS];
    uint64_t digest = tcp_domain_digest(r->domain) & ((UINT64_C(1) << DIGEST_BITS) - 1);
    uint64_t own = number << DIGEST_BITS | digest;
    uint64_t first = __atomic_load_n(slot, __ATOMIC_RELAXED);

    counter_inc(ctr, CTR_MISD_CHECKS);
    while ((int16_t)((first >> DIGEST_BITS) - number) < 0)
        if (__atomic_compare_exchange_n(slot, &first, own, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return;
    /* Of a later check: this replica is so far behind that nothing is left to compare with. */
    if (first >> DIGEST_BITS != own >> DIGEST_BITS || first == own)
        return;
    if (ctr->v[CTR_MISD_MISMATCHES] == 0)
        LOG_ERR("replica %u differs from another one at check %lu", r->number, (unsigned long)number);
    counter_inc(ctr, CTR_MISD_MISMATCHES);
}
