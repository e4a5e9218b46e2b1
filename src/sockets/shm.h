/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_SHM_H
#define SOCKETS_SHM_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/**
 * @file
 * What an application and the stack share: the whole of it, and the only header that both sides include.
 *
 * Memory. An application here is a family of processes: one that attached, and what it forked since. A family has four
 * regions, each a memfd that is sealed against change of size:
 *
 *   front   written by the application, never by the stack (but for the consumer index of its rings): notification
 *           rings, one struct shm_front_sock (and shm_front_more) for each socket, transmit chunks and blocks. The application maps it read-write.
 *   back    written by the stack alone: one struct shm_back_sock and shm_back_name for each socket, event queues, answers. The application
 *           has a descriptor that can only be mapped for reading.
 *   pool    the stack's receive buffers (core/pktpool.h), read-only for applications, one for all of them.
 *   stack   struct shm_stack_page: what is true for everyone; read-only for applications, one for all of them.
 *
 * Every shared word has one writer (IsoStack section 4.1). The stack reads each word of `front` once, bounds it, and
 * keeps it privately: whatever an application writes can harm its own sockets alone. Positions in byte streams and
 * rings are free-running 32-bit counters; differences are taken modulo 2^32.
 *
 * Sending. Where byte p of a socket's stream lies is told by its distance d = p - tx_base: in the small block that tx_small names if it names one and d < SHM_SMALL_BYTES,
 * else in the chunk of SHM_CHUNK_BYTES that shm_tx_chunk(d) names, at d % SHM_CHUNK_BYTES. The front-end copies bytes in, stores tx_tail with release,
 * and notifies. The stack attaches these bytes to packets; it stores tx_acked when the peer has them, and the
 * chunks below belong to the front-end again. At most SHM_TX_CHUNKS * SHM_CHUNK_BYTES - SHM_CHUNK_BYTES bytes are
 * outstanding, so that a chunk is never its own successor. While nothing is outstanding (tx_acked == tx_tail) the front-end may store another tx_base, so that
 * who sends little at a time uses the same few lines of memory for ever: a block, or a chunk behind its first SHM_SMALL_BYTES.
 *
 * Receiving. The stack publishes trains: a train is a list of segments (struct shm_segment, at the start of a receive
 * buffer), complete before it is published in trains[]; then rx_tail counts its bytes. The front-end copies
 * out and stores rx_head; a segment that ends at or below rx_head belongs to the stack again at once, so its `next` is
 * read before that store. At most SHM_TRAINS trains are published at a time; meanwhile the next one grows.
 * A train t is finished when rx_head has passed its last byte.
 *
 * Commands. A socket has a ring of SHM_CMDS commands; cmd_head counts posted ones, cmd_done executed ones; the result of
 * command n is cmd_result[n % SHM_CMDS], valid until command n + SHM_CMDS is posted. Commands of one socket are executed in order,
 * and after the bytes up to tx_tail as it was when they were posted (a close after a send sends).
 *
 * Notification. After changing tx_tail, rx_head or cmd_head the front-end runs this, where fence is sequentially consistent:
 *
 *     fence; if (back->serviced == front->notified) { front->notified++; enqueue the socket's number in the ring of this CPU;
 *     fence; if (stack_page->instance[i].sleeping) write(doorbell[i]); }
 *
 * and the stack, on dequeuing: copy n = front->notified; back->serviced = n; fence; then read tx_tail, rx_head and commands.
 * So a socket stands in the rings at most once, and what is appended while it stands there is taken along: the
 * front-end's aggregation (section 4.2), which holds nothing back while nothing is pending. Several threads of one socket take
 * turns by the front-end's lock of that socket.
 *
 * Waking. Two ways to sleep. On one socket: set bits in front->sleepers, fence, look again, FUTEX_WAIT on back->event_seq (a
 * shared futex; a read-only mapping suffices). On many: an event queue (epoll sets, poll, select): subscribe the socket by command; the
 * stack appends the socket's number to the queue at each event (unless it stands there already) and writes to its pipe if `sleeping`. If the queue is
 * full, `overflow` is increased instead, and the application looks at every socket of its set. Wake-ups are issued once per poll.
 *
 * The front-end takes an entry of an event queue so: read slot[head % N]; store head + 1; fence; look at the socket. The stack
 * leaves an entry out only if it sees, after a fence behind the socket's change, that an earlier entry has not been taken yet.
 *
 * Fast Open (RFC 7413). The front-end writes bytes to the stream's begin and leaves tx_tail at 0; CONNECT_FAST says how many there are, and its
 * result how many of them went with the SYN: by these the front-end moves tx_tail, which is no news to the stack. SHM_FAST_DEFER in place of a number: -EAGAIN, and nothing is
 * sent, if bytes could go with a SYN to that address; else the SYN asks for a cookie.
 *
 * Fresh sockets. Before it posts SHM_OP_OPEN, or SHM_OP_ACCEPT with this slot as the free one, the front-end zeroes tx_tail, tx_base, rx_head,
 * sleepers and tx_flags of the slot: streams start at position 0, and so does train_tail. cmd_head, notified, event_seq and their counterparts run on. A command
 * other than OPEN on a slot that is not in use gives -EBADF.
 *
 * Stamps (SO_TIMESTAMPING). SHM_TX_STAMP_* with tx_stamp, the position behind a byte that was appended, ask when this byte was sent and acknowledged for the first time. The stack
 * appends its answers to shm_back_more.stamp, of which the front-end has taken those before stamp_head, in the stack's time: microseconds since clock_tsc, which the stack page relates
 * to the CPU's counter. A second request, as a second record's end, waits until the stack has serviced the first. What arrives is always stamped, in shm_segment.
 *
 * stack_page->aggregate = 0 (Iso-Basic): bytes are appended only while back->serviced == front->notified, so that the stack sees each
 * send by itself.
 *
 * Versions: SHM_VERSION changes with anything in this file; the handshake refuses another.
 */

#define SHM_VERSION 12u

#define SHM_CHUNK_BYTES 65536u
#define SHM_TX_CHUNKS 64u
#define SHM_SMALL_BYTES 256u
#define SHM_SNDBUF_MAX ((SHM_TX_CHUNKS - 1) * SHM_CHUNK_BYTES)
#define SHM_TRAINS 8u
#define SHM_CMDS 2u
#define SHM_EVENTQ_ENTRIES 8192u
#define SHM_MAX_EVENTQS 256u
#define SHM_MAX_CPUS 64u
#define SHM_MAX_INSTANCES 16u /**< workers: each has a doorbell, and rings in every application */
#define SHM_ANY_INSTANCE UINT32_MAX
#define SHM_RING_ENTRIES 16384u
#define SHM_MAX_ROUTES 64u
#define SHM_INFO_SLOTS 16u
#define SHM_MAX_CHUNKS                                                                                                 \
    65535u /**< bound of shm_layout.nb_chunks: their numbers are short, so that a socket can have many */
#define SHM_NO_CHUNK SHM_MAX_CHUNKS
#define SHM_MAX_SMALLS 65535u /**< bound of shm_layout.nb_smalls */
#define SHM_MAX_SLOTS (1u << 20) /**< bound of shm_layout.max_socks */
#define SHM_NO_SLOT UINT32_MAX

/** The third word of an IPv4 address, ::ffff:0:0/96 in network order. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define SHM_MAPPED_WORD 0xffff0000u
#else
#define SHM_MAPPED_WORD 0x0000ffffu
#endif

/** An address and port: 16 bytes in network order (IPv4 is v4-mapped), the port in host order. */
struct shm_addr {
    uint32_t addr[4];
    uint16_t port;
    uint16_t
        n_bytes; /**< of CONNECT_FAST: that stand in the stream though tx_tail does not say so, or SHM_FAST_DEFER; else 0 */
};

/* ---- commands -------------------------------------------------------------------------------------------------- */

enum shm_op {
    SHM_OP_NOP = 0,
    SHM_OP_OPEN, /**< take the slot into use, a fresh socket; results: 0, -ENFILE */
    SHM_OP_BIND, /**< sa; result 0, -EACCES, -EADDRINUSE, -EADDRNOTAVAIL, -EINVAL; the chosen port appears in the socket's name */
    SHM_OP_LISTEN, /**< opt.value = backlog; 0, -EADDRINUSE, -EINVAL */
    SHM_OP_CONNECT, /**< sa; 0 = SYN sent (its names are set; then SHM_ST_CONNECTED or an error), or -errno */
    SHM_OP_ACCEPT, /**< slot = a free slot: takes it into use for the oldest connection; 0, -EAGAIN, -EINVAL */
    SHM_OP_SHUTDOWN, /**< opt.value = SHUT_RD, SHUT_WR or SHUT_RDWR; 0, -ENOTCONN. Reading is the front-end's affair: what comes later is still delivered */
    SHM_OP_CLOSE, /**< this process is done with the socket; the last one closes. opt.value = 1: linger 0 (reset) */
    SHM_OP_SETOPT, /**< opt.name = enum tcp_option or SHM_OPT_*, opt.value; 0, -EINVAL, -ENOPROTOOPT */
    SHM_OP_SETNAME, /**< text.name = TCP_OPT_CONGESTION, text.value: 0, -ENOENT (no such congestion control), -ENOPROTOOPT */
    SHM_OP_EVENT, /**< publish an event of the socket, for what the front-end knows alone; 0 */
    SHM_OP_INFO, /**< slot = info slot: fills back->info[] with struct shm_info; 0, -EINVAL */
    SHM_OP_SUBSCRIBE, /**< evq.queue; every later event of the socket goes there too, and one now if event_seq is not evq.seen any more; 0, -EINVAL */
    SHM_OP_UNSUBSCRIBE, /**< evq.queue; 0 */
    SHM_OP_SETKEY, /**< slot = an info slot: takes the struct shm_key that stands there; 0, -EINVAL, -ENOENT, -ENOMEM, -EOPNOTSUPP */
    SHM_OP_CONNECT_FAST, /**< sa: as CONNECT, by Fast Open ("Fast Open" above); how many bytes went with the SYN, or -errno; -EOPNOTSUPP: not here */
    SHM_OP_COUNT
};

/* Options that are the socket layer's, in SHM_OP_SETOPT beside those of TCP. */
#define SHM_OPT_RCVLOWAT 0x100u /**< SO_RCVLOWAT in bytes, 0 and 1 alike */
#define SHM_OPT_NOTSENT_LOWAT 0x101u /**< TCP_NOTSENT_LOWAT in bytes, 0 = none */

#define SHM_FAST_DEFER UINT16_MAX

struct shm_cmd {
    uint8_t op;
    uint8_t reserved;
    uint16_t member; /**< the process that asks: its number from the handshake */
    union {
        struct shm_addr sa;
        struct {
            uint32_t name;
            int32_t value;
        } opt;
        struct {
            uint32_t name;
            char value[16]; /**< ends at its first NUL, or with the array */
        } text;
        uint32_t slot;
        struct {
            uint32_t queue;
            uint32_t seen; /**< event_seq before the socket was looked at */
        } evq;
        uint8_t bytes[20];
    };
};
static_assert(sizeof(struct shm_cmd) == 24, "shm_cmd");

#define SHM_KEY_MD5 1u /**< TCP_MD5SIG; n_bytes 0 takes it away */
#define SHM_KEY_FASTOPEN 2u /**< TCP_FASTOPEN_KEY: one of 16 bytes, or two */

/** Argument of SHM_OP_SETKEY, in the front region: too long for a command. */
struct shm_key {
    uint32_t kind; /**< SHM_KEY_* */
    uint32_t addr[4]; /**< of the peers that it is for: as in struct shm_addr */
    uint8_t prefix_len; /**< of 128 */
    uint8_t n_bytes;
    uint8_t bytes[80];
    uint8_t reserved[26];
} __attribute__((aligned(64)));
static_assert(sizeof(struct shm_key) == 128, "shm_key");

/* ---- a socket, front: written by the application ------------------------------------------------------------------ */

#define SHM_SLEEP_READ 0x1u /**< wake at: bytes, FIN, error, a connection to accept */
#define SHM_SLEEP_WRITE 0x2u /**< wake at: free transmit space (a third of the buffer), connected, error */
#define SHM_SLEEP_CMD 0x4u /**< wake at: cmd_done */
#define SHM_WANT_SPACE 0x8u /**< not asleep, but publish an event when a third of the transmit buffer is free */

#define SHM_TX_MORE 0x1u /**< the last send had MSG_MORE: hold back less than a segment */
#define SHM_TX_STAMP_SCHED 0x4u /**< tell when the byte before tx_stamp was handed to the device's queue */
#define SHM_TX_STAMP_SENT 0x8u /**< and when to the device: here at once */
#define SHM_TX_STAMP_ACK 0x10u /**< and when it was acknowledged */
#define SHM_TX_STAMPS (SHM_TX_STAMP_SCHED | SHM_TX_STAMP_SENT | SHM_TX_STAMP_ACK)
#define SHM_TX_EOR 0x2u /**< a record ends at tx_eor (MSG_EOR); stays set until the stack has taken these bytes */

struct shm_front_sock {
    /* line 0: all that a request touches */
    uint32_t tx_tail; /**< bytes ever appended to the transmit stream */
    uint32_t rx_head; /**< bytes ever taken from the receive stream; never above back->rx_tail */
    uint32_t notified; /**< notifications ever enqueued */
    uint32_t cmd_head; /**< commands ever posted */
    uint32_t sleepers; /**< SHM_SLEEP_*, SHM_WANT_* */
    uint32_t tx_flags; /**< SHM_TX_* */
    uint32_t tx_base; /**< position from which distances in the transmit stream count; stored before tx_tail */
    uint16_t tx_small; /**< 1 + the number of a small block, 0 = none */
    uint16_t tx_chunk; /**< shm_tx_chunk */
    uint32_t private0[8]; /**< the front-end's own: lock, read cursor; the stack never reads it */
    /* line 1: commands */
    struct shm_cmd cmd[SHM_CMDS];
    uint32_t private1[4]; /**< as private0 */
} __attribute__((aligned(64)));
static_assert(sizeof(struct shm_front_sock) == 128, "shm_front_sock");
static_assert(offsetof(struct shm_front_sock, cmd) == 64, "commands start a line");

/** What few sockets need, apart, so that the others have no memory there: neither side touches it before there is a reason. */
struct shm_front_more {
    uint32_t tx_eor; /**< with SHM_TX_EOR: position behind the last record; stored before tx_tail */
    uint32_t tx_stamp; /**< with SHM_TX_STAMPS: position behind the byte; stored before tx_tail */
    uint32_t stamp_head; /**< stamps ever taken */
    uint32_t private0[29]; /**< the front-end's own */
    uint16_t tx_chunk[SHM_TX_CHUNKS - 1]; /**< shm_tx_chunk */
} __attribute__((aligned(64)));
static_assert(sizeof(struct shm_front_more) == 256, "shm_front_more");

/**
 * Where the chunk of a distance in the stream is named: 1 + its number; 0 = none, as in memory that was never touched. Read again at each (re)transmission, and bounded each
 * time; so are tx_base and tx_small.
 */
static inline uint16_t *
shm_tx_chunk(struct shm_front_sock *f, struct shm_front_more *more, uint32_t distance)
{
    uint32_t i = distance / SHM_CHUNK_BYTES % SHM_TX_CHUNKS;

    return i == 0 ? &f->tx_chunk : &more->tx_chunk[i - 1];
}

/* ---- a socket, back: written by the stack --------------------------------------------------------------------------- */

#define SHM_ST_OPEN 0x01u /**< the slot is in use for the stack; cleared when it is free for SHM_OP_OPEN again */
#define SHM_ST_LISTEN 0x02u
#define SHM_ST_CONNECTING 0x04u
#define SHM_ST_CONNECTED 0x08u /**< has been established (stays set after the end) */
#define SHM_ST_FIN 0x10u /**< the receive stream ends at rx_tail + rx_held (set after both) */
#define SHM_ST_ERROR 0x20u /**< `error` holds an errno; the connection is gone */
#define SHM_ST_GONE 0x40u /**< the transport is done: nothing more can be sent (EPIPE) */
#define SHM_ST_DRAINED 0x80u /**< after SHM_OP_CLOSE: the stack reads tx chunks no more, they can be reused */

struct shm_train {
    uint32_t first; /**< offset of the first struct shm_segment in the pool, in units of 64 bytes */
    uint32_t n_bytes; /**< payload in all its segments, at least 1 */
};

struct shm_back_sock {
    /* line 0 */
    uint32_t event_seq; /**< futex word: increases with every change that a sleeper may wait for */
    uint32_t tx_acked; /**< bytes of the transmit stream that the peer has acknowledged */
    uint32_t rx_tail; /**< bytes ever published in trains */
    uint32_t train_tail; /**< trains ever published */
    uint32_t serviced; /**< the value of front->notified that has been serviced */
    uint32_t cmd_done; /**< commands ever executed */
    int32_t cmd_result[SHM_CMDS];
    uint32_t status; /**< SHM_ST_*; stored with release after what it speaks of */
    int32_t error; /**< positive errno with SHM_ST_ERROR, or a soft one (0 = none) */
    uint32_t accept_ready; /**< listener: connections that wait */
    uint32_t tx_sent; /**< bytes of the transmit stream that were sent at least once (SIOCOUTQNSD) */
    uint32_t sndbuf_bytes; /**< bound on tx_tail - tx_acked, at most SHM_SNDBUF_MAX */
    uint32_t instance; /**< who serves it: index of doorbells, rings; SHM_ANY_INSTANCE: the calling CPU's, modulo */
    uint32_t generation; /**< how often the slot has been taken into use: catches stale numbers in event queues */
    uint32_t
        rx_held; /**< bytes that arrived and are not in rx_tail for want of a train; they follow when bytes are taken */
    /* line 1 */
    struct shm_train trains[SHM_TRAINS];
} __attribute__((aligned(64)));
static_assert(sizeof(struct shm_back_sock) == 128, "shm_back_sock");
static_assert(offsetof(struct shm_back_sock, trains) == 64, "trains fill a line");

enum shm_end { SHM_LOCAL, SHM_PEER };
enum shm_name_kind {
    SHM_NAME_ANY,
    SHM_NAME_MAPPED,
    SHM_NAME_OTHER
}; /**< the words before the last: 0; as IPv4's; in shm_back_more */

/** What is asked for seldom, close together: a socket's addresses by enum shm_end, stored before the status that says so. */
struct shm_back_name {
    uint32_t last[2]; /**< of an address' words */
    uint16_t port[2];
    uint8_t kind[2]; /**< enum shm_name_kind */
    uint16_t reserved;
    uint32_t rcvbuf_bytes; /**< receive buffer */
};
static_assert(sizeof(struct shm_back_name) == 20, "shm_back_name");

#define SHM_STAMPS 32u

struct shm_stamp {
    uint32_t pos; /**< the byte's position in the transmit stream */
    uint32_t kind; /**< one of SHM_TX_STAMP_* */
    uint64_t at_us;
};

/** What few sockets need, as shm_front_more. Counts on over the slot's users. */
struct shm_back_more {
    uint32_t stamp_tail; /**< stamps ever appended; at most SHM_STAMPS beyond stamp_head, the rest is lost */
    uint32_t name[2][3]; /**< addresses' words before the last, where shm_back_name.kind says so */
    uint32_t reserved[9];
    struct shm_stamp stamp[SHM_STAMPS];
} __attribute__((aligned(64)));
static_assert(sizeof(struct shm_back_more) == 576, "shm_back_more");

/** The address and port of one end. */
static inline struct shm_addr
shm_name(const struct shm_back_name *n, const struct shm_back_more *more, enum shm_end end)
{
    struct shm_addr a = { .addr = { 0, 0, 0, n->last[end] }, .port = n->port[end] };

    if (n->kind[end] == SHM_NAME_MAPPED)
        a.addr[2] = SHM_MAPPED_WORD;
    else if (n->kind[end] == SHM_NAME_OTHER)
        for (unsigned i = 0; i < 3; i++)
            a.addr[i] = more->name[end][i];
    return a;
}

static inline void
shm_name_set(struct shm_back_name *n, struct shm_back_more *more, enum shm_end end, const struct shm_addr *a)
{
    enum shm_name_kind kind = a->addr[2] == SHM_MAPPED_WORD ? SHM_NAME_MAPPED : SHM_NAME_ANY;

    if ((a->addr[0] | a->addr[1]) != 0 || (a->addr[2] != 0 && kind == SHM_NAME_ANY)) {
        kind = SHM_NAME_OTHER;
        for (unsigned i = 0; i < 3; i++)
            more->name[end][i] = a->addr[i];
    }
    n->last[end] = a->addr[3];
    n->port[end] = a->port;
    n->kind[end] = (uint8_t)kind;
}

/** Head of a receive buffer, written by the stack before the train is published. */
struct shm_segment {
    uint32_t next; /**< offset in the pool, in units of 64 bytes, of the next segment of the train; 0 = the last */
    uint32_t data_off; /**< payload, in bytes from this struct */
    uint32_t n_bytes;
    uint32_t at_us; /**< when the last of it arrived, modulo 2^32 */
};
static_assert(sizeof(struct shm_segment) == 16, "shm_segment");

/* ---- event queues ----------------------------------------------------------------------------------------------------- */

struct shm_back_eventq {
    uint32_t tail; /**< entries ever appended */
    uint32_t overflow; /**< events that found the queue full */
    uint32_t reserved[14];
    uint32_t slot[SHM_EVENTQ_ENTRIES];
} __attribute__((aligned(64)));

struct shm_front_eventq {
    uint32_t head; /**< entries ever taken */
    uint32_t sleeping; /**< 1: someone sleeps on the pipe (or is about to: it looks again after a fence) */
    uint32_t reserved[14];
} __attribute__((aligned(64)));

/* ---- answers of SHM_OP_INFO --------------------------------------------------------------------------------------------- */

/** For TCP_INFO and the like: fixed width, the front-end translates. */
struct shm_info {
    uint8_t state; /**< Linux's numbers (enum tcp_state) */
    uint8_t ca_state, retransmits, backoff;
    uint8_t snd_wscale, rcv_wscale, timestamps, sack;
    uint32_t rto_us, snd_mss, rcv_mss, unacked_segs, retrans_segs, srtt_us, rttvar_us, min_rtt_us;
    uint32_t cwnd_segs, ssthresh_segs, snd_wnd, rcv_wnd, path_mtu;
    uint32_t last_data_sent_ms, last_data_recv_ms, last_ack_recv_ms;
    uint32_t lost_segs, sacked_segs, retrans_out_segs, reordering_segs, adv_mss, notsent_bytes;
    uint8_t ecn; /**< Linux's numbers: 0 none, 1 RFC 3168, 2 RFC 9768 */
    uint8_t syn_data, ecn_seen, accecn_seen, accecn_fail;
    uint8_t delivery_rate_app_limited, probes, fastopen_fail;
    uint32_t delivered_segs, rcv_space, rcv_rtt_us;
    uint32_t delivered_ce, received_ce;
    uint32_t delivered_ecn_bytes[3], received_ecn_bytes[3]; /**< ECT(1), CE, ECT(0) */
    uint32_t ato_us, data_segs_in, data_segs_out, dsack_segs, ooo_segs, reorderings;
    uint32_t rto_time_ms;
    uint16_t rtos, rto_recoveries;
    uint32_t nb_fastopen_keys; /**< that the application has set */
    uint8_t fastopen_keys[32];
    uint64_t pacing_rate, max_pacing_rate, delivery_rate; /**< bytes per second; 0 = none */
    uint64_t busy_us, rwnd_limited_us, sndbuf_limited_us;
    uint64_t bytes_sent, bytes_acked, bytes_received, bytes_retrans, segs_in, segs_out;
    char cc_name[16];
};

/* ---- regions ---------------------------------------------------------------------------------------------------------------- */

/** Sizes and places: told in the handshake, fixed for the life of the family. Offsets are from the region's start. */
struct shm_layout {
    uint32_t version; /**< SHM_VERSION */
    uint32_t max_socks;
    uint32_t nb_chunks;
    uint32_t nb_smalls; /**< at most max_socks */
    uint32_t nb_rings_per_instance; /**< CPUs for queues=percpu (ring = the calling thread's CPU), 1 in up mode */
    uint32_t nb_instances;
    uint32_t ring_bytes; /**< of one notification ring: struct rte_ring and its SHM_RING_ENTRIES elements of 4 bytes */
    uint64_t front_bytes, back_bytes, pool_bytes, stack_bytes;
    uint64_t front_rings_off; /**< [instance][ring] */
    uint64_t front_eventqs_off; /**< struct shm_front_eventq[SHM_MAX_EVENTQS] */
    uint64_t
        front_private_off; /**< SHM_FRONT_PRIVATE_BYTES for the front-end: allocators, locks that a family shares */
    uint64_t front_keys_off; /**< struct shm_key[SHM_INFO_SLOTS] */
    uint64_t front_socks_off; /**< struct shm_front_sock[max_socks] */
    uint64_t front_more_off; /**< struct shm_front_more[max_socks] */
    uint64_t front_chunks_off; /**< nb_chunks * SHM_CHUNK_BYTES, page-aligned */
    uint64_t front_smalls_off; /**< nb_smalls * SHM_SMALL_BYTES */
    uint64_t back_eventqs_off; /**< struct shm_back_eventq[SHM_MAX_EVENTQS] */
    uint64_t back_info_off; /**< struct shm_info[SHM_INFO_SLOTS] */
    uint64_t back_socks_off; /**< struct shm_back_sock[max_socks] */
    uint64_t back_more_off; /**< struct shm_back_more[max_socks] */
    uint64_t back_names_off; /**< struct shm_back_name[max_socks] */
};

#define SHM_FRONT_PRIVATE_BYTES(max_socks, nb_chunks) (65536u + 8u * (uint64_t)(max_socks) + 8u * (uint64_t)(nb_chunks))

struct shm_route {
    uint32_t prefix[4];
    uint32_t prefix_len; /**< of 128: an IPv4 /24 is 120 */
};

struct shm_stack_page {
    uint32_t version;
    uint32_t alive; /**< 1; 0 when the stack is ending in order: no command will be answered */
    uint32_t nb_routes;
    uint32_t gateway; /**< 1: the stack has a default route */
    uint32_t addr[4]; /**< the stack's address, v4-mapped */
    uint32_t aggregate; /**< 1: sends may pile up while a notification is pending; 0: each is notified by itself */
    uint32_t ring_by_thread; /**< 0: ring = the calling thread's CPU % rings; 1: its number among the threads % rings */
    uint64_t clock_tsc; /**< the stack's time is 1 us when the CPU's counter says this, */
    uint64_t clock_us_per_tsc; /**< and goes on by this for each count: 64 bits of a fraction */
    uint32_t reserved[2];
    struct shm_route routes[SHM_MAX_ROUTES]; /**< on-link and routed prefixes but for the default */
    struct {
        uint32_t sleeping; /**< 1: the worker sleeps, or is about to: ring its doorbell after enqueuing */
        uint32_t reserved[15];
    } instance[SHM_MAX_INSTANCES] __attribute__((aligned(64)));
};

#endif /* SOCKETS_SHM_H */
