"""Resizing in float32 against torch.   pytest tests/multimodal/pictures/test_resampling.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.multimodal.pictures import resampling
from hpcdata.multimodal.pictures.resampling import resample
from hpcdata.multimodal.pictures.statistics import Affine
from hpcdata.native.compiled import kernels

ZERO = np.zeros(3, np.float32)
TO_ONE, TO_255 = Affine(np.full(3, np.float32(1 / 255)), ZERO), Affine(np.ones(3, np.float32), ZERO)
SIDE = st.integers(2, 90)
WAYS = [("bilinear", True), ("bicubic", True), ("bilinear", False)]


@pytest.mark.parametrize(("kernel", "antialias"), WAYS)
@given(SIDE, SIDE, SIDE, SIDE, st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_values_are_those_of_torch(
    kernel: Any, antialias: bool, high: int, wide: int, h: int, w: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (high, wide, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        _resampled(image, (h, w), kernel, antialias), _by_torch(image, (h, w), kernel, antialias), rtol=0, atol=1e-5
    )


def test_a_picture_one_pixel_wide_is_resized_as_a_wider_one() -> None:
    """torch itself repeats rows there when channels are last: it takes the strides for another layout."""
    line = np.random.default_rng(0).integers(0, 256, (500, 1, 3), dtype=np.uint8)
    wide = np.repeat(line, 2, axis=1)
    np.testing.assert_array_equal(
        _resampled(line, (33, 1), "bilinear", True), _resampled(wide, (33, 2), "bilinear", True)[:, :1]
    )


@pytest.mark.parametrize("turned", [False, True])
def test_sides_that_are_longer_than_any_jpegs_are_averaged_first(turned: bool) -> None:
    """Weights for all of their pixels would take gigabytes of a picture of some megabytes."""
    length = 5 * resampling.LONGEST + 3
    line = np.linspace(0, 255, length).astype(np.uint8)[None, :, None].repeat(3, axis=2)
    size = (1, 64)
    if turned:
        line, size = np.ascontiguousarray(line.swapaxes(0, 1)), (64, 1)
    out = np.empty((*size, 3), np.uint8)
    resample(line, out, kernel="bilinear", antialias=True, rounded=True, affine=None)
    np.testing.assert_allclose(out.reshape(64, 3)[:, 0], np.linspace(2, 253, 64), atol=2)
    assert resampling._shortened(line, int(not turned)).size <= 3 * resampling.LONGEST


def test_rounded_values_are_whole_and_within_white() -> None:
    image = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (40, 50, 3))
    out = np.empty((23, 31, 3), np.float32)
    ways: dict[str, Any] = {"kernel": "bicubic", "antialias": True, "rounded": True}
    resample(image, out, **ways, affine=TO_255)
    assert (out == np.rint(out)).all()
    assert (out.min(), out.max()) == (0, 255)


def test_rows_of_the_result_may_be_part_of_a_larger_one() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    target = np.full((30, 40, 3), -7, np.float32)
    ways: dict[str, Any] = {"kernel": "bilinear", "antialias": True, "rounded": False, "affine": TO_ONE}
    resample(image, target[5:25, 10:30], **ways)
    np.testing.assert_array_equal(target[5:25, 10:30], _resampled(image, (20, 20), "bilinear", True))
    assert (target == -7).sum() == target.size - 20 * 20 * 3


@pytest.mark.parametrize("affine", [None, TO_ONE, Affine(np.array([0.3, 0.01, 0.02], np.float32), ZERO + 0.7)])
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize(("kernel", "antialias"), WAYS)
@given(SIDE, SIDE, SIDE, SIDE, st.integers(0, 99))
@settings(max_examples=5, deadline=None)
def test_compiled_loops_make_the_bytes_of_numpy(
    affine: Any, rounded: bool, kernel: Any, antialias: bool, high: int, wide: int, h: int, w: int, seed: int
) -> None:
    if kernels() is None:
        pytest.skip("no compiled loops")
    image = np.random.default_rng(seed).integers(0, 256, (high, wide, 3), dtype=np.uint8)
    made = []
    for loops in (kernels, lambda: None):
        out = np.zeros((h, w, 3), np.uint8 if affine is None else np.float32)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(resampling, "kernels", loops)
            resample(image, out, kernel=kernel, antialias=antialias, rounded=rounded, affine=affine)
        made.append(out)
    np.testing.assert_array_equal(made[0], made[1])


def test_places_outside_of_the_picture_are_refused() -> None:
    if (loops := kernels()) is None:
        pytest.skip("no compiled loops")
    image, out = np.zeros((4, 5, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    fine = (np.zeros(2, np.int64), np.ones((2, 3), np.float32))
    for first in (-1, 3):
        beyond = (np.array([0, first]), np.ones((2, 3), np.float32))
        for rows, columns in ((beyond, fine), (fine, beyond)):
            with pytest.raises(IndexError):
                loops.resample(image, rows, columns, None, out, rounded=True)
    with pytest.raises(TypeError, match="side by side"):
        loops.resample(image, fine, fine, None, out.astype(np.float32), rounded=True)


def _resampled(image: np.ndarray, size: tuple[int, int], kernel: Any, antialias: bool) -> np.ndarray:
    out = np.empty((*size, 3), np.float32)
    resample(image, out, kernel=kernel, antialias=antialias, rounded=False, affine=TO_ONE)
    return out


def _by_torch(image: np.ndarray, size: tuple[int, int], kernel: str, antialias: bool) -> np.ndarray:
    planar = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    made = torch.nn.functional.interpolate(planar, size, mode=kernel, antialias=antialias, align_corners=False)
    return made[0].permute(1, 2, 0).numpy()
