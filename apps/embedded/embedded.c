/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
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

/**
 * @file
 * Start and end of the stack inside the program, and the program's attachment to it.
 */

#define ERROR_BYTES 512
#define DRAIN_MAX_US 4000000u

struct embedded em;

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
create_app(struct arena **arena)
{
    const struct arena_config ac = {
        .max_socks = em.config.max_sockets,
        .tx_chunks = (uint32_t)(em.config.app_memory_bytes / SHM_CHUNK_BYTES),
        .nb_rings = 1,
        .nb_instances = host_nb_nets(em.host),
        .pool_bytes = em.daemon.pool.bytes,
        .stack_bytes = sizeof(struct shm_stack_page),
    };
    int rc = arena_create(arena, &ac);

    if (rc != 0)
        return rc;
    arena_close_fds(*arena);
    em.app = app_create(em.host, *arena, true);
    if (em.app == NULL) {
        arena_release(*arena);
        return -ENOMEM;
    }
    return app_member_join(em.app, 0, getpid());
}

static int
map_page(const void **page)
{
    int fd = host_page_readonly_fd(em.host), rc = 0;
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
attach(void)
{
    struct embedded_entry entry = { .local = NULL };
    struct arena *arena;
    const void *page;
    int member, rc = map_page(&page);

    if (rc != 0)
        return rc;
    member = create_app(&arena);
    if (member < 0)
        return member;
    rc = em.ops->calling_thread ? caller_start(&entry) : workers_start(&entry);
    if (rc != 0)
        return rc;
    if (em.config.own_descriptors && !fdtable_own())
        return -ENOMEM;
    front_adopt(&arena->layout, arena->front, arena->back, em.daemon.pool.base, page);
    front_adopt_home(entry.home, entry.local, entry.doorbell, (uint16_t)member);
    return 0;
}

/* Not in a forked child, whose front-end has let go. */
static bool
runs_here(void)
{
    return em.runs && front_home != NULL;
}

static void
stop_at_exit(void)
{
    if (runs_here())
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
note_driver_signals(const sigset_t *before)
{
    handled_signals(&em.driver_signals);
    for (int number = 1; number < NSIG; number++)
        if (sigismember(before, number) == 1)
            sigdelset(&em.driver_signals, number);
}

/* The EAL runs: the rest. */
static int
start_stack(const sigset_t *handled, char *err, size_t err_len)
{
    struct daemon *d = &em.daemon;
    int rc = daemon_start_stack(d, &em.config, &em.options, err, err_len);

    if (rc != 0)
        return rc;
    em.ops = d->ops;
    em.mode = d->mode;
    em.host = em.ops->host(em.mode);
    note_driver_signals(handled);
    rc = attach();
    if (rc != 0)
        snprintf(err, err_len, "cannot attach to the stack: %s", strerror(-rc));
    return rc;
}

/* Workers of their own need lcores of their own: the main one is the program's. */
static int
count_workers(char *err, size_t err_len)
{
    unsigned n = rte_lcore_count();

    if (!em.config.mode_ops->calling_thread && --n == 0) {
        snprintf(err, err_len,
                 "--mode '%s' runs on lcores of its own beside the program's: give the EAL two at least, as by -l 0-1",
                 em.config.mode);
        return -EINVAL;
    }
    em.daemon.nb_workers = n;
    return 0;
}

static int
start_eal(int nb_eal, char **argv, char *err, size_t err_len)
{
    int argc;
    char **args = config_eal_args(&em.config, nb_eal, argv, &argc);

    if (args == NULL) {
        snprintf(err, err_len, "out of memory");
        return -ENOMEM;
    }
    em.eal_args = args;
    return eal_start(argc, args, err, err_len);
}

/* own: where in argv the stack's own options begin. */
static int
start(int argc, char **argv, int own)
{
    char err[ERROR_BYTES] = "";
    sigset_t handled;
    int rc = config_load(&em.config, &em.options, argc - own, argv + own, err, sizeof(err));

    if (rc != 0)
        return fail(rc, err);
    if (options_source(&em.options, "mode") == OPTION_FROM_DEFAULT)
        rc = options_set(&em.options, "mode", "up", OPTION_FROM_FILE, err, sizeof(err));
    if (rc == 0)
        rc = options_set(&em.options, "control", "-", OPTION_FROM_FILE, err, sizeof(err));
    if (rc == 0)
        rc = config_check(&em.config, err, sizeof(err));
    if (rc == 0) {
        em.was_started = true;
        handled_signals(&handled);
        rc = start_eal(own > 0 ? own - 1 : 0, argv, err, sizeof(err));
    }
    if (rc >= 0)
        rc = count_workers(err, sizeof(err));
    if (rc == 0)
        rc = start_stack(&handled, err, sizeof(err));
    if (rc < 0)
        return fail(rc, err);
    em.runs = true;
    atexit(stop_at_exit);
    return 0;
}

int
iso_stack_start(int argc, char *const argv[])
{
    char **copy;
    int own = 0;

    if (em.was_started) {
        errno = EALREADY;
        return -1;
    }
    /* Option parsers may permute, and the EAL keeps what it is given. */
    copy = calloc((size_t)argc + 1, sizeof(*copy));
    if (copy == NULL)
        return -1;
    for (int i = 0; i < argc; i++) {
        copy[i] = strdup(argv[i]);
        if (copy[i] == NULL)
            return -1;
        if (own == 0 && i > 0 && strcmp(argv[i], "--") == 0)
            own = i;
    }
    em.argv = copy;
    return start(argc, copy, own);
}

int
iso_stack_start_file(const char *path)
{
    char name[] = "isosock", option[] = "--config", *file = strdup(path);
    char *const argv[] = { name, option, file, NULL };
    int rc = file != NULL ? iso_stack_start(3, argv) : -1;

    free(file);
    return rc;
}

int
iso_stack_poll(void)
{
    if (!runs_here()) {
        errno = ENOTCONN;
        return -1;
    }
    return em.ops->calling_thread ? (int)caller_pass() : 0;
}

int
iso_stack_counters(FILE *out, int json)
{
    if (!runs_here()) {
        errno = ENOTCONN;
        return -1;
    }
    report_stats(out, json != 0);
    return 0;
}

/*
 * What front-end objects still refer to stays mapped until the process ends; the port goes now. A program that closes its sockets late then finds
 * a stack that is dead, as after the end of a daemon.
 */
int
iso_stack_stop(void)
{
    if (!runs_here() || (em.ops->calling_thread && !caller_stop(clock_now_us() + DRAIN_MAX_US))) {
        errno = ENOTCONN;
        return -1;
    }
    em.runs = false;
    if (!em.ops->calling_thread)
        workers_stop();
    __atomic_store_n(&front.dead, 1, __ATOMIC_SEQ_CST);
    front_local = NULL;
    front_home = NULL;
    host_calls_end(em.host);
    port_stop(&em.daemon.port);
    eal_stop();
    return 0;
}
