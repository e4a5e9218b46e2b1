/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

int
memfd_readonly(int fd)
{
    char path[64];
    int readonly;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    readonly = open(path, O_RDONLY | O_CLOEXEC);
    return readonly >= 0 ? readonly : -errno;
}
