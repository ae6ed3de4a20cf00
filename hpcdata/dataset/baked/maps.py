"""Reading baked rows: the files of one layout in every dataset of a manifest, over one address range each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from hpcdata.dataset.baked.record import FACTS, FACTS_FILE, ROWS, RUNS, Baked
from hpcdata.dataset.manifest import Manifest
from hpcdata.dataset.maps import ColumnRange, aligned_bases
from hpcdata.dataset.readahead import MADV_NORMAL, MADV_RANDOM, ReadAhead, will_need
from hpcdata.native.forks import Lazy

if TYPE_CHECKING:
    import torch


def find_baked(manifest: Manifest, digest: str) -> list[tuple[Path, Baked]] | None:
    """Where each dataset of the manifest has the layout whose options have this digest; None unless all have it."""
    found = [
        (folder, next((baked for baked in of_one if baked.digest == digest), None))
        for folder, of_one in manifest.all_baked()
    ]
    there = [(folder, baked) for folder, baked in found if baked is not None]
    if len(there) < len(found) or len({(baked.dtype, baked.width) for _, baked in there}) != 1:
        return None
    return there


class BakedMaps:
    """Maps the files when it is made. Rows are numbered over all datasets, in their order. Read only."""

    def __init__(self, found: Sequence[tuple[Path, Baked]]) -> None:
        """Raises UserError for a file that is missing, or has another size than the manifest says."""
        first = found[0][1]
        self.width = first.width
        samples = np.array([baked.samples for _, baked in found], np.int64)
        runs = np.array([baked.runs for _, baked in found], np.int64)
        self._first_row = np.concatenate([[0], np.cumsum(samples)])
        (bases, total), (run_bases, all_runs) = aligned_bases(samples), aligned_bases(runs)
        self._shift, self._run_bases = bases - self._first_row[:-1], run_bases
        self._rows = ColumnRange(first.dtype, first.width, samples, bases, total)
        self._facts = ColumnRange("int64", len(FACTS), samples, bases, total)
        self._runs = ColumnRange("int32", 0, runs, run_bases, all_runs)
        for at, (folder, baked) in enumerate(found):
            for column, name in ((self._rows, ROWS), (self._facts, FACTS_FILE), (self._runs, RUNS)):
                column.map_joined(f"{folder}/{baked.folder}/{name}", at, at + 1)
        self._read_ahead, self._is_advised = ReadAhead(), False

    def __reduce__(self) -> NoReturn:
        raise TypeError("addresses of one process: open the dataset anew in another")

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where these rows ([n] int64) stand in `ids` and `facts`."""
        if not self._is_advised:
            self._is_advised = True
            advice = MADV_RANDOM if (rows[1:] < rows[:-1]).any() else MADV_NORMAL
            for column in (self._rows, self._facts, self._runs) if advice == MADV_RANDOM else ():
                column.advise(0, len(self._shift) - 1, advice)
        return rows + (self._shift[self._dataset_of(rows)] if len(self._shift) > 1 else self._shift)

    @Lazy
    def ids(self) -> np.ndarray:
        """[rows * width]: all rows end to end."""
        return self._rows.array.reshape(-1)

    @Lazy
    def ids_tensor(self) -> torch.Tensor:
        """[rows, width], 16-bit ids as int16."""
        return self._rows.tensor()

    def facts(self, places: np.ndarray) -> np.ndarray:
        """[n, 8] int64, see `FACTS`."""
        return self._facts.array.take(places, axis=0)

    def runs(self, rows: np.ndarray, within: np.ndarray) -> np.ndarray:
        """The runs at `within` of those of the dataset that has each row ([n] each)."""
        base = self._run_bases[self._dataset_of(rows)] if len(self._shift) > 1 else self._run_bases
        return self._runs.array.take(base + within)

    def will_need(self, places: np.ndarray) -> None:
        """Asks the kernel for these rows if reads have had to wait lately."""
        if self._read_ahead.is_wanted(len(places)):
            will_need(self._rows.spans_of(places, np.ones_like(places)))

    def will_read(self, first: np.ndarray, stop: np.ndarray) -> None:
        """Asks the kernel for rows `first` to `stop` - 1 ([n] each), which are wanted soon."""
        for at, (begin, end) in enumerate(zip(self._first_row[:-1], self._first_row[1:], strict=True)):
            start, size = np.maximum(first, begin), np.minimum(stop, end) - np.maximum(first, begin)
            start, size = start[size > 0] + self._shift[at], size[size > 0]
            will_need(np.concatenate([column.spans_of(start, size) for column in (self._rows, self._facts)]))

    def _dataset_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._first_row, rows, side="right") - 1
