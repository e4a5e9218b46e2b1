/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOBENCH_COUNTERS_H
#define ISOBENCH_COUNTERS_H

#include <stdbool.h>
#include <stdio.h>

/**
 * Write the counters of the stack that this program's sockets are on, since that stack's start: as one JSON value, or a line for each that is not zero. Returns 0, or
 * -1 with nothing written if there is no stack but the kernel's.
 */
int counters_print(FILE *out, bool json);

#endif /* ISOBENCH_COUNTERS_H */
