/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A server of blocking threads: each accepts from the one listener, and answers every line with its length until the client ends. One source, three
 * ways to run it, as echo.c; embedded, with a file that says `mode = connp-l` and an eal option with several lcores, each thread enters the
 * stack itself, at the same time as the others.
 *
 *   ./threads ADDR PORT THREADS
 *   ./threads-embedded ADDR PORT THREADS STACK.conf
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_setaffinity */
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define THREADS_MAX 64
#define LINE_BYTES 65536

static int listener;

/* Returns whether the client still listens. */
static int
answer(int fd, size_t n)
{
    char text[32];
    int len = snprintf(text, sizeof(text), "%zu\n", n);

    return send(fd, text, (size_t)len, MSG_NOSIGNAL) == len;
}

static void
serve(int fd)
{
    char buf[LINE_BYTES];
    size_t have = 0;

    for (;;) {
        ssize_t n = recv(fd, buf + have, sizeof(buf) - have, 0);
        char *line = buf, *end;

        if (n <= 0)
            return;
        have += (size_t)n;
        while ((end = memchr(line, '\n', have - (size_t)(line - buf))) != NULL) {
            if (!answer(fd, (size_t)(end - line)))
                return;
            line = end + 1;
        }
        have -= (size_t)(line - buf);
        memmove(buf, line, have);
        if (have == sizeof(buf))
            return; /* a line that is too long */
    }
}

/* The EAL pins the thread that starts it, and others inherit that: let them run anywhere. */
static void
unpin(void)
{
    cpu_set_t all;

    memset(&all, 0xff, sizeof(all));
    sched_setaffinity(0, sizeof(all), &all);
}

static void *
thread_main(void *arg)
{
    (void)arg;
    unpin();
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0 && errno != EINTR && errno != ECONNABORTED)
            return NULL;
        if (fd < 0)
            continue;
        serve(fd);
        close(fd);
    }
}

static int
fail(const char *what)
{
    fprintf(stderr, "threads: %s: %s\n", what, strerror(errno));
    return 1;
}

int
main(int argc, char **argv)
{
    struct sockaddr_in sa = { .sin_family = AF_INET };
    int nb_threads = argc > 3 ? atoi(argv[3]) : 0;
    pthread_t threads[THREADS_MAX];

    if (nb_threads < 1 || nb_threads > THREADS_MAX || inet_pton(AF_INET, argv[1], &sa.sin_addr) != 1) {
        fprintf(stderr, "usage: threads ADDR PORT THREADS [STACK.conf]\n");
        return 2;
    }
#ifdef EMBEDDED
    if (argc < 5 || iso_stack_start_file(argv[4]) != 0)
        return 1;
#endif
    sa.sin_port = htons((uint16_t)atoi(argv[2]));
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(listener, 128) != 0)
        return fail("listen");
    for (int i = 0; i < nb_threads; i++)
        if (pthread_create(&threads[i], NULL, thread_main, NULL) != 0)
            return fail("thread");
    for (int i = 0; i < nb_threads; i++)
        pthread_join(threads[i], NULL);
    return fail("accept");
}
