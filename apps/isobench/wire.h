/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOBENCH_WIRE_H
#define ISOBENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/** @file The wire of `isobench-embedded pair`, which bench-bare measures without a stack: both ends of a net_memif in one process. */

/** Room for an end's word. */
#define WIRE_WORD_BYTES 256

/**
 * Writes the EAL's word for one end, 0 or 1, whose socket is made in folder dir. The driver keeps two ends in a process apart by the socket's name, hence two spellings of it.
 * The ring holds some 4 MiB whatever a frame's size: each slot is used in its turn, so of a ring of 18 MiB (2,048 slots of 9,216 bytes) no line is in a cache when its turn comes.
 */
static inline void
wire_word(char *text, size_t size, unsigned end, const char *dir, unsigned frame_bytes)
{
    bool is_jumbo = frame_bytes > 2000;

    snprintf(text, size, "--vdev=net_memif%u,role=%s,id=0,socket-abstract=no,socket=%s/%swire,rsize=%u,bsize=%u", end,
             end == 0 ? "server" : "client", dir, end == 0 ? "" : "./", is_jumbo ? 9u : 11u, is_jumbo ? 9216u : 2048u);
}

#endif
