/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_lcore.h>

#include "core/clock.h"
#include "core/eal.h"
#include "sockets/report.h"
#include "sockets/shm.h"

#include "embedded.h"
#include "fdtable.h"
#include "isosock.h"
#include "sole.h"

/**
 * @file
 * Start and end of the stack inside the program, and the program's attachment to it.
 */

#define ERROR_BYTES 512
#define DRAIN_MAX_US 4000000u

/* ---- event queues ------------------------------------------------------------------------------------------------------- */

/* A pipe as across processes: an epoll set that stands in another one shows itself by it. */
int
eventq_open(void (*add)(struct eventq_call *call), uint32_t *queue, int *fd)
{
    struct eventq_call call;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return -errno;
    call.fd = front_hide_fd(ends[1]);
    add(&call);
    if (call.result < 0) {
        eventq_close_fd(call.fd);
        close(ends[0]);
        return call.result;
    }
    *queue = (uint32_t)call.result;
    *fd = front_hide_fd(ends[0]);
    return 0;
}

void
eventq_close_fd(int fd)
{
    if (fd < 0)
        return;
    fd_set_internal(fd, false);
    close(fd);
}

/* ---- start and stop ----------------------------------------------------------------------------------------------------- */

static int
fail(int rc, const char *text)
{
    fprintf(stderr, "isosock: %s\n", text);
    errno = -rc;
    return -1;
}

/* The application of one member that the program is. */
static int
create_app(struct embedded *e, struct arena **arena)
{
    const struct arena_config ac = {
        .max_socks = e->config.max_sockets,
        .tx_chunks = (uint32_t)(e->config.app_memory_bytes / SHM_CHUNK_BYTES),
        .nb_rings = e->ops->calling_thread ? 0 : 1,
        .nb_instances = host_nb_nets(e->host),
        .pool_bytes = e->daemon.pool.bytes,
        .stack_bytes = sizeof(struct shm_stack_page),
    };
    int rc = arena_create(arena, &ac);

    if (rc != 0)
        return rc;
    e->app = app_create(e->host, *arena, true);
    if (e->app == NULL) {
        arena_release(*arena);
        return -ENOMEM;
    }
    return app_member_join(e->app, 0, getpid());
}

static int
map_page(const struct embedded *e, const void **page)
{
    int fd = host_page_readonly_fd(e->host), rc = 0;
    void *p;

    if (fd < 0)
        return fd;
    p = mmap(NULL, sizeof(struct shm_stack_page), PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        rc = -errno;
    close(fd);
    *page = p;
    return rc;
}

/* The program attaches to its own stack, which no thread runs yet. */
static int
attach(struct embedded *e)
{
    struct embedded_entry entry = { .local = NULL };
    struct arena *arena;
    const void *page;
    int member, rc = map_page(e, &page);

    if (rc != 0)
        return rc;
    member = create_app(e, &arena);
    if (member < 0)
        return member;
    rc = e->ops->calling_thread ? caller_start(e, &entry) : workers_start(e, &entry);
    if (rc != 0)
        return rc;
    if (e->config.own_descriptors && !fdtable_own())
        return -ENOMEM;
    front_adopt(&arena->layout, arena->front, arena->back, e->daemon.pool.base, page);
    front_adopt_home(entry.home, entry.local, entry.doorbell, (uint16_t)member, arena->front_fd);
    arena->front_fd = -1;
    arena_close_fds(arena);
    return 0;
}

/* The stack that the calling thread uses, if it runs; not in a forked child, whose front-end has let go. Else NULL with ENOTCONN. */
static struct embedded *
running(void)
{
    struct embedded *e = embedded_now();

    if (e != NULL && e->runs && front->home != NULL)
        return e;
    errno = ENOTCONN;
    return NULL;
}

static void
stop_at_exit(void)
{
    for (int i = FRONT_MAX - 1; i >= 0; i--)
        if (iso_stack_use(i) >= 0 && running() != NULL)
            iso_stack_stop();
}

/* Signals that somebody handles. */
static void
handled_signals(sigset_t *set)
{
    sigemptyset(set);
    for (int number = 1; number < NSIG; number++) {
        struct sigaction sa;

        if (sigaction(number, NULL, &sa) == 0 && sa.sa_handler != SIG_DFL && sa.sa_handler != SIG_IGN)
            sigaddset(set, number);
    }
}

/* Those that have a handler since then are drivers'. */
static void
note_driver_signals(struct embedded *e, const sigset_t *before)
{
    handled_signals(&e->driver_signals);
    for (int number = 1; number < NSIG; number++)
        if (sigismember(before, number) == 1)
            sigdelset(&e->driver_signals, number);
}

/* The EAL runs: the rest. */
static int
start_stack(struct embedded *e, const sigset_t *handled, char *err, size_t err_len)
{
    struct daemon *d = &e->daemon;
    int rc = daemon_start_stack(d, &e->config, &e->options, err, err_len);

    if (rc != 0)
        return rc;
    e->ops = d->ops;
    e->mode = d->mode;
    e->host = e->ops->host(e->mode);
    note_driver_signals(e, handled);
    rc = attach(e);
    if (rc != 0)
        snprintf(err, err_len, "cannot attach to the stack: %s", strerror(-rc));
    return rc;
}

/* Workers of their own need lcores of their own: the main one is the program's, the first stack's workers have the rest. */
static int
count_workers(struct embedded *e, char *err, size_t err_len)
{
    unsigned n = rte_lcore_count();

    if (!e->config.mode_ops->calling_thread && e->daemon.number > 0) {
        snprintf(
            err, err_len,
            "--mode '%s' runs on lcores of its own, which only a program's first stack has; allowed: up, msgp, connp-l",
            e->config.mode);
        return -EINVAL;
    }
    if (!e->config.mode_ops->calling_thread && --n == 0) {
        snprintf(err, err_len,
                 "--mode '%s' runs on lcores of its own beside the program's: give the EAL two at least, as by -l 0-1",
                 e->config.mode);
        return -EINVAL;
    }
    e->daemon.nb_workers = n;
    return 0;
}

static int
start_eal(struct embedded *e, int nb_eal, char *err, size_t err_len)
{
    int argc;
    char **args;

    if (e->daemon.number > 0) {
        if (nb_eal == 0 && (e->config.eal == NULL || e->config.eal[0] == '\0'))
            return 0;
        snprintf(err, err_len, "EAL options are the first stack's: the EAL runs already");
        return -EINVAL;
    }
    args = config_eal_args(&e->config, nb_eal, e->argv, &argc);
    if (args == NULL) {
        snprintf(err, err_len, "out of memory");
        return -ENOMEM;
    }
    e->eal_args = args;
    return eal_start(argc, args, err, err_len);
}

/* What the options say. own: where in argv the stack's own begin. */
static int
configure(struct embedded *e, int argc, int own, char *err, size_t err_len)
{
    int rc = config_load(&e->config, &e->options, argc - own, e->argv + own, err, err_len);

    if (rc != 0)
        return rc;
    if (options_source(&e->options, "mode") == OPTION_FROM_DEFAULT)
        rc = options_set(&e->options, "mode", "up", OPTION_FROM_FILE, err, err_len);
    if (rc == 0)
        rc = options_set(&e->options, "control", "-", OPTION_FROM_FILE, err, err_len);
    return rc == 0 ? config_check(&e->config, err, err_len) : rc;
}

/* The first stack's EAL was asked to start: there is no second attempt. */
static bool was_started;

/* On the calling thread's front, which has no stack yet. nb_eal: words for the EAL before the stack's own. */
static int
launch(struct embedded *e, int nb_eal)
{
    char err[ERROR_BYTES] = "";
    sigset_t handled;
    int rc;

    was_started = true;
    handled_signals(&handled);
    rc = start_eal(e, nb_eal, err, sizeof(err));
    if (rc >= 0)
        rc = count_workers(e, err, sizeof(err));
    if (rc == 0)
        rc = start_stack(e, &handled, err, sizeof(err));
    if (rc < 0)
        return fail(rc, err);
    e->runs = true;
    return 0;
}

static int
start(struct embedded *e, int argc, int own)
{
    char err[ERROR_BYTES] = "";
    int rc = configure(e, argc, own, err, sizeof(err));

    return rc == 0 ? launch(e, own > 0 ? own - 1 : 0) : fail(rc, err);
}

/* One that could not be started. */
static void
embedded_destroy(struct embedded *e)
{
    if (e == NULL)
        return;
    daemon_stop(&e->daemon);
    options_fini(&e->options);
    for (char **word = e->argv; word != NULL && *word != NULL; word++)
        free(*word);
    free(e->argv);
    free(e);
}

/* A stack to be, with a copy of argv: option parsers may permute, and the EAL keeps what it is given. *own: where the stack's own options begin. */
static struct embedded *
embedded_create(int argc, char *const argv[], int *own)
{
    struct embedded *e = calloc(1, sizeof(*e));

    *own = 0;
    if (e == NULL)
        return NULL;
    e->argv = calloc((size_t)argc + 1, sizeof(*e->argv));
    for (int i = 0; i < argc && e->argv != NULL; i++) {
        e->argv[i] = strdup(argv[i]);
        if (e->argv[i] == NULL)
            break;
        if (*own == 0 && i > 0 && strcmp(argv[i], "--") == 0)
            *own = i;
    }
    if (e->argv == NULL || (argc > 0 && e->argv[argc - 1] == NULL)) {
        embedded_destroy(e);
        return NULL;
    }
    e->daemon.number = front->number;
    front->owner = e;
    return e;
}

int
iso_stack_start(int argc, char *const argv[])
{
    struct embedded *e;
    int own;

    if (was_started)
        return fail(-EALREADY, "there is or was a stack in this process already");
    e = embedded_create(argc, argv, &own);
    if (e == NULL || start(e, argc, own) != 0)
        return -1;
    atexit(stop_at_exit);
    return 0;
}

struct embedded *
embedded_plan(const char *path)
{
    char err[ERROR_BYTES] = "", name[] = "isosock", option[] = "--config", *file = strdup(path);
    char *const argv[] = { name, option, file, NULL };
    int own, rc;
    struct embedded *e = file != NULL ? embedded_create(3, argv, &own) : NULL;

    free(file);
    rc = e != NULL ? configure(e, 3, own, err, sizeof(err)) : -ENOMEM;
    if (rc == 0)
        return e;
    fail(rc, err);
    embedded_destroy(e);
    return NULL;
}

int
embedded_start(struct embedded *e)
{
    front->owner = e;
    if (launch(e, 0) != 0)
        return -errno;
    atexit(stop_at_exit);
    return 0;
}

/* The same, with a configuration file. */
static int
with_file(int (*begin)(int argc, char *const argv[]), const char *path)
{
    char name[] = "isosock", option[] = "--config", *file = strdup(path);
    char *const argv[] = { name, option, file, NULL };
    int rc = file != NULL ? begin(3, argv) : -1;

    free(file);
    return rc;
}

int
iso_stack_start_file(const char *path)
{
    return with_file(iso_stack_start, path);
}

int
iso_stack_add(int argc, char *const argv[])
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    struct front *f, *was = front;
    struct embedded *e;
    int own, error, rc = -1;

    if (front_of[0]->owner == NULL || !((struct embedded *)front_of[0]->owner)->runs) {
        errno = ENOTCONN;
        return -1;
    }
    f = front_create();
    if (f == NULL)
        return -1;
    front_use(f);
    pthread_mutex_lock(&one_at_a_time);
    e = embedded_create(argc, argv, &own);
    if (e != NULL)
        rc = start(e, argc, own);
    pthread_mutex_unlock(&one_at_a_time);
    if (rc == 0)
        return f->number;
    error = errno;
    front_use(was);
    embedded_destroy(e);
    front_discard(f);
    errno = error;
    return -1;
}

int
iso_stack_add_file(const char *path)
{
    return with_file(iso_stack_add, path);
}

int
iso_stack_use(int stack)
{
    struct front *f = stack >= 0 && stack < (int)FRONT_MAX ? __atomic_load_n(&front_of[stack], __ATOMIC_ACQUIRE) : NULL;
    int was = front->number;

    if (f == NULL || (stack > 0 && f->state != FRONT_ATTACHED)) {
        errno = EINVAL;
        return -1;
    }
    front_use(f);
    return was;
}

int
iso_stack_poll(void)
{
    const struct embedded *e = running();

    if (e == NULL)
        return -1;
    return e->ops->calling_thread ? (int)caller_pass() : 0;
}

int
iso_stack_counters(FILE *out, int json)
{
    const struct embedded *e = running();

    if (e == NULL)
        return -1;
    report_stats(e->host, out, json != 0);
    return 0;
}

/* The EAL's devices go with the last stack. */
static void
close_port(struct embedded *e)
{
    bool others = false;

    for (uint32_t i = 0; i < FRONT_MAX; i++) {
        const struct front *f = __atomic_load_n(&front_of[i], __ATOMIC_ACQUIRE);
        const struct embedded *other = f != NULL ? f->owner : NULL;

        others |= other != NULL && other->runs;
    }
    port_stop(&e->daemon.port);
    if (!others)
        eal_stop();
}

/*
 * What front-end objects still refer to stays mapped until the process ends; the port goes now. A program that closes its sockets late then finds
 * a stack that is dead, as after the end of a daemon.
 */
int
iso_stack_stop(void)
{
    struct embedded *e = running();

    if (e == NULL)
        return -1;
    if (e->ops->calling_thread && !caller_stop(e, clock_now_us() + DRAIN_MAX_US)) {
        errno = ENOTCONN;
        return -1;
    }
    e->runs = false;
    if (!e->ops->calling_thread)
        workers_stop(e);
    sole_end_here();
    __atomic_store_n(&front->dead, 1, __ATOMIC_SEQ_CST);
    front->local = NULL;
    front->home = NULL;
    host_calls_end(e->host);
    close_port(e);
    return 0;
}
