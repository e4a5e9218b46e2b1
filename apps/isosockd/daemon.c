/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/telemetry.h"
#include "sockets/shm.h"
#include "daemon.h"

/** The ports that exist, for the message about one that does not. */
static void
list_ports(char *out, size_t size)
{
    size_t len = 0;
    uint16_t id;

    out[0] = '\0';
    RTE_ETH_FOREACH_DEV(id)
    {
        char name[RTE_ETH_NAME_MAX_LEN] = "?";

        rte_eth_dev_get_name_by_port(id, name);
        if (len < size)
            len += (size_t)snprintf(out + len, size - len, "%s%u (%s)", len != 0 ? ", " : "", id, name);
    }
}

static int
check_port_exists(uint16_t port_id, char *err, size_t err_len)
{
    char ports[512];

    if (rte_eth_dev_is_valid_port(port_id))
        return 0;
    if (rte_eth_dev_count_avail() == 0) {
        snprintf(err, err_len,
                 "there is no DPDK port: bind a NIC to a DPDK driver, or add --vdev=net_tap0,iface=iso0 before the --");
        return -ENODEV;
    }
    list_ports(ports, sizeof(ports));
    snprintf(err, err_len, "--port '%u' does not exist: there is %s", port_id, ports);
    return -ENODEV;
}

static int
start_port(struct daemon *d, char *err, size_t err_len)
{
    const struct mode_config mc = { .knobs = d->cfg->mode_knobs, .nb_workers = d->nb_workers };
    struct port_config pc = d->cfg->port_config;
    bool is_device = pc.wire_ops == NULL;
    uint16_t mtu = pc.mtu;
    char name[16];
    int rc = d->ops->plan(&mc, &pc, err, err_len);

    if (rc == 0 && is_device)
        rc = check_port_exists(pc.port_id, err, err_len);
    if (rc != 0)
        return rc;
    if (mtu == 0 && (!is_device || rte_eth_dev_get_mtu(pc.port_id, &mtu) != 0))
        mtu = RTE_ETHER_MTU;
    snprintf(name, sizeof(name), d->number == 0 ? "isosock" : "isosock%u", d->number);
    rc = pktpool_create(&d->pool, name, d->cfg->rx_buffers, mtu,
                        is_device ? rte_eth_dev_socket_id(pc.port_id) : SOCKET_ID_ANY);
    if (rc != 0) {
        snprintf(err, err_len, "no memory for %u receive buffers (%s): lower --rx-buffers or give the EAL more",
                 d->cfg->rx_buffers, strerror(-rc));
        return rc;
    }
    d->has_pool = true;
    rc = port_start(&d->port, &pc, &d->pool, err, err_len);
    if (rc != 0)
        return rc;
    d->has_port = true;
    if (!port_link_up(&d->port))
        LOG_WARN("port %u has no link; going on, it may come", pc.port_id);
    return 0;
}

static int
start_mode(struct daemon *d, char *err, size_t err_len)
{
    struct mode_config mc = {
        .knobs = d->cfg->mode_knobs,
        .stack = { .ip = d->cfg->ip, .aggregate = true },
        .port = &d->port,
        .pool = &d->pool,
        .nb_workers = d->nb_workers,
        .number = d->number,
    };

    config_tcp_params(d->cfg, &mc.stack.tcp);
    mc.stack.ip.seed = mc.stack.tcp.seed[0] ^ mc.stack.tcp.seed[1];
    errno = 0;
    d->mode = d->ops->create(&mc, err, err_len);
    if (d->mode != NULL)
        return 0;
    return errno != 0 ? -errno : -EINVAL;
}

static int
start_server(struct daemon *d, char *err, size_t err_len)
{
    const struct server_config sc = {
        .path = d->cfg->control,
        .file_mode = (mode_t)strtoul(d->cfg->control_mode, NULL, 8),
        .host = d->ops->host(d->mode),
        .rings_per_instance = d->ops->rings_per_instance(d->mode),
        .max_socks = d->cfg->max_sockets,
        .tx_chunks = (uint32_t)(d->cfg->app_memory_bytes / SHM_CHUNK_BYTES),
        .query = daemon_query,
        .query_ctx = d,
    };

    return server_create(&d->server, &sc, err, err_len);
}

/* What stacks of one process have in common. */
static void
init_process(void)
{
    int rc;

    clock_init();
    rc = telemetry_init();
    if (rc != 0)
        LOG_WARN("no telemetry: %s", strerror(-rc));
}

int
daemon_start_stack(struct daemon *d, const struct config *cfg, const struct options *o, char *err, size_t err_len)
{
    int rc;

    d->cfg = cfg;
    d->options = o;
    d->ops = cfg->mode_ops;
    if (d->nb_workers == 0)
        d->nb_workers = rte_lcore_count();
    if (d->number == 0)
        init_process();
    rc = start_port(d, err, err_len);
    if (rc == 0)
        rc = start_mode(d, err, err_len);
    return rc;
}

int
daemon_start(struct daemon *d, const struct config *cfg, const struct options *o, char *err, size_t err_len)
{
    int rc = daemon_start_stack(d, cfg, o, err, err_len);
    unsigned used;

    if (rc != 0)
        return rc;
    used = d->ops->nb_workers(d->mode);
    if (used < d->nb_workers)
        LOG_WARN("mode %s uses %u of the EAL's %u lcores", d->ops->name, used, d->nb_workers);
    return start_server(d, err, err_len);
}

static void
prompt_query(void *ctx, const char *query, FILE *out)
{
    int rc = daemon_query(ctx, query, out);

    if (rc != 0)
        fprintf(out, "no answer: %s\n", strerror(-rc));
}

static void
prompt_quit(void *ctx)
{
    daemon_ask_stop(ctx);
}

static void
start_prompt(struct daemon *d)
{
    static const struct prompt_ops prompt_ops = { .query = prompt_query, .quit = prompt_quit };

    d->prompt = prompt_create(&prompt_ops, d);
    if (d->prompt == NULL)
        LOG_WARN("no prompt: %s", strerror(errno));
}

static int
worker_main(void *arg)
{
    const struct daemon_worker *a = arg;

    worker_run(a->d->ops, a->d->mode, a->w, (enum idle_policy)a->d->cfg->idle, &a->d->stop);
    return 0;
}

void
daemon_launch(struct daemon *d, unsigned first)
{
    unsigned lcore, w = first, n = d->ops->nb_workers(d->mode);

    RTE_LCORE_FOREACH_WORKER(lcore)
    {
        if (w == n)
            break;
        d->workers[w] = (struct daemon_worker){ .d = d, .w = w };
        rte_eal_remote_launch(worker_main, &d->workers[w], lcore);
        w++;
    }
}

void
daemon_run(struct daemon *d)
{
    if (d->cfg->interactive)
        start_prompt(d);
    daemon_launch(d, 1);
    d->workers[0] = (struct daemon_worker){ .d = d, .w = 0 };
    worker_main(&d->workers[0]);
    rte_eal_mp_wait_lcore();
}

void
daemon_ask_stop(struct daemon *d)
{
    __atomic_store_n(&d->stop, 1, __ATOMIC_RELAXED);
    if (d->mode == NULL)
        return;
    for (unsigned w = 0; w < d->ops->nb_workers(d->mode); w++)
        net_wake(host_net(d->ops->host(d->mode), w));
}

void
daemon_stop(struct daemon *d)
{
    struct mode *mode = d->mode;

    /* No worker runs any more, or none ever did because the start failed: whoever waits for an answer must not. */
    if (mode != NULL)
        host_calls_end(d->ops->host(mode));
    prompt_destroy(d->prompt);
    if (d->server != NULL)
        server_destroy(d->server);
    d->mode = NULL; /* a late signal finds nothing to wake */
    if (mode != NULL)
        d->ops->destroy(mode);
    if (d->has_port)
        port_stop(&d->port);
    if (d->has_pool)
        pktpool_destroy(&d->pool);
}
