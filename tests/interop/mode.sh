#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mode.sh MODE WORKERS SCRIPT...: other interop tests under that mode.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
export LAB_MODE=$1 LAB_WORKERS=$2
shift 2
for script in "$@"; do
    bash "$here/$script"
    rc=$?
    [ $rc = 0 ] || exit $rc
done
