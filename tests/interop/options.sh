#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Wrong words get one line and status 2; what is wrong at run time gets one line and status 1. Needs no privilege.
. "$(dirname "$0")/lib.sh" || exit 1
lab_init "$ISOSOCK_BUILD"
d=$lab_isosockd
i=$lab_isosock
a="--address 10.66.0.2/24"
export XDG_RUNTIME_DIR=$lab_tmp
unset ISOSOCK_CONTROL

expect "no address" one_line_status 2 '--address' $d --
expect "bad address" one_line_status 2 "address.*10.66.0.2'.*10.66.0.2/24" $d -- --address 10.66.0.2
expect "bad prefix length" one_line_status 2 'address.*/40' $d -- --address 10.66.0.2/40
expect "the network's name" one_line_status 2 'address.*10.66.0.0/24' $d -- --address 10.66.0.0/24
expect "the broadcast address" one_line_status 2 'address.*10.66.0.255/24' $d -- --address 10.66.0.255/24
expect "a multicast address" one_line_status 2 'address.*224.0.0.5/24' $d -- --address 224.0.0.5/24
expect "bad gateway" one_line_status 2 'gateway.*nowhere' $d -- $a --gateway nowhere
expect "gateway off the link" one_line_status 2 'gateway.*10.67.0.1' $d -- $a --gateway 10.67.0.1
expect "unknown mode" one_line_status 2 'mode.*blah.*isostack' $d -- $a --mode blah
expect "unknown idle policy" one_line_status 2 'idle.*nap.*poll.*adaptive.*sleep' $d -- $a --idle nap
expect "bad port" one_line_status 2 'port.*eth0' $d -- $a --port eth0
expect "bad port knob" one_line_status 2 'colour' $d -- $a --port 0,colour=red
expect "bad knob of the sink" one_line_status 2 'offload.*all.*none' $d -- $a --port sink,offload=all
expect "bad impairment" one_line_status 2 'loss.*200%' $d -- $a --port 0,impair=loss:200%
expect "unknown impairment" one_line_status 2 'rust' $d -- $a --port 0,impair=rust:1%
expect "number out of range" one_line_status 2 'rx-buffers.*12' $d -- $a --rx-buffers 12
expect "unknown option" one_line_status 2 '--frobnicate' $d -- $a --frobnicate
expect "a word that is no option" one_line_status 2 'stray' $d -- $a stray
expect "EAL option without --" one_line_status 2 'EAL' $d -l 0
expect "value is missing" one_line_status 2 'gateway' $d -- $a --gateway
expect "bad permissions" one_line_status 2 'control-mode.*rwx' $d -- $a --control-mode rwx

printf '[isosock]\naddress = 10.66.0.2/24\nidle = nap\n' >"$lab_tmp/bad.conf"
expect "bad line in the file" one_line_status 2 'idle.*nap' $d -- --config "$lab_tmp/bad.conf"
printf '[isosock]\ncolour = red\n' >"$lab_tmp/unknown.conf"
expect "unknown name in the file" one_line_status 2 'colour' $d -- --config "$lab_tmp/unknown.conf"
expect "no such file" one_line_status 2 'nonexistent.conf' $d -- --config "$lab_tmp/nonexistent.conf"

expect "no port" one_line_status 1 'vdev' $d -l "${lab_cores[0]}" --no-pci --no-huge --log-level=error -- $a --control "$lab_tmp/c.sock"
expect "no such port" one_line_status 1 "port '7'.*net_null0" \
    $d -l "${lab_cores[0]}" --no-pci --no-huge --log-level=error --vdev=net_null0 -- $a --port 7 --control "$lab_tmp/c.sock"
expect "control path in no folder" one_line_status 1 'nofolder' \
    $d -l "${lab_cores[0]}" --no-pci --no-huge --log-level=error --vdev=net_null0 -- $a --control "$lab_tmp/nofolder/c.sock"
expect "a knob that the mode has not" one_line_status 2 'colour' \
    $d -l "${lab_cores[0]}" --no-pci --no-huge --log-level=error --vdev=net_null0 -- $a --mode isostack,colour=red --control "$lab_tmp/c.sock"

# It starts: the control socket's folder is what stops it, behind the word.
an_lcore_too_many()
{
    $d -l "${lab_cores[0]},${lab_cores[1]}" --no-pci --no-huge --vdev=net_null0 -- $a --mode up --control "$lab_tmp/nofolder/c.sock" \
        2>"$lab_tmp/words"
    grep -q "mode up uses 1 of the EAL's 2 lcores" "$lab_tmp/words"
}
[ ${#lab_cores[@]} -lt 2 ] || expect "lcores that a mode leaves unused" an_lcore_too_many

expect "tool: no command" one_line_status 2 'run, ss' $i
expect "tool: unknown command" one_line_status 2 'dance' $i dance
expect "tool: unknown option" one_line_status 2 'frobnicate' $i --frobnicate ss
expect "tool: ss -z" one_line_status 2 "'-z'" $i ss -z
expect "tool: run nothing" one_line_status 2 'PROGRAM' $i run --
expect "tool: no stack" one_line_status 1 'isosockd' $i --control "$lab_tmp/none.sock" ss
expect "tool: run without a stack" one_line_status 1 'isosockd' $i --control "$lab_tmp/none.sock" run -- true

help_names_options()
{
    $d --help >"$lab_tmp/help" && grep -q -e --address "$lab_tmp/help" && grep -q isostack "$lab_tmp/help" &&
        $i --help | grep -q 'run ' && $d --version | grep -qE '^isosockd [0-9]' && $i --version | grep -qE '^isosock [0-9]'
}
expect "--help and --version" help_names_options

generated_pages()
{
    $d --print-sample | cmp - "$ISOSOCK_SOURCE/config/isosockd.conf.sample" &&
        $d --print-options | cmp - "$ISOSOCK_SOURCE/docs/options.md"
}
expect "sample and docs are those of this table (make docs writes them)" generated_pages
finish
