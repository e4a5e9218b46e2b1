/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "embedded.h"
#include "libc.h"

/**
 * @file
 * The stack inside an unmodified program (`isosock run --embedded FILE`): a plan for the front-end (struct front_plan), and which process may carry it out. A port has
 * one owner, so one process at a time has the stack of a file: it holds a lock on that file, which the kernel takes back whichever way the process ends. Such locks are no
 * forked child's, as descriptors are.
 */

#define FILE_VARIABLE "ISOSOCK_EMBEDDED"

static struct {
    char *path; /**< the configuration */
    int fd; /**< of it, to lock it by */
    struct embedded *e;
} plan = { .fd = -1 };

static int
complain(int error, const char *what)
{
    fprintf(stderr, "isosock: %s: %s: %s\n", plan.path, what, strerror(error));
    return -error;
}

/* What applications of a daemon find on its page, of a stack that has not started. */
static void
describe(const struct ip_config *ip, struct shm_stack_page *page)
{
    memcpy(page->addr, ip->addr.w, sizeof(page->addr));
    memcpy(page->routes[0].prefix, ip->addr.w, sizeof(page->routes[0].prefix));
    page->routes[0].prefix_len = 96u + ip->prefix_len;
    page->nb_routes = 1;
    page->gateway = !ip_addr_is_any(&ip->gateway);
}

static int
plan_prepare(struct shm_stack_page *page)
{
    int fd;

    plan.e = embedded_plan(plan.path);
    if (plan.e == NULL)
        return -errno;
    plan.e->config.own_descriptors = false; /* the program knows the kernel's alone */
    fd = open(plan.path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return complain(errno, "one process at a time has the stack, by a lock on this file, which must be writable");
    plan.fd = front_hide_fd(fd);
    describe(&plan.e->config.ip, page);
    return 0;
}

/* Returns 0, -EINTR, or another -errno after a line. */
static int
take_lock(void)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET }, holder = lock;

    if (libc()->fcntl(plan.fd, F_SETLK, &lock) == 0)
        return 0;
    if (errno != EAGAIN && errno != EACCES)
        return complain(errno, "cannot lock it");
    if (libc()->fcntl(plan.fd, F_GETLK, &holder) == 0 && holder.l_type != F_UNLCK)
        fprintf(stderr, "isosock: %s: process %d has this stack, process %d waits for its end\n", plan.path,
                (int)holder.l_pid, (int)getpid());
    if (libc()->fcntl(plan.fd, F_SETLKW, &lock) == 0)
        return 0;
    return errno == EINTR ? -EINTR : complain(errno, "cannot lock it");
}

static int
plan_start(void)
{
    int rc = take_lock();

    return rc == 0 ? embedded_start(plan.e) : rc;
}

/* Before the program's first socket. */
__attribute__((constructor)) static void
preload_init(void)
{
    static const struct front_plan ops = { .prepare = plan_prepare, .start = plan_start };

    plan.path = getenv(FILE_VARIABLE);
    if (plan.path != NULL)
        plan.path = strdup(plan.path);
    if (plan.path != NULL)
        front_plan = &ops;
}
