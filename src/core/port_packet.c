/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/port_packet.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_memcpy.h>
#include <rte_tcp.h>

#include "core/log.h"
#include "core/options.h"

#define FRAME_MAX_BYTES (RTE_ETHER_HDR_LEN + RTE_VLAN_HLEN + UINT16_MAX)
/* Buffers for one frame of the largest size, each of 2 KiB at least (core/pktpool.h). */
#define FRAME_BUFS ((FRAME_MAX_BYTES + 2047) / 2048)
/* Pieces of a frame to send: a header, and what lies in chunks or, of a copy, in receive buffers. */
#define TX_PIECES (FRAME_BUFS + 1)
#define MTU_MAX 9000
/* A TCP header no longer than this has timestamps at most. */
#define LATE_TCP_BYTES 32
/* The ring that the kernel fills: slots that hold a frame of the MTU and what stands before it. */
#define SLOTS 1024u
#define SLOT_HEADER_BYTES 128u
#define SLOT_BYTES_MAX (16u << 10)
#define BLOCK_BYTES (64u << 10)
/* What may wait in the kernel beside it: larger frames, and what was sent and has not left. */
#define SOCKET_BUFFER_BYTES (8 << 20)

/* A frame that no slot holds: buffers stand by for the largest. */
struct rx_large {
    struct virtio_net_hdr hdr;
    struct rte_mbuf *bufs[FRAME_BUFS];
    struct iovec iov[1 + FRAME_BUFS];
};

/* One whose beginning has been taken from its slot; the rest is still to be read. */
struct rx_late {
    struct rte_mbuf *rest[FRAME_BUFS];
    unsigned nb_rest;
    uint32_t begin_bytes, rest_bytes;
};

struct tx_frame {
    struct virtio_net_hdr hdr;
    struct iovec iov[1 + TX_PIECES];
};

struct packet {
    int fd;
    char *ring;
    size_t ring_bytes;
    uint32_t slot_bytes;
    uint32_t next; /**< slot */
    unsigned frame_bufs; /**< that hold the largest frame */
    uint32_t buf_room; /**< bytes in one */
    struct rx_large large;
    struct rx_late late[PORT_BURST]; /**< pktpool.nb_late of them */
    char again[SLOT_BYTES_MAX]; /**< what of a late frame is read a second time */
    struct mmsghdr tx_msgs[PORT_BURST]; /**< whoever sends has the queue, or the port's lock */
    struct tx_frame tx[PORT_BURST];
};

__attribute__((format(printf, 4, 5))) static int
fail(int rc, char *err, size_t err_len, const char *fmt, ...)
{
    int len = snprintf(err, err_len, "port packet: ");
    va_list ap;

    va_start(ap, fmt);
    if ((size_t)len < err_len)
        vsnprintf(err + len, err_len - (size_t)len, fmt, ap);
    va_end(ap);
    return rc;
}

/* ---- knobs --------------------------------------------------------------------------------------------------------------- */

struct packet_knobs {
    char *interface;
    char *impair;
    int mac;
};

enum { MAC_OWN, MAC_INTERFACE };
static const char *const mac_choices[] = { "own", "interface", NULL };

static const struct option_row packet_rows[] = {
    { .name = "impair",
      .type = OPTION_STRING,
      .offset = offsetof(struct packet_knobs, impair),
      .help = "Make the wire bad, in both directions." },
    { .name = "interface",
      .type = OPTION_STRING,
      .offset = offsetof(struct packet_knobs, interface),
      .help = "The kernel's name of it." },
    { .name = "mac",
      .type = OPTION_ENUM,
      .choices = mac_choices,
      .default_text = "own",
      .offset = offsetof(struct packet_knobs, mac),
      .help = "The stack's link-layer address: its own, or the interface's." },
};

int
packet_parse(const char *text, struct packet_config *cfg, struct impair_config *impair, char *err, size_t err_len)
{
    struct packet_knobs knobs = { 0 };
    struct options o;
    int rc = options_init(&o, packet_rows, RTE_DIM(packet_rows), &knobs, err, err_len);

    if (rc != 0)
        return rc;
    memset(cfg, 0, sizeof(*cfg));
    memset(impair, 0, sizeof(*impair));
    rc = knobs_parse(&o, text, "--port packet", err, err_len);
    if (rc == 0 && (knobs.interface == NULL || strlen(knobs.interface) >= sizeof(cfg->interface))) {
        snprintf(err, err_len, "--port packet: interface=%s is no name of an interface, as in packet,interface=veth0",
                 knobs.interface != NULL ? knobs.interface : "");
        rc = -EINVAL;
    }
    if (rc == 0 && knobs.impair != NULL)
        rc = impair_parse(knobs.impair, impair, err, err_len);
    if (rc == 0)
        snprintf(cfg->interface, sizeof(cfg->interface), "%s", knobs.interface);
    cfg->interface_mac = knobs.mac == MAC_INTERFACE;
    options_fini(&o);
    return rc;
}

/* ---- start and stop ---------------------------------------------------------------------------------------------------- */

/* The interface's MTU and link-layer address. */
static int
ask_interface(struct port *p, int fd, const struct packet_config *cfg, char *err, size_t err_len)
{
    struct ifreq ifr;

    memset(&ifr, 0, sizeof(ifr));
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", cfg->interface);
    p->if_index = (int)if_nametoindex(cfg->interface);
    if (p->if_index == 0 || ioctl(fd, SIOCGIFMTU, &ifr) != 0)
        return fail(-ENODEV, err, err_len, "there is no interface '%s' here", cfg->interface);
    if (p->config.mtu > ifr.ifr_mtu)
        return fail(-EINVAL, err, err_len, "MTU %u is not allowed, '%s' has %d", p->config.mtu, cfg->interface,
                    ifr.ifr_mtu);
    p->mtu = p->config.mtu != 0 ? p->config.mtu : (uint16_t)RTE_MIN(ifr.ifr_mtu, MTU_MAX);
    if (ioctl(fd, SIOCGIFHWADDR, &ifr) != 0 ||
        (ifr.ifr_hwaddr.sa_family != ARPHRD_ETHER && ifr.ifr_hwaddr.sa_family != ARPHRD_LOOPBACK))
        return fail(-EINVAL, err, err_len, "'%s' is no Ethernet interface", cfg->interface);
    memcpy(p->mac.addr_bytes, ifr.ifr_hwaddr.sa_data, RTE_ETHER_ADDR_LEN);
    if (!cfg->interface_mac) {
        /* Made of it, so that neighbours know a restarted stack again; locally administered. */
        p->mac.addr_bytes[0] |= RTE_ETHER_LOCAL_ADMIN_ADDR;
        p->mac.addr_bytes[1] ^= 0x49;
    }
    return 0;
}

/* Frames for others, and those of VLANs, whose tag the kernel has taken off, stay outside. */
static int
filter_frames(int fd, const struct rte_ether_addr *mac)
{
    const uint8_t *a = mac->addr_bytes;
    const uint32_t high = (uint32_t)a[0] << 24 | (uint32_t)a[1] << 16 | (uint32_t)a[2] << 8 | a[3];
    const uint32_t low = (uint32_t)a[4] << 8 | a[5];
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_VLAN_TAG)),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x0fff, 7, 0),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, RTE_ETHER_GROUP_ADDR, 4, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, high, 0, 3),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, low, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = { .len = RTE_DIM(code), .filter = code };

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

static int
set_packet_option(int fd, int option, int value)
{
    return setsockopt(fd, SOL_PACKET, option, &value, sizeof(value));
}

/* A frame that exceeds its slot is queued whole besides (COPY_THRESH), to be read by a call. */
static int
map_ring(struct packet *w, uint16_t mtu)
{
    struct tpacket_req req = { .tp_frame_nr = SLOTS };
    void *ring;

    w->slot_bytes = rte_align32pow2(SLOT_HEADER_BYTES + RTE_ETHER_HDR_LEN + mtu);
    req.tp_frame_size = w->slot_bytes;
    req.tp_block_size = BLOCK_BYTES;
    w->ring_bytes = (size_t)SLOTS * w->slot_bytes;
    req.tp_block_nr = (unsigned)(w->ring_bytes / BLOCK_BYTES);
    if (set_packet_option(w->fd, PACKET_VERSION, TPACKET_V2) != 0 ||
        set_packet_option(w->fd, PACKET_COPY_THRESH, 1) != 0 ||
        setsockopt(w->fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof(req)) != 0)
        return -1;
    ring = mmap(NULL, w->ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
    if (ring == MAP_FAILED)
        return -1;
    w->ring = ring;
    return 0;
}

static void
grow_buffers(int fd)
{
    int bytes = SOCKET_BUFFER_BYTES;

    /* The second needs no rights, and gives what the system's bounds allow. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* A card lets only its own address pass unless it is told otherwise. */
static int
take_all(const struct port *p, int fd)
{
    struct packet_mreq all = { .mr_ifindex = p->if_index, .mr_type = PACKET_MR_PROMISC };

    return setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all));
}

/* Nothing comes before the bind, so that all is in force by then. */
static int
prepare_socket(struct port *p, int fd, const struct packet_config *cfg, char *err, size_t err_len)
{
    struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = rte_cpu_to_be_16(ETH_P_ALL) };
    int rc = ask_interface(p, fd, cfg, err, err_len);

    if (rc != 0)
        return rc;
    at.sll_ifindex = p->if_index;
    grow_buffers(fd);
    if (set_packet_option(fd, PACKET_VNET_HDR, 1) != 0 || set_packet_option(fd, PACKET_IGNORE_OUTGOING, 1) != 0 ||
        set_packet_option(fd, PACKET_QDISC_BYPASS, 1) != 0 || filter_frames(fd, &p->mac) != 0 ||
        map_ring(p->wire, p->mtu) != 0 || (!cfg->interface_mac && take_all(p, fd) != 0) ||
        bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0)
        return fail(-errno, err, err_len, "'%s' cannot be had: %s", cfg->interface, strerror(errno));
    return 0;
}

static int
fill_rx(struct packet *w, struct pktpool *pool)
{
    struct rx_large *f = &w->large;

    w->buf_room = pool->buf_bytes - RTE_PKTMBUF_HEADROOM;
    w->frame_bufs = RTE_MIN((FRAME_MAX_BYTES + w->buf_room - 1) / w->buf_room, (uint32_t)FRAME_BUFS);
    if (rte_pktmbuf_alloc_bulk(pool->rx, f->bufs, w->frame_bufs) != 0)
        return -ENOMEM;
    f->iov[0] = (struct iovec){ .iov_base = &f->hdr, .iov_len = sizeof(f->hdr) };
    for (unsigned i = 0; i < w->frame_bufs; i++)
        f->iov[1 + i] = (struct iovec){ .iov_base = rte_pktmbuf_mtod(f->bufs[i], void *), .iov_len = w->buf_room };
    pool->held += w->frame_bufs;
    return 0;
}

static void
packet_stop(struct port *p)
{
    struct packet *w = p->wire;

    if (w->ring != NULL)
        munmap(w->ring, w->ring_bytes);
    if (w->fd >= 0)
        close(w->fd);
    rte_pktmbuf_free_bulk(w->large.bufs, w->large.bufs[0] != NULL ? w->frame_bufs : 0);
    free(w);
    p->wire = NULL;
}

static int
packet_start(struct port *p, struct pktpool *pool, char *err, size_t err_len)
{
    const struct packet_config *cfg = p->config.wire_config;
    struct packet *w;
    int rc;

    if (p->config.steer != PORT_STEER_AUTO && p->config.steer != PORT_STEER_SOFT)
        return fail(-EINVAL, err, err_len, "it cannot steer by %s; allowed are auto, soft",
                    port_steer_name(p->config.steer));
    w = calloc(1, sizeof(*w));
    if (w == NULL)
        return fail(-ENOMEM, err, err_len, "no memory");
    p->wire = w;
    p->steer = PORT_STEER_SOFT;
    p->nb_queues = 1;
    p->caps =
        (struct port_caps){ .tx_tcp_csum = true, .rx_csum = true, .tso = true, .multi_seg = true, .rx_intr = true };
    w->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (w->fd < 0)
        rc = fail(-errno, err, err_len, "a packet socket cannot be had: %s", strerror(errno));
    else
        rc = prepare_socket(p, w->fd, cfg, err, err_len);
    if (rc == 0 && fill_rx(w, pool) != 0)
        rc = fail(-ENOMEM, err, err_len, "too few receive buffers");
    if (rc != 0)
        packet_stop(p);
    return rc;
}

static int
packet_rx_fd(const struct port *p)
{
    return ((const struct packet *)p->wire)->fd;
}

/* ---- receiving ----------------------------------------------------------------------------------------------------------- */

/* The kernel left the sum to whoever needs it. */
static void
judge_sum(const struct port *p, const struct virtio_net_hdr *hdr, struct rte_mbuf *m)
{
    uint32_t at = hdr->csum_start, field = at + hdr->csum_offset;
    uint16_t sum;

    if ((hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0) {
        if (hdr->flags & VIRTIO_NET_HDR_F_DATA_VALID)
            m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
        return;
    }
    m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE;
    /* Where the stack checks all by itself, as with corrupt=, it must be there. */
    if (likely(p->caps.rx_csum) || field + sizeof(sum) > m->data_len ||
        rte_raw_cksum_mbuf(m, at, m->pkt_len - at, &sum) != 0)
        return;
    sum = (uint16_t)~sum;
    memcpy(rte_pktmbuf_mtod_offset(m, char *, field), &sum, sizeof(sum));
}

/* The large frame, with len bytes in it, as a chain; fresh buffers take its place. NULL: there are none, and the frame is dropped. */
static struct rte_mbuf *
take_chain(struct packet *w, uint32_t len, struct pktpool *pool)
{
    struct rx_large *f = &w->large;
    unsigned n = (len + w->buf_room - 1) / w->buf_room;
    struct rte_mbuf *fresh[FRAME_BUFS], *first = f->bufs[0], **link = &first->next;

    if (rte_pktmbuf_alloc_bulk(pool->rx, fresh, n) != 0)
        return NULL;
    first->pkt_len = len;
    first->nb_segs = (uint16_t)n;
    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = f->bufs[i];

        m->data_len = (uint16_t)RTE_MIN(len, w->buf_room);
        len -= m->data_len;
        if (i > 0) {
            *link = m;
            link = &m->next;
        }
        f->bufs[i] = fresh[i];
        f->iov[1 + i].iov_base = rte_pktmbuf_mtod(fresh[i], void *);
    }
    return first;
}

/* The next of the frames that no slot holds. An interface that goes down leaves an error before them, once. */
static ssize_t
read_frame(const struct packet *w, struct msghdr *msg)
{
    ssize_t len;

    do
        len = recvmsg(w->fd, msg, MSG_DONTWAIT);
    while (len < 0 && errno == ENETDOWN);
    return len;
}

/* NULL: dropped. */
static struct rte_mbuf *
take_large(struct packet *w, struct pktpool *pool)
{
    struct rx_large *f = &w->large;
    struct msghdr msg = { .msg_iov = f->iov, .msg_iovlen = 1 + w->frame_bufs };
    ssize_t len = read_frame(w, &msg);

    /* Longer than a frame of IPv4 can be. */
    if (len <= (ssize_t)sizeof(f->hdr) || (msg.msg_flags & MSG_TRUNC) != 0)
        return NULL;
    return take_chain(w, (uint32_t)len - (uint32_t)sizeof(f->hdr), pool);
}

/*
 * The slot has the headers, which is all that TCP needs for its answer: the call that copies the rest takes microseconds, and may follow when that has gone. Only for one segment of
 * TCP that the kernel itself has left whole, whose sum nobody forms and which, by its length, is not signed.
 */
static bool
may_come_late(const struct port_queue *q, const struct tpacket2_hdr *slot, const struct virtio_net_hdr *hdr)
{
    const uint8_t summed = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
    const struct rte_ether_hdr *eth = (const void *)((const char *)slot + slot->tp_mac);
    const struct rte_ipv4_hdr *ip = (const void *)(eth + 1);
    const struct rte_tcp_hdr *tcp = (const void *)(ip + 1);
    const uint16_t cut = rte_cpu_to_be_16(RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK);

    return q->rest_later && q->impair_rx == NULL && q->port->caps.rx_csum &&
           (hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == VIRTIO_NET_HDR_GSO_TCPV4 && (hdr->flags & summed) != 0 &&
           slot->tp_len <= FRAME_MAX_BYTES && eth->ether_type == rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4) &&
           ip->version_ihl == RTE_IPV4_VHL_DEF && ip->next_proto_id == IPPROTO_TCP &&
           (ip->fragment_offset & cut) == 0 && tcp->data_off <= LATE_TCP_BYTES / 4 << 4;
}

/* The beginning of a frame, and buffers for the rest, for which we keep a reference. NULL: there are none. */
static struct rte_mbuf *
take_begin(struct packet *w, struct pktpool *pool, const struct tpacket2_hdr *slot)
{
    struct rx_late *f = &w->late[pool->nb_late];
    uint32_t begin = RTE_MIN(slot->tp_snaplen, w->buf_room), rest = slot->tp_len - begin;
    struct rte_mbuf *first = rte_pktmbuf_alloc(pool->rx), **link;

    *f =
        (struct rx_late){ .nb_rest = (rest + w->buf_room - 1) / w->buf_room, .begin_bytes = begin, .rest_bytes = rest };
    if (first == NULL || rte_pktmbuf_alloc_bulk(pool->rx, f->rest, f->nb_rest) != 0) {
        rte_pktmbuf_free(first);
        return NULL;
    }
    rte_memcpy(rte_pktmbuf_mtod(first, char *), (const char *)slot + slot->tp_mac, begin);
    first->data_len = (uint16_t)begin;
    first->pkt_len = slot->tp_len;
    first->nb_segs = (uint16_t)(1 + f->nb_rest);
    link = &first->next;
    for (unsigned i = 0; i < f->nb_rest; i++) {
        struct rte_mbuf *m = f->rest[i];

        m->data_len = (uint16_t)RTE_MIN(rest, w->buf_room);
        rest -= m->data_len;
        rte_mbuf_refcnt_set(m, 2);
        *link = m;
        link = &m->next;
    }
    pool->nb_late++;
    return first;
}

/* Frames are read in the order of their slots. */
static struct rte_mbuf *
take_large_now(struct packet *w, struct port_queue *q)
{
    if (q->pool->nb_late > 0)
        port_rx_rest(q);
    return take_large(w, q->pool);
}

/* NULL: dropped. */
static struct rte_mbuf *
take_small(const struct tpacket2_hdr *slot, struct pktpool *pool)
{
    struct rte_mbuf *m;

    /* The kernel had no room left for what exceeds the slot. */
    if (slot->tp_snaplen < slot->tp_len)
        return NULL;
    m = rte_pktmbuf_alloc(pool->rx);
    if (m == NULL)
        return NULL;
    if (unlikely(slot->tp_snaplen > rte_pktmbuf_tailroom(m))) {
        rte_pktmbuf_free(m);
        return NULL;
    }
    rte_memcpy(rte_pktmbuf_append(m, (uint16_t)slot->tp_snaplen), (const char *)slot + slot->tp_mac, slot->tp_snaplen);
    return m;
}

static struct rte_mbuf *
take(struct packet *w, struct port_queue *q, const struct tpacket2_hdr *slot, uint32_t status)
{
    bool large = (status & TP_STATUS_COPY) != 0;
    struct virtio_net_hdr hdr;
    struct rte_mbuf *m = NULL;

    memcpy(&hdr, (const char *)slot + slot->tp_mac - sizeof(hdr), sizeof(hdr)); /* at any address */
    if (large && may_come_late(q, slot, &hdr))
        m = take_begin(w, q->pool, slot);
    if (m == NULL)
        m = large ? take_large_now(w, q) : take_small(slot, q->pool);
    if (unlikely(m == NULL)) {
        counter_inc(q->ctr, CTR_PORT_DROP_NO_MBUF);
        return NULL;
    }
    judge_sum(q->port, &hdr, m);
    return m;
}

/* The kernel marks slots while there are losses that nobody has asked for. */
static void
count_losses(const struct packet *w, struct counters *ctr)
{
    struct tpacket_stats stats = { .tp_drops = 0 };
    socklen_t len = sizeof(stats);

    if (getsockopt(w->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) == 0)
        counter_add(ctr, CTR_PORT_DROP_RX_FULL, stats.tp_drops);
}

static uint16_t
packet_rx_burst(struct port_queue *q, struct rte_mbuf **pkts, uint16_t max, uint64_t now_us)
{
    struct packet *w = q->port->wire;
    uint16_t n = 0;

    (void)now_us;
    while (n < max) {
        struct tpacket2_hdr *slot = (struct tpacket2_hdr *)(void *)(w->ring + (size_t)w->next * w->slot_bytes);
        uint32_t status = __atomic_load_n(&slot->tp_status, __ATOMIC_ACQUIRE);

        if ((status & TP_STATUS_USER) == 0)
            break;
        if (unlikely((status & TP_STATUS_LOSING) != 0))
            count_losses(w, q->ctr);
        pkts[n] = take(w, q, slot, status);
        n = (uint16_t)(n + (pkts[n] != NULL));
        __atomic_store_n(&slot->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        w->next = (w->next + 1) % SLOTS;
    }
    return n;
}

/*
 * The kernel queues a frame, and gives it its slot, under one lock, so that they come in one order. It has been acknowledged: were it another one, that could not be taken
 * back.
 */
static void
read_rest(struct packet *w, const struct rx_late *f)
{
    struct virtio_net_hdr hdr;
    struct iovec iov[2 + FRAME_BUFS] = { { .iov_base = &hdr, .iov_len = sizeof(hdr) },
                                         { .iov_base = w->again, .iov_len = f->begin_bytes } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 + f->nb_rest };

    for (unsigned i = 0; i < f->nb_rest; i++)
        iov[2 + i] =
            (struct iovec){ .iov_base = (char *)f->rest[i]->buf_addr + RTE_PKTMBUF_HEADROOM, .iov_len = w->buf_room };
    ssize_t len = read_frame(w, &msg), shown = (ssize_t)(sizeof(hdr) + f->begin_bytes + f->rest_bytes);
    if (len != shown) {
        LOG_ERR("port packet: the kernel has shown a frame of %zd bytes, and gives %zd (%s)", shown, len,
                len < 0 ? strerror(errno) : "another one");
        abort();
    }
    for (unsigned i = 0; i < f->nb_rest; i++)
        rte_pktmbuf_free_seg(f->rest[i]);
}

static void
packet_rx_rest(struct port_queue *q)
{
    struct packet *w = q->port->wire;

    for (uint32_t i = 0; i < q->pool->nb_late; i++)
        read_rest(w, &w->late[i]);
}

/* ---- sending ------------------------------------------------------------------------------------------------------------- */

/* What the mbuf asks of a card, said to the kernel. */
static void
tell_offloads(struct rte_mbuf *m, struct virtio_net_hdr *hdr)
{
    struct rte_ipv4_hdr *ip = rte_pktmbuf_mtod_offset(m, struct rte_ipv4_hdr *, m->l2_len);
    struct rte_tcp_hdr *tcp = rte_pktmbuf_mtod_offset(m, struct rte_tcp_hdr *, m->l2_len + m->l3_len);

    *hdr = (struct virtio_net_hdr){ .flags = 0 };
    /* The kernel fills in the sum of IPv4's header only where it cuts, and it cuts only where it must. */
    if (m->ol_flags & RTE_MBUF_F_TX_IP_CKSUM) {
        ip->hdr_checksum = 0;
        ip->hdr_checksum = rte_ipv4_cksum(ip);
    }
    if ((m->ol_flags & RTE_MBUF_F_TX_L4_MASK) == RTE_MBUF_F_TX_TCP_CKSUM) {
        hdr->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        hdr->csum_start = (uint16_t)(m->l2_len + m->l3_len);
        hdr->csum_offset = offsetof(struct rte_tcp_hdr, cksum);
    }
    if (m->ol_flags & RTE_MBUF_F_TX_TCP_SEG) {
        hdr->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
        hdr->gso_size = m->tso_segsz;
        hdr->hdr_len = (uint16_t)(m->l2_len + m->l3_len + m->l4_len);
        tcp->cksum = rte_ipv4_phdr_cksum(ip, 0); /* cards want it without the length, the kernel with */
    }
}

/* False: in too many pieces. */
static bool
describe_frame(struct rte_mbuf *m, struct tx_frame *f, struct mmsghdr *msg)
{
    unsigned n = 0;

    if (unlikely(m->nb_segs > TX_PIECES))
        return false;
    tell_offloads(m, &f->hdr);
    f->iov[n++] = (struct iovec){ .iov_base = &f->hdr, .iov_len = sizeof(f->hdr) };
    for (struct rte_mbuf *piece = m; piece != NULL; piece = piece->next)
        f->iov[n++] = (struct iovec){ .iov_base = rte_pktmbuf_mtod(piece, void *), .iov_len = piece->data_len };
    msg->msg_hdr = (struct msghdr){ .msg_iov = f->iov, .msg_iovlen = n };
    return true;
}

/* Whether the frame itself is at fault, and would be refused for ever. */
static bool
is_refused(int error)
{
    return error == EMSGSIZE || error == EINVAL || error == EIO;
}

static uint16_t
packet_tx_burst(struct port_queue *q, struct rte_mbuf **pkts, uint16_t n)
{
    struct packet *w = q->port->wire;
    uint16_t ready = 0;
    int sent;

    while (ready < n && describe_frame(pkts[ready], &w->tx[ready], &w->tx_msgs[ready]))
        ready++;
    sent = ready > 0 ? sendmmsg(w->fd, w->tx_msgs, ready, MSG_DONTWAIT) : -1;
    if (unlikely(sent <= 0)) {
        if (ready > 0 && !is_refused(errno))
            return 0;
        counter_inc(q->ctr, CTR_PORT_DROP_REFUSED);
        sent = 1;
    }
    rte_pktmbuf_free_bulk(pkts, (unsigned)sent);
    return (uint16_t)sent;
}

const struct port_wire_ops packet_wire_ops = {
    .name = "packet",
    .start = packet_start,
    .stop = packet_stop,
    .rx_burst = packet_rx_burst,
    .tx_burst = packet_tx_burst,
    .rx_rest = packet_rx_rest,
    .rx_fd = packet_rx_fd,
};
