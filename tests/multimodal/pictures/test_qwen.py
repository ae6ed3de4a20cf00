"""QwenPictures against transformers.   pytest tests/multimodal/pictures/test_qwen.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.multimodal.pictures.qwen import QwenPictures
from hpcdata.multimodal.values import PictureTokens
from hpcdata.samples import BadSample, Reason
from tests.multimodal.pictures import made

IDS = PictureTokens(patch=7, start=1, end=2)
ONE_LEVEL = 1 / 255 / 0.26
SIDE = st.integers(1, 5000)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")


@pytest.mark.slow
@given(SIDE, SIDE, st.sampled_from([28 * 28 * 1280, 28 * 28 * 16, 56 * 56]))
@settings(max_examples=200, deadline=None)
def test_sizes_are_those_of_transformers(theirs: Any, height: int, width: int, max_pixels: int) -> None:
    pictures = QwenPictures(tokens=IDS, max_pixels=max_pixels)
    try:
        expected = theirs.smart_resize(height, width, max_pixels=max_pixels)
    except ValueError:
        with pytest.raises(BadSample) as caught:
            pictures.plan(height, width)
        assert caught.value.reason == Reason.UNSUPPORTED_MEDIA
        assert pictures.rooms(np.array([[height, width]]))[0].tolist() == [0]
        return
    grid = pictures.plan(height, width).grid_thw
    assert grid == (1, expected[0] // 14, expected[1] // 14)
    assert pictures.plan(height, width).num_crops <= pictures.most_crops


@pytest.mark.slow
@pytest.mark.parametrize("size", [(56, 56), (100, 333), (30, 20), (480, 640)])
def test_pixel_values_are_those_of_transformers(theirs: Any, size: tuple[int, int]) -> None:
    image = made.photograph(*size)
    expected = theirs.Qwen2VLImageProcessorPil()(image, return_tensors="np")
    block = QwenPictures(tokens=IDS)(image)
    assert expected["image_grid_thw"].tolist() == [list(block.plan.grid_thw or ())]
    found = block.pixels.reshape(-1, block.pixels.shape[2])
    assert found.shape == expected["pixel_values"].shape
    # Pillow rounds between rows and columns, too
    assert np.abs(found - expected["pixel_values"]).max() <= 2.01 * ONE_LEVEL


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((480, 640), (34, 46)),
        ((42, 70), (4, 4)),  # 1.5 and 2.5 cells: half to even
        ((10, 10), (4, 4)),  # raised to the least
        ((10, 2000), (2, 58)),
        ((3000, 4000), (60, 82)),  # at most 1280 tokens
    ],
)
def test_sides_are_whole_cells_within_the_limits(size: tuple[int, int], grid: tuple[int, int]) -> None:
    plan = QwenPictures(tokens=IDS).plan(*size)
    assert plan.grid_thw == (1, *grid)
    assert plan.num_crops == grid[0] * grid[1] // 4
    assert plan.tokens.tolist() == [1, *[7] * plan.num_crops, 2]


def test_patches_of_a_cell_stand_together() -> None:
    image = np.arange(56 * 84 * 3, dtype=np.uint32).reshape(56, 84, 3).astype(np.uint8)
    block = QwenPictures(tokens=IDS, pixels="fast")(image)
    assert block.pixels.shape == (6, 4, 3 * 2 * 14 * 14)
    patch = block.pixels[4, 3].reshape(3, 2, 14, 14)  # cell of row 1, column 1, its last patch
    for frame in range(2):
        np.testing.assert_array_equal(patch[:, frame], image[42:56, 42:56].transpose(2, 0, 1))
    shown = QwenPictures(tokens=IDS, pixels="fast").crops_as_pixels(block.pixels)
    np.testing.assert_array_equal(shown[4], image[28:56, 28:56])


@given(SIDE, SIDE, st.sampled_from([None, 1, 2, 5, 100]))
@settings(max_examples=40, deadline=None)
def test_sizes_alone_say_what_plans_say(height: int, width: int, max_crops: int | None) -> None:
    pictures = QwenPictures(tokens=IDS)
    tokens, crops, pooled = pictures.rooms(np.array([[height, width]]), max_crops=max_crops)
    try:
        plan = pictures.plan(height, width, max_crops=max_crops)
    except BadSample:
        assert (tokens[0], crops[0], pooled[0]) == (0, 0, 0)
        return
    assert (tokens[0], crops[0], pooled[0]) == (len(plan.tokens), plan.num_crops, len(plan.pooled_patches_idx))
    assert plan.num_crops <= (max_crops or pictures.most_crops)


def test_a_ratio_above_two_hundred_is_a_reject() -> None:
    with pytest.raises(BadSample, match="1 x 5000 pixels: the ratio"):
        QwenPictures(tokens=IDS)(np.zeros((1, 5000, 3), np.uint8))


@pytest.mark.parametrize("changes", [{"max_pixels": 100}, {"min_pixels": 10**7}, {"merge_size": 0}])
def test_settings_that_cannot_be_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        QwenPictures(tokens=IDS, **changes)  # type: ignore[arg-type]
