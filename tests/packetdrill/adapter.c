/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The stack behind packetdrill's shared-object interface: sockets over host.h's virtual host. All calls take the host's lock; a call that
 * must wait does so on a condition variable (packetdrill looks at its thread's state and wants to see it asleep).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host.h"
#include "interface.h"

void packetdrill_interface_init(const char *flags, struct pd_interface *ifc);

#define MAX_FD 1024
#define RECEIVE_LIMIT_US (200ull * 1000000)
#define DEFAULT_SNDBUF (2304u * 1024)
#define EPOLL_SETS 8
#define EPOLL_ENTRIES 16

struct epoll_set {
    int fd; /* 0 = unused */
    struct {
        int fd; /* 0 = unused */
        struct epoll_event ev;
        bool spent; /* EPOLLONESHOT has fired */
    } entry[EPOLL_ENTRIES];
};

static struct host host;
static bool host_up;
static uint16_t sock_by_fd[MAX_FD]; /* 0 = not ours */
static struct epoll_set epoll_sets[EPOLL_SETS];

static int
fail(int err)
{
    errno = err;
    return -1;
}

static int
done(int ret)
{
    pthread_mutex_unlock(&host.lock);
    return ret < 0 ? fail(-ret) : ret;
}

static struct host_sock *
enter(int fd)
{
    pthread_mutex_lock(&host.lock);
    return fd >= 0 && fd < MAX_FD && sock_by_fd[fd] ? &host.socks[sock_by_fd[fd]] : NULL;
}

static tcp_user
user_of(const struct host_sock *s)
{
    return (tcp_user)(s - host.socks);
}

/** Wait until something changes; false when the time limit (0 = none) has passed. Called with the lock held. */
static bool
wait_change(uint64_t until_us)
{
    if (until_us && host.now_us >= until_us)
        return false;
    host.waiters++;
    pthread_cond_wait(&host.changed, &host.lock);
    host.waiters--;
    return true;
}

/** Before the clock moves: a call that was woken takes its end's time from it, so let it come to its end or back to sleep. */
static void
let_waiters_run(void)
{
    static const struct timespec grace = { 0, 1000000 };
    if (!host.waiters)
        return;
    pthread_mutex_unlock(&host.lock);
    nanosleep(&grace, NULL);
    pthread_mutex_lock(&host.lock);
}

/* ---- addresses ---- */

static bool
get_addr(const struct sockaddr *sa, socklen_t len, struct ip_addr *addr, uint16_t *port)
{
    if (sa && sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *in = (const void *)sa;
        *addr = ip_addr_v4(in->sin_addr.s_addr);
        *port = ntohs(in->sin_port);
        return true;
    }
    if (sa && sa->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
        const struct sockaddr_in6 *in = (const void *)sa;
        memcpy(addr, &in->sin6_addr, 16);
        *port = ntohs(in->sin6_port);
        return true;
    }
    return false;
}

static void
put_addr(const struct host_sock *s, const struct ip_addr *addr, uint16_t port, struct sockaddr *sa, socklen_t *len)
{
    if (!sa || !len)
        return;
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = addr->w[3] };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    memcpy(&in6.sin6_addr, addr, 16);
    socklen_t size = s->v6 ? sizeof(in6) : sizeof(in);
    memcpy(sa, s->v6 ? (const void *)&in6 : (const void *)&in, *len < size ? *len : size);
    *len = size;
}

/* ---- life of a socket ---- */

static struct host_sock *
sock_new(void)
{
    for (unsigned i = 1; i < HOST_MAX_SOCKS; i++) {
        struct host_sock *s = &host.socks[i];
        if (s->used)
            continue;
        free(s->rx);
        memset(s, 0, sizeof(*s));
        s->fd = eventfd(0, EFD_CLOEXEC);
        if (s->fd < 0 || s->fd >= MAX_FD)
            return NULL;
        s->used = true;
        s->lowat_bytes = 1;
        s->linger_s = -1;
        s->sndbuf_bytes = DEFAULT_SNDBUF;
        sock_by_fd[s->fd] = (uint16_t)i;
        return s;
    }
    return NULL;
}

static int
pd_socket(void *self, int domain, int type, int protocol)
{
    (void)self;
    if ((domain != AF_INET && domain != AF_INET6) || (type & 0xf) != SOCK_STREAM ||
        (protocol && protocol != IPPROTO_TCP))
        return fail(EPROTONOSUPPORT);
    pthread_mutex_lock(&host.lock);
    int err = host_start(&host);
    if (err)
        return done(err);
    struct host_sock *s = sock_new();
    if (!s)
        return done(-ENFILE);
    s->v6 = domain == AF_INET6;
    s->nonblock = type & SOCK_NONBLOCK;
    return done(s->fd);
}

static int
pd_bind(void *self, int fd, const struct sockaddr *sa, socklen_t len)
{
    (void)self;
    struct host_sock *s = enter(fd);
    if (!s)
        return done(-EBADF);
    if (s->bound)
        return done(-EINVAL);
    if (!get_addr(sa, len, &s->tuple.local, &s->tuple.local_port))
        return done(-EINVAL);
    int err = tcp_bind(host.domain, &s->tuple.local, s->tuple.local_port, &s->opts, user_of(s), &s->tuple.local_port);
    s->bound = !err;
    return done(err);
}

static int
pd_listen(void *self, int fd, int backlog)
{
    (void)self;
    struct host_sock *s = enter(fd);
    if (!s)
        return done(-EBADF);
    if (s->connected || s->connecting)
        return done(-EINVAL);
    struct tcp_env env = host_env(&host);
    if (s->listening) {
        tcp_set_backlog(host.domain, s->id, (uint32_t)backlog);
        return done(0);
    }
    int err = tcp_listen(host.domain, &env, &s->tuple.local, s->tuple.local_port, (uint32_t)backlog, &s->opts,
                         user_of(s), &s->id);
    s->listening = !err;
    return done(err);
}

static int
pd_accept(void *self, int fd, struct sockaddr *sa, socklen_t *len)
{
    (void)self;
    struct host_sock *s = enter(fd);
    if (!s)
        return done(-EBADF);
    if (!s->listening)
        return done(-EINVAL);
    uint64_t until_us = s->rcv_timeout_us ? host.now_us + s->rcv_timeout_us : 0;
    while (tcp_accept_count(host.domain, s->id) == 0) {
        if (s->nonblock || !wait_change(until_us))
            return done(-EAGAIN);
    }
    struct host_sock *c = sock_new();
    if (!c)
        return done(-ENFILE);
    struct tcp_env env = host_env(&host);
    c->v6 = s->v6;
    c->opts = s->opts;
    c->sndbuf_bytes = s->sndbuf_bytes;
    c->connected = true;
    tcp_id id = tcp_accept(host.domain, &env, s->id, user_of(c), &c->tuple);
    if (!c->gone)
        c->id = id;
    put_addr(c, &c->tuple.remote, c->tuple.remote_port, sa, len);
    return done(c->fd);
}

static int
wait_connected(struct host_sock *s)
{
    uint64_t until_us = s->snd_timeout_us ? host.now_us + s->snd_timeout_us : 0;
    while (s->connecting)
        if (!wait_change(until_us))
            return -EINPROGRESS;
    int err = s->error;
    s->error = 0;
    return s->connected ? 0 : -err;
}

static int
pd_connect(void *self, int fd, const struct sockaddr *sa, socklen_t len)
{
    (void)self;
    struct host_sock *s = enter(fd);
    if (!s)
        return done(-EBADF);
    struct tcp_env env = host_env(&host);
    if (sa && sa->sa_family == AF_UNSPEC) {
        if (s->id)
            tcp_abort(host.domain, &env, s->id);
        s->id = TCP_NO_ID;
        s->connected = s->connecting = s->fin = s->gone = s->listening = s->shut_write = false;
        s->error = 0;
        return done(0);
    }
    if (s->connecting)
        return done(-EALREADY);
    if (s->connected)
        return done(-EISCONN);
    if (!get_addr(sa, len, &s->tuple.remote, &s->tuple.remote_port))
        return done(-EAFNOSUPPORT);
    if (!s->bound) {
        const char *local = getenv(ip_addr_is_v4(&s->tuple.remote) ? "LOCAL_IPV4" : "LOCAL_IPV6");
        if (!local || ip_addr_parse(local, &s->tuple.local) < 0)
            return done(-EADDRNOTAVAIL);
    }
    s->connecting = true;
    s->gone = s->fin = false;
    int err =
        tcp_connect(host.domain, &env, &s->tuple, host_mss(&host, &s->tuple.remote), &s->opts, user_of(s), &s->id);
    if (err) {
        s->connecting = false;
        return done(err);
    }
    return done(s->nonblock ? -EINPROGRESS : wait_connected(s));
}

static int
pd_shutdown(void *self, int fd, int how)
{
    (void)self;
    struct host_sock *s = enter(fd);
    if (!s)
        return done(-EBADF);
    if (how < SHUT_RD || how > SHUT_RDWR)
        return done(-EINVAL);
    if (!s->connected && !s->listening)
        return done(-ENOTCONN);
    struct tcp_env env = host_env(&host);
    if (how != SHUT_WR)
        s->shut_read = true;
    if (how != SHUT_RD && !s->shut_write) {
        s->shut_write = true;
        if (s->id)
            tcp_shutdown(host.domain, &env, s->id);
    }
    pthread_cond_broadcast(&host.changed);
    return done(0);
}

static int
pd_close(void *self, int fd)
{
    (void)self;
    for (unsigned i = 0; i < EPOLL_SETS; i++) {
        if (epoll_sets[i].fd == fd && fd > 0) {
            memset(&epoll_sets[i], 0, sizeof(epoll_sets[i]));
            return (int)syscall(SYS_close, fd);
        }
    }
    struct host_sock *s = enter(fd);
    if (!s) {
        pthread_mutex_unlock(&host.lock);
        return (int)syscall(SYS_close, fd);
    }
    struct tcp_env env = host_env(&host);
    tcp_id id = s->id;
    s->user_closed = true;
    sock_by_fd[fd] = 0;
    syscall(SYS_close, s->fd);
    if (id && s->linger_s == 0) {
        tcp_abort(host.domain, &env, id);
        s->used = false;
    } else if (id) {
        tcp_close(host.domain, &env, id, s->rx_len > 0);
    } else {
        if (s->bound && !s->connected)
            tcp_unbind(host.domain, &s->tuple.local, s->tuple.local_port, user_of(s));
        s->used = false;
    }
    return done(0);
}

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
    if (s->listening || (!s->connected && !s->connecting && !s->error))
        return done(-ENOTCONN);
    if (flags & (MSG_OOB | MSG_ERRQUEUE))
        return done(flags & MSG_OOB ? -EINVAL : -EAGAIN);
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

static ssize_t
do_send(int fd, const struct iovec *iov, size_t n_iov, int flags)
{
    struct host_sock *s = enter(fd);
    if (!s) {
        pthread_mutex_unlock(&host.lock);
        return syscall(SYS_writev, fd, iov, n_iov);
    }
    size_t total = iov_total(iov, n_iov), sent = 0;
    for (size_t i = 0; i < n_iov; i++)
        if (iov[i].iov_len && !iov[i].iov_base)
            return done(-EFAULT);
    if (flags & MSG_OOB)
        return done(-EOPNOTSUPP);
    if (s->connecting && !s->nonblock && !(flags & MSG_DONTWAIT))
        wait_connected(s);
    uint64_t until_us = s->snd_timeout_us ? host.now_us + s->snd_timeout_us : 0;
    while (sent < total || total == 0) {
        if (s->error) {
            int err = s->error;
            s->error = 0;
            return done(sent ? (int)sent : -err);
        }
        if (s->gone || s->shut_write || !s->connected) {
            int err = s->connecting ? EAGAIN : s->connected || s->gone ? EPIPE : ENOTCONN;
            return done(sent ? (int)sent : -(s->shut_write ? EPIPE : err));
        }
        uint32_t room = s->sndbuf_bytes - (s->tx_written - s->tx_acked);
        if (s->tx_written - s->tx_acked < s->sndbuf_bytes && room > 0) {
            uint32_t n = total - sent < room ? (uint32_t)(total - sent) : room;
            struct tcp_env env = host_env(&host);
            s->tx_written += n;
            sent += n;
            tcp_send(host.domain, &env, s->id, n, flags & MSG_MORE);
            if (total == 0)
                break;
            continue;
        }
        if (s->nonblock || (flags & MSG_DONTWAIT) || !wait_change(until_us))
            return done(sent ? (int)sent : -EAGAIN);
    }
    return done((int)sent);
}

static ssize_t
pd_read(void *self, int fd, void *buf, size_t n)
{
    (void)self;
    return do_recv(fd, &(struct iovec){ buf, n }, 1, 0, NULL, NULL);
}

static ssize_t
pd_readv(void *self, int fd, const struct iovec *iov, int n)
{
    (void)self;
    return n < 0 || n > IOV_MAX ? fail(EINVAL) : do_recv(fd, iov, (size_t)n, 0, NULL, NULL);
}

static ssize_t
pd_recv(void *self, int fd, void *buf, size_t n, int flags)
{
    (void)self;
    return do_recv(fd, &(struct iovec){ buf, n }, 1, flags, NULL, NULL);
}

static ssize_t
pd_recvfrom(void *self, int fd, void *buf, size_t n, int flags, struct sockaddr *sa, socklen_t *len)
{
    (void)self;
    return do_recv(fd, &(struct iovec){ buf, n }, 1, flags, sa, len);
}

static ssize_t
pd_recvmsg(void *self, int fd, struct msghdr *msg, int flags)
{
    (void)self;
    msg->msg_flags = 0;
    msg->msg_controllen = 0;
    return do_recv(fd, msg->msg_iov, msg->msg_iovlen, flags, msg->msg_name, &msg->msg_namelen);
}

static ssize_t
pd_write(void *self, int fd, const void *buf, size_t n)
{
    (void)self;
    return do_send(fd, &(struct iovec){ (void *)(uintptr_t)buf, n }, 1, 0);
}

static ssize_t
pd_writev(void *self, int fd, const struct iovec *iov, int n)
{
    (void)self;
    return n < 0 || n > IOV_MAX ? fail(EINVAL) : do_send(fd, iov, (size_t)n, 0);
}

static ssize_t
pd_send(void *self, int fd, const void *buf, size_t n, int flags)
{
    (void)self;
    return do_send(fd, &(struct iovec){ (void *)(uintptr_t)buf, n }, 1, flags);
}

static ssize_t
pd_sendto(void *self, int fd, const void *buf, size_t n, int flags, const struct sockaddr *sa, socklen_t len)
{
    (void)self;
    (void)sa;
    (void)len;
    return flags & MSG_FASTOPEN ? fail(EOPNOTSUPP)
                                : do_send(fd, &(struct iovec){ (void *)(uintptr_t)buf, n }, 1, flags);
}

static ssize_t
pd_sendmsg(void *self, int fd, const struct msghdr *msg, int flags)
{
    (void)self;
    return flags & MSG_FASTOPEN ? fail(EOPNOTSUPP) : do_send(fd, msg->msg_iov, msg->msg_iovlen, flags);
}

/* ---- flags and options ---- */

static int
pd_fcntl(void *self, int fd, int cmd, ...)
{
    (void)self;
    va_list ap;
    va_start(ap, cmd);
    int arg = cmd == F_GETFL || cmd == F_GETFD ? 0 : va_arg(ap, int);
    va_end(ap);
    struct host_sock *s = enter(fd);
    if (!s) {
        pthread_mutex_unlock(&host.lock);
        return (int)syscall(SYS_fcntl, fd, cmd, arg);
    }
    if (cmd == F_GETFL)
        return done(O_RDWR | (s->nonblock ? O_NONBLOCK : 0));
    if (cmd != F_SETFL)
        return done(-EINVAL);
    s->nonblock = arg & O_NONBLOCK;
    return done(0);
}

static int
pd_ioctl(void *self, int fd, unsigned long request, ...)
{
    (void)self;
    va_list ap;
    va_start(ap, request);
    int *value = va_arg(ap, int *);
    va_end(ap);
    struct host_sock *s = enter(fd);
    if (!s)
        return done(-EBADF);
    if (s->listening)
        return done(-EINVAL);
    switch (request) {
    case SIOCINQ:
        *value = (int)s->rx_len;
        return done(0);
    case SIOCOUTQ:
        *value = (int)(s->tx_written - s->tx_acked);
        return done(0);
    default:
        return done(-EINVAL);
    }
}

/** Options that go to the engine as they are. */
static const struct {
    int level, name;
    enum tcp_option opt;
} engine_options[] = {
    { IPPROTO_TCP, TCP_NODELAY, TCP_OPT_NODELAY },
    { IPPROTO_TCP, TCP_CORK, TCP_OPT_CORK },
    { IPPROTO_TCP, TCP_QUICKACK, TCP_OPT_QUICKACK },
    { IPPROTO_TCP, TCP_MAXSEG, TCP_OPT_MAXSEG },
    { IPPROTO_TCP, TCP_KEEPIDLE, TCP_OPT_KEEPIDLE },
    { IPPROTO_TCP, TCP_KEEPINTVL, TCP_OPT_KEEPINTVL },
    { IPPROTO_TCP, TCP_KEEPCNT, TCP_OPT_KEEPCNT },
    { IPPROTO_TCP, TCP_SYNCNT, TCP_OPT_SYNCNT },
    { IPPROTO_TCP, TCP_USER_TIMEOUT, TCP_OPT_USER_TIMEOUT },
    { IPPROTO_TCP, TCP_LINGER2, TCP_OPT_LINGER2 },
    { IPPROTO_TCP, TCP_WINDOW_CLAMP, TCP_OPT_WINDOW_CLAMP },
    { IPPROTO_TCP, TCP_DEFER_ACCEPT, TCP_OPT_DEFER_ACCEPT },
    { SOL_SOCKET, SO_KEEPALIVE, TCP_OPT_KEEPALIVE },
    { SOL_SOCKET, SO_REUSEADDR, TCP_OPT_REUSEADDR },
    { SOL_SOCKET, SO_REUSEPORT, TCP_OPT_REUSEPORT },
    { SOL_SOCKET, SO_RCVBUF, TCP_OPT_RCVBUF },
    { SOL_SOCKET, SO_SNDBUF, TCP_OPT_SNDBUF },
    { IPPROTO_IP, IP_TOS, TCP_OPT_TOS },
};

static int
set_engine_value(struct host_sock *s, enum tcp_option opt, int value)
{
    struct tcp_env env = host_env(&host);
    if (s->id && !s->listening) {
        int err = tcp_set_option(host.domain, &env, s->id, opt, value);
        if (err)
            return err;
    }
    s->opts.set |= 1u << opt;
    s->opts.value[opt] = value;
    return 0;
}

static int
set_engine_option(struct host_sock *s, int level, int name, int value)
{
    for (size_t i = 0; i < sizeof(engine_options) / sizeof(engine_options[0]); i++) {
        if (engine_options[i].level != level || engine_options[i].name != name)
            continue;
        enum tcp_option opt = engine_options[i].opt;
        if (opt == TCP_OPT_SNDBUF || opt == TCP_OPT_RCVBUF)
            value *= 2; /* as Linux books them */
        if (opt == TCP_OPT_SNDBUF)
            s->sndbuf_bytes = (uint32_t)value;
        if (opt == TCP_OPT_RCVBUF)
            s->rcvbuf_bytes = (uint32_t)value;
        return set_engine_value(s, opt, value);
    }
    return -ENOPROTOOPT;
}

static int
pd_setsockopt(void *self, int fd, int level, int name, const void *value, socklen_t len)
{
    (void)self;
    struct host_sock *s = enter(fd);
    if (!s)
        return done(-EBADF);
    if (!value)
        return done(-EFAULT);
    if (level == SOL_SOCKET && name == SO_LINGER && len >= sizeof(struct linger)) {
        const struct linger *l = value;
        s->linger_s = l->l_onoff ? l->l_linger : -1;
        return done(0);
    }
    if (level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO) && len >= sizeof(struct timeval)) {
        const struct timeval *tv = value;
        *(name == SO_RCVTIMEO ? &s->rcv_timeout_us : &s->snd_timeout_us) =
            (uint64_t)tv->tv_sec * 1000000 + (uint64_t)tv->tv_usec;
        return done(0);
    }
    if (level == IPPROTO_TCP && name == TCP_CONGESTION) {
        char cc[16] = "";
        memcpy(cc, value, len < sizeof(cc) ? len : sizeof(cc) - 1);
        int number = tcp_congestion_find(cc);
        return done(number < 0 ? number : set_engine_value(s, TCP_OPT_CONGESTION, number));
    }
    if (len < sizeof(int))
        return done(-EINVAL);
    int v;
    memcpy(&v, value, sizeof(v));
    if (level == SOL_SOCKET && name == SO_RCVLOWAT) {
        s->lowat_bytes = v > 0 ? (uint32_t)v : 1;
        return done(0);
    }
    return done(set_engine_option(s, level, name, v));
}

static int
put_value(void *value, socklen_t *len, const void *from, socklen_t size)
{
    if (*len > size)
        *len = size;
    memcpy(value, from, *len);
    return 0;
}

static int
get_tcp_info(struct host_sock *s, void *value, socklen_t *len)
{
    struct tcp_conn_info ci;
    /* packetdrill wants the structure of the newest kernels: fields that this header does not know stay 0. */
    union {
        struct tcp_info info;
        uint8_t bytes[280];
    } answer = { .info.tcpi_state = TCP_ST_CLOSED };
    struct tcp_info ti = answer.info;
    if (s->id && tcp_info(host.domain, s->id, &ci)) {
        uint32_t mss = ci.snd_mss ? ci.snd_mss : 1;
        ti.tcpi_state = (uint8_t)ci.state;
        ti.tcpi_ca_state = ci.ca_state;
        ti.tcpi_retransmits = ci.retransmits;
        ti.tcpi_backoff = ci.backoff;
        ti.tcpi_options = (uint8_t)((ci.timestamps ? TCPI_OPT_TIMESTAMPS : 0) | (ci.sack ? TCPI_OPT_SACK : 0) |
                                    (ci.snd_wscale || ci.rcv_wscale ? TCPI_OPT_WSCALE : 0));
        ti.tcpi_snd_wscale = ci.snd_wscale & 0xf;
        ti.tcpi_rcv_wscale = ci.rcv_wscale & 0xf;
        ti.tcpi_rto = ci.rto_us;
        ti.tcpi_snd_mss = ci.snd_mss;
        ti.tcpi_rcv_mss = ci.rcv_mss;
        ti.tcpi_unacked = ci.unacked_segs;
        ti.tcpi_rtt = ci.srtt_us;
        ti.tcpi_rttvar = ci.rttvar_us;
        ti.tcpi_snd_ssthresh = ci.ssthresh_bytes == UINT32_MAX ? INT_MAX : ci.ssthresh_bytes / mss;
        ti.tcpi_snd_cwnd = ci.cwnd_bytes / mss;
        ti.tcpi_total_retrans = ci.retrans_segs_total;
        ti.tcpi_sacked = ci.sacked_segs;
        ti.tcpi_lost = ci.lost_segs;
        ti.tcpi_retrans = ci.retrans_segs;
        ti.tcpi_reordering = ci.reordering_segs;
    }
    answer.info = ti;
    return put_value(value, len, &answer, sizeof(answer));
}

static int
get_option(struct host_sock *s, int level, int name, void *value, socklen_t *len)
{
    if (level == IPPROTO_TCP && name == TCP_INFO)
        return get_tcp_info(s, value, len);
    if (level == IPPROTO_TCP && name == TCP_CC_INFO) {
        *len = 0;
        return 0;
    }
    if (level == IPPROTO_TCP && name == TCP_CONGESTION) {
        struct tcp_conn_info cc;
        const char *cc_name = s->id && tcp_info(host.domain, s->id, &cc) ? cc.cc_name : "cubic";
        return put_value(value, len, cc_name, (socklen_t)strlen(cc_name) + 1);
    }
    if (level == SOL_SOCKET && name == SO_MEMINFO) {
        uint32_t zero[9] = { 0 };
        return put_value(value, len, zero, sizeof(zero));
    }
    int v = 0;
    if (level == SOL_SOCKET && name == SO_ERROR) {
        v = s->error;
        s->error = 0;
        return put_value(value, len, &v, sizeof(v));
    }
    if (level == SOL_SOCKET && name == SO_SNDBUF)
        return put_value(value, len, &s->sndbuf_bytes, sizeof(v));
    struct tcp_conn_info ci;
    if (level == IPPROTO_TCP && name == TCP_MAXSEG && s->id && tcp_info(host.domain, s->id, &ci)) {
        v = (int)ci.snd_mss;
        return put_value(value, len, &v, sizeof(v));
    }
    for (size_t i = 0; i < sizeof(engine_options) / sizeof(engine_options[0]); i++) {
        if (engine_options[i].level == level && engine_options[i].name == name) {
            v = s->opts.value[engine_options[i].opt];
            return put_value(value, len, &v, sizeof(v));
        }
    }
    return -ENOPROTOOPT;
}

static int
pd_getsockopt(void *self, int fd, int level, int name, void *value, socklen_t *len)
{
    (void)self;
    struct host_sock *s = enter(fd);
    if (!s) {
        pthread_mutex_unlock(&host.lock);
        return (int)syscall(SYS_getsockopt, fd, level, name, value, len);
    }
    return done(!value || !len ? -EFAULT : get_option(s, level, name, value, len));
}

/* packetdrill's code blocks and its final clean-up call libc with our descriptors: preloaded, these take such calls. */
int
getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return host_up ? pd_getsockopt(NULL, fd, level, name, value, len)
                   : (int)syscall(SYS_getsockopt, fd, level, name, value, len);
}

int
close(int fd)
{
    return host_up ? pd_close(NULL, fd) : (int)syscall(SYS_close, fd);
}

/* ---- readiness ---- */

static uint32_t
readiness(const struct host_sock *s)
{
    uint32_t r = 0;
    if (s->listening)
        return tcp_accept_count(host.domain, s->id) ? POLLIN | POLLRDNORM : 0;
    if (s->error)
        r |= POLLERR;
    if (!s->connected && !s->connecting)
        return r | POLLOUT | POLLWRNORM | POLLHUP;
    bool eof = s->fin || s->shut_read;
    if (s->rx_len >= s->lowat_bytes || eof)
        r |= POLLIN | POLLRDNORM;
    if (eof)
        r |= POLLRDHUP;
    if ((eof && s->shut_write) || s->gone)
        r |= POLLHUP;
    if (s->connected && (s->tx_written - s->tx_acked < s->sndbuf_bytes / 3 * 2 || s->shut_write))
        r |= POLLOUT | POLLWRNORM;
    return r;
}

static int
pd_poll(void *self, struct pollfd *fds, nfds_t n, int timeout_ms)
{
    (void)self;
    pthread_mutex_lock(&host.lock);
    uint64_t until_us = host.now_us + (timeout_ms > 0 ? (uint64_t)timeout_ms * 1000 : 0);
    for (;;) {
        int ready = 0;
        for (nfds_t i = 0; i < n; i++) {
            bool ours = fds[i].fd >= 0 && fds[i].fd < MAX_FD && sock_by_fd[fds[i].fd];
            uint32_t r = ours ? readiness(&host.socks[sock_by_fd[fds[i].fd]]) : POLLNVAL;
            fds[i].revents = (short)(r & ((uint32_t)fds[i].events | POLLERR | POLLHUP | POLLNVAL));
            ready += fds[i].revents != 0;
        }
        if (ready || timeout_ms == 0 || !wait_change(timeout_ms < 0 ? 0 : until_us))
            return done(ready);
    }
}

static struct epoll_set *
epoll_find(int epfd)
{
    for (unsigned i = 0; i < EPOLL_SETS; i++)
        if (epoll_sets[i].fd == epfd && epfd > 0)
            return &epoll_sets[i];
    return NULL;
}

static int
pd_epoll_create(void *self, int size)
{
    (void)self;
    (void)size;
    for (unsigned i = 0; i < EPOLL_SETS; i++) {
        if (epoll_sets[i].fd)
            continue;
        epoll_sets[i].fd = eventfd(0, EFD_CLOEXEC);
        return epoll_sets[i].fd;
    }
    return fail(EMFILE);
}

static int
pd_epoll_ctl(void *self, int epfd, int op, int fd, struct epoll_event *event)
{
    (void)self;
    struct epoll_set *set = epoll_find(epfd);
    struct host_sock *s = enter(fd);
    if (!set || !s)
        return done(-EBADF);
    int free_at = -1, at = -1;
    for (int i = 0; i < EPOLL_ENTRIES; i++) {
        if (set->entry[i].fd == fd)
            at = i;
        else if (!set->entry[i].fd && free_at < 0)
            free_at = i;
    }
    if (op == EPOLL_CTL_ADD ? at >= 0 : at < 0)
        return done(op == EPOLL_CTL_ADD ? -EEXIST : -ENOENT);
    if (op == EPOLL_CTL_ADD)
        at = free_at;
    if (at < 0)
        return done(-ENOSPC);
    set->entry[at].fd = op == EPOLL_CTL_DEL ? 0 : fd;
    set->entry[at].spent = false;
    if (op != EPOLL_CTL_DEL)
        set->entry[at].ev = *event;
    s->edges |= 1;
    return done(0);
}

static int
epoll_collect(struct epoll_set *set, struct epoll_event *events, int max)
{
    int n = 0;
    for (int i = 0; i < EPOLL_ENTRIES && n < max; i++) {
        int fd = set->entry[i].fd;
        if (!fd || !sock_by_fd[fd] || set->entry[i].spent)
            continue;
        struct host_sock *s = &host.socks[sock_by_fd[fd]];
        uint32_t asked = set->entry[i].ev.events;
        uint32_t r = readiness(s) & (asked | EPOLLERR | EPOLLHUP);
        if (!r || ((asked & EPOLLET) && !s->edges))
            continue;
        s->edges = 0;
        set->entry[i].spent = asked & EPOLLONESHOT;
        events[n].events = r;
        events[n++].data = set->entry[i].ev.data;
    }
    return n;
}

static int
pd_epoll_wait(void *self, int epfd, struct epoll_event *events, int max, int timeout_ms)
{
    (void)self;
    struct epoll_set *set = epoll_find(epfd);
    if (!set)
        return fail(EBADF);
    pthread_mutex_lock(&host.lock);
    uint64_t until_us = host.now_us + (timeout_ms > 0 ? (uint64_t)timeout_ms * 1000 : 0);
    for (;;) {
        int n = epoll_collect(set, events, max);
        if (n || timeout_ms == 0 || !wait_change(timeout_ms < 0 ? 0 : until_us))
            return done(n);
    }
}

static int
pd_pipe(void *self, int fds[2])
{
    (void)self;
    return (int)syscall(SYS_pipe2, fds, 0);
}

static int
pd_splice(void *self, int fd_in, loff_t *off_in, int fd_out, loff_t *off_out, size_t n, unsigned flags)
{
    (void)self;
    (void)fd_in, (void)off_in, (void)fd_out, (void)off_out, (void)n, (void)flags;
    return fail(EOPNOTSUPP);
}

/* ---- the wire and the clock ---- */

static int
pd_netdev_send(void *self, const void *packet, size_t n_bytes)
{
    (void)self;
    pthread_mutex_lock(&host.lock);
    host_input(&host, packet, n_bytes);
    return done(0);
}

static int
pd_netdev_receive(void *self, void *packet, size_t *n_bytes, long long *at_us)
{
    (void)self;
    pthread_mutex_lock(&host.lock);
    uint64_t limit_us = host.now_us + RECEIVE_LIMIT_US;
    while (STAILQ_EMPTY(&host.wire)) {
        if (!host_advance_to_next(&host, limit_us)) {
            fprintf(stderr, "packetdrill adapter: the stack sends nothing any more\n");
            _exit(1);
        }
    }
    struct host_packet *p = STAILQ_FIRST(&host.wire);
    STAILQ_REMOVE_HEAD(&host.wire, link);
    *n_bytes = p->n_bytes < *n_bytes ? p->n_bytes : *n_bytes;
    *at_us = (long long)p->at_us;
    memcpy(packet, p->bytes, *n_bytes);
    free(p);
    return done(0);
}

static int
pd_usleep(void *self, useconds_t us)
{
    (void)self;
    pthread_mutex_lock(&host.lock);
    let_waiters_run();
    host_advance(&host, host.now_us + us);
    return done(0);
}

static int
pd_gettimeofday(void *self, struct timeval *tv, struct timezone *tz)
{
    (void)self;
    (void)tz;
    pthread_mutex_lock(&host.lock);
    host_advance(&host, host.now_us + 1); /* packetdrill spins on this call: time must move by itself */
    tv->tv_sec = (time_t)(host.now_us / 1000000);
    tv->tv_usec = (suseconds_t)(host.now_us % 1000000);
    return done(0);
}

static void
pd_free(void *self)
{
    (void)self;
    host_up = false;
    host_fini(&host);
    memset(sock_by_fd, 0, sizeof(sock_by_fd));
    memset(epoll_sets, 0, sizeof(epoll_sets));
}

__attribute__((visibility("default"))) void
packetdrill_interface_init(const char *flags, struct pd_interface *ifc)
{
    const char *mtu = flags ? strstr(flags, "mtu=") : NULL;
    host_init(&host, mtu ? (uint16_t)strtoul(mtu + 4, NULL, 10) : 1500);
    host_up = true;
    *ifc = (struct pd_interface){
        .free = pd_free,
        .socket = pd_socket,
        .bind = pd_bind,
        .listen = pd_listen,
        .accept = pd_accept,
        .connect = pd_connect,
        .read = pd_read,
        .readv = pd_readv,
        .recv = pd_recv,
        .recvfrom = pd_recvfrom,
        .recvmsg = pd_recvmsg,
        .write = pd_write,
        .writev = pd_writev,
        .send = pd_send,
        .sendto = pd_sendto,
        .sendmsg = pd_sendmsg,
        .fcntl = pd_fcntl,
        .ioctl = pd_ioctl,
        .close = pd_close,
        .shutdown = pd_shutdown,
        .getsockopt = pd_getsockopt,
        .setsockopt = pd_setsockopt,
        .poll = pd_poll,
        .netdev_send = pd_netdev_send,
        .netdev_receive = pd_netdev_receive,
        .usleep = pd_usleep,
        .gettimeofday = pd_gettimeofday,
        .epoll_create = pd_epoll_create,
        .epoll_ctl = pd_epoll_ctl,
        .epoll_wait = pd_epoll_wait,
        .pipe = pd_pipe,
        .splice = pd_splice,
    };
}
