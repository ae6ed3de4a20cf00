"""The columns of all parts of a dataset as arrays over one address range each, mapped when they are wanted.

Every table (tokens, spans, samples) has one numbering over all parts: row r of part p is row `bases[p] + r` of each of
its columns. So a batch is a few gathers, whatever the number of parts it comes from. Between two parts there is a gap
of zeros, which no offset points to.

A process may have about 65,000 maps. So combine joins what is small of many parts (`hpcdata.dataset.joined`): then a
part is one map, of its ids. Datasets of more parts than that allows keep a part of them mapped, the ones that were
opened last; for these, block order or `combine --compact` is the faster way.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.joined import FOLDER, groups_of, joined_columns
from hpcdata.dataset.manifest import Group, Manifest
from hpcdata.dataset.maps import ALIGN, ColumnRange, aligned_bases, map_file, page_rows, unmap
from hpcdata.dataset.partlist import MAX_MAPS
from hpcdata.dataset.readahead import MADV_NORMAL, MADV_RANDOM, will_need
from hpcdata.native.forks import ForkLock, Lazy
from hpcdata.shards.columns import columns
from hpcdata.shards.schema import Column

if TYPE_CHECKING:
    import torch

_PASSED_OVER = 16
"""The kernel is told about new parts in one call, or in one for each where it would have to look at so many others."""
DETAILS = ("spans/grid", "spans/flags")
"""Columns that not every layout needs: mapped when they are wanted."""
_MAX_LITERALS = 2**18
"""Rows behind the ids of all parts, for ids that are not stored."""
_IDS, _IDS_FILE = "tokens/ids", "/tokens/ids.memmap"
_KEY_COLUMNS = ("samples/first_key", "keys/bytes")


class PartMaps:
    """Opens parts, finds the rows of their columns. Thread-safe; made anew in every process that unpickles."""

    def __init__(self, manifest: Manifest) -> None:
        parts = self._parts = manifest.parts
        self._folder = f"{manifest.folder}/"
        rows = {
            "tokens": np.array(parts.tokens, np.int64),
            "spans": np.array(parts.spans, np.int64),
            "samples": np.array(parts.samples, np.int64),
        }
        self.num_tokens, self.num_spans = rows["tokens"], rows["spans"]
        joined = [group for group in groups_of(manifest) if group.is_joined]
        self._is_joined = np.zeros(len(parts), bool)
        for group in joined:
            self._is_joined[group.first : group.stop] = True
        aligns = dict.fromkeys(rows, ALIGN) | {"tokens": page_rows(manifest.id_dtype)}
        layout = {
            table: (rows[table], *_bases(rows[table], aligns[table], joined if table != "tokens" else []))
            for table in rows
        }
        self.tokens, self.spans, self.samples = (bases for _, bases, _ in layout.values())
        self._first_literal = self._next_literal = layout["tokens"][2]
        layout["tokens"] = (*layout["tokens"][:2], self._first_literal + _MAX_LITERALS)
        self._literals: dict[tuple[int, ...], int] = {}
        self._literal_lock = ForkLock()
        wanted = [column for column in columns(manifest.id_dtype) if _name(column) not in _KEY_COLUMNS]
        self._ranges = {
            _name(column): ColumnRange(column.dtype, column.width, *layout[column.table], align=aligns[column.table])
            for column in wanted
        }
        for group, column in itertools.product(joined, joined_columns(manifest.id_dtype)):
            path = f"{group.folder}/{FOLDER}/{column.path}"
            self._ranges[_name(column)].map_joined(path, group.first, group.stop)
        files = {_name(column): (self._ranges[_name(column)], "/" + column.path) for column in wanted}
        self._details = [files.pop(name) for name in DETAILS]
        self._files = list(files.values())
        self._advice: int | None = None
        self._is_open, self._has_details = np.zeros(len(parts), bool), self._is_joined.copy()
        self.are_all_open = not len(parts)
        self._opened: dict[int, None] = {}
        separate, every = np.flatnonzero(~self._is_joined), np.arange(len(parts))
        num_maps = sum(column.num_maps(every if name == _IDS else separate) for name, column in self._ranges.items())
        fits = num_maps + 2 * len(joined) * len(wanted) <= MAX_MAPS
        per_part = 2 * (len(wanted) if len(separate) else 1)  # its files, and what is not open behind them
        self.max_open = len(parts) if fits else max(1, MAX_MAPS // per_part)
        """How many parts are mapped at a time; more of them where one batch needs more."""
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

    @Lazy
    def addresses(self) -> dict[str, int]:
        """Where they begin."""
        return {name: column.ctypes.data for name, column in self.columns.items()}

    def literal(self, ids: tuple[int, ...]) -> int:
        """The row of "tokens/ids" at which these ids stand, which no part has. They are put there once."""
        with self._literal_lock:
            row = self._literals.get(ids)
            if row is None:
                column, row = self._ranges["tokens/ids"], self._next_literal
                if max(ids, default=0) > np.iinfo(column.array.dtype).max or min(ids, default=0) < 0:
                    raise UserError(f"ids up to {max(ids)} do not fit into the dataset's {column.array.dtype}")
                if row + len(ids) > self._first_literal + _MAX_LITERALS:
                    raise UserError(f"more than {_MAX_LITERALS} ids around the turns of conversations")
                column.put(row, np.array(ids, np.int64))
                self._literals[ids], self._next_literal = row, row + len(ids)
            return row

    def range(self, name: str) -> ColumnRange:
        return self._ranges[name]

    @Lazy
    def ids_tensor(self) -> torch.Tensor:
        return self._ranges["tokens/ids"].tensor()

    def advise(self, rows: np.ndarray) -> None:
        """Looks at the first rows that somebody wants, and tells the kernel whether they come here and there."""
        if self._advice is None:
            self._advice = MADV_RANDOM if (rows[1:] < rows[:-1]).any() else MADV_NORMAL
            if self._advice == MADV_RANDOM and len(self._parts):
                self._advise([(0, len(self._parts) - 1)], [(column, "") for column in self._ranges.values()])

    @contextmanager
    def opened(self, parts: np.ndarray, *, details: bool = False) -> Iterator[None]:
        """Inside, the columns of `parts` ([n] integers, in any order, repeated or not) are mapped, as wanted."""
        with self._lock:
            if not self.are_all_open and not self._is_open[parts].all():
                self._open(np.unique(parts))
            if details and not self._has_details[parts].all():
                self._map(np.unique(parts[~self._has_details[parts]]), self._details, self._has_details)
            yield

    def will_read(self, part: np.ndarray, first: np.ndarray, stop: np.ndarray) -> None:
        """Asks the kernel for all of the samples `first` to `stop` - 1 of these parts, [n] each."""
        num_samples = np.array(self._parts.samples, np.int64)
        with self.opened(part, details=True):
            base, asked = self.samples[part], []
            for name in ("index", "num_spans", "first_span", "first_token"):
                asked.append(self.range(f"samples/{name}").spans_of(base + first, stop - first))
            will_need(np.concatenate(asked))
            is_last, asked = stop == num_samples[part], []
            for table, names, bases, num_rows in (
                ("span", ("spans/length", "spans/kind", *DETAILS), self.spans, self.num_spans),
                ("token", (_IDS,), self.tokens, self.num_tokens),
            ):
                offsets = self.column(f"samples/first_{table}")
                start = offsets[base + first]
                end = np.where(is_last, num_rows[part], offsets[base + np.where(is_last, first, stop)])
                asked += [self.range(name).spans_of(start + bases[part], end - start) for name in names]
            will_need(np.concatenate(asked))

    def _open(self, parts: np.ndarray) -> None:
        if self.max_open < len(self._parts):
            for part in parts[self._is_open[parts]].tolist():
                self._opened[part] = self._opened.pop(part)  # wanted now: not the one to close for another
        new = parts[~self._is_open[parts]]
        num_more = len(self._opened) + len(new) - max(self.max_open, len(parts))
        try:
            if num_more > 0:
                self._close(list(itertools.islice(self._opened, num_more)))
            self._map(new, self._files, self._is_open)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise UserError(
                f"the kernel has no map left for the {len(parts):,} parts that a batch has samples of: combine their "
                "run again with --compact, or use more ranks or a smaller batch"
            ) from None
        self.are_all_open = len(self._opened) == len(self._parts)

    def _map(self, parts: np.ndarray, files: list[tuple[ColumnRange, str]], is_mapped: np.ndarray) -> None:
        """Sets `is_mapped` for those that are there, also when one is not."""
        suffixes, done = [suffix for _, suffix in files], 0
        places = zip(*(column.places(parts) for column, _ in files), strict=True)
        try:
            for part, of_part in zip(parts.tolist(), places, strict=True):
                folder, may_grow = self._folder + self._parts.path[part], self._parts.may_grow[part]
                is_joined = self._is_joined[part]
                for suffix, (address, num_bytes) in zip(suffixes, of_part, strict=True):
                    if num_bytes and not (is_joined and suffix != _IDS_FILE):
                        map_file(folder + suffix, num_bytes, address, may_grow=may_grow)
                done += 1
        finally:
            self._opened.update(dict.fromkeys(parts[:done].tolist()))
            is_mapped[parts[:done]] = True
            if self._advice == MADV_RANDOM and done:
                ends = [(int(parts[0]), int(parts[done - 1]))]
                passed_over = min(ends[0][1] - ends[0][0], len(self._opened)) // done
                self._advise(ends if passed_over < _PASSED_OVER else [(p, p) for p in parts[:done].tolist()], files)

    def _close(self, parts: list[int]) -> None:
        for part in parts:
            del self._opened[part]
        self._is_open[parts] = self.are_all_open = False
        details = [part for part in parts if self._has_details[part] and not self._is_joined[part]]
        self._has_details[parts] = self._is_joined[parts]
        for column, suffix in self._files + self._details:
            of_its_own = [part for part in parts if suffix == _IDS_FILE or not self._is_joined[part]]
            if (column, suffix) in self._details:
                of_its_own = details
            for address, num_bytes in column.places(np.array(of_its_own, np.int64)):
                if num_bytes:
                    unmap(address, num_bytes)
        if self._advice == MADV_RANDOM:
            self._advise([(part, part) for part in parts], self._files + self._details)  # joins it with its neighbours

    def _advise(self, ranges: list[tuple[int, int]], files: list[tuple[ColumnRange, str]]) -> None:
        for column, _ in files:
            for first, last in ranges:
                column.advise(first, last, MADV_RANDOM)


def _bases(rows: np.ndarray, align: int, joined: Sequence[Group]) -> tuple[np.ndarray, int]:
    """Where parts of so many rows begin, [num_parts], and how many rows there are: joined ones stand end to end."""
    first = np.ones(len(rows), bool)
    for group in joined:
        first[group.first + 1 : group.stop] = False
    starts = np.flatnonzero(first)
    bases, total = aligned_bases(np.add.reduceat(rows, starts) if len(starts) else rows, align)
    before = np.cumsum(rows) - rows
    which = np.cumsum(first) - 1
    return bases[which] + before - before[starts][which], total


def _name(column: Column) -> str:
    return os.path.splitext(column.path)[0]
