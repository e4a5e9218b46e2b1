/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_EAL_H
#define CORE_EAL_H

#include <stddef.h>

/**
 * @file
 * Starting DPDK's environment (EAL) the way testpmd is started: `program [EAL options] -- [own options]`.
 */

/**
 * Start the EAL with the options before `--` (all of argv if there is no `--`), completed where the user said
 * nothing: one lcore that floats over the allowed cores, `--iova-mode=va`, a `--file-prefix` of this process and
 * `--in-memory` (`--no-shconf` without huge pages), so that daemons do not collide and leave no files; `--no-huge` and
 * a memory size, announced in one line on stderr, if too few huge pages are free; log level warning. Also registers
 * the exit handler that removes the EAL's runtime folder.
 *
 * While the EAL parses, standard output and error are diverted: no other thread should print. Main thread, once per
 * process. Returns the index in argv of the `--` (argc if there is none), so that `argv + result` is an argument
 * vector of its own whose element 0 takes the place of the program's name. Otherwise -errno with one line in err:
 * -EINVAL an option that the EAL rejects (callers exit with 2), -ENOMEM no memory, -EALREADY it runs already, -EIO
 * anything else.
 */
int eal_start(int argc, char **argv, char *err, size_t err_len);

/**
 * Close the ports that are still open (net_memif removes its socket then) and, where the user asked for files of huge
 * pages, remove those. Main thread, at the end of the process, after the workers; nothing of DPDK may be used
 * afterwards.
 */
void eal_stop(void);

#endif /* CORE_EAL_H */
