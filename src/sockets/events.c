/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <errno.h>
#include <unistd.h>

#define NO_SUB 0u

static struct eventq *
eventq_at(struct app *app, uint32_t queue)
{
    return queue < SHM_MAX_EVENTQS && app->evq[queue].fd >= 0 ? &app->evq[queue] : NULL;
}

/* ---- subscriptions ---------------------------------------------------------------------------------------------------- */

static uint32_t
sub_alloc(struct app *app)
{
    uint32_t i = app->subs_free;

    if (i != NO_SUB)
        app->subs_free = app->subs[i].next;
    else if (app->subs_used < app->max_subs)
        i = app->subs_used++;
    return i;
}

/* Domains share an application's queues; a stack with a single worker needs no lock. */
static void
events_enter(struct net *net, struct app *app)
{
    if (net->host->nb_nets > 1)
        lock_take(&app->events_lock, net->ctr, CTR_LOCK_EVENTS);
}

static void
events_leave(struct net *net, struct app *app)
{
    if (net->host->nb_nets > 1)
        lock_give(&app->events_lock);
}

static int
subscribe(struct app *app, uint32_t slot, uint32_t queue)
{
    struct eventq *q = eventq_at(app, queue);
    uint32_t i;

    if (q == NULL)
        return -EINVAL;
    for (i = app->slot_subs[slot]; i != NO_SUB; i = app->subs[i].next)
        if (app->subs[i].queue == queue)
            return 0;
    i = sub_alloc(app);
    if (i == NO_SUB)
        return -ENOSPC;
    app->subs[i] = (struct sub){ .next = app->slot_subs[slot], .queue = (uint16_t)queue };
    shm_store(&app->slot_subs[slot], i);
    q->nb_subs++;
    return 0;
}

int
events_subscribe(struct net *net, struct app *app, uint32_t slot, uint32_t queue)
{
    int rc;

    events_enter(net, app);
    rc = subscribe(app, slot, queue);
    events_leave(net, app);
    return rc;
}

static void
unlink_sub(struct app *app, uint32_t *link)
{
    uint32_t i = *link;

    shm_store(link, app->subs[i].next);
    app->evq[app->subs[i].queue].nb_subs--;
    app->subs[i].next = app->subs_free;
    app->subs_free = i;
}

static void
unsubscribe(struct app *app, uint32_t slot, uint32_t queue)
{
    uint32_t *link = &app->slot_subs[slot];

    while (*link != NO_SUB) {
        if (app->subs[*link].queue == queue) {
            unlink_sub(app, link);
            return;
        }
        link = &app->subs[*link].next;
    }
}

void
events_unsubscribe(struct net *net, struct app *app, uint32_t slot, uint32_t queue)
{
    events_enter(net, app);
    unsubscribe(app, slot, queue);
    events_leave(net, app);
}

void
events_unsubscribe_all(struct net *net, struct app *app, uint32_t slot)
{
    if (app->slot_subs[slot] == NO_SUB)
        return;
    events_enter(net, app);
    while (app->slot_subs[slot] != NO_SUB)
        unlink_sub(app, &app->slot_subs[slot]);
    events_leave(net, app);
}

/* ---- queues ------------------------------------------------------------------------------------------------------------- */

/* Apart, so that who is alone need save no registers for it. */
static __rte_noinline void
touch(struct net *net, struct app *app, uint32_t queue)
{
    struct eventq *q = &app->evq[queue];
    uint32_t bit = 1u << net->number;

    if (__atomic_load_n(&q->touched, __ATOMIC_RELAXED) & bit)
        return; /* by this worker, which alone changes it */
    __atomic_fetch_or(&q->touched, bit, __ATOMIC_RELAXED);
    if (net->nb_touched == WAKE_BATCH)
        events_wake(net);
    net->touched[net->nb_touched++] = (struct eventq_ref){ .app = app, .queue = queue };
}

/* `head` is the application's word and serves two comparisons only: a lie makes it miss or repeat its own events. */
static __rte_noinline void
append(struct net *net, struct app *app, uint32_t slot, struct sub *sub)
{
    struct eventq *q = &app->evq[sub->queue];
    struct shm_back_eventq *b = &app->back_evq[sub->queue];
    const struct shm_front_eventq *f = &app->front_evq[sub->queue];
    uint32_t head = shm_load(&f->head);

    if (sub->queued && (int32_t)(sub->position - head) > 0)
        return; /* stands there and has not been taken: whoever takes it will see this change too */
    if (q->tail - head >= SHM_EVENTQ_ENTRIES) {
        counter_inc(net->ctr, CTR_SOCK_EVENT_OVERFLOW);
        shm_store(&b->overflow, b->overflow + 1);
    } else {
        b->slot[q->tail % SHM_EVENTQ_ENTRIES] = slot;
        shm_store(&b->tail, ++q->tail);
        sub->position = q->tail;
        sub->queued = true;
        counter_inc(net->ctr, CTR_SOCK_EVENTS);
    }
    /* Where no other thread is about to sleep, who sleeps is known now; who will looks at the queue first. */
    if (!net->alone || shm_load(&f->sleeping) != 0)
        touch(net, app, sub->queue);
}

void
events_append(struct net *net, struct app *app, uint32_t slot)
{
    events_enter(net, app);
    for (uint32_t i = app->slot_subs[slot]; i != NO_SUB; i = app->subs[i].next)
        append(net, app, slot, &app->subs[i]);
    events_leave(net, app);
}

void
events_announce(struct net *net, struct app *app, uint32_t slot, uint32_t queue)
{
    shm_fence();
    events_enter(net, app);
    for (uint32_t i = app->slot_subs[slot]; i != NO_SUB; i = app->subs[i].next)
        if (app->subs[i].queue == queue)
            append(net, app, slot, &app->subs[i]);
    events_leave(net, app);
}

void
events_wake(struct net *net)
{
    static const uint64_t one = 1;
    unsigned n = net->nb_touched;

    if (n == 0)
        return;
    net->nb_touched = 0;
    if (!net->alone)
        shm_fence();
    for (unsigned i = 0; i < n; i++) {
        struct app *app = net->touched[i].app;
        struct eventq *q = &app->evq[net->touched[i].queue];

        __atomic_fetch_and(&q->touched, ~(1u << net->number), __ATOMIC_RELAXED);
        if (q->fd < 0 || shm_load(&app->front_evq[net->touched[i].queue].sleeping) == 0)
            continue;
        counter_inc(net->ctr, CTR_SOCK_WAKEUPS);
        /* A full pipe is readable, and that is all that the sleeper needs. */
        if (write(q->fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
            counter_inc(net->ctr, CTR_SOCK_EVENT_OVERFLOW);
    }
}

int
app_eventq_add(struct app *app, int fd)
{
    for (uint32_t i = 0; i < SHM_MAX_EVENTQS; i++) {
        struct eventq *q = &app->evq[i];

        /* A queue keeps its tail for the next user, and its number while a socket still names it. */
        if (q->fd >= 0 || q->nb_subs != 0)
            continue;
        q->fd = fd;
        return (int)i;
    }
    return -ENOSPC;
}

int
app_eventq_remove(struct app *app, uint32_t queue)
{
    struct eventq *q = eventq_at(app, queue);
    int fd;

    if (q == NULL)
        return -1;
    fd = q->fd;
    q->fd = -1;
    for (uint32_t slot = 0; slot < app->slots_used; slot++)
        unsubscribe(app, slot, queue);
    return fd;
}
