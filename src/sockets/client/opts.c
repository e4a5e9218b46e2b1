/* SPDX-License-Identifier: BSD-3-Clause */
#include "sock.h"

#include <errno.h>
#include <limits.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/time.h>

#include "tcp/tcp.h"

#include "info.h"
#include "keys.h"
#include "libc.h"
#include "lock.h"
#include "stamp.h"

/*
 * One row an option. What is in no row and not among the special ones gives ENOPROTOOPT, in both directions: nothing is silently accepted. Rows
 * without a stack option are those that ask for what this stack does anyway, or for nothing that could be seen on a TCP connection. The table in
 * docs/usage.md says what becomes of each.
 */
enum opt_kind { OPT_BOOL, OPT_U8, OPT_U16, OPT_INT, OPT_BUF /* Linux tells the double of what was asked */ };

struct opt_row {
    int level, name;
    enum opt_kind kind;
    int stack_opt; /* enum tcp_option, SHM_OPT_*; -1 = the front-end's alone */
    int32_t min, max;
    size_t field; /* in struct slot_opts; a bool: its bit */
    bool carry; /* read back from the kernel's socket when it changes sides */
    int (*adjust)(uint32_t slot, int32_t *v); /* to what Linux makes of it, or -errno */
};

#define FIELD(f) offsetof(struct slot_opts, f)
#define ANY_INT INT32_MIN, INT32_MAX
#define OPT_BIT_ZEROCOPY 9
#define OPT_BIT_FASTOPEN_CONNECT 10

/* ---- what Linux makes of a value ------------------------------------------------------------------------------------------ */

#define BUF_BYTES_MIN 1152 /* the halves of Linux's SOCK_MIN_RCVBUF and SOCK_MIN_SNDBUF */
#define SNDBUF_BYTES_MIN 2304
#define RCVLOWAT_BYTES_MAX (3 << 20) /* half of its tcp_rmem[2] */
#define SYN_RTO_MAX_S 120
#define LINGER2_MAX_S 120
#define FIN_TIMEOUT_S 60
#define SOMAXCONN_LINUX 4096
#define PRIORITY_MAX 6

static int
adjust_rcvbuf(uint32_t slot, int32_t *v)
{
    (void)slot;
    if (*v < 0 || *v > INT32_MAX / 2)
        *v = INT32_MAX / 2;
    *v = *v < BUF_BYTES_MIN ? BUF_BYTES_MIN : *v;
    return 0;
}

static int
adjust_sndbuf(uint32_t slot, int32_t *v)
{
    (void)slot;
    if (*v < 0 || *v > (int32_t)SHM_SNDBUF_MAX)
        *v = SHM_SNDBUF_MAX;
    *v = *v < SNDBUF_BYTES_MIN ? SNDBUF_BYTES_MIN : *v;
    return 0;
}

/* A mark above what the buffer holds would never be reached. */
static int
adjust_rcvlowat(uint32_t slot, int32_t *v)
{
    int32_t rcvbuf = (int32_t)slot_opts(slot)->rcvbuf_bytes;
    int32_t most = rcvbuf > 0 ? rcvbuf : RCVLOWAT_BYTES_MAX;

    *v = *v == 0 ? 1 : *v;
    *v = *v < 0 || *v > most ? most : *v;
    return 0;
}

static int
adjust_maxseg(uint32_t slot, int32_t *v)
{
    (void)slot;
    return *v != 0 && (*v < 88 || *v > 32767) ? -EINVAL : 0;
}

static int
adjust_linger2(uint32_t slot, int32_t *v)
{
    (void)slot;
    *v = *v < 0 ? -1 : *v > LINGER2_MAX_S ? LINGER2_MAX_S : *v == 0 ? FIN_TIMEOUT_S : *v;
    return 0;
}

/* Of these states, unless the connection has ended in an error. */
static bool
is_in(uint32_t slot, uint32_t states)
{
    uint32_t st = load_acquire(&back_sock(slot)->status);

    return (st & states) && !(st & (SHM_ST_ERROR | SHM_ST_GONE));
}

static int
adjust_window_clamp(uint32_t slot, int32_t *v)
{
    if (*v == 0)
        return is_in(slot, SHM_ST_CONNECTING | SHM_ST_CONNECTED | SHM_ST_LISTEN) ? -EINVAL : 0;
    *v = *v < BUF_BYTES_MIN ? BUF_BYTES_MIN : *v;
    return 0;
}

/* Kept as a number of SYN-ACKs, each of which waits twice as long as the one before. */
static int
adjust_defer_accept(uint32_t slot, int32_t *v)
{
    int32_t wait_s = 1, sum_s = 1;

    (void)slot;
    if (*v <= 0) {
        *v = 0;
        return 0;
    }
    for (unsigned n = 1; sum_s < *v && n < UINT8_MAX; n++) {
        wait_s = wait_s * 2 > SYN_RTO_MAX_S ? SYN_RTO_MAX_S : wait_s * 2;
        sum_s += wait_s;
    }
    *v = sum_s;
    return 0;
}

static int
adjust_fastopen(uint32_t slot, int32_t *v)
{
    if (*v < 0 || is_in(slot, SHM_ST_CONNECTING | SHM_ST_CONNECTED))
        return -EINVAL;
    *v = *v > SOMAXCONN_LINUX ? SOMAXCONN_LINUX : *v;
    return 0;
}

/* Before the connection, and 0 or 1 alone. */
static int
adjust_fastopen_connect(uint32_t slot, int32_t *v)
{
    return (*v != 0 && *v != 1) || is_in(slot, SHM_ST_LISTEN | SHM_ST_CONNECTING | SHM_ST_CONNECTED) ? -EINVAL : 0;
}

static int
adjust_fastopen_no_cookie(uint32_t slot, int32_t *v)
{
    return (*v != 0 && *v != 1) || is_in(slot, SHM_ST_CONNECTING | SHM_ST_CONNECTED) ? -EINVAL : 0;
}

static int
adjust_priority(uint32_t slot, int32_t *v)
{
    (void)slot;
    return *v < 0 || *v > PRIORITY_MAX ? -EPERM : 0;
}

/* Of IP_TOS the lowest byte counts. Its last two bits are TCP's own (RFC 3168 section 5). */
static int
adjust_tos(uint32_t slot, int32_t *v)
{
    (void)slot;
    *v &= 0xfc;
    return 0;
}

static int
adjust_tclass(uint32_t slot, int32_t *v)
{
    *v = *v < 0 ? 0 : *v; /* -1 is the default */
    return adjust_tos(slot, v);
}

/* Linux has no third value here. */
static int
check_bool(uint32_t slot, int32_t *v)
{
    (void)slot;
    return *v == 0 || *v == 1 ? 0 : -EINVAL;
}

/* ---- the table ------------------------------------------------------------------------------------------------------------ */

static const struct opt_row rows[] = {
    { SOL_SOCKET, SO_REUSEADDR, OPT_BOOL, TCP_OPT_REUSEADDR, 0, 0, 0, true, NULL },
    { SOL_SOCKET, SO_REUSEPORT, OPT_BOOL, TCP_OPT_REUSEPORT, 0, 0, 1, true, NULL },
    { SOL_SOCKET, SO_KEEPALIVE, OPT_BOOL, TCP_OPT_KEEPALIVE, 0, 0, 2, true, NULL },
    { SOL_SOCKET, SO_RCVBUF, OPT_BUF, TCP_OPT_RCVBUF, ANY_INT, FIELD(rcvbuf_bytes), true, adjust_rcvbuf },
    { SOL_SOCKET, SO_SNDBUF, OPT_BUF, TCP_OPT_SNDBUF, ANY_INT, FIELD(sndbuf_bytes), true, adjust_sndbuf },
    { SOL_SOCKET, SO_RCVLOWAT, OPT_INT, SHM_OPT_RCVLOWAT, ANY_INT, FIELD(rcvlowat), true, adjust_rcvlowat },
    { SOL_SOCKET, SO_PRIORITY, OPT_INT, -1, ANY_INT, FIELD(priority), true, adjust_priority },
    { SOL_SOCKET, SO_MAX_PACING_RATE, OPT_INT, TCP_OPT_MAX_PACING_RATE, ANY_INT, FIELD(max_pacing_rate), true, NULL },
    { SOL_SOCKET, SO_ZEROCOPY, OPT_BOOL, -1, 0, 0, OPT_BIT_ZEROCOPY, true, check_bool },
    { SOL_SOCKET, SO_OOBINLINE, OPT_BOOL, -1, 0, 0, 3, true, NULL }, /* urgent data is in line always (RFC 6093) */
    { SOL_SOCKET, SO_BROADCAST, OPT_BOOL, -1, 0, 0, 4, true, NULL }, /* no meaning for TCP */
    { IPPROTO_TCP, TCP_NODELAY, OPT_BOOL, TCP_OPT_NODELAY, 0, 0, 5, true, NULL },
    { IPPROTO_TCP, TCP_CORK, OPT_BOOL, TCP_OPT_CORK, 0, 0, 6, true, NULL },
    { IPPROTO_TCP, TCP_QUICKACK, OPT_BOOL, TCP_OPT_QUICKACK, 0, 0, 7, false, NULL }, /* a mood, not a setting */
    { IPPROTO_TCP, TCP_MAXSEG, OPT_INT, TCP_OPT_MAXSEG, ANY_INT, FIELD(maxseg_bytes), true, adjust_maxseg },
    { IPPROTO_TCP, TCP_KEEPIDLE, OPT_U16, TCP_OPT_KEEPIDLE, 1, 32767, FIELD(keepidle_s), true, NULL },
    { IPPROTO_TCP, TCP_KEEPINTVL, OPT_U16, TCP_OPT_KEEPINTVL, 1, 32767, FIELD(keepintvl_s), true, NULL },
    { IPPROTO_TCP, TCP_KEEPCNT, OPT_U8, TCP_OPT_KEEPCNT, 1, 127, FIELD(keepcnt), true, NULL },
    { IPPROTO_TCP, TCP_SYNCNT, OPT_U8, TCP_OPT_SYNCNT, 1, 127, FIELD(syncnt), true, NULL },
    { IPPROTO_TCP, TCP_USER_TIMEOUT, OPT_INT, TCP_OPT_USER_TIMEOUT, 0, INT32_MAX, FIELD(user_timeout_ms), true, NULL },
    { IPPROTO_TCP, TCP_LINGER2, OPT_INT, TCP_OPT_LINGER2, ANY_INT, FIELD(linger2_s), true, adjust_linger2 },
    { IPPROTO_TCP, TCP_WINDOW_CLAMP, OPT_INT, TCP_OPT_WINDOW_CLAMP, ANY_INT, FIELD(window_clamp_bytes), true,
      adjust_window_clamp },
    { IPPROTO_TCP, TCP_DEFER_ACCEPT, OPT_INT, TCP_OPT_DEFER_ACCEPT, ANY_INT, FIELD(defer_accept_s), true,
      adjust_defer_accept },
    { IPPROTO_TCP, TCP_NOTSENT_LOWAT, OPT_INT, SHM_OPT_NOTSENT_LOWAT, ANY_INT, FIELD(notsent_lowat), true, NULL },
    { IPPROTO_TCP, TCP_FASTOPEN_CONNECT, OPT_BOOL, -1, 0, 0, OPT_BIT_FASTOPEN_CONNECT, true, adjust_fastopen_connect },
    { IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, OPT_BOOL, TCP_OPT_FASTOPEN_NO_COOKIE, 0, 0, 11, true,
      adjust_fastopen_no_cookie },
    { IPPROTO_TCP, TCP_FASTOPEN, OPT_INT, TCP_OPT_FASTOPEN, ANY_INT, FIELD(fastopen_qlen), true, adjust_fastopen },
    { IPPROTO_IP, IP_TOS, OPT_U8, TCP_OPT_TOS, ANY_INT, FIELD(tos), true, adjust_tos },
    { IPPROTO_IP, IP_MTU_DISCOVER, OPT_U8, TCP_OPT_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_OMIT,
      FIELD(mtu_discover), true, NULL },
    /* About packets of IPv6: a v4-mapped connection sends none, here as in Linux. */
    { IPPROTO_IPV6, IPV6_MTU_DISCOVER, OPT_INT, -1, IP_PMTUDISC_DONT, IP_PMTUDISC_OMIT, FIELD(mtu_discover_v6), true,
      NULL },
    { IPPROTO_IPV6, IPV6_TCLASS, OPT_U8, TCP_OPT_TOS, -1, 255, FIELD(tos), false, adjust_tclass },
    /* The stack chooses a port per connection anyway. */
    { IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, OPT_BOOL, -1, 0, 0, 8, true, NULL },
};

#define NB_ROWS (sizeof(rows) / sizeof(rows[0]))
static_assert(NB_ROWS <= 32, "slot_claim.set has a bit for each, obj.kernel_opts one more");
#define OPTS_OTHER (UINT64_C(1) << 63)

static uint32_t
row_bit(const struct opt_row *r)
{
    return UINT32_C(1) << (r - rows);
}

static const struct opt_row *
find_row(int level, int name)
{
    size_t i;

    for (i = 0; i < NB_ROWS; i++)
        if (rows[i].level == level && rows[i].name == name)
            return &rows[i];
    return NULL;
}

int
sock_placeholder(void)
{
    static int holder = -1;
    static uint32_t lock;
    int fd = __atomic_load_n(&holder, __ATOMIC_ACQUIRE);

    if (FRONT_LIKELY(fd >= 0))
        return fd;
    if (!lock_acquire(&lock))
        return -EMFILE;
    if (holder < 0) {
        fd = libc()->socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0)
            __atomic_store_n(&holder, front_hide_fd(fd), __ATOMIC_RELEASE);
    }
    fd = holder >= 0 ? holder : -errno;
    lock_release(&lock);
    return fd;
}

/* ---- the values --------------------------------------------------------------------------------------------------------- */

const struct slot_opts slot_opts_none;

struct slot_opts *
opts_own(uint32_t slot)
{
    __atomic_or_fetch(&slot_hot(front_sock(slot))->flags, SLOT_OPTS, __ATOMIC_RELAXED);
    return (struct slot_opts *)(void *)front->fmore[slot].private0;
}

void
opts_inherit(uint32_t slot, uint32_t listener)
{
    const struct slot_claim *from = slot_claim(front_sock(listener));
    struct slot_claim *to = slot_claim(front_sock(slot));

    to->set = load_acquire(&from->set);
    to->switches = load_relaxed(&from->switches);
    if (slot_opts(listener) == &slot_opts_none)
        return;
    struct slot_opts *own = opts_own(slot);
    *own = *slot_opts(listener);
    own->zerocopy_sends = own->zerocopy_told = 0;
    if (own->ts_flags != 0)
        stamp_begin(slot);
}

void
opts_clear(uint32_t slot)
{
    struct slot_claim *c = slot_claim(front_sock(slot));

    if (slot_opts(slot) != &slot_opts_none)
        *opts_own(slot) = slot_opts_none;
    c->set = c->switches = 0;
}

static void
store_switch(struct slot_claim *c, const struct opt_row *r, bool on)
{
    if (on)
        __atomic_or_fetch(&c->switches, 1u << r->field, __ATOMIC_RELAXED);
    else
        __atomic_and_fetch(&c->switches, ~(1u << r->field), __ATOMIC_RELAXED);
}

static void
store_value(uint32_t slot, const struct opt_row *r, int32_t v)
{
    struct slot_claim *c = slot_claim(front_sock(slot));
    char *p = r->kind == OPT_BOOL ? NULL : (char *)opts_own(slot) + r->field;

    switch (r->kind) {
    case OPT_BOOL:
        store_switch(c, r, v != 0);
        break;
    case OPT_U8:
        *(uint8_t *)p = (uint8_t)v;
        break;
    case OPT_U16:
        *(uint16_t *)(void *)p = (uint16_t)v;
        break;
    default:
        *(int32_t *)(void *)p = v;
    }
    __atomic_or_fetch(&c->set, row_bit(r), __ATOMIC_RELEASE);
}

static int32_t
load_value(uint32_t slot, const struct opt_row *r)
{
    const char *p = r->kind == OPT_BOOL ? NULL : (const char *)slot_opts(slot) + r->field;

    switch (r->kind) {
    case OPT_BOOL:
        return (load_relaxed(&slot_claim(front_sock(slot))->switches) >> r->field) & 1u;
    case OPT_U8:
        return *(const uint8_t *)p;
    case OPT_U16:
        return *(const uint16_t *)(const void *)p;
    case OPT_BUF:
        return *(const int32_t *)(const void *)p * 2;
    default:
        return *(const int32_t *)(const void *)p;
    }
}

static int
set_row(uint32_t slot, const struct opt_row *r, int32_t v)
{
    int rc;

    if (r->kind != OPT_BOOL && (v < r->min || v > r->max))
        return -EINVAL;
    rc = r->adjust != NULL ? r->adjust(slot, &v) : 0;
    if (rc != 0)
        return rc;
    if (r->kind == OPT_BOOL)
        v = v != 0;
    if (r->stack_opt >= 0) {
        /* A switch takes any value, so its answer need not be waited for. */
        rc = command_option(slot, (uint32_t)r->stack_opt, v, r->kind != OPT_BOOL);
        if (rc != 0)
            return rc;
    }
    store_value(slot, r, v);
    return 0;
}

/* In IP's options a byte will do, and nothing at all is 0; all others are whole. */
static int
take_int(int level, const void *val, socklen_t len, int32_t *v)
{
    *v = 0;
    if (len >= (socklen_t)sizeof(*v))
        memcpy(v, val, sizeof(*v));
    else if (level != IPPROTO_IP)
        return -EINVAL;
    else if (len > 0)
        *v = *(const uint8_t *)val;
    return 0;
}

int
opts_note(struct obj *o, int level, int name, const void *val, socklen_t len)
{
    const struct opt_row *r = find_row(level, name);
    int32_t v;

    if (r != NULL && r->kind == OPT_BOOL) {
        take_int(level, val, len, &v); /* the kernel has taken it */
        if (v != 0)
            __atomic_or_fetch(&o->kernel_switches, 1u << r->field, __ATOMIC_RELAXED);
        else
            __atomic_and_fetch(&o->kernel_switches, ~(1u << r->field), __ATOMIC_RELAXED);
    }
    __atomic_or_fetch(&o->kernel_opts, r != NULL ? row_bit(r) : OPTS_OTHER, __ATOMIC_RELAXED);
    return level == IPPROTO_TCP && keys_is_one(name) ? keys_note(o, name, val, len) : 0;
}

bool
opts_undo(const struct obj *o, int fd)
{
    static const int off = 0;
    uint64_t left = o->kernel_opts;

    for (size_t i = 0; i < NB_ROWS && left != 0; i++) {
        const struct opt_row *r = &rows[i];

        if (!(left & row_bit(r)))
            continue;
        if (r->kind != OPT_BOOL || !r->carry || libc()->setsockopt(fd, r->level, r->name, &off, sizeof(off)) != 0)
            return false;
        left &= ~row_bit(r);
    }
    return left == 0;
}

/* What a fresh socket of IPv6 has. */
static int
usual_v6(const struct opt_row *r)
{
    return r->name == IPV6_MTU_DISCOVER ? IPV6_PMTUDISC_WANT : 0;
}

/* The kernel's value and the usual one; false if they are not to be had. A switch that opts_note saw is known, and off by default. */
static bool
kernel_value(const struct obj *o, int fd, int holder, const struct opt_row *r, int *v, int *usual)
{
    socklen_t len = sizeof(*v), usual_len = sizeof(*usual);

    if (r->kind == OPT_BOOL && (o->kernel_opts & row_bit(r))) {
        *v = (o->kernel_switches >> r->field) & 1u;
        return true;
    }
    if (libc()->getsockopt(fd, r->level, r->name, v, &len) != 0)
        return false;
    if (r->level == IPPROTO_IPV6) { /* the holder is a socket of IPv4 */
        *usual = usual_v6(r);
        return true;
    }
    return libc()->getsockopt(holder, r->level, r->name, usual, &usual_len) == 0;
}

static int
name_congestion(uint32_t slot, const char *name, size_t len)
{
    struct shm_cmd cmd = { .op = SHM_OP_SETNAME };

    cmd.text.name = TCP_OPT_CONGESTION;
    memcpy(cmd.text.value, name, len < sizeof(cmd.text.value) ? len : sizeof(cmd.text.value));
    return command_run(slot, &cmd, true);
}

/* What the kernel has and the stack has not is left at the stack's own, as with the rows below. */
static void
carry_congestion(int fd, int holder, uint32_t slot)
{
    char name[16] = "", usual[16] = "";
    socklen_t len = sizeof(name), usual_len = sizeof(usual);

    if (libc()->getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len) == 0 &&
        libc()->getsockopt(holder, IPPROTO_TCP, TCP_CONGESTION, usual, &usual_len) == 0 &&
        strncmp(name, usual, sizeof(name)) != 0)
        name_congestion(slot, name, strnlen(name, sizeof(name)));
}

/* Another option than those in the rows may be a twin of one of them (SO_RCVBUFFORCE): then all are looked at. */
static int
carry_int_rows(const struct obj *o, int fd, int holder, uint32_t slot, uint64_t set)
{
    size_t i;

    for (i = 0; i < NB_ROWS; i++) {
        const struct opt_row *r = &rows[i];
        int v = 0, usual = 0, rc;

        if (!r->carry || !(set & (OPTS_OTHER | row_bit(r))) || !kernel_value(o, fd, holder, r, &v, &usual) ||
            v == usual)
            continue;
        rc = set_row(slot, r, r->kind == OPT_BUF ? v / 2 : v);
        if (rc == -ENETDOWN)
            return rc;
        /* Another refusal: the kernel took it when it was set, and a socket without that option is better than none. */
    }
    return 0;
}

static uint32_t
timeval_to_us(const struct timeval *tv)
{
    uint64_t us = (uint64_t)tv->tv_sec * 1000000u + (uint64_t)tv->tv_usec;

    return tv->tv_sec < 0 ? 1 : us > UINT32_MAX ? 0 : (uint32_t)us;
}

int
opts_carry_over(const struct obj *sock, int fd, uint32_t slot)
{
    uint64_t set = __atomic_load_n(&sock->kernel_opts, __ATOMIC_RELAXED);
    int holder = set != 0 ? sock_placeholder() : 0;
    struct slot_opts *o;
    struct linger lg;
    struct timeval tv;
    socklen_t len = sizeof(lg);
    int rc;

    if (set == 0 || holder < 0)
        return holder;
    if (!(set & OPTS_OTHER))
        return carry_int_rows(sock, fd, holder, slot, set);
    o = opts_own(slot);
    if (libc()->getsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, &len) == 0) {
        o->linger_on = lg.l_onoff != 0;
        o->linger_s = (uint32_t)lg.l_linger;
    }
    len = sizeof(tv);
    if (libc()->getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &len) == 0)
        o->rcvtimeo_us_lo = timeval_to_us(&tv);
    len = sizeof(tv);
    if (libc()->getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, &len) == 0)
        o->sndtimeo_us_lo = timeval_to_us(&tv);
    carry_congestion(fd, holder, slot);
    stamp_carry_over(fd, slot);
    rc = keys_carry_over(sock, slot);
    return rc != 0 ? rc : carry_int_rows(sock, fd, holder, slot, set);
}

/* ---- setsockopt --------------------------------------------------------------------------------------------------------- */

static int
set_linger(uint32_t slot, const void *val, socklen_t len)
{
    struct slot_opts *o;
    struct linger lg;

    if (len < (socklen_t)sizeof(lg))
        return -EINVAL;
    memcpy(&lg, val, sizeof(lg));
    o = opts_own(slot);
    if (lg.l_onoff != 0)
        o->linger_s = lg.l_linger < 0 ? INT32_MAX : (uint32_t)lg.l_linger;
    o->linger_on = lg.l_onoff != 0;
    return 0;
}

static int
set_timeout(uint32_t *us, const void *val, socklen_t len)
{
    struct timeval tv;

    if (len < (socklen_t)sizeof(tv))
        return -EINVAL;
    memcpy(&tv, val, sizeof(tv));
    if (tv.tv_usec < 0 || tv.tv_usec >= 1000000)
        return -EDOM;
    store_relaxed(us, timeval_to_us(&tv));
    return 0;
}

static int
set_special(struct obj *o, int level, int name, const void *val, socklen_t len)
{
    uint32_t slot = o->slot;

    if (level == SOL_SOCKET && name == SO_LINGER)
        return set_linger(slot, val, len);
    if (level == SOL_SOCKET && name == SO_RCVTIMEO)
        return set_timeout(&opts_own(slot)->rcvtimeo_us_lo, val, len);
    if (level == SOL_SOCKET && name == SO_SNDTIMEO)
        return set_timeout(&opts_own(slot)->sndtimeo_us_lo, val, len);
    if (level == SOL_SOCKET && len >= (socklen_t)sizeof(int))
        return stamp_set(slot, name, val, len);
    if (level == IPPROTO_TCP && name == TCP_CONGESTION)
        return len < 1 ? -EINVAL : name_congestion(slot, val, strnlen(val, len));
    /* Linux looks at the length first. */
    if ((level == SOL_SOCKET || level == IPPROTO_TCP) && len < (socklen_t)sizeof(int))
        return -EINVAL;
    return level == IPPROTO_TCP && keys_is_one(name) ? keys_set(o, name, val, len) : -ENOPROTOOPT;
}

/* An int, or an unsigned long; ~0 in either is no bound. */
static int
take_rate(const void *val, socklen_t len, int32_t *v)
{
    unsigned long rate;

    if (len < (socklen_t)sizeof(rate))
        return take_int(SOL_SOCKET, val, len, v);
    memcpy(&rate, val, sizeof(rate));
    *v = rate > INT32_MAX ? -1 : (int32_t)rate;
    return 0;
}

int
sock_setsockopt(struct obj *o, int fd, int level, int name, const void *val, socklen_t len)
{
    const struct opt_row *r = find_row(level, name);
    int32_t v = 0;
    int rc;

    if ((int)len < 0)
        return -EINVAL;
    if (is_nowhere(val) && len > 0)
        return -EFAULT;
    if (o->where == SOCK_BOTH && libc()->setsockopt(fd, level, name, val, len) != 0)
        return -errno;
    if (r == NULL)
        return set_special(o, level, name, val, len);
    rc = r->stack_opt == TCP_OPT_MAX_PACING_RATE ? take_rate(val, len, &v) : take_int(level, val, len, &v);
    return rc != 0 ? rc : set_row(o->slot, r, v);
}

/* ---- getsockopt --------------------------------------------------------------------------------------------------------- */

static int
give(void *val, socklen_t *len, const void *from, size_t n)
{
    if ((int)*len < 0)
        return -EINVAL;
    if (*len > n)
        *len = (socklen_t)n;
    memcpy(val, from, *len);
    return 0;
}

/* A small number fits into what is too short for an int, in IP's options. */
static int
give_int(int level, void *val, socklen_t *len, int32_t v)
{
    uint8_t byte = (uint8_t)v;

    if (level == IPPROTO_IP && *len > 0 && *len < (socklen_t)sizeof(v) && v == byte)
        return give(val, len, &byte, sizeof(byte));
    return give(val, len, &v, sizeof(v));
}

static int
give_rate(void *val, socklen_t *len, int32_t v)
{
    unsigned long rate = v == -1 ? ULONG_MAX : (uint32_t)v;

    return *len >= (socklen_t)sizeof(rate) ? give(val, len, &rate, sizeof(rate)) : give(val, len, &v, sizeof(v));
}

/* What the program has set. */
static int
get_row(uint32_t slot, const struct opt_row *r, void *val, socklen_t *len)
{
    int32_t v = load_value(slot, r);

    return r->stack_opt == TCP_OPT_MAX_PACING_RATE ? give_rate(val, len, v) : give_int(r->level, val, len, v);
}

/* 0 takes TCP_MAXSEG back, and it reads as if it had never been set. */
static bool
was_set(uint32_t slot, const struct opt_row *r)
{
    return (load_acquire(&slot_claim(front_sock(slot))->set) & row_bit(r)) &&
           (r->stack_opt != TCP_OPT_MAXSEG || load_value(slot, r) != 0);
}

static int
get_timeout(uint32_t us, void *val, socklen_t *len)
{
    struct timeval tv = { us / 1000000u, us % 1000000u };

    return give(val, len, &tv, sizeof(tv));
}

static int
get_from_info(uint32_t slot, int name, void *val, socklen_t *len)
{
    struct shm_info info;
    struct info_answer ti;
    int rc = info_get(slot, &info), mss;

    if (rc != 0)
        return rc;
    if (name == TCP_CONGESTION)
        return give(val, len, info.cc_name, sizeof(info.cc_name));
    if (name == TCP_MAXSEG) {
        mss = (int)info.snd_mss;
        return give(val, len, &mss, sizeof(mss));
    }
    info_translate(&info, &ti);
    return give(val, len, &ti, sizeof(ti));
}

static int
get_mtu(uint32_t slot, void *val, socklen_t *len)
{
    struct shm_info info;
    int rc = load_acquire(&back_sock(slot)->status) & SHM_ST_CONNECTED ? info_get(slot, &info) : -ENOTCONN;

    return rc != 0 ? rc : give(val, len, &info.path_mtu, sizeof(info.path_mtu));
}

static int
get_error(uint32_t slot, void *val, socklen_t *len)
{
    int error = -sock_take_error(slot);

    return give(val, len, &error, sizeof(error));
}

static int
get_socket_level(const struct obj *o, int name, void *val, socklen_t *len)
{
    struct shm_front_sock *f = front_sock(o->slot);
    const struct slot_opts *opts = slot_opts(o->slot);
    struct linger lg = { opts->linger_on, (int)opts->linger_s };
    int32_t stamps[2];
    int v, n;

    switch (name) {
    case SO_TYPE:
        v = SOCK_STREAM;
        break;
    case SO_PROTOCOL:
        v = IPPROTO_TCP;
        break;
    case SO_DOMAIN:
        v = o->v6 ? AF_INET6 : AF_INET;
        break;
    case SO_ACCEPTCONN:
        v = (slot_hot(f)->flags & SLOT_LISTENER) != 0;
        break;
    case SO_SNDBUF: /* never set: what there is, by the same rule of two */
        v = (int)load_relaxed(&back_sock(o->slot)->sndbuf_bytes) * 2;
        break;
    case SO_RCVBUF:
        v = (int)load_relaxed(&front->bnames[o->slot].rcvbuf_bytes) * 2;
        break;
    case SO_LINGER:
        return give(val, len, &lg, sizeof(lg));
    case SO_RCVTIMEO:
        return get_timeout(opts->rcvtimeo_us_lo, val, len);
    case SO_SNDTIMEO:
        return get_timeout(opts->sndtimeo_us_lo, val, len);
    default:
        n = stamp_get(o->slot, name, stamps);
        return n < 0 ? n : give(val, len, stamps, (size_t)n);
    }
    return give(val, len, &v, sizeof(v));
}

int
sock_getsockopt(struct obj *o, int fd, int level, int name, void *val, socklen_t *len)
{
    const struct opt_row *r;
    int32_t v;
    int holder;

    if (is_nowhere(val) || is_nowhere(len))
        return -EFAULT;
    if (level == SOL_SOCKET && name == SO_ERROR) /* in no row, and asked for once by each connection */
        return get_error(o->slot, val, len);
    r = find_row(level, name);
    if (level == IPPROTO_TCP &&
        (name == TCP_INFO || name == TCP_CONGESTION ||
         (name == TCP_MAXSEG && (load_acquire(&back_sock(o->slot)->status) & SHM_ST_CONNECTED))))
        return get_from_info(o->slot, name, val, len);
    if (level == IPPROTO_TCP && name == TCP_FASTOPEN_KEY)
        return keys_get_fastopen(o->slot, val, len);
    if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && o->v6) {
        v = 0; /* a v6-only socket never changes sides */
        return give(val, len, &v, sizeof(v));
    }
    if ((level == IPPROTO_IP && name == IP_MTU) || (level == IPPROTO_IPV6 && name == IPV6_MTU && o->v6))
        return get_mtu(o->slot, val, len);
    if (r != NULL && was_set(o->slot, r))
        return get_row(o->slot, r, val, len);
    if (r == NULL || r->kind == OPT_BUF)
        return level == SOL_SOCKET ? get_socket_level(o, name, val, len) : -ENOPROTOOPT;
    /* Never set: what a fresh socket has. */
    (void)fd;
    if (level == IPPROTO_IPV6) {
        v = usual_v6(r);
        return give(val, len, &v, sizeof(v));
    }
    holder = sock_placeholder();
    if (holder < 0)
        return holder;
    return libc()->getsockopt(holder, level, name, val, len) == 0 ? 0 : -errno;
}

bool
opts_fastopen_connect(uint32_t slot)
{
    return (load_relaxed(&slot_claim(front_sock(slot))->switches) >> OPT_BIT_FASTOPEN_CONNECT) & 1u;
}

bool
opts_zerocopy(uint32_t slot)
{
    return (load_relaxed(&slot_claim(front_sock(slot))->switches) >> OPT_BIT_ZEROCOPY) & 1u;
}
