/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors: which side a socket is on, copies, closing, listeners in both worlds. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fdtable.h"
#include "front.h"
#include "isosock.h"
#include "sock.h"
#include "test_front_stack.h"

static struct sockaddr_in
address(const char *ip, uint16_t port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };

    sa.sin_addr.s_addr = inet_addr(ip);
    return sa;
}

static void
test_other_descriptors_are_not_in_the_table(void **state)
{
    int udp = iso_socket(AF_INET, SOCK_DGRAM, 0), p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    assert_null(fd_peek(udp));
    assert_null(fd_peek(p[0]));
    assert_int_equal(iso_write(p[1], "ab", 2), 2);
    iso_close(udp);
    iso_close(p[0]);
    iso_close(p[1]);
}

static void
test_loopback_stays_the_kernels(void **state)
{
    struct sockaddr_in sa = address("127.0.0.1", 0);
    socklen_t len = sizeof(sa);
    int l = iso_socket(AF_INET, SOCK_STREAM, 0), c = iso_socket(AF_INET, SOCK_STREAM, 0), s;
    char b[4];

    (void)state;
    assert_int_equal(iso_bind(l, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_listen(l, 5), 0);
    assert_int_equal(fd_peek(l)->where, SOCK_KERNEL);
    assert_int_equal(iso_getsockname(l, (struct sockaddr *)&sa, &len), 0);
    assert_int_equal(iso_connect(c, (struct sockaddr *)&sa, sizeof(sa)), 0);
    s = iso_accept(l, NULL, NULL);
    assert_true(s >= 0);
    assert_int_equal(iso_write(c, "hi", 2), 2);
    assert_int_equal(iso_read(s, b, 4), 2);
    iso_close(s);
    iso_close(c);
    iso_close(l);
}

static void
test_bind_to_the_stacks_address(void **state)
{
    struct sockaddr_in sa = address(FS_ADDRESS, 8080), got;
    socklen_t len = sizeof(got);
    int l = iso_socket(AF_INET, SOCK_STREAM, 0), s, v = 0;

    (void)state;
    assert_int_equal(iso_bind(l, (struct sockaddr *)&sa, (socklen_t)-1), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(iso_bind(l, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(fd_peek(l)->where, SOCK_STACK);
    assert_int_equal(iso_bind(l, (struct sockaddr *)&sa, sizeof(sa)), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(iso_listen(l, 5), 0);
    len = sizeof(v);
    assert_int_equal(iso_getsockopt(l, SOL_SOCKET, SO_ACCEPTCONN, &v, &len), 0);
    assert_int_equal(v, 1);
    len = sizeof(got);
    assert_int_equal(iso_getsockname(l, (struct sockaddr *)&got, &len), 0);
    assert_int_equal(got.sin_port, htons(8080));
    fs_incoming(fs_slot(l));
    s = iso_accept4(l, (struct sockaddr *)&got, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(s >= 0);
    assert_int_equal(got.sin_addr.s_addr, inet_addr(FS_NETWORK_PEER));
    assert_int_equal(iso_fcntl(s, F_GETFD), FD_CLOEXEC);
    assert_int_equal(iso_fcntl(s, F_GETFL), O_RDWR | O_NONBLOCK);
    assert_int_equal(iso_fcntl(l, F_GETFL), O_RDWR);
    iso_close(s);
    iso_close(l);
    /* The stack's refusal is the user's. */
    l = iso_socket(AF_INET, SOCK_STREAM, 0);
    sa.sin_port = htons(99);
    assert_int_equal(iso_bind(l, (struct sockaddr *)&sa, sizeof(sa)), -1);
    assert_int_equal(errno, EADDRINUSE);
    iso_close(l);
}

/* The stack stops in order: its sockets have failed before the control connection is seen to end. */
static void
test_listener_that_failed_ends_accept(void **state)
{
    struct sockaddr_in sa = address(FS_ADDRESS, 8081);
    int l = iso_socket(AF_INET, SOCK_STREAM, 0);

    (void)state;
    assert_int_equal(iso_bind(l, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_listen(l, 5), 0);
    fs_error(fs_slot(l), ENETDOWN);
    alarm(10); /* a blocking call: it must not wait, nor ask for ever */
    assert_int_equal(iso_accept(l, NULL, NULL), -1);
    assert_int_equal(errno, ENETDOWN);
    alarm(0);
    iso_close(l);
}

static void
test_wildcard_listens_on_both_sides(void **state)
{
    struct sockaddr_in sa = address("0.0.0.0", 0);
    socklen_t len = sizeof(sa);
    int l = iso_socket(AF_INET, SOCK_STREAM, 0), c, s, t;
    struct pollfd p = { .events = POLLIN };

    (void)state;
    assert_int_equal(iso_bind(l, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_listen(l, 5), 0);
    assert_int_equal(fd_peek(l)->where, SOCK_BOTH);
    assert_int_equal(iso_getsockname(l, (struct sockaddr *)&sa, &len), 0);
    p.fd = l;
    assert_int_equal(iso_poll(&p, 1, 0), 0);
    c = iso_socket(AF_INET, SOCK_STREAM, 0);
    sa.sin_addr.s_addr = inet_addr("127.0.0.1");
    assert_int_equal(iso_connect(c, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_poll(&p, 1, 1000), 1);
    s = iso_accept(l, NULL, NULL);
    assert_true(s >= 0);
    assert_null(fd_peek(s)); /* the kernel's */
    fs_incoming(fs_slot(l));
    assert_int_equal(iso_poll(&p, 1, 1000), 1);
    t = iso_accept(l, NULL, NULL);
    assert_true(t >= 0);
    assert_int_equal(fd_peek(t)->where, SOCK_STACK);
    iso_fcntl(l, F_SETFL, O_NONBLOCK);
    assert_int_equal(iso_accept(l, NULL, NULL), -1);
    assert_int_equal(errno, EAGAIN);
    iso_close(s);
    iso_close(t);
    iso_close(c);
    iso_close(l);
}

static void
test_copies_share_one_socket(void **state)
{
    int fd = fs_connected(0), a = iso_dup(fd), b = iso_fcntl(fd, F_DUPFD_CLOEXEC, 100), target[2];
    uint32_t slot = fs_slot(fd);
    char c;

    (void)state;
    assert_true(b >= 100);
    assert_int_equal(pipe(target), 0);
    assert_int_equal(iso_dup2(fd, target[0]), target[0]); /* over a kernel descriptor */
    assert_int_equal(fs_slot(target[0]), slot);
    assert_int_equal(iso_fcntl(a, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(iso_fcntl(b, F_GETFL), O_RDWR | O_NONBLOCK);
    iso_close(fd);
    iso_close(a);
    fs_deliver(slot, "z", 1, 1);
    assert_int_equal(iso_read(b, &c, 1), 1);
    iso_close(b);
    assert_int_equal(iso_dup2(target[1], target[0]), target[0]); /* a kernel descriptor over the last copy */
    assert_null(fd_peek(target[0]));
    close(target[0]);
    close(target[1]);
}

static void
test_a_refused_connect_can_be_repeated(void **state)
{
    struct sockaddr_in sa = address(FS_NETWORK_PEER, 80);
    int fd = iso_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), v = 0;
    socklen_t len = sizeof(v);

    (void)state;
    fs_hold_connects(true);
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)), -1);
    assert_int_equal(errno, EINPROGRESS);
    fs_settle();
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)), -1);
    assert_int_equal(errno, EALREADY);
    fs_error(fs_slot(fd), ECONNREFUSED);
    assert_int_equal(iso_getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &len), 0);
    assert_int_equal(v, ECONNREFUSED);
    fs_hold_connects(false);
    /* Linux: the error was told by SO_ERROR, so connect() tells only that it failed, and then the socket is new. */
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)), -1);
    assert_int_equal(errno, ECONNABORTED);
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)), -1);
    assert_int_equal(errno, EINPROGRESS);
    fs_settle();
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_write(fd, "x", 1), 1);
    assert_int_equal(iso_fcntl(fd, F_GETFL), O_RDWR | O_NONBLOCK);
    iso_close(fd);
}

static void
test_our_own_descriptors_survive(void **state)
{
    int control = front->control_fd;
    int fd;

    (void)state;
    assert_int_equal(iso_close(control), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(iso_close_range((unsigned)control - 1, (unsigned)control + 1, 0), 0);
    assert_true(fcntl(control, F_GETFD) >= 0);
    assert_true(front_check_alive());
    fd = fs_connected(0);
    assert_int_equal(iso_close_range((unsigned)fd, (unsigned)fd, 0), 0);
    assert_null(fd_peek(fd));
}

static void
test_a_vfork_child_leaves_the_table_alone(void **state)
{
    int fd = fs_connected(0), status;
    pid_t pid = vfork();

    (void)state;
    if (pid == 0) {
        iso_close(fd);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    assert_non_null(fd_peek(fd));
    assert_int_equal(iso_write(fd, "still", 5), 5);
    iso_close(fd);
}

/* ---- kernel sockets that are used again ------------------------------------------------------------------------------------ */

static ino_t
kernel_socket(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

/* The kernel's socket behind one that became the stack's, and is closed now. */
static ino_t
use_one(int type_flags)
{
    struct sockaddr_in sa = address(FS_NETWORK_PEER, 80);
    int fd = iso_socket(AF_INET, SOCK_STREAM | type_flags, 0);
    ino_t behind = kernel_socket(fd);

    assert_true(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 || errno == EINPROGRESS);
    assert_true(kernel_socket(fd) != behind);
    assert_int_equal((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0, (type_flags & SOCK_CLOEXEC) != 0);
    fs_settle();
    iso_close(fd);
    return behind;
}

/* A new socket; whether it has that kernel socket behind it. */
static bool
is_behind_next(ino_t behind, int type_flags)
{
    int fd = iso_socket(AF_INET, SOCK_STREAM | type_flags, 0);
    bool same = kernel_socket(fd) == behind;

    iso_close(fd);
    return same;
}

static void
test_clean_kernel_sockets_are_used_again(void **state)
{
    ino_t behind = use_one(0);
    int fd, on = 1, value;
    socklen_t len = sizeof(value);

    (void)state;
    assert_false(is_behind_next(behind, SOCK_NONBLOCK)); /* another kind */
    for (int i = 0; i < 3; i++)
        assert_true(use_one(SOCK_CLOEXEC) == behind);
    /* Switches are put back; the stack's socket has had them. */
    fd = iso_socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)), 0);
    struct sockaddr_in sa = address(FS_NETWORK_PEER, 80);
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len), 0);
    assert_int_equal(value, 1);
    iso_close(fd);
    fd = iso_socket(AF_INET, SOCK_STREAM, 0);
    assert_true(kernel_socket(fd) == behind);
    assert_int_equal(iso_getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len), 0);
    assert_int_equal(value, 0);
    assert_int_equal(iso_getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &len), 0);
    assert_int_equal(value, 0);
    /* It was not the stack's this time: the program may have done anything with it. */
    iso_close(fd);
    assert_false(is_behind_next(behind, 0));
}

static void
test_what_the_kernel_had_is_not_used_again(void **state)
{
    struct sockaddr_in sa = address("0.0.0.0", 0), to = address(FS_NETWORK_PEER, 80);
    int fd = iso_socket(AF_INET, SOCK_STREAM, 0), bytes = 8192;
    ino_t behind = kernel_socket(fd);

    (void)state;
    assert_int_equal(iso_bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    iso_close(fd);
    assert_false(is_behind_next(behind, 0));

    fd = iso_socket(AF_INET, SOCK_STREAM, 0);
    behind = kernel_socket(fd);
    assert_int_equal(iso_fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    assert_true(iso_connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 || errno == EINPROGRESS);
    assert_true(iso_fcntl(fd, F_GETFL) & O_NONBLOCK);
    fs_settle();
    iso_close(fd);
    assert_false(is_behind_next(behind, 0));
    assert_false(is_behind_next(behind, SOCK_NONBLOCK));

    fd = iso_socket(AF_INET, SOCK_STREAM, 0);
    behind = kernel_socket(fd);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), 0);
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    iso_close(fd);
    assert_false(is_behind_next(behind, 0));
    fs_settle();
}

/* A lent one that goes to the kernel is closed by its one close: nothing is left that keeps the port. */
static void
test_a_lent_socket_can_be_the_kernels(void **state)
{
    ino_t behind = use_one(0);
    struct sockaddr_in sa = address("127.0.0.1", 0);
    socklen_t len = sizeof(sa);
    int fd = iso_socket(AF_INET, SOCK_STREAM, 0), again;

    (void)state;
    assert_true(kernel_socket(fd) == behind);
    assert_int_equal(iso_bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_listen(fd, 1), 0);
    assert_int_equal(iso_getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    iso_close(fd);
    again = iso_socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(iso_bind(again, (struct sockaddr *)&sa, sizeof(sa)), 0);
    iso_close(again);
}

static void
test_prefixes(void **state)
{
    struct shm_addr a;
    struct sockaddr_in sa = address("10.9.9.200", 1);
    struct sockaddr_in6 sa6 = { .sin6_family = AF_INET6 };

    (void)state;
    assert_true(addr_in((struct sockaddr *)&sa, sizeof(sa), &a));
    assert_true(route_by_stack(&a));
    assert_false(route_is_stack(&a));
    sa = address("10.9.8.200", 1);
    assert_true(addr_in((struct sockaddr *)&sa, sizeof(sa), &a));
    assert_false(route_by_stack(&a));
    assert_false(addr_in((struct sockaddr *)&sa, 4, &a));
    inet_pton(AF_INET6, "::ffff:" FS_ADDRESS, &sa6.sin6_addr);
    assert_true(addr_in((struct sockaddr *)&sa6, sizeof(sa6), &a));
    assert_true(route_is_stack(&a));
    inet_pton(AF_INET6, "::", &sa6.sin6_addr);
    assert_true(addr_in((struct sockaddr *)&sa6, sizeof(sa6), &a));
    assert_true(addr_is_any(&a));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_other_descriptors_are_not_in_the_table, fs_teardown),
        cmocka_unit_test_teardown(test_loopback_stays_the_kernels, fs_teardown),
        cmocka_unit_test_teardown(test_bind_to_the_stacks_address, fs_teardown),
        cmocka_unit_test_teardown(test_listener_that_failed_ends_accept, fs_teardown),
        cmocka_unit_test_teardown(test_wildcard_listens_on_both_sides, fs_teardown),
        cmocka_unit_test_teardown(test_copies_share_one_socket, fs_teardown),
        cmocka_unit_test_teardown(test_a_refused_connect_can_be_repeated, fs_teardown),
        cmocka_unit_test_teardown(test_our_own_descriptors_survive, fs_teardown),
        cmocka_unit_test_teardown(test_a_vfork_child_leaves_the_table_alone, fs_teardown),
        cmocka_unit_test_teardown(test_clean_kernel_sockets_are_used_again, fs_teardown),
        cmocka_unit_test_teardown(test_what_the_kernel_had_is_not_used_again, fs_teardown),
        cmocka_unit_test_teardown(test_a_lent_socket_can_be_the_kernels, fs_teardown),
        cmocka_unit_test_teardown(test_prefixes, fs_teardown),
    };

    fs_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
