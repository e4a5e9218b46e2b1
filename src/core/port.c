/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_kvargs.h>

#include "core/log.h"
#include "core/port.h"
#include "core/port_steer.h"

#define DEFAULT_DESCRIPTORS 512
#define RX_CSUM_OFFLOADS (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM)
#define MEMIF_DEFAULT_BUFFER_BYTES 2048
#define MEMIF_CONNECT_TRIES 30
#define MEMIF_CONNECT_INTERVAL_US 100000
#define FRAME_OVERHEAD_BYTES (RTE_ETHER_HDR_LEN + RTE_VLAN_HLEN)

/* What a driver's own description does not tell, or tells wrongly. */
struct driver_quirk {
    const char *name;
    bool done_on_return; /* the bytes have been taken when rte_eth_tx_burst returns */
    bool no_tx_csum;
    bool fills_every_queue; /* the kernel spreads frames over all queues that it was made with, read or not */
};

static const struct driver_quirk quirks[] = {
    /*
     * net_tap forms the sum over a chain segment by segment, each as though it began at an even offset, and is wrong
     * after a segment of odd length. Its TSO splits by rte_gso and then forms sums in the same way. Both are software
     * there, so that nothing is lost by doing it above.
     */
    { .name = "net_tap", .done_on_return = true, .no_tx_csum = true },
    { .name = "net_memif", .done_on_return = true },
    { .name = "net_af_packet", .done_on_return = true, .fills_every_queue = true },
    { .name = "net_af_xdp", .done_on_return = true, .fills_every_queue = true },
    { .name = "net_pcap", .done_on_return = true },
};

__attribute__((format(printf, 4, 5))) static int
fail(int rc, char *err, size_t err_len, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err, err_len, fmt, ap);
    va_end(ap);
    return rc;
}

static const struct driver_quirk *
find_quirk(const char *driver)
{
    static const struct driver_quirk none = { .name = "" };

    for (size_t i = 0; i < sizeof(quirks) / sizeof(quirks[0]); i++)
        if (strcmp(quirks[i].name, driver) == 0)
            return &quirks[i];
    return &none;
}

static void
choose_caps(struct port *p, const struct rte_eth_dev_info *info)
{
    const struct driver_quirk *quirk = find_quirk(p->driver);
    const struct impair_config *impair = &p->config.impair;
    bool tx_csum = !quirk->no_tx_csum && impair->corrupt_ppm == 0;
    uint64_t tx = info->tx_offload_capa;
    struct port_caps *c = &p->caps;

    c->tx_ip_csum = tx_csum && (tx & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) != 0;
    c->tx_tcp_csum = tx_csum && (tx & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) != 0;
    c->multi_seg = (tx & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0;
    c->tso = (tx & RTE_ETH_TX_OFFLOAD_TCP_TSO) != 0 && c->tx_tcp_csum && c->multi_seg && !impair->enabled;
    c->rx_csum = (info->rx_offload_capa & RX_CSUM_OFFLOADS) == RX_CSUM_OFFLOADS && impair->corrupt_ppm == 0;
    c->must_copy = !quirk->done_on_return;
    c->rx_intr = false;
}

/* key is the caller's, since the configuration points to it. */
static struct rte_eth_conf
device_conf(const struct port *p, const struct rte_eth_dev_info *info, bool rx_intr, uint8_t *key)
{
    const struct port_caps *c = &p->caps;
    struct rte_eth_conf conf;

    memset(&conf, 0, sizeof(conf));
    conf.intr_conf.rxq = rx_intr;
    if (c->rx_csum)
        conf.rxmode.offloads |= RX_CSUM_OFFLOADS | (info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_UDP_CKSUM);
    if (c->tx_ip_csum)
        conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
    if (c->tx_tcp_csum)
        conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
    if (c->tso)
        conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_TCP_TSO;
    if (c->multi_seg)
        conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    port_steer_configure(p, info, &conf, key);
    return conf;
}

/* *nb_rx_bufs: what the receive rings hold. */
static int
set_up_queues(const struct port *p, const struct rte_eth_dev_info *info, const struct pktpool *pool,
              uint32_t *nb_rx_bufs)
{
    uint16_t nb_rxd = p->config.nb_rxd != 0 ? p->config.nb_rxd : info->default_rxportconf.ring_size;
    uint16_t nb_txd = p->config.nb_txd != 0 ? p->config.nb_txd : info->default_txportconf.ring_size;
    int socket_id = rte_eth_dev_socket_id(p->port_id);
    int rc;

    if (nb_rxd == 0)
        nb_rxd = DEFAULT_DESCRIPTORS;
    if (nb_txd == 0)
        nb_txd = DEFAULT_DESCRIPTORS;
    /* Receive rings hold buffers; most of the pool must stay for what is on its way. */
    while (nb_rxd > 32 && (uint32_t)nb_rxd * p->nb_queues > pool->count / 4)
        nb_rxd /= 2;
    rc = rte_eth_dev_adjust_nb_rx_tx_desc(p->port_id, &nb_rxd, &nb_txd);
    for (uint16_t q = 0; rc == 0 && q < p->nb_queues; q++) {
        rc = rte_eth_rx_queue_setup(p->port_id, q, nb_rxd, (unsigned)socket_id, NULL, pool->rx);
        if (rc == 0)
            rc = rte_eth_tx_queue_setup(p->port_id, q, nb_txd, (unsigned)socket_id, NULL);
    }
    *nb_rx_bufs = (uint32_t)nb_rxd * p->nb_queues;
    return rc;
}

/* Silence a log type but for critical lines; returns the level to give back. */
static int
hush(const char *log_type_name, int *type)
{
    int level;

    *type = rte_log_register(log_type_name);
    level = rte_log_get_level((uint32_t)*type);
    rte_log_set_level((uint32_t)*type, RTE_LOG_CRIT);
    return level;
}

/* Descriptor that is readable when a frame waits in the queue, or -1. */
static int
rx_intr_fd(uint16_t port_id, uint16_t queue_id)
{
    int type;
    /* A driver without interrupts is found out by asking, and the library would log an error at each. */
    int level = hush("lib.ethdev", &type);
    int fd = rte_eth_dev_rx_intr_ctl_q_get_fd(port_id, queue_id);

    rte_log_set_level((uint32_t)type, (uint32_t)level);
    return fd > STDERR_FILENO ? fd : -1;
}

/*
 * The drivers' own lines are hushed: net_tap logs that it cannot tell secondary processes, of which there are none, and
 * net_memif each try. A net_memif client starts only if its server listens; two daemons that are
 * started together get some time to meet.
 */
static int
start_device(const struct port *p)
{
    unsigned tries = strcmp(p->driver, "net_memif") == 0 ? MEMIF_CONNECT_TRIES : 1;
    int tap, memif;
    int tap_level = hush("pmd.net.tap", &tap);
    int memif_level = hush("pmd.net.memif", &memif);
    int rc;

    for (;;) {
        rc = rte_eth_dev_start(p->port_id);
        if (rc == 0 || --tries == 0)
            break;
        usleep(MEMIF_CONNECT_INTERVAL_US);
    }
    rte_log_set_level((uint32_t)tap, (uint32_t)tap_level);
    rte_log_set_level((uint32_t)memif, (uint32_t)memif_level);
    return rc;
}

static int
configure_and_start(const struct port *p, const struct rte_eth_dev_info *info, struct pktpool *pool, bool rx_intr)
{
    uint8_t key[STEER_KEY_MAX];
    struct rte_eth_conf conf = device_conf(p, info, rx_intr, key);
    uint32_t nb_rx_bufs;
    int rc = rte_eth_dev_configure(p->port_id, p->nb_queues, p->nb_queues, &conf);

    if (rc == 0)
        rc = set_up_queues(p, info, pool, &nb_rx_bufs);
    if (rc == 0)
        rc = start_device(p);
    if (rc == 0)
        pool->held += nb_rx_bufs;
    return rc;
}

/*
 * net_memif splits a frame that exceeds one of its buffers over several, and then counts free slots wrongly and leaves
 * chain marks behind; so frames must fit. The buffer's size is known from the device's arguments alone.
 */
static int
check_memif(const struct port *p, const struct rte_eth_dev_info *info, char *err, size_t err_len)
{
    const struct rte_devargs *args = rte_dev_devargs(info->device);
    struct rte_kvargs *kv = args != NULL && args->args != NULL ? rte_kvargs_parse(args->args, NULL) : NULL;
    const char *bsize = kv != NULL ? rte_kvargs_get(kv, "bsize") : NULL;
    const char *zero_copy = kv != NULL ? rte_kvargs_get(kv, "zero-copy") : NULL;
    unsigned long buffer_bytes = bsize != NULL ? strtoul(bsize, NULL, 10) : MEMIF_DEFAULT_BUFFER_BYTES;
    uint16_t mtu = p->config.mtu != 0 ? p->config.mtu : RTE_ETHER_MTU;
    int rc = 0;

    if (buffer_bytes < (unsigned long)mtu + FRAME_OVERHEAD_BYTES)
        rc = fail(-EINVAL, err, err_len, "port %u (net_memif): an MTU of %u needs bsize=%u or more in --vdev",
                  p->port_id, mtu, mtu + FRAME_OVERHEAD_BYTES);
    else if (zero_copy != NULL && strcmp(zero_copy, "yes") == 0)
        rc = fail(-EINVAL, err, err_len,
                  "port %u (net_memif): zero-copy=yes does not work with shared buffers, leave it out", p->port_id);
    rte_kvargs_free(kv);
    return rc;
}

static int
set_mtu(struct port *p, const struct rte_eth_dev_info *info, char *err, size_t err_len)
{
    int rc = 0;

    if (strcmp(p->driver, "net_memif") == 0) {
        /* It has no MTU of its own: what fits its buffers passes. */
        p->mtu = p->config.mtu != 0 ? p->config.mtu : RTE_ETHER_MTU;
        return 0;
    }
    if (p->config.mtu != 0) {
        int type;
        int level = hush("lib.ethdev", &type); /* the reason is in err */

        rc = rte_eth_dev_set_mtu(p->port_id, p->config.mtu);
        rte_log_set_level((uint32_t)type, (uint32_t)level);
    }
    if (rc == -EINVAL)
        return fail(-EINVAL, err, err_len, "port %u (%s): MTU %u is not allowed, at most %u", p->port_id, p->driver,
                    p->config.mtu,
                    RTE_MIN((uint32_t)info->max_mtu, info->max_rx_pktlen - RTE_ETHER_HDR_LEN - RTE_ETHER_CRC_LEN));
    rte_eth_dev_get_mtu(p->port_id, &p->mtu);
    if (p->config.mtu != 0 && p->config.mtu < p->mtu)
        p->mtu = p->config.mtu; /* a driver that cannot change it still carries shorter frames */
    return 0;
}

/* A device behind an IOMMU reads and writes the receive buffers only once they are mapped for it. */
static int
map_pool(const struct port *p, const struct rte_eth_dev_info *info, const struct pktpool *pool, char *err,
         size_t err_len)
{
    if (rte_dev_dma_map(info->device, pool->base, (uint64_t)(uintptr_t)pool->base, pool->bytes) == 0 ||
        rte_errno == ENOTSUP)
        return 0;
    return fail(-EIO, err, err_len, "port %u (%s): packet buffers cannot be mapped for the device: %s", p->port_id,
                p->driver, rte_strerror(rte_errno));
}

static uint16_t
max_queues(const struct rte_eth_dev_info *info)
{
    return RTE_MIN(info->max_rx_queues, info->max_tx_queues);
}

/* Frames that a device puts into a queue which nobody reads would be lost. */
static int
check_queues(const struct port *p, const struct rte_eth_dev_info *info, char *err, size_t err_len)
{
    uint16_t most = max_queues(info);

    if (p->config.nb_queues == 0 || p->nb_queues > most)
        return fail(-EINVAL, err, err_len, "port %u (%s): %u queues asked for, 1 to %u possible", p->port_id, p->driver,
                    p->config.nb_queues, most);
    if (p->nb_queues < most && find_quirk(p->driver)->fills_every_queue)
        return fail(-EINVAL, err, err_len,
                    "port %u (%s): it was made with %u queues, but %u are to be read: make it with 1 to %u (--vdev)",
                    p->port_id, p->driver, most, p->nb_queues, p->nb_queues);
    return 0;
}

/* Start with p->nb_queues queues and p->steer. */
static int
start_steered(struct port *p, const struct rte_eth_dev_info *info, struct pktpool *pool)
{
    bool is_memif = strcmp(p->driver, "net_memif") == 0;
    int rc = configure_and_start(p, info, pool, true);

    if (rc != 0 && !is_memif)
        rc = configure_and_start(p, info, pool, false);
    if (rc != 0)
        return rc;
    rc = port_steer_apply(p, info);
    if (rc != 0)
        rte_eth_dev_stop(p->port_id);
    return rc;
}

static int
refuse_steer(const struct port *p, const struct rte_eth_dev_info *info, char *err, size_t err_len)
{
    char can[64] = "";

    for (enum port_steer s = PORT_STEER_RSS; s <= PORT_STEER_OWN; s++)
        if (s != p->config.steer && port_steer_possible(p, info, s))
            snprintf(can + strlen(can), sizeof(can) - strlen(can), "%s, ", port_steer_name(s));
    return fail(-EINVAL, err, err_len, "port %u (%s): it cannot steer by %s; allowed are auto, %ssoft", p->port_id,
                p->driver, port_steer_name(p->config.steer), can);
}

/* The first kind of steering that the port has, or the one that was asked for. */
static int
start_with_queues(struct port *p, const struct rte_eth_dev_info *info, struct pktpool *pool, char *err, size_t err_len)
{
    bool any = p->config.steer == PORT_STEER_AUTO;
    uint16_t most = any ? RTE_MIN(p->config.nb_queues, RTE_MAX(max_queues(info), 1)) : p->config.nb_queues;
    int rc = -ENOTSUP;

    for (p->steer = any ? PORT_STEER_RSS : p->config.steer;; p->steer++) {
        p->nb_queues = p->steer == PORT_STEER_SOFT ? 1 : most;
        if (most == 1)
            p->steer = PORT_STEER_SOFT;
        if (port_steer_possible(p, info, p->steer)) {
            rc = check_queues(p, info, err, err_len);
            if (rc != 0)
                return rc;
            rc = start_steered(p, info, pool);
            if (rc == 0)
                return 0;
        }
        if (p->steer == PORT_STEER_SOFT)
            break;
        if (!any)
            return refuse_steer(p, info, err, err_len);
    }
    if (strcmp(p->driver, "net_memif") == 0)
        return fail(-EIO, err, err_len,
                    "port %u (net_memif): no server listens on its socket; start the peer, role=server, first",
                    p->port_id);
    return fail(-EIO, err, err_len, "port %u (%s): the driver refused to start: %s", p->port_id, p->driver,
                rte_strerror(-rc));
}

/* Impairment works on whole segments, and damages them after their sum is formed. */
static int
start_wire(struct port *p, struct pktpool *pool, char *err, size_t err_len)
{
    const struct impair_config *impair = &p->config.impair;
    int rc;

    snprintf(p->driver, sizeof(p->driver), "%s", p->config.wire_ops->name);
    p->nb_queues = p->config.nb_queues;
    rc = p->config.wire_ops->start(p, pool, err, err_len);
    p->caps.tso = p->caps.tso && !impair->enabled;
    if (impair->corrupt_ppm != 0)
        p->caps.tx_ip_csum = p->caps.tx_tcp_csum = p->caps.rx_csum = p->caps.tso = false;
    return rc;
}

int
port_start(struct port *p, const struct port_config *cfg, struct pktpool *pool, char *err, size_t err_len)
{
    struct rte_eth_dev_info info;
    int rc;

    memset(p, 0, sizeof(*p));
    p->config = *cfg;
    p->port_id = cfg->port_id;
    if (cfg->wire_ops != NULL)
        return start_wire(p, pool, err, err_len);
    if (!rte_eth_dev_is_valid_port(cfg->port_id) || rte_eth_dev_info_get(cfg->port_id, &info) != 0)
        return fail(-ENODEV, err, err_len, "port %u: no such port (%u found); name one to the EAL with --vdev or -a",
                    cfg->port_id, rte_eth_dev_count_avail());
    snprintf(p->driver, sizeof(p->driver), "%s", info.driver_name);
    p->if_index = (int)info.if_index;
    if (strcmp(p->driver, "net_memif") == 0) {
        rc = check_memif(p, &info, err, err_len);
        if (rc != 0)
            return rc;
    }
    choose_caps(p, &info);
    rc = map_pool(p, &info, pool, err, err_len);
    if (rc == 0)
        rc = start_with_queues(p, &info, pool, err, err_len);
    if (rc != 0)
        return rc;
    p->caps.rx_intr = rx_intr_fd(p->port_id, 0) >= 0;
    rte_eth_macaddr_get(p->port_id, &p->mac);
    rc = set_mtu(p, &info, err, err_len);
    if (rc != 0)
        port_stop(p);
    return rc;
}

void
port_stop(struct port *p)
{
    if (p->config.wire_ops != NULL) {
        p->config.wire_ops->stop(p);
        return;
    }
    rte_eth_dev_stop(p->port_id);
    rte_eth_dev_close(p->port_id);
}

/* 1 up, 0 down, -1 the interface is not in this network namespace. */
static int
kernel_link_up(int if_index)
{
    struct ifreq ifr;
    int up = -1;
    int fd;

    memset(&ifr, 0, sizeof(ifr));
    if (if_indextoname((unsigned)if_index, ifr.ifr_name) == NULL)
        return -1;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (ioctl(fd, SIOCGIFFLAGS, &ifr) == 0)
        up = (ifr.ifr_flags & IFF_UP) != 0 && (ifr.ifr_flags & IFF_RUNNING) != 0;
    close(fd);
    return up;
}

bool
port_link_up(const struct port *p)
{
    struct rte_eth_link link;

    if (p->if_index != 0)
        return kernel_link_up(p->if_index) != 0;
    if (p->config.wire_ops != NULL)
        return true;
    return rte_eth_link_get_nowait(p->port_id, &link) != 0 || link.link_status == RTE_ETH_LINK_UP;
}
