/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/log.h"

RTE_LOG_REGISTER(log_type, isosock, INFO);
