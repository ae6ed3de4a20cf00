"""Each named rule gives the pixels of the system that it names.   pytest tests/media/test_rules.py

The originals are written here once more, plainly, from what is known of them.
"""

from __future__ import annotations

import contextlib
import io
import typing
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hpcdata.base.errors import UserError
from hpcdata.config.schema import ImageConfig
from hpcdata.media import pixels
from hpcdata.media.opening import open_image
from hpcdata.media.rules import LIQUID, MOLMO, RULES
from hpcdata.report.status import read_status
from hpcdata.samples import BadSample, Reason
from tests import corpora
from tests.media import pictures
from tests.media.pictures import encoded, noisy
from tests.selection import examples
from tests.smallruns import small_run

LIMIT = 10_000_000


def opened(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(data)).convert("RGB")


def molmo(data: bytes) -> np.ndarray:
    """Converted, then turned where Pillow can."""
    image = opened(data)
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    return np.asarray(image)


def liquid(data: bytes, side: int) -> np.ndarray:
    """Converted, resized to the short side, the long side truncated, the center cropped."""
    image = opened(data)
    factor = min(image.size) / side
    image = image.resize((int(image.width / factor), int(image.height / factor)), Image.Resampling.LANCZOS)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


FILES = {
    **pictures.by_mode(45, 31),
    **pictures.turned(33, 21),
    **{f"{width} x {height}": encoded(noisy(width, height)) for width, height in ((37, 64), (64, 32), (99, 100))},
}


@pytest.mark.parametrize("name", FILES)
def test_molmo_opens_a_picture_as_molmo_does(name: str) -> None:
    np.testing.assert_array_equal(open_image(FILES[name], max_pixels=LIMIT, rule=MOLMO), molmo(FILES[name]))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("side", [16, 31, 64])
def test_liquid_gives_the_tokenizer_what_liquid_does(name: str, side: int) -> None:
    made = pixels.load(FILES[name], sizes=((side, side),), max_pixels=LIMIT, rule=LIQUID)
    np.testing.assert_array_equal(made, liquid(FILES[name], side))


@pytest.mark.parametrize("name", FILES)
def test_liquid_opens_a_picture_without_turning_it(name: str) -> None:
    np.testing.assert_array_equal(
        open_image(FILES[name], max_pixels=LIMIT, rule=LIQUID), np.asarray(opened(FILES[name]))
    )


@given(width=st.integers(1, 300), height=st.integers(1, 300), side=st.sampled_from([32, 128, 256]))
@settings(max_examples=examples(60), deadline=None)
def test_liquid_rounds_as_liquid_does(width: int, height: int, side: int) -> None:
    width, height = min(width, 2 * height), min(height, 2 * width)  # others it drops
    data = encoded(noisy(width, height), "BMP")
    made = pixels.load(data, sizes=((side, side),), max_pixels=LIMIT, rule=LIQUID)
    np.testing.assert_array_equal(made, liquid(data, side))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("size", [(64, 64), (48, 80), (81, 49), (448, 448)])
@pytest.mark.parametrize("shape", [(1, 100_000), (3000, 2), (9, 9), (29, 30), (116, 58)])
def test_every_rule_gives_every_picture_the_size_that_is_asked_for(rule, size, shape) -> None:
    data = encoded(Image.new("RGB", shape, (9, 8, 7)))
    made = pixels.load(data, sizes=(size,), max_pixels=LIMIT, rule=rule)
    assert made.shape == (*size, 3)
    assert (made == (9, 8, 7)).all()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_drafts_obey_the_rule(rule, orientation: int) -> None:
    smooth = noisy(40, 24).resize((1000, 600), Image.Resampling.BICUBIC)
    data = encoded(smooth, "JPEG", quality=95, exif=pictures.exif(orientation))
    sizes = ((48, 80), (80, 48))
    exact, draft = (
        pixels.load(data, sizes=sizes, max_pixels=LIMIT, rule=rule, jpeg_draft=is_draft) for is_draft in (False, True)
    )
    assert draft.shape == exact.shape
    assert 0 < np.abs(draft.astype(int) - exact).mean() < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["openclipart", "tuxpaint"])
def test_liquid_gives_the_pixels_of_liquid_at_512_of_real_pictures(corpus: str) -> None:
    if not corpora.available(corpus):
        pytest.skip(f"{corpus} is not installed")
    files = [pair.image for pair in corpora.pairs(corpus) if corpora.num_pixels(pair.image) < LIMIT][::40]
    compared = 0
    for file in files:
        data = file.read_bytes()
        with Image.open(file) as image:
            is_kept = max(image.size) / min(image.size) <= 2  # as the original says it
        with contextlib.nullcontext() if is_kept else pytest.raises(BadSample, match="the longer side is more than"):
            made = pixels.load(data, sizes=((512, 512),), max_pixels=LIMIT, rule=LIQUID, max_aspect=2)
            np.testing.assert_array_equal(made, liquid(data, 512), err_msg=str(file))
            compared += 1
    assert compared > 15


BESIDE_THE_LIMIT = [((100, 50), True), ((50, 100), True), ((101, 50), False), ((9, 19), False)]


@pytest.mark.parametrize(("size", "is_kept"), BESIDE_THE_LIMIT)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_shape_beyond_the_limit_is_a_reject_and_one_at_the_limit_is_not(size, is_kept, orientation: int) -> None:
    data = encoded(noisy(*size), "JPEG", exif=pictures.exif(orientation))
    options = {"sizes": ((32, 32),), "max_pixels": LIMIT, "max_aspect": 2.0}
    if is_kept:
        assert pixels.load(data, **options).shape == (32, 32, 3)
        return
    with pytest.raises(BadSample, match=f"{size[0]} x {size[1]} pixels: the longer side is more than 2 ") as raised:
        pixels.load(data, **options)
    assert raised.value.reason is Reason.ASPECT_RATIO


@pytest.mark.parametrize(
    "stage",
    [("stage=copy",), pytest.param(("image.tokenizer=embedded",), marks=pytest.mark.slow)],
    ids=["copy", "tokenize"],
)
def test_shapes_beyond_the_limit_are_counted(tmp_path: Path, stage: tuple[str, ...]) -> None:
    (tmp_path / "in").mkdir()
    for name, size in (("a", (64, 32)), ("b", (66, 32)), ("c", (32, 90))):
        (tmp_path / f"in/{name}.png").write_bytes(encoded(noisy(*size)))
        (tmp_path / f"in/{name}.txt").write_text("noise")
    options = ("data.n_train_samples=null", "data.max_aspect=2", *stage)
    small_run(tmp_path / "run", *options, source=tmp_path / "in")
    status = read_status(tmp_path / "run")
    assert (status.counts["written"], status.counts["rejected"]) == (1, {"aspect_ratio": 2})
    with pytest.raises(UserError, match=r"data\.max_aspect was 2\.0, now None"):
        small_run(tmp_path / "run", options[0], *stage, source=tmp_path / "in")
    with pytest.raises(UserError, match=r"data\.max_aspect=0\.5: expected 1 or more"):
        small_run(tmp_path / "other", options[0], "data.max_aspect=0.5", *stage, source=tmp_path / "in")


def test_hidden_colors_show_unless_they_are_laid_on_white() -> None:
    data = encoded(Image.new("RGBA", (8, 8), (10, 20, 30, 0)))
    shown = {name: open_image(data, max_pixels=LIMIT, rule=rule)[0, 0].tolist() for name, rule in RULES.items()}
    assert shown == {"white": [255, 255, 255], "molmo": [10, 20, 30], "liquid": [10, 20, 30]}


def test_the_configuration_names_every_rule() -> None:
    assert typing.get_args(typing.get_type_hints(ImageConfig)["rule"]) == tuple(RULES)


def test_a_run_follows_its_rule_and_another_rule_is_another_run(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(encoded(noisy(40, 32, "RGBA")))
    (tmp_path / "in/a.txt").write_text("noise")
    rules = []
    load = pixels.load
    monkeypatch.setattr(
        pixels, "load", lambda *args, **options: rules.append(options["rule"]) or load(*args, **options)
    )
    plans = [
        small_run(tmp_path / name, "data.n_train_samples=1", f"image.rule={name}", source=tmp_path / "in")
        for name in RULES
    ]
    assert rules == list(RULES.values())
    assert len({plan.fingerprint for plan in plans}) == len(RULES)
    with pytest.raises(UserError, match=r"image\.rule was liquid, now white"):
        small_run(tmp_path / "liquid", "data.n_train_samples=1", source=tmp_path / "in")
