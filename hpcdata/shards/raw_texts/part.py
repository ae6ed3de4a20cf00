"""The raw texts of one part of a dataset, read by its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpcdata.base.errors import Failed
from hpcdata.samples import RawText
from hpcdata.shards.columns import RAW_TEXTS
from hpcdata.shards.raw_texts.columns import RawTexts, stored_texts, text_of
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
        return self.rows(np.array([row]))[0]

    def rows(self, rows: np.ndarray) -> list[tuple[RawText, ...]]:
        """Of each sample, in their order. rows: [n] integers, in any order."""
        if not self.are_kept:
            return [()] * len(rows)
        columns = self._columns
        try:
            counts = columns["samples/num_texts.memmap"][rows].astype(np.int64)
            first = columns["samples/first_text.memmap"][rows]
            text = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            names = ("first_byte", "num_bytes", "place", "flags")
            found = [columns[f"texts/{name}.memmap"][text].tolist() for name in names]
        except (IndexError, ValueError) as error:
            raise self._damaged(error) from None
        data, size = columns["raw/bytes.memmap"], len(columns["raw/bytes.memmap"])
        texts = []
        for start, length, place, flags in zip(*found, strict=True):
            if start < 0 or length < 0 or start + length > size:
                raise self._damaged("a text lies outside of raw/bytes")
            texts.append(text_of(data[start : start + length].tobytes(), place, flags))
        ends = np.cumsum(counts).tolist()
        return [tuple(texts[end - count : end]) for end, count in zip(ends, counts.tolist(), strict=True)]

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
