# SPDX-License-Identifier: BSD-3-Clause
"""What all measurements have in common: a laboratory of namespaces and processes that vanishes at its end, the probing of the CPUs' distance and speed, the judgement whether a run was
disturbed, rows of results in CSV files, and the arguments of the programs."""
import argparse
import contextlib
import csv
import errno
import io
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

# A run during which other programs had more of the CPUs than this says little: it is repeated, and gives no ratio. All of it may have been the one CPU's that the run waits for: of two, a
# twentieth of that one. On a quiet machine 98 runs of 100 stay below it.
DISTURBED = 0.03
# A run in which a CPU was slow for more than this: another guest of the host then had the other thread of its core. It stands apart, as one with far CPUs does.
CROWDED = 0.5
# A sample is slow that takes so many times as long as the fastest one.
SLOW = 1.25
REPEATS = 3

# Until jobs that stood still have caught up with their timers.
SETTLE_S = 0.2

# Lines of the log of a server that does not start.
LAST_WORDS = 5

# Between what the same core complex and what another one takes for a cache line there and back.
FAR_NS = 250
# What the CPUs of a run may be like; it says nothing beside one in which they were otherwise.
DISTANCES = ('near', 'far', 'crowded')


class Failure(Exception):
    pass


def raise_priority():
    """Other work on the machine gets what is left; where the kernel groups by session, that needs the group's own knob. Without the rights, nothing changes."""
    os.setsid()
    try:
        os.nice(-20)
        with open('/proc/self/autogroup', 'w', encoding='ascii') as f:
            f.write('-20')
    except OSError:
        pass


def finished(command, timeout, urgent):
    """A command that has ended, with its output; Failure if it is not there, or does not end."""
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False, preexec_fn=raise_priority if urgent else None)
    except subprocess.TimeoutExpired:
        raise Failure(f'{command[0]}: no end after {timeout} s') from None
    except OSError as e:
        raise Failure(f'{command[0]}: {"this program is missing" if e.errno == errno.ENOENT else e.strerror}') from None


def run(*command, timeout=20, urgent=False):
    """A short command; its output, or Failure with its last words. urgent: before all others."""
    done = finished(command, timeout, urgent)
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or '-').splitlines()[-1]
        raise Failure(f'{" ".join(command)}: status {done.returncode}: {words}')
    return done.stdout


def own_switches():
    """Context switches of the programs that ran for us and have ended: (all, involuntary ones)."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_nvcsw + usage.ru_nivcsw, usage.ru_nivcsw


def report(*command, timeout=20):
    """isobench's results, of a run before all others, and the context switches of the program. It ends with status 1 where connections failed; then they are in
    the results too."""
    before = own_switches()
    done = finished(command, timeout, True)
    if done.returncode in (0, 1) and done.stdout.startswith('{'):
        switches, involuntary = (now - then for now, then in zip(own_switches(), before))
        return {**json.loads(done.stdout), 'switches': switches, 'involuntary': involuntary}
    words = (done.stderr.strip() or '-').splitlines()[-1]
    raise Failure(f'{" ".join(command)}: status {done.returncode}: {words}')


def threads_ns(pid):
    """CPU time of a process's threads, to the nanosecond: {thread: time}."""
    found = {}
    try:
        for task in os.listdir(f'/proc/{pid}/task'):
            with open(f'/proc/{pid}/task/{task}/schedstat') as f:
                found[task] = int(f.read().split()[0])
    except OSError:
        pass
    return found


def task_ns(pid):
    """CPU time of all of them."""
    return sum(threads_ns(pid).values())


def group_of(pid):
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def jobs_ns(jobs):
    """CPU time of jobs and of what they have forked, as far as that still runs."""
    groups = {job.pid for job in jobs}
    return sum(task_ns(pid) for pid in map(int, filter(str.isdigit, os.listdir('/proc'))) if group_of(pid) in groups)


def own_children_ns():
    t = os.times()
    return int((t.user + t.system + t.children_user + t.children_system) * 1e9)


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_by_exit():
    """A signal that ends this program does so by SystemExit, with one line, so that what it has made is taken away; further ones find that under way."""
    def end(number, _):
        ignore_ends()
        print(f'{os.path.basename(sys.argv[0])}: stopped by {signal.Signals(number).name}', file=sys.stderr)
        sys.exit(128 + number)
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, end)


def ignore_ends():
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


class Lab:
    """What a comparison makes on the machine, and takes away again."""

    def __init__(self, build, cpus):
        self.build = os.path.abspath(build)
        self.cpus = cpus
        self.id = f'ib{os.getpid()}'
        self.namespaces = []
        self.jobs = []
        self.fastest_ns = None
        self.softirqs = [int(p) for cpu in cpus for p in run('pgrep', '-x', f'ksoftirqd/{cpu}').split()]
        self.tmp = tempfile.mkdtemp(prefix='isobench.')

    def app(self, name):
        return os.path.join(self.build, 'apps', name)

    @property
    def bench(self):
        return self.app('isobench/isobench')

    def namespace(self, name):
        ns = f'{self.id}{name}'
        self.namespaces.append(ns)
        run('ip', 'netns', 'add', ns)
        run('ip', '-n', ns, 'link', 'set', 'lo', 'up')
        for knob in ('all.disable_ipv6=1', 'default.disable_ipv6=1'):
            run('ip', 'netns', 'exec', ns, 'sysctl', '-qw', f'net.ipv6.conf.{knob}')
        run('ip', 'netns', 'exec', ns, 'sysctl', '-qw', 'net.ipv4.ip_local_port_range=1024 65535')
        return ns

    def veth(self, ns_a, name_a, ns_b, name_b):
        run('ip', '-n', ns_a, 'link', 'add', name_a, 'type', 'veth', 'peer', 'name', name_b, 'netns', ns_b)
        run('ip', '-n', ns_a, 'link', 'set', name_a, 'up')
        run('ip', '-n', ns_b, 'link', 'set', name_b, 'up')

    def start(self, name, *command, urgent=False):
        """A background job, its output in a file; urgent: before all others. Returns (process, file's name)."""
        log = os.path.join(self.tmp, name + '.log')
        with open(log, 'w') as out:
            try:
                job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, preexec_fn=raise_priority if urgent else os.setsid)
            except OSError as e:
                raise Failure(f'{command[0]}: {"this program is missing" if e.errno == errno.ENOENT else e.strerror}') from None
        job.log = log
        self.jobs.append(job)
        return job, log

    def daemon(self, name, cpu, prefix, vdev, *words):
        """A stack's daemon on a CPU, ready, and before all others, as what it serves must be too; prefix: what runs it, as in a namespace; vdev: its device, None where the words name a wire. Returns (process, the words that run a program on that stack)."""
        control = os.path.join(self.tmp, name + '.sock')
        job, log = self.start(name, *prefix, self.app('isosockd'), '-l', str(cpu), '--no-pci', *([f'--vdev={vdev}'] if vdev else []), *words[:words.index('--')],
                              '--', '--control', control, '--port-min', '1024', '--port-max', '65535', *words[words.index('--') + 1:], urgent=True)

        def ready():
            with open(log, encoding='utf-8') as f:
                return 'isosockd: ready' in f.read()
        wait_for('isosockd', ready, job)
        return job, [self.app('isosock'), '--control', control, 'run', '--']

    def stop(self, job):
        if job not in self.jobs:
            return
        self.jobs.remove(job)
        for sig, seconds in ((signal.SIGTERM, 6), (signal.SIGKILL, 5)):
            try:
                os.killpg(job.pid, sig)
                os.killpg(job.pid, signal.SIGCONT)
                job.wait(seconds)
                return
            except ProcessLookupError:
                job.wait()
                return
            except subprocess.TimeoutExpired:
                continue

    def run_only(self, jobs):
        """Of all jobs these run from now on; the others stand still, so that they take nothing from what is measured."""
        for job in self.jobs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGCONT if job in jobs else signal.SIGSTOP)
        time.sleep(SETTLE_S)

    def busy_ns(self):
        """How long the CPUs have been busy, and how long with other programs than this comparison's."""
        total, names = 0, {f'cpu{cpu}' for cpu in self.cpus}
        with open('/proc/stat') as f:
            for line in f:
                word, *ticks = line.split()
                if word in names:
                    user, nice, system, _, _, irq, softirq, steal, *_ = (int(t) for t in ticks)
                    total += user + nice + system + irq + softirq + steal
        total *= 10**9 // os.sysconf('SC_CLK_TCK')
        # The kernel's share of a transfer may be done by the softirq threads.
        ours = jobs_ns(self.jobs) + sum(task_ns(pid) for pid in self.softirqs) + own_children_ns()
        return total, total - ours

    def await_quiet(self, seconds):
        """Until other programs and other guests leave the CPUs alone, or that long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin, foreign_ns = time.monotonic_ns(), self.busy_ns()[1]
            _, crowded = self.crowded(lambda: time.sleep(0.3))
            if crowded <= CROWDED and self.busy_ns()[1] - foreign_ns < DISTURBED * len(self.cpus) * (time.monotonic_ns() - begin):
                return

    def distance_ns(self):
        """For a cache line, from the first CPU to the second and back."""
        return float(run(self.app('isobench/bench-probe'), str(self.cpus[0]), str(self.cpus[1]), urgent=True))

    def switch_ns(self):
        """For the scheduler, from one thread to another of the first CPU and back."""
        return float(run(self.app('isobench/bench-probe'), str(self.cpus[0]), str(self.cpus[0]), urgent=True))

    def crowded(self, work):
        """Calls work(). Returns what that returns, and for which share of the time the slower CPU was slow meanwhile, beside the fastest that any of them has been seen to be."""
        with subprocess.Popen([self.app('isobench/bench-speed'), *map(str, self.cpus)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=raise_priority) as speed:
            try:
                row = work()
            finally:
                cpus = [[int(word) for word in line.split()] for line in speed.communicate()[0].splitlines()]
        return row, max(self.slow_shares(cpus), default=0.0)

    def slow_shares(self, cpus):
        """cpus: the samples of each CPU that has some."""
        self.fastest_ns = min([ns for samples in cpus for ns in samples] + ([self.fastest_ns] if self.fastest_ns else []), default=None)
        return [sum(ns > SLOW * self.fastest_ns for ns in samples) / len(samples) for samples in cpus]

    def close(self):
        ignore_ends()
        for job in reversed(list(self.jobs)):
            self.stop(job)
        for ns in self.namespaces:
            subprocess.run(['ip', 'netns', 'del', ns], capture_output=True)
        shutil.rmtree(self.tmp, ignore_errors=True)


def wait_for(what, ready, job=None, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ready():
            return
        if job is not None and job.poll() is not None:
            break
        time.sleep(0.05)
    raise Failure(f'{what} does not start{last_words(job)}')


def last_words(job):
    """The end of what a job has said, for a message: its file goes with the laboratory."""
    if job is None:
        return ''
    with open(job.log, encoding='utf-8', errors='replace') as f:
        lines = f.read().strip().splitlines()[-LAST_WORDS:]
    return ''.join(f'\n  {line}' for line in lines) or '; it has said nothing'


def label(ns):
    return 'far' if ns > FAR_NS else 'near'


def circumstance(before_ns, after_ns, crowded):
    """One of DISTANCES, or 'moved', which is none."""
    if label(before_ns) != label(after_ns):
        return 'moved'
    return 'crowded' if crowded > CROWDED else label(before_ns)


def observe_once(lab, work):
    before_ns = lab.distance_ns()
    begin, (_, foreign_ns) = time.monotonic_ns(), lab.busy_ns()

    def attempt():
        try:
            return work()
        except (Failure, ValueError) as e:
            return {'error': str(e)}
    row, crowded = lab.crowded(attempt)
    foreign_ns = lab.busy_ns()[1] - foreign_ns
    row['crowded'] = round(crowded, 3)
    row['foreign'] = round(max(0, foreign_ns) / (len(lab.cpus) * (time.monotonic_ns() - begin)), 3)
    after_ns = lab.distance_ns()
    row.update(before_ns=before_ns, after_ns=after_ns, distance=circumstance(before_ns, after_ns, crowded))
    return row


def observe(lab, work, patience):
    """Call work, which returns a row of results or raises Failure or ValueError; add what the CPUs did meanwhile. A run that was disturbed is repeated, a few times; the
    least disturbed one counts."""
    best = None
    for _ in range(REPEATS):
        lab.await_quiet(patience)
        row = observe_once(lab, work)
        if best is None or row['foreign'] < best['foreign']:
            best = row
        if 'error' in row or best['foreign'] <= DISTURBED:
            break
    best['valid'] = best['foreign'] <= DISTURBED and best['distance'] != 'moved' and 'error' not in best
    return best


def circumstances(row):
    """Of a run, for its line of progress."""
    return f"{row['distance']}, {row['foreign']:.0%} foreign, {row['crowded']:.0%} crowded"


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def times(by_distance):
    """Ratios as the tables show them: {distance: [ratio of a round]} as median (least to most), in the order of DISTANCES."""
    def words(values):
        values = sorted(values)
        return f'{median(values):.2f}' + (f' ({values[0]:.2f} to {values[-1]:.2f})' if len(values) > 1 else '')
    return ', '.join(f'{words(by_distance[distance])} {distance}' for distance in sorted(by_distance, key=DISTANCES.index)) or '-'


def comparable(rows):
    """Of runs that stand for one figure those that may be put together: undisturbed ones, with near CPUs if there are any, else with far ones, else the others; of disturbed ones alike where all are."""
    rows = [row for row in rows if row['valid']] or rows
    return next((alike for alike in ([row for row in rows if row['distance'] == distance] for distance in DISTANCES) if alike), rows)


def at_distance(rows, distance):
    """The undisturbed runs at a distance."""
    return [row for row in rows if row['valid'] and row['distance'] == distance]


def common_distance(groups, least=1):
    """Groups of runs that stand beside each other: the distance at which each group has undisturbed runs, the first such of DISTANCES, or None."""
    groups = list(groups)
    return next((distance for distance in DISTANCES if all(len(at_distance(rows, distance)) >= least for rows in groups)), None)


# ---- rows of results --------------------------------------------------------------------------------------------------------

# What observe adds to a row.
OBSERVED = ['valid', 'foreign', 'crowded', 'distance', 'before_ns', 'after_ns']


@contextlib.contextmanager
def rows_file(path, columns):
    """A function that writes a row into the CSV file at once, so that a comparison that is stopped has what it has measured. path None: nowhere."""
    with open(path or os.devnull, 'wb', buffering=0) as f:
        def write(row):
            text = io.StringIO(newline='')
            csv.DictWriter(text, columns, extrasaction='raise').writerow(row)
            try:
                f.write(text.getvalue().encode())
            except OSError as e:
                raise Failure(f'{path}: {e.strerror}') from None

        write(dict(zip(columns, columns)))
        yield write


def value(text):
    """A cell as it was before it was written."""
    if text == '':
        return None
    if text in ('True', 'False'):
        return text == 'True'
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and '.' not in text and 'e' not in text else number


def read_rows(path, columns):
    """What rows_file wrote with these columns, perhaps among others; cells that a row has not are not in it."""
    try:
        with open(path, newline='', encoding='utf-8') as f:
            rows = csv.DictReader(f, restkey='')
            missing = [name for name in columns if name not in (rows.fieldnames or [])]
            if missing:
                raise Failure(f"{path}: no table of this program: it has no column '{missing[0]}'")
            return [{k: value(v) for k, v in row.items() if k and v not in ('', None)} for row in rows]
    except OSError as e:
        raise Failure(f'{path}: {e.strerror}') from None
    except (csv.Error, UnicodeDecodeError):
        raise Failure(f'{path}: no table of this program: not a CSV file') from None


# ---- programs ---------------------------------------------------------------------------------------------------------------

HERE = os.path.dirname(os.path.abspath(__file__))


def at_least(least, kind=float):
    def convert(text):
        number = kind(text)
        if not number >= least:
            raise argparse.ArgumentTypeError(f'{text} is less than {least}')
        return number
    convert.__name__ = 'number'
    return convert


def cpu_list(text):
    cpus = [int(word) for word in text.split(',') if word.isdigit()]
    if len(cpus) != len(text.split(',')) or len(cpus) < 2 or len(set(cpus)) != len(cpus):
        raise argparse.ArgumentTypeError(f"'{text}' is not two or more different CPUs, as in 0,1")
    missing = set(cpus) - os.sched_getaffinity(0)
    if missing:
        raise argparse.ArgumentTypeError(f'this process may not use CPU {min(missing)}')
    return cpus


def arguments(doc, rounds=3, seconds=2.0, patience=10.0, one_file=True, doc_too=True):
    """A parser with the arguments that all comparisons have. one_file: all runs go into one; doc_too: --doc makes a table of it."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument('--build', default=os.path.join(HERE, '..', 'build'), help='build directory (build)')
    parser.add_argument('--cpus', type=cpu_list, default=None, help="the server's and the client's CPU (0,1)")
    parser.add_argument('--rounds', type=at_least(1, int), default=rounds, help=f'runs of each pair of workload and variant ({rounds})')
    parser.add_argument('--seconds', type=at_least(0.05), default=seconds, help=f'length of a run ({seconds:g})')
    parser.add_argument('--patience', type=at_least(0), default=patience, help=f'wait so long before a run for quiet CPUs ({patience:g})')
    if one_file:
        parser.add_argument('--csv', help='every run, as it ends')
    if one_file and doc_too:
        add_doc(parser)
    return parser


def add_doc(parser):
    parser.add_argument('--doc', metavar='FILE', help='the table of this CSV file, without measuring')


def told(path, columns, table):
    """Where --doc names a file that an earlier run wrote, with these columns: prints table(its rows), and is true."""
    if path:
        try:
            print(table(read_rows(path, columns)))
        except Failure as e:
            sys.exit(f'{os.path.basename(sys.argv[0])}: {e}')
        except (KeyError, TypeError, ValueError) as e:
            sys.exit(f'{os.path.basename(sys.argv[0])}: {path}: its rows are not those of this program: {type(e).__name__} {e}')
    return bool(path)


def chosen(parser, names, known, what):
    """The names, or all that are known if there are none."""
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"no {what} '{unknown[0]}': there are {', '.join(known)}")
    return list(names or known)


@contextlib.contextmanager
def laboratory(args, cpus='0,1', root=True):
    """The lab of a program, which ends with one line and status 1 if something fails. cpus: if the user has named none; root: it makes namespaces."""
    name = os.path.basename(sys.argv[0])
    if root and os.geteuid() != 0:
        sys.exit(f'{name}: needs root, for namespaces and interfaces')
    end_by_exit()
    lab = None
    try:
        lab = Lab(args.build, args.cpus or cpu_list(cpus))
        if not os.path.exists(lab.bench):
            raise Failure(f'{lab.bench} does not exist: build first, or name the build directory (--build)')
        yield lab
    except OSError as e:
        sys.exit(f'{name}: {e.filename or "a file"}: {e.strerror}')
    except (Failure, argparse.ArgumentTypeError) as e:
        sys.exit(f'{name}: {e}')
    finally:
        if lab is not None:
            lab.close()
