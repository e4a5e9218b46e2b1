/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "tcp/domain.h"

/** Bounds as in Linux (net/ipv4/tcp.c documents them as MAX_TCP_KEEPIDLE and so on). */
static const struct {
    int32_t min, max;
} bounds[TCP_OPT_COUNT] = {
    [TCP_OPT_NODELAY] = { INT32_MIN, INT32_MAX },
    [TCP_OPT_CORK] = { INT32_MIN, INT32_MAX },
    [TCP_OPT_QUICKACK] = { INT32_MIN, INT32_MAX },
    [TCP_OPT_MAXSEG] = { 0, 32767 },
    [TCP_OPT_KEEPALIVE] = { INT32_MIN, INT32_MAX },
    [TCP_OPT_KEEPIDLE] = { 1, 32767 },
    [TCP_OPT_KEEPINTVL] = { 1, 32767 },
    [TCP_OPT_KEEPCNT] = { 1, 127 },
    [TCP_OPT_SYNCNT] = { 1, 127 },
    [TCP_OPT_USER_TIMEOUT] = { 0, INT32_MAX },
    [TCP_OPT_LINGER2] = { INT32_MIN, INT32_MAX },
    [TCP_OPT_RCVBUF] = { -1, INT32_MAX },
    [TCP_OPT_SNDBUF] = { 0, INT32_MAX },
    [TCP_OPT_REUSEADDR] = { INT32_MIN, INT32_MAX },
    [TCP_OPT_REUSEPORT] = { INT32_MIN, INT32_MAX },
    [TCP_OPT_TOS] = { 0, 255 },
    [TCP_OPT_WINDOW_CLAMP] = { 0, INT32_MAX },
    [TCP_OPT_DEFER_ACCEPT] = { INT32_MIN, INT32_MAX },
    [TCP_OPT_CONGESTION] = { 0, TCP_CC_COUNT - 1 },
    [TCP_OPT_FASTOPEN] = { 0, INT32_MAX },
    [TCP_OPT_MAX_PACING_RATE] = { INT32_MIN, INT32_MAX },
    [TCP_OPT_FASTOPEN_NO_COOKIE] = { INT32_MIN, INT32_MAX },
    [TCP_OPT_MTU_DISCOVER] = { TCP_MTU_DISCOVER_DONT, TCP_MTU_DISCOVER_OMIT },
};

#define RCV_BUF_MIN 2304 /* Linux's SOCK_MIN_RCVBUF */
#define RCV_BUF_MAX (1 << 30)

void
opts_default(const struct tcp_domain *d, struct tcp_conn_opts *o)
{
    *o = (struct tcp_conn_opts){
        .rcv_buf_bytes = d->params.rcv_buf_bytes,
        .snd_buf_bytes = d->params.snd_buf_bytes,
        .keep_idle_s = 7200,
        .keep_intvl_s = 75,
        .keep_cnt = 9,
        .cc_id = TCP_CC_BY_ROUTE,
        .mtu_discover = TCP_MTU_DISCOVER_WANT,
    };
}

static void
flag_set(uint32_t *flags, uint32_t bit, int32_t value)
{
    *flags = value != 0 ? *flags | bit : *flags & ~bit;
}

static uint32_t
rcv_buf_bound(int32_t value)
{
    if (value < RCV_BUF_MIN)
        return RCV_BUF_MIN;
    return value > RCV_BUF_MAX ? RCV_BUF_MAX : (uint32_t)value;
}

/** Linux caps it at two minutes; a negative value means no FIN-WAIT-2 for orphans, 0 the default. */
static uint16_t
linger2_bound(int32_t value)
{
    if (value < 0)
        return TCP_LINGER2_NONE;
    return value > 120 ? 120 : (uint16_t)value;
}

int
tcp_option_check(uint32_t opt, int32_t value)
{
    if (opt >= TCP_OPT_COUNT)
        return -ENOPROTOOPT;
    if (value < bounds[opt].min || value > bounds[opt].max)
        return -EINVAL;
    return opt == TCP_OPT_MAXSEG && value != 0 && value < TCP_MSS_FLOOR ? -EINVAL : 0;
}

int
opts_set(struct tcp_conn_opts *o, uint32_t *flags, enum tcp_option opt, int32_t value)
{
    if (tcp_option_check(opt, value) != 0)
        return -EINVAL;
    switch (opt) {
    case TCP_OPT_NODELAY:
        flag_set(flags, CONN_F_NODELAY, value);
        break;
    case TCP_OPT_CORK:
        flag_set(flags, CONN_F_CORK, value);
        break;
    case TCP_OPT_QUICKACK:
        flag_set(flags, CONN_F_QUICKACK, value);
        break;
    case TCP_OPT_KEEPALIVE:
        flag_set(flags, CONN_F_KEEPALIVE, value);
        break;
    case TCP_OPT_FASTOPEN_NO_COOKIE:
        flag_set(flags, CONN_F_FO_NO_COOKIE, value);
        break;
    case TCP_OPT_MAXSEG:
        o->max_seg = (uint16_t)value;
        break;
    case TCP_OPT_KEEPIDLE:
        o->keep_idle_s = (uint16_t)value;
        break;
    case TCP_OPT_KEEPINTVL:
        o->keep_intvl_s = (uint16_t)value;
        break;
    case TCP_OPT_KEEPCNT:
        o->keep_cnt = (uint8_t)value;
        break;
    case TCP_OPT_SYNCNT:
        o->syn_retries = (uint8_t)value;
        break;
    case TCP_OPT_USER_TIMEOUT:
        o->user_timeout_ms = (uint32_t)value;
        break;
    case TCP_OPT_LINGER2:
        o->linger2_s = linger2_bound(value);
        break;
    case TCP_OPT_RCVBUF:
        flag_set(flags, CONN_F_RCVBUF_FIXED, value >= 0);
        if (value >= 0)
            o->rcv_buf_bytes = rcv_buf_bound(value);
        break;
    case TCP_OPT_SNDBUF:
        o->snd_buf_bytes = (uint32_t)value;
        break;
    case TCP_OPT_TOS:
        o->tos = (uint8_t)value;
        break;
    case TCP_OPT_CONGESTION:
        o->cc_id = (uint8_t)value;
        break;
    case TCP_OPT_MAX_PACING_RATE:
        o->max_pacing_rate = value > 0 ? (uint32_t)value : 0;
        break;
    case TCP_OPT_MTU_DISCOVER:
        o->mtu_discover = (uint8_t)value;
        break;
    case TCP_OPT_WINDOW_CLAMP:
        o->window_clamp_bytes = (uint32_t)value;
        break;
    default:
        /* REUSEADDR, REUSEPORT, DEFER_ACCEPT and FASTOPEN belong to bind and listen. */
        break;
    }
    return 0;
}

int
opts_apply(const struct tcp_domain *d, struct tcp_conn_opts *o, uint32_t *flags, const struct tcp_sockopts *so)
{
    opts_default(d, o);
    *flags = 0;
    if (so == NULL)
        return 0;
    for (uint32_t left = so->set; left != 0; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        int rc = opts_set(o, flags, (enum tcp_option)i, so->value[i]);
        if (rc != 0)
            return rc;
    }
    return 0;
}

bool
opts_flag(const struct tcp_sockopts *so, enum tcp_option opt)
{
    return so != NULL && (so->set & (1u << opt)) != 0 && so->value[opt] != 0;
}
