"""Every kind of picture becomes the promised square, or a BadSample. pytest tests/media/test_pixels.py"""

import io
import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcdata.media import colors, formats, pixels
from hpcdata.media.pixels import load_square
from hpcdata.native import jpegs as native_jpegs
from hpcdata.samples import BadSample, Reason
from tests.hostile.inputs import tiff
from tests.media.pictures import by_mode, encoded, jpegs, noisy, turned

LIMIT = 10_000_000


def square(data: bytes, resolution: int = 8, max_pixels: int = LIMIT) -> np.ndarray:
    made = load_square(data, resolution=resolution, max_pixels=max_pixels)
    assert made.shape == (resolution, resolution, 3)
    assert made.dtype == np.uint8
    assert made.flags.c_contiguous
    assert made.flags.writeable
    return made


def gradient(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=2).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def one_color(mode: str, color) -> Image.Image:
    return Image.new(mode, (8, 8), color)


def palette_image() -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    return image


def sixteen_bit(value: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8), value, np.uint16))


COLORS = {
    "RGB": (encoded(one_color("RGB", (10, 20, 30))), (10, 20, 30)),
    "L": (encoded(one_color("L", 77)), (77, 77, 77)),
    "1 white": (encoded(one_color("1", 1)), (255, 255, 255)),
    "RGBA opaque": (encoded(one_color("RGBA", (10, 20, 30, 255))), (10, 20, 30)),
    "RGBA clear, hidden color": (encoded(one_color("RGBA", (10, 20, 30, 0))), (255, 255, 255)),
    "RGBA half": (encoded(one_color("RGBA", (0, 100, 200, 51))), (204, 224, 244)),
    "LA half": (encoded(one_color("LA", (100, 51))), (224, 224, 224)),
    "P": (encoded(palette_image()), (200, 100, 50)),
    "P clear index": (encoded(palette_image(), transparency=1), (255, 255, 255)),
    "P other index clear": (encoded(palette_image(), transparency=0), (200, 100, 50)),
    "P alpha table": (encoded(palette_image(), transparency=bytes([0, 51])), (244, 224, 214)),
    "RGB clear color": (encoded(one_color("RGB", (10, 20, 30)), transparency=(10, 20, 30)), (255, 255, 255)),
    "L clear color": (encoded(one_color("L", 77), transparency=77), (255, 255, 255)),
    "GIF": (encoded(palette_image(), "GIF"), (200, 100, 50)),
    "16 bit low": (encoded(sixteen_bit(0)), (0, 0, 0)),
    "16 bit middle": (encoded(sixteen_bit(32896)), (128, 128, 128)),
    "16 bit rounds": (encoded(sixteen_bit(257 * 9 + 200)), (10, 10, 10)),
    "16 bit high": (encoded(sixteen_bit(65535)), (255, 255, 255)),
    "16 bit clear value": (encoded(sixteen_bit(500), transparency=500), (255, 255, 255)),
    "I clipped": (encoded(one_color("I", 100_000), "TIFF"), (255, 255, 255)),
    "I negative": (encoded(one_color("I", -5), "TIFF"), (0, 0, 0)),
    "F to 1": (encoded(one_color("F", 0.5), "TIFF"), (128, 128, 128)),
    "F to 255": (encoded(one_color("F", 99.6), "TIFF"), (100, 100, 100)),
    "F nan": (encoded(one_color("F", float("nan")), "TIFF"), (0, 0, 0)),
    "F infinite": (encoded(one_color("F", float("inf")), "TIFF"), (255, 255, 255)),
    "CMYK tiff": (encoded(one_color("CMYK", (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
    "YCbCr tiff": (encoded(one_color("YCbCr", (128, 128, 128)), "TIFF"), (128, 128, 128)),
    "WebP alpha": (encoded(one_color("RGBA", (0, 0, 0, 0)), "WEBP", lossless=True), (255, 255, 255)),
}


@pytest.mark.parametrize("name", COLORS)
@pytest.mark.parametrize("resolution", [8, 5, 16])
def test_colors(name, resolution):
    data, color = COLORS[name]
    np.testing.assert_array_equal(square(data, resolution), np.broadcast_to(color, (resolution, resolution, 3)))


def test_adobe_cmyk_jpeg_is_not_a_negative():
    """Adobe writes CMYK JPEGs inverted, with an APP14 marker; Pillow writes and reads them so."""
    data = encoded(one_color("CMYK", (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(square(data).astype(int) - (255, 0, 0)).max() < 4


def test_lab_is_a_color_space_and_not_three_channels():
    got = square(encoded(one_color("LAB", (136, 208, 195)), "TIFF")).astype(int)
    assert np.abs(got - (255, 0, 0)).max() < 12


def test_a_tiff_of_twelve_bits_has_its_own_white():
    data = encoded(sixteen_bit(4095), "TIFF")
    twelve = data.replace(struct.pack("<HHIHH", 0x0102, 3, 1, 16, 0), struct.pack("<HHIHH", 0x0102, 3, 1, 12, 0))
    if twelve == data:
        pytest.fail("the tag was not found")
    # Rows of 12-bit values, packed: all ones whatever the packing.
    assert square(data)[0, 0, 0] == 16
    packed = twelve.replace(struct.pack("<H", 4095) * 64, b"\xff" * 128)
    assert square(packed)[0, 0, 0] == 255


def test_first_frame_of_an_animation():
    frames = [one_color("RGB", color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(square(data)[0, 0], (255, 0, 0), kind)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_orientation(orientation, kind):
    upright = gradient(12, 8)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose members that store a picture so
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    got = square(encoded(stored, kind, exif=exif, **options)).astype(int)
    assert np.abs(got - square(encoded(upright))).max() <= (12 if kind == "JPEG" else 0)


def test_broken_exif_does_not_lose_the_picture():
    data = encoded(one_color("RGB", (10, 20, 30)), "PNG", exif=b"Exif\0\0MM\0J\0\0\0\x08" + bytes(64))
    np.testing.assert_array_equal(square(data)[0, 0], (10, 20, 30))


@pytest.mark.parametrize(
    "size", [(64, 64), (35, 32), (33, 32), (100, 64), (64, 101), (33, 200), (201, 32), (7, 7), (5, 31), (513, 97)]
)
def test_geometry_is_resize_then_center_crop(size):
    """Against the two steps done one after the other, as torchvision rounds them."""
    resolution = 32
    image = gradient(*size)
    width, height = (resolution * side // min(size) for side in size)
    left, top = (round((side - resolution) / 2) for side in (width, height))
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((left, top, left + resolution, top + resolution)))
    np.testing.assert_array_equal(square(encoded(image), resolution), expected)


def test_a_picture_of_the_right_size_is_unchanged():
    image = gradient(32, 32)
    np.testing.assert_array_equal(square(encoded(image), 32), np.asarray(image))


def test_a_hair_wide_picture_is_not_blown_up():
    assert (square(encoded(Image.new("RGB", (1, 200_000), (9, 9, 9))), 256) == 9).all()


@pytest.mark.parametrize(
    ("data", "reason", "message"),
    [
        pytest.param(b"", Reason.EMPTY_IMAGE, "0 bytes", id="empty"),
        pytest.param(b"hello, I am a caption", Reason.UNREADABLE_IMAGE, "not in a known image format", id="text"),
        pytest.param(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
            Reason.UNREADABLE_IMAGE,
            "not in a known image format",
            id="eps",
        ),
        pytest.param(half(encoded(gradient(64, 64))), Reason.TRUNCATED, "runcated", id="cut png"),
        pytest.param(half(encoded(gradient(64, 64), "JPEG")), Reason.TRUNCATED, "runcated", id="cut jpeg"),
        pytest.param(half(encoded(gradient(64, 64), "BMP")), Reason.TRUNCATED, "runcated", id="cut bmp"),
        pytest.param(encoded(gradient(64, 64))[:8], Reason.UNREADABLE_IMAGE, "", id="signature only"),
        pytest.param(
            png_header(4000, 4000),
            Reason.OVERSIZED_IMAGE,
            "the header promises 16000000 pixels, the limit is 10000000",
            id="large",
        ),
        pytest.param(
            png_header(2**31 - 1, 2**31 - 1),
            Reason.OVERSIZED_IMAGE,
            f"promises {(2**31 - 1) ** 2} pixels, the limit",
            id="huge",
        ),
        pytest.param(png_header(0, 5), Reason.UNREADABLE_IMAGE, "", id="no width"),
        pytest.param(png_header(8, 8), Reason.TRUNCATED, "truncated", id="short data"),
    ],
)
def test_rejects(data, reason, message):
    with pytest.raises(BadSample) as caught:
        square(data)
    assert caught.value.reason == reason
    assert message in caught.value.message


def test_the_pixel_limit_is_inclusive():
    data = encoded(gradient(20, 10))
    square(data, max_pixels=200)
    with pytest.raises(BadSample, match="the header promises 200 pixels, the limit is 199"):
        square(data, max_pixels=199)


SEEDS = [
    encoded(gradient(40, 30), kind, **options)
    for kind, options in (
        ("PNG", {}),
        ("JPEG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("JPEG2000", {}),
    )
]


@settings(max_examples=150, deadline=None)
@given(
    data=st.sampled_from(SEEDS),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
)
def test_damaged_bytes_give_pixels_or_one_and_the_same_reject(data, cut, flips):
    damaged = bytearray(data[: max(1, int(len(data) * (cut if not flips else 1)))])
    for where, value in flips:
        damaged[int(where * len(damaged))] = value
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(square(bytes(damaged), 16).tobytes())
        except BadSample as bad:
            outcomes.append((bad.reason, bad.message))
    assert outcomes[0] == outcomes[1]
    assert not isinstance(outcomes[0], tuple) or not re.search(r"0x|\n", outcomes[0][1])


def test_threads_give_the_same_pixels():
    data = [encoded(gradient(50 + index, 40), kind) for index in range(10) for kind in ("PNG", "JPEG", "WEBP", "GIF")]
    one = [square(item, 32) for item in data]
    with ThreadPoolExecutor(4) as pool:
        for left, right in zip(one, pool.map(lambda item: square(item, 32), data), strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("mode", ["F", "I;16", "I"])
def test_gray_of_more_bits_is_converted_by_rows_to_the_same_pixels(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """All at once it takes 16 bytes a pixel and more."""
    values = np.arange(70 * 30, dtype=np.uint16).reshape(70, 30) * 31
    image = Image.fromarray(values) if mode != "F" else Image.fromarray(values.astype(np.float32) / 300.0)
    data = io.BytesIO()
    (image if mode != "I" else image.convert("I")).save(data, "TIFF")
    whole = pixels.load(data.getvalue(), sizes=((32, 32),), max_pixels=10_000)
    monkeypatch.setattr(colors, "_PIXELS_AT_ONCE", 100)
    assert np.array_equal(pixels.load(data.getvalue(), sizes=((32, 32),), max_pixels=10_000), whole)
    assert len(np.unique(whole)) > 10


def test_a_tiff_of_too_many_strips_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiff(1, 64, 1, 8, 1, b"\x80")
    assert (square(data) == 128).all()
    monkeypatch.setattr(formats, "MAX_PIECES", 63)
    with pytest.raises(BadSample, match="64 strips or tiles, the limit is 63"):
        square(data)


@pytest.mark.parametrize("files", [by_mode, turned, lambda width, height: jpegs()], ids=["modes", "turned", "jpegs"])
def test_what_can_be_decoded_is_told_without_its_pixels(files) -> None:
    def said(function, data: bytes, **options: object) -> str:
        try:
            function(data, max_pixels=LIMIT, max_aspect=3.0, **options)
        except BadSample as bad:
            return f"{bad.reason}: {bad.message}"
        return "good"

    rng = np.random.default_rng(1)
    for data in files(23, 17).values():
        damaged = bytearray(data)
        for at in rng.integers(len(data) // 4, len(data), 3):
            damaged[at] ^= 1 << int(rng.integers(8))
        for found in (data, data[: len(data) * 3 // 4], bytes(damaged)):
            assert said(pixels.require_decodable, found) == said(pixels.load, found, sizes=((8, 8),))


@pytest.mark.skipif(native_jpegs.loops() is None, reason="no compiled loops")
@pytest.mark.parametrize(
    ("change", "is_plain"),
    [
        (lambda data: data, True),
        (lambda data: data[:2] + b"\xff\xfe\0\x04hi" + data[2:], True),
        (lambda data: data[:2] + b"\xff\xe1\0\x0aExif\0\0\0\0" + data[2:], False),
        (lambda data: data[:2] + b"\xff\xe2\0\x04hi" + data[2:], False),
        (lambda data: data[:2] + b"\xff\xfe\0\xff" + b"\xff\xda" * 126 + b"0" + data[2:], False),
        (lambda data: data[:-9], False),
        (lambda data: data + bytes(1 << 14), False),
    ],
    ids=["as it is", "comment", "Exif", "profile", "scans", "cut", "large"],
)
def test_only_small_jpegs_in_order_without_metadata_are_plain(change, is_plain: bool) -> None:
    data = change(encoded(noisy(23, 17), "JPEG"))
    assert pixels.is_plain_jpeg(data, max_pixels=LIMIT, max_aspect=3.0) == is_plain
    assert not pixels.is_plain_jpeg(data, max_pixels=390, max_aspect=3.0)
    assert not pixels.is_plain_jpeg(data, max_pixels=LIMIT, max_aspect=1.2)
    if is_plain:
        pixels.load(data, sizes=((8, 8),), max_pixels=LIMIT, max_aspect=3.0)
