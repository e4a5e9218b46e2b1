/* SPDX-License-Identifier: BSD-3-Clause */
/* send and its relatives against a stack in memory: where the bytes lie, full buffers, notifications, errors; send and recv without a copy. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#include <cmocka.h>

#include "front.h"
#include "sock.h"
#include "isosock.h"
#include "test_front_stack.h"

static char scratch[FS_PATTERN_BYTES];

/* ---- sending -------------------------------------------------------------------------------------------------------------- */

static void
test_a_sleeper_gives_memory_back(void **state)
{
    uint32_t chunks[FS_CHUNKS];
    unsigned i, kept = 0;

    (void)state;
    for (i = 0; i < FS_CHUNKS; i++) {
        chunks[i] = chunk_alloc();
        assert_int_not_equal(chunks[i], SHM_NO_CHUNK);
        memset(chunk_at(chunks[i]), 'x', SHM_CHUNK_BYTES);
    }
    for (i = 0; i < FS_CHUNKS; i++)
        chunk_free(chunks[i]);
    chunks_trim(wait_now_us() + UINT64_C(1000000));
    for (i = 0; i < FS_CHUNKS; i++)
        kept += *chunk_at(chunks[i]) == 'x';
    assert_in_range(kept, 1, FS_CHUNKS / 4);
    /* None is lost: the teardown takes every chunk. */
}

static void
test_bytes_lie_in_chunks_in_order(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    uint32_t slot = fs_slot(fd);
    size_t at, n;

    (void)state;
    /* Odd sizes, so that writes straddle the ends of chunks. */
    for (at = 0; at < 3 * SHM_CHUNK_BYTES; at += n) {
        n = 12347;
        assert_int_equal(iso_send(fd, fs_pattern + at, n, 0), n);
    }
    assert_int_equal(fs_sent_bytes(slot), at);
    fs_sent(slot, 0, scratch, at);
    assert_memory_equal(scratch, fs_pattern, at);
    assert_int_equal(iso_close(fd), 0);
}

static void
test_full_buffer_then_acked(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    uint32_t slot = fs_slot(fd);
    unsigned round;

    (void)state;
    assert_int_equal(iso_write(fd, fs_pattern, sizeof(fs_pattern)), FS_SNDBUF_BYTES);
    fs_assert_fails(iso_write(fd, fs_pattern, 1), EAGAIN);
    assert_true(front_sock(slot)->sleepers & SHM_WANT_SPACE);
    fs_ack(slot, 1000);
    assert_int_equal(iso_write(fd, fs_pattern + FS_SNDBUF_BYTES, 5000), 1000);
    assert_true(front_sock(slot)->sleepers & SHM_WANT_SPACE); /* full again, and not all of it went */
    fs_ack(slot, FS_SNDBUF_BYTES);
    assert_int_equal(iso_write(fd, fs_pattern, 1), 1);
    assert_false(front_sock(slot)->sleepers & SHM_WANT_SPACE);
    fs_ack(slot, 1);
    /* Round all the places that name a chunk, those in shm_front_more too. */
    assert_int_equal(iso_write(fd, fs_pattern, 1), 1); /* outstanding all the time: else the round begins anew */
    for (round = 0; round < 40; round++) {
        uint32_t pos = fs_sent_bytes(slot);

        assert_int_equal(iso_write(fd, fs_pattern, 3 * SHM_CHUNK_BYTES), 3 * SHM_CHUNK_BYTES);
        fs_sent(slot, pos, scratch, 3 * SHM_CHUNK_BYTES);
        assert_memory_equal(scratch, fs_pattern, 3 * SHM_CHUNK_BYTES);
        fs_ack(slot, 3 * SHM_CHUNK_BYTES);
    }
    assert_true(fs_sent_bytes(slot) - front_sock(slot)->tx_base > SHM_TX_CHUNKS * SHM_CHUNK_BYTES);
    /* What was not acknowledged when it was closed is given back as well: the teardown looks. */
    assert_int_equal(iso_write(fd, fs_pattern, 2 * SHM_CHUNK_BYTES), 2 * SHM_CHUNK_BYTES);
    iso_close(fd);
}

static void
test_idle_connections_hold_no_chunk(void **state)
{
    static const uint32_t sizes[] = { 100, 1000 }; /* into a small block, into a chunk */
    int fds[FS_CHUNKS + 8];
    unsigned i, j, n = FS_CHUNKS + 8;

    (void)state;
    /* More connections than chunks: each has sent and been acknowledged, so the next finds the memory of the idle ones. */
    for (j = 0; j < 2; j++)
        for (i = 0; i < n; i++) {
            if (j == 0)
                fds[i] = fs_connected(SOCK_NONBLOCK);
            assert_int_equal(iso_write(fds[i], fs_pattern, sizes[j]), sizes[j]);
            fs_ack(fs_slot(fds[i]), sizes[j]);
        }
    /* And they took turns with very few, rather than touching memory that was not in use (this test comes first). */
    for (i = 0; i < n; i++) {
        assert_true(front_sock(fs_slot(fds[i]))->tx_small <= 4);
        assert_true(front_sock(fs_slot(fds[i]))->tx_chunk <= 4);
    }
    for (i = 0; i < n; i++)
        iso_close(fds[i]);
}

static const char *
byte_at(uint32_t slot, uint32_t pos)
{
    const struct shm_front_sock *f = front_sock(slot);
    uint32_t d = pos - f->tx_base;

    return d < SHM_SMALL_BYTES && f->tx_small != 0 ? small_at(f->tx_small - 1u) + d
                                                   : chunk_at(*tx_chunk(slot, d) - 1u) + d % SHM_CHUNK_BYTES;
}

static void
test_few_bytes_lie_in_the_same_place(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    uint32_t slot = fs_slot(fd), round, pos;
    const char *first = NULL;

    (void)state;
    for (round = 0; round < 3000; round++) {
        pos = fs_sent_bytes(slot);
        assert_int_equal(iso_write(fd, fs_pattern + round, 64), 64);
        first = round == 0 ? byte_at(slot, pos) : first;
        assert_ptr_equal(byte_at(slot, pos), first);
        assert_memory_equal(first, fs_pattern + round, 64);
        fs_ack(slot, 64);
    }
    assert_int_equal(front_sock(slot)->tx_chunk, 0);
    iso_close(fd);
}

static void
test_a_small_block_overflows_into_a_chunk(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    uint32_t slot = fs_slot(fd), i, pos;

    (void)state;
    for (i = 0; i < 10; i++)
        assert_int_equal(iso_write(fd, fs_pattern + i * 60, 60), 60);
    assert_int_not_equal(front_sock(slot)->tx_small, 0);
    assert_int_not_equal(front_sock(slot)->tx_chunk, 0);
    fs_sent(slot, 0, scratch, 600);
    assert_memory_equal(scratch, fs_pattern, 600);
    /* The block goes back once its bytes are acknowledged, at the latest with the chunk's end; nothing moves meanwhile. */
    fs_ack(slot, 300);
    assert_int_equal(iso_write(fd, fs_pattern + 600, SHM_CHUNK_BYTES), SHM_CHUNK_BYTES);
    assert_int_equal(front_sock(slot)->tx_small, 0);
    fs_sent(slot, 300, scratch, 300 + SHM_CHUNK_BYTES);
    assert_memory_equal(scratch, fs_pattern + 300, 300 + SHM_CHUNK_BYTES);
    /* Who has more than fits begins with the chunk. */
    fs_ack(slot, 300 + SHM_CHUNK_BYTES);
    pos = fs_sent_bytes(slot);
    assert_int_equal(iso_write(fd, fs_pattern, 1000), 1000);
    assert_int_equal(front_sock(slot)->tx_small, 0);
    assert_ptr_equal(byte_at(slot, pos), chunk_at(front_sock(slot)->tx_chunk - 1u) + SHM_SMALL_BYTES);
    iso_close(fd);
}

static void
test_without_small_blocks_chunks_serve(void **state)
{
    int fds[FS_SMALLS + 2];
    unsigned i;

    (void)state;
    for (i = 0; i < FS_SMALLS + 2; i++) {
        fds[i] = fs_connected(SOCK_NONBLOCK);
        assert_int_equal(iso_write(fds[i], fs_pattern + i, 100), 100);
        fs_sent(fs_slot(fds[i]), 0, scratch, 100);
        assert_memory_equal(scratch, fs_pattern + i, 100);
        assert_int_equal(front_sock(fs_slot(fds[i]))->tx_small == 0, i >= FS_SMALLS);
    }
    for (i = 0; i < FS_SMALLS + 2; i++)
        iso_close(fds[i]);
}

/* Bytes that a command puts into a SYN are the stream's when it has ended: until then no sweep takes their memory, and nobody writes over them. */
static void
test_staged_bytes_stay(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    uint32_t slot = fs_slot(fd);
    struct iovec iov = { fs_pattern, 100 };
    struct tx_source src = { .fill = fill_from_iov, .iov = &iov, .left = 100 };

    (void)state;
    assert_int_equal(send_stage(slot, &src), 100);
    assert_int_not_equal(front_sock(slot)->tx_small, 0);
    chunks_trim(wait_now_us() + UINT64_C(100000000));
    assert_int_not_equal(front_sock(slot)->tx_small, 0);
    fs_assert_fails(iso_write(fd, "x", 1), EALREADY);
    send_staged(slot, &src, 60);
    assert_int_equal(iso_write(fd, fs_pattern + 60, 40), 40);
    fs_sent(slot, 0, scratch, 100);
    assert_memory_equal(scratch, fs_pattern, 100);
    iso_close(fd);
}

/* A process dies with memory in a slot that it had claimed: the slot is found again when no other is left, and names nothing any more (the teardown looks, and for what it named). */
static void
test_a_dying_process_leaves_no_memory_in_its_slot(void **state)
{
    uint32_t slot = SHM_NO_SLOT, slots[FS_SOCKS], chunk, n;
    int status, report[2];
    pid_t child;

    (void)state;
    assert_int_equal(pipe(report), 0);
    child = fork();
    if (child == 0) {
        front->pid = getpid();
        slot = slot_alloc();
        front_sock(slot)->tx_base = -SHM_SMALL_BYTES;
        front_sock(slot)->tx_small = (uint16_t)(small_alloc() + 1);
        for (n = 0; n < 3; n++) {
            chunk = chunk_alloc();
            *tx_chunk(slot, n * SHM_CHUNK_BYTES) = (uint16_t)(chunk + 1);
        }
        front_sock(slot)->tx_tail = 2 * SHM_CHUNK_BYTES;
        (void)!write(report[1], &slot, sizeof(slot));
        _exit(0);
    }
    assert_int_equal(read(report[0], &slot, sizeof(slot)), sizeof(slot));
    assert_int_equal(waitpid(child, &status, 0), child);
    close(report[0]);
    close(report[1]);
    assert_int_not_equal(front_sock(slot)->tx_small, 0);
    assert_int_not_equal(*tx_chunk(slot, 2 * SHM_CHUNK_BYTES), 0);
    for (n = 0; n < FS_SOCKS; n++) {
        slots[n] = slot_alloc();
        assert_int_not_equal(slots[n], SHM_NO_SLOT);
    }
    assert_int_equal(slots[FS_SOCKS - 1], slot);
    for (n = 0; n < FS_SOCKS; n++)
        slot_free(slots[n]);
}

static void
test_one_notification_while_pending(void **state)
{
    int fd = fs_connected(0);
    unsigned i;

    (void)state;
    fs_pause();
    for (i = 0; i < 10; i++)
        assert_int_equal(iso_write(fd, fs_pattern, 10), 10);
    assert_int_equal(fs_notifications(), 1);
    fs_resume();
    fs_settle();
    fs_pause();
    assert_int_equal(iso_write(fd, fs_pattern, 10), 10);
    assert_int_equal(fs_notifications(), 1);
    fs_resume();
    iso_close(fd);
}

static void
test_gather_and_sendfile(void **state)
{
    char name[] = "/tmp/isosock-test-XXXXXX";
    int fd = fs_connected(SOCK_NONBLOCK), file = mkstemp(name);
    uint32_t slot = fs_slot(fd);
    struct iovec iov[4] = {
        { fs_pattern, 3 }, { fs_pattern, 0 }, { fs_pattern + 3, 70000 }, { fs_pattern + 70003, 1 }
    };
    off_t offset = 100;

    (void)state;
    unlink(name);
    assert_int_equal(write(file, fs_pattern, 200000), 200000);
    assert_int_equal(iso_writev(fd, iov, 4), 70004);
    fs_sent(slot, 0, scratch, 70004);
    assert_memory_equal(scratch, fs_pattern, 70004);
    assert_int_equal(iso_sendfile(fd, file, &offset, 90000), 90000);
    assert_int_equal(offset, 90100);
    fs_sent(slot, 70004, scratch, 90000);
    assert_memory_equal(scratch, fs_pattern + 100, 90000);
    offset = 199990;
    assert_int_equal(iso_sendfile(fd, file, &offset, 90000), 10); /* up to the end of the file */
    assert_int_equal(iso_sendfile(fd, file, &offset, 90000), 0);
    close(file);
    iso_close(fd);
}

static void
test_epipe_and_reset(void **state)
{
    int fd = fs_connected(0);

    (void)state;
    fs_error(fs_slot(fd), ECONNRESET);
    fs_assert_fails(iso_send(fd, fs_pattern, 1, MSG_NOSIGNAL), ECONNRESET); /* once */
    fs_assert_fails(iso_send(fd, fs_pattern, 1, MSG_NOSIGNAL), EPIPE);
    assert_int_equal(iso_recv(fd, scratch, 1, 0), 0);
    iso_close(fd);
    fd = fs_connected(0);
    assert_int_equal(iso_shutdown(fd, SHUT_WR), 0);
    fs_assert_fails(iso_send(fd, fs_pattern, 1, MSG_NOSIGNAL), EPIPE);
    iso_close(fd);
}

static volatile sig_atomic_t nb_sigpipe;

static void
on_sigpipe(int sig)
{
    (void)sig;
    nb_sigpipe++;
}

static void
test_sigpipe_unless_told_not_to(void **state)
{
    int fd = fs_connected(0);

    (void)state;
    signal(SIGPIPE, on_sigpipe);
    iso_shutdown(fd, SHUT_WR);
    fs_assert_fails(iso_send(fd, fs_pattern, 1, MSG_NOSIGNAL), EPIPE);
    assert_int_equal(nb_sigpipe, 0);
    fs_assert_fails(iso_write(fd, fs_pattern, 1), EPIPE);
    assert_int_equal(nb_sigpipe, 1);
    signal(SIGPIPE, SIG_DFL);
    iso_close(fd);
}

/* ---- without a copy ------------------------------------------------------------------------------------------------------- */

static void
test_reserve_and_commit(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    uint32_t slot = fs_slot(fd);
    size_t sent = 0;
    void *at, *again;

    (void)state;
    fs_assert_fails(iso_send_commit(fd, 1, 0), EINVAL);
    fs_assert_fails(iso_send_reserve(fd, &at, 0, 0), EINVAL);
    fs_assert_fails(iso_send_reserve(fd, &at, 1, MSG_OOB), EINVAL);
    fs_assert_fails(iso_send_commit(fd, 0, MSG_OOB), EINVAL);
    /* Up to the end of a chunk, then in the next one; what is not committed is not sent. */
    while (sent < 2 * SHM_CHUNK_BYTES) {
        ssize_t room = iso_send_reserve(fd, &at, 25000, 0);
        size_t n = room > 24000 ? 24000 : (size_t)room;

        assert_true(room > 0 && room <= 25000);
        memcpy(at, fs_pattern + sent, n);
        fs_assert_fails(iso_send(fd, "x", 1, 0), EBUSY);
        fs_assert_fails(iso_send_reserve(fd, &again, 1, 0), EBUSY);
        assert_int_equal(iso_send_commit(fd, n, 0), 0);
        sent += n;
    }
    assert_int_equal(fs_sent_bytes(slot), sent);
    fs_sent(slot, 0, scratch, sent);
    assert_memory_equal(scratch, fs_pattern, sent);
    /* More than was reserved, though the chunk has room: there is nobody's data. */
    assert_int_equal(iso_send_reserve(fd, &at, 10, 0), 10);
    fs_assert_fails(iso_send_commit(fd, 11, 0), EINVAL);
    /* Given up. */
    assert_int_equal(iso_send_commit(fd, 0, 0), 0);
    assert_int_equal(iso_send(fd, "y", 1, 0), 1);
    assert_int_equal(fs_sent_bytes(slot), sent + 1);
    /* Full. */
    while (iso_send(fd, fs_pattern, sizeof(fs_pattern), 0) > 0)
        ;
    fs_assert_fails(iso_send_reserve(fd, &at, 1, 0), EAGAIN);
    assert_int_equal(iso_close(fd), 0);
}

/* All that was sent is acknowledged while the program still writes: its chunk is not given to somebody else. */
static void
test_a_reserved_chunk_stays(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK), other = fs_connected(SOCK_NONBLOCK);
    uint32_t slot = fs_slot(fd);
    void *at, *taken;

    (void)state;
    assert_int_equal(iso_send(fd, "abc", 3, 0), 3);
    fs_settle();
    assert_true(iso_send_reserve(fd, &at, 5, 0) == 5);
    fs_ack(slot, 3);
    fs_deliver(slot, "z", 1, 1);
    assert_int_equal(iso_recv(fd, scratch, 1, 0), 1); /* where chunks are given back */
    assert_true(iso_send_reserve(other, &taken, 5, 0) == 5);
    assert_true((char *)taken - (char *)at >= SHM_SMALL_BYTES - 3 || (char *)at - (char *)taken >= SHM_SMALL_BYTES - 3);
    memcpy(at, "defgh", 5);
    assert_int_equal(iso_send_commit(fd, 5, 0), 0);
    fs_settle();
    fs_sent(slot, 3, scratch, 5);
    assert_memory_equal(scratch, "defgh", 5);
    assert_int_equal(iso_close(fd), 0);
    assert_int_equal(iso_close(other), 0); /* with its reservation */
}

static void
test_borrow_and_return(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK), n = 4;
    uint32_t slot = fs_slot(fd);
    struct iovec iov[4];

    (void)state;
    fs_assert_fails(iso_recv_borrow(fd, iov, &n, 0), EAGAIN);
    n = 0;
    fs_assert_fails(iso_recv_borrow(fd, iov, &n, 0), EINVAL);
    n = 4;
    fs_assert_fails(iso_recv_borrow(fd, iov, &n, MSG_PEEK), EINVAL);
    fs_deliver(slot, fs_pattern, 3000, 1000);
    n = 2;
    assert_int_equal(iso_recv_borrow(fd, iov, &n, 0), 2000);
    assert_int_equal(n, 2);
    n = 4;
    assert_int_equal(iso_recv_borrow(fd, iov, &n, 0), 3000); /* the same again, and more */
    assert_int_equal(n, 3);
    for (int i = 0; i < n; i++) {
        assert_int_equal(iov[i].iov_len, 1000);
        assert_memory_equal(iov[i].iov_base, fs_pattern + 1000 * i, 1000);
    }
    fs_assert_fails(iso_recv_return(fd, 3001), EINVAL);
    assert_int_equal(front_sock(slot)->rx_head, 0);
    assert_int_equal(iso_recv_return(fd, 1500), 0);
    assert_int_equal(iso_recv(fd, scratch, 200, 0), 200);
    assert_memory_equal(scratch, fs_pattern + 1500, 200);
    n = 4;
    assert_int_equal(iso_recv_borrow(fd, iov, &n, 0), 1300);
    assert_memory_equal(iov[0].iov_base, fs_pattern + 1700, 300);
    assert_int_equal(iso_recv_return(fd, 1300), 0);
    assert_int_equal(front_sock(slot)->rx_head, 3000);
    fs_fin(slot);
    n = 4;
    assert_int_equal(iso_recv_borrow(fd, iov, &n, 0), 0);
    assert_int_equal(iso_close(fd), 0);
}

static void
test_without_a_copy_needs_the_stack(void **state)
{
    int fd = iso_socket(AF_INET, SOCK_STREAM, 0), n = 1;
    struct iovec iov;
    void *at;

    (void)state;
    fs_assert_fails(iso_send_reserve(fd, &at, 1, 0), EOPNOTSUPP);
    fs_assert_fails(iso_send_commit(fd, 0, 0), EOPNOTSUPP);
    fs_assert_fails(iso_recv_borrow(fd, &iov, &n, 0), EOPNOTSUPP);
    fs_assert_fails(iso_recv_return(fd, 0), EOPNOTSUPP);
    iso_close(fd);
}

/* ---- threads that share a CPU --------------------------------------------------------------------------------------------- */

#define SENDS 60
/* Less than a thread uses up that waits for its CPU to be taken away, a time slice of milliseconds each. */
#define CPU_NS_FOR_A_SEND 500000u

static struct {
    int fd;
    uint32_t go; /* atomic: sends that are wanted */
    uint32_t begun, done; /* atomic */
    uint64_t cpu_ns;
} crowd;

static uint64_t
thread_cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void *
send_when_told(void *arg)
{
    (void)arg;
    for (uint32_t i = 1; i <= SENDS; i++) {
        uint64_t start_ns;

        while (__atomic_load_n(&crowd.go, __ATOMIC_ACQUIRE) < i)
            sched_yield();
        start_ns = thread_cpu_ns();
        __atomic_store_n(&crowd.begun, i, __ATOMIC_RELEASE);
        iso_send(crowd.fd, "x", 1, 0);
        crowd.cpu_ns += thread_cpu_ns() - start_ns;
        __atomic_store_n(&crowd.done, i, __ATOMIC_RELEASE);
    }
    return NULL;
}

/* A producer that is not scheduled amid an enqueue gets the CPU from who waits for it. */
static void
test_a_preempted_producer_may_finish(void **state)
{
    cpu_set_t before, one;
    pthread_t sender;
    uint32_t slot;
    int cpu = 0;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    while (!CPU_ISSET(cpu, &before))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    memset(&crowd, 0, sizeof(crowd));
    crowd.fd = fs_connected(0);
    slot = fs_slot(crowd.fd);
    assert_int_equal(pthread_create(&sender, NULL, send_when_told, NULL), 0);
    for (uint32_t i = 1; i <= SENDS; i++) {
        fs_settle();
        fs_producer_begin(); /* this thread's, which now loses the CPU */
        __atomic_store_n(&crowd.go, i, __ATOMIC_RELEASE);
        while (__atomic_load_n(&crowd.begun, __ATOMIC_ACQUIRE) < i)
            sched_yield();
        fs_producer_end(slot);
        while (__atomic_load_n(&crowd.done, __ATOMIC_ACQUIRE) < i)
            sched_yield();
    }
    pthread_join(sender, NULL);
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
    assert_true(crowd.cpu_ns < (uint64_t)SENDS * CPU_NS_FOR_A_SEND);
    iso_close(crowd.fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_idle_connections_hold_no_chunk, fs_teardown),
        cmocka_unit_test_teardown(test_bytes_lie_in_chunks_in_order, fs_teardown),
        cmocka_unit_test_teardown(test_a_sleeper_gives_memory_back, fs_teardown),
        cmocka_unit_test_teardown(test_full_buffer_then_acked, fs_teardown),
        cmocka_unit_test_teardown(test_few_bytes_lie_in_the_same_place, fs_teardown),
        cmocka_unit_test_teardown(test_a_small_block_overflows_into_a_chunk, fs_teardown),
        cmocka_unit_test_teardown(test_without_small_blocks_chunks_serve, fs_teardown),
        cmocka_unit_test_teardown(test_a_dying_process_leaves_no_memory_in_its_slot, fs_teardown),
        cmocka_unit_test_teardown(test_one_notification_while_pending, fs_teardown),
        cmocka_unit_test_teardown(test_gather_and_sendfile, fs_teardown),
        cmocka_unit_test_teardown(test_epipe_and_reset, fs_teardown),
        cmocka_unit_test_teardown(test_sigpipe_unless_told_not_to, fs_teardown),
        cmocka_unit_test_teardown(test_reserve_and_commit, fs_teardown),
        cmocka_unit_test_teardown(test_a_reserved_chunk_stays, fs_teardown),
        cmocka_unit_test_teardown(test_borrow_and_return, fs_teardown),
        cmocka_unit_test_teardown(test_without_a_copy_needs_the_stack, fs_teardown),
        cmocka_unit_test_teardown(test_a_preempted_producer_may_finish, fs_teardown),
        cmocka_unit_test_teardown(test_staged_bytes_stay, fs_teardown),
    };

    fs_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
