/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "isosock.h"

/*
 * Two stacks in one process, joined by net_memif: the first one is the main thread's, 10.9.0.1 on port 0, the second 10.9.0.2 on port 1. Arguments: the mode of
 * each, and "own" for descriptors that the kernel knows nothing of. Time is real and every wait has a limit.
 */
#define PATIENCE_MS 5000
#define WORDS_MAX 24
#define TRIES 10000000u

static const char *mode[2] = { "up", "up" };
static bool own;
static char folder[] = "/tmp/test-several-XXXXXX";
static int second; /* its number */
static uint16_t port = 7000; /* the next listener's: the last one's connections may be in TIME-WAIT */

static struct sockaddr_in
address(unsigned host, uint16_t number)
{
    return (struct sockaddr_in){ .sin_family = AF_INET,
                                 .sin_port = htons(number),
                                 .sin_addr.s_addr = htonl(0x0a090000 + host) };
}

/* Split a command line in place. Returns how many words. */
static int
split(char *line, char **words)
{
    int n = 0;

    while (line != NULL && n < WORDS_MAX)
        words[n++] = strsep(&line, " ");
    words[n] = NULL;
    return n;
}

static int
add_stack(const char *options)
{
    char line[256], *words[WORDS_MAX + 1];

    snprintf(line, sizeof(line), "test %s", options);
    return iso_stack_add(split(line, words), words);
}

static bool
becomes(int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };

    return iso_poll(&p, 1, PATIENCE_MS) == 1 && (p.revents & events) != 0;
}

static int
listener_open(unsigned host, uint16_t number)
{
    struct sockaddr_in sa = address(host, number);
    int fd = iso_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    assert_int_equal(iso_bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_listen(fd, 16), 0);
    return fd;
}

static int
connect_begin(unsigned host, uint16_t number)
{
    struct sockaddr_in sa = address(host, number);
    int fd = iso_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    assert_true(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 || errno == EINPROGRESS);
    return fd;
}

/* ---- a thread with the second stack ----------------------------------------------------------------------------------------- */

static struct {
    pthread_t thread;
    int listening; /* atomic */
    int stop; /* atomic */
    int accepted; /* atomic: the descriptor */
} echo;

static void *
echo_main(void *arg)
{
    char buf[4096];
    int listener, fd = -1;

    (void)arg;
    if (iso_stack_use(second) != 0)
        return &second; /* anything but NULL */
    listener = listener_open(2, port);
    __atomic_store_n(&echo.listening, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&echo.stop, __ATOMIC_ACQUIRE)) {
        struct pollfd p = { .fd = fd < 0 ? listener : fd, .events = POLLIN };
        ssize_t n;

        if (iso_poll(&p, 1, 1) != 1)
            continue;
        if (fd < 0) {
            fd = iso_accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            __atomic_store_n(&echo.accepted, fd, __ATOMIC_RELEASE);
            continue;
        }
        n = iso_recv(fd, buf, sizeof(buf), 0);
        if (n <= 0 || iso_send(fd, buf, (size_t)n, MSG_NOSIGNAL) != n)
            break;
    }
    iso_close(fd);
    iso_close(listener);
    return NULL;
}

static void
echo_start(void)
{
    memset(&echo, 0, sizeof(echo));
    port++;
    assert_int_equal(pthread_create(&echo.thread, NULL, echo_main, NULL), 0);
    while (!__atomic_load_n(&echo.listening, __ATOMIC_ACQUIRE))
        iso_stack_poll();
}

static void
echo_stop(void)
{
    void *failed = NULL;

    __atomic_store_n(&echo.stop, 1, __ATOMIC_RELEASE);
    pthread_join(echo.thread, &failed);
    assert_null(failed);
}

static void
exchange(int fd, unsigned rounds)
{
    char out[3000], in[sizeof(out)];

    for (unsigned i = 0; i < rounds; i++) {
        size_t n = 1 + (i * 997) % sizeof(out), taken = 0;

        memset(out, (int)('a' + i % 26), n);
        assert_int_equal(iso_send(fd, out, n, 0), n);
        while (taken < n) {
            ssize_t rc;

            assert_true(becomes(fd, POLLIN));
            rc = iso_recv(fd, in + taken, n - taken, 0);
            assert_true(rc > 0);
            taken += (size_t)rc;
        }
        assert_memory_equal(in, out, n);
    }
}

/* Passes of both stacks, as a thread that uses the first one before and after. */
static void
pass_both(void)
{
    iso_stack_poll();
    iso_stack_use(second);
    iso_stack_poll();
    iso_stack_use(0);
}

/* ---- tests ------------------------------------------------------------------------------------------------------------------- */

static void
test_refusals(void **state)
{
    (void)state;
    assert_int_equal(add_stack("--port 1 --address 10.9.0.2/24 --mode isostack"), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(add_stack("-l 0 -- --port 1 --address 10.9.0.2/24"), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(add_stack("--port 1 --no-such-option"), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(add_stack("--port 7 --address 10.9.0.2/24"), -1);
    assert_int_equal(errno, ENODEV);
    assert_int_equal(iso_stack_use(1), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(iso_stack_use(-1), -1);
    assert_int_equal(iso_stack_use(0), 0);
    assert_true(iso_stack_poll() >= 0);
}

static void
test_add(void **state)
{
    char options[160];

    (void)state;
    snprintf(options, sizeof(options), "--port 1 --address 10.9.0.2/24 --rx-buffers 4096 --mode %s%s", mode[1],
             own ? " --own-descriptors" : "");
    second = add_stack(options);
    assert_int_equal(second, 1);
    assert_int_equal(iso_stack_use(0), 1);
}

static uint64_t
counter(const char *name)
{
    static char text[65536];
    FILE *out = fmemopen(text, sizeof(text), "w");
    const char *line;

    assert_int_equal(iso_stack_counters(out, false), 0);
    fclose(out);
    line = strstr(text, name);
    return line != NULL ? strtoull(line + strlen(name), NULL, 10) : 0;
}

static void
test_two_threads_talk(void **state)
{
    uint64_t of_first = counter("tcp.tx_segs"), of_second;
    int fd;

    (void)state;
    echo_start();
    fd = connect_begin(2, port);
    assert_true(becomes(fd, POLLOUT));
    exchange(fd, 200);
    assert_true(counter("tcp.tx_segs") > of_first + 200);
    assert_int_equal(iso_stack_use(second), 0);
    of_second = counter("tcp.tx_segs");
    assert_int_equal(iso_stack_use(0), second);
    assert_true(of_second > 200 && of_second < counter("tcp.tx_segs") + counter("tcp.rx_segs"));
    iso_close(fd);
    echo_stop();
}

/* A thread does not see the other stack's descriptors, but can close them. */
static void
test_stacks_are_apart(void **state)
{
    struct epoll_event ev = { .events = EPOLLIN };
    char byte = 'x';
    int fd, theirs, epfd = iso_epoll_create1(0);

    (void)state;
    echo_start();
    fd = connect_begin(2, port);
    assert_true(becomes(fd, POLLOUT));
    exchange(fd, 1);
    theirs = __atomic_load_n(&echo.accepted, __ATOMIC_ACQUIRE);
    assert_true(theirs >= 0 && theirs != fd);
    assert_int_equal(iso_send(theirs, &byte, 1, MSG_NOSIGNAL), -1);
    assert_int_equal(errno, own ? EBADF : EPIPE);
    assert_int_equal(iso_recv(theirs, &byte, 1, 0), -1);
    assert_int_equal(errno, own ? EBADF : ENOTCONN);
    assert_int_equal(iso_dup(theirs) >= 0, !own);
    if (own)
        assert_int_equal(iso_epoll_ctl(epfd, EPOLL_CTL_ADD, theirs, &ev), -1);
    exchange(fd, 1); /* it is as it was */
    echo_stop();
    for (unsigned i = 0; i < TRIES && iso_recv(fd, &byte, 1, 0) != 0; i++)
        pass_both(); /* no thread is the second stack's any more */
    assert_int_equal(iso_recv(fd, &byte, 1, 0), 0);
    assert_int_equal(iso_stack_use(second), 0);
    assert_int_equal(iso_close(fd), 0); /* as a thread of the second stack */
    assert_int_equal(iso_close(fd), -1);
    assert_int_equal(iso_stack_use(0), second);
    iso_close(epfd);
}

/* One thread plays both ends. */
static void
test_one_thread_uses_both(void **state)
{
    int listener, client, server = -1;
    char buf[16];

    (void)state;
    iso_stack_use(second);
    listener = listener_open(2, ++port);
    iso_stack_use(0);
    client = connect_begin(2, port);
    for (unsigned i = 0; i < TRIES && server < 0; i++) {
        pass_both();
        iso_stack_use(second);
        server = iso_accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        iso_stack_use(0);
    }
    assert_true(server >= 0);
    for (unsigned round = 0; round < 5; round++) {
        ssize_t n = -1;

        assert_int_equal(iso_send(client, "to the second", 13, 0), 13);
        for (unsigned i = 0; i < TRIES && n < 0; i++) {
            pass_both();
            assert_int_equal(iso_recv(client, buf, sizeof(buf), 0), -1);
            iso_stack_use(second);
            n = iso_recv(server, buf, sizeof(buf), 0);
            iso_stack_use(0);
        }
        assert_int_equal(n, 13);
    }
    iso_close(server); /* the second stack's */
    iso_close(listener);
    iso_close(client);
}

static void
test_a_child_has_none(void **state)
{
    int status = -1;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) {
        bool first_gone = iso_stack_poll() < 0;

        _exit(first_gone && iso_stack_use(second) == 0 && iso_stack_poll() < 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_true(iso_stack_poll() >= 0);
}

/* Last: the end of one leaves the other. */
static void
test_stop(void **state)
{
    int fd;

    (void)state;
    iso_stack_use(second);
    assert_int_equal(iso_stack_stop(), 0);
    assert_int_equal(iso_stack_poll(), -1);
    iso_stack_use(0);
    assert_true(iso_stack_poll() >= 0);
    fd = listener_open(1, ++port);
    assert_int_equal(iso_close(fd), 0);
    assert_int_equal(iso_stack_stop(), 0);
    assert_int_equal(add_stack("--port 1 --address 10.9.0.2/24"), -1);
    assert_int_equal(errno, ENOTCONN);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_two_threads_talk),
        cmocka_unit_test(test_stacks_are_apart),
        cmocka_unit_test(test_one_thread_uses_both),
        cmocka_unit_test(test_a_child_has_none),
        cmocka_unit_test(test_stop),
    };
    char line[512], *words[WORDS_MAX + 1];
    int n, failed;

    own = argc > 3;
    for (int i = 0; i < 2 && i + 1 < argc; i++)
        mode[i] = argv[i + 1];
    if (add_stack("--port 1") != -1 || errno != ENOTCONN) {
        fprintf(stderr, "a further stack before the first\n");
        return 1;
    }
    if (mkdtemp(folder) == NULL)
        return 1;
    /* Two spellings of one name: the driver keeps the two ends of a wire apart by it. */
    snprintf(line, sizeof(line),
             "test --no-huge --no-pci -m 256 --lcores (0-2)@0 "
             "--vdev=net_memif0,role=server,socket-abstract=no,socket=%s/wire "
             "--vdev=net_memif1,role=client,socket-abstract=no,socket=%s/./wire -- --address 10.9.0.1/24 --rx-buffers "
             "4096 --mode %s%s",
             folder, folder, mode[0], own ? " --own-descriptors" : "");
    n = split(line, words);
    if (iso_stack_start(n, words) != 0)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(line, sizeof(line), "%s/wire", folder);
    unlink(line);
    rmdir(folder);
    return failed;
}
