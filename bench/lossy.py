#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Goodput over a bad path, beside the kernel: one stream, the same impairment, the same run.

The path loses, delays and narrows what passes in both directions (--path, the words of isosockd's impair=). Of this stack one end's port does that; two
kernels have it done by isowire, which forwards between them. For each congestion control the two are measured in turn, --rounds times; medians, and ratios
inside a round. Needs root (namespaces, veth, packet sockets); the kernel's control is set in its namespaces alone.

--impairments measures a list of such paths. --matrix measures a table of them, with either of the two at either end, for --minutes at the most; the cells that
there was no time for are missing. --share lets a flow of each meet at one bottleneck, and says how they divide it.
"""
import itertools
import json
import random
import statistics
import subprocess
import sys
import time

from lab import Failure, arguments, at_least, laboratory, rows_file, run, wait_for

NETWORK, SERVER, CLIENT, OTHER = '10.79.0.0/24', '10.79.0.2', '10.79.0.1', '10.79.0.3'
PATH = 'loss:1%,delay:10ms,rate:10M'
# What else a path may do, alone and together.
IMPAIRMENTS = ['delay:10ms,rate:10M', 'loss:0.1%,delay:10ms,rate:10M', 'loss:3%,delay:10ms,rate:10M', 'loss:1%,delay:1ms,rate:10M', 'loss:1%,delay:50ms,rate:10M',
               'reorder:2%,delay:10ms,rate:10M', 'dup:2%,delay:10ms,rate:10M', 'corrupt:1%,delay:10ms,rate:10M', 'loss:1%,reorder:2%,dup:1%,delay:10ms,rate:10M',
               'delay:10ms,rate:10M,queue:5ms']
LOSSES, RTTS_MS, REORDERS = (0, 0.1, 1, 3), (2, 20, 100), (0, 1, 10)
MATRIX_CONTROLS = ['cubic', 'bbr', 'reno']
WORSE = 0.95  # of the kernel's: such a cell is marked


def prefix(ns):
    return ['ip', 'netns', 'exec', ns]


def plain_frames(ns, *links):
    """What is forwarded or lost is a segment, not the large frame that a veth passes on uncut."""
    for link in links:
        run(*prefix(ns), 'ethtool', '-K', link, 'tso', 'off', 'gso', 'off', 'gro', 'off', 'tx', 'off')


def output(log):
    with open(log, encoding='utf-8') as f:
        return f.read()


def use_control(ns, control):
    """By route: a namespace's default may be none that is restricted."""
    run('ip', '-n', ns, 'route', 'replace', NETWORK, 'dev', 'v0', 'congctl', control)


def kernel_end(lab, ns, address):
    run('ip', '-n', ns, 'addr', 'add', f'{address}/24', 'dev', 'v0')
    # Each run starts without what the last one learned, as a daemon does.
    run(*prefix(ns), 'sysctl', '-qw', 'net.ipv4.tcp_no_metrics_save=1')
    plain_frames(ns, 'v0')


def start_wire(lab, ns, path):
    """isowire between w0 and w1."""
    wire, log = lab.start('wire', *prefix(ns), lab.app('isowire'), '--no-pci', '--vdev=net_af_packet0,iface=w0',
                          '--vdev=net_af_packet1,iface=w1', '--', path, urgent=True)
    wait_for('isowire', lambda: 'ready' in output(log), wire)
    return wire


def start_daemon(lab, ns, name, address, control, port):
    """A stack on v0; its job and its control socket."""
    socket = f'{lab.tmp}/{name}.sock'
    job, log = lab.start(name, *prefix(ns), lab.app('isosockd'), '--no-pci', '--vdev=net_af_packet0,iface=v0', '--', '--address', f'{address}/24',
                         '--control', socket, '--congestion', control, '--port', port, urgent=True)
    wait_for(f'isosockd ({name})', lambda: 'isosockd: ready' in output(log), job)
    return job, socket


def on_kernel(lab, ns, *words):
    return [*prefix(ns), lab.bench, *words]


def on_stack(lab, ns, socket, *words):
    return [*prefix(ns), lab.app('isosock'), '--control', socket, 'run', '--', lab.bench, *words]


def receive(command, seconds):
    """Bytes per second that a stream brings."""
    return json.loads(run(*command, 'rx', f'{SERVER}:7000', '-d', str(seconds), '--json', timeout=seconds + 40))['bytes_per_s']


class Jobs:
    """What a measurement starts, stopped in turn at its end."""

    def __init__(self, lab):
        self.lab, self.jobs = lab, []

    def __enter__(self):
        return self

    def add(self, job):
        self.jobs.append(job)

    def __exit__(self, *_):
        for job in reversed(self.jobs):
            self.lab.stop(job)


class Kernel:
    """Two kernels with a wire between them."""

    def __init__(self, lab):
        self.lab = lab
        self.client, self.wire, self.server = (lab.namespace(n) for n in ('kc', 'kw', 'ks'))
        for ns, link, address in ((self.client, 'w0', CLIENT), (self.server, 'w1', SERVER)):
            lab.veth(ns, 'v0', self.wire, link)
            kernel_end(lab, ns, address)
        plain_frames(self.wire, 'w0', 'w1')

    def measure(self, control, path, seconds):
        for ns in (self.client, self.server):
            use_control(ns, control)
        with Jobs(self.lab) as jobs:
            jobs.add(start_wire(self.lab, self.wire, path))
            jobs.add(self.lab.start('kernel-server', *on_kernel(self.lab, self.server, 'serve', f'{SERVER}:7000'))[0])
            time.sleep(0.3)
            return receive(on_kernel(self.lab, self.client), seconds)


class Stack:
    """Two of this stack's daemons, joined by a veth."""

    def __init__(self, lab):
        self.lab = lab
        self.client, self.server = (lab.namespace(n) for n in ('sc', 'ss'))
        lab.veth(self.client, 'v0', self.server, 'v0')
        for ns in (self.client, self.server):
            plain_frames(ns, 'v0')

    def measure(self, control, path, seconds):
        with Jobs(self.lab) as jobs:
            job, server = start_daemon(self.lab, self.server, 'server', SERVER, control, '0')
            jobs.add(job)
            job, client = start_daemon(self.lab, self.client, 'client', CLIENT, control, f'0,impair={path}')
            jobs.add(job)
            jobs.add(self.lab.start('stack-server', *on_stack(self.lab, self.server, server, 'serve', f'{SERVER}:7000'))[0])
            time.sleep(0.5)
            return receive(on_stack(self.lab, self.client, client), seconds)


class Mixed:
    """This stack at one end, whose port has the path, and the kernel at the other."""

    def __init__(self, lab, stack_sends):
        self.lab, self.stack_sends = lab, stack_sends
        name = 's' if stack_sends else 'k'
        self.stack, self.kernel = lab.namespace(f'm{name}s'), lab.namespace(f'm{name}k')
        lab.veth(self.stack, 'v0', self.kernel, 'v0')
        plain_frames(self.stack, 'v0')
        kernel_end(lab, self.kernel, CLIENT if stack_sends else SERVER)

    def measure(self, control, path, seconds):
        use_control(self.kernel, control)
        with Jobs(self.lab) as jobs:
            job, socket = start_daemon(self.lab, self.stack, 'stack', SERVER if self.stack_sends else CLIENT, control, f'0,impair={path}')
            jobs.add(job)
            stack, kernel = on_stack(self.lab, self.stack, socket), on_kernel(self.lab, self.kernel)
            sender, receiver = (stack, kernel) if self.stack_sends else (kernel, stack)
            jobs.add(self.lab.start('mixed-server', *sender, 'serve', f'{SERVER}:7000')[0])
            time.sleep(0.5)
            return receive(receiver, seconds)


class Shared:
    """A sender on the kernel and one on this stack, joined by a bridge, and behind one wire a kernel that receives from both."""

    def __init__(self, lab):
        self.lab = lab
        self.hub, self.kernel, self.stack, self.client = (lab.namespace(n) for n in ('hw', 'hk', 'hs', 'hc'))
        run('ip', '-n', self.hub, 'link', 'add', 'br0', 'type', 'bridge')
        run('ip', '-n', self.hub, 'link', 'set', 'br0', 'up')
        for ns, port in ((self.kernel, 'p0'), (self.stack, 'p1')):
            lab.veth(ns, 'v0', self.hub, port)
            run('ip', '-n', self.hub, 'link', 'set', port, 'master', 'br0')
        lab.veth(self.hub, 'w0', self.hub, 'p2')
        run('ip', '-n', self.hub, 'link', 'set', 'p2', 'master', 'br0')
        lab.veth(self.client, 'v0', self.hub, 'w1')
        plain_frames(self.hub, 'w0', 'w1', 'p0', 'p1', 'p2')
        plain_frames(self.stack, 'v0')
        kernel_end(lab, self.kernel, OTHER)
        kernel_end(lab, self.client, CLIENT)

    def measure(self, control, path, seconds):
        """Bytes per second of the kernel's flow and of the stack's."""
        use_control(self.kernel, control)
        with Jobs(self.lab) as jobs:
            jobs.add(start_wire(self.lab, self.hub, path))
            job, socket = start_daemon(self.lab, self.stack, 'stack', SERVER, control, '0')
            jobs.add(job)
            jobs.add(self.lab.start('kernel-server', *on_kernel(self.lab, self.kernel, 'serve', f'{OTHER}:7000'))[0])
            jobs.add(self.lab.start('stack-server', *on_stack(self.lab, self.stack, socket, 'serve', f'{SERVER}:7000'))[0])
            time.sleep(0.5)
            clients = [subprocess.Popen(on_kernel(self.lab, self.client, 'rx', f'{a}:7000', '-d', str(seconds), '--json'), stdout=subprocess.PIPE,
                                        text=True) for a in (OTHER, SERVER)]
            try:
                return [json.loads(c.communicate(timeout=seconds + 40)[0])['bytes_per_s'] for c in clients]
            except (json.JSONDecodeError, subprocess.TimeoutExpired) as e:
                raise Failure(f'a receiver of two: {e}') from None
            finally:
                for c in clients:
                    c.kill()
                    c.wait()


def measure(lab, args, side, control, path):
    """MB/s."""
    lab.await_quiet(args.patience)
    return round(side.measure(control, path, args.seconds) / 1e6, 3)


def compare(lab, args, paths):
    """Both ends of a kind, path by path."""
    sides = {'kernel': Kernel(lab), 'isosock': Stack(lab)}
    with rows_file(args.csv, ['path', 'control', 'round', *sides]) as write:
        for path in paths:
            print(f'{path}: goodput in MB/s, median of {args.rounds} runs of {args.seconds:g} s', flush=True)
            for control in args.controls:
                rows = []
                for turn in range(1, args.rounds + 1):
                    row = {name: measure(lab, args, side, control, f'{path},seed:{turn}') for name, side in sides.items()}
                    write({'path': path, 'control': control, 'round': turn, **row})
                    rows.append(row)
                kernel, stack = ([row[name] for row in rows] for name in sides)
                ratios = [s / k for s, k in zip(stack, kernel)]
                print(f'  {control:8} kernel {statistics.median(kernel):8.3f}   isosock {statistics.median(stack):8.3f}   x{statistics.median(ratios):.2f}'
                      f'   ({", ".join(f"{r:.2f}" for r in ratios)})', flush=True)


def share(lab, args):
    shared = Shared(lab)
    print(f'{args.path}: a flow of each at one bottleneck, MB/s over {args.seconds:g} s')
    with rows_file(args.csv, ['control', 'round', 'kernel', 'isosock']) as write:
        for control, turn in itertools.product(args.controls, range(1, args.rounds + 1)):
            lab.await_quiet(args.patience)
            kernel, stack = (round(r / 1e6, 3) for r in shared.measure(control, f'{args.path},seed:{turn}', args.seconds))
            write({'control': control, 'round': turn, 'kernel': kernel, 'isosock': stack})
            apart = abs(stack - kernel) / ((stack + kernel) / 2)
            print(f'  {control:8} kernel {kernel:8.3f}   isosock {stack:8.3f}   {apart:.0%} apart', flush=True)


def matrix_cells(controls):
    """Every cell once, in an order that is the same each time and has no preference: what the time suffices for is spread over the table."""
    cells = list(itertools.product(controls, LOSSES, RTTS_MS, REORDERS))
    random.Random(1).shuffle(cells)
    return cells


def path_of(loss, rtt_ms, reorder):
    words = [f'loss:{loss:g}%'] * (loss > 0) + [f'reorder:{reorder:g}%'] * (reorder > 0)
    return ','.join([*words, f'delay:{rtt_ms / 2:g}ms', 'rate:10M'])


def marked(rate, kernel):
    """Its share of the kernel's, with a mark if that is too little."""
    if kernel <= 0:
        return '-*'
    return f'{rate / kernel:.2f}{"*" if rate / kernel < WORSE else " "}'


def matrix(lab, args):
    sides = {'kernel': Kernel(lab), 'isosock': Stack(lab), 'isosock_sends': Mixed(lab, True), 'kernel_sends': Mixed(lab, False)}
    end = time.monotonic() + args.minutes * 60
    cells = matrix_cells(args.controls)
    header = ['control', 'loss_percent', 'rtt_ms', 'reorder_percent', *sides]
    rows = []
    with rows_file(args.csv, header) as write:
        for cell in cells:
            control, *path = cell
            if time.monotonic() >= end:
                break
            rates = [measure(lab, args, side, control, f'{path_of(*path)},seed:1') for side in sides.values()]
            rows.append([*cell, *rates])
            write(dict(zip(header, rows[-1])))
            print(f'{len(rows)} of {len(cells)}: {control} {path_of(*path)} {" ".join(f"{r:.2f}" for r in rates)}', file=sys.stderr)
    rows.sort()
    print(f'{len(rows)} of {len(cells)} cells, runs of {args.seconds:g} s: MB/s of two kernels, and what of it others have (below {WORSE}: *)')
    print('  '.join(header[:5]) + '   ' + '  '.join(f'{name:>14}' for name in header[5:]))
    for row in rows:
        print(f'{row[0]:7}  {row[1]:12g}  {row[2]:6}  {row[3]:15g}  {row[4]:6.2f}   ' + '  '.join(f'{marked(rate, row[4]):>14}' for rate in row[5:]))


def main():
    parser = arguments(__doc__, seconds=20, patience=0)
    parser.add_argument('--path', default=PATH, help='what the path does (%(default)s)')
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('--impairments', action='store_true', help='path by path: losses, reordering, copies, flipped bits, a short queue')
    kind.add_argument('--matrix', action='store_true', help='loss x round-trip time x reordering x control, either stack at either end')
    kind.add_argument('--share', action='store_true', help='how a flow of each divides a bottleneck')
    parser.add_argument('--minutes', type=at_least(0), default=30, help='of the matrix, at the most (%(default)s)')
    parser.add_argument('controls', nargs='*', help='congestion controls (cubic, bbr; of the matrix reno too)')
    args = parser.parse_args()
    args.controls = args.controls or (MATRIX_CONTROLS if args.matrix else ['cubic', 'bbr'])
    with laboratory(args) as lab:
        if args.matrix:
            matrix(lab, args)
        elif args.share:
            share(lab, args)
        else:
            compare(lab, args, IMPAIRMENTS if args.impairments else [args.path])


if __name__ == '__main__':
    main()
