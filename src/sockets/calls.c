/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <errno.h>
#include <semaphore.h>

/* On the caller's stack: it waits until the worker is done with it. */
struct stack_call_item {
    void (*fn)(struct stack *s, void *arg, uint64_t now_us);
    void *arg;
    int result;
    sem_t done;
    struct stack_call_item *next;
};

int
stack_call(struct stack *s, void (*fn)(struct stack *s, void *arg, uint64_t now_us), void *arg)
{
    struct stack_call_item item = { .fn = fn, .arg = arg };

    pthread_mutex_lock(&s->call_lock);
    if (s->calls_ended) {
        pthread_mutex_unlock(&s->call_lock);
        return -ESHUTDOWN;
    }
    sem_init(&item.done, 0, 0);
    if (s->call_first == NULL)
        s->call_first = &item;
    else
        s->call_last->next = &item;
    s->call_last = &item;
    __atomic_add_fetch(&s->calls_waiting, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&s->call_lock);
    stack_wake(s);
    while (sem_wait(&item.done) != 0)
        ;
    sem_destroy(&item.done);
    return item.result;
}

static struct stack_call_item *
take_all(struct stack *s, bool end)
{
    struct stack_call_item *first;

    pthread_mutex_lock(&s->call_lock);
    first = s->call_first;
    s->call_first = s->call_last = NULL;
    __atomic_store_n(&s->calls_waiting, 0, __ATOMIC_SEQ_CST);
    s->calls_ended |= end;
    pthread_mutex_unlock(&s->call_lock);
    return first;
}

unsigned
stack_calls(struct stack *s, uint64_t now_us)
{
    struct stack_call_item *item;
    unsigned n = 0;

    if (likely(__atomic_load_n(&s->calls_waiting, __ATOMIC_ACQUIRE) == 0))
        return 0;
    item = take_all(s, false);
    s->env.now_us = now_us;
    while (item != NULL) {
        struct stack_call_item *next = item->next; /* the item is the caller's again once posted */

        item->fn(s, item->arg, now_us);
        sem_post(&item->done);
        item = next;
        n++;
    }
    return n;
}

void
stack_calls_end(struct stack *s)
{
    struct stack_call_item *item = take_all(s, true);

    while (item != NULL) {
        struct stack_call_item *next = item->next;

        item->result = -ESHUTDOWN;
        sem_post(&item->done);
        item = next;
    }
}
