/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The launcher: isosockd [EAL options] -- [options].
 *
 * Exit status: 0 after an orderly end; 1 something failed at run time; 2 a wrong option or configuration line.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/eal.h"
#include "daemon.h"
#include "notify.h"

#define ERROR_BYTES 512

/** The one daemon of this process: signal handlers have no argument. */
static struct daemon the_daemon;

static int
fail(int status, const char *text)
{
    fprintf(stderr, "isosockd: %s\n", text);
    return status;
}

static void
print_help(const struct options *o)
{
    printf("usage: isosockd [EAL options] -- --address ADDR/LEN [options]\n"
           "\n"
           "A TCP/IP stack on a DPDK port, for programs started by `isosock run`. EAL options choose cores (-l) and "
           "ports\n"
           "(--vdev, -a); DPDK's own manual has them.\n\n");
    options_print_help(o, stdout);
    printf("\nModes:\n");
    for (const struct mode_ops *const *m = mode_table; *m != NULL; m++)
        printf("  %-12s %s\n", (*m)->name, (*m)->summary);
    printf("\nExample:\n"
           "  isosockd -l 0 --no-pci --vdev=net_tap0,iface=iso0 -- --address 10.66.0.2/24\n");
}

static void
print_options_page(const struct options *o)
{
    printf("# Options of isosockd\n\n"
           "Generated from the table of options in apps/isosockd/config.c (`make docs`). A value comes from its "
           "default, the\n"
           "configuration file (`--config`), or the command line; the later of these wins.\n\n");
    options_print_markdown(o, stdout);
}

/** Options that print something and end. True if there was one. */
static bool
print_and_end(const struct config *cfg, const struct options *o)
{
    if (cfg->help)
        print_help(o);
    else if (cfg->version)
        printf("isosockd %s\n", ISOSOCK_VERSION);
    else if (cfg->print_sample)
        options_print_sample(o, stdout);
    else if (cfg->print_options)
        print_options_page(o);
    else
        return false;
    return true;
}

/** Where our own options start: argv + result is a vector of its own. Without `--` all are ours. */
static int
find_own_options(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--") == 0)
            return i;
    return 0;
}

/** Does a daemon answer there? Asked before the EAL starts: a second daemon would stumble over the first one's port with a worse message. */
static bool
is_served(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    bool served;

    if (fd < 0 || strlen(path) >= sizeof(sa.sun_path))
        return false;
    strcpy(sa.sun_path, path);
    served = connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0;
    close(fd);
    return served;
}

/** The first signal ends the daemon in order, the second at once. */
static void
on_signal(int signo)
{
    if (__atomic_load_n(&the_daemon.stop, __ATOMIC_RELAXED) != 0) {
        if (the_daemon.server != NULL)
            unlink(the_daemon.cfg->control);
        signal(signo, SIG_DFL);
        raise(signo);
    }
    daemon_ask_stop(&the_daemon);
}

static void
catch_signals(void)
{
    struct sigaction sa = { .sa_handler = on_signal };

    sigemptyset(&sa.sa_mask);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void
say_ready(const struct daemon *d)
{
    printf("isosockd: ready, address %s, port %u %s, mode %s, control %s\n", d->cfg->address, d->port.port_id,
           d->port.driver, d->cfg->mode, d->cfg->control);
    fflush(stdout);
    notify_manager("READY=1");
}

/** EAL is up: start, run, stop. Returns the exit status. */
static int
serve(const struct config *cfg, const struct options *o)
{
    char err[ERROR_BYTES] = "";
    int rc;

    catch_signals();
    rc = daemon_start(&the_daemon, cfg, o, err, sizeof(err));
    if (rc == 0) {
        say_ready(&the_daemon);
        daemon_run(&the_daemon);
        notify_manager("STOPPING=1");
    }
    daemon_stop(&the_daemon);
    if (rc != 0)
        return fail(rc == -EINVAL ? 2 : 1, err);
    return 0;
}

static int
start_eal(const struct config *cfg, char **argv, int own)
{
    char err[ERROR_BYTES] = "out of memory";
    int argc, rc = -ENOMEM;
    char **args = config_eal_args(cfg, own > 0 ? own - 1 : 0, argv, &argc);

    if (args != NULL)
        rc = eal_start(argc, args, err, sizeof(err));
    if (rc < 0)
        return fail(rc == -EINVAL ? 2 : 1, err);
    return 0;
}

int
main(int argc, char **argv)
{
    int own = find_own_options(argc, argv);
    char err[ERROR_BYTES] = "";
    struct config cfg;
    struct options o;
    int status;

    if (config_load(&cfg, &o, argc - own, argv + own, err, sizeof(err)) != 0) {
        if (own == 0)
            fprintf(stderr, "isosockd: %s; EAL options go before a --\n", err);
        else
            fail(2, err);
        return 2;
    }
    if (print_and_end(&cfg, &o)) {
        options_fini(&o);
        return 0;
    }
    if (config_check(&cfg, err, sizeof(err)) != 0) {
        status = fail(2, err);
    } else if (is_served(cfg.control)) {
        fprintf(stderr, "isosockd: another isosockd serves %s: end it, or choose another path by --control\n",
                cfg.control);
        status = 1;
    } else {
        status = start_eal(&cfg, argv, own);
        if (status == 0) {
            status = serve(&cfg, &o);
            eal_stop();
        }
    }
    options_fini(&o);
    return status;
}
