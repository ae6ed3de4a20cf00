"""Where a picture lies in its target, and what is cut of it.   pytest tests/multimodal/pictures/test_crops.py"""

from __future__ import annotations

import numpy as np
import pytest

from hpcdata.multimodal.pictures import crops
from hpcdata.multimodal.pictures.crops import Fitted


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((336, 336), (0, 0, 336, 336)),
        ((100, 200), (84, 0, 168, 336)),
        ((201, 400), (84, 0, 168, 336)),  # 168.84 rows: cut to whole pixels
        ((202, 400), (83, 0, 169, 336)),  # an odd rest: the smaller half comes first
        ((400, 202), (0, 83, 336, 169)),
        ((1, 5000), (167, 0, 1, 336)),  # 0.07 rows: one
    ],
)
def test_the_picture_lies_in_the_middle_in_its_shape(size: tuple[int, int], fitted: tuple[int, ...]) -> None:
    assert crops.fit(*size, (336, 336)) == Fitted(*fitted)


def test_tiles_overlap_and_are_cut_row_by_row() -> None:
    target = np.arange(20 * 28 * 3, dtype=np.int32).reshape(20, 28, 3)
    tiles = crops.cut(target, 2, 3, crop=12, window=8)
    assert tiles.shape == (2, 3, 12, 12, 3)
    for row in range(2):
        for column in range(3):
            np.testing.assert_array_equal(
                tiles[row, column], target[8 * row : 8 * row + 12, 8 * column : 8 * column + 12]
            )


@pytest.mark.parametrize("form", ["patches", "crops"])
def test_crops_in_every_form_are_the_same_pixels(form: str) -> None:
    target = np.random.default_rng(0).integers(0, 256, (20, 28, 3), dtype=np.uint8)
    tiles = crops.cut(target, 2, 3, crop=12, window=8)
    out = crops.empty(6, 12, 4, form, np.uint8)  # type: ignore[arg-type]
    crops.fill(out, tiles, 4)
    np.testing.assert_array_equal(crops.whole(out, 12, 4), tiles.reshape(6, 12, 12, 3))


def test_shares_are_the_part_of_each_patch_that_is_picture() -> None:
    is_picture = np.zeros((20, 28))
    is_picture[5:18, 3:20] = 1
    found = crops.shares(Fitted(5, 3, 13, 17), (20, 28), 2, 3, crop=12, window=8, patch=4)
    tiles = [is_picture[y : y + 12, x : x + 12] for y in (0, 8) for x in (0, 8, 16)]
    expected = [tile.reshape(3, 4, 3, 4).mean(axis=(1, 3)).reshape(-1) for tile in tiles]
    np.testing.assert_allclose(found, expected)
