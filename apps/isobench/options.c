/* SPDX-License-Identifier: BSD-3-Clause */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <netdb.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char options_usage[] =
    "usage: isobench serve ADDR:PORT [-t THREADS] [-d SECONDS] [--pin CPU,...] [--spin] [--json]\n"
    "       isobench rr|tx|rx|crr|idle ADDR:PORT [OPTION...]\n"
    "\n"
    "  serve                  answer every role, until SIGTERM, SIGINT or the end of the duration\n"
    "  rr                     request and response over lasting connections\n"
    "  tx, rx                 a stream of messages to the server, from the server; one a call\n"
    "  crr                    connect, one request and response, close\n"
    "  idle                   hold connections\n"
    "\n"
    "  -c, --connections N    connections, shared out among the threads (1)\n"
    "  -s, --size BYTES       a message, with k or m for 1024 or 1048576 (64; tx and rx 64k)\n"
    "  -t, --threads N        threads, each with an epoll set (1)\n"
    "  -P, --depth N          requests in flight on each connection, rr only (1)\n"
    "  -d, --duration S       seconds of measuring, after all connections stand (5; serve: no end)\n"
    "  -r, --rate R           open loop: R messages a second in all, due at fixed times, rr and tx only\n"
    "      --pin CPU,...      thread i runs on the i-th of these CPUs, counted round\n"
    "      --spin             poll the epoll set without ever sleeping in it\n"
    "      --zero-copy        send and receive in place (isobench-embedded, each side for itself)\n"
    "      --json             results as one JSON object\n"
    "      --progress         a line each second on standard error (by default if that is a terminal)\n"
    "      --help, --version\n";

enum { OPT_PIN = 256, OPT_SPIN, OPT_ZERO_COPY, OPT_JSON, OPT_PROGRESS, OPT_HELP, OPT_VERSION };

static const struct option long_options[] = {
    { "connections", required_argument, NULL, 'c' },   { "size", required_argument, NULL, 's' },
    { "threads", required_argument, NULL, 't' },       { "depth", required_argument, NULL, 'P' },
    { "duration", required_argument, NULL, 'd' },      { "rate", required_argument, NULL, 'r' },
    { "pin", required_argument, NULL, OPT_PIN },       { "spin", no_argument, NULL, OPT_SPIN },
    { "zero-copy", no_argument, NULL, OPT_ZERO_COPY }, { "json", no_argument, NULL, OPT_JSON },
    { "progress", no_argument, NULL, OPT_PROGRESS },   { "help", no_argument, NULL, OPT_HELP },
    { "version", no_argument, NULL, OPT_VERSION },     { NULL, 0, NULL, 0 },
};

struct error {
    char *text;
    size_t len;
};

static int __attribute__((format(printf, 2, 3))) fail(const struct error *e, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vsnprintf(e->text, e->len, format, ap);
    va_end(ap);
    return -1;
}

static int
parse_count(const char *name, const char *text, uint32_t max, uint32_t *out, const struct error *e)
{
    unsigned long long value, unit = 1;
    char *end;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (strcmp(name, "--size") == 0 && (*end == 'k' || *end == 'm'))
        unit = *end++ == 'k' ? 1024 : 1048576;
    if (end == text || *end != '\0' || text[0] == '-' || errno != 0 || value < 1 || value > max / unit)
        return fail(e, "%s: '%s' is not a number from 1 to %u", name, text, max);
    *out = (uint32_t)(value * unit);
    return 0;
}

static int
parse_positive(const char *name, const char *text, double max, double *out, const struct error *e)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !isfinite(value) || value <= 0 || value > max)
        return fail(e, "%s: '%s' is not a number above 0, at most %.0f", name, text, max);
    *out = value;
    return 0;
}

static int
parse_cpus(struct options *o, const char *text, const struct error *e)
{
    const char *p = text;

    for (o->nb_cpus = 0; o->nb_cpus < OPTIONS_THREADS_MAX;) {
        char *end;
        unsigned long cpu = strtoul(p, &end, 10);

        if (end == p || *p == '-' || *p == '+' || cpu >= CPU_SETSIZE || (*end != ',' && *end != '\0'))
            break;
        o->cpus[o->nb_cpus++] = (int)cpu;
        if (*end == '\0')
            return 0;
        p = end + 1;
    }
    return fail(e, "--pin: '%s' is not a list of at most %u CPU numbers", text, OPTIONS_THREADS_MAX);
}

/** getaddrinfo takes any number, and its last 16 bits. */
static bool
is_port(const char *text)
{
    char *end;
    unsigned long port = strtoul(text, &end, 10);

    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && port >= 1 && port <= UINT16_MAX;
}

/** ADDR:PORT, [ADDR]:PORT; a name is looked up. */
static int
parse_target(struct options *o, const char *text, const struct error *e)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
    const char *colon = strrchr(text, ':');
    struct addrinfo *found;
    char host[256];
    size_t len = colon != NULL ? (size_t)(colon - text) : 0;
    int rc;

    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    if (len == 0 || len >= sizeof(host) || colon[1] == '\0')
        return fail(e, "'%s' is not ADDR:PORT", o->target);
    memcpy(host, text, len);
    host[len] = '\0';
    if (!is_port(colon + 1))
        return fail(e, "'%s': '%s' is not a port, 1 to 65535", o->target, colon + 1);
    rc = getaddrinfo(host, colon + 1, &hints, &found);
    if (rc != 0)
        return fail(e, "'%s': %s", o->target, gai_strerror(rc));
    memcpy(&o->addr, found->ai_addr, found->ai_addrlen);
    o->addr_len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int
parse_role(struct options *o, const char *text, const struct error *e)
{
    o->serve = strcmp(text, "serve") == 0;
    if (o->serve)
        return 0;
    for (unsigned i = 0; i < ROLE_COUNT; i++) {
        if (strcmp(text, role_names[i]) == 0) {
            o->hello.role = (enum role)i;
            return 0;
        }
    }
    return fail(e, "'%s' is none of serve, rr, tx, rx, crr, idle", text);
}

static int
parse_option(struct options *o, int opt, const char *arg, const struct error *e)
{
    switch (opt) {
    case 'c':
        return parse_count("--connections", arg, OPTIONS_CONNECTIONS_MAX, &o->connections, e);
    case 's':
        return parse_count("--size", arg, HELLO_SIZE_MAX, &o->hello.size_bytes, e);
    case 't':
        return parse_count("--threads", arg, OPTIONS_THREADS_MAX, &o->threads, e);
    case 'P':
        return parse_count("--depth", arg, OPTIONS_DEPTH_MAX, &o->depth, e);
    case 'd':
        return parse_positive("--duration", arg, 1e6, &o->duration_s, e);
    case 'r':
        return parse_positive("--rate", arg, 1e9, &o->rate, e);
    case OPT_PIN:
        return parse_cpus(o, arg, e);
    case OPT_SPIN:
        o->spin = true;
        return 0;
    case OPT_ZERO_COPY:
        o->zero_copy = true;
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    default:
        o->progress = true;
        return 0;
    }
}

/** Fill in what was not given; refuse what does not go together. */
static int
complete(struct options *o, const struct error *e)
{
    enum role role = o->hello.role;

    if (o->serve) {
        if (o->connections != 0 || o->hello.size_bytes != 0 || o->depth != 0 || o->rate > 0)
            return fail(e, "-c, -s, -P and -r are a client's");
    } else {
        if (o->depth > 1 && role != ROLE_RR)
            return fail(e, "--depth is for rr");
        if (o->rate > 0 && role != ROLE_RR && role != ROLE_TX)
            return fail(e, "--rate is for rr and tx");
        if (o->duration_s <= 0)
            o->duration_s = 5;
    }
    if (o->connections == 0)
        o->connections = 1;
    if (o->threads == 0)
        o->threads = 1;
    if (o->depth == 0)
        o->depth = 1;
    if (o->hello.size_bytes == 0)
        o->hello.size_bytes = role == ROLE_TX || role == ROLE_RX ? 65536 : 64;
    if (!o->serve && o->threads > o->connections)
        return fail(e, "%u threads for %u connections", o->threads, o->connections);
    return 0;
}

enum options_result
options_parse(struct options *o, int argc, char **argv, char *err, size_t err_len)
{
    const struct error e = { err, err_len };
    int opt;

    memset(o, 0, sizeof(*o));
    o->progress = isatty(STDERR_FILENO) == 1;
    opterr = 0;
    optind = 1;
    while ((opt = getopt_long(argc, argv, "c:s:t:P:d:r:", long_options, NULL)) != -1) {
        if (opt == OPT_HELP)
            return OPTIONS_HELP;
        if (opt == OPT_VERSION)
            return OPTIONS_VERSION;
        if (opt == '?') {
            fail(&e, "'%s': no such option, or its value is missing", argv[optind - 1]);
            return OPTIONS_ERROR;
        }
        if (parse_option(o, opt, optarg, &e) != 0)
            return OPTIONS_ERROR;
    }
    if (argc - optind != 2) {
        fail(&e, "a role and ADDR:PORT are wanted; see --help");
        return OPTIONS_ERROR;
    }
    o->target = argv[optind + 1];
    if (parse_role(o, argv[optind], &e) != 0 || complete(o, &e) != 0 || parse_target(o, o->target, &e) != 0)
        return OPTIONS_ERROR;
    return OPTIONS_OK;
}
