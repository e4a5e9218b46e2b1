/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A live process leaves a ring half updated for nanoseconds, or for as long as it is not scheduled. */
#define STUCK_US 50000u
#define POP_BURST 32u

void *
lazy_alloc(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p != MAP_FAILED ? p : NULL;
}

void *
lazy_alloc_by_page(size_t bytes)
{
    void *p = lazy_alloc(bytes);

    if (p != NULL)
        madvise(p, bytes, MADV_NOHUGEPAGE); /* a kernel without large pages refuses, and needs no telling */
    return p;
}

void
lazy_free(void *p, size_t bytes)
{
    if (p != NULL)
        munmap(p, bytes);
}

void
lazy_give_back(void *at, size_t bytes)
{
    /* Where pages are larger it is not for the system to take. */
    if (((uintptr_t)at | bytes) % (size_t)sysconf(_SC_PAGESIZE) == 0)
        madvise(at, bytes, MADV_DONTNEED);
}

/* ---- life ----------------------------------------------------------------------------------------------------------- */

static bool
apps_reserve(struct host *h)
{
    uint32_t capacity = h->apps_capacity != 0 ? 2 * h->apps_capacity : 16;
    struct app **apps;

    if (h->nb_apps < h->apps_capacity)
        return true;
    apps = realloc(h->apps, capacity * sizeof(*apps));
    if (apps == NULL)
        return false;
    h->apps = apps;
    h->apps_capacity = capacity;
    return true;
}

static void
map_regions(struct app *app)
{
    const struct arena *a = app->arena;
    const struct shm_layout *l = &a->layout;

    app->front = (struct shm_front_sock *)(a->front + l->front_socks_off);
    app->front_keys = (const struct shm_key *)(a->front + l->front_keys_off);
    app->back_more = (struct shm_back_more *)(a->back + l->back_more_off);
    app->back_names = (struct shm_back_name *)(a->back + l->back_names_off);
    app->front_more = (struct shm_front_more *)(a->front + l->front_more_off);
    app->back = (struct shm_back_sock *)(a->back + l->back_socks_off);
    app->front_evq = (struct shm_front_eventq *)(a->front + l->front_eventqs_off);
    app->back_evq = (struct shm_back_eventq *)(a->back + l->back_eventqs_off);
    app->info = (struct shm_info *)(a->back + l->back_info_off);
    app->chunks = a->front + l->front_chunks_off;
    app->smalls = a->front + l->front_smalls_off;
    for (uint32_t i = 0; i < app->nb_rings * l->nb_instances; i++) {
        struct ring_view *v = &app->rings[i];

        v->ring = (struct rte_ring *)(a->front + l->front_rings_off + (uint64_t)i * l->ring_bytes);
        v->elements = (const uint32_t *)(v->ring + 1);
    }
}

static void
app_free(struct app *app)
{
    for (uint32_t i = 0; i < app->nb_members; i++)
        free(app->members[i].holds);
    free(app->members);
    free(app->rings);
    lazy_free(app->slot_locks, app->max_socks * sizeof(app->slot_locks[0]));
    lazy_free(app->slot_ref, app->max_socks * sizeof(app->slot_ref[0]));
    lazy_free(app->slot_subs, app->max_socks * sizeof(app->slot_subs[0]));
    lazy_free(app->subs, app->max_subs * sizeof(app->subs[0]));
    free(app);
}

struct app *
app_create(struct host *h, struct arena *a, bool privileged)
{
    struct app *app = aligned_alloc(64, RTE_ALIGN_CEIL(sizeof(*app), (size_t)64));

    if (app == NULL)
        return NULL;
    memset(app, 0, sizeof(*app));
    app->host = h;
    app->id = ++h->next_app_id;
    app->arena = a;
    app->privileged = privileged;
    app->max_socks = a->layout.max_socks;
    app->nb_chunks = a->layout.nb_chunks;
    app->nb_smalls = a->layout.nb_smalls;
    app->nb_rings = a->layout.nb_rings_per_instance;
    app->max_subs = 1 + 4 * app->max_socks;
    app->subs_used = 1; /* index 0 stands for none */
    app->rings = calloc(RTE_MAX(app->nb_rings, 1u) * (size_t)a->layout.nb_instances, sizeof(app->rings[0]));
    app->slot_ref = lazy_alloc(app->max_socks * sizeof(app->slot_ref[0]));
    if (h->shared != NULL)
        app->slot_locks = lazy_alloc(app->max_socks * sizeof(app->slot_locks[0]));
    app->slot_subs = lazy_alloc(app->max_socks * sizeof(app->slot_subs[0]));
    app->subs = lazy_alloc(app->max_subs * sizeof(app->subs[0]));
    if (app->rings == NULL || app->slot_ref == NULL || app->slot_subs == NULL || app->subs == NULL ||
        (h->shared != NULL && app->slot_locks == NULL) || !apps_reserve(h)) {
        app_free(app);
        return NULL;
    }
    for (unsigned i = 0; i < SHM_MAX_EVENTQS; i++)
        app->evq[i].fd = -1;
    map_regions(app);
    h->apps[h->nb_apps++] = app;
    counter_inc(h->nets[0]->ctr, CTR_SOCK_APPS);
    return app;
}

void
app_destroy(struct app *app)
{
    struct host *h = app->host;

    for (uint32_t i = 0; i < h->nb_apps; i++) {
        if (h->apps[i] == app) {
            h->apps[i] = h->apps[--h->nb_apps];
            break;
        }
    }
    arena_release(app->arena);
    app_free(app);
}

/* Nothing that it writes is read from now on; its connections are reset. */
static void
app_expel(struct app *app)
{
    for (uint32_t slot = 0; slot < app->slots_used; slot++) {
        struct sock *sk = sock_at(app, slot);

        if (sk != NULL && !(sk->flags & SOCK_CLOSING))
            sock_bad(host_stack_of(app->host, app, slot), sk);
    }
}

void
app_settle(struct host *h)
{
    for (uint32_t i = 0; i < h->nb_apps; i++) {
        struct app *app = h->apps[i];

        if (unlikely(app->expelled && !app->expel_done)) {
            app->expel_done = true;
            app_expel(app);
        }
        if (unlikely(app->relax)) {
            app->relax = false;
            for (uint32_t k = 0; k < h->nb_stacks; k++)
                rx_relax(h->stacks[k], app);
        }
    }
}

void
app_reap(struct host *h)
{
    for (uint32_t i = 0; i < h->nb_apps;) {
        struct app *app = h->apps[i];

        if (app->joined && app->live_members == 0 && app->nb_socks == 0)
            app_destroy(app);
        else
            i++;
    }
}

/* ---- members ---------------------------------------------------------------------------------------------------------- */

static size_t
holds_words(const struct app *app)
{
    return (app->max_socks + 63) / 64;
}

bool
app_member_ok(const struct app *app, uint16_t member)
{
    return member != 0 && member <= app->nb_members && app->members[member - 1].holds != NULL;
}

bool
app_member_holds(const struct app *app, uint16_t member, uint32_t slot)
{
    return (__atomic_load_n(&app->members[member - 1].holds[slot / 64], __ATOMIC_RELAXED) >> (slot % 64) & 1) != 0;
}

/* Slots of one word may live in domains of several workers. */
static void
set_hold(struct app *app, uint16_t member, uint32_t slot, bool holds)
{
    uint64_t *word = &app->members[member - 1].holds[slot / 64], bit = UINT64_C(1) << (slot % 64);

    if (app->host->nb_nets == 1)
        __atomic_store_n(word, holds ? *word | bit : *word & ~bit, __ATOMIC_RELAXED);
    else if (holds)
        __atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
    else
        __atomic_fetch_and(word, ~bit, __ATOMIC_RELAXED);
}

void
app_member_hold(struct app *app, uint16_t member, uint32_t slot)
{
    set_hold(app, member, slot, true);
    sock_at(app, slot)->holders++;
}

void
app_member_drop(struct app *app, uint16_t member, uint32_t slot)
{
    set_hold(app, member, slot, false);
    sock_at(app, slot)->holders--;
}

/* A number of a process that ended, or the next one; 0 = none left. */
static uint16_t
member_number(struct app *app)
{
    struct app_member *grown;

    for (uint32_t i = 0; i < app->nb_members; i++)
        if (app->members[i].holds == NULL)
            return (uint16_t)(i + 1);
    if (app->nb_members == APP_MAX_MEMBERS)
        return 0;
    grown = realloc(app->members, (app->nb_members + 1) * sizeof(*grown));
    if (grown == NULL)
        return 0;
    app->members = grown;
    app->members[app->nb_members++] = (struct app_member){ 0 };
    return (uint16_t)app->nb_members;
}

int
app_member_join(struct app *app, uint16_t parent, pid_t pid)
{
    uint64_t *holds;
    uint16_t number;

    if (parent != 0 && !app_member_ok(app, parent))
        return -ENOENT;
    number = member_number(app);
    if (number == 0)
        return -ENFILE;
    holds = calloc(holds_words(app), sizeof(*holds));
    if (holds == NULL)
        return -ENOMEM;
    app->members[number - 1] = (struct app_member){ .pid = pid, .holds = holds };
    app->live_members++;
    app->joined = true;
    for (uint32_t slot = 0; parent != 0 && slot < app->slots_used; slot++)
        if (app_member_holds(app, parent, slot))
            app_member_hold(app, number, slot);
    return number;
}

void
app_member_set_pid(struct app *app, uint16_t member, pid_t pid)
{
    if (app_member_ok(app, member) && pid > 0)
        app->members[member - 1].pid = pid;
}

pid_t
app_holder_pid(const struct app *app, uint32_t slot)
{
    for (uint32_t i = 0; i < app->nb_members; i++)
        if (app->members[i].holds != NULL && app_member_holds(app, (uint16_t)(i + 1), slot))
            return app->members[i].pid;
    return 0;
}

/*
 * Serve every slot with an unserved notification: a process may have died between raising `notified` and
 * enqueuing, and nobody else will enqueue that slot again. all: what was written without any notification too, with the world stopped.
 */
static void
serve_slots(struct net *net, struct app *app, bool all)
{
    uint32_t used = __atomic_load_n(&app->slots_used, __ATOMIC_RELAXED);

    for (uint32_t slot = 0; slot < used; slot++) {
        const struct shm_back_sock *b = &app->back[slot];
        bool unserved = shm_load(&app->front[slot].notified) != shm_load(&b->serviced);

        if (all && (unserved || sock_at(app, slot) != NULL))
            commands_service(host_stack_of(app->host, app, slot), app, slot, true);
        else if (unserved)
            net_dispatch(net, app, &slot, 1);
    }
}

void
app_serve(struct net *net, struct app *app, const uint32_t *slots, unsigned n, uint64_t now_us)
{
    net->now_us = now_us;
    counter_add(net->ctr, CTR_SOCK_NOTIFICATIONS, n);
    net_dispatch(net, app, slots, n);
}

void
app_serve_all(struct net *net, struct app *app, uint64_t now_us)
{
    net->now_us = now_us;
    serve_slots(net, app, false);
}

void
app_member_leave(struct app *app, uint16_t member)
{
    struct host *h = app->host;

    if (!app_member_ok(app, member))
        return;
    /* Bytes that it sent before it ended go out, as they would from a kernel's buffers. */
    if (!app->expelled)
        serve_slots(h->nets[0], app, true);
    message_run(h->stacks[0]->net, h->stacks[0]->env.now_us);
    for (uint32_t slot = 0; slot < app->slots_used; slot++) {
        struct sock *sk;

        if (!app_member_holds(app, member, slot))
            continue;
        app_member_drop(app, member, slot);
        sk = sock_at(app, slot);
        if (sk->holders == 0)
            sock_close(host_stack_of(h, app, slot), sk, false);
    }
    free(app->members[member - 1].holds);
    app->members[member - 1] = (struct app_member){ 0 };
    app->live_members--;
    for (uint32_t i = 0; i < app->nb_rings * h->nb_nets; i++)
        app->rings[i].repair = true;
    counter_inc(h->nets[0]->ctr, CTR_SOCK_APPS_GONE);
    if (app->live_members == 0 && app->nb_socks == 0)
        host_want_stop(h);
}

/* ---- notification rings --------------------------------------------------------------------------------------------------- */

static struct ring_view *
own_rings(const struct net *net, const struct app *app)
{
    return app->rings + (size_t)net->number * app->nb_rings;
}

static bool
ring_waits(const struct ring_view *v)
{
    return __atomic_load_n(&v->ring->prod.tail, __ATOMIC_ACQUIRE) != v->head;
}

/* Take up to max entries. The elements are the application's words, i.e. any number at all. */
static unsigned
ring_pop(struct net *net, struct app *app, struct ring_view *v, uint32_t *out, unsigned max)
{
    uint32_t tail = __atomic_load_n(&v->ring->prod.tail, __ATOMIC_ACQUIRE);
    uint32_t n = tail - v->head;

    if (n == 0)
        return 0;
    if (unlikely(n > SHM_RING_ENTRIES)) {
        counter_inc(net->ctr, CTR_SOCK_BAD_COMMAND);
        app->expelled = true;
        host_want_stop(app->host);
        return 0;
    }
    n = RTE_MIN(n, max);
    for (uint32_t i = 0; i < n; i++)
        out[i] = shm_load(&v->elements[(v->head + i) & (SHM_RING_ENTRIES - 1)]);
    v->head += n;
    __atomic_store_n(&v->ring->cons.head, v->head, __ATOMIC_RELAXED);
    __atomic_store_n(&v->ring->cons.tail, v->head, __ATOMIC_RELEASE);
    return n;
}

static unsigned
serve_ring(struct net *net, struct app *app, struct ring_view *v, unsigned budget)
{
    uint32_t slots[POP_BURST];
    unsigned total = 0;

    while (total < budget) {
        unsigned n = ring_pop(net, app, v, slots, RTE_MIN(POP_BURST, budget - total)), good = 0;

        for (unsigned i = 0; i < n; i++) {
            if (likely(slots[i] < app->max_socks)) {
                rte_prefetch0(&app->front[slots[i]]);
                rte_prefetch0(&app->back[slots[i]]);
                slots[good++] = slots[i];
            } else {
                counter_inc(net->ctr, CTR_SOCK_DROP_QUEUE);
            }
        }
        net_dispatch(net, app, slots, good);
        total += n;
        if (n < POP_BURST)
            break;
    }
    counter_add(net->ctr, CTR_SOCK_NOTIFICATIONS, total);
    return total;
}

/*
 * A process that died inside an enqueue leaves head before tail, and everyone who enqueues after it waits for tail to come to
 * his place. When a member has died and tail has not moved for long, step over one entry at a time; the slots behind lost entries are
 * found by serve_slots. v->repair stays while something is under suspicion.
 */
static void
ring_repair(struct net *net, struct app *app, struct ring_view *v, uint64_t now_us)
{
    uint32_t head = __atomic_load_n(&v->ring->prod.head, __ATOMIC_ACQUIRE);
    uint32_t tail = __atomic_load_n(&v->ring->prod.tail, __ATOMIC_ACQUIRE);

    v->repair = head != tail;
    if (!v->repair) {
        v->stuck_at_us = 0;
        return;
    }
    if (v->stuck_at_us == 0 || v->stuck_tail != tail) {
        v->stuck_at_us = now_us;
        v->stuck_tail = tail;
        return;
    }
    if (now_us - v->stuck_at_us >= STUCK_US) {
        /* Whatever stands in the entry is served like any other: a wrong number costs nothing. */
        __atomic_store_n(&v->ring->prod.tail, tail + 1, __ATOMIC_RELEASE);
        v->stuck_at_us = now_us;
        v->stuck_tail = tail + 1;
        serve_slots(net, app, false);
    }
}

unsigned
app_poll(struct net *net, struct app *app, unsigned budget, uint64_t now_us)
{
    struct ring_view *rings = own_rings(net, app);
    unsigned n = 0;

    if (unlikely(app->expelled || app->live_members == 0))
        return 0;
    for (uint32_t i = 0; i < app->nb_rings && n < budget && !app->expelled; i++) {
        if (ring_waits(&rings[i])) /* few passes find anything */
            n += serve_ring(net, app, &rings[i], budget - n);
        if (unlikely(rings[i].repair))
            ring_repair(net, app, &rings[i], now_us);
    }
    return n;
}

bool
app_has_work(const struct net *net, const struct app *app)
{
    const struct ring_view *rings = own_rings(net, app);

    if (app->expelled || app->live_members == 0)
        return false;
    for (uint32_t i = 0; i < app->nb_rings; i++)
        if (ring_waits(&rings[i]))
            return true;
    return false;
}

uint64_t
app_next_us(const struct net *net, const struct app *app)
{
    const struct ring_view *rings = own_rings(net, app);
    uint64_t next = UINT64_MAX;

    if (app->expelled || app->live_members == 0)
        return next;
    /* 0: a member has just died, its rings have not been looked at yet. */
    for (uint32_t i = 0; i < app->nb_rings; i++)
        if (unlikely(rings[i].repair))
            next = RTE_MIN(next, rings[i].stuck_at_us != 0 ? rings[i].stuck_at_us + STUCK_US : 0);
    return next;
}
