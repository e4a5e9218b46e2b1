/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_TCP_H
#define TCP_TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/counter.h"
#include "ip/addr.h"
#include "tcp/seq.h"
#include "tcp/steer.h"

/**
 * @file
 * The TCP engine: apply(domain, event, now) -> effects.
 *
 * A domain is one body of TCP state that is executed serially: connections, listeners, half-open and TIME-WAIT
 * entries, timers, ports. It lies in one arena that holds no pointer, so that it can be copied, compared and moved.
 * The engine reads no clock, takes no lock, draws no randomness (it has a seed), allocates from its domain alone, and acts only
 * through the sink. Two domains with the same parameters that see the same events in the same order stay identical byte
 * for byte.
 *
 * Thread rule: at most one thread is inside a domain at a time, unless tcp_env.locks is set: then calls that take an env may run at once, each with an env of its own,
 * and the others need the table's lock or, those that say so, more. The sink's functions run inside the call that caused them and must
 * not call the engine back for that domain.
 *
 * Addresses are 16 bytes in network order (ip/addr.h), ports are in host order, instants are microseconds.
 */

/** A connection, listener or nothing (0). An id stays valid until TCP_EVENT_GONE names it or its user closes it. */
typedef uint32_t tcp_id;
#define TCP_NO_ID 0u

/** The user's name for a connection or listener (the socket layer's index); 0 = nobody has it. */
typedef uint32_t tcp_user;

/** A received buffer: opaque here (core/pktpool.h's handle). */
typedef uint32_t tcp_buf;

struct tcp_tuple {
    struct ip_addr local, remote;
    uint16_t local_port, remote_port;
};

/* ---- configuration ------------------------------------------------------------------------------------------ */

/** Which congestion control sockets that choose none have towards a part of the net. */
struct tcp_cc_route {
    struct ip_addr prefix;
    uint8_t prefix_len; /**< of 128 bits: an IPv4 /24 is 120 */
    uint8_t congestion; /**< as in tcp_params */
    uint16_t reserved; /**< 0 */
};
#define TCP_CC_ROUTES_MAX 16

/** What is known, or wanted, of the paths to a part of the net; the longest prefix counts. */
struct tcp_path_route {
    struct ip_addr prefix;
    uint8_t prefix_len; /**< of 128 bits */
    uint8_t probing; /**< 1 + TCP_MTU_PROBING_*, 0 = as the domain has it */
    uint8_t init_cwnd_segs; /**< initial window, 0 = as RFC 6928 has it */
    bool mtu_locked; /**< the MTU is as mtu_bytes says: ICMP is not listened to, and packets go without DF */
    uint16_t mtu_bytes; /**< 0 = the port's */
    uint16_t adv_mss; /**< what SYNs tell at most, 0 = what mtu_bytes allows */
};
#define TCP_PATH_ROUTES_MAX 16

struct tcp_params {
    uint32_t max_conns; /**< connections and listeners together; memory is touched only as it is used */
    uint32_t max_half_open; /**< SYN-RECEIVED entries over all listeners */
    uint32_t max_time_wait; /**< TIME-WAIT entries; the oldest is recycled beyond */
    uint32_t max_moved; /**< entries for connections that moved to other domains; 0 = none ever moves */
    uint32_t max_ooo_bufs; /**< buffers held for reassembly or before accept, over all connections */
    uint64_t seed[2]; /**< key for ISNs (RFC 6528), port choice (RFC 6056), timestamp offsets (RFC 7323) */
    uint32_t rcv_buf_bytes; /**< receive buffer of a new connection */
    uint32_t
        rcv_buf_max_bytes; /**< to which it may grow where the application takes that much, unless it chose the size */
    uint32_t snd_buf_bytes; /**< send buffer of a new connection; the socket layer enforces it */
    uint32_t snd_buf_max_bytes; /**< to which the socket layer lets it grow with the congestion window, as above */
    uint16_t port_min, port_max; /**< ephemeral ports, inclusive */
    uint32_t time_wait_us; /**< default 60 s as Linux */
    uint32_t fin_wait2_us; /**< orphaned FIN-WAIT-2, default 60 s */
    uint32_t rto_min_us, rto_max_us, rto_initial_us; /**< RFC 6298: 200 ms as Linux does, 120 s, 1 s */
    uint32_t delack_us; /**< 40 ms */
    uint32_t
        challenge_us; /**< between two challenge ACKs of a connection, 500 ms as Linux (RFC 5961 section 7); 0 = no limit but the domain's */
    uint8_t syn_retries, synack_retries, data_retries; /**< 6, 5, 15 as Linux */
    bool timestamps, window_scaling, sack; /**< offer them */
    bool ts_required; /**< drop segments that lack the timestamp that was agreed on (RFC 7323 section 3.2, the default);
                       *   else take them, as Linux does */
    uint8_t ecn; /**< TCP_ECN_* */
    bool
        ecn_option; /**< tell a peer that understands it the bytes too, not only the packets (RFC 9768): 12 bytes a segment */
    bool ecn_fallback; /**< give up asking after lost SYNs, and marking after signs of mangling */
    uint8_t
        burst_min_segs; /**< segments sent back to back at least, where cwnd has room for two such bursts: 2 as Linux */
    bool idle_restart; /**< after an RTO of silence start from the initial window again (RFC 5681 section 4.1) */
    uint8_t congestion; /**< enum tcp_cc_id (tcp/cc.h): the congestion control of sockets that choose none */
    uint8_t nb_cc_routes; /**< of cc_routes */
    struct tcp_cc_route cc_routes[TCP_CC_ROUTES_MAX]; /**< or, for peers within them, that of the longest prefix */
    struct tcp_steer steer; /**< which domain a tuple belongs to, where several share an address */
    uint32_t steer_index; /**< this one's number: ports are chosen so that the tuple belongs to it */
    bool pacing; /**< pace sockets whose control does without, too: at a little more than a window a round trip */
    uint8_t syn_cookies; /**< TCP_SYN_COOKIES_* */
    uint32_t fastopen; /**< set of TCP_FASTOPEN_*: client and server, the latter for listeners that ask for it */
    uint8_t mtu_probing; /**< TCP_MTU_PROBING_* */
    uint8_t nb_path_routes; /**< of path_routes */
    uint16_t
        mtu_base_mss; /**< where a search for the path's MTU starts, and what is left of one that turns out a black hole */
    uint16_t mtu_min_bytes; /**< no path is believed to take less (IPv6: 1280, RFC 8201 section 4) */
    uint32_t mtu_probe_interval_s; /**< how long after its end a search begins anew */
    uint32_t mtu_expires_s; /**< how long what ICMP has told of a path counts (RFC 1191 section 6.3) */
    struct tcp_path_route path_routes[TCP_PATH_ROUTES_MAX];
    uint32_t
        park_us; /**< after so long a silence a connection gives most of its memory back, until it is needed again; 0 = never. Where tcp_env.locks is set none does */
};

/* RFC 4821, with the values of Linux's net.ipv4.tcp_mtu_probing. */
#define TCP_MTU_PROBING_OFF 0u
#define TCP_MTU_PROBING_BLACK_HOLE 1u /**< when full segments time out again and again: the default */
#define TCP_MTU_PROBING_ALWAYS 2u

/* Which feedback of congestion marks is asked for and agreed to at most, by the numbers of Linux's net.ipv4.tcp_ecn. */
#define TCP_ECN_OFF 0u
#define TCP_ECN_ASK 1u /**< RFC 3168: ask and agree */
#define TCP_ECN_AGREE 2u /**< RFC 3168: agree, the default */
#define TCP_ECN_ACCURATE 3u /**< RFC 9768: ask and agree */
#define TCP_ECN_ACCURATE_AGREE_ASK 4u /**< agree to RFC 9768, ask for RFC 3168 */
#define TCP_ECN_ACCURATE_AGREE 5u /**< agree to RFC 9768, ask for nothing */

/* RFC 4987 section 3.6: with cookies a SYN takes no memory, but its answer is sent once, and the MSS is rounded down. */
#define TCP_SYN_COOKIES_OFF 0u /**< the oldest half-open entry gives way */
#define TCP_SYN_COOKIES_FULL 1u /**< when there is no room for a half-open entry: the default */
#define TCP_SYN_COOKIES_ALWAYS 2u

/* RFC 7413, with the values of Linux's net.ipv4.tcp_fastopen. */
#define TCP_FASTOPEN_CLIENT 0x1u
#define TCP_FASTOPEN_SERVER 0x2u
#define TCP_FASTOPEN_CLIENT_NO_COOKIE 0x4u /**< send data with the SYN though no cookie is known */
#define TCP_FASTOPEN_SERVER_NO_COOKIE 0x200u /**< accept data with the SYN though it brings no cookie */
#define TCP_FASTOPEN_ALL_LISTENERS 0x400u /**< every listener, with its backlog for a limit */

/** The values above, filled in. */
void tcp_params_default(struct tcp_params *p);

struct tcp_domain; /* the arena's first bytes */

/** Bytes of address space that a domain of these parameters takes. */
size_t tcp_domain_bytes(const struct tcp_params *p);

/** Initialise an arena of tcp_domain_bytes(p) zeroed bytes, aligned to 64. Returns 0 or -EINVAL (a parameter out of range). */
int tcp_domain_init(struct tcp_domain *d, const struct tcp_params *p, uint64_t now_us);

/**
 * Change parameters of a living domain: retry limits, timeouts, Fast Open, buffers, what is offered, routes. max_* and the seed must
 * be those of before. Connections that exist keep what they have agreed on. No other thread is inside. Returns 0 or -EINVAL.
 */
int tcp_set_params(struct tcp_domain *d, const struct tcp_params *p);

#define TCP_FASTOPEN_KEY_BYTES 16
#define TCP_FASTOPEN_KEYS_MAX 2

/**
 * Keys of the Fast Open cookies (RFC 7413 section 4.1.2): of the domain for TCP_NO_ID, else of one listener, whose connections then bring no others. Cookies are made with the first; those made
 * with the second are good too, and are replaced by the SYN-ACK (section 5.2's change of keys). n of them, 1 or 2. -EINVAL: no such listener.
 */
int tcp_set_fastopen_keys(struct tcp_domain *d, tcp_id listener, unsigned n,
                          const uint8_t keys[][TCP_FASTOPEN_KEY_BYTES]);

/* ---- effects ------------------------------------------------------------------------------------------------ */

#define TCP_FLAG_FIN 0x01u
#define TCP_FLAG_SYN 0x02u
#define TCP_FLAG_RST 0x04u
#define TCP_FLAG_PSH 0x08u
#define TCP_FLAG_ACK 0x10u
#define TCP_FLAG_URG 0x20u
#define TCP_FLAG_ECE 0x40u
#define TCP_FLAG_CWR 0x80u
#define TCP_FLAG_AE 0x100u /**< RFC 9768 */
#define TCP_FLAGS_ECN (TCP_FLAG_ECE | TCP_FLAG_CWR | TCP_FLAG_AE)

/* RFC 3168 section 5: the two low bits of the TOS byte. */
#define TCP_TOS_ECN 0x3u
#define TCP_TOS_ECT0 0x2u
#define TCP_TOS_CE 0x3u

#define TCP_MAX_SACK 4

struct tcp_sack_block {
    tcp_seq start, end; /**< [start, end) */
};

#define TCP_MD5_KEY_MAX 80

/** A key of TCP_MD5SIG (RFC 2385), for the peers within a prefix; of several that cover one the longest prefix counts. */
struct tcp_md5_key {
    struct ip_addr prefix;
    uint8_t prefix_len; /**< of 128 bits: an IPv4 host is 128 */
    uint8_t n_bytes; /**< 0 = no key */
    uint8_t bytes[TCP_MD5_KEY_MAX];
    uint16_t reserved; /**< 0 */
};

/** An MD5 signature that came with a segment (tcp/md5sig.h). */
struct tcp_md5_seen;

/** A Fast Open cookie (RFC 7413 section 4.1.1): 4 to 16 bytes, an even number; len 0 = it asks for one. */
struct tcp_fo_cookie {
    uint8_t len;
    bool exp; /**< in the experimental option that came before (kind 254, magic 0xf989) */
    uint8_t bytes[16];
};

/** Counters of an AccECN option (RFC 9768). */
#define TCP_ACCECN_FIELDS 3

/** TCP options in parsed form, for both directions (RFC 9293 section 3.1, RFC 7323, RFC 2018). */
struct tcp_options {
    union {
        struct {
            bool has_mss, has_wscale, sack_permitted;
            bool has_fo; /**< on SYNs: fo holds */
            bool has_accecn; /**< RFC 9768 section 3.2.3: accecn holds, modulo 2^24, */
            uint8_t
                accecn_fields; /**< where the bit is set; for segments to send: none, the first, the first two or all */
            uint8_t nb_sack;
            uint8_t md5_off; /**< parsed: where in the header the digest of RFC 2385's option lies; 0 = there is none */
        };
        uint64_t rare __attribute__((packed, aligned(4))); /**< 0 <=> nothing of that */
    };
    uint32_t ts_val, ts_ecr;
    bool has_ts;
    uint8_t wscale;
    uint16_t mss;
    union { /* a SYN acknowledges nothing out of order */
        struct tcp_sack_block sack[TCP_MAX_SACK];
        struct tcp_fo_cookie fo;
    };
    uint32_t accecn[TCP_ACCECN_FIELDS]; /**< payload received with ECT(1), with CE, with ECT(0) */
};
_Static_assert(offsetof(struct tcp_options, md5_off) == 7 && offsetof(struct tcp_options, ts_val) == 8,
               "rare is its eight parts, no less and no more");

/** A segment to send. Valid during the call only. */
struct tcp_out {
    const struct tcp_tuple *tuple;
    tcp_user user; /**< whose transmit stream the payload comes from */
    uint32_t payload_pos; /**< position in that stream, counted from 0 at its first byte, modulo 2^32 */
    uint32_t payload_len; /**< may exceed the MSS if gso_size is set */
    uint16_t gso_size; /**< bytes per segment to cut into; 0 = payload_len fits one segment */
    tcp_seq seq, ack;
    uint16_t window; /**< as it goes into the header, scaled already */
    uint16_t flags;
    uint8_t tos; /**< ECN codepoint and DSCP */
    bool may_be_cut; /**< by routers: it goes without DF */
    const struct tcp_md5_key *md5; /**< it is to be signed with this key (tcp/md5sig.h); NULL = it is not */
    struct tcp_options opts;
};

/** Payload in order. The buffer's reference passes to the sink. */
struct tcp_data {
    tcp_buf buf;
    uint32_t off; /**< of the payload's first byte, from the start of the packet */
    uint32_t len;
};

enum tcp_event {
    TCP_EVENT_CONNECTED = 1u << 0, /**< an active open has completed */
    TCP_EVENT_ACCEPT = 1u << 1, /**< a listener has a connection to accept that it had not before */
    TCP_EVENT_FIN = 1u << 2, /**< the peer has sent everything that it will send */
    TCP_EVENT_ERROR = 1u << 3, /**< reset, refused, timed out: err tells; GONE is in the same set */
    TCP_EVENT_GONE =
        1u << 4, /**< the id is no longer valid: the last event for that user (TIME-WAIT is reached, or worse) */
};

struct tcp_sink {
    void *ctx;
    /** Send a segment. If it cannot be sent it is lost, as on the wire. */
    void (*emit)(void *ctx, const struct tcp_out *out, uint64_t now_us);
    /** Bytes in order for a user. */
    void (*deliver)(void *ctx, tcp_user user, struct tcp_data data);
    /** The engine needs this buffer no more. */
    void (*release)(void *ctx, tcp_buf buf);
    /** The peer has acknowledged n more bytes of the user's transmit stream: their space is free. */
    void (*acked)(void *ctx, tcp_user user, uint32_t n_bytes);
    /** events: a set of enum tcp_event; err: a positive errno with TCP_EVENT_ERROR, else 0. */
    void (*event)(void *ctx, tcp_user user, uint32_t events, int err);
    /** So many bytes of the domain, a multiple of 4096 from its start and long, are zero, and will be for long: they may go back to the system if they are zero when touched again. NULL: nobody wants them. */
    void (*unused)(void *ctx, void *at, size_t bytes);
};

/** What connections share and an event of one connection touches too: short locks, innermost, no two held at once. */
enum tcp_inner {
    TCP_INNER_TIMERS, /**< the timing wheel, and the queue of those who wait for the port */
    TCP_INNER_SENT, /**< the pool of send records */
    TCP_INNER_RECORDS, /**< the pool of records' ends that wait to be sent */
    TCP_INNER_REASS, /**< the pools of the reassembly queues */
    TCP_INNER_MODELS, /**< the pool of congestion controls' models */
    TCP_INNER_CHALLENGE, /**< the budget of challenge ACKs */
    TCP_INNER_PATHS, /**< what is remembered of paths */
    TCP_INNER_COUNT
};

/**
 * How a domain stays whole where several threads are inside of it at once (tcp_env.locks; NULL: executed serially, nothing is locked). The engine says
 * what it is about to touch, whoever fills this in sees to it that nobody else does. The order is table, connection, inner: the table's is never waited for
 * with another held, a connection's only with the table's held or none, and a second connection's only with the table's.
 *
 * The table's guards which entries there are: connection table, ports, listeners, half-open and TIME-WAIT entries, the pools of all these, and what is remembered of peers. What only changes
 * a connection runs under that connection's; what starts or ends one, or concerns its listener, under both.
 */
struct tcp_locks {
    void *ctx;
    void (*table_take)(void *ctx); /**< may be nested */
    void (*table_give)(void *ctx);
    void (*conn_take)(void *ctx, uint32_t slot); /**< 0 .. max_conns: the lower 24 bits of the id */
    void (*conn_give)(void *ctx, uint32_t slot);
    void (*inner_take)(void *ctx, enum tcp_inner which);
    void (*inner_give)(void *ctx, enum tcp_inner which);
    bool free_lookup; /**< find established connections without the table's lock */
};

/** What the engine acts through in one call: not part of the domain, since replicas differ in it. */
struct tcp_env {
    const struct tcp_sink *sink;
    const struct tcp_locks *locks; /**< NULL = at most one thread is inside the domain */
    struct counters *ctr;
    uint64_t now_us;
    uint32_t gso_max_bytes; /**< largest payload_len to emit at once; 0 = one MSS */
    bool mem_pressure; /**< buffers are short: take no payload from connections that hold some already */
    bool mem_exhausted; /**< beyond that: take none at all, so that acknowledgements still find a buffer */
    struct tcp_md5_seen *
        md5; /**< for tcp_input of a segment with opts.md5_off: its signature; NULL = nobody has looked, so that it is not taken */
    bool tx_full; /**< the port has more to send than it can take: data waits. May change while a segment is emitted */
    bool
        acks_ride; /**< the application has its turn between passes, each of which tcp_pass_ended ends: ACKs may wait for what it sends. Not with locks */
};

/* ---- events: packets, time ------------------------------------------------------------------------------------ */

/** A segment as it arrived: parsed once (tcp/wire.h), checked, in host order. */
struct tcp_in {
    struct tcp_tuple tuple; /**< local = destination */
    tcp_seq seq, ack;
    uint16_t window; /**< unscaled */
    uint16_t urgent;
    uint16_t flags;
    uint8_t tos;
    struct tcp_options opts;
    struct tcp_data data; /**< buf's reference passes to the engine, with len 0 too */
    uint16_t mss_out; /**< largest segment that the port takes: MTU less the fixed headers; used for a SYN's answer */
    bool
        more; /**< plain payload, and the next event is the segment right behind it in the same stream: one answer serves both */
    uint32_t hash; /**< by tcp_prefetch; 0 = not known yet */
};

/** Hash of a connection's tuple: the same in every mode and process. */
uint32_t tcp_hash(const struct tcp_tuple *t);

/**
 * Start loading what tcp_input will touch, so that what the segments of a burst wait for overlaps: three steps, each for all of them before the next, since each needs what
 * the one before has loaded. The first is always worth it (it hashes, unless the tuple is that of the segment before, NULL = there is none: that is what it returns); the others where
 * connections are so many that caches do not hold them (tcp_prefetch_pays). The last returns whose connection it is, by a guess, 0 = not known.
 */
bool tcp_prefetch(const struct tcp_domain *d, struct tcp_in *in, const struct tcp_in *before);
bool tcp_prefetch_pays(const struct tcp_domain *d);
void tcp_prefetch_conn(const struct tcp_domain *d, const struct tcp_in *in);
tcp_user tcp_prefetch_rest(const struct tcp_domain *d, const struct tcp_in *in);

/** Process a segment: RFC 9293 section 3.10.7. */
void tcp_input(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_in *in);

/** ICMP told of a problem with a segment that carried seq (RFC 5927 checks are made here). err: positive errno. */
void tcp_unreachable(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_tuple *t, tcp_seq seq, int err,
                     bool hard, uint16_t mtu);

/** Run the timers that are due at env->now_us, at most budget of them; returns how many ran. */
unsigned tcp_tick(struct tcp_domain *d, const struct tcp_env *env, unsigned budget);

#define TCP_HELD_PASSES 3u

/**
 * A pass is over, if env->acks_ride was ever set: ACKs that have waited for a ride in vain are sent. Returns how many wait still; while any does, passes go on.
 */
unsigned tcp_pass_ended(struct tcp_domain *d, const struct tcp_env *env);

/** Whether any does. */
bool tcp_holds_acks(const struct tcp_domain *d);

/** When tcp_tick must run next, or earlier (wheel_next_us); UINT64_MAX if never. With locks, under TCP_INNER_TIMERS. */
uint64_t tcp_next_us(const struct tcp_domain *d, uint64_t now_us);

/* ---- events: socket commands ------------------------------------------------------------------------------------ */

/** Options of a socket, in the units that Linux uses for the socket option of that name unless said. */
enum tcp_option {
    TCP_OPT_NODELAY, /**< bool */
    TCP_OPT_CORK, /**< bool */
    TCP_OPT_QUICKACK, /**< bool */
    TCP_OPT_MAXSEG, /**< bytes, 88..32767, 0 = as the path has it; before the connection */
    TCP_OPT_KEEPALIVE, /**< bool (SO_KEEPALIVE) */
    TCP_OPT_KEEPIDLE, /**< seconds */
    TCP_OPT_KEEPINTVL, /**< seconds */
    TCP_OPT_KEEPCNT,
    TCP_OPT_SYNCNT,
    TCP_OPT_USER_TIMEOUT, /**< milliseconds */
    TCP_OPT_LINGER2, /**< seconds */
    TCP_OPT_RCVBUF, /**< bytes, which stay so; -1 = as the domain has it */
    TCP_OPT_SNDBUF, /**< bytes */
    TCP_OPT_REUSEADDR, /**< bool */
    TCP_OPT_REUSEPORT, /**< bool */
    TCP_OPT_TOS, /**< IP_TOS */
    TCP_OPT_WINDOW_CLAMP, /**< bytes */
    TCP_OPT_DEFER_ACCEPT, /**< seconds */
    TCP_OPT_CONGESTION, /**< what tcp_congestion_find gives for a name */
    TCP_OPT_FASTOPEN, /**< listener: how many may have sent data with a SYN and not yet proved their address; 0 = off */
    TCP_OPT_FASTOPEN_NO_COOKIE, /**< bool */
    TCP_OPT_MAX_PACING_RATE, /**< bytes per second (SO_MAX_PACING_RATE); 0 or negative = none */
    TCP_OPT_MTU_DISCOVER, /**< TCP_MTU_DISCOVER_* */
    TCP_OPT_COUNT
};

/* IP_MTU_DISCOVER, with Linux's values. The path's MTU is discovered by DF and ICMP (RFC 1191), or not. */
#define TCP_MTU_DISCOVER_DONT 0 /**< packets may be cut on their way, ICMP is not listened to */
#define TCP_MTU_DISCOVER_WANT 1 /**< but where a route locks its MTU: the default */
#define TCP_MTU_DISCOVER_DO 2 /**< everywhere */
#define TCP_MTU_DISCOVER_PROBE 3 /**< DF, but neither ICMP nor routes nor what is remembered bound the size */
#define TCP_MTU_DISCOVER_INTERFACE 4 /**< as PROBE, without DF */
#define TCP_MTU_DISCOVER_OMIT 5 /**< as INTERFACE: TCP sends nothing that would be cut here */

/** Options of a connection or listener to come; unset ones take the domain's values. */
struct tcp_sockopts {
    uint32_t set; /**< bit (1 << enum tcp_option): value[] holds it */
    int32_t value[TCP_OPT_COUNT];
    uint8_t nb_fastopen_keys; /**< of a listener, as in tcp_set_fastopen_keys; 0 = the domain's count */
    uint8_t fastopen_keys[TCP_FASTOPEN_KEYS_MAX][TCP_FASTOPEN_KEY_BYTES];
    uint32_t nb_md5; /**< keys in md5, of different prefixes; they are copied */
    const struct tcp_md5_key *md5;
};

/**
 * Listen. local may be any. backlog is bounded as in Linux. Accepted connections inherit opts. Returns 0 and *id, or
 * -EADDRINUSE (RFC 9293 and Linux rules for SO_REUSEADDR, SO_REUSEPORT), -ENOMEM. With SO_REUSEPORT several listeners share a port and
 * connections spread over them by tcp_hash.
 */
int tcp_listen(struct tcp_domain *d, const struct tcp_env *env, const struct ip_addr *local, uint16_t port,
               uint32_t backlog, const struct tcp_sockopts *opts, tcp_user user, tcp_id *id);

/** Change a listener's backlog. */
void tcp_set_backlog(struct tcp_domain *d, tcp_id listener, uint32_t backlog);

/** Reserve a port for bind() before it is known whether connect or listen follows. port 0: choose one (RFC 6056) into
 *  *chosen. Returns 0, -EADDRINUSE, -ENOMEM. tcp_unbind gives it back; tcp_listen and tcp_connect by the same user take
 *  it over (the reservation ends, the port stays taken by the connection or listener). */
int tcp_bind(struct tcp_domain *d, const struct ip_addr *local, uint16_t port, const struct tcp_sockopts *opts,
             tcp_user user, uint16_t *chosen);
void tcp_unbind(struct tcp_domain *d, const struct ip_addr *local, uint16_t port, tcp_user user);

/**
 * Active open; emits the SYN. t->local must be set; t->local_port 0 = choose one. mss_out as in struct tcp_in.
 * Returns 0 and *id (and the port in t), or -EADDRINUSE (tuple in use), -EADDRNOTAVAIL (no port left), -ENOMEM.
 */
int tcp_connect(struct tcp_domain *d, const struct tcp_env *env, struct tcp_tuple *t, uint16_t mss_out,
                const struct tcp_sockopts *opts, tcp_user user, tcp_id *id);

/**
 * Active open with Fast Open (RFC 7413 section 4.2.1). n_bytes lie in the user's transmit stream from position 0 on. If a cookie of the
 * peer is known, as many of them as a segment holds go with the SYN, *taken tells how many; the rest is to be announced by tcp_send as
 * ever. Else the SYN asks for a cookie and *taken is 0. Data that the peer does not take with the SYN is sent again.
 * n_bytes TCP_FASTOPEN_DEFER: there is no data yet; -EAGAIN and nothing else if some could go with the SYN, else the SYN asks for a cookie.
 * Returns as tcp_connect does, or -EOPNOTSUPP (params.fastopen lacks TCP_FASTOPEN_CLIENT).
 */
#define TCP_FASTOPEN_DEFER UINT32_MAX
int tcp_connect_fast(struct tcp_domain *d, const struct tcp_env *env, struct tcp_tuple *t, uint16_t mss_out,
                     const struct tcp_sockopts *opts, tcp_user user, uint32_t n_bytes, uint32_t *taken, tcp_id *id);

/** Forget what is known of peers and paths: cookies, what was lost with a SYN, MTUs. */
void tcp_forget_peers(struct tcp_domain *d, const struct tcp_env *env);

/** Whether tcp_connect_fast would send data to t->remote at once; t->local must be set. */
bool tcp_fastopen_ready(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_tuple *t,
                        const struct tcp_sockopts *opts);

/**
 * Take the oldest established connection of a listener for user; data that came before is delivered during the call, and so are FIN and
 * errors: one that was reset meanwhile is returned too, with ERROR and GONE raised in the call, and its id is invalid
 * then. TCP_NO_ID if there is none. *t gets its addresses.
 */
tcp_id tcp_accept(struct tcp_domain *d, const struct tcp_env *env, tcp_id listener, tcp_user user, struct tcp_tuple *t);

/** Connections that wait to be accepted. */
uint32_t tcp_accept_count(const struct tcp_domain *d, tcp_id listener);

#define TCP_SEND_MORE 0x1u /**< MSG_MORE: hold back less than an MSS */
#define TCP_SEND_EOR 0x2u /**< MSG_EOR: a record ends here; no segment has bytes of two records, sent again or not */

/** n_bytes more have been appended to the user's transmit stream; how: a set of TCP_SEND_*. */
void tcp_send(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, uint32_t n_bytes, uint32_t how);

/** The application has taken n_bytes that were delivered: opens the window, perhaps sends an update. */
void tcp_consumed(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, uint32_t n_bytes);

/**
 * How large a send buffer the connection could use: three windows: one is written while another is under way, and one is held up by a hole that is being repaired; 0: as large as it is, since more would stand in queues. A hint that takes no lock: of an id that
 * was given once, whatever has become of the connection.
 */
uint32_t tcp_send_buffer(const struct tcp_domain *d, tcp_id id);

/** shutdown(SHUT_WR): FIN after what is queued. */
void tcp_shutdown(struct tcp_domain *d, const struct tcp_env *env, tcp_id id);

/**
 * close(): the user may not use the id any more, but its transmit stream must stay readable until TCP_EVENT_GONE, which comes exactly
 * once (perhaps within this call), when everything is acknowledged or given up; until then only `acked` is called for the user.
 * unread: bytes were delivered that the application never took, which makes it a reset (RFC 2525 section 2.17). A listener: connections
 * that nobody accepted are reset, GONE follows within the call.
 */
void tcp_close(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, bool unread);

/** SO_LINGER 0, or its owner died: RST now (if the state calls for one); the id is invalid at once and no event follows. */
void tcp_abort(struct tcp_domain *d, const struct tcp_env *env, tcp_id id);

/** Returns 0 or -EINVAL (range). May send (TCP_NODELAY, TCP_CORK off flush). */
int tcp_set_option(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, enum tcp_option opt, int32_t value);

/** Whether a value is within the bounds of its option, for one that is kept until there is a connection: 0, -EINVAL, -ENOPROTOOPT (no such option). */
int tcp_option_check(uint32_t opt, int32_t value);

/** The number of a congestion control ("cubic", "newreno" or "reno", "dctcp", "bbr") for TCP_OPT_CONGESTION, or -ENOENT. */
int tcp_congestion_find(const char *name);

/** The other way round; number must be one that tcp_congestion_find gave, or params.congestion. */
const char *tcp_congestion_name(int number);

/** TCP_CONGESTION: tcp_set_option with the number of that name; a listener hands it down. -ENOENT: no such control; -EINVAL: no such id. */
int tcp_set_congestion(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, const char *name);

/**
 * TCP_MD5SIG: from now on what passes between this connection, or those that come by this listener, and the peers within the key's prefix is signed (RFC 2385), and what is not, or
 * wrongly, is dropped. A key for the same prefix is replaced; n_bytes 0 takes it away. Returns 0, or -EINVAL (no such id, or a value out of range), -ENOENT (none to
 * take away), -ENOMEM (the domain has TCP_MD5_KEYS_MAX). A listener's key for its peer is handed down to a connection.
 */
#define TCP_MD5_KEYS_MAX 1024u
int tcp_set_md5_key(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, const struct tcp_md5_key *key);

/** Is there any? Else signatures need not be looked at, since no signed segment is taken. Any thread. */
bool tcp_has_md5_keys(const struct tcp_domain *d);

/* ---- connections that move ----------------------------------------------------------------------------------------- */

/**
 * A connection can leave a domain as bytes and go on in another one of equal parameters, seed and clock, neither its user nor its peer noticing. The domain that it
 * left keeps an entry for the tuple (params.max_moved of them): the tuple is not free there, its port stays taken, and segments for it are the caller's to pass on.
 */

/**
 * ESTABLISHED, FIN-WAIT-1, FIN-WAIT-2 or CLOSE-WAIT, with a user, accepted, its handshake complete, no end of a record (MSG_EOR) waiting to be sent, and no key of TCP_MD5SIG; and is
 * there room for an entry?
 */
bool tcp_can_move(const struct tcp_domain *d, tcp_id id);

/** How many bytes it is now; 0: no such connection. */
size_t tcp_export_bytes(const struct tcp_domain *d, tcp_id id);

/**
 * Take it out into bytes (aligned to 64), leaving an entry that says `to`. Buffers held for reassembly are owned by the bytes. No event; the id is invalid. Returns 0, or -EINVAL:
 * it cannot move, or len is not tcp_export_bytes.
 */
int tcp_export(struct tcp_domain *d, tcp_id id, uint32_t to, void *bytes, size_t len);

/**
 * Go on with it here, for user; takes the place of an entry for its tuple if there is one. No event. Returns 0 and *id; or without effect -ENOMEM, or -EADDRINUSE: another
 * connection has the tuple.
 */
int tcp_import(struct tcp_domain *d, const struct tcp_env *env, const void *bytes, tcp_user user, tcp_id *id);

/** No domain takes it: reset the peer, release the buffers. */
void tcp_import_give_up(const struct tcp_env *env, const void *bytes);
void tcp_moving_tuple(const void *bytes, struct tcp_tuple *t);

/** Is there an entry for a connection that moved, and where to? */
bool tcp_moved(const struct tcp_domain *d, const struct tcp_tuple *t, uint32_t *to);
/** Make one. 0, -EADDRINUSE (the domain has the tuple), -ENOMEM. */
int tcp_moved_set(struct tcp_domain *d, const struct tcp_tuple *t, uint32_t to);
/** Take it away, its hold on the port too. */
void tcp_moved_end(struct tcp_domain *d, const struct tcp_tuple *t);
/** Does the domain hold the tuple itself, in whatever state, TIME-WAIT included? */
bool tcp_has(const struct tcp_domain *d, const struct tcp_tuple *t);

/* ---- looking ---------------------------------------------------------------------------------------------------- */

enum tcp_state { /* the names and numbers of Linux's TCP_INFO */
                 TCP_ST_ESTABLISHED = 1,
                 TCP_ST_SYN_SENT,
                 TCP_ST_SYN_RECEIVED,
                 TCP_ST_FIN_WAIT_1,
                 TCP_ST_FIN_WAIT_2,
                 TCP_ST_TIME_WAIT,
                 TCP_ST_CLOSED,
                 TCP_ST_CLOSE_WAIT,
                 TCP_ST_LAST_ACK,
                 TCP_ST_LISTEN,
                 TCP_ST_CLOSING,
};

/** "ESTAB", "SYN-SENT" ... as ss prints them. */
const char *tcp_state_name(enum tcp_state s);

struct tcp_conn_info {
    tcp_id id;
    tcp_user user;
    struct tcp_tuple tuple;
    enum tcp_state state;
    uint32_t snd_queued; /**< bytes in the transmit stream not yet acknowledged; a listener: its backlog */
    uint32_t rcv_queued; /**< bytes delivered or held, not yet consumed; a listener: connections to accept */
    uint32_t snd_unsent; /**< of snd_queued, those never sent yet */
    uint32_t snd_mss, rcv_mss;
    uint32_t adv_mss; /**< the MSS that the peer was told */
    uint32_t path_mtu; /**< largest IP packet that is sent to the peer, but for probes */
    uint32_t cwnd_bytes, ssthresh_bytes;
    uint32_t srtt_us, rttvar_us, rto_us, min_rtt_us;
    uint32_t snd_wnd, rcv_wnd;
    uint8_t snd_wscale, rcv_wscale;
    bool timestamps, sack, ecn;
    bool accecn; /**< of ecn: the accurate kind */
    bool ecn_seen; /**< of ecn: the peer does mark its data as ECN-capable */
    uint8_t accecn_seen,
        accecn_fail; /**< as in Linux's TCP_INFO: what of the peer's option came; what was found broken */
    uint32_t delivered_ce, received_ce; /**< packets with a congestion mark: ours, by the peer's word; the peer's */
    uint32_t delivered_ecn_bytes[TCP_ACCECN_FIELDS]; /**< of payload, in the option's order; accecn only */
    uint32_t received_ecn_bytes[TCP_ACCECN_FIELDS];
    bool syn_data; /**< data was accepted with the SYN */
    uint8_t ca_state; /**< Linux's TCP_CA_*: 0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss */
    uint8_t retransmits; /**< timeouts in a row, unanswered */
    uint8_t probes; /**< of a shut window or of keep-alive in a row, unanswered */
    uint8_t
        fastopen_fail; /**< Linux's TFO_*: 0 none, 1 no cookie known, 2 data not taken, 3 the SYN with it was lost */
    uint8_t backoff;
    uint32_t unacked_segs, retrans_segs_total;
    uint32_t sacked_segs; /**< without SACK: duplicate ACKs */
    uint32_t lost_segs; /**< taken for lost, sent again or not */
    uint32_t retrans_segs; /**< sent again and unanswered */
    uint32_t reordering_segs; /**< how far reordering has been seen to reach, at least 3 */
    uint32_t reorderings; /**< how often it was seen */
    uint64_t bytes_acked; /**< with an active open's SYN and our FIN, as Linux counts */
    uint64_t bytes_sent, bytes_received, bytes_retrans;
    uint32_t delivered_segs; /**< full segments' worth of what has arrived at the peer, by SACK too; a SYN is one */
    uint64_t segs_in, segs_out;
    uint32_t data_segs_in, data_segs_out; /**< of those, with payload */
    uint32_t dsack_segs; /**< reported by the peer as received twice */
    uint32_t ooo_segs; /**< received out of order */
    uint16_t rtos, rto_recoveries; /**< timeouts; recoveries that one began, */
    uint32_t rto_time_ms; /**< and how long those that are over took */
    uint32_t ato_us; /**< how long an acknowledgement may wait; 0 = nothing has come to acknowledge */
    uint64_t last_rcv_at_us, last_snd_at_us;
    uint64_t last_data_rcv_at_us; /**< with payload; before any, when the connection began */
    uint64_t delivery_rate; /**< bytes per second, the last sample */
    bool delivery_rate_app_limited;
    uint64_t pacing_rate, max_pacing_rate; /**< bytes per second; 0 = none */
    uint64_t busy_us, rwnd_limited_us, sndbuf_limited_us; /**< had data to send; the latter two are parts of that */
    uint32_t rcv_buf_bytes; /**< as it is now */
    uint32_t rcv_rtt_us; /**< round-trip time as the receiver sees it, 0 = unknown */
    const char *cc_name; /**< "newreno" ... */
};

/** What ICMP has told of a path. */
struct tcp_path_info {
    struct ip_addr remote;
    uint16_t mtu_bytes;
    uint32_t age_s;
};
/** Copy at most max of those that still count; returns how many. */
unsigned tcp_paths(const struct tcp_domain *d, const struct tcp_env *env, struct tcp_path_info *out, unsigned max);

/** With locks: keep a connection or listener as it is until tcp_release, for tcp_info. No other call may come between. Without: nothing. */
void tcp_hold(struct tcp_domain *d, const struct tcp_env *env, tcp_id id);
void tcp_release(struct tcp_domain *d, const struct tcp_env *env, tcp_id id);

/** false if id names nothing. With locks, between tcp_hold and tcp_release. */
bool tcp_info(const struct tcp_domain *d, tcp_id id, struct tcp_conn_info *info);

/**
 * Walk over everything the domain holds (listeners, connections, half-open, TIME-WAIT): start with *cursor = 0; fills
 * up to max, returns how many; 0 = the end. Entries may appear or vanish between calls. With locks, while no other thread is inside; so is tcp_usage.
 */
unsigned tcp_walk(const struct tcp_domain *d, uint64_t *cursor, struct tcp_conn_info *out, unsigned max);

struct tcp_usage {
    uint32_t conns, listeners, half_open, time_wait, ooo_bufs, timers_armed;
};
void tcp_usage(const struct tcp_domain *d, struct tcp_usage *u);

#endif /* TCP_TCP_H */
