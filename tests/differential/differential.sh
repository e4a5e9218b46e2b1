#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# differential.sh ARRANGEMENT SEEDS [MODE WORKERS]: the scripts of differ.py on the kernel and on the stack; what programs see must be equal. Arrangements:
#   local    both ends on the stack            server   the client is the kernel's, over the wire
#   client   the server is the kernel's        impaired as server, on a wire that loses, delays, reorders and repeats
. "$(dirname "$0")/../interop/lib.sh" || exit 1
arrangement=$1
seeds=$2
export LAB_MODE=${3:-${LAB_MODE:-}} LAB_WORKERS=${4:-${LAB_WORKERS:-1}}
need_programs python3 ip
lab_init "$ISOSOCK_BUILD"
need_tap
differ=$(dirname "$0")/differ.py
on_stack="$lab_isosock --control $lab_tmp/stack.sock run --"
options=()
impair=()

[ "$arrangement" = local ] || options=(--wire)
if [ "$arrangement" = impaired ]; then
    options+=(--no-resets --bulk-divisor 10)
    impair=(--port "0,impair=loss:2%,reorder:2%,dup:2%,delay:1ms,seed:3")
fi
must "the stack starts" lab_tap_stack "${impair[@]}"
on_peer="nsenter --net=/run/netns/$lab_ns"

both=(--server "$on_stack" --client "$on_stack" --address 10.66.0.2)
server=(--server "$on_stack" --client "$on_peer" --address 10.66.0.2 --client-address 10.66.0.1)
client=(--server "$on_peer" --client "$on_stack" --address 10.66.0.1 --client-address 10.66.0.2)
case $arrangement in
local) ends=("${both[@]}") ;;
server | impaired) ends=("${server[@]}") ;;
client) ends=("${client[@]}") ;;
*) lab_die "no such arrangement: $arrangement" ;;
esac

# run NAME OPTIONS...
run()
{
    local name=$1
    shift
    timeout --foreground -k 5 1000 "$differ" run --seeds "$seeds" "${options[@]}" "$@" >"$lab_tmp/$name.txt"
}
expect "the scripts end on the kernel" run kernel
expect "the scripts end on the stack" run stack "${ends[@]}"
expect "programs see the same" "$differ" compare "$lab_tmp/kernel.txt" "$lab_tmp/stack.txt"
finish
