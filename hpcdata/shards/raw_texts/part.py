"""The raw texts of one part of a dataset, read by its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpcdata.base.errors import Failed
from hpcdata.samples import RawText
from hpcdata.shards.columns import RAW_TEXTS
from hpcdata.shards.raw_texts.columns import RawTexts, stored_texts
from hpcdata.shards.schema import Column

Mapped = Callable[[str, str, tuple[int, ...]], np.ndarray]
"""(path, dtype, shape) -> the beginning of a file as an array."""


class PartTexts:
    """Rows are those of the part. Raises UserError where offsets and files do not fit each other."""

    def __init__(self, folder: Path, num_samples: int, mapped: Mapped) -> None:
        self._folder, self._columns = folder, dict[str, np.ndarray]()
        self.are_kept = num_samples > 0 and (folder / "samples/num_texts.memmap").exists()
        """False where the run keeps none."""
        if self.are_kept:
            self._columns = {column.path: _opened(folder, column, mapped) for column in RAW_TEXTS}

    def row(self, row: int) -> tuple[RawText, ...]:
        """Of one sample, in their order."""
        return self.at(np.array([row])).rows()[0]

    def at(self, rows: np.ndarray) -> RawTexts:
        """Of samples in any order: [n] integers."""
        if not self.are_kept:
            return RawTexts.of([()] * len(rows))
        columns = self._columns
        try:
            counts = columns["samples/num_texts.memmap"][rows].astype(np.int64)
            first = columns["samples/first_text.memmap"][rows]
            text = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            names = ("first_byte", "num_bytes", "place", "flags")
            start, num_bytes, place, flags = (columns[f"texts/{name}.memmap"][text].astype(np.int64) for name in names)
        except (IndexError, ValueError) as error:
            raise self._damaged(error) from None
        data = columns["raw/bytes.memmap"].data
        if min(start.min(initial=0), num_bytes.min(initial=0)) < 0 or (start > len(data) - num_bytes).any():
            raise self._damaged("a text lies outside of raw/bytes")
        pieces = [data[begin:end] for begin, end in zip(start.tolist(), (start + num_bytes).tolist(), strict=True)]
        return RawTexts(counts=counts, num_bytes=num_bytes, place=place, flags=flags, data=b"".join(pieces))

    def between(self, start: int, end: int) -> RawTexts:
        """Of samples `start` to `end`, all at once."""
        try:
            return stored_texts(self._columns, start, end)
        except (ValueError, IndexError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: object) -> Failed:
        return Failed(f"{self._folder} is damaged ({error}): restore it, or combine its run again")


def _opened(folder: Path, column: Column, mapped: Mapped) -> np.ndarray:
    """All whole rows that the file has by now; none where it is not there, as no sample has a text."""
    path = folder / column.path
    try:
        rows = path.stat().st_size // column.row_bytes
    except FileNotFoundError:
        rows = 0
    return mapped(str(path), column.dtype, (rows,))
