#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Every role of isobench, built with the stack inside, against the peer behind the sink wire; and the daemon's workers with a queue each. Needs no privilege.
. "$(dirname "$0")/lib.sh" || exit 1
lab_init "$ISOSOCK_BUILD"
bench=$ISOSOCK_BUILD/apps/isobench/isobench

cat >"$lab_tmp/stack.conf" <<EOF
[isosock]
eal = -l ${lab_cores[0]} --no-pci --no-huge -m 256
address = 10.9.0.1/24
EOF

# role OPTIONS PORT: without a failed connection, and with something done.
role()
{
    { cat "$lab_tmp/stack.conf"; echo "port = $2"; } >"$lab_tmp/run.conf"
    timeout 30 "$bench-embedded" --stack "$lab_tmp/run.conf" ${1%% *} 10.9.0.2:7000 ${1#* } -d 0.2 --json >"$lab_tmp/out.json" 2>"$lab_tmp/err.log" &&
        ! grep -q '"messages": 0,' "$lab_tmp/out.json"
}

for port in sink sink,offload=none,ack=1 sink,offload=tso; do
    for r in 'rr -c 8' 'tx -c 8' 'rx -c 8' 'crr -c 8' 'idle -c 100'; do
        expect "$r over $port" role "$r" "$port"
    done
done
expect 'tx over a bad sink' role 'tx -c 2' 'sink,impair=loss:1%,reorder:1%,seed:3'
expect 'rx over a bad sink' role 'rx -c 2' 'sink,impair=loss:1%,reorder:1%,seed:3'

served()
{
    timeout 20 "${lab_on_stack[@]}" "$bench" tx 10.9.0.2:7000 -c 32 -d 0.2 >/dev/null
}

# Both workers have received.
shared()
{
    "$lab_isosock" --control "$lab_tmp/stack.sock" stats | awk '$1 == "sink.given" { ok = $3 > 0 && $4 > 0 } END { exit !ok }'
}

for mode in connp-l,groups=16 connp-t isostack,instances=2; do
    must "$mode starts" lab_daemon stack --lcores "(0-1)@${lab_cores[0]}" --no-pci --no-huge -m 256 -- --mode "$mode" --port sink \
        --address 10.9.0.1/24
    expect "tx in $mode" served
    expect "$mode receives by two queues" shared
    lab_stop $lab_pid
done
finish
