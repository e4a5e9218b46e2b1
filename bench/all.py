#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure everything that docs/performance.md has tables of, or write these tables from what was measured.

Each part is a program of this folder that writes its runs into a CSV file as they end (figures/ of the build directory), so that a part that is stopped leaves what it has. With --doc nothing is measured:
for each part whose file is there, the block of the page between `<!-- NAME -->` and `<!-- end NAME -->` is written anew, with how many of its runs others disturbed. Twenty-five minutes on a
quiet machine; needs root. The part that compares with F-Stack is measured only where --fstack names it.
"""
import argparse
import os
import re
import subprocess
import sys

from lab import DISTANCES, HERE, Failure, end_by_exit, read_rows

PAGE = os.path.join(HERE, '..', 'docs', 'performance.md')
# name: (program, its arguments)
PARTS = {
    'marks': ('marks.py', ['--rounds', '4', '--seconds', '2', '--patience', '5']),
    'peers': ('peers.py', ['--rounds', '4', '--seconds', '2', '--patience', '5']),
    'where': ('where.py', ['--rounds', '3', '--seconds', '2', '--patience', '5']),
    'idle': ('idle.py', ['100000']),
    'compare': ('compare.py', ['--rounds', '2', '--seconds', '1', '--patience', '5', '--workloads', 'rr1,rr64,crr16,tx1,rx1,msg64']),
    'programs': ('programs.py', ['--rounds', '2', '--seconds', '2', '--patience', '5']),
    'flame': ('flame.py', []),
}


def command(name, *words):
    return [sys.executable, os.path.join(HERE, PARTS[name][0]), *words]


def path_of(args, name):
    return os.path.join(args.build, 'figures', name + '.csv')


def attend(words):
    """Run a part to its end; its status. A signal that ends this program is handed on, and what the part has made is awaited to be gone."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as part:
        try:
            return part.wait()
        except SystemExit:
            part.terminate()
            raise


def measure(args):
    """Returns the parts that failed."""
    os.makedirs(os.path.join(args.build, 'figures'), exist_ok=True)
    failed = []
    for name in args.parts:
        words = list(PARTS[name][1])
        if name == 'peers':
            if not args.fstack:
                print('peers: left out, for want of --fstack', file=sys.stderr)
                continue
            words += ['--fstack', args.fstack]
        print(f'{name}:', file=sys.stderr)
        if attend(command(name, '--build', args.build, '--csv', path_of(args, name), *words)) != 0:
            failed.append(name)
    return failed


def disturbance(rows):
    """A sentence on what the runs' figures rest on; empty for parts that are counts."""
    runs = [row for row in rows if 'valid' in row]
    if not runs:
        return ''
    near, far, crowded = (sum(row['valid'] and row['distance'] == d for row in runs) for d in DISTANCES)
    return f'{near + far} of {len(runs)} runs were undisturbed, {near} with near CPUs and {far} with far ones' + (f'; {crowded} more were on crowded ones.' if crowded else '.')


def with_block(page, name, text):
    """The page with another text between the block's marks; None if it has no such block."""
    pattern = re.compile(rf'(<!-- {name} -->\n).*?(<!-- end {name} -->\n)', re.DOTALL)
    return pattern.sub(lambda m: m[1] + text.strip('\n') + '\n' + m[2], page) if pattern.search(page) else None


def write_tables(args):
    with open(args.page, encoding='utf-8') as f:
        page = f.read()
    for name in args.parts:
        path = path_of(args, name)
        if not os.path.exists(path):
            print(f'{name}: {path} is not there; its table stays as it is', file=sys.stderr)
            continue
        told = subprocess.run(command(name, '--doc', path), capture_output=True, text=True, check=False)
        if told.returncode != 0:
            raise Failure(told.stderr.strip() or f'{name}: no table')
        note = disturbance(read_rows(path, []))
        renewed = with_block(page, name, told.stdout.strip('\n') + (f'\n\n{note}' if note else ''))
        if renewed is None:
            raise Failure(f'{args.page} has no block {name}')
        page = renewed
        print(f'{name}: written', file=sys.stderr)
    with open(args.page, 'w', encoding='utf-8') as f:
        f.write(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--build', default=os.path.join(HERE, '..', 'build'), help='build directory (build)')
    parser.add_argument('--doc', action='store_true', help='measure nothing; write the tables into the page')
    parser.add_argument('--fstack', metavar='DIR', help="F-Stack's source tree, built: peers.py")
    parser.add_argument('--page', default=PAGE, help='which page (docs/performance.md)')
    parser.add_argument('parts', nargs='*', help=f'of {", ".join(PARTS)} (all)')
    args = parser.parse_args()
    unknown = [name for name in args.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part '{unknown[0]}': there are {', '.join(PARTS)}")
    args.parts = args.parts or list(PARTS)
    end_by_exit()
    try:
        failed = [] if args.doc else measure(args)
        if args.doc:
            write_tables(args)
    except (Failure, OSError) as e:
        sys.exit(f'all.py: {e}')
    if failed:
        sys.exit(f'all.py: without result: {", ".join(failed)}')


if __name__ == '__main__':
    main()
