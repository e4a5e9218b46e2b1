/* SPDX-License-Identifier: BSD-3-Clause */
#include "isosock.h"

#include <errno.h>
#include <limits.h>

#include "api.h"
#include "epoll.h"
#include "libc.h"
#include "pollset.h"

static uint64_t
us_of_ms(int timeout_ms)
{
    return timeout_ms < 0 ? WAIT_FOREVER : (uint64_t)timeout_ms * 1000u;
}

/* False if the time is none. */
static bool
us_of(int64_t sec, int64_t nsec, uint64_t *out)
{
    if (sec < 0 || nsec < 0 || nsec >= 1000000000)
        return false;
    if (sec > INT32_MAX)
        sec = INT32_MAX;
    *out = (uint64_t)sec * 1000000u + ((uint64_t)nsec + 999u) / 1000u;
    return true;
}

static uint64_t
deadline_ms(int timeout_ms)
{
    return timeout_ms <= 0 ? us_of_ms(timeout_ms) : wait_now_us() + us_of_ms(timeout_ms);
}

/* False if the time is none. */
static bool
deadline_of(int64_t sec, int64_t nsec, uint64_t *out)
{
    uint64_t us;

    if (!us_of(sec, nsec, &us))
        return false;
    *out = us == 0 ? 0 : wait_now_us() + us;
    return true;
}

static int
result(int rc)
{
    if (rc >= 0)
        return rc;
    errno = -rc;
    return -1;
}

int
iso_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    if (!poll_settle(fds, n))
        return -1;
    if (!poll_is_mixed(fds, n))
        return libc()->poll(fds, n, timeout_ms);
    return result(poll_wait(fds, n, deadline_ms(timeout_ms), NULL));
}

int
iso_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    uint64_t deadline_us = WAIT_FOREVER;

    if (!poll_settle(fds, n))
        return -1;
    if (!poll_is_mixed(fds, n))
        return libc()->ppoll(fds, n, timeout, mask);
    if (timeout != NULL && !deadline_of(timeout->tv_sec, timeout->tv_nsec, &deadline_us))
        return result(-EINVAL);
    return result(poll_wait(fds, n, deadline_us, mask));
}

int
iso_select(int n, fd_set *rd, fd_set *wr, fd_set *ex, struct timeval *timeout)
{
    uint64_t deadline_us = WAIT_FOREVER, now;
    bool mixed;
    int rc;

    if (timeout != NULL && !deadline_of(timeout->tv_sec, (int64_t)timeout->tv_usec * 1000, &deadline_us))
        return libc()->select(n, rd, wr, ex, timeout); /* it knows what to say to such a time */
    rc = poll_select(n, rd, wr, ex, deadline_us, NULL, &mixed);
    if (!mixed)
        return rc < 0 ? result(rc) : libc()->select(n, rd, wr, ex, timeout);
    if (timeout != NULL && deadline_us != 0) { /* Linux tells what is left */
        now = wait_now_us();
        timeout->tv_sec = now < deadline_us ? (time_t)((deadline_us - now) / 1000000u) : 0;
        timeout->tv_usec = now < deadline_us ? (suseconds_t)((deadline_us - now) % 1000000u) : 0;
    }
    return result(rc);
}

int
iso_pselect(int n, fd_set *rd, fd_set *wr, fd_set *ex, const struct timespec *timeout, const sigset_t *mask)
{
    uint64_t deadline_us = WAIT_FOREVER;
    bool mixed;
    int rc;

    if (timeout != NULL && !deadline_of(timeout->tv_sec, timeout->tv_nsec, &deadline_us))
        return libc()->pselect(n, rd, wr, ex, timeout, mask);
    rc = poll_select(n, rd, wr, ex, deadline_us, mask, &mixed);
    if (!mixed && rc >= 0)
        return libc()->pselect(n, rd, wr, ex, timeout, mask);
    return result(rc);
}

/* ---- epoll -------------------------------------------------------------------------------------------------------------- */

int
iso_epoll_create1(int flags)
{
    int fd = libc()->epoll_create1(flags);

    return fd < 0 ? fd : epoll_track(fd);
}

int
iso_epoll_create(int size)
{
    return size > 0 ? iso_epoll_create1(0) : result(-EINVAL);
}

int
iso_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
    struct obj *set = fd_get_kind(epfd, OBJ_EPOLL);

    return set == NULL ? libc()->epoll_ctl(epfd, op, fd, ev) : api_put(set, epoll_control(set, epfd, op, fd, ev));
}

/* What is left of a time from begin_us on. */
static uint64_t
rest_of(uint64_t timeout_us, uint64_t begin_us)
{
    uint64_t past_us = timeout_us == WAIT_FOREVER ? 0 : wait_now_us() - begin_us;

    return timeout_us > past_us ? timeout_us - past_us : 0;
}

static inline int
negative_errno(int rc)
{
    return rc < 0 ? -errno : rc;
}

static int
ms_of(uint64_t us)
{
    if (us == WAIT_FOREVER)
        return -1;
    return us > (uint64_t)INT_MAX * 1000u ? INT_MAX : (int)((us + 999u) / 1000u);
}

/* A wait on a set: the kernel's alone while it holds no socket of the stack's. exact: the timeout as the program gave it, NULL = in milliseconds. */
static int
wait_on(struct obj *set, int epfd, struct epoll_event *ev, int max, uint64_t timeout_us, const struct timespec *exact,
        const sigset_t *mask)
{
    uint64_t begin_us = 0, left_us = timeout_us;
    int n;

    while (epoll_kernel_wait_begin(set)) {
        if (begin_us == 0 && timeout_us != 0 && timeout_us != WAIT_FOREVER)
            begin_us = wait_now_us();
        n = negative_errno(exact != NULL && left_us == timeout_us
                               ? libc()->epoll_pwait2(epfd, ev, max, exact, mask)
                               : libc()->epoll_pwait(epfd, ev, max, ms_of(left_us), mask));
        n = epoll_kernel_wait_end(set, epfd, ev, n);
        if (n != -EAGAIN)
            return n;
        left_us = rest_of(timeout_us, begin_us);
    }
    return epoll_wait_for(set, epfd, ev, max, left_us, mask);
}

int
iso_epoll_pwait(int epfd, struct epoll_event *ev, int max, int timeout_ms, const sigset_t *mask)
{
    struct obj *set = fd_get_kind(epfd, OBJ_EPOLL);

    return set == NULL ? libc()->epoll_pwait(epfd, ev, max, timeout_ms, mask)
                       : api_put(set, wait_on(set, epfd, ev, max, us_of_ms(timeout_ms), NULL, mask));
}

int
iso_epoll_wait(int epfd, struct epoll_event *ev, int max, int timeout_ms)
{
    return iso_epoll_pwait(epfd, ev, max, timeout_ms, NULL);
}

int
iso_epoll_pwait2(int epfd, struct epoll_event *ev, int max, const struct timespec *timeout, const sigset_t *mask)
{
    struct obj *set = fd_get_kind(epfd, OBJ_EPOLL);
    uint64_t timeout_us = WAIT_FOREVER;

    if (set == NULL)
        return libc()->epoll_pwait2(epfd, ev, max, timeout, mask);
    if (timeout != NULL && !us_of(timeout->tv_sec, timeout->tv_nsec, &timeout_us))
        return api_put(set, -EINVAL);
    return api_put(set, wait_on(set, epfd, ev, max, timeout_us, timeout, mask));
}
