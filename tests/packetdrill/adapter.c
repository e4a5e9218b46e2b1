/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The stack behind packetdrill's shared-object interface: sockets over host.h's virtual host. This file has their life, the wire and the
 * clock.
 */
#include "adapter.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void packetdrill_interface_init(const char *flags, struct pd_interface *ifc);

#define RECEIVE_LIMIT_US (200ull * 1000000)

/** Real seconds in which a woken call must have come to rest; packetdrill itself gives up after one. */
#define SETTLE_LIMIT_S 2

struct host host;
bool host_up;
uint16_t sock_by_fd[MAX_FD];

int
fail(int err)
{
    errno = err;
    return -1;
}

int
done(int ret)
{
    pthread_mutex_unlock(&host.lock);
    return ret < 0 ? fail(-ret) : ret;
}

struct host_sock *
enter(int fd)
{
    pthread_mutex_lock(&host.lock);
    return fd >= 0 && fd < MAX_FD && sock_by_fd[fd] ? &host.socks[sock_by_fd[fd]] : NULL;
}

tcp_user
user_of(const struct host_sock *s)
{
    return (tcp_user)(s - host.socks);
}

/** The script can come to no end: say why, and keep what packetdrill has said. */
_Noreturn static void
give_up(const char *why)
{
    fprintf(stderr, "packetdrill adapter: %s\n", why);
    fflush(NULL);
    _exit(1);
}

static __thread bool is_running; /**< counted in host.running */

static pthread_t clock_thread; /**< packetdrill's main thread: it alone moves the clock and brings packets */

/** The call that this thread was woken in sleeps again, or is over and asks for the time. */
static void
settle(void)
{
    if (!is_running)
        return;
    is_running = false;
    host.running--;
    pthread_cond_broadcast(&host.settled);
}

bool
wait_change(uint64_t until_us)
{
    if (until_us && host.now_us >= until_us)
        return false;
    if (pthread_equal(pthread_self(), clock_thread))
        give_up("a call waits for what comes later, and the script does not say that it may");
    settle();
    host.waiters++;
    pthread_cond_wait(&host.changed, &host.lock);
    host.waiters--;
    host.woken -= host.woken > 0;
    host.running++;
    is_running = true;
    return true;
}

/** Before the clock moves: a call that was woken takes its end's time from it, so let it come to its end or back to sleep. */
static void
let_waiters_run(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += SETTLE_LIMIT_S;
    host.woken = host.waiters;
    pthread_cond_broadcast(&host.changed);
    while (host.woken + host.running > 0)
        if (pthread_cond_timedwait(&host.settled, &host.lock, &until) != 0)
            break;
}

/* ---- addresses ---- */

bool
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

void
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
        s->sndbuf_bytes = host.wmem_bytes;
        s->opts = host.opts;
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
    reload_sysctls();
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
    reload_sysctls();
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

/** Connections that nobody has yet: one that has ended tells of itself only here. */
static unsigned
list_waiting(struct tcp_conn_info *infos, unsigned max)
{
    uint64_t cursor = 0;
    unsigned n = 0;
    while (n < max && tcp_walk(host.domain, &cursor, &infos[n], 1) == 1)
        n += infos[n].user == 0;
    return n;
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
    c->opts.nb_md5 = 0;
    c->sndbuf_bytes = s->sndbuf_bytes;
    c->zerocopy = s->zerocopy;
    c->notsent_lowat_bytes = s->notsent_lowat_bytes;
    c->lowat_bytes = s->lowat_bytes;
    c->connected = true;
    static struct tcp_conn_info waiting[64];
    unsigned n_waiting = list_waiting(waiting, 64);
    tcp_id id = tcp_accept(host.domain, &env, s->id, user_of(c), &c->tuple);
    for (unsigned i = 0; i < n_waiting; i++)
        if (!memcmp(&waiting[i].tuple, &c->tuple, sizeof(c->tuple)))
            c->info = waiting[i];
    if (!c->gone)
        c->id = id;
    if (c->id &&
        (host.opts.set & 1u << TCP_OPT_QUICKACK)) /* a mood of the connection's, which no listener hands down */
        tcp_set_option(host.domain, &env, c->id, TCP_OPT_QUICKACK, host.opts.value[TCP_OPT_QUICKACK]);
    put_addr(c, &c->tuple.remote, c->tuple.remote_port, sa, len);
    return done(c->fd);
}

int
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

int
choose_local(struct host_sock *s)
{
    if (s->bound)
        return 0;
    const char *local = getenv(ip_addr_is_v4(&s->tuple.remote) ? "LOCAL_IPV4" : "LOCAL_IPV6");
    s->tuple.local_port = 0;
    return local && ip_addr_parse(local, &s->tuple.local) == 0 ? 0 : -EADDRNOTAVAIL;
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
        s->connected = s->connecting = s->fin = s->gone = s->listening = s->shut_write = s->deferred = false;
        s->error = 0;
        return done(0);
    }
    if (s->connecting)
        return done(-EALREADY);
    if (s->connected && s->unsettled) {
        s->unsettled = false;
        return done(0);
    }
    if (s->connected || s->deferred)
        return done(-EISCONN);
    if (!get_addr(sa, len, &s->tuple.remote, &s->tuple.remote_port))
        return done(-EAFNOSUPPORT);
    int err = choose_local(s);
    if (err)
        return done(err);
    s->gone = s->fin = false;
    reload_sysctls();
    /* TCP_FASTOPEN_CONNECT: with a cookie at hand the SYN waits for the first write. */
    s->deferred = s->fastopen_connect && tcp_fastopen_ready(host.domain, &env, &s->tuple, &s->opts);
    if (s->deferred)
        return done(0);
    s->connecting = true;
    uint16_t mss = host_mss(&host, &s->tuple.remote);
    uint32_t taken;
    err = s->fastopen_connect
              ? tcp_connect_fast(host.domain, &env, &s->tuple, mss, &s->opts, user_of(s), 0, &taken, &s->id)
              : tcp_connect(host.domain, &env, &s->tuple, mss, &s->opts, user_of(s), &s->id);
    if (err) {
        s->connecting = false;
        return done(err);
    }
    s->unsettled = s->nonblock;
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

int
pd_close(void *self, int fd)
{
    (void)self;
    if (epoll_close(fd))
        return (int)syscall(SYS_close, fd);
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

/* ---- what the scripts set ---- */

void
reload_sysctls(void)
{
    if (host.started)
        host_reload(&host);
}

static int
pd_pipe(void *self, int fds[2])
{
    (void)self;
    return (int)syscall(SYS_pipe2, fds, 0);
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
    if (STAILQ_EMPTY(&host.wire))
        let_waiters_run(); /* one of them may be about to send */
    uint64_t limit_us = host.now_us + RECEIVE_LIMIT_US;
    while (STAILQ_EMPTY(&host.wire))
        if (!host_advance_to_next(&host, limit_us))
            give_up("the stack sends nothing any more");
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
    settle();
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
    epoll_reset();
}

__attribute__((visibility("default"))) void
packetdrill_interface_init(const char *flags, struct pd_interface *ifc)
{
    const char *mtu = flags ? strstr(flags, "mtu=") : NULL;
    host_init(&host, mtu ? (uint16_t)strtoul(mtu + 4, NULL, 10) : 1500);
    host_up = true;
    clock_thread = pthread_self();
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
