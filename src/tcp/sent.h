/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_SENT_H
#define TCP_SENT_H

#include <stdbool.h>
#include <stdint.h>

#include "tcp/pool.h"
#include "tcp/rate.h"
#include "tcp/seq.h"

/**
 * @file
 * What is under way: every sequence number between snd_una and snd_nxt, with the time of its last transmission and
 * what is known of its fate. It is both the scoreboard of RFC 2018 and RFC 6675 and the send records that RFC 8985
 * needs. Knows no connection.
 *
 * Sequence numbers that share time and fate form a run; runs are sorted and leave no gap. A connection with nothing
 * under way has none, so that an idle one takes no memory here. A board holds at most TCP_SENT_RUNS_MAX runs, so that
 * a peer that lies can neither fill the pool nor make a walk long; where a run finds no room, what it would have told
 * is forgotten, which is safe: bytes count as sent later, or as not received.
 */
#define TCP_SENT_RUNS_MAX 2048

#define TCP_SENT_INDEX_BITS 28 /**< of a run's index */
#define TCP_SENT_INDEX_MASK ((1u << TCP_SENT_INDEX_BITS) - 1)

#define TCP_SENT_SACKED 1u /**< the peer has it, by its word */
#define TCP_SENT_LOST 2u /**< taken for lost, and not sent again yet */
#define TCP_SENT_RETRANS 4u /**< sent more than once: ambiguous in Karn's sense */
#define TCP_SENT_PUSH 8u /**< PSH belongs to its last byte */
#define TCP_SENT_FLAGS 15u

struct tcp_locks;

/** Half a cache line, so that an acknowledgement touches one. */
struct tcp_sent_run {
    uint32_t next : TCP_SENT_INDEX_BITS; /**< index, 0 at the end */
    uint32_t flags : 32 - TCP_SENT_INDEX_BITS; /**< TCP_SENT_* */
    tcp_seq end; /**< it starts where the one before ends, the first at una */
    uint32_t sent_us; /**< last transmission, modulo 2^32 */
    struct tcp_rate_mark mark; /**< what of the flow was known when it was sent */
};
_Static_assert(sizeof(struct tcp_sent_run) == 32, "no line has part of one, and replicas are compared by the byte");

struct tcp_sent {
    uint32_t head, tail; /**< lowest and highest run; 0 <=> nothing is under way */
    uint32_t count; /**< runs */
    tcp_seq una;
    tcp_seq fack; /**< end of the highest SACKed run; of no meaning while sacked_bytes is 0 */
    uint32_t sacked_bytes, lost_bytes;
};

/** The runs of all boards of a domain. */
struct tcp_sent_store {
    struct tcp_pool *pool;
    struct tcp_sent_run *runs;
    uint32_t reserve; /**< entries kept for the first run of each board, so that this one never fails */
    const struct tcp_locks *locks; /**< for the pool; NULL = one thread at a time */
};

/** What an acknowledgement tells of bytes whose receipt was unknown. The caller sets the first group. */
struct tcp_sent_news {
    tcp_seq recover; /**< orig_below is about what ends at or before it */
    tcp_seq prior_fack; /**< fack before this acknowledgement */
    bool had_sacked; /**< sacked_bytes was not 0 before it */

    bool has_rtt; /**< some of it was sent only once, at: */
    uint32_t oldest_us, newest_us;
    bool orig_below; /**< some of it was sent only once and ends at or before recover */
    bool retrans; /**< some of it was sent more than once */
    bool has_last; /**< of all of it, this was sent last: */
    bool last_retrans;
    uint32_t last_us;
    tcp_seq last_end;
    struct tcp_rate_mark last_mark;
    bool reordered; /**< some of it, sent once, lies below what had been SACKed before; the lowest: */
    tcp_seq reordered_at;
    uint32_t delivered_bytes;
};

/** Start with nothing under way at una. */
void tcp_sent_init(struct tcp_sent *s, tcp_seq una);

/**
 * [s's end, end) was sent for the first time. push: its last segment carried PSH because a write ends there. Returns where the caller writes at once what is to be noted of the flow.
 */
struct tcp_rate_mark *tcp_sent_append(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq end, uint32_t now_us,
                                      bool push);

/** Everything below una is acknowledged. */
void tcp_sent_ack(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq una, struct tcp_sent_news *n);

/**
 * The first and the last run of what lies below una, which is above s's, with nothing SACKed or lost: they were sent first and last of it. False: some of it was sent
 * more than once.
 */
bool tcp_sent_once(struct tcp_sent_store st, const struct tcp_sent *s, tcp_seq una, const struct tcp_sent_run **first,
                   const struct tcp_sent_run **last);

/** What is left of tcp_sent_ack then: the runs that una is beyond are gone. */
void tcp_sent_ack_once(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq una);

/** [start, end), which the caller has checked against una and what was sent, is SACKed. */
void tcp_sent_sack(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq start, tcp_seq end, struct tcp_sent_news *n);

/** Was what was sent at (a_us, a_end) sent after that at (b_us, b_end)? RFC 8985 section 6.2's RACK_sent_after(). */
static inline bool
tcp_sent_after(uint32_t a_us, tcp_seq a_end, uint32_t b_us, tcp_seq b_end)
{
    return (int32_t)(a_us - b_us) > 0 || (a_us == b_us && seq_gt(a_end, b_end));
}

/**
 * RFC 8985 section 6.2 step 5: what was sent before (rack_us, rack_end), longer than window_us ago and is not known to
 * have arrived, is lost. Returns after how many microseconds more can be, 0 if time alone proves nothing more.
 */
uint32_t tcp_sent_detect(struct tcp_sent_store st, struct tcp_sent *s, uint32_t rack_us, tcp_seq rack_end,
                         uint32_t window_us, uint32_t now_us);

/** What lies below end and is not SACKed is lost, sent again already or not. Returns the bytes that are newly so. */
uint32_t tcp_sent_lose_below(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq end);

/** As that, but only what was sent longer than window_us ago, and the first run. */
void tcp_sent_lose_old(struct tcp_sent_store st, struct tcp_sent *s, uint32_t window_us, uint32_t now_us);

/** Nothing is lost: a recovery turned out needless. */
void tcp_sent_unlose(struct tcp_sent_store st, struct tcp_sent *s);

/** Forget every SACK: the peer has thrown away what it SACKed (RFC 2018 section 8). */
void tcp_sent_renege(struct tcp_sent_store st, struct tcp_sent *s);

/** Is anything lost that ends behind `at`? */
bool tcp_sent_loses_beyond(struct tcp_sent_store st, const struct tcp_sent *s, tcp_seq at);

/** The first run that is lost, into [*start, *end) and *push (PSH at its end); false if there is none. */
bool tcp_sent_next_lost(struct tcp_sent_store st, const struct tcp_sent *s, tcp_seq *start, tcp_seq *end, bool *push);

/** The last run, as that. */
bool tcp_sent_last(struct tcp_sent_store st, const struct tcp_sent *s, tcp_seq *start, tcp_seq *end, bool *push);

/** [start, end), which lies within one run, was sent again. */
void tcp_sent_again(struct tcp_sent_store st, struct tcp_sent *s, tcp_seq start, tcp_seq end,
                    const struct tcp_rate_mark *m, uint32_t now_us);

/** What was noted with the last run that is lost; NULL if none is. */
const struct tcp_rate_mark *tcp_sent_lost_mark(struct tcp_sent_store st, const struct tcp_sent *s);

/** Bytes that were sent again and whose fate is open. */
uint32_t tcp_sent_retrans_bytes(struct tcp_sent_store st, const struct tcp_sent *s);

void tcp_sent_clear(struct tcp_sent_store st, struct tcp_sent *s);

#endif /* TCP_SENT_H */
