/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_POLLSET_H
#define SOCKETS_CLIENT_POLLSET_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/select.h>

/**
 * @file
 * poll and select over descriptors of the kernel and of the stack. Each sleeping thread uses an event queue of this process.
 */

/** deadline_us: wait_now_us's clock, 0 = do not wait, WAIT_FOREVER. Returns how many are ready (0 = the deadline has passed), or -errno. */
int poll_wait(struct pollfd *fds, nfds_t n, uint64_t deadline_us, const sigset_t *mask);

/** Those that wait for a stack to be started (promise.h) have one after this. False with errno set if not. */
bool poll_settle(const struct pollfd *fds, nfds_t n);

/** Is any of these more than the kernel's? If not, the kernel's poll does. */
bool poll_is_mixed(const struct pollfd *fds, nfds_t n);

/** One descriptor. Returns 0, -EAGAIN (the deadline has passed), -EINTR. */
int poll_wait_fd(int fd, short events, uint64_t deadline_us);

/**
 * Sleep until ready(slot) holds, with no timeout, in a read() of the event queue's pipe: so a signal handler that was installed with SA_RESTART does
 * not end the wait, as for a kernel socket, and the death of the stack does (the pipe's end). A futex offers only one of the two. Returns 0,
 * -EINTR, -ENETDOWN, or -ENOSYS if there is no event queue left.
 */
int poll_block(uint32_t slot, bool write, bool (*ready)(uint32_t slot));

/** select by poll_wait; -1 in place of a result if no descriptor of the sets is more than the kernel's. Sets may be NULL. */
int poll_select(int n, fd_set *rd, fd_set *wr, fd_set *ex, uint64_t deadline_us, const sigset_t *mask, bool *mixed);

/** In a forked child: the queues are the parent's. */
void poll_forked(void);

#endif /* SOCKETS_CLIENT_POLLSET_H */
