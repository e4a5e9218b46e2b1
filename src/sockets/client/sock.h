/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_SOCK_H
#define SOCKETS_CLIENT_SOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "fdtable.h"
#include "front.h"
#include "spare.h"

/**
 * @file
 * A TCP socket in the application: which side it belongs to, and the calls on it. Everything returns what the system call returns, or
 * -errno. The caller holds the object (fd_get). Calls on one socket may come from several threads and processes.
 */

/* ---- sock.c: life --------------------------------------------------------------------------------------------------- */

/** A kernel TCP socket that may become the stack's: put it into the table. place: as spare_lend gave it. Returns fd. */
int sock_track(int fd, struct spare_kind kind, uint8_t place);

/** The stack has started: bind (a; NULL: a wildcard listener that the kernel has already) and listen as promised before. */
int sock_keep_promise(struct obj *o, int fd, const struct shm_addr *a, bool listens, int backlog);
int sock_bind(struct obj *o, int fd, const struct sockaddr *sa, socklen_t len);
int sock_listen(struct obj *o, int fd, int backlog);
int sock_connect(struct obj *o, int fd, const struct sockaddr *sa, socklen_t len);
/** On which side would a connection to this address be made? Changes sides if need be: 1 = the stack's, 0 = the kernel's, or -errno. */
int sock_side_for(struct obj *o, int fd, const struct sockaddr *sa, socklen_t len);
struct tx_source;
/** As sock_connect, for a socket of the stack's; what of src goes with the SYN is taken off and added to *sent (RFC 7413). */
int sock_connect_fast(struct obj *o, int fd, const struct sockaddr *sa, socklen_t len, struct tx_source *src, int flags,
                      ssize_t *sent);
/** The same for a connection that TCP_FASTOPEN_CONNECT has put off. */
int sock_connect_deferred(struct obj *o, struct tx_source *src, int flags, ssize_t *sent);
/** flags: SOCK_NONBLOCK, SOCK_CLOEXEC. Returns the new descriptor. */
int sock_accept(struct obj *o, int fd, struct sockaddr *sa, socklen_t *len, int flags);
/** A socket of the stack's from the start, by a descriptor of our own (fdtable_own). Returns it, -ENFILE, -ENETDOWN, -EDEADLK. */
int sock_open_own(struct spare_kind kind);
int sock_shutdown(struct obj *o, int fd, int how);
int sock_name(struct obj *o, int fd, struct sockaddr *sa, socklen_t *len, bool peer);

/** Put an address of the stack's into the user's form. */
void sock_addr_out(const struct shm_addr *a, bool v6, struct sockaddr *sa, socklen_t *len);

/* ---- state.c: what can be done without waiting ------------------------------------------------------------------------- */

/** A byte, the end, an error, a connection to accept. SO_RCVLOWAT is for sock_events and for a call that waits for more. */
bool sock_can_read(uint32_t slot);
bool sock_can_write(uint32_t slot);
/** Those of EPOLLIN, EPOLLOUT, ... that hold now, and are wanted. */
uint32_t sock_events(uint32_t slot, uint32_t wanted);
/** A listener in both worlds whose stack has gone: the kernel's half goes on by itself. */
static inline bool
sock_is_kernel_again(const struct obj *o)
{
    return FRONT_UNLIKELY(load_relaxed(&front->dead)) && o->where == SOCK_BOTH;
}
/** A listener of a stack that has gone: told once, since a server would ask it for ever. */
static inline bool
sock_is_dead_listener(const struct obj *o)
{
    return FRONT_UNLIKELY(load_relaxed(&front->dead)) && (slot_hot(front_sock(o->slot))->flags & SLOT_LISTENER);
}
/** Is there an error that no call has reported yet? */
bool sock_has_error(uint32_t slot);
/** The error that a call must report, once (negative), or 0. */
int sock_take_error(uint32_t slot);
/** Free bytes in the transmit buffer. */
uint32_t sock_tx_space(uint32_t slot);
/** How many bytes may be appended now: the free ones, unless TCP_NOTSENT_LOWAT says to wait. */
uint32_t sock_tx_room(uint32_t slot);
/** Bytes that can be read at once. */
uint32_t sock_rx_bytes(uint32_t slot);
/** The same with those that follow when these are taken. */
uint32_t sock_rx_arrived(uint32_t slot);
/** Ask for an event when there is space again; look once more after it. */
void sock_want_space(uint32_t slot);
/** When a call on this socket that may wait must give up: 0 = at once, WAIT_FOREVER. */
uint64_t sock_deadline(uint32_t slot, bool write, int msg_flags);

/* ---- route.c ------------------------------------------------------------------------------------------------------------ */

/** 16 bytes and port of a sockaddr; false if it is not an internet address of that length. */
bool addr_in(const struct sockaddr *sa, socklen_t len, struct shm_addr *out);
bool addr_is_any(const struct shm_addr *a);
/** Is it the stack's own address? */
bool route_is_stack(const struct shm_addr *a);
/** Does a connection to it go through the stack? */
bool route_by_stack(const struct shm_addr *a);

/* ---- send.c ------------------------------------------------------------------------------------------------------------- */

/** Bytes come from here: copy the next n to dst; returns how many, 0 at the end, or -errno. */
struct tx_source {
    ssize_t (*fill)(struct tx_source *s, char *dst, size_t n);
    size_t left;
    const struct iovec *iov;
    size_t iov_off;
    int fd;
    off_t *offset;
};

/** tx_source.fill of what iov names. */
ssize_t fill_from_iov(struct tx_source *s, char *dst, size_t n);

ssize_t sock_sendv(struct obj *o, const struct iovec *iov, size_t iovcnt, int flags);
/** The usual one: all of it in one piece, on a connection that nothing is the matter with. Inside (sole.h); false: nothing was sent. */
bool sock_send_at_once(uint32_t slot, const void *buf, size_t n, int flags);
/** MSG_FASTOPEN, on a socket of the stack's: connect with the first bytes, then send the others. */
ssize_t sock_sendv_fast(struct obj *o, int fd, const struct iovec *iov, size_t iovcnt, int flags,
                        const struct sockaddr *sa, socklen_t len);
/** Write the first bytes of a fresh stream, which the stack may put into a SYN; returns how many. The source keeps them, tx_tail stays, and nobody else sends until send_staged. */
uint32_t send_stage(uint32_t slot, const struct tx_source *src);
/** n of them went, perhaps none: the stream has these now, and the source no more. */
void send_staged(uint32_t slot, struct tx_source *src, uint32_t n);
/** Start loading where the next byte to send goes. */
void send_prefetch(uint32_t slot);
/** From any source; raises no SIGPIPE. */
ssize_t sock_send_from(struct obj *o, struct tx_source *src, int flags);
/** Room for up to n bytes of the stream, as iso_send_reserve; until sock_commit the socket sends nothing else. */
ssize_t sock_reserve(struct obj *o, void **at, size_t n, int flags);
int sock_commit(struct obj *o, size_t n, int flags);

/* ---- recv.c ------------------------------------------------------------------------------------------------------------- */

/** Returns bytes, 0 at the end of the stream, or -errno. flags: MSG_*. */
ssize_t sock_recvv(struct obj *o, const struct iovec *iov, size_t iovcnt, int flags);
/** The usual one: what is there, or 0 at the end of the stream. Inside (sole.h); negative: nothing was taken. */
ssize_t sock_recv_at_once(uint32_t slot, void *buf, size_t n, int flags);
/** Where the stream's next bytes lie, as iso_recv_borrow; they stay until sock_return, or a read. */
ssize_t sock_borrow(struct obj *o, struct iovec *iov, int *iovcnt, int flags);
int sock_return(struct obj *o, size_t n);
/** msg_iov and all the rest of msg. */
ssize_t sock_recvmsg(struct obj *o, struct msghdr *msg, int flags);
/** MSG_ERRQUEUE: completions of MSG_ZEROCOPY, transmit timestamps. Returns 0, or -EAGAIN. */
int sock_recv_errqueue(uint32_t slot, struct msghdr *msg);
/** A notification about bytes taken may be held back while a send is likely to carry it; before sleeping it must go. */
void recv_flush_notice(void);
/** The socket is being notified anyway. */
void recv_notice_carried(uint32_t slot);

/* ---- opts.c ------------------------------------------------------------------------------------------------------------- */

int sock_getsockopt(struct obj *o, int fd, int level, int name, void *val, socklen_t *len);
int sock_setsockopt(struct obj *o, int fd, int level, int name, const void *val, socklen_t len);
/** An option was set on a socket of the kernel's, *val: remember which, so that a change of sides asks for no others. 0, or -ENOMEM for a key. */
int opts_note(struct obj *o, int level, int name, const void *val, socklen_t len);
/** Put fd's options back to what a fresh socket has, after what opts_note noted of o; false: not worth it. */
bool opts_undo(const struct obj *o, int fd);
/** The socket changes sides: options that were set on the kernel's are set on the stack's. Returns 0 or -errno. */
int opts_carry_over(const struct obj *sock, int fd, uint32_t slot);
/** SO_ZEROCOPY. */
bool opts_zerocopy(uint32_t slot);
/** TCP_FASTOPEN_CONNECT. */
bool opts_fastopen_connect(uint32_t slot);
/** A kernel socket nobody uses: what accepted sockets' descriptors are copies of. -errno if there is none. */
int sock_placeholder(void);

#endif /* SOCKETS_CLIENT_SOCK_H */
