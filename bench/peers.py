#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Two stacks inside isobench beside two of F-Stack's, on the same two CPUs, over the same wire (net_memif), by the same sources of isobench.

F-Stack is no part of this project: --fstack names its source tree, where its library has been built for the DPDK that is installed here; bench/peers/ makes isobench over it. Runs are
interleaved, probed and judged as those of marks.py are. `--doc FILE` measures nothing and makes the table of a CSV file that an earlier run wrote. Needs root.
"""
import contextlib
import os

import marks
from lab import HERE, Failure, arguments, chosen, laboratory, report, rows_file, run, told

SERVER, CLIENT, NETWORK, PORT = '10.79.0.2', '10.79.0.1', '10.79.0.255', 7000
WORKLOADS = ['rr1', 'rr64', 'rr256', 'rr16384', 'msg128', 'tx1', 'rx1', 'crr64']
# (workload, what is compared, how many times at least, in words)
MARKS = [
    ('rr1', 'p50', 2, 'request/response 64 B, 1 connection: p50 at most 1/2'),
    ('rr1', 'p99', 1, 'the same: p99 ahead'),
    ('rr64', 'rate', 1, '64 connections: ahead'),
    ('rr64', 'p99', 1, 'the same: p99'),
    ('rr256', 'rate', 1, '256 connections: ahead'),
    ('rr16384', 'rate', 1, '16,384 connections: ahead'),
    ('msg128', 'rate', 1, 'stream of 64 B messages, 128 connections: ahead'),
    ('tx1', 'gbits', 1, 'bulk, 1 connection, MTU 1500: ahead'),
    ('rx1', 'gbits', 1, 'bulk from the server: ahead'),
    ('crr64', 'rate', 2, 'connect, request, close, 64 connections: at least 2 x'),
    ('crr64', 'p99', 1, 'the same: p99 ahead'),
]
VARIANTS = ['fstack', 'pair']

# What is not FreeBSD's: no hugepages and as much memory as the pair has, frames sent at once, no sleep when idle, sums in software since the driver has none.
DEVICE = '''[dpdk]
lcore_mask={mask:x}
channel=4
no_huge=1
memory=1024
promiscuous=1
numa_on=0
tx_csum_offoad_skip=0
tso=0
vlan_strip=1
idle_sleep=0
pkt_tx_delay=0
port_list=0
nb_vdev=0
nb_bond=0
[pcap]
enable=0
[port0]
addr={own}
netmask=255.255.255.0
broadcast={broadcast}
gateway={peer}
'''


class Peers:
    def __init__(self, lab, seconds, fstack):
        self.lab, self.seconds = lab, seconds
        self.program = os.path.join(lab.tmp, 'isobench-fstack')
        run(os.path.join(HERE, 'peers', 'fstack.sh'), fstack, self.program, timeout=120)
        try:
            with open(os.path.join(fstack, 'config.ini'), encoding='utf-8') as f:
                freebsd = f.read().partition('\n[freebsd.boot]')
        except OSError as e:
            raise Failure(f'{e.filename}: {e.strerror}') from None
        for side, cpu, own, peer in (('server', lab.cpus[0], SERVER, CLIENT), ('client', lab.cpus[1], CLIENT, SERVER)):
            with open(self.path(side), 'w', encoding='utf-8') as f:
                f.write(DEVICE.format(mask=1 << cpu, own=own, peer=peer, broadcast=NETWORK) + ''.join(freebsd[1:]))

    def path(self, side):
        return os.path.join(self.lab.tmp, f'fstack-{side}.ini')

    @property
    def wire(self):
        return os.path.join(self.lab.tmp, 'fstack-wire')

    def words(self, side, *bench):
        return [self.program, self.path(side), f'net_memif0,role={side},id=0,socket-abstract=no,socket={self.wire},rsize=11,bsize=2048', *bench]

    def fstack(self, words):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.wire)  # the last run's server was ended by a signal
        job, _ = self.lab.start('fstack-serve', *self.words('server', 'serve', f'{SERVER}:{PORT}', '--spin'), urgent=True)
        try:
            return report(*self.words('client', words[0], f'{SERVER}:{PORT}', '--spin', *words[1:], '-d', str(self.seconds), '--json'), timeout=self.seconds + 90)
        finally:
            self.lab.stop(job)

    def run(self, workload, variant):
        words, mtu = marks.WORKLOADS[workload]
        results = self.fstack(words) if variant == 'fstack' else marks.pair(self.lab, words, mtu, self.seconds)
        return marks.figures(results, f'{workload} on {variant}')


def table(rows, workloads):
    rounds = marks.rounds_of(rows)
    return '\n'.join([marks.HEAD.replace('compared with', 'F-Stack'),
                      *(marks.line(rounds, (name, 'pair'), (name, 'fstack'), what, least, words) for name, what, least, words in MARKS if name in workloads)])


def main():
    parser = arguments(__doc__, rounds=4, patience=20)
    parser.add_argument('--fstack', metavar='DIR', help="F-Stack's source tree, built")
    parser.add_argument('workloads', nargs='*', help=f'of {", ".join(WORKLOADS)} (all)')
    args = parser.parse_args()
    args.workloads = chosen(parser, args.workloads, WORKLOADS, 'workload')
    if told(args.doc, marks.COLUMNS, lambda rows: table(rows, args.workloads)):
        return
    if not args.fstack:
        parser.error('--fstack DIR is needed')
    with laboratory(args) as lab, rows_file(args.csv, marks.COLUMNS) as write:
        rows = marks.measure(args, lab, write, Peers(lab, args.seconds, args.fstack).run, lambda _: VARIANTS)
    print(table(rows, args.workloads))


if __name__ == '__main__':
    main()
