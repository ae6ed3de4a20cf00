"""The pieces of a record, read in threads: its JSON and its pictures, as they go to disk.

Pictures of the kinds in `COPIED` stay the bytes that they are. Others become PNG, the same pixels without loss, where
`convert.others=png` says so: trainers of LLaVA open what Pillow opens, and viewers and browsers these three.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hpcdata.media.kinds import BEGINNING_BYTES, describe_unopened, find_kind
from hpcdata.samples import BadSample, Blob, Reason, Record, Sample

COPIED = {"JPEG": "jpg", "PNG": "png", "WebP": "webp"}
"""Kind by the first bytes -> ending."""
_OTHERS = {
    "GIF": "gif",
    "TIFF": "tif",
    "BMP": "bmp",
    "JPEG 2000": "jp2",
    "AVIF": "avif",
    "QOI": "qoi",
    "SGI": "sgi",
    "PNM": "ppm",
}


_SHA256_BYTES = 32


class Picture(NamedTuple):
    """A picture as it goes to disk."""

    data: memoryview
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is done to the pictures of a run."""

    max_bytes: int
    """Of one piece."""
    max_pixels: int
    decode: bool
    """Pictures are read to their end, so that none is written that nobody can open."""
    others: str
    """Of the kinds that are not in `COPIED`: `png`, `keep` or `reject`."""


def read_pieces(record: Record, rules: Rules) -> list[np.ndarray]:
    """[size] uint8 of the JSON and of each picture of a sample, no byte of one that had none; then 32 bytes of the
    sha256 of each picture.

    Raises BadSample.
    """
    if not isinstance(record, Sample):
        return []
    line, *blobs = (member.blob for member in record.members)
    text, pictures = line.read(max_bytes=rules.max_bytes), [_picture(blob, rules) for blob in blobs]
    digests = b"".join(hashlib.sha256(data).digest() for data in pictures)
    return [np.frombuffer(piece, np.uint8) for piece in (text, *pictures, digests)]


def pieces_of(prepared: list[np.ndarray]) -> tuple[bytes, list[Picture]]:
    """The JSON and the pictures of what `read_pieces` gives, those without a byte among them."""
    line, *pictures, digests = prepared
    sums = digests.reshape(-1, _SHA256_BYTES)
    return line.tobytes(), [
        Picture(data=data.data, sha256=digest.tobytes().hex()) for data, digest in zip(pictures, sums, strict=True)
    ]


def ending_of(data: bytes) -> str:
    """The ending of a picture's file, by its content. data: its first bytes at least."""
    kind = find_kind(data[:BEGINNING_BYTES]) or ""
    return COPIED.get(kind) or _OTHERS.get(kind, "img")


def is_copied(data: bytes) -> bool:
    return find_kind(data[:BEGINNING_BYTES]) in COPIED


def _picture(blob: Blob, rules: Rules) -> bytes:
    if blob.data == b"":
        return b""
    try:
        data = blob.read(max_bytes=rules.max_bytes)
        return data if _is_fit(data, rules) else _as_png(data, rules)
    except BadSample as bad:
        raise BadSample(bad.reason, f"{blob.name}: {bad.message}" if blob.name else bad.message) from None


def _is_fit(data: bytes, rules: Rules) -> bool:
    """Whether the bytes are written as they are. Raises BadSample for what is no picture."""
    if rules.decode:
        from hpcdata.media import kept

        kept.check(data, max_pixels=rules.max_pixels)
    if is_copied(data):
        return True
    kind = find_kind(data[:BEGINNING_BYTES])
    if kind not in _OTHERS:
        raise BadSample(Reason.UNREADABLE_IMAGE, describe_unopened(data[:BEGINNING_BYTES], ()))
    if rules.others == "reject":
        raise BadSample(Reason.UNSUPPORTED_MEDIA, f"{kind}, where convert.others=reject takes {', '.join(COPIED)}")
    return rules.others == "keep"


def _as_png(data: bytes, rules: Rules) -> bytes:
    from hpcdata.media.kept import as_png

    return as_png(data, max_pixels=rules.max_pixels)
