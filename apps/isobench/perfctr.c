/* SPDX-License-Identifier: BSD-3-Clause */
#include "perfctr.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const uint64_t configs[PERFCTR_COUNT] = {
    [PERFCTR_CYCLES] = PERF_COUNT_HW_CPU_CYCLES,
    [PERFCTR_INSTRUCTIONS] = PERF_COUNT_HW_INSTRUCTIONS,
    [PERFCTR_L2_MISSES] = PERF_COUNT_HW_CACHE_MISSES,
};

static int
open_event(uint64_t config, bool user_only)
{
    struct perf_event_attr attr = {
        .type = PERF_TYPE_HARDWARE,
        .size = sizeof(attr),
        .config = config,
        .disabled = 1,
        .exclude_hv = 1,
        .exclude_kernel = user_only,
        .read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING,
    };

    return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

void
perfctr_start(struct perfctr *p, struct perfctr_values *out)
{
    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; i < PERFCTR_COUNT; i++) {
        p->fd[i] = open_event(configs[i], out->user_only);
        if (p->fd[i] < 0 && !out->user_only && (errno == EACCES || errno == EPERM)) {
            out->user_only = true;
            p->fd[i] = open_event(configs[i], true);
        }
    }
    for (unsigned i = 0; i < PERFCTR_COUNT; i++) {
        if (p->fd[i] >= 0)
            ioctl(p->fd[i], PERF_EVENT_IOC_ENABLE, 0);
    }
}

void
perfctr_stop(struct perfctr *p, struct perfctr_values *out)
{
    struct {
        uint64_t value, enabled_ns, running_ns;
    } r;

    for (unsigned i = 0; i < PERFCTR_COUNT; i++) {
        if (p->fd[i] < 0)
            continue;
        ioctl(p->fd[i], PERF_EVENT_IOC_DISABLE, 0);
        /* With more events than counters the kernel takes turns: then the value is scaled up, as perf does. */
        if (read(p->fd[i], &r, sizeof(r)) == (ssize_t)sizeof(r) && r.running_ns > 0) {
            out->v[i] = r.running_ns < r.enabled_ns
                            ? (uint64_t)((double)r.value * (double)r.enabled_ns / (double)r.running_ns)
                            : r.value;
            out->valid[i] = true;
        }
        close(p->fd[i]);
        p->fd[i] = -1;
    }
}

void
perfctr_add(struct perfctr_values *sum, const struct perfctr_values *v)
{
    for (unsigned i = 0; i < PERFCTR_COUNT; i++) {
        sum->v[i] += v->v[i];
        sum->valid[i] = sum->valid[i] && v->valid[i];
    }
    sum->user_only = sum->user_only || v->user_only;
}
