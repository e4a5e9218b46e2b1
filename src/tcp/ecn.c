/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/domain.h"

/**
 * @file
 * Explicit congestion notification of a connection: what the handshake agrees on (RFC 9768 section 3.1, which includes RFC 3168's), what is told
 * of marks that arrive, and what the peer tells of ours. tcp_conn.ecn is 0 where none was agreed on, and nothing here is called.
 *
 * With accurate feedback every segment is ECN-capable, retransmissions too, and so are ACKs where SACK tells those that answer data from those that answer
 * ACKs (draft-ietf-tcpm-generalized-ecn); handshakes are not.
 */

/** SYNs and SYN-ACKs that ask for accurate feedback; more than that were lost for their flags, perhaps (sections 3.1.4.1 and 3.2.3.2.2). */
#define ACCURATE_TRIES 2

/** Times in a row that data came again whose acknowledgement had the option (section 3.2.3.2.2). */
#define OPTION_LOSSES 2

/** Linux's names of what was found broken. */
#define FAIL_ACE_RECEIVED 2u
#define FAIL_OPTION_SENT 4u
#define FAIL_OPTION_RECEIVED 8u

static unsigned
ace_of(uint16_t flags)
{
    return flags >> TCP_ACCECN_ACE_SHIFT & TCP_ACCECN_ACE_MAX;
}

static enum tcp_ecn_codepoint
codepoint_of(uint8_t tos)
{
    return (enum tcp_ecn_codepoint)(tos & TCP_TOS_ECN);
}

enum ecn_mode
ecn_wanted(const struct tcp_domain *d, unsigned cc_id, bool agree)
{
    static const uint8_t asked[] = { ECN_MODE_NONE,     ECN_MODE_CLASSIC, ECN_MODE_NONE,
                                     ECN_MODE_ACCURATE, ECN_MODE_CLASSIC, ECN_MODE_NONE };
    static const uint8_t agreed[] = { ECN_MODE_NONE,     ECN_MODE_CLASSIC,  ECN_MODE_CLASSIC,
                                      ECN_MODE_ACCURATE, ECN_MODE_ACCURATE, ECN_MODE_ACCURATE };
    enum ecn_mode mode = (enum ecn_mode)(agree ? agreed : asked)[d->params.ecn];

    return mode == ECN_MODE_NONE && tcp_cc_by_id(cc_id)->needs_ecn ? ECN_MODE_CLASSIC : mode;
}

/* ---- whether segments carry the option ---------------------------------------- */

static void
judge_option(const struct tcp_domain *d, struct tcp_conn *c)
{
    const struct tcp_accecn *a = accecn_of(d, c);
    bool seen = a->seen == TCP_ACCECN_EMPTY_SEEN || a->seen == TCP_ACCECN_COUNTERS_SEEN;
    bool has = d->params.ecn_option && seen && a->lost < OPTION_LOSSES;

    if (has == ((c->ecn & CONN_ECN_OPTION) != 0))
        return;
    c->ecn ^= CONN_ECN_OPTION;
    conn_set_mss(c);
}

/* ---- our SYN and SYN-ACK ---------------------------------------- */

static void
put_accurate_syn_ack(const struct tcp_domain *d, enum tcp_ecn_codepoint syn, bool first, struct tcp_out *out)
{
    struct tcp_accecn fresh;

    out->flags |= (uint16_t)(tcp_accecn_encode(syn) << TCP_ACCECN_ACE_SHIFT);
    /* Both a cookie and the option may find no room; the option can come later. */
    if (!first || !d->params.ecn_option || out->opts.has_fo)
        return;
    tcp_accecn_init(&fresh);
    tcp_accecn_option(&fresh, &out->opts);
}

void
ecn_put_syn(const struct tcp_domain *d, struct tcp_conn *c, bool passive, struct tcp_out *out)
{
    enum ecn_mode mode = ecn_wanted(d, c->cc_id, false);
    unsigned tries = mode == ECN_MODE_ACCURATE ? ACCURATE_TRIES : 1;
    bool gives_up = d->params.ecn_fallback && c->retries >= (passive ? ACCURATE_TRIES : tries);

    if (passive && (c->ecn & CONN_ECN_ACC) != 0) {
        struct tcp_accecn *a = accecn_of(d, c);
        if (gives_up)
            c->ecn |= CONN_ECN_NO_ECT; /* section 3.1.5: the client may have heard only this */
        else
            put_accurate_syn_ack(d, (enum tcp_ecn_codepoint)a->syn, c->retries == 0 && !a->syn_again, out);
    } else if (passive) {
        out->flags |= c->ecn & CONN_ECN_ON ? TCP_FLAG_ECE : 0;
    } else if (mode == ECN_MODE_ACCURATE) {
        out->flags |= gives_up ? 0 : TCP_FLAGS_ECN;
        c->ecn = CONN_ECN_ACC; /* an answer to an earlier SYN may still agree */
    } else {
        bool ask = mode == ECN_MODE_CLASSIC && !gives_up;
        out->flags |= ask ? TCP_FLAG_ECE | TCP_FLAG_CWR : 0;
        c->ecn = ask ? CONN_ECN_ON : 0;
    }
}

void
ecn_put_half(const struct tcp_domain *d, const struct tcp_half *h, struct tcp_out *out)
{
    bool gives_up = d->params.ecn_fallback && h->retries >= ACCURATE_TRIES;

    if ((h->flags & HALF_F_ACCECN) != 0 && !gives_up)
        put_accurate_syn_ack(d, codepoint_of(h->ecn), h->retries == 0 && (h->ecn & HALF_ECN_AGAIN) == 0, out);
    /* RFC 3168 section 6.1.1: the first only, for those who drop it for its flags. */
    if ((h->flags & HALF_F_ECN) != 0 && (h->retries == 0 || !d->params.ecn_fallback))
        out->flags |= TCP_FLAG_ECE;
}

/* ---- the peer's SYN ---------------------------------------- */

/** Both flags ask for ECN as in RFC 3168; any other combination, for accurate feedback of some version (RFC 9768 section 3.1.3). */
void
ecn_fill_half(const struct tcp_domain *d, struct tcp_half *h, unsigned cc_id, const struct tcp_in *in)
{
    unsigned ace = ace_of(in->flags);
    enum ecn_mode mode = ecn_wanted(d, cc_id, true);

    h->ecn = in->tos & HALF_ECN_SYN;
    if (mode == ECN_MODE_ACCURATE && ace != 0 && ace != 3)
        h->flags |= HALF_F_ACCECN;
    else if (mode != ECN_MODE_NONE && (ace & 3) == 3)
        h->flags |= HALF_F_ECN;
}

bool
ecn_half_again(struct tcp_half *h, const struct tcp_domain *d, const struct tcp_in *in)
{
    unsigned ace = ace_of(in->flags);

    h->ecn = (uint8_t)((h->ecn & HALF_ECN_NO_ECT) | HALF_ECN_AGAIN | (in->tos & HALF_ECN_SYN));
    if (h->flags & HALF_F_ACCECN) {
        h->ecn |= ace == 0 ? HALF_ECN_NO_ECT : 0;
        return ace != 3;
    }
    return (h->flags & HALF_F_ECN) == 0 || d->params.ecn < TCP_ECN_ACCURATE || ace == 0 || ace == 3;
}

uint8_t
ecn_from_cookie(const struct tcp_domain *d, unsigned cc_id, bool agreed, const struct tcp_in *in)
{
    /* Section 5.1: who agreed to accurate feedback acknowledges a SYN-ACK with no ACE below 2. */
    if (ecn_wanted(d, cc_id, true) == ECN_MODE_ACCURATE && ace_of(in->flags) >= 2)
        return HALF_F_ACCECN;
    return agreed ? HALF_F_ECN : 0;
}

static void
enter_classic(const struct tcp_domain *d, struct tcp_conn *c)
{
    c->ecn = CONN_ECN_ON;
    memset(accecn_of(d, c), 0, sizeof(struct tcp_accecn));
}

static struct tcp_accecn *
enter_accurate(const struct tcp_domain *d, struct tcp_conn *c)
{
    struct tcp_accecn *a = accecn_of(d, c);

    c->ecn = CONN_ECN_ACC;
    tcp_accecn_init(a);
    return a;
}

void
ecn_from_half(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_half *h)
{
    c->ecn = 0;
    if (h->flags & HALF_F_ECN)
        enter_classic(d, c);
    if ((h->flags & HALF_F_ACCECN) == 0)
        return;
    struct tcp_accecn *a = enter_accurate(d, c);
    a->syn = h->ecn & HALF_ECN_SYN;
    a->syn_again = (h->ecn & HALF_ECN_AGAIN) != 0;
    a->third_ack_due = true;
    if ((h->ecn & HALF_ECN_NO_ECT) != 0 || (d->params.ecn_fallback && h->retries >= ACCURATE_TRIES))
        c->ecn |= CONN_ECN_NO_ECT;
}

void
ecn_on_syn_again(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in)
{
    struct tcp_accecn *a = accecn_of(d, c);

    a->syn = in->tos & TCP_TOS_ECN;
    a->syn_again = true;
    if (ace_of(in->flags) == 0)
        c->ecn |= CONN_ECN_NO_ECT;
}

/* ---- the peer's SYN-ACK ---------------------------------------- */

void
ecn_on_syn_ack(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in)
{
    struct tcp_accecn *a = accecn_of(d, c);
    enum tcp_ecn_codepoint cp = codepoint_of(in->tos);

    a->reply = tcp_accecn_encode(cp);
    if (c->state == TCP_ST_SYN_RECEIVED) {
        /* Simultaneous open: it is counted as the ACK that it is, too. */
        tcp_accecn_first_option(a, &in->opts);
        judge_option(d, c);
        return;
    }
    tcp_accecn_received(a, cp, in->data.len, false);
    if (cp == TCP_ECN_CE && a->syn_ack_ce)
        a->r_cep--; /* section 3.2.2.2: once, however often it comes */
    a->syn_ack_ce = a->syn_ack_ce || cp == TCP_ECN_CE;
    if (c->state != TCP_ST_SYN_SENT)
        return;
    tcp_accecn_first_option(a, &in->opts);
    judge_option(d, c);
}

/** Section 3.1.2's table, for the client; without ACK it is the SYN of a simultaneous open. */
void
ecn_take_syn(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in)
{
    unsigned ace = ace_of(in->flags);
    bool accurate = (c->ecn & CONN_ECN_ACC) != 0;

    c->ecn = 0;
    if ((in->flags & TCP_FLAG_ACK) == 0) {
        if (accurate && ace != 0 && ace != 3) {
            struct tcp_accecn *a = enter_accurate(d, c);
            a->syn = in->tos & TCP_TOS_ECN;
            a->third_ack_due = true;
        } else if ((ace & 3) == 3) {
            enter_classic(d, c);
        }
        return;
    }
    /* RFC 3168 section 6.1.1: a SYN-ACK with CWR too merely reflects our flags. */
    if (!accurate || ace == 1) {
        if ((ace & 3) == 1)
            enter_classic(d, c);
        return;
    }
    if (ace == 0 || ace == TCP_ACCECN_ACE_MAX)
        return;
    struct tcp_accecn *a = enter_accurate(d, c);
    enum tcp_ecn_codepoint arrived = tcp_accecn_decode(ace, TCP_ECN_NOT_ECT);
    ecn_on_syn_ack(d, c, in);
    a->delivered_ce = arrived == TCP_ECN_CE;
    if (d->params.ecn_fallback && tcp_accecn_is_mangled(TCP_ECN_NOT_ECT, arrived))
        c->ecn |= CONN_ECN_NO_ECT;
}

/** Section 3.2.2.1: a pure ACK first, which tells how the SYN-ACK arrived. */
void
ecn_answer_syn_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c)
{
    if (accecn_of(d, c)->delivered_ce != 0 && c->cc.cwnd_bytes / 2 >= c->mss)
        c->cc.cwnd_bytes /= 2; /* our SYN met congestion */
    conn_send_ack(d, env, c, NULL);
}

/* ---- the end of the handshake, for a server ---------------------------------------- */

/** Tables 4's reading of an ACE; only a pure ACK has it. */
void
ecn_on_third_ack(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in)
{
    struct tcp_accecn *a = accecn_of(d, c);
    unsigned ace = ace_of(in->flags);
    bool pure = in->data.len == 0 && in->opts.nb_sack == 0 && (in->flags & TCP_FLAG_FIN) == 0;

    a->third_ack_due = false;
    a->ts_seen = in->opts.ts_val;
    if (a->seen == TCP_ACCECN_NOT_SEEN)
        tcp_accecn_first_option(a, &in->opts);
    judge_option(d, c);
    if (!pure)
        return;
    enum tcp_ecn_codepoint arrived = tcp_accecn_decode(ace, TCP_ECN_NOT_ECT);
    if (arrived == TCP_ECN_CE) {
        a->s_cep++;
        a->delivered_ce++;
    }
    if (ace == 0)
        c->ecn |= CONN_ECN_NO_ECT | CONN_ECN_DEAF;
    else if (d->params.ecn_fallback && tcp_accecn_is_mangled(TCP_ECN_NOT_ECT, arrived))
        c->ecn |= CONN_ECN_NO_ECT;
}

/* ---- marks that arrive ---------------------------------------- */

/**
 * DCTCP's receiver (RFC 8257 section 3.2): ECE says of each acknowledged byte whether it was marked, so what is still to be
 * acknowledged goes with the old value before the new one counts.
 */
static void
echo_exactly(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, bool ce)
{
    bool echo = (c->ecn & CONN_ECN_ECHO) != 0;

    if (ce == echo)
        return;
    if (c->rcv_acked != c->rcv_nxt)
        conn_send_ack(d, env, c, NULL);
    c->ecn ^= CONN_ECN_ECHO;
    c->flags |= CONN_F_ACK_NOW;
}

/** RFC 3168 section 6.1.3: a mark is echoed until the peer says that it has reduced its window. */
static void
echo_until_cwr(struct tcp_conn *c, const struct tcp_in *in, bool ce)
{
    if ((in->flags & TCP_FLAG_CWR) != 0) {
        c->ecn &= (uint8_t)~CONN_ECN_ECHO;
        c->flags |= CONN_F_ACK_NOW; /* the sender waits for ACKs with and without ECE: hold back neither */
    }
    if (ce && (c->ecn & CONN_ECN_ECHO) == 0) {
        c->ecn |= CONN_ECN_ECHO;
        c->flags |= CONN_F_ACK_NOW;
    }
}

void
ecn_on_segment(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in)
{
    enum tcp_ecn_codepoint cp = codepoint_of(in->tos);
    struct tcp_accecn *a = accecn_of(d, c);
    bool has_data = in->data.len > 0, ce = cp == TCP_ECN_CE;

    if (has_data && cp != TCP_ECN_NOT_ECT)
        c->ecn |= CONN_ECN_SEEN;
    if (ce && has_data)
        counter_inc(env->ctr, CTR_TCP_RX_CE);
    if (c->ecn & CONN_ECN_ACC) {
        if (a->lost < OPTION_LOSSES && has_data)
            a->lost = 0;
        if (tcp_accecn_received(a, cp, in->data.len, has_data || c->rcv_nxt != c->rcv_acked))
            c->flags |= CONN_F_ACK_NOW;
        return;
    }
    if (!has_data)
        return;
    a->r_cep += ce;
    if (tcp_cc_by_id(c->cc_id)->needs_ecn)
        echo_exactly(d, env, c, ce);
    else
        echo_until_cwr(c, in, ce);
}

void
ecn_on_old_segment(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in)
{
    struct tcp_accecn *a = accecn_of(d, c);
    uint8_t syn_flags = in->flags & (TCP_FLAG_SYN | TCP_FLAG_ACK);

    if (syn_flags == (TCP_FLAG_SYN | TCP_FLAG_ACK)) {
        if (in->seq == c->irs)
            ecn_on_syn_ack(d, c, in);
        return;
    }
    if ((syn_flags & TCP_FLAG_SYN) != 0 || !seq_geq(in->seq + in->data.len, c->rcv_acked - c->rcv_buf))
        return; /* of no sender of ours */
    tcp_accecn_received(a, codepoint_of(in->tos), in->data.len, false);
    if (in->data.len > 0 && (c->ecn & CONN_ECN_OPTION) != 0) {
        a->lost++;
        judge_option(d, c);
    }
}

/* ---- what the peer tells of ours ---------------------------------------- */

/** Sections 3.2.2.4 and 3.2.3.2.5: feedback that cannot be. */
static void
check_feedback(const struct tcp_domain *d, struct tcp_conn *c, unsigned ace, const struct tcp_accecn_ack *ack)
{
    struct tcp_accecn *a = accecn_of(d, c);
    bool first = !a->ace_seen;

    a->ace_seen = true;
    if (!d->params.ecn_fallback || ack->segs >= TCP_ACCECN_ACE_MAX + 1)
        return;
    /* Three marks would bring the count from 5 to 8. */
    if (first && ace == 0 && ack->segs < 3)
        c->ecn |= CONN_ECN_NO_ECT | CONN_ECN_DEAF;
}

static void
hear_accurate(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in, struct ack_news *n)
{
    struct tcp_accecn *a = accecn_of(d, c);
    unsigned ace = ace_of(in->flags);
    uint32_t bytes = (c->flags & CONN_F_SACK) != 0 ? n->sent.delivered_bytes : n->acked;
    struct tcp_accecn_ack ack = {
        .segs = (bytes + c->mss - 1) / c->mss,
        .bytes = bytes,
        .mss_bytes = c->mss,
        .progress = n->acked > 0 || n->sacked_bytes > 0,
    };
    struct tcp_accecn_news news;

    check_feedback(d, c, ace, &ack);
    if (c->ecn & CONN_ECN_DEAF)
        return;
    tcp_accecn_feedback(a, ace, &in->opts, &ack, &news);
    judge_option(d, c);
    n->marked = news.ce_pkts > 0 || news.ce_bytes > 0;
    n->marked_bytes = news.ce_bytes;
    if (news.has_bytes && news.ce_bytes > 0 && a->delivered_ce == 0 && d->params.ecn_fallback)
        c->ecn |= CONN_ECN_NO_ECT; /* marked bytes, and no marked packet ever: one of the two is forged */
}

void
ecn_on_ack(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in, struct ack_news *n)
{
    struct tcp_accecn *a = accecn_of(d, c);

    if (c->ecn & CONN_ECN_ON) {
        n->marked = (in->flags & TCP_FLAG_ECE) != 0;
        n->marked_bytes = n->marked ? UINT32_MAX : 0;
        if (n->marked)
            a->delivered_ce += (n->acked + c->mss - 1) / c->mss;
        return;
    }
    if ((c->ecn & CONN_ECN_ACC) == 0 || seq_lt(in->ack, c->snd_una))
        return;
    if (a->third_ack_due) {
        uint32_t before = a->delivered_ce;
        ecn_on_third_ack(d, c, in);
        n->marked = a->delivered_ce != before;
    } else {
        hear_accurate(d, c, in, n);
    }
}

/* ---- segments that go ---------------------------------------- */

void
ecn_put(const struct tcp_domain *d, struct tcp_conn *c, struct tcp_out *out)
{
    bool pure = out->payload_len == 0 && out->opts.nb_sack == 0 && (out->flags & TCP_FLAG_FIN) == 0;

    if ((c->ecn & CONN_ECN_ACC) == 0) {
        out->flags |= TCP_FLAG_ECE;
        return;
    }
    out->flags |= tcp_accecn_flags(accecn_of(d, c), pure);
    if ((c->ecn & CONN_ECN_NO_ECT) == 0 && (out->payload_len > 0 || (c->flags & CONN_F_SACK) != 0))
        out->tos |= TCP_TOS_ECT0;
    if ((c->ecn & CONN_ECN_OPTION) != 0 && c->md5 == 0)
        tcp_accecn_option(accecn_of(d, c), &out->opts);
}

bool
ecn_may_be_cut(const struct tcp_domain *d, const struct tcp_conn *c)
{
    /* Those who cut take CWR for RFC 3168's, which belongs to one segment; as a bit of an ACE all must have it (section 3.3.4). */
    if (c->ecn & CONN_ECN_ACC)
        return (accecn_of(d, c)->r_cep << TCP_ACCECN_ACE_SHIFT & TCP_FLAG_CWR) == 0;
    return (c->ecn & CONN_ECN_CWR) == 0;
}

/* ---- looking ---------------------------------------- */

void
ecn_info(const struct tcp_conn *c, const struct tcp_accecn *a, struct tcp_conn_info *info)
{
    static const uint32_t first[TCP_ACCECN_FIELDS] = { 1, 0, 1 };

    info->accecn = (c->ecn & CONN_ECN_ACC) != 0 && c->state != TCP_ST_SYN_SENT;
    info->ecn = info->accecn || (c->ecn & CONN_ECN_ON) != 0;
    if (!info->ecn)
        return;
    info->ecn_seen = (c->ecn & CONN_ECN_SEEN) != 0;
    info->delivered_ce = a->delivered_ce;
    info->received_ce = info->accecn ? a->r_cep - 5 : a->r_cep;
    if (!info->accecn)
        return;
    info->accecn_seen = a->seen;
    info->accecn_fail = (uint8_t)((c->ecn & (CONN_ECN_NO_ECT | CONN_ECN_DEAF) ? FAIL_ACE_RECEIVED : 0) |
                                  (a->lost >= OPTION_LOSSES ? FAIL_OPTION_SENT : 0) |
                                  (a->seen == TCP_ACCECN_ZEROED ? FAIL_OPTION_RECEIVED : 0));
    for (unsigned i = 0; i < TCP_ACCECN_FIELDS; i++) {
        info->delivered_ecn_bytes[i] = a->s_bytes[i] - first[i];
        info->received_ecn_bytes[i] = a->r_bytes[i] - first[i];
    }
}
