/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TSAN_H
#define TSAN_H

/**
 * @file
 * Stands before every file in a build with -Db_sanitize=thread: DPDK's inline functions as the sanitizer can follow them. It knows the compiler's atomics and no inline assembly,
 * by which DPDK's rings are written for x86 unless told otherwise.
 */

#undef _FILE_OFFSET_BITS /* the interposer must not see the C library's headers with it, and a 64-bit system has no need of it */

#define RTE_USE_C11_MEM_MODEL
#define RTE_FORCE_INTRINSICS

#if __has_include(<rte_pause.h>)
#ifndef ALLOW_EXPERIMENTAL_API
#define ALLOW_EXPERIMENTAL_API /* the files that ask for it come too late */
#endif
#include <rte_config.h>
#include <rte_pause.h>

/* One who enqueues waits here until those before it have finished, and passes on what they wrote; by a relaxed load, which a CPU that keeps the order of stores makes good. */
#define rte_wait_until_equal_32(addr, expected, order) rte_wait_until_equal_32(addr, expected, __ATOMIC_ACQUIRE)
#endif

#endif /* TSAN_H */
