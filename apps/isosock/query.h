/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOSOCK_QUERY_H
#define ISOSOCK_QUERY_H

#include <stddef.h>
#include <stdio.h>

/**
 * @file
 * The tool's end of the control socket. One thread. Every failure leaves one line in err that says what is wrong and what to do.
 */

/**
 * Connect to the stack at path (NULL: there is no default) and shake hands as a tool. Returns a descriptor that the caller closes, or -errno: -ECONNREFUSED
 * and -ENOENT no stack runs there, -EACCES, -ETIMEDOUT it does not answer, -EPROTO another version, or what the stack refused with.
 */
int query_open(const char *path, char *err, size_t err_len);

/** Ask; the answer's text goes to out. Returns the stack's status (0 or -errno), or -errno if the connection failed. */
int query_ask(int fd, const char *text, FILE *out, char *err, size_t err_len);

#endif /* ISOSOCK_QUERY_H */
