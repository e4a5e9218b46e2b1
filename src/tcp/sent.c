/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/sent.h"

#include "tcp/guard.h"

void
tcp_sent_init(struct tcp_sent *s, tcp_seq una)
{
    *s = (struct tcp_sent){ .una = una, .fack = una };
}

static uint32_t
run_get(struct tcp_sent_store st, struct tcp_sent *s)
{
    bool first = s->head == 0;

    if (!first && s->count >= TCP_SENT_RUNS_MAX)
        return 0;
    uint32_t i = shared_pool_get(st.locks, TCP_INNER_SENT, st.pool, st.runs, sizeof(*st.runs), first ? 0 : st.reserve);
    if (i != 0)
        s->count++;
    return i;
}

static void
run_put(struct tcp_sent_store st, struct tcp_sent *s, uint32_t i)
{
    s->count--;
    shared_pool_put(st.locks, TCP_INNER_SENT, st.pool, st.runs, sizeof(*st.runs), i);
}

/** The sums lose n bytes of these flags. */
static void
uncount(struct tcp_sent *s, uint32_t flags, uint32_t n)
{
    if (flags & TCP_SENT_SACKED)
        s->sacked_bytes -= n;
    if (flags & TCP_SENT_LOST)
        s->lost_bytes -= n;
}

/** There is no room for another run: the older bytes of the last one count as sent now, so that loss is seen late rather than where there is none. */
static __attribute__((noinline)) void
forget_fate_of_last(struct tcp_sent_store st, struct tcp_sent *s)
{
    const struct tcp_sent_run *t = &st.runs[s->tail];
    tcp_seq start = s->una;

    for (uint32_t k = s->head; k != s->tail; k = st.runs[k].next)
        start = st.runs[k].end;
    uncount(s, t->flags, seq_diff(t->end, start));
}

/* Of each segment: where optimised across files it is to be no call. */
inline struct tcp_rate_mark *
tcp_sent_append(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq end, uint32_t now_us, bool push)
{
    struct tcp_sent_run *t = &st.runs[s->tail];
    bool same = s->tail != 0 && t->flags == 0 && t->sent_us == now_us;
    uint32_t i = same ? 0 : run_get(st, s);

    if (i == 0) {
        if (t->flags & (TCP_SENT_SACKED | TCP_SENT_LOST))
            forget_fate_of_last(st, s);
    } else {
        if (s->tail != 0)
            t->next = i & TCP_SENT_INDEX_MASK;
        else
            s->head = i;
        s->tail = i;
        t = &st.runs[i];
        t->next = 0;
    }
    t->end = end;
    t->sent_us = now_us;
    t->flags = push ? TCP_SENT_PUSH : 0;
    return &t->mark;
}

/** [start, end) of a run whose fate was open has arrived. */
static void
note_delivered(struct tcp_sent_store st, uint32_t i, tcp_seq start, tcp_seq end, struct tcp_sent_news *n)
{
    const struct tcp_sent_run *r = &st.runs[i];

    n->delivered_bytes += seq_diff(end, start);
    if ((r->flags & TCP_SENT_RETRANS) == 0) {
        if (!n->has_rtt || (int32_t)(r->sent_us - n->oldest_us) < 0)
            n->oldest_us = r->sent_us;
        if (!n->has_rtt || (int32_t)(r->sent_us - n->newest_us) > 0)
            n->newest_us = r->sent_us;
        n->has_rtt = true;
        if (seq_leq(end, n->recover))
            n->orig_below = true;
        if (n->had_sacked && seq_lt(start, n->prior_fack) && (!n->reordered || seq_lt(start, n->reordered_at))) {
            n->reordered = true;
            n->reordered_at = start;
        }
    }
    if (r->flags & TCP_SENT_RETRANS)
        n->retrans = true;
    if (!n->has_last || tcp_sent_after(r->sent_us, end, n->last_us, n->last_end)) {
        n->has_last = true;
        n->last_us = r->sent_us;
        n->last_end = end;
        n->last_mark = r->mark;
        n->last_retrans = (r->flags & TCP_SENT_RETRANS) != 0;
    }
}

void
tcp_sent_ack(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq una, struct tcp_sent_news *n)
{
    while (s->head != 0 && seq_lt(s->una, una)) {
        uint32_t i = s->head;
        struct tcp_sent_run *r = &st.runs[i];
        tcp_seq end = seq_lt(r->end, una) ? r->end : una;
        if ((r->flags & TCP_SENT_SACKED) == 0)
            note_delivered(st, i, s->una, end, n);
        uncount(s, r->flags, seq_diff(end, s->una));
        s->una = end;
        if (end != r->end)
            break;
        s->head = r->next;
        if (s->head == 0)
            s->tail = 0;
        run_put(st, s, i);
    }
    s->una = una;
}

bool
tcp_sent_once(struct tcp_sent_store st, const struct tcp_sent *s, tcp_seq una, const struct tcp_sent_run **first,
              const struct tcp_sent_run **last)
{
    const struct tcp_sent_run *r = &st.runs[s->head];
    uint32_t flags = r->flags;

    *first = r;
    while (seq_lt(r->end, una) && r->next != 0) {
        r = &st.runs[r->next];
        flags |= r->flags;
    }
    *last = r;
    return (flags & ~TCP_SENT_PUSH) == 0;
}

void
tcp_sent_ack_once(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq una)
{
    uint32_t i = s->head, next;

    for (; i != 0 && seq_leq(st.runs[i].end, una); i = next) {
        next = st.runs[i].next;
        run_put(st, s, i);
    }
    s->head = i;
    if (i == 0)
        s->tail = 0;
    s->una = una;
}

/** Cut run i at a place inside of it: the rest becomes a run of its own. False if there is no room. */
static bool
run_split(struct tcp_sent_store st, struct tcp_sent *s, uint32_t i, tcp_seq at)
{
    uint32_t k = run_get(st, s);

    if (k == 0)
        return false;
    st.runs[k] = st.runs[i];
    st.runs[i].next = k & TCP_SENT_INDEX_MASK;
    st.runs[i].end = at;
    st.runs[i].flags &= TCP_SENT_FLAGS & ~TCP_SENT_PUSH;
    if (s->tail == i)
        s->tail = k;
    return true;
}

/** Join run i with the next if both are SACKed: when they were sent does not matter any more. */
static void
join_sacked(struct tcp_sent_store st, struct tcp_sent *s, uint32_t i)
{
    uint32_t k = st.runs[i].next;

    if (k == 0 || (st.runs[i].flags & st.runs[k].flags & TCP_SENT_SACKED) == 0)
        return;
    st.runs[i].end = st.runs[k].end;
    st.runs[i].flags |= st.runs[k].flags & TCP_SENT_PUSH;
    st.runs[i].next = st.runs[k].next;
    if (s->tail == k)
        s->tail = i;
    run_put(st, s, k);
}

void
tcp_sent_sack(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq start, tcp_seq end, struct tcp_sent_news *n)
{
    tcp_seq at = s->una;
    uint32_t prev = 0;

    for (uint32_t i = s->head; i != 0 && seq_lt(at, end);) {
        struct tcp_sent_run *r = &st.runs[i];
        if (seq_leq(r->end, start) || (r->flags & TCP_SENT_SACKED) != 0) {
            prev = i;
            at = r->end;
            i = r->next;
            continue;
        }
        if (seq_lt(at, start)) {
            if (!run_split(st, s, i, start))
                return;
            continue;
        }
        if (seq_gt(r->end, end) && !run_split(st, s, i, end))
            return;
        note_delivered(st, i, at, r->end, n);
        uncount(s, r->flags, seq_diff(r->end, at));
        s->sacked_bytes += seq_diff(r->end, at);
        r->flags = (r->flags & TCP_SENT_PUSH) | TCP_SENT_SACKED;
        if (s->sacked_bytes == seq_diff(r->end, at) || seq_gt(r->end, s->fack))
            s->fack = r->end;
        join_sacked(st, s, i);
        if (prev != 0 && (st.runs[prev].flags & TCP_SENT_SACKED) != 0) {
            join_sacked(st, s, prev);
            i = prev;
        }
        prev = i;
        at = st.runs[i].end;
        i = st.runs[i].next;
    }
}

static uint32_t
run_lose(struct tcp_sent *s, struct tcp_sent_run *r, tcp_seq start)
{
    uint32_t n = seq_diff(r->end, start);

    r->flags |= TCP_SENT_LOST;
    s->lost_bytes += n;
    return n;
}

uint32_t
tcp_sent_detect(struct tcp_sent_store st, struct tcp_sent *s, uint32_t rack_us, tcp_seq rack_end, uint32_t window_us,
                uint32_t now_us)
{
    uint32_t wait_us = 0;
    tcp_seq start = s->una;

    for (uint32_t i = s->head; i != 0; start = st.runs[i].end, i = st.runs[i].next) {
        struct tcp_sent_run *r = &st.runs[i];
        if ((r->flags & (TCP_SENT_SACKED | TCP_SENT_LOST)) != 0 ||
            !tcp_sent_after(rack_us, rack_end, r->sent_us, r->end))
            continue;
        int32_t left_us = (int32_t)(r->sent_us + window_us - now_us);
        if (left_us <= 0)
            run_lose(s, r, start);
        else if ((uint32_t)left_us > wait_us)
            wait_us = (uint32_t)left_us;
    }
    return wait_us;
}

uint32_t
tcp_sent_lose_below(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq end)
{
    uint32_t lost = 0;
    tcp_seq start = s->una;

    for (uint32_t i = s->head; i != 0 && seq_lt(start, end); start = st.runs[i].end, i = st.runs[i].next) {
        if (st.runs[i].flags & (TCP_SENT_SACKED | TCP_SENT_LOST))
            continue;
        if (seq_gt(st.runs[i].end, end) && !run_split(st, s, i, end) && start != s->una)
            break;
        lost += run_lose(s, &st.runs[i], start);
    }
    return lost;
}

void
tcp_sent_lose_old(struct tcp_sent_store st, struct tcp_sent *s, uint32_t window_us, uint32_t now_us)
{
    tcp_seq start = s->una;

    for (uint32_t i = s->head; i != 0; start = st.runs[i].end, i = st.runs[i].next) {
        struct tcp_sent_run *r = &st.runs[i];
        bool young = (int32_t)(r->sent_us + window_us - now_us) > 0;
        if ((r->flags & (TCP_SENT_SACKED | TCP_SENT_LOST)) != 0 || (young && i != s->head))
            continue;
        run_lose(s, r, start);
    }
}

void
tcp_sent_unlose(struct tcp_sent_store st, struct tcp_sent *s)
{
    for (uint32_t i = s->head; i != 0; i = st.runs[i].next)
        st.runs[i].flags &= TCP_SENT_FLAGS & ~TCP_SENT_LOST;
    s->lost_bytes = 0;
}

void
tcp_sent_renege(struct tcp_sent_store st, struct tcp_sent *s)
{
    /* When it was sent was forgotten as it was SACKed; that it may have been sent twice is the safe belief. */
    for (uint32_t i = s->head; i != 0; i = st.runs[i].next)
        if (st.runs[i].flags & TCP_SENT_SACKED)
            st.runs[i].flags = (st.runs[i].flags & TCP_SENT_PUSH) | TCP_SENT_RETRANS;
    s->sacked_bytes = 0;
}

bool
tcp_sent_loses_beyond(struct tcp_sent_store st, const struct tcp_sent *s, tcp_seq at)
{
    for (uint32_t i = s->head; i != 0; i = st.runs[i].next)
        if ((st.runs[i].flags & TCP_SENT_LOST) != 0 && seq_gt(st.runs[i].end, at))
            return true;
    return false;
}

bool
tcp_sent_next_lost(struct tcp_sent_store st, const struct tcp_sent *s, tcp_seq *start, tcp_seq *end, bool *push)
{
    tcp_seq at = s->una;

    if (s->lost_bytes == 0)
        return false;
    for (uint32_t i = s->head; i != 0; at = st.runs[i].end, i = st.runs[i].next) {
        if ((st.runs[i].flags & TCP_SENT_LOST) == 0)
            continue;
        *start = at;
        *end = st.runs[i].end;
        *push = (st.runs[i].flags & TCP_SENT_PUSH) != 0;
        return true;
    }
    return false;
}

bool
tcp_sent_last(struct tcp_sent_store st, const struct tcp_sent *s, tcp_seq *start, tcp_seq *end, bool *push)
{
    tcp_seq at = s->una;

    if (s->head == 0)
        return false;
    for (uint32_t i = s->head; i != s->tail; i = st.runs[i].next)
        at = st.runs[i].end;
    *start = at;
    *end = st.runs[s->tail].end;
    *push = (st.runs[s->tail].flags & TCP_SENT_PUSH) != 0;
    return true;
}

void
tcp_sent_again(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq start, tcp_seq end, const struct tcp_rate_mark *m,
               uint32_t now_us)
{
    tcp_seq at = s->una;
    uint32_t i = s->head;

    while (i != 0 && seq_leq(st.runs[i].end, start)) {
        at = st.runs[i].end;
        i = st.runs[i].next;
    }
    if (i == 0)
        return;
    if (seq_lt(at, start) && run_split(st, s, i, start)) {
        at = start;
        i = st.runs[i].next;
    }
    /* Without room for a split all of the run counts as sent again: the timer repairs what is missing of it. */
    if (seq_gt(st.runs[i].end, end))
        run_split(st, s, i, end);
    struct tcp_sent_run *r = &st.runs[i];
    uncount(s, r->flags, seq_diff(r->end, at));
    r->flags = (r->flags & TCP_SENT_PUSH) | TCP_SENT_RETRANS;
    r->sent_us = now_us;
    r->mark = *m;
}

const struct tcp_rate_mark *
tcp_sent_lost_mark(struct tcp_sent_store st, const struct tcp_sent *s)
{
    uint32_t last = 0;

    for (uint32_t i = s->head; i != 0; i = st.runs[i].next)
        if (st.runs[i].flags & TCP_SENT_LOST)
            last = i;
    return last != 0 ? &st.runs[last].mark : NULL;
}

uint32_t
tcp_sent_retrans_bytes(struct tcp_sent_store st, const struct tcp_sent *s)
{
    uint32_t n = 0;
    tcp_seq start = s->una;

    for (uint32_t i = s->head; i != 0; start = st.runs[i].end, i = st.runs[i].next)
        if ((st.runs[i].flags & (TCP_SENT_RETRANS | TCP_SENT_LOST | TCP_SENT_SACKED)) == TCP_SENT_RETRANS)
            n += seq_diff(st.runs[i].end, start);
    return n;
}

void
tcp_sent_clear(struct tcp_sent_store st, struct tcp_sent *s)
{
    while (s->head != 0) {
        uint32_t i = s->head;
        s->head = st.runs[i].next;
        run_put(st, s, i);
    }
    s->tail = 0;
    s->sacked_bytes = s->lost_bytes = 0;
}
