/* SPDX-License-Identifier: BSD-3-Clause */
#include "evq.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "libc.h"
#include "sole.h"

static void *
map_per_slot(size_t each)
{
    void *p = mmap(NULL, front->lay.max_socks * each, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void
evq_set_sock(uint32_t slot, struct obj *o)
{
    struct obj **map = __atomic_load_n(&front->sock_of_slot, __ATOMIC_ACQUIRE), **expected = NULL;

    if (map == NULL) {
        map = map_per_slot(sizeof(*map));
        if (map == NULL)
            return;
        if (!__atomic_compare_exchange_n(&front->sock_of_slot, &expected, map, false, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE)) {
            munmap(map, front->lay.max_socks * sizeof(*map));
            map = expected;
        }
    }
    __atomic_store_n(&map[slot], o, __ATOMIC_RELEASE);
}

struct obj *
evq_get_sock(uint32_t slot)
{
    struct obj *o = evq_peek_sock(slot);

    if (o == NULL || !obj_try_hold(o))
        return NULL;
    if (evq_peek_sock(slot) == o && o->slot == slot)
        return o;
    obj_put(o);
    return NULL;
}

/* ---- the queue ---------------------------------------------------------------------------------------------------------- */

static struct shm_front_eventq *
front_q(const struct evq *q)
{
    return (struct shm_front_eventq *)(void *)(front->front + front->lay.front_eventqs_off) + q->queue;
}

static const struct shm_back_eventq *
back_q(const struct evq *q)
{
    return (const struct shm_back_eventq *)(const void *)(front->back + front->lay.back_eventqs_off) + q->queue;
}

int
evq_open(struct evq *q)
{
    int rc;

    memset(q, 0, sizeof(*q));
    q->subscribed = map_per_slot(sizeof(*q->subscribed));
    if (q->subscribed == NULL)
        return -ENOMEM;
    rc = front_eventq_create(&q->queue, &q->fd);
    if (rc != 0) {
        munmap(q->subscribed, front->lay.max_socks * sizeof(*q->subscribed));
        return rc;
    }
    /* The number may have had another user: its entries are none of ours. */
    store_relaxed(&front_q(q)->sleeping, 0);
    store_release(&front_q(q)->head, load_acquire(&back_q(q)->tail));
    q->overflow = load_relaxed(&back_q(q)->overflow);
    q->open = true;
    return 0;
}

static void
release_local(struct evq *q)
{
    munmap(q->subscribed, front->lay.max_socks * sizeof(*q->subscribed));
    q->subscribed = NULL;
    q->open = false;
}

void
evq_close(struct evq *q)
{
    if (!q->open)
        return;
    store_release(&front_q(q)->sleeping, 0);
    front_eventq_destroy(q->queue, q->fd);
    release_local(q);
}

void
evq_forget(struct evq *q)
{
    if (!q->open)
        return;
    fd_set_internal(q->fd, false);
    libc()->close(q->fd);
    release_local(q);
}

void
evq_subscribe(struct evq *q, uint32_t slot)
{
    uint32_t state = load_acquire(&slot_claim(front_sock(slot))->state);

    if (load_relaxed(&q->subscribed[slot]) == state)
        return;
    store_relaxed(&q->subscribed[slot], state);
    command_queue(slot, SHM_OP_SUBSCRIBE, q->queue, load_acquire(&back_sock(slot)->event_seq));
}

void
evq_unsubscribe(struct evq *q, uint32_t slot)
{
    if (load_relaxed(&q->subscribed[slot]) == 0)
        return;
    store_relaxed(&q->subscribed[slot], 0);
    if (load_acquire(&back_sock(slot)->status) & SHM_ST_OPEN)
        command_queue(slot, SHM_OP_UNSUBSCRIBE, q->queue, 0);
}

bool
evq_has_entries(const struct evq *q)
{
    return load_acquire(&back_q(q)->tail) != load_acquire(&front_q(q)->head) ||
           load_relaxed(&back_q(q)->overflow) != load_acquire(&q->overflow);
}

unsigned
evq_take(struct evq *q, uint32_t *slots, unsigned max, bool *all)
{
    const struct shm_back_eventq *b = back_q(q);
    struct shm_front_eventq *f = front_q(q);
    uint32_t head = load_relaxed(&f->head), avail = load_acquire(&b->tail) - head;
    uint32_t overflow = load_acquire(&b->overflow);
    unsigned i, n = avail > max ? max : avail;

    *all = overflow != q->overflow;
    store_release(&q->overflow, overflow); /* is looked at without the set's lock */
    for (i = 0; i < n; i++)
        slots[i] = load_relaxed(&b->slot[(head + i) % SHM_EVENTQ_ENTRIES]);
    if (n > 0)
        store_release(&f->head, head + n);
    sole_fence(); /* taken before the sockets are looked at: what changes later is in a new entry */
    return n;
}

void
evq_sleep_begin(struct evq *q)
{
    chunks_trim(wait_now_us());
    __atomic_add_fetch(&q->sleepers, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&front_q(q)->sleeping, 1, __ATOMIC_SEQ_CST);
    full_fence();
    sole_meet(); /* the sole one puts down an event without a fence before it looks for us */
}

void
evq_sleep_end(struct evq *q)
{
    if (__atomic_sub_fetch(&q->sleepers, 1, __ATOMIC_SEQ_CST) != 0)
        return;
    __atomic_store_n(&front_q(q)->sleeping, 0, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&q->sleepers, __ATOMIC_SEQ_CST) != 0)
        __atomic_store_n(&front_q(q)->sleeping, 1, __ATOMIC_SEQ_CST); /* someone came between the two */
}

void
evq_drain_fd(const struct evq *q)
{
    char buf[512];
    int saved_errno = errno;

    while (libc()->read(q->fd, buf, sizeof(buf)) == (ssize_t)sizeof(buf))
        ;
    errno = saved_errno;
}
