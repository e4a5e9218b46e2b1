/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef PACKETDRILL_HOST_H
#define PACKETDRILL_HOST_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "tcp/tcp.h"

/**
 * @file
 * A host in virtual time: one TCP domain, a wire that is a queue of IP packets, and a clock that moves only when it is told to. One lock
 * covers all of it; `changed` is signalled whenever something happened that a blocked call may wait for.
 */

#define HOST_MAX_SOCKS 256

/** Transmit timestamps of a socket that are waited for, and that wait to be read. */
#define HOST_MAX_STAMPS 64

/** When a byte was sent or acknowledged (SO_TIMESTAMPING). */
struct host_stamp {
    uint32_t end; /**< stream position behind it */
    uint32_t kinds; /**< set of 1 << SCM_TSTAMP_*: still due; or the one that is told */
    uint64_t at_us;
};

/** MSG_ZEROCOPY calls of a socket whose bytes are not acknowledged yet. */
#define HOST_MAX_ZEROCOPY 64

/** Keys of TCP_MD5SIG that a socket has. */
#define HOST_MAX_KEYS 8

struct host_packet {
    STAILQ_ENTRY(host_packet) link;
    uint64_t at_us;
    size_t n_bytes;
    uint8_t bytes[];
};
STAILQ_HEAD(host_packets, host_packet);

/** A socket: the index in host.socks is its tcp_user. */
struct host_sock {
    bool used, listening, connecting, connected, fin, gone, nonblock, shut_write, shut_read, bound, v6, user_closed;
    int fd; /**< a descriptor of the kernel's, so that numbers never clash */
    tcp_id id;
    int error; /**< pending SO_ERROR */
    struct tcp_sockopts opts;
    struct tcp_md5_key md5[HOST_MAX_KEYS]; /**< opts.md5 */
    struct tcp_tuple tuple;
    uint8_t *rx; /**< received bytes, rx_len of them */
    size_t rx_len, rx_room;
    uint32_t tx_written, tx_acked; /**< stream positions; every byte that a script writes is zero, so none is kept */
    uint32_t sndbuf_bytes;
    uint32_t lowat_bytes; /**< SO_RCVLOWAT */
    uint64_t rcv_timeout_us, snd_timeout_us; /**< 0 = none */
    uint32_t edges; /**< events since the last look: for EPOLLET */
    int linger_s; /**< -1 = off */
    bool fastopen_connect; /**< TCP_FASTOPEN_CONNECT */
    bool deferred; /**< connect was called, the SYN waits for data */
    bool inq, zerocopy;
    bool unsettled; /**< connecting without waiting: the next connect or MSG_FASTOPEN finds out, then it is connected */
    bool no_space; /**< a writer was told that the buffer is full */
    struct tcp_conn_info info; /**< before the last packet: what TCP_INFO tells of one that has ended */
    uint32_t notsent_lowat_bytes; /**< TCP_NOTSENT_LOWAT; 0 = the host's */
    uint32_t ts_flags, ts_key; /**< SO_TIMESTAMPING; stream position that keys count from */
    uint32_t tx_sent; /**< stream position behind what was sent once */
    unsigned nb_due, nb_told;
    struct host_stamp due[HOST_MAX_STAMPS], told[HOST_MAX_STAMPS]; /**< oldest first; what finds no room is lost */
    uint32_t zc_next; /**< number of the next MSG_ZEROCOPY call */
    uint32_t zc_done; /**< completions below it are in the error queue or were read */
    uint32_t zc_read; /**< completions below it were read */
    uint32_t
        zc_end[HOST_MAX_ZEROCOPY]; /**< stream position behind the call of that number, modulo the array's length */
};

struct host {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_cond_t settled; /**< a woken call sleeps again or is over */
    unsigned waiters; /**< calls asleep on `changed` */
    unsigned woken; /**< of those, woken and not yet running */
    unsigned running; /**< woken calls that have neither gone back to sleep nor taken the time of their end */
    uint64_t now_us;
    uint16_t mtu;
    bool started; /**< the domain exists: made at the first socket, after the script's sysctls */
    struct tcp_params params; /**< as last given to the domain */
    uint32_t wmem_bytes; /**< send buffer of a new socket (net.ipv4.tcp_wmem) */
    uint32_t notsent_lowat_bytes; /**< net.ipv4.tcp_notsent_lowat */
    struct tcp_sockopts opts; /**< of a new socket: net.ipv4.tcp_keepalive_* */
    long sysctl_bytes; /**< how much of SYSCTL_FILE has been read: it only grows */
    struct tcp_domain *domain;
    size_t domain_bytes;
    struct tcp_sink sink;
    struct counters ctr;
    struct host_packets wire; /**< emitted, not yet received by packetdrill; oldest first */
    struct host_sock socks[HOST_MAX_SOCKS];
    struct {
        uint8_t *bytes;
        uint32_t n_bytes;
    } bufs[4096]; /**< tcp_buf = index; 0 unused */
};

void host_init(struct host *h, uint16_t mtu);
void host_fini(struct host *h);

/** Make the domain if it is not there; reads the sysctls that the script has set (SYSCTL_FILE). */
int host_start(struct host *h);

/** Take over the sysctls that were set since the last look. */
void host_reload(struct host *h);

/** What the engine acts through, at the present instant. */
struct tcp_env host_env(struct host *h);

/** A packet from the wire: IPv4 or IPv6. What is not for TCP here is ignored. */
void host_input(struct host *h, const uint8_t *packet, size_t n_bytes);

/** Move the clock to until_us, running timers in order on the way. */
void host_advance(struct host *h, uint64_t until_us);

/** Run to the next timer if there is one before limit_us; false if not. */
bool host_advance_to_next(struct host *h, uint64_t limit_us);

/** Largest TCP payload and header towards a peer: MTU less IP and TCP headers. */
uint16_t host_mss(const struct host *h, const struct ip_addr *peer);

#endif /* PACKETDRILL_HOST_H */
