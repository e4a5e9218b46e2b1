#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The demo, interrupted in the middle, leaves nothing behind.
. "$(dirname "$0")/lib.sh" || exit 1
need_programs nginx redis-server redis-cli redis-benchmark curl
lab_init "$ISOSOCK_BUILD"
mkdir "$lab_tmp/demo"

in_the_middle()
{
    grep -q 'fetch a file' "$lab_tmp/demo.log" || ! kill -0 "$demo"
}

traces()
{
    ls -A "$lab_tmp/demo"
    [ -d /run/netns ] && ls /run/netns | grep "isolab$demo\$"
    ls /sys/class/net | grep "iso$demo\$"
    ps -e -o args= | grep -F "$lab_tmp/demo" | grep -v grep
}

TMPDIR=$lab_tmp/demo lab_start "$lab_tmp/demo.log" "$ISOSOCK_SOURCE/scripts/demo.sh" --build "$ISOSOCK_BUILD"
demo=$lab_pid
must "the demo gets going" lab_until 400 in_the_middle
kill -INT "$demo"
wait "$demo"
status=$?
expect "its status tells (130)" test $status = 130
expect "no process, namespace, interface or file is left: $(traces | head -n 3)" test -z "$(traces)"
[ $failures = 0 ] || cat "$lab_tmp/demo.log"
finish
