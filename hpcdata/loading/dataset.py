"""TokenDataset: random access to the examples of a combined dataset.

    ds = TokenDataset("/out")            # a dataset folder, or a run folder that contains one
    ds[7].spans                          # hpcdata.samples.Example, its ids are read-only views of the files
    DataLoader(ds, collate_fn=list)      # map-style: picklable, fork-safe, also with worker processes

Opening reads the manifest alone; a part is mapped when one of its samples is wanted first, and its file sizes are
checked then. Loaders use the vectorised methods: `spans` looks up what a batch of rows consists of, `windows`
and `ids` copy ids. They work a part at a time and never run Python per span or per id.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.columns import columns
from hpcdata.loading.manifest import Manifest, Part, read_manifest
from hpcdata.loading.maps import map_column
from hpcdata.samples import LOSS_FLAG, ROLE_MASK, Example, Kind, Role, Span

_MAX_OPEN_PARTS = 4096
"""Mapped parts at a time: the kernel allows a process about 65,000 maps."""
_COLUMNS = ("row", "kind", "length", "height", "width", "flags", "part", "first_token")


@dataclass(frozen=True, kw_only=True, eq=False)
class SpanTable:
    """What a batch of rows consists of, without the ids.

    index: [num_rows] int64, the samples' indices in the plan, in the order of the rows. The other columns are
    [num_spans] int64, sorted by part; the spans of one sample stand together, in its order.
    """

    index: np.ndarray
    row: np.ndarray
    """Which row of the batch the span belongs to, 0 to num_rows - 1."""
    kind: np.ndarray
    length: np.ndarray
    height: np.ndarray
    width: np.ndarray
    flags: np.ndarray
    part: np.ndarray
    first_token: np.ndarray
    """Where its ids start in the part's tokens."""

    @property
    def num_rows(self) -> int:
        return len(self.index)

    def select(self, mask: np.ndarray) -> SpanTable:
        """The spans where `mask` ([num_spans] bool) is set, of the same rows."""
        return SpanTable(index=self.index, **{name: getattr(self, name)[mask] for name in _COLUMNS})


class TokenDataset:
    """The examples of a dataset by row: 0 to len - 1, in the order of the plan."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest: Manifest = read_manifest(path)
        samples = [part.samples for part in self.manifest.parts]
        self._first_row = np.concatenate([[0], np.cumsum(samples, dtype=np.int64)])
        self._open_parts: dict[int, _OpenPart] = {}

    def __len__(self) -> int:
        return int(self._first_row[-1])

    def __getitem__(self, row: int) -> Example:
        """The example at `row`; negative rows count from the end."""
        size = len(self)
        if not -size <= row < size:
            raise IndexError(f"row {row} of a dataset of {size} samples")
        row = int(row) % size
        part_index = int(np.searchsorted(self._first_row, row, side="right")) - 1
        return self._part(part_index).example(row - int(self._first_row[part_index]))

    def __getitems__(self, rows: Sequence[int]) -> list[Example]:
        return [self[row] for row in rows]

    def __iter__(self) -> Iterator[Example]:
        return (self[row] for row in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open_parts": {}}

    def spans(self, rows: np.ndarray) -> SpanTable:
        """What the samples at `rows` ([num_rows] integers in [0, len)) consist of."""
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a dataset of {len(self)} samples")
        parts = np.searchsorted(self._first_row, rows, side="right") - 1
        by_part = np.argsort(parts, kind="stable")
        parts = parts[by_part]
        index, num_spans, first_span, first_token = self._sample_columns(parts, rows[by_part] - self._first_row[parts])
        ends = np.cumsum(num_spans)
        within = np.arange(int(num_spans.sum())) - np.repeat(ends - num_spans, num_spans)
        parts = np.repeat(parts, num_spans)
        columns = self._span_columns(parts, np.repeat(first_span, num_spans) + within)
        before = np.cumsum(columns["length"]) - columns["length"]
        first_of_sample = np.arange(len(within)) - within
        index_of_row = np.empty_like(index)
        index_of_row[by_part] = index
        return SpanTable(
            index=index_of_row,
            row=np.repeat(by_part, num_spans),
            part=parts,
            first_token=np.repeat(first_token, num_spans) + before - before[first_of_sample],
            **columns,
        )

    def windows(self, part: np.ndarray, start: np.ndarray, width: int) -> np.ndarray:
        """ids: [num_windows, width] from `start` in the tokens of `part` ([num_windows] each, `part` sorted).

        What stands behind the end of a span is somebody else's: mask it. Behind the end of the part it is zero.
        """
        ids = np.empty((len(start), width), self.manifest.id_dtype)
        for part_index, at in _groups(part):
            _copy_windows(self._part(part_index).ids, start[at], ids[at])
        return ids

    def ids(self, part: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        """ids: [sum of `length`], runs end to end from `start` in the tokens of `part` ([num_runs] each, sorted)."""
        ends = np.cumsum(length)
        ids = np.empty(int(length.sum()), self.manifest.id_dtype)
        at_token = np.arange(len(ids)) + np.repeat(start - (ends - length), length)
        for part_index, at in _groups(part):
            tokens = slice(int(ends[at.start] - length[at.start]), int(ends[at.stop - 1]))
            ids[tokens] = self._part(part_index).ids[at_token[tokens]]
        return ids

    def _sample_columns(self, parts: np.ndarray, local: np.ndarray) -> np.ndarray:
        """[4, num_rows] int64: index, number of spans, first span and first token of rows `local` of sorted `parts`."""
        values = np.empty((4, len(local)), np.int64)
        for part_index, at in _groups(parts):
            part, rows = self._part(part_index), local[at]
            values[0, at], values[1, at] = part.index[rows], part.num_spans[rows]
            values[2, at], values[3, at] = part.first_span[rows], part.first_token[rows]
        return values

    def _span_columns(self, parts: np.ndarray, local: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of a SpanTable for spans `local` of sorted `parts`."""
        values = np.empty((3, len(local)), np.int64)
        grid = np.empty((len(local), 2), np.int64)
        for part_index, at in _groups(parts):
            part, spans = self._part(part_index), local[at]
            values[0, at], values[1, at], values[2, at] = part.length[spans], part.kind[spans], part.flags[spans]
            grid[at] = part.grid[spans]
        length, kind, flags = values
        return {"length": length, "kind": kind, "flags": flags, "height": grid[:, 0], "width": grid[:, 1]}

    def _part(self, part_index: int) -> _OpenPart:
        part = self._open_parts.get(part_index)
        if part is None:
            while len(self._open_parts) >= _MAX_OPEN_PARTS:
                self._open_parts.pop(next(iter(self._open_parts)))
            part = _OpenPart(self.manifest, self.manifest.parts[part_index])
            self._open_parts[part_index] = part
        return part


class _OpenPart:
    """The mapped columns of one part."""

    def __init__(self, manifest: Manifest, part: Part) -> None:
        rows = {"tokens": part.tokens, "spans": part.spans, "samples": part.samples, "keys": part.key_bytes}
        maps = {
            column.path.removesuffix(".memmap"): map_column(
                manifest.folder / part.path / column.path,
                column.dtype,
                (rows[column.table], column.width) if column.width else (rows[column.table],),
            )
            for column in columns(manifest.id_dtype)
        }
        self.ids = maps["tokens/ids"]
        self.length, self.kind = maps["spans/length"], maps["spans/kind"]
        self.grid, self.flags = maps["spans/grid"], maps["spans/flags"]
        self.index, self.num_spans = maps["samples/index"], maps["samples/num_spans"]
        self.first_token, self.first_span = maps["samples/first_token"], maps["samples/first_span"]
        self.first_key, self.key_bytes = maps["samples/first_key"], maps["keys/bytes"]

    def example(self, local: int) -> Example:
        first = int(self.first_span[local])
        at = int(self.first_token[local])
        spans = []
        for span in range(first, first + int(self.num_spans[local])):
            end = at + int(self.length[span])
            spans.append(self._span(span, self.ids[at:end]))
            at = end
        return Example(index=int(self.index[local]), key=self._key(local), spans=tuple(spans))

    def _span(self, span: int, ids: np.ndarray) -> Span:
        flags = int(self.flags[span])
        return Span(
            kind=Kind(int(self.kind[span])),
            ids=ids,
            height=int(self.grid[span, 0]),
            width=int(self.grid[span, 1]),
            role=Role(flags & ROLE_MASK),
            loss=bool(flags & LOSS_FLAG),
        )

    def _key(self, local: int) -> str:
        end = self.first_key[local + 1] if local + 1 < len(self.first_key) else len(self.key_bytes)
        return self.key_bytes[self.first_key[local] : end].tobytes().decode()


def _groups(sorted_parts: np.ndarray) -> Iterator[tuple[int, slice]]:
    """(part, where it stands) for each run of equal values."""
    cuts = np.flatnonzero(np.diff(sorted_parts)) + 1
    edges = [0, *cuts.tolist(), len(sorted_parts)]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            yield int(sorted_parts[start]), slice(start, stop)


def _copy_windows(ids: np.ndarray, start: np.ndarray, out: np.ndarray) -> None:
    """out[i] = ids[start[i] : start[i] + width] by one gather over an overlapping view, in place."""
    width = out.shape[1]
    num_windows = len(ids) - width + 1
    if not width:
        return
    late = np.flatnonzero(start >= num_windows)
    if late.size:  # windows that reach over the end of the part: at most a few of a batch
        for row in late.tolist():
            rest = ids[start[row] :]
            out[row, : len(rest)] = rest
            out[row, len(rest) :] = 0
        early = np.flatnonzero(start < num_windows)
        if not early.size:
            return
        view = _overlapping(ids, num_windows, width)
        out[early] = view[start[early]]
    else:
        out[:] = _overlapping(ids, num_windows, width)[start]


def _overlapping(ids: np.ndarray, num_windows: int, width: int) -> np.ndarray:
    return np.ndarray((num_windows, width), ids.dtype, ids.data, strides=(ids.itemsize, ids.itemsize))
