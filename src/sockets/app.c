/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A live process leaves a ring half updated for nanoseconds, or for as long as it is not scheduled. */
#define STUCK_US 50000u
#define POP_BURST 32u

void *
lazy_alloc(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p != MAP_FAILED ? p : NULL;
}

void
lazy_free(void *p, size_t bytes)
{
    if (p != NULL)
        munmap(p, bytes);
}

/* ---- life ----------------------------------------------------------------------------------------------------------- */

static bool
apps_reserve(struct stack *s)
{
    uint32_t capacity = s->apps_capacity != 0 ? 2 * s->apps_capacity : 16;
    struct app **apps;

    if (s->nb_apps < s->apps_capacity)
        return true;
    apps = realloc(s->apps, capacity * sizeof(*apps));
    if (apps == NULL)
        return false;
    s->apps = apps;
    s->apps_capacity = capacity;
    return true;
}

static void
map_regions(struct app *app)
{
    const struct arena *a = app->arena;
    const struct shm_layout *l = &a->layout;

    app->front = (struct shm_front_sock *)(a->front + l->front_socks_off);
    app->back = (struct shm_back_sock *)(a->back + l->back_socks_off);
    app->front_evq = (struct shm_front_eventq *)(a->front + l->front_eventqs_off);
    app->back_evq = (struct shm_back_eventq *)(a->back + l->back_eventqs_off);
    app->info = (struct shm_info *)(a->back + l->back_info_off);
    app->chunks = a->front + l->front_chunks_off;
    for (uint32_t i = 0; i < app->nb_rings; i++) {
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
    lazy_free(app->slot_sock, app->max_socks * sizeof(app->slot_sock[0]));
    lazy_free(app->subs, app->max_subs * sizeof(app->subs[0]));
    free(app);
}

struct app *
app_create(struct stack *s, struct arena *a)
{
    struct app *app = calloc(1, sizeof(*app));

    if (app == NULL)
        return NULL;
    app->stack = s;
    app->arena = a;
    app->max_socks = a->layout.max_socks;
    app->nb_chunks = a->layout.nb_chunks;
    app->nb_rings = a->layout.nb_rings_per_instance;
    app->max_subs = 1 + 4 * app->max_socks;
    app->subs_used = 1; /* index 0 stands for none */
    app->rings = calloc(app->nb_rings, sizeof(app->rings[0]));
    app->slot_sock = lazy_alloc(app->max_socks * sizeof(app->slot_sock[0]));
    app->subs = lazy_alloc(app->max_subs * sizeof(app->subs[0]));
    if (app->rings == NULL || app->slot_sock == NULL || app->subs == NULL || !apps_reserve(s)) {
        app_free(app);
        return NULL;
    }
    for (unsigned i = 0; i < SHM_MAX_EVENTQS; i++)
        app->evq[i].fd = -1;
    map_regions(app);
    s->apps[s->nb_apps++] = app;
    counter_inc(s->ctr, CTR_SOCK_APPS);
    return app;
}

void
app_destroy(struct app *app)
{
    struct stack *s = app->stack;

    for (uint32_t i = 0; i < s->nb_apps; i++) {
        if (s->apps[i] == app) {
            s->apps[i] = s->apps[--s->nb_apps];
            break;
        }
    }
    arena_release(app->arena);
    app_free(app);
}

void
app_reap(struct stack *s)
{
    s->apps_ended = false;
    for (uint32_t i = 0; i < s->nb_apps;) {
        struct app *app = s->apps[i];

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
    return (app->members[member - 1].holds[slot / 64] >> (slot % 64) & 1) != 0;
}

void
app_member_hold(struct app *app, uint16_t member, uint32_t slot)
{
    app->members[member - 1].holds[slot / 64] |= UINT64_C(1) << (slot % 64);
    sock_at(app, slot)->holders++;
}

void
app_member_drop(struct app *app, uint16_t member, uint32_t slot)
{
    app->members[member - 1].holds[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
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
 * enqueuing, and nobody else will enqueue that slot again. all: what was written without any notification too.
 */
static void
serve_slots(struct app *app, bool all)
{
    for (uint32_t slot = 0; slot < app->slots_used; slot++) {
        const struct shm_back_sock *b = &app->back[slot];

        if (all ? sock_at(app, slot) != NULL : shm_load(&app->front[slot].notified) != b->serviced)
            commands_service(app->stack, app, slot);
    }
}

void
app_member_leave(struct app *app, uint16_t member, uint64_t now_us)
{
    struct stack *s = app->stack;

    if (!app_member_ok(app, member))
        return;
    s->env.now_us = now_us;
    /* Bytes that it sent before it ended go out, as they would from a kernel's buffers. */
    if (!app->expelled)
        serve_slots(app, app->live_members == 1);
    for (uint32_t slot = 0; slot < app->slots_used; slot++) {
        struct sock *sk;

        if (!app_member_holds(app, member, slot))
            continue;
        app_member_drop(app, member, slot);
        sk = sock_at(app, slot);
        if (sk->holders == 0)
            sock_close(s, sk, false);
    }
    free(app->members[member - 1].holds);
    app->members[member - 1] = (struct app_member){ 0 };
    app->live_members--;
    app->repair = true;
    counter_inc(s->ctr, CTR_SOCK_APPS_GONE);
    if (app->live_members == 0 && app->nb_socks == 0)
        s->apps_ended = true;
}

/* ---- notification rings --------------------------------------------------------------------------------------------------- */

/* Take up to max entries. The elements are the application's words, i.e. any number at all. */
static unsigned
ring_pop(struct app *app, struct ring_view *v, uint32_t *out, unsigned max)
{
    uint32_t tail = __atomic_load_n(&v->ring->prod.tail, __ATOMIC_ACQUIRE);
    uint32_t n = tail - v->head;

    if (n == 0)
        return 0;
    if (unlikely(n > SHM_RING_ENTRIES)) {
        counter_inc(app->stack->ctr, CTR_SOCK_BAD_COMMAND);
        app->expelled = true;
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
serve_ring(struct app *app, struct ring_view *v, unsigned budget)
{
    uint32_t slots[POP_BURST];
    unsigned total = 0;

    while (total < budget) {
        unsigned n = ring_pop(app, v, slots, RTE_MIN(POP_BURST, budget - total));

        for (unsigned i = 0; i < n; i++) {
            if (likely(slots[i] < app->max_socks)) {
                rte_prefetch0(&app->front[slots[i]]);
                rte_prefetch0(&app->back[slots[i]]);
            }
        }
        for (unsigned i = 0; i < n; i++) {
            if (likely(slots[i] < app->max_socks))
                commands_service(app->stack, app, slots[i]);
            else
                counter_inc(app->stack->ctr, CTR_SOCK_DROP_QUEUE);
        }
        total += n;
        if (n < POP_BURST)
            break;
    }
    counter_add(app->stack->ctr, CTR_SOCK_NOTIFICATIONS, total);
    return total;
}

/*
 * A process that died inside an enqueue leaves head before tail, and everyone who enqueues after it waits for tail to come to
 * his place. When a member has died and tail has not moved for long, step over one entry at a time; the slots behind lost entries are
 * found by serve_slots. True while something is under suspicion.
 */
static bool
ring_repair(struct app *app, struct ring_view *v, uint64_t now_us)
{
    uint32_t head = __atomic_load_n(&v->ring->prod.head, __ATOMIC_ACQUIRE);
    uint32_t tail = __atomic_load_n(&v->ring->prod.tail, __ATOMIC_ACQUIRE);

    if (head == tail) {
        v->stuck_at_us = 0;
        return false;
    }
    if (v->stuck_at_us == 0 || v->stuck_tail != tail) {
        v->stuck_at_us = now_us;
        v->stuck_tail = tail;
        return true;
    }
    if (now_us - v->stuck_at_us >= STUCK_US) {
        /* Whatever stands in the entry is served like any other: a wrong number costs nothing. */
        __atomic_store_n(&v->ring->prod.tail, tail + 1, __ATOMIC_RELEASE);
        v->stuck_at_us = now_us;
        v->stuck_tail = tail + 1;
        serve_slots(app, false);
    }
    return true;
}

static void
app_repair(struct app *app, uint64_t now_us)
{
    bool more = false;

    for (uint32_t i = 0; i < app->nb_rings; i++)
        more |= ring_repair(app, &app->rings[i], now_us);
    app->repair = more;
}

/* Nothing that it writes is read from now on; its connections are reset. */
static void
app_expel(struct app *app)
{
    for (uint32_t slot = 0; slot < app->slots_used; slot++) {
        struct sock *sk = sock_at(app, slot);

        if (sk != NULL && !(sk->flags & SOCK_CLOSING))
            sock_bad(app->stack, sk);
    }
}

unsigned
app_poll(struct app *app, unsigned budget, uint64_t now_us)
{
    unsigned n = 0;

    if (unlikely(app->expelled || app->live_members == 0))
        return 0;
    for (uint32_t i = 0; i < app->nb_rings && n < budget && !app->expelled; i++)
        n += serve_ring(app, &app->rings[i], budget - n);
    if (unlikely(app->repair))
        app_repair(app, now_us);
    if (unlikely(app->expelled))
        app_expel(app);
    return n;
}

bool
app_has_work(const struct app *app)
{
    if (app->expelled || app->live_members == 0)
        return false;
    for (uint32_t i = 0; i < app->nb_rings; i++)
        if (__atomic_load_n(&app->rings[i].ring->prod.tail, __ATOMIC_ACQUIRE) != app->rings[i].head)
            return true;
    return false;
}

uint64_t
app_next_us(const struct app *app)
{
    uint64_t next = UINT64_MAX;

    if (!app->repair || app->expelled || app->live_members == 0)
        return next;
    for (uint32_t i = 0; i < app->nb_rings; i++)
        if (app->rings[i].stuck_at_us != 0 && app->rings[i].stuck_at_us + STUCK_US < next)
            next = app->rings[i].stuck_at_us + STUCK_US;
    return next != UINT64_MAX ? next : 0; /* 0: just set, not looked at yet */
}
