#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Programs of other kinds than the servers of http.sh and redis.sh on the stack: threads, children that inherit, event loops of other
# makes, both worlds at once; and what is left of them when the stack is killed.
. "$(dirname "$0")/lib.sh" || exit 1
need_programs python3 curl ip
lab_init "$ISOSOCK_BUILD"
need_tap
here=$(dirname "$0")
www=$lab_tmp/www
random_file "$www/page" 600
random_file "$www/big" 16M
must "the stack starts" lab_tap_stack

answers()
{
    peer_run curl -q -s -o /dev/null --noproxy '*' --max-time 5 "$1"
}

# The port is the kernel's choice of a moment ago, since this listener stands in our own namespace too.
free_port()
{
    python3 -c 'import socket; s = socket.socket(); s.bind(("0.0.0.0", 0)); print(s.getsockname()[1])'
}

here_too()
{
    curl -q -sS -f --noproxy '*' --max-time 10 -o "$lab_tmp/here" "http://127.0.0.1:$port/big" && cmp "$lab_tmp/here" "$www/big"
}

port=$(free_port)
lab_start "$lab_tmp/python.log" "${lab_on_stack[@]}" python3 -m http.server -d "$www" "$port"
must "python's server starts" lab_until 100 answers "http://10.66.0.2:$port/page"
expect "python: a file by the stack" same_fetched "http://10.66.0.2:$port/big" "$www/big"
expect "python: the same by the kernel's loopback" here_too
lab_stop "$lab_pid"

forked()
{
    lab_start "$lab_tmp/fork.log" "${lab_on_stack[@]}" python3 "$here/front_fork.py" 10.66.0.2 7000 40
    local server=$lab_pid
    lab_until 50 lab_listens 10.66.0.2:7000 || return 1
    peer_run python3 "$here/front_fork_client.py" 10.66.0.2 7000 40 || return 1
    wait "$server"
}
expect "children answer on inherited sockets" forked

expect "threads share epoll sets" threads_share "${lab_on_stack[@]}"

if command -v node >/dev/null; then
    cat >"$lab_tmp/server.js" <<END
const http = require('http'), fs = require('fs');
http.createServer((q, r) => fs.createReadStream('$www' + q.url).pipe(r)).listen($(free_port));
END
    port=$(sed -n 's/.*listen(\([0-9]*\)).*/\1/p' "$lab_tmp/server.js")
    lab_start "$lab_tmp/node.log" "${lab_on_stack[@]}" node "$lab_tmp/server.js"
    must "node starts" lab_until 100 answers "http://10.66.0.2:$port/page"
    # It listens on ::, for both worlds, and reuses descriptor numbers that it closes by system call number.
    for round in 1 2; do
        expect "node: a file by the stack, round $round" same_fetched "http://10.66.0.2:$port/big" "$www/big"
        expect "node: the same by the kernel's loopback" here_too
    done
    lab_stop "$lab_pid"
fi

iperf()
{
    lab_start "$lab_tmp/iperf.log" "${lab_on_stack[@]}" iperf3 -s -1 -B 10.66.0.2
    lab_until 50 lab_listens 10.66.0.2:5201 || return 1
    peer_run iperf3 -c 10.66.0.2 -t 1 "$@" >"$lab_tmp/iperf" && grep receiver "$lab_tmp/iperf"
}
if command -v iperf3 >/dev/null; then
    expect "iperf3 receives" iperf
    expect "iperf3 sends, on three connections" iperf -R -P 3
fi
expect "nothing is left" lab_until 30 no_connections

killed()
{
    lab_start "$lab_tmp/sink.log" nsenter "--net=/run/netns/$lab_ns" python3 -m http.server -b 10.66.0.1 7002
    lab_until 100 lab_peer curl -q -s -o /dev/null --noproxy '*' http://10.66.0.1:7002/ || return 1
    lab_start "$lab_tmp/blocked.log" "${lab_on_stack[@]}" python3 "$here/front_blocked.py" 10.66.0.2 10.66.0.1 7002
    local blocked=$lab_pid
    lab_until 100 grep -q waiting "$lab_tmp/blocked.log" || return 1
    kill -KILL -- "-$lab_daemon_pid"
    wait "$blocked"
}
expect "whoever waits is told when the stack is killed" killed
finish
