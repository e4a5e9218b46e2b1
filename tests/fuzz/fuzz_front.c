/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuzz_net.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/**
 * @file
 * An application that writes anything anywhere in its region (sockets/shm.h: front), while the back-end is polled. Its neighbour on the same
 * stack still works at the end, and nothing of it is left when it has gone.
 */

#define PORT 80
#define SLOTS 8u
#define STEPS_MAX 600u
#define MEMBERS 4u
#define QUEUES 4u

struct world {
    struct lan lan;
    struct fapp good, bad, peer; /* good and bad on node 0, peer on node 1 */
    uint32_t client, listener, server; /* bad's connection to peer */
    uint32_t good_client, good_server;
    uint16_t members[MEMBERS];
    int queues[QUEUES];
};

static struct world w;
static int sink_fd[2];

static void
begin(void)
{
    fuzz_net_begin(&w.lan);
    fapp_attach(&w.good, &w.lan.node[0]);
    fapp_attach(&w.bad, &w.lan.node[0]);
    fapp_attach(&w.peer, &w.lan.node[1]);
    fapp_pair(&w.bad, &w.peer, PORT, &w.client, &w.listener, &w.server);
    w.good_client = fapp_open(&w.good);
    assert_int_equal(fapp_connect(&w.good, w.good_client, &w.peer.node->addr, PORT), 0);
    net_until(&w.lan, fapp_back(&w.peer, w.listener)->accept_ready == 1);
    assert_int_equal(fapp_accept(&w.peer, w.listener, &w.good_server), 0);
    memset(w.members, 0, sizeof(w.members));
    for (unsigned i = 0; i < QUEUES; i++)
        w.queues[i] = -1;
}

/* The neighbour's connection carries bytes both ways. */
static void
others_work(void)
{
    uint32_t had = fapp_back(&w.peer, w.good_server)->rx_tail;
    uint32_t got = fapp_back(&w.good, w.good_client)->rx_tail;
    char buf[8];

    assert_int_equal(fapp_send(&w.good, w.good_client, "alive", 5), 5);
    net_until(&w.lan, fapp_back(&w.peer, w.good_server)->rx_tail == had + 5);
    assert_int_equal(fapp_recv(&w.peer, w.good_server, buf, sizeof(buf)), 5);
    assert_memory_equal(buf, "alive", 5);
    assert_int_equal(fapp_send(&w.peer, w.good_server, "yes", 3), 3);
    net_until(&w.lan, fapp_back(&w.good, w.good_client)->rx_tail == got + 3);
    assert_int_equal(fapp_recv(&w.good, w.good_client, buf, sizeof(buf)), 3);
}

static void
end(void)
{
    struct fapp *bad = &w.bad;

    others_work();
    for (unsigned i = 0; i < MEMBERS; i++)
        if (w.members[i] != 0)
            fapp_leave(bad, w.members[i]);
    fapp_leave(bad, bad->member);
    net_run(&w.lan, 100000);
    others_work();
    fapp_leave(&w.good, w.good.member);
    fapp_leave(&w.peer, w.peer.member);
    fuzz_net_end(&w.lan, false);
}

/* ---- what it does ---------------------------------------------------------------------------------------------------------- */

static void
write_word(uint64_t off, uint32_t how, uint32_t value)
{
    uint32_t *word = (uint32_t *)(w.bad.front + off / 4 * 4);

    *word = how & 0x80 ? *word + value : value;
}

/* In the words of a socket, a ring, or anywhere before the chunks. */
static void
scribble(struct input *in)
{
    const struct shm_layout *l = &w.bad.layout;
    uint8_t where = input_u8(in);
    uint16_t off = input_u16(in);
    uint32_t value = input_u32(in);

    switch (where % 4) {
    case 0:
    case 1:
        write_word(l->front_socks_off + (where >> 2) % SLOTS * sizeof(struct shm_front_sock) +
                       off % sizeof(struct shm_front_sock),
                   where, value);
        break;
    case 2:
        write_word(l->front_rings_off + off % 512, where, value);
        break;
    default:
        write_word(((uint64_t)off << 16 | (value >> 16)) % l->front_chunks_off, where, value);
        break;
    }
}

/* Without rte_ring's own enqueue, which waits for its turn for ever in a ring that was scribbled over. */
static void
notify(uint32_t slot)
{
    struct rte_ring *ring = (struct rte_ring *)(w.bad.front + w.bad.layout.front_rings_off);
    uint32_t tail = ring->prod.tail;

    fapp_front(&w.bad, slot % SLOTS)->notified++;
    ((uint32_t *)(ring + 1))[tail & (SHM_RING_ENTRIES - 1)] = slot;
    ring->prod.head = tail + 1;
    ring->prod.tail = tail + 1;
}

static void
command(struct input *in)
{
    uint8_t to = input_u8(in);
    struct shm_front_sock *f = fapp_front(&w.bad, to % SLOTS);
    struct shm_cmd *cmd = &f->cmd[f->cmd_head % SHM_CMDS];
    size_t len;
    const uint8_t *bytes;

    memset(cmd, 0, sizeof(*cmd));
    cmd->op = input_u8(in);
    cmd->member = to & 0x80 ? input_u8(in) : w.bad.member;
    if (cmd->op == SHM_OP_BIND || cmd->op == SHM_OP_CONNECT || cmd->op == SHM_OP_CONNECT_FAST) {
        cmd->sa = addr_to_shm(to & 0x40 ? &w.peer.node->addr : &w.good.node->addr, input_u8(in));
        if (to & 0x20)
            cmd->sa.addr[3] = input_u32(in);
        if (cmd->op == SHM_OP_CONNECT_FAST)
            cmd->sa.n_bytes = (uint16_t)input_u32(in);
    } else {
        bytes = input_bytes(in, 8, &len);
        memcpy(cmd->bytes, bytes, len);
    }
    f->cmd_head++;
    notify(to % SLOTS);
}

static void
stream(struct input *in)
{
    uint8_t how = input_u8(in);
    uint32_t slot = how % SLOTS;
    struct shm_front_sock *f = fapp_front(&w.bad, slot);

    if (how & 8)
        f->rx_head = how & 0x80 ? fapp_back(&w.bad, slot)->rx_tail : f->rx_head + input_u16(in);
    else
        f->tx_tail += input_u16(in) * (how & 0x10 ? 8u : 1u);
    notify(slot);
}

/* The kernel's part of a family: processes and event queues come and go. */
static void
family(struct input *in)
{
    uint8_t how = input_u8(in);
    uint16_t *member = &w.members[how % MEMBERS];
    int *queue = &w.queues[how % QUEUES];

    if (how & 8) {
        if (*queue < 0) {
            *queue = app_eventq_add(w.bad.app, sink_fd[1]);
        } else {
            app_eventq_remove(w.bad.app, (uint32_t)*queue);
            *queue = -1;
        }
    } else if (*member == 0) {
        *member = fapp_fork(&w.bad);
    } else {
        fapp_leave(&w.bad, *member);
        *member = 0;
    }
}

/* The other end of its connection, which behaves. */
static void
peer_acts(struct input *in)
{
    static char bytes[8192];
    uint8_t how = input_u8(in);
    uint32_t n = input_u16(in) % sizeof(bytes);

    if (how & 1)
        fapp_recv(&w.peer, w.server, bytes, sizeof(bytes));
    else if (fapp_back(&w.peer, w.server)->status & SHM_ST_CONNECTED &&
             !(fapp_back(&w.peer, w.server)->status & (SHM_ST_GONE | SHM_ST_ERROR)))
        fapp_send(&w.peer, w.server, bytes, n);
}

static void
step(struct input *in)
{
    static const uint32_t times_us[] = { 10, 1000, 50000, 1000000 };
    uint8_t kind = input_u8(in);

    switch (kind % 8) {
    case 0:
    case 1:
        scribble(in);
        break;
    case 2:
        notify(input_u8(in));
        break;
    case 3:
        command(in);
        break;
    case 4:
        stream(in);
        break;
    case 5:
        family(in);
        break;
    case 6:
        peer_acts(in);
        break;
    default:
        net_run(&w.lan, times_us[(kind >> 3) % 4]);
        break;
    }
    if (kind & 0x80)
        node_poll(&w.lan.node[0]);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    FUZZ_CHECK(pipe2(sink_fd, O_NONBLOCK | O_CLOEXEC) == 0);
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
    end();
    return 0;
}
