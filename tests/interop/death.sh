#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# An application that is killed leaves no connection, listener or port in the stack.
. "$(dirname "$0")/lib.sh" || exit 1
need_programs nginx redis-server redis-cli curl ip
lab_init "$ISOSOCK_BUILD"
need_tap
www=$lab_tmp/www
random_file "$www/page" 600
random_file "$www/big" 512M
must "the stack starts" lab_tap_stack

has_connections()
{
    lab_tool ss -H | grep -q ESTAB
}

buffers_free()
{
    lab_tool stats
}

for round in 1 2 3; do
    must "nginx starts, round $round" lab_nginx 10.66.0.2 80
    nginx_pid=$lab_pid
    (
        fetch -o /dev/null --limit-rate 20M http://10.66.0.2/big &
        fetch -o /dev/null --limit-rate 20M http://10.66.0.2/big &
        wait
    ) 2>/dev/null &
    clients=$!
    lab_pids="$clients $lab_pids"
    expect "transfers run" lab_until 50 has_connections
    kill -KILL -- "-$nginx_pid"
    wait "$nginx_pid" 2>/dev/null
    expect "the stack holds nothing of it" lab_until 30 no_connections
    lab_stop "$clients"
done
must "nginx starts again on the same port" lab_nginx 10.66.0.2 80
expect "and serves" same_fetched http://10.66.0.2/page "$www/page"
expect "a listener is there" lab_listens 10.66.0.2:80
lab_stop "$lab_pid"
expect "an orderly end leaves nothing either" lab_until 30 no_connections
finish
