#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Workers with queues of their own: a tap, and a veth by net_af_packet, whose kernel divides by rules of its own.
. "$(dirname "$0")/lib.sh" || exit 1
need_programs nginx curl wrk ip ethtool
lab_init "$ISOSOCK_BUILD"
need_tap
export LAB_WORKERS=2
www=$lab_tmp/www
random_file "$www/page" 600
random_file "$www/big" 16M

# of_worker N COUNTER
of_worker()
{
    lab_tool stats --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["workers"]["worker" + sys.argv[1]][sys.argv[2]])' "$1" "$2"
}

both_receive()
{
    [ "$(of_worker 0 port.rx_pkts)" -gt 100 ] && [ "$(of_worker 1 port.rx_pkts)" -gt 100 ]
}

passed_on()
{
    [ $(($(of_worker 0 handover.packets) + $(of_worker 1 handover.packets))) -gt 0 ]
}

ports_say()
{
    lab_tool ports | grep -q "$1"
}

serves()
{
    same_fetched http://10.66.0.2/big "$www/big" &&
        peer_run wrk -t 2 -c 50 -d 1 http://10.66.0.2:80/page >"$lab_tmp/wrk" &&
        ! grep -q -e 'Socket errors' -e 'Non-2xx' "$lab_tmp/wrk"
}

one_wire()
{
    must "nginx starts" lab_nginx 10.66.0.2 80
    expect "it says how it steers" ports_say "$1"
    expect "a file, and 50 connections" serves
    expect "both workers receive" both_receive
    expect "what came to the wrong one is passed on and counted" passed_on
    lab_stop "$lab_pid"
}

# A veth in the lab's namespace, its one end the stack's.
veth()
{
    lab_peer ip link add "v$lab_id" type veth peer name "w$lab_id" &&
        lab_peer ethtool -K "v$lab_id" tx off >/dev/null &&
        lab_peer ip addr add 10.66.0.1/24 dev "v$lab_id" &&
        lab_peer ip link set "v$lab_id" up && lab_peer ip link set "w$lab_id" up
}

# af_packet QPAIRS MODE: what a daemon on the veth is started with.
af_packet=()
af_packet()
{
    af_packet=(--lcores "$(lab_lcores)" --no-pci "--vdev=net_af_packet0,iface=w$lab_id,qpairs=$1" -- --address 10.66.0.2/24 --mode "$2")
}

on_veth()
{
    lab_prefix=(nsenter "--net=/run/netns/$lab_ns")
    af_packet "$1" "$2"
    lab_daemon stack "${af_packet[@]}"
}

# refused QPAIRS MODE PATTERN
refused()
{
    af_packet "$1" "$2"
    one_line_status 2 "$3" nsenter "--net=/run/netns/$lab_ns" "$lab_isosockd" --no-huge --log-level=error "${af_packet[@]}" \
        --control "$lab_tmp/no.sock"
}

LAB_MODE=isostack,instances=2 must "a stack of two instances on a tap" lab_tap_stack
one_wire 'queues 2 (steering: port)'
lab_stop "$lab_daemon_pid"
must "a veth" veth
must "a stack of two threads on the veth" on_veth 2 connp-t
one_wire 'queues 2 (steering: port)'
lab_stop "$lab_daemon_pid" 2>/dev/null
lab_prefix=()
expect "more queues than workers read" refused 3 isostack,instances=2 'net_af_packet.*3 queues, but 2'
expect "steering that it has not" refused 2 connp-t,steer=rss 'cannot steer by rss.*auto, port, soft'
expect "one queue of two" refused 2 isostack,instances=2,steer=soft 'net_af_packet.*2 queues, but 1'
finish
