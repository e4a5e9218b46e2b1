#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fast Open (RFC 7413) between programs on the stack and the kernel, in both roles: what the programs see is what they see on the kernel alone.
here=$(dirname "$0")
. "$here/lib.sh" || exit 1
need_programs python3 curl ip
lab_init "$ISOSOCK_BUILD"
need_tap
must "the stack starts" lab_tap_stack
# Of the namespace, not of the machine.
lab_peer sh -c 'echo 3 >/proc/sys/net/ipv4/tcp_fastopen' || skip "no Fast Open in this kernel"
ways=(nonblock nonblock sendto connect no_cookie sendto)
on_peer=(nsenter "--net=/run/netns/$lab_ns")

# talk NAME SERVER-ADDRESS PORT SERVER-WORDS / CLIENT-WORDS: what the client says is left in NAME.txt.
talk()
{
    local name=$1 address=$2 port=$3 server=()
    shift 3
    while [ "$1" != / ]; do
        server+=("$1")
        shift
    done
    shift
    lab_start "$lab_tmp/$name-server.log" "${server[@]}" timeout 60 "$here/fastopen.py" server "$address" "$port" ${#ways[@]} &&
        lab_until 100 grep -q listening "$lab_tmp/$name-server.log" &&
        "$@" timeout 50 "$here/fastopen.py" client "$address" "$port" "${ways[@]}" >"$lab_tmp/$name.txt"
}

same()
{
    diff "$lab_tmp/kernel.txt" "$lab_tmp/$1.txt"
}

http()
{
    lab_app timeout --foreground 20 curl -q -sS -f --noproxy '*' --tcp-fastopen --max-time 15 -o "$lab_tmp/got" \
        http://10.66.0.1:8088/file && cmp "$lab_tmp/got" "$lab_tmp/www/file"
}

# The peer's kernel counts SYNs whose data it took.
syns_with_data()
{
    lab_peer awk '/^TcpExt/ { if (n++) { for (i = 2; i <= NF; i++) if (names[i] == "TCPFastOpenPassive") print $i } else split($0, names) }' /proc/net/netstat
}

curl_used_it()
{
    local before
    before=$(syns_with_data)
    http && [ "$(syns_with_data)" -gt "$before" ]
}

expect "the kernel with itself" talk kernel 127.0.0.1 7100 "${on_peer[@]}" / "${on_peer[@]}"
expect "a client on the stack, a server in the kernel" talk client 10.66.0.1 7101 "${on_peer[@]}" / "${lab_on_stack[@]}"
expect "the same is seen" same client
expect "a server on the stack, a client in the kernel" talk server 10.66.0.2 7102 "${lab_on_stack[@]}" / "${on_peer[@]}"
expect "the same is seen" same server
random_file "$lab_tmp/www/file" 1M
conf=$(lab_nginx_conf 0.0.0.0 8088)
sed -i 's/listen 0.0.0.0:8088/& fastopen=16/' "$conf"
lab_start "$lab_tmp/kernel-nginx.log" "${on_peer[@]}" nginx -e "$lab_tmp/nginx/error.log" -c "$conf"
must "nginx starts in the kernel" lab_until 100 lab_peer curl -q -s --noproxy '*' -o /dev/null http://10.66.0.1:8088/
expect "curl asks for a cookie, or knows one" http
expect "curl's request goes with the SYN" curl_used_it
expect "nothing is left" lab_until 30 no_connections
finish
