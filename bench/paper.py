# SPDX-License-Identifier: BSD-3-Clause
"""The papers' own values (papers.tsv): as panels to draw, where there is a value for places on the axis, and as lines of text."""
import csv

from svg import Panel

COLUMNS = ['figure', 'series', 'x', 'value', 'unit', 'where', 'note']


class Paper:
    def __init__(self, path):
        with open(path, newline='', encoding='utf-8') as f:
            rows = csv.reader((line for line in f if not line.startswith('#')), delimiter='\t', quoting=csv.QUOTE_NONE)
            self.rows = [dict(zip(COLUMNS, row)) for row in rows]
        for row in self.rows:
            row['x'] = int(row['x']) if row['x'] else None
            row['value'] = float(row['value']) if row['value'][:1].isdigit() else row['value']

    def of(self, figure):
        return [r for r in self.rows if r['figure'] == figure]

    def values(self, figure):
        """{series: {x: value}}"""
        found = {}
        for r in self.of(figure):
            if r['x'] is not None:
                found.setdefault(r['series'], {})[r['x']] = r['value']
        return found

    def panels(self, figure, x_label):
        """None, or one panel."""
        values = self.values(figure)
        if not values:
            return []
        xs = sorted({x for points in values.values() for x in points})
        return [Panel('the paper', x_label, next(r['unit'] for r in self.of(figure) if r['x'] is not None), xs, values)]

    def notes(self, figure):
        notes = []
        for r in self.of(figure):
            if r['x'] is None or r['note']:
                what = ' '.join(w for w in (r['series'], f"at {r['x']}" if r['x'] is not None else '') if w)
                value = f"{r['value']:g}" if isinstance(r['value'], float) else r['value']
                note = f' ({r["note"]})' if r['note'] else ''
                notes.append(f"The paper, {r['where']}: {what + ': ' if what else ''}{value} {r['unit']}".rstrip() + note + '.')
        return notes
