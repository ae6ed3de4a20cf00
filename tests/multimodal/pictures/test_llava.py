"""LlavaPictures against transformers.   pytest tests/multimodal/pictures/test_llava.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.multimodal.pictures.llava import LlavaPictures
from hpcdata.multimodal.values import PictureTokens
from tests.multimodal.pictures import made

IDS = PictureTokens(patch=7)
SIZES = [(336, 336), (480, 640), (300, 900), (77, 60), (700, 333), (5, 400)]
ONE_LEVEL = 1 / 255 / 0.26


def _by_transformers(name: str) -> Any:
    return pytest.importorskip(f"transformers.models.{name}.image_processing_pil_{name}")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_anyres_makes_the_crops_of_transformers(size: tuple[int, int]) -> None:
    theirs = _by_transformers("llava_next").LlavaNextImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    image = made.photograph(*size)
    expected = theirs(image, return_tensors="np")["pixel_values"][0]
    found = LlavaPictures(tokens=IDS)(image).pixels
    assert found.shape == expected.shape
    # Pillow rounds between rows and columns, too
    assert np.abs(found - expected).max() <= 2.01 * ONE_LEVEL


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_anyres_has_as_many_tokens_as_in_transformers(size: tuple[int, int]) -> None:
    processing = pytest.importorskip("transformers.models.llava_next.processing_llava_next")
    resolution = pytest.importorskip("transformers.image_processing_utils").select_best_resolution
    pictures = LlavaPictures(tokens=IDS)
    high, wide = resolution(list(size), [list(point) for point in pictures.grid_pinpoints])
    high, wide = processing.LlavaNextProcessor._get_unpadded_features(None, *size, 24, 24, high // 336, wide // 336)
    assert len(pictures.plan(*size).tokens) == 576 + high + wide


@pytest.mark.slow
@pytest.mark.parametrize("size", [(336, 336), (480, 640), (700, 333)])
def test_pad_is_that_of_transformers(size: tuple[int, int]) -> None:
    theirs = _by_transformers("llava").LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    image = made.photograph(*size)
    expected = theirs(image, return_tensors="np")["pixel_values"][0]
    found = LlavaPictures(tokens=IDS, mode="pad")(image).pixels[0]
    # there padding comes first, and blends with the pixels beside it
    assert np.mean(np.abs(found - expected) > 2.01 * ONE_LEVEL) < 0.03
    assert np.abs(found - expected).mean() < 0.02


def test_the_pinpoint_that_keeps_most_and_wastes_least() -> None:
    pictures = LlavaPictures(tokens=IDS)
    crops = {size: pictures.plan(*size).num_crops for size in ((100, 200), (200, 100), (1000, 1000), (100, 900))}
    assert crops == {(100, 200): 3, (200, 100): 3, (1000, 1000): 5, (100, 900): 4}


def test_rows_of_tiles_end_with_a_token_and_padding_is_left_out() -> None:
    pictures = LlavaPictures(tokens=PictureTokens(patch=7, col=8, start=1, end=2))
    plan = pictures.plan(300, 900)  # on 336 x 1008, all of it
    rows, columns = 24, 72
    assert plan.num_crops == 4
    assert plan.tokens[[0, -1]].tolist() == [1, 2]
    tiles = plan.tokens[577:-1].reshape(rows, columns + 1)
    assert (tiles[:, :-1] == 7).all()
    assert (tiles[:, -1] == 8).all()
    padded = pictures.plan(200, 1000)  # on the same: 14.4 of 24 rows, and as many are left out above as below
    assert (padded.tokens == 8).sum() == 14
    tall = pictures.plan(1000, 203)
    assert np.flatnonzero(tall.tokens[577:-1] == 8)[0] == 14


def test_without_a_token_of_its_own_the_end_of_a_row_is_a_patch_token_of_no_patch() -> None:
    plan = LlavaPictures(tokens=IDS).plan(300, 900)
    assert (plan.tokens == 7).all()
    assert len(plan.pooled_patches_idx) == len(plan.tokens)
    assert (plan.pooled_patches_idx == -1).sum() == 24


@pytest.mark.parametrize("mode", ["square", "pad"])
def test_one_crop_is_a_token_a_patch(mode: Any) -> None:
    pictures = LlavaPictures(tokens=IDS, mode=mode, image_masks=True, pixels="fast")
    block = pictures(np.full((100, 200, 3), 9, np.uint8))
    assert block.plan.tokens.tolist() == [7] * 576
    assert block.masks is not None
    assert block.masks.mean() == (1 if mode == "square" else 0.5)
    padding = block.pixels[0, :, 0, 0].tolist()
    assert padding == ([9, 9, 9] if mode == "square" else [122, 116, 104])  # CLIP's mean


@given(
    st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from([IDS, PictureTokens(patch=7, col=8, start=1)]),
)
@settings(max_examples=30, deadline=None)
def test_sizes_alone_say_what_plans_say(size: tuple[int, int], max_crops: int | None, ids: PictureTokens) -> None:
    pictures = LlavaPictures(tokens=ids)
    plan = pictures.plan(*size, max_crops=max_crops)
    found = [int(part[0]) for part in pictures.rooms(np.array([size]), max_crops=max_crops)]
    assert found == [len(plan.tokens), plan.num_crops, len(plan.pooled_patches_idx)]
    assert plan.num_crops <= 1 + (max_crops or pictures.max_crops)
    places = plan.image_input_idx[plan.image_input_idx >= 0]
    made_of_patches = plan.pooled_patches_idx[plan.pooled_patches_idx >= 0]
    assert len(places) == len(made_of_patches)
    assert len(np.unique(places)) == len(places)


@pytest.mark.parametrize("form", ["crops", "patches"])
def test_blocks_have_the_crops_of_their_plan(form: Any) -> None:
    pictures = LlavaPictures(tokens=IDS, form=form, pixels="fast")
    image = made.photograph(150, 350)
    block = pictures(image, max_crops=2)
    assert len(block.pixels) == block.plan.num_crops == 3
    shown = pictures.crops_as_pixels(block.pixels)
    assert shown.shape == (3, 336, 336, 3)
    assert np.abs(shown[0].astype(int).mean() - image.mean()) < 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "any"}, "mode='any'"),
        ({"grid_pinpoints": ((336, 500),)}, "whole crops of 336"),
        ({"crop_size": 330}, "no multiple"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LlavaPictures(**{"tokens": IDS} | changes)
