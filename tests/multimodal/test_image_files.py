"""What an example may give as a picture.   pytest tests/multimodal/test_image_files.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcdata.media import headers
from hpcdata.media.rules import LIQUID, MOLMO
from hpcdata.multimodal.image_files import PictureFile, pixels_of, size_of
from hpcdata.samples import BadSample, Blob, Reason
from tests.media.pictures import encoded, exif, noisy

SIDEWAYS = encoded(noisy(30, 20), "JPEG", exif=exif(6))
PLAIN = encoded(noisy(9, 5))


def test_a_path_bytes_or_a_part_of_a_file_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(SIDEWAYS)
    (tmp_path / "archive").write_bytes(b"front" + SIDEWAYS + b"behind")
    part = Blob(path=str(tmp_path / "archive"), offset=5, size=len(SIDEWAYS))
    for given in (str(path), path, SIDEWAYS, part, PictureFile(path), PictureFile(part)):
        assert size_of(given) == (30, 20)
        assert pixels_of(given).shape == (30, 20, 3)
        np.testing.assert_array_equal(pixels_of(given), pixels_of(SIDEWAYS))
    assert PictureFile(path).shape == np.asarray(PictureFile(path)).shape
    assert "a.jpg" in repr(PictureFile(path))
    assert f"{len(SIDEWAYS)} bytes at 5" in repr(PictureFile(part))


def test_arrays_and_pictures_of_pil_are_taken_as_they_are() -> None:
    array = np.zeros((4, 6, 3), np.uint8)
    assert pixels_of(array) is array
    assert size_of(array) == (4, 6)
    image = noisy(30, 20)
    image.getexif().update(exif(6))
    assert size_of(image) == pixels_of(image).shape[:2]
    assert pixels_of(Image.new("L", (6, 4))).shape == (4, 6, 3)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.float32), np.zeros((4, 6, 4), np.uint8), 7, None]
)
def test_what_is_no_picture_is_a_reject(image: object) -> None:
    for read in (size_of, pixels_of):
        with pytest.raises(BadSample, match="expected") as caught:
            read(image)
        assert caught.value.reason is Reason.BAD_RECORD


@pytest.mark.parametrize(("path", "what"), [("a\0b", "a NUL character"), ("\ud800", "a lone surrogate")])
def test_a_path_that_no_file_can_have_is_a_reject(path: str, what: str) -> None:
    with pytest.raises(BadSample, match=f"its path has {what}"):
        size_of(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", Reason.EMPTY_IMAGE), (b"text", Reason.UNREADABLE_IMAGE), (encoded(noisy(400, 300)), Reason.OVERSIZED_IMAGE)],
)
def test_a_size_is_refused_for_the_reason_that_pixels_are(tmp_path: Path, data: bytes, reason: Reason) -> None:
    (tmp_path / "x").write_bytes(data)
    for given in (data, tmp_path / "x"):
        for read in (size_of, pixels_of):
            with pytest.raises(BadSample) as caught:
                read(given, max_pixels=100_000)
            assert caught.value.reason is reason
    with pytest.raises(BadSample) as caught:
        size_of(tmp_path / "gone.png")
    assert caught.value.reason is Reason.MISSING_IMAGE


def test_of_a_large_jpeg_only_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.jpg"
    path.write_bytes(encoded(noisy(600, 500), "JPEG", quality=98))
    assert path.stat().st_size > 2 * headers.BEGINNING_BYTES
    monkeypatch.setattr(Blob, "read", lambda *_, **__: pytest.fail("read whole"))
    assert PictureFile(path).size() == (500, 600)


def test_a_known_size_is_of_its_rule_alone() -> None:
    picture = PictureFile(SIDEWAYS, known=((7, 8), MOLMO))
    assert picture.size() == (7, 8)
    assert picture.size(rule=LIQUID) == (20, 30)
    with pytest.raises(BadSample):
        picture.size(max_pixels=55)
    assert PictureFile(PLAIN).size() == (5, 9)
    assert picture.decode(rule=LIQUID).shape == (20, 30, 3)
    with pytest.raises(BadSample, match="was 8 x 7 when it was measured, now it is 20 x 30") as caught:
        picture.decode()
    assert caught.value.reason is Reason.CHANGED_INPUT
    assert PictureFile(SIDEWAYS, known=((30, 20), MOLMO)).decode().shape == (30, 20, 3)
