/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "isosock.h"

/*
 * The stack inside the program, over a net_ring port that nobody else is on: client and server are sockets of the one stack, and what they send comes
 * back to it by local delivery. The argument is the mode. Time is real and every wait has a limit.
 */
#define PATIENCE_MS 5000
#define BULK_BYTES (3u << 20)
#define CONNS 40
/* Well below the deadline at which connections that did not drain are reset. */
#define DRAIN_MS 1500

static uint16_t next_port = 7000;

static struct sockaddr_in
address(uint16_t port)
{
    return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(0x0a090001) };
}

static int
listener_open(uint16_t port, int flags)
{
    struct sockaddr_in sa = address(port);
    int fd = iso_socket(AF_INET, SOCK_STREAM | flags, 0);

    assert_true(fd >= 0);
    assert_int_equal(iso_bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_listen(fd, 128), 0);
    return fd;
}

static int
connect_to(uint16_t port, int flags)
{
    struct sockaddr_in sa = address(port);
    int fd = iso_socket(AF_INET, SOCK_STREAM | flags, 0);
    int rc;

    assert_true(fd >= 0);
    rc = iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa));
    if (flags & SOCK_NONBLOCK)
        assert_true(rc == 0 || errno == EINPROGRESS);
    else
        assert_int_equal(rc, 0);
    return fd;
}

static void
await(int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };

    assert_int_equal(iso_poll(&p, 1, PATIENCE_MS), 1);
    assert_true(p.revents & events);
}

/* Both ends of a connection, blocking: the accepting side needs no thread of its own, since connect runs the stack. */
static void
make_pair(int fds[2])
{
    uint16_t port = __atomic_fetch_add(&next_port, 1, __ATOMIC_RELAXED);
    int listener = listener_open(port, 0);

    fds[0] = connect_to(port, 0);
    fds[1] = iso_accept(listener, NULL, NULL);
    assert_true(fds[1] >= 0);
    iso_close(listener);
}

static uint64_t
now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void
test_blocking_calls(void **state)
{
    char buf[8] = "";
    int fds[2];

    (void)state;
    make_pair(fds);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(iso_send(fds[0], "ping", 4, 0), 4);
        assert_int_equal(iso_recv(fds[1], buf, sizeof(buf), 0), 4);
        assert_memory_equal(buf, "ping", 4);
        assert_int_equal(iso_write(fds[1], "pong!", 5), 5);
        assert_int_equal(iso_read(fds[0], buf, sizeof(buf)), 5);
        assert_memory_equal(buf, "pong!", 5);
    }
    assert_int_equal(iso_close(fds[0]), 0);
    assert_int_equal(iso_recv(fds[1], buf, sizeof(buf), 0), 0);
    iso_close(fds[1]);
}

/* close() has given the port back when it returns, to whichever thread binds next. */
static void *
bind_and_close(void *arg)
{
    struct sockaddr_in sa = address(7777);
    int fd = iso_socket(AF_INET, SOCK_STREAM, 0);

    (void)arg;
    assert_int_equal(iso_bind(fd, (const struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_listen(fd, 1), 0);
    assert_int_equal(iso_close(fd), 0);
    return NULL;
}

static void
test_closed_listeners_leave_their_port(void **state)
{
    pthread_t thread;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        bind_and_close(NULL);
        assert_int_equal(pthread_create(&thread, NULL, bind_and_close, NULL), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
}

static void
test_timeouts_end_waits(void **state)
{
    struct timeval tv = { .tv_usec = 20000 };
    struct epoll_event ev = { .events = EPOLLIN };
    struct pollfd p = { .events = POLLIN };
    int fds[2], epfd = iso_epoll_create1(EPOLL_CLOEXEC);
    uint64_t start_ms;
    char byte;

    (void)state;
    make_pair(fds);
    assert_int_equal(iso_setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
    start_ms = now_ms();
    assert_int_equal(iso_recv(fds[0], &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
    assert_in_range(now_ms() - start_ms, 19, PATIENCE_MS);
    p.fd = fds[0];
    start_ms = now_ms();
    assert_int_equal(iso_poll(&p, 1, 20), 0);
    assert_in_range(now_ms() - start_ms, 19, PATIENCE_MS);
    assert_int_equal(iso_poll(&p, 1, 0), 0);
    assert_int_equal(iso_epoll_ctl(epfd, EPOLL_CTL_ADD, fds[0], &ev), 0);
    start_ms = now_ms();
    assert_int_equal(iso_epoll_wait(epfd, &ev, 1, 20), 0);
    assert_in_range(now_ms() - start_ms, 19, PATIENCE_MS);
    assert_int_equal(iso_epoll_wait(epfd, &ev, 1, 0), 0);
    iso_close(epfd);
    iso_close(fds[0]);
    iso_close(fds[1]);
}

static char
byte_at(size_t i)
{
    return (char)(i * 31 + i / 251);
}

/* Fill the socket; returns bytes in all. */
static size_t
push(int fd, size_t from)
{
    char buf[10000];

    while (from < BULK_BYTES) {
        size_t n = BULK_BYTES - from < sizeof(buf) ? BULK_BYTES - from : sizeof(buf);
        ssize_t sent;

        for (size_t i = 0; i < n; i++)
            buf[i] = byte_at(from + i);
        sent = iso_send(fd, buf, n, MSG_NOSIGNAL);
        if (sent < 0) {
            assert_int_equal(errno, EAGAIN);
            break;
        }
        from += (size_t)sent;
    }
    return from;
}

static size_t
pull(int fd, size_t from)
{
    char buf[7777];
    ssize_t n;

    while ((n = iso_recv(fd, buf, sizeof(buf), 0)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] != byte_at(from + (size_t)i))
                fail_msg("byte %zu is wrong", from + (size_t)i);
        from += (size_t)n;
    }
    return from;
}

/* One thread, nothing but calls that do not wait, and one wait for both ends. */
static void
test_bulk_over_epoll(void **state)
{
    uint16_t port = next_port++;
    int listener = listener_open(port, SOCK_NONBLOCK), epfd = iso_epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = { .events = EPOLLIN, .data.fd = listener };
    int client = connect_to(port, SOCK_NONBLOCK), server = -1;
    size_t sent = 0, taken = 0;
    uint64_t limit_ms = now_ms() + 4 * PATIENCE_MS;

    (void)state;
    assert_int_equal(iso_epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &ev), 0);
    ev = (struct epoll_event){ .events = EPOLLOUT | EPOLLET, .data.fd = client };
    assert_int_equal(iso_epoll_ctl(epfd, EPOLL_CTL_ADD, client, &ev), 0);
    while (taken < BULK_BYTES && now_ms() < limit_ms) {
        struct epoll_event got[4];
        int n = iso_epoll_wait(epfd, got, 4, PATIENCE_MS);

        assert_true(n > 0);
        for (int i = 0; i < n; i++) {
            if (got[i].data.fd == listener) {
                server = iso_accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                assert_true(server >= 0);
                ev = (struct epoll_event){ .events = EPOLLIN, .data.fd = server };
                assert_int_equal(iso_epoll_ctl(epfd, EPOLL_CTL_ADD, server, &ev), 0);
            } else if (got[i].data.fd == client) {
                sent = push(client, sent);
            } else {
                taken = pull(server, taken);
            }
        }
    }
    assert_int_equal(taken, BULK_BYTES);
    iso_close(client);
    iso_close(server);
    iso_close(listener);
    iso_close(epfd);
}

static void
test_program_that_only_tries(void **state)
{
    uint64_t limit_ms = now_ms() + PATIENCE_MS;
    char byte = 0;
    int fds[2];
    ssize_t n;

    (void)state;
    make_pair(fds);
    assert_int_equal(iso_send(fds[0], "x", 1, MSG_DONTWAIT), 1);
    do
        n = iso_recv(fds[1], &byte, 1, MSG_DONTWAIT);
    while (n < 0 && errno == EAGAIN && now_ms() < limit_ms);
    assert_int_equal(n, 1);
    assert_int_equal(byte, 'x');
    iso_close(fds[0]);
    iso_close(fds[1]);
}

/* Kernel descriptors and stack sockets in one wait. */
static void
test_mixed_waits(void **state)
{
    int fds[2], ends[2], n = 0, epfd = iso_epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = { .events = EPOLLIN }, got[2];
    struct pollfd p[2] = { { .events = POLLIN }, { .events = POLLIN } };

    (void)state;
    make_pair(fds);
    assert_int_equal(pipe(ends), 0);
    ev.data.fd = ends[0];
    assert_int_equal(iso_epoll_ctl(epfd, EPOLL_CTL_ADD, ends[0], &ev), 0);
    ev.data.fd = fds[0];
    assert_int_equal(iso_epoll_ctl(epfd, EPOLL_CTL_ADD, fds[0], &ev), 0);
    p[0].fd = ends[0];
    p[1].fd = fds[0];
    assert_int_equal(iso_epoll_wait(epfd, got, 2, 5), 0);
    assert_int_equal(iso_write(ends[1], "k", 1), 1);
    assert_int_equal(iso_epoll_wait(epfd, got, 2, PATIENCE_MS), 1);
    assert_int_equal(got[0].data.fd, ends[0]);
    assert_int_equal(iso_poll(p, 2, PATIENCE_MS), 1);
    assert_int_equal(p[0].revents, POLLIN);
    assert_int_equal(iso_send(fds[1], "s", 1, 0), 1);
    await(fds[0], POLLIN);
    assert_int_equal(iso_poll(p, 2, 0), 2);
    /* While sockets are ready the kernel's members are looked at now and then. */
    for (int i = 0; i < 64 && n < 2; i++)
        n = iso_epoll_wait(epfd, got, 2, 0);
    assert_int_equal(n, 2);
    iso_close(epfd);
    iso_close(fds[0]);
    iso_close(fds[1]);
    close(ends[0]);
    close(ends[1]);
}

static void
test_many_connections(void **state)
{
    uint16_t port = next_port++;
    int listener = listener_open(port, SOCK_NONBLOCK), client[CONNS], server[CONNS];

    (void)state;
    for (int i = 0; i < CONNS; i++)
        client[i] = connect_to(port, SOCK_NONBLOCK);
    for (int i = 0; i < CONNS; i++) {
        await(listener, POLLIN);
        server[i] = iso_accept4(listener, NULL, NULL, 0);
        assert_true(server[i] >= 0);
    }
    for (int i = 0; i < CONNS; i++) {
        await(client[i], POLLOUT);
        assert_int_equal(iso_send(client[i], "abc", 3, 0), 3);
    }
    for (int i = 0; i < CONNS; i++) {
        char buf[4];

        await(server[i], POLLIN);
        assert_int_equal(iso_recv(server[i], buf, sizeof(buf), 0), 3);
        iso_close(server[i]);
        iso_close(client[i]);
    }
    iso_close(listener);
}

/* ---- two threads ---------------------------------------------------------------------------------------------------------- */

/* Echoes one byte at a time by calls that sleep. */
static void *
echo_main(void *arg)
{
    int fd = *(int *)arg;
    char byte;

    while (iso_recv(fd, &byte, 1, 0) == 1)
        if (iso_send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
            break;
    return NULL;
}

static void
test_sleeping_thread_is_woken(void **state)
{
    const struct timespec nap = { .tv_nsec = 3000000 };
    struct timeval tv = { .tv_sec = PATIENCE_MS / 1000 };
    pthread_t thread;
    int fds[2];

    (void)state;
    make_pair(fds);
    assert_int_equal(iso_setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
    assert_int_equal(pthread_create(&thread, NULL, echo_main, &fds[1]), 0);
    for (char i = 0; i < 20; i++) {
        char byte = 0;

        nanosleep(&nap, NULL); /* the other thread sleeps in its recv */
        assert_int_equal(iso_send(fds[0], &i, 1, 0), 1);
        if (i % 2 == 0)
            nanosleep(&nap, NULL); /* and runs the stack alone */
        assert_int_equal(iso_recv(fds[0], &byte, 1, 0), 1);
        assert_int_equal(byte, i);
    }
    iso_shutdown(fds[0], SHUT_WR);
    pthread_join(thread, NULL);
    iso_close(fds[0]);
    iso_close(fds[1]);
}

/* Each thread has both ends of a connection, and none waits for another: their passes meet in the stack. Returns what went wrong. */
static const char *
exchange(void)
{
    char out[3000], in[sizeof(out)];
    int fds[2];

    make_pair(fds);
    for (unsigned round = 0; round < 200; round++) {
        size_t n = 1 + (round * 997) % sizeof(out), taken = 0;

        for (size_t i = 0; i < n; i++)
            out[i] = byte_at(round + i);
        if (iso_send(fds[round & 1], out, n, 0) != (ssize_t)n)
            return "send";
        while (taken < n) {
            ssize_t rc = iso_recv(fds[~round & 1], in + taken, n - taken, 0);

            if (rc <= 0)
                return "recv";
            taken += (size_t)rc;
        }
        if (memcmp(in, out, n) != 0)
            return "bytes";
    }
    iso_close(fds[0]);
    return iso_recv(fds[1], in, 1, 0) == 0 && iso_close(fds[1]) == 0 ? NULL : "close";
}

static void *
exchange_main(void *result)
{
    cpu_set_t all;

    /* Not only on the EAL's CPU, which threads inherit. */
    memset(&all, 0xff, sizeof(all));
    sched_setaffinity(0, sizeof(all), &all);
    *(const char **)result = exchange();
    return NULL;
}

static void
test_threads_meet_in_the_stack(void **state)
{
    const char *failed[5];
    pthread_t threads[5];

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, exchange_main, &failed[i]), 0);
    for (unsigned i = 0; i < 5; i++) {
        pthread_join(threads[i], NULL);
        if (failed[i] != NULL)
            fail_msg("thread %u: %s", i, failed[i]);
    }
}

/* A child has its parent's descriptors but no stack. */
static void
test_fork(void **state)
{
    struct pollfd p = { .events = POLLIN };
    int fds[2], status = -1;
    void *reserved;
    char byte;
    pid_t pid;

    (void)state;
    make_pair(fds);
    assert_int_equal(iso_send(fds[0], "b", 1, 0), 1);
    p.fd = fds[1];
    assert_int_equal(iso_send_reserve(fds[0], &reserved, 1, 0), 1);
    assert_int_equal(iso_poll(&p, 1, PATIENCE_MS), 1);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        bool failed = iso_send(fds[0], "c", 1, MSG_NOSIGNAL) < 0;

        failed = iso_send_commit(fds[0], 1, MSG_NOSIGNAL) < 0 && failed;
        iso_shutdown(fds[0], SHUT_RDWR);
        iso_recv(fds[1], &byte, 1, 0);
        iso_shutdown(fds[1], SHUT_RDWR);
        iso_close(fds[0]);
        _exit(failed && iso_stack_poll() < 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    /* Whatever it did stayed with it. */
    memcpy(reserved, "p", 1);
    assert_int_equal(iso_send_commit(fds[0], 1, 0), 0);
    assert_int_equal(iso_recv(fds[1], &byte, 1, 0), 1);
    assert_int_equal(byte, 'b');
    assert_int_equal(iso_recv(fds[1], &byte, 1, 0), 1);
    assert_int_equal(byte, 'p');
    iso_close(fds[0]);
    iso_close(fds[1]);
}

struct chat {
    int fds[2];
    bool over; /* atomic */
};

static void *
chat_main(void *arg)
{
    struct chat *c = arg;
    char byte = 'x';

    while (!__atomic_load_n(&c->over, __ATOMIC_RELAXED))
        if (iso_send(c->fds[0], &byte, 1, 0) != 1 || iso_recv(c->fds[1], &byte, 1, 0) != 1)
            return c;
    return NULL;
}

struct looks {
    int epfd;
    unsigned missed;
};

#define LOOKS 200000

static void *
looks_main(void *arg)
{
    struct looks *l = arg;
    struct epoll_event ev;
    cpu_set_t all;

    memset(&all, 0xff, sizeof(all));
    pthread_setaffinity_np(pthread_self(), sizeof(all), &all);
    for (unsigned i = 0; i < LOOKS; i++)
        l->missed += iso_epoll_wait(l->epfd, &ev, 1, 0) != 1;
    return NULL;
}

/* What is there to be read is found by every look, whoever else looks just then. */
static void
test_looks_at_one_set(void **state)
{
    struct epoll_event ev = { .events = EPOLLIN };
    struct looks looks[2];
    pthread_t threads[2];
    int fds[2], epfd = iso_epoll_create1(EPOLL_CLOEXEC);

    (void)state;
    make_pair(fds);
    assert_int_equal(iso_epoll_ctl(epfd, EPOLL_CTL_ADD, fds[1], &ev), 0);
    assert_int_equal(iso_send(fds[0], "x", 1, 0), 1);
    await(fds[1], POLLIN);
    assert_int_equal(iso_epoll_wait(epfd, &ev, 1, PATIENCE_MS), 1);
    for (unsigned i = 0; i < 2; i++) {
        looks[i] = (struct looks){ .epfd = epfd };
        assert_int_equal(pthread_create(&threads[i], NULL, looks_main, &looks[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(looks[0].missed + looks[1].missed, 0);
    iso_close(epfd);
    iso_close(fds[0]);
    iso_close(fds[1]);
}

/* A child that is born while a thread of its parent's is amid a call waits for nobody. */
static void
test_fork_amid_calls(void **state)
{
    struct chat c = { .over = false };
    pthread_t thread;
    void *failed;
    char byte;

    (void)state;
    make_pair(c.fds);
    assert_int_equal(pthread_create(&thread, NULL, chat_main, &c), 0);
    for (unsigned i = 0; i < 40; i++) {
        int status = -1;
        pid_t pid = fork();

        if (pid == 0) {
            alarm(PATIENCE_MS / 1000);
            iso_send(c.fds[0], "c", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
            iso_recv(c.fds[1], &byte, 1, MSG_DONTWAIT);
            _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    __atomic_store_n(&c.over, true, __ATOMIC_RELAXED);
    pthread_join(thread, &failed);
    assert_null(failed);
    iso_close(c.fds[0]);
    iso_close(c.fds[1]);
}

/* Last: the stack has one life. */
/* A pair as before; one end listened on the wildcard address. */
static void
make_wildcard_pair(int fds[2])
{
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(6999) };
    int listener = iso_socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(iso_bind(listener, (struct sockaddr *)&any, sizeof(any)), 0);
    assert_int_equal(iso_bind(listener, (struct sockaddr *)&any, sizeof(any)), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(iso_listen(listener, 8), 0);
    fds[0] = connect_to(6999, 0);
    fds[1] = iso_accept(listener, NULL, NULL);
    assert_int_equal(iso_close(listener), 0);
    assert_int_equal(iso_close(listener), -1);
    assert_int_equal(errno, EBADF);
}

static void
test_own_descriptors(void **state)
{
    int fds[2], copy, high;
    char byte = 'x';

    (void)state;
    make_wildcard_pair(fds);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(fcntl(fds[i], F_GETFD), -1); /* the kernel knows nothing of it */
        assert_int_equal(iso_fcntl(fds[i], F_GETFD), FD_CLOEXEC);
        assert_int_equal(iso_fcntl(fds[i], F_SETFD, 0), 0);
        assert_int_equal(iso_fcntl(fds[i], F_GETFL), O_RDWR);
    }
    copy = iso_dup(fds[0]);
    high = iso_fcntl(fds[0], F_DUPFD, copy + 1);
    assert_true(high > copy && fcntl(high, F_GETFD) >= 0);
    assert_int_equal(iso_dup2(fds[0], fds[0]), fds[0]);
    assert_int_equal(iso_dup2(copy, fds[1]), -1); /* a number that the kernel cannot give */
    assert_int_equal(errno, EBADF);
    assert_int_equal(iso_close(fds[0]), 0);
    assert_int_equal(iso_close(copy), 0);
    assert_int_equal(iso_write(high, &byte, 1), 1); /* the last name that it has */
    assert_int_equal(iso_read(fds[1], &byte, 1), 1);
    assert_int_equal(iso_close(high), 0);
    assert_int_equal(iso_read(fds[1], &byte, 1), 0);
    assert_int_equal(iso_close_range((unsigned)fds[1], (unsigned)fds[1], 0), 0);
    assert_int_equal(iso_fcntl(fds[1], F_GETFD), -1);
    assert_int_equal(errno, EBADF);
}

/* More than the kernel would give to this process. */
static void
test_beyond_the_limit(void **state)
{
    struct sockaddr_in loopback = { .sin_family = AF_INET,
                                    .sin_port = htons(9),
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct rlimit usual, few;
    int fds[200];

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
    few = (struct rlimit){ .rlim_cur = 100, .rlim_max = usual.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    for (unsigned i = 0; i < 200; i++) {
        fds[i] = iso_socket(AF_INET, SOCK_STREAM, 0);
        assert_true(fds[i] >= 0);
    }
    assert_int_equal(iso_connect(fds[0], (struct sockaddr *)&loopback, sizeof(loopback)), -1);
    assert_int_equal(errno, ENETUNREACH); /* the kernel's own business */
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(iso_close(fds[i]), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
}

/* However it is asked for, and behind the bytes; the other direction goes on. */
static void
test_the_end_of_the_stream(void **state)
{
    int fds[2];
    char buf[8];

    (void)state;
    make_pair(fds);
    assert_int_equal(iso_send(fds[0], "bytes", 5, 0), 5);
    assert_int_equal(iso_shutdown(fds[0], SHUT_WR), 0);
    await(fds[1], POLLRDHUP);
    assert_int_equal(iso_recv(fds[1], buf, 3, 0), 3);
    assert_int_equal(iso_recv(fds[1], buf, 0, 0), 0);
    assert_int_equal(iso_recv(fds[1], buf, sizeof(buf), 0), 2);
    assert_int_equal(iso_recv(fds[1], buf, sizeof(buf), 0), 0);
    assert_int_equal(iso_recv(fds[1], buf, sizeof(buf), MSG_DONTWAIT), 0);
    assert_int_equal(iso_recv(fds[1], buf, sizeof(buf), MSG_PEEK), 0);
    assert_int_equal(iso_read(fds[1], buf, sizeof(buf)), 0);
    assert_int_equal(iso_send(fds[1], "back", 4, 0), 4);
    assert_int_equal(iso_recv(fds[0], buf, sizeof(buf), 0), 4);
    assert_int_equal(iso_recv(fds[0], buf, sizeof(buf), MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    iso_close(fds[0]);
    iso_close(fds[1]);
}

/* A set in a set shows its events by a descriptor, which somebody always sleeps on, for all that the thread alone knows. */
static void
test_set_within_a_set(void **state)
{
    int fds[2], outer = iso_epoll_create1(EPOLL_CLOEXEC), inner = iso_epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = { .events = EPOLLIN };
    char byte;

    (void)state;
    make_pair(fds);
    assert_int_equal(iso_epoll_ctl(inner, EPOLL_CTL_ADD, fds[1], &ev), 0);
    assert_int_equal(iso_epoll_ctl(outer, EPOLL_CTL_ADD, inner, &ev), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(iso_epoll_wait(outer, &ev, 1, 0), 0);
        assert_int_equal(iso_send(fds[0], "x", 1, 0), 1);
        assert_int_equal(iso_epoll_wait(outer, &ev, 1, PATIENCE_MS), 1);
        assert_int_equal(iso_epoll_wait(inner, &ev, 1, 0), 1);
        assert_int_equal(iso_recv(fds[1], &byte, 1, 0), 1);
        assert_int_equal(iso_epoll_wait(inner, &ev, 1, 0), 0);
    }
    iso_close(outer);
    iso_close(inner);
    iso_close(fds[0]);
    iso_close(fds[1]);
}

/* What had arrived may be read, in pieces too, after the stack has gone. */
static void
test_reading_after_the_end(void **state)
{
    int fds[2];
    char byte = 0;

    (void)state;
    make_pair(fds);
    assert_int_equal(iso_send(fds[0], "last", 4, 0), 4);
    await(fds[1], POLLIN);
    assert_int_equal(iso_stack_stop(), 0);
    for (const char *c = "last"; *c != 0; c++) {
        assert_int_equal(iso_recv(fds[1], &byte, 1, 0), 1);
        assert_int_equal(byte, *c);
    }
    assert_true(iso_recv(fds[1], &byte, 1, 0) <= 0);
    assert_int_equal(iso_send(fds[0], "x", 1, MSG_NOSIGNAL), -1);
    iso_close(fds[0]);
    iso_close(fds[1]);
}

static void
test_stop(void **state)
{
    char again[] = "again", *argv[] = { again, NULL };
    uint64_t start_ms;
    static char text[65536];
    char buf[8];
    FILE *out = fmemopen(text, sizeof(text), "w");
    int fds[2];

    (void)state;
    make_pair(fds);
    assert_int_equal(iso_send(fds[0], "last", 4, 0), 4);
    assert_true(iso_stack_poll() >= 0);
    assert_int_equal(iso_stack_counters(out, false), 0);
    fclose(out);
    assert_non_null(strstr(text, "worker.polls"));
    assert_non_null(strstr(text, "worker.busy_cycles"));
    assert_non_null(strstr(text, "worker.idle_cycles"));
    assert_int_equal(iso_stack_start(1, argv), -1);
    assert_int_equal(errno, EALREADY);
    start_ms = now_ms();
    assert_int_equal(iso_stack_stop(), 0);
    assert_true(now_ms() - start_ms < DRAIN_MS);
    assert_int_equal(iso_stack_stop(), -1);
    assert_int_equal(errno, ENOTCONN);
    assert_int_equal(iso_stack_poll(), -1);
    assert_int_equal(iso_stack_counters(stdout, true), -1);
    assert_int_equal(iso_send(fds[0], "x", 1, MSG_NOSIGNAL), -1);
    assert_true(iso_recv(fds[1], buf, sizeof(buf), 0) <= 4);
    iso_close(fds[0]);
    iso_close(fds[1]);
}

int
main(int argc, char **argv)
{
    const bool own = argc > 2 && strcmp(argv[2], "own") == 0, alone = argc > 2 && !own;
    const struct CMUnitTest of_own[] = {
        cmocka_unit_test(test_own_descriptors),
        cmocka_unit_test(test_beyond_the_limit),
    };
    const struct CMUnitTest of_one_thread[] = {
        cmocka_unit_test(test_blocking_calls),
        cmocka_unit_test(test_the_end_of_the_stream),
        cmocka_unit_test(test_set_within_a_set),
        cmocka_unit_test(test_reading_after_the_end),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocking_calls),
        cmocka_unit_test(test_the_end_of_the_stream),
        cmocka_unit_test(test_set_within_a_set),
        cmocka_unit_test(test_closed_listeners_leave_their_port),
        cmocka_unit_test(test_timeouts_end_waits),
        cmocka_unit_test(test_bulk_over_epoll),
        cmocka_unit_test(test_program_that_only_tries),
        cmocka_unit_test(test_mixed_waits),
        cmocka_unit_test(test_many_connections),
        cmocka_unit_test(test_sleeping_thread_is_woken),
        cmocka_unit_test(test_threads_meet_in_the_stack),
        cmocka_unit_test(test_looks_at_one_set),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_fork_amid_calls),
        cmocka_unit_test(test_stop),
    };
    char line[256], *words[20], *rest = line;
    int n = 0;

    /* Several lcores on whatever CPUs there are. */
    snprintf(line, sizeof(line),
             "test --no-huge --no-pci -m 192 --lcores (0-2)@0 --vdev=net_ring0 -- --address 10.9.0.1/24 --rx-buffers "
             "4096 --mode %s%s",
             argc > 1 ? argv[1] : "up", own ? " --own-descriptors" : "");
    while (rest != NULL)
        words[n++] = strsep(&rest, " ");
    words[n] = NULL;
    if (iso_stack_start(n, words) != 0)
        return 1;
    if (own && cmocka_run_group_tests(of_own, NULL, NULL) != 0)
        return 1;
    return alone ? cmocka_run_group_tests(of_one_thread, NULL, NULL) : cmocka_run_group_tests(tests, NULL, NULL);
}
