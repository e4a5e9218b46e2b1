/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An echo server on one epoll set. One source, three ways to run it:
 *
 *   plain      cc echo.c                                     the kernel's sockets
 *   preloaded  isosock run -- ./echo ADDR PORT               the same binary on the stack of a daemon
 *   embedded   cc -DEMBEDDED -include isosock/posix.h echo.c $(pkg-config --cflags --libs isosock-embedded)
 *              ./echo-embedded ADDR PORT STACK.conf          stack and server on one thread
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4 */
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 64
#define BUFFER_BYTES 65536
#define WAIT_MS 200

/** Bytes that were read and could not be written yet wait here; meanwhile nothing more is read. */
struct conn {
    int fd;
    size_t off, len;
    char buf[BUFFER_BYTES];
};

static volatile sig_atomic_t stop;

static void
on_signal(int number)
{
    (void)number;
    stop = 1;
}

static void
conn_close(struct conn *c)
{
    close(c->fd);
    free(c);
}

/** Write what waits. Returns 1: all is written, 0: the socket is full, -1: it failed. */
static int
conn_flush(struct conn *c)
{
    while (c->len > 0) {
        ssize_t n = send(c->fd, c->buf + c->off, c->len, MSG_NOSIGNAL);

        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        c->off += (size_t)n;
        c->len -= (size_t)n;
    }
    return 1;
}

/** Echo until there is nothing to read or no room to write. Returns -1 at the connection's end. */
static int
conn_serve(int epfd, struct conn *c)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
    int rc = conn_flush(c);

    while (rc == 1) {
        ssize_t n = recv(c->fd, c->buf, sizeof(c->buf), 0);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n <= 0)
            return -1;
        c->off = 0;
        c->len = (size_t)n;
        rc = conn_flush(c);
    }
    if (rc < 0)
        return -1;
    if (rc == 0)
        ev.events = EPOLLOUT;
    return epoll_ctl(epfd, EPOLL_CTL_MOD, c->fd, &ev);
}

static void
accept_all(int epfd, int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = malloc(sizeof(*c));
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

        if (c == NULL) {
            close(fd);
            continue;
        }
        c->fd = fd;
        c->off = c->len = 0;
        if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) != 0)
            conn_close(c);
    }
}

static int
listener_open(const char *addr, const char *port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10)) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

    if (fd < 0 || inet_pton(AF_INET, addr, &sa.sin_addr) != 1)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(fd, SOMAXCONN) != 0)
        return -1;
    return fd;
}

static int
run(int listener)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL }, got[EVENTS];
    int epfd = epoll_create1(EPOLL_CLOEXEC);

    if (epfd < 0 || epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &ev) != 0)
        return -1;
    while (!stop) {
        int n = epoll_wait(epfd, got, EVENTS, WAIT_MS);

        for (int i = 0; i < n; i++) {
            struct conn *c = got[i].data.ptr;

            if (c == NULL)
                accept_all(epfd, listener);
            else if (conn_serve(epfd, c) != 0)
                conn_close(c);
        }
    }
    close(epfd);
    return 0;
}

int
main(int argc, char **argv)
{
    int listener, rc;

#ifdef EMBEDDED
    if (argc == 4 && iso_stack_start_file(argv[3]) != 0)
        return 1;
    argc -= argc == 4;
#endif
    if (argc != 3) {
        fprintf(stderr, "usage: %s ADDR PORT\n", argv[0]);
        return 2;
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    listener = listener_open(argv[1], argv[2]);
    rc = listener >= 0 ? run(listener) : -1;
    if (rc != 0)
        perror("echo");
    if (listener >= 0)
        close(listener);
    return rc == 0 ? 0 : 1;
}
