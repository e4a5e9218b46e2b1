/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CONTROL_PATH_H
#define SOCKETS_CONTROL_PATH_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

/** Bytes of a control socket's path, the terminating NUL included. */
#define CTL_PATH_BYTES sizeof(((struct sockaddr_un *)0)->sun_path)

/**
 * Where the control socket is if nobody says otherwise: $ISOSOCK_CONTROL, or /run/isosock.sock for root, or
 * $XDG_RUNTIME_DIR/isosock.sock. The daemon, the tool and the front-end ask here, so that they meet. Writes the path; returns 0, or
 * -ENOENT (none of these is set), -ENAMETOOLONG. Any thread, provided that nobody changes the environment meanwhile.
 */
static inline int
ctl_default_path(char out[CTL_PATH_BYTES])
{
    const char *control = getenv("ISOSOCK_CONTROL");
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int n;

    if (control != NULL && control[0] != '\0')
        n = snprintf(out, CTL_PATH_BYTES, "%s", control);
    else if (geteuid() == 0)
        n = snprintf(out, CTL_PATH_BYTES, "/run/isosock.sock");
    else if (runtime != NULL && runtime[0] != '\0')
        n = snprintf(out, CTL_PATH_BYTES, "%s/isosock.sock", runtime);
    else
        return -ENOENT;
    return n < (int)CTL_PATH_BYTES ? 0 : -ENAMETOOLONG;
}

#endif /* SOCKETS_CONTROL_PATH_H */
