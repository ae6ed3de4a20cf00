"""The kinds of picture files, by their names and by their first bytes, without Pillow. One list for all sources.

Endings say what is taken for a picture: all that `formats` opens, and formats that a folder of pictures may hold and
that are rejected by their name. First bytes decide where an ending says nothing, and name what was found in an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_DECODED = {
    *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "tif", "tiff", "bmp", "dib"),
    *("ppm", "pgm", "pbm", "pnm", "pfm", "pam", "jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "avif", "avifs", "qoi"),
    *("sgi", "rgb", "rgba", "bw"),
}
_NOT_DECODED = {"heic", "heif", "hif", "jxl", "ico", "tga"}
IMAGE_EXTENSIONS = frozenset(_DECODED | _NOT_DECODED)
BEGINNING_BYTES = 64
"""What `find_kind` needs of a file."""

_SAYS_NOTHING = frozenset(
    ("", "img", "image", "pic", "picture", "photo", "bin", "data", "dat", "file", "orig", "original", "download", "tmp")
)
_MARKS = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("BMP", re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51")),
    ("AVIF", re.compile(rb"....ftypavi[fs]|....ftypmi[fa]1.{4,40}avif", re.DOTALL)),
    ("HEIC", re.compile(rb"....ftyp(?:hei|hev)[cxms]|....ftypm[is]f1", re.DOTALL)),
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n")),
    ("QOI", re.compile(rb"qoif")),
    ("SGI", re.compile(rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]")),
    ("PNM", re.compile(rb"P[1-7Ff][ \t\r\n]")),
    ("Photoshop", re.compile(rb"8BPS\0\x01")),
    ("OpenEXR", re.compile(rb"\x76\x2f\x31\x01")),
    ("Radiance HDR", re.compile(rb"#\?(?:RADIANCE|RGBE)")),
    ("DDS", re.compile(rb"DDS \x7c\0\0\0")),
    ("Windows icon", re.compile(rb"\0\0\x01\0[\x01-\x20]\0")),
    ("SVG", re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<svg")),
    ("PDF", re.compile(rb"%PDF-")),
    ("a web page", re.compile(rb"\s*<(?:!doctype html|html)", re.IGNORECASE)),
    ("a video", re.compile(rb"....ftyp(?:isom|iso[2-9]|mp4[12]|avc1|qt  |M4V )|\x1a\x45\xdf\xa3", re.DOTALL)),
)
_PICTURES = frozenset(name for name, _ in _MARKS[:13])
_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WebP": "webp", "TIFF": "tif", "BMP": "bmp"}
_REMEDIES = {
    "AVIF": "install pillow 11.3 or newer, whose wheels decode it",
    "HEIC": "convert it to PNG or JPEG, as heif-convert of libheif does",
    "JPEG XL": "convert it to PNG or JPEG, as djxl of libjxl does",
}


def find_kind(beginning: bytes) -> str | None:
    """What a file holds by its first bytes, in words; None for what has no mark that is known here."""
    return next((name for name, mark in _MARKS if mark.match(beginning)), None)


def extension_of(beginning: bytes) -> str:
    """The usual ending of a picture with these first bytes, `img` for what has no mark of one."""
    return _EXTENSIONS.get(find_kind(beginning) or "", "img")


def is_picture(beginning: bytes) -> bool:
    """Whether these are the first bytes of a picture, of one that is rejected by its kind too."""
    return find_kind(beginning) in _PICTURES


def says_nothing(extension: str) -> bool:
    """Whether an ending, in lower case and without its dot, leaves open what a file holds: none, `img`, `jpg_large`."""
    return extension in _SAYS_NOTHING or not extension.isalnum() or extension.isdigit() or len(extension) > 12


def describe_unopened(beginning: bytes, opened: Collection[str]) -> str:
    """Why Pillow does not know a picture, for a reject. opened: kinds with a remedy that it does decode."""
    kind = find_kind(beginning)
    if kind in _REMEDIES and kind not in opened:
        return f"{kind}, which is not decoded here: {_REMEDIES[kind]}"
    if kind == "TIFF":
        return "a TIFF of a kind that is not decoded, such as one of several float samples: convert it"
    if kind is None or kind in _PICTURES:
        return "not in a known image format"
    return f"{kind}, which is no picture that is read here"
