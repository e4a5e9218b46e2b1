/* SPDX-License-Identifier: BSD-3-Clause */
#include "back_net.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sockets/control.h"
#include "sockets/server.h"

/* A worker polls node 0 in a thread of its own, since the server waits for its answers. */
struct fixture {
    struct lan net;
    struct server *server;
    char dir[64];
    char path[108];
    pthread_t worker;
    int stop;
};

static void *
worker_main(void *arg)
{
    struct fixture *f = arg;

    while (!__atomic_load_n(&f->stop, __ATOMIC_ACQUIRE)) {
        if (node_poll(&f->net.node[0]) == 0)
            sched_yield();
    }
    host_calls_end(f->net.node[0].host);
    return NULL;
}

static int
answer(void *ctx, const char *text, FILE *out)
{
    unsigned long lines = 0;

    (void)ctx;
    if (sscanf(text, "lines %lu", &lines) != 1)
        return -EINVAL;
    for (unsigned long i = 0; i < lines; i++)
        fprintf(out, "this is line %lu\n", i);
    return 0;
}

static struct server_config
server_config(struct fixture *f)
{
    return (struct server_config){
        .path = f->path,
        .host = f->net.node[0].host,
        .rings_per_instance = 1,
        .max_socks = 64,
        .tx_chunks = 32,
        .query = answer,
    };
}

static int
setup(void **state)
{
    static struct fixture f;
    const struct stack_config cfg[2] = { net_stack_config(0), net_stack_config(1) };
    struct server_config sc;
    char err[256] = "";

    memset(&f, 0, sizeof(f));
    net_init(&f.net, cfg);
    snprintf(f.dir, sizeof(f.dir), "/tmp/isosock-test-XXXXXX");
    assert_non_null(mkdtemp(f.dir));
    snprintf(f.path, sizeof(f.path), "%s/control", f.dir);
    assert_int_equal(pthread_create(&f.worker, NULL, worker_main, &f), 0);
    sc = server_config(&f);
    if (server_create(&f.server, &sc, err, sizeof(err)) != 0)
        fail_msg("%s", err);
    *state = &f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    server_destroy(f->server);
    assert_int_equal(stat(f->path, &st), -1);
    __atomic_store_n(&f->stop, 1, __ATOMIC_RELEASE);
    pthread_join(f->worker, NULL);
    assert_int_equal(rmdir(f->dir), 0);
    net_fini(&f->net);
    return 0;
}

/* ---- a client ------------------------------------------------------------------------------------------------------------------ */

static int
dial(const struct fixture *f)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct timeval patience = { .tv_sec = 10 };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", f->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

/* One message and its descriptors; returns its length, 0 at the end. */
static ssize_t
receive(int fd, void *data, size_t len, int *fds, unsigned *nb_fds)
{
    union {
        struct cmsghdr align;
        char bytes[256];
    } control;
    struct iovec iov = { .iov_base = data, .iov_len = len };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);

    *nb_fds = 0;
    for (struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&msg) : NULL; c != NULL; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_type != SCM_RIGHTS)
            continue;
        *nb_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), *nb_fds * sizeof(int));
    }
    return n;
}

struct attached {
    int fd;
    struct ctl_welcome w;
    int fds[8];
    unsigned nb_fds;
};

static void
hello(struct attached *a, const struct fixture *f, struct ctl_hello h)
{
    a->fd = dial(f);
    assert_int_equal(send(a->fd, &h, sizeof(h), 0), sizeof(h));
    assert_int_equal(receive(a->fd, &a->w, sizeof(a->w), a->fds, &a->nb_fds), sizeof(a->w));
    assert_int_equal(a->w.magic, CTL_MAGIC);
    assert_int_equal(a->w.version, SHM_VERSION);
}

static void
attach(struct attached *a, const struct fixture *f)
{
    hello(a, f, (struct ctl_hello){ .magic = CTL_MAGIC, .version = SHM_VERSION, .kind = CTL_KIND_APP });
    assert_int_equal(a->w.status, 0);
    assert_int_equal(a->nb_fds, 5);
    assert_int_equal(a->w.nb_fds, 5);
}

static void
detach(struct attached *a)
{
    for (unsigned i = 0; i < a->nb_fds; i++)
        close(a->fds[i]);
    close(a->fd);
}

/* The connection is closed by the other side. */
static void
is_disconnected(int fd)
{
    char byte;

    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    close(fd);
}

static void
count_apps(struct host *h, void *arg, uint64_t now_us)
{
    (void)now_us;
    *(uint32_t *)arg = h->nb_apps;
}

/* Until the stack holds so many applications: the server learns of an end by its own epoll. */
static void
await_apps(struct fixture *f, uint32_t want)
{
    uint32_t n = UINT32_MAX;

    for (unsigned i = 0; i < 5000 && n != want; i++) {
        if (i > 0)
            usleep(1000);
        assert_int_equal(host_call(f->net.node[0].host, count_apps, &n), 0);
    }
    assert_int_equal(n, want);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------------------- */

static void
application_attaches(void **state)
{
    struct fixture *f = *state;
    struct attached a;
    const struct shm_stack_page *page;
    char *front;
    struct rte_ring *ring;
    struct stat st;

    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    attach(&a, f);
    assert_int_equal(a.w.member, 1);
    assert_int_equal(a.w.layout.max_socks, 64);
    assert_int_equal(a.w.layout.nb_rings_per_instance, 1);
    await_apps(f, 1);

    /* front: read and write; back, pool and page: read alone. */
    front = mmap(NULL, a.w.layout.front_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, a.fds[0], 0);
    assert_ptr_not_equal(front, MAP_FAILED);
    ring = (struct rte_ring *)(front + a.w.layout.front_rings_off);
    assert_int_equal(ring->size, SHM_RING_ENTRIES);
    munmap(front, a.w.layout.front_bytes);
    for (unsigned i = 1; i < 4; i++)
        assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, a.fds[i], 0), MAP_FAILED);
    page = mmap(NULL, sizeof(*page), PROT_READ, MAP_SHARED, a.fds[3], 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    assert_int_equal(page->alive, 1);
    assert_int_equal(page->nb_routes, 1);
    assert_int_equal(page->routes[0].prefix_len, 120);
    detach(&a);
    await_apps(f, 0);
}

/* By the regions alone, as a front-end does it: open a socket, die, and it is gone. */
static void
commands_through_the_regions(void **state)
{
    struct fixture *f = *state;
    struct attached a;
    const struct shm_back_sock *b;
    struct shm_front_sock *fs;
    char *front, *back;
    uint32_t slot = 0;

    attach(&a, f);
    front = mmap(NULL, a.w.layout.front_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, a.fds[0], 0);
    back = mmap(NULL, a.w.layout.back_bytes, PROT_READ, MAP_SHARED, a.fds[1], 0);
    assert_true(front != MAP_FAILED && back != MAP_FAILED);
    fs = (struct shm_front_sock *)(front + a.w.layout.front_socks_off);
    b = (const struct shm_back_sock *)(back + a.w.layout.back_socks_off);
    fs->cmd[0] = (struct shm_cmd){ .op = SHM_OP_OPEN, .member = (uint16_t)a.w.member };
    shm_store(&fs->cmd_head, 1);
    fs->notified++;
    assert_int_equal(rte_ring_mp_enqueue_elem((struct rte_ring *)(front + a.w.layout.front_rings_off), &slot, 4), 0);
    for (unsigned i = 0; i < 5000 && shm_load(&b->cmd_done) != 1; i++)
        usleep(1000);
    assert_int_equal(b->cmd_result[0], 0);
    assert_int_equal(b->status, SHM_ST_OPEN);
    detach(&a);
    await_apps(f, 0);
    munmap(front, a.w.layout.front_bytes);
    munmap(back, a.w.layout.back_bytes);
}

static void
refusals(void **state)
{
    struct fixture *f = *state;
    struct attached a;

    /* Newer and older ones alike. */
    for (uint32_t version = SHM_VERSION - 1; version <= SHM_VERSION + 1; version += 2) {
        hello(&a, f, (struct ctl_hello){ .magic = CTL_MAGIC, .version = version, .kind = CTL_KIND_APP });
        assert_int_equal(a.w.status, -EPROTO);
        assert_non_null(strstr(a.w.error, "version"));
        is_disconnected(a.fd);
    }

    hello(&a, f, (struct ctl_hello){ .magic = 1, .version = SHM_VERSION, .kind = CTL_KIND_APP });
    assert_int_equal(a.w.status, -EPROTO);
    is_disconnected(a.fd);

    hello(&a, f, (struct ctl_hello){ .magic = CTL_MAGIC, .version = SHM_VERSION, .kind = 77 });
    assert_int_equal(a.w.status, -EPROTO);
    is_disconnected(a.fd);

    hello(&a, f,
          (struct ctl_hello){ .magic = CTL_MAGIC, .version = SHM_VERSION, .kind = CTL_KIND_FORK, .family = 12345 });
    assert_int_equal(a.w.status, -EPERM);
    is_disconnected(a.fd);
    await_apps(f, 0);
}

/* Threads have credentials of their own for the system call, which glibc's function would set for all. */
static void
become(uid_t uid)
{
    assert_int_equal(syscall(SYS_setresuid, (uid_t)-1, uid, (uid_t)-1), 0);
}

/* Who is told the family's number by whatever way cannot join it as another user, nor take low ports that the daemon's user may take. */
static void
another_user(void **state)
{
    struct fixture *f = *state;
    struct attached parent, a;

    if (geteuid() != 0)
        skip();
    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(chmod(f->path, 0666), 0);
    attach(&parent, f);
    assert_true(f->net.node[0].host->apps[0]->privileged);
    become(65534);
    hello(&a, f,
          (struct ctl_hello){ .magic = CTL_MAGIC,
                              .version = SHM_VERSION,
                              .kind = CTL_KIND_FORK,
                              .family = parent.w.family,
                              .parent_member = parent.w.member });
    assert_int_equal(a.w.status, -EPERM);
    is_disconnected(a.fd);
    attach(&a, f);
    become(0);
    await_apps(f, 2);
    assert_false(f->net.node[0].host->apps[1]->privileged);
    detach(&a);
    detach(&parent);
    await_apps(f, 0);
}

static void
garbage(void **state)
{
    struct fixture *f = *state;
    static char big[40000];
    struct attached a;
    struct ctl_msg msg = { .op = 999 };
    struct ctl_welcome w;
    int fds[8];
    unsigned nb_fds;
    int fd = dial(f);

    memset(big, 0xa5, sizeof(big));
    assert_int_equal(send(fd, big, sizeof(big), 0), sizeof(big));
    is_disconnected(fd);
    fd = dial(f);
    assert_int_equal(send(fd, big, 3, 0), 3);
    assert_int_equal(receive(fd, &w, sizeof(w), fds, &nb_fds), sizeof(w));
    assert_int_equal(w.status, -EPROTO);
    is_disconnected(fd);

    attach(&a, f);
    assert_int_equal(send(a.fd, &msg, sizeof(msg), 0), sizeof(msg));
    is_disconnected(a.fd);
    await_apps(f, 0);
    for (unsigned i = 0; i < a.nb_fds; i++)
        close(a.fds[i]);
}

static void
children(void **state)
{
    struct fixture *f = *state;
    struct attached parent, child;

    attach(&parent, f);
    hello(&child, f,
          (struct ctl_hello){ .magic = CTL_MAGIC,
                              .version = SHM_VERSION,
                              .kind = CTL_KIND_FORK,
                              .family = parent.w.family,
                              .parent_member = parent.w.member });
    assert_int_equal(child.w.status, 0);
    assert_int_equal(child.w.member, 2);
    assert_int_equal(child.nb_fds, 0);
    await_apps(f, 1);
    detach(&parent);
    /* The family lives on in the child. */
    usleep(20000);
    await_apps(f, 1);
    detach(&child);
    await_apps(f, 0);
}

static int
create_queue(const struct attached *a, struct ctl_msg *reply)
{
    struct ctl_msg m = { .op = CTL_EVENTQ_CREATE };
    int fds[8];
    unsigned nb_fds;

    assert_int_equal(send(a->fd, &m, sizeof(m), 0), sizeof(m));
    assert_int_equal(receive(a->fd, reply, sizeof(*reply), fds, &nb_fds), sizeof(*reply));
    assert_int_equal(reply->op, CTL_EVENTQ_CREATE);
    assert_int_equal(nb_fds, reply->status == 0 ? 1 : 0);
    return nb_fds > 0 ? fds[0] : -1;
}

static void
event_queues(void **state)
{
    struct fixture *f = *state;
    struct ctl_msg reply, destroy = { .op = CTL_EVENTQ_DESTROY };
    struct attached a;
    int fds[SHM_MAX_EVENTQS];

    attach(&a, f);
    for (unsigned i = 0; i < SHM_MAX_EVENTQS; i++) {
        fds[i] = create_queue(&a, &reply);
        assert_int_equal(reply.status, 0);
        assert_int_equal(reply.value, i);
        assert_true(fcntl(fds[i], F_GETFL) & O_NONBLOCK);
    }
    assert_int_equal(create_queue(&a, &reply), -1);
    assert_int_equal(reply.status, -ENOSPC);
    destroy.value = 17;
    assert_int_equal(send(a.fd, &destroy, sizeof(destroy), 0), sizeof(destroy));
    destroy.value = 5000;
    assert_int_equal(send(a.fd, &destroy, sizeof(destroy), 0), sizeof(destroy));
    close(fds[17]);
    fds[17] = create_queue(&a, &reply);
    assert_int_equal(reply.value, 17);
    for (unsigned i = 0; i < SHM_MAX_EVENTQS; i++)
        close(fds[i]);
    detach(&a);
}

/* An answer of several messages, read slowly; then one that is refused. */
static void
tool_queries(void **state)
{
    struct fixture *f = *state;
    static const char ask[] = "lines 100000";
    union {
        struct ctl_msg m;
        char bytes[sizeof(struct ctl_msg) + CTL_MAX_TEXT];
    } u;
    struct attached a;
    size_t total = 0;
    int none[8];
    unsigned nb_fds;

    hello(&a, f, (struct ctl_hello){ .magic = CTL_MAGIC, .version = SHM_VERSION, .kind = CTL_KIND_TOOL });
    assert_int_equal(a.w.status, 0);
    u.m = (struct ctl_msg){ .op = CTL_QUERY, .text_len = sizeof(ask) - 1 };
    memcpy(u.m.text, ask, sizeof(ask) - 1);
    assert_int_equal(send(a.fd, &u, sizeof(u.m) + sizeof(ask) - 1, 0), sizeof(u.m) + sizeof(ask) - 1);
    usleep(20000);
    do {
        ssize_t n = receive(a.fd, &u, sizeof(u), none, &nb_fds);

        assert_true(n >= (ssize_t)sizeof(u.m));
        assert_int_equal(n, sizeof(u.m) + u.m.text_len);
        total += u.m.text_len;
    } while (u.m.op == CTL_TEXT);
    assert_int_equal(u.m.op, CTL_END);
    assert_int_equal(u.m.status, 0);
    assert_int_equal(total, 10 * 15 + 90 * 16 + 900 * 17 + 9000 * 18 + 90000 * 19);

    u.m = (struct ctl_msg){ .op = CTL_QUERY, .text_len = 4 };
    memcpy(u.m.text, "what", 4);
    assert_int_equal(send(a.fd, &u, sizeof(u.m) + 4, 0), sizeof(u.m) + 4);
    assert_int_equal(receive(a.fd, &u, sizeof(u), none, &nb_fds), sizeof(u.m));
    assert_int_equal(u.m.op, CTL_END);
    assert_int_equal(u.m.status, -EINVAL);
    close(a.fd);
}

static void
one_daemon_for_a_path(void **state)
{
    struct fixture *f = *state;
    struct server_config sc = server_config(f);
    struct server *second = NULL;
    char err[256];
    char longer[200];
    int fd;

    assert_int_equal(server_create(&second, &sc, err, sizeof(err)), -EADDRINUSE);
    assert_non_null(strstr(err, f->path));
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    sc.path = longer;
    assert_int_equal(server_create(&second, &sc, err, sizeof(err)), -ENAMETOOLONG);
    sc.path = "/nonexistent/control";
    assert_int_equal(server_create(&second, &sc, err, sizeof(err)), -ENOENT);

    /* What is no socket is left alone. */
    snprintf(longer, sizeof(longer), "%s/file", f->dir);
    fd = open(longer, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    sc.path = longer;
    assert_int_equal(server_create(&second, &sc, err, sizeof(err)), -EADDRINUSE);
    assert_int_equal(unlink(longer), 0);
}

static void
stale_file_is_replaced(void **state)
{
    struct fixture *f = *state;
    struct server_config sc = server_config(f);
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct server *second = NULL;
    char err[256];
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    /* As a daemon that was killed leaves it. */
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/stale", f->dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    close(fd);
    sc.path = sa.sun_path;
    assert_int_equal(server_create(&second, &sc, err, sizeof(err)), 0);
    server_destroy(second);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(application_attaches),
        T(commands_through_the_regions),
        T(refusals),
        T(garbage),
        T(another_user),
        T(children),
        T(event_queues),
        T(tool_queries),
        T(one_daemon_for_a_path),
        T(stale_file_is_replaced),
    };

    return net_eal_start() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
