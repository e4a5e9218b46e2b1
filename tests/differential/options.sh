#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Every socket option, right and wrong values and lengths, in every state: the kernel's answers and the stack's must be equal.
. "$(dirname "$0")/../interop/lib.sh" || exit 1
need_programs python3 ip
lab_init "$ISOSOCK_BUILD"
need_tap
options=$(dirname "$0")/options.py
must "the stack starts" lab_tap_stack

on_kernel()
{
    peer_run "$options" 127.0.0.1 >"$lab_tmp/kernel.txt"
}

on_stack()
{
    lab_app timeout --foreground -k 2 120 "$options" 10.66.0.2 >"$lab_tmp/stack.txt"
}

# What is fed to diff is long enough to have come to its end.
same_answers()
{
    [ "$(wc -l <"$lab_tmp/kernel.txt")" -gt 5000 ] && diff "$lab_tmp/kernel.txt" "$lab_tmp/stack.txt"
}

expect "the kernel answers" on_kernel
expect "the stack answers" on_stack
expect "the answers are the same" same_answers
finish
