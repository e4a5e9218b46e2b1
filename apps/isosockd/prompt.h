/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOSOCKD_PROMPT_H
#define ISOSOCKD_PROMPT_H

#include <stdio.h>

/**
 * @file
 * The interactive prompt (-i), by rte_cmdline on stdin and stdout, in a thread of its own.
 */

/** What the prompt asks its owner for. Both run in the prompt's thread. */
struct prompt_ops {
    /** Write the answer to a query: "ports", or what the control socket takes ("ss -a", "stats", ...). */
    void (*query)(void *ctx, const char *query, FILE *out);
    /** The user wants the daemon to end, in order. */
    void (*quit)(void *ctx);
};

struct prompt;

/** Start the thread. NULL with errno set if there is no memory or thread. Main thread; ops and ctx outlive the prompt. */
struct prompt *prompt_create(const struct prompt_ops *ops, void *ctx);

/** End the thread and give the terminal its settings back. Main thread. */
void prompt_destroy(struct prompt *p);

#endif /* ISOSOCKD_PROMPT_H */
