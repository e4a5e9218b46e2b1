/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The user's tool: start a program on the stack, look into the stack. It knows the control socket's protocol and nothing else.
 *
 * Exit status: 0; 1 no stack or no answer; 2 wrong usage; of `run`: the program's, or 126, 127 as a shell's if it cannot start.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sockets/control_path.h"
#include "query.h"

#define ERROR_BYTES 256

static const char usage[] =
    "usage: isosock [--control PATH] COMMAND\n"
    "\n"
    "  run [--embedded FILE] [--] PROGRAM [ARG...]\n"
    "                               run a program whose sockets are the stack's: the daemon's, or with --embedded one "
    "that\n"
    "                               runs inside the program, as FILE (isosockd.conf(5)) describes it\n"
    "  ss [-H] [-l] [-a] [-t] [-i] [-n]\n"
    "                               connections; -l listeners only, -a listeners too, -i in detail, -H no header\n"
    "  stats [--json]               counters that are not zero, or all of them as JSON\n"
    "  neigh                        the neighbour table\n"
    "  route                        the route table\n"
    "  paths                        the MTUs of paths that ICMP has told of\n"
    "  ports                        the port: offloads, queues and how frames are steered to them, frames\n"
    "  config                       the daemon's configuration in force\n"
    "  replay run|record|renew ...  have recorded conversations again (from a build tree)\n"
    "\n"
    "  --control PATH               the daemon's socket; default: $ISOSOCK_CONTROL, or /run/isosock.sock for root,\n"
    "                               or $XDG_RUNTIME_DIR/isosock.sock\n"
    "  --help, --version\n";

struct command {
    const char *name;
    int (*run)(const struct command *cmd, const char *control, int argc, char **argv);
    const char *flags; /**< letters that may be bundled, as in -Hl */
    const char *words; /**< the one long option, or NULL */
};

static int
fail(int status, const char *text)
{
    fprintf(stderr, "isosock: %s\n", text);
    return status;
}

/** Append a word to a query; false if it does not fit. */
static bool
append_word(char *query, size_t size, const char *word)
{
    size_t len = strlen(query);
    int n = snprintf(query + len, size - len, "%s%s", len != 0 ? " " : "", word);

    return n >= 0 && (size_t)n < size - len;
}

/** Is the argument one of the command's options? */
static bool
is_option_of(const struct command *cmd, const char *arg)
{
    if (cmd->words != NULL && strcmp(arg, cmd->words) == 0)
        return true;
    if (cmd->flags == NULL || arg[0] != '-' || arg[1] == '\0')
        return false;
    return strspn(arg + 1, cmd->flags) == strlen(arg + 1);
}

static int
command_query(const struct command *cmd, const char *control, int argc, char **argv)
{
    char err[ERROR_BYTES], text[128] = "";
    int fd, rc;

    append_word(text, sizeof(text), cmd->name);
    for (int i = 1; i < argc; i++) {
        if (!is_option_of(cmd, argv[i]) || !append_word(text, sizeof(text), argv[i])) {
            fprintf(stderr, "isosock: %s takes no '%s': allowed are %s%s%s\n", cmd->name, argv[i],
                    cmd->flags != NULL ? "-" : "", cmd->flags != NULL ? cmd->flags : "",
                    cmd->words != NULL ? cmd->words : (cmd->flags != NULL ? "" : "no options"));
            return 2;
        }
    }
    fd = query_open(control, err, sizeof(err));
    if (fd < 0)
        return fail(1, err);
    rc = query_ask(fd, text, stdout, err, sizeof(err));
    close(fd);
    if (rc != 0)
        return fail(1, err);
    if (fflush(stdout) != 0 || ferror(stdout)) /* a flush before the last one may have failed */
        return fail(1, "cannot write the answer");
    return 0;
}

/** Find a file that belongs to this very program: places are relative to it, in the build tree or where it is installed; NULL ends them. */
static int
find_ours(const char *const *places, char out[PATH_MAX])
{
    char self[PATH_MAX], path[PATH_MAX + 128];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (n < 0)
        return -errno;
    self[n] = '\0';
    slash = strrchr(self, '/');
    if (slash == NULL)
        return -ENOENT;
    slash[1] = '\0';
    for (; *places != NULL; places++) {
        snprintf(path, sizeof(path), "%s%s", self, *places);
        if (access(path, R_OK) == 0 && realpath(path, out) != NULL)
            return 0;
    }
    return -ENOENT;
}

/* variable: how the preloaded library learns of the file. */
static int
set_environment(const char *const *places, const char *variable, const char *file)
{
    const char *before = getenv("LD_PRELOAD");
    char preload[PATH_MAX], absolute[PATH_MAX], *value;
    int rc = find_ours(places, preload);

    if (rc != 0)
        return rc;
    if (before == NULL || before[0] == '\0')
        before = "";
    if (asprintf(&value, "%s%s%s", preload, before[0] != '\0' ? ":" : "", before) < 0)
        return -ENOMEM;
    rc = setenv("LD_PRELOAD", value, 1);
    free(value);
    /* The program may change its directory before it makes its first socket. */
    if (rc != 0 || setenv(variable, realpath(file, absolute) != NULL ? absolute : file, 1) != 0)
        return -errno;
    return 0;
}

/* On a daemon's stack. Returns 0 or the exit status. */
static int
join_daemon(const char *control)
{
    static const char *const places[] = { ISOSOCK_PRELOAD_BUILD, ISOSOCK_PRELOAD_INSTALLED, NULL };
    char err[ERROR_BYTES];
    int fd = query_open(control, err, sizeof(err));

    if (fd < 0)
        return fail(1, err);
    close(fd);
    if (set_environment(places, "ISOSOCK_CONTROL", control) != 0)
        return fail(1, "libisosock-preload.so is not beside this program: build or install all of isosock");
    return 0;
}

/* With a stack inside. Returns 0 or the exit status. */
static int
embed_stack(const char *file)
{
    static const char *const places[] = { ISOSOCK_EMBEDDED_BUILD, ISOSOCK_EMBEDDED_INSTALLED, NULL };

    if (access(file, R_OK) != 0) {
        fprintf(stderr, "isosock: run --embedded: cannot read %s: %s\n", file, strerror(errno));
        return 2;
    }
    if (set_environment(places, "ISOSOCK_EMBEDDED", file) != 0)
        return fail(1, "libisosock-preload-embedded.so is not beside this program: build or install all of isosock");
    return 0;
}

static int
command_run(const struct command *cmd, const char *control, int argc, char **argv)
{
    static const char form[] = "isosock run [--embedded FILE] [--] PROGRAM [ARG...]";
    const char *embedded = NULL;
    int first = 1, status;

    (void)cmd;
    if (first + 1 < argc && strcmp(argv[first], "--embedded") == 0) {
        embedded = argv[first + 1];
        first += 2;
    }
    if (first < argc && strcmp(argv[first], "--") == 0)
        first++;
    else if (first < argc && argv[first][0] == '-') {
        fprintf(stderr, "isosock: run has no option '%s': %s\n", argv[first], form);
        return 2;
    }
    if (first >= argc) {
        fprintf(stderr, "isosock: run: no program named: %s\n", form);
        return 2;
    }
    status = embedded != NULL ? embed_stack(embedded) : join_daemon(control);
    if (status != 0)
        return status;
    execvp(argv[first], argv + first);
    fprintf(stderr, "isosock: cannot run %s: %s\n", argv[first], strerror(errno));
    return errno == ENOENT ? 127 : 126;
}

/** It contains a stack, which this program does not: one of its own. */
static int
command_replay(const struct command *cmd, const char *control, int argc, char **argv)
{
    static const char *const places[] = { "../tests/replay/isosock-replay", "isosock-replay", NULL };
    char path[PATH_MAX];

    (void)cmd;
    (void)control;
    (void)argc;
    if (find_ours(places, path) != 0)
        return fail(1, "isosock-replay is not there: replay belongs to a build tree");
    execv(path, argv);
    return fail(126, strerror(errno));
}

static const struct command commands[] = {
    { "run", command_run, NULL, NULL },         { "ss", command_query, "Hlatin", NULL },
    { "stats", command_query, NULL, "--json" }, { "neigh", command_query, NULL, NULL },
    { "route", command_query, NULL, NULL },     { "ports", command_query, NULL, NULL },
    { "paths", command_query, NULL, NULL },     { "config", command_query, NULL, NULL },
    { "replay", command_replay, NULL, NULL },
};

static const struct command *
find_command(const char *name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/** Options before the command. Returns the command's index in argv; or -1 with the exit status in *status. */
static int
parse_options(int argc, char **argv, const char **control, int *status)
{
    int i = 1;

    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--control") == 0 && i + 1 < argc) {
            *control = argv[++i];
        } else if (strncmp(argv[i], "--control=", 10) == 0) {
            *control = argv[i] + 10;
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage, stdout);
            *status = 0;
            return -1;
        } else if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0) {
            puts("isosock " ISOSOCK_VERSION);
            *status = 0;
            return -1;
        } else {
            fprintf(stderr, "isosock: %s '%s': --control PATH, --help, --version\n",
                    strcmp(argv[i], "--control") == 0 ? "a path is missing after" : "no such option", argv[i]);
            *status = 2;
            return -1;
        }
    }
    return i;
}

int
main(int argc, char **argv)
{
    char default_path[CTL_PATH_BYTES];
    const char *control = NULL;
    const struct command *cmd;
    int status = 0;
    int i = parse_options(argc, argv, &control, &status);

    if (i < 0)
        return status;
    if (i == argc)
        return fail(2, "no command: run, ss, stats, neigh, route, paths, ports, config, replay; --help says more");
    if (strcmp(argv[i], "help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    cmd = find_command(argv[i]);
    if (cmd == NULL) {
        fprintf(stderr, "isosock: no command '%s': run, ss, stats, neigh, route, paths, ports, config, replay, help\n",
                argv[i]);
        return 2;
    }
    if (control == NULL && ctl_default_path(default_path) == 0)
        control = default_path;
    return cmd->run(cmd, control, argc - i, argv + i);
}
