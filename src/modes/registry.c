/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "core/options.h"
#include "modes/modes.h"

const struct mode_ops *const mode_table[] = {
    &mode_connp_l, &mode_connp_t, &mode_hybrid, &mode_isostack, &mode_misd, &mode_msgp, &mode_up, NULL,
};

const struct mode_ops *
mode_find(const char *text, const char **knobs, char *err, size_t err_len)
{
    char head[32];
    const char *rest = knobs_split_head(text, head, sizeof(head));
    size_t used;

    for (const struct mode_ops *const *m = mode_table; *m != NULL; m++) {
        if (strcmp((*m)->name, head) == 0) {
            *knobs = rest;
            return *m;
        }
    }
    used = (size_t)snprintf(err, err_len, "no mode '%s': allowed are", head);
    for (const struct mode_ops *const *m = mode_table; *m != NULL && used < err_len; m++)
        used += (size_t)snprintf(err + used, err_len - used, "%s %s", m == mode_table ? "" : ",", (*m)->name);
    return NULL;
}

int
mode_knobs(const struct option_row *rows, unsigned count, void *target, const char *mode, const char *text, char *err,
           size_t err_len)
{
    struct options o;
    char what[64];
    int rc = options_init(&o, rows, count, target, err, err_len);

    if (rc != 0) {
        errno = -rc;
        return rc;
    }
    snprintf(what, sizeof(what), "--mode %s", mode);
    rc = knobs_parse(&o, text != NULL ? text : "", what, err, err_len);
    options_fini(&o);
    if (rc != 0)
        errno = -rc;
    return rc;
}
