/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOSOCK_H
#define ISOSOCK_H

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * @file
 * libisosock: POSIX sockets over an isosock stack.
 *
 * Each function does what its namesake without "iso_" does in Linux: same arguments, same results, same errno. Any descriptor may be passed; what is not a
 * socket of the stack's goes to the kernel. A program that cannot be changed gets the same by preloading (isosock run).
 *
 * Which side a TCP socket is on shows late: it is the kernel's until bind() names the stack's address, connect() goes to
 * where the stack has a route (its own address, its networks; by its default gateway, what is not this machine), or listen() is called on a wildcard
 * address, which then listens on both sides. The stack is looked for at that moment (ISOSOCK_CONTROL, or /run/isosock.sock for root, or
 * $XDG_RUNTIME_DIR/isosock.sock). If there is none, one line on stderr says so and everything is the kernel's.
 *
 * Threads: as POSIX has it, any function from any thread. Handlers: what POSIX calls async-signal-safe is so here but for one
 * thing: on a socket whose call was interrupted amid its work, read and write say EAGAIN, and close leaves the connection to the end of the process.
 * fork: the child holds all sockets that the parent held. An epoll set that stack sockets stand in becomes two sets, one for each
 * process. exec: stack sockets do not survive it, and SCM_RIGHTS does not carry them.
 *
 * Errors of its own: ENETDOWN or ECONNRESET on each socket when the stack ends; ENOPROTOOPT for any option that the stack does not honour.
 */

#if defined(__GNUC__)
#define ISO_API __attribute__((visibility("default")))
#else
#define ISO_API
#endif

struct mmsghdr; /* in full with _GNU_SOURCE */

/**
 * A stack in this very process (libisosock-embedded only). In the modes up, connp-l and msgp the program's own threads run it to completion inside their iso_* calls, and no
 * ring, no other thread and no copy of state lies between; any thread may call, one at a time is inside in up, as many as the EAL has lcores in the others. In other modes
 * workers run it on all lcores but the main one, which stays the program's.
 *
 * Calls that wait (blocking ones, iso_epoll_wait, iso_poll, iso_select) run passes of the stack until what they wait for has come, and sleep as the option
 * `idle` says. Bytes that iso_send took leave with the next such call, at the latest: a program that computes for long, or sleeps elsewhere, calls
 * iso_stack_poll meanwhile, else acknowledgements and timers are late (workers need no such help). Signals end such a wait with EINTR only while it sleeps.
 * A forked child has no stack: its inherited sockets are dead (ECONNRESET, ENETDOWN).
 *
 * With the option `own-descriptors` TCP sockets are the stack's from the start, and the kernel knows nothing of their descriptors: numbers from 0x40000000 on, for
 * iso_* calls alone, not for fd_set; FD_CLOEXEC is set for good, and addresses that are the kernel's give ENETUNREACH.
 *
 * iso_stack_start takes the command line of isosockd(8), with EAL options before `--`; the mode is `up` unless said otherwise. iso_stack_start_file takes a configuration
 * file (isosockd.conf(5)), whose option `eal` holds EAL options. Before the first socket call, on the thread that would run the
 * EAL's main lcore; once per process. They return 0, or -1 with errno and one line on stderr: EINVAL a wrong option or a mode that lacks an lcore, EALREADY
 * there is or was one, ENODEV, ENOMEM, EIO from the port; what open() and read() say of the file (ENOENT, EACCES, EISDIR).
 */
ISO_API int iso_stack_start(int argc, char *const argv[]);
ISO_API int iso_stack_start_file(const char *path);

/**
 * A further stack in this process, with a port, addresses and sockets of its own: for programs that serve several networks apart, or play both ends. The calling thread uses it from now
 * on. argv: name, then options of isosockd(8), none of the EAL's, which runs already and whose devices the option `port` chooses from; the mode is up, msgp or connp-l, whose lcores are
 * how many threads can be inside at once. Returns its number, 1 or more, or -1 with errno and one line on stderr: ENOTCONN the first stack does not run, ENOSPC there are eight, EINVAL,
 * ENODEV, ENOMEM, EIO as iso_stack_start. Any thread.
 */
ISO_API int iso_stack_add(int argc, char *const argv[]);
ISO_API int iso_stack_add_file(const char *path);

/**
 * The calling thread uses that stack from now on: 0 the first, with which each thread begins, or what iso_stack_add returned. All other functions, those of this file that begin with iso_stack_
 * too, are about the stack that the thread uses. A thread sees the sockets and epoll sets that were made with it: to other stacks' descriptors the kernel answers (EBADF if they
 * are the stack's own numbers, ENOTCONN and the like if not), except that any thread may close any descriptor. Returns the number of the stack that was used, or -1 with EINVAL: there is
 * no such stack.
 */
ISO_API int iso_stack_use(int stack);

/** One pass of the stack. Returns how much it did, 0 if there was nothing or workers run it; -1 with ENOTCONN if no stack runs. Any thread. */
ISO_API int iso_stack_poll(void);

/**
 * Write the stack's counters since its start: as one JSON value, or a line for each that is not zero, its value in all and of each worker. Any thread. Returns 0, or -1
 * with ENOTCONN if no stack runs.
 */
ISO_API int iso_stack_counters(FILE *out, int json);

/**
 * End in order: connections that are still open get their last bytes and a FIN, or a reset after two seconds; sockets then say ENETDOWN. Also done by
 * exit(). No other thread may be inside an iso_* call. Returns 0, or -1 with ENOTCONN if no stack runs.
 */
ISO_API int iso_stack_stop(void);

ISO_API int iso_socket(int domain, int type, int protocol);
ISO_API int iso_bind(int fd, const struct sockaddr *addr, socklen_t len);
ISO_API int iso_listen(int fd, int backlog);
ISO_API int iso_accept(int fd, struct sockaddr *addr, socklen_t *len);
ISO_API int iso_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
ISO_API int iso_connect(int fd, const struct sockaddr *addr, socklen_t len);
ISO_API int iso_shutdown(int fd, int how);
ISO_API int iso_getsockname(int fd, struct sockaddr *addr, socklen_t *len);
ISO_API int iso_getpeername(int fd, struct sockaddr *addr, socklen_t *len);
ISO_API int iso_getsockopt(int fd, int level, int name, void *val, socklen_t *len);
ISO_API int iso_setsockopt(int fd, int level, int name, const void *val, socklen_t len);

ISO_API ssize_t iso_read(int fd, void *buf, size_t n);
ISO_API ssize_t iso_readv(int fd, const struct iovec *iov, int iovcnt);
ISO_API ssize_t iso_recv(int fd, void *buf, size_t n, int flags);
ISO_API ssize_t iso_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *addr, socklen_t *len);
ISO_API ssize_t iso_recvmsg(int fd, struct msghdr *msg, int flags);
ISO_API int iso_recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout);
ISO_API ssize_t iso_write(int fd, const void *buf, size_t n);
ISO_API ssize_t iso_writev(int fd, const struct iovec *iov, int iovcnt);
ISO_API ssize_t iso_send(int fd, const void *buf, size_t n, int flags);
ISO_API ssize_t iso_sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr, socklen_t len);
ISO_API ssize_t iso_sendmsg(int fd, const struct msghdr *msg, int flags);
ISO_API int iso_sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags);
ISO_API ssize_t iso_sendfile(int out_fd, int in_fd, off_t *offset, size_t n);
ISO_API ssize_t iso_splice(int in_fd, __off64_t *in_off, int out_fd, __off64_t *out_off, size_t n, unsigned flags);

/**
 * Sending without a copy: write the bytes where the stack takes them from.
 *
 * iso_send_reserve finds room for up to n bytes (n > 0) behind what was sent and stores its address in *at. Returns how many bytes lie there together, 1 to n: at most
 * 64 KiB, less at the end of a chunk. It waits for room as iso_send does, which flags (MSG_DONTWAIT, MSG_NOSIGNAL) and O_NONBLOCK prevent. The program may write
 * there until iso_send_commit sends the first n of these bytes (flags: MSG_MORE, MSG_NOSIGNAL), or none of them with n = 0. In between, sends on the socket
 * fail with EBUSY. Once sent the bytes are the stack's; changing them then spoils what the peer gets.
 *
 * Any thread, one reservation for a socket at a time. -1 with errno: EOPNOTSUPP not a socket of the stack's (use iso_send), EAGAIN no room and not to wait, EBUSY there
 * is a reservation (reserve), EINVAL other flags, n is 0 (reserve), or none was made or more than it has room for (commit), EPIPE, ECONNRESET and others
 * as iso_send. A reservation ends with the socket.
 */
ISO_API ssize_t iso_send_reserve(int fd, void **at, size_t n, int flags);
ISO_API int iso_send_commit(int fd, size_t n, int flags);

/**
 * Receiving without a copy: read the bytes where they arrived.
 *
 * iso_recv_borrow stores in iov where the next bytes of the stream lie, one entry for each piece (a segment, as a rule), at most *iovcnt of them; *iovcnt becomes how
 * many. Returns the bytes in all, 0 at the end of the stream. It waits as iso_recv does, which MSG_DONTWAIT and O_NONBLOCK prevent; no other flag is taken. The
 * bytes must not be written to (in another process' stack they cannot). They stay where they are until iso_recv_return says that the first n of the stream have been
 * read, or another call reads or closes; borrowing again without that shows the same bytes, and more if there are. While they are borrowed they fill
 * the receive buffer.
 *
 * Any thread. -1 with errno: EOPNOTSUPP not a socket of the stack's (use iso_recv), EAGAIN nothing there and not to wait, EINVAL *iovcnt is not positive or an
 * unknown flag (borrow), more bytes than have arrived (return), others as iso_recv.
 */
ISO_API ssize_t iso_recv_borrow(int fd, struct iovec *iov, int *iovcnt, int flags);
ISO_API int iso_recv_return(int fd, size_t n);

ISO_API int iso_close(int fd);
ISO_API int iso_close_range(unsigned first, unsigned last, int flags);
ISO_API int iso_dup(int fd);
ISO_API int iso_dup2(int fd, int to);
ISO_API int iso_dup3(int fd, int to, int flags);
ISO_API int iso_fcntl(int fd, int cmd, ...);
ISO_API int iso_ioctl(int fd, unsigned long request, ...);

ISO_API int iso_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
ISO_API int iso_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
ISO_API int iso_select(int n, fd_set *rd, fd_set *wr, fd_set *ex, struct timeval *timeout);
ISO_API int iso_pselect(int n, fd_set *rd, fd_set *wr, fd_set *ex, const struct timespec *timeout,
                        const sigset_t *mask);
ISO_API int iso_epoll_create(int size);
ISO_API int iso_epoll_create1(int flags);
ISO_API int iso_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev);
ISO_API int iso_epoll_wait(int epfd, struct epoll_event *ev, int max, int timeout_ms);
ISO_API int iso_epoll_pwait(int epfd, struct epoll_event *ev, int max, int timeout_ms, const sigset_t *mask);
ISO_API int iso_epoll_pwait2(int epfd, struct epoll_event *ev, int max, const struct timespec *timeout,
                             const sigset_t *mask);

#ifdef __cplusplus
}
#endif

#endif /* ISOSOCK_H */
