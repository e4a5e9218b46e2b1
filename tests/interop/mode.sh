#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mode.sh MODE SCRIPT...: other interop tests with two workers under that mode, sharing a core if there is only one.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
export LAB_MODE=$1
shift
. "$here/lib.sh" || exit 1
if [ ${#lab_cores[@]} -gt 1 ]; then
    export LAB_LCORES=${lab_cores[0]},${lab_cores[1]}
else
    export LAB_LCORES="(0-1)@${lab_cores[0]}"
fi
for script in "$@"; do
    bash "$here/$script"
    rc=$?
    [ $rc = 0 ] || exit $rc
done
