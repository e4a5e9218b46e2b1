#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What each mode would carry on 1 to 64 cores, from measured costs.

usage: model.py predict [--costs FILE] [--connections N]     throughput of each mode over cores
       model.py check [--costs FILE] [--figures FOLDER]      beside what was measured: by the runs that the costs are of, and by the papers' figures
       model.py size [--costs FILE]                          cores for 100 and 400 Gb/s, memory for ten million connections

The load is that of the paper on parallel stacks: sending, full segments. All costs are cycles for each KB sent. A core that works alone needs `step`; what a mode adds is of three kinds:
cycles of its own (locks taken, hand-overs), cache lines that come from another core (with n cores whoever touched a line last was somebody else n-1 times out of n), and waiting.
Waiting is computed by mean value analysis of a closed queueing network: the cores are its customers, each lock that cores share is a station, what needs no lock is the time
between two visits. docs/scaling.md says what comes out and what is left out.
"""
import argparse
import csv
import math
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from lab import Failure, at_distance, at_least, label, median, read_rows  # noqa: E402

CORES = [1, 2, 4, 8, 16, 32, 64]
MODES = ['up', 'msgp', 'connp-t', 'connp-l(128)', 'connp-l(4)', 'isostack', 'misd']
KB_MBIT = 1024 * 8 / 1e6

# Figures of the same load, by the files that figures.py leaves: what they show can contradict the model, whose costs are of other runs.
FIGURES = ['parallel-fig2.csv', 'parallel-fig3.csv', 'modes-tx.csv']
# A factor; beyond it a cost is missing from the model.
EXPLAINED = 1.5


class Costs:
    """costs.tsv: a name, its value, its unit, where it comes from. Names with an @ are one quantity at several numbers of connections."""

    def __init__(self, path):
        self.values, self.units, self.points = {}, {}, []
        with open(path, newline='', encoding='utf-8') as f:
            for name, value, unit, *_ in csv.reader((line for line in f if not line.startswith('#')), delimiter='\t'):
                if name.startswith('point:'):
                    _, mode, cores, connections = name.split(':')
                    self.points.append((mode, int(cores), int(connections), float(value)))
                else:
                    self.values[name] = float(value)
                    self.units[name] = unit

    def __getitem__(self, name):
        return self.values[name]

    def get(self, name):
        return self.values.get(name, 0.0)

    def at(self, name, connections):
        """Between two measured numbers of connections: linear in the logarithm of their number. A cost that is there without an @ is the same at each, one that is not is 0."""
        known = sorted((int(k.split('@')[1]), v) for k, v in self.values.items() if k.startswith(name + '@'))
        if not known:
            return self.get(name)
        if connections <= known[0][0]:
            return known[0][1]
        for (c0, v0), (c1, v1) in zip(known, known[1:]):
            if connections <= c1:
                return v0 + (v1 - v0) * math.log(connections / c0) / math.log(c1 / c0)
        return known[-1][1]

    def line(self):
        """Cycles for a cache line to come from another core."""
        return self['line_ns'] * self['hz'] / 1e9


def mva(customers, think, stations):
    """Exact mean value analysis. stations: (demand, number): so many alike, visited evenly, the demand being that of all together. Returns the rate at which
    customers pass, and for each kind of station the chance that a customer who arrives finds it busy."""
    queues = [0.0] * len(stations)
    busy = list(queues)
    rate = 0.0
    for k in range(1, customers + 1):
        # An arriving customer sees the network as it is with one customer less.
        busy = [min(1.0, rate * demand / number) for demand, number in stations]
        stay = [demand * (1 + queue / number) for (demand, number), queue in zip(stations, queues)]
        rate = k / (think + sum(stay))
        queues = [rate * s for s in stay]
    return rate, busy


def occupied(groups, connections):
    """Groups that have a connection, if these are spread at random."""
    return groups * (1 - (1 - 1 / groups) ** connections)


def others(cores):
    """The share of visits at which somebody else was here before."""
    return (cores - 1) / cores


def predict_up(costs, cores, step, connections, groups):
    return costs['hz'] / step, 0.0


def predict_connp_l(costs, cores, step, connections, groups):
    moved = costs.at('lines:connp-l', connections) * costs.line() * others(cores)
    work = step + costs.at('extra:connp-l', connections) + moved
    hold = costs['locked_share'] * (work - costs.get('wire'))
    rate, busy = mva(cores, work - hold, [(hold, occupied(groups, connections))])
    return rate * costs['hz'], busy[0]


def predict_msgp(costs, cores, step, connections, groups):
    """The table's lock is held while the connection's is waited for: that wait is everybody's. Found by iteration, since it depends on the rate that it lowers."""
    work = step + costs.at('extra:msgp', connections) + costs.at('lines:msgp', connections) * costs.line() * others(cores)
    hold = costs['locked_share'] * (work - costs.get('wire'))
    table = costs['table_locks'] * (costs['table_hold'] + 2 * costs.line() * others(cores))
    blocked = 0.0
    for _ in range(200):
        rate, busy = mva(cores, max(work - hold - table, 0), [(table + blocked, 1), (hold, occupied(connections, connections))])
        # Who waits for a connection waits, on average, for half of a holder's visit.
        blocked += 0.2 * (busy[1] * hold / 2 - blocked)
    return rate * costs['hz'], busy[0]


def predict_connp_t(costs, cores, step, connections, groups):
    each = costs.at('extra:connp-t', connections) + costs.at('lines:connp-t', connections) * costs.line()
    return cores * costs['hz'] / (step + each * others(cores)), 0.0


def predict_isostack(costs, cores, step, connections, groups):
    """The best division of the cores between instances of the stack and applications; on one core they take turns."""
    share = costs['stack_share']
    moved = costs.at('lines:isostack', connections) * costs.line()
    wire = costs.get('wire')
    app, stack = (1 - share) * (step - wire), share * (step - wire) + wire
    if cores == 1:
        return costs['hz'] / (app + stack), 0.0
    return max(min(k / (stack + moved), (cores - k) / (app + moved)) for k in range(1, cores)) * costs['hz'], 0.0


def predict_misd(costs, cores, step, connections, groups):
    """Headers everywhere, bytes once."""
    per_byte = costs['byte']
    replicated = step - costs.get('wire') - per_byte + costs.at('extra:misd', connections) + costs.at('lines:misd', connections) * costs.line() * others(cores)
    return costs['hz'] / (replicated + (per_byte + costs.get('wire')) / cores), 0.0


PREDICT = {'up': predict_up, 'msgp': predict_msgp, 'connp-t': predict_connp_t, 'connp-l': predict_connp_l, 'isostack': predict_isostack,
           'misd': predict_misd}


def predict(costs, mode, cores, connections, with_wire=False):
    """Returns Mb/s, and the share of acquisitions of a shared lock that must wait. with_wire: the sink wire's cycles are the cores' too, as in a measurement."""
    head, _, rest = mode.partition('(')
    groups = int(rest[:-1]) if rest else 128
    step = costs.at('step', connections) + (costs.get('wire') if with_wire else 0)
    if not with_wire and costs.get('wire'):
        costs = without_wire(costs)
    rate, busy = PREDICT[head](costs, cores, step, connections, groups)
    most = costs.get('line_rate_mbit')
    mbit = rate * KB_MBIT
    return (min(mbit, most) if most else mbit), busy


def without_wire(costs):
    bare = Costs.__new__(Costs)
    bare.values = {**costs.values, 'wire': 0.0}
    bare.units, bare.points = costs.units, costs.points
    return bare


# ---- commands ---------------------------------------------------------------------------------------------------------------

def print_predictions(costs, connections):
    print(f'Mb/s with {connections} connections, without the wire; in brackets the share of acquisitions of a shared lock that wait')
    print(f'{"cores":14}' + ''.join(f'{n:>16}' for n in CORES))
    for mode in MODES:
        cells = [predict(costs, mode, n, connections) for n in CORES]
        print(f'{mode:14}' + ''.join(f'{mbit:10.0f} {f"({100 * busy:.0f}%)" if busy else "":>5}' for mbit, busy in cells))


def figure_points(path, distance):
    """[(mode, cores, connections, median Mb/s of the undisturbed runs at that distance)] of a figure's file."""
    groups = {}
    for row in read_rows(path, ['series', 'x', 'cores', 'valid', 'distance', 'mbit_per_s']):
        if row['series'] in MODES and 'mbit_per_s' in row:
            groups.setdefault((row['series'], row['cores'], row['x']), []).append(row)
    found = {key: at_distance(rows, distance) for key, rows in groups.items()}
    return [(*key, median([row['mbit_per_s'] for row in rows])) for key, rows in found.items() if rows]


def check_points(costs, points, source):
    """Prints them beside the model. Returns the largest factor between the two, None if there are no points."""
    factors = []
    for mode, cores, connections, measured in points:
        mbit, _ = predict(costs, mode, cores, connections, with_wire=True)
        factors.append(max(mbit / measured, measured / mbit))
        print(f'{mode:14}{cores:6}{connections:13}{measured:12.0f}{mbit:12.0f}{mbit / measured:8.2f}   {source}{" *" if factors[-1] > EXPLAINED else ""}')
    return max(factors, default=None)


def print_check(costs, costs_path, folder):
    """Returns whether every point of the figures is explained."""
    print(f'{"mode":14}{"cores":>6}{"connections":>13}{"measured":>12}{"predicted":>12}{"ratio":>8}   Mb/s, the wire included; *: beyond a factor of {EXPLAINED}')
    name, distance = os.path.basename(costs_path), label(2 * costs['line_ns'])
    own = check_points(costs, costs.points, name)
    there = [file for file in FIGURES if os.path.exists(os.path.join(folder, file))]
    factors = {file: check_points(costs, figure_points(os.path.join(folder, file), distance), file) for file in there}
    print(f'{name}, the runs that the costs are of: within a factor of {own:.2f}' if own else f'{name}: no points')
    for file in FIGURES:
        if factors.get(file):
            print(f'{file}, other runs, with {distance} CPUs as the costs: within a factor of {factors[file]:.2f}')
        else:
            print(f'{file}: ' + (f'no undisturbed runs with {distance} CPUs, as the costs have' if file in factors else f'not in {folder}; figures.py measures it'))
    return max(filter(None, factors.values()), default=1) <= EXPLAINED


def cores_for(costs, mode, mbit, connections):
    """The least number of cores up to 64 that carries so much, or None."""
    return next((n for n in range(1, 65) if predict(costs, mode, n, connections)[0] >= mbit), None)


def print_size(costs):
    print('cores for a port, MTU 1500, no segmentation offload, 16384 connections:')
    for mode in MODES:
        need = [cores_for(costs, mode, gbit * 1000, 16384) for gbit in (100, 400)]
        print(f'  {mode:14}' + ''.join(f'{gbit} Gb/s: {n if n else "more than 64":<14}' for gbit, n in zip((100, 400), need)))
    per_conn = costs['connection_bytes']
    print(f'ten million idle connections: {1e7 * per_conn / 2**30:.1f} GiB at {per_conn:.0f} bytes each')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('command', choices=['predict', 'check', 'size'])
    parser.add_argument('--costs', default=os.path.join(HERE, 'costs.tsv'), help='measured costs (costs.tsv)')
    parser.add_argument('--connections', type=at_least(1, int), default=192)
    parser.add_argument('--figures', metavar='FOLDER', default=os.path.join(HERE, '..', '..', 'build', 'figures'), help='where figures.py has left its files (build/figures)')
    args = parser.parse_args()
    try:
        costs = Costs(args.costs)
        if args.command == 'predict':
            print_predictions(costs, args.connections)
        elif args.command == 'check':
            return 0 if print_check(costs, args.costs, os.path.relpath(args.figures)) else 1
        else:
            print_size(costs)
    except OSError as e:
        sys.exit(f'model.py: {e.filename}: {e.strerror}')
    except Failure as e:
        sys.exit(f'model.py: {e}')
    except (KeyError, ValueError) as e:
        sys.exit(f'model.py: {args.costs}: not the costs of this model: {e}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
