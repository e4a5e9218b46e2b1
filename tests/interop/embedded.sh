#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# embedded.sh [packet]: unmodified programs with the stack inside (isosock run --embedded), on a veth by net_af_packet, or by the stack's own packet wire, the kernel as the peer. A program that ends, however it does, leaves the port to
# the next process that needs it.
. "$(dirname "$0")/lib.sh" || exit 1
need_programs nginx redis-server redis-cli redis-benchmark curl wrk ip ethtool python3
lab_init "$ISOSOCK_BUILD"
need_tap
[ -e "$ISOSOCK_BUILD/apps/embedded/libisosock-preload-embedded.so" ] || skip "no embedded library in this build"
www=$lab_tmp/www
random_file "$www/page" 600
random_file "$www/big" 64M
random_file "$lab_tmp/upload" 4M
url=http://10.66.0.2
wire=${1:-net_af_packet}

# Both ends in one namespace: the kernel's has the address, the stack's has none. For net_af_packet the client's kernel must sum what it sends.
make_wire()
{
    lab_ns=isolab$lab_id
    ip netns add "$lab_ns" && lab_peer ip link set lo up &&
        lab_peer ip link add wire type veth peer name ends && { [ "$wire" = packet ] || lab_peer ethtool -K wire tx off >/dev/null; } &&
        lab_peer ip addr add 10.66.0.1/24 dev wire && lab_peer ip link set wire up && lab_peer ip link set ends up
}

{
    printf '[isosock]\naddress = 10.66.0.2/24\n'
    if [ "$wire" = packet ]; then
        printf 'port = packet,interface=ends\neal = -l %s --no-pci\n' "${lab_cores[0]}"
    else
        printf 'eal = -l %s --no-pci --vdev=%s0,iface=ends\n' "${lab_cores[0]}" "$wire"
    fi
} >"$lab_tmp/stack.conf"
inside=(nsenter "--net=/run/netns/isolab$lab_id" "$lab_isosock" run --embedded "$lab_tmp/stack.conf" --)

start_nginx()
{
    lab_start "$lab_tmp/nginx.log" "${inside[@]}" nginx -e "$lab_tmp/nginx/error.log" -c "$(lab_nginx_conf 10.66.0.2 80)"
    nginx_pid=$lab_pid
}

# In a new fetch's time a killed stack's connections may have to be found dead first.
serves()
{
    lab_until 100 same_fetched $url/page "$www/page"
}

# The process that has the stack, as the kernel knows the lock.
owner()
{
    python3 - "$lab_tmp/stack.conf" <<'END'
import fcntl, struct, sys
with open(sys.argv[1], 'r+') as f:
    lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)
    print(struct.unpack('hhqqi4x', fcntl.fcntl(f, fcntl.F_GETLK, lock))[4])
END
}

# A worker of nginx's other than the process $1 has the stack.
is_worker()
{
    local now
    now=$(owner)
    [ "$now" -gt 0 ] && [ "$now" != "${1:-}" ] && [ "$(ps -o ppid= -p "$now" | tr -d ' ')" = "$nginx_pid" ]
}

killed_worker()
{
    local first
    first=$(owner)
    kill -KILL "$first" && lab_until 100 is_worker "$first"
}

# An old worker that waited may have the stack for a moment, and nobody in the next one.
reloaded()
{
    local first
    first=$(owner)
    kill -HUP "$nginx_pid" && lab_until 100 is_worker "$first"
}

load()
{
    peer_run wrk -t 1 -c 64 -d 1 "$@" $url:80/page >"$lab_tmp/wrk" || return 1
    cat "$lab_tmp/wrk"
    ! grep -q 'Socket errors.*\(connect\|write\|timeout\) [1-9]' "$lab_tmp/wrk" && ! grep -q 'Non-2xx' "$lab_tmp/wrk"
}

waits_its_turn()
{
    grep -q 'has this stack' "$lab_tmp/nginx.log" "$lab_tmp/nginx/error.log"
}

redis_works()
{
    [ "$(peer_run redis-cli -h 10.66.0.2 SET k value)" = OK ] && [ "$(peer_run redis-cli -h 10.66.0.2 GET k)" = value ]
}

# Its child has copies of the stack's memory and descriptors, and must do no harm with them.
redis_forks()
{
    peer_run redis-cli -h 10.66.0.2 BGSAVE && lab_until 50 test -s "$lab_tmp/redis/dump.rdb" && redis_works
}

redis_load()
{
    peer_run redis-benchmark -h 10.66.0.2 -q -n 20000 -c 50 -t set,get | tr '\r' '\n' | grep -c 'per second' | grep -qx 2
}

client_inside()
{
    "${inside[@]}" curl -q -sS -f --noproxy '*' --max-time 20 -o "$lab_tmp/fetched" http://10.66.0.1:81/page && cmp "$lab_tmp/fetched" "$www/page"
}

other_world()
{
    "${inside[@]}" curl -q -sS -f --noproxy '*' --max-time 20 -o "$lab_tmp/fetched" http://127.0.0.1:81/page && cmp "$lab_tmp/fetched" "$www/page" && [ "$(owner)" = 0 ]
}

must "a wire" make_wire
start_nginx
expect "nginx serves" serves
expect "its worker has the stack, not its master" is_worker
expect "a file of 64 MiB" same_fetched $url/big "$www/big"
expect "PUT" same_put "$lab_tmp/upload" $url/up/upload "$www/up/upload"
expect "a second worker waits for its turn" lab_until 50 waits_its_turn
expect "64 connections" load
expect "a connection for each request" load -H 'Connection: close'
expect "a worker that is killed is replaced" killed_worker
expect "and nginx serves" serves
expect "a reload hands the stack on" reloaded
expect "and nginx serves" serves
lab_stop "$nginx_pid"
expect "the stack is free" [ "$(owner)" = 0 ]
# The stack is run by whichever thread waits, or calls.
expect "threads share epoll sets" threads_share "${inside[@]}"
mkdir -p "$lab_tmp/redis"
lab_start "$lab_tmp/redis.log" "${inside[@]}" redis-server --bind 10.66.0.2 --port 6379 --protected-mode no --save '' --dir "$lab_tmp/redis" --daemonize no
expect "redis serves" lab_until 100 redis_works
expect "50 clients of redis" redis_load
expect "redis forks" redis_forks
lab_stop "$lab_pid"
lab_start "$lab_tmp/python.log" nsenter "--net=/run/netns/$lab_ns" python3 -m http.server --directory "$www" 81
expect "a client with the stack inside" lab_until 50 client_inside
expect "a program that needs no stack starts none" other_world
finish
