/* SPDX-License-Identifier: BSD-3-Clause */
#include "modes/misd.h"

#include <errno.h>

/** Of the merged order each place whose number is a multiple of this is for calls first, so that no stream of packets keeps them waiting. */
#define CALLS_TURN 8u

/* ---- taking events --------------------------------------------------------------------------------------------------------- */

/* The channel scheduler's rule (Dominoes, section 3.2): is it a request that fills the congestion window? */
static bool
fills_window(const struct misd_replica *r, const struct tcp_call *call)
{
    struct tcp_conn_info info;

    return call->op == TCP_CALL_SEND && tcp_info(r->domain, call->id, &info) &&
           info.snd_queued - info.snd_unsent < info.cwnd_bytes;
}

/* Which channel is next, by the heads of both and the replica's state. Returns it, -ENOENT: both are empty, -ESTALE. */
static int
schedule(const struct misd_replica *r)
{
    struct misd_channels *ch = &r->x->channels;
    struct misd_event call;
    uint64_t packet;
    int calls = bcast_peek(ch->b[MISD_CALLS], r->number, &call, sizeof(call));
    int packets = bcast_peek(ch->b[MISD_PACKETS], r->number, &packet, sizeof(packet));

    if (calls < 0 || packets < 0)
        return -ESTALE;
    if (calls == 0)
        return packets > 0 ? MISD_PACKETS : -ENOENT;
    if (packets == 0 || r->taken % CALLS_TURN == 0 || (call.kind == MISD_CALL && fills_window(r, &call.call)))
        return MISD_CALLS;
    return MISD_PACKETS;
}

/* The channel of the next place in the merged order: as whoever came first has decided. */
static int
next_channel(const struct misd_replica *r)
{
    uint64_t *word = &r->x->channels.order[r->taken & (MISD_ORDER - 1)];
    uint64_t place = r->taken + 1;
    /* Pairs with the release below: who sees the decision sees the entry that it was about. */
    uint64_t old = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    int c;

    if (old >> 1 < place) {
        c = schedule(r);
        if (c < 0)
            return c;
        if (__atomic_compare_exchange_n(word, &old, place << 1 | (unsigned)c, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return c;
    }
    /* Further on: the order has come round since this replica was last in it. */
    return old >> 1 == place ? (int)(old & 1) : -ESTALE;
}

static int
take_merged(struct misd_replica *r)
{
    int got = 0;

    while (got < (int)MISD_BURST) {
        unsigned at = r->count + (unsigned)got;
        int c = next_channel(r);
        uint64_t primary;
        struct bcast *b;
        int n;

        if (c < 0)
            return got > 0 || c == -ENOENT ? got : c;
        b = r->x->channels.b[c];
        n = bcast_dequeue(b, r->number, &r->event[at], &primary, 1);
        if (n <= 0)
            return got > 0 ? got : n;
        r->origin[at] = (struct misd_origin){
            .position = bcast_position(b, r->number) - 1,
            .channel = (unsigned)c,
            .primary = primary != 0,
        };
        r->taken++;
        got++;
    }
    return got;
}

static int
take_single(struct misd_replica *r)
{
    struct bcast *b = r->x->channels.b[MISD_CALLS];
    uint64_t position = bcast_position(b, r->number);
    uint64_t primary;
    int n = bcast_dequeue(b, r->number, &r->event[r->count], &primary, MISD_BURST);

    for (int i = 0; i < n; i++)
        r->origin[r->count + (unsigned)i] = (struct misd_origin){
            .position = position + (unsigned)i,
            .channel = MISD_CALLS,
            .primary = (primary >> i & 1) != 0,
        };
    if (n > 0)
        r->taken += (unsigned)n;
    return n;
}

/* ---- checksums ------------------------------------------------------------------------------------------------------------- */

static uint64_t *
verdict_of(const struct misd_replica *r, uint64_t position)
{
    return &r->x->verdict[position % RTE_DIM(r->x->verdict)];
}

bool
misd_verdict(const struct misd_replica *r, bool *good)
{
    uint64_t position = r->origin[r->next].position;
    uint64_t word;

    *good = true;
    if (r->event[r->next].csum_len == 0)
        return true;
    /* Pairs with the release in misd_verify: the buffer has been read before somebody frees it. */
    word = __atomic_load_n(verdict_of(r, position), __ATOMIC_ACQUIRE);
    *good = word & 1;
    return word >> 1 == position + 1;
}

/* The buffer may be another packet's by now, if somebody was faster: then what is found out here is worth nothing, and not kept. */
bool
misd_verify(struct misd_replica *r, unsigned i)
{
    const struct misd_event *ev = &r->event[i];
    const struct tcp_in *in = &ev->call.in;
    const struct rte_mbuf *m = pktpool_mbuf(host_pool(r->x->host), in->data.buf);
    uint64_t place = r->origin[i].position + 1;
    uint64_t *word = verdict_of(r, r->origin[i].position);
    uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED);
    bool good =
        ip_tcp_csum_ok((const char *)m->buf_addr + ev->csum_off, ev->csum_len, &in->tuple.remote, &in->tuple.local);

    counter_inc(net_queue(r->net)->ctr, CTR_MISD_VERIFIED);
    if (old >> 1 < place &&
        __atomic_compare_exchange_n(word, &old, place << 1 | good, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        return true;
    return old >> 1 == place;
}

bool
misd_take(struct misd_replica *r)
{
    unsigned from = r->count;
    int n;

    if (r->count + MISD_BURST > MISD_AHEAD)
        return false;
    n = r->x->channels.nb > 1 ? take_merged(r) : take_single(r);
    r->stale = n < 0;
    if (n <= 0)
        return false;
    r->count += (unsigned)n;
    for (unsigned i = from; i < r->count; i++)
        if (r->origin[i].primary && r->event[i].csum_len != 0)
            misd_verify(r, i);
    return true;
}
