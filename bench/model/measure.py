#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure what the model needs (model.py) and write it as costs.tsv: measure.py [--build DIRECTORY] [--out FILE].

The stack sends full segments to the sink wire from inside isobench; cycles are the threads' CPU time at the TSC's rate, so that what others have of the machine is not in them, less those
that the wire counted as its own. Of several rounds the cheapest counts. Needs no privilege, but other programs are held back only with root's.
"""
import argparse
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from figures import Embedded, Figure, counter, kilobytes  # noqa: E402
from lab import FAR_NS, Failure, Lab  # noqa: E402

CONNECTIONS = [6, 192, 2048]
MTU_BIG = 9000
IDLE = 20000


def tsc_hz():
    """What the kernel says of the processor; on machines with an invariant TSC that is the TSC's rate too."""
    with open('/proc/cpuinfo', encoding='ascii') as f:
        return float(re.search(r'cpu MHz\s*:\s*([0-9.]+)', f.read()).group(1)) * 1e6


class Bench:
    def __init__(self, lab, rounds, seconds):
        self.lab, self.rounds, self.seconds, self.hz = lab, rounds, seconds, tsc_hz()
        self.lines = []

    def say(self, name, value, unit, source):
        self.lines.append(f'{name}\t{value:.6g}\t{unit}\t{source}')
        print(self.lines[-1].replace('\t', '  '), file=sys.stderr)

    def runs(self, mode, threads, connections, workers=0, **settings):
        figure = Figure('', '', [], [], [], **settings)
        way = Embedded(figure, mode, threads, workers=workers, shared=workers > 1)
        return [way.run(self.lab, self.seconds, 'tx', '-c', str(connections), '-s', '64k') for _ in range(self.rounds)]

    def cheapest(self, results, cost):
        return min((cost(r) / kilobytes(r), i) for i, r in enumerate(results))

    def app_cycles(self, r):
        return sum(r['cpu_s']) * self.hz

    def own_cycles(self, r):
        """Of the calling threads, without the wire's."""
        return self.app_cycles(r) - counter(r, 'sink.cycles')

    def point(self, mode, cores, connections, results):
        mbit = max(r['bytes_per_s'] * 8 / 1e6 for r in results)
        self.lines.append(f'point:{mode}:{cores}:{connections}\t{mbit:.6g}\tMb/s\tthe best of {len(results)} runs, since others can only lower it; the wire included')


def measure_alone(b):
    """up: what a KB costs, and what of it goes with bytes rather than with segments."""
    for c in CONNECTIONS:
        results = b.runs('up', 1, c)
        cycles, i = b.cheapest(results, b.own_cycles)
        b.say(f'step@{c}', cycles, 'cycles/KB', 'up on one core: CPU time less the wire')
        b.point('up', 1, c, results)
        if c == 192:
            segments = counter(results[i], 'tcp.tx_segs') / kilobytes(results[i])
            b.say('wire', counter(results[i], 'sink.cycles') / kilobytes(results[i]), 'cycles/KB', 'the sink wire itself')
            b.step, b.segments = cycles, segments
    big = b.runs('up', 1, 192, mtu=MTU_BIG)
    cycles, i = b.cheapest(big, b.own_cycles)
    segments = counter(big[i], 'tcp.tx_segs') / kilobytes(big[i])
    each = max(0.0, (b.step - cycles) / (b.segments - segments))
    b.say('byte', max(0.0, b.step - each * b.segments), 'cycles/KB', f'what remains of a KB for no segments: MTU 1500 beside {MTU_BIG}')
    b.say('segments', b.segments, '1/KB', 'segments sent')


def measure_locked(b, name, mode, waits):
    """A mode that enters domains under locks: what these cost without anybody else, and what moves between two cores. waits: counters of the cycles waited."""
    one = b.runs(mode, 1, 192)
    alone, _ = b.cheapest(one, b.own_cycles)
    b.say(f'extra:{name}', max(0.0, alone - b.step), 'cycles/KB', f'{mode} on one core, above up')
    two = b.runs(mode, 2, 192)
    both, _ = b.cheapest(two, lambda r: b.own_cycles(r) - sum(counter(r, w) for w in waits))
    lines = max(0.0, both - alone) / (0.5 * b.line_cycles)
    b.say(f'lines:{name}', lines, '1/KB', f'{mode} on two cores above one, less waits, in transfers of a line; half of the visits find them at home')
    return one, two


def measure_locks(b):
    one, two = measure_locked(b, 'connp-l', 'connp-l,groups=128', ['lock.group.wait_cycles'])
    b.point('connp-l(128)', 1, 192, one)
    b.point('connp-l(128)', 2, 192, two)
    b.point('connp-l(4)', 2, 192, b.runs('connp-l,groups=4', 2, 192))
    b.say('locked_share', 0.7, '1', "estimate: the share of a KB's cycles that runs under a group's or a connection's lock")
    one, two = measure_locked(b, 'msgp', 'msgp', [f'lock.{k}.wait_cycles' for k in ('table', 'connection', 'timers', 'pools', 'sndbuf', 'rcvbuf')])
    b.point('msgp', 1, 192, one)
    b.point('msgp', 2, 192, two)
    b.say('table_locks', counter(two[0], 'lock.table.acquired') / kilobytes(two[0]), '1/KB', "msgp: acquisitions of the table's lock")
    b.say('table_hold', 60, 'cycles', 'estimate: a lookup whose lines are near')


def measure_handed(b):
    """connp-t and isostack: hand-over, and how the work divides."""
    two = b.runs('connp-t,steer=port', 2, 192, workers=2)
    switch_cycles = b.lab.switch_ns() / 2 * b.hz / 1e9
    b.say('switch', switch_cycles, 'cycles', 'bench-probe, one CPU named twice: half of there and back')
    cycles, i = b.cheapest(two, lambda r: counter(r, 'handover.cycles') + r['switches'] * switch_cycles)
    b.say('extra:connp-t', 2 * cycles, 'cycles/KB',
          'putting into queues, and switches between application and owner; by a half, since every other packet is at home')
    b.say('lines:connp-t', 2 * (counter(two[i], 'handover.packets') + counter(two[i], 'sock.notifications')) / kilobytes(two[i]), '1/KB',
          'two lines for a packet handed over or a call')
    b.point('connp-t', 2, 192, two)
    iso = b.runs('isostack', 1, 192, workers=1)
    app, i = b.cheapest(iso, b.app_cycles)
    stack, _ = b.cheapest(iso, lambda r: counter(r, 'worker.busy_cycles') - counter(r, 'sink.cycles'))
    b.say('stack_share', stack / (stack + app), '1', "isostack: the stack's core's share of the cycles")
    b.say('lines:isostack', 2 * counter(iso[i], 'sock.notifications') / kilobytes(iso[i]), '1/KB', 'two lines for a notification')
    b.say('lines:misd', 2 * b.segments, '1/KB', 'estimate: an entry of the channel for a segment, its line and its count')
    b.point('isostack', 2, 192, iso)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--build', default=os.path.join(HERE, '..', '..', 'build'))
    parser.add_argument('--out', default=os.path.join(HERE, 'costs.tsv'))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=2)
    args = parser.parse_args()
    lab = Lab(args.build, sorted(os.sched_getaffinity(0))[:2])
    b = Bench(lab, args.rounds, args.seconds)
    try:
        line_ns = lab.distance_ns() / 2
        b.line_cycles = line_ns * b.hz / 1e9
        b.say('hz', b.hz, '1/s', 'TSC')
        b.say('line_ns', line_ns, 'ns', f'bench-probe, half of there and back; {"far" if 2 * line_ns > FAR_NS else "near"} (near is about 50, far 200 to 330)')
        measure_alone(b)
        measure_locks(b)
        measure_handed(b)
        b.say('connection_bytes', 1024, 'bytes', 'the bound of an idle connection in all, which tests hold')
    except (Failure, OSError) as e:
        sys.exit(f'measure.py: {e}')
    finally:
        lab.close()
    with open(args.out, 'w', encoding='utf-8') as f:
        f.write('# Costs of this stack, by bench/model/measure.py, on two CPUs. point: lines are measured throughputs, for model.py check.\n'
                '# name\tvalue\tunit\tsource\n' + '\n'.join(b.lines) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
