# SPDX-License-Identifier: BSD-3-Clause
"""Charts as SVG: panels of lines over a logarithmic or categorical axis, with a legend and lines of text below."""
import math
from html import escape

COLOURS = ['#1f5fa8', '#c2410c', '#15803d', '#7c3aed', '#b91c1c', '#0e7490', '#a16207', '#be185d', '#4b5563', '#65a30d']
WIDTH, HEIGHT = 460, 300  # of a panel with its margins
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 30, 46
LINE = 15  # of text
WIDE = 30  # a factor between the values of a panel


def nice_ceiling(value):
    """The least of 1, 2, 5 times a power of ten that is not below value."""
    if value <= 0:
        return 1
    power = 10 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= value * (1 - 1e-9))


class Linear:
    """From 0 to a round number."""

    def __init__(self, values):
        self.most = nice_ceiling(max(values, default=1))
        self.ticks = [self.most * i / 5 for i in range(6)]

    def share(self, value):
        """Of the axis's height."""
        return value / self.most


class Logarithmic:
    """Whole powers of ten at both ends."""

    def __init__(self, values):
        self.low, self.high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        self.ticks = [10.0 ** i for i in range(self.low, self.high + 1)]

    def share(self, value):
        return (math.log10(value) - self.low) / (self.high - self.low)


def axis(values):
    """Logarithmic where a linear one would lay the least values on its floor."""
    return (Logarithmic if values and min(values) > 0 and max(values) > WIDE * min(values) else Linear)(values)


def number(value):
    for limit, unit in ((1e9, 'G'), (1e6, 'M'), (1e4, 'k')):
        if abs(value) >= limit:
            return f'{value / (1e3 if unit == "k" else limit):.3g}{unit}'
    return f'{value:.4g}'


def text(x, y, words, anchor='start', extra=''):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(str(words))}</text>'


class Panel:
    """series: {name: {x: y}}; xs: all values of x in their order, each with an equal place; dashed: names that are another's figures; spans: {name: {x: (least, most)}};
    marks: {name: {x: a word}}, such a point is drawn hollow."""

    def __init__(self, title, x_label, y_label, xs, series, dashed=(), spans=None, marks=None):
        self.title, self.x_label, self.y_label = title, x_label, y_label
        self.xs, self.series, self.dashed, self.spans, self.marks = list(xs), series, dashed, spans or {}, marks or {}

    def draw(self, left, top, colour_of):
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        values = [y for points in self.series.values() for y in points.values()]
        values += [end for spans in self.spans.values() for ends in spans.values() for end in ends]
        scale = axis(values)
        place = {x: left + LEFT + (i + 0.5) * width / len(self.xs) for i, x in enumerate(self.xs)}
        base = top + TOP + height
        out = [text(left + LEFT, top + 16, self.title, extra='font-weight="bold"')]
        for tick in scale.ticks:
            y = base - height * scale.share(tick)
            out.append(f'<line x1="{left + LEFT}" x2="{left + LEFT + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            out.append(text(left + LEFT - 5, y + 4, number(tick), 'end'))
        for x in self.xs:
            out.append(text(place[x], base + 15, number(x) if isinstance(x, (int, float)) else x, 'middle'))
        out.append(text(left + LEFT + width / 2, base + 33, self.x_label, 'middle'))
        out.append(text(left + 12, top + TOP + height / 2, self.y_label, 'middle',
                        f'transform="rotate(-90 {left + 12} {top + TOP + height / 2:.1f})"'))
        for name, spans in self.spans.items():
            out += [f'<path d="M{place[x]:.1f},{base - height * scale.share(least):.1f}V{base - height * scale.share(greatest):.1f}" stroke="{colour_of(name)}" stroke-opacity="0.45" '
                    'stroke-width="3"/>' for x, (least, greatest) in spans.items() if greatest > least]
        for name, points in self.series.items():
            marked = self.marks.get(name, {})
            at = [(place[x], base - height * scale.share(points[x]), 'white' if x in marked else colour_of(name)) for x in self.xs if x in points]
            dash = ' stroke-dasharray="5 3"' if name in self.dashed else ''
            path = ' '.join(f'{x:.1f},{y:.1f}' for x, y, _ in at)
            out.append(f'<polyline points="{path}" fill="none" stroke="{colour_of(name)}" stroke-width="2"{dash}/>')
            out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{fill}" stroke="{colour_of(name)}"/>' for x, y, fill in at]
        return out


def wrap(words, columns):
    line = ''
    for word in words.split():
        if line and len(line) + len(word) >= columns:
            yield line
            line = ''
        line = f'{line} {word}' if line else word
    if line:
        yield line


def chart(title, panels, notes):
    """The whole picture, as text. Panels stand side by side, two in a row."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))

    def colour_of(name):
        return COLOURS[names.index(name) % len(COLOURS)]

    columns = min(len(panels), 2)
    rows = (len(panels) + 1) // 2
    width = columns * WIDTH
    out = [text(12, 20, title, extra='font-weight="bold" font-size="14"')]
    for i, panel in enumerate(panels):
        out += panel.draw(i % 2 * WIDTH, 28 + i // 2 * HEIGHT, colour_of)
    y, x = 28 + rows * HEIGHT + LINE, 12
    for name in names:
        need = 30 + 7 * len(name)
        if x + need > width:
            x, y = 12, y + LINE + 3
        out.append(f'<rect x="{x}" y="{y - 9}" width="12" height="9" fill="{colour_of(name)}"/>')
        out.append(text(x + 17, y, name))
        x += need
    y += LINE + 6
    for note in notes:
        for line in wrap(note, width // 6.2):
            out.append(text(12, y, line, extra='fill="#444"'))
            y += LINE
        y += 3
    return '\n'.join([f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y:.0f}" font-family="sans-serif" font-size="11">',
                      f'<rect width="{width}" height="{y:.0f}" fill="white"/>', *out, '</svg>', ''])
