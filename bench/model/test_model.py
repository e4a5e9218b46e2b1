#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The model's arithmetic, and whether it puts the papers' systems into the order that the papers found."""
import contextlib
import csv
import io
import itertools
import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import measure  # noqa: E402
from lab import Failure  # noqa: E402
from model import EXPLAINED, MODES, Costs, cores_for, mva, occupied, predict, print_check  # noqa: E402
from paper import Paper  # noqa: E402

CORES_OF_PAPER = 4
# Closer than this the paper's own values leave the order open.
TIE = 1.1
NEAR_ENOUGH = 1.25


class Arithmetic(unittest.TestCase):
    def test_one_customer_never_waits(self):
        rate, busy = mva(1, 30, [(10, 1), (20, 4)])
        self.assertAlmostEqual(rate, 1 / 60)
        self.assertEqual(busy, [0, 0])

    def test_a_balanced_network_without_thinking(self):
        # N customers at M stations alike: rate = N / (N + M - 1) / demand of one.
        for n, m in ((2, 2), (4, 3), (8, 128)):
            rate, _ = mva(n, 0, [(m * 5, m)])
            self.assertAlmostEqual(rate, n / (n + m - 1) / 5)

    def test_a_lock_that_all_need_is_the_limit(self):
        rate, busy = mva(64, 90, [(10, 1)])
        self.assertAlmostEqual(rate, 1 / 10, places=4)
        self.assertGreater(busy[0], 0.99)

    def test_groups_that_have_a_connection(self):
        self.assertAlmostEqual(occupied(128, 1), 1)
        self.assertAlmostEqual(occupied(2, 2), 1.5)
        self.assertGreater(occupied(128, 16384), 127.9)

    def test_between_two_numbers_of_connections(self):
        costs = Costs.__new__(Costs)
        costs.values = {'a@10': 1.0, 'a@1000': 3.0, 'b': 7.0}
        self.assertEqual([costs.at('a', n) for n in (1, 10, 100, 1000, 9999)], [1, 1, 2, 3, 3])
        self.assertEqual((costs.at('b', 5), costs.at('c', 5)), (7, 0))


class Papers(unittest.TestCase):
    """The paper on parallel stacks, from its own machine's numbers."""

    def setUp(self):
        self.costs = Costs(os.path.join(HERE, 'opteron.tsv'))
        self.paper = Paper(os.path.join(HERE, '..', 'papers.tsv'))

    def predicted(self, series, connections):
        return predict(self.costs, series, 1 if series == 'up' else CORES_OF_PAPER, connections)[0]

    def points(self):
        return [(s, x, v) for s, points in self.paper.values('parallel/fig2').items() for x, v in points.items()]

    def test_throughput_is_near_figure_2(self):
        self.assertGreaterEqual(len(self.points()), 9)
        for series, x, value in self.points():
            with self.subTest(series=series, connections=x):
                self.assertLess(max(self.predicted(series, x) / value, value / self.predicted(series, x)), NEAR_ENOUGH)

    def test_order_in_figure_2(self):
        compared = 0
        for (a, xa, va), (b, xb, vb) in itertools.combinations(self.points(), 2):
            if xa == xb and max(va / vb, vb / va) > TIE:
                with self.subTest(connections=xa, pair=(a, b)):
                    self.assertEqual(va > vb, self.predicted(a, xa) > self.predicted(b, xa))
                compared += 1
        self.assertGreaterEqual(compared, 6)

    def test_contention_falls_with_groups_as_in_table_1(self):
        for x in (6, 192, 16384):
            busy = [predict(self.costs, f'connp-l({g})', CORES_OF_PAPER, x)[1] for g in (4, 8, 16, 32, 64, 128)]
            self.assertEqual(busy, sorted(busy, reverse=True))
        self.assertLess(predict(self.costs, 'connp-l(128)', CORES_OF_PAPER, 16384)[1], 0.05)

    def test_throughput_rises_with_groups_as_in_figure_5(self):
        for x in (192, 16384):
            mbit = [predict(self.costs, f'connp-l({g})', CORES_OF_PAPER, x)[0] for g in (4, 8, 16, 32, 64, 128)]
            self.assertEqual(mbit, sorted(mbit))
            self.assertGreater(mbit[1] - mbit[0], mbit[5] - mbit[4])  # with diminishing returns


class Here(unittest.TestCase):
    """The costs that are checked in."""

    def setUp(self):
        self.costs = Costs(os.path.join(HERE, 'costs.tsv'))

    def test_measured_points_are_explained(self):
        self.assertGreaterEqual(len(self.costs.points), 8)
        for mode, cores, connections, measured in self.costs.points:
            with self.subTest(mode=mode, cores=cores, connections=connections):
                mbit, _ = predict(self.costs, mode, cores, connections, with_wire=True)
                self.assertLess(max(mbit / measured, measured / mbit), EXPLAINED)

    def test_what_shares_nothing_scales_and_one_lock_does_not(self):
        at = {mode: [predict(self.costs, mode, n, 192)[0] for n in (1, 2, 4, 8, 16, 32, 64)] for mode in MODES}
        for mode in ('connp-t', 'isostack', 'connp-l(128)'):
            self.assertEqual(at[mode], sorted(at[mode]))
            self.assertGreater(at[mode][-1], 8 * at[mode][0])
        self.assertLess(max(at['msgp']), 3 * at['up'][0])
        self.assertEqual(len(set(at['up'])), 1)

    def test_cores_for_a_port(self):
        need = [cores_for(self.costs, 'connp-t', gbit * 1000, 192) for gbit in (10, 100, 400)]
        self.assertEqual(need, sorted(need))
        self.assertIsNone(cores_for(self.costs, 'up', 400000, 192))


class Measured(unittest.TestCase):
    """How runs become costs."""

    def rows(self):
        """Three runs of each; in the middle one the stack takes 200 cycles/KB."""
        per_kb = {'mbit': 1000, 'own': 200, 'app': 300, 'worker': 0, 'wire': 100, 'waits': 0, 'segments': 0.7, 'table_locks': 0.4, 'handover': 5, 'switches': 0.001, 'packets': 0.1,
                  'notifications': 0.05, 'before_ns': 80, 'after_ns': 90}
        return {run: [{**per_kb, 'own': own, 'segments': 1024 / run.mtu} for own in (150, 200, 260)] for run in measure.RUNS}

    def costs(self, rows):
        with tempfile.NamedTemporaryFile('w', suffix='.tsv') as f:
            f.write('\n'.join(measure.Costs(rows, 'near', 1e9, 1000).lines))
            f.flush()
            return Costs(f.name)

    def test_a_cost_is_the_median_and_not_the_least(self):
        costs = self.costs(self.rows())
        self.assertEqual((costs['step@6'], costs['step@192'], costs['wire'], costs['extra:msgp']), (200, 200, 100, 0))
        self.assertEqual(costs['line_ns'], 42.5)
        self.assertEqual(len(costs.points), len(measure.RUNS) - 1)

    def test_a_mode_costs_what_it_has_above_up(self):
        rows = self.rows()
        rows[measure.MSGP] = [{**row, 'own': 290} for row in rows[measure.MSGP]]
        rows[measure.MSGP_2] = [{**row, 'own': 350, 'waits': 17.5} for row in rows[measure.MSGP_2]]
        costs = self.costs(rows)
        self.assertEqual(costs['extra:msgp'], 90)
        self.assertAlmostEqual(costs['lines:msgp'], (350 - 17.5 - 290) / (0.5 * 42.5), places=4)

    def test_the_model_has_all_that_it_asks_for(self):
        costs = self.costs(self.rows())
        for mode in MODES:
            self.assertGreater(predict(costs, mode, 4, 192)[0], 0)

    def test_a_wire_that_had_more_than_its_threads_is_no_run(self):
        results = {'cpu_s': [1.0], 'bytes': 1024, 'bytes_per_s': 1024, 'switches': 0, 'stack': {'total': {'sink.cycles': 2e9}}}
        with self.assertRaises(Failure):
            measure.account(results, 1e9, False)
        results['stack']['total'].update({'sink.cycles': 2e8, 'worker.busy_cycles': 7e8})
        self.assertEqual(measure.account(results, 1e9, False)['own'], 8e8)
        self.assertEqual(measure.account(results, 1e9, True)['own'], 5e8)


class Check(unittest.TestCase):
    """Figures contradict the model if they differ."""

    def check(self, factor, valid=True, distance='near'):
        path = os.path.join(HERE, 'costs.tsv')
        costs, told = Costs(path), io.StringIO()
        mbit = factor * predict(costs, 'msgp', 2, 192, with_wire=True)[0]
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(told):
            with open(os.path.join(folder, 'modes-tx.csv'), 'w', newline='', encoding='utf-8') as f:
                out = csv.writer(f)
                out.writerow(['series', 'x', 'cores', 'valid', 'distance', 'mbit_per_s'])
                out.writerows([['msgp', 192, 2, valid, distance, mbit], ['kernel', 192, 2, True, 'near', 1]])
            return print_check(costs, path, folder), told.getvalue()

    def test_a_figure_that_agrees(self):
        explained, told = self.check(1.1)
        self.assertTrue(explained)
        self.assertIn('modes-tx.csv, other runs, with near CPUs as the costs: within a factor of 1.10', told)
        self.assertIn('parallel-fig2.csv: not in ', told)

    def test_a_figure_that_contradicts(self):
        explained, told = self.check(2)
        self.assertFalse(explained)
        self.assertIn('0.50   modes-tx.csv *', told)

    def test_runs_that_do_not_count(self):
        for run in ({'valid': False}, {'distance': 'far'}):
            self.assertTrue(self.check(2, **run)[0])


if __name__ == '__main__':
    unittest.main()
