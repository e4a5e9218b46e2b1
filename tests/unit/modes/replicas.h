/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TEST_REPLICAS_H
#define TEST_REPLICAS_H

#include "world.h"

#include "modes/misd.h"

/** What a node of mode misd is made of. */
struct misd *misd_of(unsigned node);
/** Has every replica applied everything, and have the sockets seen it? */
bool replicas_are_level(unsigned node);
/** When they are, those of each node are the same byte for byte, and no event was dropped. */
void assert_equal_replicas(struct world *w);

#endif /* TEST_REPLICAS_H */
