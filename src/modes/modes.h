/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef MODES_MODES_H
#define MODES_MODES_H

#include "core/options.h"
#include "modes/mode.h"

/**
 * @file
 * For the modes' own files: each declares its ops here, and registry.c lists them.
 */

extern const struct mode_ops mode_connp_l;
extern const struct mode_ops mode_connp_t;
extern const struct mode_ops mode_hybrid;
extern const struct mode_ops mode_isostack;
extern const struct mode_ops mode_misd;
extern const struct mode_ops mode_msgp;
extern const struct mode_ops mode_up;

/** Parse a mode's knobs (NULL or "" = all defaults) into target by a table of them. 0, or -errno (in errno too) with one line in err. */
int mode_knobs(const struct option_row *rows, unsigned count, void *target, const char *mode, const char *text,
               char *err, size_t err_len);

#endif /* MODES_MODES_H */
