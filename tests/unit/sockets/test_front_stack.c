/* SPDX-License-Identifier: BSD-3-Clause */
#include "test_front_stack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>
#include <rte_ring.h>
#include <rte_ring_elem.h>

#include "fdtable.h"
#include "front.h"
#include "isosock.h"

#define POOL_BYTES (4u << 20)
#define RING_BYTES (sizeof(struct rte_ring) + SHM_RING_ENTRIES * 4)

struct fake_sock {
    uint64_t queues; /* bit for each event queue that is subscribed */
    bool queued[64];
    uint32_t position[64];
    uint32_t pool_at; /* next free unit of the pool; the fake never reuses it */
};

static struct {
    struct shm_layout lay;
    char *front, *back, *pool;
    struct shm_stack_page *page;
    struct shm_back_sock *socks;
    struct fake_sock fake[FS_SOCKS];
    int control, queue_fds[64];
    uint32_t nb_queues, pool_units;
    bool hold_connects, lose, dead;
    int32_t options[SHM_OPT_NOTSENT_LOWAT + 1];
    char congestion[17];
    struct shm_key key;
    pthread_mutex_t lock; /* between the thread and the test */
    pthread_t thread;
} fs = { .lock = PTHREAD_MUTEX_INITIALIZER };

char fs_pattern[FS_PATTERN_BYTES];

/* ---- events --------------------------------------------------------------------------------------------------------------- */

static struct shm_back_eventq *
back_eventq(uint32_t q)
{
    return (struct shm_back_eventq *)(void *)(fs.back + fs.lay.back_eventqs_off) + q;
}

static struct shm_front_eventq *
front_eventq(uint32_t q)
{
    return (struct shm_front_eventq *)(void *)(fs.front + fs.lay.front_eventqs_off) + q;
}

static void
append_event(uint32_t slot, uint32_t q)
{
    struct shm_back_eventq *b = back_eventq(q);
    struct fake_sock *k = &fs.fake[slot];
    uint64_t one = 1;

    full_fence();
    if (fs.lose) {
        store_release(&b->overflow, b->overflow + 1);
    } else {
        if (k->queued[q] && (int32_t)(k->position[q] - load_acquire(&front_eventq(q)->head)) > 0)
            return;
        b->slot[b->tail % SHM_EVENTQ_ENTRIES] = slot;
        store_release(&b->tail, b->tail + 1);
        k->queued[q] = true;
        k->position[q] = b->tail;
    }
    full_fence();
    /* A queue that was just given back has no reader any more. */
    if (load_relaxed(&front_eventq(q)->sleeping) && write(fs.queue_fds[q], &one, sizeof(one)) < 0)
        assert_int_equal(errno, EPIPE);
}

/* Something of the socket has changed. */
static void
publish(uint32_t slot)
{
    struct shm_back_sock *b = &fs.socks[slot];
    uint32_t q;

    store_release(&b->event_seq, b->event_seq + 1);
    full_fence();
    if (load_relaxed(&front_sock(slot)->sleepers) & (SHM_SLEEP_READ | SHM_SLEEP_WRITE | SHM_SLEEP_CMD))
        syscall(SYS_futex, &b->event_seq, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    for (q = 0; q < fs.nb_queues; q++)
        if (fs.fake[slot].queues & (1ull << q))
            append_event(slot, q);
}

/* ---- commands ------------------------------------------------------------------------------------------------------------- */

static void
open_slot(uint32_t slot, uint32_t status)
{
    struct shm_back_sock *b = &fs.socks[slot];

    b->tx_acked = b->rx_tail = b->train_tail = b->accept_ready = b->tx_sent = 0;
    b->error = 0;
    b->sndbuf_bytes = FS_SNDBUF_BYTES;
    b->generation++;
    memset(&fs.fake[slot], 0, sizeof(fs.fake[slot]));
    store_release(&b->status, SHM_ST_OPEN | status);
}

static void
set_name(uint32_t slot, enum shm_end end, const struct shm_addr *a)
{
    shm_name_set((struct shm_back_name *)(void *)(fs.back + fs.lay.back_names_off) + slot,
                 (struct shm_back_more *)(void *)(fs.back + fs.lay.back_more_off) + slot, end, a);
}

static void
set_names(uint32_t slot)
{
    struct shm_addr a = { .addr = { 0, 0, htonl(0xffff), inet_addr(FS_ADDRESS) }, .port = 4321 };

    set_name(slot, SHM_LOCAL, &a);
    a.addr[3] = inet_addr(FS_NETWORK_PEER);
    a.port = 80;
    set_name(slot, SHM_PEER, &a);
}

static int
accept_into(uint32_t listener, uint32_t slot)
{
    struct shm_back_sock *l = &fs.socks[listener];

    if (l->accept_ready == 0)
        return -EAGAIN;
    open_slot(slot, SHM_ST_CONNECTED);
    set_names(slot);
    store_release(&l->accept_ready, l->accept_ready - 1);
    return 0;
}

static int
start_connect(uint32_t slot)
{
    set_names(slot);
    store_release(&fs.socks[slot].status, SHM_ST_OPEN | (fs.hold_connects ? SHM_ST_CONNECTING : SHM_ST_CONNECTED));
    return 0;
}

static int
execute(uint32_t slot, const struct shm_cmd *c)
{
    struct shm_back_sock *b = &fs.socks[slot];

    if (c->op == SHM_OP_OPEN) {
        assert_false(b->status & SHM_ST_OPEN);
        assert_int_equal(front_sock(slot)->tx_tail, 0);
        open_slot(slot, 0);
        return 0;
    }
    if (!(b->status & SHM_ST_OPEN))
        return -EBADF;
    switch (c->op) {
    case SHM_OP_BIND:
        set_name((uint32_t)(b - fs.socks), SHM_LOCAL, &c->sa);
        return c->sa.port == 99 ? -EADDRINUSE : 0;
    case SHM_OP_LISTEN:
        store_release(&b->status, SHM_ST_OPEN | SHM_ST_LISTEN);
        return 0;
    case SHM_OP_CONNECT:
        return start_connect(slot);
    case SHM_OP_ACCEPT:
        return accept_into(slot, c->slot);
    case SHM_OP_CLOSE:
        store_release(&b->status, 0);
        return 0;
    case SHM_OP_SETOPT:
        fs.options[c->opt.name] = c->opt.value;
        return 0;
    case SHM_OP_SETNAME:
        if (strncmp(c->text.value, "cubic", 16) != 0 && strncmp(c->text.value, "dctcp", 16) != 0)
            return -ENOENT;
        memcpy(fs.congestion, c->text.value, 16);
        return 0;
    case SHM_OP_SETKEY:
        fs.key = ((const struct shm_key *)(const void *)(fs.front + fs.lay.front_keys_off))[c->slot];
        return fs.key.kind == SHM_KEY_MD5 && fs.key.n_bytes == 0 ? -ENOENT : 0;
    case SHM_OP_SUBSCRIBE:
        fs.fake[slot].queues |= 1ull << c->evq.queue;
        return 0;
    case SHM_OP_UNSUBSCRIBE:
        fs.fake[slot].queues &= ~(1ull << c->evq.queue);
        return 0;
    default:
        return 0;
    }
}

static void
service(uint32_t slot)
{
    struct shm_front_sock *f = front_sock(slot);
    struct shm_back_sock *b = &fs.socks[slot];
    uint32_t n = load_acquire(&f->notified);

    store_release(&b->serviced, n);
    full_fence();
    while (b->cmd_done != load_acquire(&f->cmd_head)) {
        n = b->cmd_done;
        const struct shm_cmd *c = &f->cmd[n % SHM_CMDS];
        /* Who subscribes is told what he has not seen, and nothing else. */
        bool tell = c->op != SHM_OP_SUBSCRIBE || c->evq.seen != b->event_seq;

        b->cmd_result[n % SHM_CMDS] = execute(slot, c);
        store_release(&b->cmd_done, n + 1);
        if (tell)
            publish(slot);
    }
}

static struct rte_ring *
ring_at(uint32_t i)
{
    return (struct rte_ring *)(void *)(fs.front + fs.lay.front_rings_off + i * fs.lay.ring_bytes);
}

static void
serve_control(void)
{
    struct ctl_msg m;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } ctl = { 0 };
    struct iovec iov = { &m, sizeof(m) };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
    int fds[2];

    if (recv(fs.control, &m, sizeof(m), MSG_DONTWAIT) != sizeof(m) || m.op != CTL_EVENTQ_CREATE)
        return;
    assert_true(fs.nb_queues < 64);
    assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
    fs.queue_fds[fs.nb_queues] = fds[1];
    m.value = fs.nb_queues++;
    mh.msg_control = ctl.bytes;
    mh.msg_controllen = sizeof(ctl.bytes);
    ctl.align =
        (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
    memcpy(CMSG_DATA(&ctl.align), &fds[0], sizeof(int));
    assert_int_equal(sendmsg(fs.control, &mh, 0), sizeof(m));
    close(fds[0]);
}

static void *
run(void *arg)
{
    sigset_t all;

    (void)arg;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL); /* handlers run in the test's thread */
    for (;;) {
        uint32_t i, slot;
        bool idle = true;

        pthread_mutex_lock(&fs.lock);
        for (i = 0; i < fs.lay.nb_rings_per_instance; i++)
            while (rte_ring_sc_dequeue_bulk_elem(ring_at(i), &slot, sizeof(slot), 1, NULL) == 1) {
                service(slot);
                idle = false;
            }
        if (!fs.dead)
            serve_control();
        pthread_mutex_unlock(&fs.lock);
        if (idle)
            sched_yield();
    }
    return NULL;
}

/* ---- start ---------------------------------------------------------------------------------------------------------------- */

static uint64_t
place(uint64_t *end, uint64_t bytes)
{
    uint64_t at = (*end + 4095) & ~UINT64_C(4095);

    *end = at + bytes;
    return at;
}

static char *
map(uint64_t bytes)
{
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_true(p != MAP_FAILED);
    return p;
}

static void
lay_out(struct shm_layout *l)
{
    l->version = SHM_VERSION;
    l->max_socks = FS_SOCKS;
    l->nb_chunks = FS_CHUNKS;
    l->nb_smalls = FS_SMALLS;
    l->nb_instances = 1;
    l->nb_rings_per_instance = 2;
    l->ring_bytes = RING_BYTES;
    l->front_rings_off = place(&l->front_bytes, 2 * RING_BYTES);
    l->front_eventqs_off = place(&l->front_bytes, SHM_MAX_EVENTQS * sizeof(struct shm_front_eventq));
    l->front_private_off = place(&l->front_bytes, SHM_FRONT_PRIVATE_BYTES(FS_SOCKS, FS_CHUNKS));
    l->front_keys_off = place(&l->front_bytes, SHM_INFO_SLOTS * sizeof(struct shm_key));
    l->front_socks_off = place(&l->front_bytes, FS_SOCKS * sizeof(struct shm_front_sock));
    l->front_more_off = place(&l->front_bytes, FS_SOCKS * sizeof(struct shm_front_more));
    l->front_chunks_off = place(&l->front_bytes, (uint64_t)FS_CHUNKS * SHM_CHUNK_BYTES);
    l->front_smalls_off = place(&l->front_bytes, (uint64_t)FS_SMALLS * SHM_SMALL_BYTES);
    l->back_eventqs_off = place(&l->back_bytes, SHM_MAX_EVENTQS * sizeof(struct shm_back_eventq));
    l->back_info_off = place(&l->back_bytes, SHM_INFO_SLOTS * sizeof(struct shm_info));
    l->back_socks_off = place(&l->back_bytes, FS_SOCKS * sizeof(struct shm_back_sock));
    l->back_more_off = place(&l->back_bytes, FS_SOCKS * sizeof(struct shm_back_more));
    l->back_names_off = place(&l->back_bytes, FS_SOCKS * sizeof(struct shm_back_name));
    l->pool_bytes = POOL_BYTES;
    l->stack_bytes = sizeof(struct shm_stack_page);
}

static void
fill_page(void)
{
    fs.page->version = SHM_VERSION;
    fs.page->alive = 1;
    fs.page->aggregate = 1;
    fs.page->addr[2] = htonl(0xffff);
    fs.page->addr[3] = inet_addr(FS_ADDRESS);
    fs.page->nb_routes = 1;
    fs.page->routes[0] = (struct shm_route){ { 0, 0, htonl(0xffff), inet_addr("10.9.9.0") }, 120 };
}

static void
fill_pattern(void)
{
    uint32_t x = 12345;

    for (size_t i = 0; i < sizeof(fs_pattern); i++) {
        x = x * 1664525u + 1013904223u;
        fs_pattern[i] = (char)(x >> 24);
    }
}

void
fs_start(void)
{
    int pair[2];
    uint32_t i;

    fill_pattern();
    lay_out(&fs.lay);
    fs.front = map(fs.lay.front_bytes);
    fs.back = map(fs.lay.back_bytes);
    fs.pool = map(fs.lay.pool_bytes);
    fs.page = (struct shm_stack_page *)(void *)map(fs.lay.stack_bytes);
    fs.socks = (struct shm_back_sock *)(void *)(fs.back + fs.lay.back_socks_off);
    fs.pool_units = 1;
    memset(fs.options, 0xff, sizeof(fs.options));
    fill_page();
    for (i = 0; i < 2; i++) {
        struct rte_ring *r = ring_at(i);

        r->size = SHM_RING_ENTRIES;
        r->mask = SHM_RING_ENTRIES - 1;
        r->capacity = SHM_RING_ENTRIES - 1;
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    fs.control = pair[0];
    front_adopt(&fs.lay, fs.front, fs.back, fs.pool, fs.page);
    front->control_fd = front_hide_fd(pair[1]);
    front->member = 1;
    front->state = FRONT_ATTACHED;
    assert_int_equal(pthread_create(&fs.thread, NULL, run, NULL), 0);
}

int
fs_teardown(void **state)
{
    (void)state;
    fs_hold_connects(false);
    fs_lose_events(false);
    fs_assert_all_free();
    return 0;
}

void
fs_assert_all_free(void)
{
    uint32_t slots[FS_SOCKS], chunks[FS_CHUNKS], smalls[FS_SMALLS], i;

    fs_settle();
    slot_reap(UINT32_MAX);
    for (i = 0; i < FS_CHUNKS; i++) {
        chunks[i] = chunk_alloc();
        assert_int_not_equal(chunks[i], SHM_NO_CHUNK);
    }
    assert_int_equal(chunk_alloc(), SHM_NO_CHUNK);
    for (i = 0; i < FS_CHUNKS; i++)
        chunk_free(chunks[i]);
    for (i = 0; i < FS_SMALLS; i++) {
        smalls[i] = small_alloc();
        assert_int_not_equal(smalls[i], UINT32_MAX);
    }
    assert_int_equal(small_alloc(), UINT32_MAX);
    for (i = 0; i < FS_SMALLS; i++)
        small_free(smalls[i]);
    for (i = 0; i < FS_SOCKS; i++) {
        slots[i] = slot_alloc();
        assert_int_not_equal(slots[i], SHM_NO_SLOT);
        assert_int_equal(front_sock(slots[i])->tx_small, 0);
        for (uint32_t d = 0; d < SHM_TX_CHUNKS * SHM_CHUNK_BYTES; d += SHM_CHUNK_BYTES)
            assert_int_equal(*tx_chunk(slots[i], d), 0);
    }
    assert_int_equal(slot_alloc(), SHM_NO_SLOT);
    for (i = 0; i < FS_SOCKS; i++)
        slot_free(slots[i]);
}

/* ---- what the network does ------------------------------------------------------------------------------------------------ */

uint32_t
fs_slot(int fd)
{
    struct obj *o = fd_peek(fd);

    assert_non_null(o);
    assert_int_not_equal(o->slot, SHM_NO_SLOT);
    return o->slot;
}

int
fs_connected(int type_flags)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(80) };
    int fd = iso_socket(AF_INET, SOCK_STREAM | type_flags, 0), rc;

    sa.sin_addr.s_addr = inet_addr(FS_NETWORK_PEER);
    rc = iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa));
    if (rc != 0 && errno == EINPROGRESS) {
        fs_settle();
        rc = iso_connect(fd, (struct sockaddr *)&sa, sizeof(sa));
    }
    assert_int_equal(rc, 0);
    fs_settle();
    return fd;
}

static uint32_t
build_train(const char *data, size_t n, size_t segment_bytes)
{
    uint32_t first = fs.pool_units, at = first;

    while (n > 0) {
        struct shm_segment *s = (struct shm_segment *)(void *)(fs.pool + (uint64_t)at * 64);
        size_t part = n < segment_bytes ? n : segment_bytes;
        uint32_t units = (uint32_t)((sizeof(*s) + 7 + part + 63) / 64);

        assert_true((at + units) * 64u < POOL_BYTES);
        s->data_off = sizeof(*s) + 7; /* as payload lies behind headers: at no alignment */
        s->n_bytes = (uint32_t)part;
        memcpy((char *)s + s->data_off, data, part);
        data += part;
        n -= part;
        at += units;
        s->next = n > 0 ? at : 0;
    }
    fs.pool_units = at;
    return first;
}

void
fs_deliver(uint32_t slot, const void *data, size_t n, size_t segment_bytes)
{
    struct shm_back_sock *b = &fs.socks[slot];

    pthread_mutex_lock(&fs.lock);
    if (fs.pool_units > POOL_BYTES / 64 / 2)
        fs.pool_units = 1;
    b->trains[b->train_tail % SHM_TRAINS] = (struct shm_train){ build_train(data, n, segment_bytes), (uint32_t)n };
    store_release(&b->train_tail, b->train_tail + 1);
    store_release(&b->rx_tail, b->rx_tail + (uint32_t)n);
    publish(slot);
    pthread_mutex_unlock(&fs.lock);
}

static void
add_status(uint32_t slot, uint32_t st)
{
    store_release(&fs.socks[slot].status, fs.socks[slot].status | st);
    publish(slot);
}

void
fs_fin(uint32_t slot)
{
    pthread_mutex_lock(&fs.lock);
    add_status(slot, SHM_ST_FIN);
    pthread_mutex_unlock(&fs.lock);
}

void
fs_error(uint32_t slot, int err)
{
    pthread_mutex_lock(&fs.lock);
    fs.socks[slot].error = err;
    add_status(slot, SHM_ST_ERROR | SHM_ST_GONE);
    pthread_mutex_unlock(&fs.lock);
}

void
fs_incoming(uint32_t listener)
{
    pthread_mutex_lock(&fs.lock);
    store_release(&fs.socks[listener].accept_ready, fs.socks[listener].accept_ready + 1);
    publish(listener);
    pthread_mutex_unlock(&fs.lock);
}

void
fs_ack(uint32_t slot, uint32_t n)
{
    struct shm_back_sock *b = &fs.socks[slot];

    pthread_mutex_lock(&fs.lock);
    store_release(&b->tx_acked, b->tx_acked + n);
    publish(slot);
    pthread_mutex_unlock(&fs.lock);
}

void
fs_stamp(uint32_t slot, uint32_t pos, uint32_t kind, uint64_t at_us)
{
    struct shm_back_more *b = (struct shm_back_more *)(void *)(fs.back + fs.lay.back_more_off) + slot;

    pthread_mutex_lock(&fs.lock);
    b->stamp[b->stamp_tail % SHM_STAMPS] = (struct shm_stamp){ pos, kind, at_us };
    store_release(&b->stamp_tail, b->stamp_tail + 1);
    publish(slot);
    pthread_mutex_unlock(&fs.lock);
}

void
fs_transmit(uint32_t slot, uint32_t n)
{
    struct shm_back_sock *b = &fs.socks[slot];

    pthread_mutex_lock(&fs.lock);
    store_release(&b->tx_sent, b->tx_sent + n);
    publish(slot);
    pthread_mutex_unlock(&fs.lock);
}

uint32_t
fs_sent_bytes(uint32_t slot)
{
    return load_acquire(&front_sock(slot)->tx_tail);
}

void
fs_sent(uint32_t slot, uint32_t pos, void *out, size_t n)
{
    const struct shm_front_sock *f = front_sock(slot);
    char *to = out;

    for (; n > 0; n--, pos++) {
        uint32_t d = pos - f->tx_base;

        if (d < SHM_SMALL_BYTES && f->tx_small != 0)
            *to++ = small_at(f->tx_small - 1u)[d];
        else
            *to++ = chunk_at(*tx_chunk(slot, d) - 1u)[d % SHM_CHUNK_BYTES];
    }
}

void
fs_assert_fails(ssize_t rc, int err)
{
    assert_int_equal(rc, -1);
    assert_int_equal(errno, err);
}

void
fs_hold_connects(bool hold)
{
    fs.hold_connects = hold;
}

void
fs_connect_done(uint32_t slot)
{
    pthread_mutex_lock(&fs.lock);
    store_release(&fs.socks[slot].status, SHM_ST_OPEN | SHM_ST_CONNECTED);
    publish(slot);
    pthread_mutex_unlock(&fs.lock);
}

void
fs_pause(void)
{
    pthread_mutex_lock(&fs.lock);
}

void
fs_resume(void)
{
    pthread_mutex_unlock(&fs.lock);
}

unsigned
fs_notifications(void)
{
    return rte_ring_count(ring_at(0)) + rte_ring_count(ring_at(1));
}

void
fs_producer_begin(void)
{
    for (uint32_t i = 0; i < 2; i++)
        __atomic_add_fetch(&ring_at(i)->prod.head, 1, __ATOMIC_ACQ_REL);
}

void
fs_producer_end(uint32_t slot)
{
    for (uint32_t i = 0; i < 2; i++) {
        struct rte_ring *r = ring_at(i);

        uint32_t tail = __atomic_load_n(&r->prod.tail, __ATOMIC_RELAXED);

        __atomic_store_n(&((uint32_t *)(r + 1))[tail & r->mask], slot, __ATOMIC_RELAXED);
        __atomic_add_fetch(&r->prod.tail, 1, __ATOMIC_RELEASE);
    }
}

void
fs_settle(void)
{
    unsigned left = 1;

    while (left > 0) {
        pthread_mutex_lock(&fs.lock);
        left = fs_notifications();
        pthread_mutex_unlock(&fs.lock);
        sched_yield();
    }
}

void
fs_lose_events(bool lose)
{
    pthread_mutex_lock(&fs.lock);
    fs.lose = lose;
    pthread_mutex_unlock(&fs.lock);
}

int32_t
fs_option(uint32_t name)
{
    return fs.options[name];
}

const struct shm_key *
fs_key(void)
{
    return &fs.key;
}

const char *
fs_congestion(void)
{
    return fs.congestion;
}

void
fs_die(void)
{
    pthread_mutex_lock(&fs.lock);
    fs.dead = true;
    close(fs.control);
    pthread_mutex_unlock(&fs.lock);
}
