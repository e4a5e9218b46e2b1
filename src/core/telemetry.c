/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_telemetry.h>

#include "core/counter.h"
#include "core/telemetry.h"

_Static_assert(CTR_COUNT <= RTE_TEL_MAX_DICT_ENTRIES, "all counters fit one answer");

static int
on_counters(const char *cmd, const char *params, struct rte_tel_data *d)
{
    struct counters c;

    (void)cmd;
    if (params == NULL || params[0] == '\0')
        counters_sum(&c);
    else if (counters_get(params, &c) != 0)
        return -ENOENT;
    rte_tel_data_start_dict(d);
    for (unsigned i = 0; i < CTR_COUNT; i++) {
        char name[RTE_TEL_MAX_STRING_LEN];

        snprintf(name, sizeof(name), "%s", counter_infos[i].name);
        for (char *dot = strchr(name, '.'); dot != NULL; dot = strchr(dot, '.'))
            *dot = '/';
        rte_tel_data_add_dict_u64(d, name, c.v[i]);
    }
    return 0;
}

static int
on_workers(const char *cmd, const char *params, struct rte_tel_data *d)
{
    char name[COUNTERS_NAME_LEN];

    (void)cmd;
    (void)params;
    rte_tel_data_start_array(d, RTE_TEL_STRING_VAL);
    for (unsigned i = 0; counters_name(i, name) == 0; i++)
        rte_tel_data_add_array_string(d, name);
    return 0;
}

int
telemetry_init(void)
{
    int rc = rte_telemetry_register_cmd("/isosock/counters", on_counters,
                                        "Counters of all workers together. Parameter: name of one worker");

    if (rc != 0)
        return rc;
    return rte_telemetry_register_cmd("/isosock/workers", on_workers, "Names of the workers. No parameters");
}
