/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TEST_EAL_FIXTURE_H
#define TEST_EAL_FIXTURE_H

#include <stddef.h>
#include <stdio.h>

#include "core/clock.h"
#include "core/eal.h"

/* Start the EAL as an ordinary user may: no huge pages, no devices but those named. Returns 0 or 1. */
static inline int
fixture_eal_start(const char *const *devices, int count)
{
    static const char *const fixed[] = { "test", "--no-huge", "--no-pci", "-m", "96" };
    static char words[16][160];
    char *argv[17];
    char err[256];
    int argc = 0;

    for (int i = 0; i < 5 + count; i++) {
        snprintf(words[argc], sizeof(words[argc]), "%s", i < 5 ? fixed[i] : devices[i - 5]);
        argv[argc] = words[argc];
        argc++;
    }
    argv[argc] = NULL;
    if (eal_start(argc, argv, err, sizeof(err)) < 0) {
        fprintf(stderr, "%s\n", err);
        return 1;
    }
    clock_init();
    return 0;
}

#endif /* TEST_EAL_FIXTURE_H */
