/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOSOCKD_CONFIG_H
#define ISOSOCKD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/options.h"
#include "core/port_packet.h"
#include "modes/mode.h"
#include "sink/sink.h"

/**
 * @file
 * The daemon's configuration: one table of options (config.c), filled from the defaults, the configuration file and the command line.
 */

/** What wires that are no DPDK ports were told. */
struct wire_configs {
    struct sink_config sink;
    struct packet_config packet;
};

struct config {
    /* What the table fills in: the values as they were given. */
    char *address;
    char *gateway;
    char *port;
    char *mode;
    char *control;
    char *control_mode;
    char *config_file;
    char *eal;
    uint32_t mtu_bytes; /**< 0 = the port's own */
    uint32_t rx_buffers;
    uint32_t max_connections;
    uint32_t max_half_open;
    uint32_t max_time_wait;
    uint32_t max_sockets; /**< of one application */
    uint64_t app_memory_bytes; /**< transmit buffers of one application */
    uint64_t rcvbuf_bytes, rcvbuf_max_bytes;
    uint64_t sndbuf_bytes, sndbuf_max_bytes;
    char *congestion;
    struct option_list congestion_routes;
    struct option_list paths;
    int mtu_probing; /**< TCP_MTU_PROBING_* */
    uint32_t mtu_base_mss, mtu_probe_interval_s, mtu_min_bytes, mtu_expires_s;
    int ecn; /**< as tcp_params.ecn */
    bool ecn_option;
    bool pacing;
    uint32_t time_wait_s;
    uint32_t fin_wait2_s;
    uint32_t park_s;
    uint32_t rto_min_ms;
    uint32_t delack_ms;
    uint32_t challenge_ms;
    uint32_t port_min, port_max;
    uint32_t seed; /**< 0 = from the kernel's random numbers */
    int idle; /**< enum idle_policy */
    bool own_descriptors; /**< of a stack inside a program */
    int syn_cookies; /**< TCP_SYN_COOKIES_* */
    bool timestamps;
    bool interactive;
    bool help;
    bool version;
    bool print_sample;
    bool print_options;

    /* What config_check makes of them. */
    struct ip_config ip;
    struct port_config port_config;
    struct wire_configs wires; /**< of the one that port_config says */
    const struct mode_ops *mode_ops;
    const char *mode_knobs; /**< points into mode; "" if there are none */
};

/**
 * Give cfg its defaults, then read the command line argv[1..argc-1] and the file that it names. Returns 0, or -errno with one line in err (wrong
 * option or line: -EINVAL). On success o holds the table and cfg (both outlive each other until options_fini).
 */
int config_load(struct config *cfg, struct options *o, int argc, char **argv, char *err, size_t err_len);

/** Check what hangs together and translate addresses, port, mode and control path. Returns 0, or -EINVAL with one line in err. */
int config_check(struct config *cfg, char *err, size_t err_len);

/**
 * The EAL's arguments: argv[0], the words before `--` (of the nb_eal words from argv[1] on), then those of --eal. Returns an argument vector that ends with NULL and
 * *argc, or NULL without memory. The strings and the vector live as long as the process, since the EAL keeps them.
 */
char **config_eal_args(const struct config *cfg, int nb_eal, char **argv, int *argc);

/** The TCP parameters that cfg asks for. */
void config_tcp_params(const struct config *cfg, struct tcp_params *p);

#endif /* ISOSOCKD_CONFIG_H */
