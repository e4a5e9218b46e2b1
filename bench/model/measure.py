#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure what the model needs (model.py), and write all of it as costs.tsv: measure.py [--build DIRECTORY] [--out FILE], three to four minutes on a quiet machine.

The stack sends full segments to the sink wire from inside isobench, set up as for the papers' figures (figures.py). Cycles are the threads' CPU time at the TSC's rate less those that the wire
counted as its own. The wire's count runs on while a thread is kept off its CPU, so that a disturbed run makes the stack look cheap: only undisturbed runs count, and of these the median. Rounds are
interleaved, and go on until each run has been made undisturbed often enough at one distance of the CPUs, near or else far, the same for all. Needs root, to run before other programs.
"""
import collections
import os
import re
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from figures import TX_SIZE, Parallel, counter, kilobytes, lock_waits  # noqa: E402
from lab import DISTANCES, OBSERVED, Failure, arguments, at_distance, at_least, circumstances, common_distance, laboratory, median, observe, rows_file  # noqa: E402

MTU_BIG = 9000
ENOUGH = 3  # undisturbed runs

# Of a thread that has its CPU to itself. Others that wait for it get it for some ten microseconds at about each tick, a thousand times a second; bench-speed takes it a hundred times, the kernel's
# own threads some hundred more.
INVOLUNTARY_PER_S = 750

Run = collections.namedtuple('Run', 'mode cpus connections mtu', defaults=(192, 1500))
UP, BIG = Run('up', 1), Run('up', 1, mtu=MTU_BIG)
UPS = [Run('up', 1, 6), UP, Run('up', 1, 2048)]
GROUPS, GROUPS_2, FEW_GROUPS = Run('connp-l(128)', 1), Run('connp-l(128)', 2), Run('connp-l(4)', 2)
MSGP, MSGP_2 = Run('msgp', 1), Run('msgp', 2)
OWNERS, ISOSTACK = Run('connp-t', 2), Run('isostack', 2)
RUNS = [*UPS, BIG, GROUPS, GROUPS_2, FEW_GROUPS, MSGP, MSGP_2, OWNERS, ISOSTACK]
COLUMNS = ['round', *Run._fields, *OBSERVED, 'mbit', 'app', 'worker', 'wire', 'own', 'waits', 'segments', 'table_locks', 'handover', 'switches', 'packets', 'notifications', 'involuntary', 'error']


def tsc_hz():
    """What the kernel says of the processor; on machines with an invariant TSC that is the TSC's rate too."""
    with open('/proc/cpuinfo', encoding='ascii') as f:
        return float(re.search(r'cpu MHz\s*:\s*([0-9.]+)', f.read()).group(1)) * 1e6


def account(results, hz, has_workers):
    """What a run has of each kind for a KB; own: the cycles of the threads that the stack runs on, workers or the application's, without the wire's."""
    counts = {'app': sum(results['cpu_s']) * hz, 'wire': counter(results, 'sink.cycles'), 'worker': counter(results, 'worker.busy_cycles'), 'waits': lock_waits(results),
              'segments': counter(results, 'tcp.tx_segs'), 'table_locks': counter(results, 'lock.table.acquired'), 'handover': counter(results, 'handover.cycles'),
              'switches': results['switches'], 'packets': counter(results, 'handover.packets'), 'notifications': counter(results, 'sock.notifications')}
    counts['own'] = (counts['worker'] if has_workers else counts['app']) - counts['wire']
    if kilobytes(results) == 0 or counts['own'] <= 0:
        raise Failure('the wire counted more cycles than its threads had')
    return {name: count / kilobytes(results) for name, count in counts.items()} | {'mbit': results['bytes_per_s'] * 8 / 1e6}


def measure_run(lab, run, seconds, hz):
    figure = Parallel('', '', [], [], [], mtu=run.mtu)
    way = figure.organisation(run.mode, run.cpus)
    results = way.run(lab, seconds, 'tx', '-c', str(run.connections), '-s', TX_SIZE)
    row = account(results, hz, way.workers > 0)
    row['involuntary'] = results['involuntary'] / results['seconds'] / run.cpus
    # Where application and owner share a CPU, they take it from each other.
    if run != OWNERS and row['involuntary'] > INVOLUNTARY_PER_S:
        row['error'] = f'a thread lost its CPU {row["involuntary"]:.0f} times a second'
    return row


def measure(lab, args, write):
    """{run: rows}, and the distance at which they count."""
    rows, hz = {run: [] for run in RUNS}, tsc_hz()
    end, number, distance = time.monotonic() + args.limit, 0, None
    while number < args.rounds or distance != 'near':
        for run in RUNS:
            if time.monotonic() > end:
                break
            row = observe(lab, lambda: measure_run(lab, run, args.seconds, hz), args.patience)
            row.update(round=number, **run._asdict())
            rows[run].append(row)
            write(row)
            words = row.get('error') or f"{row['mbit']:.0f} Mb/s, {row['own']:.0f} cycles/KB"
            print(f"{number + 1} {run.mode}, {run.cpus} CPUs, {run.connections} connections, MTU {run.mtu}: {words} ({circumstances(row)})", file=sys.stderr)
        number += 1
        distance = common_distance(rows.values(), min(ENOUGH, args.rounds))
        if time.monotonic() > end:
            break
    if distance is None:
        few = min(rows, key=lambda run: max(len(at_distance(rows[run], d)) for d in DISTANCES))
        raise Failure(f'too much else on the machine: after {number} rounds {few.mode} on {few.cpus} CPUs has not {min(ENOUGH, args.rounds)} undisturbed runs at one distance')
    return {run: at_distance(mine, distance) for run, mine in rows.items()}, distance


class Costs:
    """The lines of costs.tsv, from the runs that count."""

    def __init__(self, rows, distance, hz, switch_ns):
        self.rows, self.lines = rows, []
        line_ns = median([ns for mine in rows.values() for row in mine for ns in (row['before_ns'], row['after_ns'])]) / 2
        self.line_cycles = line_ns * hz / 1e9
        self.say('hz', hz, '1/s', 'TSC')
        self.say('line_ns', line_ns, 'ns', f'bench-probe, half of there and back, around the runs that count; {distance}')
        self.alone()
        self.locked()
        self.handed(switch_ns * hz / 1e9)
        self.say('connection_bytes', 1024, 'bytes', 'the bound of an idle connection in all, which tests hold')
        for run in RUNS:
            if run.mtu != MTU_BIG:
                self.say(f'point:{run.mode}:{run.cpus}:{run.connections}', self.of(run, 'mbit'), 'Mb/s', f'the wire included; {self.spread(run, "mbit")}')

    def say(self, name, value, unit, source):
        self.lines.append(f'{name}\t{value:.6g}\t{unit}\t{source}')

    def of(self, run, name):
        return median([row[name] for row in self.rows[run]])

    def spread(self, run, name):
        values = [row[name] for row in self.rows[run]]
        return f'median of {len(values)} runs, {min(values):.5g} to {max(values):.5g}'

    def more(self, name, run, waits, beside, unit_cycles, unit, words):
        """What a run costs beyond another; if that is less than nothing, it is within the spread, and nothing."""
        own = self.of(run, 'own') - (self.of(run, 'waits') if waits else 0)
        self.say(name, max(0.0, own - self.of(beside, 'own')) / unit_cycles, unit, f'{words}: {own:.5g} ({self.spread(run, "own")}) above {self.of(beside, "own"):.5g} ({self.spread(beside, "own")})')

    def alone(self):
        """up: what a KB costs, and what of it goes with bytes rather than with segments."""
        for run in UPS:
            self.say(f'step@{run.connections}', self.of(run, 'own'), 'cycles/KB', f'up on one core: CPU time less the wire; {self.spread(run, "own")}')
        self.say('wire', self.of(UP, 'wire'), 'cycles/KB', f'the sink wire itself; {self.spread(UP, "wire")}')
        step, segments = self.of(UP, 'own'), self.of(UP, 'segments')
        each = max(0.0, (step - self.of(BIG, 'own')) / (segments - self.of(BIG, 'segments')))
        self.say('byte', max(0.0, step - each * segments), 'cycles/KB', f'what remains of a KB for no segments: MTU 1500 beside {MTU_BIG} ({self.spread(BIG, "own")})')
        self.say('segments', segments, '1/KB', 'segments sent')

    def locked(self):
        """Modes that enter domains under locks: what these cost without anybody else, and what moves between two cores."""
        for name, one, two in (('connp-l', GROUPS, GROUPS_2), ('msgp', MSGP, MSGP_2)):
            self.more(f'extra:{name}', one, False, UP, 1, 'cycles/KB', 'on one core, above up')
            self.more(f'lines:{name}', two, True, one, 0.5 * self.line_cycles, '1/KB',
                      'on two cores, less waits, above one, in transfers of a line, half of the visits finding them at home; cycles/KB')
        self.say('locked_share', 0.7, '1', "estimate: the share of a KB's cycles that runs under a group's or a connection's lock")
        self.say('table_locks', self.of(MSGP_2, 'table_locks'), '1/KB', "msgp: acquisitions of the table's lock")
        self.say('table_hold', 60, 'cycles', 'estimate: a lookup whose lines are near')

    def handed(self, switch_there_and_back):
        """connp-t and isostack: hand-over, and how the work divides."""
        switch = switch_there_and_back / 2
        self.say('switch', switch, 'cycles', 'bench-probe, one CPU named twice: half of there and back')
        self.say('extra:connp-t', 2 * (self.of(OWNERS, 'handover') + self.of(OWNERS, 'switches') * switch), 'cycles/KB',
                 f'putting into queues, and switches between application and owner, by a half, since every other packet is at home; switches/KB: {self.spread(OWNERS, "switches")}')
        self.say('lines:connp-t', 2 * (self.of(OWNERS, 'packets') + self.of(OWNERS, 'notifications')), '1/KB', 'two lines for a packet handed over or a call')
        app, stack = self.of(ISOSTACK, 'app'), self.of(ISOSTACK, 'own')
        self.say('stack_share', stack / (stack + app), '1', f"isostack: the stack's core's share of the cycles; {self.spread(ISOSTACK, 'own')} beside {app:.5g} of the application")
        self.say('lines:isostack', 2 * self.of(ISOSTACK, 'notifications'), '1/KB', 'two lines for a notification')
        self.say('lines:misd', 2 * self.of(UP, 'segments'), '1/KB', 'estimate: an entry of the channel for a segment, its line and its count')


def main():
    parser = arguments(__doc__, rounds=5, seconds=1.5, patience=2, doc_too=False)
    parser.add_argument('--out', default=os.path.join(HERE, 'costs.tsv'), help='where the costs go (costs.tsv)')
    parser.add_argument('--limit', type=at_least(1), default=220, help='begin no run after so many seconds (220)')
    args = parser.parse_args()
    with laboratory(args) as lab, rows_file(args.csv, COLUMNS) as write:
        lab.cpus = lab.cpus[:2]
        rows, distance = measure(lab, args, write)
        costs = Costs(rows, distance, tsc_hz(), lab.switch_ns())
        with open(args.out, 'w', encoding='utf-8') as f:
            f.write('# Costs of this stack, by bench/model/measure.py, on two CPUs. point: lines are the throughputs of the same runs.\n'
                    '# name\tvalue\tunit\tsource\n' + '\n'.join(costs.lines) + '\n')
    print('\n'.join(costs.lines).replace('\t', '  '))


if __name__ == '__main__':
    main()
