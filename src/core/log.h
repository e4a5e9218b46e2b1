/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include <rte_log.h>

/**
 * @file
 * Log lines of the stack, of rte_log's type "isosock" (`--log-level=isosock:debug` shows all). For rare events of the
 * control path: nothing that a peer or an application can cause at will may log; such things are counted.
 */

extern int log_type;

/* A format string without a final newline, and its arguments. */
#define LOG_AT(level, fmt, ...) rte_log(RTE_LOG_##level, (uint32_t)log_type, "isosock: " fmt "\n", ##__VA_ARGS__)

#define LOG_ERR(...) LOG_AT(ERR, __VA_ARGS__)
#define LOG_WARN(...) LOG_AT(WARNING, __VA_ARGS__)
#define LOG_INFO(...) LOG_AT(INFO, __VA_ARGS__)
#define LOG_DEBUG(...) LOG_AT(DEBUG, __VA_ARGS__)

#endif /* CORE_LOG_H */
