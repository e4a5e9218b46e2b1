#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Two stacks joined by net_memif, without hugepages and without root's rights: nginx on one, curl on the other.
. "$(dirname "$0")/lib.sh" || exit 1
need_programs nginx curl
script=$(realpath "$0")
# As root, be nobody, if nobody can read the programs.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null &&
    setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$ISOSOCK_BUILD/apps/isosockd" -a -r "$script"; then
    cd / && exec setpriv --reuid 65534 --regid 65534 --clear-groups env -u XDG_RUNTIME_DIR "$script" "$@"
fi
lab_init "$ISOSOCK_BUILD"
echo "user $(id -u)"
www=$lab_tmp/www
random_file "$www/page" 600
random_file "$www/big" 32M
random_file "$www/medium" 300k
random_file "$lab_tmp/upload" 8M
must "a stack" lab_daemon stack -l "${lab_cores[0]}" --no-pci --no-huge \
    "--vdev=net_memif0,role=server,socket=$lab_tmp/memif,socket-abstract=no" -- --address 10.66.0.2/24
must "its peer" lab_daemon peer -l "${lab_cores[0]}" --no-pci --no-huge \
    "--vdev=net_memif0,role=client,socket=$lab_tmp/memif,socket-abstract=no" -- --address 10.66.0.1/24
must "nginx starts" lab_nginx 10.66.0.2 8080

fetch()
{
    timeout --foreground -k 2 60 "$lab_isosock" --control "$lab_tmp/peer.sock" run -- \
        curl -q -sS -f --noproxy '*' --max-time 50 "$@"
}
expect "a page" same_fetched http://10.66.0.2:8080/page "$www/page"
expect "a file of 32 MiB" same_fetched http://10.66.0.2:8080/big "$www/big"
expect "PUT of 8 MiB" same_put "$lab_tmp/upload" http://10.66.0.2:8080/up/upload "$www/up/upload"

# Programs that come and go while others do: each attaches, fetches, ends.
short_lives()
{
    local i pid pids bad=0
    for i in $(seq 25); do
        pids=""
        for name in page page medium medium; do
            fetch -o /dev/null http://10.66.0.2:8080/$name &
            pids="$pids $!"
        done
        for pid in $pids; do
            wait "$pid" || bad=1
        done
    done
    return $bad
}
nothing_left()
{
    "$lab_isosock" --control "$lab_tmp/peer.sock" stats | grep -q '^applications 0$'
}
expect "a hundred short-lived programs" short_lives
expect "all of them are gone" lab_until 20 nothing_left
finish
