#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What an idle connection takes of memory, at each of its ends: in the stack, in the program, in the kernel.

Two daemons joined by net_memif; on either side as many programs (isobench serve, isobench idle) as the limit on descriptors asks for. All of them hold first a few connections, then all;
the difference, divided by the number, is what one takes. Each page of each process counts once: what several map is divided among them (PSS). What the kernel has is its
slabs and page tables, for both sides and for whatever else the machine does meanwhile, which the same difference with nothing held tells the size of. A connection has carried the few bytes by which isobench says what it
wants, from the client. isobench's own memory of a connection is in what the programs take.
"""
import argparse
import collections
import os
import re
import time

from lab import HERE, add_doc, at_least, cpu_list, laboratory, rows_file, run, told, wait_for

PER_PROGRAM = 16700  # connections; some descriptors are left for other things
FIRST_PORT = 7000
SIDES = ('server', 'client')
LEAST = 10000  # connections: with fewer, what else the machine does outweighs them
HOLD_SECONDS = 300
SET_UP_SECONDS = 90
SILENT_SECONDS = 45  # longer than --park has it by default, with the stack's look at all of them

# What a mapping's name in smaps stands for; the rest are programs and libraries.
MAPPINGS = [
    (r'memfd:isosock-front', 'sockets: words of the program, bytes to send'),
    (r'memfd:isosock-back', 'sockets: words of the stack'),
    (r'memfd:isosock-rx', 'receive buffers'),
    (r'memfd:', 'the wire'),
    (r'^$|\[heap\]|\[anon', 'private'),
]

# Slabs of /proc and of file names: they grow when somebody on the machine looks at the processes' descriptors.
FOREIGN_SLABS = ('proc_inode_cache', 'lsm_inode_cache', 'dentry')


def kinds(pid):
    """Bytes of each kind of mapping of a process."""
    found, kind = collections.Counter(), 'files'
    with open(f'/proc/{pid}/smaps', encoding='ascii') as f:
        for line in f:
            head = re.match(r'[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)', line)
            if head:
                kind = next((name for pattern, name in MAPPINGS if re.search(pattern, head[1])), 'files')
            elif line.startswith('Pss:'):
                found[kind] += int(line.split()[1]) * 1024
    return found


def kernel_bytes():
    with open('/proc/meminfo', encoding='ascii') as f:
        total = sum(int(line.split()[1]) * 1024 for line in f if line.startswith(('Slab:', 'PageTables:')))
    with open('/proc/slabinfo', encoding='ascii') as f:
        rows = [line.split() for line in f]
    return total - sum(int(row[2]) * int(row[3]) for row in rows if row[0] in FOREIGN_SLABS)


class Side:
    def __init__(self, lab, name, cpu, wire):
        self.lab, self.name, self.cpu = lab, name, cpu
        self.address = f'10.79.0.{1 + SIDES.index(name)}'
        self.daemon, self.on_stack = lab.daemon(f'idle-{name}', cpu, [], f'net_memif0,socket={wire},socket-abstract=no,role={name}', '--no-huge', '-m', '512', '--',
                                                '--address', f'{self.address}/24', '--max-connections', '131072', '--max-half-open', '65536')
        self.programs = []

    def program(self, *words):
        number = len(self.programs)
        job, _ = self.lab.start(f'idle-{self.name}{number}', *self.on_stack, 'taskset', '-c', str(self.cpu), self.lab.bench, *words)
        self.programs.append(job)

    def established(self):
        """As many connections as the stack has."""
        found = re.search(r'^connections (\d+)', run(*self.on_stack[:3], 'stats'), re.M)
        return int(found[1])

    def memory(self):
        programs = collections.Counter()
        for job in self.programs:
            programs += kinds(job.pid)
        return {'stack': kinds(self.daemon.pid), 'programs': programs}

    def stop(self):
        for job in [*self.programs, self.daemon]:
            self.lab.stop(job)


def hold(lab, connections):
    """Memory of all while so many connections are held."""
    programs = max(1, -(-connections // PER_PROGRAM))
    wire = os.path.join(lab.tmp, 'idle-wire')
    sides = []
    try:
        for name, cpu in zip(SIDES, lab.cpus):
            sides.append(Side(lab, name, cpu, wire))
        server, client = sides
        for i in range(programs):
            server.program('serve', f'{server.address}:{FIRST_PORT + i}')
        time.sleep(1)
        for i in range(programs):
            share = connections // programs + (i < connections % programs)
            client.program('idle', f'{server.address}:{FIRST_PORT + i}', '-c', str(share), '-d', str(HOLD_SECONDS))
        wait_for(f'{connections} connections', lambda: all(side.established() >= connections for side in sides), seconds=SET_UP_SECONDS)
        time.sleep(SILENT_SECONDS)
        return {**{side.name: side.memory() for side in sides}, 'kernel': kernel_bytes()}
    finally:
        for side in reversed(sides):
            side.stop()


def measure(lab, connections):
    """Rows of (side, whose, kind, bytes for each connection)."""
    held, kernel = [], []
    for n in (-(-connections // PER_PROGRAM), connections):
        kernel.append(kernel_bytes())
        held.append(hold(lab, n))
    few, many = held
    # The same difference with nothing held: what the rest of the machine did meanwhile, or has not given back yet.
    error = abs(kernel[1] - kernel[0]) / connections
    rows = []
    for side in SIDES:
        for whose in ('stack', 'programs'):
            for kind in sorted({*few[side][whose], *many[side][whose]}):
                rows.append((side, whose, kind, (many[side][whose][kind] - few[side][whose][kind]) / connections))
    rows.append(('both', 'kernel', f'slabs, page tables, of the whole machine: ± {error:.0f}', (many['kernel'] - few['kernel']) / connections))
    return rows


def table(rows):
    lines = ['| end | where | what | bytes |', '| --- | --- | --- | --- |']
    lines += [f'| {side} | {whose} | {kind} | {n:.0f} |' for side, whose, kind, n in rows if abs(n) >= 1]
    for side in SIDES:
        lines.append(f'| {side} | all but the kernel | | {sum(n for s, _, _, n in rows if s == side):.0f} |')
    lines.append(f'| both | all | | {sum(n for *_, n in rows):.0f} |')
    return '\n'.join(lines)


COLUMNS = ['side', 'whose', 'kind', 'bytes_per_connection']


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--build', default=os.path.join(HERE, '..', 'build'), help='build directory (build)')
    parser.add_argument('--cpus', type=cpu_list, default=None, help="the server's and the client's CPU (0,1)")
    parser.add_argument('--csv', help='the table as a file')
    add_doc(parser)
    parser.add_argument('connections', type=at_least(LEAST, int), nargs='?', default=100000)
    args = parser.parse_args()
    if told(args.doc, COLUMNS, lambda rows: table([tuple(row[c] for c in COLUMNS) for row in rows])):
        return
    with laboratory(args) as lab, rows_file(args.csv, COLUMNS) as write:
        rows = measure(lab, args.connections)
        for row in rows:
            write(dict(zip(COLUMNS, row)))
    print(table(rows))


if __name__ == '__main__':
    main()
