#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# TCP_MD5SIG (RFC 2385) between programs on the stack and the kernel, in both roles: every segment of either is what the other expects, and who lacks the key gets no word.
here=$(dirname "$0")
. "$here/lib.sh" || exit 1
need_programs python3 ip
lab_init "$ISOSOCK_BUILD"
need_tap
must "the stack starts" lab_tap_stack
on_peer=(nsenter "--net=/run/netns/$lab_ns")
"${on_peer[@]}" "$here/md5sig.py" errors 10.66.0.1 >"$lab_tmp/kernel-errors.txt" 2>"$lab_tmp/errors.log" ||
    skip "no TCP_MD5SIG in this kernel ($(tail -n 1 "$lab_tmp/errors.log"))"

# serve ADDRESS PORT COUNT PREFIX KEY -- COMMAND...
serve()
{
    local args=("${@:1:5}") log=$lab_tmp/server-$2.log
    shift 6
    lab_start "$log" "$@" timeout 60 "$here/md5sig.py" server "${args[@]}" && lab_until 100 grep -q listening "$log"
}

# attempt WORDS ADDRESS PORT KEY -- COMMAND...: that is what the client says.
attempt()
{
    local words=$1 args=("${@:2:3}") said
    shift 5
    said=$("$@" timeout 50 "$here/md5sig.py" client "${args[@]}")
    case $said in $words) return 0 ;; esac
    echo "it says: $said"
    return 1
}

same_errors()
{
    lab_app "$here/md5sig.py" errors 10.66.0.2 >"$lab_tmp/stack-errors.txt" && diff "$lab_tmp/kernel-errors.txt" "$lab_tmp/stack-errors.txt"
}

counted()
{
    [ "$(lab_tool stats | awk -v name="$1" '$1 == name { print $2 }')" -gt 0 ]
}

expect "wrong calls get the kernel's errno" same_errors

must "a server in the kernel" serve 10.66.0.1 7200 2 10.66.0.2 sesame -- "${on_peer[@]}"
expect "a client on the stack" attempt '2000003 bytes, equal, in segments of 1440' 10.66.0.1 7200 sesame -- "${lab_on_stack[@]}"
expect "with the wrong key it gets no answer" attempt 'no answer' 10.66.0.1 7200 mustard -- "${lab_on_stack[@]}"
expect "without one neither" attempt 'no answer' 10.66.0.1 7200 - -- "${lab_on_stack[@]}"
expect "a client with IPv6's addresses" attempt '2000003 bytes, equal, *' ::ffff:10.66.0.1 7200 sesame -- "${lab_on_stack[@]}"

must "a server on the stack" serve 10.66.0.2 7201 1 10.66.0.1 sesame -- "${lab_on_stack[@]}"
expect "with the wrong key the kernel gets no answer" attempt 'no answer' 10.66.0.2 7201 mustard -- "${on_peer[@]}"
expect "without one neither" attempt 'no answer' 10.66.0.2 7201 - -- "${on_peer[@]}"
expect "with the key it does" attempt '2000003 bytes, equal, *' 10.66.0.2 7201 sesame -- "${on_peer[@]}"
must "a server on the stack with a key for a net" serve ::ffff:10.66.0.2 7202 1 ::ffff:10.66.0.0/24 'a key for a whole net' -- "${lab_on_stack[@]}"
expect "a client in the kernel" attempt '2000003 bytes, equal, *' 10.66.0.2 7202 'a key for a whole net' -- "${on_peer[@]}"
expect "what was refused is counted" counted tcp.drop.md5_wrong
expect "what was missing is counted" counted tcp.drop.md5_missing
expect "nothing is left" lab_until 30 no_connections
finish
