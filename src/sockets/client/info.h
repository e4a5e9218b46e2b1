/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_INFO_H
#define SOCKETS_CLIENT_INFO_H

#include <stdint.h>

struct shm_info;
struct tcp_info;

/** What the stack knows of a connection. Returns 0, -EBUSY (all info slots of the family are in use), -ENETDOWN, -EINVAL. */
int info_get(uint32_t slot, struct shm_info *out);

/** Into Linux's form; what the stack does not know is 0. */
void info_translate(const struct shm_info *in, struct tcp_info *out);

#endif /* SOCKETS_CLIENT_INFO_H */
