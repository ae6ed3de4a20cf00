"""Sizes for pictures of many shapes: about equal areas, sides in multiples of what one code stands for.

With `data.max_aspect_ratio` a picture is not cut to a square: it gets the size whose shape keeps most of it and is
cropped to that. The areas are at most `data.resolution` squared, so that no picture has more codes than a square.
"""

from __future__ import annotations

from collections.abc import Sequence

Size = tuple[int, int]
"""Height and width in pixels."""


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
