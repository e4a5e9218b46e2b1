/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../unit/tcp/sound.h"
#include "sim.h"
#include "tcp/wire.h"

#define MTU 1500
#define MAX_PKTS 32768

struct sim_pkt {
    uint64_t at_us, order;
    uint32_t next_free;
    uint16_t len;
    uint8_t to, tos;
    bool live;
    uint8_t bytes[MTU - 20]; /* TCP header and payload */
};

static uint8_t
pattern(uint64_t pos)
{
    return (uint8_t)(pos * 131 + (pos >> 8) * 7 + (pos >> 20));
}

static struct sim_pkt *
pkt_of(struct sim *s, uint32_t handle)
{
    return &s->pkts[handle - 1];
}

static uint32_t
pkt_get(struct sim *s)
{
    uint32_t h = s->free_pkt;

    if (h != 0) {
        s->free_pkt = pkt_of(s, h)->next_free;
    } else {
        assert_true(s->nb_pkts < MAX_PKTS);
        h = ++s->nb_pkts;
    }
    pkt_of(s, h)->live = true;
    s->live_pkts++;
    return h;
}

static void
pkt_put(struct sim *s, uint32_t h)
{
    assert_true(h != 0 && h <= s->nb_pkts && pkt_of(s, h)->live); /* released once, and only what was given */
    pkt_of(s, h)->live = false;
    pkt_of(s, h)->next_free = s->free_pkt;
    s->free_pkt = h;
    s->live_pkts--;
}

static bool
pkt_before(struct sim *s, uint32_t a, uint32_t b)
{
    const struct sim_pkt *x = pkt_of(s, a), *y = pkt_of(s, b);

    return x->at_us < y->at_us || (x->at_us == y->at_us && x->order < y->order);
}

static void
heap_push(struct sim *s, uint32_t h)
{
    uint32_t i = s->nb_heap++;

    while (i > 0 && pkt_before(s, h, s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = h;
}

static uint32_t
heap_pop(struct sim *s)
{
    uint32_t top = s->heap[0];
    uint32_t last = s->heap[--s->nb_heap];
    uint32_t i = 0;

    for (;;) {
        uint32_t c = 2 * i + 1;
        if (c >= s->nb_heap)
            break;
        if (c + 1 < s->nb_heap && pkt_before(s, s->heap[c + 1], s->heap[c]))
            c++;
        if (!pkt_before(s, s->heap[c], last))
            break;
        s->heap[i] = s->heap[c];
        i = c;
    }
    s->heap[i] = last;
    return top;
}

static bool
chance(struct sim *s, uint32_t ppm)
{
    return rng_next(&s->rng) % 1000000 < ppm;
}

/** Random and bursty loss. */
static bool
link_drops(struct sim_host *h)
{
    const struct sim_link *l = &h->sim->link;

    if (h->burst_left == 0 && l->burst_ppm != 0 && chance(h->sim, l->burst_ppm))
        h->burst_left = l->burst_segs;
    if (h->burst_left > 0) {
        h->burst_left--;
        return true;
    }
    return chance(h->sim, l->loss_ppm);
}

/** When a segment arrives, and whether it is marked; false if it is lost. */
static bool
link_transit(struct sim_host *h, uint32_t len, uint64_t *at_us, uint8_t *tos)
{
    struct sim *s = h->sim;
    const struct sim_link *l = &s->link;

    *at_us = s->now_us + l->delay_us;
    if (link_drops(h))
        return false;
    if (l->rate_bytes_per_ms != 0) {
        uint64_t start = h->line_free_us > s->now_us ? h->line_free_us : s->now_us;
        uint64_t queued = (start - s->now_us) * l->rate_bytes_per_ms / 1000;
        if (queued > l->queue_bytes)
            return false;
        if (l->mark_bytes != 0 && queued > l->mark_bytes && (*tos & TCP_TOS_ECN) != 0)
            *tos |= TCP_TOS_CE;
        h->line_free_us = start + (uint64_t)(len + 38) * 1000 / l->rate_bytes_per_ms;
        *at_us = h->line_free_us + l->delay_us;
    }
    if (chance(s, l->reorder_ppm))
        *at_us += l->reorder_us;
    return true;
}

/** A probe may be new data (RFC 8985 section 7.3): it is counted once it has been sent. The timeout starts anew with it. */
static void
excuse_lost_probe(struct sim_host *h)
{
    if (h->lost_new != NULL && h->ctr.v[CTR_TCP_TAIL_PROBES] > h->probes_then)
        h->lost_new->excused = true;
    h->lost_new = NULL;
}

/** Keep in mind what may explain that nothing moves: a copy that is lost again, a probe or an answer that is lost. */
static void
note_wire(struct sim_host *h, const struct tcp_out *out, bool lost)
{
    struct sim_host *peer = &h->sim->host[h == &h->sim->host[0]];
    /* TIME-WAIT and half-open entries answer for nobody: then, too, whose answer it was is not worth finding out. */
    struct sim_flow *f = out->user > 0 && out->user <= SIM_FLOWS_MAX ? &h->flows[out->user - 1] : NULL;
    tcp_seq end = out->seq + out->payload_len;
    bool again = f != NULL && f->has_sent && seq_leq(end, f->sent_to);

    excuse_lost_probe(h);
    if (lost && again)
        f->excused = true;
    if (lost && f != NULL && !again) {
        h->lost_new = f;
        h->probes_then = h->ctr.v[CTR_TCP_TAIL_PROBES];
    }
    for (unsigned i = 0; lost && (again || out->payload_len == 0) && i < SIM_FLOWS_MAX; i++)
        peer->flows[i].excused = true;
    if (f != NULL && !again) {
        f->sent_to = end;
        f->has_sent = true;
    }
}

static void
wire_put(struct sim_host *h, const struct tcp_out *out)
{
    struct sim *s = h->sim;
    unsigned copies = chance(s, s->link.dup_ppm) ? 2 : 1;

    for (unsigned i = 0; i < copies; i++) {
        uint64_t at_us;
        uint8_t tos = out->tos;
        bool arrives = link_transit(h, out->payload_len + 52, &at_us, &tos);
        uint8_t header[TCP_HDR_MAX];
        if (s->link.black_hole_bytes != 0 &&
            20 + tcp_wire_build(out, header) + out->payload_len > s->link.black_hole_bytes)
            arrives = false;
        note_wire(h, out, !arrives);
        if (!arrives)
            continue;
        uint32_t n = pkt_get(s);
        struct sim_pkt *p = pkt_of(s, n);
        size_t hdr = tcp_wire_build(out, p->bytes);
        assert_true(hdr + out->payload_len <= sizeof(p->bytes)); /* options included it fits the MTU */
        for (uint32_t k = 0; k < out->payload_len; k++)
            p->bytes[hdr + k] = pattern(out->payload_pos + k);
        p->len = (uint16_t)(hdr + out->payload_len);
        p->to = h == &s->host[0];
        p->at_us = at_us;
        p->tos = tos;
        p->order = s->order++;
        heap_push(s, n);
    }
}

static void
on_emit(void *ctx, const struct tcp_out *out, uint64_t now_us)
{
    struct sim_host *h = ctx;
    struct tcp_out seg = *out;

    assert_int_equal(now_us, h->sim->now_us);
    if (out->gso_size == 0) {
        wire_put(h, out);
        return;
    }
    for (uint32_t done = 0; done < out->payload_len; done += seg.payload_len) {
        uint32_t left = out->payload_len - done;
        seg.payload_len = left < out->gso_size ? left : out->gso_size;
        seg.payload_pos = out->payload_pos + done;
        seg.seq = out->seq + done;
        seg.flags = out->flags;
        if (seg.payload_len < left)
            seg.flags &= (uint8_t) ~(TCP_FLAG_FIN | TCP_FLAG_PSH);
        wire_put(h, &seg);
    }
}

static struct sim_flow *
flow_of(struct sim_host *h, tcp_user user)
{
    assert_in_range(user, 1, SIM_FLOWS_MAX);
    return &h->flows[user - 1];
}

static void
on_deliver(void *ctx, tcp_user user, struct tcp_data data)
{
    struct sim_host *h = ctx;
    const struct sim_pkt *p = pkt_of(h->sim, data.buf);
    struct sim_flow *f = flow_of(h, user);

    assert_true(data.len > 0 && data.off + data.len <= p->len);
    for (uint32_t i = 0; i < data.len; i++)
        if (p->bytes[data.off + i] != pattern(f->received + i))
            fail_msg("wrong byte at %llu", (unsigned long long)(f->received + i));
    f->received += data.len;
    pkt_put(h->sim, data.buf);
}

static void
on_release(void *ctx, tcp_buf buf)
{
    pkt_put(((struct sim_host *)ctx)->sim, buf);
}

static void
on_acked(void *ctx, tcp_user user, uint32_t n)
{
    struct sim_host *h = ctx;
    struct sim_flow *f = flow_of(h, user);
    struct tcp_conn_info info;

    excuse_lost_probe(h);
    f->acked += n;
    assert_true(f->acked <= f->appended);
    uint64_t now_us = h->sim->now_us, waited_us = now_us - f->progress_us;
    if (f->progress_us != 0 && !f->excused && waited_us > f->rto_us && waited_us - f->rto_us > f->worst_stall_us)
        f->worst_stall_us = waited_us - f->rto_us;
    f->progress_us = f->acked < f->appended ? now_us : 0; /* without data under way nothing can stall */
    f->excused = false;
    f->rto_us = tcp_info(h->d, f->id, &info) ? info.rto_us : 0;
}

static void
on_event(void *ctx, tcp_user user, uint32_t events, int err)
{
    struct sim_host *h = ctx;

    if (user == SIM_LISTENER)
        return;
    struct sim_flow *f = flow_of(h, user);
    assert_false(f->is_gone);
    if (events & TCP_EVENT_CONNECTED)
        f->is_open = true;
    if (events & TCP_EVENT_FIN)
        f->peer_fin = true;
    if (events & TCP_EVENT_ERROR)
        f->err = err;
    if (events & TCP_EVENT_GONE)
        f->is_gone = true;
}

static void
host_init(struct sim *s, struct sim_host *h, const struct tcp_params *p)
{
    h->sim = s;
    h->d_bytes = tcp_domain_bytes(p);
    h->d = aligned_alloc(64, h->d_bytes);
    assert_non_null(h->d);
    memset(h->d, 0, h->d_bytes);
    assert_int_equal(tcp_domain_init(h->d, p, s->now_us), 0);
    h->sink = (struct tcp_sink){ h, on_emit, on_deliver, on_release, on_acked, on_event, NULL };
    h->env = (struct tcp_env){ .sink = &h->sink, .ctr = &h->ctr, .now_us = s->now_us };
}

void
sim_init(struct sim *s, uint64_t seed, const struct sim_link *link, void (*adjust)(struct tcp_params *p))
{
    memset(s, 0, sizeof(*s));
    rng_init(&s->rng, seed, 0);
    s->link = *link;
    s->now_us = 1000000;
    s->nb_flows = 1;
    s->snd_buf_bytes = 1u << 20;
    s->pkts = calloc(MAX_PKTS, sizeof(*s->pkts));
    s->heap = calloc(MAX_PKTS, sizeof(*s->heap));
    assert_true(s->pkts != NULL && s->heap != NULL);
    for (unsigned i = 0; i < 2; i++) {
        struct tcp_params p;
        tcp_params_default(&p);
        p.max_conns = 16;
        p.max_half_open = 16;
        p.max_time_wait = 16;
        p.max_ooo_bufs = 4096;
        p.seed[0] = rng_next(&s->rng);
        p.seed[1] = rng_next(&s->rng);
        if (adjust != NULL)
            adjust(&p);
        host_init(s, &s->host[i], &p);
    }
}

void
sim_fini(struct sim *s)
{
    while (s->nb_heap > 0)
        pkt_put(s, heap_pop(s));
    for (unsigned i = 0; i < 2; i++) {
        struct sim_host *h = &s->host[i];
        struct tcp_usage u;
        h->env.now_us = s->now_us;
        assert_domain_is_sound(h->d);
        for (unsigned k = 0; k < SIM_FLOWS_MAX; k++)
            if (!h->flows[k].is_gone && h->flows[k].id != 0)
                tcp_abort(h->d, &h->env, h->flows[k].id);
        if (h->listener != 0)
            tcp_abort(h->d, &h->env, h->listener);
        while (s->nb_heap > 0)
            pkt_put(s, heap_pop(s));
        tcp_usage(h->d, &u);
        assert_int_equal(u.conns, 0);
        assert_int_equal(u.ooo_bufs, 0);
        assert_int_equal(h->ctr.v[CTR_TCP_BUG_EDGE], 0);
        free(h->d);
    }
    assert_int_equal(s->live_pkts, 0);
    free(s->pkts);
    free(s->heap);
}

static bool
is_to_start(const struct sim *s, unsigned flow)
{
    return s->host[0].flows[flow].id == 0 && !s->host[0].flows[flow].is_gone;
}

/** Those flows connect whose time has come. */
static void
start_flows(struct sim *s)
{
    for (unsigned i = 0; i < s->nb_flows; i++) {
        struct sim_flow *f = &s->host[0].flows[i];
        struct tcp_tuple t = { .local = ip_addr_v4(0x0100000a), .remote = ip_addr_v4(0x0200000a), .remote_port = 80 };
        if (is_to_start(s, i) && s->now_us >= s->connect_us + f->start_us)
            assert_int_equal(tcp_connect(s->host[0].d, &s->host[0].env, &t, MTU - 40, NULL, i + 1, &f->id), 0);
    }
}

void
sim_connect(struct sim *s)
{
    struct ip_addr any = ip_addr_v4(0);

    s->connect_us = s->now_us;
    for (unsigned i = 0; i < 2; i++)
        s->host[i].env.gso_max_bytes = s->gso_max_bytes;
    assert_int_equal(tcp_listen(s->host[1].d, &s->host[1].env, &any, 80, 16, NULL, SIM_LISTENER, &s->host[1].listener),
                     0);
    start_flows(s);
}

static void
wire_take(struct sim *s, uint32_t n)
{
    struct sim_pkt *p = pkt_of(s, n);
    struct sim_host *h = &s->host[p->to];
    struct tcp_in in = { .mss_out = MTU - 40 };

    int hdr = tcp_wire_parse(p->bytes, p->len, &in);
    assert_true(hdr >= 20);
    in.tuple.local = ip_addr_v4(p->to == 0 ? 0x0100000a : 0x0200000a);
    in.tuple.remote = ip_addr_v4(p->to == 0 ? 0x0200000a : 0x0100000a);
    in.data.buf = n;
    in.tos = p->tos;
    tcp_input(h->d, &h->env, &in);
}

static void
app_read(struct sim_host *h, struct sim_flow *f)
{
    uint64_t ready = f->received - f->consumed;

    if (ready == 0 || h->sim->now_us < f->next_read_us)
        return;
    uint32_t n = f->read_every_us != 0 && ready > f->read_bytes ? f->read_bytes : (uint32_t)ready;
    f->next_read_us = h->sim->now_us + f->read_every_us;
    f->consumed += n;
    tcp_consumed(h->d, &h->env, f->id, n);
}

static void
app_accept(struct sim_host *h)
{
    struct tcp_tuple t;

    while (h->listener != 0 && h->nb_accepted < h->sim->nb_flows) {
        struct sim_flow *f = &h->flows[h->nb_accepted];
        f->id = tcp_accept(h->d, &h->env, h->listener, h->nb_accepted + 1, &t);
        if (f->id == 0)
            return;
        f->is_open = true;
        h->nb_accepted++;
    }
}

/** The application: fill the send buffer, read, close when both directions are done. */
static void
app_run(struct sim_host *h, struct sim_flow *f)
{
    if (!f->is_open || f->is_gone)
        return;
    app_read(h, f);
    uint64_t room = h->sim->snd_buf_bytes - (f->appended - f->acked);
    uint64_t n = f->to_send - f->appended < room ? f->to_send - f->appended : room;
    if (n > 0) {
        if (f->appended == f->acked)
            f->progress_us = h->sim->now_us;
        f->appended += n;
        tcp_send(h->d, &h->env, f->id, (uint32_t)n, 0);
    }
    if (f->appended == f->to_send && !f->shut) {
        f->shut = true;
        tcp_shutdown(h->d, &h->env, f->id);
    }
}

static uint64_t
next_event_us(struct sim *s)
{
    uint64_t next = s->nb_heap > 0 ? pkt_of(s, s->heap[0])->at_us : UINT64_MAX;

    for (unsigned i = 0; i < 2; i++) {
        const struct sim_host *h = &s->host[i];
        uint64_t t = tcp_next_us(h->d, s->now_us);
        if (t < next)
            next = t;
        for (unsigned k = 0; k < s->nb_flows; k++) {
            const struct sim_flow *f = &h->flows[k];
            if (f->received > f->consumed && f->next_read_us < next && !f->is_gone)
                next = f->next_read_us;
            if (i == 0 && is_to_start(s, k) && s->connect_us + f->start_us < next)
                next = s->connect_us + f->start_us;
        }
    }
    return next < s->now_us ? s->now_us : next;
}

static bool
all_gone(const struct sim *s)
{
    for (unsigned i = 0; i < 2; i++)
        for (unsigned k = 0; k < s->nb_flows; k++)
            if (!s->host[i].flows[k].is_gone)
                return false;
    return true;
}

bool
sim_run(struct sim *s, uint64_t limit_us)
{
    while (!all_gone(s)) {
        uint64_t next = next_event_us(s);
        if (next == UINT64_MAX || next > limit_us)
            return false;
        s->now_us = next;
        s->host[0].env.now_us = s->host[1].env.now_us = next;
        while (s->nb_heap > 0 && pkt_of(s, s->heap[0])->at_us <= next)
            wire_take(s, heap_pop(s));
        start_flows(s);
        for (unsigned i = 0; i < 2; i++) {
            struct sim_host *h = &s->host[i];
            tcp_tick(h->d, &h->env, 64);
            app_accept(h);
            for (unsigned k = 0; k < s->nb_flows; k++)
                app_run(h, &h->flows[k]);
        }
        if (s->between != NULL)
            s->between(s);
    }
    return true;
}
