"""The pieces of a record, read in threads: its JSON and its pictures, as they go to disk.

Pictures of the kinds in `COPIED` stay the bytes that they are. Others become PNG, the same pixels without loss, where
`convert.others=png` says so: trainers of LLaVA open what Pillow opens, and viewers and browsers these three.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is done to the pictures of a run."""

    max_bytes: int
    """Of one piece."""
    max_pixels: int
    decode: bool
    """Pictures are decoded once, so that none is written that nobody can open."""
    others: str
    """Of the kinds that are not in `COPIED`: `png`, `keep` or `reject`."""


def read_pieces(record: Record, rules: Rules) -> list[np.ndarray]:
    """[size] uint8 of the JSON and of each picture of a sample; no byte of a picture that had none.

    Raises BadSample.
    """
    if not isinstance(record, Sample):
        return []
    line, *pictures = (member.blob for member in record.members)
    pieces = [line.read(max_bytes=rules.max_bytes), *(_picture(blob, rules) for blob in pictures)]
    return [np.frombuffer(piece, np.uint8) for piece in pieces]


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
