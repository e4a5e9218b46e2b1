/* SPDX-License-Identifier: BSD-3-Clause */
/* Sending and receiving. */
/* Before the engine's header: both name the flags, one by an enum. */
#include <linux/tcp.h>

#include "adapter.h"

#include <errno.h>
#include <limits.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- data ---- */

static size_t
iov_total(const struct iovec *iov, size_t n)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += iov[i].iov_len;
    return total;
}

static ssize_t
copy_out(struct host_sock *s, const struct iovec *iov, size_t n_iov, int flags)
{
    size_t taken = 0;
    for (size_t i = 0; i < n_iov && taken < s->rx_len; i++) {
        size_t n = iov[i].iov_len < s->rx_len - taken ? iov[i].iov_len : s->rx_len - taken;
        if (n && !iov[i].iov_base && !(flags & MSG_TRUNC))
            return taken ? (ssize_t)taken : -EFAULT;
        if (!(flags & MSG_TRUNC))
            memcpy(iov[i].iov_base, s->rx + taken, n);
        taken += n;
    }
    if (flags & MSG_PEEK)
        return (ssize_t)taken;
    memmove(s->rx, s->rx + taken, s->rx_len - taken);
    s->rx_len -= taken;
    struct tcp_env env = host_env(&host);
    if (s->id && taken)
        tcp_consumed(host.domain, &env, s->id, (uint32_t)taken);
    return (ssize_t)taken;
}

static ssize_t
do_recv(int fd, const struct iovec *iov, size_t n_iov, int flags, struct sockaddr *sa, socklen_t *len)
{
    struct host_sock *s = enter(fd);
    if (!s) {
        pthread_mutex_unlock(&host.lock);
        return n_iov ? syscall(SYS_readv, fd, iov, n_iov) : -1;
    }
    if (s->listening || (!s->connected && !s->connecting && !s->deferred && !s->error))
        return done(-ENOTCONN);
    if (flags & MSG_OOB)
        return done(-EINVAL);
    size_t want = iov_total(iov, n_iov);
    size_t need = flags & MSG_WAITALL ? want : s->lowat_bytes < want ? s->lowat_bytes : want;
    uint64_t until_us = s->rcv_timeout_us ? host.now_us + s->rcv_timeout_us : 0;
    while (s->rx_len < need || (need == 0 && want > 0)) {
        if (s->error && s->rx_len == 0) {
            int err = s->error;
            s->error = 0;
            return done(-err);
        }
        if (s->fin || s->shut_read)
            break;
        if (s->nonblock || (flags & MSG_DONTWAIT) || !wait_change(until_us)) {
            if (s->rx_len > 0)
                break;
            return done(-EAGAIN);
        }
    }
    ssize_t got = copy_out(s, iov, n_iov, flags);
    if (sa && len)
        put_addr(s, &s->tuple.remote, s->tuple.remote_port, sa, len);
    return done((int)got);
}

/* ---- sending ---- */

static uint32_t
unsent_bytes(const struct host_sock *s)
{
    struct tcp_conn_info ci;
    return s->id && tcp_info(host.domain, s->id, &ci) ? ci.snd_unsent : 0;
}

static uint32_t
notsent_lowat(const struct host_sock *s)
{
    return s->notsent_lowat_bytes ? s->notsent_lowat_bytes : host.notsent_lowat_bytes;
}

bool
is_writable(const struct host_sock *s)
{
    return s->tx_written - s->tx_acked <= s->sndbuf_bytes / 3 * 2 && 2ull * unsent_bytes(s) < notsent_lowat(s);
}

/**
 * How many bytes a writer may append now. As in Linux it is a whole burst once the limits allow one at all, and what is missing in the
 * last burst never counts against them.
 */
static uint32_t
send_room(const struct host_sock *s)
{
    struct tcp_conn_info ci;
    if (!tcp_info(host.domain, s->id, &ci) || ci.snd_mss == 0)
        return s->sndbuf_bytes;
    uint32_t burst = ci.snd_wnd / 2 < 65535 - 320 ? ci.snd_wnd / 2 : 65535 - 320;
    burst = burst > ci.snd_mss ? burst - burst % ci.snd_mss : ci.snd_mss;
    uint32_t partial = ci.snd_unsent % burst;
    bool is_free = s->tx_written - s->tx_acked < s->sndbuf_bytes && ci.snd_unsent < notsent_lowat(s);
    return partial ? burst - partial : is_free ? burst : 0;
}

static void
zerocopy_note(struct host_sock *s)
{
    if (s->zc_next - s->zc_done == HOST_MAX_ZEROCOPY)
        s->zc_done++; /* copied as all are: it may as well be reported now */
    s->zc_end[s->zc_next++ % HOST_MAX_ZEROCOPY] = s->tx_written;
}

/** MSG_FASTOPEN, or the first write after a deferred connect. Returns what went with the SYN, or -errno. */
static int
send_fast(struct host_sock *s, size_t total, int flags, const struct sockaddr *sa, socklen_t len)
{
    reload_sysctls();
    if (s->connected && s->unsettled) {
        s->unsettled = false;
        return 0;
    }
    if (!s->deferred) {
        if (!(host.params.fastopen & TCP_FASTOPEN_CLIENT) || (sa && sa->sa_family == AF_UNSPEC))
            return -EOPNOTSUPP;
        if (s->connected || s->connecting)
            return s->connected ? -EISCONN : -EALREADY;
        if (!get_addr(sa, len, &s->tuple.remote, &s->tuple.remote_port))
            return -EINVAL;
        int err = choose_local(s);
        if (err)
            return err;
    }
    uint32_t taken = 0;
    struct tcp_env env = host_env(&host);
    s->deferred = false;
    s->gone = s->fin = false;
    s->connecting = true;
    int err = tcp_connect_fast(host.domain, &env, &s->tuple, host_mss(&host, &s->tuple.remote), &s->opts, user_of(s),
                               (uint32_t)total, &taken, &s->id);
    if (err) {
        s->connecting = false;
        return err;
    }
    s->tx_written = taken;
    s->unsettled = s->nonblock || (flags & MSG_DONTWAIT);
    if (s->unsettled)
        return taken ? (int)taken : -EINPROGRESS;
    uint32_t rest = (uint32_t)total - taken < s->sndbuf_bytes ? (uint32_t)total - taken : s->sndbuf_bytes;
    if (rest > 0) {
        s->tx_written += rest;
        tcp_send(host.domain, &env, s->id, rest, 0);
    }
    err = wait_connected(s);
    return err ? err : (int)(taken + rest);
}

/** SO_TIMESTAMPING: of the last byte that a call appends. What goes on to be sent at once must be known to be asked for. */
static void
stamp_note(struct host_sock *s, uint32_t end)
{
    uint32_t kinds = (s->ts_flags & SOF_TIMESTAMPING_TX_SCHED ? 1u << SCM_TSTAMP_SCHED : 0) |
                     (s->ts_flags & SOF_TIMESTAMPING_TX_SOFTWARE ? 1u << SCM_TSTAMP_SND : 0) |
                     (s->ts_flags & SOF_TIMESTAMPING_TX_ACK ? 1u << SCM_TSTAMP_ACK : 0);
    if (kinds && s->nb_due < HOST_MAX_STAMPS)
        s->due[s->nb_due++] = (struct host_stamp){ .end = end, .kinds = kinds };
}

/** Append as much of `left` as there is room for; 0 if there is none. */
static size_t
append(struct host_sock *s, size_t left, int flags)
{
    uint32_t room = send_room(s);
    uint32_t n = left < room ? (uint32_t)left : room;
    struct tcp_env env = host_env(&host);
    if (n == 0)
        return 0;
    s->tx_written += n;
    if (n == left || s->nonblock || (flags & MSG_DONTWAIT))
        stamp_note(s, s->tx_written);
    uint32_t how = n < left || (flags & MSG_MORE) ? TCP_SEND_MORE : 0;
    if (n == left && (flags & MSG_EOR))
        how |= TCP_SEND_EOR;
    tcp_send(host.domain, &env, s->id, n, how);
    return n;
}

static int
send_locked(struct host_sock *s, size_t total, int flags)
{
    size_t sent = 0;
    reload_sysctls(); /* a route may have changed */
    if (s->connecting && !s->nonblock && !(flags & MSG_DONTWAIT))
        wait_connected(s);
    uint64_t until_us = s->snd_timeout_us ? host.now_us + s->snd_timeout_us : 0;
    while (sent < total || total == 0) {
        if (s->error) {
            int err = s->error;
            s->error = 0;
            return sent ? (int)sent : -err;
        }
        if (s->gone || s->shut_write || !s->connected) {
            return sent ? (int)sent : s->connecting && !s->shut_write ? -EAGAIN : -EPIPE;
        }
        if (total == 0)
            return 0;
        size_t n = append(s, total - sent, flags);
        sent += n;
        if (n > 0)
            continue;
        s->no_space = true;
        if (s->nonblock || (flags & MSG_DONTWAIT))
            return sent ? (int)sent : -EAGAIN;
        while (!is_writable(s) && !s->error && !s->gone)
            if (!wait_change(until_us))
                return sent ? (int)sent : -EAGAIN;
    }
    return (int)sent;
}

static ssize_t
do_send(int fd, const struct iovec *iov, size_t n_iov, int flags, const struct sockaddr *sa, socklen_t len)
{
    struct host_sock *s = enter(fd);
    if (!s) {
        pthread_mutex_unlock(&host.lock);
        return syscall(SYS_writev, fd, iov, n_iov);
    }
    size_t total = iov_total(iov, n_iov);
    for (size_t i = 0; i < n_iov; i++)
        if (iov[i].iov_len && !iov[i].iov_base)
            return done(-EFAULT);
    if (flags & MSG_OOB)
        return done(-EOPNOTSUPP);
    int first = 0;
    if (s->deferred || (flags & MSG_FASTOPEN)) {
        first = send_fast(s, total, flags, sa, len);
        if (first < 0)
            return done(first);
        if (total == 0)
            return done(0);
    }
    int rest = 0;
    if ((first == 0 || !s->unsettled) && ((size_t)first < total || total == 0))
        rest = send_locked(s, total - (size_t)first, flags);
    if (rest < 0 && first == 0)
        return done(rest);
    if ((flags & MSG_ZEROCOPY) && s->zerocopy && total > 0)
        zerocopy_note(s);
    return done(first + (rest > 0 ? rest : 0));
}

/* ---- the error queue ---- */

bool
has_completions(const struct host_sock *s)
{
    return s->zc_read != s->zc_done || s->nb_told > 0;
}

static void
put_cmsg(struct msghdr *msg, int level, int type, const void *data, size_t len)
{
    struct cmsghdr *c = (struct cmsghdr *)(void *)((char *)msg->msg_control + msg->msg_controllen);
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(c), data, len);
    msg->msg_controllen += CMSG_SPACE(len);
}

/** The oldest transmit timestamp. Linux gives the packet back with it; here there is none to give. */
static ssize_t
recv_stamp(struct host_sock *s, struct msghdr *msg)
{
    struct host_stamp t = s->told[0];
    struct {
        struct sock_extended_err err;
        struct sockaddr_in6 offender;
    } data = { .err = { .ee_errno = ENOMSG, .ee_origin = SO_EE_ORIGIN_TIMESTAMPING } };
    struct scm_timestamping at = { 0 };
    size_t n = sizeof(data.err) + (s->v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    if (!msg->msg_control || msg->msg_controllen < CMSG_SPACE(n) + CMSG_SPACE(sizeof(at)))
        return -EINVAL;
    memmove(&s->told[0], &s->told[1], --s->nb_told * sizeof(s->told[0]));
    at.ts[0].tv_sec = (time_t)(t.at_us / 1000000);
    at.ts[0].tv_nsec = (long)(t.at_us % 1000000 * 1000);
    data.err.ee_info = (uint32_t)__builtin_ctz(t.kinds);
    data.err.ee_data = s->ts_flags & SOF_TIMESTAMPING_OPT_ID ? t.end - 1 - s->ts_key : 0;
    msg->msg_controllen = 0;
    if (s->ts_flags & SOF_TIMESTAMPING_SOFTWARE)
        put_cmsg(msg, SOL_SOCKET, SCM_TIMESTAMPING, &at, sizeof(at));
    put_cmsg(msg, s->v6 ? SOL_IPV6 : SOL_IP, s->v6 ? IPV6_RECVERR : IP_RECVERR, &data, n);
    msg->msg_flags = MSG_ERRQUEUE | (s->ts_flags & SOF_TIMESTAMPING_OPT_TSONLY ? 0 : MSG_TRUNC);
    return 0;
}

/** One notification for all MSG_ZEROCOPY calls that have completed: the bytes were copied at the call. */
static ssize_t
recv_error_queue(int fd, struct msghdr *msg)
{
    struct host_sock *s = enter(fd);
    struct {
        struct sock_extended_err err;
        struct sockaddr_in6 offender;
    } data = { 0 };
    if (!s)
        return done(-EBADF);
    if (!has_completions(s))
        return done(-EAGAIN);
    if (s->zc_read == s->zc_done)
        return done((int)recv_stamp(s, msg));
    size_t n = sizeof(data.err) + (s->v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    if (!msg->msg_control || msg->msg_controllen < CMSG_SPACE(n))
        return done(-EINVAL);
    data.err.ee_origin = SO_EE_ORIGIN_ZEROCOPY;
    data.err.ee_code = SO_EE_CODE_ZEROCOPY_COPIED;
    data.err.ee_info = s->zc_read;
    data.err.ee_data = s->zc_done - 1;
    s->zc_read = s->zc_done;
    struct cmsghdr *c = msg->msg_control;
    c->cmsg_level = s->v6 ? SOL_IPV6 : SOL_IP;
    c->cmsg_type = s->v6 ? IPV6_RECVERR : IP_RECVERR;
    c->cmsg_len = CMSG_LEN(n);
    memcpy(CMSG_DATA(c), &data, n);
    msg->msg_controllen = CMSG_SPACE(n);
    msg->msg_flags = MSG_ERRQUEUE;
    return done(0);
}

/* ---- the calls ---- */

ssize_t
pd_read(void *self, int fd, void *buf, size_t n)
{
    (void)self;
    return do_recv(fd, &(struct iovec){ buf, n }, 1, 0, NULL, NULL);
}

ssize_t
pd_readv(void *self, int fd, const struct iovec *iov, int n)
{
    (void)self;
    return n < 0 || n > IOV_MAX ? fail(EINVAL) : do_recv(fd, iov, (size_t)n, 0, NULL, NULL);
}

ssize_t
pd_recv(void *self, int fd, void *buf, size_t n, int flags)
{
    (void)self;
    return do_recv(fd, &(struct iovec){ buf, n }, 1, flags, NULL, NULL);
}

ssize_t
pd_recvfrom(void *self, int fd, void *buf, size_t n, int flags, struct sockaddr *sa, socklen_t *len)
{
    (void)self;
    return do_recv(fd, &(struct iovec){ buf, n }, 1, flags, sa, len);
}

/** TCP_INQ: what is left to read; an end of file that is next counts as one byte. */
static void
put_inq(int fd, struct msghdr *msg, size_t room)
{
    const struct host_sock *s = enter(fd);
    int inq = !s ? 0 : s->rx_len ? (int)s->rx_len : s->fin;
    bool wanted = s && s->inq && msg->msg_control && room >= CMSG_SPACE(sizeof(int));
    pthread_mutex_unlock(&host.lock);
    if (!wanted)
        return;
    struct cmsghdr *c = msg->msg_control;
    c->cmsg_level = IPPROTO_TCP;
    c->cmsg_type = TCP_CM_INQ;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &inq, sizeof(int));
    msg->msg_controllen = CMSG_SPACE(sizeof(int));
}

ssize_t
pd_recvmsg(void *self, int fd, struct msghdr *msg, int flags)
{
    (void)self;
    if (flags & MSG_ERRQUEUE)
        return recv_error_queue(fd, msg);
    size_t room = msg->msg_controllen;
    msg->msg_flags = 0;
    msg->msg_controllen = 0;
    ssize_t n = do_recv(fd, msg->msg_iov, msg->msg_iovlen, flags, msg->msg_name, &msg->msg_namelen);
    if (n >= 0)
        put_inq(fd, msg, room);
    return n;
}

ssize_t
pd_write(void *self, int fd, const void *buf, size_t n)
{
    (void)self;
    return do_send(fd, &(struct iovec){ (void *)(uintptr_t)buf, n }, 1, 0, NULL, 0);
}

ssize_t
pd_writev(void *self, int fd, const struct iovec *iov, int n)
{
    (void)self;
    return n < 0 || n > IOV_MAX ? fail(EINVAL) : do_send(fd, iov, (size_t)n, 0, NULL, 0);
}

ssize_t
pd_send(void *self, int fd, const void *buf, size_t n, int flags)
{
    (void)self;
    return do_send(fd, &(struct iovec){ (void *)(uintptr_t)buf, n }, 1, flags, NULL, 0);
}

ssize_t
pd_sendto(void *self, int fd, const void *buf, size_t n, int flags, const struct sockaddr *sa, socklen_t len)
{
    (void)self;
    return do_send(fd, &(struct iovec){ (void *)(uintptr_t)buf, n }, 1, flags, sa, len);
}

ssize_t
pd_sendmsg(void *self, int fd, const struct msghdr *msg, int flags)
{
    (void)self;
    return do_send(fd, msg->msg_iov, msg->msg_iovlen, flags, msg->msg_name, msg->msg_namelen);
}

/* ---- splice ---- */

static ssize_t
splice_once(int fd_in, int fd_out, size_t n)
{
    uint8_t bytes[65536];
    if (n > sizeof(bytes))
        n = sizeof(bytes);
    ssize_t got = pd_read(NULL, fd_in, bytes, n);
    return got <= 0 ? got : pd_write(NULL, fd_out, bytes, (size_t)got);
}

/** Between a socket and a pipe, either way. A pipe shorter than what is moved would block: scripts use little. */
int
pd_splice(void *self, int fd_in, loff_t *off_in, int fd_out, loff_t *off_out, size_t n, unsigned flags)
{
    (void)self;
    (void)flags;
    /* packetdrill passes the addresses of copies: an offset of 0 stands for none. */
    if ((off_in && *off_in) || (off_out && *off_out))
        return fail(ESPIPE);
    return (int)splice_once(fd_in, fd_out, n);
}

/* packetdrill calls libc's, whose declaration this code would find under another symbol (large files): preloaded, this takes it. */
ssize_t pd_sendfile(int fd_out, int fd_in, off_t *offset, size_t n) __asm__("sendfile");

ssize_t
pd_sendfile(int fd_out, int fd_in, off_t *offset, size_t n)
{
    uint8_t bytes[65536];
    struct host_sock *s = host_up ? enter(fd_out) : NULL;

    if (host_up)
        pthread_mutex_unlock(&host.lock);
    if (!s)
        return syscall(SYS_sendfile, fd_out, fd_in, offset, n);
    if (n > sizeof(bytes))
        n = sizeof(bytes);
    ssize_t got = offset ? pread(fd_in, bytes, n, *offset) : read(fd_in, bytes, n);
    if (got <= 0)
        return got;
    ssize_t sent = pd_write(NULL, fd_out, bytes, (size_t)got);
    if (sent > 0 && offset)
        *offset += sent;
    return sent;
}
