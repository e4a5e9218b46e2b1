#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure two embedded stacks joined by net_memif beside the kernel over veth: isobench's same sources, the same two CPUs, interleaved.

In each round every workload runs on every variant; medians over the rounds, and ratios to the kernel taken inside a round. The distance of
the CPUs is probed before each round and shown, since a cache line's way decides more than anything else. Offloads of the veth are off where segments are to be
of MTU size, as on memif. Needs root (namespaces, veth) and builds nothing.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

WORKLOADS = {
    'rr1': ['rr', '-c', '1', '-s', '64'],
    'rr64': ['rr', '-c', '64', '-s', '64'],
    'rr256': ['rr', '-c', '256', '-s', '64'],
    'crr64': ['crr', '-c', '64', '-s', '64'],
    'tx1': ['tx', '-c', '1', '-s', '64k'],
    'rx1': ['rx', '-c', '1', '-s', '64k'],
    'msg128': ['tx', '-c', '128', '-s', '64'],
}
VARIANTS = ['kernel', 'spin', 'pair']
SERVER = '10.78.0.2'


def sh(command, check=True):
    return subprocess.run(command, shell=True, check=check, capture_output=True, text=True)


class Namespaces:
    """Two namespaces joined by a veth without offloads."""

    def __init__(self):
        self.names = [f'pair{os.getpid()}s', f'pair{os.getpid()}c']

    def __enter__(self):
        s, c = self.names
        sh(f'ip netns add {s}')
        sh(f'ip netns add {c}')
        sh(f'ip link add v0 netns {s} type veth peer name v0 netns {c}')
        for name, address in ((s, SERVER), (c, '10.78.0.1')):
            sh(f'ip -n {name} address add {address}/24 dev v0')
            sh(f'ip -n {name} link set v0 up')
            sh(f'ip netns exec {name} ethtool -K v0 tso off gso off gro off', check=False)
        return self

    def __exit__(self, *_):
        for name in self.names:
            sh(f'ip netns del {name}', check=False)


def raise_priority():
    """Other work on the machine gets what is left; where the kernel groups by session, that needs the group's own knob."""
    os.setsid()
    os.nice(-20)
    try:
        with open('/proc/self/autogroup', 'w', encoding='ascii') as f:
            f.write('-20')
    except OSError:
        pass


def result(command, seconds):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 40,
                          preexec_fn=raise_priority)
    if done.returncode != 0:
        raise RuntimeError(f'{" ".join(command)}: status {done.returncode}: {done.stderr.strip()}')
    return json.loads(done.stdout)


def run_kernel(args, namespaces, workload, spin):
    server_ns, client_ns = namespaces.names
    extra = ['--spin'] if spin else []
    server = subprocess.Popen(['ip', 'netns', 'exec', server_ns, args.isobench, 'serve', f'{SERVER}:7000', '--pin', '0'] + extra,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=raise_priority)
    try:
        subprocess.run(['sleep', '0.3'], check=True)
        return result(['ip', 'netns', 'exec', client_ns, args.isobench, workload[0], f'{SERVER}:7000', *workload[1:], '--pin', '1',
                       '-d', str(args.seconds), '--json'] + extra, args.seconds)
    finally:
        server.terminate()
        server.wait()


def run_pair(args, workload):
    return result([args.embedded, 'pair', '--cpus', '0,1', *workload, '-d', str(args.seconds), '--json'], args.seconds)


def show(name, results):
    print(name)
    for variant, runs in results.items():
        if not runs:
            continue
        rates = [r['rate'] for r in runs]
        line = f'  {variant:8}{statistics.median(rates):14.0f} messages/s'
        line += f'{statistics.median(r["gbits"] for r in runs):9.2f} Gb/s'
        if runs[0]['p50'] is not None:
            line += f'   p50 {statistics.median(r["p50"] for r in runs):8.2f} p99 {statistics.median(r["p99"] for r in runs):8.2f} us'
        if variant != 'kernel':
            line += f'   x{statistics.median(a["rate"] / b["rate"] for a, b in zip(runs, results["kernel"])):.2f}'
        print(line)


def distill(report):
    latency = report.get('latency_us') or {}
    return {'rate': report['messages_per_s'], 'gbits': report['bytes_per_s'] * 8 / 1e9,
            'p50': latency.get('p50'), 'p99': latency.get('p99')}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--build', default='build', help='build directory')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=1)
    parser.add_argument('workloads', nargs='*', default=[], help=f'of {", ".join(WORKLOADS)} (all)')
    args = parser.parse_args()
    args.isobench = os.path.join(args.build, 'apps/isobench/isobench')
    args.embedded = os.path.join(args.build, 'apps/isobench/isobench-embedded')
    names = args.workloads or list(WORKLOADS)
    results = {name: {variant: [] for variant in VARIANTS} for name in names}
    with Namespaces() as namespaces:
        for turn in range(args.rounds):
            probe = subprocess.run([os.path.join(args.build, 'apps/isobench/bench-probe'), '0', '1'], capture_output=True, text=True,
                                   check=True, preexec_fn=raise_priority)
            print(f'round {turn + 1}: a cache line there and back takes {probe.stdout.strip()} ns', file=sys.stderr)
            for name in names:
                for variant in VARIANTS:
                    report = (run_pair(args, WORKLOADS[name]) if variant == 'pair'
                              else run_kernel(args, namespaces, WORKLOADS[name], variant == 'spin'))
                    results[name][variant].append(distill(report))
    for name in names:
        show(name, results[name])


if __name__ == '__main__':
    main()
