/* SPDX-License-Identifier: BSD-3-Clause */
#include "input.h"

#include <errno.h>
#include <string.h>

#include "tcp/domain.h"
#include "tcp/wire.h"

/**
 * @file
 * The engine alone. An input is a sequence of segments, socket calls and steps of time; two replicas execute it and must be equal to the byte
 * after each step, and so must their effects. At the end everything is closed, time passes, and nothing may be left.
 */

#define USERS 6u /* numbers 1 .. 6 */
#define PEERS 8u
#define BUFS 1024u
#define STEPS_MAX 400u
#define START_US UINT64_C(5000000)
#define OUTSTANDING_MAX 1000000u /* the socket layer's bound on a transmit stream */
#define LOCAL_PORT 80u
#define SECOND_US UINT64_C(1000000)

enum buf_state { BUF_FREE, BUF_GIVEN, BUF_DONE };

struct user {
    tcp_id id;
    bool listener, conn, closed, connected, shut, bound;
    uint16_t port;
    uint32_t appended, acked; /* transmit stream */
    uint32_t unread;
};

/* What the engine said last to each peer, so that an input need not guess sequence numbers. */
struct peer {
    struct tcp_tuple tuple;
    tcp_seq seq_end, ack;
    uint32_t ts_val;
};

struct replica {
    struct tcp_domain *d;
    struct tcp_env env;
    struct tcp_sink sink;
    struct counters ctr;
    uint64_t digest;
    struct user users[USERS + 1];
    struct peer peers[PEERS];
    uint32_t next_peer;
    uint32_t nb_bufs;
    uint8_t bufs[BUFS];
};

static struct replica replicas[2];
static struct tcp_params params;
static size_t domain_bytes;

/* ---- effects ------------------------------------------------------------------------------------------------------------- */

static void
note(struct replica *r, uint64_t value)
{
    r->digest = (r->digest ^ value) * UINT64_C(0x100000001b3);
}

static struct peer *
peer_of(struct replica *r, const struct tcp_tuple *t)
{
    struct peer *p;

    for (unsigned i = 0; i < PEERS; i++)
        if (memcmp(&r->peers[i].tuple, t, sizeof(*t)) == 0)
            return &r->peers[i];
    p = &r->peers[r->next_peer++ % PEERS];
    memset(p, 0, sizeof(*p));
    p->tuple = *t;
    return p;
}

static void
on_emit(void *ctx, const struct tcp_out *out, uint64_t now_us)
{
    struct replica *r = ctx;
    struct peer *p = peer_of(r, out->tuple);
    struct tcp_in again = { .seq = 0 };
    uint8_t header[TCP_HDR_MAX];
    size_t len = tcp_wire_build(out, header);

    FUZZ_CHECK(now_us == r->env.now_us);
    FUZZ_CHECK(len >= TCP_HDR_MIN && len <= TCP_HDR_MAX && len % 4 == 0);
    FUZZ_CHECK(tcp_wire_parse(header, len, &again) == (int)len && again.seq == out->seq && again.flags == out->flags);
    FUZZ_CHECK(out->payload_len == 0 || (out->user > 0 && out->user <= USERS));
    if (out->payload_len > 0) {
        const struct user *u = &r->users[out->user];

        FUZZ_CHECK(out->payload_pos - u->acked <= u->appended - u->acked);
        FUZZ_CHECK(out->payload_len <= u->appended - out->payload_pos);
        FUZZ_CHECK(out->gso_size != 0 || out->payload_len <= UINT16_MAX);
    }
    p->seq_end = out->seq + out->payload_len + ((out->flags & TCP_FLAG_SYN) != 0) + ((out->flags & TCP_FLAG_FIN) != 0);
    p->ack = out->ack;
    p->ts_val = out->opts.ts_val;
    note(r, (uint64_t)out->seq << 32 | out->ack);
    note(r, (uint64_t)out->payload_len << 32 | (uint32_t)out->flags << 16 | out->window);
}

static void
buf_done(struct replica *r, tcp_buf buf)
{
    FUZZ_CHECK(buf > 0 && buf <= r->nb_bufs && r->bufs[buf - 1] == BUF_GIVEN);
    r->bufs[buf - 1] = BUF_DONE;
    note(r, buf);
}

static struct user *
user_at(struct replica *r, tcp_user number)
{
    FUZZ_CHECK(number > 0 && number <= USERS && r->users[number].id != TCP_NO_ID);
    return &r->users[number];
}

static void
on_deliver(void *ctx, tcp_user number, struct tcp_data data)
{
    struct replica *r = ctx;
    struct user *u = user_at(r, number);

    FUZZ_CHECK(data.len > 0 && u->conn && !u->closed);
    u->unread += data.len;
    buf_done(r, data.buf);
}

static void
on_release(void *ctx, tcp_buf buf)
{
    buf_done(ctx, buf);
}

static void
on_acked(void *ctx, tcp_user number, uint32_t n_bytes)
{
    struct user *u = user_at(ctx, number);

    FUZZ_CHECK(u->conn && n_bytes <= u->appended - u->acked);
    u->acked += n_bytes;
}

static void
on_event(void *ctx, tcp_user number, uint32_t events, int err)
{
    struct replica *r = ctx;
    struct user *u = user_at(r, number);

    FUZZ_CHECK((err != 0) == ((events & TCP_EVENT_ERROR) != 0));
    FUZZ_CHECK(!u->closed || events == TCP_EVENT_GONE);
    note(r, (uint64_t)number << 32 | events);
    if (events & TCP_EVENT_CONNECTED)
        u->connected = true;
    if (events & TCP_EVENT_GONE)
        *u = (struct user){ .id = TCP_NO_ID };
}

/* ---- segments -------------------------------------------------------------------------------------------------------------- */

static void
read_options(struct input *in, const struct peer *p, struct tcp_options *o)
{
    uint8_t which = input_u8(in);

    o->has_mss = which & 1;
    o->mss = o->has_mss ? input_u16(in) : 0;
    o->has_wscale = which & 2;
    o->wscale = o->has_wscale ? input_u8(in) % 15 : 0; /* the parser's bound */
    o->has_ts = which & 4;
    if (o->has_ts) {
        o->ts_val = input_u32(in);
        o->ts_ecr = p->ts_val + (uint32_t)(int8_t)input_u8(in);
    }
    o->sack_permitted = which & 8;
    o->nb_sack = (uint8_t)((which >> 4) % (TCP_MAX_SACK + 1));
    o->has_accecn = which & 0x80;
    for (unsigned i = 0; o->has_accecn && i < TCP_ACCECN_FIELDS; i++) {
        o->accecn_fields |= (uint8_t)(1u << i);
        o->accecn[i] = input_u16(in);
    }
    for (unsigned i = 0; i < o->nb_sack; i++) {
        o->sack[i].start = p->seq_end - input_u16(in);
        o->sack[i].end = o->sack[i].start + (uint32_t)(int16_t)input_u16(in);
    }
}

/* Answers what the engine has sent, off by a little; or opens something new. */
static void
segment(struct replica *r, struct input *in)
{
    uint8_t to = input_u8(in);
    struct peer *p = &r->peers[to % PEERS];
    struct tcp_in seg = { .flags = input_u8(in), .mss_out = 1460 };
    bool fresh = to & 8 || p->tuple.local_port == 0;
    struct peer nobody = { .ack = 0xfffffe00 };

    if (fresh) {
        nobody.tuple.local = ip_addr_v4(0x0200000a);
        nobody.tuple.remote = ip_addr_v4(0x0300000a + ((uint32_t)(to & 16) << 20));
        nobody.tuple.local_port = LOCAL_PORT;
        nobody.tuple.remote_port = (uint16_t)(1000 + (to >> 5));
        p = &nobody;
    }
    seg.tuple = p->tuple;
    seg.seq = p->ack + (uint32_t)(int16_t)input_u16(in);
    seg.ack = p->seq_end + (uint32_t)(int16_t)input_u16(in);
    seg.window = input_u16(in);
    seg.tos = input_u8(in);
    seg.flags |= seg.tos & 0x80 ? TCP_FLAG_AE : 0;
    seg.data.len = input_u16(in) % 1461;
    seg.data.off = 54;
    if (seg.flags & TCP_FLAG_URG)
        seg.urgent = input_u16(in);
    read_options(in, p, &seg.opts);
    r->bufs[r->nb_bufs++] = BUF_GIVEN;
    seg.data.buf = r->nb_bufs;
    tcp_input(r->d, &r->env, &seg);
}

static void
unreachable(struct replica *r, struct input *in)
{
    static const int errors[] = { EHOSTUNREACH, ENETUNREACH, ECONNREFUSED, EMSGSIZE, EPROTO };
    uint8_t what = input_u8(in);
    const struct peer *p = &r->peers[what % PEERS];
    tcp_seq seq = p->seq_end - input_u16(in);

    tcp_unreachable(r->d, &r->env, &p->tuple, seq, errors[(what >> 3) % 5], what & 0x80, input_u16(in));
}

/* ---- socket calls ------------------------------------------------------------------------------------------------------------ */

static void
open_user(struct replica *r, struct input *in, uint32_t number)
{
    struct user *u = &r->users[number];
    uint8_t how = input_u8(in);
    struct tcp_tuple t = { .local = ip_addr_v4(0x0200000a),
                           .remote = ip_addr_v4(0x0300000a),
                           .local_port = u->bound ? u->port : 0,
                           .remote_port = (uint16_t)(7000 + (how >> 4)) };
    const struct ip_addr any = ip_addr_v4(0);
    struct tcp_sockopts so = { .set = 0 };
    int rc;

    if (how & 8) {
        unsigned opt = input_u8(in) % TCP_OPT_COUNT;

        so.set = 1u << opt;
        so.value[opt] = (int32_t)input_u32(in);
    }
    switch (how & 3) {
    case 0:
        rc = tcp_listen(r->d, &r->env, how & 4 ? &t.local : &any, u->bound ? u->port : LOCAL_PORT, how >> 4, &so,
                        number, &u->id);
        u->listener = rc == 0;
        break;
    case 1:
        if (u->bound)
            return;
        rc = tcp_bind(r->d, &t.local, how & 4 ? 0 : LOCAL_PORT, &so, number, &u->port);
        u->bound = rc == 0;
        return;
    default:
        u->conn = true; /* an event may come within the call */
        rc = tcp_connect(r->d, &r->env, &t, 1460, &so, number, &u->id);
        u->conn = rc == 0;
        break;
    }
    FUZZ_CHECK(rc == 0 || rc == -EADDRINUSE || rc == -ENOMEM || rc == -EADDRNOTAVAIL || rc == -EINVAL);
    if (rc != 0)
        u->id = TCP_NO_ID;
    else
        u->bound = false;
    note(r, (uint64_t)(uint32_t)rc);
}

static void
accept_user(struct replica *r, struct user *listener)
{
    struct tcp_tuple t;

    for (uint32_t number = 1; number <= USERS; number++) {
        struct user *u = &r->users[number];
        tcp_id id;

        if (u->id != TCP_NO_ID || u->bound)
            continue;
        *u = (struct user){ .id = UINT32_MAX, .conn = true, .connected = true }; /* data comes within the call */
        id = tcp_accept(r->d, &r->env, listener->id, number, &t);
        if (id == TCP_NO_ID)
            *u = (struct user){ .id = TCP_NO_ID };
        else if (u->id != TCP_NO_ID)
            u->id = id;
        return;
    }
}

static void
call_listener(struct replica *r, struct input *in, uint32_t number, uint8_t what)
{
    struct user *u = &r->users[number];

    switch (what % 5) {
    case 0:
        tcp_set_backlog(r->d, u->id, input_u8(in));
        break;
    case 1:
        tcp_close(r->d, &r->env, u->id, false);
        FUZZ_CHECK(u->id == TCP_NO_ID);
        break;
    case 2:
        tcp_set_option(r->d, &r->env, u->id, input_u8(in) % TCP_OPT_COUNT, (int32_t)input_u32(in));
        break;
    default:
        accept_user(r, u);
        break;
    }
}

static void
call_conn(struct replica *r, struct input *in, uint32_t number, uint8_t what)
{
    struct user *u = &r->users[number];
    uint32_t n;

    switch (what % 8) {
    case 0:
    case 1:
        n = input_u16(in) * (what & 8 ? 16u : 1u);
        if (u->shut || !u->connected || u->appended - u->acked + n > OUTSTANDING_MAX)
            return;
        u->appended += n;
        tcp_send(r->d, &r->env, u->id, n, (what & 16 ? TCP_SEND_MORE : 0) | (what & 32 ? TCP_SEND_EOR : 0));
        break;
    case 2:
        n = input_u16(in);
        n = n < u->unread ? n : u->unread;
        u->unread -= n;
        tcp_consumed(r->d, &r->env, u->id, n);
        break;
    case 3:
        u->shut = true;
        tcp_shutdown(r->d, &r->env, u->id);
        break;
    case 4:
        u->closed = true;
        tcp_close(r->d, &r->env, u->id, u->unread > 0);
        break;
    case 5:
        tcp_abort(r->d, &r->env, u->id);
        *u = (struct user){ .id = TCP_NO_ID };
        break;
    default:
        tcp_set_option(r->d, &r->env, u->id, input_u8(in) % TCP_OPT_COUNT, (int32_t)input_u32(in));
        break;
    }
}

static void
user_call(struct replica *r, struct input *in)
{
    uint8_t what = input_u8(in);
    uint32_t number = 1 + (what >> 5) % USERS;
    struct user *u = &r->users[number];

    if (u->id == TCP_NO_ID)
        open_user(r, in, number);
    else if (u->listener)
        call_listener(r, in, number, what);
    else if (!u->closed)
        call_conn(r, in, number, what);
}

/* ---- time ---------------------------------------------------------------------------------------------------------------------- */

/* From deadline to deadline, as a worker does. */
static void
advance(struct replica *r, uint64_t us)
{
    uint64_t end_us = r->env.now_us + us;
    uint64_t next_us;

    for (;;) {
        next_us = tcp_next_us(r->d, r->env.now_us);
        if (next_us > end_us)
            break;
        r->env.now_us = next_us > r->env.now_us ? next_us : r->env.now_us + 1;
        tcp_tick(r->d, &r->env, 100);
    }
    if (r->env.now_us < end_us)
        r->env.now_us = end_us;
}

/* A tick that comes late, as under load: everything due at once, in portions. */
static void
advance_late(struct replica *r, uint64_t us)
{
    r->env.now_us += us;
    for (unsigned i = 0; i < 1000 && tcp_next_us(r->d, r->env.now_us) <= r->env.now_us; i++)
        tcp_tick(r->d, &r->env, 2);
    FUZZ_CHECK(tcp_next_us(r->d, r->env.now_us) > r->env.now_us);
}

static void
pass_time(struct replica *r, struct input *in)
{
    static const uint32_t units_us[] = { 1, 100, 10000, 1000000 };
    uint8_t how = input_u8(in);
    uint64_t us = (uint64_t)units_us[how & 3] * (1 + (how >> 3));

    if (how & 4)
        advance_late(r, us);
    else
        advance(r, us);
}

/* ---- an input -------------------------------------------------------------------------------------------------------------------- */

static void
replica_reset(struct replica *r)
{
    struct tcp_domain *d = r->d;

    memset(r, 0, sizeof(*r));
    r->d = d;
    memset(d, 0, domain_bytes);
    r->env.now_us = START_US;
    r->env.sink = &r->sink;
    r->env.ctr = &r->ctr;
    r->sink = (struct tcp_sink){ r, on_emit, on_deliver, on_release, on_acked, on_event, NULL };
    FUZZ_CHECK(tcp_domain_init(d, &params, r->env.now_us) == 0);
}

static void
step(struct replica *r, struct input *in)
{
    uint8_t kind = input_u8(in);

    r->env.gso_max_bytes = kind & 0x40 ? 61440 : 0;
    r->env.mem_pressure = (kind & 0x30) == 0x30;
    switch (kind % 8) {
    case 0:
    case 1:
    case 2:
        segment(r, in);
        break;
    case 3:
    case 4:
        user_call(r, in);
        break;
    case 5:
        unreachable(r, in);
        break;
    default:
        pass_time(r, in);
        break;
    }
}

static void
compare(const struct replica *a, const struct replica *b)
{
    FUZZ_CHECK(memcmp(a->d, b->d, domain_bytes) == 0);
    FUZZ_CHECK(a->digest == b->digest && a->env.now_us == b->env.now_us && a->nb_bufs == b->nb_bufs);
    FUZZ_CHECK(memcmp(a->users, b->users, sizeof(a->users)) == 0);
}

/* Everyone leaves; half-open and TIME-WAIT entries end by their timers. */
static void
finish(struct replica *r)
{
    struct tcp_usage usage;
    const struct ip_addr local = ip_addr_v4(0x0200000a);

    for (uint32_t number = 1; number <= USERS; number++) {
        struct user *u = &r->users[number];

        if (u->bound)
            tcp_unbind(r->d, &local, u->port, number);
        if (u->id != TCP_NO_ID && u->listener)
            tcp_close(r->d, &r->env, u->id, false);
        else if (u->id != TCP_NO_ID)
            tcp_abort(r->d, &r->env, u->id);
        *u = (struct user){ .id = TCP_NO_ID };
    }
    advance(r, 600 * SECOND_US);
    tcp_usage(r->d, &usage);
    FUZZ_CHECK(usage.conns == 0 && usage.listeners == 0 && usage.half_open == 0 && usage.time_wait == 0);
    FUZZ_CHECK(usage.ooo_bufs == 0 && usage.timers_armed == 0);
    for (unsigned i = 0; i < POOL_COUNT; i++)
        FUZZ_CHECK(r->d->pools[i].used == 0);
    for (uint32_t i = 0; i < r->nb_bufs; i++)
        FUZZ_CHECK(r->bufs[i] == BUF_DONE);
    FUZZ_CHECK(r->ctr.v[CTR_TCP_BUG_EDGE] == 0);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    tcp_params_default(&params);
    params.max_conns = 8;
    params.max_half_open = 4;
    params.max_time_wait = 2;
    params.max_ooo_bufs = 16;
    params.seed[0] = UINT64_C(0x0123456789abcdef);
    params.seed[1] = 42;
    params.rcv_buf_bytes = 65535;
    params.ecn = TCP_ECN_ACCURATE;
    domain_bytes = tcp_domain_bytes(&params);
    for (unsigned i = 0; i < 2; i++) {
        replicas[i].d = aligned_alloc(64, domain_bytes);
        FUZZ_CHECK(replicas[i].d != NULL);
    }
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };

    replica_reset(&replicas[0]);
    replica_reset(&replicas[1]);
    for (unsigned n = 0; in.left > 0 && n < STEPS_MAX; n++) {
        struct input again = in;

        step(&replicas[0], &in);
        step(&replicas[1], &again);
        compare(&replicas[0], &replicas[1]);
    }
    finish(&replicas[0]);
    finish(&replicas[1]);
    compare(&replicas[0], &replicas[1]);
    return 0;
}
