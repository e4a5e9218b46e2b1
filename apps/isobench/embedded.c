/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * isobench with the stack inside: --stack FILE starts one from a configuration; pair starts two, a client's on the main thread and a server's on another one, on two CPUs,
 * joined by shared memory (net_memif), whose every frame is copied by the sender and by the receiver.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <rte_common.h>

#include "counters.h"
#include "embedded.h"
#include "run.h"
#include "wire.h"

/* The mapping of isobench's main and of thread creation to functions ends here. */
#undef main
#undef pthread_create

#define CLIENT_ADDRESS "10.77.0.1/24"
#define SERVER_ADDRESS "10.77.0.2/24"
#define SERVER_TARGET "10.77.0.2:7000"
#define HANDSHAKE_MS 200
#define WORDS_MAX 96
#define STACK_WORDS_MAX 64 /* of a pair's command line */

static const char usage[] =
    "usage: isobench-embedded --stack FILE ROLE ADDR:PORT [OPTION...]\n"
    "       isobench-embedded pair [--cpus SERVER,CLIENT] [STACK-OPTION...] rr|tx|rx|crr|idle [OPTION...]\n"
    "\n"
    "The first runs isobench over a stack of its own, made from a configuration file of isosockd (its option eal holds "
    "EAL\n"
    "options). The second runs server and client, each with a stack and a thread, on two CPUs (0,1) joined by "
    "net_memif;\n"
    "stack options, such as --mtu 9000 or --sndbuf-max 64k, are isosockd's, and both stacks'. Roles and options are "
    "isobench's:\n\n";

/** An argument vector: static where it is made, since the EAL may keep what it was given. */
struct words {
    char *v[WORDS_MAX + 1]; /**< ends with NULL */
    int n;
};

static void
add(struct words *w, const char *word)
{
    if (w->n < WORDS_MAX) {
        w->v[w->n++] = strdup(word);
        w->v[w->n] = NULL;
    }
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

/* ---- threads -------------------------------------------------------------------------------------------------------------- */

struct birth {
    void *(*fn)(void *arg);
    void *arg;
    int stack;
};

static void *
begin_thread(void *arg)
{
    struct birth b = *(struct birth *)arg;

    free(arg);
    iso_stack_use(b.stack);
    return b.fn(b.arg);
}

int
embedded_thread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *arg), void *arg)
{
    struct birth *b = malloc(sizeof(*b));
    int rc;

    if (b == NULL)
        return EAGAIN;
    *b = (struct birth){ .fn = fn, .arg = arg, .stack = iso_stack_use(0) };
    iso_stack_use(b->stack);
    rc = pthread_create(thread, attr, begin_thread, b);
    if (rc != 0)
        free(b);
    return rc;
}

/* ---- two ------------------------------------------------------------------------------------------------------------------ */

struct pair {
    int cpus[2]; /**< server, client */
    unsigned mtu_bytes; /**< which the wire must know too; 0 = the stack's default */
    char **options; /**< [nb_options]: for both stacks */
    int nb_options;
    bool zero_copy; /**< of both ends */
    char dir[64]; /**< holds the wire's socket */
    char socket[96];
    struct run server; /**< the client's is isobench's own */
    pthread_barrier_t started; /**< the server's stack, or it failed */
    bool failed;
};

/* The EAL's words, with both ends of the wire: port 0 is the client's. */
static void
add_eal(struct words *w, const struct pair *p)
{
    char text[WIRE_WORD_BYTES];

    snprintf(text, sizeof(text), "%d", p->cpus[1]);
    add(w, "-l");
    add(w, text);
    add(w, "--no-pci");
    add(w, "--no-huge");
    add(w, "-m");
    add(w, "1024");
    for (unsigned end = 0; end < 2; end++) {
        wire_word(text, sizeof(text), end, p->dir, p->mtu_bytes);
        add(w, text);
    }
    add(w, "--");
}

/* The stack's own options; those of the command line stand last, and prevail. */
static void
add_own(struct words *w, const struct pair *p, bool is_server)
{
    add(w, "--port");
    add(w, is_server ? "1" : "0");
    add(w, "--address");
    add(w, is_server ? SERVER_ADDRESS : CLIENT_ADDRESS);
    add(w, "--idle");
    add(w, "poll");
    add(w, "--own-descriptors");
    /* Address space: a chunk for each of many connections. */
    add(w, "--app-memory");
    add(w, "4095M");
    add(w, "--port-min");
    add(w, "1024");
    add(w, "--port-max");
    add(w, "65535");
    for (int i = 0; i < p->nb_options; i++)
        add(w, p->options[i]);
}

static int
pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set);
}

/* The server's thread. Its results would stand between the client's: they go nowhere. */
static void *
serve(void *arg)
{
    static struct words own, w;
    struct pair *p = arg;
    int stack;

    add(&own, "isobench-embedded");
    add_own(&own, p, true);
    stack = pin(p->cpus[0]) == 0 ? iso_stack_add(own.n, own.v) : -1;
    p->failed = stack < 0;
    pthread_barrier_wait(&p->started);
    if (stack < 0)
        return NULL;
    add(&w, "isobench");
    add(&w, "serve");
    add(&w, SERVER_TARGET);
    add(&w, "--spin");
    if (p->zero_copy)
        add(&w, "--zero-copy");
    run_program(&p->server, w.n, w.v, NULL);
    iso_stack_stop();
    return NULL;
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
client(int argc, char **argv)
{
    static struct words w;

    shake_hands();
    add(&w, "isobench");
    add(&w, argv[0]);
    add(&w, SERVER_TARGET);
    add(&w, "--spin");
    for (int i = 1; i < argc; i++)
        add(&w, argv[i]);
    return isobench_main(w.n, w.v);
}

static int
run_pair(struct pair *p, int argc, char **argv)
{
    static struct words w;
    pthread_t server;
    int rc, status = 1;

    add(&w, "isobench-embedded");
    add_eal(&w, p);
    add_own(&w, p, false);
    if (pin(p->cpus[1]) != 0)
        return fail("--cpus", errno);
    if (iso_stack_start(w.n, w.v) != 0)
        return errno == EINVAL ? 2 : 1;
    pthread_barrier_init(&p->started, NULL, 2);
    rc = pthread_create(&server, NULL, serve, p);
    if (rc != 0)
        return fail("the server's thread", rc);
    pthread_barrier_wait(&p->started);
    if (!p->failed)
        status = client(argc, argv);
    p->server.stop = 1;
    while (pthread_tryjoin_np(server, NULL) == EBUSY)
        iso_stack_poll(); /* the server's FINs are to be acknowledged, or it waits for that; a wire that is closed loses what is on its way */
    iso_stack_stop();
    return status;
}

static int
usage_error(const char *text)
{
    fprintf(stderr, "isobench-embedded: %s\n", text);
    return 2;
}

static bool
is_role(const char *word)
{
    static const char *const roles[] = { "rr", "tx", "rx", "crr", "idle" };

    for (size_t i = 0; i < RTE_DIM(roles); i++)
        if (strcmp(word, roles[i]) == 0)
            return true;
    return false;
}

/* All words before the role. Returns their number, or -1 after a line that says what is wrong. */
static int
parse_pair(struct pair *p, int argc, char **argv)
{
    int i = 0;

    if (argc > 1 && strcmp(argv[0], "--cpus") == 0) {
        if (sscanf(argv[1], "%d,%d", &p->cpus[0], &p->cpus[1]) != 2)
            return usage_error("--cpus: two CPU numbers, as in 0,1"), -1;
        i = 2;
    }
    p->options = &argv[i];
    for (; i < argc && !is_role(argv[i]); i++, p->nb_options++)
        if (i > 0 && strcmp(argv[i - 1], "--mtu") == 0)
            p->mtu_bytes = (unsigned)strtoul(argv[i], NULL, 10);
    if (i == argc)
        return usage_error("pair needs a client's role"), -1;
    if (p->nb_options > STACK_WORDS_MAX)
        return usage_error("pair: too many options before the role"), -1;
    return i;
}

static int
pair_main(int argc, char **argv)
{
    struct pair p = { .cpus = { 0, 1 } };
    int role = parse_pair(&p, argc, argv), status;

    if (role < 0)
        return 2;
    for (int k = role; k < argc; k++)
        p.zero_copy = p.zero_copy || strcmp(argv[k], "--zero-copy") == 0;
    snprintf(p.dir, sizeof(p.dir), "/tmp/isobench-XXXXXX");
    if (mkdtemp(p.dir) == NULL)
        return fail(p.dir, errno);
    snprintf(p.socket, sizeof(p.socket), "%s/wire", p.dir);
    status = run_pair(&p, argc - role, argv + role);
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
