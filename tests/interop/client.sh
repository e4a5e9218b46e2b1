#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Programs on the stack as clients of servers in the kernel, and of the kernel's own loopback at the same time (late binding).
. "$(dirname "$0")/lib.sh" || exit 1
need_programs nginx curl ip
lab_init "$ISOSOCK_BUILD"
need_tap
www=$lab_tmp/www
random_file "$www/file" 16M
random_file "$lab_tmp/upload" 8M
must "the stack starts" lab_tap_stack
conf=$(lab_nginx_conf 0.0.0.0 8088)
lab_start "$lab_tmp/kernel-nginx.log" nsenter "--net=/run/netns/$lab_ns" nginx -e "$lab_tmp/nginx/error.log" -c "$conf"
must "nginx starts in the kernel" lab_until 100 lab_peer curl -q -s --noproxy '*' -o /dev/null http://10.66.0.1:8088/

on_stack()
{
    lab_app timeout --foreground -k 2 60 curl -q -sS -f --noproxy '*' --max-time 50 "$@"
}

download()
{
    on_stack -o "$lab_tmp/got" http://10.66.0.1:8088/file && cmp "$lab_tmp/got" "$www/file"
}

upload()
{
    on_stack -T "$lab_tmp/upload" http://10.66.0.1:8088/up/upload && cmp "$lab_tmp/upload" "$www/up/upload"
}

refused()
{
    on_stack http://10.66.0.1:8089/ 2>/dev/null
    [ $? = 7 ]
}

no_neighbour()
{
    lab_app timeout --foreground 20 curl -q -s --noproxy '*' --max-time 15 http://10.66.0.77/
    [ $? = 7 ]
}

expect "download" download
expect "upload" upload
expect "connection refused" refused
expect "no such neighbour" no_neighbour
expect "nothing is left" lab_until 30 no_connections
finish
