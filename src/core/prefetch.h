/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_PREFETCH_H
#define CORE_PREFETCH_H

#include <stddef.h>

/** Start loading each cache line of what lies there. Any thread; the address may be a wrong one. */
static inline void
prefetch_lines(const void *at, size_t bytes)
{
    for (size_t off = 0; off < bytes; off += 64)
        __builtin_prefetch((const char *)at + off);
}

#endif /* CORE_PREFETCH_H */
