/* SPDX-License-Identifier: BSD-3-Clause */
/* epoll, poll and select over sockets of the stack and descriptors of the kernel. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>

#include <cmocka.h>

#include "front.h"
#include "isosock.h"
#include "test_front_stack.h"

static char buf[8 * SHM_CHUNK_BYTES];

static void
add(int ep, int fd, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.u64 = (uint64_t)fd | 1ull << 40 };

    assert_int_equal(iso_epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
    fs_settle();
}

static void
modify(int ep, int fd, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.u64 = (uint64_t)fd | 1ull << 40 };

    assert_int_equal(iso_epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev), 0);
}

/* The one event that there is: whose, and what. */
static uint32_t
expect_one(int ep, int fd)
{
    struct epoll_event ev[8];

    assert_int_equal(iso_epoll_wait(ep, ev, 8, 0), 1);
    assert_int_equal(ev[0].data.u64, (uint64_t)fd | 1ull << 40);
    return ev[0].events;
}

static void
expect_none(int ep)
{
    struct epoll_event ev[8];

    assert_int_equal(iso_epoll_wait(ep, ev, 8, 0), 0);
}

static void
test_level_triggered(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK);

    (void)state;
    add(ep, fd, EPOLLIN);
    expect_none(ep);
    fs_deliver(fs_slot(fd), buf, 100, 100);
    assert_int_equal(expect_one(ep, fd), EPOLLIN);
    assert_int_equal(iso_read(fd, buf, 50), 50);
    assert_int_equal(expect_one(ep, fd), EPOLLIN);
    assert_int_equal(iso_read(fd, buf, 50), 50);
    expect_none(ep);
    modify(ep, fd, EPOLLIN | EPOLLOUT);
    assert_int_equal(expect_one(ep, fd), EPOLLOUT);
    assert_int_equal(expect_one(ep, fd), EPOLLOUT);
    iso_close(fd);
    expect_none(ep);
    iso_close(ep);
}

/* Who has room for one event is told of each that is ready in turn, and of one that comes later behind them. */
static void
test_all_have_their_turn(void **state)
{
    int ep = iso_epoll_create1(0), fds[4];
    struct epoll_event ev[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        fds[i] = fs_connected(SOCK_NONBLOCK);
        add(ep, fds[i], EPOLLIN);
    }
    expect_none(ep);
    for (unsigned i = 0; i < 3; i++)
        fs_deliver(fs_slot(fds[i]), buf, 1, 1);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(iso_epoll_wait(ep, ev, 1, 0), 1);
        assert_int_equal((int)ev[0].data.u64, fds[i % 3]);
    }
    /* 2, 0, 1 are in line. */
    fs_deliver(fs_slot(fds[3]), buf, 1, 1);
    assert_int_equal(iso_read(fds[0], buf, 1), 1);
    assert_int_equal(iso_epoll_wait(ep, ev, 2, 0), 2);
    assert_int_equal((int)ev[0].data.u64, fds[2]);
    assert_int_equal((int)ev[1].data.u64, fds[1]);
    assert_int_equal(iso_epoll_wait(ep, ev, 2, 0), 2);
    assert_int_equal((int)ev[0].data.u64, fds[3]);
    assert_int_equal((int)ev[1].data.u64, fds[2]);
    assert_int_equal(iso_epoll_wait(ep, ev, 4, 0), 3);
    assert_int_equal((int)ev[0].data.u64, fds[1]);
    assert_int_equal((int)ev[2].data.u64, fds[2]);
    for (unsigned i = 0; i < 4; i++)
        iso_close(fds[i]);
    iso_close(ep);
}

static void
test_edge_triggered(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK);

    (void)state;
    add(ep, fd, EPOLLIN | EPOLLET);
    expect_none(ep);
    fs_deliver(fs_slot(fd), buf, 100, 100);
    assert_int_equal(expect_one(ep, fd), EPOLLIN);
    expect_none(ep); /* unread, but told */
    fs_deliver(fs_slot(fd), buf, 100, 100);
    assert_int_equal(expect_one(ep, fd), EPOLLIN);
    modify(ep, fd, EPOLLIN | EPOLLET); /* arms it again, as in Linux */
    assert_int_equal(expect_one(ep, fd), EPOLLIN);
    iso_close(fd);
    iso_close(ep);
}

static void
test_oneshot(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK);

    (void)state;
    add(ep, fd, EPOLLIN | EPOLLONESHOT);
    fs_deliver(fs_slot(fd), buf, 1, 1);
    assert_int_equal(expect_one(ep, fd), EPOLLIN);
    fs_deliver(fs_slot(fd), buf, 1, 1);
    expect_none(ep);
    modify(ep, fd, EPOLLIN | EPOLLONESHOT);
    assert_int_equal(expect_one(ep, fd), EPOLLIN);
    iso_close(fd);
    iso_close(ep);
}

static void
test_ends_and_errors(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK);

    (void)state;
    add(ep, fd, EPOLLIN | EPOLLRDHUP);
    fs_fin(fs_slot(fd));
    assert_int_equal(expect_one(ep, fd), EPOLLIN | EPOLLRDHUP);
    assert_int_equal(iso_shutdown(fd, SHUT_WR), 0);
    assert_int_equal(expect_one(ep, fd), EPOLLIN | EPOLLRDHUP | EPOLLHUP);
    iso_close(fd);
    fd = fs_connected(SOCK_NONBLOCK);
    add(ep, fd, EPOLLOUT);
    assert_int_equal(expect_one(ep, fd), EPOLLOUT);
    fs_error(fs_slot(fd), ECONNRESET);
    assert_int_equal(expect_one(ep, fd), EPOLLOUT | EPOLLERR | EPOLLHUP);
    iso_close(fd);
    iso_close(ep);
}

static void
test_space_is_an_event(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK);

    (void)state;
    add(ep, fd, EPOLLOUT | EPOLLET);
    assert_int_equal(expect_one(ep, fd), EPOLLOUT);
    assert_true(iso_write(fd, buf, sizeof(buf)) > 0);
    assert_int_equal(iso_write(fd, buf, 1), -1);
    expect_none(ep);
    fs_ack(fs_slot(fd), 4 * SHM_CHUNK_BYTES);
    assert_int_equal(expect_one(ep, fd), EPOLLOUT);
    iso_close(fd);
    iso_close(ep);
}

static void
test_changes_are_checked(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK);
    struct epoll_event ev = { .events = EPOLLIN };

    (void)state;
    assert_int_equal(iso_epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(iso_epoll_ctl(ep, EPOLL_CTL_DEL, fd, &ev), -1);
    assert_int_equal(errno, ENOENT);
    add(ep, fd, EPOLLIN);
    assert_int_equal(iso_epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), -1);
    assert_int_equal(errno, EEXIST);
    assert_int_equal(iso_epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL), 0);
    fs_deliver(fs_slot(fd), buf, 1, 1);
    expect_none(ep);
    iso_close(fd);
    iso_close(ep);
}

static void
test_kernel_members_beside(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK), p[2], i, kernel = 0;
    struct epoll_event ev[8];

    (void)state;
    assert_int_equal(pipe(p), 0);
    add(ep, fd, EPOLLIN);
    add(ep, p[0], EPOLLIN);
    assert_int_equal(write(p[1], "x", 1), 1);
    assert_int_equal(expect_one(ep, p[0]), EPOLLIN);
    fs_deliver(fs_slot(fd), buf, 1, 1);
    /* The socket is ready all the time: the pipe gets its turn within a bounded number of waits. */
    for (i = 0; i < 8; i++)
        kernel += iso_epoll_wait(ep, ev, 8, 0) == 2;
    assert_true(kernel >= 1);
    iso_close(fd);
    iso_close(p[0]);
    iso_close(p[1]);
    iso_close(ep);
}

static void
test_lost_events_are_looked_for(void **state)
{
    int ep = iso_epoll_create1(0), a = fs_connected(SOCK_NONBLOCK), b = fs_connected(SOCK_NONBLOCK);

    (void)state;
    add(ep, a, EPOLLIN);
    add(ep, b, EPOLLIN);
    expect_none(ep);
    fs_lose_events(true);
    fs_deliver(fs_slot(b), buf, 1, 1);
    fs_lose_events(false);
    assert_int_equal(expect_one(ep, b), EPOLLIN);
    iso_close(a);
    iso_close(b);
    iso_close(ep);
}

static void
test_a_copy_keeps_the_place(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK), copy = iso_dup(fd);

    (void)state;
    add(ep, fd, EPOLLIN);
    iso_close(fd);
    fs_deliver(fs_slot(copy), buf, 1, 1);
    assert_int_equal(expect_one(ep, fd), EPOLLIN); /* as Linux: the place goes with the last descriptor */
    iso_close(copy);
    expect_none(ep);
    iso_close(ep);
}

/* Added before connect() has shown whose the socket is. */
static void
test_socket_changes_sides_in_a_set(void **state)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(80) };
    int ep = iso_epoll_create1(0), fd = iso_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    (void)state;
    sa.sin_addr.s_addr = inet_addr(FS_NETWORK_PEER);
    add(ep, fd, EPOLLOUT);
    fs_hold_connects(true);
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)), -1);
    assert_int_equal(errno, EINPROGRESS);
    fs_settle();
    expect_none(ep);
    fs_connect_done(fs_slot(fd));
    assert_int_equal(expect_one(ep, fd), EPOLLOUT);
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)), -1);
    assert_int_equal(errno, EISCONN);
    iso_close(fd);
    iso_close(ep);
}

static void
test_set_within_a_set(void **state)
{
    int outer = iso_epoll_create1(0), inner = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK);
    struct pollfd p = { .fd = outer, .events = POLLIN };

    (void)state;
    add(inner, fd, EPOLLIN);
    add(outer, inner, EPOLLIN);
    expect_none(inner);
    expect_none(outer);
    assert_int_equal(iso_poll(&p, 1, 0), 0);
    fs_deliver(fs_slot(fd), buf, 1, 1);
    assert_int_equal(iso_poll(&p, 1, 0), 1);
    assert_int_equal(expect_one(outer, inner), EPOLLIN);
    assert_int_equal(expect_one(inner, fd), EPOLLIN);
    assert_int_equal(expect_one(outer, inner), EPOLLIN);
    assert_int_equal(iso_read(fd, buf, 10), 1);
    expect_none(inner);
    expect_none(outer);
    iso_close(fd);
    iso_close(inner);
    iso_close(outer);
}

static void *
deliver_later(void *arg)
{
    usleep(20000);
    fs_deliver(*(uint32_t *)arg, buf, 1, 1);
    return NULL;
}

static void
test_sleepers_are_woken(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK), round;
    uint32_t slot = fs_slot(fd);
    struct pollfd p = { .fd = fd, .events = POLLIN };
    struct epoll_event ev;
    pthread_t t;

    (void)state;
    add(ep, fd, EPOLLIN);
    for (round = 0; round < 4; round++) {
        fd_set rd;

        pthread_create(&t, NULL, deliver_later, &slot);
        FD_ZERO(&rd);
        FD_SET(fd, &rd);
        if (round == 0)
            assert_int_equal(iso_epoll_wait(ep, &ev, 1, -1), 1);
        else if (round == 1)
            assert_int_equal(iso_poll(&p, 1, 5000), 1);
        else if (round == 2)
            assert_int_equal(iso_select(fd + 1, &rd, NULL, NULL, NULL), 1);
        else
            assert_int_equal(iso_poll(&p, 1, -1), 1);
        pthread_join(t, NULL);
        assert_int_equal(iso_read(fd, buf, 10), 1);
    }
    iso_close(fd);
    iso_close(ep);
}

/* One who waits on a set, for at most so many events. */
struct waiter {
    pthread_t thread;
    int ep, most, got;
    struct epoll_event ev[4];
};

static void *
wait_main(void *arg)
{
    struct waiter *w = arg;

    w->got = iso_epoll_wait(w->ep, w->ev, w->most, 5000);
    return NULL;
}

static void
wait_begin(struct waiter *w, int ep, int most)
{
    w->ep = ep;
    w->most = most;
    pthread_create(&w->thread, NULL, wait_main, w);
}

/* It was woken, for that descriptor. */
static void
expect_woken(struct waiter *w, int fd, uint32_t events)
{
    pthread_join(w->thread, NULL);
    assert_int_equal(w->got, 1);
    assert_int_equal(w->ev[0].data.u64, (uint64_t)fd | 1ull << 40);
    assert_int_equal(w->ev[0].events, events);
}

/* Two threads wait on one set: neither leaves the other asleep over what it has not taken, or not read. */
static void
test_waiters_share_a_set(void **state)
{
    int ep = iso_epoll_create1(0), fds[2] = { fs_connected(SOCK_NONBLOCK), fs_connected(SOCK_NONBLOCK) }, round;
    struct epoll_event all[4];
    struct waiter w[2];

    (void)state;
    add(ep, fds[0], EPOLLIN);
    add(ep, fds[1], EPOLLIN);
    for (round = 0; round < 40; round++) {
        int n = round % 2 + 1;

        for (int i = 0; i < 2; i++)
            wait_begin(&w[i], ep, round % 4 < 2 ? 1 : 4);
        usleep(2000);
        for (int i = 0; i < n; i++)
            fs_deliver(fs_slot(fds[i]), buf, 1, 1);
        for (int i = 0; i < 2; i++) {
            pthread_join(w[i].thread, NULL);
            assert_in_range(w[i].got, 1, n);
        }
        assert_int_equal(iso_epoll_wait(ep, all, 4, 0), n);
        for (int i = 0; i < n; i++)
            assert_int_equal(iso_read(fds[i], buf, 10), 1);
        assert_int_equal(iso_epoll_wait(ep, all, 4, 0), 0);
    }
    iso_close(fds[0]);
    iso_close(fds[1]);
    iso_close(ep);
}

/* What epoll_ctl finds ready is told to who waits already. */
static void
test_changes_wake_who_waits(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK), other = fs_connected(SOCK_NONBLOCK);
    struct waiter w;

    (void)state;
    fs_deliver(fs_slot(fd), buf, 1, 1);
    fs_settle();
    for (int round = 0; round < 3; round++) {
        wait_begin(&w, ep, 4);
        usleep(2000);
        add(ep, fd,
            EPOLLIN |
                EPOLLONESHOT); /* the first time: the set has no socket of the stack's before, and the wait was the kernel's */
        expect_woken(&w, fd, EPOLLIN);
        wait_begin(&w, ep, 4);
        usleep(2000);
        modify(ep, fd, EPOLLIN | EPOLLONESHOT);
        expect_woken(&w, fd, EPOLLIN);
        wait_begin(&w, ep, 4);
        usleep(2000);
        modify(ep, fd, EPOLLOUT | EPOLLONESHOT);
        expect_woken(&w, fd, EPOLLOUT);
        assert_int_equal(iso_epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL), 0);
    }
    /* A wait of the kernel's alone goes on as one of both. */
    iso_close(ep);
    ep = iso_epoll_create1(0);
    wait_begin(&w, ep, 4);
    usleep(2000);
    add(ep, other, EPOLLIN);
    usleep(2000);
    fs_deliver(fs_slot(other), buf, 1, 1);
    expect_woken(&w, other, EPOLLIN);
    assert_int_equal(iso_read(fd, buf, 10), 1);
    assert_int_equal(iso_read(other, buf, 10), 1);
    iso_close(fd);
    iso_close(other);
    iso_close(ep);
}

/* Two waits of the kernel's alone, and then two sockets of the stack's: each thread gets one. */
static void
test_all_who_waited_are_told(void **state)
{
    int pipes[2];

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    for (int round = 0; round < 10; round++) {
        int ep = iso_epoll_create1(0), fds[2] = { fs_connected(SOCK_NONBLOCK), fs_connected(SOCK_NONBLOCK) };
        struct waiter w[2];

        add(ep, pipes[0], EPOLLIN);
        for (int i = 0; i < 2; i++)
            wait_begin(&w[i], ep, 1);
        usleep(2000);
        for (int i = 0; i < 2; i++)
            add(ep, fds[i], EPOLLIN | EPOLLET);
        for (int i = 0; i < 2; i++)
            fs_deliver(fs_slot(fds[i]), buf, 1, 1);
        for (int i = 0; i < 2; i++) {
            pthread_join(w[i].thread, NULL);
            assert_int_equal(w[i].got, 1);
            assert_true(w[i].ev[0].data.u64 == ((uint64_t)fds[i] | 1ull << 40) ||
                        w[i].ev[0].data.u64 == ((uint64_t)fds[1 - i] | 1ull << 40));
        }
        assert_int_not_equal(w[0].ev[0].data.u64, w[1].ev[0].data.u64);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(iso_read(fds[i], buf, 10), 1);
            iso_close(fds[i]);
        }
        iso_close(ep);
    }
    close(pipes[0]);
    close(pipes[1]);
}

/* Members that come and go are nothing to a wait on a pipe. */
static void
test_a_wait_is_not_disturbed(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK), pipes[2];
    struct waiter w;

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    add(ep, pipes[0], EPOLLIN);
    for (int round = 0; round < 10; round++) {
        wait_begin(&w, ep, 4);
        usleep(1000);
        add(ep, fd, EPOLLIN);
        assert_int_equal(iso_epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL), 0);
        usleep(1000);
        assert_int_equal(write(pipes[1], "x", 1), 1);
        expect_woken(&w, pipes[0], EPOLLIN);
        assert_int_equal(read(pipes[0], buf, 1), 1);
    }
    iso_close(fd);
    iso_close(ep);
    close(pipes[0]);
    close(pipes[1]);
}

/* A set in poll: its sockets wake the call. */
static void
test_poll_on_a_set_is_woken(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK);
    struct pollfd p = { .fd = ep, .events = POLLIN };
    uint32_t slot = fs_slot(fd);
    pthread_t t;

    (void)state;
    add(ep, fd, EPOLLIN);
    for (int round = 0; round < 2; round++) {
        pthread_create(&t, NULL, deliver_later, &slot);
        assert_int_equal(iso_poll(&p, 1, 5000), 1);
        pthread_join(t, NULL);
        assert_int_equal(expect_one(ep, fd), EPOLLIN);
        assert_int_equal(iso_read(fd, buf, 10), 1);
        assert_int_equal(iso_poll(&p, 1, 0), 0);
    }
    /* But only with what the set asks for. */
    modify(ep, fd, EPOLLPRI);
    pthread_create(&t, NULL, deliver_later, &slot);
    assert_int_equal(iso_poll(&p, 1, 100), 0);
    pthread_join(t, NULL);
    assert_int_equal(iso_read(fd, buf, 10), 1);
    iso_close(fd);
    iso_close(ep);
}

static void
test_poll_and_select_mixed(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK), pp[2];
    struct pollfd p[3] = { { .fd = fd, .events = POLLIN | POLLOUT }, { .events = POLLIN }, { .fd = -1 } };
    struct timeval tv = { 0, 10000 };
    fd_set rd, wr;

    (void)state;
    assert_int_equal(pipe(pp), 0);
    p[1].fd = pp[0];
    assert_int_equal(write(pp[1], "x", 1), 1);
    assert_int_equal(iso_poll(p, 3, 0), 2);
    assert_int_equal(p[0].revents, POLLOUT);
    assert_int_equal(p[1].revents, POLLIN);
    assert_int_equal(p[2].revents, 0);
    FD_ZERO(&rd);
    FD_ZERO(&wr);
    FD_SET(fd, &rd);
    FD_SET(pp[0], &rd);
    FD_SET(fd, &wr);
    assert_int_equal(iso_select(64, &rd, &wr, NULL, &tv), 2);
    assert_false(FD_ISSET(fd, &rd));
    assert_true(FD_ISSET(pp[0], &rd));
    assert_true(FD_ISSET(fd, &wr));
    FD_ZERO(&rd);
    FD_SET(fd, &rd);
    assert_int_equal(iso_select(64, &rd, NULL, NULL, &tv), 0);
    assert_int_equal(tv.tv_sec + tv.tv_usec, 0);
    iso_close(fd);
    iso_close(pp[0]);
    iso_close(pp[1]);
}

/* Last, since it ends the stack: nobody hangs, everybody is told. */
static void
test_the_stack_dies(void **state)
{
    int ep = iso_epoll_create1(0), fd = fs_connected(SOCK_NONBLOCK);
    struct epoll_event ev;

    (void)state;
    add(ep, fd, EPOLLIN);
    expect_none(ep);
    fs_die();
    assert_int_equal(iso_epoll_wait(ep, &ev, 1, 2000), 1);
    assert_true(ev.events & EPOLLERR);
    assert_int_equal(iso_read(fd, buf, 1), -1);
    assert_int_equal(errno, ECONNRESET);
    iso_close(fd);
    iso_close(ep);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_level_triggered, fs_teardown),
        cmocka_unit_test_teardown(test_all_have_their_turn, fs_teardown),
        cmocka_unit_test_teardown(test_edge_triggered, fs_teardown),
        cmocka_unit_test_teardown(test_oneshot, fs_teardown),
        cmocka_unit_test_teardown(test_ends_and_errors, fs_teardown),
        cmocka_unit_test_teardown(test_space_is_an_event, fs_teardown),
        cmocka_unit_test_teardown(test_changes_are_checked, fs_teardown),
        cmocka_unit_test_teardown(test_kernel_members_beside, fs_teardown),
        cmocka_unit_test_teardown(test_lost_events_are_looked_for, fs_teardown),
        cmocka_unit_test_teardown(test_a_copy_keeps_the_place, fs_teardown),
        cmocka_unit_test_teardown(test_socket_changes_sides_in_a_set, fs_teardown),
        cmocka_unit_test_teardown(test_set_within_a_set, fs_teardown),
        cmocka_unit_test_teardown(test_sleepers_are_woken, fs_teardown),
        cmocka_unit_test_teardown(test_waiters_share_a_set, fs_teardown),
        cmocka_unit_test_teardown(test_changes_wake_who_waits, fs_teardown),
        cmocka_unit_test_teardown(test_all_who_waited_are_told, fs_teardown),
        cmocka_unit_test_teardown(test_a_wait_is_not_disturbed, fs_teardown),
        cmocka_unit_test_teardown(test_poll_on_a_set_is_woken, fs_teardown),
        cmocka_unit_test_teardown(test_poll_and_select_mixed, fs_teardown),
        cmocka_unit_test(test_the_stack_dies),
    };

    fs_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
