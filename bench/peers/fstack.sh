#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Make isobench over F-Stack: bench/peers/fstack.sh DIR PROGRAM. DIR is F-Stack's source tree with its library built (lib/libfstack.a), for the DPDK that is installed here;
# F-Stack is no part of this project, and nothing else needs it.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 FSTACK-DIR PROGRAM" >&2; exit 2; }
[ -e "$1/lib/libfstack.a" ] || { echo "$0: $1/lib/libfstack.a does not exist" >&2; exit 1; }
lib=$(cd "$1/lib" && pwd)
out=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
here=$(cd "$(dirname "$0")" && pwd)
bench=$here/../../apps/isobench
objects=$(mktemp -d)
trap 'rm -r "$objects"' EXIT
cd "$objects"
compile="${CC:-cc} -std=gnu11 -O2 -g -Wall -Wextra -D_GNU_SOURCE -DISOSOCK_VERSION=\"beside\" -I$here/../../apps -I$here"
$compile -include fstack.h -c "$bench/client.c" "$bench/roles.c" "$bench/run.c" "$bench/server.c"
$compile -Dmain=isobench_main -c "$bench/isobench.c"
$compile -c "$bench/hello.c" "$bench/hist.c" "$bench/options.c" "$bench/perfctr.c" "$bench/report.c"
$compile -isystem "$lib" $(pkg-config --cflags libdpdk) -c "$here/fstack.c"
${CC:-cc} -o "$out" ./*.o -Wl,--wrap=rte_eal_init -Wl,--whole-archive "$lib/libfstack.a" -Wl,--no-whole-archive $(pkg-config --libs libdpdk) \
    -lrte_net_bond -lcrypto -lm -lpthread
