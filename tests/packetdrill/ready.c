/* SPDX-License-Identifier: BSD-3-Clause */
/* poll and epoll. */
#include "adapter.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EPOLL_ENTRIES 16

struct epoll_set {
    int fd; /* 0 = unused */
    struct {
        int fd; /* 0 = unused */
        struct epoll_event ev;
        bool spent; /* EPOLLONESHOT has fired */
    } entry[EPOLL_ENTRIES];
};

static struct epoll_set epoll_sets[EPOLL_SETS];

/* ---- readiness ---- */

static uint32_t
readiness(const struct host_sock *s)
{
    uint32_t r = 0;
    if (s->listening)
        return tcp_accept_count(host.domain, s->id) ? POLLIN | POLLRDNORM : 0;
    if (s->error || has_completions(s))
        r |= POLLERR;
    if (s->deferred)
        return r | POLLOUT | POLLWRNORM; /* the write that brings the SYN */
    if (!s->connected && !s->connecting)
        return r | POLLOUT | POLLWRNORM | POLLHUP | (s->fin ? POLLIN | POLLRDNORM | POLLRDHUP : 0);
    bool eof = s->fin || s->shut_read;
    if (s->rx_len >= s->lowat_bytes || eof)
        r |= POLLIN | POLLRDNORM;
    if (eof)
        r |= POLLRDHUP;
    if ((eof && s->shut_write) || s->gone)
        r |= POLLHUP;
    if (s->connected && (is_writable(s) || s->shut_write))
        r |= POLLOUT | POLLWRNORM;
    return r;
}

/** A descriptor of the kernel's (a pipe, a file), or none at all. */
static uint32_t
readiness_elsewhere(int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };

    return fd >= 0 && poll(&p, 1, 0) == 1 ? (uint32_t)p.revents : 0;
}

int
pd_poll(void *self, struct pollfd *fds, nfds_t n, int timeout_ms)
{
    (void)self;
    pthread_mutex_lock(&host.lock);
    uint64_t until_us = host.now_us + (timeout_ms > 0 ? (uint64_t)timeout_ms * 1000 : 0);
    for (;;) {
        int ready = 0;
        for (nfds_t i = 0; i < n; i++) {
            bool ours = fds[i].fd >= 0 && fds[i].fd < MAX_FD && sock_by_fd[fds[i].fd];
            uint32_t r =
                ours ? readiness(&host.socks[sock_by_fd[fds[i].fd]]) : readiness_elsewhere(fds[i].fd, fds[i].events);
            fds[i].revents = (short)(r & ((uint32_t)fds[i].events | POLLERR | POLLHUP | POLLNVAL));
            ready += fds[i].revents != 0;
        }
        if (ready || timeout_ms == 0 || !wait_change(timeout_ms < 0 ? 0 : until_us))
            return done(ready);
    }
}

bool
epoll_close(int fd)
{
    for (unsigned i = 0; i < EPOLL_SETS; i++) {
        if (epoll_sets[i].fd == fd && fd > 0) {
            memset(&epoll_sets[i], 0, sizeof(epoll_sets[i]));
            return true;
        }
    }
    return false;
}

void
epoll_reset(void)
{
    memset(epoll_sets, 0, sizeof(epoll_sets));
}

static struct epoll_set *
epoll_find(int epfd)
{
    for (unsigned i = 0; i < EPOLL_SETS; i++)
        if (epoll_sets[i].fd == epfd && epfd > 0)
            return &epoll_sets[i];
    return NULL;
}

int
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

int
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
        /* Room in the send buffer is news only to one who found it full. */
        if ((r & EPOLLOUT) && s->no_space) {
            s->no_space = false;
            s->edges |= 1;
        }
        if (!r || ((asked & EPOLLET) && !s->edges))
            continue;
        s->edges = 0;
        set->entry[i].spent = asked & EPOLLONESHOT;
        events[n].events = r;
        events[n++].data = set->entry[i].ev.data;
    }
    return n;
}

int
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
