/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_FORK_H
#define SOCKETS_CLIENT_FORK_H

/** From now on forks of this process take their place in the family, or its plan. Returns 0 or -ENOMEM. By attach.c, under its lock. */
int fork_watch(void);

#endif /* SOCKETS_CLIENT_FORK_H */
