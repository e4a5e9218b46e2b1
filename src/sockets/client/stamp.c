/* SPDX-License-Identifier: BSD-3-Clause */
#include "stamp.h"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include <linux/errqueue.h> /* wants struct timespec */

#include <rte_cycles.h>

#include "libc.h"

/* Flags of Linux 6.18 that older headers lack are accepted too: they are about hardware and receive filters. */
#define FLAGS_KNOWN ((1u << 19) - 1)
#define FLAG_OPT_ID_TCP (1u << 16)
#define FLAG_OPT_RX_FILTER (1u << 17)

/* Beside them in slot_opts.ts_flags: the other two options, and whether a _NEW one was set last. */
#define OWN_STAMP (1u << 28)
#define OWN_NS (1u << 29)
#define OWN_NEW (1u << 30)

void
stamp_begin(uint32_t slot)
{
    store_relaxed(&front->fmore[slot].stamp_head, load_acquire(&front->bmore[slot].stamp_tail));
}

/* ---- options ------------------------------------------------------------------------------------------------------------ */

/* The options of a socket that has set none of these: what the slot's last user left in the error queue is not for it. */
static struct slot_opts *
own_opts(uint32_t slot)
{
    struct slot_opts *o = opts_own(slot);

    if (load_relaxed(&o->ts_flags) == 0)
        stamp_begin(slot);
    return o;
}

static void
set_plain(uint32_t slot, bool on, bool ns, bool is_new)
{
    struct slot_opts *o = own_opts(slot);
    uint32_t own = on ? OWN_STAMP | (ns ? OWN_NS : 0) | (is_new ? OWN_NEW : 0) : 0;

    store_relaxed(&o->ts_flags, (o->ts_flags & FLAGS_KNOWN) | own);
}

/* Keys of SOF_TIMESTAMPING_OPT_ID count bytes from here on: from what is unacknowledged, or is still to be written. */
static uint32_t
key_base(uint32_t slot, uint32_t flags)
{
    if (!(load_acquire(&back_sock(slot)->status) & SHM_ST_CONNECTED))
        return UINT32_MAX; /* Linux counts the SYN, which is under way */
    return flags & FLAG_OPT_ID_TCP ? front_sock(slot)->tx_tail : load_acquire(&back_sock(slot)->tx_acked);
}

static int
set_flags(uint32_t slot, uint32_t flags, bool is_new)
{
    struct slot_opts *o = own_opts(slot);
    uint32_t st = load_acquire(&back_sock(slot)->status);

    if ((flags & ~FLAGS_KNOWN) || ((flags & FLAG_OPT_ID_TCP) && !(flags & SOF_TIMESTAMPING_OPT_ID)) ||
        ((flags & SOF_TIMESTAMPING_OPT_STATS) && !(flags & SOF_TIMESTAMPING_OPT_TSONLY)))
        return -EINVAL;
    if (flags & ~o->ts_flags & SOF_TIMESTAMPING_OPT_ID) {
        if ((st & (SHM_ST_LISTEN | SHM_ST_ERROR | SHM_ST_GONE)) || !(st & (SHM_ST_CONNECTING | SHM_ST_CONNECTED)))
            return -EINVAL;
        o->ts_key = key_base(slot, flags);
    }
    if (flags & SOF_TIMESTAMPING_BIND_PHC)
        return -EOPNOTSUPP;
    store_relaxed(&o->ts_flags, (o->ts_flags & (OWN_STAMP | OWN_NS)) | flags | (is_new ? OWN_NEW : 0));
    return 0;
}

int
stamp_set(uint32_t slot, int name, const void *val, socklen_t len)
{
    int32_t v;

    if (len < (socklen_t)sizeof(v))
        return -ENOPROTOOPT; /* the caller knows what too short is */
    memcpy(&v, val, sizeof(v));
    switch (name) {
    case SO_TIMESTAMP_OLD:
    case SO_TIMESTAMP_NEW:
        set_plain(slot, v != 0, false, name == SO_TIMESTAMP_NEW);
        return 0;
    case SO_TIMESTAMPNS_OLD:
    case SO_TIMESTAMPNS_NEW:
        set_plain(slot, v != 0, true, name == SO_TIMESTAMPNS_NEW);
        return 0;
    case SO_TIMESTAMPING_OLD:
    case SO_TIMESTAMPING_NEW:
        return set_flags(slot, (uint32_t)v, name == SO_TIMESTAMPING_NEW);
    default:
        return -ENOPROTOOPT;
    }
}

int
stamp_get(uint32_t slot, int name, int32_t value[2])
{
    uint32_t flags = load_relaxed(&slot_opts(slot)->ts_flags);
    bool is_new = flags & OWN_NEW;

    value[1] = 0;
    switch (name) {
    case SO_TIMESTAMP_OLD:
        value[0] = (flags & OWN_STAMP) && !is_new && !(flags & OWN_NS);
        return sizeof(value[0]);
    case SO_TIMESTAMP_NEW:
        value[0] = (flags & OWN_STAMP) && is_new;
        return sizeof(value[0]);
    case SO_TIMESTAMPNS_OLD:
    case SO_TIMESTAMPNS_NEW:
        value[0] = (flags & OWN_NS) && is_new == (name == SO_TIMESTAMPNS_NEW);
        return sizeof(value[0]);
    case SO_TIMESTAMPING_OLD:
    case SO_TIMESTAMPING_NEW:
        value[0] = name == SO_TIMESTAMPING_OLD || is_new ? (int32_t)(flags & FLAGS_KNOWN) : 0;
        return 2 * sizeof(value[0]);
    default:
        return -ENOPROTOOPT;
    }
}

void
stamp_carry_over(int fd, uint32_t slot)
{
    static const int names[] = { SO_TIMESTAMP_OLD,   SO_TIMESTAMP_NEW,    SO_TIMESTAMPNS_OLD,
                                 SO_TIMESTAMPNS_NEW, SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        int32_t v[2] = { 0, 0 };
        socklen_t len = sizeof(v);

        if (libc()->getsockopt(fd, SOL_SOCKET, names[i], v, &len) == 0 && v[0] != 0)
            stamp_set(slot, names[i], v, sizeof(v[0]));
    }
}

/* ---- the clock ---------------------------------------------------------------------------------------------------------- */

static uint64_t
stack_now_us(void)
{
    const struct shm_stack_page *p = front->page;

    return (uint64_t)(((unsigned __int128)(rte_rdtsc() - p->clock_tsc) * p->clock_us_per_tsc) >> 64) + 1;
}

static struct timespec
realtime(uint64_t ago_us)
{
    struct timespec now;
    uint64_t ns;

    clock_gettime(CLOCK_REALTIME, &now);
    ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec - ago_us * 1000;
    return (struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
}

/* ---- control messages --------------------------------------------------------------------------------------------------- */

/* msg_controllen counts what is taken; room is what there was. */
void
cmsg_append(struct msghdr *msg, size_t room, int level, int type, const void *data, size_t len)
{
    struct cmsghdr *c = (struct cmsghdr *)(void *)((char *)msg->msg_control + msg->msg_controllen);

    if (msg->msg_control == NULL || msg->msg_controllen + CMSG_LEN(len) > room) {
        msg->msg_flags |= MSG_CTRUNC;
        return;
    }
    *c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(len), .cmsg_level = level, .cmsg_type = type };
    memcpy(CMSG_DATA(c), data, len);
    msg->msg_controllen += CMSG_SPACE(len);
    if (msg->msg_controllen > room)
        msg->msg_controllen = room;
}

static void
put_timestamping(struct msghdr *msg, size_t room, uint32_t flags, const struct timespec *at)
{
    struct scm_timestamping t = { .ts = { *at } };

    cmsg_append(msg, room, SOL_SOCKET, flags & OWN_NEW ? SO_TIMESTAMPING_NEW : SO_TIMESTAMPING_OLD, &t, sizeof(t));
}

bool
stamp_arrivals(uint32_t slot)
{
    uint32_t flags = load_relaxed(&slot_opts(slot)->ts_flags);

    return FRONT_UNLIKELY(flags & (OWN_STAMP | SOF_TIMESTAMPING_SOFTWARE));
}

void
stamp_put_arrival(uint32_t slot, struct msghdr *msg, size_t room, uint32_t at_us)
{
    uint32_t flags = load_relaxed(&slot_opts(slot)->ts_flags);
    struct timespec at = realtime((uint32_t)stack_now_us() - at_us);
    struct timeval tv = { at.tv_sec, at.tv_nsec / 1000 };
    bool is_new = flags & OWN_NEW;

    if (flags & OWN_NS)
        cmsg_append(msg, room, SOL_SOCKET, is_new ? SO_TIMESTAMPNS_NEW : SO_TIMESTAMPNS_OLD, &at, sizeof(at));
    else if (flags & OWN_STAMP)
        cmsg_append(msg, room, SOL_SOCKET, is_new ? SO_TIMESTAMP_NEW : SO_TIMESTAMP_OLD, &tv, sizeof(tv));
    if ((flags & SOF_TIMESTAMPING_SOFTWARE) &&
        ((flags & SOF_TIMESTAMPING_RX_SOFTWARE) || !(flags & FLAG_OPT_RX_FILTER)))
        put_timestamping(msg, room, flags, &at);
}

/* ---- what was sent ------------------------------------------------------------------------------------------------------ */

uint32_t
stamp_wanted(uint32_t slot)
{
    uint32_t flags = load_relaxed(&slot_opts(slot)->ts_flags);

    if (FRONT_LIKELY(flags == 0))
        return 0;
    return (flags & SOF_TIMESTAMPING_TX_SCHED ? SHM_TX_STAMP_SCHED : 0) |
           (flags & SOF_TIMESTAMPING_TX_SOFTWARE ? SHM_TX_STAMP_SENT : 0) |
           (flags & SOF_TIMESTAMPING_TX_ACK ? SHM_TX_STAMP_ACK : 0);
}

bool
stamp_is_untold(uint32_t slot)
{
    return FRONT_UNLIKELY(load_relaxed(&slot_opts(slot)->ts_flags) != 0) &&
           load_acquire(&front->bmore[slot].stamp_tail) != load_relaxed(&front->fmore[slot].stamp_head);
}

static uint32_t
kind_to_linux(uint32_t kind)
{
    return kind == SHM_TX_STAMP_SCHED ? SCM_TSTAMP_SCHED : kind == SHM_TX_STAMP_SENT ? SCM_TSTAMP_SND : SCM_TSTAMP_ACK;
}

/* Read before it is taken: the stack fills its place again at once. */
static bool
take(uint32_t slot, struct shm_stamp *out)
{
    const struct shm_back_more *b = &front->bmore[slot];
    uint32_t *head = &front->fmore[slot].stamp_head;
    uint32_t at = load_acquire(head);

    do {
        if (load_acquire(&b->stamp_tail) == at)
            return false;
        *out = b->stamp[at % SHM_STAMPS];
    } while (!__atomic_compare_exchange_n(head, &at, at + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    return true;
}

int
stamp_take(uint32_t slot, struct msghdr *msg)
{
    const struct slot_opts *o = slot_opts(slot);
    uint32_t flags = load_relaxed(&o->ts_flags);
    bool v6 = load_relaxed(&slot_hot(front_sock(slot))->flags) & SLOT_V6;
    struct {
        struct sock_extended_err err;
        struct sockaddr_in6 offender; /* nobody */
    } data = { .err = { .ee_errno = ENOMSG, .ee_origin = SO_EE_ORIGIN_TIMESTAMPING } };
    size_t room = msg != NULL ? msg->msg_controllen : 0;
    struct shm_stamp stamp;
    struct timespec at;

    if (!stamp_is_untold(slot) || !take(slot, &stamp))
        return -EAGAIN;
    if (msg == NULL)
        return 0;
    msg->msg_controllen = 0;
    /* Linux gives the packet back unless asked not to; here there is none to give. */
    msg->msg_flags = MSG_ERRQUEUE | (flags & SOF_TIMESTAMPING_OPT_TSONLY ? 0 : MSG_TRUNC);
    at = realtime(stack_now_us() - stamp.at_us);
    if (flags & SOF_TIMESTAMPING_SOFTWARE)
        put_timestamping(msg, room, flags, &at);
    data.err.ee_info = kind_to_linux(stamp.kind);
    data.err.ee_data = flags & SOF_TIMESTAMPING_OPT_ID ? stamp.pos - o->ts_key : 0;
    cmsg_append(msg, room, v6 ? SOL_IPV6 : SOL_IP, v6 ? IPV6_RECVERR : IP_RECVERR, &data,
                sizeof(data.err) + (v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in)));
    return 0;
}
