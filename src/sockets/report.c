/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sockets/backend.h"

/* Connections that the worker looks at in one call: some microseconds of its time. */
#define PAGE 64u

struct row {
    struct tcp_conn_info info;
    pid_t pid;
};

struct page {
    uint32_t stack; /**< the domain that is being walked */
    uint64_t cursor;
    uint64_t now_us;
    unsigned n;
    struct row row[PAGE];
};

/* A listener has a shadow in every domain; it is shown once. */
static bool
is_shadow(const struct stack *s, uint32_t user)
{
    return user != SOCK_NONE && user < s->socks_used && (s->socks[user].flags & SOCK_SHADOW);
}

static void
fill_page(struct host *h, void *arg, uint64_t now_us)
{
    struct page *p = arg;
    struct tcp_conn_info info[PAGE];

    p->now_us = now_us;
    p->n = 0;
    while (p->stack < h->nb_stacks && p->n < PAGE) {
        const struct stack *s = h->stacks[p->stack];
        unsigned n = tcp_walk(s->tcp, &p->cursor, info, PAGE - p->n);

        for (unsigned i = 0; i < n; i++) {
            uint32_t user = info[i].user;
            struct row *row = &p->row[p->n];

            if (is_shadow(s, user))
                continue;
            *row = (struct row){ .info = info[i] };
            if (user != SOCK_NONE && user < s->socks_used && s->socks[user].app != NULL)
                row->pid = app_holder_pid(s->socks[user].app, s->socks[user].slot);
            p->n++;
        }
        if (n == 0) {
            p->cursor = 0;
            p->stack++;
        }
    }
}

/* ---- paths ------------------------------------------------------------------------------------------------------------ */

#define PATHS_MAX 1024u /* as many as a domain remembers */

struct paths_page {
    uint32_t stack;
    unsigned n;
    struct tcp_path_info path[PATHS_MAX];
};

static void
fill_paths(struct host *h, void *arg, uint64_t now_us)
{
    struct paths_page *p = arg;
    const struct stack *s = h->stacks[p->stack];
    struct tcp_env env = s->env;

    env.now_us = now_us;
    env.locks = NULL; /* no other worker is inside */
    p->n = tcp_paths(s->tcp, &env, p->path, PATHS_MAX);
}

int
report_paths(struct host *h, FILE *out)
{
    uint32_t expires_s = h->cfg.tcp.mtu_expires_s;
    struct paths_page *p = malloc(sizeof(*p));
    int rc = p != NULL ? 0 : -ENOMEM;

    for (uint32_t i = 0; rc == 0 && i < h->nb_stacks; i++) {
        p->stack = i;
        rc = host_call(h, fill_paths, p);
        for (unsigned k = 0; rc == 0 && k < p->n; k++) {
            char text[IP_ADDR_STRLEN];

            fprintf(out, "%s mtu %u expires %us", ip_addr_format(&p->path[k].remote, text), p->path[k].mtu_bytes,
                    expires_s - p->path[k].age_s);
            if (h->nb_stacks > 1)
                fprintf(out, " domain %u", i);
            fprintf(out, "\n");
        }
    }
    free(p);
    return rc;
}

/* ---- ss --------------------------------------------------------------------------------------------------------------- */

static void
endpoint(char *out, size_t len, const struct ip_addr *a, uint16_t port)
{
    char text[IP_ADDR_STRLEN];

    if (port == 0)
        snprintf(out, len, "%s:*", ip_addr_format(a, text));
    else
        snprintf(out, len, "%s:%u", ip_addr_format(a, text), port);
}

static void
print_owner(FILE *out, pid_t pid)
{
    char path[64];
    char name[64] = "?";
    FILE *f;

    if (pid <= 0)
        return;
    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    f = fopen(path, "re");
    if (f != NULL) {
        if (fgets(name, sizeof(name), f) != NULL)
            name[strcspn(name, "\n")] = '\0';
        fclose(f);
    }
    fprintf(out, " users:((\"%s\",pid=%d))", name, pid);
}

static void
print_ago(FILE *out, const char *what, uint64_t now_us, uint64_t at_us)
{
    if (at_us != 0)
        fprintf(out, " %s:%" PRIu64, what, now_us > at_us ? (now_us - at_us) / 1000 : 0);
}

static void
print_count(FILE *out, const char *what, uint64_t n)
{
    if (n != 0)
        fprintf(out, " %s:%" PRIu64, what, n);
}

static void
print_rate(FILE *out, const char *what, uint64_t bytes_per_s)
{
    if (bytes_per_s != 0)
        fprintf(out, " %s %" PRIu64 "bps", what, bytes_per_s * 8);
}

static void
print_ms(FILE *out, const char *what, uint64_t us)
{
    if (us >= 1000)
        fprintf(out, " %s:%" PRIu64 "ms", what, us / 1000);
}

/* The indented line, in the words of ss -i. */
static void
print_info(FILE *out, const struct tcp_conn_info *c, uint64_t now_us)
{
    uint32_t mss = c->snd_mss != 0 ? c->snd_mss : 1;

    fprintf(out, "\t%s%s%s", c->timestamps ? " ts" : "", c->sack ? " sack" : "",
            c->accecn ? " accecn"
            : c->ecn  ? " ecn"
                      : "");
    fprintf(out, " %s wscale:%u,%u rto:%.3g", c->cc_name != NULL ? c->cc_name : "-", c->snd_wscale, c->rcv_wscale,
            c->rto_us / 1000.0);
    print_count(out, "backoff", c->backoff);
    print_count(out, "probes", c->probes);
    fprintf(out, " rtt:%.3f/%.3f", c->srtt_us / 1000.0, c->rttvar_us / 1000.0);
    fprintf(out, " mss:%u pmtu:%u rcvmss:%u advmss:%u cwnd:%u", c->snd_mss, c->path_mtu, c->rcv_mss, c->adv_mss,
            (c->cwnd_bytes + mss - 1) / mss);
    if (c->ssthresh_bytes < INT32_MAX)
        print_count(out, "ssthresh", c->ssthresh_bytes / mss);
    print_count(out, "bytes_sent", c->bytes_sent);
    print_count(out, "bytes_retrans", c->bytes_retrans);
    print_count(out, "bytes_acked", c->bytes_acked);
    print_count(out, "bytes_received", c->bytes_received);
    print_count(out, "segs_out", c->segs_out);
    print_count(out, "segs_in", c->segs_in);
    print_count(out, "data_segs_out", c->data_segs_out);
    print_count(out, "data_segs_in", c->data_segs_in);
    print_ago(out, "lastsnd", now_us, c->last_snd_at_us);
    print_ago(out, "lastrcv", now_us, c->last_rcv_at_us);
    print_count(out, "unacked", c->unacked_segs);
    if (c->retrans_segs_total != 0)
        fprintf(out, " retrans:%u/%u", c->retransmits, c->retrans_segs_total);
    print_count(out, "dsack_dups", c->dsack_segs);
    print_count(out, "reord_seen", c->reorderings);
    print_count(out, "rcv_ooopack", c->ooo_segs);
    print_count(out, "total_rto", c->rtos);
    print_count(out, "rto_recoveries", c->rto_recoveries);
    print_count(out, "rto_time", c->rto_time_ms);
    print_count(out, "snd_wnd", c->snd_wnd);
    print_count(out, "rcv_wnd", c->rcv_wnd);
    if (c->min_rtt_us != 0 && c->min_rtt_us != UINT32_MAX)
        fprintf(out, " minrtt:%.3f", c->min_rtt_us / 1000.0);
    print_rate(out, "pacing_rate", c->pacing_rate);
    print_rate(out, "delivery_rate", c->delivery_rate);
    if (c->delivery_rate_app_limited)
        fputs(" app_limited", out);
    print_ms(out, "busy", c->busy_us);
    print_ms(out, "rwnd_limited", c->rwnd_limited_us);
    print_ms(out, "sndbuf_limited", c->sndbuf_limited_us);
    fputc('\n', out);
}

static bool
has_info(enum tcp_state state)
{
    return state != TCP_ST_LISTEN && state != TCP_ST_SYN_RECEIVED && state != TCP_ST_TIME_WAIT &&
           state != TCP_ST_CLOSED;
}

static void
print_row(FILE *out, const struct row *r, uint64_t now_us)
{
    const struct tcp_conn_info *c = &r->info;
    const struct ip_addr any = ip_addr_v4(0);
    char local[IP_ADDR_STRLEN + 8];
    char peer[IP_ADDR_STRLEN + 8];

    endpoint(local, sizeof(local), &c->tuple.local, c->tuple.local_port);
    endpoint(peer, sizeof(peer), ip_addr_is_any(&c->tuple.remote) ? &any : &c->tuple.remote, c->tuple.remote_port);
    fprintf(out, "%-10s %-6u %-6u %22s %22s", tcp_state_name(c->state), c->rcv_queued, c->snd_queued, local, peer);
    print_owner(out, r->pid);
    fputc('\n', out);
    if (has_info(c->state))
        print_info(out, c, now_us);
}

/* As ss chooses. */
static bool
is_wanted(enum tcp_state state, unsigned flags)
{
    if (flags & REPORT_ALL)
        return true;
    if (flags & REPORT_LISTEN)
        return state == TCP_ST_LISTEN;
    return state != TCP_ST_LISTEN && state != TCP_ST_TIME_WAIT && state != TCP_ST_SYN_RECEIVED;
}

int
report_ss(struct host *h, FILE *out, unsigned flags)
{
    struct page p = { .cursor = 0 };

    if (!(flags & REPORT_NO_HEADER))
        fprintf(out, "%-10s %-6s %-6s %22s %22s\n", "State", "Recv-Q", "Send-Q", "Local Address:Port",
                "Peer Address:Port");
    do {
        int rc = host_call(h, fill_page, &p);

        if (rc != 0)
            return rc;
        for (unsigned i = 0; i < p.n; i++)
            if (is_wanted(p.row[i].info.state, flags))
                print_row(out, &p.row[i], p.now_us);
    } while (p.n > 0);
    return 0;
}

/* ---- counters ------------------------------------------------------------------------------------------------------------ */

static const struct counters *
counters_of(const struct host *h, uint32_t worker)
{
    return h->nets[worker]->ctr;
}

static uint64_t
counter_of_all(const struct host *h, unsigned id)
{
    uint64_t sum = 0;

    for (uint32_t w = 0; w < h->nb_nets; w++)
        sum += counter_read(counters_of(h, w), id);
    return sum;
}

static void
stats_text(const struct host *h, FILE *out)
{
    for (unsigned c = 0; c < CTR_COUNT; c++) {
        uint64_t total = counter_of_all(h, c);

        if (total == 0)
            continue;
        fprintf(out, "%-28s %14" PRIu64, counter_infos[c].name, total);
        for (uint32_t w = 0; h->nb_nets > 1 && w < h->nb_nets; w++)
            fprintf(out, " %14" PRIu64, counter_read(counters_of(h, w), c));
        fprintf(out, "  # %s\n", counter_infos[c].text);
    }
}

/* Of a worker, or of all. */
static void
json_object(const struct host *h, FILE *out, const struct counters *one)
{
    fputc('{', out);
    for (unsigned i = 0; i < CTR_COUNT; i++)
        fprintf(out, "%s\"%s\":%" PRIu64, i > 0 ? "," : "", counter_infos[i].name,
                one != NULL ? counter_read(one, i) : counter_of_all(h, i));
    fputc('}', out);
}

static void
stats_json(const struct host *h, FILE *out)
{
    fputs("{\"total\":", out);
    json_object(h, out, NULL);
    fputs(",\"workers\":{", out);
    for (uint32_t w = 0; w < h->nb_nets; w++) {
        fprintf(out, "%s\"worker%u\":", w > 0 ? "," : "", w);
        json_object(h, out, counters_of(h, w));
    }
    fputs("}}\n", out);
}

void
report_stats(const struct host *h, FILE *out, bool json)
{
    if (json)
        stats_json(h, out);
    else
        stats_text(h, out);
}

/* ---- usage ------------------------------------------------------------------------------------------------------------------- */

struct usage {
    struct tcp_usage tcp;
    uint32_t socks, apps, rx_bufs, pool_bufs, tx_free;
};

static void
fill_usage(struct host *h, void *arg, uint64_t now_us)
{
    struct usage *u = arg;

    (void)now_us;
    for (uint32_t i = 0; i < h->nb_stacks; i++) {
        struct tcp_usage part;

        tcp_usage(h->stacks[i]->tcp, &part);
        u->tcp.conns += part.conns;
        /* Every listener stands in every domain. */
        u->tcp.listeners = part.listeners;
        u->tcp.half_open += part.half_open;
        u->tcp.time_wait += part.time_wait;
        u->tcp.ooo_bufs += part.ooo_bufs;
        u->socks += h->stacks[i]->nb_socks - h->stacks[i]->nb_shadows;
    }
    u->apps = h->nb_apps;
    u->rx_bufs = host_rx_bufs(h);
    u->pool_bufs = rte_mempool_avail_count(h->pool->rx);
    u->tx_free = rte_mempool_avail_count(h->pool->tx);
    for (uint32_t i = 0; i < h->nb_nets; i++)
        u->tx_free += h->nets[i]->nb_tx_spare;
}

int
report_usage(struct host *h, FILE *out)
{
    struct usage u = { .socks = 0 };
    int rc = host_call(h, fill_usage, &u);

    if (rc != 0)
        return rc;
    fprintf(out, "applications %u\nsockets %u\nconnections %u\nlisteners %u\nhalf_open %u\ntime_wait %u\n", u.apps,
            u.socks, u.tcp.conns, u.tcp.listeners, u.tcp.half_open, u.tcp.time_wait);
    fprintf(out, "reassembly_buffers %u\nsocket_buffers %u\nfree_receive_buffers %u\nfree_transmit_buffers %u\n",
            u.tcp.ooo_bufs, u.rx_bufs, u.pool_bufs, u.tx_free);
    return 0;
}
