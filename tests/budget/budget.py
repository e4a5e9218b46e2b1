#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Hold what the hot paths execute against what is written down: instructions for each unit, by callgrind, function by function.

The table belongs to a compiler and its flags, which stand in its first line: with others the check is skipped, and says so. Exit status: 0 within 3% of the table,
1 above it or below, 77 skipped. With --renew the table is written anew.
"""
import argparse
import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile

TOLERANCE = 1.03
SKIPPED = 77
SMALL = 0.5  # instructions: what does less is not worth a line of its own
# The C library chooses its routines by the CPU, so what it executes says nothing about this project; nor do the tests' own helpers.
OTHERS = re.compile(r'^(libc\.so|ld-linux|libcmocka|libpthread)')
HARNESS = 'budget.c'


def skip(text):
    print(f'skipped: {text}')
    sys.exit(SKIPPED)


class Part:
    """One file of callgrind's: the instructions that each function executed itself."""

    def __init__(self, path):
        self.cost = collections.Counter()
        names = {'fn': {}, 'ob': {}, 'fl': {}}
        obj = function = source = None
        is_call = False
        with open(path, encoding='utf-8', errors='replace') as f:
            for line in f:
                named = re.match(r'c?(fn|ob|fl|fi|fe)=\((\d+)\)(?: (.*))?', line)
                if named:
                    kind, number, name = named.groups()
                    kind = kind if kind in names else 'fl'
                    if name is not None:
                        names[kind][number] = name
                    if line.startswith('ob='):
                        obj = names['ob'][number]
                    elif line.startswith('fn='):
                        function = names['fn'][number]
                    elif line.startswith('fl='):
                        source = names['fl'][number]
                elif line.startswith('calls='):
                    is_call = True  # the next line is what the callee cost
                elif line[0] in '+-*0123456789':
                    if not is_call:
                        self.cost[self.name(obj, source, function)] += int(line.split()[1])
                    is_call = False

    @staticmethod
    def name(obj, source, function):
        """Without what the compiler appends to copies that it makes; stripped libraries have none but their own."""
        if OTHERS.match(os.path.basename(obj or '')) or os.path.basename(source or '') == HARNESS:
            return None
        if function.startswith('0x'):
            return re.sub(r'\.so.*', '', os.path.basename(obj or '?'))
        return re.sub(r"[.'].*", '', function)

    def per_unit(self, units):
        table = {name: cost / units for name, cost in self.cost.items() if name is not None}
        total = sum(table.values())
        return {'total': total} | {name: cost for name, cost in table.items() if cost >= SMALL}


def measure(program):
    folder = tempfile.mkdtemp()
    try:
        out = os.path.join(folder, 'part')
        done = subprocess.run(['valgrind', '--tool=callgrind', f'--callgrind-out-file={out}', '--collect-atstart=no', '--toggle-collect=counted',
                               '--zero-before=scenario', '--dump-after=scenario', program], capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            sys.exit(f'{program}: status {done.returncode} under valgrind:\n{done.stdout}{done.stderr}')
        units = [line.split('\t') for line in done.stdout.splitlines()]
        return {name: Part(f'{out}.{i + 1}').per_unit(int(n)) for i, (name, n) in enumerate(units)}
    finally:
        shutil.rmtree(folder)


def read_table(path):
    with open(path, encoding='utf-8') as f:
        made_by = f.readline().removeprefix('# ').rstrip('\n')
        table = collections.defaultdict(dict)
        for line in f:
            if not line.startswith('#'):
                scenario, function, cost = line.rstrip('\n').split('\t')
                table[scenario][function] = float(cost)
    return made_by, table


def write_table(path, made_by, table):
    with open(path, 'w', encoding='utf-8') as f:
        f.write(f'# {made_by}\n# scenario\tfunction\tinstructions for each unit\n')
        for scenario, costs in table.items():
            for function in ['total'] + sorted(name for name in costs if name != 'total'):
                f.write(f'{scenario}\t{function}\t{costs[function]:.1f}\n')


def compare(scenario, now, before):
    """Prints the verdict; true if the table holds, in both directions: a rise hides behind a table that is out of date."""
    ratio = now['total'] / before['total']
    print(f'{scenario:10}{now["total"]:10.1f} instructions, written down {before["total"]:10.1f}  {100 * (ratio - 1):+.1f}%')
    if 1 / TOLERANCE <= ratio <= TOLERANCE:
        return True
    grown = sorted(((now.get(name, 0) - before.get(name, 0), name) for name in (now | before) if name != 'total'), key=lambda g: -abs(g[0]))
    for change, name in (g for g in grown[:8] if abs(g[0]) >= SMALL):
        print(f'          {change:+10.1f}  {name}  ({before.get(name, 0):.1f} to {now.get(name, 0):.1f})')
    if ratio < 1:
        print('          below it: write the new table down, or what grows back goes unnoticed (budget-renew)')
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('program')
    parser.add_argument('table')
    parser.add_argument('made_by', help='compiler and flags of the program')
    parser.add_argument('--renew', action='store_true')
    args = parser.parse_args()
    if shutil.which('valgrind') is None:
        skip('there is no valgrind here')
    if args.renew:
        write_table(args.table, args.made_by, measure(args.program))
        return
    made_by, before = read_table(args.table)
    if made_by != args.made_by:
        skip(f'the table was made by "{made_by}", this build by "{args.made_by}"; ninja budget-renew makes one for it')
    now = measure(args.program)
    within = [compare(scenario, costs, before.get(scenario, {'total': 1e-9})) for scenario, costs in now.items()]
    sys.exit(0 if all(within) else 1)


if __name__ == '__main__':
    main()
