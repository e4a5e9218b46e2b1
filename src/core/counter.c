/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "core/counter.h"

const struct counter_info counter_infos[CTR_COUNT] = {
#define COUNTER(id, label, meaning) [CTR_##id] = { .name = label, .text = meaning },
#include "core/counters.def"
#undef COUNTER
};

static struct {
    pthread_mutex_t lock; /* guards all below */
    unsigned count;
    struct {
        char name[COUNTERS_NAME_LEN];
        const struct counters *c;
    } entries[COUNTERS_MAX];
    struct counters gone; /* sum of the arrays that were unregistered */
} registry = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void
accumulate(struct counters *sum, const struct counters *c)
{
    for (unsigned i = 0; i < CTR_COUNT; i++)
        sum->v[i] += counter_read(c, i);
}

/* Index of the name, registry.count if absent. The caller holds the lock. */
static unsigned
find(const char *name)
{
    unsigned i = 0;

    while (i < registry.count && strcmp(registry.entries[i].name, name) != 0)
        i++;
    return i;
}

int
counters_register(const char *name, const struct counters *c)
{
    int rc = 0;

    if (name[0] == '\0' || strlen(name) >= COUNTERS_NAME_LEN)
        return -EINVAL;
    pthread_mutex_lock(&registry.lock);
    if (find(name) < registry.count) {
        rc = -EEXIST;
    } else if (registry.count == COUNTERS_MAX) {
        rc = -ENOSPC;
    } else {
        strcpy(registry.entries[registry.count].name, name);
        registry.entries[registry.count++].c = c;
    }
    pthread_mutex_unlock(&registry.lock);
    return rc;
}

void
counters_unregister(const struct counters *c)
{
    pthread_mutex_lock(&registry.lock);
    for (unsigned i = 0; i < registry.count; i++) {
        if (registry.entries[i].c != c)
            continue;
        accumulate(&registry.gone, c);
        registry.count--;
        memmove(&registry.entries[i], &registry.entries[i + 1], (registry.count - i) * sizeof(registry.entries[0]));
        break;
    }
    pthread_mutex_unlock(&registry.lock);
}

void
counters_sum(struct counters *out)
{
    memset(out, 0, sizeof(*out));
    pthread_mutex_lock(&registry.lock);
    accumulate(out, &registry.gone);
    for (unsigned i = 0; i < registry.count; i++)
        accumulate(out, registry.entries[i].c);
    pthread_mutex_unlock(&registry.lock);
}

int
counters_get(const char *name, struct counters *out)
{
    int rc = -ENOENT;

    memset(out, 0, sizeof(*out));
    pthread_mutex_lock(&registry.lock);
    unsigned i = find(name);

    if (i < registry.count) {
        accumulate(out, registry.entries[i].c);
        rc = 0;
    }
    pthread_mutex_unlock(&registry.lock);
    return rc;
}

int
counters_name(unsigned i, char name[COUNTERS_NAME_LEN])
{
    int rc = -ENOENT;

    pthread_mutex_lock(&registry.lock);
    if (i < registry.count) {
        strcpy(name, registry.entries[i].name);
        rc = 0;
    }
    pthread_mutex_unlock(&registry.lock);
    return rc;
}
