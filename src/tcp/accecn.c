/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/accecn.h"

#include <string.h>

/** RFC 9768 section 3.2.1. */
#define CEP_FIRST 5u

/** Section 3.2.2.5.1: marks that make an acknowledgement due, with and without data to acknowledge. */
#define MARKS_WITH_DATA 2
#define MARKS_WITHOUT_DATA 3

/** Beyond half of a counter's range a difference is a step back. */
#define FIELD_MASK 0xffffffu
#define FIELD_HALF 0x800000u

#define OPTIONS_BYTES 40u

enum { E1B, CEB, E0B };

void
tcp_accecn_init(struct tcp_accecn *a)
{
    memset(a, 0, sizeof(*a)); /* replicas are compared by the byte */
    a->r_cep = a->s_cep = CEP_FIRST;
    a->r_bytes[E1B] = a->r_bytes[E0B] = a->s_bytes[E1B] = a->s_bytes[E0B] = 1;
}

/* ---- the handshake ---------------------------------------- */

static const uint8_t handshake_ace[] = {
    [TCP_ECN_NOT_ECT] = 2, [TCP_ECN_ECT1] = 3, [TCP_ECN_ECT0] = 4, [TCP_ECN_CE] = 6
};

uint8_t
tcp_accecn_encode(enum tcp_ecn_codepoint cp)
{
    return handshake_ace[cp];
}

enum tcp_ecn_codepoint
tcp_accecn_decode(unsigned ace, enum tcp_ecn_codepoint sent)
{
    for (unsigned cp = 0; cp < sizeof(handshake_ace); cp++)
        if (handshake_ace[cp] == ace)
            return (enum tcp_ecn_codepoint)cp;
    return sent;
}

bool
tcp_accecn_is_mangled(enum tcp_ecn_codepoint sent, enum tcp_ecn_codepoint arrived)
{
    return arrived != sent && (sent == TCP_ECN_NOT_ECT || sent == TCP_ECN_CE || arrived == TCP_ECN_NOT_ECT);
}

void
tcp_accecn_first_option(struct tcp_accecn *a, const struct tcp_options *o)
{
    if (!o->has_accecn)
        return;
    bool zeroed = false;
    for (unsigned i = 0; i < TCP_ACCECN_FIELDS; i++)
        zeroed = zeroed || (i != CEB && (o->accecn_fields & 1u << i) != 0 && o->accecn[i] == 0);
    if (zeroed)
        a->seen = TCP_ACCECN_ZEROED;
    else
        a->seen = o->accecn_fields != 0 ? TCP_ACCECN_COUNTERS_SEEN : TCP_ACCECN_EMPTY_SEEN;
}

/* ---- the receiver ---------------------------------------- */

bool
tcp_accecn_received(struct tcp_accecn *a, enum tcp_ecn_codepoint cp, uint32_t payload_bytes, bool unacked)
{
    static const uint8_t field_of[] = { [TCP_ECN_ECT1] = E1B, [TCP_ECN_ECT0] = E0B, [TCP_ECN_CE] = CEB };
    bool rises = cp == TCP_ECN_CE && a->last != TCP_ECN_CE && payload_bytes > 0;

    a->last = (uint8_t)cp;
    if (cp == TCP_ECN_NOT_ECT)
        return false;
    if (payload_bytes > 0) {
        a->r_bytes[field_of[cp]] += payload_bytes;
        a->changed |= (uint8_t)(1u << field_of[cp]);
    }
    if (cp != TCP_ECN_CE)
        return false;
    a->r_cep++;
    if (a->untold < UINT8_MAX)
        a->untold++;
    return rises || a->untold >= (unacked ? MARKS_WITH_DATA : MARKS_WITHOUT_DATA);
}

bool
tcp_accecn_is_due(const struct tcp_accecn *a)
{
    return a->untold >= MARKS_WITH_DATA;
}

uint16_t
tcp_accecn_flags(struct tcp_accecn *a, bool pure)
{
    unsigned ace = a->r_cep & TCP_ACCECN_ACE_MAX;

    a->untold = 0;
    if (pure && a->reply != 0) {
        ace = a->reply;
        a->reply = 0;
    }
    return (uint16_t)(ace << TCP_ACCECN_ACE_SHIFT);
}

void
tcp_accecn_option(struct tcp_accecn *a, struct tcp_options *o)
{
    unsigned blocks = o->nb_sack < 2 ? o->nb_sack : 2;
    unsigned taken = (o->has_ts ? 12u : 0) + (blocks > 0 ? 4 + 8 * blocks : 0);

    for (unsigned n = TCP_ACCECN_FIELDS; n > 0 && a->changed >> n == 0; n--) {
        unsigned len = (2 + 3 * n + 3) & ~3u;
        if (taken + len > OPTIONS_BYTES)
            continue;
        o->has_accecn = true;
        o->accecn_fields = (uint8_t)((1u << n) - 1);
        for (unsigned i = 0; i < n; i++)
            o->accecn[i] = a->r_bytes[i] & FIELD_MASK;
        a->changed = 0;
        return;
    }
}

/* ---- the sender ---------------------------------------- */

/** The counters that the option brings; false if they cannot be right, so that the ACE is all there is. */
static bool
take_option(struct tcp_accecn *a, const struct tcp_options *o, struct tcp_accecn_news *n)
{
    if (!o->has_accecn || a->seen == TCP_ACCECN_ZEROED)
        return false;
    if (a->seen < TCP_ACCECN_COUNTERS_SEEN)
        a->seen = o->accecn_fields != 0 ? TCP_ACCECN_COUNTERS_SEEN : TCP_ACCECN_EMPTY_SEEN;
    for (unsigned i = 0; i < TCP_ACCECN_FIELDS; i++) {
        if ((o->accecn_fields & 1u << i) == 0)
            continue;
        uint32_t more = (o->accecn[i] - a->s_bytes[i]) & FIELD_MASK;
        if (more >= FIELD_HALF)
            continue;
        a->s_bytes[i] += more;
        if (i == CEB)
            n->ce_bytes = more;
    }
    return (o->accecn_fields & 1u << CEB) != 0;
}

/**
 * Three bits may have wrapped if more than seven packets were acknowledged: then the most that fits both is assumed (appendix A.2.1), unless
 * the bytes that the option tells of belong rather to the least (appendix A.2.2).
 */
static uint32_t
unwrap(uint32_t least, const struct tcp_accecn_ack *ack, const struct tcp_accecn_news *n)
{
    if (ack->segs <= TCP_ACCECN_ACE_MAX)
        return least;
    uint32_t most = ack->segs - ((ack->segs - least) & TCP_ACCECN_ACE_MAX);

    if (n->has_bytes && n->ce_bytes <= (uint64_t)least * ack->mss_bytes &&
        n->ce_bytes < (uint64_t)most * ack->mss_bytes / 2)
        return least;
    return most;
}

void
tcp_accecn_feedback(struct tcp_accecn *a, unsigned ace, const struct tcp_options *o, const struct tcp_accecn_ack *ack,
                    struct tcp_accecn_news *n)
{
    bool newer = o->has_ts && (int32_t)(o->ts_val - a->ts_seen) > 0;

    *n = (struct tcp_accecn_news){ .ce_pkts = 0 };
    if (!ack->progress && !newer)
        return;
    if (newer)
        a->ts_seen = o->ts_val;
    n->has_bytes = take_option(a, o, n);
    n->ce_pkts = unwrap((ace - a->s_cep) & TCP_ACCECN_ACE_MAX, ack, n);
    a->s_cep += n->ce_pkts;
    a->delivered_ce += n->ce_pkts;
    if (!n->has_bytes) {
        uint64_t bytes = (uint64_t)n->ce_pkts * ack->mss_bytes; /* appendix A.3, with full segments */
        n->ce_bytes = bytes < ack->bytes ? (uint32_t)bytes : ack->bytes;
    }
}
