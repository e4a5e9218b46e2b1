#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tell where the time of a mark goes: nanoseconds of each CPU for each request, segment, message or connection of two stacks joined by net_memif, layer by layer.

The pair runs as for marks.py, sampled by perf on a timer (cpu-clock, which needs no hardware counters). A sample counts for the layer whose source its innermost function of this project comes from, inlined and
joined across files or not, by the build's debug information; buffer handling of DPDK's headers counts as DPDK's. A layer's share of its CPU's samples, times the time that the run took for a unit, is its
line's entry; the columns add up to the whole. What waits for a line of the other CPU's is charged to who waits. `--doc FILE` measures nothing and makes the table of a CSV file that an earlier run wrote. Needs
root, perf and addr2line.
"""
import collections
import os
import re
import subprocess
import sys

import marks
from flame import plain
from lab import OBSERVED, Failure, arguments, chosen, circumstances, laboratory, median, observe, report, rows_file, run, told

HERTZ = 3997  # beside the timers of the kernel
# workload of marks.py: what a unit is, and its bytes where it is not a message
UNITS = {
    'rr1': ('request', None),
    'rr64': ('request', None),
    'rr256': ('request', None),
    'rr16384': ('request', None),
    'msg128': ('message', None),
    'tx1': ('segment', 1448),
    'tx1-9000': ('segment', 8948),
    'crr64': ('connection', None),
}
MARGIN = 0.05  # of a run: its begin and its end are the setting up and the end of others
# The first that a file's name matches; DPDK's headers are inlined into all layers, and only those that own what they touch count for themselves.
SOURCES = [(re.compile(pattern), layer) for pattern, layer in (
    (r'(^|/)rte_(mempool|mbuf|ring|pktmbuf)[a-z0-9_]*\.h$', 'DPDK'),
    (r'/src/ip/sum\.[ch]$', 'sums'),
    (r'/src/core/clock\.[ch]$', 'clock'),
    (r'/src/tcp/', 'TCP'),
    (r'/src/ip/', 'IP'),
    (r'/src/core/', 'core'),
    (r'/src/sockets/client/|/apps/embedded/', 'front-end'),
    (r'/src/sockets/', 'sockets'),
    (r'/src/modes/', 'mode'),
    (r'/apps/isobench/', 'isobench'),
)]
LAYERS = ('isobench', 'front-end', 'sockets', 'mode', 'TCP', 'IP', 'sums', 'core', 'DPDK', 'driver', 'copies', 'clock', 'other', 'kernel')
COLUMNS = ['round', 'workload', 'end', *OBSERVED, 'all', *LAYERS, 'error']
ENDS = ('server', 'client')
SAMPLE = re.compile(r'\s*(\d+) \[(\d+)\]\s+([0-9.]+):\s+([0-9a-f]+) (.*) \((.*)\)$')
MAPPED = re.compile(r'PERF_RECORD_MMAP2 .*\[0x([0-9a-f]+)\(0x[0-9a-f]+\) @ (?:0x)?([0-9a-f]+) .*\]: r-xp (\S+)$')


def record(lab, workload, seconds):
    """perf's file and isobench's results of a run of the pair."""
    words, mtu = marks.WORKLOADS[workload]
    data = os.path.join(lab.tmp, 'perf.data')
    program = lab.app('isobench/isobench-embedded')
    results = report('perf', 'record', '-q', '-e', 'cpu-clock', '-F', str(HERTZ), '--sample-cpu', '-o', data, program, 'pair', '--cpus', ','.join(str(cpu) for cpu in lab.cpus),
                     '--mtu', str(mtu), *words, '-d', str(seconds), '--json', timeout=seconds + 90)
    return program, data, results


def samples(data, program):
    """Lists of (seconds, address in the program's file or None, function, object) for each thread: {(CPU, thread): list}."""
    base, found = 0, collections.defaultdict(list)
    text = run('perf', 'script', '-i', data, '-F', 'tid,cpu,time,ip,sym,dso', '--show-mmap-events', timeout=120)
    for line in text.splitlines():
        mapped = MAPPED.search(line)
        if mapped and mapped[3] == program:
            base = int(mapped[1], 16) - int(mapped[2], 16)
            continue
        sample = SAMPLE.match(line)
        if sample:
            thread, cpu, seconds, address, function, obj = sample.groups()
            found[int(cpu), thread].append((float(seconds), int(address, 16) - base if obj == program else None, function, obj))
    return found


def during(found, cpus, seconds):
    """For each end the samples of its CPU's busiest thread, those of the run alone: the thread of one end ends with it, the other's when all connections have."""
    busiest = [max((taken for (where, _), taken in found.items() if where == cpu), key=len, default=[]) for cpu in cpus]
    if not all(busiest):
        raise Failure('no samples of one of the ends')
    end = min(taken[-1][0] for taken in busiest)
    both = [[sample[1:] for sample in taken if end - (1 - MARGIN) * seconds < sample[0] < end - MARGIN * seconds] for taken in busiest]
    if min(map(len, both)) < 0.5 * HERTZ * (1 - 2 * MARGIN) * seconds:
        raise Failure('too few samples of one of the ends while the run lasted')
    return both


def layer_of_files(files):
    """files: of an address' functions, the innermost first."""
    for name in files:
        for pattern, layer in SOURCES:
            if pattern.search(name):
                return layer
    return 'other'


def layers_of(program, addresses):
    """Address -> layer."""
    done = subprocess.run(['addr2line', '-a', '-f', '-i', '-e', program], input='\n'.join(f'{a:x}' for a in addresses), capture_output=True, text=True, check=True, timeout=300)
    layers, address, lines = {}, None, []
    for line in [*done.stdout.splitlines(), '0x0']:
        if line.startswith('0x'):
            if address is not None:
                layers[address] = layer_of_files([re.sub(r':[^:]*$', '', name) for name in lines[1::2]])
            address, lines = int(line, 16), []
        else:
            lines.append(line)
    return layers


def layer_of(function, obj):
    """Of what is not in the program's file."""
    if 'vdso' in obj:
        return 'clock'
    if obj.startswith('['):
        return 'kernel'
    if 'librte_net_' in obj:
        return 'driver'
    if 'librte_' in obj:
        return 'DPDK'
    return 'copies' if re.search(r'mem(cpy|move|set|pcpy)', function) else 'other'


def divided(unit_ns, taken, layers):
    """A unit's time by layers."""
    share = collections.Counter(layers[address] if address is not None else layer_of(function, obj) for address, function, obj in taken)
    return {'all': round(unit_ns, 1), **{layer: round(unit_ns * share[layer] / len(taken), 1) for layer in LAYERS}}


def tell_functions(end, unit_ns, taken):
    own = collections.Counter(plain(function) for _, function, _ in taken)
    print(f'  {end}: ' + ', '.join(f'{name} {unit_ns * n / len(taken):.0f}' for name, n in own.most_common(16)), file=sys.stderr)


def measure_once(lab, workload, seconds):
    """{'server': row, 'client': row}."""
    program, data, results = record(lab, workload, seconds)
    _, unit_bytes = UNITS[workload]
    rate = results['bytes_per_s'] / unit_bytes if unit_bytes else results['messages_per_s']
    if rate == 0:
        raise Failure(f'{workload}: not one {UNITS[workload][0]}')
    both = during(samples(data, program), lab.cpus, seconds)
    layers = layers_of(program, sorted({address for taken in both for address, _, _ in taken if address is not None}))
    rows = {}
    for end, taken in zip(ENDS, both):
        rows[end] = divided(1e9 / rate, taken, layers)
        tell_functions(end, 1e9 / rate, taken)
    return rows


def measure(args, lab, write):
    rows = []
    for number in range(args.rounds):
        for workload in args.workloads:
            ends = {}
            row = observe(lab, lambda: ends.update(measure_once(lab, workload, args.seconds)) or {}, args.patience)
            for end in ENDS:
                rows.append({'round': number + 1, 'workload': workload, 'end': end, **row, **ends.get(end, {})})
                write(rows[-1])
            print(f'{number + 1} {workload:10} {row.get("error", "")} ({circumstances(row)})', file=sys.stderr)
    return rows


def table(rows):
    lines = ['| ns | all | ' + ' | '.join(LAYERS) + ' |', '| --- ' * (len(LAYERS) + 2) + '|']
    for workload in dict.fromkeys(row['workload'] for row in rows):
        for end in ENDS:
            these = [row for row in rows if row['workload'] == workload and row['end'] == end and row['valid']]
            if not these:
                continue
            cells = [f'{median(row[layer] for row in these):.0f}' for layer in ('all', *LAYERS)]
            lines.append(f'| {workload}, {UNITS[workload][0]}, {end} | ' + ' | '.join(cell if cell != '0' else '-' for cell in cells) + ' |')
    return '\n'.join(lines)


def main():
    parser = arguments(__doc__, rounds=3, seconds=2.0, patience=5.0)
    parser.add_argument('workloads', nargs='*', help=f'of {", ".join(UNITS)} (all)')
    args = parser.parse_args()
    args.workloads = chosen(parser, args.workloads, UNITS, 'workload')
    if told(args.doc, COLUMNS, table):
        return
    with laboratory(args, root=False) as lab, rows_file(args.csv, COLUMNS) as write:
        rows = measure(args, lab, write)
    print(table(rows))


if __name__ == '__main__':
    main()
