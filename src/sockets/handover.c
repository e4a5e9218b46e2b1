/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_ring.h>

/**
 * @file
 * What workers hand over to each other: each has a queue that all others put into and it alone takes from, strictly in order.
 *
 * An entry is a packet buffer, with what is known of it at the start of its headroom, or a word that names a socket, or a message (struct message): buffers and
 * messages are aligned, and the low bits tell the three apart. A packet may be lost where its queue is full, as anywhere on its way; a word or message may not, and
 * waits at the sender.
 */

#define HANDOVER_ENTRIES 4096u
#define HANDOVER_BURST 64u

#define ENTRY_IS_WORD 1u
#define ENTRY_IS_MESSAGE 2u
#define ENTRY_KIND 3u

enum word_kind { WORD_NOTIFY = 1, WORD_ACCEPT = 3, WORD_ACCEPTED = 5 };
enum buf_kind { BUF_PACKET, BUF_FRAME, BUF_UNREACHABLE, BUF_UNRESOLVED };

/* In the buffer itself, before its data. */
struct handed {
    enum buf_kind kind;
    union {
        struct ip_packet packet;
        struct ip_unreachable unreachable;
        struct ip_addr unresolved;
    };
};
static_assert(sizeof(struct handed) <= RTE_PKTMBUF_HEADROOM, "what is handed over fits the headroom");

int
handover_create(struct net *net)
{
    /* Not among the EAL's named rings, so that hosts need no names. */
    ssize_t bytes = rte_ring_get_memsize(HANDOVER_ENTRIES);
    struct rte_ring *r = bytes > 0 ? aligned_alloc(RTE_CACHE_LINE_SIZE, (size_t)bytes) : NULL;

    if (r == NULL)
        return -ENOMEM;
    if (rte_ring_init(r, "handover", HANDOVER_ENTRIES, RING_F_SC_DEQ) != 0) {
        free(r);
        return -EINVAL;
    }
    net->ring = r;
    return 0;
}

void
handover_destroy(struct net *net)
{
    void *entry;

    while (net->ring != NULL && rte_ring_sc_dequeue(net->ring, &entry) == 0)
        if (((uintptr_t)entry & ENTRY_KIND) == 0)
            rte_pktmbuf_free(entry);
    free(net->ring);
    free(net->unsent.words);
}

/* ---- putting --------------------------------------------------------------------------------------------------------------- */

static bool
put(struct net *net, struct net *to, void *entry)
{
    uint64_t since = clock_cycles();
    bool ok = rte_ring_mp_enqueue(to->ring, entry) == 0;

    net->ring_bells |= 1u << to->number;
    counter_add(net->ctr, CTR_HANDOVER_CYCLES, clock_cycles() - since);
    return ok;
}

static void
put_buffer(struct net *net, struct net *to, struct rte_mbuf *m)
{
    if (put(net, to, m))
        return;
    counter_inc(net->ctr, CTR_HANDOVER_DROP);
    rte_pktmbuf_free(m);
}

static struct handed *
handed_of(const struct rte_mbuf *m)
{
    return m->buf_addr;
}

void
net_hand_packet(struct net *net, unsigned to, struct ip_packet *p)
{
    struct rte_mbuf *m = rx_own_net(net, p->m);

    if (unlikely(m == NULL))
        return;
    if (unlikely(rte_pktmbuf_headroom(m) < sizeof(struct handed))) {
        counter_inc(net->ctr, CTR_HANDOVER_DROP);
        rte_pktmbuf_free(m);
        return;
    }
    p->m = m;
    *handed_of(m) = (struct handed){ .kind = BUF_PACKET, .packet = *p };
    counter_inc(net->ctr, CTR_HANDOVER_PKTS);
    put_buffer(net, net->host->nets[to], m);
}

void
handover_frame(struct net *net, struct net *to, const struct rte_mbuf *m)
{
    struct rte_mbuf *copy = pktpool_copy(net->host->pool, m);

    if (copy == NULL) {
        counter_inc(net->ctr, CTR_PORT_DROP_NO_MBUF);
        return;
    }
    handed_of(copy)->kind = BUF_FRAME;
    put_buffer(net, to, copy);
}

void
handover_unreachable(struct net *net, struct net *to, const struct ip_unreachable *info)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(net->host->pool->tx);

    if (m == NULL) {
        counter_inc(net->ctr, CTR_PORT_DROP_NO_MBUF);
        return;
    }
    *handed_of(m) = (struct handed){ .kind = BUF_UNREACHABLE, .unreachable = *info };
    put_buffer(net, to, m);
}

void
handover_unresolved(struct net *net, struct net *to, const struct ip_addr *dst)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(net->host->pool->tx);

    if (m == NULL) {
        counter_inc(net->ctr, CTR_PORT_DROP_NO_MBUF);
        return;
    }
    *handed_of(m) = (struct handed){ .kind = BUF_UNRESOLVED, .unresolved = *dst };
    put_buffer(net, to, m);
}

/* Kept at the sender until there is room: two words for each entry. */
static void
keep(struct net *net, const struct net *to, uint64_t word)
{
    if (net->unsent.n + 2 > net->unsent.capacity) {
        uint32_t capacity = RTE_MAX(2 * net->unsent.capacity, 256u);
        uint64_t *grown = realloc(net->unsent.words, capacity * sizeof(*grown));

        if (grown == NULL) {
            counter_inc(net->ctr, CTR_HANDOVER_DROP);
            return;
        }
        net->unsent.words = grown;
        net->unsent.capacity = capacity;
    }
    net->unsent.words[net->unsent.n] = to->number;
    net->unsent.words[net->unsent.n + 1] = word;
    __atomic_store_n(&net->unsent.n, net->unsent.n + 2, __ATOMIC_RELAXED);
}

/* Behind what waits already, or order would be lost. */
static void
put_or_keep(struct net *net, struct net *to, uint64_t word)
{
    counter_inc(net->ctr, CTR_HANDOVER_CMDS);
    if (net->unsent.n > 0 || !put(net, to, (void *)(uintptr_t)word))
        keep(net, to, word);
}

static void
put_word(struct net *net, struct net *to, enum word_kind kind, const struct app *app, uint32_t slot)
{
    put_or_keep(net, to, app->id << 24 | (uint64_t)slot << 4 | kind);
}

void
net_post_notify(struct net *net, struct net *to, const struct app *app, uint32_t slot)
{
    put_word(net, to, WORD_NOTIFY, app, slot);
}

void
net_post_accept(struct net *net, struct net *to, const struct app *app, uint32_t slot)
{
    put_word(net, to, WORD_ACCEPT, app, slot);
}

void
net_post_accepted(struct net *net, struct net *to, const struct app *app, uint32_t slot)
{
    put_word(net, to, WORD_ACCEPTED, app, slot);
}

void *
message_alloc(size_t bytes)
{
    size_t whole = RTE_ALIGN_CEIL(bytes, (size_t)64);
    void *msg = aligned_alloc(64, whole);

    if (msg != NULL)
        memset(msg, 0, whole);
    return msg;
}

void
message_send(struct net *net, struct message *msg, uint32_t to)
{
    struct host *h = net->host;

    msg->to = to;
    if (!host_in_reach(h, net, to)) {
        put_or_keep(net, host_owner(h, to), (uintptr_t)msg | ENTRY_IS_MESSAGE);
        return;
    }
    msg->next = NULL;
    if (net->mail_first == NULL)
        net->mail_first = msg;
    else
        net->mail_last->next = msg;
    net->mail_last = msg;
}

static void
send_kept(struct net *net)
{
    const uint32_t n = net->unsent.n;
    uint32_t left = 0;

    for (uint32_t i = 0; i < n; i += 2) {
        uint64_t to = net->unsent.words[i], word = net->unsent.words[i + 1];

        if (left == 0 && put(net, net->host->nets[to], (void *)(uintptr_t)word))
            continue;
        net->unsent.words[left++] = to;
        net->unsent.words[left++] = word;
    }
    __atomic_store_n(&net->unsent.n, left, __ATOMIC_RELAXED);
}

/* Who sleeps is woken once, however much was handed over in the pass. The fence stands between the queue and the look. */
void
handover_ring_bells(struct net *net)
{
    const struct host *h = net->host;

    if (unlikely(net->unsent.n > 0))
        send_kept(net);
    if (net->ring_bells == 0)
        return;
    shm_fence();
    for (uint32_t i = 0; i < h->nb_nets; i++) {
        if ((net->ring_bells & 1u << i) && shm_load(&h->page->instance[i].sleeping)) {
            counter_inc(net->ctr, CTR_HANDOVER_WAKEUPS);
            net_wake(h->nets[i]);
        }
    }
    net->ring_bells = 0;
}

/* ---- taking ------------------------------------------------------------------------------------------------------------------ */

/* The listener's owner asks for a connection out of a domain of ours. Its operands are ours until the answer. */
static void
serve_accept(struct net *net, const struct app *app, uint32_t slot, uint64_t now_us)
{
    struct host *h = net->host;
    struct spread *sp = __atomic_load_n(&sock_more_at(app, slot)->spread, __ATOMIC_ACQUIRE);
    struct stack *s;

    if (sp == NULL || sp->waiting == 0 || !host_in_reach(h, net, sp->waiting - 1))
        return; /* it was closed by its process's end meanwhile */
    s = h->stacks[sp->waiting - 1];
    stack_enter(s, net, now_us);
    sp->result = spread_accept(s, &s->socks[sp->in[s->number].index], sp->free_slot, sp->member);
    stack_leave(s);
    net_post_accepted(net, host_owner(h, sp->home), app, slot);
}

static void
take_word(struct net *net, uint64_t word, uint64_t now_us)
{
    struct app *app = host_find_app(net->host, word >> 24);
    uint32_t slot = (uint32_t)(word >> 4) & (SHM_MAX_SLOTS - 1);
    struct stack *s;

    if (app == NULL)
        return;
    switch ((enum word_kind)(word & 15)) {
    case WORD_NOTIFY:
        net_dispatch(net, app, &slot, 1);
        break;
    case WORD_ACCEPT:
        serve_accept(net, app, slot, now_us);
        break;
    case WORD_ACCEPTED:
        s = host_stack_of(net->host, app, slot);
        if (!host_in_reach(net->host, net, s->number))
            break;
        stack_enter(s, net, now_us);
        commands_accepted(s, app, slot);
        stack_leave(s);
        break;
    }
}

static void
deliver(struct net *net, struct message *msg, uint64_t now_us)
{
    struct stack *s = net->host->stacks[msg->to];
    bool entered = net->host->entered;

    if (!entered)
        stack_enter(s, net, now_us);
    msg->arrive(s, msg);
    if (!entered)
        stack_leave(s);
}

unsigned
message_run(struct net *net, uint64_t now_us)
{
    unsigned n = 0;

    while (net->mail_first != NULL) {
        struct message *msg = net->mail_first;

        net->mail_first = msg->next;
        deliver(net, msg, now_us);
        n++;
    }
    return n;
}

static void
apply_to(struct stack *s, struct net *net, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    stack_enter(s, net, now_us);
    stack_segments(s, pkts, n);
    stack_leave(s);
}

/* Those whose connections have moved on go after them. Returns how many are left. */
static uint16_t
pass_on(struct net *net, struct ip_packet *pkts, uint16_t n)
{
    uint16_t kept = 0;

    for (uint16_t i = 0; i < n; i++) {
        struct tcp_tuple t;
        uint32_t number = packet_tuple(&pkts[i], &t) ? net_whereabouts(net, &t, true) : net->number;

        if (number == net->number) {
            pkts[kept++] = pkts[i];
        } else {
            counter_inc(net->ctr, CTR_REDIRECTED);
            net_hand_packet(net, number, &pkts[i]);
        }
    }
    return kept;
}

/* In a row for one domain they are applied in one go. */
static void
apply(struct net *net, struct ip_packet *pkts, uint16_t n, uint64_t now_us)
{
    struct host *h = net->host;
    uint16_t at = 0;

    if (h->cfg.tcp.max_moved != 0) {
        n = pass_on(net, pkts, n);
        if (n > 0)
            apply_to(h->stacks[net->number], net, pkts, n, now_us);
        return;
    }

    while (at < n) {
        uint32_t number = host_classify(h, &pkts[at]);
        uint16_t end = (uint16_t)(at + 1);
        struct stack *s = h->stacks[number];

        while (end < n && host_classify(h, &pkts[end]) == number)
            end++;
        apply_to(s, net, &pkts[at], (uint16_t)(end - at), now_us);
        at = end;
    }
}

static void
take_frame(struct net *net, struct rte_mbuf *m, uint64_t now_us)
{
    struct ip_packet none[1];

    net->from_peer = true;
    if (ip_input(net->ip, &m, 1, none, now_us) > 0)
        rte_pktmbuf_free(none[0].m);
    net->from_peer = false;
}

static void
take_buffer(struct net *net, struct rte_mbuf *m, struct ip_packet *pkts, uint16_t *n, uint64_t now_us)
{
    const struct handed *handed = handed_of(m);
    struct ip_unreachable info;

    switch (handed->kind) {
    case BUF_PACKET:
        pkts[(*n)++] = handed->packet;
        break;
    case BUF_FRAME:
        take_frame(net, m, now_us);
        break;
    case BUF_UNREACHABLE:
        info = handed->unreachable;
        rte_pktmbuf_free(m);
        net_unreachable(net, &info, true, now_us);
        break;
    case BUF_UNRESOLVED:
        net_note_unresolved(net, &handed->unresolved);
        rte_pktmbuf_free(m);
        break;
    }
}

/* Entries that are no buffers. */
static void
take_entry(struct net *net, uintptr_t entry, uint64_t now_us)
{
    if (entry & ENTRY_IS_WORD)
        take_word(net, entry, now_us);
    else
        deliver(net, (struct message *)(entry & ~(uintptr_t)ENTRY_KIND), now_us);
}

static unsigned
take_burst(struct net *net, uint64_t now_us)
{
    void *entries[HANDOVER_BURST];
    struct ip_packet pkts[HANDOVER_BURST];
    uint16_t nb_pkts = 0;
    unsigned queued;
    unsigned n = rte_ring_sc_dequeue_burst(net->ring, entries, HANDOVER_BURST, &queued);

    if (n == 0)
        return 0;
    counter_inc(net->ctr, CTR_HANDOVER_BURSTS);
    counter_add(net->ctr, CTR_HANDOVER_QUEUED, n + queued);
    counter_add(net->ctr, CTR_HANDOVER_TAKEN, n);
    for (unsigned i = 0; i < n; i++)
        if (((uintptr_t)entries[i] & ENTRY_KIND) == 0)
            rte_prefetch0(handed_of(entries[i]));
    for (unsigned i = 0; i < n; i++) {
        if (((uintptr_t)entries[i] & ENTRY_KIND) == 0) {
            take_buffer(net, entries[i], pkts, &nb_pkts, now_us);
            continue;
        }
        /* In order: what came before is applied before. */
        apply(net, pkts, nb_pkts, now_us);
        nb_pkts = 0;
        take_entry(net, (uintptr_t)entries[i], now_us);
    }
    apply(net, pkts, nb_pkts, now_us);
    return n;
}

unsigned
net_handed(struct net *net, uint64_t now_us)
{
    net->now_us = now_us;
    return net->ring != NULL ? take_burst(net, now_us) : 0;
}

/* Its part of what is on its way: what it has for itself, what it could not put into a full queue, what was handed over to it. */
static unsigned
settle_one(struct net *net, uint64_t now_us)
{
    unsigned n = message_run(net, now_us) + net->unsent.n;

    if (net->unsent.n > 0)
        send_kept(net);
    return n + net_handed(net, now_us);
}

void
handover_settle(struct host *h, uint64_t now_us)
{
    unsigned n;

    /* As each worker does it, by the same queues: so nothing overtakes what was sent before it. */
    do {
        n = 0;
        for (uint32_t i = 0; i < h->nb_nets; i++) {
            unsigned done = settle_one(h->nets[i], now_us);

            /* Frames to send, neighbours that were not found: what is left for the end of a pass. */
            if (done > 0)
                net_wake(h->nets[i]);
            n += done;
        }
    } while (n > 0);
}

bool
handover_waits(const struct net *net)
{
    return __atomic_load_n(&net->unsent.n, __ATOMIC_RELAXED) > 0 || (net->ring != NULL && !rte_ring_empty(net->ring));
}
