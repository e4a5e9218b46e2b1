/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_PORT_PACKET_H
#define CORE_PORT_PACKET_H

#include <stdbool.h>

#include <net/if.h>

#include "core/port.h"

/**
 * @file
 * The packet wire (`--port packet,interface=veth0`): a kernel's network interface by a packet socket, as net_af_packet is, with what that driver has not: the kernel's header of offloads
 * (virtio_net_hdr) before each frame. So frames of up to 64 KiB pass whole in both directions, sums are left to whoever needs them, and between local namespaces to nobody; a frame
 * is copied once by the kernel, straight into or out of packet buffers; and a sleeping worker is woken by a frame.
 *
 * One queue. The stack has a link-layer address of its own, so that the kernel refuses the stack's frames at the first look instead of walking them through its IP layer.
 */
struct packet_config {
    char interface[IF_NAMESIZE];
    bool interface_mac; /**< take the interface's address, for networks that let no other pass */
};

/**
 * Parse "interface=veth0,mac=own,...": the wire's knobs and, since every port has it, impair. Returns 0, or -EINVAL with one line in err.
 */
int packet_parse(const char *text, struct packet_config *cfg, struct impair_config *impair, char *err, size_t err_len);

extern const struct port_wire_ops packet_wire_ops;

#endif /* CORE_PORT_PACKET_H */
