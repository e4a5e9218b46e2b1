/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <rte_common.h>

#include "sockets/app.h"
#include "sockets/arena.h"
#include "sockets/control.h"

#define DEFAULT_MAX_SOCKS 65536u
#define DEFAULT_TX_CHUNKS 4096u
#define DEFAULT_FILE_MODE 0600u
#define MAX_CLIENTS 16384u
#define EVENT_BATCH 64
#define REAP_INTERVAL_MS 500
#define WAKE_PIPE_BYTES 4096
#define WELCOME_FDS_MAX (4u + SHM_MAX_INSTANCES)

/** The processes that share an arena, as the server sees them. */
struct family {
    uint64_t token;
    uid_t uid;
    struct app *app; /**< the worker's: touched by host_call alone */
    int doorbell_fd[SHM_MAX_INSTANCES]; /**< one for each worker */
    unsigned nb_doorbells;
    unsigned nb_members;
    struct family *next;
    struct {
        int read_fd; /**< kept open, so that a write never raises SIGPIPE */
        int write_fd;
        unsigned refs; /**< members that use it */
    } evq[SHM_MAX_EVENTQS];
};

struct client {
    struct server *srv;
    int fd;
    enum ctl_kind kind; /**< 0 until it has said hello */
    struct ucred peer;
    struct family *family;
    uint16_t member;
    uint64_t evqs[SHM_MAX_EVENTQS / 64]; /**< event queues that this process uses */
    char *reply; /**< CTL_KIND_TOOL: the answer that is being sent; NULL = none */
    size_t reply_bytes, reply_sent;
    int reply_status;
    struct client *next, **link;
};

struct server {
    struct server_config cfg;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    int listen_fd, epoll_fd, stop_fd, pool_fd, page_fd;
    int spare_fd; /**< given up for a moment when descriptors run out, to turn a client away */
    uint64_t page_bytes;
    pthread_t thread;
    struct client *clients;
    struct family *families;
    unsigned nb_clients;
    unsigned nb_arenas; /**< made and not yet reaped */
    unsigned nb_families;
};

union message {
    struct ctl_hello hello;
    struct ctl_msg msg;
    char bytes[sizeof(struct ctl_msg) + CTL_MAX_TEXT];
};

static void
close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* ---- calls into the worker ------------------------------------------------------------------------------------------------- */

struct app_call {
    struct arena *arena;
    bool privileged;
    struct app *app;
    uint32_t number; /* a member or a queue */
    pid_t pid;
    int fd;
    int result;
};

static void
call_create(struct host *h, void *arg, uint64_t now_us)
{
    struct app_call *c = arg;

    (void)now_us;
    c->app = app_create(h, c->arena, c->privileged);
}

static void
call_join(struct host *h, void *arg, uint64_t now_us)
{
    struct app_call *c = arg;

    (void)h;
    (void)now_us;
    c->result = app_member_join(c->app, (uint16_t)c->number, c->pid);
}

/* An application whose first member could not join: nobody will ever leave it. */
static void
call_discard(struct host *h, void *arg, uint64_t now_us)
{
    struct app_call *c = arg;

    (void)now_us;
    (void)h;
    app_destroy(c->app);
}

static void
call_leave(struct host *h, void *arg, uint64_t now_us)
{
    struct app_call *c = arg;

    (void)h;
    (void)now_us;
    app_member_leave(c->app, (uint16_t)c->number);
}

static void
call_set_pid(struct host *h, void *arg, uint64_t now_us)
{
    struct app_call *c = arg;

    (void)h;
    (void)now_us;
    app_member_set_pid(c->app, (uint16_t)c->number, c->pid);
}

static void
call_eventq_add(struct host *h, void *arg, uint64_t now_us)
{
    struct app_call *c = arg;

    (void)h;
    (void)now_us;
    c->result = app_eventq_add(c->app, c->fd);
}

static void
call_eventq_remove(struct host *h, void *arg, uint64_t now_us)
{
    struct app_call *c = arg;

    (void)h;
    (void)now_us;
    app_eventq_remove(c->app, c->number);
}

/* ---- sending ------------------------------------------------------------------------------------------------------------------ */

/* Never blocks: whoever does not read is disconnected. */
static int
send_with_fds(int fd, const void *data, size_t len, const int *fds, unsigned nb_fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(WELCOME_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = { .iov_base = RTE_PTR_ADD(data, 0), .iov_len = len };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (nb_fds > 0) {
        struct cmsghdr *c;

        memset(&control, 0, sizeof(control));
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(nb_fds * sizeof(int));
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(nb_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, nb_fds * sizeof(int));
    }
    return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len ? 0 : -errno;
}

static void
welcome_init(struct ctl_welcome *w, int status)
{
    *w = (struct ctl_welcome){
        .magic = CTL_MAGIC,
        .version = SHM_VERSION,
        .status = status,
        .stack_pid = (uint32_t)getpid(),
    };
}

__attribute__((format(printf, 3, 4))) static int
refuse(struct client *c, int status, const char *fmt, ...)
{
    struct ctl_welcome w;
    va_list ap;

    welcome_init(&w, status);
    va_start(ap, fmt);
    vsnprintf(w.error, sizeof(w.error), fmt, ap);
    va_end(ap);
    send_with_fds(c->fd, &w, sizeof(w), NULL, 0);
    return -1;
}

static int
send_answer(struct client *c, uint32_t op, int status, uint32_t value, const int *fds, unsigned nb_fds)
{
    struct ctl_msg m = { .op = op, .status = status, .value = value };

    return send_with_fds(c->fd, &m, sizeof(m), fds, nb_fds);
}

/* ---- hello ---------------------------------------------------------------------------------------------------------------------- */

static void
family_free(struct server *srv, struct family *f)
{
    struct family **link = &srv->families;

    while (*link != NULL && *link != f)
        link = &(*link)->next;
    if (*link == f) {
        *link = f->next;
        srv->nb_families--;
    }
    for (unsigned i = 0; i < SHM_MAX_EVENTQS; i++) {
        if (f->evq[i].refs > 0) {
            close(f->evq[i].read_fd);
            close(f->evq[i].write_fd);
        }
    }
    for (unsigned i = 0; i < f->nb_doorbells; i++)
        close(f->doorbell_fd[i]);
    free(f);
}

static unsigned
nb_rings(const struct server *srv)
{
    long cpus = sysconf(_SC_NPROCESSORS_CONF);

    if (srv->cfg.rings_per_instance != 0)
        return RTE_MIN(srv->cfg.rings_per_instance, SHM_MAX_CPUS);
    return (unsigned)RTE_MIN(RTE_MAX(cpus, 1L), (long)SHM_MAX_CPUS);
}

static int
doorbells_create(struct server *srv, struct family *f)
{
    while (f->nb_doorbells < host_nb_nets(srv->cfg.host)) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        int rc;

        if (fd < 0)
            return -errno;
        f->doorbell_fd[f->nb_doorbells] = fd;
        rc = net_doorbell_add(host_net(srv->cfg.host, f->nb_doorbells++), fd);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Regions, doorbells, and the stack's struct app. Returns 0 or -errno; with *out the caller has everything. */
static int
family_create(struct server *srv, uid_t uid, struct family **out, struct arena **arena)
{
    struct arena_config ac = {
        .max_socks = srv->cfg.max_socks,
        .tx_chunks = srv->cfg.tx_chunks,
        .nb_rings = nb_rings(srv),
        .nb_instances = host_nb_nets(srv->cfg.host),
        .pool_bytes = host_pool(srv->cfg.host)->bytes,
        .stack_bytes = srv->page_bytes,
    };
    struct family *f = calloc(1, sizeof(*f));
    struct app_call call = { 0 };
    int rc;

    if (f == NULL)
        return -ENOMEM;
    f->uid = uid;
    if (getrandom(&f->token, sizeof(f->token), 0) != sizeof(f->token)) {
        rc = -errno;
        family_free(srv, f);
        return rc;
    }
    rc = doorbells_create(srv, f);
    if (rc == 0)
        rc = arena_create(arena, &ac);
    if (rc != 0) {
        family_free(srv, f);
        return rc;
    }
    srv->nb_arenas++;
    call.arena = *arena;
    call.privileged = uid == 0 || uid == geteuid();
    rc = host_call(srv->cfg.host, call_create, &call);
    if (rc != 0 || call.app == NULL) {
        arena_release(*arena);
        family_free(srv, f);
        return rc != 0 ? rc : -ENOMEM;
    }
    f->app = call.app;
    f->next = srv->families;
    srv->families = f;
    srv->nb_families++;
    *out = f;
    return 0;
}

static int
join(struct client *c, struct family *f, uint32_t parent)
{
    struct app_call call = { .app = f->app, .number = parent, .pid = c->peer.pid };
    int rc = host_call(c->srv->cfg.host, call_join, &call);

    if (rc != 0)
        return rc;
    if (call.result < 0)
        return call.result;
    c->family = f;
    c->member = (uint16_t)call.result;
    f->nb_members++;
    return 0;
}

static int
welcome_app(struct client *c, const struct arena *a)
{
    struct server *srv = c->srv;
    int back_fd = arena_back_readonly_fd(a);
    int fds[WELCOME_FDS_MAX] = { a->front_fd, back_fd, srv->pool_fd, srv->page_fd };
    unsigned nb_fds = 4 + c->family->nb_doorbells;
    struct ctl_welcome w;
    int rc;

    if (back_fd < 0)
        return back_fd;
    memcpy(&fds[4], c->family->doorbell_fd, c->family->nb_doorbells * sizeof(int));
    welcome_init(&w, 0);
    w.member = c->member;
    w.family = c->family->token;
    w.nb_fds = nb_fds;
    w.layout = a->layout;
    rc = send_with_fds(c->fd, &w, sizeof(w), fds, nb_fds);
    close(back_fd);
    return rc;
}

static int
hello_app(struct client *c)
{
    struct family *f = NULL;
    struct arena *a = NULL;
    int rc = family_create(c->srv, c->peer.uid, &f, &a);

    if (rc != 0)
        return refuse(c, rc, "the stack has no room for another application: %s", strerror(-rc));
    rc = join(c, f, 0);
    if (rc != 0) {
        struct app_call call = { .app = f->app };

        arena_close_fds(a);
        host_call(c->srv->cfg.host, call_discard, &call);
        family_free(c->srv, f);
        return refuse(c, rc, "the stack has no room for another process: %s", strerror(-rc));
    }
    rc = welcome_app(c, a);
    arena_close_fds(a);
    return rc;
}

static struct client *
find_member(struct server *srv, const struct family *f, uint32_t member)
{
    for (struct client *c = srv->clients; c != NULL; c = c->next)
        if (c->family == f && c->member == member)
            return c;
    return NULL;
}

static int
hello_fork(struct client *c, const struct ctl_hello *h)
{
    struct family *f = c->srv->families;
    const struct client *parent;
    struct ctl_welcome w;
    int rc;

    while (f != NULL && f->token != h->family)
        f = f->next;
    parent = f != NULL ? find_member(c->srv, f, h->parent_member) : NULL;
    if (parent == NULL || f->uid != c->peer.uid)
        return refuse(c, -EPERM, "no such family of processes, or another user's");
    rc = join(c, f, h->parent_member);
    if (rc != 0)
        return refuse(c, rc, "the stack has no room for another process: %s", strerror(-rc));
    for (unsigned i = 0; i < SHM_MAX_EVENTQS; i++)
        f->evq[i].refs += (parent->evqs[i / 64] >> (i % 64)) & 1;
    memcpy(c->evqs, parent->evqs, sizeof(c->evqs));
    welcome_init(&w, 0);
    w.member = c->member;
    w.family = f->token;
    return send_with_fds(c->fd, &w, sizeof(w), NULL, 0);
}

static int
hello(struct client *c, const union message *m, size_t len)
{
    const struct ctl_hello *h = &m->hello;
    struct ctl_welcome w;

    if (len != sizeof(*h) || h->magic != CTL_MAGIC)
        return refuse(c, -EPROTO, "this is isosock's control socket, which speaks another protocol");
    if (h->version != SHM_VERSION)
        return refuse(c, -EPROTO, "protocol version %u is not spoken here, only %u: use the isosock of the same build",
                      h->version, SHM_VERSION);
    switch (h->kind) {
    case CTL_KIND_APP:
        c->kind = CTL_KIND_APP;
        return hello_app(c);
    case CTL_KIND_FORK:
        c->kind = CTL_KIND_APP;
        return hello_fork(c, h);
    case CTL_KIND_TOOL:
        c->kind = CTL_KIND_TOOL;
        welcome_init(&w, 0);
        return send_with_fds(c->fd, &w, sizeof(w), NULL, 0);
    default:
        return refuse(c, -EPROTO, "a client of unknown kind %u", h->kind);
    }
}

/* ---- an application's requests ----------------------------------------------------------------------------------------------------- */

static int
eventq_create(struct client *c)
{
    struct family *f = c->family;
    struct app_call call = { .app = f->app };
    int fds[2];
    unsigned i;
    int rc;

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return send_answer(c, CTL_EVENTQ_CREATE, -errno, 0, NULL, 0);
    fcntl(fds[1], F_SETPIPE_SZ, WAKE_PIPE_BYTES);
    call.fd = fds[1];
    rc = host_call(c->srv->cfg.host, call_eventq_add, &call);
    if (rc == 0 && call.result < 0)
        rc = call.result;
    if (rc != 0) {
        close(fds[0]);
        close(fds[1]);
        return send_answer(c, CTL_EVENTQ_CREATE, rc, 0, NULL, 0);
    }
    i = (unsigned)call.result;
    f->evq[i].read_fd = fds[0];
    f->evq[i].write_fd = fds[1];
    f->evq[i].refs = 1;
    c->evqs[i / 64] |= UINT64_C(1) << (i % 64);
    return send_answer(c, CTL_EVENTQ_CREATE, 0, i, fds, 1);
}

static void
eventq_drop(struct client *c, unsigned i)
{
    struct family *f = c->family;
    struct app_call call = { .app = f->app, .number = i };

    if (i >= SHM_MAX_EVENTQS || !(c->evqs[i / 64] >> (i % 64) & 1))
        return;
    c->evqs[i / 64] &= ~(UINT64_C(1) << (i % 64));
    if (--f->evq[i].refs > 0)
        return;
    host_call(c->srv->cfg.host, call_eventq_remove, &call);
    close(f->evq[i].read_fd);
    close(f->evq[i].write_fd);
}

static int
app_message(struct client *c, const struct ctl_msg *m, size_t len)
{
    if (len < sizeof(*m))
        return -1;
    switch (m->op) {
    case CTL_EVENTQ_CREATE:
        return eventq_create(c);
    case CTL_EVENTQ_DESTROY:
        eventq_drop(c, m->value);
        return 0;
    case CTL_HERE:
        return 0;
    default:
        return -1;
    }
}

/* ---- a tool's questions ---------------------------------------------------------------------------------------------------------------- */

static void
watch(struct client *c, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = c };

    epoll_ctl(c->srv->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

/* As much of the answer as the socket takes; the rest when it takes more. */
static int
reply_continue(struct client *c)
{
    union {
        struct ctl_msg msg;
        char bytes[sizeof(struct ctl_msg) + CTL_MAX_TEXT];
    } out;

    while (c->reply != NULL) {
        size_t n = RTE_MIN(c->reply_bytes - c->reply_sent, (size_t)CTL_MAX_TEXT);
        bool end = n == 0;
        int rc;

        out.msg = (struct ctl_msg){ .op = end ? CTL_END : CTL_TEXT, .text_len = (uint32_t)n };
        out.msg.status = end ? c->reply_status : 0;
        memcpy(out.msg.text, c->reply + c->reply_sent, n);
        rc = send_with_fds(c->fd, &out, sizeof(out.msg) + n, NULL, 0);
        if (rc == -EAGAIN) {
            watch(c, EPOLLIN | EPOLLOUT);
            return 0;
        }
        if (rc != 0)
            return rc;
        c->reply_sent += n;
        if (end) {
            free(c->reply);
            c->reply = NULL;
        }
    }
    watch(c, EPOLLIN);
    return 0;
}

static int
tool_message(struct client *c, const struct ctl_msg *m, size_t len)
{
    struct server_config *cfg = &c->srv->cfg;
    char text[256];
    FILE *out;

    if (len < sizeof(*m) || m->op != CTL_QUERY || m->text_len != len - sizeof(*m) || m->text_len >= sizeof(text) ||
        c->reply != NULL)
        return -1;
    memcpy(text, m->text, m->text_len);
    text[m->text_len] = '\0';
    out = open_memstream(&c->reply, &c->reply_bytes);
    if (out == NULL)
        return -1;
    c->reply_status = cfg->query != NULL ? cfg->query(cfg->query_ctx, text, out) : -EINVAL;
    c->reply_sent = 0;
    if (fclose(out) != 0)
        return -1;
    return reply_continue(c);
}

/* ---- clients ----------------------------------------------------------------------------------------------------------------------------- */

static void
client_close(struct client *c)
{
    struct server *srv = c->srv;
    struct family *f = c->family;

    close(c->fd);
    if (f != NULL) {
        struct app_call call = { .app = f->app, .number = c->member };

        for (unsigned i = 0; i < SHM_MAX_EVENTQS; i++)
            eventq_drop(c, i);
        /* With -ESHUTDOWN the worker has ended, and what it held goes with the stack. */
        host_call(srv->cfg.host, call_leave, &call);
        if (--f->nb_members == 0)
            family_free(srv, f);
    }
    free(c->reply);
    *c->link = c->next;
    if (c->next != NULL)
        c->next->link = c->link;
    srv->nb_clients--;
    free(c);
}

/* A fork's child speaks on a connection that its parent opened: its credentials come with the message. */
static void
note_pid(struct client *c, pid_t pid)
{
    struct app_call call = { .number = c->member, .pid = pid };

    if (c->family == NULL || pid <= 0 || pid == c->peer.pid)
        return;
    c->peer.pid = pid;
    call.app = c->family->app;
    host_call(c->srv->cfg.host, call_set_pid, &call);
}

/* Credentials out of the control data; descriptors, for which nobody asked, are closed. */
static pid_t
read_control(struct msghdr *msg)
{
    pid_t pid = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred cred;

            memcpy(&cred, CMSG_DATA(c), sizeof(cred));
            pid = cred.pid;
        } else if (c->cmsg_type == SCM_RIGHTS) {
            size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

            for (size_t i = 0; i < n; i++) {
                int fd;

                memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
                close(fd);
            }
        }
    }
    return pid;
}

/* One message; non-zero ends the connection. */
static int
client_read(struct client *c)
{
    union message m;
    union {
        struct cmsghdr align;
        char bytes[256];
    } control;
    struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    pid_t pid;

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    pid = read_control(&msg);
    if (n == 0 || (msg.msg_flags & MSG_TRUNC))
        return -1;
    if (c->kind == 0)
        return hello(c, &m, (size_t)n);
    note_pid(c, pid);
    return c->kind == CTL_KIND_TOOL ? tool_message(c, &m.msg, (size_t)n) : app_message(c, &m.msg, (size_t)n);
}

static void
client_event(struct client *c, uint32_t events)
{
    int rc = 0;

    if ((events & EPOLLOUT) && c->reply != NULL)
        rc = reply_continue(c);
    if (rc == 0 && (events & EPOLLIN))
        rc = client_read(c);
    else if (rc == 0 && (events & (EPOLLHUP | EPOLLERR)))
        rc = -1;
    if (rc != 0)
        client_close(c);
}

/* Out of descriptors: a client that stays in the backlog would wake us for ever, so it is let in and out again. */
static void
turn_away(struct server *srv)
{
    close_fd(srv->spare_fd);
    close_fd(accept4(srv->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
    srv->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void
accept_client(struct server *srv)
{
    int fd = accept4(srv->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int on = 1;
    socklen_t len = sizeof(struct ucred);
    struct epoll_event ev = { .events = EPOLLIN };
    struct client *c;

    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE)
            turn_away(srv);
        return;
    }
    c = srv->nb_clients < MAX_CLIENTS ? calloc(1, sizeof(*c)) : NULL;
    if (c == NULL) {
        close(fd);
        return;
    }
    c->srv = srv;
    c->fd = fd;
    ev.data.ptr = c;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c->peer, &len) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0 ||
        epoll_ctl(srv->epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0) {
        close(fd);
        free(c);
        return;
    }
    c->next = srv->clients;
    c->link = &srv->clients;
    if (c->next != NULL)
        c->next->link = &c->next;
    srv->clients = c;
    srv->nb_clients++;
}

/* ---- the thread ---------------------------------------------------------------------------------------------------------------------------- */

static void *
server_main(void *arg)
{
    struct server *srv = arg;
    struct epoll_event ev[EVENT_BATCH];
    sigset_t all;

    /* Signals are the main thread's business. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (;;) {
        bool reap = srv->nb_arenas > srv->nb_families;
        int n = epoll_wait(srv->epoll_fd, ev, EVENT_BATCH, reap ? REAP_INTERVAL_MS : -1);

        for (int i = 0; i < n; i++) {
            if (ev[i].data.ptr == &srv->stop_fd)
                return NULL;
            if (ev[i].data.ptr == &srv->listen_fd)
                accept_client(srv);
            else
                client_event(ev[i].data.ptr, ev[i].events);
        }
        srv->nb_arenas -= arena_reap();
    }
}

/* Is somebody listening there? */
static bool
is_alive(const struct sockaddr_un *sa)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool alive = fd >= 0 && (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno != ECONNREFUSED);

    if (fd >= 0)
        close(fd);
    return alive;
}

static int
bind_path(struct server *srv, mode_t mode, char *err, size_t err_len)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct stat st;
    int rc;

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", srv->path);
    /* Before bind, so that nobody whom it shuts out can connect in between; the umask can only take away. */
    if (fchmod(srv->listen_fd, mode) != 0)
        return -errno;
    rc = bind(srv->listen_fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 ? 0 : -errno;
    if (rc == -EADDRINUSE) {
        if (lstat(srv->path, &st) != 0 || !S_ISSOCK(st.st_mode)) {
            snprintf(err, err_len, "%s exists and is not a socket", srv->path);
            return rc;
        }
        if (is_alive(&sa)) {
            snprintf(err, err_len, "%s is served by another daemon: stop it, or use another --control path", srv->path);
            return rc;
        }
        unlink(srv->path);
        rc = bind(srv->listen_fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 ? 0 : -errno;
    }
    if (rc == 0 && (chmod(srv->path, mode) != 0 || listen(srv->listen_fd, SOMAXCONN) != 0)) {
        rc = -errno;
        unlink(srv->path);
    }
    if (rc != 0)
        snprintf(err, err_len, "control socket %s: %s", srv->path, strerror(-rc));
    return rc;
}

static void
server_free(struct server *srv)
{
    close_fd(srv->listen_fd);
    close_fd(srv->epoll_fd);
    close_fd(srv->stop_fd);
    close_fd(srv->pool_fd);
    close_fd(srv->page_fd);
    close_fd(srv->spare_fd);
    free(srv);
}

static int
open_fds(struct server *srv)
{
    struct epoll_event ev = { .events = EPOLLIN };
    struct stat st;

    srv->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    srv->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    srv->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    srv->pool_fd = pktpool_readonly_fd(host_pool(srv->cfg.host));
    srv->page_fd = host_page_readonly_fd(srv->cfg.host);
    srv->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (srv->listen_fd < 0 || srv->epoll_fd < 0 || srv->stop_fd < 0 || srv->pool_fd < 0 || srv->page_fd < 0 ||
        fstat(srv->page_fd, &st) != 0)
        return -errno;
    srv->page_bytes = (uint64_t)st.st_size;
    ev.data.ptr = &srv->listen_fd;
    if (epoll_ctl(srv->epoll_fd, EPOLL_CTL_ADD, srv->listen_fd, &ev) != 0)
        return -errno;
    ev.data.ptr = &srv->stop_fd;
    if (epoll_ctl(srv->epoll_fd, EPOLL_CTL_ADD, srv->stop_fd, &ev) != 0)
        return -errno;
    return 0;
}

int
server_create(struct server **out, const struct server_config *cfg, char *err, size_t err_len)
{
    struct server *srv;
    int rc;

    if (strlen(cfg->path) >= sizeof(srv->path)) {
        snprintf(err, err_len, "control socket %s: longer than %zu bytes", cfg->path, sizeof(srv->path) - 1);
        return -ENAMETOOLONG;
    }
    srv = calloc(1, sizeof(*srv));
    if (srv == NULL) {
        snprintf(err, err_len, "control socket %s: %s", cfg->path, strerror(ENOMEM));
        return -ENOMEM;
    }
    srv->cfg = *cfg;
    srv->listen_fd = srv->epoll_fd = srv->stop_fd = srv->pool_fd = srv->page_fd = srv->spare_fd = -1;
    srv->cfg.max_socks = cfg->max_socks != 0 ? cfg->max_socks : DEFAULT_MAX_SOCKS;
    srv->cfg.tx_chunks = cfg->tx_chunks != 0 ? cfg->tx_chunks : DEFAULT_TX_CHUNKS;
    snprintf(srv->path, sizeof(srv->path), "%s", cfg->path);
    srv->cfg.path = srv->path;
    rc = open_fds(srv);
    if (rc != 0)
        snprintf(err, err_len, "control socket %s: %s", cfg->path, strerror(-rc));
    else
        rc = bind_path(srv, cfg->file_mode != 0 ? cfg->file_mode : DEFAULT_FILE_MODE, err, err_len);
    if (rc == 0) {
        rc = -pthread_create(&srv->thread, NULL, server_main, srv);
        if (rc != 0) {
            snprintf(err, err_len, "control socket %s: no thread: %s", cfg->path, strerror(-rc));
            unlink(srv->path);
        }
    }
    if (rc != 0) {
        server_free(srv);
        return rc;
    }
    *out = srv;
    return 0;
}

void
server_destroy(struct server *srv)
{
    if (srv == NULL)
        return;
    eventfd_write(srv->stop_fd, 1);
    pthread_join(srv->thread, NULL);
    while (srv->clients != NULL)
        client_close(srv->clients);
    arena_reap();
    unlink(srv->path);
    server_free(srv);
}
