#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The model's arithmetic, and whether it puts the papers' systems into the order that the papers found."""
import itertools
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
from model import MODES, Costs, cores_for, mva, occupied, predict  # noqa: E402
from paper import Paper  # noqa: E402

CORES_OF_PAPER = 4
# Closer than this the paper's own values leave the order open.
TIE = 1.1
NEAR_ENOUGH = 1.25
# Of what was measured with the costs that are checked in; beyond it a cost is missing from the model.
EXPLAINED = 1.5


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
        mode = 'connp-l(128)' if series == 'connp-l' else series
        return predict(self.costs, mode, 1 if series == 'up' else CORES_OF_PAPER, connections)[0]

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


if __name__ == '__main__':
    unittest.main()
