#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Fill in the table of marks: two stacks inside isobench, joined by net_memif, beside the kernel over a veth without offloads, on the same two CPUs.

In each round every workload runs on every variant: the kernel, the kernel with both ends polling, the pair; one connection also on the kernel with both ends on one CPU. A mark is a ratio, taken inside a round between two runs that others did
not disturb and that saw the CPUs at the same distance; the table shows the medians, with the least and the most, and how many rounds they rest on. `--apart` keeps rounds with near, far and crowded CPUs in
tables of their own. `--doc FILE` measures nothing and makes the table of a CSV file that an earlier run wrote. Needs root (namespaces, veth) and builds nothing; the programs are expected in --build.
"""
import sys

import idle
from compare import Memif
from lab import DISTANCES, OBSERVED, Failure, arguments, at_least, chosen, circumstances, comparable, laboratory, median, observe, report, rows_file, run, times, told, wait_for

SERVER, CLIENT, PORT = '10.78.0.2', '10.78.0.1', 7000
MTU = 1500
# name: (isobench's words, MTU)
WORKLOADS = {
    'rr1': (['rr', '-c', '1', '-s', '64'], MTU),
    'rr64': (['rr', '-c', '64', '-s', '64'], MTU),
    'rr256': (['rr', '-c', '256', '-s', '64'], MTU),
    'rr16384': (['rr', '-c', '16384', '-s', '64'], MTU),
    'msg128': (['tx', '-c', '128', '-s', '64'], MTU),
    'tx1': (['tx', '-c', '1', '-s', '64k'], MTU),
    'rx1': (['rx', '-c', '1', '-s', '64k'], MTU),
    'tx1-9000': (['tx', '-c', '1', '-s', '64k'], 9000),
    'crr64': (['crr', '-c', '64', '-s', '64'], MTU),
    'rr64-preloaded': (['rr', '-c', '64', '-s', '64'], MTU),
    # The pair's wire without a stack, one direction: frames of so many bytes.
    'bare-64': (64, None),
    'bare-1500': (1514, MTU),
    'bare-9000': (9014, 9000),
}
# (workload, what is compared, of which variant or workload, how many times at least, in words)
MARKS = [
    ('rr1', 'p50', 'kernel', 12, 'request/response 64 B, 1 connection: p50 at most 1/12 of the kernel'),
    ('rr1', 'p99', 'kernel', 12, 'the same: p99'),
    ('rr1', 'p50', 'spin', 3, 'the same: p50 at most 1/3 of the kernel, spinning'),
    ('rr1', 'p50', 'one-cpu', None, 'for comparison: p50 beside the kernel with both ends on one CPU, which need not wake another'),
    ('rr64', 'rate', 'kernel', 10, '64 connections: at least 10 x the kernel'),
    ('rr256', 'rate', 'kernel', 10, '256 connections: at least 10 x the kernel'),
    ('rr16384', 'rate', 'rr64', 0.9, '16,384 connections: at least 90% of the rate with 64'),
    ('msg128', 'rate', 'kernel', 11, 'stream of 64 B messages, 128 connections: at least 11 x the kernel'),
    ('tx1', 'gbits', 'kernel', 3.4, 'bulk, 1 connection, MTU 1500: at least 3.4 x the kernel'),
    ('rx1', 'gbits', 'kernel', 3.4, 'bulk from the server: at least 3.4 x the kernel'),
    ('tx1-9000', 'gbits', 'kernel', 2, 'bulk, MTU 9000: at least 2 x the kernel'),
    ('tx1-9000', 'gbits', 'bare-9000', 0.5, 'bulk, MTU 9000: at least half of what the wire alone carries (payload to frames)'),
    ('tx1', 'gbits', 'bare-1500', None, 'for comparison: bulk, MTU 1500, of what the wire alone carries'),
    ('crr64', 'rate', 'kernel', 10, 'connect, request, close, 64 connections: at least 10 x the kernel'),
    ('rr64-preloaded', 'rate', 'kernel', 2, 'isobench preloaded, two daemons, 64 connections: at least 2 x the kernel'),
]


def pair(lab, words, mtu, seconds):
    """isobench's results of two stacks in a process."""
    mtu_words = ['--mtu', str(mtu)] if mtu != MTU else []
    return report(lab.app('isobench/isobench-embedded'), 'pair', '--cpus', ','.join(str(cpu) for cpu in lab.cpus), *mtu_words, *words, '-d', str(seconds), '--json',
                  timeout=seconds + 90)


def figures(results, what):
    """What a row has of isobench's results."""
    latency = results.get('latency_us') or {}
    if results['messages_per_s'] == 0:
        raise Failure(f'{what}: not one message')
    return {'rate': results['messages_per_s'], 'gbits': results['bytes_per_s'] * 8 / 1e9, 'p50': latency.get('p50'), 'p99': latency.get('p99')}


class Marks:
    def __init__(self, lab, seconds):
        self.lab, self.seconds = lab, seconds
        self.server, self.client = lab.namespace('s'), lab.namespace('c')
        lab.veth(self.server, 'v0', self.client, 'v0')
        for ns, address in ((self.server, SERVER), (self.client, CLIENT)):
            run('ip', '-n', ns, 'address', 'add', f'{address}/24', 'dev', 'v0')
            run('ip', 'netns', 'exec', ns, 'ethtool', '-K', 'v0', 'tso', 'off', 'gso', 'off', 'gro', 'off')

    def listens(self):
        return f':{PORT}' in run('ip', 'netns', 'exec', self.server, 'ss', '-Hltn')

    def kernel(self, words, mtu, cpus, extra):
        for ns in (self.server, self.client):
            run('ip', '-n', ns, 'link', 'set', 'v0', 'mtu', str(mtu))
        server_cpu, client_cpu = cpus
        job, _ = self.lab.start('serve', 'ip', 'netns', 'exec', self.server, self.lab.bench, 'serve', f'{SERVER}:{PORT}', '--pin', str(server_cpu), *extra,
                                urgent=True)
        try:
            wait_for('isobench serve', self.listens, job)
            return report('ip', 'netns', 'exec', self.client, self.lab.bench, words[0], f'{SERVER}:{PORT}', *words[1:], '--pin', str(client_cpu), *extra,
                          '-d', str(self.seconds), '--json', timeout=self.seconds + 90)
        finally:
            self.lab.stop(job)

    def daemons(self, words):
        """Preloaded programs, each with its stack's daemon on one CPU; started for this run alone, since they would take time from others."""
        memif = Memif(self.lab)
        try:
            memif.up()
            return memif.client(*words, '-d', str(self.seconds))
        finally:
            memif.down()

    def bare(self, frame_bytes):
        """Rate and Gb/s of the wire alone."""
        rate = float(run(self.lab.app('isobench/bench-bare'), *(str(cpu) for cpu in self.lab.cpus[:2]), str(frame_bytes), str(self.seconds),
                         timeout=2 * self.seconds + 30, urgent=True))
        return {'rate': rate, 'gbits': rate * frame_bytes * 8 / 1e9}

    def run(self, workload, variant):
        words, mtu = WORKLOADS[workload]
        if variant == 'wire':
            return self.bare(words)
        if variant == 'daemons':
            results = self.daemons(words)
        elif variant == 'pair':
            results = pair(self.lab, words, mtu, self.seconds)
        else:
            cpus = self.lab.cpus[:1] * 2 if variant == 'one-cpu' else self.lab.cpus[:2]
            results = self.kernel(words, mtu, cpus, ['--spin'] if variant == 'spin' else [])
        return figures(results, f'{workload} on {variant}')


COLUMNS = ['round', 'workload', 'variant', *OBSERVED, 'rate', 'gbits', 'p50', 'p99', 'error']


def variants(workload):
    """The last one is what is to be better than the others."""
    if workload.startswith('bare-'):
        return ['wire']
    if workload.endswith('-preloaded'):
        return ['kernel', 'daemons']
    return ['kernel', *(['one-cpu'] if workload == 'rr1' else []), 'spin', 'pair']


def ratio(ours, theirs, what):
    """How many times better; None if it cannot be told."""
    if not (ours and theirs and ours['valid'] and theirs['valid'] and ours['distance'] == theirs['distance']):
        return None
    if ours.get(what) is None or theirs.get(what) is None:
        return None
    return theirs[what] / ours[what] if what.startswith('p') else ours[what] / theirs[what]


def shown(row, what):
    if not row or row.get(what) is None:
        return '-'
    if what.startswith('p'):
        return f'{row[what]:.2f} us'
    if what == 'gbits':
        return f'{row["gbits"]:.1f} Gb/s'
    return f'{row["rate"] / 1e6:.2f} M/s' if row['rate'] >= 1e6 else f'{row["rate"] / 1e3:.0f} k/s'


def middle(rounds, workload, variant):
    """Of the runs with near CPUs where there are some: with far or crowded ones these are another machine."""
    rows = [r[workload, variant] for r in rounds if r.get((workload, variant), {}).get('valid')]
    if not rows:
        return None
    rows = comparable(rows)
    return {key: median(row.get(key) for row in rows) for key in ('rate', 'gbits', 'p50', 'p99')}


def verdict(medians, least):
    """medians: of the ratios, by distance."""
    if not medians:
        return 'not measured undisturbed'
    if least is None:
        return ''
    words = {distance: 'reached' if value >= least else '**missed**' for distance, value in medians.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ', '.join(f'{word} {distance}' for distance, word in words.items())


HEAD = '| mark | reached with | compared with | times | rounds | |\n| --- | --- | --- | --- | --- | --- |'


def line(rounds, ours, beside, what, least, words):
    """A line of the table: two pairs of workload and variant compared, round by round."""
    found = {}
    for r in rounds:
        value = ratio(r.get(ours), r.get(beside), what)
        if value is not None:
            found.setdefault(r[ours]['distance'], []).append(value)
    medians = {distance: median(found[distance]) for distance in DISTANCES if distance in found}
    return (f'| {words} | {shown(middle(rounds, *ours), what)} | {shown(middle(rounds, *beside), what)} | {times(found)} '
            f'| {sum(len(v) for v in found.values())} of {len(rounds)} | {verdict(medians, least)} |')


def table(rounds, workloads):
    """rounds: [{(workload, variant): row}]."""
    lines = [HEAD]
    for workload, what, other, least, words in MARKS:
        if workload not in workloads:
            continue
        beside = (other, variants(other)[-1]) if other in WORKLOADS else (workload, other)
        lines.append(line(rounds, (workload, variants(workload)[-1]), beside, what, least, words))
    for workload in workloads:
        if workload.startswith('bare-'):
            row = middle(rounds, workload, 'wire')
            lines.append(f'| the wire alone, frames of {WORKLOADS[workload][0]} B | ' + (f'{row["rate"] / 1e6:.1f} M/s, {row["gbits"]:.1f} Gb/s' if row else '-') + ' | | | | |')
    return '\n'.join(lines)


def rounds_of(rows):
    """Rows of the CSV file as the table wants them."""
    rounds = {}
    for row in rows:
        rounds.setdefault(row['round'], {})[row['workload'], row['variant']] = row
    return [rounds[number] for number in sorted(rounds)]


def text(rounds, workloads, apart):
    if not apart:
        return table(rounds, workloads)
    return '\n\n'.join(f'{distance}:\n\n' + table([{k: v for k, v in r.items() if v['distance'] == distance} for r in rounds], workloads) for distance in DISTANCES)


def measure(args, lab, write, work, variants_of):
    """Each round, each workload, each of its variants by work(workload, variant)."""
    rows = []
    for number in range(args.rounds):
        for workload in args.workloads:
            for variant in variants_of(workload):
                row = observe(lab, lambda: work(workload, variant), args.patience)
                row.update(round=number + 1, workload=workload, variant=variant)
                rows.append(row)
                write(row)
                words = row.get('error') or f'{row["rate"]:.0f}/s {row["gbits"]:.2f} Gb/s p50 {row.get("p50")}'
                print(f'{number + 1} {workload:14} {variant:8} {words} ({circumstances(row)})', file=sys.stderr)
    return rows


def needed(workloads):
    """With those that others are compared with."""
    others = [other for name, _, other, *_ in MARKS if name in workloads and other in WORKLOADS]
    return [name for name in WORKLOADS if name in {*workloads, *others}]


def main():
    parser = arguments(__doc__, rounds=5, patience=20)
    parser.add_argument('--apart', action='store_true', help='near, far and crowded CPUs in tables of their own')
    parser.add_argument('--idle', type=at_least(idle.LEAST, int), metavar='N', help='measure the memory of N idle connections too')
    parser.add_argument('workloads', nargs='*', help=f'of {", ".join(WORKLOADS)} (all)')
    args = parser.parse_args()
    args.workloads = needed(chosen(parser, args.workloads, WORKLOADS, 'workload'))
    if told(args.doc, COLUMNS, lambda rows: text(rounds_of(rows), args.workloads, args.apart)):
        return
    with laboratory(args) as lab:
        with rows_file(args.csv, COLUMNS) as write:
            rows = measure(args, lab, write, Marks(lab, args.seconds).run, variants)
        print(text(rounds_of(rows), args.workloads, args.apart))
        if args.idle:
            print(f'\nan idle connection, of {args.idle}:\n{idle.table(idle.measure(lab, args.idle))}')


if __name__ == '__main__':
    main()
