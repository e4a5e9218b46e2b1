/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/pktpool.h"

#include "eal_fixture.h"

#define COUNT 256

static struct pktpool pool;

static int
set_up(void **state)
{
    (void)state;
    return pktpool_create(&pool, "t", COUNT, 1500, SOCKET_ID_ANY);
}

/* Whatever a test took, it gave back. */
static int
tear_down(void **state)
{
    (void)state;
    int leaked = rte_mempool_in_use_count(pool.rx) != 0 || rte_mempool_in_use_count(pool.tx) != 0;

    pktpool_destroy(&pool);
    return leaked;
}

static void
test_handles_name_every_buffer(void **state)
{
    struct rte_mbuf *all[COUNT];
    bool seen[COUNT + 1] = { false };

    (void)state;
    assert_true(pool.buf_bytes >= RTE_PKTMBUF_HEADROOM + 2048);
    assert_int_equal(rte_pktmbuf_alloc_bulk(pool.rx, all, COUNT), 0);
    assert_null(rte_pktmbuf_alloc(pool.rx));
    for (unsigned i = 0; i < COUNT; i++) {
        uint32_t h = pktpool_handle(&pool, all[i]);

        assert_in_range(h, 1, COUNT);
        assert_false(seen[h]);
        seen[h] = true;
        assert_ptr_equal(pktpool_mbuf(&pool, h), all[i]);
        assert_int_equal(pktpool_offset(&pool, all[i]->buf_addr), (uint64_t)(h - 1) * pool.buf_bytes);
    }
    rte_pktmbuf_free_bulk(all, COUNT);
}

/* What the stack writes, an application reads at the same offset; it cannot write, by any way round. */
/* Bursts larger than a cache, one after the other, get the same few buffers: the rest of the pool's memory is never touched. */
static void
test_bursts_share_buffers(void **state)
{
    struct rte_mbuf *burst[COUNT / 4];
    bool seen[COUNT + 1] = { false };
    unsigned used = 0;

    (void)state;
    for (unsigned n = 0; n < 50; n++) {
        assert_int_equal(rte_pktmbuf_alloc_bulk(pool.rx, burst, COUNT / 4), 0);
        for (unsigned i = 0; i < COUNT / 4; i++) {
            uint32_t h = pktpool_handle(&pool, burst[i]);

            used += !seen[h];
            seen[h] = true;
        }
        rte_pktmbuf_free_bulk(burst, COUNT / 4);
    }
    assert_in_range(used, COUNT / 4, COUNT / 2);
}

static void
test_applications_only_read(void **state)
{
    int fd = pktpool_readonly_fd(&pool);
    char path[64];
    char *view;

    (void)state;
    assert_true(fd >= 0);
    view = mmap(NULL, pool.bytes, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(view, MAP_FAILED);
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool.rx);

    strcpy(rte_pktmbuf_append(m, 6), "hello");
    assert_string_equal(view + pktpool_offset(&pool, rte_pktmbuf_mtod(m, void *)), "hello");
    rte_pktmbuf_free(m);

    assert_int_equal(mprotect(view, pool.bytes, PROT_READ | PROT_WRITE), -1);
    assert_ptr_equal(mmap(NULL, pool.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(ftruncate(fd, 0), -1);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR | O_CLOEXEC);

    if (again >= 0) { /* root may open it */
        assert_ptr_equal(mmap(NULL, pool.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0), MAP_FAILED);
        assert_int_equal(write(again, "x", 1), -1);
        assert_int_equal(ftruncate(again, 0), -1);
        close(again);
    }
    munmap(view, pool.bytes);
    close(fd);
}

static void
test_copy_of_a_chain(void **state)
{
    const uint16_t lens[] = { 100, 0, 500, 512, 512, 512, 512, 512 };
    struct rte_mbuf *first = NULL;
    unsigned total = 0;

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        struct rte_mbuf *m = rte_pktmbuf_alloc(pool.tx);
        char *data = rte_pktmbuf_append(m, lens[i]);

        for (unsigned j = 0; j < lens[i]; j++)
            data[j] = (char)(total++ * 7);
        if (first == NULL)
            first = m;
        else
            assert_int_equal(rte_pktmbuf_chain(first, m), 0);
    }
    first->l4_len = 20;
    first->ol_flags |= RTE_MBUF_F_RX_IP_CKSUM_GOOD;
    struct rte_mbuf *copy = pktpool_copy(&pool, first);
    const char *reason;

    assert_non_null(copy);
    assert_int_equal(rte_mbuf_check(copy, 1, &reason), 0);
    assert_ptr_equal(copy->pool, pool.rx);
    assert_int_equal(copy->nb_segs, 2);
    assert_int_equal(copy->pkt_len, total);
    assert_int_equal(copy->l4_len, 20);
    assert_true(copy->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_GOOD);
    assert_true(RTE_MBUF_HAS_PINNED_EXTBUF(copy));
    assert_true(RTE_MBUF_HAS_EXTBUF(copy));
    for (unsigned i = 0; i < total; i++) {
        char byte;

        assert_int_equal(*(const char *)rte_pktmbuf_read(copy, i, 1, &byte), (char)(i * 7));
    }
    rte_pktmbuf_free(copy);
    rte_pktmbuf_free(first);
}

static void
test_copy_without_buffers(void **state)
{
    struct rte_mbuf *all[COUNT];
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool.tx);

    (void)state;
    rte_pktmbuf_append(m, 10);
    assert_int_equal(rte_pktmbuf_alloc_bulk(pool.rx, all, COUNT), 0);
    assert_null(pktpool_copy(&pool, m));
    rte_pktmbuf_free_bulk(all, COUNT);
    rte_pktmbuf_free(m);
}

static void
test_jumbo_fits_one_buffer(void **state)
{
    struct pktpool jumbo;

    (void)state;
    assert_int_equal(pktpool_create(&jumbo, "j", 64, 9000, SOCKET_ID_ANY), 0);
    assert_true(rte_pktmbuf_data_room_size(jumbo.rx) - RTE_PKTMBUF_HEADROOM >= 9018);
    pktpool_destroy(&jumbo);
    /* The largest MTU there is does not fit, and frames are chained. */
    assert_int_equal(pktpool_create(&jumbo, "j", 16, UINT16_MAX, SOCKET_ID_ANY), 0);
    assert_true(rte_pktmbuf_data_room_size(jumbo.rx) > 60000);
    pktpool_destroy(&jumbo);
}

static void
test_failures(void **state)
{
    struct pktpool second;

    (void)state;
    assert_int_equal(pktpool_create(&second, "t", COUNT, 1500, SOCKET_ID_ANY), -EEXIST);
    assert_int_equal(second.fd, -1);
    assert_int_equal(pktpool_create(&second, "big", 4000000, 1500, SOCKET_ID_ANY), -ENOMEM);
    pktpool_destroy(&second); /* of one that was never created: nothing happens */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_handles_name_every_buffer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bursts_share_buffers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_applications_only_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_copy_of_a_chain, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_copy_without_buffers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_jumbo_fits_one_buffer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failures, set_up, tear_down),
    };

    if (fixture_eal_start(NULL, 0) != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    eal_stop();
    return failed;
}
