"""Changes of pictures while training.   pytest tests/multimodal/pictures/test_augmenting.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hpcdata.multimodal.pictures.augmenting import KERNELS, Augmentation
from hpcdata.multimodal.pictures.molmo import MolmoPictures
from hpcdata.multimodal.pictures.resampling import resample
from tests.multimodal.pictures import made

ALL = ("random_crops", "horizontal_flip", "color_jitter", "resize_variations")
IMAGE = made.photograph(90, 140, noise=20)


def _pictures(**changes: Any) -> MolmoPictures:
    settings: dict[str, Any] = {"tokens": made.TOKENS, "crop_mode": "resize", "crop_size": 168, "form": "crops"}
    return MolmoPictures(**settings | {"pixels": "fast"} | changes)


def _made(pictures: MolmoPictures, seed: int | None, **options: Any) -> np.ndarray:
    rng = None if seed is None else np.random.RandomState(seed)
    return pictures(IMAGE, rng, **{"is_training": True} | options).pixels


@pytest.mark.parametrize("option", ALL)
@pytest.mark.parametrize("pixels", ["exact", "fast"])
@pytest.mark.parametrize("resize", ["default", "siglip"])
def test_each_changes_pictures_while_training_and_never_else(option: str, pixels: str, resize: str) -> None:
    pictures = _pictures(augmentation=Augmentation(**{option: True}), pixels=pixels, resize=resize)
    plain = _made(_pictures(pixels=pixels, resize=resize), None)
    changed = [_made(pictures, seed) for seed in range(6)]
    assert any(not np.array_equal(plain, other) for other in changed)
    np.testing.assert_array_equal(changed[3], _made(pictures, 3))
    np.testing.assert_array_equal(plain, _made(pictures, 3, is_training=False))
    np.testing.assert_array_equal(plain, _made(pictures, None))


def test_off_by_default_and_nothing_is_drawn() -> None:
    rng = np.random.RandomState(0)
    _pictures()(IMAGE, rng, is_training=True)
    assert rng.randint(1 << 30) == np.random.RandomState(0).randint(1 << 30)


@pytest.mark.parametrize("option", ["random_crops", "horizontal_flip"])
def test_nothing_moves_where_texts_say_places_and_later_draws_stay(option: str) -> None:
    alone = _pictures(augmentation=Augmentation(**{option: True}))
    for seed in range(4):
        np.testing.assert_array_equal(_made(alone, seed, keeps_places=True), _made(_pictures(), None))
    rngs = [np.random.RandomState(0), np.random.RandomState(0)]
    for rng, keeps_places in zip(rngs, (False, True), strict=True):
        alone(IMAGE, rng, is_training=True, keeps_places=keeps_places)
    assert rngs[0].randint(1 << 30) == rngs[1].randint(1 << 30)


def test_flips_exchange_left_and_right_in_half_of_the_cases() -> None:
    pictures, plain = _pictures(augmentation=Augmentation(horizontal_flip=True)), _made(_pictures(), None)
    flipped = [not np.array_equal(_made(pictures, seed), plain) for seed in range(40)]
    assert 8 < sum(flipped) < 32
    once = _made(pictures, flipped.index(True))
    assert np.abs(once[..., ::-1].astype(int) - plain).max() <= 1


def test_crops_are_parts_of_the_picture_in_its_shape() -> None:
    augmentation = Augmentation(random_crops=True, least_area=0.5)
    changes = [augmentation.draw(IMAGE, np.random.RandomState(seed), keeps_places=False) for seed in range(30)]
    for change in changes:
        assert change is not None
        shown = IMAGE[change.rows, change.columns]
        assert 0.48 < shown.shape[0] * shown.shape[1] / (90 * 140) <= 1
        assert abs(shown.shape[1] / shown.shape[0] - 140 / 90) < 0.05
    assert len({change.rows.start for change in changes if change is not None}) > 3


def test_tokens_and_crops_stay_those_of_the_plan() -> None:
    pictures = _pictures(crop_mode="overlap-and-resize-c2", augmentation=Augmentation(**dict.fromkeys(ALL, True)))
    for seed in range(5):
        block = pictures(IMAGE, np.random.RandomState(seed), is_training=True)
        assert block.plan is pictures.plan(*IMAGE.shape[:2])
        assert len(block.pixels) == block.plan.num_crops


def test_a_jitter_of_nothing_changes_nothing() -> None:
    same = _made(_pictures(augmentation=Augmentation(color_jitter=True, jitter=0.0)), 0)
    assert np.abs(same.astype(int) - _made(_pictures(), None)).max() <= 1


def test_colors_change_in_the_order_brightness_contrast_saturation() -> None:
    class Drawn:
        def uniform(self, low: float, high: float, number: int) -> np.ndarray:
            return np.array([0.9, 1.1, 0.8])

    change = Augmentation(color_jitter=True).draw(IMAGE, Drawn(), keeps_places=False)  # type: ignore[arg-type]
    assert change is not None
    assert change.color is not None
    found = IMAGE[:5, :5].astype(np.float32)
    change.color.apply(found)
    gray = np.array([0.299, 0.587, 0.114])
    expected = IMAGE[:5, :5] * 0.9
    expected = 1.1 * expected - 0.1 * (IMAGE.reshape(-1, 3).mean(0) @ gray * 0.9)
    expected = 0.8 * expected + 0.2 * (expected @ gray)[..., None]
    np.testing.assert_allclose(found, np.clip(expected, 0, 255), atol=1e-3)


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel != "nearest"])
def test_kernels_are_those_of_pillow(kernel: Any) -> None:
    """But where Pillow cuts overshoots between rows and columns: so none are here."""
    image, out = IMAGE // 2 + 60, np.empty((31, 77, 3), np.uint8)
    resample(image, out, kernel=kernel, antialias=True, rounded=True, affine=None)
    theirs = Image.fromarray(image).resize((77, 31), getattr(Image.Resampling, kernel.upper()))
    assert np.abs(out.astype(int) - np.asarray(theirs)).max() <= 1


def test_nearest_is_the_nearest_exact_of_torch() -> None:
    out = np.empty((31, 77, 3), np.uint8)
    resample(IMAGE, out, kernel="nearest", antialias=False, rounded=True, affine=None)
    planar = torch.from_numpy(IMAGE).permute(2, 0, 1)[None]
    theirs = torch.nn.functional.interpolate(planar, (31, 77), mode="nearest-exact")[0].permute(1, 2, 0)
    np.testing.assert_array_equal(out, theirs.numpy())


@pytest.mark.parametrize("changes", [{"least_area": 0.0}, {"least_area": 1.1}, {"jitter": 1.0}, {"jitter": -0.1}])
def test_settings_that_cannot_be_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        Augmentation(**changes)  # type: ignore[arg-type]
