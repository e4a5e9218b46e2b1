/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_API_H
#define SOCKETS_CLIENT_API_H

#include <errno.h>

#include "fdtable.h"

/** End a call: let go of the object, turn -errno into errno. */
static inline int
api_put(struct obj *o, int rc)
{
    obj_put(o);
    if (rc >= 0)
        return rc;
    errno = -rc;
    return -1;
}

/** The object behind a descriptor if it is of that kind, held; else NULL. */
static inline struct obj *
fd_get_kind(int fd, enum obj_kind kind)
{
    struct obj *o = fd_peek(fd);

    if (FRONT_LIKELY(o == NULL) || o->kind != kind)
        return NULL;
    return fd_hold(fd, o);
}

#endif /* SOCKETS_CLIENT_API_H */
