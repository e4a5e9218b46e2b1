/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/port_steer.h"

#include <errno.h>
#include <string.h>

/* The key that Microsoft publishes with its test vectors: every card takes it, and it spreads well. */
const uint8_t port_steer_key[STEER_KEY_BYTES] = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
    0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
    0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

/* Drivers that divide flows by themselves, each flow to one queue. */
static const char *const own_rule[] = { "net_tap", "net_af_packet", "net_af_xdp" };

/*
 * net_tap translates filters for the kernel's flower classifier without their masks: a rule on some bits of a port would become one on the
 * whole number, and the driver does not say so.
 */
static const char *const no_filters[] = { "net_tap" };

static bool
is_among(const char *driver, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], driver) == 0)
            return true;
    return false;
}

const char *
port_steer_name(enum port_steer steer)
{
    static const char *const names[] = { "auto", "rss", "flow", "port", "soft" };

    return names[steer];
}

static bool
rss_possible(const struct rte_eth_dev_info *info)
{
    return (info->flow_type_rss_offloads & RTE_ETH_RSS_NONFRAG_IPV4_TCP) != 0 && info->reta_size > 0 &&
           rte_is_power_of_2(info->reta_size) &&
           (info->hash_key_size == 0 ||
            (info->hash_key_size >= STEER_KEY_BYTES && info->hash_key_size <= STEER_KEY_MAX));
}

/* A driver without filters says so to whatever it is asked. */
static bool
has_filters(uint16_t port_id)
{
    const struct rte_flow_attr attr = { .ingress = 1 };
    const struct rte_flow_item pattern[] = { { .type = RTE_FLOW_ITEM_TYPE_END } };
    const struct rte_flow_action actions[] = { { .type = RTE_FLOW_ACTION_TYPE_END } };
    struct rte_flow_error error;
    int rc = rte_flow_validate(port_id, &attr, pattern, actions, &error);

    return rc != -ENOSYS && rc != -ENOTSUP;
}

bool
port_steer_possible(const struct port *p, const struct rte_eth_dev_info *info, enum port_steer steer)
{
    switch (steer) {
    case PORT_STEER_RSS:
        return rss_possible(info);
    case PORT_STEER_FLOW:
        return !is_among(p->driver, no_filters, RTE_DIM(no_filters)) && has_filters(p->port_id);
    case PORT_STEER_OWN:
        return is_among(p->driver, own_rule, RTE_DIM(own_rule));
    default:
        return true;
    }
}

void
port_steer_configure(const struct port *p, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf, uint8_t *key)
{
    if (p->nb_queues == 1 || p->steer != PORT_STEER_RSS)
        return;
    memset(key, 0, STEER_KEY_MAX);
    memcpy(key, port_steer_key, sizeof(port_steer_key));
    conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf->rxmode.offloads |= info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_RSS_HASH;
    conf->rx_adv_conf.rss_conf = (struct rte_eth_rss_conf){
        .rss_key = key,
        .rss_key_len = info->hash_key_size != 0 ? info->hash_key_size : STEER_KEY_BYTES,
        .rss_hf = info->flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP),
    };
}

/* ---- receive-side scaling ------------------------------------------------------------------------------------------------ */

static int
apply_rss(struct port *p, const struct rte_eth_dev_info *info)
{
    struct rte_eth_rss_reta_entry64 reta[RTE_ETH_RSS_RETA_SIZE_512 / RTE_ETH_RETA_GROUP_SIZE];
    uint8_t key[STEER_KEY_MAX];
    struct rte_eth_rss_conf got = { .rss_key = key, .rss_key_len = sizeof(key) };
    int rc;

    if (info->reta_size > RTE_ETH_RSS_RETA_SIZE_512)
        return -ENOTSUP;
    memset(reta, 0, sizeof(reta));
    for (uint16_t i = 0; i < info->reta_size; i++) {
        struct rte_eth_rss_reta_entry64 *group = &reta[i / RTE_ETH_RETA_GROUP_SIZE];

        group->mask |= UINT64_C(1) << (i % RTE_ETH_RETA_GROUP_SIZE);
        group->reta[i % RTE_ETH_RETA_GROUP_SIZE] = (uint16_t)(i % p->nb_queues);
    }
    rc = rte_eth_dev_rss_reta_update(p->port_id, reta, info->reta_size);
    if (rc != 0)
        return rc;
    p->steer_buckets = info->reta_size;
    /* Some cards have a key of their own; what counts is the one in use. */
    memcpy(key, port_steer_key, sizeof(port_steer_key));
    rc = rte_eth_dev_rss_hash_conf_get(p->port_id, &got);
    if (rc == 0 && (got.rss_hf & RTE_ETH_RSS_NONFRAG_IPV4_TCP) == 0)
        return -ENOTSUP;
    memcpy(p->rss_key, rc == 0 ? key : port_steer_key, sizeof(p->rss_key));
    return 0;
}

/* ---- filters ---------------------------------------------------------------------------------------------------------------- */

/* For each value of the low bits two: of our port if that is in the upper half, and of the peer's if not. No two overlap. */
uint32_t
port_steer_filters(const struct port *p)
{
    return 2 * rte_align32pow2(p->nb_queues);
}

struct port_filter
port_steer_filter(const struct port *p, uint32_t i)
{
    uint32_t buckets = port_steer_filters(p) / 2;
    uint16_t low = (uint16_t)(buckets - 1);
    uint16_t value = (uint16_t)(i % buckets);
    struct port_filter f = { .queue = (uint16_t)(value % p->nb_queues) };

    if (i < buckets) {
        f.mask.hdr.dst_port = rte_cpu_to_be_16((uint16_t)(STEER_OWN_PORT | low));
        f.spec.hdr.dst_port = rte_cpu_to_be_16((uint16_t)(STEER_OWN_PORT | value));
    } else {
        f.mask.hdr.dst_port = rte_cpu_to_be_16(STEER_OWN_PORT);
        f.mask.hdr.src_port = rte_cpu_to_be_16(low);
        f.spec.hdr.src_port = rte_cpu_to_be_16(value);
    }
    return f;
}

static int
apply_filters(struct port *p)
{
    const struct rte_flow_attr attr = { .ingress = 1 };
    struct rte_flow_error error;

    p->steer_buckets = port_steer_filters(p) / 2;
    for (uint32_t i = 0; i < port_steer_filters(p); i++) {
        struct port_filter f = port_steer_filter(p, i);
        const struct rte_flow_action_queue to = { .index = f.queue };
        const struct rte_flow_item pattern[] = {
            { .type = RTE_FLOW_ITEM_TYPE_ETH },
            { .type = RTE_FLOW_ITEM_TYPE_IPV4 },
            { .type = RTE_FLOW_ITEM_TYPE_TCP, .spec = &f.spec, .mask = &f.mask },
            { .type = RTE_FLOW_ITEM_TYPE_END },
        };
        const struct rte_flow_action actions[] = {
            { .type = RTE_FLOW_ACTION_TYPE_QUEUE, .conf = &to },
            { .type = RTE_FLOW_ACTION_TYPE_END },
        };

        if (rte_flow_create(p->port_id, &attr, pattern, actions, &error) == NULL) {
            rte_flow_flush(p->port_id, &error);
            return -ENOTSUP;
        }
    }
    return 0;
}

int
port_steer_apply(struct port *p, const struct rte_eth_dev_info *info)
{
    if (p->nb_queues == 1)
        return 0;
    switch (p->steer) {
    case PORT_STEER_RSS:
        return apply_rss(p, info);
    case PORT_STEER_FLOW:
        return apply_filters(p);
    default:
        return 0;
    }
}
