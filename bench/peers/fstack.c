/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * isobench on F-Stack, for bench/peers.py. F-Stack owns the loop and calls the application in each pass, while isobench's thread has a loop of its own: it runs on a stack
 * of its own, entered in each pass and left in each epoll_wait, which looks for events once it is entered again. So a pass takes what events there are, as in a program written for F-Stack.
 *
 * usage: isobench-fstack CONFIG VDEV isobench's words...    CONFIG: F-Stack's; VDEV: the DPDK device that becomes port 0
 */
#define PEERS_FSTACK_UNMAPPED
#include "fstack.h"

#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <ucontext.h>

#include <rte_eal.h>

#include "ff_api.h"
#include "isobench/counters.h"
#include "isobench/run.h"

#define STACK_BYTES (1u << 20)
#define FDS_MAX (1u << 18)
#define EAL_WORDS_MAX 64
/* Passes before the thread begins: the wire's ends and their addresses have to find each other. A SYN that is lost before is sent again a second later, and of those that
 * wait for an address F-Stack keeps five. */
#define HANDSHAKE_NS UINT64_C(1000000000)
#define DATAGRAM_NS UINT64_C(50000000)

/* ---- sockets ------------------------------------------------------------------------------------------------------------- */

/** What a queue of events knows of a descriptor, and where the descriptor is in the batch of events that is being taken. */
struct fd_state {
    bool reads, writes; /**< filters that are registered */
    uint32_t place;
    uint64_t batch;
};

static struct fd_state fds[FDS_MAX];

int
fstack_socket(int domain, int type, int protocol)
{
    int one = 1, fd = ff_socket(domain, type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC), protocol);

    if (fd >= 0 && (uint32_t)fd >= FDS_MAX) {
        ff_close(fd);
        errno = EMFILE;
        return -1;
    }
    if (fd >= 0 && (type & SOCK_NONBLOCK) != 0)
        ff_ioctl(fd, FIONBIO, &one);
    return fd;
}

int
fstack_connect(int fd, const struct sockaddr *addr, socklen_t addr_len)
{
    return ff_connect(fd, (const struct linux_sockaddr *)addr, addr_len);
}

int
fstack_bind(int fd, const struct sockaddr *addr, socklen_t addr_len)
{
    return ff_bind(fd, (const struct linux_sockaddr *)addr, addr_len);
}

/* What is accepted is non-blocking as its listener is. */
int
fstack_accept4(int fd, struct sockaddr *addr, socklen_t *addr_len, int flags)
{
    int accepted = ff_accept(fd, (struct linux_sockaddr *)addr, addr_len);

    (void)flags;
    if (accepted >= 0 && (uint32_t)accepted >= FDS_MAX) {
        ff_close(accepted);
        errno = EMFILE;
        return -1;
    }
    return accepted;
}

/* Of the flags isobench uses MSG_NOSIGNAL alone, and there are no signals here. */
ssize_t
fstack_send(int fd, const void *buf, size_t n, int flags)
{
    (void)flags;
    return ff_send(fd, buf, n, 0);
}

static void leave(void);

/* MSG_DONTWAIT is how isobench waits for the last bytes without epoll: nothing would come if the thread did not leave. */
ssize_t
fstack_recv(int fd, void *buf, size_t n, int flags)
{
    ssize_t got = ff_recv(fd, buf, n, 0);

    if (got < 0 && errno == EAGAIN && (flags & MSG_DONTWAIT) != 0) {
        leave();
        errno = EAGAIN;
    }
    return got;
}

int
fstack_close(int fd)
{
    if (fd >= 0 && (uint32_t)fd < FDS_MAX)
        fds[fd] = (struct fd_state){ 0 };
    return ff_close(fd);
}

/* ---- events -------------------------------------------------------------------------------------------------------------- */

int
fstack_epoll_create1(int flags)
{
    (void)flags;
    return ff_kqueue();
}

/** A change of one filter, if it is one. Returns how many changes that are. */
static int
change(struct kevent *out, int fd, short filter, bool *has, bool wants, bool anew, void *data)
{
    if (*has == wants && !(wants && anew))
        return 0;
    *has = wants;
    EV_SET(out, (uintptr_t)fd, filter, wants ? EV_ADD : EV_DELETE, 0, 0, data);
    return 1;
}

/* isobench never gives a descriptor other data by EPOLL_CTL_MOD, so that a filter which stays need not be told. */
int
fstack_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
    struct kevent changes[2];
    uint32_t events = op == EPOLL_CTL_DEL ? 0 : event->events;
    void *data = op == EPOLL_CTL_DEL ? NULL : event->data.ptr;
    bool anew = op == EPOLL_CTL_ADD;
    int n;

    n = change(&changes[0], fd, EVFILT_READ, &fds[fd].reads, (events & EPOLLIN) != 0, anew, data);
    n += change(&changes[n], fd, EVFILT_WRITE, &fds[fd].writes, (events & EPOLLOUT) != 0, anew, data);
    return n == 0 ? 0 : ff_kevent(epoll_fd, changes, n, NULL, 0, NULL) < 0 ? -1 : 0;
}

/** The batch of events that is being taken. */
static struct {
    uint64_t number;
    struct epoll_event *events;
    uint32_t n;
} batch;

/* The two filters of a descriptor come apart, but epoll tells of a descriptor once. */
static void
take_event(void **unused, struct kevent *kev)
{
    struct fd_state *s = &fds[kev->ident];
    uint32_t events = kev->filter == EVFILT_READ ? EPOLLIN : EPOLLOUT;

    (void)unused;
    if (s->batch != batch.number) {
        s->batch = batch.number;
        s->place = batch.n++;
        batch.events[s->place] = (struct epoll_event){ .data.ptr = kev->udata };
    }
    batch.events[s->place].events |= events;
}

static int
take_events(int epoll_fd, struct epoll_event *events, int max)
{
    batch.number++;
    batch.events = events;
    batch.n = 0;
    return ff_kevent_do_each(epoll_fd, NULL, 0, events, max, NULL, take_event) < 0 ? -1 : (int)batch.n;
}

int
fstack_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms)
{
    uint64_t begin_ns = timeout_ms > 0 ? now_ns() : 0;
    int n;

    do {
        leave();
        n = take_events(epoll_fd, events, max);
    } while (n == 0 && (timeout_ms < 0 || (timeout_ms > 0 && now_ns() - begin_ns < (uint64_t)timeout_ms * 1000000)));
    return n;
}

/* ---- the thread in the loop ---------------------------------------------------------------------------------------------- */

/*
 * ucontext makes the thread's stack; what is entered and left a million times a second is done by _setjmp and _longjmp, for swapcontext makes a system call.
 */
static struct {
    void *(*fn)(void *arg);
    void *arg;
    ucontext_t birth;
    jmp_buf loop, thread;
    uint64_t begin_ns;
    bool entered, ended;
    sem_t wanted; /**< there is a thread to run, or there will be none */
    sem_t done;
} the_thread;

/** A client's server; len 0: this is the server. */
static struct {
    struct sockaddr_storage addr;
    socklen_t len;
} target;

static void
run_thread(void)
{
    the_thread.fn(the_thread.arg);
    the_thread.ended = true;
    _longjmp(the_thread.loop, 1);
}

/** The thread's side: until the loop's next pass. */
static void
leave(void)
{
    if (_setjmp(the_thread.thread) == 0)
        _longjmp(the_thread.loop, 1);
}

/** The loop's side. */
static void
enter(void)
{
    if (_setjmp(the_thread.loop) != 0)
        return;
    if (the_thread.entered)
        _longjmp(the_thread.thread, 1);
    the_thread.entered = true;
    setcontext(&the_thread.birth);
}

/** A datagram to the server now and then, which nobody takes, so that its address is known when it matters. */
static void
shake_hands(uint64_t elapsed_ns)
{
    static uint64_t sent;
    int fd;

    if (target.len == 0 || elapsed_ns / DATAGRAM_NS < sent)
        return;
    sent++;
    fd = ff_socket(target.addr.ss_family, SOCK_DGRAM, 0);
    ff_sendto(fd, "", 1, 0, (const struct linux_sockaddr *)&target.addr, target.len);
    ff_close(fd);
}

static int
pass(void *unused)
{
    uint64_t elapsed_ns = the_thread.entered ? 0 : now_ns() - the_thread.begin_ns;

    (void)unused;
    if (!the_thread.entered && elapsed_ns < HANDSHAKE_NS)
        shake_hands(elapsed_ns);
    else if (the_thread.ended)
        ff_stop_run();
    else
        enter();
    return 0;
}

/** Run the thread that isobench wants, if it comes to that. */
static void
run_loop(void)
{
    sem_wait(&the_thread.wanted);
    if (the_thread.fn == NULL)
        return;
    getcontext(&the_thread.birth);
    the_thread.birth.uc_stack.ss_sp = malloc(STACK_BYTES);
    the_thread.birth.uc_stack.ss_size = STACK_BYTES;
    makecontext(&the_thread.birth, run_thread, 0);
    the_thread.begin_ns = now_ns();
    ff_run(pass, NULL);
    sem_post(&the_thread.done);
}

int
fstack_thread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *arg), void *arg)
{
    (void)attr;
    if (the_thread.fn != NULL)
        return EAGAIN;
    *thread = pthread_self();
    the_thread.arg = arg;
    the_thread.fn = fn;
    sem_post(&the_thread.wanted);
    return 0;
}

int
fstack_thread_join(pthread_t thread, void **result)
{
    (void)thread;
    (void)result;
    sem_wait(&the_thread.done);
    return 0;
}

/* ---- the program --------------------------------------------------------------------------------------------------------- */

static const char *vdev;

int __real_rte_eal_init(int argc, char **argv);
int __wrap_rte_eal_init(int argc, char **argv);

/* F-Stack's configuration knows no net_memif; the linker sends its call here. */
int
__wrap_rte_eal_init(int argc, char **argv)
{
    static char text[512], no_pci[] = "--no-pci", no_files[] = "--no-shconf";
    static char *words[EAL_WORDS_MAX + 1];

    if (argc > EAL_WORDS_MAX - 3)
        return -1;
    for (int i = 0; i < argc; i++)
        words[i] = argv[i];
    snprintf(text, sizeof(text), "--vdev=%s", vdev);
    words[argc] = no_pci;
    words[argc + 1] = no_files;
    words[argc + 2] = text;
    return __real_rte_eal_init(argc + 3, words);
}

/* The stack's own counters are not isobench's to show. */
int
counters_print(FILE *out, bool json)
{
    (void)out;
    (void)json;
    return -1;
}

static struct {
    int argc;
    char **argv;
    FILE *out;
    int status;
} program;

/* isobench's first thread: it makes the sockets before the loop runs, and closes them after. */
static void *
run_isobench(void *unused)
{
    static struct run run;

    program.status = run_program(&run, program.argc, program.argv, program.out);
    fflush(program.out);
    sem_post(&the_thread.wanted); /* for want of a thread there is none to wait for */
    return unused;
}

int
main(int argc, char **argv)
{
    char name[] = "fstack", option[] = "--conf", *words[] = { name, option, argv[1], NULL };
    int out = dup(STDOUT_FILENO);
    struct options o;
    char err[320];
    pthread_t first;

    if (argc < 4 || out < 0) {
        fprintf(stderr, "usage: isobench-fstack CONFIG VDEV isobench's words...\n");
        return 2;
    }
    /* F-Stack talks on standard output, where isobench's results belong. */
    dup2(STDERR_FILENO, STDOUT_FILENO);
    setvbuf(stdout, NULL, _IOLBF, 0);
    vdev = argv[2];
    program.out = fdopen(out, "w");
    program.argc = argc - 2;
    program.argv = argv + 2;
    if (options_parse(&o, program.argc, program.argv, err, sizeof(err)) == OPTIONS_OK && !o.serve) {
        target.addr = o.addr;
        target.len = o.addr_len;
    }
    sem_init(&the_thread.wanted, 0, 0);
    sem_init(&the_thread.done, 0, 0);
    ff_init(3, words);
    if (program.out == NULL || ff_pthread_create(&first, NULL, run_isobench, NULL) != 0)
        return 1;
    run_loop();
    pthread_join(first, NULL);
    return program.status;
}
