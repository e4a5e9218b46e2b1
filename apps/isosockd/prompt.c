/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmdline.h>
#include <cmdline_parse.h>
#include <cmdline_parse_string.h>
#include <cmdline_socket.h>

#include "prompt.h"

struct prompt {
    const struct prompt_ops *ops;
    void *ctx;
    struct cmdline *cl;
    pthread_t thread;
    int stop_fd;
};

/** Commands find their prompt here: rte_cmdline hands them only what its tokens parsed. One prompt a process (stdin). */
static struct prompt *the_prompt;

/** What `show` takes, and the query that answers it. */
static const struct {
    const char *what;
    const char *query;
    const char *help;
} shows[] = {
    { "ports", "ports", "ports, their offloads and packet counts" },
    { "connections", "ss -a -i", "connections and listeners" },
    { "counters", "stats", "counters that are not zero, each drop with its reason" },
    { "config", "config", "the configuration in force" },
    { "neighbours", "neigh", "the neighbour table" },
    { "routes", "route", "the route table" },
    { "paths", "paths", "what ICMP has told of paths" },
};

static void
answer(struct cmdline *cl, const char *query)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    if (out == NULL) {
        cmdline_printf(cl, "no memory for the answer\n");
        return;
    }
    the_prompt->ops->query(the_prompt->ctx, query, out);
    if (fclose(out) == 0)
        cmdline_printf(cl, "%s", text);
    free(text);
}

struct show_words {
    cmdline_fixed_string_t verb, what, which;
};

static void
on_show(void *parsed, struct cmdline *cl, void *data)
{
    const struct show_words *words = parsed;

    (void)data;
    for (size_t i = 0; i < sizeof(shows) / sizeof(shows[0]); i++)
        if (strcmp(words->what, shows[i].what) == 0)
            answer(cl, shows[i].query);
}

static void
on_show_counters(void *parsed, struct cmdline *cl, void *data)
{
    const struct show_words *words = parsed;

    (void)data;
    answer(cl, strcmp(words->which, "all") == 0 ? "stats -a" : "stats");
}

static void
on_help(void *parsed, struct cmdline *cl, void *data)
{
    (void)parsed;
    (void)data;
    for (size_t i = 0; i < sizeof(shows) / sizeof(shows[0]); i++)
        cmdline_printf(cl, "show %-24s %s\n", shows[i].what, shows[i].help);
    cmdline_printf(cl, "show %-24s %s\n", "counters all|nonzero", "all of them, or those that are not zero");
    cmdline_printf(cl, "%-29s %s\n", "quit", "end the stack in order");
}

static void
on_quit(void *parsed, struct cmdline *cl, void *data)
{
    (void)parsed;
    (void)data;
    cmdline_quit(cl);
    the_prompt->ops->quit(the_prompt->ctx);
}

static cmdline_parse_token_string_t show_verb = TOKEN_STRING_INITIALIZER(struct show_words, verb, "show");
static cmdline_parse_token_string_t show_what =
    TOKEN_STRING_INITIALIZER(struct show_words, what, "ports#connections#counters#config#neighbours#routes#paths");
static cmdline_parse_token_string_t show_counters = TOKEN_STRING_INITIALIZER(struct show_words, what, "counters");
static cmdline_parse_token_string_t show_which = TOKEN_STRING_INITIALIZER(struct show_words, which, "all#nonzero");
static cmdline_parse_token_string_t help_verb = TOKEN_STRING_INITIALIZER(struct show_words, verb, "help");
static cmdline_parse_token_string_t quit_verb = TOKEN_STRING_INITIALIZER(struct show_words, verb, "quit");

static cmdline_parse_inst_t inst_show = {
    .f = on_show,
    .help_str = "show ports|connections|counters|config|neighbours|routes|paths",
    .tokens = { (void *)&show_verb, (void *)&show_what, NULL },
};
static cmdline_parse_inst_t inst_show_counters = {
    .f = on_show_counters,
    .help_str = "show counters all|nonzero",
    .tokens = { (void *)&show_verb, (void *)&show_counters, (void *)&show_which, NULL },
};
static cmdline_parse_inst_t inst_help = {
    .f = on_help,
    .help_str = "help: the commands",
    .tokens = { (void *)&help_verb, NULL },
};
static cmdline_parse_inst_t inst_quit = {
    .f = on_quit,
    .help_str = "quit: end the stack in order",
    .tokens = { (void *)&quit_verb, NULL },
};

static cmdline_parse_ctx_t commands[] = { &inst_show, &inst_show_counters, &inst_help, &inst_quit, NULL };

/**
 * Feed the command line with what stdin holds, until prompt_destroy, quit or Ctrl-D. The end of a stdin that is no terminal ends the
 * prompt and not the daemon.
 */
static void *
prompt_main(void *arg)
{
    struct prompt *p = arg;
    struct pollfd fds[] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = p->stop_fd, .events = POLLIN } };
    char buf[256];

    for (;;) {
        ssize_t n;

        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (fds[1].revents != 0)
            return NULL;
        if (fds[0].revents == 0)
            continue;
        n = read(STDIN_FILENO, buf, sizeof(buf));
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
            return NULL;
        if (n > 0 && cmdline_in(p->cl, buf, (int)n) < 0) {
            p->ops->quit(p->ctx);
            return NULL;
        }
    }
}

struct prompt *
prompt_create(const struct prompt_ops *ops, void *ctx)
{
    struct prompt *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    p->ops = ops;
    p->ctx = ctx;
    p->stop_fd = eventfd(0, EFD_CLOEXEC);
    p->cl = cmdline_stdin_new(commands, "isosock> ");
    the_prompt = p;
    if (p->stop_fd >= 0 && p->cl != NULL) {
        errno = pthread_create(&p->thread, NULL, prompt_main, p);
        if (errno == 0)
            return p;
    }
    if (p->cl != NULL)
        cmdline_stdin_exit(p->cl);
    if (p->stop_fd >= 0)
        close(p->stop_fd);
    free(p);
    return NULL;
}

void
prompt_destroy(struct prompt *p)
{
    if (p == NULL)
        return;
    if (eventfd_write(p->stop_fd, 1) == 0)
        pthread_join(p->thread, NULL);
    cmdline_stdin_exit(p->cl);
    close(p->stop_fd);
    free(p);
    the_prompt = NULL;
}
