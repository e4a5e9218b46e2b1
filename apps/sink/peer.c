/* SPDX-License-Identifier: BSD-3-Clause */
#include "peer.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <rte_branch_prediction.h>
#include <rte_common.h>
#include <rte_jhash.h>
#include <rte_prefetch.h>

#include "tcp/seq.h"

#define RANGES_MAX 4u
/* Segments of one connection that follow each other before another has its turn. */
#define TURN_SEGMENTS 16u
#define RESETS_MAX 64u
#define TICK_CONNS 4u
#define DUP_ACKS_LOSS 3u
/* RFC 1122 section 4.2.2.6: who names no MSS takes 536 bytes. */
#define DEFAULT_MSS 536u
#define MIN_MSS 88u /* as Linux */
#define TS_OPTION_BYTES 12u
#define WSCALE 7u

enum conn_flags {
    SYN_DUE = 0x01, /**< a SYN-ACK is to be sent */
    ACK_DUE = 0x02, /**< an acknowledgement whatever rcv_nxt is */
    FIN_IN = 0x04, /**< the stack's FIN has come */
    FIN_OUT = 0x08, /**< ours follows the data */
    SOURCE = 0x10, /**< there is always more to send */
    PROBE = 0x20, /**< one byte, whatever the window */
    READY = 0x40, /**< in the list of those with output */
    HAS_TS = 0x80,
    HAS_SACK = 0x100,
    IS_BAD = 0x200, /**< no hello: reset */
};

/** Index 0 is none. The first cache line is what a stream of segments touches. */
struct peer_conn {
    struct peer_tuple tuple;
    uint32_t hash_next; /**< in its bucket; free: the next free one */
    uint32_t ready_next;
    tcp_seq rcv_nxt, acked; /**< acked: the last acknowledgement that went out */
    tcp_seq snd_una, snd_nxt, snd_max;
    tcp_seq snd_end; /**< behind the last byte to send; the FIN, if any, stands there */
    uint32_t snd_wnd_bytes;
    uint32_t ts_recent;
    uint16_t mss;
    uint16_t flags;
    uint8_t snd_wscale, hello_got, dup_acks_in, dup_acks_due;
    uint32_t hash;

    uint64_t total_bytes; /**< taken behind the hello */
    uint64_t stalled_at_us; /**< when snd_una was found to be stalled_una, with something on its way */
    tcp_seq stalled_una;
    uint32_t message_got;
    struct hello hello;
    tcp_seq recover; /**< no second resending for duplicate acknowledgements below it */
    tcp_seq ranges[RANGES_MAX][2]; /**< held out of order: from, to; lo < hi, disjoint, beyond rcv_nxt */
    uint8_t nb_ranges;
    uint8_t first[HELLO_BYTES];
};
static_assert(offsetof(struct peer_conn, total_bytes) == 64, "the hot part is a cache line");

struct peer {
    struct peer_config cfg;
    struct peer_conn *conns; /**< [max_conns + 1] */
    uint32_t *buckets; /**< [mask + 1]: index of a chain's first */
    uint32_t mask;
    uint32_t free_first, used; /**< conns beyond `used` were never touched */
    uint32_t ready_first, ready_last;
    uint32_t turn; /**< segments that ready_first has sent in its turn */
    uint32_t tick_at;
    uint32_t nb_resets;
    struct peer_reply resets[RESETS_MAX];
    struct peer_stats stats;
};

/* ---- table --------------------------------------------------------------------------------------------------------------- */

struct peer *
peer_create(const struct peer_config *cfg)
{
    struct peer *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    p->cfg = *cfg;
    p->mask = rte_align32pow2(cfg->max_conns) - 1;
    p->conns = calloc((size_t)cfg->max_conns + 1, sizeof(*p->conns));
    p->buckets = calloc((size_t)p->mask + 1, sizeof(*p->buckets));
    if (p->conns == NULL || p->buckets == NULL) {
        peer_destroy(p);
        return NULL;
    }
    return p;
}

void
peer_destroy(struct peer *p)
{
    if (p == NULL)
        return;
    free(p->conns);
    free(p->buckets);
    free(p);
}

static uint32_t *
bucket_of(const struct peer *p, const struct peer_tuple *t)
{
    uint32_t ports = (uint32_t)t->stack_port << 16 | t->own_port;

    return &p->buckets[rte_jhash_3words(t->stack_addr, t->own_addr, ports, 0) & p->mask];
}

static bool
is_tuple(const struct peer_tuple *a, const struct peer_tuple *b)
{
    return a->stack_addr == b->stack_addr && a->own_addr == b->own_addr && a->stack_port == b->stack_port &&
           a->own_port == b->own_port;
}

static struct peer_conn *
find(const struct peer *p, const struct peer_tuple *t)
{
    uint32_t i = *bucket_of(p, t);

    while (i != 0 && !is_tuple(&p->conns[i].tuple, t))
        i = p->conns[i].hash_next;
    return i != 0 ? &p->conns[i] : NULL;
}

void
peer_prefetch(const struct peer *p, const struct peer_tuple *t)
{
    rte_prefetch0(bucket_of(p, t));
}

static struct peer_conn *
conn_new(struct peer *p, const struct peer_tuple *t)
{
    uint32_t *bucket = bucket_of(p, t);
    uint32_t i = p->free_first;

    if (i != 0)
        p->free_first = p->conns[i].hash_next;
    else if (p->used < p->cfg.max_conns)
        i = ++p->used;
    else
        return NULL;
    p->conns[i] = (struct peer_conn){ .tuple = *t, .hash_next = *bucket };
    *bucket = i;
    p->stats.opened++;
    p->stats.open++;
    return &p->conns[i];
}

/** c stands in no ready list. */
static void
conn_free(struct peer *p, struct peer_conn *c)
{
    uint32_t *link = bucket_of(p, &c->tuple), i = (uint32_t)(c - p->conns);

    while (*link != i)
        link = &p->conns[*link].hash_next;
    *link = c->hash_next;
    c->tuple = (struct peer_tuple){ 0 };
    c->hash_next = p->free_first;
    p->free_first = i;
    p->stats.open--;
}

/* ---- what is to be sent --------------------------------------------------------------------------------------------------- */

static uint32_t
payload_due(const struct peer_conn *c)
{
    uint32_t in_flight = c->snd_nxt - c->snd_una;
    uint32_t room = c->snd_wnd_bytes > in_flight ? c->snd_wnd_bytes - in_flight : 0;
    uint32_t left = c->flags & SOURCE ? c->mss : seq_lt(c->snd_nxt, c->snd_end) ? c->snd_end - c->snd_nxt : 0;
    uint32_t n;

    if (c->flags & SYN_DUE)
        return 0;
    n = RTE_MIN(RTE_MIN(left, room), (uint32_t)c->mss);
    /* A number is sent whole; a segment of a stream too, unless nothing would remind of the rest (RFC 9293 section 3.8.6.2.1). */
    if (n < RTE_MIN(left, (uint32_t)c->mss) && in_flight > 0)
        return 0;
    if (n == 0 && left > 0 && (c->flags & PROBE))
        return 1;
    return n;
}

static bool
fin_due(const struct peer_conn *c)
{
    return (c->flags & (FIN_OUT | SOURCE)) == FIN_OUT && c->snd_nxt == c->snd_end;
}

static bool
ack_due(const struct peer_conn *c)
{
    return c->rcv_nxt != c->acked || c->dup_acks_due > 0 || (c->flags & ACK_DUE);
}

static bool
has_output(const struct peer_conn *c)
{
    return (c->flags & (SYN_DUE | IS_BAD)) || ack_due(c) || payload_due(c) > 0 || fin_due(c);
}

static bool
is_over(const struct peer_conn *c)
{
    return (c->flags & FIN_IN) && (c->flags & FIN_OUT) && c->snd_una == c->snd_end + 1;
}

static void
make_ready(struct peer *p, struct peer_conn *c)
{
    uint32_t i = (uint32_t)(c - p->conns);

    if (c->flags & READY)
        return;
    c->flags |= READY;
    c->ready_next = 0;
    if (p->ready_first == 0)
        p->ready_first = i;
    else
        p->conns[p->ready_last].ready_next = i;
    p->ready_last = i;
}

/** Only the first leaves the list: whoever is anywhere else in it waits for its turn. */
static void
pop_ready(struct peer *p)
{
    struct peer_conn *c = &p->conns[p->ready_first];

    p->ready_first = c->ready_next;
    p->turn = 0;
    c->flags &= (uint16_t)~READY;
}

/** A reset that answers s: RFC 9293 section 3.10.7.1. */
static void
add_reset(struct peer *p, const struct peer_segment *s)
{
    struct peer_reply *r;

    p->stats.refused++;
    if (p->nb_resets == RESETS_MAX)
        return;
    r = &p->resets[p->nb_resets++];
    *r = (struct peer_reply){ .tuple = s->tuple, .hash = s->hash, .flags = PEER_RST };
    if (s->flags & PEER_ACK) {
        r->seq = s->ack;
    } else {
        r->flags |= PEER_ACK;
        r->ack = s->seq + s->payload_bytes + ((s->flags & PEER_SYN) != 0) + ((s->flags & PEER_FIN) != 0);
    }
}

/* ---- input ---------------------------------------------------------------------------------------------------------------- */

/** Begin a connection, or the same one anew: c is fresh but for its tuple and its places in lists. */
static void
conn_begin(const struct peer *p, struct peer_conn *c, const struct peer_segment *s)
{
    tcp_seq iss = rte_jhash_3words(c->tuple.stack_addr, s->seq, c->tuple.stack_port, 1);

    c->rcv_nxt = c->acked = s->seq + 1;
    c->snd_una = c->snd_nxt = c->snd_max = iss;
    c->snd_end = c->recover = iss + 1;
    c->snd_wnd_bytes = s->window;
    c->snd_wscale = s->has_wscale ? RTE_MIN(s->wscale, 14) : 0;
    c->mss = RTE_MAX(RTE_MIN(s->mss != 0 ? s->mss : DEFAULT_MSS, p->cfg.mss), MIN_MSS);
    c->ts_recent = s->ts_value;
    c->hash = s->hash;
    c->flags |= SYN_DUE;
    if (s->has_ts) {
        c->flags |= HAS_TS;
        c->mss = (uint16_t)(c->mss - TS_OPTION_BYTES);
    }
    if (s->has_sack_ok)
        c->flags |= HAS_SACK;
}

static void
on_syn(struct peer *p, struct peer_conn *c, const struct peer_segment *s)
{
    if (c == NULL) {
        c = conn_new(p, &s->tuple);
        if (c == NULL) {
            add_reset(p, s);
            return;
        }
        conn_begin(p, c, s);
    } else if (c->rcv_nxt == s->seq + 1 && c->hello_got == 0) {
        c->flags |= SYN_DUE; /* our answer was lost */
        c->snd_nxt = c->snd_una;
    } else {
        struct peer_conn fresh = { .tuple = c->tuple, .hash_next = c->hash_next, .ready_next = c->ready_next };

        fresh.flags = c->flags & READY;
        *c = fresh;
        conn_begin(p, c, s);
    }
    make_ready(p, c);
}

static void
on_duplicate_ack(struct peer *p, struct peer_conn *c)
{
    if (++c->dup_acks_in != DUP_ACKS_LOSS || seq_lt(c->snd_una, c->recover))
        return;
    c->recover = c->snd_max;
    c->snd_nxt = c->snd_una;
    p->stats.resent++;
}

static void
on_ack(struct peer *p, struct peer_conn *c, const struct peer_segment *s)
{
    uint32_t window_bytes = (uint32_t)s->window << c->snd_wscale;

    if (seq_gt(s->ack, c->snd_max) || seq_lt(s->ack, c->snd_una))
        return;
    if (seq_gt(s->ack, c->snd_una)) {
        c->snd_una = s->ack;
        if (seq_lt(c->snd_nxt, c->snd_una))
            c->snd_nxt = c->snd_una;
        c->dup_acks_in = 0;
    } else if (s->payload_bytes == 0 && c->snd_nxt != c->snd_una && window_bytes == c->snd_wnd_bytes) {
        on_duplicate_ack(p, c);
    }
    c->snd_wnd_bytes = window_bytes;
}

/** n bytes more of what follows the hello. */
static void
on_bytes(struct peer_conn *c, uint32_t n)
{
    uint32_t size = c->hello.size_bytes, done;

    if (n == 0 || (c->flags & IS_BAD))
        return;
    c->total_bytes += n;
    if (c->hello.role != ROLE_RR && c->hello.role != ROLE_CRR)
        return;
    c->message_got += n;
    if (c->message_got < size)
        return;
    done = c->message_got / size;
    c->message_got %= size;
    if (c->hello.role == ROLE_RR) {
        c->snd_end += done * size;
    } else if (!(c->flags & FIN_OUT)) {
        c->snd_end += size;
        c->flags |= FIN_OUT;
    }
}

/** The segment begins at rcv_nxt. Returns how many of its bytes belong to the hello. */
static uint32_t
take_hello(struct peer_conn *c, const struct peer_segment *s)
{
    uint32_t n = RTE_MIN(s->payload_bytes, HELLO_BYTES - c->hello_got);

    memcpy(c->first + c->hello_got, s->head, n);
    c->hello_got = (uint8_t)(c->hello_got + n);
    if (c->hello_got < HELLO_BYTES)
        return n;
    if (hello_read(&c->hello, c->first) != 0)
        c->flags |= IS_BAD;
    else if (c->hello.role == ROLE_RX)
        c->flags |= SOURCE;
    return n;
}

/** Remember [lo, hi), which lies beyond rcv_nxt. What finds no place is forgotten: the stack sends it again. */
static void
hold_range(struct peer_conn *c, tcp_seq lo, tcp_seq hi)
{
    uint8_t i = 0;

    while (i < c->nb_ranges) {
        if (seq_lt(c->ranges[i][1], lo) || seq_gt(c->ranges[i][0], hi)) {
            i++;
            continue;
        }
        if (seq_lt(c->ranges[i][0], lo))
            lo = c->ranges[i][0];
        if (seq_gt(c->ranges[i][1], hi))
            hi = c->ranges[i][1];
        memmove(c->ranges[i], c->ranges[--c->nb_ranges], sizeof(c->ranges[i]));
        i = 0;
    }
    if (c->nb_ranges == RANGES_MAX)
        return;
    /* The newest one goes first, as RFC 2018 section 4 wants it reported. */
    memmove(c->ranges[1], c->ranges[0], c->nb_ranges * sizeof(c->ranges[0]));
    c->nb_ranges++;
    c->ranges[0][0] = lo;
    c->ranges[0][1] = hi;
}

/** The gap before a range may have closed. */
static void
join_ranges(struct peer_conn *c)
{
    uint8_t i = 0;

    while (i < c->nb_ranges) {
        if (seq_gt(c->ranges[i][0], c->rcv_nxt)) {
            i++;
            continue;
        }
        if (seq_gt(c->ranges[i][1], c->rcv_nxt)) {
            on_bytes(c, c->ranges[i][1] - c->rcv_nxt);
            c->rcv_nxt = c->ranges[i][1];
        }
        memmove(c->ranges[i], c->ranges[--c->nb_ranges], sizeof(c->ranges[i]));
        i = 0;
    }
}

static void
on_data(struct peer *p, struct peer_conn *c, const struct peer_segment *s)
{
    tcp_seq end = s->seq + s->payload_bytes;

    if (seq_leq(end, c->rcv_nxt)) {
        c->flags |= ACK_DUE; /* sent again for nothing: our acknowledgement was lost */
    } else if (seq_gt(s->seq, c->rcv_nxt)) {
        p->stats.reordered++;
        if (c->dup_acks_due < UINT8_MAX)
            c->dup_acks_due++;
        if (c->hello_got == HELLO_BYTES)
            hold_range(c, s->seq, end);
    } else {
        uint32_t n = end - c->rcv_nxt;

        if (c->hello_got < HELLO_BYTES) {
            if (s->seq != c->rcv_nxt)
                return;
            n -= take_hello(c, s);
        }
        on_bytes(c, n);
        c->rcv_nxt = end;
        if (unlikely(c->nb_ranges > 0))
            join_ranges(c);
    }
}

/** The stack's FIN has come in order. */
static void
on_fin(struct peer_conn *c)
{
    c->rcv_nxt++;
    c->flags |= FIN_IN;
    if (c->flags & SOURCE) {
        c->flags &= (uint16_t)~SOURCE;
        c->snd_end = c->snd_max;
    }
    if (c->hello_got == HELLO_BYTES && c->hello.role == ROLE_TX)
        c->snd_end += HELLO_TOTAL_BYTES;
    c->flags |= FIN_OUT;
}

static void
release_if_over(struct peer *p, struct peer_conn *c)
{
    if (is_over(c) && !(c->flags & READY))
        conn_free(p, c);
}

void
peer_input(struct peer *p, const struct peer_segment *s)
{
    struct peer_conn *c = find(p, &s->tuple);

    if ((s->flags & (PEER_SYN | PEER_ACK | PEER_RST)) == PEER_SYN) {
        on_syn(p, c, s);
        return;
    }
    if (c == NULL) {
        if (!(s->flags & PEER_RST))
            add_reset(p, s);
        return;
    }
    if (s->flags & PEER_RST) {
        /* The list of the ready cannot be left from its middle: an empty turn ends it. */
        c->flags = (c->flags & READY) | FIN_IN | FIN_OUT;
        c->acked = c->rcv_nxt;
        c->dup_acks_due = 0;
        c->snd_nxt = c->snd_una = c->snd_max = c->snd_end + 1;
        release_if_over(p, c);
        return;
    }
    if (c->flags & SYN_DUE)
        return;
    if (s->has_ts && seq_leq(s->seq, c->acked))
        c->ts_recent = s->ts_value; /* RFC 7323 section 4.3 */
    if (s->flags & PEER_ACK)
        on_ack(p, c, s);
    if (s->payload_bytes > 0)
        on_data(p, c, s);
    if ((s->flags & PEER_FIN) && s->seq + s->payload_bytes == c->rcv_nxt && !(c->flags & FIN_IN))
        on_fin(c);
    else if ((s->flags & PEER_FIN) && (c->flags & FIN_IN))
        c->flags |= ACK_DUE;
    if (has_output(c))
        make_ready(p, c);
    else
        release_if_over(p, c);
}

/* ---- output --------------------------------------------------------------------------------------------------------------- */

bool
peer_has_output(const struct peer *p)
{
    return p->ready_first != 0 || p->nb_resets > 0;
}

static void
add_syn(const struct peer *p, struct peer_conn *c, struct peer_reply *out)
{
    out->flags |= PEER_SYN;
    out->mss = p->cfg.mss;
    out->has_wscale = true;
    out->wscale = WSCALE;
    out->has_sack_ok = (c->flags & HAS_SACK) != 0;
    /* A window in a SYN is never scaled. */
    out->window = (uint16_t)RTE_MIN(p->cfg.window_bytes, UINT16_MAX);
    c->flags &= (uint16_t)~SYN_DUE;
    c->snd_nxt++;
}

static void
add_payload(struct peer_conn *c, uint32_t n, struct peer_reply *out)
{
    out->payload_bytes = (uint16_t)n;
    out->flags |= PEER_PSH;
    if (c->hello.role == ROLE_TX) {
        uint8_t skip = (uint8_t)(HELLO_TOTAL_BYTES - (c->snd_end - c->snd_nxt));
        uint32_t words[2] = { htonl((uint32_t)(c->total_bytes >> 32)), htonl((uint32_t)c->total_bytes) };

        memcpy(out->payload, (const uint8_t *)words + skip, n);
        out->has_payload = true;
    }
    c->snd_nxt += n;
    c->flags &= (uint16_t)~PROBE;
}

/** How far the next acknowledgement goes: by some segments if more wait, else all. */
static tcp_seq
next_ack(const struct peer *p, const struct peer_conn *c)
{
    uint32_t step_bytes = p->cfg.ack_segments * c->mss, waiting_bytes = c->rcv_nxt - c->acked;

    return c->acked + RTE_MIN(step_bytes, waiting_bytes);
}

static void
add_sacks(struct peer_conn *c, struct peer_reply *out)
{
    if (c->dup_acks_due > 0)
        c->dup_acks_due--;
    if (!(c->flags & HAS_SACK))
        return;
    out->nb_sacks = (uint8_t)RTE_MIN((unsigned)c->nb_ranges, PEER_SACKS_MAX);
    memcpy(out->sacks, c->ranges, out->nb_sacks * sizeof(out->sacks[0]));
}

static void
conn_output(const struct peer *p, struct peer_conn *c, struct peer_reply *out)
{
    uint32_t n = payload_due(c);

    *out = (struct peer_reply){
        .tuple = c->tuple,
        .hash = c->hash,
        .seq = c->snd_nxt,
        .flags = PEER_ACK,
        .window = (uint16_t)(p->cfg.window_bytes >> WSCALE),
        .has_ts = (c->flags & HAS_TS) != 0,
        .ts_echo = c->ts_recent,
    };
    if (c->flags & IS_BAD) {
        out->flags = PEER_RST | PEER_ACK;
        c->flags = (c->flags & READY) | FIN_IN | FIN_OUT;
        c->snd_una = c->snd_nxt = c->snd_end + 1;
    } else if (c->flags & SYN_DUE) {
        add_syn(p, c, out);
    } else if (n > 0) {
        add_payload(c, n, out);
    } else if (fin_due(c)) {
        out->flags |= PEER_FIN;
        c->snd_nxt++;
    } else {
        c->acked = next_ack(p, c);
        out->ack = c->acked;
        add_sacks(c, out);
        c->flags &= (uint16_t)~ACK_DUE;
        return;
    }
    if (seq_gt(c->snd_nxt, c->snd_max))
        c->snd_max = c->snd_nxt;
    out->ack = c->acked = c->rcv_nxt;
    c->dup_acks_due = 0;
    c->flags &= (uint16_t)~ACK_DUE;
}

bool
peer_output(struct peer *p, struct peer_reply *out)
{
    if (p->nb_resets > 0) {
        *out = p->resets[--p->nb_resets];
        return true;
    }
    while (p->ready_first != 0) {
        struct peer_conn *c = &p->conns[p->ready_first];
        bool found = has_output(c);

        if (found) {
            conn_output(p, c, out);
            p->turn++;
        }
        if (!has_output(c)) {
            pop_ready(p);
            release_if_over(p, c);
        } else if (p->turn >= TURN_SEGMENTS) {
            pop_ready(p);
            make_ready(p, c);
        }
        if (found)
            return true;
    }
    return false;
}

/* ---- time ----------------------------------------------------------------------------------------------------------------- */

/** Whether c waits for the stack: for an acknowledgement, or for room in its window. */
static bool
is_waiting(const struct peer_conn *c)
{
    if (c->tuple.stack_port == 0 || (c->flags & READY))
        return false;
    /* A SYN-ACK that is lost is asked for again by the stack's next SYN. */
    if (c->hello_got == 0 && !(c->flags & FIN_IN))
        return false;
    return c->snd_una != c->snd_max || (c->flags & SOURCE) || seq_lt(c->snd_nxt, c->snd_end);
}

static void
conn_tick(struct peer *p, struct peer_conn *c, uint64_t now_us)
{
    if (!is_waiting(c))
        return;
    if (c->stalled_una != c->snd_una) {
        c->stalled_una = c->snd_una;
        c->stalled_at_us = now_us;
        return;
    }
    if (now_us - c->stalled_at_us < PEER_RESEND_US)
        return;
    c->stalled_at_us = now_us;
    c->snd_nxt = c->snd_una;
    c->flags |= PROBE;
    p->stats.resent++;
    make_ready(p, c);
}

void
peer_tick(struct peer *p, uint64_t now_us)
{
    for (unsigned i = 0; i < RTE_MIN(TICK_CONNS, p->used); i++) {
        p->tick_at = p->tick_at < p->used ? p->tick_at + 1 : 1;
        conn_tick(p, &p->conns[p->tick_at], now_us);
    }
}

const struct peer_stats *
peer_stats(const struct peer *p)
{
    return &p->stats;
}
