/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_MEMFD_H
#define CORE_MEMFD_H

/**
 * @file
 * Memory that is shared by descriptor.
 */

/**
 * A second descriptor of memfd `fd` that can only be mapped for reading; the caller closes it. The receiver could open it anew through
 * /proc, so the memfd is also sealed by F_SEAL_FUTURE_WRITE wherever that matters. Any thread. Returns the descriptor, or -errno of open().
 */
int memfd_readonly(int fd);

#endif /* CORE_MEMFD_H */
