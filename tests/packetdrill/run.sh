#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Run packetdrill scripts against the stack: run.sh [-v ipv4|mapped|ipv6] [-o DIR] SCRIPT-OR-FOLDER...
# PACKETDRILL names the packetdrill binary, ADAPTER the shared object (default: build/tests/packetdrill/ of this tree).
# Prints "pass|FAIL path" for each script, and the totals; with -o each script's output is kept in DIR. Exit status 0 if all passed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
packetdrill=${PACKETDRILL:-$(command -v packetdrill || true)}
adapter=${ADAPTER:-$here/../../build/tests/packetdrill/libisosock-packetdrill.so}
variant=ipv4
keep=
while getopts v:o: opt; do
    case $opt in
    v) variant=$OPTARG ;;
    o) keep=$OPTARG && mkdir -p "$keep" ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ -x "$packetdrill" ] || { echo "skip: no packetdrill binary (set PACKETDRILL=path)"; exit 77; }
[ -r "$adapter" ] || { echo "no adapter at $adapter: build first"; exit 2; }
[ "$(id -u)" = 0 ] || { echo "skip: packetdrill locks its memory and needs root"; exit 77; }
adapter=$(realpath "$adapter")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
# The scripts set up a Linux: sysctls are noted down for the adapter, the rest has nothing to act on here.
for stub in tc ip nstat ethtool; do printf '#!/bin/sh\nexit 0\n' >"$work/bin/$stub"; done
cat >"$work/bin/sysctl" <<'SH'
#!/bin/sh
for a in "$@"; do case $a in *=*) printf '%s\n' "$a" >>"$SYSCTL_FILE" ;; esac; done
exit 0
SH
chmod +x "$work"/bin/*
export SYSCTL_FILE=$work/sysctl LOCAL_IPV4=192.168.0.1 LOCAL_IPV6=fd3d:0a7b:d17d::1
export PATH=$work/bin:$PATH

case $variant in
ipv4) args=(--ip_version=ipv4 --local_ip=192.168.0.1 --remote_ip=192.0.2.1) ;;
mapped) args=(--ip_version=ipv4-mapped-ipv6 --local_ip=192.168.0.1 --remote_ip=192.0.2.1) ;;
ipv6) args=(--ip_version=ipv6 --local_ip=fd3d:0a7b:d17d::1 --remote_ip=2001:db8::1 --so_flags=mtu=1520 --mtu=1520) ;;
*) echo "variant: ipv4, mapped or ipv6"; exit 2 ;;
esac

passed=0
failed=0
while IFS= read -r script; do
    : >"$SYSCTL_FILE"
    # The scripts name their helpers relative to their own folder.
    if (cd "$(dirname "$script")" && LD_PRELOAD=$adapter timeout -s KILL 20 "$packetdrill" "${args[@]}" \
        --so_filename="$adapter" "$(basename "$script")") >"$work/out" 2>&1 </dev/null; then
        passed=$((passed + 1))
        echo "pass $script"
    else
        failed=$((failed + 1))
        echo "FAIL $script: $(grep -v '^$' "$work/out" | tail -n 1 | cut -c1-160)"
    fi
    [ -n "$keep" ] && cp "$work/out" "$keep/$(printf '%s' "${script#/}" | tr / _).out"
done < <(for a in "$@"; do find "$(realpath "$a")" -name '*.pkt' | sort; done)
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
