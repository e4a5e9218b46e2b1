/* SPDX-License-Identifier: BSD-3-Clause */
#include "modes/misd.h"

#include <errno.h>
#include <stdlib.h>

/* ---- life ------------------------------------------------------------------------------------------------------------------- */

static struct bcast *
ring_create(enum bcast_scheme scheme, unsigned replicas)
{
    const struct bcast_config cfg = {
        .replicas = replicas,
        .entries = MISD_ENTRIES,
        .entry_bytes = sizeof(struct misd_event),
        .window = scheme == BCAST_CLAIM ? MISD_WINDOW : 0,
        .scheme = scheme,
    };
    size_t bytes = bcast_bytes(cfg.replicas, cfg.entries, cfg.entry_bytes);
    void *memory = bytes != 0 ? aligned_alloc(BCAST_ALIGN, RTE_ALIGN_CEIL(bytes, (size_t)BCAST_ALIGN)) : NULL;

    if (memory != NULL && bcast_init(memory, &cfg) != 0) {
        free(memory);
        memory = NULL;
    }
    return memory;
}

int
misd_channels_init(struct misd_channels *ch, unsigned nb, enum bcast_scheme scheme, unsigned replicas)
{
    ch->nb = nb;
    ch->scheme = scheme;
    for (unsigned c = 0; c < nb; c++) {
        ch->b[c] = ring_create(scheme, replicas);
        if (ch->b[c] == NULL)
            return -ENOMEM;
    }
    if (nb > 1) {
        ch->order = calloc(MISD_ORDER, sizeof(ch->order[0]));
        if (ch->order == NULL)
            return -ENOMEM;
    }
    return 0;
}

void
misd_channels_fini(struct misd_channels *ch)
{
    for (unsigned c = 0; c < MISD_CHANNELS; c++) {
        free(ch->b[c]);
        free(ch->backlog[c].events);
    }
    free(ch->order);
}

/* ---- putting ----------------------------------------------------------------------------------------------------------------- */

unsigned
misd_channel_of(const struct misd_channels *ch, const struct misd_event *ev)
{
    bool packet = ev->kind == MISD_CALL && ev->call.op == TCP_CALL_INPUT;

    return ch->nb > 1 && packet ? MISD_PACKETS : MISD_CALLS;
}

bool
misd_try_put(struct misd_channels *ch, unsigned c, const struct misd_event *ev, uint64_t *position)
{
    if (ch->backlog[c].n > 0 || bcast_reserve(ch->b[c], 1, position) == 0)
        return false;
    bcast_put(ch->b[c], *position, ev);
    return true;
}

static bool
keep(struct misd_backlog *bl, const struct misd_event *ev)
{
    if (bl->n == bl->capacity) {
        uint32_t capacity = RTE_MAX(2 * bl->capacity, 256u);
        struct misd_event *grown = realloc(bl->events, capacity * sizeof(*grown));

        if (grown == NULL)
            return false;
        bl->events = grown;
        bl->capacity = capacity;
    }
    bl->events[bl->n++] = *ev;
    return true;
}

bool
misd_put(struct misd_channels *ch, unsigned c, const struct misd_event *ev)
{
    uint64_t position;

    return misd_try_put(ch, c, ev, &position) || keep(&ch->backlog[c], ev);
}

unsigned
misd_put_backlog(struct misd_channels *ch)
{
    unsigned n = 0;

    for (unsigned c = 0; c < ch->nb; c++) {
        struct misd_backlog *bl = &ch->backlog[c];
        unsigned put;

        if (likely(bl->n == 0))
            continue;
        put = bcast_enqueue(ch->b[c], bl->events, bl->n);
        bl->n -= put;
        memmove(bl->events, bl->events + put, bl->n * sizeof(bl->events[0]));
        n += put;
    }
    return n;
}

uint32_t
misd_room(struct misd_channels *ch)
{
    uint32_t room = UINT32_MAX;

    for (unsigned c = 0; c < ch->nb; c++)
        room = RTE_MIN(room, ch->backlog[c].n > 0 ? 0 : bcast_room(ch->b[c]));
    return room;
}

bool
misd_is_out(const struct misd_channels *ch, unsigned replica)
{
    for (unsigned c = 0; c < ch->nb; c++)
        if (bcast_state(ch->b[c], replica) != BCAST_IN)
            return true;
    return false;
}
