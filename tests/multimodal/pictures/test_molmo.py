"""MolmoPictures against what the originals make.   pytest tests/multimodal/pictures/test_molmo.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.multimodal.pictures import statistics
from hpcdata.multimodal.pictures.molmo import MolmoPictures
from hpcdata.multimodal.pictures.statistics import normalize as normalized
from hpcdata.multimodal.values import PictureTokens
from tests.multimodal.pictures import made

CONFIGS = dict(made.configs())
TOLERANCE = 2e-5
ONE_LEVEL = 1 / 127
"""Of what goes over uint8: rounding may go the other way by one, in the range from -1 to 1."""
SMALL, LARGE = 2_000, 10**8
"""Pixels of pictures that the fast and the slow test take."""


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_and_indices_are_those_of_the_originals(name: str) -> None:
    pictures = made.preprocessor(name, CONFIGS[name]["config"])
    for case in _cases(name):
        plan = pictures.plan(*case["size"])
        assert made.digest(plan.tokens, np.int32) == case["tokens"], case["size"]
        assert (len(plan.tokens), plan.num_crops) == (case["num_tokens"], case["crops"])
        indices = plan.pooled_patches_idx
        if name.startswith("v1"):  # there a cell that is not used is -100
            indices = np.where(plan.image_input_idx < 0, -100, plan.image_input_idx)
        assert (list(indices.shape), made.digest(indices, np.int32)) == (case["index_shape"], case["index"])


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_alone_say_what_plans_say(name: str) -> None:
    pictures = made.preprocessor(name, CONFIGS[name]["config"])
    sizes = [case["size"] for case in CONFIGS[name]["cases"]]
    tokens, crops, pooled = pictures.rooms(np.array(sizes))
    for row, size in enumerate(sizes):
        plan = pictures.plan(*size)
        expected = (len(plan.tokens), plan.num_crops, len(plan.pooled_patches_idx))
        assert (tokens[row], crops[row], pooled[row]) == expected


@pytest.mark.parametrize("name", CONFIGS)
def test_pixels_and_masks_of_small_pictures_are_those_of_the_originals(name: str) -> None:
    _compare(name, 0, SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_pixels_and_masks_are_those_of_the_originals(name: str) -> None:
    _compare(name, SMALL, LARGE)


def _compare(name: str, above: int, up_to: int) -> None:
    config = CONFIGS[name]["config"]
    pictures = made.preprocessor(name, config)
    tolerance = TOLERANCE
    if config["resize"] != "default":
        tolerance = ONE_LEVEL if config["resize"] == "siglip" else ONE_LEVEL / 2 / 0.224
    for case in _cases(name):
        if not above < case["size"][0] * case["size"][1] <= up_to:
            continue
        block = pictures(made.picture(*case["size"]))
        assert block.pixels.dtype == np.float32
        found = block.pixels.reshape(-1)[case["at"]]
        np.testing.assert_allclose(found, case["values"], rtol=0, atol=tolerance, err_msg=str(case["size"]))
        assert abs(block.pixels.mean(dtype=np.float64) - case["mean"]) < 1e-4
        if (mask := case["mask"]) is not None:
            assert block.masks is not None
            if "sha" in mask:
                assert made.digest(block.masks, np.float32) == mask["sha"]
            else:  # of the whole in one crop v1 keeps pixels, the fork float64
                pixels_of_patch = pictures.patch_size**2 if name.startswith("v1") else 1
                assert block.masks.sum() * pixels_of_patch == pytest.approx(mask["sum"], abs=0.01)


def _cases(name: str) -> list[dict[str, Any]]:
    return [case for case in CONFIGS[name]["cases"] if "fails" not in case]


def test_defect_02_thin_pictures_get_tiles_along_their_long_side() -> None:
    pictures = MolmoPictures(tokens=made.TOKENS, max_crops=12)
    assert pictures.plan(60, 3000).num_crops == 13
    as_v1 = MolmoPictures(tokens=made.TOKENS, max_crops=12, tiling="v1")
    assert as_v1.plan(60, 3000).num_crops == 2


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
@pytest.mark.parametrize("pixels", ["exact", "fast"])
def test_defect_03_a_side_that_would_have_no_pixel_has_one(size: tuple[int, int], pixels: Any) -> None:
    pictures = MolmoPictures(tokens=made.TOKENS, crop_mode="resize", pixels=pixels, image_masks=True)
    block = pictures(np.full((*size, 3), 255, np.uint8))
    assert block.masks is not None
    assert round(float(block.masks.sum()) * 14 * 14) == (336 * 336 if size == (1, 1) else 336)


def test_defect_24_crops_of_the_fast_mode_take_a_quarter_of_the_bytes() -> None:
    exact, fast = (MolmoPictures(tokens=made.TOKENS, max_crops=12, pixels=kind) for kind in ("exact", "fast"))
    image = made.photograph(150, 340)
    assert exact(image).pixels.nbytes == 3 * 336 * 336 * 3 * 4
    assert fast(image).pixels.nbytes == 3 * 336 * 336 * 3


@pytest.mark.parametrize(
    ("resize", "kernel", "antialias"),
    [("siglip", "bilinear", False), ("dino", "bicubic", True), ("metaclip", "bicubic", True)],
)
def test_pictures_that_fill_a_crop_are_resized_by_way_of_uint8(resize: Any, kernel: str, antialias: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (500, 400, 3), dtype=np.uint8)
    pictures = MolmoPictures(tokens=made.TOKENS, crop_mode="resize", resize=resize, normalize="none", form="crops")
    planar = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    theirs = torch.nn.functional.interpolate(planar, (336, 336), mode=kernel, antialias=antialias)
    levels = pictures(image).pixels * 255
    assert np.abs(levels - theirs.round().clamp(0, 255).numpy()).max() < 1.001  # a half may be rounded either way
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


@pytest.mark.parametrize("crop_mode", ["overlap-and-resize-c2", "resize"])
@pytest.mark.parametrize(
    ("resize", "normalize", "levels"), [("default", "openai", 0.5), ("siglip", "siglip", 0), ("dino", "imagenet", 0)]
)
def test_the_fast_mode_is_the_exact_one_rounded(crop_mode: Any, resize: Any, normalize: str, levels: float) -> None:
    ways: dict[str, Any] = {"tokens": made.TOKENS, "crop_mode": crop_mode, "resize": resize, "normalize": normalize}
    image = np.random.default_rng(0).integers(0, 256, (250, 420, 3), dtype=np.uint8)
    fast = MolmoPictures(**ways, pixels="fast")(image).pixels
    exact = MolmoPictures(**ways)(image).pixels
    off = np.abs(normalized(torch.from_numpy(fast), normalize).numpy() - exact)
    assert off.max() <= levels * statistics.affine(normalize).scale.max() + 1e-5


def test_crops_and_patches_have_the_same_pixels() -> None:
    image = made.photograph(300, 500)
    patches = MolmoPictures(tokens=made.TOKENS)(image).pixels
    crops = MolmoPictures(tokens=made.TOKENS, form="crops")(image).pixels
    number = len(crops)
    assert crops.shape == (number, 3, 336, 336)
    split = crops.reshape(number, 3, 24, 14, 24, 14).transpose(0, 2, 4, 3, 5, 1)
    np.testing.assert_array_equal(patches, split.reshape(number, 576, 588))


@pytest.mark.parametrize("form", ["patches", "crops"])
@pytest.mark.parametrize("normalize", ["openai", "siglip", "imagenet"])
def test_crops_can_be_looked_at_in_their_own_colors(form: Any, normalize: str) -> None:
    image = made.photograph(336, 336)
    pictures = MolmoPictures(tokens=made.TOKENS, crop_mode="resize", form=form, normalize=normalize)
    (shown,) = pictures.crops_as_pixels(pictures(image).pixels)
    np.testing.assert_array_equal(shown, image)


def test_fewer_crops_can_be_asked_for_and_never_more() -> None:
    pictures = MolmoPictures(tokens=made.TOKENS, max_crops=6)
    image = made.photograph(400, 300)
    assert pictures(image, max_crops=1).plan.num_crops == 2
    assert pictures.plan(400, 300, max_crops=50) is pictures.plan(400, 300)
    with pytest.raises(ValueError, match="at least 1"):
        pictures.plan(400, 300, max_crops=0)


def test_the_seeds_setting_has_a_token_for_each_patch() -> None:
    pictures = MolmoPictures(
        tokens=made.TOKENS, max_crops=1, overlap_margins=(0, 0), pooling=(1, 1), crop_mode="resize"
    )
    plan = pictures.plan(480, 640)
    assert plan.pooled_patches_idx.tolist() == [[patch] for patch in range(576)]
    assert plan.image_input_idx.shape == (1, 576)
    assert (plan.tokens[plan.image_input_idx[0]] == made.TOKENS.patch).all()


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.sampled_from(["overlap-and-resize-c2", "overlap-and-resize"]),
    st.integers(1, 9),
    st.sampled_from([(336, 14, (2, 2)), (378, 14, (2, 2)), (224, 14, (3, 2)), (336, 16, (1, 1))]),
    st.sampled_from([(4, 4), (2, 1), (0, 0)]),
)
@settings(max_examples=25, deadline=None)
def test_every_patch_of_the_picture_makes_one_token(
    size: tuple[int, int], crop_mode: Any, max_crops: int, sides: tuple[int, int, tuple[int, int]], margins: Any
) -> None:
    crop_size, patch_size, pooling = sides
    pictures = MolmoPictures(
        tokens=made.TOKENS,
        crop_mode=crop_mode,
        max_crops=max_crops,
        crop_size=crop_size,
        patch_size=patch_size,
        pooling=pooling,
        overlap_margins=margins,
    )
    plan, (tokens, crops, pooled) = pictures.plan(*size), pictures.rooms(np.array([size]))
    assert (tokens[0], crops[0], pooled[0]) == (len(plan.tokens), plan.num_crops, len(plan.pooled_patches_idx))
    assert plan.num_crops <= pictures.most_crops
    used = plan.pooled_patches_idx[plan.pooled_patches_idx >= 0]
    assert len(np.unique(used)) == len(used)
    side = crop_size // patch_size
    tiles = plan.num_crops - (crop_mode == "overlap-and-resize-c2")
    assert len(used) <= plan.num_crops * side * side
    if sum(margins) == 0:
        assert len(used) == plan.num_crops * side * side
    assert tiles <= max_crops
    assert (plan.tokens == made.TOKENS.patch).sum() == len(plan.pooled_patches_idx)
    places = plan.image_input_idx[plan.image_input_idx >= 0]
    np.testing.assert_array_equal(np.sort(places), np.flatnonzero(plan.tokens == made.TOKENS.patch))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_mode": "overlap"}, "crop_mode='overlap', expected one of"),
        ({"resize": "tensorflow"}, "resize='tensorflow', expected one of"),
        ({"normalize": "dino"}, "normalize='dino', expected one of"),
        ({"crop_size": 340}, "no multiple of patch_size"),
        ({"overlap_margins": (12, 12)}, "leave nothing of a crop"),
        ({"pool_over": "crop", "overlap_margins": (3, 4)}, "not in whole cells"),
        ({"tokens": PictureTokens(patch=5, start=1, end=2)}, "no id for col"),
        ({"use_low_res_token_global_crops": True, "tokens": PictureTokens(patch=5, start=1, end=2, col=3)}, "low_res"),
        ({"max_crops": 0}, "max_crops=0"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_names(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MolmoPictures(**{"tokens": made.TOKENS} | changes)


def test_settings_are_plain_values_and_equal_for_equal_ways() -> None:
    settings = MolmoPictures(tokens=made.TOKENS).settings()
    assert settings["kind"] == "molmo"
    assert settings == MolmoPictures(tokens=made.TOKENS, resize="torch-bilinear").settings()
    assert settings != MolmoPictures(tokens=made.TOKENS, pixels="fast").settings()
