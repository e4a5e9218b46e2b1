#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure two embedded stacks joined by net_memif beside the kernel over veth: isobench's same sources, the same two CPUs, interleaved.

In each round every workload runs on every variant; medians over the rounds, and ratios to the kernel taken inside a round. The distance of
the CPUs is probed before each round and shown, since a cache line's way decides more than anything else. Offloads of the veth are off where segments are to be
of MTU size, as on memif. Needs root (namespaces, veth) and builds nothing.
"""
import argparse
import json
import statistics
import sys
import time

from lab import Failure, Lab, run

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


def make_wire(lab):
    """Two namespaces joined by a veth without offloads; their prefixes, the server's first."""
    server, client = lab.namespace('s'), lab.namespace('c')
    lab.veth(server, 'v0', client, 'v0')
    prefixes = []
    for ns, address in ((server, SERVER), (client, '10.78.0.1')):
        run('ip', '-n', ns, 'addr', 'add', f'{address}/24', 'dev', 'v0')
        run('ip', 'netns', 'exec', ns, 'ethtool', '-K', 'v0', 'tso', 'off', 'gso', 'off', 'gro', 'off')
        prefixes.append(['ip', 'netns', 'exec', ns])
    return prefixes


def result(seconds, *command):
    return json.loads(run(*command, '-d', str(seconds), '--json', timeout=seconds + 40, urgent=True))


def run_kernel(args, lab, prefixes, workload, spin):
    server_prefix, client_prefix = prefixes
    extra = ['--spin'] if spin else []
    server, _ = lab.start('server', *server_prefix, lab.bench, 'serve', f'{SERVER}:7000', '--pin', '0', *extra, urgent=True)
    try:
        time.sleep(0.3)
        return result(args.seconds, *client_prefix, lab.bench, workload[0], f'{SERVER}:7000', *workload[1:], '--pin', '1', *extra)
    finally:
        lab.stop(server)


def run_pair(args, lab, workload):
    return result(args.seconds, lab.app('isobench/isobench-embedded'), 'pair', '--cpus', '0,1', *workload)


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
    names = args.workloads or list(WORKLOADS)
    results = {name: {variant: [] for variant in VARIANTS} for name in names}
    lab = Lab(args.build, [0, 1])
    try:
        prefixes = make_wire(lab)
        for turn in range(args.rounds):
            print(f'round {turn + 1}: a cache line there and back takes {lab.distance_ns():.0f} ns', file=sys.stderr)
            for name in names:
                for variant in VARIANTS:
                    report = (run_pair(args, lab, WORKLOADS[name]) if variant == 'pair'
                              else run_kernel(args, lab, prefixes, WORKLOADS[name], variant == 'spin'))
                    results[name][variant].append(distill(report))
    except Failure as e:
        sys.exit(f'pair.py: {e}')
    finally:
        lab.close()
    for name in names:
        show(name, results[name])


if __name__ == '__main__':
    main()
