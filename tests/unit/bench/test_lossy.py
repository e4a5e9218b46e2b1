#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', '..', 'bench'))
from lossy import LOSSES, MATRIX_CONTROLS, REORDERS, RTTS_MS, marked, matrix_cells, path_of  # noqa: E402


class Matrix(unittest.TestCase):
    def test_a_path_in_words(self):
        self.assertEqual(path_of(0, 2, 0), 'delay:1ms,rate:10M')
        self.assertEqual(path_of(0.1, 20, 0), 'loss:0.1%,delay:10ms,rate:10M')
        self.assertEqual(path_of(3, 100, 10), 'loss:3%,reorder:10%,delay:50ms,rate:10M')

    def test_each_cell_once_in_the_same_order(self):
        cells = matrix_cells(MATRIX_CONTROLS)
        self.assertEqual(len(cells), len(MATRIX_CONTROLS) * len(LOSSES) * len(RTTS_MS) * len(REORDERS))
        self.assertEqual(len(set(cells)), len(cells))
        self.assertEqual(cells, matrix_cells(MATRIX_CONTROLS))

    def test_a_short_run_sees_something_of_everything(self):
        for column, values in enumerate((MATRIX_CONTROLS, LOSSES, RTTS_MS, REORDERS)):
            self.assertEqual({cell[column] for cell in matrix_cells(MATRIX_CONTROLS)[:20]}, set(values))

    def test_what_is_worse_is_marked(self):
        self.assertEqual(marked(9.5, 10), '0.95 ')
        self.assertEqual(marked(9.4, 10), '0.94*')
        self.assertEqual(marked(9.4, 0), '-*')


if __name__ == '__main__':
    unittest.main()
