/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/engine.h"

#include <netinet/in.h>
#include <string.h>

#include "sockets/stamp.h"
#include "tcp/md5sig.h"

/**
 * @file
 * Bytes from the application's chunks to packets. The chunks stay the application's: it may change what it has appended while a packet
 * that refers to it is on its way, and thereby spoil its own stream; nothing here depends on the bytes.
 */

/* Below this a copy costs less than another buffer in the chain. */
#define COPY_BYTES 256u
static_assert(TCP_HDR_MAX + COPY_BYTES <= PKTPOOL_TX_ROOM, "it goes where the header is");

/* ---- from the application ---------------------------------------------------------------------------------------------------- */

/* What was appended, in two parts if a record ends within. Where it ends is the application's word: it bounds its own segments alone. */
static void
send_records(struct stack *s, struct sock *sk, const struct shm_front_sock *f, uint32_t n_bytes, bool ending)
{
    uint32_t flags = shm_load(&f->tx_flags);
    uint32_t how = flags & SHM_TX_MORE || ending ? TCP_SEND_MORE : 0;
    uint32_t record =
        flags & SHM_TX_EOR ? shm_load(&sk->app->front_more[sk->slot].tx_eor) - (sk->tx_tail - n_bytes) : 0;

    if (unlikely(flags & SHM_TX_STAMPS))
        stamp_request(s, sk, flags, n_bytes);
    if (likely(record == 0 || record > n_bytes)) {
        engine_send(s, sock_tcp(sk), n_bytes, how);
        return;
    }
    engine_send(s, sock_tcp(sk), record, TCP_SEND_EOR);
    if (record < n_bytes)
        engine_send(s, sock_tcp(sk), n_bytes - record, how);
}

/* How much the application has appended since the last look; false: that cannot be. */
static bool
appended(struct stack *s, struct sock *sk, uint32_t tail, uint32_t *n_bytes)
{
    bool ok;

    sock_lock_tx(s, sk);
    *n_bytes = tail - sk->tx_tail;
    ok = tail - sk->tx_acked <= SHM_SNDBUF_MAX && *n_bytes <= SHM_SNDBUF_MAX;
    if (ok)
        sk->tx_tail = tail;
    sock_unlock_tx(s, sk);
    return ok;
}

void
tx_take_to(struct stack *s, struct sock *sk, uint32_t tail, bool ending)
{
    uint32_t n_bytes;

    if (unlikely(!(sock_state(sk) & (SHM_ST_CONNECTED | SHM_ST_GONE)) || !appended(s, sk, tail, &n_bytes))) {
        if (tail != 0 || !(sock_flags(sk) & SOCK_SYN_DATA))
            sock_bad(s, sk);
        return;
    }
    /* Bytes that cross with the connection's end, or with a shutdown by another thread, are dropped. */
    if (sock_tcp(sk) == TCP_NO_ID || (sock_flags(sk) & SOCK_SHUT_WR))
        return;
    send_records(s, sk, sock_front(sk), n_bytes, ending);
}

/* ---- from the engine -------------------------------------------------------------------------------------------------------------- */

/* Where a transmit stream lies. The application's words are read once for a segment, or it could be cut into pieces without end. */
struct stream {
    const struct app *app;
    uint32_t slot;
    uint32_t base; /**< tx_base */
    uint32_t small; /**< tx_small */
};

static struct stream
stream_of(const struct app *app, uint32_t slot)
{
    const struct shm_front_sock *f = &app->front[slot];

    return (struct stream){ app, slot, shm_load(&f->tx_base), shm_load16(&f->tx_small) };
}

/* The bytes at position pos, up to max of them that lie together. NULL: the application named no memory of its own. */
static inline char *
stream_at(struct stream st, uint32_t pos, uint32_t max, uint32_t *len)
{
    const struct app *app = st.app;
    struct shm_front_sock *f = &app->front[st.slot];
    uint32_t distance = pos - st.base, off = distance % SHM_CHUNK_BYTES, chunk;

    if (distance < SHM_SMALL_BYTES && st.small != 0) {
        if (unlikely(st.small > app->nb_smalls))
            return NULL;
        *len = RTE_MIN(max, SHM_SMALL_BYTES - distance);
        return app->smalls + (size_t)(st.small - 1) * SHM_SMALL_BYTES + distance;
    }
    chunk = shm_load16(shm_tx_chunk(f, &app->front_more[st.slot], distance)) - 1u;
    if (unlikely(chunk >= app->nb_chunks))
        return NULL;
    *len = RTE_MIN(max, SHM_CHUNK_BYTES - off);
    return app->chunks + (size_t)chunk * SHM_CHUNK_BYTES + off;
}

/* Piece by piece; apart, since hardly any payload that is copied lies in two. */
static __attribute__((noinline)) bool
copy_pieces(struct stream st, char *to, uint32_t pos, uint32_t n_bytes)
{
    while (n_bytes > 0) {
        uint32_t len;
        const char *from = stream_at(st, pos, n_bytes, &len);

        if (from == NULL)
            return false;
        memcpy(to, from, len);
        to += len;
        pos += len;
        n_bytes -= len;
    }
    return true;
}

static inline bool
payload_copy(struct stream st, char *to, uint32_t pos, uint32_t n_bytes)
{
    uint32_t len;
    const char *from = stream_at(st, pos, n_bytes, &len);

    if (unlikely(from == NULL || len != n_bytes))
        return copy_pieces(st, to, pos, n_bytes);
    __asm__("" : "+r"(n_bytes)); /* with the bound the compiler makes a loop, which the C library's copy beats */
    memcpy(to, from, n_bytes);
    return true;
}

/* Out of the way of who only takes one. */
static __rte_noinline struct rte_mbuf *
buf_refill(struct net *net)
{
    if (rte_pktmbuf_alloc_bulk(net->host->pool->tx, net->tx_spare, NET_TX_SPARE) != 0)
        return rte_pktmbuf_alloc(net->host->pool->tx); /* the last ones, one by one */
    net->nb_tx_spare = NET_TX_SPARE - 1;
    return net->tx_spare[NET_TX_SPARE - 1];
}

/* A transmit buffer, empty; NULL: there is none. */
static inline struct rte_mbuf *
buf_take(struct net *net)
{
    return likely(net->nb_tx_spare > 0) ? net->tx_spare[--net->nb_tx_spare] : buf_refill(net);
}

/* One mbuf for each piece that lies in one chunk. *bad: the fault is the application's. */
static __rte_noinline bool
payload_attach(struct net *net, struct stream st, struct rte_mbuf *m, uint32_t pos, uint32_t n_bytes, bool *bad)
{
    struct rte_mbuf *last = m;

    while (n_bytes > 0) {
        struct rte_mbuf *piece;
        uint32_t len;
        char *from = stream_at(st, pos, n_bytes, &len);

        *bad = from == NULL;
        if (*bad)
            return false;
        piece = buf_take(net);
        if (unlikely(piece == NULL))
            return false;
        len = RTE_MIN(len, (uint32_t)INT16_MAX);
        if (unlikely(!arena_attach(st.app->arena, piece, from, (uint16_t)len, net->host->nb_nets == 1))) {
            rte_pktmbuf_free(piece);
            return false;
        }
        last->next = piece;
        last = piece;
        m->nb_segs++;
        m->pkt_len += len;
        pos += len;
        n_bytes -= len;
    }
    return true;
}

/* Into the header's option, when the rest of the segment stands. */
static void
sign(struct rte_mbuf *m, const struct tcp_out *out, uint16_t hdr_len)
{
    uint8_t *hdr = rte_pktmbuf_mtod(m, uint8_t *);
    uint32_t off = hdr_len;
    MD5_CTX sum;

    tcp_md5_begin(&sum, &out->tuple->local, &out->tuple->remote, hdr, out->payload_len);
    for (const struct rte_mbuf *piece = m; piece != NULL; piece = piece->next, off = 0)
        tcp_md5_add(&sum, rte_pktmbuf_mtod_offset(piece, const uint8_t *, off), piece->data_len - off);
    tcp_md5_finish(&sum, out->md5, hdr + TCP_MD5_DIGEST_OFF);
}

/* The segment from its TCP header on, whose length is told; NULL: no buffer (counted), or *bad. */
static inline struct rte_mbuf *
segment_build(struct net *net, struct stream st, const struct tcp_out *out, uint16_t *hdr_len, bool *bad)
{
    struct rte_mbuf *m = buf_take(net);
    uint32_t copied = out->payload_len <= COPY_BYTES ? out->payload_len : 0;
    bool ok = m != NULL;

    *bad = false;
    if (likely(ok)) {
        char *hdr = rte_pktmbuf_mtod(m, char *);
        *hdr_len = (uint16_t)tcp_wire_build(out, (uint8_t *)hdr);
        m->data_len = (uint16_t)(*hdr_len + copied);
        m->pkt_len = *hdr_len + copied;
        if (copied > 0) {
            /* Behind the header, in the same buffer, which has room for as much. */
            ok = payload_copy(st, hdr + *hdr_len, out->payload_pos, copied);
            *bad = !ok;
            counter_inc(net->ctr, CTR_SOCK_TX_COPIED);
        } else if (out->payload_len > 0) {
            ok = payload_attach(net, st, m, out->payload_pos, out->payload_len, bad);
        }
    }
    if (unlikely(ok && out->md5 != NULL))
        sign(m, out, *hdr_len);
    if (likely(ok))
        return m;
    if (!*bad)
        counter_inc(net->ctr, CTR_PORT_DROP_NO_MBUF);
    rte_pktmbuf_free(m);
    return NULL;
}

static void
segment_send(struct net *net, struct rte_mbuf *m, const struct tcp_out *out, uint16_t hdr_len, uint64_t now_us)
{
    const struct ip_send send = {
        .src = &out->tuple->local,
        .dst = &out->tuple->remote,
        .proto = IPPROTO_TCP,
        .tos = out->tos,
        .may_be_cut = out->may_be_cut,
        .gso_size = out->gso_size,
        .l4_hdr_len = hdr_len,
    };

    ip_output(net->ip, m, &send, now_us);
}

static __rte_noinline void
note_sent_more(struct stack *s, struct sock *sk)
{
    const struct sock_more *more = sock_more(s, sk);

    if (more->notsent_lowat != 0)
        sock_mark(s, sk, DIRTY_ACKED); /* there may be space for its writer */
    if (more->stamps != NULL)
        stamp_on_sent(s, sk);
}

/* tx_sent grows with first transmissions alone; a retransmission lies below it. */
static void
note_sent(struct stack *s, struct sock *sk, uint32_t end)
{
    struct shm_back_sock *b = sock_back(sk);

    sock_lock_tx(s, sk);
    if ((int32_t)(end - b->tx_sent) > 0) {
        shm_store(&b->tx_sent, end);
        if (unlikely(__atomic_load_n(&sk->has_more, __ATOMIC_RELAXED)))
            note_sent_more(s, sk);
    }
    sock_unlock_tx(s, sk);
}

void
tx_on_emit(void *ctx, const struct tcp_out *out, uint64_t now_us)
{
    struct stack *s = ctx;
    struct sock *sk = out->payload_len > 0 ? &s->socks[out->user] : NULL;
    const struct stream st = sk != NULL ? stream_of(sk->app, sk->slot) : (struct stream){ .app = NULL };
    uint16_t hdr_len;
    bool bad;
    struct rte_mbuf *m = segment_build(s->net, st, out, &hdr_len, &bad);

    if (unlikely(m == NULL)) {
        if (bad)
            sock_bad(s, sk);
        return;
    }
    if (sk != NULL)
        note_sent(s, sk, out->payload_pos + out->payload_len);
    segment_send(s->net, m, out, hdr_len, now_us);
    s->env.tx_full = s->relay == NULL && port_tx_is_full(&s->net->queue);
}

/* ---- for somebody else ------------------------------------------------------------------------------------------------------------ */

/* Is the socket in that place still the connection's? Its addresses were stored before the first byte was sent. */
static bool
is_of(const struct sock *sk, struct stream st, const struct tcp_tuple *t)
{
    const struct shm_back_name *n = &st.app->back_names[st.slot];
    const struct shm_back_more *more = &st.app->back_more[st.slot];
    const struct shm_addr local = addr_to_shm(&t->local, t->local_port);
    const struct shm_addr peer = addr_to_shm(&t->remote, t->remote_port);
    struct shm_addr now_local, now_peer;

    /* After the chunks' numbers have been read: whoever takes the socket into new use writes these first. */
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    now_local = shm_name(n, more, SHM_LOCAL);
    now_peer = shm_name(n, more, SHM_PEER);
    return __atomic_load_n(&sk->app, __ATOMIC_RELAXED) == st.app &&
           __atomic_load_n(&sk->slot, __ATOMIC_RELAXED) == st.slot && memcmp(&now_local, &local, sizeof(local)) == 0 &&
           memcmp(&now_peer, &peer, sizeof(peer)) == 0;
}

/*
 * The caller may be late: somebody else has sent the same bytes again meanwhile, the peer has acknowledged them, and the application has put others in their place. Then this
 * segment carries the others under the old sequence numbers, or a mixture that fails its checksum. It does no harm: only what the peer has acknowledged in order is ever
 * overwritten, i.e. what lies below its rcv_nxt, and of a segment it takes nothing below that. (One that is late by a whole turn of the sequence space is PAWS's affair, like any
 * old duplicate.) The thread sanitizer can see such a read as a race with the application's write; no lock could, without an application waiting for the slowest replica.
 */
void
net_emit(struct net *net, const struct stack *s, const struct tcp_out *out, uint64_t now_us)
{
    const struct sock *sk = &s->socks[out->user];
    struct stream st = { .app = NULL };
    struct rte_mbuf *m;
    uint16_t hdr_len;
    bool bad;

    if (out->payload_len > 0) {
        st.app = __atomic_load_n(&sk->app, __ATOMIC_ACQUIRE);
        st.slot = __atomic_load_n(&sk->slot, __ATOMIC_RELAXED);
        /* Applications end with the world stopped, i.e. not within this pass; their sockets may at any time. */
        if (st.app == NULL || st.slot >= st.app->max_socks)
            return;
        st = stream_of(st.app, st.slot);
    }
    m = segment_build(net, st, out, &hdr_len, &bad);
    if (unlikely(m == NULL))
        return; /* a bad chunk is found by tx_on_sent too */
    if (st.app != NULL && unlikely(!is_of(sk, st, out->tuple)))
        rte_pktmbuf_free(m);
    else
        segment_send(net, m, out, hdr_len, now_us);
}

void
tx_on_sent(struct stack *s, struct sock *sk, uint32_t pos, uint32_t n_bytes)
{
    const struct stream st = stream_of(sk->app, sk->slot);
    uint32_t end = pos + n_bytes;

    for (uint32_t len; pos != end; pos += len) {
        if (stream_at(st, pos, end - pos, &len) == NULL) {
            sock_bad(s, sk);
            return;
        }
    }
    note_sent(s, sk, end);
}
