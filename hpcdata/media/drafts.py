"""Large JPEGs decoded at 1/2, 1/4 or 1/8 of their sides: fewer pixels of each block, and most of the time is saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, JpegImagePlugin

from hpcdata.media import orientation
from hpcdata.media.rules import Turned
from hpcdata.media.sizes import Size, nearest

DRAFT_GAP = 2


class Part(NamedTuple):
    """How much of a picture is decoded. Its sides are rounded up to pixels: right and bottom, before it is turned."""

    height: int
    width: int
    """Of the whole picture, upright."""
    scale: float = 1.0
    turn: Image.Transpose | None = None

    def origin(self, image: Image.Image) -> tuple[float, float]:
        """Where the picture begins in the upright image, x and y: turned, what was rounded up comes first."""
        x = image.width - self.width * self.scale if self.turn in orientation.TURNED_X else 0.0
        y = image.height - self.height * self.scale if self.turn in orientation.TURNED_Y else 0.0
        return x, y


def draft(image: Image.Image, sizes: Sequence[Size], turned: Turned) -> Part | None:
    """Has a JPEG decoded at a part of its sides, never below `DRAFT_GAP` times what is needed. None: at all of them.

    libjpeg then computes fewer pixels of each block (a scaled inverse DCT), and the resize that follows hides most of
    the difference.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    turn = orientation.turn_of(image, turned)
    width, height = reversed(image.size) if turn in orientation.SIDEWAYS else image.size
    size, whole_width = nearest(height, width, sizes), image.width
    needed = DRAFT_GAP * max(size[0] / height, size[1] / width)
    drafted = image.draft(None, (math.ceil(image.width * needed), math.ceil(image.height * needed)))
    return Part(height, width, drafted[1][2] / whole_width, turn) if drafted else None
