/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef PACKETDRILL_ADAPTER_H
#define PACKETDRILL_ADAPTER_H

#include "host.h"
#include "interface.h"

/**
 * @file
 * What the files of the adapter share: one host, its lock, and the numbers of its sockets. A call takes the lock by `enter` and leaves by
 * `done`; one that must wait sleeps on a condition variable, since packetdrill looks at its thread's state and wants to see it
 * asleep.
 */

#define MAX_FD 1024
#define EPOLL_SETS 8

extern struct host host;
extern bool host_up; /**< between packetdrill's init and free */
extern uint16_t sock_by_fd[MAX_FD]; /**< 0 = not ours */

/** Set errno and return -1. */
int fail(int err);

/** Unlock; a negative value becomes errno and -1. */
int done(int ret);

/** Lock; the socket of this number, or NULL (the lock is held then too). */
struct host_sock *enter(int fd);

tcp_user user_of(const struct host_sock *s);

/** Wait until something changes; false when the time limit (0 = none) has passed. Called with the lock held. */
bool wait_change(uint64_t until_us);

bool get_addr(const struct sockaddr *sa, socklen_t len, struct ip_addr *addr, uint16_t *port);
void put_addr(const struct host_sock *s, const struct ip_addr *addr, uint16_t port, struct sockaddr *sa,
              socklen_t *len);

/** Choose the address to connect from, if the socket is not bound. Returns 0 or -errno. */
int choose_local(struct host_sock *s);

/** Wait for the end of a handshake; returns 0 or -errno. */
int wait_connected(struct host_sock *s);

/** The script's sysctls may have changed since: take them over. */
void reload_sysctls(void);

/** The send buffer has so much room that it is worth waking a writer: as in Linux, a third. */
bool is_writable(const struct host_sock *s);

/** MSG_ZEROCOPY calls whose completion waits in the error queue. */
bool has_completions(const struct host_sock *s);

/* ---- epoll sets, by their number ---- */
bool epoll_close(int fd);
void epoll_reset(void);

/* ---- the table's members ---- */
int pd_close(void *self, int fd);
ssize_t pd_read(void *self, int fd, void *buf, size_t n);
ssize_t pd_readv(void *self, int fd, const struct iovec *iov, int n);
ssize_t pd_recv(void *self, int fd, void *buf, size_t n, int flags);
ssize_t pd_recvfrom(void *self, int fd, void *buf, size_t n, int flags, struct sockaddr *sa, socklen_t *len);
ssize_t pd_recvmsg(void *self, int fd, struct msghdr *msg, int flags);
ssize_t pd_write(void *self, int fd, const void *buf, size_t n);
ssize_t pd_writev(void *self, int fd, const struct iovec *iov, int n);
ssize_t pd_send(void *self, int fd, const void *buf, size_t n, int flags);
ssize_t pd_sendto(void *self, int fd, const void *buf, size_t n, int flags, const struct sockaddr *sa, socklen_t len);
ssize_t pd_sendmsg(void *self, int fd, const struct msghdr *msg, int flags);
int pd_splice(void *self, int fd_in, loff_t *off_in, int fd_out, loff_t *off_out, size_t n, unsigned flags);
int pd_fcntl(void *self, int fd, int cmd, ...);
int pd_ioctl(void *self, int fd, unsigned long request, ...);
int pd_getsockopt(void *self, int fd, int level, int name, void *value, socklen_t *len);
int pd_setsockopt(void *self, int fd, int level, int name, const void *value, socklen_t len);
int pd_poll(void *self, struct pollfd *fds, nfds_t n, int timeout_ms);
int pd_epoll_create(void *self, int size);
int pd_epoll_ctl(void *self, int epfd, int op, int fd, struct epoll_event *event);
int pd_epoll_wait(void *self, int epfd, struct epoll_event *events, int max, int timeout_ms);

#endif /* PACKETDRILL_ADAPTER_H */
