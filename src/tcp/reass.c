/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/reass.h"

#include "tcp/guard.h"

static tcp_seq
seg_end(const struct tcp_reass_seg *g)
{
    return g->seq + g->data.len;
}

static uint32_t
seg_get(struct tcp_reass_store s)
{
    return shared_pool_get(s.locks, TCP_INNER_REASS, s.pool, s.segs, sizeof(*s.segs), 0);
}

static void
seg_put(struct tcp_reass_store s, uint32_t i)
{
    shared_pool_put(s.locks, TCP_INNER_REASS, s.pool, s.segs, sizeof(*s.segs), i);
}

static void
seg_free(struct tcp_reass_store s, struct tcp_reass *q, uint32_t i)
{
    q->bytes -= s.segs[i].data.len;
    q->count--;
    seg_put(s, i);
}

/** Remove the segments after prev that [.., end) covers whole; the first that it covers in part shortens it. */
static tcp_seq
cut_successors(struct tcp_reass_store s, struct tcp_reass *q, uint32_t *link, tcp_seq end, const struct tcp_sink *sink)
{
    while (*link != 0) {
        uint32_t i = *link;
        struct tcp_reass_seg *g = &s.segs[i];
        if (seq_geq(g->seq, end))
            break;
        if (seq_gt(seg_end(g), end))
            return g->seq;
        *link = g->next;
        sink->release(sink->ctx, g->data.buf);
        seg_free(s, q, i);
    }
    return end;
}

/** The segment before which [seq, ..) goes: the last that begins at or before seq, 0 if it goes first. */
static uint32_t
find_before(struct tcp_reass_store s, const struct tcp_reass *q, tcp_seq seq)
{
    if (q->tail != 0 && seq_leq(s.segs[q->tail].seq, seq))
        return q->tail;
    uint32_t prev = 0;
    for (uint32_t i = q->head; i != 0 && seq_leq(s.segs[i].seq, seq); i = s.segs[i].next)
        prev = i;
    return prev;
}

enum tcp_reass_result
tcp_reass_insert(struct tcp_reass_store s, struct tcp_reass *q, tcp_seq seq, struct tcp_data data, uint32_t max_segs,
                 const struct tcp_sink *sink)
{
    uint32_t prev = find_before(s, q, seq);

    if (prev != 0 && seq_gt(seg_end(&s.segs[prev]), seq)) {
        uint32_t overlap = seq_diff(seg_end(&s.segs[prev]), seq);
        if (overlap >= data.len)
            return TCP_REASS_DUP;
        data.off += overlap;
        data.len -= overlap;
        seq += overlap;
    }
    if (q->count >= max_segs)
        return TCP_REASS_FULL;
    uint32_t i = seg_get(s);
    if (i == 0)
        return TCP_REASS_FULL;

    uint32_t *link = prev != 0 ? &s.segs[prev].next : &q->head;
    tcp_seq end = cut_successors(s, q, link, seq + data.len, sink);
    data.len = seq_diff(end, seq);
    if (data.len == 0) {
        seg_put(s, i);
        return TCP_REASS_DUP;
    }
    s.segs[i] = (struct tcp_reass_seg){ .next = *link, .seq = seq, .data = data };
    *link = i;
    if (s.segs[i].next == 0)
        q->tail = i;
    q->count++;
    q->bytes += data.len;
    return TCP_REASS_KEPT;
}

bool
tcp_reass_pop(struct tcp_reass_store s, struct tcp_reass *q, tcp_seq limit, struct tcp_data *data)
{
    uint32_t i = q->head;

    if (i == 0 || seq_gt(s.segs[i].seq, limit))
        return false;
    *data = s.segs[i].data;
    uint32_t skip = seq_diff(limit, s.segs[i].seq);
    if (skip > data->len)
        skip = data->len;
    q->head = s.segs[i].next;
    if (q->head == 0)
        q->tail = 0;
    seg_free(s, q, i);
    data->off += skip;
    data->len -= skip;
    return true;
}

tcp_seq
tcp_reass_run(struct tcp_reass_store s, const struct tcp_reass *q, tcp_seq from)
{
    for (uint32_t i = q->head; i != 0 && seq_leq(s.segs[i].seq, from); i = s.segs[i].next)
        if (seq_gt(seg_end(&s.segs[i]), from))
            from = seg_end(&s.segs[i]);
    return from;
}

struct tcp_sack_block
tcp_reass_held(struct tcp_reass_store s, const struct tcp_reass *q, tcp_seq start, tcp_seq end)
{
    struct tcp_sack_block held = { start, start };

    if (q->tail == 0 || seq_leq(seg_end(&s.segs[q->tail]), start))
        return held;
    for (uint32_t i = q->head; i != 0 && seq_lt(s.segs[i].seq, end); i = s.segs[i].next) {
        const struct tcp_reass_seg *g = &s.segs[i];
        if (seq_leq(seg_end(g), start))
            continue;
        if (held.start == held.end)
            held.start = seq_gt(g->seq, start) ? g->seq : start;
        else if (g->seq != held.end)
            break;
        held.end = seq_lt(seg_end(g), end) ? seg_end(g) : end;
    }
    return held;
}

void
tcp_reass_clear(struct tcp_reass_store s, struct tcp_reass *q, const struct tcp_sink *sink)
{
    while (q->head != 0) {
        uint32_t i = q->head;
        q->head = s.segs[i].next;
        sink->release(sink->ctx, s.segs[i].data.buf);
        seg_free(s, q, i);
    }
    q->tail = 0;
    q->nb_sack = 0;
}

void
tcp_reass_sack_note(struct tcp_reass *q, tcp_seq start, tcp_seq end)
{
    struct tcp_sack_block all[TCP_MAX_SACK + 1];
    unsigned n = 1;

    for (unsigned i = 0; i < q->nb_sack; i++) {
        if (seq_geq(q->sack[i].end, start) && seq_leq(q->sack[i].start, end)) {
            if (seq_lt(q->sack[i].start, start))
                start = q->sack[i].start;
            if (seq_gt(q->sack[i].end, end))
                end = q->sack[i].end;
        } else {
            all[n++] = q->sack[i];
        }
    }
    all[0] = (struct tcp_sack_block){ start, end };
    if (n > TCP_MAX_SACK)
        n = TCP_MAX_SACK;
    for (unsigned i = 0; i < n; i++)
        q->sack[i] = all[i];
    q->nb_sack = (uint8_t)n;
}

void
tcp_reass_sack_advance(struct tcp_reass *q, tcp_seq rcv_nxt)
{
    unsigned n = 0;

    for (unsigned i = 0; i < q->nb_sack; i++)
        if (seq_gt(q->sack[i].start, rcv_nxt))
            q->sack[n++] = q->sack[i];
    q->nb_sack = (uint8_t)n;
}
