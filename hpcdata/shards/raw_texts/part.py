"""The raw texts of one part of a dataset, read by its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcdata.base.errors import Failed
from hpcdata.samples import RawText
from hpcdata.shards.raw_texts.columns import COLUMNS, RawTexts, stored_texts


class PartTexts:
    """The raw texts of one part of a dataset. Raises UserError where offsets and files do not fit each other."""

    def __init__(self, folder: Path, num_samples: int) -> None:
        self._folder = folder
        self._columns = {column.path: _mapped(folder / column.path, column.dtype) for column in COLUMNS}
        self.are_kept = len(self._columns["samples/num_texts.memmap"]) >= num_samples > 0
        """False where the run keeps none."""

    def row(self, row: int) -> tuple[RawText, ...]:
        """Of one sample, in their order."""
        return tuple(self.between(row, row + 1).split())

    def between(self, start: int, end: int) -> RawTexts:
        """Of samples `start` to `end`, all at once."""
        try:
            return stored_texts(self._columns, start, end)
        except (ValueError, IndexError) as error:
            raise Failed(f"{self._folder} is damaged ({error}): restore it, or combine its run again") from None


def _mapped(path: Path, dtype: str) -> np.ndarray:
    """All whole rows that the file has by now; none where it is not there."""
    try:
        return np.memmap(path, np.dtype(dtype).newbyteorder("<"), "r") if path.stat().st_size else np.zeros(0, dtype)
    except FileNotFoundError:
        return np.zeros(0, dtype)
    except ValueError:  # in the middle of a row: somebody appends to it
        data = np.memmap(path, np.uint8, "r")
        size = np.dtype(dtype).itemsize
        return data[: len(data) // size * size].view(np.dtype(dtype).newbyteorder("<"))
