#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Goodput over a bad path, beside the kernel: one stream, the same impairment, the same run.

The path loses, delays and narrows what passes in both directions (--path, the words of isosockd's impair=). Of this stack one end's port does that; two
kernels have it done by isowire, which forwards between them. For each congestion control the two are measured in turn, --rounds times; medians, and ratios
inside a round. Needs root (namespaces, veth, packet sockets); the kernel's control is set in its namespaces alone.
"""
import argparse
import json
import statistics
import sys
import time

from lab import Failure, Lab, run, wait_for

NETWORK, SERVER, CLIENT = '10.79.0.0/24', '10.79.0.2', '10.79.0.1'


def prefix(ns):
    return ['ip', 'netns', 'exec', ns]


def plain_frames(ns, *links):
    """What is forwarded or lost is a segment, not the large frame that a veth passes on uncut."""
    for link in links:
        run(*prefix(ns), 'ethtool', '-K', link, 'tso', 'off', 'gso', 'off', 'gro', 'off', 'tx', 'off')


def output(log):
    with open(log, encoding='utf-8') as f:
        return f.read()


class Kernel:
    """Two kernels with a wire between them."""

    def __init__(self, lab):
        self.lab = lab
        self.client, self.wire, self.server = (lab.namespace(n) for n in ('kc', 'kw', 'ks'))
        for ns, link, address in ((self.client, 'w0', CLIENT), (self.server, 'w1', SERVER)):
            lab.veth(ns, 'v0', self.wire, link)
            run('ip', '-n', ns, 'addr', 'add', f'{address}/24', 'dev', 'v0')
            # Each run starts without what the last one learned, as a daemon does.
            run(*prefix(ns), 'sysctl', '-qw', 'net.ipv4.tcp_no_metrics_save=1')
            plain_frames(ns, 'v0')
        plain_frames(self.wire, 'w0', 'w1')

    def measure(self, control, path, seconds):
        # By route: a namespace's default may be none that is restricted.
        for ns in (self.client, self.server):
            run('ip', '-n', ns, 'route', 'replace', NETWORK, 'dev', 'v0', 'congctl', control)
        wire, log = self.lab.start('wire', *prefix(self.wire), self.lab.app('isowire'), '--no-pci', '--vdev=net_af_packet0,iface=w0',
                                   '--vdev=net_af_packet1,iface=w1', '--', path, urgent=True)
        server = None
        try:
            wait_for('isowire', lambda: 'ready' in output(log), wire)
            server, _ = self.lab.start('kernel-server', *prefix(self.server), self.lab.bench, 'serve', f'{SERVER}:7000')
            time.sleep(0.3)
            return json.loads(run(*prefix(self.client), self.lab.bench, 'rx', f'{SERVER}:7000', '-d', str(seconds), '--json', timeout=seconds + 40))
        finally:
            if server is not None:
                self.lab.stop(server)
            self.lab.stop(wire)


class Stack:
    """Two of this stack's daemons, joined by a veth."""

    def __init__(self, lab):
        self.lab = lab
        self.client, self.server = (lab.namespace(n) for n in ('sc', 'ss'))
        lab.veth(self.client, 'v0', self.server, 'v0')
        for ns in (self.client, self.server):
            plain_frames(ns, 'v0')

    def daemon(self, ns, name, address, control, port):
        socket = f'{self.lab.tmp}/{name}.sock'
        job, log = self.lab.start(name, *prefix(ns), self.lab.app('isosockd'), '--no-pci', '--vdev=net_af_packet0,iface=v0', '--', '--address',
                                  f'{address}/24', '--control', socket, '--congestion', control, '--port', port, urgent=True)
        wait_for(f'isosockd ({name})', lambda: 'isosockd: ready' in output(log), job)
        return job, socket

    def program(self, ns, socket, *words):
        return [*prefix(ns), self.lab.app('isosock'), '--control', socket, 'run', '--', self.lab.bench, *words]

    def measure(self, control, path, seconds):
        jobs = []
        try:
            job, server = self.daemon(self.server, 'server', SERVER, control, '0')
            jobs.append(job)
            job, client = self.daemon(self.client, 'client', CLIENT, control, f'0,impair={path}')
            jobs.append(job)
            job, _ = self.lab.start('stack-server', *self.program(self.server, server, 'serve', f'{SERVER}:7000'))
            jobs.append(job)
            time.sleep(0.5)
            return json.loads(run(*self.program(self.client, client, 'rx', f'{SERVER}:7000', '-d', str(seconds), '--json'), timeout=seconds + 40))
        finally:
            for job in reversed(jobs):
                self.lab.stop(job)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--build', default='build', help='build directory')
    parser.add_argument('--path', default='loss:1%,delay:10ms,rate:10M', help='what the path does (%(default)s)')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=20)
    parser.add_argument('controls', nargs='*', default=['cubic', 'bbr'])
    args = parser.parse_args()
    lab = Lab(args.build, [0, 1])
    rates = {}
    try:
        sides = {'kernel': Kernel(lab), 'isosock': Stack(lab)}
        for turn in range(args.rounds):
            for control in args.controls:
                for name, side in sides.items():
                    rate = side.measure(control, f'{args.path},seed:{turn + 1}', args.seconds)['bytes_per_s'] / 1e6
                    rates.setdefault((control, name), []).append(rate)
                    print(f'round {turn + 1}: {control} {name} {rate:.3f} MB/s', file=sys.stderr)
    except Failure as e:
        sys.exit(f'lossy.py: {e}')
    finally:
        lab.close()
    print(f'{args.path}: goodput in MB/s, median of {args.rounds} runs of {args.seconds:g} s')
    for control in args.controls:
        kernel, stack = rates[control, 'kernel'], rates[control, 'isosock']
        ratio = statistics.median(s / k for s, k in zip(stack, kernel))
        print(f'  {control:8} kernel {statistics.median(kernel):8.3f}   isosock {statistics.median(stack):8.3f}   x{ratio:.2f}')


if __name__ == '__main__':
    main()
