/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOBENCH_EMBEDDED_H
#define ISOBENCH_EMBEDDED_H

/** isobench's own main: the whole program but the stack. */
int isobench_main(int argc, char **argv);

#endif /* ISOBENCH_EMBEDDED_H */
