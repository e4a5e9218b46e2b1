#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Programs that know nothing of this stack, on it and on the kernel side by side: nginx, redis, sockperf, iperf3, with the kernel's client of each at the other end.

The server and its stack share the first CPU, the client has the second. The wire is a veth pair; the stack takes its end by net_af_packet: a daemon for all servers (packet), or each
server's own inside it (embedded); or by its own packet wire (wire, embedded-wire). Servers and stacks are started once, before all other programs (nice -20), as the clients are; runs are interleaved, the CPUs' distance probed around each and disturbed ones repeated, as in compare.py. The client is told the time to run or a number of requests; what it says
is the result. CPU time is that of the server's processes, of its stack and of the first CPU's softirq thread. In all variants alike it includes the receiving side of the client's kernel: a
veth passes a frame on within the sender's call; and so the kernel's server has much of its work done on the client's CPU, which its own CPU time does not show, but that of both sides does.
A stack that polls uses all that it gets, so its figure is an upper bound.
"""
import json
import os
import re
import sys

from compare import Kernel, Packet, Plain, Wire, ratios
from lab import OBSERVED, Failure, arguments, chosen, circumstances, jobs_ns, laboratory, median, observe, own_children_ns, rows_file, run, task_ns, times, told, wait_for

PAGE_BYTES = 600
NGINX_PORT, REDIS_PORT, SOCKPERF_PORT, IPERF_PORT = 8080, 6379, 11111, 5201
REDIS_REQUESTS_PER_S = 100000  # so many are asked for, for each second that a run should take


def nginx(lab, variant):
    """Its words; it serves one page. One worker, since there is one CPU for it."""
    root = os.path.join(lab.tmp, variant.name('nginx'))
    os.makedirs(root, exist_ok=True)
    with open(os.path.join(root, 'page'), 'w', encoding='ascii') as f:
        f.write('x' * PAGE_BYTES)
    conf = os.path.join(root, 'conf')
    with open(conf, 'w', encoding='ascii') as f:
        f.write(f"""user root; daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; open_file_cache max=16; open_file_cache_valid 60s;
  server {{ listen {variant.address(2)}:{NGINX_PORT}; root {root}; }}
}}
""")
    return ['nginx', '-e', f'{root}/error.log', '-c', conf]


def server(lab, variant, program):
    """Its words."""
    if program == 'nginx':
        return nginx(lab, variant)
    return {'redis': ['redis-server', '--bind', variant.address(2), '--port', str(REDIS_PORT), '--save', '', '--protected-mode', 'no', '--dir', lab.tmp],
            'sockperf': ['sockperf', 'server', '--tcp', '-i', variant.address(2), '-p', str(SOCKPERF_PORT)],
            'iperf3': ['iperf3', '-s', '-B', variant.address(2), '-p', str(IPERF_PORT)]}[program]


PORTS = {'nginx': NGINX_PORT, 'redis': REDIS_PORT, 'sockperf': SOCKPERF_PORT, 'iperf3': IPERF_PORT}


class Embedded(Packet):
    """A stack inside the server, which is the only one on its wire."""
    text = 'stack inside, net_af_packet, kernel client'
    first_number = 100

    def __init__(self, lab, program):
        super().__init__(lab)
        self.program = program
        self.number = self.first_number + list(PORTS).index(program)

    port = '0'
    device = '--vdev=net_af_packet0,iface=ends'

    def name(self, part):
        return f'{type(self).__name__.lower()}{self.number}{part}'

    def stacks(self):
        conf = os.path.join(self.lab.tmp, self.name('.conf'))
        with open(conf, 'w', encoding='ascii') as f:
            f.write(f"""[isosock]
address = {self.address(2)}/24
port-min = 1024
port-max = 65535
port = {self.port}
eal = -l {self.lab.cpus[0]} --no-pci {self.device}
""")
        self.server_prefix = [*self.stack_prefix, self.lab.app('isosock'), 'run', '--embedded', conf, '--']


class EmbeddedWire(Embedded):
    text = 'stack inside, packet wire, kernel client'
    first_number = 120
    offloads = True
    port = 'packet,interface=ends'
    device = ''


def number(pattern, text):
    found = re.search(pattern, text)
    if not found:
        raise Failure(f'no result in: {text.strip()[-200:]}')
    return float(found[1])


def wrk(address, seconds, *words):
    return (['wrk', '-t1', '-c64', f'-d{max(1, round(seconds))}s', *words, f'http://{address}:{NGINX_PORT}/page'],
            lambda text: number(r'Requests/sec:\s*([\d.]+)', text))


def redis(address, seconds, *words):
    return (['redis-benchmark', '-h', address, '-p', str(REDIS_PORT), '-t', 'get', '-n', str(int(REDIS_REQUESTS_PER_S * seconds)), '--csv', *words],
            lambda text: number(r'"GET","([\d.]+)"', text))


def sockperf(address, seconds):
    """Round trips a second, of its mean one-way latency."""
    return (['sockperf', 'ping-pong', '--tcp', '-i', address, '-p', str(SOCKPERF_PORT), '-m', '64', '-t', str(max(1, round(seconds)))],
            lambda text: 1e6 / (2 * number(r'Latency is ([\d.]+) usec', text)))


def iperf(address, seconds, *words):
    """Bytes a second."""
    return (['iperf3', '-c', address, '-p', str(IPERF_PORT), '-t', str(max(1, round(seconds))), '-J', *words],
            lambda text: json.loads(text)['end']['sum_received']['bits_per_second'] / 8)


# name: (its client's command and how to read what it prints, what a figure counts, the least that is aimed at, times the kernel's)
WORKLOADS = {
    'nginx': (lambda a, s: wrk(a, s), 'requests', 1.5),
    'nginx-close': (lambda a, s: wrk(a, s, '-H', 'Connection: close'), 'requests', 1.5),
    'redis': (lambda a, s: redis(a, s, '-c', '50'), 'requests', None),
    'redis-16': (lambda a, s: redis(a, 4 * s, '-c', '50', '-P', '16'), 'requests', None),
    'sockperf': (lambda a, s: sockperf(a, s), 'round trips', None),
    'iperf3': (lambda a, s: iperf(a, s), 'bytes', None),
    'iperf3-R': (lambda a, s: iperf(a, s, '-R'), 'bytes', None),
}
VARIANTS = {'kernel': Kernel, 'plain': Plain, 'packet': Packet, 'embedded': Embedded, 'wire': Wire, 'embedded-wire': EmbeddedWire}


def program_of(workload):
    return workload.split('-')[0]


def cpu_ns(lab, jobs):
    """CPU time that the jobs and their children have used, and the first CPU's softirq thread, which may do part of the kernel's work."""
    return jobs_ns(jobs) + task_ns(lab.softirqs[0])


class Host:
    """A variant with servers on it."""

    def __init__(self, lab, variant, programs):
        self.lab, self.variant = lab, variant
        variant.wires()
        variant.stacks()
        for program in programs:
            job, _ = lab.start(variant.name(program), *variant.server_prefix, 'taskset', '-c', str(lab.cpus[0]), *server(lab, variant, program), urgent=True)
            variant.measured.append(job)
            wait_for(f'{variant.text}: {program}', lambda: self.answers(PORTS[program]), job)

    def answers(self, port):
        try:
            run(*self.variant.client_prefix, 'bash', '-c', f'exec 3<>/dev/tcp/{self.variant.address(2)}/{port}', timeout=3)
            return True
        except Failure:
            return False

    def client(self, workload, seconds):
        words, read = WORKLOADS[workload][0](self.variant.address(2), seconds)
        text = run(*self.variant.client_prefix, 'taskset', '-c', str(self.lab.cpus[1]), *words, timeout=20 * seconds + 20, urgent=True)
        return read(text)

    def measure(self, workload, seconds):
        begin_s, begin_ns, client_ns = os.times().elapsed, cpu_ns(self.lab, self.variant.measured), own_children_ns()
        rate = self.client(workload, seconds)
        took_s = os.times().elapsed - begin_s
        busy = (cpu_ns(self.lab, self.variant.measured) - begin_ns) / 1e9 / took_s
        return {'rate': rate, 'busy': busy, 'client_busy': (own_children_ns() - client_ns) / 1e9 / took_s, 'per_cpu_s': rate / busy}


def hosts(lab, variants, workloads):
    """By variant and workload: a variant has one for all, unless each program has its own stack."""
    found = {}
    programs = list(dict.fromkeys(program_of(workload) for workload in workloads))
    for name in variants:
        if issubclass(VARIANTS[name], Embedded):
            alone = {program: Host(lab, VARIANTS[name](lab, program), [program]) for program in programs}
        else:
            alone = dict.fromkeys(programs, Host(lab, VARIANTS[name](lab), programs))
        found.update({(name, workload): alone[program_of(workload)] for workload in workloads})
    return found


def table(rows):
    for row in rows:
        if row.get('busy') and row.get('client_busy'):
            row['per_both_s'] = row['rate'] / (row['busy'] + row['client_busy'])
    lines = ['| program | variant | runs | per second | CPU | client CPU | rate : kernel | per CPU second : kernel | of both sides | goal |',
             '| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |']
    for workload in dict.fromkeys(row['workload'] for row in rows):
        of_workload = [row for row in rows if row['workload'] == workload]
        reference = [row for row in of_workload if row['variant'] == Kernel.text]
        goal = WORKLOADS[workload][2]
        for variant in dict.fromkeys(row['variant'] for row in of_workload):
            mine = [row for row in of_workload if row['variant'] == variant]
            good = [row for row in mine if row['valid']]
            cells = [f'{workload}, {WORKLOADS[workload][1]}', variant, f'{len(good)} of {len(mine)}']
            for key, form in (('rate', '.0f'), ('busy', '.0%'), ('client_busy', '.0%')):
                value = median([row.get(key) for row in good])
                cells.append('-' if value is None else format(value, form))
            for key in ('rate', 'per_cpu_s', 'per_both_s'):
                cells.append(times(ratios(good, reference, key)))
            cells.append(f'{goal} x; per CPU second 2 x' if goal and variant not in (Kernel.text, Plain.text) else '')
            lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def compare(lab, args, write):
    found = hosts(lab, args.variants, args.workloads)
    rows = []
    for number_ in range(args.rounds):
        for workload in args.workloads:
            for name in args.variants:
                host = found[name, workload]
                lab.run_only(host.variant.measured)
                row = observe(lab, lambda: host.measure(workload, args.seconds), args.patience)
                row.update(variant=host.variant.text, workload=workload, round=number_)
                rows.append(row)
                write(row)
                print(f"{number_ + 1} {workload} {host.variant.text}: " + (row.get('error') or f"{row['rate']:.0f}/s, {row['busy']:.0%} busy") +
                      f" ({circumstances(row)})", file=sys.stderr)
    return rows


COLUMNS = ['round', 'workload', 'variant', *OBSERVED, 'rate', 'busy', 'client_busy', 'per_cpu_s', 'error']


def main():
    parser = arguments(__doc__)
    parser.add_argument('--variants', nargs='+', default=list(VARIANTS), choices=list(VARIANTS), metavar='V', help=', '.join(VARIANTS))
    parser.add_argument('workloads', nargs='*', help=f'of {", ".join(WORKLOADS)} (all)')
    args = parser.parse_args()
    args.workloads = chosen(parser, args.workloads, WORKLOADS, 'workload')
    if told(args.doc, COLUMNS, table):
        return
    with laboratory(args) as lab, rows_file(args.csv, COLUMNS) as write:
        rows = compare(lab, args, write)
    print(table(rows))


if __name__ == '__main__':
    main()
