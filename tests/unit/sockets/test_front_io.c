/* SPDX-License-Identifier: BSD-3-Clause */
/* recv and its relatives against a stack in memory: streams, waiting, signals, errors; what concerns both directions. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>

#include <cmocka.h>

#include "front.h"
#include "sock.h"
#include "isosock.h"
#include "tcp/tcp.h"
#include "test_front_stack.h"

static char scratch[FS_PATTERN_BYTES];

/* ---- receiving ------------------------------------------------------------------------------------------------------------ */

static void
test_reads_cross_segments_and_trains(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    uint32_t slot = fs_slot(fd);
    size_t sizes[] = { 1, 99, 1448, 5, 20000, 3000 }, at = 0, i;

    (void)state;
    fs_assert_fails(iso_recv(fd, scratch, 10, 0), EAGAIN);
    fs_deliver(slot, fs_pattern, 10000, 1448);
    fs_deliver(slot, fs_pattern + 10000, 1, 1448);
    fs_deliver(slot, fs_pattern + 10001, 9999, 700);
    for (i = 0; i < 6 && at < 20000; i++) {
        ssize_t n = iso_recv(fd, scratch + at, sizes[i], 0);

        assert_true(n > 0 && (size_t)n <= sizes[i]);
        at += (size_t)n;
    }
    assert_int_equal(at, 20000);
    assert_memory_equal(scratch, fs_pattern, at);
    fs_assert_fails(iso_read(fd, scratch, 10), EAGAIN);
    iso_close(fd);
}

static void
test_rx_head_moves_when_it_frees_something(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    uint32_t slot = fs_slot(fd);

    (void)state;
    fs_deliver(slot, fs_pattern, 3000, 1000);
    assert_int_equal(iso_recv(fd, scratch, 999, 0), 999);
    assert_int_equal(front_sock(slot)->rx_head, 0); /* within a segment: nothing to give back */
    assert_int_equal(iso_recv(fd, scratch, 2, 0), 2);
    assert_int_equal(front_sock(slot)->rx_head, 1001);
    assert_int_equal(iso_recv(fd, scratch, 5000, 0), 1999);
    assert_int_equal(front_sock(slot)->rx_head, 3000);
    iso_close(fd);
}

static void
test_small_reads_are_told_with_the_answer(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    uint32_t slot = fs_slot(fd);

    (void)state;
    fs_deliver(slot, fs_pattern, 100, 100);
    fs_pause();
    assert_int_equal(iso_recv(fd, scratch, 200, 0), 100);
    assert_int_equal(fs_notifications(), 0); /* held back: an answer is likely */
    assert_int_equal(iso_send(fd, fs_pattern, 10, 0), 10);
    assert_int_equal(fs_notifications(), 1);
    fs_resume();
    fs_settle();
    fs_deliver(slot, fs_pattern, 100, 100);
    fs_pause();
    assert_int_equal(iso_recv(fd, scratch, 200, 0), 100);
    assert_int_equal(fs_notifications(), 0);
    fs_assert_fails(iso_recv(fd, scratch, 200, 0), EAGAIN); /* no answer: told now */
    assert_int_equal(fs_notifications(), 1);
    fs_resume();
    fs_settle();
    fs_deliver(slot, fs_pattern, 40000, 1400);
    fs_pause();
    assert_int_equal(iso_recv(fd, scratch, 40000, 0), 40000);
    assert_int_equal(fs_notifications(), 1); /* much: told at once */
    fs_resume();
    iso_close(fd);
}

/* One notice at a time is held back: reading from many sockets without an answer must leave none of them untold. */
static void
test_held_notice_is_not_lost_to_the_next_socket(void **state)
{
    int one = fs_connected(SOCK_NONBLOCK), other = fs_connected(SOCK_NONBLOCK);

    (void)state;
    fs_deliver(fs_slot(one), fs_pattern, 100, 100);
    fs_deliver(fs_slot(other), fs_pattern, 100, 100);
    fs_pause();
    assert_int_equal(iso_recv(one, scratch, 200, 0), 100);
    assert_int_equal(fs_notifications(), 0);
    assert_int_equal(iso_recv(other, scratch, 200, 0), 100);
    assert_int_equal(fs_notifications(), 1); /* the first one's */
    assert_int_equal(slot_hot(front_sock(fs_slot(one)))->rx_told, 100);
    fs_assert_fails(iso_recv(other, scratch, 200, 0), EAGAIN);
    assert_int_equal(fs_notifications(), 2);
    fs_resume();
    iso_close(one);
    iso_close(other);
}

static void
test_peek_waitall_trunc(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    uint32_t slot = fs_slot(fd);
    struct iovec iov[3] = { { scratch, 7 }, { scratch + 7, 0 }, { scratch + 7, 5000 } };

    (void)state;
    fs_deliver(slot, fs_pattern, 2000, 600);
    assert_int_equal(iso_recv(fd, scratch, 1500, MSG_PEEK), 1500);
    assert_memory_equal(scratch, fs_pattern, 1500);
    memset(scratch, 0, 2000);
    assert_int_equal(iso_readv(fd, iov, 3), 2000);
    assert_memory_equal(scratch, fs_pattern, 2000);
    fs_deliver(slot, fs_pattern, 1000, 600);
    assert_int_equal(iso_recv(fd, NULL, 400, MSG_TRUNC), 400); /* dropped */
    assert_int_equal(iso_recv(fd, scratch, 2000, MSG_WAITALL), 600);
    assert_memory_equal(scratch, fs_pattern + 400, 600);
    fs_assert_fails(iso_recv(fd, scratch, 10, MSG_OOB), EINVAL);
    iso_close(fd);
}

static void
test_end_of_stream(void **state)
{
    int fd = fs_connected(0);
    uint32_t slot = fs_slot(fd);

    (void)state;
    fs_deliver(slot, fs_pattern, 10, 10);
    fs_fin(slot);
    assert_int_equal(iso_recv(fd, scratch, 100, MSG_WAITALL), 10);
    assert_int_equal(iso_recv(fd, scratch, 100, 0), 0);
    assert_int_equal(iso_recv(fd, scratch, 100, 0), 0);
    assert_int_equal(iso_send(fd, fs_pattern, 5, 0), 5); /* the other way is open */
    iso_close(fd);
}

struct later {
    int fd;
    uint32_t slot;
};

static void *
deliver_later(void *arg)
{
    const struct later *l = arg;

    usleep(20000);
    fs_deliver(l->slot, fs_pattern, 300, 100);
    usleep(20000);
    fs_deliver(l->slot, fs_pattern + 300, 300, 100);
    return NULL;
}

static void
test_blocking_read_is_woken(void **state)
{
    int fd = fs_connected(0);
    struct later l = { fd, fs_slot(fd) };
    pthread_t t;

    (void)state;
    pthread_create(&t, NULL, deliver_later, &l);
    assert_int_equal(iso_recv(fd, scratch, 600, MSG_WAITALL), 600);
    assert_memory_equal(scratch, fs_pattern, 600);
    pthread_join(t, NULL);
    iso_close(fd);
}

static void *
ack_later(void *arg)
{
    const struct later *l = arg;

    usleep(20000);
    fs_ack(l->slot, FS_SNDBUF_BYTES);
    return NULL;
}

static void
test_blocking_write_is_woken(void **state)
{
    int fd = fs_connected(0);
    struct later l = { fd, fs_slot(fd) };
    pthread_t t;

    (void)state;
    pthread_create(&t, NULL, ack_later, &l);
    assert_int_equal(iso_write(fd, fs_pattern, FS_SNDBUF_BYTES + 10000), FS_SNDBUF_BYTES + 10000);
    pthread_join(t, NULL);
    iso_close(fd);
}

static void
test_timeouts_and_dontwait(void **state)
{
    int fd = fs_connected(0);
    struct timeval tv = { 0, 30000 }, got;
    socklen_t len = sizeof(got);
    struct later l;
    pthread_t t;

    (void)state;
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
    assert_int_equal(iso_getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &got, &len), 0);
    assert_int_equal(got.tv_usec, 30000);
    fs_assert_fails(iso_recv(fd, scratch, 1, 0), EAGAIN);
    fs_assert_fails(iso_recv(fd, scratch, 1, MSG_DONTWAIT), EAGAIN);
    /* Woken before it. */
    tv.tv_sec = 5;
    iso_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    l = (struct later){ fd, fs_slot(fd) };
    pthread_create(&t, NULL, deliver_later, &l);
    assert_int_equal(iso_recv(fd, scratch, 600, MSG_WAITALL), 600);
    assert_int_equal(front_sock(l.slot)->sleepers & SHM_SLEEP_READ, 0);
    pthread_join(t, NULL);
    iso_close(fd);
}

static void
on_alarm(int sig)
{
    (void)sig;
}

static void
test_signal_interrupts(void **state)
{
    struct sigaction sa = { .sa_handler = on_alarm };
    struct itimerval it = { .it_value = { 0, 20000 } };
    int fd = fs_connected(0);

    (void)state;
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &it, NULL);
    fs_assert_fails(iso_recv(fd, scratch, 1, 0), EINTR);
    iso_close(fd);
}

static void
test_signal_with_restart_does_not(void **state)
{
    struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
    struct itimerval it = { .it_value = { 0, 5000 } };
    int fd = fs_connected(0);
    struct later l = { fd, fs_slot(fd) };
    struct timeval tv = { 5, 0 };
    pthread_t t;

    (void)state;
    sigaction(SIGALRM, &sa, NULL);
    pthread_create(&t, NULL, deliver_later, &l);
    setitimer(ITIMER_REAL, &it, NULL);
    assert_int_equal(iso_recv(fd, scratch, 300, 0), 300);
    pthread_join(t, NULL);
    assert_int_equal(iso_recv(fd, scratch, 300, 0), 300);
    /* With a timeout of the socket's it does: signal(7). */
    iso_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    setitimer(ITIMER_REAL, &it, NULL);
    fs_assert_fails(iso_recv(fd, scratch, 300, 0), EINTR);
    iso_close(fd);
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------- */

static void
test_bad_arguments(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    struct iovec iov = { NULL, 4 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 5000 };
    struct sockaddr_in peer;
    socklen_t len = sizeof(peer);

    (void)state;
    fs_assert_fails(iso_send(fd, NULL, 4, 0), EFAULT);
    fs_assert_fails(iso_write(fd, NULL, 4), EFAULT);
    fs_assert_fails(iso_writev(fd, &iov, 1), EFAULT);
    fs_assert_fails(iso_writev(fd, NULL, 1), EFAULT);
    fs_assert_fails(iso_sendmsg(fd, NULL, 0), EFAULT);
    fs_assert_fails(iso_sendmsg(fd, &msg, 0), EMSGSIZE);
    fs_assert_fails(iso_recvmsg(fd, &msg, 0), EMSGSIZE);
    fs_deliver(fs_slot(fd), fs_pattern, 10, 10);
    fs_assert_fails(iso_recv(fd, NULL, 4, 0), EFAULT);
    assert_int_equal(iso_recv(fd, NULL, 4, MSG_TRUNC), 4);
    assert_int_equal(iso_recv(fd, scratch, 20, 0), 6);
    assert_memory_equal(scratch, fs_pattern + 4, 6);
    fs_assert_fails(iso_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, scratch, (socklen_t)-1), EINVAL);
    fs_assert_fails(iso_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, (const void *)1, sizeof(int)), EFAULT);
    fs_assert_fails(iso_getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, (void *)UINTPTR_MAX, &len), EFAULT);
    fs_assert_fails(iso_getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, scratch, (socklen_t *)8), EFAULT);
    fs_assert_fails(iso_ioctl(fd, FIONREAD, (void *)(UINTPTR_MAX - 4095)), EFAULT);
    len = sizeof(peer);
    assert_int_equal(iso_getpeername(fd, (struct sockaddr *)&peer, &len), 0);
    fs_error(fs_slot(fd), ECONNRESET);
    fs_assert_fails(iso_getpeername(fd, (struct sockaddr *)&peer, &len), ENOTCONN);
    iso_close(fd);
}

static void
test_reading_what_was_refused(void **state)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(81) };
    int fd = iso_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    (void)state;
    sa.sin_addr.s_addr = inet_addr(FS_NETWORK_PEER);
    fs_hold_connects(true);
    fs_assert_fails(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)), EINPROGRESS);
    fs_error(fs_slot(fd), ECONNREFUSED);
    fs_assert_fails(iso_recv(fd, scratch, 1, 0), ECONNREFUSED);
    fs_assert_fails(iso_recv(fd, scratch, 1, 0), ENOTCONN);
    iso_close(fd);
}

static void
test_queue_lengths(void **state)
{
    int fd = fs_connected(0), v = -1;
    uint32_t slot = fs_slot(fd);

    (void)state;
    fs_deliver(slot, fs_pattern, 123, 50);
    assert_int_equal(iso_ioctl(fd, FIONREAD, &v), 0);
    assert_int_equal(v, 123);
    iso_write(fd, fs_pattern, 77);
    fs_ack(slot, 7);
    assert_int_equal(iso_ioctl(fd, SIOCOUTQ, &v), 0);
    assert_int_equal(v, 70);
    fs_assert_fails(iso_ioctl(fd, TIOCGWINSZ, &v), ENOTTY);
    iso_close(fd);
}

static void
test_options(void **state)
{
    int fd = iso_socket(AF_INET, SOCK_STREAM, 0), v = 1;
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(80) };
    socklen_t len = sizeof(v);

    (void)state;
    /* Set on the kernel's socket, carried over when it becomes the stack's. */
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v)), 0);
    v = 77;
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &v, sizeof(v)), 0);
    sa.sin_addr.s_addr = inet_addr(FS_NETWORK_PEER);
    assert_int_equal(iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(fs_option(TCP_OPT_NODELAY), 1);
    assert_int_equal(fs_option(TCP_OPT_KEEPIDLE), 77);
    assert_int_equal(iso_getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &v, &len), 0);
    assert_int_equal(v, 77);
    /* Set on the stack's. */
    v = 0;
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v)), 0);
    fs_settle(); /* a switch is not waited for */
    assert_int_equal(fs_option(TCP_OPT_NODELAY), 0);
    v = 100000;
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, sizeof(v)), 0);
    assert_int_equal(iso_getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, &len), 0);
    assert_int_equal(v, 200000); /* Linux tells the double */
    v = 1000;
    fs_assert_fails(iso_setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &v, sizeof(v)), EINVAL);
    fs_assert_fails(iso_setsockopt(fd, SOL_SOCKET, SO_MARK, &v, sizeof(v)), ENOPROTOOPT);
    fs_assert_fails(iso_getsockopt(fd, IPPROTO_TCP, TCP_SAVE_SYN, &v, &len), ENOPROTOOPT);
    assert_int_equal(iso_getsockopt(fd, SOL_SOCKET, SO_TYPE, &v, &len), 0);
    assert_int_equal(v, SOCK_STREAM);
    fs_error(fs_slot(fd), ETIMEDOUT);
    assert_int_equal(iso_getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &len), 0);
    assert_int_equal(v, ETIMEDOUT);
    assert_int_equal(iso_getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &len), 0);
    assert_int_equal(v, 0);
    iso_close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_reads_cross_segments_and_trains, fs_teardown),
        cmocka_unit_test_teardown(test_rx_head_moves_when_it_frees_something, fs_teardown),
        cmocka_unit_test_teardown(test_small_reads_are_told_with_the_answer, fs_teardown),
        cmocka_unit_test_teardown(test_held_notice_is_not_lost_to_the_next_socket, fs_teardown),
        cmocka_unit_test_teardown(test_peek_waitall_trunc, fs_teardown),
        cmocka_unit_test_teardown(test_end_of_stream, fs_teardown),
        cmocka_unit_test_teardown(test_blocking_read_is_woken, fs_teardown),
        cmocka_unit_test_teardown(test_blocking_write_is_woken, fs_teardown),
        cmocka_unit_test_teardown(test_timeouts_and_dontwait, fs_teardown),
        cmocka_unit_test_teardown(test_signal_interrupts, fs_teardown),
        cmocka_unit_test_teardown(test_signal_with_restart_does_not, fs_teardown),
        cmocka_unit_test_teardown(test_bad_arguments, fs_teardown),
        cmocka_unit_test_teardown(test_reading_what_was_refused, fs_teardown),
        cmocka_unit_test_teardown(test_queue_lengths, fs_teardown),
        cmocka_unit_test_teardown(test_options, fs_teardown),
    };

    fs_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
