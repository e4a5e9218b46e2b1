/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TEST_EAL_FIXTURE_H
#define TEST_EAL_FIXTURE_H

#include <stdio.h>

#include "core/clock.h"
#include "core/eal.h"

/* Start the EAL as an ordinary user may: no huge pages, no devices but those named. Returns 0 or 1. */
static inline int
fixture_eal_start(char *const *devices, int count)
{
    static char words[][12] = { "test", "--no-huge", "--no-pci", "-m", "96" };
    char *argv[24];
    char err[256];
    int argc = 0;

    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        argv[argc++] = words[i];
    for (int i = 0; i < count; i++)
        argv[argc++] = devices[i];
    if (eal_start(argc, argv, err, sizeof(err)) < 0) {
        fprintf(stderr, "%s\n", err);
        return 1;
    }
    clock_init();
    return 0;
}

#endif /* TEST_EAL_FIXTURE_H */
