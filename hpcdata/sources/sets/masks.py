"""Masks of objects: COCO's polygons and run lengths -> run lengths as text, and those -> pixels.

    [[x1, y1, x2, y2, x3, y3, ...], ...]         polygons, of which one object is the union
    {"size": [h, w], "counts": [n, ...]}         runs of 0 and 1 in turn, column by column
    {"size": [h, w], "counts": "..."}            the same as text: 5 bits and one that says whether more follow, from
                                                 the lowest on; from the fourth on the difference to the run before last

Polygons are drawn by pycocotools (`pip install 'hpcdata[coco]'`), whose pixels are those that COCO means, and it writes
the text. To read it nothing is needed but numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hpcdata.base.errors import UserError

Runs = dict[str, Any]
"""{"size": [h, w], "counts": text}"""
_MOST_PIXELS = 1 << 28
_FAR = 4
"""Points of polygons lie within so many times the longer side, or nobody has drawn them on the picture."""
_MOST_OUTLINE = 1 << 21
"""Pixels that the outlines of one object may be long: to draw one takes 40 bytes."""
_OUTLINE_OF_ALL, _OUTLINE_TIMES = 1 << 26, 50
"""The same of all objects of a file, and for each of its bytes: 25 million take a second."""


def require_library() -> None:
    """Raises UserError where pycocotools is missing."""
    try:
        from pycocotools import mask as _  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"data.tasks has masks, and pycocotools draws them, which cannot be imported ({error}): "
            "pip install 'hpcdata[coco]', or leave masks out"
        ) from None


class Masks:
    """Those of a file of `size` bytes: a few bytes of polygons may take hours to draw."""

    def __init__(self, path: str, size: int) -> None:
        self._path, self._left = path, float(_OUTLINE_OF_ALL + _OUTLINE_TIMES * size)

    def of(self, segmentation: object, size: tuple[int, int]) -> Runs | None:
        """As `runs_of`. Raises UserError before all that are drawn are too long together."""
        return runs_of(segmentation, size, self._spend)

    def _spend(self, outline: float) -> None:
        self._left -= outline
        if self._left < 0:
            raise UserError(
                f"{self._path} has polygons whose outlines are more than {_OUTLINE_TIMES} pixels for each of its "
                "bytes: leave masks out of data.tasks, or write them as run lengths"
            )


def runs_of(
    segmentation: object, size: tuple[int, int], spend: Callable[[float], object] = lambda outline: None
) -> Runs | None:
    """The mask of an annotation; None for what is none. size: (width, height) of its picture.

    spend: is told how long the outlines are that are drawn next, and may raise.
    """
    from pycocotools import mask

    width, height = size
    if width * height > _MOST_PIXELS:
        return None
    if isinstance(segmentation, list):
        reach = _FAR * max(size)
        if not segmentation or not all(_is_polygon(item, reach) for item in segmentation):
            return None
        if (outline := sum(map(_around, segmentation))) > _MOST_OUTLINE:
            return None
        spend(outline)
        found = mask.merge(mask.frPyObjects(segmentation, height, width))
        return {"size": [height, width], "counts": found["counts"].decode("ascii")}
    counts = _counts(segmentation, size)
    if counts is None:
        return None
    found = mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": found["counts"].decode("ascii")}


def pixels_of(runs: object) -> np.ndarray:
    """[h, w] uint8, 1 inside of the object. Raises ValueError for what `runs_of` has not made."""
    size = runs.get("size") if isinstance(runs, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError("a mask without the size of its picture")
    height, width = size
    counts = _counts(runs, (width, height)) if width * height <= _MOST_PIXELS else None
    if counts is None:
        raise ValueError("a mask whose runs are not those of its picture")
    values = np.arange(len(counts), dtype=np.int64) % 2
    flat: np.ndarray = np.repeat(values.astype(np.uint8), counts)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def _is_polygon(points: object, reach: float) -> bool:
    """Three corners or more."""
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(isinstance(item, int | float) and math.isfinite(item) and abs(item) <= reach for item in points)
    )


def _around(points: list[float]) -> float:
    """How many pixels a polygon is around, as pycocotools counts them."""
    at = np.array(points, np.float64).reshape(-1, 2)
    return float(np.abs(np.roll(at, -1, axis=0) - at).max(axis=1).sum()) + len(at)


def _counts(runs: object, size: tuple[int, int]) -> list[int] | None:
    """The lengths of runs, if they are as many pixels as the picture has."""
    if not isinstance(runs, dict) or runs.get("size") != [size[1], size[0]]:
        return None
    counts = runs.get("counts")
    if isinstance(counts, str):
        counts = _read_text(counts)
    if not isinstance(counts, list) or not all(type(item) is int and item >= 0 for item in counts):
        return None
    return counts if sum(counts) == size[0] * size[1] else None


def _read_text(text: str) -> list[int] | None:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        piece = ord(character) - 48
        if not 0 <= piece < 64 or shift > 60:
            return None
        value |= (piece & 31) << shift
        shift += 5
        if piece & 32:
            continue
        if piece & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return None if shift else counts
