/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuzz_net.h"

#include <string.h>

#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>

#include "tcp/domain.h"

/**
 * @file
 * Frames into the stack of node 0, which has a listener and an established connection to node 1; node 1 falls silent and the input speaks
 * for it. A frame comes as it is, or with what no attacker needs to guess filled in: addresses, sequence numbers relative to the
 * connection's, checksums.
 */

#define LISTEN_PORT 80
#define PEER_PORT 81
#define FRAME_MAX 1514u
#define L3 sizeof(struct rte_ether_hdr)
#define L4 (L3 + sizeof(struct rte_ipv4_hdr))
#define STEPS_MAX 300u

struct world {
    struct lan lan;
    struct fapp app, peer;
    uint32_t listener, client;
    uint32_t children; /* connections that were accepted */
    struct tcp_tuple tuple;
};

static struct world w;

static void
begin(void)
{
    const struct ip_addr any = ip_addr_v4(0);
    struct tcp_conn_info info;
    uint32_t far_listener, far_server;

    fuzz_net_begin(&w.lan);
    fapp_attach(&w.app, &w.lan.node[0]);
    fapp_attach(&w.peer, &w.lan.node[1]);
    fapp_pair(&w.app, &w.peer, PEER_PORT, &w.client, &far_listener, &far_server);
    w.listener = fapp_open(&w.app);
    assert_int_equal(fapp_bind(&w.app, w.listener, &any, LISTEN_PORT), 0);
    assert_int_equal(fapp_listen(&w.app, w.listener, 4), 0);
    FUZZ_CHECK(tcp_info(w.lan.node[0].stack->tcp, sock_at(w.app.app, w.client)->tcp, &info));
    w.tuple = info.tuple;
    w.children = 0;
}

static void
end(void)
{
    fapp_leave(&w.app, w.app.member);
    fuzz_net_end(&w.lan, true);
}

/* ---- frames ---------------------------------------------------------------------------------------------------------------------- */

static void
receive(const uint8_t *frame, size_t len)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(w.lan.node[0].pool.rx);
    char *data;

    if (m == NULL)
        return;
    data = rte_pktmbuf_append(m, (uint16_t)len);
    FUZZ_CHECK(data != NULL);
    memcpy(data, frame, len);
    if (rte_ring_enqueue(w.lan.wire[0], m) != 0)
        rte_pktmbuf_free(m);
}

static void
put_ether(uint8_t *frame, uint16_t type)
{
    struct rte_ether_hdr *eth = (struct rte_ether_hdr *)frame;

    eth->dst_addr = w.lan.node[0].port.mac;
    eth->src_addr = w.lan.node[1].port.mac;
    eth->ether_type = rte_cpu_to_be_16(type);
}

/* Checksums of an IPv4 packet, as far as its own lengths go. */
static void
put_checksums(uint8_t *frame, size_t len)
{
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(frame + L3);
    size_t header = rte_ipv4_hdr_len(ip);
    struct rte_tcp_hdr *tcp = (struct rte_tcp_hdr *)(frame + L3 + header);

    if (header < sizeof(*ip) || L3 + header > len)
        return;
    ip->hdr_checksum = 0;
    ip->hdr_checksum = (uint16_t)~rte_raw_cksum(ip, header);
    if (ip->next_proto_id == IPPROTO_TCP && L3 + header + sizeof(*tcp) <= len &&
        rte_be_to_cpu_16(ip->total_length) <= len - L3 && rte_be_to_cpu_16(ip->total_length) > header) {
        tcp->cksum = 0;
        tcp->cksum = rte_ipv4_udptcp_cksum(ip, tcp);
    }
    if (ip->next_proto_id == IPPROTO_ICMP && L3 + header + 4 <= len) {
        uint8_t *icmp = frame + L3 + header;
        uint16_t sum;

        memset(icmp + 2, 0, 2);
        sum = (uint16_t)~rte_raw_cksum(icmp, len - L3 - header);
        memcpy(icmp + 2, &sum, 2);
    }
}

static void
put_ipv4(uint8_t *frame, size_t len)
{
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(frame + L3);

    memset(ip, 0, sizeof(*ip));
    ip->version_ihl = 0x45;
    ip->total_length = rte_cpu_to_be_16((uint16_t)(len - L3));
    ip->time_to_live = 64;
    ip->next_proto_id = IPPROTO_TCP;
    ip->src_addr = ip_addr_to_v4(&w.lan.node[1].addr);
    ip->dst_addr = ip_addr_to_v4(&w.lan.node[0].addr);
}

/* A segment: the input's bytes stand from the sequence number on, behind a byte that says whose ports and how much payload. */
static size_t
segment(uint8_t *frame, struct input *in, const uint8_t *bytes, size_t n)
{
    struct rte_tcp_hdr *tcp = (struct rte_tcp_hdr *)(frame + L4);
    const struct sock *sk = sock_at(w.app.app, w.client);
    const struct tcp_conn *c = sk != NULL ? conn_by_id(w.lan.node[0].stack->tcp, sk->tcp) : NULL;
    uint8_t how = input_u8(in);
    size_t len = L4 + 4 + n + (size_t)(how >> 3) * 46;

    if (n < sizeof(*tcp) - 4)
        return 0;
    len = RTE_MIN(len, (size_t)FRAME_MAX);
    memcpy((uint8_t *)tcp + 4, bytes, n);
    tcp->src_port = rte_cpu_to_be_16(how & 1 ? 1000u + (how >> 1) % 4 : w.tuple.remote_port);
    tcp->dst_port = rte_cpu_to_be_16(how & 1 ? LISTEN_PORT : w.tuple.local_port);
    if (!(how & 1) && c != NULL) {
        tcp->sent_seq = rte_cpu_to_be_32(rte_be_to_cpu_32(tcp->sent_seq) + c->rcv_nxt);
        tcp->recv_ack = rte_cpu_to_be_32(rte_be_to_cpu_32(tcp->recv_ack) + c->snd_nxt);
    }
    put_ether(frame, RTE_ETHER_TYPE_IPV4);
    put_ipv4(frame, len);
    put_checksums(frame, len);
    return len;
}

/* ---- the rest ---------------------------------------------------------------------------------------------------------------------- */

/* Post without waiting, since the answer may never come. */
static void
post(uint32_t slot, struct shm_cmd cmd)
{
    struct shm_front_sock *f = fapp_front(&w.app, slot);

    if (f->cmd_head != fapp_back(&w.app, slot)->cmd_done)
        return;
    cmd.member = w.app.member;
    f->cmd[f->cmd_head % SHM_CMDS] = cmd;
    f->cmd_head++;
    fapp_notify(&w.app, slot);
    fuzz_net_run_alone(&w.lan, 100);
}

static void
application_acts(struct input *in)
{
    static char bytes[16384];
    uint8_t how = input_u8(in);
    uint32_t status = fapp_back(&w.app, w.client)->status;

    switch (how % 4) {
    case 0:
        if ((status & (SHM_ST_CONNECTED | SHM_ST_GONE | SHM_ST_ERROR)) == SHM_ST_CONNECTED)
            fapp_send(&w.app, w.client, bytes, (uint32_t)(how >> 2) * 256);
        break;
    case 1:
        fapp_recv(&w.app, w.client, bytes, sizeof(bytes));
        break;
    case 2:
        if (fapp_back(&w.app, w.listener)->accept_ready > 0 && w.children < 16) {
            uint32_t child = 16 + w.children++;

            post(w.listener, (struct shm_cmd){ .op = SHM_OP_ACCEPT, .slot = child });
        }
        break;
    default:
        post(w.client, (struct shm_cmd){ .op = how & 0x80 ? SHM_OP_CLOSE : SHM_OP_SHUTDOWN, .opt = { .value = 1 } });
        break;
    }
}

static void
step(struct input *in)
{
    static const uint32_t times_us[] = { 0, 10, 1000, 45000, 250000, 3000000, 40000000, 130000000 };
    uint8_t frame[FRAME_MAX + 64] __attribute__((aligned(4)));
    uint8_t kind = input_u8(in);
    size_t n, len = 0;
    const uint8_t *bytes;

    memset(frame, 0, sizeof(frame));
    if (kind % 4 == 3) {
        application_acts(in);
    } else {
        uint8_t size = input_u8(in);

        bytes = input_bytes(in, size, &n);
        switch (kind % 4) {
        case 0:
            len = n;
            memcpy(frame, bytes, n);
            break;
        case 1:
            len = segment(frame, in, bytes, n);
            break;
        default:
            len = L3 + n + (size_t)(kind >> 5) * 160;
            memcpy(frame + L3, bytes, n);
            put_ether(frame, RTE_ETHER_TYPE_IPV4);
            put_checksums(frame, len);
            break;
        }
        if (len > 0)
            receive(frame, len);
    }
    fuzz_net_run_alone(&w.lan, times_us[(kind >> 2) % 8]);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_net_start(&w.lan);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };

    begin();
    for (unsigned n = 0; in.left > 0 && n < STEPS_MAX; n++)
        step(&in);
    fuzz_net_run_alone(&w.lan, 1000);
    end();
    return 0;
}
