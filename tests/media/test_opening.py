"""A picture at its full size, and arrays resized.   pytest tests/media/test_opening.py"""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, TiffImagePlugin, WebPImagePlugin

from hpcdata.media import jpeg, pixels
from hpcdata.media.opening import open_image
from hpcdata.media.resizing import resize
from hpcdata.media.rules import RULES
from hpcdata.samples import BadSample, Reason
from tests.media import pictures
from tests.media.pictures import encoded, noisy

SCAN = b"\xff\xda"

LIMIT = 1_000_000
FILES = {**pictures.by_mode(23, 14), **pictures.turned(15, 10)}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("name", FILES)
def test_the_raw_path_and_the_tokenizers_see_the_same_picture(name: str, rule) -> None:
    whole = open_image(FILES[name], max_pixels=LIMIT, rule=rule)
    assert whole.dtype == np.uint8
    assert whole.flags.c_contiguous
    assert whole.flags.writeable
    same = pixels.load(FILES[name], sizes=(whole.shape[:2],), max_pixels=LIMIT, rule=rule)
    np.testing.assert_array_equal(whole, same)


def test_a_file_of_few_bytes_does_not_cost_the_decoding_of_millions_of_pixels() -> None:
    bomb, page = (encoded(Image.new("RGB", (1600, 1600)), "WEBP", lossless=True, method=m) for m in (0, 4))
    assert open_image(page, max_pixels=10**8).shape == (1600, 1600, 3)
    with pytest.raises(BadSample, match=r"2560000 pixels in \d\d bytes, the limit is 30000 a byte") as caught:
        open_image(bomb, max_pixels=10**8)
    assert caught.value.reason == Reason.OVERSIZED_IMAGE


TRUNCATED_IS_GRAY = dataclasses.replace(RULES["molmo"], truncated="gray")


@pytest.mark.parametrize("progressive", [False, True])
def test_defect_18_a_truncated_jpeg_is_a_reject_or_gray_where_that_is_asked_for(progressive: bool) -> None:
    data = encoded(noisy(60, 80), "JPEG", progressive=progressive)
    cut = data[: len(data) // 2]
    with pytest.raises(BadSample) as caught:
        open_image(cut, max_pixels=LIMIT, rule=RULES["molmo"])
    assert caught.value.reason == Reason.TRUNCATED
    whole, filled = (open_image(part, max_pixels=LIMIT, rule=TRUNCATED_IS_GRAY) for part in (data, cut))
    np.testing.assert_array_equal(whole, open_image(data, max_pixels=LIMIT, rule=RULES["molmo"]))
    np.testing.assert_array_equal(filled, _as_in_molmo(cut))
    loaded = pixels.load(cut, sizes=(filled.shape[:2],), max_pixels=LIMIT, rule=TRUNCATED_IS_GRAY)
    np.testing.assert_array_equal(filled, loaded)


@pytest.mark.parametrize("cut", [3, 100])
def test_nothing_is_filled_in_where_there_is_no_pixel(cut: int) -> None:
    for format in ("JPEG", "PNG"):
        with pytest.raises(BadSample):
            open_image(encoded(noisy(60, 80), format)[:cut], max_pixels=LIMIT, rule=TRUNCATED_IS_GRAY)


def _as_in_molmo(data: bytes) -> np.ndarray:
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        return np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", Reason.EMPTY_IMAGE, id="empty"),
        pytest.param(b"text", Reason.UNREADABLE_IMAGE, id="text"),
        pytest.param(encoded(noisy(2000, 600)), Reason.OVERSIZED_IMAGE, id="large PNG"),
        pytest.param(encoded(noisy(2000, 600), "JPEG"), Reason.OVERSIZED_IMAGE, id="large JPEG"),
        pytest.param(encoded(noisy(99, 99))[:5000], Reason.TRUNCATED, id="cut PNG"),
        pytest.param(encoded(noisy(99, 99), "JPEG")[:2000], Reason.TRUNCATED, id="cut JPEG"),
    ],
)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rejects_do_not_depend_on_who_asks(data: bytes, reason: Reason, rule) -> None:
    said = []
    for read in (open_image, lambda *args, **options: pixels.load(*args, sizes=((8, 8),), **options)):
        with pytest.raises(BadSample) as caught:
            read(data, max_pixels=LIMIT, rule=rule)
        said.append((caught.value.reason, caught.value.message))
    assert said[0] == said[1]
    assert said[0][0] is reason


@pytest.mark.parametrize(("num_more", "is_read"), [(0, True), (40, True), (60, False), (5000, False)])
def test_a_jpeg_that_repeats_its_scans_is_refused_unread(num_more: int, is_read: bool) -> None:
    """Each scan costs a pass over all pixels: a small file could hold a thread for an hour."""
    data = encoded(noisy(24, 16), "JPEG", progressive=True)
    head, scan = data[: data.rfind(SCAN)], data[data.rfind(SCAN) : -2]
    data = head + scan * (1 + num_more) + b"\xff\xd9"
    if is_read:
        assert open_image(data, max_pixels=10**6).shape == (16, 24, 3)
    else:
        with pytest.raises(BadSample, match=f"a JPEG of {data.count(SCAN)} scans, the limit is 50") as caught:
            open_image(data, max_pixels=10**6)
        assert caught.value.reason is Reason.OVERSIZED_IMAGE


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_decoder_without_memory_does_not_blame_the_picture(monkeypatch, kind: str) -> None:
    """Pillow's codecs report it as an OSError in words, with the code -9."""
    monkeypatch.setattr(jpeg, "decoded", lambda data, image: None)
    data = encoded(noisy(24, 16), kind)

    def load(image: ImageFile.ImageFile) -> None:
        raise ImageFile._get_oserror(-9, encoder=False)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    monkeypatch.setattr(WebPImagePlugin.WebPImageFile, "load", load)
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", load)
    with pytest.raises(MemoryError, match="out of memory"):
        open_image(data, max_pixels=10**6)


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kernel=st.sampled_from(["bilinear", "bicubic", "lanczos"]),
)
@settings(max_examples=60, deadline=None)
def test_an_array_is_resized_by_the_kernel_of_that_name(shape, size, kernel) -> None:
    array = np.asarray(noisy(*shape))
    before = array.copy()
    made = resize(array, size, kernel)
    assert made.shape == (*size, 3)
    filter_of = {"bilinear": 2, "bicubic": 3, "lanczos": 1}
    same = Image.fromarray(array).resize((size[1], size[0]), Image.Resampling(filter_of[kernel]))
    np.testing.assert_array_equal(made, np.asarray(same))
    np.testing.assert_array_equal(array, before)
