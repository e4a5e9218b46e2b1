/* SPDX-License-Identifier: BSD-3-Clause */
/* Sockets of a stack that this process is to run itself, before and when it starts. The tests go on from each other's state: a process starts one stack. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fdtable.h"
#include "front.h"
#include "isosock.h"
#include "sock.h"
#include "test_front_stack.h"

static struct {
    int starts;
    int result; /* of the next ones; 0: the stack starts */
} played;

static int
prepare(struct shm_stack_page *page)
{
    page->addr[2] = htonl(0xffff);
    page->addr[3] = inet_addr(FS_ADDRESS);
    page->nb_routes = 1;
    page->routes[0] = (struct shm_route){ { 0, 0, htonl(0xffff), inet_addr("10.9.9.0") }, 120 };
    return 0;
}

static int
start(void)
{
    played.starts++;
    if (played.result == 0)
        fs_start();
    return played.result;
}

static const struct front_plan plan = { .prepare = prepare, .start = start };

static int
group_setup(void **state)
{
    (void)state;
    front_plan = &plan;
    return 0;
}

static int
bound(const char *ip, uint16_t port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };
    int fd = iso_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    sa.sin_addr.s_addr = inet_addr(ip);
    assert_int_equal(iso_bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

static int
listener(const char *ip, uint16_t port)
{
    int fd = bound(ip, port);

    assert_int_equal(iso_listen(fd, 5), 0);
    return fd;
}

static uint16_t
port_of(int fd)
{
    struct sockaddr_in sa = { .sin_port = 0 };
    socklen_t len = sizeof(sa);

    assert_int_equal(iso_getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    assert_int_equal(len, sizeof(sa));
    return ntohs(sa.sin_port);
}

static void
test_bind_and_listen_start_nothing(void **state)
{
    struct sockaddr_in sa = { .sin_family = AF_INET };
    int fd = listener(FS_ADDRESS, 80), local = listener("127.0.0.1", 0), any = listener("0.0.0.0", 0);
    struct pollfd p[2] = { { .fd = local, .events = POLLIN } };

    (void)state;
    assert_int_equal(port_of(fd), 80);
    assert_int_equal(iso_bind(fd, (struct sockaddr *)&sa, sizeof(sa)), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_not_equal(port_of(any), 0);
    assert_int_equal(iso_poll(p, 1, 0), 0);
    assert_int_equal(played.starts, 0);
    iso_close(any);
    iso_close(local);
    iso_close(fd);
}

/* The child's promises are its own: it may wait and start the stack, and the parent has none by that. */
static void
test_a_child_inherits_them(void **state)
{
    int fd = listener(FS_ADDRESS, 80), status;
    struct pollfd p = { .fd = fd, .events = POLLIN };
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        played.result = -ENODEV;
        _exit(iso_poll(&p, 1, 0) == -1 && errno == ENETDOWN && played.starts == 1 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(played.starts, 0);
    iso_close(fd);
}

static void
test_a_signal_while_another_process_has_it(void **state)
{
    int fd = listener(FS_ADDRESS, 80), epfd = iso_epoll_create1(0);
    struct epoll_event ev = { .events = EPOLLIN };
    struct pollfd p = { .fd = fd, .events = POLLIN };

    (void)state;
    played.result = -EINTR;
    assert_int_equal(iso_epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev), -1);
    assert_int_equal(errno, EINTR);
    assert_int_equal(iso_accept(fd, NULL, NULL), -1);
    assert_int_equal(errno, EINTR);
    assert_int_equal(iso_poll(&p, 1, 0), -1);
    assert_int_equal(errno, EINTR);
    assert_int_equal(played.starts, 3);
    played.result = played.starts = 0;
    iso_close(epfd);
    iso_close(fd);
}

static void
test_the_first_look_starts_it(void **state)
{
    int gone = listener(FS_ADDRESS, 79), fd = listener(FS_ADDRESS, 80), unused = bound(FS_ADDRESS, 81);
    int any = listener("0.0.0.0", 0), copy = iso_dup(fd), epfd = iso_epoll_create1(0);
    struct epoll_event ev = { .events = EPOLLIN, .data.u32 = 7 };

    (void)state;
    iso_close(gone);
    iso_close(fd);
    assert_int_equal(iso_epoll_ctl(epfd, EPOLL_CTL_ADD, copy, &ev), 0);
    assert_int_equal(played.starts, 1);
    assert_int_equal(fd_peek(copy)->where, SOCK_STACK);
    assert_int_equal(fd_peek(unused)->where, SOCK_STACK);
    assert_int_equal(fd_peek(any)->where, SOCK_BOTH);
    assert_int_equal(iso_epoll_wait(epfd, &ev, 1, 0), 0);
    fs_incoming(fs_slot(copy));
    assert_int_equal(iso_epoll_wait(epfd, &ev, 1, 1000), 1);
    assert_int_equal(ev.data.u32, 7);
    fd = iso_accept(copy, NULL, NULL);
    assert_true(fd >= 0);
    iso_close(fd);
    fd = listener(FS_ADDRESS, 82);
    assert_int_equal(fd_peek(fd)->where, SOCK_STACK);
    iso_close(fd);
    iso_close(any);
    iso_close(unused);
    iso_close(copy);
    iso_close(epfd);
    assert_int_equal(played.starts, 1);
    fs_assert_all_free();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bind_and_listen_start_nothing),
        cmocka_unit_test(test_a_child_inherits_them),
        cmocka_unit_test(test_a_signal_while_another_process_has_it),
        cmocka_unit_test(test_the_first_look_starts_it),
    };

    return cmocka_run_group_tests(tests, group_setup, NULL);
}
