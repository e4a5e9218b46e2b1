/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * isosock-replay: a recorded conversation is had again. The peer's frames come from a pcap file at their recorded times, on a virtual clock; the program
 * on the stack is played by what the recorded stack sent (its SYN is a connect, its new bytes a send, its FIN a shutdown); what the stack answers is compared
 * with what the file has of it, field by field. Secrets, clock and ports are the same each time, so that nothing needs to be forgiven.
 *
 * Exit status: 0; 1 a difference, or a file that cannot be read; 2 wrong usage.
 */
#include <stdio.h>
#include <string.h>

#include <rte_arp.h>
#include <rte_tcp.h>

#include "../unit/sockets/back_net.h"
#include "frames.h"

#define END_US 20000 /* after the last frame */
#define FIXPOINT_ROUNDS 5

static const char usage[] =
    "usage: isosock replay run CASE...            have them again and compare\n"
    "       isosock replay record RAW ADDRESS CASE  make a case of a capture; ADDRESS is the stack's in it\n"
    "       isosock replay renew CASE...          take what comes out now for right\n";

static const struct ether_addrs {
    uint8_t ours[6], peers[6];
} macs = { { 2, 0, 0, 0, 0, 1 }, { 2, 0, 0, 0, 0, 2 } };

/* One conversation under way. */
static struct run {
    struct lan net;
    struct fapp app;
    const struct frames *script;
    struct frames got; /* the peer's frames as they were given, and what the stack sent */
    bool rewriting; /* the script's numbers are another stack's */
    struct rewrite rw;
    bool numbers_known; /* rw.our_seq and our_ts are */
    struct segment first; /* of ours in the script: its SYN */
    uint64_t event_us; /* time of the last event: what answers it bears that */
    uint32_t slot, listener, sent_bytes, iss;
    bool open, fin, reset, over;
} run;

/* ---- node 1 is the file --------------------------------------------------------------------------------------------------------- */

static void
answer_arp(struct rte_mbuf *m)
{
    struct rte_ether_hdr *eth = rte_pktmbuf_mtod(m, struct rte_ether_hdr *);
    struct rte_arp_hdr *arp = (struct rte_arp_hdr *)(eth + 1);
    struct rte_arp_ipv4 d = arp->arp_data;

    memcpy(&eth->dst_addr, macs.ours, 6);
    memcpy(&eth->src_addr, macs.peers, 6);
    arp->arp_opcode = rte_cpu_to_be_16(RTE_ARP_OP_REPLY);
    memcpy(&arp->arp_data.arp_sha, macs.peers, 6);
    arp->arp_data.arp_sip = d.arp_tip;
    memcpy(&arp->arp_data.arp_tha, macs.ours, 6);
    arp->arp_data.arp_tip = d.arp_sip;
    assert_int_equal(rte_ring_enqueue(run.net.wire[0], m), 0);
}

static bool
timestamp_of(const struct segment *s, uint32_t *ts)
{
    for (unsigned i = 0; i + 10 <= s->options_len;
         i += s->options[i] == 1 || s->options[i + 1] < 2 ? 1 : s->options[i + 1])
        if (s->options[i] == 8) {
            memcpy(ts, s->options + i + 2, 4);
            *ts = rte_be_to_cpu_32(*ts);
            return true;
        }
    return false;
}

/* The stack's SYN tells how its numbers differ from the recorded ones. */
static void
learn_numbers(const struct segment *s)
{
    uint32_t a, b;

    run.numbers_known = true;
    run.iss = s->seq;
    run.rw.our_seq = s->seq - run.first.seq;
    run.rw.our_ts = timestamp_of(s, &a) && timestamp_of(&run.first, &b) ? a - b : 0;
}

static void
stack_sent(struct rte_mbuf *m)
{
    struct frame f = { .ours = true, .at_us = run.event_us, .len = rte_pktmbuf_pkt_len(m) };
    struct segment s;

    assert_true(f.len <= sizeof(f.bytes));
    memcpy(f.bytes, rte_pktmbuf_read(m, 0, f.len, f.bytes), f.len);
    if (((const struct rte_ether_hdr *)(const void *)f.bytes)->ether_type == rte_cpu_to_be_16(RTE_ETHER_TYPE_ARP)) {
        answer_arp(m);
        return;
    }
    rte_pktmbuf_free(m);
    if (!segment_parse(&f, &s) || run.over)
        return;
    if (!run.numbers_known && (s.flags & RTE_TCP_SYN_FLAG))
        learn_numbers(&s);
    frames_add(&run.got, &f);
}

static unsigned
poll_node(struct node *n)
{
    struct ip_packet pkts[2 * PORT_BURST];
    struct net *net = host_net(n->host, 0);
    uint64_t now_us = n->net->now_us;
    void *m;
    unsigned done;
    uint16_t received;

    if (n != &n->net->node[0]) {
        for (done = 0; rte_ring_dequeue(n->net->wire[1], &m) == 0; done++)
            stack_sent(m);
        return done;
    }
    net_begin(net);
    done = received = net_receive(net, pkts, now_us);
    stack_enter(n->stack, net, now_us);
    stack_segments(n->stack, pkts, received);
    stack_leave(n->stack);
    done += net_commands(net, 256, now_us);
    done += net_timers(net, now_us);
    return done + net_end(net, now_us);
}

static struct host *
make_host(struct node *n, const struct stack_config *cfg)
{
    struct counters *ctr = &n->ctr;
    const struct host_config hc = {
        .stack = *cfg, .port = &n->port, .pool = &n->pool, .nb_nets = 1, .nb_stacks = 1, .ctr = &ctr
    };

    return host_create(&hc);
}

static void
unmake_host(struct node *n)
{
    host_destroy(n->host);
}

/* ---- the program on the stack ------------------------------------------------------------------------------------------------------ */

static void
listen_on(uint16_t port)
{
    run.listener = fapp_open(&run.app);
    assert_int_equal(fapp_bind(&run.app, run.listener, &run.app.node->addr, port), 0);
    assert_int_equal(fapp_value_cmd(&run.app, run.listener, SHM_OP_SETOPT, TCP_OPT_NODELAY, 1), 0);
    assert_int_equal(fapp_listen(&run.app, run.listener, 5), 0);
}

static void
connect_to(const struct segment *s)
{
    const struct ip_addr peer = ip_addr_v4(rte_cpu_to_be_32(run.rw.peer_addr));

    run.slot = fapp_open(&run.app);
    assert_int_equal(fapp_bind(&run.app, run.slot, &run.app.node->addr, s->sport), 0);
    assert_int_equal(fapp_value_cmd(&run.app, run.slot, SHM_OP_SETOPT, TCP_OPT_NODELAY, 1), 0);
    assert_int_equal(fapp_connect(&run.app, run.slot, &peer, s->dport), 0);
    run.open = true;
}

static void
accept_and_read(void)
{
    static uint8_t buf[65536];

    if (!run.open && run.listener != UINT32_MAX && fapp_back(&run.app, run.listener)->accept_ready > 0)
        run.open = fapp_accept(&run.app, run.listener, &run.slot) == 0;
    if (run.open)
        while (fapp_recv(&run.app, run.slot, buf, sizeof(buf)) > 0)
            ;
}

/* What the program did for the stack to send this. */
static void
play_program(const struct segment *s)
{
    uint32_t pos = s->seq + ((s->flags & RTE_TCP_SYN_FLAG) != 0) - run.first.seq - 1;
    uint32_t fresh = pos + s->payload_len - run.sent_bytes;

    if ((s->flags & (RTE_TCP_SYN_FLAG | RTE_TCP_ACK_FLAG)) == RTE_TCP_SYN_FLAG && !run.open)
        connect_to(s);
    accept_and_read();
    if (!run.open || run.reset)
        return;
    if (s->payload_len > 0 && fresh <= s->payload_len && fresh > 0) {
        assert_int_equal(fapp_send(&run.app, run.slot, s->payload + s->payload_len - fresh, fresh), fresh);
        run.sent_bytes += fresh;
    }
    if ((s->flags & RTE_TCP_FIN_FLAG) && !run.fin) {
        run.fin = true;
        fapp_value_cmd(&run.app, run.slot, SHM_OP_SHUTDOWN, 0, 1 /* SHUT_WR */);
    }
    if (s->flags & RTE_TCP_RST_FLAG) {
        run.reset = true;
        fapp_close(&run.app, run.slot, true);
    }
}

static void
peer_sent(const struct frame *f)
{
    struct frame copy = *f;
    struct rte_mbuf *m = rte_pktmbuf_alloc(run.net.node[1].pool.rx);

    copy.at_us = run.event_us;
    if (run.rewriting)
        frame_rewrite(&copy, &run.rw);
    frames_add(&run.got, &copy);
    assert_non_null(m);
    memcpy(rte_pktmbuf_append(m, (uint16_t)copy.len), copy.bytes, copy.len);
    assert_int_equal(rte_ring_enqueue(run.net.wire[0], m), 0);
}

/* ---- one conversation --------------------------------------------------------------------------------------------------------------- */

static bool
find_first(const struct frames *script)
{
    struct segment s;

    for (size_t i = 0; i < script->n; i++)
        if (script->v[i].ours && segment_parse(&script->v[i], &s) && (s.flags & RTE_TCP_SYN_FLAG)) {
            run.first = s;
            return true;
        }
    fprintf(stderr, "isosock-replay: there is no SYN of the stack's\n");
    return false;
}

static void
play(const struct frames *script)
{
    struct segment s;
    uint64_t base_us = run.net.now_us + 1000 - script->v[0].at_us;

    for (size_t i = 0; i < script->n; i++) {
        const struct frame *f = &script->v[i];

        if (f->at_us + base_us > run.net.now_us) {
            run.event_us = f->at_us + base_us; /* timers that expire on the way answer for the next event */
            net_run(&run.net, f->at_us + base_us - run.net.now_us);
        }
        run.event_us = f->at_us + base_us;
        if (!segment_parse(f, &s))
            continue;
        if (f->ours)
            play_program(&s);
        else
            peer_sent(f);
        net_run(&run.net, 30);
        accept_and_read();
    }
    net_run(&run.net, END_US);
    run.over = true;
}

static void
tidy(void)
{
    if (run.open && !run.reset)
        fapp_close(&run.app, run.slot, true);
    if (run.listener != UINT32_MAX)
        fapp_close(&run.app, run.listener, false);
    fapp_leave(&run.app, run.app.member);
    net_until(&run.net, run.net.node[0].host->nb_apps == 0);
    net_run(&run.net, 1000);
    net_fini(&run.net);
}

/* The script again; run.got is what became of it. The caller frees it. */
static bool
converse(const struct frames *script, bool rewriting)
{
    static const struct net_maker maker = { .make = make_host, .poll = poll_node, .unmake = unmake_host };
    const struct stack_config cfg[2] = { net_stack_config(0), net_stack_config(1) };
    struct segment s;

    run = (struct run){ .script = script, .rewriting = rewriting, .listener = UINT32_MAX };
    if (script->n == 0 || !find_first(script))
        return false;
    memcpy(run.rw.our_mac, macs.ours, 6);
    memcpy(run.rw.peer_mac, macs.peers, 6);
    run.rw.our_addr = RTE_IPV4(10, 0, 0, 1);
    run.rw.peer_addr = RTE_IPV4(10, 0, 0, 2);
    net_init_with(&run.net, cfg, &maker);
    fapp_attach(&run.app, &run.net.node[0]);
    if (!script->v[0].ours && segment_parse(&script->v[0], &s))
        listen_on(s.dport);
    play(script);
    tidy();
    return true;
}

/* ---- cases ---------------------------------------------------------------------------------------------------------------------------- */

static bool
read_case(const char *path, struct frames *f)
{
    const struct ether_addrs *m = &macs;

    *f = (struct frames){ 0 };
    if (frames_read(f, path) != 0)
        return false;
    for (size_t i = 0; i < f->n; i++)
        f->v[i].ours = memcmp(f->v[i].bytes + 6, m->ours, 6) == 0;
    return true;
}

/* Where two conversations part, on stdout; true if they do not. */
static bool
same(const char *name, const struct frames *want, const struct frames *got)
{
    char text[128] = "";

    for (size_t i = 0; i < want->n && i < got->n; i++) {
        struct segment a, b;

        if (want->v[i].ours != got->v[i].ours) {
            printf("%s: frame %zu: %s\n", name, i + 1,
                   want->v[i].ours ? "the stack did not send it" : "the stack sends one more before it");
            return false;
        }
        if (segment_parse(&want->v[i], &a) && segment_parse(&got->v[i], &b) &&
            segment_differs(&a, &b, text, sizeof(text))[0] != '\0') {
            printf("%s: frame %zu: %s\n", name, i + 1, text);
            return false;
        }
    }
    if (want->n != got->n)
        printf("%s: %zu frames, not %zu\n", name, got->n, want->n);
    return want->n == got->n;
}

static bool
run_case(const char *path)
{
    struct frames want;
    bool ok = read_case(path, &want) && converse(&want, false) && same(path, &want, &run.got);

    if (ok)
        printf("%s: %zu frames, as recorded\n", path, want.n);
    frames_free(&run.got);
    frames_free(&want);
    return ok;
}

/* What comes out is had again until it stays as it is, since it is played by itself then. Takes over `first`. */
static bool
settle(const char *path, struct frames first)
{
    struct frames before = first;
    bool stable = false;

    for (unsigned i = 0; i < FIXPOINT_ROUNDS && !stable; i++) {
        if (!converse(&before, false))
            break;
        stable = before.n == run.got.n && same(path, &before, &run.got);
        frames_free(&before);
        before = run.got;
    }
    if (!stable)
        fprintf(stderr, "isosock-replay: %s does not come out twice the same\n", path);
    stable = stable && frames_write(&before, path) == 0;
    frames_free(&before);
    return stable;
}

static bool
renew_case(const char *path)
{
    struct frames want;

    return read_case(path, &want) && settle(path, want);
}

static bool
record_case(const char *raw, const char *address, const char *path)
{
    struct ip_addr a;
    struct frames f = { 0 }, tcp = { 0 };

    if (ip_addr_parse(address, &a) != 0 || frames_read(&f, raw) != 0) {
        fprintf(stderr, "isosock-replay: no IPv4 address, or no capture\n");
        return false;
    }
    for (size_t i = 0; i < f.n; i++) {
        struct segment s;

        if (!segment_parse(&f.v[i], &s))
            continue;
        f.v[i].ours = s.src == rte_be_to_cpu_32(ip_addr_to_v4(&a));
        frames_add(&tcp, &f.v[i]);
    }
    frames_free(&f);
    if (!converse(&tcp, true)) {
        frames_free(&tcp);
        return false;
    }
    frames_free(&tcp);
    return settle(path, run.got);
}

int
main(int argc, char **argv)
{
    bool ok = true;

    if (argc < 3 || (strcmp(argv[1], "record") == 0) != (argc == 5 && strcmp(argv[1], "record") == 0)) {
        fputs(usage, stderr);
        return 2;
    }
    if (net_eal_start() != 0)
        return 1;
    if (strcmp(argv[1], "record") == 0)
        return record_case(argv[2], argv[3], argv[4]) ? 0 : 1;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[1], "run") == 0)
            ok = run_case(argv[i]) && ok;
        else if (strcmp(argv[1], "renew") == 0)
            ok = renew_case(argv[i]) && ok;
        else {
            fputs(usage, stderr);
            return 2;
        }
    }
    return ok ? 0 : 1;
}
