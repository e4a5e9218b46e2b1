#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure the kernel and the stack side by side, by the same program, on the same two CPUs.

The server's side (application and, if there is one, stack) is on the first CPU, the client's on the second. All variants are set up before
the first run and stay; runs are interleaved (for each round, for each workload: each variant), and ratios are taken inside a round. The
distance of the CPUs is probed before and after every run, since it decides more than anything else does; a pair of runs with different labels gives no ratio. Nor
does a run that other programs disturbed: their share of the two CPUs is measured too.
`--doc FILE` measures nothing and makes the table of a CSV file that an earlier run wrote. Needs root (namespaces, veth, tap) and builds nothing.
"""
import argparse
import json
import os
import sys
import time

from lab import OBSERVED, Failure, arguments, at_least, circumstances, laboratory, last_words, median, observe, rows_file, run, task_ns, times, told

WORKLOADS = {
    'rr1': ['rr', '-c', '1', '-s', '64'],
    'rr16': ['rr', '-c', '16', '-s', '64'],
    'rr64': ['rr', '-c', '64', '-s', '64'],
    'crr16': ['crr', '-c', '16', '-s', '64'],
    'tx1': ['tx', '-c', '1', '-s', '64k'],
    'rx1': ['rx', '-c', '1', '-s', '64k'],
    'msg64': ['tx', '-c', '64', '-s', '64'],
}
PORT = 7000


class Variant:
    """One way of carrying bytes from client to server. Subclasses fill in wires() and, where there is a stack, stacks()."""

    number = 0  # the third byte of its network
    text = ''

    def __init__(self, lab):
        self.lab = lab
        self.server_prefix = []
        self.client_prefix = []
        self.measured = []  # processes whose CPU time is counted
        self.app_cpus = lab.cpus

    def address(self, side):
        return f'10.66.{self.number}.{side}'

    def name(self, part):
        return f'{type(self).__name__.lower()}{part}'

    def wires(self):
        """Namespaces and interfaces: once."""

    def stacks(self):
        """Daemons: at each start."""

    def up(self):
        self.measured = []
        self.stacks()
        target = f'{self.address(2)}:{PORT}'
        job, _ = self.lab.start(self.name('server'), *self.server_prefix, 'taskset', '-c', str(self.app_cpus[0]),
                                self.lab.bench, 'serve', target, urgent=True)
        self.measured.append(job)
        for tries in range(30):
            time.sleep(0.1)
            try:
                self.client('rr', '-d', '0.05')
                return
            except Failure as e:
                last = e
                if job.poll() is not None:
                    break
        raise Failure(f'{self.text}: the server does not answer: {last}{last_words(job)}')

    def down(self):
        for job in reversed(self.measured):
            self.lab.stop(job)
        self.measured = []

    def daemon(self, part, cpu, prefix, vdev, side, *options):
        job, words = self.lab.daemon(self.name(part), cpu, prefix, vdev, '--', '--address', f'{self.address(side)}/24', *options)
        self.measured.append(job)
        return words

    def client(self, *args):
        """Returns isobench's results. Bounded: the duration is in args."""
        role, *options = args
        out = run(*self.client_prefix, 'taskset', '-c', str(self.app_cpus[1]), self.lab.bench, role,
                  f'{self.address(2)}:{PORT}', *options, '--json', timeout=30, urgent=True)
        return json.loads(out)

    def cpu_ns(self):
        """CPU time that the processes of the server's side and all stacks have used."""
        return sum(task_ns(job.pid) for job in self.measured)


class Kernel(Variant):
    number = 1
    text = 'kernel, veth'

    def wires(self):
        server, client = self.lab.namespace(self.name('s')), self.lab.namespace(self.name('c'))
        self.lab.veth(server, 'ends', client, 'endc')
        run('ip', '-n', server, 'addr', 'add', f'{self.address(2)}/24', 'dev', 'ends')
        run('ip', '-n', client, 'addr', 'add', f'{self.address(1)}/24', 'dev', 'endc')
        self.server_prefix = ['ip', 'netns', 'exec', server]
        self.client_prefix = ['ip', 'netns', 'exec', client]


class Plain(Kernel):
    """Frames as a wire carries them: without it, 64 KB pass by reference and nothing is summed."""
    number = 2
    text = 'kernel, veth, no offload'

    def wires(self):
        super().wires()
        for prefix, name in ((self.server_prefix, 'ends'), (self.client_prefix, 'endc')):
            run(*prefix, 'ethtool', '-K', name, 'tx', 'off', 'tso', 'off', 'gso', 'off', 'gro', 'off')


class Tap(Variant):
    number = 3
    text = 'stack, net_tap, kernel client'

    def wires(self):
        ns = self.lab.namespace(self.name('c'))
        self.client_prefix = ['ip', 'netns', 'exec', ns]

    def stacks(self):
        # The tap appears where the daemon lives; its kernel side is the client's interface.
        self.server_prefix = self.daemon('d', self.lab.cpus[0], self.client_prefix, 'net_tap0,iface=wire', 2)
        run(*self.client_prefix, 'ip', 'addr', 'add', f'{self.address(1)}/24', 'dev', 'wire')
        run(*self.client_prefix, 'ip', 'link', 'set', 'wire', 'up')


class Packet(Variant):
    number = 4
    text = 'stack, net_af_packet, kernel client'
    offloads = False  # the client's

    def wires(self):
        server, client = self.lab.namespace(self.name('s')), self.lab.namespace(self.name('c'))
        self.lab.veth(server, 'ends', client, 'endc')
        run('ip', '-n', client, 'addr', 'add', f'{self.address(1)}/24', 'dev', 'endc')
        # A packet socket sees what the kernel left to an offload: sums that are not there, and 64 KB frames.
        if not self.offloads:
            run('ip', 'netns', 'exec', client, 'ethtool', '-K', 'endc', 'tx', 'off')
        self.stack_prefix = ['ip', 'netns', 'exec', server]
        self.client_prefix = ['ip', 'netns', 'exec', client]

    def stacks(self):
        self.server_prefix = self.daemon('d', self.lab.cpus[0], self.stack_prefix, 'net_af_packet0,iface=ends', 2)


class Wire(Packet):
    """The same veth by the stack's own packet wire, which leaves sums and segments to the kernel, as the kernel's own ends do."""
    number = 7
    text = 'stack, packet wire, kernel client'
    offloads = True

    def stacks(self):
        self.server_prefix = self.daemon('d', self.lab.cpus[0], self.stack_prefix, None, 2, '--port', 'packet,interface=ends')


class Memif(Variant):
    number = 5
    text = 'stack, net_memif, stack client'

    def stacks(self):
        path = os.path.join(self.lab.tmp, self.name('wire'))
        vdev = f'net_memif0,socket={path},socket-abstract=no,role='
        self.server_prefix = self.daemon('d', self.lab.cpus[0], [], vdev + 'server', 2)
        self.client_prefix = self.daemon('p', self.lab.cpus[1], [], vdev + 'client', 1)


class Crossed(Memif):
    """Each application is on the other CPU than its stack."""
    number = 6
    text = 'stack, net_memif, applications crossed'

    def __init__(self, lab):
        super().__init__(lab)
        self.app_cpus = lab.cpus[::-1]


VARIANTS = {'kernel': Kernel, 'plain': Plain, 'tap': Tap, 'packet': Packet, 'wire': Wire, 'memif': Memif, 'crossed': Crossed}


def measure(variant, workload, seconds):
    """One run; returns a row. After one that fails the variant is started afresh."""
    cpu_ns = variant.cpu_ns()
    try:
        result = variant.client(*WORKLOADS[workload], '-d', str(seconds))
    except (Failure, json.JSONDecodeError):
        variant.down()
        variant.up()
        raise
    cpu_ns = variant.cpu_ns() - cpu_ns + sum(result['cpu_s']) * 1e9
    latency = result['latency_us'] or {}
    return {'messages_per_s': result['messages_per_s'], 'gbit_per_s': result['bytes_per_s'] * 8 / 1e9,
            'p50_us': latency.get('p50'), 'p99_us': latency.get('p99'), 'errors': result['errors'],
            'cpu_us_per_message': cpu_ns / 1e3 / max(result['messages'], 1)}


def ratios(rows, reference, key):
    """This variant's figure over the kernel's, in each round in which both were measured at the same distance."""
    found = {}
    for row in rows:
        for ref in reference:
            alike = row['round'] == ref['round'] and row['distance'] == ref['distance'] and row['valid'] and ref['valid']
            if alike and row.get(key) and ref.get(key):
                found.setdefault(row['distance'], []).append(row[key] / ref[key])
    return found


def cell(value, form):
    return '-' if value is None else format(value, form)


def table(rows):
    lines = ['| workload | variant | runs | messages/s | Gb/s | p50 us | p99 us | CPU us/message | rate : kernel | p50 : kernel |',
             '| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |']
    for workload in dict.fromkeys(r['workload'] for r in rows):
        of_workload = [r for r in rows if r['workload'] == workload]
        kernel = [r for r in of_workload if r['variant'] == Kernel.text]
        for variant in dict.fromkeys(r['variant'] for r in of_workload):
            mine = [r for r in of_workload if r['variant'] == variant]
            good = [r for r in mine if r['valid']]
            failed = sum('error' in r for r in mine)
            runs = f'{len(good)} of {len(mine)}' + (f', {failed} failed' if failed else '')
            words = []
            for key in ('messages_per_s', 'p50_us'):
                by_label = ratios(good, kernel, key)
                words.append(times(by_label))
            columns = [cell(median([r.get(k) for r in good]), f) for k, f in
                       (('messages_per_s', '.0f'), ('gbit_per_s', '.2f'), ('p50_us', '.1f'), ('p99_us', '.1f'),
                        ('cpu_us_per_message', '.2f'))]
            lines.append(f'| {workload} | {variant} | {runs} | ' + ' | '.join(columns + words) + ' |')
    return '\n'.join(lines)


COLUMNS = ['round', 'workload', 'variant', *OBSERVED, 'messages_per_s', 'gbit_per_s', 'p50_us', 'p99_us', 'cpu_us_per_message', 'errors', 'error']


def compare(lab, args, write):
    variants = [VARIANTS[v](lab) for v in args.variants]
    for variant in variants:
        variant.wires()
        variant.up()
    rows = []
    end = time.monotonic() + args.limit
    for number in range(args.rounds):
        for workload in args.workloads:
            for variant in variants:
                if time.monotonic() > end:
                    print(f'stopped after {args.limit:.0f} s', file=sys.stderr)
                    return rows
                lab.run_only(variant.measured)
                row = observe(lab, lambda: measure(variant, workload, args.seconds), args.patience)
                row.update(variant=variant.text, workload=workload, round=number)
                rows.append(row)
                write(row)
                print(f"round {number} {workload} {variant.text}: " +
                      (row['error'] if 'error' in row else f"{row['messages_per_s']:.0f}/s {row['gbit_per_s']:.2f} Gb/s") +
                      f" ({circumstances(row)})", file=sys.stderr)
    return rows


def named(text, known):
    names = text.split(',')
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(known)}")
    return names


def main():
    parser = arguments(__doc__)
    parser.add_argument('--limit', type=at_least(1), default=3600, help='begin no run after so many seconds (3600)')
    parser.add_argument('--variants', type=lambda t: named(t, VARIANTS), default=list(VARIANTS), help=','.join(VARIANTS))
    parser.add_argument('--workloads', type=lambda t: named(t, WORKLOADS), default=list(WORKLOADS), help=','.join(WORKLOADS))
    args = parser.parse_args()
    if told(args.doc, COLUMNS, table):
        return
    with laboratory(args) as lab, rows_file(args.csv, COLUMNS) as write:
        rows = compare(lab, args, write)
    print(table(rows))


if __name__ == '__main__':
    main()
