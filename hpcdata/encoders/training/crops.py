"""Training pictures in memory, and the crops of a training step as a pure function of its number.

Pictures are read once, as `pixels.load_square` sees them: drawings at one side drawn by chance, photographs at every
side of `PHOTO_SIDES`. What a step shows depends on the seed and the step alone: not on the number of processes, and
not on kills.
"""

from __future__ import annotations

import functools
import glob
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.media import pixels
from hpcdata.samples import BadSample

log = logging.getLogger(__name__)

MAX_PIXELS = 60_000_000
DRAWING_SIDES = (128, 192, 256, 256, 320, 384)
PHOTO_SIDES = (128, 192, 256, 384, 512, 768, 1024)
NUM_CANDIDATES = 3
"""Places tried for a crop; the one with most contrast is taken, because most of a drawing is paper."""
INVERTED_SHARE = 0.1


class Crops:
    """Random crops of drawings and photographs."""

    def __init__(
        self, *, drawings: Sequence[str], photos: Sequence[str], photo_share: float, side: int, seed: int
    ) -> None:
        """drawings, photos: picture files, globs, or `.txt` lists of files. Raises UserError if nothing is found."""
        self._side = side
        self._seed = seed
        self._photo_share = photo_share
        rng = np.random.default_rng(seed)
        drawn = [(path, int(rng.choice(DRAWING_SIDES))) for path in _expand(drawings)]
        self._drawings = _load_all(drawn, side)
        self._photos = _load_all([(path, size) for path in _expand(photos) for size in PHOTO_SIDES], side)
        if not self._drawings and not self._photos:
            raise UserError("drawings and photos name no readable picture: pass files, globs or .txt lists")
        log.info("%d drawings and %d views of photographs", len(self._drawings), len(self._photos))

    def batch(self, step: int, indices: Sequence[int]) -> np.ndarray:
        """The crops of a step with these numbers: [len(indices), 3, side, side] uint8 RGB."""
        return np.stack([self._crop(np.random.default_rng([self._seed, step, index])) for index in indices])

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        is_photo = bool(self._photos) and (not self._drawings or rng.random() < self._photo_share)
        pictures = self._photos if is_photo else self._drawings
        picture = pictures[rng.integers(len(pictures))]
        places = rng.integers(0, picture.shape[0] - self._side + 1, (1 if is_photo else NUM_CANDIDATES, 2))
        views = [picture[top : top + self._side, left : left + self._side] for top, left in places]
        view = max(views, key=lambda some: float(some[::4, ::4].std()))
        mirrored, flipped, turned = rng.random(3) < 0.5
        view = view[:, ::-1] if mirrored else view
        view = view[::-1] if flipped else view
        view = view.transpose(1, 0, 2) if turned else view
        return (255 - view if rng.random() < INVERTED_SHARE else view).transpose(2, 0, 1)


def _expand(patterns: Sequence[str]) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        paths = sorted(glob.glob(pattern, recursive=True))
        if not paths:
            raise UserError(f"{pattern} matches no file")
        for path in paths:
            found += Path(path).read_text("utf-8").splitlines() if path.endswith(".txt") else [path]
    return found


def _load_all(wanted: Sequence[tuple[str, int]], min_side: int) -> list[np.ndarray]:
    with ThreadPoolExecutor(2) as pool:
        loaded = pool.map(_load, *zip(*[item for item in wanted if item[1] >= min_side], strict=True)) if wanted else ()
        return [picture for picture in loaded if picture is not None]


def _load(path: str, side: int) -> np.ndarray | None:
    try:
        return pixels.load_square(_read(path), resolution=side, max_pixels=MAX_PIXELS)
    except BadSample as error:
        log.warning("%s is left out: %s", path, error.message)
        return None


@functools.lru_cache(maxsize=4)
def _read(path: str) -> bytes:
    return Path(path).read_bytes()
