#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The daemon's life: ready, a second one refused, idle without load, an orderly end under live applications, no trace.
. "$(dirname "$0")/lib.sh" || exit 1
need_programs nginx curl ip
lab_init "$ISOSOCK_BUILD"
need_tap
www=$lab_tmp/www
random_file "$www/page" 600
must "the stack starts" lab_tap_stack
daemon=$lab_daemon_pid

expect "a second daemon is refused" one_line_status 1 "another isosockd.*stack.sock" \
    "$lab_isosockd" -l "${lab_cores[0]}" --no-pci --no-huge --vdev=net_null0 -- --address 10.66.0.3/24 --control "$lab_tmp/stack.sock"
must "nginx starts" lab_nginx 10.66.0.2 80
nginx=$lab_pid
expect "a page" same_fetched http://10.66.0.2/page "$www/page"

for query in ss "ss -H -l" "ss -a -i" stats "stats --json" neigh route paths config; do
    expect "isosock $query" lab_tool $query >/dev/null
done
expect "isosock stats into a full disk" one_line_status 1 "cannot write" sh -c 'exec "$@" >/dev/full' sh "$lab_isosock" --control "$lab_tmp/stack.sock" stats --json
expect "the stats are JSON" sh -c "$lab_isosock --control $lab_tmp/stack.sock stats --json | python3 -m json.tool >/dev/null"
expect "neigh knows the kernel" sh -c "$lab_isosock --control $lab_tmp/stack.sock neigh | grep -q '^10.66.0.1 '"
expect "route has the link" sh -c "$lab_isosock --control $lab_tmp/stack.sock route | grep -q '^10.66.0.0/24'"

# Ticks (1/100 s) of CPU that a process and its threads have used: fields 14 and 15 of stat, behind the name in parentheses.
cpu_ticks()
{
    sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

idle()
{
    local before after
    sleep 1
    before=$(cpu_ticks "$daemon")
    sleep 3
    after=$(cpu_ticks "$daemon")
    echo "CPU in 3 s of nothing: $((after - before)) ticks of $(getconf CLK_TCK) a second"
    [ $(((after - before) * 100)) -lt $((3 * $(getconf CLK_TCK) * 5)) ]
}
expect "asleep when nothing happens (under 5%)" idle
expect "awake at once when something does" same_fetched http://10.66.0.2/page "$www/page"

ends_in_order()
{
    kill -TERM "$daemon"
    lab_gone "$daemon" 80
}
fetch -o /dev/null --limit-rate 1k http://10.66.0.2/page 2>/dev/null &
lab_pids="$! $lab_pids"
ends_in_order || { echo "NOT OK: SIGTERM ends the daemon within 8 s"; failures=1; }
wait "$daemon"
expect "with status 0" test $? = 0
expect "the socket file is gone" test ! -e "$lab_tmp/stack.sock"
expect "the tool says that no stack runs" one_line_status 1 'no stack' "$lab_isosock" --control "$lab_tmp/stack.sock" ss
expect "nginx has survived and can be ended" kill -TERM "$nginx"
expect "and ends" lab_gone "$nginx" 50

killed_daemon_is_replaced()
{
    kill -KILL "$lab_daemon_pid"
    wait "$lab_daemon_pid" 2>/dev/null
    [ -e "$lab_tmp/stack.sock" ]
}
lab_peer ip link del "iso$lab_id" 2>/dev/null
lab_prefix=(nsenter "--net=/run/netns/$lab_ns")
restart()
{
    lab_daemon stack -l "${lab_cores[0]}" --no-pci "--vdev=net_tap0,iface=iso$lab_id" -- --address 10.66.0.2/24
}
must "another start" restart

# The prompt, on a stack of its own: each question has its answer, quit ends it.
prompt_answers()
{
    {
        printf 'show ports\nshow counters all\nshow config\nshow routes\nshow connections\nshow neighbours\nhelp\n'
        sleep 1
        echo quit
        sleep 5
    } | timeout --foreground 20 "$lab_isosockd" -l "${lab_cores[0]}" --no-pci --no-huge --vdev=net_null0 -- --address 10.66.1.2/24 \
        --control "$lab_tmp/prompt.sock" -i >"$lab_tmp/prompt.out" 2>"$lab_tmp/prompt.err" || return 1
    grep -q '^port 0 .*net_null' "$lab_tmp/prompt.out" && grep -q '^tcp.rx_segs ' "$lab_tmp/prompt.out" &&
        grep -q '^address = 10.66.1.2/24' "$lab_tmp/prompt.out" && grep -q '^10.66.1.0/24 ' "$lab_tmp/prompt.out"
}
expect "the prompt answers, and quits" prompt_answers
lab_daemon_pid=$lab_pid
killed_daemon_is_replaced || { echo "NOT OK: a killed daemon leaves its socket file"; failures=1; }
must "a start over a dead daemon's socket" restart
finish
