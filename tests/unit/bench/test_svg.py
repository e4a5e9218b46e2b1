#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
import os
import sys
import unittest
import xml.dom.minidom

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', '..', 'bench')
sys.path.insert(0, BENCH)
import figures  # noqa: E402
from figures import FIGURES, PROGRAMS  # noqa: E402
from paper import Paper  # noqa: E402
from svg import Linear, Logarithmic, Panel, axis, chart, nice_ceiling  # noqa: E402


def elements(picture, name):
    return xml.dom.minidom.parseString(picture).getElementsByTagName(name)


class Svg(unittest.TestCase):
    def test_axis_ends_at_a_round_number(self):
        self.assertEqual([nice_ceiling(v) for v in (0, 0.3, 1, 1.5, 4034, 5000, 5001)], [1, 0.5, 1, 2, 5000, 5000, 10000])

    def test_a_point_for_each_value(self):
        panel = Panel('here', 'connections', 'Mb/s', [6, 192], {'up': {6: 10, 192: 5}, 'a<b': {192: 8}})
        picture = chart('t & t', [panel, panel], ['a note'])
        self.assertEqual(len(elements(picture, 'circle')), 2 * 3)
        # The largest value is the highest point, at its place on the axis.
        at = [(float(c.getAttribute('cx')), float(c.getAttribute('cy'))) for c in elements(picture, 'circle')][:3]
        self.assertLess(at[0][1], at[2][1])
        self.assertLess(at[2][1], at[1][1])
        self.assertLess(at[0][0], at[1][0])

    def test_a_line_from_the_least_to_the_most(self):
        panel = Panel('here', 'connections', 'Mb/s', [6, 192], {'up': {6: 10, 192: 5}}, spans={'up': {6: (8, 20), 192: (5, 5)}})
        picture = chart('t', [panel], [])
        lines = elements(picture, 'path')
        self.assertEqual(len(lines), 1)
        lower, upper = (float(y) for y in lines[0].getAttribute('d').split(',')[1].split('V'))
        highest, other = (float(c.getAttribute('cy')) for c in elements(picture, 'circle'))
        self.assertLess(upper, highest)
        self.assertLess(highest, lower)
        self.assertLess(lower, other)

    def test_nothing_to_show_is_a_picture_too(self):
        self.assertEqual(len(elements(chart('t', [Panel('here', 'x', 'y', [1], {})], []), 'circle')), 0)


    def test_an_axis_that_would_lay_values_on_its_floor_is_logarithmic(self):
        self.assertIsInstance(axis([1, 30]), Linear)
        self.assertIsInstance(axis([0, 400]), Linear)
        self.assertIsInstance(axis([]), Linear)
        wide = axis([1.2, 18, 450])
        self.assertIsInstance(wide, Logarithmic)
        self.assertEqual(wide.ticks, [1, 10, 100, 1000])
        self.assertEqual([round(wide.share(v), 6) for v in (1, 10, 1000)], [0, 0.333333, 1])

    def test_a_marked_point_is_hollow(self):
        panel = Panel('here', 'x', 'y', [1, 2], {'up': {1: 10, 2: 5}}, marks={'up': {2: 'far'}})
        self.assertEqual([c.getAttribute('fill') == 'white' for c in elements(chart('t', [panel], []), 'circle')], [False, True])


def run(series, x, mbit, distance='near', valid=True):
    return {'series': series, 'x': x, 'mbit_per_s': mbit, 'distance': distance, 'valid': valid}


class Points(unittest.TestCase):
    """Which runs stand beside each other."""

    def check(self, rows, points, marks):
        self.assertEqual(figures.points(rows, 'mbit_per_s'), points)
        self.assertEqual(figures.marks(rows, 'mbit_per_s'), marks)

    def test_all_series_of_a_place_have_the_same_cpus(self):
        rows = [run('pair', 1, 50), run('pair', 1, 30, 'far'), run('kernel', 1, 5, 'far'), run('pair', 2, 60), run('pair', 2, 40, 'far'), run('kernel', 2, 6)]
        self.check(rows, {'pair': {1: [30], 2: [60]}, 'kernel': {1: [5], 2: [6]}}, {})

    def test_without_one_in_common_a_cell_says_what_it_has(self):
        self.check([run('pair', 1, 50), run('kernel', 1, 5, 'far')], {'pair': {1: [50]}, 'kernel': {1: [5]}}, {'pair': {1: 'near'}, 'kernel': {1: 'far'}})

    def test_a_series_that_others_disturbed_decides_nothing(self):
        rows = [run('pair', 1, 50), run('pair', 1, 30, 'far'), run('kernel', 1, 5, 'far', valid=False)]
        self.check(rows, {'pair': {1: [50]}, 'kernel': {1: [5]}}, {'kernel': {1: 'disturbed'}})

    def test_a_mark_is_in_its_cell(self):
        panel = Panel('here', 'x', 'y', [1, 2, 3], {'up': {1: 10, 2: 5}}, marks={'up': {2: 'far'}})
        self.assertEqual([figures.cell(panel, 'up', x, str) for x in panel.xs], ['10', '5 far', '-'])

    def test_who_needs_root(self):
        self.assertEqual([figures.needs_root(name) for name in ('parallel/fig2', 'isostack/fig4', 'parallel/table1', 'dominoes/fig2')], [True, True, False, False])


class Papers(unittest.TestCase):
    def test_every_figure_has_the_papers_word(self):
        paper = Paper(os.path.join(BENCH, 'papers.tsv'))
        for name in [n for n in [*FIGURES, *PROGRAMS] if not n.startswith('modes/')]:
            self.assertTrue(paper.of(name), name)
            self.assertTrue(paper.panels(name, 'x') or paper.notes(name), name)
        for row in paper.rows:
            self.assertIn(row['figure'], [*FIGURES, *PROGRAMS])
            self.assertTrue(isinstance(row['value'], float) or row['value'] == 'not given in the text', row)
            self.assertTrue(row['where'], row)

    def test_a_value_is_found(self):
        paper = Paper(os.path.join(BENCH, 'papers.tsv'))
        self.assertEqual(paper.values('parallel/table1')['connp-l(128)'][16384], 2)


if __name__ == '__main__':
    unittest.main()
