#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Run packetdrill scripts against the stack: run.sh [-v ipv4|mapped|ipv6] [-t SET] [-o DIR] [-s NAME=VALUE]... SCRIPT-OR-FOLDER...
# -t: the set that they are of (google, linux, nplab, ligurio, gvisor, accecn, freebsd; any other name has neither presets nor known
# failures). freebsd's are written for another packetdrill and another stack: freebsd.sed says what is taken out of their copies.
# -s: a sysctl that the scripts take for granted and do not set.
# PACKETDRILL names the packetdrill binary, ADAPTER the shared object (default: build/tests/packetdrill/ of this tree).
# Prints "pass|FAIL path" for each script, "known path: reason" for those that expected-failures.txt lists, how many passed of each folder,
# and the totals; with -o each script's output is kept in DIR. Exit status 0 if what failed is known, and what is known has failed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
packetdrill=${PACKETDRILL:-$(command -v packetdrill || true)}
adapter=${ADAPTER:-$here/../../build/tests/packetdrill/libisosock-packetdrill.so}
variant=ipv4
keep=
given=()
set=own
while getopts v:t:o:s: opt; do
    case $opt in
    v) variant=$OPTARG ;;
    t) set=$OPTARG ;;
    o) keep=$OPTARG && mkdir -p "$keep" ;;
    s) given+=("$OPTARG") ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
# What a Linux of their time had by default.
[ "$set" = freebsd ] && given=(socket.quickack=0 "${given[@]}")
[ "$set" = nplab ] && given=("net.ipv4.tcp_rmem=4096 87380 3000000" net.ipv4.tcp_ecn=0 "${given[@]}")
[ -x "$packetdrill" ] || { echo "skip: no packetdrill binary (set PACKETDRILL=path)"; exit 77; }
[ -r "$adapter" ] || { echo "no adapter at $adapter: build first"; exit 2; }
[ "$(id -u)" = 0 ] || { echo "skip: packetdrill locks its memory and needs root"; exit 77; }
adapter=$(realpath "$adapter")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
# The scripts set up a Linux: sysctls are noted down for the adapter, the rest has nothing to act on here.
for stub in tc ethtool; do printf '#!/bin/sh\nexit 0\n' >"$work/bin/$stub"; done
cat >"$work/bin/ip" <<'SH'
#!/bin/sh
[ "$1" = -6 ] && shift
case "$1 $2" in
"tcp_metrics flush") echo tcp_metrics.flush=1 >>"$SYSCTL_FILE" ;;
"route add" | "route change" | "route replace") shift 2 && echo "route=$*" >>"$SYSCTL_FILE" ;;
"link set") case "$*" in *" mtu "[0-9]*) echo "link.mtu=${*##* mtu }" >>"$SYSCTL_FILE" ;; esac ;;
esac
exit 0
SH
# The adapter keeps the stack's counters in a file, by the names of nstat; this tells what has grown since the last look, as nstat does.
cat >"$work/bin/nstat" <<'SH'
#!/bin/sh
seen=$COUNTER_FILE.seen
touch "$COUNTER_FILE" "$seen"
case " $*" in *" -n"*) ;; *)
    case " $*" in *" -z"*) zeros=1 ;; *) zeros=0 ;; esac
    awk -v zeros=$zeros 'FILENAME == ARGV[1] { old[$1] = $2; next }
        zeros || $2 > old[$1] { printf "%-32s%-18d 0.0\n", $1, $2 - old[$1] }' "$seen" "$COUNTER_FILE" ;;
esac
case " $*" in *" -s"*) ;; *) cp "$COUNTER_FILE" "$seen" ;; esac
SH
# ... and its sockets in one as Linux has them in /proc/net/tcp and tcp6.
cat >"$work/bin/grep" <<'SH'
#!/bin/bash
args=()
for a in "$@"; do
    case $a in /proc/net/tcp | /proc/net/tcp6) a=$SOCKET_FILE ;; esac
    args+=("$a")
done
exec /usr/bin/grep "${args[@]}"
SH
cat >"$work/bin/sysctl" <<'SH'
#!/bin/sh
put() { printf '%s=%s\n' "$1" "$2" >>"$SYSCTL_FILE"; }
for a in "$@"; do
    value=${a#*=}
    case $a in
    # FreeBSD's names, and its milliseconds.
    net.inet.tcp.rfc1323=*) put net.ipv4.tcp_timestamps "$value" && put net.ipv4.tcp_window_scaling "$value" ;;
    net.inet.tcp.sack.enable=*) put net.ipv4.tcp_sack "$value" ;;
    net.inet.tcp.ecn.enable=*) put net.ipv4.tcp_ecn "$value" ;;
    net.inet.tcp.keepidle=*) put net.ipv4.tcp_keepalive_time $((value / 1000)) ;;
    net.inet.tcp.keepintvl=*) put net.ipv4.tcp_keepalive_intvl $((value / 1000)) ;;
    net.inet.tcp.keepcnt=*) put net.ipv4.tcp_keepalive_probes "$value" ;;
    net.inet.* | kern.* | security.*) ;;
    *=*) put "$(printf '%s' "${a%%=*}" | tr / .)" "$value" ;;
    esac
done
exit 0
SH
# Public sets set some sysctls by a program of their own that writes /proc/sys, and undo it by a file that it leaves in /tmp. They run in
# a copy in which that program notes down too; what else a script writes there meets a network namespace of its own.
cat >"$work/bin/set_sysctls.py" <<'SH'
#!/bin/sh
for a in "$@"; do
    name=${a%%=*}
    printf '%s=%s\n' "$(printf '%s' "${name#/proc/sys/}" | tr / .)" "${a#*=}" >>"$SYSCTL_FILE"
done
restore=/tmp/sysctl_restore_$PACKETDRILL_PID.sh
printf '#!/bin/sh\n' >"$restore"
chmod +x "$restore"
printf '%s\n' "$restore" >>"$SYSCTL_FILE.restore"
SH
chmod +x "$work"/bin/*
export SYSCTL_FILE=$work/sysctl COUNTER_FILE=$work/counters SOCKET_FILE=$work/sockets LOCAL_IPV4=192.168.0.1 LOCAL_IPV6=fd3d:0a0b:17d6::1
export PATH=$work/bin:$PATH

# Names that google/packetdrill's own runner defines; the cookie is that of the key in its defaults and these addresses.
case $variant in
ipv4)
    args=(--ip_version=ipv4 -D TFO_COOKIE=3021b9d889017eeb -D CODE=host_unreachable
        -D CMSG_LEVEL_IP=SOL_IP -D CMSG_TYPE_RECVERR=IP_RECVERR)
    ips=(--local_ip=192.168.0.1 --remote_ip=192.0.2.1) ;;
mapped)
    args=(--ip_version=ipv4-mapped-ipv6 -D TFO_COOKIE=3021b9d889017eeb -D CODE=host_unreachable
        -D CMSG_LEVEL_IP=SOL_IPV6 -D CMSG_TYPE_RECVERR=IPV6_RECVERR)
    ips=(--local_ip=192.168.0.1 --remote_ip=192.0.2.1) ;;
ipv6)
    args=(--ip_version=ipv6 --so_flags=mtu=1520 --mtu=1520 -D TFO_COOKIE=c1d1e9742a47a9bc -D CODE=address_unreachable
        -D CMSG_LEVEL_IP=SOL_IPV6 -D CMSG_TYPE_RECVERR=IPV6_RECVERR)
    ips=(--local_ip=fd3d:0a0b:17d6::1 --remote_ip=fd3d:fa7b:d17d::1) ;;
*) echo "variant: ipv4, mapped or ipv6"; exit 2 ;;
esac

# Where a script lies in a copy of its tree: of the outermost folder above it with common/defaults.sh, or of its own.
run_path() {
    local root dir
    root=$(dirname "$1")
    dir=$root
    while [ "$dir" != / ]; do
        [ -e "$dir/common/defaults.sh" ] && root=$dir
        dir=$(dirname "$dir")
    done
    local copy=$work/tree$(printf '%s' "$root" | tr / _)
    if [ ! -d "$copy" ]; then
        mkdir "$copy"
        (cd "$root" && find -L . \( -name '*.pkt' -o -name '*.sh' -o -name '*.py' \) -print0 | tar -ch --null -T -) |
            tar -x -C "$copy"
        find "$copy" -name set_sysctls.py -exec cp "$work/bin/set_sysctls.py" {} \;
        [ "$set" = freebsd ] && find "$copy" -name '*.pkt' -exec sed -i -E -f "$here/freebsd.sed" {} +
    fi
    echo "$copy${1#"$root"}"
}

# Why this script is known to fail in this variant.
known_reason() {
    local of v name why
    while read -r of v name why; do
        [ "$of" = "$set" ] || continue
        [ "$v" = all ] || [ "$v" = "$variant" ] || continue
        # shellcheck disable=SC2254 # a pattern may stand for several
        case $1 in */$name) echo "$why" && return ;; esac
    done < <(grep -v '^#' "$here/expected-failures.txt")
}

# The IP version that this script alone is for, if it says so: by an option, by its name as google's own runner reads it, or FreeBSD's.
only_version() {
    sed -n 's/^--ip_version=\(ipv[46]\)$/\1/p' "$1" | grep -m 1 . && return
    case $1 in
    *v4.pkt) echo ipv4 ;;
    *v6.pkt) echo ipv6 ;;
    esac
}

# A folder's line in the summary: that of the script, from the folder given on.
count_in_folder() {
    local name=${1#"$2"/}
    case $name in */*) name=${name%%/*} ;; *) name=. ;; esac
    of_folder[$name]=$((${of_folder[$name]:-0} + 1))
    [ "$3" = pass ] && pass_of_folder[$name]=$((${pass_of_folder[$name]:-0} + 1))
}

declare -A of_folder pass_of_folder
passed=0
failed=0
known=0
skipped=0
surprises=0
while IFS=$'\t' read -r folder script; do
    printf '%s\n' "${given[@]}" >"$SYSCTL_FILE"
    rm -f "$COUNTER_FILE" "$COUNTER_FILE.seen" "$SOCKET_FILE"
    path=$(run_path "$script")
    reason=$(known_reason "$script")
    only=$(only_version "$path")
    if [ -n "$only" ] && [ "$only" != "${variant/mapped/ipv4}" ]; then
        skipped=$((skipped + 1))
        echo "skip $script: for $only alone"
        continue
    fi
    # Addresses of a script's own matter to it; the command line would win over them.
    own=("${ips[@]}")
    if [ "$variant" != ipv6 ] && grep -qE '^--(local|remote)_ip=[0-9.]+$' "$path"; then
        own=(--local_ip="$(sed -n 's/^--local_ip=\([0-9.]*\)$/\1/p' "$path" | grep . || echo 192.168.0.1)"
            --remote_ip="$(sed -n 's/^--remote_ip=\([0-9.]*\)$/\1/p' "$path" | grep . || echo 192.0.2.1)")
    elif [ "$variant" = ipv6 ] && grep -qE '^--local_ip=[0-9a-fA-F:]+$' "$path"; then
        own=(--local_ip="$(sed -n 's/^--local_ip=\([0-9a-fA-F:]*\)$/\1/p' "$path")" --remote_ip=2001:DB8::1)
    fi
    # The scripts name their helpers relative to their own folder.
    result=FAIL
    if (cd "$(dirname "$path")" && LOCAL_IPV4=${own[0]#*=} timeout -s KILL 60 unshare -n env LD_PRELOAD="$adapter" "$packetdrill" "${args[@]}" \
        "${own[@]}" --so_filename="$adapter" "$(basename "$path")") >"$work/out" 2>&1 </dev/null; then
        passed=$((passed + 1))
        result=pass
        echo "pass $script"
        [ -n "$reason" ] && surprises=$((surprises + 1)) && echo "  though listed: $reason"
    elif [ -n "$reason" ]; then
        known=$((known + 1))
        echo "known $script: $reason"
    elif [ -z "$(tr -d '\n' <"$work/out")" ]; then
        failed=$((failed + 1))
        echo "FAIL $script: no word, killed after a minute"
    else
        failed=$((failed + 1))
        echo "FAIL $script: $(grep -v '^$' "$work/out" | tail -n 1 | cut -c1-160)"
    fi
    count_in_folder "$script" "$folder" $result
    [ -n "$keep" ] && cp "$work/out" "$keep/$(printf '%s' "${script#/}" | tr / _).out"
    [ -e "$SYSCTL_FILE.restore" ] && xargs rm -f <"$SYSCTL_FILE.restore" && rm -f "$SYSCTL_FILE.restore"
done < <(for a in "$@"; do
    dir=$(realpath "$a")
    [ -d "$dir" ] || dir=$(dirname "$dir")
    find "$(realpath "$a")" -name '*.pkt' | sort | sed "s,^,$dir\t,"
done)
if [ ${#of_folder[@]} -gt 1 ]; then
    for name in "${!of_folder[@]}"; do echo "$name: ${pass_of_folder[$name]:-0} of ${of_folder[$name]}"; done | sort
fi
echo "$passed passed, $failed failed, $known known to fail, $skipped for another IP version"
[ "$failed" = 0 ] && [ "$surprises" = 0 ]
