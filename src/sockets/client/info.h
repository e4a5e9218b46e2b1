/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SOCKETS_CLIENT_INFO_H
#define SOCKETS_CLIENT_INFO_H

/* Before sockets/shm.h's users include the engine's header: both name the flags of a segment, one by an enum. */
#include <linux/tcp.h>
#include <stdint.h>

struct shm_info;

/** What Linux 6.18 answers to TCP_INFO: the structure of the header that this is built with, and what newer ones append. */
struct info_answer {
    struct tcp_info info;
    uint32_t rcv_wnd;
    uint32_t rehash; /**< paths chosen anew by the flow label: none here */
    uint16_t total_rto, total_rto_recoveries;
    uint32_t total_rto_time_ms;
    uint32_t received_ce;
    uint32_t delivered_bytes[3], received_bytes[3]; /**< ECT(1), ECT(0), CE */
    uint32_t accecn; /**< mode: 2 bits, option seen: 2, failures: 4 */
};
_Static_assert(sizeof(struct tcp_info) == 232, "a newer header has some of these fields itself");

/** An info slot of the family's, for info_free; waits a while for one. Or -EBUSY. */
int info_claim(void);

/** What the stack knows of a connection. Returns 0, -EBUSY (all info slots of the family are in use), -ENETDOWN, -EINVAL. */
int info_get(uint32_t slot, struct shm_info *out);

/** Into Linux's form; what the stack does not know is 0. */
void info_translate(const struct shm_info *in, struct info_answer *out);

#endif /* SOCKETS_CLIENT_INFO_H */
