"""The pieces of a record, read in threads; pictures are decoded once, so that none is copied that nobody can open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcdata.samples import BadSample, Blob, Record, Sample
from hpcdata.sources.base import OLDER_EXTENSIONS

_PICTURES = OLDER_EXTENSIONS | {"img"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    max_bytes: int
    """Of one piece."""
    max_pixels: int | None
    """None: pictures are not decoded."""
    max_aspect: float | None = None
    """Of the sides of pictures that are decoded."""


def read_members(record: Record, limits: Limits) -> list[np.ndarray]:
    """The bytes of each member of a sample, [size] uint8 each. Raises BadSample."""
    if not isinstance(record, Sample):
        return []
    return [_read(member.blob, is_picture(member.extension), limits) for member in record.members]


def is_picture(extension: str) -> bool:
    """By the last part of an extension: `jpg`, `0.jpg`, `seg.png`."""
    return extension.rpartition(".")[2] in _PICTURES


def _read(blob: Blob, is_image: bool, limits: Limits) -> np.ndarray:
    try:
        data = blob.read(max_bytes=limits.max_bytes, may_be_empty=not is_image)
        if is_image and limits.max_pixels is not None:
            from hpcdata.media import pixels

            pixels.require_decodable(data, max_pixels=limits.max_pixels, max_aspect=limits.max_aspect)
    except BadSample as bad:
        raise BadSample(bad.reason, f"{blob.name}: {bad.message}" if blob.name else bad.message) from None
    return np.frombuffer(data, np.uint8)
