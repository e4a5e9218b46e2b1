/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuzz_net.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sockets/control.h"
#include "sockets/server.h"

/**
 * @file
 * Messages on the control socket of a server with a worker behind it: several clients that connect, say anything (with descriptors that
 * nobody asked for), listen or do not, and go. Afterwards a tool still gets its answer, no application is left, and no descriptor.
 */

#define CLIENTS 4u
#define STEPS_MAX 64u
#define ANSWER "well"

struct client {
    int fd; /* -1: not connected */
    uint64_t family; /* what the last welcome said */
    uint32_t member;
};

struct world {
    struct lan lan;
    struct server *server;
    char path[108];
    pthread_t worker;
    struct client clients[CLIENTS];
    int tool_fd;
    unsigned idle_fds;
};

static struct world w;

/* Runs until the process ends. */
static void *
worker_main(void *arg)
{
    (void)arg;
    for (;;)
        if (node_poll(&w.lan.node[0]) == 0)
            usleep(50);
    return NULL;
}

static int
answer(void *ctx, const char *text, FILE *out)
{
    (void)ctx;
    if (text[0] == 'n')
        return -EINVAL;
    if (text[0] == 'l')
        for (unsigned i = 0; i < 5000; i++)
            fprintf(out, "line %u\n", i);
    fputs(ANSWER, out);
    return 0;
}

static int
dial(void)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct timeval patience = { .tv_sec = 20 };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    FUZZ_CHECK(fd >= 0);
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", w.path);
    FUZZ_CHECK(connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

/* The server has looked at everything that was sent before: it serves one connection after another. */
static void
tool_asks(void)
{
    union {
        struct ctl_msg msg;
        char bytes[sizeof(struct ctl_msg) + CTL_MAX_TEXT];
    } m;
    ssize_t n;

    m.msg = (struct ctl_msg){ .op = CTL_QUERY, .text_len = 2 };
    memcpy(m.msg.text, "hi", 2);
    FUZZ_CHECK(send(w.tool_fd, &m, sizeof(m.msg) + 2, 0) == (ssize_t)sizeof(m.msg) + 2);
    n = recv(w.tool_fd, &m, sizeof(m), 0);
    FUZZ_CHECK(n == (ssize_t)(sizeof(m.msg) + strlen(ANSWER)) && m.msg.op == CTL_TEXT);
    n = recv(w.tool_fd, &m, sizeof(m), 0);
    FUZZ_CHECK(n == (ssize_t)sizeof(m.msg) && m.msg.op == CTL_END && m.msg.status == 0);
}

static unsigned
count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    FUZZ_CHECK(dir != NULL);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static void
count_apps(struct host *h, void *arg, uint64_t now_us)
{
    (void)now_us;
    *(uint32_t *)arg = h->nb_apps;
}

/* ---- clients ------------------------------------------------------------------------------------------------------------------- */

static void
client_close(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void
client_send(const struct client *c, const void *data, size_t len, bool with_fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control;
    struct iovec iov = { .iov_base = RTE_PTR_ADD(data, 0), .iov_len = len };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    const int fds[3] = { 0, w.tool_fd, c->fd };

    if (with_fds) {
        struct cmsghdr *h;

        memset(&control, 0, sizeof(control));
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof(control.bytes);
        h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(fds));
        memcpy(CMSG_DATA(h), fds, sizeof(fds));
    }
    /* It may have been disconnected; that is its own fault. */
    if (sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        FUZZ_CHECK(errno == EPIPE || errno == ECONNRESET || errno == EAGAIN || errno == ETOOMANYREFS);
}

/* One message, if there is one; descriptors are closed, a welcome is remembered. */
static void
client_read(struct client *c)
{
    union {
        struct ctl_welcome welcome;
        char bytes[sizeof(struct ctl_msg) + CTL_MAX_TEXT];
    } m;
    union {
        struct cmsghdr align;
        char bytes[256];
    } control;
    struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    for (struct cmsghdr *h = n >= 0 ? CMSG_FIRSTHDR(&msg) : NULL; h != NULL; h = CMSG_NXTHDR(&msg, h)) {
        size_t fds = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (size_t i = 0; i < fds && h->cmsg_type == SCM_RIGHTS; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
            close(fd);
        }
    }
    if (n == (ssize_t)sizeof(m.welcome) && m.welcome.magic == CTL_MAGIC && m.welcome.status == 0) {
        c->family = m.welcome.family;
        c->member = m.welcome.member;
    }
}

static void
say_hello(struct input *in, struct client *c, uint8_t how)
{
    const struct client *parent = &w.clients[(how >> 5) % CLIENTS];
    struct ctl_hello h = { .magic = CTL_MAGIC,
                           .version = SHM_VERSION,
                           .kind = input_u8(in),
                           .parent_member = parent->member,
                           .family = parent->family };

    client_send(c, &h, sizeof(h), how & 0x10);
}

static void
say_message(struct input *in, struct client *c, uint8_t how)
{
    union {
        struct ctl_msg msg;
        char bytes[sizeof(struct ctl_msg) + 256];
    } m;
    size_t len;
    const uint8_t *text;

    memset(&m, 0, sizeof(m));
    m.msg.op = input_u8(in);
    m.msg.value = how & 0x20 ? input_u32(in) : input_u8(in);
    text = input_bytes(in, input_u8(in), &len);
    m.msg.text_len = how & 0x40 ? input_u32(in) : (uint32_t)len;
    memcpy(m.msg.text, text, len);
    client_send(c, &m, sizeof(m.msg) + len, how & 0x10);
}

static void
step(struct input *in)
{
    uint8_t how = input_u8(in);
    struct client *c = &w.clients[how % CLIENTS];
    const uint8_t *bytes;
    size_t len;

    if (c->fd < 0) {
        *c = (struct client){ .fd = dial() };
        say_hello(in, c, how);
        tool_asks();
        client_read(c);
        return;
    }
    switch ((how >> 2) % 4) {
    case 0:
        say_message(in, c, how);
        break;
    case 1:
        bytes = input_bytes(in, input_u8(in), &len);
        client_send(c, bytes, len, how & 0x10);
        break;
    case 2:
        tool_asks();
        client_read(c);
        break;
    default:
        client_close(c);
        break;
    }
}

/* ---- an input -------------------------------------------------------------------------------------------------------------------- */

/* The server learns of an end by its own epoll, and a tool's answer may be on its way before. */
static void
settle(void)
{
    uint32_t apps = UINT32_MAX;
    unsigned fds = 0;

    for (unsigned i = 0; i < 20000; i++) {
        FUZZ_CHECK(host_call(w.lan.node[0].host, count_apps, &apps) == 0);
        fds = count_fds();
        if (apps == 0 && fds == w.idle_fds)
            return;
        usleep(500);
    }
    fprintf(stderr, "%u applications, %u descriptors of %u\n", apps, fds, w.idle_fds);
    abort();
}

static void
remove_path(void)
{
    char *slash = strrchr(w.path, '/');

    unlink(w.path);
    *slash = '\0';
    rmdir(w.path);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const struct ctl_hello h = { .magic = CTL_MAGIC, .version = SHM_VERSION, .kind = CTL_KIND_TOOL };
    char dir[] = "/tmp/isosock-fuzz-XXXXXX";
    struct server_config sc;
    struct ctl_welcome welcome;
    char err[256] = "";

    (void)argc;
    (void)argv;
    fuzz_net_start(&w.lan);
    fuzz_net_begin(&w.lan);
    FUZZ_CHECK(mkdtemp(dir) != NULL);
    snprintf(w.path, sizeof(w.path), "%s/control", dir);
    atexit(remove_path);
    sc = (struct server_config){
        .path = w.path,
        .host = w.lan.node[0].host,
        .rings_per_instance = 1,
        .max_socks = 64,
        .tx_chunks = 4,
        .query = answer,
    };
    FUZZ_CHECK(pthread_create(&w.worker, NULL, worker_main, NULL) == 0);
    if (server_create(&w.server, &sc, err, sizeof(err)) != 0)
        fail_msg("%s", err);
    w.tool_fd = dial();
    FUZZ_CHECK(send(w.tool_fd, &h, sizeof(h), 0) == sizeof(h));
    FUZZ_CHECK(recv(w.tool_fd, &welcome, sizeof(welcome), 0) == sizeof(welcome) && welcome.status == 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        w.clients[i].fd = -1;
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };

    /* libFuzzer opens files of its own between inputs. */
    w.idle_fds = count_fds();
    for (unsigned n = 0; in.left > 0 && n < STEPS_MAX; n++)
        step(&in);
    for (unsigned i = 0; i < CLIENTS; i++)
        client_close(&w.clients[i]);
    tool_asks();
    settle();
    return 0;
}
