/* SPDX-License-Identifier: BSD-3-Clause */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <linux/errqueue.h> /* wants struct timespec */

#include "host.h"
#include "tcp/md5sig.h"

#define IPV4_HDR_LEN 20u
#define IPV6_HDR_LEN 40u
#define MTU_MIN 576 /* RFC 791: what every host takes */

static uint16_t
be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void
put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static uint32_t
sum16(uint32_t sum, const uint8_t *p, size_t n)
{
    for (; n > 1; n -= 2, p += 2)
        sum += be16(p);
    return n ? sum + (uint32_t)(p[0] << 8) : sum;
}

static uint16_t
fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* ---- buffers ---- */

static tcp_buf
buf_new(struct host *h, const uint8_t *bytes, uint32_t n)
{
    for (uint32_t i = 1; i < sizeof(h->bufs) / sizeof(h->bufs[0]); i++) {
        if (h->bufs[i].bytes)
            continue;
        h->bufs[i].bytes = malloc(n + 1);
        memcpy(h->bufs[i].bytes, bytes, n);
        h->bufs[i].n_bytes = n;
        return i;
    }
    fprintf(stderr, "packetdrill adapter: out of buffers\n");
    exit(1);
}

static void
buf_free(struct host *h, tcp_buf b)
{
    free(h->bufs[b].bytes);
    h->bufs[b].bytes = NULL;
}

/* ---- the engine's effects ---- */

static size_t
put_ip_header(uint8_t *p, const struct tcp_out *out, size_t l4_len, bool df)
{
    const struct ip_addr *src = &out->tuple->local, *dst = &out->tuple->remote;
    if (!ip_addr_is_v4(src)) {
        memset(p, 0, IPV6_HDR_LEN);
        p[0] = (uint8_t)(0x60 | out->tos >> 4);
        p[1] = (uint8_t)(out->tos << 4);
        put16(p + 4, (uint32_t)l4_len);
        p[6] = IPPROTO_TCP;
        p[7] = 64;
        memcpy(p + 8, src, 16);
        memcpy(p + 24, dst, 16);
        return IPV6_HDR_LEN;
    }
    memset(p, 0, IPV4_HDR_LEN);
    p[0] = 0x45;
    p[1] = out->tos;
    put16(p + 2, (uint32_t)(IPV4_HDR_LEN + l4_len));
    p[6] = df ? 0x40 : 0;
    p[8] = 64;
    p[9] = IPPROTO_TCP;
    memcpy(p + 12, &src->w[3], 4);
    memcpy(p + 16, &dst->w[3], 4);
    put16(p + 10, fold(sum16(0, p, IPV4_HDR_LEN)));
    return IPV4_HDR_LEN;
}

/** Bytes up to `pos` were sent, or acknowledged: what of `kinds` is asked of them is told. */
static void
tell_stamps(struct host *h, struct host_sock *s, uint32_t pos, uint32_t kinds)
{
    static const uint32_t order[] = { 1u << SCM_TSTAMP_SCHED, 1u << SCM_TSTAMP_SND, 1u << SCM_TSTAMP_ACK };
    unsigned n = 0;
    for (unsigned i = 0; i < s->nb_due; i++) {
        struct host_stamp due = s->due[i];
        bool reached = (int32_t)(pos - due.end) >= 0;
        for (unsigned k = 0; reached && k < sizeof(order) / sizeof(order[0]); k++) {
            if (!(due.kinds & kinds & order[k]) || s->nb_told == HOST_MAX_STAMPS)
                continue;
            s->told[s->nb_told++] = (struct host_stamp){ due.end, order[k], h->now_us };
            s->edges |= 1;
        }
        if (reached)
            due.kinds &= ~kinds;
        if (due.kinds)
            s->due[n++] = due;
    }
    s->nb_due = n;
}

static void
sink_emit(void *ctx, const struct tcp_out *out, uint64_t now_us)
{
    struct host *h = ctx;
    uint8_t tcp[TCP_HDR_MAX];
    size_t hdr_len = tcp_wire_build(out, tcp);
    size_t l4_len = hdr_len + out->payload_len;
    struct host_packet *p = calloc(1, sizeof(*p) + IPV6_HDR_LEN + l4_len);
    size_t ip_len = put_ip_header(p->bytes, out, l4_len, !out->may_be_cut);
    memcpy(p->bytes + ip_len, tcp, hdr_len); /* the payload is zeros: so are all bytes that scripts write */
    p->at_us = now_us;
    p->n_bytes = ip_len + l4_len;
    if (out->md5) {
        MD5_CTX sum;
        tcp_md5_begin(&sum, &out->tuple->local, &out->tuple->remote, tcp, out->payload_len);
        tcp_md5_add(&sum, p->bytes + ip_len + hdr_len, out->payload_len);
        tcp_md5_finish(&sum, out->md5, p->bytes + ip_len + TCP_MD5_DIGEST_OFF);
    }
    uint32_t pseudo = sum16(IPPROTO_TCP + (uint32_t)l4_len, (const uint8_t *)&out->tuple->local, 16);
    pseudo = sum16(pseudo, (const uint8_t *)&out->tuple->remote, 16);
    /* The prefix of a v4-mapped address adds 0xffff, which is 0 in ones' complement: the same sum serves both families. */
    put16(p->bytes + ip_len + 16, fold(sum16(pseudo, p->bytes + ip_len, l4_len)));
    STAILQ_INSERT_TAIL(&h->wire, p, link);
    if (out->payload_len == 0)
        return;
    struct host_sock *s = &h->socks[out->user];
    uint32_t end = out->payload_pos + out->payload_len;
    if ((int32_t)(end - s->tx_sent) > 0)
        s->tx_sent = end;
    tell_stamps(h, s, s->tx_sent, 1u << SCM_TSTAMP_SCHED | 1u << SCM_TSTAMP_SND);
}

static void
sink_deliver(void *ctx, tcp_user user, struct tcp_data data)
{
    struct host *h = ctx;
    struct host_sock *s = &h->socks[user];
    if (s->rx_len + data.len > s->rx_room) {
        s->rx_room = 2 * (s->rx_len + data.len);
        s->rx = realloc(s->rx, s->rx_room);
    }
    memcpy(s->rx + s->rx_len, h->bufs[data.buf].bytes + data.off, data.len);
    s->rx_len += data.len;
    s->edges |= 1;
    buf_free(h, data.buf);
    pthread_cond_broadcast(&h->changed);
}

static void
sink_release(void *ctx, tcp_buf buf)
{
    buf_free(ctx, buf);
}

static void
sink_acked(void *ctx, tcp_user user, uint32_t n_bytes)
{
    struct host *h = ctx;
    struct host_sock *s = &h->socks[user];
    s->tx_acked += n_bytes;
    while (s->zc_done != s->zc_next && (int32_t)(s->zc_end[s->zc_done % HOST_MAX_ZEROCOPY] - s->tx_acked) <= 0) {
        s->zc_done++;
        s->edges |= 1;
    }
    tell_stamps(h, s, s->tx_acked, 1u << SCM_TSTAMP_ACK);
    pthread_cond_broadcast(&h->changed);
}

static void
sink_event(void *ctx, tcp_user user, uint32_t events, int err)
{
    struct host *h = ctx;
    struct host_sock *s = &h->socks[user];
    s->edges |= 1;
    if (events & TCP_EVENT_CONNECTED) {
        s->connected = true;
        s->connecting = false;
    }
    if (events & TCP_EVENT_FIN)
        s->fin = true;
    if (events & TCP_EVENT_ERROR) {
        s->error = err;
        s->connecting = false;
        s->fin = true;
    }
    if (events & TCP_EVENT_GONE) {
        s->gone = true;
        s->id = TCP_NO_ID;
        if (s->user_closed)
            s->used = false;
    }
    pthread_cond_broadcast(&h->changed);
}

/* ---- set-up ---- */

void
host_init(struct host *h, uint16_t mtu)
{
    memset(h, 0, sizeof(*h));
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
    pthread_cond_init(&h->settled, NULL);
    STAILQ_INIT(&h->wire);
    h->now_us = 1000000;
    h->mtu = mtu;
    h->wmem_bytes = 256 * 1024;
    h->notsent_lowat_bytes = UINT32_MAX;
    h->sink = (struct tcp_sink){ h, sink_emit, sink_deliver, sink_release, sink_acked, sink_event, NULL };
}

static void
forget_peers(struct host *h)
{
    struct tcp_env env = host_env(h);

    tcp_forget_peers(h->domain, &env);
}

static void
apply_fastopen_key(struct host *h, const char *value)
{
    uint32_t w[4];
    uint8_t key[1][TCP_FASTOPEN_KEY_BYTES];
    if (sscanf(value, "%8x-%8x-%8x-%8x", &w[0], &w[1], &w[2], &w[3]) != 4)
        return;
    memcpy(key, w, sizeof(key));
    tcp_set_fastopen_keys(h->domain, TCP_NO_ID, 1, key);
}

/** "192.0.2.1 via 192.168.0.2 dev tun0 advmss 600 mtu lock 640 initcwnd 11", as in ip-route(8): a route to it is there anyway. */
static void
apply_route(struct tcp_params *p, char *words)
{
    struct tcp_path_route r = { .mtu_bytes = 0 };
    char *rest;
    const char *word = strtok_r(words, " ", &rest);
    unsigned i = 0;
    if (!word)
        return;
    if (ip_prefix_parse(word, &r.prefix, &r.prefix_len) != 0) {
        if (ip_addr_parse(word, &r.prefix) != 0)
            return;
        r.prefix_len = 128;
    } else if (ip_addr_is_v4(&r.prefix)) {
        r.prefix_len = (uint8_t)(r.prefix_len + 96);
    }
    while ((word = strtok_r(NULL, " ", &rest))) {
        const char *value = strtok_r(NULL, " ", &rest);
        if (!strcmp(word, "mtu") && value && !strcmp(value, "lock")) {
            r.mtu_locked = true;
            value = strtok_r(NULL, " ", &rest);
        }
        uint16_t number = (uint16_t)(value ? strtoul(value, NULL, 0) : 0);
        if (!strcmp(word, "mtu"))
            r.mtu_bytes = number;
        else if (!strcmp(word, "advmss"))
            r.adv_mss = number;
        else if (!strcmp(word, "initcwnd"))
            r.init_cwnd_segs = (uint8_t)number;
    }
    while (i < p->nb_path_routes && memcmp(&p->path_routes[i].prefix, &r.prefix, sizeof(r.prefix)) != 0)
        i++;
    if (i == TCP_PATH_ROUTES_MAX)
        return;
    p->path_routes[i] = r;
    if (i == p->nb_path_routes)
        p->nb_path_routes++;
}

/** An option that sockets begin with. */
static bool
apply_socket_sysctl(struct host *h, const char *name, long v)
{
    static const struct {
        const char *name;
        enum tcp_option opt;
    } options[] = {
        { "net.ipv4.tcp_keepalive_time", TCP_OPT_KEEPIDLE },
        { "net.ipv4.tcp_keepalive_intvl", TCP_OPT_KEEPINTVL },
        { "net.ipv4.tcp_keepalive_probes", TCP_OPT_KEEPCNT },
        { "socket.quickack", TCP_OPT_QUICKACK },
    };

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if (strcmp(name, options[i].name) != 0)
            continue;
        if (tcp_option_check(options[i].opt, (int32_t)v) == 0) {
            h->opts.set |= 1u << options[i].opt;
            h->opts.value[options[i].opt] = (int32_t)v;
        }
        return true;
    }
    return false;
}

/** What a script may set to what is so here anyway, or that this host has nothing of. All else is told of: it may be why it fails. */
static bool
is_idle_sysctl(const char *name, long v)
{
    static const struct {
        const char *name;
        long value; /**< what is so; ANY if nothing depends on it */
    } idle[] = {
#define ANY LONG_MIN
        { "net.ipv4.tcp_frto", 2 },
        { "net.ipv4.tcp_dsack", 1 },
        { "net.ipv4.tcp_fack", ANY },
        { "net.ipv4.tcp_reordering", 3 },
        { "net.ipv4.tcp_early_retrans", ANY }, /* of Linux's values, 3 and 4 mean tail probes */
        { "net.ipv4.tcp_recovery", 1 },
        { "net.ipv4.tcp_tso_win_divisor", ANY },
        { "net.ipv4.tcp_pacing_ss_ratio", 200 },
        { "net.ipv4.tcp_pacing_ca_ratio", 120 },
        { "net.ipv4.tcp_moderate_rcvbuf", 1 },
        { "net.ipv4.tcp_shrink_window", 0 },
        { "net.ipv4.tcp_no_metrics_save", ANY },
        { "net.ipv4.tcp_fastopen_blackhole_timeout_sec", ANY },
        { "net.core.default_qdisc", ANY },
        { "net.core.optmem_max", ANY },
        { "net.core.rmem_max", ANY },
        { "net.core.wmem_max", ANY },
        { "tcp_metrics.flush", ANY },
        { "net.ipv4.tcp_fastopen_cookies", ANY },
        { "net.ipv4.tcp_fastopen_key", ANY },
    };

    for (size_t i = 0; i < sizeof(idle) / sizeof(idle[0]); i++)
        if (!strcmp(name, idle[i].name))
            return idle[i].value == ANY || idle[i].value == v;
    return false;
#undef ANY
}

static void
apply_sysctl(struct host *h, const char *name, char *value)
{
    struct tcp_params *p = &h->params;
    long v = strtol(value, NULL, 0), first;
    if (!strcmp(name, "net.ipv4.tcp_timestamps"))
        p->timestamps = v != 0;
    else if (!strcmp(name, "net.ipv4.tcp_sack"))
        p->sack = v != 0;
    else if (!strcmp(name, "net.ipv4.tcp_window_scaling"))
        p->window_scaling = v != 0;
    else if (!strcmp(name, "net.ipv4.tcp_rmem") && sscanf(value, "%*d %ld %ld", &first, &v) == 2) {
        p->rcv_buf_bytes = (uint32_t)first;
        p->rcv_buf_max_bytes = (uint32_t)v;
    } else if (!strcmp(name, "net.ipv4.tcp_rto_max_ms"))
        p->rto_max_us = (uint32_t)v * 1000;
    else if (!strcmp(name, "net.ipv4.tcp_invalid_ratelimit"))
        p->challenge_us = (uint32_t)v * 1000;
    else if (!strcmp(name, "net.ipv4.tcp_min_tso_segs"))
        p->burst_min_segs = (uint8_t)(v > 0 && v < 256 ? v : 1);
    else if (!strcmp(name, "net.ipv4.tcp_slow_start_after_idle"))
        p->idle_restart = v != 0;
    else if (!strcmp(name, "net.ipv4.tcp_wmem") && sscanf(value, "%*d %ld", &v) == 1)
        h->wmem_bytes = (uint32_t)v;
    else if (!strcmp(name, "net.ipv4.tcp_notsent_lowat"))
        h->notsent_lowat_bytes = (uint32_t)strtoul(value, NULL, 0);
    else if (!strcmp(name, "net.ipv4.tcp_ecn"))
        p->ecn = (uint8_t)(v >= 0 && v <= 5 ? v : 0);
    else if (!strcmp(name, "net.ipv4.tcp_ecn_option"))
        p->ecn_option = v != 0;
    else if (!strcmp(name, "net.ipv4.tcp_ecn_fallback"))
        p->ecn_fallback = v != 0;
    else if (!strcmp(name, "net.ipv4.tcp_congestion_control"))
        p->congestion = (uint8_t)(tcp_congestion_find(value) < 0 ? 0 : tcp_congestion_find(value));
    else if (!strcmp(name, "net.ipv4.tcp_syn_retries"))
        p->syn_retries = (uint8_t)v;
    else if (!strcmp(name, "net.ipv4.tcp_syncookies"))
        p->syn_cookies = (uint8_t)(v >= 0 && v <= 2 ? v : 1);
    else if (!strcmp(name, "net.ipv4.tcp_synack_retries"))
        p->synack_retries = (uint8_t)v;
    else if (!strcmp(name, "net.ipv4.tcp_retries2"))
        p->data_retries = (uint8_t)v;
    else if (!strcmp(name, "net.ipv4.tcp_fin_timeout"))
        p->fin_wait2_us = (uint32_t)v * 1000000;
    else if (!strcmp(name, "net.ipv4.tcp_rto_min_us"))
        p->rto_min_us = (uint32_t)v;
    else if (!strcmp(name, "net.ipv4.tcp_mtu_probing"))
        p->mtu_probing = (uint8_t)(v >= 0 && v <= 2 ? v : 0);
    else if (!strcmp(name, "net.ipv4.tcp_base_mss"))
        p->mtu_base_mss = (uint16_t)v;
    else if (!strcmp(name, "net.ipv4.route.min_pmtu"))
        p->mtu_min_bytes = (uint16_t)v;
    else if (!strcmp(name, "net.ipv4.tcp_probe_interval"))
        p->mtu_probe_interval_s = (uint32_t)v;
    else if (!strcmp(name, "route"))
        apply_route(p, value);
    else if (!strcmp(name, "net.ipv4.tcp_fastopen"))
        p->fastopen = (uint32_t)v;
    else if ((!strcmp(name, "tcp_metrics.flush") || !strcmp(name, "net.ipv4.tcp_fastopen_cookies")) && h->started)
        forget_peers(h);
    else if (!strcmp(name, "net.ipv4.tcp_fastopen_key") && h->started)
        apply_fastopen_key(h, value);
    else if (!strcmp(name, "link.mtu") && v >= MTU_MIN && v <= UINT16_MAX)
        h->mtu = (uint16_t)v;
    else if (!apply_socket_sysctl(h, name, v) && !is_idle_sysctl(name, v) && h->started)
        fprintf(stderr, "packetdrill adapter: %s=%s is not heeded\n", name, value);
}

/** Lines "name=value" that the sysctl of run.sh has noted down. */
static void
read_sysctls(struct host *h)
{
    const char *path = getenv("SYSCTL_FILE");
    FILE *f = path ? fopen(path, "r") : NULL;
    char line[256];
    if (!f)
        return;
    fseek(f, h->sysctl_bytes, SEEK_SET);
    while (fgets(line, sizeof(line), f)) {
        char *eq = strchr(line, '=');
        if (!eq)
            continue;
        *eq = '\0';
        eq[1 + strcspn(eq + 1, "\n")] = '\0';
        apply_sysctl(h, line, eq + 1);
    }
    h->sysctl_bytes = ftell(f);
    fclose(f);
}

void
host_reload(struct host *h)
{
    read_sysctls(h);
    if (tcp_set_params(h->domain, &h->params) != 0)
        fprintf(stderr, "packetdrill adapter: a sysctl is out of the engine's range\n");
}

/** The engine's counters by the names that Linux's nstat has for the same. */
static const struct {
    const char *name;
    enum counter_id id;
} nstat_names[] = {
    { "TcpActiveOpens", CTR_TCP_ACTIVE_OPENS },
    { "TcpPassiveOpens", CTR_TCP_PASSIVE_OPENS },
    { "TcpInSegs", CTR_TCP_RX_SEGS },
    { "TcpOutSegs", CTR_TCP_TX_SEGS },
    { "TcpRetransSegs", CTR_TCP_RETRANS_SEGS },
    { "TcpOutRsts", CTR_TCP_RST_TX },
    { "TcpExtSyncookiesSent", CTR_TCP_SYN_COOKIES_SENT },
    { "TcpExtSyncookiesRecv", CTR_TCP_SYN_COOKIES_TAKEN },
    { "TcpExtSyncookiesFailed", CTR_TCP_SYN_COOKIES_BAD },
    { "TcpExtOutOfWindowIcmps", CTR_TCP_DROP_ICMP },
    { "TcpExtPAWSEstab", CTR_TCP_DROP_PAWS },
    { "TcpExtTCPTimeouts", CTR_TCP_RTO },
    { "TcpExtTCPLossProbes", CTR_TCP_TAIL_PROBES },
    { "TcpExtTCPOFOQueue", CTR_TCP_OOO_SEGS },
    { "TcpExtTCPChallengeACK", CTR_TCP_CHALLENGE_ACKS },
    { "TcpExtTCPKeepAlive", CTR_TCP_KEEPALIVE_PROBES },
    { "TcpExtTCPWinProbe", CTR_TCP_ZERO_WINDOW_PROBES },
    { "TcpExtBeyondWindow", CTR_TCP_DROP_SEQUENCE },
    { "TcpExtTCPFastOpenActive", CTR_TCP_FASTOPEN_ACTIVE },
    { "TcpExtTCPFastOpenActiveFail", CTR_TCP_FASTOPEN_ACTIVE_FAIL },
    { "TcpExtTCPFastOpenPassive", CTR_TCP_FASTOPEN_PASSIVE },
    { "TcpExtTCPFastOpenCookieReqd", CTR_TCP_FASTOPEN_COOKIE_REQUESTS },
    { "TcpExtTCPFastOpenPassiveAltKey", CTR_TCP_FASTOPEN_OLD_KEYS },
    { "TcpExtTCPMD5NotFound", CTR_TCP_DROP_MD5_MISSING },
    { "TcpExtTCPMD5Failure", CTR_TCP_DROP_MD5_WRONG },
    { "TcpExtTCPMD5Unexpected", CTR_TCP_DROP_MD5_UNEXPECTED },
};

/** As /proc/net/tcp and tcp6 list them. */
static void
write_sockets(const struct host *h)
{
    const char *path = getenv("SOCKET_FILE");
    FILE *f = path ? fopen(path, "w") : NULL;

    if (!f)
        return;
    for (unsigned i = 1; i < HOST_MAX_SOCKS; i++) {
        const struct host_sock *s = &h->socks[i];
        struct tcp_conn_info ci;

        if (!s->used || !s->id || !tcp_info(h->domain, s->id, &ci))
            continue;
        fprintf(f, "%4u: %08X:%04X %08X:%04X %02X %08X:%08X\n", i, ci.tuple.local.w[3], ci.tuple.local_port,
                ci.tuple.remote.w[3], ci.tuple.remote_port, ci.state, ci.snd_queued, ci.rcv_queued);
    }
    fclose(f);
}

/** A script may look at any time by a command of the shell's, which we do not see: so the file is always up to date. */
static void
write_counters(const struct host *h)
{
    const char *path = getenv("COUNTER_FILE");
    FILE *f = path ? fopen(path, "w") : NULL;

    write_sockets(h);
    if (!f)
        return;
    for (size_t i = 0; i < sizeof(nstat_names) / sizeof(nstat_names[0]); i++)
        fprintf(f, "%s %llu\n", nstat_names[i].name, (unsigned long long)h->ctr.v[nstat_names[i].id]);
    fclose(f);
}

int
host_start(struct host *h)
{
    if (h->started)
        return 0;
    struct tcp_params *p = &h->params;
    tcp_params_default(p);
    p->ts_required = false; /* as Linux, whose scripts leave timestamps out */
    p->mtu_probing = TCP_MTU_PROBING_OFF; /* its default */
    p->max_conns = 1024;
    p->max_half_open = 256;
    p->max_time_wait = 256;
    p->max_ooo_bufs = 2048;
    p->seed[0] = 0x1234;
    p->seed[1] = 0x5678;
    /* First what shapes the domain, then, as it exists, the keys too. */
    read_sysctls(h);
    h->sysctl_bytes = 0;
    h->domain_bytes = tcp_domain_bytes(p);
    h->domain = mmap(NULL, h->domain_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (h->domain == MAP_FAILED)
        return -ENOMEM;
    int err = tcp_domain_init(h->domain, p, h->now_us);
    if (err)
        return err;
    h->started = true;
    host_reload(h);
    return 0;
}

void
host_fini(struct host *h)
{
    struct host_packet *p;
    while ((p = STAILQ_FIRST(&h->wire))) {
        STAILQ_REMOVE_HEAD(&h->wire, link);
        free(p);
    }
    for (unsigned i = 0; i < HOST_MAX_SOCKS; i++)
        free(h->socks[i].rx);
    for (unsigned i = 0; i < sizeof(h->bufs) / sizeof(h->bufs[0]); i++)
        free(h->bufs[i].bytes);
    if (h->started)
        munmap(h->domain, h->domain_bytes);
    pthread_cond_destroy(&h->changed);
    pthread_cond_destroy(&h->settled);
    pthread_mutex_destroy(&h->lock);
}

struct tcp_env
host_env(struct host *h)
{
    return (struct tcp_env){ .sink = &h->sink, .ctr = &h->ctr, .now_us = h->now_us };
}

uint16_t
host_mss(const struct host *h, const struct ip_addr *peer)
{
    return (uint16_t)(h->mtu - (ip_addr_is_v4(peer) ? IPV4_HDR_LEN : IPV6_HDR_LEN) - TCP_HDR_MIN);
}

/* ---- from the wire ---- */

/** Addresses and payload of an IP packet. Returns the transport header's offset, 0 if it is none that we take. */
static size_t
parse_ip(const uint8_t *p, size_t n, struct ip_addr *src, struct ip_addr *dst, uint8_t *proto, uint8_t *tos)
{
    if (n >= IPV4_HDR_LEN && p[0] >> 4 == 4) {
        uint32_t a;
        memcpy(&a, p + 12, 4);
        *src = ip_addr_v4(a);
        memcpy(&a, p + 16, 4);
        *dst = ip_addr_v4(a);
        *proto = p[9];
        *tos = p[1];
        return (size_t)(p[0] & 15) * 4;
    }
    if (n >= IPV6_HDR_LEN && p[0] >> 4 == 6) {
        memcpy(src, p + 8, 16);
        memcpy(dst, p + 24, 16);
        *proto = p[6];
        *tos = (uint8_t)(p[0] << 4 | p[1] >> 4);
        return IPV6_HDR_LEN;
    }
    return 0;
}

static void
input_icmp(struct host *h, const uint8_t *p, size_t n, bool v6)
{
    static const int v4_errors[] = { ENETUNREACH, EHOSTUNREACH, ENOPROTOOPT, ECONNREFUSED, EMSGSIZE,
                                     EOPNOTSUPP,  ENETUNREACH,  EHOSTDOWN,   ENONET,       ENETUNREACH };
    struct tcp_tuple t;
    uint8_t proto, tos;
    if (n < 8 + IPV4_HDR_LEN + 8)
        return;
    size_t off = parse_ip(p + 8, n - 8, &t.local, &t.remote, &proto, &tos);
    if (!off || proto != IPPROTO_TCP || n < 8 + off + 8)
        return;
    const uint8_t *tcp = p + 8 + off;
    t.local_port = be16(tcp);
    t.remote_port = be16(tcp + 2);
    tcp_seq seq = (tcp_seq)be16(tcp + 4) << 16 | be16(tcp + 6);
    struct tcp_env env = host_env(h);
    int err = EHOSTUNREACH;
    bool hard = false;
    uint16_t mtu = 0;
    if (!v6 && p[0] == 3) {
        err = p[1] < sizeof(v4_errors) / sizeof(v4_errors[0]) ? v4_errors[p[1]] : EHOSTUNREACH;
        hard = p[1] == 2 || p[1] == 3 || p[1] == 9 || p[1] == 10 || p[1] == 13;
        mtu = be16(p + 6);
    } else if (v6 && p[0] == 2) {
        err = EMSGSIZE;
        mtu = be16(p + 6);
    } else if (v6 && p[0] == 1) {
        err = p[1] == 4 ? ECONNREFUSED : p[1] == 1 ? EACCES : EHOSTUNREACH;
        hard = p[1] == 4;
    }
    tcp_unreachable(h->domain, &env, &t, seq, err, hard, mtu);
}

void
host_input(struct host *h, const uint8_t *packet, size_t n_bytes)
{
    struct tcp_in in = { 0 };
    uint8_t proto;
    if (host_start(h) != 0)
        return;
    size_t off = parse_ip(packet, n_bytes, &in.tuple.remote, &in.tuple.local, &proto, &in.tos);
    if (!off || off > n_bytes)
        return;
    if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
        input_icmp(h, packet + off, n_bytes - off, proto == IPPROTO_ICMPV6);
        write_counters(h);
        return;
    }
    if (proto != IPPROTO_TCP || tcp_wire_parse(packet + off, n_bytes - off, &in) < 0)
        return;
    in.data.buf = buf_new(h, packet, (uint32_t)n_bytes);
    in.data.off += (uint32_t)off;
    in.mss_out = host_mss(h, &in.tuple.remote);
    for (unsigned i = 1; i < HOST_MAX_SOCKS; i++)
        if (h->socks[i].used && h->socks[i].id)
            tcp_info(h->domain, h->socks[i].id, &h->socks[i].info);
    struct tcp_env env = host_env(h);
    struct tcp_md5_seen seen;
    if (in.opts.md5_off) {
        const uint8_t *tcp = packet + off;
        tcp_md5_begin(&seen.sum, &in.tuple.remote, &in.tuple.local, tcp, in.data.len);
        tcp_md5_add(&seen.sum, packet + in.data.off, in.data.len);
        memcpy(seen.digest, tcp + in.opts.md5_off, sizeof(seen.digest));
        env.md5 = &seen;
    }
    tcp_input(h->domain, &env, &in);
    write_counters(h);
}

/* ---- time ---- */

static void
run_timers(struct host *h)
{
    struct tcp_env env = host_env(h);
    while (tcp_tick(h->domain, &env, 64) == 64)
        ;
    write_counters(h);
}

void
host_advance(struct host *h, uint64_t until_us)
{
    while (h->started) {
        uint64_t next = tcp_next_us(h->domain, h->now_us);
        if (next > until_us)
            break;
        if (next > h->now_us)
            h->now_us = next;
        run_timers(h);
        if (next <= h->now_us && tcp_next_us(h->domain, h->now_us) <= h->now_us && h->now_us >= until_us)
            break;
    }
    if (until_us > h->now_us)
        h->now_us = until_us;
    pthread_cond_broadcast(&h->changed);
}

bool
host_advance_to_next(struct host *h, uint64_t limit_us)
{
    uint64_t next = h->started ? tcp_next_us(h->domain, h->now_us) : UINT64_MAX;
    if (next > limit_us)
        return false;
    host_advance(h, next > h->now_us ? next : h->now_us + 1);
    return true;
}
