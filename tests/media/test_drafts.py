"""Drafts of large JPEGs keep their shapes and nearly their pixels.   pytest tests/media/test_drafts.py"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcdata.media import colors, pixels
from hpcdata.samples import BadSample, Reason
from tests.media.pictures import encoded, exif, noisy
from tests.smallruns import small_run

LIMIT = 10_000_000
DRAFT_SIZES = ((64, 64), (48, 80), (80, 48))


def smooth(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    wave = np.stack([np.sin(x / 40), np.cos(y / 30), np.sin((x + y) / 50)], axis=2)
    return Image.fromarray((127.5 + 127 * wave).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
@pytest.mark.parametrize(
    ("width", "height", "scale"),
    [(1024, 1024, 8), (1040, 1033, 8), (1001, 603, 4), (301, 299, 2)],
)
def test_a_draft_of_a_large_jpeg_has_nearly_its_pixels(
    kind: str, orientation: int, width: int, height: int, scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(smooth(width, height), kind, quality=95, exif=exif(orientation))
    exact = pixels.load(data, sizes=DRAFT_SIZES, max_pixels=LIMIT)
    decoded: list[tuple[int, int]] = []
    flattened = colors.flattened
    monkeypatch.setattr(colors, "flattened", lambda image, alpha: decoded.append(image.size) or flattened(image, alpha))
    draft = pixels.load(data, sizes=DRAFT_SIZES, max_pixels=LIMIT, jpeg_draft=True)
    assert decoded == [(-(-width // scale), -(-height // scale))]
    assert draft.shape == exact.shape, "it has the same size of all"
    assert np.abs(draft.astype(int) - exact).mean() < 0.5, "nor is it stretched by what was rounded up"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_draft_of_what_is_small_or_no_jpeg_is_exact(kind: str) -> None:
    side = 255 if kind == "JPEG" else 1024  # less than twice what is needed twice over
    data = encoded(noisy(side, side), kind)
    exact = pixels.load(data, sizes=DRAFT_SIZES, max_pixels=LIMIT)
    assert np.array_equal(exact, pixels.load(data, sizes=DRAFT_SIZES, max_pixels=LIMIT, jpeg_draft=True))


@given(width=st.integers(1, 700), height=st.integers(1, 700), orientation=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_a_draft_never_changes_the_size(width: int, height: int, orientation: int) -> None:
    data = encoded(Image.new("RGB", (width, height), "red"), "JPEG", exif=exif(orientation))
    exact = pixels.load(data, sizes=DRAFT_SIZES, max_pixels=LIMIT)
    assert pixels.load(data, sizes=DRAFT_SIZES, max_pixels=LIMIT, jpeg_draft=True).shape == exact.shape


def test_a_draft_of_a_cut_jpeg_is_a_reject() -> None:
    data = encoded(smooth(1024, 1024), "JPEG")
    with pytest.raises(BadSample) as caught:
        pixels.load(data[: len(data) // 2], sizes=DRAFT_SIZES, max_pixels=LIMIT, jpeg_draft=True)
    assert caught.value.reason == Reason.TRUNCATED


@pytest.mark.parametrize("is_draft", [False, True])
def test_a_run_takes_drafts_when_it_is_asked_to(
    tmp_path: Path, is_draft: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    smooth(256, 256).save(tmp_path / "in/a.jpg")
    (tmp_path / "in/a.txt").write_text("waves")
    drafts: list[object] = []
    draft = pixels.draft
    monkeypatch.setattr(
        pixels, "draft", lambda image, sizes, turned: drafts.append(image) or draft(image, sizes, turned)
    )
    small_run(tmp_path / "run", "data.n_train_samples=1", f"data.jpeg_draft={is_draft}", source=tmp_path / "in")
    assert len(drafts) == is_draft
