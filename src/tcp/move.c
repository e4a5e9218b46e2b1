/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "tcp/domain.h"

/**
 * @file
 * Connections that move from one domain to another, as bytes. The domain that a tuple belongs to keeps an entry in its table which says where the connection
 * went: so its tuple is not free, and whoever receives its segments can pass them on. For domains that one thread at a time is inside of (no tcp_env.locks).
 */

/** A connection as bytes: this, then the runs of what is under way with their marks, then the segments held for reassembly. */
struct moving {
    struct tcp_conn conn;
    struct tcp_flow flow;
    struct tcp_accecn accecn;
    struct tcp_tally tally;
    struct tcp_path path;
    struct tcp_reass reass;
    uint32_t nb_runs, nb_segs;
    bool has_reass, has_model;
    bool waits; /**< for the port */
    uint64_t model[TCP_CC_MODEL_BYTES / 8];
};

static struct tcp_moved *
moved_at(const struct tcp_domain *d, uint32_t i)
{
    return (struct tcp_moved *)domain_array(d, POOL_MOVED) + i;
}

/* ---- where they went ---------------------------------------------------------------------------------------------------------- */

static uint32_t
find_moved(const struct tcp_domain *d, const struct tcp_tuple *t)
{
    uint32_t ref = table_find(d, t);

    return TABLE_KIND(ref) == TABLE_MOVED ? TABLE_INDEX(ref) : 0;
}

bool
tcp_moved(const struct tcp_domain *d, const struct tcp_tuple *t, uint32_t *to)
{
    uint32_t i = d->pools[POOL_MOVED].used != 0 ? find_moved(d, t) : 0;

    if (i == 0)
        return false;
    *to = moved_at(d, i)->to;
    return true;
}

int
tcp_moved_set(struct tcp_domain *d, const struct tcp_tuple *t, uint32_t to)
{
    uint32_t i;

    if (table_find(d, t) != 0)
        return -EADDRINUSE;
    i = tcp_pool_get(&d->pools[POOL_MOVED], moved_at(d, 0), sizeof(struct tcp_moved));
    if (i == 0)
        return -ENOMEM;
    moved_at(d, i)->link.tuple = *t;
    moved_at(d, i)->to = to;
    table_add(d, TABLE_REF(TABLE_MOVED, i));
    return 0;
}

/** Take the entry away, and hand out its reference to the port. */
static uint32_t
moved_remove(struct tcp_domain *d, uint32_t i)
{
    uint32_t bind = moved_at(d, i)->bind;

    table_remove(d, TABLE_REF(TABLE_MOVED, i));
    tcp_pool_put(&d->pools[POOL_MOVED], moved_at(d, 0), sizeof(struct tcp_moved), i);
    return bind;
}

void
tcp_moved_end(struct tcp_domain *d, const struct tcp_tuple *t)
{
    uint32_t i = find_moved(d, t);

    if (i != 0)
        port_unref(d, moved_remove(d, i));
}

bool
tcp_has(const struct tcp_domain *d, const struct tcp_tuple *t)
{
    uint32_t ref = table_find(d, t);

    return ref != 0 && TABLE_KIND(ref) != TABLE_MOVED;
}

/* ---- out ------------------------------------------------------------------------------------------------------------------------ */

bool
tcp_can_move(const struct tcp_domain *d, tcp_id id)
{
    const struct tcp_conn *c = conn_by_id(d, id);
    bool settled = c != NULL && (c->state == TCP_ST_ESTABLISHED || c->state == TCP_ST_FIN_WAIT_1 ||
                                 c->state == TCP_ST_FIN_WAIT_2 || c->state == TCP_ST_CLOSE_WAIT);

    return settled && c->user != 0 && c->records == 0 && c->md5 == 0 &&
           (c->flags & (CONN_F_ORPHAN | CONN_F_PENDING | CONN_F_FO_CHILD)) == 0 &&
           d->pools[POOL_MOVED].used < d->pools[POOL_MOVED].cap;
}

size_t
tcp_export_bytes(const struct tcp_domain *d, tcp_id id)
{
    const struct tcp_conn *c = conn_by_id(d, id);

    if (c == NULL)
        return 0;
    return sizeof(struct moving) + c->sent.count * sizeof(struct tcp_sent_run) +
           (c->reass != 0 ? reass_at(d, c->reass)->count : 0) * sizeof(struct tcp_reass_seg);
}

/** What is under way; the runs go back to the pool. */
static void
export_runs(struct tcp_domain *d, struct tcp_conn *c, struct tcp_sent_run *out)
{
    struct tcp_sent_store st = sent_store(d, NULL);

    for (uint32_t i = c->sent.head; i != 0; i = st.runs[i].next)
        *out++ = st.runs[i];
    tcp_sent_clear(st, &c->sent);
}

/** What waits for reassembly; the buffers change their owner, the entries go back to the pools. */
static void
export_segs(struct tcp_domain *d, struct tcp_conn *c, struct moving *m, struct tcp_reass_seg *out)
{
    struct tcp_reass_store st = reass_store(d, NULL);
    struct tcp_reass *q = reass_at(d, c->reass);

    m->has_reass = true;
    m->reass = *q;
    m->nb_segs = q->count;
    for (uint32_t i = q->head, next; i != 0; i = next) {
        next = st.segs[i].next;
        *out++ = st.segs[i];
        tcp_pool_put(st.pool, st.segs, sizeof(*st.segs), i);
    }
    tcp_pool_put(&d->pools[POOL_REASS], reass_at(d, 0), sizeof(*q), c->reass);
    c->reass = 0;
}

int
tcp_export(struct tcp_domain *d, tcp_id id, uint32_t to, void *bytes, size_t len)
{
    struct tcp_conn *c = conn_by_id(d, id);
    struct moving *m = bytes;
    struct tcp_sent_run *runs = (struct tcp_sent_run *)(m + 1);
    uint32_t i;

    if (c == NULL || !tcp_can_move(d, id) || len != tcp_export_bytes(d, id))
        return -EINVAL;
    i = conn_index(d, c);
    memset(m, 0, sizeof(*m));
    m->conn = *c;
    m->waits = tcp_waiters_has(&d->waiters, domain_waiters(d), conn_index(d, c));
    m->flow = *flow_of(c);
    if (c->ecn != 0)
        m->accecn = *accecn_of(d, c);
    if (c->tallied)
        m->tally = *tally_of(d, c);
    m->path = *path_of(d, c);
    m->nb_runs = c->sent.count;
    m->has_model = conn_model(d, c) != NULL;
    if (m->has_model)
        memcpy(m->model, conn_model(d, c), sizeof(m->model));
    export_runs(d, c, runs);
    if (c->reass != 0)
        export_segs(d, c, m, (struct tcp_reass_seg *)(runs + m->nb_runs));
    table_remove(d, TABLE_REF(TABLE_CONN, i));
    tcp_moved_set(d, &m->conn.link.tuple, to); /* there is room: tcp_can_move */
    moved_at(d, find_moved(d, &m->conn.link.tuple))->bind = c->bind;
    conn_moved_out(d, c);
    return 0;
}

/* ---- in ------------------------------------------------------------------------------------------------------------------------- */

static bool
has_room(const struct tcp_domain *d, const struct moving *m)
{
    const struct tcp_pool *sent = &d->pools[POOL_SENT], *segs = &d->pools[POOL_SEG], *conns = &d->pools[POOL_CONN];

    return conns->used < conns->cap && sent->used + m->nb_runs + d->params.max_conns <= sent->cap &&
           segs->used + m->nb_segs <= segs->cap;
}

static void
import_runs(struct tcp_domain *d, struct tcp_conn *c, const struct tcp_sent_run *in, uint32_t n)
{
    struct tcp_sent_store st = sent_store(d, NULL);

    c->sent.head = c->sent.tail = 0;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = tcp_pool_get(st.pool, st.runs, sizeof(*st.runs));

        st.runs[i] = in[k];
        st.runs[i].next = 0;
        if (c->sent.tail != 0)
            st.runs[c->sent.tail].next = i & TCP_SENT_INDEX_MASK;
        else
            c->sent.head = i;
        c->sent.tail = i;
    }
}

static void
import_segs(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct moving *m,
            const struct tcp_reass_seg *in)
{
    struct tcp_reass_store st = reass_store(d, NULL);
    struct tcp_reass *q = conn_reass(d, env, c, true);

    *q = m->reass;
    q->head = q->tail = 0;
    for (uint32_t k = 0; k < m->nb_segs; k++) {
        uint32_t i = tcp_pool_get(st.pool, st.segs, sizeof(*st.segs));

        st.segs[i] = in[k];
        st.segs[i].next = 0;
        *(q->tail != 0 ? &st.segs[q->tail].next : &q->head) = i;
        q->tail = i;
    }
}

int
tcp_import(struct tcp_domain *d, const struct tcp_env *env, const void *bytes, tcp_user user, tcp_id *id)
{
    const struct moving *m = bytes;
    const struct tcp_sent_run *runs = (const struct tcp_sent_run *)(m + 1);
    uint32_t moved = find_moved(d, &m->conn.link.tuple);
    uint32_t i;
    struct tcp_conn *c;
    uint8_t gen;

    if (moved == 0 && table_find(d, &m->conn.link.tuple) != 0)
        return -EADDRINUSE;
    if (!has_room(d, m))
        return -ENOMEM;
    d->now_us = env->now_us;
    i = tcp_pool_get(&d->pools[POOL_CONN], slot_at(d, 0), sizeof(union tcp_slot));
    c = conn_at(d, i);
    gen = c->gen;
    *c = m->conn;
    c->gen = gen;
    c->user = user;
    c->bind = moved != 0 ? moved_remove(d, moved) : 0;
    c->reass = 0;
    import_runs(d, c, runs, m->nb_runs);
    if (m->has_reass)
        import_segs(d, env, c, m, (const struct tcp_reass_seg *)(runs + m->nb_runs));
    *flow_of(c) = m->flow;
    if (c->ecn != 0)
        *accecn_of(d, c) = m->accecn;
    if (c->tallied)
        *tally_of(d, c) = m->tally;
    *path_of(d, c) = m->path;
    flow_of(c)->model = flow_of(c)->node_tick = 0;
    if (m->has_model)
        memcpy(conn_model_take(d, env->locks, c), m->model, sizeof(m->model));
    table_add(d, TABLE_REF(TABLE_CONN, i));
    park_watch(d);
    conn_arm_timers(d, c);
    if (m->waits)
        tcp_waiters_add(&d->waiters, domain_waiters(d), i);
    *id = slot_id(d, i);
    return 0;
}

void
tcp_import_give_up(const struct tcp_env *env, const void *bytes)
{
    const struct moving *m = bytes;
    const struct tcp_reass_seg *segs =
        (const struct tcp_reass_seg *)((const struct tcp_sent_run *)(m + 1) + m->nb_runs);
    struct tcp_conn c = m->conn;

    conn_send_rst(NULL, env, &c); /* it has no keys */
    for (uint32_t i = 0; i < m->nb_segs; i++)
        env->sink->release(env->sink->ctx, segs[i].data.buf);
}

void
tcp_moving_tuple(const void *bytes, struct tcp_tuple *t)
{
    *t = ((const struct moving *)bytes)->conn.link.tuple;
}
