/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ISOSOCKD_NOTIFY_H
#define ISOSOCKD_NOTIFY_H

/**
 * Tell the service manager, if it asked by NOTIFY_SOCKET (sd_notify(3)): "READY=1", "STOPPING=1". Main thread. Failures are
 * ignored: a manager that does not listen loses only its own news.
 */
void notify_manager(const char *state);

#endif /* ISOSOCKD_NOTIFY_H */
