#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
import os
import sys
import unittest
import xml.dom.minidom

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', '..', 'bench')
sys.path.insert(0, BENCH)
from figures import FIGURES, PROGRAMS  # noqa: E402
from paper import Paper  # noqa: E402
from svg import Panel, chart, nice_ceiling  # noqa: E402


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
