/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef PEERS_FSTACK_H
#define PEERS_FSTACK_H

/**
 * @file
 * POSIX's names, as isobench uses them, mapped to F-Stack: included before isobench's own sources of client and server. One thread, sockets over IPv4, level-triggered events. What
 * each function does and returns is what POSIX and Linux say of its namesake.
 */

#include <pthread.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

int fstack_socket(int domain, int type, int protocol);
int fstack_connect(int fd, const struct sockaddr *addr, socklen_t addr_len);
int fstack_bind(int fd, const struct sockaddr *addr, socklen_t addr_len);
int fstack_accept4(int fd, struct sockaddr *addr, socklen_t *addr_len, int flags);
ssize_t fstack_send(int fd, const void *buf, size_t n, int flags);
ssize_t fstack_recv(int fd, void *buf, size_t n, int flags);
int fstack_close(int fd);

int fstack_epoll_create1(int flags);
int fstack_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int fstack_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms);

/** The one thread runs where F-Stack's loop calls. */
int fstack_thread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *arg), void *arg);
int fstack_thread_join(pthread_t thread, void **result);

/* F-Stack's own, whose arguments are alike. */
int ff_listen(int fd, int backlog);
int ff_shutdown(int fd, int how);
int ff_getsockopt(int fd, int level, int option, void *value, socklen_t *len);
int ff_setsockopt(int fd, int level, int option, const void *value, socklen_t len);

#ifndef PEERS_FSTACK_UNMAPPED
#define socket fstack_socket
#define connect fstack_connect
#define bind fstack_bind
#define accept4 fstack_accept4
#define send fstack_send
#define recv fstack_recv
#define close fstack_close
#define epoll_create1 fstack_epoll_create1
#define epoll_ctl fstack_epoll_ctl
#define epoll_wait fstack_epoll_wait
#define pthread_create fstack_thread_create
#define pthread_join fstack_thread_join
#define listen ff_listen
#define shutdown ff_shutdown
#define getsockopt ff_getsockopt
#define setsockopt ff_setsockopt
#endif

#endif /* PEERS_FSTACK_H */
