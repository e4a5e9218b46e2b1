/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

/** Option kinds: IANA "TCP Option Kind Numbers". */
enum {
    OPT_END = 0,
    OPT_NOP = 1,
    OPT_MSS = 2,
    OPT_WSCALE = 3,
    OPT_SACK_PERMITTED = 4,
    OPT_SACK = 5,
    OPT_TS = 8,
    OPT_MD5 = 19,
    OPT_FASTOPEN = 34,
    OPT_ACCECN0 = 172,
    OPT_ACCECN1 = 174,
    OPT_EXP = 254
};

/** RFC 7413 appendix: what marks the experimental option as Fast Open's (RFC 6994). */
#define EXP_FASTOPEN 0xf989u
#define FASTOPEN_MIN 4
#define FASTOPEN_MAX 16

/** Timestamps as most segments have them: NOP NOP, kind, length, and two words. */
#define TS_BEGINS ((uint32_t)OPT_NOP << 24 | OPT_NOP << 16 | OPT_TS << 8 | 10)
#define TCP_TS_BYTES 12u

#define MD5_OPTION_LEN (2 + TCP_MD5_DIGEST_BYTES)

/** RFC 7323 section 2.3: a larger shift counts as 14. */
#define WSCALE_MAX 14

static uint16_t
get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t
get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void
put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void
put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)(v >> 16));
    put16(p + 2, (uint16_t)v);
}

static void
put64(uint8_t *p, uint32_t first, uint32_t second)
{
    uint64_t v = htobe64((uint64_t)first << 32 | second);

    memcpy(p, &v, sizeof(v));
}

static void
parse_sack(const uint8_t *p, size_t len, struct tcp_options *o)
{
    size_t n = (len - 2) / 8;

    for (size_t i = 0; i < n && i < TCP_MAX_SACK; i++)
        o->sack[i] = (struct tcp_sack_block){ get32(p + 2 + 8 * i), get32(p + 6 + 8 * i) };
    o->nb_sack = (uint8_t)(n < TCP_MAX_SACK ? n : TCP_MAX_SACK);
}

/** A cookie, or a request for one. A length that no cookie can have is as if the option were absent. */
static void
parse_fastopen(const uint8_t *p, size_t len, bool exp, struct tcp_options *o)
{
    if (len != 0 && (len < FASTOPEN_MIN || len > FASTOPEN_MAX || len % 2 != 0))
        return;
    o->has_fo = true;
    o->fo.exp = exp;
    o->fo.len = (uint8_t)len;
    memcpy(o->fo.bytes, p, len);
}

static uint32_t
get24(const uint8_t *p)
{
    return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
}

/** RFC 9768 section 3.2.3: the two kinds differ in the order of the counters, of which the last may be missing. */
static void
parse_accecn(const uint8_t *p, size_t len, bool reversed, struct tcp_options *o)
{
    o->has_accecn = true;
    for (unsigned i = 0; i < TCP_ACCECN_FIELDS && 3u * (i + 1) <= len; i++) {
        unsigned field = reversed ? TCP_ACCECN_FIELDS - 1 - i : i;
        o->accecn[field] = get24(p + 3u * i);
        o->accecn_fields |= (uint8_t)(1u << field);
    }
}

/** One option of len bytes, kind and length included. A known kind with a length that it cannot have is ignored, as an
 *  unknown kind is (RFC 9293 MUST-6). */
static void
parse_option(const uint8_t *p, size_t len, bool syn, struct tcp_options *o)
{
    switch (p[0]) {
    case OPT_MSS:
        if (len == 4 && syn) {
            o->has_mss = true;
            o->mss = get16(p + 2);
        }
        break;
    case OPT_WSCALE:
        if (len == 3 && syn) {
            o->has_wscale = true;
            o->wscale = p[2] > WSCALE_MAX ? WSCALE_MAX : p[2];
        }
        break;
    case OPT_SACK_PERMITTED:
        o->sack_permitted |= len == 2 && syn;
        break;
    case OPT_SACK:
        if (len >= 10 && (len - 2) % 8 == 0 && !syn)
            parse_sack(p, len, o);
        break;
    case OPT_TS:
        if (len == 10) {
            o->has_ts = true;
            o->ts_val = get32(p + 2);
            o->ts_ecr = get32(p + 6);
        }
        break;
    case OPT_ACCECN0:
    case OPT_ACCECN1:
        parse_accecn(p + 2, len - 2, p[0] == OPT_ACCECN0, o);
        break;
    case OPT_FASTOPEN:
        if (syn)
            parse_fastopen(p + 2, len - 2, false, o);
        break;
    case OPT_EXP:
        if (syn && len >= 4 && get16(p + 2) == EXP_FASTOPEN)
            parse_fastopen(p + 4, len - 4, true, o);
        break;
    default:
        break;
    }
}

/** Those of a header of len bytes. */
static int
parse_options(const uint8_t *hdr, size_t len, bool syn, struct tcp_options *o)
{
    const uint8_t *p = hdr + TCP_HDR_MIN;

    len -= TCP_HDR_MIN;
    while (len > 0 && p[0] != OPT_END) {
        size_t n = 1;
        if (p[0] != OPT_NOP) {
            /* A length of 0 or 1 would never get ahead; one past the header would read the payload. */
            if (len < 2 || p[1] < 2 || p[1] > len)
                return -EINVAL;
            n = p[1];
            if (p[0] == OPT_MD5 && n == MD5_OPTION_LEN)
                o->md5_off = (uint8_t)(p + 2 - hdr);
            parse_option(p, n, syn, o);
        }
        p += n;
        len -= n;
    }
    return 0;
}

/** The layout that nearly every data segment has: NOP NOP timestamps and nothing else. */
static bool
is_plain_ts(const uint8_t *p, size_t len)
{
    static const uint8_t layout[4] = { OPT_NOP, OPT_NOP, OPT_TS, 10 };

    return len == 12 && memcmp(p, layout, sizeof(layout)) == 0;
}

int
tcp_wire_parse(const uint8_t *hdr, size_t len, struct tcp_in *in)
{
    if (len < TCP_HDR_MIN)
        return -EBADMSG;
    size_t hdr_len = (size_t)(hdr[12] >> 4) * 4;
    if (hdr_len < TCP_HDR_MIN || hdr_len > len)
        return -EBADMSG;

    in->tuple.remote_port = get16(hdr);
    in->tuple.local_port = get16(hdr + 2);
    in->seq = get32(hdr + 4);
    in->ack = get32(hdr + 8);
    in->flags = (uint16_t)(get16(hdr + 12) & 0x1ffu);
    in->window = get16(hdr + 14);
    in->urgent = get16(hdr + 18);
    in->data.off = (uint32_t)hdr_len;
    in->data.len = (uint32_t)(len - hdr_len);
    memset(&in->opts, 0, sizeof(in->opts));
    if (is_plain_ts(hdr + TCP_HDR_MIN, hdr_len - TCP_HDR_MIN)) {
        in->opts.has_ts = true;
        in->opts.ts_val = get32(hdr + 24);
        in->opts.ts_ecr = get32(hdr + 28);
        return (int)hdr_len;
    }
    int rc = parse_options(hdr, hdr_len, (in->flags & TCP_FLAG_SYN) != 0, &in->opts);
    return rc < 0 ? rc : (int)hdr_len;
}

/** SACK blocks that fit beside the other options: 40 bytes in all. */
static unsigned
sack_blocks_that_fit(const struct tcp_options *o, size_t before)
{
    unsigned room = before + 4 < 40 ? (unsigned)((40 - before - 4) / 8) : 0;

    return o->nb_sack < room ? o->nb_sack : room;
}

static size_t
accecn_padded_len(const struct tcp_options *o)
{
    return (2u + 3u * (unsigned)__builtin_popcount(o->accecn_fields) + 3u) & ~3u;
}

/** Length of the option, without what pads it. */
static size_t
fastopen_len(const struct tcp_fo_cookie *c)
{
    return (c->exp ? 4u : 2u) + c->len;
}

/** Room for the digest, at TCP_MD5_DIGEST_OFF: it is of the whole segment, whose bytes somebody else has. */
static uint8_t *
put_md5(uint8_t *p)
{
    p[0] = p[1] = OPT_NOP;
    p[2] = OPT_MD5;
    p[3] = MD5_OPTION_LEN;
    memset(p + 4, 0, TCP_MD5_DIGEST_BYTES);
    return p + 4 + TCP_MD5_DIGEST_BYTES;
}

static uint8_t *
put_ts(uint8_t *p, const struct tcp_options *o)
{
    put32(p, o->sack_permitted ? OPT_SACK_PERMITTED << 24 | 2 << 16 | (TS_BEGINS & 0xffff) : TS_BEGINS);
    put64(p + 4, o->ts_val, o->ts_ecr);
    return p + TCP_TS_BYTES;
}

static uint8_t *
put_accecn(uint8_t *p, const struct tcp_options *o)
{
    unsigned n = (unsigned)__builtin_popcount(o->accecn_fields);
    size_t padded = accecn_padded_len(o);

    memset(p, OPT_NOP, padded);
    p[0] = OPT_ACCECN1;
    p[1] = (uint8_t)(2 + 3 * n);
    for (unsigned i = 0; i < n; i++) {
        p[2 + 3 * i] = (uint8_t)(o->accecn[i] >> 16);
        put16(p + 3 + 3 * i, (uint16_t)o->accecn[i]);
    }
    return p + padded;
}

static uint8_t *
put_sack_permitted(uint8_t *p)
{
    p[0] = p[1] = OPT_NOP;
    p[2] = OPT_SACK_PERMITTED;
    p[3] = 2;
    return p + 4;
}

static uint8_t *
put_sack(uint8_t *p, const struct tcp_options *o, unsigned n)
{
    if (n == 0)
        return p;
    p[0] = p[1] = OPT_NOP;
    p[2] = OPT_SACK;
    p[3] = (uint8_t)(2 + 8 * n);
    p += 4;
    for (unsigned i = 0; i < n; i++, p += 8) {
        put32(p, o->sack[i].start);
        put32(p + 4, o->sack[i].end);
    }
    return p;
}

static uint8_t *
put_fastopen(uint8_t *p, const struct tcp_fo_cookie *c)
{
    size_t len = fastopen_len(c), padded = (len + 3) & ~(size_t)3;

    memset(p, OPT_NOP, padded);
    p[0] = c->exp ? OPT_EXP : OPT_FASTOPEN;
    p[1] = (uint8_t)len;
    if (c->exp)
        put16(p + 2, EXP_FASTOPEN);
    memcpy(p + (c->exp ? 4 : 2), c->bytes, c->len);
    return p + padded;
}

/** All options of a segment, in their order; returns the header's length. */
static __attribute__((noinline)) size_t
put_options(const struct tcp_out *out, uint8_t *hdr)
{
    const struct tcp_options *o = &out->opts;
    uint8_t *p = hdr + TCP_HDR_MIN;

    if (out->md5 != NULL)
        p = put_md5(p);
    if (o->has_mss) {
        p[0] = OPT_MSS;
        p[1] = 4;
        put16(p + 2, o->mss);
        p += 4;
    }
    if (o->has_ts)
        p = put_ts(p, o);
    if (o->has_accecn)
        p = put_accecn(p, o);
    if (!o->has_ts && o->sack_permitted)
        p = put_sack_permitted(p);
    if (o->has_wscale) {
        p[0] = OPT_NOP;
        p[1] = OPT_WSCALE;
        p[2] = 3;
        p[3] = o->wscale;
        p += 4;
    }
    if (o->has_fo)
        p = put_fastopen(p, &o->fo);
    if (o->nb_sack > 0)
        p = put_sack(p, o, sack_blocks_that_fit(o, (size_t)(p - hdr) - TCP_HDR_MIN));
    return (size_t)(p - hdr);
}

size_t
tcp_wire_build(const struct tcp_out *out, uint8_t *hdr)
{
    size_t hdr_len = TCP_HDR_MIN;
    uint32_t first_option = TS_BEGINS;

    if (__builtin_expect(out->md5 != NULL || out->opts.rare != 0, 0)) {
        hdr_len = put_options(out, hdr);
        first_option = get32(hdr + TCP_HDR_MIN);
    } else if (out->opts.has_ts) {
        put64(hdr + TCP_HDR_MIN + 4, out->opts.ts_val, out->opts.ts_ecr);
        hdr_len += TCP_TS_BYTES;
    }
    /*
     * By words of eight bytes, as the checksum reads them in a moment: a load that needs the bytes of two stores waits until both have left the store buffer, behind all that was
     * stored before.
     */
    put64(hdr, (uint32_t)out->tuple->local_port << 16 | out->tuple->remote_port, out->seq);
    put64(hdr + 8, out->ack, (uint32_t)(hdr_len / 4 << 12 | out->flags) << 16 | out->window);
    if (hdr_len > TCP_HDR_MIN)
        put64(hdr + 16, 0, first_option);
    else
        put32(hdr + 16, 0);
    return hdr_len;
}
