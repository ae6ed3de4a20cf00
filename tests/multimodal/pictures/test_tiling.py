"""Grids of tiles.   pytest tests/multimodal/pictures/test_tiling.py"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.multimodal.pictures.tiling import tiles, tiles_of


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((336, 336), (1, 1)),
        ((336, 337), (1, 2)),  # one pixel more than a crop
        ((480, 640), (2, 3)),
        ((200, 2000), (1, 9)),
        ((112, 500), (1, 2)),  # a side as long as the margins
        ((60, 3000), (1, 12)),  # and a shorter one
        ((4000, 3000), (4, 3)),
    ],
)
def test_clip_with_twelve_crops(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert tiles(*size, 224, 112, 12) == grid


def test_v1_cuts_thin_pictures_into_one_tile() -> None:
    assert tiles(60, 3000, 224, 112, 12, "v1") == (1, 1)


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=20), st.integers(1, 24))
@settings(max_examples=20, deadline=None)
def test_many_sizes_at_once_get_the_grids_of_each(sizes: list[tuple[int, int]], most: int) -> None:
    grids = tiles_of(np.array(sizes), 266, 112, most)
    assert [tuple(grid) for grid in grids.tolist()] == [tiles(*size, 266, 112, most) for size in sizes]
    assert (grids.prod(axis=1) <= most).all()
