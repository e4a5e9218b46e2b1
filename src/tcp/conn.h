/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TCP_CONN_H
#define TCP_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tcp/cc.h"
#include "tcp/chrono.h"
#include "tcp/mtu.h"
#include "tcp/pace.h"
#include "tcp/prr.h"
#include "tcp/again.h"
#include "tcp/rack.h"
#include "tcp/rate.h"
#include "tcp/rtt.h"
#include "tcp/sent.h"
#include "tcp/tcp.h"
#include "tcp/tune.h"

/**
 * @file
 * The entries of a domain: connection, listener, half-open and TIME-WAIT. No pointers; zeroed memory is a free entry.
 */

/** Least segment size that is believed: a smaller one is an attack on the packet rate. */
#define TCP_MSS_FLOOR 88

/** Most that options can take of a segment (RFC 9293 section 3.1); the least segment has room for more. */
#define TCP_OPTIONS_MAX 40
_Static_assert(TCP_MSS_FLOOR > TCP_OPTIONS_MAX, "a SYN always has room for data");

/** What a timestamp takes of each segment (RFC 7323 appendix A). */
#define TCP_TS_OPTION_BYTES 12u

/** What a signature takes of each segment (RFC 2385 section 3.0), padded. */
#define TCP_MD5_OPTION_BYTES 20u

/** What every entry of the connection table begins with. */
struct tcp_link {
    struct tcp_tuple tuple;
    uint32_t hash_next; /**< next in the bucket: kind and index (table.h) */
    uint32_t hash;
};

/** Options that a listener hands down. Defaults are the domain's. */
struct tcp_conn_opts {
    uint32_t rcv_buf_bytes;
    uint32_t user_timeout_ms; /**< 0 = none */
    uint32_t max_pacing_rate; /**< bytes per second, 0 = none */
    uint16_t keep_idle_s, keep_intvl_s;
    uint16_t linger2_s; /**< TCP_LINGER2_NONE = an orphan has no FIN-WAIT-2 */
    uint16_t max_seg; /**< 0 = none */
    uint8_t keep_cnt, syn_retries; /**< syn_retries: 0 = as the domain has it */
    uint8_t cc_id; /**< enum tcp_cc_id, or TCP_CC_BY_ROUTE: nobody has chosen */
    uint8_t mtu_discover; /**< TCP_MTU_DISCOVER_* */
    /* What segments ask for. */
    uint32_t snd_buf_bytes;
    uint32_t window_clamp_bytes; /**< 0 = none */
    uint8_t tos;
    uint8_t reserved[3]; /**< 0: replicas are compared by the byte */
};
#define TCP_CC_BY_ROUTE UINT8_MAX
#define TCP_LINGER2_NONE UINT16_MAX

/* Flags of a connection. The first group comes from socket options and is handed down by a listener. */
#define CONN_F_NODELAY (1u << 0)
#define CONN_F_CORK (1u << 1)
#define CONN_F_KEEPALIVE (1u << 2)
#define CONN_F_QUICKACK (1u << 3)
#define CONN_F_TS (1u << 4) /**< timestamps agreed */
#define CONN_F_SACK (1u << 5) /**< SACK agreed */
#define CONN_F_WSCALE (1u << 6) /**< window scaling agreed */
#define CONN_F_MORE (1u << 7) /**< MSG_MORE: hold back a partial segment */
#define CONN_F_FIN_QUEUED (1u << 8) /**< FIN follows the byte before snd_end; sent <=> snd_nxt is after snd_end */
#define CONN_F_ORPHAN (1u << 9) /**< the user has closed: no event but GONE */
#define CONN_F_PENDING (1u << 10) /**< in a listener's accept queue */
#define CONN_F_ACK_NOW (1u << 11)
#define CONN_F_CWND_LIMITED (1u << 12) /**< in the window that usage_seq ends, cwnd held data back */
#define CONN_F_FRTO (1u << 13) /**< whether the timeout was needless is still open (RFC 5682) */
#define CONN_F_TIMING (1u << 14) /**< syn_at_us times the SYN: sent once */
#define CONN_F_PERSIST (1u << 15) /**< CONN_T_RTX is a window probe, not a retransmission */
#define CONN_F_FIN_RCVD (1u << 16) /**< rcv_nxt is one beyond the peer's FIN */
#define CONN_F_PUSH (1u << 17) /**< send partial segments whatever Nagle says, once */
#define CONN_F_UNDO (1u << 18) /**< the last reduction of cwnd may still turn out needless: prior_* hold */
#define CONN_F_PTO (1u << 27) /**< CONN_T_RTX is a probe timeout (RFC 8985 section 7) */
#define CONN_F_REO (1u << 28) /**< CONN_T_RTX is the reordering timer (RFC 8985 section 6.3) */
#define CONN_F_TLP (1u << 29) /**< a probe is out: tlp_end holds */
#define CONN_F_TLP_AGAIN (1u << 30) /**< and it was a retransmission */
#define CONN_F_FRTO_NEW (1u << 31) /**< new data goes before what is taken for lost (RFC 5682 step 2b) */

/* Explicit congestion notification (RFC 3168). */
#define CONN_ECN_ON 1u /**< agreed on */
#define CONN_ECN_ECHO 2u /**< our ACKs carry ECE */
#define CONN_ECN_CWR 4u /**< the next new data carries CWR */
/* More accurate feedback (RFC 9768), in place of CONN_ECN_ON. */
#define CONN_ECN_ACC 8u /**< asked for in SYN-SENT; agreed on beyond */
#define CONN_ECN_NO_ECT 16u /**< the path, or the handshake, forbids to mark packets as ECN-capable */
#define CONN_ECN_DEAF 32u /**< the peer's feedback means nothing */
#define CONN_ECN_OPTION 64u /**< segments carry the option: the MSS is less for it */
#define CONN_ECN_SEEN 128u /**< a segment with data came marked as ECN-capable */
#define CONN_F_FO_CHILD (1u << 19) /**< passive Fast Open: our SYN is not acknowledged yet, in whatever state */
#define CONN_F_FO_TRIED (1u << 20) /**< active Fast Open: the first SYN had the option, or data */
#define CONN_F_FO_SYN                                                                                                  \
    (1u << 21) /**< and is still to be sent: only the first one has them. Passive: the SYN-ACK brings a new cookie, */
#define CONN_F_FO_DATA (1u << 22) /**< it had data. Passive: in the experimental option */
#define CONN_F_SYN_DATA (1u << 23) /**< data was accepted with a SYN */
#define CONN_F_FO_NO_COOKIE (1u << 24) /**< from socket options */
#define CONN_F_PACED (1u << 25) /**< the flow's pacer has a rate */
#define CONN_F_RCVBUF_FIXED (1u << 26) /**< from socket options: the user chose the size */

/* What is known of the path and under way about it (path.c). */
#define CONN_PATH_CUT 1u /**< routers may cut our packets: they go without DF */
#define CONN_PATH_DEAF 2u /**< what ICMP says of its MTU is not listened to */
#define CONN_PATH_PROVEN 4u /**< a segment of the present size has arrived */
#define CONN_PATH_LOWERED 8u /**< mss_path is what ICMP said: tcp_path.since_s holds, and it ends with age */
#define CONN_PATH_SEARCH 16u /**< larger sizes are tried: tcp_path.search and since_s hold */
#define CONN_PATH_PROBE 32u /**< one is under way: tcp_path.probe_* hold */
#define CONN_PATH_DOUBT 64u /**< ICMP said what contradicts what was seen: tcp_path.doubt_* hold */

enum conn_timer { CONN_T_RTX, CONN_T_DELACK, CONN_T_KEEP, CONN_T_SEND, CONN_T_PACE, CONN_T_COUNT };

/** What a request touches of a connection lies before the one place and behind the other. */
#define TCP_CONN_SELDOM_AT 192u
#define TCP_CONN_OFTEN_AT 320u

/** Linux's names of the congestion state. */
enum conn_ca { CONN_CA_OPEN, CONN_CA_DISORDER, CONN_CA_CWR, CONN_CA_RECOVERY, CONN_CA_LOSS };

/**
 * A connection. Sequence space: our SYN is iss, the transmit stream's byte at position p is iss + 1 + p.
 * sent.una == snd_una <= snd_nxt <= snd_end + 1; sent covers [snd_una, snd_nxt) once the handshake is done.
 *
 * A request and its response touch lines 0, 1, 2, 5 and 6, and the flow behind them; with very many connections that is most of what they cost (docs/performance.md). What only losses, the
 * handshake, timers or calls for options need lies between these.
 */
struct tcp_conn {
    /* Line 0: the lookup and the checks of every segment. */
    struct tcp_link link;
    tcp_user user;
    uint32_t flags;
    uint8_t state; /**< enum tcp_state; 0 <=> free */
    uint8_t gen; /**< upper byte of the id; survives in a free slot */
    uint8_t snd_wscale, rcv_wscale;
    tcp_seq rcv_nxt;
    tcp_seq snd_una;

    /* Line 1: data both ways. */
    tcp_seq snd_nxt;
    tcp_seq snd_end; /**< behind the last byte that the user has appended */
    uint32_t snd_wnd; /**< from snd_una */
    uint32_t snd_wnd_max;
    tcp_seq snd_wl1, snd_wl2; /**< seq and ack of the last window update */
    tcp_seq rcv_adv; /**< right edge that the peer was told of; never moves back */
    tcp_seq rcv_acked; /**< rcv_nxt as last sent */
    uint32_t rcv_buf;
    uint32_t rcv_used; /**< in order and not consumed, delivered or not */
    uint32_t ts_recent; /**< RFC 7323 section 4.3 */
    uint32_t ts_recent_tick;
    uint32_t ts_offset;
    uint16_t mss; /**< payload of a full segment: options taken off */
    uint16_t rcv_mss; /**< largest payload seen: what a full segment is */
    uint8_t quick_acks; /**< in-order segments still to be acknowledged at once */
    uint8_t ca_state; /**< enum conn_ca */
    uint8_t retries; /**< timeouts or probes in a row, unanswered */
    uint8_t backoff;
    uint32_t reass; /**< index of the reassembly queue, 0 = none */

    /* Line 2: round-trip time, what is under way, the congestion window. */
    struct tcp_rtt rtt;
    struct tcp_sent sent;
    tcp_seq snd_sml; /**< end of the last segment below the MSS (Minshall's form of Nagle) */
    uint8_t dup_acks, dup_thresh;
    uint16_t mss_path; /**< what packets may take now, less the fixed headers, by all that is known of the path */
    struct tcp_cc cc; /**< most of the control's own words are on the next line */

    /* Recovery and undo. */
    struct tcp_prr prr;
    tcp_seq tlp_end; /**< snd_nxt when the probe was sent */
    uint32_t
        undo_bytes; /**< copies that are under way and were not reported as duplicates (RFC 2883), since the reduction */
    uint32_t prior_cwnd, prior_ssthresh; /**< for undo */
    uint32_t rxt_ts; /**< no copy that is under way has an older timestamp */

    /* Set-up, limits, options. */
    uint32_t syn_at_us; /**< modulo 2^32 */
    uint32_t challenge_tick; /**< last answer to an unacceptable segment */
    uint32_t bind; /**< the port's entry, 0 = none */
    uint32_t accept_next; /**< in the accept queue */
    tcp_id fo_listener; /**< of CONN_F_FO_CHILD */
    uint16_t mss_peer; /**< the peer's MSS option */
    uint16_t mss_port; /**< what the port takes: mss_path can rise no higher */
    struct tcp_pace pace;
    struct tcp_conn_opts opts; /**< what segments ask for begins line 5 */

    /* Line 5: timers, loss detection, activity. */
    uint32_t timer_at[CONN_T_COUNT]; /**< ticks modulo 2^32; 0 = off */
    struct tcp_rack rack;
    tcp_seq recover; /**< snd_nxt when recovery began */
    uint32_t stall_tick; /**< snd_una stands still since */

    /* Line 6: activity, statistics, and what is mostly none. */
    uint32_t last_rcv_tick, last_snd_tick, last_data_tick;
    tcp_seq iss, irs;
    uint32_t records; /**< the last of the records' ends that wait to be sent (record.c), 0 = none */
    uint32_t md5; /**< its keys of TCP_MD5SIG (md5sig.c), 0 = none */
    uint64_t bytes_acked, bytes_received; /**< payload */
    uint32_t segs_in, segs_out;
    uint32_t data_segs_in, data_segs_out;
    uint8_t keep_probes;
    uint8_t ecn; /**< CONN_ECN_* */
    uint8_t cc_id;
    uint8_t err; /**< what ended it, for a user yet to come */
    uint8_t soft_err; /**< ICMP's word, in place of ETIMEDOUT */
    uint8_t path; /**< CONN_PATH_* */
    uint8_t fastopen_fail; /**< enum conn_fastopen_fail */
    bool port_turn : 1; /**< it has waited for the port, and is the next to send: for the length of that event */
    bool ack_held : 1; /**< an ACK that is due waits for a ride (held.c) */
    bool tallied : 1; /**< tally_of holds something */
    bool syn_acked : 1; /**< an active open's */
};

_Static_assert(sizeof(struct tcp_conn) <= 448,
               "a connection is seven cache lines at most: RACK and PRR keep their books in it");
_Static_assert(offsetof(struct tcp_conn, snd_nxt) == 64, "line 0: lookup, state, the checks' bounds");
_Static_assert(offsetof(struct tcp_conn, rtt) == 128, "line 1: data both ways");
_Static_assert(offsetof(struct tcp_conn, cc.priv[1]) == TCP_CONN_SELDOM_AT,
               "line 2: RTT, what is under way, the window");
_Static_assert(offsetof(struct tcp_conn, opts.snd_buf_bytes) == TCP_CONN_OFTEN_AT,
               "lines 5 and 6: the rest of a request's");

/** What belongs to a connection as well, and lies behind it. */
struct tcp_flow {
    struct tcp_rate rate;
    tcp_seq usage_seq; /**< the use of cwnd is judged once for each window; this ends the present one */
    uint32_t usage_bytes; /**< most that was under way in it */
    uint32_t delivered_segs;
    uint32_t node_tick; /**< the timer node is armed, for this tick or before; 0 = it has to be looked at */
    uint32_t model; /**< of a congestion control that has one, 0 = none */
    struct tcp_rtt_window rtt_window;
    struct tcp_tune tune;
    struct tcp_chrono chrono;
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct tcp_flow) == 128, "two lines, and no padding: replicas are compared by the byte");

/** What a connection counts of what happens to few, for TCP_INFO. Has the connection's index; of no meaning unless `tallied`. */
struct tcp_tally {
    uint64_t bytes_retrans;
    uint32_t retrans_segs;
    uint32_t dsack_segs; /**< that the peer reported to have received twice */
    uint32_t ooo_segs; /**< received out of order */
    uint32_t reorderings;
    uint32_t rto_us_since; /**< the first timeout that no recovery has ended yet, modulo 2^32; 0 = none */
    uint32_t rto_time_ms; /**< spent in recoveries from timeouts that are over */
    uint16_t rtos, rto_recoveries;
    struct tcp_again again;
};
_Static_assert(sizeof(struct tcp_tally) == 104, "no padding: replicas are compared by the byte");

/** What became of Fast Open's data, with the numbers of Linux's tcpi_fastopen_client_fail. */
enum conn_fastopen_fail { CONN_FO_NO_FAIL, CONN_FO_NO_COOKIE, CONN_FO_NOT_ACKED, CONN_FO_SYN_AGAIN };

/** What becomes of the path of a connection, where anything does; has its index too. What holds CONN_PATH_* tell. */
struct tcp_path {
    struct tcp_mtu search;
    tcp_seq probe_start, probe_end;
    tcp_seq doubt_seq; /**< the segment that ICMP spoke of */
    uint32_t since_s; /**< when the size was lowered, or the search began anew */
    uint16_t doubt_size; /**< what it said */
    uint16_t reserved;
};

/** Keys of Fast Open cookies: the first makes them, all are good. */
struct tcp_fo_keys {
    uint64_t key[TCP_FASTOPEN_KEYS_MAX][2];
    uint64_t n;
};

#define LISTEN_F_REUSEPORT (1u << 31)

struct tcp_listener {
    struct tcp_link link; /**< tuple.local and local_port only; not in the table */
    tcp_user user;
    uint32_t flags; /**< CONN_F_OPTIONS to hand down */
    uint8_t state; /**< TCP_ST_LISTEN */
    uint8_t gen;
    uint8_t defer_timeouts; /**< TCP_DEFER_ACCEPT, in SYN-ACK timeouts; 0 = off */
    uint8_t pad;
    uint32_t backlog;
    uint32_t accept_head, accept_tail; /**< connections, 0 <=> empty */
    uint32_t accept_count;
    uint32_t half_open;
    uint32_t bind;
    struct tcp_conn_opts opts;
    uint32_t fastopen_qlen, fastopen_pending; /**< limit and number of children with CONN_F_FO_CHILD */
    struct tcp_fo_keys fastopen_keys; /**< none: the domain's count */
    uint32_t md5; /**< keys for those who connect, 0 = none */
};

union tcp_slot {
    struct {
        struct tcp_conn conn;
        struct tcp_flow flow; /**< where the connection ends: found without its index, and on the same page */
    };
    struct tcp_listener listener;
} __attribute__((aligned(64)));
_Static_assert(offsetof(union tcp_slot, flow) == sizeof(struct tcp_conn), "replicas are compared by the byte");

_Static_assert(offsetof(struct tcp_conn, state) == offsetof(struct tcp_listener, state), "told apart by state");
_Static_assert(offsetof(struct tcp_conn, gen) == offsetof(struct tcp_listener, gen), "one kind of id");

/** SYN-RECEIVED by a listener. In use <=> link.tuple.local_port is not 0. */
struct tcp_half {
    struct tcp_link link;
    tcp_id listener; /**< may be gone: checked when it matters */
    tcp_seq iss, irs;
    uint32_t ts_recent;
    uint32_t sent_at_us; /**< first SYN-ACK, modulo 2^32 */
    uint16_t window; /**< of the SYN: never scaled */
    uint16_t mss_peer, mss_port;
    uint8_t snd_wscale, rcv_wscale;
    uint8_t flags; /**< HALF_F_* */
    uint8_t retries; /**< timeouts of its SYN-ACK */
    uint8_t tos;
    bool acked; /**< TCP_DEFER_ACCEPT: the handshake is complete, data is waited for */
    uint8_t ecn; /**< HALF_ECN_* */
};
#define HALF_F_TS 1u
#define HALF_F_SACK 2u
#define HALF_F_WSCALE 4u
#define HALF_F_ECN 64u
#define HALF_F_ACCECN 128u
#define HALF_ECN_SYN 3u /**< codepoint of the latest SYN */
#define HALF_ECN_AGAIN 4u /**< it was not the first */
#define HALF_ECN_NO_ECT 8u /**< one of them did without ECN */
#define HALF_F_FO 8u /**< the first SYN-ACK brings a cookie */
#define HALF_F_COOKIE 32u /**< no entry of the table: it lives for one answer */
#define HALF_F_FO_EXP 16u /**< in the experimental option */
_Static_assert(sizeof(struct tcp_half) <= 80, "half-open entries are small");

/** A connection that has been silent for long, packed (park.c). Has the connection's index. In use <=> link.tuple.local_port is not 0. */
#define TCP_PARKED_BYTES 99u
struct tcp_parked {
    struct tcp_link link;
    uint32_t more; /**< first block of what did not fit, 0 = none */
    uint8_t gen; /**< upper byte of the id */
    uint8_t bytes[TCP_PARKED_BYTES];
};
_Static_assert(sizeof(struct tcp_parked) <= 148,
               "this and its place in the tables is all that a silent connection takes");

/** More of it; most have no need. */
#define TCP_PARK_BLOCK_BYTES 28u
#define TCP_PARK_BLOCKS_MAX 17u
struct tcp_park_block {
    uint32_t next;
    uint8_t bytes[TCP_PARK_BLOCK_BYTES];
};

/** The end of a record in what is not sent yet: a ring in the order of the stream, named by its last entry. */
struct tcp_record {
    uint32_t next;
    tcp_seq end;
};

/** TIME-WAIT. In use <=> link.tuple.local_port is not 0. All live equally long: a list in order of expiry. */
struct tcp_tw {
    struct tcp_link link;
    uint32_t prev, next;
    uint32_t expire_tick;
    tcp_seq rcv_nxt, snd_nxt;
    uint32_t ts_recent, ts_recent_tick;
    uint32_t ack_tick; /**< last answer, for the rate limit */
    uint32_t bind;
    uint16_t window;
    bool has_ts;
    uint8_t tos;
    uint8_t rcv_wscale;
    uint8_t reserved[3];
    uint32_t md5; /**< the key that its answers are signed with, 0 = none */
};
_Static_assert(sizeof(struct tcp_tw) <= 96, "TIME-WAIT entries are small");

#endif /* TCP_CONN_H */
