"""Sizes for pictures of many shapes: about equal areas, sides in multiples of what one code stands for.

With `data.max_aspect_ratio` a picture is not cut to a square: it gets the size whose shape keeps most of it and is
cropped to that. The areas are at most `data.resolution` squared, so that no picture has more codes than a square.
`data.sizes` names the sizes themselves: a list of `NAMED`, or any, as `1024x576`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Size = tuple[int, int]
"""Height and width in pixels."""


def _and_turned(*wide: Size) -> tuple[Size, ...]:
    return (*wide, *((width, height) for height, width in reversed(wide) if height != width))


NAMED: Mapping[str, tuple[Size, ...]] = {
    "multi512": _and_turned((352, 704), (384, 672), (416, 608), (448, 576), (512, 512)),
    "multi768": _and_turned((544, 1056), (576, 1024), (608, 928), (672, 864), (768, 768)),
}
"""Our own lists, from the widest to the tallest: about 2:1, 16:9, 3:2, 4:3, a square, and these turned, in multiples of
32 pixels and of at most 512 or 768 squared. (Liquid announced codes of several sizes and has published no list.)
"""


def named(sizes: str | Sequence[str]) -> tuple[Size, ...]:
    """What `data.sizes` says. Raises ValueError with what is wrong."""
    if isinstance(sizes, str) and sizes in NAMED:
        return NAMED[sizes]
    found = [_parsed(text) for text in ([sizes] if isinstance(sizes, str) else sizes)]
    if not found or len(set(found)) != len(found):
        raise ValueError("expected different sizes, at least one")
    return tuple(sorted(found, key=lambda size: (size[0] / size[1], size)))


def _parsed(text: str) -> Size:
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise ValueError(f"{text!r} is no size: expected {', '.join(NAMED)} or WIDTHxHEIGHT, such as 1024x576")
    return int(match[2]), int(match[1])


def sizes(resolution: int, multiple: int, max_aspect_ratio: float | None) -> tuple[Size, ...]:
    """From the widest to the tallest; the square alone without a ratio. resolution: a multiple of `multiple`.

    The wide ones have every height and as much width as the area allows, the tall ones are these turned.
    """
    side = resolution // multiple
    wide = [(rows, side * side // rows) for rows in range(1, side)]
    wide = [(rows, columns) for rows, columns in wide if columns <= (max_aspect_ratio or 1.0) * rows]
    tall = [(columns, rows) for rows, columns in reversed(wide)]
    return tuple((rows * multiple, columns * multiple) for rows, columns in (*wide, (side, side), *tall))


def nearest(height: int, width: int, among: Sequence[Size]) -> Size:
    """The size that keeps the largest part of a picture of this shape; of equal ones the wider."""

    def kept(size: Size) -> float:
        ours, its = size[0] * width, height * size[1]
        return min(ours, its) / max(ours, its)

    return max(among, key=kept)
