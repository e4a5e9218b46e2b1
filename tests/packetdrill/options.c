/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptor flags, ioctls and socket options. */
/* Before the engine's header: both name the flags, one by an enum. */
#include <linux/tcp.h>

#include "adapter.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/net_tstamp.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- flags and options ---- */

int
pd_fcntl(void *self, int fd, int cmd, ...)
{
    (void)self;
    va_list ap;
    va_start(ap, cmd);
    int arg = cmd == F_GETFL || cmd == F_GETFD ? 0 : va_arg(ap, int);
    va_end(ap);
    struct host_sock *s = enter(fd);
    if (!s) {
        pthread_mutex_unlock(&host.lock);
        return (int)syscall(SYS_fcntl, fd, cmd, arg);
    }
    if (cmd == F_GETFL)
        return done(O_RDWR | (s->nonblock ? O_NONBLOCK : 0));
    if (cmd != F_SETFL)
        return done(-EINVAL);
    s->nonblock = arg & O_NONBLOCK;
    return done(0);
}

int
pd_ioctl(void *self, int fd, unsigned long request, ...)
{
    (void)self;
    va_list ap;
    va_start(ap, request);
    int *value = va_arg(ap, int *);
    va_end(ap);
    struct host_sock *s = enter(fd);
    if (!s) {
        pthread_mutex_unlock(&host.lock);
        return (int)syscall(SYS_ioctl, fd, request, value);
    }
    if (request == FIONBIO) {
        s->nonblock = *value != 0;
        return done(0);
    }
    if (s->listening)
        return done(-EINVAL);
    struct tcp_conn_info ci;
    switch (request) {
    case SIOCINQ:
        *value = (int)s->rx_len;
        return done(0);
    case SIOCOUTQ:
        *value = (int)(s->tx_written - s->tx_acked);
        return done(0);
    case SIOCOUTQNSD:
        *value = s->id && tcp_info(host.domain, s->id, &ci) ? (int)ci.snd_unsent : 0;
        return done(0);
    default:
        return done(-ENOTTY);
    }
}

/** Options that go to the engine as they are. */
static const struct {
    int level, name;
    enum tcp_option opt;
} engine_options[] = {
    { IPPROTO_TCP, TCP_NODELAY, TCP_OPT_NODELAY },
    { IPPROTO_TCP, TCP_CORK, TCP_OPT_CORK },
    { IPPROTO_TCP, TCP_QUICKACK, TCP_OPT_QUICKACK },
    { IPPROTO_TCP, TCP_MAXSEG, TCP_OPT_MAXSEG },
    { IPPROTO_TCP, TCP_KEEPIDLE, TCP_OPT_KEEPIDLE },
    { IPPROTO_TCP, TCP_KEEPINTVL, TCP_OPT_KEEPINTVL },
    { IPPROTO_TCP, TCP_KEEPCNT, TCP_OPT_KEEPCNT },
    { IPPROTO_TCP, TCP_SYNCNT, TCP_OPT_SYNCNT },
    { IPPROTO_TCP, TCP_USER_TIMEOUT, TCP_OPT_USER_TIMEOUT },
    { IPPROTO_TCP, TCP_LINGER2, TCP_OPT_LINGER2 },
    { IPPROTO_TCP, TCP_WINDOW_CLAMP, TCP_OPT_WINDOW_CLAMP },
    { IPPROTO_TCP, TCP_DEFER_ACCEPT, TCP_OPT_DEFER_ACCEPT },
    { SOL_SOCKET, SO_KEEPALIVE, TCP_OPT_KEEPALIVE },
    { SOL_SOCKET, SO_REUSEADDR, TCP_OPT_REUSEADDR },
    { SOL_SOCKET, SO_REUSEPORT, TCP_OPT_REUSEPORT },
    { SOL_SOCKET, SO_RCVBUF, TCP_OPT_RCVBUF },
    { SOL_SOCKET, SO_SNDBUF, TCP_OPT_SNDBUF },
    { SOL_SOCKET, SO_MAX_PACING_RATE, TCP_OPT_MAX_PACING_RATE },
    { IPPROTO_IP, IP_TOS, TCP_OPT_TOS },
    { IPPROTO_IPV6, IPV6_TCLASS, TCP_OPT_TOS },
    { IPPROTO_IP, IP_MTU_DISCOVER, TCP_OPT_MTU_DISCOVER },
    { IPPROTO_TCP, TCP_FASTOPEN, TCP_OPT_FASTOPEN },
    { IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, TCP_OPT_FASTOPEN_NO_COOKIE },
};

static bool
is_closed(const struct host_sock *s)
{
    return !s->connected && !s->connecting && !s->deferred;
}

/** Options that the adapter itself keeps. -ENOPROTOOPT if it is none of them. */
static int
set_own_option(struct host_sock *s, int level, int name, int v)
{
    if (level == SOL_SOCKET && name == SO_RCVLOWAT) {
        s->lowat_bytes = v > 0 ? (uint32_t)v : 1;
    } else if (level == SOL_SOCKET && name == SO_ZEROCOPY) {
        if (v < 0 || v > 1)
            return -EINVAL;
        s->zerocopy = v;
    } else if (level == IPPROTO_TCP && name == TCP_INQ) {
        if (v < 0 || v > 1)
            return -EINVAL;
        s->inq = v;
    } else if (level == IPPROTO_TCP && name == TCP_NOTSENT_LOWAT) {
        s->notsent_lowat_bytes = (uint32_t)v;
    } else if (level == IPPROTO_TCP && name == TCP_FASTOPEN_CONNECT) {
        reload_sysctls();
        if (v < 0 || v > 1 || !is_closed(s))
            return -EINVAL;
        if (!(host.params.fastopen & TCP_FASTOPEN_CLIENT))
            return -EOPNOTSUPP;
        s->fastopen_connect = v;
    } else if (level == SOL_SOCKET && name == SO_TIMESTAMPING) {
        if ((v & SOF_TIMESTAMPING_OPT_ID) && !(s->ts_flags & SOF_TIMESTAMPING_OPT_ID)) {
            if (!s->connected)
                return -EINVAL;
            s->ts_key = s->tx_acked;
        }
        s->ts_flags = (uint32_t)v;
    } else if (level == SOL_SOCKET && (name == SO_MARK || name == SO_PRIORITY)) {
        return 0; /* they would choose a route or a queue: this host has one of each */
    } else if (level == SOL_SOCKET && (name == SO_OOBINLINE || name == SO_BROADCAST)) {
        return 0; /* urgent data is in line always, and nothing of TCP's is a broadcast */
    } else if (level == IPPROTO_IP && (name == IP_FREEBIND || name == IP_TRANSPARENT)) {
        return 0; /* this host takes every address for its own */
    } else {
        return -ENOPROTOOPT;
    }
    return 0;
}

static int
set_fastopen_keys(struct host_sock *s, const void *value, socklen_t len)
{
    struct tcp_sockopts *o = &s->opts;
    if (len != TCP_FASTOPEN_KEY_BYTES && len != sizeof(o->fastopen_keys))
        return -EINVAL;
    memcpy(o->fastopen_keys, value, len);
    o->nb_fastopen_keys = (uint8_t)(len / TCP_FASTOPEN_KEY_BYTES);
    return s->listening ? tcp_set_fastopen_keys(host.domain, s->id, o->nb_fastopen_keys, o->fastopen_keys) : 0;
}

/** Kept for a connection to come. */
static int
keep_md5_key(struct host_sock *s, const struct tcp_md5_key *key)
{
    uint32_t i = 0;
    while (i < s->opts.nb_md5 && (s->md5[i].prefix_len != key->prefix_len ||
                                  memcmp(&s->md5[i].prefix, &key->prefix, sizeof(key->prefix)) != 0))
        i++;
    if (key->n_bytes == 0 && i == s->opts.nb_md5)
        return -ENOENT;
    if (i == HOST_MAX_KEYS)
        return -ENOMEM;
    s->opts.md5 = s->md5;
    if (key->n_bytes == 0) {
        s->md5[i] = s->md5[--s->opts.nb_md5];
        return 0;
    }
    s->md5[i] = *key;
    s->opts.nb_md5 += i == s->opts.nb_md5;
    return 0;
}

static int
set_md5_key(struct host_sock *s, int name, const void *value, socklen_t len)
{
    struct tcp_md5_key key = { .prefix_len = 128 };
    struct tcp_md5sig sig;
    uint16_t port;
    if (len < sizeof(sig))
        return -EINVAL;
    memcpy(&sig, value, sizeof(sig));
    bool v6 = sig.tcpm_addr.ss_family == AF_INET6;
    if (v6 != s->v6 || !get_addr((const struct sockaddr *)&sig.tcpm_addr, sizeof(sig.tcpm_addr), &key.prefix, &port))
        return -EINVAL;
    unsigned bits = ip_addr_is_v4(&key.prefix) ? 32 : 128;
    if (name == TCP_MD5SIG_EXT && (sig.tcpm_flags & TCP_MD5SIG_FLAG_PREFIX)) {
        if (sig.tcpm_prefixlen > bits)
            return -EINVAL;
        key.prefix_len = (uint8_t)(128 - bits + sig.tcpm_prefixlen);
    }
    if (sig.tcpm_keylen > TCP_MD5_KEY_MAX)
        return -EINVAL;
    key.n_bytes = (uint8_t)sig.tcpm_keylen;
    memcpy(key.bytes, sig.tcpm_key, key.n_bytes);
    struct tcp_env env = host_env(&host);
    return s->id ? tcp_set_md5_key(host.domain, &env, s->id, &key) : keep_md5_key(s, &key);
}

static int
set_engine_value(struct host_sock *s, enum tcp_option opt, int value)
{
    struct tcp_env env = host_env(&host);
    int err = s->id ? tcp_set_option(host.domain, &env, s->id, opt, value) : tcp_option_check(opt, value);
    if (err)
        return err;
    s->opts.set |= 1u << opt;
    s->opts.value[opt] = value;
    return 0;
}

static int
set_engine_option(struct host_sock *s, int level, int name, int value)
{
    for (size_t i = 0; i < sizeof(engine_options) / sizeof(engine_options[0]); i++) {
        if (engine_options[i].level != level || engine_options[i].name != name)
            continue;
        enum tcp_option opt = engine_options[i].opt;
        if (opt == TCP_OPT_SNDBUF)
            s->sndbuf_bytes = (uint32_t)(value *= 2); /* as Linux books it */
        return set_engine_value(s, opt, value);
    }
    return -ENOPROTOOPT;
}

int
pd_setsockopt(void *self, int fd, int level, int name, const void *value, socklen_t len)
{
    (void)self;
    struct host_sock *s = enter(fd);
    if (!s)
        return done(-EBADF);
    if (!value)
        return done(-EFAULT);
    if (level == SOL_SOCKET && name == SO_LINGER && len >= sizeof(struct linger)) {
        const struct linger *l = value;
        s->linger_s = l->l_onoff ? l->l_linger : -1;
        return done(0);
    }
    if (level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO) && len >= sizeof(struct timeval)) {
        const struct timeval *tv = value;
        *(name == SO_RCVTIMEO ? &s->rcv_timeout_us : &s->snd_timeout_us) =
            (uint64_t)tv->tv_sec * 1000000 + (uint64_t)tv->tv_usec;
        return done(0);
    }
    if (level == IPPROTO_TCP && name == TCP_CONGESTION) {
        char cc[16] = "";
        memcpy(cc, value, len < sizeof(cc) ? len : sizeof(cc) - 1);
        int number = tcp_congestion_find(cc);
        return done(number < 0 ? number : set_engine_value(s, TCP_OPT_CONGESTION, number));
    }
    if (level == IPPROTO_TCP && name == TCP_FASTOPEN_KEY)
        return done(set_fastopen_keys(s, value, len));
    if (level == IPPROTO_TCP && (name == TCP_MD5SIG || name == TCP_MD5SIG_EXT))
        return done(set_md5_key(s, name, value, len));
    int v = 0;
    if (level == IPPROTO_IP && len == 1)
        v = *(const uint8_t *)value; /* IP options may be a byte (ip(7)) */
    else if (len < sizeof(int))
        return done(-EINVAL);
    else
        memcpy(&v, value, sizeof(v));
    int err = set_own_option(s, level, name, v);
    return done(err == -ENOPROTOOPT ? set_engine_option(s, level, name, v) : err);
}

static int
put_value(void *value, socklen_t *len, const void *from, socklen_t size)
{
    if (*len > size)
        *len = size;
    memcpy(value, from, *len);
    return 0;
}

/** What newer kernels than this header's add to struct tcp_info (include/uapi/linux/tcp.h of Linux 6.18). */
#define INFO_TAIL_OFF 232
struct info_tail {
    uint32_t rcv_wnd, rehash;
    uint16_t total_rto, total_rto_recoveries;
    uint32_t total_rto_time_ms;
    uint32_t received_ce;
    uint32_t delivered_bytes[3], received_bytes[3]; /**< ECT(1), ECT(0), CE */
    uint32_t ecn; /**< mode: 2 bits, option seen: 2, failures: 4 */
};

static int
get_tcp_info(struct host_sock *s, void *value, socklen_t *len)
{
    struct tcp_conn_info ci;
    /* packetdrill wants the structure of the newest kernels: fields that neither this header nor the tail knows stay 0. */
    union {
        struct tcp_info info;
        struct {
            uint8_t before[INFO_TAIL_OFF];
            struct info_tail tail;
        };
    } answer = { .info.tcpi_state = TCP_ST_CLOSED };
    struct tcp_info ti = answer.info;
    struct tcp_env env = host_env(&host);
    tcp_tick(host.domain, &env, 1); /* the times are told as of the domain's last event */
    bool lives = s->id && tcp_info(host.domain, s->id, &ci);
    if (!lives && s->gone) {
        ci = s->info;
        ci.state = TCP_ST_CLOSED;
    }
    if (lives || s->gone) {
        uint32_t mss = ci.snd_mss ? ci.snd_mss : 1;
        ti.tcpi_state = (uint8_t)ci.state;
        ti.tcpi_ca_state = ci.ca_state;
        ti.tcpi_retransmits = ci.retransmits;
        ti.tcpi_backoff = ci.backoff;
        ti.tcpi_options =
            (uint8_t)((ci.timestamps ? TCPI_OPT_TIMESTAMPS : 0) | (ci.sack ? TCPI_OPT_SACK : 0) |
                      (ci.snd_wscale || ci.rcv_wscale ? TCPI_OPT_WSCALE : 0) | (ci.ecn ? TCPI_OPT_ECN : 0) |
                      (ci.ecn_seen ? TCPI_OPT_ECN_SEEN : 0) | (ci.syn_data ? TCPI_OPT_SYN_DATA : 0));
        ti.tcpi_snd_wscale = ci.snd_wscale & 0xf;
        ti.tcpi_rcv_wscale = ci.rcv_wscale & 0xf;
        ti.tcpi_rto = ci.rto_us;
        ti.tcpi_snd_mss = ci.snd_mss;
        ti.tcpi_rcv_mss = ci.rcv_mss;
        ti.tcpi_unacked = ci.unacked_segs;
        ti.tcpi_rtt = ci.srtt_us;
        ti.tcpi_rttvar = ci.rttvar_us;
        ti.tcpi_snd_ssthresh = ci.ssthresh_bytes == UINT32_MAX ? INT_MAX : ci.ssthresh_bytes / mss;
        ti.tcpi_snd_cwnd = ci.cwnd_bytes / mss;
        ti.tcpi_total_retrans = ci.retrans_segs_total;
        ti.tcpi_sacked = ci.sacked_segs;
        ti.tcpi_lost = ci.lost_segs;
        ti.tcpi_retrans = ci.retrans_segs;
        ti.tcpi_reordering = ci.reordering_segs;
        ti.tcpi_advmss = ci.adv_mss;
        ti.tcpi_pmtu = ci.path_mtu;
        ti.tcpi_rcv_rtt = ci.rcv_rtt_us;
        ti.tcpi_bytes_retrans = ci.bytes_retrans;
        ti.tcpi_reord_seen = ci.reorderings;
        ti.tcpi_probes = ci.probes;
        ti.tcpi_ato = ci.ato_us;
        ti.tcpi_fastopen_client_fail = ci.fastopen_fail & 3;
        ti.tcpi_dsack_dups = ci.dsack_segs;
        ti.tcpi_rcv_ooopack = ci.ooo_segs;
        ti.tcpi_data_segs_in = ci.data_segs_in;
        ti.tcpi_data_segs_out = ci.data_segs_out;
        ti.tcpi_bytes_sent = ci.bytes_sent;
        ti.tcpi_last_data_recv = (uint32_t)((host.now_us - ci.last_data_rcv_at_us) / 1000);
        ti.tcpi_last_ack_recv = (uint32_t)((host.now_us - ci.last_rcv_at_us) / 1000);
        ti.tcpi_last_data_sent = (uint32_t)((host.now_us - ci.last_snd_at_us) / 1000);
        ti.tcpi_bytes_acked = ci.bytes_acked;
        ti.tcpi_bytes_received = ci.bytes_received;
        ti.tcpi_segs_in = (uint32_t)ci.segs_in;
        ti.tcpi_segs_out = (uint32_t)ci.segs_out;
        ti.tcpi_notsent_bytes = ci.snd_unsent;
        ti.tcpi_delivery_rate = ci.delivery_rate;
        ti.tcpi_delivery_rate_app_limited = ci.delivery_rate_app_limited;
        ti.tcpi_pacing_rate = ci.pacing_rate != 0 ? ci.pacing_rate : UINT64_MAX;
        ti.tcpi_max_pacing_rate = ci.max_pacing_rate != 0 ? ci.max_pacing_rate : UINT64_MAX;
        ti.tcpi_snd_wnd = ci.snd_wnd;
        ti.tcpi_rcv_space = ti.tcpi_rcv_ssthresh = ci.rcv_buf_bytes;
        ti.tcpi_busy_time = ci.busy_us;
        ti.tcpi_rwnd_limited = ci.rwnd_limited_us;
        ti.tcpi_sndbuf_limited = ci.sndbuf_limited_us;
        ti.tcpi_min_rtt = ci.min_rtt_us;
        ti.tcpi_delivered = ci.delivered_segs;
        ti.tcpi_delivered_ce = ci.delivered_ce;
    }
    answer.info = ti;
    if (lives || s->gone)
        answer.tail = (struct info_tail){
            .rcv_wnd = ci.rcv_wnd,
            .total_rto = ci.rtos,
            .total_rto_recoveries = ci.rto_recoveries,
            .total_rto_time_ms = ci.rto_time_ms,
            .received_ce = ci.received_ce,
            .delivered_bytes = { ci.delivered_ecn_bytes[0], ci.delivered_ecn_bytes[2], ci.delivered_ecn_bytes[1] },
            .received_bytes = { ci.received_ecn_bytes[0], ci.received_ecn_bytes[2], ci.received_ecn_bytes[1] },
            .ecn = (uint32_t)((ci.accecn ? 2 : ci.ecn) | ci.accecn_seen << 2 | ci.accecn_fail << 4),
        };
    return put_value(value, len, &answer, sizeof(answer));
}

/** SO_MEMINFO, by the bytes that are held: there are no kernel buffers with an overhead to count. */
static int
get_meminfo(const struct host_sock *s, void *value, socklen_t *len)
{
    uint32_t info[SK_MEMINFO_VARS] = { [SK_MEMINFO_SNDBUF] = s->sndbuf_bytes };
    struct tcp_conn_info ci;

    if (s->id && tcp_info(host.domain, s->id, &ci)) {
        info[SK_MEMINFO_RMEM_ALLOC] = ci.rcv_queued;
        info[SK_MEMINFO_RCVBUF] = ci.rcv_buf_bytes;
        info[SK_MEMINFO_WMEM_QUEUED] = ci.snd_queued;
    }
    return put_value(value, len, info, sizeof(info));
}

/** An option that nobody has set. */
static int
default_value(enum tcp_option opt)
{
    switch (opt) {
    case TCP_OPT_RCVBUF:
        return (int)host.params.rcv_buf_bytes / 2;
    case TCP_OPT_KEEPIDLE:
        return 7200;
    case TCP_OPT_KEEPINTVL:
        return 75;
    case TCP_OPT_KEEPCNT:
        return 9;
    case TCP_OPT_SYNCNT:
        return host.params.syn_retries;
    case TCP_OPT_MTU_DISCOVER:
        return TCP_MTU_DISCOVER_WANT;
    case TCP_OPT_LINGER2:
        return (int)(host.params.fin_wait2_us / 1000000);
    default:
        return 0;
    }
}

/** TCP_WINDOW_CLAMP of a connection: the most that it can ever offer. */
static int
window_clamp(const struct host_sock *s, const struct tcp_conn_info *ci)
{
    uint32_t most = s->opts.set & 1u << TCP_OPT_RCVBUF ? ci->rcv_buf_bytes : host.params.rcv_buf_max_bytes;
    uint32_t set = s->opts.set & 1u << TCP_OPT_WINDOW_CLAMP ? (uint32_t)s->opts.value[TCP_OPT_WINDOW_CLAMP] : 0;

    if (set != 0)
        most = set;
    return (int)(most >> ci->rcv_wscale > UINT16_MAX ? (uint32_t)UINT16_MAX << ci->rcv_wscale : most);
}

/** Options of SOL_SOCKET that the adapter itself keeps, or that all its sockets have alike. -ENOPROTOOPT if it is none of them. */
static int
get_own_option(const struct host_sock *s, int name, void *value, socklen_t *len)
{
    struct linger linger = { s->linger_s >= 0, s->linger_s >= 0 ? s->linger_s : 0 };
    uint64_t wait_us = name == SO_RCVTIMEO ? s->rcv_timeout_us : s->snd_timeout_us;
    struct timeval wait = { (time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000) };
    int v = 0;

    switch (name) {
    case SO_LINGER:
        return put_value(value, len, &linger, sizeof(linger));
    case SO_RCVTIMEO:
    case SO_SNDTIMEO:
        return put_value(value, len, &wait, sizeof(wait));
    case SO_RCVLOWAT:
        v = (int)s->lowat_bytes;
        break;
    case SO_ZEROCOPY:
        v = s->zerocopy;
        break;
    case SO_ACCEPTCONN:
        v = s->listening;
        break;
    case SO_TYPE:
        v = SOCK_STREAM;
        break;
    case SO_PROTOCOL:
        v = IPPROTO_TCP;
        break;
    case SO_DOMAIN:
        v = s->v6 ? AF_INET6 : AF_INET;
        break;
    case SO_SNDBUF:
        v = (int)s->sndbuf_bytes;
        break;
    default:
        return -ENOPROTOOPT;
    }
    return put_value(value, len, &v, sizeof(v));
}

static int
get_option(struct host_sock *s, int level, int name, void *value, socklen_t *len)
{
    if (level == IPPROTO_TCP && name == TCP_INFO)
        return get_tcp_info(s, value, len);
    if (level == IPPROTO_TCP && name == TCP_CC_INFO) {
        *len = 0;
        return 0;
    }
    if (level == IPPROTO_TCP && name == TCP_CONGESTION) {
        struct tcp_conn_info cc;
        const char *cc_name = s->id && tcp_info(host.domain, s->id, &cc) ? cc.cc_name : "cubic";
        return put_value(value, len, cc_name, (socklen_t)strlen(cc_name) + 1);
    }
    if (level == SOL_SOCKET && name == SO_MEMINFO)
        return get_meminfo(s, value, len);
    int v = 0;
    if (level == SOL_SOCKET && name == SO_ERROR) {
        v = s->error;
        s->error = 0;
        return put_value(value, len, &v, sizeof(v));
    }
    if (level == SOL_SOCKET && get_own_option(s, name, value, len) == 0)
        return 0;
    struct tcp_conn_info ci;
    if (level == IPPROTO_TCP && name == TCP_WINDOW_CLAMP && s->id && !s->listening &&
        tcp_info(host.domain, s->id, &ci)) {
        v = window_clamp(s, &ci);
        return put_value(value, len, &v, sizeof(v));
    }
    if (level == IPPROTO_TCP && name == TCP_INQ) {
        v = s->inq;
        return put_value(value, len, &v, sizeof(v));
    }
    if (level == IPPROTO_TCP && name == TCP_MAXSEG && s->connected && s->id && tcp_info(host.domain, s->id, &ci)) {
        v = (int)ci.snd_mss;
        return put_value(value, len, &v, sizeof(v));
    }
    if (level == IPPROTO_TCP && name == TCP_MAXSEG && !(s->opts.set & 1u << TCP_OPT_MAXSEG)) {
        v = 536; /* RFC 9293 section 3.7.1: what holds before a peer has told */
        return put_value(value, len, &v, sizeof(v));
    }
    bool mtu = (level == IPPROTO_IP && name == IP_MTU) || (level == IPPROTO_IPV6 && name == IPV6_MTU);
    if (mtu && s->connected && s->id && tcp_info(host.domain, s->id, &ci))
        return put_value(value, len, &ci.path_mtu, sizeof(v));
    if (mtu)
        return -ENOTCONN;
    if (level == IPPROTO_TCP && name == TCP_NOTSENT_LOWAT)
        return put_value(value, len, &s->notsent_lowat_bytes, sizeof(v));
    if (level == IPPROTO_TCP && name == TCP_FASTOPEN_KEY)
        return done(put_value(value, len, s->opts.fastopen_keys,
                              (socklen_t)(s->opts.nb_fastopen_keys * TCP_FASTOPEN_KEY_BYTES)));
    if (level == IPPROTO_TCP && name == TCP_FASTOPEN_CONNECT) {
        v = s->fastopen_connect;
        return put_value(value, len, &v, sizeof(v));
    }
    for (size_t i = 0; i < sizeof(engine_options) / sizeof(engine_options[0]); i++) {
        if (engine_options[i].level == level && engine_options[i].name == name) {
            enum tcp_option opt = engine_options[i].opt;
            v = s->opts.set & 1u << opt ? s->opts.value[opt] : default_value(opt);
            if (opt == TCP_OPT_RCVBUF)
                v *= 2; /* what is asked for is the window; it is told as Linux books it */
            return put_value(value, len, &v, sizeof(v));
        }
    }
    return -ENOPROTOOPT;
}

int
pd_getsockopt(void *self, int fd, int level, int name, void *value, socklen_t *len)
{
    (void)self;
    struct host_sock *s = enter(fd);
    if (!s) {
        pthread_mutex_unlock(&host.lock);
        return (int)syscall(SYS_getsockopt, fd, level, name, value, len);
    }
    return done(!value || !len ? -EFAULT : get_option(s, level, name, value, len));
}

/* packetdrill's code blocks and its final clean-up call libc with our descriptors: preloaded, these take such calls. */
int
getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return host_up ? pd_getsockopt(NULL, fd, level, name, value, len)
                   : (int)syscall(SYS_getsockopt, fd, level, name, value, len);
}

int
close(int fd)
{
    return host_up ? pd_close(NULL, fd) : (int)syscall(SYS_close, fd);
}
