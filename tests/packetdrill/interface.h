/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef PACKETDRILL_INTERFACE_H
#define PACKETDRILL_INTERFACE_H

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>

/**
 * @file
 * The table of calls through which packetdrill drives a stack in a shared object (its --so_filename option): the order of the members is
 * the interface. Every call returns -1 and sets errno on error; `self` is the first member's value. See README.md in this folder.
 */
struct pd_interface {
    void *self;
    void (*free)(void *self);
    int (*socket)(void *self, int domain, int type, int protocol);
    int (*bind)(void *self, int fd, const struct sockaddr *sa, socklen_t len);
    int (*listen)(void *self, int fd, int backlog);
    int (*accept)(void *self, int fd, struct sockaddr *sa, socklen_t *len);
    int (*connect)(void *self, int fd, const struct sockaddr *sa, socklen_t len);
    ssize_t (*read)(void *self, int fd, void *buf, size_t n);
    ssize_t (*readv)(void *self, int fd, const struct iovec *iov, int n);
    ssize_t (*recv)(void *self, int fd, void *buf, size_t n, int flags);
    ssize_t (*recvfrom)(void *self, int fd, void *buf, size_t n, int flags, struct sockaddr *sa, socklen_t *len);
    ssize_t (*recvmsg)(void *self, int fd, struct msghdr *msg, int flags);
    ssize_t (*write)(void *self, int fd, const void *buf, size_t n);
    ssize_t (*writev)(void *self, int fd, const struct iovec *iov, int n);
    ssize_t (*send)(void *self, int fd, const void *buf, size_t n, int flags);
    ssize_t (*sendto)(void *self, int fd, const void *buf, size_t n, int flags, const struct sockaddr *sa,
                      socklen_t len);
    ssize_t (*sendmsg)(void *self, int fd, const struct msghdr *msg, int flags);
    int (*fcntl)(void *self, int fd, int cmd, ...);
    int (*ioctl)(void *self, int fd, unsigned long request, ...);
    int (*close)(void *self, int fd);
    int (*shutdown)(void *self, int fd, int how);
    int (*getsockopt)(void *self, int fd, int level, int name, void *value, socklen_t *len);
    int (*setsockopt)(void *self, int fd, int level, int name, const void *value, socklen_t len);
    int (*poll)(void *self, struct pollfd *fds, nfds_t n, int timeout_ms);
    int (*netdev_send)(void *self, const void *packet, size_t n_bytes); /**< wire -> stack */
    int (*netdev_receive)(void *self, void *packet, size_t *n_bytes, long long *at_us); /**< stack -> wire */
    int (*usleep)(void *self, useconds_t us);
    int (*gettimeofday)(void *self, struct timeval *tv, struct timezone *tz);
    int (*epoll_create)(void *self, int size);
    int (*epoll_ctl)(void *self, int epfd, int op, int fd, struct epoll_event *event);
    int (*epoll_wait)(void *self, int epfd, struct epoll_event *events, int max, int timeout_ms);
    int (*pipe)(void *self, int fds[2]);
    int (*splice)(void *self, int fd_in, loff_t *off_in, int fd_out, loff_t *off_out, size_t n, unsigned flags);
};

#endif /* PACKETDRILL_INTERFACE_H */
