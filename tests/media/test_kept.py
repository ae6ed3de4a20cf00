"""Pictures that are checked, and such as are written anew.   pytest tests/media/test_kept.py"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from hpcdata.media import jpeg, kept, pixels
from hpcdata.media.kept import as_png
from hpcdata.native import jpegs
from hpcdata.samples import BadSample
from tests.llava_tables import picture

MAX = 10**6


def made(mode: str, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image = Image.effect_noise((40, 30), 80).convert("RGB" if mode != "L" else "L")
    image.convert(mode).save(out, kind, **options)
    return out.getvalue()


PICTURES = {
    "baseline": made("RGB", "JPEG"),
    "progressive": made("RGB", "JPEG", progressive=True),
    "gray": made("L", "JPEG"),
    "CMYK": made("CMYK", "JPEG"),
    "PNG": made("RGBA", "PNG"),
    "palette": made("P", "PNG"),
    "WebP": made("RGB", "WEBP"),
    "GIF": made("P", "GIF"),
    "TIFF": made("I;16", "TIFF"),
}


def verdict(data: bytes) -> str:
    try:
        kept.check(data, max_pixels=MAX)
    except BadSample as bad:
        return str(bad.reason)
    return ""


def whole(data: bytes) -> str:
    try:
        pixels.load(data, sizes=((8, 8),), max_pixels=MAX)
    except BadSample as bad:
        return str(bad.reason)
    return ""


@pytest.mark.parametrize("by", ["loops", "simplejpeg", "Pillow"])
@pytest.mark.parametrize("name", PICTURES)
def test_the_verdict_is_that_of_decoding_all(name: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whole pictures, of those that end early, and with bytes changed."""
    if by != "loops":
        monkeypatch.setattr(jpegs, "loops", lambda: None)
    if by == "Pillow":
        monkeypatch.setattr(jpeg, "_found", [None])
    data = PICTURES[name]
    cut = [data[: len(data) * part // 8] for part in range(1, 8)]
    changed = [data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :] for at in range(2, len(data), len(data) // 12)]
    assert verdict(data) == ""
    assert [verdict(item) for item in [*cut, *changed]] == [whole(item) for item in [*cut, *changed]]


def test_too_many_pixels_are_refused_by_the_header() -> None:
    pixels.load(PICTURES["baseline"], sizes=((8, 8),), max_pixels=MAX)  # so that Pillow's warnings are silenced
    with pytest.raises(BadSample, match="1200 pixels, the limit is 1000"):
        kept.check(PICTURES["baseline"], max_pixels=1000)


@pytest.mark.parametrize(
    ("mode", "kind", "stored"),
    [
        *(("L", "BMP", "L"), ("P", "GIF", "P"), ("RGB", "TIFF", "RGB"), ("RGBA", "TIFF", "RGBA"), ("1", "TIFF", "1")),
        *(("CMYK", "TIFF", "RGB"), ("I;16", "TIFF", "I;16"), ("LA", "TIFF", "LA"), ("RGB", "PPM", "RGB")),
    ],
)
def test_a_png_has_the_same_pixels(mode: str, kind: str, stored: str) -> None:
    data = made(mode, kind)
    png = as_png(data, max_pixels=MAX)
    assert png == as_png(data, max_pixels=MAX)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(png)) as after:
        assert (after.format, after.mode) == ("PNG", stored)
        expected = before if before.mode == stored else before.convert(stored)
        assert np.array_equal(np.asarray(after), np.asarray(expected))


def test_what_says_how_pixels_are_meant_is_kept_and_pixels_are_not_turned() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    png = as_png(made("RGB", "WEBP", icc_profile=profile, exif=exif.tobytes()), max_pixels=MAX)
    with Image.open(io.BytesIO(png)) as image:
        assert (image.size, image.info["icc_profile"], image.getexif()[0x0112]) == ((40, 30), profile, 6)


def test_a_transparent_color_stays_transparent() -> None:
    out = io.BytesIO()
    image = Image.new("P", (8, 8))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(out, "GIF", transparency=0)
    with Image.open(io.BytesIO(as_png(out.getvalue(), max_pixels=MAX))) as after:
        assert after.convert("RGBA").getpixel((0, 0))[3] == 0


def test_what_cannot_be_decoded_is_no_png() -> None:
    with pytest.raises(BadSample):
        as_png(picture()[:-300], max_pixels=MAX)
