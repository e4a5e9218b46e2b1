#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""That isowire, as bench/lossy.py starts it, does to frames what it is told: else the bench's figures are of another path.

    wire.py BUILD                 the test
    wire.py receive ADDR N WAIT_S a receiver: how many of N datagrams come, when, and how late the earliest
    wire.py send ADDR N SIZE GAP_US
"""
import json
import os
import shutil
import socket
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', '..', 'bench'))
from lab import Failure, Lab, run, wait_for  # noqa: E402
from lossy import CLIENT, SERVER, output, plain_frames, prefix, start_wire  # noqa: E402

PORT = 7001
SO_RCVBUFFORCE = 33
FRAME_BYTES = 66  # what a datagram takes on the wire beside its bytes: headers, 24 bytes around the frame


def receive(address, n, wait_s):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    s.bind((address, PORT))
    s.settimeout(15)
    print('ready', flush=True)
    at, least = [], None
    try:
        while len(at) < n:
            data = s.recv(2000)
            at.append(time.monotonic_ns())
            late = at[-1] - int.from_bytes(data[:8], 'big')
            least = late if least is None else min(least, late)
            s.settimeout(wait_s)
    except TimeoutError:
        pass
    print(json.dumps({'count': len(at), 'span_s': (at[-1] - at[0]) / 1e9 if at else 0, 'least_ms': (least or 0) / 1e6}))


def send(address, n, size, gap_us):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for i in range(n):
        s.sendto(time.monotonic_ns().to_bytes(8, 'big') + bytes(size - 8), (address, PORT))
        if gap_us and i % 10 == 9:
            time.sleep(gap_us / 1e5)


class Bench:
    def __init__(self, lab):
        self.lab = lab
        self.ends = {CLIENT: lab.namespace('c'), SERVER: lab.namespace('s')}
        self.wire = lab.namespace('w')
        for (address, ns), link in zip(self.ends.items(), ('w0', 'w1')):
            lab.veth(ns, 'v0', self.wire, link)
            run('ip', '-n', ns, 'addr', 'add', f'{address}/24', 'dev', 'v0')
            plain_frames(ns, 'v0')
        plain_frames(self.wire, 'w0', 'w1')

    def pass_datagrams(self, path, source, n, size=1000, gap_us=100):
        """What comes of n datagrams from source to the other end."""
        target = SERVER if source == CLIENT else CLIENT
        me = [sys.executable, os.path.abspath(__file__)]
        wire = start_wire(self.lab, self.wire, path)
        try:
            # Addresses are asked for again until an answer is not lost.
            wait_for('an address', lambda: os.system(f'ip netns exec {self.ends[source]} ping -c 1 -W 1 -q {target} >/dev/null') == 0, wire)
            job, log = self.lab.start('receiver', *prefix(self.ends[target]), *me, 'receive', target, str(n), '1.5')
            wait_for('the receiver', lambda: 'ready' in output(log), job)
            run(*prefix(self.ends[source]), *me, 'send', target, str(n), str(size), str(gap_us))
            job.wait(20)
            return json.loads(output(log).splitlines()[1])
        finally:
            self.lab.stop(wire)


failures = 0


def expect(text, got, low, high):
    global failures
    ok = low <= got <= high
    failures += not ok
    print(f'{"ok" if ok else "NOT OK"}: {text}: {got:.6g}, expected {low:.6g} to {high:.6g}', flush=True)


def test(bench):
    for source in (CLIENT, SERVER):
        got = bench.pass_datagrams('delay:1ms', source, 1000)
        expect(f'from {source} nothing is lost', got['count'], 1000, 1000)
        # Four deviations of chance are 76.
        got = bench.pass_datagrams('loss:10%,delay:20ms,seed:3', source, 4000)
        expect(f'from {source} a tenth is lost', got['count'], 3524, 3676)
        # Its clock is read once for each burst: a frame that comes after that, while the wire waits for its CPU, counts as older.
        expect(f'from {source} the earliest comes after its delay, in ms', got['least_ms'], 15, 30)
        # All at once: what the queue does not hold is dropped, the rest leaves at the rate.
        size, rate, queue_s = 1000, 1e6, 1
        got = bench.pass_datagrams(f'rate:1M,queue:{queue_s * 1000:g}ms,delay:1ms', source, 2000, size, 0)
        held = queue_s * rate / (size + FRAME_BYTES)
        expect(f'from {source} the queue holds its time', got['count'], held, 1900)
        expect(f'from {source} the rate, in bytes per second', (got['count'] - 1) * (size + FRAME_BYTES) / got['span_s'], 0.9 * rate, 1.1 * rate)


def main():
    if sys.argv[1] == 'receive':
        return receive(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    if sys.argv[1] == 'send':
        return send(sys.argv[2], *map(int, sys.argv[3:6]))
    if os.geteuid() != 0 or os.system('ip netns add isowireprobe 2>/dev/null && ip netns del isowireprobe') != 0:
        print('skipped: needs root and network namespaces')
        sys.exit(77)
    if shutil.which('ping') is None:
        print('skipped: there is no ping here (iputils-ping)')
        sys.exit(77)
    lab = Lab(sys.argv[1], [0])
    try:
        test(Bench(lab))
    except Failure as e:
        sys.exit(f'wire.py: {e}')
    finally:
        lab.close()
    sys.exit(failures > 0)


if __name__ == '__main__':
    main()
