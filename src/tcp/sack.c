/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/sack.h"

static void
range_free(struct tcp_sack_store s, struct tcp_sack_board *b, uint32_t i)
{
    b->bytes -= seq_diff(s.ranges[i].end, s.ranges[i].start);
    b->count--;
    tcp_pool_put(s.pool, s.ranges, sizeof(*s.ranges), i);
}

/** Swallow the ranges after i that begin at or before its end. */
static void
range_join(struct tcp_sack_store s, struct tcp_sack_board *b, uint32_t i)
{
    struct tcp_sack_range *r = &s.ranges[i];

    while (r->next != 0 && seq_leq(s.ranges[r->next].start, r->end)) {
        uint32_t n = r->next;
        tcp_seq end = s.ranges[n].end;
        r->next = s.ranges[n].next;
        range_free(s, b, n);
        if (seq_gt(end, r->end)) {
            b->bytes += seq_diff(end, r->end);
            r->end = end;
        }
    }
}

static void
range_insert(struct tcp_sack_store s, struct tcp_sack_board *b, uint32_t *link, tcp_seq start, tcp_seq end)
{
    if (b->count >= TCP_SACK_RANGES_MAX)
        return;
    uint32_t i = tcp_pool_get(s.pool, s.ranges, sizeof(*s.ranges));
    if (i == 0)
        return;
    s.ranges[i] = (struct tcp_sack_range){ .next = *link, .start = start, .end = end };
    *link = i;
    b->count++;
    b->bytes += seq_diff(end, start);
}

uint32_t
tcp_sack_add(struct tcp_sack_store s, struct tcp_sack_board *b, tcp_seq start, tcp_seq end)
{
    uint32_t before = b->bytes;
    uint32_t *link = &b->head;

    while (*link != 0 && seq_lt(s.ranges[*link].end, start))
        link = &s.ranges[*link].next;
    if (*link == 0 || seq_lt(end, s.ranges[*link].start)) {
        range_insert(s, b, link, start, end);
        return b->bytes - before;
    }
    struct tcp_sack_range *r = &s.ranges[*link];
    if (seq_lt(start, r->start)) {
        b->bytes += seq_diff(r->start, start);
        r->start = start;
    }
    if (seq_gt(end, r->end)) {
        b->bytes += seq_diff(end, r->end);
        r->end = end;
        range_join(s, b, *link);
    }
    return b->bytes - before;
}

void
tcp_sack_advance(struct tcp_sack_store s, struct tcp_sack_board *b, tcp_seq una)
{
    while (b->head != 0) {
        struct tcp_sack_range *r = &s.ranges[b->head];
        if (seq_gt(r->end, una)) {
            if (seq_lt(r->start, una)) {
                b->bytes -= seq_diff(una, r->start);
                r->start = una;
            }
            return;
        }
        uint32_t i = b->head;
        b->head = r->next;
        range_free(s, b, i);
    }
}

void
tcp_sack_clear(struct tcp_sack_store s, struct tcp_sack_board *b)
{
    while (b->head != 0) {
        uint32_t i = b->head;
        b->head = s.ranges[i].next;
        range_free(s, b, i);
    }
}

uint32_t
tcp_sack_missing(struct tcp_sack_store s, const struct tcp_sack_board *b, tcp_seq from, tcp_seq to)
{
    if (seq_geq(from, to))
        return 0;
    uint32_t n = seq_diff(to, from);
    for (uint32_t i = b->head; i != 0 && seq_lt(s.ranges[i].start, to); i = s.ranges[i].next) {
        tcp_seq lo = seq_lt(s.ranges[i].start, from) ? from : s.ranges[i].start;
        tcp_seq hi = seq_gt(s.ranges[i].end, to) ? to : s.ranges[i].end;
        if (seq_gt(hi, lo))
            n -= seq_diff(hi, lo);
    }
    return n;
}

bool
tcp_sack_hole(struct tcp_sack_store s, const struct tcp_sack_board *b, tcp_seq from, tcp_seq limit, tcp_seq *start,
              tcp_seq *end)
{
    uint32_t i = b->head;

    while (i != 0 && seq_leq(s.ranges[i].start, from)) {
        if (seq_gt(s.ranges[i].end, from))
            from = s.ranges[i].end;
        i = s.ranges[i].next;
    }
    if (seq_geq(from, limit))
        return false;
    *start = from;
    *end = i != 0 && seq_lt(s.ranges[i].start, limit) ? s.ranges[i].start : limit;
    return true;
}

tcp_seq
tcp_sack_lost_below(struct tcp_sack_store s, const struct tcp_sack_board *b, tcp_seq una, uint32_t dup_thresh,
                    uint32_t mss)
{
    uint32_t bytes_above = b->bytes;
    uint32_t ranges_above = b->count;
    tcp_seq lost = una;

    for (uint32_t i = b->head; i != 0; i = s.ranges[i].next) {
        if (ranges_above < dup_thresh && bytes_above <= (dup_thresh - 1) * mss)
            break;
        lost = s.ranges[i].start;
        bytes_above -= seq_diff(s.ranges[i].end, s.ranges[i].start);
        ranges_above--;
    }
    return lost;
}

tcp_seq
tcp_sack_highest(struct tcp_sack_store s, const struct tcp_sack_board *b, tcp_seq una)
{
    tcp_seq end = una;

    for (uint32_t i = b->head; i != 0; i = s.ranges[i].next)
        end = s.ranges[i].end;
    return end;
}
