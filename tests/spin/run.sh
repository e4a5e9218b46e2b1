#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Check a model by spin: run.sh MODEL.pml. With a second argument "broken:SED-EXPRESSION" the model is changed first and must then FAIL,
# which shows that the check can see the fault. Exit 77 (skip) where spin is not installed.
set -eu
command -v spin >/dev/null || { echo "skip: spin is not installed"; exit 77; }
model=$(realpath "$1")
expect=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cp "$model" model.pml
case ${2:-} in
broken:*)
    sed -i "${2#broken:}" model.pml
    cmp -s "$model" model.pml && { echo "the change did not apply"; exit 1; }
    expect=1
    ;;
esac
spin -a model.pml >/dev/null
cc -O2 -DSAFETY -o pan pan.c
out=$(./pan -m1000000)
printf '%s\n' "$out" | grep -E 'errors:|states, stored'
printf '%s\n' "$out" | grep -q 'max search depth too small' && exit 1
errors=$(printf '%s\n' "$out" | sed -n 's/.*errors: \([0-9]*\).*/\1/p')
[ "$expect" -eq 0 ] && [ "$errors" -eq 0 ] && exit 0
[ "$expect" -eq 1 ] && [ "$errors" -gt 0 ] && exit 0
exit 1
