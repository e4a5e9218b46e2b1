#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Draw where the time goes in each mode, as flame graphs: isobench with the stack inside, on the sink wire, sampled by a timer.

usage: flame.py [MODE ...] [--role "tx -c 64 -s 64k"] [--out FOLDER] [--build DIR] [--csv FILE] | --doc FILE

perf takes the samples (cpu-clock, so that it works where there are no hardware counters) and unwinds by the debug information of the build. A box is a function; its width its share of the
samples, what it calls stands above it. The sink wire answers on the same thread: its boxes (sink_*) are the wire's, not the stack's. Printed are the functions with the largest shares of their own
and, for all modes together, the shares of the layers, by the static libraries that functions come from. Without modes all are drawn. Needs perf and the right to use it.
"""
import argparse
import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
from html import escape

from lab import HERE, Failure, add_doc, at_least, rows_file, told

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
app-memory = 4095M
'''


# What runs on the program's own threads needs one CPU, what has workers beside them two.
CALLING_THREAD = ('up', 'msgp', 'connp-l')
MODES = ('up', 'msgp', 'connp-l,groups=128', 'connp-t', 'isostack', 'hybrid', 'misd')
LIBRARIES = {'src/tcp/libtcp.a': 'TCP', 'src/ip/libip.a': 'IP', 'src/core/libcore.a': 'core', 'src/sockets/libsockets.a': 'sockets', 'src/modes/libmodes.a': 'mode',
             'src/sockets/client/libfront.a': 'front-end', 'apps/embedded/libembedded.a': 'front-end', 'apps/sink/libsink.a': 'wire', 'apps/isobench/libisobench.a': 'isobench'}
LAYERS = ('isobench', 'front-end', 'sockets', 'mode', 'TCP', 'IP', 'core', 'DPDK', 'C library', 'kernel', 'wire', 'other')
COLUMNS = ['variant', *LAYERS]


class Box:
    def __init__(self):
        self.samples = 0
        self.above = {}


def layers_of(build):
    """Function -> layer, by the library that defines it."""
    layer = {}
    for library, name in LIBRARIES.items():
        # Not nm: of objects that are to be optimised across files its plugin tells only what other files see.
        symbols = subprocess.run(['readelf', '-sW', os.path.join(build, library)], capture_output=True, text=True, check=True).stdout
        for line in symbols.splitlines():
            words = line.split()
            if len(words) == 8 and words[3] == 'FUNC' and words[6] != 'UND':
                layer.setdefault(plain(words[7]), name)
    return layer


def plain(function):
    """A function's name without what the compiler has hung on to it."""
    return re.sub(r'\.(constprop|isra|part|cold|lto_priv)\b.*', '', function)


def record(args, mode, folder):
    """Run it under perf; returns the text of its samples."""
    conf, data = os.path.join(folder, 'stack.conf'), os.path.join(folder, 'perf.data')
    with open(conf, 'w', encoding='ascii') as f:
        f.write(CONFIGURATION.format(lcores='0' if mode.split(',')[0] in CALLING_THREAD else '0-1', mode=mode))
    role, *options = args.role.split()
    program = [os.path.join(args.build, 'apps/isobench/isobench-embedded'), '--stack', conf, role, '10.9.0.2:7000', *options, '-d', str(args.seconds)]
    done = subprocess.run(['perf', 'record', '-q', '-e', 'cpu-clock', '-F', str(HERTZ), '--call-graph', f'dwarf,{STACK_BYTES}', '-o', data, *program],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=args.seconds + 120)
    if done.returncode != 0:
        sys.exit(f'flame.py: {mode}: {done.stderr.strip() or done.stdout.strip()}')
    return subprocess.run(['perf', 'script', '-i', data, '-F', 'comm,ip,sym,dso', '--no-inline'], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=True, timeout=600).stdout


def stacks(text):
    """Lists of (function, object), the outermost first."""
    for sample in text.split('\n\n'):
        frames = [re.match(r'\s*[0-9a-f]+ (.*) \((.*)\)$', line) for line in sample.strip().splitlines()[1:]]
        stack = [(plain(f[1]) if f[1] != '[unknown]' else '?', f[2]) for f in reversed(frames) if f]
        if stack:
            yield stack


def layer_of(function, obj, layers):
    if obj.startswith('[') and 'vdso' not in obj:
        return 'kernel'
    if '/librte_' in obj or function.startswith('rte_'):
        return 'DPDK'
    if re.search(r'/(libc|ld-linux[^/]*)\.so|vdso', obj):
        return 'C library'
    return layers.get(function, 'other')


def fold(text, layers):
    root, own, share = Box(), collections.Counter(), collections.Counter()
    for stack in stacks(text):
        box = root
        box.samples += 1
        for name, _ in stack:
            box = box.above.setdefault(name, Box())
            box.samples += 1
        own[stack[-1][0]] += 1
        share[layer_of(*stack[-1], layers)] += 1
    return root, own, share


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


def draw_mode(args, mode, layers):
    """Write the mode's SVG; returns the layers' shares in percent."""
    with tempfile.TemporaryDirectory() as folder:
        root, own, share = fold(record(args, mode, folder), layers)
    if root.samples == 0:
        sys.exit(f'flame.py: {mode}: no samples')
    rows, out = depth(root), []
    draw(root, f'{mode}: {args.role}', 0, 1, WIDTH / root.samples, rows, out)
    path = os.path.join(args.out, re.sub(r'[^a-z0-9]+', '-', mode) + '.svg')
    with open(path, 'w', encoding='utf-8') as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {rows * ROW}" font-family="sans-serif" font-size="{FONT}">' + ''.join(out) + '</svg>\n')
    print(f'{mode}: {root.samples} samples, {path}')
    print('   ' + ', '.join(f'{name} {100 * samples / root.samples:.1f}%' for name, samples in own.most_common(12)))
    return {layer: 100 * share[layer] / root.samples for layer in LAYERS}


def table(shares):
    """shares: {mode: {layer: percent}}."""
    lines = ['| % of the samples | ' + ' | '.join(LAYERS) + ' |', '| --- ' * (len(LAYERS) + 1) + '|']
    for mode, share in shares.items():
        lines.append(f'| `{mode}` | ' + ' | '.join(f'{share[layer]:.0f}' if share.get(layer, 0) >= 0.5 else '-' for layer in LAYERS) + ' |')
    return '\n'.join(lines)


def measure(args):
    if shutil.which('perf') is None:
        sys.exit('flame.py: there is no perf')
    args.out = args.out or os.path.join(args.build, 'figures/flame')
    os.makedirs(args.out, exist_ok=True)
    layers = layers_of(args.build)
    shares = {}
    with rows_file(args.csv, COLUMNS) as write:
        for mode in args.modes:
            shares[mode] = draw_mode(args, mode, layers)
            write({'variant': mode, **{layer: round(percent, 2) for layer, percent in shares[mode].items()}})
    return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('modes', metavar='MODE', nargs='*', default=MODES)
    parser.add_argument('--build', default=os.path.join(HERE, '..', 'build'), help='build directory (build)')
    parser.add_argument('--role', default='tx -c 64 -s 64k', help='isobench\'s role and options; the sink answers tx and idle, and rr')
    parser.add_argument('--seconds', type=at_least(0.1), default=2)
    parser.add_argument('--out', help='folder for the drawings; figures/flame of the build directory if not given')
    parser.add_argument('--csv', help='the shares of the layers as a file')
    add_doc(parser)
    args = parser.parse_args()
    if told(args.doc, COLUMNS, lambda rows: table({row.pop('variant'): row for row in rows})):
        return
    try:
        shares = measure(args)
    except (Failure, subprocess.SubprocessError, OSError) as e:
        sys.exit(f'flame.py: {e}')
    print('\n' + table(shares))


if __name__ == '__main__':
    main()
