/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A server that answers every byte with its capital, and never copies one: it reads where the bytes arrived and writes where they will be sent from.
 *
 *   isosock      cc upper.c $(pkg-config --cflags --libs isosock)             ./upper ADDR PORT, the stack of a daemon
 *   embedded     cc -DEMBEDDED upper.c $(pkg-config --cflags --libs isosock-embedded)
 *                ./upper-embedded ADDR PORT STACK.conf                        stack and server on one thread
 *
 * Clients are served one after the other, by calls that wait.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <isosock.h>

#define PIECES 16

/** Capitals of n bytes; they may be more than lie together. Returns 0, or -1. */
static int
answer(int fd, const char *from, size_t n)
{
    while (n > 0) {
        void *at;
        ssize_t room = iso_send_reserve(fd, &at, n, MSG_NOSIGNAL);

        if (room < 0)
            return -1;
        for (ssize_t i = 0; i < room; i++)
            ((char *)at)[i] = (char)toupper((unsigned char)from[i]);
        if (iso_send_commit(fd, (size_t)room, MSG_NOSIGNAL) != 0)
            return -1;
        from += room;
        n -= (size_t)room;
    }
    return 0;
}

/** To the end of the client's stream. Returns 0, or -1 with errno. */
static int
serve(int fd)
{
    for (;;) {
        struct iovec piece[PIECES];
        int count = PIECES;
        ssize_t n = iso_recv_borrow(fd, piece, &count, 0);

        if (n <= 0)
            return (int)n;
        for (int i = 0; i < count; i++)
            if (answer(fd, piece[i].iov_base, piece[i].iov_len) != 0)
                return -1;
        if (iso_recv_return(fd, (size_t)n) != 0)
            return -1;
    }
}

int
main(int argc, char **argv)
{
    struct sockaddr_in sa = { .sin_family = AF_INET };
    int listener, fd;

#ifdef EMBEDDED
    if (argc == 4 && iso_stack_start_file(argv[3]) != 0)
        return 1;
    argc--;
#endif
    if (argc != 3 || inet_pton(AF_INET, argv[1], &sa.sin_addr) != 1) {
        fprintf(stderr, "usage: upper ADDR PORT%s\n",
#ifdef EMBEDDED
                " STACK.conf"
#else
                ""
#endif
        );
        return 2;
    }
    sa.sin_port = htons((uint16_t)atoi(argv[2]));
    listener = iso_socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || iso_bind(listener, (struct sockaddr *)&sa, sizeof(sa)) != 0 || iso_listen(listener, 8) != 0) {
        perror("upper");
        return 1;
    }
    while ((fd = iso_accept(listener, NULL, NULL)) >= 0) {
        if (serve(fd) != 0)
            perror("upper: a client");
        iso_close(fd);
    }
    perror("upper");
    return 1;
}
