/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_FORK_H
#define SOCKETS_CLIENT_FORK_H

/** From now on forks of this process take their place in the family. Returns 0 or -ENOMEM. Called once, by front_attach. */
int fork_watch(void);

#endif /* SOCKETS_CLIENT_FORK_H */
