"""Picture files of many kinds for the tests of media, made by Pillow and NumPy alone."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noisy(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A gradient with noise: every pixel tells what was done to it, and a JPEG of it has something to lose."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256, 255 - x * 200 // width], axis=2)
    noise = np.random.default_rng(width * 10_007 + height).normal(0, 20, smooth.shape)
    values = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(values if mode == "RGBA" else values[:, :, :3]).convert(mode)


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[ORIENTATION] = orientation
    return made


def exif_bytes(*entries: bytes, behind: bytes = b"") -> bytes:
    """EXIF of such directory entries, which may be none that Pillow would write."""
    header = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(entries))
    return header + b"".join(entries) + bytes(4) + behind


UNWRITABLE_EXIF = exif_bytes(
    struct.pack(">HHI4s", 0x0100, 2, 4, b"abc\0"),  # a width in letters
    struct.pack(">HHIHH", ORIENTATION, 3, 1, 6, 0),
)
"""On its side, but `ImageOps.exif_transpose` raises: it cannot write this EXIF again."""
RATIONAL_EXIF = exif_bytes(struct.pack(">HHII", ORIENTATION, 5, 1, 26), behind=struct.pack(">II", 6, 1))
"""The orientation is 6/1."""
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'


def _palette(width: int, height: int) -> Image.Image:
    return noisy(width, height).quantize(16)


def _sixteen_bit(width: int, height: int) -> Image.Image:
    """Half of it below 256."""
    return Image.fromarray(np.linspace(0, 511, width * height).reshape(height, width).astype(np.uint16))


def _floats(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.linspace(-3, 300, width * height, dtype=np.float32).reshape(height, width))


def by_mode(width: int, height: int) -> Mapping[str, bytes]:
    """A file of every mode that pictures come in."""
    return {
        "RGB": encoded(noisy(width, height)),
        "RGB JPEG": encoded(noisy(width, height), "JPEG", quality=90),
        "gray JPEG": encoded(noisy(width, height, "L"), "JPEG"),
        "progressive JPEG": encoded(noisy(width, height), "JPEG", progressive=True),
        "CMYK JPEG": encoded(noisy(width, height, "CMYK"), "JPEG"),
        "CMYK TIFF": encoded(noisy(width, height, "CMYK"), "TIFF"),
        "RGBA": encoded(noisy(width, height, "RGBA")),
        "RGBA WebP": encoded(noisy(width, height, "RGBA"), "WEBP", lossless=True, exact=True),
        "LA": encoded(noisy(width, height, "RGBA").convert("LA")),
        "L": encoded(noisy(width, height, "L")),
        "1": encoded(noisy(width, height, "1")),
        "P": encoded(_palette(width, height)),
        "P with a clear index": encoded(_palette(width, height), transparency=3),
        "P with alpha": encoded(_palette(width, height), transparency=bytes(range(0, 256, 16))),
        "GIF with a clear index": encoded(_palette(width, height), "GIF", transparency=3),
        "RGB with a clear color": encoded(noisy(width, height), transparency=(10, 20, 30)),
        "L with a clear color": encoded(noisy(width, height, "L"), transparency=77),
        "16 bits": encoded(_sixteen_bit(width, height)),
        "16 bits TIFF": encoded(_sixteen_bit(width, height), "TIFF"),
        "floats": encoded(_floats(width, height), "TIFF"),
        "LAB": encoded(noisy(width, height, "LAB"), "TIFF"),
        "YCbCr TIFF": encoded(noisy(width, height, "YCbCr"), "TIFF"),
    }


def turned(width: int, height: int) -> Mapping[str, bytes]:
    """Files with an orientation: each of them, in every place where one may stand, and odd ones."""
    picture = noisy(width, height)
    files = {
        f"{kind}, orientation {orientation}": encoded(picture, kind, exif=exif(orientation))
        for kind in ("JPEG", "PNG", "WEBP", "TIFF")
        for orientation in range(1, 9)
    }
    return files | {
        "gray JPEG on its side": encoded(picture.convert("L"), "JPEG", exif=exif(8)),
        "CMYK JPEG on its side": encoded(picture.convert("CMYK"), "JPEG", exif=exif(6)),
        "RGBA PNG on its side": encoded(noisy(width, height, "RGBA"), exif=exif(6)),
        "JPEG, orientation 9": encoded(picture, "JPEG", exif=exif(9)),
        "JPEG with broken EXIF": encoded(picture, "JPEG", exif=b"Exif\0\0MM\0J\0\0\0\x08" + bytes(64)),
        "JPEG with EXIF that cannot be written": encoded(picture, "JPEG", exif=UNWRITABLE_EXIF),
        "JPEG, orientation 6/1": encoded(picture, "JPEG", exif=RATIONAL_EXIF),
        "JPEG, orientation in XMP": encoded(picture, "JPEG", xmp=XMP),
    }


def jpegs() -> Mapping[str, bytes]:
    """JPEGs of many qualities, subsamplings, sizes and habits of writers."""
    files = {}
    for width, height in ((1, 1), (8, 8), (7, 31), (16, 9), (65, 33), (120, 90)):
        for quality in (5, 50, 92, 100):
            for progressive in (False, True):
                options = {"quality": quality, "progressive": progressive}
                name = f"{width} x {height}, quality {quality}{', progressive' * progressive}"
                files[f"gray, {name}"] = encoded(noisy(width, height, "L"), "JPEG", **options)
                for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
                    made = encoded(noisy(width, height), "JPEG", subsampling=subsampling, **options)
                    files[f"{subsampling}, {name}"] = made
    color = noisy(90, 70)
    return files | {
        "restart markers": encoded(color, "JPEG", restart_marker_blocks=3),
        "optimized": encoded(color, "JPEG", optimize=True),
        "stored as RGB": encoded(color, "JPEG", keep_rgb=True),
        "a comment": encoded(color, "JPEG", comment=b"hello"),
        "an ICC profile": encoded(color, "JPEG", icc_profile=bytes(range(256)) * 300),
        "CMYK": encoded(color.convert("CMYK"), "JPEG"),
        "MPO": encoded(color, "MPO", save_all=True, append_images=[noisy(90, 70, "L").convert("RGB")]),
        "bytes behind it": encoded(color, "JPEG") + b"more of something else",
        "large": encoded(noisy(700, 500), "JPEG", quality=97),
    }
