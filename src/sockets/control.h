/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CONTROL_H
#define SOCKETS_CONTROL_H

#include <stdint.h>

#include "sockets/shm.h"

/**
 * @file
 * The control socket: AF_UNIX, SOCK_SEQPACKET, one message a packet, host byte order. The first message of a connection is struct
 * ctl_hello; the stack answers with struct ctl_welcome (descriptors attached by SCM_RIGHTS) or refuses with a status. The connection is
 * the process's lifeline: when the kernel closes the last copy of it, everything that the process held in the stack is released.
 *
 * fork: before forking, the front-end opens a connection for the child (CTL_KIND_FORK with the family's token and its own member number);
 * the child keeps it, the parent closes its copy. The new member holds every socket that the parent held at that moment. Regions are inherited mappings.
 *
 * An event queue's descriptor is the read end of a pipe (an eventfd would let an application block the stack, since both ends share
 * their O_NONBLOCK): the stack writes 8 bytes for each wake-up; read with a buffer of 512 bytes or more until EAGAIN. It is non-blocking.
 *
 * A child learns nothing from the stack, but the stack learns its process id from the credentials of the first message that it sends
 * itself (CTL_HERE if it has nothing else to say, which is not answered).
 *
 * Descriptors of a welcome to CTL_KIND_APP, in this order: front, back (read-only), pool (read-only), stack page (read-only), then one doorbell
 * eventfd for each instance. To CTL_KIND_FORK: none. CTL_KIND_TOOL: none.
 */

#define CTL_MAGIC 0x69736f73u /* "isos" */
#define CTL_MAX_TEXT 16384u
#define CTL_ERROR_BYTES 128u

enum ctl_kind { CTL_KIND_APP = 1, CTL_KIND_FORK = 2, CTL_KIND_TOOL = 3 };

struct ctl_hello {
    uint32_t magic;
    uint32_t version; /**< SHM_VERSION */
    uint32_t kind;
    uint32_t parent_member; /**< CTL_KIND_FORK */
    uint64_t family; /**< CTL_KIND_FORK: the token from the parent's welcome */
};

struct ctl_welcome {
    uint32_t magic;
    uint32_t version; /**< of the stack, also in a refusal */
    int32_t status; /**< 0, or -errno: -EPROTO another version, -EPERM, -ENOMEM, -ENFILE */
    uint32_t member; /**< number of this process in its family, 1 .. 65535 */
    uint64_t family; /**< token: names the family to a fork's hello */
    uint32_t nb_fds;
    uint32_t stack_pid;
    char error[CTL_ERROR_BYTES]; /**< one line, with status != 0 */
    struct shm_layout layout;
};

enum ctl_op {
    CTL_EVENTQ_CREATE =
        1, /**< -> answer with value = queue number, its wake-up descriptor attached; status -ENOSPC, -EMFILE */
    CTL_EVENTQ_DESTROY, /**< value = queue number; not answered */
    CTL_QUERY, /**< CTL_KIND_TOOL: text = "ss [-l]", "stats", "stats --json", ...; answers: any number of CTL_TEXT, then CTL_END with status */
    CTL_TEXT,
    CTL_END,
    CTL_HERE, /**< nothing but the sender's credentials; not answered */
};

struct ctl_msg {
    uint32_t op;
    int32_t status; /**< answers: 0 or -errno */
    uint32_t value;
    uint32_t text_len;
    char text[]; /**< text_len bytes, no NUL, at most CTL_MAX_TEXT */
};

#endif /* SOCKETS_CONTROL_H */
