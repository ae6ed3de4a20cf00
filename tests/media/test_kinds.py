"""Which files are pictures, by their names and first bytes.   pytest tests/media/test_kinds.py"""

from __future__ import annotations

import io

import pytest
from PIL import Image, features

from hpcdata.media import formats, kinds
from hpcdata.samples import BadSample, Reason

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
AVIF = b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf" + bytes(40)
JXL = b"\xff\x0a" + bytes(40)
JXL_BOX = b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)


def test_every_ending_of_a_format_that_is_opened_is_a_picture() -> None:
    """Pillow's own list of endings is the independent one."""
    Image.init()
    known = {ending[1:] for ending, name in Image.registered_extensions().items() if name in formats.FORMATS}
    assert len(known) > 25
    assert known <= kinds.IMAGE_EXTENSIONS


@pytest.mark.parametrize("name", formats.FORMATS)
def test_what_pillow_writes_is_a_picture_by_its_first_bytes(name: str) -> None:
    if name == "AVIF" and not features.check("avif"):
        data = AVIF
    else:
        buffer = io.BytesIO()
        Image.new("RGB", (40, 30), (1, 2, 3)).save(buffer, name)
        data = buffer.getvalue()
    assert kinds.is_picture(data[: kinds.BEGINNING_BYTES])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        *((HEIC, "HEIC"), (AVIF, "AVIF"), (JXL, "JPEG XL"), (JXL_BOX, "JPEG XL"), (b"BM me up, Scotty", None)),
        *((b"words", None), (b"", None), (b'{"a": 1}', None), (b"%PDF-1.7", "PDF"), (b"\0\0\0\x18ftypisom", "a video")),
        *((b"<!DOCTYPE html><p>", "a web page"), (b'<?xml version="1.0"?><svg>', "SVG"), (b"P6 is a bus", "PNM")),
    ],
)
def test_first_bytes_name_a_kind(data: bytes, kind: str | None) -> None:
    assert kinds.find_kind(data) == kind


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEIC, "HEIC, which is not decoded here: convert it to PNG or JPEG, as heif-convert of libheif does"),
        (JXL, "JPEG XL, which is not decoded here: convert it to PNG or JPEG, as djxl of libjxl does"),
        (b"<html><body>404", "a web page, which is no picture that is read here"),
        (b"\0\0\0\x18ftypisom", "a video, which is no picture that is read here"),
    ],
)
def test_a_reject_names_what_is_not_decoded_and_what_to_do(data: bytes, message: str) -> None:
    with pytest.raises(BadSample) as caught, formats.opened(data, 10**6):
        pass
    assert (caught.value.reason, caught.value.message) == (Reason.UNREADABLE_IMAGE, message)


def test_avif_is_decoded_or_says_what_to_install() -> None:
    assert "install pillow 11.3 or newer" in kinds.describe_unopened(AVIF, frozenset())
    assert kinds.describe_unopened(AVIF, {"AVIF"}) == "not in a known image format"


@pytest.mark.parametrize("ending", ["", "img", "jpg_large", "jpg!d", "0042", "jpeg?w=640", "bin"])
def test_endings_that_say_nothing(ending: str) -> None:
    assert kinds.says_nothing(ending)


@pytest.mark.parametrize("ending", ["mp4", "npy", "csv", "parquet", "html"])
def test_endings_of_other_formats_say_enough(ending: str) -> None:
    assert not kinds.says_nothing(ending)
