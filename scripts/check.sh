#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What a reviewer should not have to look for: scripts/check.sh [BUILD]. Says every finding; exit status 1 if there is one.
set -u
build=$(cd "${1:-build}" && pwd) || exit 1
cd "$(dirname "$0")/.." || exit 1
status=0

# report TEXT FINDINGS
report()
{
    if [ -n "$2" ]; then
        printf 'NOT OK: %s\n%s\n' "$1" "$2"
        status=1
    else
        printf 'ok: %s\n' "$1"
    fi
}

sources=$(git ls-files '*.c' '*.h')

# The formatter has nothing to say.
if command -v clang-format >/dev/null; then
    report "format (clang-format -i mends it)" "$(clang-format --dry-run $sources 2>&1 | grep 'warning:' | cut -d: -f1 | sort | uniq -c)"
else
    echo "skipped: format, for want of clang-format"
fi

# Each header compiles alone, seeing only its own layer and those below.
cflags="-std=gnu11 -D_GNU_SOURCE -Wall -fsyntax-only $(pkg-config --cflags libdpdk | sed 's/-I/-isystem /g')"
alone=""
include=""
for layer in core ip tcp sockets modes; do
    include="$include -I$build/layers/$layer"
    for header in $(git ls-files "src/$layer/*.h"); do
        out=$(gcc $cflags $include -x c "$header" -o /dev/null 2>&1 | grep -v 'pragma once in main file') ||
            continue
        alone="$alone$header: $(echo "$out" | head -n 1)
"
    done
done
for header in $(git ls-files 'apps/*.h'); do
    out=$(gcc $cflags $include -Iapps -Isrc/sockets/client -x c "$header" -o /dev/null 2>&1) || alone="$alone$header: $(echo "$out" | head -n 1)
"
done
report "headers compile alone" "$alone"

# By -include it comes before the source's own _GNU_SOURCE, which must count all the same.
report "isosock/posix.h may come first" "$(printf '#define _GNU_SOURCE\n#include <sys/socket.h>\nstruct mmsghdr all;\n' |
    gcc -Wall -Werror -fsyntax-only -Isrc/sockets/client -include isosock/posix.h -x c - 2>&1)"

# Time is read in one place. The front-end, which lives in applications, has timeouts of its own to keep; the worker's loop counts what
# its polls cost.
report "the clock is read in core/clock.c alone" "$(git ls-files 'src/*.c' 'src/*.h' | grep -v -e '^src/core/clock\.c$' -e '^src/sockets/client/' -e '^src/modes/worker\.c$' |
    xargs grep -nE '\b(clock_gettime|gettimeofday|rte_rdtsc(_precise)?|rte_get_(tsc|timer)_cycles|rte_get_tsc_hz|time)\((CLOCK_|NULL|&|\))')"

# The engine is pure.
report "src/tcp allocates nothing, locks nothing, draws nothing, prints nothing" "$(git ls-files 'src/tcp/*.c' 'src/tcp/*.h' |
    xargs -r grep -nE '\b((m|c|re)alloc|free|rte_malloc|rte_zmalloc|random|rand|rte_rand|getrandom|arc4random|printf|fprintf|pthread_[a-z_]+|rte_spinlock_[a-z_]+)\(')"

# A peer can never stop or flood us.
report "no abort, assert or panic on the packet path" "$(git ls-files 'src/ip/*.c' 'src/tcp/*.c' |
    xargs -r grep -nE '\b(abort|exit|rte_panic|rte_exit|assert|RTE_ASSERT)\(' | grep -v static_assert)"

# Shape.
report "functions of at most 100 lines" "$(for file in $(git ls-files 'src/*.c' 'apps/*.c'); do
    awk -v f="$file" '/^\{$/ { start = NR } /^\}/ { if (start && NR - start > 101) print f ":" start ": " NR - start - 1 " lines"; start = 0 }' "$file"
done)"
report "files of at most 1000 lines" "$(wc -l $sources | awk '$1 > 1000 && $2 != "total" { print $2 ": " $1 }')"
report "a licence line at the top of each file" "$(for file in $sources $(git ls-files '*.sh' '*meson.build' Makefile .ci/run); do
    head -n 3 "$file" | grep -q 'SPDX-License-Identifier: BSD-3-Clause' || echo "$file"
done)"
report "nothing left to do later" "$(git ls-files 'src/*' 'apps/*' 'tests/*' | xargs grep -nwE 'TODO|FIXME|XXX|HACK' )"

# What is generated is up to date.
report "config/isosockd.conf.sample (make docs)" "$("$build/apps/isosockd" --print-sample | diff - config/isosockd.conf.sample 2>&1 | head -n 3)"
report "docs/options.md (make docs)" "$("$build/apps/isosockd" --print-options | diff - docs/options.md 2>&1 | head -n 3)"
exit $status
