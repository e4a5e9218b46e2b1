/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_lcore.h>

#include "embedded.h"
#include "fdtable.h"

/**
 * @file
 * Workers run the stack, on the EAL's lcores but the main one, which stays the program's. Its threads reach them as another process would, by rings,
 * doorbells and futexes; only the control socket is left out.
 */

static int
doorbells_create(const struct embedded *e, struct embedded_entry *entry)
{
    for (unsigned i = 0; i < host_nb_nets(e->host); i++) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

        if (fd < 0)
            return -errno;
        entry->doorbell[i] = front_hide_fd(fd);
        if (net_doorbell_add(host_net(e->host, i), entry->doorbell[i]) != 0)
            return -errno;
    }
    return 0;
}

/* ---- event queues ------------------------------------------------------------------------------------------------------- */

static void
call_add(struct host *h, void *arg, uint64_t now_us)
{
    struct eventq_call *call = arg;

    (void)h;
    (void)now_us;
    call->result = app_eventq_add(call->app, call->fd);
}

static void
add_eventq(struct eventq_call *call)
{
    int rc;

    call->app = embedded_now()->app;
    rc = host_call(embedded_now()->host, call_add, call);

    if (rc != 0)
        call->result = rc == -ESHUTDOWN ? -ENETDOWN : rc;
}

static int
home_eventq_create(uint32_t *queue, int *fd)
{
    return eventq_open(add_eventq, queue, fd);
}

static void
call_remove(struct host *h, void *arg, uint64_t now_us)
{
    struct eventq_call *call = arg;

    (void)h;
    (void)now_us;
    call->fd = app_eventq_remove(call->app, (uint32_t)call->result);
}

static void
home_eventq_destroy(uint32_t queue)
{
    struct eventq_call call = { .app = embedded_now()->app, .fd = -1, .result = (int)queue };

    if (host_call(embedded_now()->host, call_remove, &call) == 0)
        eventq_close_fd(call.fd);
}

static const struct front_home home_ops = {
    .eventq_create = home_eventq_create,
    .eventq_destroy = home_eventq_destroy,
};

/* ---- start and stop ----------------------------------------------------------------------------------------------------- */

int
workers_start(struct embedded *e, struct embedded_entry *entry)
{
    int rc = doorbells_create(e, entry);

    entry->home = &home_ops;
    /* Workers take them, who were created before this; threads that the program creates inherit the mask. */
    pthread_sigmask(SIG_BLOCK, &e->driver_signals, NULL);
    if (rc == 0)
        daemon_launch(&e->daemon, 0);
    return rc;
}

void
workers_stop(struct embedded *e)
{
    daemon_ask_stop(&e->daemon);
    rte_eal_mp_wait_lcore();
}
