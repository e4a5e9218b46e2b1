# SPDX-License-Identifier: BSD-3-Clause
# For the interop tests: scripts/lab.sh, and words to say what is expected. meson sets ISOSOCK_BUILD; by hand it is build/.
set -u
ISOSOCK_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd) || exit 1
ISOSOCK_BUILD=${ISOSOCK_BUILD:-$ISOSOCK_SOURCE/build}
. "$ISOSOCK_SOURCE/scripts/lab.sh" || exit 1

# skip REASON: meson counts 77 as skipped.
skip()
{
    echo "skipped: $*"
    exit 77
}

need_programs()
{
    local missing
    missing=$(lab_need "$@")
    [ -z "$missing" ] || skip "not installed: $missing"
}

need_tap()
{
    lab_can_tap || skip "needs root, /dev/net/tun and network namespaces"
}

failures=0

# expect TEXT COMMAND...: a failure is told with what the stack and the applications said last.
expect()
{
    local text=$1
    shift
    if lab_wait "$@"; then
        echo "ok: $text"
        return 0
    fi
    echo "NOT OK: $text ($*)"
    tail -n 5 "$lab_tmp"/*.log "$lab_tmp"/nginx/error.log 2>/dev/null
    failures=$((failures + 1))
    return 1
}

# must: expect, and no going on without it.
must()
{
    local text=$1
    shift
    "$@" && return 0
    echo "NOT OK: $text"
    exit 1
}

finish()
{
    # Under misd with check=on.
    if grep 'differs from another one' "$lab_tmp"/*.log 2>/dev/null; then
        echo "NOT OK: replicas differ"
        failures=$((failures + 1))
    fi
    [ $failures = 0 ]
    exit $?
}

# one_line_status STATUS PATTERN COMMAND...: it ends with that status and says one line on stderr, which matches.
one_line_status()
{
    local status=$1 pattern=$2 rc lines
    shift 2
    timeout --foreground 20 "$@" >"$lab_tmp/out" 2>"$lab_tmp/err" </dev/null
    rc=$?
    lines=$(grep -c . "$lab_tmp/err")
    [ $rc = "$status" ] && [ "$lines" = 1 ] && grep -qE -e "$pattern" "$lab_tmp/err" && return 0
    echo "status $rc (expected $status), $lines lines on stderr (expected 1, with '$pattern'):"
    head -n 5 "$lab_tmp/err"
    return 1
}

# A client on the kernel's side of the wire.
peer_run()
{
    lab_peer timeout --foreground -k 2 120 "$@"
}

fetch()
{
    peer_run curl -q -sS -f --noproxy '*' --max-time 110 "$@"
}

# random_file PATH BYTES (with a suffix as head -c takes it)
random_file()
{
    mkdir -p "${1%/*}" && head -c "$2" /dev/urandom >"$1"
}

# Event loops of threads that share epoll sets serve the peer, started by the words before.
threads_share()
{
    local programs server
    programs=$(dirname "$0")/front_threads.py
    lab_start "$lab_tmp/threads.log" "$@" python3 "$programs" serve 10.66.0.2 7001
    server=$lab_pid
    lab_until 50 grep -q listening "$lab_tmp/threads.log" || return 1
    peer_run python3 "$programs" ask 10.66.0.2 7001 || return 1
    wait "$server"
}

# same_fetched URL FILE: what the URL gives is the file.
same_fetched()
{
    local name
    name=$(mktemp "$lab_tmp/fetched.XXXXXX")
    fetch -o "$name" "$1" && cmp "$name" "$2"
}

# same_put FILE URL STORED
same_put()
{
    fetch -T "$1" "$2" && cmp "$1" "$3"
}

# no_connections: the stack holds neither connections nor listeners (TIME-WAIT is the stack's own business).
no_connections()
{
    [ -z "$(lab_tool ss -H -a | grep -v -e TIME-WAIT -e '^[[:space:]]')" ]
}
