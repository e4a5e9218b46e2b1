#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# An unmodified redis-server on the stack; clients in the kernel, and a client on the stack (local delivery).
. "$(dirname "$0")/lib.sh" || exit 1
need_programs redis-server redis-cli redis-benchmark ip
lab_init "$ISOSOCK_BUILD"
need_tap
must "the stack starts" lab_tap_stack
must "redis starts" lab_redis 10.66.0.2 6379

set_get()
{
    [ "$(peer_run redis-cli -h 10.66.0.2 SET k value)" = OK ] && [ "$(peer_run redis-cli -h 10.66.0.2 GET k)" = value ]
}

big_value()
{
    head -c 3000000 /dev/urandom | base64 -w 0 >"$lab_tmp/value"
    [ "$(peer_run redis-cli -h 10.66.0.2 -x SET big <"$lab_tmp/value")" = OK ] || return 1
    peer_run redis-cli -h 10.66.0.2 GET big | tr -d '\n' | cmp - "$lab_tmp/value"
}

benchmark()
{
    peer_run redis-benchmark -h 10.66.0.2 -q -n 20000 -c 50 -P 4 -t set,get | tr '\r' '\n' >"$lab_tmp/bench" || return 1
    grep 'per second' "$lab_tmp/bench"
    [ "$(grep -c 'per second' "$lab_tmp/bench")" = 2 ]
}

from_the_stack()
{
    [ "$(lab_app timeout 20 redis-cli -h 10.66.0.2 GET k)" = value ]
}

expect "SET and GET" set_get
expect "a value of 4 MB" big_value
expect "50 clients" benchmark
expect "a client on the same stack" from_the_stack
finish
