#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Install the Debian packages that a task needs and that are missing.
#
#   scripts/deps.sh [--optional] GROUP...      groups: build demo test bench
#
# As root it installs them by apt-get. Otherwise it says which are missing and how to get them, and fails;
# with --optional it says so and succeeds (what needs them will skip). Nothing missing: no word, no apt.
set -u

build="gcc libc6-dev make pkg-config meson ninja-build dpdk-dev libdpdk-dev dpdk libbsd-dev libmd-dev libcmocka-dev libpcap-dev"
demo="nginx redis-server redis-tools curl iproute2 procps"
tests="$demo wrk python3 spin valgrind iputils-ping"
bench="python3 iproute2 procps ethtool"

optional=0
wanted=""
for arg in "$@"; do
    case $arg in
    --optional) optional=1 ;;
    build) wanted="$wanted $build" ;;
    demo) wanted="$wanted $demo" ;;
    test) wanted="$wanted $tests" ;;
    bench) wanted="$wanted $bench" ;;
    *)
        echo "deps.sh: no group '$arg': build, demo, test, bench" >&2
        exit 2
        ;;
    esac
done

if ! command -v dpkg-query >/dev/null; then
    echo "deps.sh: this is no Debian; needed are the equivalents of:$wanted" >&2
    exit 0
fi

missing=""
for package in $(printf '%s\n' $wanted | sort -u); do
    status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)
    case $status in
    ?i*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" != 0 ]; then
    echo "missing packages:$missing" >&2
    echo "as root: apt-get install --no-install-recommends$missing" >&2
    [ $optional = 1 ] && exit 0
    exit 1
fi

# A web server or a database that starts because someone built a program is a surprise: forbid services to start
# while we install, and do not leave those that we brought enabled.
policy=/usr/sbin/policy-rc.d
own_policy=0
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && own_policy=1
fi
cleanup()
{
    [ $own_policy = 1 ] && rm -f $policy
    own_policy=0
}
trap cleanup EXIT
trap 'exit 130' INT TERM

export DEBIAN_FRONTEND=noninteractive
echo "installing:$missing"
apt="apt-get -q -o DPkg::Lock::Timeout=120"
$apt update
if ! $apt install -y --no-install-recommends $missing; then
    echo "deps.sh: apt-get failed; needed are:$missing" >&2
    [ $optional = 1 ] && exit 0
    exit 1
fi
if command -v systemctl >/dev/null; then
    for service in nginx redis-server; do
        case " $missing " in
        *" $service "*) systemctl --no-reload disable "$service" >/dev/null 2>&1 ;;
        esac
    done
fi
exit 0
