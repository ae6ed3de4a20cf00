"""The size of a picture from its header.   pytest tests/media/test_headers.py"""

from __future__ import annotations

import pytest
from PIL import Image, PngImagePlugin

from hpcdata.media import formats, headers
from hpcdata.media.headers import size_of_beginning, upright_size
from hpcdata.media.opening import open_image
from hpcdata.media.rules import RULES
from hpcdata.samples import BadSample, Reason
from tests.media import pictures
from tests.media.pictures import encoded, exif, noisy

LIMIT = 1_000_000


def behind_its_pixels(data: bytes) -> bytes:
    """A PNG with its eXIf chunk moved to the end."""
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    chunk, rest = data[start:end], data[:start] + data[end:]
    return rest[:-12] + chunk + rest[-12:]


LATE = behind_its_pixels(encoded(noisy(15, 10), exif=exif(6)))
FILES = {**pictures.by_mode(23, 14), **pictures.turned(15, 10), "late orientation": LATE}


@pytest.mark.parametrize("name", FILES)
def test_it_is_the_size_of_the_opened_picture_by_every_rule(name: str) -> None:
    for rule in RULES.values():
        size = open_image(FILES[name], max_pixels=LIMIT, rule=rule).shape[:2]
        assert upright_size(FILES[name], max_pixels=LIMIT, rule=rule) == size
        assert size_of_beginning(FILES[name], max_pixels=LIMIT, rule=rule) in (size, None)


def test_an_orientation_behind_the_pixels_turns_a_picture() -> None:
    assert upright_size(LATE, max_pixels=LIMIT) == (15, 10)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_nothing_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noisy(30, 20), kind)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    assert upright_size(data, max_pixels=LIMIT) == (20, 30)


def test_the_beginning_of_a_jpeg_is_enough_once_its_scan_has_begun() -> None:
    data = encoded(noisy(600, 400), "JPEG", exif=exif(6))
    scan = data.index(b"\xff\xda")
    assert size_of_beginning(data[:scan], max_pixels=LIMIT) is None
    assert size_of_beginning(data[: scan + 20], max_pixels=LIMIT) == (600, 400)
    assert size_of_beginning(encoded(noisy(9, 9)), max_pixels=LIMIT) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY_IMAGE),
        (b"text", Reason.UNREADABLE_IMAGE),
        (encoded(noisy(2000, 600)), Reason.OVERSIZED_IMAGE),
        (encoded(noisy(2000, 600), "JPEG"), Reason.OVERSIZED_IMAGE),
    ],
)
def test_what_cannot_be_opened_has_no_size(data: bytes, reason: Reason) -> None:
    with pytest.raises(BadSample) as caught:
        upright_size(data, max_pixels=LIMIT)
    assert caught.value.reason is reason


def test_metadata_behind_the_pixels_of_a_png_are_told_by_its_chunks() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "in front")
    early = encoded(noisy(9, 9), pnginfo=notes)
    assert [headers._has_metadata_behind_pixels(data) for data in (early, LATE, early[:50])] == [False, True, False]
    assert "PNG" in formats.FORMATS
