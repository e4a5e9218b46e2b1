/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "sockets/control_path.h"
#include "sockets/shm.h"
#include "config.h"

static const char *const syn_cookie_choices[] = { "off", "full", "always", NULL }; /* TCP_SYN_COOKIES_* */
static const char *const ecn_choices[] = { "off", "ask", "agree", "accurate", "accurate-ask-classic", "accurate-agree",
                                           NULL };
static const char *const mtu_probing_choices[] = { "off", "black-hole", "always", NULL }; /* TCP_MTU_PROBING_* */
static const char *const path_probing_choices[] = { "default", "off", "black-hole", "always", NULL };
static const char *const idle_choices[] = { "poll", "adaptive", "sleep", NULL };

/* The knobs of --port. */
struct port_knobs {
    char *impair;
    uint32_t rx_descriptors, tx_descriptors;
};

static const struct option_row port_rows[] = {
    { .name = "impair",
      .type = OPTION_STRING,
      .offset = offsetof(struct port_knobs, impair),
      .help = "Make the wire bad, in both directions." },
    { .name = "rxd",
      .type = OPTION_U32,
      .max = 32768,
      .offset = offsetof(struct port_knobs, rx_descriptors),
      .help = "Receive descriptors; 0 = as the driver likes." },
    { .name = "txd",
      .type = OPTION_U32,
      .max = 32768,
      .offset = offsetof(struct port_knobs, tx_descriptors),
      .help = "Transmit descriptors; 0 = as the driver likes." },
};

/** "0,impair=loss:1%,rxd=512", "packet,interface=veth0", or "sink,window=256k" */
static int
port_parse(const char *text, struct port_config *pc, struct wire_configs *wires, char *err, size_t err_len)
{
    struct port_knobs knobs = { 0 };
    struct options o;
    char head[16], *end;
    const char *rest = knobs_split_head(text, head, sizeof(head));
    unsigned long id = strtoul(head, &end, 10);
    int rc;

    if (strcmp(head, "sink") == 0) {
        *pc = (struct port_config){ .wire_ops = &sink_wire_ops, .wire_config = &wires->sink };
        return sink_parse(rest, &wires->sink, &pc->impair, err, err_len);
    }
    if (strcmp(head, "packet") == 0) {
        *pc = (struct port_config){ .wire_ops = &packet_wire_ops, .wire_config = &wires->packet };
        return packet_parse(rest, &wires->packet, &pc->impair, err, err_len);
    }
    if (head[0] < '0' || head[0] > '9' || *end != '\0' || id >= RTE_MAX_ETHPORTS) {
        snprintf(err, err_len,
                 "'%s' is no port: 0 to %u, packet or sink, then knobs, as in 0,impair=loss:1%%,delay:10ms", head,
                 RTE_MAX_ETHPORTS - 1);
        return -EINVAL;
    }
    rc = options_init(&o, port_rows, RTE_DIM(port_rows), &knobs, err, err_len);
    if (rc != 0)
        return rc;
    rc = knobs_parse(&o, rest, "--port", err, err_len);
    *pc = (struct port_config){ .port_id = (uint16_t)id,
                                .nb_rxd = (uint16_t)knobs.rx_descriptors,
                                .nb_txd = (uint16_t)knobs.tx_descriptors };
    if (rc == 0 && knobs.impair != NULL)
        rc = impair_parse(knobs.impair, &pc->impair, err, err_len);
    options_fini(&o);
    return rc;
}

static int
check_port(const char *text, char *err, size_t err_len)
{
    struct port_config ignored;
    struct wire_configs wires_ignored;

    return port_parse(text, &ignored, &wires_ignored, err, err_len);
}

/* An address that a host may have (RFC 1122 section 3.2.1.3): on a link of more than two, not the network's name nor its broadcast. */
static bool
is_host_address(const struct ip_addr *a, uint8_t prefix_len)
{
    uint32_t host = rte_be_to_cpu_32(ip_addr_to_v4(a));
    uint32_t rest = prefix_len < 31 ? UINT32_MAX >> prefix_len : 0;

    if (host >> 24 == 0 || host >> 24 == 127 || host >> 29 == 7)
        return false;
    return rest == 0 || ((host & rest) != 0 && (host & rest) != rest);
}

static int
check_address(const char *text, char *err, size_t err_len)
{
    struct ip_addr a;
    uint8_t len;

    if (ip_prefix_parse(text, &a, &len) == 0 && ip_addr_is_v4(&a) && is_host_address(&a, len))
        return 0;
    snprintf(err, err_len, "a host's IPv4 address and prefix length, as in 10.66.0.2/24");
    return -EINVAL;
}

static int
check_gateway(const char *text, char *err, size_t err_len)
{
    struct ip_addr a;

    if (ip_addr_parse(text, &a) == 0 && ip_addr_is_v4(&a) && !ip_addr_is_any(&a))
        return 0;
    snprintf(err, err_len, "an IPv4 address, as in 10.66.0.1");
    return -EINVAL;
}

static int
check_mode(const char *text, char *err, size_t err_len)
{
    const char *knobs;

    return mode_find(text, &knobs, err, err_len) != NULL ? 0 : -EINVAL;
}

static int
check_control(const char *text, char *err, size_t err_len)
{
    if (text[0] != '\0' && strlen(text) < CTL_PATH_BYTES)
        return 0;
    snprintf(err, err_len, "a path of 1 to %zu bytes", CTL_PATH_BYTES - 1);
    return -EINVAL;
}

static int
check_control_mode(const char *text, char *err, size_t err_len)
{
    if (text[0] != '\0' && strlen(text) <= 4 && strspn(text, "01234567") == strlen(text))
        return 0;
    snprintf(err, err_len, "octal permissions, as in 0660");
    return -EINVAL;
}

static int
check_congestion(const char *text, char *err, size_t err_len)
{
    if (tcp_congestion_find(text) >= 0)
        return 0;
    snprintf(err, err_len, "cubic, newreno, dctcp or bbr");
    return -EINVAL;
}

/** "10.1.0.0/16=bbr" */
static int
congestion_route_parse(const char *text, struct tcp_cc_route *r)
{
    char prefix[IP_ADDR_STRLEN + 4];
    const char *name = strchr(text, '=');

    if (name == NULL || (size_t)(name - text) >= sizeof(prefix))
        return -EINVAL;
    memcpy(prefix, text, (size_t)(name - text));
    prefix[name - text] = '\0';
    int number = tcp_congestion_find(name + 1);
    *r = (struct tcp_cc_route){ .congestion = (uint8_t)number };
    if (number < 0 || ip_prefix_parse(prefix, &r->prefix, &r->prefix_len) != 0)
        return -EINVAL;
    r->prefix_len = (uint8_t)(r->prefix_len + (ip_addr_is_v4(&r->prefix) ? 96 : 0));
    return 0;
}

static int
check_congestion_route(const char *text, char *err, size_t err_len)
{
    struct tcp_cc_route ignored;

    if (congestion_route_parse(text, &ignored) == 0)
        return 0;
    snprintf(err, err_len, "a prefix and a congestion control, as in 10.1.0.0/16=bbr");
    return -EINVAL;
}

/* The knobs of --path. */
struct path_knobs {
    uint32_t mtu_bytes, adv_mss, init_cwnd_segs;
    bool lock;
    int probing;
};

static const struct option_row path_rows[] = {
    { .name = "mtu",
      .type = OPTION_U32,
      .min = 148,
      .max = UINT16_MAX,
      .default_text = NULL,
      .offset = offsetof(struct path_knobs, mtu_bytes),
      .help = "Largest IP packet." },
    { .name = "lock",
      .type = OPTION_BOOL,
      .offset = offsetof(struct path_knobs, lock),
      .help = "The MTU is certain: packets go without DF, ICMP is not listened to." },
    { .name = "advmss",
      .type = OPTION_U32,
      .min = 88,
      .max = UINT16_MAX,
      .offset = offsetof(struct path_knobs, adv_mss),
      .help = "Largest MSS that SYNs tell." },
    { .name = "initcwnd",
      .type = OPTION_U32,
      .min = 1,
      .max = UINT8_MAX,
      .offset = offsetof(struct path_knobs, init_cwnd_segs),
      .help = "Initial window, in segments." },
    { .name = "probing",
      .type = OPTION_ENUM,
      .choices = path_probing_choices,
      .offset = offsetof(struct path_knobs, probing),
      .help = "As --mtu-probing." },
};

/** "10.1.0.0/16,mtu=1400,advmss=1360" */
static int
path_parse(const char *text, struct tcp_path_route *r, char *err, size_t err_len)
{
    struct path_knobs knobs = { 0 };
    struct options o;
    char head[IP_ADDR_STRLEN + 4];
    const char *rest = knobs_split_head(text, head, sizeof(head));
    int rc;

    *r = (struct tcp_path_route){ .mtu_bytes = 0 };
    if (ip_prefix_parse(head, &r->prefix, &r->prefix_len) != 0) {
        snprintf(err, err_len, "'%s' is no prefix; then knobs, as in 10.1.0.0/16,mtu=1400,advmss=1360", head);
        return -EINVAL;
    }
    rc = options_init(&o, path_rows, RTE_DIM(path_rows), &knobs, err, err_len);
    if (rc != 0)
        return rc;
    rc = knobs_parse(&o, rest, "--path", err, err_len);
    options_fini(&o);
    if (rc == 0 && knobs.lock && knobs.mtu_bytes == 0) {
        snprintf(err, err_len, "--path: lock needs mtu=, it says that this is certain");
        rc = -EINVAL;
    }
    r->prefix_len = (uint8_t)(r->prefix_len + (ip_addr_is_v4(&r->prefix) ? 96 : 0));
    r->probing = (uint8_t)knobs.probing;
    r->init_cwnd_segs = (uint8_t)knobs.init_cwnd_segs;
    r->mtu_locked = knobs.lock;
    r->mtu_bytes = (uint16_t)knobs.mtu_bytes;
    r->adv_mss = (uint16_t)knobs.adv_mss;
    return rc;
}

static int
check_path(const char *text, char *err, size_t err_len)
{
    struct tcp_path_route ignored;

    return path_parse(text, &ignored, err, err_len);
}

#define FIELD(f) .offset = offsetof(struct config, f)

static const struct option_row rows[] = {
    { .name = "address",
      .section = "Network",
      .type = OPTION_STRING,
      .metavar = "ADDR/LEN",
      FIELD(address),
      .check = check_address,
      .help = "The stack's own IPv4 address and prefix length; the one option that must be given." },
    { .name = "gateway",
      .section = "Network",
      .type = OPTION_STRING,
      .metavar = "ADDR",
      FIELD(gateway),
      .check = check_gateway,
      .help = "Default gateway, inside the prefix of the address." },
    { .name = "port",
      .section = "Network",
      .type = OPTION_STRING,
      .metavar = "N|packet|sink[,KNOB=VALUE]...",
      FIELD(port),
      .default_text = "0",
      .check = check_port,
      .help =
          "DPDK port to own; knobs: "
          "impair=loss:1%,delay:10ms,reorder:2%,dup:1%,corrupt:0.1%,rate:10M,queue:20ms,seed:7 makes the wire "
          "bad, "
          "rxd and txd set the numbers of descriptors. packet is a kernel's interface by a packet socket that passes "
          "offloads on: "
          "interface=NAME, mac=own|interface, impair. sink is a wire of memory that answers as isobench serve does, "
          "for "
          "measuring; its knobs: offload=none|csum|tso, ack=SEGMENTS, window=BYTES, connections=N, "
          "impair." },
    { .name = "mtu",
      .section = "Network",
      .type = OPTION_U32,
      .unit = "bytes",
      FIELD(mtu_bytes),
      .max = 9000,
      .help = "Largest IP packet, at least 576; 0 = the port's own." },

    { .name = "eal",
      .section = "Stack",
      .type = OPTION_STRING,
      .metavar = "WORDS",
      FIELD(eal),
      .help = "More options of DPDK's EAL, in words between spaces, as if they stood before the `--`: so a file can "
              "hold all." },
    { .name = "mode",
      .section = "Stack",
      .type = OPTION_STRING,
      .metavar = "MODE[,KNOB=VALUE]...",
      FIELD(mode),
      .default_text = "isostack",
      .check = check_mode,
      .help = "How the stack is spread over cores; see the list of modes." },
    { .name = "idle",
      .section = "Stack",
      .type = OPTION_ENUM,
      FIELD(idle),
      .choices = idle_choices,
      .default_text = "adaptive",
      .help = "What a core does when there is nothing to do: poll on, sleep after a short while, or sleep at once." },
    { .name = "own-descriptors",
      .section = "Stack",
      .type = OPTION_BOOL,
      FIELD(own_descriptors),
      .default_text = "off",
      .help = "With the stack inside a program: its TCP sockets are the stack's from the start, and the kernel knows "
              "nothing of their descriptors. The daemon ignores it." },
    { .name = "rx-buffers",
      .section = "Stack",
      .type = OPTION_U32,
      FIELD(rx_buffers),
      .default_text = "16384",
      .min = 1024,
      .max = 4194304,
      .help = "Receive buffers, of a little over 2 KiB each, shared by all connections." },
    { .name = "seed",
      .section = "Stack",
      .type = OPTION_U32,
      FIELD(seed),
      .help = "Seed of sequence numbers and ports, for tests that must repeat; 0 = unpredictable, as it must be on a "
              "real network." },

    { .name = "control",
      .section = "Applications",
      .type = OPTION_STRING,
      .metavar = "PATH",
      FIELD(control),
      .check = check_control,
      .help = "Control socket; default: $ISOSOCK_CONTROL, or /run/isosock.sock for root, or "
              "$XDG_RUNTIME_DIR/isosock.sock." },
    { .name = "control-mode",
      .section = "Applications",
      .type = OPTION_STRING,
      .metavar = "MODE",
      FIELD(control_mode),
      .default_text = "0600",
      .check = check_control_mode,
      .help = "Permissions of the control socket, octal: who may attach applications." },
    { .name = "max-sockets",
      .section = "Applications",
      .type = OPTION_U32,
      FIELD(max_sockets),
      .default_text = "65536",
      .min = 16,
      .max = 1048576,
      .help = "Sockets of one application." },
    { .name = "app-memory",
      .section = "Applications",
      .type = OPTION_SIZE,
      FIELD(app_memory_bytes),
      .unit = "bytes",
      .default_text = "256M",
      .min = 1 << 20,
      .max = (uint64_t)SHM_MAX_CHUNKS * SHM_CHUNK_BYTES,
      .help = "Address space for one application's unsent and unacknowledged bytes; memory is taken as it is used." },

    { .name = "max-connections",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(max_connections),
      .default_text = "65536",
      .min = 16,
      .max = 4194304,
      .help = "Connections and listeners together." },
    { .name = "max-half-open",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(max_half_open),
      .default_text = "4096",
      .min = 16,
      .max = 1048576,
      .help = "Connections that have not completed their handshake." },
    { .name = "max-time-wait",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(max_time_wait),
      .default_text = "32768",
      .min = 16,
      .max = 4194304,
      .help = "Connections in TIME-WAIT; beyond it the oldest one ends early." },
    { .name = "rcvbuf",
      .section = "TCP",
      .type = OPTION_SIZE,
      FIELD(rcvbuf_bytes),
      .unit = "bytes",
      .default_text = "512k",
      .min = 4096,
      .max = 16 << 20,
      .help = "Receive buffer of a new connection." },
    { .name = "rcvbuf-max",
      .section = "TCP",
      .type = OPTION_SIZE,
      FIELD(rcvbuf_max_bytes),
      .unit = "bytes",
      .default_text = "4M",
      .min = 4096,
      .max = 16 << 20,
      .help = "Up to which it grows where the application takes more than half of it in a round trip; SO_RCVBUF fixes "
              "it." },
    { .name = "sndbuf",
      .section = "TCP",
      .type = OPTION_SIZE,
      FIELD(sndbuf_bytes),
      .unit = "bytes",
      .default_text = "512k",
      .min = 4096,
      .max = SHM_SNDBUF_MAX,
      .help = "Send buffer of a new connection." },
    { .name = "sndbuf-max",
      .section = "TCP",
      .type = OPTION_SIZE,
      FIELD(sndbuf_max_bytes),
      .unit = "bytes",
      .default_text = "4032k",
      .min = 4096,
      .max = SHM_SNDBUF_MAX,
      .help = "Up to which it grows with three times the congestion window; SO_SNDBUF fixes it." },
    { .name = "congestion",
      .section = "TCP",
      .type = OPTION_STRING,
      .metavar = "NAME",
      FIELD(congestion),
      .default_text = "cubic",
      .check = check_congestion,
      .help = "Congestion control of sockets that choose none by TCP_CONGESTION: cubic, newreno, dctcp or bbr." },
    { .name = "congestion-route",
      .section = "TCP",
      .type = OPTION_LIST,
      .metavar = "ADDR/LEN=NAME",
      FIELD(congestion_routes),
      .check = check_congestion_route,
      .help = "Another one towards a part of the net, as in 10.1.0.0/16=bbr; the longest prefix counts. May be given "
              "several times." },
    { .name = "path",
      .section = "TCP",
      .type = OPTION_LIST,
      .metavar = "ADDR/LEN[,KNOB=VALUE]...",
      FIELD(paths),
      .check = check_path,
      .help =
          "What holds towards a part of the net, as `ip route` says it; the longest prefix counts. Knobs: mtu=BYTES "
          "the largest packet, lock it is certain (no DF, no ICMP), advmss=BYTES the largest MSS that SYNs tell, "
          "initcwnd=SEGMENTS, probing=off|black-hole|always. May be given several times." },
    { .name = "mtu-probing",
      .section = "TCP",
      .type = OPTION_ENUM,
      FIELD(mtu_probing),
      .choices = mtu_probing_choices,
      .default_text = "black-hole",
      .help = "Find the path's MTU by trying (RFC 4821): never, when full segments time out three times, or from the "
              "start of every connection." },
    { .name = "mtu-base",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(mtu_base_mss),
      .unit = "bytes",
      .default_text = "1024",
      .min = 88,
      .max = 9000,
      .help = "MSS that such a search begins with, and that a black hole leaves." },
    { .name = "mtu-probe-interval",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(mtu_probe_interval_s),
      .unit = "seconds",
      .default_text = "600",
      .min = 1,
      .max = 86400,
      .help = "After which a search that has ended begins anew." },
    { .name = "mtu-min",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(mtu_min_bytes),
      .unit = "bytes",
      .default_text = "552",
      .min = 148,
      .max = 1280,
      .help = "No path is believed to take less, whatever ICMP says." },
    { .name = "mtu-expires",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(mtu_expires_s),
      .unit = "seconds",
      .default_text = "600",
      .min = 1,
      .max = 86400,
      .help = "How long what ICMP has told of a path counts, for new connections too; then more is tried." },
    { .name = "pacing",
      .section = "TCP",
      .type = OPTION_BOOL,
      FIELD(pacing),
      .help = "Pace every connection; bbr does so always, others where SO_MAX_PACING_RATE asks for it." },
    { .name = "ecn",
      .section = "TCP",
      .type = OPTION_ENUM,
      FIELD(ecn),
      .choices = ecn_choices,
      .default_text = "agree",
      .help =
          "Explicit congestion notification: off, ask for it, or agree where a peer asks, with the feedback of "
          "RFC 3168; accurate: ask for that of RFC 9768, and agree to either; accurate-ask-classic, accurate-agree: "
          "agree to either, and ask for RFC 3168's or for none." },
    { .name = "ecn-option",
      .section = "TCP",
      .type = OPTION_BOOL,
      FIELD(ecn_option),
      .default_text = "on",
      .help = "With accurate feedback tell bytes too, not only packets: 12 bytes of every segment." },
    { .name = "time-wait",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(time_wait_s),
      .unit = "seconds",
      .default_text = "60",
      .min = 1,
      .max = 240,
      .help = "How long a connection stays in TIME-WAIT." },
    { .name = "fin-wait2",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(fin_wait2_s),
      .unit = "seconds",
      .default_text = "60",
      .min = 1,
      .max = 3600,
      .help = "How long a closed connection waits for the peer's FIN." },
    { .name = "park",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(park_s),
      .unit = "seconds",
      .default_text = "30",
      .min = 0,
      .max = 4000,
      .help =
          "After how long a silence a connection gives most of its memory back until it is needed again; 0: never." },
    { .name = "rto-min",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(rto_min_ms),
      .unit = "milliseconds",
      .default_text = "200",
      .min = 5,
      .max = 1000,
      .help = "Least retransmission timeout." },
    { .name = "delack",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(delack_ms),
      .unit = "milliseconds",
      .default_text = "40",
      .min = 1,
      .max = 500,
      .help = "Longest delay of an acknowledgement." },
    { .name = "challenge-interval",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(challenge_ms),
      .unit = "milliseconds",
      .default_text = "500",
      .min = 0,
      .max = 60000,
      .help = "At most one challenge ACK of a connection in so long (RFC 5961)." },
    { .name = "port-min",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(port_min),
      .default_text = "32768",
      .min = 1024,
      .max = 65535,
      .help = "First port for connections that name none." },
    { .name = "port-max",
      .section = "TCP",
      .type = OPTION_U32,
      FIELD(port_max),
      .default_text = "60999",
      .min = 1024,
      .max = 65535,
      .help = "Last port for connections that name none." },
    { .name = "syn-cookies",
      .section = "TCP",
      .type = OPTION_ENUM,
      FIELD(syn_cookies),
      .choices = syn_cookie_choices,
      .default_text = "full",
      .help =
          "Answer SYNs without keeping anything (RFC 4987): never, when half-open connections have no room, always." },
    { .name = "timestamps",
      .section = "TCP",
      .type = OPTION_BOOL,
      FIELD(timestamps),
      .default_text = "on",
      .help = "Offer TCP timestamps (RFC 7323)." },

    { .name = "config",
      .section = "Program",
      .type = OPTION_STRING,
      .metavar = "FILE",
      FIELD(config_file),
      .flags = OPTION_COMMAND_LINE_ONLY,
      .help = "Read options from a file first; the command line wins." },
    { .name = "interactive",
      .short_flag = 'i',
      .section = "Program",
      .type = OPTION_BOOL,
      FIELD(interactive),
      .flags = OPTION_COMMAND_LINE_ONLY,
      .help = "Show a prompt; it knows help." },
    { .name = "help",
      .short_flag = 'h',
      .section = "Program",
      .type = OPTION_BOOL,
      FIELD(help),
      .flags = OPTION_COMMAND_LINE_ONLY,
      .help = "Say all this and end." },
    { .name = "version",
      .short_flag = 'V',
      .section = "Program",
      .type = OPTION_BOOL,
      FIELD(version),
      .flags = OPTION_COMMAND_LINE_ONLY,
      .help = "Name the version and end." },
    { .name = "print-sample",
      .section = "Program",
      .type = OPTION_BOOL,
      FIELD(print_sample),
      .flags = OPTION_COMMAND_LINE_ONLY,
      .help = "Print a configuration file with every option and end." },
    { .name = "print-options",
      .section = "Program",
      .type = OPTION_BOOL,
      FIELD(print_options),
      .flags = OPTION_COMMAND_LINE_ONLY | OPTION_HIDDEN,
      .help = "Print the page of options for the docs and end." },
};

int
config_load(struct config *cfg, struct options *o, int argc, char **argv, char *err, size_t err_len)
{
    int rc;

    memset(cfg, 0, sizeof(*cfg));
    rc = options_init(o, rows, RTE_DIM(rows), cfg, err, err_len);
    if (rc != 0)
        return rc;
    rc = options_parse_argv(o, argc, argv, err, err_len);
    if (rc >= 0 && rc < argc) {
        snprintf(err, err_len, "'%s' is no option (--help lists them)", argv[rc]);
        rc = -EINVAL;
    }
    if (rc >= 0 && cfg->config_file != NULL)
        rc = options_parse_file(o, cfg->config_file, err, err_len);
    if (rc < 0)
        options_fini(o);
    return rc < 0 ? rc : 0;
}

char **
config_eal_args(const struct config *cfg, int nb_eal, char **argv, int *argc)
{
    const char *text = cfg->eal != NULL ? cfg->eal : "";
    char *words = strdup(text), *rest = words, *word;
    /* Each word of --eal takes a character and a separator at least. */
    char **args = calloc((size_t)nb_eal + strlen(text) / 2 + 3, sizeof(*args));
    int n = 0;

    if (words == NULL || args == NULL) {
        free(words);
        free(args);
        return NULL;
    }
    while (n <= nb_eal) {
        args[n] = argv[n];
        n++;
    }
    while ((word = strsep(&rest, " \t")) != NULL)
        if (*word != '\0')
            args[n++] = word;
    if (n == nb_eal + 1)
        free(words); /* else they are the arguments' text */
    *argc = n;
    return args;
}

static bool
in_prefix(const struct ip_addr *a, const struct ip_addr *of, uint8_t prefix_len)
{
    uint32_t mask = prefix_len == 0 ? 0 : UINT32_MAX << (32 - prefix_len);

    return ((rte_be_to_cpu_32(ip_addr_to_v4(a)) ^ rte_be_to_cpu_32(ip_addr_to_v4(of))) & mask) == 0;
}

static int
check_network(struct config *cfg, char *err, size_t err_len)
{
    if (cfg->address == NULL) {
        snprintf(err, err_len, "--address is missing: the stack's own address, as in --address 10.66.0.2/24");
        return -EINVAL;
    }
    ip_prefix_parse(cfg->address, &cfg->ip.addr, &cfg->ip.prefix_len);
    if (cfg->gateway != NULL) {
        ip_addr_parse(cfg->gateway, &cfg->ip.gateway);
        if (!in_prefix(&cfg->ip.gateway, &cfg->ip.addr, cfg->ip.prefix_len) ||
            ip_addr_equal(&cfg->ip.gateway, &cfg->ip.addr)) {
            snprintf(err, err_len, "--gateway '%s' must be another address in %s", cfg->gateway, cfg->address);
            return -EINVAL;
        }
    }
    if (cfg->mtu_bytes != 0 && cfg->mtu_bytes < 576) {
        snprintf(err, err_len, "--mtu '%u' is below 576, the least that IPv4 hosts must take (RFC 1122)",
                 cfg->mtu_bytes);
        return -EINVAL;
    }
    return 0;
}

int
config_check(struct config *cfg, char *err, size_t err_len)
{
    int rc = check_network(cfg, err, err_len);

    if (rc != 0)
        return rc;
    if (cfg->congestion_routes.count > TCP_CC_ROUTES_MAX) {
        snprintf(err, err_len, "--congestion-route is given %u times, more than %u", cfg->congestion_routes.count,
                 TCP_CC_ROUTES_MAX);
        return -EINVAL;
    }
    if (cfg->paths.count > TCP_PATH_ROUTES_MAX) {
        snprintf(err, err_len, "--path is given %u times, more than %u", cfg->paths.count, TCP_PATH_ROUTES_MAX);
        return -EINVAL;
    }
    if (cfg->port_min > cfg->port_max) {
        snprintf(err, err_len, "--port-min '%u' is above --port-max '%u'", cfg->port_min, cfg->port_max);
        return -EINVAL;
    }
    rc = port_parse(cfg->port, &cfg->port_config, &cfg->wires, err, err_len);
    if (rc != 0)
        return rc;
    cfg->port_config.mtu = (uint16_t)cfg->mtu_bytes;
    cfg->mode_ops = mode_find(cfg->mode, &cfg->mode_knobs, err, err_len);
    if (cfg->mode_ops == NULL)
        return -EINVAL;
    if (cfg->control == NULL) {
        cfg->control = calloc(1, CTL_PATH_BYTES);
        rc = cfg->control != NULL ? ctl_default_path(cfg->control) : -ENOMEM;
        if (rc != 0) {
            snprintf(err, err_len, "--control is missing, and neither ISOSOCK_CONTROL nor XDG_RUNTIME_DIR is set");
            return -EINVAL;
        }
    }
    return 0;
}

/** Two halves of a seed: from the option, or unpredictable. */
static void
make_seed(uint32_t from, uint64_t seed[2])
{
    seed[0] = from;
    seed[1] = ~(uint64_t)from;
    if (from == 0 && getrandom(seed, 2 * sizeof(seed[0]), 0) != 2 * (ssize_t)sizeof(seed[0]))
        rte_panic("getrandom fails\n");
}

void
config_tcp_params(const struct config *cfg, struct tcp_params *p)
{
    char reason[128]; /* none: check_path has parsed it before */

    tcp_params_default(p);
    p->max_conns = cfg->max_connections;
    p->max_half_open = cfg->max_half_open;
    p->max_time_wait = cfg->max_time_wait;
    p->max_ooo_bufs = cfg->rx_buffers / 8; /* beside the sockets' share, it must not starve the port */
    p->rcv_buf_bytes = (uint32_t)cfg->rcvbuf_bytes;
    p->rcv_buf_max_bytes = (uint32_t)cfg->rcvbuf_max_bytes;
    p->snd_buf_bytes = (uint32_t)cfg->sndbuf_bytes;
    p->snd_buf_max_bytes = (uint32_t)cfg->sndbuf_max_bytes;
    p->congestion = (uint8_t)tcp_congestion_find(cfg->congestion);
    for (unsigned i = 0; i < cfg->congestion_routes.count; i++)
        congestion_route_parse(cfg->congestion_routes.items[i], &p->cc_routes[p->nb_cc_routes++]);
    for (unsigned i = 0; i < cfg->paths.count; i++)
        path_parse(cfg->paths.items[i], &p->path_routes[p->nb_path_routes++], reason, sizeof(reason));
    p->mtu_probing = (uint8_t)cfg->mtu_probing;
    p->mtu_base_mss = (uint16_t)cfg->mtu_base_mss;
    p->mtu_probe_interval_s = cfg->mtu_probe_interval_s;
    p->mtu_min_bytes = (uint16_t)cfg->mtu_min_bytes;
    p->mtu_expires_s = cfg->mtu_expires_s;
    p->pacing = cfg->pacing;
    p->ecn = (uint8_t)cfg->ecn;
    p->ecn_option = cfg->ecn_option;
    p->port_min = (uint16_t)cfg->port_min;
    p->port_max = (uint16_t)cfg->port_max;
    p->time_wait_us = cfg->time_wait_s * 1000000;
    p->fin_wait2_us = cfg->fin_wait2_s * 1000000;
    p->park_us = cfg->park_s * 1000000;
    p->rto_min_us = cfg->rto_min_ms * 1000;
    p->delack_us = cfg->delack_ms * 1000;
    p->challenge_us = cfg->challenge_ms * 1000;
    p->syn_cookies = (uint8_t)cfg->syn_cookies;
    p->timestamps = cfg->timestamps;
    make_seed(cfg->seed, p->seed);
}
