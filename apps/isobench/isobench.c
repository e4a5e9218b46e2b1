/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * isobench: request/response, streams, short and idle connections over POSIX sockets and epoll. It knows of no stack: preloaded or not, what it measures is the sockets
 * that it is given.
 *
 * Exit status: 0; 1 no server, or connections failed; 2 wrong usage.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "run.h"
#include "transfer.h"

static struct run the_run;

static void
on_signal(int number)
{
    (void)number;
    the_run.stop = 1;
}

/* Thousands of connections need descriptors. */
static void
raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int
run_role(struct run *run, const struct options *o, FILE *out)
{
    int rc;

    run->o = o;
    run->tallies = calloc(o->threads, sizeof(*run->tallies));
    if (run->tallies == NULL) {
        fprintf(stderr, "isobench: out of memory\n");
        return 1;
    }
    raise_limit();
    rc = o->serve ? server_run(run) : client_run(run);
    if (rc == 0 && out != NULL)
        rc = report_print(run, out);
    for (uint32_t i = 0; i < o->threads; i++)
        free(run->tallies[i].latency);
    free(run->tallies);
    return rc == 0 ? 0 : 1;
}

int
run_program(struct run *run, int argc, char **argv, FILE *out)
{
    struct options o;
    char err[320];

    switch (options_parse(&o, argc, argv, err, sizeof(err))) {
    case OPTIONS_OK:
#ifndef TRANSFER_IN_PLACE
        if (o.zero_copy) {
            fprintf(stderr, "isobench: --zero-copy is isobench-embedded's\n");
            return 2;
        }
#endif
        return run_check_pins(&o) == 0 ? run_role(run, &o, out) : 2;
    case OPTIONS_HELP:
        fputs(options_usage, stdout);
        return 0;
    case OPTIONS_VERSION:
        printf("isobench %s\n", ISOSOCK_VERSION);
        return 0;
    default:
        fprintf(stderr, "isobench: %s\n", err);
        return 2;
    }
}

int
main(int argc, char **argv)
{
    const struct sigaction sa = { .sa_handler = on_signal };

    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    return run_program(&the_run, argc, argv, stdout);
}
