/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/counter.h"

const struct counter_info counter_infos[CTR_COUNT] = {
#define COUNTER(id, label, meaning) [CTR_##id] = { .name = label, .text = meaning },
#include "core/counters.def"
#undef COUNTER
};
