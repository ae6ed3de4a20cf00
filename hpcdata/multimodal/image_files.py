"""Pictures of examples that are not decoded yet, and what an example may give as a picture: sizes and pixels of it.

    picture = PictureFile("a.jpg")        a path, bytes, or a slice of an archive
    picture.shape                         (height, width, 3), from its header
    np.asarray(picture)                   its pixels

Pictures are opened by the rule `molmo` of `hpcdata.media.rules` unless another one is given.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from hpcdata.media import formats, headers, opening
from hpcdata.media.rules import MOLMO, Rule
from hpcdata.samples import BadSample, Blob, Reason

MAX_PIXELS = 89_478_485
"""Pictures with more are rejected by their header: Pillow's own limit, 256 MiB of RGB."""
MAX_BYTES = 256 * 2**20


class PictureFile:
    """A picture as it is stored. Reading and decoding it is safe in several threads."""

    __slots__ = ("_known", "blob")

    def __init__(
        self, source: str | os.PathLike[str] | bytes | Blob, *, known: tuple[tuple[int, int], Rule] | None = None
    ) -> None:
        """source: a path, the bytes of a file, or where they are. known: its size by a rule, if it was measured."""
        self._known = known
        if isinstance(source, Blob):
            self.blob = source
        elif isinstance(source, bytes | bytearray | memoryview):
            self.blob = Blob(path="", data=bytes(source))
        else:
            self.blob = Blob(path=os.fspath(source))

    def read(self, *, max_bytes: int = MAX_BYTES) -> bytes:
        """The bytes of the file. Raises BadSample, or OSError, see `Blob.read`."""
        return self.blob.read(max_bytes=max_bytes)

    def size(self, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, rule: Rule = MOLMO) -> tuple[int, int]:
        """(height, width) upright, from its header: of most JPEGs only the beginning is read. Raises BadSample."""
        if self._known is not None and self._known[1] == rule:
            height, width = self._known[0]
            formats.require_pixels(height * width, max_pixels)
            return height, width
        beginning = self.blob.beginning(headers.BEGINNING_BYTES, max_bytes=max_bytes)
        size = headers.size_of_beginning(beginning, max_pixels=max_pixels, rule=rule)
        if size is not None:
            return size
        data = beginning if len(beginning) < headers.BEGINNING_BYTES else self.read(max_bytes=max_bytes)
        return headers.upright_size(data, max_pixels=max_pixels, rule=rule)

    def decode(self, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, rule: Rule = MOLMO) -> np.ndarray:
        """[height, width, 3] uint8 RGB. Raises BadSample, CHANGED_INPUT for another size than was measured."""
        pixels = opening.open_image(self.read(max_bytes=max_bytes), max_pixels=max_pixels, rule=rule)
        if self._known is not None and self._known[1] == rule and self._known[0] != pixels.shape[:2]:
            was, now = (f"{width} x {height}" for height, width in (self._known[0], pixels.shape[:2]))
            raise BadSample(Reason.CHANGED_INPUT, f"a picture was {was} when it was measured, now it is {now}")
        return pixels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of its pixels."""
        return (*self.size(), 3)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a picture that is not decoded yet has no array that could be shared")
        return np.asarray(self.decode(), dtype)

    def __repr__(self) -> str:
        blob = self.blob
        where = f"{len(blob.data)} bytes" if blob.data is not None else blob.name or blob.path
        part = f", {blob.size} bytes at {blob.offset}" if blob.data is None and blob.size is not None else ""
        return f"PictureFile({where}{part})"


def size_of(image: object, *, max_pixels: int = MAX_PIXELS, rule: Rule = MOLMO) -> tuple[int, int]:
    """(height, width) upright of what an example gives as a picture; nothing of a file is decoded. Raises BadSample."""
    if isinstance(image, np.ndarray):
        return _checked(image).shape[:2]
    if hasattr(image, "convert"):  # of PIL
        return _of_pil(image, rule).shape[:2]
    return _file(image).size(max_pixels=max_pixels, rule=rule)


def pixels_of(image: object, *, max_pixels: int = MAX_PIXELS, rule: Rule = MOLMO) -> np.ndarray:
    """[height, width, 3] uint8 RGB of what an example gives as a picture. Raises BadSample."""
    if isinstance(image, np.ndarray):
        return _checked(image)
    if hasattr(image, "convert"):
        return _of_pil(image, rule)
    return _file(image).decode(max_pixels=max_pixels, rule=rule)


def _of_pil(image: Any, rule: Rule) -> np.ndarray:
    return opening.as_rgb(np.array(opening.upright(image, rule)))


def _file(image: object) -> PictureFile:
    if isinstance(image, PictureFile):
        return image
    if isinstance(image, str | os.PathLike | bytes | bytearray | Blob):
        return PictureFile(image)  # type: ignore[arg-type]
    raise BadSample(
        Reason.BAD_RECORD,
        f"a picture is {type(image).__name__}, expected a path, bytes, PictureFile, PIL image or uint8 array",
    )


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        what = f"{image.dtype} {list(image.shape)}"
        raise BadSample(Reason.BAD_RECORD, f"a picture is an array {what}, expected uint8 [height, width, 3]")
    return image
