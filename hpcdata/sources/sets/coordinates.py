"""Boxes and points as text. Systems differ: the style is named, and pixels stay in the record beside the text.

    llava       [0.104, 0.250, 0.500, 0.750]          x1, y1, x2, y2 as shares of width and height
    qwen1000    (104,250),(500,750)                   the same in 1000 bins
    paligemma   <loc0256><loc0106><loc0768><loc0512>  y1, x1, y2, x2 in 1024 bins, and the name
    molmo       <point x="30.2" y="50.0" alt="dog">dog</point>     a point, in percent; of a box its center
    pixels      [50, 80, 240, 240]                    x1, y1, x2, y2

Shares are of the picture itself, not of one that was cropped or padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

STYLES = ("llava", "qwen1000", "paligemma", "molmo", "pixels")
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""
Point = tuple[float, float]


def boxes_text(boxes: Sequence[Box], size: tuple[int, int], style: str, name: str) -> str:
    """size: (width, height). name: what is in the boxes, for styles that write it."""
    if style == "molmo":
        return points_text([((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes], size, style, name)
    if style == "paligemma":
        return " ; ".join(f"{_box(box, size, style)} {name}" for box in boxes)
    return ", ".join(_box(box, size, style) for box in boxes)


def points_text(points: Sequence[Point], size: tuple[int, int], style: str, name: str) -> str:
    if style != "molmo":
        return ", ".join(_point(point, size, style) for point in points)
    percents = [(100 * x / size[0], 100 * y / size[1]) for x, y in points]
    alt, inner = quoteattr(name), escape(name)
    if len(percents) == 1:
        return f'<point x="{percents[0][0]:.1f}" y="{percents[0][1]:.1f}" alt={alt}>{inner}</point>'
    places = " ".join(f'x{n}="{x:.1f}" y{n}="{y:.1f}"' for n, (x, y) in enumerate(percents, 1))
    return f"<points {places} alt={alt}>{inner}</points>"


def _box(box: Box, size: tuple[int, int], style: str) -> str:
    width, height = size
    x1, y1, x2, y2 = box[0] / width, box[1] / height, box[2] / width, box[3] / height
    if style == "llava":
        return f"[{x1:.3f}, {y1:.3f}, {x2:.3f}, {y2:.3f}]"
    if style == "qwen1000":
        return f"({_bin(x1, 1000)},{_bin(y1, 1000)}),({_bin(x2, 1000)},{_bin(y2, 1000)})"
    if style == "paligemma":
        return "".join(f"<loc{_bin(value, 1024):04d}>" for value in (y1, x1, y2, x2))
    return f"[{', '.join(str(round(value)) for value in box)}]"


def _point(point: Point, size: tuple[int, int], style: str) -> str:
    x, y = point[0] / size[0], point[1] / size[1]
    if style == "llava":
        return f"[{x:.3f}, {y:.3f}]"
    if style == "qwen1000":
        return f"({_bin(x, 1000)},{_bin(y, 1000)})"
    if style == "paligemma":
        return f"<loc{_bin(y, 1024):04d}><loc{_bin(x, 1024):04d}>"
    return f"[{round(point[0])}, {round(point[1])}]"


def _bin(share: float, bins: int) -> int:
    return min(max(int(share * bins), 0), bins - 1)
