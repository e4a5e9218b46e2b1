/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/backend.h"

#include <netinet/in.h>
#include <string.h>

#include "tcp/wire.h"

/**
 * @file
 * Bytes from the application's chunks to packets. The chunks stay the application's: it may change what it has appended while a packet
 * that refers to it is on its way, and thereby spoil its own stream; nothing here depends on the bytes.
 */

/* Below this a copy costs less than another buffer in the chain. */
#define COPY_BYTES 256u

/* ---- from the application ---------------------------------------------------------------------------------------------------- */

void
tx_take(struct stack *s, struct sock *sk)
{
    const struct shm_front_sock *f = sock_front(sk);
    uint32_t tail = shm_load(&f->tx_tail);
    uint32_t n_bytes = tail - sk->tx_tail;

    if (n_bytes == 0)
        return;
    if (unlikely(tail - sk->tx_acked > SHM_SNDBUF_MAX || n_bytes > SHM_SNDBUF_MAX ||
                 !(sk->status & (SHM_ST_CONNECTED | SHM_ST_GONE)))) {
        sock_bad(s, sk);
        return;
    }
    sk->tx_tail = tail;
    /* Bytes that cross with the connection's end, or with a shutdown by another thread, are dropped. */
    if (sk->tcp == TCP_NO_ID || (sk->flags & SOCK_SHUT_WR))
        return;
    if (s->cfg.locks)
        rte_spinlock_lock(&sk->tx_lock);
    tcp_send(s->tcp, &s->env, sk->tcp, n_bytes, shm_load(&f->tx_flags) & SHM_TX_MORE ? TCP_SEND_MORE : 0);
    if (s->cfg.locks)
        rte_spinlock_unlock(&sk->tx_lock);
}

/* ---- from the engine -------------------------------------------------------------------------------------------------------------- */

/* The bytes at position pos, up to max of them within one chunk. NULL: the application named no chunk of its own. */
static char *
stream_at(const struct sock *sk, uint32_t pos, uint32_t max, uint32_t *len)
{
    const struct app *app = sk->app;
    uint32_t off = pos % SHM_CHUNK_BYTES;
    uint32_t chunk = shm_load(&sock_front(sk)->tx_chunk[pos / SHM_CHUNK_BYTES % SHM_TX_CHUNKS]);

    if (unlikely(chunk >= app->nb_chunks))
        return NULL;
    *len = RTE_MIN(max, SHM_CHUNK_BYTES - off);
    return app->chunks + (size_t)chunk * SHM_CHUNK_BYTES + off;
}

static bool
payload_copy(const struct sock *sk, struct rte_mbuf *m, uint32_t pos, uint32_t n_bytes)
{
    while (n_bytes > 0) {
        uint32_t len;
        const char *from = stream_at(sk, pos, n_bytes, &len);

        if (from == NULL)
            return false;
        memcpy(rte_pktmbuf_append(m, (uint16_t)len), from, len);
        pos += len;
        n_bytes -= len;
    }
    return true;
}

/* One mbuf for each piece that lies in one chunk. *bad: the fault is the application's. */
static bool
payload_attach(struct stack *s, const struct sock *sk, struct rte_mbuf *m, uint32_t pos, uint32_t n_bytes, bool *bad)
{
    struct rte_mbuf *last = m;

    while (n_bytes > 0) {
        struct rte_mbuf *piece;
        uint32_t len;
        char *from = stream_at(sk, pos, n_bytes, &len);

        *bad = from == NULL;
        if (*bad)
            return false;
        piece = rte_pktmbuf_alloc(s->pool->tx);
        if (unlikely(piece == NULL))
            return false;
        len = RTE_MIN(len, (uint32_t)INT16_MAX);
        if (unlikely(!arena_attach(sk->app->arena, piece, from, (uint16_t)len))) {
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

static bool
payload_add(struct stack *s, struct sock *sk, struct rte_mbuf *m, const struct tcp_out *out)
{
    bool bad = false;
    bool ok;

    if (out->payload_len <= COPY_BYTES) {
        ok = payload_copy(sk, m, out->payload_pos, out->payload_len);
        bad = !ok;
        counter_inc(s->ctr, CTR_SOCK_TX_COPIED);
    } else {
        ok = payload_attach(s, sk, m, out->payload_pos, out->payload_len, &bad);
    }
    if (unlikely(bad))
        sock_bad(s, sk);
    else if (unlikely(!ok))
        counter_inc(s->ctr, CTR_PORT_DROP_NO_MBUF);
    return ok;
}

/* tx_sent grows with first transmissions alone; a retransmission lies below it. */
static void
note_sent(struct stack *s, struct sock *sk, const struct tcp_out *out)
{
    uint32_t end = out->payload_pos + out->payload_len;

    if ((int32_t)(end - sk->tx_sent) > 0) {
        sk->tx_sent = end;
        shm_store(&sock_back(sk)->tx_sent, end);
        if (unlikely(sk->notsent_lowat != 0))
            sock_mark(s, sk, DIRTY_ACKED); /* there may be space for its writer */
    }
}

void
tx_on_emit(void *ctx, const struct tcp_out *out, uint64_t now_us)
{
    struct stack *s = ctx;
    struct rte_mbuf *m = rte_pktmbuf_alloc(s->pool->tx);
    size_t hdr_len = tcp_wire_header_len(out);
    struct ip_send send = {
        .src = out->tuple->local,
        .dst = out->tuple->remote,
        .proto = IPPROTO_TCP,
        .tos = out->tos,
        .gso_size = out->gso_size,
        .l4_hdr_len = (uint16_t)hdr_len,
    };

    if (unlikely(m == NULL)) {
        counter_inc(s->ctr, CTR_PORT_DROP_NO_MBUF);
        return;
    }
    tcp_wire_build(out, (uint8_t *)rte_pktmbuf_append(m, (uint16_t)hdr_len));
    if (out->payload_len > 0) {
        struct sock *sk = &s->socks[out->user];

        if (unlikely(!payload_add(s, sk, m, out))) {
            rte_pktmbuf_free(m);
            return;
        }
        note_sent(s, sk, out);
    }
    ip_output(s->ip, m, &send, now_us);
}
