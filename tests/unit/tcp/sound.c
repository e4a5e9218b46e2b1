/* SPDX-License-Identifier: BSD-3-Clause */
#include "sound.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tcp/domain.h"

/** What a walk over a domain has found; each is to be what the domain itself counts. */
struct census {
    uint32_t pool[POOL_COUNT];
    uint32_t in_table[TABLE_PARKED + 1];
    uint32_t parked;
    uint32_t listeners, pending, dead; /**< connections that wait to be accepted; of these, ended */
    uint32_t md5_keys_set;
    uint32_t half_open, accept_count; /**< sums of what the listeners say */
    uint32_t *refs; /**< [max binds + 1] */
};

/* Each index that is followed leads to an entry that has been given out. */
static uint32_t
valid(const struct tcp_domain *d, enum domain_pool pool, uint32_t i)
{
    assert_in_range(i, 1, d->pools[pool].high);
    return i;
}

static void
refer(const struct tcp_domain *d, struct census *n, uint32_t bind)
{
    if (bind != 0)
        n->refs[valid(d, POOL_BIND, bind)]++;
}

/* ---- connections ----------------------------------------------------------------------------------------------------------- */

static void
look_at_sent(const struct tcp_domain *d, struct census *n, const struct tcp_conn *c)
{
    const struct tcp_sent_run *runs = domain_array(d, POOL_SENT);
    tcp_seq at = c->sent.una;
    uint32_t count = 0, sacked = 0, lost = 0;

    for (uint32_t i = c->sent.head; i != 0; i = runs[i].next) {
        const struct tcp_sent_run *r = &runs[valid(d, POOL_SENT, i)];

        assert_true(seq_gt(r->end, at));
        if (r->flags & TCP_SENT_SACKED)
            sacked += seq_diff(r->end, at);
        else if (r->flags & TCP_SENT_LOST)
            lost += seq_diff(r->end, at);
        at = r->end;
        count++;
        if (r->next == 0)
            assert_int_equal(c->sent.tail, i);
    }
    assert_int_equal(count, c->sent.count);
    assert_int_equal(sacked, c->sent.sacked_bytes);
    assert_int_equal(lost, c->sent.lost_bytes);
    if (count > 0) {
        assert_int_equal(c->sent.una, c->snd_una);
        assert_int_equal(at, c->snd_nxt);
    }
    n->pool[POOL_SENT] += count;
}

static void
look_at_reass(const struct tcp_domain *d, struct census *n, const struct tcp_conn *c)
{
    const struct tcp_reass_seg *segs = domain_array(d, POOL_SEG);
    const struct tcp_reass *q;
    uint32_t bytes = 0, count = 0;

    if (c->reass == 0)
        return;
    q = reass_at(d, valid(d, POOL_REASS, c->reass));
    n->pool[POOL_REASS]++;
    for (uint32_t i = q->head; i != 0; i = segs[i].next) {
        const struct tcp_reass_seg *s = &segs[valid(d, POOL_SEG, i)];

        bytes += s->data.len;
        count++;
        if (s->next != 0)
            assert_true(seq_geq(segs[s->next].seq, s->seq + s->data.len));
        else
            assert_int_equal(q->tail, i);
    }
    assert_int_equal(bytes, q->bytes);
    assert_int_equal(count, q->count);
    n->pool[POOL_SEG] += count;
}

static void
look_at_records(const struct tcp_domain *d, struct census *n, const struct tcp_conn *c)
{
    uint32_t i = c->records;

    while (i != 0) {
        const struct tcp_record *r = record_at(d, valid(d, POOL_RECORD, i));

        n->pool[POOL_RECORD]++;
        i = r->next == c->records ? 0 : r->next;
    }
}

static void
look_at_md5(const struct tcp_domain *d, struct census *n, uint32_t list)
{
    const struct tcp_md5_entry *entries = domain_array(d, POOL_MD5);

    for (uint32_t i = list; i != 0; i = entries[i].next) {
        n->pool[POOL_MD5]++;
        n->md5_keys_set += entries[valid(d, POOL_MD5, i)].by_user;
    }
}

/* It lies in c and f; the table has it as `ref`. */
static void
look_at_conn(const struct tcp_domain *d, struct census *n, const struct tcp_conn *c, const struct tcp_flow *f,
             uint32_t ref)
{
    const bool begun = c->state != TCP_ST_SYN_SENT && c->state != TCP_ST_SYN_RECEIVED && c->state != TCP_ST_CLOSED &&
                       (c->flags & CONN_F_FO_CHILD) == 0;

    n->pool[POOL_CONN]++;
    n->pending += (c->flags & CONN_F_PENDING) != 0;
    n->dead += c->state == TCP_ST_CLOSED;
    n->pool[POOL_MODEL] += f->model != 0;
    refer(d, n, c->bind);
    assert_true(c->state != TCP_ST_CLOSED || (c->flags & CONN_F_PENDING));
    assert_true(c->state == TCP_ST_CLOSED || table_find(d, &c->link.tuple) == ref);
    if (begun) {
        assert_true(seq_leq(c->snd_una, c->snd_nxt) && seq_leq(c->snd_nxt, c->snd_end + 1));
        look_at_sent(d, n, c);
        /* What has left the path before its turn shows in the state. */
        assert_true(c->ca_state != CONN_CA_OPEN || (c->dup_acks == 0 && c->sent.sacked_bytes == 0));
    }
    look_at_reass(d, n, c);
    look_at_records(d, n, c);
    look_at_md5(d, n, c->md5);
}

/* Where it lay is nothing any more. */
static void
look_at_parked(const struct tcp_domain *d, struct census *n, uint32_t i, const struct tcp_conn *c,
               const struct tcp_flow *f)
{
    static const union tcp_slot no_slot;

    n->parked++;
    assert_memory_equal(slot_at(d, i), &no_slot, sizeof(no_slot));
    assert_int_equal(parked_at(d, i)->gen, c->gen);
    for (uint32_t b = parked_at(d, i)->more; b != 0; b = park_block_at(d, b)->next)
        n->pool[POOL_PARK] += valid(d, POOL_PARK, b) != 0;
    look_at_conn(d, n, c, f, TABLE_REF(TABLE_PARKED, i));
}

static void
look_at_listener(const struct tcp_domain *d, struct census *n, const struct tcp_listener *l)
{
    uint32_t count = 0;

    n->pool[POOL_CONN]++;
    n->listeners++;
    n->half_open += l->half_open;
    n->accept_count += l->accept_count;
    look_at_md5(d, n, l->md5);
    refer(d, n, l->bind);
    assert_int_equal(bind_at(d, l->bind)->listener, (const union tcp_slot *)(const void *)l - slot_at(d, 0));
    for (uint32_t i = l->accept_head; i != 0; i = conn_at(d, i)->accept_next) {
        assert_true(conn_at(d, valid(d, POOL_CONN, i))->flags & CONN_F_PENDING);
        assert_true(conn_at(d, i)->accept_next != 0 || l->accept_tail == i);
        count++;
    }
    assert_int_equal(count, l->accept_count);
}

static void
look_at_slots(const struct tcp_domain *d, struct census *n)
{
    for (uint32_t i = 1; i <= d->pools[POOL_CONN].high; i++) {
        const union tcp_slot *s = slot_at(d, i);
        struct tcp_conn parked;
        struct tcp_flow flow;

        if (park_read(d, i, &parked, &flow))
            look_at_parked(d, n, i, &parked, &flow);
        else if (s->conn.state == TCP_ST_LISTEN)
            look_at_listener(d, n, &s->listener);
        else if (s->conn.state != 0)
            look_at_conn(d, n, &s->conn, flow_of(&s->conn), TABLE_REF(TABLE_CONN, i));
    }
    assert_int_equal(n->listeners, d->listeners);
    assert_int_equal(n->pending, n->accept_count);
}

/* ---- other entries ------------------------------------------------------------------------------------------------------------ */

static void
look_at_half_open(const struct tcp_domain *d, struct census *n)
{
    for (uint32_t i = 1; i <= d->pools[POOL_HALF].high; i++) {
        const struct tcp_half *h = half_at(d, i);

        if (h->link.tuple.local_port == 0)
            continue;
        n->pool[POOL_HALF]++;
        n->half_open -= listener_by_id(d, h->listener) != NULL;
        assert_int_equal(table_find(d, &h->link.tuple), TABLE_REF(TABLE_HALF, i));
    }
    assert_int_equal(n->half_open, 0);
}

static void
look_at_time_wait(const struct tcp_domain *d, struct census *n)
{
    uint32_t prev = 0;

    for (uint32_t i = d->tw_head; i != 0; prev = i, i = tw_at(d, i)->next) {
        const struct tcp_tw *tw = tw_at(d, valid(d, POOL_TW, i));

        n->pool[POOL_TW]++;
        look_at_md5(d, n, tw->md5);
        refer(d, n, tw->bind);
        assert_int_equal(tw->prev, prev);
        assert_int_equal(table_find(d, &tw->link.tuple), TABLE_REF(TABLE_TW, i));
    }
    assert_int_equal(d->tw_tail, prev);
}

static void
look_at_moved(const struct tcp_domain *d, struct census *n)
{
    const struct tcp_moved *moved = domain_array(d, POOL_MOVED);

    for (uint32_t i = 1; i <= d->pools[POOL_MOVED].high; i++) {
        if (moved[i].link.tuple.local_port == 0)
            continue;
        n->pool[POOL_MOVED]++;
        refer(d, n, moved[i].bind);
        assert_int_equal(table_find(d, &moved[i].link.tuple), TABLE_REF(TABLE_MOVED, i));
    }
}

static void
look_at_ports(const struct tcp_domain *d, struct census *n)
{
    const uint32_t *head = domain_array(d, ARRAY_PORTS);

    for (uint32_t port = 0; port < 65536; port++) {
        for (uint32_t i = head[port]; i != 0; i = bind_at(d, i)->next) {
            const struct tcp_bind *b = bind_at(d, valid(d, POOL_BIND, i));

            n->pool[POOL_BIND]++;
            assert_int_equal(b->port, port);
            assert_int_equal(b->refs, n->refs[i] + (b->user != 0));
        }
    }
}

static const struct tcp_link *
link_at(const struct tcp_domain *d, uint32_t ref)
{
    const uint32_t i = TABLE_INDEX(ref);

    switch (TABLE_KIND(ref)) {
    case TABLE_CONN:
        return &conn_at(d, i)->link;
    case TABLE_HALF:
        return &half_at(d, i)->link;
    case TABLE_TW:
        return &tw_at(d, i)->link;
    case TABLE_PARKED:
        return &parked_at(d, i)->link;
    default:
        return &((const struct tcp_moved *)domain_array(d, POOL_MOVED) + i)->link;
    }
}

static uint32_t
link_next(const struct tcp_domain *d, struct census *n, uint32_t bucket, uint32_t ref)
{
    static const enum domain_pool pool_of[] = { [TABLE_CONN] = POOL_CONN,
                                                [TABLE_HALF] = POOL_HALF,
                                                [TABLE_TW] = POOL_TW,
                                                [TABLE_MOVED] = POOL_MOVED,
                                                [TABLE_PARKED] = POOL_CONN };
    const struct tcp_link *l;

    assert_in_range(TABLE_KIND(ref), TABLE_CONN, TABLE_PARKED);
    valid(d, pool_of[TABLE_KIND(ref)], TABLE_INDEX(ref));
    n->in_table[TABLE_KIND(ref)]++;
    l = link_at(d, ref);
    assert_int_equal(l->hash & d->bucket_mask, bucket);
    return l->hash_next;
}

static void
look_at_table(const struct tcp_domain *d, struct census *n)
{
    const uint32_t *bucket = domain_array(d, ARRAY_BUCKETS);

    for (uint32_t i = 0; i <= d->bucket_mask; i++)
        for (uint32_t ref = bucket[i]; ref != 0;)
            ref = link_next(d, n, i, ref);
    assert_int_equal(n->in_table[TABLE_CONN], n->pool[POOL_CONN] - n->listeners - n->dead - n->parked);
    assert_int_equal(n->in_table[TABLE_PARKED], n->parked);
    assert_int_equal(n->in_table[TABLE_HALF], n->pool[POOL_HALF]);
    assert_int_equal(n->in_table[TABLE_TW], n->pool[POOL_TW]);
    assert_int_equal(n->in_table[TABLE_MOVED], n->pool[POOL_MOVED]);
}

/* ---- timers --------------------------------------------------------------------------------------------------------------------- */

/* One that is on will be looked at in time: its node is armed, and not for later. */
static void
look_at_timers(const struct tcp_domain *d)
{
    const struct wheel_node *node = domain_timers(d);
    uint32_t armed = 0;

    for (uint32_t i = 0; i <= park_timer(d); i++)
        armed += wheel_is_armed(&node[i]);
    assert_int_equal(armed, d->wheel.armed);
    for (uint32_t i = 1; i <= d->pools[POOL_CONN].high; i++) {
        const struct tcp_conn *c = conn_at(d, i);

        for (unsigned t = 0; c->state != 0 && c->state != TCP_ST_LISTEN && t < CONN_T_COUNT; t++)
            if (c->timer_at[t] != 0) {
                assert_true(wheel_is_armed(&node[i]));
                assert_true((int32_t)(node[i].due_tick - c->timer_at[t]) <= 0);
            }
        if (c->state != 0 && c->state != TCP_ST_LISTEN && flow_of(c)->node_tick != 0) {
            assert_true(wheel_is_armed(&node[i]));
            assert_true((int32_t)(node[i].due_tick - flow_of(c)->node_tick) <= 0);
        }
    }
    for (uint32_t i = 1; i <= d->pools[POOL_HALF].high; i++)
        assert_int_equal(wheel_is_armed(&node[half_timer(d, i)]), half_at(d, i)->link.tuple.local_port != 0);
    assert_true(d->tw_head == 0 || wheel_is_armed(&node[tw_timer(d)]));
}

void
assert_domain_is_sound(const struct tcp_domain *d)
{
    struct census n = { .refs = calloc(d->pools[POOL_BIND].cap + 1, sizeof(n.refs[0])) };

    assert_non_null(n.refs);
    look_at_slots(d, &n);
    look_at_half_open(d, &n);
    look_at_time_wait(d, &n);
    look_at_moved(d, &n);
    look_at_ports(d, &n);
    look_at_table(d, &n);
    look_at_timers(d);
    for (unsigned i = 0; i < POOL_COUNT; i++)
        assert_int_equal(n.pool[i], d->pools[i].used);
    assert_int_equal(n.pool[POOL_MD5], d->md5_keys);
    assert_int_equal(n.md5_keys_set, d->md5_keys_set);
    free(n.refs);
}
