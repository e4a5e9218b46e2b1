/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>

#include "core/eal.h"

/* Less free memory in huge pages than this, and the EAL would start only to fail at the first pool. */
#define HUGE_MIN_BYTES (UINT64_C(128) << 20)
#define NO_HUGE_MIB "512"

#define DEFAULTS_MAX 16
#define TEXT_MAX 1024
#define PREFIX "isosock-" /* of runtime folders; the process id follows */

struct args {
    char **v;
    int n;
    char text[DEFAULTS_MAX][TEXT_MAX]; /* the words that are added */
    int added;
};

/* Descriptors that the EAL prints to, and where they point while it parses. */
struct capture {
    int saved[2];
    int file[2];
    bool active;
};

static char runtime_dir[TEXT_MAX];
static bool has_files; /* the EAL may keep huge pages as files */

/* Whether one of the user's words is `name` or `name=...`; a short option (-l) also with its value attached. */
static bool
user_gave(char **argv, int n, const char *name)
{
    size_t len = strlen(name);
    bool is_short = name[1] != '-';

    for (int i = 1; i < n; i++) {
        if (strncmp(argv[i], name, len) == 0 && (is_short || argv[i][len] == '\0' || argv[i][len] == '='))
            return true;
    }
    return false;
}

static bool
user_gave_any(char **argv, int n, const char *const *names)
{
    for (; *names != NULL; names++)
        if (user_gave(argv, n, *names))
            return true;
    return false;
}

__attribute__((format(printf, 2, 3))) static void
add_default(struct args *a, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(a->text[a->added], TEXT_MAX, fmt, ap);
    va_end(ap);
    a->v[a->n++] = a->text[a->added++];
}

static uint64_t
read_number(const char *path)
{
    unsigned long long value = 0;
    FILE *f = fopen(path, "re");

    if (f == NULL)
        return 0;
    if (fscanf(f, "%llu", &value) != 1)
        value = 0;
    fclose(f);
    return value;
}

/* No mount of hugetlbfs is needed: with --in-memory the EAL takes anonymous huge pages. */
static uint64_t
free_huge_bytes(void)
{
    static const char root[] = "/sys/kernel/mm/hugepages";
    uint64_t total = 0;
    DIR *dir = opendir(root);
    const struct dirent *entry;

    if (dir == NULL)
        return 0;
    while ((entry = readdir(dir)) != NULL) {
        unsigned long long size_kib;
        char path[TEXT_MAX];

        if (sscanf(entry->d_name, "hugepages-%llukB", &size_kib) != 1)
            continue;
        snprintf(path, sizeof(path), "%s/%s/free_hugepages", root, entry->d_name);
        total += read_number(path) * size_kib * 1024;
    }
    closedir(dir);
    return total;
}

/*
 * One lcore that floats over the cores that this process may use: pinning is the user's decision, and two
 * daemons pinned to the same core would halve each other.
 */
static void
add_default_lcore(struct args *a)
{
    char list[TEXT_MAX - 32] = "";
    size_t len = 0;
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE && len + 8 < sizeof(list); cpu++)
        if (CPU_ISSET(cpu, &set))
            len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%d", len > 0 ? "," : "", cpu);
    add_default(a, "--lcores=0@(%s)", list);
}

static void
add_defaults(struct args *a, char **argv, int n)
{
    static const char *const lcores[] = { "-l", "-c", "-s", "-S", "--lcores", NULL };
    static const char *const files[] = {
        "--in-memory", "--no-shconf", "--proc-type", "--huge-dir", "--legacy-mem", NULL
    };
    static const char *const memory[] = { "-m", "--socket-mem", NULL };

    if (!user_gave_any(argv, n, lcores))
        add_default_lcore(a);
    if (!user_gave(argv, n, "--file-prefix"))
        add_default(a, "--file-prefix=" PREFIX "%d", (int)getpid());
    if (!user_gave(argv, n, "--iova-mode"))
        add_default(a, "--iova-mode=va");
    if (!user_gave(argv, n, "--log-level")) {
        add_default(a, "--log-level=lib.*:warning");
        add_default(a, "--log-level=bus.*:warning");
        add_default(a, "--log-level=pmd.*:warning");
        add_default(a, "--log-level=user1:warning"); /* rte_ip_frag's */
    }
    bool no_huge = user_gave(argv, n, "--no-huge");

    if (!no_huge && free_huge_bytes() < HUGE_MIN_BYTES) {
        fprintf(stderr, "%s: too few free huge pages, going on without (--no-huge)\n", program_invocation_short_name);
        add_default(a, "--no-huge");
        no_huge = true;
    }
    /* --in-memory implies --no-shconf, and is refused together with --no-huge. */
    if (!user_gave_any(argv, n, files))
        add_default(a, no_huge ? "--no-shconf" : "--in-memory");
    else
        has_files = !no_huge && !user_gave(argv, n, "--in-memory");
    if (no_huge && !user_gave_any(argv, n, memory)) {
        add_default(a, "-m");
        add_default(a, NO_HUGE_MIB);
    }
}

/*
 * The EAL answers a wrong option with lines on stderr and a page of help on stdout. Both are caught while it
 * starts, at the level of descriptors because its threads may print too, so that one line can be made of them.
 */
static void
capture_start(struct capture *c)
{
    fflush(stdout);
    fflush(stderr);
    for (int i = 0; i < 2; i++) {
        c->saved[i] = fcntl(STDOUT_FILENO + i, F_DUPFD_CLOEXEC, 3);
        c->file[i] = memfd_create("eal-output", MFD_CLOEXEC);
        if (c->saved[i] >= 0 && c->file[i] >= 0)
            dup2(c->file[i], STDOUT_FILENO + i);
    }
    c->active = true;
}

/* Give the descriptors back; text receives what was written to stderr. */
static void
capture_stop(struct capture *c, char *text, size_t len)
{
    text[0] = '\0';
    if (!c->active)
        return;
    fflush(stdout);
    fflush(stderr);
    for (int i = 0; i < 2; i++) {
        if (c->saved[i] >= 0) {
            dup2(c->saved[i], STDOUT_FILENO + i);
            close(c->saved[i]);
        }
        if (c->file[i] < 0)
            continue;
        ssize_t n = i == 1 ? pread(c->file[i], text, len - 1, 0) : 0;

        text[n > 0 ? n : 0] = '\0';
        close(c->file[i]);
    }
    c->active = false;
}

/* The first line that the EAL wrote, without its prefix: it is the one nearest to the cause. */
static void
first_line(const char *text, char *out, size_t out_len)
{
    size_t len;

    while (isspace((unsigned char)*text))
        text++;
    if (strncmp(text, "EAL: ", 5) == 0)
        text += 5;
    len = strcspn(text, "\n");
    if (len >= out_len)
        len = out_len - 1;
    memcpy(out, text, len);
    out[len] = '\0';
}

/* Lines that DPDK writes on every start of this kind, and that ask for no action. */
static bool
is_noise(const char *line, size_t len)
{
    static const char *const noise[] = {
        "No legacy callbacks, legacy socket not created", /* telemetry's old protocol, which nobody asked for */
        "Specified qdisc kind is unknown", /* net_tap wants multiq for rte_flow, which is not used here */
        "Could not add multiq qdisc",
        "failed to create multiq qdisc",
        "Disabling rte flow support",
        "Failed to register mp action callback", /* net_memif's support of secondary processes */
        "hugepages reported on node", /* of one of the sizes */
        "Unable to create TAP interface", /* these follow from a line before them that gives the cause */
        "TAP Unable to initialize",
        "vdev_probe(): failed to initialize",
        "Bus (vdev) probe failed",
    };

    for (size_t i = 0; i < sizeof(noise) / sizeof(noise[0]); i++)
        if (memmem(line, len, noise[i], strlen(noise[i])) != NULL)
            return true;
    return false;
}

static void
forward_warnings(const char *output)
{
    while (*output != '\0') {
        size_t len = strcspn(output, "\n");

        if (len > 0 && !is_noise(output, len))
            fprintf(stderr, "%.*s\n", (int)len, output);
        output += len + (output[len] == '\n');
    }
}

/* Runs after telemetry's own exit handler has removed its socket, since it was registered earlier. */
static void
remove_runtime_dir(void)
{
    if (runtime_dir[0] != '\0')
        rmdir(runtime_dir);
}

/* Processes that were killed could not remove theirs: ours are named by process id, so that the dead are known. */
static void
remove_stale_dirs(void)
{
    char parent[TEXT_MAX];
    char *slash;
    const struct dirent *entry;
    DIR *dir;

    memcpy(parent, runtime_dir, sizeof(parent));
    slash = strrchr(parent, '/');
    if (slash == NULL)
        return;
    *slash = '\0';
    dir = opendir(parent);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        char path[TEXT_MAX + 320];
        int pid;

        if (sscanf(entry->d_name, PREFIX "%d", &pid) != 1 || pid <= 0)
            continue;
        if (kill(pid, 0) == 0 || errno != ESRCH)
            continue;
        snprintf(path, sizeof(path), "%s/%s/dpdk_telemetry.v2", parent, entry->d_name);
        unlink(path);
        *strrchr(path, '/') = '\0';
        rmdir(path);
    }
    if (dir != NULL)
        closedir(dir);
}

static int
start_failed(int error, const char *output, char *err, size_t err_len)
{
    char line[TEXT_MAX];

    first_line(output, line, sizeof(line));
    if (line[0] == '\0')
        snprintf(line, sizeof(line), "%s", rte_strerror(error));
    snprintf(err, err_len, "EAL: %s", line);
    switch (error) {
    case EINVAL:
    case ENODEV: /* a device that the options name */
        return -EINVAL;
    case ENOMEM:
    case EALREADY:
        return -error;
    default:
        return -EIO;
    }
}

int
eal_start(int argc, char **argv, char *err, size_t err_len)
{
    static const char *const talkative[] = { "-h", "--help", "-v", "--version", "--log-level", NULL };
    char output[4 * TEXT_MAX];
    struct capture capture = { .active = false };
    struct args args = { .n = 0, .added = 0 };
    int n = 1;

    while (n < argc && strcmp(argv[n], "--") != 0)
        n++;
    args.v = calloc((size_t)n + DEFAULTS_MAX + 1, sizeof(*args.v));
    if (args.v == NULL) {
        snprintf(err, err_len, "EAL: out of memory");
        return -ENOMEM;
    }
    args.v[args.n++] = argv[0];
    add_defaults(&args, argv, n);
    for (int i = 1; i < n; i++)
        args.v[args.n++] = argv[i];
    atexit(remove_runtime_dir);
    if (!user_gave_any(argv, n, talkative))
        capture_start(&capture);
    int rc = rte_eal_init(args.n, args.v);
    int error = rte_errno;

    capture_stop(&capture, output, sizeof(output));
    free(args.v);
    snprintf(runtime_dir, sizeof(runtime_dir), "%s", rte_eal_get_runtime_dir());
    if (rc < 0)
        return start_failed(error, output, err, err_len);
    forward_warnings(output);
    remove_stale_dirs();
    return n;
}

/*
 * rte_eal_cleanup unmaps the EAL's memory while its interrupt thread still walks structures that lie there
 * (net_memif keeps it busy when its sockets close), and the process dies of it every few times. With --in-memory or
 * --no-huge all there is ends with the process anyway, so it is called only where files on a hugetlbfs have to go.
 */
void
eal_stop(void)
{
    uint16_t port_id;

    RTE_ETH_FOREACH_DEV(port_id)
    {
        rte_eth_dev_stop(port_id);
        rte_eth_dev_close(port_id);
    }
    if (has_files)
        rte_eal_cleanup();
}
