/* SPDX-License-Identifier: BSD-3-Clause */
#include "front.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "sockets/control_path.h"

#include "fdtable.h"
#include "fork.h"
#include "libc.h"
#include "lock.h"
#include "promise.h"
#include "sock.h"
#include "sole.h"

#define WELCOME_FDS_MAX (4 + SHM_MAX_INSTANCES)
#define HIDDEN_FDS 64u /* how far below the limit of descriptors ours begin */

static struct front first = { .control_fd = -1, .front_fd = -1, .sole.term = SOLE_NOBODY };
__thread struct front *front = &first;
struct front *front_of[FRONT_MAX] = { &first };
const struct front_plan *front_plan;
__thread bool front_joined;

static uint32_t attach_lock;

/* One line, once; stdio may not be usable where we are called. */
static void
complain(const char *what, const char *why)
{
    char line[256];
    int n = snprintf(line, sizeof(line), "isosock: %s: %s\n", what, why);

    if (n > 0)
        (void)!libc()->write(STDERR_FILENO, line, n < (int)sizeof(line) ? (size_t)n : sizeof(line) - 1);
}

int
front_hide_fd(int fd)
{
    struct rlimit rl;
    int base = 256, high;

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < 1024 + HIDDEN_FDS)
        base = rl.rlim_cur > 4 * HIDDEN_FDS ? (int)(rl.rlim_cur - HIDDEN_FDS) : 0;
    else
        base = 1024;
    high = libc()->fcntl(fd, F_DUPFD_CLOEXEC, base);
    if (high >= 0) {
        libc()->close(fd);
        fd = high;
    }
    fd_set_internal(fd, true);
    return fd;
}

/* ---- talking ---------------------------------------------------------------------------------------------------------- */

static int
control_connect(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd = libc()->socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    memcpy(sa.sun_path, path, strnlen(path, sizeof(sa.sun_path) - 1));
    if (libc()->connect(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0) {
        int rc = -errno;

        libc()->close(fd);
        return rc;
    }
    return fd;
}

static ssize_t
control_send(int fd, const void *msg, size_t len)
{
    ssize_t n;

    do
        n = libc()->send(fd, msg, len, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n;
}

/* Receive a packet with at most max_fds descriptors; those that do not fit are closed by the kernel. */
static ssize_t
control_recv(int fd, void *msg, size_t len, int *fds, unsigned max_fds, unsigned *nb_fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(WELCOME_FDS_MAX * sizeof(int))];
    } ctl;
    struct iovec iov = { msg, len };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.bytes };
    struct cmsghdr *c;
    ssize_t n;

    *nb_fds = 0;
    mh.msg_controllen = CMSG_SPACE(max_fds * sizeof(int));
    do
        n = libc()->recvmsg(fd, &mh, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    for (c = CMSG_FIRSTHDR(&mh); c != NULL; c = CMSG_NXTHDR(&mh, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        *nb_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), *nb_fds * sizeof(int));
    }
    return n;
}

static int
handshake(int fd, const struct ctl_hello *hello, struct ctl_welcome *w, int *fds, unsigned *nb_fds)
{
    ssize_t n;

    *nb_fds = 0;
    if (control_send(fd, hello, sizeof(*hello)) != (ssize_t)sizeof(*hello))
        return -EPIPE;
    n = control_recv(fd, w, sizeof(*w), fds, WELCOME_FDS_MAX, nb_fds);
    if (n < (ssize_t)offsetof(struct ctl_welcome, layout) || w->magic != CTL_MAGIC)
        return n < 0 ? (int)n : -EPROTO;
    w->error[sizeof(w->error) - 1] = '\0';
    if (w->status != 0)
        return w->status < 0 ? w->status : -EPROTO;
    return w->version == SHM_VERSION && n == (ssize_t)sizeof(*w) ? 0 : -EPROTO;
}

/* ---- attaching -------------------------------------------------------------------------------------------------------- */

struct front *
front_create(void)
{
    struct front *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return NULL;
    f->control_fd = f->front_fd = -1;
    f->sole.term = SOLE_NOBODY;
    for (f->number = 1; f->number < FRONT_MAX; f->number++) {
        struct front *none = NULL;

        if (__atomic_compare_exchange_n(&front_of[f->number], &none, f, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            return f;
    }
    free(f);
    errno = ENOSPC;
    return NULL;
}

void
front_adopt(const struct shm_layout *lay, void *f, const void *b, const void *pool, const void *page)
{
    front->lay = *lay;
    front->front = f;
    front->chunks = (char *)f + lay->front_chunks_off;
    front->smalls = (char *)f + lay->front_smalls_off;
    front->back = b;
    front->pool = pool;
    front->page = page;
    front->fsocks = (struct shm_front_sock *)(void *)((char *)f + lay->front_socks_off);
    front->fmore = (struct shm_front_more *)(void *)((char *)f + lay->front_more_off);
    front->bsocks = (const struct shm_back_sock *)(const void *)((const char *)b + lay->back_socks_off);
    front->bmore = (const struct shm_back_more *)(const void *)((const char *)b + lay->back_more_off);
    front->bnames = (const struct shm_back_name *)(const void *)((const char *)b + lay->back_names_off);
    front->sock_side = (struct obj){ .kind = OBJ_SOCK, .where = SOCK_STACK, .stack = front->number }.side;
    front->pid = getpid();
}

void
front_adopt_home(const struct front_home *home, const struct front_local *local, const int *doorbell, uint16_t member,
                 int front_fd)
{
    front->member = member;
    front->front_fd = front_fd < 0 ? -1 : front_hide_fd(front_fd);
    front->home = home;
    front->local = local;
    if (local != NULL && front->page->aggregate)
        sole_begin();
    if (front->number == 0)
        fork_watch();
    if (local != NULL)
        fd_set_internal(local->wake_fd, true);
    else
        memcpy(front->doorbell, doorbell, front->lay.nb_instances * sizeof(*doorbell));
    __atomic_store_n(&front->state, FRONT_ATTACHED, __ATOMIC_RELEASE);
}

void
front_discard(struct front *f)
{
    __atomic_store_n(&front_of[f->number], NULL, __ATOMIC_RELEASE);
    free(f);
}

void
front_use(struct front *f)
{
    recv_flush_notice();
    sole_leave_front();
    front = f;
    sole_enter_front();
}

static void *
map_fd(int fd, uint64_t bytes, int prot)
{
    void *p = mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);

    return p == MAP_FAILED ? NULL : p;
}

static int
map_regions(const struct ctl_welcome *w, const int *fds, unsigned nb_fds)
{
    const struct shm_layout *lay = &w->layout;
    void *m[4];
    const uint64_t bytes[4] = { lay->front_bytes, lay->back_bytes, lay->pool_bytes, lay->stack_bytes };
    unsigned i;

    if (nb_fds != 4 + lay->nb_instances || lay->nb_instances == 0 || lay->nb_instances > SHM_MAX_INSTANCES ||
        lay->nb_rings_per_instance == 0 || lay->version != SHM_VERSION)
        return -EPROTO;
    for (i = 0; i < 4; i++) {
        m[i] = map_fd(fds[i], bytes[i], i == 0 ? PROT_READ | PROT_WRITE : PROT_READ);
        if (m[i] == NULL) {
            int rc = -errno;

            while (i > 0)
                i--, munmap(m[i], bytes[i]);
            return rc;
        }
    }
    for (i = 0; i < 4; i++)
        libc()->close(fds[i]);
    front_adopt(lay, m[0], m[1], m[2], m[3]);
    for (i = 0; i < lay->nb_instances; i++)
        front->doorbell[i] = front_hide_fd(fds[4 + i]);
    return 0;
}

static int
attach_to(const char *path, char err[CTL_ERROR_BYTES])
{
    struct ctl_hello hello = { .magic = CTL_MAGIC, .version = SHM_VERSION, .kind = CTL_KIND_APP };
    struct ctl_welcome w = { 0 };
    int fds[WELCOME_FDS_MAX], fd, rc;
    unsigned i, nb_fds = 0;

    fd = control_connect(path);
    if (fd < 0)
        return fd;
    rc = handshake(fd, &hello, &w, fds, &nb_fds);
    if (rc == 0)
        rc = map_regions(&w, fds, nb_fds);
    if (rc != 0) {
        memcpy(err, w.error, sizeof(w.error));
        for (i = 0; i < nb_fds; i++)
            libc()->close(fds[i]);
        libc()->close(fd);
        return rc;
    }
    front->control_fd = front_hide_fd(fd);
    front->member = (uint16_t)w.member;
    front->family = w.family;
    return 0;
}

static void
attach_to_daemon(void)
{
    char err[CTL_ERROR_BYTES] = "";
    int rc = ctl_default_path(front->path);

    if (rc == 0)
        rc = attach_to(front->path, err);
    if (rc == 0)
        rc = fork_watch();
    if (rc != 0) {
        complain(front->path[0] != '\0' ? front->path : "no control socket is set",
                 err[0] != '\0'                         ? err
                 : rc == -ENOENT || rc == -ECONNREFUSED ? "no stack is running here; using the kernel's"
                                                        : strerror(-rc));
    }
    __atomic_store_n(&front->state, rc == 0 ? FRONT_ATTACHED : FRONT_ALONE, __ATOMIC_RELEASE);
}

/* Read the plan. */
static void
expect_once(void)
{
    static struct shm_stack_page page;
    bool ok = front_plan->prepare(&page) == 0 && fork_watch() == 0;

    front->page = &page;
    __atomic_store_n(&front->state, ok ? FRONT_PLANNED : FRONT_ALONE, __ATOMIC_RELEASE);
}

/* Carry it out. */
static void
start_once(void)
{
    int rc = front_plan->start();

    if (rc == -EINTR)
        return;
    if (rc != 0)
        __atomic_store_n(&front->state, FRONT_ALONE, __ATOMIC_RELEASE);
    promises_keep();
}

static void
attach_once(void)
{
    if (front_plan == NULL) {
        attach_to_daemon();
        return;
    }
    if (front->state == FRONT_NEW)
        expect_once();
    if (front->state == FRONT_PLANNED)
        start_once();
}

/* Leave one of the states in which nothing has been decided yet. The stack's own start comes by here again, with the lock held: to it there is no stack. */
static void
decide(uint32_t undecided, void (*once)(void))
{
    int saved_errno = errno;

    if (FRONT_LIKELY(!(undecided & 1u << load_acquire(&front->state))) || !lock_acquire(&attach_lock))
        return;
    if (undecided & 1u << front->state)
        once();
    lock_release(&attach_lock);
    errno = saved_errno;
}

bool
front_expect(void)
{
    if (front_plan == NULL)
        return front_attach();
    decide(1u << FRONT_NEW, expect_once);
    return front->state == FRONT_PLANNED || front->state == FRONT_ATTACHED;
}

bool
front_attach(void)
{
    decide(1u << FRONT_NEW | 1u << FRONT_PLANNED, attach_once);
    front_joined |= front->state == FRONT_ATTACHED;
    return front->state == FRONT_ATTACHED;
}

bool
front_check_alive(void)
{
    struct pollfd p = { .fd = front->control_fd, .events = POLLRDHUP };
    int saved_errno = errno;

    if (front->control_fd >= 0 && libc()->poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR)))
        __atomic_store_n(&front->dead, 1, __ATOMIC_SEQ_CST);
    errno = saved_errno;
    return !front->dead;
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

int
front_eventq_create(uint32_t *queue, int *fd)
{
    struct ctl_msg req = { .op = CTL_EVENTQ_CREATE }, answer = { 0 };
    unsigned nb_fds = 0;
    int fds[WELCOME_FDS_MAX];
    ssize_t n = -1;

    if (front->home != NULL)
        return front->home->eventq_create(queue, fd);
    if (!lock_acquire(&front->control_lock))
        return -EDEADLK;
    if (control_send(front->control_fd, &req, sizeof(req)) == (ssize_t)sizeof(req))
        n = control_recv(front->control_fd, &answer, sizeof(answer), fds, 1, &nb_fds);
    lock_release(&front->control_lock);
    if (n < (ssize_t)sizeof(answer)) {
        front_check_alive();
        return -ENETDOWN;
    }
    if (answer.status != 0 || nb_fds != 1 || answer.value >= SHM_MAX_EVENTQS) {
        if (nb_fds == 1)
            libc()->close(fds[0]);
        return answer.status < 0 ? answer.status : -EPROTO;
    }
    *queue = answer.value;
    *fd = front_hide_fd(fds[0]);
    return 0;
}

void
front_eventq_destroy(uint32_t queue, int fd)
{
    struct ctl_msg req = { .op = CTL_EVENTQ_DESTROY, .value = queue };

    fd_set_internal(fd, false);
    libc()->close(fd);
    if (front->home != NULL)
        front->home->eventq_destroy(queue);
    else
        control_send(front->control_fd, &req, sizeof(req));
}

int
front_open_child(uint16_t *member)
{
    struct ctl_hello hello = { CTL_MAGIC, SHM_VERSION, CTL_KIND_FORK, front->member, front->family };
    struct ctl_welcome w;
    int fds[WELCOME_FDS_MAX], rc, fd = control_connect(front->path);
    unsigned nb_fds;

    if (fd < 0)
        return fd;
    rc = handshake(fd, &hello, &w, fds, &nb_fds);
    while (nb_fds > 0)
        libc()->close(fds[--nb_fds]);
    if (rc != 0) {
        libc()->close(fd);
        return rc;
    }
    *member = (uint16_t)w.member;
    return fd;
}

static void
close_hidden(int fd)
{
    fd_set_internal(fd, false);
    libc()->close(fd);
}

/* Threads of the parent may have been amid calls; they are not here to give back what they held. */
static void
forget_locks(int fd, struct obj *o, void *arg)
{
    (void)fd;
    (void)arg;
    if (o->kind != OBJ_SOCK || o->where == SOCK_KERNEL || o->stack != front->number)
        return;
    slot_hot(front_sock(o->slot))->lock = 0;
    slot_claim(front_sock(o->slot))->cmd_lock = 0;
}

/* A stack in the parent's memory stays the parent's: from here on what this process does to its sockets is seen by itself alone. */
static void
leave_home(void)
{
    if (front->front_fd >= 0) {
        void *at = mmap(front->front, front->lay.front_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, front->front_fd, 0);
        if (at == MAP_FAILED)
            abort(); /* what this process does next would be done to the parent's connections */
        fdtable_each(forget_locks, NULL);
        close_hidden(front->front_fd);
        front->front_fd = -1;
    }
    front->home = NULL;
    front->local = NULL;
}

void
front_become_child(int fd, uint16_t member)
{
    struct ctl_msg here = { .op = CTL_HERE };

    front->control_lock = attach_lock = 0;
    if (front_is_planned())
        return;
    front->pid = getpid();
    if (front->control_fd >= 0)
        close_hidden(front->control_fd); /* the parent's lifeline must not hang on us */
    front->control_fd = fd;
    front->member = member;
    if (fd < 0) {
        front->dead = 1;
        leave_home();
        return;
    }
    front->control_fd = front_hide_fd(fd);
    control_send(front->control_fd, &here, sizeof(here));
}
