#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The arithmetic of the measurements: which runs count, what is compared with what, and that a wrong command gives one line and no figure."""
import argparse
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import unittest

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', '..', 'bench')
sys.path.insert(0, BENCH)
import compare  # noqa: E402
import lab  # noqa: E402
import marks  # noqa: E402
import programs  # noqa: E402


def row(rate, valid=True, distance='near', **more):
    return {'rate': rate, 'gbits': rate / 1e6, 'valid': valid, 'distance': distance, **more}


class Quiet(lab.Lab):
    """A laboratory that makes nothing. foreign: which share of the CPUs others have in each run; distances: what each probe says; slow: for which share of each run the CPUs were slow."""

    def __init__(self, foreign, distances, slow=()):
        self.cpus, self.foreign, self.distances, self.slow, self.now_ns = [0, 1], list(foreign), list(distances), list(slow), 0
        self.fastest_ns = None

    def crowded(self, work):
        return work(), self.slow.pop(0) if self.slow else 0.0

    def await_quiet(self, seconds):
        pass

    def distance_ns(self):
        return self.distances.pop(0)

    def busy_ns(self):
        return 0, self.now_ns

    def run(self):
        self.now_ns += int(self.foreign.pop(0) * 2 * lab.time.ticks)
        lab.time.now += lab.time.ticks
        return {'rate': len(self.foreign)}


class Clock:
    """In place of the module time: a run takes a second."""
    ticks = 10**9

    def __init__(self):
        self.now = 0

    def monotonic_ns(self):
        return self.now


class Jobs(unittest.TestCase):
    def test_a_forked_worker_is_the_jobs(self):
        with subprocess.Popen(['sh', '-c', 'i=0; (while [ $i -lt 200000 ]; do i=$((i + 1)); done; echo; sleep 9) & wait'], stdout=subprocess.PIPE, start_new_session=True) as job:
            job.stdout.readline()
            in_all, alone = lab.jobs_ns([job]), lab.task_ns(job.pid)
            os.killpg(job.pid, signal.SIGKILL)
        self.assertGreater(in_all - alone, 5 * 10**6)


    def test_only_those_that_are_measured_run(self):
        room = Quiet([], [])
        with tempfile.TemporaryDirectory() as room.tmp:
            room.jobs = []
            pair = [room.start(name, 'sh', '-c', 'while :; do :; done')[0] for name in ('one', 'other')]
            try:
                room.run_only(pair[:1])
                before = [lab.task_ns(job.pid) for job in pair]
                lab.time.sleep(0.3)
                one, other = (lab.task_ns(job.pid) - ns for job, ns in zip(pair, before))
                self.assertGreater(one, 0)
                self.assertEqual(other, 0)
            finally:
                for job in pair:
                    room.stop(job)
        self.assertEqual([job.returncode for job in pair], [-signal.SIGTERM] * 2)  # one that stands still ends as quickly

    def test_what_does_not_start_says_why(self):
        room = Quiet([], [])
        with tempfile.TemporaryDirectory() as room.tmp:
            room.jobs = []
            job, _ = room.start('server', 'sh', '-c', 'echo no such address; exit 1')
            with self.assertRaisesRegex(lab.Failure, 'server does not start\n  no such address$'):
                lab.wait_for('server', lambda: False, job)
            for start in (lab.run, lambda program: room.start('x', program)):
                with self.assertRaisesRegex(lab.Failure, '^no-such-program: this program is missing$'):
                    start('no-such-program')

    def test_signals_end_in_one_line_and_after_the_clearing_up(self):
        for number in lab.ENDING:
            with self.subTest(signal=number):
                program = f"""import os, signal, lab
signal.signal({int(number)}, signal.SIG_DFL)  # where these tests run under nohup it would be left alone
lab.end_by_exit()
try:
    os.kill(os.getpid(), {int(number)})
finally:
    for again in lab.ENDING:
        os.kill(os.getpid(), again)
    print('cleared')"""
                told = subprocess.run([sys.executable, '-c', program], cwd=BENCH, capture_output=True, text=True, check=False)
                self.assertEqual((told.returncode, told.stdout, len(told.stderr.splitlines())), (128 + number, 'cleared\n', 1), told.stderr)


class Runs(unittest.TestCase):
    def setUp(self):
        self.time, lab.time = lab.time, Clock()

    def tearDown(self):
        lab.time = self.time

    def test_distance_has_two_names(self):
        self.assertEqual([lab.label(ns) for ns in (77, lab.FAR_NS, lab.FAR_NS + 1)], ['near', 'near', 'far'])
        self.assertEqual([lab.circumstance(before, after, 0.51) for before, after in ((77, 80), (300, 300), (77, 300))], ['crowded', 'crowded', 'moved'])

    def test_an_undisturbed_run_is_made_once(self):
        room = Quiet([0.02, 0.5], [80, 90, 80, 90])
        got = lab.observe(room, room.run, 0)
        self.assertEqual((got['valid'], got['foreign'], got['distance'], len(room.foreign)), (True, 0.02, 'near', 1))

    def test_disturbed_runs_are_repeated_and_the_least_disturbed_counts(self):
        room = Quiet([0.5, 0.3, 0.4], [300] * 6)
        got = lab.observe(room, room.run, 0)
        self.assertEqual((got['valid'], got['foreign'], got['rate'], got['distance']), (False, 0.3, 1, 'far'))

    def test_runs_on_slow_cpus_stand_apart(self):
        for slow, distance in ((0.51, 'crowded'), (0.5, 'near')):
            room = Quiet([0.0], [80, 80], slow=[slow])
            got = lab.observe(room, room.run, 0)
            self.assertEqual((got['valid'], got['distance'], got['crowded']), (True, distance, slow))

    def test_a_cpu_is_slow_beside_the_fastest_sample_of_all(self):
        room = Quiet([], [])
        self.assertEqual(room.slow_shares([[4000, 5000, 5001, 8000], [5100, 5200]]), [0.5, 1.0])
        self.assertEqual(room.slow_shares([[5001]]), [1.0])
        self.assertEqual(room.slow_shares([[3000, 3700], [3800]]), [0.0, 1.0])
        self.assertEqual(room.slow_shares([]), [])

    def test_moved_cpus_do_not_count(self):
        room = Quiet([0.0], [80, 300])
        got = lab.observe(room, room.run, 0)
        self.assertEqual((got['valid'], got['distance']), (False, 'moved'))

    def test_a_failure_is_a_row_that_does_not_count(self):
        def broken():
            lab.time.now += 1
            raise lab.Failure('no answer')
        got = lab.observe(Quiet([], [80, 80]), broken, 0)
        self.assertEqual((got['valid'], got['error']), (False, 'no answer'))

    def test_median_leaves_out_what_is_not_there(self):
        self.assertEqual(lab.median([3, None, 1, 2]), 2)
        self.assertIsNone(lab.median([None]))


class Rows(unittest.TestCase):
    def test_what_is_written_is_read(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'rows.csv')
            wrote = [{'round': 1, 'workload': 'rr1', 'variant': 'kernel', 'valid': True, 'rate': 2.5}, {'round': 2, 'variant': 'pair', 'valid': False, 'error': 'no, "answer"'}]
            with lab.rows_file(path, marks.COLUMNS) as write:
                write(wrote[0])
                self.assertEqual(lab.read_rows(path, marks.COLUMNS), wrote[:1])  # at once
                write(wrote[1])
            self.assertEqual(lab.read_rows(path, marks.COLUMNS), wrote)
        with self.assertRaises(lab.Failure):
            lab.read_rows(path, marks.COLUMNS)

    def test_a_full_disk_is_told(self):
        with self.assertRaisesRegex(lab.Failure, '^/dev/full: No space left on device$'), lab.rows_file('/dev/full', marks.COLUMNS):
            pass

    def test_another_file_is_refused_in_one_line(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'rows.csv')
            for content in (b'', b'# A title\n\nwords, words\n', b'\xff\xfe\x00,\n', b'round,workload\n1,rr1\n'):
                with self.subTest(content=content):
                    with open(path, 'wb') as f:
                        f.write(content)
                    for program in ('marks', 'compare', 'programs', 'idle', 'peers', 'flame'):
                        told = subprocess.run([sys.executable, os.path.join(BENCH, program + '.py'), '--doc', path], capture_output=True, text=True, check=False)
                        self.assertEqual((told.returncode, len(told.stderr.splitlines()), told.stdout), (1, 1, ''), told.stderr)

    def test_cells(self):
        self.assertEqual([lab.value(t) for t in ('', 'True', '7', '7.0', '1e3', 'near')], [None, True, 7, 7.0, 1000.0, 'near'])


    def test_what_stands_together_is_at_one_distance(self):
        near, far = row(1), row(2, distance='far')
        self.assertEqual(lab.common_distance([[near, far], [near]]), 'near')
        self.assertEqual(lab.common_distance([[near, far], [far]]), 'far')
        self.assertIsNone(lab.common_distance([[near], [far]]))
        self.assertIsNone(lab.common_distance([[near], [row(1, valid=False)]]))
        self.assertEqual((lab.common_distance([[near, near, far]], 2), lab.common_distance([[near, far, far]], 2)), ('near', 'far'))

    def test_near_and_far_runs_are_not_put_together(self):
        runs = [row(1, distance='far'), row(2, valid=False), row(3), row(4, distance='moved'), row(5)]
        self.assertEqual([r['rate'] for r in lab.comparable(runs)], [3, 5])
        self.assertEqual([r['rate'] for r in lab.comparable(runs[:2])], [1])
        self.assertEqual([r['rate'] for r in lab.comparable(runs[1:2])], [2])
        self.assertEqual([r['rate'] for r in lab.comparable([row(6, distance='crowded'), runs[0]])], [1])
        self.assertEqual(lab.comparable([]), [])


class Marks(unittest.TestCase):
    def test_ratio_is_how_many_times_better(self):
        self.assertEqual(marks.ratio(row(10), row(2), 'rate'), 5)
        self.assertEqual(marks.ratio(row(0, p50=2), row(0, p50=24), 'p50'), 12)

    def test_no_ratio_of_runs_that_do_not_count(self):
        for ours, theirs in ((row(1, valid=False), row(1)), (row(1), row(1, distance='far')), (None, row(1)), (row(1), row(1, p50=1))):
            self.assertIsNone(marks.ratio(ours, theirs, 'p50'))
        self.assertIsNone(marks.ratio(row(1, valid=False), row(1), 'rate'))
        self.assertIsNone(marks.ratio(row(1), row(1, distance='far'), 'rate'))

    def test_a_mark_is_judged_by_the_median_of_its_rounds(self):
        rounds = [{('rr64', 'pair'): row(rate), ('rr64', 'kernel'): row(100)} for rate in (900, 1000, 5000)]
        rounds.append({('rr64', 'pair'): row(10, valid=False), ('rr64', 'kernel'): row(100)})
        line = next(line for line in marks.table(rounds, ['rr64']).splitlines() if line.startswith('| 64 connections'))
        self.assertIn('| 10.00 (9.00 to 50.00) near | 3 of 4 | reached |', line)
        self.assertEqual([marks.verdict(r, 10) for r in ({}, {'near': 10.0}, {'near': 9.9})], ['not measured undisturbed', 'reached', '**missed**'])

    def test_near_and_far_are_judged_apart(self):
        rounds = [{('rr64', 'pair'): row(rate, distance=distance), ('rr64', 'kernel'): row(100, distance=distance)} for rate, distance in ((900, 'near'), (1200, 'far'), (800, 'near'))]
        line = next(line for line in marks.table(rounds, ['rr64']).splitlines() if line.startswith('| 64 connections'))
        self.assertIn('| 8.50 (8.00 to 9.00) near, 12.00 far | 3 of 3 | **missed** near, reached far |', line)

    def test_the_wire_alone_is_measured_with_what_is_compared_with_it(self):
        self.assertEqual(marks.needed(['tx1-9000']), ['tx1-9000', 'bare-9000'])
        rounds = [{('tx1-9000', 'pair'): row(2, gbits=100), ('bare-9000', 'wire'): row(2, gbits=400)}]
        rounds[0]['tx1-9000', 'pair']['gbits'], rounds[0]['bare-9000', 'wire']['gbits'] = 100, 400
        self.assertIn('| 0.25 near | 1 of 1 | **missed** |', marks.table(rounds, ['tx1-9000', 'bare-9000']))

    def test_each_mark_is_of_something_measured(self):
        for workload, _, other, _, _ in marks.MARKS:
            self.assertIn(workload, marks.WORKLOADS)
            self.assertTrue(other in marks.WORKLOADS or other in marks.variants(workload), other)


class Compare(unittest.TestCase):
    def test_ratios_stay_inside_a_round_and_a_distance(self):
        mine = [dict(row(r), round=n) for n, r in enumerate((2, 4, 6))]
        kernel = [dict(row(1), round=0), dict(row(2, distance='far'), round=1), dict(row(2), round=2)]
        self.assertEqual(compare.ratios(mine, kernel, 'rate'), {'near': [2, 3]})
        self.assertEqual(compare.ratios(mine, [dict(row(1, valid=False), round=0)], 'rate'), {})

    def test_clients_words_are_read(self):
        self.assertEqual(programs.wrk('a', 1)[1]('Requests/sec:  1234.5\n'), 1234.5)
        self.assertEqual(programs.redis('a', 1)[1]('"GET","99.5","0.1"'), 99.5)
        self.assertEqual(programs.sockperf('a', 1)[1]('Summary: Latency is 5.0 usec'), 1e5)
        with self.assertRaises(lab.Failure):
            programs.wrk('a', 1)[1]('nothing')


class Page(unittest.TestCase):
    """bench/all.py writes tables into the page of results."""

    def setUp(self):
        self.all = importlib.import_module('all')

    def test_each_part_has_its_block(self):
        with open(self.all.PAGE, encoding='utf-8') as f:
            page = f.read()
        for name in self.all.PARTS:
            changed = self.all.with_block(page, name, 'a | table\n')
            self.assertIsNotNone(changed, name)
            self.assertIn(f'<!-- {name} -->\na | table\n<!-- end {name} -->\n', changed)
            self.assertEqual(self.all.with_block(changed, name, 'a | table'), changed)
        self.assertIsNone(self.all.with_block(page, 'no such part', ''))

    def test_disturbed_runs_are_told(self):
        rows = [row(1), row(1, distance='far'), row(1, valid=False), row(1, valid=False, distance='moved')]
        self.assertEqual(self.all.disturbance(rows), '2 of 4 runs were undisturbed, 1 with near CPUs and 1 with far ones.')
        self.assertEqual(self.all.disturbance([*rows, {'valid': True, 'distance': 'crowded'}]), '2 of 5 runs were undisturbed, 1 with near CPUs and 1 with far ones; 1 more were on crowded ones.')
        self.assertEqual(self.all.disturbance([{'bytes': 1}]), '')


class Commands(unittest.TestCase):
    def test_wrong_arguments(self):
        for text in ('0', '0,0', '0,x', '0,,1', '0,99999'):
            with self.subTest(cpus=text), self.assertRaises(argparse.ArgumentTypeError):
                lab.cpu_list(text)
        with self.assertRaises(argparse.ArgumentTypeError):
            lab.at_least(1, int)('0')

    def test_help_and_refusal(self):
        for name in ('all', 'marks', 'compare', 'programs', 'idle', 'figures', 'flame', 'lossy', 'model/measure', 'model/model'):
            with self.subTest(program=name):
                command = [sys.executable, os.path.join(BENCH, name + '.py')]
                told = subprocess.run([*command, '--help'], capture_output=True, text=True, check=False)
                self.assertEqual((told.returncode, told.stdout[:6]), (0, 'usage:'))
                wrong = subprocess.run([*command, '--no-such-option'], capture_output=True, text=True, check=False)
                self.assertEqual(wrong.returncode, 2)
                self.assertNotIn('Traceback', wrong.stderr)


if __name__ == '__main__':
    unittest.main()
