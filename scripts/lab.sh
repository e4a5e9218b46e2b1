# SPDX-License-Identifier: BSD-3-Clause
# Shared by the demo and the interop tests: a place for one run's files, its processes, namespace and interfaces, which all vanish at the
# end, however it ends. Source it under `set -u`, then call lab_init.
#
# Every background job is a process group of its own (set -m) and is ended by its id. Whatever may take long runs by
# lab_wait, since bash runs a trap only between foreground commands, but at once during wait.

lab_name=${0##*/}
lab_tmp=""
lab_ns=""
lab_pids=""

# lab_init BUILD: make the folder, set the traps. lab_id is a word that no other run has.
lab_init()
{
    lab_build=$(cd "$1" 2>/dev/null && pwd) || lab_die "no build directory '$1': run make first"
    lab_isosock=$lab_build/apps/isosock
    lab_isosockd=$lab_build/apps/isosockd
    lab_id=$$
    # The cores that we may use, by number.
    lab_cores=($(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status | tr ',' '\n' |
        awk -F- '{ for (i = $1; i <= $NF; i++) print i }'))
    set -m
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    trap 'lab_status=$?; lab_cleanup; exit $lab_status' EXIT
    lab_tmp=$(mktemp -d "${TMPDIR:-/tmp}/isosock.XXXXXX") || lab_die "cannot make a temporary folder"
    chmod 755 "$lab_tmp"
    lab_on_stack=("$lab_isosock" --control "$lab_tmp/stack.sock" run --)
}

lab_die()
{
    echo "$lab_name: $*" >&2
    exit 1
}

# lab_need PROGRAM...: the names of those that are missing, on stdout.
lab_need()
{
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || printf '%s ' "$program"
    done
}

lab_cleanup()
{
    local pid
    trap '' INT TERM HUP
    trap - EXIT
    exec 2>/dev/null # bash tells of each job that it ends
    # The youngest first: clients, servers, then the stack under them.
    for pid in $lab_pids; do
        lab_stop "$pid"
    done
    [ -n "$lab_ns" ] && ip netns del "$lab_ns" 2>/dev/null
    [ -n "$lab_tmp" ] && rm -rf "$lab_tmp"
}

# lab_start LOG COMMAND...: run a program in the background, output to a file. Sets lab_pid.
lab_start()
{
    local log=$1
    shift
    : >"$log" # the child opens it later: nobody shall read a former one's words
    "$@" >"$log" 2>&1 </dev/null &
    lab_pid=$!
    lab_pids="$lab_pid $lab_pids"
}

# lab_wait COMMAND...: run it and wait, interruptibly. Returns its status.
lab_wait()
{
    local pid status
    "$@" &
    pid=$!
    lab_pids="$pid $lab_pids"
    wait "$pid"
    status=$?
    lab_forget "$pid"
    return $status
}

lab_forget()
{
    local pid rest=""
    for pid in $lab_pids; do
        [ "$pid" = "$1" ] || rest="$rest $pid"
    done
    lab_pids=$rest
}

# lab_gone PID TENTHS: wait until a process group has no member, at most so long. Zombies do not count: whose orphans they are may be slow.
lab_gone()
{
    local i
    for ((i = 0; i < $2; i++)); do
        ps -e -o pgid=,stat= | awk -v g="$1" '$1 == g && $2 !~ /^Z/ { found = 1 } END { exit !found }' || return 0
        sleep 0.1
    done
    return 1
}

# lab_stop PID: end a job and all that it started; politely for three seconds.
lab_stop()
{
    kill -TERM -- "-$1" 2>/dev/null
    lab_gone "$1" 30 || kill -KILL -- "-$1" 2>/dev/null
    wait "$1" 2>/dev/null
    lab_forget "$1"
}

# lab_until TENTHS COMMAND...: repeat until it succeeds.
lab_until()
{
    local i tenths=$1
    shift
    for ((i = 0; i < tenths; i++)); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    return 1
}

# lab_daemon NAME EAL-OPTIONS -- OPTIONS: start a stack with the control socket $lab_tmp/NAME.sock; sets lab_pid. Fails with its last words.
# A command in the array lab_prefix goes before it.
lab_prefix=()
lab_daemon()
{
    local name=$1
    shift
    lab_start "$lab_tmp/$name.log" "${lab_prefix[@]}" "$lab_isosockd" "$@" --control "$lab_tmp/$name.sock"
    lab_until 200 lab_ready_or_dead "$lab_tmp/$name.log" "$lab_pid"
    grep -q '^isosockd: ready' "$lab_tmp/$name.log" && return 0
    tail -n 5 "$lab_tmp/$name.log" >&2
    return 1
}

lab_ready_or_dead()
{
    grep -q '^isosockd: ready' "$1" || ! kill -0 "$2"
}

# Can this user have a tap and a namespace? They are made and removed to know.
lab_can_tap()
{
    [ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] && command -v ip >/dev/null && command -v nsenter >/dev/null &&
        ip netns add "isoprobe$lab_id" 2>/dev/null && ip netns del "isoprobe$lab_id"
}

# The lcores of LAB_WORKERS workers (1): each on a core of its own, or all on the first if there are too few.
lab_lcores()
{
    local n=${LAB_WORKERS:-1}
    if [ "$n" -le ${#lab_cores[@]} ]; then
        (IFS=, && echo "${lab_cores[*]:0:n}")
    else
        echo "(0-$((n - 1)))@${lab_cores[0]}"
    fi
}

# lab_tap_stack DAEMON-OPTIONS: a stack at 10.66.0.2 whose wire ends in the kernel (10.66.0.1) of a namespace of its own. The daemon
# lives in that namespace, so that the tap never appears in ours; applications need not. Sets lab_daemon_pid. The environment
# may name another mode (LAB_MODE), and a number of workers (LAB_WORKERS).
lab_tap_stack()
{
    lab_ns=isolab$lab_id
    ip netns add "$lab_ns" || return 1
    lab_prefix=(nsenter "--net=/run/netns/$lab_ns")
    lab_daemon stack --lcores "$(lab_lcores)" --no-pci "--vdev=net_tap0,iface=iso$lab_id" -- --address 10.66.0.2/24 \
        ${LAB_MODE:+--mode "$LAB_MODE"} "$@" || return 1
    lab_prefix=()
    lab_daemon_pid=$lab_pid
    lab_peer ip link set lo up &&
        lab_peer ip addr add 10.66.0.1/24 dev "iso$lab_id" &&
        lab_peer ip link set "iso$lab_id" up
}

# lab_peer COMMAND...: on the kernel's side of the wire.
lab_peer()
{
    nsenter "--net=/run/netns/$lab_ns" "$@"
}

# lab_app COMMAND...: on the stack. For lab_start use the words themselves: a function would leave a shell between.
lab_app()
{
    "${lab_on_stack[@]}" "$@"
}

lab_tool()
{
    "$lab_isosock" --control "$lab_tmp/stack.sock" "$@"
}

# lab_nginx ADDRESS PORT: configuration for an nginx that serves $lab_tmp/www and takes PUT below /up/. Prints the file's name.
lab_nginx_conf()
{
    local dir=$lab_tmp/nginx
    mkdir -p "$dir" "$lab_tmp/www/up"
    cat >"$dir/nginx.conf" <<CONF
daemon off;
$([ "$(id -u)" = 0 ] && echo 'user root;')
worker_processes 2;
pid $dir/pid;
error_log $dir/error.log warn;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    client_body_temp_path $dir/body;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;
    server {
        listen $1:$2;
        root $lab_tmp/www;
        client_max_body_size 0;
        location /up/ { dav_methods PUT; }
    }
}
CONF
    echo "$dir/nginx.conf"
}

# lab_nginx ADDRESS PORT: start it on the stack; sets lab_pid.
lab_nginx()
{
    local conf
    conf=$(lab_nginx_conf "$1" "$2")
    lab_start "$lab_tmp/nginx.log" "${lab_on_stack[@]}" nginx -e "$lab_tmp/nginx/error.log" -c "$conf"
    lab_until 100 lab_listens "$1:$2" || {
        tail -n 3 "$lab_tmp/nginx.log" "$lab_tmp/nginx/error.log" >&2
        return 1
    }
}

# lab_redis ADDRESS PORT: likewise.
lab_redis()
{
    mkdir -p "$lab_tmp/redis"
    lab_start "$lab_tmp/redis.log" "${lab_on_stack[@]}" redis-server --bind "$1" --port "$2" --protected-mode no --save '' \
        --appendonly no --dir "$lab_tmp/redis" --daemonize no
    lab_until 100 lab_listens "$1:$2" || {
        tail -n 5 "$lab_tmp/redis.log" >&2
        return 1
    }
}

# lab_listens ADDRESS:PORT: does a listener of the stack have it?
lab_listens()
{
    lab_tool ss -H -l | grep -qF "$1 "
}
