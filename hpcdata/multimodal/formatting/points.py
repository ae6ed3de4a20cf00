"""Points and counts as text.

`default`, of allenai/molmo and its robot fork: coordinates in percent of width and height with one decimal, sorted by
x * 10000 + y, in an XML element whose content and `alt` are the label in lower case. No points: one fixed sentence.

`documents`, as their guides describe it: `Point: <x, y>` and `Count: N`, with the same coordinates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hpcdata.multimodal.formatting.fields import is_list
from hpcdata.samples import BadSample, Reason

Sizes = Callable[[], Sequence[tuple[int, int]]]
"""(height, width) of the pictures of an example, read only where points are given in pixels."""

FORMATS = ("default", "documents")
NONE = "There are none."
_PLACES = ("points", "answer_annotations", "answer_with_points")
_WRITTEN = re.compile(r"<points?\s|<box|\bPoint: <|<tracks?\s")
"""Places in texts of these formats."""
STYLES = ("pointing", "point_count", "count_then_point", "only_count", "refexp_pointing", "cosyn_point")
"""Styles whose answer is made of points."""


def says_places(example: Mapping[str, Any]) -> bool:
    """Whether an example says where something is in its pictures: then nothing in these may be moved."""
    annotations = example.get("message_list")
    several = [item for item in annotations if isinstance(item, Mapping)] if is_list(annotations) else []
    for annotation in (example, *several):
        if annotation.get("style") in STYLES or any(annotation.get(name) is not None for name in _PLACES):
            return True
    texts = [example.get(name) for name in ("messages", "message_list", "text", "answer", "answers", "explanation")]
    return any(_WRITTEN.search(str(text)) for text in texts if text is not None)


def coordinates(points: object) -> np.ndarray:
    """[num_points, 2] float64 (x, y) of lists of two numbers, of dictionaries with x and y, or of an array: a copy.

    Raises BadSample BAD_EXAMPLE.
    """
    if points is not None and not is_list(points):
        raise BadSample(Reason.BAD_EXAMPLE, f"points are of type {type(points).__name__}, expected a list of pairs")
    try:
        items = [] if points is None else list(points)
        rows = [[item["x"], item["y"]] if isinstance(item, Mapping) else list(item) for item in items]
        found = np.array(rows, np.float64) if rows else np.zeros((0, 2))
    except (TypeError, ValueError, KeyError, OverflowError):
        raise BadSample(Reason.BAD_EXAMPLE, "points are not pairs of numbers (x, y)") from None
    if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
        raise BadSample(Reason.BAD_EXAMPLE, f"points are not pairs of finite numbers, but of shape {found.shape}")
    return found


def in_percent(points: object, scale: object) -> list[tuple[float, float]]:
    """Sorted coordinates. scale: what 100 percent are; or of x and of y, what one percent is."""
    found = coordinates(points)
    try:
        given = np.asarray(scale, np.float64)
    except (TypeError, ValueError, OverflowError):
        given = np.zeros(1)
    if given.shape not in ((), (2,)) or not np.isfinite(given).all() or (given <= 0).any():
        raise BadSample(Reason.BAD_EXAMPLE, f"point_scale is {scale!r}: expected a number above 0, or one for x and y")
    factor = 1 / given if given.ndim else 100 / given
    rounded = [(round(float(x), 1), round(float(y), 1)) for x, y in found * factor]
    return sorted(rounded, key=lambda point: point[0] * 10_000 + point[1])


def element(points: Sequence[tuple[float, float]], label: str, alt: str | None = None) -> str:
    """At least one point, in percent."""
    alt = label if alt is None else alt
    if len(points) == 1:
        ((x, y),) = points
        return f'<point x="{x:.1f}" y="{y:.1f}" alt="{alt}">{label}</point>'
    places = " ".join(f'x{number}="{x:.1f}" y{number}="{y:.1f}"' for number, (x, y) in enumerate(points, 1))
    return f'<points {places} alt="{alt}">{label}</points>'


def answer(style: str, points: Sequence[tuple[float, float]], label: str, count: int, form: str) -> str:
    """What is answered in a style of points. count: how many there are; with points it is their number.

    Raises BadSample BAD_EXAMPLE: no points in a style that is not about finding some.
    """
    label = label.lower()
    if form == "documents":
        places = ", ".join(f"<{x:.1f}, {y:.1f}>" for x, y in points)
        counted = f"Count: {count}"
        if style in ("only_count", "point_count", "count_then_point"):
            return counted if style == "only_count" or not points else f"{counted}\nPoint: {places}"
        return f"Point: {places}" if points else _nothing(style)
    if style == "only_count":
        return str(count)
    if not points:
        return _nothing(style) if not count else str(count)
    if style == "point_count":
        return f"Counting the {element(points, label)} shows a total of {len(points)}."
    return f"{len(points)}\n{element(points, label)}" if style == "count_then_point" else element(points, label)


def _nothing(style: str) -> str:
    if style not in ("pointing", "point_count", "count_then_point"):
        raise BadSample(Reason.BAD_EXAMPLE, f"an example of style {style} has no points")
    return NONE


def scale_of(annotation: Mapping[str, Any], sizes: Sizes) -> object:
    """`point_scale` of an example, or the size of its first picture for points in pixels."""
    if (scale := annotation.get("point_scale")) is not None:
        return scale
    if (size := next(iter(sizes()), None)) is None:
        raise BadSample(Reason.BAD_EXAMPLE, "points without point_scale need a picture: they are in pixels")
    return size[1] / 100, size[0] / 100
