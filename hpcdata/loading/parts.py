"""The columns of all parts of a dataset as arrays over one address range each, mapped when they are wanted.

Every table (tokens, spans, samples) has one numbering over all parts: row r of part p is row `bases[p] + r` of each of
its columns. So a batch is a few gathers, whatever the number of parts it comes from. Between two parts there is a gap
of zeros, which no offset points to.

A process may have about 65,000 maps. Datasets of more parts than that allows keep a part of them mapped, the ones that
were opened last; for these, block order or `combine --compact` is the faster way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from hpcdata.columns import Column, columns
from hpcdata.loading.forks import ForkLock, Lazy
from hpcdata.loading.manifest import Manifest
from hpcdata.loading.maps import ColumnRange, aligned_bases
from hpcdata.loading.readahead import MADV_NORMAL, MADV_RANDOM

if TYPE_CHECKING:
    import torch

MAX_MAPS = 54_000
DETAILS = ("spans/grid", "spans/flags")
"""Columns that not every layout needs: mapped when they are wanted."""
_KEY_COLUMNS = ("samples/first_key", "keys/bytes")


class PartMaps:
    """Opens parts, finds the rows of their columns. Thread-safe; made anew in every process that unpickles."""

    def __init__(self, manifest: Manifest) -> None:
        parts = self._parts = manifest.parts
        self._folder = f"{manifest.folder}/"
        rows = {
            "tokens": np.array([part.tokens for part in parts], np.int64),
            "spans": np.array([part.spans for part in parts], np.int64),
            "samples": np.array([part.samples for part in parts], np.int64),
        }
        layout = {table: (rows[table], *aligned_bases(rows[table])) for table in rows}
        self.tokens, self.spans, self.samples = (bases for _, bases, _ in layout.values())
        wanted = [column for column in columns(manifest.id_dtype) if _name(column) not in _KEY_COLUMNS]
        names = [_name(column) for column in wanted]
        self._ranges = {
            name: ColumnRange(column.dtype, column.width, *layout[column.table])
            for name, column in zip(names, wanted, strict=True)
        }
        files = {name: (self._ranges[name], "/" + column.path) for name, column in zip(names, wanted, strict=True)}
        self._details = [files.pop(name) for name in DETAILS]
        self._files = list(files.values())
        self._advice: int | None = None
        self._is_open, self._has_details = np.zeros((2, len(parts)), bool)
        self._opened: dict[int, None] = {}
        fits = len(parts) * len(wanted) <= MAX_MAPS
        self._max_open = len(parts) if fits else max(1, MAX_MAPS // (2 * len(wanted)))  # a gap can be a map, too
        self.may_close = not fits
        """Whether a part that is mapped now may be unmapped later."""
        self._lock: ForkLock | nullcontext[None] = nullcontext() if fits else ForkLock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("addresses of one process: open the dataset anew in another")

    def column(self, name: str) -> np.ndarray:
        """ "spans/length" and the like: read it inside `opened` only, and let no view of it out."""
        return self._ranges[name].array

    @Lazy
    def columns(self) -> dict[str, np.ndarray]:
        """All of them, to be read inside `opened` only."""
        return {name: column.array for name, column in self._ranges.items()}

    def range(self, name: str) -> ColumnRange:
        return self._ranges[name]

    @Lazy
    def ids_tensor(self) -> torch.Tensor:
        return self._ranges["tokens/ids"].tensor()

    def advise(self, rows: np.ndarray) -> None:
        """Looks at the first rows that somebody wants, and tells the kernel whether they come here and there."""
        if self._advice is None:
            self._advice = MADV_RANDOM if (rows[1:] < rows[:-1]).any() else MADV_NORMAL

    @contextmanager
    def opened(self, parts: np.ndarray, *, details: bool = False) -> Iterator[None]:
        """Inside, the columns of `parts` ([n] integers, in any order, repeated or not) are mapped, as wanted."""
        with self._lock:
            if not self._is_open[parts].all():
                self._open(np.unique(parts))
            if details and not self._has_details[parts].all():
                for part in np.unique(parts[~self._has_details[parts]]).tolist():
                    self._map(part, self._details)
                    self._has_details[part] = True
            yield

    def _open(self, parts: np.ndarray) -> None:
        if self._max_open < len(self._parts):
            for part in parts[self._is_open[parts]].tolist():
                self._opened[part] = self._opened.pop(part)  # wanted now: not the one to close for another
        for part in parts[~self._is_open[parts]].tolist():
            while len(self._opened) >= max(self._max_open, len(parts)):
                self._close(next(iter(self._opened)))
            self._map(part, self._files)
            self._opened[part] = None
            self._is_open[part] = True

    def _map(self, part: int, files: list[tuple[ColumnRange, str]]) -> None:
        folder, may_grow = self._folder + self._parts[part].path, self._parts[part].may_grow
        for column, path in files:
            column.map(part, folder + path, may_grow=may_grow)
            if self._advice == MADV_RANDOM:
                column.advise(part, MADV_RANDOM)

    def _close(self, part: int) -> None:
        del self._opened[part]
        self._is_open[part] = self._has_details[part] = False
        for column, _ in self._files + self._details:
            column.unmap(part)


def _name(column: Column) -> str:
    return os.path.splitext(column.path)[0]
