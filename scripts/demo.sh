#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The main job, end to end: an unmodified nginx and an unmodified redis-server on the stack, used from outside.
#
#   scripts/demo.sh [--build DIR] [--rootless] [--impair loss:3%,reorder:3%,delay:5ms]
#
# As root the other side of the wire is the kernel, through a tap in a network namespace. Otherwise, or with --rootless,
# it is a second stack, and the wire is shared memory (net_memif). Leaves nothing behind. Exit status: 0 if every step succeeded, 1 if not.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lab.sh"

build=$here/../build
rootless=0
impair=${DEMO_IMPAIR:-}
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=${2:-} && shift ;;
    --impair) impair=${2:-} && shift ;;
    --rootless) rootless=1 ;;
    *)
        echo "demo.sh: no option '$1': --build DIR, --rootless, --impair KNOBS" >&2
        exit 2
        ;;
    esac
    shift
done

missing=$(lab_need nginx redis-server redis-cli redis-benchmark curl sha256sum)
[ -z "$missing" ] || lab_die "missing programs: $missing- 'scripts/deps.sh demo' installs them, or says how"
lab_init "$build"
[ -x "$lab_isosockd" ] && [ -x "$lab_isosock" ] || lab_die "nothing is built in $build: run make first"

big_mib=256 put_mib=64 requests=20000
if [ -n "$impair" ]; then # a wire that loses 3% is slow, by right
    big_mib=16 put_mib=4 requests=500
fi
free_kib=$(df --output=avail "$lab_tmp" | tail -n 1)
[ "$free_kib" -gt $(((big_mib + 2 * put_mib + 16) * 1024)) ] ||
    lab_die "$lab_tmp has too little room: set TMPDIR to a folder with $((big_mib + 2 * put_mib + 16)) MiB"

if [ $rootless = 0 ] && ! lab_can_tap; then
    rootless=1
    echo "No root, tap or network namespace here: two stacks, joined by net_memif, without hugepages."
fi

# ---- the two ends of the wire ----------------------------------------------------------------------------------------

port_option=(${impair:+--port "0,impair=$impair"})

start_kernel_peer()
{
    wire="net_tap, the kernel as peer"
    web=10.66.0.2:80 redis_port=6379
    lab_tap_stack "${port_option[@]}" || return 1
    # The stack's core is the stack's own.
    [ ${#lab_cores[@]} = 1 ] ||
        lab_on_stack=(taskset -c "$(printf '%s\n' "${lab_cores[@]:1}" | paste -s -d ,)" "${lab_on_stack[@]}")
}

start_stack_peer()
{
    local core=${lab_cores[1]:-${lab_cores[0]}}
    wire="net_memif, a second stack as peer"
    web=10.66.0.2:8080 redis_port=6379
    lab_daemon stack -l "${lab_cores[0]}" --no-pci --no-huge "--vdev=net_memif0,role=server,socket=$lab_tmp/memif,socket-abstract=no" \
        -- --address 10.66.0.2/24 "${port_option[@]}" || return 1
    # One end impairs both directions; the other need not.
    lab_daemon peer -l "$core" --no-pci --no-huge "--vdev=net_memif0,role=client,socket=$lab_tmp/memif,socket-abstract=no" \
        -- --address 10.66.0.1/24
}

# A client of the servers, on the other side of the wire.
client()
{
    if [ $rootless = 1 ]; then
        "$lab_isosock" --control "$lab_tmp/peer.sock" run -- timeout --foreground -k 2 240 "$@"
    else
        lab_peer timeout --foreground -k 2 240 "$@"
    fi
}

fetch()
{
    client curl -q -sS -f --noproxy '*' --max-time 230 "$@"
}

# ---- the steps: each returns 0 if all was right, and leaves a word about its rate in $lab_tmp/rate -------------------

rate()
{
    echo "$*" >"$lab_tmp/rate"
}

# mib_rate MIB NANOSECONDS
mib_rate()
{
    rate "$(awk -v m="$1" -v t="$2" 'BEGIN { printf "%.0f MiB/s", m / (t / 1e9) }')"
}

now_ns()
{
    date +%s%N
}

step_page()
{
    fetch -o "$lab_tmp/page" -w '%{time_total}\n' "http://$web/page.html" >"$lab_tmp/time" || return 1
    rate "$(awk '{ printf "%.1f ms", $1 * 1000 }' "$lab_tmp/time")"
    cmp "$lab_tmp/page" "$lab_tmp/www/page.html"
}

step_big()
{
    local start
    start=$(now_ns)
    fetch "http://$web/big.bin" | sha256sum >"$lab_tmp/sum" || return 1
    mib_rate $big_mib $(($(now_ns) - start))
    cmp "$lab_tmp/sum" "$lab_tmp/big.sum"
}

step_parallel()
{
    local start i pids="" bad=0
    start=$(now_ns)
    for i in 1 2 3 4; do
        (set -o pipefail && fetch "http://$web/big.bin" | sha256sum >"$lab_tmp/sum$i") &
        pids="$pids $!"
    done
    sleep 0.5
    lab_tool ss -t -i >"$lab_tmp/ss" || bad=1
    for i in $pids; do
        wait "$i" || bad=1
    done
    mib_rate $((4 * big_mib)) $(($(now_ns) - start))
    for i in 1 2 3 4; do
        cmp "$lab_tmp/sum$i" "$lab_tmp/big.sum" || bad=1
    done
    return $bad
}

step_put()
{
    local start
    start=$(now_ns)
    fetch -T "$lab_tmp/upload.bin" "http://$web/up/upload.bin" || return 1
    mib_rate $put_mib $(($(now_ns) - start))
    cmp "$lab_tmp/www/up/upload.bin" "$lab_tmp/upload.bin"
}

redis_cli()
{
    client redis-cli -h 10.66.0.2 -p $redis_port "$@"
}

step_redis()
{
    local start
    start=$(now_ns)
    [ "$(redis_cli SET greeting "hello from $lab_id")" = OK ] || return 1
    [ "$(redis_cli GET greeting)" = "hello from $lab_id" ] || return 1
    rate "$(awk -v t=$(($(now_ns) - start)) 'BEGIN { printf "%.0f ms for both", t / 1e6 }')"
}

step_benchmark()
{
    client redis-benchmark -h 10.66.0.2 -p $redis_port -q -n $requests -c 20 -t set,get |
        tr '\r' '\n' | grep 'requests per second' >"$lab_tmp/bench" || return 1
    rate "$(awk '{ r = r (NR > 1 ? ", " : "") $1 " " int($2) "/s" } END { print r }' "$lab_tmp/bench")"
    [ "$(grep -c . "$lab_tmp/bench")" = 2 ]
}

# ---- the course of it ------------------------------------------------------------------------------------------------

steps=() results=() rates=()
failed=0

# step TEXT COMMAND...: a progress line, the run, a row for the table.
step()
{
    local text=$1 result=ok
    shift
    printf '%-46s ' "$text"
    : >"$lab_tmp/rate"
    if ! lab_wait "$@"; then
        result=FAILED
        failed=1
    fi
    steps+=("$text") results+=("$result") rates+=("$(cat "$lab_tmp/rate")")
    echo "$result  ${rates[-1]}"
}

table()
{
    local i
    printf '\n%-46s %-8s %s\n' step result rate
    for i in "${!steps[@]}"; do
        printf '%-46s %-8s %s\n' "${steps[$i]}" "${results[$i]}" "${rates[$i]}"
    done
}

make_files()
{
    local dir=$lab_tmp/www
    mkdir -p "$dir"
    printf '%-599s\n' "<!doctype html><title>isosock</title><p>Served by an unmodified nginx on isosock." >"$dir/page.html"
    head -c ${big_mib}M /dev/urandom >"$dir/big.bin" && head -c ${put_mib}M /dev/urandom >"$lab_tmp/upload.bin" &&
        sha256sum <"$dir/big.bin" >"$lab_tmp/big.sum"
}

# must TEXT COMMAND...: without it there is no point in going on.
must()
{
    local text=$1
    shift
    printf '%-46s ' "$text"
    if ! "$@"; then
        echo FAILED
        exit 1
    fi
    echo ok
}

must "make the files" lab_wait make_files
if [ $rootless = 1 ]; then
    must "start two stacks, joined by net_memif" start_stack_peer
else
    must "start the stack on net_tap" start_kernel_peer
fi
must "start nginx on it" lab_nginx "${web%:*}" "${web#*:}"
must "start redis-server on it" lab_redis 10.66.0.2 $redis_port
echo "The wire: $wire${impair:+, impaired: $impair}."

step "fetch a page of 600 bytes" step_page
step "fetch a file of $big_mib MiB" step_big
step "fetch it four times in parallel" step_parallel
printf '\nisosock ss, meanwhile:\n%s\n\n' "$(cat "$lab_tmp/ss" 2>/dev/null)"
step "upload $put_mib MiB (PUT)" step_put
step "redis: SET, GET" step_redis
step "redis-benchmark, 20 clients" step_benchmark
table
exit $failed
