#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure a figure or table of the papers: one command each, CSV and SVG, the paper's own values beside.

usage: figures.py list | quick | FIGURE...

The stack under test is inside isobench, on the sink wire, so that only its own cycles (and the wire's, counted apart) are in a figure; the kernel runs beside it in the same rounds,
over a veth, with its peer on the same CPUs, since there is no wire that answers behind the kernel. `pair` is this stack under the same burden as the kernel: both ends here, one on each
of the first two CPUs, over a wire that copies. Rounds are interleaved (for each round, for each place on the axis: each series), the distance of the CPUs is probed before and
after every run, and a run that others disturbed is repeated. Needs root for the kernel's namespaces.
"""
import csv
import os
import shutil
import sys
import time

from lab import HERE, OBSERVED, Failure, arguments, at_distance, at_least, circumstances, common_distance, comparable, laboratory, median, observe, report, rows_file, run, threads_ns
from paper import Paper
from svg import Panel, chart

PORT = 7000
PICTURES = 'figures'  # beside the page
SINK = '10.9.0.2'
CONNECTIONS = [6, 24, 96, 192, 384, 768, 1536, 3072, 6144, 12288, 16384]
SIZES = [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
TX_SIZE = '64k'
BUFFERS = ('sndbuf', 'sndbuf-max', 'rcvbuf', 'rcvbuf-max')  # the papers' are of one size, and do not grow

# Locks that all connections share, or a group of them: what table 1 is about. The sink wire's own is not the stack's.
GLOBAL_LOCKS = ('lock.group', 'lock.table')


# ---- ways of carrying bytes -------------------------------------------------------------------------------------------------

class NotAvailable(Failure):
    pass


def pins(cpus):
    return ','.join(str(c) for c in cpus)


class Embedded:
    """The stack inside isobench, in some mode, on the sink wire. Where the calling thread enters the stack, each CPU has one thread; where workers have CPUs of their own,
    `workers` of them stand on the first ones and `threads` of the application on the others, or on the same if there are no others."""

    def __init__(self, figure, mode, threads, workers=0, shared=False):
        self.figure, self.mode, self.threads, self.workers, self.shared = figure, mode, threads, workers, shared

    def places(self, cpus):
        """EAL's lcores, and the application's CPUs."""
        if self.workers == 0:
            return pins(cpus[:self.threads]), cpus[:self.threads]
        app = cpus if self.shared else cpus[self.workers:] or cpus
        return f'0@{app[0]},' + ','.join(f'{i + 1}@{cpus[i % len(cpus)]}' for i in range(self.workers)), app

    def cores(self, cpus):
        return len({*self.places(cpus)[1], *cpus[:self.workers]})

    def configuration(self, lab, lcores):
        path = os.path.join(lab.tmp, 'stack.conf')
        f = self.figure
        with open(path, 'w', encoding='ascii') as out:
            out.write('\n'.join(['[isosock]', f'eal = --lcores {lcores} --no-pci --no-huge -m 1024', 'address = 10.9.0.1/24',
                                 f'port = sink,window={f.buffer},offload={f.offload}', f'mtu = {f.mtu}', f'mode = {self.mode}',
                                 *(f'{option} = {f.buffer}' for option in BUFFERS), 'app-memory = 4095M', 'idle = poll', 'port-min = 1024',
                                 'port-max = 65535', '']))
        return path

    def run(self, lab, seconds, role, *options):
        lcores, app = self.places(lab.cpus)
        path = self.configuration(lab, lcores)
        threads = min(self.threads, int(options[options.index('-c') + 1]))
        try:
            results = report(lab.app('isobench/isobench-embedded'), '--stack', path, role, f'{SINK}:{PORT}', *options, '-t', str(threads),
                      '--pin', pins(app), '-d', str(seconds), '--json', timeout=seconds + 60)
        except Failure as e:
            if ': status 2: ' in str(e):
                raise NotAvailable(str(e).split(': status 2: ')[1]) from None
            raise
        results['cpu_ns'] = sum(results['cpu_s']) * 1e9 + self.workers * results['seconds'] * 1e9
        return results

    def close(self, lab):
        pass


class Pair:
    """Two stacks of mode up, one on each of the first two CPUs, joined by net_memif."""

    def __init__(self, figure):
        self.figure = figure

    def cores(self, cpus):
        return 2

    def run(self, lab, seconds, role, *options):
        results = report(lab.app('isobench/isobench-embedded'), 'pair', '--cpus', f'{lab.cpus[0]},{lab.cpus[1]}', '--mtu', str(self.figure.mtu),
                         *(word for option in BUFFERS for word in (f'--{option}', self.figure.buffer)), role, *options, '-d', str(seconds), '--json', timeout=seconds + 60)
        results['cpu_ns'] = 2 * results['seconds'] * 1e9
        return results

    def close(self, lab):
        pass


class Kernel:
    """The kernel's stack over a veth. Client and server have a thread each on the same `cpus` CPUs; with one thread the client has the second CPU and the server the first, as in `pair`. The
    client may have more threads, not the server: its threads share one listener, and who gets a connection is the kernel's choice, so that their shares of the work are told."""

    number = 0

    def __init__(self, figure, cpus=None, threads=None):
        self.figure, self.nb_cpus, self.nb_threads = figure, cpus, threads
        self.server = None
        self.prefixes = None

    def cores(self, cpus):
        return len(cpus[:self.nb_cpus])

    def wire(self, lab):
        Kernel.number += 1
        self.net = f'10.67.{Kernel.number}'
        self.prefixes = []
        spaces = [lab.namespace(f'k{Kernel.number}{side}') for side in 'sc']
        lab.veth(spaces[0], 'wire', spaces[1], 'wire')
        for ns, host in zip(spaces, (2, 1)):
            inside = ['ip', 'netns', 'exec', ns]
            run(*inside, 'ip', 'link', 'set', 'wire', 'mtu', str(self.figure.mtu))
            run('ip', '-n', ns, 'addr', 'add', f'{self.net}.{host}/24', 'dev', 'wire')
            if self.figure.offload != 'tso':
                run(*inside, 'ethtool', '-K', 'wire', 'tso', 'off', 'gso', 'off', 'gro', 'off')
            for knob in ('tcp_wmem', 'tcp_rmem'):
                run(*inside, 'sysctl', '-qw', f'net.ipv4.{knob}=4096 {self.figure.buffer_bytes()} {self.figure.buffer_bytes()}')
            self.prefixes.append(inside)

    def start(self, lab):
        if self.prefixes is None:
            self.wire(lab)
        cpus = lab.cpus[:self.nb_cpus]
        server, client = (cpus[:1], cpus[1:2]) if self.nb_threads == 1 else (cpus, cpus)
        self.client_pin = pins(client)
        self.threads = self.nb_threads or len(cpus)
        self.server, _ = lab.start('kernel', *self.prefixes[0], lab.bench, 'serve', f'{self.net}.2:{PORT}', '-t', str(len(server)), '--pin', pins(server), urgent=True)
        time.sleep(0.3)

    def run(self, lab, seconds, role, *options):
        if self.server is None:
            self.start(lab)
        threads = min(self.threads, int(options[options.index('-c') + 1]))
        before_ns = threads_ns(self.server.pid)
        try:
            results = report(*self.prefixes[1], lab.bench, role, f'{self.net}.2:{PORT}', *options, '-t', str(threads), '--pin', self.client_pin, '-d',
                             str(seconds), '--json', timeout=seconds + 60)
        except Failure:
            self.close(lab)
            raise
        server_ns = [ns - before_ns.get(task, 0) for task, ns in threads_ns(self.server.pid).items()]
        results['cpu_ns'] = sum(results['cpu_s']) * 1e9 + sum(server_ns)
        results['busiest_thread'] = max(server_ns) / max(sum(server_ns), 1)
        return results

    def close(self, lab):
        if self.server is not None:
            lab.stop(self.server)
            self.server = None


# ---- what is read off a run -------------------------------------------------------------------------------------------------

def counter(results, name):
    return results['stack']['total'].get(name, 0) if results.get('stack') else None


def kilobytes(results):
    return results['bytes'] / 1024


def per_kb(results, count):
    return None if count is None or not results['bytes'] else count / kilobytes(results)


def contended(results):
    """Share of acquisitions of global locks that found the lock taken."""
    if not results.get('stack'):
        return None
    taken = sum(counter(results, f'{lock}.acquired') for lock in GLOBAL_LOCKS)
    return 100 * sum(counter(results, f'{lock}.contended') for lock in GLOBAL_LOCKS) / taken if taken else None


def lock_waits(results):
    """Cycles spent in waiting for locks of the stack."""
    return sum(v for k, v in results['stack']['total'].items() if k.startswith('lock.') and k.endswith('.wait_cycles') and not k.startswith('lock.sink'))


def handover_cycles(results):
    """Cycles spent in handing over, and in waiting for locks of the stack: this stack's counterpart of a scheduler."""
    return per_kb(results, counter(results, 'handover.cycles') + lock_waits(results)) if results.get('stack') else None


METRICS = {
    'mbit_per_s': ('Mb/s', lambda r, cpus: r['bytes_per_s'] * 8 / 1e6),
    'messages_per_s': ('messages/s', lambda r, cpus: r['messages_per_s']),
    'p50_us': ('median latency, us', lambda r, cpus: (r['latency_us'] or {}).get('p50')),
    'cpu_percent': ('CPU, % of all', lambda r, cpus: 100 * r['cpu_ns'] / (r['seconds'] * 1e9 * cpus) if r['seconds'] else None),
    'contended_percent': ('contended, %', lambda r, cpus: contended(r)),
    'misses_per_kb': ('L2 misses/KB', lambda r, cpus: (r['l2_misses'] or {}).get('per_kb')),
    'handover_cycles_per_kb': ('cycles/KB', lambda r, cpus: handover_cycles(r)),
    'switches_per_mb': ('context switches/MB', lambda r, cpus: per_kb(r, 1024 * r['switches'])),
    'sink_cycles_per_kb': ('cycles/KB in the wire', lambda r, cpus: per_kb(r, counter(r, 'sink.cycles'))),
}


# ---- figures ----------------------------------------------------------------------------------------------------------------

class Figure:
    """series: {name: (way of carrying bytes, of x and this figure; the arguments of isobench, of x)}."""

    mtu, offload, buffer = 1500, 'csum', '256k'

    def __init__(self, title, x_label, xs, quick, metrics, **settings):
        self.title, self.x_label, self.xs, self.quick, self.metrics = title, x_label, xs, quick, metrics
        self.notes = []
        self.__dict__.update(settings)

    def buffer_bytes(self):
        return int(self.buffer[:-1]) * 1024

    def series(self, cpus):
        raise NotImplementedError


def groups(n):
    """As in the paper a packet takes its group's lock by itself."""
    return f'connp-l,groups={n},batch=off'


class Parallel(Figure):
    """Section 4 of the paper on parallel stacks: sending, 256 KB buffers, MTU 1500, no segmentation offload, one thread for each CPU."""

    organisations = ()

    def organisation(self, name, cpus):
        """The way of carrying bytes that a name stands for."""
        head, _, rest = name.partition('(')
        if name.startswith('kernel'):
            return Kernel(self, cpus=1 if '1 CPU' in name else None)
        if name == 'pair':
            return Pair(self)
        if head == 'connp-t':
            return Embedded(self, 'connp-t,steer=port', cpus, workers=cpus, shared=True)
        if head == 'connp-l':
            return Embedded(self, groups(rest[:-1] or 128), cpus)
        if head == 'isostack':
            return Embedded(self, head, 1, workers=1)
        if head == 'misd':
            return Embedded(self, head, cpus, workers=cpus, shared=True)
        return Embedded(self, head, 1 if head == 'up' else cpus)

    def series(self, cpus):
        def sending(connections):
            return 'tx', '-c', str(connections), '-s', TX_SIZE

        return {name: (lambda x, way=self.organisation(name, cpus): way, sending) for name in self.organisations}


class Groups(Parallel):
    """The number of groups is on the axis, a series is a number of connections."""

    def series(self, cpus):
        def line(connections):
            return (lambda x: Embedded(self, groups(x), cpus)), (lambda x: ('tx', '-c', str(connections), '-s', TX_SIZE))

        return {f'{c} connections': line(c) for c in (6, 192, 16384)}


class Iso(Figure):
    """Section 5 of the paper on the IsoStack: MTU 9000, offloads on. arguments: of isobench, for a place on the axis."""

    mtu, offload, buffer = 9000, 'tso', '512k'
    modes = {'isostack': 'isostack'}
    threads = 1

    def series(self, cpus):
        ways = {name: Embedded(self, mode, self.threads, workers=1) for name, mode in self.modes.items()}
        ways['kernel'] = Kernel(self, threads=self.threads)
        if self.threads == 1:
            ways['pair'] = Pair(self)
        return {name: (lambda x, way=way: way, self.arguments) for name, way in ways.items()}


VARIANTS = {
    'iso-basic': 'isostack,queues=perthread,aggregate=off',
    'iso-aggregated': 'isostack,queues=perthread,aggregate=on',
    'iso-kernel-queues': 'isostack,queues=percpu,aggregate=on',
}
FEW = [1, 2, 4, 8, 16, 32, 64, 128]
THREADED = 'As in the paper each connection has a thread of its own, up to 64.'


def requests(connections):
    return 'rr', '-c', str(connections), '-s', '1k'


def small_messages(connections):
    return 'tx', '-c', str(connections), '-s', '64'


FIGURES = {
    'parallel/fig2': Parallel('Throughput of the organisations', 'connections', CONNECTIONS, [6, 192, 16384], ['mbit_per_s', 'sink_cycles_per_kb'],
                              organisations=('up', 'msgp', 'connp-t', 'connp-l(128)', 'kernel', 'pair')),
    'parallel/fig3': Parallel('UP and MsgP beside the kernel', 'connections', CONNECTIONS, [6, 192], ['mbit_per_s'],
                              organisations=('up', 'msgp', 'kernel, 1 CPU', 'kernel')),
    'parallel/table1': Parallel('Acquisitions of global locks that do not succeed at once', 'connections', [6, 192, 16384], [6, 192],
                                ['contended_percent'], organisations=('msgp', *(f'connp-l({n})' for n in (4, 8, 16, 32, 64, 128)))),
    'parallel/fig5': Groups('Throughput over the number of groups', 'groups', [4, 8, 16, 32, 64, 128], [4, 128], ['mbit_per_s', 'contended_percent']),
    'parallel/table2': Parallel('L2 misses for each KB sent', 'connections', [6, 192, 16384], [6, 192], ['misses_per_kb'],
                                organisations=('up', 'msgp', 'connp-t', 'connp-l(128)')),
    'parallel/table3': Parallel('Cycles of hand-over and of waiting for locks for each KB sent', 'connections', [6, 192, 16384], [6, 192],
                                ['handover_cycles_per_kb', 'switches_per_mb'], organisations=('up', 'msgp', 'connp-t', 'connp-l(128)')),
    'modes/tx': Parallel('All modes, sending', 'connections', [1, 6, 192, 1536], [1, 192], ['mbit_per_s', 'sink_cycles_per_kb'],
                         organisations=('up', 'msgp', 'connp-t', 'connp-l(128)', 'isostack', 'misd', 'kernel', 'pair'),
                         notes=['No figure of a paper: the systems of all three, under one load.']),
    'isostack/fig4': Iso('Receiving, 64 connections', 'message size', SIZES, [64, 16384], ['mbit_per_s', 'cpu_percent'],
                         arguments=lambda size: ('rx', '-c', '64', '-s', str(size))),
    'isostack/fig5': Iso('Transmitting, 128 connections', 'message size', SIZES, [64, 16384], ['mbit_per_s', 'cpu_percent'],
                         arguments=lambda size: ('tx', '-c', '128', '-s', str(size))),
    'isostack/fig6': Iso('Request and response, one connection', 'message size', SIZES, [64, 16384], ['messages_per_s', 'p50_us', 'cpu_percent'],
                         arguments=lambda size: ('rr', '-c', '1', '-s', str(size))),
    'isostack/fig7': Iso('Request and response, 1 KB', 'connections', FEW, [1, 64], ['messages_per_s', 'cpu_percent'], arguments=requests),
    'isostack/fig8': Iso('Redundant locks, transmitting 64-byte messages', 'connections', FEW, [8, 64], ['mbit_per_s', 'cpu_percent'],
                         arguments=small_messages, modes={'isostack': 'isostack', 'iso-lock': 'isostack,locks=on'}),
    'isostack/fig9': Iso('Variants, transmitting 64-byte messages', 'connections', FEW, [8, 64], ['mbit_per_s', 'cpu_percent'],
                         arguments=small_messages, modes=VARIANTS, threads=64, notes=[THREADED]),
    'isostack/fig10': Iso('Variants, request and response of 1 KB', 'connections', FEW, [1, 64], ['messages_per_s', 'cpu_percent'],
                          arguments=requests, modes=VARIANTS, threads=64, notes=[THREADED]),
}


# ---- running ----------------------------------------------------------------------------------------------------------------

def measure_point(lab, figure, way, words, args):
    results = way.run(lab, args.seconds, *words)
    row = {name: METRICS[name][1](results, len(lab.cpus)) for name in figure.metrics}
    row.update(cores=way.cores(lab.cpus), errors=results['errors'], busiest_thread=results.get('busiest_thread'))
    if results['errors'] > 0:
        row['error'] = f"{results['errors']} connections failed"
    return row


def show_row(row):
    if 'error' in row:
        return row['error']
    return ', '.join(f'{name} {row[name]:.4g}' for name in row if name in METRICS and row[name] is not None) or 'measured, but not this'


def measure(lab, figure, args, write):
    rows, missing = [], {}
    series = figure.series(len(lab.cpus))
    end = time.monotonic() + args.limit
    for number in range(args.rounds):
        for x in figure.quick if args.quick else figure.xs:
            for name, (way_of, words_of) in series.items():
                if name in missing or time.monotonic() > end:
                    continue
                way = way_of(x)
                row = observe(lab, lambda: measure_point(lab, figure, way, words_of(x), args), args.patience)
                row.update(round=number, series=name, x=x)
                if 'error' in row and 'allowed are' in row['error']:
                    missing[name] = row['error']
                rows.append(row)
                write(row)
                print(f"  round {number}, {name}, {figure.x_label} {x}: {show_row(row)} ({circumstances(row)})",
                      file=sys.stderr)
    for way_of, _ in series.values():
        way_of(figure.xs[0]).close(lab)
    return rows, missing, time.monotonic() > end


def places(rows):
    """{x: the distance of the CPUs at which all series are shown there}: near where each series that has undisturbed runs at x has a near one, else far or crowded alike, else None."""
    found = {}
    for x in dict.fromkeys(r['x'] for r in rows):
        groups = [[r for r in rows if r['x'] == x and r['series'] == name] for name in dict.fromkeys(r['series'] for r in rows)]
        found[x] = common_distance([group for group in groups if any(r['valid'] for r in group)])
    return found


def standing(rows, metric):
    """{series: {x: (the runs that stand for it, a mark)}}: those at the place's distance, unmarked; where there is none, or they are disturbed, what there is, marked with what it is."""
    found, distances = {}, places(rows)
    for name in dict.fromkeys(r['series'] for r in rows):
        for x, distance in distances.items():
            mine = [r for r in rows if r['series'] == name and r['x'] == x and r.get(metric) is not None and 'error' not in r]
            runs = at_distance(mine, distance) or comparable(mine)
            if runs:
                mark = 'disturbed' if not runs[0]['valid'] else runs[0]['distance'] if distance is None else ''
                found.setdefault(name, {})[x] = runs, mark
    return found


def points(rows, metric):
    """{series: {x: the values that stand for it}}."""
    return {name: {x: [r[metric] for r in runs] for x, (runs, _) in at.items()} for name, at in standing(rows, metric).items()}


def marks(rows, metric):
    """{series: {x: a word}} for the points that do not stand beside the others of their place."""
    found = {}
    for name, at in standing(rows, metric).items():
        for x, (_, mark) in at.items():
            if mark:
                found.setdefault(name, {})[x] = mark
    return found


def each(found, of):
    """The same with a figure for each list of values."""
    return {name: {x: of(values) for x, values in at.items()} for name, at in found.items()}


def placed_words(rows):
    """Which places have far or crowded CPUs, or none in common."""
    distances = places(rows)
    far, crowded, mixed = ([f'{x:,}' for x, distance in distances.items() if distance == what] for what in ('far', 'crowded', None))
    return (f'Far at {", ".join(far)}. ' if far else '') + (f'Crowded at {", ".join(crowded)}. ' if crowded else '') + (f'No distance in common at {", ".join(mixed)}. ' if mixed else '')


def shared_out(figure, rows):
    """How the work of the kernel's server is divided among its threads."""
    if isinstance(figure, Iso) and figure.threads == 1:
        return ['The paper has a thread for each connection; here the application is one thread in all series, and the kernel has one at either end, each on a CPU of its own.']
    shares = [r['busiest_thread'] for r in rows if r['series'] == 'kernel' and r['valid']]
    if not shares:
        return []
    return ["The kernel's server has a thread for each CPU on one listener, and which of them takes a connection is the kernel's choice: the busiest had "
            f'{min(shares):.0%} to {max(shares):.0%} of the work, by median {median(shares):.0%}.']


def limits(lab, figure, rows, missing, cut_short, args):
    """What this machine, or this run, could not show."""
    notes = list(figure.notes)
    valid = sum(r['valid'] for r in rows)
    labels = ', '.join(f"{sum(r['distance'] == label for r in rows)} {label}" for label in sorted({r['distance'] for r in rows}))
    notes.append(f'Here: {len(lab.cpus)} CPUs, runs of {args.seconds:g} s, {args.rounds} rounds; a point is the median of its undisturbed runs, its line the least and the most. At a place on the '
                 'axis all series have the same CPUs: near ones where each has such a run, else far ones, else crowded ones, else the cell says what it has, as it does where others disturbed all of its runs. '
                 f'{placed_words(rows)}Runs: {labels}; {valid} of {len(rows)} runs undisturbed'
                 + ('' if valid else ', so read no more than an order of magnitude') + '.')
    for name, why in missing.items():
        notes.append(f'{name}: not available: {why}')
    for metric in figure.metrics:
        if not points(rows, metric):
            reason = 'there are no hardware counters here' if metric == 'misses_per_kb' else 'no run has it'
            notes.append(f'{METRICS[metric][0]}: not measurable, {reason}.')
    failed = [r for r in rows if 'error' in r and r['series'] not in missing]
    if failed:
        notes.append(f'{len(failed)} runs failed, the first with: {failed[0]["error"].rpartition(": status ")[2]}')
    if cut_short:
        notes.append(f'Stopped after {args.limit:g} s (--limit).')
    if isinstance(figure, Parallel) and len(lab.cpus) < 4:
        notes.append(f'The paper has four cores, this machine {len(lab.cpus)}: gains and contention of four cannot show.')
    if 'kernel' in {r['series'] for r in rows}:
        notes += shared_out(figure, rows)
        notes.append("The kernel's figures hold both ends, its peer runs on the same CPUs; compare them with `pair`. The other series' peer is the sink wire.")
    return notes


COLUMNS = ['round', 'series', 'x', 'cores', *OBSERVED, *METRICS, 'busiest_thread', 'errors', 'error']


def file_of(name, out, suffix):
    return os.path.join(out, name.replace('/', '-') + suffix)


def plain(value):
    return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'


def cell(panel, series, x, form):
    """A value with its mark."""
    if x not in panel.series[series]:
        return '-'
    return ' '.join([form(panel.series[series][x]), *([panel.marks[series][x]] if x in panel.marks.get(series, {}) else [])])


def section(name, title, panels, notes):
    """The figure's part of docs/papers.md: its picture, what was measured here as tables, and what is to be said of it."""
    lines = [f'## {name}: {title}', '', f'![{name}]({PICTURES}/{file_of(name, "", ".svg")})', '']
    for panel in panels:
        if panel.title == 'here':
            lines += [f'| {panel.y_label} | ' + ' | '.join(f'{x:,}' for x in panel.xs) + f' {panel.x_label} |', '| --- ' * (len(panel.xs) + 1) + '|']
            lines += [f'| {series} | ' + ' | '.join(cell(panel, series, x, plain) for x in panel.xs) + ' |' for series in panel.series]
            lines.append('')
    return '\n'.join(lines + [f'- {note}' for note in notes] + [''])


def write_figure(name, title, panels, notes, out):
    path = file_of(name, out, '.svg')
    with open(path, 'w', encoding='utf-8') as f:
        f.write(chart(f'{name}: {title}', panels, notes))
    with open(file_of(name, out, '.md'), 'w', encoding='utf-8') as f:
        f.write(section(name, title, panels, notes))
    print(f'{name}: {title}\n  {path}')
    for note in notes:
        print(f'  {note}')


def print_table(panel):
    width = max((len(n) for n in panel.series), default=0) + 2
    print(f'  {panel.y_label:{width}}' + ''.join(f'{x:>20}' for x in panel.xs))
    for name in panel.series:
        print(f'  {name:{width}}' + ''.join(f'{cell(panel, name, x, "{:.4g}".format):>20}' for x in panel.xs))


def run_figure(lab, name, paper, args):
    figure = FIGURES[name]
    with rows_file(file_of(name, args.out, '.csv'), COLUMNS) as write:
        rows, missing, cut_short = measure(lab, figure, args, write)
    xs = [x for x in figure.xs if any(r['x'] == x for r in rows)]
    panels = []
    for metric in figure.metrics:
        found = points(rows, metric)
        if found:
            medians = each(found, median)
            panels.append(Panel('here', figure.x_label, METRICS[metric][0], xs, medians, spans=each(found, lambda values: (min(values), max(values))), marks=marks(rows, metric)))
            print_table(panels[-1])
    panels += paper.panels(name, figure.x_label)
    write_figure(name, figure.title, panels, paper.notes(name) + limits(lab, figure, rows, missing, cut_short, args), args.out)


# ---- replicated work --------------------------------------------------------------------------------------------------------

def run_program(lab, args, paper, name, title, program, series_of, x_label, columns):
    """A figure that is one program's CSV. columns: {what to call it: its column}, a panel for each; x_label is the column of the axis too."""
    options = ['-t', '50', '-r', '1'] if args.quick else []
    before_ns = lab.distance_ns()
    text = run(os.path.join(lab.build, 'bench/dominoes', program), *options, timeout=600, urgent=True)
    after_ns = lab.distance_ns()
    with open(file_of(name, args.out, '.csv'), 'w', encoding='utf-8') as f:
        f.write(text)
    rows = list(csv.DictReader(text.splitlines()))
    xs = sorted({int(r[x_label]) for r in rows})
    panels = []
    for label, column in columns.items():
        found = {}
        for r in rows:
            found.setdefault(series_of(r), {})[int(r[x_label])] = float(r[column])
        panels.append(Panel('here', x_label, label, xs, found))
        print_table(panels[-1])
    disturbed = sum(float(r['cpu_share']) < 0.9 for r in rows)
    notes = paper.notes(name) + [f'Here: {rows[0]["cores"]} CPUs, a cache line there and back {before_ns:.0f} ns before and {after_ns:.0f} ns after; '
                                 f'{disturbed} of {len(rows)} lines disturbed.']
    crowded = sum(r['oversubscribed'] == 'yes' for r in rows)
    if crowded:
        notes.append(f'{crowded} lines have more threads than cores: no speed-up can show in these.')
    write_figure(name, title, panels + paper.panels(name, x_label), notes, args.out)


def run_fig1b(lab, args, paper):
    run_program(lab, args, paper, 'dominoes/fig1b', '10:1 of parallelizable to synchronized work', 'replicated_work', lambda r: r['method'], 'threads',
                {'speed-up': 'speedup'})


def run_fig2(lab, args, paper):
    run_program(lab, args, paper, 'dominoes/fig2', 'Dequeues of the replicated ring', 'ring_rate', lambda r: f"{r['scheme']}, {r['producers']} producers",
                'replicas', {'M/s of each replica': 'per_replica_M_s', 'M/s together': 'aggregate_M_s'})


PROGRAMS = {'dominoes/fig1b': run_fig1b, 'dominoes/fig2': run_fig2}
QUICK = ['parallel/fig2', 'parallel/table1', 'isostack/fig9', 'dominoes/fig1b']
ALIASES = {'parallel/fig6': 'parallel/table2'}


def needs_root(name):
    """The kernel's series have namespaces."""
    return name in FIGURES and any(isinstance(way_of(FIGURES[name].xs[0]), Kernel) for way_of, _ in FIGURES[name].series(2).values())


def chosen(parser, words):
    names = [*FIGURES, *PROGRAMS]
    for word in names if words == ['all'] else words:
        word = ALIASES.get(word, word)
        if word not in names:
            parser.error(f"'{word}' is no figure: list, quick, {', '.join(names)}")
        yield word


HEAD = """# The papers' figures, as measured

Written by `make bench-docs` from what `sudo make bench FIG=...` left, the figures' own files beside it. How they are measured, and what to make of them: [performance.md](performance.md#the-papers-figures).

"""


def write_page(page, out, names):
    """What `out` holds of the figures; the pictures go into a folder beside the page."""
    there = [name for name in names if os.path.exists(file_of(name, out, '.md'))]
    if not there:
        raise Failure(f'{out} has none of these figures')
    pictures = os.path.join(os.path.dirname(page), PICTURES)
    os.makedirs(pictures, exist_ok=True)
    parts = []
    for name in there:
        shutil.copy(file_of(name, out, '.svg'), pictures)
        with open(file_of(name, out, '.md'), encoding='utf-8') as f:
            parts.append(f.read())
    with open(page, 'w', encoding='utf-8') as f:
        f.write(HEAD + '\n'.join(parts))


def show_list():
    for name, figure in FIGURES.items():
        print(f'{name:18}{figure.title}')
    print('dominoes/fig1b    lock, atomic and replicated updates\ndominoes/fig2     dequeue rates of the replicated ring')


def main():
    parser = arguments(__doc__, patience=3, one_file=False)
    parser.set_defaults(rounds=None, seconds=None)
    parser.add_argument('figures', nargs='+', metavar='FIGURE', help='figures of "list"; "all"; "quick": a small set, at few places, one round of half a second')
    parser.add_argument('--out', help='where CSV and SVG go (figures/ in the build directory)')
    parser.add_argument('--limit', type=at_least(1), help='begin no run of a figure after so many seconds (1800; quick: 150)')
    parser.add_argument('--quick', action='store_true', help='few places on the axis, one short round')
    parser.add_argument('--doc', metavar='PAGE', help='measure nothing; write what is in --out into this page')
    args = parser.parse_args()
    if args.figures == ['list']:
        show_list()
        return
    args.quick = args.quick or args.figures == ['quick']
    names = QUICK if args.figures == ['quick'] else list(chosen(parser, args.figures))
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.seconds = args.seconds or (0.5 if args.quick else 2)
    args.limit = args.limit or (150 if args.quick else 1800)
    args.out = args.out or os.path.join(args.build, 'figures')
    if args.doc:
        try:
            write_page(args.doc, args.out, names)
        except (Failure, OSError) as e:
            sys.exit(f'figures.py: {e}')
        return
    with laboratory(args, ','.join(str(c) for c in sorted(os.sched_getaffinity(0))), root=any(needs_root(name) for name in names)) as lab:
        os.makedirs(args.out, exist_ok=True)
        paper = Paper(os.path.join(HERE, 'papers.tsv'))
        for name in names:
            print(name, file=sys.stderr)
            if name in PROGRAMS:
                PROGRAMS[name](lab, args, paper)
            else:
                run_figure(lab, name, paper, args)


if __name__ == '__main__':
    main()
