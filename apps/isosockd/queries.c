/* SPDX-License-Identifier: BSD-3-Clause */
/* The questions of the tools and of the prompt, answered as text. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include <rte_ethdev.h>

#include "sockets/report.h"
#include "daemon.h"

#define MAX_ROWS 1024

struct query {
    const char *name;
    const char *flags; /**< letters that it takes, or NULL */
    const char *word; /**< the one long option, or NULL */
    int (*answer)(struct daemon *d, const char *args, FILE *out);
};

/** Is the option letter among the arguments, in whichever bundle? */
static bool
has_flag(const char *args, char flag)
{
    bool in_flags = false;

    for (; *args != '\0'; args++) {
        if (*args == '-')
            in_flags = true;
        else if (*args == ' ')
            in_flags = false;
        else if (in_flags && *args == flag)
            return true;
    }
    return false;
}

static int
answer_ss(struct daemon *d, const char *args, FILE *out)
{
    unsigned flags = 0;

    if (has_flag(args, 'H'))
        flags |= REPORT_NO_HEADER;
    if (has_flag(args, 'l'))
        flags |= REPORT_LISTEN;
    if (has_flag(args, 'a'))
        flags |= REPORT_ALL;
    return report_ss(d->ops->host(d->mode), out, flags);
}

static int
answer_stats(struct daemon *d, const char *args, FILE *out)
{
    bool json = strcmp(args, "--json") == 0;
    struct counters sum;

    if (has_flag(args, 'a')) {
        counters_sum(&sum);
        for (unsigned i = 0; i < CTR_COUNT; i++)
            fprintf(out, "%-28s %20" PRIu64 "  %s\n", counter_infos[i].name, sum.v[i], counter_infos[i].text);
        return 0;
    }
    report_stats(d->ops->host(d->mode), out, json);
    if (json)
        return 0;
    d->ops->report(d->mode, out);
    return report_usage(d->ops->host(d->mode), out);
}

/** Rows that the worker copies out between two polls. */
struct net_rows {
    unsigned count;
    union {
        struct ip_neighbour neighbours[MAX_ROWS];
        struct ip_route routes[IP_MAX_ROUTES];
    };
};

static void
copy_neighbours(struct host *h, void *arg, uint64_t now_us)
{
    struct net_rows *rows = arg;

    rows->count = ip_neighbours(net_ip(host_net(h, 0)), rows->neighbours, MAX_ROWS, now_us);
}

static void
copy_routes(struct host *h, void *arg, uint64_t now_us)
{
    struct net_rows *rows = arg;

    (void)now_us;
    rows->count = ip_routes(net_ip(host_net(h, 0)), rows->routes, IP_MAX_ROUTES);
}

static int
answer_neigh(struct daemon *d, const char *args, FILE *out)
{
    static struct net_rows
        rows; /* the callers are the server's and the prompt's thread: see the lock in daemon_query */
    int rc = host_call(d->ops->host(d->mode), copy_neighbours, &rows);

    (void)args;
    for (unsigned i = 0; rc == 0 && i < rows.count; i++) {
        const struct ip_neighbour *n = &rows.neighbours[i];
        char addr[IP_ADDR_STRLEN], mac[RTE_ETHER_ADDR_FMT_SIZE];

        rte_ether_format_addr(mac, sizeof(mac), &n->mac);
        fprintf(out, "%-15s  %s  %-10s  %" PRIu64 " s\n", ip_addr_format(&n->addr, addr), mac, n->state,
                n->age_us / 1000000);
    }
    return rc;
}

static int
answer_route(struct daemon *d, const char *args, FILE *out)
{
    static struct net_rows rows;
    int rc = host_call(d->ops->host(d->mode), copy_routes, &rows);

    (void)args;
    for (unsigned i = 0; rc == 0 && i < rows.count; i++) {
        const struct ip_route *r = &rows.routes[i];
        char prefix[IP_ADDR_STRLEN], hop[IP_ADDR_STRLEN];

        ip_addr_format(&r->prefix, prefix);
        if (ip_addr_is_any(&r->next_hop))
            fprintf(out, "%s/%u port %u\n", prefix, r->prefix_len, d->port.port_id);
        else
            fprintf(out, "%s/%u via %s port %u\n", prefix, r->prefix_len, ip_addr_format(&r->next_hop, hop),
                    d->port.port_id);
    }
    return rc;
}

static int
answer_paths(struct daemon *d, const char *args, FILE *out)
{
    (void)args;
    return report_paths(d->ops->host(d->mode), out);
}

static int
answer_config(struct daemon *d, const char *args, FILE *out)
{
    (void)args;
    options_print_values(d->options, out);
    return 0;
}

static int
answer_ports(struct daemon *d, const char *args, FILE *out)
{
    const struct port_caps *c = &d->port.caps;
    char mac[RTE_ETHER_ADDR_FMT_SIZE];
    struct rte_eth_stats st;
    bool is_device = d->port.config.wire_ops == NULL;

    (void)args;
    if (is_device && rte_eth_stats_get(d->port.port_id, &st) != 0)
        return -EIO;
    rte_ether_format_addr(mac, sizeof(mac), &d->port.mac);
    fprintf(out, "port %u  %s  %s  mtu %u  queues %u (steering: %s)  link %s\n", d->port.port_id, d->port.driver, mac,
            d->port.mtu, d->port.nb_queues, port_steer_name(d->port.steer), port_link_up(&d->port) ? "up" : "down");
    fprintf(out, "  by the port:%s%s%s%s%s%s\n", c->rx_csum ? " receive checksums," : "",
            c->tx_ip_csum ? " IPv4 checksum," : "", c->tx_tcp_csum ? " TCP checksum," : "",
            c->tso ? " segmentation," : "", c->multi_seg ? " chains," : "",
            c->rx_intr ? " interrupts" : " no interrupts");
    if (!is_device)
        return 0;
    fprintf(out, "  received    %" PRIu64 " frames, %" PRIu64 " bytes, missed %" PRIu64 ", no buffer %" PRIu64 "\n",
            st.ipackets, st.ibytes, st.imissed, st.rx_nombuf);
    fprintf(out, "  transmitted %" PRIu64 " frames, %" PRIu64 " bytes, errors %" PRIu64 "\n", st.opackets, st.obytes,
            st.oerrors);
    return 0;
}

static const struct query queries[] = {
    { "ss", "Hlatin", NULL, answer_ss },     { "stats", "a", "--json", answer_stats },
    { "neigh", NULL, NULL, answer_neigh },   { "route", NULL, NULL, answer_route },
    { "config", NULL, NULL, answer_config }, { "ports", NULL, NULL, answer_ports },
    { "paths", NULL, NULL, answer_paths },
};

/** Are the arguments such as the question takes? */
static bool
args_ok(const struct query *q, const char *args)
{
    while (*args != '\0') {
        size_t len = strcspn(args, " ");
        bool word = q->word != NULL && strlen(q->word) == len && strncmp(args, q->word, len) == 0;

        if (!word && (q->flags == NULL || len < 2 || args[0] != '-' || strspn(args + 1, q->flags) < len - 1))
            return false;
        args += len + (args[len] == ' ');
    }
    return true;
}

int
daemon_query(void *ctx, const char *text, FILE *out)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the server's thread and the prompt's take turns */
    size_t name_len = strcspn(text, " ");
    const char *args = text + name_len + (text[name_len] == ' ');
    int rc;

    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
        const struct query *q = &queries[i];

        if (strlen(q->name) != name_len || strncmp(text, q->name, name_len) != 0)
            continue;
        if (!args_ok(q, args))
            return -EINVAL;
        pthread_mutex_lock(&lock);
        rc = q->answer(ctx, args, out);
        pthread_mutex_unlock(&lock);
        return rc;
    }
    return -EINVAL;
}
