/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOSOCK_POSIX_H
#define ISOSOCK_POSIX_H

/*
 * Where it comes first, by -include, the source has not yet said _GNU_SOURCE, and it would be too late once the headers have been read: so they
 * are read with it. What the source says itself is then no second definition.
 */
#if !defined(_GNU_SOURCE)
#define ISOSOCK_GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../isosock.h"

#if defined(ISOSOCK_GNU_SOURCE)
#undef ISOSOCK_GNU_SOURCE
#undef _GNU_SOURCE
#endif

/**
 * @file
 * POSIX's names for the iso_* calls, so that one source builds plain, preloaded and against libisosock: include this first, or say
 * `-include isosock/posix.h` to the compiler. The names are replaced wherever they stand, also those of members and variables; within one
 * program that is consistent, as long as the headers that declare them come after this one.
 */

#define socket iso_socket
#define bind iso_bind
#define listen iso_listen
#define accept iso_accept
#define accept4 iso_accept4
#define connect iso_connect
#define shutdown iso_shutdown
#define getsockname iso_getsockname
#define getpeername iso_getpeername
#define getsockopt iso_getsockopt
#define setsockopt iso_setsockopt

#define read iso_read
#define readv iso_readv
#define recv iso_recv
#define recvfrom iso_recvfrom
#define recvmsg iso_recvmsg
#define recvmmsg iso_recvmmsg
#define write iso_write
#define writev iso_writev
#define send iso_send
#define sendto iso_sendto
#define sendmsg iso_sendmsg
#define sendmmsg iso_sendmmsg
#define sendfile iso_sendfile
#define splice iso_splice

#define close iso_close
#define close_range iso_close_range
#define dup iso_dup
#define dup2 iso_dup2
#define dup3 iso_dup3
#define fcntl iso_fcntl
#define ioctl iso_ioctl

#define poll iso_poll
#define ppoll iso_ppoll
#define select iso_select
#define pselect iso_pselect
#define epoll_create iso_epoll_create
#define epoll_create1 iso_epoll_create1
#define epoll_ctl iso_epoll_ctl
#define epoll_wait iso_epoll_wait
#define epoll_pwait iso_epoll_pwait
#define epoll_pwait2 iso_epoll_pwait2

#endif /* ISOSOCK_POSIX_H */
