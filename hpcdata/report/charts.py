"""Charts as SVG text: axes, areas, curves, cells. Colours are CSS classes of the page that holds them (`page`).

All lie in a box of `WIDTH` units, and the text in them was escaped by `text`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hpcdata.base import units

WIDTH = 1000
LEFT, RIGHT = 140, 14
"""Room for what stands beside a plot."""
_TIME_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def text(value: object, width: int = 200) -> str:
    """Any text, also of other processes, as one harmless line of HTML or SVG."""
    return html.escape(units.one_line(value, width))


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A range of values, drawn from `low_at` to `high_at`."""

    low: float
    high: float
    low_at: float
    high_at: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low or 1.0)
        return round(self.low_at + share * (self.high_at - self.low_at), 1)


def time_axis(start: float, end: float) -> Axis:
    return Axis(low=start, high=max(end, start + 1.0), low_at=LEFT, high_at=WIDTH - RIGHT)


def svg(height: float, parts: Iterable[str], label: str, name: str) -> str:
    body = "\n".join(parts)
    return f'<svg id="{name}" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{text(label)}">\n{body}\n</svg>'


def label(x: float, y: float, words: object, *, anchor: str = "start", kind: str = "soft") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{text(words)}</text>'


def rect(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> str:
    inner = f"<title>{text(title)}</title>" if title else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{kind}">{inner}</rect>'


def path(points: Iterable[str], kind: str, title: str = "") -> str:
    inner = f"<title>{text(title)}</title>" if title else ""
    return f'<path d="{"".join(points)}" class="{kind}">{inner}</path>'


def line(points: Iterable[tuple[float, float]], kind: str) -> str:
    return path((f"{'L' if number else 'M'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(points)), kind)


def steps(values: Sequence[float], x: Axis, y: Axis, kind: str) -> str:
    """An area below equal steps that fill the whole of `x`."""
    edges = np.linspace(x.low_at, x.high_at, len(values) + 1)
    points = [f"M{edges[0]:.1f} {y(0):.1f}"]
    points += [f"V{y(value):.1f}H{edge:.1f}" for value, edge in zip(values, edges[1:], strict=True)]
    return path([*points, f"V{y(0):.1f}Z"], kind)


def cells(where: Iterable[tuple[int, int]], x: Axis, num_columns: int, y: float, height: float, kind: str) -> str:
    """Runs of columns, from the first to before the second of each pair, as one path of boxes."""
    step = (x.high_at - x.low_at) / num_columns
    lengths = ((x.low_at + first * step, (end - first) * step) for first, end in where)
    return path((f"M{left:.1f} {y:.1f}h{size:.1f}v{height:.1f}h-{size:.1f}z" for left, size in lengths), kind)


def runs(marks: np.ndarray) -> list[tuple[int, int]]:
    """(first, end) of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(np.int8), [0]])))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def time_grid(x: Axis, top: float, bottom: float) -> list[str]:
    """Upright lines, and the time since the start below them."""
    span_s = x.high - x.low
    step_s = next((step for step in _TIME_STEPS_S if span_s / step <= 8), 86400 * math.ceil(span_s / 86400 / 8))
    parts = []
    for number in range(int(span_s // step_s) + 1):
        at = x(x.low + number * step_s)
        parts.append(line([(at, top), (at, bottom)], "grid"))
        parts.append(label(at, bottom + 15, elapsed(number * step_s), anchor="middle"))
    return parts


def value_grid(y: Axis, left: float, right: float) -> list[str]:
    """Level lines at round values, and these on the left."""
    parts = []
    for value in round_values(y.high):
        parts.append(line([(left, y(value)), (right, y(value))], "grid"))
        parts.append(label(left - 8, y(value) + 4, f"{value:,g}", anchor="end"))
    return parts


def round_values(high: float, number: int = 4) -> list[float]:
    """0 and up to `number` round values up to `high`."""
    if high <= 0:
        return [0.0]
    rough = high / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(step * item, 10) for item in range(int(high / step * 1.001) + 1)]


def elapsed(seconds: float) -> str:
    """`0`, `30 s`, `5 min`, `1:30 h`, `2 d 06 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds else "0"
    minutes = round(seconds / 60)
    if seconds < 3600:
        return f"{minutes} min" if seconds % 60 == 0 else f"{seconds // 60:.0f}:{seconds % 60:02.0f} min"
    if minutes < 48 * 60:
        return f"{minutes // 60}:{minutes % 60:02d} h"
    return f"{minutes // 1440} d {minutes % 1440 // 60:02d} h"
