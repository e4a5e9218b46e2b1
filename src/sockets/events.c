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

int
events_subscribe(struct sock *sk, uint32_t queue)
{
    struct app *app = sk->app;
    struct eventq *q = eventq_at(app, queue);
    uint32_t i;

    if (q == NULL)
        return -EINVAL;
    for (i = sk->subs; i != NO_SUB; i = app->subs[i].next)
        if (app->subs[i].queue == queue)
            return 0;
    i = sub_alloc(app);
    if (i == NO_SUB)
        return -ENOSPC;
    app->subs[i] = (struct sub){ .next = sk->subs, .queue = (uint16_t)queue };
    sk->subs = i;
    q->nb_subs++;
    return 0;
}

static void
unlink_sub(struct app *app, uint32_t *link)
{
    uint32_t i = *link;

    *link = app->subs[i].next;
    app->evq[app->subs[i].queue].nb_subs--;
    app->subs[i].next = app->subs_free;
    app->subs_free = i;
}

void
events_unsubscribe(struct sock *sk, uint32_t queue)
{
    uint32_t *link = &sk->subs;

    while (*link != NO_SUB) {
        if (sk->app->subs[*link].queue == queue) {
            unlink_sub(sk->app, link);
            return;
        }
        link = &sk->app->subs[*link].next;
    }
}

void
events_unsubscribe_all(struct sock *sk)
{
    while (sk->subs != NO_SUB)
        unlink_sub(sk->app, &sk->subs);
}

/* ---- queues ------------------------------------------------------------------------------------------------------------- */

static void
touch(struct stack *s, struct app *app, uint32_t queue)
{
    struct eventq *q = &app->evq[queue];

    if (q->touched)
        return;
    if (s->nb_touched == WAKE_BATCH)
        events_wake(s);
    q->touched = true;
    s->touched[s->nb_touched++] = (struct eventq_ref){ .app = app, .queue = queue };
}

/* `head` is the application's word and serves two comparisons only: a lie makes it miss or repeat its own events. */
static void
append(struct stack *s, struct sock *sk, struct sub *sub)
{
    struct app *app = sk->app;
    struct eventq *q = &app->evq[sub->queue];
    struct shm_back_eventq *b = &app->back_evq[sub->queue];
    uint32_t head = shm_load(&app->front_evq[sub->queue].head);

    if (sub->queued && (int32_t)(sub->position - head) > 0)
        return; /* stands there and has not been taken: whoever takes it will see this change too */
    if (q->tail - head >= SHM_EVENTQ_ENTRIES) {
        counter_inc(s->ctr, CTR_SOCK_EVENT_OVERFLOW);
        shm_store(&b->overflow, b->overflow + 1);
    } else {
        b->slot[q->tail % SHM_EVENTQ_ENTRIES] = sk->slot;
        shm_store(&b->tail, ++q->tail);
        sub->position = q->tail;
        sub->queued = true;
        counter_inc(s->ctr, CTR_SOCK_EVENTS);
    }
    touch(s, app, sub->queue);
}

void
events_append(struct stack *s, struct sock *sk)
{
    struct app *app = sk->app;

    for (uint32_t i = sk->subs; i != NO_SUB; i = app->subs[i].next)
        append(s, sk, &app->subs[i]);
}

void
events_wake(struct stack *s)
{
    static const uint64_t one = 1;
    unsigned n = s->nb_touched;

    if (n == 0)
        return;
    s->nb_touched = 0;
    shm_fence();
    for (unsigned i = 0; i < n; i++) {
        struct app *app = s->touched[i].app;
        struct eventq *q = &app->evq[s->touched[i].queue];

        q->touched = false;
        if (q->fd < 0 || shm_load(&app->front_evq[s->touched[i].queue].sleeping) == 0)
            continue;
        counter_inc(s->ctr, CTR_SOCK_WAKEUPS);
        /* A full pipe is readable, and that is all that the sleeper needs. */
        if (write(q->fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
            counter_inc(s->ctr, CTR_SOCK_EVENT_OVERFLOW);
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
    for (uint32_t slot = 0; slot < app->slots_used; slot++) {
        struct sock *sk = sock_at(app, slot);

        if (sk != NULL && sk->subs != NO_SUB)
            events_unsubscribe(sk, queue);
    }
    return fd;
}
