#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Draw where the time goes in a mode, as a flame graph: isobench with the stack inside, on the sink wire, sampled by a timer.

usage: flame.py [--mode MODE] [--role "tx -c 64 -s 64k"] [-o FILE.svg] [--build DIR]

perf takes the samples (cpu-clock, so that it works where there are no hardware counters) and unwinds by the debug information of the build. A box is a function; its width its share of the
samples, what it calls stands above it. The sink wire answers on the same thread: its boxes (sink_*) are the wire's, not the stack's. The functions with the largest shares of their own are
printed as well. Needs perf and the right to use it.
"""
import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
from html import escape

WIDTH, ROW, FONT = 1200, 16, 11
LEAST_PX = 0.4  # narrower boxes are left out
HERTZ = 499
STACK_BYTES = 8192

CONFIGURATION = '''[isosock]
eal = --lcores {lcores} --no-pci --no-huge -m 1024
address = 10.9.0.1/24
port = sink
mode = {mode}
idle = poll
app-memory = 8G
'''


class Box:
    def __init__(self):
        self.samples = 0
        self.above = {}


def record(args, folder):
    """Run it under perf; returns the text of its samples."""
    conf, data = os.path.join(folder, 'stack.conf'), os.path.join(folder, 'perf.data')
    with open(conf, 'w', encoding='ascii') as f:
        f.write(CONFIGURATION.format(lcores=args.lcores, mode=args.mode))
    role, *options = args.role.split()
    program = [os.path.join(args.build, 'apps/isobench/isobench-embedded'), '--stack', conf, role, '10.9.0.2:7000', *options, '-d', str(args.seconds)]
    done = subprocess.run(['perf', 'record', '-q', '-e', 'cpu-clock', '-F', str(HERTZ), '--call-graph', f'dwarf,{STACK_BYTES}', '-o', data, *program],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=args.seconds + 120)
    if done.returncode != 0:
        sys.exit(f'flame.py: {done.stderr.strip() or done.stdout.strip()}')
    print(done.stdout, end='')
    return subprocess.run(['perf', 'script', '-i', data, '-F', 'comm,ip,sym', '--no-inline'], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=True, timeout=600).stdout


def stacks(text):
    """Lists of functions, the outermost first."""
    for sample in text.split('\n\n'):
        lines = sample.strip().splitlines()[1:]
        names = [re.sub(r'\.(constprop|isra|part|cold)\..*', '', ' '.join(line.split()[1:])) for line in lines]
        if names:
            yield [name if name != '[unknown]' else '?' for name in reversed(names)]


def fold(text):
    root, own = Box(), collections.Counter()
    for stack in stacks(text):
        box = root
        box.samples += 1
        for name in stack:
            box = box.above.setdefault(name, Box())
            box.samples += 1
        own[stack[-1]] += 1
    return root, own


def depth(box):
    return 1 + max((depth(b) for b in box.above.values()), default=0)


def colour(name):
    if name.startswith('sink_'):
        return '#9ca3af'
    hue = sum(name.encode()) % 40
    return f'hsl({hue + (0 if name.startswith(("iso_", "sock_", "epoll", "front")) else 10)},85%,{62 + hue % 3 * 6}%)'


def draw(box, name, left, level, scale, rows, out):
    width = box.samples * scale
    if width < LEAST_PX:
        return
    y = (rows - level) * ROW
    letters = int(width / (FONT * 0.6))
    label = escape(name if len(name) <= letters else name[:max(0, letters - 1)] + '.') if letters > 3 else ''
    out.append(f'<g><title>{escape(name)}: {box.samples} samples, {100 * box.samples * scale / WIDTH:.1f}%</title>'
               f'<rect x="{left:.1f}" y="{y}" width="{max(width - 0.3, 0.1):.1f}" height="{ROW - 1}" fill="{colour(name)}"/>'
               f'<text x="{left + 2:.1f}" y="{y + FONT}">{label}</text></g>')
    for above, b in sorted(box.above.items()):
        draw(b, above, left, level + 1, scale, rows, out)
        left += b.samples * scale


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--build', default='build')
    parser.add_argument('--mode', default='up')
    parser.add_argument('--role', default='tx -c 64 -s 64k', help='isobench\'s role and options; the sink answers tx and idle, and rr')
    parser.add_argument('--lcores', default='0', help='as the EAL takes them')
    parser.add_argument('--seconds', type=float, default=2)
    parser.add_argument('-o', '--output', default='flame.svg')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, own = fold(record(args, folder))
    if root.samples == 0:
        sys.exit('flame.py: no samples')
    rows, out = depth(root), []
    draw(root, f'{args.mode}: {args.role}', 0, 1, WIDTH / root.samples, rows, out)
    with open(args.output, 'w', encoding='utf-8') as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {rows * ROW}" font-family="sans-serif" font-size="{FONT}">' + ''.join(out) + '</svg>\n')
    for name, samples in own.most_common(20):
        print(f'{100 * samples / root.samples:5.1f}%  {name}')
    print(f'{root.samples} samples, {args.output}')


if __name__ == '__main__':
    main()
