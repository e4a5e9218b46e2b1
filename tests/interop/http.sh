#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# An unmodified nginx on the stack, the kernel as the client.
. "$(dirname "$0")/lib.sh" || exit 1
need_programs nginx curl wrk ip
lab_init "$ISOSOCK_BUILD"
need_tap
www=$lab_tmp/www
random_file "$www/page" 600
random_file "$www/big" 64M
random_file "$lab_tmp/upload" 16M
must "the stack starts" lab_tap_stack
must "nginx starts" lab_nginx 10.66.0.2 80
url=http://10.66.0.2

four_at_once()
{
    local i pids="" bad=0
    for i in 1 2 3 4; do
        same_fetched $url/big "$www/big" &
        pids="$pids $!"
    done
    for i in $pids; do
        wait "$i" || bad=1
    done
    return $bad
}

many_connections()
{
    peer_run wrk -t 2 -c 200 -d 2 $url:80/page >"$lab_tmp/wrk" || return 1
    cat "$lab_tmp/wrk"
    ! grep -q 'Socket errors' "$lab_tmp/wrk" && ! grep -q 'Non-2xx' "$lab_tmp/wrk"
}

short_connections()
{
    peer_run wrk -t 2 -c 50 -d 2 -H 'Connection: close' $url:80/page >"$lab_tmp/wrk" || return 1
    cat "$lab_tmp/wrk"
    ! grep -q 'Socket errors.*\(connect\|write\|timeout\) [1-9]' "$lab_tmp/wrk" && ! grep -q 'Non-2xx' "$lab_tmp/wrk"
}

not_found()
{
    [ "$(peer_run curl -q -s -o /dev/null -w '%{http_code}' --noproxy '*' $url/nothing)" = 404 ]
}

refused()
{
    peer_run curl -q -s --noproxy '*' --max-time 5 http://10.66.0.2:81/
    [ $? = 7 ]
}

expect "a page of 600 bytes" same_fetched $url/page "$www/page"
expect "a file of 64 MiB" same_fetched $url/big "$www/big"
expect "the same four times at once" four_at_once
expect "PUT of 16 MiB" same_put "$lab_tmp/upload" $url/up/upload "$www/up/upload"
expect "404" not_found
expect "a port without listener refuses" refused
expect "200 connections" many_connections
expect "a connection for each request" short_connections
expect "and a page after that" same_fetched $url/page "$www/page"
finish
