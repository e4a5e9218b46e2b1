/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * isobench with the stack inside: --stack FILE starts one from a configuration; pair starts two, a server's and a client's, in two processes on two CPUs
 * that are joined by shared memory (net_memif), whose every frame is copied by the sender and by the receiver.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "counters.h"
#include "embedded.h"

/* The mapping of isobench's main to a function ends here. */
#undef main

#define CLIENT_ADDRESS "10.77.0.1/24"
#define SERVER_ADDRESS "10.77.0.2/24"
#define SERVER_TARGET "10.77.0.2:7000"
#define READY_MS 20000
#define HANDSHAKE_MS 200
#define WORDS_MAX 48

static const char usage[] =
    "usage: isobench-embedded --stack FILE ROLE ADDR:PORT [OPTION...]\n"
    "       isobench-embedded pair [--cpus SERVER,CLIENT] [--mtu BYTES] rr|tx|rx|crr|idle [OPTION...]\n"
    "\n"
    "The first runs isobench over a stack of its own, made from a configuration file of isosockd (its option eal holds "
    "EAL\n"
    "options). The second runs server and client, each with a stack, on two CPUs (0,1) joined by net_memif. Roles and "
    "options are\n"
    "isobench's:\n\n";

/** An argument vector. */
struct words {
    char *v[WORDS_MAX + 1];
    int n;
};

static void
add(struct words *w, const char *word)
{
    if (w->n < WORDS_MAX)
        w->v[w->n++] = strdup(word);
}

static int
fail(const char *what, int error)
{
    fprintf(stderr, "isobench-embedded: %s: %s\n", what, strerror(error));
    return 1;
}

int
counters_print(FILE *out, bool json)
{
    return iso_stack_counters(out, json);
}

/* ---- one stack ------------------------------------------------------------------------------------------------------------ */

static int
run_one(const char *file, int argc, char **argv)
{
    int status;

    if (iso_stack_start_file(file) != 0)
        return errno == EINVAL ? 2 : 1;
    status = isobench_main(argc, argv);
    iso_stack_stop();
    return status;
}

/* ---- two ------------------------------------------------------------------------------------------------------------------ */

struct pair {
    int cpus[2]; /**< server, client */
    unsigned mtu_bytes;
    bool zero_copy; /**< of both ends */
    char dir[64]; /**< holds the wire's socket */
    char socket[96];
};

static int
start_end(const struct pair *p, bool is_server)
{
    struct words w = { .n = 0 };
    char text[256];

    add(&w, "isobench-embedded");
    snprintf(text, sizeof(text), "%d", p->cpus[!is_server]);
    add(&w, "-l");
    add(&w, text);
    add(&w, "--no-pci");
    add(&w, "--no-huge");
    add(&w, "-m");
    add(&w, "512");
    snprintf(text, sizeof(text), "--vdev=net_memif0,role=%s,id=0,socket-abstract=no,socket=%s,rsize=11,bsize=%u",
             is_server ? "server" : "client", p->socket, p->mtu_bytes > 2000 ? 9216u : 2048u);
    add(&w, text);
    add(&w, "--");
    add(&w, "--address");
    add(&w, is_server ? SERVER_ADDRESS : CLIENT_ADDRESS);
    add(&w, "--idle");
    add(&w, "poll");
    add(&w, "--own-descriptors");
    /* Address space: a chunk for each of many connections. */
    add(&w, "--app-memory");
    add(&w, "4095M");
    add(&w, "--port-min");
    add(&w, "1024");
    add(&w, "--port-max");
    add(&w, "65535");
    if (p->mtu_bytes != 0) {
        snprintf(text, sizeof(text), "%u", p->mtu_bytes);
        add(&w, "--mtu");
        add(&w, text);
    }
    return iso_stack_start(w.n, w.v);
}

static int
pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set);
}

/* The server's process. Its results would stand between the client's: they go nowhere. */
static int
serve(const struct pair *p, int ready_fd)
{
    char *argv[] = { strdup("isobench"),
                     strdup("serve"),
                     strdup(SERVER_TARGET),
                     strdup("--spin"),
                     p->zero_copy ? strdup("--zero-copy") : NULL,
                     NULL };
    int status;

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (pin(p->cpus[0]) != 0 || start_end(p, true) != 0)
        return 1;
    if (write(ready_fd, "r", 1) != 1 || freopen("/dev/null", "w", stdout) == NULL)
        return 1;
    status = isobench_main(p->zero_copy ? 5 : 4, argv);
    iso_stack_stop();
    return status;
}

/* The wire's ends find each other by messages of their own; a first SYN before that would be lost, and its retry comes a second later. */
static void
shake_hands(void)
{
    const struct timespec ms = { .tv_nsec = 1000000 };

    for (int i = 0; i < HANDSHAKE_MS; i++) {
        iso_stack_poll();
        nanosleep(&ms, NULL);
    }
}

static int
client(const struct pair *p, int argc, char **argv)
{
    struct words w = { .n = 0 };
    int status;

    if (pin(p->cpus[1]) != 0)
        return fail("--cpus", errno);
    if (start_end(p, false) != 0)
        return 1;
    shake_hands();
    add(&w, "isobench");
    add(&w, argv[0]);
    add(&w, SERVER_TARGET);
    add(&w, "--spin");
    for (int i = 1; i < argc; i++)
        add(&w, argv[i]);
    status = isobench_main(w.n, w.v);
    iso_stack_stop();
    return status;
}

static bool
await_ready(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };
    char byte;

    return poll(&pfd, 1, READY_MS) == 1 && read(fd, &byte, 1) == 1;
}

static int
run_pair(struct pair *p, int argc, char **argv)
{
    int ready[2], status = 1;
    pid_t pid;

    if (pipe(ready) != 0)
        return fail("pipe", errno);
    pid = fork();
    if (pid < 0)
        return fail("fork", errno);
    if (pid == 0) {
        close(ready[0]);
        exit(serve(p, ready[1]));
    }
    close(ready[1]);
    if (await_ready(ready[0]))
        status = client(p, argc, argv);
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    return status;
}

static int
usage_error(const char *text)
{
    fprintf(stderr, "isobench-embedded: %s\n", text);
    return 2;
}

static int
pair_main(int argc, char **argv)
{
    struct pair p = { .cpus = { 0, 1 } };
    int i = 0, status;

    while (i + 1 < argc && strncmp(argv[i], "--", 2) == 0) {
        if (strcmp(argv[i], "--cpus") == 0) {
            if (sscanf(argv[i + 1], "%d,%d", &p.cpus[0], &p.cpus[1]) != 2)
                return usage_error("--cpus: two CPU numbers, as in 0,1");
        } else if (strcmp(argv[i], "--mtu") == 0) {
            p.mtu_bytes = (unsigned)strtoul(argv[i + 1], NULL, 10);
        } else {
            return usage_error("pair knows --cpus and --mtu before the role");
        }
        i += 2;
    }
    if (i == argc || strcmp(argv[i], "serve") == 0)
        return usage_error("pair needs a client's role");
    for (int k = i; k < argc; k++)
        p.zero_copy = p.zero_copy || strcmp(argv[k], "--zero-copy") == 0;
    snprintf(p.dir, sizeof(p.dir), "/tmp/isobench-XXXXXX");
    if (mkdtemp(p.dir) == NULL)
        return fail(p.dir, errno);
    snprintf(p.socket, sizeof(p.socket), "%s/wire", p.dir);
    status = run_pair(&p, argc - i, argv + i);
    unlink(p.socket);
    rmdir(p.dir);
    return status;
}

int
main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--stack") == 0) /* the file's place becomes the program's name */
        return run_one(argv[2], argc - 2, argv + 2);
    if (argc > 2 && strcmp(argv[1], "pair") == 0)
        return pair_main(argc - 2, argv + 2);
    fputs(usage, stdout);
    return isobench_main(argc, argv);
}
