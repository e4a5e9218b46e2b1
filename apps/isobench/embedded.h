/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOBENCH_EMBEDDED_H
#define ISOBENCH_EMBEDDED_H

#include <pthread.h>

/** isobench's own main: the whole program but the stack. */
int isobench_main(int argc, char **argv);

/** A thread that uses the same stack as the one that creates it; arguments and results are pthread_create's. */
int embedded_thread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *arg), void *arg);
#define pthread_create embedded_thread_create

#endif /* ISOBENCH_EMBEDDED_H */
