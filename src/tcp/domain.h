/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_DOMAIN_H
#define TCP_DOMAIN_H

#include "core/wheel.h"
#include "tcp/accecn.h"
#include "tcp/conn.h"
#include "tcp/pool.h"
#include "tcp/reass.h"
#include "tcp/tcp.h"
#include "tcp/waiters.h"

/**
 * @file
 * What lies where in a domain, and the functions by which the connection files call each other. Private to src/tcp.
 */

enum domain_pool {
    POOL_CONN,
    POOL_HALF,
    POOL_TW,
    POOL_SEG,
    POOL_REASS,
    POOL_SENT,
    POOL_RECORD,
    POOL_BIND,
    POOL_MODEL,
    POOL_MOVED,
    POOL_MD5,
    POOL_PARK,
    POOL_COUNT
};

/** Arrays of the arena beside the pools'. */
enum domain_array {
    ARRAY_BUCKETS = POOL_COUNT,
    ARRAY_PORTS,
    ARRAY_TIMERS,
    ARRAY_WAITERS,
    ARRAY_FASTOPEN,
    ARRAY_ACCECN,
    ARRAY_PATHS,
    ARRAY_PATHCACHE,
    ARRAY_TALLIES,
    ARRAY_PARKED,
    ARRAY_PARKED_BITS,
    ARRAY_COUNT
};

/** RFC 6056 algorithm 4: counters that connections to one destination share. */
#define PORT_COUNTERS 64

#define TCP_HELD_MAX 512u

/** A ring of connections whose ACKs wait for a ride (held.c): those before until[0] go at the end of this pass, those before until[1] at that of the next one, unless they have waited for too long. */
struct tcp_held {
    uint32_t first, end;
    uint32_t until[TCP_HELD_PASSES];
    uint64_t at_us[TCP_HELD_PASSES]; /**< when until[i] was set, at the end of a pass */
    uint32_t conns[TCP_HELD_MAX];
};

/** What a burst has told so far (tcp_in.more), and its end will answer. */
struct tcp_burst {
    uint32_t conn; /**< 0 = nothing is owed */
    struct tcp_sack_block dsack; /**< what came a second time; empty if start == end */
};

struct tcp_domain {
    uint64_t now_us; /**< of the last event */
    uint64_t bytes;
    struct tcp_burst burst;
    uint64_t at[ARRAY_COUNT]; /**< offsets of the arrays from the domain's first byte */
    struct tcp_params params;
    struct tcp_pool pools[POOL_COUNT];
    uint32_t hash_key[10];
    uint32_t bucket_mask;
    uint32_t md5_keys; /**< of all connections, listeners and TIME-WAIT entries: 0 = nothing is to be signed */
    uint32_t md5_keys_set; /**< of these, those that users have set: the others are copies for one connection each */
    uint32_t listeners;
    uint32_t tw_head, tw_tail; /**< oldest and youngest TIME-WAIT entry */
    uint32_t park_hand; /**< the connection that was last looked at for parking */
    bool park_awake; /**< since the hand began at the first, it has met one that it could not park yet */
    uint32_t half_hand; /**< the half-open entry that was last looked at for giving way */
    uint32_t challenge_second; /**< RFC 5961 section 7: challenge ACKs are counted in this second */
    uint32_t challenge_count;
    uint32_t port_counters[PORT_COUNTERS];
    /** Of the addresses of the connection that began last: mostly the next one's too. Not where several threads are inside. */
    struct {
        struct ip_addr local, remote;
        uint32_t ts_offset;
        bool known;
    } last_pair;
    struct {
        struct tcp_tuple dest; /**< without a local port */
        uint64_t hash;
        bool known;
    } last_dest; /**< of port_choose: who connects somewhere mostly does so again */
    struct tcp_fo_keys fastopen_keys;
    uint32_t paths_told; /**< 0 = ICMP has told of no path yet: the cache is empty */
    uint64_t cookie_end_us; /**< the youngest SYN cookie is good until then; 0 = none was sent */
    struct tcp_waiters waiters; /**< connections with data that found the port full; links in ARRAY_WAITERS */
    struct wheel wheel;
    struct tcp_held held;
};

/** The port's entry of its owner, and of the connections that its listener accepted. */
struct tcp_bind {
    uint32_t next; /**< in the port's list */
    uint32_t refs; /**< reservation or socket, accepted connections, TIME-WAIT entries */
    struct ip_addr addr;
    tcp_user user;
    uint32_t listener; /**< slot index, 0 = nobody listens */
    uint16_t port;
    bool reuseaddr, reuseport;
};

/** A key of TCP_MD5SIG: of a connection, a listener, or a TIME-WAIT entry. */
struct tcp_md5_entry {
    uint32_t next;
    uint32_t by_user; /**< it counts against TCP_MD5_KEYS_MAX */
    struct tcp_md5_key key;
};

/** The tuple of a connection that another domain has. */
struct tcp_moved {
    struct tcp_link link;
    uint32_t to;
    uint32_t bind; /**< the port's entry, 0 = none */
};

static inline void *
domain_array(const struct tcp_domain *d, unsigned which)
{
    return (char *)(uintptr_t)d + d->at[which];
}

static inline union tcp_slot *
slot_at(const struct tcp_domain *d, uint32_t i)
{
    return (union tcp_slot *)domain_array(d, POOL_CONN) + i;
}

static inline struct tcp_conn *
conn_at(const struct tcp_domain *d, uint32_t i)
{
    return &slot_at(d, i)->conn;
}

static inline struct tcp_half *
half_at(const struct tcp_domain *d, uint32_t i)
{
    return (struct tcp_half *)domain_array(d, POOL_HALF) + i;
}

static inline struct tcp_tw *
tw_at(const struct tcp_domain *d, uint32_t i)
{
    return (struct tcp_tw *)domain_array(d, POOL_TW) + i;
}

static inline struct tcp_reass *
reass_at(const struct tcp_domain *d, uint32_t i)
{
    return (struct tcp_reass *)domain_array(d, POOL_REASS) + i;
}

static inline struct tcp_record *
record_at(const struct tcp_domain *d, uint32_t i)
{
    return (struct tcp_record *)domain_array(d, POOL_RECORD) + i;
}

static inline struct tcp_bind *
bind_at(const struct tcp_domain *d, uint32_t i)
{
    return (struct tcp_bind *)domain_array(d, POOL_BIND) + i;
}

static inline struct wheel_node *
domain_timers(const struct tcp_domain *d)
{
    return domain_array(d, ARRAY_TIMERS);
}

static inline struct tcp_waiter *
domain_waiters(const struct tcp_domain *d)
{
    return domain_array(d, ARRAY_WAITERS);
}

static inline struct tcp_sent_store
sent_store(struct tcp_domain *d, const struct tcp_locks *locks)
{
    return (struct tcp_sent_store){ &d->pools[POOL_SENT], domain_array(d, POOL_SENT), d->params.max_conns, locks };
}

static inline struct tcp_reass_store
reass_store(struct tcp_domain *d, const struct tcp_locks *locks)
{
    return (struct tcp_reass_store){ &d->pools[POOL_SEG], domain_array(d, POOL_SEG), locks };
}

static inline uint32_t
conn_index(const struct tcp_domain *d, const struct tcp_conn *c)
{
    return (uint32_t)((const union tcp_slot *)(const void *)c - slot_at(d, 0));
}

/** Of a connection in its slot. */
static inline struct tcp_flow *
flow_of(const struct tcp_conn *c)
{
    return &((union tcp_slot *)(uintptr_t)c)->flow;
}

/** What a connection counts of ECN; not touched where none was agreed on. Without CONN_ECN_ACC only r_cep and delivered_ce, from 0. */
static inline struct tcp_accecn *
accecn_of(const struct tcp_domain *d, const struct tcp_conn *c)
{
    return (struct tcp_accecn *)domain_array(d, ARRAY_ACCECN) + conn_index(d, c);
}

static inline struct tcp_path *
path_of(const struct tcp_domain *d, const struct tcp_conn *c)
{
    return (struct tcp_path *)domain_array(d, ARRAY_PATHS) + conn_index(d, c);
}

static inline struct tcp_tally *
tally_of(const struct tcp_domain *d, const struct tcp_conn *c)
{
    return (struct tcp_tally *)domain_array(d, ARRAY_TALLIES) + conn_index(d, c);
}

static inline struct tcp_parked *
parked_at(const struct tcp_domain *d, uint32_t i)
{
    return (struct tcp_parked *)domain_array(d, ARRAY_PARKED) + i;
}

static inline struct tcp_park_block *
park_block_at(const struct tcp_domain *d, uint32_t i)
{
    return (struct tcp_park_block *)domain_array(d, POOL_PARK) + i;
}

/** A bit for each connection: it is parked. */
static inline uint64_t *
parked_bits(const struct tcp_domain *d)
{
    return domain_array(d, ARRAY_PARKED_BITS);
}

static inline tcp_id
slot_id(const struct tcp_domain *d, uint32_t i)
{
    return i | (uint32_t)slot_at(d, i)->conn.gen << 24;
}

/* Timer nodes: a connection's is its index; then half-open entries; the last two are TIME-WAIT's and that of parking. */
static inline uint32_t
half_timer(const struct tcp_domain *d, uint32_t i)
{
    return d->params.max_conns + i;
}

static inline uint32_t
tw_timer(const struct tcp_domain *d)
{
    return d->params.max_conns + d->params.max_half_open + 1;
}

static inline uint32_t
park_timer(const struct tcp_domain *d)
{
    return tw_timer(d) + 1;
}

/** Ticks of the wheel, modulo 2^32: differences are good for 38 hours. */
static inline uint32_t
tick_of(uint64_t us)
{
    return (uint32_t)(us >> WHEEL_TICK_SHIFT);
}

static inline uint64_t
ticks_to_us(uint32_t ticks)
{
    return (uint64_t)ticks << WHEEL_TICK_SHIFT;
}

static inline uint64_t
us_since_tick(uint64_t now_us, uint32_t tick)
{
    return ticks_to_us(tick_of(now_us) - tick);
}

/* ---- table.c ---- */
enum table_kind { TABLE_NONE, TABLE_CONN, TABLE_HALF, TABLE_TW, TABLE_MOVED, TABLE_PARKED };
#define TABLE_KIND(ref) ((enum table_kind)((ref) >> 29))
#define TABLE_INDEX(ref) ((ref)&0x1fffffffu)
#define TABLE_REF(kind, i) ((uint32_t)(kind) << 29 | (i))

uint32_t table_find(const struct tcp_domain *d, const struct tcp_tuple *t);
/** The entry of a segment's tuple, by the hash that came with it if there is one. */
uint32_t table_find_in(const struct tcp_domain *d, const struct tcp_in *in);
/** Load where table_find will look for t with that local port. */
void table_prefetch_port(const struct tcp_domain *d, const struct tcp_tuple *t, uint16_t local_port);
/** As table_find, by the hash alone, while others change the table: what is returned is a guess, and so is 0. */
uint32_t table_peek(const struct tcp_domain *d, const struct tcp_tuple *t, unsigned max_steps);
void table_add(struct tcp_domain *d, uint32_t ref);
/** Load what table_remove will look at: the bucket, then, once that is there, the first of its entries. The entry is there already. */
void table_prefetch_bucket(const struct tcp_domain *d, uint32_t ref);
void table_prefetch_chain(const struct tcp_domain *d, uint32_t ref);
void table_remove(struct tcp_domain *d, uint32_t ref);
/** Another entry, whose tuple is the same, takes the place of one. */
void table_exchange(struct tcp_domain *d, uint32_t ref, uint32_t by);

/* ---- port.c ---- */
int port_acquire(struct tcp_domain *d, const struct ip_addr *addr, uint16_t port, bool reuseaddr, bool reuseport,
                 tcp_user user, uint32_t *bind);
uint32_t port_find_owned(const struct tcp_domain *d, const struct ip_addr *addr, uint16_t port, tcp_user user);
bool port_can_listen(const struct tcp_domain *d, uint32_t bind);
void port_ref(struct tcp_domain *d, uint32_t bind);
void port_unref(struct tcp_domain *d, uint32_t bind);
uint32_t port_find_listener(const struct tcp_domain *d, const struct tcp_tuple *t);
/** Choose a local port for t (RFC 6056 algorithm 4) such that the tuple is free and nobody has bound the port. */
int port_choose(struct tcp_domain *d, struct tcp_tuple *t, bool for_bind);

/* ---- conn.c ---- */
/** NULL: there is none such, or it is parked. */
struct tcp_conn *conn_by_id(const struct tcp_domain *d, tcp_id id);
/** As that, but one that is parked is woken. */
struct tcp_conn *conn_awake(struct tcp_domain *d, tcp_id id);
struct tcp_conn *conn_new(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_tuple *t,
                          const struct tcp_conn_opts *o, uint32_t flags);
/** As tcp_ts_offset, mostly without computing it. */
uint32_t conn_ts_offset(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_tuple *t);
void conn_set_state(const struct tcp_env *env, struct tcp_conn *c, enum tcp_state next);
/** The peer's options and rcv_nxt are known: congestion control starts, and so may data. */
void conn_ready(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
void conn_established(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
void conn_set_mss(struct tcp_conn *c);
/** What the options take that every segment carries. */
uint32_t conn_options_bytes(const struct tcp_conn *c);
/** Tell the user, unless nobody is there to be told. */
void conn_event(const struct tcp_env *env, const struct tcp_conn *c, uint32_t events, int err);
/** The connection ends: err 0 in order, else a positive errno. GONE goes to the user; the slot is free, or marked for accept. */
void conn_end(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, int err);
/** Free the slot without a word. */
void conn_free(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** The connection has left: its slot is free, its timers are off; what it held has been taken out before. */
void conn_moved_out(struct tcp_domain *d, struct tcp_conn *c);
/** Arm the wheel for its timers as they are. */
void conn_arm_timers(struct tcp_domain *d, struct tcp_conn *c);
/** Its tally, to count in. */
struct tcp_tally *conn_tally(struct tcp_domain *d, struct tcp_conn *c);
/** A timeout has struck; what it began is over (nothing if nothing did). */
void conn_note_rto(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
void conn_note_rto_over(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** conn_timer_set does not know that the node is armed early enough. */
void conn_node_arm(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_conn *c, uint32_t tick,
                   uint64_t at_us);
struct tcp_reass *conn_reass(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, bool create);
void conn_reass_drop_if_empty(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** Enter TIME-WAIT: an entry takes the connection's place. */
void conn_time_wait(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
void opts_default(const struct tcp_domain *d, struct tcp_conn_opts *o);
int opts_set(struct tcp_conn_opts *o, uint32_t *flags, enum tcp_option opt, int32_t value);
int opts_apply(const struct tcp_domain *d, struct tcp_conn_opts *o, uint32_t *flags, const struct tcp_sockopts *so);
bool opts_flag(const struct tcp_sockopts *so, enum tcp_option opt);

/**
 * A node armed too early fires in vain and is armed anew: moving a deadline back costs nothing here, and the node, which lies apart, is not looked at as long as the flow knows that it will fire
 * in time. It knows that from conn_node_arm until the node fires (conn_on_timer); where other threads are in the domain they take a node that is due from the wheel before they have the
 * connection, so there it is looked at always, under its lock.
 */
static inline __attribute__((always_inline)) void
conn_timer_set(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, enum conn_timer t, uint64_t at_us)
{
    uint32_t tick = tick_of(at_us + WHEEL_TICK_US - 1), known = flow_of(c)->node_tick;

    if (tick == 0)
        tick = 1;
    c->timer_at[t] = tick;
    if (__builtin_expect(env->locks != NULL || known == 0 || (int32_t)(known - tick) > 0, 0))
        conn_node_arm(d, env, c, tick, at_us);
}

static inline void
conn_timer_off(struct tcp_conn *c, enum conn_timer t)
{
    c->timer_at[t] = 0;
}

static inline bool
conn_fin_sent(const struct tcp_conn *c)
{
    return seq_gt(c->snd_nxt, c->snd_end);
}

/* ---- park.c ---- */
/** What the sink's `unused` is told of: pages of this size. */
#define TCP_PAGE_BYTES 4096u

/** The connection is what it was. */
struct tcp_conn *park_wake(struct tcp_domain *d, uint32_t i);
/** NULL: none such is parked. */
struct tcp_conn *park_wake_by_id(struct tcp_domain *d, tcp_id id);
/** The connection of an index, which perhaps is parked. */
struct tcp_conn *park_wake_for_timer(struct tcp_domain *d, uint32_t i);
void park_wake_all(struct tcp_domain *d);
/** Look at a parked one without waking it; false: it is not parked. */
bool park_read(const struct tcp_domain *d, uint32_t i, struct tcp_conn *c, struct tcp_flow *f);
/** There are connections: they are looked at from time to time. */
void park_watch(struct tcp_domain *d);
/** It is time to. */
void park_look(struct tcp_domain *d, const struct tcp_env *env);

/* ---- path.c ---- */
/** A connection begins, whose port takes segments of mss_out. */
void path_start(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint16_t mss_out);
/** Its peer's MSS is known: is the path to be searched from the start? */
void path_ready(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** Routes have changed. */
void path_reroute(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** The MSS that a SYN tells (RFC 6691): the port's, unless the user or a route says less. */
uint16_t path_adv_mss(const struct tcp_domain *d, const struct ip_addr *remote, uint16_t mss_port, uint16_t max_seg);
/** The initial window that a route asks for, in segments; 0 = none does. */
uint8_t path_init_cwnd(const struct tcp_domain *d, const struct tcp_conn *c);
/** TCP_OPT_MTU_DISCOVER has changed. */
void path_discover_changed(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** What ICMP has told of the path has grown old: try more. With CONN_PATH_LOWERED. */
void path_grow_old(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** Payload of a probe that is to be sent now; 0 = none; PATH_PROBE_WAIT: nothing new until it has room. With CONN_PATH_SEARCH. */
#define PATH_PROBE_WAIT UINT32_MAX
uint32_t path_probe_len(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t pipe);
/** It was sent: the last len bytes before snd_nxt. */
void path_probe_sent(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t len);
/** Is what is lost the probe alone (RFC 4821 section 7.6.2)? Then the search knows, and no congestion has shown. With CONN_PATH_PROBE. */
bool path_probe_is_lost(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** [start, end) is sent again: whether the probe arrived will not be known. With CONN_PATH_PROBE. */
void path_on_retransmission(struct tcp_domain *d, struct tcp_conn *c, tcp_seq start, tcp_seq end);
/** snd_una has moved on from una. */
void path_on_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq una);
/** The timeout: were its segments too large? Before recovery_on_rto. */
void path_on_rto(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** ICMP says that the path takes packets of mtu bytes; seq is the segment's that was too big. False if that is no news. */
bool path_on_too_big(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq seq, uint16_t mtu);
uint32_t path_headers_bytes(const struct ip_addr *remote);

/* ---- record.c ---- */
/** A record ends at snd_end (MSG_EOR). Without room for its mark it runs into the next one, and is counted. */
void record_end(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** Where the record that snd_nxt lies in ends; snd_end if no end of one waits. */
tcp_seq record_next(const struct tcp_domain *d, const struct tcp_conn *c);
/** snd_nxt has moved: forget the ends that it has passed. */
void record_sent(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
void record_clear(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);

/* ---- output.c ---- */
void conn_output(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** The port has room, and those who waited for it before have had their turn. */
void conn_output_in_turn(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);

/* ---- burst.c ---- */
/** Whether the answer to a segment is left to the end of the burst (in->more), which is then to answer at once; dsack: what it brought a second time. */
bool burst_waits(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in,
                 struct tcp_sack_block dsack);
/** The next segment: what the burst has brought a second time so far goes into its dsack. Only with burst.conn != 0. */
void burst_goes_on(struct tcp_domain *d, struct tcp_conn *c, struct tcp_sack_block *dsack);
/** The connection's slot is another's from now on, and owes nothing. */
void burst_forget(struct tcp_domain *d, const struct tcp_conn *c);

/* ---- held.c ---- */
/** An ACK is due: now, or, where that is allowed, with what the application says when it has its turn. */
void conn_ack_soon(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);

void conn_send_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c,
                   const struct tcp_sack_block *dsack);
void conn_send_syn(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** Send [snd_nxt, end) again as new: data that went with a SYN and was not taken. */
void conn_resend_syn_data(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq end);
void conn_send_rst(const struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** A segment without data that proves that the peer is there: it must answer (RFC 9293 section 3.8.4). */
void conn_send_probe(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
void conn_arm_rtx(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
uint32_t conn_window_space(const struct tcp_conn *c);

/** The largest window that an empty buffer could offer: of it a worthwhile step is a part (RFC 9293 section 3.8.6.2.2), or a clamp of a segment or two would never let one be taken. */
static inline uint32_t
conn_window_most(const struct tcp_conn *c)
{
    uint32_t clamp = c->opts.window_clamp_bytes;

    return clamp - 1 < c->rcv_buf ? clamp : c->rcv_buf; /* none is 0, and more than any buffer here */
}

/** The window of a SYN for so much room: as many full segments as fit, lest the last one of every window be cut. */
uint16_t syn_window(uint32_t space_bytes, uint16_t mss, bool has_ts);
uint16_t conn_syn_window(const struct tcp_conn *c);
/** For a buffer that nobody has fixed there is room to grow (the scale cannot change after the SYN); else the finest that serves. */
uint8_t window_scale_for(const struct tcp_domain *d, uint32_t rcv_buf_bytes, bool fixed);
/** RST in answer to a segment that belongs to nobody (RFC 9293 section 3.10.7.1). */
void reply_rst(const struct tcp_env *env, const struct tcp_in *in);
void emit_segment(const struct tcp_env *env, const struct tcp_out *out);
bool challenge_allowed(struct tcp_domain *d, const struct tcp_env *env, uint32_t *last_tick);

/** The probe of RFC 8985 section 7.3: new data if there is some that may go, else the last segment again. */
void conn_send_tail_probe(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);

/* ---- ecn.c ---- */
/** Whether a SYN of a socket with this control asks for ECN, and which; agree: or a SYN-ACK agrees to it. */
enum ecn_mode { ECN_MODE_NONE, ECN_MODE_CLASSIC, ECN_MODE_ACCURATE };
enum ecn_mode ecn_wanted(const struct tcp_domain *d, unsigned cc_id, bool agree);
/** The flags and, on a SYN-ACK, the option of a connection's SYN; what it asks for is noted. */
void ecn_put_syn(const struct tcp_domain *d, struct tcp_conn *c, bool passive, struct tcp_out *out);
/** Those of a half-open entry's. */
void ecn_put_half(const struct tcp_domain *d, const struct tcp_half *h, struct tcp_out *out);
/** What the SYN for a half-open entry asks for; what a further SYN says, false: the peer contradicts itself (RFC 9768 section 3.1.5). */
void ecn_fill_half(const struct tcp_domain *d, struct tcp_half *h, unsigned cc_id, const struct tcp_in *in);
bool ecn_half_again(struct tcp_half *h, const struct tcp_domain *d, const struct tcp_in *in);
/** HALF_F_* for what the ACK that brings a SYN cookie back tells; agreed: the cookie says that some ECN was. */
uint8_t ecn_from_cookie(const struct tcp_domain *d, unsigned cc_id, bool agreed, const struct tcp_in *in);
/** A connection takes over from its half-open entry. */
void ecn_from_half(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_half *h);
/** In SYN-SENT: what the peer's SYN or SYN-ACK makes of what our SYN asked for. */
void ecn_take_syn(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in);
/** The rest is for connections whose c->ecn is not 0; those marked ACC, with CONN_ECN_ACC. */
void ecn_answer_syn_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c); /* ACC */
void ecn_on_syn_again(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in); /* ACC */
void ecn_on_syn_ack(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in); /* ACC */
void ecn_on_third_ack(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in); /* ACC */
/** The IP-ECN field and CWR of an acceptable segment; of one that lies below the window (ACC). */
void ecn_on_segment(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in);
void ecn_on_old_segment(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in);
struct ack_news;
/** What an acceptable ACK tells of marks: n->marked and n->marked_bytes. */
void ecn_on_ack(const struct tcp_domain *d, struct tcp_conn *c, const struct tcp_in *in, struct ack_news *n);
/** Flags, codepoint and option of a segment that is about to go. */
void ecn_put(const struct tcp_domain *d, struct tcp_conn *c, struct tcp_out *out);
void ecn_info(const struct tcp_conn *c, const struct tcp_accecn *a, struct tcp_conn_info *info);
/** Do its flags survive in segments that are cut out of a larger one? */
bool ecn_may_be_cut(const struct tcp_domain *d, const struct tcp_conn *c);

/* ---- control.c ---- */
/** RFC 7661's question: was the window used? In slow start it may be twice what was (it doubles in a round trip). */
static inline bool
conn_cwnd_is_used(const struct tcp_conn *c, const struct tcp_flow *f)
{
    return (c->flags & CONN_F_CWND_LIMITED) != 0 ||
           (c->cc.cwnd_bytes < c->cc.ssthresh_bytes && c->cc.cwnd_bytes < 2ull * f->usage_bytes);
}

void cc_event_fill(struct tcp_cc_event *ev, struct tcp_domain *d, const struct tcp_env *env, const struct tcp_conn *c,
                   uint32_t acked);
/** The control of connections with remote, where id says that it is not the user's choice (TCP_CC_BY_ROUTE). */
uint8_t cc_for(const struct tcp_domain *d, uint8_t id, const struct ip_addr *remote);
/** The control that c->cc_id names begins, with its initial window. */
void conn_cc_start(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** Where its model lies; NULL = its congestion control has none. */
void *conn_model(const struct tcp_domain *d, const struct tcp_conn *c);
void *conn_model_take(struct tcp_domain *d, const struct tcp_locks *locks, const struct tcp_conn *c);
void conn_cc_release(struct tcp_domain *d, const struct tcp_locks *locks, const struct tcp_conn *c);
/** Tell the pacer what rate it should keep. */
void conn_pace(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);

/* ---- recovery.c ---- */
/** Without SACK each duplicate says that one segment has left the network (RFC 6582 section 3.2 inflates cwnd instead). */
static inline uint32_t
conn_reno_left_bytes(const struct tcp_conn *c)
{
    return c->flags & CONN_F_SACK ? 0 : (uint32_t)c->dup_acks * c->mss;
}

/** Bytes that are thought to be on the way: sent, not known to have arrived, not taken for lost. */
static inline uint32_t
conn_pipe(const struct tcp_conn *c)
{
    uint32_t flight = seq_diff(c->snd_nxt, c->snd_una);
    uint32_t gone = c->sent.sacked_bytes + c->sent.lost_bytes + conn_reno_left_bytes(c);

    return flight > gone ? flight - gone : 0;
}

void recovery_on_rto(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
void recovery_on_reorder_timer(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c);
/** What is under way before end was too big for the path: it is lost, but not to congestion. */
void recovery_on_too_big(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, tcp_seq end);

/** What an acceptable ACK brought. */
struct ack_news {
    struct tcp_sent_news sent;
    uint32_t acked; /**< sequence numbers newly acknowledged */
    uint32_t sacked_bytes; /**< newly SACKed */
    bool is_dup; /**< a duplicate in the sense of RFC 5681 section 2 */
    bool is_pure_dup; /**< it says nothing that was not known */
    uint32_t dsack_bytes; /**< of what was sent again, reported as received twice (RFC 2883) */
    bool marked; /**< it reports congestion marks */
    uint32_t marked_bytes; /**< how much of what it delivers had them, at most */
    bool has_ecr;
    uint32_t ts_ecr;
    uint32_t flight_before;
    uint32_t excused_bytes; /**< of what it shows to be lost: not lost to congestion */
};
/** Whether the flow is without trouble: SACK is agreed, nothing is SACKed, lost, doubted or marked, nobody paces it, and its control asks for growth alone. */
bool recovery_is_plain(const struct tcp_conn *c);
/** What is left of recovery_on_ack then, when bytes that were sent once have been acknowledged; last: of tcp_sent_once, and gone behind it. */
void recovery_on_plain_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, uint32_t acked,
                           const struct tcp_sent_run *last);
void recovery_take_sack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in,
                        struct ack_news *n);
void recovery_on_ack(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, struct ack_news *n);

/* ---- input.c ---- */
/** Process a segment for a connection; its buffer is delivered, kept or released. */
void conn_input(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in);
/** Take the payload of a SYN or SYN-ACK, and the FIN of the latter; returns false if the connection is gone by that. */
bool conn_take_syn_data(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, const struct tcp_in *in,
                        bool *taken);
void conn_deliver(struct tcp_domain *d, const struct tcp_env *env, struct tcp_conn *c, struct tcp_data data);

/* ---- listen.c ---- */
void listen_input(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_in *in, const tcp_seq *iss_floor,
                  bool *taken);
void half_input(struct tcp_domain *d, const struct tcp_env *env, uint32_t half, const struct tcp_in *in, bool *taken);
void half_free(struct tcp_domain *d, const struct tcp_env *env, uint32_t half);
/** TCP_DEFER_ACCEPT's seconds as Linux takes them: so many timeouts of a SYN-ACK. */
uint8_t listener_defer_timeouts(const struct tcp_domain *d, int32_t seconds);
void half_on_timer(struct tcp_domain *d, const struct tcp_env *env, uint32_t half);
struct tcp_listener *listener_by_id(const struct tcp_domain *d, tcp_id id);
void listener_close(struct tcp_domain *d, const struct tcp_env *env, struct tcp_listener *l);

/* ---- md5sig.c ---- */
/** The key of a list that counts for remote; NULL = there is none. */
const struct tcp_md5_key *md5_find(const struct tcp_domain *d, uint32_t list, const struct ip_addr *remote);
/** A list of that key alone, for one connection or TIME-WAIT entry; 0 = there is none. */
uint32_t md5_copy(struct tcp_domain *d, uint32_t list, const struct ip_addr *remote);
void md5_clear(struct tcp_domain *d, uint32_t *list);
/** For the keys of a connection or listener to come: is there room for them? */
bool md5_has_room(const struct tcp_domain *d, const struct tcp_sockopts *opts);
void md5_add_all(struct tcp_domain *d, uint32_t *list, const struct tcp_sockopts *opts);
/** Does one of them count for remote? */
bool md5_is_wanted(const struct tcp_sockopts *opts, const struct ip_addr *remote);
/** A segment that is about to go is to be signed, if there is a key for its peer. */
void md5_put(const struct tcp_domain *d, uint32_t list, struct tcp_out *out);
/** The key for an answer to a segment that belongs to nobody: that which it was signed with itself. */
const struct tcp_md5_key *md5_of_answer(const struct tcp_env *env, const struct tcp_in *in);
bool md5_check(struct tcp_domain *d, const struct tcp_env *env, uint32_t ref, const struct tcp_in *in);

/** Is the segment for this entry of the table (0: for none) signed as it should be, or rightly not? Else it is counted. */
static inline bool
md5_admits(struct tcp_domain *d, const struct tcp_env *env, uint32_t ref, const struct tcp_in *in)
{
    bool concerned = in->opts.md5_off != 0 || __atomic_load_n(&d->md5_keys, __ATOMIC_RELAXED) != 0;

    return __builtin_expect(!concerned, 1) || md5_check(d, env, ref, in);
}

/* ---- timewait.c ---- */
/** Entries that one tick ends at most. */
#define TIMEWAIT_BUDGET 64

/** Returns true if the segment is a SYN that may start a new connection: the entry is gone, *iss_floor is set. */
bool timewait_input(struct tcp_domain *d, const struct tcp_env *env, uint32_t tw, const struct tcp_in *in,
                    tcp_seq *iss_floor);
void timewait_free(struct tcp_domain *d, uint32_t tw);
unsigned timewait_on_timer(struct tcp_domain *d, const struct tcp_env *env, unsigned budget);
/** RFC 6191 for an active open: may the entry give way? */
bool timewait_can_reuse(const struct tcp_domain *d, uint32_t tw, uint64_t now_us);

/* ---- timer.c ---- */
void timer_arm(struct tcp_domain *d, const struct tcp_env *env, uint32_t node, uint64_t at_us);
void timer_cancel(struct tcp_domain *d, const struct tcp_env *env, uint32_t node);
void conn_on_timer(struct tcp_domain *d, const struct tcp_env *env, uint32_t conn);

#endif /* TCP_DOMAIN_H */
